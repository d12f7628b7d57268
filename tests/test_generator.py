"""The assembled generator: trace-preserving, completely positive for physical models and not for others."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import cqpde as cq
from cqpde.errors import OptionError

from . import models


def choi_minimum(propagator: np.ndarray, d: int, cells: int) -> float:
    """Smallest eigenvalue of the Choi matrices of all blocks cell -> cell; the map is completely positive if none is negative."""
    blocks = propagator.reshape(d, d, cells, d, d, cells)  # (a, b, z; i, j, z'): rho_ab(z) from rho_ij(z')
    choi = np.moveaxis(blocks, (2, 5), (0, 1)).transpose(0, 1, 4, 2, 5, 3).reshape(cells, cells, d * d, d * d)
    return float(np.linalg.eigvalsh(0.5 * (choi + np.conj(np.swapaxes(choi, -1, -2)))).min())


def random_model(seed: int, d: int, axes: int, scale: float, excess: float = 0.2):
    """Random complex operators; D0 is the saturated one times ``scale`` plus an excess."""
    rng = np.random.default_rng(seed)
    gauss = lambda *shape: rng.normal(size=shape) + 1j * rng.normal(size=shape)
    p = 2
    lindblad = [gauss(d, d) * 0.5 for _ in range(p)]
    lindblad = [m - np.trace(m) / d * np.eye(d) for m in lindblad]
    h = gauss(d, d)
    noise = rng.uniform(0.3, 1.0, size=axes)
    d1 = gauss(axes, p)
    least = d1.conj().T @ np.diag(1 / noise) @ d1
    e = gauss(p, p)
    names = ("x", "y")[:axes]
    d0 = scale * least + excess * e @ e.conj().T
    return cq.Model(
        names,
        d,
        H=h + h.conj().T,
        L=lindblad,
        D0=d0,
        D1=d1,
        D2=np.diag(noise / 2),
        D1C=rng.normal(size=axes),
        check="off",
    )


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    d=st.integers(2, 3),
    boundary=st.sampled_from(["periodic", "reflecting"]),
    dt=st.floats(0.01, 1.0),
)
def test_physical_models_are_completely_positive_and_trace_preserving(seed, d, boundary, dt):
    grid = cq.Grid(x=(-2, 2, 6, boundary))
    g = cq.generator(random_model(seed, d, 1, 1.0), grid).matrix().toarray()
    trace = np.zeros((d, d, 6))
    trace[range(d), range(d)] = 1.0
    assert np.abs(trace.reshape(-1) @ g).max() < 1e-12 * np.abs(g).max()
    assert choi_minimum(scipy.linalg.expm(dt * g), d, 6) > -1e-12


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), d=st.integers(2, 3), boundary=st.sampled_from(["periodic", "reflecting"]))
def test_unphysical_models_are_not_completely_positive(seed, d, boundary):
    grid = cq.Grid(x=(-0.3, 0.3, 6, boundary))
    g = cq.generator(random_model(seed, d, 1, 0.6, excess=0.0), grid).matrix().toarray()
    assert choi_minimum(scipy.linalg.expm(0.01 * g), d, 6) < -1e-6


def test_choi_of_two_axes_with_upwind_drift():
    """Noise on x, pure drift on y: the jump generator of the drift is completely positive too."""
    model = cq.Model(
        ("x", "y"),
        2,
        H=cq.sigmay(),
        L=[models.A0],
        D1={"x": [1.0]},
        D2={"x": 0.3},
        D0="saturated",
        D1C=[0.2, lambda z: z.x],
    )
    g = cq.generator(model, cq.Grid(x=(-2, 2, 5, "reflecting"), y=(-1, 1, 5, "periodic"))).matrix().toarray()
    assert choi_minimum(scipy.linalg.expm(0.2 * g), 2, 25) > -1e-12
    linear = (
        cq.generator(model, cq.Grid(x=(-2, 2, 5, "reflecting"), y=(-1, 1, 5, "periodic")), "linear").matrix().toarray()
    )
    assert choi_minimum(scipy.linalg.expm(0.2 * linear), 2, 25) < -1e-6


@pytest.mark.parametrize("transport", ["upwind", "linear"])
@pytest.mark.parametrize("end", ["open", "periodic", "specular(p)"])
def test_apply_operator_and_matrix_agree(transport, end):
    grid = cq.Grid(q=(-3, 3, 8, end), p=(-4, 4, 6))
    g = cq.generator(cq.models.linear_diosi(), grid, transport)
    rng = np.random.default_rng(3)
    rho = rng.normal(size=(2, 2, 8, 6)) + 1j * rng.normal(size=(2, 2, 8, 6))
    by_matrix = g.matrix() @ rho.reshape(-1)
    assert g.linear_operator() @ rho.reshape(-1) == pytest.approx(by_matrix, abs=1e-12)
    hermitian = rho + np.conj(np.swapaxes(rho, 0, 1))
    assert g.apply(hermitian).reshape(-1) == pytest.approx(g.matrix() @ hermitian.reshape(-1), abs=1e-12)
    if end != "open":
        trace = np.zeros_like(rho)
        trace[range(2), range(2)] = 1.0
        inner = np.zeros((2, 2, 8, 6))
        inner[0, 0, :, 1:-1] = 1.0  # away from the open ends of p
        assert trace.reshape(-1) @ (g.matrix() @ inner.reshape(-1)) == pytest.approx(0.0, abs=1e-11)


def test_limited_transport_has_no_generator():
    with pytest.raises(OptionError, match="not linear in the state"):
        cq.generator(cq.models.linear_diosi(), cq.Grid(q=(-1, 1, 8), p=(-1, 1, 8)), "limited")


def test_noise_with_a_kink_at_the_seam_of_a_periodic_axis_knows_no_direction():
    """What starts symmetric about the seam stays so: the slope there is that of both sides, not of one."""
    grid = cq.Grid(x=(-5, 5, 40, "periodic"))
    model = cq.Model(("x",), 1, D2=[[lambda z: 0.2 * (1 + (z.x / 5) ** 2)]])
    start = cq.product(grid, lambda z: np.exp(-((5 - abs(z.x)) ** 2) / 0.5), [[1.0]])
    f = cq.solve(model, start, [0, 1], method="fv", grid_error=False).rho.values[-1, 0, 0].real
    assert np.abs(f - f[::-1]).max() < 1e-12 * f.max() and f.max() < 0.8 * start.density.max()
