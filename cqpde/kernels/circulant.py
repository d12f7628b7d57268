r"""Circulant matrices applied to the lines of a large field in place: what a transform, a multiplication and a transform back do, in one sweep.

A line of n cells is a polynomial modulo :math:`z^n - 1`, and a circulant matrix multiplies it by another one: residue by residue (residues.py), many lines
side by side, the same bits for any number of lines and threads.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np

from ..compiling import kernel
from . import residues
from .rows import VECTOR, ask_for, tile_in, tile_out

Array = np.ndarray

#: Numbers of a state from which on its lines are swept here, and not transformed.
SWEPT = 1 << 19

#: Parts of a sweep that are handed out, per thread.
PARTS = 8

#: Numbers of a sweep that are worth a thread.
SHARED = 1 << 18

#: Bytes of a unit up to which the next one is asked for while it is done: both stay in cache.
ASKED = 1 << 17

#: For operations without a table.
NOWHERE = np.zeros(1, dtype=np.int64)


def residue_tables(columns: Array, collapsed: bool = True) -> Array:
    """Tables of :func:`apply_circulants` from the first columns (n, count) of the matrices, for the same :func:`plan`."""
    program, roots, scale = residues.plan(len(columns), collapsed)
    out = np.array(columns, dtype=float, order="C")
    _split(out.reshape(-1), out.shape[1], program, roots)
    return out * scale[:, None]


@kernel(nogil=True)
def _split_once(x: Array, s: int, s_step: int, y: Array, t: int, t_step: int, count: int, operation: int, roots: Array, e: int) -> None:
    """Split ``count`` numbers of each row of ``x``, ``s_step`` apart, into rows of ``y``."""
    if operation == residues.SPLIT_REAL:
        residues.split_real(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)
    elif operation == residues.SPLIT_REAL_TWICE:
        residues.split_real_twice(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)
    elif operation in (residues.SPLIT_COMPLEX, residues.ALL_COMPLEX):
        residues.split_complex(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)
    elif operation in (residues.SPLIT_COMPLEX_TWICE, residues.ALL_COMPLEX_TWICE):
        residues.split_complex_twice(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)
    elif operation == residues.SPLIT_REAL_3:
        residues.split_real_3(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)
    elif operation == residues.SPLIT_REAL_5:
        residues.split_real_5(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)
    elif operation == residues.SPLIT_COMPLEX_3:
        residues.split_complex_3(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)
    elif operation == residues.SPLIT_COMPLEX_5:
        residues.split_complex_5(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)


@kernel(nogil=True)
def _join_once(x: Array, s: int, s_step: int, y: Array, t: int, t_step: int, count: int, operation: int, roots: Array, e: int) -> None:
    """The way back of :func:`_split_once`, but for the scale."""
    if operation == residues.JOIN_REAL:
        residues.join_real(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)
    elif operation == residues.JOIN_REAL_TWICE:
        residues.join_real_twice(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)
    elif operation == residues.JOIN_COMPLEX:
        residues.join_complex(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)
    elif operation == residues.JOIN_COMPLEX_TWICE:
        residues.join_complex_twice(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)
    elif operation == residues.JOIN_REAL_3:
        residues.join_real_3(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)
    elif operation == residues.JOIN_REAL_5:
        residues.join_real_5(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)
    elif operation == residues.JOIN_COMPLEX_3:
        residues.join_complex_3(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)
    elif operation == residues.JOIN_COMPLEX_5:
        residues.join_complex_5(x, s, s_step, y, t, t_step, count, roots, e, x, NOWHERE, 0, 0, False)


@kernel(nogil=True)
def _split(x: Array, w: int, program: Array, roots: Array) -> None:
    """Rows of ``w`` lines into residues, in place."""
    for e in range(len(program)):
        at, n = program[e, 1] * w, program[e, 2] * w
        _split_once(x, at, n, x, at, n, n, program[e, 0], roots, e)


@kernel(nogil=True)
def _through(
    x: Array, spare: Array, w: int, members: int, program: Array, roots: Array, table: Array, places: Array, b: int, row: Array, col: Array, first: int, last: int,
    whole: Array, ahead: Array, begins: Array, rows: int, count: int, step: int, contiguous: bool,
) -> None:  # fmt: skip
    """Split rows of ``w`` lines of each member, side by side, multiply and join, in place: the operations ``first`` to ``last`` of a program.

    Meanwhile lines that begin at ``begins`` of the components that begin at ``ahead`` of the ``whole`` are brought into cache: ``rows`` of ``count`` numbers.

    Row i of the matrix by which member ``col[k]`` goes into ``row[k]`` is one number (``b`` = 1) or one per line, at ``places[k] + i b`` of the table.
    """
    each, wide, pair = b > 1, w * members, members == 2 and len(row) == 4
    asked = 0
    for e in range(4 if pair else 0):
        pair = pair and row[e] == e // 2 and col[e] == e % 2
    for e in range(first, last):
        operation, at, m = program[e, 0], program[e, 1] * wide, program[e, 2]
        n, f = m * wide, program[e, 1] * b
        upto = rows * (e + 1 - first) // (last - first)
        for start in ahead:
            for i in range(asked, upto):
                ask_for(whole, start + (begins[0] + i * step if contiguous else begins[i]), count)
        asked = upto
        if operation < residues.JOIN_REAL:
            _split_once(x, at, n, x, at, n, n, operation, roots, e)
        elif operation < residues.ALL_COMPLEX:
            _join_once(x, at, n, x, at, n, n, operation, roots, e)
        elif operation == residues.ALL_COMPLEX:
            residues.all_complex(x, at, w, x, at, w, w, roots, e, table, places, f, b, each)
        elif operation == residues.ALL_COMPLEX_TWICE:
            residues.all_complex_twice(x, at, w, x, at, w, w, roots, e, table, places, f, b, each)
        elif pair and m == 1:
            if operation == residues.LEAF_REAL:
                residues.pair_real(x, at, w, x, at, w, w, roots, e, table, places, f, b, each)
            else:
                residues.pair_complex(x, at, w, x, at, w, w, roots, e, table, places, f, b, each)
        elif members > 1 or m > residues.WRITTEN_OUT[-1]:
            _set_aside(x, spare, at, n, operation)
            for k in range(len(row)):
                _terms(spare, col[k] * w, x, at + row[k] * w, w, wide, operation, m, roots, e, table, places[k:], f, b)
        elif operation == residues.LEAF_REAL:
            if m == 1:
                residues.real_1(x, at, w, x, at, w, w, roots, e, table, places, f, b, each)
            elif m == 3:
                residues.real_3(x, at, w, x, at, w, w, roots, e, table, places, f, b, each)
            else:
                residues.real_5(x, at, w, x, at, w, w, roots, e, table, places, f, b, each)
        elif m == 1:
            residues.complex_1(x, at, w, x, at, w, w, roots, e, table, places, f, b, each)
        elif m == 3:
            residues.complex_3(x, at, w, x, at, w, w, roots, e, table, places, f, b, each)
        else:
            residues.complex_5(x, at, w, x, at, w, w, roots, e, table, places, f, b, each)


@kernel(nogil=True)
def _set_aside(x: Array, spare: Array, at: int, n: int, operation: int) -> None:
    """Move a residue of ``n`` (or of twice as many) numbers away, and leave zero."""
    size = 2 * n if operation == residues.LEAF_COMPLEX else n
    for k in range(size):
        spare[k] = x[at + k]
    for k in range(size):
        x[at + k] = 0


@kernel(nogil=True)
def _terms(
    x: Array, s: int, y: Array, t: int, w: int, wide: int, operation: int, m: int, roots: Array, e: int, table: Array, places: Array, b0: int, b: int
) -> None:
    """Add the table times the residue of degree ``m`` at ``x[s:]`` to that at ``y[t:]``; rows are ``wide`` apart."""
    each, one = b > 1, len(roots) - 1
    for i in range(m):
        for j in range(m):
            wrapped = i < j
            a, c, f, u = s + (i - j + (m if wrapped else 0)) * wide, t + i * wide, b0 + j * b, e if wrapped else one
            if operation == residues.LEAF_COMPLEX:
                residues.term_complex(x, a, m * wide, y, c, m * wide, w, roots, u, table, places, f, m * b, each)
            else:
                residues.term_real(x, a, 0, y, c, 0, w, roots, u, table, places, f, 0, each)


@kernel(nogil=True)
def _turn(x: Array, begins: Array, n: int, step: int, buf: Array, first: int, wide: int, into: bool) -> None:
    """Lines that begin at ``begins`` into rows ``wide`` apart, or back."""
    w = len(begins)
    side = VECTOR // x.itemsize
    low = w - w % side if step == 1 else 0
    high = n - n % side if step == 1 else 0
    for k in range(0, low, side):
        for i in range(0, high, side):
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
    elif program[0, 0] < residues.JOIN_REAL:
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
    elif program[0, 0] < residues.JOIN_REAL:
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
def _begins(outer: Array, lanes: Array, width: int, unit: int) -> Array:
    """Where the lines of a unit begin."""
    chunks = (len(lanes) + width - 1) // width
    chunk = unit % chunks
    return outer[unit // chunks] + lanes[chunk * width : (chunk + 1) * width]


@kernel(nogil=True)
def _units(
    unit0: Any, unit1: Any,
    x: Array, n: int, step: int, outer: Array, block: Array, lanes: Array, contiguous: bool, width: int, members: Array, row: Array, col: Array,
    which: Array, tables: Array, program: Array, roots: Array, threshold: float, weights: Array, left_out: Array, seen: Array,
) -> None:  # fmt: skip
    """Do the units ``unit0 <= unit < unit1`` of :func:`apply_circulants`: up to ``width`` lanes at one place of ``outer`` each."""
    together = 1 if len(row) == 1 else len(members)  # members that are in the buffer at once
    chunks, table, b, done = (len(lanes) + width - 1) // width, tables.reshape(-1), tables.shape[4], len(program)
    side, size, most = VECTOR // x.itemsize, together * n * width, 2 * program[:, 2].max() * together * width
    room = np.empty(size + most + side, dtype=x.dtype)
    start = -room.ctypes.data // x.itemsize % side  # rows begin with a line of the cache: vectors that lie in two of them cost twice
    buf, spare, places = room[start : start + size], room[start + size : start + size + most], np.empty(len(row), dtype=np.int64)
    sums = np.empty(max(n, width))
    on_the_way, asked = 1 if contiguous and program[0, 0] < residues.JOIN_REAL else 0, size * x.itemsize <= ASKED
    following = _begins(outer, lanes, width, unit0)
    for unit in range(unit0, unit1):
        place, chunk, begins = unit // chunks, unit % chunks, following
        following = _begins(outer, lanes, width, min(unit + 1, unit1 - 1))
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
            last = first + together == len(members)
            ahead = x.shape[1] * (members[:together] if last else members[first + together : first + 2 * together])[: together if asked else 0]
            where = following if last else begins
            _through(
                buf, spare, w, together, program, roots, table, places, b, row, col, on_the_way, done - on_the_way,
                x.reshape(-1), ahead, where, n if contiguous else len(where), len(where) if contiguous else n, step, contiguous,
            )  # fmt: skip
            for m in range(together):
                _leave(x[members[first + m]], begins, n, step, contiguous, buf, m * w, together * w, program, roots)
                for k in range(w):
                    seen[unit] += x[members[first + m], begins[k]]


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
        From :func:`residue_tables`; the second form where every lane has a matrix of its own.
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
    units, threads = len(outer) * ((len(lanes) + width - 1) // width), numba.get_num_threads()
    rest: tuple[Any, ...] = (
        x, n, step, outer, block, lanes, contiguous, width, members, row, col, which, tables, program, roots, threshold, weights, left_out, seen,
    )  # fmt: skip
    threads = min(threads, n * len(outer) * len(lanes) * len(members) // SHARED)
    if threads <= 1 or units <= 1:
        _units(0, units, *rest)
        return
    count, pool = min(units, PARTS * threads), _pool(numba.get_num_threads())
    for done in [pool.submit(_units, k * units // count, (k + 1) * units // count, *rest) for k in range(count)]:
        done.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that do units (a parallel loop of Numba's would take twice as long to compile); a forked process has to begin its own."""
    return ThreadPoolExecutor(threads)


if hasattr(os, "register_at_fork"):  # not where processes cannot be forked
    os.register_at_fork(after_in_child=_pool.cache_clear)
