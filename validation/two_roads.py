"""Grid against trajectories: p-values where both are right, and of every planted mistake.

    python -m validation.two_roads [--quick] [--threads N]

The grid is the finite-volume route, extrapolated in its cells; trajectories are 10^6 of the instrument, and 5e4 of Euler-Maruyama whose
bias is bounded by its coarse twin. Mistakes are planted in the equations as printed, written down once more in the tests.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import cqpde as cq
from tests import ensembles
from tests.own_trajectories import ARRAYS, PLANTS

from .trajectories import start


def _problems() -> dict[str, tuple[Any, Any, float, tuple[int, ...], float]]:
    """Model, start on n cells, end, cells, step."""
    driven = cq.Model(
        ("q", "p"), 2, H=lambda z: [[z.q, 0.5], [0.5, -z.q]], L=[cq.sigmaz(), cq.sigmam()], D0=[[0.25, 0], [0, 0.2]],
        D1={"p": [-0.5, 0]}, D2={"p": 0.5}, D1C={"q": lambda z: z.p, "p": lambda z: -z.q},
    )  # fmt: skip
    varying = cq.Model(
        ("x",), 2, H=0.5 * cq.sigmax(), L=cq.sigmaz(), D1=[[0.5]], D0="saturated", D2=[[lambda z: 0.4 + 0.15 * np.cos(z.x)]], D1C=[lambda z: -z.x]
    )
    levels = cq.Model(
        ("x", "y"), 3, H=[[0.5, 0.3, 0], [0.3, 0, 0.4j], [0, -0.4j, -0.2]], L=[np.diag([1.0, 0, -1]), np.eye(3, k=1)],
        D0="saturated", D1=[[0.4 + 0.3j, 0.2 - 0.5j], [0.1, 0.3j]], D2=[[0.35, 0.15], [0.15, 0.3]], excess=[[0.2, 0.05j], [-0.05j, 0.1]],
    )  # fmt: skip
    line = lambda n: cq.gaussian(cq.Grid(x=(-6, 6, n)), 0.3, 0.5, cq.ket("+"))
    plane = lambda n: cq.gaussian(cq.Grid(q=(-6, 6, n), p=(-7, 7, n)), {"q": 0.5}, 0.5, cq.ket("+"))
    square = lambda n: cq.gaussian(cq.Grid(x=(-6.5, 6.5, n), y=(-6.5, 6.5, n)), 0.0, 0.5, [0.6, 0.48j, 0.64])
    return {
        "linear Diosi": (cq.models.linear_diosi(), start, 0.5, (144, 96, 72), 1 / 32),
        "driven qubit": (driven, plane, 0.6, (144, 96, 72), 1 / 40),
        "three levels": (levels, square, 0.5, (96, 64, 48), 1 / 80),
        "z-dependent noise": (varying, line, 0.7, (480, 320, 240), 1 / 40),
    }


def two_roads(count: int, threads: int, quick: bool) -> list[tuple[str, str, int, str, float]]:
    """Verdict and p-value of grid against trajectories: ``instrument``, and Euler-Maruyama with its bias bound at a twentieth of the size."""
    out = []
    for name, (model, rho0, end, cells, h) in _problems().items():
        if quick and name != "z-dependent noise":
            continue
        sol, *coarse = (cq.solve(model, rho0(n), [0, end], tol=1e-6, grid_error=False, method="fv") for n in cells)
        for method, size, step in (("instrument", count, h), ("euler-maruyama", count // 20, h / 64)):
            ens = cq.unravel(model, rho0(48), [0, end], trajectories=size, seed=5, method=method, dt=step, bias=True, threads=threads)
            report = cq.validate(sol, ens, coarse=coarse)
            out.append((name, method, size, report.verdict, report.p_value))
            seconds = float(ens.attrs["wall_seconds"])
            print(f"{name:>18} {method:>15}  {report.verdict}, p = {report.p_value:.3g}, {size} trajectories in {seconds:.1f} s {'; '.join(report.reasons)}")
    return out


def rejects(quick: bool) -> dict[tuple[str, str], float]:
    """p-values of ensembles of 2e4 with one planted mistake, against exact solutions."""
    out = {}

    def show(name: str, plant: str, report: cq.Report) -> None:
        out[name, plant] = report.p_value
        ds = report.dataset
        tests = f"T^2 = {float(ds.test_statistic[-1, 0]):.0f} for {int(ds.test_freedom[-1, 0])} moments" if ds.sizes.get("test") else ""
        print(f"{name:>24}  {plant:>14}  {report.verdict}, p = {report.p_value:.2g}  {tests}  {'; '.join(report.reasons)}")

    for name, plants in PLANTS.items():
        case, grid, rho = ensembles.reference(name, 96 if name == "three_levels" else 48)
        exact = ensembles.exact_solution(grid, [0.0, case.t], [case.start(grid).rho, rho])
        for plant in plants[-1:] if quick else plants:
            with np.errstate(all="ignore"):  # a wrong scheme may overflow: then that is what is found
                arrays = ARRAYS[name](plant)
            show(name, plant, cq.validate(exact, arrays))
    arrays = ARRAYS["linear_diosi"]("")
    arrays["psi"][17, 0, 1] = np.nan
    case, grid, rho = ensembles.reference("linear_diosi", 48)
    show("linear_diosi", "one NaN", cq.validate(ensembles.exact_solution(grid, [0.0, case.t], [case.start(grid).rho, rho]), arrays))
    grid = cq.Grid(z=(0.05, 12, 480))
    rho0 = lambda n: cq.gaussian(cq.Grid(z=(0.05, 12, n)), 1.5, 0.15, cq.ket("+"))
    sol, *coarse = (cq.solve(ensembles.multiplicative(), rho0(n), [0, 0.5], tol=1e-5, grid_error=False, method="fv") for n in (480, 320))
    ens = cq.unravel(ensembles.multiplicative(stratonovich=True), rho0(480), [0, 0.5], trajectories=20_000, seed=3, dt=0.05, bias=True)
    show("noise that z multiplies", "Stratonovich", cq.validate(sol, ens, coarse=coarse))
    return out


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run everything and return the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small ensembles, one problem")
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args(argv)
    return {"two roads": two_roads(20_000 if a.quick else 10**6, a.threads, a.quick), "rejects": rejects(a.quick)}


if __name__ == "__main__":
    main()
