"""``cqpde.solve``: the full hybrid distribution at the times asked for, with its diagnostics."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import dataset
from .components import min_eigenvalues, to_components, to_matrix
from .errors import CqpdeError, CqpdeWarning, OptionError, SolverError, did_you_mean
from .fv.assemble import layout
from .fv.generator import TRANSPORTS
from .grid import Grid
from .initial import State, check_state, edge_probabilities
from .integrate.evolve import Frame, Propagator, evolve, trace_norm_bound
from .model import Model

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

METHODS = ("auto", "fv")

#: A result below this smallest eigenvalue (relative to the largest trace) is not positive and not returned.
POSITIVITY = -1e-10

#: Probability that may leave through open ends, or sit in their outermost cells, without a warning.
ESCAPE_WARNING = 1e-6


def solve(
    model: Model,
    rho0: State | Sequence[State],
    t: Any,
    *,
    tol: float = 1e-4,
    method: str = "auto",
    transport: str = "limited",
    dt_max: float | None = None,
    save: Mapping[str, Any] | Sequence[str] | None = None,
    frames: Any = None,
    grid_error: bool = True,
    check: str | None = None,
    progress: bool | None = None,
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
        Bound of the time error of the whole run, in integrated trace norm. Says nothing of the grid: see ``grid_error``.
    method : {"auto", "fv"}
        ``"fv"`` is the general Kraus finite-volume scheme (order 2 in space, completely positive on any grid). ``"auto"`` takes it
        and says why.
    transport : {"limited", "upwind", "linear"}
        Drift along axes without noise. ``limited``: positive, conservative, order >= 2, not linear in the state; ``upwind``: linear,
        completely positive, order 1; ``linear``: linear, order 4, trace-exact, not exactly positive. An error if given (other than
        the default) for a model in which no axis drifts without noise.
    dt_max : float, optional
        Longest step.
    save : sequence of str or dict, optional
        Observables to keep at every time in ``t``: names of ``.cq`` methods with arguments after a space (``"density"``,
        ``"marginal q"``, ``"purity"``) or ``{"name": callable(snapshot)}``, the snapshot being a Dataset of one time. Full fields are
        then kept at ``frames`` only.
    frames : array, optional
        Times out of ``t`` at which full fields are kept; default: all, or the last one if ``save`` is given.
    grid_error : bool
        Also solve on half the cells per axis and estimate the grid error by Richardson extrapolation (adds about a tenth to a half
        of the time). Needs an initial state with a recipe; else the estimate is NaN.
    check : {"error", "warn", "off"}, optional
        Overrides the model's own mode for condition (6).
    progress : bool, optional
        Show a progress bar in model time; default: only in a terminal.

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

    Notes
    -----
    Order 2 in the cell size; positivity to round-off at any size (``limited``, ``upwind``). Fails, with a message, for correlated
    noise that is singular or too anisotropic in cells. Source: paper, eq. (5); scheme: docstrings of ``cqpde.fv``.

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
    times = _times(t)
    _check_options(model, tol, method, transport, dt_max)
    if not states:
        raise OptionError("rho0", "needs at least one state", "an empty list", "")
    for state in states:
        check_state(state, model.dim)
    grid = states[0].grid
    if any(s.grid != grid for s in states):
        raise OptionError(
            "rho0", "all states of a batch must be on one grid", "different grids", "Make them with the same Grid"
        )
    probes = _probe_times(model, times)
    margin = min(model.check(grid, at, check) for at in probes)
    plan = layout(model, grid, probes)
    if transport != "limited" and not plan.drifting:
        raise OptionError("transport", "has no effect: no axis drifts without noise", repr(transport), "Leave it out")
    kept = _frame_times(times, frames, save)
    savers = _savers(save)

    began = time.perf_counter()
    run = _run(model, grid, states, times, plan, transport, tol, dt_max, progress, kept, savers, began, check)
    estimate = np.full((len(times), len(states)), np.nan)
    if grid_error and all(s.recipe is not None for s in states):
        estimate = _grid_error(model, grid, states, times, transport, tol, dt_max, kept, run)
    run.diagnostics["grid_error"] = estimate
    _warn(model, grid, run, transport)
    single = not isinstance(rho0, list | tuple)
    squeeze = (lambda a: a[:, 0]) if single else (lambda a: a)
    attrs = {
        "title": f"Hybrid distribution of the model {model.name}",
        "source": f"cqpde {_version()}",
        "model": model.name,
        "model_description": model.description,
        "method": "fv",
        "method_reason": "the finite-volume route is the general one" if method == "auto" else "asked for",
        "transport": transport if plan.drifting else "none (no axis drifts without noise)",
        "time_integration": "exponential to round-off"
        if run.exact
        else "symmetric splitting, order 2, error controlled",
        "tol": float(tol),
        "positivity_margin": margin,
        "largest_peclet": run.peclet,
        "initial_state": "; ".join(s.note or "given" for s in states),
        "initial_normalisation": float(states[0].normalisation),
        "applications": int(run.applications),
        "status": "complete",
    }
    return dataset.build(
        grid, model.dim, times, kept, squeeze(run.rho), squeeze(run.escaped),
        {k: (squeeze(v) if v.ndim == 2 else v) for k, v in run.diagnostics.items()},
        run.saved(single), attrs,
    )  # fmt: skip


class _Run:
    """Collects frames, escaped matrices, diagnostics and saved observables while a run goes on."""

    def __init__(
        self, grid: Grid, dim: int, batch: int, times: Array, kept: Array, savers: dict[str, Callable[..., Any]]
    ) -> None:
        self.grid, self.dim, self.batch, self.times, self.kept, self.savers = grid, dim, batch, times, kept, savers
        self.rho = np.empty((len(kept), batch, dim, dim, *grid.shape), dtype=complex)
        self.escaped = np.empty((len(times), batch, 2 * grid.ndim, dim, dim), dtype=complex)
        self.diagnostics: dict[str, Array] = {
            name: np.full((len(times), batch) if name in _PER_STATE else (len(times),), np.nan)
            for name in dataset.DIAGNOSTICS
        }
        self._saved: dict[str, list[Any]] = {name: [] for name in savers}
        self.exact, self.peclet, self.applications = True, 0.0, 0

    def add(self, frame: Frame, began: float) -> None:
        """Record one output."""
        k, cells = frame.index, self.grid.shape
        matrices = to_matrix(frame.x.reshape(self.dim**2, self.batch, *cells))
        rho = np.moveaxis(matrices, 2, 0)
        self.escaped[k] = np.moveaxis(to_matrix(np.moveaxis(frame.escaped, -1, 0)), (0, 1), (-2, -1))
        density = np.real(np.einsum("baa...->b...", rho))
        largest = density.reshape(self.batch, -1).max(axis=1)
        smallest = min_eigenvalues(frame.x.reshape(self.dim**2, self.batch, *cells)).reshape(self.batch, -1).min(axis=1)
        d = self.diagnostics
        d["trace"][k] = density.reshape(self.batch, -1).sum(axis=1) * self.grid.cell_volume
        d["min_eigenvalue"][k] = smallest / largest
        defect = np.abs(rho - np.conj(np.swapaxes(rho, 1, 2))).reshape(self.batch, -1).max(axis=1)
        d["hermiticity_defect"][k] = defect / largest
        d["escaped_probability"][k] = np.real(np.einsum("bfaa->b", self.escaped[k]))
        for b in range(self.batch):
            edges = [amount for _, kind, amount in edge_probabilities(self.grid, density[b]) if kind == "open"]
            d["edge_probability"][k, b] = sum(edges)
        p = frame.progress
        for name, value in (
            ("time_error", p.time_error),
            ("dt", p.dt),
            ("steps", p.steps),
            ("steps_rejected", p.rejected),
        ):
            d[name][k] = value
        d["wall_seconds"][k] = time.perf_counter() - began
        self.applications = p.applications
        match = np.flatnonzero(self.kept == frame.t)
        if len(match):
            self.rho[match[0]] = rho
        if self.savers:
            view = dataset.snapshot(self.grid, self.dim, frame.t, rho)
            for name, function in self.savers.items():
                self._saved[name].append(function(view))

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


_PER_STATE = ("trace", "min_eigenvalue", "hermiticity_defect", "escaped_probability", "edge_probability", "grid_error")


def _run(
    model: Model, grid: Grid, states: list[State], times: Array, plan: Any, transport: str, tol: float, dt_max: float | None,
    progress: bool | None, kept: Array, savers: dict[str, Any], began: float, check: str | None,
) -> _Run:  # fmt: skip
    from tqdm import tqdm

    propagator = Propagator(model, grid, plan, transport, float(times[0]))
    collected = _Run(grid, model.dim, len(states), times, kept, savers)
    x = np.stack([to_components(s.rho).reshape(model.dim**2, -1) for s in states], axis=1).reshape(model.dim**2, -1)
    positive = transport != "linear" or not plan.drifting
    strict = positive and (model.check_mode if check is None else check) == "error"
    longest = float(times[-1] - times[0]) if dt_max is None else dt_max
    with tqdm(
        total=float(times[-1] - times[0]),
        desc="t",
        unit="",
        disable=None if progress is None else not progress,
        leave=False,
    ) as bar:
        for frame in evolve(
            propagator, x, len(states), times, tol, longest or 1.0, lambda now: bar.update(now - times[0] - bar.n)
        ):
            collected.add(frame, began)
            lowest = float(collected.diagnostics["min_eigenvalue"][frame.index].min())
            if strict and lowest < POSITIVITY:
                raise SolverError(
                    "rho",
                    "must stay positive semi-definite",
                    f"eigenvalue {lowest:.3g} of the largest trace at t = {frame.t:.6g}",
                    "This is a defect of the scheme: please report the model",
                )
    collected.exact, collected.peclet = propagator.exact, propagator.peclet
    return collected


def _grid_error(
    model: Model,
    grid: Grid,
    states: list[State],
    times: Array,
    transport: str,
    tol: float,
    dt_max: float | None,
    kept: Array,
    fine: _Run,
) -> Array:
    """Richardson estimate at the frames: a third of the distance to half the cells (a first-order mode: the whole distance)."""
    from scipy.ndimage import map_coordinates

    coarse = grid.coarsened()
    out = np.full((len(times), len(states)), np.nan)
    try:
        coarse_states = [s.on(coarse) for s in states]
        plan = layout(model, coarse, _probe_times(model, times))
        run = _run(model, coarse, coarse_states, times, plan, transport, tol, dt_max, False, kept, {}, 0.0, "off")
    except CqpdeError as error:  # the estimate is a courtesy: its absence is said, and does not end the run
        warnings.warn(f"grid_error: could not be estimated on {coarse}: {error}", CqpdeWarning, stacklevel=3)
        return out
    places = [(c.centers - f.centers[0]) / f.spacing for c, f in zip(coarse.axes, grid.axes, strict=True)]
    mesh = np.stack(np.meshgrid(*places, indexing="ij"))
    mode = {True: "grid-wrap", False: "nearest"}[all(a.periodic for a in grid.axes)]
    share = 1.0 if transport == "upwind" and plan.drifting else 1.0 / 3.0
    for k, now in enumerate(kept):
        index = int(np.flatnonzero(times == now)[0])
        for b in range(len(states)):
            f = to_components(fine.rho[k, b])
            difference = np.stack([map_coordinates(c, mesh, order=3, mode=mode) for c in f]) - to_components(
                run.rho[k, b]
            )
            out[index, b] = share * trace_norm_bound(difference.reshape(len(f), -1), 1, coarse.cell_volume)
    return out


def _warn(model: Model, grid: Grid, run: _Run, transport: str) -> None:
    d = run.diagnostics
    open_faces = [i for i, end in enumerate(e for a in grid.axes for e in a.ends) if end.kind == "open"]
    leaked = np.real(np.einsum("bfaa->bf", run.escaped[-1])).max(axis=0)
    names = dataset.face_names(grid)
    through = [f"{names[i]}: {leaked[i]:.2g}" for i in open_faces if leaked[i] > ESCAPE_WARNING]
    if through:
        warnings.warn(
            f"probability left through open ends ({', '.join(through)}). Widen the box (Grid.suggest) or say what the ends do",
            CqpdeWarning,
            stacklevel=3,
        )
    if run.peclet > 2.0:
        warnings.warn(
            f"the largest cell-Peclet number h|B|/s is {run.peclet:.3g} (above 2): the result stays physical but the grid adds noise there. Use more cells along noisy axes",
            CqpdeWarning, stacklevel=3,
        )  # fmt: skip
    lowest = float(d["min_eigenvalue"].min())
    if lowest < POSITIVITY:
        why = (
            "linear transport is not exactly positive"
            if transport == "linear"
            else "the model is not completely positive"
        )
        warnings.warn(
            f"rho is not positive: smallest eigenvalue {lowest:.3g} of the largest trace ({why})",
            CqpdeWarning,
            stacklevel=3,
        )


def _times(t: Any) -> Array:
    try:
        times = np.array(t, dtype=float).reshape(-1)
    except (TypeError, ValueError):
        raise OptionError("t", "must be numbers", repr(t), "Write e.g. np.linspace(0, 1, 11)") from None
    if len(times) < 2 or not np.all(np.isfinite(times)) or np.any(np.diff(times) <= 0):
        raise OptionError(
            "t",
            "must be at least two finite ascending times, the first being the start",
            np.array2string(times, threshold=6),
            "Sort them and remove duplicates",
        )
    return times


def _probe_times(model: Model, times: Array) -> tuple[float, ...]:
    if not model.time_dependent:
        return (float(times[0]),)
    return tuple(float(x) for x in np.unique(np.concatenate([np.linspace(times[0], times[-1], 17), times])))


def _check_options(model: Any, tol: Any, method: Any, transport: Any, dt_max: Any) -> None:
    if not isinstance(model, Model):
        raise OptionError(
            "model", "must be a cqpde.Model", type(model).__name__, "Make it with cqpde.Model, healed or cqpde.models"
        )
    if method not in METHODS:
        raise OptionError("method", "must be a known method", repr(method), did_you_mean(str(method), METHODS))
    if transport not in TRANSPORTS:
        raise OptionError(
            "transport", "must be a known mode", repr(transport), did_you_mean(str(transport), TRANSPORTS)
        )
    if isinstance(tol, bool) or not isinstance(tol, int | float | np.number) or not 1e-13 <= tol < 1:
        raise OptionError("tol", "must be a number in [1e-13, 1)", repr(tol), "Try 1e-4")
    if dt_max is not None and not (isinstance(dt_max, int | float | np.number) and 0 < dt_max < np.inf):
        raise OptionError("dt_max", "must be a positive number", repr(dt_max), "Leave it out to let tol decide")


def _frame_times(times: Array, frames: Any, save: Any) -> Array:
    if frames is None:
        return times if save is None else times[-1:]
    kept = np.array(frames, dtype=float).reshape(-1)
    missing = [float(f) for f in kept if f not in times]
    if missing or len(kept) == 0:
        raise OptionError("frames", "must be times out of t", missing or "none", "Take them from the same array")
    return np.unique(kept)


def _savers(save: Any) -> dict[str, Callable[..., Any]]:
    from .observables import METHODS as known

    if save is None:
        return {}
    if isinstance(save, str):
        save = [save]
    if isinstance(save, Mapping):
        items = list(save.items())
    else:
        items = [(str(s).replace(" ", "_"), s) for s in save]
    out: dict[str, Callable[..., Any]] = {}
    for name, what in items:
        if callable(what):
            out[str(name)] = what
            continue
        words = str(what).split()
        if not words or words[0] not in known:
            raise OptionError(
                "save", "must name an observable of .cq or be a callable", repr(what), did_you_mean(str(what), known)
            )
        out[str(name)] = lambda view, w=words: getattr(view.cq, w[0])(*w[1:])
    return out


def _version() -> str:
    from importlib.metadata import version

    return version("cqpde")
