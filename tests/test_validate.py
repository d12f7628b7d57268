"""Validation of one road by the other: agreement where there is, rejection of everything that is wrong, and the rate of false alarms."""

from __future__ import annotations

import numpy as np
import pytest

import cqpde as cq
from cqpde import comparison
from cqpde.cli import main
from cqpde.errors import OptionError
from cqpde.unravelling import run

from . import ensembles, models, paper_sde

N = 20_000
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
def diosi_arrays(plant="", count=N, steps=None):
    rng = np.random.default_rng(7)
    sz = np.diag([1.0, -1.0])
    steps = steps or (40 if plant else 300)
    return paper_sde.trajectories(
        0.4 * rng.standard_normal((count, 2)), np.full(2, 0.5**0.5), 1.0, steps,
        H=lambda z: (2 * z[:, 0] + 2)[:, None, None] * sz, L=[-2 * sz], D0=[[0.25]], D1=[[0], [0.5]],
        sigma=lambda z: np.broadcast_to(np.diag([0.0, 1.0]), (len(z), 2, 2)),
        D1C=lambda z: np.stack([z[:, 1], 0 * z[:, 1]], axis=1), seed=11, plant=plant, kets=plant != "D0",
    )  # fmt: skip


def three_level_arrays(plant="", count=None):
    count = count or (N if plant else 6000)
    rng = np.random.default_rng(8)
    least = models.D13.conj().T @ models.D13 / 0.7
    return paper_sde.trajectories(
        0.5 * rng.standard_normal((count, 1)), models.PSI3, 0.8, 40 if plant else 300, H=lambda z: np.broadcast_to(models.H3, (len(z), 3, 3)), L=models.L3,
        D0=least + models.E3, D1=models.D13, sigma=lambda z: np.full((len(z), 1, 1), 0.7**0.5), D1C=lambda z: np.full((len(z), 1), 0.3),
        seed=12, plant=plant,
    )  # fmt: skip


def correlated_arrays(plant="", count=None):
    count = count or (N if plant else 8000)
    rng = np.random.default_rng(9)
    root = np.linalg.cholesky(models.S2)
    psi = np.array([1, 1j]) / 2**0.5
    return paper_sde.trajectories(
        rng.standard_normal((count, 2)) @ np.linalg.cholesky(models.COV2).T, psi, 0.6, 40 if plant else 200,
        H=lambda z: np.broadcast_to(models.H2, (len(z), 2, 2)), L=models.A2, D0=np.linalg.inv(models.S2), D1=np.eye(2),
        sigma=lambda z: np.broadcast_to(root, (len(z), 2, 2)), D1C=lambda z: np.broadcast_to(models.V2, z.shape), seed=13, plant=plant, kets=True,
    )  # fmt: skip


ARRAYS = {"linear_diosi": diosi_arrays, "three_levels": three_level_arrays, "correlated_2d": correlated_arrays}


@pytest.mark.parametrize(
    ("name", "plant"),
    [("linear_diosi", p) for p in ("", "force", "D1", "D0", "noise", "mean-field")]
    + [("three_levels", p) for p in ("", "force", "D1", "D0", "noise")]
    + [("correlated_2d", p) for p in ("", "force", "transposed")],
)
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


# -- calibration ---------------------------------------------------------------------------------------------------------
def test_the_rate_of_false_alarms_is_as_stated(solutions):
    """300 right ensembles of 3000: Hotelling rejects at the nominal rate, a sum of squared z-scores many times as often."""
    from scipy.stats import binom, chi2

    case = models.CASES["linear_diosi"]()
    exact = solutions["linear_diosi"][0]
    mu = comparison.grid_features(exact, case.t)
    expected = comparison.cell_probabilities(exact, case.t, 0)
    plan = run.prepare(case.model, case.start(exact.cq.grid), [0, case.t], 1, 21, "instrument", 1 / 16, {}, False, "auto", None, None, False, False, None)
    size, rounds, zero = 3000, 300, np.zeros_like(mu)
    p, histogram, naive = [], [], []
    for k in range(rounds):
        s = run.run_chunk(plan, k, size, 0).snapshots[-1]
        covariance = s.moments.deviations / (size - 1)
        test, fault = comparison.hotelling(s.moments.mean - mu, covariance, size, zero, zero)
        assert not fault
        p.append(test.p)
        histogram.append(comparison.pearson("q", s.visits[0], expected, 0 * expected, size).p)
        variance = np.diag(covariance)
        noisy = variance > 1e-20
        naive.append(chi2.sf(np.sum((s.moments.mean - mu)[noisy] ** 2 / variance[noisy]) * size, noisy.sum()))
    p, histogram, naive = np.array(p), np.array(histogram), np.array(naive)
    for level in (0.05, 0.01):
        most = binom.ppf(0.9995, rounds, level)
        assert np.sum(p < level) <= 1.5 * most, (level, np.sum(p < level))
        assert np.sum(histogram < level) <= most
    assert np.sum(p < 0.5) > 0.4 * rounds  # and it is not blind
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
        ([1, 2], "dict of t, z"),
        ({k: (v[:20] if k != "t" else v) for k, v in arrays.items()}, "more than"),
        (exact, "must be an ensemble"),
    ):
        with pytest.raises(OptionError, match=message):
            cq.validate(exact, broken)
    with pytest.raises(OptionError, match="level"):
        cq.validate(exact, arrays, level=2)
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


def test_figure_shows_every_moment(solutions):
    pytest.importorskip("matplotlib")
    figure = cq.validate(solutions["linear_diosi"][0], diosi_arrays(count=4000, steps=50)).figure()
    (line,) = figure.axes[0].lines
    assert len(line.get_xdata()) == 24 and "p = " in figure.axes[0].get_title()
