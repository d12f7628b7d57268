"""What trajectories do at the ends of the axes, as the grid says: wrap, reflect, flip, or be absorbed with time and state kept.

Absorption at a noisy end also counts the crossings between two steps, with the probability of a Brownian bridge,
``exp(-2 a b / (s dt))`` for distances a and b before and after the step. Reflection folds the step back (weak order 1/2 to 1). What
passes an open end goes on outside.
"""

from __future__ import annotations

import numpy as np

from ..grid import Grid
from .fields import Local
from .swarm import Noise, Swarm

Array = np.ndarray


class Ends:
    """The ends of a grid."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        kinds = {end.kind for a in grid.axes for end in a.ends}
        self.absorbing = bool(kinds & {"absorbing", "outflow"})
        self.turning = bool(kinds & {"periodic", "reflecting", "specular"})

    def apply(
        self, before: Array, swarm: Swarm, c: Local, t: float, dt: float, noise: Noise
    ) -> tuple[Swarm, list[tuple[int, Array, Array, Swarm]]]:
        """Apply all ends after a step from ``before``.

        Returns
        -------
        swarm : Swarm
            What goes on.
        arrivals : list of (face, rows, times, swarm)
            What was absorbed at each end.
        """
        if self.turning:
            self.turn(swarm)
        if not self.absorbing:
            return swarm, []
        uniform = noise.bridge(2 * self.grid.ndim)[swarm.rows]
        variance = np.broadcast_to(np.sum(c.sigma**2, axis=2) * dt, swarm.z.shape)
        inside = np.ones(len(swarm.z), dtype=bool)
        arrivals = []
        for i, axis in enumerate(self.grid.axes):
            for side, (end, place) in enumerate(zip(axis.ends, (axis.lower, axis.upper), strict=True)):
                if end.kind not in ("absorbing", "outflow"):
                    continue
                sign = 1.0 if side == 0 else -1.0
                a, b = sign * (before[:, i] - place), sign * (swarm.z[:, i] - place)
                with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                    bridge = np.where(variance[:, i] > 0, np.exp(-2.0 * a * b / variance[:, i]), 0.0)
                hit = inside & ((b <= 0) | ((end.kind == "absorbing") & (uniform[:, 2 * i + side] < bridge)))
                if hit.any():
                    part = swarm.keep(hit)
                    share = np.where(b[hit] <= 0, a[hit] / np.maximum(a[hit] - b[hit], 1e-300), 0.5)
                    part.z[:, i] = place
                    arrivals.append((2 * i + side, part.rows, t + dt * np.clip(share, 0.0, 1.0), part))
                    inside &= ~hit
        return (swarm.keep(inside) if arrivals else swarm), arrivals

    def turn(self, swarm: Swarm) -> None:
        """Wrap, fold and flip in place."""
        names = self.grid.names
        for i, axis in enumerate(self.grid.axes):
            length = axis.upper - axis.lower
            if axis.periodic:
                swarm.z[:, i] = axis.lower + np.mod(swarm.z[:, i] - axis.lower, length)
                continue
            for side, (end, place) in enumerate(zip(axis.ends, (axis.lower, axis.upper), strict=True)):
                if end.kind not in ("reflecting", "specular"):
                    continue
                beyond = swarm.z[:, i] < place if side == 0 else swarm.z[:, i] > place
                swarm.z[beyond, i] = 2.0 * place - swarm.z[beyond, i]
                if end.kind == "specular":
                    swarm.z[beyond, names.index(end.conjugate)] *= -1.0
