"""Phase-space grids: uniform cells along any number of named axes, and what happens at their ends.

A cell holds the value of the density matrix at its centre; integrals are sums over cells times the cell volume. In code
the cells of a field come last, ``(d, d, *cells)``, in the order in which the axes were given.
"""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .errors import GridError, did_you_mean
from .options import POSITIVE, STATE, require_integer, takes

Array = np.ndarray

#: What an end of an axis may do. ``specular(p)`` names the coordinate whose sign flips.
BOUNDARIES = ("open", "periodic", "reflecting", "absorbing", "outflow", "specular(<conjugate>)")

#: Names that the result's own dimensions and coordinates use.
RESERVED = ("t", "t_frame", "row", "col", "batch", "face", "bnds", "cell_volume", "rho", "density")

_SPECULAR = re.compile(r"^specular\(\s*(\w+)\s*\)$")


@dataclass(frozen=True)
class Boundary:
    """One end of an axis: its ``kind`` and, for ``specular``, the name of the flipped conjugate coordinate."""

    kind: str
    conjugate: str = ""

    def __str__(self) -> str:
        return f"specular({self.conjugate})" if self.kind == "specular" else self.kind


@dataclass(frozen=True)
class Axis:
    """A uniform axis of ``n`` cells on ``[lower, upper]``."""

    name: str
    lower: float
    upper: float
    n: int
    ends: tuple[Boundary, Boundary]

    @property
    def spacing(self) -> float:
        """Width of a cell."""
        return (self.upper - self.lower) / self.n

    @property
    def centers(self) -> Array:
        """Cell centres, shape (n,)."""
        return self.lower + (np.arange(self.n) + 0.5) * self.spacing

    @property
    def interfaces(self) -> Array:
        """Cell interfaces with both ends, shape (n + 1,)."""
        return self.lower + np.arange(self.n + 1) * self.spacing

    @property
    def periodic(self) -> bool:
        """Whether the axis closes on itself."""
        return self.ends[0].kind == "periodic"

    def inside(self, z: Array) -> Array:
        """Positions kept on the axis: a periodic one wraps, others stop at their ends."""
        return self.lower + np.mod(z - self.lower, self.upper - self.lower) if self.periodic else np.clip(z, self.lower, self.upper)


@dataclass(frozen=True)
class PartOfAxis(Axis):
    """Some cells of an axis from ``first`` on, with the very coordinates that they have in the whole; beyond the ends of a periodic axis is its other end."""

    whole: Axis
    first: int

    @property
    def spacing(self) -> float:
        """Width of a cell."""
        return self.whole.spacing

    @property
    def centers(self) -> Array:
        """Cell centres, shape (n,)."""
        k = self.first + np.arange(self.n)
        return self.whole.lower + ((k % self.whole.n if self.whole.periodic else k) + 0.5) * self.spacing

    def inside(self, z: Array) -> Array:
        """Positions kept on the whole axis if that is periodic, on this part else."""
        return self.whole.inside(z) if self.whole.periodic else super().inside(z)

    @property
    def interfaces(self) -> Array:
        """Cell interfaces with both ends, shape (n + 1,)."""
        return self.whole.lower + (self.first + np.arange(self.n + 1)) * self.spacing


def _boundary(text: Any, where: str) -> Boundary:
    if isinstance(text, str):
        match = _SPECULAR.match(text.strip())
        if match:
            return Boundary("specular", match.group(1))
        if text in ("open", "periodic", "reflecting", "absorbing", "outflow"):
            return Boundary(text)
        if text == "specular":
            raise GridError(
                where, "specular needs the coordinate whose sign flips", "'specular'", "Write 'specular(p)'"
            )
    raise GridError(where, "the boundary must be a known kind", repr(text), did_you_mean(str(text), BOUNDARIES))


def _axis(name: str, spec: Any) -> Axis:
    where = f"Grid({name}=...)"
    if name in RESERVED or keyword.iskeyword(name) or not name.isidentifier():
        raise GridError(
            where, "the name is reserved or is no identifier", repr(name), f"Reserved: {', '.join(RESERVED)}"
        )
    if not isinstance(spec, list | tuple) or len(spec) not in (3, 4):
        raise GridError(where, "an axis is (lower, upper, cells[, boundary])", repr(spec), "Write e.g. q=(-5, 5, 128)")
    lower, upper, n = spec[:3]
    try:
        lower, upper = float(lower), float(upper)
    except (TypeError, ValueError, OverflowError):
        raise GridError(where, "the bounds must be numbers", f"({spec[0]!r}, {spec[1]!r})", "") from None
    if not (np.isfinite(lower) and np.isfinite(upper) and lower < upper):
        raise GridError(where, "bounds must be finite and ascending", f"({lower}, {upper})", "Swap or correct them")
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 5:
        raise GridError(where, "the number of cells must be an integer of at least 5", repr(n), "Use more cells")
    bc = spec[3] if len(spec) == 4 else "open"
    pair = list(bc) if isinstance(bc, list | tuple) else [bc, bc]
    if len(pair) != 2:
        raise GridError(where, "give one boundary or a pair (lower, upper)", repr(bc), "Write ('reflecting', 'open')")
    ends = (_boundary(pair[0], where), _boundary(pair[1], where))
    if (ends[0].kind == "periodic") != (ends[1].kind == "periodic"):
        raise GridError(where, "both ends or none are periodic", repr(bc), "Write 'periodic' once for the axis")
    return Axis(name, lower, upper, int(n), ends)


class Grid:
    """A uniform grid over phase space.

    Parameters
    ----------
    **axes : tuple
        ``name=(lower, upper, cells[, boundary])``, in the order of the array axes. The boundary is one string for both
        ends or a pair ``(lower, upper)``:

        ============== =============== ================================================================================
        boundary       axis            meaning
        ============== =============== ================================================================================
        ``open``       any             the default: nothing should get there; what leaves is counted, and warned about
        ``periodic``   any             the axis closes on itself
        ``reflecting`` with noise      no matrix flux through the end
        ``absorbing``  with noise      rho = 0 at the end; what is absorbed is kept as a d x d matrix
        ``outflow``    without noise   what the drift carries out is absorbed, without a warning
        ``specular(p)`` without noise  what leaves at p comes back at -p
        ============== =============== ================================================================================

    Raises
    ------
    GridError
        If bounds do not ascend, cells are fewer than 5, a name is reserved, or a boundary is unknown. Boundaries that
        have no meaning for the axis of a model are refused by :func:`cqpde.solve`, which knows where the noise is.

    Examples
    --------
    >>> grid = Grid(q=(-5, 5, 128), p=(-7, 7, 64, "periodic"))
    >>> grid.shape
    (128, 64)
    """

    def __init__(self, **axes: Any) -> None:
        if not axes:
            raise GridError("Grid", "at least one axis is needed", "none", "Write e.g. Grid(q=(-5, 5, 128))")
        self.axes: tuple[Axis, ...] = tuple(_axis(name, spec) for name, spec in axes.items())
        for axis in self.axes:
            for end in axis.ends:
                if end.kind == "specular":
                    self._check_specular(axis, end)

    def _check_specular(self, axis: Axis, end: Boundary) -> None:
        where = f"Grid({axis.name}=...)"
        if end.conjugate not in self.names or end.conjugate == axis.name:
            raise GridError(
                where, "specular must name another axis", repr(end.conjugate), did_you_mean(end.conjugate, self.names)
            )
        other = self.axis(end.conjugate)
        if abs(other.lower + other.upper) > 1e-12 * (other.upper - other.lower):
            raise GridError(
                where,
                f"a specular end flips {other.name}, whose axis must be symmetric about 0",
                f"({other.lower}, {other.upper})",
                f"Use {other.name}=(-{max(abs(other.lower), abs(other.upper))}, ...)",
            )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(a.name for a in self.axes)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Cells per axis."""
        return tuple(a.n for a in self.axes)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.axes)

    @cached_property
    def spacings(self) -> Array:
        """Cell widths, shape (ndim,)."""
        return np.array([a.spacing for a in self.axes])

    @property
    def cell_volume(self) -> float:
        """Volume of one cell."""
        return float(np.prod(self.spacings))

    def axis(self, name: str) -> Axis:
        """Return the axis called ``name``."""
        if name not in self.names:
            raise GridError("axis", "the grid has no such axis", repr(name), did_you_mean(name, self.names))
        return self.axes[self.names.index(name)]

    def mesh(self, shift: Any = None) -> dict[str, Array]:
        """Open mesh of coordinates: one array per axis, broadcastable to ``shape``.

        Parameters
        ----------
        shift : sequence of float, optional
            Displacement from the cell centres in cells, per axis; ``0.5`` gives upper interfaces.
        """
        points = [a.centers + (0.0 if shift is None else shift[i] * a.spacing) for i, a in enumerate(self.axes)]
        return dict(zip(self.names, np.ix_(*points), strict=True))

    @takes(factor=POSITIVE)
    def coarsened(self, factor: float = 2.0) -> Grid:
        """Return a grid on the same box with ``1/factor`` of the cells per axis (at least 5)."""
        return self.with_cells(**{a.name: max(5, round(a.n / factor)) for a in self.axes})

    def with_cells(self, **cells: int) -> Grid:
        """Return the same box and boundaries with other numbers of cells."""
        for name in cells:
            self.axis(name)
        return Grid(**{a.name: (a.lower, a.upper, cells.get(a.name, a.n), tuple(map(str, a.ends))) for a in self.axes})

    def slab(self, axis: int, first: int, count: int) -> Grid:
        """Return ``count`` cells of one axis from ``first`` on, the other axes whole; what its ends are has no meaning."""
        whole = self.axes[axis]
        lower, upper = (whole.lower + k * whole.spacing for k in (first, first + count))
        part = PartOfAxis(whole.name, lower, upper, count, whole.ends, whole, first)
        out = Grid.__new__(Grid)
        out.axes = (*self.axes[:axis], part, *self.axes[axis + 1 :])
        return out

    @staticmethod
    def suggest(model: Any, rho0: Any, t: float, trajectories: int | None = None) -> Grid:
        """Propose bounds and cells for a model from the moments of rough classical paths, or from a few trajectories.

        Parameters
        ----------
        model : Model
        rho0 : State or dict
            A state on a provisional grid, or ``{"mean": {...}, "std": {...}}`` (or ``"cov"``).
        t : float
            End of the run, which starts at 0.
        trajectories : int, optional
            Take the bounds from so many trajectories of :func:`cqpde.unravel` (some hundred do) in place of rough paths, in which every
            eigenstate of the forces goes its own way for ever: closer, where superpositions decohere slowly or levels mix. Needs a State.

        Returns
        -------
        Grid
            Open axes that hold every force branch within 6 standard deviations at all times, with 4 cells per smallest standard
            deviation and a coherence phase of at most 0.7 rad per cell. A proposal: the run still reports what escapes.
        """
        from .suggest import suggest, suggest_from_paths

        if trajectories is None:
            return suggest(model, rho0, t)
        require_integer("trajectories", trajectories, 20, 1_000_001)
        STATE("rho0", rho0)
        return suggest_from_paths(model, rho0, t, trajectories)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self.axes == other.axes

    def __hash__(self) -> int:
        return hash(self.axes)

    def __repr__(self) -> str:
        rows = [
            f"{a.name}=({a.lower:g}, {a.upper:g}, {a.n}, {' '.join(dict.fromkeys(map(str, a.ends)))!r})"
            for a in self.axes
        ]
        return f"Grid({', '.join(rows)})"
