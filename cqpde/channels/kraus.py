r"""The kick as a sum of Kraus operators on the cells: completely positive and trace-preserving to round-off at any step.

Noise s, operator drift A and scalar drift g along one axis move a state by the displacement x in a time dt and leave it as

.. math::
    \rho(z) \leftarrow \sum_x K(x)\,\rho(z - x)\,K(x)^\dagger, \qquad
    K(x) = \sqrt{N(\xi; 0, s\,dt)}\; \exp\left[\frac{A\xi}{s} + c\,dt + \frac{dt^2}{12 s}[A, [A, c]]\right] M^{-1/2}, \qquad
    \xi = x - g\,dt,\quad c = -\frac{A^\dagger A + A^2}{2s}.

This is the linear stochastic equation of the unravelling, :math:`d\psi = (-A^\dagger A/2s)\,dt\,\psi + A\,d\xi/s\,\psi`, over a straight path
to the displacement; the double commutator is the mean effect of the Brownian bridge around that path, so the error of one step is of third
order in dt for any A. For normal A it vanishes and the kick is exact (Hermitian A: a Gaussian of variance 2 s dt in amplitude around
2 A dt). :math:`M = \sum_x K^\dagger K` makes the sum over cells preserve the trace; it differs from one by what sampling a Gaussian on
cells leaves out, 5e-9 at :math:`s\,dt = h^2` and round-off from 2 h^2 on (paper, Appendix F, is its first order in dt).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from ..components import sandwich
from ..errors import RouteError
from ..grid import Grid
from ..model import Canonical
from ..stencil import Stencil, StencilBuilder
from .parts import tidy
from .spectral import Multiplier, exponential, pack_multiplier

Array = np.ndarray

#: Least noise of one kick, ``s dt / h^2``, at any tolerance: there sampling the Gaussian on cells changes its variance by 2e-3.
LEAST_NOISE = 0.5

#: Standard deviations of the displacement that are kept on each side.
REACH = 8.6

#: Up to so many displacements the sum is done on the cells, beyond by fast transform of the same sum.
SHORT = 48


@dataclass(frozen=True)
class KrausKick:
    """A kick over one dt: a stencil on the cells, or Fourier multipliers of the same sum.

    Attributes
    ----------
    axis : int
    stencil : Stencil or None
    multiplier : Multiplier or None
    displacements : int
        Number of Kraus operators.
    """

    axis: int
    stencil: Stencil | None
    multiplier: Multiplier | None
    displacements: int


def torus(grid: Grid) -> Grid:
    """The same cells with every axis closed on itself."""
    return Grid(**{a.name: (a.lower, a.upper, a.n, "periodic") for a in grid.axes})


def least_noise(tol: float) -> float:
    r"""Least ``s dt / h^2`` of a kick at which sampling changes its variance by less than ``tol/2``.

    By Poisson's sum the variance :math:`\sigma^2` (in cells) changes by the share :math:`8\pi^2\sigma^2 e^{-2\pi^2\sigma^2}`; the
    kicks of a run add up to no more than the same share of its noise.
    """
    loss = lambda v: 8.0 * np.pi**2 * v * np.exp(-2.0 * np.pi**2 * v) - 0.5 * tol
    return LEAST_NOISE if loss(LEAST_NOISE) <= 0.0 else float(brentq(loss, LEAST_NOISE, 4.0))


def kraus_operators(s: Array, a: Array, g: Array, h: float, dt: float) -> tuple[Array, Array]:
    """Displacements in cells (count,) and Kraus operators (count, *cells, d, d).

    Parameters
    ----------
    s, g : array (*cells)
        Noise (positive) and scalar drift.
    a : array (*cells, d, d)
    h : float
        Cell width.
    """
    d = a.shape[-1]
    adjoint = np.conj(np.swapaxes(a, -1, -2))
    inverse = (1.0 / s)[..., None, None]
    c = -0.5 * inverse * (adjoint @ a + a @ a)
    inner = a @ c - c @ a
    fixed = dt * c + dt * dt / 12.0 * inverse * (a @ inner - inner @ a)
    reach = REACH * (float(np.max(s)) * dt) ** 0.5 + dt * (2.0 * float(np.max(np.linalg.norm(a, ord=2, axis=(-2, -1)))))
    low, high = float(np.min(g)) * dt - reach, float(np.max(g)) * dt + reach
    m = np.arange(int(np.floor(low / h)), int(np.ceil(high / h)) + 1)
    xi = m.reshape(-1, *[1] * s.ndim) * h - g * dt
    gauss = -(xi**2) / (4.0 * s * dt)
    k = exponential(gauss[..., None, None] * np.eye(d) + (xi / s)[..., None, None] * a + fixed)
    total = np.sum(np.conj(np.swapaxes(k, -1, -2)) @ k, axis=0)
    values, vectors = np.linalg.eigh(total)
    root = (vectors / np.sqrt(values)[..., None, :]) @ np.conj(np.swapaxes(vectors, -1, -2))
    return m, k @ root


def kraus_kick(fields: Canonical, grid: Grid, axis: int, drift: Array, dt: float) -> KrausKick:
    """The kick along one axis over ``dt``.

    Raises
    ------
    RouteError
        If ``s dt / h^2`` is below :data:`LEAST_NOISE` on some cell.
    """
    h, n, name = grid.axes[axis].spacing, grid.ndim, grid.names[axis]
    s = fields.s[..., axis, axis]
    weakest = float(np.min(s)) * dt / h**2
    if weakest < LEAST_NOISE:
        raise RouteError(
            "positivity",
            f"a kick on cells needs s dt / h^2 >= {LEAST_NOISE} along {name}",
            f"{weakest:.3g} at dt = {dt:.3g}",
            _remedy(grid.axes[axis].n, weakest, name),
        )
    cells, k = kraus_operators(s, fields.A[axis], drift, h, dt)
    maps = sandwich(k)  # (count, *others, d^2, d^2)
    if len(cells) <= min(SHORT, grid.shape[axis]):
        builder = StencilBuilder(torus(grid), fields.H.shape[-1])
        for m, s_m in zip(cells, maps, strict=True):
            builder.matrix(tuple(int(m) if i == axis else 0 for i in range(n)), s_m)
        return KrausKick(axis, builder.build(), None, len(cells))
    count, size = grid.shape[axis], maps.shape[-1]
    around = np.zeros((count, *np.delete(maps.shape[1:-2], axis), size, size))
    np.add.at(around, cells % count, np.squeeze(maps, axis=axis + 1))
    hat = np.moveaxis(np.fft.rfft(around, axis=0), 0, axis)
    entries = [(r, c, tidy(hat[..., r, c], n)) for r in range(size) for c in range(size) if np.any(maps[..., r, c])]
    return KrausKick(axis, None, pack_multiplier([(list(range(size)), entries)], n), len(cells))


def _remedy(n: int, weakest: float, name: str) -> str:
    if weakest <= 0.0:
        return "Use more cells along the axes that stream, so that steps are shorter, or method='fv'"
    return f"Use at least {int(np.ceil(n * (LEAST_NOISE / weakest) ** 0.5))} cells along {name} for such steps, a larger tol, or method='fv'"
