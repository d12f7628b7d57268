"""Apply a block stencil: the generator of the finite-volume scheme, on components-first fields.

One kernel serves any number of axes and levels. A *term* adds ``coef[source] * x[col, source]`` to component ``row`` of the
cell at ``source + offset``; coefficients are addressed by strides that are zero along axes on which they do not depend.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from ..compiling import kernel
from .rows import NUMBERS, fused, on_rows

Array = np.ndarray


#: Blocks of work that a parallel sweep hands out.
BLOCKS = 64

#: Cells of neighbouring lines that are done together: a loop over them is longer, and they stay in cache.
TOGETHER = 2048

#: Below this many multiply-adds a sweep is not worth a second thread.
PARALLEL_WORK = 200_000


def _added(x: Any, scale: Any, coefficient: Any) -> Any:
    return (fused(scale[0] * coefficient[0], x[0], x[1]),)


add_row = on_rows(_added, 1, 1, add=True)


@kernel(nogil=True)
def _add_row(
    x: Array, s: int, y: Array, t: int, n: int, shift: int, periodic: int, scale: Array, coef: Array, c0: int, step: int, place: Array
) -> None:
    """``y[t + k] += scale coef[c0 + j step] x[s + j]`` for the cells j = k - shift of a line of n, all in flat arrays."""
    low, high = max(0, shift), min(n, n + shift)
    place[0] = c0 + (low - shift) * step
    add_row(x, s + low - shift, 0, y, t + low, 0, high - low, scale, 0, coef, place, 0, 0, step != 0)
    if periodic and shift != 0:
        first, last, wrap = (0, low, n) if shift > 0 else (high, n, -n)
        for k in range(first, last):
            j = k - shift + wrap
            place[0] = c0 + j * step
            add_row(x, s + j, 0, y, t + k, 0, 1, scale, 0, coef, place, 0, 0, False)


@kernel(nogil=True)
def _stencil_blocks(
    block0: int, block1: int, rows: int,
    x: Array, y: Array, acc: Array, shape: Array, periodic: Array, offsets: Array, first: Array,
    row: Array, col: Array, base: Array, strides: Array, coef: Array, alpha: float, beta: float, gamma: float, weight: float,
) -> None:  # fmt: skip
    """Do the blocks ``block0 <= block < block1`` of :func:`stencil_step`: up to ``rows`` neighbouring lines along the last axis each."""
    axes, size = shape.shape[0], x.shape[1]
    across, n = shape[axes - 2], shape[axes - 1]
    each = (across + rows - 1) // rows
    cell, scale, place = np.zeros(axes, dtype=np.int64), np.zeros((1, NUMBERS)), np.zeros(1, dtype=np.int64)
    scale[0, 0] = alpha
    for block in range(block0, block1):
        plane, i0 = block // each, (block % each) * rows
        i1 = min(i0 + rows, across)
        start, count = (plane * across + i0) * n, (i1 - i0) * n
        for r in range(x.shape[0]):
            here, there = y[r, start : start + count], x[r, start : start + count]
            if gamma == 0.0:
                for k in range(count):
                    here[k] = beta * there[k]
            else:
                for k in range(count):
                    here[k] = beta * there[k] + gamma * here[k]
        for g in range(offsets.shape[0]):
            # the plane that this group reads from, and the lines whose source is one without going round
            rest, stride, source, inside = plane, 1, 0, True
            for axis in range(axes - 3, -1, -1):
                i = rest % shape[axis] - offsets[g, axis]
                rest //= shape[axis]
                if i < 0 or i >= shape[axis]:
                    if periodic[axis]:
                        i %= shape[axis]
                    else:
                        inside = False
                cell[axis] = i
                source += i * stride
                stride *= shape[axis]
            if not inside:
                continue
            back, shift = offsets[g, axes - 2], offsets[g, axes - 1]
            low = min(max(i0, back), i1)
            high = max(min(i1, across + back), low)
            for e in range(first[g], first[g + 1]):
                c0, by, step = base[e], strides[e, axes - 2], strides[e, axes - 1]
                for axis in range(axes - 2):
                    c0 += cell[axis] * strides[e, axis]
                s, t = col[e] * size + source * across * n, row[e] * size + plane * across * n
                together = shift == 0 and by == n * step
                if together and high > low:
                    _add_row(x, s + (low - back) * n, y, t + low * n, (high - low) * n, 0, 0, scale, coef, c0 + (low - back) * by, step, place)
                if together and high - low == i1 - i0:
                    continue
                for i in range(i0, i1):
                    k = i - back
                    if low <= i < high:
                        if together:
                            continue
                    elif periodic[axes - 2]:
                        k %= across
                    else:
                        continue
                    _add_row(x, s + k * n, y, t + i * n, n, shift, periodic[axes - 1], scale, coef, c0 + k * by, step, place)
        if weight != 0.0:
            for r in range(x.shape[0]):
                total, part = acc[r, start : start + count], y[r, start : start + count]
                for k in range(count):
                    total[k] += weight * part[k]


@kernel(nogil=True)
def _stencil_serial(
    rows: int, x: Array, y: Array, acc: Array, shape: Array, periodic: Array, offsets: Array, first: Array,
    row: Array, col: Array, base: Array, strides: Array, coef: Array, alpha: float, beta: float, gamma: float, weight: float,
) -> None:  # fmt: skip
    blocks = x.shape[1] // (shape[-2] * shape[-1]) * ((shape[-2] + rows - 1) // rows)
    _stencil_blocks(0, blocks, rows, x, y, acc, shape, periodic, offsets, first, row, col, base, strides, coef, alpha, beta, gamma, weight)


@kernel(parallel=True, nogil=True)
def _stencil_parallel(
    rows: int, x: Array, y: Array, acc: Array, shape: Array, periodic: Array, offsets: Array, first: Array,
    row: Array, col: Array, base: Array, strides: Array, coef: Array, alpha: float, beta: float, gamma: float, weight: float,
) -> None:  # fmt: skip
    blocks = x.shape[1] // (shape[-2] * shape[-1]) * ((shape[-2] + rows - 1) // rows)
    for index in prange(BLOCKS):
        b = np.int64(index)  # prange counts unsigned, and unsigned with signed makes float
        _stencil_blocks(
            b * blocks // BLOCKS, (b + 1) * blocks // BLOCKS, rows,
            x, y, acc, shape, periodic, offsets, first, row, col, base, strides, coef, alpha, beta, gamma, weight,
        )  # fmt: skip


def stencil_step(
    x: Array, y: Array, acc: Array, shape: Array, periodic: Array, offsets: Array, first: Array,
    row: Array, col: Array, base: Array, strides: Array, coef: Array, alpha: float, beta: float, gamma: float, weight: float,
) -> None:  # fmt: skip
    """``y <- alpha G x + beta x + gamma y`` and ``acc <- acc + weight y``, in one pass over memory.

    Parameters
    ----------
    x, y, acc : array (components, cells)
        Cells in C order of ``shape``; ``y`` and ``acc`` are updated in place and must not alias ``x``.
    shape, periodic : int64 array (axes,), two or more
        Cells per axis; 1 where an axis closes on itself.
    offsets : int64 array (groups, axes)
        Where each group of terms sends what it reads.
    first : int64 array (groups + 1,)
        First term of each group.
    row, col, base : int64 array (terms,)
        Component written, component read, start of the coefficient in ``coef``.
    strides : int64 array (terms, axes)
        Strides of the coefficient in its source cell.
    """
    sweep = _stencil_parallel if len(row) * x.shape[1] > PARALLEL_WORK else _stencil_serial
    rows = max(1, TOGETHER // int(shape[-1]))
    sweep(rows, x, y, acc, shape, periodic, offsets, first, row, col, base, strides, coef, alpha, beta, gamma, weight)


@kernel(nogil=True)
def link_step(
    x: Array, y: Array, acc: Array, source: Array, target: Array, value: Array, alpha: float, weight: float
) -> None:
    """Add scalar links ``alpha value x[:, source]`` to ``y[:, target]`` (and ``weight`` times that to ``acc``)."""
    for c in range(x.shape[0]):
        for k in range(source.shape[0]):
            change = alpha * value[k] * x[c, source[k]]
            y[c, target[k]] += change
            acc[c, target[k]] += weight * change


@kernel(nogil=True)
def _escapes(x: Array, cells: Array, index: Array, matrices: Array, batch: int, out: Array) -> None:
    """Add the escape rate of some cells (see :func:`escape_rate`)."""
    components, size, same = x.shape[0], x.shape[1] // batch, matrices.shape[0] == 1
    for b in range(batch):
        for c in range(components):
            if same:
                total = 0.0
                for k in range(cells.shape[0]):
                    total += x[c, b * size + cells[k]]
                for r in range(components):
                    out[b, r] += matrices[0, r, c] * total
                continue
            for k in range(cells.shape[0]):
                value = x[c, b * size + cells[k]]
                for r in range(components):
                    out[b, r] += matrices[index[k], r, c] * value


@kernel(parallel=True, nogil=True)
def _escapes_parallel(x: Array, cells: Array, index: Array, matrices: Array, batch: int, parts: Array) -> None:
    n = cells.shape[0]
    for i in prange(BLOCKS):
        b = np.int64(i)
        low, high = b * n // BLOCKS, (b + 1) * n // BLOCKS
        _escapes(x, cells[low:high], index[low:high], matrices, batch, parts[b])


def escape_rate(x: Array, cells: Array, index: Array, matrices: Array, batch: int, out: Array) -> None:
    """Add the escape rate ``sum_k W[index k] x[:, cells k]`` of each batch entry to ``out`` (batch, components)."""
    if len(cells) * matrices[0].size < PARALLEL_WORK:
        _escapes(x, cells, index, matrices, batch, out)
        return
    parts = np.zeros((BLOCKS, *out.shape))
    _escapes_parallel(x, cells, index, matrices, batch, parts)
    out += parts.sum(axis=0)


@kernel(parallel=True, nogil=True)
def copy_step(x: Array, y: Array) -> None:
    """``y <- x``: the plain copy against which the other kernels are measured."""
    n = x.shape[1]
    for index in prange(BLOCKS):
        b = np.int64(index)
        for r in range(x.shape[0]):
            for k in range(b * n // BLOCKS, (b + 1) * n // BLOCKS):
                y[r, k] = x[r, k]
