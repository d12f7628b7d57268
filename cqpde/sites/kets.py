r"""Quantum states of n sites as few products: GHZ, W and product states, superpositions and mixtures of them.

.. math:: \varrho = \sum_{kl} W_{kl}\;\bigotimes_{i=1}^n |\varphi_k^i\rangle\langle\varphi_l^i|, \qquad W \ge 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import StateError
from ..options import integer, numbers, takes

Array = np.ndarray


@dataclass(frozen=True)
class KetSum:
    r"""A quantum state of n sites made of K product kets.

    Attributes
    ----------
    kets : array (K, n, d)
        One-site kets :math:`\varphi_k^i`; need not be normalised or orthogonal.
    weights : array (K, K)
        :math:`W`, positive semi-definite. Given as amplitudes (K,), it is their outer product: the superposition
        :math:`\sum_k c_k \otimes_i|\varphi_k^i\rangle`. A diagonal matrix is a mixture.

    Raises
    ------
    StateError
        If shapes do not fit, W is not positive semi-definite, or the trace is not one.

    Examples
    --------
    >>> import cqpde as cq
    >>> plus, minus = cq.ket("+"), cq.ket("-")
    >>> KetSum([[plus, plus], [minus, minus]], [[0.5, 0], [0, 0.5]])      # a mixture of two product states
    KetSum(2 terms, 2 sites of 2 levels)
    """

    kets: Array
    weights: Array

    def __post_init__(self) -> None:
        try:
            kets, weights = np.array(self.kets, dtype=complex), np.array(self.weights, dtype=complex)
        except (TypeError, ValueError):
            raise StateError("KetSum", "kets and weights must be arrays of numbers", "ragged or other lists", "Shapes (K, n, d), (K,) or (K, K)") from None
        if kets.ndim != 3 or 0 in kets.shape or not np.all(np.isfinite(kets)):
            raise StateError("kets", "must be a finite array (K, n, d)", f"shape {kets.shape}", "One ket per term and site")
        count = len(kets)
        if weights.shape == (count,):
            weights = np.outer(weights, weights.conj())
        if weights.shape != (count, count) or not np.all(np.isfinite(weights)):
            raise StateError("weights", f"must be finite, ({count},) or ({count}, {count})", f"shape {weights.shape}", "One per term")
        scale = float(np.abs(weights).max())
        if np.abs(weights - weights.conj().T).max() > 1e-10 * scale or np.linalg.eigvalsh(weights)[0] < -1e-10 * scale:
            raise StateError("weights", "must be a positive semi-definite matrix", "it is not", "Give amplitudes (K,), or a mixture's matrix")
        trace = float(np.real(np.sum(weights * overlaps(kets))))
        if abs(trace - 1.0) > 1e-9:
            raise StateError("KetSum", "must have trace 1", f"{trace:.9g}", "Divide amplitudes by its root, a matrix by it")
        object.__setattr__(self, "kets", kets)
        object.__setattr__(self, "weights", weights)

    @property
    def sites(self) -> int:
        """Number of sites n."""
        return int(self.kets.shape[1])

    @property
    def dim(self) -> int:
        """Levels per site d."""
        return int(self.kets.shape[2])

    def __repr__(self) -> str:
        return f"KetSum({len(self.kets)} terms, {self.sites} sites of {self.dim} levels)"


def overlaps(kets: Array) -> Array:
    r"""Matrix :math:`\langle\Phi_l|\Phi_k\rangle` of product kets (K, n, d)."""
    out = np.ones((len(kets),) * 2, dtype=complex)
    for i in range(kets.shape[1]):
        out *= kets[:, i] @ kets[:, i].conj().T
    return out


@takes(n=integer(1, 1_000_001), d=integer(1, 65))
def ghz(n: int, d: int = 2) -> KetSum:
    r"""The GHZ (cat) state :math:`d^{-1/2}\sum_a |a \dots a\rangle` of n sites."""
    _require_sites(n)
    kets = np.repeat(np.eye(d, dtype=complex)[:, None, :], n, axis=1)
    return KetSum(kets, np.full(d, d**-0.5))


@takes(n=integer(1, 10_001))
def w_state(n: int) -> KetSum:
    r"""The W state :math:`n^{-1/2}(|10\dots0\rangle + |01\dots0\rangle + \dots)` of n qubits: n terms."""
    _require_sites(n)
    kets = np.zeros((n, n, 2), dtype=complex)
    kets[..., 0] = 1.0 - np.eye(n)
    kets[..., 1] = np.eye(n)
    return KetSum(kets, np.full(n, n**-0.5))


def product_ket(kets: Sequence[Any]) -> KetSum:
    """The product of one ket per site."""
    if not isinstance(kets, list | tuple | np.ndarray) or len({np.shape(k) for k in kets}) != 1 or np.ndim(kets[0]) != 1:
        raise StateError("kets", "must be one ket (d,) per site, all of the same levels", repr(kets), "Write [cqpde.ket('+')] * n")
    return KetSum(numbers("kets", kets, complex, "must be numbers", error=StateError)[None], np.ones(1))


def _require_sites(n: Any) -> None:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise StateError("n", "the number of sites must be a positive integer", repr(n), "Try 5")
