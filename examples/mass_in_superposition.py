"""Figs. 1, 3, 7 and 8 of the paper, a test mass near a mass in superposition (C.14), and the full distribution in four dimensions.

    python -m examples.mass_in_superposition            # writes examples/pictures/mass_*.png: 64^4 cells, about 2 minutes on 2 cores, 4 GB
    python -m examples.mass_in_superposition --cells 48 # a third of that

G = 1, M = 10, m = 0.01, d = 1, from rest at (0, -0.5), to t = 0.35. Fig. 7 was drawn with sigma = 0.05, not with the 2m of its caption. |L> sits at
x = -d. Trajectories take eps = 0 as printed, in space, and steps of 1e-4 (the paper: 1e-5). Of 64 the one is drawn that ends within 0.3 of the left
place and was highest at a third of the time: like the printed one, it moves towards the centre before it falls to the left. The distribution is that of motion
in the plane with eps = 0.25, from a Gaussian 0.12 wide in place and 0.5 in velocity. phi = 0 (Fig. 7) or 5 (Fig. 3) is a phase only.
"""

import argparse
import resource
import time

import numpy as np

import cqpde as cq

from .common import COLORS, PICTURES, bloch_vectors, figure, new_axes, paths, save, sphere, start_at


def trajectory(phi, quick=False):
    """Fig. 7 (phi = 0) or Fig. 3 (phi = 5): one that first moves to the centre and then falls to the left, in space, eps = 0."""
    model = cq.models.mass_in_superposition(eps=0.0, phi=phi, dimensions=3)
    start = start_at(cq.ket("+"), x=0.0, px=0.0, y=-0.5, py=0.0, z=0.0, pz=0.0)
    ens = paths(model, cq.State(**point_state(start)), 0.35, 64, 5, 1e-3 if quick else 1e-4, 5 if quick else 10)
    r = bloch_vectors(ens.path_rho)
    near = np.hypot(ens.path_x[:, -1] + 1, ens.path_y[:, -1]).values < 0.3
    k = int(np.argmax(np.where(near, ens.path_y[:, ens.sizes["t_path"] // 3], -np.inf)))
    picture = figure(7.4, 3.6)
    axes = new_axes(picture, (1, 2, 1))
    axes.plot(ens.path_x[k], ens.path_y[k], color=COLORS[0], linewidth=0.9)
    axes.plot([-1, 1], [0, 0], "kx")
    axes.set(xlabel="$x$", ylabel="$y$", xlim=(-1.4, 1.4), ylim=(-1.2, 0.6))
    inset = axes.inset_axes((0.62, 0.12, 0.34, 0.3))
    inset.plot(ens.t_path, r[k, :, 2], color=COLORS[0], linewidth=0.8)
    inset.set(ylim=(-1.05, 1.05))
    inset.tick_params(labelsize=6)
    inset.set_title(r"$\langle\sigma_z\rangle(t)$", fontsize=7)
    sphere(picture, (1, 2, 2), [r[k]], [{"color": COLORS[0], "linewidth": 0.8}])
    picture.suptitle(f"Fig. {7 if phi == 0 else 3}: a test mass and a planet in superposition, phi = {phi:g}", fontsize=10)
    return picture, {f"z_phi_{phi:g}": float(r[k, -1, 2])}


def point_state(start):
    """The fields of a state on a coarser box with the same sampler: trajectories need no fine grid."""
    names = start.grid.names
    grid = cq.Grid(**{n: (-4, 4, 9) for n in names})
    return {"grid": grid, "rho": cq.gaussian(grid, 0.0, 0.6, cq.ket("+")).rho, "recipe": None, "normalisation": 1.0, "note": "point", "sampler": start.sampler}


def distribution(cells=64, dt=0.0175, phi=0.0):
    """rho(x, px, y, py) at the end."""
    grid = cq.models.mass_in_superposition_grid(cells)
    start = cq.models.mass_in_superposition_start(grid)
    return cq.solve(cq.models.mass_in_superposition(phi=phi), start, [0.0, 0.35], dt=dt, frames=[0.35], tol=1e-2, grid_error=False)


def mean_field(eps=0.25):
    """The standard semi-classical path from the same start, to t = 0.75: straight down the middle."""
    start = start_at(cq.ket("+"), x=0.0, px=0.0, y=-0.5, py=0.0)
    return paths(cq.models.mass_in_superposition(eps=eps), start, 0.75, 1, 0, 1e-3, 1, method="mean-field")


def figure_8(sol, mean):
    """Left: what L and R do to the test mass; right: the path of the standard semi-classical equations."""
    populations = np.asarray(sol.cq.populations("x", "y").isel(t_frame=-1) if "t_frame" in sol.dims else sol.cq.populations("x", "y")[-1])
    x, y = sol.x.values, sol.y.values
    picture = figure(10.2, 3.6)
    for k, name in enumerate(("L", "R")):
        axes = new_axes(picture, (1, 3, k + 1))
        axes.pcolormesh(x, y, populations[k].T, shading="gouraud", cmap="viridis", rasterized=True)
        axes.plot([-1, 1], [0, 0], "x", color="0.6")
        axes.plot((-1, 1)[k], 0, "wo", markersize=5)
        axes.set(title=f"$p(x, y, {name})$", xlabel="$x$", ylabel="$y$", xlim=(-2.6, 2.6), ylim=(-2.4, 1.6))
    axes = new_axes(picture, (1, 3, 3))
    axes.contour(x, y, populations.sum(axis=0).T, levels=6, colors="0.8", linewidths=0.7)
    now = int(np.argmin(np.abs(mean.t_path.values - 0.35)))
    axes.plot(mean.path_x[0], mean.path_y[0], color="red", linestyle=":", label="to $t = 0.75$")
    axes.plot(mean.path_x[0, : now + 1], mean.path_y[0, : now + 1], color="red", linewidth=2, label="to $t = 0.35$")
    axes.plot([-1, 1], [0, 0], "kx")
    axes.set(title="standard semi-classical path", xlabel="$x$", xlim=(-2.6, 2.6), ylim=(-2.4, 1.6))
    axes.legend(fontsize=8, frameon=False)
    picture.suptitle("Figs. 1 and 8: the two-branch distribution and the mean-field path (t = 0.35)", fontsize=10)
    return picture


def main(quick=False, folder=PICTURES, cells=64, dt=0.0175):
    began = time.perf_counter()
    sol = quick_distribution() if quick else distribution(cells, dt)
    numbers = {"seconds": time.perf_counter() - began, "peak_GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}
    left = cq.projector(cq.basis(2, 0))
    numbers |= {"mean_x_L": float(sol.cq.moment("x", left)[-1]) / float(sol.cq.moment("", left)[-1]), "time_error": float(sol.time_error.max())}
    mean = mean_field()
    numbers |= {"mean_field_x": float(mean.path_x[0, -1])}
    save(figure_8(sol, mean), f"{folder}/mass_figure_8.png")
    save(cq.plot.hybrid(sol, axes="x px"), f"{folder}/mass_hybrid.png")
    for phi in (0.0, 5.0):
        picture, found = trajectory(phi, quick)
        save(picture, f"{folder}/mass_figure_{7 if phi == 0 else 3}.png")
        numbers |= found
    for name, value in numbers.items():
        print(f"{name:>14}  {value:.6g}")
    return numbers


def quick_distribution():
    """A short run on few cells: t = 0.1, where 24^4 cells are enough."""
    grid = cq.Grid(x=(-1.8, 1.8, 24), px=(-0.1, 0.1, 24), y=(-2.3, 1.3, 24), py=(-0.095, 0.105, 24))
    start = cq.gaussian(grid, {"y": -0.5}, {"x": 0.2, "y": 0.2, "px": 0.012, "py": 0.012}, cq.ket("+"))
    return cq.solve(cq.models.mass_in_superposition(), start, [0.0, 0.1], dt=0.02, frames=[0.1], tol=1e-2, grid_error=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--dt", type=float, default=0.0175)
    given = parser.parse_args()
    main(cells=given.cells, dt=given.dt)
