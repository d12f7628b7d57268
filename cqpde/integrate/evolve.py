r"""Advance a state in time: one exponential where that is exact, symmetric splitting with error control where it is not.

Without limited transport and with coefficients constant in time the generator's exponential is the answer, to round-off. Otherwise
one step is :math:`E(dt/2)\,T(dt)\,E(dt/2)`: E the exponential of the generator at the step's midpoint, T the limited transport.
Every factor is completely positive (T: positive), so the whole is, at order 2. Each step is done once as a whole and once as two
halves; the halves are kept, a third of the difference estimates their error. Both remap the same number of times: the characteristics
of T are exact, so what a remap loses is error of the grid, not of time, and must not drive the step to zero. Completely positive
trace-preserving maps do not expand the trace norm, so the sum of the steps' errors bounds the run's time error.

Steps end where a coefficient jumps in time. Between jumps time is counted in integer fractions ``2^-k``. Output times inside a step are
reached by a side step that the run itself does not take, so asking for more output does not change the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from ..checkpoint import Make, NoKeeper
from ..components import empty_state, trace_norm_bound, upper_pairs
from ..errors import NotFinite, SolverError
from ..fv.assemble import Bounds, Layout
from ..fv.generator import Generator, make_generator
from ..fv.limited import LimitedTransport, StepTooLong
from ..grid import Grid
from ..model import Model
from .exponential import Exponential

Array = np.ndarray

#: Largest rate * time that one exponential spans.
MAX_SPAN = 2000.0

#: Largest rate * time of a whole run: beyond, it would take days on the fewest cells.
MOST_SPAN = 1e9

#: Differences of states below this are round-off.
ROUND_OFF = 3e-15

#: Finest step: the run's length over two to this power.
MAX_LEVEL = 40


@dataclass
class Progress:
    """Counters of a run, as they stand at an output.

    ``tail`` and ``edge`` are the largest content so far of the highest modes (integrated trace norm; None: not looked at) and of the
    outermost cells of open axes, where the route looks at them between outputs. ``skipped`` bounds the error of lines that were left as they are.
    """

    steps: int = 0
    rejected: int = 0
    dt: float = 0.0
    time_error: float = 0.0
    applications: int = 0
    tail: float | None = None
    edge: float = 0.0
    skipped: float = 0.0


@dataclass(frozen=True)
class Frame:
    """The state at an output time: components (d^2, batch * cells) and escaped matrices (batch, faces, d^2)."""

    index: int
    t: float
    x: Array
    escaped: Array
    progress: Progress


class Stepper(Protocol):
    """What the step control needs of a scheme."""

    grid: Grid
    first_level: int
    control_order: int

    @property
    def exact(self) -> bool:
        """Whether a step has no time error."""

    @property
    def applications(self) -> int:
        """Work done so far."""

    def restore(self, applications: int, peclet: float) -> None:
        """Go on counting from what a run that is resumed had done."""

    def step(self, x: Array, e: Array, t: float, dt: float, remaps: int = 1) -> tuple[Array, Array]:
        """One step."""

    def two_halves(self, x: Array, e: Array, t: float, dt: float) -> tuple[Array, Array]:
        """Two steps of half the length."""


@dataclass(frozen=True)
class Measures:
    """What step control asks of a state (d^2, batch * cells); processes that share a run answer together (parallel/measures.py)."""

    grid: Grid

    def norm(self, x: Array, batch: int) -> float:
        """Integrated trace norm (a bound of it), the largest over the batch."""
        return trace_norm_bound(x, batch, self.grid.cell_volume)

    def require_finite(self, x: Array, t: float, step: int) -> None:
        """See :func:`require_finite`."""
        require_finite(x, self.grid, t, step)


class Propagator:
    """One step of the scheme at order 2, with the generator of the time it needs."""

    #: The first step tried is the run's length over two to this power.
    first_level = 4

    #: Order in dt, which says what the difference of one step and two halves tells.
    control_order = 2

    def __init__(self, model: Model, grid: Grid, plan: Layout, transport: str, t0: float) -> None:
        self.model, self.grid, self.plan, self.transport = model, grid, plan, transport
        self.exponential = self._exponential()
        self.limited = self._limited() if transport == "limited" and plan.drifting else None
        self._time, self._generator = t0, self._make(t0)
        self.peclet = self._generator.peclet

    def _exponential(self) -> Exponential:
        return Exponential()

    def _limited(self) -> LimitedTransport:
        return LimitedTransport(self.model, self.grid, self.plan.drifting)

    def _make(self, t: float) -> Generator:
        return make_generator(self.model, self.grid, t, self.plan, self.transport)

    @property
    def applications(self) -> int:
        """How often the generator was applied."""
        return self.exponential.applications

    @property
    def exact(self) -> bool:
        """Whether a step has no time error."""
        return self.limited is None and not self.model.time_dependent

    def restore(self, applications: int, peclet: float) -> None:
        """Go on counting from what a run that is resumed had done."""
        self.exponential.applications, self.peclet = applications, max(self.peclet, peclet)

    def generator(self, t: float) -> Generator:
        """The generator at time ``t`` (the last one is kept)."""
        if self.model.time_dependent and t != self._time:
            self._time, self._generator = t, self._make(t)
            self.peclet = max(self.peclet, self._generator.peclet)
        return self._generator

    def step(self, x: Array, e: Array, t: float, dt: float, remaps: int = 1) -> tuple[Array, Array]:
        """``E(dt/2) T(dt) E(dt/2)`` from ``t`` to ``t + dt``, the transport done in ``remaps`` equal parts."""
        g = self.generator(t + 0.5 * dt)
        if self.limited is None:
            return self.exponential(g, x, e, dt)
        x, e = self.exponential(g, x, e, 0.5 * dt)
        spare = empty_state(x.shape, x.dtype)
        for k in range(remaps):
            x, spare = self.limited.step(x, spare, e, t + k * dt / remaps, dt / remaps)
        return self.exponential(g, x, e, 0.5 * dt)

    def two_halves(self, x: Array, e: Array, t: float, dt: float) -> tuple[Array, Array]:
        """Two steps of ``dt/2``; the exponentials in the middle are one where the coefficients do not change."""
        half = 0.5 * dt
        if self.limited is None or self.model.time_dependent or len(self.plan.drifting) > 1:
            return self.step(*self.step(x, e, t, half), t + half, half)
        g = self._generator
        x, e = self.exponential(g, x, e, 0.5 * half)
        x, spare = self.limited.step(x, empty_state(x.shape, x.dtype), e, t, half)
        x, e = self.exponential(g, x, e, half)
        x, _ = self.limited.step(x, spare, e, t + half, half)
        return self.exponential(g, x, e, 0.5 * half)


def require_finite(x: Array, grid: Grid, t: float, step: int) -> None:
    """Stop a run whose state has become non-finite, naming element, cell and time."""
    if np.isfinite(float(np.sum(x))):
        return
    component, place = np.argwhere(~np.isfinite(x))[0]
    cell = np.unravel_index(place % int(np.prod(grid.shape)), grid.shape)
    where = ", ".join(f"{a.name} = {a.centers[i]:.5g}" for a, i in zip(grid.axes, cell, strict=True))
    d = int(round(x.shape[0] ** 0.5))
    a, b = upper_pairs(d)
    pairs = [(i, i) for i in range(d)] + 2 * list(zip(a.tolist(), b.tolist(), strict=True))
    found = f"element {pairs[component]} at {where}, t = {t:.6g}, step {step}"
    raise NotFinite("rho", "must stay finite", found, "Check the coefficients there, or reduce dt_max", t)


def between_jumps(times: Array, jumps: tuple[float, ...]) -> list[tuple[float, float]]:
    """The stretches of a run between the times at which a coefficient jumps."""
    inside = [t for t in sorted(jumps) if times[0] < t < times[-1]]
    return list(pairwise([float(times[0]), *inside, float(times[-1])]))


def level_of(length: float, longest: float) -> int:
    """Least k for which ``length / 2^k`` is at most ``longest``."""
    return 0 if longest >= length else int(np.ceil(np.log2(length / longest) - 1e-9))


def evolve(
    propagator: Stepper,
    x: Array,
    batch: int,
    times: Array,
    jumps: tuple[float, ...],
    tol: float,
    dt_max: float,
    report: Callable[[float], None],
    keeper: NoKeeper | None = None,
    measures: Measures | None = None,
) -> Iterator[Frame]:
    """Yield a :class:`Frame` at every one of ``times``, the first being the start.

    Parameters
    ----------
    x : array (d^2, batch * cells)
    jumps : tuple of float
        Times at which a coefficient jumps.
    tol : float
        Bound of the time error of the whole run in integrated trace norm.
    report : callable
        Told the model time after every step.
    keeper : NoKeeper, optional
        Is offered the state after every step; where it resumes a run, only the frames that are left are yielded.
    measures : Measures, optional
        How large a state is.

    Raises
    ------
    SolverError
        If the state becomes non-finite or no step length meets ``tol``.
    """
    grid, keeper, measures = propagator.grid, keeper or NoKeeper(), measures or Measures(propagator.grid)
    e = np.zeros((batch, 2 * grid.ndim, x.shape[0]))
    progress = Progress()
    if keeper.resumed is None:
        yield Frame(0, float(times[0]), x, e, Progress())
    else:
        saved = keeper.resumed
        x, e, progress = saved.array("x", *x.shape), saved.array("e", *e.shape), Progress(**saved.fields("progress", progress))
        propagator.restore(saved.count("applications", 0, 1 << 60), saved.number("peclet"))
    if isinstance(propagator, Propagator):
        _require_span(propagator.generator(float(times[0])).bounds, grid, float(times[-1] - times[0]))
    if isinstance(propagator, Propagator) and propagator.exact:
        yield from _exact_run(propagator, x, e, times, dt_max, report, progress, keeper, measures)
    else:
        yield from _controlled_run(propagator, x, e, batch, times, jumps, tol, dt_max, report, progress, keeper, measures)


def _require_span(bounds: Bounds, grid: Grid, time: float) -> None:
    """Refuse a run that would never end: cells that are crossed far more often than anybody can compute."""
    span = (bounds.rate + bounds.frequency) * time
    if not span <= MOST_SPAN:
        raise SolverError(
            "Grid", f"the fastest rate times the length of the run must be at most {MOST_SPAN:g}", f"{span:.3g} on {grid}",
            "Check the units of box, noise and Hamiltonian; use wider cells or a shorter run",
        )  # fmt: skip


def _exact_run(
    propagator: Propagator,
    x: Array,
    e: Array,
    times: Array,
    dt_max: float,
    report: Callable[[float], None],
    progress: Progress,
    keeper: NoKeeper,
    measures: Measures,
) -> Iterator[Frame]:
    first, piece = 1, 0
    if keeper.resumed is not None:
        first, piece = keeper.resumed.count("gap", 1, len(times)), keeper.resumed.count("piece", 0, 1 << 40)
    bounds = propagator.generator(float(times[0])).bounds
    longest = min(dt_max, MAX_SPAN / max(bounds.rate + bounds.frequency, 1e-300))
    for index in range(first, len(times)):
        start, length = float(times[index - 1]), float(times[index] - times[index - 1])
        pieces = max(1, int(np.ceil(length / longest)))
        for k in range(piece, pieces):
            x, e = propagator.step(x, e, start + k * length / pieces, length / pieces)
            progress.steps += 1
            measures.require_finite(x, start + (k + 1) * length / pieces, progress.steps)
            report(start + (k + 1) * length / pieces)
            progress.dt = length / pieces
            progress.applications = propagator.applications
            if k < pieces - 1:
                keeper.offer(index, _state(propagator, x, e, progress, t=start + (k + 1) * length / pieces, gap=index, piece=k + 1))
        piece = 0
        yield Frame(index, float(times[index]), x, e, Progress(**vars(progress)))
        keeper.offer(index + 1, _state(propagator, x, e, progress, t=float(times[index]), gap=index + 1, piece=0))


def _controlled_run(
    propagator: Stepper,
    x: Array,
    e: Array,
    batch: int,
    times: Array,
    jumps: tuple[float, ...],
    tol: float,
    dt_max: float,
    report: Callable[[float], None],
    progress: Progress,
    keeper: NoKeeper,
    measures: Measures,
) -> Iterator[Frame]:
    run, index = float(times[-1] - times[0]), 1
    gain = 2.0**propagator.control_order
    saved, first, stretches = keeper.resumed, 0, between_jumps(times, jumps)
    if saved is not None:
        index, first = saved.count("index", 1, len(times)), saved.count("stretch", 0, len(stretches) - 1)
    for stretch, (start, end) in enumerate(stretches[first:], start=first):
        length = end - start
        coarsest = level_of(length, dt_max)
        level, done = max(level_of(length, run / 2**propagator.first_level), coarsest), 0  # done counts steps of the present level
        if saved is not None and stretch == first:
            level = saved.count("level", coarsest, MAX_LEVEL)
            done = saved.count("done", 0, 1 << level)
        while done < 1 << level:
            t, dt = start + length * done / (1 << level), length / (1 << level)
            try:
                whole, _ = propagator.step(x, e, t, dt, remaps=2)
                fine, fine_e = propagator.two_halves(x, e, t, dt)
                error = measures.norm(fine - whole, batch) / (gain - 1.0)
            except StepTooLong:
                error = np.inf
            allowed = max(tol * dt / run, ROUND_OFF)
            if not error <= allowed:
                if level >= MAX_LEVEL or np.isnan(error):
                    measures.require_finite(fine, t + dt, progress.steps)
                    raise SolverError(
                        "tol",
                        "no step meets the tolerance",
                        f"error {error:.3g} per step of {dt:.3g} at t = {t:.6g}",
                        "Raise tol or refine the grid",
                    )
                level, done, progress.rejected = level + 1, 2 * done, progress.rejected + 1
                continue
            measures.require_finite(fine, t + dt, progress.steps)
            progress.steps += 1
            progress.dt = dt
            progress.time_error += error
            progress.applications = propagator.applications
            last = done + 1 == 1 << level
            while index < len(times) and times[index] <= (end if last else t + dt):
                ahead = float(times[index]) - t
                if abs(ahead - dt) <= 1e-12 * length:
                    frame_x, frame_e = fine, fine_e
                else:
                    frame_x, frame_e = propagator.two_halves(x, e, t, ahead)
                yield Frame(index, float(times[index]), frame_x, frame_e, Progress(**vars(progress)))
                index += 1
            x, e = fine, fine_e
            done += 1
            report(t + dt)
            if done % 2 == 0 and level > coarsest and error < allowed / (1.5 * gain):
                level, done = level - 1, done // 2
            keeper.offer(index, _state(propagator, x, e, progress, t=t + dt, stretch=stretch, level=level, done=done))


def _state(propagator: Stepper, x: Array, e: Array, progress: Progress, **where: float) -> Make:
    """What a run goes on from."""
    peclet = float(getattr(propagator, "peclet", 0.0))
    return lambda: ({"x": x, "e": e}, {"progress": vars(progress), "applications": propagator.applications, "peclet": peclet, **where})
