"""The finite-volume generator as an object: apply it, hand it out as a linear operator, assemble it sparse."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..components import to_components, to_matrix
from ..errors import OptionError, did_you_mean
from ..grid import Grid
from ..kernels.stencil import escape_rate, link_step, stencil_step
from ..model import Model
from ..options import GRID, MODEL, NUMBER, TEXT, takes
from ..stencil import Stencil
from .assemble import Bounds, Layout, assemble, layout

Array = np.ndarray

#: Ways to carry the drift along axes without noise.
TRANSPORTS = ("limited", "upwind", "linear")


@dataclass(frozen=True)
class Generator:
    """The linear part of the semi-discrete master equation, ``d_t rho = G rho``, with what escapes through the ends.

    Attributes
    ----------
    stencil : Stencil
    bounds : Bounds
        Bounds of the spectrum, used by the exponential.
    peclet : float
        Largest ``h|B|/s`` over all interfaces; above 2 the effective noise is visibly larger than the true one.
    """

    stencil: Stencil
    bounds: Bounds
    peclet: float

    @property
    def grid(self) -> Grid:
        """The grid."""
        return self.stencil.grid

    @property
    def n_faces(self) -> int:
        """Number of ends, two per axis."""
        return 2 * self.grid.ndim

    @cached_property
    def _batched(self) -> tuple[Array, ...]:
        """Kernel arrays with a leading axis for the batch."""
        s = self.stencil
        n = self.grid.ndim
        pad = lambda a: np.concatenate([np.zeros((a.shape[0], 1), dtype=np.int64), a], axis=1)
        periodic = np.array([0] + [int(a.periodic) for a in self.grid.axes], dtype=np.int64)
        return periodic, pad(s.offsets), pad(s.strides.reshape(-1, n))

    def step(
        self,
        x: Array,
        ex: Array,
        y: Array,
        ey: Array,
        acc: Array,
        eacc: Array,
        alpha: float,
        beta: float,
        gamma: float,
        weight: float,
    ) -> None:
        """``y <- alpha G x + beta x + gamma y`` and ``acc <- acc + weight y``, for cells and escaped matrices alike.

        Parameters
        ----------
        x, y, acc : array (d^2, batch * cells)
        ex, ey, eacc : array (batch, faces, d^2)
        """
        batch = ex.shape[0]
        s = self.stencil
        periodic, offsets, strides = self._batched
        shape = np.array((batch, *self.grid.shape), dtype=np.int64)
        stencil_step(
            x,
            y,
            acc,
            shape,
            periodic,
            offsets,
            s.first,
            s.row,
            s.col,
            s.base,
            strides,
            s.coef,
            alpha,
            beta,
            gamma,
            weight,
        )
        source, target, value = s.links
        size = x.shape[1] // batch
        if len(source):
            for b in range(batch):
                link_step(
                    x[:, b * size : (b + 1) * size],
                    y[:, b * size : (b + 1) * size],
                    acc[:, b * size : (b + 1) * size],
                    source,
                    target,
                    value,
                    alpha,
                    weight,
                )
        rate = np.zeros_like(ex)
        for cells, index, matrices, face in s.escapes:
            out = np.zeros((batch, x.shape[0]))
            escape_rate(x, cells, index, matrices, batch, out)
            rate[:, face] += self.grid.cell_volume * out
        ey *= gamma
        ey += alpha * rate + beta * ex
        eacc += weight * ey

    def largest(self, x: Array) -> float:
        """Largest component of a state, in size."""
        return float(np.max(np.abs(x)))

    def apply(self, rho: Array) -> Array:
        """Return ``G rho`` for a Hermitian field (d, d, *cells); what leaves through open ends is lost."""
        x = np.ascontiguousarray(to_components(rho).reshape(self.stencil.dim**2, -1))
        return to_matrix(self._apply_components(x).reshape(-1, *self.grid.shape))

    def _apply_components(self, x: Array) -> Array:
        y, acc = np.zeros_like(x), np.zeros_like(x)
        e = np.zeros((1, self.n_faces, x.shape[0]))
        self.step(x, e, y, e.copy(), acc, e.copy(), 1.0, 0.0, 0.0, 0.0)
        return y

    def linear_operator(self) -> Any:
        """Return a complex SciPy ``LinearOperator`` on ``rho.reshape(-1)``, rho of shape (d, d, *cells)."""
        from scipy.sparse.linalg import LinearOperator

        d, shape = self.stencil.dim, self.grid.shape
        size = d * d * int(np.prod(shape))

        def matvec(vector: Array) -> Array:
            rho = np.asarray(vector, dtype=complex).reshape(d, d, *shape)
            adjoint = np.conj(np.swapaxes(rho, 0, 1))
            # complex-linear extension from Hermitian matrices
            return (self.apply(0.5 * (rho + adjoint)) + 1j * self.apply(-0.5j * (rho - adjoint))).reshape(-1)

        return LinearOperator((size, size), matvec=matvec, dtype=complex)

    def matrix(self) -> Any:
        """Return the complex SciPy sparse matrix (CSR) that acts on ``rho.reshape(-1)``, rho of shape (d, d, *cells)."""
        import scipy.sparse as sp

        g = self.component_matrix()
        d, cells = self.stencil.dim, int(np.prod(self.grid.shape))
        unit = np.eye(d * d).reshape(d * d, d, d).transpose(1, 2, 0).astype(complex)
        hermitian = to_components(0.5 * (unit + np.conj(np.swapaxes(unit, 0, 1))))
        skew = to_components(-0.5j * (unit - np.conj(np.swapaxes(unit, 0, 1))))
        forward = hermitian + 1j * skew  # components of each unit matrix, (d^2, d^2)
        backward = np.linalg.inv(forward)
        eye = sp.identity(cells, format="csr")
        return (sp.kron(sp.csr_matrix(backward), eye) @ g @ sp.kron(sp.csr_matrix(forward), eye)).tocsr()

    def component_matrix(self) -> Any:
        """Return the real sparse matrix (CSR) that acts on the d^2 real components in front of the cells."""
        import scipy.sparse as sp

        s, shape = self.stencil, self.grid.shape
        cells = int(np.prod(shape))
        c = s.dim**2
        index = np.stack(np.unravel_index(np.arange(cells), shape))
        rows, cols, data = [], [], []
        for group, offset in enumerate(s.offsets):
            target = index + offset[:, None]
            inside = np.ones(cells, dtype=bool)
            for i, axis in enumerate(self.grid.axes):
                if axis.periodic:
                    target[i] %= shape[i]
                else:
                    inside &= (target[i] >= 0) & (target[i] < shape[i])
            source = np.flatnonzero(inside)
            goal = np.ravel_multi_index(tuple(target[:, inside]), shape)
            for e in range(s.first[group], s.first[group + 1]):
                where = s.base[e] + (s.strides[e][:, None] * index[:, inside]).sum(axis=0)
                rows.append(s.row[e] * cells + goal)
                cols.append(s.col[e] * cells + source)
                data.append(s.coef[where])
        source, goal, value = s.links
        for component in range(c):
            rows.append(component * cells + goal)
            cols.append(component * cells + source)
            data.append(value)
        size = c * cells
        return sp.coo_matrix(
            (np.concatenate(data), (np.concatenate(rows), np.concatenate(cols))), shape=(size, size)
        ).tocsr()


def make_generator(model: Model, grid: Grid, t: float, plan: Layout, transport: str) -> Generator:
    """Assemble the linear part at time ``t`` (with ``limited`` transport: everything but the drift along noise-free axes)."""
    builder, bounds, peclet = assemble(model, grid, t, plan, transport)
    return Generator(builder.build(), bounds, peclet)


@takes(model=MODEL, grid=GRID, transport=TEXT, t=NUMBER)
def generator(model: Model, grid: Grid, transport: str = "upwind", t: float = 0.0) -> Generator:
    """The generator of the finite-volume scheme: ``d_t rho = G rho``.

    Parameters
    ----------
    model : Model
    grid : Grid
    transport : {"upwind", "linear"}
        How the drift along axes without noise is carried: ``upwind`` is completely positive and order 1, ``linear`` is order 4 and
        trace-exact but not exactly positive.
    t : float
        Time at which the coefficients are taken.

    Returns
    -------
    Generator
        With ``apply(rho)``, ``linear_operator()`` and ``matrix()``.

    Raises
    ------
    OptionError
        For ``transport="limited"``, which is not linear in the state and has no generator.
    ModelError, GridError
        As in :func:`cqpde.solve`.

    Examples
    --------
    >>> import cqpde as cq
    >>> model = cq.Model(("x",), 2, L=cq.sigmaz(), D1=[[0.5]], D2=[[0.5]], D0="saturated")
    >>> cq.generator(model, cq.Grid(x=(-4, 4, 16, "reflecting"))).matrix().shape
    (64, 64)
    """
    if transport == "limited":
        raise OptionError(
            "transport",
            "limited transport is not linear in the state, so it has no generator",
            "'limited'",
            "Use 'upwind' or 'linear'",
        )
    if transport not in TRANSPORTS:
        raise OptionError(
            "transport", "must be a known mode", repr(transport), did_you_mean(str(transport), TRANSPORTS[1:])
        )
    model.check(grid, t)
    return make_generator(model, grid, t, layout(model, grid, (t,)), transport)
