"""Random texts: configuration files, formulas, names of observables, command lines."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import cqpde as cq
from cqpde import cli, config
from cqpde.observables import read_observable
from cqpde.starting import starting_file

from .fuzz_cases import often, seldom
from .fuzzing import Case, physical_solution

#: Values of TOML keys: sensible, absurd, and of the wrong kind.
VALUES = (
    "1", "0", "-1", "2.5", "1e-3", "1e308", "nan", "inf", "-inf", "9" * 400, "true", '""', '"x"', '"q"', '"q*sigmaz"', '"sigmax"', '"p**2/2"', '"1/q"', '"sqrt(q)"', '"t"',
    '"cos(t)*q"', '"q**q"', '"9**9**9"', '"(q+p)**64"', '"__import__(\'os\').system(\'x\')"', '"q.__class__"', '"lambda: 0"', '"sigmaz*sigmaz*nothing"', '"' + "(" * 300 + '"',
    '"heaviside(q)"', '"destroy(40)"', '"I*q"', '"exp(900*q)"', "[]", "[1]", "[1, 2, 3]", '["+", "-"]', "[[1, 0], [0, 1]]", '[["q", 0], [0, "-q"]]', "[[0, 1], [0, 0]]", "[[[]]]", "{}",
    "{ p = 1 }", '{ q = "p", p = "-q" }', "{ p = [0.5, 0] }", "{ nothing = 1 }", "2024-01-01", '"saturated"', '"+"', '"open"', "[-6, 6, 12]", '[-6, 6, 12, "reflecting"]', "[6, -6, 12]",
    '[-6, 6, 1000000000000]', '[-6, 6, 12, "periodic"]', "[0.6, 0.8]", '[0.6, "0.8*I"]', '["cos(q)", "sin(q)"]', "'''\n'''", "0x10", '"\\u0000"', '"\u00fc"',
)  # fmt: skip
KEYS = ("name", "H", "L", "D0", "D1", "D2", "D1C", "H_C", "H_I", "sigma", "pairs", "coordinates", "dim", "excess", "check", "tol", "method", "positivity", "dt_max", "save", "end", "t", "outputs", "mean", "std", "cov", "at", "density", "state", "kind", "q", "p", "x", "tolerance")  # fmt: skip


@cache
def _bases() -> tuple[str, ...]:
    names = ("hamiltonian", "general", "linear_diosi", "well_and_barrier")
    return tuple(starting_file(n) for n in names) + (Path(__file__).parent.parent.joinpath("examples", "driven_qubit.toml").read_text(),)


@st.composite
def files(draw: Any) -> tuple[str, list[str]]:
    """A configuration file with up to three changes, and what they are."""
    lines = draw(st.sampled_from(range(5)).map(lambda k: _bases()[k])).splitlines()
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    done = []
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 2, 3]))):
        k = draw(st.integers(0, len(lines) - 1))
        how = draw(st.sampled_from(["value", "value", "value", "value", "key", "delete", "double", "add", "noise", "move"]))
        key = lines[k].split("=")[0].strip()
        if how == "value":
            lines[k] = f"{key} = {draw(st.sampled_from(VALUES))}"
        elif how == "key":
            lines[k] = f"{draw(st.sampled_from(KEYS))} = {lines[k].partition('=')[2]}"
        elif how == "delete":
            del lines[k]
        elif how == "double":
            lines.insert(k, lines[k])
        elif how == "add":
            lines.insert(k, f"{draw(st.sampled_from(KEYS))} = {draw(st.sampled_from(VALUES))}")
        elif how == "noise":
            at = draw(st.integers(0, len(lines[k])))
            lines[k] = lines[k][:at] + draw(st.text(max_size=4)) + lines[k][at:]
        else:
            lines.append(lines.pop(k))
        done.append(f"{how}: {lines[min(k, len(lines) - 1)] if lines else ''}"[:200])
        if not lines:
            lines = ["[model]"]
    return "\n".join(lines), done


def _solve(text: str) -> Any:
    """Read a file and run it on few cells to a loose tolerance."""
    problem = config.parse_text(text)
    small = problem.rho0.grid.with_cells(**{a.name: min(a.n, 16) for a in problem.rho0.grid.axes})
    options = {"tol": 0.1, "grid_error": False, **{k: v for k, v in problem.options.items() if k in ("method", "positivity", "save")}}
    times = problem.times if len(problem.times) < 2 else problem.times[:2]
    return cq.solve(problem.model, problem.rho0.on(small), times, **options)


@st.composite
def config_cases(draw: Any) -> Case:
    """A configuration file, read and run."""
    text, done = draw(files())
    declared = not any(word in text for word in ('check = "warn"', 'check = "off"'))
    return Case("config", {"changes": done}, lambda: _solve(text), lambda ds: physical_solution(ds, declared))


WORDS = ("q", "p", "t", "sigmaz", "sigmax", "1", "2", "0.5", "+", "-", "*", "/", "**", "(", ")", ",", "sqrt(", "exp(", "abs(", "q:", "q=0:1", "q=", "levels=0,1", "axes=q", "entropy", "mutual", "marginal", "expect", "moment", "density", "purity", "conditional_state", "coherence", "unconditioned", "probability", "operator=sigmaz", "order=2", "local", "energy", "destroy(2)", "[", "]", ".", "=", ":", "nan", "1e999")  # fmt: skip


@st.composite
def observable_cases(draw: Any) -> Case:
    """The name of an observable with words behind it, read and evaluated on a small solution."""
    first = draw(st.sampled_from(["expect", "moment", "marginal", "entropy", "conditional_state", "coherence", "probability", "purity", "bloch", "populations", "covariance", "energy", "mean", "current"]))
    text = " ".join([first, *draw(st.lists(st.sampled_from(WORDS), max_size=5))])
    return Case("observable", {"text": text}, lambda: read_observable(text, ("q", "p"), _model())(_solution()), lambda value: value.values)


@cache
def _model() -> Any:
    return cq.models.linear_diosi()


@cache
def _solution() -> Any:
    grid = cq.Grid(q=(-6, 6, 12), p=(-9, 9, 16))
    return cq.solve(_model(), cq.gaussian(grid, 0, 0.8, cq.ket("+")), [0, 0.1], tol=0.1, method="fv", grid_error=False)


@cache
def folder() -> Path:
    """A folder with a solution, an ensemble, a file of text and one of noise."""
    where = Path(tempfile.mkdtemp(prefix="fuzz"))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert cli.main(["run", "linear_diosi", "--cells", "q=16", "--cells", "p=20", "--tol", "0.1", "--method", "fv", "--no-grid-error", "-q", "-o", str(where / "a.nc")]) == 0
    cq.save(cq.unravel(_model(), cq.gaussian(cq.Grid(q=(-6, 6, 12), p=(-9, 9, 16)), 0, 0.8, cq.ket("+")), [0, 0.1], trajectories=50, seed=1), where / "e.nc")
    (where / "text.nc").write_text("no netCDF")
    (where / "noise.nc").write_bytes(bytes(range(256)) * 40)
    return where


PLACES = ("a.nc", "e.nc", "text.nc", "noise.nc", "none.nc", "", ".", "no/folder.nc")
OPTIONS: dict[str, tuple[str, ...]] = {
    "run": ("--cells", "q=12", "--cells", "p=16", "--cells", "q=0", "--cells", "x=8", "--tol", "0.1", "--tol", "nan", "--method", "fv", "--method", "none", "-p", "sigma=0.5", "-p", "sigma=nan", "-p", "sigma", "-p", "none=1", "--positivity", "exact", "--transport", "upwind", "--no-grid-error", "--json", "-q", "--frobnicate"),
    "validate": ("--trajectories", "50", "--trajectories", "0", "--seed", "-1", "--level", "2", "--level", "nan", "--method", "weak-2", "--method", "none", "--dt", "0.1", "--dt", "-1", "--ensemble", "e.nc", "--json", "-q"),
    "plot": ("--kind", "series", "--kind", "bloch", "--kind", "none", "--time", "0.1", "--time", "nan", "--axes", "q", "--axes", "x", "--dpi", "20", "--dpi", "-1", "-q"),
    "view": ("-q", "-o", "v.html"), "export": ("--marginal", "q", "--marginal", "x", "--observable", "purity", "--observable", "expect (", "--time", "nan", "-o", "x.csv", "-o", "x.nc", "-o", "x.none", "-q"),
    "info": ("--json",), "models": ("--json",), "init": (), "estimate": ("--json", "--cells", "q=8"), "none": (),
}  # fmt: skip


@st.composite
def command_cases(draw: Any) -> Case:
    """A command line, run in a folder with a few files."""
    command = draw(st.sampled_from([*OPTIONS, "run", "info", "export", "plot"]))
    what = {"run": ("linear_diosi", "linear_diosi", "qubit", "a.nc", "f.toml"), "estimate": ("linear_diosi", "none", "f.toml"), "init": ("linear_diosi", "general", "none"), "models": ("",)}.get(command, PLACES)
    arguments = [command] + ([draw(st.sampled_from(what))] if draw(often) and command != "models" else [])
    pairs = OPTIONS[command]
    for _ in range(draw(st.sampled_from([0, 1, 2, 3]))):
        if pairs:
            k = draw(st.integers(0, len(pairs) - 1))
            arguments += pairs[k : k + 2] if pairs[k].startswith("-") and k + 1 < len(pairs) and not pairs[k + 1].startswith("-") else [pairs[k]]
    if command == "run" and arguments[1:2] == ["linear_diosi"]:
        arguments += ["--cells", "q=12", "--cells", "p=16", "--tol", "0.1", "--method", "fv"]
    if command == "validate" and "--trajectories" not in arguments:
        arguments += ["--trajectories", "40"]
    if draw(seldom):
        arguments.append(draw(st.text(max_size=5)))
    toml = draw(files())[0] if "f.toml" in arguments else ""
    return Case("command", {"arguments": arguments}, lambda: _command(arguments, toml), _exit)


def _command(arguments: list[str], toml: str) -> tuple[int, str]:
    here, errors = Path.cwd(), io.StringIO()
    os.chdir(folder())
    try:
        Path("f.toml").write_text(toml, encoding="utf-8", errors="replace")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            try:
                code = cli.main(arguments)
            except SystemExit as done:
                code = int(done.code or 0)
    finally:
        os.chdir(here)
    return code, errors.getvalue()


def _exit(result: tuple[int, str]) -> None:
    code, errors = result
    assert code in (0, 2, 3, 4, 5), f"exit code {code}"
    assert "Traceback" not in errors
    assert (code in (2, 3)) <= ("cqpde" in errors), f"exit code {code} without a word"


KINDS = {"config": config_cases(), "observable": observable_cases(), "command": command_cases()}
