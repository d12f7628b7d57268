"""More trajectories for an ensemble, and functions of stored paths."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..coefficients import Point
from ..communicator import require_communicator
from ..errors import OptionError
from ..initial import State
from ..model import Model
from ..options import DATASET, MODEL, STATE, TEXT, takes
from .plan import CHUNK, Part, Plan
from .prepare import prepare, threads_of
from .result import build, fingerprint, read
from .run import run_chunks
from .sharing import require_client, share_of_threads

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray


@takes(ens=DATASET, model=MODEL, rho0=STATE)
def extend(
    ens: xr.Dataset,
    model: Model,
    rho0: State,
    trajectories: int,
    *,
    moments: Mapping[str, Callable[[Point, Array], Any]] | None = None,
    threads: int | None = None,
    progress: bool | None = None,
    comm: Any = None,
    client: Any = None,
) -> xr.Dataset:
    """Add trajectories to an ensemble, with its own seed, method, step and times; the new ones are independent of the old.

    Parameters
    ----------
    ens : Dataset
        A result of :func:`cqpde.unravel`, also one that was loaded from a file. Stored paths and arrivals are not continued.
    model, rho0 : Model, State
        What it was made with; sampled values are compared.
    trajectories : int
        How many to add.
    moments : dict of callable
        The functions that ``ens`` was made with, if any.
    comm, client
        As for :func:`cqpde.unravel`; with ``comm`` all pass the ensemble.

    Returns
    -------
    xarray.Dataset
        Of all trajectories. Where ``ens`` holds whole chunks (of 4096), the new trajectories are those that a single run would have made.

    Raises
    ------
    OptionError
        If model, state or functions are not those of the ensemble.
    """
    began, many = time.perf_counter(), require_communicator(comm)
    require_client(client, comm, threads)
    old = read(ens)
    a = ens.attrs
    functions = dict(moments or {})
    if " ".join(functions) != a["functions"]:
        raise OptionError("moments", "must be the functions of the ensemble", " ".join(functions) or "none", f"It has: {a['functions'] or 'none'}")
    plan: Plan = prepare(
        model, rho0, ens["t"].values, trajectories, int(a["seed"]), str(a["method"]), float(a["dt"]), functions, bool(a["coarse_factor"]),
        str(a["quantum_state"]), None, None, False, "rho" in ens, None,
    )  # fmt: skip
    if fingerprint(model, plan) != a["fingerprint"] or int(a["chunk"]) != CHUNK:
        raise OptionError("ens", "must come from this model, state and version", a["fingerprint"], "Pass the same model and rho0")
    workers = threads_of(share_of_threads(threads, comm))
    parts = run_chunks(plan, int(a["chunks"]), int(trajectories), workers, progress, None, comm if many else None, client)
    if many and comm.rank:
        return None  # type: ignore[return-value]
    for mine, its in zip(old, parts[0].snapshots, strict=True):
        mine.merge(its)
    out = build(plan, [Part(old)], float(a["wall_seconds"]) + time.perf_counter() - began)
    out.attrs["chunks"] = int(a["chunks"]) - (-int(trajectories) // CHUNK)
    return out


@takes(ens=DATASET, first=TEXT)
def correlation(ens: xr.Dataset, first: str, second: str | None = None) -> xr.DataArray:
    r"""Two-time correlation :math:`E[a(t_1)\,b(t_2)] - E[a(t_1)]E[b(t_2)]` of coordinates along stored paths.

    Parameters
    ----------
    ens : Dataset
        An ensemble made with ``store=``.
    first, second : str
        Names of coordinates; ``second`` defaults to ``first``.

    Returns
    -------
    xarray.DataArray
        dims (t_path, t_path_2). Trajectories that were absorbed at one of the two times are left out.
    """
    import xarray as xr

    if second is not None:
        TEXT("second", second)
    a, b = (_path(ens, name) for name in (first, second or first))
    good = np.isfinite(a).astype(float)
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    pairs = good.T @ good
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (a.T @ b) / pairs - (a.T @ good) / pairs * (good.T @ b) / pairs
    out = xr.DataArray(value, dims=("t_path", "t_path_2"), coords={"t_path": ens["t_path"].values, "t_path_2": ens["t_path"].values})
    out.attrs = {"long_name": f"two-time correlation of {first} and {second or first}", "units": "1"}
    return out


@takes(ens=DATASET, name=TEXT)
def spectrum(ens: xr.Dataset, name: str) -> xr.DataArray:
    r"""Spectrum of the record: the mean periodogram of the increments of a coordinate along stored paths,

    .. math:: S(\omega) = E\left[\frac{1}{T}\left|\sum_k e^{i\omega t_k}\,\Delta a_k\right|^2\right].

    White noise of strength ``s`` (variance per unit time) gives S = s at all frequencies; the mean increment is not removed.

    Parameters
    ----------
    ens : Dataset
        An ensemble made with ``store=``, at equal steps.
    name : str
        A coordinate.

    Returns
    -------
    xarray.DataArray
        dims (frequency,), angular frequencies from 0 up to the Nyquist one, with ``standard_error`` as a coordinate.
    """
    import xarray as xr

    path, times = _path(ens, name), ens["t_path"].values
    steps = np.diff(times)
    if len(steps) < 1 or np.ptp(steps) > 1e-9 * steps.max():
        raise OptionError("ens", "must have paths at equal steps", f"{len(times)} times", "Use equally spaced t and store= that divides the steps")
    path = path[np.isfinite(path).all(axis=1)]
    power = np.abs(np.fft.rfft(np.diff(path, axis=1), axis=1)) ** 2 / (times[-1] - times[0])
    omega = 2 * np.pi * np.fft.rfftfreq(len(steps), steps[0])
    out = xr.DataArray(power.mean(axis=0), dims=("frequency",), coords={"frequency": omega})
    out.coords["standard_error"] = ("frequency", power.std(axis=0) / np.sqrt(len(power)))
    out.attrs = {"long_name": f"spectrum of the record of {name}", "units": "1"}
    return out


def _path(ens: xr.Dataset, name: str) -> Array:
    if f"path_{name}" not in ens:
        known = [str(v)[5:] for v in ens.data_vars if str(v).startswith("path_") and v != "path_rho"]
        raise OptionError("name", "must be a coordinate with stored paths", repr(name), f"Stored: {', '.join(known) or 'none; use store='}")
    return np.asarray(ens[f"path_{name}"].values)
