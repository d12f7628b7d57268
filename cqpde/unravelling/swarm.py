"""Trajectories that move together, and the random numbers of a chunk of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass
class Swarm:
    """Trajectories that move together.

    Attributes
    ----------
    z : array (m, n)
        Classical points.
    x : array (m, d) or (m, d, d)
        Kets or density matrices.
    rows : array (m,)
        Which rows of the chunk's random numbers they use; shrinks when trajectories are absorbed.
    """

    z: Array
    x: Array
    rows: Array

    @property
    def pure(self) -> bool:
        """Whether the quantum states are kets."""
        return self.x.ndim == 2

    def matrices(self) -> Array:
        """Density matrices (m, d, d)."""
        return np.einsum("ma,mb->mab", self.x, self.x.conj()) if self.pure else self.x

    def keep(self, chosen: Array) -> Swarm:
        """The trajectories where ``chosen``."""
        return Swarm(self.z[chosen], self.x[chosen], self.rows[chosen])


class Noise:
    """Random numbers of one chunk: counter-based streams that depend on (seed, chunk, purpose) alone.

    ``factor`` fine steps are joined to one coarse step, so that runs with other steps can use the same noise.
    """

    def __init__(self, seed: int, chunk: int, size: int, factor: int = 1) -> None:
        make = lambda purpose: np.random.Generator(
            np.random.Philox(np.random.SeedSequence(seed, spawn_key=(chunk, purpose)))
        )
        self.size, self.factor = size, factor
        self._normal, self._uniform, self._bridge = make(1), make(2), make(3)

    def normals(self, columns: int, steps: int = 1) -> Array:
        """Standard normals (steps, size, columns), without the first axis for one step."""
        out = self._normal.standard_normal((steps * self.factor, self.size, columns))
        if self.factor > 1:
            out = out.reshape(steps, self.factor, self.size, columns).sum(axis=1) / np.sqrt(self.factor)
        return out if steps > 1 else out[0]

    def uniforms(self, columns: int, steps: int = 1) -> Array:
        """Uniform numbers in [0, 1) (steps, size, columns), without the first axis for one step."""
        return self._draw(self._uniform, columns, steps)

    def bridge(self, columns: int) -> Array:
        """Uniform numbers for crossings between steps (size, columns)."""
        return self._draw(self._bridge, columns, 1)

    def _draw(self, generator: np.random.Generator, columns: int, steps: int) -> Array:
        out = generator.random((steps * self.factor, self.size, columns))[:: self.factor]
        return out if steps > 1 else out[0]


def rows_of(numbers: Array, swarm: Swarm) -> Array:
    """The random numbers of the trajectories that are left."""
    return numbers if len(swarm.rows) == len(numbers) else numbers[swarm.rows]
