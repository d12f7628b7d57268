"""Sub-flows along one axis as circulant matrices: how large fields are swept (kernels/circulant.py), from the tables of spectral.py."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..components import empty_state, norms
from ..kernels.circulant import apply_circulants, residue_tables
from ..kernels.residues import last_degree, plan
from ..kernels.rows import VECTOR
from .commuting import connected
from .spectral import Multiplier

Array = np.ndarray

#: Lines are split into residues down to a degree of at most this; where that is not possible, they are transformed.
MOST_DEGREE = 63

#: Values of the lines that are done at once: they stay in cache.
TOGETHER = 1 << 14

#: Lines that are done at once, at least where there are as many (of neighbours in memory a few will do), and bytes of a row at most, of lines apart in
#: memory and along it.
FEWEST, FEWEST_NEIGHBOURS, MOST_ACROSS, MOST_ALONG = 32, 8, 2048, 512

#: Tables that are made at once.
MADE = 256


@dataclass
class Convolution:
    """A :class:`~cqpde.channels.spectral.Multiplier` over one axis, as circulant matrices on the lines of a field.

    Attributes
    ----------
    multiplier : Multiplier
    shape : tuple of int
        Batch and cells.
    axis : int
        In ``shape``.
    apart : tuple of int
        Distance in memory of neighbours along each dimension of ``shape``: that of the whole field, where this is a part of it.
    dtype : dtype
        Precision of the state.
    """

    multiplier: Multiplier
    shape: tuple[int, ...]
    axis: int
    apart: tuple[int, ...]
    dtype: Any = np.float64

    @classmethod
    def of(cls, multiplier: Multiplier, x: Array, axis: int) -> Convolution:
        """For the state ``x`` (components, batch, *cells), and all that lie in memory like it."""
        return cls(multiplier, x.shape[1:], axis, _apart(x), x.dtype)

    def suits(self, x: Array) -> bool:
        """Whether a state lies in memory like the one that this was made for."""
        return self.shape == x.shape[1:] and self.apart == _apart(x) and self.dtype == x.dtype

    @staticmethod
    def fits(n: int) -> bool:
        """Whether lines of ``n`` cells are done here."""
        return last_degree(n) <= MOST_DEGREE

    @cached_property
    def _depends(self) -> list[int]:
        return [i for i in range(len(self.shape)) if i != self.axis and np.any(self.multiplier.strides[:, i])]

    @cached_property
    def _lanes(self) -> tuple[list[int], bool]:
        """The axes whose lines are done side by side: all dependent or all not; and whether the lines are neighbours in memory."""
        others = [i for i in range(len(self.shape)) if i != self.axis]
        last = min((i for i in others if self.shape[i] > 1), default=others[-1], key=lambda i: self.apart[i])
        count = lambda axes: int(np.prod([self.shape[i] for i in axes]))
        lanes: list[int] = []
        run, contiguous = self.apart[last], self.apart[last] == 1
        for i in reversed(others):
            if self.shape[i] > 1 and ((i in self._depends) != (last in self._depends) or self.apart[i] != run):
                break
            lanes, run = [i, *lanes], run * self.shape[i]
        if count(lanes) < (FEWEST_NEIGHBOURS if contiguous else FEWEST):
            free = [i for i in others if i not in self._depends]
            more = free if count(free) >= FEWEST else self._depends
            if count(more) > count(lanes):
                return more, False
        return lanes, contiguous

    def _offsets(self, axes: list[int]) -> Array:
        """Places of all cells along ``axes``, at the first cell of the others."""
        return _grid_sum([self.shape[i] for i in axes], [self.apart[i] for i in axes])

    @cached_property
    def _places(self) -> tuple[Array, Array, Array, bool, int]:
        """``outer``, ``block``, ``lanes``, ``contiguous`` and ``width`` of :func:`apply_circulants`."""
        axes, contiguous = self._lanes
        rest = [i for i in range(len(self.shape)) if i != self.axis and i not in axes]
        patterns = [i for i in rest if i in self._depends]
        free = [i for i in rest if i not in self._depends]
        first, lines, lanes = self._offsets(patterns), self._offsets(free), self._offsets(axes)
        most = (MOST_ACROSS if contiguous else MOST_ALONG) // np.dtype(self.dtype).itemsize
        width = min(most, max(FEWEST, TOGETHER // self.shape[self.axis]), len(lanes))
        side = VECTOR // np.dtype(self.dtype).itemsize
        width = side * -(-len(lanes) // (side * -(-len(lanes) // width)))  # as even as can be
        return (first[:, None] + lines).reshape(-1), np.repeat(np.arange(len(first)), len(lines)), lanes, contiguous, width

    @cached_property
    def _sets(self) -> list[tuple[Array, ...]]:
        """Per set of coupled components, or of single ones with the same matrices: members, rows, columns, matrices of the terms, tables."""
        m = self.multiplier
        pattern = np.zeros((len(m.members),) * 2, dtype=bool)
        pattern[m.row, m.col] = True
        out: list[tuple[Array, ...]] = []
        single: dict[Any, int] = {}
        known: dict[Any, Array] = {}
        for part in connected(pattern):
            mine = np.flatnonzero(np.isin(m.row, part))
            mine = mine[np.lexsort((m.col[mine], m.row[mine]))]
            assert len(mine) and (len(mine) == 1) == (len(part) == 1), "a component that couples to none must have one term, others more"
            assert len(set(zip(m.row[mine], m.col[mine], strict=True))) == len(mine), "terms must be of different pairs of components"
            keys = [(int(m.base[e]), tuple(m.strides[e].tolist())) for e in mine]
            distinct = list(dict.fromkeys(keys))
            which = np.array([distinct.index(k) for k in keys], dtype=np.int64)
            row, col = (np.searchsorted(part, index[mine]).astype(np.int64) for index in (m.row, m.col))
            members = np.array(m.members, dtype=np.int64)[part]
            if len(mine) == 1 and distinct[0] in single:
                k = single[distinct[0]]
                out[k] = (np.append(out[k][0], members), *out[k][1:])
                continue
            if len(mine) == 1:
                single[distinct[0]] = len(out)
            key = len(mine) == 1, *distinct
            if key not in known:
                known[key] = self._tables(distinct, len(mine) == 1)
            out.append((members, row, col, which, known[key]))
        return out

    def _tables(self, terms: list[tuple[int, tuple[int, ...]]], alone: bool) -> Array:
        """Residues of terms (``alone``: of a component that couples to none), (terms, blocks, 1, n, 1), or (terms, blocks, chunks, n, width) where they differ from lane to lane."""
        n, axes, width = self.shape[self.axis], self._lanes[0], self._places[-1]
        lanes = [i for i in axes if i in self._depends]
        blocks = [i for i in self._depends if i not in lanes]
        sums = lambda some, strides: _grid_sum([self.shape[i] for i in some], [strides[i] for i in some])
        count, side = len(sums(blocks, self.apart)), len(sums(lanes, self.apart))
        width = width if lanes else 1
        out = empty_state((len(terms), count, -(-side // width), n, width), self.dtype)
        for table, (base, strides) in zip(out, terms, strict=True):
            if not lanes:
                first = base + sums(blocks, strides)
                for k in range(0, count, MADE):
                    table[k : k + MADE, 0, :, 0] = self._residues(first[k : k + MADE], strides, alone).T
                continue
            for block, start in zip(table, base + sums(blocks, strides), strict=True):
                for k, part in enumerate(block):
                    here = start + sums(lanes, strides)[k * width : (k + 1) * width]
                    part[:, : len(here)] = self._residues(here, strides, alone)
                    part[:, len(here) :] = 0.0
        return out

    def _residues(self, begin: Array, strides: tuple[int, ...], alone: bool) -> Array:
        """Residues (n, count) of the matrices whose coefficients begin at ``begin`` in the table, in the precision of the state."""
        n = self.shape[self.axis]
        table = self.multiplier.table[begin + strides[self.axis] * np.arange(n // 2 + 1)[:, None]].astype(complex, copy=False)
        return _rounded(residue_tables(np.fft.irfft(table, n, axis=0), alone), last_degree(n, alone), self.dtype)

    @property
    def nbytes(self) -> int:
        """Memory of the tables (which it makes, if they are not there)."""
        return sum({id(tables): tables.nbytes for *_, tables in self._sets}.values())

    @property
    def members(self) -> Array:
        """The components that are swept."""
        return np.asarray(self.multiplier.members)

    def apply(self, x: Array, threshold: float = 0.0) -> tuple[float, float]:
        """Apply to the state ``x`` (components, batch, *cells), contiguous or a part of such a one by slices, in place.

        Lines that are done at once and have no number of the magnitude ``threshold`` are left as they are. Returns a bound of the sum of the trace
        norms of their cells, and a number that is finite if all cells of the other lines are.
        """
        n, step = self.shape[self.axis], self.apart[self.axis]
        size = 1 + sum((cells - 1) * apart for cells, apart in zip(self.shape, self.apart, strict=True))  # of memory from its first to its last cell
        apart = x.strides[0] // x.itemsize if len(x) > 1 else size
        assert self.suits(x) and min(self.apart) > 0 and apart >= size, "a state must lie in memory like the one that the sweep was made for"
        # one row per component, from its first cell here on to that of the next one
        flat = np.lib.stride_tricks.as_strided(x, (len(x), apart), (apart * x.itemsize, x.itemsize))
        outer, block, lanes, contiguous, width = self._places
        weights, content, watch = norms(len(x)), 0.0, 0.0
        for members, row, col, which, tables in self._sets:
            program, roots, _ = plan(n, collapsed=len(row) == 1)
            left_out, seen = np.zeros((2, len(outer) * -(-len(lanes) // width)))
            apply_circulants(
                flat, n, step, outer, block, lanes, contiguous, width, members, row, col, which, tables, program, roots.astype(x.dtype),
                x.dtype.type(threshold), weights[members], left_out, seen,
            )  # fmt: skip
            content, watch = content + float(left_out.sum()), watch + float(seen.sum())
        return content, watch


def _rounded(table: Array, first: int, dtype: Any) -> Array:
    """Residues in another precision; of the ``first`` rows, whose sum is the factor of the sum over a line, the smallest entry takes what rounding left."""
    out = table.astype(dtype)
    smallest = np.argmin(np.abs(table[:first]), axis=0), np.arange(table.shape[1])
    out[smallest] += table[:first].sum(axis=0) - out[:first].sum(axis=0, dtype=float)
    return np.asarray(out)


def _apart(x: Array) -> tuple[int, ...]:
    return tuple(s // x.itemsize for s in x.strides[1:])


def _grid_sum(counts: list[int], strides: list[int]) -> Array:
    """``sum_i k_i strides_i`` over all k_i < counts_i, in C order."""
    total = np.zeros(1, dtype=np.int64)
    for n, stride in zip(counts, strides, strict=True):
        total = (total[:, None] + stride * np.arange(n, dtype=np.int64)).reshape(-1)
    return total
