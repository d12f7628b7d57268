"""Paths on and in the Bloch sphere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import observables as of
from ..errors import OptionError
from ..observables.states import check_levels
from .colors import LEVELS
from .panels import figure, title_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

Array = np.ndarray


def bloch(ds: xr.Dataset, *, count: int = 5, levels: tuple[int, int] = (0, 1)) -> Figure:
    """Bloch vectors over time: stored paths of an ensemble, or the unconditioned state of a solution.

    Parameters
    ----------
    ds : Dataset
        An ensemble made with ``store=``, or a solution.
    count : int
        How many trajectories to draw.
    levels : pair of int
        Which two levels span the sphere.

    Returns
    -------
    matplotlib.figure.Figure
        The start of each path is a circle, its end a dot.
    """
    a, b = check_levels(ds, levels)
    if "path_rho" in ds:
        rho = np.asarray(ds["path_rho"].isel(trajectory=slice(0, count)))
    elif ds.attrs.get("kind") == "ensemble":
        raise OptionError("ens", "must have stored paths", "none", "Unravel with store=1")
    elif "unconditioned_state" in ds or "rho" in ds:
        state = ds["unconditioned_state"] if "unconditioned_state" in ds else of.unconditioned_state(ds)
        rho = np.asarray(state.transpose("batch", ...) if "batch" in state.dims else state.expand_dims("batch"))[:count]
    else:
        raise OptionError("ds", "must hold states over time", ", ".join(map(str, ds.data_vars)), "Pass an ensemble or a solution")
    up, down, off = rho[..., a, a].real, rho[..., b, b].real, rho[..., a, b]
    vectors = np.stack([2 * off.real, -2 * off.imag, up - down], axis=-1) / (up + down)[..., None]
    picture = figure(4.6, 4.6)
    axes = picture.add_subplot(projection="3d")
    draw_sphere(axes, a, b)
    for k, path in enumerate(vectors):
        color = LEVELS[k % 6]
        axes.plot(*path.T, color=color, linewidth=1.0)
        axes.scatter(*path[:1].T, facecolors="white", edgecolors=color, s=22, depthshade=False)
        axes.scatter(*path[-1:].T, color=color, s=22, depthshade=False)
    picture.suptitle(title_of(ds, None), fontsize=10)
    return picture


def draw_sphere(axes: Any, up: int = 0, down: int = 1) -> None:
    """A transparent unit sphere with its great circles, poles and axes named."""
    u, v = np.linspace(0, 2 * np.pi, 61), np.linspace(0, np.pi, 31)
    axes.plot_surface(
        np.outer(np.cos(u), np.sin(v)), np.outer(np.sin(u), np.sin(v)), np.outer(np.ones(61), np.cos(v)), color="0.85", alpha=0.18, linewidth=0, shade=False
    )
    zero = 0 * u
    for circle in ((np.cos(u), np.sin(u), zero), (np.cos(u), zero, np.sin(u)), (zero, np.cos(u), np.sin(u))):
        axes.plot(*circle, color="0.6", linewidth=0.5)
    for k in range(3):
        ends = np.zeros((3, 2))
        ends[k] = (-1, 1)
        axes.plot(*ends, color="0.6", linewidth=0.5)
    axes.text(0, 0, 1.16, rf"$|{up}\rangle$", ha="center", fontsize=9)
    axes.text(0, 0, -1.28, rf"$|{down}\rangle$", ha="center", fontsize=9)
    axes.text(1.2, 0, 0, "$x$", fontsize=9)
    axes.text(0, 1.2, 0, "$y$", fontsize=9)
    axes.set_box_aspect((1, 1, 1), zoom=1.35)
    axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
    axes.set_axis_off()
    axes.view_init(elev=18, azim=35)
