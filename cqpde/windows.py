r"""Windows that follow a state: which cells it occupies, where these go, and the copy from one window to the next.

All windows are cells of one lattice, the grid of the initial state continued without end along the axes that follow, so that a move copies cells
exactly and loses what lies outside the new window. A state *occupies* the cells of highest density that hold all but

.. math:: \epsilon = P(\chi_n > m)

of it: for a Gaussian over n coordinates those within m standard deviations (the margin) of its mean, and for a state in several parts, those around
each part. Where they go is predicted by points of their hull, moved by the drift with the quantum system in every eigenstate of the forces; how far
noise spreads them beyond, by the mean square distance v of the same points with noise from those without: a tail of width :math:`\sigma` reaches
:math:`m(\sqrt{\sigma^2 + v} - \sigma)` further. A prediction decides how large a window is, never what is in it: the run on it says what reached its ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi

from .errors import SolverError
from .grid import Grid
from .model import Model
from .suggest import forces, kicks

Array = np.ndarray

#: Points on the hull of the occupied cells, and inside, whose paths are predicted; cells of which the hull is taken at most.
HULL, INSIDE, LOOKED_AT = 96, 64, 20_000

#: A predicted step moves no point by more than this part of the occupied extent; steps of a prediction at most.
STRIDE, STEPS = 0.25, 100

#: A window may have this many times the volume that the state needs at the start or the end of its stretch.
ROOM = 1.6

#: Margin between the two contours, in standard deviations, from which the width of a tail is taken.
TAIL = 1.5

#: Empty cells beyond the predicted ends.
SPARE = 2


@dataclass(frozen=True)
class Window:
    """Cells of a lattice: the first cell and the number of cells of each axis."""

    first: tuple[int, ...]
    cells: tuple[int, ...]


@dataclass(frozen=True)
class Lattice:
    """The cells of a grid, continued without end along the axes that follow."""

    base: Grid
    follows: tuple[bool, ...]

    def grid(self, window: Window) -> Grid:
        """The grid of a window."""
        edge = lambda a, cell: a.lower + cell * a.spacing
        ends = lambda a, first, n: (edge(a, first), edge(a, first + n)) if (first, n) != (0, a.n) else (a.lower, a.upper)
        rows = zip(self.base.axes, window.first, window.cells, strict=True)
        return Grid(**{a.name: (*ends(a, first, n), n, tuple(map(str, a.ends))) for a, first, n in rows})

    def window(self, lower: Array, upper: Array) -> Window:
        """The smallest window, of even numbers of cells, that holds given bounds and the spare cells; other axes are whole."""
        first, cells = [], []
        for axis, follows, low, high in zip(self.base.axes, self.follows, lower, upper, strict=True):
            if not follows:
                first.append(0)
                cells.append(axis.n)
                continue
            begin = int(np.floor((low - axis.lower) / axis.spacing)) - SPARE
            count = int(np.ceil((high - axis.lower) / axis.spacing)) + SPARE - begin
            first.append(begin)
            cells.append(max(count + count % 2, 8))
        return Window(tuple(first), tuple(cells))


def following(grid: Grid) -> tuple[bool, ...]:
    """Which axes follow: those with two open ends on which no specular end depends."""
    flipped = {end.conjugate for axis in grid.axes for end in axis.ends}
    return tuple(axis.name not in flipped and all(end.kind == "open" for end in axis.ends) for axis in grid.axes)


@dataclass(frozen=True)
class Occupied:
    """Where a state is: bounds of the occupied cells, the widths of its tails beyond, and points of their hull."""

    lower: Array
    upper: Array
    tails: Array  # (2, n): below, above
    points: Array  # (k, n)


def occupied(grid: Grid, rho: Array, margin: float) -> Occupied:
    """Find the cells that a state (d, d, *cells) occupies."""
    f = np.abs(np.einsum("aa...->a...", rho).real).sum(axis=0)
    ordered = np.sort(f, axis=None)
    below = np.cumsum(ordered)
    contour = lambda m: f >= ordered[int(np.searchsorted(below[:-1], chi.sf(m, grid.ndim) * below[-1]))]
    less = max(margin - TAIL, 0.5 * margin)
    outer = contour(margin)
    (lower, upper), (low, high) = _bounds(grid, outer), _bounds(grid, contour(less))
    tails = np.maximum(np.stack([low - lower, upper - high]) / (margin - less), 0.5 * grid.spacings)
    return Occupied(lower, upper, tails, _points(grid, outer))


def _bounds(grid: Grid, cells: Array) -> tuple[Array, Array]:
    """Lower and upper interfaces of the box of the marked cells."""
    lower, upper = [], []
    for i, axis in enumerate(grid.axes):
        held = np.flatnonzero(cells.any(axis=tuple(k for k in range(grid.ndim) if k != i)))
        lower.append(axis.interfaces[held[0]])
        upper.append(axis.interfaces[held[-1] + 1])
    return np.array(lower), np.array(upper)


def _points(grid: Grid, cells: Array) -> Array:
    """Centres of marked cells: those furthest along the axes and along directions at random, and some out of all."""
    held = np.flatnonzero(cells)
    places = np.stack(np.unravel_index(held, grid.shape), axis=1)
    ends = [int(k) for i in range(grid.ndim) for k in (np.argmin(places[:, i]), np.argmax(places[:, i]))]
    some = places[np.unique([*ends, *np.linspace(0, len(held) - 1, min(len(held), LOOKED_AT)).astype(int)])]
    extent = np.maximum(np.ptp(some, axis=0), 1)
    rng = np.random.default_rng(0)
    directions = np.concatenate([np.eye(grid.ndim), -np.eye(grid.ndim), rng.normal(size=(HULL, grid.ndim))])
    furthest = np.argmax((some / extent) @ directions.T, axis=0)
    chosen = some[np.unique([*furthest, *np.linspace(0, len(some) - 1, min(len(some), INSIDE)).astype(int)])]
    return np.stack([axis.centers[chosen[:, i]] for i, axis in enumerate(grid.axes)], axis=1)


def predict(model: Model, lattice: Lattice, at: Occupied, start: float, end: float, margin: float) -> tuple[float, Array, Array]:
    """Predict up to when a window of modest volume holds a state, and its bounds.

    Returns
    -------
    time, lower, upper
        The time, later than ``start`` and at most ``end``; bounds (n,) that hold the state until then.

    Raises
    ------
    SolverError
        If the points do not stay finite, however short the step.
    """
    d, half = model.dim, 0.5 * lattice.base.spacings
    moves = np.array(lattice.follows)
    rng = np.random.default_rng(0)
    z = np.repeat(at.points, d, axis=0)
    level, direction = np.tile(np.arange(d), 2 * len(at.points)), rng.normal(size=z.shape)
    z, direction = np.concatenate([z, z]), np.concatenate([direction, direction])  # the second half feels noise
    clean = slice(0, len(z) // 2)
    extent = (at.upper - at.lower)[moves]
    volume = float(np.prod(extent))
    lower, upper, now, dt = at.lower, at.upper, start, (end - start) / 16
    for step in range(STEPS):
        dt = min(dt, end - now)
        while True:
            velocity, s = forces(model, z, level, direction, now)
            after, _ = forces(model, _inside(lattice.base, z + dt * velocity), level, direction, now + dt)
            change = 0.5 * dt * (velocity + after)
            stride = float(np.max(np.abs(change[clean])[:, moves] / extent))
            spread = float(np.max(np.sqrt(dt * np.maximum(np.diagonal(s, axis1=1, axis2=2), 0.0))[:, moves] / extent))
            if max(stride, spread) <= STRIDE:
                break
            dt *= 0.5
            if not now + dt > now:
                raise SolverError("follow", "the drift must move the state by finite steps", f"a jump at t = {now:.6g}", "Use solve on a fixed box")
        noise = kicks(s, dt, rng)
        noise[clean] = 0.0
        z = _inside(lattice.base, z + change + noise)
        v = np.mean((z[len(z) // 2 :] - z[clean]) ** 2, axis=0)
        further = margin * (np.sqrt(at.tails**2 + v) - at.tails)
        low, high = z[clean].min(axis=0) - half - further[0], z[clean].max(axis=0) + half + further[1]
        wide = np.minimum(lower, low), np.maximum(upper, high)
        needed = max(volume, float(np.prod((high - low)[moves])))
        if step and float(np.prod((wide[1] - wide[0])[moves])) > ROOM * needed:
            break
        (lower, upper), now = wide, now + dt if dt < end - now else end
        if now == end:
            break
        if max(stride, spread) < 0.3 * STRIDE:
            dt *= 2
    return now, lower, upper


def _inside(grid: Grid, z: Array) -> Array:
    """Points with their coordinates along periodic axes wrapped, and along walled ones kept inside."""
    columns = []
    for i, axis in enumerate(grid.axes):
        if axis.periodic:
            columns.append(axis.lower + np.mod(z[:, i] - axis.lower, axis.upper - axis.lower))
        else:
            least, most = (-np.inf if axis.ends[0].kind == "open" else axis.lower), (np.inf if axis.ends[1].kind == "open" else axis.upper)
            columns.append(np.clip(z[:, i], least, most))
    return np.stack(columns, axis=1)


def moved(rho: Array, old: Window, new: Window) -> tuple[Array, Array]:
    """Copy a field (d, d, *cells) from one window to another: the field there, zero where the old window had no cells, and what is outside, (d, d, k)."""
    out = np.zeros((*rho.shape[:2], *new.cells), dtype=rho.dtype)
    begin = np.maximum(old.first, new.first)
    end = np.maximum(begin, np.minimum(np.add(old.first, old.cells), np.add(new.first, new.cells)))
    part = lambda window: tuple(slice(int(b - f), int(e - f)) for b, e, f in zip(begin, end, window.first, strict=True))
    inside, outside = (slice(None), slice(None)), np.ones(old.cells, dtype=bool)
    if np.all(end > begin):
        out[(*inside, *part(new))] = rho[(*inside, *part(old))]
        outside[part(old)] = False
    return out, rho[:, :, outside]
