"""Which term of the equation made a state non-finite: the coefficient that is not finite there, else the fastest one."""

from __future__ import annotations

import numpy as np

from .errors import CqpdeError
from .grid import Grid
from .model import Model

Array = np.ndarray

#: Times between the last good state and the bad one at which coefficients are looked at.
LOOKS = 9


def likely_term(model: Model, grid: Grid, start: float, end: float) -> str:
    """Name the term that most likely made a state on ``grid`` non-finite between two times, in words."""
    for t in np.linspace(start, end, LOOKS):
        for name, coefficient in model.coefficients.items():
            try:
                entries = coefficient.entries(grid.mesh(), float(t))
            except CqpdeError as error:
                return f"{name} at t = {t:.6g}: {error}"
            for index in np.ndindex(*entries.shape):
                bad = ~np.isfinite(entries[index])
                if bad.any():
                    cell = tuple(np.argwhere(bad)[0])
                    label = name + "".join(f"[{i}]" for i in index)
                    places = [f"{a.name} = {a.centers[i]:.5g}" for a, i, n in zip(grid.axes, cell, bad.shape, strict=True) if n > 1]
                    return f"{label} is {np.real_if_close(entries[index][cell])} at {', '.join(places) or 'every cell'}, t = {t:.6g}"
    rates = _rates(model, grid, end)
    name, rate = max(rates.items(), key=lambda item: item[1])
    return f"all coefficients are finite; the fastest is {name}, rate {rate:.3g}"


def _rates(model: Model, grid: Grid, t: float) -> dict[str, float]:
    """Largest rate of each term on the grid."""
    fields = model.canonical(grid.mesh(), t)
    biggest = lambda a: float(np.max(np.abs(a), initial=0.0))
    out = {"H": 2.0 * biggest(fields.H), "D0": biggest(fields.D0) * biggest(fields.M) ** 2}
    for i, axis in enumerate(grid.axes):
        out[f"D1C ({axis.name})"] = biggest(fields.v[i]) / axis.spacing
        out[f"D1 (row {axis.name})"] = 2.0 * biggest(fields.A[i]) / axis.spacing
        out[f"D2 ({axis.name})"] = biggest(fields.s[..., i, i]) / axis.spacing**2
    return out
