"""Strong and weak scaling of runs shared between processes (MPI): the 4-D mass in superposition (paper, C.14) in equal steps.

    python -m validation.scaling                     # 40^4 cells, 1 and 2 processes of one thread each, about 5 minutes
    python -m validation.scaling --cells 64 --processes 1 2 4
    python -m validation.scaling --quick             # 14^4 cells

For every number of processes: seconds per step (sweeps, those of the twin of twice the step, exchange, measures), the speed-up, what a step exchanges, the largest
difference to one process, and the peak memory of a process. Weak scaling keeps the cells per process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 8


def worker(shape: list[int], path: str) -> None:
    """One run on the processes that this program was started on; the first writes its figures."""
    import cqpde as cq
    from cqpde.parallel.world import world
    from validation.four_dimensions import model

    comm = world()
    box = {"x": (-1.5, 1.5), "vx": (-4, 4), "y": (-2, 1), "vy": (-4, 4)}
    grid = cq.Grid(**{name: (*ends, n) for (name, ends), n in zip(box.items(), shape, strict=True)})
    rho0 = cq.gaussian(grid, {"y": -0.5}, {"x": 0.25, "y": 0.25, "vx": 0.7, "vy": 0.7}, cq.ket("+"))
    times = [0.0, 0.02, 0.02 + 0.01 * STEPS]  # the first interval builds the tables
    sol = cq.solve(model(), rho0, times, dt=0.01, frames=times[-1:], grid_error=False, check="off", comm=comm)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peaks = [peak] if comm is None else comm.gather(peak)
    if sol is not None:
        words = str(sol.attrs["time_integration"])
        exchanged = float(words.split(",")[-1].split()[0]) / (2 + STEPS) if "GiB" in words else 0.0
        np.save(path + ".npy", sol.rho.values[-1])
        seconds = float(sol.wall_seconds[2] - sol.wall_seconds[1]) / STEPS
        Path(path).write_text(json.dumps({"seconds": seconds, "exchanged": exchanged, "peak": max(peaks or [peak])}))


def measure(processes: int, shape: list[int], folder: Path, repeat: int) -> dict[str, Any]:
    """The quickest of a few runs on so many processes of one thread each."""
    best: dict[str, Any] = {}
    path = str(folder / f"{processes}.json")
    command = [sys.executable, "-W", "ignore", "-m", "validation.scaling", "--worker", path, "--shape", *map(str, shape)]
    if processes > 1:
        command = [str(Path(sys.executable).parent / "mpiexec"), "-n", str(processes), *command]
    environment = os.environ | dict.fromkeys(("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    for _ in range(repeat):
        subprocess.run(command, check=True, env=environment)
        found = json.loads(Path(path).read_text())
        if not best or found["seconds"] < best["seconds"]:
            best = found
    return best | {"rho": np.load(path + ".npy")}


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Print the tables; returns the largest difference and the speed-up on the largest number of processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cells", type=int, default=40)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        worker(arguments.shape, arguments.worker)
        return {}
    n, repeat = (14, 1) if arguments.quick else (arguments.cells, arguments.repeat)
    worst = speed = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("strong", "weak"):
            print(f"{kind} scaling, d = 2, one thread per process\n{'processes':>10}{'cells':>20}{'s per step':>12}{'speed-up':>10}{'GiB exchanged':>15}{'peak GB':>9}{'difference':>12}")
            first: dict[str, Any] = {}
            for p in arguments.processes:
                shape = [n, n, n, n * p if kind == "weak" else n]
                found = measure(p, shape, Path(folder), repeat)
                first = first or found
                gain = first["seconds"] / found["seconds"] * (p / arguments.processes[0] if kind == "weak" else 1.0)
                apart = float(np.abs(found["rho"] - first["rho"]).max() / np.abs(first["rho"]).max()) if kind == "strong" else float("nan")
                worst, speed = (max(worst, apart), gain) if kind == "strong" else (worst, speed)
                print(f"{p:>10}{' x '.join(map(str, shape)):>20}{found['seconds']:>12.3f}{gain:>10.2f}{found['exchanged']:>15.3f}{found['peak'] / 1e9:>9.2f}{apart:>12.1e}", flush=True)
    return {"difference": worst, "speed": speed}


if __name__ == "__main__":
    main()
