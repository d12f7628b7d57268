"""Observables against closed forms of a correlated Gaussian, and what Grid.suggest proposes."""

from __future__ import annotations

import numpy as np
import pytest

import cqpde as cq
from cqpde.dataset import build, coordinates
from cqpde.errors import OptionError

from .hybrid_states import branches, dataset, normal, random_state, times_state

GRID = cq.Grid(q=(-6, 6, 80), p=(-6, 6, 90))


@pytest.fixture(scope="module")
def solution():
    """Gaussian in (q, p) times the ket (cos q, sin q) at rest: nothing moves."""
    model = cq.Model(("q", "p"), 2)
    cov = [[0.5, 0.2], [0.2, 0.6]]
    density = cq.gaussian(GRID, {"q": 0.4, "p": -0.3}, cov=cov, state=lambda z: [np.cos(z.q), np.sin(z.q)])
    return cq.solve(model, density, [0, 1], grid_error=False)


def test_moments_and_expectations(solution):
    c2 = np.exp(-2 * 0.5) * np.cos(0.8)  # E cos 2q
    s2 = np.exp(-2 * 0.5) * np.sin(0.8)
    at = lambda a: np.asarray(a)[-1]
    assert at(solution.cq.mean()) == pytest.approx([0.4, -0.3], abs=1e-10)
    assert at(solution.cq.covariance()).reshape(-1) == pytest.approx([0.5, 0.2, 0.2, 0.6], abs=1e-9)
    assert at(solution.cq.expect(cq.sigmaz())) == pytest.approx(c2, abs=1e-10)
    assert at(solution.cq.expect(lambda z: [[z.q, 0], [0, z.q]])) == pytest.approx(0.4, abs=1e-10)
    assert at(solution.cq.populations()) == pytest.approx([(1 + c2) / 2, (1 - c2) / 2], abs=1e-10)
    assert at(solution.cq.moment("q", cq.sigmaz())) == pytest.approx(0.4 * c2 - 2 * 0.5 * s2, abs=1e-9)
    state = at(solution.cq.unconditioned_state())
    assert state[0, 1] == pytest.approx(s2 / 2, abs=1e-10)
    assert at(solution.cq.purity()) == pytest.approx(1.0, abs=1e-12)
    assert at(solution.cq.purity(of="unconditioned")) == pytest.approx((1 + c2**2 + s2**2) / 2, abs=1e-9)


def test_marginals_and_conditional_states(solution):
    q = GRID.axes[0].centers
    exact = np.exp(-((q - 0.4) ** 2) / (2 * 0.5)) / (2 * np.pi * 0.5) ** 0.5
    assert solution.cq.marginal("q").values[-1] == pytest.approx(exact, abs=1e-9)
    assert float(solution.cq.density()[-1].sum()) * GRID.cell_volume == pytest.approx(1, abs=1e-12)
    cell = q[np.argmin(abs(q - 0.7))]
    psi = np.array([np.cos(cell), np.sin(cell)])
    for state in (solution.cq.conditional_state(q=0.7), solution.cq.conditional_state(q=0.7, p=0.1)):
        assert np.abs(state.values[-1] - np.outer(psi, psi)).max() < 1e-10
    with pytest.raises(OptionError, match="Did you mean"):
        solution.cq.marginal("qq")
    with pytest.raises(OptionError, match="inside"):
        solution.cq.conditional_state(q=9.0)


def test_complex_expectation_keeps_its_sign():
    """<sigma_+> = rho_10 for a state with a phase: the index order of the trace matters."""
    grid = cq.Grid(x=(-4, 4, 40))
    ket = np.array([0.6, 0.8 * np.exp(0.7j)])
    data = np.outer(ket, ket.conj())[None, :, :, None] * np.ones(40) / 8.0
    ds = build(grid, 2, np.zeros(1), np.zeros(1), data, np.zeros((1, 2, 2, 2)), {}, {}, {})
    assert set(coordinates(grid, 2)) <= set(ds.coords)
    assert complex(ds.cq.expect(cq.sigmap())[0]) == pytest.approx(ket.conj()[0] * ket[1], abs=1e-12)


def test_arrival_rates_add_up_to_what_escaped():
    model = cq.Model(("x",), 1, D1C=[2.0], D2=[[0.2]])
    sol = cq.solve(
        model,
        cq.gaussian(cq.Grid(x=(-3, 3, 60, ("open", "absorbing"))), -0.5, 0.4, [1.0]),
        np.linspace(0, 3, 13),
        grid_error=False,
    )
    rate = sol.cq.arrival_rate()
    assert float(rate.sum()) * 0.25 == pytest.approx(float(sol.escaped_probability[-1]), abs=1e-12)
    # ballistic arrival at the upper end after 3.5/2
    assert float((rate.isel(face=1) * rate.t).sum() / rate.isel(face=1).sum()) == pytest.approx(1.75, abs=0.1)


def test_suggested_grid_holds_the_state_and_resolves_it():
    model = cq.models.linear_diosi(lam=0.5)
    grid = cq.Grid.suggest(model, {"mean": {"q": 0, "p": 0}, "std": {"q": 0.5, "p": 0.5}}, 0.5)
    sol = cq.solve(model, cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 0.5], tol=1e-3)
    assert float(sol.escaped_probability[-1]) < 1e-8
    assert float(sol.grid_error[-1]) < 0.05
    assert max(grid.shape) < 300


# -- what depends on position, on conditions, on the model ---------------------------------------------------------------
def test_populations_coherences_and_bloch_vectors_over_axes(solution):
    q = GRID.axes[0].centers
    f = np.exp(-((q - 0.4) ** 2)) / np.pi**0.5
    assert solution.cq.populations("q").values[-1] == pytest.approx(np.stack([f * np.cos(q) ** 2, f * np.sin(q) ** 2]), abs=1e-9)
    assert solution.cq.coherence("q").values[-1] == pytest.approx(f * np.cos(q) * np.sin(q), abs=1e-9)
    inside = np.abs(q) < 3
    vector = solution.cq.bloch("q").values[-1][:, inside]
    assert vector == pytest.approx(np.stack([np.sin(2 * q), 0 * q, np.cos(2 * q)])[:, inside], abs=1e-9)
    assert float(np.linalg.norm(solution.cq.bloch().values[-1])) == pytest.approx(np.exp(-1.0), abs=1e-9)
    assert solution.cq.operator_marginal("p").dims == ("t", "row", "col", "p")
    assert list(solution.cq.populations("p", "q").dims) == ["t", "row", "p", "q"]
    for bad in ((0, 0), (0, 2), "01x"):
        with pytest.raises(OptionError, match="levels"):
            solution.cq.coherence("q", levels=bad)


def test_the_sign_of_the_second_bloch_component():
    """|+i> = (|0> + i|1>)/sqrt 2 points along +y."""
    grid = cq.Grid(x=(-4, 4, 40))
    f = normal(grid, {"x": 0}, {"x": 0.5})
    ds = dataset(grid, [times_state(f, np.array([[0.5, -0.5j], [0.5j, 0.5]]))])
    assert ds.cq.bloch().values[0] == pytest.approx([0, 1, 0], abs=1e-12)
    assert float(ds.cq.expect(cq.sigmay())[0]) == pytest.approx(1.0, abs=1e-9)


def test_conditioning_on_regions(solution):
    """Given q > 0: integrals of the half-normal law by quadrature; a plane cut by a line by symmetry."""
    from scipy.integrate import quad

    f = lambda q: np.exp(-((q - 0.4) ** 2)) / np.pi**0.5
    total = quad(f, 0, 6)[0]
    c2 = quad(lambda q: f(q) * np.cos(2 * q), 0, 6)[0] / total
    state = solution.cq.conditional_state(q=(0, None)).values[-1]
    assert float(solution.cq.probability(q=(0, None))[-1]) == pytest.approx(total, abs=1e-3)  # midpoint rule
    assert (state[0, 0] - state[1, 1]).real == pytest.approx(c2, abs=2e-3)
    assert solution.cq.conditional_state(q=slice(0, None)).values[-1] == pytest.approx(state, abs=1e-15)
    # cells cut by an end count by their overlap: halves add up
    parts = [float(solution.cq.probability(q=w)[-1]) for w in ((None, 0.123), (0.123, None))]
    assert sum(parts) == pytest.approx(1, abs=1e-12)
    both = solution.cq.conditional_state(lambda z: z.p < z.p + 1, q=0.7).values[-1]
    assert both == pytest.approx(solution.cq.conditional_state(q=0.7).values[-1], abs=1e-12)
    # P(p < -0.3) = 1/2
    assert float(solution.cq.probability(lambda z: z.p + 0 * z.q < -0.3)[-1]) == pytest.approx(0.5, abs=0.02)
    for bad, words in (({"q": (2, 1)}, "ascending"), ({"q": (7, 9)}, "meets"), ({"q": "x"}, "interval"), ({"s": 1}, "Did you mean|Known")):
        with pytest.raises(OptionError, match=words):
            solution.cq.conditional_state(**bad)
    with pytest.raises(OptionError, match="booleans"):
        solution.cq.probability(lambda z: z.q)


def test_operators_of_every_kind_give_the_same(solution):
    import qutip
    import sympy

    q = sympy.Symbol("q")
    expected = float(solution.cq.moment("q", cq.sigmaz())[-1])
    for operator in (
        lambda z: [[z.q, 0], [0, -z.q]],
        lambda z, t: [[z.q, 0 * t], [0, -z.q]],
        sympy.Matrix([[q, 0], [0, -q]]),
        [[q, 0], [0, -q]],
    ):
        assert float(solution.cq.expect(operator)[-1]) == pytest.approx(expected, abs=1e-12)
    assert float(solution.cq.expect(qutip.sigmaz())[-1]) == pytest.approx(float(solution.cq.expect(cq.sigmaz())[-1]), abs=1e-15)
    timed = solution.cq.expect(lambda z, t: [[t, 0], [0, t]])
    assert timed.values == pytest.approx([0, 1], abs=1e-12)
    assert float(solution.cq.moment({"q": 2, "p": 1}, cq.sigmaz())[-1]) == pytest.approx(
        float(solution.cq.expect(lambda z: [[z.q**2 * z.p, 0], [0, -(z.q**2) * z.p]])[-1]), abs=1e-12
    )
    assert float(solution.cq.moment("q q")[-1]) == pytest.approx(float(solution.cq.moment("q", order=2)[-1]), abs=1e-15)
    with pytest.raises(OptionError, match="shape must be"):
        solution.cq.expect(np.eye(3))


def test_covariances_with_operators(solution):
    c2, s2 = np.exp(-1) * np.cos(0.8), np.exp(-1) * np.sin(0.8)
    qz = 0.4 * c2 - 2 * 0.5 * s2  # E[q cos 2q]
    c = solution.cq.covariance("q", cq.sigmaz(), cq.sigmax()).values[-1]
    assert c[0, 0] == pytest.approx(0.5, abs=1e-9)
    assert c[0, 1] == pytest.approx(qz - 0.4 * c2, abs=1e-9)
    assert c[1, 1] == pytest.approx(1 - c2**2, abs=1e-9)
    assert c[1, 2] == pytest.approx(-c2 * s2, abs=1e-9)  # {sz, sx} = 0
    assert c == pytest.approx(c.T)


def test_energy_of_the_diosi_model():
    """Noise heats: <H> = (Vpp + sigma^2 t)/2m + phi <sigma_z>; the work of the force cancels the change of the potential."""
    grid = cq.Grid(q=(-8, 8, 100), p=(-11, 11, 140))
    w = 0.3
    ds = dataset(grid, [branches(grid, t, w) for t in (0.0, 0.5, 1.0)], times=[0.0, 0.5, 1.0])
    model = cq.models.linear_diosi()
    exact = [(0.16 + t) / 2 + 2.0 * (1 - 2 * w) for t in (0.0, 0.5, 1.0)]
    assert ds.cq.energy(model).values == pytest.approx(exact, abs=1e-8)
    general = cq.Model(("q", "p"), 2, H=lambda z: [[2 * z.q + 2, 0], [0, -2 * z.q - 2]])
    assert ds.cq.energy(general, H_C=lambda z: z.p**2 / 2).values == pytest.approx(exact, abs=1e-8)
    with pytest.raises(OptionError, match="H_C"):
        ds.cq.energy(general)
    with pytest.raises(OptionError, match="model: is needed"):
        ds.cq.energy()
    with pytest.raises(OptionError, match="2 levels"):
        ds.cq.energy(cq.Model(("q", "p"), 3))


def test_current_obeys_the_continuity_equation():
    """-div j against the time derivative of the exact density, by central differences in time; planted: a wrong sign of the force."""
    grid = cq.Grid(q=(-8, 8, 120), p=(-11, 11, 160))
    h = 1e-4
    f = lambda t: np.trace(branches(grid, t, 0.3)).real
    change = (f(0.6 + h) - f(0.6 - h)) / (2 * h)
    ds = dataset(grid, [branches(grid, 0.6, 0.3)], times=[0.6])
    j = ds.cq.current(cq.models.linear_diosi())
    assert j.dims == ("t", "axis", "q", "p")
    divergence = lambda j: sum(_fourier_derivative(j.values[0, k], grid.axes[k].spacing, k) for k in (0, 1))
    scale = np.abs(change).max()
    assert np.abs(divergence(j) + change).max() < 1e-4 * scale
    # moments of the current: int j_q = <p>/m, int j_p = <force> = -2 lam <sigma_z>
    total = j.sum(["q", "p"]).values[0] * grid.cell_volume
    assert total == pytest.approx([-0.6 * 2 * 0.4, -2 * 0.4], abs=1e-9)
    assert np.abs(divergence(ds.cq.current(cq.models.linear_diosi(lam=-1))) + change).max() > 0.3 * scale


def _fourier_derivative(values, spacing, axis):
    k = 2j * np.pi * np.fft.fftfreq(values.shape[axis], spacing)
    return np.fft.ifft(np.fft.fft(values, axis=axis) * k.reshape([-1 if a == axis else 1 for a in range(values.ndim)]), axis=axis).real


def test_current_of_periodic_and_short_axes():
    grid = cq.Grid(x=(0, 2 * np.pi, 40, "periodic"), y=(0, 1, 5, "reflecting"))
    x = grid.axes[0].centers
    f = (1 + 0.5 * np.cos(x))[:, None] * np.ones(5) / (2 * np.pi)
    ds = dataset(grid, [f[None, None].astype(complex)])
    model = cq.Model(("x", "y"), 1, D1C={"x": lambda z: np.sin(z.x)}, D2={"x": 0.3, "y": 0.2})
    exact = (np.sin(x) * (1 + 0.5 * np.cos(x)) + 0.3 * 0.5 * np.sin(x)) / (2 * np.pi)
    assert ds.cq.current(model).values[0, 0] == pytest.approx(np.tile(exact[:, None], 5), abs=1e-7)
    assert np.abs(ds.cq.current(model).values[0, 1]).max() < 1e-12


def test_saved_observables_equal_those_of_the_fields():
    model = cq.models.linear_diosi()
    grid = cq.Grid(q=(-6, 6, 32), p=(-9, 9, 48))
    rho0, times = cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 0.1, 0.2]
    texts = [
        "density", "marginal q", "operator_marginal p", "populations q", "coherence q levels=0,1", "bloch q", "unconditioned_state", "conditional_state q=0.3",
        "conditional_state q=0:1 p=0.5", "probability q=0:", "expect q*sigmaz", "expect p**2", "moment q p", "moment q operator=sigmaz", "mean",
        "covariance q p", "energy", "current", "purity unconditioned", "entropy mutual", "entropy total axes=q", "mutual_information",
    ]  # fmt: skip
    full = cq.solve(model, rho0, times, grid_error=False, tol=1e-2)
    part = cq.solve(model, rho0, times, grid_error=False, tol=1e-2, save=texts, frames=[0.2])
    assert part.sizes["t_frame"] == 1 and part.sizes["t"] == 3
    kept = [v for v in part.data_vars if v not in full]
    assert len(kept) == len(texts)
    for name, text in zip(kept, texts, strict=True):
        again = cq.observables.read_observable(text, grid.names, model)(full)
        assert np.allclose(part[name].values, again.values, atol=1e-12, equal_nan=True), text
        assert str(name).isidentifier()
    named = cq.solve(model, rho0, times, grid_error=False, tol=1e-2, save={"z": "expect sigmaz", "n": lambda s: s.cq.density().sum()})
    assert {"z", "n"} <= set(named.data_vars)


@pytest.mark.parametrize(
    ("save", "words"),
    [
        ("densty", "Did you mean 'density'"), ("marginal x", "classical coordinate"), ("expect sigmaq", "sigmaq"), ("expect", "needs an operator"),
        ("expect tensor(sigmaz,sigmaz)", "shape"), ("purity of=total", "known kinds"), ("conditional_state q=99", "inside"), ("density q", "word"),
        ("entropy kind=total", "arguments"), ("conditional_state q=a", "number"), (["mean", "mean"], "free name"), ({"rho": "density"}, "free name"),
        ([3], "callable"),
    ],
)  # fmt: skip
def test_bad_observables_are_refused_before_the_run(save, words):
    grid = cq.Grid(q=(-6, 6, 32), p=(-9, 9, 48))
    with pytest.raises(OptionError, match=words):
        cq.solve(cq.models.linear_diosi(), cq.gaussian(grid, 0, 0.5, cq.ket("+")), [0, 1], save=save)


def test_accessor_suggests_names_and_frames_are_found(solution):
    with pytest.raises(AttributeError, match="Did you mean 'density'"):
        _ = solution.cq.densty
    assert float(solution.cq.frame(0.9).t) == 1.0 and float(solution.cq.frame().t) == 1.0
    with pytest.raises(OptionError, match=r"\[0, 1\]"):
        solution.cq.frame(3.0)


def test_qutip_in_and_out(solution):
    import qutip
    import sympy

    state = solution.cq.to_qobj(q=0.7)
    assert state.isherm and state.tr() == pytest.approx(1)
    assert qutip.expect(qutip.sigmaz(), solution.cq.to_qobj(t=1)) == pytest.approx(float(solution.cq.expect(cq.sigmaz())[-1]), abs=1e-12)
    q, p = sympy.symbols("q p", real=True)
    terms = [(q, qutip.sigmaz()), (0.5, qutip.sigmax()), qutip.sigmay()]
    one = cq.healed(("q", "p"), p**2 / 2, cq.from_qobj(terms), {"p": 1.0})
    two = cq.healed(("q", "p"), p**2 / 2, q * cq.sigmaz() + cq.sigmax() / 2 + cq.sigmay(), {"p": 1.0})
    grid = cq.Grid(q=(-6, 6, 24), p=(-6, 6, 24))
    for a, b in zip(vars(one.canonical(grid.mesh(), 0.0)).values(), vars(two.canonical(grid.mesh(), 0.0)).values(), strict=True):
        assert a is b is None or np.allclose(np.asarray(a, dtype=object).astype(complex) if not isinstance(a, list) else a[1], b if not isinstance(b, list) else b[1])
    with pytest.raises(cq.CqpdeError, match="one size"):
        cq.from_qobj([qutip.sigmaz(), qutip.qeye(3)])
    pair = dataset(cq.Grid(x=(-4, 4, 20)), [times_state(normal(cq.Grid(x=(-4, 4, 20)), {"x": 0}, {"x": 0.8}), random_state(4, 3))])
    assert pair.cq.to_qobj(dims=[2, 2]).ptrace(0).shape == (2, 2)
    with pytest.raises(OptionError, match="4 levels"):
        pair.cq.to_qobj(dims=[2, 3])
