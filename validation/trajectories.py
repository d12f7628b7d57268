"""Trajectories measured: speed, time to a given bias, false alarms of ``validate``, and grid against trajectories.

    python -m validation.trajectories [--quick] [--threads N]

Speed is in trajectory-steps per second for a qubit and one particle. The bias of an integrator is the largest deviation of a moment from
the closed form, in standard deviations of a single trajectory (a bias of 0.001 is one standard error of 10^6 trajectories). Grid against
trajectories uses the finite-volume route, extrapolated in its cells.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import cqpde as cq
from cqpde import comparison
from cqpde.unravelling import run

Array = np.ndarray


def start(cells: int) -> cq.State:
    """The linear Diosi model's start on a box that holds both branches."""
    return cq.gaussian(cq.Grid(q=(-6, 6, cells), p=(-9, 9, cells)), 0.0, 0.4, cq.ket("+"))


def exact_features(t: float) -> Array:
    """Exact moments of the linear Diosi model by sums over a fine grid (spectrally accurate)."""
    grid = cq.Grid(q=(-8, 8, 256), p=(-10, 10, 256))
    from cqpde.dataset import snapshot

    rho = cq.models.linear_diosi_exact(grid, t)
    return comparison.grid_features(snapshot(grid, 2, t, rho).expand_dims("t"), t)


def speed(count: int, threads: int) -> list[tuple[str, float]]:
    """Million trajectory-steps per second of each method."""
    out = []
    for method, state, steps in (
        ("euler-maruyama", "ket", 400), ("euler-maruyama", "matrix", 100), ("weak-2", "ket", 40), ("instrument", "ket", 40), ("instrument", "matrix", 40),
    ):  # fmt: skip
        make = lambda n, dt, method=method, state=state: cq.unravel(
            cq.models.linear_diosi(), start(48), [0, 0.2], trajectories=n, seed=1, method=method, state=state, dt=dt, threads=threads
        )
        make(100, 0.1)  # compiles
        ens = make(count, 0.2 / steps)
        out.append((f"{method}, {state}", count * steps / ens.attrs["wall_seconds"] / 1e6))
        print(f"{out[-1][0]:>24}  {out[-1][1]:8.2f} million trajectory-steps / s on {threads} threads")
    return out


def deviation(method: str, h: float, count: int, threads: int, extrapolate: bool) -> float:
    """Largest deviation of a moment at t = 1 from the closed form, in standard deviations of a single trajectory."""
    ens = cq.unravel(cq.models.linear_diosi(), start(48), [0, 1.0], trajectories=count, seed=1, method=method, dt=h, threads=threads, bias=extrapolate)
    spread = np.sqrt(np.einsum("abab->ab", ens.covariance.values[-1])).reshape(-1)
    moments = ens["extrapolated" if extrapolate else "moments"].values[-1].reshape(-1)
    return float(np.max(np.abs(moments - exact_features(1.0)) / spread))


def seconds_per_trajectory(method: str, h: float, count: int, threads: int, extrapolate: bool) -> float:
    """Wall time of a run to t = 1, statistics included, for one trajectory."""
    ens = cq.unravel(cq.models.linear_diosi(), start(48), [0, 1.0], trajectories=count, seed=1, method=method, dt=h, threads=threads, bias=extrapolate)
    return float(ens.attrs["wall_seconds"]) / count


#: Integrator, whether extrapolated to step zero, order of what is left, and the step at which its bias is measured.
INTEGRATORS = (
    ("euler-maruyama", False, 1, 1 / 32), ("euler-maruyama", True, 2, 1 / 64), ("weak-2", False, 2, 1 / 8), ("instrument", False, 2, 1 / 4), ("instrument", True, 4, 1 / 4),
)  # fmt: skip


def time_to_bias(count: int, threads: int, rounds: int, targets: tuple[float, ...] = (1e-3, 1e-4)) -> list[dict[str, Any]]:
    """Time per trajectory at which the bias of each integrator is a given one, in the limit of many trajectories.

    The bias is c dt^k: c is measured at a coarse step, where it is far above the noise of ``count`` trajectories, and gives the step that
    a target needs; the time at that step is measured. All in one run, the shortest of ``rounds``, integrators taking turns.
    """
    out: list[dict[str, Any]] = []
    coefficients = [deviation(method, h, count, threads, twin) / h**order for method, twin, order, h in INTEGRATORS]
    for target in targets:
        steps = [max(4 if twin else 1, int(np.ceil((c / target) ** (1 / k)))) for (_, twin, k, _), c in zip(INTEGRATORS, coefficients, strict=True)]
        best = np.full(len(steps), np.inf)
        for _ in range(rounds):
            for j, (method, twin, _, _) in enumerate(INTEGRATORS):
                size = int(np.clip(2e8 / steps[j] * count / 2**20, 4096 * threads, count))
                best[j] = min(best[j], seconds_per_trajectory(method, 1 / steps[j], size, threads, twin))
        for j, (method, twin, order, h) in enumerate(INTEGRATORS):
            name = method + (", extrapolated" if twin else "")
            row = {"method": name, "target": target, "steps": steps[j], "seconds": float(best[j]), "gain": float(best[0] / best[j])}
            out.append(row)
            print(
                f"{name:>28}  bias {coefficients[j]:7.3g} dt^{order} (at 1/{1 / h:.0f})  {target:g} needs {steps[j]:6d} steps"
                f"  {1e6 * best[j]:9.3f} us per trajectory  {row['gain']:8.1f} times faster than Euler-Maruyama"
            )
    return out


def false_alarms(rounds: int, size: int) -> dict[float, tuple[float, float]]:
    """Rates at which right ensembles are rejected: Hotelling, and a sum of squared z-scores."""
    from scipy.stats import chi2

    exact = exact_features(1.0)
    plan = run.prepare(cq.models.linear_diosi(), start(48), [0, 1.0], 1, 77, "instrument", 1 / 16, {}, False, "auto", None, None, False, False, None)
    p, naive, zero = [], [], np.zeros_like(exact)
    for k in range(rounds):
        s = run.run_chunk(plan, k, size, 0).snapshots[-1]
        covariance = s.moments.deviations / (size - 1)
        p.append(comparison.hotelling(s.moments.mean - exact, covariance, size, zero, zero)[0].p)
        naive.append(chi2.sf(size * np.sum((s.moments.mean - exact) ** 2 / np.diag(covariance)), len(exact)))
    out = {level: (float(np.mean(np.array(p) < level)), float(np.mean(np.array(naive) < level))) for level in (0.05, 0.01, 0.001)}
    for level, (hotelling, sums) in out.items():
        print(f"{'false alarms at ' + format(level, 'g'):>24}  Hotelling {hotelling:.4f}   sum of z^2 {sums:.4f}   ({rounds} ensembles of {size})")
    return out


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


def two_roads(count: int, threads: int, quick: bool) -> dict[str, tuple[str, float]]:
    """Verdict and p-value of grid against ``instrument`` trajectories."""
    out = {}
    for name, (model, rho0, end, cells, h) in _problems().items():
        if quick and name not in ("z-dependent noise",):
            continue
        sol, *coarse = (cq.solve(model, rho0(n), [0, end], tol=1e-6, grid_error=False, method="fv") for n in cells)
        ens = cq.unravel(model, rho0(48), [0, end], trajectories=count, seed=5, dt=h, bias=True, threads=threads)
        report = cq.validate(sol, ens, coarse=coarse)
        out[name] = report.verdict, report.p_value
        print(f"{name:>24}  {report.verdict}, p = {report.p_value:.3g}, {count} trajectories {'; '.join(report.reasons)}")
    return out


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run everything and return the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small ensembles")
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args(argv)
    return {
        "speed": speed(8192 if a.quick else 65536, a.threads),
        "time to bias": time_to_bias(8192 if a.quick else 2**20, a.threads, 1 if a.quick else 3, (1e-2,) if a.quick else (1e-3, 1e-4)),
        "false alarms": false_alarms(20 if a.quick else 500, 3000),
        "two roads": two_roads(5000 if a.quick else 10**6, a.threads, a.quick),
    }


if __name__ == "__main__":
    main()
