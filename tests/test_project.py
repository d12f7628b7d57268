"""Layers, README blocks, examples and measurement scripts: everything shipped runs, and imports go one way."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent

#: A module may import, at its top level, only modules of its own or an earlier layer.
LAYERS = [
    {"errors", "operators", "components"},
    {"grid", "kernels", "expressions"},
    {"coefficients"},
    {"model", "physicality"},
    {"sampling"},
    {"initial", "dataset"},
    {"models", "suggest", "hamiltonian", "superoperators", "stencil", "timescale"},
    {"unravelling"},
    {"fv"},
    {"channels"},
    {"integrate"},
    {"interop"},
    {"observables"},
    {"choice", "recorder"},
    {"runs"},
    {"solver"},
    {"sites"},
    {"comparison"},
    {"report"},
    {"io", "config"},
    {"plotting"},
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
    common = {"errors", "operators", "grid", "coefficients", "model", "initial", "sampling", "dataset", "observables"}
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
        if re.search(r"^from numba|@njit", p.read_text(), re.M)
    }
    assert {u for u in users if not u.startswith("kernels/")} == {"unravelling/kernels", "unravelling/kernels_instrument"}


def test_readme_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(blocks) >= 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "diosi.nc").exists()


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
    assert numbers["two roads"]["z-dependent noise"][0] in ("agree", "inconclusive")


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
