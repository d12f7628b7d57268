"""Checkpoints: containers, two generations, hostile folders, and every integrator resumed to the last bit (contract, lines 1, 3 and 4)."""

from __future__ import annotations

import hashlib
import json
import os

import numba
import numpy as np
import pytest
import sympy

import cqpde as cq
from cqpde import container
from cqpde.checkpoint import Keeper
from cqpde.errors import CqpdeError, FileError, Interrupted, ModelError, OptionError, SolverError
from cqpde.expressions import parse
from cqpde.resuming import resumed
from cqpde.stored_model import model_from, model_record

from .interrupted import assert_same_bits, count_steps, diosi, stopped_and_resumed, stopping

q, p, t = sympy.symbols("q p t", real=True)


# -- containers --------------------------------------------------------------------------------------------------------
def _file(path):
    rng = np.random.default_rng(3)
    arrays = {"x": rng.normal(size=(4, 5, 6)).transpose(2, 0, 1), "z": rng.normal(size=3) + 1j, "none": np.zeros((0, 2)), "one": np.array(2.0)}
    container.write(path, arrays, {"t": 0.1 + 0.2, "refused": float("inf")})
    return arrays


def test_container_keeps_values_and_order_in_memory(tmp_path):
    arrays = _file(tmp_path / "a")
    back, record = container.read(tmp_path / "a")
    assert record == {"t": 0.1 + 0.2, "refused": float("inf")}
    for name, array in arrays.items():
        assert np.array_equal(back[name], array) and (array.size == 0 or back[name].strides == array.strides)
    assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(FileError, match="numbers only"):
        container.write(tmp_path / "b", {"x": np.array([None])}, {})


def test_cut_changed_or_lying_container_is_refused(tmp_path):
    """At every cut and every changed byte; sizes that are claimed are never allocated."""
    path = tmp_path / "a"
    _file(path)
    whole = path.read_bytes()
    for k in range(0, len(whole), 1 if len(whole) < 1000 else 3):
        for bad in (whole[:k], whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :]):
            path.write_bytes(bad)
            with pytest.raises(FileError):
                container.read(path)
    lie = {"name": "x", "type": "<f8", "shape": [10**12], "order": [0], "sha256": ""}
    for change in ({}, {"type": "|O"}, {"shape": [-8]}, {"order": [1]}, {"shape": "os.system('x')"}):
        text = json.dumps({"record": {}, "arrays": [lie | change]}).encode()
        path.write_bytes(container.MAGIC + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + text)
        with pytest.raises(FileError):
            container.read(path)


# -- folders -----------------------------------------------------------------------------------------------------------
def test_bad_newest_falls_back_and_none_is_an_error(tmp_path):
    """Two generations; never a silent fresh start; one process at a time."""
    folder = tmp_path / "run"
    keeper = Keeper(folder, 0.0)
    keeper.begin(lambda: ({}, {"rho": np.ones(3)}))
    with pytest.raises(FileError, match="in use"):
        Keeper(folder).reopen()
    for k in range(3):
        keeper.write(0, {"x": np.full(3, float(k))}, {"t": float(k)})
    keeper.close()
    again = Keeper(folder)
    again.reopen()
    assert again.resumed.array("x", 3)[0] == 2.0
    again.close()
    newest = folder / "state.1"
    newest.write_bytes(newest.read_bytes()[:-1])
    again = Keeper(folder)
    with pytest.warns(cq.CqpdeWarning, match="other checkpoint is used"):
        again.reopen()
    assert again.resumed.array("x", 3)[0] == 1.0
    again.close()
    for name in ("state.0", "state.1"):
        (folder / name).unlink()
    with pytest.raises(FileError, match="good checkpoint"):
        Keeper(folder).reopen()
    with pytest.raises(FileError, match="run already"):
        Keeper(folder).begin(lambda: ({}, {}))
    with pytest.raises(FileError, match=r"no run.json"):
        cq.resume(tmp_path)


def _stopped(folder, steps=3):
    """The folder of a run that was stopped."""
    model, rho0, times = diosi((24, 32), times=4)
    keeper = stopping(folder, steps, 0.0)
    with pytest.raises(Interrupted) as stop:
        cq.solve(model, rho0, times, tol=1e-2, method="fv", dt_max=0.06, checkpoint=keeper)
    return stop.value


def test_a_stopped_run_hands_over_what_it_has(tmp_path):
    """Contract, line 9."""
    stop = _stopped(tmp_path / "run", 6)
    n = stop.partial.sizes["t"]
    assert 1 < n < 4 and stop.partial.attrs["status"] == "aborted: the test"
    cq.save(stop.partial, tmp_path / "partial.nc")
    back = cq.load(tmp_path / "partial.nc")
    whole = cq.resume(tmp_path / "run")
    assert np.array_equal(back.rho.values, whole.rho.values[:n])
    assert len((tmp_path / "run" / "diagnostics.csv").read_text().splitlines()) == 5


def _rewritten(path, change):
    arrays, record = container.read(path)
    change(arrays, record)
    container.write(path, arrays, record)


HOSTILE = {
    "state of another shape": ("state", lambda a, r: a.update(x=np.zeros((4, 7)))),
    "state of integers": ("state", lambda a, r: a.update(x=a["x"].astype(int))),
    "no state": ("state", lambda a, r: a.clear()),
    "level that would take all memory": ("state", lambda a, r: r.update(level=10**9)),
    "level that is text": ("state", lambda a, r: r.update(level="__import__('os').abort()")),
    "more steps than there are": ("state", lambda a, r: r.update(done=1 << 60)),
    "index beyond the end": ("state", lambda a, r: r.update(index=10**6)),
    "negative index": ("state", lambda a, r: r.update(index=-1)),
    "counters that are no numbers": ("state", lambda a, r: r.update(progress={"steps": []})),
    "counters with other names": ("state", lambda a, r: r["progress"].update(exec=1)),
    "frames of another shape": ("frames.0.00000", lambda a, r: a.update(rho=a["rho"][..., :5])),
    "frames that overlap": ("frames.0.00000", lambda a, r: r.update(stop=99)),
    "frames without arrays": ("frames.0.00000", lambda a, r: a.clear()),
    "initial state of another shape": ("initial", lambda a, r: a.update({"rho 0": a["rho 0"][..., :5]})),
    "initial state that is real": ("initial", lambda a, r: a.update({"rho 0": a["rho 0"].real.copy()})),
    "unphysical initial state": ("initial", lambda a, r: a.update({"rho 0": -a["rho 0"]})),
    "times that go back": ("initial", lambda a, r: a.update(times=a["times"][::-1].copy())),
    "no model": ("initial", lambda a, r: [a.pop(k) for k in list(a) if k.startswith("model")]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_checkpoints_are_refused(case, tmp_path):
    """With digests that fit, as somebody who means it would write them."""
    folder = tmp_path / "run"
    _stopped(folder)
    name, change = HOSTILE[case]
    for path in folder.glob(f"{name}*"):
        _rewritten(path, change)
    with pytest.raises(CqpdeError) as refusal:
        cq.resume(folder)
    assert "in use" not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "[" * 100_000, '{"format": 1}', '{"format": 1, "versions": [], "kind": "solve"}',
        json.dumps({"format": 1, "versions": {}, "kind": "solve"}), "import os", "\x00" * 100,
    ],
)  # fmt: skip
def test_hostile_records_are_refused(text, tmp_path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(FileError):
        cq.resume(tmp_path)


@pytest.mark.parametrize("change", [{"grid": {"q": [0, 1, 10**12, ["open", "open"]]}}, {"kind": "pickle"}, {"options": {"tol": "x"}}, {"states": []}, {"grid": {"q": "x"}}, {"model": {}}])
def test_records_that_claim_something_else_are_refused(change, tmp_path):
    """Also a formula that is code, and a grid that no memory holds; the digest of the record ties the states to it, so they are left out."""
    folder = tmp_path / "run"
    _stopped(folder)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | change))
    with pytest.raises(FileError, match="another run's"):
        cq.resume(folder)
    for path in (*folder.glob("state*"), folder / "begun"):
        path.unlink()
    with pytest.raises(CqpdeError), pytest.warns(cq.CqpdeWarning, match="had not come"):
        cq.resume(folder)
    record["model"]["coefficients"]["H"]["formulas"] = [[[0, 0], "__import__('os').abort()"]]
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(FileError, match="must hold a model"), pytest.warns(cq.CqpdeWarning, match="had not come"):
        cq.resume(folder)


# -- models ------------------------------------------------------------------------------------------------------------
def test_models_come_back_as_the_same_expressions():
    grid = cq.Grid(q=(-4, 4, 16), p=(-4, 4, 20))
    models = [
        cq.models.linear_diosi(), cq.models.qubit_lattice(2), cq.models.mass_in_superposition(), cq.models.well_and_barrier(),
        cq.healed(("q", "p"), p**2 / 2 + sympy.cos(q / 3), q * cq.sigmaz() + 0.1 * sympy.exp(-(q**2)) * cq.sigmax(), {"p": 0.3}),
        cq.Model(("q", "p"), 2, H=[[sympy.Heaviside(t - sympy.Rational(1, 3)), 0.1j * q], [-0.1j * q, sympy.Abs(p)]], L=[cq.sigmaz(), cq.sigmam()],
                 D1={"p": [-0.5, 0]}, D2={"p": 0.5}, D0=[[0.25, 0], [0, sympy.Float(0.2) + sympy.sqrt(2)]], D1C={"q": p / 3, "p": cq.sampled(grid, np.ones((16, 20)))}),
    ]  # fmt: skip
    kept = 0
    for model in models:
        arrays = {}
        record = model_record(model, arrays)
        if record is None:
            assert any(c.callable for c in model.coefficients.values())
            continue
        kept += 1
        again = model_from(json.loads(json.dumps(record)), arrays)
        z = cq.Grid(**{c: (-3, 3, 7) for c in model.coordinates}).mesh()
        for name, one in model.coefficients.items():
            two = again.coefficients[name]
            assert np.array_equal(one._constants, two._constants) and list(one._symbolic) == list(two._symbolic), name
            for at, expression in one._symbolic.items():
                assert str(expression) == str(two._symbolic[at])
            for a, b in zip(one.entries(z, 0.4).reshape(-1), two.entries(z, 0.4).reshape(-1), strict=True):
                assert np.array_equal(a, b, equal_nan=True)
        assert model.time_dependent == again.time_dependent and model.saturated == again.saturated
    assert kept >= 3
    assert parse("0.1*q", {"q": q}, "") == sympy.Float(0.1) * q


def test_python_functions_are_asked_for_again_and_compared(tmp_path):
    _, rho0, times = diosi(times=4)
    make = lambda g: cq.Model(("q", "p"), 2, H=lambda z: [[g * z.q, 0.5], [0.5, -g * z.q]], L=[cq.sigmaz()], D1={"p": [-0.5]}, D2={"p": 0.5}, D0="saturated", D1C={"q": p})
    saver = {"mean": lambda ds: float(np.real(np.asarray(ds.rho)[0, 0]).sum()), "purity": "purity"}
    begin = lambda **k: cq.solve(make(1.0), rho0, times, tol=1e-2, method="fv", save=saver, **k)
    whole = begin()
    folder = tmp_path / "run"
    keeper = stopping(folder, 5, 0.0)
    with pytest.raises(Interrupted):
        begin(checkpoint=keeper)
    with pytest.raises(OptionError, match="Python functions"):
        cq.resume(folder, save=saver)
    with pytest.raises(OptionError, match="save"):
        cq.resume(folder, make(1.0))
    with pytest.raises(ModelError, match="other values"):
        cq.resume(folder, make(1.0 + 1e-15), save=saver)
    assert_same_bits(whole, cq.resume(folder, make(1.0), save=saver))


def test_a_run_that_fails_keeps_its_last_good_checkpoint(tmp_path):
    """Contract, line 4: coefficients that turn bad on the way."""
    _, rho0, times = diosi(times=4)
    broken = {"after": 10**9}

    def H(z, now):
        broken["after"] -= z.q.size == 48  # on all cells: not where the coefficients are surveyed beforehand
        return [[z.q + (np.nan if broken["after"] < 0 else 0.0), 0.5 * np.cos(now)], [0.5 * np.cos(now), -z.q]]

    make = lambda: cq.Model(("q", "p"), 2, H=H, L=[cq.sigmaz()], D1={"p": [-0.5]}, D2={"p": 0.5}, D0="saturated", D1C={"q": p})
    begin = lambda **k: cq.solve(make(), rho0, times, tol=1e-2, method="fv", grid_error=False, **k)
    whole = begin()
    calls, broken["after"] = 10**9 - broken["after"], 10**9
    folder = tmp_path / "run"
    broken["after"] = int(0.9 * calls)
    with pytest.raises((SolverError, ModelError)):
        begin(checkpoint=folder, checkpoint_every=0)
    broken["after"] = 10**9
    assert any(folder.glob("state.?"))
    assert_same_bits(whole, cq.resume(folder, make()))


# -- integrators -------------------------------------------------------------------------------------------------------
def _drive(at):
    f = sympy.cos(5 * t) if at is None else sympy.Heaviside(t - at)
    return cq.Model(("q", "p"), 2, H=[[q, f], [f, -q]], L=[cq.sigmaz()], D1={"p": [-0.5]}, D2={"p": 0.5}, D0=[[0.25]], D1C={"q": p, "p": -q})


def _state(*cells):
    return cq.gaussian(cq.Grid(q=(-6, 6, cells[0]), p=(-9, 9, cells[1])), 0, 0.5, cq.ket("+"))


SAVED = ["marginal q", "purity", "expect q*sigmaz", "conditional_state q=0:1"]
ROUTES = {
    "split": lambda: (cq.models.linear_diosi(), _state(64, 80), np.linspace(0, 0.5, 5), {"tol": 1e-7, "dt_max": 0.09}),
    "split, inner cells grow, a jump in time": lambda: (_drive(0.2), _state(96, 96), np.linspace(0, 0.5, 6), {"tol": 1e-4, "dt_max": 0.11}),
    "split, save=": lambda: (_drive(None), _state(48, 64), np.linspace(0, 0.5, 7), {"tol": 1e-5, "dt_max": 0.11, "save": SAVED, "frames": [0.5]}),
    "split, batch": lambda: (cq.models.linear_diosi(), [_state(48, 64), _state(48, 64)], [0, 0.2, 0.5], {"tol": 1e-4, "dt_max": 0.11}),
    "split left for fv": lambda: (cq.models.linear_diosi(), cq.gaussian(cq.Grid(q=(-3, 3, 32), p=(-5, 5, 48)), 0, 0.5, cq.ket("+")), [0, 0.4, 0.8], {"tol": 1e-2, "dt_max": 0.11}),
    "fixed steps": lambda: (_drive(None), _state(48, 64), [0, 0.2, 0.5], {"dt": 0.05}),
    "fv, limited": lambda: (cq.models.linear_diosi(), _state(40, 48), [0, 0.2, 0.5], {"tol": 3e-3, "method": "fv"}),
    "fv, upwind, exact": lambda: (cq.models.linear_diosi(), _state(40, 48), [0, 0.2, 0.3, 0.5], {"tol": 1e-3, "method": "fv", "transport": "upwind"}),
    "fv, drive": lambda: (_drive(None), _state(32, 40), [0, 0.2, 0.5], {"tol": 3e-2, "method": "fv", "transport": "linear"}),
    "exact positivity, shift": lambda: (cq.models.linear_diosi(), _state(1280, 96), [0, 0.5, 1], {"tol": 0.03, "method": "split", "positivity": "exact"}),
    "exact positivity, limited": lambda: (
        cq.models.linear_diosi(), _state(48, 80), [0, 0.11, 0.5], {"tol": 1e-2, "method": "split", "positivity": "exact", "transport": "limited"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.filterwarnings("ignore::cqpde.errors.CqpdeWarning")
def test_every_integrator_goes_on_with_the_same_bits(name, tmp_path):
    """Stopped after the first step, in the middle and at the last one; stopped again and again; against a run that was not."""
    model, rho0, times, options = ROUTES[name]()
    begin = lambda **k: cq.solve(model, rho0, times, **options, **k)
    whole = begin()
    n = count_steps(begin, tmp_path / "count")
    if name == "split left for fv":
        assert whole.method == "fv" and "was tried and left" in whole.method_reason
    for steps in sorted({1, n // 2, n - 1} - {0}):
        again, _ = stopped_and_resumed(begin, tmp_path / f"at {steps}", steps)
        assert_same_bits(whole, again)
    again, rounds = stopped_and_resumed(begin, tmp_path / "again", max(1, n // 4), rounds=9)
    assert rounds > 1 or n < 3
    assert_same_bits(whole, again)
    assert_same_bits(whole, cq.resume(tmp_path / "again"))  # finished: its result again


def test_a_run_goes_on_with_another_number_of_threads(tmp_path):
    """Contract, lines 1 and 2 together."""
    before, most = numba.get_num_threads(), numba.config.NUMBA_NUM_THREADS
    model, rho0, times, options = ROUTES["split"]()
    whole = cq.solve(model, rho0, times, **options)
    try:
        numba.set_num_threads(1)
        with pytest.raises(Interrupted):
            cq.solve(model, rho0, times, checkpoint=stopping(tmp_path / "run", 3), **options)
        numba.set_num_threads(min(2, most))
        assert_same_bits(whole, cq.resume(tmp_path / "run"))
    finally:
        numba.set_num_threads(before)


def test_the_second_run_for_the_grid_error_goes_on_too(tmp_path):
    """Stopped within it: the first run is not done again, the second goes on where it was."""
    model, rho0, times, options = ROUTES["fv, limited"]()
    begin = lambda **k: cq.solve(model, rho0, times, **options, **k)
    whole, n = begin(), count_steps(begin, tmp_path / "count")
    first = count_steps(lambda **k: cq.solve(model, rho0, times, grid_error=False, **options, **k), tmp_path / "first")
    assert n > first + 2
    with pytest.raises(Interrupted):
        begin(checkpoint=stopping(tmp_path / "run", first + 2))
    keeper = stopping(tmp_path / "run", 10**9)
    assert_same_bits(whole, resumed(keeper))
    assert 10**9 - keeper.budget[0] == n - first - 2


@pytest.mark.filterwarnings("ignore::cqpde.CqpdeWarning")
@pytest.mark.parametrize("name", ["steps", "ensemble", "window"])
def test_a_limit_that_is_over_at_once_still_lets_every_attempt_get_on(tmp_path, name):
    """Resumed with the same limit again and again, a run comes to its end."""
    rho0, times, options = _state(32, 32), [0, 0.1, 0.2], {"checkpoint": tmp_path / "run", "max_walltime": 1e-9}
    with pytest.raises(Interrupted, match="wall-clock"):
        if name == "steps":
            cq.solve(cq.models.linear_diosi(), rho0, times, dt=0.05, **options)
        elif name == "window":
            cq.follow(cq.models.linear_diosi(), rho0, times, tol=1e-3, **options)
        else:
            cq.unravel(cq.models.linear_diosi(), rho0, times, trajectories=9000, seed=1, **options)
    for _ in range(20):
        try:
            cq.resume(tmp_path / "run", max_walltime=1e-9)
            return
        except Interrupted:
            pass
    raise AssertionError("never finished")


@pytest.mark.filterwarnings("ignore::cqpde.CqpdeWarning")
def test_what_would_be_ignored_is_refused(tmp_path):
    keeper = stopping(tmp_path / "run", 3, 0.0)
    with pytest.raises(Interrupted):
        cq.solve(cq.models.linear_diosi(), _state(32, 32), [0, 0.2], dt=0.02, save=["purity"], checkpoint=keeper)
    with pytest.raises(OptionError, match="save") as refused:
        cq.resume(tmp_path / "run", save=["entropy"])
    assert "saves purity" in str(refused.value)
    assert "purity" in cq.resume(tmp_path / "run")


def test_a_frozen_counter_would_be_noticed(tmp_path):
    """The twin with a defect: a checkpoint whose state is the one before does not give the same bits."""
    model, rho0, times, options = ROUTES["fv, limited"]()
    whole = cq.solve(model, rho0, times, **options)
    keeper = stopping(tmp_path / "run", 4, 0.0)
    with pytest.raises(Interrupted):
        cq.solve(model, rho0, times, checkpoint=keeper, **options)
    newest, other = sorted(tmp_path.glob("run/state.?"), key=lambda f: -container.read(f)[1]["serial"])
    _rewritten(newest, lambda a, r: a.update(x=container.read(other)[0]["x"]))
    with pytest.raises(AssertionError):
        assert_same_bits(whole, cq.resume(tmp_path / "run"))


# -- ensembles ---------------------------------------------------------------------------------------------------------
_WALLS = cq.Grid(q=(-3, 3, 32, "absorbing"), p=(-9, 9, 32))
ENSEMBLES = {
    "sums, two threads": ({"threads": 2}, {}),
    "bias, field, paths": ({"bias": True, "field": True, "store": 2, "stored": 6000}, {}),
    "functions": ({"moments": {"q4": lambda z, rho: z.q**4}}, {"moments": {"q4": lambda z, rho: z.q**4}}),
    "arrivals": ({"arrivals": True, "model": cq.Model(("q", "p"), 2, L=[cq.sigmaz()], D1={"p": [-0.5]}, D2={"p": 0.5, "q": 0.5}, D0="saturated", D1C={"q": p}),
                  "rho0": cq.gaussian(_WALLS, 0, 0.5, cq.ket("+"))}, {}),
    "given as an array": ({"rho0": cq.from_array(_state(32, 32).grid, _state(32, 32).rho)}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_go_on_with_the_same_bits(name, tmp_path):
    options, again = dict(ENSEMBLES[name][0]), ENSEMBLES[name][1]
    model, rho0 = options.pop("model", cq.models.linear_diosi()), options.pop("rho0", _state(32, 32))
    begin = lambda **k: cq.unravel(model, rho0, [0, 0.2, 0.5], trajectories=4096 * 4 + 100, seed=3, dt=0.1, **options, **k)
    whole = begin()
    for steps in (1, 3, 5):
        out, rounds = stopped_and_resumed(begin, tmp_path / f"at {steps}", steps, rounds=9, **again)
        assert rounds > 0
        assert_same_bits(whole, out)
    assert_same_bits(whole, cq.resume(tmp_path / "at 1", threads=1, **again))


def test_ensembles_ask_for_what_was_given_in_python(tmp_path):
    make = lambda width: cq.product(_state(32, 32).grid, lambda z: np.exp(-width * z.q**2 - z.p**2), cq.ket("+"))
    keeper = stopping(tmp_path / "run", 2, 0.0)
    begin = lambda **k: cq.unravel(cq.models.linear_diosi(), make(1.0), [0, 0.2], trajectories=4096 * 3, seed=3, dt=0.1, **k)
    with pytest.raises(Interrupted):
        begin(checkpoint=keeper)
    with pytest.raises(OptionError, match="rho0"):
        cq.resume(tmp_path / "run")
    with pytest.raises(OptionError, match="another one"):
        cq.resume(tmp_path / "run", rho0=make(1.1))
    with pytest.raises(OptionError, match="moments"):
        cq.resume(tmp_path / "run", rho0=make(1.0), moments={"x": lambda z, rho: z.q})
    arrays, record = container.read(tmp_path / "run" / "state.0")  # the newest
    for change in ({"moments mean": arrays["moments mean"][:, :3]}, {"visits 0": arrays["visits 0"].astype(complex)}):
        container.write(tmp_path / "run" / "state.0", arrays | change, record)
        with pytest.raises(FileError, match="must be"):
            cq.resume(tmp_path / "run", rho0=make(1.0))
    container.write(tmp_path / "run" / "state.0", arrays, record)
    assert_same_bits(begin(), cq.resume(tmp_path / "run", rho0=make(1.0)))


# -- options -----------------------------------------------------------------------------------------------------------
def test_options_and_folders_are_checked_before_any_work(tmp_path):
    model, rho0, times = diosi()
    for options, words in (
        ({"max_walltime": 5.0}, "max_walltime"), ({"checkpoint": 3}, "checkpoint"), ({"checkpoint": tmp_path / "a" / "b"}, "folder"),
        ({"checkpoint": tmp_path / "a", "checkpoint_every": -1}, "checkpoint_every"), ({"checkpoint": tmp_path / "a", "max_walltime": 0}, "max_walltime"),
        ({"checkpoint": tmp_path / "a", "max_walltime": True}, "max_walltime"),
    ):  # fmt: skip
        for begin in (cq.solve, cq.unravel):
            with pytest.raises(CqpdeError, match=words):
                begin(model, rho0, times, **options)
    assert not list(tmp_path.iterdir())
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("x")
    with pytest.raises(FileError, match=r"new or an empty folder; found chapter1.tex"):
        cq.solve(model, rho0, times, checkpoint=tmp_path / "thesis")
    Keeper(tmp_path / "thesis").remove()
    assert (tmp_path / "thesis" / "chapter1.tex").exists()
    with pytest.raises(FileError, match=r"needs up to .* free there"):
        Keeper(tmp_path / "big").begin(lambda: ({}, {}), need=1e18)
    assert not (tmp_path / "big").exists()


def test_what_is_refused_or_fails_at_once_leaves_nothing(tmp_path):
    model, rho0, times = diosi((24, 32))
    still = cq.Model(("q", "p"), 2, L=[cq.sigmaz()], D1={"p": [-0.5]}, D2={"q": 0.5, "p": 0.5}, D0="saturated")
    for wrong in ({"model": still, "method": "fv", "transport": "upwind"}, {"tol": 1e-12, "method": "split", "positivity": "exact", "transport": "limited"}):
        with pytest.raises(CqpdeError):
            cq.solve(wrong.pop("model", model), rho0, times, checkpoint=tmp_path / "run", **wrong)
        assert not list(tmp_path.iterdir())
    keeper = Keeper(tmp_path / "run")
    keeper.begin(lambda: ({}, {}))
    with pytest.raises(FileError, match="in use"):  # of another process: nothing of it goes
        cq.solve(model, rho0, times, checkpoint=tmp_path / "run")
    assert (tmp_path / "run" / "lock").exists()


def test_a_resumed_run_can_be_stopped_by_its_walltime(tmp_path):
    _stopped(tmp_path / "run")
    with pytest.raises(Interrupted, match="wall-clock"):
        resumed(Keeper(tmp_path / "run", max_walltime=1e-6))
    cq.resume(tmp_path / "run")
