"""``cqpde.estimate``: memory, disk and time of a run, from short runs of the same problem on fewer cells."""

from __future__ import annotations

import gc
import inspect
import math
import time
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any

import numba
import numpy as np

from . import memory
from .channels.parts import Structure
from .choice import structure_of
from .errors import CqpdeError, CqpdeWarning, OptionError, SolverError, did_you_mean
from .fv.assemble import layout
from .grid import Grid
from .initial import State, from_array
from .kernels.circulant import SWEPT
from .kernels.warm import warm
from .model import Model
from .options import is_number, read_times, require_integer, require_positive, require_word
from .parallel.cost import Cost, cost, fv_traffic, gain_of_cores, split_traffic
from .recorder import frame_times
from .runs import PRECISIONS
from .solver import probe_times, solve
from .stored_run import disk_need

Array = np.ndarray

#: Parts of the cells that the two trials have.
PARTS = (0.25, 0.5)

#: Values d^2 * batch * cells of a trial at most, and below which there is one trial, of all cells.
MOST_VALUES, FEW_VALUES = 1 << 24, 1 << 18

#: A trial goes on until its steps took so many seconds and step control has had so many steps per output, or so many seconds at most.
ENOUGH, FEW_STEPS, LONGEST = 0.7, 4, 6.0

#: Buffers of the file, and what threads and the allocator keep.
WRITING = 1e7

#: Values d^2 * batch * cells at most of the runs that measure a step.
STEP_VALUES = 1 << 23

#: Why the time of a shared run of the split route with step control is not told.
OTHER_CONTROL = "not known: its step control is another one than that of one process"

#: Steps of a run by which the cost of one is measured, where step control would choose others.
EQUAL = 64

#: Shares of the run that trials try in turn.
SPANS = tuple(4.0**-k for k in range(5, -1, -1))


@dataclass(frozen=True)
class Trial:
    """A short run: its cells, what it took beside its frames (bytes), its seconds per share of the whole run, and whether these tell."""

    cells: int
    work: float
    setup: float
    steps: float
    share: float
    method: str
    transport: str
    count: int
    telling: bool


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes
    ----------
    cells, levels, states, frames : int
        Size of the problem; ``frames`` is the number of full fields that the result holds.
    method, transport : str
        Route of the trials.
    bytes_state : float
        One state, :math:`8 d^2` per cell (half of it in single precision).
    bytes_frames, bytes_work, bytes_process : float
        Frames of the result; initial state, work arrays and coefficients; libraries and kernels (what this process has already).
    bytes_peak : float
        Their sum: the largest resident size.
    bytes_disk : float
        Result and checkpoints at most.
    bytes_available : float
        What the machine, or the container, can still give.
    seconds : float
        The whole run, extrapolated in cells and in time, for a quiet machine to a factor of two; NaN where the trials saw only the
        first steps of step control, which tell nothing of the others.
    steps : int or None
        Steps of a run by equal steps.
    trials : list of Trial
    shared : Cost or None
        Of a run shared between ``ranks`` processes.
    """

    cells: int
    levels: int
    states: int
    frames: int
    method: str
    transport: str
    bytes_state: float
    bytes_frames: float
    bytes_work: float
    bytes_process: float
    bytes_peak: float
    bytes_disk: float
    bytes_available: float
    seconds: float
    steps: int | None
    trials: list[Trial] = field(repr=False)
    shared: Cost | None = None

    @property
    def bytes_needed(self) -> float:
        """What the run takes beyond what the process has already."""
        return self.bytes_peak - self.bytes_process

    def _shared_rows(self, c: Cost) -> list[tuple[str, str]]:
        what = "step" if self.method == "split" else "application of the generator"
        sent = f"{memory.size(c.traffic.sent)} sent in {c.traffic.messages} messages" if c.traffic.sent else "nothing sent (one field in shared memory)" if c.ranks > 1 else "nothing sent"
        total = f"about {_duration(c.total)}" if math.isfinite(c.total) else "not known: step control needs longer trials" if self.method == "fv" else OTHER_CONTROL
        return [
            ("processes", f"{c.ranks} on {c.machines} machine{'s' if c.machines > 1 else ''} like this one"),
            ("each, per step", f"{memory.size(c.traffic.touched)} touched, {sent}, {c.traffic.waits} waits"),
            ("time together", f"{total}; {c.seconds:.3g} s per {what}: computing {c.computing:.2g}, sending {c.sending:.2g}, waiting {c.waiting:.2g}"),
        ]

    def require_room(self) -> None:
        """Refuse a run that needs more than 80 % of the available memory.

        Raises
        ------
        OptionError
        """
        memory.require_room("Grid", "the run", self.bytes_needed, REMEDY)

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return asdict(self) | {"bytes_needed": self.bytes_needed}

    def __str__(self) -> str:
        steps = "" if self.steps is None else f"{self.seconds / self.steps:.3g} s for each of {self.steps} steps; "
        source = f"from trials on {' and '.join(str(t.cells) for t in self.trials)} cells"
        time = f"{steps}about {_duration(self.seconds)} ({source})" if self.trials[-1].telling else "not known: step control needs longer trials"
        rows = [
            ("cells", f"{self.cells} with {self.levels}^2 values" + (f", {self.states} states" if self.states > 1 else "")),
            ("route", f"{self.method}, {self.transport}"),
            ("one state", memory.size(self.bytes_state)),
            ("frames of the result", f"{memory.size(self.bytes_frames)} ({self.frames})"),
            ("work arrays", f"{memory.size(self.bytes_work)} (with initial state and coefficients)"),
            ("libraries, kernels", memory.size(self.bytes_process)),
            ("resident at most", f"{memory.size(self.bytes_peak)} ({memory.size(self.bytes_available)} available)"),
            ("files at most", memory.size(self.bytes_disk)),
            ("time", time),
        ]
        if self.shared is not None:
            rows += self._shared_rows(self.shared)
        return "\n".join(f"{name:>20}  {text}" for name, text in rows)


#: What to do about a run that does not fit.
REMEDY = "Use fewer cells, keep fewer frames (frames=), take equal steps (dt=), or go on with force"


def estimate(
    model: Model, rho0: State | list[State], t: Any, *, grid: Grid | None = None, ranks: int = 1, machines: int = 1, network: float = 1e9, **options: Any
) -> Estimate:  # fmt: skip
    """Estimate memory, disk space and time of :func:`cqpde.solve` with the same arguments.

    Two short runs on a quarter and half of the cells (fewer of a very large grid) give the memory per cell, counted allocation by
    allocation, and the time per cell and share of the run; a small grid is tried as it is. Takes some seconds, and more where a 1024th of the run does.

    Parameters
    ----------
    model, rho0, t, **options
        As for :func:`cqpde.solve`.
    grid : Grid, optional
        Estimate for this grid; ``rho0`` may then live on a smaller one, so that a grid too large for the memory can be asked about.
    ranks, machines, network : int, int, float
        With more than one rank also what a run shared between so many processes costs each of them, on so many machines like this one whose
        processes can send so many bytes per second each (:mod:`cqpde.parallel.cost`): mostly within a quarter of what was measured on one machine.

    Returns
    -------
    Estimate
        ``print`` shows a table.

    Raises
    ------
    CqpdeError
        What a trial raised: the run itself is likely to be refused for the same reason, or needs more cells.

    Examples
    --------
    >>> import cqpde as cq
    >>> grid = cq.Grid(q=(-5, 5, 200), p=(-7, 7, 280))
    >>> found = cq.estimate(cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 0.5, 1])
    >>> found.bytes_frames == 3 * 16 * 4 * 200 * 280
    True
    """
    states = [rho0] if not isinstance(rho0, list | tuple) else list(rho0)
    for state in states:
        if not isinstance(state, State):
            raise OptionError("rho0", "must be a State, or a list of them", type(state).__name__, "Make it with cqpde.gaussian, product, point or from_array")
    if not states or (grid is not None and not isinstance(grid, Grid)):
        raise OptionError("grid" if states else "rho0", "must be a Grid" if states else "needs at least one state", repr(grid), "See cqpde.Grid")
    if not isinstance(model, Model):
        raise OptionError("model", "must be a Model", type(model).__name__, "Make it with cqpde.Model, cqpde.healed or cqpde.models")
    if grid is not None and grid.names != states[0].grid.names:
        raise OptionError("grid", f"must be over {states[0].grid.names}, as rho0", repr(grid.names), "Take rho0.grid.with_cells(...)")
    for name in options:
        if name not in inspect.signature(solve).parameters:
            raise OptionError(name, "must be an option of cqpde.solve", repr(options[name]), did_you_mean(name, inspect.signature(solve).parameters))
    if options.get("dt") is not None:
        require_positive("dt", options["dt"], "Leave it out to let tol decide")
    require_integer("ranks", ranks, 1, 1 << 20)
    require_integer("machines", machines, 1, ranks + 1)
    require_positive("network", network, "Give bytes per second, e.g. 1e9")
    given = {k: v for k, v in options.items() if k not in ("progress", "checkpoint", "checkpoint_every", "max_walltime", "force", "comm", "output")}
    whole, times = grid or states[0].grid, read_times(t)
    frames = len(frame_times(times, given.pop("frames", None), given.get("save")))
    frames = frames if options.get("output") is None else 1  # the others are in the store
    cells, batch = math.prod(whole.shape), len(states)
    for name in ("dask.array", "netCDF4", "scipy.ndimage", "xarray"):  # what a run and its file load
        import_module(name)
    warm("split", model.dim**2 * cells * batch, PRECISIONS.get(given.get("precision", "double"), np.float64))
    warm("fv")
    process = float(_resident())
    trials = _trials(model, states, whole, times, given)
    last = trials[-1]
    trials = [t for t in trials if t.method == last.method]
    state_bytes = float(number_bytes(given)) * model.dim**2 * cells * batch
    writing = 8.0 * cells * batch * frames + WRITING  # of the density, beside the fields
    work = writing + _line([(x.cells, x.work) for x in trials], cells)
    setup = _line([(x.cells, x.setup) for x in trials], cells)
    steps = _power([(x.cells, x.steps) for x in trials], cells, *_exponents(last, whole.ndim, given))
    process -= sum(s.bytes_held for s in states if s.grid == whole)  # counted in the trials
    shared = _shared(model, states, whole, times, given, last, steps, ranks, machines, network) if ranks > 1 else None
    return Estimate(
        cells, model.dim, batch, frames, last.method, last.transport, state_bytes, 2 * frames * state_bytes, work, process,
        process + work + 2 * frames * state_bytes, disk_need(state_bytes, len(times), frames, last.transport), memory.available(),
        setup + steps if last.telling else math.nan, _equal_steps(times, given.get("dt")), trials, shared,
    )  # fmt: skip


def _shared(
    model: Model, states: list[State], whole: Grid, times: Array, options: dict[str, Any], trial: Trial, steps: float, ranks: int, machines: int, network: float
) -> Cost:  # fmt: skip
    """What a shared run costs: its traffic from the parts of the model, the speed of one core and of several from short runs."""
    values, cells, cores = model.dim**2 * len(states), math.prod(whole.shape), numba.get_num_threads()
    small = _halved(whole, STEP_VALUES / values)
    some, small_values = [_on(s, small) for s in states], values * math.prod(small.shape)
    state_bytes, probes = float(number_bytes(options)) * values * cells, probe_times(model, times)
    length = float(times[-1] - times[0])
    own_steps = trial.method == "split" and options.get("dt") is None
    if trial.method == "split":
        structure = structure_of(model, small, probes)
        if not isinstance(structure, Structure) or trial.transport != "spectral":
            raise OptionError("ranks", "many processes share runs without positivity='exact'", trial.transport, "Leave positivity out")
        traffic = split_traffic(structure, whole, state_bytes, ranks, shared=machines == 1)
        options = {k: v for k, v in options.items() if k not in ("tol", "dt_max")} | ({"dt": length / EQUAL} if own_steps else {})
    else:
        traffic = fv_traffic(layout(model, small, probes), whole, trial.transport, state_bytes, ranks)
    dt = options.get("dt")
    at = times[0] + (length * min(1.0, trial.share) * np.array([0.0, 0.5, 1.0]) if dt is None else min(dt, length / 10) * np.array([0.0, 2.0, 10.0]))
    before = numba.get_num_threads()
    seconds: dict[int, float] = {}
    busy = min(-(-ranks // machines), cores)
    by_sweep = trial.method == "split" and small_values > SWEPT
    try:
        for threads in {1} if by_sweep else {1, busy}:
            numba.set_num_threads(threads)
            seconds[threads] = min(_per_step(model, some, at, options) for _ in range(3)) * cells / math.prod(small.shape)
    finally:
        numba.set_num_threads(before)
    one = seconds[1]
    gain = gain_of_cores(busy) if by_sweep else max(1.0, one / seconds[busy])
    count = math.nan if own_steps or not trial.telling else steps * gain / one
    if dt is not None and not own_steps:
        count = float(_equal_steps(times, dt) or 0)
    return cost(traffic, ranks, machines, cores, one, gain, network, count)


def _halved(grid: Grid, cells: float) -> Grid:
    """The grid, its longest axes halved until it has at most so many cells: lines are swept as on the whole, which other lengths might not be."""
    while math.prod(grid.shape) > cells and max(grid.shape) >= 10:
        longest = max(grid.axes, key=lambda a: a.n)
        grid = grid.with_cells(**{longest.name: longest.n // 2})
    return grid


def _per_step(model: Model, states: list[State], times: Array, options: dict[str, Any]) -> float:
    """Seconds per step (split) or application of the generator (fv) of a short run, after its first output, before which tables are built."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CqpdeWarning)
        found = _solve(model, states, times, {**options, "grid_error": False})
    steps = _equal_steps(times[1:], options.get("dt")) or 0.5 * max(int(found.attrs["applications"]), 2)
    return float(found.wall_seconds[-1] - found.wall_seconds[1]) / steps


def number_bytes(options: dict[str, Any]) -> int:
    """Bytes of a number of the state; refuses an unknown precision."""
    precision = options.get("precision", "double")
    require_word("precision", precision, list(PRECISIONS))
    return int(np.dtype(PRECISIONS[precision]).itemsize)


def _trials(model: Model, states: list[State], whole: Grid, times: Array, options: dict[str, Any]) -> list[Trial]:
    """Trials on two numbers of cells; on all of them where there are few, or fewer do not carry the state."""
    values = model.dim**2 * len(states)
    run = lambda grid: _trial(model, [_on(s, grid) for s in states], times, options)
    try:
        return [run(grid) for grid in _trial_grids(whole, values)]
    except CqpdeError:
        if math.prod(whole.shape) * values > MOST_VALUES:
            raise
    return [_trial(model, [_on(s, whole) for s in states], times, options, (1.0,))]


def fewer(grid: Grid, cells: float) -> Grid:
    """The same box with at most so many cells in all, the longest axes being cut first."""
    low, high = 5.0, float(max(grid.shape))
    for _ in range(60):
        most = 0.5 * (low + high)
        low, high = (most, high) if math.prod(min(n, most) for n in grid.shape) <= cells else (low, most)
    return grid.with_cells(**{a.name: min(a.n, max(5, int(low + 1e-6))) for a in grid.axes}) if math.prod(grid.shape) > cells else grid


def _duration(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _trial_grids(grid: Grid, values: int) -> list[Grid]:
    """The grids of the trials, smallest first."""
    cells = math.prod(grid.shape)
    if cells * values <= FEW_VALUES:
        return [grid]
    largest = _halved(grid, min(PARTS[1] * cells, MOST_VALUES / values))
    return [_halved(largest, PARTS[0] / PARTS[1] * math.prod(largest.shape)), largest]


def _on(state: State, grid: Grid) -> State:
    """A state on other cells; one given as an array is interpolated."""
    if state.grid == grid:
        return state
    if state.recipe is not None:
        return state.on(grid)
    from scipy.ndimage import map_coordinates

    places = [(c.centers - a.centers[0]) / a.spacing for c, a in zip(grid.axes, state.grid.axes, strict=True)]
    mesh = np.stack(np.meshgrid(*places, indexing="ij"))
    flat = state.rho.reshape(-1, *state.grid.shape)
    taken = np.stack([map_coordinates(f.real, mesh, order=1, mode="nearest") + 1j * map_coordinates(f.imag, mesh, order=1, mode="nearest") for f in flat])
    return from_array(grid, taken.reshape(*state.rho.shape[:2], *grid.shape), normalise=True, slack=state.slack)


def _trial(model: Model, states: list[State], times: Array, options: dict[str, Any], spans: tuple[float, ...] = SPANS) -> Trial:
    """Runs of growing length, until one is long enough to tell memory and time."""
    length = float(times[-1] - times[0])
    ends = [times[0] + length * s for s in spans]
    equal = options.get("dt") is not None
    if equal and len(spans) > 1:
        ends = [float(min(times[-1], times[0] + 2 * k * options["dt"])) for k in (1, 2, 4, 8, 16)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CqpdeWarning)
        found: Any = None
        work, start = 0.0, time.perf_counter()
        for end in ends:
            at = np.unique(np.concatenate([times[times < end], [end]]))
            began = time.perf_counter()
            try:
                found, peak = _peak(lambda: _solve(model, states, at, options))  # noqa: B023 - called at once
            except SolverError:  # these few cells carry the state no further
                if found is None:
                    raise
                break
            last, work = end, max(work, peak)
            total = time.perf_counter() - began
            took = float(found.attrs["seconds_steps"] + found.attrs["seconds_diagnostics"])
            steps = int(found["steps"][-1])
            whole = (end - times[0]) / length > 1.0 - 1e-9
            telling = bool(equal or whole or steps >= FEW_STEPS * len(at))
            if whole or time.perf_counter() - start >= LONGEST or (took >= ENOUGH and telling):
                break
    # the initial states are there before, and one frame is counted apart
    work += sum(s.bytes_held - 2 * number_bytes(options) * s.nbytes / 16 for s in states)
    share = (last - times[0]) / length
    shape = states[0].grid.shape
    return Trial(math.prod(shape), work, total - took, took / share, float(share), found.attrs["method"], found.attrs["transport"], steps, telling)


def _solve(model: Model, states: list[State], times: Array, options: dict[str, Any]) -> Any:
    model.forget()  # what it keeps of earlier runs would hide memory and time
    return solve(model, states, times, frames=times[-1:], progress=False, force=True, **options)


def _peak(action: Callable[[], Any]) -> tuple[Any, float]:
    """What an action returns, and the bytes that it has at most beside those that there were before."""
    gc.collect()
    running = tracemalloc.is_tracing()
    if not running:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        return action(), float(tracemalloc.get_traced_memory()[1] - before)
    finally:
        if not running:
            tracemalloc.stop()


def _line(points: list[tuple[int, float]], cells: int) -> float:
    """A straight line through the trials (through zero for one), at the cells of the run; it does not fall."""
    (n, y), (m, z) = points[0], points[-1]
    slope = max((z - y) / (m - n), 0.0) if m != n else y / n
    return z + slope * (cells - m)


def _power(points: list[tuple[int, float]], cells: int, least: float, most: float) -> float:
    """A power law through the trials with an exponent between ``least`` and ``most``, at the cells of the run."""
    (n, y), (m, z) = points[0], points[-1]
    exponent = math.log(max(z, 1e-9) / max(y, 1e-9)) / math.log(m / n) if m != n else most
    return z * (cells / m) ** min(max(exponent, least), most)


def _exponents(trial: Trial, ndim: int, options: dict[str, Any]) -> tuple[float, float]:
    """Between which powers of the cells the time of a run lies: equal steps cost what the cells cost, explicit ones grow with 1/h^2."""
    if options.get("dt") is not None:
        return 1.0, 1.0
    return (1.0, 1.0 + 2.0 / ndim) if trial.method == "fv" else (0.0, 1.0)


def _equal_steps(times: Array, dt: Any) -> int | None:
    """Steps of a run by equal steps, with those of its twin of twice the step."""
    if not is_number(dt):
        return None
    return sum(3 * math.ceil(0.5 * gap / dt - 1e-9) for gap in np.diff(times))
