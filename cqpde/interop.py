"""QuTiP objects in and out: Hamiltonians from lists of ``(f(z), Qobj)``, states as ``Qobj``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import ModelError, OptionError
from .options import is_number, numbers

Array = np.ndarray


def from_qobj(terms: Any) -> Any:
    r"""A coefficient :math:`\sum_k f_k(z, t)\,Q_k` out of QuTiP objects, for ``Model`` and ``healed``.

    Parameters
    ----------
    terms : Qobj or list of Qobj and pairs (f, Qobj)
        As in QuTiP's own time-dependent lists; f is a number, or a SymPy expression in the coordinates and ``t``. Arrays serve as well.

    Returns
    -------
    nested list, shape (d, d)
        Of numbers and SymPy expressions.

    Raises
    ------
    ModelError
        If an operator is not square, or dimensions differ.

    Examples
    --------
    >>> import sympy, cqpde as cq
    >>> q, p = sympy.symbols("q p", real=True)
    >>> cq.from_qobj([(q, cq.sigmaz()), cq.sigmax()])
    [[q, 1], [1, -q]]
    """
    items = list(terms) if isinstance(terms, list | tuple) else [terms]
    total: Any = None
    for k, item in enumerate(items):
        f, operator = item if isinstance(item, list | tuple) and len(item) == 2 else (1, item)
        plain = operator.full() if hasattr(operator, "full") else operator
        matrix = numbers(f"terms[{k}]", plain, complex, "must be a square operator, of one size with the others", "Pass (f, Qobj) pairs", ModelError)
        if not (is_number(f) or isinstance(f, complex | np.number) or hasattr(f, "free_symbols")):
            raise ModelError(f"terms[{k}]", "a factor must be a number or a SymPy expression", repr(f), "Pass (f, Qobj) pairs")
        if matrix.ndim != 2 or not np.all(np.isfinite(matrix)) or matrix.shape[0] != matrix.shape[1] or (total is not None and len(total) != len(matrix)):
            raise ModelError(f"terms[{k}]", "must be a square operator, of one size with the others", f"shape {matrix.shape}", "Pass (f, Qobj) pairs")
        if total is None:
            total = [[0 for _ in matrix] for _ in matrix]
        for i, j in zip(*np.nonzero(matrix), strict=True):
            total[i][j] = total[i][j] + f * _number(matrix[i, j])
    if total is None:
        raise ModelError("terms", "needs at least one operator", "an empty list", "Pass (f, Qobj) pairs")
    return total


def _number(value: complex) -> complex | float | int:
    """Without an imaginary part or decimals that are zero, so that SymPy keeps its expressions short."""
    if value.imag:
        return complex(value)
    return int(value.real) if value.real == int(value.real) else float(value.real)


def qobj(matrix: Array, dims: Sequence[int] | None = None) -> Any:
    """A density matrix or operator (d, d) as a QuTiP object, with the levels of its subsystems."""
    try:
        from qutip import Qobj
    except ImportError:
        raise OptionError("to_qobj", "needs QuTiP", "it is not installed", "pip install qutip") from None
    shape = None if dims is None else [list(map(int, dims)), list(map(int, dims))]
    if dims is not None and int(np.prod(dims)) != len(matrix):
        raise OptionError("dims", f"must multiply to {len(matrix)} levels", list(dims), "Give the levels of each subsystem")
    return Qobj(np.asarray(matrix), dims=shape)
