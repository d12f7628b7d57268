"""Kernels of the split route: multiply Fourier coefficients by small matrices, exponentials of small matrices, integer shifts."""

from __future__ import annotations

import numpy as np
from numba import prange

from ..compiling import kernel

Array = np.ndarray

#: Blocks of lines that a parallel sweep hands out.
BLOCKS = 64

#: Below this many complex multiply-adds a sweep is not worth a second thread.
PARALLEL_WORK = 1_000_000

#: Terms of the Taylor series of a matrix of norm 1/2 that reach round-off.
TAYLOR_TERMS = 13


@kernel(nogil=True)
def _multiply_lines(
    line0: int, line1: int,
    x: Array, y: Array, shape: Array, row: Array, col: Array, base: Array, strides: Array, table: Array,
) -> None:  # fmt: skip
    """Do the lines ``line0 <= line < line1`` of :func:`multiply`."""
    n_axes = shape.shape[0]
    n = shape[n_axes - 1]
    for line in range(line0, line1):
        start = line * n
        for r in range(y.shape[0]):
            for k in range(n):
                y[r, start + k] = 0.0
        for e in range(row.shape[0]):
            at, rest = base[e], line
            for axis in range(n_axes - 2, -1, -1):
                at += (rest % shape[axis]) * strides[e, axis]
                rest //= shape[axis]
            # slices with counters from zero: only then does the compiler vectorise
            target, origin = y[row[e], start : start + n], x[col[e], start : start + n]
            if strides[e, n_axes - 1] == 0:
                a = table[at]
                for k in range(n):
                    target[k] += a * origin[k]
            else:
                values = table[at : at + n]
                for k in range(n):
                    target[k] += values[k] * origin[k]


@kernel(parallel=True, nogil=True)
def _multiply_parallel(
    x: Array, y: Array, shape: Array, row: Array, col: Array, base: Array, strides: Array, table: Array
) -> None:
    lines = x.shape[1] // shape[-1]
    for index in prange(BLOCKS):
        b = np.int64(index)  # prange counts unsigned, and unsigned with signed makes float
        _multiply_lines(
            b * lines // BLOCKS, (b + 1) * lines // BLOCKS, x, y, shape, row, col, base, strides, table
        )  # fmt: skip


def multiply(
    x: Array, y: Array, shape: Array, row: Array, col: Array, base: Array, strides: Array, table: Array
) -> None:
    """``y[row] = sum over terms of table * x[col]``, cell by cell, with broadcast tables.

    Parameters
    ----------
    x, y : complex array (components, cells)
        Cells in C order of ``shape``; ``y`` is overwritten and must not alias ``x``.
    shape : int64 array (axes,)
    row, col, base : int64 array (terms,)
        Component written, component read, start of the term's coefficients in ``table``.
    strides : int64 array (terms, axes)
        Strides of the coefficients in the cell; zero along axes on which they do not depend, one along the last or zero.
    """
    if len(row) * x.shape[1] > PARALLEL_WORK:
        _multiply_parallel(x, y, shape, row, col, base, strides, table)
    else:
        _multiply_lines(0, x.shape[1] // shape[-1], x, y, shape, row, col, base, strides, table)


@kernel(parallel=True, nogil=True)
def multiply_in_place(
    x: Array, shape: Array, row: Array, col: Array, base: Array, strides: Array, table: Array
) -> None:
    """``x[row] = sum over terms of table * x[col]`` as :func:`multiply`, of real numbers and in place; components without a term become zero."""
    n_axes = shape.shape[0]
    n = shape[n_axes - 1]
    lines = x.shape[1] // n
    for index in prange(BLOCKS):
        b = np.int64(index)
        y = np.zeros((x.shape[0], n), dtype=x.dtype)
        for line in range(b * lines // BLOCKS, (b + 1) * lines // BLOCKS):
            start = line * n
            y[:] = 0
            for e in range(row.shape[0]):
                at, rest = base[e], line
                for axis in range(n_axes - 2, -1, -1):
                    at += (rest % shape[axis]) * strides[e, axis]
                    rest //= shape[axis]
                target, origin = y[row[e]], x[col[e], start : start + n]
                if strides[e, n_axes - 1] == 0:
                    a = table[at]
                    for k in range(n):
                        target[k] += a * origin[k]
                else:
                    values = table[at : at + n]
                    for k in range(n):
                        target[k] += values[k] * origin[k]
            for r in range(x.shape[0]):
                target, origin = x[r, start : start + n], y[r]
                for k in range(n):
                    target[k] = origin[k]


@kernel(nogil=True)
def _exponential(m: Array, out: Array, power: Array, work: Array) -> None:
    """``out = exp(m)`` by scaling, Taylor series and squaring."""
    n = m.shape[0]
    norm = 0.0
    for i in range(n):
        total = 0.0
        for j in range(n):
            total += abs(m[i, j])
        norm = max(norm, total)
    squarings = 0
    while norm > 0.5 and squarings < 60:
        norm *= 0.5
        squarings += 1
    scale = 0.5**squarings
    for i in range(n):
        for j in range(n):
            out[i, j] = 1.0 if i == j else 0.0
            power[i, j] = out[i, j]
    for term in range(1, TAYLOR_TERMS + 1):
        for i in range(n):
            for j in range(n):
                value = 0.0j
                for k in range(n):
                    value += power[i, k] * m[k, j]
                work[i, j] = value * (scale / term)
        for i in range(n):
            for j in range(n):
                power[i, j] = work[i, j]
                out[i, j] += work[i, j]
    for _ in range(squarings):
        for i in range(n):
            for j in range(n):
                value = 0.0j
                for k in range(n):
                    value += out[i, k] * out[k, j]
                work[i, j] = value
        for i in range(n):
            for j in range(n):
                out[i, j] = work[i, j]


@kernel(parallel=True, nogil=True)
def exponentials(m: Array, out: Array) -> None:
    """``out[i] = exp(m[i])`` for a stack of small complex matrices (count, n, n), to round-off for generators of contractions."""
    count, n = m.shape[0], m.shape[1]
    for index in prange(BLOCKS):
        b = np.int64(index)
        power, work = np.empty((n, n), dtype=np.complex128), np.empty((n, n), dtype=np.complex128)
        for i in range(b * count // BLOCKS, (b + 1) * count // BLOCKS):
            _exponential(m[i], out[i], power, work)


@kernel(parallel=True, nogil=True)
def shift_lines(x: Array, y: Array, n: int, after: int, shift: Array) -> None:
    """Move every line along a periodic axis of ``n`` cells by a whole number of cells: ``y[j + shift] = x[j]``.

    Parameters
    ----------
    x, y : array (components, cells)
    after : int
        Distance of neighbours along the axis.
    shift : int64 array (lines,)
        Lines are numbered before * after.
    """
    before = x.shape[1] // (n * after)
    for index in prange(BLOCKS):
        b = np.int64(index)
        for item in range(b * x.shape[0] * before // BLOCKS, (b + 1) * x.shape[0] * before // BLOCKS):
            c, p = item // before, item % before
            for j in range(n):
                for a in range(after):
                    k = (j - shift[p * after + a]) % n
                    y[c, (p * n + j) * after + a] = x[c, (p * n + k) * after + a]
