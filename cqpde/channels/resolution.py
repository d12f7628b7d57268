"""How many Fourier modes a state needs: fields are evolved on the coarsest torus that resolves them and returned on the user's cells.

A field that a grid over-resolves is a short Fourier series; moving it to fewer cells and back is exact up to the modes left out. How much
is left out is watched during the run (``spectral.TAIL``), and an axis gets more cells, up to the user's, when the watched band fills.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft as sf

from ..grid import Grid
from .spectral import TAIL

Array = np.ndarray

#: Fewest cells of an axis that is evolved on fewer cells than the user's.
FEWEST = 12

#: Cells that a run starts with, over those that its initial state needs.
MARGIN = 1.2

#: Cells of an axis are multiplied by this when its band fills.
GROWTH = 1.3


def resample(x: Array, axis: int, n: int) -> Array:
    """Evaluate the Fourier series of ``x`` along an axis at the centres of ``n`` cells of the same box.

    Modes that ``n`` cells do not carry are dropped; the sum times the cell width is kept to round-off.
    """
    old = x.shape[axis]
    if n == old:
        return x
    return _from_modes(np.asarray(sf.rfft(x, axis=axis)), axis, old, n)


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
    f = x[:dim].sum(axis=0).reshape(x.shape[1], -1)
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


def watched(n: int) -> int:
    """First mode of the watched band of ``n`` cells."""
    return int(np.ceil((1.0 - TAIL) * (n // 2)))


def cells_for(mode: int, most: int) -> int:
    """Cells of an axis that carry the modes below ``mode``; ``most`` where little would be saved."""
    n = int(sf.next_fast_len(max(FEWEST, int(np.ceil(MARGIN * 2 * (mode + 1)))), real=True))
    n += n % 2
    return n if n < 0.85 * most else most


def more_cells(n: int, most: int) -> int:
    """The next larger number of cells of an axis."""
    larger = int(sf.next_fast_len(int(np.ceil(GROWTH * n)), real=True))
    larger += larger % 2
    return larger if larger < 0.85 * most else most
