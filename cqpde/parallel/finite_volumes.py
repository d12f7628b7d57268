"""The finite-volume scheme on slabs: jumps that leave a slab are delivered to the neighbour, remaps need their axes whole.

The generator of a slab is assembled with a few more cells beyond its inner ends. Only the slab's own cells carry anything before it is
applied, so that what is found beyond is what jumped out: it is sent to the neighbour, which adds it. No coefficient is needed twice, no jump
is counted twice, and at the ends of the axis everything is as on one process.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..components import empty_state
from ..errors import OptionError
from ..fv.assemble import Bounds, Layout
from ..fv.directions import MAX_OFFSET
from ..fv.generator import Generator, make_generator
from ..fv.limited import LimitedTransport
from ..grid import Boundary, Grid
from ..integrate.evolve import Propagator
from ..integrate.exponential import Exponential
from ..model import Model
from .slabs import Slabs, longest

Array = np.ndarray


@dataclass(frozen=True)
class Halo:
    """This process's slab along an axis with ``width`` more cells at each end where a neighbour is."""

    slabs: Slabs
    axis: int
    width: int

    @property
    def neighbours(self) -> tuple[int | None, int | None]:
        """The processes below and above."""
        rank, size = self.slabs.comm.rank, self.slabs.comm.size
        if self.slabs.grid.axes[self.axis].periodic:
            return (rank - 1) % size, (rank + 1) % size
        return (rank - 1 if rank else None), (rank + 1 if rank + 1 < size else None)

    @property
    def more(self) -> tuple[int, int]:
        """How many cells there are beyond the slab below and above."""
        below, above = self.neighbours
        return (0 if below is None else self.width), (0 if above is None else self.width)

    def require(self) -> None:
        """Refuse slabs that a jump crosses."""
        least = min(high - low for low, high in (self.slabs.cells(self.axis, r) for r in range(self.slabs.comm.size)))
        if least < self.width:
            axis = self.slabs.grid.axes[self.axis]
            raise OptionError(
                "comm", f"needs at least {self.width} cells of {axis.name} per process", f"{self.slabs.comm.size} processes for {axis.n} cells", "Use fewer processes or more cells"
            )

    def grid(self) -> Grid:
        """The slab with its cells beyond; an inner end is open, so that what jumps over it is found beyond."""
        (low, high), (below, above) = self.slabs.cells(self.axis), self.more
        out, axis = self.slabs.grid.slab(self.axis, low - below, high - low + below + above), self.slabs.grid.axes[self.axis]
        part = replace(out.axes[self.axis], ends=(Boundary("open") if below else axis.ends[0], Boundary("open") if above else axis.ends[1]))
        out.axes = (*out.axes[: self.axis], part, *out.axes[self.axis + 1 :])
        return out

    def _view(self, y: Array, batch: int) -> Array:
        """A state with cells beyond as (components, batch, before, cells of the axis, after)."""
        (low, high), shape = self.slabs.cells(self.axis), self.slabs.grid.shape
        before, after = (int(np.prod(part)) for part in (shape[: self.axis], shape[self.axis + 1 :]))
        return y.reshape(y.shape[0], batch, before, high - low + sum(self.more), after)

    def _own(self, y: Array, batch: int) -> Array:
        v, (below, above) = self._view(y, batch), self.more
        return v[:, :, :, below : v.shape[3] - above]

    def widened(self, x: Array, batch: int) -> Array:
        """The state (components, batch * cells) of the slab with cells beyond that hold nothing."""
        (low, high), more = self.slabs.cells(self.axis), sum(self.more)
        out = empty_state((x.shape[0], x.shape[1] // (high - low) * (high - low + more)), x.dtype)
        out[...] = 0.0
        own = self._own(out, batch)
        own[...] = x.reshape(own.shape)
        return out

    def narrowed(self, y: Array, batch: int) -> Array:
        """The slab's own cells."""
        return np.ascontiguousarray(self._own(y, batch)).reshape(y.shape[0], -1)

    def deliver(self, y: Array, acc: Array, weight: float, batch: int) -> None:
        """Send what is beyond the slab to the neighbours and clear it there; add what they send to ``y``, and ``weight`` times it to ``acc``."""
        from mpi4py import MPI

        v, total, w = self._view(y, batch), self._own(acc, batch), self.width
        below, above = (MPI.PROC_NULL if n is None else n for n in self.neighbours)
        out_below, out_above = np.ascontiguousarray(v[:, :, :, :w]), np.ascontiguousarray(v[:, :, :, v.shape[3] - w :])
        from_below, from_above = np.zeros_like(out_below), np.zeros_like(out_above)
        if self.slabs.crowded:
            self.slabs.wait()
        self.slabs.comm.Sendrecv(out_above, above, 0, from_below, below, 0)
        self.slabs.comm.Sendrecv(out_below, below, 1, from_above, above, 1)
        self.slabs.sent += out_below.nbytes * (below != MPI.PROC_NULL) + out_above.nbytes * (above != MPI.PROC_NULL)
        own = self._own(y, batch)
        for neighbour, edge, got in ((self.neighbours[0], np.s_[:, :, :, :w], from_below), (self.neighbours[1], np.s_[:, :, :, own.shape[3] - w :], from_above)):
            if neighbour is not None:
                own[edge] += got
                total[edge] += weight * got
        if self.more[0]:
            v[:, :, :, :w] = 0.0
        if self.more[1]:
            v[:, :, :, v.shape[3] - w :] = 0.0


@dataclass(frozen=True)
class SlabGenerator(Generator):
    """The generator on a slab with its cells beyond; applying it is a collective call."""

    halo: Halo

    def step(
        self, x: Array, ex: Array, y: Array, ey: Array, acc: Array, eacc: Array, alpha: float, beta: float, gamma: float, weight: float
    ) -> None:  # fmt: skip
        """See :meth:`~cqpde.fv.generator.Generator.step`."""
        super().step(x, ex, y, ey, acc, eacc, alpha, beta, gamma, weight)
        self.halo.deliver(y, acc, weight, ex.shape[0])

    def largest(self, x: Array) -> float:
        """Largest component on all slabs."""
        return self.halo.slabs.largest(super().largest(x))


class SlabExponential(Exponential):
    """The exponential of a generator on slabs."""

    def _one(self, g: Any, x: Array, escaped: Array, tau: float) -> tuple[Array, Array]:
        batch = escaped.shape[0]
        y, e = super()._one(g, g.halo.widened(x, batch), escaped, tau)
        return g.halo.narrowed(y, batch), e


@dataclass
class SlabTransport(LimitedTransport):
    """Limited transport on slabs; an axis that is cut itself is made whole for its remap."""

    slabs: Slabs = field(kw_only=True)
    cut: int = field(kw_only=True)
    others: dict[int, SlabTransport] = field(default_factory=dict, init=False)
    _speed: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Find another cut for the axes that need one."""
        for i in self.axes:
            whole = needed(self.slabs.grid, i)
            if self.cut in whole:
                other = longest(self.slabs.grid, whole)
                self.slabs.require(other)
                self.others[i] = SlabTransport(self.model, self.slabs.mine(other), [i], slabs=self.slabs, cut=other)

    def _remap(self, x: Array, out: Array, escaped: Array, i: int, t: float, dt: float) -> Array:
        if i not in self.others:
            return super()._remap(x, out, escaped, i, t, dt)
        other, batch = self.others[i], escaped.shape[0]
        y = self.slabs.redistribute(x.reshape(x.shape[0], batch, *self.grid.shape), self.cut, other.cut)
        moved = other._remap(y.reshape(x.shape[0], -1), np.empty((x.shape[0], y[0].size)), escaped, i, t, dt)
        out[...] = self.slabs.redistribute(moved.reshape(y.shape), other.cut, self.cut).reshape(out.shape)
        return out

    def _trace(self, i: int, t: float, dt: float) -> tuple[Array, Array, int]:
        speed = self.slabs.agree(lambda: float(np.max(np.abs(self._at_interfaces(i, t)[1]))))
        self._speed = self.slabs.largest(speed)
        return self.slabs.agree(lambda: super(SlabTransport, self)._trace(i, t, dt))

    def _fastest(self, v: Array) -> float:
        return self._speed


def needed(grid: Grid, i: int) -> set[int]:
    """Axes that a remap along axis ``i`` needs whole: itself, and those whose sign its ends flip."""
    return {i} | {grid.names.index(end.conjugate) for end in grid.axes[i].ends if end.kind == "specular"}


def planned_cut(plan: Layout, grid: Grid, transport: str) -> int:
    """The cut of the generator: along an axis that no remap needs whole, where there is one."""
    whole = [needed(grid, i) for i in plan.drifting]
    flipped: set[int] = set().union(*(axes - {i} for axes, i in zip(whole, plan.drifting, strict=True)))
    wanted: set[int] = set().union(*whole) if transport == "limited" else flipped
    return longest(grid, wanted if len(wanted) < grid.ndim else flipped)


def halo_width(plan: Layout, transport: str, cut: int) -> int:
    """Cells that a jump, or what a flux is made of, reaches beyond a slab."""
    if any(cut in block and len(block) > 1 for block in plan.blocks):
        return MAX_OFFSET
    # fluxes of fourth order from a cell reach two interfaces on, and are others where an end is nearer than two interfaces
    return 3 if transport == "linear" and cut in plan.drifting else 1


class SlabPropagator(Propagator):
    """The finite-volume scheme on slabs; states are those of this process's slab along ``cut``."""

    def __init__(self, model: Model, plan: Layout, transport: str, t0: float, slabs: Slabs) -> None:
        self.slabs, self.cut = slabs, planned_cut(plan, slabs.grid, transport)
        slabs.require(self.cut)
        self.halo = Halo(slabs, self.cut, halo_width(plan, transport, self.cut))
        self.halo.require()
        super().__init__(model, slabs.grid, plan, transport, t0)

    def _exponential(self) -> Exponential:
        return SlabExponential()

    def _limited(self) -> LimitedTransport:
        return SlabTransport(self.model, self.slabs.mine(self.cut), self.plan.drifting, slabs=self.slabs, cut=self.cut)

    def _make(self, t: float) -> Generator:
        mine = self.slabs.agree(lambda: make_generator(self.model, self.halo.grid(), t, self.plan, self.transport))
        bounds = Bounds(*(self.slabs.largest(v) for v in (mine.bounds.rate, mine.bounds.drift, mine.bounds.frequency)))
        return SlabGenerator(mine.stencil, bounds, self.slabs.largest(mine.peclet), self.halo)
