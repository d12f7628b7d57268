"""Sub-flows along one axis as circulant matrices: how large fields are swept (kernels/circulant.py), from the tables of spectral.py."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..kernels.circulant import apply_circulants, generators
from .commuting import connected
from .spectral import Multiplier

Array = np.ndarray

#: A line is multiplied by a matrix where its cells, times the terms per component, are at most so many; transformed where they are more.
MOST_CELLS = 128

#: Multiply-adds of one product: larger ones BLAS would hand to threads of its own.
PRODUCT = 1 << 18

#: Values of the neighbourhood that lines apart in memory share: it stays in cache.
NEIGHBOURHOOD = 1 << 16


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
    """

    multiplier: Multiplier
    shape: tuple[int, ...]
    axis: int
    apart: tuple[int, ...]

    @classmethod
    def of(cls, multiplier: Multiplier, x: Array, axis: int) -> Convolution:
        """For the state ``x`` (components, batch, *cells), and all that lie in memory like it."""
        return cls(multiplier, x.shape[1:], axis, _apart(x))

    def suits(self, x: Array) -> bool:
        """Whether a state lies in memory like the one that this was made for."""
        return self.shape == x.shape[1:] and self.apart == _apart(x)

    @staticmethod
    def fits(multiplier: Multiplier, n: int) -> bool:
        """Whether a matrix product is cheaper than the transforms."""
        return n * len(multiplier.row) <= MOST_CELLS * len(multiplier.members)

    @cached_property
    def _depends(self) -> list[int]:
        return [i for i in range(len(self.shape)) if i != self.axis and np.any(self.multiplier.strides[:, i])]

    @cached_property
    def _free(self) -> list[int]:
        return [i for i in range(len(self.shape)) if i != self.axis and i not in self._depends]

    def _offsets(self, axes: list[int]) -> Array:
        """Places of all cells along ``axes``, at the first cell of the others."""
        return _grid_sum([self.shape[i] for i in axes], [self.apart[i] for i in axes])

    @cached_property
    def _lines(self) -> tuple[Array, bool, int]:
        """First cells of the lines of a pattern, whether they are neighbours, and how many are done at once."""
        n, run = self.shape[self.axis], 1
        for i in reversed(range(len(self.shape))):
            if i not in self._free or self.apart[i] != run:
                break
            run *= self.shape[i]
        size = n if n % 2 else n // 2
        most = max(1, PRODUCT // size**2)
        if run > 1:
            # a divisor of the run, so that no group of lines leaves it
            width = max(w for w in range(1, min(run, most, 256) + 1) if run % w == 0)
            return self._offsets(self._free), True, width
        # lines apart in memory share cache lines with those of other patterns
        return self._offsets(self._free), False, max(8, min(most, NEIGHBOURHOOD // (n * self.shape[-1])))

    @cached_property
    def _sets(self) -> list[tuple[Array, Array, Array, Array, Array]]:
        """Per set of coupled components: members, rows, columns, matrices of the terms, tables."""
        m = self.multiplier
        pattern = np.zeros((len(m.members),) * 2, dtype=bool)
        pattern[m.row, m.col] = True
        out = []
        for part in connected(pattern):
            mine = np.flatnonzero(np.isin(m.row, part))
            keys = [(int(m.base[e]), tuple(m.strides[e].tolist())) for e in mine]
            distinct = list(dict.fromkeys(keys))
            which = np.array([distinct.index(k) for k in keys], dtype=np.int64)
            order = np.argsort(which, kind="stable")
            row, col = (np.searchsorted(part, index[mine][order]).astype(np.int64) for index in (m.row, m.col))
            out.append((np.array(m.members, dtype=np.int64)[part], row, col, which[order], np.array([self._table(*k) for k in distinct])))
        return out

    def _table(self, base: int, strides: tuple[int, ...]) -> Array:
        n = self.shape[self.axis]
        cells = [self.shape[i] for i in self._depends]
        where = base + _grid_sum(cells, [strides[i] for i in self._depends])[:, None] + strides[self.axis] * np.arange(n // 2 + 1)
        return generators(np.fft.irfft(self.multiplier.table[where], n, axis=-1))

    def apply(self, x: Array) -> None:
        """Apply to the state ``x`` (components, batch, *cells), contiguous or a slab of such a one, in place."""
        whole = x if x.flags.c_contiguous else x.base
        assert whole is not None and whole.flags.c_contiguous and whole.shape[0] == x.shape[0]
        first = (x.ctypes.data - whole.ctypes.data) // x.itemsize
        flat, n, step = whole.reshape(whole.shape[0], -1), self.shape[self.axis], self.apart[self.axis]
        lines, contiguous, width = self._lines
        for members, row, col, which, tables in self._sets:
            apply_circulants(flat, n, step, first + self._offsets(self._depends), lines, contiguous, width, members, row, col, which, tables)


def _apart(x: Array) -> tuple[int, ...]:
    return tuple(s // x.itemsize for s in x.strides[1:])


def _grid_sum(counts: list[int], strides: list[int]) -> Array:
    """``sum_i k_i strides_i`` over all k_i < counts_i, in C order."""
    total = np.zeros(1, dtype=np.int64)
    for n, stride in zip(counts, strides, strict=True):
        total = (total[:, None] + stride * np.arange(n, dtype=np.int64)).reshape(-1)
    return total
