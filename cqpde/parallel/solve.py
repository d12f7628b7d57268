"""A run on all processes of a communicator; the first process gets the fields."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
from threadpoolctl import threadpool_limits

from ..channels.guards import relaxation_step
from ..choice import Route
from ..components import to_components
from ..errors import OptionError, RouteError
from ..fv.assemble import layout
from ..integrate.evolve import evolve
from ..recorder import Recorder
from ..runs import (
    MOST_DRIFT,
    POSITIVITY,
    UNPHYSICAL,
    Problem,
    Run,
    blamed,
    fv_run,
    progress_bar,
    require_positive,
    require_trace,
    turned,
    watched,
)
from .composition import SlabComposition
from .control import SlabKeeper, SlabMeasures, SlabSplit
from .finite_volumes import SlabPropagator
from .fixed_steps import fixed_steps
from .frames import SlabFrame, record, whole_frame
from .slabs import Slabs

Array = np.ndarray


def require_slabs(route: Route) -> None:
    """Refuse what does not run on many processes."""
    if route.method == "split" and route.transport != "spectral":
        raise OptionError("comm", "many processes share runs without positivity='exact', or of method='fv', which is exactly positive", f"{route.method}: {route.reason}", "Leave positivity out")


def run_on_slabs(problem: Problem, route: Route, comm: Any, savers: dict[str, Callable[..., Any]], fallback: bool) -> Run:
    """Run on all processes of ``comm`` (a collective call); the fields are in the Run of the first one.

    With ``fallback`` a split run that turns out unsuitable is done again by finite volumes.
    """
    slabs = Slabs(comm, problem.grid)
    with _share_of_threads(slabs):
        return _with_fallback(problem, route, comm, slabs, savers, fallback)


@contextlib.contextmanager
def _share_of_threads(slabs: Slabs) -> Iterator[None]:
    """Divide the cores of a machine between its processes, unless NUMBA_NUM_THREADS says how many each has; matrix products get as many."""
    before = numba.get_num_threads()
    if "NUMBA_NUM_THREADS" not in os.environ:
        numba.set_num_threads(max(1, before // slabs.here))
    try:
        with threadpool_limits(numba.get_num_threads(), user_api="blas"):
            yield
    finally:
        numba.set_num_threads(before)


def _with_fallback(problem: Problem, route: Route, comm: Any, slabs: Slabs, savers: dict[str, Callable[..., Any]], fallback: bool) -> Run:
    left = comm.bcast(problem.keeper.left) if fallback else ""
    if not left:
        try:
            return blamed(problem, lambda: _run(problem, route, slabs, savers))
        except RouteError as reason:  # on all processes alike
            if not fallback:
                raise
            slabs.free()
            left = f"the split route was tried and left: {reason}"
            problem.keeper.leave(left)
    return blamed(problem, lambda: _run(problem, Route("fv", left, "limited"), slabs, savers))


def _run(problem: Problem, route: Route, slabs: Slabs, savers: dict[str, Callable[..., Any]]) -> Run:
    began, first = time.perf_counter(), slabs.comm.rank == 0
    recorder = Recorder(problem.grid, problem.model.dim, len(problem.states), problem.times, problem.kept if first or problem.store else np.array([]), savers if first else {}, problem.dtype, problem.store)
    report, close = progress_bar(problem) if first else ((lambda now: None), (lambda: None))
    frames, basis, least, finish = (_finite_volumes if route.method == "fv" else _split)(problem, route, slabs, report)
    seconds = {"compile": 0.0, "setup": time.perf_counter() - began}
    began = time.perf_counter() - problem.keeper.before
    slabs.together(lambda: problem.keeper.attach(recorder))
    for frame in frames:
        record(recorder, frame, slabs, basis, time.perf_counter() - began)
        slabs.together(lambda: _look(problem, recorder, frame, least))  # noqa: B023 - called at once; the first one knows outputs before a resumed state
    close()
    seconds["steps"] = time.perf_counter() - began
    run = finish(recorder, seconds)
    slabs.free()
    return run


def _look(problem: Problem, recorder: Recorder, frame: SlabFrame, least: float | None) -> None:
    require_trace(recorder, frame.index, frame.t, MOST_DRIFT[problem.precision])
    problem.keeper.recorded()
    require_positive(problem, recorder, frame.index, frame.t, least)


def _split(problem: Problem, route: Route, slabs: Slabs, report: Callable[[float], None]) -> Any:
    """Frames of the split route; with the basis that they are in, the smallest eigenvalue allowed, and what makes the Run."""
    structure, model, times = route.structure, problem.model, problem.times
    assert structure is not None
    accuracy = float(min(1e-2 * problem.tol, 1e-6) / (times[-1] - times[0]))
    composition = SlabComposition(model, problem.grid, structure, float(times[0]), accuracy, dtype=problem.dtype, slabs=slabs)
    field = slabs.field(_start(problem, structure.basis, slabs, composition.first), composition.first)
    if problem.dt is not None:
        frames = watched(fixed_steps(composition, field, times, problem.dt, report, problem.keeper, problem.skip_below), np.inf)
        words = f"symmetric composition of order 2, fixed steps of at most {problem.dt:g}"
    else:
        stepper, size = SlabSplit(composition, field), field.x.shape[:2]
        keeper = SlabKeeper(problem.keeper, slabs, field.axis, *size)
        measures = SlabMeasures(slabs.mine(field.axis), slabs)
        step = min(problem.longest, relaxation_step(model, problem.grid, structure, float(times[0])))
        plain = evolve(stepper, field.x.reshape(size[0], -1).copy(), size[1], times, problem.jumps, problem.tol, step, report, keeper, measures)
        frames = (whole_frame(slabs, model.dim, stepper.cut, f) for f in watched(stepper.looked_at(plain)))
        words = "exact (all parts commute)" if composition.exact else "symmetric composition, extrapolated to order 4, error controlled"

    def finish(recorder: Recorder, seconds: dict[str, float]) -> Run:
        left_out = recorder.skipped + sum(float(np.nanmax(recorder.diagnostics[k])) for k in ("grid_error", "edge_probability"))
        how = "one field in shared memory" if slabs.shared else _exchanged(slabs)
        return Run(
            route, recorder, transport="spectral", positivity="to the size of the errors", integration=f"{words}, {slabs.comm.size} processes, {how}",
            exactly_positive=False, linear=True, seconds=seconds, tolerated=10.0 * (problem.tol + left_out), skipped=recorder.skipped,
        )  # fmt: skip

    return frames, structure.basis, UNPHYSICAL, finish


def _exchanged(slabs: Slabs) -> str:
    return f"{float(slabs.total(slabs.sent)) / 1e6:.4g} MB exchanged"


def _finite_volumes(problem: Problem, route: Route, slabs: Slabs, report: Callable[[float], None]) -> Any:
    """The same of the finite-volume route."""
    plan = layout(problem.model, problem.grid, problem.probes)
    if route.transport != "limited" and not plan.drifting:
        raise OptionError("transport", "has no effect: no axis drifts without noise", repr(route.transport), "Leave it out")
    propagator = SlabPropagator(problem.model, plan, route.transport, float(problem.times[0]), slabs)
    x = _start(problem, None, slabs, propagator.cut)
    keeper = SlabKeeper(problem.keeper, slabs, propagator.cut, *x.shape[:2])
    measures = SlabMeasures(slabs.mine(propagator.cut), slabs)
    plain = evolve(propagator, x.reshape(x.shape[0], -1), x.shape[1], problem.times, problem.jumps, problem.tol, problem.longest, report, keeper, measures)
    frames = (whole_frame(slabs, problem.model.dim, propagator.cut, f) for f in plain)
    positive = route.transport != "linear" or not plan.drifting

    def finish(recorder: Recorder, seconds: dict[str, float]) -> Run:
        return fv_run(route, recorder, propagator, seconds, f", {slabs.comm.size} processes, {_exchanged(slabs)}")

    return frames, None, POSITIVITY if positive else None, finish


def _start(problem: Problem, basis: Array | None, slabs: Slabs, axis: int) -> Array:
    """This process's part of the initial states, in the basis of the composition."""
    first, end = slabs.cells(axis)
    parts = [to_components(np.ascontiguousarray(state.part(axis, first, end - first)), problem.dtype) for state in problem.states]
    return turned(np.ascontiguousarray(np.stack(parts, axis=1)), basis, False)
