r"""Mass in superposition (paper, C.14-C.17): a test mass near a planet that is in a superposition of two places.

.. math:: H(\mathbf r, \mathbf p) = \frac{\mathbf p^2}{2m} - \frac{GMm}{\sqrt{|\mathbf r - \mathbf r_s|^2 + \epsilon^2}}
          + \phi\,\sigma_z, \qquad \mathbf r_L = -\mathbf d,\ \mathbf r_R = +\mathbf d, \qquad \text{noise } \sigma \text{ in every } p_i.

Level 0 is :math:`|L\rangle` (:math:`\sigma_z = +1`), at x = -d: the paper's (C.14) prints :math:`\mathbf r - \sigma_z\mathbf d`, with
:math:`\mathbf d` pointing to the left. (C.17) prints the noise term of the quantum state with +; the equations need -, since
:math:`\{p, H\} = -\partial_q H`. Fig. 7 was drawn with sigma = 0.05, and not with the 2m = 0.02 of its caption.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ModelError
from ..grid import Grid
from ..hamiltonian import healed
from ..initial import State, gaussian
from ..model import Model
from ..operators import ket
from .setup import Setup, require_parameters

#: Coordinates in the plane of the motion, and in space.
COORDINATES = {2: ("x", "y"), 3: ("x", "y", "z")}


def mass_in_superposition(
    G: float = 1.0, M: float = 10.0, m: float = 0.01, sigma: float = 0.05, phi: float = 0.0, d: float = 1.0, eps: float = 0.25,
    dimensions: int = 2,
) -> Model:  # fmt: skip
    r"""A test mass drawn to a mass in superposition, eq. (C.14), trade-off saturated.

    Parameters
    ----------
    G, M, m : float
        Constant of gravitation, mass of the planet, mass of the test particle.
    sigma : float
        Momentum noise in every direction.
    phi : float
        Qubit frequency, :math:`H \ni \phi\sigma_z`: a phase only, populations and paths do not depend on it.
    d : float
        Half the distance of the two places of the planet, which are at x = -d (L) and x = d (R).
    eps : float
        Softening length :math:`\epsilon`. With ``eps=0``, as printed, the force is singular: a single trajectory may use it, but the
        velocity moments of an ensemble are then made by a few close passages and by the step, and a grid sees whatever the
        centres of its cells see. Grids and moments need ``eps`` of at least two cells.
    dimensions : {2, 3}
        2: motion in the plane of the start (4-D phase space); 3: in space (6-D).

    Returns
    -------
    Model
        Coordinates ``x, px, y, py`` (and ``z, pz``); two levels, L and R.

    Notes
    -----
    Near a place of the planet the steepest force is :math:`2GMm/(3\sqrt3\epsilon^2)`, within :math:`\epsilon/\sqrt2` of it; decoherence
    there has the rate :math:`F^2/8\sigma^2`. The split route takes kick and decoherence exactly at any step; its steps must
    only resolve the path, :math:`\Delta t\,|p|/m \ll \epsilon`.
    """
    import sympy

    require_parameters(
        "mass_in_superposition", {"G": G, "M": M, "m": m, "sigma": sigma}, {"phi": phi, "d": d, "eps": eps}
    )
    if eps < 0:
        raise ModelError("mass_in_superposition(eps=...)", "must be a non-negative length", repr(eps), "Try 0.25")
    if dimensions not in COORDINATES:
        raise ModelError("mass_in_superposition(dimensions=...)", "must be 2 or 3", repr(dimensions), "2 is the plane of the motion")
    names = COORDINATES[int(dimensions)]
    place = sympy.symbols(names, real=True)
    momenta = sympy.symbols([f"p{c}" for c in names], real=True)
    squares = sum(c**2 for c in place[1:]) + sympy.Float(eps) ** 2
    pull = lambda at: -G * M * m / sympy.sqrt((place[0] - at) ** 2 + squares)
    return healed(
        [(c, f"p{c}") for c in names], sum(p**2 for p in momenta) / (2 * m), sympy.diag(pull(-d) + phi, pull(d) - phi),
        {f"p{c}": sigma for c in names}, name="mass_in_superposition",
        description=f"paper (C.14): G = {G:g}, M = {M:g}, m = {m:g}, sigma = {sigma:g}, phi = {phi:g}, d = {d:g}, eps = {eps:g}, {dimensions} dimensions",
    )  # fmt: skip


def mass_in_superposition_grid(cells: int = 48, m: float = 0.01) -> Grid:
    """The box of the paper's parameters up to t = 0.35 in the plane: 6.5e-5 of the probability leaves it; momenta scale with ``m``."""
    return Grid(
        x=(-3.0, 3.0, cells), px=(-13.0 * m, 13.0 * m, cells), y=(-3.2, 2.2, cells), py=(-11.5 * m, 12.5 * m, cells)
    )


def mass_in_superposition_start(grid: Grid, m: float = 0.01, state: Any = None) -> State:
    """A Gaussian about rest at (0, -0.5), 0.12 wide in every direction and 0.5 in velocity; quantum state ``|+>`` by default."""
    place = [name for name in grid.names if not name.startswith("p")]
    std = {c: 0.12 for c in place} | {f"p{c}": 0.5 * m for c in place}
    return gaussian(grid, {"y": -0.5}, std, ket("+") if state is None else state)


def mass_in_superposition_setup(
    G: float = 1.0, M: float = 10.0, m: float = 0.01, sigma: float = 0.05, phi: float = 0.0, d: float = 1.0, eps: float = 0.25
) -> Setup:
    """Run the model in the plane, on 48^4 cells and with a Gaussian start, to t = 0.35 in steps of 0.01 (``--cells``, ``--dt``)."""
    if eps <= 0:
        raise ModelError("mass_in_superposition(eps=...)", "a grid needs a positive softening", repr(eps), "Try 0.25")
    model = mass_in_superposition(G, M, m, sigma, phi, d, eps)
    grid = mass_in_superposition_grid(48, m)
    return Setup(model, grid, mass_in_superposition_start(grid, m), np.array([0.0, 0.35]), options={"dt": 0.01, "tol": 2e-2})
