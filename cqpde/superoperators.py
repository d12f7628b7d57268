r"""The local terms of the canonical master equation as real superoperators on the d^2 components of rho.

Both grid routes build on these: :math:`-i[H, \cdot]`, the decoherence that the trade-off forces
(:math:`s^+_{ij}(A_i\rho A_j^\dagger - \tfrac12\{A_j^\dagger A_i, \rho\})`) and the excess beyond it. Arrays are ``(*cells, d^2, d^2)`` and keep
size 1 along axes on which they do not depend.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .components import dissipator, left_right
from .model import Canonical, pseudo_inverse

Array = np.ndarray


def hamiltonian(fields: Canonical) -> Array:
    """``rho -> -i [H, rho]``."""
    return left_right(-1j * fields.H)


def saturated(fields: Canonical, axes: Sequence[int] | None = None) -> Array:
    """The decoherence forced by the back-reaction on ``axes`` (default: all), the noise of these axes being its own block."""
    n = len(fields.A)
    chosen = range(n) if axes is None else axes
    index = np.array(list(chosen), dtype=int)
    inverse = pseudo_inverse(fields.s[..., index[:, None], index[None, :]])
    d = fields.H.shape[-1]
    total = np.zeros((1,) * n + (d * d, d * d))
    for a, i in enumerate(chosen):
        for b, j in enumerate(chosen):
            if np.any(inverse[..., a, b]) and np.any(fields.A[i]) and np.any(fields.A[j]):
                total = total + dissipator(fields.A[i], fields.A[j], inverse[..., a, b].astype(complex))
    return total


def excess(fields: Canonical) -> Array:
    """The decoherence beyond saturation; exactly zero where only round-off of the subtraction is left."""
    n, d = len(fields.A), fields.H.shape[-1]
    weights = fields.D0 if fields.excess is None else fields.excess
    total = np.zeros((1,) * n + (d * d, d * d))
    for a in range(weights.shape[-1]):
        for b in range(weights.shape[-1]):
            if np.any(weights[..., a, b]):
                total = total + dissipator(fields.M[..., a, :, :], fields.M[..., b, :, :], weights[..., a, b])
    if fields.excess is not None:
        return total
    total = total - saturated(fields)
    # what is left of exact cancellation in saturated models is round-off, not decoherence
    size = float(np.max(np.abs(weights), initial=0.0)) * float(np.max(np.abs(fields.M), initial=0.0)) ** 2
    return np.zeros_like(total[(slice(0, 1),) * n]) if np.max(np.abs(total), initial=0.0) < 1e-14 * size else total
