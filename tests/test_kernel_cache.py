"""Compiled kernels on disk: shared, not to be had, full or damaged, a run gives the right numbers and says at most one line."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from cqpde import compiling
from cqpde.errors import CqpdeWarning

ROOT = Path(__file__).parent.parent

#: A drift of 2 for a time of 0.5: the mean is 1, to 0.41 / sqrt(2000) = 0.009.
RUN = """import sys, warnings, cqpde as cq
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    ens = cq.unravel(cq.Model(("x",), 2, D1C=[2.0], D2=[[0.01]]), cq.gaussian(cq.Grid(x=(-4, 6, 50)), 0.0, 0.4, cq.ket("+")), [0, 0.5], trajectories=2000, seed=1, dt=0.1, method="mean-field")
print(float(ens.moments[-1, 1, :2].sum()))
kernels = {id(k): k for name, m in sys.modules.items() if "kernels" in name for k in vars(m).values() if hasattr(k, "py_func")}
print(sum(sum(k.stats.cache_misses.values()) for k in kernels.values()))
for w in caught:
    print(w.message)
"""


def start(folder, place=ROOT, limit=None, **variables):
    """A process with a cache folder (None: none is named) and environment of its own."""
    known = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    chosen = {} if folder is None else {"NUMBA_CACHE_DIR": str(folder)}
    size = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
    return subprocess.Popen(
        [sys.executable, "-c", RUN], env=known | chosen | {"PYTHONPATH": str(place)} | variables, cwd=place, preexec_fn=size, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def outcome(process):
    """Mean, number of kernels that were compiled, what was said."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and err == "", err
    mean, misses, *said = out.splitlines()
    assert abs(float(mean) - 1.0) < 0.05
    return float(mean), int(misses), said


def test_two_processes_on_one_empty_folder_and_a_folder_that_is_damaged_later(tmp_path):
    first = [outcome(p) for p in [start(tmp_path), start(tmp_path)]]
    assert first[0][0] == first[1][0] and first[0][1] + first[1][1] > 5 and not first[0][2] + first[1][2]
    files = [p for p in tmp_path.rglob("*.nb*") if p.is_file()]
    assert outcome(start(tmp_path)) == (first[0][0], 0, []) and len(files) > 4  # nothing was compiled anew
    for k, path in enumerate(sorted(files)):
        path.write_bytes(path.read_bytes()[: (0, 30, path.stat().st_size // 2)[k % 3]])
    mean, misses, said = outcome(start(tmp_path))
    assert mean == first[0][0] and misses > 5 and not said
    assert outcome(start(tmp_path)) == (first[0][0], 0, [])  # and it is whole again


def test_no_folder_and_a_full_one(tmp_path):
    """A package and a home that cannot be written (modes would not stop root), a cache folder below a file, and a disk that takes no file."""
    shutil.copytree(ROOT / "cqpde", tmp_path / "cqpde", ignore=shutil.ignore_patterns("__pycache__"))
    blocked = [tmp_path / "cqpde" / folder / "__pycache__" for folder in ("kernels", "unravelling")]
    for path in blocked:
        path.write_text("a file where the folder would be")
    nowhere = {"HOME": "/proc/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    runs = [start(None, tmp_path, **nowhere), start(blocked[0] / "below", tmp_path, **nowhere), start(tmp_path / "full", limit=1000)]
    for found in [outcome(p) for p in runs]:
        assert found[1] > 0 and len(found[2]) == 1 and "compiled kernels cannot be kept" in found[2][0] and "NUMBA_CACHE_DIR" in found[2][0], found
    assert not list(tmp_path.rglob("*.nbc"))


PHASES = """import sys, numpy as np, cqpde as cq
from cqpde.kernels.warm import warm
first = {"fv": warm("fv"), "split": warm("split"), "again": warm("fv") + warm("split")}
def compiled():
    found = {id(k): k for name, m in list(sys.modules.items()) if name.startswith("cqpde.kernels") for k in vars(m).values() if hasattr(k, "py_func")}
    return {(k.py_func.__name__, str(s)) for k in found.values() for s in k.signatures}
before = compiled()
model, noisy = cq.models.linear_diosi(), cq.Model(("x", "y"), 3, L=[np.diag([1, 0, -1])], D1=[[0.3], [0.2]], D2=[[0.5, 0.2], [0.2, 0.5]], D0="saturated")
grid, wide = cq.Grid(q=(-6, 6, 48), p=(-9, 9, 64)), cq.Grid(x=(-6, 6, 32), y=(-6, 6, 32))
rho0, three = cq.gaussian(grid, 0, 0.5, cq.ket("+")), cq.gaussian(wide, 0, 0.7, np.ones(3) / 3**0.5)
for m, r, o in [(model, rho0, {"transport": t}) for t in ("limited", "upwind", "linear")] + [(noisy, three, {})]:
    cq.solve(m, r, [0, 0.1], method="fv", tol=1e-2, **o)
for m, r, o in ((model, rho0, {}), (model, rho0, {"dt": 0.05}), (noisy, three, {})):
    cq.solve(m, r, [0, 0.1], method="split", tol=1e-3, **o)
cq.solve(model, cq.gaussian(cq.Grid(q=(-6, 6, 512), p=(-9, 9, 48)), 0, 0.4, cq.ket("+")), [0, 1], tol=1e-1, method="split", positivity="exact")
print(len(before), first["again"], compiled() - before)
"""


def test_compiling_is_a_phase_of_its_own():
    """Nothing is compiled, or loaded, while a run goes on: the kernels of all routes, serial and parallel, are ready before."""
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", PHASES], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert out.returncode == 0, out.stderr
    count, again, late = out.stdout.split(maxsplit=2)
    assert int(count) >= 15 and float(again) == 0.0 and late.strip() == "set()", out.stdout


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module with a kernel, in a folder with a cache of its own."""
    path = tmp_path / "one.py"
    path.write_text("from cqpde.compiling import kernel\n\n@kernel()\ndef twice(x):\n    return x + x\n")
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "cache"))

    def load():
        compiling._digest.cache_clear()
        space: dict = {}
        exec(compile(path.read_text(), str(path), "exec"), space)
        return space["twice"]

    return tmp_path, load


def test_code_of_another_signature_is_not_run(module):
    """Two processes that fill one folder at once may give two signatures the same file: the index of one, the code of the other."""
    folder, load = module
    assert load()(np.ones(3)).tolist() == [2.0] * 3
    index, code = (next(folder.rglob(f"*.{kind}")) for kind in ("nbi", "nbc"))
    whole = code.read_bytes()
    index.unlink()
    assert load()(2) == 4
    code.write_bytes(whole)  # for arrays, under the name for integers
    again = load()
    assert again(3) == 6 and sum(again.stats.cache_misses.values()) == 1
    once_more = load()
    assert once_more(4) == 8 and sum(once_more.stats.cache_hits.values()) == 1


def test_code_is_renewed_when_a_file_beside_it_changes(module):
    """What it may have been compiled with: Numba itself looks only at the file of the kernel."""
    folder, load = module
    other = folder / "other.py"
    for text, misses in (("@kernel()\n1", 1), ("@kernel()\n1", 0), ("@kernel()\n2", 1), ("no kernels", 1), ("none either", 0)):
        other.write_text(text)
        function = load()
        assert function(2) == 4 and sum(function.stats.cache_misses.values()) == misses, text


def test_it_is_said_once(monkeypatch):
    monkeypatch.setattr(compiling, "told", [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            compiling._NotKept().save_overload(None, None)
    assert [w.category for w in caught] == [CqpdeWarning]
