r"""A field cut along one axis into one slab per process, and the redistribution to slabs along another axis.

What moves along some axes needs these whole; cut along any other axis it needs no message. So a step exchanges only where the cut changes:
each process sends every other one the block that both cuts have in common (``MPI_Alltoallw`` with sub-array types: nothing is packed by hand),
:math:`(1 - 1/P)` of the state in all. Processes on one machine have one field in shared memory instead, and only wait for each other.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

import numpy as np

from ..communicator import agree, processes_here, together
from ..components import LINE, copy_state, empty_state, trace_norm_bound
from ..errors import OptionError
from ..grid import Grid

Array = np.ndarray

#: Numbers of a slab that are looked at together.
PIECE = 1 << 18

#: Times that a process which waits on a crowded machine lets others go first, before it sleeps.
YIELDS = 200


def longest(grid: Grid, taken: set[int]) -> int:
    """The axis of most cells beside those that are taken."""
    free = [i for i in range(grid.ndim) if i not in taken]
    if not free:
        names = ", ".join(grid.names[i] for i in sorted(taken))
        raise OptionError("comm", "a part that needs all axes whole cannot be cut into slabs", names, "Run it on one process, or try the other method ('fv' or 'split')")
    return max(free, key=lambda i: grid.shape[i])


class Slabs:
    """The cuts of a grid over the processes of a communicator.

    Parameters
    ----------
    comm : mpi4py communicator
    grid : Grid
        The whole grid.
    """

    def __init__(self, comm: Any, grid: Grid) -> None:
        self.comm, self.grid = comm, grid
        self.here = processes_here(comm)
        self.crowded = self.here > len(os.sched_getaffinity(0))
        self.shared = comm.size > 1 and _one_machine(comm)
        self.sent = 0.0  # bytes, by this process
        self._windows: list[Any] = []

    def cells(self, axis: int, rank: int | None = None) -> tuple[int, int]:
        """First cell, and the one after the last, of a process along the axis that is cut."""
        r, n, size = self.comm.rank if rank is None else rank, self.grid.shape[axis], self.comm.size
        return r * n // size, (r + 1) * n // size

    def mine(self, axis: int) -> Grid:
        """This process's part of the grid if ``axis`` is cut."""
        first, end = self.cells(axis)
        return self.grid.slab(axis, first, end - first)

    def require(self, axis: int) -> None:
        """Refuse a cut that leaves a process without cells."""
        if self.grid.shape[axis] < self.comm.size:
            raise OptionError(
                "comm", f"needs at least one cell of {self.grid.names[axis]} per process", f"{self.comm.size} processes for {self.grid.shape[axis]} cells",
                "Use fewer processes or more cells",
            )  # fmt: skip

    def even(self) -> tuple[int, tuple[int, ...]]:
        """The axis that the processes divide most evenly, and where their parts begin."""
        begins = [tuple(self.cells(i, r)[0] for r in range(self.comm.size)) for i in range(self.grid.ndim)]
        axis = max(range(self.grid.ndim), key=lambda i: math.gcd(*begins[i], self.grid.shape[i]) / self.grid.shape[i])
        return axis, begins[axis]

    def field(self, x: Array, axis: int) -> Field:
        """A field from this process's slab along ``axis`` (a collective call)."""
        if not self.shared:
            return Field(x, axis, self)
        from mpi4py import MPI

        shape = (*x.shape[:2], *self.grid.shape)
        size = int(np.prod(shape)) * x.itemsize
        window = MPI.Win.Allocate_shared(size + LINE if self.comm.rank == 0 else 0, 1, comm=self.comm)
        window.Lock_all(MPI.MODE_NOCHECK)
        self._windows.append(window)
        memory: Any = window.Shared_query(0)[0]
        start = -np.frombuffer(memory, dtype=np.uint8).ctypes.data % LINE  # the same for all: each maps whole pages
        whole: Array = np.ndarray(shape, dtype=x.dtype, buffer=memory, offset=start)
        out = SharedField(whole[self.where(axis)], axis, self, whole=whole, window=window)
        out.x[...] = x
        return out

    def free(self) -> None:
        """Give back the shared memory of all fields (a collective call); they must not be used any more."""
        for window in self._windows:
            window.Unlock_all()
            window.Free()
        self._windows.clear()

    def redistribute(self, x: Array, old: int, new: int) -> Array:
        """The field (components, batch, \\*cells) cut along ``old`` as one that is cut along ``new``."""
        from mpi4py import MPI

        low, high = self.cells(new)
        shape = list(x.shape)
        shape[old + 2], shape[new + 2] = self.grid.shape[old], high - low
        y = empty_state(tuple(shape), x.dtype)
        self.sent += x.nbytes * (1.0 - (high - low) / self.grid.shape[new])
        sent = [self._block(x, new + 2, self.cells(new, r)) for r in range(self.comm.size)]
        got = [self._block(y, old + 2, self.cells(old, r)) for r in range(self.comm.size)]
        ones, zeros = [1] * self.comm.size, [0] * self.comm.size
        self.comm.Alltoallw([np.ascontiguousarray(x), ones, zeros, sent], [y, ones, zeros, got])
        for block in (*sent, *got):
            if block != MPI.DATATYPE_NULL:
                block.Free()
        return y

    @staticmethod
    def _block(x: Array, axis: int, cells: tuple[int, int]) -> Any:
        from mpi4py.util import dtlib

        part, start = list(x.shape), [0] * x.ndim
        part[axis], start[axis] = cells[1] - cells[0], cells[0]
        return dtlib.from_numpy_dtype(x.dtype).Create_subarray(list(x.shape), part, start).Commit()

    def received(self, x: Array, axis: int) -> Iterator[tuple[int, Array]]:
        """On the first process, the slabs along ``axis`` of all processes in turn; the others send theirs."""
        if self.comm.rank:
            self.comm.Send(np.ascontiguousarray(x), dest=0)
            return
        yield 0, x
        for rank in range(1, self.comm.size):
            part = np.empty((*x.shape[:2], *self.shape(axis, rank)), dtype=x.dtype)
            self.comm.Recv(part, source=rank)
            yield rank, part

    def collect(self, x: Array, axis: int) -> Array | None:
        """The whole field on the first process, from slabs along ``axis``; None on the others."""
        whole = None if self.comm.rank else np.empty((*x.shape[:2], *self.grid.shape), dtype=x.dtype)
        for rank, part in self.received(x, axis):
            assert whole is not None
            whole[self.where(axis, rank)] = part
        return whole

    def hand_out(self, whole: Array | None, batch: tuple[int, int], axis: int, dtype: Any = np.float64) -> Array:
        """This process's slab along ``axis`` of a field that the first one has; ``batch`` are its components and states."""
        if whole is not None:
            for rank in range(1, self.comm.size):
                self.comm.Send(np.ascontiguousarray(whole[self.where(axis, rank)]), dest=rank)
            return np.ascontiguousarray(whole[self.where(axis, 0)])
        part = empty_state((*batch, *self.shape(axis)), dtype)
        self.comm.Recv(part, source=0)
        return part

    def where(self, axis: int, rank: int | None = None) -> Any:
        """Index of a process's cells in an array whose last dimensions are the cells."""
        low, high = self.cells(axis, rank)
        return (..., slice(low, high), *(slice(None),) * (self.grid.ndim - axis - 1))

    def shape(self, axis: int, rank: int | None = None) -> tuple[int, ...]:
        """Cells of a process if ``axis`` is cut."""
        low, high = self.cells(axis, rank)
        return (*self.grid.shape[:axis], high - low, *self.grid.shape[axis + 1 :])

    def together(self, action: Callable[[], Any]) -> Any:
        """See :func:`together`."""
        return together(self.comm, action)

    def at_ends(self, x: Array, axis: int, dim: int, measure: Callable[[Array], Array]) -> Array:
        """Sum of ``measure`` of the density over the outermost cells of each end, times the cell volume, (ends, batch).

        Parameters
        ----------
        x : array (components, batch, \\*cells)
            Cut along ``axis``.
        """
        low, high = self.cells(axis)
        rows = []
        for i, whole in enumerate(self.grid.axes):
            for place in (0, whole.n - 1):
                row = np.zeros(x.shape[1])
                if i != axis or low <= place < high:
                    at: Any = (slice(dim), *(slice(None),) * (i + 1), place - low if i == axis else place)
                    f = x[at].sum(axis=0)
                    row = measure(f).reshape(f.shape[0], -1).sum(axis=1)
                rows.append(row)
        return self.total(np.array(rows)) * self.grid.cell_volume

    def agree(self, action: Callable[[], Any]) -> Any:
        """See :func:`agree`."""
        return agree(self.comm, action)

    def wait(self) -> None:
        """Wait until all processes have come here; where they share cores, without keeping one busy that another could use."""
        if not self.crowded:
            self.comm.Barrier()
            return
        request, tries = self.comm.Ibarrier(), 0
        while not request.Test():
            os.sched_yield() if tries < YIELDS else time.sleep(1e-4)
            tries += 1

    def total(self, value: Any) -> Array:
        """Sum over processes in their order, the same bits on each."""
        if self.crowded:
            self.wait()
        return np.sum(self.comm.allgather(np.asarray(value, dtype=float)), axis=0)

    def norm(self, parts: Iterable[Array], batch: int, volume: float) -> float:
        """Integrated trace norm (a bound of it) of states (components, batch, cells) given by parts of this process's cells, the largest of them."""
        found = np.zeros(batch)
        for x in parts:
            found += [trace_norm_bound(x[:, k], 1, volume) for k in range(batch)]
        return float(np.max(self.total(found)))

    def largest(self, value: float) -> float:
        """The largest over processes."""
        return float(max(self.comm.allgather(float(value))))


def pieces(x: Array) -> Iterator[Array]:
    """A state (components, batch, \\*cells), which may be a slab, as contiguous parts (components, batch, cells) of some :data:`PIECE` numbers."""
    rows = max(1, PIECE * x.shape[2] // x.size)
    for low in range(0, x.shape[2], rows):
        yield np.ascontiguousarray(x[:, :, low : low + rows]).reshape(*x.shape[:2], -1)


@dataclass
class Field:
    """A state (components, batch, \\*cells) cut along one axis; stepped in place."""

    x: Array
    axis: int
    slabs: Slabs

    def cut(self, axis: int) -> None:
        """Cut along another axis."""
        if axis != self.axis:
            self.x = self.slabs.redistribute(self.x, self.axis, axis)
            self.axis = axis

    def copy(self) -> Field:
        """A field of its own."""
        return self.slabs.field(copy_state(self.x), self.axis)


@dataclass
class SharedField(Field):
    """A field that all processes of one machine have in their memory: ``x`` is a view of it, and cutting it anew moves nothing."""

    whole: Array = dataclass_field(kw_only=True)
    window: Any = dataclass_field(kw_only=True)

    def cut(self, axis: int) -> None:
        """Cut along another axis, once all have done their part."""
        if axis != self.axis:
            self.window.Sync()
            self.slabs.wait()
            self.window.Sync()
            self.x, self.axis = self.whole[self.slabs.where(axis)], axis


def _one_machine(comm: Any) -> bool:
    """Whether all processes share memory (a collective call)."""
    return bool(min(comm.allgather(processes_here(comm))) == comm.size)
