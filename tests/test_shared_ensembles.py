"""Ensembles whose chunks are done by processes (MPI) or Dask workers: the bits of one process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import cqpde as cq
from cqpde.errors import ModelError, OptionError, SolverError
from tests.test_parallel import ENVIRONMENT, mpiexec

pytest.importorskip("mpi4py", reason="mpi4py is not installed: pip install 'cqpde[mpi]'")

GRID = cq.Grid(q=(-6, 6, 32), p=(-9, 9, 32, "absorbing"))
RHO0 = cq.gaussian(GRID, 0, 0.6, cq.ket("+"))
MODEL = cq.models.linear_diosi()
OPTIONS = {"trajectories": 20_000, "seed": 3, "dt": 0.1, "bias": True, "store": 5, "stored": 5000, "arrivals": True, "field": True, "progress": False}
SQUARE = {"square": lambda z, rho: z.q**2}


def same(one, other) -> bool:
    """Equal to the last bit, but for the time that it took."""
    return bool(one.assign_attrs(wall_seconds=0).identical(other.assign_attrs(wall_seconds=0)))


PROGRAM = """
import sys
import cqpde as cq
from mpi4py import MPI
from tests.test_shared_ensembles import GRID, MODEL, OPTIONS, RHO0, SQUARE, same

comm = MPI.COMM_WORLD
run = lambda comm: cq.unravel(MODEL, RHO0, [0, 0.5, 1], moments=SQUARE, comm=comm, **OPTIONS)
ens = run(comm)
few = cq.unravel(MODEL, RHO0, [0, 1], trajectories=4096, seed=5, dt=0.1, comm=comm)  # fewer chunks than processes
few = comm.bcast(few)
more = cq.extend(few, MODEL, RHO0, 20_000, comm=comm)
drawn = cq.unravel(MODEL, RHO0, [0, 1], trajectories=100, dt=0.1, comm=comm)
if comm.rank == 0:
    assert drawn.attrs["trajectories"] == 100
    print(same(ens, run(None)), same(more, cq.extend(few, MODEL, RHO0, 20_000)))

def exploding(z, rho):
    if float(z.q[0]) != 0.0 and comm.rank == comm.size - 1:
        raise ZeroDivisionError("mine")
    return z.q

bad = cq.Model(("q",), 2, L=cq.sigmaz(), D1=[[0.5]], D2=[[0.5]], D0="saturated", D1C={"q": lambda z: z.q**3 * 1e3})
for action in (
    lambda: cq.unravel(bad, cq.gaussian(cq.Grid(q=(-6, 6, 32)), 0, 0.5, cq.ket("+")), [0, 5], trajectories=20_000, seed=1, dt=0.5, method="euler-maruyama", comm=comm),
    lambda: cq.unravel(MODEL, RHO0, [0, 1], trajectories=20_000, seed=1, dt=0.1, moments={"m": exploding}, comm=comm),
):
    try:
        said = str(action())
    except Exception as error:
        said = f"{type(error).__name__} {error}"
    said = comm.gather(said)
    if comm.rank == 0:
        print(len(said), len(set(said)), said[0])
"""


@pytest.mark.parametrize("n", [4])
def test_processes_give_the_bits_of_one(n, tmp_path):
    """Paths, arrivals, fields, bias, moments, extension; an error in a chunk of one process ends all with the same words."""
    (tmp_path / "run.py").write_text(PROGRAM)
    done = mpiexec(n, str(tmp_path / "run.py"))
    assert done.returncode == 0, done.stderr[-2000:]
    same_bits, exploded, raised = done.stdout.splitlines()
    assert same_bits == "True True"
    assert exploded.startswith(f"{n} 1 SolverError unravel: every trajectory must stay finite")
    assert raised.startswith(f"{n} 1 OptionError moments['m']") and "ZeroDivisionError: mine" in raised


def test_a_killed_ensemble_goes_on_with_another_number_of_processes(tmp_path):
    program = tmp_path / "run.py"
    program.write_text(
        "import sys, cqpde as cq\nfrom mpi4py import MPI\nfrom tests.test_shared_ensembles import *\n"
        f"folder = {str(tmp_path / 'ens')!r}\ncomm = MPI.COMM_WORLD\noptions = OPTIONS | {{'trajectories': 100_000, 'dt': 0.02}}\n"
        "if sys.argv[1] == 'begin':\n    cq.unravel(MODEL, RHO0, [0, 0.5, 1], moments=SQUARE, comm=comm, checkpoint=folder, checkpoint_every=0, **options)\n"
        "else:\n    ens = cq.resume(folder, moments=SQUARE, comm=comm)\n    if comm.rank == 0:\n"
        "        print(same(ens, cq.unravel(MODEL, RHO0, [0, 0.5, 1], moments=SQUARE, **options)))\n"
    )
    job = subprocess.Popen([str(Path(sys.executable).parent / "mpiexec"), "-n", "2", sys.executable, str(program), "begin"], stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    until = time.monotonic() + 100
    while not (tmp_path / "ens" / "state.1").exists() and time.monotonic() < until and job.poll() is None:
        time.sleep(0.01)
    mine = [p for p in psutil.Process(job.pid).children(recursive=True) if "run.py" in " ".join(p.cmdline())]
    mine[-1].kill()
    assert job.wait(timeout=60) != 0
    done = mpiexec(3, str(program), "resume")
    assert done.returncode == 0 and done.stdout.split() == ["True"], done.stderr[-2000:]


def test_validate_command_on_two_processes(tmp_path):
    """One verdict, the figures of one process."""
    file = str(tmp_path / "a.nc")
    run = [sys.executable, "-m", "cqpde.cli"]
    assert subprocess.run([*run, "run", "linear_diosi", "--cells", "q=48", "--cells", "p=48", "-q", "-o", file], check=False).returncode == 0
    words = ["validate", file, "--trajectories", "20000", "--seed", "1", "-q"]
    one, two = subprocess.run([*run, *words], capture_output=True, text=True, check=False), mpiexec(2, "-m", "cqpde.cli", *words)
    assert two.stdout == one.stdout and two.returncode == one.returncode and one.stdout


def test_dask_workers_give_the_bits_of_one_process():
    """Functions of the user travel; what a worker raises is raised here; a worker that dies is replaced."""
    distributed = pytest.importorskip("distributed", reason="distributed is not installed: pip install 'cqpde[dask]'")
    model = cq.Model(("q", "p"), 2, L=cq.sigmaz(), D1={"p": [0.5]}, D2={"p": 0.5}, D0="saturated", H=lambda z: [[z.q, 0 * z.q], [0 * z.q, -z.q]], D1C={"q": lambda z: z.p})
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster, distributed.Client(cluster) as client:
        rho0 = cq.product(GRID, lambda z: np.exp(-(z.q**2) - z.p**2), cq.ket("+"))  # drawn by rejection
        run = lambda **more: cq.unravel(model, rho0, [0, 0.5, 1], moments=SQUARE, **OPTIONS, **more)
        one = run()
        assert same(run(client=client), one)
        with pytest.raises(OptionError, match="and comm exclude each other"):
            run(client=client, comm=_Alone())
        with pytest.raises(OptionError, match="and threads exclude each other"):
            cq.unravel(MODEL, RHO0, [0, 1], trajectories=5000, threads=2, client=client)

        def exploding(z, rho):
            raise ModelError("moments", "is a planted mistake", "", "")

        with pytest.raises(ModelError, match="planted"):
            cq.unravel(MODEL, RHO0, [0, 1], trajectories=5000, seed=1, dt=0.1, moments={"m": exploding}, client=client)
    with pytest.raises(OptionError, match="connected to its scheduler"):
        run(client=client)


class _Alone:
    rank, size, bcast, Alltoallw = 0, 1, None, None


@pytest.mark.parametrize(("name", "words"), [("client", "client: must be a dask.distributed.Client"), ("comm", "comm: must be an mpi4py communicator")])
def test_what_is_no_client_or_communicator_is_refused(name, words):
    with pytest.raises(OptionError) as caught:
        cq.unravel(MODEL, RHO0, [0, 1], trajectories=10, **{name: 3})
    assert str(caught.value).startswith(words)


def test_threads_run_no_further_ahead_than_they_must():
    """An error ends the ensemble at the first chunk that has it; chunks far behind are not begun."""
    from cqpde.unravelling.sharing import by_threads

    begun = []

    def work(k, size, stored, pilot):
        begun.append(k)
        if k == 3:
            raise SolverError("unravel", "is a planted mistake", "", "")
        return k

    parts = by_threads(work, [(k, 1, 0, False) for k in range(100)], 2)
    assert [next(parts) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(SolverError):
        next(parts)
    assert len(begun) < 12 and np.all(np.diff(sorted(begun)) == 1)
