"""Which parts of a model commute, and which components of the state a part couples."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..components import left_right
from ..grid import Grid
from ..model import Canonical
from ..superoperators import excess, hamiltonian, saturated
from .parts import Kick, Lines, Part, Stream, tidy

Array = np.ndarray


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


def elementwise(fields: list[Canonical], axes: tuple[int, ...]) -> bool:
    """Whether all operators of a kick on ``axes`` act on single components or rotate pairs, and so commute."""
    return all(rotations(superoperators(f, axes)) for f in fields)


def table_size(grid: Grid, matrices: list[Array], axes: tuple[int, ...]) -> int:
    """Complex numbers in the Fourier multiplier of a part on ``axes``."""
    shape = np.broadcast_shapes(*[m.shape[:-2] for m in matrices])
    cells = int(np.prod([grid.shape[i] if i in axes else shape[i] for i in range(grid.ndim)]))
    return cells * sum(len(members) ** 2 for members in connected(_pattern(matrices)))


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


def grouped(parts: list[Any], fields: list[Canonical], drifts: Any) -> list[tuple[Part, ...]]:
    """Sort parts into groups that commute, in their order."""
    groups: list[list[Part]] = []
    for part in parts:
        for group in groups:
            if all(_commute(part, other, fields, drifts) for other in group):
                group.append(part)
                break
        else:
            groups.append([part])
    return [tuple(g) for g in groups]
