r"""Streaming by whole cells: the steps for which every drift is an exact permutation of the cells, and the nearest grid that has them.

A drift :math:`v_l` on line l moves by :math:`v_l\,dt` in a step; this is a whole number of cells on every line exactly when
:math:`dt = k h / g` with g the greatest common measure of all :math:`v_l` (for :math:`v = p/m` on an even number of cells about p = 0: half
a cell width over m; on an odd number a whole one, which halves the shortest step), and k = 1, 2, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import numpy as np

from ..grid import Grid

Array = np.ndarray

#: Relative accuracy to which numbers count as multiples of each other.
MULTIPLE = 1e-9

#: Fewest and most steps between outputs that a proposal of another grid considers.
FEWEST_STEPS, MOST_STEPS = 2, 512


def common_measure(values: Array) -> float | None:
    """Largest g of which all ``values`` are whole multiples; None if there is none above 1e-5 of the largest."""
    values = np.unique(np.abs(np.asarray(values, dtype=float).reshape(-1)))
    if len(values) == 0 or values[-1] == 0.0:
        return None
    slack = MULTIPLE * values[-1]
    values = values[values > slack]
    g = 0.0
    for v in values:
        a, b = float(v), g
        while b > slack:
            a, b = b, a % b
            if a - b < slack:  # remainder of a multiple that fell just short
                b = 0.0
        g = a
        if g < 1e-5 * values[-1]:
            return None
    counts = values / g
    # remove the round-off that the subtractions gathered
    return g if np.max(np.abs(counts - np.round(counts))) < 1e-6 * max(1.0, counts[-1]) else None


def whole_steps(gaps: Sequence[float], unit: float) -> int | None:
    """Greatest number k such that every gap between outputs is a multiple of ``k * unit``; None if not even of ``unit``."""
    counts = np.asarray(gaps) / unit
    whole = np.round(counts)
    if np.any(whole < 1) or np.max(np.abs(counts - whole)) > 1e-7 * max(1.0, float(whole.max())):
        return None
    return int(gcd(*[int(w) for w in whole]))


def unit_step(grid: Grid, measures: dict[int, float]) -> float | None:
    """Shortest step for which all axes (axis -> common measure of its drift) move by whole cells."""
    units = np.array([grid.axes[i].spacing / g for i, g in measures.items()])
    # the least common multiple of real numbers: the inverse of the common measure of the inverses
    inverse = common_measure(1.0 / units)
    return None if inverse is None else 1.0 / inverse


def nearest(grid: Grid, measures: dict[int, float], gaps: Sequence[float]) -> tuple[str, float]:
    """The nearest grid that moves by whole cells in at least :data:`FEWEST_STEPS` steps between outputs: its axes in words, its step."""
    common = common_measure(np.asarray(gaps))
    span = min(gaps) if common is None else common
    best = (np.inf, "", 0.0)
    for steps in range(FEWEST_STEPS, MOST_STEPS):
        dt, words, change = span / steps, [], 0.0
        for i, g in measures.items():
            axis = grid.axes[i]
            width = g * dt / max(1, round(g * dt / axis.spacing))
            change = max(change, abs(np.log(width / axis.spacing)))
            cells = max(5, round((axis.upper - axis.lower) / width))
            middle, half = 0.5 * (axis.lower + axis.upper), 0.5 * cells * width
            words.append(f"{axis.name}=({middle - half:.15g}, {middle + half:.15g}, {cells})")
        if change < best[0] - 1e-9:
            best = (change, ", ".join(words), dt)
    return best[1], best[2]
