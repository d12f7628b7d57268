"""A user's own trajectories as arrays: the equations as printed (:mod:`tests.paper_sde`) for three models, right or with one thing wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import models, paper_sde

#: Trajectories of an ensemble with a planted mistake.
N = 20_000

#: What can be planted in each model.
PLANTS = {
    "linear_diosi": ("force", "D1", "D0", "noise", "mean-field"),
    "three_levels": ("force", "D1", "D0", "noise"),
    "correlated_2d": ("force", "transposed"),
}


def diosi_arrays(plant: str = "", count: int = N, steps: int | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    sz = np.diag([1.0, -1.0])
    steps = steps or ({"": 300, "D0": 160}.get(plant, 40))
    return paper_sde.trajectories(
        0.4 * rng.standard_normal((count, 2)), np.full(2, 0.5**0.5), 1.0, steps,
        H=lambda z: (2 * z[:, 0] + 2)[:, None, None] * sz, L=[-2 * sz], D0=[[0.25]], D1=[[0], [0.5]],
        sigma=lambda z: np.broadcast_to(np.diag([0.0, 1.0]), (len(z), 2, 2)),
        D1C=lambda z: np.stack([z[:, 1], 0 * z[:, 1]], axis=1), seed=11, plant=plant, kets=plant != "D0",
    )  # fmt: skip


def three_level_arrays(plant: str = "", count: int | None = None) -> dict[str, Any]:
    count = count or (N if plant else 6000)
    rng = np.random.default_rng(8)
    least = models.D13.conj().T @ models.D13 / 0.7
    return paper_sde.trajectories(
        0.5 * rng.standard_normal((count, 1)), models.PSI3, 0.8, {"": 300, "D1": 160}.get(plant, 40), H=lambda z: np.broadcast_to(models.H3, (len(z), 3, 3)), L=models.L3,
        D0=least + models.E3, D1=models.D13, sigma=lambda z: np.full((len(z), 1, 1), 0.7**0.5), D1C=lambda z: np.full((len(z), 1), 0.3),
        seed=12, plant=plant,
    )  # fmt: skip


def correlated_arrays(plant: str = "", count: int | None = None) -> dict[str, Any]:
    count = count or (N if plant else 8000)
    rng = np.random.default_rng(9)
    root = np.linalg.cholesky(models.S2)
    psi = np.array([1, 1j]) / 2**0.5
    return paper_sde.trajectories(
        rng.standard_normal((count, 2)) @ np.linalg.cholesky(models.COV2).T, psi, 0.6, 40 if plant else 200,
        H=lambda z: np.broadcast_to(models.H2, (len(z), 2, 2)), L=models.A2, D0=np.linalg.inv(models.S2), D1=np.eye(2),
        sigma=lambda z: np.broadcast_to(root, (len(z), 2, 2)), D1C=lambda z: np.broadcast_to(models.V2, z.shape), seed=13, plant=plant, kets=True,
    )  # fmt: skip


ARRAYS = {"linear_diosi": diosi_arrays, "three_levels": three_level_arrays, "correlated_2d": correlated_arrays}
