r"""Symmetric composition of exact sub-flows: one step of order 2, and chains of n equal steps for the extrapolation.

A step over h of the groups :math:`F_1, ..., F_m` (outermost first) is

.. math:: S(h) = F_1(\tfrac h2)\cdots F_{m-1}(\tfrac h2)\,F_m(h)\,F_{m-1}(\tfrac h2)\cdots F_1(\tfrac h2),

coefficients taken at the step's midpoint. It is symmetric in time, so the error of n steps over H is a series in :math:`(H/n)^2` and
extrapolation gains two orders per chain (integrate/extrapolate.py). Between steps the two outer halves are one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numba
import numpy as np

from ..components import copy_state
from ..grid import Grid
from ..kernels.circulant import SWEPT
from ..model import Canonical, Model
from ..stencil import Stencil, StencilBuilder
from ..superoperators import excess, hamiltonian
from .convolution import Convolution
from .guards import OpenEnds
from .lines import LineMatrices, apply_lines, contraction, own_drift
from .parts import Kick, Lines, Part, Stream, Structure, depends, drift_parts, fields_at
from .spectral import (
    KickSymbol,
    Multiplier,
    apply_multiplier,
    exponential,
    kick_symbol,
    record_tails,
    stream_multiplier,
    transform,
)

Array = np.ndarray

#: Flows that a composition keeps for further steps, by number and memory.
KEPT_FLOWS, KEPT_BYTES = 256, 1 << 28


@dataclass
class Flow:
    """A part over one ``dt``, ready to be applied: at most one of each, in this order."""

    lines: LineMatrices | None = None
    multiplier: Multiplier | None = None
    axes: tuple[int, ...] = ()
    local: Stencil | None = None
    convolution: Convolution | None = None

    def convolved(self, x: Array, threshold: float = 0.0) -> tuple[float, float] | None:
        """Apply the multiplier to a large state (components, batch, *cells) in one sweep in place, if its lines can be split.

        In single precision to a small one too: the factor 1/n of a transform back, rounded, is a drift of the trace. Returns what
        :meth:`Convolution.apply` does, and None where nothing was done.
        """
        m = self.multiplier
        if m is None or len(self.axes) != 1 or (x.size <= SWEPT and x.dtype == np.float64) or not Convolution.fits(x.shape[self.axes[0] + 2]):
            return None
        if self.convolution is None or not self.convolution.suits(x):
            self.convolution = Convolution.of(m, x, self.axes[0] + 1)
        return self.convolution.apply(x, threshold)

    def rounded(self, dtype: Any) -> Flow:
        """The same with tables in the precision of the state."""
        if dtype == np.float64:
            return self
        return Flow(
            None if self.lines is None else replace(self.lines, matrices=self.lines.matrices.astype(dtype)),
            None if self.multiplier is None else replace(self.multiplier, table=self.multiplier.table.astype(np.complex64)),
            self.axes,
            None if self.local is None else replace(self.local, coef=self.local.coef.astype(dtype)),
        )

    @property
    def nbytes(self) -> int:
        """Memory of its tables; those of its convolution are made later (:meth:`Composition.convolve` counts them)."""
        lines = 0 if self.lines is None else self.lines.matrices.nbytes
        multiplier = 0 if self.multiplier is None else self.multiplier.table.nbytes
        return lines + multiplier + (0 if self.local is None else self.local.coef.nbytes)


@dataclass
class Known:
    """What has been evaluated of a model on a grid: the same for every run; for small grids kept with the model."""

    fields: dict[float, Canonical] = field(default_factory=dict)
    symbols: dict[tuple[Kick, float], KickSymbol] = field(default_factory=dict)
    drifts: dict[tuple[int, float], tuple[Array, Array, Array | None]] = field(default_factory=dict)
    flows: dict[tuple[Part, float, float], Flow] = field(default_factory=dict)
    ends: dict[tuple[float, ...], OpenEnds] = field(default_factory=dict)
    bytes: int = 0


@dataclass
class Composition:
    """The sub-flows of a model on a grid.

    Attributes
    ----------
    grid : Grid
        Cells on which the state is evolved.
    t0 : float
        Where coefficients that do not depend on t are evaluated.
    accuracy : float
        Of the characteristics of a drift that depends on its own coordinate, per unit time and relative to the length of its axis.
    known : Known
    seconds_setup : float
        Time spent in building flows.
    dtype : dtype
        Precision of the state; tables are built in double precision and kept in this one.
    skip_below : float
        Kicks and streams of large states leave lines as they are that have no number of this magnitude.
    left_out : float
        Integrated trace norm (a bound of it) of what was left so, summed over sweeps.
    watch : float
    watched : set of int
        A number that is finite if the sweeps have met finite numbers only, and the components that they went over, since :meth:`finite` last asked.
    """

    model: Model
    grid: Grid
    structure: Structure
    t0: float = 0.0
    accuracy: float = 1e-11
    known: Known = field(default_factory=Known)
    seconds_setup: float = 0.0
    dtype: Any = np.float64
    skip_below: float = 0.0
    left_out: float = 0.0
    watch: float = 0.0
    watched: set[int] = field(default_factory=set)

    @property
    def exact(self) -> bool:
        """Whether all parts commute and nothing depends on t, so that one step has no time error."""
        return len(self.structure.groups) <= 1 and not self.model.time_dependent

    # -- building ------------------------------------------------------------------------------------------------------
    def _at(self, t: float) -> Canonical:
        return remembered(
            self.known.fields, t, 4, lambda: fields_at(self.model, self.grid.mesh(), t, self.structure.basis)
        )

    def _drift(self, i: int, t: float) -> tuple[Array, Array, Array | None]:
        return remembered(self.known.drifts, (i, t), 64, lambda: drift_parts(self.model, self.grid, t, i))

    def _symbol(self, kick: Kick, t: float) -> KickSymbol:
        def make() -> KickSymbol:
            drifts = {i: self._drift(i, t) for i in kick.axes}
            carried = {i: g for i, (g, _, _) in drifts.items() if not depends(g, kick.axes)}
            gamma = drifts[kick.axes[0]][2] if kick.relax else None
            return kick_symbol(self._at(t), self.grid, kick, carried, gamma)

        return remembered(self.known.symbols, (kick, t), 16, make)

    def flow(self, part: Part, t: float, dt: float) -> Flow:
        """The part over ``dt``, to 15 digits (equal gaps between outputs differ in the last ones), with coefficients at ``t``."""
        dt = float(f"{dt:.15g}")
        at = t if self.model.time_dependent else self.t0
        key = (part, at, dt)
        if key not in self.known.flows:
            flow = self._timed(part, at, dt)
            self.known.bytes += flow.nbytes
            if self.known.bytes > KEPT_BYTES or len(self.known.flows) > KEPT_FLOWS:
                self.known.flows.clear()
                self.known.bytes = flow.nbytes
            self.known.flows[key] = flow
        return self.known.flows[key]

    def _timed(self, part: Part, t: float, dt: float) -> Flow:
        began = time.perf_counter()
        flow = self._build(part, t, dt).rounded(self.dtype)
        self.seconds_setup += time.perf_counter() - began
        return flow

    def _build(self, part: Part, t: float, dt: float) -> Flow:
        grid = self.grid
        if isinstance(part, Kick):
            symbol = self._symbol(part, t)
            lines = contraction(grid, part.axes[0], symbol.gamma, dt) if symbol.gamma is not None else None
            return Flow(lines, symbol.over(dt), part.axes)
        if isinstance(part, Stream):
            g, _, gamma = self._drift(part.axis, t)
            gamma = gamma if part.relax else None
            lines = contraction(grid, part.axis, gamma, dt) if gamma is not None else None
            return Flow(lines, stream_multiplier(grid, part.axis, g, gamma, dt, self.model.dim**2), (part.axis,))
        if isinstance(part, Lines):
            return Flow(own_drift(self.model, grid, part, t, dt, self.accuracy))
        return Flow(local=local_flow(self._at(t), grid, dt))

    # -- applying ------------------------------------------------------------------------------------------------------
    def apply(self, flows: list[Flow], x: Array, escaped: Array, tails: list[float] | None) -> None:
        """Apply flows to ``x`` (components, batch, *cells) in place; adds to ``escaped`` (batch, faces, components)."""
        for flow in flows:
            if flow.lines is not None:
                gone = apply_lines(x, flow.lines, self.grid.cell_volume)
                if tails is not None:
                    record_tails(transform(x, (flow.lines.axis + 2,), 1), self.grid, (flow.lines.axis,), tails)
                if gone is not None:
                    escaped[:, 2 * flow.lines.axis : 2 * flow.lines.axis + 2] += gone
            if flow.multiplier is not None:
                if tails is not None or not self.convolve(flow, x):
                    content = apply_multiplier(x, flow.multiplier, self.grid, flow.axes, tails, numba.get_num_threads(), self.skip_below)
                    self.left_out += content * self.grid.cell_volume
            if flow.local is not None:
                flow.local.apply_in_place(x.reshape(x.shape[0], -1), x.shape[1])

    def convolve(self, flow: Flow, x: Array) -> bool:
        """Sweep a large state (see :meth:`Flow.convolved`); whether that was possible."""
        before = flow.convolution
        found = flow.convolved(x, self.skip_below)
        if found is None or flow.convolution is None:
            return False
        if flow.convolution is not before:
            self.known.bytes += flow.convolution.nbytes
        self.left_out += found[0] * self.grid.cell_volume
        self.watch += found[1]
        self.watched.update(flow.convolution.members.tolist())
        return True

    def finite(self, x: Array, anew: bool = False) -> bool:
        """Whether the sweeps since the last call met finite numbers only; a look at ``x`` itself, where they did not go over all components or ``anew``."""
        total = self.watch if len(self.watched) == len(x) and not anew else float(np.sum(x))
        self.watch, self.watched = 0.0, set()
        return bool(np.isfinite(total))

    def open_ends(self, t: float, dt: float) -> OpenEnds:
        """What a step from ``t`` may carry beyond the open ends."""
        at = tuple(t + dt * share for share in (0.0, 0.25, 0.5, 0.75, 1.0)) if self.model.time_dependent else (self.t0,)
        return remembered(self.known.ends, at, 4, lambda: OpenEnds(self.model, self.grid, self.structure, at))

    def chain(
        self, x: Array, escaped: Array, t: float, length: float, n: int, tails: list[float] | None, *,
        in_place: bool = False, first: int = 0, seen: Callable[[float, int, Array, Array], None] | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """``n`` symmetric steps over ``length`` from ``t``; returns a new state (unless ``in_place``) and what escaped.

        Parameters
        ----------
        tails : list of float per axis, or None
            Raised to the content of the watched band at the middle step and at the end.
        first : int
            Go on from here: ``x``, ``escaped`` and ``tails`` are those that ``seen`` was shown after so many steps.
        seen : callable, optional
            Called after every step with the time, the number of steps done, the state (halfway into what merges two steps) and what escaped.
        """
        x, escaped = x if in_place else copy_state(x), escaped.copy()
        groups, h = self.structure.groups, length / n
        merge = len(groups) > 1 and not self.model.time_dependent
        flows: dict[tuple[int, float], list[Flow]] = {}

        def over(depth: int, dt: float, middle: float) -> list[Flow]:
            if (depth, dt) not in flows:
                flows[depth, dt] = [self.flow(part, middle, dt) for part in groups[depth]]
            return flows[depth, dt]

        for k in range(first, n):
            middle = t + (k + 0.5) * h
            if self.model.time_dependent:
                flows.clear()
            look = tails if k in (n // 2, n - 1) else None
            for depth in range(1 if merge and k > 0 else 0, len(groups) - 1):
                self.apply(over(depth, 0.5 * h, middle), x, escaped, look)
            if groups:
                self.apply(over(len(groups) - 1, h, middle), x, escaped, look)
            for depth in range(len(groups) - 2, -1, -1):
                whole = depth == 0 and merge and k < n - 1
                self.apply(over(depth, h if whole else 0.5 * h, middle), x, escaped, look)
            if seen is not None:
                seen(t + (k + 1) * h, k + 1, x, escaped)
        return x, escaped


def turn(rho: Array, basis: Array | None, back: bool) -> Array:
    """``U^+ rho U``, or ``U rho U^+`` on the way back."""
    if basis is None:
        return rho
    left = (basis if back else basis.conj().T).astype(rho.dtype)
    return np.asarray(np.einsum("ij,jk...,kl->il...", left, rho, left.conj().T, optimize=True))


def remembered(store: dict[Any, Any], key: Any, most: int, make: Callable[[], Any]) -> Any:
    """The value of ``key``, made if it is not in ``store``, which is emptied when it holds ``most``."""
    if key not in store:
        if len(store) >= most:
            store.clear()
        store[key] = make()
    return store[key]


def local_flow(fields: Canonical, grid: Grid, dt: float) -> Stencil:
    """Exact exponential of Hamiltonian and excess over ``dt``, once per distinct value of their matrix."""
    matrices = dt * (hamiltonian(fields) + excess(fields))
    distinct, where = np.unique(matrices.reshape(-1, *matrices.shape[-2:]), axis=0, return_inverse=True)
    flow = exponential(distinct.astype(complex)).real[where.reshape(-1)].reshape(matrices.shape)
    builder = StencilBuilder(grid, fields.H.shape[-1])
    builder.matrix((0,) * grid.ndim, flow)
    return builder.build()
