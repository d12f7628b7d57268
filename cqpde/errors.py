"""Errors and warnings of cqpde: every message names the argument, the rule, the value found and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

#: Characters of a value that a message shows.
MAX_FOUND = 240


class CqpdeError(Exception):
    """Base of all errors raised on purpose by cqpde.

    Parameters
    ----------
    argument : str
        The argument, key or file that is wrong.
    rule : str
        What must hold.
    found : object
        The value that was found.
    remedy : str
        What to do about it.
    """

    def __init__(self, argument: str, rule: str, found: object = "", remedy: str = "") -> None:
        self.argument, self.rule, self.found, self.remedy = argument, rule, found, remedy
        text = f"{_short(argument)}: {rule}"
        if not (isinstance(found, str) and found == ""):
            text += f"; found {_short(found)}"
        if remedy:
            text += f". {remedy}"
        super().__init__(text if text.endswith((".", "?")) else text + ".")

    def __reduce__(self) -> tuple[Any, ...]:
        """As it goes to other processes."""
        return type(self), (self.argument, self.rule, str(self.found), self.remedy)


def _short(value: object) -> str:
    """A value as text on one line, without its middle where it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_FOUND else f"{text[: MAX_FOUND // 2]} ... {text[-MAX_FOUND // 3 :]}"


class ModelError(CqpdeError):
    """A coefficient of the master equation is malformed or unphysical."""


class GridError(CqpdeError):
    """A grid, an axis or a boundary is malformed or has no meaning for the model."""


class StateError(CqpdeError):
    """An initial state is not a normalised hybrid state on its grid."""


class OptionError(CqpdeError):
    """An option of a function or command is unknown, malformed or ignored by the chosen method."""


class ConfigError(CqpdeError):
    """A TOML file or an expression in it cannot be accepted."""


class FileError(CqpdeError):
    """A file cannot be read or written, or is not one of cqpde's."""


class SolverError(CqpdeError):
    """A run was stopped because its result would not be finite, physical or within tolerance."""


class NotFinite(SolverError):
    """A state became non-finite; ``t`` is the end of the step in which it did."""

    def __init__(self, argument: str, rule: str, found: object, remedy: str, t: float) -> None:
        super().__init__(argument, rule, found, remedy)
        self.t = t

    def __reduce__(self) -> tuple[Any, ...]:
        """As it goes to other processes."""
        return type(self), (self.argument, self.rule, str(self.found), self.remedy, self.t)


class RouteError(SolverError):
    """The route that was taken turned out not to be the one for this run; ``method="auto"`` takes the other one then."""


class Interrupted(CqpdeError):
    """A run was asked to end (signal, wall-clock limit) and can be resumed.

    ``partial`` is then the Dataset of the outputs that there were, or None.
    """

    partial: Any = None


class CqpdeWarning(UserWarning):
    """Something a physicist should know of about a run that is still valid."""


class BoxWarning(CqpdeWarning):
    """Probability reached an end that the user said is a wall."""


class ResolutionWarning(CqpdeWarning):
    """The cells do not resolve the state."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return ``Did you mean 'x'? `` for the closest of ``options``, and always list the options."""
    options = list(options)
    close = difflib.get_close_matches(name[:80], options, n=1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(options)}"
