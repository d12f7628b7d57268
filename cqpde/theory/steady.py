r"""Stationary states and relaxation rates: the null space and the slow modes of the finite-volume generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..components import min_eigenvalues, to_matrix, trace_norm_bound
from ..dataset import snapshot
from ..errors import OptionError, SolverError
from ..fv.assemble import layout
from ..fv.generator import TRANSPORTS, Generator, generator
from ..grid import Grid
from ..integrate.exponential import Exponential
from ..model import Model
from ..options import DATASET, GRID, MODEL, takes
from ..runs import MOST_EDGE
from .long_time import Propagator

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

METHODS = ("auto", "direct", "krylov", "composition")

#: Unknowns up to which the sparse factorisation is chosen.
DIRECT = 300_000

#: A second eigenvalue closer to zero than this share of the largest rate counts as zero.
NULL = 1e-10


@takes(model=MODEL, grid=GRID)
def steady_state(
    model: Model, grid: Grid, *, transport: str = "linear", method: str = "auto", modes: int = 3, tol: float = 1e-9, period: float | None = None
) -> xr.Dataset:
    r"""The stationary state of a model on a grid, and its slowest relaxation rates.

    .. math:: \mathcal G\rho = 0, \qquad \mathcal G\rho_k = \lambda_k\rho_k

    with G the generator of the finite-volume scheme (order 2 in the cells; order 1 with ``upwind``), or by ``composition`` of the spectral split
    route (no error of order in the cells).

    Parameters
    ----------
    model : Model
        With coefficients constant in t.
    grid : Grid
        Its ends must keep the probability inside (periodic, reflecting or specular; at open ends what leaves is lost, and a state that reaches
        them is refused).
    transport : {"linear", "upwind"}
        Of axes that drift without noise; ``linear`` is not exactly positive, the smallest eigenvalue is reported.
    method : {"auto", "direct", "krylov"}
        ``direct``: shift and inversion with a sparse LU factorisation; the rates are the slowest out of twice as many next to zero, so a mode
        that oscillates much faster than it decays can be missed. ``krylov``: Arnoldi on the propagator over ``period``, which orders by the
        decay alone and stores no matrix. ``composition``: Arnoldi on the split route's propagator of order 14, for models and ends that this
        route can do (see :func:`cqpde.solve`); open ends must be out of reach.
    modes : int
        Number of eigenvalues beside zero that are returned (at least one, which decides uniqueness).
    tol : float
        Bound of the residual ``|G rho|``, integrated trace norm, relative to the largest rate of the scheme; ``composition``: of the change of rho
        over the period, taken in two halves.
    period : float, optional
        Time of the propagator; default: 100 over the largest rate (``krylov``), the longest that is accurate to ``tol`` (``composition``).

    Returns
    -------
    xarray.Dataset
        ``rho`` (row, col, \*axes) with the observables of ``.cq``; ``relaxation`` (mode), complex eigenvalues by decreasing real part, the
        first being the stationary one; attributes ``residual``, ``unique``, ``null_space_dimension``, ``min_eigenvalue``.

    Raises
    ------
    SolverError
        If the residual stays above ``tol``, or probability leaks so that no stationary state exists.
    OptionError
        For unknown words or a model that depends on t.

    Examples
    --------
    >>> import cqpde as cq
    >>> model = cq.Model(("x",), 1, D1C=[lambda z: -z.x], D2=[[0.5]])
    >>> state = cq.steady_state(model, cq.Grid(x=(-4, 4, 64, "reflecting")))
    >>> [round(float(x), 1) for x in state.relaxation.real]
    [0.0, -1.0, -2.0, -3.0]
    """
    if method not in METHODS:
        raise OptionError("method", "must be a known method", repr(method), f"Known: {', '.join(METHODS)}")
    if transport not in TRANSPORTS[1:]:
        raise OptionError("transport", "must be a known linear mode", repr(transport), f"Known: {', '.join(TRANSPORTS[1:])}")
    if not 1 <= modes <= 64:
        raise OptionError("modes", "must be from 1 to 64", modes, "Ask for a few")
    if method == "composition" and transport != "linear":
        raise OptionError("transport", "belongs to the other methods", repr(transport), "Leave it out")
    if model.time_dependent:
        raise OptionError("model", "must not depend on t", model.name, "A driven model has no stationary state of this kind")
    if method == "composition":
        p = Propagator(model, grid, tol, period)
        values, vectors = _arnoldi(p, p.middle().shape, p.middle().reshape(-1), modes, p.period, tol)
        x, values = _stationary(model, grid, values, vectors, modes)
        residual, rate = trace_norm_bound(p(x, parts=2) - x, 1, grid.cell_volume), 1.0 / p.period
        null = int(np.sum(np.abs(values) < 1e3 * tol * rate))
        x, moved, edge = p.back(x), "spectral", p.edge(x)
        if edge > MOST_EDGE:
            raise SolverError("Grid", "the split route needs open ends out of reach", f"probability {edge:.2g} there", "Widen the box, or use method='direct'")
    else:
        g = generator(model, grid, transport)
        size = g.stencil.dim**2 * int(np.prod(grid.shape))
        rate = max(g.bounds.rate + g.bounds.frequency, 1e-300)
        method = "direct" if method == "direct" or (method == "auto" and size <= DIRECT) else "krylov"
        values, vectors = _direct(g, modes, rate) if method == "direct" else _krylov(g, modes, period or 100.0 / rate, tol)
        x, values = _stationary(model, grid, values, vectors, modes)
        residual = trace_norm_bound(g._apply_components(x), 1, grid.cell_volume) / rate
        null = int(np.sum(np.abs(values) < max(NULL * rate, 1e3 * abs(values[0]))))
        moved = transport if layout(model, grid, (0.0,)).drifting else "none"
    if not residual <= tol:
        leak = "; probability leaves through open ends" if values[0].real < -NULL * rate else ""
        raise SolverError("steady_state", f"the residual must fall to {tol:g}", f"{residual:.3g}, eigenvalue {values[0]:.3g}{leak}", "Close or widen the box, or raise tol")
    rho = to_matrix(x.reshape(-1, *grid.shape))
    out = snapshot(grid, model.dim, float("inf"), rho)
    out["relaxation"] = (("mode",), values, {"long_name": "eigenvalues of the generator", "units": "1"})
    out.attrs = {
        "title": f"Stationary state of the model {model.name}", "model": model.name, "method": method, "transport": moved,
        "residual": residual, "null_space_dimension": null, "unique": int(null == 1), "min_eigenvalue": float(min_eigenvalues(x).min() / x[: model.dim].sum(axis=0).max()),
    }  # fmt: skip
    return out


def _stationary(model: Model, grid: Grid, values: Array, vectors: Array, modes: int) -> tuple[Array, Array]:
    """The stationary state, real components of trace one, and the eigenvalues by decreasing real part."""
    order = np.argsort(-values.real)
    first = vectors[:, order[0]]
    x = np.real(first * np.exp(-1j * np.angle(first[np.argmax(np.abs(first))]))).reshape(model.dim**2, -1)
    total = float(x[: model.dim].sum()) * grid.cell_volume
    values = values[order][: modes + 1]
    if not abs(total) > 1e-8 * trace_norm_bound(x, 1, grid.cell_volume):
        raise SolverError("steady_state", "the slowest mode must carry probability", f"trace {total:.3g}, eigenvalue {values[0]:.3g}", "Probability leaves the box: close its ends")
    return np.ascontiguousarray(x / total), values


def _direct(g: Generator, modes: int, rate: float) -> tuple[Array, Array]:
    """Eigenvalues next to zero by shift and inversion."""
    from scipy.sparse import identity
    from scipy.sparse.linalg import LinearOperator, eigs, splu

    matrix = g.component_matrix().tocsc()
    n = matrix.shape[0]
    shift = 1e-7 * rate  # on the right of the spectrum: never an eigenvalue
    lu = splu((matrix - shift * identity(n, format="csc")).tocsc())
    inverse = LinearOperator((n, n), matvec=lu.solve, dtype=float)
    values, vectors = eigs(matrix, k=min(2 * modes + 6, n - 2), sigma=shift, OPinv=inverse, v0=_start(g), tol=1e-14)
    # the vector of the stationary state, polished
    first = int(np.argmax(values.real))
    v = np.real(vectors[:, first] * np.exp(-1j * np.angle(vectors[np.argmax(np.abs(vectors[:, first])), first])))
    for _ in range(3):
        v = lu.solve(v)
        v /= np.abs(v).sum()
    vectors[:, first] = v
    return values, vectors


def _krylov(g: Generator, modes: int, period: float, tol: float) -> tuple[Array, Array]:
    """Slowest modes from the propagator over ``period``, matrix-free."""
    exponential, gone = Exponential(), np.zeros((1, g.n_faces, g.stencil.dim**2))
    propagate = lambda x: exponential(g, x, gone, period)[0]
    return _arnoldi(propagate, (g.stencil.dim**2, int(np.prod(g.grid.shape))), _start(g), modes, period, tol)


def _arnoldi(propagate: Callable[[Array], Array], shape: tuple[int, int], start: Array, modes: int, period: float, tol: float) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors of the generator of ``propagate``, by the largest factors over ``period``."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

    size = shape[0] * shape[1]
    apply = lambda v: np.asarray(propagate(np.ascontiguousarray(np.real(v)).reshape(shape))).reshape(-1)
    operator: Any = LinearOperator((size, size), matvec=apply, dtype=float)
    try:
        factors, vectors = eigs(operator, k=modes + 1, which="LM", v0=start, ncv=min(max(40, 2 * modes + 3), size), tol=1e-2 * tol, maxiter=400)
    except ArpackNoConvergence as error:
        raise SolverError("steady_state", "the Krylov iteration must converge", str(error)[:100], "Use a longer period or another method") from None
    return np.log(factors.astype(complex)) / period, vectors


def _start(g: Generator) -> Array:
    """The maximally mixed uniform state, with a little of everything else."""
    c, cells = g.stencil.dim**2, int(np.prod(g.grid.shape))
    v = 1e-3 * np.random.default_rng(0).standard_normal((c, cells))
    v[: g.stencil.dim] += 1.0
    return v.reshape(-1)


@takes(model=MODEL, grid=GRID, state=DATASET)
def detailed_balance(model: Model, grid: Grid, state: xr.Dataset, transport: str = "linear") -> float:
    r"""How far a stationary state is from detailed balance: the largest probability current, relative to gradient flow.

    .. math:: \max_{i,z}|J_i| \Big/ \max_{i,z} \tfrac12|s_{ij}\partial_j f|, \qquad
        J_i = v_i f + 2\,\mathrm{Re}\,\mathrm{Tr}(A_i\rho) - \tfrac12\partial_j(s_{ij} f)

    Zero (to the order of the differences, 2) where the classical part is in detailed balance.

    Parameters
    ----------
    state : Dataset
        From :func:`steady_state`.

    Examples
    --------
    >>> import cqpde as cq
    >>> grid = cq.Grid(x=(-5, 5, 128, "reflecting"))
    >>> model = cq.Model(("x",), 1, D1C=[lambda z: -z.x], D2=[[0.5]])
    >>> cq.detailed_balance(model, grid, cq.steady_state(model, grid)) < 1e-2
    True
    """
    rho = np.moveaxis(state["rho"].values, (0, 1), (-2, -1))
    f = np.real(np.trace(rho, axis1=-2, axis2=-1))
    fields = model.canonical(grid.mesh(), 0.0)
    flow, scale = 0.0, 0.0
    inner = tuple(slice(2, -2) for _ in grid.axes)
    for i in range(grid.ndim):
        j = fields.v[i] * f + 2.0 * np.real(np.einsum("...ab,...ba->...", np.broadcast_to(fields.A[i], rho.shape), rho))
        gradient = sum(
            0.5 * np.gradient(np.broadcast_to(fields.s[..., i, k], grid.shape) * f, a.spacing, axis=k) for k, a in enumerate(grid.axes)
        )
        flow = max(flow, float(np.abs((j - gradient)[inner]).max()))
        scale = max(scale, float(np.abs(np.asarray(gradient)).max()))
    return flow / scale if scale > 0.0 else flow
