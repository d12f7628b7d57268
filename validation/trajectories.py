"""Trajectories measured: speed, time to a given bias, weak orders, purity, false alarms of ``validate``.

    python -m validation.trajectories [--quick] [--threads N]

Speed is in trajectory-steps per second for a qubit and one particle. The bias of an integrator is the largest deviation of a moment from
the closed form, in standard deviations of a single trajectory (a bias of 0.001 is one standard error of 10^6 trajectories).
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import sympy

import cqpde as cq
from cqpde import comparison
from cqpde.dataset import snapshot
from cqpde.unravelling import prepare, run

Array = np.ndarray


def start(cells: int) -> cq.State:
    """The linear Diosi model's start on a box that holds both branches."""
    return cq.gaussian(cq.Grid(q=(-6, 6, cells), p=(-9, 9, cells)), 0.0, 0.4, cq.ket("+"))


def exact_features(t: float) -> Array:
    """Exact moments of the linear Diosi model by sums over a fine grid (spectrally accurate)."""
    grid = cq.Grid(q=(-8, 8, 256), p=(-10, 10, 256))
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


def orders(count: int, threads: int) -> list[tuple[str, float]]:
    """Weak order of each integrator on a qubit in a trap, from the bias that the coarse twin shows at two steps, along the larger one."""
    q, p = sympy.symbols("q p", real=True)
    coupling = q * (cq.sigmax() + 0.5 * cq.sigmaz()) + 0.3 * cq.sigmay()
    model, out = cq.healed(("q", "p"), p**2 / 2 + q**2 / 2 + q / 3, coupling, {"p": 1}), []
    for method, steps, share in (("euler-maruyama", (64, 128), 4), ("weak-2", (32, 64), 16), ("instrument", (8, 16), 1)):
        large, small = (
            cq.unravel(
                model, start(48), [0, 1.0], trajectories=count // share, seed=3, method=method, dt=1 / k, bias=True, threads=threads
            )
            for k in steps
        )
        noise = np.einsum("abab->ab", large.bias_covariance.values[-1])
        direction = large.bias.values[-1] / (noise + 1e-9 * noise.max())
        ratio = np.sum(direction * large.bias.values[-1]) / np.sum(direction * small.bias.values[-1])
        out.append((method, float(np.log2(abs(ratio)))))
        print(f"{method:>24}  weak order {out[-1][1]:.3f} between steps 1/{steps[0]} and 1/{steps[1]}")
    return out


def purity(count: int, threads: int) -> dict[str, float]:
    """Largest defect of the purity with the trade-off saturated; how it falls with the step on matrices; rate of (A.17) without."""
    model, out = cq.models.linear_diosi(), {}
    make = lambda t, h, m=model, **options: cq.unravel(m, start(48), [0, t], trajectories=count, seed=1, dt=h, threads=threads, **options)
    defect = lambda e: float(max(abs(e.purity_min[-1] - 1), abs(e.purity_max[-1] - 1)))
    for method, state in (("instrument", "ket"), ("instrument", "matrix"), ("euler-maruyama", "ket"), ("weak-2", "ket")):
        out[f"{method}, {state}"] = defect(make(1.0, 1 / 16, method=method, state=state))
        print(f"{method + ', ' + state:>24}  largest defect of the purity {out[f'{method}, {state}']:.1e}")
    rms = []
    for h in (1 / 256, 1 / 1024, 1 / 4096):
        e = make(0.25, h, method="euler-maruyama", state="matrix")
        rms.append(float(np.sqrt((e.purity[-1] - 1) ** 2 + e.purity_std[-1] ** 2)))
    out["slope"] = float(np.polyfit(np.log([1 / 256, 1 / 1024, 1 / 4096]), np.log(rms), 1)[0])
    print(f"{'euler-maruyama, matrix':>24}  rms defect {', '.join(f'{x:.2e}' for x in rms)} at dt = 1/256, 1/1024, 1/4096: falls as dt^{out['slope']:.2f}")
    e = make(1 / 512, 1 / 8192, cq.models.linear_diosi(excess=0.3), state="matrix")
    out["rate"] = (1 - float(e.purity[-1])) * 512
    print(f"{'instrument, excess 0.3':>24}  purity falls at the rate {out['rate']:.4f}; (A.17): 0.6")
    return out


def false_alarms(rounds: int, size: int) -> dict[float, tuple[float, ...]]:
    """Rates at which right ensembles are rejected: ``validate``, its parts, Hotelling without skewness, and a sum of squared z-scores."""
    from scipy.stats import chi2

    grid = cq.Grid(q=(-8, 8, 256), p=(-10, 10, 256))
    exact = snapshot(grid, 2, 1.0, cq.models.linear_diosi_exact(grid, 1.0)).expand_dims("t")
    mu, zero = comparison.grid_features(exact, 1.0), np.zeros(24)
    cells = [comparison.at_edges(comparison.cell_probabilities(exact, 1.0, i), grid.axes[i], other) for i, other in enumerate(start(48).grid.axes)]
    plan = prepare.prepare(cq.models.linear_diosi(), start(48), [0, 1.0], 1, 77, "instrument", 1 / 32, {}, False, "auto", None, None, False, False, None)
    p = []
    for k in range(rounds):
        s = run.run_chunk(plan, k, size, 0, True).snapshots[-1]
        difference, covariance = s.moments.mean - mu, s.moments.deviations / (size - 1)
        own, plain = (comparison.hotelling(difference, covariance, size, zero, zero, skew=skew)[0].p for skew in (s.skewness, None))
        q, r = (comparison.pearson("", v, c, 0 * c, size).p for v, c in zip(s.visits, cells, strict=True))
        p.append([min(1.0, 3 * min(own, q, r)), own, q, r, plain, chi2.sf(size * np.sum(difference**2 / np.diag(covariance)), len(mu))])
    out = {level: tuple(float(x) for x in np.mean(np.array(p) < level, axis=0)) for level in (0.05, 0.01, 0.001)}
    print(f"false alarms of {rounds} ensembles of {size}: validate, Hotelling, histograms of q and p; Hotelling without skewness, sum of z^2")
    for level, rates in out.items():
        print(f"{'at ' + format(level, 'g'):>24}  " + "  ".join(f"{x:.4f}" for x in rates))
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
        "orders": orders(2**13 if a.quick else 2**18, a.threads),
        "purity": purity(256 if a.quick else 4096, a.threads),
        "false alarms": {size: false_alarms(20 if a.quick else 3000, size) for size in ((3000,) if a.quick else (3000, 12000))},
    }


if __name__ == "__main__":
    main()
