"""Compiled loops of the instrument: exponentials to round-off and kicks. Conventions: :mod:`cqpde.unravelling.kernels`."""

from __future__ import annotations

import numpy as np

from ..compiling import kernel
from .kernels import _add_sandwich


@kernel(nogil=True, error_model="numpy")
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


@kernel(nogil=True, error_model="numpy")
def unitary_qubit(psi, h, dt):  # type: ignore[no-untyped-def]
    """``psi <- exp(-i h dt) psi`` for two levels and Hermitian h (m or 1, 2, 2), in closed form."""
    for l in range(psi.shape[0]):
        c = l if h.shape[0] > 1 else 0
        mean, half = 0.5 * (h[c, 0, 0].real + h[c, 1, 1].real), 0.5 * (h[c, 0, 0].real - h[c, 1, 1].real)
        off = h[c, 0, 1]
        w = np.sqrt(half * half + off.real * off.real + off.imag * off.imag)
        cosine = np.cos(w * dt)
        sine = np.sin(w * dt) / w if w > 0.0 else dt
        phase = complex(np.cos(mean * dt), -np.sin(mean * dt))
        a, b = psi[l, 0], psi[l, 1]
        psi[l, 0] = phase * (complex(cosine, -sine * half) * a - 1j * sine * off * b)
        psi[l, 1] = phase * (complex(cosine, sine * half) * b - 1j * sine * np.conj(off) * a)


@kernel(nogil=True, error_model="numpy")
def exponential_columns(m, x):  # type: ignore[no-untyped-def]
    """``m[l] <- exp(x[l]) m[l]`` for matrices m (points, d, d), column by column as :func:`exponential_ket`."""
    d = m.shape[1]
    one = np.ones(1)
    for c in range(d):
        column = m[:, :, c].copy()
        exponential_ket(column, x, one)
        m[:, :, c] = column


@kernel(nogil=True, error_model="numpy")
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


@kernel(nogil=True, error_model="numpy")
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


@kernel(nogil=True, error_model="numpy")
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


@kernel(nogil=True, error_model="numpy", inline="always")
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


@kernel(nogil=True, error_model="numpy", inline="always")
def _largest_exponent(p, values, y, dt):  # type: ignore[no-untyped-def]
    """Largest ``r y - r^2 dt`` among the populated eigenvalues: taken out, so that nothing over- or underflows."""
    largest = -np.inf
    for a in range(p.shape[0]):
        if p[a] > 0.0:
            largest = max(largest, values[a] * y - values[a] ** 2 * dt)
    return largest
