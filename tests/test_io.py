"""Files: exact round trip, CF compliance, other readers, and refusals that leave nothing half-written."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys

import netCDF4
import numpy as np
import pytest
import xarray as xr

import cqpde as cq
from cqpde.errors import FileError


@pytest.fixture(scope="module")
def solutions():
    model = cq.Model(
        ("x",), 3, H=np.diag([1.0, 0, -1]), L=[np.diag([1.0, 0, -1])], D1=[[0.5]], D2=[[0.5]], D0="saturated"
    )
    line = cq.Grid(x=(-6, 6, 24))
    states = [cq.gaussian(line, x, 0.6, [0.6, 0.8j, 0]) for x in (0.0, 0.3)]
    plane = cq.Grid(q=(-6, 6, 24), p=(-9, 9, 40))
    options = {"grid_error": False, "tol": 1e-2}
    diosi = cq.models.linear_diosi()
    rho0 = cq.gaussian(plane, 0, 0.5, cq.ket("+"))
    return {
        "plane": cq.solve(diosi, rho0, [0, 0.1, 0.2], **options),
        "batch": cq.solve(model, states, [0, 0.2], grid_error=False),
        "frames": cq.solve(
            diosi, rho0, [0, 0.1, 0.2], save=["density", "marginal q", "unconditioned_state"], frames=[0.2], **options
        ),
    }


@pytest.mark.parametrize("name", ["plane", "batch", "frames"])
def test_round_trip_is_exact(solutions, name, tmp_path):
    ds = solutions[name]
    cq.save(ds, tmp_path / "a.nc")
    back = cq.load(tmp_path / "a.nc")
    assert list(back.data_vars) == list(ds.data_vars)
    for variable in ds.variables:
        assert back[variable].dims == ds[variable].dims
        assert np.array_equal(back[variable].values, ds[variable].values, equal_nan=ds[variable].dtype.kind in "fc")
        assert dict(back[variable].attrs).keys() == dict(ds[variable].attrs).keys()
    assert {k: v for k, v in back.attrs.items() if k != "history"} == dict(ds.attrs)
    assert back.cq.grid == ds.cq.grid
    assert os.listdir(tmp_path) == ["a.nc"]


@pytest.mark.parametrize("name", ["plane", "batch", "frames"])
def test_cf_checker_passes(solutions, name, tmp_path):
    cq.save(solutions[name], tmp_path / "a.nc")
    command = os.path.join(os.path.dirname(sys.executable), "compliance-checker")
    run = subprocess.run([command, "--test", "cf:1.11", str(tmp_path / "a.nc")], capture_output=True, text=True)
    assert "All tests passed" in run.stdout, run.stdout + run.stderr


def test_plain_readers_see_real_fields(solutions, tmp_path):
    ds = solutions["plane"]
    cq.save(ds, tmp_path / "a.nc")
    for engine in ("netcdf4", "h5netcdf"):
        with xr.open_dataset(tmp_path / "a.nc", engine=engine, decode_times=False) as plain:
            assert np.array_equal(plain["rho_re"].values + 1j * plain["rho_im"].values, ds.rho.values)
            assert np.array_equal(plain["density"].values, ds.cq.density().values)
            assert plain["q"].attrs["bounds"] == "q_bnds"
    with netCDF4.Dataset(tmp_path / "a.nc") as raw:
        assert raw.data_model == "NETCDF4_CLASSIC"
        assert raw.dimensions["t"].isunlimited()
        assert raw.Conventions == "CF-1.11" and raw.n_valid == 3


def test_foreign_and_damaged_files_are_refused(solutions, tmp_path):
    path = tmp_path / "a.nc"
    with pytest.raises(FileError, match="readable netCDF"):
        cq.load(path)
    path.write_bytes(b"not a netCDF file at all")
    with pytest.raises(FileError, match="readable netCDF"):
        cq.load(path)
    xr.Dataset({"a": ("x", [1.0, 2.0])}).to_netcdf(path)
    with pytest.raises(FileError, match="cqpde_schema"):
        cq.load(path)
    cq.save(solutions["plane"], path)
    for change, message in (
        (lambda f: f.setncattr("cqpde_schema", 99), "schema 1"),
        (lambda f: f["q"].setncattr("upper", 50.0), "must match its bounds"),
        (lambda f: f["q"].setncattr("boundary", "__import__('os')"), "describe a grid"),
    ):
        cq.save(solutions["plane"], path)
        with netCDF4.Dataset(path, "a") as f:
            change(f)
        with pytest.raises(FileError, match=message):
            cq.load(path)
    whole = (cq.save(solutions["plane"], path), path.read_bytes())[1]
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError):
        cq.load(path)


def test_failures_to_write_leave_the_old_file(solutions, tmp_path):
    with pytest.raises(FileError, match="existing folder"):
        cq.save(solutions["plane"], tmp_path / "no" / "a.nc")
    with pytest.raises(FileError, match="a folder"):
        cq.save(solutions["plane"], tmp_path)
    with pytest.raises(FileError, match="must be a solution"):
        cq.save(xr.Dataset(), tmp_path / "a.nc")
    cq.save(solutions["batch"], tmp_path / "a.nc")
    before = (tmp_path / "a.nc").read_bytes()
    script = (
        "import resource, signal, sys, cqpde as cq\n"
        "ds = cq.load(sys.argv[1]); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: cq.save(ds, sys.argv[1])\n"
        "except cq.CqpdeError as e: print('refused', e)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.nc")], capture_output=True, text=True)
    assert "refused" in run.stdout and "MB are free" in run.stdout, run.stdout + run.stderr
    assert (tmp_path / "a.nc").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.nc"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096  # the limit stayed in the child


def test_describe_names_model_grid_and_diagnostics(solutions, tmp_path):
    from cqpde.io import describe

    cq.save(solutions["frames"], tmp_path / "a.nc")
    text = describe(tmp_path / "a.nc")
    for word in ("linear_diosi", "Grid(q=(-6, 6, 24", "smallest eigenvalue", "marginal_q", "complete"):
        assert word in text


# -- lazy fields, other stores and readers --------------------------------------------------------------------------------
def test_lazy_fields_give_the_same_observables(solutions, tmp_path):
    ds = solutions["plane"]
    cq.save(ds, tmp_path / "a.nc")
    lazy = cq.load(tmp_path / "a.nc", lazy=True)
    assert lazy.rho.chunks is not None and lazy.rho.dtype == complex
    model = cq.models.linear_diosi()
    for text in (
        "density", "marginal q", "operator_marginal p", "populations q", "coherence q p", "bloch q", "conditional_state q=0:1", "expect q*sigmaz", "covariance",
        "energy", "current", "purity", "purity local", "entropy total", "entropy local", "mutual_information axes=p",
    ):  # fmt: skip
        f = cq.observables.read_observable(text, ("q", "p"), model)
        value = f(lazy)
        assert value.chunks is not None, text
        assert np.allclose(value.values, f(ds).values, rtol=1e-12, atol=1e-12, equal_nan=True), text
    assert np.allclose(lazy.cq.distance(ds.isel(t=0)).values, ds.cq.distance(ds.isel(t=0)).values)
    cq.save(lazy, tmp_path / "b.nc")
    assert np.array_equal(cq.load(tmp_path / "b.nc").rho.values, ds.rho.values)
    assert cq.load(tmp_path / "a.nc").rho.chunks is None and cq.load(tmp_path / "a.nc", lazy=False).rho.chunks is None


def test_observables_of_a_file_larger_than_the_memory_used(tmp_path):
    """400 MB of fields: marginal, entropy and a copy of it all with less than 200 MB on top of what Python itself takes."""
    script = """
import sys, resource, numpy as np, xarray as xr, cqpde as cq, cqpde.observables
from cqpde.dataset import build
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
grid = cq.Grid(q=(-8, 8, 256), p=(-8, 8, 256))
if sys.argv[2] == "make":
    import dask.array
    f = np.exp(-(grid.axes[0].centers[:, None] ** 2 + grid.axes[1].centers ** 2) / 2) / (2 * np.pi)
    one = np.eye(2)[:, :, None, None] / 2 * f + 0j
    small = build(grid, 2, np.arange(100.0), np.arange(100.0), np.broadcast_to(one, (100, *one.shape)), np.zeros((100, 4, 2, 2), complex), {}, {}, {})
    small["rho"] = small.rho.copy(data=dask.array.broadcast_to(dask.array.from_array(one), (100, *one.shape), chunks=((1,) * 100, 2, 2, 256, 256)))
    cq.save(small, sys.argv[1])
else:
    ds = cq.load(sys.argv[1], lazy=True)
    first = ds.isel(t=[0]); first.cq.entropy().values; first.cq.marginal("q").values
    before = peak()
    m, s = ds.cq.marginal("q").values, ds.cq.entropy("mutual").values
    assert m.shape == (100, 256) and abs(s).max() < 1e-9
    cq.save(ds, sys.argv[1] + "2")
    print(ds.rho.nbytes / 2**20, peak() - before)
"""
    for mode in ("make", "read"):
        run = subprocess.run([sys.executable, "-c", script, str(tmp_path / "big.nc"), mode], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-2000:]
    size, more = map(float, run.stdout.split())
    assert size == 400 and more < 200, (size, more)


@pytest.mark.parametrize("name", ["plane", "batch", "frames"])
def test_zarr_stores_hold_the_same(solutions, name, tmp_path):
    ds = solutions[name]
    for _ in range(2):  # the second replaces the first
        cq.save(ds, tmp_path / "a.zarr")
    back = cq.load(tmp_path / "a.zarr")
    for variable in ds.variables:
        assert np.array_equal(back[variable].values, ds[variable].values, equal_nan=ds[variable].dtype.kind in "fc")
    assert os.listdir(tmp_path) == ["a.zarr"]
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "precious").write_text("x")
    with pytest.raises(FileError, match="a folder"):
        cq.save(ds, tmp_path / "mine.zarr")


def test_cf_checker_passes_for_every_kind_of_file(solutions, tmp_path):
    from cqpde.export import export

    export(solutions["plane"], tmp_path / "e.nc", ["marginal q", "coherence q p", "bloch q", "entropy mutual", "covariance", "expect q*sigmaz"])
    export(solutions["frames"], tmp_path / "f.nc", ["marginal q", "density"], t=0.1)
    everything = ["operator_marginal p", "conditional_state q=0.1", "mean", "populations q", "current"]
    kept = cq.solve(cq.models.linear_diosi(), cq.gaussian(cq.Grid(q=(-6, 6, 24), p=(-9, 9, 40)), 0, 0.5, cq.ket("+")), [0, 0.1], save=everything, grid_error=False, tol=1e-2)
    cq.save(kept, tmp_path / "k.nc")
    start = cq.gaussian(kept.cq.grid, 0, 0.5, cq.ket("+"))
    ens = cq.unravel(cq.models.linear_diosi(), start, kept.t, trajectories=500, seed=1, dt=0.05, store=1, stored=2)
    cq.save(ens, tmp_path / "n.nc")
    cq.save(cq.validate(kept, ens).dataset, tmp_path / "r.nc")
    site = lambda psi: cq.gaussian(cq.Grid(phi=(-6, 6, 28), pi=(-8, 8, 36)), 0.0, 0.6, psi)
    cq.save(cq.solve_sites(cq.models.lattice_site(), site, cq.ghz(3), [0.0, 0.1], tol=1e-4), tmp_path / "s.nc")
    command = os.path.join(os.path.dirname(sys.executable), "compliance-checker")
    for name in "efknrs":
        run = subprocess.run([command, "--test", "cf:1.11", str(tmp_path / f"{name}.nc")], capture_output=True, text=True)
        assert "All tests passed" in run.stdout, name + run.stdout + run.stderr


@pytest.mark.skipif(not shutil.which("ncdump"), reason="Debian's package netcdf-bin is not installed")
def test_ncdump_reads_the_file(solutions, tmp_path):
    cq.save(solutions["plane"], tmp_path / "a.nc")
    text = subprocess.run(["ncdump", "-h", str(tmp_path / "a.nc")], check=True, capture_output=True, text=True).stdout
    for words in ("double rho_re(t, row, col, q, p)", "double density(t, q, p)", 't:long_name = "model time"', ':Conventions = "CF-1.11"'):
        assert words in text


def test_threads_save_and_load_at_the_same_time(tmp_path):
    """The library under netCDF files ends a process that uses it from two threads at once; three threads here go through 20 files each."""
    program = (
        "import sys, threading, numpy as np, cqpde as cq\n"
        "grid = cq.Grid(q=(-6, 6, 32), p=(-9, 9, 48))\n"
        "sol = cq.solve(cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.5, cq.ket('+')), [0, 0.1, 0.2], tol=1e-2)\n"
        "done = []\n"
        "def work(k):\n"
        "    for _ in range(20):\n"
        "        cq.save(sol, f'{sys.argv[1]}/{k}.nc')\n"
        "        done.append(np.array_equal(cq.load(f'{sys.argv[1]}/{k}.nc').rho.values, sol.rho.values))\n"
        "threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]\n"
        "[t.start() for t in threads]\n"
        "[t.join() for t in threads]\n"
        "print(len(done), all(done))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "60 True\n", done.stderr[-500:]
