"""What a file must be before anything of it is used: no larger than it can be, with the attributes and variables that its kind has."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .dataset import DIAGNOSTICS
from .errors import CqpdeWarning, FileError

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

#: No compression of netCDF-4 packs more tightly: a file that claims more holds what was never written.
MOST_PACKED, SPARE = 1100, 1 << 20

#: Attributes that are texts, and those that are numbers, where a file has them.
TEXTS = ("kind", "model", "method", "transport", "positivity", "title", "status", "cqpde_config", "history", "source", "verdict", "reasons")
NUMBERS = ("tol", "p_value", "trajectories", "seed", "dt")

#: What the kinds of files must have: attributes, variables.
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "solution": ((), ()),
    "ensemble": ((), ()),
    "report": (("verdict", "p_value", "reasons"), ()),
    "product sum": ((), ("kets_re", "kets_im", "weights_re", "kind_of_site")),
    "moving window": (
        ("model", "method", "method_reason", "tol", "resolution", "stretches", "repeated", "most_cells"),
        ("rho_re", "escaped_re", "mean", "covariance", "window_lower", "window_upper", "window_error", "window_loss_re", *DIAGNOSTICS),
    ),
}


#: Defects of a stored field that are warned of, relative to its largest Tr rho: not Hermitian, negative beyond what its monitors say, or without any.
HERMITIAN, BEYOND_MONITOR, NEGATIVE = 1e-9, 1e-6, 1e-2


def check_claims(path: str | Path) -> None:
    """Refuse a netCDF file that declares far more than it can hold, before any of that is allocated."""
    import netCDF4
    from xarray.backends.netCDF4_ import NETCDF4_PYTHON_LOCK  # held by threads that read other files piece by piece

    room = MOST_PACKED * Path(path).stat().st_size + SPARE
    with NETCDF4_PYTHON_LOCK, netCDF4.Dataset(str(path)) as stored:
        claimed = sum(int(np.prod([float(n) for n in v.shape])) * max(1, getattr(v.dtype, "itemsize", 1)) for v in stored.variables.values())
    if claimed > room:
        raise FileError(str(path), "must not declare more than it can hold", f"{claimed:.3g} bytes in a file of {Path(path).stat().st_size}", "The file is damaged")


def check_content(stored: xr.Dataset, path: str | Path, diagnostics: dict[str, str]) -> None:
    """Refuse attributes of the wrong type, fields of other dimensions or types, times that do not ascend, and kinds without what they need."""

    def refuse(rule: str, found: Any) -> None:
        raise FileError(str(path), rule, repr(found), "The file is damaged, or none of cqpde's")

    for name in TEXTS:
        if name in stored.attrs and not isinstance(stored.attrs[name], str):
            refuse(f"the attribute {name} must be a text", stored.attrs[name])
    for name in NUMBERS:
        if name in stored.attrs and not isinstance(stored.attrs[name], int | float | np.number):
            refuse(f"the attribute {name} must be a number", stored.attrs[name])
    kind = stored.attrs.get("kind", "solution")
    attributes, variables = KINDS.get(kind, ((), ()))
    for name in attributes:
        if name not in stored.attrs:
            refuse(f"a {kind} must have the attribute {name}", "none")
    for name in variables:
        if name not in stored.variables:
            refuse(f"a {kind} must have the variable {name}", "none")
    times = stored["t"].values
    if times.dtype.kind != "f" or not np.all(np.isfinite(times)) or np.any(np.diff(times) <= 0):
        refuse("the times t must be finite and ascend", times[:6])
    axes = [str(name) for name, c in stored.coords.items() if "axis_index" in c.attrs]
    if sorted(int(stored[a].attrs["axis_index"]) for a in axes) != list(range(len(axes))):
        refuse("the axes must be numbered from 0", [stored[a].attrs["axis_index"] for a in axes])
    if "rho_re" in stored or "rho_im" in stored:
        if "rho_re" not in stored or "rho_im" not in stored:
            refuse("a complex field must have its real and its imaginary part", "one of rho_re and rho_im")
        order = sorted(axes, key=lambda a: int(stored[a].attrs["axis_index"]))
        for part in ("rho_re", "rho_im"):
            dims = tuple(map(str, stored[part].dims))
            middle = ("batch",) if "batch" in dims else ()
            if dims not in {(t, *middle, "row", "col", *order) for t in ("t", "t_frame")} or stored[part].dtype.kind != "f":
                refuse(f"{part} must be a field of real numbers over t, row, col, {', '.join(order)}", f"{stored[part].dtype} over {dims}")
    if kind == "moving window":
        _check_windows(stored, sorted(axes, key=lambda a: int(stored[a].attrs["axis_index"])), refuse)
    config, digest = stored.attrs.get("cqpde_config"), stored.attrs.get("cqpde_config_sha256")
    if config is not None and digest is not None and hashlib.sha256(config.encode()).hexdigest() != digest:
        warnings.warn(f"{path}: its configuration is not the one that it was written with (another SHA-256): the fields may be of another model", CqpdeWarning, stacklevel=3)
    for name in diagnostics:
        if name in stored and stored[name].dtype.kind not in "fiu":
            refuse(f"{name} must be numbers", stored[name].dtype)


def _check_windows(stored: xr.Dataset, axes: list[str], refuse: Callable[[str, Any], None]) -> None:
    """Refuse windows that are none: of other shapes, not finite, or of more cells than the field has."""
    lower, upper = stored["window_lower"], stored["window_upper"]
    for bound in (lower, upper):
        if bound.dims != ("t", "axis") or bound.sizes["axis"] != len(axes) or bound.dtype.kind != "f" or not np.all(np.isfinite(bound.values)):
            refuse(f"{bound.name} must be finite numbers over t, axis", f"{bound.dtype} over {bound.dims}")
    most = np.array([stored.sizes[a] for a in axes])
    widths = np.array([(float(stored[a].attrs["upper"]) - float(stored[a].attrs["lower"])) / stored.sizes[a] for a in axes])
    framed = np.isin(stored["t"].values, stored[stored["rho_re"].dims[0]].values)
    cells = np.round((upper.values - lower.values) / widths)
    if not np.all(cells >= 5) or np.any(cells[framed] > most):
        refuse(f"windows must have from 5 to {most.tolist()} cells", cells[framed].max(axis=0, initial=0).tolist())


def field_check(stored: xr.Dataset, path: str | Path, name: str) -> Callable[[Array, tuple[int, ...]], None]:
    """What looks at a part of a field of density matrices that has been read: an array over ``stored[name + "_re"].dims`` and where it starts.

    What is not finite is refused; what is far from a state is warned of. For more than two levels the eigenvalues are those of all pairs of levels, which
    are no smaller than the smallest of the whole.
    """
    dims = tuple(map(str, stored[f"{name}_re"].dims))
    row = dims.index("row")
    box = float(np.sum(stored["cell_volume"].values)) if "cell_volume" in stored.coords else np.inf
    monitors = [stored[k].values for k in ("trace", "escaped_probability") if k in stored]
    even = float(np.nanmax(np.abs(sum(monitors)))) / box if len(monitors) == 2 and monitors[0].size else 1.0 / box
    known = float(np.nanmin(stored["min_eigenvalue"].values, initial=0.0)) - BEYOND_MONITOR if "min_eigenvalue" in stored else -NEGATIVE
    said: list[str] = []

    def look(values: Array, start: tuple[int, ...]) -> None:
        for lead in np.ndindex(*values.shape[:row]):
            rho, at = values[lead], [i + j for i, j in zip(lead, start, strict=False)]

            def place(cell: Any, at: list[int] = at) -> str:
                where = [*at, 0, 0, *(int(i) + j for i, j in zip(cell, start[row + 2 :], strict=True))]
                return ", ".join(f"{d} = {stored[d].values[i] if d in stored.coords else i:.6g}" for d, i in zip(dims, where, strict=True) if d not in ("row", "col"))

            bad = ~np.isfinite(rho)
            if bad.any():
                i, j, *cell = np.argwhere(bad)[0]
                raise FileError(str(path), f"{name} must be finite", f"{rho[(i, j, *cell)]:.3g}, element ({i}, {j}) at {place(cell)}", "The file is damaged, or none of cqpde's")
            scale = max(float(np.einsum("aa...->...", rho).real.max(initial=0.0)), even) or 1.0
            for what, defect, most in (("not Hermitian", _skew(rho), HERMITIAN * scale), ("not positive", -_lowest(rho), -known * scale)):
                worst = np.unravel_index(int(np.argmax(defect)), defect.shape)
                if defect[worst] > most and what not in said:
                    said.append(what)
                    warnings.warn(f"{path}: {name} is {what}, by {defect[worst] / scale:.3g} of the largest trace at {place(worst)}: this is no state", CqpdeWarning, stacklevel=4)

    return look


def _skew(rho: Array) -> Array:
    """Largest ``|rho - rho^+|`` of every cell."""
    d = len(rho)
    return np.asarray(np.max([np.abs(rho[i, j] - np.conj(rho[j, i])) for i in range(d) for j in range(i, d)], axis=0))


def _lowest(rho: Array) -> Array:
    """Smallest eigenvalue of all pairs of levels of every cell."""
    d, p = len(rho), rho.real
    pairs = [0.5 * (p[i, i] + p[j, j]) - np.sqrt(0.25 * (p[i, i] - p[j, j]) ** 2 + np.abs(rho[i, j]) ** 2) for i in range(d) for j in range(i + 1, d)]
    return np.asarray(np.min(pairs, axis=0) if pairs else p[0, 0])
