r"""How far the standard semi-classical (mean-field) equations can be trusted (paper, Section IV, eq. (15))."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..dataset import grid_of
from ..errors import OptionError
from ..grid import Grid
from ..initial import State
from ..model import Model
from ..options import DATASET, MODEL, STATE, integer, takes
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

    Examples
    --------
    >>> import cqpde as cq
    >>> model = cq.models.linear_diosi()
    >>> run = cq.solve(model, cq.gaussian(cq.Grid(q=(-6, 6, 48), p=(-9, 9, 72)), 0, 0.4, cq.ket("+")), [0, 1], tol=1e-4)
    >>> bool(cq.mean_field_validity(model, run).ratio[0] > 0.1)  # a superposition: not to be trusted
    True
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


@takes(model=MODEL, rho0=STATE, solution=DATASET, trajectories=integer(200, 1 << 40))
def mean_field_distance(model: Model, rho0: State, solution: xr.Dataset, *, trajectories: int = 100_000, seed: int | None = None) -> xr.Dataset:
    r"""How far the mean-field distribution lies from the full one, in integrated trace norm, along a run.

    .. math:: \|\rho_{\rm mf} - \rho\|, \qquad \rho_{\rm mf}(z, t) = E[\delta(z - Z_t)\,\psi_t\psi_t^\dagger]

    with :math:`(Z_t, \psi_t)` of the standard semi-classical equations (13)-(14) from points drawn from ``rho0``.

    Parameters
    ----------
    model : Model
    rho0 : State
        The initial state of ``solution``.
    solution : Dataset
        With full fields of one initial state.
    trajectories : int
        Size of the mean-field ensemble. Fields are compared on blocks of cells, as fine as a hundred trajectories per block allow.
    seed : int, optional

    Returns
    -------
    xarray.Dataset
        Over the times of the fields: ``hybrid``, the distance of the whole distributions on the blocks (a lower bound of that on cells);
        ``classical``, of the densities; ``quantum``, of the unconditioned density matrices; each from 0 to 2 and with ``<name>_noise``, what
        the finite ensemble alone contributes (half the distance of its two halves).

    Raises
    ------
    OptionError, StateError
        If the solution has no fields, or its first field is not ``rho0``.

    Examples
    --------
    >>> import cqpde as cq
    >>> model, grid = cq.models.linear_diosi(), cq.Grid(q=(-6, 6, 48), p=(-9, 9, 72))
    >>> rho0 = cq.gaussian(grid, 0.0, 0.4, cq.ket("+"))
    >>> apart = cq.mean_field_distance(model, rho0, cq.solve(model, rho0, [0, 1], tol=1e-4), seed=1)
    >>> float(apart.hybrid[-1]) > 1.5  # two branches, which mean field does not have
    True
    """
    import xarray as xr

    from ..unravelling import unravel

    grid = grid_of(solution)
    if "rho" not in solution or solution["rho"].ndim != grid.ndim + 3:
        raise OptionError("solution", "needs full fields of one initial state", "none, or a batch", "Keep frames, select one of the batch")
    time = str(solution["rho"].dims[0])
    t = solution[time].values
    blocks = _blocks(grid, trajectories)
    coarse = grid.with_cells(**{a.name: a.n // b for a, b in zip(grid.axes, blocks, strict=True)})
    full = _joined(solution["rho"].values, blocks)
    first = _joined(rho0.on(grid).rho[None], blocks)[0]
    if float(solution.t[0]) == t[0] and np.abs(full[0] - first).max() > 1e-6 * np.abs(first).max():
        raise OptionError("rho0", "must be the initial state of the solution", "another one", "Pass the state that was given to solve")
    times = t if t[0] == float(solution.t[0]) else np.concatenate([[float(solution.t[0])], t])
    seeds = np.random.SeedSequence(seed).spawn(2)
    halves = []
    for s in seeds:
        half = unravel(
            model, rho0.on(coarse), times, trajectories=trajectories // 2, method="mean-field", field=True, seed=int(s.generate_state(1)[0] >> 1), progress=False
        )
        halves.append(half["rho"].values[-len(t) :])
    mean = 0.5 * (halves[0] + halves[1])
    out: dict[str, tuple[Array, str]] = {}
    for name, reduce in (("hybrid", lambda r: r), ("classical", _density), ("quantum", lambda r: r.sum(axis=tuple(range(3, r.ndim)), keepdims=True))):
        a, b, c, d = (reduce(r) for r in (full, mean, *halves))
        out[name] = (_trace_norm(a - b) * coarse.cell_volume, f"distance of mean field from the {name} distribution")
        out[f"{name}_noise"] = (0.5 * _trace_norm(c - d) * coarse.cell_volume, "of it from the finite ensemble")
    return xr.Dataset({k: ((time,), v, {"long_name": text, "units": "1"}) for k, (v, text) in out.items()}, coords={time: t}, attrs={"trajectories": trajectories})


def _blocks(grid: Grid, trajectories: int) -> list[int]:
    """Cells per block along each axis: divisors of the numbers of cells, until a hundred trajectories fall into a block on average."""
    blocks = [1] * grid.ndim
    while np.prod([a.n // b for a, b in zip(grid.axes, blocks, strict=True)]) > trajectories / 100:
        left = [a.n // b for a, b in zip(grid.axes, blocks, strict=True)]
        i = int(np.argmax(left))
        blocks[i] = next(b for b in range(blocks[i] + 1, grid.axes[i].n + 1) if grid.axes[i].n % b == 0)
    return blocks


def _joined(rho: Array, blocks: list[int]) -> Array:
    """Means over blocks of cells of (t, d, d, *cells)."""
    for k, b in enumerate(blocks):
        shape = rho.shape
        rho = rho.reshape(*shape[: k + 3], shape[k + 3] // b, b, *shape[k + 4 :]).mean(axis=k + 4)
    return rho


def _density(rho: Array) -> Array:
    return np.asarray(np.einsum("taa...->t...", rho)[:, None, None])


def _trace_norm(rho: Array) -> Array:
    """Sum of trace norms over cells, (t,)."""
    values = np.linalg.eigvalsh(np.moveaxis(rho, (1, 2), (-2, -1)))
    return np.asarray(np.abs(values).reshape(len(rho), -1).sum(axis=1))
