r"""Two ways to see unobserved decoherence as ignorance (paper, Appendix B).

The *temple* of the larger phase space: for the excess :math:`E(z) = D_0 - D_1^\dagger(2D_2)^+D_1 = R^\dagger R` of rank r, r further classical
coordinates :math:`y_g` with unit noise and back-reaction :math:`D_{1, y_g} = R_g` saturate the trade-off (B.6)-(B.9): conditioned on all coordinates,
pure states stay pure, and the marginal over y is the old model.

The *church* of the larger Hilbert space: in a time dt the excess acts by Kraus operators
:math:`M_g = \sqrt{dt}\,N_g`, :math:`M_0 = (1 - dt\sum N_g^\dagger N_g)^{1/2}` (B.2)-(B.4), an isometry into the system and a fresh ancilla (B.5).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..coefficients import Coefficient, stack
from ..errors import ModelError, OptionError
from ..grid import Grid
from ..model import Model, pseudo_inverse
from ..options import GRID, MODEL, NUMBER, POSITIVE, TEXT, numbers, takes
from ..unravelling.fields import Fields

Array = np.ndarray

#: Pivots of the excess below this share of the largest count as zero.
RANK = 1e-10


@takes(model=MODEL, grid=GRID, prefix=TEXT, t=NUMBER)
def temple(model: Model, grid: Grid, *, prefix: str = "y", t: float = 0.0) -> Model:
    """Add classical coordinates until conditional states stay pure.

    Parameters
    ----------
    model : Model
    grid : Grid
        Where the rank of the excess is looked at: as many coordinates are added as it has anywhere.
    prefix : str
        The new coordinates are ``y0, y1, ...``, after the old ones.
    t : float
        Time at which the rank is looked at.

    Returns
    -------
    Model
        Saturated; the square root of the excess depends smoothly on z (Cholesky with the same pivots everywhere).

    Raises
    ------
    OptionError
        If the trade-off is saturated already, or a new name is taken.
    ModelError
        If the model is not physical on the grid.

    Examples
    --------
    >>> import cqpde as cq
    >>> grid = cq.Grid(x=(-6, 6, 32))
    >>> model = cq.Model(("x",), 2, L=cq.sigmaz(), D1=[[0.5]], D2=[[0.5]], D0=[[0.4]])  # 0.15 more than (6) asks for
    >>> pure = cq.temple(model, grid)
    >>> pure.coordinates, bool(cq.decoherence_diffusion(pure, cq.Grid(x=(-6, 6, 8), y0=(-6, 6, 8))).saturated.all())
    (('x', 'y0'), True)
    """
    model.check(grid, t, "error")
    excess = np.broadcast_to(_excess(model, grid.mesh(), t), (*grid.shape, model.L.shape[0], model.L.shape[0]))
    pivots = _pivots(excess)
    if not pivots:
        raise OptionError("model", "has no decoherence beyond the trade-off", "saturated", "Its conditional states are pure already")
    names = tuple(f"{prefix}{g}" for g in range(len(pivots)))
    if set(names) & set(model.coordinates):
        raise OptionError("prefix", "must give new names", prefix, "Choose another")
    n, r, p = len(model.coordinates), len(pivots), model.L.shape[0]

    def below(z: Any) -> dict[str, Array]:
        return {c: z[c].reshape(z[c].shape[:n]) for c in model.coordinates}

    def lifted(array: Array) -> Array:
        return array.reshape(array.shape + (1,) * r)

    def entries(coefficient: Coefficient, z: Any, at: float) -> Array:
        values = coefficient.entries(below(z), at)
        out = np.empty(values.shape, dtype=object)
        for index in np.ndindex(*values.shape):
            out[index] = lifted(values[index])
        return out

    def whole(coefficient: Coefficient) -> Any:
        return lambda z, at: entries(coefficient, z, at).tolist()

    def back_reaction(z: Any, at: float) -> Any:
        root = _root(_excess(model, below(z), at), pivots)
        rows = entries(model.D1, z, at).tolist()
        return rows + [[lifted(root[..., g, a]) for a in range(p)] for g in range(r)]

    def noise(z: Any, at: float) -> Any:
        old = entries(model.D2, z, at)
        return [[old[i, j] if i < n and j < n else 0.5 * float(i == j) for j in range(n + r)] for i in range(n + r)]

    def drift(z: Any, at: float) -> Any:
        return [*entries(model.D1C, z, at), *[0.0] * r]

    def operator(a: int) -> Any:
        return lambda z, at: entries(model.L, z, at)[a].tolist()

    return Model(
        (*model.coordinates, *names), model.dim, H=whole(model.H), L=[operator(a) for a in range(p)], D0="saturated", D1=back_reaction, D2=noise,
        D1C=drift, name=f"{model.name} in the temple",
    )  # fmt: skip


@takes(model=MODEL, dt=POSITIVE, t=NUMBER)
def church(model: Model, z: Any, dt: float, t: float = 0.0) -> Array:
    r"""The isometry (B.5) of the excess decoherence at a point, into system and ancilla.

    .. math:: V = \sum_g M_g \otimes |g\rangle, \qquad V^\dagger V = 1, \qquad
        \mathrm{Tr}_{anc} V\rho V^\dagger = \rho + dt\sum_g\mathcal D[N_g]\rho + O(dt^2)

    Parameters
    ----------
    z : dict or array (n,)
        The point in phase space.
    dt : float
        Short against the inverse rates.

    Returns
    -------
    array (d, 1 + rank, d)
        Indices: system out, ancilla, system in.

    Raises
    ------
    OptionError
        If dt times the rates exceeds one, so that no such isometry exists.

    Examples
    --------
    >>> import numpy as np, cqpde as cq
    >>> model = cq.Model(("x",), 2, L=cq.sigmaz(), D2=[[0.5]], D0=[[0.4]])
    >>> V = cq.church(model, {"x": 0.0}, dt=0.01)
    >>> after = np.einsum("agb,bc,dgc->ad", V, np.full((2, 2), 0.5), V.conj())  # one collision, the ancilla traced out
    >>> round(float(after[0, 1].real), 4), round(0.5 * (1 - 2 * 0.4 * 0.01), 4)
    (0.496, 0.496)
    """
    rule = f"must be one number for each of {', '.join(model.coordinates)}"
    place = numbers("z", [z.get(c) for c in model.coordinates] if isinstance(z, dict) else z, float, rule)
    if place.shape != (len(model.coordinates),) or not np.all(np.isfinite(place)):
        raise OptionError("z", rule, repr(z), "Write e.g. {'q': 0.0, 'p': 0.0}")
    jumps = Fields(model).at(place[None], t).N[0]
    rest = np.eye(model.dim) - dt * sum((m.conj().T @ m for m in jumps), start=np.zeros((model.dim, model.dim), dtype=complex))
    values, vectors = np.linalg.eigh(rest)
    if values[0] < 0.0:
        raise OptionError("dt", "times the rates of the excess must be at most one", f"{dt:.3g} (1 - eigenvalue {values[0]:.3g})", "Use a shorter dt")
    stay = (vectors * np.sqrt(values)) @ vectors.conj().T
    return np.stack([stay, *(np.sqrt(dt) * m for m in jumps)], axis=1)


def _excess(model: Model, z: Any, t: float) -> Array:
    """``D0 - D1^+ (2 D2)^+ D1`` between the Lindblad operators as given, (*cells, p, p)."""
    n = len(model.coordinates)
    if model.saturated:
        return stack(model.excess.entries(z, t), n)
    d1 = stack(model.D1.entries(z, t), n)
    s = 2.0 * np.real(stack(model.D2.entries(z, t), n))
    e = stack(model.D0.entries(z, t), n) - np.conj(np.swapaxes(d1, -1, -2)) @ pseudo_inverse(s) @ d1
    return 0.5 * (e + np.conj(np.swapaxes(e, -1, -2)))


def _pivots(excess: Array) -> list[int]:
    """Order of elimination: at each step the row whose remainder is largest over all cells, until none is left."""
    found: list[int] = []
    rest = excess.copy()
    largest = float(np.abs(excess).max(initial=0.0))
    while len(found) < excess.shape[-1]:
        diagonal = np.real(np.einsum("...aa->...a", rest)).reshape(-1, excess.shape[-1])
        place = int(np.argmax(diagonal.max(axis=0)))
        if diagonal[:, place].max() <= RANK * largest or largest == 0.0:
            break
        if diagonal[:, place].min() <= RANK * diagonal[:, place].max():
            raise ModelError("D0", "the excess must have the same rank everywhere for a smooth root", "a pivot vanishes on some cell", "Add a little decoherence there")
        row = rest[..., place, :] / np.sqrt(np.real(rest[..., place, place]))[..., None]
        rest = rest - np.conj(row)[..., :, None] * row[..., None, :]
        found.append(place)
    return found


def _root(excess: Array, pivots: list[int]) -> Array:
    """R with ``R^+ R`` the excess, (*cells, r, p)."""
    rest, rows = excess, []
    for place in pivots:
        row = rest[..., place, :] / np.sqrt(np.real(rest[..., place, place]))[..., None]
        rest = rest - np.conj(row)[..., :, None] * row[..., None, :]
        rows.append(row)
    return np.stack(rows, axis=-2)
