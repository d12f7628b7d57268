"""What ``cqpde run`` and ``cqpde resume`` share: the folder beside the output while a run goes on, and how a run ends.

``OUT.nc`` appears by a rename when the run is complete, and ``OUT.nc.run`` (see :mod:`cqpde.checkpoint`) goes then. A run that is stopped leaves
the folder, with the outputs so far as ``partial.nc`` in it, and ends with exit code 75.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import io
from .checkpoint import Keeper, locked
from .errors import CqpdeError, CqpdeWarning, FileError, Interrupted, OptionError, SolverError

if TYPE_CHECKING:
    import xarray as xr

#: Exit code of a run that can be resumed (EX_TEMPFAIL of sysexits.h, which batch systems know).
RESUMABLE = 75

SUFFIX = ".run"


def keeper_for(arguments: argparse.Namespace, output: Path, source: dict[str, Any]) -> Keeper:
    """What keeps the run whose result will be ``output``; refuses one that is kept there already."""
    keeper = Keeper(folder_of(output), arguments.checkpoint_every, arguments.max_walltime, f"'cqpde resume {output}'")
    if keeper.folder.exists() and not keeper.folder.is_dir():
        raise FileError(str(keeper.folder), "must be a folder or free, for checkpoints", "a file", "Move it, or choose another output")
    if arguments.discard and keeper.folder.is_dir():
        if in_use(keeper.folder):
            raise FileError(str(keeper.folder), "must not be in use", "another process works on this run", "Wait for it, or end it")
        keeper.remove()
    if (keeper.folder / "run.json").exists():
        raise FileError(str(keeper.folder), "must not hold a run already", "an interrupted one", f"Go on with it by {keeper.hint}, or start anew with --discard")
    keeper.source = source
    return keeper


def folder_of(output: Path) -> Path:
    """The folder of the run whose result will be ``output``."""
    return output.with_name(output.name + SUFFIX)


def finished(keeper: Keeper, output: Path, history: str, go: Callable[[], xr.Dataset], text: str) -> xr.Dataset | None:
    """Run, save the result as ``output`` and let the folder go; None if the run was stopped (its outputs are then in ``partial.nc``)."""
    with warnings_at_once():
        try:
            solution = go()
        except Interrupted as stop:
            print(f"cqpde: {stop}", file=sys.stderr)
            _save_partial(keeper, stop.partial, history, text)
            return None
        except SolverError:
            if any(keeper.folder.glob("state.?")):
                print(f"cqpde: the last good checkpoint is kept in {keeper.folder}; start anew with --discard", file=sys.stderr)
            raise
        solution.attrs |= _about(text, history)
        try:
            if getattr(solution, "encoding", {}).get("source") == str(output):  # its fields were written while the run went on
                io.annotate(output, _about(text, history))
            else:
                io.save(solution, output)
        except FileError as error:
            print(f"cqpde: {error} The run is kept in {keeper.folder}: free some space, then go on by {keeper.hint}", file=sys.stderr)
            return None
        keeper.remove()
        for stale in output.parent.glob(f".{output.name}.????????.part"):  # of a process that was killed while it wrote
            with contextlib.suppress(OSError):
                stale.unlink()
        return solution


def _about(text: str, history: str) -> dict[str, str]:
    return {"history": history} | ({"cqpde_config": text} if text else {})


def _save_partial(keeper: Keeper, partial: xr.Dataset | None, history: str, text: str) -> None:
    if partial is None:
        return
    partial.attrs |= _about(text, history)
    path = keeper.folder / "partial.nc"
    try:
        io.save(partial, path)
    except CqpdeError as error:
        print(f"cqpde: {error}", file=sys.stderr)
    else:
        print(f"cqpde: {len(partial.t)} outputs up to t = {float(partial.t[-1]):g} are in {path}", file=sys.stderr)


@contextlib.contextmanager
def warnings_at_once() -> Iterator[None]:
    """Print what a physicist should know when it is found, and no other warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", CqpdeWarning)
        warnings.showwarning = lambda message, *_, **__: print(f"cqpde: warning: {message}", file=sys.stderr, flush=True)
        yield


def find_run(what: str | None) -> Path:
    """The folder of the run that is meant: of an output, the folder itself, or the newest here that no process works on.

    Raises
    ------
    FileError
        If there is none.
    """
    if what is not None:
        for path in (Path(what), folder_of(Path(what))):
            if (path / "run.json").is_file():
                return path
        found = "the file is there, and no run" if Path(what).is_file() else "neither"
        raise FileError(what, f"must be the output of an interrupted run, or its folder {what}{SUFFIX}", found, "See 'ls -d *.run'")
    runs = [p.parent for p in Path().glob(f"*{SUFFIX}/run.json")]
    free = [p for p in runs if not in_use(p)]
    if not free:
        found = f"{len(runs)} that processes work on" if runs else f"no *{SUFFIX} here"
        raise FileError(str(Path.cwd()), "must hold an interrupted run", found, "Name its output: cqpde resume OUT.nc")
    return max(free, key=lambda p: max(f.stat().st_mtime for f in p.iterdir()))


def in_use(folder: Path) -> bool:
    """Whether a process works on the run in a folder."""
    try:
        with open(folder / "lock") as lock:
            return not locked(lock)
    except FileNotFoundError:
        return False


def configuration(folder: Path) -> tuple[str, str]:
    """Configuration and command of a run of ``cqpde run``; empty for another run, or if the record is damaged (which is said where it is read)."""
    try:
        source = json.loads((folder / "run.json").read_text())["source"]
        return str(source["config"]), str(source["command"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "", ""


def output_of(folder: Path, given: str | None) -> Path:
    """Where the result of a resumed run goes."""
    if given is not None:
        return Path(given)
    if folder.suffix != SUFFIX:
        raise OptionError("--output", "is needed for a folder that 'cqpde run' did not make", str(folder), "Write -o OUT.nc")
    return folder.with_suffix("")
