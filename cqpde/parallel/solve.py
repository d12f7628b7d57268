"""A run of the split route by equal steps on all processes of a communicator; the first process gets the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..channels.parts import Structure
from ..checkpoint import Keeper, NoKeeper
from ..choice import Route
from ..components import to_components, to_matrix
from ..errors import OptionError, RouteError
from ..recorder import Recorder
from ..runs import UNPHYSICAL, Problem, Run, turned
from .composition import SlabComposition
from .fixed_steps import SlabFrame, fixed_steps
from .slabs import Slabs, together

Array = np.ndarray


def require_slabs(dt: float | None, route: Route, save: Any) -> None:
    """Refuse what does not run on many processes."""
    if route.transport != "spectral":
        raise OptionError("comm", "many processes share a run of the split route without exact positivity", f"{route.method}: {route.reason}", "Run it on one process")
    if dt is None:
        raise OptionError("comm", "many processes take equal steps", "no dt", "Give dt=, e.g. a hundredth of the time")
    if save is not None:
        raise OptionError("save", "is for runs of one process", repr(save), "Keep frames, and take observables of the result")


def run_on_slabs(problem: Problem, route: Route, comm: Any) -> Run | None:
    """Run on all processes of ``comm`` (a collective call); returns the run on the first process, None on the others."""
    began = time.perf_counter()
    structure = route.structure
    assert structure is not None and problem.dt is not None
    slabs = Slabs(comm, problem.grid)
    composition = _composition(problem, structure, slabs)
    field = slabs.field(_start(problem, structure, slabs, composition.first), composition.first)
    dim, first = problem.model.dim, comm.rank == 0
    recorder = Recorder(problem.grid, dim, len(problem.states), problem.times, problem.kept if first else np.array([]), {})
    seconds = {"compile": 0.0, "setup": time.perf_counter() - began}
    began = time.perf_counter() - problem.keeper.before
    slabs.together(lambda: problem.keeper.attach(recorder))
    for frame in fixed_steps(composition, field, problem.times, problem.dt, lambda now: None, problem.keeper):
        recorder.count = frame.index + 1
        _record(recorder, frame, structure, dim, began)
        if frame.index in [int(np.flatnonzero(problem.times == kept)[0]) for kept in problem.kept]:
            _gather(recorder, frame, structure, dim)
        problem.keeper.recorded()
        lowest = float(frame.smallest.min())
        if lowest < UNPHYSICAL and problem.mode == "error":
            raise RouteError("rho", "must stay positive to the size of the errors", f"eigenvalue {lowest:.3g} of the largest trace at t = {frame.t:.6g}", "Use more cells")
    seconds["steps"] = time.perf_counter() - began
    moved = float(slabs.total(field.moved))
    slabs.free()
    if not first:
        return None
    return Run(
        route, recorder, transport="spectral", positivity="to the size of the errors",
        integration=f"symmetric composition of order 2, fixed steps of at most {problem.dt:g}, {comm.size} processes, {_exchange(slabs, moved)}",
        exactly_positive=False, linear=True, seconds=seconds,
        tolerated=10.0 * (problem.tol + sum(float(np.nanmax(recorder.diagnostics[k])) for k in ("grid_error", "edge_probability"))),
    )  # fmt: skip


def _exchange(slabs: Slabs, moved: float) -> str:
    return "one field in shared memory" if slabs.shared else f"{moved / 2**30:.3g} GiB exchanged"


class Follower(NoKeeper):
    """What the other processes have in place of the keeper of the first one."""

    def __init__(self, record: dict[str, Any] | None = None, initial: dict[str, Array] | None = None, folder: Any = None) -> None:
        self.record, self.initial, self.folder, self.source = record, initial or {}, folder, (record or {}).get("source", {})
        self.resumes, self.keeps = record is not None, True


def require_communicator(comm: Any) -> bool:
    """Whether a communicator has several processes; refuses what is none."""
    if comm is None:
        return False
    if not all(hasattr(comm, name) for name in ("rank", "size", "bcast", "Alltoallw")):
        raise OptionError("comm", "must be an mpi4py communicator", repr(comm), "Pass mpi4py.MPI.COMM_WORLD")
    return bool(comm.size > 1)


def shared_keeper(comm: Any, make: Callable[[], NoKeeper]) -> NoKeeper:
    """The keeper of a shared run: made on the first process, which alone writes; the others follow it."""
    mine = NoKeeper()

    def first() -> bool:
        nonlocal mine
        mine = make()
        return mine.keeps

    keeps = together(comm, first)
    return Follower() if keeps and comm.rank else mine


def shared_reopen(comm: Any, keeper: Keeper) -> NoKeeper:
    """The keeper of a run that is resumed, its record and arrays read by the first process."""

    def first() -> tuple[Any, Any]:
        keeper.reopen()
        return keeper.record, keeper.initial

    record, initial = together(comm, first)
    return Follower(record, initial, keeper.folder) if comm.rank else keeper


def _composition(problem: Problem, structure: Structure, slabs: Slabs) -> SlabComposition:
    accuracy = float(min(1e-2 * problem.tol, 1e-6) / (problem.times[-1] - problem.times[0]))
    return SlabComposition(problem.model, problem.grid, structure, float(problem.times[0]), accuracy, slabs=slabs)


def _start(problem: Problem, structure: Structure, slabs: Slabs, axis: int) -> Array:
    """This process's part of the initial states, in the basis of the composition."""
    mine = slabs.where(axis)
    parts = [to_components(np.ascontiguousarray(state.rho[mine])) for state in problem.states]
    return turned(np.ascontiguousarray(np.stack(parts, axis=1)), structure.basis, False)


def _record(recorder: Recorder, frame: SlabFrame, structure: Structure, dim: int, began: float) -> None:
    k, d, p = frame.index, recorder.diagnostics, frame.progress
    escaped = np.moveaxis(turned(np.moveaxis(frame.escaped, -1, 0), structure.basis, True), 0, -1)
    recorder.escaped[k] = np.moveaxis(to_matrix(np.moveaxis(escaped, -1, 0)), (0, 1), (-2, -1))
    d["hermiticity_defect"][k] = 0.0
    d["escaped_probability"][k] = np.real(np.einsum("bfaa->b", recorder.escaped[k]))
    is_open = [e.kind == "open" for a in recorder.grid.axes for e in a.ends]
    d["trace"][k], d["min_eigenvalue"][k], d["end_probability"][k] = frame.trace, frame.smallest, frame.ends
    d["edge_probability"][k] = np.maximum(frame.ends[:, is_open].sum(axis=1), p.edge)
    for name, value in (
        ("time_error", p.time_error), ("grid_error", p.tail), ("dt", p.dt), ("steps", p.steps), ("steps_rejected", 0), ("wall_seconds", time.perf_counter() - began),
    ):  # fmt: skip
        d[name][k] = value
    recorder.applications = p.applications


def _gather(recorder: Recorder, frame: SlabFrame, structure: Structure, dim: int) -> None:
    """Bring a frame to the first process, one slab after the other."""
    field, slabs = frame.field, frame.field.slabs
    for rank, part in slabs.received(field.x, field.axis):
        target = recorder.rho[int(np.flatnonzero(recorder.kept == frame.t)[0])]
        target[slabs.where(field.axis, rank)] = np.moveaxis(to_matrix(turned(part, structure.basis, True)), 2, 0)
