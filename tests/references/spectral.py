"""Periodic Fourier pseudo-spectral reference solver for smooth coefficients, in any dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import fftn, ifftn
from scipy.integrate import solve_ivp

from .grid import Box, Complex, Real


def _product(a: Complex, b: Complex) -> Complex:
    """Matrix product over the two leading axes, at every cell."""
    return np.asarray(np.einsum("ij...,jk...->ik...", a, b))


def _dagger(a: Complex) -> Complex:
    """Hermitian conjugate over the two leading axes."""
    return np.asarray(a.swapaxes(0, 1).conj())


def _field(value: ArrayLike, cells: tuple[int, ...]) -> Real:
    """Scalar coefficient broadcast to the grid."""
    return np.broadcast_to(np.asarray(value, dtype=float), cells)


def _matrix(value: ArrayLike, d: int, cells: tuple[int, ...]) -> Complex:
    """Matrix coefficient broadcast to the grid: ``(d, d)`` or ``(d, d, *cells)``."""
    array = np.asarray(value, dtype=complex)
    if array.ndim == 2:
        array = array.reshape(array.shape + (1,) * len(cells))
    return np.broadcast_to(array, (d, d, *cells))


class _Equation:
    """Right-hand side for one set of coefficients.

    Parameters
    ----------
    d : int
        Matrix dimension.
    cells : tuple of int
        Grid shape.
    box : sequence of (lo, hi)
        Ends of every axis.
    v, s, A, H, N
        As in `solve_periodic`.
    """

    def __init__(
        self,
        d: int,
        cells: tuple[int, ...],
        box: Box,
        v: Sequence[ArrayLike | None] | None = None,
        s: Sequence[Sequence[ArrayLike]] | NDArray[Any] | None = None,
        A: Sequence[ArrayLike | None] | None = None,
        H: ArrayLike | None = None,
        N: Sequence[ArrayLike] | None = None,
    ) -> None:
        n = len(cells)
        self.axes = tuple(range(2, 2 + n))
        self.first: list[Complex] = []  # i k of each axis, the Nyquist mode of an odd derivative set to zero
        self.k: list[Real] = []
        for axis, (m, (lo, hi)) in enumerate(zip(cells, box, strict=True)):
            k = 2 * np.pi * np.fft.fftfreq(m, (hi - lo) / m)
            odd = k.copy()
            if m % 2 == 0:
                odd[m // 2] = 0.0
            shape = [1] * n
            shape[axis] = m
            self.k.append(k.reshape(shape))
            self.first.append(1j * odd.reshape(shape))

        zero_v: list[ArrayLike | None] = [None] * n
        self.v = [None if x is None else _field(x, cells) for x in (zero_v if v is None else v)]
        self.A = [None if x is None else _matrix(x, d, cells) for x in (zero_v if A is None else A)]
        if len(self.v) != n or len(self.A) != n:
            raise ValueError("v and A need one entry per axis")

        diffusion = np.zeros((n, n, *cells))
        if s is not None:
            for i in range(n):
                for j in range(n):
                    diffusion[i, j] = _field(s[i][j], cells)
        self.s = diffusion
        self.noisy = [(i, j) for i in range(n) for j in range(n) if np.any(diffusion[i, j])]

        # effective Hamiltonian -i H - 1/2 sum L^+ L, and the list of (left, right) sandwich factors
        zero = np.zeros((d, d, *cells), dtype=complex)
        loss = zero.copy() if H is None else -1j * _matrix(H, d, cells)
        self.sandwich: list[tuple[Complex, Complex]] = []
        drifting = [i for i in range(n) if self.A[i] is not None]
        if self.noisy and drifting:
            inverse = np.linalg.pinv(np.moveaxis(diffusion, (0, 1), (-2, -1)), hermitian=True, rcond=1e-12)
            for j in drifting:
                left = zero.copy()  # sum_i s^+_ij A_i
                for i in drifting:
                    left = left + inverse[..., i, j] * np.asarray(self.A[i])
                right = _dagger(np.asarray(self.A[j]))
                self.sandwich.append((left, right))
                loss = loss - 0.5 * _product(right, left)
        for operator in N or ():
            jump = _matrix(operator, d, cells)
            self.sandwich.append((jump, _dagger(jump)))
            loss = loss - 0.5 * _product(_dagger(jump), jump)
        self.loss = loss

    def __call__(self, rho: Complex) -> Complex:
        """Time derivative of rho, shape (d, d, *cells)."""
        hat = np.zeros(rho.shape, dtype=complex)  # Fourier coefficients of all terms that are derivatives
        for v, A, ik in zip(self.v, self.A, self.first, strict=True):
            if v is None and A is None:
                continue
            flux = np.zeros_like(rho) if v is None else v * rho
            if A is not None:
                flux = flux + _product(A, rho) + _product(rho, _dagger(A))
            hat -= ik * fftn(flux, axes=self.axes)
        for i, j in self.noisy:
            symbol = -(self.k[i] ** 2) if i == j else self.first[i] * self.first[j]
            hat += 0.5 * symbol * fftn(self.s[i, j] * rho, axes=self.axes)
        out = ifftn(hat, axes=self.axes)
        out += _product(self.loss, rho) + _product(rho, _dagger(self.loss))
        for left, right in self.sandwich:
            out += _product(_product(left, rho), right)
        return np.asarray(out)


def solve_periodic(
    rho0: ArrayLike,
    t: float,
    box: Box,
    v: Sequence[ArrayLike | None] | None = None,
    s: Sequence[Sequence[ArrayLike]] | NDArray[Any] | None = None,
    A: Sequence[ArrayLike | None] | None = None,
    H: ArrayLike | None = None,
    N: Sequence[ArrayLike] | None = None,
    *,
    coefficients: Callable[[float], Mapping[str, Any]] | None = None,
    t0: float = 0.0,
    rtol: float = 1e-10,
    atol: float | None = None,
    method: str = "DOP853",
) -> Complex:
    """Solve the equation, unsplit and as printed, on a periodic grid of cell centres.

    Derivatives are taken by FFT of the complete products ``v rho``, ``A rho + rho A^+`` and ``s rho``; nothing is
    de-aliased, so the grid must resolve the products. Coefficients that are not periodic (``v = p/m``) are harmless
    while rho is negligible at the ends of the box.

    Parameters
    ----------
    rho0 : array_like, shape (d, d, *cells)
        State at ``t0``, values at the cell centres ``lo + (k + 1/2) h``.
    t : float
        Time at which the state is returned.
    box : sequence of (lo, hi)
        Ends of every axis.
    v : list per axis of scalar fields (or None for zero), optional
        Classical drift.
    s : nested n x n list of scalar fields, optional
        Diffusion matrix ``sigma sigma^T`` (symmetric, may be singular; ``s^+`` is taken point by point).
    A : list per axis of (d, d) or (d, d, *cells) arrays (or None for zero), optional
        Operator drift.
    H : array_like, (d, d) or (d, d, *cells), optional
        Hamiltonian.
    N : list of (d, d) or (d, d, *cells) arrays, optional
        Square-root operators of the excess decoherence.
    coefficients : callable, optional
        ``coefficients(t) -> dict(v=..., s=..., A=..., H=..., N=...)`` (any subset of the keys) in place of the five
        arguments above.
    t0 : float
        Starting time.
    rtol, atol : float
        Tolerances of the time integrator; ``atol`` defaults to ``rtol / 100`` times the largest element of rho0.
    method : str
        Any explicit method of `scipy.integrate.solve_ivp`.

    Returns
    -------
    ndarray, shape (d, d, *cells)
        State at time t.
    """
    start = np.asarray(rho0, dtype=complex)
    d, cells = start.shape[0], start.shape[2:]
    if coefficients is None:
        fixed = _Equation(d, cells, box, v, s, A, H, N)
    elif any(x is not None for x in (v, s, A, H, N)):
        raise ValueError("give either coefficients(t) or v, s, A, H, N")

    def derivative(time: float, y: Complex) -> Complex:
        equation = fixed if coefficients is None else _Equation(d, cells, box, **coefficients(time))
        return equation(y.reshape(start.shape)).ravel()

    if t == t0:
        return start.copy()
    floor = 0.01 * rtol * float(np.abs(start).max()) if atol is None else atol
    result = solve_ivp(derivative, (t0, t), start.ravel(), method=method, rtol=rtol, atol=floor, t_eval=[t])
    if not result.success:
        raise RuntimeError(result.message)
    return np.asarray(result.y[:, -1].reshape(start.shape))
