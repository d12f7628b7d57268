r"""The nearest grid on which exactly positive channels with whole-cell shifts meet a tolerance: what a refusal names.

Three things tie the cells to the step dt: every drift moves by whole cells in dt (half of it at order 4), a kick on cells needs noise
:math:`s\,dt' \ge` ``kraus.least_noise`` :math:`h^2` (dt' its share of the step), and the composition's error must be below the tolerance.
The last gives dt, from the same symmetric composition in Fourier space on the few cells that carry the state; the noise then gives the
cells of the noisy axes, these the values of the drift, and these the cells of the axes that stream.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..components import to_components, to_matrix, trace_norm_bound
from ..errors import CqpdeError
from ..grid import Grid
from ..model import Model
from .compose import Composition, turn
from .forward import order_four
from .kraus import least_noise
from .parts import Kick, Lines, Local, Part, Stream, Structure
from .positive import SHARE, kick_axes, measures, transport_axes, weakest_noise
from .resolution import settle
from .shifts import common_measure, ladder, unit_step, whole_steps

Array = np.ndarray

#: Longest chain by which the error of the composition is looked at.
MOST_LOOKED = 64

#: The forward step of order 4 has about this share of the error of two extrapolated chains.
FORWARD_SHARE = 0.2

#: Steps are named so much shorter than the estimate asks for.
MARGIN = 1.25

#: Beyond so many cells the other transport is named too.
MOST_CELLS = 1 << 22


def steps_of(model: Model, grid: Grid, structure: Structure, gaps: Array, t: float) -> tuple[float, int, int] | None:
    """Shortest step by whole cells, how many of it divide every gap between outputs, and the order of the step; None if none fits.

    A model without drift to shift has no shortest step: its number is zero.
    """
    axes = transport_axes(model, grid, structure, (t,))
    found = measures(model, grid, axes, t)
    if not found:
        return 0.0, 0, 2
    unit = unit_step(grid, found)
    if unit is None:
        return None
    if order_four(model, grid, structure, axes, t):
        # its half steps, too, move by whole cells
        multiple = whole_steps(list(gaps), 2.0 * unit)
        if multiple is not None and multiple > 1:
            return 2.0 * unit, multiple, 4
    multiple = whole_steps(list(gaps), unit)
    return (unit, multiple, 2) if multiple is not None and multiple > 1 else None


#: Cells of a grid that is looked at before it is named.
MOST_TRIED = 1 << 26


def propose(
    model: Model, grid: Grid, structure: Structure, x: Array, times: Array, probes: tuple[float, ...], tol: float, step: float
) -> str:
    """Name the nearest grid that works, or say why there is none.

    Parameters
    ----------
    x : array (d^2, batch, *cells)
        The initial states.
    times : array
        Outputs and jumps of the coefficients.
    step : float
        A step known to be short enough for the tolerance, or infinite.
    """
    t, gaps = float(times[0]), np.diff(times)
    axes = transport_axes(model, grid, structure, (t,))
    shifting = bool(measures(model, grid, axes, t))
    common = common_measure(gaps) if shifting else float(np.min(gaps / ladder(gaps, 0.0, 0, float("inf"))[0]))
    if common is None:
        return "No grid moves by whole cells over these outputs: choose times that are multiples of one time, or transport='limited'"
    order = 4 if shifting and order_four(model, grid, structure, axes, t) else 2
    needed = min(step, _longest_step(model, grid, structure, x, times, tol, order)) / MARGIN
    steps = max(2, 2 * int(np.ceil(0.5 * common / needed)))
    if not shifting:
        steps = 1 << (steps - 1).bit_length()  # its steps are halved
    candidates = [_grid_for(model, grid, structure, axes, probes, tol, common / steps, order, extra) for extra in (0, 1)]
    fitting = [c for c in candidates if c is not None and _works(model, c, structure, gaps, probes, tol, common / steps)]
    if not fitting:
        return "No grid near this one works: use transport='limited', method='fv', fewer outputs or a larger tol"
    best = min(fitting, key=lambda g: int(np.prod(g.shape)))
    words = ", ".join(f"{a.name}=({a.lower:.15g}, {a.upper:.15g}, {a.n})" for a, b in zip(best.axes, grid.axes, strict=True) if a != b)
    if not words:
        return "Raise tol, or choose output times further apart"
    large = f", {np.prod(best.shape):.2g} cells: consider transport='limited'" if np.prod(best.shape) > MOST_CELLS else ""
    return f"The nearest grid that works has {words}, with steps of {common / steps:.6g}{large}"


def _longest_step(model: Model, grid: Grid, structure: Structure, x: Array, times: Array, tol: float, order: int) -> float:
    """The step with which the composition meets ``tol``, from chains of 1, 2, 4, ... steps in Fourier space."""
    length = float(times[-1] - times[0])
    start = settle(x, grid, model.dim, 0.1 * tol)
    inside = grid.with_cells(**dict(zip(grid.names, start.cells, strict=True)))
    composition = Composition(model, inside, _as_channels(structure), float(times[0]))
    if composition.exact:
        return length
    y = np.ascontiguousarray(to_components(turn(to_matrix(start.x), structure.basis, False)))
    gone = np.zeros((y.shape[1], 2 * grid.ndim, y.shape[0]))
    run = lambda n: composition.chain(y, gone, float(times[0]), length, n, None)[0]
    states, n, before, error = {1: run(1)}, 1, np.inf, np.inf
    while n < MOST_LOOKED:
        states[2 * n] = run(2 * n)
        a, b, share = states[n], states[2 * n], 1.0 / 3.0
        if order == 4 and n == 1:
            n *= 2
            continue
        if order == 4:
            a, b, share = (4.0 * a - states[n // 2]) / 3.0, (4.0 * b - a) / 3.0, FORWARD_SHARE / 15.0
        n *= 2
        error = share * trace_norm_bound((b - a).reshape(len(y), -1), y.shape[1], inside.cell_volume)
        if error <= tol or abs(np.log2(before / max(error, 1e-300)) - order) < 0.3:
            break
        before = error
    return length / (n if order == 2 else n // 2) * (tol / max(error, 1e-300)) ** (1.0 / order)


def _as_channels(structure: Structure) -> Structure:
    """The parts in the order of the positive composition: kicks of one axis each outermost, then local terms, transport in the middle."""
    kicks = [p for p in structure.parts if isinstance(p, Kick)]
    streams = tuple(p for p in structure.parts if isinstance(p, Stream | Lines))
    local = any(k.local for k in kicks) or any(isinstance(p, Local) for p in structure.parts)
    groups: list[tuple[Part, ...]] = [(Kick((i,)),) for k in kicks for i in k.axes]
    groups += [(Local(),)] if local else []
    return replace(structure, groups=tuple(groups + ([streams] if streams else [])))


def _grid_for(
    model: Model, grid: Grid, structure: Structure, axes: list[int], probes: tuple[float, ...], tol: float, dt: float, order: int, extra: int
) -> Grid | None:
    """Cells fine enough for kicks of steps dt, by ``extra`` finer, and boxes of about the same size whose drifts move by whole ones."""
    finest = {i: (weakest_noise(model, grid, structure, i, probes) * dt * SHARE[order] / least_noise(tol)) ** 0.5 for i in kick_axes(structure)}
    cells = {}
    for i, h in finest.items():
        axis = grid.axes[i]
        if i not in axes:
            cells[axis.name] = max(axis.n, int(np.ceil((axis.upper - axis.lower) / h))) + extra
    refined = grid.with_cells(**cells) if cells else grid
    if np.prod(refined.shape, dtype=float) > MOST_TRIED:
        return None
    boxes: dict[str, tuple[float, float, int]] = {}
    for i, g in measures(model, refined, axes, probes[0]).items():
        axis, move = grid.axes[i], g * dt * (0.5 if order == 4 else 1.0)
        parts = max(1, round(move / axis.spacing), int(np.ceil(move / finest[i])) if i in finest else 1)
        length = axis.upper - axis.lower
        if axis.periodic:
            fitting = [k for k in range(parts, parts + 64) if abs(length * k / move - round(length * k / move)) < 1e-9 * length * k / move]
            if not fitting:
                return None
            boxes[axis.name] = (axis.lower, axis.upper, round(length * fitting[0] / move))
            continue
        n = max(5, int(np.ceil(length * parts / move * (1 - 1e-9))))
        middle, half = 0.5 * (axis.lower + axis.upper), 0.5 * n * move / parts
        boxes[axis.name] = (middle - half, middle + half, n)
    return Grid(**{a.name: (*boxes.get(a.name, (a.lower, a.upper, a.n)), tuple(map(str, a.ends))) for a in refined.axes})


def _works(model: Model, grid: Grid, structure: Structure, gaps: Array, probes: tuple[float, ...], tol: float, dt: float) -> bool:
    """Whether a grid allows steps of ``dt``, by the rules that a run holds it to."""
    if np.prod(grid.shape, dtype=float) > MOST_TRIED:
        return False
    try:
        found = steps_of(model, grid, structure, gaps, probes[0])
    except CqpdeError:
        return False
    if found is None or (found[0] > 0.0 and dt < found[0] * (1 - 1e-9)):
        return False
    return all(
        weakest_noise(model, grid, structure, i, probes) * dt * SHARE[found[2]] >= least_noise(tol) * grid.axes[i].spacing ** 2 * (1 - 1e-9)
        for i in kick_axes(structure)
    )
