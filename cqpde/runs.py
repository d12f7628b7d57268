"""One run of a route: set-up, time stepping, diagnostics; what ``solve`` asks for and what it gets back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .blame import likely_term
from .channels.compose import Composition, Known, remembered, turn
from .channels.guards import OpenEnds, cells_for_coefficients, relaxation_step
from .channels.parts import Structure
from .channels.positive import PositiveComposition
from .channels.proposal import propose
from .channels.resolution import Start, resample_to, settle
from .channels.shifts import ladder
from .checkpoint import NoKeeper
from .choice import Route
from .components import to_components, to_matrix
from .errors import NotFinite, OptionError, RouteError, SolverError
from .field_store import FieldStore
from .fv.assemble import layout
from .grid import Grid
from .initial import State
from .integrate.evolve import Frame, Propagator, evolve
from .integrate.extrapolate import SplitRun
from .integrate.fixed_steps import fixed_steps
from .integrate.whole_steps import run_whole_steps
from .kernels.warm import warm
from .model import Model
from .recorder import Recorder
from .timescale import sampler

Array = np.ndarray

#: A result below this smallest eigenvalue (relative to the largest trace) is not positive and not returned.
POSITIVITY = -1e-10

#: Grids of fewer cells than this have their coefficients and flows kept with the model, for its next run.
REMEMBERED = 1 << 14

#: Where positivity holds to the size of the errors: below this the result is not returned.
UNPHYSICAL = -1e-2

#: Numbers of a state.
PRECISIONS = {"double": np.float64, "single": np.float32}

#: Drift of trace plus escaped probability beyond which a result is not returned, by precision.
MOST_DRIFT = {"double": 1e-9, "single": 1e-4}

#: Probability at open ends, and content of the highest modes, beyond which the split route is not the one for a run.
MOST_EDGE, MOST_TAIL = 1e-3, 3e-2


@dataclass(frozen=True)
class Problem:
    """Model, grid, states and options of a run, checked."""

    model: Model
    grid: Grid
    states: list[State]
    times: Array
    probes: tuple[float, ...]
    tol: float
    longest: float
    jumps: tuple[float, ...]
    mode: str
    progress: bool | None
    kept: Array
    dt: float | None = None
    keeper: NoKeeper = field(default_factory=NoKeeper)
    store: FieldStore | None = None
    precision: str = "double"
    skip_below: float = 0.0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers of a state."""
        return np.dtype(PRECISIONS[self.precision])

    @property
    def state_bytes(self) -> float:
        """Bytes of all states of the batch at one time, d^2 real numbers per cell."""
        return self.dtype.itemsize * float(np.prod(self.grid.shape)) * self.model.dim**2 * len(self.states)

    def components(self) -> Array:
        """The initial states, (d^2, batch, *cells)."""
        if len(self.states) == 1 and self.precision == "double":
            return self.states[0].components[:, None]
        x = np.empty((self.model.dim**2, len(self.states), *self.grid.shape), dtype=self.dtype)
        for b, state in enumerate(self.states):
            for first, part in state.parts():
                x[:, b, first : first + part.shape[2]] = to_components(part, self.dtype)
        return x

    def stops(self) -> Array:
        """Outputs and jumps of the coefficients: steps end there."""
        close = 1e-9 * (self.times[-1] - self.times[0])  # a jump at an output is that output
        inside = [t for t in self.jumps if np.min(np.abs(self.times - t)) > close]
        return np.unique(np.concatenate([self.times, inside]))

    def nearest(self, structure: Structure, step: float = float("inf")) -> str:
        """The nearest grid on which exactly positive channels meet the tolerance (known to be met by ``step``), in words."""
        return propose(self.model, self.grid, structure, self.components(), self.stops(), self.probes, self.tol, step)


@dataclass
class Run:
    """A finished run: the route that it took, what was recorded, and its properties."""

    route: Route
    recorder: Recorder
    transport: str
    positivity: str
    integration: str
    exactly_positive: bool
    linear: bool
    seconds: dict[str, float]
    cells: str = "as given"
    peclet: float = 0.0
    tolerated: float = 0.0
    skipped: float = 0.0

    @property
    def resolved(self) -> bool:
        """Whether the grid error was estimated during the run, from the highest modes."""
        return self.transport in ("spectral", "shift", "none")


def run_route(
    problem: Problem, route: Route, x: Array, start: Start | None, savers: dict[str, Callable[..., Any]], fallback: bool
) -> Run:
    """Run a route (:func:`_run`)."""
    return blamed(problem, lambda: _run(problem, route, x, start, savers, fallback))


def blamed(problem: Problem, run: Callable[[], Run]) -> Run:
    """Run; where a state becomes non-finite, the error names the likely term."""
    try:
        return run()
    except NotFinite as bad:
        before = float(problem.times[max(0, int(np.searchsorted(problem.times, bad.t)) - 1)])
        why = likely_term(problem.model, problem.grid, before, bad.t)
        raise NotFinite(bad.argument, bad.rule, f"{bad.found}; likely term: {why}", bad.remedy, bad.t) from None


def _run(problem: Problem, route: Route, x: Array, start: Start | None, savers: dict[str, Callable[..., Any]], fallback: bool) -> Run:
    """Run a route; with ``fallback`` a split run that turns out unsuitable is done again by finite volumes.

    Parameters
    ----------
    x : array (d^2, batch, *cells)
        The initial states.
    start : Start or None
        The same on the cells that carry them (for the spectral transport of ``split``).
    """
    if problem.keeper.left and fallback:
        return _run_fv(problem, Route("fv", problem.keeper.left, "limited"), x, start, savers)
    try:
        return (_run_fv if route.method == "fv" else _run_positive if route.transport != "spectral" else _run_spectral)(
            problem, route, x, start, savers
        )
    except RouteError as reason:
        if not fallback:
            raise
        why = f"the split route was tried and left: {reason}"
        problem.keeper.leave(why)
        return _run_fv(problem, Route("fv", why, "limited"), x, start, savers)


def _run_fv(problem: Problem, route: Route, x: Array, start: Start | None, savers: dict[str, Any]) -> Run:
    began = time.perf_counter()
    plan = layout(problem.model, problem.grid, problem.probes)
    if route.transport != "limited" and not plan.drifting:
        raise OptionError("transport", "has no effect: no axis drifts without noise", repr(route.transport), "Leave it out")
    seconds = {"compile": warm("fv", x.size)}
    propagator = Propagator(problem.model, problem.grid, plan, route.transport, float(problem.times[0]))
    seconds["setup"] = time.perf_counter() - began - seconds["compile"]
    flat = x.reshape(x.shape[0], -1)
    report, close = progress_bar(problem)
    frames = evolve(propagator, flat, x.shape[1], problem.times, problem.jumps, problem.tol, problem.longest, report, problem.keeper)
    positive = route.transport != "linear" or not plan.drifting
    recorder = _record(problem, frames, savers, POSITIVITY if positive else None, seconds)
    close()
    return fv_run(route, recorder, propagator, seconds)


def fv_run(route: Route, recorder: Recorder, propagator: Propagator, seconds: dict[str, float], where: str = "") -> Run:
    """A finished run of the finite-volume route."""
    drifting = propagator.plan.drifting
    positive = route.transport != "linear" or not drifting
    return Run(
        route, recorder,
        transport=route.transport if drifting else "none (no axis drifts without noise)",
        positivity="exact" if positive else "to the size of the errors of linear transport",
        integration=("exponential to round-off" if propagator.exact else "symmetric splitting, order 2, error controlled") + where,
        exactly_positive=positive, linear=route.transport != "limited" or not drifting, seconds=seconds, peclet=propagator.peclet,
    )  # fmt: skip


def _run_fixed(problem: Problem, route: Route, x: Array, savers: dict[str, Any]) -> Run:
    """Equal steps of order 2 (``dt=``)."""
    began = time.perf_counter()
    structure = route.structure
    assert structure is not None and problem.dt is not None
    seconds = {"compile": warm("split", x.size, x.dtype)}
    seconds["setup"] = time.perf_counter() - began - seconds["compile"]
    report, close = progress_bar(problem)
    composition = _composition(problem, problem.grid, structure)
    frames = fixed_steps(composition, problem.model.dim, turned(x, structure.basis, False), problem.times, problem.dt, report, problem.keeper, problem.skip_below)
    frames = (_frame_turned(f, structure.basis) for f in frames)
    recorder = _record(problem, watched(frames, np.inf), savers, UNPHYSICAL, seconds)
    close()
    return Run(
        route, recorder, transport="spectral", positivity="to the size of the errors",
        integration=f"symmetric composition of order 2, fixed steps of at most {problem.dt:g}", exactly_positive=False, linear=True, seconds=seconds,
        tolerated=10.0 * (problem.tol + recorder.skipped + sum(float(np.nanmax(recorder.diagnostics[k])) for k in ("grid_error", "edge_probability"))),
        skipped=recorder.skipped,
    )  # fmt: skip


def _run_spectral(problem: Problem, route: Route, x: Array, start: Start | None, savers: dict[str, Any]) -> Run:
    if problem.dt is not None:
        return _run_fixed(problem, route, x, savers)
    began = time.perf_counter()
    model, structure = problem.model, route.structure
    assert structure is not None and start is not None
    seconds = {"compile": warm("split", x.size)}
    sampled = any(c.sampled for c in model.coefficients.values())
    moved = structure.moved()
    # what no part moves is exact in every cell, but phases may grow beyond any smaller number of cells
    least = tuple(n if i in moved else user for i, (n, user) in enumerate(zip(start.cells, problem.grid.shape, strict=True)))
    cells = cells_for_coefficients(model, problem.grid, least, problem.probes)
    if cells != start.cells:
        smooth = problem.grid.with_cells(**dict(zip(problem.grid.names, cells, strict=True)))
        start = replace(start, x=resample_to(x, smooth), cells=cells)
    run = SplitRun(
        lambda grid: _composition(problem, grid, structure),
        problem.grid, model.dim, problem.tol, start, adaptive=bool(structure.parts) and not sampled,
        coefficients=sampler(model, problem.grid),
    )  # fmt: skip
    seconds["setup"] = time.perf_counter() - began - seconds["compile"]
    report, close = progress_bar(problem)
    run.start = replace(start, x=turned(start.x, structure.basis, False))
    longest = min(problem.longest, relaxation_step(model, problem.grid, structure, float(problem.times[0])))
    frames = run.frames(turned(x, structure.basis, False), problem.times, problem.jumps, longest, report, problem.keeper)
    frames = (_frame_turned(f, structure.basis) for f in frames)
    recorder = _record(problem, watched(frames), savers, UNPHYSICAL, seconds)
    close()
    assert run.inner is not None
    inside = run.inner.grid.shape
    exact = run.inner.exact
    seconds["setup"] += run.seconds_setup
    seconds["steps"] -= run.seconds_setup
    return Run(
        route, recorder, transport="spectral" if structure.parts else "none",
        positivity="to the size of the errors",
        integration="exact (all parts commute)" if exact else f"extrapolated symmetric composition, order {2 * run.most_chains}, error controlled",
        exactly_positive=False, linear=True, seconds=seconds,
        cells="as given" if inside == problem.grid.shape else " x ".join(map(str, inside)),
        tolerated=10.0 * (problem.tol + sum(float(np.nanmax(recorder.diagnostics[k])) for k in ("grid_error", "edge_probability"))),
    )  # fmt: skip


def _composition(problem: Problem, grid: Grid, structure: Structure) -> Composition:
    """The composition on a grid; what was evaluated of the model on a small grid is kept with the model for its next run."""
    store = problem.model.__dict__.setdefault("_known", {})
    known = remembered(store, (grid, problem.grid, problem.probes, problem.tol, problem.times[-1], problem.precision), 8, Known) if np.prod(grid.shape) < REMEMBERED else Known()
    # characteristics are traced two digits beyond the tolerance
    accuracy = float(min(1e-2 * problem.tol, 1e-6) / (problem.times[-1] - problem.times[0]))
    return Composition(problem.model, grid, structure, float(problem.times[0]), accuracy, known, dtype=problem.dtype)


def _run_positive(problem: Problem, route: Route, x: Array, start: Start | None, savers: dict[str, Any]) -> Run:
    began = time.perf_counter()
    structure = route.structure
    assert structure is not None
    seconds = {"compile": warm("split", x.size)}
    composition = PositiveComposition(problem.model, problem.grid, structure, route.transport, problem.probes, route.order)
    seconds["setup"] = time.perf_counter() - began - seconds["compile"]
    report, close = progress_bar(problem)
    flat = turned(x, structure.basis, False).reshape(x.shape[0], -1)
    batch = x.shape[1]
    if composition.limited is None:
        ends = OpenEnds(problem.model, problem.grid, structure, problem.probes)
        stops = problem.stops()
        steps = ladder(np.diff(stops), route.unit, route.multiple, problem.longest)
        frames = run_whole_steps(
            composition, ends, flat, batch, problem.times, stops, problem.tol, steps, lambda step: problem.nearest(structure, step), report,
            problem.keeper,
        )  # fmt: skip
    else:
        frames = evolve(composition, flat, batch, problem.times, problem.jumps, problem.tol, problem.longest, report, problem.keeper)
    if composition.linear:
        frames = (_with_tail(f, problem) for f in frames)
    frames = (_frame_turned(f, structure.basis) for f in frames)
    recorder = _record(problem, frames, savers, POSITIVITY, seconds)
    close()
    return Run(
        route, recorder, transport=route.transport, positivity="exact",
        integration=f"symmetric composition of completely positive channels, order {route.order}, error controlled",
        exactly_positive=True, linear=composition.linear, seconds=seconds,
    )  # fmt: skip


def _record(
    problem: Problem, frames: Iterator[Frame], savers: dict[str, Any], least: float | None, seconds: dict[str, float]
) -> Recorder:
    """Record all frames; an eigenvalue below ``least`` (relative to the largest trace) ends the run of a physical model."""
    recorder = Recorder(problem.grid, problem.model.dim, len(problem.states), problem.times, problem.kept, savers, problem.dtype, problem.store)
    problem.keeper.attach(recorder)
    began = time.perf_counter() - problem.keeper.before
    for frame in frames:
        recorder.add(frame, began)
        require_trace(recorder, frame.index, frame.t, MOST_DRIFT[problem.precision])
        problem.keeper.recorded()
        require_positive(problem, recorder, frame.index, frame.t, least)
    seconds["steps"] = time.perf_counter() - began - recorder.seconds
    return recorder


def require_positive(problem: Problem, recorder: Recorder, index: int, t: float, least: float | None) -> None:
    """Stop the run of a physical model whose smallest eigenvalue at an output is below ``least`` (relative to the largest trace)."""
    lowest = float(recorder.diagnostics["min_eigenvalue"][index].min())
    if least is None or lowest >= least or problem.mode != "error":
        return
    found = f"eigenvalue {lowest:.3g} of the largest trace at t = {t:.6g}"
    if least == POSITIVITY:
        raise SolverError("rho", "must stay positive semi-definite", found, "This is a defect of the scheme: please report the model")
    remedy = "Use more cells, or a positive route (method='fv', or positivity='exact')"
    raise RouteError("rho", "must stay positive to the size of the errors", found, remedy)


def require_trace(recorder: Recorder, index: int, t: float, most: float) -> None:
    """Stop a run whose trace and escaped probability at an output do not add up to what they did at its start."""
    d = recorder.diagnostics
    total = d["trace"] + d["escaped_probability"]
    drift = float(np.max(np.abs(total[index] - total[0])))
    if not drift <= most:
        found = f"a drift of {drift:.3g} at t = {t:.6g}"
        raise SolverError("rho", f"trace plus escaped probability must stay what it was to {most:g}", found, "This is a defect of the scheme: please report the model")


def watched(frames: Iterator[Any], most_tail: float = MOST_TAIL) -> Iterator[Any]:
    """Stop a spectral run that goes round the open ends or that the cells do not resolve."""
    for frame in frames:
        if frame.progress.edge > MOST_EDGE:
            raise RouteError(
                "Grid", "the split route needs open ends out of reach", f"probability {frame.progress.edge:.2g} there", "Widen the box, or use method='fv'"
            )
        if frame.progress.tail is not None and frame.progress.tail > most_tail:
            raise RouteError(
                "Grid", "the cells must resolve the state", f"{frame.progress.tail:.2g} of it in the highest modes", "Use more cells, or method='fv'"
            )
        yield frame


def _with_tail(frame: Frame, problem: Problem) -> Frame:
    """A frame with the content of its highest modes, which kicks and shifts resolve like a Fourier series."""
    x = frame.x.reshape(frame.x.shape[0], len(problem.states), *problem.grid.shape)
    tail = settle(x, problem.grid, problem.model.dim, 0.0).unresolved
    return replace(frame, progress=replace(frame.progress, tail=tail))


def turned(x: Array, basis: Array | None, back: bool) -> Array:
    """Components of a state turned into the basis of a composition, or back."""
    return x if basis is None else np.ascontiguousarray(to_components(turn(to_matrix(x), basis, back)))


def _frame_turned(frame: Frame, basis: Array | None) -> Frame:
    if basis is None:
        return frame
    escaped = np.moveaxis(turned(np.moveaxis(frame.escaped, -1, 0), basis, True), 0, -1)
    return replace(frame, x=turned(frame.x, basis, True), escaped=escaped)


def _lines(start: float, end: float, every: float = 5.0) -> Callable[[float], None]:
    """Progress for a log file: a plain line every few seconds."""
    import sys

    began = last = time.perf_counter()

    def report(now: float) -> None:
        nonlocal last
        clock = time.perf_counter()
        if clock - last >= every and now > start:
            left = (clock - began) * (end - now) / (now - start)
            print(f"t = {now:.6g} of {end:.6g}, {clock - began:.0f} s, about {left:.0f} s left", file=sys.stderr, flush=True)
            last = clock

    return report


def progress_bar(problem: Problem) -> tuple[Callable[[float], None], Callable[[], None]]:
    """A progress bar in model time: how to report, and how to close it."""
    import sys

    shown = sys.stderr.isatty() if problem.progress is None else problem.progress
    if not shown:
        return (lambda now: None), (lambda: None)
    from tqdm import tqdm

    start = float(problem.times[0])
    if not sys.stderr.isatty():
        return _lines(start, float(problem.times[-1])), (lambda: None)
    bar = tqdm(total=float(problem.times[-1]) - start, desc="t", unit="", leave=False)
    return (lambda now: bar.update(now - start - bar.n)), bar.close
