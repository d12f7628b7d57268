"""The split route's composition on slabs: every part is applied on a cut along an axis that it does not move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..channels.compose import Composition, Flow, Known, remembered
from ..channels.guards import OpenEnds
from ..channels.parts import Kick, Local, Part
from ..channels.resolution import norm_of_tail
from ..channels.spectral import band_content
from ..grid import Grid
from .slabs import Field, Slabs, longest, pieces

Array = np.ndarray


def axes_of(part: Part) -> set[int]:
    """Axes that a part needs whole."""
    return set(part.axes) if isinstance(part, Kick) else set() if isinstance(part, Local) else {part.axis}


def planned(groups: tuple[tuple[Part, ...], ...], grid: Grid) -> tuple[int, dict[Part, int]]:
    """The first cut and that of every part, chosen from the inside of the step outwards and changed only where a part asks for it."""
    current = longest(grid, set().union(*(axes_of(p) for p in groups[-1]))) if groups else 0
    cuts: dict[Part, int] = {}
    for group in reversed(groups):
        for part in group:
            if current in axes_of(part):
                current = longest(grid, axes_of(part))
            cuts[part] = current
    return (cuts[groups[0][0]] if groups else 0), cuts


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
    looked: dict[Any, OpenEnds] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Build what is needed on every cut."""
        self.first, self.cuts = planned(self.structure.groups, self.grid)
        for axis in {*self.cuts.values(), self.first}:
            self.slabs.require(axis)
            self.own[axis] = Composition(self.model, self.slabs.mine(axis), self.structure, self.t0, self.accuracy, Known(), dtype=self.dtype)

    def flow(self, part: Part, t: float, dt: float) -> Any:
        """The part over ``dt``, on its cut."""
        axis = self.cuts[part]
        return Placed(self.slabs.agree(lambda: self.own[axis].flow(part, t, dt)), axis)

    def apply(self, flows: list[Any], x: Any, escaped: Array, tails: list[float] | None) -> None:
        """Apply placed flows to a field in place, cutting it anew where needed."""
        for placed in flows:
            x.cut(placed.axis)
            flow = placed.flow
            if flow.lines is None and flow.local is None and self.convolve(flow, x.x):
                continue
            y = np.ascontiguousarray(x.x)
            own = self.own[placed.axis]
            own.skip_below, own.left_out = self.skip_below, 0.0
            own.apply([flow], y, escaped, None)
            self.left_out += own.left_out
            if y is not x.x:
                x.x[...] = y

    def advance(
        self, x: Any, escaped: Array, t: float, length: float, n: int, first: int = 0, seen: Callable[[float, int, Any, Array], None] | None = None
    ) -> Array:
        """Take ``n`` symmetric steps over ``length`` with a field, in place (the first ones were taken before); returns what escaped here."""
        return self.chain(x, escaped, t, length, n, None, in_place=True, first=first, seen=seen)[1]

    def finite(self, x: Any, anew: bool = False) -> bool:
        """The same answer on all processes."""
        return bool(self.slabs.total(not super().finite(x.x, anew)) == 0)

    # -- measures of the whole field -----------------------------------------------------------------------------------
    def _open_ends(self, x: Field, t: float, length: float) -> OpenEnds:
        at = tuple(t + length * share for share in (0.0, 0.25, 0.5, 0.75, 1.0)) if self.model.time_dependent else (self.t0,)
        make = lambda: OpenEnds(self.model, self.slabs.mine(x.axis), self.structure, at, self.grid)
        return remembered(self.looked, (x.axis, at), 4, make)

    def cells_per_time(self, x: Field, t: float, length: float) -> float:
        """Fastest displacement in cells per unit time."""
        return self.slabs.largest(self._open_ends(x, t, length).cells_per_time())

    def beyond(self, x: Field, t: float, length: float, dt: float) -> float:
        """Probability that a step would carry beyond an open end."""
        return float(np.max(np.abs(self.slabs.total(self._open_ends(x, t, length).parts(x.x, dt))), initial=0.0))

    def edge(self, x: Field) -> float:
        """Probability in the outermost cells of an open end, the largest over ends and batch."""
        watched = [not a.periodic for a in self.grid.axes for _ in a.ends]
        return float(self.slabs.at_ends(x.x, x.axis, self.model.dim, np.abs)[watched].max(initial=0.0))

    def difference(self, x: Field, y: Field) -> float:
        """Integrated trace norm (a bound of it) of ``x - y``."""
        y.cut(x.axis)
        return self.slabs.norm((a - b for a, b in zip(pieces(x.x), pieces(y.x), strict=True)), x.x.shape[1], self.grid.cell_volume)

    def tail(self, x: Field) -> float:
        """Content of the highest modes of the worst axis, integrated trace norm."""
        dim, volume = self.model.dim, self.grid.cell_volume
        squares = [0.0] * self.grid.ndim
        for i in range(self.grid.ndim):
            if i == x.axis:
                x.cut(longest(self.grid, {i}))
            squares[i] = float(self.slabs.total(band_content(x.x, self.slabs.mine(x.axis), (i,))[i]))
        f = x.x[:dim].sum(axis=0).reshape(x.x.shape[1], -1)
        first, second = self.slabs.total(f.sum(axis=1)), self.slabs.total(np.sum(f * f, axis=1))
        filled = min(float(np.max(4.0 * volume * first**2 / np.maximum(second, 1e-300))), volume * float(np.prod(self.grid.shape)))
        return max(norm_of_tail(s, filled, volume, dim) for s in squares)
