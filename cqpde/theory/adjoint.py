r"""The backward (Heisenberg) equation for hybrid observables on the finite-volume route."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..coefficients import Coefficient, stack
from ..errors import OptionError
from ..fv.generator import generator
from ..grid import Grid
from ..model import Model
from ..options import GRID, MODEL, NUMBER, takes

Array = np.ndarray


@takes(model=MODEL, grid=GRID, t=NUMBER)
def adjoint(model: Model, grid: Grid, observable: Any, t: float, transport: str = "linear") -> Array:
    r"""Evolve a hybrid observable backward over a time t, so that its mean in the initial state is the mean of A at t.

    .. math:: \partial_t A = \mathcal L^\dagger A, \qquad \int\mathrm{Tr}\,\rho(z, t)\,A(z)\,dz = \int\mathrm{Tr}\,\rho(z, 0)\,A(z, t)\,dz .

    Parameters
    ----------
    model : Model
        With coefficients constant in t.
    grid : Grid
    observable : matrix (d, d), or coefficient
        A(z): constant, SymPy expressions or a callable of z, Hermitian or not.
    t : float
        Time, not negative.
    transport : {"linear", "upwind"}
        As for :func:`cqpde.generator`, whose transpose this is: both sides agree to round-off with the finite-volume run of this transport.

    Returns
    -------
    array (d, d, \*cells)
        A(z, t); what leaves through open or absorbing ends counts as zero.

    Raises
    ------
    OptionError
        For a model that depends on t or a negative t.

    Examples
    --------
    >>> import numpy as np, cqpde as cq
    >>> model = cq.Model(("x",), 1, D1C=[lambda z: -z.x], D2=[[0.5]])
    >>> grid = cq.Grid(x=(-6, 6, 192))
    >>> A = cq.adjoint(model, grid, lambda z: [[z.x]], t=1.0)  # E[x(1) | x(0)] = x(0)/e
    >>> bool(abs(np.interp(2.0, grid.axes[0].centers, A[0, 0].real) - 2 / np.e) < 1e-3)
    True
    """
    from scipy.sparse.linalg import expm_multiply

    if model.time_dependent:
        raise OptionError("model", "must not depend on t", model.name, "Compose A over pieces of constant coefficients")
    if not (np.isfinite(t) and t >= 0):
        raise OptionError("t", "must be a time, zero or more", repr(t), "Write e.g. 1.0")
    d = model.dim
    a = stack(Coefficient("observable", (d, d), grid.names, observable).entries(grid.mesh(), 0.0), grid.ndim)
    a = np.moveaxis(np.broadcast_to(a, (*grid.shape, d, d)), (-2, -1), (0, 1)).astype(complex)
    matrix = generator(model, grid, transport).matrix().conj().T.tocsr()
    # the pairing is the sum of conj(A^+)_ab rho_ab, so the vector that G^+ moves is that of A^+
    vector = np.conj(np.swapaxes(a, 0, 1)).reshape(-1)
    moved = expm_multiply(t * matrix, vector, traceA=t * complex(matrix.trace())).reshape(a.shape)
    return np.conj(np.swapaxes(moved, 0, 1))


def mean_of(rho: Array, observable: Array, grid: Grid) -> complex:
    """``int Tr rho A dz`` of fields (d, d, \*cells)."""
    return complex(np.sum(rho * np.swapaxes(observable, 0, 1)) * grid.cell_volume)
