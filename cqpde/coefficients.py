"""Coefficients of the master equation: constants, SymPy, QuTiP objects, sampled arrays and callables, all evaluated alike.

A coefficient is a matrix-shaped quantity (``H``: (d, d); ``L``: (p, d, d); ``D1``: (n, p); ...) whose entries are functions
of the classical coordinates and of time. It is evaluated on open meshes, entry by entry, so that an entry that depends on
one coordinate is stored once per value of that coordinate and not once per cell.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .errors import CqpdeError, ModelError, did_you_mean
from .grid import Grid
from .options import GRID, takes
from .tracing import degree, traced

Array = np.ndarray
Mesh = Mapping[str, Array]


class Point(dict[str, Array]):
    """Coordinates handed to a user's callable: ``z.q`` or ``z["q"]``, arrays that broadcast against each other."""

    def __getattr__(self, name: str) -> Array:
        try:
            return self[name]
        except KeyError:
            raise ModelError("z", "the model has no such coordinate", repr(name), did_you_mean(name, self)) from None


@dataclass(frozen=True)
class Sampled:
    """Values on the cell centres of a grid, shape ``(*matrix, *cells)``; multilinear in between and beyond the ends."""

    grid: Grid
    values: Array

    def at(self, z: Mesh) -> Array:
        """Interpolate to the mesh ``z``; returns ``(*matrix, *mesh)``."""
        from scipy.interpolate import RegularGridInterpolator

        n = self.grid.ndim
        values = np.moveaxis(self.values, range(self.values.ndim - n), range(n, self.values.ndim))
        interpolate = RegularGridInterpolator(
            [a.centers for a in self.grid.axes], values, bounds_error=False, fill_value=None
        )
        points = np.stack(np.broadcast_arrays(*[z[name] for name in self.grid.names]), axis=-1)
        out = interpolate(points)
        return np.moveaxis(out, range(n, out.ndim), range(out.ndim - n))


@takes(grid=GRID)
def sampled(grid: Grid, values: Any) -> Sampled:
    """Make a coefficient from an array on a grid's cell centres.

    Parameters
    ----------
    grid : Grid
        Where the values belong.
    values : array, shape (*matrix, *cells)
        Matrix indices first, as everywhere: ``H`` is ``(d, d, *cells)``, ``D1C`` is ``(n, *cells)``.

    Notes
    -----
    Between centres the values are interpolated linearly, which keeps the finite-volume route at order 2.
    """
    try:
        array = np.asarray(values)
        array = array if array.dtype.kind in "fc" else array.astype(complex if array.dtype.kind == "O" else float)
    except (TypeError, ValueError, OverflowError):
        raise ModelError("sampled", "the values must be numbers", repr(values), "Pass an array") from None
    if array.shape[array.ndim - grid.ndim :] != grid.shape:
        raise ModelError(
            "sampled", f"the last axes must be the grid's cells {grid.shape}", array.shape, "Put matrix indices first"
        )
    return Sampled(grid, array)


Entry = complex | Callable[[Mesh, float], Any]


class Coefficient:
    """A matrix-shaped function of ``(z, t)``; :meth:`entries` evaluates it.

    Attributes
    ----------
    shape : tuple of int
        The matrix shape.
    time_dependent : bool
        Whether time enters (SymPy: ``t`` appears; callables: they take a second argument).
    callable, sampled : bool
        Whether an entry is a user's callable, or an array on a grid.
    """

    def __init__(self, name: str, shape: tuple[int, ...], coordinates: Sequence[str], value: Any) -> None:
        self.name, self.shape, self.coordinates = name, shape, tuple(coordinates)
        self.time_dependent = False
        self.callable = False
        self.sampled = False
        self._whole: Callable[[Mesh, float], Any] | None = None
        self._constants = np.zeros(shape, dtype=complex)
        self._functions: dict[tuple[int, ...], Callable[[Mesh, float], Any]] = {}
        self._symbolic: dict[tuple[int, ...], Any] = {}
        self._arrays: dict[tuple[int, ...], Sampled] = {}
        self._fill(value, shape, ())
        self._compiled = self._compile()

    # -- reading what the user gave ------------------------------------------------------------------------------------
    def _fill(self, value: Any, shape: tuple[int, ...], at: tuple[int, ...]) -> None:
        value = _plain(value)
        where = self.name + "".join(f"[{i}]" for i in at)
        if isinstance(value, Sampled):
            if value.values.ndim - value.grid.ndim != len(shape) or value.values.shape[: len(shape)] != shape:
                raise ModelError(
                    where,
                    f"sampled values must have shape {shape} + cells",
                    value.values.shape,
                    "Put matrix indices first",
                )
            if set(value.grid.names) - set(self.coordinates):
                raise ModelError(
                    where, f"sampled on a grid over {self.coordinates}", value.grid.names, "Use the model's coordinates"
                )
            self.sampled = True
            self._arrays[at] = value
            self._add_function(_interpolated(value), shape, at)
        elif callable(value) and not _is_symbolic(value):
            self._add_function(self._wrap(value, where), shape, at)
        elif isinstance(value, dict):
            raise ModelError(
                where, "a mapping is not understood here", sorted(map(str, value)), "Give a nested list or array"
            )
        elif shape:
            if not hasattr(value, "__len__"):
                raise ModelError(
                    where, f"shape must be {shape}", f"the scalar {value}", "Write it as a nested list or array"
                )
            if len(value) != shape[0]:
                found = np.shape(value) if isinstance(value, np.ndarray) else f"length {len(value)}"
                raise ModelError(where, f"shape must be {shape}", found, "Matrix indices come first")
            for i in range(shape[0]):
                self._fill(value[i], shape[1:], at + (i,))
        else:
            self._scalar(value, where, at)

    def _scalar(self, value: Any, where: str, at: tuple[int, ...]) -> None:
        if _is_symbolic(value):
            names = {s.name for s in value.free_symbols}
            unknown = sorted(names - set(self.coordinates) - {"t"})
            if unknown:
                hint = did_you_mean(unknown[0], (*self.coordinates, "t"))
                raise ModelError(
                    where,
                    "every symbol must be a coordinate or t",
                    repr(unknown[0]),
                    hint + ". Substitute parameters first",
                )
            if names:
                self._symbolic[at] = value
                self.time_dependent |= "t" in names
                return
        try:
            self._constants[at] = complex(value)
        except (TypeError, ValueError, OverflowError):
            several = isinstance(value, list | tuple | np.ndarray)
            kind = "an array" if several else type(value).__name__
            remedy = (
                "For values on a grid use cqpde.sampled(grid, array)"
                if several
                else "Give a number, SymPy expression or callable"
            )
            raise ModelError(
                where, "an entry must be a number, a SymPy expression or a callable", kind, remedy
            ) from None

    def _wrap(self, function: Callable[..., Any], where: str) -> Callable[[Mesh, float], Any]:
        self.callable = True
        try:
            parameters = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
            arguments = len([p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)])
        except (TypeError, ValueError):
            arguments = 2
        if arguments not in (1, 2):
            raise ModelError(
                where, "a callable takes (z) or (z, t)", f"{arguments} arguments", "z.q, z.p, ... are the coordinates"
            )
        if arguments == 2:
            self.time_dependent = True

        def evaluate(z: Mesh, t: float) -> Any:
            try:
                return function(Point(z), t) if arguments == 2 else function(Point(z))
            except CqpdeError:
                raise
            except Exception as error:  # whatever a user's function does
                found = f"{type(error).__name__}: {error} at t = {t:.6g}"
                raise ModelError(where, "the callable must return its entries", found, "Correct it, or protect it against these arguments") from error

        return evaluate

    def _add_function(
        self, function: Callable[[Mesh, float], Any], shape: tuple[int, ...], at: tuple[int, ...]
    ) -> None:
        if at == ():
            self._whole = function
        else:
            self._functions[at] = function

    def _compile(self) -> Callable[..., Any] | None:
        if not self._symbolic:
            return None
        import sympy

        symbols = [sympy.Symbol(c, real=True) for c in self.coordinates] + [sympy.Symbol("t", real=True)]
        rename = {s.name: s for s in symbols}
        expressions = [e.subs({s: rename[s.name] for s in e.free_symbols}) for e in self._symbolic.values()]
        return sympy.lambdify(symbols, expressions, modules=["scipy", "numpy"], cse=True)

    @cached_property
    def degree(self) -> float:
        """Degree in the coordinates where it is a polynomial in them (0: the same everywhere), else infinity.

        Callables are traced with SymPy symbols; one that cannot be has infinite degree.
        """
        functions = [*self._functions.values(), *([self._whole] if self._whole is not None else [])]
        expressions = list(self._symbolic.values())
        for function in functions:
            entries = traced(function, self.coordinates)
            if entries is None:
                return np.inf
            expressions += entries
        return degree(expressions, self.coordinates)

    def vanishes(self, at: tuple[int, ...]) -> bool:
        """Whether an entry is zero by how it was given."""
        given = self._whole is not None or at in self._symbolic or any(at[: len(k)] == k for k in self._functions)
        return not given and self._constants[at] == 0

    # -- evaluating ----------------------------------------------------------------------------------------------------
    def entries(self, z: Mesh, t: float) -> Array:
        """Evaluate every entry on the open mesh ``z`` at time ``t``.

        Returns
        -------
        object array of shape ``self.shape``
            Each element is a complex array with as many axes as there are coordinates, of size 1 where it does not depend.
        """
        n = len(self.coordinates)
        out = np.empty(self.shape, dtype=object)
        for index in np.ndindex(*self.shape):
            out[index] = np.full((1,) * n, self._constants[index])
        with np.errstate(all="ignore"):
            if self._whole is not None:
                self._store(out, self._whole(z, t), (), z)
            for at, function in self._functions.items():
                self._store(out, function(z, t), at, z)
            if self._compiled is not None:
                values = self._compiled(*[z[c] for c in self.coordinates], t)
                for at, value in zip(self._symbolic, values, strict=True):
                    self._store(out, value, at, z)
        return out

    def _store(self, out: Array, value: Any, at: tuple[int, ...], z: Mesh) -> None:
        shape = self.shape[len(at) :]
        where = self.name + "".join(f"[{i}]" for i in at)
        for index in np.ndindex(*shape):
            entry = value
            for position, i in enumerate(index):
                if not hasattr(entry, "__len__") or len(entry) != shape[position]:
                    found = np.shape(value) if not isinstance(value, list | tuple) else "a nested list of other lengths"
                    raise ModelError(
                        where,
                        f"must return shape {shape} + cells, matrix indices first",
                        found,
                        "Return a nested list of entries",
                    )
                entry = entry[i]
            out[at + index] = self._cells(entry, where, z)

    def _cells(self, entry: Any, where: str, z: Mesh) -> Array:
        n = len(self.coordinates)
        mesh_shape = np.broadcast_shapes(*[z[c].shape for c in self.coordinates])
        try:
            array = np.asarray(entry, dtype=complex)
        except (TypeError, ValueError):
            raise ModelError(
                where, "entries must be numbers or arrays over the cells", type(entry).__name__, "Return numeric arrays"
            ) from None
        if array.ndim == 0:
            array = array.reshape((1,) * n)
        if array.ndim != n or any(a not in (1, m) for a, m in zip(array.shape, mesh_shape, strict=False)):
            raise ModelError(
                where,
                f"entries must broadcast to the cells {mesh_shape}",
                array.shape,
                "Compute with z.q, z.p, ... element-wise",
            )
        return collapse(array, n)


def _interpolated(values: Sampled) -> Callable[[Mesh, float], Any]:
    return lambda z, t: values.at(z)


def collapse(array: Array, n: int) -> Array:
    """Reduce each of the first ``n`` axes to size 1 if the array is constant along it."""
    for axis in range(n):
        if array.shape[axis] > 1:
            first = array.take([0], axis=axis)
            if np.array_equal(np.broadcast_to(first, array.shape), array):
                array = first
    return array


def stack(entries: Array, n: int) -> Array:
    """Turn an object array of entries into one array ``(*broadcast cells, *matrix)``."""
    if entries.size == 0:
        return np.zeros((1,) * n + entries.shape, dtype=complex)
    flat = np.broadcast_arrays(*entries.reshape(-1))
    return np.stack(flat, axis=-1).reshape(flat[0].shape + entries.shape)


def _is_symbolic(value: Any) -> bool:
    return hasattr(value, "free_symbols") and not hasattr(value, "shape")


def _plain(value: Any) -> Any:
    """Unwrap QuTiP objects (anything with ``.full()``) and SymPy matrices to arrays or nested lists."""
    if hasattr(value, "full") and callable(value.full) and hasattr(value, "dims"):
        return np.asarray(value.full())
    if hasattr(value, "tolist") and hasattr(value, "free_symbols"):
        return value.tolist()
    return value
