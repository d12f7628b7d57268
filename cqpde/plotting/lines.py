"""Curves: marginals with histograms of trajectories, time series with diagnostics, convergence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import observables as of
from ..dataset import grid_of
from ..errors import OptionError
from .colors import level_color
from .panels import axis_label, figure, limits, new_axes, one_state, symbol, title_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

Array = np.ndarray

#: Diagnostics below this are round-off of round-off, and not shown.
LEAST = 1e-18


def marginals(sol: xr.Dataset, ens: xr.Dataset | None = None, t: float | None = None, *, batch: int = 0) -> Figure:
    """Marginal densities of all coordinates at one time, split into populations, with the histograms of an ensemble over them.

    Parameters
    ----------
    sol : Dataset
        A solution with full fields.
    ens : Dataset, optional
        An ensemble of :func:`cqpde.unravel` at the same time (the nearest one is taken); bars show one standard error.
    t : float, optional
        Time; default the last one.
    batch : int
        Which state of a batch.
    """
    at, time = one_state(sol, t, batch)
    names, d = grid_of(at).names, at.sizes["row"]
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    picture = figure(3.4 * columns, 2.7 * rows)
    for k, name in enumerate(names):
        axes = new_axes(picture, (rows, columns, k + 1))
        x = at[name].values
        populations = np.asarray(of.populations(at, name))
        f = populations.sum(axis=0)
        axes.fill_between(x, f, color="0.88", label="grid")
        for level in range(d if d > 1 else 0):
            axes.plot(x, populations[level], color=level_color(level), linewidth=1.1, label=rf"$\rho_{{{level}{level}}}$")
        if ens is not None:
            _histogram(axes, ens, name, time)
        axes.set(xlabel=axis_label(at, name), ylabel=f"$p$({symbol(name)})", xlim=limits(f, x), ylim=(0, None))
        if k == 0:
            picture.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=d + 2, fontsize=8, frameon=False)
    picture.suptitle(title_of(sol, time), fontsize=10)
    return picture


def _histogram(axes: Any, ens: xr.Dataset, name: str, time: float | None) -> None:
    """The ensemble's density over a coordinate, cells joined until bars and errors can be seen."""
    if f"rho_marginal_{name}" not in ens:
        raise OptionError("ens", f"must have histograms over {name}", str(ens.attrs.get("kind", "another Dataset")), "Make it with cqpde.unravel")
    nearest = ens.isel(t=int(np.argmin(np.abs(ens["t"].values - (time or 0.0)))))
    if time is not None and abs(float(nearest.t) - time) > 1e-9 * max(1.0, abs(time)):
        raise OptionError("ens", f"must have the time {time:g}", ", ".join(f"{x:g}" for x in ens["t"].values), "Unravel at the solution's times")
    density = np.einsum("aax->x", nearest[f"rho_marginal_{name}"].values).real
    visits, x = nearest[f"visits_{name}"].values, ens[name].values
    join = max(1, len(x) // 64)
    cut = len(x) // join * join
    mean = lambda a: a[:cut].reshape(-1, join).mean(axis=1)
    total = visits[:cut].reshape(-1, join).sum(axis=1)
    y = mean(density)
    error = y / np.sqrt(np.maximum(total, 1.0))
    filled = total > 0
    axes.errorbar(
        mean(x)[filled], y[filled], yerr=error[filled], fmt="o", markersize=2.5, color="black", linewidth=0.7,
        label=f"{int(ens.attrs['trajectories'])} trajectories",
    )  # fmt: skip


def series(sol: xr.Dataset, *, batch: int = 0) -> Figure:
    """Time series of a solution: populations and coherences, means and spreads, purity and information, and the run's diagnostics.

    What needs full fields is drawn at their times; observables that were saved are drawn at theirs.
    """
    if "t" not in sol.dims or not {"trace", "rho"} & set(sol.data_vars):
        raise OptionError("sol", "must be a solution over time", ", ".join(map(str, sol.data_vars)), "Pass what cqpde.solve returned")
    ds = sol.isel(batch=batch) if "batch" in sol.dims else sol
    picture = figure(8.4, 5.6)
    panels = [new_axes(picture, (2, 2, k + 1)) for k in range(4)]
    _series_state(panels[0], ds)
    _series_means(panels[1], ds)
    _series_information(panels[2], ds)
    _series_diagnostics(panels[3], ds)
    for axes in panels:
        axes.set_xlabel(axis_label(ds, "t"))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, frameon=False, ncols=2 if axes is panels[3] else 1, loc="lower left" if axes is panels[3] else "best")
    picture.suptitle(title_of(sol, None), fontsize=10)
    return picture


def _known(ds: xr.Dataset, names: Sequence[str], compute: Any) -> tuple[Array, Array] | None:
    """Times and values of an observable: the saved one, else computed from the full fields, else nothing."""
    for name in names:
        if name in ds and "t" in ds[name].dims:
            return ds["t"].values, np.asarray(ds[name].values)
    if "rho" not in ds:
        return None
    value = compute()
    return value[str(value.dims[0])].values, np.asarray(value)


def _plot(axes: Any, found: tuple[Array, Array] | None, **options: Any) -> None:
    if found is not None:
        axes.plot(*found, marker="o" if len(found[0]) < 30 else None, markersize=2.5, linewidth=1.1, **options)


def _series_state(axes: Any, ds: xr.Dataset) -> None:
    d = ds.sizes["row"]
    found = _known(ds, ["unconditioned_state"], lambda: of.unconditioned_state(ds))
    if found is not None:
        for k in range(min(d, 8)):
            _plot(axes, (found[0], found[1][:, k, k].real), color=level_color(k), label=rf"$\rho_{{{k}{k}}}$")
        if d > 1:
            _plot(axes, (found[0], np.abs(found[1][:, 0, 1])), color="0.4", linestyle="dashed", label=r"$|\rho_{01}|$")
    axes.set_ylabel("unconditioned state")


def _series_means(axes: Any, ds: xr.Dataset) -> None:
    mean, cov = _known(ds, ["mean"], lambda: of.mean(ds)), _known(ds, ["covariance"], lambda: of.covariance(ds))
    for k, name in enumerate(grid_of(ds).names):
        if mean is not None:
            _plot(axes, (mean[0], mean[1][:, k]), color=level_color(k), label=symbol(name))
            if cov is not None and len(cov[0]) == len(mean[0]):
                half = np.sqrt(np.maximum(cov[1][:, k, k], 0.0))
                axes.fill_between(mean[0], mean[1][:, k] - half, mean[1][:, k] + half, color=level_color(k), alpha=0.15, linewidth=0)
    axes.set_ylabel("mean, standard deviation")


def _series_information(axes: Any, ds: xr.Dataset) -> None:
    _plot(axes, _known(ds, ["purity"], lambda: of.purity(ds)), color=level_color(0), label="purity, conditional")
    _plot(axes, _known(ds, ["purity_unconditioned"], lambda: of.purity(ds, "unconditioned")), color=level_color(1), label="purity, unconditioned")
    if ds.sizes["row"] > 1:
        _plot(axes, _known(ds, ["entropy_quantum"], lambda: of.entropy(ds, "quantum")), color=level_color(2), label=r"entropy $S(Q)$")
        mutual = _known(ds, ["mutual_information", "entropy_mutual"], lambda: of.mutual_information(ds))
        _plot(axes, mutual, color=level_color(3), label=r"mutual information $I(C{:}Q)$")
    axes.set_ylabel("purity, entropy [nats]")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))


def _series_diagnostics(axes: Any, ds: xr.Dataset) -> None:
    t = ds["t"].values
    if "trace" not in ds:  # the reduced state of a product form
        return axes.set_axis_off()
    rows = [
        ("time error", ds["time_error"]), ("grid error", ds["grid_error"]), ("escaped", ds["escaped_probability"]), ("at open ends", ds["edge_probability"]),
        ("|smallest eigenvalue|", abs(ds["min_eigenvalue"])), ("|trace + escaped - 1|", abs(ds["trace"] + ds["escaped_probability"] - 1)),
    ]  # fmt: skip
    for k, (name, values) in enumerate(rows):
        y = np.asarray(values, dtype=float)
        if np.any(y > LEAST):
            axes.plot(t, np.where(y > LEAST, y, np.nan), "o-", color=level_color(k), markersize=2.5, linewidth=0.9, label=name)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(low * (low / high) ** 0.35, high)  # room for the legend below the curves
    axes.set_ylabel("diagnostics")


def convergence(h: Any, errors: Any, *, order: float | None = None, xlabel: str = "step", ylabel: str = "error") -> Figure:
    """Errors against step or cell size on logarithmic axes, with the measured slope of each curve and, if asked, a line of an order.

    Parameters
    ----------
    h : array (n,)
        Steps or cell sizes.
    errors : array (n,) or dict of such
        One curve, or several by name.
    order : float, optional
        Order of the reference line.
    """
    x = np.asarray(h, dtype=float).reshape(-1)
    curves = errors if isinstance(errors, Mapping) else {"": errors}
    picture = figure(4.4, 3.4)
    axes = new_axes(picture)
    top = 0.0
    for k, (name, values) in enumerate(curves.items()):
        y = np.asarray(values, dtype=float).reshape(-1)
        if y.shape != x.shape or not np.all(x > 0) or not np.all(np.isfinite(y)) or not np.all(y > 0) or len(x) < 2:
            raise OptionError("errors", f"must be {len(x)} positive finite numbers, at least two, for as many positive steps", f"{name} {y}".strip(), "Leave out the others")
        slope = np.polyfit(np.log(x), np.log(y), 1)[0]
        axes.loglog(x, y, "o-", color=level_color(k), markersize=4, linewidth=1.1, label=f"{name} (slope {slope:.2f})".strip())
        top = max(top, y[np.argmax(x)])
    if order is not None:
        line = np.sort(x)
        axes.loglog(line, 1.5 * top * (line / line[-1]) ** order, color="0.5", linestyle="dotted", label=f"order {order:g}")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend(fontsize=8, frameon=False)
    return picture


def grid_convergence(solutions: Sequence[xr.Dataset]) -> Figure:
    """Distance of the marginal densities of solutions on several grids from those on the finest one, at their last common time.

    The distance is the integral of the absolute difference, the finest marginal being interpolated by cubic splines; where errors fall
    with order k, the last points lie too low by the share (h_fine / h)^k, since the finest grid has an error as well.
    """
    from scipy.interpolate import CubicSpline

    grids = [grid_of(s) for s in solutions]
    if len(solutions) < 3 or any(g.names != grids[0].names for g in grids):
        raise OptionError("solutions", "must be at least three, over the same coordinates", len(solutions), "Solve on more grids")
    order = sorted(range(len(grids)), key=lambda k: grids[k].cell_volume)
    finest, rest = solutions[order[0]], [solutions[k] for k in order[1:]]
    end = min(float(one_state(s, None)[1] or 0.0) for s in solutions)
    reference, errors = one_state(finest, end)[0], {}
    for name in grids[0].names:
        spline = CubicSpline(reference[name].values, np.asarray(of.marginal(reference, name)))
        row = []
        for s in rest:
            at = one_state(s, end)[0]
            x = at[name].values
            row.append(float(np.abs(np.asarray(of.marginal(at, name)) - spline(x)).sum() * (x[1] - x[0])))
        errors[symbol(name)] = row
    h = [grid_of(s).cell_volume ** (1 / grids[0].ndim) for s in rest]
    return convergence(h, errors, xlabel="cell size (geometric mean)", ylabel="distance from the finest grid")
