"""The split route's composition on slabs: every part is applied on a cut along an axis that it does not move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..channels.compose import Composition, Flow, Known
from ..channels.guards import OpenEnds
from ..channels.parts import Kick, Local, Part
from ..channels.resolution import norm_of_tail
from ..channels.spectral import band_content
from ..components import trace_norm_bound
from ..errors import OptionError
from .slabs import Field, Slabs

Array = np.ndarray


def axes_of(part: Part) -> set[int]:
    """Axes that a part needs whole."""
    return set(part.axes) if isinstance(part, Kick) else set() if isinstance(part, Local) else {part.axis}


@dataclass
class Placed:
    """A flow and the cut that it was built for."""

    flow: Flow
    axis: int


@dataclass
class SlabComposition(Composition):
    """A :class:`~cqpde.channels.compose.Composition` whose state is a :class:`~cqpde.parallel.slabs.Field`."""

    slabs: Slabs = field(kw_only=True)
    cuts: dict[Part, int] = field(default_factory=dict, init=False)
    own: dict[int, Composition] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Choose a cut for every part, from the inside of the step outwards, changing it only where a part asks for it."""
        groups = self.structure.groups
        current = self._longest(set().union(*(axes_of(p) for p in groups[-1]))) if groups else 0
        for group in reversed(groups):
            for part in group:
                if current in axes_of(part):
                    current = self._longest(axes_of(part))
                self.cuts[part] = current
        self.first = self.cuts[groups[0][0]] if groups else 0
        for axis in {*self.cuts.values(), self.first}:
            self.slabs.require(axis)
            self.own[axis] = Composition(self.model, self.slabs.mine(axis), self.structure, self.t0, self.accuracy, Known())

    def _longest(self, taken: set[int]) -> int:
        """The axis of most cells beside those that are taken."""
        free = [i for i in range(self.grid.ndim) if i not in taken]
        if not free:
            names = ", ".join(self.grid.names[i] for i in sorted(taken))
            raise OptionError("comm", "a part that moves along all axes cannot be cut into slabs", names, "Run it on one process")
        return max(free, key=lambda i: self.grid.shape[i])

    def flow(self, part: Part, t: float, dt: float) -> Any:
        """The part over ``dt``, on its cut."""
        axis = self.cuts[part]
        return Placed(self.own[axis].flow(part, t, dt), axis)

    def apply(self, flows: list[Any], x: Any, escaped: Array, tails: list[float] | None) -> None:
        """Apply placed flows to a field in place, cutting it anew where needed."""
        for placed in flows:
            x.cut(placed.axis)
            flow = placed.flow
            if flow.lines is None and flow.local is None and flow.convolved(x.x) is not None:
                continue
            y = np.ascontiguousarray(x.x)
            self.own[placed.axis].apply([flow], y, escaped, None)
            if y is not x.x:
                x.x[...] = y

    def advance(
        self, x: Any, escaped: Array, t: float, length: float, n: int, first: int = 0, seen: Callable[[float, int, Any, Array], None] | None = None
    ) -> Array:
        """Take ``n`` symmetric steps over ``length`` with a field, in place (the first ones were taken before); returns what escaped here."""
        return self.chain(x, escaped, t, length, n, None, in_place=True, first=first, seen=seen)[1]

    # -- measures of the whole field -----------------------------------------------------------------------------------
    def beyond(self, x: Field, t: float, length: float, dt: float) -> float:
        """Probability that a step would carry beyond an open end."""
        at = tuple(t + length * share for share in (0.0, 0.25, 0.5, 0.75, 1.0)) if self.model.time_dependent else (self.t0,)
        ends = OpenEnds(self.model, self.slabs.mine(x.axis), self.structure, at, self.grid)
        return float(np.max(np.abs(self.slabs.total(ends.parts(x.x, dt))), initial=0.0))

    def difference(self, x: Field, y: Field) -> float:
        """Integrated trace norm (a bound of it) of ``x - y``."""
        y.cut(x.axis)
        a, b = (s.x.reshape(s.x.shape[0], s.x.shape[1], -1) for s in (x, y))
        return max(float(self.slabs.total(trace_norm_bound(a[:, k] - b[:, k], 1, self.grid.cell_volume))) for k in range(a.shape[1]))

    def ends(self, x: Field, measure: Callable[[Array], Array]) -> Array:
        """Sum of ``measure`` of the density over the outermost cells of each end, times the cell volume, (ends, batch)."""
        low, high = self.slabs.cells(x.axis)
        rows = []
        for i, axis in enumerate(self.grid.axes):
            for place in (0, axis.n - 1):
                row = np.zeros(x.x.shape[1])
                if i != x.axis or low <= place < high:
                    f = np.take(x.x[: self.model.dim], place - low if i == x.axis else place, axis=i + 2).sum(axis=0)
                    row = measure(f).reshape(f.shape[0], -1).sum(axis=1)
                rows.append(row)
        return self.slabs.total(np.array(rows)) * self.grid.cell_volume

    def tail(self, x: Field) -> float:
        """Content of the highest modes of the worst axis, integrated trace norm."""
        dim, volume = self.model.dim, self.grid.cell_volume
        squares = [0.0] * self.grid.ndim
        for i in range(self.grid.ndim):
            if i == x.axis:
                x.cut(self._longest({i}))
            squares[i] = float(self.slabs.total(band_content(x.x, self.slabs.mine(x.axis), (i,))[i]))
        f = x.x[:dim].sum(axis=0).reshape(x.x.shape[1], -1)
        first, second = self.slabs.total(f.sum(axis=1)), self.slabs.total(np.sum(f * f, axis=1))
        filled = min(float(np.max(4.0 * volume * first**2 / np.maximum(second, 1e-300))), volume * float(np.prod(self.grid.shape)))
        return max(norm_of_tail(s, filled, volume, dim) for s in squares)
