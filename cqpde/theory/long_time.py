r"""The propagator of the split route over a fixed period, as a linear map: what long-time composition iterates."""

from __future__ import annotations

import numpy as np

from ..channels.compose import Composition, turn
from ..channels.guards import relaxation_step
from ..channels.parts import Obstacle, Structure
from ..choice import fits, structure_of
from ..components import to_components, to_matrix, trace_norm_bound
from ..errors import SolverError
from ..grid import Grid
from ..integrate.extrapolate import MAX_CHAINS, weights
from ..model import Model

Array = np.ndarray

#: Longest and shortest period that are tried, as powers of two of the unit of time.
LONGEST, SHORTEST = 6, -20

#: A random vector may grow by no more than so much in the last of so many periods.
GROWTH, ITERATIONS = 1e-2, 24


class Propagator:
    r"""The map :math:`P = \sum_n w_n S(T/n)^n \approx e^{T\mathcal G}` on all cells of a grid (integrate/extrapolate.py, order 14).

    Parameters
    ----------
    model : Model
        With coefficients constant in t, that the split route can do.
    grid : Grid
    tol : float
        Bound of the difference to one chain less, on the maximally mixed state with a Gaussian in the middle of the box: with the condition that
        nothing grows it decides the period.
    period : float, optional
        T; default: the longest that meets ``tol``.

    Raises
    ------
    ModelError, GridError
        If a part of the model does not fit the split route.
    SolverError
        If no period meets ``tol``.
    """

    def __init__(self, model: Model, grid: Grid, tol: float, period: float | None = None) -> None:
        found = structure_of(model, grid, (0.0,))
        if isinstance(found, Structure):
            found = fits(grid, found, None) or found
        if isinstance(found, Obstacle):
            raise found.error("Use method='direct' or 'krylov'")
        self.model, self.grid, self.structure = model, grid, found
        self.counts = list(range(1, MAX_CHAINS + 1))
        most = relaxation_step(model, grid, found, 0.0)
        for power in range(LONGEST, SHORTEST, -1) if period is None else [0]:
            self.period = 2.0**power if period is None else period
            if period is None and self.period > most:
                continue
            # characteristics are traced two digits beyond the tolerance
            self.composition = Composition(model, grid, found, 0.0, min(1e-2 * tol, 1e-6) / self.period)
            if self._difference(self.middle()) <= tol and self._stable():
                return
        raise SolverError("period", f"the propagator must be accurate to {tol:g}", f"a period of {self.period:.3g} is not", "Shorten it, or raise tol")

    def __call__(self, x: Array, parts: int = 1) -> Array:
        """``P x`` for components (d^2, cells) in the basis of the composition, the period taken in ``parts``."""
        y = x.reshape(x.shape[0], 1, *self.grid.shape)
        for _ in range(parts):
            y = sum(w * self._chain(y, n, self.period / parts) for w, n in zip(weights(self.counts), self.counts, strict=True))
        return np.asarray(y).reshape(x.shape)

    def middle(self) -> Array:
        """The maximally mixed state with a Gaussian of a sixteenth of the box, components (d^2, cells)."""
        f = np.ones(self.grid.shape)
        for axis, z in zip(self.grid.axes, self.grid.mesh().values(), strict=True):
            f = f * np.exp(-0.5 * ((z - 0.5 * (axis.lower + axis.upper)) / (0.0625 * (axis.upper - axis.lower))) ** 2)
        x = np.zeros((self.model.dim**2, f.size))
        x[: self.model.dim] = f.reshape(-1) / (self.model.dim * f.sum() * self.grid.cell_volume)
        return x

    def back(self, x: Array) -> Array:
        """Components in the basis of the model."""
        basis = self.structure.basis
        return x if basis is None else np.ascontiguousarray(to_components(turn(to_matrix(x), basis, True)))

    def edge(self, x: Array) -> float:
        """Probability in the outermost cells of open axes, where this route goes round."""
        f = x[: self.model.dim].sum(axis=0).reshape(self.grid.shape)
        open_axes = [i for i, a in enumerate(self.grid.axes) if not a.periodic]
        return max((float(np.abs(np.take(f, [0, -1], axis=i)).sum()) * self.grid.cell_volume for i in open_axes), default=0.0)

    def _stable(self) -> bool:
        """Whether no combination of modes grows: extrapolation amplifies what turns many times in a period."""
        x = np.random.default_rng(0).standard_normal((self.model.dim**2, int(np.prod(self.grid.shape))))
        growth = np.inf
        for _ in range(ITERATIONS):
            y = self(x)
            growth = float(np.linalg.norm(y) / np.linalg.norm(x))
            if not growth < 10.0:
                return False
            x = y / np.linalg.norm(y)
        return growth < 1.0 + GROWTH

    def _chain(self, y: Array, n: int, length: float) -> Array:
        gone = np.zeros((1, 2 * self.grid.ndim, y.shape[0]))
        return self.composition.chain(y, gone, 0.0, length, n, None)[0]

    def _difference(self, x: Array) -> float:
        y = x.reshape(x.shape[0], 1, *self.grid.shape)
        chains = [self._chain(y, n, self.period) for n in self.counts]
        best, less = (sum(w * c for w, c in zip(weights(self.counts[:k]), chains, strict=False)) for k in (len(chains), len(chains) - 1))
        difference = np.asarray(best - less).reshape(x.shape[0], -1)
        return trace_norm_bound(difference, 1, self.grid.cell_volume) if np.all(np.isfinite(difference)) else np.inf
