"""Run times and peak memory of every example and every shipped model, as the table of the gallery page.

    python -m examples.gallery                   # runs all, about 10 minutes on two cores, and writes the table into examples/README.md
    python -m examples.gallery mass_in           # only the rows whose name contains one of the words

Every row is a process of its own, started from nothing: its seconds are wall-clock and processor time with imports and pictures, its memory the
largest resident size. Kernels are compiled beforehand (once per installation, half a minute).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parent / "README.md"
START, END = "<!-- run times: written by examples.gallery -->", "<!-- end of run times -->"

#: What is run: name, cells, arguments of Python.
RUNS = [
    *[
        (f"`cqpde run {name}`", cells, ["-m", "cqpde.cli", "run", name, "-q", "-o", f"{name}.nc"])
        for name, cells in (("linear_diosi", "128 x 256"), ("well_and_barrier", "128 x 128"), ("qubit_lattice", "24^2 x 36^2, d = 4"), ("mass_in_superposition", "48^4"))
    ],
    *[
        (f"`examples.{name}`", cells, ["-m", f"examples.{name}"])
        for name, cells in (
            ("linear_diosi", "96 x 112"), ("well_and_barrier", "128 x 96, five runs"), ("mass_in_superposition", "64^4"),
            ("qubit_lattice", "64 x 96 per site, 5 and 1000 sites"), ("mixture_and_superposition", "64 x 96"), ("low_noise", "128 x 128, four runs"),
        )
    ],
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What one run took."""

    name: str
    cells: str
    seconds: float
    processor: float
    gigabytes: float

    def __str__(self) -> str:
        return f"| {self.name} | {self.cells} | {self.seconds:.0f} | {self.processor:.0f} | {self.gigabytes:.1f} GB |"


def measure(name: str, cells: str, arguments: list[str]) -> Row:
    """Run Python with ``arguments`` in a process of its own, in a folder for its files."""
    root = str(Path(__file__).parent.parent)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", *arguments], cwd=folder, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": root}
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    if status != 0:
        raise RuntimeError(f"{name} failed")
    return Row(name, cells, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9)


def updated(text: str, rows: list[Row]) -> str:
    """The page with these rows in its table, in the place of older ones of the same name."""
    before, rest = text.split(START)
    old, after = rest.split(END)
    known = {line.split(" | ")[0].removeprefix("| "): line for line in old.splitlines() if line.startswith("| ")} | {r.name: str(r) for r in rows}
    lines = ["| run | cells | seconds | processor seconds | peak memory |", "| --- | --- | --- | --- | --- |"]
    return f"{before}{START}\n" + "\n".join(lines + [known[name] for name, _, _ in RUNS if name in known]) + f"\n{END}{after}"


def main(words: list[str]) -> None:
    """Measure and write the table."""
    from cqpde.kernels.warm import warm

    warm("split"), warm("fv")
    for run in RUNS:
        if not words or any(word in run[0] for word in words):
            row = measure(*run)
            print(row, flush=True)
            README.write_text(updated(README.read_text(), [row]))


if __name__ == "__main__":
    main(sys.argv[1:])
