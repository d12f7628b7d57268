"""Load or compile the kernels of a route once per process, so that compiling is a phase of its own and not part of a run's time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from . import diagnostics, remap, selling, spectral, stencil
from .circulant import SWEPT, apply_circulants
from .residues import plan

_done: set[tuple[str, bool, bool, bool]] = set()


def warm(route: str, values: int = 0, dtype: Any = np.float64) -> float:
    """Run every kernel of a route on a field of a few cells; returns the seconds that took, 0 from the second call on.

    Parameters
    ----------
    route : {"fv", "split"}
    values : int
        Numbers in the state: the diagnostics of a large one are parallel, and it is swept by circulant matrices.
    dtype : dtype
        Of these numbers; single precision has the split route in equal steps only.
    """
    single = np.dtype(dtype) == np.float32
    what = (route, values >= diagnostics.PARALLEL_WORK, route == "split" and (single or values > SWEPT), single)
    if what in _done:
        return 0.0
    start = time.perf_counter()
    _diagnostics(dtype)
    if not single:
        _stencil()
    if route == "fv":
        _fv()
    else:
        _split(dtype)
    if what[2]:
        _circulant(dtype)
    if what[1]:
        x, rho = np.ones((4, 5), dtype=dtype), np.zeros((2, 2, 5), dtype=np.result_type(dtype, np.complex64))
        diagnostics._survey_parallel(x, 2, np.empty((diagnostics.BLOCKS, 3)))
        diagnostics._matrix_parallel(x, rho)
    _done.add(what)
    return time.perf_counter() - start


def _ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def _diagnostics(dtype: Any) -> None:
    x = np.ones((4, 5), dtype=dtype)
    diagnostics.survey(x, 2)
    diagnostics.matrices(x, np.zeros((2, 2, 5), dtype=np.result_type(dtype, np.complex64)))


def _stencil() -> None:
    x = np.ones((1, 5))
    none = np.zeros((1, 2), dtype=np.int64)
    for sweep in (stencil._stencil_serial, stencil._stencil_parallel):
        sweep(1, x, x.copy(), x.copy(), _ints(1, 5), _ints(0, 0), none, _ints(0, 1), _ints(0), _ints(0), _ints(0), none, np.ones(1), 1.0, 0.0, 0.0, 0.0)


def _fv() -> None:
    x = np.ones((1, 5))
    stencil.link_step(x, x.copy(), x.copy(), _ints(0), _ints(1), np.ones(1), 1.0, 0.0)
    for escapes, out in ((stencil._escapes, np.zeros((1, 1))), (stencil._escapes_parallel, np.zeros((stencil.BLOCKS, 1, 1)))):
        escapes(x, _ints(0), _ints(0), np.ones((1, 1, 1)), 1, out)
    control, primitive = remap.tables()
    rest = (x, x.copy(), 5, 1, np.arange(6.0)[None], _ints(0), 0, 0, _ints(0), 3, 1, control, primitive, np.zeros((2, 1, 1)))
    remap._remap_lines(0, 1, *rest)
    remap._remap_parallel(*rest)
    for n, decompose in ((2, selling.selling_2d), (3, selling.selling_3d)):
        decompose(np.eye(n)[None], np.zeros((1, n * (n + 1) // 2, n), dtype=np.int64), np.zeros((1, n * (n + 1) // 2)))


def _split(dtype: Any) -> None:
    z = np.ones((1, 5), dtype=np.result_type(dtype, np.complex64))
    none = np.zeros((1, 1), dtype=np.int64)
    rest = (z, z.copy(), _ints(5), _ints(0), _ints(0), _ints(0), none, np.ones(1, dtype=z.dtype))
    spectral._multiply_lines(0, 1, *rest)
    spectral._multiply_parallel(*rest)
    spectral.multiply_in_place(np.ones((1, 5), dtype=dtype), _ints(5), _ints(0), _ints(0), _ints(0), none, np.ones(1, dtype=dtype))
    m = np.zeros((1, 3, 3), dtype=complex)
    spectral.exponentials(m, m.copy())
    x = np.ones((1, 5))
    spectral.shift_lines(x, x.copy(), 5, 1, _ints(0))


def _circulant(dtype: Any) -> None:
    none = _ints(0)
    program, roots, _ = plan(4)
    x, tables = np.ones((1, 4), dtype=dtype), np.zeros((1, 1, 1, 4, 1), dtype=dtype)
    apply_circulants(x, 4, 1, none, none, none, True, 1, none, none, none, none, tables, program, roots.astype(dtype), x.dtype.type(0), np.ones(0), np.zeros(1), np.zeros(1))
