"""Trajectories: unravellings of the master equation, independent of the grid solvers."""

from .extension import correlation, extend, spectrum
from .run import unravel

__all__ = ["correlation", "extend", "spectrum", "unravel"]
