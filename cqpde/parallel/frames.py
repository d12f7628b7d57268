"""Outputs of a run on slabs: what belongs to the whole of a frame, and how the first process gets its fields."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..components import min_eigenvalues, relative_eigenvalue, to_matrix
from ..errors import SolverError
from ..integrate.evolve import Frame, Progress
from ..kernels.diagnostics import survey
from ..recorder import Recorder
from ..runs import turned
from .slabs import Slabs, pieces

Array = np.ndarray


@dataclass(frozen=True)
class SlabFrame:
    """One output: this process's cells (components, batch, \\*cells) along the axis that is cut, and what belongs to the whole of it."""

    index: int
    t: float
    x: Array
    axis: int
    escaped: Array
    progress: Progress
    trace: Array
    smallest: Array
    ends: Array


def whole_frame(slabs: Slabs, dim: int, axis: int, frame: Frame) -> SlabFrame:
    """What all processes find in a frame together; ``frame`` has this process's cells and what escaped from them."""
    batch, volume = frame.escaped.shape[0], slabs.grid.cell_volume
    x = frame.x.reshape(dim**2, batch, *slabs.shape(axis))
    box, gone = volume * float(np.prod(slabs.grid.shape)), slabs.total(frame.escaped)
    total, largest, least = np.zeros(batch), np.full(batch, -np.inf), np.full(batch, np.inf)
    for part in pieces(x):
        for b in range(batch):
            one = np.ascontiguousarray(part[:, b])
            of_trace, high, low = survey(one, dim)
            low = float(min_eigenvalues(one).min()) if dim > 2 else low
            total[b], largest[b], least[b] = total[b] + of_trace, np.maximum(largest[b], high), np.minimum(least[b], low)
    trace, smallest = slabs.total(total) * volume, np.zeros(batch)
    for b in range(batch):
        smallest[b] = relative_eigenvalue(-slabs.largest(-least[b]), slabs.largest(largest[b]), trace[b] + float(gone[b, :, :dim].sum()), box)
    if not np.all(np.isfinite(trace)) or not np.all(np.isfinite(smallest)):
        found = f"NaN or infinity at t = {frame.t:.6g}, step {frame.progress.steps}"
        raise SolverError("rho", "must stay finite", found, "Check the coefficients near the ends of the box")
    ends = slabs.at_ends(x, axis, dim, np.asarray).T
    return SlabFrame(frame.index, frame.t, x, axis, gone, replace(frame.progress), trace, smallest, ends)


def record(recorder: Recorder, frame: SlabFrame, slabs: Slabs, basis: Array | None, seconds: float) -> None:
    """Record a frame: diagnostics on every process, fields on the first one, which gets them one slab after the other."""
    k, d, p = frame.index, recorder.diagnostics, frame.progress
    recorder.count = k + 1
    escaped = turned(np.moveaxis(frame.escaped, -1, 0), basis, True)
    recorder.escaped[k] = np.moveaxis(to_matrix(escaped), (0, 1), (-2, -1))
    d["hermiticity_defect"][k] = 0.0
    d["escaped_probability"][k] = np.real(np.einsum("bfaa->b", recorder.escaped[k]))
    is_open = [e.kind == "open" for a in slabs.grid.axes for e in a.ends]
    d["trace"][k], d["min_eigenvalue"][k], d["end_probability"][k] = frame.trace, frame.smallest, frame.ends
    d["edge_probability"][k] = np.maximum(frame.ends[:, is_open].sum(axis=1), p.edge)
    known: dict[str, Any] = {
        "time_error": p.time_error + p.skipped, "grid_error": np.nan if p.tail is None else p.tail, "dt": p.dt, "steps": p.steps, "steps_rejected": p.rejected, "wall_seconds": seconds,
    }  # fmt: skip
    for name, value in known.items():
        d[name][k] = value
    recorder.applications, recorder.skipped = p.applications, p.skipped
    match, store = np.flatnonzero(recorder.kept == frame.t), recorder.store
    if store is not None and len(match):
        x = frame.x if frame.axis == store.axis else slabs.redistribute(frame.x, frame.axis, store.axis)
        mine = np.moveaxis(to_matrix(turned(x, basis, True)), 2, 0)
        slabs.agree(lambda: store.write(int(match[0]), mine, slabs.cells(store.axis)[0]))
    if not slabs.comm.bcast((len(match) > 0 and store is None) or bool(recorder.savers)):
        return
    in_memory = len(match) > 0 and store is None and slabs.comm.rank == 0
    rho = recorder.rho[match[0]] if in_memory else np.empty(recorder.frame_shape if slabs.comm.rank == 0 else 0, dtype=recorder.rho.dtype)
    for rank, part in slabs.received(frame.x, frame.axis):
        rho[slabs.where(frame.axis, rank)] = np.moveaxis(to_matrix(turned(part, basis, True)), 2, 0)
    slabs.together(lambda: recorder.save(frame.t, rho))
