"""Layers, README blocks, examples and measurement scripts: everything shipped runs, and imports go one way."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

#: A module may import, at its top level, only modules of its own or an earlier layer.
LAYERS = [
    {"errors", "operators", "components", "memory", "options", "signals"},
    {"container", "compiling"},
    {"checkpoint"},
    {"communicator"},
    {"grid", "kernels", "expressions"},
    {"tracing"},
    {"coefficients"},
    {"model", "physicality"},
    {"sampling"},
    {"initial", "dataset"},
    {"models", "suggest", "windows", "hamiltonian", "superoperators", "stencil", "timescale"},
    {"stored_model"},
    {"unravelling"},
    {"fv"},
    {"channels"},
    {"integrate"},
    {"interop"},
    {"observables"},
    {"io", "file_checks"},
    {"field_store"},
    {"choice", "recorder", "blame"},
    {"runs"},
    {"caveats"},
    {"parallel"},
    {"stored_run"},
    {"solver"},
    {"estimating"},
    {"sites"},
    {"moving"},
    {"stretches"},
    {"stored_window"},
    {"following"},
    {"trajectory_arrays"},
    {"comparison"},
    {"report"},
    {"theory"},
    {"config"},
    {"export", "plotting", "starting", "resuming", "running"},
    {"commands"},
    {"cli"},
]
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer}


def _imports(path: Path):
    """Top-level relative imports of a module, as names of the package's parts."""
    package = path.relative_to(ROOT / "cqpde").parts[:-1]
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            for name in [node.module] if node.module else [a.name for a in node.names]:
                yield (*base, *name.split("."))[0]


def test_imports_go_one_way():
    seen = 0
    for path in (ROOT / "cqpde").rglob("*.py"):
        own = path.relative_to(ROOT / "cqpde").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for name in _imports(path):
            seen += 1
            assert RANK[name] <= RANK[own], f"{path.name} imports {name}, which is a later layer"
    assert seen > 40


def test_trajectories_and_grid_solvers_share_nothing_but_model_and_state():
    """One road checks the other, so neither may use the other's code."""
    roads = {"trajectories": {"unravelling"}, "grid": {"fv", "channels", "integrate", "solver", "runs", "kernels", "physicality"}}
    common = {"errors", "options", "operators", "grid", "coefficients", "model", "initial", "sampling", "dataset", "observables", "checkpoint", "signals", "stored_model", "compiling", "communicator"}
    every = re.compile(r"^\s*from (\.+)([\w.]*) import (.+)$", re.M)
    seen = 0
    for path in (ROOT / "cqpde" / "unravelling").glob("*.py"):
        for dots, module, names in every.findall(path.read_text()):
            if len(dots) == 1:
                continue
            parts = [module.split(".")[0]] if module else [n.strip().split(" ")[0] for n in names.split(",")]
            assert set(parts) <= common, f"{path.name} imports {parts}"
            seen += 1
    for name in roads["grid"]:
        for path in [*(ROOT / "cqpde").glob(f"{name}.py"), *(ROOT / "cqpde" / name).glob("*.py")]:
            assert not re.search(r"import .*unravelling|from .*unravelling", path.read_text()), path
    assert seen > 10


def test_numba_stays_in_the_kernels():
    users = {
        str(p.relative_to(ROOT / "cqpde").with_suffix(""))
        for p in (ROOT / "cqpde").rglob("*.py")
        if re.search(r"^from numba|@kernel", p.read_text(), re.M)
    }
    assert {u for u in users if not u.startswith("kernels/")} == {"compiling"} | {
        f"unravelling/kernels{part}" for part in ("", "_instrument", "_lanes", "_statistics")
    }
    assert not [p for p in (ROOT / "cqpde").rglob("*.py") if "njit(" in p.read_text() and p.stem != "compiling"]


def test_readme_blocks_run(tmp_path, monkeypatch):
    """Every block in order, in one folder, as a newcomer would; the lines that install are those of the CI script."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    assert {kind for kind, _ in blocks} <= {"python", "bash", "text"}
    assert len([kind for kind, _ in blocks if kind == "python"]) >= 6
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, "README.md", "exec"), {})
        if kind == "bash":
            lines = [line for line in block.splitlines() if not re.match(r"python3 -m venv|pip install", line)]
            run = subprocess.run(["bash", "-euc", "\n".join(lines)], capture_output=True, text=True)
            assert run.returncode == 0, block + run.stdout + run.stderr
    for name in ("diosi.nc", "diosi.png", "diosi.html", "hybrid.png", "my.nc", "my.png", "part.nc", "plane.csv", "facts.json"):
        assert (tmp_path / name).stat().st_size > 500, name
    assert "linear_diosi" in (tmp_path / "facts.json").read_text()


def test_examples_run(tmp_path):
    from examples import stern_gerlach, trajectories

    sol = stern_gerlach.main(cells=64, path=str(tmp_path / "a.nc"))
    assert abs(float(sol.trace[-1] + sol.escaped_probability[-1]) - 1) < 1e-12
    ens, mean = trajectories.main(trajectories=500, path=str(tmp_path / "e.nc"))
    assert float(ens.moments[-1, -1, :2].sum()) > 2 * float(mean.moments[-1, -1, :2].sum())


def test_kernel_measurements_run():
    from validation import kernels

    rows = kernels.main(["--quick"])
    assert {r[0] for r in rows} == {"sweep, diagonal", "sweep, dense", "remap, limited"}
    assert all(r[6] > 0 for r in rows)


def test_trajectory_measurements_run():
    from validation import trajectories

    numbers = trajectories.main(["--quick", "--threads", "1"])
    assert all(rate > 0.05 for _, rate in numbers["speed"])
    gains = {row["method"]: row["gain"] for row in numbers["time to bias"]}
    assert gains["instrument"] > max(1.5, gains["weak-2"])  # at a bias of 0.01; the smaller the bias, the larger
    assert numbers["purity"]["instrument, ket"] < 1e-10 and 0.35 < numbers["purity"]["slope"] < 0.65


def test_both_roads_and_planted_mistakes_run():
    from validation import two_roads

    numbers = two_roads.main(["--quick", "--threads", "1"])
    assert all(verdict in ("agree", "inconclusive") for *_, verdict, _ in numbers["two roads"])
    assert len(numbers["rejects"]) == 5 and all(p < 1e-6 for p in numbers["rejects"].values())


def test_the_monitored_qubit_of_other_codes_runs():
    from validation import monitored_qubit

    rows = monitored_qubit.main(["--quick", "--threads", "1"])
    assert {row["code"] for row in rows} >= {"cqpde, kets", "cqpde, matrices"}
    assert all(abs(row["z"]) < 4.5 for row in rows)
    qutip = [row["rate"] for row in rows if row["code"] == "QuTiP"]
    assert all(rows[0]["rate"] > 5 * rate for rate in qutip)


def test_performance_measurements_run():
    from validation import performance

    rows = performance.main(["--quick"])
    mine = [r for r in rows if r.get("code") == "cqpde split"]
    assert {r["problem"] for r in mine} == {"linear Diosi", "driven qubit"}
    for row in mine:
        assert row["error"] <= row["target"] and row["seconds"] > 0


def test_four_dimensional_measurements_run():
    from validation import four_dimensions

    figures = four_dimensions.main(["--quick"])
    assert abs(figures["trace"]) < 1e-12
    assert figures["seconds_per_step"] > 0


def test_fused_sweeps_have_the_same_bits():
    from validation import fused_sweeps

    assert all(row["same_bits"] and row["apart"] > 0 for row in fused_sweeps.main(["--quick"]))


def test_bandwidth_measurements_run():
    from validation import bandwidth

    rows = bandwidth.main(["--quick"])
    assert {r["sweep"].split()[0] for r in rows} == {"circulant", "transform", "local", "contraction", "finite"}
    assert all(r["bytes_per_second"] > 1e6 for r in rows)
