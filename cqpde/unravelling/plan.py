"""What a run is told and what it hands back: plan, part, recorder of paths."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as default

import numpy as np

from ..initial import State
from ..model import Model
from ..sampling import Sampler
from .ends import Ends
from .fields import Fields
from .statistics import Functions, Snapshot, components
from .swarm import Swarm

Array = np.ndarray

#: Trajectories per chunk: fixed, since the random numbers of a trajectory depend on its chunk and its place in it.
CHUNK = 4096

#: Steps of the coarse twin that estimates the bias of the step, in fine steps.
COARSE = 4


#: Steps that are taken at a time where nothing happens between them; a multiple of COARSE.
BATCH = 16


@dataclass(frozen=True)
class Plan:
    """Everything that a chunk needs; the same for all chunks."""

    model: Model
    rho0: State
    sampler: Sampler
    fields: Fields
    ends: Ends
    times: Array
    method: str
    pure: bool
    dt: float
    steps: tuple[int, ...]
    seed: int
    bias: bool
    functions: Functions
    store: int
    stored: int
    arrivals: bool
    field: bool


@dataclass
class Part:
    """The result of one chunk."""

    snapshots: list[Snapshot]
    paths: tuple[Array, Array] | None = None
    arrivals: list[tuple[int, Array, Array, Array]] = default(default_factory=list)


class Recorder:
    """Keeps every k-th step of the first ``stored`` trajectories of a chunk: z, and components of rho; NaN once absorbed."""

    def __init__(self, plan: Plan, stored: int) -> None:
        self.every, self.stored = plan.store, stored
        self.z: list[Array] = []
        self.x: list[Array] = []

    def add(self, step: int, swarm: Swarm) -> None:
        """Record if it is the turn of this step."""
        if not self.stored or step % self.every:
            return
        mine = swarm.rows < self.stored
        z = np.full((self.stored, swarm.z.shape[1]), np.nan)
        d = swarm.x.shape[1]
        x = np.full((self.stored, d * d), np.nan)
        z[swarm.rows[mine]], x[swarm.rows[mine]] = swarm.z[mine], components(swarm.keep(mine).matrices())
        self.z.append(z)
        self.x.append(x)

    def result(self) -> tuple[Array, Array] | None:
        """Arrays (stored, times, n) and (stored, times, d^2)."""
        return (np.stack(self.z, axis=1), np.stack(self.x, axis=1)) if self.stored else None


def path_times(plan: Plan) -> Array:
    """Times at which paths are kept."""
    out = [float(plan.times[0])]
    for before, after, steps in zip(plan.times[:-1], plan.times[1:], plan.steps, strict=True):
        out += [float(before) + (k + 1) * float(after - before) / steps for k in range(steps)]
    return np.array(out[:: plan.store])
