"""The command ``cqpde``: run a file or a shipped model, validate a result, list models, describe files.

Exit codes: 0 done; 2 the input was refused; 3 the run was stopped because its result would not have been valid; 4 and 5 are the verdicts
``disagree`` and ``inconclusive`` of ``validate``.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

    from .models import Setup


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cqpde", description="Full hybrid distributions of classical-quantum master equations."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="solve a TOML file or a shipped model and write netCDF",
        description="Solve a model and write netCDF.", epilog="example: cqpde run linear_diosi -p sigma=0.8 -o diosi.nc",
    )  # fmt: skip
    run.add_argument("what", metavar="FILE.toml|MODEL", help="a configuration file, or a name out of 'cqpde models'")
    validate = commands.add_parser(
        "validate", help="compare a solution with trajectories",
        description="Compare a solution with an ensemble of trajectories of the same model. Exit code: 0 agree, 4 disagree, 5 inconclusive.",
        epilog="example: cqpde validate diosi.nc --trajectories 50000 -o report.nc",
    )  # fmt: skip
    validate.add_argument("file", metavar="FILE.nc", help="a file that 'cqpde run' wrote with full fields")
    validate.add_argument("--ensemble", metavar="ENS.nc", help="compare with this ensemble instead of making one")
    validate.add_argument("--trajectories", type=int, default=50_000, help="size of the ensemble (default %(default)s)")
    validate.add_argument("--seed", type=int, default=1, help="seed of the ensemble (default %(default)s)")
    validate.add_argument("--method", default="instrument", help="instrument, euler-maruyama or weak-2 (default %(default)s)")
    validate.add_argument("--dt", type=float, help="longest step of the trajectories")
    validate.add_argument("--level", type=float, default=0.01, help="p-value below which to disagree (default %(default)s)")
    validate.add_argument("-o", "--output", metavar="REPORT.nc", help="netCDF file for the table")
    validate.add_argument("-q", "--quiet", action="store_true", help="print nothing but the verdict")
    run.add_argument("-o", "--output", metavar="FILE.nc", help="netCDF file to write (default: the name with .nc)")
    run.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="parameter of a shipped model (repeatable)",
    )
    run.add_argument(
        "--cells", action="append", default=[], metavar="AXIS=N", help="other number of cells (repeatable)"
    )
    run.add_argument("--tol", type=float, help="bound of the time error, integrated trace norm")
    run.add_argument("--method", help="auto (default), split or fv")
    run.add_argument("--positivity", help="exact: every factor of the split route completely positive to round-off")
    run.add_argument("--transport", help="fv: limited, upwind or linear; split with --positivity exact: shift or limited")
    run.add_argument("--no-grid-error", action="store_true", help="do not estimate the grid error")
    run.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    commands.add_parser(
        "models",
        help="list the shipped models",
        description="List the shipped models and their parameters.",
        epilog="example: cqpde models",
    )
    info = commands.add_parser(
        "info",
        help="describe a netCDF file",
        description="Describe a file written by cqpde.",
        epilog="example: cqpde info diosi.nc",
    )
    info.add_argument("file", metavar="FILE.nc")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    from .errors import CqpdeError, SolverError

    try:
        return {"run": _run, "validate": _validate, "models": _models, "info": _info}[arguments.command](arguments)
    except SolverError as error:
        print(f"cqpde: stopped: {error}", file=sys.stderr)
        return 3
    except CqpdeError as error:
        print(f"cqpde: {error}", file=sys.stderr)
        return 2


def _pairs(items: list[str], option: str, kind: type) -> dict[str, Any]:
    from .errors import OptionError

    out = {}
    for item in items:
        name, _, value = item.partition("=")
        try:
            out[name] = kind(value)
        except ValueError:
            raise OptionError(
                option,
                f"must be NAME={kind.__name__}",
                repr(item),
                "Write e.g. " + ("q=64" if kind is int else "sigma=0.8"),
            ) from None
    return out


def _problem(arguments: argparse.Namespace) -> tuple[Setup, dict[str, Any], str]:
    """Model, grid, state, times and solver options of what was asked for, and its text for the record."""
    from . import config, models
    from .errors import OptionError

    parameters = _pairs(arguments.parameter, "--parameter", float)
    if arguments.what.endswith(".toml"):
        if parameters:
            raise OptionError(
                "--parameter", "is for shipped models", arguments.what, "Set [model.parameters] in the file"
            )
        problem = config.read(arguments.what)
        setup = models.Setup(problem.model, problem.rho0.grid, problem.rho0, problem.times, problem.exact)
        options, text = problem.options, problem.text
    else:
        setup = models.setup(arguments.what, **parameters)
        lines = "".join(f"{k} = {v!r}\n" for k, v in parameters.items())
        options, text = dict(setup.options), f'[model]\nname = "{arguments.what}"\n' + (f"[model.parameters]\n{lines}" if lines else "")
    cells = _pairs(arguments.cells, "--cells", int)
    if cells:
        grid = setup.grid.with_cells(**cells)
        setup = models.Setup(setup.model, grid, setup.rho0.on(grid), setup.times, setup.exact, setup.options)
        text += "# cells: " + ", ".join(f"{k}={v}" for k, v in cells.items()) + "\n"
    for name in ("tol", "method", "positivity", "transport"):
        if getattr(arguments, name) is not None:
            options[name] = getattr(arguments, name)
    if arguments.no_grid_error:
        options["grid_error"] = False
    return setup, options, text


def _run(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from . import io
    from .kernels.warm import warm
    from .solver import solve

    setup, options, text = _problem(arguments)
    output = Path(arguments.output or Path(arguments.what).with_suffix(".nc").name)
    io.check_writable(output)
    if not arguments.quiet:
        seconds = warm("split") + warm("fv")
        if seconds > 1.0:
            print(f"{'kernels':>20}  compiled in {seconds:.1f} s (kept on disk for the next run)")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = solve(setup.model, setup.rho0, setup.times, progress=False if arguments.quiet else None, **options)
    solution.attrs["cqpde_config"] = text
    solution.attrs["history"] = "cqpde run " + arguments.what
    io.save(solution, output)
    from .errors import CqpdeWarning

    for warning in caught:
        if issubclass(warning.category, CqpdeWarning):
            print(f"cqpde: warning: {warning.message}", file=sys.stderr)
    if not arguments.quiet:
        print(solution.cq.summary())
        print(_moments(solution, setup))
        print(f"{'written':>20}  {output}")
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    from . import config, io
    from .dataset import grid_of
    from .errors import CqpdeError, FileError, OptionError
    from .report import validate
    from .solver import solve
    from .unravelling import unravel

    if arguments.output:
        io.check_writable(arguments.output)
    solution = io.load(arguments.file)
    if "rho" not in solution or not solution.attrs.get("cqpde_config"):
        raise FileError(arguments.file, "must hold full fields and the configuration", "neither or one", "Write it with 'cqpde run'")
    problem = config.parse_text(str(solution.attrs["cqpde_config"]), arguments.file)
    rho0, grid = problem.rho0, grid_of(solution)
    times = solution[str(solution["rho"].dims[0])].values
    span = [float(solution.t[0]), float(times[-1])]
    if span[1] <= span[0]:
        raise OptionError("FILE.nc", "must hold a field after the start", f"t = {span[1]:g}", "Keep the last frame")
    options: dict[str, Any] = {"tol": float(solution.attrs["tol"]), "method": str(solution.attrs["method"])}
    if solution.attrs["transport"] in ("upwind", "linear"):
        options["transport"] = solution.attrs["transport"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the coarser solutions serve the extrapolation alone
        coarse = []
        for factor in (1.5, 2.0):
            rough = grid.coarsened(factor)
            try:
                coarse.append(solve(problem.model, rho0.on(rough), span, grid_error=False, progress=False, **options))
            except CqpdeError as error:  # the comparison goes on with what is known of the grid error, and says so
                print(f"cqpde: warning: no solution on {rough}: {error}", file=sys.stderr)
                break
    if arguments.ensemble:
        ensemble = io.load(arguments.ensemble)
    else:
        ensemble = unravel(
            problem.model, rho0.on(grid), span, trajectories=arguments.trajectories, seed=arguments.seed, method=arguments.method,
            dt=arguments.dt, bias=True, progress=False if arguments.quiet else None,
        )  # fmt: skip
    report = validate(solution, ensemble, coarse=coarse, level=arguments.level)
    print(f"{report.verdict}, p = {report.p_value:.3g}" if arguments.quiet else str(report))
    if arguments.output:
        io.save(report.dataset, arguments.output)
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


def _models(arguments: argparse.Namespace) -> int:
    import inspect

    from . import models

    for name, make in models.CATALOGUE.items():
        module = inspect.getmodule(make)
        first = (module.__doc__ or "").strip().splitlines()[0]
        parameters = ", ".join(f"{k}={v.default}" for k, v in inspect.signature(make).parameters.items())
        print(f"{name}: {first}\n    parameters: {parameters}")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    from . import io

    print(io.describe(arguments.file))
    return 0


if __name__ == "__main__":
    sys.exit(main())
