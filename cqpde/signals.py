"""SIGINT and SIGTERM as requests to end a run with a checkpoint. Imports nothing heavy, so that the command line listens from its start."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

#: What was asked for, while :func:`graceful_signals` is in effect.
asked: list[str] = []


@contextlib.contextmanager
def graceful_signals(active: bool = True) -> Iterator[None]:
    """While in effect, SIGINT and SIGTERM ask a run that is kept to write a checkpoint and end; a second one ends the process at once.

    Only the main thread can listen; elsewhere, and inside another such block, nothing changes.
    """
    if not active or threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is _ask:
        yield
        return
    before = {s: signal.signal(s, _ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        asked.clear()
        for s, handler in before.items():
            signal.signal(s, handler)


def _ask(number: int, _: Any) -> None:
    if asked:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    asked.append(f"signal {signal.Signals(number).name}")
