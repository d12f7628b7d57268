r"""Linear Diosi model (paper, C.4-C.9): a qubit coupled by a constant force to a particle, as in a Stern-Gerlach experiment.

.. math:: H(q, p) = \frac{p^2}{2m} + (2\lambda q + \phi)\,\sigma_z, \qquad \text{noise } \sigma \text{ in } p.

The force is :math:`-\partial_q H`: (C.8) pushes :math:`|0\rangle` downwards; the captions of Figs. 2 and 5 show the opposite sign, that of the
authors' script.
"""

from __future__ import annotations

import numpy as np

from ..errors import StateError
from ..grid import Grid
from ..hamiltonian import healed
from ..initial import density_matrix, gaussian
from ..model import Model
from ..operators import ket, sigmaz
from .setup import Setup, require_parameters

Array = np.ndarray


def linear_diosi(m: float = 1.0, lam: float = 1.0, phi: float = 2.0, sigma: float = 1.0, excess: float = 0.0) -> Model:
    r"""The linear Diosi model, eq. (C.4), trade-off saturated unless ``excess`` is given.

    Parameters
    ----------
    m : float
        Mass.
    lam : float
        Coupling :math:`\lambda`: the force is :math:`-2\lambda\sigma_z`.
    phi : float
        Qubit frequency: :math:`H \ni \phi\,\sigma_z`.
    sigma : float
        Momentum noise, :math:`dP = \ldots + \sigma dW`.
    excess : float
        Rate added to the least decoherence :math:`\lambda^2/\sigma^2` on :math:`\sigma_z`.

    Returns
    -------
    Model
        Coordinates ``q``, ``p``; two levels.

    Examples
    --------
    >>> linear_diosi(sigma=0.8)
    Model('linear_diosi', coordinates=(q, p), dim=2, Lindblad operators=1)
    """
    import sympy

    require_parameters("linear_diosi", {"m": m, "sigma": sigma}, {"lam": lam, "phi": phi, "excess": excess})
    q, p = sympy.symbols("q p", real=True)
    # the one Lindblad operator is {p, H_I} = -2 lam sigma_z, so a rate on sigma_z is divided by (2 lam)^2
    extra = None if excess == 0 or lam == 0 else [[excess / (4 * lam**2)]]
    return healed(
        ("q", "p"), p**2 / (2 * m), (2 * lam * q + phi) * sigmaz(), {"p": sigma}, excess=extra, name="linear_diosi",
        description=f"paper (C.4): m = {m:g}, lam = {lam:g}, phi = {phi:g}, sigma = {sigma:g}, excess = {excess:g}",
    )  # fmt: skip


def linear_diosi_exact(
    grid: Grid, t: float, mean: tuple[float, float] = (0.0, 0.0), std: tuple[float, float] = (0.4, 0.4), state: object = None,
    m: float = 1.0, lam: float = 1.0, phi: float = 2.0, sigma: float = 1.0, excess: float = 0.0,
) -> Array:  # fmt: skip
    r"""Exact density matrix of the linear Diosi model from a Gaussian times a quantum state, at the cell centres.

    The populations move as Gaussians under the forces :math:`\mp 2\lambda`; the coherence is a Gaussian with a complex mean,

    .. math:: \rho_{01} = \varrho_{01}\, e^{-2i\phi t - 2 D_0 t - i k \bar I - k^2 V_I/2}\,
              \mathcal N(z;\ \bar z - i k C,\ V), \qquad k = 4\lambda,

    where :math:`\bar I, V_I` are mean and variance of :math:`\int q\,dt` and C its covariance with (q, p).

    Parameters
    ----------
    grid : Grid
        Axes ``q``, ``p``.
    mean, std : pairs
        Of the initial Gaussian in (q, p).
    state : ket or density matrix
        Default ``|+>``.

    Returns
    -------
    array, shape (2, 2, *cells)
    """
    if grid.names != ("q", "p"):
        raise StateError("grid", "the exact solution is over ('q', 'p')", grid.names, "Name the axes q, p")
    rho0 = density_matrix(ket("+") if state is None else state)
    q, p = grid.mesh().values()
    (q0, p0), (vqq0, vpp0) = mean, (std[0] ** 2, std[1] ** 2)
    w = sigma**2
    vqq = vqq0 + vpp0 * t**2 / m**2 + w * t**3 / (3 * m**2)
    vqp = vpp0 * t / m + w * t**2 / (2 * m)
    vpp = vpp0 + w * t
    determinant = vqq * vpp - vqp**2

    def normal(mu_q: complex, mu_p: complex) -> Array:
        a, b = q - mu_q, p - mu_p
        exponent = (vpp * a * a - 2 * vqp * a * b + vqq * b * b) / determinant
        return np.asarray(np.exp(-0.5 * exponent) / (2 * np.pi * determinant**0.5))

    zq, zp = q0 + p0 * t / m, p0
    shift_q, shift_p = lam * t**2 / m, 2 * lam * t
    k = 4 * lam
    i_mean = q0 * t + p0 * t**2 / (2 * m)
    c_q = vqq0 * t + vpp0 * t**3 / (2 * m**2) + w * t**4 / (8 * m**2)
    c_p = vpp0 * t**2 / (2 * m) + w * t**3 / (6 * m)
    v_i = vqq0 * t**2 + vpp0 * t**4 / (4 * m**2) + w * t**5 / (20 * m**2)
    d0 = lam**2 / w + excess
    rho = np.zeros((2, 2, *grid.shape), dtype=complex)
    rho[0, 0] = rho0[0, 0] * normal(zq - shift_q, zp - shift_p)
    rho[1, 1] = rho0[1, 1] * normal(zq + shift_q, zp + shift_p)
    rho[0, 1] = (
        rho0[0, 1]
        * np.exp(-2j * phi * t - 2 * d0 * t - 1j * k * i_mean - 0.5 * k**2 * v_i)
        * normal(zq - 1j * k * c_q, zp - 1j * k * c_p)
    )
    rho[1, 0] = rho[0, 1].conj()
    return rho


def linear_diosi_setup(
    m: float = 1.0, lam: float = 1.0, phi: float = 2.0, sigma: float = 1.0, excess: float = 0.0
) -> Setup:
    """Run the model from ``|+>`` at the origin, Gaussian of width 0.4 in q and p, to t = 1 on a box that holds both branches."""
    model = linear_diosi(m, lam, phi, sigma, excess)
    widest_q, widest_p = (0.16 + 0.16 / m**2 + sigma**2 / (3 * m**2)) ** 0.5, (0.16 + sigma**2) ** 0.5
    q_end, p_end = abs(lam) / m + 6.2 * widest_q, 2 * abs(lam) + 6.2 * widest_p
    grid = Grid(q=(-q_end, q_end, 128), p=(-p_end, p_end, 256))
    rho0 = gaussian(grid, 0.0, 0.4, ket("+"))

    def exact(on: Grid, t: float) -> Array:
        return linear_diosi_exact(on, t, m=m, lam=lam, phi=phi, sigma=sigma, excess=excess)

    return Setup(model, grid, rho0, np.linspace(0.0, 1.0, 11), exact)
