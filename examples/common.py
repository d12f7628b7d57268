"""What the scripts of the paper's figures share: starts for single trajectories, paths on the plane and on the Bloch sphere, saving."""

from pathlib import Path

import numpy as np

import cqpde as cq
from cqpde.plotting.bloch import draw_sphere
from cqpde.plotting.panels import figure, new_axes

PICTURES = Path(__file__).parent / "pictures"
COLORS = ("#E69F00", "#0072B2", "#009E73")


def start_at(state, **at):
    """A start so narrow (1e-6) that trajectories begin at a point; its grid only serves to state it."""
    grid = cq.Grid(**{name: (x - 1e-5, x + 1e-5, 16) for name, x in at.items()})
    return cq.gaussian(grid, dict(at), 1e-6, state)


def paths(model, start, t_end, count, seed, dt, store, **options):
    """Whole trajectories by Euler-Maruyama, as the paper draws them."""
    return cq.unravel(
        model, start, [0.0, t_end], trajectories=count, seed=seed, dt=dt, store=store, method=options.pop("method", "euler-maruyama"), check="off", **options
    )


def bloch_vectors(rho):
    """(x, y, z) of two-level density matrices."""
    rho = np.asarray(rho)
    return np.stack([2 * rho[..., 0, 1].real, -2 * rho[..., 0, 1].imag, (rho[..., 0, 0] - rho[..., 1, 1]).real], axis=-1)


def sphere(where, spec, curves, styles):
    """Curves (n, 3) on a Bloch sphere."""
    axes = where.add_subplot(*spec, projection="3d")
    draw_sphere(axes)
    for curve, style in zip(curves, styles, strict=True):
        axes.plot(*np.asarray(curve).T, **style)
        axes.scatter(*np.asarray(curve)[-1:].T, color=style["color"], s=16, depthshade=False)
    return axes


def save(picture, path, dpi=80):
    """Write a picture, by default among those of the gallery."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=dpi, pil_kwargs={"optimize": True})
    return path


__all__ = ["COLORS", "PICTURES", "bloch_vectors", "figure", "new_axes", "paths", "save", "sphere", "start_at"]
