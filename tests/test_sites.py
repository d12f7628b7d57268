"""n uncoupled sites as a sum of products: against the exact solution (exact.md, C.18), the direct grid, closed forms and itself."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import cqpde as cq
from cqpde.components import to_components, trace_norm_bound
from cqpde.io import describe

GRID = cq.Grid(phi=(-6, 6, 64), pi=(-8, 8, 96))
TIMES = [0.0, 0.5, 1.0]


def start(psi, grid=GRID, width=0.4):
    return cq.gaussian(grid, 0.0, width, psi)


@pytest.fixture(scope="module")
def five():
    return cq.solve_sites(cq.models.lattice_site(), start, cq.ghz(5), TIMES, tol=1e-9)


def one_site_exact(t, grid=GRID):
    """Elements f_ab of |+> under one site: the linear Diosi solution with 2 lam -> lam, phi = 0; times 2 for unit weights."""
    renamed = cq.Grid(q=(grid.axes[0].lower, grid.axes[0].upper, grid.axes[0].n), p=(grid.axes[1].lower, grid.axes[1].upper, grid.axes[1].n))
    return 2.0 * cq.models.linear_diosi_exact(renamed, t, lam=0.5, phi=0.0)


def test_every_factor_is_the_exact_one_site_solution(five):
    for k, t in enumerate(TIMES):
        exact = one_site_exact(t)
        for a in (0, 1):
            for b in (0, 1):
                found = five._factor[k, 0, a, b]
                assert np.abs(found[a, b] - exact[a, b]).max() < 1e-8
                found = found.copy()
                found[a, b] = 0.0
                assert np.abs(found).max() < 1e-12


def test_ghz_moments_are_the_exact_ones(five):
    """<phi_i phi_j> = (lam t^2/2m)^2, <pi_i pi_j> = (lam t)^2 for i != j; var pi_i = V + sigma^2 t + (lam t)^2."""
    for k, t in enumerate(TIMES):
        phi, pi = five.correlation("phi")[k].values, five.correlation("pi")[k].values
        off = ~np.eye(5, dtype=bool)
        assert np.abs(phi[off] - 0.25 * t**4).max() < 1e-6
        assert np.abs(pi[off] - t**2).max() < 1e-6
        assert np.abs(np.diag(pi) - (0.16 + t + t**2)).max() < 1e-6
        assert np.abs(np.diag(phi) - (0.16 * (1 + t**2) + t**3 / 3 + 0.25 * t**4)).max() < 1e-6
    assert np.abs(five.mean().values).max() < 1e-10
    # the branch of |0> is pushed down: phi = -lam t^2/2m where sigma_z = +1
    assert float(five.moment("pi_1 pi_1 phi_4", {2: cq.sigmaz()})[-1]) == pytest.approx(-0.5 * 2.16, abs=1e-6)


def test_the_signs_of_moment_and_force(five):
    assert float(five.moment("pi_1", {1: cq.sigmaz()})[-1]) == pytest.approx(-1.0, abs=1e-6)
    assert float(five.moment("pi_3", {5: cq.sigmaz()})[-1]) == pytest.approx(-1.0, abs=1e-6)


def test_coherence_of_any_number_of_sites(five):
    """(1/2) prod of the one-site coherence weights; from a point (1/2) exp(-n [lam^2 t/2 sigma^2 + lam^2 sigma^2 t^5/10 m^2])."""
    t = 1.0
    weight = np.exp(-(t / 2 + t**5 / 10) - 2 * (0.16 * t**2 + 0.16 * t**4 / 4))
    for n in (1, 5, 40):
        sol = five if n == 5 else cq.solve_sites(cq.models.lattice_site(), start, cq.ghz(n), TIMES, tol=1e-9)
        found = complex(sol.matrix_element("0" * n, "1" * n)[-1])
        assert found == pytest.approx(0.5 * weight**n, rel=1e-6 * n)
        c = abs(found)
        entropy = -sum(p * np.log(p) for p in (0.5 + c, 0.5 - c))
        assert float(sol.entropy()[-1]) == pytest.approx(entropy, abs=1e-8)
        assert float(sol.purity()[-1]) == pytest.approx(0.5 + 2 * c * c, abs=1e-8)


def test_reduced_sites_have_no_coherence_but_correlations(five):
    one = five.quantum_state(2)[-1].values
    assert np.abs(one - np.eye(2) / 2).max() < 1e-9
    assert float(five.entropy(1, 2)[-1]) == pytest.approx(np.log(2), abs=1e-9)
    assert np.abs(five.correlation(cq.sigmaz())[-1].values - 1).max() < 1e-9
    assert five.reduced(3).rho.dims == ("t", "row", "col", "phi_3", "pi_3")
    with pytest.raises(cq.CqpdeError, match="fewer than 2\\^28"):
        five.reduced(1, 3)


def test_direct_grid_of_two_sites_agrees():
    """4-D, 4 levels: the whole hybrid distribution cell by cell, and observables of it."""
    axes = {f"{a}_{i}": (-4.5, 4.5, 24) for i in (1, 2) for a in ("phi", "pi")}
    grid, site = cq.Grid(**axes), cq.Grid(phi=(-4.5, 4.5, 24), pi=(-4.5, 4.5, 24))
    t = [0.0, 0.2]
    cat = np.array([1, 0, 0, 1]) / 2**0.5
    direct = cq.solve(cq.models.qubit_lattice(2), cq.gaussian(grid, 0.0, 0.6, cat), t, tol=1e-6)
    form = cq.solve_sites(cq.models.lattice_site(), lambda psi: start(psi, site, 0.6), cq.ghz(2), t, tol=1e-8)
    both = form.reduced(1, 2)
    difference = direct.rho.values[-1] - both.rho.values[-1]
    assert trace_norm_bound(to_components(difference).reshape(16, -1), 1, grid.cell_volume) < 2e-6
    assert float(both.cq.moment("pi_1 pi_2")[-1]) == pytest.approx(0.04, abs=1e-6)
    swapped = form.reduced(2, 1)
    order = ("t", "phi_2", "pi_1")
    assert np.abs(both.cq.marginal("phi_2", "pi_1").transpose(*order).values - swapped.cq.marginal("phi_2", "pi_1").transpose(*order).values).max() < 1e-12
    assert np.abs(form.marginal("phi_2", "pi_1").values - both.cq.marginal("pi_1", "phi_2").transpose("t", "phi_2", "pi_1").values).max() < 1e-10


def test_three_sites_on_a_direct_grid_of_six_dimensions():
    """6-D, 8 levels, 64 components per cell: cells far too coarse for the physics, but on the same cells and steps the product form is exact.

    All parts of different sites commute, so a symmetric step of the whole is the product of symmetric steps of the sites: equal to round-off.
    """
    cells = (-3.2, 3.2, 6, "periodic")
    grid, site = cq.Grid(**{f"{a}_{i}": cells for i in (1, 2, 3) for a in ("phi", "pi")}), cq.Grid(phi=cells, pi=cells)
    t, options, cat = [0.0, 0.3], {"dt": 0.075, "check": "warn"}, np.array([1, 0, 0, 0, 0, 0, 0, 1]) / 2**0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cq.CqpdeWarning)
        solve = lambda **more: cq.solve(cq.models.qubit_lattice(3, **more), cq.gaussian(grid, 0.0, 0.8, cat), t, **options)
        form = cq.solve_sites(cq.models.lattice_site(), lambda psi: start(psi, site, 0.8), cq.ghz(3), t, **options)
        product, direct, coupled = form.reduced(1, 2, 3).rho.values[-1], solve(), solve(gradient=0.5)
    scale = np.abs(product).max()
    assert np.abs(direct.rho.values[-1] - product).max() < 1e-13 * scale
    assert np.abs(coupled.rho.values[-1] - product).max() > 1e-2 * scale
    assert float(direct.cq.moment("pi_1 pi_3")[-1]) == pytest.approx(float(form.moment("pi_1 pi_3")[-1]), abs=1e-12)
    assert float(direct.cq.moment("pi_1 pi_3")[-1]) == pytest.approx(0.09, abs=0.03)  # (lam t)^2, on six cells


def test_three_sites_whose_noise_is_correlated():
    """One coordinate per site, 3-D, 8 levels, nothing commutes: independent sites are the product form, correlated noise adds c s t to <x_i x_j>."""
    cells = (-4.8, 4.8, 12, "periodic")
    grid, site = cq.Grid(x_1=cells, x_2=cells, x_3=cells), cq.Grid(x=cells)
    l = np.array([[1.0, 0.3], [0.0, -1.0]])
    one = cq.Model(("x",), 2, H=0.4 * cq.sigmay(), L=[l], D1=[[0.5]], D2=[[0.5]], D0="saturated")
    at = lambda m, k: cq.tensor(*[m if i == k else np.eye(2) for i in range(3)])
    s = lambda c: 0.5 * ((1 - c) * np.eye(3) + c)
    whole = lambda c: cq.Model(
        ("x_1", "x_2", "x_3"), 8, H=sum(at(0.4 * cq.sigmay(), k) for k in range(3)), L=[at(l, k) for k in range(3)], D1=0.5 * np.eye(3), D2=s(c), D0="saturated"
    )
    t = [0.0, 0.4]
    w = np.zeros(8)
    w[[1, 2, 4]] = 3**-0.5
    options = {"dt": 0.1, "check": "warn"}
    form = cq.solve_sites(one, lambda psi: cq.gaussian(site, 0.0, 0.8, psi), cq.w_state(3), t, **options)
    product = form.reduced(1, 2, 3)
    free, tied = (cq.solve(whole(c), cq.gaussian(grid, 0.0, 0.8, w), t, **options) for c in (0.0, 0.5))
    difference = to_components(free.rho.values[-1] - product.rho.values[-1])
    assert trace_norm_bound(difference.reshape(64, -1), 1, grid.cell_volume) < 1e-10
    pair = lambda sol: float(sol.cq.moment("x_1 x_3")[-1])
    assert pair(free) == pytest.approx(float(form.moment("x_1 x_3")[-1]), abs=1e-8)
    assert pair(tied) - pair(free) == pytest.approx(0.5 * 1.0 * 0.4, abs=2e-2)  # and a little from the back-reaction on the other sites


def test_coupled_sites_leave_the_product_form():
    """Correlated noise and springs each change the direct two-site solution: the check above can fail."""
    axes = {f"{a}_{i}": (-4.5, 4.5, 20) for i in (1, 2) for a in ("phi", "pi")}
    grid = cq.Grid(**axes)
    rho0 = cq.gaussian(grid, 0.0, 0.6, np.array([1, 0, 0, 1]) / 2**0.5)
    moments = {}
    for name, options in {"none": {}, "noise": {"correlation": 0.5}, "springs": {"gradient": 1.0}}.items():
        sol = cq.solve(cq.models.qubit_lattice(2, **options), rho0, [0.0, 0.2], tol=1e-3, frames=[0.2])
        moments[name] = float(sol.cq.moment("pi_1 pi_2")[-1])
    assert moments["none"] == pytest.approx(0.04, abs=1e-4)
    assert moments["noise"] == pytest.approx(0.04 + 0.5 * 0.2, abs=1e-4)  # c sigma^2 t
    # for springs: d<pi1 pi2>/dt gains kappa (<phi1 pi1> + <phi2 pi2> - ...) = kappa (2 Vpp t) + O(t^2)
    assert abs(moments["springs"] - moments["none"]) > 5e-3


def test_other_states_and_sites_that_differ():
    plus, minus = cq.ket("+"), cq.ket("-")
    models = [cq.models.lattice_site(lam=1.0), cq.models.lattice_site(lam=0.5), cq.models.lattice_site(lam=2.0)]
    sol = cq.solve_sites(models, start, cq.product_ket([cq.ket("0"), cq.ket("1"), plus]), [0.0, 0.5], tol=1e-8)
    assert np.abs(sol.mean()[-1].values[:, 1] - [-0.5, 0.25, 0.0]).max() < 1e-7
    one = cq.solve(models[2], start(plus), [0.0, 0.5], tol=1e-8)
    assert np.abs(sol.reduced(3).rho.values[-1] - one.rho.values[-1]).max() < 1e-7
    mixed = cq.solve_sites(models[0], start, cq.KetSum([[plus] * 3, [minus] * 3], np.diag([0.5, 0.5])), [0.0, 0.5], tol=1e-8)
    assert np.abs(mixed.correlation(cq.sigmax())[0].values - 1).max() < 1e-9
    assert float(mixed.entropy()[0]) == pytest.approx(np.log(2), abs=1e-8)
    w = cq.solve_sites(models[0], start, cq.w_state(3), [0.0, 0.5], tol=1e-8)
    assert float(w.entropy(1)[0]) == pytest.approx(-(1 / 3) * np.log(1 / 3) - (2 / 3) * np.log(2 / 3), abs=1e-8)
    # covariance of sigma_z in a W state: -(2/n)^2 off the diagonal
    assert np.abs(w.correlation("pi")[-1].values[0, 1] - (-4 / 9 * 0.25)) < 1e-7


def test_a_model_that_is_not_diagonal():
    """Three levels, nothing commutes: two sites against the direct product of independent one-site solutions."""
    site = cq.Model(
        ("x",), 3, H=[[0.5, 0.3, 0], [0.3, 0, 0.4j], [0, -0.4j, -0.2]], L=[np.diag([1.0, 0, -1]) + 0.2 * np.eye(3, k=1)], D1=[[0.5]], D2=[[0.5]], D0="saturated"
    )
    grid = cq.Grid(x=(-6, 6, 48))
    a, b = np.array([0.6, 0.48j, 0.64]), np.array([0, 1, 1j]) / 2**0.5
    begin = lambda psi: cq.gaussian(grid, 0.0, 0.6, psi)
    sol = cq.solve_sites(site, begin, cq.product_ket([a, b]), [0, 0.7], tol=1e-9)
    one, two = (cq.solve(site, begin(k), [0, 0.7], tol=1e-9).rho.values[-1] for k in (a, b))
    exact = np.einsum("ijx,kly->ikjlxy", one, two).reshape(9, 9, 48, 48)
    assert np.abs(sol.reduced(1, 2).rho.values[-1] - exact).max() < 1e-8
    assert float(sol.trace()[-1]) == pytest.approx(1.0, abs=1e-12)
    state = sol.quantum_state()[-1].values
    assert float(sol.purity()[-1]) == pytest.approx(np.trace(state @ state).real, abs=1e-9)


def test_conditional_states(five):
    """Given pi of one site, Bayes' rule for the branches -1 and +1 of variance V = 1.16; coherence never conditions back."""
    pi = GRID.axis("pi").centers[60]
    found = five.conditional_state(2, pi_4=pi)[-1].values
    odds = np.exp(-(((pi + 1) ** 2) - (pi - 1) ** 2) / (2 * 1.16))
    assert found[0, 0].real == pytest.approx(odds / (1 + odds), abs=1e-8)
    assert abs(found[0, 1]) < 1e-9


def test_samples_follow_the_density(five):
    points = five.sample(20_000, seed=3)
    pi = points.pi.values
    exact = five.correlation("pi")[-1].values + np.eye(5) * (GRID.axis("pi").spacing ** 2 / 12)
    error = np.sqrt((exact**2 + np.outer(np.diag(exact), np.diag(exact))) / 20_000)
    assert np.abs((np.cov(pi.T) - exact) / error).max() < 4.5
    shifted = exact + 0.1
    assert np.abs((np.cov(pi.T) - shifted) / error).max() > 4.5


def test_a_thousand_sites_and_files(tmp_path):
    sol = cq.solve_sites(cq.models.lattice_site(), start, cq.ghz(1000), [0.0, 0.1], tol=1e-9)
    t = 0.1
    weight = np.exp(-(t / 2 + t**5 / 10) - 2 * (0.16 * t**2 + 0.16 * t**4 / 4))
    assert complex(sol.matrix_element("0" * 1000, "1" * 1000)[-1]) == pytest.approx(0.5 * weight**1000, rel=1e-5)
    assert sol.correlation("pi").shape == (2, 1000, 1000)
    assert np.abs(sol.correlation("pi")[-1].values[0, 999] - t**2) < 1e-8
    cq.save(sol, tmp_path / "sites.nc")
    again = cq.load(tmp_path / "sites.nc")
    assert isinstance(again, cq.ProductSum) and again.n == 1000
    assert np.array_equal(again._factor, sol._factor)
    assert "product sum" in describe(tmp_path / "sites.nc")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cq.KetSum([[[1, 0]]], [0.5]), "trace"),
        (lambda: cq.KetSum([[[1, 0]], [[0, 1]]], [[0.5, 1], [1, 0.5]]), "positive"),
        (lambda: cq.ghz(0), "integer of at least 1"),
        (lambda: cq.solve_sites(cq.models.lattice_site(), start, cq.ket("+"), [0, 1]), "KetSum"),
        (lambda: cq.solve_sites([cq.models.lattice_site()] * 2, start, cq.ghz(3), [0, 1]), "3 sites"),
        (lambda: cq.solve_sites(cq.models.lattice_site(), start, cq.ghz(2), [0, 1], method="fv"), "linear"),
        (lambda: cq.solve_sites(cq.models.lattice_site(), start, cq.ghz(2), [0, 1], save=["density"]), "product form"),
        (lambda: cq.models.qubit_lattice(9), "1 to 6"),
        (lambda: cq.models.qubit_lattice(3, correlation=-0.8), "correlation"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(cq.CqpdeError, match=words):
        make()


def test_names_and_sites_are_checked(five):
    for call, words in (
        (lambda: five.marginal("phi"), "axis with its site"), (lambda: five.marginal("pi_6"), "1 to 5"), (lambda: five.reduced(0), "1 to 5"),
        (lambda: five.reduced(1, 1), "different"), (lambda: five.matrix_element("00", "11"), "5 sites"), (lambda: five.conditional_state(1, pi_2=99), "inside"),
        (lambda: five.sample(10, t=0.3), "times"),
    ):  # fmt: skip
        with pytest.raises(cq.CqpdeError, match=words):
            call()
