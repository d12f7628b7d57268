"""A coefficient that turns bad while a run goes on, and a state that does: every route stops, and says when, where and because of what."""

from __future__ import annotations

import numpy as np
import pytest

import cqpde as cq
from cqpde.blame import likely_term
from cqpde.errors import CqpdeError, NotFinite
from cqpde.integrate.evolve import require_finite

ROUTES = {
    "fv, exponential": {"method": "fv"},
    "fv, limited": {"method": "fv", "transport": "limited"},
    "fv, upwind": {"method": "fv", "transport": "upwind"},
    "fv, linear": {"method": "fv", "transport": "linear"},
    "split": {"method": "split"},
    "split, fixed steps": {"method": "split", "dt": 0.01},
    "split, limited": {"method": "split", "positivity": "exact", "transport": "limited"},
}


class Switch:
    """Turns a coefficient bad in the middle of a run: from the output at t = 0.05 on, behind a wall of checks that were made before."""

    def __init__(self, value):
        self.on, self.value = False, value

    def flip(self, snapshot):
        self.on |= float(snapshot.t) > 0.04
        return snapshot.rho.real.sum()

    def __call__(self, z, t, good):
        return np.where(np.abs(z) < 1.0, self.value, good) if self.on else good


def model_of(switch, term):
    good = {"D2": 0.5, "H": 0.3}
    bad = lambda name: (lambda z, t: switch(z.p, t, good[name])) if name == term else (lambda z, t: good[name] + 0.0 * t)
    return cq.Model(("q", "p"), 2, H=[[bad("H"), 0], [0, 0]], L=[cq.sigmaz()], D1={"p": [0.5]}, D0=[[0.6]], D2={"p": bad("D2")}, D1C={"q": 1.0})


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("route", ROUTES)
def test_a_coefficient_that_turns_bad_stops_every_route(route, value):
    for term in ("H", "D2"):
        switch = Switch(value)
        model = model_of(switch, term)
        grid = cq.Grid(q=(-3, 3, 60), p=(-6, 6, 24 if route != "split, limited" else 80))
        start = cq.gaussian(grid, 0.0, {"q": 0.3, "p": 0.7}, cq.ket("+"))
        options = {"tol": 1e-1, "grid_error": False, "save": {"flip": switch.flip}} | ROUTES[route]
        with pytest.raises(CqpdeError) as caught:
            cq.solve(model, start, [0, 0.05, 0.1, 0.2], **options)
        message = str(caught.value)
        assert switch.on, message
        assert term in message and "t = 0." in message and "p = " in message, message


def test_steps_by_whole_cells_look_at_every_state(monkeypatch):
    """That route runs to its end before it hands out the first output, so the state itself is spoilt here."""
    from cqpde.channels.positive import PositiveComposition

    step, count = PositiveComposition.step, []

    def spoilt(self, x, e, t, dt, remaps=1):
        x, e = step(self, x, e, t, dt, remaps)
        count.append(t)
        if len(count) == 2:
            x[1, 40] = np.nan
        return x, e

    monkeypatch.setattr(PositiveComposition, "step", spoilt)
    model = cq.Model(("x",), 2, H=[[0.3, 0.2], [0.2, 0]], L=[cq.sigmaz()], D1=[[0.5]], D0=[[0.6]], D2=[[0.5]])
    start = cq.gaussian(cq.Grid(x=(-6, 6, 64)), 0.0, 0.7, cq.ket("+"))
    with pytest.raises(NotFinite, match=r"element \(\d, \d\) at x = .*t = .*step \d+; likely term: all coefficients are finite; the fastest is"):
        cq.solve(model, start, [0, 0.5, 1.0], tol=1e-3, method="split", positivity="exact")
    assert len(count) == 2


def test_a_coefficient_that_turns_bad_stops_trajectories():
    for method in ("instrument", "euler-maruyama", "weak-2", "linear", "mean-field"):
        switch = Switch(np.nan)
        model = model_of(switch, "H")
        start = cq.gaussian(cq.Grid(q=(-3, 3, 20), p=(-6, 6, 24)), 0.0, {"q": 0.4, "p": 0.7}, cq.ket("+"))

        def flip(z, rho, switch=switch):
            switch.on = True
            return z.q

        with pytest.raises(CqpdeError, match=r"H\[0\]\[0\].*p = .*t = 0\."):
            cq.unravel(model, start, [0, 0.05, 0.1], trajectories=50, seed=1, method=method, dt=0.01, moments={"flip": flip})


def test_a_state_that_overflows_names_element_cell_time_step_and_term():
    grid = cq.Grid(x=(-4, 4, 16))
    x = np.zeros((4, 16))
    x[2, 5] = np.nan
    with pytest.raises(NotFinite, match=r"element \(0, 1\) at x = -1.25, t = 0.3, step 7"):
        require_finite(x, grid, 0.3, 7)
    require_finite(np.ones((4, 16)), grid, 0.3, 7)
    model = cq.Model(("x",), 2, H=[[300.0, 0], [0, 0]], L=[cq.sigmaz()], D1=[[0.5]], D2=[[0.5]], D0="saturated")
    assert "the fastest is H" in likely_term(model, grid, 0.0, 1.0)
    late = cq.Model(("x",), 2, H=lambda z, t: [[0 * z.x + (np.nan if t > 0.7 else 0.0), 0], [0, 0]])
    assert "H[0][0]" in likely_term(late, grid, 0.0, 1.0)


def test_an_unphysical_model_that_blows_up_is_not_returned():
    """Back-reaction beyond the trade-off (check='off') grows without bound on fine cells: an error, never a non-finite field."""
    model = cq.Model(("x",), 2, L=[cq.sigmaz()], D1=[[30.0]], D2=[[0.01]], D0=[[0.0]], check="off")
    start = cq.gaussian(cq.Grid(x=(-4, 4, 64)), 0.0, 0.4, cq.ket("+"))
    for options in ({"method": "fv"}, {"method": "split"}, {"method": "auto"}):
        try:
            sol = cq.solve(model, start, [0, 1.0, 5.0], tol=1e-2, grid_error=False, **options)
        except CqpdeError:
            continue
        except cq.CqpdeWarning:
            continue
        assert np.isfinite(sol.rho.values).all()


@pytest.mark.parametrize("precision", ["double", "single"])
def test_a_twin_that_is_not_finite_ends_the_run(precision):
    """A pulse at the middle of a step of the twin only, which the error of the run hangs on."""
    grid = cq.Grid(x=(-6, 6, 64), y=(-6, 6, 64))
    pulse = lambda z, t: np.where(abs(t - 0.5) < 0.01, 1e200, 1.0) * cq.sigmax()
    model = cq.Model(("x", "y"), 2, L=cq.sigmaz(), D2=[[0.05, 0], [0, 0.05]], D0="saturated", D1=[[0.1], [0]], D1C=[lambda z: 0.3 * z.y, 0.0], H=pulse)
    with pytest.raises(cq.CqpdeError, match="must stay finite") as caught:
        cq.solve(model, cq.gaussian(grid, 0.0, 0.5, cq.ket("+")), [0, 1], dt=0.1, method="split", force=True, precision=precision)
    assert "t = 0." in str(caught.value)


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("component", [0, 2])
def test_what_is_not_finite_after_the_last_sweep_is_seen(precision, component, monkeypatch):
    """Off the diagonal neither the trace nor the smallest eigenvalue tells of it."""
    from cqpde.channels.compose import Composition

    chain = Composition.chain

    def broken(self, x, *arguments, **options):
        x, escaped = chain(self, x, *arguments, **options)
        x[component, 0, 3, 3] = np.nan
        return x, escaped

    monkeypatch.setattr(Composition, "chain", broken)
    grid = cq.Grid(q=(-6, 6, 64), p=(-9, 9, 64))
    with pytest.raises(cq.CqpdeError, match="must stay finite"):
        cq.solve(cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 0.1], dt=0.1, precision=precision)
