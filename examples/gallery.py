"""Run times and peak memory of every example and every shipped model, as the table of the gallery page.

    python -m examples.gallery            # runs all, about 10 minutes on two cores, and writes the table into examples/README.md

Every row is a process of its own, started from nothing: its seconds are wall-clock time with imports and pictures, its memory the largest
resident size. Kernels are compiled beforehand (once per installation, half a minute).
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
    gigabytes: float


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
    return Row(name, cells, seconds, usage.ru_maxrss * 1024 / 1e9)


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| run | cells | seconds | peak memory |", "| --- | --- | --- | --- |"]
    return "\n".join(lines + [f"| {r.name} | {r.cells} | {r.seconds:.0f} | {r.gigabytes:.1f} GB |" for r in rows])


def main() -> None:
    """Measure everything and write the table."""
    from cqpde.kernels.warm import warm

    warm("split"), warm("fv")
    rows = []
    for run in RUNS:
        rows.append(measure(*run))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    text = README.read_text()
    before, after = text.split(START)[0], text.split(END)[1]
    README.write_text(f"{before}{START}\n{table(rows)}\n{END}{after}")


if __name__ == "__main__":
    main()
