"""Densities, marginals, quantum states, and what is read off them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from ..coefficients import Point
from ..dataset import grid_of
from ..errors import OptionError
from ..options import is_number
from .access import check_axes, density_over, field, label, reduced, trace

Array = np.ndarray


def density(ds: xr.Dataset) -> xr.DataArray:
    r"""Classical density :math:`\mathrm{Tr}\,\rho(z, t)`, dims (t, \*axes)."""
    return label(density_over(ds, grid_of(ds).names), "density", "classical density")


def marginal(ds: xr.Dataset, *axes: str) -> xr.DataArray:
    """Density over the named axes, the others integrated out, dims (t, \\*axes)."""
    return label(density_over(ds, axes), "_".join(("marginal", *axes)), f"marginal density of {', '.join(axes) or 'nothing'}")


def operator_marginal(ds: xr.Dataset, *axes: str) -> xr.DataArray:
    """Density matrix over the named axes, the others integrated out, dims (t, row, col, \\*axes)."""
    rho, keep, _ = reduced(ds, axes)
    return label(rho, "_".join(("rho_marginal", *keep)), f"hybrid state of {', '.join(keep) or 'the quantum system'}")


def unconditioned_state(ds: xr.Dataset) -> xr.DataArray:
    r"""Quantum state :math:`\int\rho\,dz`, dims (t, row, col); its trace is the probability inside the box."""
    return label(operator_marginal(ds), "unconditioned_state", "unconditioned quantum state")


def populations(ds: xr.Dataset, *axes: str) -> xr.DataArray:
    r"""Diagonal elements :math:`\rho_{kk}` over the named axes (none: integrated over all), dims (t, row, \*axes)."""
    rho, keep, _ = reduced(ds, axes)
    diagonal = xr.concat([rho.isel(row=k, col=k, drop=True).real for k in range(ds.sizes["row"])], dim="row")
    rest = [d for d in diagonal.dims if d != "row" and d not in keep]
    diagonal = diagonal.transpose(*rest, "row", *keep).assign_coords(row=ds["row"])
    return label(diagonal, "populations", "populations" + (f" over {', '.join(keep)}" if keep else " of the unconditioned state"))


def coherence(ds: xr.Dataset, *axes: str, levels: tuple[int, int] = (0, 1)) -> xr.DataArray:
    r"""Element :math:`\rho_{ab}` over the named axes (none: integrated over all), complex, dims (t, \*axes).

    Parameters
    ----------
    *axes : str
        Axes to keep.
    levels : pair of int
        Row a and column b.
    """
    a, b = check_levels(ds, levels)
    rho, keep, _ = reduced(ds, axes)
    return label(rho.isel(row=a, col=b, drop=True), f"coherence_{a}_{b}", f"coherence rho_{a}{b}" + (f" over {', '.join(keep)}" if keep else ""))


def check_levels(ds: xr.Dataset, levels: Any) -> tuple[int, int]:
    """Refuse a pair of levels that the system does not have."""
    d = ds.sizes["row"]
    try:
        a, b = (int(k) for k in levels)
    except (TypeError, ValueError):
        raise OptionError("levels", "must be a pair of levels", repr(levels), "Write levels=(0, 1)") from None
    if a == b or not (0 <= a < d and 0 <= b < d):
        raise OptionError("levels", f"must be two different levels out of 0 ... {d - 1}", repr(levels), "Write levels=(0, 1)")
    return a, b


def bloch(ds: xr.Dataset, *axes: str, levels: tuple[int, int] = (0, 1)) -> xr.DataArray:
    r"""Bloch vector of the conditional states over the named axes, dims (t, component, \*axes); none: of the unconditioned state.

    .. math:: r = (2\,\mathrm{Re}\rho_{01},\ -2\,\mathrm{Im}\rho_{01},\ \rho_{00} - \rho_{11}) / (\rho_{00} + \rho_{11})

    Parameters
    ----------
    *axes : str
        Axes to keep; the others are integrated out first.
    levels : pair of int
        Which two levels, of a system with more: the vector is that of the system given that it is in one of them.

    Returns
    -------
    xarray.DataArray
        Components x, y, z; NaN where the density vanishes, without meaning where it is below the errors of the solution.
    """
    a, b = check_levels(ds, levels)
    rho, keep, _ = reduced(ds, axes)
    up, down = (rho.isel(row=k, col=k, drop=True).real for k in (a, b))
    off = rho.isel(row=a, col=b, drop=True)
    total = up + down
    vector = xr.concat([2.0 * off.real, -2.0 * off.imag, up - down], dim="component") / total.where(total > 0)
    rest = [d for d in vector.dims if d != "component" and d not in keep]
    return label(vector.transpose(*rest, "component", *keep), "bloch", "Bloch vector (x, y, z) of the conditional state")


def _weight(ds: xr.Dataset, region: Callable[[Point], Any] | None, where: dict[str, Any]) -> xr.DataArray:
    """Share of each cell that lies in a region: intervals by overlap, a callable at the cell centres."""
    grid = grid_of(ds)
    weight = xr.DataArray(1.0)
    for name, value in where.items():
        axis = grid.axis(name)
        low, high = (value.start, value.stop) if isinstance(value, slice) else value
        for end in (low, high):
            if end is not None and not (is_number(end) or (isinstance(end, float) and not np.isnan(end))):
                raise OptionError(name, "the ends of an interval must be numbers", repr(value), "None leaves an end open")
        low, high = axis.lower if low is None else float(low), axis.upper if high is None else float(high)
        if not low < high or high <= axis.lower or low >= axis.upper:
            raise OptionError(name, f"must be an ascending interval that meets [{axis.lower:g}, {axis.upper:g}]", f"({low:g}, {high:g})", "Choose another")
        edges = np.clip(axis.interfaces, low, high)
        weight = weight * xr.DataArray(np.diff(edges) / axis.spacing, dims=name)
    if region is not None:
        inside = np.broadcast_to(np.asarray(region(Point(grid.mesh()))), grid.shape)
        if inside.dtype != bool:
            raise OptionError("region", "must return booleans", str(inside.dtype), "Write e.g. lambda z: z.q > z.p")
        weight = weight * xr.DataArray(inside.astype(float), dims=grid.names)
    return weight


def _split(ds: xr.Dataset, where: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Points and intervals among the conditions, checked."""
    check_axes(ds, tuple(where))
    points: dict[str, float] = {}
    intervals: dict[str, Any] = {}
    grid = grid_of(ds)
    for name, value in where.items():
        if isinstance(value, slice) or (isinstance(value, list | tuple) and len(value) == 2):
            intervals[name] = value
            continue
        axis = grid.axis(name)
        try:
            points[name] = float(value)
        except (TypeError, ValueError, OverflowError):
            raise OptionError(name, "must be a number or an interval (low, high)", repr(value), "None leaves an end open") from None
        if not axis.lower <= points[name] <= axis.upper:
            raise OptionError(name, f"must lie inside [{axis.lower:g}, {axis.upper:g}]", value, "Choose a point of the box")
    return points, intervals


def probability(ds: xr.Dataset, region: Callable[[Point], Any] | None = None, **where: Any) -> xr.DataArray:
    """Probability of a region of phase space, dims (t,).

    Parameters
    ----------
    region : callable, optional
        ``region(z)`` returns booleans over the cells, e.g. ``lambda z: z.q > z.p``.
    **where : pair
        Intervals, e.g. ``q=(0, None)``; cells cut by an end count by their overlap.
    """
    points, intervals = _split(ds, where)
    if points:
        raise OptionError(next(iter(points)), "must be an interval", next(iter(points.values())), "Write e.g. q=(0, None)")
    grid = grid_of(ds)
    inside = (trace(field(ds)) * _weight(ds, region, intervals)).sum(list(grid.names)) * grid.cell_volume
    return label(inside, "probability", "probability of the region")


def conditional_state(ds: xr.Dataset, region: Callable[[Point], Any] | None = None, **where: Any) -> xr.DataArray:
    r"""Conditional state :math:`\rho(z)/\mathrm{Tr}\rho(z)`, or of a region :math:`\int_R\rho\,dz / \int_R\mathrm{Tr}\rho\,dz`.

    Parameters
    ----------
    region : callable, optional
        ``region(z)`` returns booleans over the cells: the state given that z lies there.
    **where : float or pair
        Points, e.g. ``q=0.3, p=1.0`` (the nearest cell is taken), or intervals, e.g. ``q=(0, None)`` (cells cut by an end count by their
        overlap). Axes that are not named are integrated out; without any condition the whole field is returned.

    Returns
    -------
    xarray.DataArray
        dims (t, row, col), with the axes behind them if nothing was asked; NaN where the density vanishes, without meaning where it is
        below the errors of the solution.
    """
    points, intervals = _split(ds, where)
    grid = grid_of(ds)
    rho = field(ds)
    if intervals or region is not None:
        rho = rho * _weight(ds, region, intervals)
    elif not points:
        return label(rho / _positive(trace(rho)), "conditional_state", "conditional quantum state")
    if points:
        rho = rho.sel(points, method="nearest")
    rest = [a for a in grid.names if a not in points]
    rho = rho.sum(rest) * float(np.prod([grid.axis(a).spacing for a in rest])) if rest else rho
    return label(rho / _positive(trace(rho)), "conditional_state", "conditional quantum state")


def _positive(total: xr.DataArray) -> xr.DataArray:
    return total.where(total > 0)
