"""Step control on slabs (integrate/evolve.py on many processes): its measures, its checkpoints, and the split route as a scheme for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..checkpoint import Make, NoKeeper, Saved
from ..errors import OptionError
from ..fv.limited import StepTooLong
from ..integrate.evolve import Frame, Measures
from ..integrate.extrapolate import BEYOND, SHORT_MOVE
from .composition import SlabComposition
from .slabs import Field, Slabs

Array = np.ndarray


@dataclass(frozen=True)
class SlabMeasures(Measures):
    """What step control asks of a state, answered by all processes together."""

    slabs: Slabs

    def norm(self, x: Array, batch: int) -> float:
        """See :meth:`~cqpde.integrate.evolve.Measures.norm`."""
        return self.slabs.norm([x.reshape(x.shape[0], batch, -1)], batch, self.grid.cell_volume)

    def require_finite(self, x: Array, t: float, step: int) -> None:
        """See :func:`~cqpde.integrate.evolve.require_finite`."""
        self.slabs.agree(lambda: super(SlabMeasures, self).require_finite(x, t, step))


class SlabKeeper(NoKeeper):
    """Stands between step control on slabs and the keeper of the first process: whole states go to it, and come from it.

    Parameters
    ----------
    keeper : NoKeeper
        On the first process the one that writes.
    axis : int
        The cut of the states.
    """

    def __init__(self, keeper: NoKeeper, slabs: Slabs, axis: int, components: int, batch: int) -> None:
        self.keeper, self.slabs, self.axis, self.sizes, self.keeps = keeper, slabs, axis, (components, batch), keeper.keeps
        if slabs.comm.bcast(keeper.resumed is not None):
            self.resumed = self._handed_out(keeper.resumed)

    def _handed_out(self, saved: Saved | None) -> Saved:
        """The saved state as this process has it: its cells, and on the first one what has escaped."""
        grid, (components, batch), cells = self.slabs.grid, self.sizes, int(np.prod(self.slabs.grid.shape))
        escaped = np.zeros((batch, 2 * grid.ndim, components))

        def read() -> dict[str, Any]:
            assert saved is not None
            if "cells" in saved.record:
                raise OptionError("comm", "step control of the split route began on one process, where it is of another order", "several", "Resume it on one process")
            arrays.update(x=saved.array("x", components, batch * cells).reshape(components, batch, *grid.shape), e=saved.array("e", *escaped.shape))
            return saved.record

        arrays: dict[str, Array] = {}
        record = self.slabs.together(read)
        x = self.slabs.hand_out(arrays.get("x"), (components, batch), self.axis).reshape(components, -1)
        return Saved(self.keeper.folder, {"x": x, "e": arrays.get("e", escaped)}, record)

    def offer(self, index: int, make: Make) -> None:
        """See :meth:`~cqpde.checkpoint.NoKeeper.offer`."""
        if not self.slabs.comm.bcast(self.keeper.due(index)):
            return
        state, record = make()
        components, batch = self.sizes
        mine = state["x"].reshape(components, batch, *self.slabs.shape(self.axis))
        whole, e = self.slabs.collect(mine, self.axis), self.slabs.total(state["e"])
        arrays = {} if whole is None else {"x": whole.reshape(components, -1), "e": e}
        self.slabs.together(lambda: self.keeper.offer(index, lambda: (arrays, record)))


class SlabSplit:
    r"""The split route on slabs as a scheme of order 4: the step :math:`S(h)` of the composition and two of its halves give

    .. math:: T(h) = \tfrac13\left(4\,S(h/2)^2 - S(h)\right).

    States are those of this process's slab along ``cut``; they are stepped in a field that all processes share where they can.
    """

    first_level = 4
    control_order = 4

    def __init__(self, composition: SlabComposition, field: Field) -> None:
        self.composition, self.grid, self.field, self.cut = composition, composition.grid, field, field.axis
        self.applications, self.edge = 0, 0.0
        self.exact = composition.exact
        if self.exact:
            self.first_level = 0

    def restore(self, applications: int, peclet: float) -> None:
        """Go on counting from what a run that is resumed had done."""
        self.applications = applications

    def step(self, x: Array, e: Array, t: float, dt: float, remaps: int = 1) -> tuple[Array, Array]:
        """One step of order 4."""
        self._put(x)
        if dt * self.composition.cells_per_time(self.field, t, dt) > SHORT_MOVE and self.composition.beyond(self.field, t, dt, dt) > BEYOND:
            raise StepTooLong("Grid", "what crosses an open end must be seen there", f"a step of {dt:.3g}", "Widen the box")
        whole, e_whole = self._chain(e, t, dt, 1)
        if self.exact:
            return whole, e_whole
        self._put(x)
        fine, e_fine = self._chain(e, t, dt, 2)
        return (4.0 * fine - whole) / 3.0, (4.0 * e_fine - e_whole) / 3.0

    def two_halves(self, x: Array, e: Array, t: float, dt: float) -> tuple[Array, Array]:
        """Two steps of half the length."""
        return self.step(*self.step(x, e, t, 0.5 * dt), t + 0.5 * dt, 0.5 * dt)

    def _put(self, x: Array) -> None:
        self.field.cut(self.cut)
        self.field.x[...] = x.reshape(self.field.x.shape)

    def _chain(self, e: Array, t: float, dt: float, n: int) -> tuple[Array, Array]:
        gone = self.composition.advance(self.field, e, t, dt, n)
        self.applications += n
        self.field.cut(self.cut)
        self.edge = max(self.edge, self.composition.edge(self.field))
        return self.field.x.reshape(e.shape[2], -1).copy(), gone

    def looked_at(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Frames with what the highest modes and the open ends have had at most."""
        tail = 0.0
        for frame in frames:
            self._put(frame.x)
            tail = max(tail, self.composition.tail(self.field))
            yield replace(frame, progress=replace(frame.progress, tail=tail, edge=self.edge))
