"""Models for the split route, each with an independent reference on its cells."""

from __future__ import annotations

from typing import Any

import numpy as np

import cqpde as cq

from . import models
from .models import Case
from .references import characteristic, gaussian, spectral

Array = np.ndarray

SX, SY, SZ, SM = cq.sigmax(), cq.sigmay(), cq.sigmaz(), cq.sigmam()


def _sampled_start(grid: cq.Grid, rho: Array) -> cq.State:
    return cq.from_array(grid, rho, normalise=True)


def _spectral_case(model: Any, box: list[tuple[float, float]], boundary: str, start: Any, t: float, equation: Any) -> Case:
    """Reference: the unsplit pseudo-spectral solver on the same cells; ``equation(z)`` gives its coefficients (or of (z, t))."""
    names = model.coordinates

    def grid(n: int) -> cq.Grid:
        return cq.Grid(**{a: (*b, n, boundary) for a, b in zip(names, box, strict=True)})

    def reference(g: cq.Grid) -> Array:
        z = [np.broadcast_to(c, g.shape) for c in g.mesh().values()]
        rho = start(g).rho
        rho = np.broadcast_to(rho, (*rho.shape[:2], *g.shape))
        probe = equation(z, 0.0)
        if probe.get("varies"):
            drop = lambda c: {k: v for k, v in c.items() if k != "varies"}
            return spectral.solve_periodic(rho, t, box, coefficients=lambda now: drop(equation(z, now)))
        return spectral.solve_periodic(rho, t, box, **{k: v for k, v in probe.items() if k != "varies"})

    return Case(model, grid, start, t, reference)


# -- constant coefficients: exact in one step ------------------------------------------------------------------------------
def three_noisy_axes() -> Case:
    """Correlated and uncorrelated noise on three axes, non-Hermitian A_i that do not commute, H and excess."""
    rng = np.random.default_rng(3)
    a = [0.35 * (m - np.trace(m) / 2 * np.eye(2)) for m in rng.normal(size=(3, 2, 2)) + 1j * rng.normal(size=(3, 2, 2))]
    s = np.array([[0.6, 0.2, 0.0], [0.2, 0.5, 0.0], [0.0, 0.0, 0.4]])
    v, h, n = [0.3, -0.2, 0.1], 0.5 * SX + 0.2 * SZ, 0.4 * SM
    cov = np.diag([0.36, 0.4, 0.36])
    model = cq.Model(
        ("x", "y", "z"), 2, H=h, L=[*a, n], D1=np.hstack([np.eye(3), np.zeros((3, 1))]), D2=s / 2, D0="saturated",
        excess=np.diag([0, 0, 0, 1.0]), D1C=v,
    )  # fmt: skip
    psi = cq.ket("+i")

    def reference(grid: cq.Grid) -> Array:
        box = [(x.lower, x.upper) for x in grid.axes]
        start = (np.outer(psi, psi.conj()), np.zeros(3), cov)
        return characteristic.solve_constant(start, 0.4, box, grid.shape, v, s, a, h, [n])

    return Case(
        model,
        lambda m: cq.Grid(**{c: (-4.2, 4.2, m, "periodic") for c in "xyz"}),
        lambda g: cq.gaussian(g, 0.0, cov=cov, state=psi),
        0.4,
        reference,
    )


# -- friction and trap: Ornstein-Uhlenbeck in one go --------------------------------------------------------------------------
def damped_oscillator(gamma: float = 0.7, friction: float | None = None) -> Case:
    """Harmonic trap with friction, force and phase diagonal; ``friction`` plants a wrong rate in the model."""
    w2, s, lam, phi = 1.3, 0.5, 0.6, 0.8
    used = gamma if friction is None else friction
    model = cq.Model(
        ("q", "p"), 2, H=lambda z: [[2 * lam * z.q + phi, 0], [0, -2 * lam * z.q - phi]], L=[SZ], D0="saturated",
        D1={"p": [-lam]}, D2={"p": s / 2}, D1C={"q": lambda z: z.p, "p": lambda z: -w2 * z.q - used * z.p},
    )  # fmt: skip

    def reference(grid: cq.Grid) -> Array:
        box = [(a.lower, a.upper) for a in grid.axes]
        return gaussian.diagonal_gaussian(
            np.full((2, 2), 0.5), [0.4, -0.2], np.diag([0.2, 0.25]), 1.2, box, grid.shape,
            M=[[0, 1], [-w2, -gamma]], s=[[0, 0], [0, s]], h=([phi, -phi], [[2 * lam, 0], [-2 * lam, 0]], None),
            a=([[0, 0], [-lam, lam]], None),
        )  # fmt: skip

    return Case(
        model,
        lambda n: cq.Grid(q=(-6, 6, n), p=(-7, 7, n)),
        lambda g: cq.gaussian(g, {"q": 0.4, "p": -0.2}, cov=np.diag([0.2, 0.25]), state=cq.ket("+")),
        1.2,
        reference,
    )


# -- everything depends on q, nothing commutes ---------------------------------------------------------------------------------
def driven_in_a_field() -> Case:
    """Noise, non-Hermitian force, Hamiltonian and decay that depend on q; H depends on p too."""
    k = np.pi / 3.0
    lift = lambda m: np.asarray(m, dtype=complex).reshape(2, 2, 1, 1)

    def parts(q: Array, p: Array) -> dict[str, Array]:
        return {
            "s": 0.7 + 0.2 * np.cos(k * q),
            "A": lift(0.4 * SZ) * (1 + 0.3 * np.sin(k * q)) + lift(0.3j * SX) * np.cos(k * q) + lift(0.2 * SY),
            "H": lift(0.6 * SX) + lift(0.5 * SZ) * np.sin(k * q) + lift(0.2 * SY) * np.cos(np.pi * p / 6.0),
            "N": lift(0.5 * SM) * np.sqrt(1 + 0.4 * np.sin(k * q)),
            "vq": 0.6 * np.sin(np.pi * p / 6.0),
            "vp": -0.8 * np.sin(k * q),
        }

    entries = lambda name: lambda z: [[parts(z.q, z.p)[name][i, j] for j in range(2)] for i in range(2)]
    model = cq.Model(
        ("q", "p"), 2, H=entries("H"), L=[entries("A"), entries("N")], D0="saturated", D1={"p": [1.0, 0.0]},
        D2={"p": lambda z: 0.5 * parts(z.q, z.p)["s"]}, excess=[[0, 0], [0, 1]],
        D1C={"q": lambda z: parts(z.q, z.p)["vq"], "p": lambda z: parts(z.q, z.p)["vp"]},
    )  # fmt: skip

    def equation(z: list[Array], _: float) -> dict[str, Any]:
        f = parts(*z)
        zero = np.zeros_like(z[0])
        full = lambda m: np.broadcast_to(m, (2, 2, *z[0].shape))
        return {
            "v": [f["vq"], f["vp"]], "s": [[zero, zero], [zero, f["s"]]], "A": [None, full(f["A"])], "H": full(f["H"]), "N": [full(f["N"])],
        }  # fmt: skip

    def start(g: cq.Grid) -> cq.State:
        return cq.product(g, lambda z: np.exp(-3 * (1 - np.cos(k * (z.q - 0.4))) - 6 * (1 - np.cos(np.pi * (z.p + 0.5) / 6))), cq.ket("+i"))

    return _spectral_case(model, [(-3, 3), (-6, 6)], "periodic", start, 0.6, equation)


# -- drift of its own coordinate -------------------------------------------------------------------------------------------------
def double_well() -> Case:
    """Noisy axis with the force of a double well, and a noise-free axis with a drift of both coordinates."""

    def parts(x: Array, y: Array) -> tuple[Array, Array]:
        return x - 0.5 * x**3 + 0.3 * np.sin(np.pi * y / 3), 0.5 * np.sin(np.pi * y / 3) * (1 + 0.2 * x)

    model = cq.Model(
        ("x", "y"), 2, H=lambda z: [[z.x, 0.7], [0.7, -z.x]], L=[SZ], D0="saturated", D1={"x": [0.3]}, D2={"x": 0.4},
        D1C={"x": lambda z: parts(z.x, z.y)[0], "y": lambda z: parts(z.x, z.y)[1]},
    )  # fmt: skip

    def equation(z: list[Array], _: float) -> dict[str, Any]:
        vx, vy = parts(*z)
        zero = np.zeros_like(vx)
        h = np.array([[z[0], 0.7 + zero], [0.7 + zero, -z[0]]])
        return {"v": [vx, vy], "s": [[zero + 0.8, zero], [zero, zero]], "A": [0.3 * SZ, None], "H": h}

    def start(g: cq.Grid) -> cq.State:
        return cq.product(g, lambda z: np.exp(-((z.x - 0.2) ** 2) / 0.5 - 3 * (1 - np.cos(np.pi * (z.y - 0.3) / 3))), cq.ket("+"))

    case = _spectral_case(model, [(-4.5, 4.5), (-3, 3)], "periodic", start, 0.5, equation)
    return Case(model, lambda n: cq.Grid(x=(-4.5, 4.5, n), y=(-3, 3, n, "periodic")), start, 0.5, case.reference)


# -- coefficients that depend on time ----------------------------------------------------------------------------------------------
def switched_on() -> Case:
    """Drive, noise, force and drift that change in time."""
    k = np.pi / 4.0

    def parts(x: Array, y: Array, t: float) -> dict[str, Any]:
        return {
            "s": 0.6 + 0.3 * np.sin(3 * t) + 0 * x,
            "A": 0.5 * np.cos(2 * t) * SZ,
            "H": 0.8 * np.cos(4 * t) * SX + 0.4 * SZ,
            "vx": np.sin(k * y) * (1 + 0.5 * np.sin(2 * t)),
            "vy": -np.sin(k * x) * np.cos(t),
        }

    model = cq.Model(
        ("x", "y"), 2, H=lambda z, t: [[0.4, 0.8 * np.cos(4 * t)], [0.8 * np.cos(4 * t), -0.4]], L=[SZ], D0="saturated",
        D1={"y": [lambda z, t: 0.5 * np.cos(2 * t)]}, D2={"y": lambda z, t: 0.5 * (0.6 + 0.3 * np.sin(3 * t))},
        D1C={"x": lambda z, t: parts(z.x, z.y, t)["vx"], "y": lambda z, t: parts(z.x, z.y, t)["vy"]},
    )  # fmt: skip

    def equation(z: list[Array], t: float) -> dict[str, Any]:
        f, zero = parts(*z, t), np.zeros_like(z[0])
        return {"v": [f["vx"], f["vy"]], "s": [[zero, zero], [zero, f["s"]]], "A": [None, f["A"]], "H": f["H"], "varies": True}

    def start(g: cq.Grid) -> cq.State:
        return cq.product(g, lambda z: np.exp(-3 * (1 - np.cos(k * (z.x - 0.5))) - 3 * (1 - np.cos(k * (z.y + 0.3)))), cq.ket("+"))

    return _spectral_case(model, [(-4, 4), (-4, 4)], "periodic", start, 0.8, equation)


#: name -> (case, cells, tolerance asked for, bound of the error)
SPLIT_CASES = {
    "correlated_2d": (models.correlated_2d, 64, 1e-9, 1e-8),
    "three_levels": (models.three_levels, 96, 1e-9, 1e-8),
    "three_noisy_axes": (three_noisy_axes, 30, 1e-8, 1e-8),
    "damped_oscillator": (damped_oscillator, 96, 1e-8, 1e-8),
    "driven_in_a_field": (driven_in_a_field, 48, 1e-7, 1e-7),
    "double_well": (double_well, 64, 1e-6, 1e-6),
    "switched_on": (switched_on, 40, 1e-6, 1e-6),
}
