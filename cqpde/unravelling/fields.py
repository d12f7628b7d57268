r"""The coefficients of a model along trajectories, in the form in which noise and measurement are one.

With :math:`s = \sigma\sigma^T` and :math:`A_i = \sigma_{ik}B_k` (the second condition of eq. (6) says that such :math:`B_k` exist,
:math:`B_k = (\sigma^+)_{ki}A_i`), equations (7)-(8) read

.. math::
    dZ_i = v_i\,dt + \sigma_{ik}\,dY_k, \qquad dY_k = \langle B_k + B_k^\dagger\rangle dt + dW_k, \qquad
    d\rho = \left(-i[H,\rho] + \sum_k\mathcal D[B_k]\rho + \sum_g\mathcal D[N_g]\rho\right)dt
          + \left[(B_k - \langle B_k\rangle)\rho + \mathrm{h.c.}\right]dW_k ,

with :math:`\mathcal D[X]\rho = X\rho X^\dagger - \tfrac12\{X^\dagger X, \rho\}`: a continuous measurement of every :math:`B_k` whose
record drives Z, and unobserved decoherence by the :math:`N_g`, the excess over the trade-off. :math:`\sigma` is the lower triangular
root of s (any root gives the same law).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ModelError
from ..model import Canonical, Model

Array = np.ndarray

#: Pivots of s and eigenvalues of the excess below this fraction of the largest count as zero.
RANK = 1e-12


@dataclass(frozen=True)
class Local:
    """Coefficients at m points; arrays have a leading size of m, or of 1 where they are the same at all points.

    Attributes
    ----------
    v : array (m or 1, n)
        Scalar drift.
    H : array (m or 1, d, d)
        Hamiltonian.
    sigma : array (m or 1, n, k)
        Noise matrix.
    B : array (m or 1, k, d, d)
        Monitored operators, ``A = sigma B``.
    N : array (m or 1, g, d, d)
        Operators of the unobserved decoherence.
    damping : array (m or 1, d, d)
        ``(1/2) sum B^+ B + (1/2) sum N^+ N``.
    """

    v: Array
    H: Array
    sigma: Array
    B: Array
    N: Array
    damping: Array

    @property
    def generator(self) -> Array:
        """``-i H - damping``: what acts on kets without noise."""
        return -1j * self.H - self.damping


def points(names: tuple[str, ...], z: Array) -> dict[str, Array]:
    """Coordinates of m points (m, n) as the mesh that coefficients take: arrays (m, 1, ...)."""
    shape = (len(z),) + (1,) * (z.shape[1] - 1)
    return {c: z[:, i].reshape(shape) for i, c in enumerate(names)}


class Fields:
    """Evaluates a model at the points of trajectories.

    Notes
    -----
    Where drift and Hamiltonian are at most linear in z and everything else is the same everywhere, a compiled affine form is used;
    otherwise the coefficients are evaluated by NumPy at the points (``form`` says which, and because of what).
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._cache: dict[float, tuple[Local, Array, Array]] = {}
        c = model.coefficients
        most = {"L": 0, "D0": 0, "D1": 0, "D2": 0, "excess": 0, "D1C": 1, "H": 1}
        above = [name for name in most if c[name].degree > most[name]]
        self.uniform_noise = not set(above) - {"D1C", "H"}
        if not above and not self._is_affine():
            above = ["D1C", "H"]
        self.affine = not above
        self.form = "affine, compiled" if self.affine else f"NumPy at the points ({', '.join(above)} not affine in z)"
        #: Whether a kick changes the coefficients of the kick (set by the run).
        self.moving = False

    def __getstate__(self) -> dict[str, Any]:
        """As it goes to other processes: without what was evaluated before."""
        return vars(self) | {"_cache": {}}

    def _is_affine(self) -> bool:
        """Check the affine form at a few points: a callable may treat symbols and numbers differently."""
        n = len(self.model.coordinates)
        z = np.random.default_rng(0).standard_normal((8, n)) * 3.0
        base, slopes_v, slopes_h = self._affine(0.0)
        fields = self.model.canonical(points(self.model.coordinates, z), 0.0)
        pairs = ((_drift(fields.v, 8), base.v + z @ slopes_v), (_flat(fields.H, n), base.H + np.einsum("mi,iab->mab", z, slopes_h)))
        return all(np.allclose(a, b, rtol=1e-9, atol=1e-9 * max(1.0, float(np.abs(b).max()))) for a, b in pairs)

    def at(self, z: Array, t: float) -> Local:
        """All coefficients at the points z (m, n) at time t."""
        if not self.affine:
            fields = self.model.canonical(points(self.model.coordinates, z), t)
            return _local(self.model, fields, z, self._noise(t) if self.uniform_noise else None)
        base, slopes_v, slopes_h = self._affine(t)
        v = base.v + z @ slopes_v
        h = base.H
        if np.any(slopes_h):
            h = _affine_matrices(base.H, slopes_h, z)
        return replace(base, v=v, H=h)

    def drift(self, z: Array, t: float) -> Array:
        """Scalar drift alone, (m or 1, n)."""
        if self.affine:
            base, slopes, _ = self._affine(t)
            return np.asarray(base.v + z @ slopes)
        return _drift(self.model.drift(points(self.model.coordinates, z), t), len(z))

    def affine_parts(self, t: float) -> tuple[Local, Array, Array]:
        """Coefficients at the origin, and slopes of drift (n, n) and Hamiltonian (n, d, d), of an affine model."""
        return self._affine(t)

    def _noise(self, t: float) -> Local:
        """Coefficients at the origin, of which only those that are the same everywhere are used."""
        return self._affine(t, affine=False)[0]

    def _affine(self, t: float, affine: bool = True) -> tuple[Local, Array, Array]:
        key = t if self.model.time_dependent else 0.0
        found = self._cache.get(key)
        if found is None:
            n = len(self.model.coordinates)
            corners = np.concatenate([np.zeros((1, n)), np.eye(n)]) if affine else np.zeros((1, n))
            values = self.model.canonical(points(self.model.coordinates, corners), t)
            whole = _local(self.model, values, corners, None)
            v = np.broadcast_to(whole.v, (len(corners), n))
            h = np.broadcast_to(whole.H, (len(corners), *whole.H.shape[1:]))
            found = replace(whole, v=v[:1].copy(), H=h[:1].copy()), v[1:] - v[:1], np.ascontiguousarray(h[1:] - h[:1])
            if len(self._cache) > 100_000:
                self._cache.clear()
            self._cache[key] = found
        return found


def _affine_matrices(base: Array, slopes: Array, z: Array) -> Array:
    n, d = slopes.shape[0], base.shape[-1]
    active = [i for i in range(n) if np.any(slopes[i])]
    out = base + z[:, active[0], None, None] * slopes[active[0]]
    for i in active[1:]:
        out += z[:, i, None, None] * slopes[i]
    return np.asarray(out.reshape(-1, d, d))


def _drift(v: list[Array], m: int) -> Array:
    return np.stack([np.broadcast_to(np.real(a).reshape(-1), (m,)) for a in v], axis=1)


def _flat(array: Array, n: int) -> Array:
    """Drop the singleton axes of a field on a mesh of points: ``(m or 1, *matrix)``."""
    return np.ascontiguousarray(array.reshape(array.shape[0], *array.shape[n:]))


def _local(model: Model, fields: Canonical, z: Array, noise: Local | None) -> Local:
    """Canonical fields at points in the form of :class:`Local`; ``noise``: take sigma, B, N, damping from there."""
    n, d = len(model.coordinates), model.dim
    v, h = _drift(fields.v, len(z)), _flat(fields.H, n)
    if noise is not None:
        return replace(noise, v=v, H=h)
    s = _flat(fields.s, n)
    a_list = [_flat(a, n) for a in fields.A]
    m = max(len(x) for x in (s, *a_list))
    a = np.stack([np.broadcast_to(x, (m, d, d)) for x in a_list], axis=1)
    sigma = root(np.broadcast_to(s, (m, n, n)))
    b = measured(sigma, a)
    defect = np.abs(np.einsum("mik,mkab->miab", sigma, b) - a)
    if defect.size and defect.max() > 1e-8 * max(float(np.abs(a).max()), 1e-300):
        at = np.unravel_index(int(defect.argmax()), defect.shape)
        raise ModelError(
            f"D1 (row {model.coordinates[at[1]]})",
            "back-reaction needs noise: (1 - D2 D2^+) D1 = 0, eq. (6)",
            f"{defect.max():.4g} outside the range of D2 at {_place(model, z, int(at[0]))}",
            f"Give {model.coordinates[at[1]]} some noise there; without it there are no trajectories",
        )
    kept = [j for j in range(n) if not model.D2.vanishes((j, j))]
    sigma, b = np.ascontiguousarray(sigma[:, :, kept]), np.ascontiguousarray(b[:, kept])
    jumps = _unobserved(model, fields, b, z)
    damping = 0.5 * (np.einsum("mkba,mkbc->mac", b.conj(), b) + np.einsum("mgba,mgbc->mac", jumps.conj(), jumps))
    return Local(v, h, sigma, b, jumps, damping)


def root(s: Array) -> Array:
    """Lower triangular ``sigma`` with ``sigma sigma^T = s`` for positive semi-definite s (m, n, n); zero columns for zero pivots."""
    n = s.shape[-1]
    out = np.zeros(s.shape)
    scale = max(float(np.abs(s).max(initial=0.0)), np.finfo(float).tiny)
    for j in range(n):
        pivot = s[:, j, j] - np.sum(out[:, j, :j] ** 2, axis=1)
        noisy = pivot > RANK * scale
        diagonal = np.sqrt(np.where(noisy, pivot, 1.0))
        out[:, j, j] = np.where(noisy, diagonal, 0.0)
        for i in range(j + 1, n):
            rest = s[:, i, j] - np.sum(out[:, i, :j] * out[:, j, :j], axis=1)
            out[:, i, j] = np.where(noisy, rest / diagonal, 0.0)
    return out


def measured(sigma: Array, a: Array) -> Array:
    """Return ``B = sigma^+ A`` for a triangular sigma (m, n, n) and A (m, n, d, d) in its range, by forward substitution."""
    out = np.zeros(a.shape, dtype=complex)
    for j in range(a.shape[1]):
        pivot = sigma[:, j, j]
        rest = a[:, j] - np.einsum("mk,mkab->mab", sigma[:, j, :j], out[:, :j])
        noisy = (pivot > 0)[:, None, None]
        out[:, j] = np.where(noisy, rest / np.where(pivot > 0, pivot, 1.0)[:, None, None], 0.0)
    return out


def _unobserved(model: Model, fields: Canonical, b: Array, z: Array) -> Array:
    r"""Operators :math:`N_g` with :math:`\sum_g N_g\rho N_g^\dagger = D_0^{ab}M_a\rho M_b^\dagger - \sum_k B_k\rho B_k^\dagger`."""
    n, d = len(model.coordinates), model.dim
    given = fields.excess is not None
    weights = _flat(fields.excess if fields.excess is not None else fields.D0, n)
    none = np.zeros((1, 0, d, d), dtype=complex)
    lindblad = _flat(fields.M, n)
    if lindblad.shape[1] == 0 or (given and not np.any(weights)):
        return none
    vectors = lindblad.reshape(*lindblad.shape[:2], d * d)
    choi = np.einsum("mab,max,mby->mxy", weights, vectors, vectors.conj())
    scale = float(np.abs(choi).max())
    if not given:
        b_vectors = b.reshape(*b.shape[:2], d * d)
        choi = choi - np.einsum("mkx,mky->mxy", b_vectors, b_vectors.conj())
        if np.abs(choi).max() <= RANK * scale:  # saturated
            return none
    values, modes = np.linalg.eigh(0.5 * (choi + choi.conj().swapaxes(1, 2)))
    if values.min() < -1e-9 * scale:
        worst = int(np.argmin(values[:, 0]))
        raise ModelError(
            "excess" if given else "D0",
            "a model has trajectories only if D0 >= D1^+ (2 D2)^+ D1, eq. (6)",
            f"margin {values.min():.4g} at {_place(model, z, worst)}",
            "Increase D0 or D2, or reduce D1",
        )
    cut = np.where(values > RANK * max(scale, 1e-300) * d, values, 0.0)
    kept = np.flatnonzero(cut.max(axis=0))
    if len(kept) == 0:
        return none
    operators = np.sqrt(cut[:, None, kept]) * modes[:, :, kept]
    return np.ascontiguousarray(np.moveaxis(operators, 1, 2).reshape(len(values), len(kept), d, d))


def _place(model: Model, z: Array, k: int) -> str:
    row = z[min(int(k), len(z) - 1)]
    return ", ".join(f"{c} = {x:.6g}" for c, x in zip(model.coordinates, row, strict=True))
