"""A model as text and arrays, and back, for checkpoints: formulas are read by the allow-list parser, nothing is executed.

Constants and :func:`cqpde.sampled` values are kept as arrays, SymPy entries as text that must parse back to the very same expression (so that
the very same bits come out of it). What was given as a Python function cannot be kept: it has to be given again, and is then compared by
a digest of sampled values.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from .checkpoint import NoKeeper
from .coefficients import Coefficient, sampled
from .errors import CqpdeError, FileError, OptionError
from .grid import Grid
from .model import Model
from .timescale import places

Array = np.ndarray

#: Names of functions in SymPy and in the parser.
_NAMES = {"Abs": "abs", "Heaviside": "heaviside", "conjugate": "conj"}


def grid_record(grid: Grid) -> dict[str, Any]:
    """A grid as plain data."""
    return {a.name: [float(a.lower), float(a.upper), int(a.n), [str(end) for end in a.ends]] for a in grid.axes}


def grid_from(record: dict[str, Any]) -> Grid:
    """Inverse of :func:`grid_record`."""
    return Grid(**{str(name): (lower, upper, n, tuple(ends)) for name, (lower, upper, n, ends) in record.items()})


def model_record(model: Model, arrays: dict[str, Array]) -> dict[str, Any] | None:
    """A model as plain data, its constants put into ``arrays``; None if a coefficient is a Python function or has no exact text."""
    coefficients: dict[str, Any] = {}
    every = dict(model.coefficients) | ({"H_C": model.H_C} if model.H_C is not None else {})
    for name, coefficient in every.items():
        entry = _coefficient_record(coefficient, name, arrays)
        if entry is None:
            return None
        coefficients[name] = entry
    return {
        "coordinates": list(model.coordinates), "dim": model.dim, "saturated": model.saturated, "check": model.check_mode, "name": model.name,
        "description": model.description, "coefficients": coefficients,
    }  # fmt: skip


def _coefficient_record(c: Coefficient, name: str, arrays: dict[str, Array]) -> dict[str, Any] | None:
    if c.callable:
        return None
    from .expressions import parse  # with SymPy: not for every run

    arrays[f"model {name}"] = c._constants
    symbols = _symbols(c.coordinates)
    formulas = []
    for at, expression in c._symbolic.items():
        text = _text(expression)
        wanted = expression.subs({s: symbols[s.name] for s in expression.free_symbols})
        try:
            if text is None or parse(text, symbols, name) != wanted:
                return None
        except CqpdeError:  # beyond what the parser takes
            return None
        formulas.append([list(at), text])
    fields = []
    for k, (at, values) in enumerate(c._arrays.items()):
        arrays[f"model {name} sampled {k}"] = np.asarray(values.values)
        fields.append([list(at), grid_record(values.grid)])
    return {"shape": list(c.shape), "formulas": formulas, "sampled": fields}


def _symbols(coordinates: tuple[str, ...]) -> dict[str, Any]:
    import sympy

    return {name: sympy.Symbol(name, real=True) for name in (*coordinates, "t")}


def _text(expression: Any) -> str | None:
    """An expression in the language of :mod:`cqpde.expressions`, with all digits."""
    from sympy.printing.str import StrPrinter

    class Printer(StrPrinter):
        def _print_Float(self, number: Any) -> str:
            return repr(float(number))

        def _print_Mul(self, product: Any) -> str:
            factors = sorted(product.args, key=lambda f: bool(f.is_Number))  # a number before a sum would be multiplied out
            return "*".join(f"({self._print(f)})" for f in factors)

        def _print_Pow(self, power: Any, rational: bool = False) -> str:
            return f"({self._print(power.base)})**({self._print(power.exp)})"

        def _print_Function(self, call: Any) -> str:
            name = type(call).__name__
            arguments = call.args[:1] if name == "Heaviside" else call.args
            return f"{_NAMES.get(name, name)}({', '.join(map(self._print, arguments))})"

        _print_Abs = _print_Heaviside = _print_conjugate = _print_Function

    try:
        return str(Printer().doprint(expression))
    except (TypeError, ValueError, AttributeError):
        return None


def model_from(record: dict[str, Any], arrays: dict[str, Array]) -> Model:
    """Inverse of :func:`model_record`.

    Raises
    ------
    FileError
        If the record is not one.
    """
    try:
        coordinates = tuple(str(c) for c in record["coordinates"])
        given = {}
        for name, entry in record["coefficients"].items():
            given[name] = _value(name, entry, coordinates, arrays)
        if record["saturated"]:
            given["D0"] = "saturated"
        else:
            given.pop("excess")
        about = {key: str(record[key]) for key in ("check", "name", "description")}
        return Model(coordinates, record["dim"], **given, **about)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, CqpdeError) as error:
        raise FileError("run.json", "must hold a model", str(error)[:200], "It is damaged") from None


def model_again(keeper: NoKeeper, model: Model | None) -> Model:
    """The model of a run: as given again, or from its configuration or text."""
    record = keeper.record or {}
    if model is not None:
        return model
    source = record.get("source")
    if isinstance(source, dict) and "config" in source:
        from . import config

        return config.parse_text(str(source["config"]), f"{keeper.folder}/run.json").model
    if record.get("model") is None:
        raise OptionError(
            "model", "was given with Python functions, which a checkpoint does not hold", "None", f"Write cqpde.resume({str(keeper.folder)!r}, model=the same model)"
        )
    return model_from(record["model"], keeper.initial)


def _value(name: str, entry: dict[str, Any], coordinates: tuple[str, ...], arrays: dict[str, Array]) -> Any:
    """A coefficient as the nested list that :class:`Model` takes."""
    from .expressions import parse

    symbols = _symbols(coordinates)
    special: dict[tuple[int, ...], Any] = {tuple(at): parse(text, symbols, name) for at, text in entry["formulas"]}
    for k, (at, grid) in enumerate(entry["sampled"]):
        special[tuple(at)] = sampled(grid_from(grid), arrays[f"model {name} sampled {k}"])
    constants = arrays[f"model {name}"]
    if list(constants.shape) != entry["shape"]:
        raise ValueError(f"{name}: shape {constants.shape}")

    def nested(at: tuple[int, ...]) -> Any:
        if at in special:
            return special[at]
        if len(at) == constants.ndim:
            return complex(constants[at])
        return [nested((*at, i)) for i in range(constants.shape[len(at)])]

    return nested(())


def fingerprint(model: Model, grid: Grid, start: float, end: float) -> str:
    """A digest of the coefficients at some cells and times, to the last bit."""
    digest, mesh = hashlib.sha256(), places(grid)
    length = end - start if model.time_dependent else 0.0
    for t in sorted({start, start + 0.3819660112501051 * length, start + length}):
        for name, coefficient in model.coefficients.items():
            digest.update(f"{name} {coefficient.shape}".encode())
            for entry in coefficient.entries(mesh, t).reshape(-1):
                digest.update(np.ascontiguousarray(entry).tobytes())
    return digest.hexdigest()
