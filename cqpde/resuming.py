"""``cqpde.resume``: go on with a run or an ensemble from its last checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoint import Keeper
from .communicator import require_communicator, shared_reopen
from .errors import FileError, OptionError
from .initial import State
from .model import Model

if TYPE_CHECKING:
    import xarray as xr


def resume(
    checkpoint: str | PathLike[str],
    model: Model | None = None,
    rho0: State | None = None,
    *,
    save: Mapping[str, Any] | None = None,
    moments: Mapping[str, Any] | None = None,
    checkpoint_every: float = 60.0,
    max_walltime: float | None = None,
    threads: int | None = None,
    progress: bool | None = None,
    comm: Any = None,
) -> xr.Dataset:
    """Go on with a run of :func:`cqpde.solve`, :func:`cqpde.follow` or :func:`cqpde.unravel` that was stopped: by a signal, a crash, a loss of power, a full disk.

    The result is that of a run that was never stopped, to the last bit (but for wall-clock times), for any number of threads. A finished run
    gives its result again. If the newest checkpoint is damaged, the one before it is used, with a warning.

    Parameters
    ----------
    checkpoint : path
        The folder that was given as ``checkpoint=``, or ``OUT.nc.run`` of ``cqpde run``.
    model : Model, optional
        Needed where coefficients were given as Python functions, which are not kept; sampled values are compared, to the last bit.
    rho0 : State, optional
        Needed for an ensemble whose initial state was given by Python functions.
    save, moments : dict, optional
        Needed where they hold Python functions; refused where they do not.
    checkpoint_every, max_walltime, threads, progress, comm
        As for ``solve`` and ``unravel``. The number of processes may be another one (but a run of the split route with step control goes on on
        one process where it was begun on one, and on several where it was begun on several).

    Returns
    -------
    xarray.Dataset or MovingSolution

    Raises
    ------
    FileError
        If there is no run or no good checkpoint in the folder, it is damaged, in use, or of another version. It is never begun anew.
    OptionError, ModelError
        If something that must be given again is missing, or is not what the run was begun with.
    Interrupted, SolverError
        As for ``solve`` and ``unravel``.

    Examples
    --------
    >>> import tempfile, cqpde as cq
    >>> grid = cq.Grid(q=(-6, 6, 48), p=(-9, 9, 48))
    >>> folder = tempfile.mkdtemp() + "/run"
    >>> rho0 = cq.gaussian(grid, 0, 0.5, cq.ket("+"))
    >>> sol = cq.solve(cq.models.linear_diosi(), rho0, [0, 0.2], checkpoint=folder, checkpoint_every=0)
    >>> bool((cq.resume(folder).rho == sol.rho).all())
    True
    """
    return resumed(Keeper(Path(checkpoint), checkpoint_every, max_walltime), model, rho0, save, moments, threads, progress, comm)


def resumed(
    keeper: Keeper, model: Model | None = None, rho0: State | None = None, save: Any = None, moments: Any = None, threads: int | None = None,
    progress: bool | None = None, comm: Any = None,
) -> Any:  # fmt: skip
    """Go on with the run that ``keeper`` keeps; see :func:`resume`."""
    many = require_communicator(comm)
    kept: Any = keeper
    try:
        if many:
            kept = shared_reopen(comm, keeper)
        else:
            keeper.reopen()
        kind = (kept.record or {}).get("kind")
        if kind in ("solve", "follow"):
            from . import stored_run
            from .following import follow
            from .solver import solve

            for name, given in (("rho0", rho0), ("moments", moments)):
                if given is not None:
                    raise OptionError(name, "belongs to an ensemble", f"a run of cqpde.{kind}", "Leave it out")
            if kind == "follow" and many:
                raise OptionError("comm", "a moving window runs in one process", f"{comm.size} processes", "Resume it without mpiexec")
            found, states, times, options = stored_run.reopened(kept, model, save)
            if kind == "follow":
                return follow(found, states, times, **options, progress=progress, checkpoint=kept, force=True)
            return solve(found, states, times, **options, progress=progress, checkpoint=kept, comm=comm, force=True)
        if kind == "ensemble":
            from .unravelling.stored import resume_ensemble

            if save is not None:
                raise OptionError("save", "belongs to cqpde.solve", "an ensemble", "Leave it out")
            return resume_ensemble(kept, model, rho0, moments, threads, progress, comm)
        raise FileError(str(keeper.folder), "must hold a run or an ensemble", repr(kind)[:80], "It is damaged")
    finally:
        keeper.close()
