"""How fast the coefficients of a model change in time, so that a step cannot jump over what they do.

A step samples its coefficients at a few regular times; a drive whose period divides the spacing of these would look constant, and no error
estimate from the same samples could tell. The coefficients are therefore looked at beforehand at many irregular times.
"""

from __future__ import annotations

import numpy as np

from .coefficients import Coefficient
from .grid import Grid
from .model import Model

Array = np.ndarray

#: Irregular times at first, and at most while the coefficients still swing too fast for them.
FEWEST, MOST = 257, 8193

#: Most times of extremes that are handed on.
EXTREMES = 16

#: Cells per axis on which coefficients are looked at.
PLACES = 3


def survey_time(model: Model, grid: Grid, start: float, end: float) -> tuple[float, tuple[float, ...]]:
    """Look at all coefficients over a run.

    Returns
    -------
    float
        Longest step in which no coefficient changes by more than twice its range at its steepest (infinite: none depends on t). A jump is
        resolved to a 256th of the run; oscillations are followed up to some thousand per run.
    tuple of float
        Times at which some coefficient is furthest from where it starts: a pulse is on at one of them.
    """
    if not model.time_dependent:
        return float("inf"), ()
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
            return float("inf"), ()
        swings = float(np.max(steps[:, moving].sum(axis=0) / extent[moving]))
        if swings < points / 8 or points >= MOST:
            break
        points = 2 * points - 1
    gaps = np.maximum(np.diff(times), (end - start) / points)
    slope = np.max(steps[:, moving] / gaps[:, None], axis=0)
    extremes = np.unique(np.argmax(np.abs(values - values[0])[:, moving], axis=0))[:EXTREMES]
    return float(np.min(2.0 * extent[moving] / slope)), tuple(float(times[k]) for k in extremes)


def _flat(coefficients: list[Coefficient], mesh: dict[str, Array], t: float) -> Array:
    return np.concatenate([np.broadcast_to(e, (PLACES,) * e.ndim).reshape(-1) for c in coefficients for e in c.entries(mesh, t).reshape(-1)])
