"""Expectation values, moments and covariances, energy, probability current, arrival rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from ..coefficients import Coefficient
from ..dataset import grid_of
from ..errors import OptionError
from ..options import require_integer
from .access import check_axes, density_over, field, label, model_of, operator_of, time_name, trace, trace_with

Array = np.ndarray


def _integral(ds: xr.Dataset, values: xr.DataArray) -> xr.DataArray:
    grid = grid_of(ds)
    return values.sum(list(grid.names)) * grid.cell_volume


def expect(ds: xr.Dataset, operator: Any) -> xr.DataArray:
    r"""Expectation :math:`\int\mathrm{Tr}[O(z, t)\,\rho(z, t)]\,dz`, real for Hermitian O, dims (t,).

    Parameters
    ----------
    operator : (d, d) array, nested list of SymPy expressions, QuTiP object or callable
        O, constant or depending on the coordinates (and ``t``); a callable of ``z`` or ``(z, t)`` returns the nested list of its entries.
    """
    return label(_integral(ds, trace_with(ds, operator_of(ds, operator))), "expect", "expectation value")


def moment(ds: xr.Dataset, axes: str | Mapping[str, int], operator: Any = None, order: int = 1) -> xr.DataArray:
    r"""Moment :math:`\int z_a z_b \cdots\,\mathrm{Tr}[O\rho]\,dz`, dims (t,).

    Parameters
    ----------
    axes : str or dict
        Coordinates like ``"q"`` or ``"q p"``, each to the power ``order``; or powers, ``{"q": 2, "p": 1}``. ``""`` is the total.
    operator : optional
        O, as for :func:`expect`; default the identity.
    order : int
        Power of each coordinate in ``axes``.
    """
    powers = {**axes} if isinstance(axes, Mapping) else {}
    if not powers:
        for name in str(axes).split() if not isinstance(axes, Mapping) else []:
            powers[name] = powers.get(name, 0) + order
    names = check_axes(ds, tuple(powers))
    for name in names:
        require_integer(f"power of {name}", powers[name], 0, 65)
    if operator is None:
        return label(_weighted(ds, {name: int(powers[name]) for name in names}), "moment", f"moment of {_words(powers)}")
    weight = trace_with(ds, operator_of(ds, operator))
    for name in names:
        weight = weight * ds[name] ** int(powers[name])
    return label(_integral(ds, weight), "moment", f"moment of {_words(powers)}")


def _words(powers: Mapping[str, int]) -> str:
    return " ".join(f"{n}^{k}" if k != 1 else n for n, k in powers.items()) or "order zero"


def _weighted(ds: xr.Dataset, powers: Mapping[str, int]) -> xr.DataArray:
    """The density times powers of coordinates, integrated: over the other ones first."""
    names = tuple(powers)
    weight, grid = density_over(ds, names), grid_of(ds)
    for name in names:
        weight = weight * ds[name] ** powers[name]
    return weight.sum(list(names)) * float(np.prod([grid.axis(name).spacing for name in names]))


def mean(ds: xr.Dataset) -> xr.DataArray:
    """Means of the classical coordinates, normalised by the probability inside the box, dims (t, axis)."""
    names = grid_of(ds).names
    total = moment(ds, "")
    values = xr.concat([moment(ds, name) / total for name in names], dim="axis")
    return label(values.transpose(..., "axis"), "mean", f"means of {', '.join(names)}")


def covariance(ds: xr.Dataset, *of: Any) -> xr.DataArray:
    r"""Covariances, normalised like :func:`mean`, dims (t, axis, axis_2).

    .. math:: C_{ab} = \langle\tfrac12\{A_a, A_b\}\rangle - \langle A_a\rangle\langle A_b\rangle, \qquad
              \langle A\rangle = \int\mathrm{Tr}[A\rho]\,dz \Big/ \int\mathrm{Tr}\rho\,dz

    Parameters
    ----------
    *of : str or operator
        Coordinates by name and Hermitian operators as for :func:`expect`, e.g. ``"q", cq.sigmaz()``; default: all coordinates.
    """
    names = grid_of(ds).names
    items = of or names
    total = moment(ds, "")
    means = [_first(ds, item) / total for item in items]
    second = {(i, j): _second(ds, a, b) / total - means[i] * means[j] for i, a in enumerate(items) for j, b in enumerate(items) if i <= j}
    rows = [xr.concat([second[min(i, j), max(i, j)] for j in range(len(items))], dim="axis_2") for i in range(len(items))]
    values = xr.concat(rows, dim="axis").transpose(..., "axis", "axis_2")
    shown = [item if isinstance(item, str) else f"operator {k}" for k, item in enumerate(items)]
    return label(values, "covariance", f"covariances of {', '.join(shown)}")


def _first(ds: xr.Dataset, a: Any) -> xr.DataArray:
    """Integral of a coordinate (by name) or an operator."""
    if isinstance(a, str):
        return _weighted(ds, {a: 1})
    return _integral(ds, trace_with(ds, operator_of(ds, a)))


def _second(ds: xr.Dataset, a: Any, b: Any) -> xr.DataArray:
    """Integral of the symmetrised product of two of them."""
    if isinstance(a, str) and isinstance(b, str):
        return _weighted(ds, {a: 2} if a == b else {a: 1, b: 1})
    return _integral(ds, trace_with(ds, _symmetrised(ds, _observable(ds, a), _observable(ds, b))))


def _observable(ds: xr.Dataset, item: Any) -> Coefficient:
    if not isinstance(item, str):
        return operator_of(ds, item)
    check_axes(ds, (item,))
    d = ds.sizes["row"]
    return operator_of(ds, lambda z: [[z[item] if i == j else 0.0 for j in range(d)] for i in range(d)])


def _symmetrised(ds: xr.Dataset, a: Coefficient, b: Coefficient) -> Coefficient:
    """The operator ``(AB + BA)/2``."""
    d = ds.sizes["row"]
    if a.time_dependent or b.time_dependent:
        return operator_of(ds, lambda z, t: _products(d, a.entries(z, t), b.entries(z, t)))
    return operator_of(ds, lambda z: _products(d, a.entries(z, 0.0), b.entries(z, 0.0)))


def _products(d: int, x: Array, y: Array) -> list[list[Any]]:
    return [[sum((0.5 * (x[i, k] * y[k, j] + y[i, k] * x[k, j]) for k in range(d)), start=0.0) for j in range(d)] for i in range(d)]


def energy(ds: xr.Dataset, model: Any = None, H_C: Callable[..., Any] | None = None) -> xr.DataArray:
    r"""Mean energy :math:`\int\mathrm{Tr}[(H_C(z) + H_I(z))\rho(z, t)]\,dz`, dims (t,).

    Parameters
    ----------
    model : Model, optional
        The model that was solved; a file of ``cqpde run`` knows it by itself.
    H_C : callable, optional
        Classical Hamiltonian as a function of ``z``; needed for models that were given by coefficients (``healed`` keeps its own). The
        interaction Hamiltonian is the model's ``H``.
    """
    found = model_of(ds, model)
    classical = found.H_C
    if H_C is not None:
        classical = Coefficient("H_C", (1,), found.coordinates, lambda z: [H_C(z)])
    if classical is None:
        raise OptionError("H_C", "is needed for a model that was given by coefficients", "nothing", "Pass e.g. H_C=lambda z: z.p**2 / 2")
    d, scalar, own = found.dim, classical, found.H

    def total(z: Any, t: float) -> list[list[Any]]:
        h, c = own.entries(z, t), scalar.entries(z, t)[0]
        return [[h[i, j] + (c if i == j else 0.0) for j in range(d)] for i in range(d)]

    timed = found.H.time_dependent or classical.time_dependent
    value = trace_with(ds, operator_of(ds, total if timed else lambda z: total(z, 0.0)))
    return label(_integral(ds, value), "energy", "mean energy <H_C + H_I>")


def current(ds: xr.Dataset, model: Any = None) -> xr.DataArray:
    r"""Probability current, with which :math:`\partial_t\mathrm{Tr}\rho = -\partial_i j_i`, dims (t, axis, \*axes).

    .. math:: j_i = v_i\,\mathrm{Tr}\rho + \mathrm{Tr}[(A_i + A_i^\dagger)\rho] - \tfrac12\,\partial_j(s_{ij}\,\mathrm{Tr}\rho)

    Parameters
    ----------
    model : Model, optional
        The model that was solved (its canonical form has v, A, s); a file of ``cqpde run`` knows it by itself.

    Notes
    -----
    Taken at the cell centres from quintic splines along each axis: fails at kinks of the density, as next to absorbing ends.
    """
    found, rho = model_of(ds, model), field(ds)
    name = time_name(rho)
    if name is not None and found.time_dependent:
        parts = [_current(ds, found, rho.isel({name: k}), float(t)) for k, t in enumerate(rho[name].values)]
        value = xr.concat(parts, dim=name)
    else:
        value = _current(ds, found, rho, float(ds["t"].values.reshape(-1)[0]) if "t" in ds else 0.0)
    names = grid_of(ds).names
    return label(value, "current", f"probability current along {', '.join(names)}")


def _current(ds: xr.Dataset, model: Any, rho: xr.DataArray, t: float) -> xr.DataArray:
    grid = grid_of(ds)
    c = model.canonical(grid.mesh(), t)
    f = trace(rho)

    def cells(a: Array) -> xr.DataArray:
        """Over the axes on which it depends."""
        kept = [n for n, size in zip(grid.names, a.shape, strict=True) if size > 1]
        return xr.DataArray(a.reshape([size for size in a.shape if size > 1]), dims=kept)

    parts = []
    for i in range(grid.ndim):
        j = cells(np.asarray(c.v[i], dtype=float)) * f
        for a in range(model.dim):
            for b in range(model.dim):
                force = c.A[i][..., a, b] + np.conj(c.A[i][..., b, a])
                if np.any(force):
                    j = j + (cells(force) * rho.isel(row=b, col=a, drop=True)).real
        for k, axis in enumerate(grid.axes):
            if np.any(c.s[..., i, k]):
                j = j - 0.5 * _derivative(cells(c.s[..., i, k]) * f, axis)
        parts.append(j.transpose(*f.dims))
    joined = xr.concat(parts, dim="axis")
    return joined.transpose(..., "axis", *grid.names)


def _derivative(values: xr.DataArray, axis: Any) -> xr.DataArray:
    from scipy.interpolate import make_interp_spline

    def slope(y: Array) -> Array:
        pad = min(8, axis.n) if axis.periodic else 0
        y = np.concatenate([y[..., axis.n - pad :], y, y[..., :pad]], axis=-1)
        x = np.arange(y.shape[-1]) * axis.spacing
        d = make_interp_spline(x, y, k=5 if len(x) > 5 else 3, axis=-1).derivative()(x)
        return np.asarray(d[..., pad : pad + axis.n])

    lazy = getattr(values.data, "chunks", None) is not None
    whole = values.chunk({axis.name: -1}) if lazy else values
    return xr.apply_ufunc(
        slope, whole, input_core_dims=[[axis.name]], output_core_dims=[[axis.name]], dask="parallelized", output_dtypes=[float]
    ).assign_coords({axis.name: values[axis.name]})  # fmt: skip


def arrival_rate(ds: xr.Dataset) -> xr.DataArray:
    """Probability that left through each end per unit time, between successive times: dims (t, face), t in the middle."""
    through = trace(ds["escaped"])
    t = ds["t"].values
    rate = through.diff("t") / xr.DataArray(np.diff(t), dims="t")
    return label(rate.assign_coords(t=0.5 * (t[1:] + t[:-1])), "arrival_rate", "rate of arrival at each end")
