"""Large grids on one machine: sweeps by residues, single precision, skipped lines, and the table of bandwidths."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from cqpde.channels.convolution import Convolution
from cqpde.channels.spectral import Multiplier
from cqpde.kernels.circulant import plan, residues


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


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 12, 20, 37, 40, 64, 100, 256])
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
    assert worst < bound * max(np.log2(n), 1.0) * (plan(n)[2][:, 2].max() ** 0.5)
    assert n < 5 or worst > 0.02 * bound


def test_residues_of_a_product_are_products():
    """z^12 - 1 has the real residues z - 1 and z + 1 in front, and a leaf of three rows each: the remainder of a line by hand."""
    line = np.arange(12.0)
    found = residues(line[:, None])[:, 0]
    assert found[:3] * 4 == pytest.approx(line.reshape(4, 3).sum(axis=0))
    assert found[3:6] * 4 == pytest.approx((line.reshape(4, 3) * np.array([1, -1, 1, -1])[:, None]).sum(axis=0))
    assert sorted(plan(12)[2][:, 2].tolist()) == [3, 3, 3]


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
