"""Bandwidth of every kind of sweep of the split route in equal steps, and of one of the finite volumes, against STREAM's triad and a matrix product.

    python -m validation.bandwidth              # 4096^2 and 64^4 cells, d = 2 and 4: about 5 minutes, 9 GB
    python -m validation.bandwidth --medium     # 1024^2 and 40^4 cells, d = 2
    python -m validation.bandwidth --quick      # small grids, one thread

A sweep is counted as one read and one write of the state (16 bytes per number in double precision, 8 in single), whatever it moves besides: its
tables, and what the cache cannot hold. The triad ``a = b + s c`` is counted as two reads and one write of 64 MB arrays, as STREAM counts; the better one of both precisions is taken.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
from numba import njit, prange

import cqpde as cq
from cqpde.channels.compose import Composition, Flow, local_flow
from cqpde.channels.convolution import Convolution
from cqpde.channels.lines import contraction
from cqpde.channels.parts import fields_at
from cqpde.channels.spectral import apply_multiplier
from cqpde.channels.structure import analyse
from cqpde.components import empty_state
from cqpde.fv.assemble import layout
from cqpde.fv.generator import make_generator

from .kernels import diagonal_model, seconds

#: Most multiply-adds of a sweep by full matrices: they grow with the cells of a line.
MOST_PRODUCTS = 1 << 33


@njit(parallel=True)
def _triad(a: Any, b: Any, c: Any, s: Any) -> None:
    for i in prange(len(a)):
        a[i] = b[i] + s * c[i]


def triad(precision: Any, quick: bool, budget: float) -> float:
    """Bytes per second of the triad with the present number of threads."""
    a, b, c = (np.ones((1 << 20 if quick else 1 << 26) // np.dtype(precision).itemsize * 8, dtype=precision) for _ in range(3))
    return 3 * a.nbytes / seconds(lambda: _triad(a, b, c, precision(0.5)), budget)


def peak(precision: Any, budget: float) -> float:
    """Multiplications and additions per second of a matrix product on one core (BLAS)."""
    a = np.ones((768, 768), dtype=precision)
    return 2.0 * 768**3 / seconds(lambda: a @ a, budget)


def filled(shape: tuple[int, ...], precision: Any, value: float) -> Any:
    """A state as runs have them, in memory of its own."""
    out = empty_state(shape, precision)
    out[...] = value
    return out


def sweeps(d: int, axes: int, n: int, precision: Any) -> Iterator[tuple[str, Any, Callable[[], Any]]]:
    """Name, state and action of every kind of sweep."""
    model = diagonal_model(d, axes)
    grid = cq.Grid(**{c: (-5, 5, n) for c in model.coordinates})
    found = analyse(model, grid, (0.0,))
    composition = Composition(model, grid, found, dtype=precision)
    x = filled((d * d, 1, *grid.shape), precision, 1.0)
    for part in found.parts:
        flow = composition.flow(part, 0.0, 0.01)  # in the precision of the state
        if flow.multiplier is not None:
            name = f"{type(part).__name__.lower()}, axis {flow.axes[0] + 1} of {axes}"
            convolution = Convolution.of(flow.multiplier, x, flow.axes[0] + 1)
            yield f"circulant {name}", x, lambda convolution=convolution: convolution.apply(x)
            del convolution
            if axes == 2:
                yield f"transform {name}", x, lambda flow=flow: apply_multiplier(x, flow.multiplier, grid, flow.axes, None, numba.get_num_threads())
    local = Flow(local=local_flow(fields_at(model, grid.mesh(), 0.0, None), grid, 0.01)).rounded(precision)
    yield "local", x, lambda: composition.apply([local], x, np.zeros((1, 2 * axes, d * d)), None)
    if x.size * n <= MOST_PRODUCTS:
        lines = Flow(lines=contraction(grid, 1, np.array(0.1).reshape((1,) * axes), 0.01)).rounded(precision)
        yield "contraction", x, lambda: composition.apply([lines], x, np.zeros((1, 2 * axes, d * d)), None)
    if precision is np.float64:
        g = make_generator(model, grid, 0.0, layout(model, grid, (0.0,)), "limited")
        flat, e = x.reshape(d * d, -1), np.zeros((1, 2 * axes, d * d))
        y, total = filled(flat.shape, precision, 0.0), filled(flat.shape, precision, 0.0)
        yield "finite volumes", x, lambda: g.step(flat, e, y, e.copy(), total, e.copy(), 1e-3, 1.0, 0.0, 0.0)


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Print the table; returns its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--medium", action="store_true")
    parser.add_argument("--axes", type=int, nargs="+", choices=(2, 4), default=[2, 4])
    parser.add_argument("--levels", type=int, nargs="+", help="default: 2 and 4 (quick, medium: 2)")
    given = parser.parse_args(argv)
    sizes = {2: 96, 4: 12} if given.quick else {2: 1024, 4: 40} if given.medium else {2: 4096, 4: 64}
    budget, rows = 0.01 if given.quick else 1.0, []
    most = numba.config.NUMBA_NUM_THREADS
    try:
        base = {}
        for threads in [1] if given.quick else sorted({1, most}):
            numba.set_num_threads(threads)
            base[threads] = max(triad(precision, given.quick, budget) for precision in (np.float64, np.float32))
            print(f"triad {base[threads] / 1e9:.1f} GB/s with {threads} threads", flush=True)
        for precision in (np.float64, np.float32):
            word = "double" if precision is np.float64 else "single"
            print(f"{word}: matrix product {peak(precision, budget) / 1e9:.0f} Gflop/s on one core", flush=True)
            for axes, n in ((axes, sizes[axes]) for axes in given.axes):
                for d in given.levels or ((2,) if given.quick or given.medium else (2, 4)):
                    for name, x, action in sweeps(d, axes, n, precision):
                        for threads, stream in base.items():
                            numba.set_num_threads(threads)
                            t = seconds(action, budget)
                            row = {"sweep": name, "precision": word, "axes": axes, "cells": n, "d": d, "threads": threads, "bytes_per_second": 2 * x.nbytes / t, "of_triad": 2 * x.nbytes / t / stream}
                            rows.append(row)
                            print(f"{name:>35} {word} {n:>5}^{axes} d={d} threads={threads} {row['bytes_per_second'] / 1e9:7.2f} GB/s {100 * row['of_triad']:5.0f} % of triad  {1e9 * t / x.size:6.2f} ns/value", flush=True)
    finally:
        numba.set_num_threads(most)
    return rows


if __name__ == "__main__":
    main()
