"""Grid against trajectories for the models without a closed form: mass in superposition (4-D), well and barrier.

    python -m validation.paper_models              # 10^6 trajectories each, 64^4 cells: an hour and 8 GB
    python -m validation.paper_models --quick      # few cells, few trajectories

Both roads start from the same Gaussian; ``cqpde.validate`` compares all moments up to second order times a complete set of operators, the
grid's extrapolated from two numbers of cells (48^4 and 64^4), and all histograms. Prints verdict, p-value, seconds, and what the moments
change from the coarser grid to the finer one.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import cqpde as cq


def mass(cells: int, quick: bool) -> Any:
    """Solution and start of the mass in superposition on cells^4."""
    if quick:  # a short run that few cells hold
        grid = cq.Grid(x=(-1.8, 1.8, cells), px=(-0.08, 0.08, cells), y=(-2.3, 1.3, cells), py=(-0.075, 0.085, cells))
        rho0 = cq.gaussian(grid, {"y": -0.5}, {"x": 0.2, "y": 0.2, "px": 0.01, "py": 0.01}, cq.ket("+"))
    else:
        grid = cq.models.mass_in_superposition_grid(cells)
        rho0 = cq.models.mass_in_superposition_start(grid)
    times = [0.0, 0.1 if quick else 0.35]
    sol = cq.solve(cq.models.mass_in_superposition(), rho0, times, dt=0.01, frames=times[1:], tol=1e-2, grid_error=False)
    return sol, cq.models.mass_in_superposition(), rho0, 0.005


def well(cells: int, quick: bool) -> Any:
    """Solution and start of the well and barrier with q_min = 0.1."""
    grid = cq.models.well_and_barrier_grid(0.1, (cells, cells))
    rho0 = cq.gaussian(grid, {"q": 1.0, "p": -1.0}, 0.25, cq.ket("+"))
    sol = cq.solve(cq.models.well_and_barrier(), rho0, [0.0, 0.5], tol=1e-3, grid_error=False)
    return sol, cq.models.well_and_barrier(), rho0, 0.005


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Print the comparisons; returns reports and changes by model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--trajectories", type=int, default=1_000_000)
    parser.add_argument("--only", choices=("mass", "well"))
    given = parser.parse_args(argv)
    found = {}
    for name, make, full, small in (("mass", mass, (64, 48), (24, 18)), ("well", well, (192, 128), (64, 48))):
        if given.only not in (None, name):
            continue
        began = time.perf_counter()
        fine, coarse = small if given.quick else full
        sol, model, rho0, dt = make(fine, given.quick)
        rough = make(coarse, given.quick)[0]
        ens = cq.unravel(model, rho0, [0.0, float(sol.t[-1])], trajectories=5000 if given.quick else given.trajectories, seed=1, dt=dt, bias=True)
        report = cq.validate(sol, ens, coarse=rough)
        change = {k: float(np.abs(sol.cq.moment(k)[-1] - rough.cq.moment(k)[-1])) for k in (f"{a} {a}" for a in sol.cq.grid.names)}
        found[name] = {"verdict": report.verdict, "p_value": report.p_value, "reasons": report.reasons, "change": change}
        print(f"{name}: {report.verdict}, p = {report.p_value:.3g}, {time.perf_counter() - began:.0f} s; {'; '.join(report.reasons)}")
        print("  second moments change by", ", ".join(f"{k}: {v:.2g}" for k, v in change.items()), f"from {coarse} to {fine} cells per axis")
    return found


if __name__ == "__main__":
    main()
