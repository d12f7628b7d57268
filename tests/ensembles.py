"""What the tests of trajectories share: exact moments, exact solutions as Datasets, and models with noise that z multiplies."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import sympy

import cqpde as cq
from cqpde import dataset

from . import models

Array = np.ndarray


@cache
def reference(name: str, n: int) -> tuple[models.Case, cq.Grid, Array]:
    """A case of :mod:`tests.models`, its grid of n cells, and the reference at its end: computed once."""
    case = models.CASES[name]()
    grid = case.grid(n)
    return case, grid, case.reference(grid)


def pairs(n: int) -> list[tuple[int, ...]]:
    return [(), *[(i,) for i in range(n)], *[(i, j) for i in range(n) for j in range(i, n)]]


def parts(rho: Array) -> Array:
    """Diagonal, then real, then imaginary parts above it, of (d, d, ...)."""
    a, b = np.triu_indices(len(rho), 1)
    return np.concatenate([np.real([rho[k, k] for k in range(len(rho))]), rho[a, b].real, rho[a, b].imag])


def moments_on(grid: cq.Grid, rho: Array) -> Array:
    """Moments (monomial, operator) of a density on a grid by plain sums."""
    z = [np.broadcast_to(c, grid.shape) for c in grid.mesh().values()]
    weight = lambda k: np.prod([z[i] for i in k], axis=0) if k else np.ones(grid.shape)
    x = parts(rho)
    return np.array([(x * weight(k)).reshape(len(x), -1).sum(axis=1) for k in pairs(grid.ndim)]) * grid.cell_volume


def moments_of_elements(elements: Any, state: Array, n: int) -> Array:
    """Moments of Gaussian elements ``state_ab weight N(mean, cov)`` (complex parameters)."""

    def one(e: Any, k: tuple[int, ...]) -> complex:
        mu, v = e.mean, e.cov
        return e.weight * (1 if not k else mu[k[0]] if len(k) == 1 else v[k[0], k[1]] + mu[k[0]] * mu[k[1]])

    d = len(state)
    return np.array(
        [parts(np.array([[state[a, b] * one(elements[a][b], k) for b in range(d)] for a in range(d)])) for k in pairs(n)]
    )


def z_scores(ens: Any, exact: Array, t: int = -1) -> Array:
    """(mean - exact) / standard error where the moment fluctuates, else 0; shape (monomial, operator)."""
    count = int(ens.attrs["trajectories"])
    error = np.sqrt(np.einsum("abab->ab", ens.covariance.values[t]) / count)
    noisy = error > 1e-9
    difference = ens.moments.values[t] - exact
    assert np.all(np.abs(difference[~noisy]) < 1e-9)
    return np.where(noisy, difference / np.where(noisy, error, 1.0), 0.0)


def exact_solution(grid: cq.Grid, times: Any, fields: list[Array]) -> Any:
    """A reference as a solution: what ``validate`` takes on its first side, without a grid solver."""
    import xarray as xr

    d = fields[0].shape[0]
    coords = dataset.coordinates(grid, d) | {"t": ("t", np.asarray(times, dtype=float), {"long_name": "time", "units": "1"})}
    zero = np.zeros(len(fields))
    data = {"rho": (("t", "row", "col", *grid.names), np.stack(fields)), "time_error": ("t", zero), "grid_error": ("t", zero)}
    ds = xr.Dataset(data, coords=coords, attrs={"cqpde_schema": dataset.SCHEMA, "model": "reference"})
    import cqpde.observables  # noqa: F401 - registers .cq

    return ds


# -- a qubit in a trap: coupling and drive along all three axes, nothing commutes --------------------------------------------
def trapped_qubit(**sigma: float) -> cq.Model:
    """Noise sigma per coordinate; saturated."""
    q, p = sympy.symbols("q p", real=True)
    coupling = q * (cq.sigmax() + 0.5 * cq.sigmaz()) + 0.3 * cq.sigmay()
    return cq.healed(("q", "p"), p**2 / 2 + q**2 / 2 + q / 3, coupling, sigma)


# -- noise that the coordinate multiplies: closed form -------------------------------------------------------------------
A_RATE, NOISE, G = 0.3, 0.4, 1.2


def multiplicative(stratonovich: bool = False) -> cq.Model:
    """dZ = a Z dt + b Z (g <sz> dt + dW): populations are log-normal with rates a +- b g, coherence decays at g^2/2."""
    z = sympy.symbols("z", real=True)
    drift = (A_RATE + (0.5 * NOISE**2 if stratonovich else 0.0)) * z
    return cq.Model(
        ("z",), 2, L=cq.sigmaz(), D1=[[G * NOISE * z / 2]], D2=[[NOISE**2 * z**2 / 2]], D0=[[G**2 / 4]], D1C=[drift]
    )


def multiplicative_moments(mean: float, std: float, t: float) -> Array:
    """Exact moments from a Gaussian start in |+>."""
    out = []
    for k, start in enumerate((1.0, mean, mean**2 + std**2)):
        grown = lambda rate, k=k, start=start: 0.5 * start * np.exp(k * rate * t + 0.5 * k * (k - 1) * NOISE**2 * t)
        out.append([grown(A_RATE + NOISE * G), grown(A_RATE - NOISE * G), grown(A_RATE) * np.exp(-0.5 * G**2 * t), 0.0])
    return np.array(out)
