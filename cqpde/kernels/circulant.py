"""Circulant matrices applied to the lines of a large field in place: what a transform, a multiplication and a transform back do, in one sweep.

On a line of n <= 128 cells a matrix product by BLAS costs no more than two transforms, and the line is read and written once while it is in
cache. For even n the product is done on sums and differences of the two halves of a line: modulo ``z^n - 1 = (z^h - 1)(z^h + 1)`` a circulant matrix
of n falls apart into a circulant and a skew-circulant one of h = n/2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from ..compiling import kernel

Array = np.ndarray

#: Blocks of work that a parallel sweep hands out.
BLOCKS = 128


def generators(columns: Array) -> Array:
    """Tables of :func:`apply_circulants` from the first columns (..., n) of the matrices: (..., parts, 2 size), row i being a window of them."""
    n = columns.shape[-1]
    if n % 2:
        parts = [(columns, 1.0)]
    else:
        low, high = 0.5 * columns[..., : n // 2], 0.5 * columns[..., n // 2 :]
        parts = [(low + high, 1.0), (low - high, -1.0)]
    # entry (i, j) is c[i - j], or sign c[size + i - j] above the diagonal
    return np.ascontiguousarray(np.stack([np.concatenate([c[..., ::-1], sign * c[..., ::-1]], axis=-1) for c, sign in parts], axis=-2))


@kernel(nogil=True)
def _load(x: Array, buf: Array, at: int, step: int, lines: Array, first: int, w: int, contiguous: bool) -> None:
    """Lines ``first ... first + w`` into (parts, size, width): their halves' sums and differences, or the lines themselves."""
    parts, size = buf.shape[0], buf.shape[1]
    for i in range(size):
        here, there = at + i * step, at + (i + size) * step
        if contiguous:
            here += lines[first]
            there += lines[first]
            a, target = x[here : here + w], buf[0, i]
            if parts == 1:
                for k in range(w):
                    target[k] = a[k]
            else:
                b, other = x[there : there + w], buf[1, i]
                for k in range(w):
                    target[k] = a[k] + b[k]
                    other[k] = a[k] - b[k]
        else:
            for k in range(w):
                place = lines[first + k]
                if parts == 1:
                    buf[0, i, k] = x[here + place]
                else:
                    buf[0, i, k] = x[here + place] + x[there + place]
                    buf[1, i, k] = x[here + place] - x[there + place]


@kernel(nogil=True)
def _store(x: Array, buf: Array, at: int, step: int, lines: Array, first: int, w: int, contiguous: bool) -> None:
    """The way back of :func:`_load`."""
    parts, size = buf.shape[0], buf.shape[1]
    for i in range(size):
        here, there = at + i * step, at + (i + size) * step
        if contiguous:
            here += lines[first]
            there += lines[first]
            a, source = x[here : here + w], buf[0, i]
            if parts == 1:
                for k in range(w):
                    a[k] = source[k]
            else:
                b, other = x[there : there + w], buf[1, i]
                for k in range(w):
                    a[k] = source[k] + other[k]
                    b[k] = source[k] - other[k]
        else:
            for k in range(w):
                place = lines[first + k]
                if parts == 1:
                    x[here + place] = buf[0, i, k]
                else:
                    x[here + place] = buf[0, i, k] + buf[1, i, k]
                    x[there + place] = buf[0, i, k] - buf[1, i, k]


@kernel(nogil=True)
def _units(
    unit0: Any, unit1: Any,
    x: Array, n: int, step: int, patterns: Array, lines: Array, contiguous: bool, width: int, members: Array, row: Array, col: Array,
    which: Array, tables: Array,
) -> None:  # fmt: skip
    """Do the units ``unit0 <= unit < unit1`` of :func:`apply_circulants`: ``width`` lines of one pattern each, patterns innermost."""
    parts, size = tables.shape[2], tables.shape[3] // 2
    read, written = np.zeros((len(members), parts, size, width)), np.zeros((len(members), parts, size, width))
    matrix, product = np.zeros((parts, size, size)), np.zeros((size, width))
    for unit in range(unit0, unit1):
        first, pattern = (unit // len(patterns)) * width, unit % len(patterns)
        w = min(width, len(lines) - first)
        for m in range(len(members)):
            _load(x[members[m]], read[m], patterns[pattern], step, lines, first, w, contiguous)
        table = -1
        for e in range(len(row)):
            if which[e] != table:
                table = which[e]
                for part in range(parts):
                    source = tables[table, pattern, part]
                    for i in range(size):
                        matrix[part, i] = source[size - 1 - i : 2 * size - 1 - i]
            fresh = e == 0 or not np.any(row[:e] == row[e])
            for part in range(parts):
                if fresh:
                    np.dot(matrix[part], read[col[e], part], written[row[e], part])
                else:
                    np.dot(matrix[part], read[col[e], part], product)
                    written[row[e], part] += product
        for m in range(len(members)):
            _store(x[members[m]], written[m], patterns[pattern], step, lines, first, w, contiguous)


@kernel(parallel=True, nogil=True)
def apply_circulants(
    x: Array, n: int, step: int, patterns: Array, lines: Array, contiguous: bool, width: int, members: Array, row: Array, col: Array,
    which: Array, tables: Array,
) -> None:  # fmt: skip
    """``x[members[row]] = sum over terms of C x[members[col]]`` on every line, in place.

    Parameters
    ----------
    x : array (components, cells)
    n, step : int
        Cells of a line and the distance of neighbours.
    patterns : int64 array (patterns,)
        First cell of the lines that have the same matrices, relative to ``lines``.
    lines : int64 array (lines,)
        First cells of the lines of one pattern.
    contiguous : bool
        Whether every ``width`` lines are neighbours in memory.
    width : int
        Lines done at once.
    members, row, col : int64 array
        Components touched; component written and read by each term, numbered in ``members``. Every member is written.
    which : int64 array (terms,)
        Matrices of each term; equal ones next to each other.
    tables : array (matrices, patterns, parts, 2 size)
        From :func:`generators`.
    """
    units = len(patterns) * ((len(lines) + width - 1) // width)
    for index in prange(BLOCKS):
        b = np.int64(index)  # prange counts unsigned, and unsigned with signed makes float
        _units(
            b * units // BLOCKS, (b + 1) * units // BLOCKS,
            x, n, step, patterns, lines, contiguous, width, members, row, col, which, tables,
        )  # fmt: skip
