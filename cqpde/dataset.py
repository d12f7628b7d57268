"""The result of a run as an ``xarray.Dataset``: names, dimensions, attributes. Nobody else knows them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .grid import Grid

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

#: Version of the layout; readers refuse others.
SCHEMA = 1

#: Diagnostics over time and what they mean.
DIAGNOSTICS = {
    "trace": "total probability inside the box",
    "min_eigenvalue": "smallest eigenvalue of rho over all cells, relative to the largest Tr rho",
    "hermiticity_defect": "largest |rho - rho^+| relative to the largest Tr rho",
    "escaped_probability": "probability that left through the ends of the axes",
    "edge_probability": "probability in the outermost cells of open axes",
    "time_error": "estimated bound of the time error so far, integrated trace norm",
    "grid_error": "estimated grid error, integrated trace norm (NaN: not asked for)",
    "dt": "last step",
    "steps": "accepted steps so far",
    "steps_rejected": "rejected steps so far",
    "wall_seconds": "wall-clock time since the start of the run",
}


def face_names(grid: Grid) -> list[str]:
    """Names of the ends, two per axis, in the order of the ``face`` coordinate."""
    return [f"{a.name}_{side}" for a in grid.axes for side in ("lower", "upper")]


def coordinates(grid: Grid, dim: int, units: dict[str, str] | None = None) -> dict[str, Any]:
    """Coordinates that every solution on ``grid`` has."""
    units = units or {}
    coords: dict[str, Any] = {
        "row": ("row", np.arange(dim, dtype=np.int32), {"long_name": "row of the density matrix", "units": "1"}),
        "col": ("col", np.arange(dim, dtype=np.int32), {"long_name": "column of the density matrix", "units": "1"}),
        "face": (
            "face",
            np.arange(2 * grid.ndim, dtype=np.int32),
            {
                "long_name": "end of an axis",
                "flag_values": np.arange(2 * grid.ndim, dtype=np.int32),
                "flag_meanings": " ".join(face_names(grid)),
            },
        ),
    }
    for i, axis in enumerate(grid.axes):
        coords[axis.name] = (
            axis.name,
            axis.centers,
            {
                "long_name": f"classical coordinate {axis.name}",
                "units": units.get(axis.name, "1"),
                "boundary": " ".join(map(str, axis.ends)),
                "lower": float(axis.lower),
                "upper": float(axis.upper),
                "axis_index": i,
            },
        )
    coords["cell_volume"] = (
        grid.names,
        np.full(grid.shape, grid.cell_volume),
        {"long_name": "phase-space volume of a cell", "units": "1"},
    )
    return coords


@lru_cache(maxsize=16)
def _indexed(grid: Grid, dim: int) -> dict[str, Any]:
    """The coordinates as variables with their indexes, made once per grid."""
    import xarray as xr

    return {str(name): c.variable for name, c in xr.Dataset(coords=coordinates(grid, dim)).coords.items()}


def grid_of(ds: xr.Dataset) -> Grid:
    """Rebuild the grid of a solution from its coordinates."""
    axes = sorted((c for c in ds.coords if "axis_index" in ds[c].attrs), key=lambda c: int(ds[c].attrs["axis_index"]))
    spec = {}
    for name in axes:
        a = ds[name].attrs
        spec[str(name)] = (float(a["lower"]), float(a["upper"]), int(ds.sizes[name]), tuple(str(a["boundary"]).split()))
    return Grid(**spec)


def snapshot(grid: Grid, dim: int, t: float, rho: Array, units: dict[str, str] | None = None) -> xr.Dataset:
    """One frame as a Dataset without a time dimension (what ``save=`` callables see); rho has shape ([batch,] d, d, *cells)."""
    import xarray as xr

    batch = ("batch",) if rho.ndim == grid.ndim + 3 else ()
    ds = xr.Dataset({"rho": ((*batch, "row", "col", *grid.names), rho)}, coords=coordinates(grid, dim, units))
    return ds.assign_coords(t=float(t))


def build(
    grid: Grid, dim: int, times: Array, frame_times: Array, rho: Array, escaped: Array, diagnostics: dict[str, Array],
    saved: dict[str, Any], attrs: dict[str, Any], units: dict[str, str] | None = None,
) -> xr.Dataset:  # fmt: skip
    """Assemble the Dataset of a run.

    Parameters
    ----------
    rho : array (frames[, batch], d, d, *cells)
    escaped : array (times[, batch], faces, d, d)
    diagnostics : dict of array (times[, batch]) or (times,)
    saved : dict of DataArray with a leading time dimension
    """
    import xarray as xr

    batch = ("batch",) if rho.ndim == grid.ndim + 4 else ()
    t_frame = "t" if len(frame_times) == len(times) else "t_frame"
    coords = dict(_indexed(grid, dim)) if units is None else coordinates(grid, dim, units)
    time_attrs = {"long_name": "model time", "units": (units or {}).get("t", "1")}
    coords["t"] = ("t", np.asarray(times, dtype=float), time_attrs)
    if t_frame != "t":
        coords["t_frame"] = (
            "t_frame",
            np.asarray(frame_times, dtype=float),
            {**time_attrs, "long_name": "model time of full frames"},
        )
    if batch:
        coords["batch"] = (
            "batch",
            np.arange(rho.shape[1], dtype=np.int32),
            {"long_name": "initial state", "units": "1"},
        )
    data: dict[str, Any] = {
        "rho": (
            (t_frame, *batch, "row", "col", *grid.names),
            rho,
            {"long_name": "hybrid density matrix per phase-space volume", "units": "1"},
        ),
        "escaped": (
            ("t", *batch, "face", "row", "col"),
            escaped,
            {"long_name": "density matrix that left through each end so far", "units": "1"},
        ),
    }
    for name, values in diagnostics.items():
        dims = ("t", *batch) if values.ndim == 2 else ("t",)
        data[name] = (dims, values, {"long_name": DIAGNOSTICS[name], "units": "1"})
    ds = xr.Dataset(data, coords=coords, attrs={**attrs, "cqpde_schema": SCHEMA})
    for name, array in saved.items():
        ds[name] = array
    return ds
