"""Draw points and quantum states from initial states: what trajectories start from.

A sampler is a function ``(rng, count) -> (z, rho)`` with z of shape (count, n) and rho of shape (count, d, d) or (1, d, d).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from .coefficients import Coefficient
from .grid import Grid

Array = np.ndarray
Sampler = Callable[[np.random.Generator, int], tuple[Array, Array]]
StateAt = Callable[[Array], Array]

#: Points per axis in a cell at which the bound of the density in that cell is taken, and its margin.
PROBES, MARGIN = 3, 1.1


def mesh_of(grid: Grid, z: Array) -> dict[str, Array]:
    """Coordinates of points (m, n) as arrays (m, 1, ...) that coefficients take."""
    shape = (len(z),) + (1,) * (grid.ndim - 1)
    return {name: z[:, i].reshape(shape) for i, name in enumerate(grid.names)}


def state_at(grid: Grid, coefficient: Coefficient | None, constant: Array | None) -> StateAt:
    """Quantum states at points: the same everywhere, or a coefficient of kets (d,) or matrices (d, d)."""
    if constant is not None:
        return lambda z: constant.reshape(1, *constant.shape)
    assert coefficient is not None

    def evaluate(z: Array) -> Array:
        entries = coefficient.entries(mesh_of(grid, z), 0.0)
        flat = np.stack([np.broadcast_to(e.reshape(-1), (len(z),)) for e in entries.reshape(-1)], axis=1)
        if entries.ndim == 1:
            return np.einsum("ma,mb->mab", flat, flat.conj())
        return flat.reshape(len(z), *entries.shape)

    return evaluate


def gaussian_sampler(mean: Array, covariance: Array, state: StateAt) -> Sampler:
    """Draw from the Gaussian itself."""
    root = np.linalg.cholesky(covariance)

    def sample(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
        z = mean + rng.standard_normal((count, len(mean))) @ root.T
        return z, state(z)

    return sample


def density_sampler(grid: Grid, density: Coefficient, state: StateAt) -> Sampler:
    """Draw from a density given as a function, by rejection from a bound that is constant in each cell.

    The bound is 1.1 times the largest of 3 points per axis in the cell: exact for densities that the cells resolve.
    """
    centres = [a.centers for a in grid.axes]

    kept: list[tuple[Array, Array]] = []

    def bounds() -> tuple[Array, Array]:
        if kept:
            return kept[0]
        bound = np.zeros(grid.shape)
        for shift in product(np.linspace(-0.5, 0.5, PROBES), repeat=grid.ndim):
            values = np.real(density.entries(grid.mesh(shift), 0.0)[()])
            bound = np.maximum(bound, np.broadcast_to(np.where(np.isfinite(values), values, 0.0), grid.shape))
        kept.append((MARGIN * bound, np.cumsum(bound.reshape(-1))))
        return kept[0]

    def sample(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
        bound, cumulated = bounds()
        done = np.empty((0, grid.ndim))
        while len(done) < count:
            flat = np.searchsorted(cumulated, rng.random(count) * cumulated[-1], side="right")
            cell = np.unravel_index(np.minimum(flat, len(cumulated) - 1), grid.shape)
            z = np.stack([c[i] for c, i in zip(centres, cell, strict=True)], axis=1)
            z += (rng.random((count, grid.ndim)) - 0.5) * grid.spacings
            f = np.broadcast_to(np.real(density.entries(mesh_of(grid, z), 0.0)[()]).reshape(-1), (count,))
            done = np.concatenate([done, z[rng.random(count) * bound[cell] < f]])
        return done[:count], state(done[:count])

    return sample


def cell_sampler(grid: Grid, rho: Array) -> Sampler:
    """Draw cell centres with the cells' probabilities, each with its conditional state: for states given as arrays.

    Means and covariances are then exactly those of the array (trapezoidal sums).
    """
    d = rho.shape[0]
    weight = np.maximum(np.real(np.einsum("aa...->...", rho)).reshape(-1), 0.0)
    cumulated = np.cumsum(weight)
    matrices = np.moveaxis(rho, (0, 1), (-2, -1)).reshape(-1, d, d)
    centres = [a.centers for a in grid.axes]

    def sample(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
        flat = np.minimum(np.searchsorted(cumulated, rng.random(count) * cumulated[-1], side="right"), len(cumulated) - 1)
        cell = np.unravel_index(flat, grid.shape)
        z = np.stack([c[i] for c, i in zip(centres, cell, strict=True)], axis=1)
        return z, matrices[flat] / weight[flat, None, None]

    return sample


def sampler_of(state: Any) -> Sampler:
    """The sampler of a State: its own where it has one, else of its cells."""
    return state.sampler if state.sampler is not None else cell_sampler(state.grid, state.rho)
