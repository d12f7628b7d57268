"""Trade-off, stationary states, thermal models, backward equation: each against a number from elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import sympy

import cqpde as cq
from cqpde.errors import CqpdeError, OptionError, SolverError
from cqpde.theory.adjoint import mean_of

from .models import integrated_trace_norm

X, Q = sympy.symbols("x q", real=True)
SX, SZ = np.array([[0, 1], [1, 0]]), np.diag([1, -1])


# -- trade-off (6) ----------------------------------------------------------------------------------------------------
def test_trade_off_of_one_coupling_by_hand():
    """D0 >= D1^2 / (2 D2), noise >= D1^2 / D0, z-dependent; L twice as long counts four times."""
    for scale in (1.0, 2.0):
        model = cq.Model(("x",), 2, L=scale * cq.sigmaz() / 2**0.5, D0=[[0.5 / scale**2]], D1=[[lambda z, scale=scale: 0.4 / scale + 0 * z.x]], D2=[[lambda z: 0.3 + 0.1 * z.x]])
        grid = cq.Grid(x=(-1, 1, 16))
        found = cq.decoherence_diffusion(model, grid)
        d2 = 0.3 + 0.1 * grid.axes[0].centers
        assert np.abs(found.margin - (0.5 - 0.16 / (2 * d2))).max() < 1e-14
        assert np.abs(found.least_decoherence - 0.16 / (2 * d2)).max() < 1e-14
        assert np.abs(found.least_noise.values[0, 0] - 0.16 / 0.5).max() < 1e-14
        assert not found.saturated.any() and not found.unsupported.any()


def test_least_noise_of_two_coordinates_is_just_enough():
    """Complex D1: with the least noise the trade-off is met with margin zero, with a little less it is broken."""
    rng = np.random.default_rng(3)
    d1 = rng.normal(size=(2, 2)) + 1j * rng.normal(size=(2, 2))
    d0 = np.array([[1.0, 0.3j], [-0.3j, 0.8]])
    make = lambda d2: cq.Model(("x", "y"), 2, L=[cq.sigmaz(), cq.sigmax()], D0=d0, D1=d1.tolist(), D2=d2.tolist(), check="off")
    grid = cq.Grid(x=(-1, 1, 5), y=(-1, 1, 5))
    least = cq.decoherence_diffusion(make(np.eye(2)), grid).least_noise.values[:, :, 0, 0]
    assert np.abs(least - least.T).max() < 1e-14
    margin = lambda s: float(cq.decoherence_diffusion(make(0.5 * s), grid).margin.min())
    assert abs(margin(least)) < 1e-10
    assert margin(1.01 * least) > 1e-4 and margin(0.99 * least) < -1e-4
    c = d1 @ np.linalg.inv(d0) @ d1.conj().T
    assert np.trace(least) == pytest.approx(np.trace(c).real + np.abs(np.linalg.eigvalsh(1j * c.imag)).sum())


def test_linear_diosi_is_saturated_everywhere():
    grid = cq.Grid(q=(-2, 2, 8), p=(-2, 2, 8))
    found = cq.decoherence_diffusion(cq.models.linear_diosi(), grid)
    assert found.saturated.all() and np.abs(found.margin).max() < 1e-12


# -- stationary states -------------------------------------------------------------------------------------------------
def test_ornstein_uhlenbeck_rates_and_state():
    """Eigenvalues -k gamma of the Ornstein-Uhlenbeck process, its Gaussian, and detailed balance; both methods."""
    model = cq.Model(("x",), 1, D1C=[lambda z: -0.7 * z.x], D2=[[0.5]])
    errors = []
    for n in (48, 96):
        grid = cq.Grid(x=(-7, 7, n, "reflecting"))
        state = cq.steady_state(model, grid, modes=3)
        assert np.abs(state.relaxation.values - [0, -0.7, -1.4, -2.1]).max() < 0.15 * (48 / n) ** 2
        x = grid.axes[0].centers
        exact = np.exp(-(x**2) * 0.7) / np.sqrt(np.pi / 0.7)
        errors.append(np.abs(state.rho.values[0, 0].real - exact).sum() * grid.cell_volume)
        assert state.attrs["unique"] == 1 and state.attrs["residual"] < 1e-12
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.15)
    assert cq.detailed_balance(model, grid, state) < 0.02
    turning = cq.Model(("x", "y"), 1, D1C=[lambda z: -z.x - z.y, lambda z: z.x - z.y], D2=[[0.5, 0], [0, 0.5]])
    plane = cq.Grid(x=(-5, 5, 32, "reflecting"), y=(-5, 5, 32, "reflecting"))
    assert cq.detailed_balance(turning, plane, cq.steady_state(turning, plane, modes=1)) > 0.5  # circulates
    krylov = cq.steady_state(model, grid, method="krylov", modes=3)
    assert np.abs(krylov.relaxation.values - state.relaxation.values).max() < 1e-6
    assert np.abs(krylov.rho.values - state.rho.values).max() < 1e-9


def test_lindblad_steady_state_and_rates_beside_a_ring():
    """Product model: G's eigenvalues are sums of those of the Lindbladian (NumPy) and of diffusion on a ring."""
    h, decay = np.array([[0.3, 0.4], [0.4, -0.3]]), np.array([[0, 1], [0, 0]])
    model = cq.Model(("x",), 2, H=h, L=[decay], D0=[[0.5]], D2=[[0.2]])
    grid = cq.Grid(x=(-np.pi, np.pi, 64, "periodic"))
    state = cq.steady_state(model, grid, modes=4)
    eye, n = np.eye(2), decay.T @ decay
    lindblad = 0.5 * (np.kron(decay, decay) - 0.5 * np.kron(n, eye) - 0.5 * np.kron(eye, n)) - 1j * (np.kron(h, eye) - np.kron(eye, h.T))
    values, vectors = np.linalg.eig(lindblad)
    null = vectors[:, np.argmin(np.abs(values))].reshape(2, 2)
    assert np.abs(state.rho.values.sum(-1) * grid.cell_volume - null / np.trace(null)).max() < 1e-10
    expected = sorted([a - 0.2 * k**2 for a in values for k in (0, 1, 1, 2, 2)], key=lambda v: -v.real)[:5]
    assert np.abs(np.sort(state.relaxation.values.real) - np.sort(np.real(expected))).max() < 2e-3


def test_two_stationary_states_are_counted_and_leaks_refused():
    stuck = cq.Model(("x",), 2, L=[cq.sigmaz()], D0=[[0.4]], D2=[[0.3]])  # populations are conserved: two null vectors
    state = cq.steady_state(stuck, cq.Grid(x=(-1, 1, 16, "reflecting")))
    assert state.attrs["null_space_dimension"] == 2 and state.attrs["unique"] == 0
    leaking = cq.Model(("x",), 1, D1C=[0.5], D2=[[0.3]])
    with pytest.raises(SolverError, match="probability leaves"):
        cq.steady_state(leaking, cq.Grid(x=(-1, 1, 16)))
    with pytest.raises(OptionError, match="must not depend on t"):
        cq.steady_state(cq.Model(("x",), 1, D1C=[lambda z, t: t + 0 * z.x], D2=[[0.3]]), cq.Grid(x=(-1, 1, 16, "reflecting")))


def test_a_stationary_state_says_how_good_it_is_or_is_refused():
    """A double well beside a damped qubit: trace, residual, eigenvalue and null space are those of the field that is returned; a residual above tol is an error."""
    model = cq.Model(("x",), 2, H=0.4 * cq.sigmax(), L=[cq.sigmam()], D0=[[0.5]], D1C=[lambda z: z.x - z.x**3], D2=[[0.3]])
    grid = cq.Grid(x=(-2.5, 2.5, 48, "reflecting"))
    state = cq.steady_state(model, grid)
    rho = np.moveaxis(state.rho.values, 2, 0)
    traces = np.real(np.trace(rho, axis1=1, axis2=2))
    assert traces.sum() * grid.cell_volume == pytest.approx(1.0, abs=1e-12)
    assert state.attrs["min_eigenvalue"] == pytest.approx(np.linalg.eigvalsh(rho).min() / traces.max(), abs=1e-14) and state.attrs["min_eigenvalue"] > -1e-12
    assert state.attrs["null_space_dimension"] == 1 and 0 <= state.attrs["residual"] < 1e-9
    with pytest.raises(SolverError, match=r"the residual must fall to 1e-30; found"):
        cq.steady_state(model, grid, tol=1e-30)


# -- thermal models ----------------------------------------------------------------------------------------------------
ENERGIES = {
    "commuting": [[X**2 / 2 + X, 0], [0, X**2 / 2 - X]],
    "not commuting": [[X**2 / 2 + X, 0.8], [0.8, X**2 / 2 - X]],
    "complex": [[X**2 / 2, 0.3 * X - 0.5 * sympy.I], [0.3 * X + 0.5 * sympy.I, X**2 / 2 + 0.7]],
}


def test_a_thermal_state_that_is_not_the_only_one_stays():
    """Where H(z) commutes with itself everywhere populations are conserved: two stationary states, and exp(-beta H) is one of their mixtures."""
    beta, h = 1.3, ENERGIES["commuting"]
    model, errors, found = cq.thermal(("x",), h, beta, mobility={"x": 0.6}), [], {}
    for n in (64, 128, 256):
        grid = cq.Grid(x=(-6, 6, n, "reflecting"))
        start = cq.thermal_state(grid, ("x",), h, beta)
        found[n] = cq.solve(model, start, [0, 4.0], method="fv", tol=1e-8, grid_error=False).rho.values[-1]
        errors.append(integrated_trace_norm(found[n] - start.rho, grid))
    assert errors[1] < 2e-3 and np.log2(errors[1] / errors[2]) == pytest.approx(2.0, abs=0.1)
    coarse = cq.Grid(x=(-6, 6, 64, "reflecting"))
    assert integrated_trace_norm(_richardson(found) - cq.thermal_state(coarse, ("x",), h, beta).rho, coarse) < 1e-6
    assert cq.steady_state(model, grid).attrs["null_space_dimension"] == 2


def _richardson(found):
    """Fields of three grids, cells doubled twice, extrapolated on the cells of the coarsest (splines of degree 7 between the centres)."""
    from scipy.interpolate import make_interp_spline

    n = min(found)
    centers = lambda m: cq.Grid(x=(-6, 6, m)).axes[0].centers
    on = {m: make_interp_spline(centers(m), f, k=7, axis=-1)(centers(n)) for m, f in found.items()}
    first, second = (4 * on[2 * n] - on[n]) / 3, (4 * on[4 * n] - on[2 * n]) / 3
    return (16 * second - first) / 15


@pytest.mark.parametrize("energy", ["not commuting", "complex"])
def test_overdamped_stationary_state_is_thermal(energy):
    """exp(-beta H) by NumPy against the null space, second order in the cells, 1e-6 with Richardson."""
    beta, h = 1.3, ENERGIES[energy]
    model = cq.thermal(("x",), h, beta, mobility={"x": 0.6})
    found = {}
    for n in (64, 128, 256):
        grid = cq.Grid(x=(-6, 6, n, "reflecting"))
        found[n] = cq.steady_state(model, grid).rho.values
        if n == 64:
            assert cq.decoherence_diffusion(model, grid).saturated.all()
    grids = {n: cq.Grid(x=(-6, 6, n, "reflecting")) for n in found}
    exact = {n: cq.thermal_state(g, ("x",), h, beta).rho for n, g in grids.items()}
    errors = [integrated_trace_norm(found[n] - exact[n], grids[n]) for n in found]
    assert np.log2(errors[1] / errors[2]) == pytest.approx(2.0, abs=0.1)
    assert integrated_trace_norm(_richardson(found) - exact[64], grids[64]) < 1e-7


def test_the_correction_and_the_operators_are_needed():
    """Without the Hamiltonian correction, and with dH/dx in place of L, the stationary state is another one."""
    from cqpde.theory import thermal as module

    beta, h = 1.3, ENERGIES["not commuting"]
    grid = cq.Grid(x=(-6, 6, 128, "reflecting"))
    exact = cq.thermal_state(grid, ("x",), h, beta).rho
    right = integrated_trace_norm(cq.steady_state(cq.thermal(("x",), h, beta, mobility={"x": 0.6}), grid).rho.values - exact, grid)
    energy = module._Energy(("x",), h, "H")
    for lindblad, shift in ((lambda z: energy.operator(z, "x", beta), False), (lambda z: energy.at(z, energy._slopes["x"]), True)):
        def hamiltonian(z, lindblad=lindblad, shift=shift):
            extra = energy.correction(z, [lindblad(z)], [beta * 0.6 / 8], beta) if shift else 0.0
            return module._leading(energy.at(z) + extra)

        wrong = cq.Model(("x",), 2, H=hamiltonian, L=[lambda z, lindblad=lindblad: module._leading(lindblad(z))], D0="saturated", D1=[[-0.3]], D2=[[0.6 / beta]])
        assert integrated_trace_norm(cq.steady_state(wrong, grid).rho.values - exact, grid) > 5 * right


def test_underdamped_thermal_qubit_stays_by_composition():
    """exp(-beta (p^2/2m + V(q))), V not commuting with its gradient, under the split route: to 1e-8 after one period."""
    beta, mass, v = 0.9, 1.2, [[Q**2 / 2 + 0.5 * Q, 0.6], [0.6, Q**2 / 2 - 0.5 * Q]]
    model = cq.thermal(("q", "p"), v, beta, mass={"q": mass}, friction={"q": 0.5})
    grid = cq.Grid(q=(-8, 8, 96), p=(-8, 8, 96))
    start = cq.thermal_state(grid, ("q", "p"), v, beta, mass={"q": mass})
    end = cq.solve(model, start, [0, 1.0], method="split", tol=1e-9)
    assert integrated_trace_norm(end.rho.values[-1] - start.rho, grid) < 1e-8
    moved = cq.solve(model, cq.gaussian(grid, 0.5, 0.8, cq.ket("0")), [0, 1.0], method="split", tol=1e-5)
    assert integrated_trace_norm(moved.rho.values[-1] - start.rho, grid) > 0.1  # it is not that nothing happens


def test_underdamped_stationary_state_is_found_by_composition():
    """Arnoldi on the split route's propagator finds exp(-beta H) to 1e-8, from a start that knows nothing of it."""
    beta, mass, v = 0.9, 1.2, [[Q**2 / 2 + 0.5 * Q, 0.6], [0.6, Q**2 / 2 - 0.5 * Q]]
    model = cq.thermal(("q", "p"), v, beta, mass={"q": mass}, friction={"q": 0.5})
    grid = cq.Grid(q=(-8, 8, 48), p=(-8, 8, 48))
    state = cq.steady_state(model, grid, method="composition")
    assert integrated_trace_norm(state.rho.values - cq.thermal_state(grid, ("q", "p"), v, beta, mass={"q": mass}).rho, grid) < 1e-8
    assert state.attrs["unique"] and state.attrs["residual"] < 1e-9 and state.attrs["min_eigenvalue"] > -1e-8
    with pytest.raises(CqpdeError, match=r"Use method='direct' or 'krylov'"):  # its noise acts on what L depends on
        cq.steady_state(cq.thermal(("x",), ENERGIES["complex"], beta, mobility={"x": 0.6}), cq.Grid(x=(-6, 6, 64)), method="composition")


def test_composition_refuses_walls():
    """A specular end is no end of the split route, which would go round there."""
    model = cq.Model(("q", "p"), 1, D1C={"q": lambda z: z.p, "p": lambda z: -z.q - z.p}, D2={"p": 0.5})
    with pytest.raises(CqpdeError, match="a streaming axis of the split route is open or periodic"):
        cq.steady_state(model, cq.Grid(q=(0, 6, 48, ("specular(p)", "open")), p=(-6, 6, 48)), method="composition")
    with pytest.raises(OptionError, match="transport: belongs to the other methods"):
        cq.steady_state(model, cq.Grid(q=(-6, 6, 48), p=(-6, 6, 48)), method="composition", transport="upwind")


def test_relaxation_rates_by_composition():
    """An Ornstein-Uhlenbeck pair of gamma and 2 gamma: rates j + 2 k, to 1e-8."""
    model = cq.Model(("x", "y"), 1, D1C={"x": lambda z: -z.x, "y": lambda z: -2 * z.y}, D2={"x": 0.5, "y": 1.0})
    state = cq.steady_state(model, cq.Grid(x=(-6, 6, 48), y=(-6, 6, 48)), method="composition", modes=3)
    np.testing.assert_allclose(state.relaxation, [0, -1, -2, -2], atol=1e-7)


def test_free_energy_falls_and_entropy_is_produced():
    """Second law along a run; entropy of a Gaussian and of a qubit mixture in closed form at the start."""
    beta, h = 1.3, ENERGIES["not commuting"]
    model = cq.thermal(("x",), h, beta, mobility={"x": 0.6})
    grid = cq.Grid(x=(-6, 6, 96, "reflecting"))
    start = cq.gaussian(grid, 1.0, 0.7, np.diag([0.8, 0.2]))
    run = cq.solve(model, start, np.linspace(0, 3, 31), method="fv", tol=1e-6, grid_error=False)
    energy = lambda z: [[z.x**2 / 2 + z.x, 0.8], [0.8, z.x**2 / 2 - z.x]]
    along = cq.thermodynamics(run, energy, beta)
    mixture = -0.8 * np.log(0.8) - 0.2 * np.log(0.2)
    assert float(along.entropy[0]) == pytest.approx(0.5 * np.log(2 * np.pi * np.e * 0.49) + mixture, abs=1e-8)
    assert float(along.energy[0]) == pytest.approx(0.5 * (1 + 0.49) + 0.6 * 1.0, abs=1e-8)
    assert np.all(np.diff(along.free_energy) < 0) and np.all(along.entropy_production > -1e-6)
    partition = np.log(np.trace(np.moveaxis(_exponential(-beta, grid), 0, -1)).sum() * grid.cell_volume)
    assert float(along.free_energy[-1]) > -partition / beta


def _exponential(factor, grid):
    x = grid.axes[0].centers
    h = np.array([[x**2 / 2 + x, 0.8 + 0 * x], [0.8 + 0 * x, x**2 / 2 - x]])
    e, u = np.linalg.eigh(np.moveaxis(h, (0, 1), (-2, -1)))
    return (u * np.exp(factor * e)[:, None, :]) @ np.swapaxes(u, -1, -2)


# -- the backward equation ---------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore::cqpde.errors.CqpdeWarning")
def test_both_sides_of_the_backward_equation_agree_to_round_off():
    model = cq.Model(
        ("q", "p"), 2, H=[[0.2, 0.5 - 0.2j], [0.5 + 0.2j, -0.2]], L=[cq.sigmaz(), cq.sigmam()], D0=[[0.6, 0], [0, 0.3]], D1={"p": [-0.4j, 0.1]},
        D2={"p": 0.5}, D1C={"q": lambda z: z.p, "p": lambda z: -z.q},
    )  # fmt: skip
    grid = cq.Grid(q=(-7, 7, 32), p=(-8, 8, 40))
    start = cq.gaussian(grid, {"q": 0.4}, 0.8, cq.ket("+i"))
    end = cq.solve(model, start, [0, 0.7], method="fv", transport="linear", grid_error=False)
    a = lambda z: [[z.q, 0.3 + 1j * z.p], [0.2, z.p * z.q]]
    forward = mean_of(end.rho.values[-1], _operator(a, grid), grid)
    backward = mean_of(start.rho, cq.adjoint(model, grid, a, 0.7), grid)
    assert abs(forward - backward) < 1e-11 and abs(forward) > 0.1


def _operator(a, grid):
    from cqpde.coefficients import Point

    z = Point(dict(grid.mesh()))
    rows = a(z)
    return np.array([[np.broadcast_to(np.asarray(e, dtype=complex), grid.shape) for e in row] for row in rows])
