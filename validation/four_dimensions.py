"""A 4-D problem: a test mass in the plane, drawn to a mass in superposition of two places (paper, C.14), on n^4 cells.

    python -m validation.four_dimensions              # 48^4 cells, about 2 minutes and 2 GB
    python -m validation.four_dimensions --quick      # 16^4 cells
    python -m validation.four_dimensions --options    # 48^4 cells in single precision and with skipped lines, about 3 minutes

Prints seconds per step of the split route, bytes per second (every sub-flow reads and writes the state once) against a plain copy of the
same state in the same run, and the peak memory of stepping in units of the state (its 4 real components per cell). With ``--options``: seconds of
stepping and peak memory of whole runs (8 steps and their twin), processor seconds per step on one thread (the best of three chains of 4 steps: other
work on the machine counts less), what ``skip_below`` states to leave out, and the distance from the run in double precision that
skips nothing.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
import warnings
from typing import Any

import numba
import numpy as np
import sympy

import cqpde as cq
from cqpde.channels.compose import Composition
from cqpde.channels.parts import Structure
from cqpde.channels.structure import analyse
from cqpde.components import to_components, trace_norm_bound
from cqpde.kernels.stencil import copy_step
from cqpde.runs import PRECISIONS

DISTANCE, SOFTENING, SIGMA = 0.25, 0.25, 0.05


def model() -> Any:
    """H = p^2/2 + V(|r - d|) |R><R| + V(|r + d|) |L><L| with V = -1/sqrt(r^2 + eps^2), momentum noise sigma."""
    x, y, vx, vy = sympy.symbols("x y vx vy", real=True)
    pull = lambda c: -1 / sympy.sqrt((x - c) ** 2 + y**2 + SOFTENING**2)
    return cq.healed(
        [("x", "vx"), ("y", "vy")], (vx**2 + vy**2) / 2, sympy.diag(pull(-DISTANCE), pull(DISTANCE)), {"vx": SIGMA, "vy": SIGMA}
    )


def grid(n: int) -> cq.Grid:
    """A box that holds the path of a short run."""
    return cq.Grid(x=(-1.5, 1.5, n), vx=(-4, 4, n), y=(-2, 1, n), vy=(-4, 4, n))


def resident() -> float:
    """Resident memory of this process now, in bytes."""
    with open("/proc/self/statm") as handle:
        return float(handle.read().split()[1]) * os.sysconf("SC_PAGESIZE")


class Peak:
    """Largest resident memory inside a ``with`` block, sampled every two milliseconds."""

    def __enter__(self) -> Peak:
        self.bytes, self._done = resident(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.bytes = max(self.bytes, resident())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Print the figures; returns them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cells", type=int, default=48)
    parser.add_argument("--options", action="store_true")
    arguments = parser.parse_args(argv)
    n = 16 if arguments.quick else arguments.cells
    if arguments.options:
        return {f"{row['precision']} {row['skip_below']:g} {name}": row[name] for row in options(n) for name in ("seconds", "stated", "measured")}
    g, m = grid(n), model()
    found = analyse(m, g, (0.0,))
    assert isinstance(found, Structure)
    print("parts:", found.describe(g))
    rho0 = cq.gaussian(g, {"y": -0.5}, {"x": 0.2, "y": 0.2, "vx": 0.55, "vy": 0.55}, cq.ket("+"))
    x = np.ascontiguousarray(to_components(rho0.rho)[:, None])
    del rho0
    escaped, state = np.zeros((1, 8, 4)), x.nbytes
    flows = Composition(m, g, found)
    warm = Composition(m, grid(8), found)
    warm.chain(np.zeros((4, 1, 8, 8, 8, 8)), escaped, 0.0, 0.01, 1, None)
    out = np.empty_like(x)
    copy = min(_seconds(copy_step, x.reshape(4, -1), out.reshape(4, -1)) for _ in range(3))
    del out
    steps, before = 3, resident() - state
    with Peak() as watched:
        began = time.perf_counter()
        y, _ = flows.chain(x, escaped, 0.0, 0.01 * steps, steps, None)
        seconds = (time.perf_counter() - began - flows.seconds_setup) / steps
    memory = (watched.bytes - before) / state
    sweeps = (steps * sum(len(group) for group in found.groups) + len(found.groups[0])) / steps
    figures = {
        "cells": float(n**4),
        "state_bytes": float(state),
        "seconds_per_step": seconds,
        "setup_seconds": flows.seconds_setup,
        "copy_seconds": copy,
        "bytes_per_second": 2 * state * sweeps / seconds,
        "of_copy": copy * sweeps / seconds,
        "peak_states": memory,
        "trace": float(y[:2].sum() * g.cell_volume - 1),
    }
    for name, value in figures.items():
        print(f"{name:>18}  {value:.4g}")
    return figures


def options(n: int) -> list[dict[str, Any]]:
    """The same run in both precisions and with lines skipped."""
    m, end, rows = model(), 0.08, []
    rho0 = cq.gaussian(grid(n), {"y": -0.5}, {"x": 0.2, "y": 0.2, "vx": 0.55, "vy": 0.55}, cq.ket("+"))
    exact: Any = None
    print(f"{'precision':>9} {'skip_below':>10} {'seconds':>8} {'per step':>9} {'peak':>9} {'stated':>9} {'measured':>9} {'trace - 1':>10} {'time error':>10}")
    for precision in ("double", "single"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cq.CqpdeWarning)
            cq.solve(m, rho0.on(grid(12)), [0, 0.02], dt=0.01, precision=precision, tol=0.5)  # compiles
            for threshold in (0.0, 1e-14, 1e-10, 1e-7, 1e-4):
                with Peak() as watched:
                    before = watched.bytes
                    sol = cq.solve(m, rho0, [0, end], dt=0.01, tol=0.1, frames=[end], precision=precision, skip_below=threshold)
                busy = _processor(m, rho0, precision, threshold)
                x = to_components(sol.rho.values[-1].astype(complex))
                exact = x if exact is None else exact
                row = {
                    "precision": precision, "skip_below": threshold, "seconds": float(sol.attrs["seconds_steps"]), "processor": busy, "peak": watched.bytes - before,
                    "stated": float(sol.attrs.get("skipped_error", 0.0)), "measured": trace_norm_bound((x - exact).reshape(4, -1), 1, grid(n).cell_volume),
                    "trace": float(sol.trace[-1] - sol.trace[0]), "time_error": float(sol.time_error[-1]),
                }  # fmt: skip
                rows.append(row)
                print(
                    f"{precision:>9} {threshold:10.0e} {row['seconds']:8.2f} {row['processor']:9.4f} {row['peak'] / 1e6:6.0f} MB {row['stated']:9.2g} {row['measured']:9.2g} {row['trace']:10.2g} {row['time_error']:10.2g}",
                    flush=True,
                )
                del sol
    return rows


def _processor(m: Any, rho0: Any, precision: str, threshold: float) -> float:
    """Processor seconds per step of the parts alone on one thread."""
    most = numba.get_num_threads()
    found = analyse(m, rho0.grid, (0.0,))
    assert isinstance(found, Structure)
    x = to_components(rho0.rho, PRECISIONS[precision])[:, None]
    flows = Composition(m, rho0.grid, found, dtype=np.dtype(PRECISIONS[precision]), skip_below=threshold * float(x.max()))
    took = []
    try:
        numba.set_num_threads(1)
        for _ in range(4):  # the first one builds the tables
            began = time.process_time()
            flows.chain(x, np.zeros((1, 8, 4)), 0.0, 0.04, 4, None)
            took.append((time.process_time() - began) / 4)
    finally:
        numba.set_num_threads(most)
    return min(took[1:])


def _seconds(action: Any, *arguments: Any) -> float:
    began = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
