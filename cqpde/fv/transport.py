"""Drift along axes without noise: the two linear modes, as terms of the stencil.

``upwind``
    A positive jump with rate ``|v|/h`` towards the neighbour downstream: linear, completely positive, order 1.
``linear``
    Fourth-order central differences of ``v rho``, in flux form: linear, trace-exact, order 4, not exactly positive.

The default mode ``limited`` is not a linear generator and lives in :mod:`cqpde.fv.limited`.
"""

from __future__ import annotations

import numpy as np

from ..grid import Grid
from ..model import Model
from ..stencil import StencilBuilder
from .directions import shifted_mesh

Array = np.ndarray


def drift_at(model: Model, grid: Grid, t: float, i: int, side: float) -> Array:
    """Drift along axis ``i`` at the interfaces ``side`` = +-0.5 cells from every centre (0: at centres)."""
    shift = np.zeros(grid.ndim)
    shift[i] = side
    return model.drift(shifted_mesh(grid, shift), t)[i]


def mirrored_cells(grid: Grid, cells: Array, conjugate: str) -> Array:
    """Flat indices of the cells with the sign of ``conjugate`` flipped."""
    index = list(np.unravel_index(cells, grid.shape))
    k = grid.names.index(conjugate)
    index[k] = grid.shape[k] - 1 - index[k]
    return np.ravel_multi_index(tuple(index), grid.shape)


def slab_cells(grid: Grid, i: int, position: int) -> Array:
    """Flat indices of the cells at ``position`` along axis ``i``, keeping a length-1 axis there."""
    numbers = np.arange(int(np.prod(grid.shape))).reshape(grid.shape)
    return np.take(numbers, [position], axis=i)


def add_upwind(builder: StencilBuilder, model: Model, grid: Grid, t: float, i: int) -> float:
    """Add upwind jumps along axis ``i``; returns the largest total rate."""
    axis, here = grid.axes[i], (0,) * grid.ndim
    eye = np.eye(model.dim**2)
    total: Array = np.zeros((1,) * grid.ndim)
    for sign in (1, -1):
        rate = np.maximum(sign * drift_at(model, grid, t, i, 0.5 * sign), 0.0) / axis.spacing
        offset = tuple(sign if k == i else 0 for k in range(grid.ndim))
        builder.scalar(offset, rate)
        builder.scalar(here, -rate)
        total = total + rate
        end = axis.ends[1 if sign > 0 else 0]
        if end.kind == "specular":
            position = axis.n - 1 if sign > 0 else 0
            cells = slab_cells(grid, i, position)
            value = np.take(rate, [0 if rate.shape[i] == 1 else position], axis=i)
            builder.link(cells, mirrored_cells(grid, cells, end.conjugate), np.broadcast_to(value, cells.shape).copy())
        elif end.kind != "periodic":
            builder.escape(offset, rate[..., None, None] * eye)
    return float(np.max(total))


def add_linear(builder: StencilBuilder, model: Model, grid: Grid, t: float, i: int) -> float:
    """Add fourth-order central fluxes along axis ``i``; returns the largest frequency they add."""
    axis, n = grid.axes[i], grid.shape[i]
    v = drift_at(model, grid, t, i, 0.0) / axis.spacing
    interior = np.array([-1.0, 7.0, 7.0, -1.0]) / 12.0
    weights: dict[int, Array] = {o: np.zeros(n) for o in range(-2, 3)}
    mirrored: list[tuple[int, int, float]] = []

    def flux(k: int, j: int, w: float) -> None:
        """Interface k (between cells k - 1 and k) carries ``w v_j rho_j``."""
        for cell, sign in ((k - 1, -1.0), (k, 1.0)):
            inside = 0 <= cell < n
            if axis.periodic or (inside and 0 <= j < n):
                weights[cell - j][j % n] += sign * w
            elif inside:
                mirrored.append((-1 - j if j < 0 else 2 * n - 1 - j, cell, -sign * w))

    specular = [end.kind == "specular" for end in axis.ends]
    for k in range(0, n if axis.periodic else n + 1):
        low, high = k < 2 and not axis.periodic, k > n - 2 and not axis.periodic
        if not (low or high) or (low and specular[0]) or (high and specular[1]):
            for m, w in enumerate(interior):
                flux(k, k - 2 + m, w)
        elif k in (1, n - 1):
            flux(k, k - 1, 0.5)
            flux(k, k, 0.5)
    along = [1] * grid.ndim
    along[i] = n
    for offset, w in weights.items():
        if np.any(w):
            builder.scalar(tuple(offset if k == i else 0 for k in range(grid.ndim)), w.reshape(along) * v)
    for source, target, w in mirrored:
        # a ghost is the mirrored line's own cell; its v has the opposite sign, which `flux` put into w
        end = axis.ends[0 if target < n // 2 else 1]
        cells = slab_cells(grid, i, source)
        value = np.broadcast_to(w * np.take(v, [0 if v.shape[i] == 1 else source], axis=i), cells.shape)
        goal = mirrored_cells(grid, cells + (target - source) * int(np.prod(grid.shape[i + 1 :])), end.conjugate)
        builder.link(cells, goal, value.copy())
    _add_outflow(builder, model, grid, t, i)
    return 1.38 * float(np.max(np.abs(v)))


def _add_outflow(builder: StencilBuilder, model: Model, grid: Grid, t: float, i: int) -> None:
    """What the drift carries through an open end leaves upwind; nothing comes in."""
    axis, n = grid.axes[i], grid.shape[i]
    for sign, position in ((1, n - 1), (-1, 0)):
        if axis.ends[1 if sign > 0 else 0].kind not in ("open", "outflow"):
            continue
        rate = np.maximum(sign * drift_at(model, grid, t, i, 0.5 * sign), 0.0) / axis.spacing
        rate = np.take(rate, [0 if rate.shape[i] == 1 else position], axis=i)
        only = np.zeros(n)
        only[position] = 1.0
        along = [1] * grid.ndim
        along[i] = n
        leaving = only.reshape(along) * rate
        builder.scalar((0,) * grid.ndim, -leaving)
        builder.escape(
            tuple(sign if k == i else 0 for k in range(grid.ndim)), leaving[..., None, None] * np.eye(model.dim**2)
        )
