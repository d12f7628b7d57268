"""The TOML file of ``cqpde run``: read, validated, and turned into model, grid, initial state and options.

A file has the tables ``[model]``, ``[grid]``, ``[initial]``, ``[time]`` and, optionally, ``[solver]``. Expressions are strings in the
coordinates, ``t`` and ``[model.parameters]``, read by the allow-list parser of :mod:`cqpde.expressions`; nothing is evaluated as code.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from . import models
from .errors import ConfigError, did_you_mean
from .expressions import parse, parse_matrix
from .grid import Grid
from .hamiltonian import healed
from .initial import State, gaussian, point, product
from .model import Model
from .operators import ket

Array = np.ndarray
Text = str | float | int
Matrix = Text | list[Any]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)


class ModelTable(_Table):
    """``[model]``: a shipped model by ``name``, a Hamiltonian one (``H_C``, ``H_I``, ``sigma``), or the general form."""

    name: str | None = None
    description: str = ""
    parameters: dict[str, float | str] = {}
    check: Literal["error", "warn", "off"] = "error"
    pairs: list[tuple[str, str]] | None = None
    H_C: Text | None = None
    H_I: Matrix | None = None
    sigma: dict[str, Text] | list[list[Text]] | None = None
    excess: Matrix | None = None
    coordinates: list[str] | None = None
    dim: int | None = None
    H: Matrix | None = None
    L: list[Matrix] | None = None
    D0: Matrix | None = None
    D1: Matrix | dict[str, Any] | None = None
    D2: Matrix | dict[str, Any] | None = None
    D1C: list[Text] | dict[str, Text] | None = None


class InitialTable(_Table):
    """``[initial]``: ``gaussian`` (mean, std or cov), ``point`` (at) or ``product`` (density), times a ``state``."""

    kind: Literal["gaussian", "point", "product"] = "gaussian"
    mean: dict[str, float] = {}
    std: dict[str, float] | float | None = None
    cov: list[list[float]] | None = None
    at: dict[str, float] | None = None
    density: Text | None = None
    state: str | list[Any]


class TimeTable(_Table):
    """``[time]``: ``outputs`` times from ``start`` to ``end``, or the list ``t``."""

    start: float = 0.0
    end: float | None = None
    outputs: int = 11
    t: list[float] | None = None


class SolverTable(_Table):
    """``[solver]``: options of :func:`cqpde.solve`; with ``follow = true`` those of :func:`cqpde.follow`."""

    follow: bool = False
    margin: float | None = None

    tol: float = 1e-4
    method: str = "auto"
    positivity: str | None = None
    transport: str | None = None
    dt_max: float | None = None
    dt: float | None = None
    save: list[str] | None = None
    frames: list[float] | None = None
    grid_error: bool = True
    precision: str = "double"
    skip_below: float = 0.0


class File(_Table):
    """A whole file."""

    model: ModelTable
    grid: dict[str, list[Any]] | None = None
    initial: InitialTable | None = None
    time: TimeTable | None = None
    solver: SolverTable = SolverTable()


@dataclass(frozen=True)
class Problem:
    """What a file says: everything :func:`cqpde.solve` needs, and the text for the record."""

    model: Model
    rho0: State
    times: Array
    options: dict[str, Any]
    text: str
    exact: Any = None


def read(path: str | Path, cells: Callable[[Grid], Grid] | None = None) -> Problem:
    """Read a TOML file.

    Parameters
    ----------
    cells : callable, optional
        Changes the grid of the file before the initial state is made on it.

    Raises
    ------
    ConfigError
        Naming the key, the rule, the value and the nearest known key; also for a missing or malformed file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            str(path), "must be a readable TOML file", error.strerror or "an error", "Check the path"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), "must be UTF-8 text", "other bytes", "Save it as UTF-8") from None
    return parse_text(text, str(path), cells)


def parse_text(text: str, where: str = "config", cells: Callable[[Grid], Grid] | None = None) -> Problem:
    """Read the text of a TOML file (see :func:`read`)."""
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(where, "must be valid TOML", str(error)[:200], "See the README for an example") from None
    try:
        file = File.model_validate(raw)
    except ValidationError as error:
        raise _translate(error, where) from None
    return _problem(file, text, cells)


def _translate(error: ValidationError, where: str) -> ConfigError:
    first = error.errors()[0]
    place = [str(p) for p in first["loc"]]
    if first["type"] == "extra_forbidden":
        table: Any = File
        for name in place[:-1]:
            annotation = table.model_fields[name].annotation
            table = next(
                (
                    a
                    for a in (annotation, *getattr(annotation, "__args__", ()))
                    if isinstance(a, type) and issubclass(a, BaseModel)
                ),
                File,
            )
        return ConfigError(
            f"{where}: {'.'.join(place)}", "unknown key", repr(place[-1]), did_you_mean(place[-1], table.model_fields)
        )
    found = repr(first["input"])
    return ConfigError(
        f"{where}: {'.'.join(place)}",
        first["msg"],
        found if len(found) < 80 else found[:77] + "...",
        "See the README for the keys",
    )


def _problem(file: File, text: str, cells: Callable[[Grid], Grid] | None) -> Problem:
    m = file.model
    shipped = m.name in models.CATALOGUE and m.H_C is None and m.coordinates is None
    options = {k: v for k, v in file.solver.model_dump(exclude_unset=True).items() if v is not None}
    if shipped:
        base = models.setup(str(m.name), **m.parameters)
        options = models.merged(base.options, options)
        model, grid, exact = base.model, base.grid, base.exact
    else:
        model, grid, exact = _model(m), None, None
    if file.grid is not None:
        grid = Grid(
            **{
                name: (*spec[:3], *[tuple(b) if isinstance(b, list) else b for b in spec[3:]])
                for name, spec in file.grid.items()
            }
        )
    if grid is None:
        raise ConfigError("grid", "is needed", "no [grid] table", "Write e.g. q = [-5, 5, 128] under [grid]")
    if cells is not None:
        grid = cells(grid)
    if file.initial is not None:
        rho0, exact = _initial(file.initial, grid, m.parameters), None
    elif shipped:
        rho0 = base.rho0.on(grid)
    else:
        raise ConfigError(
            "initial", "is needed", "no [initial] table", "Write e.g. mean, std and state under [initial]"
        )
    if file.time is not None:
        times = _times(file.time)
    elif shipped:
        times = base.times
    else:
        raise ConfigError("time", "is needed", "no [time] table", "Write e.g. end = 1.0 under [time]")
    return Problem(model, rho0, times, options, text, exact)


def _times(table: TimeTable) -> Array:
    if (table.t is None) == (table.end is None):
        raise ConfigError("time", "give exactly one of t and end", "both" if table.t else "neither", "Write end = 1.0")
    if table.t is not None:
        return np.array(table.t)
    if table.outputs < 2:
        raise ConfigError("time.outputs", "must be at least 2", table.outputs, "The start counts as one")
    assert table.end is not None
    return np.linspace(table.start, table.end, table.outputs)


def _names(coordinates: list[str], parameters: dict[str, float | str], time: bool = True) -> dict[str, Any]:
    import sympy

    names: dict[str, Any] = {c: sympy.Symbol(c, real=True) for c in coordinates}
    if time:
        names["t"] = sympy.Symbol("t", real=True)
    for key, value in parameters.items():
        if key in names:
            raise ConfigError(f"model.parameters.{key}", "must not be a coordinate or t", key, "Rename the parameter")
        if isinstance(value, str):
            raise ConfigError(f"model.parameters.{key}", "must be a number", repr(value), "Words are for shipped models")
        if not np.isfinite(value):
            raise ConfigError(f"model.parameters.{key}", "must be finite", value, "Correct the value")
        names[key] = sympy.Float(value) if value != int(value) else sympy.Integer(int(value))
    return names


def _model(table: ModelTable) -> Model:
    general = [k for k in ("coordinates", "dim", "H", "L", "D0", "D1", "D2", "D1C") if getattr(table, k) is not None]
    hamiltonian = [k for k in ("pairs", "H_C", "H_I", "sigma") if getattr(table, k) is not None]
    name = table.name or ("healed" if hamiltonian else "custom")
    if general and hamiltonian:
        raise ConfigError(
            "model",
            "is either Hamiltonian (pairs, H_C, H_I, sigma) or general (coordinates, dim, ...)",
            f"{hamiltonian[0]} and {general[0]}",
            "Keep one form",
        )
    if hamiltonian:
        for key in ("pairs", "H_C", "H_I", "sigma"):
            if getattr(table, key) is None:
                raise ConfigError(
                    f"model.{key}", "is needed for a Hamiltonian model", "nothing", "Needed: pairs, H_C, H_I, sigma"
                )
        assert table.pairs is not None and table.sigma is not None
        names = _names([c for pair in table.pairs for c in pair], table.parameters)
        sigma: Any = (
            {k: _scalar(v, names, f"model.sigma.{k}") for k, v in table.sigma.items()}
            if isinstance(table.sigma, dict)
            else parse_matrix(table.sigma, names, "model.sigma")
        )
        excess = None if table.excess is None else parse_matrix(table.excess, names, "model.excess")
        return healed(
            table.pairs, _scalar(table.H_C, names, "model.H_C"), parse_matrix(table.H_I, names, "model.H_I"), sigma,
            excess=excess, check=table.check, name=name, description=table.description,
        )  # fmt: skip
    if table.coordinates is None or table.dim is None:
        known = [*models.CATALOGUE, "pairs + H_C + H_I + sigma", "coordinates + dim + ..."]
        raise ConfigError(
            "model", "must name a shipped model or state one", repr(table.name), did_you_mean(str(table.name), known)
        )
    names = _names(table.coordinates, table.parameters)

    def read(key: str) -> Any:
        value = getattr(table, key)
        if value is None or (key == "D0" and value == "saturated"):
            return value
        if isinstance(value, dict):
            return {
                k: [parse_matrix(x, names, f"model.{key}.{k}") for x in v]
                if isinstance(v, list)
                else _scalar(v, names, f"model.{key}.{k}")
                for k, v in value.items()
            }
        if key in ("L", "D1C"):
            return [parse_matrix(x, names, f"model.{key}[{i}]") for i, x in enumerate(value)]
        return parse_matrix(value, names, f"model.{key}")

    fields = {key: read(key) for key in ("H", "L", "D0", "D1", "D2", "D1C", "excess")}
    return Model(table.coordinates, table.dim, check=table.check, name=name, description=table.description, **fields)


def _scalar(value: Any, names: dict[str, Any], where: str) -> Any:
    return parse(value, names, where) if isinstance(value, str) else value


def _initial(table: InitialTable, grid: Grid, parameters: dict[str, float | str]) -> State:
    names = _names(list(grid.names), parameters, time=False)
    state = _state(table.state, grid, names)
    used = {"gaussian": ("mean", "std", "cov"), "point": ("at",), "product": ("density",)}[table.kind]
    for key in ("mean", "std", "cov", "at", "density"):
        if getattr(table, key) not in (None, {}) and key not in used:
            raise ConfigError(
                f"initial.{key}", f"has no meaning for kind = {table.kind!r}", "a value", f"Used: {', '.join(used)}"
            )
    if table.kind == "gaussian":
        return gaussian(grid, table.mean, table.std, state, cov=table.cov)
    if table.kind == "point":
        return point(grid, table.at or {}, state)
    if table.density is None:
        raise ConfigError(
            "initial.density", "is needed for kind = 'product'", "nothing", "Write an expression in the coordinates"
        )
    return product(grid, _scalar(table.density, names, "initial.density"), state)


def _state(value: Any, grid: Grid, names: dict[str, Any]) -> Any:
    """A label ("+"), a ket or density matrix of numbers, or of expressions in the coordinates (a correlated state)."""
    if isinstance(value, str):
        return ket(value)
    matrix = bool(value) and isinstance(value[0], list)
    entries = [_scalar(e, names, "initial.state") for row in value for e in (row if matrix else [row])]
    symbols = {s.name for e in entries for s in getattr(e, "free_symbols", ())}
    if not symbols:
        numbers = np.array([complex(e) for e in entries])
        return numbers.reshape(len(value), -1) if matrix else numbers
    import sympy

    function = sympy.lambdify([sympy.Symbol(n, real=True) for n in grid.names], entries, modules=["scipy", "numpy"])

    def correlated_state(z: Any) -> Any:
        flat = function(*[z[n] for n in grid.names])
        return [flat[i * len(value) : (i + 1) * len(value)] for i in range(len(value))] if matrix else flat

    return correlated_state
