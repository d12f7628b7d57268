"""Positive in every cell and trace-exact: coarse grids, large cell-Peclet numbers, vanishing noise, point starts."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import cqpde as cq
from cqpde.errors import SolverError

from . import models

A = np.array([[0.5, 0.3j], [0.2, -0.4]])


def _solve(model, state, t, **options):
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", cq.CqpdeWarning
        )  # coarse on purpose: Peclet numbers and open ends are warned about
        return cq.solve(model, state, t, method="fv", grid_error=False, **options)


def _assert_physical(solution):
    assert solution.min_eigenvalue.values.min() >= -1e-12
    assert np.abs(solution.trace + solution.escaped_probability - 1).max() < 1e-12
    escaped = np.linalg.eigvalsh(solution.escaped.values)
    assert escaped.min() >= -1e-12


@pytest.mark.parametrize("transport", ["limited", "upwind"])
@pytest.mark.parametrize("cells", [(8, 8), (16, 10), (24, 48)])
def test_linear_diosi_on_coarse_grids(cells, transport):
    grid = cq.Grid(q=(-6, 6, cells[0]), p=(-9, 9, cells[1]))
    _assert_physical(
        _solve(cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.85, cq.ket("+")), [0, 0.5, 1.0], transport=transport)
    )


@pytest.mark.parametrize("boundary", ["open", "periodic", "reflecting", "absorbing"])
@pytest.mark.parametrize("noise", [0.5, 1e-2, 1e-5])
def test_large_cell_peclet_number(boundary, noise):
    model = cq.Model(
        ("x",), 2, H=cq.sigmax(), L=[A], D1=[[1.0]], D2=[[noise / 2]], D0="saturated", D1C=[lambda z: -z.x]
    )
    grid = cq.Grid(x=(-4, 4, 24, boundary))
    solution = _solve(model, cq.gaussian(grid, 0.5, 0.6, cq.ket("0")), [0, 0.2, 1.0])
    if noise < 0.1:
        assert solution.attrs["largest_peclet"] > 2
    _assert_physical(solution)


def test_noise_that_vanishes_on_part_of_the_box():
    """s = A = 0 for x < 0, drift everywhere: upwind there, Kraus where there is noise."""
    on = lambda z: np.where(z.x > 0, np.minimum(z.x, 1.0), 0.0)
    model = cq.Model(
        ("x",), 2, H=cq.sigmax(), L=[A], D1=[[on]], D2=[[lambda z: 0.5 * on(z) ** 2]], D0="saturated", D1C=[0.8]
    )
    grid = cq.Grid(x=(-4, 6, 60))
    solution = _solve(model, cq.gaussian(grid, -1.0, 0.5, cq.ket("+")), [0, 1, 2.5])
    _assert_physical(solution)
    # the drift carries everything across; the ballistic part arrives where it should
    mean = float(solution.cq.mean()[1, 0])
    assert mean == pytest.approx(-1.0 + 0.8, abs=0.1)


@pytest.mark.parametrize("n", [(16, 16), (33, 40)])
def test_point_start(n):
    grid = cq.Grid(q=(-6, 6, n[0]), p=(-9, 9, n[1]))
    state = cq.point(grid, {"q": 0.3, "p": -0.2}, cq.ket("+i"))
    assert "width" in state.note
    solution = _solve(cq.models.linear_diosi(), state, [0, 0.01, 1.0])
    _assert_physical(solution)
    assert solution.attrs["initial_state"].startswith("point of width")


def test_correlated_noise_coarse_and_open():
    model = cq.Model(("x", "y"), 2, L=models.A2, D0="saturated", D1=np.eye(2), D2=models.S2 / 2, D1C=[1.0, -1.0])
    grid = cq.Grid(x=(-5, 5, 11), y=(-5, 5, 14))
    _assert_physical(_solve(model, cq.gaussian(grid, 0, 0.8, cq.ket("0")), [0, 3.0]))


def test_three_correlated_axes():
    s = np.array([[0.5, 0.2, 0.1], [0.2, 0.6, -0.15], [0.1, -0.15, 0.4]])
    a = [models.A2[0], models.A2[1], 0.3 * cq.sigmay()]
    model = cq.Model(("x", "y", "z"), 2, H=cq.sigmax(), L=a, D0="saturated", D1=np.eye(3), D2=s / 2)
    grid = cq.Grid(x=(-5, 5, 16, "periodic"), y=(-5, 5, 18, "periodic"), z=(-5, 5, 17, "periodic"))
    solution = _solve(model, cq.gaussian(grid, 0, 0.9, cq.ket("0")), [0, 0.5])
    _assert_physical(solution)
    # covariance of the noise arrives exactly on top of the spread of the forces: compare off-diagonals with a run without coupling
    free = cq.Model(("x", "y", "z"), 1, D2=s / 2)
    spread = _solve(free, cq.gaussian(grid, 0, 0.9, [1.0]), [0, 0.5]).cq.covariance().values
    assert spread[1] - spread[0] == pytest.approx(0.5 * s, abs=2e-4)


def test_unphysical_model_is_seen_by_the_eigenvalues():
    """The twin that must fail: less decoherence than the trade-off asks for makes cells that are no states."""
    model = cq.Model(("x",), 2, L=[cq.sigmaz()], D1=[[1.0]], D2=[[0.5]], D0=[[0.3]], check="off")
    grid = cq.Grid(x=(-8, 8, 64))
    solution = _solve(model, cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 0.3])
    assert solution.min_eigenvalue.values.min() < -1e-3


def test_linear_transport_is_trace_exact_and_its_negativity_is_reported():
    grid = cq.Grid(q=(-6, 6, 32), p=(-9, 9, 64))
    with pytest.warns(cq.CqpdeWarning, match="linear transport is not exactly positive"):
        solution = cq.solve(
            cq.models.linear_diosi(),
            cq.gaussian(grid, 0, 0.5, cq.ket("+")),
            [0, 1.0],
            transport="linear",
            grid_error=False,
        )
    assert solution.min_eigenvalue.values.min() < -1e-6
    assert np.abs(solution.trace + solution.escaped_probability - 1).max() < 1e-12


def leaving(end, **options):
    """All but 1e-48 of the probability leaves by t = 4; the matrices turn on the way."""
    model = cq.Model(("x",), 2, H=0.7 * cq.sigmax(), L=[cq.sigmaz()], D1=[[0.2]], D0=[[0.5]], D1C=[6.0], D2=[[0.1]])
    grid = cq.Grid(x=(-3, 3, 48, end))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cq.solve(model, cq.gaussian(grid, 0, 0.4, cq.ket("+")), [0, 0.3, 1, 4], tol=1e-2, method="fv", grid_error=False, **options)


@pytest.mark.parametrize("end", ["open", "absorbing"])
def test_what_is_left_of_a_state_that_has_gone_is_no_scale(end):
    """Relative to its own largest trace the round-off that is left has eigenvalues of -1e17; the promise is kept relative to an even spread."""
    solution = leaving(end)
    _assert_physical(solution)
    assert abs(float(solution.trace[-1])) < 1e-17
    left = np.moveaxis(solution.rho.values[-1], 2, 0)
    largest = np.real(np.trace(left, axis1=1, axis2=2)).max()
    assert end == "open" or np.linalg.eigvalsh(left).min() < -largest
    at_start = np.linalg.eigvalsh(np.moveaxis(solution.rho.values[1], 2, 0)).min() / np.real(np.trace(solution.rho.values[1])).max()
    assert float(solution.min_eigenvalue[1]) == pytest.approx(at_start, abs=1e-15)  # while the state is there, as ever


def test_a_negative_eigenvalue_of_what_is_left_is_still_seen(monkeypatch):
    """Planted: 1e-9 of an even spread, negative, where all has gone."""
    from cqpde.integrate.evolve import Propagator

    step = Propagator.step

    def spoilt(self, x, e, t, dt, remaps=1):
        x, e = step(self, x, e, t, dt, remaps)
        if t + dt > 3.0:
            x[0, 5] -= 1e-9 / 6
            x[0, 6] += 1e-9 / 6
        return x, e

    monkeypatch.setattr(Propagator, "step", spoilt)
    with pytest.raises(SolverError, match=r"must stay positive semi-definite; found eigenvalue -1e-09 of the largest trace at t = 4"):
        leaving("absorbing")
