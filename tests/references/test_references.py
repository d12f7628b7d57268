"""The reference solvers against closed forms and against each other.

Bounds are absolute, at most about five times the error measured when they were written (given in the comments); those
near 1e-13 only allow for different rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.sparse.linalg import expm_multiply
from scipy.special import erfc

from .characteristic import solve_constant
from .flux_form import Wall, propagate, solve_walls, solve_walls_extrapolated, wall_generator
from .gaussian import (
    diagonal_elements,
    diagonal_gaussian,
    linear_diosi,
    linear_diosi_elements,
    multiplicative_noise,
)
from .grid import Complex, Real, cell_centres, gaussian, mesh
from .images import first_passage, half_line, reflecting_propagator
from .spectral import solve_periodic

STATE = np.array([[0.6, 0.3 + 0.1j], [0.3 - 0.1j, 0.4]])
SX = np.array([[0, 1], [1, 0]], dtype=complex)
SY = np.array([[0, -1j], [1j, 0]])
SZ = np.diag([1.0 + 0j, -1.0])
LOWER = np.array([[0, 0], [1, 0]], dtype=complex)


def distance(x: Any, y: Any) -> float:
    """Largest absolute difference."""
    return float(np.abs(np.asarray(x) - np.asarray(y)).max())


def field(matrix: Any, scalar: Any) -> Complex:
    """``matrix * scalar(z)`` with the matrix indices first."""
    return np.asarray(np.multiply.outer(matrix, scalar))


def random_model(seed: int, d: int) -> tuple[Complex, list[Complex], Complex, list[Complex]]:
    """Draw a density matrix, two operator drifts, a Hamiltonian and a jump, none commuting."""
    rng = np.random.default_rng(seed)

    def draw() -> Complex:
        return np.asarray(rng.normal(size=(d, d)) + 1j * rng.normal(size=(d, d)))

    back = [0.3 * draw(), 0.3 * draw()]
    h = draw()
    jumps = [0.3 * draw()]
    root = draw()
    state = root @ root.conj().T
    return state / np.trace(state), back, 0.4 * (h + h.conj().T), jumps


# --------------------------------------------------------------------------------------------------------------------
# gaussian.py
# --------------------------------------------------------------------------------------------------------------------

DIOSI: dict[str, Any] = {"m": 1.3, "lam": 0.6, "sigma": 0.9, "phi": 0.7}
MEAN, COV = (0.2, -0.3), np.array([[0.3, 0.1], [0.1, 0.35]])


def diosi_terms(m: float, lam: float, phi: float) -> dict[str, Any]:
    """Arguments of diagonal_gaussian for the linear Diosi model."""
    return {
        "M": [[0, 1 / m], [0, 0]],
        "h": ([phi, -phi], [[2 * lam, 0], [-2 * lam, 0]], None),
        "a": ([[0, 0], [-lam, lam]], None),
    }


@pytest.mark.parametrize("D0", [None, 1.1])
def test_diosi_closed_form_agrees_with_the_parameter_equations(D0: float | None) -> None:
    box, shape, t = ((-6, 6), (-7, 7)), (40, 36), 1.4
    extra = 0.0 if D0 is None else np.sqrt(D0 - DIOSI["lam"] ** 2 / DIOSI["sigma"] ** 2)
    closed = linear_diosi(STATE, MEAN, COV, t, box, shape, D0=D0, **DIOSI)
    terms = diosi_terms(DIOSI["m"], DIOSI["lam"], DIOSI["phi"])
    s: list[list[float]] = [[0, 0], [0, DIOSI["sigma"] ** 2]]
    jumps = [([extra, -extra], None)]
    integrated = diagonal_gaussian(STATE, MEAN, COV, t, box, shape, s=s, jumps=jumps, **terms)
    assert np.abs(closed[0, 1]).max() > 1e-3
    assert distance(integrated, closed) < 1e-9  # measured 1.4e-16


def test_diosi_numbers_of_the_paper_parameters() -> None:
    (up, coherence), (_, down) = linear_diosi_elements((0, 0), np.zeros((2, 2)), 1.0)
    assert distance(up.mean, [-1, -2]) < 1e-13
    assert distance(down.mean, [1, 2]) < 1e-13
    assert distance(up.cov, [[1 / 3, 1 / 2], [1 / 2, 1]]) < 1e-13
    assert abs(0.5 * coherence.weight - (-0.0296486 + 0.0343278j)) < 1e-7  # printed to seven digits


def test_diosi_purity_from_a_point() -> None:
    t, box, shape = 1.2, ((-4, 4), (-6, 6)), (20, 22)
    m, lam, sigma = DIOSI["m"], DIOSI["lam"], DIOSI["sigma"]
    rho = linear_diosi(np.full((2, 2), 0.5), (0, 0), np.zeros((2, 2)), t, box, shape, **DIOSI)
    ratio = np.abs(rho[0, 1]) / np.sqrt(np.abs(rho[0, 0] * rho[1, 1]))
    assert distance(ratio, np.exp(-(lam**2) * sigma**2 * t**5 / (90 * m**2))) < 1e-9  # measured 1.1e-13


def test_ghz_coherence_is_a_product_of_one_site_coherences() -> None:
    t, n, lam, sigma, m = 0.9, 3, 1.1, 0.8, 1.2
    one = linear_diosi_elements((0, 0), np.zeros((2, 2)), t, m, lam / 2, sigma, 0.0)
    printed = np.exp(-n * (lam**2 * t / (2 * sigma**2) + lam**2 * sigma**2 * t**5 / (10 * m**2)))
    assert abs(one[0][1].weight ** n - printed) < 1e-13  # measured below 1e-16
    assert distance(one[1][1].mean, [lam * t**2 / (2 * m), lam * t]) < 1e-13


def test_harmonic_friction_agrees_with_spectral() -> None:
    m, w, friction, lam, sigma, phi, t = 1.2, 0.9, 0.3, 0.5, 0.8, 0.4, 0.9
    box, shape = ((-8, 8), (-8, 8)), (64, 64)
    z = mesh(box, shape)
    drift = [[0, 1 / m], [-m * w**2, -friction]]
    terms = diosi_terms(m, lam, phi) | {"M": drift}
    s: list[list[float]] = [[0, 0], [0, sigma**2]]
    exact = diagonal_gaussian(STATE, MEAN, COV, t, box, shape, s=s, **terms)
    v = [drift[i][0] * z[0] + drift[i][1] * z[1] for i in range(2)]
    h = field(SZ, 2 * lam * z[0] + phi)
    rho = solve_periodic(field(STATE, gaussian(z, MEAN, COV)), t, box, v, s, [None, -lam * SZ], h)
    assert distance(rho, exact) < 1e-9  # measured 2.7e-12


def test_affine_operators_agree_with_spectral() -> None:
    # everything the diagonal formulas allow in 1-D: affine non-Hermitian A, affine jump, quadratic H, drift
    box, shape, t = ((-8, 8),), (128,), 1.0
    z = mesh(box, shape)
    a0, a1 = np.array([[0.4 + 0.3j, -0.5 - 0.2j]]), np.array([[[0.1 + 0.15j], [-0.2 + 0.1j]]])
    h0, h1, h2 = np.array([0.5, -0.3]), np.array([[0.4], [-0.6]]), np.array([[[0.3]], [[-0.2]]])
    c0, c1 = np.array([0.2 + 0.1j, -0.3]), np.array([[0.1], [0.2j]])

    def diagonal(values: list[Any]) -> Complex:
        return field(np.diag([1, 0]), values[0]) + field(np.diag([0, 1]), values[1])

    back = diagonal([a0[0, k] + a1[0, k, 0] * z[0] for k in range(2)])
    h = diagonal([h0[k] + h1[k, 0] * z[0] + 0.5 * h2[k, 0, 0] * z[0] ** 2 for k in range(2)])
    jump = diagonal([c0[k] + c1[k, 0] * z[0] for k in range(2)])
    start = field(STATE, gaussian(z, [0.3], [[0.4]]))
    rho = solve_periodic(start, t, box, [0.3 - 0.7 * z[0]], [[0.8]], [back], h, [jump])
    exact = diagonal_gaussian(
        STATE, [0.3], [[0.4]], t, box, shape, M=-0.7, b=0.3, s=0.8, h=(h0, h1, h2), a=(a0, a1), jumps=[(c0, c1)]
    )
    assert distance(rho, exact) < 1e-9  # measured 9e-13


# --------------------------------------------------------------------------------------------------------------------
# spectral.py
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("D0", [None, 1.1])
def test_spectral_linear_diosi(D0: float | None) -> None:
    box, shape, t = ((-8, 8), (-9, 9)), (80, 80), 0.8
    z = mesh(box, shape)
    lam, sigma = DIOSI["lam"], DIOSI["sigma"]
    jumps = [] if D0 is None else [np.sqrt(D0 - lam**2 / sigma**2) * SZ]
    start = field(STATE, gaussian(z, MEAN, COV))
    h = field(SZ, 2 * lam * z[0] + DIOSI["phi"])
    v = [z[1] / DIOSI["m"], None]
    s: list[list[float]] = [[0, 0], [0, sigma**2]]
    rho = solve_periodic(start, t, box, v, s, [None, -lam * SZ], h, jumps)
    exact = linear_diosi(STATE, MEAN, COV, t, box, shape, D0=D0, **DIOSI)
    assert distance(rho, exact) < 1e-9  # measured 3e-11 and 1.1e-10


def test_spectral_ornstein_uhlenbeck() -> None:
    box, shape, rate, s, t = ((-8, 8),), (128,), 0.9, 0.7, 1.5
    z = mesh(box, shape)
    rho = solve_periodic(gaussian(z, [1.0], [[0.3]])[None, None], t, box, [-rate * z[0]], [[s]])
    decay = np.exp(-rate * t)
    variance = 0.3 * decay**2 + s * (1 - decay**2) / (2 * rate)
    assert distance(rho[0, 0], gaussian(z, [decay], [[variance]])) < 1e-9  # measured 4e-14


def test_spectral_multiplicative_noise() -> None:
    box, shape, a, b, g, t = ((0, 10),), (112,), 0.15, 0.15, 0.8, 1.0
    z = mesh(box, shape)[0]
    start = multiplicative_noise(STATE, 0.6, 0.02, 0.0, z, a, b, g)
    rho = solve_periodic(start, t, box, [a * z], [[b**2 * z**2]], [field(SZ, 0.5 * g * b * z)])
    assert (
        distance(rho, multiplicative_noise(STATE, 0.6, 0.02, t, z, a, b, g)) < 1e-7
    )  # 4e-13 to 1e-9: the aperiodic drift lets round-off grow at the ends of the box


def test_spectral_time_dependent_coefficients() -> None:
    box, shape, t, alpha = ((-10, 10),), (120,), 0.9, 0.6
    z = mesh(box, shape)

    def coefficients(time: float) -> dict[str, Any]:
        return {"v": [np.cos(time)], "s": [[0.5 * (1 + time)]], "A": [alpha * time * SZ], "H": time * SZ}

    rho = solve_periodic(field(STATE, gaussian(z, [0.1], [[0.4]])), t, box, coefficients=coefficients)
    centre, variance = 0.1 + np.sin(t), [[0.4 + 0.5 * (t + t**2 / 2)]]
    damping = np.exp(-1j * t**2 - 4 * alpha**2 * (t**2 / 2 - t + np.log(1 + t)))
    exact = np.empty_like(rho)
    exact[0, 0] = STATE[0, 0] * gaussian(z, [centre + alpha * t**2], variance)
    exact[1, 1] = STATE[1, 1] * gaussian(z, [centre - alpha * t**2], variance)
    exact[0, 1] = STATE[0, 1] * damping * gaussian(z, [centre], variance)
    exact[1, 0] = exact[0, 1].conj()
    assert distance(rho, exact) < 1e-9  # measured 1e-12
    # two legs, the second from t0, are the same as one
    middle = solve_periodic(field(STATE, gaussian(z, [0.1], [[0.4]])), 0.5, box, coefficients=coefficients)
    rho = solve_periodic(middle, t, box, coefficients=coefficients, t0=0.5)
    assert distance(rho, exact) < 1e-9  # measured 1.3e-11


# --------------------------------------------------------------------------------------------------------------------
# characteristic.py
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "rank"), [(2, 2), (3, 2), (2, 1)])
def test_characteristic_agrees_with_spectral(d: int, rank: int) -> None:
    state, back, h, jumps = random_model(1, d)
    v, mean, cov, t = [0.3, -0.2], [0.1, -0.2], [[0.5, -0.1], [-0.1, 0.4]], 0.7
    s = np.array([[0.7, 0.25], [0.25, 0.5]])
    if rank == 1:
        column = np.array([0.8, 0.5])
        s, back = np.outer(column, column), [column[0] * back[0], column[1] * back[0]]
    box, shape = ((-7, 7), (-6.5, 6.5)), (48, 44)
    exact = solve_constant((state, mean, cov), t, box, shape, v, s, back, h, jumps)
    rho = solve_periodic(field(state, gaussian(mesh(box, shape), mean, cov)), t, box, v, s, back, h, jumps)
    assert distance(rho, exact) < 1e-9  # measured 1.6e-12, 4e-13, 9e-13
    # it is a physical state: trace one, all cells positive (non-Hermitian A needs the minus sign and s^+ as written)
    volume = 14 / 48 * 13 / 44
    assert abs(np.einsum("ii...->...", exact).sum() * volume - 1) < 1e-13  # measured 2.3e-16
    assert np.linalg.eigvalsh(np.moveaxis(exact, (0, 1), (-2, -1))).min() > -6e-15  # measured -1.3e-15


def test_characteristic_on_a_small_torus() -> None:
    # the periodic images are part of the answer: the periodic solver must agree on a box the state fills
    state, back, h, jumps = random_model(3, 2)
    box, shape, t = ((-1.5, 2.0),), (48,), 0.6

    def start(xi: Real) -> Complex:
        return np.asarray(np.exp(0.2j * xi[:, 0] - 0.15 * xi[:, 0] ** 2)[:, None, None] * state)

    exact = solve_constant(start, t, box, shape, [0.4], [[0.6]], back[:1], h, jumps)
    z = mesh(box, shape)
    images = np.sum([gaussian(z + 3.5 * k, [0.2], [[0.3]]) for k in range(-6, 7)], axis=0)
    rho = solve_periodic(field(state, images), t, box, [0.4], [[0.6]], back[:1], h, jumps)
    assert np.abs(exact[:, :, 0]).max() > 0.02
    assert distance(rho, exact) < 1e-9  # measured 4e-12


def test_characteristic_in_three_dimensions() -> None:
    box, shape, t = ((-7, 7.5), (-8, 7), (-7, 8)), (36, 38, 36), 0.8
    s = np.array([[0.6, 0.1, 0.05], [0.1, 0.5, -0.1], [0.05, -0.1, 0.7]])
    cov = np.diag([0.5, 0.6, 0.55])
    a0 = np.array([[0.3 + 0.2j, -0.4], [0.1j, 0.3], [-0.2, 0.5 - 0.1j]])
    h0, c0, mean, v = np.array([0.5, -0.4]), np.array([0.2, -0.1j]), [0.1, -0.2, 0.3], [0.2, -0.1, 0.3]
    exact = diagonal_gaussian(
        STATE, mean, cov, t, box, shape, b=v, s=s, h=(h0, None, None), a=(a0, None), jumps=[(c0, None)]
    )
    back = [np.diag(row) for row in a0]
    rho = solve_constant((STATE, mean, cov), t, box, shape, v, s, back, np.diag(h0), [np.diag(c0)])
    assert distance(rho, exact) < 1e-9  # measured 1.4e-11


def test_characteristic_moments() -> None:
    # M_k' = Lind M_k + k X M_{k-1} + k(k-1) s/2 M_{k-2} with X = v + A . + . A^+, integrated as one matrix exponential
    state, back, h, jumps = random_model(5, 2)
    v, s, t, mean, var = 0.3, 0.8, 0.7, 0.2, 0.5
    a, n = back[0], jumps[0]
    box, shape = ((-12, 12),), (128,)
    rho = solve_constant((state, [mean], [[var]]), t, box, shape, [v], [[s]], [a], h, [n])

    def lind(r: Complex) -> Complex:
        out = -1j * (h @ r - r @ h)
        for x, rate in ((a, 1 / s), (n, 1.0)):
            xx = x.conj().T @ x
            out = out + rate * (x @ r @ x.conj().T - 0.5 * (xx @ r + r @ xx))
        return np.asarray(out)

    size = 4
    big = np.zeros((3 * size, 3 * size), dtype=complex)
    for column in range(size):
        unit = np.zeros(size, dtype=complex)
        unit[column] = 1
        r = unit.reshape(2, 2)
        x = (v * r + a @ r + r @ a.conj().T).ravel()
        for k in range(3):
            big[k * size : (k + 1) * size, k * size + column] = lind(r).ravel()
        big[size : 2 * size, column] = x
        big[2 * size :, size + column] = 2 * x
        big[2 * size :, column] = s * r.ravel()
    first = np.concatenate([(c * state).ravel() for c in (1.0, mean, var + mean**2)])
    moments = (expm(t * big) @ first).reshape(3, 2, 2)
    z = cell_centres(box, shape)[0]
    for k in range(3):
        assert distance((rho * z**k).sum(-1) * 24 / 128, moments[k]) < 1e-9  # measured 1.4e-14


# --------------------------------------------------------------------------------------------------------------------
# flux_form.py and images.py
# --------------------------------------------------------------------------------------------------------------------


def wall_v(z: Real) -> Real:
    """Drift that does not vanish at the walls."""
    return np.asarray(0.3 * np.sin(z + 0.4))


def wall_s(z: Real) -> Real:
    """Diffusion with a slope at the walls."""
    return np.asarray(0.7 + 0.2 * np.cos(1.1 * z + 0.3))


def wall_A(z: Real) -> Complex:
    """Non-Hermitian operator drift, not commuting with itself at other z, not zero at the walls."""
    return field(0.4 * SZ + 0.3j * SX, 1 + 0.3 * np.cos(z)) + field(0.3 * SX + 0.2j * SZ, np.sin(1.3 * z))


def wall_H(z: Real) -> Complex:
    """Hamiltonian."""
    return field(SZ, 0.5 + 0.3 * z) + field(0.4 * SY, np.ones_like(z))


def wall_N(z: Real) -> Complex:
    """Jump operator."""
    return field(LOWER, 0.3 + 0.1 * np.cos(z))


def wall_start(z: Real) -> Complex:
    """State that sits on the wall at 0."""
    return field(STATE, np.exp(-0.5 * (z - 0.3) ** 2 / 0.3))


WALL_MODEL: dict[str, Any] = {"v": wall_v, "s": wall_s, "A": wall_A, "H": wall_H, "N": [wall_N]}


@pytest.mark.parametrize("lower", ["reflecting", "absorbing"])
def test_flux_form_is_second_order_with_the_state_on_the_wall(lower: Wall) -> None:
    # thrice as many cells keep every old centre: compare at the 50 centres of the coarsest grid
    values = []
    for n in (50, 150, 450, 1350):
        result = solve_walls(wall_start, 0.5, 0, 6, n, **WALL_MODEL, lower=lower)
        step = n // 50
        escaped = result.escaped_lower if lower == "absorbing" else result.rho[:, :, step // 2 :: step].sum(-1) / 50
        values.append((result.rho[:, :, step // 2 :: step], escaped))
    assert np.abs(values[-1][0][:, :, 0]).max() > 0.02  # there is something at the wall
    assert lower == "reflecting" or np.trace(values[-1][1]).real > 0.1
    for kind in (0, 1):
        changes = [distance(values[i + 1][kind], values[i][kind]) for i in range(3)]
        orders = np.log(np.divide(changes[:-1], changes[1:])) / np.log(3)
        assert np.all(np.abs(orders - 2) < 0.05), orders  # measured 1.957 to 2.004


@pytest.mark.parametrize(("wall", "bound"), [("reflecting", 1e-10), ("absorbing", 2e-8)])
def test_flux_form_against_images_with_non_hermitian_diagonal_operators(wall: Wall, bound: float) -> None:
    a, e, v, s, z0, t0, t1 = np.array([0.25 + 0.3j, -0.35 - 0.2j]), [0.4, -0.5], -0.3, 0.8, 0.5, 0.15, 0.6

    def exact(z: Any, t: float) -> tuple[Complex, Complex]:
        result = half_line(STATE, z0, t, z, v, s, a, e, wall)
        return result.rho, result.escaped

    model: dict[str, Any] = {"v": v, "s": s, "A": np.diag(a), "H": np.diag(e)}
    centres = cell_centres(((0, 7),), (64,))[0]
    result, error = solve_walls_extrapolated(lambda z: exact(z, t0)[0], t1, 0, 7, centres, **model, lower=wall, n=200)
    density, escaped = exact(centres, t0 + t1)
    escaped = escaped - exact(centres, t0)[1]
    measured = max(distance(result.rho, density), distance(result.escaped_lower, escaped))
    assert measured < bound  # measured 1.9e-11 and 4.0e-9
    assert measured < error  # the returned estimate is on the safe side
    assert not np.any(result.escaped_upper)
    if wall == "absorbing":
        assert abs(escaped[0, 1]) > 0.05
    # without extrapolation: order two against the closed form
    plain = [solve_walls(lambda z: exact(z, t0)[0], t1, 0, 7, n, **model, lower=wall) for n in (200, 400)]
    errors = [distance(r.rho, exact(r.z, t0 + t1)[0]) for r in plain]
    assert 1.9 < np.log2(errors[0] / errors[1]) < 2.1
    # trace is conserved, and the upper wall is the mirror image of the lower one
    kept = np.trace(plain[0].rho.sum(-1) * 7 / 200 + plain[0].escaped_lower + plain[0].escaped_upper)
    assert abs(kept - np.trace(exact(plain[0].z, t0)[0].sum(-1) * 7 / 200)) < 1e-13  # measured 6e-16
    mirrored = solve_walls(lambda z: exact(-z, t0)[0], t1, -7, 0, 200, -v, s, -np.diag(a), np.diag(e), upper=wall)
    assert distance(mirrored.rho[:, :, ::-1], plain[0].rho) < 1e-9  # measured 8e-16
    assert distance(mirrored.escaped_upper, plain[0].escaped_lower) < 1e-9  # measured 2e-16


def test_reflected_brownian_motion() -> None:
    z0, s, t0, t1 = 0.6, 0.7, 0.1, 0.8

    def images(z: Real, t: float) -> Complex:
        return gaussian(z[None], [z0], [[s * t]]) + gaussian(z[None], [-z0], [[s * t]])

    centres = cell_centres(((0, 7),), (50,))[0]
    result, _ = solve_walls_extrapolated(lambda z: images(z, t0)[None, None], t1, 0, 7, centres, s=s)
    assert distance(result.rho[0, 0], images(centres, t0 + t1)) < 1e-9  # measured 4.4e-12
    assert distance(reflecting_propagator(centres, z0, t0 + t1, 0.0, s), images(centres, t0 + t1)) < 1e-13


def test_first_passage_probability() -> None:
    z0, s, t0, t1 = 0.6, 0.7, 0.1, 0.8

    def images(z: Real, t: float) -> Complex:
        return gaussian(z[None], [z0], [[s * t]]) - gaussian(z[None], [-z0], [[s * t]])

    centres = cell_centres(((0, 7),), (50,))[0]
    result, _ = solve_walls_extrapolated(lambda z: images(z, t0)[None, None], t1, 0, 7, centres, s=s, lower="absorbing")
    passed = erfc(z0 / np.sqrt(2 * s * (t0 + t1))) - erfc(z0 / np.sqrt(2 * s * t0))
    assert distance(result.rho[0, 0], images(centres, t0 + t1)) < 1e-8  # measured 2.2e-9
    assert abs(result.escaped_lower[0, 0] - passed) < 1e-8  # measured 3.0e-9
    assert abs(first_passage(z0, t1, 0.0, s) - erfc(z0 / np.sqrt(2 * s * t1))) < 1e-13


def test_stationary_density_between_reflecting_walls() -> None:
    # J = 0 everywhere: s rho is proportional to exp(integral of 2 v / s); here v = -s z gives s rho ~ exp(-z^2)
    centres = cell_centres(((-1, 2),), (30,))[0]
    result, _ = solve_walls_extrapolated(
        lambda z: np.ones((1, 1, len(z))), 40.0, -1, 2, centres, v=lambda z: -wall_s(z) * z, s=wall_s, n=50
    )
    x, weights = np.polynomial.legendre.leggauss(60)
    nodes = 0.5 + 1.5 * x
    norm = 3 / (1.5 * weights @ (np.exp(-(nodes**2)) / wall_s(nodes)))
    assert distance(result.rho[0, 0], norm * np.exp(-(centres**2)) / wall_s(centres)) < 1e-9  # measured 2.2e-11


def test_flux_form_against_spectral_by_reflection() -> None:
    # A and v odd, s, H, N and rho even about both walls: the periodic solution on twice the length has J = 0 there
    length = 3.0
    k = np.pi / length
    a0, a1 = 0.5 * SZ + 0.4j * SX + 0.3 * SY, 0.3 * SX + 0.2j * SZ
    model: dict[str, Any] = {
        "v": lambda z: 0.4 * np.sin(k * z),
        "s": lambda z: 0.6 + 0.2 * np.cos(k * z),
        "A": lambda z: field(a0, np.sin(k * z)) + field(a1, np.sin(2 * k * z)),
        "H": lambda z: field(SZ, 0.5 * np.cos(k * z)) + field(0.4 * SY, np.ones_like(z)),
    }

    def jump(z: Real) -> Complex:
        return field(LOWER, 0.5 + 0.2 * np.cos(k * z))

    def start(z: Real) -> Complex:
        return field(STATE, np.exp(1.5 * np.cos(k * z)))

    box = ((-length, length),)
    z = cell_centres(box, (128,))[0]
    full = solve_periodic(
        start(z), 0.7, box, [model["v"](z)], [[model["s"](z)]], [model["A"](z)], model["H"](z), [jump(z)]
    )
    half, error = solve_walls_extrapolated(start, 0.7, 0, length, z[64:], **model, N=[jump], n=100)
    assert distance(half.rho, full[:, :, 64:]) < 1e-9  # measured 2.4e-11
    assert distance(half.rho, full[:, :, 64:]) < error


def test_flux_form_against_a_galerkin_solution() -> None:
    # reflecting walls, A neither Hermitian nor commuting nor zero at the wall: the weak form with Legendre polynomials,
    # integral of phi d_t rho = integral of phi' J + phi (local terms), has J = 0 at the ends by construction
    length, t, modes = 3.0, 0.5, 44
    x, weights = np.polynomial.legendre.leggauss(100)
    z, weights = 0.5 * length * (x + 1), 0.5 * length * weights
    phi = np.polynomial.legendre.legvander(x, modes - 1).T  # (modes, points)
    derivative = np.array(
        [np.polynomial.legendre.legval(x, np.polynomial.legendre.legder(row)) for row in np.eye(modes)]
    ) * (2 / length)
    slope = -0.22 * np.sin(1.1 * z + 0.3)  # of wall_s
    a, h, n = (np.moveaxis(f(z), -1, 0) for f in (wall_A, wall_H, wall_N))

    def dagger(y: Complex) -> Complex:
        return np.asarray(y.conj().swapaxes(1, 2))

    matrix = np.zeros((modes, 4, modes, 4), dtype=complex)
    for column in range(4):
        unit = np.zeros(4, dtype=complex)
        unit[column] = 1
        r = unit.reshape(2, 2)
        drift = a @ r + r @ dagger(a) + (wall_v(z) - 0.5 * slope)[:, None, None] * r
        local = -1j * (h @ r - r @ h)
        for y, rate in ((a, 1 / wall_s(z)), (n, np.ones_like(z))):
            yy = dagger(y) @ y
            local = local + rate[:, None, None] * (y @ r @ dagger(y) - 0.5 * (yy @ r + r @ yy))
        matrix[:, :, :, column] = np.einsum(
            "mz,zi,kz,z->mik", derivative, drift.reshape(-1, 4), phi, weights, optimize=True
        ) + np.einsum("mz,zi,kz,z->mik", phi, local.reshape(-1, 4), phi, weights, optimize=True)
        diffusion = np.einsum("mz,kz,z,z->mk", derivative, derivative, -0.5 * wall_s(z), weights, optimize=True)
        matrix[:, column, :, column] += diffusion
    mass = (2 * np.arange(modes) + 1) / length  # inverse of the integral of phi^2
    matrix *= mass[:, None, None, None]
    first = mass[:, None] * np.einsum("mz,zi,z->mi", phi, np.moveaxis(wall_start(z), -1, 0).reshape(-1, 4), weights)
    size = 4 * modes
    last = (expm(t * matrix.reshape(size, size)) @ first.ravel()).reshape(modes, 2, 2)
    centres = cell_centres(((0, length),), (30,))[0]
    values = np.polynomial.legendre.legvander(2 * centres / length - 1, modes - 1)
    galerkin = np.einsum("zm,mij->ijz", values, last)
    result, error = solve_walls_extrapolated(wall_start, t, 0, length, centres, **WALL_MODEL, n=100)
    assert distance(result.rho, galerkin) < 1e-9  # measured 5.8e-12
    assert distance(result.rho, galerkin) < error


def test_rational_time_integration_against_expm_multiply() -> None:
    generator = wall_generator(2, 0, 6, 40, wall_v, wall_s, wall_A, wall_H, [wall_N], "reflecting", "absorbing")
    start = np.random.default_rng(0).normal(size=generator.shape[0]) + 0j
    assert distance(propagate(generator, start, 0.5), expm_multiply(0.5 * generator, start)) < 1e-9  # measured 5e-15


def test_a_wrong_sign_is_seen() -> None:
    # guard on the tests themselves: the printed + sign of the back-reaction term must be far outside every bound
    box, shape = ((-8, 8), (-9, 9)), (40, 40)
    right = linear_diosi(STATE, MEAN, COV, 0.8, box, shape, **DIOSI)
    wrong = linear_diosi(STATE, MEAN, COV, 0.8, box, shape, **(DIOSI | {"lam": -DIOSI["lam"]}))
    assert distance(right, wrong) > 0.02
    elements = diagonal_elements(MEAN, COV, 0.8, 2, s=np.diag([0, 0.81]), **diosi_terms(1.3, 0.6, 0.7))
    assert elements[0][0].mean[1].real < MEAN[1]  # H_I = 2 lam q sz pushes |0> towards lower p
