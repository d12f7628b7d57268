"""A user's own trajectories as arrays: read and checked before anything is compared (format: :func:`cqpde.validate`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import OptionError
from .grid import Grid

Array = np.ndarray

FORMAT = "Give a dict of t (T,), z (N, T, n) or {name: (N, T)}, and one of rho (N, T, d, d), psi (N, T, d)"


def times_of(arrays: Any) -> Array:
    """The times (T,) of a user's arrays."""
    if not isinstance(arrays, Mapping) or not {"t", "z"} <= set(arrays) or ("rho" in arrays) == ("psi" in arrays):
        found = sorted(map(str, arrays)) if isinstance(arrays, Mapping) else type(arrays).__name__
        raise OptionError("ens", "must be an ensemble, or arrays as a dict of t, z and one of rho, psi", found, FORMAT)
    return np.atleast_1d(_numbers("t", arrays["t"], float))


def points_and_states(arrays: Any, grid: Grid, d: int, t: float) -> tuple[Array, Array]:
    """Points (N, n) and density matrices (N, d, d) at one of the times."""
    times = times_of(arrays)
    z, name = arrays["z"], "rho" if "rho" in arrays else "psi"
    if isinstance(z, Mapping):
        if set(z) != set(grid.names):
            raise OptionError("ens['z']", f"must have the coordinates {', '.join(grid.names)}", sorted(map(str, z)), FORMAT)
        parts = [_numbers(f"z['{c}']", z[c], float) for c in grid.names]
        if len({p.shape for p in parts}) > 1:
            raise OptionError("ens['z']", "all coordinates must have the same shape", [p.shape for p in parts], FORMAT)
        z = np.stack(parts, axis=-1)
    z, state = _numbers("z", z, float), _numbers(name, arrays[name], complex)
    tail = (d, d) if name == "rho" else (d,)
    if z.ndim != 3 or z.shape[1:] != (len(times), grid.ndim) or state.shape != (*z.shape[:2], *tail) or len(z) < 2:
        raise OptionError(
            "ens", f"z must be (N > 1, {len(times)}, {grid.ndim}) and {name} (N, {len(times)}, {', '.join(map(str, tail))})",
            f"{z.shape} and {state.shape}", "One row per trajectory",
        )  # fmt: skip
    index = int(np.flatnonzero(np.isclose(times, t, rtol=1e-12, atol=1e-12))[0])
    z, state = z[:, index], state[:, index]
    if name == "psi":
        return z, np.einsum("ma,mb->mab", state, state.conj())
    with np.errstate(invalid="ignore"):
        defect = np.abs(state - state.conj().swapaxes(1, 2)).max(axis=(1, 2)) > 1e-6 * np.abs(state).max(axis=(1, 2))
    if defect.any():  # NaN compares as false: it is found later
        raise OptionError("ens['rho']", "density matrices must be Hermitian", f"{int(defect.sum())} of {len(z)} are not", "Is a row a column?")
    return z, state


def _numbers(name: str, value: Any, kind: type) -> Array:
    try:
        array = np.asarray(value)
        if array.dtype == object or (kind is float and np.iscomplexobj(array)):
            raise TypeError
        return array.astype(kind)
    except (TypeError, ValueError):
        rule = "real numbers" if kind is float else "numbers"
        raise OptionError(f"ens['{name}']" if "[" not in name else f"ens.{name}", f"must be an array of {rule}", type(value).__name__, FORMAT) from None
