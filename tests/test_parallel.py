"""Runs shared between processes (MPI) against runs of one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import cqpde as cq
from cqpde.errors import OptionError

pytest.importorskip("mpi4py", reason="mpi4py is not installed: pip install 'cqpde[mpi]'")

PROGRAM = """
import sys
import numpy as np, cqpde as cq
from cqpde.parallel import slabs
from mpi4py import MPI

if sys.argv[2] == "messages":  # as on machines that share no memory
    slabs._one_machine = lambda comm: False
grid, basis = {
    "diosi": (cq.Grid(q=(-6, 6, 96), p=(-9, 9, 128)), None),
    "field": (cq.Grid(phi0=(-5, 5, 21), pi0=(-6.5, 6.5, 30), phi1=(-5, 5, 22), pi1=(-6.5, 6.5, 30)), None),
    "driven": (cq.Grid(q=(-5, 5, 40, "periodic"), p=(-7, 7, 64)), None),
    "single": (cq.Grid(q=(-6, 6, 96), p=(-9, 9, 128)), None),
    "skipping": (cq.Grid(q=(-6, 6, 64), p=(-20, 20, 1024)), None),
}[sys.argv[1]]
model = {
    **dict.fromkeys(("diosi", "single", "skipping"), lambda: cq.models.linear_diosi()),
    "field": lambda: cq.scalar_field([np.diag([1, 0]), np.diag([0, 1])], noise=[[0.5, 0.2], [0.2, 0.5]], coupling=0.6, periodic=False),
    "driven": lambda: cq.Model(  # coefficients of z and t, operators that do not commute, friction, excess decoherence
        ("q", "p"), 2, H=lambda z, t: [[np.sin(0.2 * np.pi * z.q), np.cos(3 * t)], [np.cos(3 * t), 0 * z.q]], L=[cq.sigmaz(), cq.sigmax()],
        D1={"p": [-0.4, 0.1j]}, D2={"p": 0.4}, D0=[[0.5, 0], [0, 0.1]], D1C={"q": lambda z: z.p, "p": lambda z: -0.3 * z.p},
    ),
}[sys.argv[1]]()
start = [cq.gaussian(grid, 0, 0.75, cq.ket(k)) for k in ("0", "+")] if sys.argv[1] == "field" else cq.gaussian(grid, 0, 0.5, cq.ket("+"))
options = {"dt": 0.05, "grid_error": False, "frames": [0.0, 0.4]}
options.update({"single": {"precision": "single"}, "skipping": {"precision": "single", "skip_below": 1e-5}}.get(sys.argv[1], {}))
comm = MPI.COMM_WORLD
sol = cq.solve(model, start, [0, 0.2, 0.4], comm=comm, **options)
assert (sol is None) == (comm.rank > 0)
if sol is not None:
    assert ("exchanged" in sol.attrs["time_integration"]) == (sys.argv[2] == "messages")
    one = cq.solve(model, start, [0, 0.2, 0.4], **options)
    assert sol.rho.dtype == one.rho.dtype
    apart = np.abs(sol.rho.values - one.rho.values)
    print(apart.max() / np.abs(one.rho.values).max())
    if sys.argv[1] == "skipping":  # other lines form a block
        assert 0 < apart[-1].sum() * grid.cell_volume < sol.attrs["skipped_error"] + one.attrs["skipped_error"] < 1e-3
        raise SystemExit
    for name in ("trace", "min_eigenvalue", "escaped_probability", "edge_probability", "end_probability", "time_error", "grid_error", "dt", "steps"):
        rtol = 0.1 if sys.argv[1] == "single" else 1e-6  # there the highest modes hold round-off
        np.testing.assert_allclose(sol[name], one[name], rtol=rtol, atol=1e-7 if sys.argv[1] == "single" else 1e-12, err_msg=name)
"""


CONTROLLED = """
import warnings
import numpy as np, cqpde as cq
from mpi4py import MPI

comm = MPI.COMM_WORLD
warnings.simplefilter("ignore")  # of walls, and of estimates that too few cells do not give
diosi = cq.models.linear_diosi()
energy = lambda z, t: 0.3 * np.cos(np.pi * z.x / 4 - t)
cases = {
    "walls": (diosi, cq.Grid(q=(-3, 3, 40, "outflow"), p=(-2, 2.5, 48, ("reflecting", "absorbing"))), {"method": "fv"}),
    "correlated": (
        cq.Model(
            ("x", "y"), 2, H=lambda z, t: [[0 * z.x, energy(z, t)], [energy(z, t), 0 * z.x]], L=cq.sigmaz(), D1={"x": [0.3], "y": [0.1]},
            D2=[[0.5, 0.2], [0.2, 0.3]], D0="saturated",
        ),
        cq.Grid(x=(-4, 4, 24, "periodic"), y=(-4, 4, 30)), {"method": "fv"},
    ),
    "three axes": (
        cq.Model(
            ("q", "p", "x"), 2, L=cq.sigmaz(), D1={"p": [0.3]}, D2={"p": 0.5}, D0="saturated",
            D1C={"q": lambda z: z.p, "p": lambda z: -z.q, "x": lambda z: -z.x + np.cos(z.q)},
        ),
        cq.Grid(q=(-4, 4, 20), p=(-4, 4, 24), x=(-3, 3, 22)), {"method": "fv", "tol": 1e-2},
    ),
    "seam": (
        cq.Model(("x",), 2, L=cq.sigmaz(), D1=[[0.1]], D2=[[lambda z: 0.2 * (1 + (z.x / 5) ** 2)]], D0="saturated"),
        cq.Grid(x=(-5, 5, 40, "periodic")), {"method": "fv", "check": "off"},
    ),
    "linear": (diosi, cq.Grid(q=(-6, 6, 40), p=(-9, 9, 24)), {"method": "fv", "transport": "linear", "check": "off"}),
    "upwind, periodic": (diosi, cq.Grid(q=(-6, 6, 40, "periodic"), p=(-9, 9, 24)), {"method": "fv", "transport": "upwind"}),
    "step control": (diosi, cq.Grid(q=(-6, 6, 96), p=(-9, 9, 128)), {"method": "split", "tol": 1e-9}),
}
for case, (model, grid, options) in cases.items():
    start = [cq.gaussian(grid, 0, 0.5, cq.ket(k)) for k in "0+"] if case in ("walls", "correlated") else cq.gaussian(grid, 0, 0.5, cq.ket("+"))
    run = lambda comm: cq.solve(model, start, [0, 0.1, 0.3], comm=comm, save=["purity"], frames=[0.1, 0.3], **options)
    sol = run(comm)
    if comm.rank:
        continue
    one = run(None)
    largest = lambda name: abs(sol[name] - one[name]).max().item() / abs(one[name]).max().item()
    print(case, largest("rho"), largest("purity"), abs(sol.escaped - one.escaped).max().item(), float((sol.trace + sol.escaped_probability - 1).__abs__().max()), sep=",")
    if case != "step control":
        for name in ("trace", "min_eigenvalue", "edge_probability", "end_probability", "time_error", "dt", "steps"):
            np.testing.assert_allclose(sol[name], one[name], rtol=1e-6, atol=1e-12, err_msg=name)
"""


#: Programs of these tests import from this folder.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}


def mpiexec(n: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter on n processes."""
    program = Path(sys.executable).parent / "mpiexec"
    return subprocess.run([str(program), "-n", str(n), sys.executable, *words], capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT)


@pytest.mark.parametrize(
    ("case", "n", "way", "bound"),
    [("diosi", 2, "messages", 0.0), ("diosi", 3, "memory", 0.0), ("field", 2, "memory", 1e-12), ("field", 4, "messages", 1e-12), ("driven", 3, "messages", 1e-12), ("driven", 2, "memory", 1e-12),
     ("single", 2, "messages", 0.0), ("skipping", 3, "memory", 1e-5)],
)
def test_many_processes_give_the_result_of_one(case, n, way, bound, tmp_path):
    """By messages and in shared memory, in double and single precision; also cells that the processes do not divide evenly, batches, time-dependent and non-commuting coefficients; bit for bit where lines are whole."""
    program = tmp_path / "run.py"
    program.write_text(PROGRAM)
    done = mpiexec(n, str(program), case, way)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) <= bound


@pytest.mark.parametrize("n", [3])
def test_finite_volumes_and_step_control_on_many_processes(n, tmp_path):
    """Walls, periodic ends, batches, correlated noise, three kinds of transport, coefficients of time, observables: the result of one process."""
    program = tmp_path / "run.py"
    program.write_text(CONTROLLED)
    done = mpiexec(n, str(program))
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split(",") for line in done.stdout.replace("upwind, ", "upwind ").splitlines()]
    assert len(rows) == 7
    for case, *values in rows:
        bound = 1e-8 if case == "step control" else 1e-12  # there the order differs, and both meet the tolerance
        assert max(map(float, values[:3])) <= bound and float(values[3]) <= 1e-12, (case, values)


@pytest.fixture(scope="module", autouse=True)
def launcher():
    """Skips where this machine cannot start processes at all; what they do is not looked at."""
    started = mpiexec(2, "-c", "print('here')")
    if started.stdout.count("here") != 2:
        pytest.skip(f"mpiexec cannot start processes here: {(started.stderr or started.stdout)[-200:]}")


class _Two:
    """A communicator of two processes in name only."""

    rank, size, Alltoallw = 0, 2, None

    def bcast(self, value):
        return value


@pytest.mark.parametrize(
    ("options", "words"),
    [({"positivity": "exact", "method": "split", "transport": "limited"}, "comm: many processes share runs without"), ({"dt": 0.1, "method": "fv"}, "dt: belongs to the split route")],
)
def test_what_does_not_run_on_many_processes_is_refused(options, words):
    grid = cq.Grid(q=(-6, 6, 48), p=(-9, 9, 64))
    with pytest.raises(OptionError) as caught:
        cq.solve(cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.4, cq.ket("+")), [0, 1], comm=_Two(), **options)
    assert str(caught.value).startswith(words)


CONFIG = """
[model]
name = "linear_diosi"
[grid]
q = [-6, 6, 48]
p = [-9, 9, 64]
[initial]
kind = "gaussian"
std = { q = 0.4, p = 0.4 }
state = "+"
[time]
end = 0.5
outputs = 3
[solver]
dt = 0.05
"""


STOPPED = """
import sys, warnings
import numpy as np, cqpde as cq
from mpi4py import MPI

warnings.simplefilter("ignore")
comm = MPI.COMM_WORLD
grid = cq.Grid(q=(-6, 6, 48), p=(-9, 9, 64))
times, folder = np.linspace(0, 0.4, 5), sys.argv[1]
start = lambda comm, **more: cq.solve(cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.4, cq.ket("+")), times, comm=comm, dt=0.01, **more)
for number, seconds in enumerate((0.0, 0.05)):
    try:  # stopped before its first step, and after some
        start(comm, checkpoint=f"{folder}/{number}", checkpoint_every=0, max_walltime=seconds or 1e-9, output=f"{folder}/{number}.zarr")
    except cq.Interrupted:
        pass
    sol = cq.resume(f"{folder}/{number}", comm=comm)
    if sol is not None:
        print(float(abs(sol.rho - start(None).rho).max()))
"""


def test_a_run_that_was_stopped_goes_on_with_its_store_from_where_it_was(tmp_path):
    """Also one that had not begun to step; its fields are written by the processes."""
    (tmp_path / "run.py").write_text(STOPPED)
    done = mpiexec(2, str(tmp_path / "run.py"), str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.split()) == 2 and max(map(float, done.stdout.split())) <= 1e-14


def test_the_command_line_on_two_processes(tmp_path):
    """``mpiexec -n 2 cqpde run``: one file, one voice, the fields of one process; a refusal is said once, with its exit code."""
    (tmp_path / "a.toml").write_text(CONFIG)
    run = ("-m", "cqpde.cli", "run", str(tmp_path / "a.toml"), "-o")
    done = mpiexec(2, *run, str(tmp_path / "two.nc"))
    assert done.returncode == 0 and done.stdout.count("written") == 1 and "2 processes" in done.stdout, done.stderr
    assert subprocess.run([sys.executable, *run, str(tmp_path / "one.nc")], check=False).returncode == 0
    one, two = cq.load(tmp_path / "one.nc"), cq.load(tmp_path / "two.nc")
    assert (one.rho == two.rho).all() and one.attrs["cqpde_config"] == two.attrs["cqpde_config"]
    (tmp_path / "a.toml").write_text(CONFIG.replace("dt = 0.05", 'positivity = "exact"\ntransport = "limited"\nmethod = "split"'))
    refused = mpiexec(2, *run, str(tmp_path / "three.nc"))
    assert refused.returncode == 2 and refused.stderr.count("comm: many processes share runs without") == 1


@pytest.mark.parametrize(
    ("before", "after", "solver"),
    [(2, 3, "dt = 0.005"), (2, 1, "dt = 0.005"), (1, 2, "method = 'fv'\ntol = 1e-5"), (2, 3, "tol = 1e-8")],
)
def test_a_killed_run_goes_on_with_another_number_of_processes(before, after, solver, tmp_path):
    """One process is killed after a few steps: the job ends, and its last checkpoint gives the fields of a run that was never stopped."""
    (tmp_path / "a.toml").write_text(CONFIG.replace("dt = 0.05", solver))
    output = str(tmp_path / "a.nc")
    run = ("-m", "cqpde.cli", "run", str(tmp_path / "a.toml"), "--checkpoint-every", "0", "-o", output)
    launch = [str(Path(sys.executable).parent / "mpiexec"), "-n", str(before)]
    job = subprocess.Popen([*launch, sys.executable, *run], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    folder, until = tmp_path / "a.nc.run", time.monotonic() + 200
    while not (folder / "state.1").exists() and time.monotonic() < until and job.poll() is None:
        time.sleep(0.01)
    mine = [p for p in psutil.Process(job.pid).children(recursive=True) if "cqpde.cli" in " ".join(p.cmdline())]
    assert len(mine) >= before
    mine[-1].kill()
    assert job.wait(timeout=60) != 0 and not Path(output).exists()
    done = mpiexec(after, "-m", "cqpde.cli", "resume", output)
    assert done.returncode == 0 and done.stdout.count("written") == 1, done.stderr[-2000:]
    whole = (*run[:-1], str(tmp_path / "one.nc"), "-q")  # the split route with step control is another one on one process
    assert (mpiexec(2, *whole) if solver == "tol = 1e-8" else subprocess.run([sys.executable, *whole], check=False)).returncode == 0
    assert abs(cq.load(output).rho - cq.load(tmp_path / "one.nc").rho).max() <= 1e-12
    assert not folder.exists()


def test_a_signal_ends_a_shared_run_with_a_checkpoint(tmp_path):
    """The wall-clock limit: exit code 75, and the outputs so far beside the checkpoint."""
    (tmp_path / "a.toml").write_text(CONFIG.replace("dt = 0.05", "dt = 1e-5"))
    done = mpiexec(2, "-m", "cqpde.cli", "run", str(tmp_path / "a.toml"), "--max-walltime", "5", "-o", str(tmp_path / "a.nc"))
    assert done.returncode == 75 and done.stderr.count("was stopped and can be resumed") == 1, done.stderr[-2000:]
    assert (tmp_path / "a.nc.run" / "run.json").exists()


def test_the_scaling_table_is_measured_on_equal_results():
    """``python -m validation.scaling --quick``: the fields of one and two processes are the same."""
    from validation import scaling

    assert scaling.main(["--quick"])["difference"] <= 1e-12


MEASURED = """
import cqpde as cq
from cqpde.choice import structure_of
from cqpde.fv.assemble import layout
from cqpde.parallel import slabs
from cqpde.parallel.cost import fv_traffic, split_traffic
from mpi4py import MPI

comm = MPI.COMM_WORLD
slabs._one_machine = lambda comm: False
model = cq.models.linear_diosi()
grid = cq.Grid(q=(-6, 6, 40), p=(-9, 9, 50))
rho0 = cq.gaussian(grid, 0, 0.5, cq.ket("+"))
split = cq.solve(model, rho0, [0, 1], dt=0.005, grid_error=False, check="off", comm=comm)
fv = cq.solve(model, rho0, [0, 0.2], method="fv", transport="upwind", grid_error=False, comm=comm)
if split is not None:
    state = 8 * 4 * 40 * 50
    found = split_traffic(structure_of(model, grid, (0.0,)), grid, state, comm.size, False)
    exchanged = lambda sol: float(sol.attrs["time_integration"].split(",")[-1].split()[0]) * 1e6
    print(exchanged(split) / (300 * comm.size * found.sent))
    halos = fv_traffic(layout(model, grid, (0.0,)), grid, "upwind", state, comm.size)
    print(exchanged(fv) / (fv.attrs["applications"] * comm.size * halos.sent))
"""


@pytest.mark.parametrize("n", [2, 4])
def test_cost_model_counts_the_bytes_that_are_sent(n, tmp_path):
    """Split: one step; finite volumes: one application, the outer slabs having one neighbour."""
    program = tmp_path / "run.py"
    program.write_text(MEASURED)
    done = mpiexec(n, str(program))
    assert done.returncode == 0, done.stderr[-2000:]
    split, fv = map(float, done.stdout.split())
    assert abs(split - 1) < 0.03 and abs(fv - (n - 1) / n) < 1e-6


@pytest.mark.parametrize(
    ("options", "words"),
    [({"ranks": 0}, "ranks: must be an integer"), ({"ranks": 2, "machines": 3}, "machines: must be an integer"), ({"ranks": 2, "network": 0}, "network: must be"),
     ({"ranks": 2, "positivity": "exact", "method": "split", "transport": "limited"}, "ranks: many processes share runs without")],
)  # fmt: skip
def test_estimate_refuses_ranks_without_meaning(options, words):
    grid = cq.Grid(q=(-6, 6, 24), p=(-9, 9, 256))
    with pytest.raises(OptionError) as caught:
        cq.estimate(cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.9, cq.ket("+")), [0, 0.1], **options)
    assert str(caught.value).startswith(words)


def test_estimate_of_many_ranks():
    """Twice the machines halve what is computed; what is sent between them takes the time that the network says; step control is not known beforehand."""
    grid = cq.Grid(q=(-6, 6, 64), p=(-9, 9, 64))
    rho0 = cq.gaussian(grid, 0, 0.5, cq.ket("+"))
    find = lambda **options: cq.estimate(cq.models.linear_diosi(), rho0, [0, 0.2], ranks=4, **options)
    one, four = find(dt=0.01).shared, find(dt=0.01, machines=4, network=1e6).shared
    assert one.traffic.sent == 0 and four.traffic.sent == pytest.approx(2 * 0.75 * 8 * 4 * 64 * 64 / 4)
    assert four.sending == pytest.approx(four.traffic.sent / 1e6 + 6 * 5e-6) and four.computing == pytest.approx(four.one / 4)
    assert one.total == pytest.approx(30 * one.seconds) and find(method="split").shared.total != find(method="split").shared.total
