r"""``cqpde.validate``: does an ensemble of trajectories agree with a solution on the grid?

Two kinds of test at one time (or several), joined by Bonferroni's bound:

- **Moments.** All :math:`E[z^k\,\rho_c]` up to second order times a complete set of operators, as one vector y. They are strongly
  correlated (a sum of squared z-scores is wrong by a factor of tens in its false alarms), so Hotelling's statistic with the full
  covariance S is used,

  .. math:: T^2 = N(\bar y - \mu)^T S^+ (\bar y - \mu), \qquad \frac{N - r}{r(N - 1)}\,T^2 \sim F(r, N - r),

  with r the rank of S: directions that do not fluctuate (the trace is 1 in every trajectory) are compared to the numerical error. The
  features are skewed (products like :math:`z^2\rho`), which makes T^2 larger than that at finite N: its tail is corrected to order 1/N
  (:mod:`cqpde.unravelling.skewness`).
- **Histograms** of each coordinate: Pearson's :math:`\chi^2` against the probabilities of the cells, neighbours joined until enough is
  expected in each.

Numerical errors are not noise. Where there are solutions on fewer cells, the grid's moments are extrapolated to cell size zero, and where
the ensemble has a coarse twin, its moments to step zero (Richardson both); what is left, e on the grid and b in the step, shifts the
statistics, which then follow the non-central laws with :math:`\lambda = 4N(|e|_S + |b|_S)^2` (the errors count twice: they are estimates).
Verdicts: ``disagree`` if the difference is significant even with that shift; ``agree`` if it is not
significant and no error exceeds 0.2 standard errors; else ``inconclusive``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .dataset import grid_of
from .errors import OptionError
from .grid import Axis, Grid
from .trajectory_arrays import points_and_states
from .unravelling.plan import CHUNK
from .unravelling.skewness import RANK, skewness, tail, whitening
from .unravelling.statistics import Sums, components, features, monomials

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

#: Errors above this many standard errors make an agreement inconclusive.
SHARE = 0.2

#: Part of a leading error, of the step or of the cells, that is taken to be left after its extrapolation.
LEFT = 0.25

#: Factor on the numerical errors when they are allowed for: they are estimates.
SAFETY = 2.0

#: Trajectories per independent moment from which false alarms are as stated: skewness of the moments known, or not.
ENOUGH = {True: 100, False: 400}

#: Least expected number of trajectories in a bin, and the largest number of bins.
LEAST, BINS = 10.0, 40


@dataclass(frozen=True)
class Sample:
    """An ensemble at one time: size, mean and covariance of the features, visits per cell and axis, bias of the step.

    With a coarse twin, mean and covariance are those of the extrapolated features, and ``visits_bias`` is the bias of the visits.
    """

    count: int
    mean: Array
    covariance: Array
    visits: list[Array] | None
    grid: Grid
    bias: Array | None = None
    bias_covariance: Array | None = None
    visits_bias: list[Array] | None = None
    skewness: Array = field(default_factory=lambda: np.full(2, np.nan))


@dataclass(frozen=True)
class Test:
    """One test: its name, statistic, degrees of freedom, p-value, and p-value with the numerical errors allowed for."""

    __test__ = False
    name: str
    statistic: float
    freedom: int
    p: float
    p_shifted: float


@dataclass
class Moments:
    """The comparison at one time; all arrays of features (k,).

    ``histograms`` has the visits of each cell and its probability on the grid, per axis; ``enough`` says whether there are trajectories
    enough for the rate of false alarms.
    """

    t: float
    grid: Array
    grid_error: Array
    ensemble: Array
    standard_error: Array
    bias: Array
    tests: list[Test] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    histograms: list[tuple[Array, Array]] = field(default_factory=list)
    enough: bool = True

    @property
    def z(self) -> Array:
        """z-scores; NaN where nothing fluctuates."""
        floor = 1e-12 * max(1.0, float(np.abs(self.ensemble).max()))
        return np.where(self.standard_error > floor, (self.ensemble - self.grid) / np.maximum(self.standard_error, floor), np.nan)

    @property
    def error_share(self) -> Array:
        """Numerical error in standard errors (NaN: the grid error is not known); zero where nothing fluctuates."""
        total = np.abs(self.grid_error) + np.nan_to_num(np.abs(self.bias))
        return np.where(np.isnan(self.z), 0.0, total / np.where(np.isnan(self.z), 1.0, self.standard_error))


# -- the solution's side -------------------------------------------------------------------------------------------------
def grid_features(ds: xr.Dataset, t: float) -> Array:
    """Moments of a solution at time t in the order of the features, (monomials * d^2,)."""
    grid = grid_of(ds)
    rho = _frame(ds, t)
    x = components(np.moveaxis(rho, (0, 1), (-2, -1)).reshape(-1, *rho.shape[:2]))
    z = np.stack([np.broadcast_to(c, grid.shape).reshape(-1) for c in grid.mesh().values()], axis=1)
    powers = np.stack([np.prod(z[:, list(k)], axis=1) for k in monomials(grid.names)], axis=1)
    return np.asarray((powers.T @ x).reshape(-1) * grid.cell_volume)


def _frame(ds: xr.Dataset, t: float) -> Array:
    variable = ds["rho"]
    name = str(variable.dims[0])
    match = np.flatnonzero(np.isclose(ds[name].values, t, rtol=1e-12, atol=1e-12))
    return np.asarray(variable.values[match[0]])


def cell_probabilities(ds: xr.Dataset, t: float, axis: int) -> Array:
    """Probability of each cell along an axis, from the values at the centres (sixth-order quadrature)."""
    grid = grid_of(ds)
    density = np.real(np.einsum("aa...->...", _frame(ds, t)))
    others = tuple(i for i in range(grid.ndim) if i != axis)
    f = density.sum(axis=others) * grid.cell_volume
    pad = np.pad(f, 2, mode="wrap" if grid.axes[axis].periodic else "constant")
    second = pad[3:-1] - 2 * pad[2:-2] + pad[1:-3]
    fourth = pad[4:] - 4 * pad[3:-1] + 6 * pad[2:-2] - 4 * pad[1:-3] + pad[:-4]
    return np.asarray(f + second / 24.0 - 17.0 / 5760.0 * fourth)


def at_edges(probability: Array, axis: Axis, other: Axis) -> Array:
    """Move probabilities of the cells of one axis to the cells of another (cubic spline of the distribution function)."""
    if axis == other:
        return probability
    from scipy.interpolate import CubicSpline

    cumulated = CubicSpline(axis.interfaces, np.concatenate([[0.0], np.cumsum(probability)]))
    return np.diff(cumulated(np.clip(other.interfaces, axis.lower, axis.upper)))


def grid_moments(sol: xr.Dataset, coarse: Sequence[xr.Dataset], t: float) -> tuple[Array, Array, Array]:
    """Moments on the grid, extrapolated to cell size zero where there are coarser solutions, and to step zero where there is one of longer steps.

    Returns
    -------
    value, signed, bound : array (k,)
        ``signed`` estimates what the extrapolation leaves: a part of the correction for one coarser solution, the change by the last
        one for more. ``bound`` comes from the time error, and from the solution's own ``grid_error`` if nothing coarser is there.
    """
    index = _index(sol, t)
    size = _sizes(sol, t)
    time_error = float(sol["time_error"].values[index]) if "time_error" in sol else 0.0
    if any(_slower(sol, ds) for ds in coarse):
        time_error = float(sol.attrs.get("skipped_error", 0.0))
    best, left = _extrapolated(sol, coarse, [grid_features(ds, t) for ds in (sol, *coarse)], t)
    if all(_slower(sol, ds) for ds in coarse):
        time_error += float(sol["grid_error"].values[index]) if "grid_error" in sol else np.nan
    return best, left, size * time_error


def _index(ds: xr.Dataset, t: float) -> int:
    return int(np.flatnonzero(np.isclose(ds["t"].values, t))[0])


def _slower(sol: xr.Dataset, other: xr.Dataset) -> bool:
    """Whether a solution is the same with longer fixed steps."""
    return "dt_fixed" in sol.attrs and grid_of(sol) == grid_of(other) and float(other.attrs.get("dt_fixed", 0.0)) > float(sol.attrs["dt_fixed"])


def _extrapolated(sol: xr.Dataset, coarse: Sequence[xr.Dataset], values: list[Array], t: float) -> tuple[Array, Array]:
    """Values of a solution and of coarser ones extrapolated to cell size and step zero, and an estimate of what that leaves.

    The split route's error falls faster than any power of the cell size: nothing to extrapolate, and the change by coarsening bounds it.
    """
    slow = [_slower(sol, ds) for ds in coarse]
    rough, kept = [ds for ds, s in zip(coarse, slow, strict=True) if not s], [values[0], *[v for v, s in zip(values[1:], slow, strict=True) if not s]]
    best, left = _to_cell_size_zero(sol, rough, kept)
    if any(slow):
        k = slow.index(True)
        ratio = float(coarse[k]["dt"].values[_index(coarse[k], t)]) / float(sol["dt"].values[_index(sol, t)])
        correction = (values[0] - values[1 + k]) / (ratio**2 - 1.0)  # fixed steps are of order 2
        best, left = best + correction, left + LEFT * correction
    return best, left


def _to_cell_size_zero(sol: xr.Dataset, coarse: Sequence[xr.Dataset], values: list[Array]) -> tuple[Array, Array]:
    if not coarse:
        return values[0], np.zeros_like(values[0])
    if sol.attrs.get("method") == "split":
        return values[0], values[0] - values[1]
    best = np.einsum("s,sk->k", extrapolation_weights(sol, coarse), np.array(values))
    if len(coarse) == 1:
        return best, LEFT * (best - values[0])
    return best, best - np.einsum("s,sk->k", extrapolation_weights(sol, coarse[:-1]), np.array(values[:-1]))


def extrapolation_weights(sol: xr.Dataset, coarse: Sequence[xr.Dataset]) -> Array:
    """Weights of solutions that cancel the leading powers of the cell size (h^2, h^4, ...; h, h^2, ... for upwind transport)."""
    fine = grid_of(sol).spacings
    h = np.array([float(np.mean(grid_of(ds).spacings / fine)) for ds in (sol, *coarse)])
    power = 1 if sol.attrs.get("transport") == "upwind" else 2
    rows = np.array([h ** (power * k) for k in range(len(h))])
    return np.linalg.solve(rows, np.eye(len(h))[0])


def _sizes(sol: xr.Dataset, t: float) -> Array:
    """Root mean square of the monomial of every feature."""
    grid = grid_of(sol)
    density = np.real(np.einsum("aa...->...", _frame(sol, t)))
    z = [np.broadcast_to(c, grid.shape) for c in grid.mesh().values()]
    square = lambda k: np.sum(density * np.prod([z[i] ** 2 for i in k], axis=0)) * grid.cell_volume if k else 1.0
    return np.repeat(np.sqrt([max(float(square(k)), 0.0) for k in monomials(grid.names)]), sol.sizes["row"] ** 2)


# -- the ensemble's side -------------------------------------------------------------------------------------------------
def sample_of(ens: Any, sol: xr.Dataset, t: float) -> Sample | str:
    """The ensemble at time t; a text says why it is no ensemble (a trajectory that is not finite)."""
    if not hasattr(ens, "attrs"):
        return _from_arrays(ens, sol, t)
    if ens.attrs.get("kind") != "ensemble":
        raise OptionError("ens", "must be an ensemble of cqpde.unravel, or arrays", ens.attrs.get("kind", "another Dataset"), "")
    if not ens.attrs["trajectories"] > 1:
        raise OptionError("ens", "needs more than one trajectory", ens.attrs["trajectories"], "")
    at = ens.isel(t=int(np.flatnonzero(np.isclose(ens["t"].values, t, rtol=1e-12, atol=1e-12))[0]))
    grid, count = grid_of(ens), int(ens.attrs["trajectories"])
    k = at["moments"].size
    mean = at["moments"].values.reshape(k)
    if not np.all(np.isfinite(mean)):
        return "the ensemble's moments are not finite"
    visits = None if ens.attrs["method"] == "linear" else [at[f"visits_{name}"].values for name in grid.names]
    if "bias" not in ens:
        return Sample(count, mean, at["covariance"].values.reshape(k, k), visits, grid, skewness=at["skewness"].values)
    share = float(int(ens.attrs["coarse_factor"]) ** int(ens.attrs["weak_order"]) - 1)
    bias, error = at["bias"].values.reshape(k) / share, at["bias_covariance"].values.reshape(k, k) / share**2 / count
    shift = None if visits is None else [(at[f"visits_coarse_{name}"].values - v) / share for name, v in zip(grid.names, visits, strict=True)]
    covariance = at["extrapolated_covariance"].values.reshape(k, k)
    return Sample(count, at["extrapolated"].values.reshape(k), covariance, visits, grid, bias, error, shift, at["skewness"].values)


def _from_arrays(arrays: Any, sol: xr.Dataset, t: float) -> Sample | str:
    """A user's own trajectories at time t."""
    grid = grid_of(sol)
    z, rho = points_and_states(arrays, grid, sol.sizes["row"], t)
    bad = ~(np.isfinite(z).all(axis=1) & np.isfinite(rho).all(axis=(1, 2)))
    if bad.any():
        return f"{int(bad.sum())} of {len(bad)} trajectories are not finite"
    rows = features(grid.names, z, components(rho))
    sums = Sums.of(np.ascontiguousarray(rows), True)
    weighted = np.abs(np.einsum("maa->m", rho).real - 1).max() > 1e-6
    visits = None if weighted else [np.histogram(z[:, i], bins=a.interfaces)[0].astype(float) for i, a in enumerate(grid.axes)]
    return Sample(len(z), sums.mean, sums.deviations / (len(z) - 1), visits, grid, skewness=skewness(rows[:CHUNK]))


# -- the tests -----------------------------------------------------------------------------------------------------------
def hotelling(
    difference: Array, covariance: Array, count: int, signed: Array, bound: Array, bias: Array | None = None, noise: Array | None = None,
    skew: Array | None = None,
) -> tuple[Test, str]:  # fmt: skip
    """Hotelling's test of ``difference`` with rank-revealed covariance; also what is wrong where nothing fluctuates ("": nothing).

    ``signed`` and ``bound`` are numerical errors with and without a known sign; ``bias`` that of the step, with covariance ``noise``;
    ``skew`` the skewness of the features (:mod:`cqpde.unravelling.skewness`).
    """
    from scipy.stats import f, ncf

    size, values, modes, kept = whitening(covariance)
    r = int(kept.sum())
    if r == 0:
        raise OptionError("ens", "some moment must fluctuate", "all trajectories are the same", "Pass an ensemble with noise")
    if count <= 2 * r + 2:
        raise OptionError("ens", f"needs more than {2 * r + 2} trajectories for {r} independent moments", count, "Use more")
    white = modes[:, kept] / np.sqrt(values[kept])
    length = lambda e, s=white: float(np.sqrt(count * np.sum((s.T @ (e / size)) ** 2)))
    statistic = length(difference) ** 2
    shift = length(signed) + float(np.sqrt(count * np.sum((np.abs(white).T @ (bound / size)) ** 2)))
    if bias is not None and noise is not None:
        own = count * float(np.einsum("ki,kl,li->", white, noise / np.multiply.outer(size, size), white))
        shift += LEFT * float(np.sqrt(max(length(bias) ** 2 - own, 0.0)))
    shift *= SAFETY
    factor = (count - r) / (r * (count - 1.0))
    p = float(f.sf(factor * statistic, r, count - r))
    shifted = float(ncf.sf(factor * statistic, r, count - r, shift**2)) if shift > 1e-6 else p
    if skew is not None and np.all(np.isfinite(skew)):
        added = tail(statistic, r, count, *skew)
        p, shifted = min(1.0, p + added), min(1.0, shifted + added)
    null = modes[:, ~kept]
    fault = ""
    if null.size:
        defect = np.abs(null.T @ (difference / size))
        allowed = np.abs(null).T @ ((bound + np.abs(signed) + 1e-10) / size) + 6.0 * np.sqrt(RANK * values.max() / count)
        worst = int(np.argmax(defect - allowed))
        if defect[worst] > allowed[worst]:
            at = int(np.argmax(np.abs(null[:, worst])))
            fault = f"a combination of moments that is the same in every trajectory is not that of the grid (difference {difference[at]:.3g} in component {at})"
    return Test("moments (Hotelling T^2)", statistic, r, p, max(p, shifted) if np.isfinite(shifted) else p), fault


def pearson(name: str, visits: Array, probability: Array, error: Array, count: int) -> Test | None:
    """Chi-square of one histogram; None if fewer than two bins can be filled."""
    from scipy.stats import chi2, ncx2

    expected = np.concatenate([probability, [max(1.0 - probability.sum(), 0.0)]]) * count
    seen = np.concatenate([visits, [count - visits.sum()]])
    wrong = np.concatenate([error, [-error.sum()]]) * count
    need = max(LEAST, count / BINS)
    bins: list[list[float]] = [[0.0, 0.0, 0.0]]
    for triple in zip(expected, seen, wrong, strict=True):
        if bins[-1][0] >= need:
            bins.append([0.0, 0.0, 0.0])
        bins[-1] = [a + b for a, b in zip(bins[-1], triple, strict=True)]
    if bins[-1][0] < need and len(bins) > 1:
        last = bins.pop()
        bins[-1] = [a + b for a, b in zip(bins[-1], last, strict=True)]
    if len(bins) < 2:
        return None
    e, s, w = np.array(bins).T
    statistic, shift = float(np.sum((s - e) ** 2 / e)), SAFETY**2 * float(np.sum(w**2 / e))
    p = float(chi2.sf(statistic, len(bins) - 1))
    shifted = float(ncx2.sf(statistic, len(bins) - 1, shift)) if shift > 1e-6 else p
    return Test(f"histogram of {name} (chi^2)", statistic, len(bins) - 1, p, max(p, shifted) if np.isfinite(shifted) else p)


def compare(sol: xr.Dataset, sample: Sample, coarse: Sequence[xr.Dataset], t: float) -> Moments:
    """All tests at one time."""
    exact, signed, bound = grid_moments(sol, coarse, t)
    known = np.isfinite(bound)
    bound = np.where(known, bound, 0.0)
    bias = np.full_like(exact, np.nan)
    if sample.bias is not None and sample.bias_covariance is not None:
        # what of the estimate is not its own noise; a part of it is taken to be left after the extrapolation
        own = np.sqrt(np.maximum(np.diag(sample.bias_covariance), 0.0))
        bias = LEFT * np.sign(sample.bias) * np.maximum(np.abs(sample.bias) - 2.0 * own, 0.0)
    error = np.sqrt(np.maximum(np.diag(sample.covariance), 0.0) / sample.count)
    out = Moments(t, exact, np.where(known, np.abs(signed) + bound, np.nan), sample.mean, error, bias)
    test, fault = hotelling(sample.mean - exact, sample.covariance, sample.count, signed, bound, sample.bias, sample.bias_covariance, sample.skewness)
    out.tests.append(test)
    out.enough = sample.count >= ENOUGH[bool(np.isfinite(sample.skewness).all())] * test.freedom
    if fault:
        out.faults.append(fault)
    if sample.visits is not None:
        for i, other in enumerate(sample.grid.axes):
            each = [at_edges(cell_probabilities(ds, t, i), grid_of(ds).axes[i], other) for ds in (sol, *coarse)]
            probability, wrong = _extrapolated(sol, coarse, each, t)
            out.histograms.append((sample.visits[i], probability))
            if sample.visits_bias is not None:
                wrong = wrong + sample.visits_bias[i] / sample.count
            tested = pearson(other.name, sample.visits[i], probability, wrong, sample.count)
            if tested is not None:
                out.tests.append(tested)
    return out
