"""Diagnostics of a state in one pass over memory, and its matrices from its components."""

from __future__ import annotations

import numpy as np
from numba import prange

from ..compiling import kernel

Array = np.ndarray

#: Blocks of cells that a parallel pass hands out; sums are merged in their order.
BLOCKS = 64

#: Cells that a pass looks at side by side.
LANES = 256

#: Below this many values a pass is not worth a second thread.
PARALLEL_WORK = 2_000_000


@kernel(nogil=True)
def _survey_cells(x: Array, d: int, k0: int, k1: int) -> tuple[float, float, float]:
    """Sum, largest trace and smallest eigenvalue (d <= 2; else of the diagonal) over the cells ``k0 <= k < k1``."""
    # as many running results as lanes: a single one would keep the compiler from vectorising
    total, largest, smallest = np.zeros(LANES), np.full(LANES, -np.inf), np.full(LANES, np.inf)
    trace = np.empty(LANES)
    for k in range(k0, k1, LANES):
        n = min(LANES, k1 - k)
        if d == 2:
            a, b, re, im = x[0, k : k + n], x[1, k : k + n], x[2, k : k + n], x[3, k : k + n]
            for i in range(n):
                # in double precision whatever the state has
                p, q, u, v = np.float64(a[i]), np.float64(b[i]), np.float64(re[i]), np.float64(im[i])
                half = 0.5 * (p - q)
                trace[i] = p + q
                low = 0.5 * trace[i] - np.sqrt(half * half + u * u + v * v)
                smallest[i] = low if low < smallest[i] else smallest[i]
        else:
            trace[:n] = 0.0
            for c in range(d):
                a = x[c, k : k + n]
                for i in range(n):
                    trace[i] += a[i]
                    smallest[i] = a[i] if a[i] < smallest[i] else smallest[i]
        for i in range(n):
            total[i] += trace[i]
            largest[i] = trace[i] if trace[i] > largest[i] else largest[i]
    return total.sum(), largest.max(), smallest.min()


@kernel(parallel=True, nogil=True)
def _survey_parallel(x: Array, d: int, parts: Array) -> None:
    n = x.shape[1]
    for index in prange(BLOCKS):
        b = np.int64(index)
        parts[b, 0], parts[b, 1], parts[b, 2] = _survey_cells(x, d, b * n // BLOCKS, (b + 1) * n // BLOCKS)


def survey(x: Array, d: int) -> tuple[float, float, float]:
    """Sum over cells of the trace, largest trace and smallest eigenvalue of a state (components, cells).

    The smallest eigenvalue is exact for d = 1, 2; for more levels it is the smallest diagonal element, an upper bound.
    """
    if x.size < PARALLEL_WORK:
        return _survey_cells(x, d, 0, x.shape[1])
    parts = np.empty((BLOCKS, 3))
    _survey_parallel(x, d, parts)
    return float(parts[:, 0].sum()), float(parts[:, 1].max()), float(parts[:, 2].min())


@kernel(nogil=True)
def _matrix_cells(x: Array, out: Array, k0: int, k1: int) -> None:
    d = out.shape[0]
    pairs = d * (d - 1) // 2
    for i in range(d):
        for k in range(k0, k1):
            out[i, i, k] = x[i, k]
    p = d
    for i in range(d):
        for j in range(i + 1, d):
            for k in range(k0, k1):
                re, im = x[p, k], x[p + pairs, k]
                out[i, j, k] = complex(re, im)
                out[j, i, k] = complex(re, -im)
            p += 1


@kernel(parallel=True, nogil=True)
def _matrix_parallel(x: Array, out: Array) -> None:
    n = x.shape[1]
    for index in prange(BLOCKS):
        b = np.int64(index)
        _matrix_cells(x, out, b * n // BLOCKS, (b + 1) * n // BLOCKS)


def matrices(x: Array, out: Array) -> None:
    """Write the density matrices (d, d, cells) of a state given by its components (d^2, cells)."""
    if x.size < PARALLEL_WORK:
        _matrix_cells(x, out, 0, x.shape[1])
    else:
        _matrix_parallel(x, out)
