r"""The decoherence-diffusion trade-off (paper, eq. (6); Section III) as a map over phase space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..coefficients import stack
from ..dataset import coordinates
from ..grid import Grid
from ..model import Model, pseudo_inverse
from ..options import GRID, MODEL, NUMBER, takes
from ..physicality import SLACK, traceless_factor

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray


@takes(model=MODEL, grid=GRID, t=NUMBER)
def decoherence_diffusion(model: Model, grid: Grid, t: float = 0.0) -> xr.Dataset:
    r"""Map the trade-off between decoherence and diffusion over the cells of a grid.

    .. math:: D_0 \ge D_1^\dagger (2 D_2)^+ D_1 \quad\text{(6)}, \qquad (1 - D_2 D_2^+) D_1 = 0,

    in an orthonormal basis of the traceless parts of the Lindblad operators, where the matrices mean rates.

    Parameters
    ----------
    model : Model
        Physical or not: nothing is refused here.
    grid : Grid
    t : float
        Time at which the coefficients are taken.

    Returns
    -------
    xarray.Dataset
        Over the cells: ``margin``, the smallest eigenvalue of ``D0 - D1^+ (2 D2)^+ D1`` (negative: not physical); ``saturated`` (1 where
        all of its eigenvalues vanish: conditional states stay pure); ``decoherence``, the trace of D0; ``least_decoherence``, the
        trace of the least D0 for the given coupling and noise; ``least_noise`` (coordinate, coordinate_2, \*cells), the real symmetric
        ``sigma sigma^T`` of least trace that the given coupling and decoherence allow,
        :math:`\mathrm{Re}\,C + |\mathrm{Im}\,C|` with :math:`C = D_1 D_0^+ D_1^\dagger`; ``unsupported``, the part of the back-reaction that
        has no noise on its axis (must vanish).

    Raises
    ------
    ModelError
        If the grid's axes are not the model's coordinates.

    Notes
    -----
    ``least_noise`` from the block condition ``[[2 D2, D1], [D1^+, D0]] >= 0``, which is (6): a real symmetric X is at least C if and only if
    it is at least Re C by any amount that covers both signs of Im C; \|Im C\| is the one of least trace. It is NaN where the coupling
    reaches outside the range of D0, which no noise repairs.

    Examples
    --------
    >>> import cqpde as cq
    >>> model = cq.Model(("x",), 2, L=cq.sigmaz(), D1=[[0.5]], D2=[[0.5]], D0=[[0.3]])
    >>> float(cq.decoherence_diffusion(model, cq.Grid(x=(-1, 1, 8))).margin.min().round(12))
    0.1
    """
    import xarray as xr

    model.require_coordinates(grid)
    n, z = grid.ndim, grid.mesh()
    field = {name: stack(c.entries(z, t), n) for name, c in model.coefficients.items()}
    s = 2.0 * field["D2"].real
    r = traceless_factor(field["L"], model.dim)
    d1 = field["D1"] @ _adjoint(r)
    inverse = pseudo_inverse(s)
    least = _adjoint(d1) @ inverse @ d1
    d0 = least + r @ field["excess"] @ _adjoint(r) if model.saturated else r @ field["D0"] @ _adjoint(r)
    beyond = np.linalg.eigvalsh(0.5 * (d0 - least + _adjoint(d0 - least))) if d0.shape[-1] else np.zeros((*d0.shape[:-2], 1))
    scale = np.maximum(np.abs(np.trace(d0, axis1=-2, axis2=-1)), np.abs(np.trace(least, axis1=-2, axis2=-1)))
    noise = d1 @ pseudo_inverse_hermitian(d0) @ _adjoint(d1)
    values, vectors = np.linalg.eigh(1j * noise.imag)
    noise = noise.real + ((vectors * np.abs(values)[..., None, :]) @ _adjoint(vectors)).real
    lost = np.abs(d1 - d1 @ pseudo_inverse_hermitian(d0) @ d0).max(axis=(-2, -1), initial=0.0)
    size = np.abs(d1).max(initial=0.0)
    noise = np.where((lost > 1e-8 * size)[..., None, None], np.nan, noise)
    unsupported = np.abs(d1 - s @ inverse @ d1).max(axis=(-2, -1), initial=0.0)
    unsupported = np.where(unsupported > 1e-12 * size, unsupported, 0.0)
    over = lambda a: np.broadcast_to(a, grid.shape).copy()
    cells = lambda a, text: (grid.names, over(a), {"long_name": text, "units": "1"})
    out = {
        "margin": cells(beyond[..., 0], "smallest eigenvalue of D0 - D1^+ (2 D2)^+ D1"),
        "saturated": cells((beyond[..., -1] <= SLACK * scale).astype(np.int32), "1 where the trade-off is saturated"),
        "decoherence": cells(np.trace(d0, axis1=-2, axis2=-1).real, "trace of D0 in a traceless basis"),
        "least_decoherence": cells(np.trace(least, axis1=-2, axis2=-1).real, "trace of the least D0"),
        "unsupported": cells(unsupported, "back-reaction without noise"),
        "least_noise": (
            ("coordinate", "coordinate_2", *grid.names),
            np.stack([np.stack([over(noise[..., i, j]) for j in range(n)]) for i in range(n)]),
            {"long_name": "least sigma sigma^T for the coupling and decoherence", "units": "1"},
        ),
    }
    names = list(grid.names)
    places = coordinates(grid, model.dim)
    coords = {k: places[k] for k in (*grid.names, "cell_volume")} | {"coordinate": names, "coordinate_2": names}
    return xr.Dataset(out, coords=coords, attrs={"title": f"Trade-off of the model {model.name}", "t": float(t)})


def pseudo_inverse_hermitian(m: Array) -> Array:
    """Pseudo-inverse of a stack of positive Hermitian matrices."""
    if m.shape[-1] == 0:
        return m
    return np.asarray(np.linalg.pinv(0.5 * (m + _adjoint(m)), rcond=1e-10, hermitian=True))


def _adjoint(m: Array) -> Array:
    return np.conj(np.swapaxes(m, -1, -2))
