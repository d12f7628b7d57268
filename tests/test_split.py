"""The split route: spectral accuracy against independent references, error control, choice of route, planted mistakes."""

from __future__ import annotations

import warnings

import numba
import numpy as np
import pytest
import scipy.linalg

import cqpde as cq
from cqpde.channels import spectral
from cqpde.channels.parts import Kick, Lines, Local, Stream
from cqpde.channels.resolution import resample
from cqpde.channels.structure import analyse
from cqpde.errors import GridError, ModelError, OptionError, RouteError

from . import models, split_models
from .models import error_of, integrated_trace_norm
from .split_models import SPLIT_CASES

SX, SZ = cq.sigmax(), cq.sigmaz()


def _split_error(name, **options):
    make, n, tol, bound = SPLIT_CASES[name]
    error, solution, _ = error_of(make(), n, **({"method": "split", "tol": tol} | options))
    return error, solution, bound


# -- accuracy ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SPLIT_CASES)
def test_error_meets_the_tolerance_against_an_independent_reference(name):
    error, solution, bound = _split_error(name)
    assert error < bound
    assert error < 5 * max(float(solution.time_error[-1]), float(solution.grid_error[-1]), 1e-14)  # the estimates are not optimistic
    assert np.abs(solution.trace + solution.escaped_probability - 1).max() < 1e-12
    assert solution.attrs["method"] == "split"


def test_constant_coefficients_need_one_step():
    for name in ("correlated_2d", "three_levels", "three_noisy_axes"):
        make, n, tol, _ = SPLIT_CASES[name]
        case = make()
        solution = cq.solve(case.model, case.start(case.grid(n)), [0, case.t], method="split", tol=tol)
        assert solution.attrs["time_integration"].startswith("exact")
        assert float(solution.steps[-1]) == 1 and float(solution.time_error[-1]) == 0


@pytest.mark.parametrize(
    ("case", "name"),
    [
        (split_models.damped_oscillator(friction=-0.7), "damped_oscillator"),
        (split_models.damped_oscillator(friction=1.4), "damped_oscillator"),
        (models.three_levels(conjugate=True), "three_levels"),
    ],
)
def test_planted_mistakes_are_caught(case, name):
    _, n, tol, bound = SPLIT_CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cq.CqpdeWarning)
        error, _, _ = error_of(case, n, method="split", tol=tol)
    assert error > 1e5 * bound


@pytest.mark.parametrize("tol", [1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8])
def test_linear_diosi_within_tol(tol):
    case = models.linear_diosi()
    grid = cq.Grid(q=(-6, 6, 96), p=(-9, 9, 144))
    solution = cq.solve(case.model, case.start(grid), [0, 1.0], method="split", tol=tol)
    assert integrated_trace_norm(solution.rho.values[-1] - case.reference(grid), grid) <= 5 * tol
    assert float(solution.time_error[-1]) <= tol


def test_linear_diosi_on_the_small_box():
    """2e-6 of the mass lies outside this box."""
    case = models.linear_diosi()
    grid = cq.Grid(q=(-5, 5, 64), p=(-7, 7, 64))
    with pytest.warns(cq.CqpdeWarning, match="open ends"):
        solution = cq.solve(case.model, case.start(grid), [0, 1.0], method="split", tol=1e-6)
    assert integrated_trace_norm(solution.rho.values[-1] - case.reference(grid), grid) <= 5e-6


def test_finite_volumes_approach_the_split_solution_at_second_order():
    case = split_models.driven_in_a_field()
    fine, sizes, errors = case.grid(96), (24, 48), []
    split = cq.solve(case.model, case.start(fine), [0, case.t], method="split", tol=1e-8).rho.values[-1]
    for n in sizes:
        grid = case.grid(n)
        coarse = split
        for axis in (2, 3):
            coarse = resample(coarse.real, axis, n) + 1j * resample(coarse.imag, axis, n)
        fv = cq.solve(case.model, case.start(grid), [0, case.t], method="fv", tol=1e-5, grid_error=False)
        errors.append(integrated_trace_norm(fv.rho.values[-1] - coarse, grid))
    assert errors[1] < 0.05
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.35)


def test_grid_error_is_of_the_right_size_where_cells_are_few():
    case = models.linear_diosi()
    for q, p in ((36, 54), (42, 64)):
        grid = cq.Grid(q=(-6, 6, q), p=(-9, 9, p))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cq.CqpdeWarning)
            solution = cq.solve(case.model, case.start(grid), [0, 1.0], method="split", tol=1e-8)
        error = integrated_trace_norm(solution.rho.values[-1] - case.reference(grid), grid)
        assert error > 1e-6  # the cells limit this run, not the time
        assert 0.5 * error < float(solution.grid_error[-1]) < 100 * error


# -- numerical parts -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
def test_exponentials_of_small_matrices(n):
    rng = np.random.default_rng(n)
    m = rng.normal(size=(40, n, n)) + 1j * rng.normal(size=(40, n, n))
    m *= np.geomspace(1e-9, 3.0, 40)[:, None, None]
    m[0] = 0.0
    if n == 2:
        m[1] = [[0.3, 1.0], [0.0, 0.3]]  # defective: the closed form divides by zero without care
        m[2] = [[0.3, 1e-5], [1e-7, 0.3]]
    exact = scipy.linalg.expm(m)
    assert np.abs(spectral.exponential(m) - exact).max() < 5e-14 * np.abs(exact).max()


@pytest.mark.parametrize(("old", "new"), [(32, 20), (20, 32), (21, 32), (33, 20), (30, 21)])
def test_resampling_is_exact_for_resolved_fields(old, new):
    field = lambda n: np.exp(1.2 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n - 0.7))
    x = resample(np.broadcast_to(field(old), (2, 3, old)), 2, new)
    exact = np.broadcast_to(field(new), (2, 3, new))
    assert np.abs(x - exact).max() < 1e-6
    assert x.sum() / new == pytest.approx(2 * 3 * field(old).mean(), rel=1e-14)


def test_fewer_cells_inside_change_nothing_beyond_the_tolerance():
    model, grid = cq.models.linear_diosi(), cq.Grid(q=(-6, 6, 160), p=(-9, 9, 200))
    start = cq.gaussian(grid, 0, 0.4, cq.ket("+"))
    free = cq.solve(model, start, [0, 1], tol=1e-7)
    assert free.attrs["cells_inside"] != "as given"
    held = cq.Model(
        ("q", "p"), 2, H=cq.sampled(grid, _sampled_hamiltonian(grid)), L=[SZ], D0="saturated", D1={"p": [-1.0]}, D2={"p": 0.5},
        D1C={"q": lambda z: z.p},
    )  # fmt: skip
    full = cq.solve(held, start, [0, 1], tol=1e-7)
    assert full.attrs["cells_inside"] == "as given"  # sampled coefficients are exact on their own cells only
    assert integrated_trace_norm(free.rho.values[-1] - full.rho.values[-1], grid) < 2e-7


def _sampled_hamiltonian(grid):
    q = np.broadcast_to(grid.mesh()["q"], grid.shape)
    return (2 * q + 2) * SZ[:, :, None, None]


# -- structure -------------------------------------------------------------------------------------------------------------------
def _parts(model, grid):
    return analyse(model, grid, (0.0,))


def test_structure_of_the_linear_diosi_model():
    found = _parts(cq.models.linear_diosi(), cq.Grid(q=(-5, 5, 16), p=(-5, 5, 16)))
    assert found.groups == ((Stream(0),), (Kick((1,), local=True),))
    assert found.basis is None and not found.probed


def test_commuting_parts_stand_in_one_group():
    model = cq.Model(
        ("x", "u", "y", "v"), 2, H=lambda z: [[z.x * z.y, 0], [0, -z.x]], L=[SZ], D0="saturated",
        D1={"u": [lambda z: 0.1 * z.x], "v": [lambda z: 0.2 * z.y]}, D2={"u": 0.3, "v": 0.2},
        D1C={"x": lambda z: z.u, "y": lambda z: z.v, "u": lambda z: -z.x},
    )  # fmt: skip
    found = _parts(model, cq.Grid(**{c: (-3, 3, 8) for c in "xuyv"}))
    assert found.groups == ((Stream(0), Stream(2)), (Kick((1,), local=True), Kick((3,))))


def test_structure_names_what_each_part_carries():
    grid = cq.Grid(x=(-3, 3, 12), y=(-3, 3, 12))
    relax = cq.Model(("x", "y"), 1, D1C=[lambda z: -0.5 * z.x + z.y, lambda z: -z.x - 0.3 * z.y], D2={"y": 0.4})
    assert _parts(relax, grid).groups == ((Stream(0, relax=True),), (Kick((1,), relax=True),))
    cubic = cq.Model(("x", "y"), 1, D1C=[lambda z: -(z.x**3), 0], D2={"x": 0.4})
    assert _parts(cubic, grid).groups == ((Lines(0, remainder=True),), (Kick((0,)),))
    field = cq.Model(("x", "y"), 2, H=lambda z: [[z.y, 1], [1, -z.y]], D2={"y": 0.4})
    assert _parts(field, grid).groups == ((Local(),), (Kick((1,)),))
    still = cq.Model(("x", "y"), 2)
    assert _parts(still, grid).groups == ()


def test_common_basis_is_found_and_used():
    """A force in sigma_x is a force in sigma_z after a rotation: same answer, element-wise kick."""
    turn = np.array([[1, 1], [1, -1]]) / 2**0.5
    grid = cq.Grid(q=(-6, 6, 48), p=(-8, 8, 64))
    build = lambda op: cq.Model(
        ("q", "p"), 2, H=lambda z: [[z.q * op[i, j] for j in range(2)] for i in range(2)], L=[op], D0="saturated",
        D1={"p": [-0.5]}, D2={"p": 0.4}, D1C={"q": lambda z: z.p},
    )  # fmt: skip
    psi = np.array([0.8, 0.6j])
    assert _parts(build(SX), grid).basis is not None
    one = cq.solve(build(SX), cq.gaussian(grid, 0, 0.6, psi), [0, 0.7], method="split", tol=1e-8).rho.values[-1]
    two = cq.solve(build(SZ), cq.gaussian(grid, 0, 0.6, turn @ psi), [0, 0.7], method="split", tol=1e-8).rho.values[-1]
    assert np.abs(one - np.einsum("ij,jkxy,kl->ilxy", turn, two, turn)).max() < 1e-12


# -- choice ------------------------------------------------------------------------------------------------------------------------
X = lambda z: z.x
BOX = (-5, 5, 48)
TABLE = {
    "noise along itself": (lambda: cq.Model(("x",), 1, D2=[[lambda z: 0.3 + 0.01 * z.x]]), cq.Grid(x=BOX), ModelError, ["D2", "must not depend on x"]),
    "force along itself": (lambda: cq.Model(("x",), 2, L=[SZ], D1=[[lambda z: 0.1 * z.x]], D2=[[0.5]], D0="saturated"), cq.Grid(x=BOX), ModelError, ["D1 (row x)", "must not depend on x"]),
    "wall with noise": (lambda: cq.Model(("x",), 1, D2=[[0.5]]), cq.Grid(x=(*BOX, "reflecting")), GridError, ["Grid(x=...)", "open or periodic", "reflecting"]),
    "wall without noise": (lambda: cq.Model(("x", "y"), 1, D1C=[lambda z: z.y, 0], D2={"y": 0.5}), cq.Grid(x=(*BOX, "outflow"), y=BOX), GridError, ["Grid(x=...)", "streaming axis", "outflow"]),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_what_does_not_fit_goes_to_finite_volumes_and_is_refused_when_forced(case):
    make, grid, kind, words = TABLE[case]
    model = make()
    start = cq.gaussian(grid, 0.0, 0.5, cq.basis(model.dim, 0))
    with pytest.raises(kind) as caught:
        cq.solve(model, start, [0, 0.1], method="split")
    for word in (*words, "method='fv'"):
        assert word in str(caught.value)
    solution = cq.solve(model, start, [0, 0.1], grid_error=False)
    assert solution.attrs["method"] == "fv" and words[0] in solution.attrs["method_reason"]


def test_choice_is_explained():
    grid = cq.Grid(q=(-6, 6, 48), p=(-9, 9, 64))
    model = cq.models.linear_diosi()
    start = cq.gaussian(grid, 0, 0.5, cq.ket("+"))
    reason = lambda **options: cq.solve(model, start, [0, 0.1], tol=1e-3, grid_error=False, **options).attrs["method_reason"]
    assert reason() == "every part of the model is solved exactly: stream q, kick p with H and excess"
    assert reason(method="split").startswith("asked for")
    assert "finite-volume" in reason(transport="upwind")
    probed = cq.Model(("q", "p"), 1, D1C={"q": lambda z: z.p}, D2={"p": 0.5})
    found = cq.solve(probed, cq.gaussian(grid, 0, 0.5, [1]), [0, 0.1], tol=1e-3)
    assert "probed on the cells" in found.attrs["method_reason"]


def test_a_state_that_the_cells_do_not_resolve_goes_to_finite_volumes():
    grid = cq.Grid(q=(-6, 6, 48), p=(-9, 9, 64))
    solution = cq.solve(cq.models.linear_diosi(), cq.point(grid, 0.0, cq.ket("+")), [0, 0.2], tol=1e-2, grid_error=False)
    assert solution.attrs["method"] == "fv" and "must resolve the state" in solution.attrs["method_reason"]


@pytest.mark.filterwarnings("ignore::cqpde.errors.CqpdeWarning")
def test_what_goes_round_the_open_ends_is_not_returned():
    model = cq.Model(("x", "y"), 1, D1C=[3.0, 0], D2={"y": 0.1})
    start = cq.gaussian(cq.Grid(x=(-5, 5, 64), y=(-4, 4, 32)), 0, 0.5, [1])
    with pytest.raises(RouteError, match=r"open ends out of reach.*Widen the box"):
        cq.solve(model, start, [0, 1.5], method="split")
    solution = cq.solve(model, start, [0, 1.5], grid_error=False, tol=1e-2)
    assert solution.attrs["method"] == "fv" and "tried and left" in solution.attrs["method_reason"]
    assert float(solution.escaped_probability[-1]) > 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "splt"}, ["'splt'", "Did you mean 'split'"]),
        ({"method": "split", "transport": "upwind"}, ["belongs to method='fv'"]),
        ({"method": "split", "transport": "limited"}, ["positivity='exact'"]),
        ({"method": "fv", "transport": "shift"}, ["method='split'"]),
        ({"positivity": "yes"}, ["'exact' or left out", "'yes'"]),
        ({"positivity": "exact", "transport": "linear"}, ["not exactly positive"]),
    ],
)
def test_words_without_meaning_are_refused(options, words):
    grid = cq.Grid(q=(-6, 6, 32), p=(-9, 9, 32))
    with pytest.raises(OptionError) as caught:
        cq.solve(cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.8, cq.ket("+")), [0, 0.1], **options)
    for word in words:
        assert word in str(caught.value)


# -- invariance ----------------------------------------------------------------------------------------------------------------------
def test_batch_threads_and_outputs_change_nothing():
    grid = cq.Grid(q=(-6, 6, 320), p=(-9, 9, 320))
    model = cq.models.linear_diosi()
    states = [cq.gaussian(grid, {"q": x}, 0.3, cq.ket(k)) for x, k in ((0.0, "+"), (0.3, "0"))]
    sampled = cq.Model(
        ("q", "p"), 2, H=cq.sampled(grid, _sampled_hamiltonian(grid)), L=[SZ], D0="saturated", D1={"p": [-1.0]}, D2={"p": 0.5},
        D1C={"q": lambda z: z.p},
    )  # fmt: skip
    assert spectral.THREADED < 4 * 320 * 320  # or this would compare serial runs
    results = []
    for threads in (1, 2):
        if threads > numba.config.NUMBA_NUM_THREADS:
            pytest.skip("one processor only: nothing to compare")
        numba.set_num_threads(threads)
        results.append(cq.solve(sampled, states[0], [0, 0.4], method="split", tol=1e-4).rho.values[-1])
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert np.array_equal(*results)
    many = cq.solve(model, states, [0, 0.1, 0.2345, 0.4], tol=1e-6)
    few = cq.solve(model, states, [0, 0.4], tol=1e-6)
    assert np.array_equal(many.rho.values[-1], few.rho.values[-1])
    alone = cq.solve(model, states[1], [0, 0.4], tol=1e-6).rho.values[-1]
    assert integrated_trace_norm(few.rho.values[-1, 1] - alone, grid) < 1e-6
    middle = cq.solve(model, states[0], [0, 0.2345], tol=1e-6).rho.values[-1]
    assert integrated_trace_norm(many.rho.values[2, 0] - middle, grid) < 1e-6


def test_escape_through_the_ends_of_a_drift_of_its_own_coordinate_is_counted():
    """dx/dt = x leaves the box: trace and escaped matrix add up, and follow the exact density."""
    model = cq.Model(("x", "y"), 2, D1C=[lambda z: z.x * (1 + 0 * z.y), 0], D2={"y": 0.05})
    grid = cq.Grid(x=(-4, 4, 96, "open"), y=(-4, 4, 32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cq.CqpdeWarning)
        solution = cq.solve(model, cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 1.0], method="split", tol=1e-6)
    assert abs(float(solution.trace[-1] + solution.escaped_probability[-1]) - 1) < 1e-12
    x = grid.axes[0].centers
    exact = np.exp(-0.5 * (x / (0.5 * np.e)) ** 2) / ((2 * np.pi) ** 0.5 * 0.5 * np.e)
    difference = np.abs(solution.cq.marginal("x").values[-1] - exact)
    assert difference.max() < 1e-4 and difference[6:-6].max() < 5e-7  # the density jumps at the ends, which a Fourier series feels there
    assert np.linalg.eigvalsh(solution.escaped.values[-1]).min() >= -1e-12


# -- what no estimate from the run's own samples can see ------------------------------------------------------------------------------
@pytest.mark.parametrize("periods", [1, 4, 8, 12])
def test_a_drive_whose_period_divides_the_steps_is_not_taken_for_constant(periods):
    """<sz> returns to 1 after whole periods of H = 2 cos(w t) sx; sampled at whole periods it would go to cos 4."""
    drive = lambda z, t: 2 * np.cos(2 * np.pi * periods * t)
    model = cq.Model(("x",), 2, H=[[0, drive], [drive, 0]], D2=[[0.1]])
    solution = cq.solve(model, cq.gaussian(cq.Grid(x=(-4, 4, 32)), 0, 0.5, cq.ket("0")), [0, 1], tol=1e-5)
    assert float(solution.cq.expect(SZ)[-1]) == pytest.approx(1.0, abs=2e-5)


@pytest.mark.parametrize(("on", "off"), [(0.07, 0.12), (0.2, 0.7), (0.3141, 0.9)])
@pytest.mark.parametrize("method", ["split", "fv"])
def test_steps_end_where_a_coefficient_jumps(method, on, off):
    """A square pulse between the outputs, whatever the tolerance: the rotation by its area, to round-off."""
    pulse = lambda z, t: 1.0 if on < t < off else 0.0
    model = cq.Model(("x",), 2, H=[[0, pulse], [pulse, 0]], D2=[[0.1]])
    grid = cq.Grid(x=(-4, 4, 32, "periodic"))
    solution = cq.solve(model, cq.gaussian(grid, 0, 0.5, cq.ket("0")), [0, 0.33, 1], tol=1e-2, method=method, grid_error=False)
    exact = [1.0, np.cos(2 * max(min(off, 0.33) - on, 0.0)), np.cos(2 * (off - on))]
    assert np.abs(solution.cq.expect(SZ).values - exact).max() < 1e-12


def test_many_jumps_and_steep_ramps_in_time():
    """A square wave of 20 periods by its area; a ramp of width 1e-3 is no jump, and is integrated to the tolerance."""
    wave = lambda z, t: 1.0 if (20 * t) % 1.0 < 0.37 else -0.2
    ramp = lambda z, t: 0.5 * (1.0 + np.tanh((t - 0.4) / 1e-3))
    for drive, area in ((wave, 0.37 - 0.2 * 0.63), (ramp, 0.6)):
        model = cq.Model(("x",), 2, H=[[0, drive], [drive, 0]], D2=[[0.1]])
        start = cq.gaussian(cq.Grid(x=(-4, 4, 32, "periodic")), 0, 0.5, cq.ket("0"))
        solution = cq.solve(model, start, [0, 1], method="split", tol=1e-6)
        assert float(solution.cq.expect(SZ)[-1]) == pytest.approx(np.cos(2 * area), abs=1e-10 if drive is wave else 2e-6)


@pytest.mark.parametrize("waves", [10, 30, 56])
def test_a_field_finer_than_the_cells_inside_keeps_the_users_cells(waves):
    """H = 2 cos(k q) sx at rest: <sz> = E cos(4 cos k q), whatever k."""
    k = 2 * np.pi * waves / 16
    coupling = lambda z: 2 * np.cos(k * z.q)
    model = cq.Model(("q", "p"), 2, H=[[0, coupling], [coupling, 0]], D2={"p": 0.2})
    grid = cq.Grid(q=(-8, 8, 256, "periodic"), p=(-6, 6, 48, "periodic"))
    solution = cq.solve(model, cq.gaussian(grid, 0, 0.9, cq.ket("0")), [0, 1], tol=1e-4)
    q = grid.axes[0].centers
    weight = np.exp(-(q**2) / (2 * 0.81))
    exact = float(np.sum(weight * np.cos(4 * np.cos(k * q))) / weight.sum())
    assert float(solution.cq.expect(SZ)[-1]) == pytest.approx(exact, abs=1e-5)


@pytest.mark.filterwarnings("ignore::cqpde.errors.CqpdeWarning")
@pytest.mark.parametrize("noisy", [False, True])
def test_a_step_once_around_the_box_is_noticed(noisy):
    """One exact step would bring the packet back to where it started."""
    if noisy:
        model, grid = cq.Model(("x",), 1, D1C=[16.0], D2=[[0.1]]), cq.Grid(x=(-4, 4, 64))
    else:
        model, grid = cq.Model(("x", "y"), 1, D1C=[10.0, 0], D2={"y": 0.1}), cq.Grid(x=(-5, 5, 64), y=(-4, 4, 32))
    start = cq.gaussian(grid, 0, 0.5, [1])
    with pytest.raises(RouteError, match="open ends out of reach"):
        cq.solve(model, start, [0, 1], method="split", tol=1e-3)
    solution = cq.solve(model, start, [0, 1], tol=1e-3, grid_error=False)
    assert solution.attrs["method"] == "fv"
    assert float(solution.escaped_probability[-1]) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("boundary", ["open", "periodic"])
def test_strong_relaxation_with_noise_is_exact(boundary):
    """Mean and variance of an Ornstein-Uhlenbeck process whose packet, without its noise, the cells could not resolve."""
    gamma, noise, t = 2.0, 0.2, 1.0
    model = cq.Model(("x", "y"), 1, D1C=[lambda z: -gamma * z.x, 0], D2={"x": noise, "y": 0.1})
    grid = cq.Grid(x=(-6, 6, 96, boundary), y=(-4, 4, 32))
    solution = cq.solve(model, cq.gaussian(grid, {"x": 0.5}, 0.5, [1]), [0, t], method="split", tol=1e-6)
    shrink = np.exp(-gamma * t)
    variance = 0.25 * shrink**2 + noise * (1 - shrink**2) / gamma
    x = grid.axes[0].centers
    exact = np.exp(-((x - 0.5 * shrink) ** 2) / (2 * variance)) / (2 * np.pi * variance) ** 0.5
    assert np.abs(solution.cq.marginal("x").values[-1] - exact).max() < 1e-11
    assert np.abs(solution.trace - 1).max() < 1e-12


def test_relaxation_and_noise_that_depend_on_another_noisy_axis():
    """Second moment of x: finite volumes approach it at second order."""
    rate, noise = lambda z: 0.5 + 0.3 * np.sin(np.pi * z.y / 4), lambda z: 0.3 + 0.1 * np.cos(np.pi * z.y / 4)
    model = cq.Model(("x", "y"), 1, D1C=[lambda z: -rate(z) * z.x, 0], D2={"x": noise, "y": 0.1})
    second = []
    for n in (32, 64):
        grid = cq.Grid(x=(-6, 6, n), y=(-4, 4, n, "periodic"))
        start = cq.gaussian(grid, 0, 0.6, [1])
        split = cq.solve(model, start, [0, 0.7], method="split", tol=1e-6)
        volumes = cq.solve(model, start, [0, 0.7], method="fv", grid_error=False, tol=1e-6)
        second.append(float(split.cq.moment("x", order=2)[-1] - volumes.cq.moment("x", order=2)[-1]))
    assert abs(second[1]) < 2.5e-3 and np.log2(abs(second[0] / second[1])) == pytest.approx(2.0, abs=0.3)


@pytest.mark.filterwarnings("ignore::cqpde.errors.CqpdeWarning")
def test_a_saddle_that_leaves_the_box_ends_in_finite_volumes():
    model = cq.Model(("x", "y"), 1, D1C=[lambda z: 2 * z.x, 0], D2={"y": 0.1})
    grid = cq.Grid(x=(-6, 6, 96), y=(-4, 4, 32))
    solution = cq.solve(model, cq.gaussian(grid, {"x": 0.5}, 0.5, [1]), [0, 1.5], grid_error=False)
    assert solution.attrs["method"] == "fv" and "tried and left" in solution.attrs["method_reason"]
    assert abs(float(solution.trace[-1] + solution.escaped_probability[-1]) - 1) < 1e-12


def test_a_spike_between_the_cells_of_the_first_look_is_kept():
    """States with a recipe are sampled on few cells first; what falls between these, or a recipe that depends on the cells, is noticed."""
    model = cq.Model(("x",), 1, D2=[[0.02]])
    grid = cq.Grid(x=(-8, 8, 1600))
    spike = lambda z: np.exp(-0.5 * z.x**2) + np.exp(-0.5 * ((z.x - 3.1) / 0.012) ** 2) / 0.12
    state = cq.product(grid, spike, [1])
    x, f = grid.axes[0].centers, state.density
    solution = cq.solve(model, state, [0, 1], method="split", tol=1e-5)
    mean, second = np.sum(f * x) / f.sum(), np.sum(f * x**2) / f.sum()
    assert float(solution.cq.moment("x")[-1]) == pytest.approx(mean, abs=1e-6)
    assert float(solution.cq.moment("x", order=2)[-1]) == pytest.approx(second + 2 * 0.02, abs=1e-6)
    ripple = cq.product(grid, lambda z: np.exp(-0.5 * z.x**2) * (1 + np.cos(2 * np.pi * 66 / 16 * z.x)), [1])  # mode 14 to 80 cells
    solution = cq.solve(model, ripple, [0, 1], method="split", tol=1e-2)
    smooth = np.exp(-0.5 * x**2 / 1.04)  # noise leaves exp(-13) of the ripple
    assert np.abs(solution.cq.density().values[-1] / smooth - 1 / np.sqrt(2 * np.pi * 1.04))[600:1000].max() < 1e-5
    with pytest.raises(RouteError, match="resolve the state"):  # as narrow as the cells, not as those of the first look
        cq.solve(model, cq.point(grid, 0.4, [1]), [0, 1], method="split", tol=1e-5)


def _carried(x, tau):
    """Density at x of a von Mises start carried by dx/dt = a(t) sin x with tau = int a dt: tan(x/2) = tan(x0/2) exp(tau)."""
    x0 = 2 * np.arctan(np.tan(x / 2) * np.exp(-tau))
    return np.exp(2 * np.cos(x0 - 0.7)) / (2 * np.pi * np.i0(2.0)) * np.sin(x0) / np.sin(x)


@pytest.mark.parametrize("tol", [1e-4, 1e-6, 1e-8])
def test_drift_of_its_own_coordinate_and_of_time_beside_a_lindblad_equation(tol):
    """D1 = 0: the density is carried by characteristics, the quantum state follows exp(t L); both to the tolerance, on cells found by the run."""
    h, decay, t = np.array([[0.2, 0.5 - 0.1j], [0.5 + 0.1j, -0.2]]), np.array([[0, 1], [0, 0]]), 1.3
    rate = lambda t: 0.6 + 0.5 * np.cos(5 * t)
    model = cq.Model(("x", "y"), 2, H=h, L=[decay], D0=[[0.4]], D1C={"x": lambda z, t: rate(t) * np.sin(z.x)}, D2={"y": 0.2})
    grid = cq.Grid(x=(-np.pi, np.pi, 192, "periodic"), y=(-6, 6, 48))
    start = cq.product(grid, lambda z: np.exp(2 * np.cos(z.x - 0.7) - z.y**2 / 0.72), cq.ket("+"))
    solution = cq.solve(model, start, [0, t], method="split", tol=tol)
    axis, eye = grid.axes[0], np.eye(2)
    error = np.abs(solution.cq.marginal("x").values[-1] - _carried(axis.centers, 0.6 * t + 0.1 * np.sin(5 * t))).sum() * axis.spacing
    assert error < tol
    number = decay.T @ decay
    lindblad = 0.4 * (np.kron(decay, decay) - 0.5 * np.kron(number, eye) - 0.5 * np.kron(eye, number)) - 1j * (np.kron(h, eye) - np.kron(eye, h.T))
    final = solution.rho.values[-1].sum((-2, -1)).reshape(-1) * grid.cell_volume
    assert np.abs(final - scipy.linalg.expm(t * lindblad) @ np.full(4, 0.5)).max() < 1e-12


def test_three_axes_that_drift_by_their_own_coordinates():
    rates = {"x": 0.5, "y": -0.4, "w": 0.3}
    model = cq.Model(tuple(rates), 1, D1C={k: (lambda z, k=k: rates[k] * np.sin(z[k])) for k in rates})
    grid = cq.Grid(**{k: (-np.pi, np.pi, 40, "periodic") for k in rates})
    start = cq.product(grid, lambda z: np.exp(sum(2 * np.cos(z[k] - 0.7) for k in rates)), [1])
    solution = cq.solve(model, start, [0, 1], method="split", tol=1e-5)
    exact = np.einsum("i,j,k->ijk", *[_carried(grid.axis(k).centers, r) for k, r in rates.items()])
    assert np.abs(solution.rho.values[-1, 0, 0].real - exact).sum() * grid.cell_volume < 1e-5


def test_outputs_inside_a_step_may_need_more_cells_than_its_ends():
    """Eleven outputs of the linear Diosi model, whose coherence is finest on the way: the steps to outputs grow the cells too."""
    grid = cq.Grid(q=(-6, 6, 128), p=(-9, 9, 192))
    sol = cq.solve(cq.models.linear_diosi(), cq.gaussian(grid, 0.0, 0.4, cq.ket("+")), np.linspace(0, 1, 11), tol=1e-4)
    for k in (3, 5, 10):
        difference = np.moveaxis(sol.rho.values[k] - cq.models.linear_diosi_exact(grid, float(sol.t[k])), (0, 1), (-2, -1))
        assert np.abs(np.linalg.eigvalsh(difference)).sum() * grid.cell_volume < 1e-4
    assert float(sol.steps[-1]) < 50
    fewer = cq.solve(cq.models.linear_diosi(), cq.gaussian(grid, 0.0, 0.4, cq.ket("+")), [0, 1], tol=1e-4)
    assert np.array_equal(fewer.rho.values[-1], sol.rho.values[-1])  # asking for more output does not change the answer


def test_a_callable_that_reads_a_changed_variable_is_noticed():
    """What the model keeps of earlier runs is dropped when a callable returns something else: the drift enters the mean."""
    now = {"drift": 1.0}
    model = cq.Model(("x",), 1, D1C=[lambda z: now["drift"]], D2=[[0.1]])
    start = cq.gaussian(cq.Grid(x=(-8, 8, 64)), 0, 0.6, [1])
    for now["drift"] in (1.0, 2.0, -1.0):
        assert float(cq.solve(model, start, [0, 1], method="split").cq.moment("x")[-1]) == pytest.approx(now["drift"], abs=1e-9)


# -- what an independent look at the route found ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("rate", [3.0, 10.0, 17.0])
def test_phases_on_an_axis_that_nothing_moves_keep_the_users_cells(rate):
    grid = cq.Grid(q=(-6, 6, 256), p=(-6, 6, 48))
    model = cq.Model(("q", "p"), 2, H=lambda z: [[rate * z.q, 0], [0, -rate * z.q]], D2={"p": 0.1})
    solution = cq.solve(model, cq.gaussian(grid, 0, 0.8, cq.ket("+")), [0, 1], tol=1e-5)
    q = grid.axes[0].centers
    exact = 0.5 * np.exp(-(q**2) / 1.28) / np.sqrt(2 * np.pi * 0.64) * np.exp(-2j * rate * q)
    assert solution.attrs["method"] == "split"
    assert np.abs(solution.rho.values[-1, 0, 1].sum(-1) * grid.axes[1].spacing - exact).max() < 1e-10


@pytest.mark.filterwarnings("ignore::cqpde.errors.CqpdeWarning")
def test_a_drift_that_grows_does_not_go_round_the_box():
    model, grid = cq.Model(("x",), 1, D1C=[lambda z, t: 16 * t], D2=[[0.05]]), cq.Grid(x=(-4, 4, 64))
    start = cq.gaussian(grid, 0, 0.5, [1])
    for times in ([0, 1], np.linspace(0, 1, 6)):
        solution = cq.solve(model, start, times, grid_error=False)
        assert solution.attrs["method"] == "fv" and float(solution.escaped_probability[-1]) > 0.99
    with pytest.raises(RouteError, match="out of reach"):
        cq.solve(model, start, [0, 1], method="split", positivity="exact", tol=1e-2)


@pytest.mark.parametrize(
    ("drive", "area"),
    [(lambda t: 2 * np.cos(24 * np.pi * t), 0.0), (lambda t: 40.0 * (0.505 < t < 0.545), 1.6), (lambda t: 40 * np.exp(-0.5 * ((t - 0.37) / 0.016) ** 2), 40 * 0.016 * np.sqrt(2 * np.pi))],
)
def test_drives_at_one_place_and_short_in_time(drive, area):
    local = lambda z, t: drive(t) * np.exp(-(((z.x - 2) / 0.3) ** 2))
    model, grid = cq.Model(("x",), 2, H=[[0, local], [local, 0]], D2=[[1e-9]]), cq.Grid(x=(-6, 6, 256))
    start = cq.gaussian(grid, 1.0, 0.8, cq.ket("0"))
    solution = cq.solve(model, start, [0, 1], tol=1e-5)
    exact = np.sum(start.density * np.cos(2 * area * np.exp(-(((grid.axes[0].centers - 2) / 0.3) ** 2)))) * grid.cell_volume
    assert float(solution.cq.expect(SZ)[-1]) == pytest.approx(exact, abs=1e-5)


@pytest.mark.filterwarnings("ignore::cqpde.errors.CqpdeWarning")
@pytest.mark.parametrize(("period", "width"), [(0.05, 0.01), (0.1, 0.006), (0.02, 0.004)])
@pytest.mark.parametrize("method", ["split", "fv"])
def test_trains_of_short_pulses(method, period, width):
    model = cq.Model(("x",), 1, D1C=[lambda z, t: (period / width) * ((t % period) < width)], D2=[[0.1]])
    solution = cq.solve(model, cq.gaussian(cq.Grid(x=(-9, 9, 128)), 0, 0.6, [1]), [0, 1], method=method, tol=1e-4, grid_error=False)
    assert float(solution.cq.moment("x")[-1]) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_bends_in_time_between_the_samples_of_a_step(tol):
    """A kink at 0.15 and one at 0.85 of the run, where chains of 1, 2 and 3 steps do not look; and a bend of width 0.003."""
    grid, x = cq.Grid(x=(-9, 9, 128)), cq.Grid(x=(-9, 9, 128)).axes[0].centers
    for v, shift in ((lambda t: 10 * max(t - 0.15, 0.0), 5 * 0.85**2), (lambda t: 5 * abs(t - 0.85), 2.5 * (0.85**2 + 0.15**2))):
        model = cq.Model(("x",), 1, D1C=[lambda z, t, v=v: v(t)], D2=[[0.1]])
        solution = cq.solve(model, cq.gaussian(grid, 0, 0.6, [1]), [0, 1], method="split", tol=tol)
        exact = np.exp(-((x - shift) ** 2) / 1.12) / np.sqrt(2 * np.pi * 0.56)
        assert np.abs(solution.rho.values[-1, 0, 0].real - exact).sum() * grid.cell_volume < tol
    bend = lambda z, t: 5 * 0.003 * np.log1p(np.exp((t - 0.1) / 0.003))
    area = 0.5 * 5 * 0.81 + 5 * 0.003**2 * np.pi**2 / 6  # of the kinked ramp, and what the rounding adds
    model = cq.Model(("x",), 2, H=[[0, bend], [bend, 0]], D2=[[0.1]])
    solution = cq.solve(model, cq.gaussian(grid, 0, 0.6, cq.ket("0")), [0, 1], method="split", tol=tol)
    assert float(solution.cq.expect(SZ)[-1]) == pytest.approx(np.cos(2 * area), abs=tol)


def test_a_changed_variable_is_noticed_for_other_times_and_in_sampled_coefficients():
    now, grid = {"h": 0.0}, cq.Grid(x=(-8, 8, 64))
    model = cq.Model(("x",), 2, H=[[0, lambda z: now["h"]], [lambda z: now["h"], 0]], D2=[[0.1]])
    start = cq.gaussian(grid, 0, 0.8, cq.ket("0"))
    cq.solve(model, start, [0, 1])
    now["h"] = 1.0
    assert float(cq.solve(model, start, [0, 1.5]).cq.expect(SZ)[-1]) == pytest.approx(np.cos(3.0), abs=1e-6)
    values = np.full((1, 64), 1.0)
    model, start = cq.Model(("x",), 1, D1C=cq.sampled(grid, values), D2=[[0.1]]), cq.gaussian(grid, 0, 0.8, [1])
    for drift in (1.0, 2.0):
        values[:] = drift
        assert float(cq.solve(model, start, [0, 1]).cq.moment("x")[-1]) == pytest.approx(drift, abs=1e-6)


def test_a_phase_feature_between_the_cells_of_the_first_look_is_kept():
    grid = cq.Grid(x=(-8, 8, 4000), y=(-6, 6, 96))
    turned = lambda z: [np.sqrt(0.5) + 0 * z.x, np.sqrt(0.5) * np.exp(1j * np.pi * np.exp(-0.5 * ((z.x + 0.8) * 60) ** 2))]
    model, start = cq.Model(("x", "y"), 2, D2={"x": 1e-5, "y": 1e-4}), cq.gaussian(grid, 0, 0.7, turned)
    mean = cq.solve(model, start, [0, 0.01], tol=1e-6).cq.expect(cq.sigmax()).values
    assert mean[1] == pytest.approx(mean[0], abs=1e-4) and mean[0] < 0.98


@pytest.mark.filterwarnings("ignore::cqpde.errors.CqpdeWarning")
def test_grid_error_is_told_at_outputs_inside_the_first_step():
    grid = cq.Grid(q=(-6, 6, 40), p=(-9, 9, 60))
    solution = cq.solve(cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.4, cq.ket("+")), [0, 0.2, 0.6, 1], tol=1e-6, method="split")
    assert np.all(solution.grid_error.values[1:] > 1e-6)
