"""Assemble the finite-volume generator of a model: Kraus transfer, drift, local terms, ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..components import dissipator, half_widths, left_right, sandwich
from ..errors import GridError
from ..grid import Grid
from ..model import Model
from ..stencil import StencilBuilder
from ..superoperators import excess, hamiltonian
from .directions import Interface, correlated_blocks, interfaces, noisy_axes
from .transport import add_linear, add_upwind

Array = np.ndarray


@dataclass
class Bounds:
    """Bounds of the generator's spectrum, for the exponential.

    The dissipative part lies in the ellipse around ``-rate`` with half-axes ``rate`` and ``drift``; the rest adds at most
    ``frequency`` to the imaginary part.
    """

    rate: float = 0.0
    drift: float = 0.0
    frequency: float = 0.0

    def add(self, rate: float, drift: float) -> None:
        """Widen the dissipative ellipse."""
        self.rate += rate
        self.drift += drift


@dataclass
class Layout:
    """How a model lies on a grid: which axes carry noise, which only drift, and in which blocks the noise is correlated."""

    blocks: list[tuple[int, ...]]
    noisy: list[bool]
    drifting: list[int] = field(default_factory=list)


def layout(model: Model, grid: Grid, times: tuple[float, ...]) -> Layout:
    """Find the layout and refuse boundaries without meaning on it."""
    noisy = noisy_axes(model, grid, times)
    blocks = correlated_blocks(model, grid, times)
    plan = Layout(blocks, noisy)
    for i, axis in enumerate(grid.axes):
        kinds = {end.kind for end in axis.ends}
        if noisy[i]:
            wrong = kinds & {"specular", "outflow"}
            if wrong:
                raise GridError(
                    f"Grid({axis.name}=...)",
                    "an axis with noise is open, periodic, reflecting or absorbing",
                    repr(wrong.pop()),
                    "specular and outflow belong to noise-free axes",
                )
            block = next(b for b in blocks if i in b)
            if len(block) > 1 and kinds & {"reflecting", "absorbing"}:
                raise GridError(
                    f"Grid({axis.name}=...)",
                    "correlated noise jumps diagonally and is only first order at a wall: open or periodic",
                    repr(str(axis.ends[0])),
                    "Make D2 diagonal or move the wall out of reach",
                )
        else:
            wrong = kinds & {"reflecting", "absorbing"}
            if wrong:
                kind = wrong.pop()
                instead = "'specular(<conjugate>)'" if kind == "reflecting" else "'outflow'"
                raise GridError(
                    f"Grid({axis.name}=...)",
                    "an axis without noise is open, periodic, outflow or specular",
                    repr(kind),
                    f"Use {instead}: without noise there is nothing to {kind[:-3]} but the drift",
                )
            if any(np.any(model.drift(grid.mesh(), t)[i]) for t in times):
                plan.drifting.append(i)
            for t in times:
                if np.any(model.canonical(grid.mesh(), t).A[i]):
                    raise GridError(
                        "D1",
                        f"back-reaction on {axis.name} needs noise on {axis.name}, eq. (6)",
                        "D2 = 0 there",
                        "Give it noise",
                    )
            if "specular" in kinds:
                _check_specular(model, grid, i, times)
    return plan


def _check_specular(model: Model, grid: Grid, i: int, times: tuple[float, ...]) -> None:
    axis = grid.axes[i]
    for t in times:
        for end, place in zip(axis.ends, (axis.lower, axis.upper), strict=True):
            if end.kind != "specular":
                continue
            mesh = grid.mesh()
            mesh[axis.name] = np.full_like(mesh[axis.name][tuple(slice(0, 1) for _ in grid.axes)], place)
            flipped = {**mesh, end.conjugate: -mesh[end.conjugate]}
            v, w = model.drift(mesh, t)[i], model.drift(flipped, t)[i]
            defect = float(np.max(np.abs(v + w)))
            if defect > 1e-10 * (float(np.max(np.abs(v))) or 1.0):
                raise GridError(
                    f"Grid({axis.name}=...)",
                    f"a specular end needs a drift of {axis.name} that is odd in {end.conjugate}",
                    f"v + flipped v = {defect:.3g}",
                    "Use outflow, or another conjugate",
                )


def assemble(model: Model, grid: Grid, t: float, plan: Layout, transport: str) -> tuple[StencilBuilder, Bounds, float]:
    """Build the stencil at time ``t``; returns it with spectral bounds and the largest cell-Peclet number ``h|B|/s``."""
    builder = StencilBuilder(grid, model.dim)
    bounds = Bounds()
    peclet = 0.0
    for side in interfaces(model, grid, t, plan.blocks):
        _add_side(builder, bounds, side)
        peclet = max(peclet, side.peclet)
    _add_local(builder, bounds, model, grid, t)
    for i in plan.drifting:
        if transport == "upwind":
            rate = add_upwind(builder, model, grid, t, i)
            bounds.add(rate, rate)
        elif transport == "linear":
            bounds.frequency += add_linear(builder, model, grid, t, i)
    return builder, bounds, peclet


def _adjoint(m: Array) -> Array:
    return np.conj(np.swapaxes(m, -1, -2))


def _add_side(builder: StencilBuilder, bounds: Bounds, side: Interface) -> None:
    """Gain, loss, ordering Hamiltonian and missing decoherence of one side, with the ends of a single axis treated apart."""
    grid, d = builder.grid, builder.dim
    r, y = side.r[..., None, None], side.y[..., None, None]
    kraus = np.sqrt(r) * (np.eye(d) + side.sign * (side.x + 0.5 * y * np.eye(d)))
    loss = _adjoint(kraus) @ kraus
    skew = side.x - _adjoint(side.x)
    order = -0.25j * (side.sign * 2.0 * r * skew + r * y * skew)
    local = left_right(-0.5 * loss - 1j * order)
    if np.any(side.missing):
        missing = dissipator(side.A, side.A, 0.5 * side.missing)
        local = local + missing
        bounds.add(*half_widths(missing))
    jump = sandwich(kraus)
    axes = [i for i, e in enumerate(side.offset) if e]
    ends = {i: grid.axes[i].ends[1 if side.sign > 0 else 0].kind for i in axes}
    special = {i: kind for i, kind in ends.items() if kind in ("reflecting", "absorbing")}
    escaping = jump
    if special:
        (i,) = axes
        n, index = grid.shape[i], (grid.shape[i] - 1 if side.sign > 0 else 0)

        def end(field: Array) -> Array:
            return np.take(field, [0 if field.shape[i] == 1 else index], axis=i)

        half = dissipator(end(side.A), end(side.A), 0.5 * end(side.inverse))
        resolved = end(side.missing) == 0
        if special[i] == "absorbing":
            scalar = 2.0 * end(side.r)[..., None, None] * np.eye(d * d)
            wall = np.where(resolved[..., None, None], half - scalar, end(local))
            escaping = np.where(resolved[..., None, None], scalar, end(jump))
        else:
            wall, escaping = half, np.zeros_like(half)
        bounds.add(*half_widths(half))
        shape = list(np.broadcast_shapes(local.shape[: grid.ndim], wall.shape[: grid.ndim]))
        shape[i] = n
        local = np.broadcast_to(local, (*shape, d * d, d * d)).copy()
        slab = [slice(None)] * grid.ndim
        slab[i] = slice(index, index + 1)
        local[tuple(slab)] = wall
    builder.matrix(side.offset, jump)
    builder.matrix((0,) * grid.ndim, local)
    if any(kind != "periodic" for kind in ends.values()) and "reflecting" not in special.values():
        builder.escape(side.offset, escaping)
    bounds.rate += float(np.max(np.linalg.norm(loss, ord=2, axis=(-2, -1)))) * (
        2.0 if "absorbing" in special.values() else 1.0
    )
    bounds.drift += 2.0 * float(np.max(side.r * np.linalg.norm(side.x + 0.5 * y * np.eye(d), ord=2, axis=(-2, -1))))
    bounds.frequency += 2.0 * float(np.max(np.linalg.norm(order, ord=2, axis=(-2, -1))))


def _add_local(builder: StencilBuilder, bounds: Bounds, model: Model, grid: Grid, t: float) -> None:
    """Hamiltonian and the decoherence that the jumps do not carry."""
    here = (0,) * grid.ndim
    fields = model.canonical(grid.mesh(), t)
    if np.any(fields.H):
        builder.matrix(here, hamiltonian(fields))
        energies = np.linalg.eigvalsh(fields.H)
        bounds.frequency += float(np.max(energies[..., -1] - energies[..., 0]))
    beyond = excess(fields)
    if np.any(beyond):
        builder.matrix(here, beyond)
        bounds.add(*half_widths(beyond))
