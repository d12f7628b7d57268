"""Runs that are stopped and resumed, and comparison to the last bit with runs that were not."""

from __future__ import annotations

import numpy as np

import cqpde as cq
from cqpde.checkpoint import Keeper
from cqpde.errors import Interrupted
from cqpde.resuming import resumed


class Stopping(Keeper):
    """A keeper that stops the run after so many steps, those of the second run for the grid error included."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.budget, self.stopped = [10**9], False

    def child(self, name):
        other = super().child(name)
        other.budget = self.budget
        return other

    def offer(self, index, make):
        self.budget[0] -= 1
        self.stopped = self.budget[0] == 0
        super().offer(index, make)

    def _reason(self):
        return "the test" if self.stopped else ""


def stopping(folder, steps, every=1e9):
    keeper = Stopping(folder, every)
    keeper.budget[0] = steps
    return keeper


def stopped_and_resumed(begin, folder, steps, every=1e9, rounds=1, **again):
    """``begin(checkpoint=keeper)`` is stopped after ``steps`` steps and resumed, ``rounds`` times."""
    try:
        return begin(checkpoint=stopping(folder, steps, every)), 0
    except Interrupted as stop:
        assert "can be resumed" in str(stop)
    for k in range(1, rounds + 1):
        try:
            return resumed(stopping(folder, steps if k < rounds else 10**9, every), **again), k
        except Interrupted:
            pass
    raise AssertionError("never finished")


def count_steps(begin, folder):
    """How many steps a run offers."""
    keeper = stopping(folder, 10**9)
    begin(checkpoint=keeper)
    return 10**9 - keeper.budget[0]


def assert_same_bits(one, two, leave_out=()):
    """All variables and attributes but wall-clock times are equal to the last bit."""
    assert set(one.variables) == set(two.variables)
    for name in set(one.variables) - {"wall_seconds", *leave_out}:
        a, b = one[name], two[name]
        assert a.dims == b.dims and a.dtype == b.dtype, name
        assert np.array_equal(a.values, b.values, equal_nan=a.dtype.kind in "fc"), name
        assert repr(a.attrs) == repr(b.attrs), name
    differing = {k for k in {*one.attrs, *two.attrs} if repr(one.attrs.get(k)) != repr(two.attrs.get(k))}
    timed = {k for k in differing if k.startswith("seconds_") or k in ("wall_seconds", "history", "date_created", "id", "largest_peclet")}
    assert differing == timed, differing - timed
    if "largest_peclet" in one.attrs:
        assert one.attrs["largest_peclet"] == two.attrs["largest_peclet"]


def diosi(cells=(48, 64), times=5, end=0.5):
    grid = cq.Grid(q=(-6, 6, cells[0]), p=(-9, 9, cells[1]))
    return cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.5, cq.ket("+")), np.linspace(0, end, times)
