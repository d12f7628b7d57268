r"""Circulant matrices applied to the lines of a large field in place: what a transform, a multiplication and a transform back do, in one sweep.

A line of n cells is a polynomial modulo :math:`z^n - 1`, and a circulant matrix multiplies it by another one. The modulus is split in two again and
again, :math:`z^{2m} - 1 = (z^m - 1)(z^m + 1)`, then over the complex numbers (:math:`z^{2m} + 1 = (z^m - i)(z^m + i)`, where a real line needs one of
the two factors only), :math:`z^{2m} - w = (z^m - \sqrt w)(z^m + \sqrt w)`, until degrees are odd; there the residues are multiplied, for a power of two
number by number, and the way back joins them: the work of a fast Fourier transform of real numbers, without sorting. One root of unity belongs to a
whole block of rows, so many lines side by side are plain vector arithmetic, the same bits for any number of lines and threads.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange

from ..compiling import kernel

Array = np.ndarray

#: Blocks of work that a parallel sweep hands out.
BLOCKS = 128

#: Lines apart in memory that are transposed together: a cache line of doubles.
TRANSPOSED = 8

#: Numbers that are compared with a threshold before the next look.
LOOKED_AT = 2048

#: Kinds of steps: a real or a complex residue into two, or by two such steps at once into four (three, of a real one).
REAL, REAL_TWICE, COMPLEX, COMPLEX_TWICE = range(4)


@cache
def plan(n: int) -> tuple[Array, Array, Array, Array, Array]:
    """How lines of ``n`` cells are split.

    Returns
    -------
    steps : int64 array (steps, 3)
        Kind, first row, and rows of each of the two, four or eight equal pieces (of a complex residue real parts first, then imaginary parts).
    roots : array (steps, 4)
        Real and imaginary part of the root of w, and of its root.
    leaves : int64 array (leaves, 3)
        Whether complex, first row, odd degree m.
    ends : array (leaves, 2)
        The residues are modulo ``z^m - w``: w.
    scale : array (n,)
        Per row, one over what splitting and joining multiply by.
    """
    steps: list[tuple[int, int, int]] = []
    roots: list[tuple[float, ...]] = []
    leaves: list[tuple[int, int, int]] = []
    ends: list[tuple[float, float]] = []
    scale = np.empty(n)

    def turn(angle: float) -> tuple[float, float]:
        """Of w = exp(i pi angle)."""
        return float(np.cos(np.pi * angle)), float(np.sin(np.pi * angle))

    def leaf(at: int, m: int, w: tuple[float, float], depth: int, is_complex: int) -> None:
        leaves.append((is_complex, at, m))
        ends.append(w)
        scale[at : at + (1 + is_complex) * m] = 0.5**depth

    def real(at: int, m: int, depth: int) -> None:
        if m % 2:
            return leaf(at, m, (1.0, 0.0), depth, 0)
        twice = m % 4 == 0
        q = m // 4 if twice else m // 2
        steps.append((REAL_TWICE if twice else REAL, at, q))
        roots.append((0.0,) * 4)
        real(at, q, depth + 1 + twice)
        skew(at + q, q, depth + 1 + twice)
        if twice:
            skew(at + 2 * q, 2 * q, depth + 1)
        return None

    def skew(at: int, m: int, depth: int) -> None:
        """Modulo z^m + 1."""
        if m % 2:
            leaf(at, m, (-1.0, 0.0), depth, 0)
        else:
            whole(at, m // 2, 0.5, depth)

    def whole(at: int, m: int, angle: float, depth: int) -> None:
        """Complex, modulo z^m - exp(i pi angle)."""
        if m % 2:
            return leaf(at, m, turn(angle), depth, 1)
        twice = m % 4 == 0
        q = m // 4 if twice else m // 2
        steps.append((COMPLEX_TWICE if twice else COMPLEX, at, q))
        roots.append(turn(angle / 2) + turn(angle / 4))
        parts = (angle / 4, angle / 4 + 1.0, angle / 4 + 0.5, angle / 4 + 1.5) if twice else (angle / 2, angle / 2 + 1.0)
        for k, part in enumerate(parts):
            whole(at + 2 * q * k, q, part, depth + 1 + twice)
        return None

    real(0, n, 0)
    return (
        np.array(steps, dtype=np.int64).reshape(-1, 3), np.array(roots).reshape(-1, 4), np.array(leaves, dtype=np.int64), np.array(ends), scale,
    )  # fmt: skip


def residues(columns: Array) -> Array:
    """Tables of :func:`apply_circulants` from the first columns (n, count) of the matrices."""
    steps, roots, _, _, scale = plan(len(columns))
    out = np.array(columns, dtype=float, order="C")
    _split(out.reshape(-1), out.shape[1], steps, roots)
    return out * scale[:, None]


@kernel(nogil=True)
def _split(x: Array, w: int, steps: Array, roots: Array) -> None:
    """Rows of ``w`` lines into residues, in place."""
    for e in range(len(steps)):
        kind, at, n = steps[e, 0], steps[e, 1] * w, steps[e, 2] * w
        sr, si, tr, ti = roots[e, 0], roots[e, 1], roots[e, 2], roots[e, 3]
        a, b = x[at : at + n], x[at + n : at + 2 * n]
        if kind == REAL:
            for k in range(n):
                a0, a1 = a[k], b[k]
                a[k], b[k] = a0 + a1, a0 - a1
            continue
        c, d = x[at + 2 * n : at + 3 * n], x[at + 3 * n : at + 4 * n]
        if kind == REAL_TWICE:
            for k in range(n):
                e0, e1, d0, d1 = a[k] + c[k], b[k] + d[k], a[k] - c[k], b[k] - d[k]
                a[k], b[k], c[k], d[k] = e0 + e1, e0 - e1, d0, d1
        elif kind == COMPLEX:
            for k in range(n):
                re, im = sr * b[k] - si * d[k], sr * d[k] + si * b[k]
                a0, c0 = a[k], c[k]
                a[k], b[k], c[k], d[k] = a0 + re, c0 + im, a0 - re, c0 - im
        else:
            f, g = x[at + 4 * n : at + 5 * n], x[at + 5 * n : at + 6 * n]
            h, i = x[at + 6 * n : at + 7 * n], x[at + 7 * n : at + 8 * n]
            for k in range(n):
                re, im = sr * c[k] - si * h[k], sr * h[k] + si * c[k]
                p0, q0, m0, n0 = a[k] + re, f[k] + im, a[k] - re, f[k] - im
                re, im = sr * d[k] - si * i[k], sr * i[k] + si * d[k]
                p1, q1, m1, n1 = b[k] + re, g[k] + im, b[k] - re, g[k] - im
                re, im = tr * p1 - ti * q1, tr * q1 + ti * p1
                a[k], b[k], c[k], d[k] = p0 + re, q0 + im, p0 - re, q0 - im
                re, im = -tr * n1 - ti * m1, tr * m1 - ti * n1
                f[k], g[k], h[k], i[k] = m0 + re, n0 + im, m0 - re, n0 - im


@kernel(nogil=True)
def _join(x: Array, w: int, steps: Array, roots: Array) -> None:
    """The way back of :func:`_split`, but for the scale."""
    for e in range(len(steps) - 1, -1, -1):
        kind, at, n = steps[e, 0], steps[e, 1] * w, steps[e, 2] * w
        sr, si, tr, ti = roots[e, 0], roots[e, 1], roots[e, 2], roots[e, 3]
        a, b = x[at : at + n], x[at + n : at + 2 * n]
        if kind == REAL:
            for k in range(n):
                a0, a1 = a[k], b[k]
                a[k], b[k] = a0 + a1, a0 - a1
            continue
        c, d = x[at + 2 * n : at + 3 * n], x[at + 3 * n : at + 4 * n]
        if kind == REAL_TWICE:
            for k in range(n):
                e0, e1, d0, d1 = a[k] + b[k], a[k] - b[k], c[k], d[k]
                a[k], b[k], c[k], d[k] = e0 + d0, e1 + d1, e0 - d0, e1 - d1
        elif kind == COMPLEX:
            for k in range(n):
                re, im = a[k] - c[k], b[k] - d[k]
                a0, c0 = a[k] + c[k], b[k] + d[k]
                a[k], b[k], c[k], d[k] = a0, sr * re + si * im, c0, sr * im - si * re
        else:
            f, g = x[at + 4 * n : at + 5 * n], x[at + 5 * n : at + 6 * n]
            h, i = x[at + 6 * n : at + 7 * n], x[at + 7 * n : at + 8 * n]
            for k in range(n):
                p0, q0, re, im = a[k] + c[k], b[k] + d[k], a[k] - c[k], b[k] - d[k]
                p1, q1 = tr * re + ti * im, tr * im - ti * re
                m0, n0, re, im = f[k] + h[k], g[k] + i[k], f[k] - h[k], g[k] - i[k]
                m1, n1 = tr * im - ti * re, -tr * re - ti * im
                a[k], f[k], re, im = p0 + m0, q0 + n0, p0 - m0, q0 - n0
                c[k], h[k] = sr * re + si * im, sr * im - si * re
                b[k], g[k], re, im = p1 + m1, q1 + n1, p1 - m1, q1 - n1
                d[k], i[k] = sr * re + si * im, sr * im - si * re


@kernel(nogil=True)
def _multiply(x: Array, y: Array, lines: int, leaves: Array, ends: Array, table: Array, fresh: bool) -> None:
    """``y = table x`` (or ``y += table x``, unless ``fresh``) of residues; ``table`` is (rows, 1 or at least lines). Where all m are 1, y may be x."""
    each, one, nil, w = table.shape[1] > 1, x.dtype.type(1), x.dtype.type(0), np.uint64(lines)
    for e in range(len(leaves)):
        at, m = leaves[e, 1], leaves[e, 2]
        for i in range(m):
            for j in range(m):
                row, keep = at + i - j, nil if fresh and j == 0 else one
                wr, wi = one, nil
                if i < j:
                    row, wr, wi = row + m, ends[e, 0], ends[e, 1]
                a, c, t = np.uint64(row) * w, np.uint64(at + i) * w, np.uint64(at + j)
                # places without a sign, and all read before anything is written: only then does the compiler vectorise
                if leaves[e, 0] == 0:
                    if each:
                        for k in range(w):
                            y[c + k] = keep * y[c + k] + wr * table[t, k] * x[a + k]
                    else:
                        u = wr * table[t, 0]
                        for k in range(w):
                            y[c + k] = keep * y[c + k] + u * x[a + k]
                    continue
                s = np.uint64(m)
                b, d = a + s * w, c + s * w
                if each:
                    for k in range(w):
                        old, other, re, im, p, q = y[c + k], y[d + k], x[a + k], x[b + k], table[t, k], table[t + s, k]
                        u, v = wr * p - wi * q, wr * q + wi * p
                        y[c + k], y[d + k] = keep * old + (u * re - v * im), keep * other + (u * im + v * re)
                else:
                    p, q = table[t, 0], table[t + s, 0]
                    u, v = wr * p - wi * q, wr * q + wi * p
                    for k in range(w):
                        old, other, re, im = y[c + k], y[d + k], x[a + k], x[b + k]
                        y[c + k], y[d + k] = keep * old + (u * re - v * im), keep * other + (u * im + v * re)


@kernel(nogil=True)
def _load(x: Array, buf: Array, n: int, step: int, at: int, lanes: Array, contiguous: bool) -> None:
    """Lines that begin at ``at + lanes`` into rows."""
    w = len(lanes)
    if contiguous:
        for i in range(n):
            source, target = x[at + lanes[0] + i * step : at + lanes[0] + i * step + w], buf[i * w : i * w + w]
            for k in range(w):
                target[k] = source[k]
        return
    for low in range(0, w, TRANSPOSED):
        for i in range(np.uint64(n)):
            for k in range(np.uint64(low), np.uint64(min(low + TRANSPOSED, w))):
                buf[i * np.uint64(w) + k] = x[np.uint64(at + lanes[k]) + i * np.uint64(step)]


@kernel(nogil=True)
def _store(x: Array, buf: Array, n: int, step: int, at: int, lanes: Array, contiguous: bool) -> None:
    """The way back of :func:`_load`."""
    w = len(lanes)
    if contiguous:
        for i in range(n):
            target, source = x[at + lanes[0] + i * step : at + lanes[0] + i * step + w], buf[i * w : i * w + w]
            for k in range(w):
                target[k] = source[k]
        return
    for low in range(0, w, TRANSPOSED):
        for i in range(np.uint64(n)):
            for k in range(np.uint64(low), np.uint64(min(low + TRANSPOSED, w))):
                x[np.uint64(at + lanes[k]) + i * np.uint64(step)] = buf[i * np.uint64(w) + k]


@kernel(nogil=True)
def _below(buf: Array, count: int, most: float) -> bool:
    """Whether all of the first ``count`` numbers are smaller than ``most`` (a NaN is not)."""
    for low in range(0, count, LOOKED_AT):
        part, over = buf[low : min(low + LOOKED_AT, count)], 0
        for k in range(len(part)):  # a count is an integer, which the compiler sums side by side
            over += 0 if abs(part[k]) < most else 1
        if over:
            return False
    return True


@kernel(nogil=True)
def _content(buf: Array, n: int, w: int, total: Array) -> float:
    """Sum of the magnitudes of ``n`` rows of ``w`` numbers, in double precision."""
    total[:w] = 0.0
    for i in range(n):
        row = buf[i * w : i * w + w]
        for k in range(w):
            total[k] += abs(row[k])
    return total[:w].sum()


@kernel(nogil=True)
def _units(
    unit0: Any, unit1: Any,
    x: Array, n: int, step: int, outer: Array, block: Array, lanes: Array, contiguous: bool, width: int, members: Array, row: Array, col: Array,
    which: Array, tables: Array, steps: Array, roots: Array, leaves: Array, ends: Array, threshold: float, weights: Array, left_out: Array,
) -> None:  # fmt: skip
    """Do the units ``unit0 <= unit < unit1`` of :func:`apply_circulants`: up to ``width`` lanes at one place of ``outer`` each."""
    read, written = np.zeros((len(members), n * width), dtype=x.dtype), np.zeros((len(members), n * width), dtype=x.dtype)
    total = np.zeros(width)
    if len(row) == 1 and np.all(leaves[:, 2] == 1):
        written = read
    chunks = (len(lanes) + width - 1) // width
    for unit in range(unit0, unit1):
        place, first = unit // chunks, (unit % chunks) * width
        mine, at = lanes[first : first + width], outer[place]
        w = len(mine)
        skip = threshold > 0
        for m in range(len(members)):
            _load(x[members[m]], read[m], n, step, at, mine, contiguous)
            skip = skip and _below(read[m], n * w, threshold)
        if skip:
            for m in range(len(members)):
                left_out[unit] += weights[m] * _content(read[m], n, w, total)
            continue
        for m in range(len(members)):
            _split(read[m], w, steps, roots)
        for e in range(len(row)):
            fresh = e == 0 or not np.any(row[:e] == row[e])
            table = tables[which[e], block[place], (unit % chunks) % tables.shape[2]]
            _multiply(read[col[e]], written[row[e]], w, leaves, ends, table, fresh)
        for m in range(len(members)):
            _join(written[m], w, steps, roots)
            _store(x[members[m]], written[m], n, step, at, mine, contiguous)


@kernel(parallel=True, nogil=True)
def apply_circulants(
    x: Array, n: int, step: int, outer: Array, block: Array, lanes: Array, contiguous: bool, width: int, members: Array, row: Array, col: Array,
    which: Array, tables: Array, steps: Array, roots: Array, leaves: Array, ends: Array, threshold: float, weights: Array, left_out: Array,
) -> None:  # fmt: skip
    """``x[members[row]] = sum over terms of C x[members[col]]`` on every line, in place, in the precision of ``x``.

    Parameters
    ----------
    x : array (components, cells)
    n, step : int
        Cells of a line and the distance of neighbours.
    outer, lanes : int64 array
        A line begins at the sum of an entry of each.
    block : int64 array (outer,)
        Which matrices the lines of an entry of ``outer`` have.
    contiguous : bool
        Whether ``lanes`` are neighbours in memory.
    width : int
        Lines done at once.
    members, row, col : int64 array
        Components touched; component written and read by each term, numbered in ``members``. Every member is written.
    which : int64 array (terms,)
        Matrix of each term.
    tables : array (matrices, blocks, 1, n, 1) or (matrices, blocks, chunks, n, width)
        From :func:`residues`; the second form where every lane has a matrix of its own.
    steps, roots, leaves, ends : array
        From :func:`plan`, the numbers in the precision of ``x``.
    threshold : float
        Lines that are done at once and have no number of this magnitude are left as they are (none, if it is zero).
    weights : array (members,)
    left_out : array (units,)
        Raised by the sum of the magnitudes of what each unit left as it is, with the weights of the components.
    """
    units = len(outer) * ((len(lanes) + width - 1) // width)
    for index in prange(BLOCKS):
        b = np.int64(index)  # prange counts unsigned, and unsigned with signed makes float
        _units(
            b * units // BLOCKS, (b + 1) * units // BLOCKS,
            x, n, step, outer, block, lanes, contiguous, width, members, row, col, which, tables, steps, roots, leaves, ends,
            threshold, weights, left_out,
        )  # fmt: skip
