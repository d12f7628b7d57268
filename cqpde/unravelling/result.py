"""An ensemble as an ``xarray.Dataset``, and back: names, dimensions, attributes."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import dataset
from ..errors import OptionError
from ..model import Model
from .plan import CHUNK, COARSE, Part, Plan, path_times
from .schemes import METHODS
from .statistics import Snapshot, Sums, component_labels, from_components, monomial_labels

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray


def operators(d: int) -> Array:
    """Hermitian matrices O_c with ``Tr(O_c rho)`` the c-th component, (d^2, d, d)."""
    a, b = np.triu_indices(d, 1)
    out = np.zeros((d * d, d, d), dtype=complex)
    out[range(d), range(d), range(d)] = 1.0
    for k, (i, j) in enumerate(zip(a, b, strict=True)):
        out[d + k, i, j] = out[d + k, j, i] = 0.5
        out[d + len(a) + k, j, i], out[d + len(a) + k, i, j] = -0.5j, 0.5j
    return out


def fingerprint(model: Model, plan: Plan) -> str:
    """A hash of sampled values of the model and of the initial state, to 9 digits."""
    z = plan.sampler(np.random.default_rng(1), 16)[0]
    c = plan.fields.at(z, float(plan.times[0]))
    digest = hashlib.sha256()
    for array in (z, *(np.broadcast_to(a, (16, *a.shape[1:])) for a in (c.v, c.H, c.sigma, c.B, c.damping))):
        parts = np.stack([np.real(array), np.imag(array)])
        digest.update(np.array([f"{x:.9g}" for x in (parts + 0.0).reshape(-1)], dtype="S24").tobytes())
    return digest.hexdigest()[:16]


def build(plan: Plan, parts: list[Part], seconds: float) -> xr.Dataset:
    """The Dataset of an ensemble."""
    import xarray as xr

    part = parts[0]
    grid, d = plan.rho0.grid, plan.model.dim
    flags = lambda labels, what: {
        "long_name": what, "flag_values": np.arange(len(labels), dtype=np.int32), "flag_meanings": " ".join(labels),
    }  # fmt: skip
    names, parts_of_rho = monomial_labels(grid.names), component_labels(d)
    coords: dict[str, Any] = dataset.coordinates(grid, d)
    coords["t"] = ("t", plan.times, {"long_name": "model time", "units": "1"})
    coords["monomial"] = ("monomial", np.arange(len(names), dtype=np.int32), flags(names, "monomial of the coordinates"))
    coords["operator"] = (
        "operator", np.arange(d * d, dtype=np.int32), flags(parts_of_rho, "component of the density matrix"),
    )  # fmt: skip
    ds = xr.Dataset(_variables(plan, part.snapshots, len(names), d), coords=coords)
    if part.paths is not None:
        _add_paths(ds, plan, part.paths)
    if plan.arrivals:
        _add_arrivals(ds, plan, part.arrivals)
    count = part.snapshots[0].count
    ds.attrs = {
        "title": f"Trajectories of the model {plan.model.name}",
        "source": f"cqpde {version('cqpde')}",
        "cqpde_schema": dataset.SCHEMA,
        "kind": "ensemble",
        "model": plan.model.name,
        "model_description": plan.model.description,
        "fingerprint": fingerprint(plan.model, plan),
        "method": plan.method,
        "weak_order": METHODS[plan.method].order,
        "quantum_state": "ket" if plan.pure else "matrix",
        "pure_start_saturated": int(plan.pure),
        "coefficients": plan.fields.form,
        "trajectories": int(count),
        "seed": plan.seed,
        "chunk": CHUNK,
        "chunks": -(-count // CHUNK),
        "dt": float(plan.dt),
        "steps": int(sum(plan.steps)),
        "coarse_factor": COARSE if plan.bias else 0,
        "functions": " ".join(plan.functions),
        "initial_state": plan.rho0.note or "given",
        "versions": f"cqpde {version('cqpde')}, numpy {version('numpy')}, numba {version('numba')}",
        "wall_seconds": float(seconds),
        "status": "complete",
    }
    from .. import observables  # noqa: F401 - registers the accessor .cq

    return ds


def _variables(plan: Plan, snapshots: list[Snapshot], m: int, d: int) -> dict[str, Any]:
    grid = plan.rho0.grid
    count = snapshots[0].count
    last = max(count - 1, 1)
    many = lambda get: np.stack([get(s) for s in snapshots])
    shape = (len(snapshots), m, d * d)
    note = lambda text: {"long_name": text, "units": "1"}
    out: dict[str, Any] = {
        "operators": (("operator", "row", "col"), operators(d), note("Hermitian operators whose means are the components")),
        "moments": (("t", "monomial", "operator"), many(lambda s: s.moments.mean).reshape(shape), note("ensemble mean of z^k Tr(O rho)")),
        "covariance": (
            ("t", "monomial", "operator", "monomial_2", "operator_2"),
            (many(lambda s: s.moments.deviations) / last).reshape(*shape, m, d * d),
            note("covariance of z^k Tr(O rho) of single trajectories"),
        ),
        "purity": ("t", many(lambda s: s.purity.mean[0]), note("mean purity of the quantum states of trajectories")),
        "purity_std": ("t", np.sqrt(many(lambda s: s.purity.deviations[0]) / last), note("standard deviation of that purity")),
        "purity_min": ("t", many(lambda s: _if_any(s.extremes[0])), note("smallest purity of a trajectory")),
        "purity_max": ("t", many(lambda s: _if_any(s.extremes[1])), note("largest purity of a trajectory")),
        "skewness": (("t", "invariant"), many(lambda s: s.skewness), note("skewness of the moments' features: Mardia; Mori, Rohatgi and Szekely")),
        "outside": (("t", "face"), many(lambda s: s.outside), note("number of trajectories beyond each end of the grid")),
        "escaped": (
            ("t", "face", "row", "col"), from_components(many(lambda s: s.escaped) / count), note("density matrix that left through each end so far"),
        ),
    }  # fmt: skip
    for i, axis in enumerate(grid.axes):
        sums = many(lambda s, i=i: s.histogram[i]) / (count * axis.spacing)
        out[f"rho_marginal_{axis.name}"] = (
            ("t", "row", "col", axis.name), np.moveaxis(from_components(sums), 1, -1), note(f"density matrix over {axis.name}, cell means"),
        )  # fmt: skip
        out[f"visits_{axis.name}"] = (
            ("t", axis.name), many(lambda s, i=i: s.visits[i]), note(f"number of trajectories in each cell of {axis.name}"),
        )  # fmt: skip
    if plan.field:
        sums = from_components(many(lambda s: s.field) / (count * grid.cell_volume))
        out["rho"] = (
            ("t", "row", "col", *grid.names), np.moveaxis(sums, 1, -1).reshape(len(snapshots), d, d, *grid.shape),
            note("hybrid density matrix per phase-space volume, cell means"),
        )  # fmt: skip
    if plan.bias:
        out["bias"] = (("t", "monomial", "operator"), many(lambda s: s.bias.mean).reshape(shape), note("mean of moments with 4 times the step minus moments"))
        out["extrapolated"] = (
            ("t", "monomial", "operator"), many(lambda s: s.extrapolated.mean).reshape(shape), note("moments extrapolated to step zero"),
        )  # fmt: skip
        out["extrapolated_covariance"] = (
            ("t", "monomial", "operator", "monomial_2", "operator_2"),
            (many(lambda s: s.extrapolated.deviations) / last).reshape(*shape, m, d * d),
            note("covariance of the extrapolated z^k Tr(O rho) of single trajectories"),
        )
        for i, axis in enumerate(grid.axes):
            out[f"visits_coarse_{axis.name}"] = (
                ("t", axis.name), many(lambda s, i=i: s.visits[grid.ndim + i]), note(f"number of coarse trajectories in each cell of {axis.name}"),
            )  # fmt: skip
        out["bias_covariance"] = (
            ("t", "monomial", "operator", "monomial_2", "operator_2"),
            (many(lambda s: s.bias.deviations) / last).reshape(*shape, m, d * d),
            note("covariance of that difference of single trajectories"),
        )
    for k, name in enumerate(plan.functions):
        out[name] = ("t", many(lambda s, k=k: s.user.mean[k]), note(f"ensemble mean of {name}"))
        out[f"{name}_std"] = ("t", np.sqrt(many(lambda s, k=k: s.user.deviations[k]) / last), note(f"standard deviation of {name}"))
    return out


def _if_any(extreme: float) -> float:
    """The extreme of the trajectories that are left; NaN if there are none."""
    return extreme if np.isfinite(extreme) else np.nan


def _add_paths(ds: xr.Dataset, plan: Plan, paths: tuple[Array, Array]) -> None:
    z, x = paths
    ds.coords["t_path"] = ("t_path", path_times(plan), {"long_name": "model time of stored paths", "units": "1"})
    ds["path_rho"] = (
        ("trajectory", "t_path", "row", "col"), from_components(x), {"long_name": "density matrix along a trajectory", "units": "1"},
    )  # fmt: skip
    for i, name in enumerate(plan.rho0.grid.names):
        ds[f"path_{name}"] = (("trajectory", "t_path"), z[:, :, i], {"long_name": f"{name} along a trajectory", "units": "1"})


def _add_arrivals(ds: xr.Dataset, plan: Plan, arrivals: list[tuple[int, Array, Array, Array]]) -> None:
    n, d = plan.rho0.grid.ndim, plan.model.dim
    face = np.concatenate([np.full(len(rows), f, dtype=np.int32) for f, rows, _, _ in arrivals] or [np.zeros(0, np.int32)])
    when = np.concatenate([w for _, _, w, _ in arrivals] or [np.zeros(0)])
    row = np.concatenate([r for _, r, _, _ in arrivals] or [np.zeros(0, dtype=int)]).astype(np.int32)
    state = np.concatenate([s for *_, s in arrivals] or [np.zeros((0, n + d * d))])
    note = lambda text: {"long_name": text, "units": "1"}
    ds["arrival_face"] = ("arrival", face, {"long_name": "end of the axis at which a trajectory was absorbed"})
    ds["arrival_trajectory"] = ("arrival", row, {"long_name": "number of the trajectory"})
    ds["arrival_time"] = ("arrival", when, note("time of absorption"))
    for i, name in enumerate(plan.rho0.grid.names):
        ds[f"arrival_{name}"] = ("arrival", state[:, i], note(f"{name} at absorption"))
    ds["arrival_rho"] = (("arrival", "row", "col"), from_components(state[:, n:]), note("density matrix at absorption"))


def read(ds: xr.Dataset) -> list[Snapshot]:
    """The statistics of an ensemble's Dataset, inverse of :func:`build`."""
    if ds.attrs.get("kind") != "ensemble":
        raise OptionError("ens", "must be an ensemble", ds.attrs.get("kind", "another Dataset"), "Make it with cqpde.unravel")
    from .statistics import components

    grid = dataset.grid_of(ds)
    count, times, d = int(ds.attrs["trajectories"]), ds.sizes["t"], ds.sizes["row"]
    k = ds.sizes["monomial"] * d * d
    last = max(count - 1, 1)
    names = str(ds.attrs["functions"]).split()
    out = []
    for j in range(times):
        at = ds.isel(t=j)
        bias, extrapolated = (Sums(np.zeros(0), np.zeros((0, 0))) for _ in range(2))
        if "bias" in ds:
            extrapolated = Sums(at["extrapolated"].values.reshape(k), at["extrapolated_covariance"].values.reshape(k, k) * last)
            bias = Sums(at["bias"].values.reshape(k), at["bias_covariance"].values.reshape(k, k) * last)
        user = Sums(np.array([float(at[x]) for x in names]), np.array([float(at[f"{x}_std"]) ** 2 * last for x in names]))
        marginals = [np.moveaxis(at[f"rho_marginal_{a.name}"].values, -1, 0) for a in grid.axes]
        out.append(
            Snapshot(
                count,
                Sums(at["moments"].values.reshape(k), at["covariance"].values.reshape(k, k) * last),
                extrapolated,
                Sums(np.array([float(at["purity"])]), np.array([float(at["purity_std"]) ** 2 * last])),
                bias, user,
                [components(x) * count * a.spacing for x, a in zip(marginals, grid.axes, strict=True)],
                [at[f"visits_{kind}{a.name}"].values.copy() for kind in (("", "coarse_") if "bias" in ds else ("",)) for a in grid.axes],
                at["outside"].values.copy(),
                components(at["escaped"].values) * count,
                _field_of(at, d, count * grid.cell_volume),
                np.array([x if np.isfinite(x) else none for x, none in ((float(at["purity_min"]), np.inf), (float(at["purity_max"]), -np.inf))]),
                at["skewness"].values.copy(),
            )
        )  # fmt: skip
    return out


def _field_of(at: xr.Dataset, d: int, scale: float) -> Array:
    """Summed components in every cell, where they were gathered."""
    from .statistics import components

    if "rho" not in at:
        return np.zeros((0, d * d))
    return components(np.moveaxis(at["rho"].values.reshape(d, d, -1), -1, 0)) * scale
