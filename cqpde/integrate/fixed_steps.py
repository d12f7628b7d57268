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

import numpy as np

from ..channels.compose import Composition
from ..channels.resolution import norm_of_tail, resample_to, spread
from ..components import trace_norm_bound
from ..errors import RouteError
from ..grid import Grid
from .evolve import Frame, Progress, require_finite

Array = np.ndarray

#: Probability that a step may carry beyond an open end.
MOST_BEYOND = 1e-3


def fixed_steps(
    compose: Callable[[Grid], Composition], grid: Grid, dim: int, x: Array, times: Array, dt: float, report: Callable[[float], None],
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

    Raises
    ------
    RouteError
        If a step carries more than 1e-3 beyond an open end.
    """
    counts = [max(1, int(np.ceil(gap / dt - 1e-9))) for gap in np.diff(times)]
    composition = compose(grid)
    errors = np.zeros(len(counts))
    if not composition.exact:
        errors = _time_errors(compose(grid.coarsened()), resample_to(x, grid.coarsened()), times, counts)
    batch, volume = x.shape[1], grid.cell_volume
    escaped = np.zeros((batch, 2 * grid.ndim, x.shape[0]))
    progress = Progress(tail=0.0)
    yield Frame(0, float(times[0]), x.reshape(x.shape[0], -1), escaped, replace(progress))
    x = x.copy()
    for index, ((start, end), count) in enumerate(zip(pairwise(times), counts, strict=True), start=1):
        step = float(end - start) / count
        beyond = composition.open_ends(float(start), float(end - start)).beyond(x, step)
        if beyond > MOST_BEYOND:
            raise RouteError("Grid", "the split route needs open ends out of reach", f"a step carries {beyond:.2g} there", "Widen the box, or use method='fv'")
        tails = [0.0] * grid.ndim

        def seen(now: float, y: Array = x) -> None:
            require_finite(y.reshape(y.shape[0], -1), grid, now, progress.steps)
            progress.edge = max(progress.edge, edge_content(y, grid, dim))
            report(now)

        x, escaped = composition.chain(x, escaped, float(start), float(end - start), count, tails, in_place=True, seen=seen)
        filled = min(spread(x, dim, volume), volume * float(np.prod(grid.shape)))
        progress.tail = max(progress.tail or 0.0, *(norm_of_tail(s, filled, volume, dim) for s in tails))
        progress.steps += count
        progress.applications += count
        progress.dt, progress.time_error = step, float(errors[index - 1])
        yield Frame(index, float(end), x.reshape(x.shape[0], -1), escaped, replace(progress))


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
