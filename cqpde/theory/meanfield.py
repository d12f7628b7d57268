r"""How far the standard semi-classical (mean-field) equations can be trusted (paper, Section IV, eq. (15))."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..dataset import grid_of
from ..errors import OptionError
from ..model import Model
from ..options import DATASET, MODEL, takes
from ..unravelling.fields import RANK

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray


@takes(model=MODEL, solution=DATASET)
def mean_field_validity(model: Model, solution: xr.Dataset) -> xr.Dataset:
    r"""The size of what mean field leaves out, against the Hamiltonian evolution, along a run.

    .. math:: \Gamma = \int\sum_k\mathrm{Tr}\left[\rho\,(B_k - \langle B_k\rangle_z)^\dagger(B_k - \langle B_k\rangle_z)\right]dz, \qquad
        \Omega = \left(\int\mathrm{Tr}\left[\rho\,(H - \langle H\rangle_z)^2\right]dz\right)^{1/2}

    with :math:`A_i = \sigma_{ik}B_k` and means in the state conditioned on z: Gamma is the rate at which the terms of (15) turn a pure state, Omega the
    rate at which the Hamiltonian does. The mean-field equations hold while ``ratio = Gamma / Omega`` is small, which for finite noise
    means: while the state conditioned on z is close to an eigenstate of the coupling.

    Parameters
    ----------
    model : Model
    solution : Dataset
        With full fields.

    Returns
    -------
    xarray.Dataset
        ``back_action_rate`` (Gamma), ``hamiltonian_rate`` (Omega), ``ratio`` over the times of the fields (infinite where Omega is zero).

    Raises
    ------
    OptionError
        If the solution has no fields, or is a batch.
    """
    import xarray as xr

    grid = grid_of(solution)
    if "rho" not in solution or solution["rho"].ndim != grid.ndim + 3:
        raise OptionError("solution", "needs full fields of one initial state", "none, or a batch", "Keep frames, select one of the batch")
    rho, time = solution["rho"], str(solution["rho"].dims[0])
    z, n = grid.mesh(), grid.ndim
    gamma, omega = [], []
    for k, now in enumerate(solution[time].values):
        r = np.moveaxis(rho.values[k], (0, 1), (-2, -1))
        fields = model.canonical(z, float(now))
        root = _inverse_root(fields.s)
        operators = [sum(root[..., k2, i, None, None] * fields.A[i] for i in range(n)) for k2 in range(n)]
        f = np.real(np.trace(r, axis1=-2, axis2=-1))
        gamma.append(sum(_spread(b, r, f) for b in operators) * grid.cell_volume)
        omega.append((_spread(fields.H, r, f) * grid.cell_volume) ** 0.5)
    g, w = np.array(gamma), np.array(omega)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(w > 0.0, g / w, np.where(g > 0.0, np.inf, 0.0))
    series = {"back_action_rate": (g, "rate of the terms of (15)"), "hamiltonian_rate": (w, "rate of the Hamiltonian"), "ratio": (ratio, "back-action over Hamiltonian rate")}
    return xr.Dataset({key: ((time,), v, {"long_name": text, "units": "1"}) for key, (v, text) in series.items()}, coords={time: solution[time].values})


def _spread(operator: Array, rho: Array, f: Array) -> float:
    """Sum over cells of ``Tr rho (X - <X>)^+ (X - <X>)`` with the mean in the conditional state."""
    x = np.broadcast_to(operator, rho.shape)
    mean = np.einsum("...ab,...ba->...", rho, x)
    square = np.real(np.einsum("...ab,...cb,...ca->...", rho, np.conj(x), x, optimize=True))
    good = f > 1e-14 * f.max()
    return float(np.sum(square[good] - np.abs(mean[good]) ** 2 / f[good]))


def _inverse_root(s: Array) -> Array:
    """Symmetric ``s^(-1/2)`` on its range."""
    values, vectors = np.linalg.eigh(s)
    keep = values > RANK * np.maximum(values.max(axis=-1, keepdims=True), 1e-300)
    inverse = np.where(keep, 1.0 / np.sqrt(np.where(keep, values, 1.0)), 0.0)
    return np.asarray((vectors * inverse[..., None, :]) @ np.swapaxes(vectors, -1, -2))
