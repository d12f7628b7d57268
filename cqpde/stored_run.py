"""What a checkpoint keeps of a run of :func:`cqpde.solve` so that it can be made again: states, times, options, model; and back.

States are kept as arrays: on the user's cells, on the cells that carry them inside (``split``), and on half the cells (grid error), so that no
recipe is needed to go on. Functions given in Python (``model``, ``save=``) are not kept and must be given again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .channels.resolution import Start
from .checkpoint import Keeper, NoKeeper
from .choice import Route
from .errors import CqpdeError, FileError, ModelError, OptionError
from .grid import Grid
from .initial import State
from .model import Model
from .runs import Problem
from .stored_model import fingerprint, grid_from, grid_record, model_again, model_record

Array = np.ndarray


@dataclass(frozen=True)
class Coarse:
    """The initial states on half the cells, or why there are none."""

    grid: Grid
    states: list[State]
    error: str = ""


def coarse_states(states: list[State], grid: Grid) -> Coarse | None:
    """Sample the states on half the cells; None where they have no recipe."""
    if any(s.recipe is None for s in states):
        return None
    coarse = grid.coarsened()
    try:
        return Coarse(coarse, [s.on(coarse) for s in states])
    except CqpdeError as error:
        return Coarse(coarse, [], str(error))


def begin(
    keeper: NoKeeper, problem: Problem, route: Route, single: bool, options: dict[str, Any], start: Start | None, coarse: Callable[[], Coarse | None]
) -> None:
    """Start to keep a run."""
    if isinstance(keeper, Keeper):
        record = lambda: record_of(keeper, "solve", problem.model, problem.states, problem.times, single, options, start, coarse())
        keeper.begin(record, disk_need(problem.state_bytes, len(problem.times), len(problem.kept), route.transport))


def record_of(
    keeper: Keeper, kind: str, model: Model, states: list[State], times: Array, single: bool, options: dict[str, Any], start: Start | None = None,
    coarse: Coarse | None = None,
) -> tuple[dict[str, Any], dict[str, Array]]:  # fmt: skip
    """Record and initial arrays of a run; what :func:`reopened` reads."""
    grid = states[0].grid
    arrays = {"times": times, **{f"rho {b}": s.rho if s.bytes_held else s.array() for b, s in enumerate(states)}}
    record: dict[str, Any] = {
        "kind": kind, "single": single, "grid": grid_record(grid), "model": None, "options": _options(options),
        "fingerprint": fingerprint(model, grid, float(times[0]), float(times[-1])),
        "states": [[float(s.normalisation), s.note, float(s.slack)] for s in states],
    }  # fmt: skip
    if "config" not in keeper.source:
        record["model"] = model_record(model, arrays)
    if start is not None:
        arrays["start"] = start.x
        record["start"] = [list(start.cells), float(start.unresolved)]
    if coarse is not None:
        arrays |= {f"coarse {b}": s.rho for b, s in enumerate(coarse.states)}
        record["coarse"] = {"grid": grid_record(coarse.grid), "error": coarse.error, "states": len(coarse.states)}
    return record, arrays


def disk_need(state: float, outputs: int, frames: int, transport: str) -> float:
    """Bytes that the files of a run may take, of so many in a state: initial states, three checkpoints (one while it is written), outputs, and the result."""
    checkpoint = state * (2 * outputs if transport == "shift" else 1)  # two marches are compared at all outputs
    return 4 * state + 3 * checkpoint + 2 * 2 * state * frames + 1e5


def _options(options: dict[str, Any]) -> dict[str, Any]:
    """Options as plain data; ``save=`` with functions is named only."""
    out = {}
    for name, value in options.items():
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        if name == "save" and isinstance(value, Mapping):
            value = {str(k): v if isinstance(v, str) else None for k, v in value.items()}
        out[name] = value
    return out


def reopened(keeper: Keeper, model: Model | None, save: Any) -> tuple[Model, Any, Array, dict[str, Any]]:
    """Model, initial states, times and options of a run that is resumed.

    Raises
    ------
    FileError, ModelError, OptionError
        If the record is damaged, or what must be given again is missing or another one.
    """
    record, arrays = keeper.record or {}, keeper.initial
    try:
        grid, single, options = grid_from(record["grid"]), bool(record["single"]), dict(record["options"])
        times, about = arrays["times"], record["states"]
        states = []
        for b, (normalisation, note, slack) in enumerate(about):
            rho = arrays[f"rho {b}"]
            if rho.shape[2:] != grid.shape or rho.shape[0] != rho.shape[1] or rho.dtype != complex:
                raise ValueError(f"rho of shape {rho.shape}")
            states.append(State(grid, rho, None, float(normalisation), str(note), slack=float(slack)))
        if not states or (single and len(states) > 1) or times.ndim != 1 or len(times) < 2:
            raise ValueError("no states or times")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, CqpdeError) as error:
        raise FileError(str(keeper.folder), "must hold a run of cqpde.solve", str(error)[:200], "It is damaged") from None
    stored = model_again(keeper, model)
    options["save"] = saved_again(options.get("save"), save)
    if stored.coordinates != grid.names or fingerprint(stored, grid, float(times[0]), float(times[-1])) != record.get("fingerprint"):
        raise ModelError("model", "must be the one that the run was begun with", "other values of its coefficients", "Give the same model")
    return stored, states[0] if single else states, times, options


def saved_again(stored: Any, given: Any) -> Any:
    """``save=`` of a run that is resumed: functions must be given again under the same names, anything else is known."""
    functions = [k for k, v in stored.items() if v is None] if isinstance(stored, Mapping) else []
    if not functions:
        if given is not None:
            found = "nothing" if not stored else ", ".join(stored)
            raise OptionError("save", "of a run that is resumed is that of its beginning, which was kept", f"{given!r:.60} for a run that saves {found}", "Leave it out")
        return stored
    if not isinstance(given, Mapping) or set(given) != set(stored):
        raise OptionError("save", "holds Python functions, which a checkpoint does not", "None" if given is None else str(list(given)), f"Give save= with {', '.join(stored)} again")
    return {k: given[k] for k in stored}


def start_of(keeper: NoKeeper, dim: int) -> Start | None:
    """The initial state on the cells that carry it, of a run that is resumed."""
    record = keeper.record or {}
    if "start" not in record:
        return None
    try:
        cells, unresolved = record["start"]
        x = keeper.initial["start"]
        if x.shape != (dim**2, len(record["states"]), *cells) or x.dtype != float:
            raise ValueError(f"start of shape {x.shape}")
        return Start(x, tuple(cells), float(unresolved))
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(str(keeper.folder), "must hold the start of a run", str(error)[:200], "It is damaged") from None


def coarse_of(keeper: NoKeeper) -> Coarse | None:
    """The initial states on half the cells, of a run that is resumed."""
    record = keeper.record or {}
    if "coarse" not in record:
        return None
    try:
        entry = record["coarse"]
        grid = grid_from(entry["grid"])
        states = [State(grid, keeper.initial[f"coarse {b}"]) for b in range(entry["states"])]
        if any(s.rho.shape[2:] != grid.shape for s in states):
            raise ValueError("coarse states of another shape")
        return Coarse(grid, states, str(entry["error"]))
    except (KeyError, TypeError, ValueError, CqpdeError) as error:
        raise FileError(str(keeper.folder), "must hold the coarse start of a run", str(error)[:200], "It is damaged") from None
