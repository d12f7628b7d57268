"""Validation of one road by the other: agreement where there is, rejection of everything that is wrong, and the rate of false alarms."""

from __future__ import annotations

import numpy as np
import pytest

import cqpde as cq
from cqpde import comparison
from cqpde.cli import main
from cqpde.errors import OptionError
from cqpde.unravelling import prepare, run, skewness

from . import ensembles, models
from .own_trajectories import ARRAYS, PLANTS, N, diosi_arrays

DRIVE, G, DECAY = 0.5, 1.0, 0.2


def driven_qubit():
    """A driven, damped qubit in a trap (examples/driven_qubit.toml): nothing commutes."""
    return cq.Model(
        ("q", "p"), 2, H=lambda z: [[G * z.q, DRIVE], [DRIVE, -G * z.q]], L=[cq.sigmaz(), cq.sigmam()],
        D0=[[G**2 / 4, 0], [0, DECAY]], D1={"p": [-G / 2, 0]}, D2={"p": 0.5}, D1C={"q": lambda z: z.p, "p": lambda z: -z.q},
    )  # fmt: skip


def driven_start(n):
    return cq.gaussian(cq.Grid(q=(-6, 6, n), p=(-7, 7, n)), {"q": 0.5}, 0.5, cq.ket("+"))


@pytest.fixture(scope="module")
def solutions():
    """Solution and a coarser one, by the grid solver for the driven qubit, exact ones elsewhere."""
    fine, *coarse = (
        cq.solve(driven_qubit(), driven_start(n), [0.0, 0.6], tol=1e-5, grid_error=False, method="fv") for n in (84, 56, 42)
    )
    out = {"driven": (fine, coarse)}
    for name, n in (("linear_diosi", 48), ("correlated_2d", 48), ("three_levels", 96)):
        case, grid, rho = ensembles.reference(name, n)
        exact = ensembles.exact_solution(grid, [0.0, case.t], [case.start(grid).rho, rho])
        out[name] = exact, None
    return out


def agree(report):
    assert report.verdict == "agree", str(report)
    assert report.p_value > 0.01


# -- the two roads -------------------------------------------------------------------------------------------------------
def test_driven_qubit_on_the_grid_and_by_trajectories(solutions):
    sol, coarse = solutions["driven"]
    ens = cq.unravel(driven_qubit(), driven_start(48), [0.0, 0.6], trajectories=50_000, seed=2, dt=0.05, bias=True)
    report = cq.validate(sol, ens, coarse=coarse)
    agree(report)
    assert float(report.dataset.test_freedom[0, 0]) == 23
    assert cq.validate(sol, ens, coarse=coarse[0]).p_value > 0.01
    assert cq.validate(sol, ens).verdict == "inconclusive"  # 84 cells alone are not enough, and it says so


@pytest.mark.parametrize("name", ["linear_diosi", "correlated_2d", "three_levels"])
@pytest.mark.parametrize(("method", "dt"), [("instrument", 0.0125), ("euler-maruyama", 1 / 512)])
def test_exact_solutions_agree(solutions, name, method, dt):
    case = models.CASES[name]()
    exact = solutions[name][0]
    count = 50_000 if name == "linear_diosi" else N
    ens = cq.unravel(case.model, case.start(exact.cq.grid), exact.t, trajectories=count, seed=4, method=method, dt=dt, bias=True)
    agree(cq.validate(exact, ens, times=exact.t))


# -- planted defects -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "plant"), [(name, plant) for name, plants in PLANTS.items() for plant in ("", *plants)])
def test_a_user_s_own_unravelling(solutions, name, plant):
    """The paper's equations in NumPy agree with the exact solution (6e3 to 2e4 trajectories); with one thing wrong 2e4 are rejected."""
    report = cq.validate(solutions[name][0], ARRAYS[name](plant))
    if not plant:
        agree(report)
    else:
        assert report.verdict == "disagree" and report.p_value < 1e-6, (plant, report.p_value)


def test_stratonovich_is_rejected_where_the_noise_depends_on_z():
    grid = cq.Grid(z=(0.05, 15, 300))
    model, rho0 = ensembles.multiplicative(), cq.gaussian(cq.Grid(z=(0.05, 15, 300)), 1.5, 0.15, cq.ket("+"))
    a, b, g = ensembles.A_RATE, ensembles.NOISE, ensembles.G
    z = grid.axes[0].centers
    grown = lambda rate: _log_normal(z, 1.5, 0.15, rate, b, 0.5)
    rho = np.zeros((2, 2, len(z)), dtype=complex)
    rho[0, 0], rho[1, 1] = 0.5 * grown(a + b * g), 0.5 * grown(a - b * g)
    rho[0, 1] = rho[1, 0] = 0.5 * np.exp(-0.25 * g**2) * grown(a)
    exact = ensembles.exact_solution(grid, [0.5], [rho])
    assert np.allclose(ensembles.moments_on(grid, rho), ensembles.multiplicative_moments(1.5, 0.15, 0.5), atol=2e-5)
    for method, dt in (("instrument", 0.05), ("weak-2", 0.02)):
        run_it = lambda m, method=method, dt=dt: cq.unravel(m, rho0, [0, 0.5], trajectories=N, seed=3, method=method, dt=dt)
        agree(cq.validate(exact, run_it(model)))
        wrong = cq.validate(exact, run_it(ensembles.multiplicative(stratonovich=True)))
        assert wrong.verdict == "disagree" and wrong.p_value < 1e-6


def _log_normal(z, mean, std, rate, noise, t):
    """Law of Z_0 exp((rate - noise^2/2) t + noise W_t) for a Gaussian Z_0, by quadrature over W."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    factors = np.exp((rate - 0.5 * noise**2) * t + noise * t**0.5 * nodes)
    normal = np.exp(-0.5 * ((z[:, None] / factors - mean) / std) ** 2) / (std * (2 * np.pi) ** 0.5)
    return (normal / factors) @ weights / weights.sum()


def test_trajectories_that_are_not_finite_are_a_disagreement(solutions):
    arrays = diosi_arrays(count=4000, steps=20)
    arrays["psi"][17, 0, 1] = np.nan
    report = cq.validate(solutions["linear_diosi"][0], arrays)
    assert report.verdict == "disagree" and report.p_value == 0 and "1 of 4000" in report.reasons[0]


def test_points_may_come_by_name(solutions):
    arrays = diosi_arrays(count=4000, steps=100)
    named = {**arrays, "z": {"p": arrays["z"][:, :, 1], "q": arrays["z"][:, :, 0]}}
    a, b = (cq.validate(solutions["linear_diosi"][0], x).dataset for x in (arrays, named))
    assert np.array_equal(a.z_score, b.z_score, equal_nan=True) and np.isfinite(a.p_value)
    swapped = {**arrays, "z": {"q": arrays["z"][:, :, 1], "p": arrays["z"][:, :, 0]}}
    assert cq.validate(solutions["linear_diosi"][0], swapped).verdict == "disagree"


def test_moments_that_do_not_fluctuate_are_compared(solutions):
    """A lost trace has no variance and no z-score, and is seen."""
    arrays = diosi_arrays(count=4000, steps=100)
    assert cq.validate(solutions["linear_diosi"][0], arrays).verdict != "disagree"
    arrays["psi"] = arrays["psi"] * (1 - 1e-5)
    report = cq.validate(solutions["linear_diosi"][0], arrays)
    assert report.verdict == "disagree" and "same in every trajectory" in report.reasons[0]


def test_unnormalised_states_count_with_their_weight(solutions):
    """Kets times independent random factors of mean square one: the same means, no histograms; without the weights it is another law."""
    arrays = diosi_arrays(count=8000, steps=200)
    factor = np.exp(0.3 * np.random.default_rng(3).standard_normal(8000) - 0.09)[:, None, None]
    report = cq.validate(solutions["linear_diosi"][0], {**arrays, "psi": factor * arrays["psi"]})
    assert report.verdict == "agree" and report.dataset.sizes["test"] == 1
    tilted = np.where(arrays["z"][:, :, :1] > 0, 1.2, 0.7)
    assert cq.validate(solutions["linear_diosi"][0], {**arrays, "psi": tilted * arrays["psi"]}).verdict == "disagree"


# -- calibration ---------------------------------------------------------------------------------------------------------
def test_the_rate_of_false_alarms_is_as_stated(solutions):
    """600 right ensembles of 3000: Hotelling rejects at the nominal rate; without skewness, and a sum of squared z-scores, more often."""
    from scipy.stats import binom, chi2

    case = models.CASES["linear_diosi"]()
    exact = solutions["linear_diosi"][0]
    mu = comparison.grid_features(exact, case.t)
    expected = comparison.cell_probabilities(exact, case.t, 0)
    plan = prepare.prepare(case.model, case.start(exact.cq.grid), [0, case.t], 1, 21, "instrument", 1 / 32, {}, False, "auto", None, None, False, False, None)
    size, rounds, zero = 3000, 600, np.zeros_like(mu)
    p, plain, histogram, naive = [], [], [], []
    for k in range(rounds):
        s = run.run_chunk(plan, k, size, 0, True).snapshots[-1]
        covariance = s.moments.deviations / (size - 1)
        for skew, out in ((s.skewness, p), (None, plain)):
            test, fault = comparison.hotelling(s.moments.mean - mu, covariance, size, zero, zero, skew=skew)
            assert not fault
            out.append(test.p)
        histogram.append(comparison.pearson("q", s.visits[0], expected, 0 * expected, size).p)
        variance = np.diag(covariance)
        noisy = variance > 1e-20
        naive.append(chi2.sf(np.sum((s.moments.mean - mu)[noisy] ** 2 / variance[noisy]) * size, noisy.sum()))
    p, plain, histogram, naive = np.array(p), np.array(plain), np.array(histogram), np.array(naive)
    for level in (0.5, 0.05, 0.01):
        low, high = binom.ppf((0.001, 0.999), rounds, level)
        for kind in (p, histogram):
            assert 0.7 * low <= np.sum(kind < level) <= high + 0.2 * level * rounds, (level, np.mean(kind < level))
    assert np.sum(plain < 0.05) > np.sum(p < 0.05)
    assert np.sum(naive < 0.01) > 5 * 0.01 * rounds


# -- verdicts and refusals -----------------------------------------------------------------------------------------------
def test_numerical_errors_make_it_inconclusive_not_wrong(solutions):
    case = models.CASES["linear_diosi"]()
    exact = solutions["linear_diosi"][0]
    ens = cq.unravel(case.model, case.start(exact.cq.grid), exact.t, trajectories=N, seed=4, method="euler-maruyama", dt=1 / 64, bias=True)
    report = cq.validate(exact, ens)
    assert report.verdict == "inconclusive" and "standard errors" in report.reasons[0]
    blurred = exact.assign(grid_error=("t", [0.0, 0.05]))
    assert cq.validate(blurred, diosi_arrays(count=4000)).verdict == "inconclusive"
    unknown = exact.assign(grid_error=("t", [np.nan, np.nan]))
    assert "not known" in cq.validate(unknown, diosi_arrays(count=4000)).reasons[0]
    # but a defect larger than the errors is still a defect
    assert cq.validate(blurred.assign(grid_error=("t", [0.0, 2e-3])), diosi_arrays("force")).verdict == "disagree"


def test_refusals_name_the_argument(solutions):
    exact = solutions["linear_diosi"][0]
    arrays = diosi_arrays(count=200, steps=2)
    for broken, message in (
        ({**arrays, "rho": arrays["psi"]}, "one of rho, psi"),
        ({**arrays, "z": arrays["z"][:, :, :1]}, "z must be"),
        ({**arrays, "t": [0.7]}, "share a time"),
        ({**arrays, "z": arrays["z"] + 0.1j}, "real numbers"),
        ({**arrays, "z": [[1, 2], [3]]}, "real numbers"),
        ({**arrays, "z": {"q": arrays["z"][:, :, 0]}}, "coordinates q, p"),
        ({**arrays, "z": 0 * arrays["z"], "psi": 0 * arrays["psi"] + 0.5}, "must fluctuate"),
        ({"t": arrays["t"], "z": arrays["z"], "rho": np.ones((200, 1, 2, 2)) * [[1, 1], [0, 0]]}, "Hermitian"),
        ([1, 2], "dict of t, z"),
        ({k: (v[:20] if k != "t" else v) for k, v in arrays.items()}, "more than"),
        (exact, "must be an ensemble"),
    ):
        with pytest.raises(OptionError, match=message):
            cq.validate(exact, broken)
    for level in (2, "1 %", float("nan")):
        with pytest.raises(OptionError, match="level"):
            cq.validate(exact, arrays, level=level)
    for coarse in (3, [3]):
        with pytest.raises(OptionError, match="coarse"):
            cq.validate(exact, arrays, coarse=coarse)
    with pytest.raises(OptionError, match="full fields"):
        cq.validate(exact.drop_vars("rho"), arrays)


def test_command_and_report(tmp_path, capsys):
    path, report = str(tmp_path / "a.nc"), str(tmp_path / "r.nc")
    assert main(["run", "linear_diosi", "--cells", "q=64", "--cells", "p=96", "--tol", "1e-3", "--no-grid-error", "-q", "-o", path]) == 0
    code = main(["validate", path, "--trajectories", "4000", "--seed", "3", "-o", report])
    text = capsys.readouterr().out
    assert code in (0, 5), text
    for word in ("std error", "Hotelling", "histogram_of_q", "verdict", "purity"):
        assert word in text
    ds = cq.load(report)
    assert ds.attrs["verdict"] in ("agree", "inconclusive") and ds.attrs["ensemble_seed"] == 3
    assert ds.z_score.shape == (1, 6, 4)


def test_figure_shows_every_moment_and_histogram(solutions, tmp_path):
    pytest.importorskip("matplotlib", reason="figures are an extra: pip install cqpde[plot]")
    report = cq.validate(solutions["linear_diosi"][0], diosi_arrays(count=4000, steps=50))
    figure = report.figure()
    top, *histograms = figure.axes
    assert len(top.lines[0].get_xdata()) == 24 and "p = " in top.get_title()
    assert [a.get_xlabel() for a in histograms] == ["q", "p"]
    ds = report.dataset
    for axes, name in zip(histograms, "qp", strict=True):
        assert np.allclose(axes.lines[0].get_ydata() * np.diff(ds[f"cell_{name}"])[0], ds[f"probability_{name}"][-1])
        assert float(ds[f"seen_{name}"].sum()) == 4000 and abs(float(ds[f"probability_{name}"].sum()) - 1) < 1e-6
    figure.savefig(tmp_path / "report.png")
    cq.save(ds, tmp_path / "report.nc")


def test_skewness_of_independent_gamma_variables():
    """Both invariants are the sum of squared skewnesses, here 2 each, in any basis; none for normal variables; tail vanishes far out."""
    rng = np.random.default_rng(1)
    rows = (rng.standard_gamma(2.0, (40_000, 5)) - 2.0) @ rng.standard_normal((5, 5))
    beta, gamma = skewness.skewness(rows)
    assert abs(beta - 10) < 1 and abs(gamma - 10) < 1
    assert np.abs(skewness.skewness(rng.standard_normal((40_000, 5)))).max() < 0.1
    assert np.all(np.isnan(skewness.skewness(rows[:80])))
    assert 0 < skewness.tail(11.0, 5, 1000, beta, gamma) < 0.02 and skewness.tail(400.0, 5, 1000, beta, gamma) < 1e-60
