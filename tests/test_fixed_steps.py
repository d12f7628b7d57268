"""Large states: equal steps (``dt=``), sweeps by circulant matrices, and the shipped models as they run by name."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import cqpde as cq
from cqpde import comparison
from cqpde.channels import compose
from cqpde.channels.compose import Composition
from cqpde.channels.convolution import Convolution
from cqpde.channels.spectral import apply_multiplier, band_content, record_tails, transform
from cqpde.channels.structure import analyse
from cqpde.cli import main
from cqpde.comparison import SAFETY

from . import ensembles, models
from .models import integrated_trace_norm


def mass(nx, npx, ny, npy):
    grid = cq.Grid(x=(-3, 3, nx), px=(-0.13, 0.13, npx), y=(-3.2, 2.2, ny), py=(-0.115, 0.125, npy))
    return cq.models.mass_in_superposition(phi=1.0), grid


def lattice(*cells):
    names = [f"{a}_{i}" for i in (1, 2) for a in ("phi", "pi")]
    return cq.models.qubit_lattice(2), cq.Grid(**{a: (-4, 4, n) for a, n in zip(names, cells, strict=True)})


def three_levels(nx, ny):
    """Operators that do not commute: a kick couples all nine components."""
    l = np.array([[0, 1, 0.2j], [0, 0.5, 1], [0, 0, -1]])
    model = cq.Model(("x", "y"), 3, H=np.diag([1.0, 0, -1]), L=[l], D0="saturated", D1=[[0.0], [0.6]], D2={"y": 0.3}, D1C=[lambda z: np.sin(z.y), 0.0])
    return model, cq.Grid(x=(-4, 4, nx), y=(-4, 4, ny))


@pytest.mark.parametrize(
    ("make", "cells"),
    [(mass, (8, 9, 10, 12)), (mass, (11, 8, 7, 9)), (lattice, (6, 8, 7, 6)), (three_levels, (12, 10)), (three_levels, (9, 15))],
)
@pytest.mark.parametrize("batch", [1, 2])
def test_circulant_sweeps_equal_the_transforms(make, cells, batch):
    """Every part of a model on any state, even and odd lines, couplings of components, lines together and apart in memory."""
    model, grid = make(*cells)
    structure = analyse(model, grid, (0.0,))
    composition = Composition(model, grid, structure)
    x = np.random.default_rng(1).standard_normal((model.dim**2, batch, *grid.shape))
    seen = 0
    for part in structure.parts:
        flow = composition.flow(part, 0.0, 0.05)
        if flow.multiplier is None or len(flow.axes) != 1:
            continue
        expected, found = x.copy(), x.copy()
        apply_multiplier(expected, flow.multiplier, grid, flow.axes, None, 1)
        Convolution.of(flow.multiplier, found, flow.axes[0] + 1).apply(found)
        assert np.abs(found - expected).max() < 2e-14 * np.abs(expected).max()
        assert np.abs(expected - x).max() > 1e-3
        seen += 1
    assert seen >= 2


def test_large_fields_are_swept_by_circulant_matrices(monkeypatch):
    """A chain is the same above and below the size at which they take over; long lines stay with the transforms."""
    model, grid = mass(10, 12, 9, 11)
    composition = Composition(model, grid, analyse(model, grid, (0.0,)))
    x = np.random.default_rng(2).standard_normal((4, 1, *grid.shape))
    escaped = np.zeros((1, 8, 4))
    calls = []
    monkeypatch.setattr(Convolution, "apply", lambda self, y, threshold, was=Convolution.apply: (calls.append(1), was(self, y, threshold))[1])
    before, _ = composition.chain(x, escaped, 0.0, 0.1, 3, None)
    assert not calls
    monkeypatch.setattr(compose, "SWEPT", 100)
    after, _ = composition.chain(x, escaped, 0.0, 0.1, 3, None)
    assert len(calls) == 3 * 4 + 2
    assert np.abs(after - before).max() < 1e-13 * np.abs(before).max()
    assert Convolution.fits(4096) and Convolution.fits(200) and not Convolution.fits(2 * 67)


def test_content_of_the_highest_modes_in_slabs(monkeypatch):
    _, grid = mass(10, 12, 9, 11)
    x = np.random.default_rng(3).standard_normal((4, 1, *grid.shape))
    whole = [0.0] * 4
    for i in range(4):
        record_tails(transform(x, (i + 2,), 1), grid, (i,), whole)
    monkeypatch.setattr("cqpde.channels.spectral.SLAB", 5000)
    assert band_content(x, grid) == pytest.approx(whole, rel=1e-12)


def test_fixed_steps_are_of_second_order_and_report_three_times_their_error():
    case = models.linear_diosi()
    grid = cq.Grid(q=(-6, 6, 80), p=(-9, 9, 112))
    exact, errors = case.reference(grid), []
    for dt in (0.125, 0.0625):
        sol = cq.solve(case.model, case.start(grid), [0.0, 0.5, 1.0], dt=dt, grid_error=False)
        errors.append(integrated_trace_norm(sol.rho.values[-1] - exact, grid))
        # three times, and the bound of the trace norm by the Frobenius norm is up to 2^(1/2) larger
        assert 2.8 * errors[-1] < float(sol.time_error[-1]) < 4.5 * errors[-1]
        assert sol.attrs["dt_fixed"] == dt and abs(float(sol.trace[-1]) - 1) < 1e-12
        assert float(sol.steps[-1]) == round(1 / dt)
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.05)
    # an even number of steps fills every gap
    uneven = cq.solve(case.model, case.start(grid), [0.0, 0.3, 1.0], dt=0.11, grid_error=False)
    assert uneven.steps.values.tolist() == [0, 4, 12]
    assert float(uneven.dt[-1]) == pytest.approx(0.0875)


def test_a_run_with_a_fixed_step_is_validated_with_that_step(tmp_path, capsys):
    path = str(tmp_path / "fixed.nc")
    assert main(["run", "linear_diosi", "-p", "sigma=0.9", "--dt", "0.05", "--cells", "q=64", "--cells", "p=72", "-q", "-o", path]) == 0
    sol = cq.load(path)
    assert sol.attrs["dt_fixed"] == 0.05 and "sigma = 0.9" in sol.attrs["cqpde_config"]
    assert main(["validate", path, "--trajectories", "4000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "agree"
    ens = cq.unravel(cq.models.linear_diosi(sigma=0.9), cq.gaussian(sol.cq.grid, 0.0, 0.4, cq.ket("+")), [0.0, 1.0], trajectories=4000, seed=1)
    assert cq.validate(sol, ens).verdict == "inconclusive"  # the bound of the time error alone is too coarse, and it says so


def test_a_slower_solution_takes_the_place_of_the_time_error():
    """Moments extrapolated in the step: 16 times closer to the exact ones at half the step, and a wrong step ratio would show."""
    case = models.linear_diosi()
    grid = cq.Grid(q=(-6, 6, 80), p=(-9, 9, 112))
    exact, left = comparison.grid_features(ensembles.exact_solution(grid, [0.0, 1.0], [case.start(grid).rho, case.reference(grid)]), 1.0), []
    for dt in (0.25, 0.125):
        fine, slow = (cq.solve(case.model, case.start(grid), [0.0, 1.0], dt=step, grid_error=False) for step in (dt, 2 * dt))
        value, signed, bound = comparison.grid_moments(fine, [slow], 1.0)
        plain = np.abs(comparison.grid_features(fine, 1.0) - exact).max()
        left.append(np.abs(value - exact).max())
        assert np.linalg.norm(value - exact) <= SAFETY * np.linalg.norm(signed) and bound.max() < 1e-7
        assert left[-1] < 0.1 * plain
    assert np.log2(left[0] / left[1]) == pytest.approx(4.0, abs=0.3)


def test_toml_takes_a_fixed_step_and_words_as_parameters(tmp_path):
    text = '[model]\nname = "linear_diosi"\n[model.parameters]\nsigma = 0.9\n[grid]\nq = [-6, 6, 48]\np = [-9, 9, 64]\n[time]\nend = 0.5\n[solver]\ndt = 0.1\n'
    (tmp_path / "a.toml").write_text(text)
    assert main(["run", str(tmp_path / "a.toml"), "-q", "-o", str(tmp_path / "a.nc")]) == 0
    assert cq.load(tmp_path / "a.nc").attrs["time_integration"].startswith("symmetric composition of order 2, fixed steps")
    path = str(tmp_path / "w.nc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cq.CqpdeWarning)
        assert main(["run", "well_and_barrier", "-p", "wall=specular", "--cells", "q=24", "--cells", "p=48", "--tol", "0.1", "--no-grid-error", "-q", "-o", path]) == 0
    sol = cq.load(path)
    assert 'wall = "specular"' in sol.attrs["cqpde_config"] and sol.q.attrs["boundary"] == "specular(p) open"
    assert main(["run", "well_and_barrier", "-p", "wall=brick", "-q", "-o", path]) == 2
    assert main(["run", "well_and_barrier", "-p", "lam=much", "-q", "-o", path]) == 2


def test_own_options_of_a_model_yield_to_what_is_asked():
    own = {"dt": 0.01, "tol": 2e-2}
    merged = cq.models.merged
    assert merged(own, {}) == own and merged(own, {"tol": 1e-3}) == {"dt": 0.01, "tol": 1e-3}
    assert merged(own, {"method": "fv"}) == {"tol": 2e-2, "method": "fv"}
    assert merged(own, {"positivity": "exact", "dt": 0.1})["dt"] == 0.1


@pytest.mark.parametrize(
    ("name", "cells"),
    [("linear_diosi", {}), ("well_and_barrier", {"q": 48, "p": 80}), ("qubit_lattice", {a: 20 for a in ("phi_1", "phi_2")} | {a: 28 for a in ("pi_1", "pi_2")}),
     ("mass_in_superposition", {a: 44 for a in ("x", "px", "y", "py")})],
)  # fmt: skip
def test_every_shipped_model_runs_by_its_name(name, cells, tmp_path):
    """From nothing but its name (fewer cells where the shipped ones take long): no refusal, a physical result, errors as promised."""
    path = str(tmp_path / "a.nc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if cells else "error", cq.CqpdeWarning)
        assert main(["run", name, "--no-grid-error", "-q", "-o", path, *[x for k, v in cells.items() for x in ("--cells", f"{k}={v}")]]) == 0
    sol = cq.load(path)
    assert abs(float(sol.trace[-1] + sol.escaped_probability[-1]) - 1) < 1e-12
    assert float(sol.min_eigenvalue.min()) > -8e-3
    assert float(sol.time_error[-1]) <= float(sol.attrs["tol"])


def test_a_large_state_is_made_in_parts():
    """The same values in parts as on the whole, by functions of z as well; nothing of the size of rho is held until it is asked for."""
    grid, few = cq.Grid(q=(-6, 6, 700), p=(-9, 9, 640)), cq.Grid(q=(-6, 6, 100), p=(-9, 9, 64))
    ket = lambda z: [np.cos(0.2 * z.q) + 0 * z.p, np.sin(0.2 * z.q) + 0 * z.p]
    for make in (lambda g: cq.gaussian(g, {"q": 0.5}, cov=[[0.5, 0.2], [0.2, 0.7]], state=cq.ket("+")), lambda g: cq.product(g, lambda z: np.exp(-(z.q**2) - z.p**2), ket)):
        state = make(grid)
        assert state.bytes_held == 0 and state.dim == 2
        part, x = state.part(1, 100, 50), state.components
        assert state.bytes_held == 0 and len(list(state.parts())) > 1
        np.testing.assert_array_equal(part, state.rho[:, :, :, 100:150])
        np.testing.assert_array_equal(x[0], state.rho[0, 0].real)
        assert state.bytes_held == state.nbytes and abs(state.density.sum() * grid.cell_volume - 1) < 1e-13
        mean, cov = make(few).moments()
        np.testing.assert_allclose(state.moments()[0], mean, atol=1e-9)
        np.testing.assert_allclose(state.moments()[1], cov, atol=1e-9)
    np.testing.assert_allclose(make(few).moments()[1], [[0.5, 0], [0, 0.5]], atol=1e-9)


def test_a_large_state_that_is_none_is_refused_in_the_part_where_it_fails():
    grid = cq.Grid(q=(-6, 6, 700), p=(-9, 9, 640))
    with pytest.raises(cq.CqpdeError, match="density: must be finite and non-negative"):
        cq.product(grid, lambda z: np.exp(-(z.q**2) - z.p**2) - (z.q > 5.9) * 1e-3 + 0 * z.p, cq.ket("+"))
