"""Wall time to a given error, against other people's ways of solving the same two problems, in one run.

    python -m validation.performance            # all tables but py-pde (about a minute)
    python -m validation.performance --pypde    # with py-pde, if installed (some minutes more: it compiles)
    python -m validation.performance --quick    # small sizes, few settings

Problems: the linear Diosi model, which is exactly solvable, and a driven qubit in a trap with decay, where nothing commutes (reference:
`validation.reference`). Error: integrated trace norm of the difference at t = 1, the sum over cells of the trace norm times the cell
volume. Every code takes the cheapest setting of its own list that reaches the error. Times are of whole calls, the best of several;
model, initial state and grid are made before, compilation is outside. All codes run on one thread unless ``--threads`` says otherwise
(for the package; the others have no use for more).
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numba
import numpy as np

import cqpde as cq
from cqpde.config import read

from .baselines import DRIVEN_QUBIT, LINEAR_DIOSI, Problem, Shape, method_of_lines, py_pde, split_step_fft
from .reference import distance, driven_qubit_field, resample

Array = np.ndarray
Row = dict[str, Any]
Setting = tuple[Any, ...]
#: ``run(*setting)`` returns the density matrix, the seconds, and what the code says of itself.
Run = Callable[..., tuple[Array, float, dict[str, Any]]]

TARGETS = (1e-3, 1e-5)
OTHERS = ("script ", "tuned ", "resampled ")
PHASES = ("seconds_setup", "seconds_steps", "seconds_diagnostics")


@dataclass
class Case:
    """A problem with its model, its exact solution, and both initial states and exact fields kept per shape."""

    problem: Problem
    model: cq.Model
    exact: Callable[[cq.Grid], Array]
    states: dict[Shape, cq.State] = field(default_factory=dict)
    fields: dict[Shape, Array] = field(default_factory=dict)

    def state(self, shape: Shape) -> cq.State:
        """Initial state of the package on these cells."""
        if shape not in self.states:
            (q, p), (mean_q, mean_p) = self.problem.box, self.problem.mean
            grid = cq.Grid(q=(*q, shape[0]), p=(*p, shape[1]))
            self.states[shape] = cq.gaussian(grid, {"q": mean_q, "p": mean_p}, self.problem.std, cq.ket("+"))
        return self.states[shape]

    def error(self, rho: Array) -> float:
        """Integrated trace norm of the difference to the exact solution."""
        shape = (rho.shape[2], rho.shape[3])
        grid = self.state(shape).grid
        if shape not in self.fields:
            self.fields[shape] = self.exact(grid)
        return distance(rho, self.fields[shape], grid.cell_volume)

    def package(self, method: str, first: bool = False) -> Run:
        """``run(shape, tol)`` of the package; ``first``: without what model and state keep of earlier runs (checks, structure, tables)."""

        def run(shape: Shape, tol: float) -> tuple[Array, float, dict[str, Any]]:
            if first:
                self.model.forget()
                self.states.pop(shape, None)
            rho0 = self.state(shape)
            start = time.perf_counter()
            sol = cq.solve(self.model, rho0, [0, 1], tol=tol, method=method, grid_error=False, progress=False)
            seconds = time.perf_counter() - start
            return sol.rho.values[-1], seconds, dict(sol.attrs)

        return run

    def script(self, shape: Shape, runs: Sequence[int]) -> tuple[Array, float, dict[str, Any]]:
        """``run(shape, steps of each Strang run)`` of the FFT script."""
        rho, seconds = split_step_fft(self.problem, shape, runs)
        return rho, seconds, {}

    def resampled(self, shape: Shape, runs: Sequence[int], inside: Shape) -> tuple[Array, float, dict[str, Any]]:
        """``run(shape, steps, cells)`` of the FFT script that steps on fewer cells and interpolates the result."""
        rho, seconds = split_step_fft(self.problem, shape, runs, inside=inside)
        return rho, seconds, {}

    def lines(self, shape: Shape, rtol: float) -> tuple[Array, float, dict[str, Any]]:
        """``run(shape, rtol)`` of the method of lines."""
        rho, seconds = method_of_lines(self.problem, shape, rtol)
        return rho, seconds, {}


def cases(steps: int) -> list[Case]:
    """Return both problems; ``steps`` is the number of steps of the reference."""
    wide = driven_qubit_field(steps=steps)
    driven = read(Path(__file__).parents[1] / "examples" / "driven_qubit.toml").model
    return [
        Case(LINEAR_DIOSI, cq.models.linear_diosi(), lambda grid: cq.models.linear_diosi_exact(grid, 1.0)),
        Case(DRIVEN_QUBIT, driven, lambda grid: resample(wide, *(axis.centers for axis in grid.axes))),
    ]


# ---- what each code may try -----------------------------------------------------------------------------------------

SMALL = {1e-3: [(32, 24), (36, 28), (40, 32)], 1e-5: [(40, 32), (48, 36), (48, 40)]}
#: Cells for the package, which refuses those that do not resolve the state.
OURS = [(40, 32), (48, 40), (56, 48), (64, 48), (64, 64)]
TOLERANCES = {
    1e-3: [1e-1, 3e-2, 1e-2, 5e-3, 2e-3, 1e-3, 5e-4],
    1e-5: [1e-3, 3e-4, 1e-4, 5e-5, 2e-5, 1e-5, 5e-6],
}
#: Strang steps of every run: one run is of order 2, n and 2n are ``(4 S(dt/2)^2 - S(dt))/3``.
STRANG = {
    1e-3: [(13,), (14,), (15,), (16,), (17,), (18,), (2, 4), (3, 6)],
    1e-5: [(5, 10), (6, 12), (7, 14), (8, 16)],
}
#: The same and other sequences for Richardson extrapolation, orders 2 to 8.
SEQUENCES = {
    1e-3: [*STRANG[1e-3], (2, 3), (3, 4), (1, 2, 3), (1, 2, 4), (2, 3, 4)],
    1e-5: [*STRANG[1e-5], (9, 10), (2, 4, 6), (3, 4, 5), (3, 4, 6), (4, 5, 6), (1, 2, 3, 4), (2, 3, 4, 5)],
}
LINES = {
    1e-3: list(product([(60, 48), (64, 48)], [1e-2, 1e-3, 1e-4])),
    1e-5: list(product([(128, 112), (136, 116)], [1e-4, 1e-5, 1e-6])),
}
VOLUMES = {1e-3: list(product([(80, 224), (80, 256), (80, 384), (96, 384)], [2e-3]))}
FIXED = [(200, 280), (400, 560)]


def describe(code: str, setting: Setting) -> str:
    """Say a setting in words."""
    (nq, n), what, *inside = setting
    if inside:
        return "{} x {}, {} steps".format(*inside[0], " + ".join(map(str, what)))
    if code.startswith("cqpde"):
        return f"{nq} x {n}, tol {what:g}"
    if code.startswith("FFT"):
        return f"{nq} x {n}, {' + '.join(map(str, what))} steps, order {2 * len(what)}"
    return f"{nq} x {n}, rtol {what:g}"


@dataclass
class Found:
    """Cheapest setting that reached an error (or the most accurate one), its best time and what the code said then."""

    setting: Setting
    error: float
    seconds: float
    said: dict[str, Any]

    def again(self, run: Run) -> None:
        """Time it once more."""
        _, seconds, said = run(*self.setting)
        if seconds < self.seconds:
            self.seconds, self.said = seconds, said


def cheapest(case: Case, run: Run, settings: Sequence[Setting], target: float, budget: float) -> Found:
    """Try all settings, then time the three fastest that reach the target again within a budget of seconds each."""
    tried = []
    for setting in settings:
        try:
            rho, seconds, said = run(*setting)
        except cq.CqpdeError:  # the package refuses cells that do not resolve the state
            continue
        tried.append(Found(setting, case.error(rho), seconds, said))
        if seconds < budget:
            tried[-1].again(run)
    reached = sorted((f for f in tried if f.error <= target), key=lambda f: f.seconds)[:3]
    if not reached:
        return min(tried, key=lambda f: f.error, default=Found(settings[-1], np.inf, np.nan, {}))
    for found in reached:
        for _ in range(min(200, int(budget / found.seconds))):
            found.again(run)
    return min(reached, key=lambda f: f.seconds)


# ---- the tables -----------------------------------------------------------------------------------------------------


def time_to_error(case: Case, quick: bool, budget: float) -> Iterator[Row]:
    """Rows of the first table for one problem."""
    fft = {
        t: list(product(SMALL[t][-2:] if quick else SMALL[t], STRANG[t][-4:] if quick else STRANG[t])) for t in TARGETS
    }
    tuned = {t: list(product(SMALL[t], SEQUENCES[t])) for t in TARGETS}
    split = {t: list(product(OURS[-2:] if quick else OURS, TOLERANCES[t])) for t in TARGETS}
    volumes = {1e-3: [((96, 384), 1e-3)]} if quick else VOLUMES
    lines = {1e-3: [((64, 64), 1e-3)]} if quick else LINES
    codes: list[tuple[str, Run, dict[float, list[Setting]]]] = [
        ("cqpde split", case.package("split"), split),
        ("cqpde split, first", case.package("split", first=True), split),
        ("cqpde fv", case.package("fv"), volumes),
        ("FFT script", case.script, fft),
        ("FFT script, tuned", case.script, {} if quick else tuned),
        ("SciPy lines", case.lines, lines),
    ]
    for code, run, settings in codes:
        last: Found | None = None
        for target in TARGETS:
            row: Row = {"table": "time to error", "problem": case.problem.name, "code": code, "target": target}
            if target in settings:
                if code.startswith("cqpde"):
                    run((64, 64), 1e-2)  # compiles
                last = cheapest(case, run, settings[target], target, budget)
                yield row | {
                    "setting": describe(code, last.setting), "error": last.error, "seconds": last.seconds,
                    "reached": last.error <= target, "note": "",
                }  # fmt: skip
            elif code == "cqpde fv" and last is not None and not quick:
                ratio = (last.error / target) ** 0.5
                yield row | {
                    "setting": f"cells x {ratio:.0f} per axis", "error": target, "seconds": last.seconds * ratio**3,
                    "reached": False, "note": "not run: order 2 in cells and step, at least so long",
                }  # fmt: skip


def py_pde_rows(case: Case) -> Iterator[Row]:
    """Rows of py-pde: a small run tells the cells that order 2 asks for; 1e-3 is run on them, 1e-5 extrapolated from there."""
    row: Row = {"table": "time to error", "problem": case.problem.name, "code": "py-pde"}
    small = (128, 96)
    rho, _, _ = py_pde(case.problem, small, 1e-3)
    ratio = 1.06 * (case.error(rho) / TARGETS[0]) ** 0.5
    shape = (2 * round(small[0] * ratio / 2), 2 * round(small[1] * ratio / 2))
    rho, seconds, compilation = py_pde(case.problem, shape, 1e-4)
    error = case.error(rho)
    yield row | {
        "target": TARGETS[0], "setting": "{} x {}".format(*shape), "error": error, "seconds": seconds,
        "compilation": compilation, "reached": error <= TARGETS[0], "note": f"compilation, {compilation:.0f} s, apart",
    }  # fmt: skip
    scale = (error / TARGETS[1]) ** 0.5
    yield row | {
        "target": TARGETS[1], "setting": f"cells x {scale:.0f} per axis", "error": TARGETS[1], "seconds": seconds * scale**4,
        "compilation": compilation, "reached": False, "note": "not run: order 2 in cells, step limited by diffusion",
    }  # fmt: skip


def fewest_steps(case: Case, run: Run, settings: Sequence[Setting], target: float) -> Found:
    """Setting of the FFT script with the fewest steps times cells that reaches the target; not by a clock."""

    def work(setting: Setting) -> int:
        return int(sum(setting[1]) * np.prod(setting[-1] if len(setting) > 2 else setting[0]))

    for setting in sorted(settings, key=work):
        found = cheapest(case, run, [setting], target, 0.0)
        if found.error <= target:
            break
    return found


def fixed_cells(case: Case, shapes: Sequence[Shape], budget: float) -> Iterator[Row]:
    """Rows of the second and third table: the same cells for all, each at its own fewest steps."""
    package = case.package("split")
    for shape, target in product(shapes, TARGETS):
        choices: dict[str, tuple[Run, list[Setting]]] = {
            "": (package, [(shape, tol) for tol in TOLERANCES[target]]),
            "script ": (case.script, [(shape, runs) for runs in STRANG[target]]),
            "tuned ": (case.script, [(shape, runs) for runs in SEQUENCES[target]]),
            "resampled ": (case.resampled, [(shape, r, c) for r, c in product(SEQUENCES[target], SMALL[target])]),
        }
        best = {who: fewest_steps(case, *choices[who], target) for who in OTHERS}
        best = {"": cheapest(case, *choices[""], target, budget / 5)} | best
        end = time.perf_counter() + budget
        while time.perf_counter() < end:  # in turns, so that all see the same machine
            for who, found in best.items():
                found.again(choices[who][0])
        common: Row = {"problem": case.problem.name, "shape": shape, "target": target}
        row = common | {"table": "fixed cells", "reached": all(f.error <= target for f in best.values())}
        for who, found in best.items():
            row[f"{who}setting"] = describe("FFT" if who else "cqpde", found.setting)
            row[f"{who}error"], row[f"{who}seconds"] = found.error, found.seconds
            row[f"{who}ratio"] = found.seconds / best[""].seconds
        yield row
        ours = best[""]
        phases = {name: float(ours.said.get(name, np.nan)) for name in PHASES}
        yield common | phases | {"table": "phases", "setting": row["setting"], "seconds": ours.seconds}


def duration(seconds: float) -> str:
    """Return a time with three digits in ms, or in s from 1 s on."""
    if seconds < 1:
        return f"{1e3 * seconds:.3g} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def show(row: Row) -> str:
    """One line of its table."""
    if row["table"] == "time to error":
        star = " " if row["reached"] else "*"
        return (
            f"{row['problem']:<13} {row['code']:<18} {row['target']:.0e} {duration(row['seconds']):>9}{star} "
            f"{row['error']:.1e}  {row['setting']}{'; ' if row['note'] else ''}{row['note']}"
        )
    size = "{} x {}".format(*row["shape"])
    if row["table"] == "fixed cells":
        line = f"{size:<10} {row['target']:.0e} {duration(row['seconds']):>9}{' ' if row['reached'] else '*'}"
        for who in OTHERS:
            line += f" {duration(row[who + 'seconds']):>9} {row[who + 'ratio']:6.2f} "
        return line + "  " + " | ".join(f"{row[w + 'setting']} ({row[w + 'error']:.1e})" for w in ("", *OTHERS))
    parts = [row[name] for name in PHASES]
    shares = " ".join(f"{duration(x):>11}" for x in (row["seconds"], *parts, row["seconds"] - sum(parts)))
    return f"{size:<10} {row['target']:.0e} {shares}   {row['setting']}"


def main(argv: list[str] | None = None) -> list[Row]:
    """Print the tables; returns their rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes and few settings")
    parser.add_argument("--pypde", action="store_true", help="also py-pde, if installed")
    parser.add_argument("--threads", type=int, default=1, help="threads of the package")
    options = parser.parse_args(argv)
    budget = 0.05 if options.quick else 0.5
    threads = numba.get_num_threads()
    numba.set_num_threads(options.threads)
    rows: list[Row] = []

    def add(new: Iterator[Row]) -> None:
        for row in new:
            rows.append(row)
            if row["table"] != "phases":
                print(show(row), flush=True)

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", cq.CqpdeWarning
        )  # 2e-6 of the probability is outside the box of the first problem
        both = cases(200 if options.quick else 800)
        print(f"Time to error (threads of the package: {options.threads}; * not reached, not run or extrapolated)")
        print(f"{'problem':<13} {'code':<18} {'within':<5} {'time':>9}  {'error':<7}  setting")
        for case in both:
            add(time_to_error(case, options.quick, budget))
            if options.pypde and find_spec("pde"):
                add(py_pde_rows(case))
        if not (options.pypde and find_spec("pde")):
            print("py-pde: not measured; pip install py-pde and give --pypde")
        print(
            "\nSame cells, linear Diosi, each at its own fewest steps; ratio: time over that of cqpde. Tuned: any sequence of steps for"
        )
        print(
            "the extrapolation. Resampled: besides, stepped on as few cells as will do, the result interpolated to all cells."
        )
        print(
            f"{'cells':<10} within {'cqpde':>7} "
            + "".join(f" {who:>10} {'ratio':>6} " for who in OTHERS)
            + "  settings (errors)"
        )
        add(fixed_cells(both[0], [(100, 140)] if options.quick else FIXED, 2 * budget))
    print("\nWhere the time of cqpde split goes")
    print(f"{'cells':<10} within {'whole':>10} {'set-up':>11} {'kernels':>11} {'diagnostics':>11} {'rest':>11}")
    for row in rows:
        if row["table"] == "phases":
            print(show(row))
    numba.set_num_threads(threads)
    return rows


if __name__ == "__main__":
    main()
