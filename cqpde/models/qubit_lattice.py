r"""n qubits on a lattice, each with a local classical degree of freedom (paper, C.18-C.25).

.. math:: H = \lambda\sum_i \phi_i\,\sigma_z^i + \sum_i\frac{\pi_i^2}{2m}
          + \frac{\kappa}{2}\sum_i (\phi_{i+1} - \phi_i)^2, \qquad
          (\sigma\sigma^T)_{ij} = \sigma^2\left[(1 - c)\,\delta_{ij} + c\right].

The paper takes :math:`\kappa = c = 0`: the generator is then a sum of one-site generators, and :func:`cqpde.solve_sites` has the full
distribution for any n from :func:`lattice_site`. (The :math:`\pi^2` of (C.18) is the sum of the :math:`\pi_i^2`.) The force is
:math:`-\lambda\langle\sigma_z^i\rangle`, (C.20): :math:`|0\rangle` is pushed downwards; Fig. 4 shows the opposite sign and uses
:math:`\phi_i + 2` in the unitary part, both of the authors' script.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import ModelError
from ..grid import Grid
from ..hamiltonian import healed
from ..initial import gaussian
from ..model import Model
from ..operators import sigmaz, tensor
from .setup import Setup, require_parameters

#: A model object has d^n levels: beyond this many sites use the product form.
MOST_SITES = 6


def lattice_site(m: float = 1.0, lam: float = 1.0, sigma: float = 1.0, shift: float = 0.0) -> Model:
    r"""One site of the lattice: :math:`H = \pi^2/2m + \lambda(\phi + s)\sigma_z`, noise sigma in pi.

    Parameters
    ----------
    m, lam, sigma : float
        Mass, coupling, momentum noise.
    shift : float
        s, a constant added to the field in the unitary part (2 in the paper's Fig. 4, 0 in (C.18)).

    Returns
    -------
    Model
        Coordinates ``phi``, ``pi``; two levels.
    """
    import sympy

    require_parameters("lattice_site", {"m": m, "sigma": sigma}, {"lam": lam, "shift": shift})
    phi, pi = sympy.symbols("phi pi", real=True)
    return healed(
        ("phi", "pi"), pi**2 / (2 * m), lam * (phi + shift) * sigmaz(), {"pi": sigma}, name="lattice_site",
        description=f"paper (C.18), one site: m = {m:g}, lam = {lam:g}, sigma = {sigma:g}, shift = {shift:g}",
    )  # fmt: skip


def qubit_lattice(
    n: float = 2, m: float = 1.0, lam: float = 1.0, sigma: float = 1.0, gradient: float = 0.0, correlation: float = 0.0, shift: float = 0.0
) -> Model:  # fmt: skip
    r"""All n sites as one model, eq. (C.18), with correlated noise and a gradient term if asked for.

    Parameters
    ----------
    n : int
        Sites; the model has 2n coordinates and :math:`2^n` levels (at most 6 sites).
    m, lam, sigma : float
        Mass, coupling, momentum noise of each site.
    gradient : float
        :math:`\kappa`, an open chain of springs between neighbours.
    correlation : float
        c, correlation of the noise of any two sites, in :math:`[-1/(n-1), 1]`.
    shift : float
        Constant added to the field in the unitary part.

    Returns
    -------
    Model
        Coordinates ``phi_1, pi_1, ..., phi_n, pi_n``; site 1 is the leftmost factor of the levels.

    Raises
    ------
    ModelError
        If parameters are out of range.
    """
    import sympy

    require_parameters("qubit_lattice", {"m": m, "sigma": sigma}, {"lam": lam, "gradient": gradient, "correlation": correlation, "shift": shift})
    if isinstance(n, float) and n.is_integer():
        n = int(n)
    if not isinstance(n, int | np.integer) or not 1 <= n <= MOST_SITES:
        raise ModelError("qubit_lattice(n=...)", f"must be an integer of 1 to {MOST_SITES}", repr(n), "Use cqpde.solve_sites for more sites")
    least = -1.0 / (n - 1) if n > 1 else -1.0
    if not least <= correlation <= 1.0:
        raise ModelError("qubit_lattice(correlation=...)", f"must lie in [{least:.3g}, 1] for {n} sites", correlation, "Correct the parameter")
    phi, pi = sympy.symbols(f"phi_1:{n + 1}", real=True), sympy.symbols(f"pi_1:{n + 1}", real=True)
    sz = [sympy.Matrix(tensor(*[sigmaz() if k == i else np.eye(2) for k in range(n)]).real.astype(int)) for i in range(n)]
    h_i = sum((lam * (f + shift) * s for f, s in zip(phi, sz, strict=True)), start=sympy.zeros(2**n))
    h_c = sum(p**2 for p in pi) / (2 * m) + gradient / 2 * sum((b - a) ** 2 for a, b in pairwise(phi))
    covariance = sigma**2 * ((1.0 - correlation) * np.eye(n) + correlation)
    values, vectors = np.linalg.eigh(covariance)
    root = sigma * np.eye(n) if correlation == 0 else vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    noise = np.zeros((2 * n, n))
    noise[1::2] = root
    return healed(
        list(zip(map(str, phi), map(str, pi), strict=True)), h_c, h_i, noise.tolist(), name="qubit_lattice",
        description=f"paper (C.18): n = {n}, m = {m:g}, lam = {lam:g}, sigma = {sigma:g}, gradient = {gradient:g}, correlation = {correlation:g}, shift = {shift:g}",
    )  # fmt: skip


def qubit_lattice_setup(
    n: float = 2, m: float = 1.0, lam: float = 1.0, sigma: float = 1.0, gradient: float = 0.0, correlation: float = 0.0, shift: float = 0.0
) -> Setup:  # fmt: skip
    """Run one or two sites on the direct grid from a GHZ state and Gaussians 0.5 wide, to t = 0.5 (more sites: ``cqpde.solve_sites``)."""
    if n not in (1, 2):
        raise ModelError("qubit_lattice(n=...)", "the direct grid is for 1 or 2 sites", repr(n), "Use cqpde.solve_sites for more sites")
    model = qubit_lattice(n, m, lam, sigma, gradient, correlation, shift)
    # 6.2 standard deviations about both branches at t = 0.5
    reach = 0.125 * abs(lam) / m + 6.2 * (0.25 + 0.0625 / m**2 + sigma**2 / (24 * m**2)) ** 0.5
    push = 0.5 * abs(lam) + 6.2 * (0.25 + 0.5 * sigma**2) ** 0.5
    axes: dict[str, Any] = {}
    for i in range(1, int(n) + 1):
        axes |= {f"phi_{i}": (-reach, reach, 24), f"pi_{i}": (-push, push, 36)}
    grid = Grid(**axes)
    cat = np.zeros(2 ** int(n), dtype=complex)
    cat[0] = cat[-1] = 0.5**0.5
    return Setup(model, grid, gaussian(grid, 0.0, 0.5, cat), np.array([0.0, 0.25, 0.5]))
