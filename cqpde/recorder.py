"""What a run keeps: frames, escaped matrices, diagnostics, and the observables asked for by ``save=``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import dataset
from .components import min_eigenvalues, relative_eigenvalue, to_matrix
from .errors import OptionError
from .field_store import FieldStore
from .grid import Grid
from .integrate.evolve import Frame
from .kernels.diagnostics import matrices, survey
from .options import numbers

Array = np.ndarray


class Recorder:
    """Collects frames, escaped matrices, diagnostics and saved observables while a run goes on."""

    def __init__(
        self, grid: Grid, dim: int, batch: int, times: Array, kept: Array, savers: dict[str, Callable[..., Any]], dtype: Any = np.float64,
        store: FieldStore | None = None,
    ) -> None:  # fmt: skip
        self.store = store
        self.grid, self.dim, self.batch, self.times, self.kept, self.savers = grid, dim, batch, times, kept, savers
        self.rho = np.empty((len(kept), *(self.frame_shape if store is None else (0,))), dtype=np.result_type(dtype, np.complex64))
        self.escaped = np.empty((len(times), batch, 2 * grid.ndim, dim, dim), dtype=complex)
        self.diagnostics: dict[str, Array] = {
            name: np.full(self._shape(name), np.nan)
            for name in dataset.DIAGNOSTICS
        }
        self._saved: dict[str, list[Any]] = {name: [] for name in savers}
        self.applications, self.skipped = 0, 0.0
        self.seconds = 0.0
        self.total, self.count = len(times), 0

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of a full field, (batch, d, d, \\*cells)."""
        return (self.batch, self.dim, self.dim, *self.grid.shape)

    def field(self, k: int) -> Array:
        """Full field ``k`` of those that are kept."""
        return self.rho[k] if self.store is None else self.store.read(k)

    def _shape(self, name: str) -> tuple[int, ...]:
        """Shape of a diagnostic."""
        faces = (2 * self.grid.ndim,) if name in dataset.PER_FACE else ()
        return (len(self.times), *((self.batch,) if name in _PER_STATE else ()), *faces)

    def add(self, frame: Frame, began: float) -> None:
        """Record one output.

        Parameters
        ----------
        began : float
            When the run started, for the wall-clock time.
        """
        now = time.perf_counter()
        self.count = frame.index + 1
        k, d, cells = frame.index, self.diagnostics, self.grid.shape
        x = frame.x.reshape(self.dim**2, self.batch, *cells)
        self.escaped[k] = np.moveaxis(to_matrix(np.moveaxis(frame.escaped, -1, 0)), (0, 1), (-2, -1))
        d["hermiticity_defect"][k] = 0.0  # the state is kept as d^2 real components: it cannot be anything but Hermitian
        d["escaped_probability"][k] = np.real(np.einsum("bfaa->b", self.escaped[k]))
        for b in range(self.batch):
            one = np.ascontiguousarray(x[:, b]).reshape(self.dim**2, -1)
            total, largest, smallest = survey(one, self.dim)
            if self.dim > 2:
                smallest = float(min_eigenvalues(one).min())
            d["trace"][k, b] = total * self.grid.cell_volume
            probability = float(d["trace"][k, b] + d["escaped_probability"][k, b])
            d["min_eigenvalue"][k, b] = relative_eigenvalue(smallest, largest, probability, x[0, b].size * self.grid.cell_volume)
            d["end_probability"][k, b] = ends = self._at_ends(x[: self.dim, b])
            open_ends = [e.kind == "open" for a in self.grid.axes for e in a.ends]
            d["edge_probability"][k, b] = max(float(ends[open_ends].sum()), frame.progress.edge)
        p = frame.progress
        for name, value in (
            ("time_error", p.time_error + p.skipped),
            ("grid_error", np.nan if p.tail is None else p.tail),
            ("dt", p.dt),
            ("steps", p.steps),
            ("steps_rejected", p.rejected),
        ):
            d[name][k] = value
        d["wall_seconds"][k] = now - began
        self.applications, self.skipped = p.applications, p.skipped
        match = np.flatnonzero(self.kept == frame.t)
        if not len(match) and not self.savers:
            self.seconds += time.perf_counter() - now
            return
        rho = self.rho[match[0]] if len(match) and self.store is None else np.empty(self.frame_shape, dtype=self.rho.dtype)
        for b in range(self.batch):
            one = np.ascontiguousarray(x[:, b]).reshape(self.dim**2, -1)
            matrices(one, rho[b].reshape(self.dim, self.dim, -1))
        if len(match) and self.store is not None:
            self.store.write(int(match[0]), rho)
        self.save(frame.t, rho)
        self.seconds += time.perf_counter() - now

    def save(self, t: float, rho: Array) -> None:
        """Evaluate what is to be saved, on the state (batch, d, d, \\*cells) at a time."""
        if self.savers:
            view = dataset.snapshot(self.grid, self.dim, t, rho)
            for name, function in self.savers.items():
                self._saved[name].append(function(view))

    def _at_ends(self, diagonal: Array) -> Array:
        """Probability in the outermost cells of each end, from the diagonal (d, *cells)."""
        places = [(i, place) for i, axis in enumerate(self.grid.axes) for place in (0, axis.n - 1)]
        return np.array([float(np.take(diagonal, place, axis=i + 1).sum(dtype=float)) for i, place in places]) * self.grid.cell_volume

    def part(self, start: int, stop: int) -> tuple[dict[str, Array], dict[str, Any]]:
        """Outputs ``start <= k < stop`` as arrays, for a checkpoint."""
        kept = self._frames(start, stop)
        arrays = {"rho": self.rho[kept], "escaped": self.escaped[start:stop], **{f"diagnostic {k}": v[start:stop] for k, v in self.diagnostics.items()}}
        saved: dict[str, list[Any]] = {}
        for name, values in self._saved.items():
            saved[name] = [packed(values[k], f"saved {name} {k}", arrays) for k in range(start, stop)]
        return arrays, {"saved": saved, "applications": self.applications, "skipped": self.skipped}

    def size(self, start: int, stop: int) -> int:
        """Bytes of the fields among them."""
        return int(self.rho[self._frames(start, stop)].nbytes)

    def _frames(self, start: int, stop: int) -> slice:
        """Where the fields of these outputs are."""
        low, high = np.searchsorted(self.kept, self.times[start]), np.searchsorted(self.kept, self.times[stop - 1], side="right")
        return slice(int(low), int(high)) if stop > start else slice(0, 0)

    def put(self, start: int, stop: int, arrays: dict[str, Array], record: dict[str, Any]) -> None:
        """Put back what :meth:`part` gave; shapes of another run are refused with a ValueError."""
        kept = self._frames(start, stop)
        targets: list[tuple[Array, Any, str]] = [(self.rho, kept, "rho"), (self.escaped, slice(start, stop), "escaped")]
        targets += [(values, slice(start, stop), f"diagnostic {name}") for name, values in self.diagnostics.items()]
        for target, where, name in targets:
            if arrays[name].shape != target[where].shape or arrays[name].dtype != target.dtype:
                raise ValueError(f"{name}: {arrays[name].dtype} {arrays[name].shape}")
            target[where] = arrays[name]
        for name, values in self._saved.items():
            entries = record["saved"][name]
            if len(entries) != stop - start:
                raise ValueError(f"saved {name}: {len(entries)} values")
            values += [unpacked(entry, f"saved {name} {start + k}", arrays) for k, entry in enumerate(entries)]
        self.applications, self.skipped, self.count = int(record["applications"]), float(record["skipped"]), stop

    def columns(self) -> list[str]:
        """Names of the diagnostics of a line."""
        return ["t", *self.diagnostics]

    def row(self, k: int) -> list[float]:
        """Time and diagnostics of an output; of a batch the smallest eigenvalue and the largest of all else."""
        worst = {"min_eigenvalue": np.min}
        return [float(self.times[k]), *(float(worst.get(name, np.max)(values[k])) for name, values in self.diagnostics.items())]

    def saved(self, single: bool) -> dict[str, Any]:
        """Saved observables with a leading time dimension."""
        import xarray as xr

        out = {}
        for name, values in self._saved.items():
            arrays = [xr.DataArray(v) if not isinstance(v, xr.DataArray) else v for v in values]
            joined = xr.concat([a.drop_vars("t", errors="ignore") for a in arrays], dim="t")
            if single and "batch" in joined.dims:
                joined = joined.isel(batch=0, drop=True)
            joined.attrs.setdefault("long_name", name)
            joined.attrs.setdefault("units", "1")
            out[name] = joined.drop_vars([c for c in joined.coords if c not in joined.dims])
        return out


def packed(value: Any, name: str, arrays: dict[str, Array]) -> dict[str, Any]:
    """Put a saved observable into ``arrays``; returns its dimensions, coordinates and attributes (None for a plain number or array)."""
    import xarray as xr

    arrays[name] = np.asarray(value)
    if not isinstance(value, xr.DataArray):
        return {"dims": None}
    coords = [str(c) for c in value.coords if c in value.dims]
    for c in coords:
        arrays[f"{name} {c}"] = np.asarray(value[c].values)
    plain = lambda attrs: {str(k): v for k, v in attrs.items() if isinstance(v, str | int | float)}
    return {"dims": list(value.dims), "attrs": plain(value.attrs), "coords": {c: plain(value[c].attrs) for c in coords}}


def unpacked(entry: dict[str, Any], name: str, arrays: dict[str, Array]) -> Any:
    """Inverse of :func:`packed`."""
    import xarray as xr

    if entry["dims"] is None:
        return arrays[name]
    coords = {c: (c, arrays[f"{name} {c}"], attrs) for c, attrs in entry["coords"].items()}
    return xr.DataArray(arrays[name], dims=entry["dims"], coords=coords, attrs=entry["attrs"])


_PER_STATE = ("trace", "min_eigenvalue", "hermiticity_defect", "escaped_probability", "edge_probability", "grid_error", "end_probability")


def frame_times(times: Array, frames: Any, save: Any) -> Array:
    """Times at which full fields are kept."""
    if frames is None:
        return times if save is None else times[-1:]
    kept = numbers("frames", frames, float, "must be times out of t").reshape(-1)
    missing = [float(f) for f in kept if f not in times]
    if missing or len(kept) == 0:
        raise OptionError("frames", "must be times out of t", missing or "none", "Take them from the same array")
    return np.unique(kept)


def savers_of(save: Any, grid: Grid, model: Any) -> dict[str, Callable[..., Any]]:
    """Functions of a snapshot by name, out of what the user asked to save; those named by text are tried on a small state first."""
    if save is None:
        return {}
    from .observables import probe, read_observable, variable_name

    if isinstance(save, str):
        save = [save]
    if not isinstance(save, Mapping | list | tuple):
        raise OptionError("save", "must be a list of observables, or a dict of them by name", repr(save), "Write e.g. ['density', 'purity']")
    items = list(save.items()) if isinstance(save, Mapping) else [(variable_name(str(s)), s) for s in save]
    out: dict[str, Callable[..., Any]] = {}
    for name, what in items:
        if callable(what):
            out[str(name)] = what
            continue
        if not isinstance(what, str):
            raise OptionError("save", "must name an observable of .cq or be a callable", repr(what), "Write e.g. 'marginal q'")
        if name in out or variable_name(str(name)) != name or name in (*dataset.DIAGNOSTICS, *grid.names, "rho", "escaped"):
            raise OptionError("save", "needs one free name of letters, digits and _ for each", repr(name), "Write {'name': 'observable'}")
        out[str(name)] = read_observable(what, grid.names, model)
        out[str(name)](probe(grid, model.dim))
    return out
