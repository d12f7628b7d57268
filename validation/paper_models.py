"""Grid against trajectories for the models without a closed form: mass in superposition (4-D, and a coarse 6-D grid), well and barrier.

    python -m validation.paper_models              # 10^6 trajectories each, 64^4 and 640^2 cells: about 40 minutes, 6 GB
    python -m validation.paper_models --quick      # few cells, few trajectories, without the 6-D grid: seconds

Both roads start from the same Gaussian; ``cqpde.validate`` compares all moments up to second order times a complete set of operators, and
all histograms. The mass: change from 48^4 to 64^4 cells as the error of the cells, extrapolation in the step. The well and barrier: extrapolated
from three numbers of cells. Prints verdict, p-value, seconds, and what the moments change from the coarser grid to the finer one.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

import cqpde as cq


def mass(quick: bool, cells: tuple[int, int] = (64, 48)) -> tuple[list[Any], cq.State]:
    """Mass in superposition: the solution, one of twice the step, one on fewer cells; and the start.

    The boxes are wider than that of ``cqpde run``: beyond 1e-5 of the probability at their ends the moments tell in a comparison with many trajectories.
    """
    fine, coarse, dt, end = (28, 22, 0.0125, 0.1) if quick else (*cells, 0.0125, 0.35)

    def start(n: int) -> cq.State:
        if quick:  # a short run that few cells hold
            grid = cq.Grid(x=(-1.8, 1.8, n), px=(-0.105, 0.105, n), y=(-2.3, 1.3, n), py=(-0.1, 0.11, n))
            return cq.gaussian(grid, {"y": -0.5}, {"x": 0.2, "y": 0.2, "px": 0.012, "py": 0.012}, cq.ket("+"))
        grid = cq.Grid(x=(-3.4, 3.4, n), px=(-0.152, 0.152, n), y=(-3.6, 2.6, n), py=(-0.138, 0.146, n))
        return cq.models.mass_in_superposition_start(grid)

    model = cq.models.mass_in_superposition()
    run = lambda n, step: cq.solve(model, start(n), [0.0, end], dt=step, frames=[end], tol=1e-2, check="warn")
    return [run(fine, dt), run(fine, 2 * dt), run(coarse, dt)], start(fine)


def space(quick: bool, _: tuple[int, int] = (0, 0)) -> tuple[list[Any], cq.State]:
    """The same in space, 6-D: softer and wider (eps = 0.8, start 0.45 wide), so that 16 cells an axis resolve a short run."""
    fine, coarse = (14, 12) if quick else (16, 14)

    def start(n: int) -> cq.State:
        place, speed = (-2.6, 2.6, n), (-0.125, 0.125, n)
        grid = cq.Grid(x=place, px=speed, y=(-3.1, 2.1, n), py=speed, z=place, pz=speed)
        std = {c: 0.45 for c in "xyz"} | {f"p{c}": 0.022 for c in "xyz"}
        return cq.gaussian(grid, {"y": -0.5}, std, cq.ket("+"))

    model = cq.models.mass_in_superposition(eps=0.8, dimensions=3)
    run = lambda n, step: cq.solve(model, start(n), [0.0, 0.06], dt=step, frames=[0.06], tol=1e-2, check="warn")
    return [run(fine, 0.01), run(fine, 0.02), run(coarse, 0.01)], start(fine)


def well(quick: bool, _: tuple[int, int] = (0, 0)) -> tuple[list[Any], cq.State]:
    """Well and barrier with q_min = 0.1, from a Gaussian that cells resolve and that starts above q = 0; and the start."""
    cells, tol = ((80, 60, 45), 5e-4) if quick else ((640, 480, 320), 2e-5)
    box = lambda n: cq.models.well_and_barrier_grid(0.1, (n, n), q_max=3.5, p_max=6.0)  # holds a run to t = 0.5
    start = lambda n: cq.gaussian(box(n), {"q": 1.0, "p": -1.0}, 0.18, cq.ket("+"))
    return [cq.solve(cq.models.well_and_barrier(), start(n), [0.0, 0.5], tol=tol, grid_error=False) for n in cells], start(cells[0])


#: Model, solutions, and trajectories of the quick mode: 100 per independent moment.
MODELS = {
    "mass": (cq.models.mass_in_superposition, mass, 6000), "space": (lambda: cq.models.mass_in_superposition(eps=0.8, dimensions=3), space, 15_000), "well": (cq.models.well_and_barrier, well, 2500),
}  # fmt: skip


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Print the comparisons; returns reports and changes by model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--trajectories", type=int, help="default: 10^6, quick: a few thousand")
    parser.add_argument("--dt", type=float, default=0.005, help="step of the trajectories")
    parser.add_argument("--cells", type=int, nargs=2, default=(64, 48), metavar=("FINE", "COARSE"), help="cells per axis of the mass")
    parser.add_argument("--only", choices=tuple(MODELS))
    given = parser.parse_args(argv)
    found = {}
    for name, (model, solutions, few) in MODELS.items():
        if given.only not in (None, name) or (given.quick and given.only is None and name == "space"):
            continue
        count = given.trajectories or (few if given.quick else 1_000_000)
        began = time.perf_counter()
        (sol, *coarse), rho0 = solutions(given.quick, tuple(given.cells))
        seconds = [time.perf_counter() - began]
        ens = cq.unravel(model(), rho0, [0.0, float(sol.t[-1])], trajectories=count, seed=1, dt=0.005 if given.quick else given.dt, bias=True)
        seconds.append(time.perf_counter() - began - seconds[0])
        report = cq.validate(sol, ens, coarse=coarse)
        table = report.dataset.isel(t=-1)
        share = float(np.nanmax((np.abs(table.grid_error) + np.abs(table.bias.fillna(0.0))) / table.standard_error.where(table.standard_error > 1e-12)))
        change = {k: float(np.abs(sol.cq.moment(k)[-1] - coarse[-1].cq.moment(k)[-1])) for k in (f"{a} {a}" for a in sol.cq.grid.names)}
        found[name] = {
            "verdict": report.verdict, "p_value": report.p_value, "errors_in_standard_errors": share, "largest_z": float(np.nanmax(np.abs(table.z_score))),
            "reasons": report.reasons, "change": change, "trajectories": count, "seconds_grid": seconds[0], "seconds_trajectories": seconds[1],
        }  # fmt: skip
        print(f"{name}: {report.verdict}, p = {report.p_value:.3g}, {count} trajectories; numerical errors at most {share:.2g} standard errors")
        print("  because:", "; ".join(report.reasons)) if report.reasons else None
        print("  second moments change by", ", ".join(f"{k}: {v:.2g}" for k, v in change.items()), "from the fewest to the most cells")
        print(f"  seconds: grid {seconds[0]:.0f}, trajectories {seconds[1]:.0f}", flush=True)
        print("  " + json.dumps(found[name]), flush=True)
    return found


if __name__ == "__main__":
    main()
