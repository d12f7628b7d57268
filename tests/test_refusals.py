"""Bad input is refused before any work, by a message that names argument, rule, value and remedy."""

from __future__ import annotations

import numpy as np
import pytest
import sympy

import cqpde as cq
from cqpde.errors import CqpdeError, GridError, ModelError, OptionError, StateError

SZ = cq.sigmaz()
GRID = cq.Grid(x=(-5, 5, 32))
X = sympy.Symbol("x", real=True)


def model(**changes):
    return cq.Model(("x",), 2, **({"L": [SZ], "D1": [[0.5]], "D2": [[0.5]], "D0": "saturated"} | changes))


def start(grid=GRID):
    return cq.gaussian(grid, 0.0, 0.5, cq.ket("+"))


def run(m=None, rho0=None, t=(0, 0.1), **options):
    return cq.solve(m or model(), rho0 or start(), list(t), **options)


def array(scale=1.0):
    return start().rho * scale


def tilted():
    rho = start().rho.copy()
    rho[0, 1, 16] += 0.1j
    return rho


def negative():
    rho = start().rho.copy()
    rho[0, 0, 10], rho[1, 1, 10] = -0.2, rho[1, 1, 10] + 0.2
    return rho


def not_finite():
    rho = start().rho.copy()
    rho[0, 0, 3] = np.nan
    return rho


# what is done, the class of the error, and what its message must say: argument, rule or value, remedy
TABLE = {
    "H not Hermitian": (lambda: run(model(H=[[0, 1], [0, 0]])), ModelError, ["H:", "Hermitian", "defect of 1", "Correct"]),
    "H not Hermitian on one side of the box": (lambda: run(model(H=lambda z: [[0, 1j * (z.x > 0)], [0, 0]])), ModelError, ["H:", "x = "]),
    "D0 not Hermitian": (lambda: run(model(L=[SZ, cq.sigmax()], D1=[[0.5, 0]], D0=[[1, 1j], [1j, 1]])), ModelError, ["D0:", "Hermitian"]),
    "D2 negative": (lambda: run(model(D2=[[-0.5]])), ModelError, ["D2:", "positive semi-definite", "-0.5", "negative"]),
    "D2 negative on some cells": (lambda: run(model(D2=[[0.3 + X / 10]])), ModelError, ["D2:", "cell x = -4.84"]),
    "D2 not symmetric": (lambda: cq.Model(("x", "y"), 1, D2=[[1, 0.2], [0, 1]]).check(cq.Grid(x=(0, 1, 8), y=(0, 1, 8))), ModelError, ["D2:", "symmetric"]),
    "trade-off broken": (lambda: run(model(D0=[[0.1]])), ModelError, ["D0:", "trade-off", "margin", "check='warn'"]),
    "trade-off broken on one cell": (lambda: run(model(D0=[[0.25 - 0.001 * X]])), ModelError, ["D0:", "x = 4.84"]),
    "back-reaction without noise": (lambda: cq.Model(("q", "p"), 2, L=[SZ], D1={"q": 0.5}, D2={"p": 0.5}, D0=[[1]]).check(cq.Grid(q=(0, 1, 8), p=(0, 1, 8))), ModelError, ["D1 (row q)", "needs noise"]),
    "excess negative": (lambda: run(model(excess=[[-0.1]])), ModelError, ["excess", "positive semi-definite"]),
    "D1C complex": (lambda: run(model(D1C=[1j])), ModelError, ["D1C:", "real"]),
    "coefficient not finite": (lambda: run(model(D1C=[lambda z: 1 / (z.x - z.x[16])])), ModelError, ["D1C[0]", "finite", "x = 0.15625"]),
    "constant not finite": (lambda: model(D2=[[np.inf]]), ModelError, ["D2", "finite", "inf"]),
    "wrong shape of H": (lambda: model(H=np.eye(3)), ModelError, ["H:", "shape must be (2, 2)", "(3, 3)"]),
    "wrong shape of D1": (lambda: model(D1=[[0.5, 0.1]]), ModelError, ["D1[0]", "(1,)", "length 2"]),
    "wrong shape from a callable": (lambda: run(model(H=lambda z: [z.x, z.x])), ModelError, ["H:", "(2, 2)"]),
    "callable over the wrong cells": (lambda: run(model(D1C=[lambda z: np.zeros(7)])), ModelError, ["D1C[0]", "broadcast"]),
    "unknown symbol": (lambda: model(D1C=[sympy.Symbol("y")]), ModelError, ["D1C[0]", "'y'", "coordinate"]),
    "unknown coordinate in a callable": (lambda: run(model(D1C=[lambda z: z.xx])), ModelError, ["'xx'", "Did you mean 'x'"]),
    "unknown coordinate key": (lambda: model(D2={"y": 1.0}), ModelError, ["D2", "'y'", "Known: x"]),
    "model on the wrong grid": (lambda: run(rho0=start(cq.Grid(q=(-5, 5, 32)))), ModelError, ["grid", "('x',)", "('q',)"]),
    "bounds descend": (lambda: cq.Grid(x=(1, -1, 8)), GridError, ["Grid(x=...)", "ascending", "(1.0, -1.0)", "Swap"]),
    "too few cells": (lambda: cq.Grid(x=(0, 1, 2)), GridError, ["at least 5", "2", "more cells"]),
    "unknown boundary": (lambda: cq.Grid(x=(0, 1, 8, "reflectng")), GridError, ["'reflectng'", "Did you mean 'reflecting'"]),
    "reserved name": (lambda: cq.Grid(row=(0, 1, 8)), GridError, ["reserved", "row"]),
    "one end periodic": (lambda: cq.Grid(x=(0, 1, 8, ("periodic", "open"))), GridError, ["both ends"]),
    "specular on a noisy axis": (lambda: run(cq.models.linear_diosi(), cq.gaussian(cq.Grid(q=(-5, 5, 16), p=(-7, 7, 16, "specular(q)")), 0, 0.5, cq.ket("+"))), GridError, ["Grid(p=...)", "noise"]),
    "reflecting on a noise-free axis": (lambda: run(cq.models.linear_diosi(), cq.gaussian(cq.Grid(q=(-5, 5, 16, "reflecting"), p=(-7, 7, 16)), 0, 0.5, cq.ket("+"))), GridError, ["Grid(q=...)", "without noise", "specular"]),
    "specular about a skew axis": (lambda: cq.Grid(q=(0, 5, 16, "specular(p)"), p=(-7, 8, 16)), GridError, ["symmetric about 0", "(-7.0, 8.0)"]),
    "correlated noise at a wall": (lambda: run(cq.Model(("x", "y"), 1, D2=[[0.5, 0.2], [0.2, 0.5]]), cq.gaussian(cq.Grid(x=(-5, 5, 16, "reflecting"), y=(-5, 5, 16)), 0, 0.6, [1])), GridError, ["first order at a wall"]),
    "correlated noise too anisotropic": (lambda: run(cq.Model(("x", "y"), 1, D2=[[0.5, 0.4999], [0.4999, 0.5]]), cq.gaussian(cq.Grid(x=(-5, 5, 37), y=(-5, 5, 20)), 0, 0.6, [1]), method="fv"), GridError, ["offsets", "cells"]),
    "correlated noise singular": (lambda: run(cq.Model(("x", "y"), 1, D2=[[0.5, 0.5], [0.5, 0.5]]), cq.gaussian(cq.Grid(x=(-5, 5, 16), y=(-5, 5, 16)), 0, 0.6, [1]), method="fv"), GridError, ["positive definite"]),
    "state not normalised": (lambda: run(rho0=cq.from_array(GRID, array(1.01))), StateError, ["rho0", "probability 1", "1.01", "normalise"]),
    "state not Hermitian": (lambda: run(rho0=cq.from_array(GRID, tilted())), StateError, ["rho0", "Hermitian"]),
    "state not positive": (lambda: run(rho0=cq.from_array(GRID, negative())), StateError, ["rho0", "positive", "x = -1.7188"]),
    "state not finite": (lambda: run(rho0=cq.from_array(GRID, not_finite())), StateError, ["rho0", "finite"]),
    "state touches the end": (lambda: run(rho0=cq.gaussian(GRID, 4.5, 0.5, cq.ket("+"))), StateError, ["rho0", "open ends of x", "Widen"]),
    "state outside the box": (lambda: cq.gaussian(GRID, 7.0, 0.5, cq.ket("+")), StateError, ["mean['x']", "(-5, 5)", "7"]),
    "state too narrow": (lambda: cq.gaussian(GRID, 0.0, 0.01, cq.ket("+")), StateError, ["std", "0.3 cells", "cqpde.point"]),
    "state of other levels": (lambda: run(rho0=cq.gaussian(GRID, 0.0, 0.5, [1, 0, 0])), StateError, ["2 levels", "3"]),
    "ket not normalised": (lambda: cq.gaussian(GRID, 0.0, 0.5, [1, 1]), StateError, ["norm 1", "1.41421"]),
    "density matrix not positive": (lambda: cq.gaussian(GRID, 0.0, 0.5, [[1.5, 0], [0, -0.5]]), StateError, ["positive", "-0.5"]),
    "unknown ket": (lambda: cq.ket("up"), OptionError, ["'up'", "Known: 0, 1"]),
    "covariance not positive": (lambda: cq.gaussian(GRID, 0.0, cov=[[-1.0]], state=[1, 0]), StateError, ["cov", "positive definite", "-1"]),
    "density negative": (lambda: cq.product(GRID, lambda z: z.x, [1, 0]), StateError, ["density", "non-negative"]),
    "times not ascending": (lambda: run(t=(0, 1, 0.5)), OptionError, ["t:", "ascending", "0.5"]),
    "one time only": (lambda: run(t=(0,)), OptionError, ["t:", "at least two"]),
    "times not finite": (lambda: run(t=(0, np.nan)), OptionError, ["t:", "finite"]),
    "unknown method": (lambda: run(method="fvm"), OptionError, ["'fvm'", "Did you mean 'fv'"]),
    "unknown transport": (lambda: run(transport="upwnd"), OptionError, ["'upwnd'", "Did you mean 'upwind'"]),
    "ignored transport": (lambda: run(transport="linear"), OptionError, ["transport", "no effect"]),
    "tolerance of zero": (lambda: run(tol=0), OptionError, ["tol", "1e-13"]),
    "negative step": (lambda: run(dt_max=-1), OptionError, ["dt_max", "-1"]),
    "frames elsewhere": (lambda: run(frames=[0.05]), OptionError, ["frames", "0.05"]),
    "unknown observable": (lambda: run(save=["densty"]), OptionError, ["'densty'", "Did you mean 'density'"]),
    "array without a grid": (lambda: model(D1C=[np.zeros(32)]), ModelError, ["D1C[0]", "cqpde.sampled"]),
    "sampled on another shape": (lambda: cq.sampled(GRID, np.zeros(31)), ModelError, ["(32,)", "(31,)"]),
    "dim of zero": (lambda: cq.Model(("x",), 0), ModelError, ["dim", "positive integer"]),
    "unknown check": (lambda: model(check="eror"), OptionError, ["'eror'", "Did you mean 'error'"]),
    "healed without pairs": (lambda: cq.healed(("x",), 0, SZ, {"x": 1}), ModelError, ["pairs"]),
    "healed with an unknown symbol": (lambda: cq.healed(("q", "p"), sympy.Symbol("m"), SZ, {"p": 1}), ModelError, ["H_C", "'m'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_refused_with_argument_rule_value_and_remedy(case):
    action, kind, words = TABLE[case]
    with pytest.raises(kind) as caught:
        action()
    message = str(caught.value)
    assert isinstance(caught.value, CqpdeError)
    for word in words:
        assert word in message, message
    assert len(message) < 500


def test_check_warn_and_off_let_an_unphysical_model_pass():
    broken = model(D0=[[0.1]])
    with pytest.warns(cq.CqpdeWarning, match="trade-off"):
        margin = broken.check(GRID, mode="warn")
    assert margin == pytest.approx(2 * (0.1 - 0.25))  # sigma_z has norm sqrt(2) in an orthonormal basis
    assert np.isnan(broken.check(GRID, mode="off"))


def test_checks_are_made_in_a_traceless_basis():
    """The paper's own C.4 with L_q = 0 and D1 = 1/2, and operators with a trace, are physical (errata, item 7)."""
    grid = cq.Grid(q=(-2, 2, 8), p=(-2, 2, 8))
    zero = np.zeros((2, 2))
    margin = cq.Model(("q", "p"), 2, L=[zero, -2 * SZ], D1=0.5 * np.eye(2), D2={"p": 0.5}, D0=np.diag([0, 0.25])).check(
        grid
    )
    assert margin == pytest.approx(0.0, abs=1e-14)
    shifted = cq.Model(
        ("q", "p"),
        2,
        L=[np.eye(2), -2 * SZ + 0.3 * np.eye(2)],
        D1=0.5 * np.eye(2),
        D2={"p": 0.5},
        D0=np.diag([0, 0.25]),
    )
    assert shifted.check(grid) == pytest.approx(0.0, abs=1e-14)


def test_trace_parts_of_lindblad_operators_become_drift_and_hamiltonian():
    """L + t describes the same physics as L with D1C and H shifted: solved both ways."""
    t, d1, d0 = 0.4 - 0.3j, 0.5 + 0.2j, 0.9
    a = np.array([[0.3, 0.5j], [0.1, -0.3]])
    drift = 2 * np.real(np.conj(d1) * t)
    shift = 0.5j * d0 * (np.conj(t) * a - t * a.conj().T)
    one = cq.Model(("x",), 2, H=cq.sigmax(), L=[a + t * np.eye(2)], D1=[[d1]], D2=[[0.5]], D0=[[d0]])
    two = cq.Model(("x",), 2, H=cq.sigmax() + shift, L=[a], D1=[[d1]], D2=[[0.5]], D0=[[d0]], D1C=[drift])
    grid = cq.Grid(x=(-8, 8, 64))
    ends = [
        cq.solve(m, cq.gaussian(grid, 0, 0.6, cq.ket("0")), [0, 0.5], grid_error=False).rho.values[-1]
        for m in (one, two)
    ]
    assert np.abs(ends[0] - ends[1]).max() < 1e-13
