r"""Advance a state by extrapolated symmetric chains: order and step follow the tolerance.

A symmetric composition (channels/compose.py) over a step H, done as n = 1, 2, 3, ... equal steps, has the error series
:math:`c_2 (H/n)^2 + c_4 (H/n)^4 + \dots`; the combination of k of them

.. math:: T_k = \sum_n w_n S(H/n)^n, \qquad w_n = \prod_{j\ne n} \frac{n^2}{n^2 - j^2}

is of order 2k (W. Gragg 1965; R. Bulirsch, J. Stoer 1966; for operator splittings S. Chin, Celest. Mech. Dyn. Astr. 106, 391 (2010)). The
weights are of both signs, so positivity holds to the size of the error and not exactly. Chains are added until the estimate meets the
tolerance's share of the step. The difference :math:`e_k = \|T_k - T_{k-1}\|` measures the error of the lower order, and a chain of
:math:`n_k` steps divides the error by :math:`n_k^2/\kappa` with nearly the same :math:`\kappa` each time, so the error of :math:`T_k` is
estimated as :math:`e_k (e_k/e_{k-1}) (n_{k-1}/n_k)^2`, with a factor ``SAFETY``; the same law picks the number of steps of a last chain. A
step that would need more than ``MAX_CHAINS`` chains is halved.

Steps end where a coefficient jumps in time. Between jumps time is counted in integer fractions ``2^-k``. Output times inside a step are
reached by a side step that the run itself does not take, so asking for more output does not change the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ..channels.compose import Composition
from ..channels.resolution import Start, more_cells, norm_of_tail, resample_to, spread
from ..checkpoint import Make, NoKeeper, Saved
from ..components import trace_norm_bound
from ..errors import OptionError, RouteError, SolverError
from ..grid import Grid
from .evolve import MAX_LEVEL, ROUND_OFF, Frame, Progress, between_jumps, level_of, require_finite

Array = np.ndarray

#: Most chains that one step combines: order 2 * MAX_CHAINS.
MAX_CHAINS = 7

#: Factor on the error estimate.
SAFETY = 1.5

#: With states of more values than this, no more than so many chains, to save memory.
LARGE, LARGE_CHAINS = 1 << 23, 3

#: Share of the tolerance that the modes left out may take.
RESOLUTION_SHARE = 0.1

#: Successive differences that shrink by less than this do not converge: the step is too long.
HOPELESS = 0.5

#: A step's time error may be this share of what the user's cells leave out, where that is more than the tolerance.
LIMIT_SHARE = 0.03

#: Halvings in a row without effect after which a run is given up.
MOST_STUCK = 3

#: Steps after which another route is the better one.
MAX_STEPS = 10_000

#: A step shorter than this part of the run straddles a jump in time, and may use that share of the tolerance.
JUMP, JUMP_SHARE = 2.0**-12, 2.0**-6

#: A step that moves anything by more than so many cells may carry no more than so much probability beyond an open end.
SHORT_MOVE, BEYOND = 1.5, 1e-5

#: Nodes and weights on [0, 1] for the integral of the coefficients over a step.
GAUSS = tuple(a * 0.5 + b for a, b in zip(np.polynomial.legendre.leggauss(16), (0.5, 0.0), strict=True))

def weights(counts: list[int]) -> Array:
    """Weights of chains of so many steps in the combination of highest order."""
    n = np.array(counts, dtype=float) ** 2
    return np.array([np.prod([m / (m - j) for j in n if j != m]) for m in n])


def next_count(counts: list[int], kappa: float, difference: float, allowed: float) -> int:
    """Steps of the next chain: the one that is forecast to finish, if it costs less than the next two in order."""
    last = counts[-1]
    if len(counts) < 3 or allowed <= 0.0:
        return last + 1
    # the error after the next chain is difference * (kappa / last^2) * (kappa / n^2)
    needed = int(np.ceil(kappa / last * (SAFETY * difference / allowed) ** 0.5)) if np.isfinite(difference) else last + 1
    return needed if last < needed < 2 * last + 3 else last + 1


@dataclass(frozen=True)
class Attempt:
    """One step: the new state if it was accepted, its error estimate, and the watched bands of its last chain."""

    x: Array
    escaped: Array
    error: float
    accepted: bool
    chains: int
    ratio: float
    tails: list[float]


@dataclass
class SplitRun:
    """The split route at order 2 to 14, with its step, its chains and its cells chosen by the tolerance.

    Attributes
    ----------
    compose : callable
        Makes the composition on a grid.
    grid : Grid
        The user's cells, on which frames are returned.
    start : Start
        The initial state on the cells that carry it.
    adaptive : bool
        Whether fewer cells than the user's may be used inside.
    coefficients : callable or None
        What depends on t, as one array per time: chains sample it at few times, whose integral is compared with a better one.
    """

    compose: Callable[[Grid], Composition]
    grid: Grid
    dim: int
    tol: float
    start: Start
    adaptive: bool = True
    coefficients: Callable[[float], Array] | None = None
    progress: Progress = field(default_factory=Progress)
    inner: Composition | None = None
    aside: Composition | None = None
    length: float = 1.0
    most_chains: int = 1
    discarded: float = 0.0

    def frames(
        self, x: Array, times: Array, jumps: tuple[float, ...], dt_max: float, report: Callable[[float], None], keeper: NoKeeper | None = None
    ) -> Iterator[Frame]:
        """Yield a :class:`~cqpde.integrate.evolve.Frame` at every one of ``times``.

        Parameters
        ----------
        x : array (d^2, batch, *cells)
            State at the first time, in the basis of the composition.
        jumps : tuple of float
            Times at which a coefficient jumps.
        keeper : NoKeeper, optional
            Is offered the state after every step; where it resumes a run, only the frames that are left are yielded.

        Raises
        ------
        SolverError
            If the state becomes non-finite or no step meets the tolerance.
        """
        keeper = keeper or NoKeeper()
        batch, saved, first, stretches = x.shape[1], keeper.resumed, 0, between_jumps(times, jumps)
        escaped = np.zeros((batch, 2 * self.grid.ndim, x.shape[0]))
        self.progress.tail = 0.0
        self.length = float(times[-1] - times[0])
        if saved is None:
            yield Frame(0, float(times[0]), x.reshape(x.shape[0], -1), escaped, replace(self.progress))
            x = self.start.x if self.adaptive else x
            self.inner = self._on(self.start.cells if self.adaptive else self.grid.shape)
        else:
            first = saved.count("stretch", 0, len(stretches) - 1)
            x, escaped = self._restore(saved, batch, x.shape[0])
        for stretch, (start, end) in enumerate(stretches[first:], start=first):
            here = saved if stretch == first else None
            x, escaped = yield from self._stretch(x, escaped, times, start, end, dt_max, report, keeper, stretch, here)

    def _on(self, cells: tuple[int, ...]) -> Composition:
        return self.compose(self.grid.with_cells(**dict(zip(self.grid.names, cells, strict=True))))

    def _state(self, x: Array, escaped: Array, **where: float) -> Make:
        """What a run goes on from."""
        aside = None if self.aside is None else list(self.aside.grid.shape)
        cells = {"cells": list(self._composition.grid.shape), "aside": aside}
        return lambda: ({"x": x, "escaped": escaped}, {"progress": vars(self.progress), "most_chains": self.most_chains, **cells, **where})

    def _restore(self, saved: Saved, batch: int, components: int) -> tuple[Array, Array]:
        if "cells" not in saved.record:
            raise OptionError("comm", "step control of the split route began on several processes, where it is of another order", "one", "Resume it with mpiexec -n 2 or more")
        cells = saved.cells("cells", self.grid.shape)
        self.inner = self._on(cells)
        self.aside = None if saved.record.get("aside") is None else self._on(saved.cells("aside", self.grid.shape))
        self.progress = Progress(**saved.fields("progress", self.progress))
        self.most_chains = saved.count("most_chains", 1, MAX_CHAINS)
        return saved.array("x", components, batch, *cells), saved.array("escaped", batch, 2 * self.grid.ndim, components)

    def _stretch(
        self, x: Array, escaped: Array, times: Array, start: float, end: float, dt_max: float, report: Callable[[float], None],
        keeper: NoKeeper, stretch: int, saved: Saved | None,
    ) -> Generator[Frame, None, tuple[Array, Array]]:  # fmt: skip
        """Advance over a stretch in which no coefficient jumps; returns the state at its end."""
        length = end - start
        coarsest = level = level_of(length, dt_max)
        done, index, stuck, refused = 0, int(np.searchsorted(times, start, side="right")), 0, np.inf
        if saved is not None:
            level, index = saved.count("level", coarsest, MAX_LEVEL), saved.count("index", 1, len(times))
            done, stuck, refused = saved.count("done", 0, 1 << level), saved.count("stuck", 0, MOST_STUCK), saved.number("refused")
        while done < 1 << level:
            t, dt = start + length * done / (1 << level), length / (1 << level)
            ends = self._composition.open_ends(t, dt)
            if dt * ends.cells_per_time() > SHORT_MOVE and ends.beyond(x, dt) > BEYOND and level < MAX_LEVEL:
                # what crosses an open end must be seen there, not jump over it
                level, done = level + 1, 2 * done
                continue
            attempt = self._step(x, escaped, t, dt, self.tol * self._share(dt))
            if attempt.ratio < HOPELESS and self._grow(x, attempt):
                x = resample_to(x, self._composition.grid)
                continue
            if not attempt.accepted:
                self.progress.rejected += 1
                # halving a step divides its error by four at least, by two at a jump in time; what stays is not error of the time
                stuck = stuck + 1 if np.isfinite(attempt.error) and attempt.error > 0.75 * refused else 0
                refused = attempt.error
                if stuck >= MOST_STUCK:
                    raise RouteError(
                        "tol", "shorter steps do not lower the error: it is that of the cells", f"{attempt.error:.3g} at t = {t:.6g}",
                        "Use more cells, raise tol, or use method='fv'",
                    )  # fmt: skip
                require_finite(attempt.x.reshape(x.shape[0], -1), self._composition.grid, t + dt, self.progress.steps)
                jump = 2 if attempt.ratio >= HOPELESS else 1
                if level + jump > MAX_LEVEL:
                    raise RouteError(
                        "tol", "no step meets the tolerance", f"error {attempt.error:.3g} per step of {dt:.3g} at t = {t:.6g}", "Raise tol"
                    )
                level, done = level + jump, done << jump
                continue
            require_finite(attempt.x.reshape(x.shape[0], -1), self._composition.grid, t + dt, self.progress.steps)
            if self.progress.steps >= MAX_STEPS:
                raise RouteError("tol", f"met only with more than {MAX_STEPS} steps", f"steps of {dt:.3g} at t = {t:.6g}", "Raise tol, or use method='fv'")
            last = done + 1 == 1 << level
            before = replace(self.progress)
            self._account(attempt, dt, x)
            while index < len(times) and times[index] <= (end if last else t + dt):
                ahead = float(times[index]) - t
                side, counters = attempt, self.progress
                if abs(ahead - dt) > 1e-12 * length:
                    side = self._side(x, escaped, t, ahead)
                    counters = replace(before, dt=ahead, time_error=before.time_error + side.error, applications=self.progress.applications)
                    assert self.aside is not None
                    counters.tail = max(before.tail or 0.0, *self._tails(x, side.x, side.tails, self.aside))
                    counters.edge = max(before.edge, self._edge(side.x, self.aside.grid))
                yield Frame(index, float(times[index]), self._outside(side.x), side.escaped, replace(counters))
                index += 1
            x, escaped = attempt.x, attempt.escaped
            done += 1
            report(t + dt)
            if done % 2 == 0 and level > coarsest and attempt.chains <= 3:
                level, done = level - 1, done // 2
            keeper.offer(index, self._state(x, escaped, t=t + dt, stretch=stretch, level=level, done=done, stuck=stuck, refused=float(refused)))
        return x, escaped

    # -- one step ------------------------------------------------------------------------------------------------------
    def _step(self, x: Array, escaped: Array, t: float, dt: float, allowed: float) -> Attempt:
        composition, volume = self._composition, self._composition.grid.cell_volume
        most = MAX_CHAINS if x.size <= LARGE else LARGE_CHAINS
        floor = ROUND_OFF * (trace_norm_bound(x.reshape(x.shape[0], -1), x.shape[1], volume) + 1.0)
        states: list[Array] = []
        gone: list[Array] = []
        counts: list[int] = [1]
        error, previous, ratio = np.inf, np.inf, 1.0
        combined, left = x, escaped
        while True:
            tails = [0.0] * self.grid.ndim
            y, e = composition.chain(x, escaped, t, dt, counts[-1], tails)
            self.progress.applications += counts[-1]
            if composition.exact:
                return Attempt(y, e, 0.0, True, 1, 0.0, tails)
            states.append(y)
            gone.append(e)
            k, w = len(counts), weights(counts)
            fresh = sum(a * s for a, s in zip(w, states, strict=True))
            left = sum(a * s for a, s in zip(w, gone, strict=True))
            difference = np.inf
            if k > 1:
                difference = trace_norm_bound((fresh - combined).reshape(x.shape[0], -1), x.shape[1], volume)
                ratio = difference / previous if 0.0 < previous < np.inf else 1.0
                # each chain of n steps divides the error by n^2 / kappa
                gain = min(1.0, SAFETY * max(ratio, 1e-3) * (counts[-2] / counts[-1]) ** 2) if k > 2 else 1.0
                error, previous = difference * gain, difference
            combined = fresh
            if k == 2 and difference < HOPELESS and self._too_few(x, y, tails):
                return Attempt(combined, left, error, False, k, 0.0, tails)
            enough = k >= (3 if composition.model.time_dependent else 2)  # two regular samplings may agree on a jump by chance
            if enough and self._missed(t, dt, counts) > max(allowed, floor):
                enough = False
            if enough and (error <= max(allowed, floor) or error <= self._grid_limit(x, y, tails, dt)):
                return Attempt(combined, left, error, True, k, ratio, tails)
            # the ratio of successive differences falls from chain to chain, so this forecast errs on the hopeful side
            if k == most or (k >= 3 and (not np.isfinite(error) or error * ratio ** (2 * (most - k)) > 10.0 * allowed)):
                return Attempt(combined, left, error, False, k, ratio, tails)
            counts.append(next_count(counts, ratio * counts[-2] ** 2 if k > 2 else 1.0, difference, allowed))

    def _missed(self, t: float, dt: float, counts: list[int]) -> float:
        """Difference between the integral of the coefficients over a step as the chains sample it and by Gauss-Legendre quadrature."""
        if self.coefficients is None:
            return 0.0
        seen = sum(w / n * sum(self.coefficients(t + dt * (k + 0.5) / n) for k in range(n)) for n, w in zip(counts, weights(counts), strict=True))
        better = sum(w * self.coefficients(t + dt * at) for at, w in zip(*GAUSS, strict=True))
        return float(np.max(np.abs(seen - better))) * dt

    def _share(self, dt: float) -> float:
        """Share of the tolerance that a step may use: its share of the run, or one of a few jumps of a coefficient in time."""
        share = dt / self.length
        return share if share > JUMP else max(share, JUMP_SHARE)

    def _grid_limit(self, x: Array, y: Array, tails: list[float], dt: float) -> float:
        """Time error that is small beside what the user's cells leave out, for a step of ``dt``; zero where more cells can be had."""
        cells, user = self._composition.grid.shape, self.grid.shape
        limited = [t for t, n, m in zip(self._tails(x, y, tails), cells, user, strict=True) if n == m]
        return LIMIT_SHARE * max(limited, default=0.0) * dt / self.length

    def _side(self, x: Array, escaped: Array, t: float, dt: float) -> Attempt:
        """A step to an output time that lies inside a step of the run, in parts if need be, on cells of its own: the run keeps its."""
        main, parts = self._composition, 1
        if self.aside is None or any(n < m for n, m in zip(self.aside.grid.shape, main.grid.shape, strict=True)):
            self.aside = main
        self.inner = self.aside
        while True:
            y, e, error, grown = resample_to(x, self._composition.grid), escaped, 0.0, False
            for k in range(parts):
                attempt = self._step(y, e, t + k * dt / parts, dt / parts, self.tol * self._share(dt / parts))
                grown = attempt.ratio < HOPELESS and self._grow(y, attempt)
                if grown or not attempt.accepted:
                    break
                y, e, error = attempt.x, attempt.escaped, error + attempt.error
            else:
                self.aside, self.inner = self._composition, main
                return Attempt(y, e, error, True, attempt.chains, attempt.ratio, attempt.tails)
            if grown:  # the state on its way needs more cells than at the ends of the step
                continue
            parts *= 2
            if parts > 1 << 20:
                raise SolverError("tol", "no step meets the tolerance", f"at t = {t + dt:.6g}", "Raise tol")

    def _account(self, attempt: Attempt, dt: float, x: Array) -> None:
        self.progress.steps += 1
        self.most_chains = max(self.most_chains, attempt.chains)
        self.progress.dt = dt
        self.progress.time_error += attempt.error
        self.progress.tail = max(self.progress.tail or 0.0, *self._tails(x, attempt.x, attempt.tails))
        self.progress.edge = max(self.progress.edge, self._edge(attempt.x, self._composition.grid))

    def _edge(self, x: Array, grid: Grid) -> float:
        """Probability in the outermost cells of open axes, the largest over the batch, both ends of an axis together."""
        f, worst = x[: self.dim].sum(axis=0), 0.0
        for i, axis in enumerate(grid.axes):
            if not axis.periodic:
                ends = np.take(f, [0, -1], axis=i + 1)
                worst = max(worst, float(np.abs(ends).reshape(f.shape[0], -1).sum(axis=1).max()) * grid.cell_volume)
        return worst

    @property
    def seconds_setup(self) -> float:
        """Time spent in building flows."""
        return self.discarded + self._composition.seconds_setup

    # -- cells ---------------------------------------------------------------------------------------------------------
    @property
    def _composition(self) -> Composition:
        assert self.inner is not None
        return self.inner

    def _tails(self, x: Array, y: Array, tails: list[float], on: Composition | None = None) -> list[float]:
        volume = (on or self._composition).grid.cell_volume
        mine = self._composition.grid.cell_volume
        filled = min(max(spread(x, self.dim, mine), spread(y, self.dim, volume)), volume * y[0, 0].size)
        return [norm_of_tail(s, filled, volume, self.dim) for s in tails]

    def _grow(self, x: Array, attempt: Attempt) -> bool:
        """Give more cells to the axes whose watched band is too full; returns whether anything changed."""
        cells = {}
        for name in self._too_few(x, attempt.x, attempt.tails):
            cells[name] = more_cells(self._composition.grid.axis(name).n, self.grid.axis(name).n)
        if cells:
            self.discarded += self._composition.seconds_setup
            self.inner = self.compose(self._composition.grid.with_cells(**cells))
        return bool(cells)

    def _too_few(self, x: Array, y: Array, tails: list[float]) -> list[str]:
        """Axes whose watched band is too full although the user's grid has more cells."""
        if not self.adaptive:
            return []
        pairs = zip(self._composition.grid.axes, self.grid.axes, self._tails(x, y, tails), strict=True)
        return [a.name for a, user, tail in pairs if a.n < user.n and not tail <= RESOLUTION_SHARE * self.tol]

    def _outside(self, x: Array) -> Array:
        """The state on the user's cells, (components, batch * cells)."""
        return resample_to(x, self.grid).reshape(x.shape[0], -1)
