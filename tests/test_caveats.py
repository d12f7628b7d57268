"""What a run says of itself: probability at the ends with axis, time and a box that would do, the error of the cells as a number."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

import cqpde as cq
from cqpde.cli import main
from cqpde.errors import BoxWarning, CqpdeWarning, ResolutionWarning, SolverError

TIMES = [0, 0.25, 0.5, 0.75, 1.0]


def drifting(speed=2.0):
    """Moves by ``speed`` per time and spreads; exact: a Gaussian of mean ``speed t`` and variance ``0.16 + 0.2 t``, times a fixed state."""
    return cq.Model(("x",), 2, D1C=[speed], D2=[[0.1]])


def run(grid, model=None, times=TIMES, state=None, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sol = cq.solve(model or drifting(), state or cq.gaussian(grid, 0.0, 0.4, cq.ket("+")), times, **({"tol": 1e-3, "method": "fv"} | options))
    return sol, [w for w in caught if issubclass(w.category, CqpdeWarning)]


@pytest.mark.parametrize(("end", "category"), [("reflecting", BoxWarning), ("absorbing", BoxWarning), ("open", CqpdeWarning)])
def test_leaving_the_box_warns_once_with_end_time_and_a_box_that_does(end, category):
    sol, caught = run(cq.Grid(x=(-3, 3, 96, end)))
    assert [w.category for w in caught] == [category], [str(w.message) for w in caught]
    text = str(caught[0].message)
    # the mean is 1 at t = 1/2, where 1e-3 is 3.1 standard deviations of 0.51 away: the end at 3 is reached between 1/2 and 3/4
    assert "x_upper" in text and "x_lower" not in text and f"from t = {0.5 if end == 'open' else 0.75:g} on" in text, text
    assert "x_upper" in sol.attrs["ends"] and float(sol.end_probability[:, 0].max()) < 1e-6
    low, high = map(float, re.search(r"x = \((.*?), (.*?)\)", text).groups())
    assert high > 2.0 + 5 * 0.6 and high < 12
    again, quiet = run(cq.Grid(x=(low, high, 160, end)))
    assert not quiet and again.attrs["ends"] == "nothing reached the ends"


def test_a_wall_that_the_state_starts_at_is_no_surprise():
    grid = cq.Grid(x=(0, 3, 48, "reflecting"))
    state = cq.product(grid, lambda z: np.exp(-z.x), cq.ket("+"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sol = cq.solve(cq.Model(("x",), 2, D2=[[0.1]]), state, [0, 0.1], tol=1e-3, method="fv")
    assert float(sol.end_probability[0, 0]) > 0.05


def test_the_split_route_names_axis_and_box_too():
    model = cq.Model(("x", "y"), 2, D1C=[2.0, 0.0], D2=[[0.05, 0], [0, 0.05]])
    grid = cq.Grid(x=(-2.4, 2.4, 48), y=(-3, 3, 48))
    with pytest.warns(CqpdeWarning, match=r"reached the open ends by t = \d.*x = \(-?\d"):
        cq.solve(model, cq.gaussian(grid, {"x": -0.3}, 0.35, cq.ket("+")), [0, 0.3, 0.6], tol=1e-4, method="split")


def test_suggest_from_trajectories_holds_them_and_from_a_state_equals_from_its_moments():
    model = cq.models.linear_diosi()
    grid = cq.Grid(q=(-6, 6, 64), p=(-9, 9, 96))
    start = cq.gaussian(grid, 0.0, 0.4, cq.ket("+"))
    mean, cov = start.moments()
    assert np.allclose(mean, 0, atol=1e-12) and np.allclose(cov, 0.16 * np.eye(2), atol=1e-8)
    rough = cq.Grid.suggest(model, start, 1.0)
    assert rough == cq.Grid.suggest(model, {"mean": {}, "cov": cov}, 1.0)
    few = cq.Grid.suggest(model, start, 1.0, trajectories=200)
    ens = cq.unravel(model, start, [0, 0.5, 1.0], trajectories=4000, seed=3)
    for box in (rough, few):
        inside = cq.unravel(model, cq.gaussian(box, 0.0, 0.4, cq.ket("+")), [0, 0.5, 1.0], trajectories=4000, seed=3)
        assert int(inside.outside.sum()) == 0 and ens.sizes["t"] == 3
        assert all(a.spacing < 0.2 for a in box.axes)


@pytest.mark.parametrize("method", ["fv", "split"])
def test_the_error_of_the_cells_is_a_number_that_is_near_the_true_one(method):
    """Against the exact Gaussian: the estimate is within a factor of 5 for fv and above the error for split; too few cells warn."""
    for cells in (16, 24, 48, 96, 192) if method == "fv" else (48, 64, 96):
        grid = cq.Grid(x=(-5, 9, cells))
        sol, caught = run(grid, method=method, tol=1e-6)
        z = grid.axes[0].centers
        exact = np.exp(-((z - 2) ** 2) / (2 * 0.36)) / np.sqrt(2 * np.pi * 0.36)
        error = float(np.abs(sol.cq.density().values[-1] - exact).sum() * grid.cell_volume)
        told = sol.attrs["resolution_error"]
        assert told > (error / 5 if method == "fv" else error) and (method == "split" or told < 5 * error), (cells, told, error)
        assert (told > 0.05) == ("do not resolve" in sol.attrs["resolution"]) == any(w.category is ResolutionWarning for w in caught)


def test_a_state_without_recipe_is_judged_by_its_highest_modes():
    grid = cq.Grid(x=(-4, 7, 96))
    smooth = cq.from_array(grid, cq.gaussian(grid, 0.0, 0.5, cq.ket("+")).rho, normalise=True)
    rough = cq.from_array(grid, cq.gaussian(grid, 0.0, 0.05, cq.ket("+")).rho, normalise=True)
    numbers = [run(grid, state=s, times=[0, 0.01])[0].attrs["resolution_error"] for s in (smooth, rough)]
    assert numbers[0] < 1e-6 and numbers[1] > 1e-2


def test_the_command_line_prints_the_resolution_and_the_ends(tmp_path, capsys):
    path = str(tmp_path / "a.nc")
    assert main(["run", "linear_diosi", "--cells", "q=20", "--cells", "p=24", "--method", "fv", "--tol", "1e-2", "-o", path]) == 0
    out = capsys.readouterr()
    assert re.search(r"resolution  estimated error 0\.\d+ in integrated trace norm, (by a run on half the cells|content)", out.out)
    assert "do not resolve the state" in out.err
    for name in ("trace", "min_eigenvalue", "hermiticity_defect", "escaped_probability", "edge_probability", "end_probability", "steps_rejected"):
        assert name in cq.load(path), name  # the monitors are in every file


def test_a_drift_of_the_trace_stops_the_run(monkeypatch):
    """A planted loss of 1e-8 of the probability per output."""
    from cqpde.integrate.evolve import Propagator

    step = Propagator.step
    monkeypatch.setattr(Propagator, "step", lambda self, *a, **k: [y * (1 - 1e-8) for y in step(self, *a, **k)])
    with pytest.raises(SolverError, match=r"trace plus escaped probability.*t = 0\.25"):
        run(cq.Grid(x=(-4, 7, 48)))


def test_a_grid_of_endlessly_many_cells_is_not_proposed():
    with pytest.raises(cq.CqpdeError, match="suggest: an axis must do with"):
        cq.Grid.suggest(cq.models.linear_diosi(), {"mean": {"q": 0, "p": 0}, "std": {"q": 1e-200, "p": 1e-200}}, 1e-30)
