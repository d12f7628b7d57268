"""The state inside the solvers: d^2 real components of a Hermitian matrix, in front of the cells.

Order: the diagonal ``rho_00 ... rho_{d-1,d-1}``, then ``Re rho_ab`` for all ``a < b``, then ``Im rho_ab``. Hermiticity is
then exact by construction, a real linear map of Hermitian matrices is a real ``d^2 x d^2`` matrix, and the trace is the
sum of the first ``d`` components. This module alone converts.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray


#: Bytes of a line of the cache.
LINE = 64


def empty_state(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array that begins with a line of the cache: vectors that lie in two of them cost twice (NumPy's large arrays begin 16 bytes behind one)."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + LINE, dtype=np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def copy_state(x: Array) -> Array:
    """A copy in such memory."""
    out = empty_state(x.shape, x.dtype)
    out[...] = x
    return out


@cache
def upper_pairs(d: int) -> tuple[Array, Array]:
    """Row and column indices of the elements above the diagonal, in the order of the components."""
    return np.triu_indices(d, 1)


def to_components(rho: Array, dtype: Any = None) -> Array:
    """Turn ``(d, d, *cells)`` complex into ``(d^2, *cells)`` real components (the Hermitian part is taken), of that precision or the given one."""
    d = rho.shape[0]
    out = empty_state((d * d, *rho.shape[2:]), rho.real.dtype if dtype is None else dtype)
    for k in range(d):
        out[k] = rho[k, k].real
    pairs = list(zip(*upper_pairs(d), strict=True))
    for k, (a, b) in enumerate(pairs, start=d):
        out[k] = 0.5 * (rho[a, b].real + rho[b, a].real)
        out[k + len(pairs)] = 0.5 * (rho[a, b].imag - rho[b, a].imag)
    return out


def to_matrix(components: Array) -> Array:
    """Turn ``(d^2, *cells)`` real components into ``(d, d, *cells)`` complex Hermitian matrices."""
    d = int(round(components.shape[0] ** 0.5))
    a, b = upper_pairs(d)
    rho = np.zeros((d, d) + components.shape[1:], dtype=np.result_type(components.dtype, np.complex64))
    rho[range(d), range(d)] = components[:d]
    m = len(a)
    upper = components[d : d + m] + 1j * components[d + m :]
    rho[a, b], rho[b, a] = upper, upper.conj()
    return rho


@cache
def _bases(d: int) -> tuple[Array, Array]:
    """Matrices ``E[c]`` with rho = sum_c x_c E[c], and ``R`` with x = real part of R . vec(rho)."""
    eye = np.eye(d * d)
    e = np.moveaxis(to_matrix(eye), -1, 0)  # (d^2, d, d)
    r = np.zeros((d * d, d, d), dtype=complex)
    a, b = upper_pairs(d)
    m = len(a)
    r[range(d), range(d), range(d)] = 1.0
    for k in range(m):
        r[d + k, a[k], b[k]] = 0.5
        r[d + k, b[k], a[k]] = 0.5
        r[d + m + k, a[k], b[k]] = -0.5j
        r[d + m + k, b[k], a[k]] = 0.5j
    return e, r


def superoperator(left: Array, right: Array) -> Array:
    """Real matrix of ``rho -> (X rho Y + h.c.) / 2`` on the components.

    Parameters
    ----------
    left, right : array, shape (..., d, d)
        ``X`` and ``Y``. For ``K rho K^+`` pass ``K`` and ``K^+``; for ``{M, rho}`` use ``2 * superoperator(M, 1)``
        (``M rho + rho M^+``, any ``M``).

    Returns
    -------
    array, shape (..., d^2, d^2)
    """
    d = left.shape[-1]
    e, r = _bases(d)
    images = left[..., None, :, :] @ e @ right[..., None, :, :]  # of every basis matrix, (..., d^2, d, d)
    columns = np.real(images.reshape(*images.shape[:-2], d * d) @ r.reshape(d * d, d * d).T)
    return np.ascontiguousarray(np.swapaxes(columns, -1, -2))


def _adjoint(m: Array) -> Array:
    return np.conj(np.swapaxes(m, -1, -2))


def sandwich(k: Array) -> Array:
    """Real matrix of ``rho -> K rho K^+``; ``k`` has shape (..., d, d)."""
    return superoperator(k, _adjoint(k))


def left_right(m: Array) -> Array:
    """Real matrix of ``rho -> M rho + rho M^+``; ``m`` has shape (..., d, d)."""
    return 2.0 * superoperator(m, np.eye(m.shape[-1]))


def dissipator(a: Array, b: Array, weight: Array) -> Array:
    """Real matrix of ``Re-part of w ( A rho B^+ - {B^+ A, rho}/2 )``, Hermitian-symmetrised.

    A sum over index pairs with a Hermitian weight matrix is Hermiticity-preserving as a whole, so summing the symmetrised
    terms gives that sum exactly.
    """
    w = weight[..., None, None]
    s = superoperator(w * a, _adjoint(b)) - 0.5 * left_right(w * (_adjoint(b) @ a))
    # the trace rows cancel to round-off; for strong decoherence that round-off times the rate would be seen as trace drift
    d = a.shape[-1]
    s[..., d - 1, :] = -s[..., : d - 1, :].sum(axis=-2)
    return s


def min_eigenvalues(rho_components: Array) -> Array:
    """Smallest eigenvalue of the density matrix in every cell, shape ``cells``."""
    c = rho_components
    d = int(round(c.shape[0] ** 0.5))
    if d == 1:
        return c[0]
    if d == 2:
        # accurate for nearly pure states: det / largest eigenvalue would lose nothing here, the plain form loses eps*trace
        mean, half = 0.5 * (c[0] + c[1]), 0.5 * (c[0] - c[1])
        return mean - np.sqrt(half * half + c[2] * c[2] + c[3] * c[3])
    rho = np.moveaxis(to_matrix(c), (0, 1), (-2, -1))
    return np.linalg.eigvalsh(rho)[..., 0]


def relative_eigenvalue(smallest: float, largest: float, probability: float, box: float) -> float:
    """Smallest eigenvalue of rho relative to its largest trace per cell volume, but at least to that of an even spread over the box.

    The second counts only where nearly all has left: what is then inside may be round-off of what was, and is no scale.

    Parameters
    ----------
    probability : float
        Inside and escaped together.
    box : float
        Volume of all cells.
    """
    scale = max(largest, abs(probability) / box)
    return smallest / scale if scale > 0.0 else min(smallest, 0.0)


def half_widths(s: Array) -> tuple[float, float]:
    """Half-widths of the spectrum of a stack of dissipative superoperators: (real axis, imaginary axis).

    Taken from the symmetric and antisymmetric parts in the orthonormal scaling of the components, so they hold for the numerical
    range as well.
    """
    c = s.shape[-1]
    d = int(round(c**0.5))
    scale = np.where(np.arange(c) < d, 1.0, 2.0**0.5)
    scaled = scale[:, None] * s / scale[None, :]
    transposed = np.swapaxes(scaled, -1, -2)
    real = np.linalg.norm(0.5 * (scaled + transposed), ord=2, axis=(-2, -1))
    imaginary = np.linalg.norm(0.5 * (scaled - transposed), ord=2, axis=(-2, -1))
    return 0.5 * float(np.max(real)), float(np.max(imaginary))


def norms(components: int) -> Array:
    """Trace norm of a matrix of which one component is one and the others are zero, per component."""
    return np.where(np.arange(components) < int(round(components**0.5)), 1.0, 2.0)


def trace_norm_bound(x: Array, batch: int, volume: float) -> float:
    """Largest over the batch of ``sqrt(d) sum_cells |x|_Frobenius volume``, an upper bound of the integrated trace norm."""
    d, x = int(round(x.shape[0] ** 0.5)), x.astype(float, copy=False)
    squares = np.sum(x[:d] ** 2, axis=0) + 2.0 * np.sum(x[d:] ** 2, axis=0)
    return float(d**0.5 * volume * np.sqrt(squares).reshape(batch, -1).sum(axis=1).max())
