"""Order 2 against independent references, with absolute bounds, and planted mistakes that the same numbers catch."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import cqpde as cq

from . import models
from .models import CASES, K, error_of, integrated_trace_norm
from .references import flux_form

#: case -> (two resolutions, bound of the error at the finer one)
BOUNDS = {
    "linear_diosi": (64, 128, 3.3e-3),
    "noncommuting_1d": (64, 128, 9.0e-4),
    "correlated_2d": (64, 128, 6.9e-3),
    "three_levels": (64, 128, 3.7e-3),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_order_two_positive_and_trace_exact(name):
    coarse, fine, bound = BOUNDS[name]
    case = CASES[name]()
    first, _, _ = error_of(case, coarse)
    second, solution, _ = error_of(case, fine)
    assert second < bound
    # the linear Diosi model transports pure states with a limiter, which reaches its order from above on coarse grids
    assert np.log2(first / second) == pytest.approx(2.0, abs=0.15)
    assert solution.min_eigenvalue.values.min() >= -1e-12
    assert np.abs(solution.trace + solution.escaped_probability - 1).max() < 1e-12


@pytest.mark.parametrize("name", ["linear_diosi", "noncommuting_1d"])
def test_grid_error_estimate_is_not_optimistic_and_of_the_right_size(name):
    case = CASES[name]()
    error, solution, _ = error_of(case, 64, grid_error=True, tol=1e-4)
    assert 0.9 * error < float(solution.grid_error[-1]) < 4 * error


# -- planted mistakes ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("term", ["v", "s", "A", "H", "D0", "N"])
@pytest.mark.parametrize("factor", [-1.0, 2.0])
def test_planted_factor_in_each_term_is_caught(term, factor):
    if factor < 0 and term in ("s", "D0", "N"):
        factor = 0.5  # a negative rate is no dynamics at all; the checks refuse it
    right, _, _ = error_of(models.noncommuting_1d(), 64)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", cq.CqpdeWarning
        )  # some of the wrong models are not completely positive, and warned about
        wrong, _, _ = error_of(models.noncommuting_1d(**{term: factor}), 64)
    assert right < 3.6e-3
    assert wrong > 5 * right


def test_complex_conjugate_of_d1_is_caught():
    right, _, _ = error_of(models.three_levels(), 64)
    wrong, _, _ = error_of(models.three_levels(conjugate=True), 64)
    assert right < 0.015
    assert wrong > 10 * right


def test_force_of_the_linear_diosi_model_points_down_for_level_0():
    """(C.8): dP = -2 lam <sz> dt; flipping the sign swaps the branches, which only populations of unequal weight can show."""
    grid = cq.Grid(q=(-6, 6, 48), p=(-9, 9, 96))
    rho0 = cq.gaussian(grid, 0.0, 0.5, np.array([0.8, 0.6]))
    solution = cq.solve(cq.models.linear_diosi(), rho0, [0, 0.5], grid_error=False)
    # exact: sum of populations times -+ 2 lam t
    assert float(solution.cq.moment("p")[-1]) == pytest.approx(-(0.64 - 0.36) * 2 * 0.5, abs=1e-6)
    assert float(solution.cq.moment("p", cq.sigmaz())[-1]) == pytest.approx(-2 * 0.5, abs=1e-6)


def test_ito_multiplicative_noise_grows_by_the_exact_rate():
    """dX = a X dt + b X dW in the Ito sense: E[X^2] grows as exp((2 a + b^2) t); Stratonovich would give 2 a + 2 b^2."""
    a, b, t = -0.2, 0.4, 0.5
    import sympy

    x = sympy.Symbol("x", real=True)
    model = cq.Model(("x",), 1, D1C=[a * x], D2=[[b**2 * x**2 / 2]])
    grid = cq.Grid(x=(-10, 10, 512))
    solution = cq.solve(model, cq.gaussian(grid, 1.5, 0.5, [1.0]), [0, t], grid_error=False)
    start, end = solution.cq.moment("x", order=2).values
    assert end / start == pytest.approx(np.exp((2 * a + b**2) * t), rel=4e-4)
    assert abs(np.exp((2 * a + 2 * b**2) * t) - np.exp((2 * a + b**2) * t)) > 0.02


# -- walls -------------------------------------------------------------------------------------------------------------------
LOW, HIGH = -4.0, 0.0


def _wall_start(kind):
    weight = (
        (lambda x: np.exp(-((x - LOW - 0.4) ** 2) / 0.72))
        if kind == "reflecting"
        else (lambda x: (x - LOW) * np.exp(-((x - LOW - 0.4) ** 2) / 0.72))
    )

    def rho(x):
        psi = np.array([np.cos(0.6 * np.sin(K * x)), 1j * np.sin(0.6 * np.sin(K * x))])
        return weight(x) * np.einsum("ak,bk->abk", psi, psi.conj())

    return rho


def _wall_error(kind, n, model):
    field = lambda name: lambda z: models._fields(z)[name]
    grid = cq.Grid(x=(LOW, HIGH, n, kind))
    x = grid.axes[0].centers
    reference, bound = flux_form.solve_walls_extrapolated(
        _wall_start(kind),
        0.5,
        LOW,
        HIGH,
        x,
        field("v"),
        field("s"),
        field("A"),
        field("H"),
        [field("N")],
        lower=kind,
        upper=kind,
        n=160,
    )
    assert bound < 1e-5
    state = cq.from_array(grid, _wall_start(kind)(x), normalise=True)
    solution = cq.solve(model, state, [0, 0.5])
    scale = 1 / state.normalisation
    error = integrated_trace_norm(solution.rho.values[-1] * scale - reference.rho, grid)
    escape = np.abs(solution.escaped.values[-1, 0] * scale - reference.escaped_lower).max()
    return error, escape, solution


@pytest.mark.parametrize(("kind", "bound"), [("reflecting", 6.5e-4), ("absorbing", 3.0e-4)])
def test_walls_are_second_order_with_the_state_on_them(kind, bound):
    model = models.nothing_commutes()
    first, escape_first, _ = _wall_error(kind, 64, model)
    second, escape_second, solution = _wall_error(kind, 128, model)
    assert second < bound
    assert np.log2(first / second) == pytest.approx(2.0, abs=0.15)
    assert solution.min_eigenvalue.values.min() >= -1e-12
    assert np.abs(solution.trace + solution.escaped_probability - 1).max() < 1e-12
    if kind == "absorbing":
        assert np.log2(escape_first / escape_second) == pytest.approx(2.0, abs=0.15)
        assert escape_second < 1.3e-4
        assert float(solution.escaped_probability[-1]) > 0.1


def test_wrong_sign_of_the_back_reaction_at_a_wall_is_caught():
    right, _, _ = _wall_error("reflecting", 64, models.nothing_commutes())
    wrong, _, _ = _wall_error("reflecting", 64, models.nothing_commutes(A=-1.0))
    assert wrong > 50 * right
