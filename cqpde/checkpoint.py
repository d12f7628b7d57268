"""Checkpoints of a run: what is kept so that :func:`cqpde.resume` ends with the same bits as a run that was never interrupted.

The folder of a run (``OUT.nc.run`` beside the file that ``cqpde run`` will write, or the folder given as ``checkpoint=``) holds

``run.json``          how the run is made again: model as text or a note that it was given in Python, options, grid, versions;
``initial``           initial states, times, constant and sampled coefficients;
``state.0 state.1``   two generations of the state of the integrator, the newer with the higher ``serial``: if it is damaged the other serves;
``frames.A.NNNNN``    outputs since the checkpoint before, from number NNNNN on, of attempt A (a run that changes its route starts again);
``grid_error``        a folder of the same kind for the second run that estimates the grid error;
``diagnostics.csv``   one line per output, for looking on while the run goes on;
``partial.nc``        what there was when the run was stopped, written by ``cqpde run``;
``begun``             appears with the first state: without it a folder with no state is that of a run which had not begun to step;
``lock``              held while a process works on the run.

Run, states and frames are :mod:`cqpde.container` files or JSON: written beside, synced, renamed, with digests; nothing is pickled or executed.
Integrators *offer* their state after every accepted step; it is written when ``every`` seconds have passed (and twenty times what the
writing takes), when a signal came, when the time is up, and at the end. A checkpoint that cannot be written (disk full) does not end the run.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from . import container
from .errors import CqpdeWarning, FileError, Interrupted, OptionError
from .signals import asked

try:
    import fcntl
except ImportError:  # not POSIX: two processes on one run are not kept apart there
    fcntl = None  # type: ignore[assignment]

Array = np.ndarray
Arrays = dict[str, Array]

#: Writing may take this share of the time at most.
SHARE = 0.05

#: Seconds that the record of a run takes to be written, about.
RECORD = 0.1

#: Bytes per second that a disk is trusted with before anything was written to it.
SPEED = 1e8

FORMAT = 1

#: What may be in the folder of a run.
FILES = re.compile(r"run\.json|initial|state\.[01]|frames\.\d+\.\d+|grid_error|diagnostics\.csv|partial\.nc|begun|lock|\..*\.part")

#: Most checkpoints of a run.
MOST = 1 << 62


class Records(Protocol):
    """What records the outputs of a run."""

    @property
    def total(self) -> int:
        """Outputs of the whole run."""

    @property
    def count(self) -> int:
        """Outputs so far."""

    def part(self, start: int, stop: int) -> tuple[Arrays, dict[str, Any]]:
        """Outputs ``start <= k < stop``, for a checkpoint."""

    def size(self, start: int, stop: int) -> int:
        """Bytes of their arrays, about."""

    def put(self, start: int, stop: int, arrays: Arrays, record: dict[str, Any]) -> None:
        """Put back what :meth:`part` gave."""

    def columns(self) -> list[str]:
        """Names of the diagnostics."""

    def row(self, k: int) -> list[float]:
        """Diagnostics of an output."""


class Saved:
    """The state in a checkpoint; what is not of the kind that the run expects is refused."""

    def __init__(self, path: Path, arrays: Arrays, record: dict[str, Any]) -> None:
        self.path, self.arrays, self.record = path, arrays, record

    def array(self, name: str, *shape: int, dtype: Any = float) -> Array:
        """An array of this shape and precision; it is given away."""
        found = self.arrays.pop(name, None)
        if found is None or found.shape != shape or found.dtype != dtype:
            raise self.refused(name, f"numbers of shape {shape}", "nothing" if found is None else f"{found.dtype} {found.shape}")
        return found

    def number(self, name: str) -> float:
        """A number."""
        found = self.record.get(name)
        if not isinstance(found, int | float) or isinstance(found, bool):
            raise self.refused(name, "a number", repr(found)[:80])
        return float(found)

    def count(self, name: str, least: int, most: int) -> int:
        """An integer in these bounds."""
        found = self.record.get(name)
        if type(found) is not int or not least <= found <= most:
            raise self.refused(name, f"an integer from {least} to {most}", repr(found)[:80])
        return found

    def fields(self, name: str, like: Any) -> dict[str, Any]:
        """Values for the fields of ``like``, a dataclass of numbers."""
        found = self.record.get(name)
        known = vars(like)
        numbers = isinstance(found, dict) and all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in found.values())
        if not numbers or set(found or ()) != set(known):
            raise self.refused(name, f"the numbers {', '.join(known)}", repr(found)[:80])
        return dict(found or {})

    def cells(self, name: str, most: tuple[int, ...]) -> tuple[int, ...]:
        """Numbers of cells, at most ``most``."""
        found = self.record.get(name)
        good = isinstance(found, list) and len(found) == len(most) and all(type(n) is int and 1 <= n <= m for n, m in zip(found, most, strict=True))
        if not good:
            raise self.refused(name, f"numbers of cells up to {most}", repr(found)[:80])
        return tuple(found or ())

    def refused(self, name: str, rule: str, found: str) -> FileError:
        """The error that says what is wrong."""
        return FileError(str(self.path), f"{name!r} must be {rule}", found, "The checkpoint is damaged or of another run")


Make = Callable[[], tuple[Arrays, dict[str, Any]]]


class NoKeeper:
    """Keeps nothing: the default of every run."""

    resumed: Saved | None = None
    keeps = False
    resumes = False
    left = ""
    before = 0.0
    recorder: Records | None = None
    folder: Path = Path()
    record: dict[str, Any] | None = None  # of a run that is resumed
    initial: Arrays
    check: Callable[[Any], None] | None = None  # what a resumed ensemble must pass before it goes on

    def attach(self, recorder: Records) -> None:
        """Tell what records the outputs; those before a resumed state are put back into it."""
        self.recorder = recorder

    def recorded(self) -> None:
        """Take notice of an output."""

    def offer(self, index: int, make: Make) -> None:
        """Take notice of an accepted step.

        Parameters
        ----------
        index : int
            Number of outputs that have been recorded.
        make : callable
            Gives the arrays and numbers from which the integrator can go on; called only if they are to be written.

        Raises
        ------
        Interrupted
            If the run is to end.
        """

    def due(self, index: int) -> bool:
        """Whether :meth:`offer` would write now, or end the run."""
        return False

    def leave(self, reason: str) -> None:
        """Another route begins at the start: what was kept of the one before does not count."""

    def child(self, name: str) -> NoKeeper:
        """What keeps a second run that belongs to this one."""
        return self

    def abandon(self) -> None:
        """Delete the folder of a run that was refused or failed before its first checkpoint."""

    def close(self) -> None:
        """Let go of the folder."""


class Keeper(NoKeeper):
    """Keeps a run in a folder (see the module's docstring).

    Parameters
    ----------
    folder : path
    every : float
        Seconds between checkpoints; 0: after every step, whatever that costs.
    max_walltime : float, optional
        Seconds after which the run is to end with a checkpoint, after one more step at least.
    hint : str, optional
        The command that goes on with the run.
    """

    keeps = True

    def __init__(self, folder: str | Path, every: float = 60.0, max_walltime: float | None = None, hint: str = "") -> None:
        for name, value, least in (("checkpoint_every", every, -1e-300), ("max_walltime", max_walltime, 0.0)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float | np.number) or not least < value < float("inf")):
                raise OptionError(name, "must be a positive number of seconds", repr(value), "Try 60")
        self.folder, self.every = Path(folder), float(every)
        self.hint = hint or f"cqpde.resume({str(folder)!r})"
        self.deadline = time.monotonic() + max_walltime if max_walltime is not None else float("inf")
        self.source: dict[str, Any] = {}  # what the caller wants to find again in run.json
        self.record: dict[str, Any] | None = None  # of a run that is resumed
        self.initial: Arrays = {}
        self._serial = self._kept = self._attempt = 0
        self._began = time.monotonic()
        self._written, self._busy = self._began, 0.0
        self._t = float("nan")
        self._digest = ""
        self._make: Callable[[], tuple[dict[str, Any], Arrays]] | None = None  # until the record is written
        self._children: list[Keeper] = []
        self._parent: Keeper | None = None
        self._pending: tuple[int, Make] | None = None  # the end of the run, where it was not worth writing
        self._mine = False  # whether the run was begun here
        self._lock: Any = None
        self._csv: Any = None

    @property
    def _run(self) -> str:
        """What ties states and outputs to their run."""
        return self._digest if self._parent is None else self._parent._run

    # -- beginning -----------------------------------------------------------------------------------------------------
    def begin(self, make: Callable[[], tuple[dict[str, Any], Arrays]], need: float = 0.0) -> None:
        """Start a new run in the folder, whose files will take up to ``need`` bytes; ``make`` gives its record and initial arrays.

        They are written when the run has taken two seconds, or when it is stopped: a shorter run leaves nothing.

        Raises
        ------
        FileError
            If the folder holds a run already, cannot be made, or its disk has less space.
        """
        self.require_new()
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise FileError(str(self.folder), "must be a folder that can be made", error.strerror or str(error), "Choose another path") from None
        self._hold()
        self._clear("lock")  # of a run that ended before anything was kept
        self.require_space(need)
        self._make, self._mine = make, True
        if self.every == 0.0:
            try:
                self._write_record()
            except (OSError, FileError):
                self.abandon()
                raise

    def _write_record(self) -> None:
        if self._parent is not None and self._parent._pending is not None:
            (index, make), self._parent._pending = self._parent._pending, None
            self._parent.write(index, *make())
        if self._make is None:
            return
        record, arrays = self._make()
        container.write(self.folder / "initial", arrays, {})
        text = json.dumps({"format": FORMAT, **record, "source": self.source, "versions": versions()}, indent=1)
        self._digest = hashlib.sha256(text.encode()).hexdigest()
        beside = self.folder / ".run.json.part"
        with open(beside, "w") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, self.folder / "run.json")
        container.sync_folder(self.folder)
        self._make = None

    def require_new(self) -> None:
        """Refuse a folder that holds a run already, or something else."""
        if self.folder.is_dir():
            others = [p.name for p in self.folder.iterdir() if not FILES.fullmatch(p.name)]
            if others:
                raise FileError(str(self.folder), "must be a new or an empty folder", ", ".join(others[:3]), "Choose another path")
        if (self.folder / "run.json").exists():
            raise FileError(str(self.folder), "must not hold a run already", "an interrupted one", f"Go on with it by {self.hint}, or delete the folder")

    def require_space(self, need: float) -> None:
        """Refuse a disk with less than ``need`` free bytes."""
        free = container.free_bytes(self.folder if self.folder.is_dir() else self.folder.parent)
        if need > free:
            if not (self.folder / "run.json").exists():
                self.remove()
                remedy = "Free some, choose another path, or keep fewer fields (frames=, save=)"
            else:
                remedy = f"Free some, then go on by {self.hint}"
            raise FileError(str(self.folder), f"needs up to {container.in_bytes(need)} for checkpoints and result", f"{container.in_bytes(free)} free there", remedy)

    def reopen(self) -> None:
        """Read the run of the folder into ``record`` and ``initial``; the newest good state is then in ``resumed``.

        Raises
        ------
        FileError
            If there is none, it is damaged, in use, of another version, or has no good checkpoint: it is never begun anew in silence.
        """
        path = self.folder / "run.json"
        if not path.is_file():
            found, remedy = "no run.json", "Give the folder of an interrupted run"
            if (self.folder / "lock").exists():
                found, remedy = "none: it ended in its first seconds, before anything was kept", "Start it again"
            raise FileError(str(self.folder), "must hold a run", found, remedy)
        self._hold()
        try:
            if path.stat().st_size > container.MOST_RECORD:
                raise ValueError("too long")
            text = path.read_bytes()
            record = json.loads(text)
            if record["format"] != FORMAT:
                raise ValueError(f"format {record['format']!r}")
            old = {str(k): str(v) for k, v in record["versions"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FileError(str(path), "must be the record of a run", str(error)[:100], "It is damaged, or not one of cqpde's") from None
        self._digest = hashlib.sha256(text).hexdigest()
        _compare_versions(old, str(path))
        self.initial, _ = container.read(self.folder / "initial")
        self.record, self.resumes = record, True
        self._resume_newest(begun=True)

    def _resume_newest(self, begun: bool) -> None:
        found, bad = [], []
        for name in ("state.0", "state.1"):
            if (self.folder / name).exists():
                try:
                    saved = Saved(self.folder / name, *container.read(self.folder / name))
                    if saved.record.get("run") != self._run:
                        raise FileError(str(saved.path), "must be of this run", "another run's", "It was copied from elsewhere")
                    found.append(saved)
                except FileError as error:
                    bad.append(error)
        if found:
            best = max(found, key=lambda s: s.count("serial", 1, MOST))
            for damage in bad:
                warnings.warn(f"{damage} The other checkpoint is used (t = {best.number('t'):.6g})", CqpdeWarning, stacklevel=5)
            self._serial, self._attempt = best.count("serial", 1, MOST), best.count("attempt", 0, 1)
            self._t, self.before, self.left = best.number("t"), best.number("seconds"), str(best.record.get("left", ""))
            self.resumed = best
        elif bad or (self.folder / "begun").exists():
            why = str(bad[0]) if bad else "there is none"
            raise FileError(str(self.folder), "must hold a good checkpoint", why, "Delete the folder and start the run again; nothing was begun anew by itself")
        elif begun:
            warnings.warn(f"{self.folder}: the run had not come to its first checkpoint; it starts at its first time", CqpdeWarning, stacklevel=5)

    def _hold(self) -> None:
        """Refuse a folder that another process is using."""
        if self._lock is not None:
            return
        self._lock = open(self.folder / "lock", "w")  # noqa: SIM115 - held while the run goes on
        if not locked(self._lock):
            self._lock.close()
            self._lock = None
            raise FileError(str(self.folder), "must not be in use", "another process works on this run", "Wait for it, or end it")

    # -- going on ------------------------------------------------------------------------------------------------------
    def attach(self, recorder: Records) -> None:
        """See :meth:`NoKeeper.attach`."""
        self.recorder, self._kept, self.initial = recorder, 0, {}  # what the run needs of it has been read
        upto = self.resumed.count("index", 0, recorder.total) if self.resumed else 0
        while self._kept < upto:
            arrays, record = container.read(self._frames(self._kept))
            stop = record.get("stop")
            if record.get("run") != self._run or type(stop) is not int or not self._kept < stop <= upto:
                raise FileError(str(self._frames(self._kept)), f"must hold outputs up to {upto} of this run", repr(stop), "It is damaged")
            try:
                recorder.put(self._kept, stop, arrays, record)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                raise FileError(str(self._frames(self._kept)), "must hold what the run records", str(error)[:100], "It is damaged") from None
            self._kept = stop
        for path in self.folder.glob(f"frames.{self._attempt}.*"):
            if path.name.split(".")[-1].isdigit() and int(path.name.split(".")[-1]) >= upto:
                path.unlink()
        if self._csv is not None:
            with contextlib.suppress(OSError):
                self._csv.close()
            self._csv = None
        with contextlib.suppress(OSError):  # a full disk does not end the run
            self._csv = open(self.folder / "diagnostics.csv", "w", buffering=1, newline="")  # noqa: SIM115 - open while the run goes on
            csv.writer(self._csv).writerow(recorder.columns())
            csv.writer(self._csv).writerows(recorder.row(k) for k in range(upto))
        self._record_in_time()
        if asked:  # a limit of time ends a run after a step at the earliest: whoever resumes it gets on
            self._stop(asked[0], self._keep(self._write_record))

    def _record_in_time(self) -> None:
        if self._make is not None and time.monotonic() - self._began >= RECORD / SHARE:
            self._keep(self._write_record)

    def _frames(self, k: int) -> Path:
        return self.folder / f"frames.{self._attempt}.{k:05d}"

    def recorded(self) -> None:
        """Write the line of the newest output."""
        if self._csv is not None and self.recorder is not None:
            with contextlib.suppress(OSError):  # a full disk does not end the run
                csv.writer(self._csv).writerow(self.recorder.row(self.recorder.count - 1))

    def _reason(self) -> str:
        """Why the run is to end now; empty if it is not."""
        if asked:
            return asked[0]
        return "the wall-clock limit was reached" if time.monotonic() > self.deadline else ""

    def due(self, index: int) -> bool:
        """Whether a state would be written now, or the run is to end."""
        waited = time.monotonic() - self._written
        last = self.recorder is not None and index >= self.recorder.total
        cheap = self.every == 0.0 or waited >= max(self._busy, self._size(index) / SPEED) / SHARE
        return bool(self._reason()) or (cheap and (waited >= self.every or last))

    def offer(self, index: int, make: Make) -> None:
        """See :meth:`NoKeeper.offer`."""
        self._record_in_time()
        if self.due(index):
            self._stop(self._reason(), self.write(index, *make()))
        elif self.recorder is not None and index >= self.recorder.total:
            self._pending = (index, make)

    def _size(self, index: int) -> int:
        """Bytes of the outputs that a checkpoint would write."""
        return self.recorder.size(self._kept, index) if self.recorder is not None else 0

    def _stop(self, why: str, good: bool) -> None:
        if why:
            if not good and not (self.folder / "run.json").exists():
                raise Interrupted("run", "was stopped, and no checkpoint could be written", why, "Free some space and start it again")
            rest = "" if good else f" (its last checkpoint could not be written; the one before is at t = {self._t:.6g})"
            raise Interrupted("run", "was stopped and can be resumed" + rest, why, f"Go on by {self.hint}")

    def write(self, index: int, arrays: Arrays, scalars: dict[str, Any]) -> bool:
        """Write the outputs since the last checkpoint, and the state; a failure is told and leaves the last good checkpoint as it is."""
        return self._keep(lambda: self._write_state(index, arrays, scalars))

    def _write_state(self, index: int, arrays: Arrays, scalars: dict[str, Any]) -> None:
        began = time.monotonic()
        self._write_record()
        if self.recorder is not None and index > self._kept:
            part, record = self.recorder.part(self._kept, index)
            container.write(self._frames(self._kept), part, {**record, "run": self._run, "stop": index})
            self._kept = index
        about = {"index": index, "serial": self._serial + 1, "attempt": self._attempt, "run": self._run, "left": self.left}
        about["seconds"] = self.before + began - self._began
        container.write(self.folder / f"state.{(self._serial + 1) % 2}", arrays, {**scalars, **about})
        self._serial += 1
        self._t = float(scalars["t"])
        if self._serial == 1:
            (self.folder / "begun").touch()
        self._written = time.monotonic()
        self._busy = self._written - began

    def _keep(self, write: Callable[[], None]) -> bool:
        """Write something; whether it went well. A failure is told, and tried again after ``every`` seconds."""
        try:
            write()
            return True
        except (FileError, OSError) as error:
            at = f"the last one is at t = {self._t:.6g}" if self._serial else "there is none yet"
            warnings.warn(f"checkpoint: {error} The run goes on; {at}. If it ends too early: {self.hint}", CqpdeWarning, stacklevel=4)
            self._written = time.monotonic()
            return False

    def leave(self, reason: str) -> None:
        """See :meth:`NoKeeper.leave`."""
        self.resumed, self.left = None, reason
        self._kept, self._attempt = 0, self._attempt + 1

    def child(self, name: str) -> NoKeeper:
        """See :meth:`NoKeeper.child`."""
        other = type(self)(self.folder / name, self.every, None, self.hint)
        other.deadline, other._parent = self.deadline, self
        try:
            other.folder.mkdir(exist_ok=True)
            other._hold()
        except OSError as error:
            raise FileError(str(other.folder), "must be a folder that can be made", error.strerror or str(error), "Free some space") from None
        self._children.append(other)
        if self.resumes:
            try:
                other._resume_newest(begun=False)
            except FileError as error:  # the run itself is safe
                warnings.warn(f"{error} The {name} run starts at its first time", CqpdeWarning, stacklevel=4)
        return other

    def abandon(self) -> None:
        """See :meth:`NoKeeper.abandon`."""
        if self._mine and not any(self.folder.glob("state.?")):
            self.remove()

    def close(self) -> None:
        """Let go of the folder."""
        for other in self._children:
            other.close()
        for handle in (self._lock, self._csv):
            if handle is not None:
                with contextlib.suppress(OSError):
                    handle.close()
        self._lock = self._csv = None

    def remove(self) -> None:
        """Delete the folder of a run whose result is safe; what is not of a run stays."""
        self.close()
        self._clear()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _clear(self, *stay: str) -> None:
        for folder in (self.folder / "grid_error", self.folder):
            with contextlib.suppress(OSError):
                for path in folder.iterdir():
                    if FILES.fullmatch(path.name) and path.name not in stay and not path.is_dir():
                        path.unlink()
        with contextlib.suppress(OSError):
            (self.folder / "grid_error").rmdir()


def locked(handle: Any) -> bool:
    """Lock an open file for this process until it is closed; False if another process holds it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def keeper_of(checkpoint: Any, every: Any, max_walltime: Any) -> NoKeeper:
    """What keeps a run, from the arguments of :func:`cqpde.solve` and :func:`cqpde.unravel`."""
    if isinstance(checkpoint, NoKeeper):
        return checkpoint
    if checkpoint is None:
        if max_walltime is not None:
            raise OptionError("max_walltime", "needs a folder to stop into", "checkpoint=None", "Give checkpoint='FOLDER' as well")
        return NoKeeper()
    if not isinstance(checkpoint, str | os.PathLike):
        raise OptionError("checkpoint", "must be the path of a folder", repr(checkpoint)[:80], "Write e.g. checkpoint='run1'")
    keeper = Keeper(os.fspath(checkpoint), every, max_walltime)
    parent = keeper.folder.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK) or (keeper.folder.exists() and not keeper.folder.is_dir()):
        raise FileError(str(keeper.folder), "must be a folder that can be made", f"{parent} is no writable folder, or a file is there", "Choose another path")
    keeper.require_new()
    return keeper


def versions() -> dict[str, str]:
    """Versions on which the bits of a result may depend."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("cqpde", "numpy", "scipy", "numba")}}


def _compare_versions(old: dict[str, str], path: str) -> None:
    changed = [f"{k} {old.get(k)} -> {v}" for k, v in versions().items() if old.get(k) != v]
    if any(c.startswith("cqpde ") for c in changed):
        raise FileError(path, "must be of this version of cqpde", ", ".join(changed), "Resume with the version that began the run")
    if changed:
        warnings.warn(f"versions changed since the run began ({', '.join(changed)}): the last bits may differ", CqpdeWarning, stacklevel=5)
