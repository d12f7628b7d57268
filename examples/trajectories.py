"""A measured qubit drives a particle: a few trajectories next to the ensemble's averages, and the standard semi-classical prediction."""

import numpy as np

import cqpde as cq


def main(trajectories: int = 20_000, path: str | None = None):
    model = cq.models.linear_diosi(m=1, lam=1, phi=2, sigma=1)
    grid = cq.Grid(q=(-6, 6, 48), p=(-9, 9, 48))
    rho0 = cq.gaussian(grid, 0.0, 0.4, cq.ket("+"))
    t = np.linspace(0, 1.5, 4)
    ens = cq.unravel(model, rho0, t, trajectories=trajectories, seed=1, dt=0.05, store=10, stored=5)
    mean = cq.unravel(model, rho0, t, trajectories=trajectories, seed=1, dt=0.05, method="mean-field")
    print("five trajectories at the end: momentum, <sigma_z>, purity")
    last = ens.path_rho.isel(t_path=-1).values
    for p, rho in zip(ens.path_p.values[:, -1], last, strict=True):
        print(f"  {p:+7.3f}  {np.trace(rho @ cq.sigmaz()).real:+7.3f}  {np.trace(rho @ rho).real:.12f}")
    names = ens.monomial.attrs["flag_meanings"].split()
    spread = lambda e: float(e.moments[-1, names.index("p_p"), :2].sum())
    print(f"E[p^2]: {spread(ens):.3f} with correlations, {spread(mean):.3f} by the mean-field equations")
    if path:
        cq.save(ens, path)
    return ens, mean


if __name__ == "__main__":
    main()
