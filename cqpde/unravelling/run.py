"""``cqpde.unravel``: ensembles of classical-quantum trajectories with streaming statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoint import NoKeeper, keeper_of
from ..coefficients import Point
from ..communicator import require_communicator, shared_keeper, together, travelling
from ..errors import CqpdeError, Interrupted, ModelError, OptionError, SolverError
from ..initial import State
from ..model import Model
from ..signals import graceful_signals
from . import stored as checkpoints
from .kernels_statistics import all_finite
from .plan import BATCH, CHUNK, COARSE, Part, Plan, Recorder
from .prepare import prepare, threads_of
from .schemes import METHODS
from .sharing import Task, by_dask, by_processes, by_threads, follow, require_client, share_of_threads
from .statistics import Snapshot, components, snapshot
from .swarm import Noise, Swarm

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

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
    checkpoint: Any = None,
    checkpoint_every: float = 60.0,
    max_walltime: float | None = None,
    comm: Any = None,
    client: Any = None,
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
    checkpoint, checkpoint_every, max_walltime
        As for :func:`cqpde.solve`: a folder from which :func:`cqpde.resume` goes on. A checkpoint is the sums of the chunks (of 4096) so far.
    comm : mpi4py communicator, optional
        Share the chunks between its processes: all call with the same arguments, the first gets the ensemble, the others None.
    client : dask.distributed.Client, optional
        Have the chunks done by its workers. In either way the bits are those of one process.

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
    Interrupted
        With ``checkpoint``: by a signal or at ``max_walltime``.

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
    began, many = time.perf_counter(), require_communicator(comm)
    require_client(client, comm, threads)
    seed = int(np.random.SeedSequence().generate_state(1)[0] >> 1) if seed is None else seed
    seed = comm.bcast(seed) if many else seed
    if not isinstance(moments or {}, Mapping):
        raise OptionError("moments", "must be a dict of callables", type(moments).__name__, "Write {'name': f}")
    make = lambda: keeper_of(checkpoint, checkpoint_every, max_walltime)
    keeper = shared_keeper(comm, make) if many and not isinstance(checkpoint, NoKeeper) else make()
    workers = threads_of(share_of_threads(threads, comm))
    options = dict(
        trajectories=trajectories, seed=seed, method=method, dt=dt, bias=bias, state=state, store=store, stored=stored, arrivals=arrivals, field=field, check=check
    )
    plan = prepare(
        model, rho0, t, trajectories, seed, method, dt, dict(moments or {}), bias, state, store, stored, arrivals, field, check
    )
    if keeper.check is not None:
        keeper.check(plan)
    if not keeper.resumes:
        begin = lambda: checkpoints.begin(keeper, plan, options)
        together(comm, begin) if many else begin()
    try:
        with graceful_signals(keeper.keeps):
            parts = run_chunks(plan, 0, int(trajectories), workers, progress, keeper, comm if many else None, client)
    except Interrupted:
        raise
    except CqpdeError:
        keeper.abandon()
        raise
    finally:
        keeper.close()
    if many and comm.rank:
        return None  # type: ignore[return-value]
    from .result import build

    return build(plan, parts, time.perf_counter() - began + keeper.before)


#: Where a coefficient fails this many boxes away, it is the trajectory that exploded.
FAR = 1e6


def run_chunks(
    plan: Plan, first: int, trajectories: int, threads: int, progress: bool | None, keeper: NoKeeper | None = None, comm: Any = None, client: Any = None
) -> list[Part]:  # fmt: skip
    """Run chunks ``first, first + 1, ...``; statistics are merged in chunk order, whatever order they finish in, on the first of several processes."""
    sizes = [min(CHUNK, trajectories - k) for k in range(0, trajectories, CHUNK)]
    whole = [max(0, min(size, plan.stored - k * CHUNK)) if plan.store else 0 for k, size in enumerate(sizes)]
    tasks: list[Task] = [(first + k, size, whole[k], k == 0) for k, size in enumerate(sizes)]
    work, chunks, keeper = partial(run_chunk, plan), checkpoints.Chunks(plan, sizes), keeper or NoKeeper()

    def begin() -> int:
        keeper.attach(chunks)
        if keeper.resumed is not None:
            chunks.restore(keeper.resumed, _template(plan))
        return chunks.count

    if comm is None:
        rest = tasks[begin() :]
        _merge(chunks, rest, by_threads(work, rest, threads) if client is None else by_dask(work, rest, client), keeper, progress)
        return [chunks.result()]
    rest, failure = tasks[together(comm, begin) :], None
    try:
        if comm.rank:
            follow(work, rest, threads, comm)
        else:
            _merge(chunks, rest, by_processes(work, rest, threads, comm), keeper, progress)
    except Exception as error:
        failure = error
    told = comm.bcast(travelling(failure))
    if told is not None:
        raise failure or told
    return [] if comm.rank else [chunks.result()]


def _merge(chunks: checkpoints.Chunks, tasks: list[Task], parts: Iterator[Part], keeper: NoKeeper, progress: bool | None) -> None:
    """Merge the parts of the tasks as they come, showing how far it is and keeping what was done."""
    from tqdm import tqdm

    total, done = sum(chunks.sizes), sum(chunks.sizes[: chunks.count])
    show = None if progress is None else not progress
    with closing(parts), tqdm(total=total, initial=done, unit="traj", disable=show, leave=False) as bar:  # type: ignore[type-var]
        for (_, size, _, _), part in zip(tasks, parts, strict=True):
            chunks.add(part)
            bar.update(size)
            keeper.recorded()
            keeper.offer(chunks.count, chunks.state)


def _template(plan: Plan) -> Snapshot:
    """A snapshot of two trajectories, of the shapes and types of all others."""
    swarm = start(plan, 0, 2)
    return snapshot(plan.rho0.grid, 2, swarm, swarm if plan.bias else None, 1.0, np.zeros((2 * plan.rho0.grid.ndim, plan.model.dim**2)), plan.functions, plan.field, False)


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
    except (np.linalg.LinAlgError, FloatingPointError, ModelError):
        _require_finite(plan, swarm, -1, t, FAR)
        raise
    return plan.ends.apply(before, swarm, c, t, h, noise)


def _require_finite(plan: Plan, swarm: Swarm, chunk: int, t: float, far: float = np.inf) -> None:
    """Refuse trajectories that are not finite, or further from the box than ``far`` times its size."""
    if not len(swarm.z):
        return
    reach = far * max(max(abs(a.lower), abs(a.upper)) for a in plan.rho0.grid.axes)
    good = all_finite(swarm.z) & all_finite(swarm.x.reshape(len(swarm.x), -1)) & (np.abs(swarm.z) <= reach).all(axis=1)
    if not good.all():
        worst = int(np.argmin(good))
        raise SolverError(
            "unravel", "every trajectory must stay finite",
            f"{int((~good).sum())} of {len(good)} not finite in chunk {chunk} at t = {t:.6g}, the first is row {int(swarm.rows[worst])} (method {plan.method}, dt {plan.dt:.3g})",
            "Use a shorter dt, method='instrument', or kets; check that the model's drift does not explode",
        )  # fmt: skip
