r"""Composition of channels that are each completely positive to round-off: Kraus kicks, exact local exponentials, positive transport.

A step is :math:`N(dt/2)\,Q(dt/2)\,T(dt)\,Q(dt/2)\,N(dt/2)`, of order 2, or the forward step of order 4 (``forward``). With whole-cell shifts every factor is completely positive,
trace-preserving and linear in the state; with limited remaps T is positive and conservative, but not linear.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np

from ..errors import SolverError
from ..fv.limited import LimitedTransport
from ..grid import Grid
from ..kernels.spectral import shift_lines
from ..model import Canonical, Model
from ..stencil import Stencil
from .compose import local_flow, remembered
from .forward import corrected, longest_step
from .kraus import KrausKick, kraus_kick, least_noise, torus
from .parts import Kick, Lines, Local, Obstacle, Stream, Structure, fields_at, tidy
from .shifts import common_measure
from .spectral import apply_multiplier

Array = np.ndarray

#: Share of the step of the shortest kick, by the order of the composition.
SHARE = {2: 0.5, 4: 1.0 / 6.0}


def kick_axes(structure: Structure) -> list[int]:
    """Axes with noise."""
    return [i for p in structure.parts if isinstance(p, Kick) for i in p.axes]


def transport_axes(model: Model, grid: Grid, structure: Structure, times: tuple[float, ...]) -> list[int]:
    """Axes whose drift the kick does not carry."""
    kicked = kick_axes(structure)
    moved = {p.axis for p in structure.parts if isinstance(p, Stream | Lines)} | {
        p.axes[0] for p in structure.parts if isinstance(p, Kick) and p.relax
    }
    own = {i for i in kicked if any(tidy(model.drift(grid.mesh(), t)[i], grid.ndim).shape[i] > 1 for t in times)}
    return sorted(moved | own)


def obstacle(model: Model, grid: Grid, structure: Structure, times: tuple[float, ...], transport: str) -> Obstacle | None:
    """Why the channels cannot be exactly positive, if they cannot."""
    if not kick_axes(structure):
        return Obstacle("D2", "positivity='exact' of the split route is for models with noise", "none on any axis")
    for t in times:
        f = fields_at(model, grid.mesh(), t, structure.basis)
        for i in kick_axes(structure):
            for j in range(i):
                if np.any(f.s[..., i, j]):
                    return Obstacle("D2", "positivity='exact' of the split route needs uncorrelated noise", f"D2[{i}, {j}] != 0")
            if np.min(f.s[..., i, i]) <= 0:
                return Obstacle("D2", f"positivity='exact' of the split route needs noise along {grid.names[i]} everywhere", "0 on some cell")
    if transport == "limited":
        return None
    axes = transport_axes(model, grid, structure, times)
    if model.D1C.time_dependent and axes:
        return Obstacle("D1C", "whole-cell shifts need a drift that does not depend on t", "a drift of (z, t)")
    drifts = {i: tidy(model.drift(grid.mesh(), times[0])[i], grid.ndim) for i in axes}
    rules = (
        ("does not depend on {0}", lambda i, v: v.shape[i] > 1),
        ("does not depend on another axis that drifts", lambda i, v: any(v.shape[j] > 1 for j in axes)),
        ("takes values with a common measure", lambda i, v: common_measure(v) is None),
    )
    for rule, broken in rules:
        for i, v in drifts.items():
            if broken(i, v):
                name = grid.names[i]
                return Obstacle(f"D1C ({name})", f"whole-cell shifts need a drift of {name} that {rule.format(name)}", "it does not hold")
    for name in structure.walls:
        return Obstacle(f"Grid({name}=...)", "whole-cell shifts need open or periodic ends", str(grid.axis(name).ends[0]))
    return None


def measures(model: Model, grid: Grid, axes: list[int], t: float) -> dict[int, float]:
    """Common measure of the drift along each axis (where it drifts at all)."""
    found = {i: common_measure(tidy(model.drift(grid.mesh(), t)[i], grid.ndim)) for i in axes}
    return {i: g for i, g in found.items() if g is not None}


def weakest_noise(model: Model, grid: Grid, structure: Structure, axis: int, times: tuple[float, ...]) -> float:
    """The least noise along an axis."""
    return min(float(np.min(fields_at(model, grid.mesh(), t, structure.basis).s[..., axis, axis])) for t in times)


@dataclass
class PositiveComposition:
    """The channels of a model on a grid.

    Attributes
    ----------
    transport : {"shift", "limited"}
    order : {2, 4}
        Order in dt; 4 with ``shift`` only, where ``forward.order_four`` says so.
    """

    model: Model
    grid: Grid
    structure: Structure
    transport: str
    times: tuple[float, ...]
    order: int = 2
    applications: int = 0
    _kicks: dict[tuple[int, float, float, float], KrausKick] = field(default_factory=dict)
    _locals: dict[tuple[float, float, float], Stencil] = field(default_factory=dict)
    _fields: dict[tuple[float, float], Canonical] = field(default_factory=dict)
    exact: bool = False
    first_level: int = 1
    control_order: int = 2

    def __post_init__(self) -> None:
        self.axes = transport_axes(self.model, self.grid, self.structure, self.times)
        self.torus = torus(self.grid)
        self.limited = LimitedTransport(self.model, self.grid, self.axes) if self.transport == "limited" and self.axes else None
        self.has_local = any(isinstance(p, Local) or (isinstance(p, Kick) and p.local) for p in self.structure.parts)

    def longest(self) -> float:
        """Longest step that the composition can take: at order 4 the corrected noise must stay positive."""
        return longest_step(self.model, self.grid, self.structure, self.axes, self.times[0]) if self.order == 4 else float("inf")

    def shortest(self, tol: float) -> float:
        """Shortest step whose kicks the cells resolve to ``tol``."""
        kicked = kick_axes(self.structure)
        widths = {i: self.grid.axes[i].spacing for i in kicked}
        need = [widths[i] ** 2 / weakest_noise(self.model, self.grid, self.structure, i, self.times) for i in kicked]
        return least_noise(tol) / SHARE[self.order] * max(need)

    @property
    def linear(self) -> bool:
        """Whether the composition is linear in the state."""
        return self.limited is None

    def _at(self, t: float, h: float) -> Canonical:
        """The canonical fields at ``t``, or those of the corrected kick of a step ``h``."""
        at = t if self.model.time_dependent else self.times[0]
        if h > 0.0:
            make = lambda: corrected(self.model, self.grid, self.structure, self.axes, at, h)
        else:
            make = lambda: fields_at(self.model, self.grid.mesh(), at, self.structure.basis)
        return remembered(self._fields, (at, h), 4, make)

    def _kick(self, i: int, t: float, dt: float, h: float) -> KrausKick:
        def make() -> KrausKick:
            fields = self._at(t, h)
            carried = np.zeros((1,) * self.grid.ndim) if i in self.axes else fields.v[i]
            return kraus_kick(fields, self.grid, i, carried, dt)

        return remembered(self._kicks, (i, t if self.model.time_dependent else 0.0, dt, h), 64, make)

    def _local(self, t: float, dt: float, h: float) -> Stencil:
        key = (t if self.model.time_dependent else 0.0, dt, h)
        return remembered(self._locals, key, 64, lambda: local_flow(self._at(t, h), self.grid, dt))

    def restore(self, applications: int, peclet: float) -> None:
        """Go on counting from what a run that is resumed had done."""
        self.applications = applications

    # -- applying: all on x (components, batch * cells) -----------------------------------------------------------------
    def local(self, x: Array, batch: int, t: float, dt: float, h: float = 0.0) -> Array:
        """Hamiltonian and excess over ``dt``."""
        return self._local(t, dt, h).apply(x, batch) if self.has_local else x

    def kick(self, x: Array, batch: int, i: int, t: float, dt: float, h: float = 0.0) -> Array:
        """The kick of one axis over ``dt``; with ``h`` the corrected one of a step ``h``."""
        k = self._kick(i, t, dt, h)
        self.applications += 1
        if k.stencil is not None:
            return k.stencil.apply(x, batch)
        assert k.multiplier is not None
        y = x.reshape(x.shape[0], batch, *self.grid.shape).copy()
        apply_multiplier(y, k.multiplier, self.grid, (i,), None, numba.get_num_threads())
        return y.reshape(x.shape)

    def kicks(self, x: Array, batch: int, t: float, dt: float, back: bool, h: float = 0.0) -> Array:
        """All kicks over ``dt``, in order or in reverse order."""
        axes = kick_axes(self.structure)
        for i in reversed(axes) if back else axes:
            x = self.kick(x, batch, i, t, dt, h)
        return x

    def shift(self, x: Array, batch: int, dt: float) -> Array:
        """All drifts over ``dt`` by whole cells."""
        for i in self.axes:
            axis = self.grid.axes[i]
            v = self.model.drift(self.grid.mesh(), self.times[0])[i]
            others = tuple(n for k, n in enumerate(self.grid.shape) if k != i)
            cells = np.broadcast_to(np.squeeze(v, axis=i) * dt / axis.spacing, others).reshape(-1)
            whole = np.round(cells)
            if np.max(np.abs(cells - whole)) > 1e-6 * max(1.0, float(np.max(np.abs(whole)))):
                raise SolverError(
                    f"D1C ({axis.name})", "the drift must move by whole cells", f"off by {np.max(np.abs(cells - whole)):.3g}", "Use transport='limited'"
                )
            y = np.empty_like(x)
            shift_lines(x, y, axis.n, int(np.prod(self.grid.shape[i + 1 :])), np.tile(whole.astype(np.int64), batch))
            x = y
        return x

    def step(self, x: Array, e: Array, t: float, dt: float, remaps: int = 1) -> tuple[Array, Array]:
        """One step from ``t``; limited transport is done in ``remaps`` equal parts."""
        batch, middle, e = e.shape[0], t + 0.5 * dt, e.copy()
        if self.order == 4:
            return self._forward(x, batch, t, dt), e
        x = self.local(self.kicks(x, batch, middle, 0.5 * dt, back=False), batch, middle, 0.5 * dt)
        if self.limited is None:
            x = self.shift(x, batch, dt)
        else:
            x = np.array(x)
            spare = np.empty_like(x)
            for k in range(remaps):
                x, spare = self.limited.step(x, spare, e, t + k * dt / remaps, dt / remaps)
        return self.kicks(self.local(x, batch, middle, 0.5 * dt), batch, middle, 0.5 * dt, back=True), e

    def _forward(self, x: Array, batch: int, t: float, h: float) -> Array:
        """The step of order 4: all its parts commute but for the streams."""
        x = self.shift(self.local(self.kicks(x, batch, t, h / 6.0, back=False), batch, t, h / 6.0), batch, 0.5 * h)
        x = self.local(self.kicks(x, batch, t, 2.0 * h / 3.0, back=False, h=h), batch, t, 2.0 * h / 3.0, h)
        return self.kicks(self.local(self.shift(x, batch, 0.5 * h), batch, t, h / 6.0), batch, t, h / 6.0, back=True)

    def two_halves(self, x: Array, e: Array, t: float, dt: float) -> tuple[Array, Array]:
        """Two steps of ``dt/2``."""
        return self.step(*self.step(x, e, t, 0.5 * dt), t + 0.5 * dt, 0.5 * dt)
