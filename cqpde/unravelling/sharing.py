"""Chunks of an ensemble done by threads, by processes (MPI) or by Dask workers; whoever does them, their parts come in the order of the chunks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..communicator import processes_here, travelling
from ..errors import OptionError
from .plan import Part

#: A chunk: its number, trajectories, how many of them are stored, and whether it is the pilot.
Task = tuple[int, int, int, bool]
Work = Callable[[int, int, int, bool], Part]


def by_threads(work: Work, tasks: Sequence[Task], threads: int) -> Iterator[Part]:
    """Parts of the tasks in order, so many at a time, and as many done ahead."""
    flights: deque[Any] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for task in tasks:
                flights.append(pool.submit(work, *task))
                if len(flights) >= 2 * threads:
                    yield flights.popleft().result()
            while flights:
                yield flights.popleft().result()
        finally:
            for future in flights:
                future.cancel()


def by_processes(work: Work, tasks: Sequence[Task], threads: int, comm: Any) -> Iterator[Part]:
    """The same on the first process of a communicator, the tasks being dealt out in turn; the others :func:`follow`."""
    own = by_threads(work, tasks[:: comm.size], threads)
    waiting: set[int] = set()  # processes whose part is here and which have no reply yet
    left = [len(tasks[rank :: comm.size]) for rank in range(comm.size)]
    try:
        for k in range(len(tasks)):
            rank = k % comm.size
            if rank == 0:
                part = next(own)
            else:
                part = comm.recv(source=rank)
                waiting.add(rank)
                if isinstance(part, Exception):
                    raise part
            yield part
            if rank:
                comm.send(True, rank)
                waiting.discard(rank)
            left[rank] -= 1
    finally:
        own.close()  # type: ignore[attr-defined]
        for rank in range(1, comm.size):
            if left[rank]:
                if rank not in waiting:
                    comm.recv(source=rank)
                comm.send(False, rank)


def follow(work: Work, tasks: Sequence[Task], threads: int, comm: Any) -> None:
    """Do this process's tasks and send their parts to the first one, until it says stop or all are done."""
    mine = by_threads(work, tasks[comm.rank :: comm.size], threads)
    for _ in tasks[comm.rank :: comm.size]:
        try:
            part: Any = next(mine)
        except Exception as error:  # the first process raises it
            part = travelling(error)
        comm.send(part, 0)
        if not comm.recv(source=0):
            break
    mine.close()  # type: ignore[attr-defined]


def by_dask(work: Work, tasks: Sequence[Task], client: Any) -> Iterator[Part]:
    """The same by the workers of a Dask client, twice as many at a time as they have threads."""
    flights: deque[Any] = deque()
    most = max(4, 2 * sum(client.nthreads().values()))
    sent = client.scatter(work, broadcast=True, hash=False)
    try:
        for task in tasks:
            flights.append(client.submit(_do, sent, *task, pure=False))
            if len(flights) >= most:
                yield flights.popleft().result()
        while flights:
            yield flights.popleft().result()
    finally:
        client.cancel(list(flights))


def _do(work: Work, chunk: int, size: int, stored: int, pilot: bool) -> Part:
    """A task on a worker."""
    return work(chunk, size, stored, pilot)


def share_of_threads(threads: int | None, comm: Any) -> int | None:
    """Threads of each process, if they are not given: the cores of a machine divided between its processes."""
    if threads is not None or comm is None or comm.size == 1:
        return threads
    import numba

    return max(1, int(numba.get_num_threads()) // processes_here(comm))


def require_client(client: Any, comm: Any, threads: Any) -> None:
    """Refuse what is no Dask client or a closed one, and one beside a communicator or a number of threads.

    Raises
    ------
    OptionError
    """
    if client is None:
        return
    if not all(hasattr(client, name) for name in ("submit", "scatter", "nthreads", "cancel")):
        raise OptionError("client", "must be a dask.distributed.Client", type(client).__name__, "Make it with distributed.Client(...)")
    for name, other in (("comm", comm), ("threads", threads)):
        if other is not None:
            raise OptionError("client", f"and {name} exclude each other", "both", "Give one of them")
    if getattr(client, "status", "running") in ("closing", "closed"):
        raise OptionError("client", "must be connected to its scheduler", client.status, "Make a new one with distributed.Client(...)")
