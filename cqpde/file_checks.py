"""What a file must be before anything of it is used: no larger than it can be, with the attributes and variables that its kind has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import FileError

if TYPE_CHECKING:
    import xarray as xr

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
}


def check_claims(path: str | Path) -> None:
    """Refuse a netCDF file that declares far more than it can hold, before any of that is allocated."""
    import netCDF4

    room = MOST_PACKED * Path(path).stat().st_size + SPARE
    with netCDF4.Dataset(str(path)) as stored:
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
    for name in diagnostics:
        if name in stored and stored[name].dtype.kind not in "fiu":
            refuse(f"{name} must be numbers", stored[name].dtype)
