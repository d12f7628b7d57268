"""One-dimensional reference with walls: central differences of the matrix flux, second order, extrapolated.

The matrix flux ``J = v rho + A rho + rho A^+ - (1/2) d_z(s rho)`` lives on the interfaces, everything else at the cell
centres. A reflecting wall has J = 0, an absorbing one rho = 0 with the slope of ``s rho`` there taken from the
parabola through the wall and the two nearest centres. The scheme is linear and conservative but not positive: it
shares nothing with a Kraus scheme.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import make_interp_spline
from scipy.sparse.linalg import splu

from .grid import Complex, Real

Coefficient = Callable[[Real], ArrayLike] | ArrayLike
Wall = Literal["reflecting", "absorbing"]


class WallSolution(NamedTuple):
    """State at the points z, and the matrices that escaped through the two ends (zero where a wall reflects)."""

    z: Real
    rho: Complex
    escaped_lower: Complex
    escaped_upper: Complex


def _scalar(f: Coefficient | None, z: Real) -> Real:
    """Scalar coefficient at the points z."""
    value = 0.0 if f is None else (f(z) if callable(f) else f)
    return np.broadcast_to(np.asarray(value, dtype=float), z.shape)


def _matrix(f: Coefficient, z: Real, d: int) -> Complex:
    """Matrix coefficient at the points z, point index first: (len(z), d, d)."""
    value = np.asarray(f(z) if callable(f) else f, dtype=complex)
    value = np.broadcast_to(value.reshape(d, d, -1), (d, d, len(z)))
    return np.asarray(np.moveaxis(value, -1, 0))


def _kron(x: Complex, y: Complex) -> Complex:
    """``rho -> x rho y^T`` for rows-first vectors, at every point."""
    d = x.shape[1]
    return np.asarray(np.einsum("zik,zjl->zijkl", x, y).reshape(len(x), d * d, d * d))


def _dissipator(x: Complex) -> Complex:
    """``x rho x^+ - {x^+ x, rho}/2`` at every point."""
    one = np.broadcast_to(np.eye(x.shape[1], dtype=complex), x.shape)
    xx = x.conj().swapaxes(1, 2) @ x
    return np.asarray(_kron(x, x.conj()) - 0.5 * (_kron(xx, one) + _kron(one, xx.swapaxes(1, 2))))


def _blocks(rows: NDArray[np.intp], cols: NDArray[np.intp], blocks: Real | Complex, size: int) -> sp.coo_array:
    """Sparse matrix with the dense blocks placed at the given block rows and columns."""
    k = blocks.shape[1]
    r = (rows[:, None, None] * k + np.arange(k)[None, :, None]) + np.zeros((1, 1, k), dtype=np.intp)
    c = (cols[:, None, None] * k + np.arange(k)[None, None, :]) + np.zeros((1, k, 1), dtype=np.intp)
    return sp.coo_array((blocks.ravel(), (r.ravel(), c.ravel())), shape=(size, size))


def wall_generator(
    d: int,
    lo: float,
    hi: float,
    n: int,
    v: Coefficient | None,
    s: Coefficient,
    A: Coefficient | None,
    H: Coefficient | None,
    N: Sequence[Coefficient],
    lower: Wall,
    upper: Wall,
) -> sp.csc_array:
    """Sparse generator on the n cells and two more blocks that collect what leaves through the lower and upper wall.

    Parameters
    ----------
    d : int
        Matrix dimension.
    lo, hi, n, v, s, A, H, N, lower, upper
        As in `solve_walls`.

    Returns
    -------
    sparse array, shape ((n + 2) d^2, (n + 2) d^2)
        Acts on the vector of row-by-row stacked matrices.
    """
    h = (hi - lo) / n
    z = lo + (np.arange(n) + 0.5) * h
    face = lo + np.arange(1, n) * h  # inner interfaces
    size = (n + 2) * d * d
    unit = np.eye(d * d, dtype=complex)
    diffusion = _scalar(s, z)
    parts: list[sp.coo_array] = []

    # inner interfaces: J = (1/2) X (rho_left + rho_right) - (1/2) (s_right rho_right - s_left rho_left)/h
    transport = np.asarray(_scalar(v, face)[:, None, None] * unit, dtype=complex)
    if A is not None:
        back = _matrix(A, face, d)
        one = np.broadcast_to(np.eye(d, dtype=complex), back.shape)
        transport = transport + _kron(back, one) + _kron(one, back.conj())
    from_left = 0.5 * transport + 0.5 * (diffusion[:-1] / h)[:, None, None] * unit
    from_right = 0.5 * transport - 0.5 * (diffusion[1:] / h)[:, None, None] * unit
    left, right = np.arange(n - 1), np.arange(1, n)
    for column, flux in ((left, from_left), (right, from_right)):
        parts.append(_blocks(left, column, -flux / h, size))
        parts.append(_blocks(right, column, flux / h, size))

    # absorbing walls: outflow (1/2) * slope of s rho, slope = (3 u_1 - u_2 / 3)/h from u(wall) = 0, u_1, u_2
    for wall, cells, sink in ((lower, (0, 1), n), (upper, (n - 1, n - 2), n + 1)):
        if wall == "absorbing":
            for cell, factor in zip(cells, (3.0, -1.0 / 3.0), strict=True):
                out = (0.5 * factor * diffusion[cell] / h) * unit[None]
                column = np.array([cell])
                parts.append(_blocks(np.array([cells[0]]), column, -out / h, size))
                parts.append(_blocks(np.array([sink]), column, out, size))
        elif wall != "reflecting":
            raise ValueError(f"unknown wall {wall!r}")

    # local terms at the centres
    local = np.zeros((n, d * d, d * d), dtype=complex)
    if H is not None:
        hamiltonian = _matrix(H, z, d)
        one = np.broadcast_to(np.eye(d, dtype=complex), hamiltonian.shape)
        local = local - 1j * (_kron(hamiltonian, one) - _kron(one, hamiltonian.swapaxes(1, 2)))
    if A is not None:
        inverse = np.divide(1.0, diffusion, out=np.zeros(n), where=diffusion > 0)
        local = local + inverse[:, None, None] * _dissipator(_matrix(A, z, d))
    for jump in N:
        local = local + _dissipator(_matrix(jump, z, d))
    cells_all = np.arange(n)
    parts.append(_blocks(cells_all, cells_all, local, size))
    total = sp.csc_array((size, size), dtype=complex)
    for part in parts:
        total = total + part.tocsc()
    return total


def _pade(q: int) -> tuple[Complex, Complex]:
    """Poles and residues of the [q-1/q] Pade approximant of exp: L-stable, order 2q - 1."""
    p = q - 1
    top = [math.comb(p, j) * math.factorial(p + q - j) / math.factorial(p + q) for j in range(p + 1)]
    bottom = [(-1) ** j * math.comb(q, j) * math.factorial(p + q - j) / math.factorial(p + q) for j in range(q + 1)]
    poles = np.roots(bottom[::-1]).astype(complex)
    residues = np.polyval(top[::-1], poles) / np.polyval(np.polyder(np.array(bottom[::-1])), poles)
    return np.asarray(poles, dtype=complex), np.asarray(residues, dtype=complex)


def propagate(
    generator: sp.csc_array, y0: Complex, t: float, tol: float = 1e-11, steps: int = 16, max_steps: int = 4096
) -> Complex:
    """``exp(t generator) y0`` by an L-stable rational approximation of order 7, the steps doubled until they agree.

    The poles are factorised once per step length, so the cost does not grow with the stiffness ``s/h^2`` (a Taylor or
    Krylov method needs thousands of products on fine grids). With poles p and residues r of the approximant R, the step
    ``y + sum (r/p) (X - p)^-1 X y``, X = dt generator, is R(X) y written so that R(0) = 1 holds to the last digit.

    Parameters
    ----------
    generator : sparse array
        The generator.
    y0 : ndarray
        Start.
    t : float
        Time.
    tol : float
        Largest change at the last doubling, relative to the largest entry.
    steps, max_steps : int
        First and largest number of time steps.

    Returns
    -------
    ndarray
        The vector at time t.
    """
    poles, residues = _pade(4)
    identity = sp.eye_array(generator.shape[0], dtype=complex, format="csc")
    previous: Complex | None = None
    while steps <= max_steps:
        factors = [splu((t / steps * generator - pole * identity).tocsc()) for pole in poles]
        y = np.asarray(y0, dtype=complex)
        for _ in range(steps):
            change = t / steps * (generator @ y)
            y = y + sum(r / p * f.solve(change) for r, p, f in zip(residues, poles, factors, strict=True))
        if previous is not None and np.abs(y - previous).max() <= tol * np.abs(y).max():
            return y
        previous = y
        steps *= 2
    raise RuntimeError(f"time integration did not settle to {tol} within {max_steps} steps")


def solve_walls(
    rho0: Callable[[Real], ArrayLike] | ArrayLike,
    t: float,
    lo: float,
    hi: float,
    n: int,
    v: Coefficient | None = None,
    s: Coefficient = 1.0,
    A: Coefficient | None = None,
    H: Coefficient | None = None,
    N: Sequence[Coefficient] = (),
    *,
    lower: Wall = "reflecting",
    upper: Wall = "reflecting",
    tol: float = 1e-11,
) -> WallSolution:
    """Solve on ``lo < z < hi`` with a wall at each end, second order in ``h = (hi - lo)/n``.

    Parameters
    ----------
    rho0 : callable or array_like
        State at t = 0: function of z returning (d, d, len(z)), or its values at the n cell centres.
    t : float
        Time.
    lo, hi : float
        Positions of the walls.
    n : int
        Number of cells.
    v, s : callable of z or constant
        Classical drift and diffusion (``s > 0`` at an absorbing wall).
    A, H : callable of z returning (d, d, len(z)), or constant (d, d), optional
        Operator drift and Hamiltonian.
    N : sequence of the same
        Square-root operators of the excess decoherence.
    lower, upper : {"reflecting", "absorbing"}
        The walls.
    tol : float
        Relative tolerance of the time integration.

    Returns
    -------
    WallSolution
        Cell centres, state there, and the time integral of the outflow through each wall. The sum of ``rho h`` and
        the traces of the escaped matrices is conserved to round-off.
    """
    h = (hi - lo) / n
    z = lo + (np.arange(n) + 0.5) * h
    start = np.asarray(rho0(z) if callable(rho0) else rho0, dtype=complex)
    d = start.shape[0]
    if start.shape != (d, d, n):
        raise ValueError(f"rho0 has shape {start.shape}, expected {(d, d, n)}")
    generator = wall_generator(d, lo, hi, n, v, s, A, H, N, lower, upper)
    y0 = np.concatenate([np.moveaxis(start, -1, 0).ravel(), np.zeros(2 * d * d)])
    y = propagate(generator, y0, t, tol) if t > 0 else y0
    blocks = y.reshape(n + 2, d, d)
    return WallSolution(z, np.moveaxis(blocks[:n], 0, -1), blocks[n], blocks[n + 1])


def _interpolate(z: Real, rho: Complex, points: Real) -> Complex:
    """Spline of degree 7 (its error, h^8, is far below that of the scheme); exact where a point is a node."""
    real = make_interp_spline(z, rho.real, k=7, axis=-1)(points)
    imag = make_interp_spline(z, rho.imag, k=7, axis=-1)(points)
    return np.asarray(real + 1j * imag)


def solve_walls_extrapolated(
    rho0: Callable[[Real], ArrayLike],
    t: float,
    lo: float,
    hi: float,
    centres: ArrayLike,
    v: Coefficient | None = None,
    s: Coefficient = 1.0,
    A: Coefficient | None = None,
    H: Coefficient | None = None,
    N: Sequence[Coefficient] = (),
    *,
    lower: Wall = "reflecting",
    upper: Wall = "reflecting",
    n: int = 200,
    tol: float = 1e-11,
) -> tuple[WallSolution, float]:
    """Extrapolation of `solve_walls` from n, 2n and 4n cells, with an error estimate.

    Two extrapolations remove h^2; a third, from those two, removes what the walls leave: h^4 when both reflect, h^3
    when one absorbs.

    Parameters
    ----------
    rho0 : callable
        State at t = 0 as a function of z.
    centres : array_like
        Points at which the state is wanted, at least half a cell of the grid of n cells away from the walls.
    n : int
        Cells of the coarsest of the three grids.
    t, lo, hi, v, s, A, H, N, lower, upper, tol
        As in `solve_walls`.

    Returns
    -------
    solution : WallSolution
        State at the given centres and escaped matrices, both extrapolated.
    error : float
        Largest difference, over rho and the escaped matrices, between the result and the h^2 extrapolation from 2n
        and 4n cells: the error of the latter, so a generous estimate for the result.
    """
    points = np.asarray(centres, dtype=float)
    levels = []
    for cells in (n, 2 * n, 4 * n):
        result = solve_walls(rho0, t, lo, hi, cells, v, s, A, H, N, lower=lower, upper=upper, tol=tol)
        levels.append((_interpolate(result.z, result.rho, points), result.escaped_lower, result.escaped_upper))
    factor = 7 if "absorbing" in (lower, upper) else 15
    rough = [(4 * fine - coarse) / 3 for coarse, fine in zip(levels[0], levels[1], strict=True)]
    better = [(4 * fine - coarse) / 3 for coarse, fine in zip(levels[1], levels[2], strict=True)]
    best = [y + (y - x) / factor for x, y in zip(rough, better, strict=True)]
    error = max(float(np.abs(x - y).max()) for x, y in zip(better, best, strict=True))
    return WallSolution(points, best[0], best[1], best[2]), error
