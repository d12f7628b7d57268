r"""What a model is made of: the sub-flows of the split route, found by evaluating its coefficients on the cells.

The generator is a sum of parts that can each be solved exactly when their coefficients do not depend on the coordinates that the part
moves (other coordinates, and t, may enter as they like):

===================  =============================================================================================================
part                 generator
===================  =============================================================================================================
:class:`Kick`        :math:`\tfrac12 s_{ij}\partial_i\partial_j\rho - \partial_i(g_i\rho + A_i\rho + \rho A_i^\dagger) + s^+_{ij}(A_i\rho A_j^\dagger - \tfrac12\{A_j^\dagger A_i, \rho\})`
                     over a block of noisy axes; with ``local`` also H and the excess decoherence; with ``relax`` also
                     :math:`\partial(\gamma(z - c)\rho)`, the Ornstein-Uhlenbeck flow in one go
:class:`Stream`      :math:`-\partial_i(g_i\rho)`, a shift; with ``relax`` the affine flow :math:`\dot z = g - \gamma(z - c)`
:class:`Lines`       :math:`-\partial_i(r_i\rho)` with r depending on its own coordinate
:class:`Local`       :math:`-i[H, \rho]` and the excess decoherence
===================  =============================================================================================================

Parts that commute stand in one group. Dependence on a coordinate is judged from values: for SymPy expressions and constants these are
exact, callables are probed on the cells of the grid (``Structure.probed``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..components import left_right
from ..errors import GridError, ModelError, OptionError
from ..grid import Grid
from ..model import Canonical, Model
from ..superoperators import excess, hamiltonian, saturated

Array = np.ndarray

#: Values that differ by less than this, relative to the largest, do not count as a dependence.
SAME = 1e-13

#: Largest table of Fourier multipliers of one part, in complex numbers, before parts are kept apart to keep tables small.
MAX_TABLE = 1 << 25

#: Largest number of entries of the line matrices of one axis.
MAX_LINES = 1 << 27


@dataclass(frozen=True)
class Kick:
    """Noise, back-reaction and the decoherence it forces, on a block of axes."""

    axes: tuple[int, ...]
    local: bool = False
    relax: bool = False


@dataclass(frozen=True)
class Stream:
    """Drift along a noise-free axis that does not depend on its own coordinate, or affinely so (``relax``)."""

    axis: int
    relax: bool = False


@dataclass(frozen=True)
class Lines:
    """Drift that depends on its own coordinate; ``remainder``: only what is left after the part at the axis' centre."""

    axis: int
    remainder: bool


@dataclass(frozen=True)
class Local:
    """Hamiltonian and excess decoherence."""


Part = Kick | Stream | Lines | Local


@dataclass(frozen=True)
class Obstacle:
    """Why a model cannot go this way: the term, the rule, and what was found."""

    argument: str
    rule: str
    found: str

    def error(self, remedy: str) -> Exception:
        """The refusal of a route that was asked for by name."""
        kind = (
            GridError if self.argument.startswith("Grid") else OptionError if "=" in self.argument else ModelError
        )
        return kind(self.argument, self.rule, self.found, remedy)

    def __str__(self) -> str:
        return f"{self.argument}: {self.rule} (found {self.found})"


@dataclass(frozen=True)
class Structure:
    """Groups of commuting parts, outermost first.

    Attributes
    ----------
    groups : tuple of tuple of Part
    basis : array (d, d) or None
        Constant unitary whose columns diagonalise every A_i; the state is turned into it for the run.
    probed : bool
        Whether user callables were judged from their values on the cells.
    walls : tuple of str
        Noise-free axes with drift that end in ``outflow`` or ``specular``.
    """

    groups: tuple[tuple[Part, ...], ...]
    basis: Array | None
    probed: bool
    walls: tuple[str, ...]

    @property
    def parts(self) -> list[Part]:
        """All parts."""
        return [part for group in self.groups for part in group]

    def describe(self, grid: Grid) -> str:
        """The parts in words."""
        words = []
        for part in self.parts:
            if isinstance(part, Kick):
                extra = " with H and excess" if part.local else ""
                extra += " and relaxation" if part.relax else ""
                words.append(f"kick {' '.join(grid.names[i] for i in part.axes)}{extra}")
            elif isinstance(part, Local):
                words.append("local")
            else:
                words.append(f"{'stream' if isinstance(part, Stream) else 'drift of its own coordinate'} {grid.names[part.axis]}")
        return ", ".join(words)


def tidy(array: Array, n: int) -> Array:
    """Reduce the first ``n`` axes along which an array does not change (beyond round-off) to size 1."""
    scale = SAME * float(np.max(np.abs(array), initial=0.0))
    for axis in range(n):
        if array.shape[axis] > 1:
            first = array.take([0], axis=axis)
            if np.all(np.abs(array - first) <= scale):
                array = first
    return array


def fields_at(model: Model, mesh: dict[str, Array], t: float, basis: Array | None) -> Canonical:
    """The canonical fields, tidied, in the given basis."""
    n = len(mesh)
    f = model.canonical(mesh, t)
    turn = (lambda m: m) if basis is None else (lambda m: basis.conj().T @ m @ basis)
    return replace(
        f,
        v=[tidy(v, n) for v in f.v],
        A=[tidy(turn(a), n) for a in f.A],
        s=tidy(f.s, n),
        H=tidy(turn(f.H), n),
        M=tidy(turn(f.M), n),
        D0=tidy(f.D0, n),
        excess=None if f.excess is None else tidy(f.excess, n),
    )


def centre(grid: Grid, i: int) -> float:
    """The point of an axis about which its drift is split."""
    return 0.5 * (grid.axes[i].lower + grid.axes[i].upper)


def drift_parts(model: Model, grid: Grid, t: float, i: int) -> tuple[Array, Array, Array | None]:
    """``v_i = g_i + r_i``: the part at the axis' centre, the remainder, and the rate of the remainder if it is ``-gamma (z - c)``."""
    mesh, n, c = grid.mesh(), grid.ndim, centre(grid, i)
    v = tidy(model.drift(mesh, t)[i], n)
    if v.shape[i] == 1:
        return v, np.zeros((1,) * n), None
    at_centre = {**mesh, grid.names[i]: np.full((1,) * n, c)}
    g = tidy(model.drift(at_centre, t)[i], n)
    if not np.all(np.isfinite(g)):
        return np.zeros((1,) * n), v, None  # singular at the centre: nothing to take out there
    r = tidy(v - g, n)
    offset = mesh[grid.names[i]] - c
    far = int(np.argmax(np.abs(offset)))
    gamma = tidy(-r.take([far], axis=i) / offset.reshape(-1)[far], n)
    linear = bool(np.max(np.abs(r + gamma * offset)) <= 1e-12 * np.max(np.abs(v)))
    return g, r, gamma if linear else None


def analyse(model: Model, grid: Grid, times: tuple[float, ...]) -> Structure | Obstacle:
    """Find the parts of a model on a grid, or the term that does not fit.

    Parameters
    ----------
    times : tuple of float
        Times at which the coefficients are looked at.
    """
    n = grid.ndim
    raw = [fields_at(model, grid.mesh(), t, None) for t in times]
    noisy = [any(np.any(f.s[..., i, i]) for f in raw) for i in range(n)]
    blocks = _blocks(raw, noisy, n)
    obstacle = _ends(grid, noisy) or _coefficients(grid, raw, blocks, noisy)
    if obstacle is not None:
        return obstacle
    basis = _common_basis([a for f in raw for a in f.A], model.dim)
    fields = raw if basis is None else [fields_at(model, grid.mesh(), t, basis) for t in times]
    blocks = _merged(grid, fields, blocks)
    drifts = [[drift_parts(model, grid, t, i) for t in times] for i in range(n)]
    kicks, lines = [], []
    for block in blocks:
        relax = len(block) == 1 and _elementwise(fields, block) and _linear(drifts[block[0]])
        kicks.append(Kick(block, relax=relax))
        lines += [Lines(i, remainder=True) for i in block if not relax and any(np.any(r) for _, r, _ in drifts[i])]
    kicks, local = _with_local(grid, fields, kicks, model.dim)
    streams: list[Part] = list(lines)
    for i in range(n):
        if noisy[i] or not any(np.any(g) or np.any(r) for g, r, _ in drifts[i]):
            continue
        if all(not np.any(r) for _, r, _ in drifts[i]) or _linear(drifts[i]):
            streams.append(Stream(i, relax=any(np.any(r) for _, r, _ in drifts[i])))
        else:
            streams.append(Lines(i, remainder=False))
    for kick in kicks:
        # a drift that depends on the other coordinates of its own block is no part of the kick
        streams += [Stream(i) for i in kick.axes if any(depends(g, kick.axes) for g, _, _ in drifts[i])]
    obstacle = _too_many_lines(grid, streams, drifts)
    if obstacle is not None:
        return obstacle
    groups = _grouped(streams, fields, drifts) + ([(Local(),)] if local else []) + _grouped(list(kicks), fields, drifts)
    walls = tuple(
        grid.names[i]
        for i in {p.axis for p in streams if isinstance(p, Stream | Lines)}
        if {e.kind for e in grid.axes[i].ends} & {"outflow", "specular"}
    )
    return Structure(tuple(groups), basis, any(c.callable for c in model.coefficients.values()), walls)


def _too_many_lines(grid: Grid, parts: list[Part], drifts: list[list[tuple[Array, Array, Array | None]]]) -> Obstacle | None:
    for part in parts:
        if isinstance(part, Lines):
            n = grid.axes[part.axis].n
            for g, r, _ in drifts[part.axis]:
                varies = r if part.remainder else np.broadcast_arrays(g, r)[1]
                entries = varies.size // varies.shape[part.axis] * n * n
                if entries > MAX_LINES:
                    return Obstacle(
                        f"D1C ({grid.names[part.axis]})",
                        f"a drift of its own coordinate needs one {n} x {n} matrix per line, at most {MAX_LINES} entries in all",
                        f"{entries} entries",
                    )
    return None


def depends(array: Array, axes: tuple[int, ...]) -> bool:
    """Whether an array changes along one of the axes."""
    return any(array.shape[i] > 1 for i in axes)


def _linear(parts: list[tuple[Array, Array, Array | None]]) -> bool:
    return any(np.any(r) for _, r, _ in parts) and all(gamma is not None or not np.any(r) for _, r, gamma in parts)


def _blocks(fields: list[Canonical], noisy: list[bool], n: int) -> list[tuple[int, ...]]:
    """Noisy axes, joined where their noise is correlated."""
    blocks = [{i} for i in range(n) if noisy[i]]
    for i in range(n):
        for j in range(i):
            if any(np.any(f.s[..., i, j]) for f in fields):
                joined = next(b for b in blocks if i in b) | next(b for b in blocks if j in b)
                blocks = [b for b in blocks if not b & joined] + [joined]
    return sorted(tuple(sorted(b)) for b in blocks)


def _ends(grid: Grid, noisy: list[bool]) -> Obstacle | None:
    for i, axis in enumerate(grid.axes):
        wrong = {e.kind for e in axis.ends} - {"open", "periodic"}
        if noisy[i] and wrong:
            return Obstacle(f"Grid({axis.name}=...)", "a noisy axis of the split route is open or periodic", repr(wrong.pop()))
    return None


def _coefficients(grid: Grid, fields: list[Canonical], blocks: list[tuple[int, ...]], noisy: list[bool]) -> Obstacle | None:
    for f in fields:
        for i in range(grid.ndim):
            if not noisy[i] and np.any(f.A[i]):
                return Obstacle(f"D1 (row {grid.names[i]})", "back-reaction needs noise on its axis, eq. (6)", "D2 = 0 there")
        for block in blocks:
            names = " ".join(grid.names[i] for i in block)
            s = tidy(f.s[..., np.array(block)[:, None], np.array(block)[None, :]], grid.ndim)
            if depends(s, block):
                return Obstacle("D2", f"noise along {names} must not depend on {names} in the split route", "it does")
            for i in block:
                if depends(f.A[i], block):
                    return Obstacle(
                        f"D1 (row {grid.names[i]})",
                        f"back-reaction along {names} must not depend on {names} in the split route",
                        "it does",
                    )
    return None


def _common_basis(operators: list[Array], d: int) -> Array | None:
    """A constant unitary that diagonalises every operator on every cell, if they are not diagonal already and one exists."""
    stacks = [a.reshape(-1, d, d) for a in operators if np.any(a)]
    off = ~np.eye(d, dtype=bool)
    if not stacks or all(not np.any(np.abs(a[:, off]) > SAME * np.max(np.abs(a))) for a in stacks):
        return None
    every = np.concatenate(stacks)
    rng = np.random.default_rng(0)
    w = rng.normal(size=(2, len(every)))
    mixed = np.einsum("k,kij->ij", w[0] - 1j * w[1], every)
    _, basis = np.linalg.eigh(mixed + mixed.conj().T)
    turned = basis.conj().T @ every @ basis
    return basis if np.max(np.abs(turned[:, off])) < 1e-12 * np.max(np.abs(every)) else None


def superoperators(f: Canonical, axes: tuple[int, ...]) -> list[Array]:
    """The matrices that a kick on ``axes`` exponentiates together."""
    return [clean(saturated(f, axes)), *[clean(left_right(f.A[i])) for i in axes if np.any(f.A[i])]]


def clean(matrices: Array) -> Array:
    """Set what is left of exact cancellation, 1e-15 of the largest entry, to zero: it would couple components that are not."""
    return np.where(np.abs(matrices) > 1e-15 * np.max(np.abs(matrices), initial=0.0), matrices, 0.0)


def _pattern(matrices: list[Array]) -> Array:
    c = matrices[0].shape[-1]
    return np.any([np.any(m.reshape(-1, c, c) != 0, axis=0) for m in matrices], axis=0)


def connected(pattern: Array) -> list[list[int]]:
    """Sets of components that a pattern of couplings connects."""
    c = pattern.shape[0]
    linked = pattern | pattern.T
    left, out = set(range(c)), []
    while left:
        members, todo = set(), [min(left)]
        while todo:
            r = todo.pop()
            if r not in members:
                members.add(r)
                todo += np.flatnonzero(linked[r]).tolist()
        out.append(sorted(members))
        left -= members
    return out


def rotations(matrices: list[Array]) -> bool:
    """Whether all matrices act on single components and on pairs as ``[[a, -b], [b, a]]``, so that they commute."""
    for members in connected(_pattern(matrices)):
        if len(members) > 2:
            return False
        if len(members) == 2:
            p, q = members
            for m in matrices:
                scale = 1e-12 * float(np.max(np.abs(m)))
                if np.max(np.abs(m[..., p, p] - m[..., q, q])) > scale or np.max(np.abs(m[..., p, q] + m[..., q, p])) > scale:
                    return False
    return True


def _elementwise(fields: list[Canonical], axes: tuple[int, ...]) -> bool:
    return all(rotations(superoperators(f, axes)) for f in fields)


def _table_size(grid: Grid, matrices: list[Array], axes: tuple[int, ...]) -> int:
    shape = np.broadcast_shapes(*[m.shape[:-2] for m in matrices])
    cells = int(np.prod([grid.shape[i] if i in axes else shape[i] for i in range(grid.ndim)]))
    return cells * sum(len(members) ** 2 for members in connected(_pattern(matrices)))


def _merged(grid: Grid, fields: list[Canonical], blocks: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Join all blocks into one if their operators do not commute but the joint Fourier symbol is exact and affordable."""
    union = tuple(sorted(i for b in blocks for i in b))
    if len(blocks) < 2 or all(rotations(superoperators(f, union)) for f in fields):
        return blocks
    for f in fields:
        if any(depends(f.A[i], union) for i in union) or depends(f.s, union):
            return blocks
    if _table_size(grid, superoperators(fields[0], union), union) > MAX_TABLE:
        return blocks
    return [union]


def _with_local(grid: Grid, fields: list[Canonical], kicks: list[Kick], d: int) -> tuple[list[Kick], bool]:
    """Let one kick carry H and the excess where they do not depend on its axes; returns whether they are left over."""
    local = [clean(hamiltonian(f) + excess(f)) for f in fields]
    if not any(np.any(m) for m in local):
        return kicks, False
    for k, kick in enumerate(kicks):
        if any(depends(m, kick.axes) for m in local):
            continue
        together = [[m, *superoperators(f, kick.axes)] for m, f in zip(local, fields, strict=True)]
        if kick.relax and not all(rotations(m) for m in together):
            continue
        if _table_size(grid, together[0], kick.axes) <= MAX_TABLE:
            return [*kicks[:k], replace(kick, local=True), *kicks[k + 1 :]], False
    return kicks, True


def _reads(part: Part, fields: list[Canonical], drifts: Any) -> set[int]:
    """Axes on which the coefficients of a part depend."""
    n = len(drifts)
    arrays: list[Array] = []
    for k, f in enumerate(fields):
        if isinstance(part, Kick):
            arrays += [m for m in superoperators(f, part.axes)] + [f.s[..., i, :] for i in part.axes]
            arrays += [drifts[i][k][0] for i in part.axes]
            if part.local:
                arrays += [hamiltonian(f), excess(f)]
        elif isinstance(part, Stream | Lines):
            g, r, gamma = drifts[part.axis][k]
            arrays += [r] if isinstance(part, Lines) and part.remainder else [g, r if gamma is None else gamma]
    return {i for i in range(n) for a in arrays if tidy(a, n).shape[i] > 1}


def _moves(part: Part) -> set[int]:
    return set(part.axes) if isinstance(part, Kick) else {part.axis} if isinstance(part, Stream | Lines) else set()


def _commute(a: Part, b: Part, fields: list[Canonical], drifts: Any) -> bool:
    if _moves(a) & _reads(b, fields, drifts) or _moves(b) & _reads(a, fields, drifts) or _moves(a) & _moves(b):
        return False
    kicks = [p for p in (a, b) if isinstance(p, Kick)]
    if len(kicks) < 2:
        return True
    axes = kicks[0].axes + kicks[1].axes
    together = [superoperators(f, axes) + ([clean(hamiltonian(f)), clean(excess(f))] if kicks[0].local or kicks[1].local else []) for f in fields]
    return all(rotations(m) for m in together)


def _grouped(parts: list[Any], fields: list[Canonical], drifts: Any) -> list[tuple[Part, ...]]:
    groups: list[list[Part]] = []
    for part in parts:
        for group in groups:
            if all(_commute(part, other, fields, drifts) for other in group):
                group.append(part)
                break
        else:
            groups.append([part])
    return [tuple(g) for g in groups]
