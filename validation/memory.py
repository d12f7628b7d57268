"""Memory and time of ``cqpde estimate`` against runs: the largest resident size of the process, and its seconds.

    python -m validation.memory              # grids of up to 48^4 cells: some minutes, 3 GB
    python -m validation.memory --quick      # two of them, smaller

Every row is two processes: ``cqpde estimate ... --json`` and ``cqpde run`` with the same arguments.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: Three levels, back-reaction that does not commute with H, dense noise: finite volumes.
DENSE = """
[model]
coordinates = ["x"]
dim = 3
H = [[0, 1, 0], [1, 0, "I*(1+x/9)"], [0, "-I*(1+x/9)", 1]]
L = [[[0, 1, 0], [0, 0, 1], [0, 0, 0]], [[1, 0, 0], [0, 0, 0], [0, 0, -1]]]
D0 = "saturated"
D1 = [[0.3, "0.2+0.05*sin(x)"]]
D2 = [[0.5]]
[grid]
x = [-8, 8, 60000]
[initial]
mean = { x = 0 }
std = { x = 0.7 }
state = [1, 0, 0]
[time]
end = 2e-6
outputs = 3
[solver]
method = "fv"
tol = 1e-2
"""

#: What ``cqpde run`` is given; the text of a file stands for the file.
CASES: dict[str, list[str]] = {
    "linear Diosi, 1024^2, 11 frames": ["linear_diosi", "--cells", "q=1024", "--cells", "p=1024"],
    "the same by equal steps": ["linear_diosi", "--cells", "q=1024", "--cells", "p=1024", "--dt", "0.1"],
    "the same in single precision": ["linear_diosi", "--cells", "q=1024", "--cells", "p=1024", "--dt", "0.1", "--precision", "single"],
    "the same, exact positivity, 384 x 512": ["linear_diosi", "--cells", "q=384", "--cells", "p=512", "--positivity", "exact", "--transport", "limited", "--tol", "0.05"],
    "the same, finite volumes, 256 x 512": ["linear_diosi", "--cells", "q=256", "--cells", "p=512", "--method", "fv", "--tol", "0.05"],
    "two qubits, 28^2 x 40^2, d = 4": ["qubit_lattice", "--cells", "phi_1=28", "--cells", "phi_2=28", "--cells", "pi_1=40", "--cells", "pi_2=40"],
    "mass in superposition, 48^4": ["mass_in_superposition"],
    "three levels, dense, 60000": [DENSE],
}

QUICK = ("the same by equal steps", "three levels, dense, 60000")


#: Runs a command and says its largest resident size; that of a process as its parent sees it may be the parent's own before it became another program.
PROGRAM = """
import re, resource, sys
from cqpde.cli import main
code = main(sys.argv[1:])
try:
    peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(peak, file=sys.stderr)
sys.exit(code)
"""


def measured(arguments: list[str]) -> tuple[str, float, float]:
    """Output of a command, its largest resident size in bytes, and its seconds."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{arguments}: exit code {done.returncode}: {done.stderr}")
    return done.stdout, float(done.stderr.splitlines()[-1]), time.perf_counter() - began


def compare(name: str, folder: Path) -> dict[str, Any]:
    """Estimate and run one case."""
    what, *options = CASES[name]
    if "\n" in what:
        (folder / "case.toml").write_text(what)
        what = str(folder / "case.toml")
    estimate = json.loads(measured(["estimate", what, *options, "--json"])[0])
    _, peak, seconds = measured(["run", what, *options, "-q", "-o", str(folder / "out.nc")])
    return {"name": name, "estimate": estimate["bytes_peak"], "peak": peak, "ratio": estimate["bytes_peak"] / peak, "seconds_estimate": float("nan") if estimate["seconds"] is None else estimate["seconds"], "seconds": seconds}


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Print the table; returns its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(argv)
    rows = []
    print(f"{'run':>40} {'estimate':>10} {'resident':>10} {'ratio':>6} {'seconds, estimate':>18} {'whole process':>14}")
    for name in QUICK if given.quick else CASES:
        with tempfile.TemporaryDirectory() as folder:
            row = compare(name, Path(folder))
        rows.append(row)
        print(f"{name:>40} {row['estimate'] / 1e6:7.0f} MB {row['peak'] / 1e6:7.0f} MB {row['ratio']:6.2f} {row['seconds_estimate']:18.2g} {row['seconds']:14.2g}", flush=True)
    return rows


if __name__ == "__main__":
    main()
