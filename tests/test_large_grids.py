"""Large grids on one machine: sweeps by residues, single precision, skipped lines, and the table of bandwidths."""

from __future__ import annotations

import multiprocessing
import tracemalloc
import warnings

import netCDF4
import numba
import numpy as np
import pytest

import cqpde as cq
from cqpde.channels.convolution import Convolution
from cqpde.channels.spectral import Multiplier
from cqpde.cli import main
from cqpde.components import copy_state, to_components, trace_norm_bound
from cqpde.errors import OptionError
from cqpde.kernels import rows
from cqpde.kernels.circulant import residue_tables
from cqpde.kernels.residues import LEAF_COMPLEX, LEAF_REAL, last_degree, plan
from validation import four_dimensions

from . import models
from .interrupted import assert_same_bits, stopped_and_resumed


def sweep(x, kernels, axis, depends):
    """Convolve the lines of ``x`` (cells) along ``axis`` with ``kernels`` (the sizes of ``depends``, n)."""
    table = np.fft.rfft(kernels, axis=-1)
    strides = np.zeros((1, x.ndim + 1), dtype=np.int64)
    for i, step in zip([*depends, axis], np.array(table.strides) // table.itemsize, strict=True):
        strides[0, i + 1] = step
    zero = np.zeros(1, dtype=np.int64)
    y = x[None, None].copy()
    Convolution.of(Multiplier((0,), zero, zero, zero, strides, table.reshape(-1)), y, axis + 1).apply(y)
    return y[0, 0]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 12, 20, 36, 37, 40, 42, 45, 64, 75, 100, 256])
@pytest.mark.parametrize(("precision", "bound"), [(np.float64, 4e-16), (np.float32, 3e-7)])
def test_a_sweep_is_a_circular_convolution(n, precision, bound):
    """Lines along every axis, matrices of their own per lane or shared, against a sum written out; to the round-off of the precision (and not below)."""
    rng = np.random.default_rng(n)
    worst = 0.0
    for axis, depends in ((0, []), (0, [1]), (1, [0]), (1, [])):
        x = rng.standard_normal((n, 35) if axis == 0 else (35, n)).astype(precision)
        kernels = rng.standard_normal((*[35 for _ in depends], n))
        found = sweep(x, kernels, axis, depends)
        assert found.dtype == precision
        matrices = np.take(kernels, np.subtract.outer(np.arange(n), np.arange(n)) % n, axis=-1)  # (..., i, j)
        lines = np.moveaxis(x.astype(float), axis, 0)
        expected = np.moveaxis(np.einsum("kij,jk->ik", matrices, lines) if depends else matrices @ lines, 0, axis)
        worst = max(worst, np.abs(found - expected).max() / (np.linalg.norm(kernels, axis=-1).max() * np.abs(x).max()))
    assert worst < bound * max(np.log2(n), 1.0) * (last_degree(n) ** 0.5)
    assert n < 5 or worst > 0.02 * bound


def test_residues_of_a_product_are_products():
    """z^12 - 1 has the real residues z - 1 and z + 1 in front, and a leaf of three rows each: the remainder of a line by hand."""
    line = np.arange(12.0)
    found = residue_tables(line[:, None])[:, 0]
    assert found[:3] * 4 == pytest.approx(line.reshape(4, 3).sum(axis=0))
    assert found[3:6] * 4 == pytest.approx((line.reshape(4, 3) * np.array([1, -1, 1, -1])[:, None]).sum(axis=0))
    program, _, _ = plan(12)
    assert [tuple(p) for p in program if p[0] in (LEAF_REAL, LEAF_COMPLEX)] == [(LEAF_REAL, 0, 3), (LEAF_REAL, 3, 3), (LEAF_COMPLEX, 6, 3)]


@pytest.mark.parametrize("members", [2, 3])
@pytest.mark.parametrize("n", [5, 8, 14, 18, 45, 50, 64])
def test_a_sweep_of_coupled_components_is_a_matrix_of_convolutions(n, members):
    """Every component into every other, along both axes, against transforms."""
    rng = np.random.default_rng(n)
    kernels = rng.standard_normal((members, members, n)) / members
    table = np.fft.rfft(kernels, axis=-1)
    index = np.arange(members**2)
    row, col, base = index // members, index % members, index * table.shape[-1]
    for axis, shape in ((0, (n, 37)), (1, (37, n))):
        strides = np.zeros((len(index), 3), dtype=np.int64)
        strides[:, axis + 1] = 1
        x = rng.standard_normal((members, 1, *shape))
        lines = np.fft.rfft(np.moveaxis(x, axis + 2, -1), axis=-1)
        expected = np.moveaxis(np.fft.irfft(np.einsum("rck,cbjk->rbjk", table, lines), n, axis=-1), -1, axis + 2)
        Convolution.of(Multiplier(tuple(range(members)), row, col, base, strides, table.reshape(-1)), x, axis + 1).apply(x)
        assert np.abs(x - expected).max() < 2e-15 * n**0.5 * np.abs(expected).max()


def test_a_part_of_a_state_is_swept_where_it_lies():
    """Slices along any axis of a state that begins with a line of the cache, other cells untouched; views with a negative stride are refused."""
    rng = np.random.default_rng(3)
    kernel = rng.standard_normal(20)
    multiplier = Multiplier((0, 1), np.arange(2), np.arange(2), np.zeros(2, dtype=np.int64), np.array([[0, 0, 1, 0]] * 2), np.fft.rfft(kernel))
    state = copy_state(rng.standard_normal((2, 1, 9, 20, 12)))
    for part in (np.s_[:, :, 3:7], np.s_[:, :, :, :, 5:], np.s_[:, :, :, :, 4:5], np.s_[:, :, 2:3, :, :7]):
        x = state.copy()
        expected = x.copy()
        expected[part] = np.fft.irfft(np.fft.rfft(x[part], axis=3) * np.fft.rfft(kernel)[:, None], 20, axis=3)
        whole = copy_state(x)
        Convolution.of(multiplier, whole[part], 2).apply(whole[part])
        assert np.abs(whole - expected).max() < 1e-14 * np.abs(expected).max()
        rest = np.ones(x.shape, dtype=bool)
        rest[part] = False
        assert np.array_equal(whole[rest], x[rest])
    with pytest.raises(AssertionError, match="must lie in memory"):
        Convolution.of(multiplier, state[::-1], 2).apply(state[::-1])


@pytest.mark.parametrize(("precision", "cells"), [("single", 48), ("double", 400)])
def test_a_coherence_that_decays_to_nothing_in_a_step_is_swept_too(precision, cells):
    grid = cq.Grid(q=(-6, 6, cells), p=(-9, 9, cells))
    model = cq.models.linear_diosi(excess=2e4)
    sol = cq.solve(model, cq.gaussian(grid, 0, 0.6, cq.ket("+")), [0, 0.05], dt=0.05, precision=precision, method="split", tol=0.9, force=True, grid_error=False)
    assert abs(float(sol.trace[-1]) - 1) < (1e-6 if precision == "single" else 1e-12)
    assert float(abs(sol.rho[-1, 0, 1]).max()) == 0.0


def test_the_same_bits_for_any_threads_and_any_part_of_the_lines():
    rng = np.random.default_rng(7)
    x, kernels = rng.standard_normal((48, 333)), rng.standard_normal(48)
    whole, most = sweep(x, kernels, 0, []), numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert np.array_equal(sweep(x, kernels, 0, []), whole)
    finally:
        numba.set_num_threads(most)
    assert np.array_equal(sweep(np.ascontiguousarray(x[:, 100:171]), kernels, 0, []), whole[:, 100:171])
    assert np.array_equal(sweep(np.ascontiguousarray(x.T), kernels, 1, []).T, whole)


def diosi(cells=(80, 112)):
    case = models.linear_diosi()
    return case.model, case.start(cq.Grid(q=(-6, 6, cells[0]), p=(-9, 9, cells[1])))


def distance(a, b):
    """Bound of the integrated trace norm of the difference of the last frames."""
    x, y = (to_components(s.rho.values[-1].astype(complex)) for s in (a, b))
    return trace_norm_bound((x - y).reshape(len(x), -1), 1, a.cq.grid.cell_volume)


def test_a_forked_process_has_threads_of_its_own():
    """Those that swept before do not exist in it: it would wait for them for ever."""
    x = np.random.default_rng(8).standard_normal((64, 1 << 14))
    whole = sweep(x, x[:, 0].copy(), 0, [])
    child = multiprocessing.get_context("fork").Process(target=lambda: np.testing.assert_array_equal(sweep(x, x[:, 0].copy(), 0, []), whole))
    child.start()
    child.join(60)
    assert child.exitcode == 0


@pytest.mark.parametrize("make", [diosi, lambda: three_levels(40, 48), lambda: oscillator()])
def test_single_precision_is_that_of_its_numbers(make):
    """Against the same run in double precision: round-off per step as stated (and there), trace far inside its bound; couplings, local terms, contractions."""
    model, rho0 = make()
    runs = {p: cq.solve(model, rho0, [0, 0.5], dt=0.01, precision=p, tol=0.3) for p in ("double", "single")}
    steps, error = float(runs["single"].steps[-1]), distance(runs["double"], runs["single"])
    assert runs["single"].rho.dtype == np.complex64 and runs["double"].rho.dtype == np.complex128
    assert 1e-9 * steps < error < 3e-7 * steps
    total = runs["single"].trace + runs["single"].escaped_probability
    assert 1e-13 < float(np.abs(total - total[0]).max()) < 5e-6
    assert float(runs["single"].time_error[-1]) == pytest.approx(2 * float(runs["double"].time_error[-1]), abs=1e-6 * steps)
    # observables are sums in double precision
    assert float(runs["single"].cq.expect(np.eye(model.dim))[-1]) == pytest.approx(float(runs["single"].trace[-1]), abs=1e-13)


def test_round_off_of_single_precision_is_in_the_stated_error():
    """Steps so small that nothing else is: the stated error bounds the distance from double precision, closely, and grows with the steps."""
    model, rho0 = diosi((40, 56))
    for dt in (1e-3, 5e-4):
        runs = {p: cq.solve(model, rho0, [0, 0.4], dt=dt, precision=p, tol=0.3) for p in ("double", "single")}
        error, stated = distance(runs["double"], runs["single"]), float(runs["single"].time_error[-1])
        assert float(runs["double"].time_error[-1]) < 0.2 * error < 0.2 * stated < 2 * error


def test_round_off_of_steps_that_have_no_other_error_is_stated():
    """All parts commute: a step of any length is exact, and the round-off of many outputs is all that there is."""
    model = cq.Model(("x",), 2, L=cq.sigmaz(), D2=[[0.1]], D0="saturated", D1=[[0.1]])
    rho0 = cq.gaussian(cq.Grid(x=(-6, 6, 64)), 0.0, 0.5, cq.ket("+"))
    runs = {p: cq.solve(model, rho0, np.linspace(0, 1, 201), dt=0.1, precision=p, method="split", frames=[1.0]) for p in ("double", "single")}
    error = distance(runs["double"], runs["single"])
    assert float(runs["double"].time_error[-1]) == 0.0 and 1e-6 < error <= float(runs["single"].time_error[-1]) < 10 * error


def test_what_single_precision_does_not_hold_is_refused():
    grid = cq.Grid(x=(-6e-20, 6e-20, 64))
    model = cq.Model(("x",), 2, L=cq.sigmaz(), D0="saturated", D1=[[0.0]], D2=[[1e-41]])
    with pytest.raises(OptionError, match="precision: 'single' holds densities"):
        cq.solve(model, cq.gaussian(grid, 0.0, 5e-21, cq.ket("+")), [0, 1], dt=0.1, precision="single", method="split")


def three_levels(nx, ny):
    l = np.array([[0, 1, 0.2j], [0, 0.5, 1], [0, 0, -1]])
    model = cq.Model(("x", "y"), 3, H=np.diag([1.0, 0, -1]), L=[l], D0="saturated", D1=[[0.0], [0.6]], D2={"y": 0.3}, D1C=[lambda z: np.sin(z.y), 0.0])
    return model, cq.gaussian(cq.Grid(x=(-4, 4, nx), y=(-5, 5, ny)), 0.0, 0.5, np.diag([0.5, 0.3, 0.2]))


def oscillator():
    """A trap with friction and noise (contraction), tunnelling that depends on q (local terms)."""
    model = cq.Model(
        ("q", "p"), 2, H=lambda z: [[z.q, 0.5 + 0.1 * z.q], [0.5 + 0.1 * z.q, -z.q]], L=[cq.sigmaz()], D0="saturated", D1={"p": [0.3]}, D2={"p": 0.4},
        D1C={"q": lambda z: z.p, "p": lambda z: -z.q - 0.5 * z.p},
    )  # fmt: skip
    return model, cq.gaussian(cq.Grid(q=(-6, 6, 64), p=(-8, 8, 96)), 0.0, 0.6, cq.ket("+"))


def mass(n):
    """The test mass of validation/four_dimensions.py."""
    return four_dimensions.model(), cq.gaussian(four_dimensions.grid(n), {"y": -0.5}, {"x": 0.2, "y": 0.2, "vx": 0.55, "vy": 0.55}, cq.ket("+"))


@pytest.mark.filterwarnings("ignore::cqpde.CqpdeWarning")
def test_single_precision_takes_half_the_memory_and_says_so():
    """Counted allocation by allocation: no array of the state's size is promoted."""
    model, rho0 = mass(32)
    peaks, options = {}, dict(dt=0.01, tol=0.5)
    for precision in ("double", "single"):
        cq.solve(*mass(12), [0, 0.02], **options, precision=precision, force=True)  # compiled
        tracemalloc.start()
        cq.solve(model, rho0, [0, 0.02], **options, precision=precision)
        peaks[precision] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert 0.45 < peaks["single"] / peaks["double"] < 0.6
    small = {p: cq.estimate(*mass(12), [0, 0.02], **options, precision=p) for p in peaks}
    assert small["single"].bytes_state == 0.5 * small["double"].bytes_state and small["single"].bytes_frames == 0.5 * small["double"].bytes_frames
    assert small["double"].bytes_work - small["single"].bytes_work > 2 * small["single"].bytes_state


def test_single_precision_in_files_checkpoints_and_on_the_command_line(tmp_path):
    path = str(tmp_path / "a.nc")
    assert main(["run", "linear_diosi", "--dt", "0.05", "--precision", "single", "--cells", "q=48", "--cells", "p=64", "--tol", "0.1", "-q", "-o", path]) == 0
    with netCDF4.Dataset(path) as stored:
        assert {stored[name].dtype for name in ("rho_re", "rho_im", "density")} == {np.dtype("f4")} and stored.precision == "single"
    sol = cq.load(path)
    assert sol.rho.dtype == np.complex64 and cq.load(path, lazy=True).rho.dtype == np.complex64
    model, rho0 = diosi((48, 64))
    begin = lambda **keys: cq.solve(model, rho0, sol.t.values, dt=0.05, tol=0.1, precision="single", **keys)
    again, rounds = stopped_and_resumed(begin, tmp_path / "run", 7)
    assert rounds == 1 and again.attrs["precision"] == "single" and again.rho.dtype == np.complex64
    assert_same_bits(again, begin())


@pytest.mark.parametrize(
    ("options", "name"),
    [({"precision": "single"}, "precision"), ({"precision": "half", "dt": 0.1}, "precision"), ({"precision": "single", "method": "fv"}, "precision"),
     ({"precision": "single", "dt": 0.1, "method": "fv"}, "dt"), ({"precision": 4, "dt": 0.1}, "precision")],
)  # fmt: skip
def test_single_precision_elsewhere_is_refused_by_name(options, name):
    with pytest.raises(OptionError) as refused:
        cq.solve(*diosi((48, 64)), [0, 0.1], **options)
    assert refused.value.argument == name


@pytest.fixture(scope="module")
def whole_mass():
    return skipped(0.0)


def skipped(threshold, **options):
    model, rho0 = mass(24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cq.CqpdeWarning)
        return cq.solve(model, rho0, [0, 0.04], dt=0.01, tol=0.5, skip_below=threshold, **options)


@pytest.mark.parametrize("threshold", [1e-14, 1e-10, 1e-7, 1e-4])
def test_skipped_lines_are_within_what_the_run_states(threshold, whole_mass):
    """Stated error: above the distance from a run that skips nothing, and of its kind; the trace is kept; stated error inside time_error."""
    sol = skipped(threshold)
    measured, stated = distance(sol, whole_mass), sol.attrs["skipped_error"]
    assert 0 < measured < stated < 1e3 * measured
    assert stated < 1e5 * threshold
    assert abs(float(sol.trace[-1] - sol.trace[0])) < 1e-14
    assert float(sol.time_error[-1] - stated) == pytest.approx(float(whole_mass.time_error[-1]), abs=2 * stated + 1e-15)


def test_skipping_gives_the_same_bits_on_any_threads_and_when_resumed(tmp_path):
    whole, most = skipped(1e-7), numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert_same_bits(skipped(1e-7), whole)
    finally:
        numba.set_num_threads(most)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cq.CqpdeWarning)
        again, rounds = stopped_and_resumed(lambda **keys: skipped(1e-7, **keys), tmp_path / "run", 4)
    assert rounds == 1 and again.attrs["skipped_error"] == whole.attrs["skipped_error"]
    assert_same_bits(again, whole)


def test_a_skipped_line_is_untouched_and_others_are_not():
    """Of 304 lines in blocks, those that are small all over are left to the last bit, and counted; a NaN is not small."""
    x = np.ones((64, 304))
    x[:, 152:] = 1e-9 * np.random.default_rng(1).standard_normal((64, 152))
    kernel = np.zeros(64)
    kernel[1] = 1.0
    strides, zero = np.array([[0, 1, 0]], dtype=np.int64), np.zeros(1, dtype=np.int64)
    multiplier = Multiplier((0,), zero, zero, zero, strides, np.fft.rfft(kernel))

    def swept(field, threshold):
        y = field[None, None].copy()
        left, watch = Convolution.of(multiplier, y, 1).apply(y, threshold)
        assert np.isfinite(watch) == np.all(np.isfinite(y))
        return y[0, 0], left

    y, left = swept(x, 1e-6)
    assert np.array_equal(y[:, 152:], x[:, 152:]) and left == pytest.approx(np.abs(x[:, 152:]).sum(), rel=1e-12)
    y, left = swept(x, 1e-12)
    assert left == 0.0 and np.allclose(y, np.roll(x, 1, axis=0), atol=1e-14)
    x[5, 200] = np.nan
    y, left = swept(x, 1e-6)
    assert left == 0.0 and np.isnan(y[:, 200]).all()


@pytest.mark.parametrize("value", [-1e-9, 1.0, float("nan"), "much", None, True])
def test_skip_below_is_a_part_of_the_largest_and_belongs_to_equal_steps(value):
    for options, name in (({"dt": 0.1, "skip_below": value}, "skip_below"), ({"skip_below": 1e-9}, "skip_below")):
        with pytest.raises(OptionError) as refused:
            cq.solve(*diosi((48, 64)), [0, 0.1], **options)
        assert refused.value.argument == name


def test_vector_instructions_refuse_what_is_not_contiguous():
    """They would read other numbers."""

    @numba.njit
    def first_tile(x, buf):
        rows.tile_in(x, np.arange(8) * 8, 0, 0, buf, 0, 8)

    x, buf = np.arange(128.0), np.zeros(64)
    first_tile(x, buf)
    assert np.array_equal(buf.reshape(8, 8), x[:64].reshape(8, 8).T)
    with pytest.raises(numba.core.errors.TypingError, match="contiguous"):
        first_tile(x[::2], buf)
