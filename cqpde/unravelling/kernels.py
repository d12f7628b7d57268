"""Compiled loops over trajectories: arrays and scalars in, arrays changed in place; nothing here draws random numbers.

Arrays of coefficients have a leading size of m (trajectories) or 1; ``c = l if size > 1 else 0`` picks the entry. Kets are (m, d),
density matrices (m, d, d), classical points (m, n).
"""

from __future__ import annotations

import numpy as np

from ..compiling import kernel

Array = np.ndarray


@kernel(nogil=True, error_model="numpy")
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


@kernel(nogil=True, error_model="numpy")
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


@kernel(nogil=True, error_model="numpy", inline="always")
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


@kernel(nogil=True, error_model="numpy")
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


@kernel(nogil=True, error_model="numpy")
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
