"""One self-contained HTML page to look at a solution: no network, no server, nothing to install to read it."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import observables as of
from ..components import to_components
from ..dataset import grid_of
from ..errors import OptionError
from ..io import check_writable
from ..observables.access import field, time_name
from .colors import DENSITY, phase_colors
from .panels import limits, title_of

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

#: Cells per axis, and bytes of all numbers, that a page has at most; cells are averaged and times left out to get there.
MOST_CELLS, MOST_BYTES = 128, 16 << 20

#: Hues and magnitudes in the table of phase colours.
WHEEL = (96, 32)


def view(sol: xr.Dataset, path: str | Path, *, batch: int = 0) -> None:
    """Write a page with a time slider, a choice of marginal and matrix element, and the conditional state under the pointer.

    Parameters
    ----------
    sol : Dataset
        A solution with full fields, or an ensemble that gathered its field.
    path : path
        The ``.html`` file to write.
    batch : int
        Which state of a batch.

    Notes
    -----
    Every coordinate alone and every pair is a marginal to choose, on the part of the plane that the state reaches. Numbers are stored in
    single precision, averaged over neighbouring cells to at most 128 per axis, and some times are left out where a page would exceed 16 MiB:
    the page says so.
    """
    check_writable(path)
    Path(path).write_text(page(sol, batch), encoding="utf-8")


def page(sol: xr.Dataset, batch: int = 0) -> str:
    """The text of the page (see :func:`view`)."""
    from matplotlib import colormaps

    rho = field(sol)
    if "batch" in rho.dims:
        if not 0 <= batch < rho.sizes["batch"]:
            raise OptionError("batch", f"must be one of 0 ... {rho.sizes['batch'] - 1}", batch, "Choose a state of the batch")
        sol = sol.isel(batch=batch)
    name = time_name(rho)
    if name is None:
        sol = sol.expand_dims("t")
        name = "t"
    names, d = grid_of(sol).names, sol.sizes["row"]
    chosen: list[tuple[str, ...]] = [*itertools.combinations(names, 2), *((n,) for n in names)]
    picked, cells = _budget(sol, chosen, name, d)
    shown = sol.isel({name: picked})
    planes = [_plane(shown, axes, cells) for axes in chosen]
    hues, sizes = np.meshgrid(2 * np.pi * (np.arange(WHEEL[0]) + 0.5) / WHEEL[0], np.linspace(0, 1, WHEEL[1]), indexing="ij")
    left_out = sol.sizes[name] - len(picked)
    note = f"cqpde; at most {cells} cells per axis" + (f"; {left_out} of {sol.sizes[name]} times left out" if left_out else "")
    content = {
        "title": title_of(sol, None) or "hybrid state",
        "note": note,
        "levels": d,
        "times": [float(x) for x in shown[name].values],
        "planes": planes,
        "ramp": _bytes((255 * colormaps[DENSITY](np.arange(256))[:, :3]).round().astype(np.uint8)),
        "wheel": _bytes((255 * phase_colors(sizes * np.exp(1j * hues), 1.0)).round().astype(np.uint8)),
        "wheel_shape": list(WHEEL),
    }
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    return template.replace("/*DATA*/", json.dumps(content).replace("<", "\\u003c"))


def _bytes(array: Array) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _budget(sol: xr.Dataset, chosen: list[tuple[str, ...]], name: str, d: int) -> tuple[Array, int]:
    """Which times to keep, and cells per axis, so that the page stays within its size."""
    times, cells = sol.sizes[name], MOST_CELLS
    size = lambda times, cells: 4 * d * d * times * sum(int(np.prod([min(sol.sizes[a], cells) for a in axes])) for axes in chosen)
    while size(times, cells) > MOST_BYTES and (cells > 32 or times > 2):
        if cells > 48 or times <= 8:
            cells = max(cells * 3 // 4, 24)
        else:
            times = max(times * 3 // 4, 2)
        if cells == 24 and times <= 2:
            break
    return np.unique(np.linspace(0, sol.sizes[name] - 1, times).round().astype(int)), cells


def _plane(sol: xr.Dataset, axes: tuple[str, ...], cells: int) -> dict[str, Any]:
    """One marginal: its box and its d^2 real components, cropped to where the state is and averaged to fewer cells."""
    rho = of.operator_marginal(sol, *axes).transpose(..., "row", "col", *axes)
    lower, upper, labels = [], [], []
    for name in axes:
        x = sol[name].values
        h = x[1] - x[0]
        low, high = limits(np.asarray(of.marginal(sol, name)).max(axis=0), x)
        inside = np.flatnonzero((x > low) & (x < high))
        first, count = int(inside[0]), len(inside)
        join = -(-count // cells)
        count = min(-(-count // join) * join, (len(x) - first) // join * join)
        rho = rho.isel({name: slice(first, first + count)})
        rho = rho.coarsen({name: join}).mean() if join > 1 else rho
        lower.append(float(x[first] - h / 2))
        upper.append(float(x[first] - h / 2 + count * h))
        units = str(sol[name].attrs.get("units", "1"))
        labels.append(name + ("" if units == "1" else f" [{units}]"))
    values = np.stack([to_components(frame) for frame in np.asarray(rho)]).astype("<f4")
    n = list(values.shape[2:]) + [1] * (2 - len(axes))
    return {"axes": list(axes), "labels": labels, "lower": lower, "upper": upper, "n": n, "values": _bytes(values)}
