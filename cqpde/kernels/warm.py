"""Load or compile the kernels of a route once per process, so that compiling is a phase of its own and not part of a run's time."""

from __future__ import annotations

import time

import numpy as np

from .circulant import apply_circulants
from .diagnostics import matrices, survey
from .remap import remap, tables
from .spectral import exponentials, multiply, shift_lines
from .stencil import escape_rate, link_step, stencil_step

_done: set[str] = set()


def warm(route: str) -> float:
    """Run every kernel of a route on a field of a few cells; returns the seconds that took, 0 from the second call on."""
    if route in _done:
        return 0.0
    start = time.perf_counter()
    _stencil()
    if route == "fv":
        _fv()
    else:
        _split()
    _done.add(route)
    return time.perf_counter() - start


def _ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def _stencil() -> None:
    survey(np.ones((4, 5)), 2)
    matrices(np.ones((4, 5)), np.zeros((2, 2, 5), dtype=complex))
    x = np.ones((1, 5))
    none = np.zeros((1, 1), dtype=np.int64)
    stencil_step(
        x, x.copy(), x.copy(), _ints(5), _ints(0), none, _ints(0, 1), _ints(0), _ints(0), _ints(0), none, np.ones(1), 1.0, 0.0, 0.0, 0.0
    )  # fmt: skip


def _fv() -> None:
    x = np.ones((1, 5))
    link_step(x, x.copy(), x.copy(), _ints(0), _ints(1), np.ones(1), 1.0, 0.0)
    escape_rate(x, _ints(0), _ints(0), np.ones((1, 1, 1)), 1, np.zeros((1, 1)))
    control, primitive = tables()
    remap(
        x, x.copy(), 5, 1, np.arange(6.0)[None], _ints(0), 0, 0, _ints(0), 3, 1, control, primitive, np.zeros((2, 1, 1))
    )  # fmt: skip


def _split() -> None:
    z = np.ones((1, 5), dtype=complex)
    none = np.zeros((1, 1), dtype=np.int64)
    multiply(z, z.copy(), _ints(5), _ints(0), _ints(0), _ints(0), none, np.ones(1, dtype=complex))
    none = _ints(0)
    apply_circulants(np.ones((1, 4)), 4, 1, none, none, True, 1, none, none, none, none, np.zeros((1, 1, 2, 4)))
    m = np.zeros((1, 3, 3), dtype=complex)
    exponentials(m, m.copy())
    x = np.ones((1, 5))
    shift_lines(x, x.copy(), 5, 1, _ints(0))
