r"""Streaming statistics of an ensemble: moments with their full covariance, histograms, purity; memory independent of its size.

The moments are :math:`E[z^k\,\rho_c]` for all monomials :math:`z^k` up to second order and all :math:`d^2` real components
:math:`\rho_c` of the density matrix (diagonal, then real and imaginary parts above it): a complete set of Hermitian operators. Means and
sums of squared deviations of parts of the ensemble are merged exactly (T. F. Chan, G. H. Golub, R. J. LeVeque, 1983).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from dataclasses import field as default
from typing import Any

import numpy as np

from ..coefficients import Point
from ..grid import Grid
from . import kernels_statistics as kernels
from .skewness import skewness
from .swarm import Swarm

Array = np.ndarray


def monomials(names: tuple[str, ...]) -> list[tuple[int, ...]]:
    """Monomials up to second order as tuples of axes: ``(), (0,), ..., (0, 0), (0, 1), ...``."""
    n = len(names)
    return [(), *[(i,) for i in range(n)], *[(i, j) for i in range(n) for j in range(i, n)]]


def monomial_labels(names: tuple[str, ...]) -> list[str]:
    """``1 q p q_q q_p p_p``."""
    return ["_".join(names[i] for i in k) or "1" for k in monomials(names)]


def component_labels(d: int) -> list[str]:
    """``rho_00 rho_11 re_01 im_01``."""
    a, b = np.triu_indices(d, 1)
    pairs = [f"{i}{j}" if d <= 10 else f"{i}.{j}" for i, j in zip(a, b, strict=True)]
    levels = [f"{i}{i}" if d <= 10 else f"{i}.{i}" for i in range(d)]
    return [f"rho_{x}" for x in levels] + [f"re_{x}" for x in pairs] + [f"im_{x}" for x in pairs]


def components(rho: Array) -> Array:
    """Real components (m, d^2) of Hermitian matrices (m, d, d)."""
    d = rho.shape[-1]
    a, b = np.triu_indices(d, 1)
    upper = rho[:, a, b]
    return np.concatenate([np.real(rho[:, range(d), range(d)]), upper.real, upper.imag], axis=1)


def from_components(x: Array) -> Array:
    """Inverse of :func:`components` on the last axis: (..., d^2) to (..., d, d)."""
    d = int(round(x.shape[-1] ** 0.5))
    a, b = np.triu_indices(d, 1)
    out = np.zeros((*x.shape[:-1], d, d), dtype=complex)
    out[..., range(d), range(d)] = x[..., :d]
    upper = x[..., d : d + len(a)] + 1j * x[..., d + len(a) :]
    out[..., a, b], out[..., b, a] = upper, upper.conj()
    return out


def features(names: tuple[str, ...], z: Array, x: Array) -> Array:
    """One row per trajectory: all monomials of z (m, n) times all components x (m, d^2), (m, monomials * d^2)."""
    pairs = np.array([(-1, -1, *k)[-2:] for k in monomials(names)])
    return np.asarray(kernels.products(np.ascontiguousarray(z), x, pairs[:, 0].copy(), pairs[:, 1].copy()))


def state_components(swarm: Swarm) -> Array:
    """Components (m, d^2) of the quantum states of trajectories."""
    return np.asarray(kernels.ket_components(swarm.x)) if swarm.pure else components(swarm.x)


@dataclass
class Sums:
    """Count, mean and summed squared deviations (matrix, or vector of its diagonal) of rows."""

    mean: Array
    deviations: Array

    @staticmethod
    def of(rows: Array, full: bool) -> Sums:
        """Statistics of rows (m, k)."""
        mean = kernels.column_means(rows)
        return Sums(mean, kernels.scatter(rows, mean) if full else kernels.column_means((rows - mean) ** 2) * len(rows))

    def merge(self, own: int, other: Sums, count: int) -> None:
        """Add ``count`` rows described by ``other`` to the ``own`` rows described here."""
        delta, total = other.mean - self.mean, own + count
        share = own * count / total
        square = share * (np.multiply.outer(delta, delta) if self.deviations.ndim == 2 else delta * delta)
        self.deviations = self.deviations + other.deviations + square
        self.mean = self.mean + delta * (count / total)


@dataclass
class Snapshot:
    """What is kept of an ensemble at one time.

    Attributes
    ----------
    count : int
        Trajectories, absorbed ones included.
    moments, extrapolated, purity, bias, user : Sums
        Of the features (full covariance), of the features extrapolated to step zero from those of the coarse twin (full covariance), of
        Tr rho^2 / Tr rho, of coarse minus fine features (full covariance), and of the user's functions.
    histogram : list of array (cells, d^2)
        Per axis: summed components of rho in each cell.
    visits : list of array (cells,)
        Per axis: number of trajectories in each cell; then, if there is one, of the coarse twin.
    outside : array (2 n,)
        Number of trajectories beyond each end of the grid.
    escaped : array (2 n, d^2)
        Summed components of rho of what was absorbed at each end so far.
    field : array (cells, d^2) or (0, d^2)
        Summed components of rho in every cell of the whole grid, if asked for.
    extremes : array (2,)
        Smallest and largest purity.
    skewness : array (2,)
        Of the features of the first part (the extrapolated ones if there are); NaN where it was not asked for.
    """

    count: int
    moments: Sums
    extrapolated: Sums
    purity: Sums
    bias: Sums
    user: Sums
    histogram: list[Array]
    visits: list[Array]
    outside: Array
    escaped: Array
    field: Array
    extremes: Array = default(default_factory=lambda: np.array([np.inf, -np.inf]))
    skewness: Array = default(default_factory=lambda: np.full(2, np.nan))

    def merge(self, other: Snapshot) -> None:
        """Add the trajectories of another part of the ensemble."""
        for f in fields(self):
            mine, its = getattr(self, f.name), getattr(other, f.name)
            if isinstance(mine, Sums):
                mine.merge(self.count, its, other.count)
            elif isinstance(mine, list):
                setattr(self, f.name, [a + b for a, b in zip(mine, its, strict=True)])
        self.outside, self.escaped = self.outside + other.outside, self.escaped + other.escaped
        self.field = self.field + other.field
        self.extremes = np.array([min(self.extremes[0], other.extremes[0]), max(self.extremes[1], other.extremes[1])])
        self.count += other.count


Functions = Mapping[str, Callable[[Point, Array], Any]]


def snapshot(
    grid: Grid, count: int, swarm: Swarm, coarse: Swarm | None, share: float, escaped: Array, functions: Functions, whole: bool,
    pilot: bool,
) -> Snapshot:
    """Statistics of a chunk of ``count`` trajectories of which those in ``swarm`` are still inside.

    ``share`` of (coarse - fine) is the leading bias of the fine ones; ``whole``: also gather rho in every cell of the grid; ``pilot``:
    also estimate the skewness.
    """
    x = state_components(swarm)
    rows = spread(features(grid.names, swarm.z, x), swarm.rows, count)
    purity = kernels.purities(x)
    difference = extrapolated = np.zeros((count, 0))
    y = x
    if coarse is not None:
        y = state_components(coarse)
        difference = spread(features(grid.names, coarse.z, y), coarse.rows, count) - rows
        extrapolated = rows - share * difference
    user = np.zeros((count, len(functions)))
    if functions:
        rho = swarm.matrices()
        for k, (name, function) in enumerate(functions.items()):
            user[:, k] = spread(user_values(name, function, grid, swarm.z, rho)[:, None], swarm.rows, count)[:, 0]
    seen = [kernels.histogram(s.z[:, i].copy(), c, axis.lower, axis.spacing, axis.n) for s, c in ((swarm, x), (coarse, y)) if s is not None for i, axis in enumerate(grid.axes)]
    own = seen[: grid.ndim]
    extremes = np.array([purity.min(initial=np.inf), purity.max(initial=-np.inf)])
    return Snapshot(
        count, Sums.of(rows, True), Sums.of(extrapolated, True), Sums.of(spread(purity[:, None], swarm.rows, count), False), Sums.of(difference, True),
        Sums.of(user, False), [sums for sums, _, _ in own], [visits for _, visits, _ in seen], np.concatenate([outside for *_, outside in own]),
        escaped.copy(), density_field(grid, swarm.z, x) if whole else np.zeros((0, x.shape[1])), extremes,
        skewness(rows if coarse is None else extrapolated) if pilot else np.full(2, np.nan),
    )  # fmt: skip


def density_field(grid: Grid, z: Array, x: Array) -> Array:
    """Summed components of the trajectories in every cell, (cells, d^2)."""
    inside, flat = np.ones(len(z), dtype=bool), np.zeros(len(z), dtype=np.int64)
    for i, axis in enumerate(grid.axes):
        cell = np.floor((z[:, i] - axis.lower) / axis.spacing)
        inside &= (cell >= 0) & (cell < axis.n)
        flat = flat * axis.n + np.where(inside, cell, 0).astype(np.int64)
    size = int(np.prod(grid.shape))
    return np.stack([np.bincount(flat[inside], x[inside, c], minlength=size) for c in range(x.shape[1])], axis=1)


def spread(rows: Array, places: Array, count: int) -> Array:
    """Rows of the trajectories that are inside, at their places among ``count``; zero for those that were absorbed."""
    if len(places) == count:
        return rows
    out = np.zeros((count, rows.shape[1]))
    out[places] = rows
    return out


def user_values(name: str, function: Callable[[Point, Array], Any], grid: Grid, z: Array, rho: Array) -> Array:
    """Evaluate a function of (z, rho) on trajectories, shape (m,)."""
    from ..errors import CqpdeError, OptionError

    try:
        values = np.asarray(function(Point({c: z[:, i] for i, c in enumerate(grid.names)}), rho))
    except CqpdeError:
        raise
    except Exception as error:  # whatever a user's function does
        found = f"{type(error).__name__}: {error}"
        raise OptionError(f"moments[{name!r}]", "must return one real number per trajectory", found, "Correct the function") from error
    if values.shape != (len(z),) or values.dtype.kind not in "biuf":
        raise OptionError(
            f"moments[{name!r}]", "must return one real number per trajectory", f"{values.dtype} {values.shape}",
            "z.q, z.p, ... have shape (m,) and rho has shape (m, d, d)",
        )  # fmt: skip
    return values.astype(float)
