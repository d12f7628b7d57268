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

import numpy as np

from ..errors import GridError, ModelError, OptionError
from ..grid import Grid
from ..model import Canonical, Model

Array = np.ndarray

#: Values that differ by less than this, relative to the largest, do not count as a dependence.
SAME = 1e-13


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

    def moved(self) -> set[int]:
        """Axes along which some part moves the state."""
        return {i for part in self.parts for i in (part.axes if isinstance(part, Kick) else () if isinstance(part, Local) else (part.axis,))}

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


def depends(array: Array, axes: tuple[int, ...]) -> bool:
    """Whether an array changes along one of the axes."""
    return any(array.shape[i] > 1 for i in axes)
