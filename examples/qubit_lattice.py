"""Fig. 4 of the paper, five qubits on a lattice from a cat state (C.18), and the exact full distribution for five and a thousand.

    python -m examples.qubit_lattice           # writes examples/pictures/qubit_lattice_*.png

m = lam = sigma = 1. Fig. 4 shows |0> pushed *upwards* and uses phi_i + 2 in the unitary part (the authors' script): the trajectory here
takes lam = -1 and shift = 2 to look like the print; the distribution is that of (C.18). The full distribution lives in 10 dimensions with
32 levels; it is a sum of four products of one-site fields, so nothing is lost and nothing of that size is made.
"""

import time

import numpy as np

import cqpde as cq

from .common import PICTURES, figure, new_axes, save, sphere


def trajectory(quick=False, n=5, seed=4, m=1.0, sigma=1.0, lam=-1.0, shift=2.0, t_end=1.0):
    """(C.19)-(C.21) by Euler-Maruyama on the two amplitudes that a GHZ state ever has: fields (steps + 1, n), amplitudes (steps + 1, 2)."""
    steps = 2000 if quick else 200_000
    dt, rng = t_end / steps, np.random.default_rng(seed)
    phi, pi, c = np.zeros(n), np.zeros(n), np.array([1.0, 1.0], dtype=complex) / 2**0.5
    sign = np.array([1.0, -1.0])
    fields, amplitudes, every = [phi.copy()], [c.copy()], steps // 500
    for step in range(1, steps + 1):
        dw = dt**0.5 * rng.standard_normal(n)
        z = float(sign @ np.abs(c) ** 2)
        away = sign - z
        change = -1j * lam * (phi + shift).sum() * sign * dt - lam / (2 * sigma) * away * dw.sum() - lam**2 / (8 * sigma**2) * n * away**2 * dt
        phi, pi, c = phi + pi / m * dt, pi - lam * z * dt + sigma * dw, c * (1 + change)
        c /= np.linalg.norm(c)
        if step % every == 0:
            fields.append(phi.copy())
            amplitudes.append(c.copy())
    return np.array(fields), np.array(amplitudes)


def figure_4(quick=False):
    """The first of a few trajectories that ends in |00000>: six times of the fields, and the non-local Bloch vector."""
    for seed in range(20):
        fields, c = trajectory(quick, seed=seed)
        if abs(c[-1, 0]) ** 2 > 0.9:
            break
    vector = np.stack([2 * (c[:, 0].conj() * c[:, 1]).real, 2 * (c[:, 0].conj() * c[:, 1]).imag, np.abs(c[:, 0]) ** 2 - np.abs(c[:, 1]) ** 2], axis=-1)
    picture = figure(7.4, 3.6)
    axes = new_axes(picture, (1, 2, 1))
    for k in range(6):
        axes.plot(range(1, 6), fields[k * 100], "o-", color=str(0.85 - 0.16 * k), markersize=4, label=f"$t$ = {k * 0.2:g}")
    axes.set(xlabel="site", ylabel=r"$\phi_i$", xticks=range(1, 6))
    axes.legend(fontsize=7, frameon=False)
    sphere(picture, (1, 2, 2), [vector], [{"color": "#0072B2", "linewidth": 0.8}])
    picture.suptitle(r"Fig. 4: five sites from a cat state; $\langle\sigma_{x,y,z}^{\otimes 5}\rangle$", fontsize=10)
    return picture, {"final_0": float(abs(c[-1, 0]) ** 2)}


def distribution(n=5, quick=False):
    """The exact state of n sites as a sum of products."""
    grid = cq.Grid(phi=(-6, 6, 48 if quick else 64), pi=(-8, 8, 72 if quick else 96))
    start = lambda psi: cq.gaussian(grid, 0.0, 0.4, psi)
    return cq.solve_sites(cq.models.lattice_site(), start, cq.ghz(n), np.linspace(0, 1, 3 if quick else 6), tol=1e-8)


def main(quick=False, folder=PICTURES):
    began = time.perf_counter()
    sol = distribution(5, quick)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    many = distribution(1000, True)
    far = float(many.correlation("pi")[-1, 0, 999])
    numbers = {
        "seconds_5": seconds, "seconds_1000": time.perf_counter() - began, "coherence_5": abs(complex(sol.matrix_element("00000", "11111")[-1])),
        "pi_correlation_1000": far, "pi_correlation": float(sol.correlation("pi")[-1, 0, 4]), "phi_correlation": float(sol.correlation("phi")[-1, 0, 4]),
        "entropy": float(sol.entropy()[-1]),
    }  # fmt: skip
    picture, found = figure_4(quick)
    numbers |= found
    save(picture, f"{folder}/qubit_lattice_figure_4.png")
    save(joint(sol), f"{folder}/qubit_lattice_joint.png")
    for name, value in numbers.items():
        print(f"{name:>19}  {value:.6g}")
    return numbers


def joint(sol):
    """Joint densities of the fields and of the momenta of two sites far apart, and coherence over time."""
    picture = figure(9.6, 3.0)
    for k, axis in enumerate(("phi", "pi")):
        axes = new_axes(picture, (1, 3, k + 1))
        f = sol.marginal(f"{axis}_1", f"{axis}_5")[-1]
        x = sol.grid.axis(axis).centers
        axes.pcolormesh(x, x, f.values.T, shading="auto", cmap="viridis", rasterized=True)
        axes.set(xlabel=rf"$\{axis}_1$", ylabel=rf"$\{axis}_5$", xlim=(-4, 4), ylim=(-4, 4))
    axes = new_axes(picture, (1, 3, 3))
    axes.plot(sol.t, np.abs(sol.matrix_element("00000", "11111")), "o-", markersize=3, label=r"$|\langle 00000|\varrho|11111\rangle|$")
    axes.plot(sol.t, sol.entropy(), "o-", markersize=3, label="entropy [nats]")
    axes.set(xlabel="$t$")
    axes.legend(fontsize=7, frameon=False)
    picture.suptitle("Sites 1 and 5 of the exact distribution of five: two branches, correlated (t = 1)", fontsize=10)
    return picture


if __name__ == "__main__":
    main()
