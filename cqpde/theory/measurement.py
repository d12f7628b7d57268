r"""Continuous measurement and feedback as classical-quantum models, and states conditioned on a given record (paper, Appendix F).

A classical coordinate that carries the record of an operator c, measured with efficiency eta, is a model with

.. math:: L = c, \quad D_0 = 1, \quad D_1 = \gamma\sqrt\eta, \quad D_2 = \gamma^2/2, \qquad D_0 - D_1^\dagger(2 D_2)^{-1}D_1 = 1 - \eta :

inefficiency is the unsaturated part of the trade-off. A Hamiltonian that depends on the record is feedback.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..components import dissipator, left_right, to_components, to_matrix
from ..errors import OptionError
from ..initial import density_matrix
from ..model import Model
from ..options import MODEL, NUMBER, POSITIVE, is_number, numbers, read_times, require_positive, takes
from ..unravelling.fields import Fields, Local

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray


def measured(operator: Any, *, efficiency: float = 1.0, bandwidth: float | None = None, H: Any = None, name: str = "y") -> Model:
    r"""A continuous measurement of an operator, with feedback by a Hamiltonian H(y).

    .. math:: d\rho = -i[H(y), \rho]dt + \mathcal D[c]\rho\,dt + \sqrt\eta\,\mathcal H[c]\rho\,dW, \qquad
        dy = -\gamma y\,dt + \gamma\left(\sqrt\eta\,\langle c + c^\dagger\rangle dt + dW\right)

    Parameters
    ----------
    operator : matrix (d, d)
        c, in units of 1/sqrt(time).
    efficiency : float
        eta in (0, 1].
    bandwidth : float, optional
        gamma of the low-pass filter of the record; without it y is the integrated record, ``dy = sqrt(eta) <c + c^+> dt + dW``.
    H : coefficient (d, d), optional
        May depend on the coordinate and on t.
    name : str
        Of the coordinate.

    Raises
    ------
    OptionError
        If the efficiency is not in (0, 1] or the bandwidth is not positive.

    Notes
    -----
    The master equation of y and rho together is the quantum Fokker-Planck equation of B. Annby-Andersson et al., Phys. Rev. Lett. 129, 050401 (2022).

    Examples
    --------
    >>> import cqpde as cq
    >>> model = cq.measured(0.8 * cq.sigmaz(), efficiency=0.6)
    >>> round(model.check(cq.Grid(y=(-5, 5, 8))), 12)  # 2 (1 - efficiency), what the detector misses, for |c|^2 = 0.64
    0.512
    """
    if not is_number(efficiency) or not 0.0 < efficiency <= 1.0:
        raise OptionError("efficiency", "must be in (0, 1]", repr(efficiency), "It is the detected share of the measurement")
    if bandwidth is not None:
        require_positive("bandwidth", bandwidth, "Leave it out for the integrated record")
        if bandwidth > 1e100:
            raise OptionError("bandwidth", "must be below 1e100", repr(bandwidth), "Leave it out for the integrated record")
    gamma = 1.0 if bandwidth is None else float(bandwidth)
    c = numbers("operator", operator.full() if hasattr(operator, "full") else operator, complex, "must be a matrix of numbers (d, d)")
    if c.ndim != 2 or c.shape[0] != c.shape[1] or c.size == 0:
        raise OptionError("operator", "must be a matrix of numbers (d, d)", f"shape {c.shape}", "Write e.g. cqpde.sigmaz()")
    drift = None if bandwidth is None else [lambda z: -gamma * z[name]]
    return Model(
        (name,), len(c), H=H, L=[c], D0=[[1.0]], D1=[[gamma * efficiency**0.5]], D2=[[0.5 * gamma**2]], D1C=drift, name="continuous measurement",
    )  # fmt: skip


@takes(model=MODEL, dt=POSITIVE, t=NUMBER)
def record_operator(model: Model, z: Array, dz: Array, dt: float, t: float = 0.0) -> Array:
    r"""The Kraus operator :math:`\Omega` of a displacement dz in a time dt, relative to the Gaussian law of pure noise (F.1)-(F.2).

    .. math:: \Omega = \exp\left[-iH\,dt + B_k\,\Delta Y_k - \tfrac12(B_k^\dagger B_k + B_k^2)\,dt\right], \qquad
        \sigma\,\Delta Y = dz - v\,dt

    whose first order in dt is (F.1); :math:`\int\Omega^\dagger\Omega\,d\mu_0 = 1` up to second order in dt. The decoherence beyond the trade-off is
    not part of it.

    Parameters
    ----------
    z, dz : array (n,)
        Point and displacement.

    Returns
    -------
    array (d, d)

    Examples
    --------
    >>> import cqpde as cq
    >>> omega = cq.record_operator(cq.measured(cq.sigmaz()), z=[0.0], dz=[0.1], dt=0.01)
    >>> bool(omega[0, 0].real > omega[1, 1].real)  # a positive record speaks for |0>
    True
    """
    from scipy.linalg import expm

    n = len(model.coordinates)
    place, moved = (numbers(what, value, float, f"must be {n} numbers, one per coordinate") for what, value in (("z", z), ("dz", dz)))
    for what, value in (("z", place), ("dz", moved)):
        if value.shape != (n,) or not np.all(np.isfinite(value)):
            raise OptionError(what, f"must be {n} finite numbers, one per coordinate", repr(value), "In the order of the coordinates")
    c = Fields(model).at(place[None], t)
    y = np.linalg.pinv(c.sigma[0]) @ (moved - c.v[0] * dt)
    return np.asarray(expm(-1j * dt * c.H[0] + _kick(c.B, y[None], dt)[0]))


@takes(model=MODEL)
def condition(model: Model, state: Any, t: Any, record: Any) -> xr.Dataset:
    r"""Condition the quantum state on a given record: :math:`\rho(t\,|\,Z_{\le t})`, and how likely the record was.

    Step by step the state passes half the Hamiltonian and the unobserved decoherence, the record's Kraus operator, and the other half; the
    logarithm of the trace and the Gaussian law of the noise add up to the likelihood of the record under the model.

    Parameters
    ----------
    model : Model
    state : ket or density matrix
        At the first time.
    t : array (m,)
        Times of the record.
    record : array (m, n) or (m,)
        Values of all classical coordinates.

    Returns
    -------
    xarray.Dataset
        ``rho`` (t, row, col); ``log_likelihood`` (t), the logarithm of the probability density of the increments so far, on the noisy directions:
        differences between models with noise on the same directions are likelihood ratios.

    Raises
    ------
    OptionError
        If shapes do not fit, times do not ascend, or a noise-free coordinate jumps against the model.

    Notes
    -----
    Strong order 1 in the spacing of the record, 2 where the measured operators commute with each other and are Hermitian.

    Examples
    --------
    >>> import numpy as np, cqpde as cq
    >>> model = cq.measured(cq.sigmaz())
    >>> seen = cq.condition(model, cq.ket("+"), [0, 1], [0.0, 2.0])
    >>> float(seen.rho[-1, 0, 0].real.round(6)) == round(float(1 / (1 + np.exp(-8.0))), 6)
    True
    """
    import xarray as xr

    times, z = read_times(t), numbers("record", record, float, "must be numbers of shape (times, coordinates)")
    n, d = len(model.coordinates), model.dim
    if z.ndim == 1 and len(z):
        z = z.reshape(len(z), -1)
    if z.shape != (len(times), n) or len(times) < 2:
        raise OptionError("record", f"must have shape (times, {n}) for the {len(times)} times", np.shape(record), "One row per time")
    if not (np.all(np.isfinite(z)) and np.all(np.diff(times) > 0)):
        raise OptionError("record", "must be finite at ascending times", "it is not", "Clean the data")
    rho = density_matrix(state)
    if len(rho) != d:
        raise OptionError("state", f"must have {d} levels", len(rho), "Match the model")
    dt = np.diff(times)
    here, middle = _along(model, z[:-1], times[:-1]), _along(model, 0.5 * (z[:-1] + z[1:]), times[:-1] + 0.5 * dt)
    moved = np.diff(z, axis=0)
    rest = moved - middle.v * dt[:, None]
    y = np.einsum("...kn,...n->...k", np.linalg.pinv(here.sigma), rest)
    off = np.abs(rest - np.einsum("...nk,...k->...n", here.sigma, y)).max(axis=1)
    scale = np.abs(here.sigma).max(axis=(1, 2)) * dt**0.5 + np.abs(moved).max(axis=1) + 1e-300
    if np.any(off > 0.1 * scale):
        k = int(np.argmax(off / scale))
        raise OptionError("record", "a coordinate without noise must move with its drift", f"off by {off[k]:.3g} at t = {times[k]:.6g}", "Check the order of the coordinates")
    half = np.broadcast_to(_exponential(0.5 * dt[:, None, None] * _local(middle.H, middle.N)), (len(dt), d * d, d * d))
    kraus = _exponential(_kick(here.B, y, dt[:, None, None]))
    strengths = np.linalg.svd(here.sigma, compute_uv=False)
    strengths = np.broadcast_to(strengths, (len(dt), strengths.shape[-1]))
    noisy = strengths > 1e-12 * np.maximum(strengths.max(axis=1, initial=0.0), 1e-300)[:, None]
    law = -0.5 * np.einsum("kn,kn->k", y, y) / dt - 0.5 * noisy.sum(axis=1) * np.log(2 * np.pi * dt) - np.log(np.where(noisy, strengths, 1.0)).sum(axis=1)
    out, weights, x = [rho], [1.0], to_components(rho)
    for before, k_op in zip(half, kraus, strict=True):
        x = before @ x
        x = before @ to_components(k_op @ to_matrix(x) @ k_op.conj().T)
        weights.append(float(x[:d].sum()))
        x = x / weights[-1]
        out.append(to_matrix(x))
    likelihood = np.cumsum(np.log(weights) + np.concatenate([[0.0], law]))
    return xr.Dataset(
        {
            "rho": (("t", "row", "col"), np.array(out), {"long_name": "density matrix conditioned on the record", "units": "1"}),
            "log_likelihood": (("t",), likelihood, {"long_name": "log-likelihood of the record", "units": "1"}),
        },
        coords={"t": times}, attrs={"title": f"State of the model {model.name} conditioned on a record"},
    )  # fmt: skip


def _along(model: Model, z: Array, t: Array) -> Local:
    """All coefficients at the points z (m, n) of a record, each at its own time."""
    fields = Fields(model)
    if not model.time_dependent:
        return fields.at(z, float(t[0]))
    each = [fields.at(z[k : k + 1], float(now)) for k, now in enumerate(t)]
    return replace(each[0], **{f: np.concatenate([getattr(e, f) for e in each]) for f in ("v", "sigma", "H", "B", "N")})


def _kick(b: Array, y: Array, dt: Array | float) -> Array:
    """``B_k Y_k - (B_k^+ B_k + B_k^2) dt/2`` for B (m or 1, n, d, d) and Y (m, n)."""
    square = np.conj(np.swapaxes(b, -1, -2)) @ b + b @ b
    return np.asarray(np.einsum("mk,mkab->mab", y, np.broadcast_to(b, (len(y), *b.shape[1:]))) - 0.5 * dt * square.sum(axis=1))


def _local(h: Array, jumps: Array) -> Array:
    """Real superoperators (m or 1, d^2, d^2) of the Hamiltonian and the unobserved decoherence, N (m or 1, r, d, d)."""
    total = left_right(-1j * h)
    for k in range(jumps.shape[1]):
        total = total + dissipator(jumps[:, k], jumps[:, k], np.array(1.0 + 0j))
    return total


def _exponential(m: Array) -> Array:
    from scipy.linalg import expm

    return np.asarray(expm(m))
