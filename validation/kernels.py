"""Speed of the finite-volume kernels against a plain array copy, in one run.

    python -m validation.kernels            # the full table (a few minutes, about 3 GB)
    python -m validation.kernels --quick    # small grids, one thread count

Per kernel, dimension and number of levels: cell updates per second, bytes per second (state read once and written once, as a copy
does) and the ratio to the copy of the same state measured just before. The sweep of the generator is one multiply-add per term and
cell (column "terms"); the remap reconstructs and limits a quartic density matrix in every cell.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

import cqpde as cq
from cqpde.components import to_components
from cqpde.fv.assemble import layout
from cqpde.fv.generator import make_generator
from cqpde.fv.limited import LimitedTransport
from cqpde.kernels.stencil import copy_step


def diagonal_model(d: int, axes: int) -> Any:
    """Axes in (q, p) pairs; force = a diagonal operator, noise on every p: the structure of the paper's models."""
    pairs = [("q", "p"), ("x", "y")][: axes // 2]
    force = np.diag(np.linspace(1, -1, d))
    return cq.Model(
        [c for pair in pairs for c in pair], d,
        H=lambda z: [[z.q * force[i, i] if i == j else 0 for j in range(d)] for i in range(d)],
        L=[force] * len(pairs), D1={b: [1.0 if k == i else 0.0 for k in range(len(pairs))] for i, (_, b) in enumerate(pairs)},
        D2={b: 0.5 for _, b in pairs}, D0="saturated", D1C={a: (lambda z, b=b: z[b]) for a, b in pairs},
    )  # fmt: skip


def dense_model(d: int, axes: int) -> Any:
    """The same with a random operator drift, so that every element couples to every other."""
    rng = np.random.default_rng(0)
    m = rng.normal(size=(d, d)) + 1j * rng.normal(size=(d, d))
    m -= np.trace(m) / d * np.eye(d)
    base = diagonal_model(d, axes)
    pairs = [("q", "p"), ("x", "y")][: axes // 2]
    return cq.Model(
        base.coordinates, d, H=m + m.conj().T, L=[m] * len(pairs),
        D1={b: [1.0 if k == i else 0.0 for k in range(len(pairs))] for i, (_, b) in enumerate(pairs)},
        D2={b: 0.5 for _, b in pairs}, D0="saturated", D1C={a: (lambda z, b=b: z[b]) for a, b in pairs},
    )  # fmt: skip


def seconds(action: Callable[[], Any], budget: float) -> float:
    """Best time of one call within a time budget, after a warm-up."""
    action()
    best, end = np.inf, time.perf_counter() + budget
    while time.perf_counter() < end:
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best


def measure(d: int, axes: int, n: int, budget: float) -> list[tuple[str, int, float, float]]:
    """Rows (kernel, terms, seconds, seconds of a copy) for one size."""
    model = diagonal_model(d, axes)
    grid = cq.Grid(**{c: (-5, 5, n) for c in model.coordinates})
    x = to_components(cq.gaussian(grid, 0, 0.8, np.eye(d)[0]).rho).reshape(d * d, -1)
    y, acc = np.zeros_like(x), np.zeros_like(x)
    e = np.zeros((1, 2 * axes, d * d))
    copy = seconds(lambda: copy_step(x, y), budget)
    rows = []
    models = [("sweep, diagonal", model)] + ([("sweep, dense", dense_model(d, axes))] if d <= 4 else [])
    for name, which in models:
        g = make_generator(which, grid, 0.0, layout(which, grid, (0.0,)), "limited")
        rows.append(
            (
                name,
                g.stencil.n_terms,
                seconds(lambda g=g: g.step(x, e, y, e.copy(), acc, e.copy(), 1e-3, 1.0, 0.0, 0.0), budget),
                copy,
            )
        )
    transport = LimitedTransport(model, grid, [0])
    rows.append(("remap, limited", 0, seconds(lambda: transport.step(x, y, e, 0.0, 0.01), budget), copy))
    return rows


def main(argv: list[str] | None = None) -> list[tuple[Any, ...]]:
    """Print the table; returns its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(argv).quick
    sizes = {2: 64 if quick else 512, 4: 8 if quick else 24}
    print(
        f"{'kernel':>16} {'axes':>4} {'cells':>8} {'d':>2} {'threads':>7} {'terms':>6} {'Mcells/s':>9} {'GB/s':>7} {'of copy':>8}"
    )
    out = []
    for threads in [1] if quick else sorted({1, numba.config.NUMBA_NUM_THREADS}):
        numba.set_num_threads(threads)
        for axes, n in sizes.items():
            for d in (2,) if quick else (2, 4, 8):
                for name, terms, t, copy in measure(d, axes, n, 0.05 if quick else 0.5):
                    cells = n**axes
                    moved = 2 * 8 * d * d * cells
                    out.append((name, axes, cells, d, threads, terms, cells / t, moved / t, copy / t))
                    print(
                        f"{name:>16} {axes:>4} {cells:>8} {d:>2} {threads:>7} {terms or '-':>6} {cells / t / 1e6:9.2f} {moved / t / 1e9:7.2f} {copy / t:8.3f}"
                    )
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    return out


if __name__ == "__main__":
    main()
