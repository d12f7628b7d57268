r"""The finite-step measurement channels as an integrator of trajectories.

``instrument`` composes exact pieces symmetrically, :math:`T(h/2)\,Q(h/2)\,N(h)\,Q(h/2)\,T(h/2)`:

- T moves Z along v (midpoint rule); Q is the exact flow of the Hamiltonian and of the unobserved decoherence at fixed Z;
- N measures :math:`B = R + iI` for a time h, and Z moves by :math:`\sigma y`. For Hermitian B the record y is drawn from its exact law,
  the mixture of the normal laws :math:`\mathcal N(2r_ah, h)` over the eigenvalues of R, and the Gaussian Kraus operator
  :math:`e^{Ry - R^2h}` is applied: the paper's Appendix F at a finite step, a POVM whatever the step. For other B the same draw gets the
  mean and the variance of the exact record to second order,
  :math:`y \to (1 + h\langle i[R, I] + R'\rangle)\,y + h^2\langle B^\dagger RB - \tfrac12\{B^\dagger B, R\} + B^\dagger R' + R'B + \tfrac12R''\rangle`
  (primes: derivatives along :math:`\sigma`), and :math:`e^{By - (B^\dagger B + B^2)h/2}` is applied, or, where B or :math:`\sigma` change
  along the kick, a step of weak order 2 of the linear equations driven by that y. Several noises are taken in a random one of the two
  orders.

Weak order 2. Quantum states stay positive, and pure ones pure, in every case.
"""

from __future__ import annotations

from dataclasses import fields as dataclass_fields

import numpy as np
from scipy.linalg import expm

from . import kernels_instrument, kernels_lanes
from .fields import Fields, Local
from .swarm import Noise, Swarm, rows_of

Array = np.ndarray


def instrument(fields: Fields, swarm: Swarm, t: float, dt: float, noise: Noise) -> Local:
    """Symmetric composition of streaming, local flow and exact kick."""
    middle = t + 0.5 * dt
    _stream(fields, swarm, middle, 0.5 * dt)
    c = fields.at(swarm.z, middle)
    _local(fields, swarm, c, 0.5 * dt)
    _kicks(fields, swarm, c, middle, dt, noise)
    after = fields.at(swarm.z, middle)
    _local(fields, swarm, after, 0.5 * dt)
    _stream(fields, swarm, middle, 0.5 * dt)
    return c


def _stream(fields: Fields, swarm: Swarm, t: float, h: float) -> None:
    half = swarm.z + 0.5 * h * fields.drift(swarm.z, t)
    swarm.z += h * fields.drift(half, t)


def _local(fields: Fields, swarm: Swarm, c: Local, h: float) -> None:
    """Exact flow of the Hamiltonian and the unobserved decoherence at fixed Z."""
    if len(c.H) == 1 and len(c.N) == 1:
        flow = _flow(c, h, swarm.pure)
        flat = swarm.x.reshape(len(swarm.x), -1)
        swarm.x[...] = np.einsum("ab,mb->ma", flow, flat).reshape(swarm.x.shape)
        return
    scale = np.array([h])
    if swarm.pure and swarm.x.shape[1] == 2:
        kernels_instrument.unitary_qubit(swarm.x, c.H, h)
        return
    if swarm.pure:
        kernels_instrument.exponential_ket(swarm.x, -1j * c.H, scale)
        return
    lost = 0.5 * np.einsum("mgba,mgbc->mac", c.N.conj(), c.N)
    kernels_instrument.exponential_matrix(swarm.x, -1j * c.H - lost, c.N, scale)


def _flow(c: Local, h: float, pure: bool) -> Array:
    """The same flow as one matrix on kets (d, d) or on density matrices (d^2, d^2), where it is the same everywhere."""
    if pure:
        return np.asarray(expm(-1j * h * c.H[0]))
    x = -1j * c.H[0] - 0.5 * np.einsum("gba,gbc->ac", c.N[0].conj(), c.N[0])
    one = np.eye(len(x))
    generator = np.kron(x, one) + np.kron(one, x.conj()) + sum((np.kron(n, n.conj()) for n in c.N[0]), start=0.0 * np.kron(x, x))
    return np.asarray(expm(h * generator))


def _kicks(fields: Fields, swarm: Swarm, c: Local, t: float, dt: float, noise: Noise) -> None:
    """All kicks in a random one of the two orders."""
    k_count = c.sigma.shape[2]
    if k_count == 0:  # a model without noise
        return
    normal, uniform = rows_of(noise.normals(k_count), swarm), rows_of(noise.uniforms(k_count + (k_count > 1)), swarm)
    if k_count == 1:
        _kick(fields, swarm, c, 0, t, dt, uniform[:, 0], normal[:, 0])
        return
    backwards = uniform[:, k_count] < 0.5
    for chosen, order in ((~backwards, range(k_count)), (backwards, range(k_count - 1, -1, -1))):
        part = swarm.keep(chosen)
        if len(part.z) == 0:
            continue
        pick = lambda a, chosen=chosen: a[chosen] if len(a) > 1 else a
        local = Local(*[pick(getattr(c, f.name)) for f in dataclass_fields(c)])
        for j, k in enumerate(order):
            if fields.moving and j:
                local = fields.at(part.z, t)
            _kick(fields, part, local, k, t, dt, uniform[chosen, k], normal[chosen, k])
        swarm.z[chosen], swarm.x[chosen] = part.z, part.x


def _kick(fields: Fields, swarm: Swarm, c: Local, k: int, t: float, dt: float, uniform: Array, normal: Array) -> None:
    b = c.B[:, k]
    r = 0.5 * (b + b.conj().swapaxes(-1, -2))
    i = (b - r) / 1j
    if fields.moving:
        _moving_kick(fields, swarm, c, k, t, dt, uniform, normal)
        return
    if np.any(np.abs(i) > 1e-14 * max(1e-300, float(np.abs(b).max()))):
        record = _twisted_kick(swarm, b, r, i, dt, uniform, normal)
    else:
        values, vectors = np.linalg.eigh(r)
        record = np.empty(len(swarm.x))
        kick = kernels_instrument.kick_ket if swarm.pure else kernels_instrument.kick_matrix
        whole = np.ascontiguousarray
        kick(swarm.x, whole(vectors), values, whole(uniform), whole(normal), dt, record)
    swarm.z += c.sigma[:, :, k] * record[:, None]


def _record(rho: Array, r: Array, dt: float, uniform: Array, normal: Array) -> Array:
    """Draw the record of measuring R for a time dt: an eigenvalue with its population, then a Gaussian."""
    values, vectors = np.linalg.eigh(r)
    eigenbasis = vectors.conj().swapaxes(1, 2) @ rho @ vectors
    cumulated = np.cumsum(np.maximum(np.real(np.einsum("maa->ma", eigenbasis)), 0.0), axis=1)
    chosen = np.minimum(np.sum(uniform[:, None] * cumulated[:, -1:] >= cumulated, axis=1), values.shape[1] - 1)
    levels = np.take_along_axis(np.broadcast_to(values, cumulated.shape), chosen[:, None], axis=1)[:, 0]
    return np.asarray(2.0 * levels * dt + np.sqrt(dt) * normal)


def _corrected(y: Array, rho: Array, b: Array, r: Array, i: Array, first: Array | float, second: Array | float, dt: float) -> Array:
    """Give a record drawn for R alone the mean and variance of that of ``B = R + iI``, whose R changes along the kick.

    ``first`` and ``second`` are the first and second derivative of R along sigma.
    """
    b_dagger = b.conj().swapaxes(1, 2)
    both = b_dagger @ b
    mean = lambda o: np.real(np.einsum("mab,mba->m", np.broadcast_to(o, rho.shape), rho))
    slope = b_dagger @ r @ b - 0.5 * (both @ r + r @ both)
    if not np.isscalar(first):
        slope = slope + b_dagger @ first + first @ b + 0.5 * second
    return np.asarray((1.0 + dt * mean(1j * (r @ i - i @ r) + first)) * y + dt * dt * mean(slope))


def _apply(swarm: Swarm, m: Array) -> None:
    """``rho <- m rho m^+``, normalised."""
    if swarm.pure:
        x = np.einsum("mab,mb->ma", m, swarm.x)
        swarm.x[...] = x / np.sqrt(np.sum(np.abs(x) ** 2, axis=1))[:, None]
    else:
        x = m @ swarm.x @ m.conj().swapaxes(1, 2)
        swarm.x[...] = x / np.real(np.einsum("maa->m", x))[:, None, None]


def _twisted_kick(swarm: Swarm, b: Array, r: Array, i: Array, dt: float, uniform: Array, normal: Array) -> Array:
    r"""Measure ``B = R + iI``: draw y for R, correct its mean and variance, apply :math:`e^{By - (B^\dagger B + B^2)dt/2}`."""
    rho = swarm.matrices()
    y = _corrected(_record(rho, r, dt, uniform, normal), rho, b, r, i, 0.0, 0.0, dt)
    generator = b * y[:, None, None] - 0.5 * dt * (b.conj().swapaxes(1, 2) @ b + b @ b)
    m = np.array(np.broadcast_to(np.eye(rho.shape[1], dtype=complex), rho.shape))
    kernels_instrument.exponential_columns(m, generator)
    _apply(swarm, m)
    return y


def _moving_kick(
    fields: Fields, swarm: Swarm, c: Local, k: int, t: float, dt: float, uniform: Array, normal: Array
) -> None:
    r"""Measure B(Z) while the kick moves Z: the linear equations :math:`dZ = \sigma dY, dM = -\tfrac12B^\dagger BM dt + BM dY` by a step of
    weak order 2 from M = 1, for a record drawn with the right mean and variance.
    """
    root, b, sigma = np.sqrt(dt), c.B[:, k], c.sigma[:, :, k]
    up, down = fields.at(swarm.z + root * sigma, t), fields.at(swarm.z - root * sigma, t)
    hermitian = lambda o: 0.5 * (o + o.conj().swapaxes(1, 2))
    r, plus, minus = hermitian(b), hermitian(up.B[:, k]), hermitian(down.B[:, k])
    rho = swarm.matrices()
    y = _record(rho, r, dt, uniform, normal)
    y = _corrected(y, rho, b, r, (b - r) / 1j, (plus - minus) / (2.0 * root), (plus + minus - 2.0 * r) / dt, dt)
    lift = lambda a: a[:, None, None]
    slope = lambda o: -0.5 * o.conj().swapaxes(1, 2) @ o
    one = np.eye(rho.shape[1])
    end = fields.at(swarm.z + sigma * y[:, None], t).B[:, k]
    b_plus, b_minus = up.B[:, k] @ (one + slope(b) * dt + b * root), down.B[:, k] @ (one + slope(b) * dt - b * root)
    square = 0.25 * (y * y - dt) / root
    m = one + 0.5 * dt * (slope(b) + slope(end) @ (one + slope(b) * dt + b * lift(y)))
    m = m + lift(0.25 * y) * (b_plus + b_minus + 2.0 * b) + lift(square) * (b_plus - b_minus)
    s_plus, s_minus = up.sigma[:, :, k], down.sigma[:, :, k]
    swarm.z += 0.25 * y[:, None] * (s_plus + s_minus + 2.0 * sigma) + square[:, None] * (s_plus - s_minus)
    _apply(swarm, m)


def kick_moves_itself(fields: Fields, z: Array, t: float) -> bool:
    """Whether sigma or B change along the columns of sigma, judged at points z."""
    if fields.uniform_noise:
        return False
    c = fields.at(z, t)
    for k in range(c.sigma.shape[2]):
        moved = fields.at(z + 1e-3 * c.sigma[:, :, k], t)
        for a, b in ((moved.sigma, c.sigma), (moved.B, c.B)):
            if np.abs(a - b).max(initial=0.0) > 1e-9 * max(float(np.abs(b).max(initial=0.0)), 1e-300):
                return True
    return False


def instrument_many(fields: Fields, swarm: Swarm, steps: int, t: float, dt: float, noise: Noise) -> None:
    """Several steps of the instrument at once, for a qubit in a pure state with one Hermitian B that is the same everywhere."""
    base, slopes_v, slopes_h = fields.affine_parts(t)
    values, vectors = np.linalg.eigh(base.B[0, 0])
    turned = lambda h: np.ascontiguousarray(vectors.conj().T @ h @ vectors)
    slope, one = slopes_v.T, np.eye(len(slopes_v))  # dz/dt = v + slope z by the midpoint rule, as in _stream
    matrix = one + 0.5 * dt * slope @ (one + 0.25 * dt * slope)
    shift = 0.5 * dt * (one + 0.25 * dt * slope) @ base.v[0]
    psi = swarm.x @ vectors.conj()
    kernels_lanes.instrument_qubit_affine(
        psi, swarm.z, turned(base.H[0]), turned(slopes_h), shift, matrix, values, base.sigma[0, :, 0].copy(),
        noise.uniforms(1, steps).reshape(steps, -1), noise.normals(1, steps).reshape(steps, -1), dt,
    )  # fmt: skip
    swarm.x[...] = psi @ vectors.T
