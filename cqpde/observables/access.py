"""What every observable needs of a Dataset: its field, its axes, operators on it, a frame of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from ..coefficients import Coefficient
from ..dataset import grid_of
from ..errors import CqpdeError, OptionError, did_you_mean
from ..model import Model

Array = np.ndarray


def field(ds: xr.Dataset) -> xr.DataArray:
    """The full field ``rho`` (t, row, col, \\*axes) of a solution, in double precision: sums over cells are taken of it."""
    return require_field(ds).astype(complex, copy=False)


def require_field(ds: xr.Dataset) -> xr.DataArray:
    """The full field in its own precision.

    Raises
    ------
    OptionError
        If the solution holds none.
    """
    if "rho" not in ds:
        raise OptionError(
            "rho",
            "the Dataset must hold full fields",
            ", ".join(map(str, ds.data_vars)) or "no variables",
            "Solve with frames=..., or use what was saved",
        )
    return ds["rho"]


def check_axes(ds: xr.Dataset, names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse names that are not classical coordinates of the solution, or named twice; return them."""
    known = grid_of(ds).names
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise OptionError(
                "axis", "must be a classical coordinate of the solution", repr(name), did_you_mean(str(name), known)
            )
    if len(set(names)) != len(names):
        raise OptionError("axis", "each coordinate may be named once", ", ".join(names), "Remove the duplicate")
    return names


def reduced(ds: xr.Dataset, names: tuple[str, ...] | None) -> tuple[xr.DataArray, tuple[str, ...], float]:
    """The field over the named axes in their order (all, if None), their names, and the volume of a cell of theirs."""
    rho, grid = field(ds), grid_of(ds)
    if names is None:
        return rho, grid.names, grid.cell_volume
    keep = check_axes(ds, names)
    out = [a for a in grid.names if a not in keep]
    volume = lambda which: float(np.prod([grid.axis(a).spacing for a in which]))
    small = rho.sum(out) * volume(out) if out else rho
    return small.transpose(..., *keep), keep, volume(keep)


def density_over(ds: xr.Dataset, names: tuple[str, ...]) -> xr.DataArray:
    """The density over the named axes in their order, the others integrated out; little memory beside the field, of which only the diagonal is read."""
    rho, grid, keep = require_field(ds), grid_of(ds), check_axes(ds, names)
    out = [a for a in grid.names if a not in keep]
    volume = float(np.prod([grid.axis(a).spacing for a in out]))
    total: Any = 0.0
    for k in range(rho.sizes["row"]):
        element = rho.isel(row=k, col=k, drop=True).real
        total = total + (element.sum(out, skipna=False, dtype=float) if out else element.astype(float))
    return (total * volume).transpose(..., *keep)


def trace(rho: xr.DataArray) -> xr.DataArray:
    """Sum of the diagonal elements, real."""
    total = rho.isel(row=0, col=0, drop=True).real
    for k in range(1, rho.sizes["row"]):
        total = total + rho.isel(row=k, col=k, drop=True).real
    return total


def label(array: xr.DataArray, name: str, long_name: str, units: str = "1") -> xr.DataArray:
    """Name an observable and say what it is."""
    array = array.rename(name)
    array.attrs = {"long_name": long_name, "units": units}
    return array


def time_name(array: xr.DataArray) -> str | None:
    """The time dimension of a field: ``t``, ``t_frame``, or none."""
    return next((str(d) for d in array.dims if d in ("t", "t_frame")), None)


def frame(ds: xr.Dataset, t: float | None = None) -> xr.Dataset:
    """The Dataset at the full field next to a time (default: the last one).

    Raises
    ------
    OptionError
        If ``t`` lies outside the times of the fields.
    """
    name = time_name(field(ds))
    if name is None:
        return ds
    times = ds[name].values
    if t is None:
        return ds.isel({name: -1})
    slack = 1e-9 * (times[-1] - times[0] + abs(times[0]))
    if not times[0] - slack <= float(t) <= times[-1] + slack:
        raise OptionError("t", f"must lie in [{times[0]:g}, {times[-1]:g}], the times of the full fields", t, "Choose one of them")
    return ds.isel({name: int(np.argmin(np.abs(times - float(t))))})


def operator_of(ds: xr.Dataset, value: Any) -> Coefficient:
    """Read an operator O(z, t): (d, d) of numbers or SymPy expressions, a QuTiP object, or a callable of z or (z, t)."""
    d, names = ds.sizes["row"], grid_of(ds).names
    try:
        return Coefficient("operator", (d, d), names, value)
    except CqpdeError as error:
        raise OptionError(error.argument, error.rule, error.found, error.remedy) from None


def entries_of(operator: Coefficient, ds: xr.Dataset, t: float) -> list[tuple[int, int, xr.DataArray]]:
    """The elements (i, j, O_ij) that do not vanish, each over the axes on which it depends."""
    grid = grid_of(ds)
    values = operator.entries(grid.mesh(), t)
    out = []
    for i, j in np.ndindex(*operator.shape):
        entry = values[i, j]
        if np.any(entry):
            dims = [a for a, n in zip(grid.names, entry.shape, strict=True) if n > 1]
            out.append((i, j, xr.DataArray(entry.reshape([n for n in entry.shape if n > 1]), dims=dims)))
    return out


def is_hermitian(operator: Coefficient, ds: xr.Dataset, t: float) -> bool:
    """Whether O(z, t) equals its adjoint in every cell."""
    values = operator.entries(grid_of(ds).mesh(), t)
    return all(np.allclose(values[i, j], np.conj(values[j, i])) for i, j in np.ndindex(*operator.shape))


def trace_with(ds: xr.Dataset, operator: Coefficient) -> xr.DataArray:
    r"""Density :math:`\mathrm{Tr}[O(z, t)\,\rho(z, t)]`, real for Hermitian O."""
    rho = field(ds)
    times = time_name(rho)

    def at(rho: xr.DataArray, t: float) -> xr.DataArray:
        terms = entries_of(operator, ds, t)
        total: Any = xr.zeros_like(rho.isel(row=0, col=0, drop=True))
        for i, j, entry in terms:
            total = total + entry * rho.isel(row=j, col=i, drop=True)
        order = [d for d in rho.dims if d not in ("row", "col")]
        total = total.transpose(*order)
        return total.real if is_hermitian(operator, ds, t) else total

    if not operator.time_dependent:
        return at(rho, 0.0)
    if times is None:
        return at(rho, float(rho.coords["t"]) if "t" in rho.coords else 0.0)
    return xr.concat([at(rho.isel({times: k}), float(t)) for k, t in enumerate(rho[times].values)], dim=times)


def per_cell(function: Callable[..., Array], *fields: xr.DataArray, out: tuple[str, ...] = (), sizes: dict[str, int] | None = None, dtype: type = float) -> xr.DataArray:  # fmt: skip
    """Apply a function of matrices (..., d, d) to one or more fields in every cell; lazy fields stay lazy."""
    if any(getattr(f.data, "chunks", None) is not None for f in fields):
        fields = tuple(f.chunk({"row": -1, "col": -1}) for f in fields)
    return xr.apply_ufunc(
        function, *fields, input_core_dims=[["row", "col"]] * len(fields), output_core_dims=[list(out)],
        dask="parallelized", dask_gufunc_kwargs={"output_sizes": sizes or {}, "meta": np.empty(0, dtype=dtype)},
    )  # fmt: skip


def eigenvalues(rho: Array) -> Array:
    """Eigenvalues of Hermitian matrices (..., d, d), ascending."""
    if rho.shape[-1] != 2:
        return np.linalg.eigvalsh(rho)
    a, b = rho[..., 0, 0].real, rho[..., 1, 1].real
    mean, half = 0.5 * (a + b), np.hypot(0.5 * (a - b), np.abs(rho[..., 0, 1]))
    return np.stack([mean - half, mean + half], axis=-1)


def model_of(ds: xr.Dataset, model: Any) -> Model:
    """The model that was passed, or the one whose configuration the file carries."""
    if isinstance(model, Model):
        found = model
    elif model is not None:
        raise OptionError("model", "must be a cqpde.Model", type(model).__name__, "Pass the model that was solved")
    elif ds.attrs.get("cqpde_config"):
        from ..config import parse_text

        found = parse_text(str(ds.attrs["cqpde_config"]), "cqpde_config").model
    else:
        raise OptionError("model", "is needed", "a solution without its configuration", "Pass the model that was solved")
    found.require_coordinates(grid_of(ds))
    if found.dim != ds.sizes["row"]:
        raise OptionError("model", f"must have the solution's {ds.sizes['row']} levels", found.dim, "Pass the model that was solved")
    return found
