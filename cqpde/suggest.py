"""Propose a box and cells for a model from the spread of a few thousand rough classical paths."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import GridError, OptionError, did_you_mean
from .grid import Grid
from .initial import State
from .model import Model
from .options import MODEL, POSITIVE, takes

Array = np.ndarray

#: Cells of an axis beyond which nothing is proposed.
MOST_CELLS = 1e9

#: Paths, time steps, standard deviations kept on each side, cells per smallest standard deviation.
PATHS, STEPS, REACH, CELLS_PER_STD = 3000, 200, 6.0, 4.0

#: Largest phase, in radians, by which a coherence may turn from one cell to the next.
PHASE_PER_CELL = 0.7


@takes(model=MODEL, t=POSITIVE)
def suggest(model: Model, rho0: Any, t: float, start: float = 0.0, paths: int = PATHS) -> Grid:
    """Implement :meth:`cqpde.Grid.suggest`."""
    n, d = len(model.coordinates), model.dim
    mean, cov = _start(model, rho0)
    rng = np.random.default_rng(0)
    z = rng.multivariate_normal(mean, cov, size=paths, method="eigh")
    level = np.arange(paths) % d
    direction = rng.normal(size=(paths, n))
    low, high, narrow = np.full(n, np.inf), np.full(n, -np.inf), np.full(n, np.inf)
    gradient = np.zeros(n)
    dt = t / STEPS
    for step in range(STEPS + 1):
        for k in range(d):
            part = z[level == k]
            centre, spread = part.mean(axis=0), part.std(axis=0)
            low, high = np.minimum(low, centre - REACH * spread), np.maximum(high, centre + REACH * spread)
            narrow = np.minimum(narrow, spread)
        velocity, s = forces(model, z, level, direction, start + step * dt)
        if step % 20 == 0:
            gradient = np.maximum(gradient, _splitting_gradient(model, z, start + step * dt, narrow))
        z = z + dt * velocity + kicks(s, dt, rng)
        if not np.all(np.isfinite(z)):
            raise GridError(
                "suggest",
                "the paths must stay finite",
                f"a non-finite coordinate at t = {step * dt:.3g}",
                "Choose the box by hand",
            )
    spacing = np.minimum(
        narrow / CELLS_PER_STD, np.where(gradient > 0, PHASE_PER_CELL / np.maximum(gradient * t, 1e-300), np.inf)
    )
    axes: dict[str, Any] = {}
    for i, name in enumerate(model.coordinates):
        wanted = float(high[i] - low[i]) / float(spacing[i]) if spacing[i] > 0 else np.inf
        if not wanted < MOST_CELLS:
            raise GridError("suggest", f"an axis must do with {MOST_CELLS:g} cells", f"{wanted:.3g} of {name}", "Choose the box by hand")
        cells = int(np.ceil(wanted))
        axes[name] = (*_rounded(low[i], high[i]), int(np.clip(cells + cells % 2, 16, 2048)))
    return Grid(**axes)


def suggest_from_paths(model: Model, rho0: State, t: float, trajectories: int) -> Grid:
    """The same bounds from a few trajectories of :func:`cqpde.unravel`, which know the conditional forces and all noise exactly."""
    from .unravelling import unravel

    outer = Grid(**{a.name: (a.lower, a.upper, a.n) for a in rho0.grid.axes})  # nothing turns or stops at the ends
    begin = State(outer, rho0.held, rho0.recipe, rho0.normalisation, rho0.note, rho0.sampler, rho0.slack)
    ens = unravel(model, begin, [0.0, t], trajectories=trajectories, seed=0, store=1, progress=False)
    rough = suggest(model, rho0, t)
    axes: dict[str, Any] = {}
    for a in rough.axes:
        path = ens[f"path_{a.name}"].values
        centre, spread = np.mean(path, axis=0), np.std(path, axis=0)
        lower = min(float(np.min(centre - REACH * spread)), float(path.min()))
        upper = max(float(np.max(centre + REACH * spread)), float(path.max()))
        axes[a.name] = (*_rounded(lower, upper), int(np.clip(round((upper - lower) / a.spacing / 2) * 2, 16, 2048)))
    return Grid(**axes)


def _rounded(lower: float, upper: float) -> tuple[float, float]:
    """Bounds to two digits, outwards."""
    digits = 1 - int(np.floor(np.log10(upper - lower)))
    return float(np.floor(lower * 10.0**digits) / 10.0**digits), float(np.ceil(upper * 10.0**digits) / 10.0**digits)


def _start(model: Model, rho0: Any) -> tuple[Array, Array]:
    n = len(model.coordinates)
    if isinstance(rho0, State):
        if rho0.grid.names != model.coordinates:
            raise OptionError(
                "rho0", f"must be over the model's coordinates {model.coordinates}", rho0.grid.names, "Reorder the axes"
            )
        return rho0.moments()
    if not isinstance(rho0, dict) or "mean" not in rho0 or not ({"std", "cov"} & set(rho0)):
        raise OptionError(
            "rho0", "must be a State or {'mean': {...}, 'std': {...}} (or 'cov')", type(rho0).__name__, ""
        )

    def vector(value: Any, what: str) -> Array:
        if isinstance(value, dict):
            for key in value:
                if key not in model.coordinates:
                    raise OptionError(
                        f"rho0[{what!r}]",
                        "keys must be coordinates",
                        repr(key),
                        did_you_mean(str(key), model.coordinates),
                    )
            value = [value.get(c, 0.0) for c in model.coordinates]
        return np.broadcast_to(np.asarray(value, dtype=float), (n,))

    cov = np.asarray(rho0["cov"], dtype=float) if "cov" in rho0 else np.diag(vector(rho0["std"], "std") ** 2)
    return vector(rho0["mean"], "mean"), cov


def _points(model: Model, z: Array) -> dict[str, Array]:
    shape = (len(z),) + (1,) * (z.shape[1] - 1)
    return {c: z[:, i].reshape(shape) for i, c in enumerate(model.coordinates)}


def kicks(s: Array, dt: float, rng: np.random.Generator) -> Array:
    """Noise of covariance ``s dt`` for each of the paths, s (paths, n, n)."""
    paths, n, _ = s.shape
    if not np.any(s):
        return np.zeros((paths, n))
    return dt**0.5 * np.einsum("kij,kj->ki", np.linalg.cholesky(s + 1e-14 * np.eye(n)), rng.normal(size=(paths, n)))


def forces(model: Model, z: Array, level: Array, direction: Array, t: float) -> tuple[Array, Array]:
    """Drift of each path with the quantum system in one joint eigenstate of the forces, and the noise covariance."""
    count, n = z.shape
    fields = model.canonical(_points(model, z), t)
    flat = lambda a, *tail: np.broadcast_to(a.reshape(a.shape[0], *tail), (count, *tail))
    velocity = np.stack([flat(v) for v in fields.v], axis=1).copy()
    d = model.dim
    forces = np.stack([flat(a + np.conj(np.swapaxes(a, -1, -2)), d, d) for a in fields.A], axis=1)
    if np.any(forces):
        _, vectors = np.linalg.eigh(np.einsum("kn,knij->kij", direction, forces))
        psi = np.take_along_axis(vectors, level[:, None, None], axis=2)[:, :, 0]
        velocity += np.real(np.einsum("ki,knij,kj->kn", psi.conj(), forces, psi))
    return velocity, flat(fields.s, n, n)


def _splitting_gradient(model: Model, z: Array, t: float, width: Array) -> Array:
    """Largest gradient of the Hamiltonian's level splitting along each coordinate, over the paths."""
    out = np.zeros(z.shape[1])
    for i in range(z.shape[1]):
        step = np.zeros(z.shape[1])
        step[i] = 0.1 * width[i] + 1e-12
        up, down = (np.linalg.eigvalsh(model.canonical(_points(model, z + sign * step), t).H) for sign in (1, -1))
        change = np.abs((up[..., -1] - up[..., 0]) - (down[..., -1] - down[..., 0])) / (2 * step[i])
        out[i] = float(np.max(change))
    return out
