"""Fig. 6 of the paper, a well and a barrier in superposition (C.10), and the full distribution with its end at q_min.

    python -m examples.well_and_barrier        # writes examples/pictures/well_and_barrier_*.png, about 4 minutes

m = lam = 1, gamma = 0.5, from q = 1, p = -1 and |+>, to t = 2. The caption's "barrier +sqrt(q)" is -lam sqrt(q) of (C.10), the level |1>. The
model ends at q_min, where it absorbs (``outflow``) or reflects (``specular``): how much gets there, and how much rebounds (is inside with
p > 0 at t = 2), depends on q_min only slowly, which is shown for 0.1, 0.05, 0.02, 0.01.
"""

import numpy as np

import cqpde as cq

from .common import COLORS, PICTURES, bloch_vectors, figure, new_axes, paths, save, sphere, start_at

Q_MINS = (0.1, 0.05, 0.02, 0.01)


def solution(q_min=0.05, wall="outflow", cells=(128, 96), tol=1e-3):
    """The distribution from a Gaussian 0.12 wide."""
    grid = cq.models.well_and_barrier_grid(q_min, cells, wall)
    rho0 = cq.gaussian(grid, {"q": 1.0, "p": -1.0}, 0.12, cq.ket("+"))
    return cq.solve(cq.models.well_and_barrier(), rho0, np.linspace(0, 2, 5), tol=tol, grid_error=False)


def shares(sol):
    """Escaped 2 x 2 matrix at the end, and the populations that are inside with p > 0 (the share that rebounds)."""
    last = sol.cq.operator_marginal("p")[-1]
    h = float(sol.p[1] - sol.p[0])
    back = np.real(np.einsum("aap->ap", last.transpose("row", "col", "p").values))[:, sol.p.values > 0].sum(axis=1) * h
    return sol.escaped.values[-1].sum(axis=0), back


def figure_6(quick=False):
    """A trajectory that rebounds from the barrier."""
    ens = paths(
        cq.models.well_and_barrier(), narrow_start(), 2.0, 30, 2, 2e-3 if quick else 1e-4, 5 if quick else 100,
    )  # fmt: skip
    r = bloch_vectors(ens.path_rho)
    k = int(np.nanargmin(np.where(np.isfinite(ens.path_p[:, -1]), r[:, -1, 2], np.nan)))
    picture = figure(7.4, 3.6)
    axes = new_axes(picture, (1, 2, 1))
    axes.plot(ens.path_q[k], ens.path_p[k], color=COLORS[1], linewidth=0.9)
    axes.set(xlabel="$q$", ylabel="$p$")
    sphere(picture, (1, 2, 2), [r[k]], [{"color": COLORS[1], "linewidth": 1.0}])
    picture.suptitle("Fig. 6: a rebound from the barrier", fontsize=10)
    return picture, {"rebound_p": float(ens.path_p[k, -1]), "rebound_z": float(r[k, -1, 2])}


def narrow_start():
    """A point at (1, -1) on a grid that has the model's end at q_min = 0.05 (16 cells: it only states the end)."""
    grid = cq.models.well_and_barrier_grid(0.05, (16, 16))
    there = start_at(cq.ket("+"), q=1.0, p=-1.0)
    return cq.State(grid, cq.gaussian(grid, {"q": 1.0, "p": -1.0}, 0.8, cq.ket("+")).rho, None, 1.0, "point", there.sampler)


def by_q_min(results):
    """Escaped and rebounding shares of both levels against q_min."""
    picture = figure(7.4, 3.2)
    for k, (title, column) in enumerate((("escaped at q_min", 0), ("inside with p > 0 at t = 2", 1))):
        axes = new_axes(picture, (1, 2, k + 1))
        for level, name in enumerate(("|0>, well", "|1>, barrier")):
            values = [np.diag(r[0]).real[level] if column == 0 else r[1][level] for r in results.values()]
            axes.semilogx(list(results), values, "o-", color=COLORS[level], label=name)
        axes.set(xlabel=r"$q_\mathrm{min}$", title=title, ylim=(0, 0.55))
        axes.legend(fontsize=8, frameon=False)
    return picture


def main(quick=False, folder=PICTURES):
    cells = (48, 48) if quick else (128, 96)
    results, tol = {}, 1e-2 if quick else 1e-3
    for q_min in Q_MINS[:1] if quick else Q_MINS:
        sol = solution(q_min, cells=cells, tol=tol)
        results[q_min] = shares(sol)
        escaped, back = results[q_min]
        print(f"q_min {q_min:g}: escaped {np.diag(escaped).real.round(4)}, coherence {abs(escaped[0, 1]):.4f}; rebound {back.round(4)}, given |1>: {2 * back[1]:.3f}")
        if q_min == (0.1 if quick else 0.05):
            save(cq.plot.hybrid(sol, t=1.0), f"{folder}/well_and_barrier_hybrid.png")
    mirror = solution(0.1 if quick else 0.05, "specular", cells, tol)
    print(f"specular: escaped = {float(mirror.escaped_probability[-1]):.1e}, inside with p > 0: {shares(mirror)[1].round(4)}")
    picture, numbers = figure_6(quick)
    save(picture, f"{folder}/well_and_barrier_figure_6.png")
    save(by_q_min(results), f"{folder}/well_and_barrier_q_min.png")
    return numbers | {"results": results, "specular_trace": float(mirror.trace[-1] + mirror.escaped_probability[-1])}


if __name__ == "__main__":
    main()
