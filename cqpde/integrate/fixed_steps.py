r"""Advance a state by equal steps of a symmetric composition, order 2: what a large grid has memory and time for.

Nothing is adapted: the cells are the user's, the step is the one asked for (rounded so that a whole number of them fills every gap between
outputs), and one state is stepped in place. The time error is estimated where it costs little: the same run on half the cells along every
axis, with this step and with twice the step, whose difference (which is three times the error of the smaller step where the cells resolve the
state, and contains what they do not) is reported as the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from ..channels.compose import Composition
from ..channels.resolution import norm_of_tail, resample_to, spread
from ..checkpoint import NoKeeper
from ..components import trace_norm_bound
from ..errors import RouteError
from ..grid import Grid
from .evolve import Frame, Progress, require_finite

Array = np.ndarray

#: Probability that a step may carry beyond an open end.
MOST_BEYOND = 1e-3


def fixed_steps(
    compose: Callable[[Grid], Composition], grid: Grid, dim: int, x: Array, times: Array, dt: float, report: Callable[[float], None],
    keeper: NoKeeper | None = None,
) -> Iterator[Frame]:  # fmt: skip
    """Yield a frame at every one of ``times``.

    Parameters
    ----------
    compose : callable
        Makes the composition on a grid.
    x : array (d^2, batch, *cells)
        State at the first time, in the basis of the composition.
    dt : float
        Step; the actual one is the next smaller that divides the gap.
    keeper : NoKeeper, optional
        Is offered the state after every step; where it resumes a run, only the frames that are left are yielded.

    Raises
    ------
    RouteError
        If a step carries more than 1e-3 beyond an open end.
    """
    counts = [max(1, int(np.ceil(gap / dt - 1e-9))) for gap in np.diff(times)]
    composition, keeper = compose(grid), keeper or NoKeeper()
    batch, volume, saved = x.shape[1], grid.cell_volume, keeper.resumed
    escaped = np.zeros((batch, 2 * grid.ndim, x.shape[0]))
    progress, first, begun = Progress(tail=0.0), 1, 0
    tails = [0.0] * grid.ndim
    if saved is None:
        errors = np.zeros(len(counts))
        if not composition.exact:
            errors = _time_errors(compose(grid.coarsened()), resample_to(x, grid.coarsened()), times, counts)
        yield Frame(0, float(times[0]), x.reshape(x.shape[0], -1), escaped, replace(progress))
        x = x.copy()
    else:
        x, escaped, errors = saved.array("x", *x.shape), saved.array("escaped", *escaped.shape), saved.array("errors", len(counts))
        tails, progress = saved.array("tails", grid.ndim).tolist(), Progress(**saved.fields("progress", progress))
        first = saved.count("index", 1, len(times))
        begun = saved.count("done", 0, counts[first - 1] if first < len(times) else 0)
    for index, ((start, end), count) in enumerate(zip(pairwise(times[first - 1 :]), counts[first - 1 :], strict=True), start=first):
        step = float(end - start) / count
        if begun == 0:
            tails = [0.0] * grid.ndim
            beyond = composition.open_ends(float(start), float(end - start)).beyond(x, step)
            if beyond > MOST_BEYOND:
                raise RouteError("Grid", "the split route needs open ends out of reach", f"a step carries {beyond:.2g} there", "Widen the box, or use method='fv'")

        def seen(now: float, done: int, y: Array, gone: Array, index: int = index, tails: list[float] = tails, count: int = count) -> None:
            progress.edge = max(progress.edge, edge_content(y, grid, dim))
            report(now)
            if done < count:
                keeper.offer(index, lambda: _state(y, gone, errors, tails, progress, now, done))

        x, escaped = composition.chain(x, escaped, float(start), float(end - start), count, tails, in_place=True, first=begun, seen=seen)
        begun = 0
        filled = min(spread(x, dim, volume), volume * float(np.prod(grid.shape)))
        progress.tail = max(progress.tail or 0.0, *(norm_of_tail(s, filled, volume, dim) for s in tails))
        progress.steps += count
        progress.applications += count
        progress.dt, progress.time_error = step, float(errors[index - 1])
        require_finite(x.reshape(x.shape[0], -1), grid, float(end), progress.steps)
        yield Frame(index, float(end), x.reshape(x.shape[0], -1), escaped, replace(progress))
        keeper.offer(index + 1, lambda x=x, e=escaped, now=float(end): _state(x, e, errors, [0.0] * grid.ndim, progress, now, 0))  # type: ignore[misc]


def _state(x: Array, escaped: Array, errors: Array, tails: list[float], progress: Progress, t: float, done: int) -> tuple[dict[str, Array], dict[str, Any]]:
    """What a run goes on from, ``done`` steps after the last output."""
    return {"x": x, "escaped": escaped, "errors": errors, "tails": np.array(tails)}, {"progress": vars(progress), "t": t, "done": done}


def edge_content(x: Array, grid: Grid, dim: int) -> float:
    """Probability in the outermost cells of open axes, the largest over ends and batch."""
    worst = 0.0
    for i, axis in enumerate(grid.axes):
        if not axis.periodic:
            for place in (0, axis.n - 1):
                f = np.take(x[:dim], place, axis=i + 2).sum(axis=0)
                worst = max(worst, float(np.abs(f).reshape(f.shape[0], -1).sum(axis=1).max()))
    return worst * grid.cell_volume


def _time_errors(composition: Composition, x: Array, times: Array, counts: list[int]) -> Array:
    """Differences between steps of this length and of twice it, on few cells, at every output."""
    ends = []
    for share in (1, 2):
        y, e = x.copy(), np.zeros((x.shape[1], 2 * composition.grid.ndim, x.shape[0]))
        states = []
        for (start, end), count in zip(pairwise(times), counts, strict=True):
            y, e = composition.chain(y, e, float(start), float(end - start), max(1, -(-count // share)), None)
            states.append(y)
        ends.append(states)
    return np.array([trace_norm_bound((a - b).reshape(len(a), -1), a.shape[1], composition.grid.cell_volume) for a, b in zip(*ends, strict=True)])
