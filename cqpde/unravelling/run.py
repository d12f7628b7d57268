"""``cqpde.unravel``: ensembles of classical-quantum trajectories with streaming statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from ..coefficients import Point
from ..errors import OptionError, SolverError, did_you_mean
from ..initial import State, check_state
from ..model import Model
from ..sampling import sampler_of
from .ends import Ends
from .fields import Fields
from .kernels_statistics import all_finite
from .plan import BATCH, CHUNK, COARSE, Part, Plan, Recorder
from .schemes import METHODS, Noise, Swarm, kick_moves_itself
from .statistics import Functions, components, snapshot

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

#: Names of the variables of a result, which the user's functions must not take.
RESERVED = {
    "operators", "moments", "covariance", "purity", "skewness", "outside", "escaped", "rho", "bias", "bias_covariance", "extrapolated",
    "extrapolated_covariance", "t", "monomial", "operator", "row", "col", "face", "invariant", "trajectory", "arrival",
}  # fmt: skip
PREFIXES = ("rho_", "visits_", "path_", "arrival_", "purity_", "t_path", "monomial_", "operator_")


def unravel(
    model: Model,
    rho0: State,
    t: Any,
    *,
    trajectories: int = 10_000,
    seed: int | None = None,
    method: str = "instrument",
    dt: float | None = None,
    moments: Mapping[str, Callable[[Point, Array], Any]] | None = None,
    bias: bool = False,
    state: str = "auto",
    store: int | None = None,
    stored: int | None = None,
    arrivals: bool = False,
    field: bool = False,
    threads: int | None = None,
    check: str | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    r"""Unravel the master equation into classical-quantum trajectories :math:`(Z_t, \rho_t)` and gather their statistics.

    .. math::
        dZ_i &= D^C_{1,i}\,dt + 2\,\mathrm{Re}(D_{1,i\alpha}^*\langle L_\alpha\rangle)\,dt + \sigma_{ij}\,dW_j \\
        d\rho &= (\text{local terms})\,dt
              + dW_i\,(\sigma^+)_{ij}\left[D_{1,j\alpha}^*(L_\alpha - \langle L_\alpha\rangle)\rho + \mathrm{h.c.}\right]

    so that :math:`E[\delta(z - Z_t)\,\rho_t] = \rho(z, t)`. Independent of the grid solvers: only model and initial state are shared.

    Parameters
    ----------
    model : Model
    rho0 : State
        Initial state. Points are drawn from the state itself where it is a function (``gaussian``, ``product``), from the cells where
        it is an array. Its grid says where histograms are taken and what the ends of the axes do.
    t : array
        Output times, ascending; the first is when ``rho0`` holds.
    trajectories : int
        Size of the ensemble.
    seed : int, optional
        In [0, 2^31). The same seed gives the same bits for any number of threads. Without it one is drawn and recorded.
    method : {"instrument", "euler-maruyama", "weak-2", "mean-field", "linear"}
        See :mod:`cqpde.unravelling.schemes`. ``"mean-field"`` is *not* an unravelling of the master equation.
    dt : float, optional
        Longest step; output times are hit exactly. Default: a fraction of the fastest rate at the start (recorded).
    moments : dict of callable, optional
        More functions ``f(z, rho)`` to average: ``z.q`` (m,), ``rho`` (m, d, d), result (m,) real.
    bias : bool
        Also run every trajectory with 4 times the step and the same noise: ``bias`` is the mean difference, and ``extrapolated`` the
        moments at step zero by Richardson, free of the leading bias (a quarter more work).
    state : {"auto", "ket", "matrix"}
        How quantum states are held. ``auto``: kets where the start is pure and the trade-off saturated.
    store : int, optional
        Keep every ``store``-th step of whole trajectories (memory grows with their number), of the first ``stored`` ones (default all).
    arrivals : bool
        Keep time, place and state of every absorption (their sums are always kept).
    field : bool
        Also gather ``rho`` (t, row, col, \*axes) in every cell, the ensemble's estimate of the whole distribution: all observables
        ``ens.cq.density()``, ``ens.cq.conditional_state(q=...)``, ... then work on the ensemble.
    threads : int, optional
        Default: Numba's number of threads.
    check : {"error", "warn", "off"}, optional
        Overrides the model's own mode for condition (6) on the grid; along trajectories it is always enforced.
    progress : bool, optional
        Show a progress bar in trajectories; default: only in a terminal.

    Returns
    -------
    xarray.Dataset
        ``moments`` (t, monomial, operator) :math:`= E[z^k\,\mathrm{Tr}(O\rho)]` for a complete Hermitian set ``operators``, with
        ``covariance`` of single trajectories; ``rho_marginal_<axis>`` (t, row, col, axis) and ``visits_<axis>``; ``purity`` with its
        ``purity_std``, ``purity_min`` and ``purity_max``; ``escaped``, ``outside``; ``bias``, ``extrapolated`` with its covariance; the ``moments`` functions by name. Attributes
        record seed, method, step, chunk and versions. :func:`cqpde.save` and :func:`cqpde.load` work.

    Raises
    ------
    ModelError, StateError, OptionError
        Before any work.
    SolverError
        If a trajectory is not finite. Nothing is returned then.

    Notes
    -----
    The standard error of a moment is ``sqrt(diagonal of covariance / trajectories)``. Source: paper, (7)-(9), (13)-(14), Appendices
    E and F. Fails where (6) does not hold: such a model has no trajectories.

    Examples
    --------
    >>> import cqpde as cq
    >>> grid = cq.Grid(q=(-6, 6, 48), p=(-9, 9, 48))
    >>> rho0 = cq.gaussian(grid, 0.0, 0.4, cq.ket("+"))
    >>> ens = cq.unravel(cq.models.linear_diosi(), rho0, [0, 1], trajectories=2000, seed=1, dt=0.1)
    >>> bool(abs(ens.purity[-1] - 1) < 1e-10)
    True
    """
    began = time.perf_counter()
    seed = int(np.random.SeedSequence().generate_state(1)[0] >> 1) if seed is None else seed
    if not isinstance(moments or {}, Mapping):
        raise OptionError("moments", "must be a dict of callables", type(moments).__name__, "Write {'name': f}")
    plan = prepare(
        model, rho0, t, trajectories, seed, method, dt, dict(moments or {}), bias, state, store, stored, arrivals, field, check
    )
    parts = run_chunks(plan, 0, int(trajectories), _threads(threads), progress)
    from .result import build

    return build(plan, parts, time.perf_counter() - began)


def prepare(
    model: Model, rho0: State, t: Any, trajectories: int, seed: Any, method: str, dt: float | None, functions: Functions, bias: bool,
    state: str, store: int | None, stored: int | None, arrivals: bool, field: bool, check: str | None,
) -> Plan:  # fmt: skip
    """Check everything before any work and return the plan."""
    if not isinstance(model, Model):
        raise OptionError("model", "must be a cqpde.Model", type(model).__name__, "Make it with cqpde.Model or healed")
    if method not in METHODS:
        raise OptionError("method", "must be a known method", repr(method), did_you_mean(str(method), METHODS))
    _require_integer("trajectories", trajectories, 1)
    _require_integer("seed", seed, 0, 2**31)
    for name, value in (("store", store), ("stored", stored)):
        if value is not None:
            _require_integer(name, value, 1)
    if stored is not None and store is None:
        raise OptionError("stored", "has no effect without store", stored, "Give store=1 as well")
    if dt is not None and not (isinstance(dt, int | float | np.number) and not isinstance(dt, bool) and 0 < dt < np.inf):
        raise OptionError("dt", "must be a positive number", repr(dt), "Leave it out for the default")
    check_state(rho0, model.dim)
    for name, function in functions.items():
        if not callable(function) or not str(name).isidentifier():
            raise OptionError(f"moments[{name!r}]", "must be a callable under a name that is an identifier", type(function).__name__, "Write {'name': f}")
        if name in RESERVED or str(name).startswith(PREFIXES) or name in rho0.grid.names:
            raise OptionError(f"moments[{name!r}]", "must not have the name of another variable of the result", repr(name), "Choose another name")
    times = _times(t)
    probes = (times[0], times[-1]) if model.time_dependent else (times[0],)
    for at in probes:
        model.check(rho0.grid, float(at), check)
    fields, sampler = Fields(model), sampler_of(rho0)
    rng = np.random.default_rng(0)
    z = sampler(rng, 256)[0]
    cells = np.stack([rng.choice(a.centers, 256) for a in rho0.grid.axes], axis=1)
    fields.moving = any(kick_moves_itself(fields, np.concatenate([z, cells]), float(at)) for at in probes)
    pure = _representation(fields, rho0, z, probes, method, state)
    step = float(dt) if dt is not None else METHODS[method].fraction / max(_rate(fields, z, times), 1e-3)
    factor = COARSE if bias else 1
    steps = tuple(factor * max(1, int(np.ceil(gap / step / factor - 1e-9))) for gap in np.diff(times))
    if sum(steps) > 10_000_000:
        raise OptionError("dt", "needs at most 1e7 steps in all", f"{sum(steps)} steps of {step:.3g}", "Give a longer dt")
    return Plan(
        model, rho0, sampler, fields, Ends(rho0.grid), times, method, pure, step, steps, int(seed), bool(bias), functions, store or 0,
        min(stored or trajectories, trajectories), bool(arrivals), bool(field),
    )  # fmt: skip


def _require_integer(name: str, value: Any, least: int, below: int | None = None) -> None:
    good = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not good or value < least or (below is not None and value >= below):
        rule = f"must be an integer of at least {least}" + (f" and below {below}" if below else "")
        raise OptionError(name, rule, repr(value), "Correct the value")


def _times(t: Any) -> Array:
    try:
        times = np.array(t, dtype=float).reshape(-1)
    except (TypeError, ValueError):
        raise OptionError("t", "must be numbers", repr(t), "Write e.g. np.linspace(0, 1, 11)") from None
    if len(times) < 2 or not np.all(np.isfinite(times)) or np.any(np.diff(times) <= 0):
        raise OptionError("t", "must be at least two finite ascending times", np.array2string(times, threshold=6), "Sort them")
    return times


def _threads(threads: int | None) -> int:
    if threads is None:
        import numba

        return int(numba.get_num_threads())
    _require_integer("threads", threads, 1)
    return int(threads)


def _representation(fields: Fields, rho0: State, z: Array, probes: Any, method: str, state: str) -> bool:
    """Whether quantum states are held as kets."""
    if state not in ("auto", "ket", "matrix"):
        raise OptionError("state", "must be a known form", repr(state), did_you_mean(str(state), ("auto", "ket", "matrix")))
    if state == "matrix":
        return False
    density = rho0.density
    filled = density > 1e-12 * density.max()
    purity = np.sum(np.abs(rho0.rho) ** 2, axis=(0, 1))[filled] / density[filled] ** 2
    pure_start = bool(np.all(purity > 1 - 1e-9))
    unobserved = method != "mean-field" and any(fields.at(z, float(at)).N.shape[1] > 0 for at in probes)
    if state == "ket" and (not pure_start or unobserved):
        why = "the start is mixed" if not pure_start else "there is decoherence beyond the trade-off"
        raise OptionError("state", "kets need a pure start and a saturated trade-off", why, "Use state='matrix'")
    return pure_start and not unobserved


def _rate(fields: Fields, z: Array, times: Array) -> float:
    """Fastest rate at the start: level splitting, decoherence, gradient of the drift."""
    rates = [0.0]
    for t in (times[0], times[-1]):
        c = fields.at(z, float(t))
        levels = np.linalg.eigvalsh(c.H)
        rates += [float(np.max(levels[:, -1] - levels[:, 0])), 2.0 * float(np.max(np.linalg.norm(c.damping, 2, axis=(1, 2))))]
        gradient = 0.0
        for i in range(z.shape[1]):
            shift = np.zeros(z.shape[1])
            shift[i] = 1e-4 * max(1.0, float(np.abs(z[:, i]).max()))
            change = fields.drift(z + shift, float(t)) - fields.drift(z - shift, float(t))
            gradient = max(gradient, float(np.abs(change).sum(axis=1).max()) / (2 * shift[i]))
        rates.append(gradient)
    return max(rates)


def run_chunks(plan: Plan, first: int, trajectories: int, threads: int, progress: bool | None) -> list[Part]:
    """Run chunks ``first, first + 1, ...``; statistics are merged in chunk order, whatever order they finish in."""
    from tqdm import tqdm

    sizes = [min(CHUNK, trajectories - k) for k in range(0, trajectories, CHUNK)]
    merged: Part | None = None
    paths: list[tuple[Array, Array]] = []
    flights: list[tuple[int, Future[Part]]] = []
    show = None if progress is None else not progress
    with ThreadPoolExecutor(threads) as pool, tqdm(total=trajectories, unit="traj", disable=show, leave=False) as bar:
        try:
            for k in range(len(sizes) + 2 * threads):
                if k < len(sizes):
                    stored = max(0, min(sizes[k], plan.stored - k * CHUNK)) if plan.store else 0
                    flights.append((sizes[k], pool.submit(run_chunk, plan, first + k, sizes[k], stored, k == 0)))
                if flights and (k >= 2 * threads - 1 or k >= len(sizes)):
                    size, future = flights.pop(0)
                    part = future.result()
                    bar.update(size)
                    if part.paths is not None:
                        paths.append(part.paths)
                    if merged is None:
                        merged = part
                    else:
                        for mine, its in zip(merged.snapshots, part.snapshots, strict=True):
                            mine.merge(its)
                        merged.arrivals += part.arrivals
        finally:
            for _, future in flights:
                future.cancel()
    assert merged is not None
    if paths:
        merged.paths = (np.concatenate([p[0] for p in paths]), np.concatenate([p[1] for p in paths]))
    return [merged]


def start(plan: Plan, chunk: int, size: int) -> Swarm:
    """Draw the initial trajectories of a chunk."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(plan.seed, spawn_key=(chunk, 0))))
    z, rho = plan.sampler(rng, size)
    d = plan.model.dim
    if not plan.pure:
        x = np.array(np.broadcast_to(rho, (size, d, d)), dtype=complex)
    else:
        column = np.argmax(np.real(np.einsum("maa->ma", rho)), axis=1)
        x = np.take_along_axis(rho, column[:, None, None], axis=2)[:, :, 0]
        x = np.array(np.broadcast_to(x / np.sqrt(np.sum(np.abs(x) ** 2, axis=1))[:, None], (size, d)), dtype=complex)
    swarm = Swarm(np.ascontiguousarray(z, dtype=float), np.ascontiguousarray(x), np.arange(size))
    if plan.ends.turning:
        plan.ends.turn(swarm)
    return swarm


def run_chunk(plan: Plan, chunk: int, size: int, stored: int, pilot: bool) -> Part:
    """Run one chunk through all times; a ``pilot`` also estimates the skewness of the features."""
    grid, d = plan.rho0.grid, plan.model.dim
    swarm = start(plan, chunk, size)
    fine, rough = Noise(plan.seed, chunk, size), Noise(plan.seed, chunk, size, COARSE)
    coarse = Swarm(swarm.z.copy(), swarm.x.copy(), swarm.rows.copy()) if plan.bias else None
    escaped = np.zeros((2 * grid.ndim, d * d))
    part = Part([])
    recorder = Recorder(plan, stored)
    counter = 0

    def observe(now: float) -> None:
        for s in (swarm, coarse):
            if s is not None:
                _require_finite(plan, s, chunk, now)
        share = 1.0 / (COARSE ** METHODS[plan.method].order - 1.0)
        part.snapshots.append(snapshot(grid, size, swarm, coarse, share, escaped, plan.functions, plan.field, pilot))

    recorder.add(0, swarm)
    observe(float(plan.times[0]))
    for before, after, steps in zip(plan.times[:-1], plan.times[1:], plan.steps, strict=True):
        h = float(after - before) / steps
        many = METHODS[plan.method].many if batched(plan) else None
        for k in range(0, steps, BATCH):
            if many is None:
                break
            count, now = min(BATCH, steps - k), float(before) + k * h
            many(plan.fields, swarm, count, now, h, fine)
            if coarse is not None:
                many(plan.fields, coarse, count // COARSE, now, COARSE * h, rough)
        for k in range(steps if many is None else 0):
            now = float(before) + k * h
            swarm, gone = advance(plan, swarm, now, h, fine)
            for face, rows, when, state in gone:
                escaped[face] += components(state.matrices()).sum(axis=0)
                if plan.arrivals:
                    part.arrivals.append((face, chunk * CHUNK + rows, when, np.concatenate([state.z, components(state.matrices())], axis=1)))
            if coarse is not None and k % COARSE == 0:
                coarse, _ = advance(plan, coarse, now, COARSE * h, rough)
            counter += 1
            recorder.add(counter, swarm)
        observe(float(after))
    part.paths = recorder.result()
    return part


def batched(plan: Plan) -> bool:
    """Whether steps can be taken many at a time: kets, affine coefficients, and nothing to look at between outputs."""
    looked_at = plan.ends.turning or plan.ends.absorbing or plan.store or plan.model.time_dependent
    if looked_at or not (plan.pure and plan.fields.affine) or METHODS[plan.method].many is None:
        return False
    if plan.method == "euler-maruyama":
        return True
    b = plan.fields.affine_parts(float(plan.times[0]))[0].B
    return b.shape[1] == 1 and b.shape[2] == 2 and bool(np.abs(b - b.conj().swapaxes(2, 3)).max() <= 1e-14 * np.abs(b).max())


def advance(plan: Plan, swarm: Swarm, t: float, h: float, noise: Noise) -> tuple[Swarm, list[tuple[int, Array, Array, Swarm]]]:
    """One step with the ends of the axes."""
    if len(swarm.z) == 0:
        return swarm, []
    before = swarm.z.copy() if plan.ends.absorbing else swarm.z
    try:
        with np.errstate(all="ignore"):
            c = METHODS[plan.method].step(plan.fields, swarm, t, h, noise)
    except (np.linalg.LinAlgError, FloatingPointError):
        _require_finite(plan, swarm, -1, t)
        raise
    return plan.ends.apply(before, swarm, c, t, h, noise)


def _require_finite(plan: Plan, swarm: Swarm, chunk: int, t: float) -> None:
    good = all_finite(swarm.z) & all_finite(swarm.x.reshape(len(swarm.x), -1))
    if not good.all():
        worst = int(np.argmin(good))
        raise SolverError(
            "unravel", "every trajectory must stay finite",
            f"{int((~good).sum())} of {len(good)} not finite in chunk {chunk} at t = {t:.6g}, the first is row {int(swarm.rows[worst])} (method {plan.method}, dt {plan.dt:.3g})",
            "Use a shorter dt, method='instrument', or kets; check that the model's drift does not explode",
        )  # fmt: skip
