"""How many Fourier modes a state needs: fields are evolved on the coarsest torus that resolves them and returned on the user's cells.

A field that a grid over-resolves is a short Fourier series; moving it to fewer cells and back is exact up to the modes left out. How much
is left out is watched during the run (``spectral.TAIL``), and an axis gets more cells, up to the user's, when the watched band fills.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import scipy.fft as sf

from ..errors import CqpdeError
from ..grid import Grid
from ..initial import State
from .spectral import TAIL

Array = np.ndarray

#: Fewest cells of an axis that is evolved on fewer cells than the user's.
FEWEST = 12

#: Cells that a run starts with, over those that its initial state needs.
MARGIN = 1.2

#: Cells per axis on which states with a recipe are looked at first.
SAMPLED = 80

#: Number of cells up to which such states are compared with the given ones on all of them.
COMPARED = 1 << 22

#: Interpolation from so many cells at most is a matrix product, from more a transform.
PRODUCT = 128

#: Cells of an axis are multiplied by this when its band fills.
GROWTH = 1.3


def resample(x: Array, axis: int, n: int) -> Array:
    """Evaluate the Fourier series of ``x`` along an axis at the centres of ``n`` cells of the same box.

    Modes that ``n`` cells do not carry are dropped; the sum times the cell width is kept to round-off.
    """
    old = x.shape[axis]
    if n == old:
        return x
    if n > old and old <= PRODUCT:
        lead, trail = x.shape[:axis], x.shape[axis + 1 :]
        matrix = _interpolation(old, n)
        if not trail:
            return (x.reshape(-1, old) @ matrix.T).reshape(*lead, n)
        return np.matmul(matrix, x.reshape(-1, old, int(np.prod(trail)))).reshape(*lead, n, *trail)
    return _from_modes(np.asarray(sf.rfft(x, axis=axis)), axis, old, n)


@lru_cache(maxsize=64)
def _interpolation(old: int, n: int) -> Array:
    """Values at the centres of ``n`` cells (rows) of the Fourier series through ``old`` cells."""
    return _from_modes(np.asarray(sf.rfft(np.eye(old), axis=0)), 0, old, n)


def _from_modes(hat: Array, axis: int, old: int, n: int) -> Array:
    """The field on ``n`` cells from its modes on ``old`` cells."""
    keep = (min(n, old) + 1) // 2  # without the highest mode of an even number of cells
    k = np.arange(keep)
    shape = [-1 if i == axis else 1 for i in range(hat.ndim)]
    index = [slice(None)] * hat.ndim
    index[axis] = slice(0, keep)
    phase = np.exp(1j * np.pi * k * (1.0 / n - 1.0 / old)) * (n / old)
    return np.asarray(sf.irfft(hat[tuple(index)] * phase.reshape(shape), n, axis=axis))


def resample_to(x: Array, grid: Grid) -> Array:
    """Bring a state (components, batch, *cells) to the cells of ``grid`` over the same box."""
    # the axis that grows most comes last, so that the others are done on fewer cells
    for i in sorted(range(grid.ndim), key=lambda i: grid.shape[i] / x.shape[i + 2]):
        x = resample(x, i + 2, grid.shape[i])
    return x


def spread(x: Array, dim: int, volume: float) -> float:
    """Phase-space volume that a state fills: 4 times ``(int f)^2 / int f^2`` of the density f, the largest over the batch."""
    f = x[:dim].sum(axis=0, dtype=float).reshape(x.shape[1], -1)
    return float(np.max(4.0 * volume * f.sum(axis=1) ** 2 / np.maximum(np.sum(f * f, axis=1), 1e-300)))


def norm_of_tail(squares: float, filled: float, volume: float, dim: int) -> float:
    """Integrated trace norm of a part of the state from its sum of squares, if it fills the volume ``filled``."""
    return float(np.sqrt(2.0 * dim * squares * volume * filled))


@dataclass(frozen=True)
class Start:
    """An initial state on the cells that carry it.

    Attributes
    ----------
    x : array (components, batch, *cells)
    cells : tuple of int
    unresolved : float
        Content of the watched band of the user's cells, of the worst axis (integrated trace norm).
    """

    x: Array
    cells: tuple[int, ...]
    unresolved: float


def settle(x: Array, grid: Grid, dim: int, allowed: float) -> Start:
    """Bring a state to the fewest cells that leave out less than ``allowed`` of it (integrated trace norm, per axis)."""
    filled = min(spread(x, dim, grid.cell_volume), grid.cell_volume * float(np.prod(grid.shape)))
    cells, unresolved, volume = [], 0.0, grid.cell_volume
    for i, n in enumerate(grid.shape):
        hat = np.ascontiguousarray(sf.rfft(x, axis=i + 2))
        parts = hat.view(float).reshape(*hat.shape, 2)
        index = list(range(parts.ndim))
        power = 2.0 / n * np.einsum(parts, index, parts, index, [i + 2])
        beyond = np.sqrt(np.cumsum(power[::-1])[::-1]) * norm_of_tail(1.0, filled, volume, dim)
        unresolved = max(unresolved, float(beyond[watched(n)]))
        small = np.flatnonzero(beyond < allowed)
        m = cells_for(int(small[0]) if len(small) else n // 2, n)
        if m != n:
            x = _from_modes(hat, i + 2, n, m)
            volume *= n / m
        cells.append(m)
    return Start(x, tuple(cells), unresolved)


def settle_states(states: list[State], x: Array, grid: Grid, dim: int, allowed: float) -> Start:
    """:func:`settle`, from a few cells on which states with a recipe are sampled anew, where these carry the states on ``grid`` as well.

    What was found for a single state is kept with it for the next run.

    Parameters
    ----------
    x : array (components, batch, *cells)
        The states on ``grid``.
    """
    if len(states) == 1:
        known = states[0].resolved
        if allowed not in known:
            known[allowed] = _settle_states(states, x, grid, dim, allowed)
        return known[allowed]
    return _settle_states(states, x, grid, dim, allowed)


def _settle_states(states: list[State], x: Array, grid: Grid, dim: int, allowed: float) -> Start:
    few = grid.with_cells(**{a.name: min(a.n, SAMPLED) for a in grid.axes})
    if np.prod(few.shape) < 0.5 * np.prod(grid.shape) and all(s.recipe is not None for s in states):
        try:
            again = [s.on(few) for s in states]
        except CqpdeError:  # too narrow for so few cells
            return settle(x, grid, dim, allowed)
        start = settle(np.stack([s.components for s in again], axis=1), few, dim, allowed)
        # a feature that falls between the cells, or a recipe that depends on them, changes the integral of rho or that of its square;
        # waves that the few cells take for longer ones show in the values
        kept = all(abs(a.normalisation / s.normalisation - 1.0) < 0.1 * allowed for a, s in zip(again, states, strict=True))
        squares = [np.vdot(y, y) / y[0].size for y in (start.x, x)]
        fits = kept and abs(squares[0] / squares[1] - 1.0) < allowed and all(m < n for m, n in zip(start.cells, few.shape, strict=True))
        if fits and _difference(start.x, x, grid) < 3 * grid.ndim * allowed:
            return replace(start, unresolved=0.0)
    return settle(x, grid, dim, allowed)


def _difference(y: Array, x: Array, grid: Grid) -> float:
    """Integral of the largest component's difference between the series ``y`` and ``x``, of many cells from some chosen at random."""
    rng = np.random.default_rng(0)
    each = max(grid.shape) if np.prod(grid.shape) <= COMPARED else int(round(COMPARED ** (1.0 / grid.ndim)))
    places = [np.sort(rng.choice(n, min(n, each), replace=False)) for n in grid.shape]
    for i, (n, at) in enumerate(zip(grid.shape, places, strict=True)):
        y = np.moveaxis(np.tensordot(y, _interpolation(y.shape[i + 2], n)[at], axes=(i + 2, 1)), -1, i + 2)
        x = np.take(x, at, axis=i + 2)
    difference = np.abs(y - x).max(axis=0).reshape(x.shape[1], -1)
    return float(difference.mean(axis=1).max() * np.prod(grid.shape) * grid.cell_volume)


def watched(n: int) -> int:
    """First mode of the watched band of ``n`` cells."""
    return int(np.ceil((1.0 - TAIL) * (n // 2)))


def cells_for(mode: int, most: int) -> int:
    """Cells of an axis that carry the modes below ``mode``; ``most`` where little would be saved."""
    n = _even_and_fast(max(FEWEST, MARGIN * 2 * (mode + 1)))
    return n if n < 0.85 * most else most


def _even_and_fast(least: float) -> int:
    """The next even length of at least ``least`` whose transform is fast."""
    return 2 * int(sf.next_fast_len(int(np.ceil(least / 2)), real=True))


def more_cells(n: int, most: int) -> int:
    """The next larger number of cells of an axis."""
    larger = _even_and_fast(GROWTH * n)
    return larger if larger < 0.85 * most else most
