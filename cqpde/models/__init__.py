"""Models that ship with cqpde, and how each is run by name.

To add one: a file here with a function that returns a :class:`cqpde.Model`, a ``setup`` function, and a line in ``CATALOGUE``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ModelError, did_you_mean
from .linear_diosi import linear_diosi, linear_diosi_exact, linear_diosi_setup
from .mass_in_superposition import (
    mass_in_superposition,
    mass_in_superposition_grid,
    mass_in_superposition_setup,
    mass_in_superposition_start,
)
from .qubit_lattice import lattice_site, qubit_lattice, qubit_lattice_setup
from .setup import Setup, merged
from .well_and_barrier import well_and_barrier, well_and_barrier_grid, well_and_barrier_setup

#: Name -> setup function; its keyword arguments are the model's parameters.
CATALOGUE: dict[str, Callable[..., Setup]] = {
    "linear_diosi": linear_diosi_setup,
    "mass_in_superposition": mass_in_superposition_setup,
    "qubit_lattice": qubit_lattice_setup,
    "well_and_barrier": well_and_barrier_setup,
}


def setup(name: str, **parameters: Any) -> Setup:
    """Return model, grid, initial state and times of a shipped model as ``cqpde run NAME`` uses them."""
    if name not in CATALOGUE:
        raise ModelError("model", "must be the name of a shipped model", repr(name), did_you_mean(name, CATALOGUE))
    import inspect

    known = inspect.signature(CATALOGUE[name]).parameters
    for key in parameters:
        if key not in known:
            raise ModelError(
                f"{name}({key}=...)", "the model has no such parameter", repr(key), did_you_mean(key, known)
            )
    return CATALOGUE[name](**parameters)


__all__ = [
    "CATALOGUE", "Setup", "lattice_site", "linear_diosi", "linear_diosi_exact", "mass_in_superposition", "mass_in_superposition_grid",
    "mass_in_superposition_start", "merged", "qubit_lattice", "setup", "well_and_barrier", "well_and_barrier_grid",
]  # fmt: skip
