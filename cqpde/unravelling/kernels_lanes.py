"""Many steps of kets at a time, where drift and Hamiltonian are affine in z and all else is the same everywhere.

Blocks of trajectories lie side by side in lanes, real and imaginary parts apart, and every loop over lanes is free of branches and
calls, so that it vectorises: on one core a step of a qubit with one particle takes tens of nanoseconds.
"""

from __future__ import annotations

import numpy as np

from ..compiling import kernel

#: Trajectories side by side.
WIDTH = 128


@kernel(nogil=True, error_model="numpy")
def euler_ket_affine(psi, z, g0, g1, v0, v1, b, sigma, dw, dt):  # type: ignore[no-untyped-def]
    """Many steps as :func:`.kernels.euler_ket`, with ``generator = g0 + z_i g1[i]``, ``v = v0 + z_i v1[i]`` and the rest the same everywhere.

    dw has shape (steps, m, k).
    """
    m, d = psi.shape
    n, k_count, steps = z.shape[1], sigma.shape[1], dw.shape[0]
    width = WIDTH
    x, y = np.empty((d, width)), np.empty((d, width))  # psi
    nx, ny = np.empty((d, width)), np.empty((d, width))  # the next psi
    bx, by = np.empty((d, width)), np.empty((d, width))  # B psi
    zz, nz = np.empty((n, width)), np.empty((n, width))
    mx, my, norm = np.empty(width), np.empty(width), np.empty(width)
    for first in range(0, m, width):
        w = min(width, m - first)
        for l in range(w):
            for a in range(d):
                x[a, l], y[a, l] = psi[first + l, a].real, psi[first + l, a].imag
            for i in range(n):
                zz[i, l] = z[first + l, i]
        for s in range(steps):
            for a in range(d):
                nx[a, :w] = x[a, :w]
                ny[a, :w] = y[a, :w]
                for c in range(d):
                    if g0[a, c] != 0.0:
                        re, im = dt * g0[a, c].real, dt * g0[a, c].imag
                        for l in range(w):
                            nx[a, l] += re * x[c, l] - im * y[c, l]
                            ny[a, l] += re * y[c, l] + im * x[c, l]
                    for i in range(n):
                        if g1[i, a, c] != 0.0:
                            re, im = dt * g1[i, a, c].real, dt * g1[i, a, c].imag
                            for l in range(w):
                                nx[a, l] += zz[i, l] * (re * x[c, l] - im * y[c, l])
                                ny[a, l] += zz[i, l] * (re * y[c, l] + im * x[c, l])
            for i in range(n):
                nz[i, :w] = zz[i, :w] + dt * v0[i]
                for j in range(n):
                    if v1[j, i] != 0.0:
                        for l in range(w):
                            nz[i, l] += dt * v1[j, i] * zz[j, l]
            for k in range(k_count):
                mx[:w] = 0.0
                my[:w] = 0.0
                for a in range(d):
                    bx[a, :w] = 0.0
                    by[a, :w] = 0.0
                    for c in range(d):
                        if b[k, a, c] != 0.0:
                            re, im = b[k, a, c].real, b[k, a, c].imag
                            for l in range(w):
                                bx[a, l] += re * x[c, l] - im * y[c, l]
                                by[a, l] += re * y[c, l] + im * x[c, l]
                    for l in range(w):
                        mx[l] += x[a, l] * bx[a, l] + y[a, l] * by[a, l]
                        my[l] += x[a, l] * by[a, l] - y[a, l] * bx[a, l]
                for a in range(d):
                    for l in range(w):
                        noise = dw[s, first + l, k]
                        ux, uy = mx[l] * dt + noise, -my[l] * dt
                        qx, qy = 0.5 * dt * (mx[l] * mx[l] + my[l] * my[l]) + mx[l] * noise, my[l] * noise
                        nx[a, l] += ux * bx[a, l] - uy * by[a, l] - qx * x[a, l] + qy * y[a, l]
                        ny[a, l] += ux * by[a, l] + uy * bx[a, l] - qx * y[a, l] - qy * x[a, l]
                for i in range(n):
                    if sigma[i, k] != 0.0:
                        for l in range(w):
                            nz[i, l] += sigma[i, k] * (2.0 * mx[l] * dt + dw[s, first + l, k])
            norm[:w] = 0.0
            for a in range(d):
                for l in range(w):
                    norm[l] += nx[a, l] * nx[a, l] + ny[a, l] * ny[a, l]
            for l in range(w):
                norm[l] = 1.0 / np.sqrt(norm[l])
            for a in range(d):
                for l in range(w):
                    x[a, l] = nx[a, l] * norm[l]
                    y[a, l] = ny[a, l] * norm[l]
            for i in range(n):
                zz[i, :w] = nz[i, :w]
        for l in range(w):
            for a in range(d):
                psi[first + l, a] = complex(x[a, l], y[a, l])
            for i in range(n):
                z[first + l, i] = zz[i, l]


@kernel(nogil=True, error_model="numpy")
def instrument_qubit_affine(psi, z, h0, h1, shift, matrix, values, sigma, uniform, normal, dt):  # type: ignore[no-untyped-def]
    r"""Many steps of the instrument on kets of two levels, in the basis in which the one Hermitian B is ``diag(values)``.

    ``H = h0 + z_i h1[i]``; ``z <- matrix z + shift`` streams for half a step; uniform and normal have shape (steps, m); sigma (n,).
    Global phases are left out. With a = (r_1 - r_0) sqrt(dt) and the record drawn at one eigenvalue, the amplitude of the other one
    is multiplied by :math:`\exp(-a^2 \pm a\xi)` relative to it, which never overflows.
    """
    m, n, steps = psi.shape[0], z.shape[1], uniform.shape[0]
    x0, y0, x1, y1 = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
    zz, nz = np.empty((n, WIDTH)), np.empty((n, WIDTH))
    split, off_x, off_y = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
    angle, cosine, sine = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
    record, factor = np.empty(WIDTH), np.empty(WIDTH)
    half, root = 0.5 * dt, np.sqrt(dt)
    step = (values[1] - values[0]) * root
    for first in range(0, m, WIDTH):
        w = min(WIDTH, m - first)
        for l in range(w):
            x0[l], y0[l] = psi[first + l, 0].real, psi[first + l, 0].imag
            x1[l], y1[l] = psi[first + l, 1].real, psi[first + l, 1].imag
            for i in range(n):
                zz[i, l] = z[first + l, i]
        for s in range(steps):
            _affine_lanes(zz, nz, matrix, shift, w)
            _turn_lanes(x0, y0, x1, y1, zz, h0, h1, half, split, off_x, off_y, angle, cosine, sine, w)
            for l in range(w):
                p0, p1 = x0[l] * x0[l] + y0[l] * y0[l], x1[l] * x1[l] + y1[l] * y1[l]
                lower = 1.0 if uniform[s, first + l] * (p0 + p1) < p0 else 0.0
                xi = normal[s, first + l]
                record[l] = 2.0 * dt * (lower * values[0] + (1.0 - lower) * values[1]) + root * xi
                factor[l] = (2.0 * lower - 1.0) * step * xi - step * step
                split[l] = lower
            _exp_lanes(factor, angle, w)
            for l in range(w):
                f0 = split[l] + (1.0 - split[l]) * factor[l]
                f1 = split[l] * factor[l] + (1.0 - split[l])
                p0, p1 = x0[l] * x0[l] + y0[l] * y0[l], x1[l] * x1[l] + y1[l] * y1[l]
                scale = 1.0 / np.sqrt(p0 * f0 * f0 + p1 * f1 * f1)
                x0[l] *= f0 * scale
                y0[l] *= f0 * scale
                x1[l] *= f1 * scale
                y1[l] *= f1 * scale
            for i in range(n):
                if sigma[i] != 0.0:
                    for l in range(w):
                        zz[i, l] += sigma[i] * record[l]
            _turn_lanes(x0, y0, x1, y1, zz, h0, h1, half, split, off_x, off_y, angle, cosine, sine, w)
            _affine_lanes(zz, nz, matrix, shift, w)
        for l in range(w):
            psi[first + l, 0], psi[first + l, 1] = complex(x0[l], y0[l]), complex(x1[l], y1[l])
            for i in range(n):
                z[first + l, i] = zz[i, l]


@kernel(nogil=True, error_model="numpy", inline="always")
def _affine_lanes(z, new, matrix, shift, w):  # type: ignore[no-untyped-def]
    """``z <- matrix z + shift``."""
    n = z.shape[0]
    for i in range(n):
        for l in range(w):
            new[i, l] = shift[i]
        for j in range(n):
            if matrix[i, j] != 0.0:
                for l in range(w):
                    new[i, l] += matrix[i, j] * z[j, l]
    for i in range(n):
        for l in range(w):
            z[i, l] = new[i, l]


@kernel(nogil=True, error_model="numpy", inline="always")
def _turn_lanes(x0, y0, x1, y1, z, h0, h1, h, split, off_x, off_y, angle, cosine, sine, w):  # type: ignore[no-untyped-def]
    """``exp(-i h H(z))`` on qubits, up to a global phase."""
    for l in range(w):
        split[l] = 0.5 * (h0[0, 0].real - h0[1, 1].real)
        off_x[l] = h0[0, 1].real
        off_y[l] = h0[0, 1].imag
    for i in range(z.shape[0]):
        slope = 0.5 * (h1[i, 0, 0].real - h1[i, 1, 1].real)
        if slope != 0.0:
            for l in range(w):
                split[l] += slope * z[i, l]
        re, im = h1[i, 0, 1].real, h1[i, 0, 1].imag
        if re != 0.0 or im != 0.0:
            for l in range(w):
                off_x[l] += re * z[i, l]
                off_y[l] += im * z[i, l]
    for l in range(w):
        angle[l] = np.sqrt(split[l] * split[l] + off_x[l] * off_x[l] + off_y[l] * off_y[l] + 1e-300)
        sine[l] = angle[l]
        angle[l] *= h
    _sincos_lanes(angle, cosine, sine, w)
    for l in range(w):
        a, b = sine[l] * split[l], cosine[l]
        re, im = sine[l] * off_x[l], sine[l] * off_y[l]
        ax, ay, bx, by = x0[l], y0[l], x1[l], y1[l]
        # c - i s H: -i (re + i im) psi_1 = (im x1 + re y1) + i (im y1 - re x1)
        x0[l] = b * ax + a * ay + im * bx + re * by
        y0[l] = b * ay - a * ax + im * by - re * bx
        x1[l] = b * bx - a * by - im * ax + re * ay
        y1[l] = b * by + a * bx - im * ay - re * ax


@kernel(nogil=True, error_model="numpy", inline="always")
def _sincos_lanes(angle, cosine, sine, w):  # type: ignore[no-untyped-def]
    """``cosine <- +-cos(angle)``, ``sine <- +-sin(angle) / sine``, with the same sign in both; angle is scratch."""
    largest = 0.0
    for l in range(w):
        largest = max(largest, angle[l])
    if not largest < 1e5:  # also not finite: the reduction below loses digits
        for l in range(w):
            cosine[l] = np.cos(angle[l])
            sine[l] = np.sin(angle[l]) / sine[l]
        return
    for l in range(w):
        turns = (angle[l] * 0.3183098861837907 + 6755399441055744.0) - 6755399441055744.0
        r = ((angle[l] - turns * 3.141592651605606) - turns * 1.9841871583270443e-09) - turns * 1.034036596358821e-18
        u = r * r
        c = 1.0 + u * (-1 / 2 + u * (1 / 24 + u * (-1 / 720 + u * (1 / 40320 + u * (-1 / 3628800 + u * (1 / 479001600 + u * (
            -1 / 87178291200 + u * (1 / 20922789888000 + u * (-1 / 6402373705728000 + u / 2432902008176640000)))))))))
        q = 1.0 + u * (-1 / 6 + u * (1 / 120 + u * (-1 / 5040 + u * (1 / 362880 + u * (-1 / 39916800 + u * (1 / 6227020800 + u * (
            -1 / 1307674368000 + u * (1 / 355687428096000 - u / 121645100408832000))))))))
        cosine[l] = c
        sine[l] = r * q / sine[l]


@kernel(nogil=True, error_model="numpy", inline="always")
def _exp_lanes(x, work, w):  # type: ignore[no-untyped-def]
    """``x <- exp(x)``, zero below -700, for x < 700."""
    bits = work.view(np.int64)
    for l in range(w):
        v = max(x[l], -700.0)
        shifted = v * 1.4426950408889634 + 6755399441055744.0
        k = shifted - 6755399441055744.0
        work[l] = shifted
        r = (v - k * 0.6931471803691238) - k * 1.9082149292705877e-10
        x[l] = 1.0 + r * (1.0 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120 + r * (1 / 720 + r * (1 / 5040 + r * (
            1 / 40320 + r * (1 / 362880 + r * (1 / 3628800 + r * (1 / 39916800 + r / 479001600)))))))))))
    for l in range(w):
        bits[l] = (bits[l] + 1023) << 52
    for l in range(w):
        x[l] *= work[l]
