r"""Advance a state by equal steps of exactly positive channels, chosen before the run: where drifts must move by whole cells.

The run is done with ever shorter steps out of a ladder; the difference of two runs, divided by what the order of the composition says,
estimates the error of the finer one, and the first that meets the tolerance is kept. Every run is linear in the state and completely positive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..channels.guards import OpenEnds
from ..channels.positive import PositiveComposition
from ..checkpoint import NoKeeper, Saved
from ..components import trace_norm_bound
from ..errors import RouteError
from .evolve import Frame, Progress, require_finite

Array = np.ndarray


#: Probability that a step may carry beyond an open end.
MOST_BEYOND = 1e-3


def run_whole_steps(
    composition: PositiveComposition,
    ends: OpenEnds,
    x: Array,
    batch: int,
    times: Array,
    stops: Array,
    tol: float,
    ladder: list[Array],
    remedy: Callable[[float], str],
    report: Callable[[float], None],
    keeper: NoKeeper | None = None,
) -> Iterator[Frame]:
    """Yield a frame at every one of ``times``.

    Parameters
    ----------
    x : array (d^2, batch * cells)
    stops : array
        ``times`` and the jumps of the coefficients: steps end there.
    ladder : list of int array
        Numbers of steps between the ``stops``, from few to many.
    remedy : callable
        Says what would meet the tolerance, from a step that would be short enough (infinite if nothing is known).
    keeper : NoKeeper, optional
        Is offered the state after every step; where it resumes a run, only the frames that are left are yielded.

    Raises
    ------
    RouteError
        If no steps of the ladder meet ``tol``.
    """
    volume, keeper = composition.grid.cell_volume, keeper or NoKeeper()
    saved, initial = keeper.resumed, x
    e = np.zeros((batch, 2 * composition.grid.ndim, x.shape[0]))
    if saved is None:
        yield Frame(0, float(times[0]), x, e, Progress())
    elif saved.count("index", 1, len(times)) == len(times):
        return
    gaps = np.diff(stops)
    longest, shortest = composition.longest() * (1 + 1e-9), composition.shortest(tol) * (1 - 1e-9)
    usable = [c for c in ladder if np.max(gaps / c) <= longest and np.min(gaps / c) >= shortest]
    coarse: list[Array] | None = None
    before, estimate, first = 1, np.inf, 0
    if saved is not None:
        first, before, estimate = saved.count("position", 0, len(usable) - 1), saved.count("before", 1, 1 << 60), saved.number("estimate")
        composition.restore(saved.count("applications", 0, 1 << 60), 0.0)
        if "coarse 0" in saved.arrays:
            coarse = [saved.array(f"coarse {k}", *x.shape) for k in range(len(times) - 1)]
    for position, counts in enumerate(usable[first:], start=first):

        def offer(march: dict[str, Any], position: int = position, coarse: list[Array] | None = coarse, before: int = before, estimate: float = estimate) -> None:
            keeper.offer(1, lambda: _state(march, composition, position, coarse, before, estimate))

        here, saved = saved, None
        try:
            fine, edge = _march(composition, ends, initial, batch, times, stops, counts, report, offer, here)
        except RouteError:
            if position == len(usable) - 1:
                raise
            coarse = None
            continue
        if coarse is not None:
            ratio = (counts.sum() / before) ** composition.order
            bounds = [trace_norm_bound(a - b, batch, volume) / (ratio - 1.0) for a, b in zip(fine, coarse, strict=True)]
            estimate = max(bounds)
            if estimate <= tol:
                for index, (state, bound) in enumerate(zip(fine, bounds, strict=True), start=1):
                    done = int(counts[stops[1:] <= times[index]].sum())
                    step = float(np.max(gaps / counts))
                    yield Frame(index, float(times[index]), state, e, Progress(done, 0, step, bound, composition.applications, edge=edge))
                keeper.offer(len(times), lambda: ({}, {"t": float(times[-1])}))
                return
        coarse, before = fine, int(counts.sum())
    enough = float("inf")
    if np.isfinite(estimate):
        enough = float(np.max(gaps / usable[-1])) * (tol / estimate) ** (1.0 / composition.order)
        found = f"error {estimate:.3g} with steps of {np.max(gaps / usable[-1]):.4g}"
    else:
        found = f"{len(usable)} kinds of steps from {shortest:.3g} to {min(longest, np.max(gaps)):.3g} (two are compared)"
    raise RouteError("tol", "not met by exactly positive steps on these cells", found, remedy(enough))


def _march(
    composition: PositiveComposition, ends: OpenEnds, x: Array, batch: int, times: Array, stops: Array, counts: Array, report: Callable[[float], None],
    offer: Callable[[dict[str, Any]], None], saved: Saved | None,
) -> tuple[list[Array], float]:  # fmt: skip
    """States at all outputs but the first, and the most that a step carried beyond an open end."""
    out: list[Array] = []
    edge, first, begun = 0.0, 0, 0
    if saved is not None:
        x, edge, first = saved.array("x", *x.shape), saved.number("edge"), saved.count("stop", 0, len(counts) - 1)
        out = [saved.array(f"out {k}", *x.shape) for k in range(sum(1 for stop in stops[1 : first + 1] if stop in times))]
        begun = saved.count("done", 0, int(counts[first]))
    shape = (x.shape[0], batch, *composition.grid.shape)
    e = np.zeros((batch, 2 * composition.grid.ndim, x.shape[0]))
    for number in range(first, len(counts)):
        start, end, count = stops[number], stops[number + 1], counts[number]
        dt = float(end - start) / int(count)
        for k in range(begun, int(count)):
            edge = max(edge, ends.beyond(x.reshape(shape), dt))
            if edge > MOST_BEYOND:
                raise RouteError("Grid", "the split route needs open ends out of reach", f"a step carries {edge:.2g} there", "Widen the box, or use method='fv'")
            x, _ = composition.step(x, e, float(start) + k * dt, dt)
            report(float(start) + (k + 1) * dt)
            require_finite(x, composition.grid, float(start) + (k + 1) * dt, k + 1)
            if (number, k) != (len(counts) - 1, int(count) - 1):  # the last step is compared before anything is written
                offer({"x": x, "out": out, "edge": edge, "stop": number, "done": k + 1, "t": float(start) + (k + 1) * dt})
        begun = 0
        if end in times:
            out.append(x)
    return out, edge


def _state(
    march: dict[str, Any], composition: PositiveComposition, position: int, coarse: list[Array] | None, before: int, estimate: float
) -> tuple[dict[str, Array], dict[str, Any]]:
    """What a run goes on from: the march under way, and the one before that it is compared with."""
    arrays = {"x": march["x"]}
    for name, states in (("out", march["out"]), ("coarse", coarse or [])):
        arrays |= {f"{name} {k}": state for k, state in enumerate(states)}
    numbers = {name: march[name] for name in ("edge", "stop", "done", "t")}
    return arrays, {**numbers, "position": position, "before": before, "estimate": float(estimate), "applications": composition.applications}
