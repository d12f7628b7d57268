"""Compiled sums over trajectories, each in a fixed order."""

from __future__ import annotations

import numpy as np

from ..compiling import kernel


@kernel(nogil=True, error_model="numpy")
def all_finite(a):  # type: ignore[no-untyped-def]
    """Whether every row of a (m, k) is finite, as flags (m,)."""
    out = np.ones(a.shape[0], np.bool_)
    for l in range(a.shape[0]):
        for i in range(a.shape[1]):
            out[l] &= np.isfinite(a[l, i])
    return out


@kernel(nogil=True, error_model="numpy")
def ket_components(psi):  # type: ignore[no-untyped-def]
    """Real components (m, d^2) of ``psi psi^+``: diagonal, then real and imaginary parts above it."""
    m, d = psi.shape
    pairs = d * (d - 1) // 2
    out = np.empty((m, d * d))
    for l in range(m):
        k = d
        for a in range(d):
            x, y = psi[l, a].real, psi[l, a].imag
            out[l, a] = x * x + y * y
            for b in range(a + 1, d):
                u, v = psi[l, b].real, psi[l, b].imag
                out[l, k] = x * u + y * v
                out[l, k + pairs] = y * u - x * v
                k += 1
    return out


@kernel(nogil=True, error_model="numpy")
def purities(x):  # type: ignore[no-untyped-def]
    """``Tr rho^2 / Tr rho`` from components x (m, d^2); 0 where the trace is 0."""
    m, size = x.shape
    d = int(round(np.sqrt(size)))
    out = np.empty(m)
    for l in range(m):
        trace, square = 0.0, 0.0
        for a in range(d):
            trace += x[l, a]
            square += x[l, a] * x[l, a]
        for a in range(d, size):
            square += 2.0 * x[l, a] * x[l, a]
        out[l] = square / (trace if trace > 0.0 else 1.0)
    return out


@kernel(nogil=True, error_model="numpy")
def products(z, x, first, second):  # type: ignore[no-untyped-def]
    """Rows ``z^k x_c``, (m, monomials * components); monomial k is ``z[first] z[second]``, with -1 for a factor of one."""
    m, size = x.shape
    count = first.shape[0]
    out = np.empty((m, count * size))
    for l in range(m):
        for k in range(count):
            power = (z[l, first[k]] if first[k] >= 0 else 1.0) * (z[l, second[k]] if second[k] >= 0 else 1.0)
            for c in range(size):
                out[l, k * size + c] = power * x[l, c]
    return out


@kernel(nogil=True, error_model="numpy")
def column_means(rows):  # type: ignore[no-untyped-def]
    """Mean of each column of (m, k)."""
    m, k = rows.shape
    out = np.zeros(k)
    for l in range(m):
        for a in range(k):
            out[a] += rows[l, a]
    return out / m


@kernel(nogil=True, error_model="numpy")
def scatter(rows, mean):  # type: ignore[no-untyped-def]
    """Sum over rows (m, k) of ``(f - mean)(f - mean)^T``, four rows at a time."""
    m, k = rows.shape
    out = np.zeros((k, k))
    delta = np.empty((4, k))
    for l in range(0, m, 4):
        count = min(4, m - l)
        delta[count:] = 0.0
        for j in range(count):
            for a in range(k):
                delta[j, a] = rows[l + j, a] - mean[a]
        for a in range(k):
            d0, d1, d2, d3 = delta[0, a], delta[1, a], delta[2, a], delta[3, a]
            for b in range(a + 1):
                out[a, b] += d0 * delta[0, b] + d1 * delta[1, b] + d2 * delta[2, b] + d3 * delta[3, b]
    for a in range(k):
        for b in range(a):
            out[b, a] = out[a, b]
    return out


@kernel(nogil=True, error_model="numpy")
def histogram(z, x, lower, spacing, n):  # type: ignore[no-untyped-def]
    """Components x (m, c) summed in each of n cells of one coordinate z (m,), visits of each cell, and visits below and above."""
    sums, visits = np.zeros((n, x.shape[1])), np.zeros(n)
    outside = np.zeros(2)
    for l in range(x.shape[0]):
        at = np.floor((z[l] - lower) / spacing)
        if at < 0.0:
            outside[0] += 1.0
        elif at >= n:
            outside[1] += 1.0
        else:
            cell = int(at)
            visits[cell] += 1.0
            for c in range(x.shape[1]):
                sums[cell, c] += x[l, c]
    return sums, visits, outside


@kernel(nogil=True, error_model="numpy")
def third_moments(rows, mean, white):  # type: ignore[no-untyped-def]
    """Means of ``y_i y_j y_k`` for k <= j <= i, where ``y = white (row - mean)``, in a fixed order of summation."""
    m, size = rows.shape
    r = white.shape[0]
    out = np.zeros((r, r, r))
    delta, y = np.empty(size), np.empty(r)
    for l in range(m):
        for a in range(size):
            delta[a] = rows[l, a] - mean[a]
        for i in range(r):
            total = 0.0
            for a in range(size):
                total += white[i, a] * delta[a]
            y[i] = total
        for i in range(r):
            for j in range(i + 1):
                pair = y[i] * y[j]
                for k in range(j + 1):
                    out[i, j, k] += pair * y[k]
    return out / m


@kernel(nogil=True, error_model="numpy")
def skewness_invariants(a, b):  # type: ignore[no-untyped-def]
    """``sum a_ijk b_ijk`` and ``sum_j (sum_i a_iij) (sum_k b_kkj)`` of symmetric tensors given for k <= j <= i."""
    r = a.shape[0]
    full, first, second = 0.0, np.zeros(r), np.zeros(r)
    for i in range(r):
        for j in range(i + 1):
            for k in range(j + 1):
                many = 6.0 if i != j and j != k else 1.0 if i == k else 3.0
                full += many * a[i, j, k] * b[i, j, k]
                if i == j:
                    first[k] += a[i, j, k]
                    second[k] += b[i, j, k]
                if j == k and i != j:
                    first[i] += a[i, j, k]
                    second[i] += b[i, j, k]
    return full, np.sum(first * second)
