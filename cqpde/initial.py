"""Initial hybrid states: what rho(z, 0) is on a grid, and how it was made, so that other grids can have it too.

Densities are sampled at cell centres and normalised to total probability one on the grid; the factor is kept in
``State.normalisation`` (it differs from one by what the box cuts off and by what the cells do not resolve).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from .coefficients import Coefficient, Point, Sampled
from .components import min_eigenvalues, to_components
from .errors import CqpdeError, StateError, did_you_mean
from .grid import Grid
from .memory import require_room
from .options import GRID, NUMBER, is_number, numbers, require_flag, takes
from .sampling import Sampler, StateAt, density_sampler, gaussian_sampler, state_at

Array = np.ndarray


#: States of more values than this keep no second copy of themselves; functions are evaluated for so many at once.
LARGE = 1 << 20


@dataclass(frozen=True, init=False)
class State:
    """A hybrid state on a grid.

    Attributes
    ----------
    grid : Grid
    rho : array, shape (d, d, *cells)
        Density matrix per unit phase-space volume at the cell centres. It may be given as a function of a part of the grid (:meth:`Grid.slab`): a large
        state is made where it is needed, by every process of a shared run its own cells.
    held : array or callable
        ``rho`` as it was given.
    recipe : callable or None
        ``recipe(grid)`` samples the same state on another grid; None for arrays.
    normalisation : float
        Factor by which the sampled density was multiplied.
    note : str
        How it was made, for the record.
    sampler : callable or None
        ``sampler(rng, count)`` draws points and quantum states from the state itself (see :mod:`cqpde.sampling`); None for arrays.
    slack : float
        How negative an eigenvalue may be, relative to the largest trace.
    made : dict or None
        The numbers of a Gaussian with a constant quantum state, as plain data: it can be made again from them, to the last bit.
    checked : set of int
        Numbers of levels for which it has passed :func:`check_state`.
    resolved : dict
        The state on the cells that carry it, by what these may leave out (see ``channels.resolution``).
    """

    grid: Grid
    held: Array | Callable[[Grid], Array] = field(repr=False)
    recipe: Callable[[Grid], State] | None
    normalisation: float
    note: str
    sampler: Sampler | None
    slack: float
    made: dict[str, Any] | None = field(repr=False, compare=False)
    checked: set[int] = field(repr=False, compare=False)
    resolved: dict[float, Any] = field(repr=False, compare=False)

    def __init__(
        self, grid: Grid, rho: Array | Callable[[Grid], Array], recipe: Callable[[Grid], State] | None = None, normalisation: float = 1.0, note: str = "",
        sampler: Sampler | None = None, slack: float = 1e-10, made: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        if isinstance(rho, np.ndarray):
            rho.setflags(write=False)  # a state that was checked stays what it was
        vars(self).update(
            grid=grid, held=rho, recipe=recipe, normalisation=normalisation, note=note, sampler=sampler, slack=slack, made=made, checked=set(), resolved={}
        )

    @cached_property
    def rho(self) -> Array:
        """Density matrix per unit phase-space volume, (d, d, *cells)."""
        if isinstance(self.held, np.ndarray):
            return self.held
        rho = self.array()
        rho.setflags(write=False)
        return rho

    def array(self) -> Array:
        """The same as an array of its own, which the state does not keep."""
        require_room("Grid", "an initial state as one array", self.nbytes, "Take it in parts, State.part", most=1.0)
        rho = np.empty((self.dim, self.dim, *self.grid.shape), dtype=complex)
        for first, part in self.parts():
            rho[:, :, first : first + part.shape[2]] = part
        return rho

    @cached_property
    def dim(self) -> int:
        """Number of quantum levels."""
        return int(self.part(0, 0, 1).shape[0])

    @property
    def nbytes(self) -> float:
        """Bytes of rho."""
        return 16.0 * self.dim**2 * float(np.prod(self.grid.shape))

    @property
    def bytes_held(self) -> float:
        """Bytes that it takes as it is."""
        return self.nbytes if isinstance(self.held, np.ndarray) or "rho" in vars(self) else 0.0

    def part(self, axis: int, first: int, count: int) -> Array:
        """``rho`` on ``count`` cells of one axis from ``first`` on, the other axes whole."""
        if isinstance(self.held, np.ndarray):
            return self.held[(slice(None),) * (2 + axis) + (slice(first, first + count),)]
        return self.held(self.grid.slab(axis, first, count))

    def parts(self) -> Iterator[tuple[int, Array]]:
        """``rho`` in parts along the first axis, each with its first cell there: one part, unless it is large."""
        for first, count in _pieces(self.grid, self.dim):
            yield first, self.part(0, first, count)

    @property
    def components(self) -> Array:
        """The d^2 real components of rho (see ``cqpde.components``); kept, unless they are large."""
        if self.nbytes > 16 * LARGE:
            x = np.empty((self.dim**2, *self.grid.shape))
            for first, part in self.parts():
                x[:, first : first + part.shape[2]] = to_components(part)
            return x
        return self._components

    @cached_property
    def _components(self) -> Array:
        return to_components(self.rho)

    @property
    def density(self) -> Array:
        """Classical density Tr rho, shape cells."""
        return np.concatenate([np.real(np.einsum("aa...->...", part)) for _, part in self.parts()])

    def moments(self) -> tuple[Array, Array]:
        """Mean (n,) and covariance (n, n) of the classical coordinates."""
        density, n = self.density, self.grid.ndim
        z = [a.centers for a in self.grid.axes]
        total = float(density.sum())
        over = lambda *axes: density.sum(axis=tuple(k for k in range(n) if k not in axes)) / total
        mean = np.array([z[i] @ over(i) for i in range(n)])
        cov = np.diag([(z[i] - mean[i]) ** 2 @ over(i) for i in range(n)])
        for i in range(n):
            for j in range(i + 1, n):
                cov[i, j] = cov[j, i] = (z[i] - mean[i]) @ over(i, j) @ (z[j] - mean[j])
        return mean, cov

    def __getstate__(self) -> dict[str, Any]:
        """As it goes to other processes: without what can be made again."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"resolved": {}}

    def on(self, grid: Grid) -> State:
        """Sample the same state on another grid over the same coordinates."""
        if self.recipe is None:
            raise StateError(
                "rho0",
                "a state given as an array has no other grid",
                "no recipe",
                "Make it with gaussian, product, ...",
            )
        return self.recipe(grid)


def _pieces(grid: Grid, levels: int) -> Iterator[tuple[int, int]]:
    """First cell and number of cells of parts along the first axis that have few values."""
    count = max(1, int(LARGE * grid.shape[0] / (levels**2 * math.prod(grid.shape))))
    for first in range(0, grid.shape[0], count):
        yield first, min(count, grid.shape[0] - first)


def density_matrix(state: Any, where: str = "state") -> Array:
    """Read a ket (d,) or a density matrix (d, d), also as a QuTiP object; checks that it is a state.

    Raises
    ------
    StateError
        If it is not Hermitian, not positive semi-definite, or not of trace (norm) one.
    """
    if hasattr(state, "full"):
        state = state.full()
        if 1 in state.shape:
            state = state.reshape(-1)
    try:
        array = np.asarray(state, dtype=complex)
    except (TypeError, ValueError, OverflowError):
        raise StateError(
            where, "must be a ket or a density matrix", type(state).__name__, "Write e.g. cqpde.ket('+')"
        ) from None
    if array.ndim == 1:
        norm = float(np.linalg.norm(array))
        if not np.isfinite(norm) or abs(norm - 1) > 1e-9:
            raise StateError(where, "a ket must have norm 1", f"{norm:.6g}", "Divide it by its norm")
        return np.outer(array, array.conj())
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise StateError(where, "must be a ket (d,) or a density matrix (d, d)", f"shape {array.shape}", "")
    if not np.all(np.isfinite(array)) or np.max(np.abs(array - array.conj().T)) > 1e-10:
        raise StateError(where, "a density matrix must be finite and Hermitian", "it is not", "Check its elements")
    if abs(np.trace(array).real - 1) > 1e-9:
        raise StateError(
            where, "a density matrix must have trace 1", f"{np.trace(array).real:.6g}", "Divide it by its trace"
        )
    smallest = float(np.linalg.eigvalsh(array)[0])
    if smallest < -1e-10:
        raise StateError(
            where, "a density matrix must be positive semi-definite", f"eigenvalue {smallest:.3g}", "Check its elements"
        )
    return array


def _state_coefficient(grid: Grid, state: Any) -> Coefficient | None:
    """A callable quantum state as a coefficient of kets (d,) or matrices (d, d); None for a constant one."""
    if not callable(state) or hasattr(state, "full"):
        return None
    try:
        probe = state(Point(grid.mesh()))
        d = len(probe)
    except CqpdeError:
        raise
    except Exception as error:  # whatever a user's function does
        raise StateError("state", "a callable of z returns the elements of a ket or a matrix", f"{type(error).__name__}: {error}", "Correct it") from error
    if d == 0:
        raise StateError("state", "a callable of z returns the elements of a ket or a matrix", "none", "Correct it")
    return Coefficient("state", (d, d) if _is_matrix(probe, grid.ndim) else (d,), grid.names, state)


def _state_at(grid: Grid, state: Any) -> StateAt:
    entries = _state_coefficient(grid, state)
    return state_at(grid, entries, None if entries is not None else density_matrix(state))


def _state_field(grid: Grid, state: Any) -> Array:
    """Quantum states on the grid, shape (d, d, *cells): constant, or a callable of z."""
    entries = _state_coefficient(grid, state)
    if entries is not None:
        values = entries.entries(grid.mesh(), 0.0)
        full = np.stack([np.broadcast_to(v, grid.shape) for v in values.reshape(-1)]).reshape(
            *values.shape, *grid.shape
        )
        if full.ndim == grid.ndim + 1:
            norm = np.sqrt(np.sum(np.abs(full) ** 2, axis=0))
            if not np.all(np.abs(norm - 1) < 1e-9):
                raise StateError(
                    "state",
                    "kets must have norm 1 on every cell",
                    f"{float(norm.flat[np.argmax(np.abs(norm - 1))]):.6g}",
                    "Divide by the norm",
                )
            return np.einsum("a...,b...->ab...", full, full.conj())
        trace = np.real(np.einsum("aa...->...", full))
        if not np.all(np.abs(trace - 1) < 1e-9):
            raise StateError(
                "state",
                "density matrices must have trace 1 on every cell",
                f"{float(trace.flat[np.argmax(np.abs(trace - 1))]):.6g}",
                "Divide by the trace",
            )
        return full
    constant = density_matrix(state)
    return constant.reshape(*constant.shape, *[1] * grid.ndim)


def _is_matrix(value: Any, n: int) -> bool:
    """Whether a callable's answer is a matrix of entries rather than a ket of entries."""
    if isinstance(value, np.ndarray):
        return value.ndim == n + 2 or (value.ndim == 2 and value.dtype == object)
    return isinstance(value, list | tuple) and isinstance(value[0], list | tuple)


@takes(grid=GRID)
def product(grid: Grid, density: Any, state: Any, *, note: str = "") -> State:
    r"""Density times quantum state: :math:`\rho(z, 0) = f(z)\,\varrho(z)`.

    Parameters
    ----------
    grid : Grid
    density : callable f(z), SymPy expression, or array (*cells)
        Non-negative; normalised on the grid.
    state : ket (d,), density matrix (d, d), QuTiP object, or callable of z
        A callable makes a correlated state: it returns the elements of a ket or of a density matrix as arrays over the cells
        (``lambda z: [np.cos(z.q), np.sin(z.q)]``), of norm or trace one on every cell.

    Returns
    -------
    State

    Raises
    ------
    StateError
        If the density is negative or not finite somewhere, or the state is not one.
    """
    if isinstance(density, np.ndarray) and density.shape != grid.shape:
        raise StateError("density", f"an array must have the grid's cells {grid.shape}", density.shape, "Or give a callable of z")
    if not isinstance(density, np.ndarray) and not callable(density) and not hasattr(density, "free_symbols") and not is_number(density):
        raise StateError("density", "must be a callable of z, a SymPy expression or an array over the cells", repr(density), "Write e.g. lambda z: ...")
    coefficient = Coefficient(
        "density", (), grid.names, Sampled(grid, np.asarray(density)) if isinstance(density, np.ndarray) else density
    )
    entries = _state_coefficient(grid, state)
    levels = density_matrix(state).shape[0] if entries is None else entries.shape[0]
    require_room("Grid", "an initial state", 8.0 * levels**2 * float(np.prod(grid.shape)), "Use fewer cells", most=1.0)
    on = lambda part: np.broadcast_to(coefficient.entries(part.mesh(), 0.0)[()].real, part.shape)
    total = 0.0
    for first, count in _pieces(grid, levels):
        values = on(grid if count == grid.shape[0] else grid.slab(0, first, count))
        if not np.all(np.isfinite(values)) or values.min() < 0:
            raise StateError(
                "density",
                "must be finite and non-negative on every cell",
                f"minimum {values.min():.3g}",
                "Check the function",
            )
        total += float(values.sum()) * grid.cell_volume
    if total <= 0 or not np.isfinite(total):
        raise StateError(
            "density", "must have weight on the grid", f"total {total:.3g}", "Move or widen the box, or use more cells"
        )
    rho = lambda part: np.ascontiguousarray(on(part) / total * _state_field(part, state))
    whole = isinstance(density, np.ndarray) or count == grid.shape[0]
    recipe = None if isinstance(density, np.ndarray) else (lambda other: product(other, density, state, note=note))
    sampler = None if isinstance(density, np.ndarray) else density_sampler(grid, coefficient, _state_at(grid, state))
    return State(grid, rho(grid) if whole else rho, recipe, 1.0 / total, note or "product", sampler)


def correlated(grid: Grid, density: Any, state: Callable[[Point], Any]) -> State:
    """Density times a quantum state that depends on z: :func:`product` with a callable state."""
    if not callable(state):
        raise StateError(
            "state",
            "a correlated state is a callable of z",
            type(state).__name__,
            "Use cqpde.product for a constant one",
        )
    return product(grid, density, state, note="correlated")


def _vector(grid: Grid, value: Any, name: str, default: float | None = None) -> Array:
    if isinstance(value, Mapping):
        for key in value:
            if key not in grid.names:
                raise StateError(name, "keys must be axes of the grid", repr(key), did_you_mean(str(key), grid.names))
        missing = [k for k in grid.names if k not in value]
        if missing and default is None:
            raise StateError(
                name, "needs a value for every axis", f"none for {missing[0]}", f"Axes: {', '.join(grid.names)}"
            )
        value = [value.get(k, default) for k in grid.names]
    try:
        array = np.asarray(value, dtype=float)
        if array.ndim == 0:
            array = np.full(grid.ndim, float(array))
    except (TypeError, ValueError, OverflowError):
        raise StateError(name, "must be numbers per axis", repr(value), "Write {'q': 0.0, ...}") from None
    if array.shape != (grid.ndim,) or not np.all(np.isfinite(array)):
        raise StateError(
            name, f"must be {grid.ndim} finite numbers, one per axis", repr(value), "Write {'q': 0.0, ...}"
        )
    return array


@takes(grid=GRID)
def gaussian(grid: Grid, mean: Any = 0.0, std: Any = None, state: Any = None, *, cov: Any = None) -> State:
    r"""A Gaussian in phase space times a quantum state.

    .. math:: \rho(z, 0) = \mathcal N(z; \mu, V)\,\varrho(z)

    Parameters
    ----------
    grid : Grid
    mean : dict, sequence or number
        Mean per axis; axes missing from a dict are at 0.
    std : dict, sequence or number
        Standard deviation per axis (diagonal covariance). Give this or ``cov``.
    state : ket, density matrix or callable of z
    cov : array (n, n)
        Full covariance in the order of the axes.

    Raises
    ------
    StateError
        If widths are not positive, the covariance is not symmetric positive definite, or a width is below 0.3 cells (then use
        :func:`point`).
    """
    if state is None:
        raise StateError("state", "the quantum state is missing", "None", "Write state=cqpde.ket('+')")
    if (std is None) == (cov is None):
        raise StateError(
            "std",
            "give exactly one of std and cov",
            "both" if std is not None else "neither",
            "Write std={'q': 0.4, ...}",
        )
    centre = _vector(grid, mean, "mean", 0.0)
    if cov is None:
        widths = _vector(grid, std, "std")
        if np.any(widths <= 0):
            raise StateError("std", "must be positive", f"{widths}", "For a point use cqpde.point")
        covariance = np.diag(widths**2)
    else:
        covariance = numbers("cov", cov, float, "must be a matrix of numbers", error=StateError)
        if covariance.shape != (grid.ndim,) * 2 or not np.all(np.isfinite(covariance)) or not np.allclose(
            covariance, covariance.T, rtol=0, atol=1e-12 * np.abs(covariance).max()
        ):
            raise StateError(
                "cov",
                f"must be a symmetric {grid.ndim} x {grid.ndim} matrix",
                f"shape {covariance.shape}",
                "Order as the axes",
            )
        if np.linalg.eigvalsh(covariance)[0] <= 0:
            raise StateError(
                "cov",
                "must be positive definite",
                f"eigenvalue {np.linalg.eigvalsh(covariance)[0]:.3g}",
                "For a point use cqpde.point",
            )
    for axis, m, width in zip(grid.axes, centre, np.sqrt(np.diag(covariance)), strict=True):
        if not axis.lower < m < axis.upper:
            raise StateError(
                f"mean[{axis.name!r}]",
                f"must lie inside ({axis.lower:g}, {axis.upper:g})",
                f"{m:g}",
                "Move the box or the state",
            )
        if width < 0.3 * axis.spacing:
            raise StateError(
                "std",
                f"must be at least 0.3 cells of {axis.name} ({0.3 * axis.spacing:.3g})",
                f"{width:.3g}",
                "Use more cells, or cqpde.point",
            )
    precision = np.linalg.inv(covariance)

    def density(z: Point) -> Array:
        delta = [z[name] - m for name, m in zip(grid.names, centre, strict=True)]
        return np.exp(
            -0.5 * sum(precision[i, j] * delta[i] * delta[j] for i in range(grid.ndim) for j in range(grid.ndim))
        )

    made = product(grid, density, state, note="gaussian")
    recipe = lambda other: gaussian(other, centre, None, state, cov=covariance)
    sampler = gaussian_sampler(centre, covariance, _state_at(grid, state))
    made_of = None
    if _state_coefficient(grid, state) is None:
        matrix = density_matrix(state)
        made_of = {"mean": centre.tolist(), "cov": covariance.tolist(), "re": matrix.real.tolist(), "im": matrix.imag.tolist()}
    return State(made.grid, made.held, recipe, made.normalisation, made.note, sampler, made=made_of)


#: Width of a point start in cells: the narrowest Gaussian whose mean and variance the cells carry to 1e-4.
POINT_CELLS = 0.75


@takes(grid=GRID)
def point(grid: Grid, at: Any, state: Any) -> State:
    """A point start, as narrow as the grid resolves: a Gaussian 0.75 cells wide on every axis; ``note`` says the widths used.

    Parameters
    ----------
    grid : Grid
    at : dict, sequence or number
        Where, per axis.
    state : ket, density matrix or callable of z
    """
    widths = POINT_CELLS * grid.spacings
    made = gaussian(grid, _vector(grid, at, "at"), widths, state)
    text = ", ".join(f"{n}: {w:.4g}" for n, w in zip(grid.names, widths, strict=True))
    return State(
        grid, made.held, lambda other: point(other, at, state), made.normalisation, f"point of width {text}", made.sampler,
        made=made.made,
    )


@takes(grid=GRID, normalise=require_flag, slack=NUMBER)
def from_array(grid: Grid, rho: Any, *, normalise: bool = False, slack: float = 1e-10) -> State:
    """A state from an array (d, d, *cells): density matrices per unit volume at the cell centres.

    Parameters
    ----------
    normalise : bool
        Divide by the total probability on the grid; without it an unnormalised array is refused by :func:`cqpde.solve`.
    slack : float
        Eigenvalues down to ``-slack`` times the largest trace are accepted: raise it to go on from a result of the split route, which is
        positive to the size of its errors.
    """
    array = numbers("rho0", rho, complex, f"must be numbers of shape (d, d) + {grid.shape}", error=StateError)
    if array.ndim != grid.ndim + 2 or array.shape[2:] != grid.shape or array.shape[0] != array.shape[1]:
        raise StateError("rho0", f"must have shape (d, d) + {grid.shape}", array.shape, "Matrix indices first")
    factor = 1.0
    if normalise:
        total = float(np.real(np.einsum("aa...->...", array)).sum()) * grid.cell_volume
        if not np.isfinite(total) or total <= 0:
            raise StateError("rho0", "needs a positive finite total probability to be normalised", f"{total:.3g}", "")
        factor = 1.0 / total
    return State(grid, array * factor, None, factor, "array", slack=slack)


def check_state(state: Any, dim: int) -> None:
    """Refuse what is not a normalised, positive hybrid state of ``dim`` levels inside its box.

    Raises
    ------
    StateError
        Naming the worst cell. Probability of more than 1e-6 in the outermost cells of an open axis counts as touching the end.
    """
    if not isinstance(state, State):
        raise StateError(
            "rho0", "must be a State", type(state).__name__, "Make it with cqpde.gaussian, product, point or from_array"
        )
    if dim in state.checked:
        return
    if state.dim != dim:
        raise StateError("rho0", f"must have the model's {dim} levels", state.dim, "Match the quantum state to dim")
    grid, density = state.grid, state.density
    largest, total = float(density.max()), float(density.sum()) * grid.cell_volume
    for first, rho in state.parts():
        if not all(np.all(np.isfinite(one)) for row in rho for one in row):
            raise StateError("rho0", "must be finite on every cell", "NaN or infinity", "Check the array")
        scale = max(float(np.max(np.abs(one))) for row in rho for one in row)
        pairs = [(rho[a, b], rho[b, a]) for a in range(dim) for b in range(a + 1)]  # one element at a time, for the memory
        if max(float(np.max(np.abs(one - other.conj()))) for one, other in pairs) > 1e-10 * max(scale, largest):
            raise StateError("rho0", "must be Hermitian on every cell", "it is not", "Check the array")
        smallest = min_eigenvalues(to_components(rho))
        if smallest.min() < -state.slack * largest:
            cell = np.unravel_index(int(np.argmin(smallest)), rho.shape[2:])
            place = ", ".join(f"{a.name} = {a.centers[i]:.5g}" for a, i in zip(grid.axes, (first + cell[0], *cell[1:]), strict=True))
            raise StateError(
                "rho0",
                "must be positive semi-definite on every cell",
                f"eigenvalue {smallest.min():.3g} at {place}",
                "Check the array, or raise slack in from_array if it is a result of the split route",
            )
    if abs(total - 1) > 1e-8:
        raise StateError(
            "rho0",
            "must have total probability 1",
            f"{total:.10g}",
            "Pass normalise=True to from_array, or divide by it",
        )
    for name, end, amount in edge_probabilities(grid, density):
        if end == "open" and amount > 1e-6:
            raise StateError(
                "rho0",
                f"must not touch the open ends of {name}",
                f"probability {amount:.3g} in its outermost cells",
                f"Widen the box of {name}, or say what its ends do",
            )
    state.checked.add(dim)


def edge_probabilities(grid: Grid, density: Array) -> list[tuple[str, str, float]]:
    """Probability in the outermost cells: (axis, boundary kind, amount) per end."""
    out = []
    for i, axis in enumerate(grid.axes):
        for end, position in zip(axis.ends, (0, axis.n - 1), strict=True):
            out.append((axis.name, end.kind, float(np.take(density, position, axis=i).sum()) * grid.cell_volume))
    return out
