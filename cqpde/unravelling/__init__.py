"""Trajectories: unravellings of the master equation, independent of the grid solvers."""

from .run import unravel

__all__ = ["unravel"]
