"""Equal steps of the split route on slabs (the twin of integrate/fixed_steps.py), every process with its part of the state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from ..checkpoint import NoKeeper
from ..errors import RouteError, SolverError
from ..integrate.evolve import Frame, Progress
from ..integrate.fixed_steps import MOST_BEYOND, require_held, stated
from .composition import SlabComposition
from .frames import SlabFrame, whole_frame
from .slabs import Field

Array = np.ndarray


def fixed_steps(
    composition: SlabComposition, x: Field, times: Array, dt: float, report: Callable[[float], None], keeper: NoKeeper, skip_below: float = 0.0
) -> Iterator[SlabFrame]:
    """Yield a frame at every one of ``times``; the field goes on from where it is, so a frame is to be used before the next is asked for.

    Parameters
    ----------
    x : Field
        State at the first time, in the basis of the composition; stepped in place.
    dt : float
        Step; the actual one is the next smaller of which an even number fills the gap (one step where that has no time error).
    keeper : NoKeeper
        On the first process the one that writes: it gets the whole state, so that a run goes on with any number of processes.
    skip_below : float
        See :func:`cqpde.integrate.fixed_steps.fixed_steps`; the lines that are done at once are those of one process.

    Raises
    ------
    RouteError
        If a step carries more than 1e-3 beyond an open end.
    SolverError
        If the state becomes non-finite on any process.
    """
    alone = composition.exact and composition.dtype == np.float64  # single precision has a twin for its round-off
    counts = [1 if alone else 2 if composition.exact else 2 * int(np.ceil(0.5 * gap / dt - 1e-9)) for gap in np.diff(times)]
    slabs, ndim, size = composition.slabs, composition.grid.ndim, x.x.shape[:2]
    escaped = np.zeros((size[1], 2 * ndim, size[0]))
    largest = slabs.largest(max(x.x.max(), -x.x.min()))
    require_held(composition.dtype, largest)
    composition.skip_below = skip_below * largest
    progress, dim = Progress(tail=0.0), composition.model.dim
    first, fine, done = 1, 0, 0  # fine: the twin has come to the next output; done: steps since the last one
    rough: Field | None
    if not slabs.comm.bcast(keeper.resumed is not None):
        yield whole_frame(slabs, dim, x.axis, Frame(0, float(times[0]), x.x, escaped, progress))
        rough = None if alone else x.copy()
    else:
        saved = keeper.resumed  # on the first process
        whole, twin_whole = None, None
        if saved is not None:
            first, fine, done = saved.count("index", 1, len(times)), saved.count("fine", 0, 1), saved.count("done", 0, max(counts))
            shape = (*size, *composition.grid.shape)
            twin_whole = None if alone or first == len(times) else saved.array("rough", *shape, dtype=composition.dtype)
            whole, escaped, progress = saved.array("x", *shape, dtype=composition.dtype), saved.array("escaped", *escaped.shape), Progress(**saved.fields("progress", progress))
        first, fine, done, known = slabs.comm.bcast((first, fine, done, vars(progress)))
        progress = Progress(**known)
        hand_out = lambda field: slabs.hand_out(field, size, x.axis, composition.dtype)
        x.x[...] = hand_out(whole)
        rough = None if alone or first == len(times) else slabs.field(hand_out(twin_whole), x.axis)

    def offer(index: int, now: float, fine: int, done: int, rough: Field | None, gone: Array) -> None:
        if not slabs.comm.bcast(keeper.due(index)):
            return
        fields = {"x": x} | ({} if rough is None else {"rough": rough})
        arrays: dict[str, Any] = {"escaped": slabs.total(gone), **{name: slabs.collect(f.x, f.axis) for name, f in fields.items()}}
        slabs.together(lambda: keeper.offer(index, lambda: (arrays, {"progress": vars(progress), "t": now, "fine": fine, "done": done})))

    for index, ((start, end), count) in enumerate(zip(pairwise(times[first - 1 :]), counts[first - 1 :], strict=True), start=first):
        t, length = float(start), float(end - start)
        if not fine and not done:
            beyond = composition.beyond(x, t, length, length / (count if rough is None else count // 2))
            if beyond > MOST_BEYOND:
                raise RouteError("Grid", "the split route needs open ends out of reach", f"a step carries {beyond:.2g} there", "Widen the box")

        def twin(now: float, done: int, y: Field, gone: Array, index: int = index, half: int = count // 2, escaped: Array = escaped) -> None:
            require_finite(composition.finite(y), now, progress.steps + done)
            composition.left_out = 0.0  # what the twin leaves out is part of its distance
            offer(index, now, *((0, done) if done < half else (1, 0)), y, escaped)

        def seen(now: float, done: int, y: Field, gone: Array, index: int = index, count: int = count, rough: Field | None = rough) -> None:
            require_finite(composition.finite(x), now, progress.steps + done)
            progress.edge = max(progress.edge, composition.edge(x))
            if skip_below:
                progress.skipped += 2.0 * float(slabs.total(composition.left_out))
                composition.left_out = 0.0
            report(now)
            if done < count:
                offer(index, now, 1, done, rough, gone)

        if rough is not None and not fine:
            composition.advance(rough, escaped, t, length, count // 2, done, twin)
            done = 0
        escaped = composition.advance(x, escaped, t, length, count, done, seen)
        fine = done = 0
        require_finite(composition.finite(x, anew=True), t + length, progress.steps + count)  # also what came after the last sweep
        if rough is not None:
            require_finite(composition.finite(rough, anew=True), t + length, progress.steps + count)
            sweeps = len(composition.structure.parts) * (progress.steps + count)
            progress.time_error = max(progress.time_error, stated(composition.difference(x, rough), composition.dtype, sweeps))
        rough = rough if index < len(counts) else None
        progress.tail = max(progress.tail or 0.0, composition.tail(x))
        progress.steps += count
        progress.applications += count
        progress.dt = length / count
        yield whole_frame(slabs, dim, x.axis, Frame(index, float(end), x.x, escaped, progress))
        offer(index + 1, float(end), 0, 0, rough, escaped)


def require_finite(finite: bool, t: float, step: int) -> None:
    """Stop on all processes alike."""
    if not finite:
        raise SolverError("rho", "must stay finite", f"NaN or infinity at t = {t:.6g}, step {step}", "Check the coefficients near the ends of the box")
