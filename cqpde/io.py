"""netCDF files of solutions: :func:`save`, :func:`load`, :func:`describe`.

A file is NETCDF4_CLASSIC (HDF5 inside, one unlimited dimension, no user types), CF-1.11. A complex variable ``X`` is stored as the two
real variables ``X_re`` and ``X_im``, which plain xarray, ``ncdump`` and every other reader understand; :func:`load` joins them again. A
file appears under its name only when it is complete: it is written beside it, synced, and renamed.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import os
import shutil
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .dataset import DIAGNOSTICS, SCHEMA, grid_of
from .errors import CqpdeError, FileError
from .file_checks import check_claims, check_content, field_check
from .options import require_flag

if TYPE_CHECKING:
    import xarray as xr

    from .moving import MovingSolution
    from .sites import ProductSum

Array = np.ndarray
F = TypeVar("F", bound=Callable[..., Any])

_LOCK = threading.RLock()

REFERENCES = "I. Layton, J. Oppenheim, Z. Weller-Davies, A healthier semi-classical dynamics, Quantum 8, 1565 (2024)"

#: Fields of more bytes than this are left in the file by :func:`load`; a chunk of them has at most so many bytes.
LAZY_BYTES, CHUNK_READ = 1 << 29, 1 << 26

#: A chunk is a whole frame up to this many bytes, else one matrix element.
CHUNK_BYTES = 1 << 20

_STORED_ONLY = (
    "Conventions",
    "date_created",
    "id",
    "references",
    "cqpde_config_sha256",
    "n_valid",
    "basis_labels",
)


def _alone(function: F) -> F:
    """Keep other threads of this process out: the library under netCDF files is not made for two at once."""

    @functools.wraps(function)
    def locked(*args: Any, **keys: Any) -> Any:
        with _LOCK:
            return function(*args, **keys)

    return locked  # type: ignore[return-value]


def check_writable(path: str | Path) -> None:
    """Refuse a path that cannot be written, before any work is done for it."""
    if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path) or len(str(path)) > 4000 or len(Path(path).name) > 240:
        raise FileError("path", "must be the name of a file", repr(path), "Write e.g. 'result.nc'")
    target = Path(path)
    folder = target.parent
    store = target.suffix == ".zarr" and ((target / "zarr.json").is_file() or (target / ".zgroup").is_file())
    if target.is_dir() and not store:
        raise FileError(str(path), "must be a file to write", "a folder", "Give a file name ending in .nc")
    if not folder.is_dir():
        raise FileError(str(path), "must lie in an existing folder", f"no folder {folder}", "Create it first")
    if not os.access(folder, os.W_OK):
        raise FileError(
            str(path), "must lie in a writable folder", f"no permission for {folder}", "Choose another folder"
        )


@_alone
def save(dataset: xr.Dataset | ProductSum | MovingSolution, path: str | Path) -> None:
    """Write a solution.

    Parameters
    ----------
    dataset : xarray.Dataset, ProductSum or MovingSolution
        A result of :func:`cqpde.solve` (or part of one that keeps its coordinates), of :func:`cqpde.solve_sites` or of :func:`cqpde.follow`.
    path : path
        File to write; an existing one is replaced only when the new one is complete. A name ending in ``.zarr`` writes a Zarr store of the
        same layout (needs ``pip install "cqpde[zarr]"``).

    Raises
    ------
    FileError
        If the dataset is not a solution, or the file cannot be written (folder, permission, disk full); nothing is left behind then.

    Notes
    -----
    Variables added beside the Dataset's own: ``density`` (what a viewer shows first), bounds of the axes. They are derived, and not
    part of what :func:`load` returns.
    """
    import dask

    from .moving import MovingSolution
    from .sites import ProductSum

    if isinstance(dataset, ProductSum | MovingSolution):
        dataset = dataset.dataset
    if "cqpde_schema" not in getattr(dataset, "attrs", {}):
        raise FileError(
            "dataset", "must be a solution of cqpde", "no attribute cqpde_schema", "Save what cqpde.solve returned"
        )
    check_writable(path)
    target = Path(path)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        encoded = encode(dataset)
        if target.suffix == ".zarr":
            need_zarr(path)
            encoded.to_zarr(beside, consolidated=False)
            if target.is_dir():
                shutil.rmtree(target)
        else:
            unlimited = ["t"] if "t" in encoded.dims else []
            with dask.config.set(scheduler="synchronous"), _small_caches():  # the library writes one piece at a time anyway
                encoded.to_netcdf(beside, format="NETCDF4_CLASSIC", engine="netcdf4", unlimited_dims=unlimited, encoding=_encoding(encoded))
            with open(beside, "rb+") as handle:
                os.fsync(handle.fileno())
        os.replace(beside, target)
    except (OSError, RuntimeError) as error:
        free = os.statvfs(target.parent)
        remedy = f"{free.f_bavail * free.f_frsize / 1e6:.0f} MB are free there, the fields need up to {dataset.nbytes / 1e6:.0f} MB; save elsewhere"
        raise FileError(str(path), "could not be written", str(error), remedy) from error
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        beside.unlink(missing_ok=True)


def need_zarr(path: str | Path) -> None:
    """Refuse a Zarr store without the library."""
    import importlib.util

    if not importlib.util.find_spec("zarr"):
        raise FileError(str(path), "a .zarr store needs zarr", "it is not installed", 'pip install "cqpde[zarr]"')


@contextlib.contextmanager
def _small_caches() -> Iterator[None]:
    """Let no variable keep written chunks: every one is written once, as a whole."""
    import netCDF4

    before = netCDF4.get_chunk_cache()
    netCDF4.set_chunk_cache(4 * CHUNK_BYTES)
    try:
        yield
    finally:
        netCDF4.set_chunk_cache(*before)


@dataclass(frozen=True)
class _Part:
    """An array that Dask takes pieces of; of a plain NumPy array it would copy all of them at once."""

    values: Array

    dtype = property(lambda self: self.values.dtype)
    shape = property(lambda self: self.values.shape)
    ndim = property(lambda self: self.values.ndim)

    def __getitem__(self, index: Any) -> Array:
        return np.ascontiguousarray(self.values[index])


def _by_frames(values: Any) -> Any:
    """A large array as one that is written a frame at a time, so that it is never copied as a whole."""
    if not isinstance(values, np.ndarray) or values.nbytes < LAZY_BYTES // 16:
        return values
    import dask.array

    return dask.array.from_array(_Part(values), chunks=(1, *values.shape[1:]), name=False, meta=values[:0])


def encode(ds: xr.Dataset) -> xr.Dataset:
    """The Dataset as it is stored: real variables, bounds, density, CF attributes."""
    import xarray as xr

    grid = grid_of(ds)
    fields: dict[str, Any] = {}
    method = ": ".join(grid.names) + ": point"
    for name, array in ds.data_vars.items():
        variable = array.variable
        attrs = dict(variable.attrs)
        if set(grid.names) <= set(variable.dims):
            attrs["cell_methods"] = method
        if np.issubdtype(variable.dtype, np.complexfloating):
            for part, values, label in (("re", variable.real.data, "real part"), ("im", variable.imag.data, "imaginary part")):
                other = f"{name}_{'im' if part == 're' else 're'}"
                long_name = f"{attrs.get('long_name', name)}, {label}"
                fields[f"{name}_{part}"] = (
                    variable.dims,
                    _by_frames(values),
                    {
                        **attrs,
                        "long_name": long_name,
                        "complex_name": str(attrs.get("long_name", "")),
                        "ancillary_variables": other,
                    },
                )
        else:
            fields[str(name)] = (variable.dims, variable.data, attrs)
    if "rho" in ds and "density" not in ds:
        from .observables.access import trace

        total = trace(ds["rho"])
        fields["density"] = (
            total.dims,
            total.data,
            {"long_name": "classical density Tr rho", "units": "1", "cell_methods": method, "derived": 1},
        )
    out = xr.Dataset(fields, coords={name: (c.dims, c.values, dict(c.attrs)) for name, c in ds.coords.items()})
    for axis in grid.axes:
        if axis.name in out:
            out[axis.name].attrs["bounds"] = f"{axis.name}_bnds"
            out[f"{axis.name}_bnds"] = (
                (axis.name, "bnds"),
                np.stack([axis.interfaces[:-1], axis.interfaces[1:]], axis=1),
            )
    out.attrs = {
        **ds.attrs,
        "Conventions": "CF-1.11",
        "id": str(uuid.uuid4()),
        "references": REFERENCES,
        **_provenance(ds.attrs),
        "n_valid": int(ds.sizes.get("t", 0)),
        "basis_labels": ",".join(str(k) for k in range(ds.sizes["row"])),
    }
    return out


def _provenance(attrs: Any) -> dict[str, str]:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    history = str(attrs.get("history", "cqpde.save"))
    return {
        "date_created": now,
        "history": f"{now} {history}" if "\n" not in history and history[:2] != "20" else history,
        "cqpde_config_sha256": hashlib.sha256(str(attrs.get("cqpde_config", "")).encode()).hexdigest(),
    }


def annotate(path: Path, about: dict[str, str]) -> None:
    """Add attributes, of which configuration and history, to a finished Zarr store."""
    import zarr

    zarr.open_group(str(path), mode="r+").attrs.update({**about, **_provenance(about)})


def _encoding(ds: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Chunks and compression per variable; coordinates have no fill value (CF)."""
    encoding: dict[str, dict[str, Any]] = {}
    cells = set(grid_of(ds).names)
    for name, variable in ds.variables.items():
        if name in ds.coords or str(name).endswith("_bnds"):
            encoding[str(name)] = {"_FillValue": None}
            continue
        entry: dict[str, Any] = {"_FillValue": np.nan} if np.issubdtype(variable.dtype, np.floating) else {}
        if variable.ndim and variable.size:
            chunks = [1 if d in ("t", "t_frame") else n for d, n in zip(variable.dims, variable.shape, strict=True)]
            if cells & set(variable.dims):
                size = 8 * int(np.prod(chunks))
                for k, d in enumerate(variable.dims):
                    if size > CHUNK_BYTES and d in ("batch", "face", "row", "col"):
                        size //= chunks[k]
                        chunks[k] = 1
                for k, d in enumerate(variable.dims):
                    while size > 4 * CHUNK_BYTES and d in cells and chunks[k] > 1:
                        size, chunks[k] = size // 2, (chunks[k] + 1) // 2
            else:
                chunks = [max(1, n) for n in variable.shape]
            entry |= {"zlib": True, "complevel": 1, "shuffle": True, "chunksizes": tuple(chunks)}
        encoding[str(name)] = entry
    return encoding


@_alone
def load(path: str | Path, lazy: bool | None = None) -> Any:
    """Read a solution, ensemble, report, export, product form or moving window written by :func:`save`.

    Parameters
    ----------
    lazy : bool, optional
        Leave the fields in the file, as Dask arrays that are read chunk by chunk when values are asked for; observables then stay lazy
        too, and use as much memory as a few chunks of at most 64 MiB. Default: for files whose fields take more than 512 MiB.

    Returns
    -------
    xarray.Dataset, ProductSum or MovingSolution
        As :func:`cqpde.solve`, :func:`cqpde.solve_sites` or :func:`cqpde.follow` returned it, bit for bit.

    Raises
    ------
    FileError
        If the file cannot be read, is not one of cqpde's, has another schema, or its shapes contradict each other.
    """
    import xarray as xr

    if not isinstance(path, str | os.PathLike) or not str(path):
        raise FileError("path", "must be the name of a file", repr(path), "Write e.g. 'result.nc'")
    if lazy is not None:
        require_flag("lazy", lazy)
    try:
        if Path(path).suffix == ".zarr":
            need_zarr(path)
            stored = xr.open_dataset(path, engine="zarr", decode_times=False, consolidated=False, chunks=None)
        else:
            check_claims(path)
            stored = xr.open_dataset(path, engine="netcdf4", decode_times=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise FileError(
            str(path), "must be a readable netCDF file", str(error)[:200], "Check the path, or write the file again"
        ) from None
    _check_schema(stored, path)
    check_content(stored, path, DIAGNOSTICS)
    if lazy or (lazy is None and stored.nbytes > LAZY_BYTES):
        import dask.array

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # chunks of the file are smaller than those worked on
            whole = {str(d): (1 if d in ("t", "t_frame", "batch") else -1 if d in ("row", "col") else "auto") for d in stored.sizes}
            with dask.config.set({"array.chunk-size": f"{CHUNK_READ} B"}):
                stored = stored.chunk(whole)
    coords = {
        name: (c.dims, c.values, {k: v for k, v in c.attrs.items() if k != "bounds"})
        for name, c in stored.coords.items()
        if not str(name).endswith("_bnds")
    }
    data: dict[str, Any] = {}
    for key, variable in stored.data_vars.items():
        name = str(key)
        if (
            name.endswith("_bnds")
            or variable.attrs.get("derived")
            or (name.endswith("_im") and f"{name[:-3]}_re" in stored)
        ):
            continue
        attrs = {
            k: v for k, v in variable.attrs.items() if k not in ("ancillary_variables", "cell_methods", "complex_name")
        }
        if name.endswith("_re") and f"{name[:-3]}_im" in stored:
            imaginary = stored[f"{name[:-3]}_im"]
            if imaginary.dims != variable.dims:
                raise FileError(
                    str(path),
                    f"{name} and {imaginary.name} must have the same dimensions",
                    imaginary.dims,
                    "The file is damaged",
                )
            values: Any
            look = field_check(stored, path, "rho") if name == "rho_re" else None
            if variable.chunks is not None:
                values = dask.array.map_blocks(_joined, variable.variable.data, imaginary.variable.data, dtype=np.result_type(variable.dtype, np.complex64), look=look)
            else:
                values = _joined(variable.values, imaginary.values, look)
            attrs["long_name"] = variable.attrs.get("complex_name", "")
            data[name[:-3]] = (variable.dims, values, attrs)
        else:
            data[name] = (variable.dims, variable.values if variable.chunks is None else variable.variable._data, attrs)
    attrs = {
        k: (v.item() if isinstance(v, np.generic) else v) for k, v in stored.attrs.items() if k not in _STORED_ONLY
    }
    ds = xr.Dataset(data, coords=coords, attrs=attrs)
    ds.encoding["source"] = str(path)
    if not any(v.chunks for v in stored.variables.values()):
        stored.close()  # now, and not when some thread drops it
    from . import observables  # noqa: F401 - registers the accessor .cq
    from .moving import KIND, MovingSolution
    from .sites import ProductSum

    forms: dict[str, Any] = {"product sum": ProductSum, KIND: MovingSolution}
    return forms.get(str(ds.attrs.get("kind")), lambda found: found)(ds)


def _joined(real: Array, imaginary: Array, look: Any = None, block_info: Any = None) -> Array:
    """A complex field, or a block of it, that ``look`` finds no fault in."""
    values = np.empty(real.shape, dtype=np.result_type(real.dtype, np.complex64))
    values.real, values.imag = real, imaginary
    if look is not None:
        look(values, (0,) * values.ndim if block_info is None else tuple(first for first, _ in block_info[0]["array-location"]))
    return values


def _check_schema(stored: xr.Dataset, path: str | Path) -> None:
    found = stored.attrs.get("cqpde_schema")
    if found is None:
        raise FileError(str(path), "must be a file of cqpde", "no attribute cqpde_schema", "Write it with cqpde.save")
    if not np.isscalar(found) or found != SCHEMA:
        raise FileError(str(path), f"must have schema {SCHEMA}", repr(found), "Read it with the version that wrote it")
    for name in ("t", "row", "col"):
        if name not in stored.coords:
            raise FileError(str(path), f"must have the coordinate {name}", "none", "The file is damaged")
    if stored.sizes["row"] != stored.sizes["col"]:
        raise FileError(
            str(path),
            "must hold square matrices",
            f"{stored.sizes['row']} x {stored.sizes['col']}",
            "The file is damaged",
        )
    try:
        grid = grid_of(stored)
    except (CqpdeError, KeyError, TypeError, ValueError, OverflowError) as error:  # whatever a foreign attribute does to the grid is one refusal
        raise FileError(str(path), "must describe a grid", str(error)[:200], "The file is damaged") from None
    for axis in grid.axes:
        if not np.allclose(stored[axis.name].values, axis.centers, rtol=0, atol=1e-9 * (axis.upper - axis.lower)):
            raise FileError(
                str(path), f"the centres of {axis.name} must match its bounds", "other values", "The file is damaged"
            )


def facts(path: str | Path) -> dict[str, Any]:
    """What a file holds, as plain data (for ``cqpde info --json``): model, grid, times, variables, attributes, last diagnostics."""
    ds = load(path)
    ds = getattr(ds, "dataset", ds)  # of a ProductSum or MovingSolution
    plain = lambda v: v.item() if isinstance(v, np.generic) else v
    last = ds.isel(t=-1)
    return {
        "file": str(path),
        "bytes": sum(f.stat().st_size for f in Path(path).rglob("*") if f.is_file()) if Path(path).is_dir() else Path(path).stat().st_size,
        "kind": str(ds.attrs.get("kind", "solution")),
        "title": str(ds.attrs.get("title", "")),
        "model": str(ds.attrs.get("model", "?")),
        "status": str(ds.attrs.get("status", "?")),
        "levels": int(ds.sizes["row"]),
        "grid": {a.name: {"lower": a.lower, "upper": a.upper, "cells": a.n, "ends": [str(e) for e in a.ends]} for a in grid_of(ds).axes},
        "times": [float(x) for x in ds["t"].values],
        "frames": [float(x) for x in ds["t_frame" if "t_frame" in ds.coords else "t"].values] if "rho" in ds else [],
        "diagnostics": {n: np.asarray(last[n]).tolist() for n in DIAGNOSTICS if n in ds},
        "variables": {str(n): {"dims": [str(d) for d in v.dims], "long_name": str(v.attrs.get("long_name", ""))} for n, v in ds.data_vars.items()},
        "attributes": {str(k): plain(v) for k, v in ds.attrs.items() if k != "cqpde_config"},
    }


def describe(path: str | Path) -> str:
    """Describe a file in words: model, grid, times, variables, diagnostics at the end."""
    from .moving import KIND

    found, known = load(path), facts(path)
    ds = getattr(found, "dataset", found)  # of a ProductSum or MovingSolution
    told = ("kind", "model", "method", "trajectories", "seed", "dt", "verdict", "p_value", "reasons")
    if known["kind"] == KIND:
        summary = found.summary()
    elif known["kind"] == "solution" and len(known["diagnostics"]) == len(DIAGNOSTICS):
        summary = ds.cq.summary()
    else:
        rows = {"kind": known["kind"]} | {key: ds.attrs[key] for key in told if key in ds.attrs} | {"grid": repr(grid_of(ds))}
        summary = "\n".join(f"{key:>20}  {value}" for key, value in rows.items())
    lines = [known["title"], summary, "", f"{'status':>20}  {known['status']}"]
    lines.append(f"{'times':>20}  {len(known['times'])} from {known['times'][0]:g} to {known['times'][-1]:g}" if known["times"] else f"{'times':>20}  none")
    for name, variable in known["variables"].items():
        lines.append(f"{name:>20}  ({', '.join(variable['dims'])})  {variable['long_name']}")
    lines.append(f"{'file':>20}  {known['bytes'] / 1e6:.2f} MB")
    return "\n".join(lines)
