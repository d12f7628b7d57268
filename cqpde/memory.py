"""How much memory is there, and the refusal of what does not fit.

What counts is what the operating system can still give (of swap nothing) and what a control group (a container, a batch job) allows, whichever is less.
"""

from __future__ import annotations

from pathlib import Path

from .errors import OptionError

#: Part of the available memory that a run may take.
MOST = 0.8

#: Where control groups are, by version, with the files of limit and use.
GROUPS = (("/sys/fs/cgroup", "", "memory.max", "memory.current"), ("/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))


def available(root: str = "/") -> float:
    """Bytes that this process can still take.

    Parameters
    ----------
    root : str
        Where ``proc`` and ``sys`` are (for tests).
    """
    import psutil

    return min(float(psutil.virtual_memory().available), _left_in_groups(Path(root)))


def _left_in_groups(root: Path) -> float:
    """What the control groups of this process leave it; infinity where there are none, or no limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return float("inf")
    own = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2)}
    left = float("inf")
    for place, controller, limit, used in GROUPS:
        top = root / place.lstrip("/")
        path = next((p for names, p in own.items() if controller in names.split(",")), "/")
        here = top / path.lstrip("/")
        # a container sees its own group as the top; the limit of every group above counts too
        for folder in (here, *here.parents):
            if folder == top or top in folder.parents:
                left = min(left, _left(folder, limit, used))
    return left


def _left(folder: Path, limit: str, used: str) -> float:
    try:
        most = float((folder / limit).read_text())  # "max" where there is none
        taken = float((folder / used).read_text())
    except (OSError, ValueError):
        return float("inf")
    try:  # pages of files that are not in use can be given back
        lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        taken -= next((float(line[1]) for line in lines if line[0] in ("inactive_file", "total_inactive_file")), 0.0)
    except (OSError, ValueError, IndexError):
        pass
    return max(most - taken, 0.0)


def require_room(argument: str, what: str, need: float, remedy: str, most: float = MOST) -> None:
    """Refuse what needs more than a part of the available memory.

    Raises
    ------
    OptionError
        Naming the need and what there is.
    """
    there = available()
    if need > most * there:
        raise OptionError(
            argument, f"{what} must fit into {100 * most:.0f} % of the available memory", f"{size(need)} needed, {size(there)} available", remedy
        )


def size(count: float) -> str:
    """Bytes in words."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if count < 1000 or unit == "PB":
            break
        count /= 1000.0
    return f"{count:.3g} {unit}"
