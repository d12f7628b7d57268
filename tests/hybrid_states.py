"""Datasets made without a solver, on which observables have closed forms."""

from __future__ import annotations

import numpy as np

import cqpde as cq
from cqpde.dataset import build
from cqpde.observables import Accessor

Array = np.ndarray
assert Accessor  # importing it registers .cq


def dataset(grid: cq.Grid, fields: list[Array], times: Array | None = None, frames: Array | None = None):
    """A Dataset with the given frames (d, d, *cells)."""
    rho = np.stack(fields)
    times = np.arange(len(rho), dtype=float) if times is None else np.asarray(times, dtype=float)
    d = rho.shape[1]
    escaped = np.zeros((len(times), 2 * grid.ndim, d, d), dtype=complex)
    return build(grid, d, times, times if frames is None else frames, rho, escaped, {}, {}, {"model": "made by hand"})


def normal(grid: cq.Grid, mean: dict[str, float], std: dict[str, float]) -> Array:
    """A product of Gaussians at the cell centres."""
    out: Array = np.ones(grid.shape)
    for k, axis in enumerate(grid.axes):
        shape = [1] * grid.ndim
        shape[k] = axis.n
        x, s = axis.centers, std[axis.name]
        g = np.exp(-0.5 * ((x - mean[axis.name]) / s) ** 2) / (2 * np.pi * s * s) ** 0.5
        out = out * g.reshape(shape)
    return out


def times_state(f: Array, state: Array) -> Array:
    """``f(z)`` times one density matrix."""
    return np.asarray(state, dtype=complex).reshape(*np.shape(state), *[1] * f.ndim) * f


def random_state(d: int, seed: int) -> Array:
    """A full-rank density matrix."""
    rng = np.random.default_rng(seed)
    m = rng.normal(size=(d, d)) + 1j * rng.normal(size=(d, d))
    rho = m @ m.conj().T
    return np.asarray(rho / np.trace(rho).real)


def branches(grid: cq.Grid, t: float, weight: float = 0.5) -> Array:
    """The linear Diosi model's exact field (coefficients as in Figs. 2 and 5), from a ket with populations (1 - weight, weight)."""
    return cq.models.linear_diosi_exact(grid, t, state=np.array([(1 - weight) ** 0.5, weight**0.5]))


