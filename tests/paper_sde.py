"""Equations (7)-(9) of the paper by Euler-Maruyama, written down term by term in NumPy: a user's own unravelling.

Independent of the package: L, D0, D1 and sigma are used as printed, without the canonical form. ``plant`` makes one thing wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray


def trajectories(
    z: Array, psi: Array, t: float, steps: int, *, H: Callable[[Array], Array], L: Sequence[Array], D0: Array, D1: Array,
    sigma: Callable[[Array], Array], D1C: Callable[[Array], Array], seed: int = 0, plant: str = "", kets: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Integrate from points z (m, n) and a ket psi (d,); H(z) (m, d, d), sigma(z) (m, n, k), D1C(z) (m, n).

    ``kets``: (9), normalised after every step, for a saturated trade-off; else (8). ``plant``: "", "force" (sign of D1 in dZ), "D1" and
    "D0" (twice), "noise" (sigma^2 twice in dZ), "transposed" (sigma^+ in the dW term of the state), "mean-field" (no noise, no
    decoherence).
    """
    rng = np.random.default_rng(seed)
    z = np.array(z, dtype=float)
    state = np.tile(psi.astype(complex), (len(z), 1)) if kets else np.tile(np.outer(psi, psi.conj()), (len(z), 1, 1))
    operators = np.array(L, dtype=complex)
    d0 = np.array(D0, dtype=complex) * (2 if plant == "D0" else 1)
    d1 = np.array(D1, dtype=complex) * (2 if plant == "D1" else 1)
    h = t / steps
    for _ in range(steps):
        noise = sigma(z)
        inverse = np.linalg.pinv(noise)
        dw = np.sqrt(h) * rng.standard_normal((len(z), noise.shape[2]))
        path = "mji,ja,mi->ma" if plant == "transposed" else "mij,ja,mi->ma"
        weight = np.einsum(path, inverse, d1.conj(), dw)  # sigma^+_ij conj(D1_ja) dW_i
        if plant == "mean-field":
            weight, d0 = 0 * weight, 0 * d0
        if kets:
            means = np.einsum("mi,aij,mj->ma", state.conj(), operators, state)
            state = state + _ket(state, means, H(z), operators, d0, weight, h)
            state /= np.linalg.norm(state, axis=1)[:, None]
        else:
            means = np.einsum("aij,mji->ma", operators, state)
            state = state + _matrix(state, means, H(z), operators, d0, weight, h)
        sign = -1.0 if plant == "force" else 1.0
        dz = D1C(z) * h + sign * 2 * np.real(means @ d1.conj().T) * h
        if plant != "mean-field":
            dz = dz + (2**0.5 if plant == "noise" else 1.0) * np.einsum("mij,mj->mi", noise, dw)
        z = z + dz
    return {"t": [t], "z": z[:, None], ("psi" if kets else "rho"): state[:, None]}


def _matrix(rho: Array, means: Array, hamiltonian: Array, L: Array, d0: Array, weight: Array, h: float) -> Array:
    """Increment of (8)."""
    d = rho.shape[1]
    loss = np.einsum("ab,bki,akj->ij", d0, L.conj(), L)  # D0^ab L_b^+ L_a
    half = (-1j * hamiltonian - 0.5 * loss) @ rho
    out = h * (half + half.conj().swapaxes(1, 2))
    jumps = np.einsum("ab,aij,bkl->ikjl", d0, L, L.conj()).reshape(d * d, d * d)  # (L_a rho L_b^+)_ik from rho_jl
    out = out + h * (rho.reshape(-1, d * d) @ jumps.T).reshape(rho.shape)
    term = np.einsum("ma,aij->mij", weight, L) @ rho - np.sum(weight * means, axis=1)[:, None, None] * rho
    return np.asarray(out + term + term.conj().swapaxes(1, 2))


def _ket(psi: Array, means: Array, hamiltonian: Array, L: Array, d0: Array, weight: Array, h: float) -> Array:
    """Increment of (9)."""
    out = -1j * h * np.einsum("mij,mj->mi", hamiltonian, psi)
    applied = np.einsum("aij,mj->mai", L, psi)
    centred = applied - means[:, :, None] * psi[:, None, :]
    out = out + np.einsum("ma,mai->mi", weight, centred)
    dagger = L.conj().swapaxes(1, 2)
    for a in range(len(L)):
        for b in range(len(L)):
            back = np.einsum("ij,mj->mi", dagger[b], centred[:, a]) - means[:, b].conj()[:, None] * centred[:, a]
            drift = means[:, b].conj()[:, None] * applied[:, a] - means[:, a, None] * np.einsum("ij,mj->mi", dagger[b], psi)
            out = out + 0.5 * h * d0[a, b] * (drift - back)
    return np.asarray(out)
