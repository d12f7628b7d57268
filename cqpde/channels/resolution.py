"""How many Fourier modes a state needs: fields are evolved on the coarsest torus that resolves them and returned on the user's cells.

A field that a grid over-resolves is a short Fourier series; moving it to fewer cells and back is exact up to the modes left out. How much
is left out is watched during the run (``spectral.TAIL``), and an axis gets more cells, up to the user's, when the watched band fills.
"""

from __future__ import annotations

import numpy as np
import scipy.fft as sf

from ..grid import Grid
from .spectral import TAIL

Array = np.ndarray

#: Fewest cells of an axis that is evolved on fewer cells than the user's.
FEWEST = 12

#: Cells of an axis are multiplied by this when its band fills.
GROWTH = 1.3


def resample(x: Array, axis: int, n: int) -> Array:
    """Evaluate the Fourier series of ``x`` along an axis at the centres of ``n`` cells of the same box.

    Modes that ``n`` cells do not carry are dropped; the sum times the cell width is kept to round-off.
    """
    old = x.shape[axis]
    if n == old:
        return x
    hat = np.asarray(sf.rfft(x, axis=axis))
    keep = (min(n, old) + 1) // 2  # without the highest mode of an even number of cells
    k = np.arange(keep)
    shape = [-1 if i == axis else 1 for i in range(x.ndim)]
    index = [slice(None)] * x.ndim
    index[axis] = slice(0, keep)
    phase = np.exp(1j * np.pi * k * (1.0 / n - 1.0 / old)) * (n / old)
    return np.asarray(sf.irfft(hat[tuple(index)] * phase.reshape(shape), n, axis=axis))


def resample_to(x: Array, grid: Grid) -> Array:
    """Bring a state (components, batch, *cells) to the cells of ``grid`` over the same box."""
    for i, n in enumerate(grid.shape):
        x = resample(x, i + 2, n)
    return x


def spread(x: Array, dim: int, volume: float) -> float:
    """Phase-space volume that a state fills: 4 times ``(int f)^2 / int f^2`` of the density f, the largest over the batch."""
    f = x[:dim].sum(axis=0).reshape(x.shape[1], -1)
    return float(np.max(4.0 * volume * f.sum(axis=1) ** 2 / np.maximum(np.sum(f * f, axis=1), 1e-300)))


def norm_of_tail(squares: float, filled: float, volume: float, dim: int) -> float:
    """Integrated trace norm of a part of the state from its sum of squares, if it fills the volume ``filled``."""
    return float(np.sqrt(2.0 * dim * squares * volume * filled))


class Spectrum:
    """How the content of a state is spread over the modes of each axis.

    Parameters
    ----------
    x : array (components, batch, *cells)
    """

    def __init__(self, x: Array, grid: Grid, dim: int) -> None:
        self.grid, self.dim = grid, dim
        self.filled = min(spread(x, dim, grid.cell_volume), grid.cell_volume * float(np.prod(grid.shape)))
        self.beyond: list[Array] = []
        for i, n in enumerate(grid.shape):
            hat = np.asarray(sf.rfft(x, axis=i + 2))
            others = tuple(k for k in range(x.ndim) if k != i + 2)
            power = 2.0 / n * np.sum(hat.real**2 + hat.imag**2, axis=others)
            self.beyond.append(np.cumsum(power[::-1])[::-1])

    def content(self, i: int, mode: int) -> float:
        """Integrated trace norm of what lies at or beyond a mode of axis ``i`` (an estimate)."""
        return norm_of_tail(float(self.beyond[i][mode]), self.filled, self.grid.cell_volume, self.dim)

    def unresolved(self) -> float:
        """Content of the watched band of the worst axis."""
        return max(self.content(i, watched(n)) for i, n in enumerate(self.grid.shape))

    def fewest_cells(self, allowed: float) -> tuple[int, ...]:
        """Cells per axis whose watched band holds less than ``allowed``."""
        out = []
        for i, n in enumerate(self.grid.shape):
            scale = norm_of_tail(1.0, self.filled, self.grid.cell_volume, self.dim)
            ok = np.flatnonzero(scale * np.sqrt(self.beyond[i]) < allowed)
            out.append(cells_for(int(ok[0]) if len(ok) else n // 2, n))
        return tuple(out)


def watched(n: int) -> int:
    """First mode of the watched band of ``n`` cells."""
    return int(np.ceil((1.0 - TAIL) * (n // 2)))


def cells_for(mode: int, most: int) -> int:
    """Cells of an axis whose watched band starts at ``mode``; ``most`` where little would be saved."""
    n = int(sf.next_fast_len(max(FEWEST, 2 * int(np.ceil((mode + 1) / (1.0 - TAIL)))), real=True))
    n += n % 2
    return n if n < 0.85 * most else most


def more_cells(n: int, most: int) -> int:
    """The next larger number of cells of an axis."""
    larger = int(sf.next_fast_len(int(np.ceil(GROWTH * n)), real=True))
    larger += larger % 2
    return larger if larger < 0.85 * most else most
