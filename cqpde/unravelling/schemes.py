r"""One step of an ensemble by each method: functions ``(fields, swarm, t, dt, noise)`` that change the swarm in place.

``euler-maruyama`` (weak order 1) and ``weak-2`` (weak order 2) integrate the equations as printed (with the resolved signs): (7)-(8) for
density matrices, (9) for kets, normalised after every step. ``weak-2`` is the explicit scheme of Platen with two-point differences
(P. E. Kloeden, E. Platen, *Numerical Solution of Stochastic Differential Equations*, eq. (15.1.3), for several noises).

``instrument``: :mod:`cqpde.unravelling.instrument`, weak order 2, positive at any step.
``mean-field`` is the standard semi-classical pair (13)-(14) by Runge-Kutta of order 4;
``linear`` the un-normalised unravelling of Appendix E by Euler-Maruyama: Z is driven by noise alone, and :math:`\mathrm{Tr}\rho` is the weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import kernels, kernels_lanes
from .fields import Fields, Local
from .instrument import instrument, instrument_many
from .swarm import Noise, Swarm, rows_of

Array = np.ndarray


def euler(fields: Fields, swarm: Swarm, t: float, dt: float, noise: Noise) -> Local:
    """Euler-Maruyama step of (7)-(8) or (9)."""
    return _euler(fields, swarm, t, dt, noise, True)


def linear(fields: Fields, swarm: Swarm, t: float, dt: float, noise: Noise) -> Local:
    """Euler-Maruyama step of the linear equations of Appendix E."""
    return _euler(fields, swarm, t, dt, noise, False)


def _euler(fields: Fields, swarm: Swarm, t: float, dt: float, noise: Noise, conditioned: bool) -> Local:
    c = fields.at(swarm.z, t)
    dw = np.sqrt(dt) * rows_of(noise.normals(c.sigma.shape[2]), swarm)
    if swarm.pure:
        kernels.euler_ket(swarm.x, swarm.z, c.v, c.generator, c.B, c.sigma, dw, dt, conditioned)
    else:
        kernels.euler_matrix(swarm.x, swarm.z, c.v, c.generator, c.B, c.N, c.sigma, dw, dt, conditioned)
    return c


def euler_many(fields: Fields, swarm: Swarm, steps: int, t: float, dt: float, noise: Noise) -> None:
    """Several Euler-Maruyama steps of (9) at once, where :meth:`Fields.affine_parts` has the coefficients."""
    base, slopes_v, slopes_h = fields.affine_parts(t)
    columns = base.sigma.shape[2]
    dw = np.sqrt(dt) * noise.normals(columns, steps).reshape(steps, len(swarm.z), columns)
    kernels_lanes.euler_ket_affine(
        swarm.x, swarm.z, base.generator[0], -1j * slopes_h, base.v[0], slopes_v, base.B[0], base.sigma[0], dw, dt
    )


def _terms(c: Local, z: Array, x: Array) -> tuple[Array, Array, Array, Array]:
    """Drift and noise columns of Z (m, n), (m, k, n) and of the quantum state (m, ...), (m, k, ...)."""
    m, k = len(x), c.sigma.shape[2]
    drift, noise, force = np.empty_like(x), np.empty((m, k, *x.shape[1:]), dtype=complex), np.empty((m, k))
    if x.ndim == 2:
        kernels.terms_ket(x, c.generator, c.B, drift, noise, force, True)
    else:
        kernels.terms_matrix(x, c.generator, c.B, c.N, drift, noise, force, True)
    drift_z = c.v + np.einsum("mik,mk->mi", c.sigma, force) if k else np.broadcast_to(c.v, z.shape)
    noise_z = np.broadcast_to(np.swapaxes(c.sigma, 1, 2), (m, k, z.shape[1]))
    return drift_z, noise_z, drift, noise


def weak2(fields: Fields, swarm: Swarm, t: float, dt: float, noise: Noise) -> Local:
    """Explicit weak order 2 step of (7)-(8) or (9)."""
    z, x = swarm.z, swarm.x
    c = fields.at(z, t)
    az, bz, ax, bx = _terms(c, z, x)
    k_count = bz.shape[1]
    root = np.sqrt(dt)
    w = root * rows_of(noise.normals(k_count), swarm)
    sign = np.where(rows_of(noise.uniforms(max(1, k_count * (k_count - 1) // 2)), swarm) < 0.5, dt, -dt)
    lift = lambda a: a.reshape(-1, *[1] * (x.ndim - 1))
    full_z = z + az * dt + np.einsum("mk,mki->mi", w, bz)
    full_x = x + ax * dt + np.einsum("mk,mk...->m...", w, bx)
    az_end, _, ax_end, _ = _terms(fields.at(full_z, t + dt), full_z, full_x)
    out_z, out_x = z + 0.5 * dt * (az + az_end), x + 0.5 * dt * (ax + ax_end)

    def columns(shift: float, j: int, drift: float) -> tuple[Array, Array]:
        """Noise columns at the point moved along column j (and along the drift)."""
        at_z, at_x = z + drift * dt * az + shift * root * bz[:, j], x + drift * dt * ax + shift * root * bx[:, j]
        _, nz, _, nx = _terms(fields.at(at_z, t + drift * dt), at_z, at_x)
        return nz, nx

    for j in range(k_count):
        (pz, px), (mz, mx) = columns(1.0, j, 1.0), columns(-1.0, j, 1.0)
        wj = w[:, j]
        square = 0.25 * (wj * wj - dt) / root
        out_z += (0.25 * wj)[:, None] * (pz[:, j] + mz[:, j] + 2.0 * bz[:, j]) + square[:, None] * (pz[:, j] - mz[:, j])
        out_x += lift(0.25 * wj) * (px[:, j] + mx[:, j] + 2.0 * bx[:, j]) + lift(square) * (px[:, j] - mx[:, j])
    if k_count > 1:
        for r in range(k_count):
            (pz, px), (mz, mx) = columns(1.0, r, 0.0), columns(-1.0, r, 0.0)
            for j in range(k_count):
                if j == r:
                    continue
                low, high = min(j, r), max(j, r)
                pair = high * (high - 1) // 2 + low
                v = sign[:, pair] if r > j else -sign[:, pair]
                cross = 0.25 * (w[:, j] * w[:, r] + v) / root
                out_z += (0.25 * w[:, j])[:, None] * (pz[:, j] + mz[:, j] - 2.0 * bz[:, j]) + cross[:, None] * (pz[:, j] - mz[:, j])
                out_x += lift(0.25 * w[:, j]) * (px[:, j] + mx[:, j] - 2.0 * bx[:, j]) + lift(cross) * (px[:, j] - mx[:, j])
    if swarm.pure:
        out_x /= np.sqrt(np.sum(np.abs(out_x) ** 2, axis=1))[:, None]
    swarm.z[...], swarm.x[...] = out_z, out_x
    return c


def mean_field(fields: Fields, swarm: Swarm, t: float, dt: float, noise: Noise) -> Local:
    """Runge-Kutta step of (13)-(14): Z driven by the expectation value, the state by H(Z) alone."""

    def slope(z: Array, x: Array, at: float) -> tuple[Array, Array]:
        c = fields.at(z, at)
        rho = np.einsum("ma,mb->mab", x, x.conj()) if x.ndim == 2 else x
        h = -1j * np.einsum("mab,mb...->ma...", c.H, x) if len(c.H) > 1 else -1j * np.einsum("ab,mb...->ma...", c.H[0], x)
        return c.v + _force(c, rho), h if x.ndim == 2 else h + h.conj().swapaxes(1, 2)

    z, x = swarm.z, swarm.x
    z1, x1 = slope(z, x, t)
    z2, x2 = slope(z + 0.5 * dt * z1, x + 0.5 * dt * x1, t + 0.5 * dt)
    z3, x3 = slope(z + 0.5 * dt * z2, x + 0.5 * dt * x2, t + 0.5 * dt)
    z4, x4 = slope(z + dt * z3, x + dt * x3, t + dt)
    swarm.z[...] = z + dt / 6.0 * (z1 + 2 * z2 + 2 * z3 + z4)
    x = x + dt / 6.0 * (x1 + 2 * x2 + 2 * x3 + x4)
    swarm.x[...] = x / np.sqrt(np.sum(np.abs(x) ** 2, axis=1))[:, None] if swarm.pure else x
    return fields.at(swarm.z, t)


def _force(c: Local, rho: Array) -> Array:
    """``<A_i + A_i^+>`` (m, n)."""
    means = 2.0 * np.real(np.einsum("mkab,mba->mk", np.broadcast_to(c.B, (len(rho), *c.B.shape[1:])), rho))
    return np.einsum("mik,mk->mi", np.broadcast_to(c.sigma, (len(rho), *c.sigma.shape[1:])), means)


@dataclass(frozen=True)
class Method:
    """A way to step: its function, its weak order, the largest ``rate x step`` of its default step, and one for many steps."""

    step: Callable[[Fields, Swarm, float, float, Noise], Local]
    order: int
    fraction: float
    many: Callable[[Fields, Swarm, int, float, float, Noise], None] | None = None


METHODS = {
    "instrument": Method(instrument, 2, 0.05, instrument_many),
    "euler-maruyama": Method(euler, 1, 0.005, euler_many),
    "weak-2": Method(weak2, 2, 0.05),
    "mean-field": Method(mean_field, 4, 0.1),
    "linear": Method(linear, 1, 0.005),
}
