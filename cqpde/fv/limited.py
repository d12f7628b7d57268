"""Limited transport: drift along noise-free axes by positive, conservative semi-Lagrangian remaps.

Order >= 2, positive for density matrices, conservative, without a step limit; not linear in the state, because the limiter
looks at it. Characteristics ``dz/dt = v(z, t)`` are traced back from the interfaces: exactly where ``v`` does not depend on its
own coordinate, by Runge-Kutta 4 otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import SolverError
from ..grid import Axis, Grid
from ..kernels.remap import OPEN, PERIODIC, SPECULAR, remap, tables
from ..model import Model

Array = np.ndarray

_KIND = {"periodic": PERIODIC, "specular": SPECULAR}


class StepTooLong(SolverError):
    """A step over which the characteristics cannot be traced; the step control tries a shorter one."""


@dataclass
class LimitedTransport:
    """The sub-flow of the drift along the noise-free axes, as a symmetric sequence of one-axis remaps."""

    model: Model
    grid: Grid
    axes: list[int]
    _feet: dict[tuple[int, float, float], tuple[Array, Array, int]] = field(default_factory=dict)

    def step(self, x: Array, spare: Array, escaped: Array, t: float, dt: float) -> tuple[Array, Array]:
        """Advance ``x`` from ``t`` by ``dt``; adds to ``escaped`` (batch, faces, components).

        Several axes go half a step in order and half a step in reverse order. Overwrites ``x`` and ``spare``; returns the new state
        and the buffer that is free then.
        """
        if len(self.axes) == 1:
            return self._remap(x, spare, escaped, self.axes[0], t, dt), x
        half = 0.5 * dt
        for i in self.axes[:-1]:
            x, spare = self._remap(x, spare, escaped, i, t, half), x
        x, spare = self._remap(x, spare, escaped, self.axes[-1], t, dt), x
        for i in reversed(self.axes[:-1]):
            x, spare = self._remap(x, spare, escaped, i, t + half, half), x
        return x, spare

    def _remap(self, x: Array, out: Array, escaped: Array, i: int, t: float, dt: float) -> Array:
        grid, axis = self.grid, self.grid.axes[i]
        batch = escaped.shape[0]
        feet, pattern, ghosts = self._traced(i, t, dt)
        after = int(np.prod(grid.shape[i + 1 :]))
        lines = x.shape[1] // axis.n
        per_state = lines // batch
        leak = np.empty((2, x.shape[0], lines))
        lower, upper = (_KIND.get(end.kind, OPEN) for end in axis.ends)
        mirror = self._mirror(i, after)
        if batch > 1:
            pattern = np.tile(pattern, batch)
            mirror = (mirror[None, :] + per_state * np.arange(batch)[:, None]).reshape(-1)
        control, primitive = tables()
        remap(
            x, out, axis.n, after, feet, pattern, lower, upper, mirror, ghosts, self.model.dim, control, primitive, leak
        )
        volume = grid.cell_volume
        for side in (0, 1):
            if (lower, upper)[side] == OPEN:
                escaped[:, 2 * i + side] += volume * leak[side].reshape(-1, batch, per_state).sum(axis=2).T
        return out

    def _mirror(self, i: int, after: int) -> Array:
        """Line numbers (before * after) with the conjugate coordinate of a specular end flipped."""
        grid, axis = self.grid, self.grid.axes[i]
        others = tuple(n for k, n in enumerate(grid.shape) if k != i)
        lines = np.arange(int(np.prod(others)), dtype=np.int64)
        conjugates = {end.conjugate for end in axis.ends if end.kind == "specular"}
        if not conjugates:
            return lines
        (name,) = conjugates
        k = grid.names.index(name)
        return np.flip(lines.reshape(others), axis=k if k < i else k - 1).reshape(-1).copy()

    def _traced(self, i: int, t: float, dt: float) -> tuple[Array, Array, int]:
        """Feet of the characteristics of axis ``i``, the pattern of every line, and how many ghosts are needed."""
        key = (
            i,
            t if self.model.D1C.time_dependent or self.model.L.time_dependent or self.model.D1.time_dependent else 0.0,
            dt,
        )
        if key not in self._feet:
            if len(self._feet) > 16 * len(self.axes):
                self._feet.clear()
            self._feet[key] = self._trace(i, t, dt)
        return self._feet[key]

    def _trace(self, i: int, t: float, dt: float) -> tuple[Array, Array, int]:
        grid, axis = self.grid, self.grid.axes[i]
        start, v = self._at_interfaces(i, t)
        if v.shape[i] == 1 and not self.model.time_dependent:
            foot = start - dt * v
        else:
            largest = self._fastest(v)
            if not np.isfinite(largest):
                raise SolverError(
                    f"D1C ({axis.name})",
                    "the drift must be finite at the cell interfaces",
                    f"{largest} at one",
                    "Move the box or regularise the drift",
                )
            steps = max(1, int(np.ceil(dt * largest / axis.spacing)))
            h = dt / steps
            foot = start
            for k in range(steps):
                now = t + dt - k * h
                k1 = self._velocity(i, foot, now)
                k2 = self._velocity(i, foot - 0.5 * h * k1, now - 0.5 * h)
                k3 = self._velocity(i, foot - 0.5 * h * k2, now - 0.5 * h)
                k4 = self._velocity(i, foot - h * k3, now - h)
                foot = foot - h / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)
        cells = (foot - axis.lower) / axis.spacing
        if not np.all(np.isfinite(cells)):
            raise SolverError(
                f"D1C ({axis.name})",
                "the drift must be finite along its characteristics",
                "a non-finite foot",
                "Move the box or regularise the drift",
            )
        if np.any(np.diff(cells, axis=i) < 0):
            raise StepTooLong(
                f"D1C ({axis.name})",
                "characteristics must not cross within a step",
                f"a step of {dt:.3g}",
                "Use a smaller dt_max",
            )
        reach = max(0.0, float(np.max(-cells)), float(np.max(cells)) - axis.n)
        open_ends = all(end.kind in ("open", "outflow") for end in axis.ends)
        ghosts = 3 if open_ends else int(np.ceil(reach)) + 3
        # images of cells must have their whole stencil inside the axis
        if not open_ends and reach > axis.n - 3:
            raise StepTooLong(
                "dt",
                f"a step may carry nothing further than across all but three cells of {axis.name}",
                f"{reach:.0f} cells of {axis.n}",
                "Use a smaller dt_max",
            )
        lines_first = np.moveaxis(cells, i, -1)
        feet = np.ascontiguousarray(lines_first.reshape(-1, axis.n + 1))
        others = tuple(n for k, n in enumerate(grid.shape) if k != i)
        pattern = np.broadcast_to(np.arange(feet.shape[0]).reshape(lines_first.shape[:-1]), others)
        return feet, pattern.reshape(-1).astype(np.int64), ghosts

    def _at_interfaces(self, i: int, t: float) -> tuple[Array, Array]:
        """Positions of the interfaces along axis ``i``, and the drift there."""
        axis, mesh = self.grid.axes[i], self.grid.mesh()
        shape = [1] * self.grid.ndim
        shape[i] = axis.n + 1
        mesh[axis.name] = axis.interfaces.reshape(shape)
        return mesh[axis.name], self.model.drift(mesh, t)[i]

    def _fastest(self, v: Array) -> float:
        """Largest speed, by which the steps of the characteristics are chosen."""
        return float(np.max(np.abs(v)))

    def _velocity(self, i: int, position: Array, t: float) -> Array:
        """Drift at any position; beyond an end the axis is continued as its boundary does."""
        grid, axis = self.grid, self.grid.axes[i]
        mesh = grid.mesh()
        inside, flips = _continued(axis, position)
        mesh[axis.name] = inside
        v = self.model.drift(mesh, t)[i]
        for name, mask in flips.items():
            flipped = {**mesh, name: -mesh[name]}
            v = np.where(mask, -self.model.drift(flipped, t)[i], v)
        return v


def _continued(axis: Axis, position: Array) -> tuple[Array, dict[str, Array]]:
    """Fold positions back into the axis; for specular ends also say which ones are on the mirrored line."""
    length = axis.upper - axis.lower
    if axis.periodic:
        return axis.lower + np.mod(position - axis.lower, length), {}
    flips: dict[str, Array] = {}
    for end, beyond, wall in (
        (axis.ends[0], position < axis.lower, axis.lower),
        (axis.ends[1], position > axis.upper, axis.upper),
    ):
        if end.kind == "specular":
            position = np.where(beyond, 2 * wall - position, position)
            flips[end.conjugate] = flips.get(end.conjugate, np.zeros(position.shape, dtype=bool)) | beyond
    return np.clip(position, axis.lower, axis.upper), flips
