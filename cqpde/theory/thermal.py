r"""Models whose stationary state is exactly :math:`e^{-\beta H(z)}`, and their thermodynamics.

With :math:`\tau = e^{-\beta H/2}` the Lindblad operator of a coordinate z is

.. math:: L_z = -\frac{2}{\beta}(\partial_z\tau)\,\tau^{-1}, \qquad
    \langle i|L_z|j\rangle = \langle i|\partial_z H|j\rangle\,\frac{2}{\beta}\,\frac{1 - e^{-\beta(E_i - E_j)/2}}{E_i - E_j},

which is :math:`\partial_z H` where that commutes with H. Then :math:`L_z\rho + \rho L_z^\dagger = -(2/\beta)\,\partial_z\rho` for
:math:`\rho = \tau^2`, so back-reaction and noise balance, and the decoherence that (6) forces leaves :math:`\rho` alone together with

.. math:: \Delta H = \frac{i}{2}\sum_z D_0^z \sum_{ij} \langle i|L_z^\dagger L_z|j\rangle \tanh\frac{\beta(E_i - E_j)}{4}\,|i\rangle\langle j| .
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelError, OptionError
from ..grid import Grid
from ..initial import State, from_array
from ..model import Model
from ..options import DATASET, GRID, POSITIVE, TEXT, is_number, takes

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray


class _Energy:
    """H(z) and its derivatives from SymPy, at points: eigenvalues, eigenvectors and the operators L_z."""

    def __init__(self, names: tuple[str, ...], hamiltonian: Any, where: str) -> None:
        import sympy

        rows = hamiltonian.tolist() if hasattr(hamiltonian, "tolist") else hamiltonian
        try:
            matrix = sympy.Matrix(rows)
            matrix.free_symbols  # noqa: B018 - what is no expression has none
        except (TypeError, ValueError, AttributeError, sympy.SympifyError):
            raise ModelError(where, "must be a matrix of SymPy expressions in the coordinates", repr(hamiltonian)[:60], "Write a nested list") from None
        if matrix.shape[0] != matrix.shape[1] or not matrix.shape[0]:
            raise ModelError(where, "must be a square matrix", matrix.shape, "Write d rows of d expressions")
        symbols = {c: sympy.Symbol(c, real=True) for c in names}
        matrix = matrix.subs({s: symbols[s.name] for s in matrix.free_symbols if s.name in symbols})
        unknown = sorted(str(s) for s in matrix.free_symbols - set(symbols.values()))
        if unknown:
            raise ModelError(where, "every symbol must be a coordinate", repr(unknown[0]), f"Coordinates: {', '.join(names)}")
        if (matrix - matrix.H).applyfunc(sympy.simplify) != sympy.zeros(*matrix.shape):
            raise ModelError(where, "must be Hermitian", str(matrix)[:80], "Correct the matrix")
        self.names, self.dim, self.matrix = names, matrix.shape[0], matrix
        order = list(symbols.values())
        entries = lambda m: sympy.lambdify(order, list(m), modules=["scipy", "numpy"], cse=True)
        self._h = entries(matrix)
        self._slopes = {c: entries(matrix.diff(symbols[c])) for c in names}

    def at(self, z: Any, function: Any = None) -> Array:
        """H (or a derivative) at points, (*cells, d, d)."""
        values = (function or self._h)(*[z[c] for c in self.names])
        shape = np.broadcast_shapes(*[np.shape(v) for v in values], *[np.shape(z[c]) for c in self.names])
        flat = np.stack([np.broadcast_to(np.asarray(v, dtype=complex), shape) for v in values], axis=-1)
        return flat.reshape(*shape, self.dim, self.dim)

    def levels(self, z: Any) -> tuple[Array, Array]:
        """Eigenvalues and eigenvectors of H."""
        return np.linalg.eigh(self.at(z))

    def operator(self, z: Any, name: str, beta: float) -> Array:
        """``L_z`` at points, (*cells, d, d)."""
        e, u = self.levels(z)
        gap = e[..., :, None] - e[..., None, :]
        small = np.abs(beta * gap) < 1e-8
        ratio = np.where(small, 1.0 - 0.25 * beta * gap, -np.expm1(-0.5 * beta * gap) * (2.0 / beta) / np.where(small, 1.0, gap))
        slope = _adjoint(u) @ self.at(z, self._slopes[name]) @ u
        return u @ (slope * ratio) @ _adjoint(u)

    def correction(self, z: Any, operators: list[Array], rates: list[float], beta: float) -> Array:
        """The Hamiltonian correction at points."""
        e, u = self.levels(z)
        weight = np.tanh(0.25 * beta * (e[..., :, None] - e[..., None, :]))
        total = sum(rate * _adjoint(m) @ m for rate, m in zip(rates, operators, strict=True))
        return 0.5j * u @ ((_adjoint(u) @ total @ u) * weight) @ _adjoint(u)


@takes(beta=POSITIVE, name=TEXT)
def thermal(
    coordinates: tuple[str, ...],
    H: Any,
    beta: float,
    *,
    mobility: Mapping[str, float] | None = None,
    mass: Mapping[str, float] | None = None,
    friction: Mapping[str, float] | None = None,
    name: str = "thermal",
) -> Model:
    r"""A classical-quantum model with the stationary state :math:`e^{-\beta H(z)}/Z`, the trade-off saturated.

    Overdamped (``mobility``): every coordinate diffuses with :math:`D_2 = \mu/\beta` and drifts by :math:`-\mu\,\mathrm{Re}\langle L_z\rangle`,

    .. math:: D_{1,z} = -\mu/2, \qquad D_0^z = \beta\mu/8 .

    Underdamped (``mass``, ``friction``): coordinates are pairs (q, p), H is :math:`p^2/2m + V(q)` with the matrix V(q) given as ``H``,
    :math:`D_{1,p} = -\tfrac12, D_2 = \gamma m/\beta, D_0^p = \beta/(8\gamma m)` with :math:`L_p = L_q`, drift :math:`p/m` and :math:`-\gamma p`.

    Parameters
    ----------
    coordinates : tuple of str
        Overdamped: the noisy coordinates. Underdamped: q, p, q', p', ... in pairs.
    H : matrix of SymPy expressions, shape (d, d)
        Energy in the coordinates (underdamped: in the positions alone).
    beta : float
        Inverse temperature, 1/energy.
    mobility : dict
        Of each coordinate (overdamped).
    mass, friction : dict
        Of each pair, by the name of its position (underdamped); friction is a rate.

    Raises
    ------
    ModelError, OptionError
        If H is no Hermitian matrix of the coordinates, a rate is not positive, or both or no forms are given.

    Notes
    -----
    Source: I. Layton, J. Oppenheim, "Classical-quantum thermodynamics", for the operators; the balance above is exact for any smooth H(z), also where
    H and its gradient do not commute.

    Examples
    --------
    >>> import sympy, cqpde as cq
    >>> x = sympy.Symbol("x", real=True)
    >>> H = [[x**2 / 2 + x, 0.8], [0.8, x**2 / 2 - x]]
    >>> model = cq.thermal(("x",), H, beta=1.3, mobility={"x": 0.6})
    >>> grid = cq.Grid(x=(-6, 6, 128, "reflecting"))
    >>> found, exact = cq.steady_state(model, grid), cq.thermal_state(grid, ("x",), H, beta=1.3)
    >>> bool(abs(found.rho.values - exact.rho).max() < 1e-3)
    True
    """
    if (mobility is None) == (mass is None) or (mass is None) != (friction is None):
        raise OptionError("mobility", "give mobility (overdamped), or mass and friction (underdamped)", "both or an incomplete set", "Choose one form")
    if not beta > 0:
        raise OptionError("beta", "must be a positive number", repr(beta), "It is one over the temperature")
    names = _names(coordinates)
    if mobility is not None:
        rates = _positive("mobility", mobility, names)
        energy = _Energy(names, H, "H")
        strength = [0.125 * beta * rates[c] for c in names]
        lindblad = {c: (lambda z, c=c: energy.operator(z, c, beta)) for c in names}
        d1 = np.diag([-0.5 * rates[c] for c in names])
        d2 = np.diag([rates[c] / beta for c in names])
        drift: Any = None
    else:
        assert mass is not None and friction is not None
        if len(names) % 2:
            raise OptionError("coordinates", "must be pairs of position and momentum", repr(names), "Write ('q', 'p')")
        positions, momenta = names[::2], names[1::2]
        masses, frictions = _positive("mass", mass, positions), _positive("friction", friction, positions)
        energy = _Energy(positions, H, "H")
        strength = [0.125 * beta / (frictions[q] * masses[q]) for q in positions]
        lindblad = {q: (lambda z, q=q: energy.operator(z, q, beta)) for q in positions}
        d1 = np.zeros((len(names), len(positions)))
        d2 = np.zeros((len(names), len(names)))
        drift = {}
        for k, (q, p) in enumerate(zip(positions, momenta, strict=True)):
            d1[2 * k + 1, k] = -0.5
            d2[2 * k + 1, 2 * k + 1] = frictions[q] * masses[q] / beta
            drift[q] = lambda z, p=p, m=masses[q]: z[p] / m
            drift[p] = lambda z, p=p, g=frictions[q]: -g * z[p]
    keys = list(lindblad)

    operators = [lambda z, c=c: _leading(lindblad[c](z)) for c in keys]

    def hamiltonian(z: Any) -> Any:
        return _leading(energy.at(z) + energy.correction(z, [lindblad[c](z) for c in keys], strength, beta))

    return Model(names, energy.dim, H=hamiltonian, L=operators, D0="saturated", D1=d1, D2=d2, D1C=drift, name=name)


@takes(grid=GRID, beta=POSITIVE)
def thermal_state(grid: Grid, coordinates: tuple[str, ...], H: Any, beta: float, mass: Mapping[str, float] | None = None) -> State:
    """The state ``exp(-beta H(z)) / Z`` on a grid (see :func:`thermal` for the arguments).

    Examples
    --------
    >>> import sympy, cqpde as cq
    >>> q = sympy.Symbol("q", real=True)
    >>> state = cq.thermal_state(cq.Grid(q=(-6, 6, 32), p=(-6, 6, 32)), ("q", "p"), [[q**2 / 2, 0], [0, q**2 / 2 + 1]], beta=1.0, mass={"q": 1.0})
    >>> round(float(state.rho[0, 0].sum().real / state.rho[1, 1].sum().real), 6)  # e
    2.718282
    """
    names = _names(coordinates)
    positions = names if mass is None else names[::2]
    energy = _Energy(positions, H, "H")
    mesh = grid.mesh()
    e, u = energy.levels(mesh)
    weight = np.exp(-beta * (e - e.min()))
    rho = np.moveaxis((u * weight[..., None, :]) @ _adjoint(u), (-2, -1), (0, 1))
    if mass is not None:
        for q, p in zip(names[::2], names[1::2], strict=True):
            rho = rho * np.exp(-0.5 * beta * mesh[p] ** 2 / mass[q])
    rho = np.ascontiguousarray(np.broadcast_to(rho, (energy.dim, energy.dim, *grid.shape)))
    return from_array(grid, rho / (np.trace(rho).real.sum() * grid.cell_volume))


@takes(solution=DATASET, beta=POSITIVE)
def thermodynamics(solution: xr.Dataset, H: Any, beta: float) -> xr.Dataset:
    r"""Energy, entropy, free energy, heat and entropy production along a run.

    .. math:: E = \int\mathrm{Tr}\,\rho H, \quad S = -\int\mathrm{Tr}\,\rho\ln\rho, \quad F = E - S/\beta, \quad
        \dot Q = \dot E, \quad \dot\Sigma = \dot S - \beta\dot Q = -\beta\dot F \ge 0 .

    Parameters
    ----------
    solution : Dataset
        With full fields at (at least three) times.
    H : callable or matrix
        Energy operator, ``H(z)`` returning nested entries or a constant matrix; for underdamped models with the kinetic energy.
    beta : float

    Returns
    -------
    xarray.Dataset
        Over the times of the fields; rates by central differences (second order).

    Examples
    --------
    >>> import numpy as np, cqpde as cq
    >>> model = cq.Model(("x",), 1, D1C=[lambda z: -z.x], D2=[[1.0]])  # in the potential x^2/2 at beta = 1
    >>> run = cq.solve(model, cq.gaussian(cq.Grid(x=(-8, 8, 96)), 2.0, 0.5, [1.0]), np.linspace(0, 1, 11))
    >>> along = cq.thermodynamics(run, lambda z: [[z.x**2 / 2]], beta=1.0)
    >>> bool((np.diff(along.free_energy) < 0).all())
    True
    """
    import xarray as xr

    from ..dataset import grid_of

    rho = solution["rho"]
    if rho.ndim != 3 + len(grid_of(solution).names) or rho.shape[0] < 3:
        raise OptionError("solution", "needs full fields at three times or more", f"dims {rho.dims}, {rho.shape[0]} times", "Solve with more outputs")
    grid, time = grid_of(solution), str(rho.dims[0])
    model = Model(grid.names, rho.shape[1], H=H)
    from ..coefficients import stack

    h = np.broadcast_to(stack(model.H.entries(grid.mesh(), 0.0), grid.ndim), (*grid.shape, *rho.shape[1:3]))
    energy, entropy = [], []
    for k in range(rho.shape[0]):
        r = np.moveaxis(rho.values[k], (0, 1), (-2, -1))
        p = np.linalg.eigvalsh(r)
        p = p[p > 1e-300]
        energy.append(float(np.sum(r * np.swapaxes(h, -1, -2)).real) * grid.cell_volume)
        entropy.append(-float(np.sum(p * np.log(p))) * grid.cell_volume)
    e, s, t = np.array(energy), np.array(entropy), solution[time].values
    free = e - s / beta
    rate = lambda a: np.gradient(a, t, edge_order=2)
    series = {
        "energy": (e, "mean energy"), "entropy": (s, "total entropy"), "free_energy": (free, "free energy E - S / beta"),
        "heat_rate": (rate(e), "heat taken up per time"), "entropy_production": (-beta * rate(free), "entropy production per time"),
    }  # fmt: skip
    return xr.Dataset({k: ((time,), v, {"long_name": text, "units": "1"}) for k, (v, text) in series.items()}, coords={time: t})


def _names(coordinates: Any) -> tuple[str, ...]:
    names = tuple(coordinates.split()) if isinstance(coordinates, str) else tuple(coordinates) if isinstance(coordinates, list | tuple) else ()
    if not names or not all(isinstance(c, str) and c.isidentifier() for c in names):
        raise OptionError("coordinates", "must be names, at least one", repr(coordinates), "Write e.g. ('x',)")
    return names


def _positive(name: str, values: Mapping[str, float], needed: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(values, Mapping) or set(values) != set(needed) or not all(is_number(v) and v > 0 for v in values.values()):
        raise OptionError(name, f"must give a positive number for each of {', '.join(needed)}", repr(values), "Write {'q': 1.0}")
    return {k: float(v) for k, v in values.items()}


def _leading(m: Array) -> list[list[Array]]:
    """Matrix indices first, as nested lists: what a coefficient's callable returns."""
    return [[m[..., i, j] for j in range(m.shape[-1])] for i in range(m.shape[-2])]


def _adjoint(m: Array) -> Array:
    return np.conj(np.swapaxes(m, -1, -2))
