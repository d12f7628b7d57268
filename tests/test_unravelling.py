"""Trajectories against exact moments: signs, factors of two, Ito terms, weak orders, purity; every check beside a planted defect."""

from __future__ import annotations

import numpy as np
import pytest

import cqpde as cq

from . import ensembles
from .references import gaussian

COUNT = 8192
METHODS = {"instrument": 1 / 16, "euler-maruyama": 1 / 256, "weak-2": 1 / 64, "linear": 1 / 256}


def diosi_moments(t=1.0, **parameters):
    elements = gaussian.linear_diosi_elements([0.0, 0.0], np.diag([0.16, 0.16]), t, **parameters)
    return ensembles.moments_of_elements(elements, np.full((2, 2), 0.5), 2)


def diosi_start():
    return cq.gaussian(cq.Grid(q=(-6, 6, 48), p=(-9, 9, 48)), 0.0, 0.4, cq.ket("+"))


def run(model, rho0, t, **options):
    options = {"trajectories": COUNT, "seed": 5} | options
    return cq.unravel(model, rho0, [0.0, t], **options)


@pytest.fixture(scope="module")
def exact_cases():
    """Cases with constant operators and their exact moments."""
    out = {}
    for name, n in (("correlated_2d", 48), ("three_levels", 96)):
        case, grid, rho = ensembles.reference(name, n)
        out[name] = case, grid, ensembles.moments_on(grid, rho)
    return out


@pytest.mark.parametrize("method", METHODS)
def test_linear_diosi_has_the_exact_moments(method):
    ens = run(cq.models.linear_diosi(), diosi_start(), 1.0, method=method, dt=METHODS[method])
    assert np.abs(ensembles.z_scores(ens, diosi_moments())).max() < 4.5
    # the same comparison sees a wrong sign of the force, and half or twice the decoherence or the noise
    for wrong in ({"lam": -1.0}, {"D0": 2.0}, {"D0": 0.5}, {"sigma": 2**0.5, "D0": 1.0}):
        assert np.abs(ensembles.z_scores(ens, diosi_moments(**wrong))).max() > 5.5, wrong


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["correlated_2d", "three_levels"])
def test_operators_that_do_not_commute(exact_cases, name, method):
    """Correlated noise with two non-Hermitian A_i; three levels with complex D1 and complex excess."""
    case, grid, exact = exact_cases[name]
    ens = run(case.model, case.start(grid), case.t, method=method, dt=METHODS[method])
    assert np.abs(ensembles.z_scores(ens, exact)).max() < 4.5


@pytest.mark.parametrize("method", ["instrument", "weak-2"])
def test_everything_depends_on_z(method):
    """A(x) not Hermitian, s(x), v(x), H(x), N(x), x correlated with the state at the start; periodic axis; user callables."""
    case, grid, rho = ensembles.reference("noncommuting_1d", 64)
    exact = ensembles.moments_on(grid, rho)
    ens = run(case.model, case.start(grid), case.t, method=method, dt=0.07, trajectories=2048)
    assert np.abs(ensembles.z_scores(ens, exact)).max() < 4.5
    assert ens.attrs["coefficients"].startswith("NumPy at the points (L,")


@pytest.mark.parametrize("method", ["instrument", "weak-2", "euler-maruyama"])
def test_multiplicative_noise_is_ito(method):
    grid = cq.Grid(z=(0.2, 5, 60))
    rho0 = cq.gaussian(grid, 1.5, 0.15, cq.ket("+"))
    exact = ensembles.multiplicative_moments(1.5, 0.15, 1.0)
    dt = {"instrument": 1 / 16, "weak-2": 1 / 32, "euler-maruyama": 1 / 256}[method]
    ens = run(ensembles.multiplicative(), rho0, 1.0, method=method, dt=dt)
    assert np.abs(ensembles.z_scores(ens, exact)).max() < 4.5
    wrong = run(ensembles.multiplicative(stratonovich=True), rho0, 1.0, method=method, dt=dt)
    assert np.abs(ensembles.z_scores(wrong, exact)).max() > 8


def test_mean_field_is_not_an_unravelling():
    """(13)-(14): no branches; right where the state is an eigenstate of the force and nothing is random."""
    exact = diosi_moments()
    ens = run(cq.models.linear_diosi(), diosi_start(), 1.0, method="mean-field", dt=1 / 16)
    assert np.abs(ensembles.z_scores(ens, exact)).max() > 20
    up = cq.gaussian(diosi_start().grid, 0.0, 0.4, cq.ket("0"))
    ens = run(cq.models.linear_diosi(), up, 1.0, method="mean-field", dt=1 / 16, trajectories=64)
    p = ens.moments.sel(monomial=2).values
    assert np.allclose(p[-1, 0] - p[0, 0], -2.0, atol=1e-12)
    # the mean-field state turns at the rate of the splitting at its own place: fourth order in the step
    errors = []
    for dt in (0.25, 0.125):
        fine, rough = (run(cq.models.linear_diosi(), diosi_start(), 1.0, method="mean-field", dt=h, trajectories=64) for h in (dt / 8, dt))
        errors.append(float(np.abs(fine.moments - rough.moments).max()))
    assert 3.3 < np.log2(errors[0] / errors[1]) < 4.7


# -- purity --------------------------------------------------------------------------------------------------------------
def test_purity_is_kept_where_the_trade_off_is_saturated(exact_cases):
    case, grid, _ = exact_cases["correlated_2d"]
    for model, rho0, t in ((cq.models.linear_diosi(), diosi_start(), 1.0), (case.model, case.start(grid), case.t)):
        for method, state in (("instrument", "ket"), ("instrument", "matrix"), ("euler-maruyama", "ket"), ("weak-2", "ket")):
            ens = run(model, rho0, t, method=method, state=state, dt=1 / 16, trajectories=1024)
            assert float(np.abs(ens.purity_min - 1).max()) < 1e-10
            assert float(np.abs(ens.purity_max - 1).max()) < 1e-10
    ens = run(cq.models.linear_diosi(excess=0.3), diosi_start(), 1.0, dt=1 / 16, trajectories=1024)
    assert float(ens.purity[-1]) < 0.99


def test_purity_defect_of_euler_on_matrices_falls_as_the_root_of_the_step():
    spread = []
    steps = np.array([1 / 256, 1 / 1024, 1 / 4096])
    for dt in steps:
        ens = run(cq.models.linear_diosi(), diosi_start(), 0.25, method="euler-maruyama", state="matrix", dt=dt, trajectories=1024)
        spread.append(float(np.sqrt((ens.purity[-1] - 1) ** 2 + ens.purity_std[-1] ** 2)))
    slope = np.polyfit(np.log(steps), np.log(spread), 1)[0]
    assert 0.35 < slope < 0.65
    assert spread[-1] < 0.05


@pytest.mark.parametrize("method", ["instrument", "euler-maruyama", "weak-2"])
def test_purity_falls_at_the_rate_of_a17(method):
    """(A.17) for a pure state: d Tr rho^2 / dt = -2 sum_g (<N^+ N> - |<N>|^2), here -2 (excess) (1 - <sz>^2) from |+>."""
    excess, t = 0.3, 1 / 512
    model = cq.models.linear_diosi(excess=excess)
    ens = run(model, diosi_start(), t, method=method, dt=t / 16, state="matrix", trajectories=4096)
    rate = (1.0 - float(ens.purity[-1])) / t
    error = float(ens.purity_std[-1]) / 64 / t
    assert abs(rate - 2 * excess) < 0.05 * 2 * excess + 4 * error
    assert abs(rate - 4 * excess) > 0.2 * excess + 4 * error  # the factor two is seen


# -- weak orders ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "steps", "moment", "order", "most"),
    [("euler-maruyama", (4, 8, 16), (2, 0), 1, 0.4), ("weak-2", (2, 4), (0, 2), 2, 0.5), ("instrument", (2, 4), (2, 2), 2, 1.3)],
)
def test_weak_orders(method, steps, moment, order, most):
    """Error of one moment of multiplicative noise against the closed form: Z^2 on |0>, coherence, Z^2 with the coherence."""
    grid = cq.Grid(z=(0.2, 5, 60))
    rho0 = cq.gaussian(grid, 1.5, 0.15, cq.ket("+"))
    exact = ensembles.multiplicative_moments(1.5, 0.15, 1.0)[moment]
    count, errors = 81920, []
    for k in steps:
        ens = run(ensembles.multiplicative(), rho0, 1.0, method=method, dt=1.0 / k, trajectories=count)
        errors.append(abs(float(ens.moments.values[-1][moment]) - exact))
    noise = float(np.sqrt(ens.covariance.values[-1][*moment, *moment] / count))
    slope = np.log2(errors[0] / errors[-1]) / np.log2(steps[-1] / steps[0])
    slack = 3 * noise / errors[-1] / np.log(steps[-1] / steps[0])
    assert errors[0] > 15 * noise
    assert order - 0.35 - slack < slope < order + most + slack, (errors, noise)


@pytest.mark.parametrize(
    ("method", "steps", "count", "order"),
    [("euler-maruyama", (64, 128), 2**16, 1), ("weak-2", (32, 64), 2**15, 2), ("instrument", (8, 16), 2**18, 2)],
)
def test_weak_orders_by_common_noise(method, steps, count, order):
    """The bias that the coarse twin shows on a qubit in a trap, at two steps, along the direction of the larger one."""
    rough, fine = (
        run(ensembles.trapped_qubit(p=1.0), diosi_start(), 1.0, method=method, dt=1 / k, trajectories=count, bias=True) for k in steps
    )
    large, small = (e.bias.values[-1].reshape(-1) for e in (rough, fine))
    noise = [np.einsum("abab->ab", e.bias_covariance.values[-1]).reshape(-1) / count for e in (rough, fine)]
    direction = large / (noise[0] + 1e-9 * noise[0].max())
    assert direction @ large > 30**2  # far above its own noise
    slope = np.log2(direction @ large / (direction @ small))
    uncertainty = 1.44 * np.sqrt(direction**2 @ noise[1]) / abs(direction @ small)
    assert uncertainty < 0.06
    assert abs(slope - order) < 0.15 + 2 * uncertainty


def test_the_coarse_twin_estimates_the_bias_of_the_step():
    """Common noise: the bias of Euler-Maruyama comes out with its size and sign, far below the noise of the ensemble itself."""
    grid = cq.Grid(z=(0.2, 5, 60))
    rho0 = cq.gaussian(grid, 1.5, 0.15, cq.ket("+"))
    exact = ensembles.multiplicative_moments(1.5, 0.15, 1.0)
    ens = run(ensembles.multiplicative(), rho0, 1.0, method="euler-maruyama", dt=1 / 32, bias=True, trajectories=40960)
    estimate = ens.bias.values[-1] / 3.0
    own = np.sqrt(np.einsum("abab->ab", ens.bias_covariance.values[-1])) / 3.0 / np.sqrt(40960)
    error = np.sqrt(np.einsum("abab->ab", ens.covariance.values[-1]) / 40960)
    extrapolated = ens.extrapolated.values[-1] - exact
    assert abs(extrapolated[2, 0]) < 4 * error[2, 0]
    found = ens.moments.values[-1] - exact
    assert found[2, 0] < -4 * error[2, 0]
    assert abs(found[2, 0] - estimate[2, 0]) < 4 * error[2, 0] + 0.3 * abs(estimate[2, 0])
    assert own[2, 0] < 0.3 * error[2, 0]
    instrument = run(cq.models.linear_diosi(), diosi_start(), 1.0, dt=1 / 32, bias=True, trajectories=16384)
    error = np.sqrt(np.einsum("abab->ab", instrument.covariance.values[-1]))
    own = np.sqrt(np.einsum("abab->ab", instrument.bias_covariance.values[-1])) / 15.0
    assert np.all(own[error > 1e-6] < 0.2 * error[error > 1e-6])
