"""Ensembles as objects: the same bits for any number of threads, storage, files, extension, ends of axes, two-time functions, refusals."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.special import erf

import cqpde as cq
from cqpde.errors import CqpdeError, ModelError, OptionError, SolverError, StateError
from cqpde.unravelling.plan import CHUNK

from . import ensembles

GRID = cq.Grid(q=(-6, 6, 24), p=(-9, 9, 24))
DIOSI = cq.models.linear_diosi()


def start():
    return cq.gaussian(GRID, 0.0, 0.4, cq.ket("+"))


def same(a, b):
    return set(a.data_vars) == set(b.data_vars) and all(np.array_equal(a[v].values, b[v].values, equal_nan=True) for v in a.data_vars)


# -- reproducibility -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["instrument", "euler-maruyama", "weak-2", "linear"])
def test_bits_do_not_depend_on_threads(method):
    make = lambda threads, seed=3: cq.unravel(
        DIOSI, start(), [0, 0.2], trajectories=3 * CHUNK + 100, seed=seed, method=method, dt=0.05, threads=threads, bias=True
    )
    one = make(1)
    assert same(one, make(2)) and same(one, make(5))
    assert not same(one, make(1, seed=4))
    for name in ("seed", "chunk", "dt", "method", "versions", "trajectories"):
        assert name in one.attrs


def test_bits_do_not_depend_on_the_process(tmp_path):
    script = (
        "import sys, cqpde as cq\n"
        "g = cq.Grid(q=(-6, 6, 24), p=(-9, 9, 24))\n"
        "e = cq.unravel(cq.models.linear_diosi(), cq.gaussian(g, 0.0, 0.4, cq.ket('+')), [0, 0.2], trajectories=5000, seed=3, dt=0.05)\n"
        "cq.save(e, sys.argv[1])\n"
    )
    files = [tmp_path / "1.nc", tmp_path / "2.nc"]
    for n, path in zip("12", files, strict=True):
        subprocess.run([sys.executable, "-c", script, str(path)], env=os.environ | {"NUMBA_NUM_THREADS": n, "OMP_NUM_THREADS": n}, check=True)
    assert same(cq.load(files[0]), cq.load(files[1]))


def test_extension_continues_the_ensemble():
    options = {"seed": 3, "dt": 0.05, "bias": True, "moments": {"fourth": lambda z, rho: z.p**4}}
    whole = cq.unravel(DIOSI, start(), [0, 0.2], trajectories=2 * CHUNK + 50, **options)
    half = cq.unravel(DIOSI, start(), [0, 0.2], trajectories=CHUNK, **options)
    joined = cq.extend(half, DIOSI, start(), CHUNK + 50, moments=options["moments"])
    assert joined.attrs["trajectories"] == 2 * CHUNK + 50 and joined.attrs["chunks"] == 3
    for name in whole.data_vars:
        assert np.allclose(joined[name], whole[name], rtol=1e-9, atol=1e-12), name
    with pytest.raises(OptionError, match="this model"):
        cq.extend(half, cq.models.linear_diosi(lam=1.001), start(), 10, moments=options["moments"])
    with pytest.raises(OptionError, match="functions of the ensemble"):
        cq.extend(half, DIOSI, start(), 10)


# -- files ---------------------------------------------------------------------------------------------------------------
def test_files_round_trip_and_pass_the_cf_checker(tmp_path):
    grid = cq.Grid(x=(0, 4, 20, ("absorbing", "open")))
    model = cq.Model(("x",), 2, H=cq.sigmax(), L=cq.sigmaz(), D1=[[0.5]], D2=[[0.5]], D0="saturated")
    ens = cq.unravel(
        model, cq.gaussian(grid, 1.5, 0.25, cq.ket("0")), [0, 0.25, 0.5], trajectories=300, seed=1, dt=0.05, store=2, stored=7, arrivals=True,
        bias=True, moments={"cube": lambda z, rho: z.x**3},
    )  # fmt: skip
    assert ens.path_x.shape == (7, 9) and ens.path_rho.shape == (7, 9, 2, 2) and ens.sizes["arrival"] > 0
    cq.save(ens, tmp_path / "e.nc")
    back = cq.load(tmp_path / "e.nc")
    assert same(ens, back) and {k: v for k, v in back.attrs.items() if k != "history"} == dict(ens.attrs)
    command = os.path.join(os.path.dirname(sys.executable), "compliance-checker")
    run = subprocess.run([command, "--test", "cf:1.11", str(tmp_path / "e.nc")], capture_output=True, text=True)
    assert "All tests passed" in run.stdout, run.stdout + run.stderr
    from cqpde.io import describe

    assert "ensemble" in describe(tmp_path / "e.nc") and "instrument" in describe(tmp_path / "e.nc")


# -- ends of axes --------------------------------------------------------------------------------------------------------
def _wall(boundary):
    grid = cq.Grid(x=(0, 12, 60, (boundary, "open")))
    model = cq.Model(("x",), 2, L=cq.sigmaz(), D1=[[0.25]], D2=[[0.5]], D0="saturated")
    return model, cq.gaussian(grid, 1.5, 0.2, cq.projector(cq.ket("0")))


@pytest.mark.parametrize(("method", "dt"), [("instrument", 0.1), ("euler-maruyama", 0.02)])
def test_absorption_has_the_law_of_first_passage(method, dt):
    """|0> drifts at 2 D1 = 1/2 with unit noise: P(hit 0 before t) in closed form, averaged over the start."""
    model, rho0 = _wall("absorbing")
    ens = cq.unravel(model, rho0, [0, 1.0, 2.0], trajectories=16384, seed=2, method=method, dt=dt, arrivals=True)
    phi = lambda u: 0.5 * (1 + erf(u / 2**0.5))
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    a = 1.5 + 0.2 * nodes
    for k, t in ((1, 1.0), (2, 2.0)):
        law = phi((-a - 0.5 * t) / t**0.5) + np.exp(-2 * 0.5 * a) * phi((-a + 0.5 * t) / t**0.5)
        exact = float(weights @ law / weights.sum())
        found = float(ens.escaped[k, 0, 0, 0].real)
        error = (exact * (1 - exact) / 16384) ** 0.5
        assert abs(found - exact) < 4 * error, (found, exact)
        missed = float(weights @ phi((-a - 0.5 * t) / t**0.5) / weights.sum())
        assert abs(found - missed) > 12 * error  # as if only those beyond the end at t counted
        assert abs(float(ens.moments[k, 0].sum("operator")) + found - 1) < 1e-12
    assert ens.sizes["arrival"] == round(16384 * float(ens.escaped[2, 0, 0, 0].real))
    assert np.all(ens.arrival_x == 0) and np.all(ens.arrival_face == 0)
    early = float((ens.arrival_time < 1.0).mean()) * float(ens.escaped[2, 0, 0, 0].real)
    assert abs(early - float(ens.escaped[1, 0, 0, 0].real)) < 1e-9


def test_a_reflecting_end_keeps_everything_inside():
    model, rho0 = _wall("reflecting")
    ens = cq.unravel(model, rho0, [0, 2.0], trajectories=8192, seed=2, dt=0.01)
    sol = cq.solve(model, rho0, [0, 2.0], grid_error=False, tol=1e-4)
    assert float(ens.outside[-1, 0]) == 0
    difference = float(ens.moments[-1, 1, 0] - sol.cq.moment("x")[-1])
    assert abs(difference) < 4 * float(np.sqrt(ens.covariance[-1, 1, 0, 1, 0] / 8192)) + 0.02
    free = cq.unravel(model, cq.gaussian(cq.Grid(x=(-12, 12, 60)), 1.5, 0.2, cq.ket("0")), [0, 2.0], trajectories=8192, seed=2, dt=0.05)
    assert abs(float(free.moments[-1, 1, 0] - sol.cq.moment("x")[-1])) > 0.06


def test_periodic_and_specular_ends():
    drift = cq.Model(("q", "p"), 1, D1C={"q": lambda z: z.p}, D2={"p": 1e-12})
    grid = cq.Grid(q=(-1, 1, 20, "specular(p)"), p=(-4, 4, 20))
    ens = cq.unravel(drift, cq.gaussian(grid, {"p": 2.0}, {"q": 0.1, "p": 0.3}, [1.0]), [0, 1.0], trajectories=500, seed=1, dt=0.01, store=100)
    first, last = ens.path_q.values[:, 0], ens.path_q.values[:, -1]
    p0, p1 = ens.path_p.values[:, 0], ens.path_p.values[:, -1]
    unfolded = first + p0
    folded = np.where(unfolded > 1, 2 - unfolded, unfolded)
    once = unfolded < 3
    assert np.allclose(last[once], folded[once], atol=0.06) and np.allclose(p1[once & (unfolded > 1.1)], -p0[once & (unfolded > 1.1)], atol=1e-4)
    ring = cq.Grid(q=(-1, 1, 20, "periodic"), p=(-4, 4, 20))
    ens = cq.unravel(drift, cq.gaussian(ring, {"p": 2.0}, {"q": 0.1, "p": 0.3}, [1.0]), [0, 1.0], trajectories=500, seed=1, dt=0.05, store=20)
    assert np.allclose(ens.path_q.values[:, -1], (ens.path_q.values[:, 0] + ens.path_p.values[:, 0] + 1) % 2 - 1, atol=1e-4)


# -- initial states --------------------------------------------------------------------------------------------------------
def test_starts_are_drawn_from_the_state_itself():
    """A Gaussian, a function and an array: means and covariances of the start; the array's are those of its cells."""
    grid = cq.Grid(x=(-4, 4, 16))
    model = cq.Model(("x",), 2, D2=[[0.5]])
    turned = lambda z: [np.cos(z.x), np.sin(z.x)]
    states = {
        "gaussian": cq.gaussian(grid, 0.3, 0.6, turned),
        "function": cq.product(grid, lambda z: np.exp(-0.5 * ((z.x - 0.3) / 0.6) ** 2), turned),
        "array": cq.from_array(grid, cq.gaussian(grid, 0.3, 0.6, turned).rho),
    }
    for name, state in states.items():
        ens = cq.unravel(model, state, [0, 0.1], trajectories=40960, seed=1, dt=0.1)
        m = ens.moments.values[0]
        mean, square = m[1, :2].sum(), m[2, :2].sum()
        assert abs(mean - 0.3) < 4 * 0.6 / 40960**0.5
        assert abs(square - 0.09 - 0.36) < 4 * 0.65 / 40960**0.5
        coherence = 0.5 * np.sin(2 * 0.3) * np.exp(-2 * 0.36)
        assert abs(m[0, 2] - coherence) < 4 * 0.36 / 40960**0.5 + (2e-3 if name == "array" else 0)
        assert ens.attrs["quantum_state"] == "ket"


def test_histograms_are_those_of_the_density():
    ens = cq.unravel(DIOSI, start(), [0, 1.0], trajectories=20480, seed=1, dt=0.05)
    exact = cq.models.linear_diosi_exact(GRID, 1.0)
    p = np.real(exact[0, 0]).sum(axis=0) * GRID.spacings[0]
    found = ens.rho_marginal_p.values[-1, 0, 0].real
    assert np.abs(found - p).max() < 0.02 and np.abs(ens.rho_marginal_p.values[-1, 1, 1].real - p).max() > 0.15
    assert float(ens.visits_p[-1].sum() + ens.outside[-1, 2:].sum()) == 20480


def test_the_whole_distribution_is_gathered_cell_by_cell(tmp_path):
    """``field=True``: rho(z, t) of the ensemble, on which every observable works; extended and stored like the rest."""
    options = {"seed": 1, "dt": 0.05, "field": True}
    ens = cq.unravel(DIOSI, start(), [0, 1.0], trajectories=CHUNK, **options)
    ens = cq.extend(ens, DIOSI, start(), 4 * CHUNK)
    once = cq.unravel(DIOSI, start(), [0, 1.0], trajectories=5 * CHUNK, **options)
    assert np.allclose(ens.rho, once.rho, rtol=1e-9, atol=1e-12)
    exact = np.real(cq.models.linear_diosi_exact(GRID, 1.0)[0, 0])
    found = ens.rho.values[-1, 0, 0].real
    noise = np.sqrt(np.maximum(exact, 1e-4) / (5 * CHUNK * GRID.cell_volume))
    assert np.abs(found - exact).max() < 6 * noise.max() + 0.01
    assert np.abs(found - exact[:, ::-1]).max() > 0.1
    assert np.allclose(ens.cq.marginal("p"), np.real(np.einsum("taap->tp", ens.rho_marginal_p.values)), atol=1e-12)
    assert float(ens.cq.moment("")[-1]) == pytest.approx(1.0, abs=2e-3)
    cq.save(ens, tmp_path / "e.nc")
    assert same(ens, cq.load(tmp_path / "e.nc"))


@pytest.mark.parametrize(("method", "dt"), [("instrument", 0.1), ("weak-2", 0.05), ("euler-maruyama", 0.005)])
def test_coefficients_that_depend_on_time(method, dt):
    """Drift cos t, drive f(t) sigma_x, noise s(t): mean, variance and Rabi angle are integrals over time."""
    import sympy

    t = sympy.symbols("t", real=True)
    grid = cq.Grid(x=(-8, 8, 32))
    model = cq.Model(("x",), 2, H=[[0, t], [t, 0]], D1C=[sympy.cos(2 * t)], D2=[[(1 + t) / 4]])
    called = cq.Model(("x",), 2, H=lambda z, t: [[0, t], [t, 0]], D1C=[lambda z, t: np.cos(2 * t)], D2=[[lambda z, t: (1 + t) / 4]])
    for m in (model, called):
        ens = cq.unravel(m, cq.gaussian(grid, 0.0, 0.5, cq.ket("0")), [0, 1.0], trajectories=16384, seed=1, method=method, dt=dt)
        x = ens.moments.values[-1]
        assert abs(x[0, 0] - np.cos(0.5) ** 2) < 5e-3 and abs(x[0, 0] - np.cos(1.0) ** 2) > 0.1
        mean, square = x[1, :2].sum(), x[2, :2].sum()
        assert abs(mean - 0.5 * np.sin(2.0)) < 4 * 1.0 / 128 + 5e-3
        assert abs(square - mean**2 - 0.25 - 0.75) < 4 * 1.0 * 2**0.5 / 128 + 5e-3


# -- two-time functions ----------------------------------------------------------------------------------------------------
def test_two_time_correlation_and_spectrum_of_the_record():
    """Ornstein-Uhlenbeck at rest: exp(-|t - t'|) / 2; white noise has a flat spectrum s, a force on top its square at zero."""
    grid = cq.Grid(x=(-5, 5, 20))
    model = cq.Model(("x",), 1, D1C=[lambda z: -z.x], D2=[[0.5]])
    ens = cq.unravel(model, cq.gaussian(grid, 0.0, 0.5**0.5, [1.0]), [0, 1.0], trajectories=8192, seed=1, dt=0.1, store=1)
    c = cq.correlation(ens, "x")
    t = ens.t_path.values
    assert np.abs(c - 0.5 * np.exp(-np.abs(t[:, None] - t[None, :]))).max() < 0.03
    white = cq.Model(("x",), 2, L=cq.sigmaz(), D1=[[0.5]], D2=[[0.4]], D0="saturated")
    ens = cq.unravel(white, cq.gaussian(grid, 0.0, 0.5, cq.ket("0")), [0, 2.0], trajectories=4096, seed=1, dt=0.1, store=1)
    s = cq.spectrum(ens, "x")
    assert np.all(np.abs(s[1:] - 0.8) < 5 * s.standard_error[1:])
    assert abs(float(s[0]) - (0.8 + 1.0**2 * 2.0)) < 5 * float(s.standard_error[0])
    with pytest.raises(OptionError, match="Stored: x"):
        cq.correlation(ens, "y")


def test_no_classical_dynamics_is_qutip_s_master_equation():
    """Fixed z: averages are those of mesolve, and of smesolve's equation with the record in a coordinate that drives nothing."""
    qutip = pytest.importorskip("qutip", reason="QuTiP is the independent code here: pip install qutip")
    h, monitored, lost = 0.7 * cq.sigmax() + 0.2 * cq.sigmaz(), 0.6 * cq.sigmaz(), 0.5 * cq.sigmam()
    model = cq.Model(("y",), 2, H=h, L=[monitored, lost], D1=[[1.0, 0]], D2=[[0.5]], D0=[[1.0, 0], [0, 1.0]])
    grid = cq.Grid(y=(-10, 10, 40))
    t = np.linspace(0, 2, 5)
    exact = qutip.mesolve(qutip.Qobj(h), qutip.basis(2, 0), t, [qutip.Qobj(monitored), qutip.Qobj(lost)]).states
    for method, dt in (("instrument", 0.1), ("euler-maruyama", 0.005)):
        ens = cq.unravel(model, cq.gaussian(grid, 0.0, 0.5, cq.ket("0")), t, trajectories=8192, seed=1, method=method, dt=dt)
        for k in range(5):
            rho = exact[k].full()
            x = np.array([rho[0, 0].real, rho[1, 1].real, rho[0, 1].real, rho[0, 1].imag])
            error = np.sqrt(np.diagonal(ens.covariance.values[k, 0, :, 0, :]) / 8192)
            assert np.all(np.abs(ens.moments.values[k, 0] - x) < 4.5 * error + 1e-6)
    stochastic = qutip.smesolve(
        qutip.Qobj(h), qutip.basis(2, 0), t, c_ops=[qutip.Qobj(lost)], sc_ops=[qutip.Qobj(monitored)], e_ops=[qutip.Qobj(cq.sigmaz())],
        ntraj=200, options={"dt": 0.02, "progress_bar": "", "keep_runs_results": True}, seeds=5,
    )  # fmt: skip
    purity_like = np.array(stochastic.runs_expect[0])[:, -1]
    ours = cq.unravel(
        model, cq.gaussian(grid, 0.0, 0.5, cq.ket("0")), t, trajectories=8192, seed=1, dt=0.1,
        moments={"square": lambda z, rho: (rho[:, 0, 0].real - rho[:, 1, 1].real) ** 2},
    )  # fmt: skip
    theirs, spread = float(np.mean(purity_like**2)), float(np.std(purity_like**2)) / 200**0.5
    assert abs(float(ours.square[-1]) - theirs) < 4.5 * spread + 4 * float(ours.square_std[-1]) / 8192**0.5
    blind = float(ours.moments[-1, 0, 0] - ours.moments[-1, 0, 1]) ** 2
    assert abs(blind - theirs) > 6 * spread  # what no monitoring at all would give


# -- refusals ------------------------------------------------------------------------------------------------------------
def test_refusals_come_before_any_work():
    rho0 = start()
    mixed = cq.gaussian(GRID, 0.0, 0.4, np.eye(2) / 2)
    for options, kind, message in (
        ({"method": "euler-maruyma"}, OptionError, "Did you mean 'euler-maruyama'"),
        ({"trajectories": 0}, OptionError, "trajectories: must be an integer"),
        ({"seed": -1}, OptionError, "seed"),
        ({"dt": 0.0}, OptionError, "dt: must be a positive"),
        ({"t": [0.0]}, OptionError, "two finite ascending"),
        ({"state": "vector"}, OptionError, "known form"),
        ({"stored": 5}, OptionError, "no effect without store"),
        ({"moments": {"a": 3}}, OptionError, "must be a callable"),
        ({"moments": 3}, OptionError, "dict of callables"),
        ({"moments": {"purity": lambda z, rho: z.q}}, OptionError, "name of another variable"),
        ({"dt": True}, OptionError, "dt: must be a positive"),
        ({"dt": 1e-9}, OptionError, "1e7 steps"),
        ({"rho0": mixed, "state": "ket"}, OptionError, "start is mixed"),
        ({"model": cq.models.linear_diosi(excess=1.0), "state": "ket"}, OptionError, "beyond the trade-off"),
        ({"rho0": 3}, StateError, "must be a State"),
        ({"model": 3}, OptionError, "cqpde.Model"),
        ({"threads": 0}, OptionError, "threads"),
    ):
        arguments = {"model": DIOSI, "rho0": rho0, "t": [0.0, 0.1]} | options
        with pytest.raises(kind, match=message):
            cq.unravel(arguments.pop("model"), arguments.pop("rho0"), arguments.pop("t"), **arguments)
    with pytest.raises(OptionError, match="one real number per trajectory"):
        cq.unravel(DIOSI, rho0, [0, 0.1], trajectories=10, dt=0.1, moments={"bad": lambda z, rho: rho})


def test_unphysical_models_have_no_trajectories():
    """Also with check='off', where the grid solver runs: negative excess, or back-reaction without noise."""
    grid = cq.Grid(x=(-4, 4, 20))
    rho0 = cq.gaussian(grid, 0.0, 0.5, cq.ket("+"))
    short = cq.Model(("x",), 2, L=cq.sigmaz(), D1=[[0.5]], D2=[[0.5]], D0=[[0.2]], check="off")
    with pytest.raises(ModelError, match="has trajectories only if D0"):
        cq.unravel(short, rho0, [0, 0.1], trajectories=10)
    silent = cq.Model(("x",), 2, L=cq.sigmaz(), D1=[[0.5]], D2=[[0.0]], D0=[[0.3]], check="off")
    with pytest.raises(ModelError, match="needs noise"):
        cq.unravel(silent, rho0, [0, 0.1], trajectories=10)


def test_a_trajectory_that_explodes_stops_the_run():
    model = cq.Model(("x",), 2, D1C=[lambda z: z.x**3], D2=[[0.5]])
    grid = cq.Grid(x=(-8, 8, 40))
    with pytest.raises(SolverError, match="every trajectory must stay finite"):
        cq.unravel(model, cq.gaussian(grid, 3.0, 0.5, cq.ket("0")), [0, 1.0], trajectories=100, seed=1, dt=0.01, method="euler-maruyama")
    assert issubclass(SolverError, CqpdeError)


def test_memory_does_not_grow_with_the_ensemble():
    """Peak of what is held while 16 chunks run is that of 4 (statistics are merged as they come)."""
    import tracemalloc

    peaks = []
    for chunks in (4, 16):
        tracemalloc.start()
        cq.unravel(DIOSI, start(), [0, 0.1], trajectories=chunks * CHUNK, seed=1, dt=0.1, threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_user_callables_and_expressions_give_the_same_trajectories():
    """Callables that take symbols are compiled like expressions; one that does not is evaluated by NumPy, and the result says so."""
    import sympy

    q, p = sympy.symbols("q p", real=True)
    shared = {"L": [cq.sigmaz(), cq.sigmam()], "D0": [[0.25, 0], [0, 0.2]], "D1": {"p": [-0.5, 0]}, "D2": {"p": 0.5}}
    symbolic = cq.Model(("q", "p"), 2, H=[[q, 0.5], [0.5, -q]], D1C={"q": p, "p": -q}, **shared)
    models = [
        cq.Model(("q", "p"), 2, H=lambda z, half=half: [[z.q, half(z)], [half(z), -z.q]], D1C={"q": lambda z: z.p, "p": lambda z: -z.q}, **shared)
        for half in (lambda z: 0.5, lambda z: 0.5 + 0 * np.cos(z.q), lambda z: 0.5 if isinstance(z.q, sympy.Symbol) else 0.5 + 1e-3 * z.q**2)
    ]
    for method in ("instrument", "euler-maruyama", "weak-2"):
        a, b, c, d = (cq.unravel(m, start(), [0, 0.5], trajectories=500, seed=1, dt=0.05, method=method) for m in (symbolic, *models))
        assert a.attrs["coefficients"] == b.attrs["coefficients"] == "affine, compiled"
        assert c.attrs["coefficients"] == "NumPy at the points (H not affine in z)"
        assert np.array_equal(a.moments, b.moments) and np.allclose(a.moments, c.moments, rtol=0, atol=1e-10)
        assert d.attrs["coefficients"].startswith("NumPy") and not np.allclose(a.moments, d.moments, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["instrument", "euler-maruyama"])
@pytest.mark.parametrize("sigma", [{"p": 1.0}, {"q": 0.5, "p": 0.8}])
def test_many_steps_at_a_time_are_the_steps_one_by_one(method, sigma):
    """Keeping a path makes the run stop at every step; a sigma_x coupling, a drive and a trap leave nothing diagonal."""
    model = ensembles.trapped_qubit(**sigma)
    options = {"trajectories": 700, "seed": 1, "dt": 0.02, "method": method, "bias": True}
    many = cq.unravel(model, start(), [0, 0.3, 1.0], **options)
    single = cq.unravel(model, start(), [0, 0.3, 1.0], store=1000, stored=1, **options)
    for name in ("moments", "extrapolated", "bias", "covariance", "visits_q"):
        assert np.allclose(many[name], single[name], rtol=0, atol=1e-11), name
