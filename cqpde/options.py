"""Reading of options that several functions have: words, flags, counts, positive numbers, times. What is none is refused by name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from .errors import CqpdeError, OptionError, did_you_mean

Array = np.ndarray
Rule = Callable[[str, Any], None]
F = TypeVar("F", bound=Callable[..., Any])


def takes(**rules: Rule) -> Callable[[F], F]:
    """Decorate a public function with the rules of its arguments, which are looked at before any work; those left out are not."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: Any, **keys: Any) -> Any:
            given = signature.bind(*args, **keys).arguments
            for name, rule in rules.items():
                if name in given:
                    rule(name, given[name])
            return function(*args, **keys)

        return checked  # type: ignore[return-value]

    return decorate


def kind(name: str, remedy: str) -> Rule:
    """Refuse what is no object of the class of this name."""

    def rule(argument: str, value: Any) -> None:
        if all(c.__name__ != name for c in type(value).__mro__):
            raise OptionError(argument, f"must be a {name}", repr(value), remedy)

    return rule


MODEL = kind("Model", "Make it with cqpde.Model, cqpde.healed or cqpde.models")
GRID = kind("Grid", "Make it with cqpde.Grid")
STATE = kind("State", "Make it with cqpde.gaussian, product, point or from_array")
DATASET = kind("Dataset", "Pass what cqpde.solve, cqpde.unravel or cqpde.load returned")
TEXT = kind("str", "Write it in quotes")


def NUMBER(argument: str, value: Any) -> None:
    """Refuse what is no finite real number."""
    if not is_number(value):
        raise OptionError(argument, "must be a finite real number", repr(value), "Correct the value")


def POSITIVE(argument: str, value: Any) -> None:
    """Refuse what is no finite positive number."""
    require_positive(argument, value, "Correct the value")


def integer(least: int, below: int) -> Rule:
    """Refuse what is no integer in ``[least, below)``."""
    return lambda argument, value: require_integer(argument, value, least, below)


def word(*options: str) -> Rule:
    """Refuse what is not one of these words."""
    return lambda argument, value: require_word(argument, value, options)


def numbers(argument: str, value: Any, dtype: Any, rule: str, remedy: str = "Correct the value", error: type[CqpdeError] = OptionError) -> Array:
    """A value as an array of numbers."""
    try:
        return np.array(value, dtype=dtype)
    except (TypeError, ValueError, OverflowError):
        raise error(argument, rule, repr(value), remedy) from None


def require_word(argument: str, value: Any, options: Iterable[str], rule: str = "must be a known word") -> None:
    """Refuse what is not one of a few words."""
    options = list(options)
    if not isinstance(value, str) or value not in options:
        raise OptionError(argument, rule, repr(value), did_you_mean(str(value), options))


def require_flag(argument: str, value: Any) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool | np.bool_):
        raise OptionError(argument, "must be True or False", repr(value), "Leave it out for the default")


def require_integer(argument: str, value: Any, least: int, below: int | None = None) -> None:
    """Refuse what is no integer in ``[least, below)``."""
    good = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not good or value < least or (below is not None and value >= below):
        rule = f"must be an integer of at least {least}" + (f" and below {below}" if below else "")
        raise OptionError(argument, rule, repr(value), "Correct the value")


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    try:
        return bool(np.isfinite(float(value)))
    except OverflowError:
        return False


def require_positive(argument: str, value: Any, remedy: str) -> None:
    """Refuse what is no finite positive number."""
    if not is_number(value) or value <= 0:
        raise OptionError(argument, "must be a positive number", repr(value), remedy)


def read_times(t: Any) -> Array:
    """Output times as an array; refuses what is not at least two finite ascending times that can be told apart."""
    try:
        times = np.array(t, dtype=float).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise OptionError("t", "must be numbers", repr(t), "Write e.g. np.linspace(0, 1, 11)") from None
    if len(times) < 2 or not np.all(np.isfinite(times)) or np.any(np.diff(times) <= 0):
        rule = "must be at least two finite ascending times, the first being the start"
        raise OptionError("t", rule, np.array2string(times, threshold=6), "Sort them and remove duplicates")
    return times
