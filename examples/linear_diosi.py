"""Figs. 2 and 5 of the paper, the linear Diosi model (C.4), and the full hybrid distribution behind them.

    python -m examples.linear_diosi            # writes examples/pictures/linear_diosi_*.png

Fig. 2: m = lam = sigma = 1, phi = 2, from the origin and |+>. Fig. 5: sigma = 0.8, from p = 10 (the caption does not say so), beside the
mean-field equations (13)-(14). The captions show |0> pushed *upwards*, the sign of the authors' script, while (C.8) pushes it downwards: the
trajectories here take lam = -1 to look like the print; the distribution is that of (C.4), lam = +1.
"""

import numpy as np

import cqpde as cq
from cqpde.models import linear_diosi_exact

from .common import COLORS, PICTURES, bloch_vectors, figure, new_axes, paths, save, sphere, start_at


def figure_2(quick=False):
    """One trajectory that ends near |0>: phase plane and Bloch sphere."""
    ens = paths(cq.models.linear_diosi(lam=-1), start_at(cq.ket("+"), q=0.0, p=0.0), 1.0, 12, 1, 1e-3 if quick else 1e-5, 5 if quick else 250)
    r = bloch_vectors(ens.path_rho)
    k = int(np.argmax(r[:, -1, 2]))
    picture = figure(7.4, 3.6)
    axes = new_axes(picture, (1, 2, 1))
    axes.plot(ens.path_q[k], ens.path_p[k], color=COLORS[0], linewidth=0.9)
    axes.set(xlabel="$q$", ylabel="$p$")
    sphere(picture, (1, 2, 2), [r[k]], [{"color": COLORS[0], "linewidth": 1.0}])
    picture.suptitle("Fig. 2: a trajectory of the linear Diosi model", fontsize=10)
    return picture, {"final_z": float(r[k, -1, 2]), "purity": float(ens.purity[-1])}


def figure_5(quick=False):
    """Two trajectories with opposite ends, and the mean-field path, from p = 10."""
    model, start = cq.models.linear_diosi(lam=-1, sigma=0.8), start_at(cq.ket("+"), q=0.0, p=10.0)
    dt, store = (1e-3, 5) if quick else (1e-5, 150)
    ens = paths(model, start, 0.45, 12, 3, dt, store)
    mean = paths(model, start, 0.45, 1, 3, 1e-3, 1, method="mean-field")
    r = bloch_vectors(ens.path_rho)
    ends = r[:, -1, 2]
    chosen = [int(np.argmax(ends)), int(np.argmin(ends))]
    picture = figure(7.4, 3.6)
    axes = new_axes(picture, (1, 2, 1))
    for k, color in zip(chosen, COLORS, strict=False):
        axes.plot(ens.path_q[k], ens.path_p[k], color=color, linewidth=0.9)
    axes.plot(mean.path_q[0], mean.path_p[0], color="red", linestyle="dashed", label="mean field")
    axes.set(xlabel="$q$", ylabel="$p$")
    axes.legend(fontsize=8, frameon=False)
    styles = [{"color": c, "linewidth": 1.0} for c in COLORS[:2]] + [{"color": "red", "linestyle": "dashed"}]
    sphere(picture, (1, 2, 2), [*(r[k] for k in chosen), bloch_vectors(mean.path_rho)[0]], styles)
    picture.suptitle("Fig. 5: two trajectories, and the standard semi-classical path", fontsize=10)
    return picture, {"mean_field_p": float(mean.path_p[0, -1])}


def distribution(quick=False):
    """The whole of rho(q, p, t), and its distance from the exact solution."""
    cells = (64, 80) if quick else (96, 112)
    grid = cq.Grid(q=(-6, 6, cells[0]), p=(-9, 9, cells[1]))
    sol = cq.solve(cq.models.linear_diosi(), cq.gaussian(grid, 0.0, 0.4, cq.ket("+")), np.linspace(0, 1, 11), tol=1e-7, grid_error=False)
    rho = sol.rho.isel(t_frame=-1).values if "t_frame" in sol.rho.dims else sol.rho.values[-1]
    difference = np.moveaxis(rho - linear_diosi_exact(grid, 1.0), (0, 1), (-2, -1))
    error = float(np.abs(np.linalg.eigvalsh(difference)).sum() * grid.cell_volume)
    return sol, {"error": error, "p_of_0": float(sol.cq.moment("p", cq.projector(cq.basis(2, 0)))[-1]) * 2}


def main(quick=False, folder=PICTURES):
    numbers = {}
    sol, found = distribution(quick)
    numbers |= found
    for name, (picture, found) in {"figure_2": figure_2(quick), "figure_5": figure_5(quick)}.items():
        save(picture, f"{folder}/linear_diosi_{name}.png")
        numbers |= found
    save(cq.plot.hybrid(sol, t=0.5), f"{folder}/linear_diosi_hybrid.png")
    save(cq.plot.series(sol), f"{folder}/linear_diosi_series.png")
    for name, value in numbers.items():
        print(f"{name:>14}  {value:.6g}")
    return numbers


if __name__ == "__main__":
    main()
