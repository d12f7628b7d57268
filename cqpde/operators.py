"""Common kets and operators of small quantum systems, as plain complex NumPy arrays (hbar = 1).

Basis: ``|0>`` is the +1 eigenstate of ``sigmaz``. Levels of a ``d``-level system are numbered 0 ... d-1.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from .errors import OptionError, did_you_mean
from .options import integer, numbers, takes

Array = np.ndarray

_QUBIT_KETS = {
    "0": (1, 0), "1": (0, 1),
    "+": (2**-0.5, 2**-0.5), "-": (2**-0.5, -(2**-0.5)),
    "+i": (2**-0.5, 1j * 2**-0.5), "-i": (2**-0.5, -1j * 2**-0.5),
}  # fmt: skip


def ket(label: str) -> Array:
    """Return a qubit ket, shape (2,): one of ``0 1 + - +i -i``."""
    if not isinstance(label, str) or label not in _QUBIT_KETS:
        raise OptionError(
            "ket", "the label must name a qubit state", repr(label), did_you_mean(str(label), _QUBIT_KETS)
        )
    return np.array(_QUBIT_KETS[label], dtype=complex)


@takes(d=integer(1, 4097))
def basis(d: int, level: int) -> Array:
    """Return the ket ``|level>`` of a ``d``-level system, shape (d,)."""
    if isinstance(level, bool) or not isinstance(level, int | np.integer) or not 0 <= level < d:
        raise OptionError("basis", f"the level must lie in 0 ... {d - 1}", repr(level), "Levels count from 0")
    return np.eye(d, dtype=complex)[level]


@takes(d=integer(1, 4097))
def identity(d: int) -> Array:
    """Return the identity operator, shape (d, d)."""
    return np.eye(d, dtype=complex)


def sigmax() -> Array:
    """Return the Pauli matrix sigma_x."""
    return np.array([[0, 1], [1, 0]], dtype=complex)


def sigmay() -> Array:
    """Return the Pauli matrix sigma_y."""
    return np.array([[0, -1j], [1j, 0]], dtype=complex)


def sigmaz() -> Array:
    """Return the Pauli matrix sigma_z."""
    return np.array([[1, 0], [0, -1]], dtype=complex)


def sigmap() -> Array:
    """Return the raising operator ``|0><1|``."""
    return np.array([[0, 1], [0, 0]], dtype=complex)


def sigmam() -> Array:
    """Return the lowering operator ``|1><0|``."""
    return np.array([[0, 0], [1, 0]], dtype=complex)


def projector(state: Any) -> Array:
    """Return the density matrix ``|psi><psi|`` of a ket, shape (d, d)."""
    psi = numbers("state", state, complex, "must be the numbers of a ket").reshape(-1)
    return np.outer(psi, psi.conj())


@takes(d=integer(1, 4097))
def destroy(d: int) -> Array:
    """Return the annihilation operator truncated to ``d`` levels."""
    return np.diag(np.sqrt(np.arange(1, d)), 1).astype(complex)


def tensor(*operators: Any) -> Array:
    """Return the Kronecker product of kets or operators, first factor slowest."""
    if not operators:
        raise OptionError("tensor", "needs at least one factor", "none", "Write tensor(A, B)")
    return reduce(np.kron, [numbers("tensor", o, complex, "factors must be kets or operators of numbers") for o in operators])
