r"""The map of a model that is not Markovian: allowed by ``check="off"``, watched here (paper, Appendix H).

Where (6) fails for a while the generator is not completely positive, but the map from the initial state can be. It is, for a given initial density
f(z), when its Choi matrix at every z,

.. math:: C(z, t) = \sum_{ij} |i\rangle\langle j| \otimes \Lambda_t\left(f\,|i\rangle\langle j|\right)(z) \ge 0 .
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OptionError
from ..initial import State, product
from ..model import Model
from ..options import MODEL, STATE, takes
from ..solver import solve

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray


@takes(model=MODEL, start=STATE)
def map_positivity(model: Model, start: State, t: Any, **options: Any) -> xr.Dataset:
    r"""Follow the smallest eigenvalue of the Choi matrix of the map over all cells.

    Parameters
    ----------
    model : Model
        Physical or not (then with ``check="off"``).
    start : State
        Gives grid and initial density f; its quantum part is not used.
    t : array
        Output times.
    **options
        Of :func:`cqpde.solve`; the route must be linear in the state (``split``, or ``transport="linear"``).

    Returns
    -------
    xarray.Dataset
        ``min_eigenvalue`` (t), relative to the largest trace of C over the cells; ``margin`` (t), that of condition (6): the map is completely positive
        for f while the first stays at zero (to the error of the run), whatever the second does.

    Raises
    ------
    OptionError
        If the run was not linear in the state.

    Examples
    --------
    >>> import numpy as np, cqpde as cq
    >>> rate = lambda z, t: 0.5 * (1 - 1.4 * np.sin(t)) + 0 * z.x  # negative for a while
    >>> model = cq.Model(("x",), 2, L=cq.sigmaz(), D0=[[rate]], D2=[[0.1]], check="off")
    >>> start = cq.gaussian(cq.Grid(x=(-6, 6, 48)), 0, 0.6, cq.ket("+"))
    >>> found = cq.map_positivity(model, start, np.linspace(0, 1.8, 4), method="split")
    >>> bool(found.margin.min() < -0.1), bool(found.min_eigenvalue.min() > -1e-4)
    (True, True)
    """
    import xarray as xr

    d, grid = model.dim, start.grid
    f = np.real(start.density)
    kets = [np.eye(d)[i] for i in range(d)]
    pairs = [(i, j) for i in range(d) for j in range(i + 1, d)]
    kets += [(np.eye(d)[i] + c * np.eye(d)[j]) / 2**0.5 for i, j in pairs for c in (1.0, 1.0j)]
    runs = solve(model, [product(grid, f, ket) for ket in kets], t, grid_error=False, **options)
    if not runs.attrs["linear_in_state"]:
        raise OptionError("transport", "must be linear in the state", str(runs.attrs["transport"]), "Use method='split' or transport='linear'")
    rho, lowest = runs["rho"].values, []
    for k in range(rho.shape[0]):
        c = np.zeros((d, d, *rho.shape[2:]), dtype=complex)
        for i in range(d):
            c[i, i] = rho[k, i]
        for m, (i, j) in enumerate(pairs):
            c[i, j] = rho[k, d + 2 * m] + 1j * rho[k, d + 2 * m + 1] - 0.5 * (1 + 1j) * (c[i, i] + c[j, j])
            c[j, i] = np.conj(np.swapaxes(c[i, j], 0, 1))
        choi = np.moveaxis(c, (0, 2, 1, 3), (-4, -3, -2, -1))
        flat = choi.reshape(*grid.shape, d * d, d * d)
        trace = np.real(np.trace(flat, axis1=-2, axis2=-1))
        lowest.append(float(np.linalg.eigvalsh(flat)[..., 0].min() / trace.max()))
    times = runs["t"].values
    margins = [_margin(model, grid, float(now)) for now in times]
    return xr.Dataset(
        {
            "min_eigenvalue": (("t",), np.array(lowest), {"long_name": "smallest eigenvalue of the Choi matrix, relative", "units": "1"}),
            "margin": (("t",), np.array(margins), {"long_name": "margin of condition (6)", "units": "1"}),
        },
        coords={"t": times},
    )  # fmt: skip


def _margin(model: Model, grid: Any, t: float) -> float:
    from .tradeoff import decoherence_diffusion

    return float(decoherence_diffusion(model, grid, t).margin.min())
