"""What all pictures share: the frame, labels from attributes, the part of the plane that matters, saving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataset import grid_of
from ..errors import FileError, OptionError
from ..observables.access import check_axes, frame

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

Array = np.ndarray

#: Part of the largest marginal density below which nothing is shown.
SHOWN = 1e-3


def figure(width: float, height: float) -> Figure:
    """An empty figure that lays itself out."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_axes(where: Any, spec: tuple[int, int, int] = (1, 1, 1)) -> Any:
    """Axes at (rows, columns, place) of a figure, with the style of these pictures."""
    axes = where.add_subplot(*spec)
    axes.tick_params(labelsize=8)
    return axes


def symbol(name: str) -> str:
    """A coordinate's name as a formula: ``q``, ``phi_1``."""
    greek = ("alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "nu", "xi", "pi", "sigma", "tau", "phi", "chi", "psi", "omega")
    head, _, index = name.partition("_")
    if not index and head.rstrip("0123456789") != head:
        head, index = head.rstrip("0123456789"), head[len(head.rstrip("0123456789")) :]
    head = rf"\{head}" if head in greek else (head if len(head) == 1 else rf"\mathrm{{{head}}}")
    return f"${head}_{{{index}}}$" if index else f"${head}$"


def axis_label(ds: xr.Dataset, name: str) -> str:
    """Symbol and units of a coordinate, from its attributes."""
    units = str(ds[name].attrs.get("units", "1"))
    return symbol(name) + ("" if units == "1" else f" [{units}]")


def plane_of(ds: xr.Dataset, axes: Any) -> tuple[str, ...]:
    """The one or two axes of a picture: those asked for, or the first ones."""
    names = grid_of(ds).names
    chosen = tuple(axes.split()) if isinstance(axes, str) else (names[:2] if axes is None else tuple(axes))
    check_axes(ds, chosen)
    if not 1 <= len(chosen) <= 2:
        raise OptionError("axes", "must be one or two coordinates", ", ".join(chosen), f"Choose out of {', '.join(names)}")
    return chosen


def one_state(ds: xr.Dataset, t: float | None, batch: int = 0) -> tuple[xr.Dataset, float | None]:
    """The frame next to ``t`` (of one state of a batch), and its time."""
    if "rho" not in ds:
        raise OptionError("sol", "must hold full fields", ", ".join(map(str, ds.data_vars)), "Solve with frames=..., or plot another kind")
    at = frame(ds, t)
    if "batch" in at.dims:
        if not 0 <= batch < at.sizes["batch"]:
            raise OptionError("batch", f"must be one of 0 ... {at.sizes['batch'] - 1}", batch, "")
        at = at.isel(batch=batch)
    times = [float(at[n]) for n in ("t_frame", "t") if n in at.coords and at[n].ndim == 0]
    return at, times[0] if times else None


def limits(values: Array, centers: Array) -> tuple[float, float]:
    """The part of an axis where a density is more than a thousandth of its maximum, with a margin."""
    inside = np.flatnonzero(values > SHOWN * np.max(values)) if np.any(values > 0) else np.arange(len(values))
    h = centers[1] - centers[0]
    low, high = centers[inside[0]], centers[inside[-1]]
    margin = 0.04 * (high - low) + h
    return max(low - margin, centers[0] - h / 2), min(high + margin, centers[-1] + h / 2)


def title_of(ds: xr.Dataset, t: float | None) -> str:
    """Model and time."""
    model = str(ds.attrs.get("model", "")).replace("_", " ")
    return ", ".join(part for part in (model, f"$t$ = {t:g}" if t is not None else "") if part)


def save_figure(picture: Figure, path: str | Path, dpi: int = 150) -> None:
    """Write a figure; the ending of the name says the format.

    Raises
    ------
    FileError
        For a folder that cannot be written or an unknown ending.
    """
    from ..io import check_writable

    check_writable(path)
    known = picture.canvas.get_supported_filetypes()
    if Path(path).suffix.lstrip(".").lower() not in known:
        raise FileError(str(path), "must end in a known picture format", Path(path).suffix or "none", f"Known: {', '.join(sorted(known))}")
    picture.savefig(path, dpi=dpi)
