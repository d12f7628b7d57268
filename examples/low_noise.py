"""The low-noise limit (paper, Section IV): sigma -> 0 tends to branches with Born-rule weights.

    python -m examples.low_noise               # writes examples/pictures/low_noise.png

The limit is what one gets by putting correlations in by hand: sum_a |c_a|^2 |a><a| times the density that moves under the force of level a
without noise. Its distance (integrated trace norm) from rho(z, t) falls like sigma^2, times a constant; the coherence is gone long before.
"""

import numpy as np

import cqpde as cq
from cqpde.models import linear_diosi_exact

from .common import PICTURES, save

SIGMAS = (0.4, 0.2, 0.1, 0.05)


def branches(grid, t, weights, std=0.4, m=1.0, lam=1.0):
    """Noise-free branches of the linear model: (2, 2, *cells), diagonal."""
    q, p = grid.mesh().values()
    rho = np.zeros((2, 2, *grid.shape), dtype=complex)
    for a, sign in enumerate((1.0, -1.0)):
        p0 = p + 2 * lam * sign * t  # back along the path: dp/dt = -2 lam sign, dq/dt = p/m
        q0 = q - p0 * t / m + lam * sign * t**2 / m
        rho[a, a] = weights[a] * np.exp(-0.5 * (q0**2 + p0**2) / std**2) / (2 * np.pi * std**2)
    return rho


def main(quick=False, folder=PICTURES):
    t, state = 1.0, np.array([0.6, 0.8])
    grid = cq.Grid(q=(-5, 5, 80 if quick else 128), p=(-6, 6, 80 if quick else 128))
    limit, distances, errors = branches(grid, t, state**2), [], []
    for sigma in SIGMAS:
        sol = cq.solve(cq.models.linear_diosi(sigma=sigma), cq.gaussian(grid, 0.0, 0.4, state), [0.0, t], tol=1e-5, grid_error=False)
        norm = lambda d: float(np.abs(np.linalg.eigvalsh(np.moveaxis(d, (0, 1), (-2, -1)))).sum() * grid.cell_volume)
        distances.append(norm(sol.rho.values[-1] - limit))
        errors.append(norm(sol.rho.values[-1] - linear_diosi_exact(grid, t, state=state, sigma=sigma)))
        print(f"sigma {sigma:<5g} distance from the Born-rule branches {distances[-1]:.5f}   (error of the solution {errors[-1]:.1e})")
    slope = float(np.polyfit(np.log(SIGMAS[1:]), np.log(distances[1:]), 1)[0])
    print(f"slope {slope:.3f}; weights of the branches {state**2}")
    save(cq.plot.convergence(SIGMAS, distances, order=2, xlabel=r"$\sigma$", ylabel="distance from the branches"), f"{folder}/low_noise.png")
    return {"distances": distances, "slope": slope, "errors": errors}


if __name__ == "__main__":
    main()
