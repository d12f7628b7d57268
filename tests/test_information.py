"""Entropies and distances against closed forms of Gaussians, against QuTiP, and against quadrature by SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import qutip
import xarray as xr
from scipy.integrate import quad
from scipy.special import erf

import cqpde as cq
from cqpde.errors import OptionError

from .hybrid_states import dataset, normal, random_state, times_state

GRID = cq.Grid(q=(-7, 7, 120), p=(-8, 8, 100))
MEAN, STD = {"q": 0.4, "p": -0.3}, {"q": 0.7, "p": 0.9}
MIXED = random_state(3, 1)


def von_neumann(rho):
    values = np.linalg.eigvalsh(rho)
    return float(-np.sum(values * np.log(values)))


@pytest.fixture(scope="module")
def product():
    """An uncorrelated state, and one of smaller norm (part of it has left the box)."""
    field = times_state(normal(GRID, MEAN, STD), MIXED)
    return dataset(GRID, [field, 0.6 * field])


def test_entropies_of_a_gaussian_times_a_mixed_state(product):
    classical = 0.5 * np.log((2 * np.pi * np.e) ** 2 * 0.7**2 * 0.9**2)
    quantum = von_neumann(MIXED)
    for of, exact in {
        "total": classical + quantum, "classical": classical, "quantum": quantum, "conditional": quantum, "mutual": 0.0,
    }.items():  # fmt: skip
        assert product.cq.entropy(of).values == pytest.approx([exact, exact], abs=1e-10), of
    assert product.cq.entropy("classical", axes="q").values[0] == pytest.approx(0.5 * np.log(2 * np.pi * np.e * 0.49), abs=1e-10)
    assert product.cq.entropy("total", axes="q").values[0] == pytest.approx(0.5 * np.log(2 * np.pi * np.e * 0.49) + quantum, abs=1e-10)
    middle = product.cq.entropy("local").sel(q=0.4, p=-0.3, method="nearest").values
    assert middle == pytest.approx([quantum, quantum], abs=1e-12)
    assert product.cq.purity("local").sel(q=2.0, p=1.0, method="nearest").values == pytest.approx(np.trace(MIXED @ MIXED).real, abs=1e-12)


@pytest.mark.parametrize("a", [0.3, 1.0, 3.0])
def test_mutual_information_of_two_branches(a):
    """Two pure branches at -a and a: the hybrid state is a mixture of orthogonal levels with Gaussian weights."""
    grid = cq.Grid(x=(-10, 10, 400))
    up, down = 0.3 * normal(grid, {"x": -a}, {"x": 1.0}), 0.7 * normal(grid, {"x": a}, {"x": 1.0})
    field = np.zeros((2, 2, 400), dtype=complex)
    field[0, 0], field[1, 1] = up, down
    ds = dataset(grid, [field])
    g = lambda x, m: np.exp(-0.5 * (x - m) ** 2) / (2 * np.pi) ** 0.5
    h = lambda w: -w * np.log(w)

    def conditional(x):
        u, d = 0.3 * g(x, -a), 0.7 * g(x, a)
        return (u + d) * (h(u / (u + d)) + h(d / (u + d)))

    remaining = quad(conditional, -9, 9, epsabs=1e-12)[0]
    marginal = quad(lambda x: h(0.3 * g(x, -a) + 0.7 * g(x, a)), -9.9, 9.9, epsabs=1e-12)[0]
    assert float(ds.cq.mutual_information()[0]) == pytest.approx(h(0.3) + h(0.7) - remaining, abs=1e-9)
    assert float(ds.cq.entropy("classical")[0]) == pytest.approx(marginal, abs=1e-9)
    assert float(ds.cq.entropy()[0]) == pytest.approx(marginal + remaining, abs=1e-9)
    if a == 3.0:  # well apart, z tells nearly everything
        assert float(ds.cq.mutual_information()[0]) > 0.98 * (h(0.3) + h(0.7))


def test_purities(product):
    assert product.cq.purity().values == pytest.approx(np.trace(MIXED @ MIXED).real, abs=1e-12)
    assert product.cq.purity("unconditioned").values == pytest.approx(np.trace(MIXED @ MIXED).real, abs=1e-12)


@pytest.mark.parametrize("shift", [0.2, 1.5])
def test_distances_of_shifted_gaussians(shift):
    """The same quantum state: all three are the classical distances of two normal laws."""
    a = dataset(GRID, [times_state(normal(GRID, MEAN, STD), MIXED)])
    b = dataset(GRID, [times_state(normal(GRID, MEAN | {"q": 0.4 + shift}, STD), MIXED)])
    # |x| has a kink: the sum over cells of |a - b| is of second order, unlike the others
    assert float(a.cq.distance(b)[0]) == pytest.approx(2 * erf(shift / 0.7 / 8**0.5), abs=1.5e-3)
    assert float(a.cq.distance(b, "relative_entropy")[0]) == pytest.approx(0.5 * (shift / 0.7) ** 2, abs=1e-9)
    assert float(a.cq.distance(b, "hellinger")[0]) == pytest.approx((1 - np.exp(-((shift / 0.7) ** 2) / 8)) ** 0.5, abs=1e-9)


def test_relative_entropy_of_other_widths_is_not_symmetric():
    a = dataset(GRID, [times_state(normal(GRID, MEAN, STD), MIXED)])
    b = dataset(GRID, [times_state(normal(GRID, MEAN, {"q": 0.5, "p": 0.9}), MIXED)])
    exact = lambda s, r: np.log(r / s) + s * s / (2 * r * r) - 0.5
    assert float(a.cq.distance(b, "relative_entropy")[0]) == pytest.approx(exact(0.7, 0.5), abs=1e-8)
    assert float(b.cq.distance(a, "relative_entropy")[0]) == pytest.approx(exact(0.5, 0.7), abs=1e-8)


def test_distances_of_quantum_states_agree_with_qutip():
    other = random_state(3, 2)
    f = normal(GRID, MEAN, STD)
    a, b = (dataset(GRID, [times_state(f, m), times_state(f, MIXED)]) for m in (MIXED, other))
    one, two = qutip.Qobj(MIXED), qutip.Qobj(other)
    assert a.cq.distance(b).values == pytest.approx([2 * qutip.tracedist(one, two), 0], abs=1e-10)
    assert a.cq.distance(b, "relative_entropy").values == pytest.approx([qutip.entropy_relative(one, two), 0], abs=1e-9)
    affinity = (one.sqrtm() * two.sqrtm()).tr().real
    assert a.cq.distance(b, "hellinger").values == pytest.approx([(1 - affinity) ** 0.5, 0], abs=1e-7)


def test_relative_entropy_is_infinite_outside_the_support():
    grid = cq.Grid(x=(-5, 5, 60))
    f = normal(grid, {"x": 0}, {"x": 0.6})
    plus, zero = np.full((2, 2), 0.5), np.diag([1.0, 0.0])
    pure = dataset(grid, [times_state(f, plus)])
    assert float(pure.cq.distance(dataset(grid, [times_state(f, zero)]), "relative_entropy")[0]) == np.inf
    assert float(pure.cq.distance(pure, "relative_entropy")[0]) == pytest.approx(0.0, abs=1e-12)
    # a pure state against the maximally mixed one: ln 2
    assert float(pure.cq.distance(dataset(grid, [times_state(f, np.eye(2) / 2)]), "relative_entropy")[0]) == pytest.approx(np.log(2), abs=1e-12)


def test_distance_to_a_state_and_its_refusals(product):
    state = cq.gaussian(GRID, MEAN, STD, MIXED)
    assert product.cq.distance(state).values == pytest.approx([0, 0.4], abs=1e-9)
    with pytest.raises(OptionError, match="100 values along p"):
        product.cq.distance(cq.gaussian(cq.Grid(q=(-7, 7, 120), p=(-8, 8, 80)), MEAN, STD, MIXED))
    with pytest.raises(OptionError, match="same values of q"):
        product.cq.distance(cq.gaussian(cq.Grid(q=(-7, 8, 120), p=(-8, 8, 100)), MEAN, STD, MIXED))
    with pytest.raises(OptionError, match="same axes"):
        product.cq.distance(cq.gaussian(cq.Grid(q=(-7, 7, 120)), 0.0, 0.5, MIXED))
    with pytest.raises(OptionError, match="row"):
        product.cq.distance(cq.gaussian(GRID, MEAN, STD, cq.ket("+")))
    with pytest.raises(OptionError, match="2 values along t"):
        product.cq.distance(xr.concat([product.rho, product.rho], dim="t"))
    with pytest.raises(OptionError, match="Did you mean 'hellinger'"):
        product.cq.distance(state, "helinger")
    with pytest.raises(OptionError, match="Did you mean 'mutual'"):
        product.cq.entropy("mutal")


def test_entropy_production_of_the_diosi_model_matches_its_closed_form():
    """Saturated and pure at the start: conditional states stay pure on trajectories; on the grid the mixture is the closed form's."""
    grid = cq.Grid(q=(-6, 6, 80), p=(-9, 9, 120))
    exact = [cq.models.linear_diosi_exact(grid, t) for t in (0.0, 1.0)]
    sol = cq.solve(cq.models.linear_diosi(), cq.gaussian(grid, 0.0, 0.4, cq.ket("+")), [0, 1], tol=1e-6)
    matrices = np.moveaxis(exact[1], (0, 1), (-2, -1)).reshape(-1, 2, 2)
    values = np.clip(np.linalg.eigvalsh(matrices), 1e-300, None)
    total = -float(np.sum(values * np.log(values)) * grid.cell_volume)
    assert float(sol.cq.entropy()[1]) == pytest.approx(total, abs=1e-5)
    # at t = 0: Gaussian of width 0.4 in both, pure
    assert float(sol.cq.entropy()[0]) == pytest.approx(np.log(2 * np.pi * np.e * 0.16), abs=1e-6)
    assert float(sol.cq.distance(dataset(grid, exact))[1]) < 2e-6
