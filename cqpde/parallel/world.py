"""The processes that a command was started on (``mpiexec -n 4 cqpde run ...``)."""

from __future__ import annotations

import os
from typing import Any

from ..errors import OptionError

#: Where MPI libraries tell their processes how many there are: MPICH and its kin, Open MPI, Slurm's PMIx.
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS")


def world() -> Any:
    """The communicator of all processes, or None where there is one only.

    Raises
    ------
    OptionError
        If there are several and mpi4py is missing.
    """
    if not many():
        return None
    try:
        from mpi4py import MPI
    except ImportError:
        raise OptionError("mpiexec", "needs mpi4py", "it is not installed", 'pip install "cqpde[mpi]"') from None
    return MPI.COMM_WORLD if MPI.COMM_WORLD.size > 1 else None


#: Where they tell a process its number.
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK")


def first() -> bool:
    """Whether this is the first process, or the only one: the one that speaks."""
    return all(os.environ.get(name, "0").strip() in ("", "0") for name in RANKS)


def many() -> bool:
    """Whether the command was started on several processes."""
    return any(os.environ.get(name, "1").strip() not in ("", "0", "1") for name in SIZES)
