"""What it takes to run a model by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ModelError
from ..grid import Grid
from ..initial import State
from ..model import Model
from ..options import is_number

Array = np.ndarray


@dataclass(frozen=True)
class Setup:
    """A model with a grid, an initial state and times.

    Attributes
    ----------
    model : Model
    grid : Grid
    rho0 : State
    times : array
    exact : callable or None
        ``exact(grid, t)`` returns the exact density matrix (d, d, *cells) where there is one.
    options : dict
        What this model needs of :func:`cqpde.solve` where the defaults are not the best, e.g. ``{"dt": 0.0175}``.
    """

    model: Model
    grid: Grid
    rho0: State
    times: Array
    exact: Callable[[Grid, float], Array] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def merged(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A model's own options under what the user gave; its fixed step goes where the user chose a route that has none."""
    options = {**own, **given}
    if "dt" not in given and (given.get("method") == "fv" or given.get("positivity") or given.get("transport") or "dt_max" in given):
        options.pop("dt", None)
    return options


def require_parameters(name: str, positive: Mapping[str, Any], finite: Mapping[str, Any]) -> None:
    """Refuse parameters that are not numbers, not finite, or not positive where they must be."""
    for rule, group in (("positive", positive), ("finite", finite)):
        for key, value in group.items():
            if not is_number(value) or (rule == "positive" and value <= 0):
                raise ModelError(f"{name}({key}=...)", f"must be a {rule} number", repr(value), "Correct the parameter")
