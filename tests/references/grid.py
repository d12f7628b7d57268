"""Cell centres of a rectangular grid, and a Gaussian density evaluated on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Real = NDArray[np.floating[Any]]
Complex = NDArray[np.complexfloating[Any, Any]]
Box = Sequence[tuple[float, float]]


def cell_centres(box: Box, shape: Sequence[int]) -> list[Real]:
    """Cell centres ``lo + (k + 1/2) h`` of every axis.

    Parameters
    ----------
    box : sequence of (lo, hi)
        Ends of every axis.
    shape : sequence of int
        Number of cells of every axis.

    Returns
    -------
    list of ndarray
        One one-dimensional array per axis.
    """
    return [lo + (np.arange(n) + 0.5) * (hi - lo) / n for (lo, hi), n in zip(box, shape, strict=True)]


def mesh(box: Box, shape: Sequence[int]) -> Real:
    """Coordinates of all cell centres.

    Parameters
    ----------
    box, shape
        As in `cell_centres`.

    Returns
    -------
    ndarray, shape (n, *cells)
        ``mesh(...)[i]`` is coordinate i at every cell.
    """
    return np.array(np.meshgrid(*cell_centres(box, shape), indexing="ij"))


def gaussian(z: Real, mean: ArrayLike, cov: ArrayLike) -> Complex:
    """Normalised Gaussian density, also for a complex mean and a complex symmetric covariance.

    Parameters
    ----------
    z : ndarray, shape (n, *cells)
        Points.
    mean : array_like, shape (n,)
        Mean, may be complex.
    cov : array_like, shape (n, n)
        Covariance, may be complex with positive definite real part.

    Returns
    -------
    ndarray, shape cells
        Density (complex dtype).

    Notes
    -----
    The eigenvalues of a complex symmetric matrix with positive definite real part have positive real part, so the
    product of the principal roots of the eigenvalues is the branch of ``sqrt(det cov)`` that is continuous in time.
    """
    covariance = np.atleast_2d(np.asarray(cov, dtype=complex))
    n = covariance.shape[0]
    if np.linalg.eigvalsh(covariance.real)[0] <= 0:
        raise ValueError("the real part of the covariance must be positive definite")
    x = z.reshape(n, -1) - np.reshape(np.asarray(mean, dtype=complex), (n, 1))
    root = np.prod(np.sqrt(2 * np.pi * np.linalg.eigvals(covariance)))
    density = np.exp(-0.5 * np.einsum("ix,ix->x", x, np.linalg.solve(covariance, x))) / root
    return np.asarray(density.reshape(z.shape[1:]), dtype=complex)
