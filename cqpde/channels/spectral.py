r"""Sub-flows solved exactly in Fourier space, on a grid that is treated as a torus.

On the axes that a part moves, its generator is a matrix of the wave vector :math:`\xi` (components of rho, source convention of
``components``; :math:`\hat\rho = \int e^{-i\xi z}\rho\,dz`):

.. math:: G(\xi) = -\tfrac12\xi_i s_{ij}\xi_j - i\xi_i\,(g_i + A_i\cdot + \cdot A_i^\dagger) + \mathcal D_{\rm forced} [- i[H, \cdot] + \mathrm{excess}],

so that ``exp(dt G)`` applied to the Fourier coefficients is the part's flow, to round-off for what the modes resolve, whether or not the
operators commute. With relaxation :math:`\gamma` about the centre of the axis (Ornstein-Uhlenbeck) the field is first contracted by
:math:`e^{-\gamma dt}`, and in the exponent the drift carries :math:`(1 - e^{-\gamma dt})/\gamma` and the noise
:math:`(1 - e^{-2\gamma dt})/2\gamma` in place of dt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import scipy.fft as sf

from ..components import left_right, norms
from ..grid import Grid
from ..kernels.spectral import exponentials, multiply
from ..model import Canonical
from ..superoperators import excess, hamiltonian, saturated
from .commuting import clean, connected
from .parts import Kick, tidy

Array = np.ndarray

#: Fields of more values than this are transformed in slabs of about that many: little work memory, and the slab stays in cache.
SLAB = 1 << 19

#: Transforms of more values than this use all threads.
THREADED = 1 << 17


@dataclass(frozen=True)
class Multiplier:
    """Fourier coefficients of some components times a matrix per wave vector.

    Attributes
    ----------
    members : tuple of int
        Components that it reads and writes (all of them, or a set of coupled ones).
    row, col, base, strides, table
        See :func:`cqpde.kernels.spectral.multiply`; rows and columns number ``members``.
    """

    members: tuple[int, ...]
    row: Array
    col: Array
    base: Array
    strides: Array
    table: Array


def wave_numbers(grid: Grid, axes: tuple[int, ...]) -> dict[int, Array]:
    """Wave numbers of each axis, shaped to broadcast over the cells; the last axis has the non-negative half only."""
    out = {}
    for i in axes:
        a = grid.axes[i]
        k = 2.0 * np.pi * (sf.rfftfreq if i == axes[-1] else sf.fftfreq)(a.n, a.spacing)
        out[i] = k.reshape([-1 if j == i else 1 for j in range(grid.ndim)])
    return out


def _integrals(gamma: Array | None, dt: float) -> tuple[Array | float, Array | float]:
    """``int exp(-gamma s) ds`` and ``int exp(-2 gamma s) ds`` over dt."""
    if gamma is None:
        return dt, dt
    safe = np.where(gamma == 0, 1.0, gamma)
    first = np.where(gamma == 0, dt, -np.expm1(-safe * dt) / safe)
    return first, np.where(gamma == 0, dt, -np.expm1(-2.0 * safe * dt) / (2.0 * safe))


@dataclass(frozen=True)
class KickSymbol:
    """The generator of a kick as a function of the wave vector, without dt.

    Attributes
    ----------
    axes : tuple of int
    quadratic, linear : array or None
        ``xi s xi / 2`` and ``xi g``, over cells and modes.
    blocks : list of (members, local, shifts)
        Per set of coupled components: its real matrix of decoherence (and H), and ``(k_i, matrix of A_i . + . A_i^+)`` per axis.
    gamma : array or None
        Rate of relaxation about the centre of the (single) axis.
    ndim : int
    """

    axes: tuple[int, ...]
    quadratic: Array | None
    linear: Array | None
    blocks: list[tuple[list[int], Array, list[tuple[Array, Array]]]]
    gamma: Array | None
    ndim: int

    def over(self, dt: float) -> Multiplier:
        """The exact flow over ``dt``."""
        first, second = _integrals(self.gamma, dt)
        exponent: Array | float = 0.0
        if self.quadratic is not None:
            exponent = -second * self.quadratic
        if self.linear is not None:
            exponent = exponent - (1j * first) * self.linear
        factor = np.exp(exponent)
        weight = first if self.gamma is None else np.asarray(first)[..., None, None]
        parts = []
        for members, local, shifts in self.blocks:
            block = dt * local
            for k, x in shifts:
                block = block - 1j * k[..., None, None] * (x * weight)
            # a single component's factors are multiplied before the exponential, which is then taken once per cell
            matrix = exponential(block)
            size = range(len(members))
            # every component keeps a term of its own, also one that decays to nothing
            parts.append((members, [(r, c, factor * matrix[..., r, c]) for r in size for c in size if r == c or np.any(matrix[..., r, c])]))
        return pack_multiplier(parts, self.ndim)


def kick_symbol(fields: Canonical, grid: Grid, kick: Kick, drift: dict[int, Array], gamma: Array | None) -> KickSymbol:
    """The symbol of a kick.

    Parameters
    ----------
    drift : dict
        The scalar drift ``g_i`` that the kick carries, per axis.
    """
    k = wave_numbers(grid, kick.axes)
    pairs = [(i, j) for i in kick.axes for j in kick.axes if np.any(fields.s[..., i, j])]
    local = saturated(fields, kick.axes)
    if kick.local:
        local = local + hamiltonian(fields) + excess(fields)
    local = clean(local)
    shift = {i: clean(left_right(fields.A[i])) for i in kick.axes if np.any(fields.A[i])}
    pattern = np.any([np.any(m != 0, axis=tuple(range(m.ndim - 2))) for m in (local, *shift.values())], axis=0)
    blocks = []
    for members in connected(pattern):
        pick = lambda m, members=members: tidy(m[..., members, :][..., members], grid.ndim)
        own = pick(local)
        shifts = [(k[i], pick(x)) for i, x in shift.items() if np.any(pick(x))]
        blocks.append((members, own, shifts))
    scalars = [k[i] * g for i, g in drift.items() if np.any(g)]
    return KickSymbol(
        kick.axes,
        sum(0.5 * k[i] * k[j] * tidy(fields.s[..., i, j], grid.ndim) for i, j in pairs) if pairs else None,
        sum(scalars) if scalars else None,
        blocks,
        gamma,
        grid.ndim,
    )


def stream_multiplier(grid: Grid, axis: int, drift: Array, gamma: Array | None, dt: float, components: int) -> Multiplier:
    """The shift by ``g dt`` along an axis, the same for all components."""
    k = wave_numbers(grid, (axis,))[axis]
    table = np.exp(-1j * (k * (drift * _integrals(gamma, dt)[0])))
    one = pack_multiplier([([0], [(0, 0, table)])], grid.ndim)
    rows = np.arange(components)
    base, strides = np.zeros(components, dtype=np.int64), np.repeat(one.strides, components, axis=0)
    return Multiplier(tuple(range(components)), rows, rows, base, strides, one.table)


def pack_multiplier(parts: list[tuple[list[int], list[tuple[int, int, Array]]]], n: int) -> Multiplier:
    """Flatten (components, [(row, column, coefficients)]) into one multiplier."""
    index, strides, chunks, position = [], [], [], 0
    for members, entries in parts:
        for r, c, values in entries:
            values = np.ascontiguousarray(values, dtype=complex)
            index.append((members[r], members[c], position))
            strides.append([0] + [s // 16 if m > 1 else 0 for s, m in zip(values.strides, values.shape, strict=True)])
            chunks.append(values.reshape(-1))
            position += values.size
    row, col, base = np.array(index, dtype=np.int64).T.copy()
    every = tuple(sorted({m for part, _ in parts for m in part}))
    return Multiplier(every, row, col, base, np.array(strides, dtype=np.int64).reshape(-1, n + 1), np.concatenate(chunks))


def _split(m: Multiplier) -> list[Multiplier]:
    """One multiplier per set of coupled components, sharing the table."""
    pattern = np.zeros((len(m.members),) * 2, dtype=bool)
    pattern[m.row, m.col] = True
    out = []
    for part in connected(pattern):
        mine = np.isin(m.row, part)
        row, col = (np.searchsorted(part, index[mine]) for index in (m.row, m.col))
        out.append(Multiplier(tuple(part), row, col, m.base[mine], m.strides[mine], m.table))
    return out


def exponential(m: Array) -> Array:
    """``exp(m)`` of a stack of small complex matrices (..., n, n); closed forms for n = 1, 2."""
    n = m.shape[-1]
    if n == 1:
        return np.asarray(np.exp(m))
    m = m.astype(complex, copy=False)
    if n > 2:
        flat = np.ascontiguousarray(m.reshape(-1, n, n))
        out = np.empty_like(flat)
        exponentials(flat, out)
        return out.reshape(m.shape)
    mean, half = 0.5 * (m[..., 0, 0] + m[..., 1, 1]), 0.5 * (m[..., 0, 0] - m[..., 1, 1])
    root = np.sqrt(half * half + m[..., 0, 1] * m[..., 1, 0])
    up, down = np.exp(mean + root), np.exp(mean - root)
    even = 0.5 * (up + down)
    small = np.abs(root) < 1e-3
    square = root * root
    odd = np.where(
        small,
        np.exp(mean) * (1.0 + square / 6.0 * (1.0 + square / 20.0 * (1.0 + square / 42.0))),
        0.5 * (up - down) / np.where(small, 1.0, root),
    )
    out = np.empty(m.shape, dtype=complex)
    out[..., 0, 0], out[..., 1, 1] = even + odd * half, even - odd * half
    out[..., 0, 1], out[..., 1, 0] = odd * m[..., 0, 1], odd * m[..., 1, 0]
    return out


def transform(x: Array, axes: tuple[int, ...], workers: int) -> Array:
    """Real transform along the given array axes, the last one halved."""
    if len(axes) > 1:
        return np.asarray(sf.rfftn(x, axes=axes, workers=workers))
    # SciPy's has threads, NumPy's costs less per call: the same transform
    return np.asarray(np.fft.rfft(x, axis=axes[0]) if workers == 1 else sf.rfft(x, axis=axes[0], workers=workers))


def back_transform(hat: Array, axes: tuple[int, ...], cells: list[int], workers: int) -> Array:
    """Inverse of :func:`transform` for ``cells`` along the axes; overwrites ``hat``."""
    if len(axes) > 1:
        return np.asarray(sf.irfftn(hat, cells, axes=axes, workers=workers, overwrite_x=True))
    if workers == 1:
        return np.asarray(np.fft.irfft(hat, cells[0], axis=axes[0]))
    return np.asarray(sf.irfft(hat, cells[0], axis=axes[0], workers=workers, overwrite_x=True))


def apply_multiplier(
    x: Array, multiplier: Multiplier, grid: Grid, axes: tuple[int, ...], tails: list[float] | None, threads: int, threshold: float = 0.0
) -> float:
    """Apply a part to the state ``x`` (components, batch, *cells), in place; of a large one, slabs without a number of the magnitude ``threshold`` are left.

    Returns a bound of the sum of the trace norms of the cells that were left as they are.

    Parameters
    ----------
    tails : list of float per grid axis, or None
        If given, raised to the sum of squares of the state in the highest :data:`TAIL` of the modes of each axis.
    """
    if x.size <= SLAB:
        _apply(x, multiplier, grid, axes, tails, threads)
        return 0.0
    free = [i for i in range(grid.ndim) if i not in axes]
    if not free:
        for part in _split(multiplier):
            sub = x[list(part.members)]
            _apply(sub, part, grid, axes, tails, threads)
            x[list(part.members)] = sub
        return 0.0
    axis = free[0]
    count = min(grid.shape[axis], -(-x.size // SLAB))
    edges, content = [k * grid.shape[axis] // count for k in range(count + 1)], 0.0
    for low, high in pairwise(edges):
        here = (slice(None),) * (axis + 2) + (slice(low, high),)
        shifted = replace(multiplier, base=multiplier.base + low * multiplier.strides[:, axis + 1])
        if threshold > 0 and np.abs(x[here]).max() < threshold:
            content += float(norms(len(x)) @ np.abs(x[here]).reshape(len(x), -1).sum(axis=1, dtype=float))
            continue
        _apply(x[here], shifted, grid, axes, tails, threads)
    return content


def _apply(x: Array, m: Multiplier, grid: Grid, axes: tuple[int, ...], tails: list[float] | None, threads: int) -> None:
    """Transform, multiply, transform back, in place; ``x`` may be a slab of the state."""
    where = tuple(i + 2 for i in axes)
    workers = threads if x.size > THREADED else 1
    hat = transform(x, where, workers)
    if tails is not None:
        record_tails(hat, grid, axes, tails)
    out = np.empty_like(hat)
    flat = (hat.shape[0], -1)
    shape = np.array(hat.shape[1:], dtype=np.int64)
    multiply(hat.reshape(flat), out.reshape(flat), shape, m.row, m.col, m.base, m.strides, m.table)
    x[...] = back_transform(out, where, [grid.shape[i] for i in axes], workers)


#: Share of the modes of an axis, counted from the highest, whose content says whether the axis is resolved.
TAIL = 0.2

#: Up to so many rows (two for a mode) they are found by a matrix product.
BAND_ROWS = 64


def record_tails(hat: Array, grid: Grid, axes: tuple[int, ...], tails: list[float]) -> None:
    """Add to ``tails`` the sum of squares in the highest :data:`TAIL` of the modes of each of ``axes``, from the transform along them."""
    for i in axes:
        n = grid.shape[i]
        low = _band_begins(n)
        band = [slice(None)] * hat.ndim
        band[i + 2] = slice(low, None) if i == axes[-1] else slice(low, n - low + 1)
        part = hat[tuple(band)].astype(complex, copy=False)
        weight = 2.0 if i == axes[-1] else 1.0
        if len(axes) > 1 and i != axes[-1]:
            weight = 2.0  # the other half of the last axis
        tails[i] += weight * float(np.vdot(part, part).real) / float(np.prod([grid.shape[j] for j in axes]))


def band_content(x: Array, grid: Grid, axes: Iterable[int] | None = None) -> list[float]:
    """Sum of squares of a state (components, batch, *cells) in the highest :data:`TAIL` of the modes of each axis (of ``axes``)."""
    tails = [0.0] * grid.ndim
    for i in range(grid.ndim) if axes is None else axes:
        across = next((j for j in range(grid.ndim) if j != i), None)
        count = 1 if across is None else min(grid.shape[across], -(-x.size // SLAB))
        edges = [0] if across is None else [k * grid.shape[across] // count for k in range(count + 1)]
        parts = [x] if across is None else [x[(slice(None),) * (across + 2) + (slice(low, high),)] for low, high in pairwise(edges)]
        modes = _band_modes(grid.shape[i])
        for part in parts:
            if len(modes) > BAND_ROWS:
                record_tails(transform(part, (i + 2,), 1), grid, (i,), tails)
                continue
            found = np.matmul(modes.astype(x.dtype), part.reshape(int(np.prod(part.shape[: i + 2])), grid.shape[i], -1))
            tails[i] += 2.0 * float(np.sum(np.square(found, dtype=float))) / grid.shape[i]
    return tails


@lru_cache(maxsize=64)
def _band_modes(n: int) -> Array:
    """Real and imaginary parts of the highest :data:`TAIL` of the modes of ``n`` cells, as rows of a matrix."""
    modes = np.exp(-2j * np.pi * np.outer(np.arange(_band_begins(n), n // 2 + 1), np.arange(n)) / n)
    return np.concatenate([modes.real, modes.imag])


def _band_begins(n: int) -> int:
    return int(np.ceil((1.0 - TAIL) * (n // 2)))
