"""Equal steps of the split route on slabs (the twin of integrate/fixed_steps.py), every process with its part of the state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..checkpoint import NoKeeper
from ..components import min_eigenvalues, relative_eigenvalue
from ..errors import RouteError, SolverError
from ..integrate.evolve import Progress
from ..integrate.fixed_steps import MOST_BEYOND
from ..kernels.diagnostics import survey
from .composition import SlabComposition
from .slabs import Field

Array = np.ndarray


@dataclass(frozen=True)
class SlabFrame:
    """One output: the field where it is, and what belongs to the whole of it."""

    index: int
    t: float
    field: Field
    escaped: Array
    progress: Progress
    trace: Array
    smallest: Array
    ends: Array


def fixed_steps(composition: SlabComposition, x: Field, times: Array, dt: float, report: Callable[[float], None], keeper: NoKeeper) -> Iterator[SlabFrame]:
    """Yield a frame at every one of ``times``; the field goes on from where it is, so a frame is to be used before the next is asked for.

    Parameters
    ----------
    x : Field
        State at the first time, in the basis of the composition; stepped in place.
    dt : float
        Step; the actual one is the next smaller of which an even number fills the gap (one step where that has no time error).
    keeper : NoKeeper
        On the first process the one that writes: it gets the whole state, so that a run goes on with any number of processes.

    Raises
    ------
    RouteError
        If a step carries more than 1e-3 beyond an open end.
    SolverError
        If the state becomes non-finite on any process.
    """
    counts = [1 if composition.exact else 2 * int(np.ceil(0.5 * gap / dt - 1e-9)) for gap in np.diff(times)]
    slabs, ndim, size = composition.slabs, composition.grid.ndim, x.x.shape[:2]
    escaped = np.zeros((size[1], 2 * ndim, size[0]))
    progress, watched = Progress(tail=0.0), [not a.periodic for a in composition.grid.axes for _ in a.ends]
    first, fine, done = 1, 0, 0  # fine: the twin has come to the next output; done: steps since the last one
    rough: Field | None
    if not keeper.resumes:
        yield _frame(composition, 0, float(times[0]), x, escaped, progress)
        rough = None if composition.exact else x.copy()
    else:
        saved = keeper.resumed  # on the first process
        whole, twin_whole = None, None
        if saved is not None:
            first, fine, done = saved.count("index", 1, len(times)), saved.count("fine", 0, 1), saved.count("done", 0, max(counts))
            shape = (*size, *composition.grid.shape)
            twin_whole = None if composition.exact or first == len(times) else saved.array("rough", *shape)
            whole, escaped, progress = saved.array("x", *shape), saved.array("escaped", *escaped.shape), Progress(**saved.fields("progress", progress))
        first, fine, done, known = slabs.comm.bcast((first, fine, done, vars(progress)))
        progress = Progress(**known)
        x.x[...] = slabs.hand_out(whole, size, x.axis)
        rough = None if composition.exact or first == len(times) else slabs.field(slabs.hand_out(twin_whole, size, x.axis), x.axis)

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
            offer(index, now, *((0, done) if done < half else (1, 0)), y, escaped)

        def seen(now: float, done: int, y: Field, gone: Array, index: int = index, count: int = count, rough: Field | None = rough) -> None:
            if not np.isfinite(slabs.total(np.sum(x.x))):
                raise SolverError("rho", "must stay finite", f"NaN or infinity at t = {now:.6g}, step {progress.steps + done}", "Check the coefficients near the ends of the box")
            progress.edge = max(progress.edge, float(composition.ends(x, np.abs)[watched].max(initial=0.0)))
            report(now)
            if done < count:
                offer(index, now, 1, done, rough, gone)

        if rough is not None and not fine:
            composition.advance(rough, escaped, t, length, count // 2, done, twin)
            done = 0
        escaped = composition.advance(x, escaped, t, length, count, done, seen)
        fine = done = 0
        if rough is not None:
            progress.time_error = max(progress.time_error, composition.difference(x, rough))
        rough = rough if index < len(counts) else None
        progress.tail = max(progress.tail or 0.0, composition.tail(x))
        progress.steps += count
        progress.applications += count
        progress.dt = length / count
        yield _frame(composition, index, float(end), x, escaped, progress)
        offer(index + 1, float(end), 0, 0, rough, escaped)


def _frame(composition: SlabComposition, index: int, t: float, x: Field, escaped: Array, progress: Progress) -> SlabFrame:
    dim, slabs = composition.model.dim, composition.slabs
    trace, smallest, gone = np.zeros(x.x.shape[1]), np.zeros(x.x.shape[1]), slabs.total(escaped)
    for b in range(x.x.shape[1]):
        one = np.ascontiguousarray(x.x[:, b]).reshape(dim**2, -1)
        total, largest, least = survey(one, dim)
        if dim > 2:
            least = float(min_eigenvalues(one).min())
        trace[b] = float(slabs.total(total)) * composition.grid.cell_volume
        box = composition.grid.cell_volume * float(np.prod(composition.grid.shape))
        smallest[b] = relative_eigenvalue(-slabs.largest(-least), slabs.largest(largest), trace[b] + float(gone[b, :, :dim].sum()), box)
    if not np.all(np.isfinite(trace)) or not np.all(np.isfinite(smallest)):
        raise SolverError("rho", "must stay finite", f"NaN or infinity at t = {t:.6g}, step {progress.steps}", "Check the coefficients near the ends of the box")
    return SlabFrame(index, t, x, gone, Progress(**vars(progress)), trace, smallest, composition.ends(x, np.asarray).T)
