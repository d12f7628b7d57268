"""Classical mixture versus superposition (paper, Section IV and Appendix D): the signalling argument as a number.

    python -m examples.mixture_and_superposition   # writes examples/pictures/mixture_and_superposition.png

Alice measures her half of an entangled pair in the basis {|0>, |1>} or in {|+>, |->}; Bob's planet is then in one of two ensembles with the same
density matrix. The master equation is linear in it: both ensembles give the same rho(z, t), to round-off. The mean-field equations (13)-(14)
give Bob two different distributions: from {|0>, |1>} the test mass is pushed by -+2 lam, from {|+>, |->} not at all, so he could read what Alice
did from a single momentum.
"""

import numpy as np

import cqpde as cq

from .common import COLORS, PICTURES, figure, new_axes, save


def picture(p, linear, mean_field):
    """Bob's momenta in both ensembles, by the master equation and by the mean-field equations."""
    drawn = figure(8.0, 3.0)
    for k, (title, pair) in enumerate((("master equation", linear), ("mean-field equations (13)-(14)", mean_field))):
        axes = new_axes(drawn, (1, 2, k + 1))
        for values, name, style, color in zip(pair, ("|0>, |1>", "|+>, |->"), ("-", "--"), COLORS, strict=False):
            axes.plot(p, values, style, color=color, label=f"mixture of {name}")
        axes.set(title=title, xlabel="$p$", ylabel="density" if k == 0 else "")
        axes.legend(fontsize=8, frameon=False)
    return drawn


def main(quick=False, folder=PICTURES, trajectories=20_000):
    model = cq.models.linear_diosi()
    grid = cq.Grid(q=(-6, 6, 48 if quick else 64), p=(-9, 9, 64 if quick else 96))
    kets = [cq.ket("0"), cq.ket("1"), cq.ket("+"), cq.ket("-")]
    states = [cq.gaussian(grid, 0.0, 0.4, k) for k in kets]
    sol = cq.solve(model, states, [0.0, 1.0], tol=1e-6, grid_error=False)
    rho = sol.rho.values[-1]
    difference = np.moveaxis(0.5 * (rho[0] + rho[1]) - 0.5 * (rho[2] + rho[3]), (0, 1), (-2, -1))
    linear = float(np.abs(np.linalg.eigvalsh(difference)).sum() * grid.cell_volume)
    count = 2000 if quick else trajectories
    ensembles = [cq.unravel(model, s, [0.0, 1.0], trajectories=count, seed=1 + k, dt=0.02, method="mean-field") for k, s in enumerate(states)]
    density = [np.einsum("aap->p", e.rho_marginal_p.values[-1]).real for e in ensembles]
    apart = float(0.5 * np.abs(0.5 * (density[0] + density[1]) - 0.5 * (density[2] + density[3])).sum() * grid.axis("p").spacing)
    marginal = np.asarray(sol.cq.marginal("p")[-1])
    both = lambda each: [0.5 * (each[0] + each[1]), 0.5 * (each[2] + each[3])]
    save(picture(sol.p.values, both(marginal), both(density)), f"{folder}/mixture_and_superposition.png")
    numbers = {"master_equation": linear, "mean_field": apart, "chance_to_tell": 0.5 * (1 + apart)}
    print(f"difference of the two ensembles' rho(z, t), integrated trace norm: {linear:.1e}")
    print(f"mean-field equations: total-variation distance of Bob's momenta {apart:.4f}, so he tells Alice's basis with probability {0.5 * (1 + apart):.4f}")
    return numbers


if __name__ == "__main__":
    main()
