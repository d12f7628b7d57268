r"""``cqpde.follow``: a run on a window that goes with the state.

The run is cut into stretches :math:`[t_k, t_{k+1}]`, each an ordinary run of :func:`cqpde.solve` on its own window. With :math:`P_k` the cut to window k and
:math:`\mathcal E_k` the exact evolution on the whole space, which is a contraction in integrated trace norm, what the result leaves out is at most

.. math:: \|\rho(t) - \tilde\rho(t)\| \le \sum_k\left(\|(1 - P_k)\tilde\rho(t_k)\| + e_k\right) + \text{errors of time and cells},

where :math:`e_k` is what escaped through the open ends of window k, or came to them where the route goes round. The first sum is ``window_error``; nothing
is normalised again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import chi

from . import dataset, stored_window
from .checkpoint import keeper_of
from .choice import check_words
from .errors import CqpdeError, Interrupted, OptionError, SolverError, did_you_mean
from .grid import Grid
from .initial import State, check_state
from .model import Model
from .moving import MovingSolution, without_axes
from .observables import probe, read_observable, variable_name
from .options import MODEL, STATE, is_number, read_times, require_flag, require_positive, takes
from .recorder import frame_times
from .signals import asked, graceful_signals
from .solver import solve
from .stretches import Run, moments_of
from .windows import Lattice, following

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

#: Part of ``tol`` that a margin chosen by itself leaves outside the occupied cells.
OUTSIDE = 1e-3

#: Options of ``solve`` that a moving window does not have.
REFUSED = ("comm", "output")

#: Variables that a result has of its own.
OWN = ("rho", "escaped", "mean", "covariance", "window_lower", "window_upper", "window_error", "window_loss")


@takes(model=MODEL, rho0=STATE)
def follow(
    model: Model, rho0: State, t: Any, *, tol: float = 1e-4, margin: float | None = None, save: Mapping[str, str] | Sequence[str] | None = None,
    frames: Any = None, grid_error: bool = True, force: bool = False, checkpoint: Any = None, checkpoint_every: float = 60.0,
    max_walltime: float | None = None, **options: Any,
) -> MovingSolution:  # fmt: skip
    r"""Solve on a moving window, which follows the distribution: a packet that drifts far needs no box for its whole path.

    Axes with two open ends follow; periodic and walled ones stay whole. Windows are cells of one lattice, the grid of ``rho0`` continued along the axes that
    follow. At the start of each stretch the window is laid around the cells that hold all of the state but its tails, wherever its parts are, and around
    where the drift and the noise will carry them; the run on it then says what came to its ends, and a stretch of which too much did is repeated, shorter
    and on a wider window. What a move leaves outside is taken off and added to ``window_error`` by its trace norm; nothing is normalised again.

    Parameters
    ----------
    model : Model
        Without ``cq.sampled`` coefficients, which are known on one box only.
    rho0 : State
        Initial state; its grid gives the widths of the cells and the ends, and needs to hold the initial state only.
    t : array
        Output times, ascending; the first is when ``rho0`` holds.
    tol : float
        Bound of the time error of the whole run, as for :func:`solve`, and of ``window_error``, each in integrated trace norm.
    margin : float, optional
        Standard deviations, of a Gaussian state or of the tails of any other, that a window holds around the state. Default: those that leave a thousandth
        of ``tol`` outside (5.7 over two coordinates for ``tol=1e-4``).
    save : sequence of str or dict, optional
        Observables that do not depend on coordinates (``"purity"``, ``"expect q*sigmaz"``), to keep at every time; :func:`solve` has the names. Mean and
        covariance are always kept.
    frames : array, optional
        Times out of ``t`` at which full fields are kept; default: all.
    grid_error : bool
        As for :func:`solve`; the estimates of the stretches add up for ``fv``.
    force : bool
        Run although the fields take more than 80 % of the available memory.
    checkpoint, checkpoint_every, max_walltime
        As for :func:`solve`; states are kept, and the run can be stopped, at the ends of its stretches. :func:`cqpde.resume` goes on, to the last bit
        (a run that was stopped in its first stretch begins again, where the estimate of the grid error may differ).
    **options
        ``method``, ``positivity``, ``transport``, ``dt``, ``dt_max``, ``check``, ``progress`` of :func:`solve`.

    Returns
    -------
    MovingSolution
        ``at(t)`` is a plain solution on its own coordinates.

    Raises
    ------
    ModelError, GridError, StateError, OptionError
        Before any work: no axis with two open ends, and what :func:`solve` refuses.
    SolverError
        When ``window_error`` would exceed ``tol``, or a stretch cannot be kept inside a window. Nothing is returned then.
    Interrupted
        When it was stopped; ``partial`` is the MovingSolution of the outputs so far.

    Notes
    -----
    The widths of the cells stay what they are: a state that becomes narrower than they resolve is told of as by :func:`solve`, and one that spreads gets
    more cells (the ``split`` route carries it inside on the fewest that do). A state in several parts is held by one window with all between them.

    Examples
    --------
    >>> import cqpde as cq
    >>> model = cq.Model(("x",), 2, L=cq.sigmaz(), D1=[[0.1]], D2=[[0.05]], D0="saturated", D1C=[20.0])
    >>> moving = cq.follow(model, cq.gaussian(cq.Grid(x=(-4, 4, 64)), 0.0, 0.5, cq.ket("+")), [0, 1, 5])
    >>> [round(float(x), 3) for x in moving.mean()[:, 0]], round(moving.at(5).x.attrs["upper"] - moving.at(5).x.attrs["lower"]) < 20
    ([0.0, 20.0, 100.0], True)
    """
    times = read_times(t)
    _check_options(tol, margin, options)
    require_flag("grid_error", grid_error)
    require_flag("force", force)
    check_state(rho0, model.dim)
    model.require_coordinates(rho0.grid)
    if any(c.sampled for c in model.coefficients.values()):
        raise OptionError("model", "must be known wherever the window goes", "coefficients sampled on a grid", "Give them as formulas or callables, or use cqpde.solve")
    follows = following(rho0.grid)
    if not any(follows):
        raise OptionError("rho0", "needs an axis with two open ends for a window to follow along", repr(rho0.grid), "Use cqpde.solve")
    if margin is None:
        margin = float(chi.isf(OUTSIDE * tol, rho0.grid.ndim))
    savers = _savers(save, rho0.grid, model)
    given = dict(options, tol=tol, grid_error=grid_error, force=force, save={**savers, "moments": moments_of})
    keeper = keeper_of(checkpoint, checkpoint_every, max_walltime)
    run = Run(model, rho0, Lattice(rho0.grid, follows), times, frame_times(times, frames, None), tol, margin, given, keeper=keeper)
    if not keeper.resumes:
        kept = {name: value for name, value in options.items() if name != "progress"}
        stored_window.begin(run, dict(kept, tol=tol, margin=margin, grid_error=grid_error, save=save, frames=frames))
    try:
        with graceful_signals(keeper.keeps):
            stored_window.attach(run)
            while run.now < times[-1]:
                run.stretch()
                stored_window.offer(run)
                if asked:
                    why = f"{asked[0]} at t = {run.now:.6g}"
                    raise SolverError("follow", "a run without checkpoint= is not kept, so it cannot be resumed", why, "Run it again")
    except Interrupted as stop:
        stop.partial = MovingSolution(run.dataset()) if any(o.rho is not None for o in run.outputs) else None
        raise
    except CqpdeError:
        keeper.abandon()
        raise
    finally:
        keeper.close()
    return MovingSolution(run.dataset())


def _check_options(tol: Any, margin: Any, options: dict[str, Any]) -> None:
    import inspect

    if not is_number(tol) or not 1e-11 <= tol < 1:
        raise OptionError("tol", "must be a number in [1e-11, 1)", repr(tol), "Try 1e-4")
    if margin is not None:
        require_positive("margin", margin, "Leave it out for what tol needs")
        if not 1 <= margin <= 30:
            raise OptionError("margin", "must be from 1 to 30 standard deviations", margin, "Leave it out for what tol needs")
    known = [n for n in inspect.signature(solve).parameters if n not in ("model", "rho0", "t", *REFUSED)]
    for name in options:
        if name in REFUSED:
            raise OptionError(name, "does not go with a moving window", repr(options[name]), "Leave it out, or use cqpde.solve")
        if name not in known:
            raise OptionError(name, "must be an option of cqpde.follow", repr(options[name]), did_you_mean(name, known))
    check_words(options.get("method", "auto"), options.get("transport"), options.get("positivity"))


def _savers(save: Any, grid: Grid, model: Model) -> dict[str, Callable[[xr.Dataset], xr.DataArray]]:
    """Observables to keep at every time by name, tried on a small state: nothing over coordinates."""
    if not (save is None or isinstance(save, str | Mapping | list | tuple)):
        raise OptionError("save", "must be a list of observables, or a dict of them by name", repr(save), "Write e.g. ['purity']")
    items = [save] if isinstance(save, str) else save or []
    wanted = dict(items) if isinstance(items, Mapping) else {variable_name(str(s)): s for s in items}
    small = probe(grid, model.dim)
    out = {}
    for name, what in wanted.items():
        if not isinstance(what, str):
            raise OptionError("save", "must name observables of .cq", repr(what), "Write e.g. ['purity', 'entropy mutual']")
        if what.split()[:1] in (["conditional_state"], ["probability"]):
            raise OptionError("save", "must not name places, which a moving window leaves", repr(what), "Take it from at(t)")
        if not isinstance(name, str) or variable_name(name) != name or name in (*dataset.DIAGNOSTICS, *grid.names, *OWN):
            raise OptionError("save", "needs a free name of letters, digits and _ for each", repr(name), "Write {'name': 'observable'}")
        out[name] = read_observable(what, grid.names, model)
        without_axes(what, out[name](small), small)
    return out
