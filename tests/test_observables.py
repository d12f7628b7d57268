"""Observables against closed forms of a correlated Gaussian, and what Grid.suggest proposes."""

from __future__ import annotations

import numpy as np
import pytest

import cqpde as cq
from cqpde.dataset import build, coordinates
from cqpde.errors import OptionError

GRID = cq.Grid(q=(-6, 6, 80), p=(-6, 6, 90))


@pytest.fixture(scope="module")
def solution():
    """Gaussian in (q, p) times the ket (cos q, sin q) at rest: nothing moves."""
    model = cq.Model(("q", "p"), 2)
    cov = [[0.5, 0.2], [0.2, 0.6]]
    density = cq.gaussian(GRID, {"q": 0.4, "p": -0.3}, cov=cov, state=lambda z: [np.cos(z.q), np.sin(z.q)])
    return cq.solve(model, density, [0, 1], grid_error=False)


def test_moments_and_expectations(solution):
    c2 = np.exp(-2 * 0.5) * np.cos(0.8)  # E cos 2q
    s2 = np.exp(-2 * 0.5) * np.sin(0.8)
    at = lambda a: np.asarray(a)[-1]
    assert at(solution.cq.mean()) == pytest.approx([0.4, -0.3], abs=1e-10)
    assert at(solution.cq.covariance()).reshape(-1) == pytest.approx([0.5, 0.2, 0.2, 0.6], abs=1e-9)
    assert at(solution.cq.expect(cq.sigmaz())) == pytest.approx(c2, abs=1e-10)
    assert at(solution.cq.expect(lambda z: [[z.q, 0], [0, z.q]])) == pytest.approx(0.4, abs=1e-10)
    assert at(solution.cq.populations()) == pytest.approx([(1 + c2) / 2, (1 - c2) / 2], abs=1e-10)
    assert at(solution.cq.moment("q", cq.sigmaz())) == pytest.approx(0.4 * c2 - 2 * 0.5 * s2, abs=1e-9)
    state = at(solution.cq.unconditioned_state())
    assert state[0, 1] == pytest.approx(s2 / 2, abs=1e-10)
    assert at(solution.cq.purity()) == pytest.approx(1.0, abs=1e-12)
    assert at(solution.cq.purity(of="unconditioned")) == pytest.approx((1 + c2**2 + s2**2) / 2, abs=1e-9)


def test_marginals_and_conditional_states(solution):
    q = GRID.axes[0].centers
    exact = np.exp(-((q - 0.4) ** 2) / (2 * 0.5)) / (2 * np.pi * 0.5) ** 0.5
    assert solution.cq.marginal("q").values[-1] == pytest.approx(exact, abs=1e-9)
    assert float(solution.cq.density()[-1].sum()) * GRID.cell_volume == pytest.approx(1, abs=1e-12)
    cell = q[np.argmin(abs(q - 0.7))]
    psi = np.array([np.cos(cell), np.sin(cell)])
    for state in (solution.cq.conditional_state(q=0.7), solution.cq.conditional_state(q=0.7, p=0.1)):
        assert np.abs(state.values[-1] - np.outer(psi, psi)).max() < 1e-10
    with pytest.raises(OptionError, match="Did you mean"):
        solution.cq.marginal("qq")
    with pytest.raises(OptionError, match="inside"):
        solution.cq.conditional_state(q=9.0)


def test_complex_expectation_keeps_its_sign():
    """<sigma_+> = rho_10 for a state with a phase: the index order of the trace matters."""
    grid = cq.Grid(x=(-4, 4, 40))
    ket = np.array([0.6, 0.8 * np.exp(0.7j)])
    data = np.outer(ket, ket.conj())[None, :, :, None] * np.ones(40) / 8.0
    ds = build(grid, 2, np.zeros(1), np.zeros(1), data, np.zeros((1, 2, 2, 2)), {}, {}, {})
    assert set(coordinates(grid, 2)) <= set(ds.coords)
    assert complex(ds.cq.expect(cq.sigmap())[0]) == pytest.approx(ket.conj()[0] * ket[1], abs=1e-12)


def test_arrival_rates_add_up_to_what_escaped():
    model = cq.Model(("x",), 1, D1C=[2.0], D2=[[0.2]])
    sol = cq.solve(
        model,
        cq.gaussian(cq.Grid(x=(-3, 3, 60, ("open", "absorbing"))), -0.5, 0.4, [1.0]),
        np.linspace(0, 3, 13),
        grid_error=False,
    )
    rate = sol.cq.arrival_rate()
    assert float(rate.sum()) * 0.25 == pytest.approx(float(sol.escaped_probability[-1]), abs=1e-12)
    # ballistic arrival at the upper end after 3.5/2
    assert float((rate.isel(face=1) * rate.t).sum() / rate.isel(face=1).sum()) == pytest.approx(1.75, abs=0.1)


def test_suggested_grid_holds_the_state_and_resolves_it():
    model = cq.models.linear_diosi(lam=0.5)
    grid = cq.Grid.suggest(model, {"mean": {"q": 0, "p": 0}, "std": {"q": 0.5, "p": 0.5}}, 0.5)
    sol = cq.solve(model, cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 0.5], tol=1e-3)
    assert float(sol.escaped_probability[-1]) < 1e-8
    assert float(sol.grid_error[-1]) < 0.05
    assert max(grid.shape) < 300
