"""Reading of options that several functions have: words, flags, counts, positive numbers, times. What is none is refused by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .errors import OptionError, did_you_mean

Array = np.ndarray


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
