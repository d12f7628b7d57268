"""Strong and weak scaling of runs shared between processes (MPI), and the cost model beside what was measured.

    python -m validation.scaling                     # the 4-D mass in superposition (paper, C.14) on 40^4 cells, 1 and 2 processes, about 5 minutes
    python -m validation.scaling --cells 64 --processes 1 2 4
    python -m validation.scaling --case fv           # finite volumes, 2-D linear Diosi
    python -m validation.scaling --messages          # as between machines: the state is exchanged
    python -m validation.scaling --cost              # 1, 2 and 4 processes against 'cqpde estimate --ranks', three cases
    python -m validation.scaling --quick             # few cells

For every number of processes, of one thread each: seconds per step (with its twin of twice the step, exchange, measures; finite volumes: per application of the
generator), the speed-up, what a step exchanges, the largest difference to one process, and the peak memory of a process. Weak scaling keeps the cells per process.
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

#: Steps that are timed; those before them build the tables.
STEPS, DT = 8, 0.01


def problem(case: str, shape: list[int]) -> tuple[Any, Any, list[float], dict[str, Any]]:
    """Model, initial state, times and options of a case."""
    import cqpde as cq

    times = [0.0, 2 * DT, (2 + STEPS) * DT]
    if case == "mass":
        from validation.four_dimensions import model

        box = {"x": (-1.5, 1.5), "vx": (-4, 4), "y": (-2, 1), "vy": (-4, 4)}
        grid = cq.Grid(**{name: (*ends, n) for (name, ends), n in zip(box.items(), shape, strict=True)})
        return model(), cq.gaussian(grid, {"y": -0.5}, {"x": 0.25, "y": 0.25, "vx": 0.7, "vy": 0.7}, cq.ket("+")), times, {"dt": DT, "check": "off"}
    grid = cq.Grid(q=(-6, 6, shape[0]), p=(-9, 9, shape[1]))
    options = {"dt": DT} if case == "diosi" else {"method": "fv", "transport": "upwind"}
    return cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.5, cq.ket("+")), times, options


def worker(case: str, shape: list[int], path: str, messages: bool) -> None:
    """One run on the processes that this program was started on; the first writes its figures."""
    import cqpde as cq
    from cqpde.parallel import slabs
    from cqpde.parallel.world import world

    if messages:
        slabs._one_machine = lambda comm: False
    comm = world()
    model, rho0, times, options = problem(case, shape)
    sol = cq.solve(model, rho0, times, frames=times[-1:], grid_error=False, comm=comm, **options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peaks = [peak] if comm is None else comm.gather(peak)
    if sol is not None:
        words = str(sol.attrs["time_integration"])
        steps = STEPS * 1.5 if "dt" in options else sol.attrs["applications"] * STEPS / (2 + STEPS)
        steps_in_all = 1.5 * (2 + STEPS) if "dt" in options else sol.attrs["applications"]
        exchanged = float(words.split(",")[-1].split()[0]) * 1e6 / steps_in_all if "exchanged" in words else 0.0
        np.save(path + ".npy", sol.rho.values[-1])
        seconds = float(sol.wall_seconds[2] - sol.wall_seconds[1]) / steps
        Path(path).write_text(json.dumps({"seconds": seconds, "exchanged": exchanged, "peak": max(peaks or [peak])}))


def measure(case: str, processes: int, shape: list[int], folder: Path, repeat: int, messages: bool) -> dict[str, Any]:
    """The quickest of a few runs on so many processes of one thread each."""
    best: dict[str, Any] = {}
    path = str(folder / f"{processes}.json")
    command = [sys.executable, "-W", "ignore", "-m", "validation.scaling", "--worker", path, "--case", case, "--shape", *map(str, shape), *(["--messages"] if messages else [])]
    if processes > 1:
        command = [str(Path(sys.executable).parent / "mpiexec"), "-n", str(processes), *command]
    environment = os.environ | dict.fromkeys(("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    for _ in range(repeat):
        subprocess.run(command, check=True, env=environment)
        found = json.loads(Path(path).read_text())
        if not best or found["seconds"] < best["seconds"]:
            best = found
    return best | {"rho": np.load(path + ".npy")}


def scaling(case: str, n: int, processes: list[int], repeat: int, messages: bool) -> dict[str, float]:
    """The two tables; returns the largest difference and the speed-up on the largest number of processes."""
    worst = speed = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("strong", "weak"):
            print(f"{kind} scaling, {case}, d = 2, one thread per process\n{'processes':>10}{'cells':>20}{'s per step':>12}{'speed-up':>10}{'MB exchanged':>14}{'peak GB':>9}{'difference':>12}")
            first: dict[str, Any] = {}
            for p in processes:
                axes = 4 if case == "mass" else 2
                shape = [n] * (axes - 1) + [n * p if kind == "weak" else n]
                found = measure(case, p, shape, Path(folder), repeat, messages)
                first = first or found
                gain = first["seconds"] / found["seconds"] * (p / processes[0] if kind == "weak" else 1.0)
                apart = float(np.abs(found["rho"] - first["rho"]).max() / np.abs(first["rho"]).max()) if kind == "strong" else float("nan")
                worst, speed = (max(worst, apart), gain) if kind == "strong" else (worst, speed)
                print(f"{p:>10}{' x '.join(map(str, shape)):>20}{found['seconds']:>12.4g}{gain:>10.2f}{found['exchanged'] / 1e6:>14.4g}{found['peak'] / 1e9:>9.2f}{apart:>12.1e}", flush=True)
    return {"difference": worst, "speed": speed}


def costs(cells: dict[str, int], processes: list[int], repeat: int) -> dict[str, float]:
    """The cost model against measured times; returns the largest ratio of the two, in either direction."""
    import cqpde as cq

    worst = 1.0
    print(f"{'case':>8}{'cells':>18}{'processes':>11}{'measured s':>12}{'model s':>10}{'ratio':>8}{'computing':>11}{'waiting':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for case, n in cells.items():
            shape = [n] * (4 if case == "mass" else 2)
            model, rho0, times, options = problem(case, shape)
            for p in processes:
                found = measure(case, p, shape, Path(folder), repeat, False)["seconds"]
                e = cq.estimate(model, rho0, times, frames=times[-1:], grid_error=False, ranks=max(p, 2), **options)
                assert e.shared is not None
                expected = e.shared.one if p == 1 else e.shared.seconds
                worst = max(worst, found / expected, expected / found)
                print(f"{case:>8}{' x '.join(map(str, shape)):>18}{p:>11}{found:>12.4g}{expected:>10.4g}{expected / found:>8.2f}{e.shared.computing:>11.3g}{e.shared.waiting:>9.2g}", flush=True)
    return {"worst ratio": worst}


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--case", default="mass", choices=["mass", "diosi", "fv"])
    parser.add_argument("--cells", type=int)
    parser.add_argument("--processes", type=int, nargs="+")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--messages", action="store_true")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        worker(arguments.case, arguments.shape, arguments.worker, arguments.messages)
        return {}
    repeat = 1 if arguments.quick else arguments.repeat
    if arguments.cost:
        cells = {"mass": 14, "fv": 64} if arguments.quick else {"mass": 32, "diosi": 800, "fv": 400}
        return costs(cells, arguments.processes or ([1, 2] if arguments.quick else [1, 2, 4]), repeat)
    n = arguments.cells or (14 if arguments.quick else 40) * (1 if arguments.case == "mass" else 10)
    return scaling(arguments.case, n, arguments.processes or [1, 2], repeat, arguments.messages)


if __name__ == "__main__":
    main()
