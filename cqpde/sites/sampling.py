r"""Points drawn from the joint density of all sites, one site after the other.

The density of site i, given the points of the sites before it, is again a sum over pairs of terms,

.. math:: p(z_i \mid z_1 \dots z_{i-1}) \propto \sum_{kl} W_{kl} \prod_{j<i} \mathrm{Tr}F_{kl}^j(z_j)\;
          \mathrm{Tr}F_{kl}^i(z_i) \prod_{j>i} \int\mathrm{Tr}F_{kl}^j,

so a draw costs n times K^2 times the cells of one axis of a site.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import dataset
from ..errors import OptionError

if TYPE_CHECKING:
    import xarray as xr

    from ..grid import Grid
    from .product_sum import ProductSum

Array = np.ndarray

#: Numbers held at a time.
BLOCK = 1 << 23


def sample(state: ProductSum, count: int, t: float | None = None, seed: int | None = None) -> xr.Dataset:
    """Draw classical points of all sites.

    Parameters
    ----------
    state : ProductSum
    count : int
        Number of points.
    t : float, optional
        One of the times; default: the last.
    seed : int, optional

    Returns
    -------
    xarray.Dataset
        One variable (sample, site) per axis. Points are uniform inside their cells, which adds h^2/12 to variances; cells with a
        negative density (of the size of the errors) are never drawn.
    """
    import xarray as xr

    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise OptionError("count", "must be a positive integer", repr(count), "Try 1000")
    times = state.t.values
    index = len(times) - 1 if t is None else int(np.argmin(np.abs(times - t)))
    if t is not None and not np.isclose(times[index], t, rtol=1e-12, atol=1e-12):
        raise OptionError("t", "must be one of the solution's times", t, f"Times: {np.array2string(times, threshold=8)}")
    rng = np.random.default_rng(seed)
    grid, n = state.grid, state.n
    trace = np.einsum("kabii...->kab...", state._factor[index]).reshape(*state._factor.shape[1:4], -1)
    terms = len(state.weights) ** 2
    after = _after(state, trace.sum(axis=-1) * grid.cell_volume)
    out = np.empty((count, n, grid.ndim))
    block = max(1, BLOCK // (terms * max(grid.shape)))
    tables: dict[Any, list[Array]] = {}
    for start in range(0, count, block):
        rows = slice(start, min(count, start + block))
        size = rows.stop - rows.start
        weights = np.broadcast_to(state.weights.reshape(terms), (size, terms)).copy()
        for site in range(n):
            key = (int(state._kinds[site]), state.kets[:, site].tobytes())
            if key not in tables:
                kets = state.kets[:, site]
                pairs = np.einsum("ka,lb,abc->klc", kets, kets.conj(), trace[key[0]]).reshape(terms, *grid.shape)
                tables[key] = [pairs.sum(axis=tuple(range(i + 2, grid.ndim + 1))) for i in range(grid.ndim)]
            weights, out[rows, site] = _draw(weights, after[site], tables[key], state.grid, rng)
    coords = {"site": state.dataset["site"], "t": float(times[index])}
    data = {a: (("sample", "site"), out[..., i], dict(dataset.coordinates(grid, state.dim)[a][2])) for i, a in enumerate(grid.names)}
    return xr.Dataset({a: (d, v, {"long_name": x["long_name"], "units": x["units"]}) for a, (d, v, x) in data.items()}, coords=coords)


def _draw(weights: Array, after: Array, tables: list[Array], grid: Grid, rng: np.random.Generator) -> tuple[Array, Array]:
    """One site's points (size, axes), axis by axis, and the weights of the terms given them (size, K^2).

    Parameters
    ----------
    tables : list of array
        ``tables[i]``: traces of the pairs of terms over the first i + 1 axes, the others summed, (K^2, n_0, ..., n_i).
    """
    size = len(weights)
    cells: list[Any] = []
    amplitudes, points = weights * after, np.empty((size, grid.ndim))
    for i, axis in enumerate(grid.axes):
        if not cells:
            density = np.real(amplitudes @ tables[0])
        else:
            density = np.real(np.einsum("sk,ksc->sc", amplitudes, tables[i][(slice(None), *cells)]))
        cumulated = np.cumsum(np.maximum(density, 0.0), axis=1)
        level = rng.random(size) * cumulated[:, -1]
        cells.append(np.minimum(np.sum(cumulated <= level[:, None], axis=1), axis.n - 1))
        points[:, i] = axis.centers[cells[-1]] + axis.spacing * (rng.random(size) - 0.5)
    weights = weights * tables[-1][(slice(None), *cells)].T
    return weights / np.abs(weights).max(axis=1, keepdims=True), points


def _after(state: ProductSum, traces: Array) -> Array:
    """Products of the integrated traces of all sites after each, (n, K^2)."""
    out = np.ones((state.n, traces[0, 0, 0].size * len(state.weights) ** 2), dtype=complex)
    for site in range(state.n - 2, -1, -1):
        kets = state.kets[:, site + 1]
        out[site] = out[site + 1] * np.einsum("ka,lb,ab->kl", kets, kets.conj(), traces[state._kinds[site + 1]]).reshape(-1)
    return out
