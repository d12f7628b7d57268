"""The linear Diosi model from start to file: the README's example, with the branches of the Stern-Gerlach experiment printed."""

import numpy as np

import cqpde as cq


def main(cells: int = 128, path: str | None = "diosi.nc"):
    model = cq.models.linear_diosi(m=1, lam=1, phi=2, sigma=1)
    grid = cq.Grid(q=(-6, 6, cells), p=(-9, 9, cells))
    rho0 = cq.gaussian(grid, mean={"q": 0, "p": 0}, std={"q": 0.4, "p": 0.4}, state=cq.ket("+"))
    sol = cq.solve(model, rho0, t=np.linspace(0, 1, 11), tol=1e-3)
    print(sol.cq.summary())
    for level in (0, 1):
        mean_p = float(sol.cq.moment("p", cq.projector(cq.basis(2, level)))[-1]) / float(
            sol.cq.populations()[-1, level]
        )
        print(f"mean momentum of branch |{level}>: {mean_p:+.4f}   exact {-2.0 if level == 0 else 2.0:+.4f}")
    if path:
        cq.save(sol, path)
    return sol


if __name__ == "__main__":
    main()
