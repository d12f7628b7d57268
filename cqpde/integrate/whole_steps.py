r"""Advance a state by equal steps that move it by whole cells, in the composition of exactly positive channels.

The step is a multiple of the shortest compatible one and divides every gap between outputs. The run is done with the longest such step
and with the next shorter one; their difference, divided by what the order of the composition says, estimates the error of the finer, and the
step shrinks until that meets the tolerance. Every run is linear in the state and completely positive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from ..channels.guards import OpenEnds
from ..channels.positive import PositiveComposition
from ..components import trace_norm_bound
from ..errors import RouteError, SolverError
from .evolve import Frame, Progress, require_finite

Array = np.ndarray


#: Probability that a step may carry beyond an open end.
MOST_BEYOND = 1e-3


def divisors(k: int) -> list[int]:
    """Divisors of k, descending."""
    return [m for m in range(k, 0, -1) if k % m == 0]


def run_whole_steps(
    composition: PositiveComposition,
    ends: OpenEnds,
    x: Array,
    batch: int,
    times: Array,
    tol: float,
    unit: float,
    multiple: int,
    dt_max: float,
    report: Callable[[float], None],
) -> Iterator[Frame]:
    """Yield a frame at every one of ``times``.

    Parameters
    ----------
    x : array (d^2, batch * cells)
    unit : float
        Shortest compatible step; ``multiple`` of it divides every gap between outputs.

    Raises
    ------
    SolverError
        If the shortest compatible step does not meet ``tol``.
    """
    volume = composition.grid.cell_volume
    e = np.zeros((batch, 2 * composition.grid.ndim, x.shape[0]))
    yield Frame(0, float(times[0]), x, e, Progress())
    steps = [m for m in divisors(multiple) if m * unit <= dt_max * (1 + 1e-12)]
    if not steps:
        raise SolverError("dt_max", f"must be at least the shortest step by whole cells, {unit:.6g}", dt_max, "Raise it")
    coarse: list[Array] | None = None
    estimate = np.inf
    for position, m in enumerate(steps):
        try:
            fine, edge = _march(composition, ends, x, batch, times, m * unit, report)
        except RouteError:
            if position == len(steps) - 1:
                raise
            coarse = None
            continue
        if coarse is not None:
            ratio = (steps[position - 1] / m) ** composition.order
            bounds = [trace_norm_bound(a - b, batch, volume) / (ratio - 1.0) for a, b in zip(fine, coarse, strict=True)]
            estimate = max(bounds)
            if estimate <= tol:
                for index, (state, bound) in enumerate(zip(fine, bounds, strict=True), start=1):
                    count = round((times[index] - times[0]) / (m * unit))
                    yield Frame(index, float(times[index]), state, e, Progress(count, 0, m * unit, bound, composition.applications, edge=edge))
                return
        coarse = fine
    raise SolverError(
        "tol",
        f"not met at the shortest step by whole cells, {steps[-1] * unit:.4g}",
        f"error {estimate:.3g}" if np.isfinite(estimate) else "no second step to compare with",
        "Raise tol, use more cells along the axes that stream (the step shrinks with them), or more output times that allow shorter steps",
    )


def _march(
    composition: PositiveComposition, ends: OpenEnds, x: Array, batch: int, times: Array, dt: float, report: Callable[[float], None]
) -> tuple[list[Array], float]:
    """States at all outputs but the first, by steps of ``dt``, and the most that a step carried beyond an open end."""
    out, edge = [], 0.0
    shape = (x.shape[0], batch, *composition.grid.shape)
    e = np.zeros((batch, 2 * composition.grid.ndim, x.shape[0]))
    for start, end in pairwise(times):
        count = round((end - start) / dt)
        for k in range(count):
            edge = max(edge, ends.beyond(x.reshape(shape), dt))
            if edge > MOST_BEYOND:
                raise RouteError("Grid", "the split route needs open ends out of reach", f"a step carries {edge:.2g} there", "Widen the box, or use method='fv'")
            x, _ = composition.step(x, e, float(start) + k * dt, dt)
            report(float(start) + (k + 1) * dt)
        require_finite(x, composition.grid, float(end), count)
        out.append(x)
    return out, edge
