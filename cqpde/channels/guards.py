"""What a run must not jump over: features of the coefficients between the cells inside, and open ends within one step."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline

from ..grid import Grid
from ..model import Model
from .parts import Kick, Lines, Stream, Structure, drift_parts, fields_at
from .resolution import more_cells

Array = np.ndarray

#: Deviation of a coefficient from a spline through the cells inside, relative to its range, above which these cells miss something.
SMOOTH = 1e-3

#: Lines along an axis on which coefficients are compared, spread over the other axes (at least 5 per axis).
PLACES = 256


def cells_for_coefficients(model: Model, grid: Grid, cells: tuple[int, ...], times: tuple[float, ...]) -> tuple[int, ...]:
    """At least ``cells`` per axis, so many that every coefficient is smooth between them (at most the user's)."""
    known: dict[Any, bool] = model.__dict__.setdefault("_smooth", {})
    out = []
    for i, (axis, n) in enumerate(zip(grid.axes, cells, strict=True)):
        while n < axis.n:
            key = (grid, i, n, times)
            if key not in known:
                known[key] = _smooth(model, grid, i, n, times)
            if known[key]:
                break
            n = more_cells(n, axis.n)
        out.append(n)
    return tuple(out)


def relaxation_step(model: Model, grid: Grid, structure: Structure, t: float) -> float:
    """Longest step that contracts an axis by no more than ``exp(-1/2)`` before its noise spreads it again."""
    fastest = 0.0
    for part in structure.parts:
        if isinstance(part, Kick | Stream) and part.relax:
            gamma = drift_parts(model, grid, t, part.axes[0] if isinstance(part, Kick) else part.axis)[2]
            fastest = max(fastest, float(np.max(gamma)) if gamma is not None else 0.0)
    return 0.5 / fastest if fastest > 0.0 else float("inf")


def _smooth(model: Model, grid: Grid, i: int, n: int, times: tuple[float, ...]) -> bool:
    coarse = grid.with_cells(**{grid.axes[i].name: n})
    each = max(5, int(PLACES ** (1.0 / max(grid.ndim - 1, 1))))
    few = lambda g, k, z: z if k == i else np.take(z, np.linspace(0, g.shape[k] - 1, each).astype(int), axis=k)
    meshes = [{a.name: few(g, k, z) for k, (a, z) in enumerate(zip(g.axes, g.mesh().values(), strict=True))} for g in (coarse, grid)]
    places = [g.axes[i].centers for g in (coarse, grid)]
    inside = (places[1] >= places[0][0]) & (places[1] <= places[0][-1])
    for t in times:
        for c in model.coefficients.values():
            for rough, fine in zip(*(c.entries(m, t).reshape(-1) for m in meshes), strict=True):
                if fine.shape[i] == 1:
                    continue
                low, high = np.moveaxis(rough, i, 0), np.moveaxis(fine, i, 0)
                if low.shape[0] == 1:
                    return False
                extent = float(np.max(np.abs(high - high.mean(axis=0))))
                if np.max(np.abs(CubicSpline(places[0], low, axis=0)(places[1][inside]) - high[inside])) > SMOOTH * extent:
                    return False
    return True


class OpenEnds:
    """How much of a state a step would carry beyond the open ends, which transforms treat as closed on themselves.

    Displacements are taken from the drift and the eigenvalues of the back-reaction, the largest of those at the given times; drift that
    depends on its own coordinate goes by characteristics, which count what leaves.
    """

    def __init__(self, model: Model, grid: Grid, structure: Structure, times: tuple[float, ...], box: Grid | None = None) -> None:
        self.grid, self.dim, self.box = grid, model.dim, box or grid
        own = {p.axis for p in structure.parts if isinstance(p, Lines) and not p.remainder}
        moved = {p.axis for p in structure.parts if isinstance(p, Stream)} | {
            i for p in structure.parts if isinstance(p, Kick) for i in p.axes
        }
        self._speeds: list[tuple[int, Array, Array]] = []
        for t in times:
            fields = fields_at(model, grid.mesh(), t, structure.basis)
            for i in sorted(moved - own):
                if grid.axes[i].periodic:
                    continue
                force = fields.A[i] + np.conj(np.swapaxes(fields.A[i], -1, -2))
                self._speeds.append((i, drift_parts(model, grid, t, i)[0], np.linalg.norm(force, ord=2, axis=(-2, -1))))
        self._masks: dict[float, list[Array]] = {}

    def cells_per_time(self) -> float:
        """Fastest displacement in cells per unit time."""
        return max((float(np.max(np.abs(v) + a)) / self.grid.axes[i].spacing for i, v, a in self._speeds), default=0.0)

    def beyond(self, x: Array, dt: float) -> float:
        """Probability of the state (components, batch, *cells) that a step would carry beyond the ends, the largest over axes and batch."""
        return float(np.max(np.abs(self.parts(x, dt)), initial=0.0))

    def parts(self, x: Array, dt: float) -> Array:
        """The same per axis that has ends within reach and per batch entry."""
        if not self._speeds:
            return np.zeros((0, x.shape[1]))
        if dt not in self._masks:
            if len(self._masks) > 64:
                self._masks.clear()
            self._masks[dt] = [self._mask(i, v, a, dt) for i, v, a in self._speeds]
        f = x[: self.dim].sum(axis=0, dtype=float)
        return np.stack([np.sum(f * m, axis=tuple(range(1, f.ndim))) for m in self._masks[dt]]) * self.grid.cell_volume

    def _mask(self, i: int, v: Array, a: Array, dt: float) -> Array:
        axis = self.box.axes[i]
        z = self.grid.mesh()[axis.name]
        return np.asarray((z + (v + a) * dt > axis.upper) | (z + (v - a) * dt < axis.lower), dtype=float)
