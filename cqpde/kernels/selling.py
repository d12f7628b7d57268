"""Selling's decomposition of symmetric positive definite 2 x 2 and 3 x 3 matrices into integer offsets.

``D = sum_k weight_k e_k e_k^T`` with integer vectors ``e_k`` and non-negative weights: 3 terms in two dimensions, 6 in three
(J.-M. Mirebeau, "Anisotropic fast-marching on Cartesian grids using lattice basis reduction", SIAM J. Numer. Anal. 52, 2014;
E. Selling 1874). Found by reducing an obtuse superbase.
"""

from __future__ import annotations

import numpy as np

from ..compiling import kernel

Array = np.ndarray


@kernel()
def selling_2d(matrices: Array, offsets: Array, weights: Array) -> int:
    """Fill ``offsets`` (m, 3, 2) and ``weights`` (m, 3) from ``matrices`` (m, 2, 2); returns the index of a failure or -1."""
    for m in range(matrices.shape[0]):
        d = matrices[m]
        base = np.array([[-1, -1], [1, 0], [0, 1]], dtype=np.int64)
        done = False
        for _ in range(200):
            done = True
            for i, j, k in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
                product = 0.0
                for a in range(2):
                    for b in range(2):
                        product += base[i, a] * d[a, b] * base[j, b]
                if product > 1e-14 * (d[0, 0] + d[1, 1]):
                    for a in range(2):
                        bi, bj = base[i, a], base[j, a]
                        base[i, a], base[j, a], base[k, a] = -bi, bj, bi - bj
                    done = False
                    break
            if done:
                break
        if not done:
            return m
        for t, (i, j, k) in enumerate(((0, 1, 2), (0, 2, 1), (1, 2, 0))):
            product = 0.0
            for a in range(2):
                for b in range(2):
                    product += base[i, a] * d[a, b] * base[j, b]
            weights[m, t] = max(0.0, -product)
            offsets[m, t, 0], offsets[m, t, 1] = -base[k, 1], base[k, 0]
    return -1


@kernel()
def selling_3d(matrices: Array, offsets: Array, weights: Array) -> int:
    """Fill ``offsets`` (m, 6, 3) and ``weights`` (m, 6) from ``matrices`` (m, 3, 3); returns the index of a failure or -1."""
    pairs = ((0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2), (1, 2, 0, 3), (1, 3, 0, 2), (2, 3, 0, 1))
    for m in range(matrices.shape[0]):
        d = matrices[m]
        base = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1]], dtype=np.int64)
        done = False
        for _ in range(400):
            done = True
            for i, j, k, l in pairs:
                product = 0.0
                for a in range(3):
                    for b in range(3):
                        product += base[i, a] * d[a, b] * base[j, b]
                if product > 1e-14 * (d[0, 0] + d[1, 1] + d[2, 2]):
                    for a in range(3):
                        bi = base[i, a]
                        base[k, a] += bi
                        base[l, a] += bi
                        base[i, a] = -bi
                    done = False
                    break
            if done:
                break
        if not done:
            return m
        for t, (i, j, k, l) in enumerate(pairs):
            product = 0.0
            for a in range(3):
                for b in range(3):
                    product += base[i, a] * d[a, b] * base[j, b]
            weights[m, t] = max(0.0, -product)
            offsets[m, t, 0] = base[k, 1] * base[l, 2] - base[k, 2] * base[l, 1]
            offsets[m, t, 1] = base[k, 2] * base[l, 0] - base[k, 0] * base[l, 2]
            offsets[m, t, 2] = base[k, 0] * base[l, 1] - base[k, 1] * base[l, 0]
    return -1
