"""The command ``cqpde``: its arguments, help and exit codes. What the commands do is in :mod:`cqpde.commands`, loaded when it is needed."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any, NoReturn

EXIT_CODES = """exit codes:
  0  done (validate: agree)
  2  the input was refused, before any work; the message names argument, rule, value and remedy
  3  the run was stopped, because its result would not have been valid; nothing is written
  4  validate: disagree
  5  validate: inconclusive
  75 run, resume: stopped by a signal, --max-walltime or a full disk; 'cqpde resume' goes on with it"""


class _Parser(argparse.ArgumentParser):
    """A parser that suggests the nearest known word."""

    def error(self, message: str) -> NoReturn:
        from .errors import did_you_mean

        choice = re.search(r"invalid choice: '([^']*)'", message)
        unknown = re.search(r"unrecognized arguments: (--?[\w-]+)", message)
        if choice:
            name = message.split(":")[0].removeprefix("argument ")
            action = next((a for a in self._actions if a.choices and (a.metavar == name or name in a.option_strings)), None)
            if action is not None and action.choices is not None:
                message = f"{name}: unknown: '{choice[1]}'. {did_you_mean(choice[1], map(str, action.choices))}"
        elif unknown:
            message = f"unknown option {unknown[1]}. {did_you_mean(unknown[1], self.every_option())}"
        print(f"cqpde: {message}. See '{self.prog} --help'.", file=sys.stderr)
        raise SystemExit(2)

    def every_option(self) -> list[str]:
        """Long options of this parser and of its commands."""
        own = [o for a in self._actions for o in a.option_strings if o.startswith("--")]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                own += [o for p in action.choices.values() for o in p.every_option()]
        return list(dict.fromkeys(own))


def _parser() -> _Parser:
    parser = _Parser(
        prog="cqpde", description="Full hybrid distributions of classical-quantum master equations.", allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: cqpde run linear_diosi -o diosi.nc && cqpde plot diosi.nc\n\n" + EXIT_CODES,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, description: str, example: str) -> _Parser:
        return commands.add_parser(
            name, help=help, description=description, epilog=f"example: {example}", allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    run = command("run", "solve a TOML file or a shipped model and write netCDF", "Solve a model and write netCDF.", "cqpde run linear_diosi -p sigma=0.8 -o diosi.nc")
    run.add_argument("-o", "--output", metavar="FILE.nc", help="netCDF file to write, or .zarr (default: the name with .nc)")

    estimate = command(
        "estimate", "memory, disk space and time of a run", "Estimate what 'cqpde run' with the same arguments will take, from short runs on fewer cells.",
        "cqpde estimate linear_diosi --cells q=2000 --cells p=2000",
    )  # fmt: skip
    for sub in (run, estimate):
        sub.add_argument("what", metavar="FILE.toml|MODEL", help="a configuration file ('cqpde init' writes one), or a name out of 'cqpde models'")
        sub.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE", help="parameter of a shipped model (repeatable)")
        sub.add_argument("--cells", action="append", default=[], metavar="AXIS=N", help="other number of cells (repeatable)")
        sub.add_argument("--tol", type=float, help="bound of the time error, integrated trace norm")
        sub.add_argument("--method", help="auto (default), split or fv")
        sub.add_argument("--positivity", help="exact: every factor of the split route completely positive to round-off")
        sub.add_argument("--transport", help="fv: limited, upwind or linear; split with --positivity exact: shift or limited")
        sub.add_argument("--dt", type=float, help="equal steps of this length in place of step control (split, large grids)")
        sub.add_argument("--precision", help="of the state with --dt: double (default), or single in half the memory")
        sub.add_argument("--skip-below", type=float, help="with --dt: leave lines as they are whose numbers are all below this part of the largest (default 0: none)")
        sub.add_argument("--no-grid-error", action="store_true", help="do not estimate the grid error")
        sub.add_argument("--force", action="store_true", help="run although it takes more than 80 %% of the available memory")

    estimate.add_argument("--ranks", type=int, default=1, metavar="N", help="also the cost of a run shared between so many processes")
    estimate.add_argument("--machines", type=int, default=1, metavar="M", help="that these are on so many machines like this one")
    estimate.add_argument("--network", type=float, default=1e9, metavar="BYTES", help="that a process can send to other machines per second (default 1e9)")

    again = command(
        "resume", "go on with a run that was stopped",
        "Go on with a run from its last checkpoint: after a signal, --max-walltime, a crash, a full disk. The file is then, to the last bit but for\n"
        "wall-clock times, that of a run that was never stopped. Without a name: the newest interrupted run in this folder.", "cqpde resume diosi.nc",
    )  # fmt: skip
    again.add_argument("what", metavar="OUT.nc", nargs="?", help="the output of the run, or its folder (default: the newest OUT.nc.run here)")
    again.add_argument("-o", "--output", metavar="FILE.nc", help="file to write (default: the output that 'cqpde run' was given)")
    run.add_argument("--follow", action="store_true", help="on a moving window that follows the state along the axes with open ends")
    run.add_argument("--discard", action="store_true", help="start anew although an interrupted run of this output is kept")
    for sub in (run, again):
        sub.add_argument("--checkpoint-every", type=float, default=60.0, metavar="SECONDS", help="between checkpoints, kept in OUT.nc.run until the run is complete (default %(default)g)")
        sub.add_argument("--max-walltime", type=float, metavar="SECONDS", help="stop with a checkpoint after so long: exit code 75, as for SIGINT and SIGTERM")

    validate = command(
        "validate", "compare a solution with trajectories",
        "Compare a solution with an ensemble of trajectories of the same model. Exit code: 0 agree, 4 disagree, 5 inconclusive.",
        "cqpde validate diosi.nc --trajectories 50000 -o report.nc",
    )  # fmt: skip
    validate.add_argument("file", metavar="FILE.nc", help="a file that 'cqpde run' wrote with full fields")
    validate.add_argument("--ensemble", metavar="ENS.nc", help="compare with this ensemble instead of making one")
    validate.add_argument("--trajectories", type=int, default=50_000, help="size of the ensemble (default %(default)s)")
    validate.add_argument("--seed", type=int, default=1, help="seed of the ensemble (default %(default)s)")
    validate.add_argument("--method", default="instrument", help="instrument, euler-maruyama or weak-2 (default %(default)s)")
    validate.add_argument("--dt", type=float, help="longest step of the trajectories")
    validate.add_argument("--level", type=float, default=0.01, help="p-value below which to disagree (default %(default)s)")
    validate.add_argument("-o", "--output", metavar="REPORT.nc", help="netCDF file for the table")
    validate.add_argument("--figure", metavar="FIGURE.png", help="file for the figure (png, pdf, svg, ...; needs Matplotlib)")

    plot = command("plot", "draw a picture or a movie of a file", "Draw a picture of a solution, an ensemble or a report.", "cqpde plot diosi.nc --kind hybrid --time 0.5 -o diosi.pdf")
    plot.add_argument("files", metavar="FILE.nc", nargs="+", help="marginals: a solution and, after it, an ensemble; convergence: solutions on several grids")
    plot.add_argument("--kind", choices=("hybrid", "marginals", "bloch", "series", "movie", "report", "convergence"), help="default: what suits the file")
    plot.add_argument("--time", type=float, help="time (default: the last one)")
    plot.add_argument("--axes", metavar="AXIS[,AXIS]", type=lambda text: text.replace(",", " "), help="coordinates of the picture (default: the first two)")
    plot.add_argument("--dpi", type=int, default=150, help="resolution of bitmaps (default %(default)s)")
    plot.add_argument("--fps", type=int, default=10, help="pictures per second of a movie (default %(default)s)")
    plot.add_argument("-o", "--output", metavar="PICTURE", help="png, pdf, svg, ...; movies mp4 or gif (default: FILE_KIND.png)")

    view = command("view", "write an interactive HTML page of a file", "Write one self-contained HTML page: time slider, marginals, elements, conditional states.", "cqpde view diosi.nc -o diosi.html")
    view.add_argument("file", metavar="FILE.nc", help="a file with full fields")
    view.add_argument("-o", "--output", metavar="PAGE.html", help="page to write (default: the name with .html)")

    export = command("export", "write selected observables to a file", "Write selected observables as netCDF, Zarr or CSV.", "cqpde export diosi.nc --marginal q --observable 'expect q*sigmaz' -o q.csv")
    export.add_argument("file", metavar="FILE.nc", help="a file of cqpde")
    export.add_argument("--marginal", action="append", default=[], metavar="AXIS[,AXIS]", help="marginal density over these coordinates (repeatable)")
    export.add_argument("--observable", action="append", default=[], metavar="TEXT", help="'entropy mutual', 'coherence q', 'purity', ... (repeatable)")
    export.add_argument("--time", type=float, help="only the nearest time")
    export.add_argument("-o", "--output", metavar="FILE", required=True, help="file to write: .nc, .zarr or .csv")

    info = command("info", "describe a file", "Describe a file written by cqpde.", "cqpde info diosi.nc")
    info.add_argument("file", metavar="FILE.nc")
    models = command("models", "list the shipped models", "List the shipped models and their parameters.", "cqpde models")
    init = command("init", "print a configuration file to start from", "Print a commented TOML file for 'cqpde run'.", "cqpde init linear_diosi > my.toml")
    init.add_argument("model", metavar="MODEL", help="a name out of 'cqpde models', or one of the forms 'hamiltonian' and 'general'")

    for sub in (plot, view, export):
        sub.add_argument("--sites", metavar="SITE[,SITE]", type=_sites, help="of a file of solve_sites: the sites whose reduced state is meant (default: 1)")
    for sub in (run, estimate, again, validate, info, models):
        sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    for sub in (run, again, validate, plot, view, export):
        sub.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors" + (" and the verdict" if sub is validate else ""))
    return parser


def _sites(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers of sites such as 1,2; found {text!r}") from None


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments: Any = _parser().parse_args(argv)
    from .signals import graceful_signals

    with graceful_signals(arguments.command in ("run", "resume")):
        return _do(arguments)


def _do(arguments: Any) -> int:
    from . import commands
    from .errors import CqpdeError, SolverError
    from .parallel.world import first

    say = lambda text: print(text, file=sys.stderr) if first() else None
    try:
        return int(getattr(commands, arguments.command)(arguments))
    except SolverError as error:
        say(f"cqpde: stopped: {error}")
        return 3
    except CqpdeError as error:
        say(f"cqpde: {error}")
        return 2
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
