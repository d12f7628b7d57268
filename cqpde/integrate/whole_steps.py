r"""Advance a state by equal steps of exactly positive channels, chosen before the run: where drifts must move by whole cells.

The run is done with ever shorter steps out of a ladder; the difference of two runs, divided by what the order of the composition says,
estimates the error of the finer one, and the first that meets the tolerance is kept. Every run is linear in the state and completely positive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..channels.guards import OpenEnds
from ..channels.positive import PositiveComposition
from ..components import trace_norm_bound
from ..errors import RouteError
from .evolve import Frame, Progress, require_finite

Array = np.ndarray


#: Probability that a step may carry beyond an open end.
MOST_BEYOND = 1e-3


def run_whole_steps(
    composition: PositiveComposition,
    ends: OpenEnds,
    x: Array,
    batch: int,
    times: Array,
    stops: Array,
    tol: float,
    ladder: list[Array],
    remedy: Callable[[float], str],
    report: Callable[[float], None],
) -> Iterator[Frame]:
    """Yield a frame at every one of ``times``.

    Parameters
    ----------
    x : array (d^2, batch * cells)
    stops : array
        ``times`` and the jumps of the coefficients: steps end there.
    ladder : list of int array
        Numbers of steps between the ``stops``, from few to many.
    remedy : callable
        Says what would meet the tolerance, from a step that would be short enough (infinite if nothing is known).

    Raises
    ------
    RouteError
        If no steps of the ladder meet ``tol``.
    """
    volume = composition.grid.cell_volume
    e = np.zeros((batch, 2 * composition.grid.ndim, x.shape[0]))
    yield Frame(0, float(times[0]), x, e, Progress())
    gaps = np.diff(stops)
    longest, shortest = composition.longest() * (1 + 1e-9), composition.shortest(tol) * (1 - 1e-9)
    usable = [c for c in ladder if np.max(gaps / c) <= longest and np.min(gaps / c) >= shortest]
    coarse: list[Array] | None = None
    before, estimate = 1, np.inf
    for position, counts in enumerate(usable):
        try:
            fine, edge = _march(composition, ends, x, batch, times, stops, counts, report)
        except RouteError:
            if position == len(usable) - 1:
                raise
            coarse = None
            continue
        if coarse is not None:
            ratio = (counts.sum() / before) ** composition.order
            bounds = [trace_norm_bound(a - b, batch, volume) / (ratio - 1.0) for a, b in zip(fine, coarse, strict=True)]
            estimate = max(bounds)
            if estimate <= tol:
                for index, (state, bound) in enumerate(zip(fine, bounds, strict=True), start=1):
                    done = int(counts[stops[1:] <= times[index]].sum())
                    step = float(np.max(gaps / counts))
                    yield Frame(index, float(times[index]), state, e, Progress(done, 0, step, bound, composition.applications, edge=edge))
                return
        coarse, before = fine, counts.sum()
    enough = float("inf")
    if np.isfinite(estimate):
        enough = float(np.max(gaps / usable[-1])) * (tol / estimate) ** (1.0 / composition.order)
        found = f"error {estimate:.3g} with steps of {np.max(gaps / usable[-1]):.4g}"
    else:
        found = f"{len(usable)} kinds of steps from {shortest:.3g} to {min(longest, np.max(gaps)):.3g} (two are compared)"
    raise RouteError("tol", "not met by exactly positive steps on these cells", found, remedy(enough))


def _march(
    composition: PositiveComposition, ends: OpenEnds, x: Array, batch: int, times: Array, stops: Array, counts: Array, report: Callable[[float], None]
) -> tuple[list[Array], float]:
    """States at all outputs but the first, and the most that a step carried beyond an open end."""
    out, edge = [], 0.0
    shape = (x.shape[0], batch, *composition.grid.shape)
    e = np.zeros((batch, 2 * composition.grid.ndim, x.shape[0]))
    for start, end, count in zip(stops, stops[1:], counts, strict=False):
        dt = float(end - start) / int(count)
        for k in range(int(count)):
            edge = max(edge, ends.beyond(x.reshape(shape), dt))
            if edge > MOST_BEYOND:
                raise RouteError("Grid", "the split route needs open ends out of reach", f"a step carries {edge:.2g} there", "Widen the box, or use method='fv'")
            x, _ = composition.step(x, e, float(start) + k * dt, dt)
            report(float(start) + (k + 1) * dt)
            require_finite(x, composition.grid, float(start) + (k + 1) * dt, k + 1)
        if end in times:
            out.append(x)
    return out, edge
