"""Equal steps of the split route on slabs (the twin of integrate/fixed_steps.py), every process with its part of the state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..components import min_eigenvalues
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


def fixed_steps(composition: SlabComposition, x: Field, times: Array, dt: float, report: Callable[[float], None]) -> Iterator[SlabFrame]:
    """Yield a frame at every one of ``times``; the field goes on from where it is, so a frame is to be used before the next is asked for.

    Parameters
    ----------
    x : Field
        State at the first time, in the basis of the composition; stepped in place.
    dt : float
        Step; the actual one is the next smaller of which an even number fills the gap (one step where that has no time error).

    Raises
    ------
    RouteError
        If a step carries more than 1e-3 beyond an open end.
    SolverError
        If the state becomes non-finite on any process.
    """
    counts = [1 if composition.exact else 2 * int(np.ceil(0.5 * gap / dt - 1e-9)) for gap in np.diff(times)]
    batch = x.x.shape[1]
    escaped = np.zeros((batch, 2 * composition.grid.ndim, x.x.shape[0]))
    progress, watched = Progress(tail=0.0), [not a.periodic for a in composition.grid.axes for _ in a.ends]
    yield _frame(composition, 0, float(times[0]), x, escaped, progress)
    rough = None if composition.exact else x.copy()
    for index, ((start, end), count) in enumerate(zip(pairwise(times), counts, strict=True), start=1):
        t, length = float(start), float(end - start)
        beyond = composition.beyond(x, t, length, length / (count if rough is None else count // 2))
        if beyond > MOST_BEYOND:
            raise RouteError("Grid", "the split route needs open ends out of reach", f"a step carries {beyond:.2g} there", "Widen the box")
        if rough is not None:
            composition.advance(rough, escaped, t, length, count // 2)

        def seen(now: float) -> None:
            progress.edge = max(progress.edge, float(composition.ends(x, np.abs)[watched].max(initial=0.0)))
            report(now)

        escaped = composition.advance(x, escaped, t, length, count, seen)
        if rough is not None:
            progress.time_error = max(progress.time_error, composition.difference(x, rough))
        rough = rough if index < len(counts) else None
        progress.tail = max(progress.tail or 0.0, composition.tail(x))
        progress.steps += count
        progress.applications += count
        progress.dt = length / count
        yield _frame(composition, index, float(end), x, escaped, progress)


def _frame(composition: SlabComposition, index: int, t: float, x: Field, escaped: Array, progress: Progress) -> SlabFrame:
    dim, slabs = composition.model.dim, composition.slabs
    trace, smallest = np.zeros(x.x.shape[1]), np.zeros(x.x.shape[1])
    for b in range(x.x.shape[1]):
        one = np.ascontiguousarray(x.x[:, b]).reshape(dim**2, -1)
        total, largest, least = survey(one, dim)
        if dim > 2:
            least = float(min_eigenvalues(one).min())
        trace[b] = float(slabs.total(total)) * composition.grid.cell_volume
        top, bottom = slabs.largest(largest), -slabs.largest(-least)
        smallest[b] = bottom / top if top > 0.0 else min(bottom, 0.0)
    if not np.all(np.isfinite(trace)) or not np.all(np.isfinite(smallest)):
        raise SolverError("rho", "must stay finite", f"NaN or infinity at t = {t:.6g}, step {progress.steps}", "Check the coefficients near the ends of the box")
    return SlabFrame(index, t, x, slabs.total(escaped), Progress(**vars(progress)), trace, smallest, composition.ends(x, np.asarray).T)
