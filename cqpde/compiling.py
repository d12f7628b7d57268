"""The compiler of the kernels: Numba, with its code kept on disk where that is possible, and never at the cost of a run.

Numba's own cache ends the process where no folder can be written, where the disk is full or a file in it is cut. Two processes that fill one
folder at once may find the code of another signature under their own. And code of one file that is compiled into that of another is not
renewed when the first changes. Here all of these are a miss: the kernel is compiled again.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache

from .errors import CqpdeWarning

#: Why compiled code is not kept, once that has been said.
told: list[str] = []


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a kernel: :func:`numba.njit` with these options, its code kept on disk where a folder can be written."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = njit(**options)(function)
        if dispatcher is not function:  # NUMBA_DISABLE_JIT
            try:
                dispatcher._cache = _Kept(function)
            except (RuntimeError, OSError):  # Numba finds no folder
                dispatcher._cache = _NotKept()
        return dispatcher

    return decorate


class _NotKept(NullCache):
    """Keeps nothing, and says so when something has been compiled."""

    def save_overload(self, sig: Any, data: Any) -> None:
        """See Numba's class."""
        _tell("no folder can be written")


class _Kept(FunctionCache):
    """Numba's cache, whose failures are misses."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp = _digest(Path(function.__code__.co_filename).parent)
        self._cache_file = IndexDataCacheFile(self._cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """See Numba's class."""
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # whatever a damaged file does to its reader
            return None
        if found is not None and tuple(found.signature.args) != tuple(getattr(sig, "args", sig)):
            return None  # two processes gave one name to two files at once
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """See Numba's class."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _tell(error.strerror or str(error))
        except Exception:  # the index is damaged
            self._begin_again(sig, data)

    def _begin_again(self, sig: Any, data: Any) -> None:
        try:
            self.flush()
            super().save_overload(sig, data)
        except Exception as error:
            _tell(str(error)[:100])


@cache
def _digest(folder: Path) -> str:
    """Digest of all files of a folder that hold kernels, or what they are made of: one may be compiled into another."""
    sources = [path.read_bytes() for path in sorted(folder.glob("*.py"))]
    return hashlib.sha256(b"".join(source for source in sources if any(word in source for word in (b"@kernel(", b"@intrinsic", b"on_rows(")))).hexdigest()


def _tell(why: str) -> None:
    if not told:
        told.append(why)
        warnings.warn(f"compiled kernels cannot be kept ({why}): every process compiles its own. Set NUMBA_CACHE_DIR to a folder with space", CqpdeWarning, stacklevel=2)
