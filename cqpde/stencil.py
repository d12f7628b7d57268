"""Collect block-stencil terms and turn them into the flat arrays of the kernels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .coefficients import collapse
from .grid import Grid
from .kernels.spectral import multiply_in_place
from .kernels.stencil import stencil_step

Array = np.ndarray


@dataclass
class StencilBuilder:
    """Accumulates terms ``d_t rho(source + offset) += S rho(source)``, escapes and links.

    Every coefficient is indexed by its source cell and keeps size 1 along axes on which it does not depend.
    """

    grid: Grid
    dim: int
    groups: dict[tuple[int, ...], Array] = field(default_factory=dict)
    scalars: dict[tuple[int, ...], Array] = field(default_factory=dict)
    escapes: list[tuple[Array, Array, Array, int]] = field(default_factory=list)
    links: list[tuple[Array, Array, Array]] = field(default_factory=list)

    def matrix(self, offset: tuple[int, ...], s: Array) -> None:
        """Add superoperators ``s`` (*cells, d^2, d^2); offsets along periodic axes are taken once around at most."""
        offset = tuple(
            (e + a.n // 2) % a.n - a.n // 2 if a.periodic else e for e, a in zip(offset, self.grid.axes, strict=True)
        )
        self.groups[offset] = self.groups[offset] + s if offset in self.groups else s

    def scalar(self, offset: tuple[int, ...], c: Array) -> None:
        """Add scalar coefficients ``c`` (*cells), the same for all components."""
        self.scalars[offset] = self.scalars[offset] + c if offset in self.scalars else c

    def escape(self, offset: tuple[int, ...], w: Array) -> None:
        """Count as escaped what ``w`` (*cells, d^2, d^2) moves from cells whose target lies outside the box."""
        shape = self.grid.shape
        taken = np.zeros(shape, dtype=bool)
        numbers = np.arange(int(np.prod(w.shape[:-2]))).reshape(w.shape[:-2])
        for i, (axis, e) in enumerate(zip(self.grid.axes, offset, strict=True)):
            if e == 0 or axis.periodic:
                continue
            slab = [slice(None)] * len(shape)
            slab[i] = slice(shape[i] - e, None) if e > 0 else slice(0, -e)
            mask = np.zeros(shape, dtype=bool)
            mask[tuple(slab)] = True
            mask &= ~taken
            taken |= mask
            cells = np.flatnonzero(mask)
            index = np.broadcast_to(numbers, shape).reshape(-1)[cells]
            used, index = np.unique(index, return_inverse=True)
            matrices = w.reshape(-1, *w.shape[-2:])[used]
            self.escapes.append(
                (cells, index.astype(np.int64), np.ascontiguousarray(matrices), 2 * i + (1 if e > 0 else 0))
            )

    def link(self, source: Array, target: Array, value: Array) -> None:
        """Add scalar links between cells by flat index."""
        self.links.append((source.reshape(-1), target.reshape(-1), value.reshape(-1)))

    def build(self) -> Stencil:
        """Flatten; coefficients that vanish everywhere are dropped, constant axes are collapsed."""
        n, c = self.grid.ndim, self.dim**2
        for offset, values in self.scalars.items():
            self.matrix(offset, values[..., None, None] * np.eye(c))
        offsets, first, rows, cols, bases, strides, chunks = [], [0], [], [], [], [], []
        position = 0
        for offset in sorted(self.groups):
            s = self.groups[offset]
            used = np.argwhere(np.any(s != 0, axis=tuple(range(n))))
            for row, col in used:
                values = np.ascontiguousarray(collapse(s[..., row, col], n))
                rows.append(row)
                cols.append(col)
                bases.append(position)
                step, stride = 1, [0] * n
                for axis in range(n - 1, -1, -1):
                    if values.shape[axis] > 1:
                        stride[axis] = step
                    step *= values.shape[axis]
                strides.append(stride)
                chunks.append(values.reshape(-1))
                position += values.size
            offsets.append(offset)
            first.append(len(rows))
        links = (
            [np.concatenate(part) for part in zip(*self.links, strict=True)]
            if self.links
            else [np.zeros(0, dtype=np.int64)] * 2 + [np.zeros(0)]
        )
        return Stencil(
            grid=self.grid,
            dim=self.dim,
            offsets=np.array(offsets, dtype=np.int64).reshape(-1, n),
            first=np.array(first, dtype=np.int64),
            row=np.array(rows, dtype=np.int64),
            col=np.array(cols, dtype=np.int64),
            base=np.array(bases, dtype=np.int64),
            strides=np.array(strides, dtype=np.int64).reshape(-1, n),
            coef=np.concatenate(chunks) if chunks else np.zeros(0),
            escapes=self.escapes,
            links=(links[0], links[1], links[2]),
        )


@dataclass(frozen=True)
class Stencil:
    """Flat arrays of a block stencil (see :mod:`cqpde.kernels.stencil`)."""

    grid: Grid
    dim: int
    offsets: Array
    first: Array
    row: Array
    col: Array
    base: Array
    strides: Array
    coef: Array
    escapes: list[tuple[Array, Array, Array, int]]
    links: tuple[Array, Array, Array]

    @property
    def n_terms(self) -> int:
        """Multiply-adds per cell and application."""
        return len(self.row)

    def apply(self, x: Array, batch: int) -> Array:
        """Apply once to a state (d^2, batch * cells); what leaves the box is lost."""
        shape = np.array((batch, *self.grid.shape), dtype=np.int64)
        periodic = np.array([0] + [int(a.periodic) for a in self.grid.axes], dtype=np.int64)
        pad = lambda a: np.concatenate([np.zeros((a.shape[0], 1), dtype=np.int64), a], axis=1)
        y = np.zeros_like(x)
        stencil_step(
            x, y, y, shape, periodic, pad(self.offsets), self.first, self.row, self.col, self.base,
            pad(self.strides.reshape(-1, self.grid.ndim)), self.coef, 1.0, 0.0, 0.0, 0.0,
        )  # fmt: skip
        return y

    def apply_in_place(self, x: Array, batch: int) -> None:
        """The same in place, where nothing moves from cell to cell."""
        assert not np.any(self.offsets)
        strides = np.concatenate([np.zeros((len(self.row), 1), dtype=np.int64), self.strides], axis=1)
        multiply_in_place(x, np.array((batch, *self.grid.shape), dtype=np.int64), self.row, self.col, self.base, strides, self.coef)
