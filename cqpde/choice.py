"""Choosing the route of a run: ``split`` where every part of the model is solved exactly, ``fv`` for everything else, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .channels import positive
from .channels.parts import Obstacle, Structure
from .channels.proposal import steps_of
from .channels.structure import analyse
from .errors import OptionError
from .fv.generator import TRANSPORTS
from .grid import Grid
from .model import Model
from .options import require_word

Array = np.ndarray

METHODS = ("auto", "split", "fv")

#: Ways to stream in the split route with exact positivity.
SPLIT_TRANSPORTS = ("shift", "limited")

#: Under ``auto``: content of the watched band of modes (integrated trace norm) above which a state counts as not resolved.
UNRESOLVED = 0.3

#: What is advised where a model does not fit the split route.
OTHER_ROUTE = "Use method='fv'"


@dataclass(frozen=True)
class Route:
    """What was chosen.

    Attributes
    ----------
    method : {"split", "fv"}
    reason : str
    transport : str
        ``spectral``, ``shift`` or ``limited`` (split); ``limited``, ``upwind`` or ``linear`` (fv).
    structure : Structure or None
        Parts of the model (split).
    unit, multiple : float, int
        Shortest step by whole cells, and how many of it divide the gaps between outputs (``shift``; zero where nothing is shifted).
    order : int
        Of the composition in the step (``shift``).
    """

    method: str
    reason: str
    transport: str
    structure: Structure | None = None
    unit: float = 0.0
    multiple: int = 0
    order: int = 2


def check_words(method: str, transport: str | None, positivity: str | None) -> None:
    """Refuse unknown words, and combinations without meaning."""
    require_word("method", method, METHODS, "must be a known method")
    if transport is not None:
        require_word("transport", transport, dict.fromkeys((*TRANSPORTS, *SPLIT_TRANSPORTS)), "must be a known mode")
    if positivity is not None and not (isinstance(positivity, str) and positivity == "exact"):
        raise OptionError("positivity", "must be 'exact' or left out", repr(positivity), "Left out, split is positive to the size of its errors")
    if method == "fv" and transport == "shift":
        raise OptionError("transport", "whole-cell shifts belong to method='split'", "'shift'", "Use limited, upwind or linear")
    if method == "split" and transport in ("upwind", "linear"):
        raise OptionError("transport", "belongs to method='fv'", repr(transport), "Leave it out, or use method='fv'")
    if (method == "split" or transport == "shift") and transport is not None and positivity is None:
        raise OptionError("transport", "of method='split' needs positivity='exact'", repr(transport), "Add it, or leave transport out")
    if positivity == "exact" and transport == "linear":
        raise OptionError("transport", "linear transport is not exactly positive", "'linear'", "Use limited or upwind")


def structure_of(model: Model, grid: Grid, times: tuple[float, ...]) -> Structure | Obstacle:
    """The parts of a model on a grid, found once per model, grid and times."""
    store = model.__dict__.setdefault("_structures", {})
    if (grid, times) not in store:
        if len(store) > 16:
            store.clear()
        store[grid, times] = analyse(model, grid, times)
    return store[grid, times]


def choose(
    model: Model, grid: Grid, unresolved: float, times: tuple[float, ...], gaps: Array,
    method: str, transport: str | None, positivity: str | None, nearest: Callable[[Structure], str],
) -> Route:  # fmt: skip
    """Choose the route of a run.

    Parameters
    ----------
    unresolved : float
        Content of the initial state in the watched band of the cells.
    times : tuple of float
        Times at which the coefficients are looked at.
    gaps : array
        Times between successive outputs and jumps of the coefficients.
    nearest : callable
        Names the nearest grid that works with exact positivity.

    Raises
    ------
    ModelError, GridError, OptionError
        If ``method="split"`` was asked for and a term does not fit: it is named.
    """
    if method == "fv":
        return Route("fv", "asked for", transport or "limited")
    if method == "auto" and transport in TRANSPORTS:
        return Route("fv", f"transport='{transport}' belongs to the finite-volume route", transport)
    found = structure_of(model, grid, times)
    if isinstance(found, Structure):
        found = fits(grid, found, positivity) or found
    if isinstance(found, Obstacle):
        return _refused(method, found, transport)
    asked = "asked for" if method == "split" else "every part of the model is solved exactly"
    reason = f"{asked}: {found.describe(grid)}" + ("; callables were probed on the cells" if found.probed else "")
    if positivity is None:
        if method == "auto" and unresolved > UNRESOLVED:
            return Route("fv", f"the cells do not resolve the initial state well enough for the split route ({unresolved:.2g})", "limited")
        return Route("split", reason, "spectral", found)
    wanted = transport or "shift"
    obstacle = positive.obstacle(model, grid, found, times, wanted)
    if obstacle is not None:
        return _refused(method, obstacle, transport)
    if wanted == "limited":
        return Route("split", reason, "limited", found)
    steps = steps_of(model, grid, found, gaps, times[0])
    if steps is not None:
        return Route("split", reason, "shift", found, *steps)
    obstacle = Obstacle(
        "Grid", "positivity='exact' needs drifts that move by whole cells in steps that divide the times between outputs", "fewer than two such steps in the shortest"
    )
    return _refused(method, obstacle, transport, nearest(found))


def fits(grid: Grid, structure: Structure, positivity: str | None) -> Obstacle | None:
    """What the parts themselves do not tell."""
    if positivity is None and structure.walls:
        name = structure.walls[0]
        kind = next(e.kind for e in grid.axis(name).ends if e.kind in ("outflow", "specular"))
        return Obstacle(f"Grid({name}=...)", "a streaming axis of the split route is open or periodic", repr(kind))
    return None


def _refused(method: str, obstacle: Obstacle, transport: str | None, remedy: str = OTHER_ROUTE) -> Route:
    if method == "split":
        raise obstacle.error(remedy)
    hint = f" ({remedy})" if remedy != OTHER_ROUTE else ""
    return Route("fv", f"the split route does not fit: {obstacle}{hint}", transport if transport in TRANSPORTS else "limited")
