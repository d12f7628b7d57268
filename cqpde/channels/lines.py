r"""Drift that depends on its own coordinate: conservative transport along characteristics, with the accuracy of the Fourier series.

On a line of n cells the flow of :math:`-\partial(r\rho)` over dt is one n x n matrix. The field's trigonometric interpolant is integrated
exactly between the feet of the characteristics that arrive at the cell interfaces, which gives the new cell averages; averages and
values at the centres differ by the factor :math:`\sin(kh/2)/(kh/2)` per mode. What enters a cell leaves another, so the total is kept to
round-off: feet are held inside an open axis (nothing comes in), what lies beyond the feet of its ends has left and is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.integrate import solve_ivp

from ..errors import RouteError
from ..grid import Grid
from ..model import Model
from .parts import Lines, centre, drift_parts, tidy
from .spectral import SLAB

Array = np.ndarray


@dataclass(frozen=True)
class LineMatrices:
    """Flow matrices of one axis.

    Attributes
    ----------
    axis : int
    matrices : array (*others, n, n)
        One per line pattern; ``others`` are the cells of the other axes, with size 1 where the drift does not depend.
    lost : array (2, *others, n) or None
        What leaves through the lower and upper end, in units of one cell; None if nothing does.
    """

    axis: int
    matrices: Array
    lost: Array | None


def contraction(grid: Grid, axis: int, gamma: Array, dt: float) -> LineMatrices:
    """The flow of ``dz/dt = -gamma (z - c)`` about the centre c of the axis."""
    c = centre(grid, axis)
    feet = c + (_interfaces(grid, axis) - c) * np.exp(gamma * dt)
    # on a periodic axis this drift jumps at the seam, and nothing comes in there either
    return _matrices(grid, axis, np.clip(feet, grid.axes[axis].lower, grid.axes[axis].upper))


def own_drift(model: Model, grid: Grid, part: Lines, t: float, dt: float, accuracy: float) -> LineMatrices:
    """The flow of a part :class:`~cqpde.channels.parts.Lines` over ``dt``, coefficients taken at ``t``.

    Parameters
    ----------
    accuracy : float
        Of the characteristics per unit time, relative to the length of the axis.
    """
    g, r, gamma = drift_parts(model, grid, t, part.axis)
    if part.remainder and gamma is not None:
        return contraction(grid, part.axis, gamma, dt)
    axis, n = grid.axes[part.axis], grid.ndim
    # others on which the velocity depends; the own axis is that of the interfaces
    varies = r if part.remainder else np.broadcast_arrays(g, r)[1]
    shape = tuple(axis.n + 1 if i == part.axis else varies.shape[i] for i in range(n))
    mesh = {
        name: z if varies.shape[i] > 1 else z[(slice(None),) * i + (slice(0, 1),)]
        for i, (name, z) in enumerate(grid.mesh().items())
    }
    at_centre = {**mesh, axis.name: np.full((1,) * n, centre(grid, part.axis))}
    middle = model.drift(at_centre, t)[part.axis]
    offset = middle if part.remainder and np.all(np.isfinite(middle)) else 0.0

    def velocity(_: float, flat: Array) -> Array:
        z = flat.reshape(shape)
        inside = axis.lower + np.mod(z - axis.lower, axis.upper - axis.lower) if axis.periodic else np.clip(z, axis.lower, axis.upper)
        # one value per interface and pattern: the drift is asked on the full mesh of positions
        v = np.broadcast_to(model.drift({**mesh, axis.name: inside}, t)[part.axis] - offset, shape)
        return -v.reshape(-1)

    accuracy = max(accuracy * dt, 1e-13)
    start = np.broadcast_to(_interfaces(grid, part.axis), shape).reshape(-1)
    run = solve_ivp(velocity, (0.0, dt), start, method="DOP853", rtol=accuracy, atol=accuracy * (axis.upper - axis.lower))
    feet = tidy(run.y[:, -1].reshape(shape), 0)
    if not run.success or not np.all(np.isfinite(feet)) or np.any(np.diff(feet, axis=part.axis) < 0):
        raise RouteError(
            f"D1C ({axis.name})", "characteristics must be finite and must not cross", f"a step of {dt:.3g}", "Use a smaller dt_max"
        )
    return _matrices(grid, part.axis, feet)


def _interfaces(grid: Grid, axis: int) -> Array:
    return grid.axes[axis].interfaces.reshape([-1 if i == axis else 1 for i in range(grid.ndim)])


def _matrices(grid: Grid, i: int, feet: Array) -> LineMatrices:
    axis = grid.axes[i]
    n, length, h = axis.n, axis.upper - axis.lower, axis.spacing
    if not axis.periodic:
        feet = np.clip(feet, axis.lower, axis.upper)
    feet = np.moveaxis(feet, i, -1)
    k = 2.0 * np.pi * np.arange(1, n // 2 + 1) / length
    weight = np.where((n % 2 == 0) & (np.arange(1, n // 2 + 1) == n // 2), 1.0, 2.0) / n
    # primitive from the lower end of the interpolant whose mode k is exp(i k z)
    phase = k * (feet[..., None] - axis.lower)
    waves = weight * (np.exp(1j * phase) - 1.0) / (1j * k)
    # mode k of a unit value in cell j
    modes = np.exp(-1j * np.outer(k, axis.centers - axis.lower))
    primitive = (feet[..., None] - axis.lower) / n + np.real(waves @ modes)
    average = np.diff(primitive, axis=-2) / h
    hat = np.fft.rfft(average, axis=-2)
    kh = 0.5 * h * 2.0 * np.pi * np.arange(hat.shape[-2]) / length
    matrices = np.fft.irfft(hat / np.sinc(kh / np.pi)[:, None], n, axis=-2)
    lost = None
    if not axis.periodic:
        total = np.real(weight * (np.exp(1j * k * length) - 1.0) / (1j * k) @ modes) + length / n
        lost = np.stack([primitive[..., 0, :], total - primitive[..., -1, :]]) / h
        lost = lost if np.max(np.abs(lost)) > 1e-15 else None
    return LineMatrices(i, matrices, lost)


def apply_lines(x: Array, m: LineMatrices, volume: float) -> Array | None:
    """Apply to the state ``x`` (components, batch, *cells) in place; returns what left, (batch, 2, components), if anything."""
    gone = None if m.lost is None else np.zeros((x.shape[1], 2, x.shape[0]))
    cut = next((i for i in range(x.ndim - 2) if i != m.axis), None)  # slabs along it: little work memory
    cells = 1 if cut is None else x.shape[cut + 2]
    count = min(cells, -(-x.size // SLAB))
    for low, high in pairwise(k * cells // count for k in range(count + 1)):
        part = x if cut is None else x[(slice(None),) * (cut + 2) + (slice(low, high),)]
        matrices = m.matrices if cut is None or len(m.matrices) == 1 else m.matrices[low:high]
        lines = np.moveaxis(np.moveaxis(part, (0, 1), (-2, -1)), m.axis, -3)  # (*others, n, components, batch)
        if gone is not None and m.lost is not None:
            lost = m.lost if cut is None or m.lost.shape[1] == 1 else m.lost[:, low:high]
            content = np.tensordot(np.broadcast_to(lost, (2, *lines.shape[:-2])), lines.astype(float, copy=False), axes=lines.ndim - 2)
            gone += volume * np.moveaxis(content, 2, 0)
        if matrices.size == lines.shape[-3] ** 2:
            matrix, axis = matrices.reshape(matrices.shape[-2:]), m.axis + 2
            moved = matrix @ part.reshape(*part.shape[: axis + 1], -1) if axis < part.ndim - 1 else part @ matrix.T
            part[...] = moved.reshape(part.shape)
        else:
            moved = (matrices @ np.ascontiguousarray(lines).reshape(*lines.shape[:-2], -1)).reshape(lines.shape)
            part[...] = np.moveaxis(np.moveaxis(moved, -3, m.axis), (-2, -1), (0, 1))
    return gone
