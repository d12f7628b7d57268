"""What a user's callable computes, found by calling it with SymPy symbols: its degree in the coordinates.

A callable that needs numbers (``np.cos(z.q)``, a comparison, an array method) cannot be traced; it is then taken to have any degree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np


def traced(function: Callable[[Any, Any], Any], coordinates: Sequence[str]) -> list[Any] | None:
    """Entries of ``function(z, t)`` as SymPy expressions, or None where it does not take symbols."""
    import sympy

    try:
        with np.errstate(all="ignore"):
            value = function({c: sympy.Symbol(c, real=True) for c in coordinates}, sympy.Symbol("t", real=True))
        entries = [sympy.sympify(entry) for entry in _flat(value)]
    except Exception:  # whatever a user's function raises on symbols
        return None
    return entries if all(isinstance(e, sympy.Expr) for e in entries) else None


def _flat(value: Any) -> Iterable[Any]:
    if isinstance(value, list | tuple | np.ndarray) and np.ndim(value):
        for part in value:
            yield from _flat(part)
    else:
        yield value.item() if isinstance(value, np.generic | np.ndarray) else value


def degree(expressions: Iterable[Any], coordinates: Sequence[str]) -> float:
    """Largest degree in the coordinates of expressions that are polynomials in them, else infinity."""
    import sympy

    out = 0.0
    for expression in expressions:
        symbols = [s for s in expression.free_symbols if s.name in coordinates]
        if symbols:
            out = max(out, sympy.Poly(expression, *symbols).total_degree() if expression.is_polynomial(*symbols) else np.inf)
    return out
