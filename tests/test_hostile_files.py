"""Files that are not ours, are cut, lie or claim absurd sizes: refused by every reader, without executing or allocating what they say."""

from __future__ import annotations

import shutil
import time

import dask
import netCDF4
import numpy as np
import pytest

import cqpde as cq
from cqpde.cli import main
from cqpde.errors import FileError


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "good.nc"
    assert main(["run", "linear_diosi", "--cells", "q=16", "--cells", "p=20", "--method", "fv", "--tol", "0.1", "--no-grid-error", "-q", "-o", str(path)]) == 0
    return path


def attribute(where, name, value):
    return lambda ds: (ds[where] if where else ds).setncattr(name, value)


def rename(*pairs):
    return lambda ds: [ds.renameVariable(old, new) for old, new in pairs]


def values(name, of):
    def change(ds):
        ds[name][:] = of

    return change


def replaced(dims, kind):
    def change(ds):
        rename(("rho_re", "a"), ("rho_im", "b"))(ds)
        for part in ("rho_re", "rho_im"):
            ds.createVariable(part, kind, dims)

    return change


CODE = "__import__('os').system('touch PWNED')"
CHANGES = {
    "code for a boundary": attribute("q", "boundary", CODE), "code for a bound": attribute("q", "lower", CODE), "no number of an axis": attribute("q", "axis_index", np.inf),
    "two first axes": attribute("q", "axis_index", np.int32(1)), "bound not finite": attribute("q", "lower", np.nan), "two lower bounds": attribute("q", "lower", np.array([1.0, 2.0])),
    "code for a tolerance": attribute("", "tol", CODE), "array for a configuration": attribute("", "cqpde_config", np.arange(3)), "array for a kind": attribute("", "kind", np.arange(4.0)),
    "a report without a verdict": attribute("", "kind", "report"), "a product form without kets": attribute("", "kind", "product sum"), "array for a schema": attribute("", "cqpde_schema", np.arange(3)),
    "text for a schema": attribute("", "cqpde_schema", "1"), "half a field": rename(("rho_im", "x")), "no rows": lambda ds: ds.renameDimension("row", "rows"),
    "field without matrices": replaced(("q", "p"), "f8"), "field of integers": replaced(("t", "row", "col", "q", "p"), "i4"), "times turned round": lambda ds: values("t", ds["t"][::-1])(ds),
    "a time that is none": lambda ds: values("t", np.where(np.arange(ds["t"].size) == 1, np.nan, ds["t"][:]))(ds),
}  # fmt: skip
READERS = (["info"], ["plot", "-q", "-o", "a.png"], ["view", "-q", "-o", "a.html"], ["export", "--marginal", "q", "-q", "-o", "a.csv"], ["validate", "--trajectories", "30", "-q"])


def refused_by_all(path, capsys):
    for command in READERS:
        began = time.perf_counter()
        assert main([command[0], str(path), *command[1:]]) == 2, command
        assert capsys.readouterr().err.startswith("cqpde: ")
        assert time.perf_counter() - began < 20
    with pytest.raises(FileError):
        cq.load(path)


@pytest.mark.parametrize("case", CHANGES)
def test_lying_files_are_refused(case, good, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.nc"
    shutil.copy(good, path)
    with netCDF4.Dataset(path, "a") as ds:
        CHANGES[case](ds)
    refused_by_all(path, capsys)
    assert not (tmp_path / "PWNED").exists()


def test_absurd_sizes_are_refused_without_allocating_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for cells in (10**6, 10**12):
        path = tmp_path / f"huge{cells}.nc"
        with netCDF4.Dataset(path, "w") as ds:
            ds.setncattr("cqpde_schema", np.int32(1))
            for name, size in (("t", 1), ("row", 2), ("col", 2), ("q", cells)):
                ds.createDimension(name, size)
                ds.createVariable(name, "f8", (name,), chunksizes=(min(size, 1000),), fill_value=False)
            ds["q"].setncatts({"lower": -1.0, "upper": 1.0, "boundary": "open open", "axis_index": 0})
            ds.createVariable("rho_re", "f8", ("t", "row", "col", "q"), chunksizes=(1, 1, 1, 1000))
        refused_by_all(path, capsys)


def test_cut_and_foreign_files_are_refused(good, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = good.read_bytes()
    contents = [data[:k] for k in (0, 1, 100, 1000, len(data) // 2)] + [b"[model]", b"\x80\x04cos\nsystem\n(S'touch PWNED'\ntR."]
    for k, content in enumerate(contents):
        (tmp_path / f"{k}.nc").write_bytes(content)
        refused_by_all(tmp_path / f"{k}.nc", capsys)
    assert not (tmp_path / "PWNED").exists()


def spoilt(good, path, change):
    """A copy whose field is changed at t = 0.5 in the cell (3, 4), and its axes."""
    shutil.copy(good, path)
    with netCDF4.Dataset(path, "a") as ds:
        at = int(np.argmin(np.abs(ds["t"][:] - 0.5)))
        change(ds, at)
        return [f"{name} = {float(v):.6g}" for name, v in (("t", ds["t"][at]), ("q", ds["q"][3]), ("p", ds["p"][4]))]


@pytest.mark.parametrize("lazy", [False, True])
def test_fields_that_are_no_states_are_told_with_time_and_cell(lazy, good, tmp_path, capsys):
    """A well-formed file: where it holds NaN it is refused, at once or when the field is used, and what is far from a state is warned of."""

    def use(path):
        with dask.config.set(scheduler="synchronous"):  # this test writes to files itself, beside which no thread may still hold one open
            return cq.load(path, lazy=lazy).rho.values

    def put(name, index, value):
        def change(ds, at):
            ds[name][(at, *index, 3, 4)] = value

        return change

    use(good)  # is quiet
    for value in (np.nan, np.inf):
        path = tmp_path / f"{value}.nc"
        where = spoilt(good, path, put("rho_im", (0, 1), value))
        with pytest.raises(FileError, match=r"rho must be finite.*element \(0, 1\)") as error:
            use(path)
        assert all(w in str(error.value) for w in where), str(error.value)
    for change, words in ((put("rho_re", (0, 0), -0.3), "not positive"), (put("rho_re", (0, 1), 0.3), "not Hermitian")):
        path = tmp_path / f"{words}.nc"
        where = spoilt(good, path, change)
        with pytest.warns(cq.CqpdeWarning, match=words) as caught:
            use(path)
        assert any(all(w in str(c.message) for w in (*where, words)) for c in caught), [str(c.message) for c in caught]


def test_another_configuration_than_the_one_written_is_told(good, tmp_path):
    path = tmp_path / "bad.nc"
    shutil.copy(good, path)
    with netCDF4.Dataset(path, "a") as ds:
        ds.setncattr("cqpde_config", ds.getncattr("cqpde_config").replace("linear_diosi", "qubit_lattice"))
    with pytest.warns(cq.CqpdeWarning, match="configuration is not the one"):
        cq.load(path)
