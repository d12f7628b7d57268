"""Random cases of the Python interface: models with coefficients of every kind, grids, states, times, options, and values that are none."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import sympy
from hypothesis import strategies as st

import cqpde as cq

from .fuzzing import Case, physical_ensemble, physical_solution

#: What nobody should pass, for any argument.
JUNK = (
    None, "", "x", "saturated", b"bytes", -1, 0, 1, 2.5, True, 1j, 1e300, 1e-300, math.nan, math.inf, -math.inf, 10**400, [], (), {}, set(), object(),
    [[]], [None], ["a", "b"], {"x": 1}, {"q": "a"}, {1: 2}, np.array([]), np.zeros((2, 3)), np.array(["a"]), np.full((2, 2), np.nan), np.array([None, 1]),
    np.array([1, 2], dtype="datetime64[s]"), lambda: 1, lambda z: None, lambda z, t: "x", lambda a, b, c: 0, cq.sigmaz, int, "q" * 5000, [0, [1, 2]],
    sympy.Symbol("x"), sympy.Symbol("y"), sympy.zoo, sympy.nan, sympy.I, sympy.Matrix([[1, 2]]), sympy.true, range(3), iter([1]), "1", np.float32(0.5),
)  # fmt: skip
junk = st.sampled_from(range(len(JUNK))).map(lambda k: JUNK[k])
number = st.floats(-2.0, 2.0, allow_nan=False).map(lambda x: round(x, 3))
#: mostly near one, sometimes absurd
size = st.sampled_from([0.01, 0.3, 0.3, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 30.0, 1e-6, 1e3])


def matrices(rows: int, columns: int | None = None) -> st.SearchStrategy[np.ndarray]:
    """Complex matrices."""
    count = rows * (columns or rows)
    pairs = st.lists(st.complex_numbers(max_magnitude=1.5, allow_nan=False), min_size=count, max_size=count)
    return pairs.map(lambda v: np.round(np.array(v), 3).reshape(rows, columns or rows))


#: True in 31 of 32, and in 1 of 4
often, seldom = st.sampled_from([True] * 16 + [False] + [True] * 15), st.sampled_from([False, False, True, False])
hermitian = lambda d: matrices(d).map(lambda m: 0.5 * (m + m.conj().T))


def raising(*_: Any) -> Any:
    """A callable with a mistake in it."""
    raise ZeroDivisionError("division by zero")


@st.composite
def scalars(draw: Any, names: tuple[str, ...], positive: bool = False) -> Any:
    """One entry of a coefficient: constant, SymPy, callable of z or of z and t, smooth, rough, steep or bad somewhere."""
    c, a, w = draw(number), draw(size), draw(st.sampled_from([0.3, 1.0, 4.0]))
    name = draw(st.sampled_from(names))
    if positive:
        c, base = abs(c) * a + (0.05 if draw(often) else 1e-4), lambda f: f * f + 0.05
    else:
        c, base = c * a, lambda f: f
    x, t = sympy.Symbol(name, real=True), sympy.Symbol("t", real=True)
    kinds: list[Callable[[], Any]] = [
        lambda: c, lambda: c, lambda: c, lambda: c, lambda: int(round(c)) or 1, lambda: sympy.Float(c),
        lambda: base(c * sympy.sin(w * x)), lambda: base(c * x), lambda: c / (1 + x**2) + (0.01 if positive else 0), lambda: base(c * sympy.cos(w * t)),
        lambda: (lambda z: base(c * np.cos(w * z[name]))), lambda: (lambda z, t: base(c * np.sin(w * t + z[name]))),
        lambda: (lambda z: c), lambda: (lambda z: base(c * z[name] ** 2)), lambda: (lambda z, t: c if t < 0.03 else 2 * c),
        lambda: (lambda z: base(c * np.sign(z[name]))), lambda: sympy.sqrt(x), lambda: sympy.log(x), lambda: 1 / x, lambda: raising,
        lambda: (lambda z: np.where(z[name] > 0, np.nan, c)), lambda: (lambda z, t: c if t < 0.02 else np.nan), lambda: (lambda z, t: c / (0.05 - t)),
        lambda: (lambda z: c * np.exp(50 * z[name])), lambda: sympy.exp(40 * x), lambda: (lambda z: [c]), lambda: (lambda z: z[name].ravel()),
    ]  # fmt: skip
    return kinds[draw(st.integers(0, 15) if draw(often) else st.integers(16, len(kinds) - 1))]()


@st.composite
def models(draw: Any) -> tuple[dict[str, bool], int, dict[str, Any], dict[str, Any]]:
    """Coordinates with whether they have noise, levels, arguments of a Model, and words about it; most are physical."""
    n = draw(st.sampled_from([1, 1, 1, 2]))
    names = ("x",) if n == 1 else ("q", "p")
    d = draw(st.sampled_from([1, 2, 2, 2, 3]))
    p = draw(st.sampled_from([0, 1, 1, 2]))
    noisy = [draw(often)] if n == 1 else [draw(st.booleans()), draw(often)]
    entry = scalars(names)
    a: dict[str, Any] = {}
    what = draw(st.sampled_from(["none", "constant", "scaled", "callable"]))
    if what != "none":
        h, f = draw(hermitian(d)), draw(entry)
        a["H"] = h if what == "constant" or callable(f) else [[f * e for e in row] for row in h]
        if what == "callable" and callable(f) and f is not raising:
            a["H"] = (lambda z, t: h * 1.0) if draw(st.booleans()) else (lambda z: [[e * np.cos(z[names[0]]) for e in row] for row in h])
    if p:
        a["L"] = [draw(matrices(d)) if draw(st.booleans()) else np.diag(np.arange(d, dtype=float) - 0.5) for _ in range(p)]
        rows = {c: [draw(st.sampled_from([0.0, 0.5, -0.5, 1.0, 0.3j])) for _ in range(p)] for c, noise in zip(names, noisy, strict=True) if noise}
        if rows and not draw(seldom):
            a["D1"] = rows
        style = draw(st.sampled_from(["saturated", "saturated", "excess", "excess", "large"])) if draw(often) else draw(st.sampled_from(["broken", "none"]))
        a |= {"D0": "saturated"} if style in ("saturated", "excess") else {"D0": (9.0 if style == "large" else 1e-3) * np.eye(p)} if style != "none" else {}
        if style == "excess":
            a["excess"] = np.diag([draw(scalars(names, positive=True)) for _ in range(p)]) if draw(st.booleans()) else 0.3 * np.eye(p)
    d2 = {c: draw(scalars(names, positive=True)) for c, noise in zip(names, noisy, strict=True) if noise}
    if n == 2 and all(noisy) and draw(seldom):
        s = draw(st.floats(-1.05, 1.05))
        a["D2"] = [[0.5, 0.5 * s], [0.5 * s, 0.5]]
    elif d2:
        a["D2"] = d2
    if draw(st.booleans()):
        a["D1C"] = {c: draw(entry) for c in names if draw(st.booleans())}
    if n == 2 and draw(seldom):
        a["D1C"] = {"q": lambda z: z.p, "p": lambda z: -z.q}
    return dict(zip(names, noisy, strict=True)), d, a, {"coordinates": names, "dim": d, **{k: _short(v) for k, v in a.items()}}


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) < 120 else text[:117] + "..."


#: Ends with and without noise
ENDS = {
    True: ("open", "open", "periodic", "reflecting", "absorbing", ("reflecting", "open"), ("absorbing", "reflecting")),
    False: ("open", "open", "periodic", "outflow", ("outflow", "open")),
}


@st.composite
def grids(draw: Any, noisy: dict[str, bool]) -> dict[str, Any]:
    """Arguments of a Grid."""
    scale = draw(st.sampled_from([4.0] * 12 + [8.0, 8.0, 2.0, 1e5, 1e-9]))
    most = 40 if len(noisy) == 1 else 14
    shift = draw(st.sampled_from([0.0] * 8 + [0.5, 0.1, 100.0]))
    out = {}
    for c, noise in noisy.items():
        ends = draw(st.sampled_from(ENDS[noise])) if draw(often) else draw(st.sampled_from([*ENDS[True], *ENDS[False], "specular(p)", "specular(q)"]))
        if c == "q" and not noise and not shift and draw(seldom):
            ends = "specular(p)"
        out[c] = (scale * (shift - 1), scale * (shift + 1), draw(st.integers(8, most)), ends)
    return out


@st.composite
def states(draw: Any, grid: Any, d: int) -> Callable[[], Any]:
    """A function that makes an initial state."""
    m = draw(matrices(d))
    mixed = m @ m.conj().T + 1e-3 * np.eye(d)
    mixed = mixed / np.trace(mixed).real
    w = np.linalg.eigh(mixed)[1][:, 0]
    quantum = draw(st.sampled_from(["ket", "ket", "ket", "matrix", "matrix", "turning"]))
    state: Any = {"ket": w, "matrix": mixed, "turning": (lambda z: [np.cos(z[grid.names[0]])] + [np.sin(z[grid.names[0]])] + [0.0] * (d - 2)) if d > 1 else w}[quantum]
    if quantum == "turning" and not draw(often):
        state = draw(st.sampled_from([raising, lambda z: [1, 1], lambda z: 1, lambda z: [], lambda z: [[1, 0], [0]], lambda z: "ab"]))
    mean = {a.name: 0.5 * (a.lower + a.upper) + draw(st.sampled_from([0.0] * 12 + [0.2, 0.2, 0.9])) * 0.5 * (a.upper - a.lower) for a in grid.axes}
    std = {a.name: draw(st.sampled_from([0.055] * 12 + [0.07, 0.07, 0.01, 0.5])) * (a.upper - a.lower) for a in grid.axes}
    kind = draw(st.sampled_from(["gaussian"] * 12 + ["point", "product", "array", "list", "junk"]))
    first = grid.axes[0]
    bump = lambda z: np.exp(-(((z[first.name] - mean[first.name]) / std[first.name]) ** 2)) * sum(0 * z[c] + 1 for c in grid.names)
    gaussian = partial(cq.gaussian, grid, mean, std, state)
    array = np.zeros((d, d, *grid.shape), dtype=complex)
    array[(slice(None), slice(None), *[k // 2 for k in grid.shape])] = mixed / grid.cell_volume
    other = draw(junk)
    return {
        "gaussian": gaussian, "point": partial(cq.point, grid, mean, state), "product": partial(cq.product, grid, bump, state),
        "array": lambda: cq.from_array(grid, array), "list": lambda: [gaussian(), cq.gaussian(grid, mean, std, mixed)],
        "junk": lambda: cq.gaussian(grid, mean, other, state) if isinstance(other, int | str) else other,
    }[kind]  # fmt: skip


times = st.sampled_from([[0, 0.01], [0, 0.1], [0, 0.05, 0.1], [0.0, 0.2], [-1, -0.9], [0, 1e-9], [0, 0.5], [5, 5.1, 5.15], np.linspace(0, 0.2, 5)])
SAVE = ("density", "purity", "entropy mutual", "marginal x", "marginal q", "expect sigmaz", "purity", "mean", "density", "entropy", "bloch", "populations", "covariance", "current", "conditional_state x=0:1", "expect (", "coherence levels=0,9")  # fmt: skip


@st.composite
def solve_options(draw: Any) -> dict[str, Any]:
    """Options of solve; most are left out."""
    out: dict[str, Any] = {"tol": draw(st.sampled_from([1e-1, 1e-2, 1e-2, 1e-3, 1e-3, 1e-5]))}
    rare = lambda name, values, when=seldom: out.update({name: draw(st.sampled_from(values))}) if draw(when) else None
    rare("method", ["auto", "split", "fv", "fv"], st.booleans())
    if out.get("method") != "fv" or not draw(often):
        rare("positivity", ["exact"])
    fits = {"fv": ["limited", "upwind", "linear"], "split": ["shift", "limited"] if "positivity" in out else [None]}.get(out.get("method", ""), ["limited", "upwind"])
    rare("transport", fits if draw(often) else ["limited", "upwind", "linear", "shift", "none"])
    if out.get("method") != "fv" and "positivity" not in out:
        rare("dt", [0.05, 0.01, 1.0, 1e-3])
    if "dt" not in out or not draw(often):
        rare("dt_max", [0.05, 1.0, 0.02])
    rare("grid_error", [False, True], st.booleans())
    if not draw(often):
        rare("frames", [[0], [0.1], [], [0.05, 7]], often)
    rare("check", ["error", "error", "warn", "off"])
    if draw(seldom):
        out["save"] = draw(st.lists(st.sampled_from(SAVE), max_size=3))
    return out


@st.composite
def solve_cases(draw: Any) -> Case:
    """A call of ``solve``: a model on a grid from a state, with options, one or two of all of these replaced by junk now and then."""
    noisy, d, a, words = draw(models())
    names = tuple(noisy)
    axes, when, options = draw(grids(noisy)), draw(times), draw(solve_options())
    spoilt = _spoil(draw, ({"dim": d, **a}, axes, {"t": when}, options), {"H", "L", "D0", "D1", "D2", "D1C", "excess", "check"}, SOLVE)
    d, a, axes, when, options = spoilt[0].pop("dim"), *spoilt[:2], spoilt[2]["t"], spoilt[3]
    words |= {"grid": axes, "t": _short(when), **{k: _short(v) for k, v in options.items()}}
    try:
        grid, levels = cq.Grid(**axes), d if isinstance(d, int) and not isinstance(d, bool) and 0 < d < 4 else 2
        start = draw(states(grid, levels))
    except cq.CqpdeError:
        start = lambda: cq.gaussian(cq.Grid(**axes), 0.0, 1.0, cq.ket("0"))
    declared = not {str(options.get("check")), str(a.get("check"))} & {"warn", "off"}
    action = lambda: cq.solve(cq.Model(names, d, **a), start(), when, progress=False, **options)
    return Case("solve", words, action, partial(physical_solution, declared=declared))


SOLVE = ("tol", "method", "positivity", "transport", "dt_max", "dt", "save", "frames", "grid_error", "check")
UNRAVEL = ("trajectories", "seed", "method", "dt", "moments", "bias", "state", "store", "stored", "arrivals", "field", "threads", "check")


def _spoil(draw: Any, parts: tuple[dict[str, Any], ...], model: set[str], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Copies of the arguments, in one case of four with junk in one or two places."""
    out = [dict(p) for p in parts]
    for _ in range(draw(st.sampled_from([0] * 9 + [1, 1, 2]))):
        k = draw(st.integers(0, len(out) - 1))
        known = {0: [*out[0], *sorted(model)], len(out) - 1: list(names)}.get(k, list(out[k]))
        key, value = draw(st.sampled_from(known)), draw(junk)
        if k == 1 and draw(st.booleans()):
            spec = list(out[k][key]) if isinstance(out[k][key], tuple) else [0, 1, 8]
            spec[draw(st.integers(0, len(spec) - 1))] = value
            value = tuple(spec)
        if key in ("trajectories", "threads") and isinstance(value, float | int) and value > 1000:
            continue  # a request that is long, and no mistake
        out[k][key] = value
    return out


@st.composite
def unravel_cases(draw: Any) -> Case:
    """A call of ``unravel``."""
    noisy, d, a, words = draw(models())
    names = tuple(noisy)
    axes, when = draw(grids(noisy)), draw(times)
    options: dict[str, Any] = {"trajectories": draw(st.sampled_from([1, 2, 30, 60])), "seed": draw(st.integers(0, 9))}
    rare = lambda name, values, when=seldom: options.update({name: draw(st.sampled_from(values))}) if draw(when) else None
    rare("method", ["instrument", "euler-maruyama", "weak-2", "linear", "mean-field"], st.booleans())
    rare("dt", [0.05, 0.02, 1.0, 1e-3], st.booleans())
    for name in ("bias", "arrivals", "field"):
        rare(name, [True, False])
    rare("state", ["ket", "matrix", "auto"])
    rare("store", [1, 3])
    if "store" in options or not draw(often):
        rare("stored", [1, 50])
    rare("check", ["warn", "off"])
    rare("threads", [1, 2])
    rare("moments", [{"a": lambda z, rho: rho[:, 0, 0].real}, {"t": lambda z, rho: 0}, {"b": lambda z, rho: rho}, {"c": raising}, {"d": lambda z, rho: "x"}])
    spoilt = _spoil(draw, ({"dim": d, **a}, axes, {"t": when}, options), {"H", "L", "D0", "D1", "D2", "D1C", "excess"}, UNRAVEL)
    d, a, axes, when, options = spoilt[0].pop("dim"), *spoilt[:2], spoilt[2]["t"], spoilt[3]
    words |= {"grid": axes, "t": _short(when), **{k: _short(v) for k, v in options.items()}}
    try:
        grid, levels = cq.Grid(**axes), d if isinstance(d, int) and not isinstance(d, bool) and 0 < d < 4 else 2
        start = draw(states(grid, levels))
    except cq.CqpdeError:
        start = lambda: cq.gaussian(cq.Grid(**axes), 0.0, 1.0, cq.ket("0"))
    declared = str(options.get("check")) not in ("warn", "off")
    action = lambda: cq.unravel(cq.Model(names, d, **a), start(), when, progress=False, **options)
    return Case("unravel", words, action, partial(physical_ensemble, declared=declared))


KINDS = {"solve": solve_cases(), "unravel": unravel_cases()}
