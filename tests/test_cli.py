"""The command line from the outside, and the configuration files behind it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import cqpde as cq
from cqpde import config
from cqpde.cli import main
from cqpde.errors import CqpdeError

EXAMPLE = Path(__file__).parent.parent / "examples" / "driven_qubit.toml"


def test_run_writes_a_file_and_prints_moments_beside_the_exact_ones(tmp_path, capsys):
    path = tmp_path / "a.nc"
    assert main(["run", "linear_diosi", "--cells", "q=40", "--cells", "p=64", "--tol", "1e-3", "-o", str(path)]) == 0
    text = capsys.readouterr().out
    for word in (
        "method",
        "steps",
        "trace + escaped - 1",
        "smallest eigenvalue",
        "escaped probability",
        "mean q",
        "cov q p",
        "exact",
    ):
        assert word in text
    ds = cq.load(path)
    assert 'name = "linear_diosi"' in ds.attrs["cqpde_config"]
    assert main(["info", str(path)]) == 0
    assert "linear_diosi" in capsys.readouterr().out


def test_example_file_runs_and_keeps_what_it_asks_for(tmp_path):
    path = tmp_path / "b.nc"
    assert (
        main(["run", str(EXAMPLE), "--quiet", "--cells", "q=32", "--cells", "p=32", "--tol", "0.01", "-o", str(path)])
        == 0
    )
    ds = cq.load(path)
    assert ds.sizes["t"] == 5 and ds.sizes["t_frame"] == 1
    assert set(ds["purity"].dims) == {"t"}
    # decay and drive against the same numbers from the Dataset: unconditioned state keeps its trace
    assert abs(complex(ds["unconditioned_state"][-1, 0, 0] + ds["unconditioned_state"][-1, 1, 1]) - 1) < 1e-6


def test_toml_model_equals_the_python_model():
    problem = config.read(EXAMPLE)
    model = cq.Model(
        ("q", "p"),
        2,
        H=lambda z: [[z.q, 0.5], [0.5, -z.q]],
        L=[cq.sigmaz(), cq.sigmam()],
        D1={"p": [-0.5, 0]},
        D2={"p": 0.5},
        D0=[[0.25, 0], [0, 0.2]],
        D1C={"q": lambda z: z.p, "p": lambda z: -z.q},
    )
    grid = cq.Grid(q=(-7, 7, 32), p=(-8, 8, 48))
    state = cq.gaussian(grid, {"q": 0.5}, 0.6, cq.ket("+"))
    one, two = (cq.solve(m, state, [0, 0.1], grid_error=False).rho.values[-1] for m in (problem.model, model))
    assert abs(one - two).max() < 1e-14


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("coordinates =", "coordinate =", ["model.coordinate", "Did you mean 'coordinates'"]),
        ("drive*sigmax", "drvie*sigmax", ["model.H", "drvie"]),
        ("drive*sigmax", "__import__('os').system('x')", ["model.H"]),
        ('state = "+"', 'state = "up"', ["'up'"]),
        ("tol = 1e-3", 'tol = "small"', ["solver.tol"]),
        ("std = { q = 0.5, p = 0.5 }", "std = { q = 0.5 }", ["std", "none for p"]),
        ("end = 1.0", "", ["time", "exactly one"]),
        ("q = [-6, 6, 48]", "q = [6, -6, 48]", ["Grid(q=...)", "ascending"]),
        ("dim = 2", "dim = 2\nH_C = 1", ["Hamiltonian", "Keep one form"]),
        ("[model]", "[modle]", ["modle", "Did you mean 'model'"]),
    ],
)
def test_bad_files_are_refused(old, new, words):
    text = EXAMPLE.read_text().replace(old, new, 1)
    with pytest.raises(CqpdeError) as caught:
        config.parse_text(text)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_command_line_refusals_exit_with_2(tmp_path, capsys):
    for arguments in (
        ["run", "linear_dios"],
        ["run", "nowhere.toml"],
        ["run", "linear_diosi", "-p", "sgma=1"],
        ["run", "linear_diosi", "-p", "sigma=-1"],
        ["run", "linear_diosi", "-o", str(tmp_path / "no" / "a.nc")],
        ["info", str(tmp_path / "none.nc")],
    ):
        assert main(arguments) == 2, arguments
        assert capsys.readouterr().err.startswith("cqpde: ")


def test_help_and_import_are_quick():
    for arguments in (["-m", "cqpde.cli", "--help"], ["-c", "import cqpde"]):
        best = 9.0
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            best = min(best, time.perf_counter() - start)
        assert best < 0.5


def test_first_solve_of_a_process_is_quick_with_compiled_kernels():
    """Import below half a second (above), first solve below three, the time of loading kernels apart."""
    program = (
        "import time, cqpde as cq; m = cq.models.linear_diosi(); g = cq.Grid(q=(-6, 6, 48), p=(-9, 9, 72));"
        "r = cq.gaussian(g, 0, 0.5, cq.ket('+')); t = time.perf_counter(); s = cq.solve(m, r, [0, 1], tol=1e-3);"
        "print(time.perf_counter() - t, s.attrs['seconds_compile'])"
    )
    best = [9.0, 9.0]
    for _ in range(2):  # the first may compile
        out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
        best = min(best, [float(v) for v in out])
    assert best[0] < 3.0 and 0 < best[1] <= best[0]
