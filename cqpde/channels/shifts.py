r"""Streaming by whole cells: the steps for which every drift is an exact permutation of the cells.

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

#: Where nothing must move by whole cells, the steps between outputs are halved so many times at most.
MOST_HALVINGS = 12


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


def ladder(gaps: Array, unit: float, multiple: int, longest: float) -> list[Array]:
    """Numbers of steps in every gap between outputs, from long steps to short ones.

    With a ``unit``, whose ``multiple`` divides every gap, all steps are multiples of it; without (zero) steps of about the shortest gap are halved
    :data:`MOST_HALVINGS` times.
    """
    if unit > 0.0:
        divisors = [m for m in range(multiple, 0, -1) if multiple % m == 0 and m * unit <= longest * (1 + 1e-12)]
        return [np.round(gaps / (m * unit)).astype(int) for m in divisors]
    fewest = np.ceil(gaps / min(longest, float(np.min(gaps))) * (1 - 1e-12)).astype(int)
    return [fewest * 2**k for k in range(MOST_HALVINGS + 1)]
