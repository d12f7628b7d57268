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
    "min_eigenvalue": "smallest eigenvalue of rho over all cells, relative to the largest Tr rho (at least to an even spread of all probability over the box)",
    "hermiticity_defect": "largest |rho - rho^+| relative to the largest Tr rho",
    "escaped_probability": "probability that left through the ends of the axes",
    "edge_probability": "probability in the outermost cells of open axes",
    "end_probability": "probability in the outermost cells of each end",
    "time_error": "estimated bound of the time error so far, integrated trace norm",
    "grid_error": "estimated grid error, integrated trace norm (NaN: not asked for)",
    "dt": "last step",
    "steps": "accepted steps so far",
    "steps_rejected": "rejected steps so far",
    "wall_seconds": "wall-clock time since the start of the run",
}

#: Diagnostics that have a value for each end.
PER_FACE = ("end_probability",)


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
        np.broadcast_to(grid.cell_volume, grid.shape),
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
    batch = rho.shape[1] if rho.ndim == grid.ndim + 4 else 0
    per_state = tuple(name for name, values in diagnostics.items() if values.ndim == (3 if name in PER_FACE else 2))
    frame = _frame(grid, dim, tuple(map(float, times)), tuple(map(float, frame_times)), batch, tuple(diagnostics), per_state, tuple((units or {}).items()))
    ds = frame.copy(data={"rho": rho, "escaped": escaped, **diagnostics})
    ds.attrs = {**attrs, "cqpde_schema": SCHEMA}
    for name, array in saved.items():
        ds[name] = array
    return ds


@lru_cache(maxsize=16)
def _frame(
    grid: Grid, dim: int, times: tuple[float, ...], frame_times: tuple[float, ...], batch: int, diagnostics: tuple[str, ...],
    per_state: tuple[str, ...], units: tuple[tuple[str, str], ...],
) -> xr.Dataset:  # fmt: skip
    """A Dataset with all names, dimensions, coordinates and descriptions of a run, and no values: made once for runs of the same shape."""
    import xarray as xr

    known, states = dict(units), ("batch",) if batch else ()
    t_frame = "t" if len(frame_times) == len(times) else "t_frame"
    coords = dict(_indexed(grid, dim)) if not units else coordinates(grid, dim, known)
    time_attrs = {"long_name": "model time", "units": known.get("t", "1")}
    coords["t"] = ("t", np.array(times), time_attrs)
    if t_frame != "t":
        coords["t_frame"] = ("t_frame", np.array(frame_times), {**time_attrs, "long_name": "model time of full frames"})
    if batch:
        coords["batch"] = ("batch", np.arange(batch, dtype=np.int32), {"long_name": "initial state", "units": "1"})
    lengths = {"t": len(times), "t_frame": len(frame_times), "batch": batch, "row": dim, "col": dim, "face": 2 * grid.ndim}
    lengths |= {a.name: a.n for a in grid.axes}

    def empty(dims: tuple[str, ...], what: str) -> Any:
        return dims, np.broadcast_to(0.0, [lengths[d] for d in dims]), {"long_name": what, "units": "1"}

    data = {
        "rho": empty((t_frame, *states, "row", "col", *grid.names), "hybrid density matrix per phase-space volume"),
        "escaped": empty(("t", *states, "face", "row", "col"), "density matrix that left through each end so far"),
    }
    faces = {name: ("face",) if name in PER_FACE else () for name in diagnostics}
    data |= {name: empty(("t", *(states if name in per_state else ()), *faces[name]), DIAGNOSTICS[name]) for name in diagnostics}
    return xr.Dataset(data, coords=coords)
