r"""A scalar field on a lattice that quantum systems couple to (paper, Appendix G).

.. math:: \dot\phi_x = \pi_x, \qquad
    d\pi_x = \left(\nabla^2\phi - m^2\phi\right)_x dt - \frac{g}{a}\langle O_x\rangle dt + \sigma_{xy}\,dW_y, \qquad
    H = g\sum_x\phi_x O_x ,

with the trade-off (G.2) as a matrix inequality over sites: :math:`D_0 \ge \frac{g^2}{4a^2}(\sigma\sigma^T)^{-1}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ModelError, OptionError
from ..model import Model
from ..options import NUMBER, POSITIVE, TEXT, numbers, require_flag, takes

Array = np.ndarray


@takes(coupling=NUMBER, mass=NUMBER, spacing=POSITIVE, periodic=require_flag, name=TEXT)
def scalar_field(
    operators: Sequence[Any],
    *,
    noise: Any,
    coupling: float = 1.0,
    mass: float = 1.0,
    spacing: float = 1.0,
    H: Any = None,
    decoherence: Any = None,
    periodic: bool = True,
    name: str = "scalar field",
) -> Model:
    r"""A discretised scalar field with gradient energy, one operator per site.

    Parameters
    ----------
    operators : list of matrix (d, d)
        Hermitian :math:`O_x`, e.g. projectors of a particle on sites, or :math:`\sigma_z` of one qubit per site.
    noise : number or matrix (sites, sites)
        :math:`\sigma\sigma^T` over sites: local (a number), or correlated (a symmetric positive definite kernel).
    coupling, mass, spacing : float
        g, m and the lattice spacing a.
    H : matrix (d, d), optional
        Hamiltonian of the quantum systems beside the coupling.
    decoherence : matrix (sites, sites), optional
        :math:`D_0` between the operators; default: saturated, which for correlated noise is a kernel over sites too.
    periodic : bool
        Whether the chain closes.

    Returns
    -------
    Model
        Coordinates ``phi0, pi0, phi1, pi1, ...``: two sites fit on a grid (``solve(..., dt=...)``), more are for ``unravel``. Sites without
        gradient energy and with local noise are a product form of any number of sites, ``cq.solve_sites`` with ``cq.models.lattice_site``.

    Raises
    ------
    OptionError
        If shapes do not fit or the noise is not positive definite.
    ModelError
        If (G.2) fails for the given decoherence.

    Examples
    --------
    >>> import numpy as np, cqpde as cq
    >>> model = cq.scalar_field([np.diag([1, 0]), np.diag([0, 1])], noise=[[0.3, 0.1], [0.1, 0.3]], coupling=0.5)  # a particle on two sites
    >>> model.coordinates, model.dim
    (('phi0', 'pi0', 'phi1', 'pi1'), 2)
    >>> grid = cq.Grid(**{c: (-8, 8, 6) for c in model.coordinates})  # here for histograms alone
    >>> ens = cq.unravel(model, cq.gaussian(grid, 0, 1.0, cq.ket("+")), [0, 0.5], trajectories=500, seed=1, dt=0.05)
    >>> bool(abs(ens.purity[-1] - 1) < 1e-10)  # saturated also between sites
    True
    """
    import sympy

    plain = lambda x: x.full() if hasattr(x, "full") else x
    rule = "must be two or more square matrices of one size"
    o = [numbers("operators", plain(x), complex, rule, "One per site") for x in (operators if isinstance(operators, list | tuple | np.ndarray) else ())]
    n = len(o)
    if n < 2 or any(x.shape != o[0].shape or x.ndim != 2 or x.shape[0] != x.shape[1] for x in o):
        raise OptionError("operators", rule, [x.shape for x in o], "One per site")
    covariance = numbers("noise", noise, float, "must be a positive number or a matrix")
    covariance = float(covariance) * np.eye(n) if covariance.ndim == 0 else covariance
    if covariance.shape != (n, n) or not np.all(np.isfinite(covariance)) or np.abs(covariance - covariance.T).max() > 1e-12 * np.abs(covariance).max() or np.linalg.eigvalsh(covariance)[0] <= 0:
        raise OptionError("noise", f"must be positive, or a symmetric positive definite ({n}, {n}) matrix", np.shape(noise), "Give sigma sigma^T")
    laplacian = -2.0 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)
    if periodic:
        laplacian[0, -1] += 1.0
        laplacian[-1, 0] += 1.0
    force = laplacian / spacing**2 - mass**2 * np.eye(n)
    names = tuple(f"{kind}{x}" for x in range(n) for kind in ("phi", "pi"))
    d1, d2 = np.zeros((2 * n, n)), np.zeros((2 * n, 2 * n))
    d1[1::2] = -0.5 * coupling / spacing * np.eye(n)
    d2[1::2, 1::2] = 0.5 * covariance
    free = np.zeros_like(o[0]) if H is None else numbers("H", plain(H), complex, f"must be a matrix {o[0].shape}")
    if free.shape != o[0].shape:
        raise OptionError("H", f"must be a matrix {o[0].shape}", f"shape {free.shape}", "Match the operators")
    phi = [sympy.Symbol(f"phi{x}", real=True) for x in range(n)]
    pi = [sympy.Symbol(f"pi{x}", real=True) for x in range(n)]
    number = lambda v: sympy.sympify(complex(v)) if np.imag(v) else sympy.Float(float(np.real(v)))
    total = [[number(free[a, b]) + sum(coupling * number(o[x][a, b]) * phi[x] for x in range(n) if o[x][a, b]) for b in range(len(free))] for a in range(len(free))]
    drift: dict[str, Any] = {}
    for x in range(n):
        drift[f"phi{x}"] = pi[x]
        drift[f"pi{x}"] = sum(float(force[x, y]) * phi[y] for y in range(n) if force[x, y])
    model = Model(
        names, len(free), H=total, L=o, D0="saturated" if decoherence is None else np.asarray(decoherence), D1=d1, D2=d2, D1C=drift, name=name,
    )  # fmt: skip
    if decoherence is not None and np.linalg.eigvalsh(np.asarray(decoherence) - 0.25 * (coupling / spacing) ** 2 * np.linalg.inv(covariance))[0] < -1e-12:
        raise ModelError("decoherence", "must satisfy (G.2): D0 >= (g / 2a)^2 (sigma sigma^T)^-1", "a negative eigenvalue of the difference", "Add decoherence or noise")
    return model
