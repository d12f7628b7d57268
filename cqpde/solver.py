"""``cqpde.solve``: the full hybrid distribution at the times asked for, with its diagnostics."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import dataset, stored_run
from .caveats import caveats
from .channels.resolution import settle_states
from .checkpoint import NoKeeper, keeper_of
from .choice import Route, check_words, choose
from .communicator import agree, require_communicator, shared_keeper, together
from .components import to_components, trace_norm_bound
from .errors import CqpdeError, CqpdeWarning, Interrupted, OptionError
from .field_store import FieldStore, require_output
from .grid import Grid
from .initial import State, check_state
from .integrate.extrapolate import RESOLUTION_SHARE
from .memory import require_room
from .model import Model
from .options import is_number, read_times, require_flag, require_positive, require_word
from .parallel.slabs import Slabs
from .parallel.solve import require_slabs, run_on_slabs
from .recorder import Recorder, frame_times, savers_of
from .runs import PRECISIONS, Problem, Run, run_route
from .signals import graceful_signals
from .timescale import survey_time

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

#: Equal steps of a run at most.
MOST_STEPS = 1e9

#: Copies of the state that every route needs at least.
LEAST_STATES = 3


def solve(
    model: Model,
    rho0: State | Sequence[State],
    t: Any,
    *,
    tol: float = 1e-4,
    method: str = "auto",
    positivity: str | None = None,
    transport: str | None = None,
    dt_max: float | None = None,
    dt: float | None = None,
    precision: str = "double",
    skip_below: float = 0.0,
    save: Mapping[str, Any] | Sequence[str] | None = None,
    frames: Any = None,
    grid_error: bool = True,
    check: str | None = None,
    progress: bool | None = None,
    checkpoint: Any = None,
    checkpoint_every: float = 60.0,
    max_walltime: float | None = None,
    comm: Any = None,
    output: Any = None,
    force: bool = False,
) -> xr.Dataset:
    r"""Solve the classical-quantum master equation for the full hybrid distribution :math:`\rho(z, t)`.

    .. math::
        \partial_t\rho = -\partial_i(v_i\rho) + \tfrac12\partial_i\partial_j(s_{ij}\rho) - i[H, \rho]
            - \partial_i(A_i\rho + \rho A_i^\dagger) + s^+_{ij}\left(A_i\rho A_j^\dagger - \tfrac12\{A_j^\dagger A_i, \rho\}\right)
            + \mathrm{excess}

    Parameters
    ----------
    model : Model
        The equation; see :class:`Model` and :func:`healed`.
    rho0 : State or list of State
        Initial state, which also carries the grid. A list on one grid is solved together (dimension ``batch``).
    t : array
        Output times, ascending; the first is when ``rho0`` holds.
    tol : float
        Bound of the time error of the whole run, in integrated trace norm. Says nothing of the grid: see ``grid_error``; where the cells
        leave out more than ``tol``, ``split`` integrates time to 3 % of that. Steps end where a coefficient jumps in t; a pulse shorter than
        a 256th of the run may fall between the samples by which jumps are found.
    method : {"auto", "split", "fv"}
        ``"split"`` composes exactly solved parts (kick, stream, local terms): spectral accuracy, no step limit; an error that names the term
        if the model does not fit. ``"fv"`` is the general Kraus finite-volume scheme (order 2 in space, completely positive on any
        grid). ``"auto"`` takes ``split`` where it fits and the cells resolve the initial state, and says why (``method_reason``).
    positivity : {"exact"}, optional
        Left out, ``split`` is positive to the size of its errors (order 4 to 14 by extrapolation) and ``fv`` exactly. ``"exact"``: every
        factor of ``split`` is completely positive to round-off, at order 2 (4 for diagonal models); see ``transport``.
    transport : str, optional
        How drift along noise-free axes is carried. ``fv``: ``"limited"`` (default; positive, conservative, order >= 2, not linear in the
        state), ``"upwind"`` (linear, completely positive, order 1), ``"linear"`` (linear, order 4, trace-exact, not exactly positive).
        ``split`` with ``positivity="exact"``: ``"shift"`` (default; whole cells: linear in the state and completely positive; a grid
        and times on which no step does that are refused, and the nearest grid named) or ``"limited"``.
    dt_max : float, optional
        Longest step.
    dt : float, optional
        Take equal steps of (at most) this length, at order 2 and on the cells as given, in place of what ``tol`` would choose: the ``split``
        route of a grid that is too large for extrapolation, in three copies of the state. ``time_error`` is then the difference from
        twice the step. What the cells leave out is reported, not refused.
    precision : {"double", "single"}
        Of the state, with ``dt``: ``"single"`` keeps state, tables and frames (complex64) in half the memory, and sums are taken in double. Its
        round-off is up to 1e-6 per step in integrated trace norm and part of ``time_error``; trace and escaped probability may then drift by 1e-4 (in double precision by 1e-9)
        before the run is stopped.
    skip_below : float
        With ``dt``, for large states: lines whose numbers are all smaller than this, relative to the largest at the start, are left as they are in a
        kick or stream (in blocks of up to 256 lines, 512 in single precision). Their trace is kept; twice their integrated trace norm, summed over all sweeps, is added to
        ``time_error`` and stands in the attribute ``skipped_error``. Which lines form a block depends on
        the number of processes. A skipped block is still read: the gain
        is the arithmetic, a factor of 1.1 to 1.2 at 1e-7 in ``validation/README.md``. The default skips none.
    save : sequence of str or dict, optional
        Observables to keep at every time in ``t``: names of ``.cq`` methods with arguments behind (``"density"``, ``"marginal q"``,
        ``"entropy mutual"``, ``"expect q*sigmaz"``, ``"conditional_state q=0:1"``), or ``{"name": text or callable(snapshot)}``, the
        snapshot being a Dataset of one time. Full fields are then kept at ``frames`` only, and no others are held in memory.
    frames : array, optional
        Times out of ``t`` at which full fields are kept; default: all, or the last one if ``save`` is given.
    grid_error : bool
        ``fv``: also solve on half the cells per axis and estimate the grid error by Richardson extrapolation (adds about a tenth to a
        half of the time; needs an initial state with a recipe; else the estimate is NaN). ``split`` always reports the content of the
        highest fifth of the modes.
    check : {"error", "warn", "off"}, optional
        Overrides the model's own mode for condition (6).
    progress : bool, optional
        Show a progress bar in model time (where there is no terminal: a plain line every few seconds); default: only in a terminal.
    checkpoint : path, optional
        Folder, which must not hold a run yet, for checkpoints from which :func:`cqpde.resume` goes on to the same bits; ``diagnostics.csv`` in
        it shows the run as it goes. The folder stays until you delete it. While the run goes on, SIGINT and SIGTERM write a checkpoint and
        raise ``Interrupted``, whose ``partial`` is the Dataset of the outputs so far.
    checkpoint_every : float
        Seconds between checkpoints (at most a twentieth of the time goes into writing); 0: after every step.
    max_walltime : float, optional
        Seconds after which the run ends as by a signal, after one more step at least.
    comm : mpi4py communicator, optional
        Share the run between its processes (:mod:`cqpde.parallel`; not with ``positivity="exact"``). All call with the same arguments; the first
        gets the result, the others None. With ``tol`` the split route is of order 4 then, on the cells as given.
    output : path, optional
        A Zarr store (``NAME.zarr``) into which full fields go as they come, so that none stays in memory; with ``comm`` every process writes
        its own cells. The result then reads them lazily, as from :func:`cqpde.load`. Needs ``pip install "cqpde[zarr]"``.
    force : bool
        Run although the frames to keep and the least of work arrays take more than 80 % of the available memory. :func:`cqpde.estimate`
        says more exactly what a run takes.

    Returns
    -------
    xarray.Dataset
        ``rho`` (t, row, col, \*axes), ``escaped`` (t, face, row, col), diagnostics over ``t``; observables through ``.cq``.

    Raises
    ------
    ModelError, GridError, StateError, OptionError
        Before any work: bad coefficients, boundaries without meaning, a state that is not one, unknown options.
    SolverError
        If the state becomes non-finite or loses positivity, or no step meets ``tol``. Nothing is returned then.
    Interrupted
        With ``checkpoint``: by a signal or at ``max_walltime``; the run can be resumed.

    Notes
    -----
    ``split`` moves open ends round like periodic ones; what comes near them is watched (warning from 1e-6 or a tenth of tol, another route or an error
    from 1e-3). Sources: paper, eq. (5); schemes: docstrings of ``cqpde.channels``, ``cqpde.integrate`` and ``cqpde.fv``.

    Examples
    --------
    >>> import cqpde as cq
    >>> model = cq.Model(("x",), 2, L=cq.sigmaz(), D1=[[0.5]], D2=[[0.5]], D0="saturated")
    >>> grid = cq.Grid(x=(-8, 8, 64))
    >>> sol = cq.solve(model, cq.gaussian(grid, 0.0, 0.5, cq.ket("+")), [0, 1])
    >>> float(sol.trace[-1].round(6))
    1.0
    """
    states: list[State] = [rho0] if not isinstance(rho0, list | tuple) else list(rho0)  # type: ignore[list-item]
    times = read_times(t)
    _check_options(model, tol, dt_max, dt, float(times[-1] - times[0]))
    require_word("precision", precision, list(PRECISIONS))
    check_words(method, transport, positivity)
    require_flag("grid_error", grid_error)
    require_flag("force", force)
    if progress is not None:
        require_flag("progress", progress)
    many = require_communicator(comm)
    if not is_number(skip_below) or not 0 <= skip_below < 1:
        raise OptionError("skip_below", "must be a number in [0, 1)", repr(skip_below), "Try 1e-12")
    if skip_below and dt is None:
        raise OptionError("skip_below", "belongs to runs in equal steps (dt=)", "no dt", "Give dt=, or leave skip_below out")
    if precision == "single" and dt is None:
        raise OptionError("precision", "'single' belongs to runs in equal steps (dt=)", "no dt", "Give dt=, or leave precision out")
    make = lambda: keeper_of(checkpoint, checkpoint_every, max_walltime)
    keeper = shared_keeper(comm, make) if many and not isinstance(checkpoint, NoKeeper) else make()
    grid = _check_states(states, model)
    kept_times = frame_times(times, frames, save)
    target = None if output is None else require_output(output)
    if not force:
        _require_room(grid, model.dim, len(states), len(kept_times) if output is None else 1, comm.size if many else 1, precision)
    model.refresh(grid, (float(times[0]), float(times[-1])))
    survey = survey_time(model, grid, float(times[0]), float(times[-1]))
    probes = probe_times(model, times, survey.extremes)
    margin = min(model.check(grid, at, check) for at in probes)
    problem = Problem(
        model, grid, states, times, probes, float(tol), min(survey.longest, _longest(times, dt_max)), survey.jumps, _mode(model, check), progress,
        kept_times, dt, keeper, None if target is None else _store(target, grid, model.dim, times, kept_times, states, rho0, precision, comm if many else None),
        precision, float(skip_below),
    )  # fmt: skip
    savers = savers_of(save, grid, model)
    start = stored_run.start_of(keeper, model.dim)
    if start is None and method != "fv" and positivity is None and dt is None:
        start = settle_states(states, problem.components(), grid, model.dim, RESOLUTION_SHARE * tol)
    route = choose(model, grid, start.unresolved if start else 0.0, probes, np.diff(problem.stops()), method, transport, positivity, problem.nearest)
    if dt is not None and route.transport != "spectral":
        raise OptionError("dt", "belongs to the split route without exact positivity", f"{route.method}: {route.reason}", "Leave dt out")
    single = not isinstance(rho0, list | tuple)
    if many:
        require_slabs(route)
    kept = stored_run.coarse_of(keeper)
    coarse = cache(lambda: kept or (stored_run.coarse_states(states, grid) if grid_error else None))
    if not keeper.resumes:
        options = dict(
            tol=tol, method=method, positivity=positivity, transport=transport, dt_max=dt_max, dt=dt, save=save, frames=frames,
            grid_error=grid_error, check=check, output=None if target is None else str(target), precision=precision, skip_below=skip_below,
        )  # fmt: skip
        begin = lambda: stored_run.begin(keeper, problem, route, single, options, start, coarse)
        together(comm, begin) if many else begin()
    try:
        with graceful_signals(keeper.keeps):
            _open(problem.store, keeper.resumes, comm if many else None)
            fallback = method == "auto" and dt is None
            run = run_on_slabs(problem, route, comm, savers, fallback) if many else run_route(problem, route, problem.components(), start, savers, fallback)
            if not run.resolved and (rough := coarse()) is not None:
                run.recorder.diagnostics["grid_error"][...] = _grid_error(problem, run, rough, comm if many else None)
    except Interrupted as stop:
        stop.partial = _partial(problem, route, single, f"aborted: {stop.found}")
        raise
    except CqpdeError:
        keeper.abandon()
        if problem.store is not None and not keeper.keeps and not (many and comm.rank):
            problem.store.drop()
        raise
    finally:
        keeper.close()
    if many and comm.rank:
        return None  # type: ignore[return-value]
    found = caveats(problem, run)
    squeeze = (lambda a: a[:, 0]) if single else (lambda a: a)
    attrs = {
        "title": f"Hybrid distribution of the model {model.name}",
        "source": f"cqpde {_version()}",
        "model": model.name,
        "model_description": model.description,
        "method": run.route.method,
        "method_reason": run.route.reason,
        "transport": run.transport,
        "positivity": run.positivity,
        "linear_in_state": int(run.linear),
        "time_integration": run.integration,
        "cells_inside": run.cells,
        "tol": float(tol),
        **({} if dt is None else {"dt_fixed": float(dt)}),
        "precision": precision,
        **({"skip_below": float(skip_below), "skipped_error": run.skipped} if skip_below else {}),
        "positivity_margin": margin,
        "largest_peclet": run.peclet,
        **found,
        "initial_state": "; ".join(s.note or "given" for s in states),
        "initial_normalisation": float(states[0].normalisation),
        "applications": int(run.recorder.applications),
        "seconds_compile": run.seconds["compile"],
        "seconds_setup": run.seconds["setup"],
        "seconds_steps": run.seconds["steps"],
        "seconds_diagnostics": run.recorder.seconds,
        "status": "complete",
    }
    from . import observables  # noqa: F401 - registers the accessor .cq

    rest = (
        squeeze(run.recorder.escaped), {k: (squeeze(v) if v.ndim > 1 else v) for k, v in run.recorder.diagnostics.items()},
        run.recorder.saved(single), attrs,
    )  # fmt: skip
    if problem.store is not None:
        return problem.store.finish(*rest)
    return dataset.build(grid, model.dim, times, problem.kept, squeeze(run.recorder.rho), *rest)


def _store(path: Path, grid: Grid, dim: int, times: Array, frames: Array, states: list[State], rho0: Any, precision: str, comm: Any) -> FieldStore:
    """Where the fields go."""
    batch = len(states) if isinstance(rho0, list | tuple) else 0
    return FieldStore(path, grid, dim, times, frames, batch, PRECISIONS[precision], *(() if comm is None else Slabs(comm, grid).even()))


def _open(store: FieldStore | None, resumes: bool, comm: Any) -> None:
    """Make the store, unless a run is resumed, and open it on all processes."""
    if store is None:
        return
    if not resumes:
        store.begin() if comm is None else together(comm, store.begin)
    store.open() if comm is None else agree(comm, store.open)


def _check_states(states: list[State], model: Model) -> Grid:
    if not states:
        raise OptionError("rho0", "needs at least one state", "an empty list", "")
    for state in states:
        check_state(state, model.dim)
    grid = states[0].grid
    if any(s.grid != grid for s in states):
        raise OptionError(
            "rho0", "all states of a batch must be on one grid", "different grids", "Make them with the same Grid"
        )
    return grid


def _require_room(grid: Grid, dim: int, batch: int, frames: int, processes: int, precision: str) -> None:
    """Refuse a run whose frames and least work arrays, three states, do not fit."""
    state = np.dtype(PRECISIONS[precision]).itemsize * float(np.prod(grid.shape)) * dim**2 * batch
    need = state * (2 * frames + LEAST_STATES / processes)
    require_room("Grid", "the run (its frames and the least of work arrays)", need, "Use fewer cells, keep fewer frames (frames=), or go on with force")


def _mode(model: Model, check: str | None) -> str:
    return model.check_mode if check is None else check


def _longest(times: Array, dt_max: float | None) -> float:
    return float(times[-1] - times[0]) if dt_max is None else float(dt_max)


def _partial(problem: Problem, route: Route, single: bool, status: str) -> xr.Dataset | None:
    """The Dataset of the outputs that there are of a run that was stopped; None if there are none."""
    recorder = problem.keeper.recorder
    if not isinstance(recorder, Recorder) or recorder.count == 0 or recorder.store is not None:
        return None
    n, squeeze = recorder.count, (lambda a: a[:, 0]) if single else (lambda a: a)
    times, kept = problem.times[:n], problem.kept[np.isin(problem.kept, problem.times[:n])]
    attrs = {
        "title": f"Hybrid distribution of the model {problem.model.name}, stopped before its end", "source": f"cqpde {_version()}",
        "model": problem.model.name, "model_description": problem.model.description, "method": route.method, "method_reason": route.reason,
        "transport": route.transport, "tol": problem.tol, "initial_state": "; ".join(s.note or "given" for s in problem.states), "status": status,
    }  # fmt: skip
    from . import observables  # noqa: F401 - registers the accessor .cq

    ds = dataset.build(
        problem.grid, problem.model.dim, times, kept, squeeze(recorder.rho[: len(kept)]), squeeze(recorder.escaped[:n]),
        {k: (squeeze(v[:n]) if v.ndim > 1 else v[:n]) for k, v in recorder.diagnostics.items()}, recorder.saved(single), attrs,
    )  # fmt: skip
    return ds if len(kept) else ds.drop_vars("rho").drop_dims("t_frame", errors="ignore")


def _grid_error(problem: Problem, fine: Run, start: stored_run.Coarse, comm: Any) -> Array:
    """Richardson estimate at the frames: a third of the distance to half the cells (a first-order mode: the whole distance)."""
    from scipy.ndimage import map_coordinates

    grid, states = problem.grid, problem.states
    coarse = start.grid
    out = np.full((len(problem.times), len(states)), np.nan)
    error: CqpdeError | str = start.error
    if start.states:
        smaller = replace(problem, store=None, grid=coarse, states=start.states, mode="off", progress=False, keeper=problem.keeper.child("grid_error"))
        try:
            if comm is None:
                run = run_route(smaller, fine.route, smaller.components(), None, {}, fallback=False)
            else:
                run = run_on_slabs(smaller, fine.route, comm, {}, fallback=False)
        except Interrupted:
            raise
        except CqpdeError as why:  # the estimate is a courtesy: its absence is said, and does not end the run
            error = why
    if comm is not None and comm.rank:
        return out
    if error:
        warnings.warn(f"grid_error: could not be estimated on {coarse}: {error}", CqpdeWarning, stacklevel=3)
        return out
    places = [(c.centers - f.centers[0]) / f.spacing for c, f in zip(coarse.axes, grid.axes, strict=True)]
    mesh = np.stack(np.meshgrid(*places, indexing="ij"))
    mode = {True: "grid-wrap", False: "nearest"}[all(a.periodic for a in grid.axes)]
    share = 1.0 if fine.transport == "upwind" else 1.0 / 3.0
    for k, now in enumerate(problem.kept):
        index = int(np.flatnonzero(problem.times == now)[0])
        field = fine.recorder.field(k)
        for b in range(len(states)):
            f = to_components(field[b])
            difference = np.stack([map_coordinates(c, mesh, order=3, mode=mode) for c in f]) - to_components(
                run.recorder.rho[k, b]
            )
            out[index, b] = share * trace_norm_bound(difference.reshape(len(f), -1), 1, coarse.cell_volume)
    return out


def probe_times(model: Model, times: Array, extremes: tuple[float, ...] = ()) -> tuple[float, ...]:
    """Times at which the coefficients are looked at before a run."""
    if not model.time_dependent:
        return (float(times[0]),)
    return tuple(float(x) for x in np.unique(np.concatenate([np.linspace(times[0], times[-1], 17), times, extremes])))


def _check_options(model: Any, tol: Any, dt_max: Any, dt: Any, length: float) -> None:
    if not isinstance(model, Model):
        raise OptionError(
            "model", "must be a cqpde.Model", type(model).__name__, "Make it with cqpde.Model, healed or cqpde.models"
        )
    if not is_number(tol) or not 1e-13 <= tol < 1:
        raise OptionError("tol", "must be a number in [1e-13, 1)", repr(tol), "Try 1e-4")
    for name, value in (("dt_max", dt_max), ("dt", dt)):
        if value is not None:
            require_positive(name, value, "Leave it out to let tol decide")
    if dt is not None and not MOST_STEPS * float(dt) > length:
        raise OptionError("dt", f"must be at least the time of the run / {MOST_STEPS:g}", repr(dt), "Take longer steps")
    if dt is not None and dt_max is not None:
        raise OptionError("dt", "fixes the step, so there is no longest one", f"dt_max = {dt_max}", "Give one of them")


@cache
def _version() -> str:
    from importlib.metadata import version

    return version("cqpde")
