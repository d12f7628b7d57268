"""Checkpoints of an ensemble: chunks are merged in order, so the merged sums and the number of the next chunk are all there is to keep.

Stored paths and arrivals, which grow, are written once, as the outputs of the chunks since the checkpoint before. Initial states made by
``gaussian`` or ``point`` with a constant quantum state are made again from their numbers, states given as arrays from these; others, and
functions of ``moments=``, must be given again.
"""

from __future__ import annotations

import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoint import Keeper, NoKeeper, Saved
from ..errors import CqpdeError, FileError, ModelError, OptionError
from ..initial import State, gaussian
from ..model import Model
from ..stored_model import fingerprint, grid_from, grid_record, model_again, model_record
from .plan import Part, Plan
from .statistics import Snapshot, Sums

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

#: Options of ``unravel`` that a checkpoint keeps as they are.
OPTIONS = ("trajectories", "seed", "method", "dt", "bias", "state", "store", "stored", "arrivals", "field", "check")


class Chunks:
    """The chunks that were merged so far, in order: what a keeper sees of them (:class:`cqpde.checkpoint.Records`)."""

    def __init__(self, plan: Plan, sizes: list[int]) -> None:
        self.plan, self.sizes, self.total, self.count = plan, sizes, len(sizes), 0
        self.merged: Part | None = None
        self.paths: list[tuple[Array, Array]] = []
        self._arrivals: list[int] = [0]  # number of arrival records after so many chunks
        self._lines: list[list[float]] = []
        self.began = time.perf_counter()

    def add(self, part: Part) -> None:
        """Merge the next chunk."""
        if part.paths is not None:
            self.paths.append(part.paths)
            part.paths = None
        if self.merged is None:
            self.merged = part
        else:
            for mine, its in zip(self.merged.snapshots, part.snapshots, strict=True):
                mine.merge(its)
            self.merged.arrivals += part.arrivals
        self._note()

    def _note(self) -> None:
        assert self.merged is not None
        self.count += 1
        self._arrivals.append(len(self.merged.arrivals))
        last = self.merged.snapshots[-1]
        self._lines.append([float(last.count), float(last.purity.mean[0]), time.perf_counter() - self.began])

    def result(self) -> Part:
        """All chunks in one."""
        assert self.merged is not None
        if self.paths:
            self.merged.paths = (np.concatenate([p[0] for p in self.paths]), np.concatenate([p[1] for p in self.paths]))
        return self.merged

    # -- Records -------------------------------------------------------------------------------------------------------
    def columns(self) -> list[str]:
        """Names of the diagnostics of a line."""
        return ["trajectories", "purity", "wall_seconds"]

    def row(self, k: int) -> list[float]:
        """Diagnostics after a chunk."""
        return self._lines[k]

    def part(self, start: int, stop: int) -> tuple[dict[str, Array], dict[str, Any]]:
        """Paths and arrivals of the chunks ``start <= k < stop``."""
        assert self.merged is not None
        arrays: dict[str, Array] = {}
        for k, (z, x) in enumerate(self.paths[start:stop]):
            arrays[f"path z {k}"], arrays[f"path x {k}"] = z, x
        rows = self.merged.arrivals[self._arrivals[start] : self._arrivals[stop]]
        for k, (_, number, when, state) in enumerate(rows):
            arrays[f"arrival row {k}"], arrays[f"arrival time {k}"], arrays[f"arrival state {k}"] = number, when, state
        marks = [n - self._arrivals[start] for n in self._arrivals[start + 1 : stop + 1]]
        return arrays, {"paths": len(self.paths[start:stop]), "faces": [int(face) for face, *_ in rows], "marks": marks, "lines": self._lines[start:stop]}

    def size(self, start: int, stop: int) -> int:
        """Bytes of the paths among them."""
        return sum(z.nbytes + x.nbytes for z, x in self.paths[start:stop])

    def put(self, start: int, stop: int, arrays: dict[str, Array], record: dict[str, Any]) -> None:
        """Put back what :meth:`part` gave."""
        self.merged = self.merged or Part([])
        n, d2 = self.plan.rho0.grid.ndim, self.plan.model.dim**2
        for k in range(record["paths"]):
            z, x = arrays[f"path z {k}"], arrays[f"path x {k}"]
            if z.ndim != 3 or z.shape[2] != n or x.shape != (*z.shape[:2], d2):
                raise ValueError(f"paths of shape {z.shape}, {x.shape}")
            self.paths.append((z, x))
        for k, face in enumerate(record["faces"]):
            number, when, state = (arrays[f"arrival {what} {k}"] for what in ("row", "time", "state"))
            if not number.ndim == when.ndim == 1 or state.shape != (len(when), n + d2) or not 0 <= face < 2 * n:
                raise ValueError(f"arrivals of shape {state.shape}")
            self.merged.arrivals.append((face, number, when, state))
        if len(record["marks"]) != stop - start or len(record["lines"]) != stop - start:
            raise ValueError("marks of other chunks")
        base = self._arrivals[-1]
        self._arrivals += [base + int(m) for m in record["marks"]]
        self._lines += [[float(v) for v in line] for line in record["lines"]]
        self.began -= self._lines[-1][-1] - (self._lines[start - 1][-1] if start else 0.0)
        self.count = stop

    # -- the merged sums -----------------------------------------------------------------------------------------------
    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """The merged sums, each stacked over the times."""
        assert self.merged is not None
        snapshots = self.merged.snapshots
        arrays = {name: np.stack([get(s) for s in snapshots]) for name, get in _leaves(snapshots[0]).items()}
        return arrays, {"t": float(snapshots[0].count), "count": snapshots[0].count}

    def restore(self, saved: Saved, template: Snapshot) -> None:
        """Put back what :meth:`state` gave, of the shapes of ``template``."""
        times = len(self.plan.times)
        count = saved.count("count", sum(self.sizes[: self.count]), sum(self.sizes[: self.count]))
        arrays = {}
        for name, get in _leaves(template).items():
            like, found = get(template), saved.arrays.get(name)
            if found is None or found.shape != (times, *like.shape) or found.dtype != like.dtype:
                raise saved.refused(name, f"{like.dtype} of shape {(times, *like.shape)}", "nothing" if found is None else f"{found.dtype} {found.shape}")
            arrays[name] = found
        assert self.merged is not None
        self.merged.snapshots = [_rebuilt(template, {name: a[j].copy() for name, a in arrays.items()}, count) for j in range(times)]


def _leaves(snapshot: Snapshot) -> dict[str, Any]:
    """Functions that take the arrays out of a snapshot, by name."""
    out: dict[str, Any] = {}
    for f in fields(Snapshot):
        value = getattr(snapshot, f.name)
        if isinstance(value, Sums):
            for part in ("mean", "deviations"):
                out[f"{f.name} {part}"] = lambda s, a=f.name, b=part: getattr(getattr(s, a), b)
        elif isinstance(value, list):
            for i in range(len(value)):
                out[f"{f.name} {i}"] = lambda s, a=f.name, i=i: getattr(s, a)[i]
        elif isinstance(value, np.ndarray):
            out[f.name] = lambda s, a=f.name: getattr(s, a)
    return out


def _rebuilt(template: Snapshot, arrays: dict[str, Array], count: int) -> Snapshot:
    values: dict[str, Any] = {}
    for f in fields(Snapshot):
        like = getattr(template, f.name)
        if isinstance(like, Sums):
            values[f.name] = Sums(arrays[f"{f.name} mean"], arrays[f"{f.name} deviations"])
        elif isinstance(like, list):
            values[f.name] = [arrays[f"{f.name} {i}"] for i in range(len(like))]
        else:
            values[f.name] = arrays.get(f.name, count)
    return Snapshot(**values)


# -- the run -----------------------------------------------------------------------------------------------------------
def begin(keeper: NoKeeper, plan: Plan, options: dict[str, Any]) -> None:
    """Start to keep an ensemble."""
    if isinstance(keeper, Keeper):
        width = (plan.rho0.grid.ndim + plan.model.dim**2) * 8.0
        paths = plan.stored * width * (sum(plan.steps) // plan.store + 1) if plan.store else 0.0
        keeper.begin(lambda: _record(plan, options), 2.0 * plan.rho0.rho.nbytes + paths + 1e6)


def _record(plan: Plan, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Array]]:
    rho0, times = plan.rho0, plan.times
    arrays = {"times": times, "rho": rho0.rho}
    record: dict[str, Any] = {
        "kind": "ensemble", "grid": grid_record(rho0.grid), "model": model_record(plan.model, arrays), "moments": list(plan.functions),
        "fingerprint": fingerprint(plan.model, rho0.grid, float(times[0]), float(times[-1])), "points": _points(plan),
        "state": {"made": rho0.made, "array": rho0.sampler is None, "note": rho0.note, "normalisation": float(rho0.normalisation), "slack": float(rho0.slack)},
        "options": {name: (v.item() if isinstance(v, np.generic) else v) for name, v in options.items()},
    }  # fmt: skip
    return record, arrays


def _points(plan: Plan) -> list[float]:
    """A few initial points, to tell another initial state."""
    return [float(v) for v in plan.sampler(np.random.default_rng(2), 8)[0].reshape(-1)]


def resume_ensemble(
    keeper: NoKeeper, model: Model | None, rho0: State | None, moments: Any, threads: int | None, progress: bool | None, comm: Any = None
) -> xr.Dataset:
    """Go on with an ensemble from its last checkpoint; see :func:`cqpde.resume`."""
    from .run import unravel

    record, arrays = keeper.record or {}, keeper.initial
    try:
        grid, times, options = grid_from(record["grid"]), arrays["times"], dict(record["options"])
        made, names, points = record["state"], [str(n) for n in record["moments"]], list(map(float, record["points"]))
        if set(options) != set(OPTIONS) or times.ndim != 1 or arrays["rho"].shape[2:] != grid.shape:
            raise ValueError("options, times or shapes of another run")
        stored = _state(made, grid, arrays["rho"]) if rho0 is None else rho0
    except (KeyError, TypeError, ValueError, AttributeError, CqpdeError) as error:
        raise FileError(str(keeper.folder), "must hold an ensemble", str(error)[:200], "It is damaged") from None
    if stored is None:
        raise OptionError(
            "rho0", "was made with Python functions, which a checkpoint does not hold", "None", f"Write cqpde.resume({str(keeper.folder)!r}, rho0=the same state)"
        )
    if names != list(moments or {}):
        raise OptionError("moments", "must be the functions that the ensemble was begun with", ", ".join(moments or {}) or "none", f"Give: {', '.join(names) or 'none'}")
    again = model_again(keeper, model)
    if again.coordinates != grid.names or fingerprint(again, grid, float(times[0]), float(times[-1])) != record.get("fingerprint"):
        raise ModelError("model", "must be the one that the ensemble was begun with", "other values of its coefficients", "Give the same model")
    keeper.check = lambda plan: _require_same(plan, points, arrays["rho"])
    return unravel(again, stored, times, moments=moments, threads=threads, progress=progress, checkpoint=keeper, comm=comm, **options)


def _state(made: dict[str, Any], grid: Any, rho: Array) -> State | None:
    """The initial state from its numbers or its array; None if it was made with Python functions."""
    if made["array"]:
        return State(grid, rho, None, float(made["normalisation"]), str(made["note"]), slack=float(made["slack"]))
    if made["made"] is None:
        return None
    re, im = (np.array(made["made"][part]) for part in ("re", "im"))
    again = gaussian(grid, made["made"]["mean"], None, re + 1j * im, cov=made["made"]["cov"])
    return State(again.grid, again.held, again.recipe, again.normalisation, str(made["note"]), again.sampler)


def _require_same(plan: Plan, points: list[float], rho: Array) -> None:
    """Refuse another initial state than the one of the checkpoint."""
    if _points(plan) != points or not np.array_equal(plan.rho0.rho, rho):
        raise OptionError("rho0", "must be the state that the ensemble was begun with", "another one", "Give the same state")
