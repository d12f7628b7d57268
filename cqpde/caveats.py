"""What the user of a run should know: probability at the ends of the box, cells that do not resolve the state, eigenvalues, Peclet numbers.

Each finding is warned about once per run, with a number, and is in the attributes ``ends`` and ``resolution`` of the result.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from . import dataset
from .channels.resolution import settle
from .components import to_components
from .errors import BoxWarning, CqpdeError, CqpdeWarning, ResolutionWarning
from .grid import Grid
from .runs import POSITIVITY, Problem, Run
from .suggest import suggest

Array = np.ndarray

#: Probability that may leave through open ends, or sit in their outermost cells, without a warning.
ESCAPE_WARNING = 1e-6

#: The same for ends that are walls by what the user said of them: reflecting, absorbing, outflow, specular.
WALL_WARNING = 1e-3

#: Estimated grid error (integrated trace norm) above which the cells count as too few.
UNRESOLVED = 0.05

#: Drift of trace plus escaped probability that is warned about.
DRIFT_WARNING = {"double": 1e-11, "single": 1e-5}

#: States of more values than this are not transformed for the estimate alone.
LARGE = 1 << 24


def caveats(problem: Problem, run: Run) -> dict[str, Any]:
    """Warn of what was found; returns attributes of the result: ``ends`` and ``resolution`` in words, ``resolution_error`` as a number."""
    ends = _ends(problem, run)
    error, how = _resolution(problem, run)
    enough = "the cells resolve the state" if error <= UNRESOLVED else f"the cells do not resolve the state (error above {UNRESOLVED:g})"
    resolution = f"estimated error {error:.2g} in integrated trace norm, {how}: {enough}" if np.isfinite(error) else "not estimated"
    if error > UNRESOLVED:
        _say(f"{resolution}. Use more cells, or Grid.suggest", ResolutionWarning)
    _positivity(run, problem.precision)
    return {"ends": "; ".join(ends) or "nothing reached the ends", "resolution": resolution, "resolution_error": float(error)}


def _say(text: str, category: type[CqpdeWarning] = CqpdeWarning) -> None:
    warnings.warn(text, category, stacklevel=5)


def _ends(problem: Problem, run: Run) -> list[str]:
    """What reached or left through each end, and from when on; warns once for the open ends and once for the walls."""
    grid, d = problem.grid, run.recorder.diagnostics
    inside = d["end_probability"].max(axis=1)  # (times, faces)
    left = np.real(np.einsum("tbfaa->tbf", run.recorder.escaped)).max(axis=1)
    kinds = [end.kind for axis in grid.axes for end in axis.ends]
    names = dataset.face_names(grid)
    found: dict[bool, list[str]] = {True: [], False: []}  # by whether the end is open
    axes: dict[bool, set[str]] = {True: set(), False: set()}
    for face, kind in enumerate(kinds):
        if kind == "periodic":
            continue
        is_open = kind == "open"
        limit = ESCAPE_WARNING if is_open else WALL_WARNING
        amount = left[:, face] if is_open else np.maximum(inside[:, face], left[:, face])
        if amount.max() <= limit or (not is_open and amount[0] > limit):  # a state that starts at a wall is meant to be there
            continue
        when = float(problem.times[int(np.flatnonzero(amount > limit)[0])])
        did = "left through" if amount[-1] == left[-1, face] and left[-1, face] > 0 else "is at"
        found[is_open].append(f"{amount.max():.2g} {did} the {kind} end {names[face]} (from t = {when:.4g} on)")
        axes[is_open].add(grid.axes[face // 2].name)
    if found[True]:
        _say(f"probability left through open ends: {'; '.join(found[True])}. Widen the box{_box(problem, axes[True])}, or say what the ends do")
    edge = float(d["edge_probability"].max())
    if run.route.method == "split" and edge > max(ESCAPE_WARNING, 0.1 * problem.tol):
        when = float(problem.times[int(np.argmax(d["edge_probability"].max(axis=1) > max(ESCAPE_WARNING, 0.1 * problem.tol)))])
        touched = {grid.axes[f // 2].name for f, kind in enumerate(kinds) if kind == "open" and inside[:, f].max() > 0.1 * edge}
        _say(f"probability {edge:.2g} reached the open ends by t = {when:.4g}, where the split route goes round. Widen the box{_box(problem, touched)}")
        found[True].append(f"{edge:.2g} reached the open ends by t = {when:.4g}")
    if found[False]:
        remedy = f"If that is no wall of the problem, widen the box{_box(problem, axes[False])}"
        _say(f"probability reached the ends: {'; '.join(found[False])}. {remedy}", BoxWarning)
    return found[True] + found[False]


def _box(problem: Problem, axes: set[str]) -> str:
    """Bounds that :meth:`Grid.suggest` proposes for some axes, in words."""
    wide = suggested(problem, axes)
    if wide is None:
        return " (see Grid.suggest)"
    return " to " + ", ".join(f"{a.name} = ({a.lower:g}, {a.upper:g})" for a in wide.axes if a.name in axes) + " (Grid.suggest)"


def suggested(problem: Problem, axes: set[str]) -> Grid | None:
    """The box that would hold the state for the whole run; None where it cannot be told, or is no wider along ``axes``."""
    try:
        grid = suggest(problem.model, problem.states[0], float(problem.times[-1] - problem.times[0]), start=float(problem.times[0]), paths=600)
    except (CqpdeError, np.linalg.LinAlgError):
        return None
    pairs = [(a, problem.grid.axis(a.name)) for a in grid.axes if a.name in axes]
    return grid if pairs and any(a.lower < b.lower or a.upper > b.upper for a, b in pairs) else None


def _resolution(problem: Problem, run: Run) -> tuple[float, str]:
    """Estimate of the error of the cells, the largest so far, and how it was made.

    Without a second run the highest modes of all frames are looked at: cells that are much too few smooth a state until it looks resolved.
    """
    known = run.recorder.diagnostics["grid_error"]
    if np.any(np.isfinite(known)):
        return float(np.nanmax(known)), "content of the highest modes" if run.resolved else "by a run on half the cells"
    if np.prod(run.recorder.frame_shape) > LARGE:
        return float("nan"), ""
    states = [problem.components(), *(to_components(np.moveaxis(frame, 0, 2)) for frame in map(run.recorder.field, range(len(problem.kept))))]
    return max(float(settle(x, problem.grid, problem.model.dim, 0.0).unresolved) for x in states), "content of the highest modes"


def _positivity(run: Run, precision: str) -> None:
    d = run.recorder.diagnostics
    drift = float(np.max(np.abs(d["trace"] + d["escaped_probability"] - d["trace"][:1] - d["escaped_probability"][:1])))
    if drift > DRIFT_WARNING[precision]:
        _say(f"trace and escaped probability drifted by {drift:.2g}: round-off of many steps. Raise tol, or use fewer steps")
    if run.peclet > 2.0:
        _say(
            f"the largest cell-Peclet number h|B|/s is {run.peclet:.3g} (above 2): the result stays physical but the grid adds noise there. Use more cells along noisy axes"
        )
    lowest = float(d["min_eigenvalue"].min())
    if run.exactly_positive and lowest < POSITIVITY:
        _say(f"rho is not positive: smallest eigenvalue {lowest:.3g} of the largest trace (the model is not completely positive)")
    elif not run.exactly_positive and lowest < -max(-POSITIVITY, run.tolerated):
        why = "linear transport is not exactly positive" if run.route.method == "fv" else "this route is positive to the size of its errors"
        _say(f"rho is not positive: smallest eigenvalue {lowest:.3g} of the largest trace ({why}). Use more cells, or positivity='exact'")
