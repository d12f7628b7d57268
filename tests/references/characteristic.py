"""Exact solution for coefficients that do not depend on z: one matrix exponential per wave vector, one inverse FFT."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import expm

from .grid import Box, Complex, Real, cell_centres

Start = tuple[ArrayLike, ArrayLike, ArrayLike] | Callable[[Real], Complex]


def generator(
    xi: Real,
    d: int,
    v: ArrayLike | None = None,
    s: ArrayLike | None = None,
    A: Sequence[ArrayLike] | None = None,
    H: ArrayLike | None = None,
    N: Sequence[ArrayLike] | None = None,
) -> Complex:
    """Build the generator of the characteristic function ``rho^(xi) = integral of exp(i xi.z) rho(z) dz``.

    Matrices are stacked row by row, ``vec(X rho Y) = (X kron Y^T) vec(rho)``.

    Parameters
    ----------
    xi : ndarray, shape (points, n)
        Wave vectors.
    d : int
        Matrix dimension.
    v, s, A, H, N
        Constant coefficients, as in `solve_constant`.

    Returns
    -------
    ndarray, shape (points, d^2, d^2)
        ``Lind + i xi_i (v_i + A_i . + . A_i^+) - xi.s.xi / 2``.
    """
    n = xi.shape[1]
    one = np.eye(d)
    unit = np.eye(d * d)
    drift = np.zeros(n) if v is None else np.asarray(v, dtype=float).reshape(n)
    diffusion = np.zeros((n, n)) if s is None else np.asarray(s, dtype=float).reshape(n, n)
    back = np.zeros((n, d, d), dtype=complex) if A is None else np.asarray(A, dtype=complex).reshape(n, d, d)
    inverse = np.linalg.pinv(diffusion, hermitian=True, rcond=1e-12)

    def lindblad(x: Complex, y: Complex) -> Complex:
        """``x rho y^+ - {y^+ x, rho}/2`` as a matrix."""
        yx = y.conj().T @ x
        return np.asarray(np.kron(x, y.conj()) - 0.5 * (np.kron(yx, one) + np.kron(one, yx.T)))

    local = np.zeros((d * d, d * d), dtype=complex)
    if H is not None:
        h = np.asarray(H, dtype=complex)
        local += -1j * (np.kron(h, one) - np.kron(one, h.T))
    for i in range(n):
        for j in range(n):
            local += inverse[i, j] * lindblad(back[i], back[j])
    for jump in N or ():
        operator = np.asarray(jump, dtype=complex)
        local += lindblad(operator, operator)
    total = local - 0.5 * np.einsum("xi,ij,xj->x", xi, diffusion, xi)[:, None, None] * unit
    for i in range(n):
        transport = drift[i] * unit + np.kron(back[i], one) + np.kron(one, back[i].conj())
        total = total + 1j * xi[:, i, None, None] * transport
    return np.asarray(total)


def solve_constant(
    start: Start,
    t: float,
    box: Box,
    shape: Sequence[int],
    v: ArrayLike | None = None,
    s: ArrayLike | None = None,
    A: Sequence[ArrayLike] | None = None,
    H: ArrayLike | None = None,
    N: Sequence[ArrayLike] | None = None,
) -> Complex:
    """Exact density at the cell centres of a box, for constant coefficients.

    The Fourier series gives the sum over all periodic images exactly: it is the solution on the line when the box is
    large, and the solution on the torus otherwise. The only other error is the tail beyond the Nyquist wave vector.

    Parameters
    ----------
    start : (state, mean, cov) or callable
        Constant (d, d) matrix times a normalised Gaussian (cov may be singular, even zero); or a function that takes
        wave vectors of shape (points, n) to the characteristic function at t = 0, shape (points, d, d).
    t : float
        Time.
    box : sequence of (lo, hi)
        Ends of every axis.
    shape : sequence of int
        Cells of every axis.
    v : array_like, shape (n,), optional
        Classical drift.
    s : array_like, shape (n, n), optional
        Diffusion matrix, may be full or singular.
    A : sequence of n (d, d) arrays, optional
        Operator drift, any matrices.
    H : (d, d) array_like, optional
        Hamiltonian.
    N : sequence of (d, d) arrays, optional
        Square-root operators of the excess decoherence.

    Returns
    -------
    ndarray, shape (d, d, *shape)
        State at time t.
    """
    cells = tuple(shape)
    n = len(cells)
    steps = [(hi - lo) / m for (lo, hi), m in zip(box, cells, strict=True)]
    waves = [2 * np.pi * np.fft.fftfreq(m, h) for m, h in zip(cells, steps, strict=True)]
    xi = np.stack(np.meshgrid(*waves, indexing="ij"), axis=-1).reshape(-1, n)

    if callable(start):
        hat = np.asarray(start(xi), dtype=complex)
    else:
        state = np.asarray(start[0], dtype=complex)
        mean = np.asarray(start[1], dtype=float).reshape(n)
        cov = np.asarray(start[2], dtype=float).reshape(n, n)
        weight = np.exp(1j * xi @ mean - 0.5 * np.einsum("xi,ij,xj->x", xi, cov, xi))
        hat = weight[:, None, None] * state
    d = hat.shape[-1]

    # exp(t (G - b)) exp(t b) with b the largest eigenvalue of the Hermitian part: the first factor has norm <= 1, and
    # wave vectors whose bound is below 1e-25 of the largest are left out
    matrix = generator(xi, d, v, s, A, H, N)
    bound = np.linalg.eigvalsh(0.5 * (matrix + matrix.conj().swapaxes(1, 2)))[:, -1]
    with np.errstate(divide="ignore"):
        size = bound * t + np.log(np.abs(hat).max(axis=(1, 2)))
    keep = size > size.max() - 57.5
    matrix = t * (matrix[keep] - bound[keep, None, None] * np.eye(d * d))
    evolved = np.zeros((len(xi), d * d), dtype=complex)
    moved = np.einsum("xij,xj->xi", expm(matrix), hat[keep].reshape(-1, d * d))
    evolved[keep] = np.exp(bound[keep] * t)[:, None] * moved

    # rho(z) = sum over xi of exp(-i xi.z) rho^(xi) / volume, z = first centre + k h
    first = np.array([c[0] for c in cell_centres(box, cells)])
    evolved *= np.exp(-1j * xi @ first)[:, None]
    volume = float(np.prod([hi - lo for lo, hi in box]))
    density = np.fft.fftn(evolved.T.reshape((d, d, *cells)), axes=tuple(range(2, 2 + n))) / volume
    return np.asarray(density)
