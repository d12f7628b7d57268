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
from .rows import TILE, fused, on_rows, tile_in, tile_out

Array = np.ndarray

#: Numbers of a state from which on its lines are swept here, and not transformed.
SWEPT = 1 << 19

#: Blocks of work that a parallel sweep hands out.
BLOCKS = 128

#: Operations on residues: split a real or a complex one into two, or by two such steps at once into four (three, of a real one); join them again;
#: split a complex one to the end, multiply, and join; multiply one of odd degree.
SPLIT_REAL, SPLIT_REAL_TWICE, SPLIT_COMPLEX, SPLIT_COMPLEX_TWICE = range(4)
JOIN_REAL, JOIN_REAL_TWICE, JOIN_COMPLEX, JOIN_COMPLEX_TWICE = range(4, 8)
ALL_COMPLEX, ALL_COMPLEX_TWICE, LEAF_REAL, LEAF_COMPLEX = range(8, 12)
JOIN = JOIN_REAL - SPLIT_REAL  # from a split to its join

#: Odd degrees that have a formula of their own.
WRITTEN_OUT = (1, 3, 5)


def odd(n: int) -> int:
    """The largest odd divisor."""
    return n // (n & -n)


@cache
def plan(n: int, collapsed: bool = True) -> tuple[Array, Array, Array]:
    """How lines of ``n`` cells are split, multiplied and joined: every residue to the end before the next, so that it stays in cache.

    Parameters
    ----------
    n : int
    collapsed : bool
        Whether the last split, the multiplication and the first join are one operation, where degrees end at one.

    Returns
    -------
    program : int64 array (operations, 3)
        Operation, first row, and rows of each of the two, four or eight equal pieces (of a complex residue real parts first, then imaginary parts), or degree.
    roots : array (operations + 1, 4)
        Real and imaginary part of the root of w, and of its root; of a leaf, modulo ``z^m - w``, of w. Behind the last, one.
    scale : array (n,)
        Per row, one over what splitting and joining multiply by.
    """
    program: list[tuple[int, int, int]] = []
    roots: list[tuple[float, ...]] = []
    scale = np.empty(n)

    def turn(angle: float) -> tuple[float, float]:
        """Of w = exp(i pi angle)."""
        return float(np.cos(np.pi * angle)), float(np.sin(np.pi * angle))

    def add(operation: int, at: int, rows: int, numbers: tuple[float, ...] = ()) -> None:
        program.append((operation, at, rows))
        roots.append((*numbers, *(0.0,) * (4 - len(numbers))))

    def leaf(at: int, m: int, w: tuple[float, float], depth: int, is_complex: int) -> None:
        scale[at : at + (1 + is_complex) * m] = 0.5**depth
        add(LEAF_COMPLEX if is_complex else LEAF_REAL, at, m, w)

    def real(at: int, m: int, depth: int) -> None:
        if m % 2:
            return leaf(at, m, (1.0, 0.0), depth, 0)
        twice = m % 4 == 0
        q = m // 4 if twice else m // 2
        operation = SPLIT_REAL_TWICE if twice else SPLIT_REAL
        add(operation, at, q)
        real(at, q, depth + 1 + twice)
        skew(at + q, q, depth + 1 + twice)
        if twice:
            skew(at + 2 * q, 2 * q, depth + 1)
        return add(operation + JOIN, at, q)

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
        operation, numbers = SPLIT_COMPLEX_TWICE if twice else SPLIT_COMPLEX, turn(angle / 2) + turn(angle / 4)
        begun = len(program)
        add(operation, at, q, numbers)
        parts = (angle / 4, angle / 4 + 1.0, angle / 4 + 0.5, angle / 4 + 1.5) if twice else (angle / 2, angle / 2 + 1.0)
        for k, part in enumerate(parts):
            whole(at + 2 * q * k, q, part, depth + 1 + twice)
        if q > 1 or not collapsed:
            return add(operation + JOIN, at, q, numbers)
        del program[begun:], roots[begun:]
        return add(ALL_COMPLEX_TWICE if twice else ALL_COMPLEX, at, 1, numbers)

    real(0, n, 0)
    roots.append((1.0, 0.0, 0.0, 0.0))
    return np.array(program, dtype=np.int64), np.array(roots), scale


# -- formulas: of rows, of two complex numbers (the roots), and of a table -------------------------------------------------
def _times(wr: Any, wi: Any, re: Any, im: Any) -> tuple[Any, Any]:
    return fused(wr, re, -(wi * im)), fused(wr, im, wi * re)


def _times_conjugate(wr: Any, wi: Any, re: Any, im: Any) -> tuple[Any, Any]:
    return fused(wr, re, wi * im), fused(wr, im, -(wi * re))


def _split_real(x: Any, w: Any, t: Any) -> Any:
    a, b = x
    return a + b, a - b


def _split_real_twice(x: Any, w: Any, t: Any) -> Any:
    a, b, c, d = x
    e0, e1 = a + c, b + d
    return e0 + e1, e0 - e1, a - c, b - d


def _join_real_twice(x: Any, w: Any, t: Any) -> Any:
    a, b, c, d = x
    e0, e1 = a + b, a - b
    return e0 + c, e1 + d, e0 - c, e1 - d


def _split_complex(x: Any, w: Any, t: Any) -> Any:
    a, b, c, d = x
    re, im = _times(w[0], w[1], b, d)
    return a + re, c + im, a - re, c - im


def _join_complex(x: Any, w: Any, t: Any) -> Any:
    a, b, c, d = x
    re, im = _times_conjugate(w[0], w[1], a - c, b - d)
    return a + c, re, b + d, im


def _split_complex_twice(x: Any, w: Any, t: Any) -> Any:
    a, b, c, d, f, g, h, i = x
    re, im = _times(w[0], w[1], c, h)
    p0, q0, m0, n0 = a + re, f + im, a - re, f - im
    re, im = _times(w[0], w[1], d, i)
    re1, im1 = _times(w[2], w[3], b + re, g + im)
    re2, im2 = _times(w[2], w[3], b - re, g - im)  # and times i
    return p0 + re1, q0 + im1, p0 - re1, q0 - im1, m0 - im2, n0 + re2, m0 + im2, n0 - re2


def _join_complex_twice(x: Any, w: Any, t: Any) -> Any:
    a, b, c, d, f, g, h, i = x
    p0, q0, m0, n0 = a + c, b + d, f + h, g + i
    p1, q1 = _times_conjugate(w[2], w[3], a - c, b - d)
    n1, m1 = _times_conjugate(w[2], w[3], f - h, g - i)  # times -i: (m1, -n1)
    re0, im0 = _times_conjugate(w[0], w[1], p0 - m0, q0 - n0)
    re1, im1 = _times_conjugate(w[0], w[1], p1 - m1, q1 + n1)
    return p0 + m0, p1 + m1, re0, re1, q0 + n0, q1 - n1, im0, im1


def _all_complex(x: Any, w: Any, t: Any) -> Any:
    a, b, c, d = _split_complex(x, w, t)
    return _join_complex((*_times(t[0], t[1], a, b), *_times(t[2], t[3], c, d)), w, t)


def _all_complex_twice(x: Any, w: Any, t: Any) -> Any:
    y = _split_complex_twice(x, w, t)
    return _join_complex_twice(sum((_times(t[k], t[k + 1], y[k], y[k + 1]) for k in range(0, 8, 2)), ()), w, t)


def _leaf_real(m: int) -> Any:
    """``y_i = sum_j t_j x_(i - j)``, times w (+1 or -1) where i < j."""

    def formula(x: Any, w: Any, t: Any) -> Any:
        out = []
        for i in range(m):
            total = t[0] * x[i]
            for j in range(1, m):
                total = fused(t[j], x[i - j] if j <= i else w[0] * x[i - j], total)
            out.append(total)
        return out

    return formula


def _leaf_complex(m: int) -> Any:
    """The same of complex numbers; real parts first, then imaginary parts."""

    def formula(x: Any, w: Any, t: Any) -> Any:
        turned = [_times(w[0], w[1], x[k], x[m + k]) for k in range(m)] if m > 1 else []
        out = []
        for i in range(m):
            re, im = _times(t[0], t[m], x[i], x[m + i])
            for j in range(1, m):
                a, b = (x[i - j], x[m + i - j]) if j <= i else turned[i - j]
                re, im = fused(t[j], a, fused(-t[m + j], b, re)), fused(t[j], b, fused(t[m + j], a, im))
            out.append((re, im))
        return [re for re, _ in out] + [im for _, im in out]

    return formula


def _leaf_added(m: int) -> Any:
    """The same, added to what is there."""
    leaf = _leaf_complex(m)
    return lambda x, w, t: [a + b for a, b in zip(leaf(x[: 2 * m], w, t), x[2 * m :], strict=True)]


def _term_real(x: Any, w: Any, t: Any) -> Any:
    """One term of a leaf, added to what is there."""
    return (fused(w[0] * t[0], x[0], x[1]),)


def _term_complex(x: Any, w: Any, t: Any) -> Any:
    u, v = _times(w[0], w[1], t[0], t[1])
    return fused(u, x[0], fused(-v, x[1], x[2])), fused(u, x[1], fused(v, x[0], x[3]))


def _pair_real(x: Any, w: Any, t: Any) -> Any:
    """Two residues of degree one that couple: a matrix of two rows."""
    return fused(t[1], x[1], t[0] * x[0]), fused(t[3], x[1], t[2] * x[0])


def _pair_complex(x: Any, w: Any, t: Any) -> Any:
    (a, b), (c, d) = _times(t[0], t[1], x[0], x[2]), _times(t[4], t[5], x[0], x[2])
    re = fused(t[2], x[1], fused(-t[3], x[3], a)), fused(t[6], x[1], fused(-t[7], x[3], c))
    im = fused(t[2], x[3], fused(t[3], x[1], b)), fused(t[6], x[3], fused(t[7], x[1], d))
    return (*re, *im)


split_real, join_real = on_rows(_split_real, 2), on_rows(_split_real, 2)
split_real_twice, join_real_twice = on_rows(_split_real_twice, 4), on_rows(_join_real_twice, 4)
split_complex, join_complex = on_rows(_split_complex, 4), on_rows(_join_complex, 4)
split_complex_twice, join_complex_twice = on_rows(_split_complex_twice, 8), on_rows(_join_complex_twice, 8)
all_complex_one, all_complex_each = on_rows(_all_complex, 4, "one"), on_rows(_all_complex, 4, "each")
all_complex_twice_one, all_complex_twice_each = on_rows(_all_complex_twice, 8, "one"), on_rows(_all_complex_twice, 8, "each")
real_1_one, real_3_one, real_5_one = (on_rows(_leaf_real(m), m, "one") for m in WRITTEN_OUT)
real_1_each, real_3_each, real_5_each = (on_rows(_leaf_real(m), m, "each") for m in WRITTEN_OUT)
complex_1_one, complex_3_one, complex_5_one = (on_rows(_leaf_complex(m), 2 * m, "one") for m in WRITTEN_OUT)
complex_1_each, complex_3_each, complex_5_each = (on_rows(_leaf_complex(m), 2 * m, "each") for m in WRITTEN_OUT)
pair_real_one, pair_real_each = on_rows(_pair_real, 2, "one", terms=4), on_rows(_pair_real, 2, "each", terms=4)
pair_complex_one, pair_complex_each = on_rows(_pair_complex, 4, "one", terms=4), on_rows(_pair_complex, 4, "each", terms=4)
added_3_one, added_5_one = (on_rows(_leaf_added(m), 2 * m, "one", add=True) for m in WRITTEN_OUT[1:])
added_3_each, added_5_each = (on_rows(_leaf_added(m), 2 * m, "each", add=True) for m in WRITTEN_OUT[1:])
term_real_one, term_real_each = on_rows(_term_real, 1, "one", add=True), on_rows(_term_real, 1, "each", add=True)
term_complex_one, term_complex_each = on_rows(_term_complex, 2, "one", add=True), on_rows(_term_complex, 2, "each", add=True)


#: For operations without a table.
NOWHERE = np.zeros(1, dtype=np.int64)


def residues(columns: Array) -> Array:
    """Tables of :func:`apply_circulants` from the first columns (n, count) of the matrices."""
    program, roots, scale = plan(len(columns))
    out = np.array(columns, dtype=float, order="C")
    _split(out.reshape(-1), out.shape[1], program, roots)
    return out * scale[:, None]


@kernel(nogil=True)
def _split_once(x: Array, s: int, s_step: int, y: Array, t: int, t_step: int, count: int, operation: int, roots: Array, e: int) -> None:
    """Split ``count`` numbers of each row of ``x``, ``s_step`` apart, into rows of ``y``."""
    if operation == SPLIT_REAL:
        split_real(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0)
    elif operation == SPLIT_REAL_TWICE:
        split_real_twice(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0)
    elif operation in (SPLIT_COMPLEX, ALL_COMPLEX):
        split_complex(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0)
    elif operation in (SPLIT_COMPLEX_TWICE, ALL_COMPLEX_TWICE):
        split_complex_twice(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0)


@kernel(nogil=True)
def _join_once(x: Array, s: int, s_step: int, y: Array, t: int, t_step: int, count: int, operation: int, roots: Array, e: int) -> None:
    """The way back of :func:`_split_once`, but for the scale."""
    if operation == JOIN_REAL:
        join_real(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0)
    elif operation == JOIN_REAL_TWICE:
        join_real_twice(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0)
    elif operation == JOIN_COMPLEX:
        join_complex(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0)
    elif operation == JOIN_COMPLEX_TWICE:
        join_complex_twice(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0)


@kernel(nogil=True)
def _split(x: Array, w: int, program: Array, roots: Array) -> None:
    """Rows of ``w`` lines into residues, in place."""
    for e in range(len(program)):
        at, n = program[e, 1] * w, program[e, 2] * w
        _split_once(x, at, n, x, at, n, n, program[e, 0], roots, e)


@kernel(nogil=True)
def _through(x: Array, spare: Array, w: int, program: Array, roots: Array, table: Array, places: Array, b: int, first: int, last: int) -> None:
    """Split rows of ``w`` lines, multiply and join, in place: the operations ``first`` to ``last`` of a program.

    Row k of the table is one number (``b`` = 1) or one per line, at ``places[0] + k b``.
    """
    for e in range(first, last):
        operation, row, m = program[e, 0], program[e, 1], program[e, 2]
        at, n, f = row * w, m * w, row * b
        if operation < JOIN_REAL:
            _split_once(x, at, n, x, at, n, n, operation, roots, e)
        elif operation < ALL_COMPLEX:
            _join_once(x, at, n, x, at, n, n, operation, roots, e)
        elif operation == ALL_COMPLEX:
            if b > 1:
                all_complex_each(x, at, w, x, at, w, w, roots, e, table, places, f, b)
            else:
                all_complex_one(x, at, w, x, at, w, w, roots, e, table, places, f, b)
        elif operation == ALL_COMPLEX_TWICE:
            if b > 1:
                all_complex_twice_each(x, at, w, x, at, w, w, roots, e, table, places, f, b)
            else:
                all_complex_twice_one(x, at, w, x, at, w, w, roots, e, table, places, f, b)
        elif m > WRITTEN_OUT[-1]:
            _set_aside(x, spare, at, n, operation)
            _terms(spare, 0, x, at, w, w, operation, m, roots, e, table, places, f, b)
        elif operation == LEAF_REAL:
            if m == 1 and b > 1:
                real_1_each(x, at, w, x, at, w, w, roots, e, table, places, f, b)
            elif m == 1:
                real_1_one(x, at, w, x, at, w, w, roots, e, table, places, f, b)
            elif m == 3 and b > 1:
                real_3_each(x, at, w, x, at, w, w, roots, e, table, places, f, b)
            elif m == 3:
                real_3_one(x, at, w, x, at, w, w, roots, e, table, places, f, b)
            elif b > 1:
                real_5_each(x, at, w, x, at, w, w, roots, e, table, places, f, b)
            else:
                real_5_one(x, at, w, x, at, w, w, roots, e, table, places, f, b)
        elif m == 1 and b > 1:
            complex_1_each(x, at, w, x, at, w, w, roots, e, table, places, f, b)
        elif m == 1:
            complex_1_one(x, at, w, x, at, w, w, roots, e, table, places, f, b)
        elif m == 3 and b > 1:
            complex_3_each(x, at, w, x, at, w, w, roots, e, table, places, f, b)
        elif m == 3:
            complex_3_one(x, at, w, x, at, w, w, roots, e, table, places, f, b)
        elif b > 1:
            complex_5_each(x, at, w, x, at, w, w, roots, e, table, places, f, b)
        else:
            complex_5_one(x, at, w, x, at, w, w, roots, e, table, places, f, b)


@kernel(nogil=True)
def _through_coupled(
    x: Array, spare: Array, w: int, members: int, program: Array, roots: Array, table: Array, places: Array, b: int, row: Array, col: Array, first: int, last: int
) -> None:
    """The same of several members that couple, side by side in every row: ``places[k]`` is the matrix by which ``col[k]`` goes into ``row[k]``."""
    wide, pair = w * members, members == 2 and len(row) == 4
    for e in range(4 if pair else 0):
        pair = pair and row[e] == e // 2 and col[e] == e % 2
    for e in range(first, last):
        operation, at, m = program[e, 0], program[e, 1] * wide, program[e, 2]
        n, f = m * wide, program[e, 1] * b
        if operation < JOIN_REAL:
            _split_once(x, at, n, x, at, n, n, operation, roots, e)
        elif operation < ALL_COMPLEX:
            _join_once(x, at, n, x, at, n, n, operation, roots, e)
        elif m == 1 and pair:
            if operation == LEAF_REAL and b > 1:
                pair_real_each(x, at, w, x, at, w, w, roots, e, table, places, f, b)
            elif operation == LEAF_REAL:
                pair_real_one(x, at, w, x, at, w, w, roots, e, table, places, f, b)
            elif b > 1:
                pair_complex_each(x, at, w, x, at, w, w, roots, e, table, places, f, b)
            else:
                pair_complex_one(x, at, w, x, at, w, w, roots, e, table, places, f, b)
        else:
            _set_aside(x, spare, at, n, operation)
            for k in range(len(row)):
                _terms(spare, col[k] * w, x, at + row[k] * w, w, wide, operation, m, roots, e, table, places[k:], f, b)


@kernel(nogil=True)
def _set_aside(x: Array, spare: Array, at: int, n: int, operation: int) -> None:
    """Move a residue of ``n`` (or of twice as many) numbers away, and leave zero."""
    size = 2 * n if operation == LEAF_COMPLEX else n
    for k in range(size):
        spare[k] = x[at + k]
    for k in range(size):
        x[at + k] = 0


@kernel(nogil=True)
def _terms(
    x: Array, s: int, y: Array, t: int, w: int, wide: int, operation: int, m: int, roots: Array, e: int, table: Array, places: Array, b0: int, b: int
) -> None:
    """Add the table times the residue of degree ``m`` at ``x[s:]`` to that at ``y[t:]``; rows are ``wide`` apart."""
    if operation == LEAF_COMPLEX and m == 3:
        if b > 1:
            added_3_each(x, s, wide, y, t, wide, w, roots, e, table, places, b0, b)
        else:
            added_3_one(x, s, wide, y, t, wide, w, roots, e, table, places, b0, b)
        return
    if operation == LEAF_COMPLEX and m == 5:
        if b > 1:
            added_5_each(x, s, wide, y, t, wide, w, roots, e, table, places, b0, b)
        else:
            added_5_one(x, s, wide, y, t, wide, w, roots, e, table, places, b0, b)
        return
    one = len(roots) - 1
    for i in range(m):
        for j in range(m):
            wrapped = i < j
            a, c, f, u = s + (i - j + (m if wrapped else 0)) * wide, t + i * wide, b0 + j * b, e if wrapped else one
            if operation == LEAF_COMPLEX and b > 1:
                term_complex_each(x, a, m * wide, y, c, m * wide, w, roots, u, table, places, f, m * b)
            elif operation == LEAF_COMPLEX:
                term_complex_one(x, a, m * wide, y, c, m * wide, w, roots, u, table, places, f, m * b)
            elif b > 1:
                term_real_each(x, a, 0, y, c, 0, w, roots, u, table, places, f, 0)
            else:
                term_real_one(x, a, 0, y, c, 0, w, roots, u, table, places, f, 0)


@kernel(nogil=True)
def _turn(x: Array, begins: Array, n: int, step: int, buf: Array, first: int, wide: int, into: bool) -> None:
    """Lines that begin at ``begins`` into rows ``wide`` apart, or back."""
    w = len(begins)
    low = w - w % TILE if step == 1 else 0
    high = n - n % TILE if step == 1 else 0
    for k in range(0, low, TILE):
        for i in range(0, high, TILE):
            if into:
                tile_in(x, begins, k, i, buf, first + i * wide + k, wide)
            else:
                tile_out(x, begins, k, i, buf, first + i * wide + k, wide)
    for k in range(w):
        for i in range(high if k < low else 0, n):
            if into:
                buf[first + i * wide + k] = x[begins[k] + i * step]
            else:
                x[begins[k] + i * step] = buf[first + i * wide + k]


@kernel(nogil=True)
def _enter(x: Array, begins: Array, n: int, step: int, contiguous: bool, buf: Array, first: int, wide: int, program: Array, roots: Array) -> None:
    """Lines into rows ``wide`` apart, with the first operation of the program where that can be done on the way."""
    w, m = len(begins), program[0, 2]
    if not contiguous:
        _turn(x, begins, n, step, buf, first, wide, True)
    elif program[0, 0] < JOIN_REAL:
        for i in range(m):
            _split_once(x, begins[0] + i * step, m * step, buf, first + i * wide, m * wide, w, program[0, 0], roots, 0)
    else:
        for i in range(n):
            for k in range(w):
                buf[first + i * wide + k] = x[begins[0] + i * step + k]


@kernel(nogil=True)
def _leave(x: Array, begins: Array, n: int, step: int, contiguous: bool, buf: Array, first: int, wide: int, program: Array, roots: Array) -> None:
    """The way back of :func:`_enter`, with the last operation."""
    w, e = len(begins), len(program) - 1
    m = program[e, 2]
    if not contiguous:
        _turn(x, begins, n, step, buf, first, wide, False)
    elif program[0, 0] < JOIN_REAL:
        for i in range(m):
            _join_once(buf, first + i * wide, m * wide, x, begins[0] + i * step, m * step, w, program[e, 0], roots, e)
    else:
        for i in range(n):
            for k in range(w):
                x[begins[0] + i * step + k] = buf[first + i * wide + k]


@kernel(nogil=True)
def _below(x: Array, begins: Array, n: int, step: int, contiguous: bool, most: float) -> bool:
    """Whether all numbers of lines are smaller than ``most`` (a NaN is not)."""
    rows, count, apart = (n, len(begins), step) if contiguous else (len(begins), n, 0)
    for row in range(rows):
        i, over = (row + rows // 2) % rows, 0  # from the middle: where there is something, it is seen soon
        if contiguous or step == 1:
            first = begins[0] + i * apart if contiguous else begins[i]
            part = x[first : first + count]
            for k in range(count):  # a count is an integer, which the compiler sums side by side
                over += 0 if abs(part[k]) < most else 1
        else:
            for k in range(count):
                over += 0 if abs(x[begins[i] + k * step]) < most else 1
        if over:
            return False
    return True


@kernel(nogil=True)
def _content(x: Array, begins: Array, n: int, step: int, contiguous: bool, sums: Array) -> float:
    """Sum of the magnitudes of lines, in double precision, side by side in ``sums``."""
    rows, count, apart = (n, len(begins), step) if contiguous else (len(begins), n, 0)
    sums[:count] = 0.0
    for i in range(rows):
        if contiguous or step == 1:
            first = begins[0] + i * apart if contiguous else begins[i]
            part = x[first : first + count]
            for k in range(count):
                sums[k] += abs(part[k])
        else:
            for k in range(count):
                sums[k] += abs(x[begins[i] + k * step])
    return sums[:count].sum()


@kernel(nogil=True)
def _units(
    unit0: Any, unit1: Any,
    x: Array, n: int, step: int, outer: Array, block: Array, lanes: Array, contiguous: bool, width: int, members: Array, row: Array, col: Array,
    which: Array, tables: Array, program: Array, roots: Array, threshold: float, weights: Array, left_out: Array, seen: Array,
) -> None:  # fmt: skip
    """Do the units ``unit0 <= unit < unit1`` of :func:`apply_circulants`: up to ``width`` lanes at one place of ``outer`` each."""
    together = 1 if len(row) == 1 else len(members)  # members that are in the buffer at once
    chunks, table, b, done = (len(lanes) + width - 1) // width, tables.reshape(-1), tables.shape[4], len(program)
    buf, spare, places = np.empty(together * n * width, dtype=x.dtype), np.empty(2 * program[:, 2].max() * together * width, dtype=x.dtype), np.empty(len(row), dtype=np.int64)
    sums = np.empty(max(n, width))
    on_the_way = 1 if contiguous and program[0, 0] < JOIN_REAL else 0
    for unit in range(unit0, unit1):
        place, chunk = unit // chunks, unit % chunks
        begins = outer[place] + lanes[chunk * width : (chunk + 1) * width]
        w = len(begins)
        for e in range(len(row)):
            places[e] = ((which[e] * tables.shape[1] + block[place]) * tables.shape[2] + chunk % tables.shape[2]) * n * b
        for first in range(0, len(members), together):
            skip = threshold > 0
            for m in range(first, first + together):
                skip = skip and _below(x[members[m]], begins, n, step, contiguous, threshold)
            if skip:
                for m in range(first, first + together):
                    left_out[unit] += weights[m] * _content(x[members[m]], begins, n, step, contiguous, sums)
                continue
            for m in range(together):
                _enter(x[members[first + m]], begins, n, step, contiguous, buf, m * w, together * w, program, roots)
            if len(row) == 1:
                _through(buf, spare, w, program, roots, table, places, b, on_the_way, done - on_the_way)
            else:
                _through_coupled(buf, spare, w, together, program, roots, table, places, b, row, col, on_the_way, done - on_the_way)
            for m in range(together):
                _leave(x[members[first + m]], begins, n, step, contiguous, buf, m * w, together * w, program, roots)
                for k in range(w):
                    seen[unit] += x[members[first + m], begins[k]]


@kernel(parallel=True, nogil=True)
def apply_circulants(
    x: Array, n: int, step: int, outer: Array, block: Array, lanes: Array, contiguous: bool, width: int, members: Array, row: Array, col: Array,
    which: Array, tables: Array, program: Array, roots: Array, threshold: float, weights: Array, left_out: Array, seen: Array,
) -> None:  # fmt: skip
    """``x[members[row]] = sum over terms of C x[members[col]]`` on every line, or ``C x[m]`` of all members m if there is one term; in place.

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
    program, roots : array
        From :func:`plan`, the numbers in the precision of ``x``; collapsed if there is one term.
    threshold : float
        Lines that are done at once and have no number of this magnitude are left as they are (none, if it is zero).
    weights : array (members,)
    left_out : array (units,)
        Raised by the sum of the magnitudes of what each unit left as it is, with the weights of the components.
    seen : array (units,)
        Raised by the first numbers of the lines that were done: not finite, if any of their cells was not.
    """
    units = len(outer) * ((len(lanes) + width - 1) // width)
    for index in prange(BLOCKS):
        b = np.int64(index)  # prange counts unsigned, and unsigned with signed makes float
        _units(
            b * units // BLOCKS, (b + 1) * units // BLOCKS,
            x, n, step, outer, block, lanes, contiguous, width, members, row, col, which, tables, program, roots,
            threshold, weights, left_out, seen,
        )  # fmt: skip
