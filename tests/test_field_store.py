"""Fields that go to a Zarr store while a run goes on (``output=``)."""

from __future__ import annotations

import os
import tracemalloc

import numpy as np
import pytest

import cqpde as cq
from cqpde.errors import CqpdeError, FileError, Interrupted, OptionError
from tests.test_parallel import mpiexec

pytest.importorskip("zarr", reason="zarr is not installed: pip install 'cqpde[zarr]'")

GRID = cq.Grid(q=(-6, 6, 42), p=(-9, 9, 48))
START = cq.gaussian(GRID, 0, 0.5, cq.ket("+"))
BATCH = [START, cq.gaussian(GRID, 0, 0.5, cq.ket("0"))]
TIMES = [0, 0.1, 0.3]
MODEL = cq.models.linear_diosi()


@pytest.mark.parametrize(("options", "rho0"), [({"dt": 0.02}, BATCH), ({"method": "fv", "frames": [0.1, 0.3], "save": ["purity"]}, START), ({"method": "split"}, START)])
def test_store_holds_what_the_run_would_return(options, rho0, tmp_path):
    sol, one = cq.solve(MODEL, rho0, TIMES, output=tmp_path / "a.zarr", **options), cq.solve(MODEL, rho0, TIMES, **options)
    assert os.listdir(tmp_path) == ["a.zarr"] and set(sol.variables) == set(one.variables)
    again = cq.load(tmp_path / "a.zarr")
    for name in set(one.data_vars) - {"wall_seconds"}:
        np.testing.assert_array_equal(sol[name], one[name], err_msg=name)
        np.testing.assert_array_equal(again[name], one[name], err_msg=name)
    assert (sol.cq.marginal("q") == one.cq.marginal("q")).all() and sol.attrs["resolution_error"] == one.attrs["resolution_error"]


def test_no_field_stays_in_memory(tmp_path):
    grid = cq.Grid(q=(-6, 6, 100), p=(-9, 9, 100))
    rho0, times = cq.gaussian(grid, 0, 0.5, cq.ket("+")), np.linspace(0, 0.4, 41)
    frames = 41 * 16 * 4 * 100 * 100
    peaks = []
    for output in (None, tmp_path / "a.zarr"):
        cq.solve(MODEL, rho0, times[:2], dt=0.01, output=output)  # libraries are loaded
        tracemalloc.start()
        cq.solve(MODEL, rho0, times, dt=0.01, output=output)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] > frames and peaks[1] < 0.6 * frames


def test_a_stopped_run_goes_on_in_its_store(tmp_path):
    options = {"dt": 0.001, "checkpoint_every": 0, "output": str(tmp_path / "a.zarr")}
    times = np.linspace(0, 0.3, 31)
    with pytest.raises(Interrupted):
        cq.solve(MODEL, START, times, checkpoint=tmp_path / "run", max_walltime=0.6, **options)
    assert (tmp_path / ".a.zarr.part").is_dir() and not (tmp_path / "a.zarr").exists()
    sol = cq.resume(tmp_path / "run")
    assert (sol.rho == cq.solve(MODEL, START, times, dt=0.001).rho).all() and not (tmp_path / ".a.zarr.part").exists()


def test_fields_that_are_gone_are_missed(tmp_path):
    options = {"dt": 0.001, "checkpoint_every": 0, "output": str(tmp_path / "a.zarr")}
    with pytest.raises(Interrupted):
        cq.solve(MODEL, START, np.linspace(0, 0.3, 31), checkpoint=tmp_path / "run", max_walltime=0.6, **options)
    os.rename(tmp_path / ".a.zarr.part", tmp_path / "elsewhere")
    with pytest.raises(FileError, match="must hold the fields that were written before"):
        cq.resume(tmp_path / "run")


@pytest.mark.parametrize(
    ("output", "error", "words"),
    [("a.nc", OptionError, "output: must be the name of a Zarr store"), (3, OptionError, "output: must be"), ("no/a.zarr", FileError, "must lie in an existing folder"),
     ("mine.zarr", FileError, "must be a file to write")],
)  # fmt: skip
def test_a_bad_place_is_refused_before_the_run(output, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.zarr").mkdir()
    with pytest.raises(error, match=words):
        cq.solve(MODEL, START, TIMES, output=output)
    assert os.listdir(tmp_path) == ["mine.zarr"]


def test_a_run_without_result_leaves_nothing(tmp_path):
    bad = cq.Model(("q", "p"), 2, L=cq.sigmaz(), D1={"p": [0.5]}, D2={"p": 0.5}, D0="saturated", H=lambda z, t: [[np.where(t > 0.2, np.nan, z.q), 0 * z.q], [0 * z.q, -z.q]])
    with pytest.raises(CqpdeError):
        cq.solve(bad, START, TIMES, method="fv", output=tmp_path / "a.zarr", check="off")
    assert os.listdir(tmp_path) == []


PROGRAM = """
import sys, warnings
import numpy as np, cqpde as cq
from cqpde.parallel import slabs
from mpi4py import MPI

warnings.simplefilter("ignore")
comm = MPI.COMM_WORLD
if sys.argv[2] == "messages":
    slabs._one_machine = lambda comm: False
from tests.test_field_store import BATCH, MODEL, START, TIMES

for options, rho0 in (({"dt": 0.02}, BATCH), ({"method": "fv", "grid_error": False}, START)):
    sol = cq.solve(MODEL, rho0, TIMES, output=sys.argv[1], comm=comm, **options)
    if sol is not None:
        one = cq.solve(MODEL, rho0, TIMES, **options)
        assert sol.rho.chunks is not None and set(sol.variables) == set(one.variables)
        print(float(abs(sol.rho - one.rho).max()), sol.rho.shape == one.rho.shape)
"""


@pytest.mark.parametrize(("n", "way"), [(3, "messages")])
def test_processes_write_their_own_cells(n, way, tmp_path):
    """42 cells over 3 processes in whole chunks: the fields of a run of one process."""
    (tmp_path / "run.py").write_text(PROGRAM)
    done = mpiexec(n, str(tmp_path / "run.py"), str(tmp_path / "a.zarr"), way)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 2 and all(float(apart) <= 1e-14 and same == "True" for apart, same in rows)
