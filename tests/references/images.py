"""Closed forms on the half-line z > 0 with a wall at z = 0, constant coefficients and diagonal operators.

With eigenvalues ``a`` of A (complex when A is not Hermitian) and ``e`` of H, element (p, q) of rho obeys a scalar
equation with the complex drift ``mu = v + a_p + conj(a_q)`` and the constant rate
``gamma = -i(e_p - e_q) + (a_p conj(a_q) - |a_p|^2/2 - |a_q|^2/2)/s``; Brownian formulas with drift hold for complex mu.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import erfc

from .grid import Complex

Wall = Literal["reflecting", "absorbing"]


class HalfLine(NamedTuple):
    """Density on z > 0 and the matrix that has escaped through the wall (zero if it reflects)."""

    rho: Complex
    escaped: Complex


def _normal(x: Complex, variance: float) -> Complex:
    return np.asarray(np.exp(-0.5 * x**2 / variance) / np.sqrt(2 * np.pi * variance))


def reflecting_propagator(z: ArrayLike, z0: float, t: float, mu: complex, s: float) -> Complex:
    """Density at z and t from a unit point at z0: drift mu, diffusion s, ``mu f - s f'/2 = 0`` at z = 0.

    Parameters
    ----------
    z : array_like
        Points, positive.
    z0, t : float
        Starting point and time.
    mu : complex
        Drift.
    s : float
        Variance per unit time.

    Returns
    -------
    ndarray
        Values at z.
    """
    x = np.asarray(z, dtype=complex)
    tail = erfc((x + z0 + mu * t) / np.sqrt(2 * s * t))
    image = np.exp(-2 * mu * z0 / s) * _normal(x + z0 - mu * t, s * t)
    return np.asarray(_normal(x - z0 - mu * t, s * t) + image - mu / s * np.exp(2 * mu * x / s) * tail)


def absorbing_propagator(z: ArrayLike, z0: float, t: float, mu: complex, s: float) -> Complex:
    """Density at z and t from a unit point at z0 with ``f = 0`` at z = 0; parameters as `reflecting_propagator`."""
    x = np.asarray(z, dtype=complex)
    return np.asarray(_normal(x - z0 - mu * t, s * t) - np.exp(-2 * mu * z0 / s) * _normal(x + z0 - mu * t, s * t))


def first_passage(z0: float, t: float, mu: complex, s: float, gamma: complex = 0.0) -> complex:
    """Integral over time of the outflow at z = 0 of ``exp(gamma t) * absorbing_propagator``.

    Parameters
    ----------
    z0, t : float
        Starting point and time.
    mu : complex
        Drift.
    s : float
        Variance per unit time.
    gamma : complex
        Growth rate.

    Returns
    -------
    complex
        For mu = gamma = 0 the first-passage probability ``erfc(z0 / sqrt(2 s t))``.
    """
    nu = np.sqrt(complex(mu) ** 2 - 2 * s * gamma)  # either root gives the same result
    width = np.sqrt(2 * s * t)
    passed = 0.5 * erfc((z0 + nu * t) / width) + 0.5 * np.exp(-2 * nu * z0 / s) * erfc((z0 - nu * t) / width)
    return complex(np.exp((nu - mu) * z0 / s) * passed)


def half_line(
    state: ArrayLike, z0: float, t: float, z: ArrayLike, v: float, s: float, a: ArrayLike, e: ArrayLike, wall: Wall
) -> HalfLine:
    """Evolve ``state`` times a unit point at z0 with diagonal constant A and H and a wall at z = 0.

    Parameters
    ----------
    state : array_like, shape (d, d)
        Quantum state at t = 0.
    z0, t : float
        Starting point and time.
    z : array_like
        Points, positive.
    v, s : float
        Classical drift and diffusion.
    a, e : array_like, shape (d,)
        Eigenvalues of A (complex) and of H.
    wall : {"reflecting", "absorbing"}
        The wall.

    Returns
    -------
    HalfLine
        Density, shape (d, d, *z.shape), and escaped matrix.
    """
    rho0 = np.asarray(state, dtype=complex)
    d = rho0.shape[0]
    back, energy = np.asarray(a, dtype=complex), np.asarray(e, dtype=float)
    rho = np.empty((d, d, *np.shape(z)), dtype=complex)
    escaped = np.zeros((d, d), dtype=complex)
    for p in range(d):
        for q in range(d):
            mu = v + back[p] + back[q].conj()
            loss = back[p] * back[q].conj() - 0.5 * abs(back[p]) ** 2 - 0.5 * abs(back[q]) ** 2
            gamma = -1j * (energy[p] - energy[q]) + loss / s
            propagator = reflecting_propagator if wall == "reflecting" else absorbing_propagator
            rho[p, q] = rho0[p, q] * np.exp(gamma * t) * propagator(z, z0, t, mu, s)
            if wall == "absorbing":
                escaped[p, q] = rho0[p, q] * first_passage(z0, t, mu, s, gamma)
    return HalfLine(rho, escaped)
