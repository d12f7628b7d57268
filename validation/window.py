"""A moving window against the fixed box that holds the whole path, on cells of the same widths.

    python -m validation.window              # about two minutes
    python -m validation.window --quick      # the packet alone, on a short path

Packet: linear Diosi model (paper, C.4) thrown at p = 40, against its closed form. Washboard: a qubit carried over 32 wells of V = cos(2 q)/20, which is
solved in steps. Orbit: the same qubit in an oscillator, over two turns, in equal steps. For both roads: largest number of cells, processor seconds, bytes of the
result, error; and the difference of the two beside what each states.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import sympy

import cqpde as cq
from cqpde.components import to_components, trace_norm_bound
from cqpde.models.linear_diosi import linear_diosi_exact
from cqpde.windows import Window, moved

DIOSI = {"m": 1.0, "lam": 0.1, "phi": 0.5, "sigma": 0.3}


def cases(quick: bool) -> dict[str, dict[str, Any]]:
    """Model, start, the grid around the start, the box of the whole path, and times of every case."""
    q, p = sympy.symbols("q p", real=True)
    turn = 0.1 * q * cq.sigmaz() + 0.5 * cq.sigmax()
    far = 1.0 if quick else 4.0
    packet = {
        "model": cq.models.linear_diosi(**DIOSI), "mean": {"q": 0, "p": 40}, "std": {"q": 0.4, "p": 0.3}, "t": np.linspace(0, far, 5),
        "cells": {"q": (-4, 0.125, 64), "p": (38, 1 / 12, 48)}, "box": {"q": (-4, 40 * far + 16), "p": (34, 46)}, "exact": True,
    }  # fmt: skip
    if quick:
        return {"packet": packet}
    return {
        "packet": packet,
        "washboard": {
            "model": cq.healed(("q", "p"), p**2 / 2 + 0.05 * sympy.cos(2 * q), turn, {"p": 0.05}), "mean": {"q": 0, "p": 10}, "std": {"q": 0.4, "p": 0.2},
            "t": np.linspace(0, 10, 5), "cells": {"q": (-4, 0.1, 80), "p": (8, 0.05, 80)}, "box": {"q": (-8, 128), "p": (6, 14)},
        },
        "orbit": {
            "model": cq.healed(("q", "p"), p**2 / 2 + q**2 / 2, turn, {"p": 0.2}), "mean": {"q": 20, "p": 0}, "std": {"q": 0.6, "p": 0.6},
            "t": np.linspace(0, 4 * np.pi, 5), "cells": {"q": (16, 0.125, 64), "p": (-4, 0.125, 64)}, "box": {"q": (-28, 28), "p": (-28, 28)},
            "options": {"dt": 0.01},
        },
    }  # fmt: skip


def timed(run: Any) -> tuple[float, Any]:
    """Processor seconds of a run, and its result."""
    began = time.process_time()
    result = run()
    return time.process_time() - began, result


def distance(a: np.ndarray, b: np.ndarray, grid: cq.Grid) -> float:
    """Upper bound of the integrated trace norm of a difference."""
    return trace_norm_bound(to_components(a - b)[:, None], 1, grid.cell_volume)


def measure(case: dict[str, Any], tol: float) -> list[dict[str, Any]]:
    """Both roads of one case."""
    small = cq.Grid(**{name: (low, low + n * h, n) for name, (low, h, n) in case["cells"].items()})
    box = {name: (round((low - a.lower) / a.spacing), round((high - low) / a.spacing)) for a, (name, (low, high)) in zip(small.axes, case["box"].items(), strict=True)}
    wide = cq.Grid(**{a.name: (a.lower + f * a.spacing, a.lower + (f + n) * a.spacing, n) for a, (f, n) in zip(small.axes, box.values(), strict=True)})
    start = lambda grid: cq.gaussian(grid, case["mean"], case["std"], cq.ket("+"))
    t, rows, options = case["t"], [], {"tol": tol, "method": "split", **case.get("options", {})}

    def error(rho: np.ndarray, grid: cq.Grid) -> float:
        if "exact" not in case:
            return float("nan")
        return distance(rho, linear_diosi_exact(grid, float(t[-1]), tuple(case["mean"].values()), tuple(case["std"].values()), **DIOSI), grid)

    seconds, moving = timed(lambda: cq.follow(case["model"], start(small), t, **options))
    last = moving.at()
    stated = [float(moving.dataset[name][-1]) for name in ("time_error", "grid_error", "window_error")]
    nbytes = sum(sol.rho.nbytes for sol in moving)
    rows.append({
        "road": "moving window", "cells": moving.attrs["most_cells"], "seconds": seconds, "megabytes": nbytes / 1e6, "stretches": moving.attrs["stretches"],
        "error": error(last.rho.values[0], last.cq.grid), "stated": sum(stated), "window_error": stated[-1], "probability": abs(float(moving.probability()[-1]) - 1),
    })  # fmt: skip
    try:
        seconds, fixed = timed(lambda: cq.solve(case["model"], start(wide), t, **options))
    except cq.CqpdeError as why:
        return [*rows, {"road": "fixed box", "cells": int(np.prod(wide.shape)), "why": str(why)}]
    first = tuple(round((a.lower - b.lower) / b.spacing) for a, b in zip(last.cq.grid.axes, wide.axes, strict=True))
    there, _ = moved(last.rho.values[0], Window(first, last.cq.grid.shape), Window((0,) * wide.ndim, wide.shape))
    rows.append({
        "road": "fixed box", "cells": int(np.prod(wide.shape)), "seconds": seconds, "megabytes": fixed.rho.nbytes / 1e6,
        "error": error(fixed.rho.values[-1], wide), "stated": float(fixed.time_error[-1]) + float(np.max(fixed.grid_error)),
        "difference": distance(there, fixed.rho.values[-1], wide),
    })  # fmt: skip
    return rows


def main(argv: list[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the packet alone, on a short path")
    parser.add_argument("--tol", type=float, default=1e-4, help="default %(default)g")
    arguments = parser.parse_args(argv)
    found = {}
    measure(cases(True)["packet"], arguments.tol)  # compiles
    print(f"{'':10} {'':14} {'cells':>8} {'seconds':>8} {'MB':>8} {'error':>9} {'stated':>9} {'difference':>10}")
    for name, case in cases(arguments.quick).items():
        found[name] = measure(case, arguments.tol)
        for row in found[name]:
            if "why" in row:
                print(f"{name:10} {row['road']:14} {row['cells']:8d} refused: {row['why']}")
                continue
            apart = f"{row['difference']:10.1e}" if "difference" in row else ""
            print(f"{name:10} {row['road']:14} {row['cells']:8d} {row['seconds']:8.2f} {row['megabytes']:8.1f} {row['error']:9.1e} {row['stated']:9.1e} {apart}")
    return found


if __name__ == "__main__":
    main()
