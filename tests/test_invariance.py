"""The result does not depend on hidden choices: basis, origin, how the run is cut, batching, threads, asking for more output."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import scipy.stats

import cqpde as cq

from . import models


def _diosi(n=24, **grid):
    return cq.Grid(q=(-6, 6, n), p=(-9, 9, 2 * n))


def _one_d(n=48):
    return cq.Grid(x=(-models.BOX, models.BOX, n, "periodic"))


@pytest.mark.parametrize("transport", ["limited", "upwind"])
def test_unitary_change_of_basis(transport):
    u = scipy.stats.unitary_group.rvs(2, random_state=np.random.default_rng(5))
    turn = lambda m: u @ m @ u.conj().T
    grid = _diosi()
    base = cq.models.linear_diosi()
    turned = cq.Model(
        ("q", "p"), 2,
        H=lambda z: [[turn(cq.sigmaz())[i, j] * (2 * z.q + 2) for j in range(2)] for i in range(2)],
        L=[turn(cq.sigmaz())], D1={"p": [-1.0]}, D2={"p": 0.5}, D0=[[1.0]], D1C=[lambda z: z.p, 0],
    )  # fmt: skip
    rho = cq.projector(cq.ket("+"))
    options = {"transport": transport, "grid_error": False, "tol": 1e-3}
    one = cq.solve(base, cq.gaussian(grid, 0, 0.5, rho), [0, 0.5], **options).rho.values[-1]
    two = cq.solve(turned, cq.gaussian(grid, 0, 0.5, turn(rho)), [0, 0.5], **options).rho.values[-1]
    back = np.einsum("ia,ijkl,jb->abkl", u.conj(), two, u)
    # the limiter looks at eigenvalues, which a change of basis keeps; its bisection stops at 2^-14
    assert np.abs(back - one).max() < (2e-6 if transport == "limited" else 1e-13) * np.abs(one).max()


def test_translation():
    shift = 3.7
    model = lambda c: cq.Model(
        ("x",),
        2,
        H=cq.sigmax(),
        L=[models.A0],
        D1=[[1.0]],
        D2=[[lambda z: 0.4 + 0.1 * np.tanh(z.x - c)]],
        D0="saturated",
        D1C=[lambda z: -(z.x - c)],
    )
    runs = []
    for c in (0.0, shift):
        grid = cq.Grid(x=(c - 5, c + 5, 60))
        runs.append(
            cq.solve(model(c), cq.gaussian(grid, 0.3 + c, 0.6, cq.ket("+")), [0, 1], grid_error=False).rho.values[-1]
        )
    assert np.abs(runs[0] - runs[1]).max() < 1e-12


def test_splitting_the_run_in_two_is_exact_without_splitting_error():
    grid, model = _one_d(), models.nothing_commutes()
    whole = cq.solve(model, models.start_1d(grid), [0, 0.8], grid_error=False)
    first = cq.solve(model, models.start_1d(grid), [0, 0.3], grid_error=False)
    second = cq.solve(model, cq.from_array(grid, first.rho.values[-1]), [0.3, 0.8], grid_error=False)
    assert np.abs(whole.rho.values[-1] - second.rho.values[-1]).max() < 1e-14


def test_splitting_the_run_in_two_stays_within_tol():
    grid, model, tol = _diosi(32), cq.models.linear_diosi(), 1e-3
    options = {"grid_error": False, "tol": tol}
    whole = cq.solve(model, cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 0.7], **options)
    first = cq.solve(model, cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 0.3], **options)
    second = cq.solve(model, cq.from_array(grid, first.rho.values[-1], slack=1e-4), [0.3, 0.7], **options)
    assert models.integrated_trace_norm(whole.rho.values[-1] - second.rho.values[-1], grid) < 2 * tol


@pytest.mark.parametrize("transport", ["limited", "upwind"])
def test_batching_changes_nothing(transport):
    grid, model = _diosi(), cq.models.linear_diosi()
    states = [cq.gaussian(grid, {"q": x}, 0.5, cq.ket(k)) for x, k in ((0.0, "+"), (0.4, "0"), (-0.3, "+i"))]
    options = {"transport": transport, "grid_error": False, "tol": 1e-2, "dt_max": 0.02}
    together = cq.solve(model, states, [0, 0.25], **options)
    assert together.rho.dims[:2] == ("t", "batch")
    for k, state in enumerate(states):
        alone = cq.solve(model, state, [0, 0.25], **options)
        assert np.array_equal(together.rho.values[-1, k], alone.rho.values[-1]) or (
            np.abs(together.rho.values[-1, k] - alone.rho.values[-1]).max() < 1e-14
        )


def test_thread_count_does_not_change_a_bit():
    from cqpde.kernels import remap, stencil

    grid, model = _diosi(96), cq.models.linear_diosi()
    terms = cq.generator(model, grid).stencil.n_terms
    cells = grid.shape[0] * grid.shape[1]
    assert (
        terms * cells > stencil.PARALLEL_WORK and 4 * cells > remap.PARALLEL_WORK
    )  # or this would compare serial runs
    results = []
    for threads in (1, 2):
        if threads > numba.config.NUMBA_NUM_THREADS:
            pytest.skip("one processor only: nothing to compare")
        numba.set_num_threads(threads)
        results.append(
            cq.solve(model, cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 0.05], grid_error=False, tol=1e-3).rho.values
        )
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert np.array_equal(*results)


def test_more_output_does_not_change_the_answer():
    grid, model = _diosi(), cq.models.linear_diosi()
    few = cq.solve(model, cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 0.5], grid_error=False)
    many = cq.solve(model, cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 0.1, 0.123456, 0.31, 0.5], grid_error=False)
    assert np.array_equal(few.rho.values[-1], many.rho.values[-1])
    assert np.array_equal(many.t.values, [0, 0.1, 0.123456, 0.31, 0.5])


@pytest.mark.parametrize("method", ["fv", "split"])
def test_outputs_inside_a_step_are_at_their_time(method):
    """H = (40 + t) sigmaz: the phase of the coherence is 80 t + t^2, and tells the time of each output."""
    model = cq.Model(("x",), 2, H=[[lambda z, t: 40 + t + 0 * z.x, 0], [0, lambda z, t: -40 - t + 0 * z.x]], D2=[[0.1]])
    times = np.array([0, 0.1, 0.123456, 0.31, 0.5])
    sol = cq.solve(model, cq.gaussian(cq.Grid(x=(-6, 6, 64)), 0, 0.7, cq.ket("+")), times, method=method, tol=1e-6, grid_error=False)
    phase = sol.cq.unconditioned_state().values[:, 0, 1] * np.exp(1j * (80 * times + times**2))
    assert np.abs(phase / abs(phase) - 1).max() < 1e-10


def test_order_of_the_axes_does_not_matter():
    """The kernels see (before, axis, after) differently; the physics must not."""
    model = cq.Model(("x", "y"), 2, L=models.A2, D0="saturated", D1=np.eye(2), D2=models.S2 / 2, D1C=[0.3, -0.2])
    swapped = cq.Model(
        ("y", "x"), 2, L=models.A2[::-1], D0="saturated", D1=np.eye(2), D2=models.S2[::-1, ::-1] / 2, D1C=[-0.2, 0.3]
    )
    one = cq.solve(
        model, cq.gaussian(cq.Grid(x=(-6, 6, 24), y=(-6, 6, 30)), 0, 0.8, cq.ket("0")), [0, 0.3], grid_error=False
    )
    two = cq.solve(
        swapped, cq.gaussian(cq.Grid(y=(-6, 6, 30), x=(-6, 6, 24)), 0, 0.8, cq.ket("0")), [0, 0.3], grid_error=False
    )
    assert np.abs(one.rho.values[-1] - np.swapaxes(two.rho.values[-1], -1, -2)).max() < 1e-14
