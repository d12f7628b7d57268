"""Hard models that the accuracy tests share, each with an independent reference on its box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import cqpde as cq

from .references import characteristic, gaussian, spectral

Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """A model, how to lay a grid of ``n`` cells per axis, its start, and the reference at ``t`` on such a grid."""

    model: Any
    grid: Callable[[int], cq.Grid]
    start: Callable[[cq.Grid], cq.State]
    t: float
    reference: Callable[[cq.Grid], Array]


def integrated_trace_norm(difference: Array, grid: cq.Grid) -> float:
    """Sum over cells of the absolute eigenvalues times the cell volume."""
    values = np.linalg.eigvalsh(np.moveaxis(difference, (0, 1), (-2, -1)))
    return float(np.abs(values).sum() * grid.cell_volume)


def error_of(case: Case, n: int, **options: Any) -> tuple[float, Any, cq.Grid]:
    """Error against the reference in integrated trace norm (finite volumes unless asked), with the solution and its grid."""
    grid = case.grid(n)
    options = {"method": "fv", "grid_error": False, "tol": 1e-5} | options
    solution = cq.solve(case.model, case.start(grid), [0.0, 0.5 * case.t, case.t], **options)
    return integrated_trace_norm(solution.rho.values[-1] - case.reference(grid), grid), solution, grid


# -- linear Diosi (paper, C.4) -----------------------------------------------------------------------------------------
def linear_diosi() -> Case:
    def reference(grid: cq.Grid) -> Array:
        box = [(a.lower, a.upper) for a in grid.axes]
        return gaussian.linear_diosi(np.full((2, 2), 0.5), [0.0, 0.0], np.diag([0.16, 0.16]), 1.0, box, grid.shape)

    return Case(
        cq.models.linear_diosi(),
        lambda n: cq.Grid(q=(-6, 6, n), p=(-9, 9, 2 * n)),
        lambda g: cq.gaussian(g, 0.0, 0.4, cq.ket("+")),
        1.0,
        reference,
    )


# -- one dimension, nothing commutes, everything depends on x ------------------------------------------------------------
BOX = 4.0
K = np.pi / BOX
A0 = np.array([[0.5, 0.2 - 0.3j], [0.1j, -0.4]])
A1 = np.array([[0.1, 0.4], [-0.2j, 0.2 + 0.1j]])
A0, A1 = (a - 0.5 * np.trace(a) * np.eye(2) for a in (A0, A1))
H0, H1 = np.array([[0.4, 0.7], [0.7, -0.4]]), np.array([[0.2, -0.5j], [0.5j, 0.3]])
N0 = np.array([[0.1, 0.5], [0.0, -0.2j]])


def _fields(x: Array) -> dict[str, Array]:
    """v, s, A, H, N of the one-dimensional model at points x; matrices (2, 2, *x.shape)."""
    lift = lambda m: m.reshape(2, 2, *[1] * np.ndim(x))
    return {
        "v": 0.4 * np.sin(K * x) + 0.3,
        "s": 0.8 + 0.3 * np.cos(K * x),
        "A": lift(A0) * (1 + 0.3 * np.sin(K * x)) + lift(A1) * np.cos(K * x),
        "H": lift(H0) + lift(H1) * np.sin(K * x),
        "N": lift(N0) * np.sqrt(1 + 0.5 * np.sin(K * x)),
    }


def _entries(f: Callable[[Array], Array]) -> Callable[[Any], list[list[Array]]]:
    return lambda z: [[f(z.x)[i, j] for j in range(2)] for i in range(2)]


def nothing_commutes(boundary: Any = "periodic", excess: float = 1.0, **planted: float) -> Any:
    """A(x) non-Hermitian, s(x), v(x), H(x), N(x): A enters as L = A with D1 = 1; ``planted`` scales a term (wrong on purpose)."""
    w = {"v": 1.0, "s": 1.0, "A": 1.0, "H": 1.0, "D0": 1.0, "N": 1.0} | planted
    return cq.Model(
        ("x",), 2,
        H=lambda z: [[w["H"] * e for e in row] for row in _entries(lambda x: _fields(x)["H"])(z)],
        L=[_entries(lambda x: _fields(x)["A"]), _entries(lambda x: _fields(x)["N"])],
        D1=[[w["A"], 0.0]], D2=[[lambda z: 0.5 * w["s"] * _fields(z.x)["s"]]],
        D0=[[lambda z: w["D0"] / _fields(z.x)["s"], 0.0], [0.0, w["N"] * excess]], D1C=[lambda z: w["v"] * _fields(z.x)["v"]],
        check="off" if planted else "error",
    )  # fmt: skip


def start_1d(grid: cq.Grid) -> cq.State:
    """A correlated state: the ket turns with x, the density is periodic and smooth."""
    return cq.product(
        grid,
        lambda z: np.exp(-2.0 * (1 - np.cos(K * (z.x - 0.5)))),
        lambda z: [np.cos(0.6 * np.sin(K * z.x)), 1j * np.sin(0.6 * np.sin(K * z.x))],
    )


def noncommuting_1d(**planted: float) -> Case:
    def reference(grid: cq.Grid) -> Array:
        fine = cq.Grid(x=(-BOX, BOX, 192, "periodic"))
        f = _fields(fine.axes[0].centers)
        rho = spectral.solve_periodic(
            start_1d(fine).rho, 0.7, [(-BOX, BOX)], [f["v"]], [[f["s"]]], [f["A"]], f["H"], [f["N"]]
        )
        return fourier_resample(rho, grid)

    return Case(nothing_commutes(**planted), lambda n: cq.Grid(x=(-BOX, BOX, n, "periodic")), start_1d, 0.7, reference)


def fourier_resample(rho: Array, grid: cq.Grid) -> Array:
    """Evaluate a periodic field on other cell centres through its Fourier series (one axis)."""
    n, m = rho.shape[-1], grid.shape[0]
    k = np.fft.fftfreq(n, 1 / n)
    hat = np.fft.fft(rho, axis=-1) / n * np.exp(-1j * np.pi * k / n)
    x = (np.arange(m) + 0.5) / m
    return hat @ np.exp(2j * np.pi * np.outer(k, x))


# -- two dimensions, correlated noise, non-commuting A_i ------------------------------------------------------------------
S2 = np.array([[0.6, 0.35], [0.35, 0.5]])
A2 = [np.array([[0.4, 0.3j], [0.1, -0.4]]), np.array([[0.1, 0.5], [0.2, -0.1]])]
V2 = np.array([0.5, -0.3])
H2 = np.array([[0.3, 0.6], [0.6, -0.3]])
COV2 = np.array([[0.35, 0.1], [0.1, 0.3]])


def correlated_2d() -> Case:
    """Noise with off-diagonal D2; L_a = A_a, D1 = identity; exact by the characteristic function."""

    def reference(grid: cq.Grid) -> Array:
        psi = cq.ket("+i")
        start = (np.outer(psi, psi.conj()), np.zeros(2), COV2)
        return characteristic.solve_constant(start, 0.6, [(-7, 7), (-7, 7)], grid.shape, V2, S2, A2, H2)

    model = cq.Model(("x", "y"), 2, H=H2, L=A2, D0="saturated", D1=np.eye(2), D2=S2 / 2, D1C=V2)
    return Case(
        model,
        lambda n: cq.Grid(x=(-7, 7, n, "periodic"), y=(-7, 7, n, "periodic")),
        lambda g: cq.gaussian(g, 0.0, cov=COV2, state=cq.ket("+i")),
        0.6,
        reference,
    )


# -- three levels, complex D1 -----------------------------------------------------------------------------------------------
L3 = [np.diag([1.0, 0.0, -1.0]).astype(complex), np.eye(3, k=1, dtype=complex) * np.array([[0, 1, 1]]).T + 0j]
D13 = np.array([[0.4 + 0.3j, 0.2 - 0.5j]])
H3 = np.array([[0.5, 0.3, 0.0], [0.3, 0.0, 0.4j], [0.0, -0.4j, -0.2]])
E3 = np.array([[0.2, 0.05j], [-0.05j, 0.1]])
PSI3 = np.array([0.6, 0.48j, 0.64])


def three_levels(conjugate: bool = False) -> Case:
    """One axis, d = 3, complex D1 and complex excess decoherence; ``conjugate`` plants the wrong one of D1, D1*."""

    def reference(grid: cq.Grid) -> Array:
        a = sum(np.conj(D13[0, k]) * L3[k] for k in range(2))
        values, vectors = np.linalg.eigh(E3)
        jumps = [np.sqrt(values[g]) * sum(vectors[k, g] * L3[k] for k in range(2)) for g in range(2)]
        start = (np.outer(PSI3, PSI3.conj()), np.zeros(1), np.array([[0.25]]))
        return characteristic.solve_constant(start, 0.8, [(-7, 7)], grid.shape, [0.3], [[0.7]], [a], H3, jumps)

    d1 = D13.conj() if conjugate else D13
    model = cq.Model(("x",), 3, H=H3, L=L3, D0="saturated", D1=d1, D2=[[0.35]], D1C=[0.3], excess=E3)
    return Case(
        model, lambda n: cq.Grid(x=(-7, 7, n, "periodic")), lambda g: cq.gaussian(g, 0.0, 0.5, PSI3), 0.8, reference
    )


CASES = {
    "linear_diosi": linear_diosi,
    "noncommuting_1d": noncommuting_1d,
    "correlated_2d": correlated_2d,
    "three_levels": three_levels,
}
