"""Faults injected into real runs, and what was lost.

    python -m validation.faults                  # 10 of every fault on every kind of run, and the overhead (about half an hour on 2 cores)
    python -m validation.faults --times 50 --seed 7
    python -m validation.faults --quick          # a choice of them, once each (under a minute)
    python -m validation.faults --overhead       # only what checkpoints cost

Every run is a process: ``cqpde run`` by the split route (driven, with an inner grid), by finite volumes with its second run for the grid error,
with exact positivity, and an ensemble by ``cqpde.unravel``. It is hit at a random moment between its first checkpoint and its end, resumed by
``cqpde resume`` (which may be hit again), and all variables of its file are compared to the last bit with those of a run that was not hit.
*Redone* is the largest time between the last checkpoint and the hit.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import cqpde as cq
from tests.interrupted import assert_same_bits

DRIVEN = """[model]
pairs = [["q", "p"]]
H_C = "p**2/2 + q**2/2"
H_I = "0.5*q*sigmaz + drive*cos(5*t)*sigmax"
sigma = { p = "1" }
[model.parameters]
drive = 0.5
[grid]
q = [-8, 8, {n}]
p = [-9, 9, {n}]
[initial]
mean = { q = 0.5, p = 0.0 }
std = { q = 0.6, p = 0.6 }
state = "+"
[time]
end = {end}
outputs = 9
[solver]
tol = 1e-5
dt_max = {step}
frames = [{end}]
save = ["marginal q", "purity", "expect q*sigmaz"]
"""

SHIFT = """[model]
name = "linear_diosi"
[grid]
q = [-6, 6, 1280]
p = [-9, 9, 96]
[initial]
std = { q = 0.4, p = 0.4 }
state = "+"
[time]
end = 1.0
outputs = 2
[solver]
method = "split"
positivity = "exact"
tol = 1e-2
"""

ENSEMBLE = """import sys, shutil, cqpde as cq
grid = cq.Grid(q=(-6, 6, 48), p=(-9, 9, 48))
rho0 = cq.gaussian(grid, 0, 0.4, cq.ket("+"))
try:
    ens = cq.unravel(cq.models.linear_diosi(), rho0, [0, 0.25, 0.5], trajectories={n}, seed=1, dt=0.01, bias=True, checkpoint=sys.argv[1] + ".run", checkpoint_every=0)
except cq.Interrupted:
    sys.exit(75)
cq.save(ens, sys.argv[1])
shutil.rmtree(sys.argv[1] + ".run")
"""

CLI = [sys.executable, "-m", "cqpde.cli"]
EVERY = ["--checkpoint-every", "0", "--quiet"]
OUT = "out.nc"


@dataclass
class Subject:
    """A kind of run: its command, its undisturbed result, and how long it takes to its first checkpoint and in all."""

    name: str
    command: list[str]
    home: Path
    begun: float = 0.0
    whole: float = 0.0
    size: int = 0
    reference: Any = None

    def measure(self) -> None:
        """Run it undisturbed."""
        folder = self.home / "undisturbed"
        folder.mkdir(parents=True)
        began = time.monotonic()
        process = start(self.command, folder)
        while process.poll() is None and not any(folder.glob("out.nc.run/state.*")):
            time.sleep(0.01)
        self.begun = time.monotonic() - began
        if process.wait() != 0:
            raise RuntimeError(f"{self.name}: {process.stderr.read().decode()}")  # type: ignore[union-attr]
        self.whole = time.monotonic() - began
        self.size = (folder / OUT).stat().st_size
        self.reference = cq.load(folder / OUT, lazy=False)


@dataclass
class Trial:
    """What came of one fault: how often the run was hit, what was different from an undisturbed one, what it said."""

    hits: int = 0
    lost: str = ""
    redone: float = 0.0
    codes: list[int] = field(default_factory=list)
    said: str = ""


def start(command: list[str], folder: Path, limit: int | None = None) -> subprocess.Popen[bytes]:
    """Start a process, with the largest file it may write."""
    size = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
    environment = os.environ | {"NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=size)


def hit(trial: Trial, command: list[str], folder: Path, after: float, number: int) -> bool:
    """Start a run and send it a signal so many seconds after its first checkpoint, sooner if it ends before; whether it was still going."""
    if attempt(trial, command, folder, after, number):
        return True
    for _ in range(4):
        if trial.hits:
            break
        (folder / OUT).unlink()
        after *= 0.4
        if attempt(trial, command, folder, after, number):
            return True
    return False


def attempt(trial: Trial, command: list[str], folder: Path, after: float, number: int) -> bool:
    """One try of :func:`hit`."""
    began, process = time.time(), start(command, folder)
    while process.poll() is None and newest(folder) < began:
        time.sleep(0.01)
    try:
        _, said = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        redone = time.time() - newest(folder)
        process.send_signal(number)
        _, said = process.communicate()
        if not (folder / OUT).exists():  # else it was done, and had only to leave
            trial.hits, trial.redone = trial.hits + 1, max(trial.redone, redone)
            trial.codes.append(process.returncode)
    trial.said += said.decode()
    return not (folder / OUT).exists()


def newest(folder: Path) -> float:
    """When the newest checkpoint was written; 0 if there is none."""
    times = [0.0]
    for path in folder.glob("out.nc.run/**/state.*"):
        with contextlib.suppress(FileNotFoundError):  # it may go at any moment
            times.append(path.stat().st_mtime)
    return max(times)


def finish(trial: Trial, subject: Subject, folder: Path) -> None:
    """Resume to the end (or begin again where nothing had been kept) and compare."""
    for _ in range(2):
        if (folder / OUT).exists():
            break
        kept = (folder / "out.nc.run" / "run.json").exists()
        process = start([*CLI, "resume", OUT, *EVERY] if kept else subject.command, folder)
        _, said = process.communicate()
        trial.codes.append(process.returncode)
        trial.said += said.decode()
    compare(trial, subject, folder)


def compare(trial: Trial, subject: Subject, folder: Path) -> None:
    """Say what differs from an undisturbed run."""
    try:
        assert_same_bits(subject.reference, cq.load(folder / OUT, lazy=False))
        left = sorted(f.name for f in folder.iterdir() if f.name != OUT)
        trial.lost = trial.lost or (f"left behind: {left}" if left else "")
    except (AssertionError, cq.CqpdeError) as error:
        trial.lost = trial.lost or f"{type(error).__name__} {error} {trial.said[-300:]}"


Fault = Callable[[Subject, Path, np.random.Generator], Trial]


def moment(subject: Subject, rng: np.random.Generator) -> float:
    """Seconds from the first checkpoint to a random moment before the end."""
    return float(rng.uniform(0.0, 0.9 * (subject.whole - subject.begun)))


def signalled(number: int) -> Fault:
    """A signal at a random moment; the resumed run is hit by it as well, up to three times in all."""

    def fault(subject: Subject, folder: Path, rng: np.random.Generator) -> Trial:
        trial, command = Trial(), subject.command
        for _ in range(int(rng.integers(1, 4))):
            if not hit(trial, command, folder, moment(subject, rng), number):
                break
            command = [*CLI, "resume", OUT, *EVERY]
        finish(trial, subject, folder)
        known = {0, 75} | ({-number} if subject.name == "ensemble" else set())  # a script listens only while it is in unravel
        if number != signal.SIGKILL and set(trial.codes) - known:
            trial.lost = trial.lost or f"exit codes {trial.codes} {trial.said[-300:]}"
        return trial

    return fault


def out_of_time(subject: Subject, folder: Path, rng: np.random.Generator) -> Trial:
    """``--max-walltime``, again and again."""
    trial = Trial()
    if subject.name == "ensemble":
        return trial
    command = subject.command
    for _ in range(3):
        process = start([*command, "--max-walltime", f"{rng.uniform(0.5, 1.0) * (subject.whole - subject.begun):.3f}"], folder)
        _, said = process.communicate()
        trial.codes.append(process.returncode)
        trial.said += said.decode()
        trial.hits += process.returncode == 75
        if process.returncode != 75:
            break
        command = [*CLI, "resume", OUT, *EVERY]
    finish(trial, subject, folder)
    return trial


def full_disk(subject: Subject, folder: Path, rng: np.random.Generator) -> Trial:
    """No file may grow beyond a random size: a checkpoint, or the result, cannot be written; then there is space again."""
    trial = Trial()
    process = start(subject.command, folder, int(subject.size * rng.uniform(0.1, 0.97)))
    _, said = process.communicate()
    trial.codes.append(process.returncode)
    trial.said = said.decode()
    trial.hits += process.returncode != 0
    if process.returncode and not ("could not be written" in trial.said and "are free there" in trial.said):
        trial.lost = f"what was wrong was not said: {trial.said[-300:]}"
    finish(trial, subject, folder)
    return trial


def damaged(how: str) -> Fault:
    """Killed, and then the newest checkpoint is cut or changed: the other one serves, and this is said."""

    def fault(subject: Subject, folder: Path, rng: np.random.Generator) -> Trial:
        trial = Trial()
        hit(trial, subject.command, folder, moment(subject, rng), signal.SIGKILL)
        states = sorted(folder.glob("out.nc.run/state.*"), key=lambda f: f.stat().st_mtime_ns)
        if trial.hits and len(states) == 2:
            whole = bytearray(states[-1].read_bytes())
            at = int(rng.integers(len(whole)))
            if how == "cut":
                del whole[at:]
            else:
                whole[at] ^= 1 << int(rng.integers(8))
            states[-1].write_bytes(whole)
        else:
            trial.hits = 0
        finish(trial, subject, folder)
        if trial.hits and "The other checkpoint is used" not in trial.said:
            trial.lost = trial.lost or f"nothing was said: {trial.said[-300:]}"
        return trial

    return fault


def both_damaged(subject: Subject, folder: Path, rng: np.random.Generator) -> Trial:
    """Both checkpoints are gone: refused with a message, never begun anew in silence; ``--discard`` begins anew."""
    trial = Trial()
    hit(trial, subject.command, folder, moment(subject, rng), signal.SIGKILL)
    states = list(folder.glob("out.nc.run/state.*"))
    if not trial.hits or not states:
        trial.hits = 0
        finish(trial, subject, folder)
        return trial
    for path in states:
        path.write_bytes(path.read_bytes()[:-1])
    process = start([*CLI, "resume", OUT], folder)
    _, said = process.communicate()
    if process.returncode != 2 or "must hold a good checkpoint" not in said.decode():
        trial.lost = f"exit code {process.returncode}: {said.decode()[-300:]}"
    shutil.rmtree(folder / "out.nc.run")
    finish(trial, subject, folder)
    return trial


def leftovers(subject: Subject, folder: Path, rng: np.random.Generator) -> Trial:
    """Killed, with half-written files of checkpoint, outputs and result beside the good ones."""
    trial = Trial()
    hit(trial, subject.command, folder, moment(subject, rng), signal.SIGKILL)
    if (folder / "out.nc.run").is_dir():
        for name in ("out.nc.run/.state.0.part", "out.nc.run/.state.1.part", "out.nc.run/.frames.0.00003.part", ".out.nc.0123abcd.part"):
            (folder / name).write_bytes(rng.bytes(1000))
    finish(trial, subject, folder)
    return trial


def cut_result(subject: Subject, folder: Path, rng: np.random.Generator) -> Trial:
    """The result itself is cut: reading it is refused, and says so."""
    trial = Trial(hits=1)
    whole = (subject.home / "undisturbed" / OUT).read_bytes()
    (folder / OUT).write_bytes(whole[: int(rng.integers(len(whole)))])
    process = start([*CLI, "info", OUT], folder)
    _, said = process.communicate()
    if process.returncode != 2 or "must be a readable netCDF file" not in said.decode():
        trial.lost = f"exit code {process.returncode}: {said.decode()[-300:]}"
    return trial


FAULTS: dict[str, Fault] = {
    "SIGKILL": signalled(signal.SIGKILL),
    "SIGTERM": signalled(signal.SIGTERM),
    "SIGINT": signalled(signal.SIGINT),
    "wall-clock limit": out_of_time,
    "disk full": full_disk,
    "newest checkpoint cut": damaged("cut"),
    "newest checkpoint, a bit flipped": damaged("flipped"),
    "half-written files": leftovers,
    "both checkpoints cut": both_damaged,
    "result cut": cut_result,
}


def subjects(home: Path) -> list[Subject]:
    """The kinds of runs."""
    toml = home / "run.toml"
    toml.write_text(DRIVEN.replace("{n}", "64").replace("{end}", "0.5").replace("{step}", "0.02"))
    shift = home / "shift.toml"
    shift.write_text(SHIFT)
    cells = ["--cells", "q=48", "--cells", "p=64"]
    code = ENSEMBLE.replace("{n}", "60_000")
    return [
        Subject("split", [*CLI, "run", str(toml), "-o", OUT, *EVERY], home / "split"),
        Subject("ensemble", [sys.executable, "-c", code, OUT], home / "ensemble"),
        Subject("fv", [*CLI, "run", "linear_diosi", *cells, "--method", "fv", "-o", OUT, *EVERY], home / "fv"),
        Subject("exact positivity", [*CLI, "run", str(shift), "-o", OUT, *EVERY], home / "exact"),
    ]


#: In the quick mode: which runs suffer a fault.
QUICK = {"SIGKILL": ("split", "ensemble", "fv"), "SIGTERM": ("ensemble",), "wall-clock limit": ("split",), "disk full": ("split",), "newest checkpoint cut": ("fv",)}


def inject(times: int, seed: int, quick: bool, workers: int, only: list[str] | None = None) -> list[dict[str, Any]]:
    """All faults on all runs; one row per fault and run."""
    home = Path(tempfile.mkdtemp())
    rows = []
    try:
        kinds = [s for s in subjects(home) if not quick or any(s.name in names for names in QUICK.values())]
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(Subject.measure, kinds))
            jobs: list[tuple[str, Subject, list[Any]]] = []
            for f, (name, fault) in enumerate(FAULTS.items()):
                for s, subject in enumerate(kinds):
                    if (quick and subject.name not in QUICK.get(name, ())) or (only and name not in only):
                        continue
                    futures = []
                    for k in range(times):
                        folder = subject.home / f"{f} {k}"
                        folder.mkdir()
                        futures.append(pool.submit(fault, subject, folder, np.random.default_rng([seed, f, s, k])))
                    jobs.append((name, subject, futures))
            print(f"{'fault':>34} {'run':>17} {'injected':>9} {'hits':>5} {'redone':>7}  lost")
            for name, subject, futures in jobs:
                trials = [future.result() for future in futures]
                lost = [t.lost for t in trials if t.lost]
                row = {"fault": name, "run": subject.name, "injected": len(trials), "hits": sum(t.hits for t in trials), "redone": max(t.redone for t in trials), "lost": lost}
                if row["hits"]:
                    rows.append(row)
                    redone = f"{row['redone']:.2f} s" if row["redone"] else ""
                    print(f"{name:>34} {subject.name:>17} {row['injected']:>9} {row['hits']:>5} {redone:>7}  {'nothing' if not lost else lost[0]}", flush=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return rows


def overhead(tries: int) -> list[dict[str, Any]]:
    """Time with checkpoints over time without, 256 x 256 cells and two levels: the minima of alternating runs."""
    grid = cq.Grid(q=(-6, 6, 256), p=(-9, 9, 256))
    rho0, model, times = cq.gaussian(grid, 0, 0.4, cq.ket("+")), cq.models.linear_diosi(), np.linspace(0, 1, 11)
    cases: dict[str, Callable[..., Any]] = {
        "split": lambda **k: cq.solve(model, rho0, times, tol=1e-8, dt_max=0.004, **k),
        "fv, limited": lambda **k: cq.solve(model, rho0, times, tol=1e-3, method="fv", grid_error=False, **k),
        "exact positivity": lambda **k: cq.solve(model, rho0, times, tol=1e-4, method="split", positivity="exact", transport="limited", **k),
        "ensemble": lambda **k: cq.unravel(model, rho0, times, trajectories=150_000, seed=1, dt=0.01, bias=True, **k),
    }
    rows = []
    print(f"{'overhead':>34} {'seconds':>9} {'every 60 s':>11} {'every 1 s':>11}")
    for name, run in cases.items():
        seconds: dict[float, list[float]] = {0.0: [], 60.0: [], 1.0: []}
        run()
        for _ in range(tries):
            for every, taken in seconds.items():
                home = tempfile.mkdtemp()
                began = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    run(**({"checkpoint": f"{home}/run", "checkpoint_every": every} if every else {}))
                taken.append(time.perf_counter() - began)
                shutil.rmtree(home)
        base = min(seconds[0.0])
        row = {"run": name, "seconds": base, "every 60 s": min(seconds[60.0]) / base - 1.0, "every 1 s": min(seconds[1.0]) / base - 1.0}
        rows.append(row)
        print(f"{name:>34} {base:>9.2f} {row['every 60 s']:>+10.1%} {row['every 1 s']:>+10.1%}", flush=True)
    return rows


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Print the tables and return their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="how often each fault is injected into each kind of run (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--quick", action="store_true", help="a choice of them, once each, no overhead")
    parser.add_argument("--only", action="append", choices=list(FAULTS), help="inject only this fault (repeatable)")
    parser.add_argument("--overhead", action="store_true", help="only the overhead")
    arguments = parser.parse_args(argv)
    out: dict[str, Any] = {}
    if not arguments.overhead:
        print(f"seed {arguments.seed}")
        out["faults"] = inject(1 if arguments.quick else arguments.times, arguments.seed, arguments.quick, arguments.workers, arguments.only)
    if not arguments.quick and not arguments.only:
        out["overhead"] = overhead(5)
    return out


if __name__ == "__main__":
    main()
