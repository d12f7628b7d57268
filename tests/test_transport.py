"""Drift along axes without noise, correlated noise that varies, and four dimensions: against exact numbers."""

from __future__ import annotations

import numpy as np
import pytest

import cqpde as cq
from cqpde.components import to_components
from cqpde.kernels import remap

from . import models
from .models import Case, error_of
from .references import spectral

BOX = 4.0
K = np.pi / BOX


def _varying(x, y):
    """Noise whose matrix turns with position, drift, two operators and H, all periodic."""
    c = 1 + 0.3 * np.sin(K * x) + 0.2 * np.cos(K * y)
    s = [[0.7 * c, 0.25 * np.cos(K * (x + y))], [0.25 * np.cos(K * (x + y)), 0.6 + 0.15 * np.sin(K * x)]]
    return {
        "s": s,
        "v": [0.3 * np.cos(K * y), -0.2 + 0.2 * np.sin(K * x)],
        "A": [0.6 + 0.3 * np.sin(K * y), 0.5 + 0.2 * np.cos(K * x)],
    }


def varying_correlated(cross: float = 1.0) -> Case:
    """``cross`` scales the off-diagonal noise; anything but one is a planted mistake."""

    def entry(name, *index):
        def value(z):
            f = _varying(z.x, z.y)[name]
            for i in index:
                f = f[i]
            return f

        return value

    def start(grid):
        return cq.product(grid, lambda z: np.exp(-1.5 * (2 - np.cos(K * z.x) - np.cos(K * (z.y - 0.4)))), cq.ket("+i"))

    def reference(grid):
        fine = cq.Grid(x=(-BOX, BOX, 48, "periodic"), y=(-BOX, BOX, 48, "periodic"))
        x, y = (np.broadcast_to(c, fine.shape) for c in fine.mesh().values())
        f = _varying(x, y)
        drift = [a * w[:, :, None, None] for a, w in zip(f["A"], models.A2, strict=True)]
        rho = spectral.solve_periodic(
            start(fine).rho, 0.4, [(-BOX, BOX)] * 2, f["v"], f["s"], drift, models.H2, rtol=1e-8
        )
        return models.fourier_resample(np.swapaxes(models.fourier_resample(rho, grid), -1, -2), grid).swapaxes(-1, -2)

    d2 = [[lambda z: 0.5 * entry("s", 0, 0)(z), lambda z: 0.5 * cross * entry("s", 0, 1)(z)]]
    d2.append([d2[0][1], lambda z: 0.5 * entry("s", 1, 1)(z)])
    model = cq.Model(
        ("x", "y"), 2, H=models.H2, L=models.A2, D0="saturated",
        D1=[[entry("A", 0), 0], [0, entry("A", 1)]], D2=d2, D1C=[entry("v", 0), entry("v", 1)],
    )  # fmt: skip
    return Case(
        model, lambda n: cq.Grid(x=(-BOX, BOX, n, "periodic"), y=(-BOX, BOX, n, "periodic")), start, 0.4, reference
    )


def test_correlated_noise_that_varies_is_second_order():
    first, _, _ = error_of(varying_correlated(), 40)
    second, solution, _ = error_of(varying_correlated(), 80)
    assert np.log2(first / second) == pytest.approx(2.0, abs=0.15)
    assert second < 1.5e-2
    assert solution.min_eigenvalue.values.min() >= -1e-12
    wrong, _, _ = error_of(varying_correlated(cross=0.5), 80)
    assert wrong > 5 * second


@pytest.mark.filterwarnings("ignore:rho is not positive")  # linear transport, small negativity
@pytest.mark.parametrize(
    ("transport", "order", "bound"), [("limited", 2.0, 1e-3), ("upwind", 1.0, 0.08), ("linear", 4.0, 1e-3)]
)
def test_drift_that_depends_on_its_own_coordinate(transport, order, bound):
    """dq = -q dt (friction): the density contracts to N(m e^-t, (s e^-t)^2), and a phase from H(q) rides along."""
    model = cq.Model(("q",), 1, D1C=[lambda z: -z.q])
    errors = []
    for n in (100, 200):
        grid = cq.Grid(q=(-5, 5, n))
        sol = cq.solve(model, cq.gaussian(grid, 1.0, 0.8, [1.0]), [0, 0.5], transport=transport, grid_error=False)
        q, m, s = grid.axes[0].centers, np.exp(-0.5), 0.8 * np.exp(-0.5)
        exact = np.exp(-0.5 * ((q - m) / s) ** 2) / (s * (2 * np.pi) ** 0.5)
        errors.append(float(np.abs(sol.rho.values[-1, 0, 0].real - exact).sum() * grid.cell_volume))
    assert errors[1] < bound
    assert np.log2(errors[0] / errors[1]) > order - 0.2


def test_time_dependent_drift_without_noise():
    """dq = cos(5 t) dt carries every start by sin(5 t)/5."""
    model = cq.Model(("q",), 1, D1C=[lambda z, t: np.cos(5 * t)])
    sol = cq.solve(model, cq.gaussian(cq.Grid(q=(-4, 4, 160)), 0.3, 0.4, [1.0]), [0, 0.2, 0.9], grid_error=False)
    assert sol.cq.mean().values[:, 0] == pytest.approx(0.3 + np.sin(5 * np.array([0, 0.2, 0.9])) / 5, abs=1e-5)


def test_two_particles_in_four_dimensions():
    """Free particles with noise: exact covariances; a force s_z on the second moves its momentum only."""
    model = cq.Model(
        ("q", "p", "x", "y"), 2, L=[cq.sigmaz()], D0="saturated", D1={"y": [0.5]}, D2={"p": 0.3, "y": 0.2},
        D1C={"q": lambda z: z.p, "x": lambda z: z.y},
    )  # fmt: skip
    grid = cq.Grid(q=(-5, 5, 24), p=(-5, 5, 24), x=(-5, 5, 24), y=(-6, 6, 28))
    state = cq.gaussian(grid, 0, 0.8, cq.basis(2, 0))
    sol = cq.solve(model, state, [0, 0.4], tol=1e-2, method="fv", grid_error=False)
    t, w = 0.4, {"p": 0.6, "y": 0.4}
    # the Kraus scheme's noise is s (1 + (h|B|/s)^2), order 2; with it the second moments are exact, so the bound can be tight
    w["y"] *= 1 + (12 / 28 * 0.5 / w["y"]) ** 2
    mean, cov = sol.cq.mean().values[-1], sol.cq.covariance().values[-1]
    assert mean == pytest.approx([0, 0, 0.5 * t**2, t], abs=1e-4)  # dy = <A + A^+> dt = 1 dt
    for i, name in ((0, "p"), (2, "y")):
        assert cov[i, i + 1] == pytest.approx(0.64 * t + w[name] * t**2 / 2, rel=2e-3)
        assert cov[i + 1, i + 1] == pytest.approx(0.64 + w[name] * t, rel=2e-4)
    assert cov[0, 2] == pytest.approx(0, abs=1e-6)
    assert sol.min_eigenvalue.values.min() >= -1e-12
    assert abs(float(sol.trace[-1] + sol.escaped_probability[-1]) - 1) < 1e-12


@pytest.mark.parametrize("ends", [("specular(p)", "open"), ("specular(p)", "specular(p)")])
def test_specular_end_keeps_the_trace_where_the_limiter_acts(ends):
    """What a line loses at the wall is what its mirror image gains, over many cells per step and for a state that the cells do not resolve.

    The limiter looks from both sides of the wall at the same cells and must come to the same fraction, to round-off.
    """
    model = cq.Model(("q", "p"), 2, D1C=[lambda z: z.p, 0.0])
    grid = cq.Grid(q=(0.0, 8.0, 24, ends), p=(-4.0, 4.0, 24))
    density = lambda z: np.exp(-0.5 * ((z.q - 1.2) / 0.22) ** 2 - 0.5 * ((z.p + 2.0) / 0.35) ** 2)
    rho0 = cq.product(grid, density, lambda z: [np.cos(z.q), 1j * np.sin(z.q)])
    sol = cq.solve(model, rho0, [0.0, 0.7, 1.4], tol=1e-2, grid_error=False)
    assert np.abs(sol.trace + sol.escaped_probability - 1.0).max() < 1e-13
    assert sol.min_eigenvalue.min() >= -1e-12
    assert float(sol.cq.moment("p")[-1]) > 1.0  # it came back


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("size", [1.0, 1e-150])
def test_the_limiter_keeps_as_much_of_the_quartic_as_can_be(d, size):
    """Against eigenvalues and a bisection of 60 steps."""
    rng, cells = np.random.default_rng(d), 60
    least = lambda m: np.linalg.eigvalsh(m)[..., 0]
    control = remap.tables()[0]
    limited = 0
    for _ in range(10):
        v = rng.normal(size=(cells, d, 2)) + 1j * rng.normal(size=(cells, d, 2))
        v[:, :, 1] *= rng.random((cells, 1)) < 0.5  # pure and mixed
        rho = size * np.einsum("nik,njk->nij", v, v.conj()) * np.exp(-rng.choice([0, 1, 10]) * rng.random((cells, 1, 1)))
        buf = to_components(np.moveaxis(rho, 0, -1)).copy()
        theta, deviation = np.ones(cells), np.zeros((5, d * d, cells))
        slack, bad = np.zeros(cells), np.zeros(cells, dtype=np.int64)
        remap._thetas(buf, 0, cells, 0, cells, d, control, deviation, bad, slack, np.zeros((2, d * d)), np.zeros((d, d), dtype=complex), theta)
        for j in range(2, cells - 2):
            change = np.einsum("km,mij->kij", control[2], rho[j - 2 : j + 3]) - rho[j]
            allowed = -1e-15 * np.trace(rho[j]).real
            low, high = 0.0, 1.0
            if least(rho[j] + change).min() < allowed:
                for _ in range(60):
                    middle = 0.5 * (low + high)
                    low, high = (middle, high) if least(rho[j] + middle * change).min() >= allowed else (low, middle)
                limited += 1
                assert theta[j] == pytest.approx(low, abs=1.01 * 2.0**-remap.HALVINGS)
            else:
                assert theta[j] == 1.0
    assert limited > 100
