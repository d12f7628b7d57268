"""What each command of ``cqpde`` does; :mod:`cqpde.cli` reads the arguments."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

    from .estimating import Estimate
    from .grid import Grid
    from .models import Setup

#: Runs whose state alone takes this part of the available memory are estimated before they begin.
LOOKED_AT = 0.02


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        if not text.isidentifier():
            raise
        return text


def _pairs(items: list[str], option: str, kind: Callable[[str], Any]) -> dict[str, Any]:
    from .errors import OptionError

    out = {}
    for item in items:
        name, _, value = item.partition("=")
        try:
            out[name] = kind(value)
        except ValueError:
            raise OptionError(
                option,
                f"must be NAME={'int' if kind is int else 'number'}",
                repr(item),
                "Write e.g. " + ("q=64" if kind is int else "sigma=0.8"),
            ) from None
    return out


def _problem(arguments: argparse.Namespace, change: Callable[[Grid], Grid] = lambda grid: grid) -> tuple[Setup, dict[str, Any], str]:
    """Model, grid, state, times and solver options of what was asked for, and its text for the record; ``change`` may take another grid."""
    from . import config, models
    from .errors import OptionError

    parameters = _pairs(arguments.parameter, "--parameter", _number_or_word)
    cells = _pairs(arguments.cells, "--cells", int)
    chosen = lambda grid: change(grid.with_cells(**cells) if cells else grid)
    if arguments.what.endswith(".toml"):
        if parameters:
            raise OptionError(
                "--parameter", "is for shipped models", arguments.what, "Set [model.parameters] in the file"
            )
        problem = config.read(arguments.what, chosen)
        setup = models.Setup(problem.model, problem.rho0.grid, problem.rho0, problem.times, problem.exact)
        options, text = problem.options, problem.text
    else:
        setup = models.setup(arguments.what, **parameters)
        grid = chosen(setup.grid)
        setup = replace(setup, grid=grid, rho0=setup.rho0 if grid == setup.grid else setup.rho0.on(grid))
        lines = "".join(f"{k} = {json.dumps(v)}\n" for k, v in parameters.items())
        options, text = {}, f'[model]\nname = "{arguments.what}"\n' + (f"[model.parameters]\n{lines}" if lines else "")
    if cells:
        text += "# cells: " + ", ".join(f"{k}={v}" for k, v in cells.items()) + "\n"
    given = {name: getattr(arguments, name) for name in ("tol", "method", "positivity", "transport", "dt", "precision", "skip_below") if getattr(arguments, name) is not None}
    options = models.merged(setup.options, {**options, **given})
    if arguments.no_grid_error:
        options["grid_error"] = False
    options["force"] = arguments.force
    return setup, options, text


def estimate(arguments: argparse.Namespace) -> int:
    """``cqpde estimate``."""
    found = _estimate(arguments)
    print(_json(found.as_dict()) if arguments.json else found)
    if not arguments.force:
        found.require_room()
    return 0


def _estimate(arguments: argparse.Namespace) -> Estimate:
    """Estimate a run without making its state on the cells asked for, which may not fit."""
    from .errors import OptionError
    from .estimating import FEW_VALUES, fewer
    from .estimating import estimate as found

    meant: list[Grid] = []

    def small(grid: Grid) -> Grid:
        meant.append(grid)
        return fewer(grid, FEW_VALUES)

    setup, options, _ = _problem(arguments, small)
    if _follows(options):
        raise OptionError("follow", "is not estimated: how large its windows become, the run finds out", "true", "Leave it out, or run it")
    if arguments.command == "estimate":
        options |= {"ranks": arguments.ranks, "machines": arguments.machines, "network": arguments.network}
    return found(setup.model, setup.rho0, setup.times, grid=meant[-1], **options)


def run(arguments: argparse.Namespace) -> int:
    """``cqpde run``."""
    from . import io, memory, running
    from .communicator import shared_keeper
    from .compiling import told
    from .errors import GridError, SolverError, StateError
    from .following import follow
    from .kernels.warm import warm
    from .parallel.world import world
    from .solver import solve

    setup, options, text = _problem(arguments)
    output = Path(arguments.output or Path(arguments.what).with_suffix(".nc").name)
    io.check_writable(output)
    comm = world()
    follows = _follows(options) or arguments.follow
    if follows:
        _require_alone(comm)
    elif output.suffix == ".zarr":
        options["output"] = output
    if comm is None and not follows and not arguments.force and setup.rho0.nbytes > LOOKED_AT * memory.available():
        with contextlib.suppress(SolverError, GridError, StateError):  # of a trial: the run itself may do, or says why not
            _estimate(arguments).require_room()
    make = lambda: running.keeper_for(arguments, output, {"config": text, "command": f"cqpde run {arguments.what}"})
    keeper: Any = make() if comm is None else shared_keeper(comm, make)
    quiet = arguments.quiet or arguments.json or comm is not None
    if not quiet:
        with running.warnings_at_once():
            seconds = warm("split") + warm("fv")
        if seconds > 1.0:
            print(f"{'kernels':>20}  compiled in {seconds:.1f} s{'' if told else ' (kept on disk for the next run)'}")
    if follows:
        go: Callable[[], Any] = lambda: follow(setup.model, setup.rho0, setup.times, progress=not quiet, checkpoint=keeper, **options)
    else:
        go = lambda: solve(setup.model, setup.rho0, setup.times, progress=not quiet, checkpoint=keeper, comm=comm, **options)
    with _abort(comm):
        if comm is not None and comm.rank:
            return _follow(go)
        return _end(arguments, output, running.finished(keeper, output, f"cqpde run {arguments.what}", go, text), setup)


def _follows(options: dict[str, Any]) -> bool:
    """Take ``follow`` out of the options of a file, and refuse a margin without it."""
    from .errors import OptionError

    follows = bool(options.pop("follow", False))
    if "margin" in options and not follows:
        raise OptionError("solver.margin", "is that of a moving window", options["margin"], "Write follow = true, or leave it out")
    return follows


def _require_alone(comm: Any) -> None:
    """Refuse to share a run on a moving window."""
    from .errors import OptionError

    if comm is not None:
        raise OptionError("--follow", "runs in one process", f"{comm.size} processes", "Start it without mpiexec")


@contextlib.contextmanager
def _abort(comm: Any) -> Iterator[None]:
    """End all processes where one fails in a way that the others do not see: they would wait for it forever."""
    from .errors import CqpdeError

    try:
        yield
    except CqpdeError:  # all see the same
        raise
    except BaseException:
        if comm is not None:
            traceback.print_exc()
            comm.Abort(1)
        raise


def _follow(go: Callable[[], Any]) -> int:
    """What the processes beside the first one do."""
    from .errors import Interrupted

    with warnings.catch_warnings(action="ignore"), contextlib.suppress(Interrupted):
        go()
    return 0


def resume(arguments: argparse.Namespace) -> int:
    """``cqpde resume``."""
    from . import config, io, models, running
    from .checkpoint import Keeper
    from .communicator import together
    from .dataset import grid_of
    from .moving import MovingSolution
    from .parallel.world import world
    from .resuming import resumed

    comm = world()
    find = lambda: running.find_run(arguments.what)
    folder = find() if comm is None else together(comm, find)  # one process looks: looking takes the lock for a moment
    output = running.output_of(folder, arguments.output)
    io.check_writable(output)
    quiet = arguments.quiet or arguments.json or comm is not None
    if not quiet and arguments.what is None:
        print(f"{'resuming':>20}  {output}")
    keeper = Keeper(folder, arguments.checkpoint_every, arguments.max_walltime, f"'cqpde resume {arguments.what or output}'")
    text, command = running.configuration(folder)
    go = lambda: resumed(keeper, progress=not quiet, comm=comm)
    with _abort(comm):
        if comm is not None and comm.rank:
            return _follow(go)
        solution = running.finished(keeper, output, f"{command}, cqpde resume".removeprefix(", "), go, text)
    setup = None
    if text and solution is not None:
        problem = config.parse_text(text)
        grid = problem.rho0.grid if isinstance(solution, MovingSolution) else grid_of(solution)
        setup = models.Setup(problem.model, grid, problem.rho0, problem.times, problem.exact)
    return _end(arguments, output, solution, setup)


def _end(arguments: argparse.Namespace, output: Path, solution: xr.Dataset | None, setup: Setup | None) -> int:
    """Say what came out of a run."""
    from . import io, running
    from .moving import MovingSolution

    if solution is None:
        return running.RESUMABLE
    if arguments.json:
        print(_json(io.facts(output)))
    elif not arguments.quiet:
        if isinstance(solution, MovingSolution):
            print(solution.summary())
            solution = solution.at()
            setup = setup and replace(setup, grid=solution.cq.grid)
        else:
            print(solution.cq.summary() if "method_reason" in solution.attrs else io.describe(output))
        if setup is not None:
            print(_moments(solution, setup))
        print(f"{'written':>20}  {output}")
    return 0


def validate(arguments: argparse.Namespace) -> int:
    """``cqpde validate``."""
    import xarray as xr

    from . import config, io, running
    from .communicator import together
    from .dataset import grid_of
    from .errors import CqpdeError, FileError, OptionError
    from .parallel.world import world
    from .report import validate as compare
    from .solver import solve
    from .unravelling import unravel

    for path in (arguments.output, arguments.figure):
        if path:
            io.check_writable(path)
    if arguments.figure and importlib.util.find_spec("matplotlib") is None:
        raise OptionError("--figure", "needs Matplotlib", "it is not installed", 'pip install "cqpde[plot]"')
    with running.warnings_at_once():
        solution = io.load(arguments.file)
    if not isinstance(solution, xr.Dataset) or "rho" not in solution or not solution.attrs.get("cqpde_config"):
        raise FileError(arguments.file, "must hold full fields and the configuration", "neither or one", "Write it with 'cqpde run'")
    missing = [name for name in ("tol", "method", "transport") if name not in solution.attrs]
    if missing:
        raise FileError(arguments.file, "must say how it was made", f"no attribute {missing[0]}", "Write it with 'cqpde run'")
    problem = config.parse_text(str(solution.attrs["cqpde_config"]), arguments.file)
    rho0, grid = problem.rho0, grid_of(solution)
    times = solution[str(solution["rho"].dims[0])].values
    span = [float(solution.t[0]), float(times[-1])]
    if span[1] <= span[0]:
        raise OptionError("FILE.nc", "must hold a field after the start", f"t = {span[1]:g}", "Keep the last frame")
    options: dict[str, Any] = {"tol": float(solution.attrs["tol"]), "method": str(solution.attrs["method"])}
    if solution.attrs["transport"] in ("upwind", "linear"):
        options["transport"] = solution.attrs["transport"]
    if "dt_fixed" in solution.attrs:
        options |= {"dt": float(solution.attrs["dt_fixed"]), "precision": str(solution.attrs.get("precision", "double"))}
    comm = world()
    coarse: list[xr.Dataset] = []

    def solve_coarser() -> None:
        warnings.simplefilter("ignore")  # the coarser solutions serve the extrapolation alone
        coarse[:] = [] if "dt" not in options else [solve(problem.model, rho0.on(grid), span, **{**options, "dt": 2 * options["dt"]}, grid_error=False, check="warn", progress=False)]
        for factor in (1.5, 2.0):
            rough = grid.coarsened(factor)
            try:
                # few cells may be negative where they do not resolve the state, which their distance from the finer ones then says
                coarse.append(solve(problem.model, rho0.on(rough), span, grid_error=False, check="warn", progress=False, **options))
            except CqpdeError as error:  # the comparison goes on with what is known of the grid error, and says so
                print(f"cqpde: warning: no solution on {rough}: {error}", file=sys.stderr)
                break

    with _abort(comm), warnings.catch_warnings():
        solve_coarser() if comm is None else together(comm, solve_coarser)
    if arguments.ensemble:
        ensemble = io.load(arguments.ensemble)
    else:
        with _abort(comm):
            ensemble = unravel(
                problem.model, rho0.on(grid), span, trajectories=arguments.trajectories, seed=arguments.seed, method=arguments.method,
                dt=arguments.dt, bias=True, progress=False if arguments.quiet or arguments.json else None, comm=comm,
            )  # fmt: skip
    if comm is not None and comm.rank:
        return 0
    report = compare(solution, ensemble, coarse=coarse, level=arguments.level)
    if arguments.json:
        print(_json({"verdict": report.verdict, "p_value": report.p_value, "reasons": report.reasons, "trajectories": report.dataset.attrs["trajectories"]}))
    else:
        print(f"{report.verdict}, p = {report.p_value:.3g}" if arguments.quiet else str(report))
    if arguments.output:
        io.save(report.dataset, arguments.output)
    if arguments.figure:
        report.figure().savefig(arguments.figure)
    return {"agree": 0, "disagree": 4, "inconclusive": 5}[report.verdict]


def _moments(solution: xr.Dataset, setup: Setup) -> str:
    """Means and covariances at the last time, beside the exact ones where there are any."""
    import numpy as np

    from .dataset import snapshot

    if "rho" not in solution:
        return ""
    last = solution.isel({solution["rho"].dims[0]: -1})
    columns = [("computed", last.cq.mean().values, last.cq.covariance().values)]
    if setup.exact is not None:
        rho = setup.exact(setup.grid, float(solution.t[-1]))
        exact = snapshot(setup.grid, setup.model.dim, float(solution.t[-1]), rho)
        columns.append(("exact", exact.cq.mean().values, exact.cq.covariance().values))
    names = setup.grid.names
    rows = [
        f"{'at t = ' + format(float(solution.t[-1]), 'g'):>20}  " + "".join(f"{label:>14}" for label, _, _ in columns)
    ]
    for i, a in enumerate(names):
        rows.append(f"{'mean ' + a:>20}  " + "".join(f"{mu[i]:14.6f}" for _, mu, _ in columns))
    for i, a in enumerate(names):
        for j in range(i, len(names)):
            rows.append(f"{f'cov {a} {names[j]}':>20}  " + "".join(f"{c[i, j]:14.6f}" for _, _, c in columns))
    if setup.exact is not None:
        difference = np.moveaxis(last["rho"].values - rho, (0, 1), (-2, -1))
        error = float(np.abs(np.linalg.eigvalsh(difference)).sum() * setup.grid.cell_volume)
        rows.append(f"{'error':>20}  {error:14.3e}  (integrated trace norm against the exact solution)")
    return "\n".join(rows)


def models(arguments: argparse.Namespace) -> int:
    """``cqpde models``."""
    import inspect

    from . import models as shipped

    known: dict[str, dict[str, Any]] = {}
    for name, make in shipped.CATALOGUE.items():
        module = inspect.getmodule(make)
        first = (module.__doc__ or "").strip().splitlines()[0]
        known[name] = {"description": first, "parameters": {k: v.default for k, v in inspect.signature(make).parameters.items()}}
    if arguments.json:
        print(json.dumps(known, indent=1))
        return 0
    for name, entry in known.items():
        print(f"{name}: {entry['description']}\n    parameters: {', '.join(f'{k}={v}' for k, v in entry['parameters'].items())}")
    return 0


def info(arguments: argparse.Namespace) -> int:
    """``cqpde info``."""
    from . import io, running

    with running.warnings_at_once():
        text = _json(io.facts(arguments.file)) if arguments.json else io.describe(arguments.file)
    print(text)
    return 0


def init(arguments: argparse.Namespace) -> int:
    """``cqpde init``."""
    from .starting import starting_file

    print(starting_file(arguments.model), end="")
    return 0


def plot(arguments: argparse.Namespace) -> int:
    """``cqpde plot``."""
    from . import io, plotting
    from .errors import OptionError

    stem = Path(arguments.files[0]).stem
    suffix = ".png"
    files = [_dataset(f, arguments.sites, arguments.time) for f in arguments.files]
    kind = arguments.kind or _kind_of(files[0])
    if kind in ("movie", "series") and "window_error" in files[0]:
        raise OptionError("--kind", "must be one of a single time for a file on a moving window", repr(kind), "Choose hybrid or marginals, with --time")
    if kind == "movie":
        from .plotting.movies import default_format

        suffix = default_format()
    output = arguments.output or f"{stem}_{kind}{suffix}"
    io.check_writable(output)
    expected = {"convergence": "at least two", "marginals": "one or two"}.get(kind, "one")
    if (kind == "convergence") != (len(files) > 1) and not (kind == "marginals" and len(files) == 2):
        raise OptionError("FILE.nc", f"the kind {kind} takes {expected}", f"{len(files)} files", "See 'cqpde plot --help'")
    first = files[0]
    if kind == "movie":
        plotting.movie(first, output, arguments.axes, fps=arguments.fps)
    else:
        figure = {
            "hybrid": lambda: plotting.hybrid(first, arguments.time, arguments.axes),
            "marginals": lambda: plotting.marginals(first, files[1] if len(files) > 1 else None, arguments.time),
            "bloch": lambda: plotting.bloch(first),
            "series": lambda: plotting.series(first),
            "report": lambda: _report_figure(first),
            "convergence": lambda: plotting.grid_convergence(files),
        }[kind]()
        plotting.save_figure(figure, output, arguments.dpi)
    return _written(arguments, output)


def _dataset(path: str, sites: list[int] | None = None, time: float | None = None) -> xr.Dataset:
    """A file with one field over phase space.

    Of a product of one-site fields the reduced state of ``sites`` (default: the first), of a moving window the field at a time (default: the last).
    """
    from . import io
    from .errors import OptionError
    from .moving import MovingSolution
    from .sites import ProductSum

    found = io.load(path)
    if isinstance(found, ProductSum):
        return found.reduced(*(sites or [1]))
    if sites:
        raise OptionError("--sites", "is for files of solve_sites", f"a {found.attrs.get('kind', 'solution')}", "Leave it out, or choose --axes")
    return found.at(time) if isinstance(found, MovingSolution) else found


def _kind_of(ds: xr.Dataset) -> str:
    """The picture that says most about a file, if none was asked for."""
    kind = ds.attrs.get("kind")
    if kind == "report":
        return "report"
    if kind == "ensemble" and "rho" not in ds:
        return "bloch"
    return "hybrid" if "rho" in ds else "series"


def _report_figure(ds: xr.Dataset) -> Any:
    from .errors import OptionError
    from .report import Report

    if ds.attrs.get("kind") != "report":
        raise OptionError("--kind report", "needs a report of 'cqpde validate'", str(ds.attrs.get("kind", "a solution")), "Choose another kind")
    return Report(str(ds.attrs["verdict"]), float(ds.attrs["p_value"]), str(ds.attrs["reasons"]).split("; "), ds).figure()


def view(arguments: argparse.Namespace) -> int:
    """``cqpde view``."""
    from . import io, plotting

    output = arguments.output or f"{Path(arguments.file).stem}.html"
    io.check_writable(output)
    plotting.view(_dataset(arguments.file, arguments.sites), output)
    return _written(arguments, output)


def export(arguments: argparse.Namespace) -> int:
    """``cqpde export``."""
    from .export import export as write

    wanted = [f"marginal {' '.join(m.split(','))}" for m in arguments.marginal] + arguments.observable
    write(_dataset(arguments.file, arguments.sites, arguments.time), arguments.output, wanted, arguments.time)
    return _written(arguments, arguments.output)


def _written(arguments: argparse.Namespace, output: Any) -> int:
    if not arguments.quiet:
        print(f"{'written':>20}  {output}")
    return 0


def _json(data: Any) -> str:
    """JSON with null where a number is not finite, which JSON has no word for."""

    def plain(x: Any) -> Any:
        if isinstance(x, dict):
            return {k: plain(v) for k, v in x.items()}
        if isinstance(x, list | tuple):
            return [plain(v) for v in x]
        return None if isinstance(x, float) and not math.isfinite(x) else x

    return json.dumps(plain(data), indent=1)
