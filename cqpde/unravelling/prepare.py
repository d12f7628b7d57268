"""From the arguments of ``unravel`` to the plan of a run: everything is checked here, before any work."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import OptionError
from ..initial import State, check_state
from ..model import Model
from ..options import read_times, require_flag, require_integer, require_positive, require_word
from ..sampling import sampler_of
from .ends import Ends
from .fields import Fields
from .instrument import kick_moves_itself
from .plan import COARSE, Plan
from .schemes import METHODS
from .statistics import Functions

Array = np.ndarray

#: Names of the variables of a result, which the user's functions must not take.
RESERVED = {
    "operators", "moments", "covariance", "purity", "skewness", "outside", "escaped", "rho", "bias", "bias_covariance", "extrapolated",
    "extrapolated_covariance", "t", "monomial", "operator", "row", "col", "face", "invariant", "trajectory", "arrival",
}  # fmt: skip
PREFIXES = ("rho_", "visits_", "path_", "arrival_", "purity_", "t_path", "monomial_", "operator_")


def prepare(
    model: Model, rho0: State, t: Any, trajectories: int, seed: Any, method: str, dt: float | None, functions: Functions, bias: bool,
    state: str, store: int | None, stored: int | None, arrivals: bool, field: bool, check: str | None,
) -> Plan:  # fmt: skip
    """Check everything before any work and return the plan."""
    if not isinstance(model, Model):
        raise OptionError("model", "must be a cqpde.Model", type(model).__name__, "Make it with cqpde.Model or healed")
    require_word("method", method, METHODS, "must be a known method")
    for flag, given in (("bias", bias), ("arrivals", arrivals), ("field", field)):
        require_flag(flag, given)
    require_integer("trajectories", trajectories, 1)
    require_integer("seed", seed, 0, 2**31)
    for name, value in (("store", store), ("stored", stored)):
        if value is not None:
            require_integer(name, value, 1)
    if stored is not None and store is None:
        raise OptionError("stored", "has no effect without store", stored, "Give store=1 as well")
    if dt is not None:
        require_positive("dt", dt, "Leave it out for the default")
    check_state(rho0, model.dim)
    for name, function in functions.items():
        if not callable(function) or not str(name).isidentifier():
            raise OptionError(f"moments[{name!r}]", "must be a callable under a name that is an identifier", type(function).__name__, "Write {'name': f}")
        if name in RESERVED or str(name).startswith(PREFIXES) or name in rho0.grid.names:
            raise OptionError(f"moments[{name!r}]", "must not have the name of another variable of the result", repr(name), "Choose another name")
    times = read_times(t)
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


def threads_of(threads: int | None) -> int:
    """Number of threads to use."""
    if threads is None:
        import numba

        return int(numba.get_num_threads())
    require_integer("threads", threads, 1)
    return int(threads)


def _representation(fields: Fields, rho0: State, z: Array, probes: Any, method: str, state: str) -> bool:
    """Whether quantum states are held as kets."""
    require_word("state", state, ("auto", "ket", "matrix"), "must be a known form")
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
