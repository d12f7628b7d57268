"""Compiled loops over trajectories: arrays and scalars in, arrays changed in place; nothing here draws random numbers.

Arrays of coefficients have a leading size of m (trajectories) or 1; ``c = l if size > 1 else 0`` picks the entry. Kets are (m, d),
density matrices (m, d, d), classical points (m, n).
"""

from __future__ import annotations

import numpy as np
from numba import njit

Array = np.ndarray


@njit(cache=True, nogil=True, error_model="numpy")
def euler_ket(psi, z, v, generator, b, sigma, dw, dt, normalise):  # type: ignore[no-untyped-def]
    """One Euler-Maruyama step of (7) and (9); without ``normalise`` of the linear equations, in which dw is the record itself."""
    m, d = psi.shape
    n, k_count = sigma.shape[1], sigma.shape[2]
    y = np.empty((k_count, d), dtype=np.complex128)
    new = np.empty(d, dtype=np.complex128)
    mean = np.empty(k_count, dtype=np.complex128)
    record = np.empty(k_count)
    g_many, b_many, s_many, v_many = generator.shape[0] > 1, b.shape[0] > 1, sigma.shape[0] > 1, v.shape[0] > 1
    for l in range(m):
        cg, cb, cs, cv = l if g_many else 0, l if b_many else 0, l if s_many else 0, l if v_many else 0
        for a in range(d):
            total = 0.0j
            for c in range(d):
                total += generator[cg, a, c] * psi[l, c]
            new[a] = psi[l, a] + dt * total
        for k in range(k_count):
            expectation = 0.0j
            for a in range(d):
                total = 0.0j
                for c in range(d):
                    total += b[cb, k, a, c] * psi[l, c]
                y[k, a] = total
                expectation += np.conj(psi[l, a]) * total
            mean[k] = expectation if normalise else 0.0j
            record[k] = 2.0 * mean[k].real * dt + dw[l, k]
            up = np.conj(mean[k]) * dt + dw[l, k]
            down = 0.5 * dt * (mean[k].real ** 2 + mean[k].imag ** 2) + mean[k] * dw[l, k]
            for a in range(d):
                new[a] += up * y[k, a] - down * psi[l, a]
        norm = 0.0
        for a in range(d):
            norm += new[a].real ** 2 + new[a].imag ** 2
        scale = 1.0 / np.sqrt(norm) if normalise else 1.0
        for a in range(d):
            psi[l, a] = new[a] * scale
        for i in range(n):
            total_z = v[cv, i] * dt
            for k in range(k_count):
                total_z += sigma[cs, i, k] * record[k]
            z[l, i] += total_z


@njit(cache=True, nogil=True, error_model="numpy")
def euler_matrix(rho, z, v, generator, b, jumps, sigma, dw, dt, conditioned):  # type: ignore[no-untyped-def]
    """One Euler-Maruyama step of (7)-(8); without ``conditioned`` of the linear equations, in which dw is the record itself."""
    m, d = rho.shape[0], rho.shape[1]
    n, k_count, j_count = sigma.shape[1], sigma.shape[2], jumps.shape[1]
    x = np.empty((d, d), dtype=np.complex128)
    half = np.empty((d, d), dtype=np.complex128)
    new = np.empty((d, d), dtype=np.complex128)
    record = np.empty(k_count)
    g_many, b_many, s_many, v_many = generator.shape[0] > 1, b.shape[0] > 1, sigma.shape[0] > 1, v.shape[0] > 1
    j_many = jumps.shape[0] > 1
    for l in range(m):
        cg, cb, cs, cv = l if g_many else 0, l if b_many else 0, l if s_many else 0, l if v_many else 0
        cj = l if j_many else 0
        for a in range(d):
            for c in range(d):
                x[a, c] = dt * generator[cg, a, c]
        for k in range(k_count):
            expectation = 0.0j
            if conditioned:
                for a in range(d):
                    for c in range(d):
                        expectation += b[cb, k, a, c] * rho[l, c, a]
            record[k] = 2.0 * expectation.real * dt + dw[l, k]
            for a in range(d):
                for c in range(d):
                    x[a, c] += b[cb, k, a, c] * dw[l, k]
                x[a, a] -= expectation * dw[l, k]
        for a in range(d):
            for c in range(d):
                total = 0.0j
                for e in range(d):
                    total += x[a, e] * rho[l, e, c]
                half[a, c] = total
        for a in range(d):
            for c in range(d):
                new[a, c] = rho[l, a, c] + half[a, c] + np.conj(half[c, a])
        for k in range(k_count):
            _add_sandwich(new, b[cb, k], rho[l], dt, half)
        for k in range(j_count):
            _add_sandwich(new, jumps[cj, k], rho[l], dt, half)
        for a in range(d):
            for c in range(d):
                rho[l, a, c] = new[a, c]
        for i in range(n):
            total_z = v[cv, i] * dt
            for k in range(k_count):
                total_z += sigma[cs, i, k] * record[k]
            z[l, i] += total_z


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _add_sandwich(out, x, rho, weight, work):  # type: ignore[no-untyped-def]
    """``out += weight x rho x^+``; ``work`` is scratch."""
    d = rho.shape[0]
    for a in range(d):
        for c in range(d):
            total = 0.0j
            for e in range(d):
                total += x[a, e] * rho[e, c]
            work[a, c] = total
    for a in range(d):
        for c in range(d):
            total = 0.0j
            for e in range(d):
                total += work[a, e] * np.conj(x[c, e])
            out[a, c] += weight * total


@njit(cache=True, nogil=True, error_model="numpy")
def terms_ket(psi, generator, b, drift, noise, force, conditioned):  # type: ignore[no-untyped-def]
    """Drift (m, d), noise columns (m, k, d) of (9), and ``2 Re <B_k>`` (m, k); unconditioned: of the linear equation."""
    m, d = psi.shape
    k_count = b.shape[1]
    for l in range(m):
        cg, cb = l if generator.shape[0] > 1 else 0, l if b.shape[0] > 1 else 0
        norm = 0.0
        for a in range(d):
            norm += psi[l, a].real ** 2 + psi[l, a].imag ** 2
            total = 0.0j
            for c in range(d):
                total += generator[cg, a, c] * psi[l, c]
            drift[l, a] = total
        for k in range(k_count):
            mean = 0.0j
            for a in range(d):
                total = 0.0j
                for c in range(d):
                    total += b[cb, k, a, c] * psi[l, c]
                noise[l, k, a] = total
                mean += np.conj(psi[l, a]) * total
            mean = mean * (1.0 / norm) if conditioned else 0.0j
            force[l, k] = 2.0 * mean.real
            square = 0.5 * (mean.real**2 + mean.imag**2)
            for a in range(d):
                drift[l, a] += np.conj(mean) * noise[l, k, a] - square * psi[l, a]
                noise[l, k, a] -= mean * psi[l, a]


@njit(cache=True, nogil=True, error_model="numpy")
def terms_matrix(rho, generator, b, jumps, drift, noise, force, conditioned):  # type: ignore[no-untyped-def]
    """Drift (m, d, d), noise columns (m, k, d, d) of (8), and ``2 Re <B_k>`` (m, k); unconditioned: of the linear equation."""
    m, d = rho.shape[0], rho.shape[1]
    k_count, j_count = b.shape[1], jumps.shape[1]
    half = np.empty((d, d), dtype=np.complex128)
    for l in range(m):
        cg, cb = l if generator.shape[0] > 1 else 0, l if b.shape[0] > 1 else 0
        cj = l if jumps.shape[0] > 1 else 0
        trace = 0.0
        for a in range(d):
            trace += rho[l, a, a].real
            for c in range(d):
                total = 0.0j
                for e in range(d):
                    total += generator[cg, a, e] * rho[l, e, c]
                half[a, c] = total
        for a in range(d):
            for c in range(d):
                drift[l, a, c] = half[a, c] + np.conj(half[c, a])
        for k in range(k_count):
            mean = 0.0j
            for a in range(d):
                for c in range(d):
                    total = 0.0j
                    for e in range(d):
                        total += b[cb, k, a, e] * rho[l, e, c]
                    half[a, c] = total
                mean += half[a, a]
            mean = mean * (1.0 / trace) if conditioned else 0.0j
            force[l, k] = 2.0 * mean.real
            for a in range(d):
                for c in range(d):
                    noise[l, k, a, c] = half[a, c] + np.conj(half[c, a]) - 2.0 * mean.real * rho[l, a, c]
            _add_sandwich(drift[l], b[cb, k], rho[l], 1.0, half)
        for k in range(j_count):
            _add_sandwich(drift[l], jumps[cj, k], rho[l], 1.0, half)


@njit(cache=True, nogil=True, error_model="numpy")
def exponential_ket(psi, x, scale):  # type: ignore[no-untyped-def]
    """``psi <- exp(scale[l] x) psi`` by Taylor series to round-off, in as many pieces as the norm asks for."""
    m, d = psi.shape
    term, total, work = np.empty(d, np.complex128), np.empty(d, np.complex128), np.empty(d, np.complex128)
    for l in range(m):
        cx, cs = l if x.shape[0] > 1 else 0, l if scale.shape[0] > 1 else 0
        size = 0.0
        for a in range(d):
            for c in range(d):
                size += abs(x[cx, a, c].real) + abs(x[cx, a, c].imag)
        size *= abs(scale[cs])
        if size == 0.0:
            continue
        if not size < 1e6:
            psi[l] = np.nan
            continue
        pieces = int(np.ceil(size))
        step = scale[cs] / pieces
        for _ in range(pieces):
            for a in range(d):
                term[a] = psi[l, a]
                total[a] = psi[l, a]
            for order in range(1, 30):
                largest = 0.0
                for a in range(d):
                    value = 0.0j
                    for c in range(d):
                        value += x[cx, a, c] * term[c]
                    work[a] = value * (step / order)
                    largest = max(largest, abs(work[a].real) + abs(work[a].imag))
                for a in range(d):
                    term[a] = work[a]
                    total[a] += work[a]
                if largest < 1e-17:
                    break
            for a in range(d):
                psi[l, a] = total[a]


@njit(cache=True, nogil=True, error_model="numpy")
def exponential_columns(m, x):  # type: ignore[no-untyped-def]
    """``m[l] <- exp(x[l]) m[l]`` for matrices m (points, d, d), column by column as :func:`exponential_ket`."""
    d = m.shape[1]
    one = np.ones(1)
    for c in range(d):
        column = m[:, :, c].copy()
        exponential_ket(column, x, one)
        m[:, :, c] = column


@njit(cache=True, nogil=True, error_model="numpy")
def exponential_matrix(rho, x, jumps, scale):  # type: ignore[no-untyped-def]
    """``rho <- exp(scale[l] L) rho``, ``L rho = x rho + rho x^+ + sum N rho N^+``, by Taylor series to round-off."""
    m, d = rho.shape[0], rho.shape[1]
    j_count = jumps.shape[1]
    term = np.empty((d, d), np.complex128)
    work = np.empty((d, d), np.complex128)
    half = np.empty((d, d), np.complex128)
    total = np.empty((d, d), np.complex128)
    for l in range(m):
        cx, cs = l if x.shape[0] > 1 else 0, l if scale.shape[0] > 1 else 0
        cj = l if jumps.shape[0] > 1 else 0
        size = 0.0
        for a in range(d):
            for c in range(d):
                size += 2.0 * (abs(x[cx, a, c].real) + abs(x[cx, a, c].imag))
        size *= abs(scale[cs])
        if size == 0.0:
            continue
        if not size < 1e6:
            rho[l] = np.nan
            continue
        pieces = int(np.ceil(size))
        step = scale[cs] / pieces
        for _ in range(pieces):
            for a in range(d):
                for c in range(d):
                    term[a, c] = rho[l, a, c]
                    total[a, c] = rho[l, a, c]
            for order in range(1, 40):
                for a in range(d):
                    for c in range(d):
                        value = 0.0j
                        for e in range(d):
                            value += x[cx, a, e] * term[e, c]
                        half[a, c] = value
                for a in range(d):
                    for c in range(d):
                        work[a, c] = half[a, c] + np.conj(half[c, a])
                for k in range(j_count):
                    _add_sandwich(work, jumps[cj, k], term, 1.0, half)
                largest = 0.0
                for a in range(d):
                    for c in range(d):
                        term[a, c] = work[a, c] * (step / order)
                        total[a, c] += term[a, c]
                        largest = max(largest, abs(term[a, c].real) + abs(term[a, c].imag))
                if largest < 1e-17:
                    break
            for a in range(d):
                for c in range(d):
                    rho[l, a, c] = total[a, c]


@njit(cache=True, nogil=True, error_model="numpy")
def kick_ket(psi, vectors, values, uniform, normal, dt, record):  # type: ignore[no-untyped-def]
    r"""Measure R for a time dt: draw y from its exact law and apply ``exp(R y - R^2 dt)``, normalised.

    ``vectors`` (m or 1, d, d) and ``values`` (m or 1, d) diagonalise the Hermitian R. The law of y is
    :math:`\sum_a p_a \mathcal N(2 r_a dt, dt)`, p_a the populations in the eigenbasis: choose a, then a Gaussian.
    """
    m, d = psi.shape
    c = np.empty(d, np.complex128)
    p = np.empty(d)
    for l in range(m):
        e = l if values.shape[0] > 1 else 0
        total = 0.0
        for a in range(d):
            value = 0.0j
            for k in range(d):
                value += np.conj(vectors[e, k, a]) * psi[l, k]
            c[a] = value
            p[a] = value.real**2 + value.imag**2
            total += p[a]
        y = _outcome(p, values[e], uniform[l] * total, normal[l], dt)
        record[l] = y
        shift = _largest_exponent(p, values[e], y, dt)
        norm = 0.0
        for a in range(d):
            r = values[e, a]
            c[a] *= np.exp(r * y - r * r * dt - shift)
            norm += c[a].real ** 2 + c[a].imag ** 2
        scale = 1.0 / np.sqrt(norm)
        for k in range(d):
            value = 0.0j
            for a in range(d):
                value += vectors[e, k, a] * c[a]
            psi[l, k] = value * scale


@njit(cache=True, nogil=True, error_model="numpy")
def kick_matrix(rho, vectors, values, uniform, normal, dt, record):  # type: ignore[no-untyped-def]
    """As :func:`kick_ket`, on density matrices."""
    m, d = rho.shape[0], rho.shape[1]
    c = np.empty((d, d), np.complex128)
    work = np.empty((d, d), np.complex128)
    p, f = np.empty(d), np.empty(d)
    for l in range(m):
        e = l if values.shape[0] > 1 else 0
        for i in range(d):
            for a in range(d):
                value = 0.0j
                for k in range(d):
                    value += rho[l, i, k] * vectors[e, k, a]
                work[i, a] = value
        total = 0.0
        for a in range(d):
            for b in range(d):
                value = 0.0j
                for k in range(d):
                    value += np.conj(vectors[e, k, a]) * work[k, b]
                c[a, b] = value
            p[a] = max(c[a, a].real, 0.0)
            total += p[a]
        y = _outcome(p, values[e], uniform[l] * total, normal[l], dt)
        record[l] = y
        shift = _largest_exponent(p, values[e], y, dt)
        norm = 0.0
        for a in range(d):
            r = values[e, a]
            f[a] = np.exp(r * y - r * r * dt - shift)
            norm += c[a, a].real * f[a] * f[a]
        for a in range(d):
            for b in range(d):
                c[a, b] *= f[a] * f[b] * (1.0 / norm)
        for i in range(d):
            for b in range(d):
                value = 0.0j
                for a in range(d):
                    value += vectors[e, i, a] * c[a, b]
                work[i, b] = value
        for i in range(d):
            for k in range(i, d):
                value = 0.0j
                for b in range(d):
                    value += work[i, b] * np.conj(vectors[e, k, b])
                rho[l, i, k] = value if i != k else complex(value.real)
                rho[l, k, i] = np.conj(rho[l, i, k])


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _outcome(p, values, target, normal, dt):  # type: ignore[no-untyped-def]
    """Choose the eigenvalue at which the cumulated populations pass ``target``, then add the Gaussian."""
    d = p.shape[0]
    chosen, cumulated = d - 1, 0.0
    for a in range(d):
        cumulated += p[a]
        if target < cumulated:
            chosen = a
            break
    return 2.0 * values[chosen] * dt + np.sqrt(dt) * normal


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _largest_exponent(p, values, y, dt):  # type: ignore[no-untyped-def]
    """Largest ``r y - r^2 dt`` among the populated eigenvalues: taken out, so that nothing over- or underflows."""
    largest = -np.inf
    for a in range(p.shape[0]):
        if p[a] > 0.0:
            largest = max(largest, values[a] * y - values[a] ** 2 * dt)
    return largest


@njit(cache=True, nogil=True, error_model="numpy")
def scatter(features, mean):  # type: ignore[no-untyped-def]
    """Sum over rows of ``(f - mean)(f - mean)^T``, in a fixed order of summation; features (m, k)."""
    m, k = features.shape
    out = np.zeros((k, k))
    delta = np.empty(k)
    for l in range(m):
        for a in range(k):
            delta[a] = features[l, a] - mean[a]
        for a in range(k):
            for b in range(a + 1):
                out[a, b] += delta[a] * delta[b]
    for a in range(k):
        for b in range(a):
            out[b, a] = out[a, b]
    return out
