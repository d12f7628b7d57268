r"""Skewness of the features of an ensemble: what makes Hotelling's test reject right ensembles too often.

For whitened features y (mean 0, covariance 1, rank r) two invariants of the third cumulants :math:`\kappa_{ijk}` enter,

.. math:: \beta = \sum_{ijk}\kappa_{ijk}^2, \qquad \gamma = \sum_j\Big(\sum_i\kappa_{iij}\Big)^2,

Mardia's skewness and that of Mori, Rohatgi and Szekely. To order 1/N they add to the tail of T^2 (Y. Fujikoshi, J. Multivariate Anal. 61,
187 (1997); the kurtosis shifts no mean, makes tails shorter, and is left out)

.. math:: \frac1N\Big[\tfrac\beta6\bar G_r - \tfrac\beta2\bar G_{r+2} - \tfrac\gamma2\bar G_{r+4}
          + \big(\tfrac\beta3 + \tfrac\gamma2\big)\bar G_{r+6}\Big](T^2),

with :math:`\bar G_k` the tail of the :math:`\chi^2` law of k degrees of freedom. Both are estimated from a first part of the ensemble.
"""

from __future__ import annotations

import numpy as np

from .kernels_statistics import column_means, scatter, skewness_invariants, third_moments

Array = np.ndarray

#: Correlation eigenvalues below this fraction of the largest count as no fluctuation.
RANK = 1e-9

#: Most independent features for which third moments are formed (their number is a sixth of the cube).
MOST = 60


def whitening(covariance: Array) -> tuple[Array, Array, Array, Array]:
    """Sizes of the features, and eigenvalues, modes and kept modes of their correlation: ``modes / sqrt(values)`` whitens feature / size."""
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    size = np.maximum(deviation, max(1e-8 * float(deviation.max()), 1e-12))
    values, modes = np.linalg.eigh(covariance / np.multiply.outer(size, size))
    return size, values, modes, values > RANK * values.max()


def skewness(rows: Array) -> Array:
    """Estimate ``(beta, gamma)`` from rows (m, k), without bias from their noise (products of the two halves); NaN where it cannot be done."""
    m = len(rows)
    mean = column_means(rows)
    size, values, modes, kept = whitening(scatter(rows, mean) / max(m - 1, 1))
    r = int(kept.sum())
    if r == 0 or r > MOST or m < 20 * r:
        return np.full(2, np.nan)
    white = (modes[:, kept] / np.sqrt(values[kept])) / size[:, None]
    halves = [third_moments(half, mean, np.ascontiguousarray(white.T)) for half in (rows[: m // 2], rows[m // 2 :])]
    return np.array(skewness_invariants(*halves))


def tail(statistic: float, r: int, count: int, beta: float, gamma: float) -> float:
    """What skewness adds to the p-value of Hotelling's statistic."""
    from scipy.stats import chi2

    beta, gamma = max(beta, 0.0), max(gamma, 0.0)
    weights = (beta / 6.0, -beta / 2.0, -gamma / 2.0, beta / 3.0 + gamma / 2.0)
    return max(0.0, sum(w * float(chi2.sf(statistic, r + 2 * j)) for j, w in enumerate(weights)) / count)
