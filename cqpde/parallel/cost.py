r"""What a step of a shared run costs each process: bytes that its sweeps touch, bytes that it sends, how often it waits, and the time of these.

With ``V`` the bytes of the state (8 d^2 per cell and state of the batch) and ``P`` processes on machines of ``c`` cores,

.. math:: T = \frac{S_1}{s(\min(P', c))\,M} + \frac{B}{b} + l\,N + w\,W,

``S_1`` the time of a step on one core (from trials, :mod:`cqpde.estimating`) and ``s`` the gain of several on this machine (of a sweep, or of a trial of finite volumes), ``P' = P/M`` processes on each of
``M`` machines, ``B`` bytes in ``N`` messages sent by a process through a network of ``b`` bytes per second and ``l`` seconds per message, ``W`` waits for other
processes of ``w`` seconds each.

===============  ==================================================  ==============================================================
per process      split, one step of the composition                  fv, one application of the generator
===============  ==================================================  ==============================================================
bytes touched    :math:`2mV/P`, m parts in a symmetric step           :math:`5V/P` (two arrays read, one of them and a sum written)
bytes sent       :math:`k(1 - 1/P)V/P`, k changes of the cut          :math:`2wV/n`, halos of w cells of an axis of n; remaps apart
messages         :math:`k(P - 1)`                                    2
waits            k, and four for what is looked at after a step       2
===============  ==================================================  ==============================================================

Processes on one machine share the state: they wait where others send, and the split route sends nothing.
"""

from __future__ import annotations

import timeit
from dataclasses import dataclass

import numba
import numpy as np

from ..channels.convolution import Convolution
from ..channels.parts import Structure
from ..channels.spectral import stream_multiplier
from ..components import empty_state
from ..fv.assemble import Layout
from ..grid import Grid
from .composition import planned
from .finite_volumes import halo_width, planned_cut

#: Seconds that a wait takes on cores of one's own and on shared ones, where it also keeps others from this part of their work. Measured by
#: ``python -m validation.scaling --cost``.
WAIT, CROWDED_WAIT, CROWDED_PART = 1e-5, 1e-4, 0.15

#: Seconds per message between machines beside its bytes.
LATENCY = 5e-6

#: Waits of a step of the split route for what is looked at after it: finiteness, open ends, checkpoints.
LOOKED_AT = 4


@dataclass(frozen=True)
class Traffic:
    """Bytes that a process touches and sends, in how many messages, and how often it waits for others, in one step (split) or application (fv)."""

    touched: float
    sent: float
    messages: int
    waits: int


@dataclass(frozen=True)
class Cost:
    """What a shared run costs a process.

    Attributes
    ----------
    ranks, machines : int
    traffic : Traffic
        Of one step (split) or application of the generator (fv).
    one : float
        Seconds that it takes on one core.
    seconds : float
        What it takes.
    computing, sending, waiting : float
        Its parts.
    total : float
        Seconds of the whole run; NaN where the number of steps is not known.
    """

    ranks: int
    machines: int
    traffic: Traffic
    one: float
    computing: float
    sending: float
    waiting: float
    total: float

    @property
    def seconds(self) -> float:
        """Seconds of one step or application."""
        return self.computing + self.sending + self.waiting


def split_traffic(structure: Structure, grid: Grid, state_bytes: float, ranks: int, shared: bool) -> Traffic:
    """Of one step of the split route, the outer halves of successive steps being one."""
    groups = structure.groups
    _, cuts = planned(groups, grid)
    order = [part for k in [*range(len(groups)), *range(len(groups) - 2, 0, -1)] for part in groups[k]]
    changes = sum(cuts[a] != cuts[b] for a, b in zip(order, [*order[1:], *order[:1]], strict=True))
    mine = state_bytes / ranks
    sent = 0.0 if shared else changes * (1.0 - 1.0 / ranks) * mine
    return Traffic(2.0 * len(order) * mine, sent, 0 if shared else changes * (ranks - 1), (changes + LOOKED_AT) if ranks > 1 else 0)


def fv_traffic(plan: Layout, grid: Grid, transport: str, state_bytes: float, ranks: int) -> Traffic:
    """Of one application of the finite-volume generator."""
    cut = planned_cut(plan, grid, transport)
    sent = 2.0 * halo_width(plan, transport, cut) * state_bytes / grid.shape[cut] if ranks > 1 else 0.0
    return Traffic(5.0 * state_bytes / ranks, sent, *((2, 2) if ranks > 1 else (0, 0)))


def gain_of_cores(cores: int) -> float:
    """How much faster some cores sweep a state of 34 MB together than one does.

    Processes of one thread each gain as much in a step; threads of one process gain less, since they wait for each other at every sweep.
    """
    grid, before = Grid(a=(0, 1, 32), b=(0, 1, 32), c=(0, 1, 32), e=(0, 1, 32)), numba.get_num_threads()
    x = empty_state((4, 1, *grid.shape), np.float64)
    x[...] = 1.0
    sweep = Convolution.of(stream_multiplier(grid, 0, np.ones((1,) * 4), None, 0.01, 4), x, 1)
    seconds = []
    try:
        for threads in (1, cores):
            numba.set_num_threads(threads)
            seconds.append(min(timeit.repeat(lambda: sweep.apply(x), number=1, repeat=12)))
    finally:
        numba.set_num_threads(before)
    return max(1.0, seconds[0] / seconds[1])


def cost(traffic: Traffic, ranks: int, machines: int, cores: int, one: float, gain: float, network: float, count: float) -> Cost:
    """The cost of a shared run.

    Parameters
    ----------
    cores : int
        Of each machine.
    one : float
        Seconds of a step or application on one core.
    gain : float
        How much faster a machine's cores do it together, as many as it has processes at most.
    network : float
        Bytes per second that a process can send to other machines.
    count : float
        Steps or applications of the run.
    """
    crowded = ranks > cores * machines
    sending = traffic.sent / network + traffic.messages * LATENCY if machines > 1 else 0.0
    computing = one / (gain * machines)
    waiting = traffic.waits * CROWDED_WAIT + CROWDED_PART * computing if crowded else traffic.waits * WAIT
    return Cost(ranks, machines, traffic, one, computing, sending, waiting, count * (computing + sending + waiting))
