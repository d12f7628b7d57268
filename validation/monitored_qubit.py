"""One monitored qubit by this package, QuTiP and dynamiqs: trajectory-steps per second, and the mean against the master equation.

    python -m validation.monitored_qubit [--quick] [--threads N]

``H = sigma_x / 2``, ``sigma_z sqrt(rate)`` monitored with efficiency 1 from ``|0>`` to t = 1, kets, the same step for all. The record of
this package is a coordinate y that drives nothing: ``dy = <L + L^+> dt + dW``, which the other two make as well. Codes that are not
installed (``pip install qutip dynamiqs``) are left out, and it says so. Compilation is not timed; each rate is the best of three runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import expm

import cqpde as cq

RATE, END = 0.5, 1.0
H, L = 0.5 * cq.sigmax(), RATE**0.5 * cq.sigmaz()


def exact_mean() -> float:
    """Mean of sigma_z at the end, by the exponential of the Lindblad generator."""
    one = np.eye(2)
    left = lambda a, b: np.kron(a, b.T)  # a rho b, rows first
    generator = -1j * (left(H, one) - left(one, H)) + left(L, L.conj().T) - 0.5 * (left(L.conj().T @ L, one) + left(one, L.conj().T @ L))
    rho = (expm(END * generator) @ np.array([1, 0, 0, 0])).reshape(2, 2)
    return float(np.real(rho[0, 0] - rho[1, 1]))


def best(run: Callable[[], tuple[float, float]], rounds: int = 3) -> tuple[float, float, float]:
    """Shortest seconds of several runs, with the mean and standard error that the last gave."""
    seconds, mean, error = np.inf, 0.0, 0.0
    for _ in range(rounds):
        began = time.perf_counter()
        mean, error = run()
        seconds = min(seconds, time.perf_counter() - began)
    return seconds, mean, error


def cqpde(method: str, count: int, steps: int, threads: int, state: str = "ket") -> tuple[float, float, float]:
    """This package."""
    model = cq.Model(("y",), 2, H=H, L=L, D1=[[1.0]], D2=[[0.5]], D0="saturated")
    rho0 = cq.gaussian(cq.Grid(y=(-10, 10, 40)), 0.0, 0.2, cq.ket("0"))

    def run() -> tuple[float, float]:
        ens = cq.unravel(model, rho0, [0, END], trajectories=count, seed=1, method=method, state=state, dt=END / steps, threads=threads)
        c = ens.covariance.values[-1, 0, :2, 0, :2]
        return float(ens.moments[-1, 0, 0] - ens.moments[-1, 0, 1]), float(np.sqrt((c[0, 0] + c[1, 1] - 2 * c[0, 1]) / count))

    run()
    return best(run)


def cqpde_matrices(method: str, count: int, steps: int, threads: int) -> tuple[float, float, float]:
    """This package on density matrices."""
    return cqpde(method, count, steps, threads, "matrix")


def qutip(method: str, count: int, steps: int, threads: int) -> tuple[float, float, float]:
    """QuTiP: ``ssesolve`` on kets, or ``smesolve`` on density matrices; its trajectories spread over processes."""
    import qutip as qt

    solver, kind = method.split()
    options = {"dt": END / steps, "method": kind, "progress_bar": "", "keep_runs_results": True}
    options |= {"map": "parallel", "num_cpus": threads} if threads > 1 else {"map": "serial"}

    def run() -> tuple[float, float]:
        out = getattr(qt, solver)(
            qt.Qobj(H), qt.basis(2, 0), [0, END], sc_ops=[qt.Qobj(L)], e_ops=[qt.sigmaz()], ntraj=count, options=options, seeds=1
        )
        values = np.array(out.runs_expect[0])[:, -1]
        return float(values.mean()), float(values.std() / count**0.5)

    return best(run)


def dynamiqs(method: str, count: int, steps: int, threads: int) -> tuple[float, float, float]:
    """The ``dssesolve`` of dynamiqs (JAX on the CPU, double precision; it takes the threads that it wants)."""
    import dynamiqs as dq
    import jax

    dq.set_precision("double")
    dq.set_progress_meter(False)
    keys = jax.random.split(jax.random.PRNGKey(1), count)

    def run() -> tuple[float, float]:
        out = dq.dssesolve(
            H, [L], dq.basis(2, 0), np.array([0.0, END]), keys, exp_ops=[dq.sigmaz()], method=getattr(dq.method, method)(dt=END / steps),
            save_states=False,
        )  # fmt: skip
        values = np.real(np.asarray(out.expects))[:, 0, -1]
        return float(values.mean()), float(values.std() / count**0.5)

    run()
    return best(run)


CODES: list[tuple[str, Callable[..., tuple[float, float, float]], str, int, int]] = [
    ("cqpde, kets", cqpde, "euler-maruyama", 65536, 200),
    ("cqpde, kets", cqpde, "instrument", 65536, 20),
    ("cqpde, matrices", cqpde_matrices, "euler-maruyama", 16384, 200),
    ("QuTiP", qutip, "ssesolve euler", 100, 200),
    ("QuTiP", qutip, "ssesolve platen", 100, 200),
    ("QuTiP", qutip, "smesolve euler", 100, 200),
    ("dynamiqs dssesolve", dynamiqs, "EulerMaruyama", 4096, 200),
]


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Run all codes that are installed and return their numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small ensembles, without dynamiqs")
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args(argv)
    exact, out = exact_mean(), []
    print(f"<sigma_z> of the master equation at t = {END:g}: {exact:.5f}")
    for name, code, method, count, steps in CODES:
        if a.quick and code is dynamiqs:
            continue
        count = max(20, count // 20) if a.quick else count
        try:
            seconds, mean, error = code(method, count, steps, a.threads)
        except ImportError as missing:
            print(f"{name:>20} {method:>15}  left out: {missing}")
            continue
        rate = count * steps / seconds
        out.append({"code": name, "method": method, "rate": rate, "mean": mean, "standard_error": error, "z": (mean - exact) / error})
        print(
            f"{name:>20} {method:>15}  {count:6d} trajectories of {steps:3d} steps  {seconds:8.4f} s  {rate:10.3e} trajectory-steps / s"
            f"  mean {mean:8.5f} +- {error:.5f}"
        )
    return out


if __name__ == "__main__":
    main()
