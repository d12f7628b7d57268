"""What the monitors of a run cost: 256 x 256 cells, two levels, ten outputs.

    python -m validation.monitors            # about half a minute
    python -m validation.monitors --cells 64

Shares of the wall-clock time of one and the same run: recording (trace, smallest eigenvalue, probability at the ends; without the copy of each field
into the result, which is no monitor and has a column of its own), the look for non-finite values after every step, the verdicts on box and cells at the end.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import cqpde as cq
from cqpde import recorder, solver
from cqpde.integrate import evolve

RUNS: dict[str, dict[str, Any]] = {
    "split, one exact step": {"tol": 1e-4},
    "split, 250 steps": {"tol": 1e-8, "dt_max": 0.004},
    "fv, limited": {"tol": 1e-3, "method": "fv", "grid_error": False},
    "exact positivity": {"tol": 1e-2, "method": "split", "positivity": "exact", "transport": "limited", "grid_error": False},
}


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Print the table and return its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=256)
    parser.add_argument("--tries", type=int, default=3, help="the one with the smallest share counts (default %(default)s)")
    arguments = parser.parse_args(argv)
    spent = dict.fromkeys(("finite", "verdicts", "fields"), 0.0)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **keys: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **keys)
            finally:
                spent[name] += time.perf_counter() - began

        return run

    look, verdicts, fields = evolve.require_finite, solver.caveats, recorder.matrices
    users = [m for name, m in sys.modules.items() if name.startswith("cqpde.") and getattr(m, "require_finite", None) is look]
    n = arguments.cells
    rho0 = cq.gaussian(cq.Grid(q=(-6, 6, n), p=(-9, 9, n)), 0, 0.4, cq.ket("+"))
    rows = []
    print(f"{'run':>24} {'seconds':>9} {'recording':>10} {'finite':>8} {'verdicts':>9} {'all':>7} {'(fields)':>9}")
    try:
        solver.caveats = timed("verdicts", verdicts)
        recorder.matrices = timed("fields", fields)  # type: ignore[assignment]
        for module in users:
            module.require_finite = timed("finite", look)  # type: ignore[attr-defined]
        for name, options in RUNS.items():
            shares = []
            for _ in range(arguments.tries + 1):  # the first one loads what it needs
                spent |= dict.fromkeys(("finite", "verdicts", "fields"), 0.0)
                began = time.perf_counter()
                with warnings.catch_warnings(action="ignore"):
                    found = cq.solve(cq.models.linear_diosi(), rho0, np.linspace(0, 1, 11), **options)
                seconds = time.perf_counter() - began
                parts = [(found.attrs["seconds_diagnostics"] - spent["fields"]) / seconds, spent["finite"] / seconds, spent["verdicts"] / seconds]
                shares.append((sum(parts), seconds, *parts, spent["fields"] / seconds))
            total, seconds, *parts = min(shares[1:])
            rows.append({"run": name, "seconds": seconds, "share": total})
            print(f"{name:>24} {seconds:>9.2f} {parts[0]:>10.1%} {parts[1]:>8.1%} {parts[2]:>9.1%} {total:>7.1%} {parts[3]:>9.1%}", flush=True)
    finally:
        solver.caveats, recorder.matrices = verdicts, fields
        for module in users:
            module.require_finite = look  # type: ignore[attr-defined]
    return rows


if __name__ == "__main__":
    main()
