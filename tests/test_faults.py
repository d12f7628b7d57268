"""Real runs are killed, stopped, run out of time and disk, and lose nothing (contract, lines 1, 3, 5, 9 and 10)."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cqpde as cq
from cqpde import container
from cqpde.cli import main

from .interrupted import assert_same_bits

ROOT = Path(__file__).parent.parent


def test_faults_lose_nothing():
    """The quick mode of the script: SIGKILL and SIGTERM at random moments, wall-clock limit, full disk, damaged newest checkpoint."""
    from validation import faults

    rows = faults.main(["--quick"])["faults"]
    assert not [row for row in rows if row["lost"]]
    assert {row["fault"] for row in rows} >= {"SIGKILL", "disk full"}  # where a machine is slow, others may come too late
    assert sum(row["hits"] for row in rows) >= 4


RUN = ["run", "linear_diosi", "--cells", "q=40", "--cells", "p=48", "--method", "fv", "--tol", "1e-3", "--quiet"]


def test_a_run_out_of_time_ends_with_75_and_is_found_again(tmp_path, monkeypatch, capsys):
    """Also that a run which is kept is not overwritten, and that the folder goes when the file is there."""
    monkeypatch.chdir(tmp_path)
    assert main([*RUN, "-o", "whole.nc"]) == 0
    assert main([*RUN, "-o", "a.nc", "--max-walltime", "1e-3"]) == 75
    text = capsys.readouterr().err
    assert "can be resumed" in text and "cqpde resume a.nc" in text
    assert main([*RUN, "-o", "a.nc"]) == 2 and "--discard" in capsys.readouterr().err
    assert main([*RUN, "-o", "a.nc", "--discard", "--checkpoint-every", "0", "--max-walltime", "0.15"]) == 75
    lines = Path("a.nc.run/diagnostics.csv").read_text().splitlines()
    partial = cq.load("a.nc.run/partial.nc")
    assert lines[0].startswith("t,trace,min_eigenvalue") and len(lines) == partial.sizes["t"] + 1
    assert partial.attrs["status"] == "aborted: the wall-clock limit was reached"
    assert not Path("a.nc").exists()
    time.sleep(0.02)
    assert main([*RUN, "-o", "b.nc", "--max-walltime", "1e-3"]) == 75
    assert main(["resume"]) == 0 and Path("b.nc").exists() and not Path("b.nc.run").exists()  # the newest
    assert main(["resume", "--quiet"]) == 0 and sorted(os.listdir()) == ["a.nc", "b.nc", "whole.nc"]
    for name in ("a.nc", "b.nc"):
        assert_same_bits(cq.load("whole.nc"), cq.load(name))
    capsys.readouterr()
    for arguments, words in ((["resume"], "no *.run here"), (["resume", "a.nc"], "the file is there"), (["resume", "x.nc"], "neither")):
        assert main(arguments) == 2 and words in capsys.readouterr().err


def test_a_disk_that_is_too_small_is_told_beforehand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(container, "free_bytes", lambda folder: 1_000_000)
    assert main([*RUN, "-o", "a.nc"]) == 2
    text = capsys.readouterr().err
    assert "a.nc.run: needs up to 3.23 MB for checkpoints and result; found 1 MB free there" in text, text
    assert not list(tmp_path.iterdir())


def test_a_folder_of_python_is_resumed_by_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    grid = cq.Grid(q=(-6, 6, 32), p=(-9, 9, 40))
    begin = lambda **k: cq.unravel(cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 0.2], trajectories=9000, seed=2, dt=0.05, **k)
    with pytest.raises(cq.Interrupted, match="can be resumed"):
        begin(checkpoint="run", max_walltime=1e-4)
    assert main(["resume", "run"]) == 2 and "--output" in capsys.readouterr().err
    assert main(["resume", "run", "-o", "ens.nc", "--quiet"]) == 0
    cq.save(begin(), "whole.nc")
    assert_same_bits(cq.load("whole.nc"), cq.load("ens.nc"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_in_python_raise_interrupted(number, tmp_path):
    """In a script of a user's: a checkpoint, and an exception that tells how to go on."""
    grid = cq.Grid(q=(-6, 6, 40), p=(-9, 9, 48))
    rho0 = cq.gaussian(grid, 0, 0.5, cq.ket("+"))
    sent = []

    def send(ds):  # after the third output
        sent.append(float(ds.t))
        if len(sent) == 3:
            os.kill(os.getpid(), number)
        return 0.0

    begin = lambda **k: cq.solve(cq.models.linear_diosi(), rho0, np.linspace(0, 0.5, 6), tol=1e-3, method="fv", save={"x": send}, frames=[0, 0.5], **k)
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(cq.Interrupted, match=f"signal {number.name}") as stop:
        begin(checkpoint=tmp_path / "run")
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert 3 <= stop.value.partial.sizes["t"] < 6
    again = cq.resume(tmp_path / "run", save={"x": send})
    assert_same_bits(begin(), again)


def _limited(size, code, folder):
    """Run Python code in a process in which no file may become larger than ``size`` bytes."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return subprocess.run([sys.executable, "-c", code], cwd=folder, preexec_fn=limit, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


FULL = """import warnings, cqpde as cq, numpy as np
grid = cq.Grid(q=(-6, 6, 40), p=(-9, 9, 48))
times = [0, 0.1, *(0.2 + 1e-3 * np.arange(8)), 0.5]
begin = lambda **k: cq.solve(cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.5, cq.ket("+")), times, tol=1e-3, method="fv", dt_max=0.05, **k)
"""


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path):
    """Many outputs in one step do not fit; the run goes on and says so; what was written before serves; nothing is begun on a full disk."""
    attempt = FULL + """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    sol = begin(checkpoint="run", checkpoint_every=0)
text = [str(w.message) for w in caught]
print(sum("could not be written" in t and "are free there" in t and "The run goes on" in t and "cqpde.resume('run')" in t for t in text))
"""
    told = _limited(150_000, attempt, tmp_path)  # the initial states take 276 kB
    assert told.returncode == 1 and "could not be written" in told.stderr and not (tmp_path / "run").exists()
    told = _limited(500_000, attempt, tmp_path)  # eight outputs take 983 kB
    assert told.returncode == 0 and int(told.stdout) > 2, told.stderr
    whole: dict = {}
    exec(FULL + "whole = begin()", whole)
    lines = (tmp_path / "run" / "diagnostics.csv").read_text().splitlines()
    assert len(lines) == 12 and float(lines[-1].split(",")[0]) == 0.5
    assert_same_bits(whole["whole"], cq.resume(tmp_path / "run"))


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


FILLED = """import sys
from cqpde.checkpoint import Keeper
from cqpde.cli import main
recorded = Keeper.recorded
def filled(self):
    recorded(self)
    if self.recorder.count == 3:
        with open("other", "wb", buffering=0) as other:
            while True:
                other.write(bytes(1 << 12))
def full(self):
    try:
        filled(self)
    except OSError:
        pass
Keeper.recorded = full
sys.exit(main(sys.argv[1:]))
"""


def test_a_real_disk_that_is_too_small(tiny_disk, tmp_path):
    """Refused beforehand; where another program takes the space on the way, the run is kept and goes on to the same bits when there is some again."""

    def run(*words):
        return subprocess.run([sys.executable, *words], cwd=tiny_disk, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)

    told = run("-m", "cqpde.cli", *RUN, "-o", "a.nc")
    assert told.returncode == 2 and "a.nc.run: needs up to 3.23 MB for checkpoints and result; found 2.1 MB free there" in told.stderr, told.stderr
    assert not list(tiny_disk.iterdir())
    subprocess.run(["mount", "-o", "remount,size=6m", str(tiny_disk)], check=True)
    told = run("-c", FILLED, *RUN, "-o", "a.nc", "--checkpoint-every", "0")
    assert told.returncode == 75 and not (tiny_disk / "a.nc").exists(), told.stderr
    for words in ("a.nc.run/frames.", "could not be written", "It needs", "are free there", "cqpde resume a.nc"):
        assert words in told.stderr, (words, told.stderr)
    assert "Traceback" not in told.stderr
    (tiny_disk / "other").unlink()
    told = run("-m", "cqpde.cli", "resume", "a.nc", "--quiet")
    assert told.returncode == 0, told.stderr
    assert main([*RUN, "-o", str(tmp_path / "whole.nc")]) == 0
    assert_same_bits(cq.load(tmp_path / "whole.nc"), cq.load(tiny_disk / "a.nc", lazy=False))
    assert sorted(p.name for p in tiny_disk.iterdir()) == ["a.nc"]
