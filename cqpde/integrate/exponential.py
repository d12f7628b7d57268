r"""The exponential of a generator on a state, to round-off, by a truncated Faber series.

A generator of Lindblad form has its spectrum in an ellipse around :math:`-a` that touches zero. With the conformal map
:math:`\psi(w) = w - a + \gamma/w` of the outside of the circle :math:`|w| = c` (c the ellipse's capacity) onto the outside of the
ellipse,

.. math:: e^{\tau G}\rho = \sum_k a_k f_k, \quad f_{k+1} = \tfrac{1}{c}(G + a) f_k - \tfrac{\gamma}{c^2} f_{k-1}, \quad
          a_k = \frac{1}{2\pi}\int_0^{2\pi} e^{\tau\psi(c e^{i\theta})} e^{-ik\theta} d\theta

(f_1 and f_2 start with factor 2 on the last term). Real spectra make it the Chebyshev series, a disc the Taylor series around its
centre; the number of applications of G grows like the square root of ``tau a`` for diffusion and like ``tau a`` for pure drift.
Because the sum is the exponential to round-off, the result is as positive and as trace-preserving as the exponential itself.
G. Faber, Math. Ann. 57, 389 (1903); W. Huisinga et al., J. Chem. Phys. 110, 5538 (1999).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..components import copy_state
from ..errors import SolverError
from ..fv.assemble import Bounds
from ..fv.generator import Generator

Array = np.ndarray

#: Terms of the series below this, relative to one, are dropped.
ROUND_OFF = 2e-16

#: Largest rate * time of one series.
LONGEST = 1e5


@dataclass(frozen=True)
class Ellipse:
    """Centre ``-a`` and half-axes of a set that holds the spectrum."""

    a: float
    real: float
    imaginary: float


def enclosing_ellipse(bounds: Bounds, tau: float, margin: float = 1.0) -> Ellipse:
    """Smallest useful ellipse around the dissipative ellipse widened by +-i frequency.

    The real half-axis may exceed the centre by 2/tau, which lets the series' terms grow by at most e^2.
    """
    rate, drift, omega = bounds.rate * margin, min(bounds.drift, bounds.rate) * margin, bounds.frequency * margin
    if omega == 0.0:
        return Ellipse(rate, rate, drift)
    if rate * tau < 1.0:
        # mostly unitary: a disc-free ellipse around the imaginary segment
        return Ellipse(rate, rate + 2.0 / tau, drift + omega * 1.2 + 0.5 / tau)
    epsilon = min(1.0, 4.0 / (rate * tau))
    return Ellipse(
        rate, rate * (1.0 + epsilon) ** 0.5, ((1.0 + epsilon) * drift**2 + (1.0 + 1.0 / epsilon) * omega**2) ** 0.5
    )


def coefficients(ellipse: Ellipse, tau: float) -> tuple[Array, float, float]:
    """Faber coefficients ``a_k`` down to round-off, the capacity and ``gamma``."""
    capacity = max(0.5 * (ellipse.real + ellipse.imaginary), 1e-300)
    gamma = 0.25 * (ellipse.real**2 - ellipse.imaginary**2)
    points = 1 << int(np.ceil(np.log2(256 + 4.0 * tau * (ellipse.real + ellipse.imaginary))))
    theta = 2.0 * np.pi * np.arange(points) / points
    # psi(c e^{i theta}) written so that it is exact where the exponential is large: 1e-16 here is trace drift later
    real = (ellipse.real - ellipse.a) - 2.0 * ellipse.real * np.sin(0.5 * theta) ** 2
    series = np.fft.fft(np.exp(tau * (real + 1j * ellipse.imaginary * np.sin(theta)))).real[: points // 2] / points
    # the coefficients have one hump; what lies outside it is round-off of the transform
    noise = max(ROUND_OFF * float(np.abs(series).max()), 5.0 * float(np.std(series[len(series) // 2 :])))
    peak = int(np.argmax(np.abs(series)))
    series[:peak][np.abs(series[:peak]) < noise] = 0.0
    small = np.flatnonzero(np.abs(series[peak:]) < noise)
    series = series[: max(2, peak + (int(small[0]) if len(small) else len(series)))]
    # the exponential of a trace-preserving generator preserves the trace: hold the series to that to the last bit
    return series / _value_at_zero(series, ellipse.a / capacity, gamma / capacity**2), capacity, gamma


def _value_at_zero(series: Array, shift: float, ratio: float) -> float:
    """Sum of the series for the eigenvalue zero of G, which must be one."""
    old, new = 1.0, shift
    total = series[0] + series[1] * new
    for k in range(2, len(series)):
        old, new = new, shift * new - (2.0 if k == 2 else 1.0) * ratio * old
        total += series[k] * new
    return float(total)


class Exponential:
    """Applies ``exp(tau G)``; keeps its three work arrays and the series of every ``tau`` it has met."""

    def __init__(self) -> None:
        self._series: dict[tuple[float, float, float, float], tuple[Array, float, float, float]] = {}
        self._work: list[Array] = []
        self.applications = 0

    def __call__(self, g: Generator, x: Array, escaped: Array, tau: float) -> tuple[Array, Array]:
        """Return ``exp(tau G)`` on a state (d^2, batch * cells) and its escaped matrices (batch, faces, d^2).

        Raises
        ------
        SolverError
            If the series does not converge on any ellipse tried (the generator is not of Lindblad form) or overflows.
        """
        span = (g.bounds.rate + g.bounds.frequency) * tau
        if span == 0.0:
            return x.copy(), escaped.copy()
        if span > LONGEST:  # in parts: the series of one would not fit into memory
            parts = int(np.ceil(span / LONGEST))
            for _ in range(parts):
                x, escaped = self._one(g, x, escaped, tau / parts)
            return x, escaped
        return self._one(g, x, escaped, tau)

    def _one(self, g: Generator, x: Array, escaped: Array, tau: float) -> tuple[Array, Array]:
        """One series."""
        for margin in (1.0, 1.5, 3.0, 8.0):
            result = self._try(g, x, escaped, tau, margin)
            if result is not None:
                return result
        raise SolverError(
            "exp(dt G)",
            "the series of the exponential must converge",
            f"no convergence over a time of {tau:.3g}",
            "The model is probably unphysical (check='off'?): reduce dt_max",
        )

    def _try(self, g: Generator, x: Array, escaped: Array, tau: float, margin: float) -> tuple[Array, Array] | None:
        key = (g.bounds.rate * margin, g.bounds.drift * margin, g.bounds.frequency * margin, tau)
        if key not in self._series:
            if len(self._series) > 64:
                self._series.clear()
            ellipse = enclosing_ellipse(g.bounds, tau, margin)
            self._series[key] = (*coefficients(ellipse, tau), ellipse.a)
        series, capacity, gamma, a = self._series[key]
        old, acc, new = (copy_state(x) for _ in range(3))
        acc *= series[0]
        eold, eacc, enew = escaped.copy(), series[0] * escaped, np.zeros_like(escaped)
        size = g.largest(x) or 1.0
        for k in range(1, len(series)):
            # f_k from f_{k-1} (old) and f_{k-2} (new, overwritten)
            factor = 0.0 if k == 1 else (-2.0 if k == 2 else -1.0) * gamma / capacity**2
            g.step(old, eold, new, enew, acc, eacc, 1.0 / capacity, a / capacity, factor, series[k])
            old, eold, new, enew = new, enew, old, eold
            self.applications += 1
        # on a set that holds the spectrum the polynomials stay of order one
        growth = g.largest(old) / size
        if not np.isfinite(growth) or growth * abs(series[-1]) > 1e-14 or growth > 1e6:
            return None
        return acc, eacc
