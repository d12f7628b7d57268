"""Closed forms for models diagonal in one basis (every element of rho evolves alone)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from .grid import Box, Complex, gaussian, mesh


class Element(NamedTuple):
    """One element ``weight * Normal(z; mean, cov)`` of the density matrix, all three complex."""

    weight: complex
    mean: Complex
    cov: Complex


def gaussian_element(
    mean: ArrayLike,
    cov: ArrayLike,
    t: float,
    M: ArrayLike,
    b: ArrayLike,
    s: ArrayLike,
    g: complex = 0.0,
    kap: ArrayLike | None = None,
    K: ArrayLike | None = None,
) -> Element:
    """Propagate ``f = Normal(z; mean, cov)`` with affine drift and a quadratic weight.

    Solves ``d_t f = -d_i((M z + b)_i f) + 1/2 s_ij d_i d_j f + (g - i kap.z - i/2 z.K.z) f``, whose solution stays a
    Gaussian ``exp(w) Normal(z; mu, V)`` with complex parameters::

        mu' = M mu + b - i V kap - i V K mu
        V'  = M V + V M^T + s - i V K V
        w'  = g - i kap.mu - i/2 (mu.K.mu + tr K V)

    Parameters
    ----------
    mean, cov : array_like, shapes (n,) and (n, n)
        Initial mean and covariance.
    t : float
        Time.
    M, b : array_like, shapes (n, n) and (n,)
        Drift, may be complex.
    s : array_like, shape (n, n)
        Diffusion matrix.
    g : complex
        Constant rate.
    kap, K : array_like, shapes (n,) and (n, n), optional
        Linear and (symmetric) quadratic rates, may be complex.

    Returns
    -------
    Element
        Weight ``exp(w)``, mean and covariance at time t.
    """
    m0 = np.atleast_1d(np.asarray(mean, dtype=complex))
    n = len(m0)
    v0 = np.asarray(cov, dtype=complex).reshape(n, n)
    matrix = np.asarray(M, dtype=complex).reshape(n, n)
    vector = np.asarray(b, dtype=complex).reshape(n)
    diffusion = np.asarray(s, dtype=float).reshape(n, n)
    linear = np.zeros(n, dtype=complex) if kap is None else np.asarray(kap, dtype=complex).reshape(n)
    quadratic = np.zeros((n, n), dtype=complex) if K is None else np.asarray(K, dtype=complex).reshape(n, n)

    def derivative(_: float, y: Complex) -> Complex:
        mu, var = y[:n], y[n : n + n * n].reshape(n, n)
        dmu = matrix @ mu + vector - 1j * var @ (linear + quadratic @ mu)
        dvar = matrix @ var + var @ matrix.T + diffusion - 1j * var @ quadratic @ var
        dw = g - 1j * linear @ mu - 0.5j * (mu @ quadratic @ mu + np.trace(quadratic @ var))
        return np.concatenate([dmu, dvar.ravel(), [dw]])

    y0 = np.concatenate([m0, v0.ravel(), [0.0]])
    y = solve_ivp(derivative, (0.0, t), y0, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1] if t > 0 else y0
    return Element(complex(np.exp(y[-1])), y[:n], y[n : n + n * n].reshape(n, n))


def diagonal_elements(
    mean: ArrayLike,
    cov: ArrayLike,
    t: float,
    d: int,
    *,
    M: ArrayLike | None = None,
    b: ArrayLike | None = None,
    s: ArrayLike | None = None,
    h: tuple[ArrayLike, ArrayLike | None, ArrayLike | None] | None = None,
    a: tuple[ArrayLike, ArrayLike | None] | None = None,
    jumps: Sequence[tuple[ArrayLike, ArrayLike | None]] = (),
) -> list[list[Element]]:
    """Parameters of every element for a Gaussian start with unit weight; arguments as in `diagonal_gaussian`.

    Returns
    -------
    list of lists of Element
        ``result[a][b]``: multiply its weight by ``state[a, b]``.
    """
    n = np.atleast_1d(np.asarray(mean)).size
    matrix = np.zeros((n, n)) if M is None else np.asarray(M, dtype=float).reshape(n, n)
    vector = np.zeros(n) if b is None else np.asarray(b, dtype=float).reshape(n)
    diffusion = np.zeros((n, n)) if s is None else np.asarray(s, dtype=float).reshape(n, n)
    inverse = np.linalg.pinv(diffusion, hermitian=True, rcond=1e-12)

    def filled(value: ArrayLike | None, *shape: int) -> Complex:
        return np.zeros(shape, dtype=complex) if value is None else np.asarray(value, dtype=complex).reshape(shape)

    h0, h1, h2 = filled(h and h[0], d), filled(h and h[1], d, n), filled(h and h[2], d, n, n)
    a0, a1 = filled(a and a[0], n, d), filled(a and a[1], n, d, n)

    def element(p: int, q: int) -> Element:
        g = -1j * (h0[p] - h0[q])
        linear = -1j * (h1[p] - h1[q])  # coefficient of z
        quadratic = -0.5j * (h2[p] - h2[q])  # coefficient of z z^T

        def add(rate: float, x0: Complex, x1: Complex, y0: Complex, y1: Complex) -> None:
            """Add ``rate * (x_p y_q^* - (x_p y_p^* + x_q y_q^*)/2)`` with affine x and y."""
            nonlocal g, linear, quadratic
            for weight, left, right in ((1.0, p, q), (-0.5, p, p), (-0.5, q, q)):
                r0, r1 = y0[right].conj(), y1[right].conj()
                g += rate * weight * x0[left] * r0
                linear = linear + rate * weight * (x0[left] * r1 + r0 * x1[left])
                quadratic = quadratic + rate * weight * np.outer(x1[left], r1)

        for i in range(n):
            for j in range(n):
                add(float(inverse[i, j]), a0[i], a1[i], a0[j], a1[j])
        for c0, c1 in jumps:
            x0, x1 = filled(c0, d), filled(c1, d, n)
            add(1.0, x0, x1, x0, x1)
        drift = matrix + a1[:, p] + a1[:, q].conj()
        shift = vector + a0[:, p] + a0[:, q].conj()
        return gaussian_element(mean, cov, t, drift, shift, diffusion, g, 1j * linear, 1j * (quadratic + quadratic.T))

    return [[element(p, q) for q in range(d)] for p in range(d)]


def diagonal_gaussian(
    state: ArrayLike,
    mean: ArrayLike,
    cov: ArrayLike,
    t: float,
    box: Box,
    shape: Sequence[int],
    *,
    M: ArrayLike | None = None,
    b: ArrayLike | None = None,
    s: ArrayLike | None = None,
    h: tuple[ArrayLike, ArrayLike | None, ArrayLike | None] | None = None,
    a: tuple[ArrayLike, ArrayLike | None] | None = None,
    jumps: Sequence[tuple[ArrayLike, ArrayLike | None]] = (),
) -> Complex:
    """Exact solution when H, all A_i and all N_g are diagonal in the same basis for every z.

    Parameters
    ----------
    state : array_like, shape (d, d)
        Quantum state at t = 0.
    mean, cov : array_like, shapes (n,) and (n, n)
        Gaussian at t = 0 (cov may be singular if the final covariance is not).
    t : float
        Time.
    box, shape
        Cell centres at which rho is evaluated.
    M, b : array_like, optional
        Classical drift ``v = M z + b``.
    s : array_like, shape (n, n), optional
        Constant diffusion matrix.
    h : (h0, h1, h2), shapes (d,), (d, n), (d, n, n), optional
        Eigenvalues ``h0 + h1.z + z.h2.z / 2`` of H (h1, h2 may be None).
    a : (a0, a1), shapes (n, d), (n, d, n), optional
        Eigenvalues ``a0[i] + a1[i].z`` of A_i, may be complex (a1 may be None).
    jumps : sequence of (c0, c1), shapes (d,), (d, n)
        Eigenvalues ``c0 + c1.z`` of every N_g, may be complex (c1 may be None).

    Returns
    -------
    ndarray, shape (d, d, *shape)
        State at time t.
    """
    rho0 = np.asarray(state, dtype=complex)
    d = rho0.shape[0]
    elements = diagonal_elements(mean, cov, t, d, M=M, b=b, s=s, h=h, a=a, jumps=jumps)
    z = mesh(box, shape)
    rho = np.zeros((d, d, *shape), dtype=complex)
    for p in range(d):
        for q in range(d):
            if rho0[p, q] != 0:
                weight, mu, var = elements[p][q]
                rho[p, q] = rho0[p, q] * weight * gaussian(z, mu, var)
    return rho


def linear_diosi_elements(
    mean: ArrayLike,
    cov: ArrayLike,
    t: float,
    m: float = 1.0,
    lam: float = 1.0,
    sigma: float = 1.0,
    phi: float = 2.0,
    D0: float | None = None,
) -> list[list[Element]]:
    """Closed-form parameters of the linear Diosi model; arguments as in `linear_diosi`.

    Returns
    -------
    list of lists of Element
        ``result[a][b]``: multiply its weight by ``state[a, b]``.
    """
    q0, p0 = np.asarray(mean, dtype=float)
    (vqq, vqp), (_, vpp) = np.asarray(cov, dtype=float)
    rate = lam**2 / sigma**2 if D0 is None else D0
    var = np.empty((2, 2))
    var[0, 0] = vqq + 2 * vqp * t / m + vpp * t**2 / m**2 + sigma**2 * t**3 / (3 * m**2)
    var[0, 1] = var[1, 0] = vqp + vpp * t / m + sigma**2 * t**2 / (2 * m)
    var[1, 1] = vpp + sigma**2 * t
    centre = np.array([q0 + p0 * t / m, p0])
    shift = 2 * lam * np.array([t**2 / (2 * m), t])
    k = 4 * lam
    area = q0 * t + p0 * t**2 / (2 * m)  # mean of the time integral of q
    cross = np.array(  # covariance of that integral with (q, p) at time t
        [
            vqq * t + 3 * vqp * t**2 / (2 * m) + vpp * t**3 / (2 * m**2) + sigma**2 * t**4 / (8 * m**2),
            vqp * t + vpp * t**2 / (2 * m) + sigma**2 * t**3 / (6 * m),
        ]
    )
    spread = vqq * t**2 + vqp * t**3 / m + vpp * t**4 / (4 * m**2) + sigma**2 * t**5 / (20 * m**2)
    weight = complex(np.exp(-2j * phi * t - 2 * rate * t - 1j * k * area - 0.5 * k**2 * spread))
    full = var.astype(complex)
    up = Element(1.0, (centre - shift).astype(complex), full)
    down = Element(1.0, (centre + shift).astype(complex), full)
    upper = Element(weight, centre - 1j * k * cross, full)
    lower = Element(weight.conjugate(), centre + 1j * k * cross, full)
    return [[up, upper], [lower, down]]


def linear_diosi(
    state: ArrayLike,
    mean: ArrayLike,
    cov: ArrayLike,
    t: float,
    box: Box,
    shape: Sequence[int],
    *,
    m: float = 1.0,
    lam: float = 1.0,
    sigma: float = 1.0,
    phi: float = 2.0,
    D0: float | None = None,
) -> Complex:
    """Linear Diosi model (paper, C.4): ``H = p^2/2m + (2 lam q + phi) sz`` with noise in p.

    In the language of the equation: ``v = (p/m, 0)``, ``s = diag(0, sigma^2)``, ``A_p = -lam sz``,
    ``H = (2 lam q + phi) sz`` and, beyond saturation, ``N = sqrt(D0 - lam^2/sigma^2) sz``.

    Parameters
    ----------
    state : array_like, shape (2, 2)
        Quantum state at t = 0.
    mean, cov : array_like, shapes (2,) and (2, 2)
        Gaussian in (q, p) at t = 0; zero covariance gives the delta start.
    t : float
        Time.
    box, shape
        Cell centres in (q, p).
    m, lam, sigma, phi : float
        Parameters of the model.
    D0 : float, optional
        Total decoherence coefficient on sz, by default the saturated ``lam^2/sigma^2``.

    Returns
    -------
    ndarray, shape (2, 2, *shape)
        State at time t.
    """
    rho0 = np.asarray(state, dtype=complex)
    elements = linear_diosi_elements(mean, cov, t, m, lam, sigma, phi, D0)
    z = mesh(box, shape)
    return np.array(
        [
            [rho0[p, q] * elements[p][q].weight * gaussian(z, elements[p][q].mean, elements[p][q].cov) for q in (0, 1)]
            for p in (0, 1)
        ]
    )


def multiplicative_noise(
    state: ArrayLike, mean_log: float, var_log: float, t: float, z: ArrayLike, a: float, b: float, g: float
) -> Complex:
    """Multiplicative (Ito) noise: ``v = a z``, ``s = b^2 z^2``, ``A = (g b z / 2) sz``, saturated, H = 0.

    Parameters
    ----------
    state : array_like, shape (2, 2)
        Quantum state at t = 0.
    mean_log, var_log : float
        Mean and variance of ln z at t = 0 (a log-normal start).
    t : float
        Time.
    z : array_like
        Positive points.
    a, b, g : float
        Parameters.

    Returns
    -------
    ndarray, shape (2, 2, *z.shape)
        Log-normal elements with growth rates a + g b, a - g b and (off-diagonal) a, the last damped by
        ``exp(-g^2 t / 2)``.
    """
    rho0 = np.asarray(state, dtype=complex)
    points = np.asarray(z, dtype=float)
    rates = np.array([[a + g * b, a], [a, a - g * b]])
    damping = np.exp(-0.5 * g**2 * t * (1 - np.eye(2)))
    variance = var_log + b**2 * t
    rho = np.empty((2, 2, *points.shape), dtype=complex)
    for p in range(2):
        for q in range(2):
            centre = mean_log + (rates[p, q] - 0.5 * b**2) * t
            normal = np.exp(-0.5 * (np.log(points) - centre) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
            rho[p, q] = rho0[p, q] * damping[p, q] * normal / points
    return rho
