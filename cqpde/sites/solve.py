r"""``cqpde.solve_sites``: the exact full distribution of n sites from one-site solutions.

Without coupling between the sites the generator is a sum of one-site generators, so the propagator is a product, and it is linear:

.. math:: \rho(z_1, \dots, z_n, t) = \sum_{kl} W_{kl} \bigotimes_i
          \mathcal E_t\!\left[f(z_i)\,|\varphi_k^i\rangle\langle\varphi_l^i|\right](z_i).

One batch of d^2 one-site solutions, from the states :math:`|a\rangle`, :math:`(|a\rangle + |b\rangle)/\sqrt2` and
:math:`(|a\rangle + i|b\rangle)/\sqrt2`, gives :math:`\mathcal E_t[f\,|a\rangle\langle b|]` for all a, b, and with it every term for every
site. Sites that share a model and a start share the solution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import combinations
from typing import Any

import numpy as np

from .. import dataset
from ..errors import CqpdeError, OptionError, StateError
from ..initial import State
from ..model import Model
from ..options import STATE
from .kets import KetSum
from .product_sum import ProductSum

Array = np.ndarray

#: Options of ``solve`` that have no meaning here.
REFUSED = ("save", "frames")


def solve_sites(
    model: Model | Sequence[Model], start: Callable[[Any], State] | Sequence[Callable[[Any], State]], state: KetSum, t: Any, *,
    tol: float = 1e-8, **options: Any,
) -> ProductSum:  # fmt: skip
    r"""Solve n sites that are not coupled to each other, from a quantum state that is a sum of few products.

    Parameters
    ----------
    model : Model, or one per site
        The equation of one site; all sites have the same coordinates and levels.
    start : callable, or one per site
        ``start(ket)`` returns the one-site initial state with that quantum state, e.g.
        ``lambda psi: cq.gaussian(grid, 0.0, 0.4, psi)``; all on one grid.
    state : KetSum
        Quantum state of all sites: :func:`cqpde.ghz`, :func:`cqpde.w_state`, :func:`cqpde.product_ket`, :class:`cqpde.KetSum`.
    t : array
        Output times.
    tol : float
        Time error of a one-site solution, integrated trace norm. The error of n sites is at most n K^2 times the one-site error.
    **options
        Of :func:`cqpde.solve`; the route must be linear in the state.

    Returns
    -------
    ProductSum

    Raises
    ------
    OptionError, StateError
        If numbers of sites or levels do not match, grids differ, or the route is not linear in the state.

    Notes
    -----
    Exact in the number of sites: time and memory are those of d^2 one-site solutions per kind of site. Correlated noise across sites, or a
    term of the Hamiltonian that couples them, is outside this form: use :func:`cqpde.solve` on the direct grid. Source:
    paper, (C.18)-(C.21); ``examples/qubit_lattice.py``.

    Examples
    --------
    >>> import cqpde as cq
    >>> grid = cq.Grid(phi=(-5, 5, 32), pi=(-6, 6, 32))
    >>> sol = cq.solve_sites(cq.models.lattice_site(), lambda psi: cq.gaussian(grid, 0.0, 0.5, psi), cq.ghz(100), [0, 0.5])
    >>> round(float(sol.correlation("pi")[-1, 0, 99]), 6)       # (lam t)^2
    0.25
    """
    from ..solver import solve

    if not isinstance(state, KetSum):
        raise StateError("state", "must be a KetSum", type(state).__name__, "Make it with cqpde.ghz, w_state, product_ket or KetSum")
    for name in REFUSED:
        if name in options:
            raise OptionError(name, "has no meaning for the product form", options[name], "Take observables from the result")
    if options.get("method") == "fv" and options.get("transport") not in ("upwind", "linear"):
        raise OptionError("transport", "the product form needs a route that is linear in the state", str(options.get("transport", "limited")), "Use method='split', or transport='upwind'")
    models = _per_site("model", model, state.sites)
    starts = _per_site("start", start, state.sites)
    for one in starts:
        if not callable(one):
            raise OptionError("start", "must be a function of the ket that returns a State", repr(one), "Write lambda psi: cqpde.gaussian(grid, 0.0, 0.4, psi)")
    kinds: dict[tuple[int, int], int] = {}
    kind_of_site = [kinds.setdefault((id(a), id(b)), len(kinds)) for a, b in zip(models, starts, strict=True)]
    first = [kind_of_site.index(k) for k in range(len(kinds))]
    solutions: list[Any] = []
    for site in first:
        try:
            states = [starts[site](ket) for ket in spanning(state.dim)]
        except CqpdeError:
            raise
        except Exception as error:  # whatever a user's function does
            raise OptionError("start", "must be a function of the ket that returns a State", f"{type(error).__name__}: {error}", "Correct it") from error
        for one in states:
            STATE("start(ket)", one)
        if solutions and states[0].grid != dataset.grid_of(solutions[0]):
            raise OptionError("start", "all sites must be on one grid", repr(states[0].grid), "Use the same Grid for every site")
        sol = solve(models[site], states, t, tol=tol, **options)
        if not sol.attrs["linear_in_state"]:
            raise OptionError("transport", "the product form needs a route that is linear in the state", sol.attrs["transport"], "Use method='split', or transport='upwind'")
        solutions.append(sol)
    return ProductSum(_assemble(solutions, state, kind_of_site))


def spanning(d: int) -> list[Array]:
    """Kets whose projectors span all operators: |a>, then (|a> + |b>)/sqrt 2 and (|a> + i|b>)/sqrt 2 for a < b."""
    one = np.eye(d, dtype=complex)
    pairs = list(zip(*np.triu_indices(d, 1), strict=True))
    return [*one, *[(one[a] + f * one[b]) / 2**0.5 for a, b in pairs for f in (1.0, 1.0j)]]


def propagated_operators(rho: Array, d: int) -> Array:
    """Images of |a><b| from those of the spanning projectors: (t, d^2, d, d, *cells) to (t, d, d, d, d, *cells)."""
    out = np.empty((len(rho), d, d, *rho.shape[2:]), dtype=complex)
    for a in range(d):
        out[:, a, a] = rho[:, a]
    for k, (a, b) in enumerate(combinations(range(d), 2)):
        base = rho[:, a] + rho[:, b]
        even, odd = 2.0 * rho[:, d + 2 * k] - base, 2.0 * rho[:, d + 2 * k + 1] - base
        out[:, a, b], out[:, b, a] = 0.5 * (even + 1j * odd), 0.5 * (even - 1j * odd)
    return out


def _per_site(name: str, value: Any, n: int) -> list[Any]:
    if not isinstance(value, list | tuple):
        return [value] * n
    if len(value) != n:
        raise OptionError(name, f"must be one, or one for each of the {n} sites of the state", f"{len(value)}", "Match the state")
    return list(value)


def _assemble(solutions: list[Any], state: KetSum, kind_of_site: list[int]) -> Any:
    import xarray as xr

    grid, d = dataset.grid_of(solutions[0]), state.dim
    for sol in solutions:
        if sol.sizes["row"] != d:
            raise StateError("state", "kets must have the model's levels", f"{d}, the model has {sol.sizes['row']}", "Match them")
        if dataset.grid_of(sol).names != grid.names:
            raise OptionError("model", "all sites must have the same coordinates", dataset.grid_of(sol).names, f"Use {grid.names}")
    coords = {k: v for k, v in dataset.coordinates(grid, d).items() if k != "face"}
    coords["t"] = ("t", solutions[0]["t"].values, {"long_name": "model time", "units": "1"})
    numbers = lambda name, count, start, text: (name, np.arange(start, start + count, dtype=np.int32), {"long_name": text, "units": "1"})
    for name, count, start, text in (
        ("in_row", d, 0, "row of the initial operator"), ("in_col", d, 0, "column of the initial operator"),
        ("kind", len(solutions), 0, "kind of site"), ("site", state.sites, 1, "site"),
        ("term", len(state.kets), 0, "term of the quantum state"), ("term_2", len(state.kets), 0, "term of the quantum state"),
    ):  # fmt: skip
        coords[name] = numbers(name, count, start, text)
    note = lambda text: {"long_name": text, "units": "1"}
    factor = np.stack([propagated_operators(s["rho"].values, d) for s in solutions], axis=1)
    left = np.stack([propagated_operators(s["escaped"].values.sum(axis=2), d) for s in solutions], axis=1)
    worst = lambda name, how: np.stack([how(s[name].values.reshape(s.sizes["t"], -1), axis=1) for s in solutions], axis=1)
    ds = xr.Dataset(
        {
            "factor": (("t", "kind", "in_row", "in_col", "row", "col", *grid.names), factor, note("one-site field that grows out of |in_row><in_col|")),
            "factor_escaped": (("t", "kind", "in_row", "in_col", "row", "col"), left, note("what of it has left the box")),
            "kets": (("term", "site", "row"), state.kets, note("one-site kets of the terms")),
            "weights": (("term", "term_2"), state.weights, note("weights of the terms")),
            "kind_of_site": ("site", np.array(kind_of_site, dtype=np.int32), note("kind of every site")),
            "time_error": (("t", "kind"), worst("time_error", np.max), note("estimated bound of the time error of one site")),
            "grid_error": (("t", "kind"), worst("grid_error", np.max), note("estimated grid error of one site")),
            "min_eigenvalue": (("t", "kind"), worst("min_eigenvalue", np.min), note("smallest eigenvalue of one site, relative to the largest trace")),
        },
        coords=coords,
    )  # fmt: skip
    one = solutions[0].attrs
    ds.attrs = {
        "title": f"Hybrid distribution of {state.sites} sites of the model {one['model']}", "source": f"cqpde {version('cqpde')}",
        "cqpde_schema": dataset.SCHEMA, "kind": "product sum", "model": one["model"], "model_description": one["model_description"],
        "method": one["method"], "method_reason": one["method_reason"], "transport": one["transport"],
        "time_integration": one["time_integration"], "tol": one["tol"], "status": "complete",
    }  # fmt: skip
    return ds
