"""Observables written as text, for ``save=``, configuration files and the command line: ``"marginal q"``, ``"expect q*sigmaz"``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from ..dataset import snapshot
from ..errors import CqpdeError, OptionError, did_you_mean
from ..grid import Grid
from . import information, moments, states

#: Observables by name, and how their words are read.
WORDS: dict[str, str] = {
    "density": "", "marginal": "axes", "operator_marginal": "axes", "populations": "axes", "coherence": "axes", "bloch": "axes",
    "unconditioned_state": "", "conditional_state": "", "probability": "", "expect": "operator", "moment": "axes operator", "mean": "",
    "covariance": "axes", "energy": "", "current": "", "purity": "", "entropy": "", "mutual_information": "",
}  # fmt: skip

_MODEL = ("energy", "current")
_FUNCTIONS: dict[str, Callable[..., xr.DataArray]] = {
    name: next(getattr(m, name) for m in (states, moments, information) if hasattr(m, name)) for name in WORDS
}
#: Observables whose first argument may be a word without a key.
_FIRST = {"purity": "of", "entropy": "of", "mutual_information": "axes"}
_KEY = re.compile(r"^([A-Za-z_]\w*)=(.+)$")


def variable_name(text: str) -> str:
    """The name under which a saved observable is kept: ``"marginal q"`` becomes ``marginal_q``."""
    return re.sub(r"\W+", "_", text).strip("_")


def read_observable(text: str, names: tuple[str, ...], model: Any = None) -> Callable[[xr.Dataset], xr.DataArray]:
    """Turn ``"NAME words key=value"`` into a function of a Dataset.

    Parameters
    ----------
    text : str
        ``density``, ``marginal q p``, ``coherence q levels=0,1``, ``conditional_state q=0.3 p=0:2``, ``probability q=0:``,
        ``expect q*sigmaz``, ``moment q p``, ``moment q operator=sigmaz``, ``entropy mutual axes=q``, ``purity unconditioned``, ...
    names : tuple of str
        Classical coordinates, which operators may contain.
    model : Model, optional
        For ``energy`` and ``current``.

    Raises
    ------
    OptionError
        For unknown names ("did you mean") and arguments the observable does not take.
    """
    name, *words = str(text).split() or [""]
    if name not in WORDS:
        raise OptionError("observable", "must be the name of an observable of .cq", repr(name), did_you_mean(name, WORDS))
    if WORDS[name] == "operator":
        rest = str(text).strip()[len(name) :].strip()
        if not rest:
            raise OptionError(name, "needs an operator", "nothing", "Write e.g. 'expect sigmaz'")
        return partial(_call, _FUNCTIONS[name], (_Operator(rest, names),), {})
    args: list[Any] = []
    keys: dict[str, Any] = {}
    for word in words:
        match = _KEY.match(word)
        if match:
            keys[match[1]] = _value(match[1], match[2], names)
        elif "axes" in WORDS[name].split():
            args.append(word)
        elif name in _FIRST and _FIRST[name] not in keys:
            keys[_FIRST[name]] = word
        else:
            raise OptionError(name, "does not take this word", repr(word), "See the observable's docstring")
    if name == "moment":
        args = [" ".join(args)]
    if name in _MODEL and model is not None:
        keys["model"] = model
    return partial(_call, _FUNCTIONS[name], tuple(args), keys)


class _Operator:
    """An operator as text, read when the number of levels is known."""

    def __init__(self, text: str, names: tuple[str, ...]) -> None:
        self.text, self.names = text, names

    def read(self, dim: int) -> Any:
        """By the allow-list parser of configuration files; a scalar stands for that multiple of the identity."""
        import sympy

        from ..expressions import parse_matrix

        declared: dict[str, Any] = {n: sympy.Symbol(n, real=True) for n in (*self.names, "t")}
        try:
            value = parse_matrix(self.text, declared, "operator")
        except CqpdeError as error:
            raise OptionError(error.argument, error.rule, error.found, error.remedy) from None
        return value if hasattr(value, "shape") else [[value if i == j else 0 for j in range(dim)] for i in range(dim)]


def _call(function: Callable[..., xr.DataArray], args: tuple[Any, ...], keys: Mapping[str, Any], ds: xr.Dataset) -> xr.DataArray:
    read = lambda a: a.read(ds.sizes["row"]) if isinstance(a, _Operator) else a
    try:
        return function(ds, *map(read, args), **{k: read(v) for k, v in keys.items()})
    except TypeError as error:  # an argument that the function does not have
        raise OptionError(function.__name__, "does not take these arguments", str(error)[:200], "See its docstring") from None


def _value(key: str, text: str, names: tuple[str, ...]) -> Any:
    if key in names:
        if ":" in text:
            low, _, high = text.partition(":")
            return (_number(key, low) if low else None, _number(key, high) if high else None)
        return _number(key, text)
    if key == "operator":
        return _Operator(text, names)
    if key == "levels":
        return tuple(text.split(","))
    if key == "axes":
        return text.replace(",", " ")
    if key == "order":
        return int(_number(key, text))
    return text


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OptionError(key, "must be a number", repr(text), "Write e.g. q=0.3, or q=0:1 for an interval") from None


def probe(grid: Grid, dim: int) -> xr.Dataset:
    """A uniform, maximally mixed state on the fewest cells, on which observables are tried before a run."""
    small = grid.with_cells(**dict.fromkeys(grid.names, 5))
    cells = np.ones(small.shape) / (small.cell_volume * np.prod(small.shape))
    return snapshot(small, dim, 0.0, np.eye(dim).reshape(dim, dim, *[1] * grid.ndim) / dim * cells + 0j)
