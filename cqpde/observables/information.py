r"""Purity, entropies, mutual information, and distances between hybrid states.

All are of the normalised state inside the box, :math:`\rho(z)/N` with :math:`N = \int\mathrm{Tr}\rho\,dz`, and in nats. Entropies of
continuous coordinates are differential: they shift by ln a when a coordinate is measured in units a times smaller, which differences
(mutual information, relative entropy, conditional entropies) do not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..errors import OptionError, did_you_mean
from .access import eigenvalues, field, label, per_cell, reduced, trace
from .states import unconditioned_state

Array = np.ndarray

ENTROPIES = ("total", "classical", "quantum", "conditional", "mutual", "local")
PURITIES = ("conditional", "unconditioned", "local")
DISTANCES = ("trace_norm", "relative_entropy", "hellinger")

#: Eigenvalues below this, relative to the trace in their cell, count as outside the support of a state.
SUPPORT = 1e-14

#: Weight outside the support from which a relative entropy is infinite.
OUTSIDE = 1e-10


def _x_log_x(x: Array) -> Array:
    """``x ln x``, zero where x is not positive."""
    positive = x > 0.0
    return np.where(positive, x * np.log(np.where(positive, x, 1.0)), 0.0)


def _word(name: str, value: Any, known: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in known:
        raise OptionError(name, "must be one of the known kinds", repr(value), did_you_mean(str(value), known))


def purity(ds: xr.Dataset, of: str = "conditional") -> xr.DataArray:
    r"""Purity over time.

    Parameters
    ----------
    of : {"conditional", "unconditioned", "local"}
        ``"conditional"``: the mean :math:`\int \mathrm{Tr}\rho(z)^2/\mathrm{Tr}\rho(z)\,dz / \int\mathrm{Tr}\rho\,dz`, dims (t,);
        ``"unconditioned"``: :math:`\mathrm{Tr}\varrho^2` of the normalised unconditioned state, dims (t,);
        ``"local"``: :math:`\mathrm{Tr}\rho(z)^2/(\mathrm{Tr}\rho(z))^2` in every cell, dims (t, \*axes), NaN where the density vanishes.
    """
    _word("of", of, PURITIES)
    if of == "unconditioned":
        state = unconditioned_state(ds)
        return label((abs(state) ** 2).sum(["row", "col"]) / trace(state) ** 2, "purity", "purity of the unconditioned state")
    rho, names, volume = reduced(ds, None)
    f = trace(rho)
    squares = (abs(rho) ** 2).sum(["row", "col"])
    if of == "local":
        return label(squares / f.where(f > 0) ** 2, "purity", "purity of the conditional state")
    total = f.sum(list(names)) * volume
    return label((squares / f.where(f > 0)).sum(list(names)) * volume / total, "purity", "mean purity of the conditional states")


def _eigenvalue_entropy(rho: Array) -> Array:
    return -np.sum(_x_log_x(eigenvalues(rho)), axis=-1)


def entropy(ds: xr.Dataset, of: str = "total", axes: str | None = None) -> xr.DataArray:
    r"""Entropies of the hybrid state in nats, dims (t,).

    Parameters
    ----------
    of : {"total", "classical", "quantum", "conditional", "mutual", "local"}
        With p(z) = Tr rho(z), the unconditioned state :math:`\varrho` and S the von Neumann entropy:

        ================ ====================================================================================================
        ``total``        :math:`S(CQ) = -\int\mathrm{Tr}\,\rho\ln\rho\,dz`
        ``classical``    :math:`S(C) = -\int p\ln p\,dz`
        ``quantum``      :math:`S(Q) = -\mathrm{Tr}\,\varrho\ln\varrho`
        ``conditional``  :math:`S(Q|C) = \int p\,S(\rho/p)\,dz = S(CQ) - S(C)`, never negative
        ``mutual``       :math:`I(C{:}Q) = S(C) + S(Q) - S(CQ)`, what a look at z tells of the quantum state (Holevo), at most S(Q)
        ``local``        :math:`S(\rho(z)/p(z))` in every cell, dims (t, \*axes), NaN where the density vanishes
        ================ ====================================================================================================
    axes : str, optional
        Coordinates that count as the classical part, e.g. ``"q"``; the others are integrated out first. Default: all.

    Notes
    -----
    Eigenvalues at or below zero (a route that is positive to the size of its errors) contribute nothing; the solution's
    ``min_eigenvalue`` says how far they go.
    """
    _word("of", of, ENTROPIES)
    rho, names, volume = reduced(ds, None if axes is None else tuple(axes.split()))
    f = trace(rho)
    total = f.sum(list(names)) * volume
    text = {
        "total": "entropy of the hybrid state", "classical": "entropy of the classical density", "quantum": "entropy of the unconditioned quantum state",
        "conditional": "mean entropy of the conditional quantum states", "mutual": "mutual information of the classical and the quantum part",
        "local": "entropy of the conditional state",
    }[of]  # fmt: skip
    name = "mutual_information" if of == "mutual" else "entropy"
    if of == "local":
        return label(per_cell(_eigenvalue_entropy, rho / f.where(f > 0)), name, text)

    def quantum() -> xr.DataArray:
        return per_cell(_eigenvalue_entropy, unconditioned_state(ds) / total)

    def classical() -> xr.DataArray:
        return -_xlogx(f).sum(list(names)) * volume / total + np.log(total)

    def conditional() -> xr.DataArray:
        return (per_cell(_eigenvalue_entropy, rho) + _xlogx(f)).sum(list(names)) * volume / total

    value = {
        "total": lambda: classical() + conditional(), "classical": classical, "quantum": quantum, "conditional": conditional,
        "mutual": lambda: quantum() - conditional(),
    }[of]()  # fmt: skip
    return label(value, name, text)


def _xlogx(f: xr.DataArray) -> xr.DataArray:
    return xr.apply_ufunc(_x_log_x, f, dask="parallelized", output_dtypes=[float])


def mutual_information(ds: xr.Dataset, axes: str | None = None) -> xr.DataArray:
    """Mutual information of the classical and the quantum part, ``entropy(of="mutual")``."""
    return entropy(ds, "mutual", axes)


def _trace_norm(a: Array, b: Array) -> Array:
    return np.sum(np.abs(eigenvalues(a - b)), axis=-1)


def _square_root(m: Array) -> Array:
    values, vectors = np.linalg.eigh(m)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]) @ np.conj(np.swapaxes(vectors, -1, -2)))


def _hellinger(a: Array, b: Array) -> Array:
    return 0.5 * np.sum(np.abs(_square_root(a) - _square_root(b)) ** 2, axis=(-2, -1))


def _relative(a: Array, b: Array) -> Array:
    """Two numbers per cell: Tr a (ln a - ln b) on the support of b, and the weight of a outside it."""
    x = eigenvalues(a)
    y, vectors = np.linalg.eigh(b)
    weight = np.real(np.einsum("...ik,...ij,...jk->...k", vectors.conj(), a, vectors))  # <k|a|k> for the eigenvectors of b
    inside = y > SUPPORT * np.maximum(y.sum(axis=-1, keepdims=True), 0.0)
    own = np.sum(_x_log_x(x), axis=-1)
    cross = np.sum(np.where(inside, weight * np.log(np.where(inside, y, 1.0)), 0.0), axis=-1)
    outside = np.sum(np.where(inside, 0.0, np.maximum(weight, 0.0)), axis=-1)
    return np.stack([own - cross, outside], axis=-1)


def distance(ds: xr.Dataset, other: Any, kind: str = "trace_norm") -> xr.DataArray:
    r"""Distance between two hybrid states on one grid, dims (t,).

    Parameters
    ----------
    other : Dataset, DataArray or State
        The second state b: a solution with the same times, one frame of a solution, or a :class:`cqpde.State`.
    kind : {"trace_norm", "relative_entropy", "hellinger"}
        ``"trace_norm"``: :math:`\int\mathrm{Tr}|a - b|\,dz`, between 0 and 2, the norm of ``tol`` (twice the trace distance);
        ``"relative_entropy"``: :math:`\int\mathrm{Tr}\,a(\ln a - \ln b)\,dz` in nats, infinite where a has weight outside the support of b;
        ``"hellinger"``: :math:`H = (\tfrac12\int\mathrm{Tr}(\sqrt a - \sqrt b)^2\,dz)^{1/2}`, between 0 and 1.

    Raises
    ------
    OptionError
        If the grids, the levels or the times differ; the dimension is named.

    Notes
    -----
    Trace norm and Hellinger take the states as they are, the relative entropy normalises both. Eigenvalues of b below 1e-14
    of the trace in their cell count as outside its support; a weight of a of up to 1e-10 there is left out.
    """
    _word("kind", kind, DISTANCES)
    a, (names, volume) = field(ds), reduced(ds, None)[1:]
    b = _second(ds, a, other)
    cells = list(names)
    if kind == "trace_norm":
        return label(per_cell(_trace_norm, a, b).sum(cells) * volume, "trace_norm", "integrated trace norm of the difference")
    if kind == "hellinger":
        return label((per_cell(_hellinger, a, b).sum(cells) * volume) ** 0.5, "hellinger", "Hellinger distance")
    ta, tb = (trace(x).sum(cells) * volume for x in (a, b))
    both = per_cell(_relative, a / ta, b / tb, out=("part",), sizes={"part": 2}).sum(cells) * volume
    value = both.isel(part=0).where(both.isel(part=1) <= OUTSIDE, np.inf)
    return label(value, "relative_entropy", "relative entropy")


def _second(ds: xr.Dataset, a: xr.DataArray, other: Any) -> xr.DataArray:
    """The field of the second state, with dims and coordinates that match those of ``a``."""
    from ..initial import State

    if isinstance(other, State):
        if set(other.grid.names) != {str(d) for d in a.dims} - {"t", "t_frame", "batch", "row", "col"}:
            raise OptionError("other", "must have the same axes", other.grid.names, "Make it on the solution's grid")
        other = xr.DataArray(
            other.rho, dims=("row", "col", *other.grid.names),
            coords={"row": ds["row"].values, "col": ds["col"].values} | {x.name: x.centers for x in other.grid.axes} if other.dim == ds.sizes["row"] else None,
        )  # fmt: skip
    if isinstance(other, xr.Dataset):
        other = field(other)
    if not isinstance(other, xr.DataArray):
        raise OptionError("other", "must be a solution, a field or a State", type(other).__name__, "Pass what cqpde.solve returned")
    b = other.rename(t_frame="t") if "t_frame" in other.dims and "t" in a.dims else other
    b = b.rename(t="t_frame") if "t" in b.dims and "t_frame" in a.dims else b
    for dim in dict.fromkeys((*a.dims, *b.dims)):
        if dim not in a.dims:
            raise OptionError("other", "must have no dimension that the first state lacks", repr(dim), "Select one frame of it")
        if dim not in b.dims:
            if dim in ("t", "t_frame", "batch"):
                continue
            raise OptionError("other", f"must have the dimension {dim}", ", ".join(map(str, b.dims)), "Pass a state on the same grid")
        if a.sizes[dim] != b.sizes[dim]:
            raise OptionError("other", f"must have {a.sizes[dim]} values along {dim}", b.sizes[dim], "Solve both on one grid and at the same times")
        if dim in a.coords and dim in b.coords:
            span = float(np.ptp(a[dim].values)) or 1.0
            if not np.allclose(a[dim].values, b[dim].values, rtol=0, atol=1e-9 * span):
                raise OptionError("other", f"must have the same values of {dim}", f"{b[dim].values[0]:g} ... {b[dim].values[-1]:g}", "Solve both on one grid and at the same times")
    return b.assign_coords({d: a[d] for d in b.dims if d in a.coords})
