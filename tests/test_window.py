"""Moving windows: against closed forms and fixed boxes, within the errors that the result states; what a window loses is counted."""

from __future__ import annotations

import numpy as np
import pytest
import sympy

import cqpde as cq
from cqpde import stretches
from cqpde.cli import main
from cqpde.errors import ModelError, OptionError, SolverError
from cqpde.models.linear_diosi import linear_diosi_exact
from cqpde.windows import Lattice, Window, following, moved, occupied

from .interrupted import assert_same_bits, stopped_and_resumed, stopping
from .models import integrated_trace_norm
from .references import gaussian

X, Q, P, T = sympy.symbols("x q p t", real=True)

#: Round-off of copies, and of probability that is added up.
ROUND_OFF = 1e-12

DIOSI = {"m": 1.0, "lam": 0.1, "phi": 0.5, "sigma": 0.3}


def diosi_start(h: float = 0.125, p0: float = 40.0) -> cq.State:
    grid = cq.Grid(q=(-24 * h, 24 * h, 48), p=(p0 - 2, p0 + 2, 48))
    return cq.gaussian(grid, {"q": 0, "p": p0}, {"q": 0.4, "p": 0.3}, cq.ket("+"))


def stated(moving: cq.MovingSolution, k: int) -> float:
    """The error that a result states at an output (without that of the cells where it was not asked for)."""
    return float(np.nansum([moving.dataset[name].values[k] for name in ("time_error", "grid_error", "window_error")]))


def on(sol, grid: cq.Grid) -> np.ndarray:
    """The field of one time on a fixed box of the same lattice."""
    own = sol.cq.grid
    first = tuple(round((a.lower - b.lower) / b.spacing) for a, b in zip(own.axes, grid.axes, strict=True))
    return moved(sol.rho.values[0], Window(first, own.shape), Window((0,) * grid.ndim, grid.shape))[0]


def differences(moving: cq.MovingSolution, fixed, grid: cq.Grid) -> list[float]:
    return [integrated_trace_norm(on(sol, grid) - fixed.rho.values[k], grid) for k, sol in enumerate(moving)]


@pytest.fixture(scope="module")
def packet() -> cq.MovingSolution:
    return cq.follow(cq.models.linear_diosi(**DIOSI), diosi_start(), [0, 1, 2, 4], tol=1e-6, save=["purity", "expect q*sigmaz"])


def test_a_packet_that_drifts_over_many_widths_is_the_closed_form_within_the_stated_error(packet):
    reached = []
    for k, sol in enumerate(packet):
        t, grid = float(sol.t[0]), sol.cq.grid
        exact = linear_diosi_exact(grid, t, (0, 40), (0.4, 0.3), **DIOSI)
        error = integrated_trace_norm(sol.rho.values[0] - exact, grid)
        assert error <= stated(packet, k) + 1e-9  # the initial Gaussian is normalised on its own box
        assert error < 1e-7
        shifted = linear_diosi_exact(grid, t, (grid.spacings[0], 40), (0.4, 0.3), **DIOSI)
        assert integrated_trace_norm(sol.rho.values[0] - shifted, grid) > 1e-2  # a cell off would be seen
        np.testing.assert_allclose(sol.cq.mean().values[0], [40 * t, 40], atol=1e-6)
        reached.append(grid.axis("q").upper)
    widest = max(g.axis("q").n for g in map(packet.window, packet.t.values))
    assert reached[-1] > 160 and widest * 0.125 < 0.3 * 160
    assert packet.attrs["stretches"] > 10
    np.testing.assert_allclose(packet.probability(), 1.0, rtol=0, atol=ROUND_OFF)
    assert float(packet.dataset.window_error[-1]) > 10 * ROUND_OFF  # and it is not the whole that was kept


def test_moments_and_observables_are_those_of_the_fields(packet):
    for name, kept in (("mean", packet.mean()), ("covariance", packet.covariance()), ("purity", packet.dataset.purity), ("expect q*sigmaz", packet.dataset.expect_q_sigmaz)):
        np.testing.assert_allclose(packet.series(name).values, kept.values, rtol=1e-9, atol=1e-11)
    t = packet.t.values
    np.testing.assert_allclose(packet.covariance().values[:, 1, 1], 0.09 + 0.09 * t + (2 * 0.1 * t) ** 2, atol=1e-6)
    with pytest.raises(OptionError, match="must not depend on coordinates"):
        packet.series("marginal q")
    with pytest.raises(OptionError, match="times of the full fields"):
        packet.at(5.0)


def test_what_the_windows_leave_out_is_the_error_and_never_normalised_away():
    """With a narrow margin the loss is the largest error: what is stated holds with it, and would not without."""
    model = cq.models.linear_diosi(**DIOSI)
    moving = cq.follow(model, diosi_start(0.25), [0, 1], tol=0.1, margin=3.0)
    sol = moving.at()
    inside = integrated_trace_norm(sol.rho.values[0] - linear_diosi_exact(sol.cq.grid, 1.0, (0, 40), (0.4, 0.3), **DIOSI), sol.cq.grid)
    lost = float(np.trace(sol.window_loss.values[0]).real)
    assert 1e-4 < lost <= float(sol.window_error[0])
    assert float(sol.time_error[0]) + float(sol.grid_error[0]) < inside + lost <= stated(moving, 1) < 0.1
    assert float(sol.trace[0]) < 1 - 1e-4
    assert abs(float(sol.trace[0]) + lost + float(sol.escaped_probability[0]) - 1) < ROUND_OFF
    with pytest.raises(SolverError, match=r"window_error must stay within tol = 0\.001"):
        cq.follow(model, diosi_start(0.25), [0, 1], tol=1e-3, margin=1.5)


def test_a_packet_that_goes_round_in_phase_space():
    """Oscillator with noise and a coupling that pulls the levels apart, over a whole turn: Gaussians by their moment equations."""
    g, s = 0.3, 0.2
    model = cq.healed(("q", "p"), P**2 / 2 + Q**2 / 2, g * Q * cq.sigmaz(), {"p": s})
    grid = cq.Grid(q=(16, 24, 48), p=(-4, 4, 48))
    start = cq.gaussian(grid, {"q": 20, "p": 0}, 0.6, cq.ket("+"))
    moving = cq.follow(model, start, [0, 2, 2 * np.pi], tol=1e-5)
    for k, t in enumerate(moving.t.values):
        sol, box = moving.at(t), moving.window(t)
        exact = gaussian.diagonal_gaussian(
            np.full((2, 2), 0.5), [20, 0], 0.36 * np.eye(2), t, [(a.lower, a.upper) for a in box.axes], box.shape, M=[[0, 1], [-1, 0]],
            s=np.diag([0, s**2]), h=([0, 0], [[g, 0], [-g, 0]], None), a=([[0, 0], [-g / 2, g / 2]], None),
        )  # fmt: skip
        error = integrated_trace_norm(sol.rho.values[0] - exact, box)
        assert error <= stated(moving, k) + 1e-8, (t, error, stated(moving, k))
    assert moving.attrs["most_cells"] < 0.1 * (48 / 8 * 48) ** 2
    np.testing.assert_allclose(moving.probability(), 1.0, rtol=0, atol=ROUND_OFF)


def test_a_packet_that_splits_is_held_with_both_parts_or_refused():
    kw = {"m": 1.0, "lam": 3.0, "phi": 2.0, "sigma": 0.5}
    model = cq.models.linear_diosi(**kw)
    start = cq.gaussian(cq.Grid(q=(-3, 3, 48), p=(17, 23, 48)), {"q": 0, "p": 20}, 0.4, cq.ket("+"))
    moving = cq.follow(model, start, [0, 1, 2.5], tol=1e-4)
    sol, grid = moving.at(), moving.window(2.5)
    error = integrated_trace_norm(sol.rho.values[0] - linear_diosi_exact(grid, 2.5, (0, 20), (0.4, 0.4), **kw), grid)
    assert error <= stated(moving, 2)
    q = grid.axis("q").centers
    weights = sol.cq.marginal("q").values[0] * grid.axis("q").spacing
    assert abs(weights[q < 50].sum() - 0.5) < 1e-4 and abs(weights[q > 50].sum() - 0.5) < 1e-4  # 50 -+ 18.75, widths 1.6
    assert weights[abs(q - 50) < 6].sum() < 1e-3
    with pytest.raises(SolverError, match=r"window_error must stay within tol = 0\.0001"):
        cq.follow(model, start, [0, 1, 2.5], tol=1e-4, margin=2.0)


@pytest.mark.parametrize("options", [{"method": "split", "tol": 1e-5}, {"method": "split", "dt": 0.02, "tol": 1e-3}, {"method": "fv", "tol": 1e-3, "grid_error": False}])
def test_coefficients_of_time_start_at_the_time_of_each_stretch(options):
    """Driven, turned and measured, against a fixed box and the integral of the drift."""
    model = cq.Model(
        ("x",), 2, H=[[0.3 * sympy.sin(T), 0.5], [0.5, -0.3 * sympy.sin(T)]], L=cq.sigmaz(), D1=[[0.3]], D2=[[2.0]], D0="saturated", D1C=[30 + 30 * sympy.cos(T)]
    )
    start = lambda grid: cq.gaussian(grid, 0.0, 0.5, cq.ket("+"))
    small, wide, t = cq.Grid(x=(-4, 4, 64)), cq.Grid(x=(-16, 80, 768)), [0.5, 1.0, 1.5, 2.0]
    moving = cq.follow(model, start(small), t, **options)
    fixed = cq.solve(model, start(wide), t, **options)
    for k, apart in enumerate(differences(moving, fixed, wide)):
        # finite volumes do the same on all cells of one lattice: what they cost is the same on both roads
        assert apart <= stated(moving, k) + float(fixed.time_error[k]) + np.nan_to_num(float(fixed.grid_error[k])) + 1e-9
    assert moving.attrs["stretches"] >= 2
    np.testing.assert_allclose(moving.probability(), 1.0, rtol=0, atol=ROUND_OFF)
    pull = 2 * 0.3 * (np.array(t) - 0.5)  # at most: <sigma_z> is within -1 and 1
    straight = 30 * (np.array(t) - 0.5 + np.sin(t) - np.sin(0.5))
    assert np.all(np.abs(moving.mean().values[:, 0] - straight) <= pull + 1e-3)


def test_periodic_and_walled_axes_stay_whole():
    grid = cq.Grid(x=(-4, 4, 32), a=(0, 2 * np.pi, 24, "periodic"))
    model = cq.Model(("x", "a"), 2, H=0.5 * cq.sigmax(), L=cq.sigmaz(), D1={"x": [0.2]}, D2={"x": 0.2, "a": 0.1}, D0="saturated", D1C={"x": 30, "a": 1})
    moving = cq.follow(model, cq.gaussian(grid, {"x": 0, "a": 3}, 0.6, cq.ket("0")), [0, 2], tol=1e-3)
    assert moving.window(2).axis("a") == grid.axis("a") and moving.window(2).axis("x").lower > 40
    assert moving.attrs["follows"] == "x"
    box = lambda **ends: cq.Grid(**{name: (-1, 1, 8, end) for name, end in ends.items()})
    assert following(box(q="open", p="periodic", x=("open", "absorbing"))) == (True, False, False)
    assert following(box(q=("specular(p)", "open"), p="open", x="open")) == (False, False, True)
    with pytest.raises(OptionError, match="two open ends"):
        cq.follow(model, cq.gaussian(cq.Grid(x=(-4, 4, 32, "reflecting"), a=(0, 2 * np.pi, 24, "periodic")), {"x": 0, "a": 3}, 0.6, cq.ket("0")), [0, 1])


def test_a_stretch_whose_window_was_too_small_is_repeated_and_never_kept(monkeypatch, packet):
    model, predict = cq.models.linear_diosi(**DIOSI), stretches.predict
    calls = []

    def short(*args):
        """Foresees half the way, the first time."""
        time, lower, upper = predict(*args)
        calls.append(time)
        return (time, lower, upper - 0.5 * (upper - lower) * np.array([1, 0])) if len(calls) == 1 else (time, lower, upper)

    monkeypatch.setattr(stretches, "predict", short)
    start = diosi_start()
    moving = cq.follow(model, start, [0, 0.5, 1], tol=1e-4)
    assert moving.attrs["repeated"] >= 1
    sol = moving.at()
    exact = linear_diosi_exact(sol.cq.grid, 1.0, (0, 40), (0.4, 0.3), **DIOSI)
    assert integrated_trace_norm(sol.rho.values[0] - exact, sol.cq.grid) <= stated(moving, 2)
    blind = lambda model, lattice, at, begin, end, margin: (end, at.lower, at.upper)  # never sees any motion
    monkeypatch.setattr(stretches, "predict", blind)
    wind = cq.Model(("x",), 1, D2=[[0.1]], D1C=[1000.0])
    with pytest.raises(SolverError, match="may come to the ends of a window"):
        cq.follow(wind, cq.gaussian(cq.Grid(x=(-4, 4, 64)), 0.0, 0.5, [1]), [0, 1], tol=1e-4)


def test_a_move_copies_cells_and_tells_what_is_outside():
    rng = np.random.default_rng(1)
    rho = rng.normal(size=(2, 2, 7, 6)) + 0j
    there, outside = moved(rho, Window((3, -2), (7, 6)), Window((5, -4), (8, 5)))
    assert there.shape == (2, 2, 8, 5) and np.array_equal(there[:, :, :5, 2:5], rho[:, :, 2:, :3])
    assert np.isclose(there.sum() + outside.sum(), rho.sum()) and outside.shape[-1] == 42 - 15
    nothing, all_of_it = moved(rho, Window((3, -2), (7, 6)), Window((40, -2), (7, 6)))
    assert not nothing.any() and np.isclose(all_of_it.sum(), rho.sum())


def test_occupied_cells_hold_each_part_to_the_margin():
    grid = cq.Grid(x=(-40, 40, 1600))
    x = grid.axis("x").centers
    bump = lambda at, width: np.exp(-((x - at) ** 2) / (2 * width**2)) / (2 * np.pi) ** 0.5 / width
    rho = np.zeros((2, 2, 1600), dtype=complex)
    rho[0, 0], rho[1, 1] = 0.5 * bump(-20, 1.0), 0.5 * bump(20, 2.0)
    found = occupied(grid, rho, 5.0)
    outside = (x < found.lower[0]) | (x > found.upper[0])
    assert 0 < (rho[0, 0] + rho[1, 1])[outside].sum().real * grid.cell_volume < 5.8e-7  # P(|x| > 5) of a Gaussian
    assert abs(found.lower[0] + 25) < 0.3 and abs(found.upper[0] - 30) < 0.6
    np.testing.assert_allclose(found.tails[:, 0], [1, 2], rtol=0.15)
    lattice = Lattice(cq.Grid(x=(-1, 1, 10)), (True,))
    window = lattice.window(np.array([3.0]), np.array([4.1]))
    assert lattice.grid(window).axis("x").lower < 3 and lattice.grid(window).axis("x").upper > 4.1 and window.cells[0] % 2 == 0


def test_files_hold_every_window(tmp_path, packet):
    path = tmp_path / "moving.nc"
    cq.save(packet, path)
    again = cq.load(path)
    assert isinstance(again, cq.MovingSolution)
    assert {k: v for k, v in again.attrs.items() if k != "history"} == packet.attrs
    again.attrs.pop("history")
    assert packet.dataset.identical(again.dataset)
    for one, other in zip(packet, again, strict=True):
        assert one.identical(other)
    single = tmp_path / "one.nc"
    cq.save(packet.at(2.0), single)
    plain = cq.load(single)
    assert plain.cq.grid == packet.window(2.0) and float(plain.t[0]) == 2.0
    damaged = packet.dataset.copy()
    damaged["window_upper"] = damaged.window_upper + 100.0
    cq.save(damaged, path)
    with pytest.raises(cq.CqpdeError, match="windows must have from 5"):
        cq.load(path)


def test_frames_may_be_fewer_than_times():
    model = cq.models.linear_diosi(**DIOSI)
    moving = cq.follow(model, diosi_start(0.25), np.linspace(0, 1, 6), tol=1e-3, frames=[0.4, 1.0])
    assert list(moving.frames) == [0.4, 1.0] and moving.dataset.sizes["t"] == 6 and [float(s.t[0]) for s in moving] == [0.4, 1.0]
    np.testing.assert_allclose(moving.mean().values[:, 0], 40 * moving.t.values, atol=1e-3)
    np.testing.assert_allclose(moving.at(0.4).cq.mean().values[0], moving.mean().values[2], atol=1e-9)


def test_bad_input_is_refused_by_name():
    model, start = cq.models.linear_diosi(), diosi_start(p0=0.0)
    for words, arguments in (
        ("margin: must be from 1 to 30", {"margin": 0.5}),
        ("margin: must be a positive number", {"margin": "wide"}),
        ("tol: must be a number", {"tol": 2.0}),
        ("comm: does not go with a moving window", {"comm": 3}),
        ("max_walltime: needs a folder", {"max_walltime": 3.0}),
        ("methd: .*Did you mean 'method'", {"methd": "fv"}),
        ("observable: must not depend on coordinates", {"save": ["marginal q"]}),
        ("save: must not name places", {"save": ["probability q=0:"]}),
        ("save: needs a free name", {"save": ["mean"]}),
        ("frames: must be times out of t", {"frames": [0.3]}),
    ):
        with pytest.raises(OptionError, match=words):
            cq.follow(model, start, [0, 1], **arguments)
    box = cq.Grid(x=(-4, 4, 32))
    known = cq.Model(("x",), 2, H=cq.sampled(box, np.zeros((2, 2, 32))), D2=[[0.1]])
    with pytest.raises(OptionError, match="sampled on a grid"):
        cq.follow(known, cq.gaussian(box, 0.0, 0.5, cq.ket("0")), [0, 1])


def test_the_command_follows(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = """
[model]
coordinates = ["x"]
dim = 2
L = ["sigmaz"]
D1 = [[0.1]]
D2 = [[0.05]]
D0 = "saturated"
D1C = ["30*cos(t)"]
[grid]
x = [-4, 4, 64]
[initial]
mean = { x = 0.0 }
std = 0.5
state = "+"
[time]
end = 1.0
outputs = 3
[solver]
follow = true
tol = 1e-3
"""
    (tmp_path / "far.toml").write_text(text)
    assert main(["run", "far.toml", "-o", "far.nc"]) == 0
    told = capsys.readouterr().out
    assert "window error" in told and "mean x" in told
    moving = cq.load("far.nc")
    np.testing.assert_allclose(moving.mean().values[:, 0], 30 * np.sin(moving.t.values), atol=1e-3)
    assert "30*cos(t)" in moving.attrs["cqpde_config"]
    assert main(["info", "far.nc"]) == 0 and "last window" in capsys.readouterr().out
    assert main(["export", "far.nc", "--marginal", "x", "--time", "1", "-o", "x.csv"]) == 0
    assert float((tmp_path / "x.csv").read_text().splitlines()[1].split(",")[0]) > 15
    assert main(["run", "far.toml", "-o", "again.nc", "--max-walltime", "1e-9"]) == 75
    assert main(["resume", "again.nc", "-o", "again.nc"]) == 0
    assert "can be resumed" in capsys.readouterr().err and not (tmp_path / "again.nc.run").exists()
    assert np.array_equal(cq.load("again.nc").mean(), moving.mean()) and (cq.load("again.nc").dataset["rho"] == moving.dataset["rho"]).all()
    assert main(["plot", "far.nc", "--kind", "series"]) == 2
    (tmp_path / "far.toml").write_text(text.replace("follow = true", "margin = 5.0"))
    assert main(["run", "far.toml", "-o", "far.nc"]) == 2 and "follow = true" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "steps"), [({"save": ["purity", "expect q*sigmaz"], "frames": [0.0, 4.0]}, 2), ({"method": "fv", "tol": 1e-2}, 1), ({"dt": 0.02, "precision": "single", "tol": 1e-2}, 1)])
@pytest.mark.filterwarnings("ignore::cqpde.CqpdeWarning")
def test_a_stopped_run_is_resumed_to_the_last_bit(options, steps, tmp_path):
    """At the ends of its stretches, again and again; its outputs so far are handed over."""
    model, start = cq.models.linear_diosi(**DIOSI), diosi_start()
    begin = lambda **more: cq.follow(model, start, [0, 1, 2, 4] if "save" in options else [0, 0.2], **options, **more)
    again, rounds = stopped_and_resumed(begin, tmp_path / "run", steps, rounds=2 if steps > 1 else 1)
    assert rounds and again.attrs["stretches"] > steps
    assert_same_bits(again.dataset, begin().dataset)
    assert again.dataset.rho.dtype == (np.complex64 if "precision" in options else complex)
    with pytest.raises(cq.Interrupted) as caught:
        begin(checkpoint=stopping(tmp_path / "other", 3 if steps > 1 else 1))
    partial = caught.value.partial
    assert partial.t[-1] < again.t[-1] and np.array_equal(partial.mean(), again.mean()[: len(partial.t)])
    with pytest.raises(ModelError, match="the one that the run was begun with"):
        cq.resume(tmp_path / "other", model=cq.models.linear_diosi())


def test_measurements_against_the_fixed_box_run():
    from validation import window

    moving, fixed = window.main(["--quick"])["packet"]
    assert moving["cells"] < 0.5 * fixed["cells"] and moving["megabytes"] < 0.5 * fixed["megabytes"]
    assert moving["error"] <= moving["stated"] and moving["probability"] < ROUND_OFF
    assert fixed["difference"] <= moving["stated"] + fixed["stated"]
