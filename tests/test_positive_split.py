"""Exact positivity in the split route: Kraus kicks, whole-cell shifts, limited remaps."""

from __future__ import annotations

import re

import numpy as np
import pytest

import cqpde as cq
from cqpde.channels import positive, shifts
from cqpde.channels.forward import order_four
from cqpde.channels.kraus import SHORT, kraus_kick, kraus_operators
from cqpde.channels.parts import fields_at
from cqpde.channels.structure import analyse
from cqpde.components import min_eigenvalues, to_components, to_matrix
from cqpde.errors import CqpdeError, OptionError, RouteError, SolverError

from . import models
from .models import integrated_trace_norm
from .references import characteristic, gaussian

A = 0.5 * np.array([[0.6, 0.5 - 0.3j], [0.2j, -0.6]])  # does not commute with its adjoint
S, V = 0.8, 0.3
LINE = cq.Grid(x=(-8, 8, 160, "periodic"))


# -- the kick ------------------------------------------------------------------------------------------------------------------
def _kick_error(dt, a, planted=False):
    """One kick against the exact solution of the constant-coefficient equation."""
    h = LINE.axes[0].spacing
    cells, k = kraus_operators(np.full(1, S), a.reshape(1, 2, 2), np.full(1, V), h, dt)
    if planted:  # without the mean effect of the Brownian bridge
        c = -0.5 / S * (a.conj().T @ a + a @ a)
        inner = a @ c - c @ a
        k = k @ _expm(-dt * dt / (12 * S) * (a @ inner - inner @ a))
    psi = cq.ket("+i")
    start = cq.gaussian(LINE, 0, 0.7, psi).rho
    rho = sum(np.einsum("ij,jkx,lk->ilx", m, np.roll(start, j, axis=-1), m.conj()) for j, m in zip(cells, k[:, 0], strict=True))
    exact = characteristic.solve_constant(
        (np.outer(psi, psi.conj()), [0.0], [[0.49]]), dt, [(-8, 8)], (160,), [V], [[S]], [a]
    )
    return integrated_trace_norm(rho - exact, LINE), k


def _expm(m):
    import scipy.linalg

    return scipy.linalg.expm(m)


def test_kick_of_any_operator_is_third_order_in_one_step_and_trace_preserving():
    errors = []
    for dt in (0.4, 0.2, 0.1):
        error, k = _kick_error(dt, A)
        errors.append(error)
        total = np.einsum("mcij,mcik->jk", k.conj(), k)
        assert np.abs(total - np.eye(2)).max() < 1e-14
    assert errors[-1] < 5e-7
    assert np.log2(np.array(errors[:-1]) / errors[1:]) == pytest.approx(3.0, abs=0.15)
    wrong = [_kick_error(dt, A, planted=True)[0] for dt in (0.2, 0.1)]
    assert np.log2(wrong[0] / wrong[1]) < 2.3 and wrong[1] > 20 * errors[-1]


@pytest.mark.parametrize("a", [np.diag([0.7, -0.7]), 0.4 * cq.sigmay(), 0.5j * cq.sigmax(), 0.3 * cq.sigmaz() * (1 - 0.6j)])
def test_kick_of_a_normal_operator_is_exact(a):
    """Hermitian: the Gaussian measurement; anti-Hermitian: feedback alone; both at once where they commute."""
    error, _ = _kick_error(0.3, np.asarray(a, dtype=complex))
    assert error < 1e-12


def test_short_kicks_are_sums_on_the_cells_long_ones_the_same_by_transform():
    model = cq.Model(("x", "y"), 2, L=[A], D0="saturated", D1=[[lambda z: 1 + 0.2 * np.cos(z.y)], [0]], D2={"x": S / 2}, D1C=[V, 0])
    grid = cq.Grid(x=(-8, 8, 160, "periodic"), y=(-3, 3, 8))
    fields = fields_at(model, grid.mesh(), 0.0, None)
    drift = np.full((1, 1), V)
    short, long = (kraus_kick(fields, grid, 0, drift, dt) for dt in (0.007, 0.3))
    assert short.displacements <= SHORT < long.displacements
    assert short.multiplier is None and long.stencil is None
    # the transform of a short kick gives the same as its sum on the cells
    from cqpde.channels import kraus

    x = to_components(cq.gaussian(grid, 0, 0.6, cq.ket("+")).rho)[:, None]
    direct = short.stencil.apply(x.reshape(4, -1).copy(), 1).reshape(x.shape)
    before, kraus.SHORT = kraus.SHORT, 0
    try:
        other = kraus_kick(fields, grid, 0, drift, 0.007)
    finally:
        kraus.SHORT = before
    y = x.copy()
    from cqpde.channels.spectral import apply_multiplier

    apply_multiplier(y, other.multiplier, grid, (0,), None, 1)
    assert np.abs(y - direct).max() < 1e-14 * np.abs(direct).max() * 10


def test_kick_that_the_cells_cannot_carry_names_the_cells_that_can():
    model = cq.models.linear_diosi()
    grid = cq.Grid(q=(-6, 6, 32), p=(-9, 9, 32))
    with pytest.raises(RouteError, match=r"s dt / h\^2 >= 0.5 along p.*at least \d+ cells"):
        kraus_kick(fields_at(model, grid.mesh(), 0.0, None), grid, 1, np.zeros((1, 1)), 0.01)


# -- whole cells ------------------------------------------------------------------------------------------------------------------
def test_common_measure():
    assert shifts.common_measure(np.array([0.3, -0.75, 1.2])) == pytest.approx(0.15)
    assert shifts.common_measure((np.arange(-10, 10) + 0.5) * 0.2 / 3) == pytest.approx(0.1 / 3)
    assert shifts.common_measure(np.array([1.0, np.sqrt(2.0)])) is None
    assert shifts.common_measure(np.zeros(3)) is None
    assert shifts.common_measure(np.array([0.2, 1e-17, -0.4])) == pytest.approx(0.2)  # a centre at zero, to round-off
    assert shifts.whole_steps([0.5, 0.75], 0.125) == 2
    assert shifts.whole_steps([0.5, 0.7], 0.125) is None


def _whole_cells(n_p=151, steps=8, t=1.0):
    """A grid, with p = 0 at a centre, on which dt = t / steps moves q by whole cells of a free particle of mass one."""
    h_p = 18.0 / n_p
    h_q = h_p * t / steps
    n_q = int(np.ceil(12.0 / h_q))
    return cq.Grid(q=(-n_q * h_q / 2, n_q * h_q / 2, n_q), p=(-9, 9, n_p))


def test_linear_diosi_by_whole_cells_is_second_order_positive_and_linear():
    case = models.linear_diosi()
    errors = []
    for steps in (16, 32):
        grid = _whole_cells(steps=steps)
        solution = cq.solve(case.model, case.start(grid), [0, 1.0], method="split", positivity="exact", tol=0.9, dt_max=4.0 / steps)
        assert solution.attrs["positivity"] == "exact" and solution.attrs["linear_in_state"] == 1
        assert solution.min_eigenvalue.values.min() >= -1e-14
        assert np.abs(solution.trace - 1).max() < 1e-12
        composition = positive.PositiveComposition(
            case.model, grid, analyse(case.model, grid, (0.0,)), "shift", (0.0,)
        )
        x, e = to_components(case.start(grid).rho).reshape(4, -1), np.zeros((1, 4, 4))
        for k in range(steps):
            x, _ = composition.step(x, e, k / steps, 1.0 / steps)
        errors.append(integrated_trace_norm(to_matrix(x.reshape(4, *grid.shape)) - case.reference(grid), grid))
    assert errors[1] < 4e-4
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.15)


def test_a_thousand_steps_stay_positive_trace_preserving_and_linear():
    model = cq.models.linear_diosi()
    grid = cq.Grid(q=(-6, 6, 120), p=(-6.3, 6.3, 63))  # h_p = 0.2, p = 0 at a centre: dt = h_q / h_p = 0.5, walls are far enough in q only
    structure = analyse(model, grid, (0.0,))
    composition = positive.PositiveComposition(model, grid, structure, "shift", (0.0,))
    starts = [cq.gaussian(grid, {"q": x}, 0.5, cq.ket(k)).rho for x, k in ((0.0, "+"), (1.0, "0"), (-1.0, "+i"))]
    mixed = 0.2 * starts[0] + 0.3 * starts[1] + 0.5 * starts[2]
    x = np.stack([to_components(r).reshape(4, -1) for r in (*starts, mixed)], axis=1).reshape(4, -1)
    e = np.zeros((4, 4, 4))
    lowest = 0.0
    for k in range(1000):
        x, e = composition.step(x, e, 0.5 * k, 0.5)
        if k % 100 == 99:
            lowest = min(lowest, float(min_eigenvalues(x).min() / x[:2].sum(axis=0).max()))
    parts = x.reshape(4, 4, -1)
    assert lowest >= -1e-14
    assert np.abs(parts[:2].sum(axis=(0, 2)) * grid.cell_volume - 1).max() < 1e-12
    combined = 0.2 * parts[:, 0] + 0.3 * parts[:, 1] + 0.5 * parts[:, 2]
    assert np.abs(combined - parts[:, 3]).max() < 1e-14
    assert np.abs(parts[:, 0] - parts[:, 1]).max() > 1e-9  # the starts are still told apart


def _driven():
    return cq.Model(
        ("q", "p"), 2, H=lambda z: [[0.5 * z.q, 1], [1, -0.5 * z.q]], L=[cq.sigmaz(), cq.sigmam()], D0=[[0.25, 0], [0, 0.3]],
        D1={"p": [-0.5, 0]}, D2={"p": 0.5}, D1C={"q": lambda z: z.p, "p": lambda z: -z.q},
    )  # fmt: skip


def _stiff():
    return cq.Model(
        ("q", "p"), 2, L=[cq.sigmaz()], D0="saturated", D1={"p": [-0.5]}, D2={"p": 0.5}, D1C={"q": lambda z: z.p, "p": lambda z: -400 * z.q}
    )


def _undrifting():
    return cq.Model(("x",), 2, H=cq.sigmax(), L=cq.sigmaz(), D1=[[0.5]], D2=[[0.5]], D0="saturated")


def _both_noisy():
    return cq.Model(("x", "y"), 1, D1C={"x": lambda z: z.y}, D2={"x": 0.3, "y": 0.5})


@pytest.mark.parametrize(
    ("make", "box", "width", "times", "tol"),
    [
        (cq.models.linear_diosi, {"q": (-6, 6, 100), "p": (-9, 9, 40)}, 0.5, [0, 1], 1e-4),
        (cq.models.linear_diosi, {"q": (-6, 6, 100), "p": (-9, 9, 90)}, 0.5, [0, 0.5, 0.75, 1], 1e-2),
        (cq.models.linear_diosi, {"q": (-6, 6, 100, "periodic"), "p": (-9, 9, 50)}, 0.5, [0, 1], 1e-3),
        (_driven, {"q": (-6, 6, 64), "p": (-7, 7, 64)}, 0.5, [0, 1], 1e-2),
        (_stiff, {"q": (-0.8, 0.8, 64), "p": (-16, 16, 65)}, {"q": 0.05, "p": 1.0}, [0, 0.5], 1e-2),
        (_undrifting, {"x": (-10, 10, 32)}, 0.5, [0, 0.3, 1, 1 + 2**0.5], 1e-4),
        (_both_noisy, {"x": (-8, 8, 66), "y": (-9, 9, 56)}, 0.5, [0, 0.3, 1], 1e-4),
    ],
)
def test_the_grid_that_a_refusal_names_meets_the_tolerance(make, box, width, times, tol):
    """Cells of all axes and the step are found together: the named grid is not refused again."""
    model, grid = make(), cq.Grid(**box)
    start = lambda g: cq.gaussian(g, 0, width, np.eye(model.dim)[0])
    with pytest.raises(CqpdeError, match="nearest grid") as caught:
        cq.solve(model, start(grid), times, method="split", positivity="exact", tol=tol)
    spec = dict(box)
    for name, lower, upper, cells in re.findall(r"(\w+)=\(([-0-9.e]+), ([-0-9.e]+), (\d+)\)", str(caught.value).split("nearest grid")[1]):
        spec[name] = (float(lower), float(upper), int(cells), *box[name][3:])
    named = cq.Grid(**spec)
    assert named != grid
    solution = cq.solve(model, start(named), times, method="split", positivity="exact", tol=tol)
    assert solution.attrs["transport"] == "shift" and solution.min_eigenvalue.values.min() >= -1e-14
    finer = cq.solve(model, start(named), times, method="split", tol=1e-6)
    assert integrated_trace_norm(solution.rho.values[-1] - finer.rho.values[-1], named) < tol


def test_outputs_without_a_common_measure_have_no_grid():
    grid = cq.Grid(q=(-6, 6, 100), p=(-9, 9, 40))
    with pytest.raises(CqpdeError, match="multiples of one time"):
        cq.solve(cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 1, 1 + 2**-0.5], method="split", positivity="exact")


def test_tolerance_out_of_reach_of_whole_cells_is_an_error():
    model, grid = cq.models.linear_diosi(), _whole_cells(steps=4)
    with pytest.raises(SolverError, match=r"exactly positive steps on these cells.*nearest grid"):
        cq.solve(model, cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 1.0], method="split", positivity="exact", tol=1e-5)


# -- limited remaps ------------------------------------------------------------------------------------------------------------------
def test_limited_remaps_are_positive_and_said_not_to_be_linear():
    case = models.linear_diosi()
    grid = cq.Grid(q=(-6, 6, 96), p=(-9, 9, 120))
    solution = cq.solve(
        case.model, case.start(grid), [0, 1.0], method="split", positivity="exact", transport="limited", tol=5e-3, grid_error=False
    )
    assert solution.attrs["positivity"] == "exact" and solution.attrs["linear_in_state"] == 0
    assert solution.min_eigenvalue.values.min() >= -1e-12
    assert np.abs(solution.trace + solution.escaped_probability - 1).max() < 1e-12
    assert integrated_trace_norm(solution.rho.values[-1] - case.reference(grid), grid) < 1e-2


def test_friction_and_walls_go_by_limited_remaps():
    """A trap with friction, an outflow end, and a drive that commutes with nothing."""
    model = cq.Model(
        ("q", "p"), 2, H=[[0.2, 0.5], [0.5, -0.2]], L=[cq.sigmaz(), cq.sigmam()], D0=[[0.3, 0], [0, 0.2]], D1={"p": [-0.4, 0]},
        D2={"p": 0.4}, D1C={"q": lambda z: z.p, "p": lambda z: -z.q - 0.5 * z.p},
    )  # fmt: skip
    grid = cq.Grid(q=(-1.5, 6, 64, ("outflow", "open")), p=(-6, 6, 96))
    start = cq.gaussian(grid, {"q": 0.5}, 0.4, cq.ket("+"))
    solution = cq.solve(model, start, [0, 1.0], method="split", positivity="exact", transport="limited", tol=1e-2, grid_error=False)
    assert float(solution.escaped_probability[-1]) > 1e-3
    assert np.abs(solution.trace + solution.escaped_probability - 1).max() < 1e-12
    assert solution.min_eigenvalue.values.min() >= -1e-12
    other = cq.solve(model, start, [0, 1.0], method="fv", tol=1e-3, grid_error=False)
    assert integrated_trace_norm(solution.rho.values[-1] - other.rho.values[-1], grid) < 0.03


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: cq.Model(("x", "y"), 1, D2=[[0.5, 0.2], [0.2, 0.5]]), ["D2", "uncorrelated noise"]),
        (lambda: cq.Model(("x", "y"), 1, D1C=[lambda z: z.y, 0]), ["D2", "with noise"]),
        (lambda: cq.Model(("x", "y"), 1, D1C=[lambda z: np.sin(z.y), 0], D2={"y": 0.4}), ["D1C (x)", "common measure"]),
        (lambda: cq.Model(("x", "y"), 1, D1C=[lambda z: z.y, lambda z: -z.y], D2={"y": 0.4}), ["D1C (y)", "does not depend on y"]),
    ],
)
def test_what_cannot_be_exactly_positive_is_refused_with_its_term(model, words):
    grid = cq.Grid(x=(-5, 5, 40), y=(-5, 5, 40))
    with pytest.raises(CqpdeError) as caught:
        cq.solve(model(), cq.gaussian(grid, 0, 0.6, [1]), [0, 0.5], method="split", positivity="exact")
    for word in words:
        assert word in str(caught.value)
    assert not isinstance(caught.value, OptionError)


def test_auto_with_exact_positivity_finds_a_route_that_has_it():
    grid = cq.Grid(q=(-6, 6, 48), p=(-9, 9, 72))
    solution = cq.solve(
        cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 0.3], positivity="exact", tol=1e-2, grid_error=False
    )
    assert solution.attrs["positivity"] == "exact" and solution.attrs["method"] == "fv"
    assert "nearest grid" in solution.attrs["method_reason"]
    assert solution.min_eigenvalue.values.min() >= -1e-12


# -- order 4 with exact positivity ----------------------------------------------------------------------------------------------------
def _oscillator():
    """A trap, a force and a phase that are diagonal, excess decoherence: exact Gaussian elements."""
    w2, s, lam, phi, rate = 1.3, 0.5, 0.6, 0.8, 0.1
    model = cq.Model(
        ("q", "p"), 2, H=lambda z: [[2 * lam * z.q + phi, 0], [0, -2 * lam * z.q - phi]], L=[cq.sigmaz()], D0="saturated",
        D1={"p": [-lam]}, D2={"p": s / 2}, D1C={"q": lambda z: z.p, "p": lambda z: -w2 * z.q}, excess=[[rate]],
    )  # fmt: skip

    def reference(grid):
        return gaussian.diagonal_gaussian(
            np.full((2, 2), 0.5), [0.4, -0.2], np.diag([0.2, 0.25]), 1.2, [(a.lower, a.upper) for a in grid.axes], grid.shape,
            M=[[0, 1], [-w2, 0]], s=[[0, 0], [0, s]], h=([phi, -phi], [[2 * lam, 0], [-2 * lam, 0]], None),
            a=([[0, 0], [-lam, lam]], None), jumps=[([rate**0.5, -(rate**0.5)], None)],
        )  # fmt: skip

    start = lambda g: cq.gaussian(g, {"q": 0.4, "p": -0.2}, cov=np.diag([0.2, 0.25]), state=cq.ket("+"))
    return models.Case(model, lambda n: None, start, 1.2, reference)


def _forward_error(case, steps, box):
    h_p = 2 * box[1] / 151
    h_q = 0.5 * h_p * case.t / steps
    n_q = int(np.ceil(2 * box[0] / h_q))
    grid = cq.Grid(q=(-n_q * h_q / 2, n_q * h_q / 2, n_q), p=(-box[1], box[1], 151))
    composition = positive.PositiveComposition(case.model, grid, analyse(case.model, grid, (0.0,)), "shift", (0.0,), 4)
    x, e = to_components(case.start(grid).rho).reshape(4, -1), np.zeros((1, 4, 4))
    for k in range(steps):
        x, _ = composition.step(x, e, k * case.t / steps, case.t / steps)
    error = integrated_trace_norm(to_matrix(x.reshape(4, *grid.shape)) - case.reference(grid), grid)
    return error, float(min_eigenvalues(x).min() / x[:2].sum(axis=0).max()), float(x[:2].sum()) * grid.cell_volume


@pytest.mark.parametrize(("make", "box", "bound"), [(models.linear_diosi, (6.0, 9.0), 1e-5), (_oscillator, (6.0, 7.0), 4e-5)])
def test_forward_steps_are_of_order_four_and_completely_positive(make, box, bound, monkeypatch):
    case = make()
    runs = [_forward_error(case, steps, box) for steps in (2, 4)]
    (first, *_), (second, lowest, trace) = runs
    assert second < bound
    assert np.log2(first / second) == pytest.approx(4.0, abs=0.15)
    assert lowest >= -1e-14 and abs(trace - 1) < 1e-12
    # without the correction of the middle kick, and with its phase turned the wrong way, the order is lost
    right = positive.corrected
    for planted in (lambda m, g, s, a, t, h: fields_at(m, g.mesh(), t, s.basis), _wrong_phase(right)):
        monkeypatch.setattr(positive, "corrected", planted)
        wrong = [_forward_error(case, steps, box)[0] for steps in (2, 4)]
        assert wrong[1] > 20 * second and np.log2(wrong[0] / wrong[1]) < 3


def _wrong_phase(right):
    from dataclasses import replace

    def planted(*arguments):
        f = right(*arguments)
        return replace(f, A=[np.conj(a) for a in f.A])  # A is real: this turns its correction -2i eps s G around

    return planted


def test_order_four_is_taken_where_the_model_allows_it_and_meets_its_tolerance():
    case = models.linear_diosi()
    h_q = 0.5 * (18.0 / 151) / 16
    n_q = 3224
    grid = cq.Grid(q=(-n_q * h_q / 2, n_q * h_q / 2, n_q), p=(-9, 9, 151))
    solution = cq.solve(case.model, case.start(grid), [0, 1.0], method="split", positivity="exact", tol=1e-4)
    assert "order 4" in solution.attrs["time_integration"]
    assert integrated_trace_norm(solution.rho.values[-1] - case.reference(grid), grid) < 1e-4
    assert float(solution.steps[-1]) <= 4
    assert solution.min_eigenvalue.values.min() >= -1e-14 and np.abs(solution.trace - 1).max() < 1e-12
    driven = cq.Model(
        ("q", "p"), 2, H=cq.sigmax(), L=[cq.sigmaz()], D0="saturated", D1={"p": [-0.5]}, D2={"p": 0.5}, D1C={"q": lambda z: z.p}
    )
    structure = analyse(driven, grid, (0.0,))
    assert not order_four(driven, grid, structure, [0], 0.0)  # the drive does not commute with the force


def test_kicks_further_than_once_around_stay_inside_memory():
    """A drift of more than the box in one kick: displacements are taken once around, on the first and on the last axis alike."""
    for flip in (False, True):
        names = ("y", "x") if flip else ("x", "y")
        model = cq.Model(names, 1, D1C={"x": 30.0}, D2={"x": 0.05})
        grid = cq.Grid(**{c: (-4, 4, 48, "periodic") if c == "x" else (-1, 1, 8) for c in names})
        state = cq.gaussian(grid, 0, {"x": 0.5, "y": 0.2}, [1])
        kick = kraus_kick(fields_at(model, grid.mesh(), 0.0, None), grid, names.index("x"), np.full((1, 1), 30.0), 0.4)
        assert kick.stencil is not None
        moved = kick.stencil.apply(to_components(state.rho).reshape(1, -1), 1).reshape(grid.shape)
        x = grid.axis("x").centers
        density = moved.sum(axis=names.index("y"))
        exact = sum(np.exp(-((x - 12.0 + 8 * k) ** 2) / (2 * (0.25 + 0.04))) for k in range(-1, 4))
        assert np.abs(density / density.sum() - exact / exact.sum()).max() < 1e-9
