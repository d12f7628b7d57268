"""Many small runs in one process: memory does not grow."""

from __future__ import annotations

import gc
import os

import numpy as np

import cqpde as cq


def _resident() -> float:
    with open("/proc/self/statm") as handle:
        return float(handle.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_memory_does_not_grow_over_many_small_runs():
    """1500 solves of both routes and ensembles, every one with a model and a grid of its own: less than 2 kB stay per run after a third of them."""
    rng = np.random.default_rng(0)
    marks = []
    for k in range(1500):
        n, sigma = int(rng.integers(30, 40)), 1.0 + 0.2 * rng.random()
        model = cq.Model(("x",), 2, H=0.3 * cq.sigmax(), L=cq.sigmaz(), D1=[[0.5 * sigma]], D2=[[0.5]], D0="saturated")
        rho0 = cq.gaussian(cq.Grid(x=(-8, 8, n)), 0.0, 0.8, cq.ket("+"))
        sol = cq.solve(model, rho0, [0, 0.05], tol=1e-2, method=("split", "fv")[k % 2], grid_error=False)
        if k % 10 == 0:
            cq.unravel(model, rho0, [0, 0.05], trajectories=50, seed=k, dt=0.025)
        assert abs(float(sol.trace[-1] + sol.escaped_probability[-1]) - 1) < 1e-12
        if k in (500, 1499):
            gc.collect()
            marks.append(_resident())
    assert (marks[1] - marks[0]) / 1000 < 2e3, marks
