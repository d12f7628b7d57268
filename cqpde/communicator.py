"""Processes that do something together (mpi4py communicators): refusals that reach all, the keeper of the first process, cores shared on a machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .checkpoint import Keeper, NoKeeper
from .errors import CqpdeError, OptionError

Array = np.ndarray


def together(comm: Any, action: Callable[[], Any]) -> Any:
    """Do something on the first process alone; what it returns, or the refusal that it raises, reaches all."""
    error: Exception | None = None
    value = None
    if comm.rank == 0:
        try:
            value = action()
        except Exception as raised:
            error = raised
    told = comm.bcast(travelling(error))
    if told is not None:
        raise error or told
    return comm.bcast(value)


def agree(comm: Any, action: Callable[[], Any]) -> Any:
    """Do something on every process (a collective call); where one is refused, all are, with the words of the first."""
    error: Exception | None = None
    value = None
    try:
        value = action()
    except Exception as raised:
        error = raised
    first = next((told for told in comm.allgather(travelling(error)) if told is not None), None)
    if first is not None:
        raise first from error
    return value


def travelling(error: Exception | None) -> Exception | None:
    """An error as it goes to other processes: one that a user's function raised may not be known there."""
    return error if error is None or isinstance(error, CqpdeError) else RuntimeError(f"{type(error).__name__}: {error}")


def processes_here(comm: Any) -> int:
    """How many processes are on this machine (a collective call)."""
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    try:
        return int(node.size)
    finally:
        node.Free()


class Follower(NoKeeper):
    """What the other processes have in place of the keeper of the first one."""

    def __init__(self, record: dict[str, Any] | None = None, initial: dict[str, Array] | None = None, folder: Any = None) -> None:
        self.record, self.initial, self.folder, self.source = record, initial or {}, folder, (record or {}).get("source", {})
        self.resumes, self.keeps = record is not None, True


def require_communicator(comm: Any) -> bool:
    """Whether a communicator has several processes; refuses what is none."""
    if comm is None:
        return False
    if not all(hasattr(comm, name) for name in ("rank", "size", "bcast", "Alltoallw")):
        raise OptionError("comm", "must be an mpi4py communicator", repr(comm), "Pass mpi4py.MPI.COMM_WORLD")
    return bool(comm.size > 1)


def shared_keeper(comm: Any, make: Callable[[], NoKeeper]) -> NoKeeper:
    """The keeper of a shared run: made on the first process, which alone writes; the others follow it."""
    mine = NoKeeper()

    def first() -> bool:
        nonlocal mine
        mine = make()
        return mine.keeps

    keeps = together(comm, first)
    return Follower() if keeps and comm.rank else mine


def shared_reopen(comm: Any, keeper: Keeper) -> NoKeeper:
    """The keeper of a run that is resumed, its record and arrays read by the first process."""

    def first() -> tuple[Any, Any]:
        keeper.reopen()
        return keeper.record, keeper.initial

    record, initial = together(comm, first)
    return Follower(record, initial, keeper.folder) if comm.rank else keeper
