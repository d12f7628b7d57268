"""Observables of a solution: plain functions of a Dataset, and the accessor ``.cq`` that calls them.

Every function works on a solution of :func:`cqpde.solve` (or on an ensemble that gathered its field), at all its times and batch entries
at once; integrals are sums over cells times the cell volume. What was loaded lazily (:func:`cqpde.load`) stays lazy until its values are
asked for, and is then read chunk by chunk.
"""

from __future__ import annotations

from typing import Any

import xarray as xr

from ..dataset import grid_of
from ..errors import did_you_mean
from ..grid import Grid
from .access import frame
from .by_name import WORDS as METHODS
from .by_name import probe, read_observable, variable_name
from .information import distance, entropy, mutual_information, purity
from .moments import arrival_rate, covariance, current, energy, expect, mean, moment
from .states import (
    bloch,
    coherence,
    conditional_state,
    density,
    marginal,
    operator_marginal,
    populations,
    probability,
    unconditioned_state,
)  # fmt: skip
from .summary import summary


def to_qobj(ds: xr.Dataset, t: float | None = None, dims: Any = None, **where: Any) -> Any:
    """The quantum state at a time as a QuTiP object (needs ``pip install qutip``).

    Parameters
    ----------
    t : float, optional
        Time; the nearest full field is taken. Default: the last one.
    dims : list of int, optional
        Levels of the subsystems, e.g. ``[2, 2]``; default: one system.
    **where : float or pair
        Conditions as for :func:`conditional_state`; without any, the unconditioned state, whose trace is the probability inside the box.
    """
    from ..interop import qobj

    at = frame(ds, t)
    return qobj((conditional_state(at, **where) if where else unconditioned_state(at)).values, dims)


@xr.register_dataset_accessor("cq")
class Accessor:
    """Observables of a solution: ``sol.cq.density()``, ``sol.cq.marginal("q")``, ... (see :mod:`cqpde.observables`)."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    @property
    def grid(self) -> Grid:
        """The grid of the solution."""
        return grid_of(self._ds)

    def __getattr__(self, name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"no observable {name!r}. {did_you_mean(name, _PUBLIC)}")
        function = _PUBLIC[name]
        return lambda *args, **kwargs: function(self._ds, *args, **kwargs)

    def __dir__(self) -> list[str]:
        return [*_PUBLIC, "grid"]


_PUBLIC = {
    f.__name__: f
    for f in (
        density, marginal, operator_marginal, populations, coherence, bloch, unconditioned_state, conditional_state, probability, expect,
        moment, mean, covariance, energy, current, purity, entropy, mutual_information, distance, arrival_rate, frame, to_qobj, summary,
    )
}  # fmt: skip

__all__ = ["METHODS", "Accessor", "probe", "read_observable", "variable_name", *_PUBLIC]
