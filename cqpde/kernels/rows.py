"""Formulas on rows of numbers side by side, as vector instructions; the transposition of small tiles; rows that are asked for before they are needed.

A compiler that meets a loop over several rows of one array has to prove, at every entry, that they do not overlap; for short rows this takes longer than
the arithmetic. Here all rows of a formula are read before any is written. Products and sums are fused where a formula says so, in whole vectors and in
what is left of a row alike: the same bits for any division of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

Array = np.ndarray

#: Bytes of a vector, and of a line of the cache; processors with narrower vectors take several. A tile that is transposed has as many numbers each way.
VECTOR = 64

#: Numbers that a formula is given beside its rows.
NUMBERS = 8

INT = ir.IntType(64)

#: A formula: of the rows, of :data:`NUMBERS` numbers, and of as many rows (or numbers) of a table as there are rows.
Formula = Callable[[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]], Sequence[Any]]


@dataclass(frozen=True)
class Value:
    """A number or a vector of them while code is generated: formulas are written as for numbers."""

    builder: Any
    value: Any

    def __add__(self, other: Value) -> Value:
        return Value(self.builder, self.builder.fadd(self.value, other.value))

    def __sub__(self, other: Value) -> Value:
        return Value(self.builder, self.builder.fsub(self.value, other.value))

    def __mul__(self, other: Value | float) -> Value:
        return Value(self.builder, self.builder.fmul(self.value, self.like(other).value))

    def like(self, other: Value | float) -> Value:
        """A plain number as a constant of this shape."""
        if isinstance(other, Value):
            return other
        kind = self.value.type
        return Value(self.builder, ir.Constant(kind, [other] * kind.count if isinstance(kind, ir.VectorType) else other))

    def __neg__(self) -> Value:
        return Value(self.builder, self.builder.fneg(self.value))


def fused(a: Any, b: Any, c: Any) -> Any:
    """``a b + c``, rounded once (twice, for plain numbers and arrays); ``b`` may be a plain number beside rows."""
    if not isinstance(a, Value):
        return a * b + c
    kind = a.value.type
    scalar, count = (kind.element, f"v{kind.count}") if isinstance(kind, ir.VectorType) else (kind, "")
    name = f"llvm.fma.{count}{'f64' if isinstance(scalar, ir.DoubleType) else 'f32'}"
    function = cgutils.get_or_insert_function(a.builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return Value(a.builder, a.builder.call(function, [a.value, a.like(b).value, c.value]))


def on_rows(formula: Formula, rows: int, terms: int = 0, add: bool = False) -> Callable[..., None]:
    """A formula as a function for kernels, ``f(source, s0, s_step, target, t0, t_step, count, numbers, n0, table, places, b0, b_step, each)``.

    Row j of the source begins at ``s0 + j s_step``, and the j-th result goes to ``t0 + j t_step`` of the target (which may be the source, at
    the same places). The numbers are ``numbers[n0]``. All arrays are contiguous.

    Parameters
    ----------
    formula : callable
    rows : int
        Rows read; with ``add`` the formula is given those of the target behind them.
    terms : int
        The entries of the table for term k are at ``places[k] + b0 + i b_step``, rows (``each``) or numbers for a whole row: as many as rows for one
        term, half of the rows for each of four.
    """
    entries = [(k, i) for k in range(terms) for i in range(rows if terms == 1 else rows // 2)]

    def plain(
        source: Array, s0: int, s_step: int, target: Array, t0: int, t_step: int, count: int, numbers: Array, n0: int, values: Array, places: Array, b0: int, b_step: int, each: bool
    ) -> None:
        """Without the compiler (NUMBA_DISABLE_JIT)."""
        part = lambda x, first, size: x.reshape(-1)[first : first + size]
        read = [part(source, s0 + j * s_step, count).copy() for j in range(rows)]
        read += [part(target, t0 + j * t_step, count).copy() for j in range(rows)] if add else []
        given = [part(values, places[k] + b0 + i * b_step, count if each else 1) for k, i in entries]
        for j, result in enumerate(formula(tuple(read), tuple(numbers[n0]), tuple(given))):
            part(target, t0 + j * t_step, count)[:] = result

    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return plain

    @intrinsic
    def compiled(
        _: Any, source: Any, s0: Any, s_step: Any, target: Any, t0: Any, t_step: Any, count: Any, numbers: Any, n0: Any, values: Any, places: Any, b0: Any, b_step: Any, each: Any
    ) -> Any:
        _require_contiguous(source, target, numbers, values, places)
        number = types.int64
        signature = types.void(source, number, number, target, number, number, number, numbers, number, values, places, number, number, types.boolean)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = lambda i: context.make_array(signature.args[i])(context, builder, arguments[i]).data
            first = lambda p, begin, step, j: builder.gep(p, [builder.add(begin, builder.mul(_number(j), step))])
            x, y = data(0), data(3)
            kind, count = context.get_data_type(signature.args[0].dtype), arguments[6]
            lanes = VECTOR // (8 if isinstance(kind, ir.DoubleType) else 4)
            reads = [first(x, arguments[1], arguments[2], j) for j in range(rows)]
            writes = [first(y, arguments[4], arguments[5], j) for j in range(rows)]
            begins = [builder.gep(data(9), [builder.load(builder.gep(data(10), [_number(k)]))]) for k in range(terms)]
            given = [first(begins[k], arguments[11], arguments[12], i) for k, i in entries]
            alone = [builder.load(first(data(7), _number(j), arguments[8], NUMBERS)) for j in range(NUMBERS)]

            def at(k: Any, shape: Any, ones: list[Any] | None) -> None:
                load = lambda p: Value(builder, _load(builder, p, k, shape))
                spread = lambda number: Value(builder, number if shape is kind else _spread(builder, number, shape))
                rest = tuple(load(p) for p in given) if ones is None else tuple(spread(v) for v in ones)
                read = tuple(load(p) for p in (reads + writes if add else reads))
                for p, result in zip(writes, formula(read, tuple(spread(v) for v in alone), rest), strict=True):
                    _store(builder, p, k, result.value)

            def along(ones: list[Any] | None) -> None:
                whole = builder.and_(count, _number(-lanes))
                with cgutils.for_range_slice(builder, _number(0), whole, _number(lanes), intp=INT) as (k, _):
                    at(k, ir.VectorType(kind, lanes), ones)
                with cgutils.for_range_slice(builder, whole, count, _number(1), intp=INT) as (k, _):
                    at(k, kind, ones)

            if terms == 0:
                along([])
            else:
                with builder.if_else(arguments[13]) as (rows_of_their_own, one_for_all):
                    with rows_of_their_own:
                        along(None)
                    with one_for_all:
                        along([builder.load(p) for p in given])
            return context.get_dummy_value()

        return signature, generate

    return compiled


def _transposition(into: bool) -> Callable[..., None]:
    """``f(x, begins, b0, place, buffer, first, step)``: a tile of lines, which begin at ``begins[b0:]``, from their cell ``place``, and rows of a buffer."""

    def plain(x: Array, begins: Array, b0: int, place: int, buffer: Array, first: int, step: int) -> None:
        side = VECTOR // x.itemsize
        cells = begins[b0 : b0 + side, None] + place + np.arange(side)
        rows = first + step * np.arange(side)[:, None] + np.arange(side)
        if into:
            buffer[rows] = x[cells].T
        else:
            x[cells] = buffer[rows].T

    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return plain

    @intrinsic
    def compiled(_: Any, x: Any, begins: Any, b0: Any, place: Any, buffer: Any, first: Any, step: Any) -> Any:
        _require_contiguous(x, begins, buffer)
        number = types.int64
        signature = types.void(x, begins, number, number, buffer, number, number)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = lambda i: context.make_array(signature.args[i])(context, builder, arguments[i]).data
            lines, starts, rows = data(0), data(1), data(4)
            kind = context.get_data_type(signature.args[0].dtype)
            side = VECTOR // _size(kind)
            shape = ir.VectorType(kind, side)
            starts = [builder.load(builder.gep(starts, [builder.add(arguments[2], _number(r))])) for r in range(side)]
            lines = [builder.gep(lines, [builder.add(start, arguments[3])]) for start in starts]
            rows = [builder.gep(rows, [builder.add(arguments[5], builder.mul(_number(r), arguments[6]))]) for r in range(side)]
            source, target = (lines, rows) if into else (rows, lines)
            tile = [_load(builder, p, _number(0), shape) for p in source]
            for p, row in zip(target, _transposed(builder, tile), strict=True):
                _store(builder, p, _number(0), row)
            return context.get_dummy_value()

        return signature, generate

    return compiled


def _transposed(builder: Any, tile: list[Any]) -> list[Any]:
    """The columns of as many vectors as each has numbers: neighbours exchange halves, at distances of half of them down to 1."""
    side = len(tile)
    distance = side // 2
    while distance:
        low = [k + side * other - distance * other for k in range(side) for other in [k // distance % 2]]
        high = [k + distance if k // distance % 2 == 0 else k + side for k in range(side)]
        out = list(tile)
        for r in range(side):
            if r // distance % 2 == 0:
                a, b = tile[r], tile[r + distance]
                out[r], out[r + distance] = (builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), side), order)) for order in (low, high))
        tile, distance = out, distance // 2
    return tile


def _ask() -> Callable[..., None]:
    """``f(x, first, count)``: bring ``count`` numbers into cache, to be written, without waiting for them."""

    def plain(x: Array, first: int, count: int) -> None:
        """Without the compiler (NUMBA_DISABLE_JIT)."""

    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return plain

    @intrinsic
    def compiled(_: Any, x: Any, first: Any, count: Any) -> Any:
        _require_contiguous(x)
        signature = types.void(x, types.int64, types.int64)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            side = VECTOR // _size(context.get_data_type(signature.args[0].dtype))
            byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [byte, number, number, number]), "llvm.prefetch.p0i8")
            to_write, near, of_data = (ir.Constant(number, k) for k in (1, 2, 1))
            with cgutils.for_range_slice(builder, _number(0), arguments[2], _number(side), intp=INT) as (k, _):
                place = builder.bitcast(builder.gep(data, [builder.add(arguments[1], k)]), byte)
                builder.call(function, [place, to_write, near, of_data])
            return context.get_dummy_value()

        return signature, generate

    return compiled


def _require_contiguous(*arrays: Any) -> None:
    if any(a.layout != "C" for a in arrays):
        raise TypingError("vector instructions are for contiguous arrays")


def _number(k: int) -> Any:
    return ir.Constant(INT, k)


def _load(builder: Any, pointer: Any, k: Any, shape: Any) -> Any:
    place = builder.bitcast(builder.gep(pointer, [k]), shape.as_pointer())
    return builder.load(place, align=_size(shape))


def _store(builder: Any, pointer: Any, k: Any, value: Any) -> None:
    place = builder.bitcast(builder.gep(pointer, [k]), value.type.as_pointer())
    builder.store(value, place, align=_size(value.type))


def _size(shape: Any) -> int:
    return 8 if isinstance(getattr(shape, "element", shape), ir.DoubleType) else 4


def _spread(builder: Any, number: Any, shape: Any) -> Any:
    """A vector of one number."""
    empty = ir.Constant(shape, ir.Undefined)
    first = builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(ir.IntType(32), shape.count), [0] * shape.count))


#: A few cells of as many lines into rows of a buffer, and back.
tile_in, tile_out = _transposition(True), _transposition(False)

ask_for = _ask()
