"""Observables of a solution: plain functions of a Dataset, and the accessor ``.cq`` that calls them.

Every function works on a solution of :func:`cqpde.solve`, at all its times and batch entries at once; integrals are sums over cells
times the cell volume.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .dataset import grid_of
from .errors import OptionError, did_you_mean
from .grid import Grid
from .initial import density_matrix

Array = np.ndarray

#: Observables that ``solve(save=...)`` and the command line accept by name.
METHODS = (
    "density", "marginal", "expect", "moment", "mean", "covariance", "unconditioned_state", "populations", "purity",
)  # fmt: skip


def _rho(ds: xr.Dataset) -> xr.DataArray:
    if "rho" not in ds:
        raise OptionError(
            "rho",
            "the Dataset must hold full fields",
            ", ".join(map(str, ds.data_vars)),
            "Solve with frames=..., or use what was saved",
        )
    return ds["rho"]


def _axes(ds: xr.Dataset, names: tuple[str, ...]) -> tuple[str, ...]:
    known = grid_of(ds).names
    for name in names:
        if name not in known:
            raise OptionError(
                "axis", "must be a classical coordinate of the solution", repr(name), did_you_mean(str(name), known)
            )
    return names


def _operator(ds: xr.Dataset, operator: Any) -> xr.DataArray:
    """Read an operator: (d, d), a QuTiP object, or a callable of z that returns (d, d) entries over the cells."""
    d = ds.sizes["row"]
    if callable(operator) and not hasattr(operator, "full"):
        from .coefficients import Coefficient

        grid = grid_of(ds)
        entries = Coefficient("operator", (d, d), grid.names, operator).entries(grid.mesh(), 0.0)
        full = np.stack([np.broadcast_to(e, grid.shape) for e in entries.reshape(-1)]).reshape(d, d, *grid.shape)
        return xr.DataArray(full, dims=("row", "col", *grid.names))
    if hasattr(operator, "full"):
        operator = operator.full()
    array = np.asarray(operator, dtype=complex)
    if array.shape != (d, d):
        raise OptionError(
            "operator", f"must be a {d} x {d} matrix", f"shape {array.shape}", "Match the number of levels"
        )
    return xr.DataArray(array, dims=("row", "col"))


def _trace(rho: xr.DataArray) -> xr.DataArray:
    """Sum of the diagonal elements, real."""
    total = rho.isel(row=0, col=0, drop=True).real
    for k in range(1, rho.sizes["row"]):
        total = total + rho.isel(row=k, col=k, drop=True).real
    return total


def _label(array: xr.DataArray, name: str, long_name: str) -> xr.DataArray:
    array = array.rename(name)
    array.attrs = {"long_name": long_name, "units": "1"}
    return array


def density(ds: xr.Dataset) -> xr.DataArray:
    r"""Classical density :math:`\mathrm{Tr}\,\rho(z, t)`, dims (t, \*axes)."""
    return _label(_trace(_rho(ds)), "density", "classical density")


def marginal(ds: xr.Dataset, *axes: str) -> xr.DataArray:
    """Density over the named axes, the others integrated out, dims (t, *axes)."""
    keep = _axes(ds, axes)
    grid = grid_of(ds)
    out = [a for a in grid.names if a not in keep]
    volume = float(np.prod([grid.axis(a).spacing for a in out]))
    return _label(
        density(ds).sum(out) * volume,
        "marginal_" + "_".join(keep),
        f"marginal density of {', '.join(keep) or 'nothing'}",
    )


def operator_marginal(ds: xr.Dataset, *axes: str) -> xr.DataArray:
    """Density matrix over the named axes, the others integrated out, dims (t, row, col, *axes)."""
    keep = _axes(ds, axes)
    grid = grid_of(ds)
    out = [a for a in grid.names if a not in keep]
    volume = float(np.prod([grid.axis(a).spacing for a in out]))
    return _label(
        _rho(ds).sum(out) * volume, "rho_marginal", f"hybrid state of {', '.join(keep) or 'the quantum system'}"
    )


def unconditioned_state(ds: xr.Dataset) -> xr.DataArray:
    r"""Quantum state :math:`\int\rho\,dz`, dims (t, row, col); its trace is the probability inside the box."""
    return _label(operator_marginal(ds), "unconditioned_state", "unconditioned quantum state")


def populations(ds: xr.Dataset) -> xr.DataArray:
    """Diagonal of the unconditioned state, dims (t, row)."""
    state = unconditioned_state(ds)
    diagonal = xr.concat([state.isel(row=k, col=k, drop=True).real for k in range(ds.sizes["row"])], dim="row")
    rest = [d for d in diagonal.dims if d != "row"]
    return _label(diagonal.transpose(*rest, "row"), "populations", "populations of the unconditioned state")


def expect(ds: xr.Dataset, operator: Any) -> xr.DataArray:
    r"""Expectation :math:`\int\mathrm{Tr}[O(z)\rho(z, t)]\,dz`, real for Hermitian O; O is (d, d) or a callable of z."""
    o = _operator(ds, operator)
    grid = grid_of(ds)
    swapped = o.rename(row="col", col="row")
    value = (swapped * _rho(ds)).sum(["row", "col", *grid.names]) * grid.cell_volume
    hermitian = np.allclose(o.values, np.conj(np.swapaxes(o.values, 0, 1)))
    return _label(value.real if hermitian else value, "expect", "expectation value")


def moment(ds: xr.Dataset, axes: str, operator: Any = None, order: int = 1) -> xr.DataArray:
    r"""Moment :math:`\int z_a z_b \cdots\,\mathrm{Tr}[O\rho]\,dz` for ``axes`` like ``"q"`` or ``"q p"``, each to the power ``order``."""
    names = _axes(ds, tuple(axes.split()))
    weight = (
        density(ds)
        if operator is None
        else (_operator(ds, operator).rename(row="col", col="row") * _rho(ds)).sum(["row", "col"])
    )
    if operator is not None:
        o = _operator(ds, operator).values
        weight = weight.real if np.allclose(o, np.conj(np.swapaxes(o, 0, 1))) else weight
    grid = grid_of(ds)
    for name in names:
        weight = weight * ds[name] ** int(order)
    return _label(weight.sum(list(grid.names)) * grid.cell_volume, "moment", f"moment of {' '.join(names)}")


def mean(ds: xr.Dataset) -> xr.DataArray:
    """Means of the classical coordinates, normalised by the probability inside the box, dims (t, axis)."""
    names = grid_of(ds).names
    total = moment(ds, "")
    values = xr.concat([moment(ds, name) / total for name in names], dim="axis")
    rest = [d for d in values.dims if d != "axis"]
    return _label(values.transpose(*rest, "axis"), "mean", f"means of {', '.join(names)}")


def covariance(ds: xr.Dataset) -> xr.DataArray:
    """Covariances of the classical coordinates, normalised like :func:`mean`, dims (t, axis, axis_2)."""
    names = grid_of(ds).names
    total, mu = moment(ds, ""), mean(ds)
    rows = []
    for i, a in enumerate(names):
        row = [moment(ds, f"{a} {b}") / total - mu.isel(axis=i) * mu.isel(axis=j) for j, b in enumerate(names)]
        rows.append(xr.concat(row, dim="axis_2"))
    values = xr.concat(rows, dim="axis")
    rest = [d for d in values.dims if d not in ("axis", "axis_2")]
    return _label(values.transpose(*rest, "axis", "axis_2"), "covariance", f"covariances of {', '.join(names)}")


def conditional_state(ds: xr.Dataset, **where: float) -> xr.DataArray:
    r"""Conditional state :math:`\rho(z)/\mathrm{Tr}\rho(z)`, NaN where the density vanishes.

    Parameters
    ----------
    **where : float
        Coordinates, e.g. ``q=0.3, p=1.0``: the nearest cell is taken. Axes that are not named are integrated out; without any name the
        whole field is returned.
    """
    _axes(ds, tuple(where))
    rho = operator_marginal(ds, *where) if where else _rho(ds)
    grid = grid_of(ds)
    for name, value in where.items():
        axis = grid.axis(name)
        if not axis.lower <= float(value) <= axis.upper:
            raise OptionError(
                name, f"must lie inside [{axis.lower:g}, {axis.upper:g}]", value, "Choose a point of the box"
            )
    rho = rho.sel(where, method="nearest") if where else rho
    trace = _trace(rho)
    return _label(rho / trace.where(trace > 0), "conditional_state", "conditional quantum state")


def purity(ds: xr.Dataset, of: str = "conditional") -> xr.DataArray:
    r"""Purity over time.

    Parameters
    ----------
    of : {"conditional", "unconditioned"}
        ``"conditional"``: the mean :math:`\int \mathrm{Tr}\rho(z)^2/\mathrm{Tr}\rho(z)\,dz / \int\mathrm{Tr}\rho\,dz`;
        ``"unconditioned"``: :math:`\mathrm{Tr}\varrho^2` of the normalised unconditioned state.
    """
    if of not in ("conditional", "unconditioned"):
        raise OptionError("of", "must be 'conditional' or 'unconditioned'", repr(of), "")
    total = moment(ds, "")
    if of == "unconditioned":
        state = unconditioned_state(ds)
        return _label((abs(state) ** 2).sum(["row", "col"]) / total**2, "purity", "purity of the unconditioned state")
    grid, f = grid_of(ds), density(ds)
    squares = (abs(_rho(ds)) ** 2).sum(["row", "col"])
    mean_purity = (squares / f.where(f > 0)).sum(list(grid.names)) * grid.cell_volume / total
    return _label(mean_purity, "purity", "mean purity of the conditional states")


def arrival_rate(ds: xr.Dataset) -> xr.DataArray:
    """Probability that left through each end per unit time, between successive times: dims (t, face), t in the middle."""
    e = ds["escaped"]
    through = _trace(e)
    t = ds["t"].values
    rate = through.diff("t") / xr.DataArray(np.diff(t), dims="t")
    return _label(rate.assign_coords(t=0.5 * (t[1:] + t[:-1])), "arrival_rate", "rate of arrival at each end")


def summary(ds: xr.Dataset) -> str:
    """Method, steps, trace, smallest eigenvalue and escaped probability of a solution, as text."""
    last = ds.isel(t=-1)
    number = lambda name: float(np.asarray(last[name]).max())
    rows = [
        ("model", ds.attrs.get("model", "?")),
        ("grid", repr(grid_of(ds))),
        ("method", f"{ds.attrs.get('method')} ({ds.attrs.get('method_reason')})"),
        ("transport", f"{ds.attrs.get('transport')}; cells inside {ds.attrs.get('cells_inside', 'as given')}"),
        ("positivity", f"{ds.attrs.get('positivity', '?')}; {'' if ds.attrs.get('linear_in_state', 1) else 'not '}linear in the state"),
        ("time", f"{float(ds.t[0]):g} ... {float(ds.t[-1]):g}, {ds.attrs.get('time_integration')}"),
        (
            "steps",
            f"{int(number('steps'))} accepted, {int(number('steps_rejected'))} rejected, last dt {number('dt'):.3g}",
        ),
        ("time error", f"{number('time_error'):.2e} (estimated bound; tol {ds.attrs.get('tol')})"),
        ("grid error", f"{number('grid_error'):.2e} (estimate, integrated trace norm)"),
        ("trace", f"{number('trace'):.15f}"),
        ("escaped probability", f"{number('escaped_probability'):.3e}"),
        ("trace + escaped - 1", f"{float(np.asarray(last['trace'] + last['escaped_probability'] - 1).flat[0]):.1e}"),
        ("smallest eigenvalue", f"{float(np.asarray(ds['min_eigenvalue']).min()):.2e} of the largest trace"),
        ("edge probability", f"{number('edge_probability'):.2e}"),
        ("wall seconds", _phases(ds)),
    ]
    return "\n".join(f"{name:>20}  {value}" for name, value in rows)


def _phases(ds: xr.Dataset) -> str:
    """Wall-clock time of a run by phase; compiling is one of its own."""
    total = float(np.asarray(ds.isel(t=-1)["wall_seconds"]).max())
    phases = [(name, ds.attrs.get(f"seconds_{name}")) for name in ("compile", "setup", "steps", "diagnostics")]
    shown = ", ".join(f"{name} {float(value):.3g}" for name, value in phases if value is not None)
    return f"{total:.3g}" + (f" ({shown})" if shown else "")


@xr.register_dataset_accessor("cq")
class Accessor:
    """Observables of a solution: ``sol.cq.density()``, ``sol.cq.marginal("q")``, ... (see :mod:`cqpde.observables`)."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    @property
    def grid(self) -> Grid:
        """The grid of the solution."""
        return grid_of(self._ds)

    def __getattr__(self, name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"no observable {name!r}. {did_you_mean(name, _PUBLIC)}")
        function = _PUBLIC[name]
        return lambda *args, **kwargs: function(self._ds, *args, **kwargs)

    def __dir__(self) -> list[str]:
        return [*_PUBLIC, "grid"]


_PUBLIC = {
    f.__name__: f
    for f in (
        density, marginal, operator_marginal, unconditioned_state, populations, expect, moment, mean, covariance, conditional_state,
        purity, arrival_rate, summary,
    )
}  # fmt: skip

__all__ = [*_PUBLIC, "Accessor", "density_matrix"]
