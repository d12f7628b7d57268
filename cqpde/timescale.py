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
FEWEST, MOST = 257, 8193

#: Most times of extremes that are handed on.
EXTREMES = 16

#: A jump is looked for where a coefficient changes so many times faster than just before and after; at most so many.
STEEP, MOST_JUMPS = 4.0, 1024

#: Cells per axis on which coefficients are looked at.
PLACES = 3


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
    mesh = {
        a.name: np.take(z, np.linspace(0, a.n - 1, PLACES).astype(int), axis=i)
        for i, (a, z) in enumerate(zip(grid.axes, grid.mesh().values(), strict=True))
    }
    varying = [c for c in model.coefficients.values() if c.time_dependent]
    rng = np.random.default_rng(0)
    points = FEWEST
    while True:
        times = np.sort(np.concatenate([[start, end], rng.uniform(start, end, points - 2)]))
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
    for k in _steep(slopes):
        found = _jump(lambda t: _flat(varying, mesh, t)[moving] / extent[moving], float(times[k]), float(times[k + 1]))
        if found is not None:
            jumps.append(found)
            slopes[k] = 0.0
    steepest = float(np.max(slopes))
    extremes = np.unique(np.argmax(np.abs(values - values[0])[:, moving], axis=0))[:EXTREMES]
    longest = 2.0 / steepest if steepest > 0.0 else float("inf")
    return TimeSurvey(longest, tuple(float(times[k]) for k in extremes), tuple(jumps))


def _steep(slopes: Array) -> list[int]:
    """Intervals in which something changes much faster than in both intervals beside them: a jump may be inside."""
    beside = np.pad(slopes, ((1, 1), (0, 0)))
    alone = slopes > STEEP * np.maximum(beside[:-2], beside[2:])
    return [int(k) for k in np.flatnonzero(np.any(alone & (slopes > 0.0), axis=1))[:MOST_JUMPS]]


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


def _flat(coefficients: list[Coefficient], mesh: dict[str, Array], t: float) -> Array:
    return np.concatenate([np.broadcast_to(e, (PLACES,) * e.ndim).reshape(-1) for c in coefficients for e in c.entries(mesh, t).reshape(-1)])
