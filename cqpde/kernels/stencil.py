"""Apply a block stencil: the generator of the finite-volume scheme, on components-first fields.

One kernel serves any number of axes and levels. A *term* adds ``coef[source] * x[col, source]`` to component ``row`` of the
cell at ``source + offset``; coefficients are addressed by strides that are zero along axes on which they do not depend.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from ..compiling import kernel

Array = np.ndarray


#: Blocks of lines that a parallel sweep hands out.
BLOCKS = 64

#: Below this many multiply-adds a sweep is not worth a second thread.
PARALLEL_WORK = 200_000


@kernel(nogil=True)
def _stencil_lines(
    line0: int, line1: int,
    x: Array, y: Array, acc: Array, shape: Array, periodic: Array, offsets: Array, first: Array,
    row: Array, col: Array, base: Array, strides: Array, coef: Array, alpha: float, beta: float, gamma: float, weight: float,
) -> None:  # fmt: skip
    """Do the lines ``line0 <= line < line1`` of :func:`stencil_step`."""
    n_axes = shape.shape[0]
    n = shape[n_axes - 1]
    n_comp = x.shape[0]
    for line in range(line0, line1):
        start = line * n
        for r in range(n_comp):
            here, there = y[r, start : start + n], x[r, start : start + n]
            for k in range(n):
                here[k] = beta * there[k] + gamma * here[k]
        for g in range(offsets.shape[0]):
            # the line that this group reads from, and where its coefficients start
            rest, stride, source, inside = line, 1, 0, True
            for axis in range(n_axes - 2, -1, -1):
                i = rest % shape[axis] - offsets[g, axis]
                rest //= shape[axis]
                if i < 0 or i >= shape[axis]:
                    if periodic[axis]:
                        i %= shape[axis]
                    else:
                        inside = False
                source += i * stride
                stride *= shape[axis]
            if not inside:
                continue
            shift = offsets[g, n_axes - 1]
            low = max(0, shift)
            high = min(n, n + shift)
            for e in range(first[g], first[g + 1]):
                c0, rest = base[e], source
                for axis in range(n_axes - 2, -1, -1):
                    c0 += (rest % shape[axis]) * strides[e, axis]
                    rest //= shape[axis]
                r, c, cs = row[e], col[e], strides[e, n_axes - 1]
                s0 = source * n
                # slices with counters from zero: only then does the compiler vectorise
                target = y[r, start + low : start + high]
                origin = x[c, s0 + low - shift : s0 + high - shift]
                if cs == 0:
                    a = alpha * coef[c0]
                    for k in range(target.shape[0]):
                        target[k] += a * origin[k]
                else:
                    values = coef[c0 + low - shift : c0 + high - shift]
                    for k in range(target.shape[0]):
                        target[k] += alpha * values[k] * origin[k]
                if periodic[n_axes - 1] and shift != 0:
                    wrap = n if shift > 0 else -n
                    for k in range(0 if shift > 0 else high, low if shift > 0 else n):
                        j = k - shift + wrap
                        y[r, start + k] += alpha * coef[c0 + j * cs] * x[c, s0 + j]
        if weight != 0.0:
            for r in range(n_comp):
                total, part = acc[r, start : start + n], y[r, start : start + n]
                for k in range(n):
                    total[k] += weight * part[k]


@kernel(nogil=True)
def _stencil_serial(
    x: Array, y: Array, acc: Array, shape: Array, periodic: Array, offsets: Array, first: Array,
    row: Array, col: Array, base: Array, strides: Array, coef: Array, alpha: float, beta: float, gamma: float, weight: float,
) -> None:  # fmt: skip
    _stencil_lines(
        0,
        x.shape[1] // shape[-1],
        x,
        y,
        acc,
        shape,
        periodic,
        offsets,
        first,
        row,
        col,
        base,
        strides,
        coef,
        alpha,
        beta,
        gamma,
        weight,
    )


@kernel(parallel=True, nogil=True)
def _stencil_parallel(
    x: Array, y: Array, acc: Array, shape: Array, periodic: Array, offsets: Array, first: Array,
    row: Array, col: Array, base: Array, strides: Array, coef: Array, alpha: float, beta: float, gamma: float, weight: float,
) -> None:  # fmt: skip
    n_lines = x.shape[1] // shape[-1]
    for index in prange(BLOCKS):
        b = np.int64(index)  # prange counts unsigned, and unsigned with signed makes float
        _stencil_lines(
            b * n_lines // BLOCKS,
            (b + 1) * n_lines // BLOCKS,
            x,
            y,
            acc,
            shape,
            periodic,
            offsets,
            first,
            row,
            col,
            base,
            strides,
            coef,
            alpha,
            beta,
            gamma,
            weight,
        )


def stencil_step(
    x: Array, y: Array, acc: Array, shape: Array, periodic: Array, offsets: Array, first: Array,
    row: Array, col: Array, base: Array, strides: Array, coef: Array, alpha: float, beta: float, gamma: float, weight: float,
) -> None:  # fmt: skip
    """``y <- alpha G x + beta x + gamma y`` and ``acc <- acc + weight y``, in one pass over memory.

    Parameters
    ----------
    x, y, acc : array (components, cells)
        Cells in C order of ``shape``; ``y`` and ``acc`` are updated in place and must not alias ``x``.
    shape, periodic : int64 array (axes,)
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
    sweep(x, y, acc, shape, periodic, offsets, first, row, col, base, strides, coef, alpha, beta, gamma, weight)


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
def escape_rate(x: Array, cells: Array, index: Array, matrices: Array, batch: int, out: Array) -> None:
    """Add the escape rate ``sum_k W[index k] x[:, cells k]`` of each batch entry to ``out`` (batch, components)."""
    n_comp = x.shape[0]
    size = x.shape[1] // batch
    for b in range(batch):
        for k in range(cells.shape[0]):
            j = b * size + cells[k]
            w = index[k]
            for r in range(n_comp):
                total = 0.0
                for c in range(n_comp):
                    m = matrices[w, r, c]
                    if m != 0.0:
                        total += m * x[c, j]
                out[b, r] += total


@kernel(parallel=True, nogil=True)
def copy_step(x: Array, y: Array) -> None:
    """``y <- x``: the plain copy against which the other kernels are measured."""
    n = x.shape[1]
    for index in prange(BLOCKS):
        b = np.int64(index)
        for r in range(x.shape[0]):
            for k in range(b * n // BLOCKS, (b + 1) * n // BLOCKS):
                y[r, k] = x[r, k]
