"""The report of :func:`cqpde.validate`: verdict, table, Dataset, figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from . import dataset
from .comparison import ENOUGH, SHARE, Moments, compare, sample_of
from .errors import OptionError
from .options import DATASET, NUMBER, numbers, takes
from .trajectory_arrays import times_of
from .unravelling.statistics import component_labels, monomial_labels

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

@dataclass(frozen=True)
class Report:
    """What a comparison found; prints as a table.

    Attributes
    ----------
    verdict : {"agree", "disagree", "inconclusive"}
    p_value : float
        Of all tests together (Bonferroni), without allowance for numerical errors.
    reasons : list of str
        Why the verdict is not ``agree``.
    dataset : xarray.Dataset
        The table, which :func:`cqpde.save` accepts.
    """

    verdict: str
    p_value: float
    reasons: list[str]
    dataset: xr.Dataset

    def __str__(self) -> str:
        return _table(self)

    def figure(self) -> Any:
        """z-scores of all moments, and the histogram of each coordinate over its probabilities on the grid, at the last time.

        A Matplotlib figure (needs ``pip install cqpde[plot]``); ``report.figure().savefig("report.png")``.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise OptionError("figure", "needs Matplotlib", "it is not installed", 'pip install "cqpde[plot]"') from None
        if not self.dataset.sizes.get("t", 0):
            raise OptionError("figure", "needs a comparison", "; ".join(self.reasons) or "none", "The trajectories could not be compared")
        ds = self.dataset.isel(t=-1)
        names = [str(v).removeprefix("seen_") for v in ds.data_vars if str(v).startswith("seen_")]
        figure = Figure(figsize=(9, 3.2 + 2.6 * bool(names)), layout="constrained")
        rows = figure.add_gridspec(2 if names else 1, max(len(names), 1))
        top = figure.add_subplot(rows[0, :])
        z = ds["z_score"].values.reshape(-1)
        top.axhspan(-2, 2, color="0.9")
        top.plot(z, "o", markersize=4)
        labels = [f"{m} {o}" for m in _flags(ds, "monomial") for o in _flags(ds, "operator")]
        top.set_xticks(range(len(z)), labels, rotation=90, fontsize=6)
        top.set_ylabel("(ensemble - grid) / s.e.")
        top.set_title(f"t = {float(ds.t):g}: {self.verdict}, p = {self.p_value:.3g}")
        for k, name in enumerate(names):
            axes = figure.add_subplot(rows[1, k])
            x, width = ds[f"cell_{name}"].values, float(np.diff(ds[f"cell_{name}"].values[:2])[0])
            count = float(self.dataset.attrs["trajectories"])
            axes.stairs(ds[f"seen_{name}"].values / (count * width), np.append(x - 0.5 * width, x[-1] + 0.5 * width), fill=True, color="0.8", label="trajectories")
            axes.plot(x, ds[f"probability_{name}"].values / width, label="grid")
            axes.set_xlabel(name)
            axes.legend(fontsize=7)
        return figure


def _flags(ds: xr.Dataset, name: str) -> list[str]:
    return str(ds[name].attrs["flag_meanings"]).split()


@takes(sol=DATASET, level=NUMBER)
def validate(
    sol: xr.Dataset, ens: Any, *, coarse: xr.Dataset | Sequence[xr.Dataset] | None = None, times: Any = None, level: float = 0.01
) -> Report:
    r"""Compare a solution on the grid with an ensemble of trajectories, one road checking the other.

    Parameters
    ----------
    sol : Dataset
        A result of :func:`cqpde.solve` with full fields at the times compared.
    ens : Dataset or dict
        A result of :func:`cqpde.unravel` on the same axes; or a user's own trajectories as arrays::

            {"t":   (T,)            times, some of which are among the solution's
             "z":   (N, T, n)       points, in the order of the axes; or {"q": (N, T), "p": (N, T)}
             "rho": (N, T, d, d)    density matrices, or
             "psi": (N, T, d)}      kets

        One row per trajectory; un-normalised states count with their trace (norm squared) as weight. Any NaN or infinity is a
        disagreement: an average over the rest would hide it. Nothing else is assumed about how they were made.
    coarse : Dataset or list of Dataset, optional
        The same solution on fewer cells (say 2/3 and 1/2 of them, in this order): the grid's moments are then extrapolated to cell size
        zero. With one, a quarter of the correction counts as error; with two, what the second one changes. Without any, the solution's
        own ``grid_error`` (a norm) times the size of the monomial is a bound that is often too large to conclude from. Of a solution by
        fixed steps (``dt=``), one on the same cells with twice the step belongs into the list as well: it takes the place of ``time_error``.
    times : array, optional
        Times to compare, common to both; default: the last common one. Several times count as several tests.
    level : float
        Verdict ``disagree`` below this p-value: the rate of false alarms. (A hundredth of it below 100 trajectories per independent
        moment, where the tails of products like :math:`z^2\rho` are not yet known well enough; 400 where the moments are too many for
        their skewness to be formed.)

    Returns
    -------
    Report
        ``print(report)`` shows a table; ``report.verdict``, ``report.p_value``, ``report.dataset``, ``report.figure()``.

    Raises
    ------
    OptionError
        If axes, levels or times do not match, or there are too few trajectories.

    Notes
    -----
    The histograms of an ensemble with weights (``linear``, un-normalised states) are not tested. The purity of trajectories has no counterpart on the grid
    (a conditional state given z alone is a mixture over paths); it is shown, with the grid's value as a lower bound.
    """
    if not isinstance(level, int | float | np.number) or not 0 < level < 1:
        raise OptionError("level", "must lie in (0, 1)", level, "Use e.g. 0.01")
    given: Any = coarse
    rough: list[xr.Dataset] = [] if given is None else [given] if hasattr(given, "data_vars") or not hasattr(given, "__iter__") else list(given)
    for other in rough:
        if not hasattr(other, "data_vars") or "rho" not in other:
            raise OptionError("coarse", "must be solutions with full fields", type(other).__name__, "Pass what cqpde.solve returned, on fewer cells")
    _check(sol, ens, rough)
    rows, reasons, count = [], [], 0
    for t in _common_times(sol, ens, times):
        sample = sample_of(ens, sol, float(t))
        if isinstance(sample, str):
            reasons.append(sample)
            continue
        count = sample.count
        rows.append(compare(sol, sample, rough, float(t)))
    tests = [test for row in rows for test in row.tests]
    faults = reasons + [f"t = {row.t:g}: {fault}" for row in rows for fault in row.faults]
    p = min(1.0, len(tests) * min((test.p for test in tests), default=0.0))
    shifted = min(1.0, len(tests) * min((test.p_shifted for test in tests), default=0.0))
    share = float(np.max([row.error_share.max() for row in rows], initial=0.0))
    few = not all(row.enough for row in rows)
    if faults:
        verdict, p = "disagree", 0.0
    elif shifted < (0.01 * level if few else level):
        verdict = "disagree"
    elif few and p < level:
        verdict, faults = "inconclusive", [f"too few trajectories for the tails of the moments ({count}: at least {ENOUGH[True]} per independent moment are needed)"]
    elif np.isnan(share):
        verdict, faults = "inconclusive", ["the grid error is not known: pass coarse=, or solve with grid_error=True"]
    elif p < level or share > SHARE:
        why = f"numerical errors reach {share:.2g} standard errors of a moment (at most {SHARE:g} allowed)"
        verdict = "inconclusive"
        faults = [why if share > SHARE else f"the difference (p = {p:.2g}) is not larger than twice the numerical errors (p = {shifted:.2g})"]
    else:
        verdict = "agree"
    return Report(verdict, p, faults, _dataset(sol, ens, rows, verdict, p, shifted, faults, count, level))


def _check(sol: xr.Dataset, ens: Any, coarse: list[xr.Dataset]) -> None:
    if not hasattr(sol, "data_vars") or "rho" not in sol:
        raise OptionError("sol", "must be a solution with full fields", type(sol).__name__, "Solve without save=, or with frames")
    if "batch" in sol["rho"].dims:
        raise OptionError("sol", "must hold one initial state", f"a batch of {sol.sizes['batch']}", "Select one: sol.isel(batch=0)")
    grid = dataset.grid_of(sol)
    pairs: list[tuple[str, Any]] = [("ens", ens), *[("coarse", c) for c in coarse]]
    for name, other in pairs:
        if hasattr(other, "data_vars"):
            if dataset.grid_of(other).names != grid.names or other.sizes["row"] != sol.sizes["row"]:
                found = f"{dataset.grid_of(other).names}, {other.sizes['row']} levels"
                raise OptionError(name, f"must be over {grid.names} with {sol.sizes['row']} levels", found, "Compare like with like")


def _common_times(sol: xr.Dataset, ens: Any, times: Any) -> Array:
    stored = sol[str(sol["rho"].dims[0])].values
    if hasattr(ens, "data_vars") and "t" not in ens:
        raise OptionError("ens", "must be an ensemble of cqpde.unravel, or arrays", "a Dataset without t", "Pass what unravel returned")
    theirs = ens["t"].values if hasattr(ens, "data_vars") else times_of(ens)
    common = np.array([t for t in stored if np.isclose(theirs, t, rtol=1e-12, atol=1e-12).any()])
    if len(common) == 0:
        raise OptionError("ens", "must share a time with the solution's fields", np.array2string(np.asarray(theirs), threshold=6), "Pass t=sol.t")
    if times is None:
        return common[-1:]
    chosen = numbers("times", times, float, "must be numbers").reshape(-1)
    if len(chosen) == 0:
        raise OptionError("times", "must hold at least one time", "none", "Leave it out for the last common one")
    for t in chosen:
        if not np.isclose(common, t, rtol=1e-12, atol=1e-12).any():
            raise OptionError("times", "must be common to solution and ensemble", t, f"Common: {np.array2string(common, threshold=8)}")
    return chosen


def _dataset(
    sol: xr.Dataset, ens: Any, rows: list[Moments], verdict: str, p: float, shifted: float, reasons: list[str], count: int, level: float
) -> xr.Dataset:
    import xarray as xr

    grid, d = dataset.grid_of(sol), sol.sizes["row"]
    axes = dataset.grid_of(ens).axes if hasattr(ens, "data_vars") else grid.axes
    coords: dict[str, Any] = dataset.coordinates(grid, d)
    coords["t"] = ("t", np.array([row.t for row in rows]), {"long_name": "model time", "units": "1"})
    for name, labels in (("monomial", monomial_labels(grid.names)), ("operator", component_labels(d))):
        numbers = np.arange(len(labels), dtype=np.int32)
        coords[name] = (name, numbers, {"long_name": name, "flag_values": numbers, "flag_meanings": " ".join(labels)})
    shape = (len(rows), len(coords["monomial"][1]), d * d)
    data: dict[str, Any] = {}
    for name, text in (
        ("grid", "moment on the grid, extrapolated if there are coarser ones"), ("grid_error", "estimate of its error"), ("ensemble", "moment of the ensemble"),
        ("standard_error", "standard error of that moment"), ("bias", "bias of the time step left after extrapolation (NaN: not estimated)"), ("z", "z-score"),
    ):  # fmt: skip
        values = np.array([getattr(row, name) for row in rows]).reshape(shape)
        data["z_score" if name == "z" else name] = (("t", "monomial", "operator"), values, {"long_name": text, "units": "1"})
    if rows:
        names = [test.name for test in rows[0].tests]
        for name, text in (("statistic", "statistic"), ("freedom", "degrees of freedom"), ("p", "p-value"), ("p_shifted", "p-value with numerical errors allowed for")):
            values = np.array([[getattr(test, name) for test in row.tests] for row in rows], dtype=float)
            data[f"test_{name}"] = (("t", "test"), values, {"long_name": text, "units": "1"})
        numbers = np.arange(len(names), dtype=np.int32)
        words = " ".join(n.split(" (")[0].replace(" ", "_") for n in names)
        coords["test"] = ("test", numbers, {"long_name": "test", "flag_values": numbers, "flag_meanings": words})
    for k, axis in enumerate(axes if rows and rows[0].histograms else ()):
        name = f"cell_{axis.name}"
        coords[name] = (name, axis.centers, {"long_name": f"centres of the ensemble's cells of {axis.name}", "units": "1"})
        for what, j, text in (("seen", 0, "number of trajectories in each cell"), ("probability", 1, "probability of each cell on the grid")):
            data[f"{what}_{axis.name}"] = (("t", name), np.array([row.histograms[k][j] for row in rows]), {"long_name": text, "units": "1"})
    attrs = {
        "title": f"Solution against trajectories: {verdict}", "source": f"cqpde {version('cqpde')}", "cqpde_schema": dataset.SCHEMA,
        "kind": "report", "verdict": verdict, "p_value": p, "p_value_shifted": shifted, "level": float(level), "trajectories": int(count),
        "reasons": "; ".join(reasons), "model": str(sol.attrs.get("model", "?")), "status": "complete",
    }  # fmt: skip
    if hasattr(ens, "attrs"):
        attrs |= {f"ensemble_{k}": ens.attrs[k] for k in ("method", "seed", "dt", "weak_order", "quantum_state") if k in ens.attrs}
        at = ens["t"].values
        pick = [int(np.flatnonzero(np.isclose(at, row.t))[0]) for row in rows]
        for name in ("purity", "purity_min", "purity_max"):
            data[name] = ("t", ens[name].values[pick], dict(ens[name].attrs))
        if rows:
            lower = sol.cq.purity().sel({str(sol["rho"].dims[0]): [row.t for row in rows]}, method="nearest").values
            data["purity_grid"] = ("t", lower, {"long_name": "purity of the conditional states on the grid", "units": "1"})
    return xr.Dataset(data, coords=coords, attrs=attrs)


def _table(report: Report) -> str:
    ds = report.dataset
    lines = []
    for k in range(ds.sizes.get("t", 0)):
        at = ds.isel(t=k)
        lines.append(f"t = {float(at.t):g}, {ds.attrs['trajectories']} trajectories")
        lines.append(f"{'moment':>14} {'operator':>9} {'grid':>12} {'error':>9} {'ensemble':>12} {'std error':>10} {'step bias':>10} {'z':>6}")
        for i, m in enumerate(_flags(ds, "monomial")):
            for j, o in enumerate(_flags(ds, "operator")):
                g, e, y, s, b, z = (
                    float(at[name].values[i, j]) for name in ("grid", "grid_error", "ensemble", "standard_error", "bias", "z_score")
                )
                lines.append(f"{m:>14} {o:>9} {g:12.6f} {e:9.1e} {y:12.6f} {s:10.1e} {b:10.1e} {z:6.2f}")
        if "purity" in ds:
            text = f"mean {float(at['purity']):.10f}, smallest {float(at['purity_min']):.10f}, largest {float(at['purity_max']):.10f}"
            lines.append(f"{'purity':>14} {text}; of the conditional states on the grid {float(at['purity_grid']):.6f}")
        for j, name in enumerate(_flags(ds, "test")):
            statistic, freedom, p, allowed = (float(at[f"test_{what}"].values[j]) for what in ("statistic", "freedom", "p", "p_shifted"))
            name += " (Hotelling T^2)" if name == "moments" else " (chi^2)"
            lines.append(f"{name:>24}  statistic {statistic:9.2f}  freedom {freedom:4.0f}  p {p:.3g}  (errors allowed for: {allowed:.3g})")
    lines.append(f"{'verdict':>24}  {report.verdict}, p = {report.p_value:.3g}")
    lines += [f"{'because':>24}  {reason}" for reason in report.reasons]
    return "\n".join(lines)
