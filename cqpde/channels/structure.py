"""Finding the parts of a model on a grid, or the term that does not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..grid import Grid
from ..model import Canonical, Model
from ..superoperators import excess, hamiltonian
from .commuting import clean, elementwise, grouped, rotations, superoperators, table_size
from .parts import SAME, Kick, Lines, Local, Obstacle, Part, Stream, Structure, depends, drift_parts, fields_at, tidy

Array = np.ndarray

#: Largest table of Fourier multipliers of one part, in complex numbers, before parts are kept apart to keep tables small.
MAX_TABLE = 1 << 25

#: Largest number of entries of the line matrices of one axis.
MAX_LINES = 1 << 27


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
        relax = len(block) == 1 and elementwise(fields, block) and _linear(drifts[block[0]])
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
    groups = grouped(streams, fields, drifts) + ([(Local(),)] if local else []) + grouped(list(kicks), fields, drifts)
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


def _merged(grid: Grid, fields: list[Canonical], blocks: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Join all blocks into one if their operators do not commute but the joint Fourier symbol is exact and affordable."""
    union = tuple(sorted(i for b in blocks for i in b))
    if len(blocks) < 2 or all(rotations(superoperators(f, union)) for f in fields):
        return blocks
    for f in fields:
        if any(depends(f.A[i], union) for i in union) or depends(f.s, union):
            return blocks
    if table_size(grid, superoperators(fields[0], union), union) > MAX_TABLE:
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
        if table_size(grid, together[0], kick.axes) <= MAX_TABLE:
            return [*kicks[:k], replace(kick, local=True), *kicks[k + 1 :]], False
    return kicks, True
