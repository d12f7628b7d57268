r"""A well and a barrier in superposition (paper, C.10-C.13): a particle meets :math:`\pm\lambda\sqrt q`, as the qubit says.

.. math:: H(q, p) = \frac{p^2}{2m} + \lambda\sqrt q\,\sigma_z, \qquad \sigma(q) = \frac{\gamma}{\sqrt q}, \qquad q > q_{\min}.

:math:`|0\rangle` feels the well :math:`+\lambda\sqrt q`, which draws it to q = 0; :math:`|1\rangle` the barrier
:math:`-\lambda\sqrt q` (the caption of Fig. 6 prints :math:`+\sqrt q` for it). The rate of decoherence,
:math:`\lambda^2/(8\gamma^2)` on :math:`\mathcal D[\sigma_z]/2`, is the same everywhere.

The model needs :math:`q_{\min} > 0`: near q = 0 the logarithm of q behaves like integrated Brownian motion, so q = 0 itself is never
reached, the chance to pass below e falls only slowly with e, and the momentum after a rebound has no mean. The end at
:math:`q_{\min}` is a part of the model: it absorbs what arrives with p < 0 (``outflow``), or returns it at -p (``specular``).
"""

from __future__ import annotations

import numpy as np

from ..errors import ModelError, did_you_mean
from ..grid import Grid
from ..hamiltonian import healed
from ..initial import gaussian
from ..model import Model
from ..operators import ket, sigmaz
from .setup import Setup, require_parameters

#: What the end at q_min may do.
WALLS = {"outflow": "outflow", "specular": "specular(p)"}


def well_and_barrier(m: float = 1.0, lam: float = 1.0, gamma: float = 0.5) -> Model:
    r"""The model (C.10) with the noise of (C.12), trade-off saturated.

    Parameters
    ----------
    m : float
        Mass.
    lam : float
        Coupling :math:`\lambda`.
    gamma : float
        Noise :math:`\gamma`: :math:`\sigma(q) = \gamma/\sqrt q`.

    Returns
    -------
    Model
        Coordinates ``q`` > 0, ``p``; two levels. The coefficients are not defined for :math:`q \le 0`: use
        :func:`well_and_barrier_grid`.
    """
    import sympy

    require_parameters("well_and_barrier", {"m": m, "gamma": gamma}, {"lam": lam})
    q, p = sympy.symbols("q p", real=True)
    return healed(
        ("q", "p"), p**2 / (2 * m), lam * sympy.sqrt(q) * sigmaz(), {"p": gamma / sympy.sqrt(q)}, name="well_and_barrier",
        description=f"paper (C.10): m = {m:g}, lam = {lam:g}, gamma = {gamma:g}",
    )  # fmt: skip


def well_and_barrier_grid(
    q_min: float = 0.05, cells: tuple[int, int] = (128, 128), wall: str = "outflow", q_max: float = 9.0, p_max: float = 9.0
) -> Grid:
    """Cells over q_min < q < q_max and -p_max < p < p_max, with the end at q_min that the model needs.

    Parameters
    ----------
    q_min : float
        Where the model ends; positive.
    wall : {"outflow", "specular"}
        ``outflow``: what arrives at q_min (with p < 0) is absorbed, and kept as a 2 x 2 matrix; ``specular``: it comes back at -p.
    """
    require_parameters("well_and_barrier", {"q_min": q_min, "q_max": q_max, "p_max": p_max}, {})
    if wall not in WALLS:
        raise ModelError("well_and_barrier(wall=...)", "must be a known end", repr(wall), did_you_mean(str(wall), WALLS))
    return Grid(q=(q_min, q_max, cells[0], (WALLS[wall], "open")), p=(-p_max, p_max, cells[1]))


def well_and_barrier_setup(
    m: float = 1.0, lam: float = 1.0, gamma: float = 0.5, q_min: float = 0.05, wall: str = "outflow"
) -> Setup:
    """Run the model as in Fig. 6, from ``|+>`` and a Gaussian about q = 1, p = -1, 0.12 wide in both, to t = 2."""
    grid = well_and_barrier_grid(q_min, wall=wall)
    return Setup(well_and_barrier(m, lam, gamma), grid, gaussian(grid, {"q": 1.0, "p": -1.0}, 0.12, ket("+")), np.linspace(0.0, 2.0, 11))
