r"""The classical-quantum master equation, stated once: :class:`Model`.

With Lindblad operators :math:`L_\alpha`, :math:`D_1` the n x p matrix of the elements :math:`D_{1,i}^{0\alpha}` and summation over
repeated indices, every model is (paper, eq. (5), with the sign of the cross terms that (7), (8) and (A.8) require)

.. math::
    \partial_t\rho = -\partial_i J_i - i[H, \rho]
        + D_0^{\alpha\beta}\left(L_\alpha\rho L_\beta^\dagger - \tfrac12\{L_\beta^\dagger L_\alpha, \rho\}\right), \qquad
    J_i = D^C_{1,i}\,\rho + D_{1,i\alpha}^*\,L_\alpha\rho + D_{1,i\alpha}\,\rho L_\alpha^\dagger - \partial_j(D_{2,ij}\rho).

The solvers use the canonical form (operator drift :math:`A_i`, noise covariance :math:`s = \sigma\sigma^T = 2 D_2`):

.. math::
    A_i = D_{1,i\alpha}^* M_\alpha, \quad M_\alpha = L_\alpha - t_\alpha, \quad t_\alpha = \mathrm{Tr} L_\alpha / d, \qquad
    v_i = D^C_{1,i} + 2\,\mathrm{Re}(D_{1,i\alpha}^* t_\alpha), \qquad
    H' = H + \tfrac{i}{2} D_0^{\alpha\beta}(t_\beta^* M_\alpha - t_\alpha M_\beta^\dagger).

It is completely positive exactly when :math:`(1 - s s^+) A = 0` and the excess :math:`D_0 - D_1^\dagger s^+ D_1` is positive
semi-definite in a traceless operator basis (eq. (6)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .coefficients import Coefficient, Mesh, Sampled, _is_symbolic, collapse, stack
from .errors import ModelError, did_you_mean
from .grid import RESERVED, Grid
from .options import GRID, NUMBER, require_word, takes

Array = np.ndarray

CHECKS = ("error", "warn", "off")

#: Where a model keeps what was found out about it: structure, coefficients and flows of small grids.
KEPT = ("_structures", "_known", "_smooth")


@dataclass(frozen=True)
class Canonical:
    """Canonical fields on a mesh; each array keeps size 1 along coordinates on which it does not depend.

    Attributes
    ----------
    v : list of array (*cells)
        Scalar drift per coordinate.
    A : list of array (*cells, d, d)
        Traceless operator drift per coordinate.
    s : array (*cells, n, n)
        Noise covariance per unit time, ``2 D2``.
    H : array (*cells, d, d)
        Hamiltonian, with the shift from traces of Lindblad operators.
    M : array (*cells, p, d, d)
        Traceless Lindblad operators.
    D0 : array (*cells, p, p)
        Full decoherence coefficients.
    excess : array (*cells, p, p) or None
        ``D0 - D1^+ s^+ D1`` where it was given directly (saturated models); None means: subtract.
    """

    v: list[Array]
    A: list[Array]
    s: Array
    H: Array
    M: Array
    D0: Array
    excess: Array | None


class Model:
    r"""A classical-quantum model, given by the coefficients of the paper's eq. (5).

    Parameters
    ----------
    coordinates : sequence of str
        Names of the n classical coordinates, e.g. ``("q", "p")``.
    dim : int
        Number of quantum levels d.
    H : coefficient, shape (d, d)
        Hamiltonian (hbar = 1: an angular frequency).
    L : coefficient, shape (p, d, d)
        Lindblad operators; a single (d, d) operator counts as p = 1. Need not be traceless or orthogonal.
    D0 : coefficient, shape (p, p), or "saturated"
        Decoherence coefficients, Hermitian. ``"saturated"``: ``D1^+ (2 D2)^+ D1 + excess``, the least that is physical.
    D1 : coefficient, shape (n, p)
        Back-reaction :math:`D_{1,i}^{0\alpha}`, complex.
    D2 : coefficient, shape (n, n)
        Diffusion, symmetric positive semi-definite; ``sigma sigma^T / 2``.
    D1C : coefficient, shape (n,)
        Classical drift, real.
    excess : coefficient, shape (p, p), optional
        Only with ``D0="saturated"``: decoherence beyond the least, Hermitian positive semi-definite.
    H_C : scalar coefficient, optional
        Classical Hamiltonian, for the record: it enters nothing but :func:`cqpde.observables.energy`. :func:`cqpde.healed` sets it.
    check : {"error", "warn", "off"}
        What :meth:`check` does when eq. (6) fails on some cell. Shapes, Hermiticity and finiteness are always enforced.
    name, description : str
        For the record in files.

    Notes
    -----
    A *coefficient* is a constant, a (nested list of) SymPy expressions in the coordinate names and ``t``, a QuTiP object, a
    :func:`cqpde.sampled` array, or a callable ``f(z)`` or ``f(z, t)`` that returns the nested list of its entries computed from
    the arrays ``z.q, z.p, ...``. Rows of ``D1``, ``D2`` and ``D1C`` may be given as ``{"p": ...}``; missing coordinates are zero.
    Omitted coefficients are zero.

    Raises
    ------
    ModelError
        If a shape is wrong, a symbol is not a coordinate, or a constant coefficient is not finite.

    Examples
    --------
    >>> import cqpde as cq
    >>> model = cq.Model(("x",), 2, L=cq.sigmaz(), D1=[[0.5]], D2=[[0.5]], D0=[[0.25]])
    >>> model
    Model(coordinates=(x), dim=2, Lindblad operators=1)
    """

    def __init__(
        self,
        coordinates: Sequence[str],
        dim: int,
        H: Any = None,
        L: Any = None,
        D0: Any = None,
        D1: Any = None,
        D2: Any = None,
        D1C: Any = None,
        *,
        excess: Any = None,
        H_C: Any = None,
        check: str = "error",
        name: str = "custom",
        description: str = "",
    ) -> None:
        self.coordinates = _coordinates(coordinates)
        if isinstance(dim, bool) or not isinstance(dim, int | np.integer) or dim < 1:
            raise ModelError(
                "dim", "the number of levels must be a positive integer", repr(dim), "Use dim=1 for a classical model"
            )
        require_word("check", check, CHECKS, "must be one of the known modes")
        self.dim, self.check_mode, self.name, self.description = int(dim), check, name, description
        self._margins: dict[tuple[Grid, float, str], float] = {}  # of grids that passed the check
        d, n = self.dim, len(self.coordinates)
        operators = _operator_list(L, d)
        p = len(operators) if hasattr(operators, "__len__") else 1
        self.saturated = isinstance(D0, str) and D0 == "saturated"
        if isinstance(D0, str) and not self.saturated:
            raise ModelError("D0", "a word must be 'saturated'", repr(D0), "Give a (p, p) matrix or 'saturated'")
        if excess is not None and not self.saturated:
            raise ModelError(
                "excess", "is added to the saturated D0 only", "D0 given", "Pass D0='saturated' or add it to D0"
            )
        read = self._read
        self.H = read("H", (d, d), H)
        self.L = read("L", (p, d, d), operators)
        self.D0 = read("D0", (p, p), None if self.saturated else D0)
        self.excess = read("excess", (p, p), excess)
        self.D1 = read("D1", (n, p), self._rows(D1, "D1", p))
        self.D2 = read("D2", (n, n), self._rows(D2, "D2", n))
        self.D1C = read("D1C", (n,), self._rows(D1C, "D1C", 0))
        self.H_C = None if H_C is None else read("H_C", (1,), H_C)

    def _read(self, name: str, shape: tuple[int, ...], value: Any) -> Coefficient:
        if value is None:
            value = np.zeros(shape)
        scalar = (
            not isinstance(value, list | tuple | Mapping) and np.ndim(value) == 0 and not isinstance(value, Sampled)
        )
        if scalar and all(s == 1 for s in shape) and (_is_symbolic(value) or not callable(value)):
            for _ in shape:
                value = [value]
        coefficient = Coefficient(name, shape, self.coordinates, value)
        constants = coefficient._constants
        if not np.all(np.isfinite(constants)):
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(constants))[0])
            raise ModelError(
                name, "coefficients must be finite", f"{constants[where]} at index {where}", "Correct the value"
            )
        return coefficient

    def _rows(self, value: Any, name: str, columns: int) -> Any:
        """Expand ``{"p": row}`` to all coordinates; for D2 a scalar row means the diagonal."""
        if not isinstance(value, Mapping):
            return value
        for key in value:
            if key not in self.coordinates:
                raise ModelError(name, "keys must be coordinates", repr(key), did_you_mean(str(key), self.coordinates))
        rows: list[Any] = []
        for i, c in enumerate(self.coordinates):
            row = value.get(c, 0)
            if columns and not hasattr(row, "__len__"):
                one = i if name == "D2" else 0
                if name == "D1" and columns > 1 and c in value:
                    raise ModelError(
                        f"D1[{c!r}]", f"needs {columns} entries, one per Lindblad operator", "a scalar", "Give a list"
                    )
                row = [row if k == one else 0 for k in range(columns)]
            rows.append(row)
        return rows

    @property
    def coefficients(self) -> dict[str, Coefficient]:
        """All coefficients by name."""
        return {c.name: c for c in (self.H, self.L, self.D0, self.excess, self.D1, self.D2, self.D1C)}

    @cached_property
    def time_dependent(self) -> bool:
        """Whether any coefficient depends on t."""
        return any(c.time_dependent for c in self.coefficients.values())

    def drift(self, z: Mesh, t: float) -> list[Array]:
        """Scalar drift ``v_i`` of the canonical form on a mesh, one array per coordinate."""
        n = len(self.coordinates)
        d1, traces = self.D1.entries(z, t), self._traces(z, t)
        v = self.D1C.entries(z, t)
        out = []
        for i in range(n):
            scalar = sum((2.0 * np.real(np.conj(d1[i, a]) * t_a) for a, t_a in enumerate(traces)), start=np.real(v[i]))
            out.append(collapse(scalar, n))
        self._require_finite(out, z, t)
        return out

    def _require_finite(self, fields: Sequence[Array], z: Mesh, t: float) -> None:
        """Refuse fields that are not finite, naming the coefficient, the place and the time."""
        if all(np.isfinite(f).all() for f in fields):
            return
        shape = np.broadcast_shapes(*[a.shape for a in z.values()])
        for name, coefficient in self.coefficients.items():
            entries = coefficient.entries(z, t)
            for index in np.ndindex(*entries.shape):
                bad = np.argwhere(~np.isfinite(np.broadcast_to(entries[index], shape)))
                if len(bad):
                    label, at = name + "".join(f"[{i}]" for i in index), tuple(bad[0])
                    value = np.broadcast_to(entries[index], shape)[at]
                    place = ", ".join(f"{c} = {np.broadcast_to(z[c], shape)[at]:.6g}" for c in self.coordinates)
                    raise ModelError(label, "must be finite wherever it is looked at", f"{value} at {place}, t = {t:.6g}", "Regularise it, or move the box")
        raise ModelError("model", "its coefficients must not overflow", f"a product that is not finite at t = {t:.6g}", "Check their size and units")

    def _traces(self, z: Mesh, t: float) -> list[Array]:
        entries = self.L.entries(z, t)
        return [sum(entries[a, k, k] for k in range(self.dim)) / self.dim for a in range(entries.shape[0])]

    def canonical(self, z: Mesh, t: float) -> Canonical:
        """Evaluate the canonical form on an open mesh (see the module's docstring)."""
        n, d = len(self.coordinates), self.dim
        lindblad = stack(self.L.entries(z, t), n)
        d1_entries = self.D1.entries(z, t)
        traces = np.trace(lindblad, axis1=-2, axis2=-1) / d  # (*cells, p)
        m = lindblad - traces[..., None, None] * np.eye(d)
        s = 2.0 * np.real(stack(self.D2.entries(z, t), n))
        s = 0.5 * (s + np.swapaxes(s, -1, -2))
        a_list = []
        for i in range(n):
            row = stack(d1_entries[i], n) if d1_entries.shape[1] else np.zeros((1,) * n + (0,))
            a_list.append(collapse(np.einsum("...a,...aij->...ij", np.conj(row), m), n))
        excess = None
        if self.saturated:
            d1 = stack(d1_entries, n)
            excess = collapse(stack(self.excess.entries(z, t), n), n)
            d0 = _adjoint(d1) @ pseudo_inverse(s) @ d1 + excess
        else:
            d0 = stack(self.D0.entries(z, t), n)
        h = stack(self.H.entries(z, t), n)
        if np.any(traces):
            w = np.einsum("...ab,...b,...aij->...ij", d0, np.conj(traces), m)
            h = h + 0.5j * (w - _adjoint(w))
        self._require_finite([*a_list, s, h, m, d0], z, t)
        return Canonical(
            self.drift(z, t), a_list, collapse(s, n), collapse(h, n), collapse(m, n), collapse(d0, n), excess
        )

    # -- checks --------------------------------------------------------------------------------------------------------
    @takes(grid=GRID, t=NUMBER)
    def check(self, grid: Grid, t: float = 0.0, mode: str | None = None) -> float:
        """Check every coefficient on every cell of a grid, before any work is done on it.

        Returns
        -------
        float
            The margin of eq. (6): the smallest eigenvalue of ``D0 - D1^+ (2 D2)^+ D1`` in an orthonormal traceless basis over
            all cells, negative where the model is unphysical.

        Raises
        ------
        ModelError
            Naming the coefficient and the worst cell: not finite, H or D0 not Hermitian, D2 not symmetric, D1C not real; and, with
            mode ``"error"``, D2 not positive semi-definite or one of the conditions (6) broken. Mode ``"warn"`` warns instead.
        """
        from .physicality import check_model

        mode = self.check_mode if mode is None else mode
        require_word("check", mode, CHECKS, "must be one of the known modes")
        key = (grid, t, mode)
        if mode == "warn" or key not in self._margins:
            if len(self._margins) > 256:
                self._margins.clear()
            self._margins[key] = check_model(self, grid, t, mode)
        return self._margins[key]

    def forget(self) -> None:
        """Drop what was kept of earlier checks and runs: margins, structure, and the evaluated coefficients and flows of small grids."""
        self._margins.clear()
        for kept in KEPT:
            self.__dict__.pop(kept, None)

    def __getstate__(self) -> dict[str, Any]:
        """As it goes to other processes: without what was kept of earlier checks and runs."""
        return {name: value for name, value in vars(self).items() if name not in (*KEPT, "_prints")} | {"_margins": {}}

    def refresh(self, grid: Grid, times: tuple[float, float]) -> None:
        """Forget what was kept if a callable no longer returns what it did at the last run on this grid (a variable it reads has changed)."""
        self.require_coordinates(grid)
        functions = [c for c in self.coefficients.values() if c.callable or c.sampled]
        if not functions:
            return
        from .timescale import places

        points = places(grid)
        length = times[1] - times[0] if self.time_dependent else 0.0
        moments = sorted({times[0], times[0] + 0.3819660112501051 * length, times[0] + length})
        try:
            found = b"".join(np.ascontiguousarray(e).tobytes() for c in functions for t in moments for e in c.entries(points, t).reshape(-1))
        except Exception:  # a user's function may need all cells; what is wrong with it is said where it is used
            self.forget()
            return
        prints = self.__dict__.setdefault("_prints", {})
        key = (grid, times if self.time_dependent else times[0])
        if prints.get(key, found) != found or (self.time_dependent and key not in prints):
            self.forget()  # with other times there is nothing to compare with
            prints.clear()
        prints[key] = found

    @takes(grid=GRID)
    def require_coordinates(self, grid: Grid) -> None:
        """Refuse a grid whose axes are not this model's coordinates in the same order."""
        if grid.names != self.coordinates:
            raise ModelError(
                "grid",
                f"the axes must be the model's coordinates {self.coordinates} in order",
                grid.names,
                "Rename or reorder the axes",
            )

    def __repr__(self) -> str:
        label = "" if self.name == "custom" else f"{self.name!r}, "
        return f"Model({label}coordinates=({', '.join(self.coordinates)}), dim={self.dim}, Lindblad operators={self.L.shape[0]})"


def _adjoint(m: Array) -> Array:
    return np.conj(np.swapaxes(m, -1, -2))


def pseudo_inverse(s: Array) -> Array:
    """Moore-Penrose inverse of a stack of symmetric positive semi-definite matrices.

    Eigenvalues below 1e-13 of the largest over the whole stack count as zero, so that noise that vanishes somewhere does not
    turn round-off into an infinite decoherence rate.
    """
    if s.shape[-1] == 0:
        return s
    values, vectors = np.linalg.eigh(s)
    cut = 1e-13 * max(float(np.max(np.abs(values))), np.finfo(float).tiny)
    inverse = np.where(values > cut, 1.0 / np.where(values > cut, values, 1.0), 0.0)
    return np.asarray((vectors * inverse[..., None, :]) @ np.swapaxes(vectors, -1, -2))


def _coordinates(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        names = names.split()
    names = tuple(str(c) for c in names)
    if not names or len(set(names)) != len(names):
        raise ModelError("coordinates", "must be distinct names, at least one", names, "Write e.g. ('q', 'p')")
    for c in names:
        if not c.isidentifier() or c in RESERVED:
            raise ModelError(
                "coordinates",
                "a name must be an identifier that is not reserved",
                repr(c),
                f"Reserved: {', '.join(RESERVED)}",
            )
    return names


def _operator_list(value: Any, d: int) -> Any:
    """Read L: None, one operator, or a list of operators."""
    if value is None:
        return []
    if hasattr(value, "full") or (hasattr(value, "free_symbols") and hasattr(value, "tolist")):
        return [value]
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.shape == (d, d):
        return [value]
    if callable(value):
        raise ModelError(
            "L", "give a list of operators, each of which may be a callable", "one callable", "Write L=[f]"
        )
    try:
        return list(value)
    except TypeError:
        raise ModelError("L", "must be a list of operators", type(value).__name__, "Write L=[...]") from None
