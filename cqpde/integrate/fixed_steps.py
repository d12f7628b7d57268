r"""Advance a state by equal steps of a symmetric composition, order 2: what a large grid has memory and time for.

Nothing is adapted: the cells are the user's, the step is the one asked for (rounded so that an even number of them fills every gap between
outputs), and one state is stepped in place. Beside it goes a second one with twice the step, on the same cells: the difference, three times
the error of the smaller step where it is small enough for its order, is reported as the bound of the time error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from ..channels.compose import Composition
from ..channels.resolution import norm_of_tail, spread
from ..channels.spectral import band_content
from ..checkpoint import NoKeeper
from ..components import copy_state, trace_norm_bound
from ..errors import OptionError, RouteError
from ..grid import Grid
from .evolve import Frame, Progress, require_finite

Array = np.ndarray

#: Probability that a step may carry beyond an open end.
MOST_BEYOND = 1e-3

#: Largest number of a state in single precision, at least and at most.
HELD = 1e-15, 1e15

#: Values of a state that are compared with another one at once.
COMPARED = 1 << 20


def fixed_steps(
    composition: Composition, dim: int, x: Array, times: Array, dt: float, report: Callable[[float], None],
    keeper: NoKeeper | None = None, skip_below: float = 0.0,
) -> Iterator[Frame]:  # fmt: skip
    """Yield a frame at every one of ``times``.

    Parameters
    ----------
    x : array (d^2, batch, *cells)
        State at the first time, in the basis of the composition.
    dt : float
        Step; the actual one is the next smaller of which an even number fills the gap (one step where that has no time error).
    keeper : NoKeeper, optional
        Is offered the states after every step; where it resumes a run, only the frames that are left are yielded.
    skip_below : float
        Lines of a large state whose numbers are all smaller than this, relative to the largest at the start, are left as they are in a sweep. Twice their
        integrated trace norm, summed over sweeps, is ``progress.skipped``.

    Raises
    ------
    RouteError
        If a step carries more than 1e-3 beyond an open end.
    """
    grid, keeper = composition.grid, keeper or NoKeeper()
    alone = composition.exact and x.dtype == np.float64  # single precision has a twin for its round-off
    counts = [1 if alone else 2 if composition.exact else 2 * int(np.ceil(0.5 * gap / dt - 1e-9)) for gap in np.diff(times)]
    largest = float(max(x.max(), -x.min()))
    require_held(x.dtype, largest)
    batch, volume = x.shape[1], grid.cell_volume
    escaped = np.zeros((batch, 2 * grid.ndim, x.shape[0]))
    composition.skip_below = skip_below * largest
    progress, first, fine, done = Progress(tail=0.0), 1, 0, 0  # fine: the twin has come to the next output; done: steps since the last one
    rough: Array | None
    if keeper.resumed is None:
        yield Frame(0, float(times[0]), x.reshape(x.shape[0], -1), escaped, replace(progress))
        rough = None if alone else copy_state(x)
        x = copy_state(x)
    else:
        saved = keeper.resumed
        first, fine, done = saved.count("index", 1, len(times)), saved.count("fine", 0, 1), saved.count("done", 0, max(counts))
        rough = None if alone or first == len(times) else saved.array("rough", *x.shape, dtype=x.dtype)
        x, escaped, progress = saved.array("x", *x.shape, dtype=x.dtype), saved.array("escaped", *escaped.shape), Progress(**saved.fields("progress", progress))
    for index, ((start, end), count) in enumerate(zip(pairwise(times[first - 1 :]), counts[first - 1 :], strict=True), start=first):
        t, length = float(start), float(end - start)
        if not fine and not done:
            beyond = composition.open_ends(t, length).beyond(x, length / (count if rough is None else count // 2))
            if beyond > MOST_BEYOND:
                raise RouteError("Grid", "the split route needs open ends out of reach", f"a step carries {beyond:.2g} there", "Widen the box, or use method='fv'")

        def offer(now: float, fine: int, done: int, x: Array, rough: Array | None, gone: Array, index: int = index) -> None:
            arrays = {"x": x, "escaped": gone} | ({} if rough is None else {"rough": rough})
            keeper.offer(index, lambda: (arrays, {"progress": vars(progress), "t": now, "fine": fine, "done": done}))

        def twin(now: float, done: int, y: Array, gone: Array, x: Array = x, escaped: Array = escaped, half: int = count // 2, offer: Any = offer) -> None:
            if not composition.finite(y):
                require_finite(y.reshape(y.shape[0], -1), grid, now, progress.steps)
            composition.left_out = 0.0  # what the twin leaves out is part of its distance
            offer(now, *((0, done) if done < half else (1, 0)), x, y, escaped)

        def seen(now: float, done: int, y: Array, gone: Array, rough: Array | None = rough, count: int = count, offer: Any = offer) -> None:
            if not composition.finite(y):
                require_finite(y.reshape(y.shape[0], -1), grid, now, progress.steps)
            progress.edge = max(progress.edge, edge_content(y, grid, dim))
            progress.skipped, composition.left_out = progress.skipped + 2.0 * composition.left_out, 0.0
            report(now)
            if done < count:
                offer(now, 1, done, y, rough, gone)

        if rough is not None and not fine:
            rough, _ = composition.chain(rough, escaped, t, length, count // 2, None, in_place=True, first=done, seen=twin)
            done = 0
        x, escaped = composition.chain(x, escaped, t, length, count, None, in_place=True, first=done, seen=seen)
        fine = done = 0
        require_finite(x.reshape(x.shape[0], -1), grid, t + length, progress.steps)  # also what came after the last sweep
        del seen, twin  # they would keep the second state alive while the frame is recorded
        if rough is not None:
            require_finite(rough.reshape(x.shape[0], -1), grid, t + length, progress.steps)
            progress.time_error = max(progress.time_error, stated(difference(x, rough, volume), x.dtype, len(composition.structure.parts) * (progress.steps + count)))
        rough = rough if index < len(counts) else None
        filled = min(spread(x, dim, volume), volume * float(np.prod(grid.shape)))
        progress.tail = max(progress.tail or 0.0, *(norm_of_tail(s, filled, volume, dim) for s in band_content(x, grid)))
        progress.steps += count
        progress.applications += count
        progress.dt = length / count
        yield Frame(index, float(end), x.reshape(x.shape[0], -1), escaped, replace(progress))
        offer(float(end), 0, 0, x, rough, escaped, index + 1)


def stated(apart: float, dtype: Any, sweeps: int) -> float:
    """Bound of the error of a run, from its distance from its twin.

    In single precision they differ by round-off as well: by what is different for every number and by half of what is the same for every step; a table that
    is rounded alike for both adds up to the last digit per sweep.
    """
    return apart if dtype == np.float64 else 2.0 * apart + float(np.finfo(dtype).eps) * sweeps


def require_held(dtype: Any, largest: float) -> None:
    """Refuse a state whose numbers single precision does not hold with room for sums and squares."""
    if dtype == np.float32 and not HELD[0] <= largest <= HELD[1]:
        rule = f"'single' holds densities of {HELD[0]:g} to {HELD[1]:g} per unit of phase-space volume"
        raise OptionError("precision", rule, f"{largest:.3g}", "Choose units in which the state is of order one, or precision='double'")


def difference(x: Array, y: Array, volume: float) -> float:
    """Integrated trace norm (a bound of it) of ``x - y``, the largest over the batch."""
    a, b = (state.reshape(*state.shape[:2], -1) for state in (x, y))
    worst, each = 0.0, max(1, COMPARED // x.shape[0])
    for k in range(x.shape[1]):
        parts = range(0, a.shape[2], each)
        worst = max(worst, sum(trace_norm_bound(np.subtract(a[:, k, i : i + each], b[:, k, i : i + each], dtype=float), 1, volume) for i in parts))
    return worst


def edge_content(x: Array, grid: Grid, dim: int) -> float:
    """Probability in the outermost cells of open axes, the largest over ends and batch."""
    worst = 0.0
    for i, axis in enumerate(grid.axes):
        if not axis.periodic:
            for place in (0, axis.n - 1):
                f = np.take(x[:dim], place, axis=i + 2).sum(axis=0, dtype=float)
                worst = max(worst, float(np.abs(f).reshape(f.shape[0], -1).sum(axis=1).max()))
    return worst * grid.cell_volume
