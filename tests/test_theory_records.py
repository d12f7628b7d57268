"""Measurement records, purification, validity of mean field, maps that are not Markovian, field lattices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad_vec
from scipy.linalg import expm

import cqpde as cq
from cqpde.errors import ModelError, OptionError

from .models import integrated_trace_norm

SX, SZ, SM = cq.sigmax(), cq.sigmaz(), cq.sigmam()


# -- records (Appendix F) ----------------------------------------------------------------------------------------------
def test_condition_on_a_record_of_a_conserved_observable_is_bayes():
    """QND measurement of diag(b): p_i ~ p_i exp(2 b_i Y - 2 b_i^2 t), coherences damped by the lost share; likelihood of a mixture of Gaussians."""
    b, eta = np.array([0.9, -0.3, 0.2]), 0.6
    model = cq.measured(np.diag(b), efficiency=eta)
    rng = np.random.default_rng(2)
    t = np.linspace(0, 1.5, 16)
    y = np.concatenate([[0.0], np.cumsum(rng.normal(size=15) * np.sqrt(0.1) + 0.1)])
    psi = np.array([0.5, 0.6, np.sqrt(1 - 0.61) * 1j])
    seen = cq.condition(model, psi, t, y)
    p = np.abs(psi) ** 2
    weight = p * np.exp(2 * eta**0.5 * b * y[-1] - 2 * eta * b**2 * 1.5)
    assert np.abs(np.diagonal(seen.rho.values[-1]).real - weight / weight.sum()).max() < 1e-13
    amplitude = psi * np.exp(eta**0.5 * b * y[-1] - eta * b**2 * 1.5)
    lost = np.exp(-0.5 * (1 - eta) * 1.5 * (b[0] - b[2]) ** 2)
    assert seen.rho.values[-1, 0, 2] == pytest.approx(amplitude[0] * amplitude[2].conj() * lost / weight.sum(), abs=1e-13)
    dy, dt = np.diff(y), 0.1
    free = np.sum(-(dy**2) / (2 * dt) - 0.5 * np.log(2 * np.pi * dt))
    assert float(seen.log_likelihood[-1]) == pytest.approx(free + np.log(weight.sum()), abs=1e-11)


def test_condition_on_a_simulated_record_gives_back_its_states():
    """Paths of the instrument and the states that came with them, nothing commuting; the likelihood finds the drive that made them."""
    make = lambda omega: cq.measured(0.8 * SZ, efficiency=1.0, H=0.5 * omega * SX)
    grid = cq.Grid(y=(-12, 12, 48))
    t = np.linspace(0, 3, 601)
    ens = cq.unravel(make(2.0), cq.gaussian(grid, 0, 0.3, cq.ket("0")), t, trajectories=8, seed=5, store=1, dt=0.005)
    drives = np.linspace(0.5, 3.5, 13)
    total = np.zeros(len(drives))
    for k in range(8):
        path = ens["path_y"].values[k]
        if k < 2:
            seen = cq.condition(make(2.0), cq.ket("0"), ens["t_path"].values, path)
            assert np.abs(seen.rho.values[-1] - ens["path_rho"].values[k, -1]).max() < 0.02
        total += [float(cq.condition(make(w), cq.ket("0"), ens["t_path"].values[::10], path[::10]).log_likelihood[-1]) for w in drives]
    curvature = np.polyfit(drives, total, 2)[0]
    best = drives[int(np.argmax(total))]
    assert abs(best - 2.0) < 3 * (-1 / (2 * curvature)) ** 0.5 + 0.25 and total.max() - total[0] > 3


def test_record_operators_are_complete_and_their_mean_is_the_signal():
    """int Omega^+ Omega dmu = 1 + O(dt^2) (F.2) and the mean record (F.4), by quadrature, for an operator that is not normal."""
    c = 0.7 * SM + 0.3j * SX
    model = cq.measured(c, H=0.4 * SZ + 0.2 * SX)
    psi = np.array([0.6, 0.8j])
    defects, signals = [], []
    for dt in (0.02, 0.01):

        def weighted(y, dt=dt):
            omega = cq.record_operator(model, [0.0], [y], dt)
            m = omega.conj().T @ omega * np.exp(-y * y / (2 * dt)) / np.sqrt(2 * np.pi * dt)
            return np.stack([m, y * m])

        total, first = quad_vec(weighted, -9 * dt**0.5, 9 * dt**0.5, epsabs=1e-12)[0]
        mean = np.vdot(psi, first @ psi).real
        defects.append(np.abs(total - np.eye(2)).max())
        signals.append(abs(mean / dt - np.vdot(psi, (c + c.conj().T) @ psi).real))
    assert defects[1] < 1e-3 and np.log2(defects[0] / defects[1]) == pytest.approx(2.0, abs=0.1)
    assert signals[1] < 0.02 and np.log2(signals[0] / signals[1]) == pytest.approx(1.0, abs=0.1)


def test_feedback_by_the_record_cools():
    """Inefficiency is the margin of (6); a rotation proportional to the record changes the populations, without it they are conserved."""
    for eta in (1.0, 0.4):
        assert float(cq.decoherence_diffusion(cq.measured(SZ, efficiency=eta), cq.Grid(y=(-1, 1, 5))).margin.max()) == pytest.approx(2 * (1 - eta))
    grid = cq.Grid(y=(-9, 9, 160))
    start = cq.gaussian(grid, 0, 0.4, cq.ket("+"))
    quiet = cq.solve(cq.measured(0.5 * SZ, bandwidth=2.0), start, [0, 1], method="split", tol=1e-6)
    assert float(quiet.cq.expect(SZ)[-1]) == pytest.approx(0.0, abs=1e-9)
    fed = cq.measured(0.5 * SZ, bandwidth=2.0, H=lambda z: [[0, -0.8j * z.y], [0.8j * z.y, 0]])
    turned = cq.solve(fed, start, [0, 1], method="split", tol=1e-5)
    ens = cq.unravel(fed, start, [0, 1], trajectories=20_000, seed=3, dt=0.02)
    one = ens["moments"].values[-1, 0]  # populations, then real and imaginary part of the coherence
    spread = np.sqrt(np.diagonal(ens["covariance"].values[-1, 0, :, 0, :]) / 20_000)
    for operator, component, factor in ((SX, 2, 2.0), (np.diag([1, 0]), 0, 1.0)):
        mean = float(turned.cq.expect(operator)[-1])
        assert abs(mean - factor * one[component]) < 4.5 * factor * spread[component] + 2e-3
    assert abs(float(turned.cq.expect(SX)[-1]) - float(quiet.cq.expect(SX)[-1])) > 0.05


# -- purification (Appendix B) -----------------------------------------------------------------------------------------
def _mixed():
    return cq.Model(
        ("x",), 2, H=0.4 * SX, L=[SZ, SM], D0=lambda z: [[0.5 + 0.1 * np.tanh(z.x), 0.05j + 0 * z.x], [-0.05j + 0 * z.x, 0.3 + 0 * z.x]],
        D1=[[0.3, 0.1]], D2=[[0.4]],
    )  # fmt: skip


def test_temple_is_saturated_and_its_marginal_is_the_old_model():
    model = _mixed()
    line = cq.Grid(x=(-6, 6, 36))
    made = cq.temple(model, line)
    assert made.coordinates == ("x", "y0", "y1")  # the excess has rank 2, not more
    space = cq.Grid(x=(-6, 6, 36), y0=(-7, 7, 20), y1=(-7, 7, 20))
    assert cq.decoherence_diffusion(made, space).saturated.all()
    old = cq.solve(model, cq.gaussian(line, 0, 0.8, cq.ket("+")), [0, 0.5], method="fv", tol=1e-6, grid_error=False)
    new = cq.solve(made, cq.gaussian(space, 0, {"x": 0.8, "y0": 0.8, "y1": 0.8}, cq.ket("+")), [0, 0.5], method="fv", tol=1e-6, grid_error=False)
    marginal = new.rho.values[-1].sum(axis=(-2, -1)) * space.axes[1].spacing * space.axes[2].spacing
    assert integrated_trace_norm(marginal - old.rho.values[-1], line) < 2e-3
    kept = cq.unravel(made, cq.gaussian(space, 0, 0.8, cq.ket("+")), [0, 0.5], trajectories=4096, seed=1, state="matrix", dt=0.01)
    lost = cq.unravel(model, cq.gaussian(line, 0, 0.8, cq.ket("+")), [0, 0.5], trajectories=4096, seed=1, dt=0.01)
    assert float(kept["purity"][-1]) > 1 - 1e-3 and float(lost["purity"][-1]) < 0.9


def test_temple_refuses_what_is_pure_already():
    with pytest.raises(OptionError, match="no decoherence beyond"):
        cq.temple(cq.models.linear_diosi(), cq.Grid(q=(-1, 1, 5), p=(-1, 1, 5)))


def test_church_is_an_isometry_that_traces_to_the_excess():
    """(B.5): V^+ V = 1; repeated collisions tend to exp(t D) at first order; on the enlarged space the state stays pure."""
    model = cq.Model(("x",), 2, L=[SZ, SM], D0=[[0.5, 0.1j], [-0.1j, 0.4]], D2=[[0.4]])
    rho = np.array([[0.7, 0.4], [0.4, 0.3]])
    d0, ops = np.array([[0.5, 0.1j], [-0.1j, 0.4]]), [SZ, SM]
    super_op = sum(
        d0[a, b] * (np.kron(ops[a], ops[b].conj()) - 0.5 * np.kron(ops[b].conj().T @ ops[a], np.eye(2)) - 0.5 * np.kron(np.eye(2), (ops[b].conj().T @ ops[a]).T))
        for a in range(2) for b in range(2)
    )  # fmt: skip
    exact = (expm(0.8 * super_op) @ rho.reshape(-1)).reshape(2, 2)
    errors = []
    for steps in (20, 40):
        v = cq.church(model, [0.3], 0.8 / steps)
        assert v.shape == (2, 3, 2)
        assert np.abs(np.einsum("agb,agc->bc", v.conj(), v) - np.eye(2)).max() < 1e-14
        out = rho.astype(complex)
        for _ in range(steps):
            out = np.einsum("agb,bc,dgc->ad", v, out, v.conj())
        errors.append(np.abs(out - exact).max())
    assert errors[1] < 5e-3 and np.log2(errors[0] / errors[1]) == pytest.approx(1.0, abs=0.1)
    with pytest.raises(OptionError, match="shorter dt"):
        cq.church(model, [0.3], 5.0)


# -- validity of mean field (15) ---------------------------------------------------------------------------------------
def test_mean_field_validity_of_an_eigenstate_and_of_a_superposition():
    """Start |+>: Gamma = Var(B), B = -lambda sz / sigma ... by hand; start |0>: zero."""
    model = cq.Model(("p",), 2, H=0.7 * SZ, L=[SZ], D0="saturated", D1=[[-0.6]], D2=[[0.5 * 0.25]])
    grid = cq.Grid(p=(-6, 6, 64))
    for ket, spread in (("+", 1.0), ("0", 0.0)):
        run = cq.solve(model, cq.gaussian(grid, 0, 0.5, cq.ket(ket)), [0, 0.2], method="split", tol=1e-6)
        found = cq.mean_field_validity(model, run)
        assert float(found.back_action_rate[0]) == pytest.approx(0.36 / 0.25 * spread, abs=1e-12)
        assert float(found.hamiltonian_rate[0]) == pytest.approx(0.7 * spread, abs=1e-7)
    run = cq.solve(model, cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 1.0], method="split", tol=1e-6)
    assert float(cq.mean_field_validity(model, run).back_action_rate[-1]) < 0.8 * 1.44  # conditioned states approach eigenstates


def test_distance_of_mean_field_from_the_full_solution():
    """Linear Diosi from |+>: no mean force, so the classical part streams freely, and the coherence loses phase by the spread of q alone."""
    from scipy.stats import norm

    model, t = cq.models.linear_diosi(), 0.5
    grid = cq.Grid(q=(-6, 6, 96), p=(-9, 9, 144))
    rho0 = cq.gaussian(grid, 0.0, 0.4, cq.ket("+"))
    run = cq.solve(model, rho0, [0, t], tol=1e-5)
    found = cq.mean_field_distance(model, rho0, run, trajectories=200_000, seed=3)
    assert found.hybrid[0] < 3 * found.hybrid_noise[0] and found.quantum[0] < 1e-12
    # quantum: 2 |rho_01 - rho_01'|, with rho_01' = exp(-4 i t) E exp(-2 i int 2 q) / 2, q = q0 + p0 s
    coherence = 0.5 * np.exp(-4j * t - 0.5 * 0.16 * (16 * t**2 + 4 * t**4))
    exact = run.cq.unconditioned_state().values[-1][0, 1]
    assert float(found.quantum[-1]) == pytest.approx(2 * abs(exact - coherence), abs=4 * float(found.quantum_noise[-1]) + 1e-3)
    assert abs(exact - coherence) > 0.05
    # classical: a lower bound is the distance of the marginals of p, two Gaussians against one, by quadrature
    p = np.linspace(-9, 9, 4001)
    full = 0.5 * sum(norm.pdf(p, s * 2 * t, (0.16 + t) ** 0.5) for s in (-1, 1))
    least = np.trapezoid(np.abs(full - norm.pdf(p, 0, 0.4)), p)
    assert least - 0.02 < float(found.classical[-1]) < float(found.hybrid[-1]) + 1e-9 <= 2.0
    with pytest.raises(OptionError, match="must be the initial state of the solution"):
        cq.mean_field_distance(model, cq.gaussian(grid, 0.5, 0.4, cq.ket("+")), run)


# -- maps that are not Markovian (Appendix H) --------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore::cqpde.errors.CqpdeWarning")
def test_a_map_may_be_positive_where_the_generator_is_not():
    """Dephasing at rate a(t), negative for a while: the map stays positive as long as the integral of a does, by hand."""
    grid = cq.Grid(x=(-6, 6, 48))
    start = cq.gaussian(grid, 0, 0.6, cq.ket("+"))
    times = np.linspace(0, 3, 13)
    for depth, stays in ((0.8, True), (2.5, False)):
        rate = lambda z, t, depth=depth: 0.5 * (1 - depth * np.sin(t)) + 0 * z.x if depth < 2 else 0.5 * (np.cos(2 * t) - 0.3 * depth) + 0 * z.x
        model = cq.Model(("x",), 2, L=[SZ], D0=[[rate]], D2=[[0.1]], check="off")
        found = cq.map_positivity(model, start, times, method="split", tol=1e-6)
        integral = np.array([np.trapezoid([float(np.ravel(rate(_Here(), s))[0]) for s in np.linspace(0, t, 4001)], np.linspace(0, t, 4001)) for t in times])
        exact = np.minimum(0.5 * (1 - np.exp(-2 * integral)), 0.0)  # Choi eigenvalues of dephasing, over its trace of 2
        assert np.abs(found.min_eigenvalue.values - exact).max() < 2e-4
        assert (found.min_eigenvalue.values.min() > -1e-5) == stays
        if not stays:
            assert found.margin.values.min() < -0.1


class _Here:
    x = 0.0


# -- field lattices (Appendix G) ---------------------------------------------------------------------------------------
def test_scalar_field_with_a_particle_on_its_sites():
    """Mean and covariance of a field sourced by a particle that stays on a site: linear Klein-Gordon equation and Lyapunov equation (SciPy)."""
    sites, g, a, m = 3, 0.8, 0.5, 1.2
    kernel = 0.3 * np.exp(-np.abs(np.subtract.outer(range(sites), range(sites))))
    operators = [np.diag(np.eye(sites)[x]) for x in range(sites)]
    model = cq.scalar_field(operators, noise=kernel, coupling=g, spacing=a, mass=m, periodic=False)
    assert model.coordinates == ("phi0", "pi0", "phi1", "pi1", "phi2", "pi2")
    grid = cq.Grid(**{c: (-8, 8, 6) for c in model.coordinates})
    start = cq.gaussian(grid, 0, 1.0, np.eye(sites)[1])
    ens = cq.unravel(model, start, [0, 0.8], trajectories=20_000, seed=2)
    force = (np.diag([-2.0] * sites) + np.eye(sites, k=1) + np.eye(sites, k=-1)) / a**2 - m**2 * np.eye(sites)
    drift, source, noise = np.zeros((6, 6)), np.zeros(6), np.zeros((6, 6))
    drift[0::2, 1::2], drift[1::2, 0::2], source[3] = np.eye(sites), force, -g / a
    noise[1::2, 1::2] = kernel
    big = np.zeros((7, 7))
    big[:6, :6], big[:6, 6] = drift, source
    mean = expm(0.8 * big)[:6, 6]
    flow = expm(0.8 * drift)
    covariance = flow @ flow.T + quad_vec(lambda s: expm(s * drift) @ noise @ expm(s * drift).T, 0, 0.8)[0]
    found, spread = _moments(ens, model)
    assert np.abs(found - mean).max() < 5 * np.sqrt(covariance.max() / 20_000)
    assert np.abs(spread - covariance).max() < 6 * np.sqrt(2 / 20_000) * covariance.max()
    with pytest.raises(ModelError, match=r"G\.2"):
        cq.scalar_field(operators, noise=kernel, coupling=g, spacing=a, decoherence=0.1 * np.eye(sites))


def test_scalar_field_of_two_sites_on_the_grid():
    """The same on four axes: correlated noise, gradient energy, the particle on site 0."""
    g, noise, end = 0.6, np.array([[0.5, 0.2], [0.2, 0.5]]), 0.4
    model = cq.scalar_field([np.diag([1, 0]), np.diag([0, 1])], noise=noise, coupling=g, mass=1.0, periodic=False)
    grid = cq.Grid(phi0=(-5, 5, 22), pi0=(-6.5, 6.5, 30), phi1=(-5, 5, 22), pi1=(-6.5, 6.5, 30))
    sol = cq.solve(model, cq.gaussian(grid, 0, 0.75, cq.ket("0")), [0, end], dt=0.025, grid_error=False)
    drift, kernel, big = np.zeros((4, 4)), np.zeros((4, 4)), np.zeros((5, 5))
    drift[0::2, 1::2], drift[1::2, 0::2], kernel[1::2, 1::2] = np.eye(2), [[-3, 1], [1, -3]], noise
    big[:4, :4], big[1, 4] = drift, -g
    flow = expm(end * drift)
    covariance = 0.5625 * flow @ flow.T + quad_vec(lambda s: expm(s * drift) @ kernel @ expm(s * drift).T, 0, end)[0]
    assert np.abs(sol.cq.mean().values[-1] - expm(end * big)[:4, 4]).max() < 3e-4
    assert np.abs(sol.cq.covariance().values[-1] - covariance).max() < 1e-3


def _moments(ens, model):
    """Means and covariance of the coordinates: monomials are 1, z_i, z_i z_j in order; the trace is the sum of the first d components."""
    n, d = len(model.coordinates), model.dim
    m = ens["moments"].values[-1, :, :d].sum(axis=1)
    first, second = m[1 : 1 + n], np.zeros((n, n))
    second[np.triu_indices(n)] = m[1 + n :]
    second = second + np.triu(second, 1).T
    return first, second - np.outer(first, first)


# -- joint unravelling (Appendix E) ------------------------------------------------------------------------------------
def test_weights_of_the_joint_unravelling_spread_as_cosh():
    """Un-normalised trajectories of a measured sz: E[w] = 1, E[w^2] = cosh(4 b^2 t), so N weighted count as N / cosh; the normalised ones all count."""
    b, t, count = 0.5, 1.0, 40_000
    grid = cq.Grid(y=(-12, 12, 48))
    start = cq.gaussian(grid, 0, 0.3, cq.ket("+"))
    spread, means = {}, {}
    for method in ("linear", "instrument"):
        ens = cq.unravel(cq.measured(b * SZ), start, [0, t], trajectories=count, seed=4, method=method, dt=0.005)
        levels = ens["covariance"].values[-1, 0, :2, 0, :2]
        spread[method] = levels.sum()
        means[method] = ens["moments"].values[-1, 0, :2]
        error = np.sqrt(np.diagonal(levels) / count)
        assert np.abs(means[method] - 0.5).max() < 4.5 * error.max() + 2e-3  # populations are conserved
    assert abs(spread["instrument"]) < 1e-12
    # E[w^4] = (e^6x + 4 + 3 e^-2x) / 8 for x = 4 b^2 t gives the error of the variance
    x = 4 * b * b * t
    error = np.sqrt(((np.exp(6 * x) + 4 + 3 * np.exp(-2 * x)) / 8 - np.cosh(x) ** 2) / count)
    assert spread["linear"] == pytest.approx(np.cosh(x) - 1.0, abs=4 * error)
