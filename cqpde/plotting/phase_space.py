"""The hybrid state on a plane of phase space: density, coherence, conditional Bloch vectors, populations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import observables as of
from .colors import DENSITY, level_color, phase_colors
from .panels import SHOWN, axis_label, figure, limits, new_axes, one_state, plane_of, title_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

Array = np.ndarray

#: Levels whose populations get a panel of their own; of more, the most populated ones.
MOST_PANELS = 4


def hybrid(
    sol: xr.Dataset, t: float | None = None, axes: Any = None, *, levels: tuple[int, int] = (0, 1), arrows: bool = True, batch: int = 0
) -> Figure:
    r"""The hybrid state :math:`\rho(z, t)` at one time on a plane of phase space.

    Parameters
    ----------
    sol : Dataset
        A solution, or an ensemble that gathered its field.
    t : float, optional
        Time; the nearest full field is taken. Default: the last one.
    axes : str or pair of str, optional
        One or two coordinates, e.g. ``"q p"``; the others are integrated out. Default: the first two.
    levels : pair of int
        Levels of the coherence and the Bloch vectors.
    arrows : bool
        Draw the (x, z) part of the conditional Bloch vectors, z upwards, over the density.
    batch : int
        Which state of a batch.

    Returns
    -------
    matplotlib.figure.Figure
        Density with arrows; coherence, its phase as hue and its magnitude as lightness, a line where it is real and positive (dashed:
        negative); the population of each level. For one axis, curves of the same.
    """
    at, time = one_state(sol, t, batch)
    plane = plane_of(at, axes)
    picture = _lines(at, plane[0], levels) if len(plane) == 1 else _maps(at, plane, levels, arrows)
    picture.suptitle(title_of(sol, time), fontsize=10)
    return picture


def _maps(at: xr.Dataset, plane: tuple[str, ...], levels: tuple[int, int], arrows: bool) -> Figure:
    d = at.sizes["row"]
    populations = np.asarray(of.populations(at, *plane))
    shown = sorted(np.argsort(-populations.sum(axis=(1, 2)), kind="stable")[:MOST_PANELS]) if d > 1 else []
    rows = 1 + bool(shown)
    picture = figure(8.2 if d > 1 else 4.4, 3.5 * rows)
    top, *rest = np.atleast_1d(np.asarray(picture.subfigures(rows, 1), dtype=object))
    f = populations.sum(axis=0)
    ranges = [limits(f.sum(axis=1 - k), at[name].values) for k, name in enumerate(plane)]
    columns = 2 if d > 1 else 1
    density = new_axes(top, (1, columns, 1))
    draw_map(density, at, plane, f, ranges, r"density $\mathrm{Tr}\,\rho$")
    if d > 1:
        if arrows:
            draw_arrows(density, at, plane, f, ranges, levels)
        draw_coherence(new_axes(top, (1, columns, 2)), at, plane, ranges, levels)
    for column, k in enumerate(shown):
        panel = new_axes(rest[0], (1, len(shown), column + 1))
        draw_map(panel, at, plane, populations[k], ranges, rf"population $\rho_{{{k}{k}}}$", largest=float(populations.max()))
    return picture


def _extent(at: xr.Dataset, plane: tuple[str, ...]) -> list[float]:
    out = []
    for name in plane:
        x = at[name].values
        h = x[1] - x[0]
        out += [x[0] - h / 2, x[-1] + h / 2]
    return out


def _frame(axes: Any, at: xr.Dataset, plane: tuple[str, ...], ranges: list[tuple[float, float]], title: str) -> None:
    axes.set(xlim=ranges[0], ylim=ranges[1], xlabel=axis_label(at, plane[0]), ylabel=axis_label(at, plane[1]))
    axes.set_title(title, fontsize=9)


def draw_map(
    axes: Any, at: xr.Dataset, plane: tuple[str, ...], values: Array, ranges: list[tuple[float, float]], title: str, largest: float | None = None
) -> Any:
    """A non-negative field as colours with a bar."""
    top = float(values.max()) if largest is None else largest
    image = axes.imshow(
        values.T, origin="lower", extent=_extent(at, plane), aspect="auto", cmap=DENSITY, vmin=0.0, vmax=top or 1.0, interpolation="bilinear"
    )
    _frame(axes, at, plane, ranges, title)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    return image


def draw_coherence(axes: Any, at: xr.Dataset, plane: tuple[str, ...], ranges: list[tuple[float, float]], levels: tuple[int, int] = (0, 1)) -> Any:
    """A coherence: phase as hue, magnitude as lightness, lines at phase 0 (solid) and pi (dashed), and the key."""
    values = np.asarray(of.coherence(at, *plane, levels=levels))
    if np.abs(values).max() < 1e-12 * np.abs(np.asarray(of.density(at))).max():
        values = np.zeros_like(values)  # round-off has a phase too, which means nothing
    image = axes.imshow(
        np.moveaxis(phase_colors(values), 0, 1), origin="lower", extent=_extent(at, plane), aspect="auto", interpolation="bilinear"
    )
    x, y = (at[name].values for name in plane)
    large = np.abs(values) > 0.1 * np.abs(values).max()
    for sign, style in ((1, "solid"), (-1, "dashed")):
        part = np.ma.masked_where(~large | (sign * values.real <= 0), values.imag)
        if part.count() and part.min() < 0 < part.max():
            axes.contour(x, y, part.T, levels=[0.0], colors="0.25", linewidths=0.6, linestyles=style)
    _frame(axes, at, plane, ranges, rf"coherence $\rho_{{{levels[0]}{levels[1]}}}$, at most {np.abs(values).max():.2g}")
    _key(axes)
    return image


def _key(axes: Any) -> None:
    """A wheel of the phases in a corner."""
    n = 101
    u = np.linspace(-1.25, 1.25, n)
    z = u[None, :] + 1j * u[:, None]
    picture = np.concatenate([phase_colors(np.where(np.abs(z) <= 1, z, 0), 1.0), (np.abs(z) <= 1)[..., None]], axis=-1)
    inset = axes.inset_axes((0.78, 0.75, 0.21, 0.24))
    inset.imshow(picture, origin="lower", extent=(-1.25, 1.25, -1.25, 1.25))
    inset.plot([0, 1], [0, 0], color="0.25", linewidth=0.8)
    inset.plot([-1, 0], [0, 0], color="0.25", linewidth=0.8, linestyle="dashed")
    inset.text(1.15, 0, "0", fontsize=7, va="center")
    inset.text(-1.2, 0, r"$\pi$", fontsize=7, va="center", ha="right")
    inset.set_axis_off()


def draw_arrows(
    axes: Any, at: xr.Dataset, plane: tuple[str, ...], f: Array, ranges: list[tuple[float, float]], levels: tuple[int, int] = (0, 1), count: int = 13
) -> None:
    """Conditional Bloch vectors (x to the right, z up), where there is something to condition on."""
    vectors = np.asarray(of.bloch(at, *plane, levels=levels))
    picked = []
    for name, (low, high) in zip(plane, ranges, strict=True):
        x = at[name].values
        inside = np.flatnonzero((x >= low) & (x <= high))
        picked.append(inside[np.unique(np.linspace(0, len(inside) - 1, min(count, len(inside))).round().astype(int))])
    i, j = np.meshgrid(*picked, indexing="ij")
    good = f[i, j] > 10 * SHOWN * f.max()
    i, j = i[good], j[good]
    x, y = (at[name].values[k] for name, k in zip(plane, (i, j), strict=True))
    axes.quiver(
        x, y, vectors[0, i, j], vectors[2, i, j], color="white", edgecolor="0.15", linewidth=0.4, pivot="mid", scale=count * 1.05,
        scale_units="width", width=0.006,
    )  # fmt: skip
    axes.text(
        0.02, 0.98, r"arrows: $(r_x, r_z)$ of $\rho(z)$", transform=axes.transAxes, fontsize=7, va="top", color="white",
    )  # fmt: skip


def _lines(at: xr.Dataset, name: str, levels: tuple[int, int]) -> Figure:
    d, x = at.sizes["row"], at[name].values
    populations = np.asarray(of.populations(at, name))
    f = populations.sum(axis=0)
    picture = figure(7.2 if d > 1 else 4.2, 3.2)
    left = new_axes(picture, (1, 2 if d > 1 else 1, 1))
    left.fill_between(x, f, color="0.85", label=r"$\mathrm{Tr}\,\rho$")
    if d > 1:
        for k in range(d):
            left.plot(x, populations[k], color=level_color(k), linewidth=1.2, label=rf"$\rho_{{{k}{k}}}$")
    left.set(xlabel=axis_label(at, name), ylabel="density", xlim=limits(f, x), ylim=(0, None))
    left.legend(fontsize=8, frameon=False)
    if d > 1:
        values = np.asarray(of.coherence(at, name, levels=levels))
        right = new_axes(picture, (1, 2, 2))
        h = x[1] - x[0]
        size = np.abs(values)
        right.axhline(0.0, color="0.7", linewidth=0.6)
        right.bar(x, size, width=h, color=phase_colors(np.exp(1j * np.angle(values)), 1.0))
        right.plot(x, values.real, color="0.2", linewidth=0.8, label="real part")
        right.plot(x, values.imag, color="0.2", linewidth=0.8, linestyle="dashed", label="imaginary part")
        right.set(xlabel=axis_label(at, name), xlim=limits(f, x), ylabel=rf"coherence $\rho_{{{levels[0]}{levels[1]}}}$ (colour: phase)")
        right.legend(fontsize=7, frameon=False, loc="upper left")
        right.margins(y=0.25)
        _key(right)
    return picture
