"""Classical mixture versus superposition (paper, Section IV and Appendix D): the signalling argument as a number.

    python -m examples.mixture_and_superposition

Alice measures her half of an entangled pair in the basis {|0>, |1>} or in {|+>, |->}; Bob's planet is then in one of two ensembles with the same
density matrix. The master equation is linear in it: both ensembles give the same rho(z, t), to round-off. The mean-field equations (13)-(14)
give Bob two different distributions: from {|0>, |1>} the test mass is pushed by -+2 lam, from {|+>, |->} not at all, so he could read what Alice
did from a single momentum.
"""

import numpy as np

import cqpde as cq


def main(quick=False, trajectories=20_000):
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
    numbers = {"master_equation": linear, "mean_field": apart, "chance_to_tell": 0.5 * (1 + apart)}
    print(f"difference of the two ensembles' rho(z, t), integrated trace norm: {linear:.1e}")
    print(f"mean-field equations: total-variation distance of Bob's momenta {apart:.4f}, so he tells Alice's basis with probability {0.5 * (1 + apart):.4f}")
    return numbers


if __name__ == "__main__":
    main()
