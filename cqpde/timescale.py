"""How the coefficients of a model change in time, so that no step jumps over what they do.

A step samples its coefficients at a few regular times; a drive whose period divides the spacing of these would look constant, and no error
estimate from the same samples could tell. The coefficients are therefore looked at beforehand at many irregular times, and where one
jumps, the time of the jump is found by bisection: steps end there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .coefficients import Coefficient
from .grid import Grid
from .model import Model

Array = np.ndarray

#: Irregular times at first, and at most while the coefficients still swing too fast for them.
FEWEST, MOST = 513, 8193

#: Most times of extremes that are handed on.
EXTREMES = 16

#: A jump is looked for where a coefficient changes by this share of its range between two times; at most so many.
STEEP, MOST_JUMPS = 0.05, 1024

#: Cells on which coefficients are looked at, spread over all axes.
PLACES = 256


@dataclass(frozen=True)
class TimeSurvey:
    """What a survey of the coefficients over a run found.

    Attributes
    ----------
    longest : float
        Longest step in which no coefficient changes by more than twice its range at its steepest, jumps apart (infinite: none depends on
        t); oscillations are followed up to some thousand per run.
    extremes : tuple of float
        Times at which some coefficient is furthest from where it starts: a pulse is on at one of them.
    jumps : tuple of float
        Times at which some coefficient jumps, to round-off.
    """

    longest: float = float("inf")
    extremes: tuple[float, ...] = ()
    jumps: tuple[float, ...] = ()


def survey_time(model: Model, grid: Grid, start: float, end: float) -> TimeSurvey:
    """Look at all coefficients over a run."""
    if not model.time_dependent:
        return TimeSurvey()
    varying = [c for c in model.coefficients.values() if c.time_dependent]
    mesh = places(grid)
    rng = np.random.default_rng(0)
    points = FEWEST
    while True:
        times = start + (end - start) * np.concatenate([[0.0], (np.arange(points - 2) + rng.uniform(size=points - 2)) / (points - 2), [1.0]])
        values = np.array([_flat(varying, mesh, float(t)) for t in times])
        steps = np.abs(np.diff(values, axis=0))
        extent = np.max(np.abs(values - values[0]), axis=0)
        moving = extent > 1e-12 * max(1.0, float(np.max(np.abs(values))))
        if not np.any(moving):
            return TimeSurvey()
        swings = float(np.max(steps[:, moving].sum(axis=0) / extent[moving]))
        if swings < points / 8 or points >= MOST:
            break
        points = 2 * points - 1
    gaps = np.maximum(np.diff(times), (end - start) / points)
    slopes = steps[:, moving] / gaps[:, None] / extent[moving]
    jumps = []
    for k in np.flatnonzero(np.max(steps[:, moving] / extent[moving], axis=1) > STEEP)[:MOST_JUMPS]:
        found = _jump(lambda t: _flat(varying, mesh, t)[moving] / extent[moving], float(times[k]), float(times[k + 1]))
        if found is not None:
            jumps.append(found)
            slopes[k] = 0.0
    steepest = float(np.max(slopes))
    extremes = np.unique(np.argmax(np.abs(values - values[0])[:, moving], axis=0))[:EXTREMES]
    longest = 2.0 / steepest if steepest > 0.0 else float("inf")
    return TimeSurvey(longest, tuple(float(times[k]) for k in extremes), tuple(jumps))


def _jump(values: Callable[[float], Array], low: float, high: float) -> float | None:
    """The time between ``low`` and ``high`` at which something jumps; None if all change steadily when looked at closely."""
    at_low, at_high = values(low), values(high)
    whole = float(np.max(np.abs(at_high - at_low)))
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            return high
        at_middle = values(middle)
        left, right = float(np.max(np.abs(at_middle - at_low))), float(np.max(np.abs(at_high - at_middle)))
        if max(left, right) < 0.5 * whole:
            return None
        if left > right:
            high, at_high = middle, at_middle
        else:
            low, at_low = middle, at_middle


def places(grid: Grid) -> dict[str, Array]:
    """An open mesh of some :data:`PLACES` cells of a grid, irregular along every axis."""
    each, rng = max(3, int(PLACES ** (1.0 / grid.ndim))), np.random.default_rng(1)
    out = {}
    for i, (a, z) in enumerate(zip(grid.axes, grid.mesh().values(), strict=True)):
        inner = rng.choice(np.arange(1, a.n - 1), min(each, a.n) - 2, replace=False)
        out[a.name] = np.take(z, np.sort(np.concatenate([[0, a.n - 1], inner])), axis=i)
    return out


def _flat(coefficients: list[Coefficient], mesh: dict[str, Array], t: float) -> Array:
    shape = np.broadcast_shapes(*[z.shape for z in mesh.values()])
    return np.concatenate([np.broadcast_to(e, shape).reshape(-1) for c in coefficients for e in c.entries(mesh, t).reshape(-1)])


def sampler(model: Model, grid: Grid) -> Callable[[float], Array] | None:
    """The coefficients that depend on t, at some cells, as one array per time; None if there are none."""
    varying, mesh = [c for c in model.coefficients.values() if c.time_dependent], places(grid)
    return (lambda t: _flat(varying, mesh, t)) if varying else None
