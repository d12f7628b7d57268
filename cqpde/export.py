"""Selected observables of a solution as a file of its own: netCDF, Zarr or CSV."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import io
from .dataset import grid_of
from .errors import FileError, OptionError
from .observables import read_observable, variable_name
from .observables.access import time_name

if TYPE_CHECKING:
    import xarray as xr

FORMATS = (".nc", ".zarr", ".csv")


def select(ds: xr.Dataset, observables: Iterable[str], t: float | None = None) -> xr.Dataset:
    """A Dataset of some observables only, which :func:`cqpde.save` accepts and :func:`cqpde.load` reads again.

    Parameters
    ----------
    ds : Dataset
        A solution; or any file of cqpde for what is stored in it by name.
    observables : iterable of str
        Names of stored variables, or observables as for ``save=``: ``"marginal q"``, ``"expect q*sigmaz"``, ``"entropy mutual"``.
    t : float, optional
        Keep the nearest time only.

    Raises
    ------
    OptionError
        For unknown names, arguments or times.
    """
    found: dict[str, Any] = {}
    for text in observables:
        stored = variable_name(text)
        value = ds[stored] if stored in ds.data_vars else read_observable(text, grid_of(ds).names)(ds)
        name = time_name(value)
        if t is not None and name is not None:
            times = value[name].values
            if not times.min() - 1e-9 <= float(t) <= times.max() + 1e-9:
                raise OptionError("t", f"must lie in [{times.min():g}, {times.max():g}]", t, "Choose a time of the file")
            value = value.isel({name: [int(np.argmin(np.abs(times - float(t))))]})
        if name == "t_frame":
            value = value.rename(t_frame="t")
        found[stored] = value.drop_vars([c for c in value.coords if c not in value.dims])
    if not found:
        raise OptionError("observables", "needs at least one", "none", "Write e.g. 'marginal q'")
    sizes = {v.sizes["t"] for v in found.values() if "t" in v.dims}
    if len(sizes) > 1:
        raise OptionError("observables", "must be known at the same times", f"{sorted(sizes)} times", "Export them one by one")
    out = ds.drop_vars([v for v in ds.variables if v not in ds.coords])
    out = out.drop_vars([c for c in ("t", "t_frame", "cell_volume") if c in out.coords])
    for name, value in found.items():
        out[name] = value
    if "t" not in out.coords:
        out = out.assign_coords(t=ds["t"].isel(t=slice(-1, None)))
    out["t"].attrs = dict(ds["t"].attrs)
    out.attrs["title"] = f"{', '.join(found)} of {ds.attrs.get('title', 'a solution')!s}"[:250]
    return out


def export(ds: xr.Dataset, path: str | Path, observables: Iterable[str], t: float | None = None) -> None:
    """Write some observables to a file; the ending says the format: ``.nc``, ``.zarr`` or ``.csv`` (one row per time and cell).

    Raises
    ------
    FileError
        For another ending, or a file that cannot be written.
    """
    target = Path(path)
    if target.suffix not in FORMATS:
        raise FileError(str(path), "must end in a known format", target.suffix or "nothing", f"Known: {', '.join(FORMATS)}")
    io.check_writable(path)
    out = select(ds, observables, t)
    if target.suffix != ".csv":
        return io.save(out, path)
    columns: dict[str, Any] = {}
    for name, value in out.data_vars.items():
        if np.iscomplexobj(value):
            columns[f"{name}_re"], columns[f"{name}_im"] = value.real, value.imag
        else:
            columns[str(name)] = value
    frame = out.drop_vars(list(out.data_vars)).assign(columns)
    frame = frame.drop_dims([d for d in frame.dims if not any(d in v.dims for v in frame.data_vars.values())])
    frame.to_dataframe().to_csv(target)


