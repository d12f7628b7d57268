r"""The state of n uncoupled sites as a short sum of products of one-site cell fields, and its observables.

.. math:: \rho(z_1, \dots, z_n, t) = \sum_{kl} W_{kl} \prod_i F_{kl}^i(z_i, t), \qquad
          F_{kl}^i = \sum_{ab} \varphi_{k,a}^i\,\varphi_{l,b}^{i*}\;\mathcal E_t[f\,|a\rangle\langle b|].

Every observable here is a sum over pairs of terms of products of numbers, one per site, so its cost grows like n (like n^2 for all pairs of
sites): nothing of size d^n or cells^n is made unless it is asked for. Coordinates are called by site, ``phi_1, pi_1, phi_2, ...``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import dataset
from ..errors import OptionError, did_you_mean
from ..grid import Grid
from .kets import overlaps

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

#: Largest matrix of quantum levels that is made.
MOST_LEVELS = 1024

#: Relative size below which a one-site matrix counts as the dyad of its kets.
DYAD = 1e-9


class ProductSum:
    """n sites as a sum of products; made by :func:`cqpde.solve_sites`, kept by :func:`cqpde.save` and :func:`cqpde.load`.

    Attributes
    ----------
    dataset : xarray.Dataset
        ``factor`` (t, kind, in_row, in_col, row, col, *axes), ``kets`` (term, site, row), ``weights`` (term, term_2), ``kind_of_site``
        (site), errors of the one-site solutions.
    grid : Grid
        Of one site.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self.dataset = ds
        self.grid: Grid = dataset.grid_of(ds)
        self.kets: Array = ds["kets"].values
        self.weights: Array = ds["weights"].values
        self._kinds: Array = ds["kind_of_site"].values

    @property
    def n(self) -> int:
        """Number of sites."""
        return int(self.kets.shape[1])

    @property
    def dim(self) -> int:
        """Levels per site."""
        return int(self.kets.shape[2])

    @property
    def t(self) -> xr.DataArray:
        """Times."""
        return self.dataset["t"]

    def __repr__(self) -> str:
        return f"ProductSum({self.n} sites of {self.dim} levels, {len(self.kets)} terms, {len(self._factor)} times, {self.grid!r})"

    # -- one-site tables: (t, kind, a, b, ...) ---------------------------------------------------------------------------
    @cached_property
    def _factor(self) -> Array:
        return np.asarray(self.dataset["factor"].values)

    @cached_property
    def _inside(self) -> Array:
        """Integrals over the box, (t, kind, a, b, row, col)."""
        return np.asarray(self._factor.sum(axis=tuple(range(6, 6 + self.grid.ndim))) * self.grid.cell_volume)

    @cached_property
    def _whole(self) -> Array:
        """The same with what has left the box: where a site that is not asked about is does not matter."""
        return np.asarray(self._inside + self.dataset["factor_escaped"].values)

    def _pairs(self, site: int, table: Array) -> Array:
        """A one-site table (t, kind, a, b, ...) for all pairs of terms at a site (from 0): (t, K, K, ...)."""
        kets = self.kets[:, site]
        return np.asarray(np.einsum("ka,lb,tab...->tkl...", kets, kets.conj(), table[:, self._kinds[site]], optimize=True))

    def _trace_pairs(self, site: int) -> Array:
        return self._pairs(site, np.einsum("tkabii->tkab", self._whole))

    def _rest(self, without: set[int]) -> Array:
        """Weights of the pairs of terms times the traces of all sites but ``without``, (t, K, K)."""
        out = np.repeat(self.weights[None], len(self.t), axis=0)
        for site in range(self.n):
            if site not in without:
                out = out * self._trace_pairs(site)
        return out

    # -- names -----------------------------------------------------------------------------------------------------------
    def _split(self, name: str) -> tuple[str, int]:
        """``"phi_3"`` as axis and site (from 0)."""
        match = re.fullmatch(r"(\w+)_(\d+)", str(name))
        if not match or match.group(1) not in self.grid.names or not 1 <= int(match.group(2)) <= self.n:
            known = [f"{a}_{i}" for i in (1, self.n) for a in self.grid.names]
            raise OptionError("axis", f"must be an axis with its site, 1 to {self.n}", repr(name), did_you_mean(str(name), known))
        return match.group(1), int(match.group(2)) - 1

    def _sites(self, sites: tuple[int, ...]) -> list[int]:
        for s in sites:
            if isinstance(s, bool) or not isinstance(s, int | np.integer) or not 1 <= s <= self.n:
                raise OptionError("sites", f"must be integers from 1 to {self.n}", repr(s), "Site 1 is the first")
        if len(set(sites)) < len(sites):
            raise OptionError("sites", "must be different", sites, "Name each once")
        return [int(s) - 1 for s in sites]

    def _operator(self, operator: Any) -> Array:
        array = np.asarray(operator.full() if hasattr(operator, "full") else operator, dtype=complex)
        if array.shape != (self.dim, self.dim):
            raise OptionError("operator", f"must be a {self.dim} x {self.dim} matrix on one site", f"shape {array.shape}", "E.g. cqpde.sigmaz()")
        return array

    def _label(self, values: Array, dims: tuple[str, ...], name: str, long_name: str, **coords: Any) -> xr.DataArray:
        import xarray as xr

        attrs = {"long_name": long_name, "units": "1"}
        return xr.DataArray(values, dims=("t", *dims), coords={"t": self.t, **coords}, name=name, attrs=attrs)

    # -- states ----------------------------------------------------------------------------------------------------------
    def reduced(self, *sites: int) -> xr.Dataset:
        """Hybrid state of a few sites, all others integrated and traced out, as a solution on their product grid.

        Parameters
        ----------
        *sites : int
            From 1. The result has d^m levels and m times the axes: one or two sites, rarely more.

        Returns
        -------
        xarray.Dataset
            ``rho`` (t, row, col, *axes), with all observables of ``.cq``.
        """
        import xarray as xr

        chosen = self._sites(sites)
        if not chosen:
            raise OptionError("sites", "needs at least one site", "none", "reduced(1), or quantum_state() for the levels alone")
        size = self.dim ** (2 * len(chosen)) * float(np.prod(self.grid.shape)) ** len(chosen) * len(self.t)
        if size > 2**28:
            raise OptionError("sites", "the reduced state must have fewer than 2^28 elements", f"{size:.3g}", "Name fewer sites, use marginal() or fewer cells")
        n, rest = self.grid.ndim, self._rest(set(chosen))
        rho = rest.reshape(*rest.shape, 1, 1)
        for site in chosen:
            f = self._pairs(site, self._factor)
            rho = np.einsum("tklij...,tklmnc->tklimjn...c", rho, f.reshape(*f.shape[:5], -1))
            rho = rho.reshape(*rho.shape[:3], rho.shape[3] * rho.shape[4], rho.shape[5] * rho.shape[6], *rho.shape[7:])
        rho = rho.sum(axis=(1, 2)).reshape(len(self.t), self.dim ** len(chosen), self.dim ** len(chosen), *self.grid.shape * len(chosen))
        axes = {f"{a.name}_{s + 1}": (a.lower, a.upper, a.n, tuple(map(str, a.ends))) for s in chosen for a in self.grid.axes}
        assert rho.ndim == 3 + n * len(chosen)
        grid = Grid(**_renamed(axes, chosen))
        out = xr.Dataset({"rho": (("t", "row", "col", *grid.names), rho, {"long_name": "hybrid density matrix per phase-space volume", "units": "1"})},
                         coords=dataset.coordinates(grid, self.dim ** len(chosen)) | {"t": self.t.variable})  # fmt: skip
        out.attrs = {**self.dataset.attrs, "kind": "solution", "title": f"Sites {', '.join(str(s + 1) for s in chosen)} of {self.n}"}
        from .. import observables  # noqa: F401 - registers the accessor .cq

        return out

    def quantum_state(self, *sites: int) -> xr.DataArray:
        """Unconditioned quantum state of some sites (all, if none is named), dims (t, row, col)."""
        return self.conditional_state(*sites)

    def conditional_state(self, *sites: int, **where: float) -> xr.DataArray:
        """Quantum state of some sites (all, if none is named), given any coordinates of any sites.

        Parameters
        ----------
        *sites : int
            From 1; together at most 1024 levels.
        **where : float
            E.g. ``pi_1=0.3``: the nearest cell. Coordinates that are not named are integrated over.

        Returns
        -------
        DataArray, dims (t, row, col)
            Of trace one; NaN where the density vanishes.
        """
        chosen = self._sites(sites) if sites else list(range(self.n))
        if self.dim ** min(len(chosen), 64) > MOST_LEVELS:
            raise OptionError("sites", f"must have at most {MOST_LEVELS} levels together", f"{self.dim}^{len(chosen)}", "Name fewer sites, or use matrix_element")
        given = self._places(where)
        rest = self._rest(set(chosen) | set(given))
        for site in set(given) - set(chosen):
            rest = rest * self._pairs(site, np.einsum("tkabii->tkab", self._at(given[site])))
        state = rest.reshape(*rest.shape, 1, 1)
        for site in chosen:
            f = self._pairs(site, self._at(given[site]) if site in given else self._whole)
            state = np.einsum("tklij,tklmn->tklimjn", state, f)
            state = state.reshape(*state.shape[:3], state.shape[3] * state.shape[4], -1)
        total = state.sum(axis=(1, 2))
        trace = np.real(np.einsum("taa->t", total))
        total = total / np.where(trace > 0, trace, np.nan)[:, None, None]
        levels = np.arange(total.shape[1], dtype=np.int32)
        return self._label(total, ("row", "col"), "conditional_state", "quantum state" + (" given coordinates" if given else ""), row=levels, col=levels)

    def _places(self, where: Mapping[str, float]) -> dict[int, dict[str, int]]:
        """Cells of the named coordinates by site."""
        out: dict[int, dict[str, int]] = {}
        for name, value in where.items():
            axis_name, site = self._split(name)
            axis = self.grid.axis(axis_name)
            if not axis.lower <= float(value) <= axis.upper:
                raise OptionError(name, f"must lie inside [{axis.lower:g}, {axis.upper:g}]", value, "Choose a point of the box")
            out.setdefault(site, {})[axis_name] = int(np.argmin(np.abs(axis.centers - float(value))))
        return out

    def _at(self, cells: dict[str, int]) -> Array:
        """One-site table at some coordinates, integrated over the others."""
        table, volume = self._factor, 1.0
        for i in reversed(range(self.grid.ndim)):
            axis = self.grid.axes[i]
            if axis.name in cells:
                table = np.take(table, cells[axis.name], axis=6 + i)
            else:
                table, volume = table.sum(axis=6 + i), volume * axis.spacing
        return table * volume

    def matrix_element(self, bra: Any, ket: Any) -> xr.DataArray:
        r"""Element :math:`\langle\mathrm{bra}|\int\rho\,dz|\mathrm{ket}\rangle` of the unconditioned quantum state for any n, dims (t).

        Parameters
        ----------
        bra, ket : str or sequence of int
            One level per site: ``"00000"``, ``"11111"``.
        """
        rows, cols = (self._levels(name, x) for name, x in (("bra", bra), ("ket", ket)))
        out = np.repeat(self.weights[None], len(self.t), axis=0)
        for site in range(self.n):
            out = out * self._pairs(site, self._whole[..., rows[site], cols[site]])
        return self._label(out.sum(axis=(1, 2)), (), "matrix_element", "element of the unconditioned quantum state")

    def _levels(self, name: str, value: Any) -> list[int]:
        levels = [int(c) if str(c).isdigit() else -1 for c in value]
        if len(levels) != self.n or not all(0 <= level < self.dim for level in levels):
            raise OptionError(name, f"must give a level of 0 to {self.dim - 1} for each of {self.n} sites", repr(value)[:60], "E.g. '0' * n")
        return levels

    # -- numbers ---------------------------------------------------------------------------------------------------------
    def marginal(self, *axes: str) -> xr.DataArray:
        """Density over the named coordinates (``"phi_1", "phi_4"``), all else integrated out, dims (t, *axes)."""
        named: dict[int, list[str]] = {}
        for name in axes:
            axis, site = self._split(name)
            named.setdefault(site, []).append(axis)
        out = self._rest(set(named))
        order: list[str] = []
        trace = np.einsum("tkabii...->tkab...", self._factor)
        for site, keep in named.items():
            table, volume = trace, 1.0
            for i in reversed(range(self.grid.ndim)):
                if self.grid.names[i] not in keep:
                    table, volume = table.sum(axis=4 + i), volume * self.grid.axes[i].spacing
            f = self._pairs(site, table) * volume
            out = np.einsum("tklx,tkly->tklxy", out.reshape(*out.shape[:3], -1), f.reshape(*f.shape[:3], -1))
            out = out.reshape(*out.shape[:3], -1)
            order += [f"{a}_{site + 1}" for a in self.grid.names if a in keep]
        sizes = [self.grid.axis(self._split(name)[0]).n for name in order]
        density = np.real(out.sum(axis=(1, 2))).reshape(len(self.t), *sizes)
        coords = {name: self.grid.axis(self._split(name)[0]).centers for name in order}
        made = self._label(density, tuple(order), "marginal", f"marginal density of {', '.join(order) or 'nothing'}", **coords)
        return made.transpose("t", *axes)

    def trace(self) -> xr.DataArray:
        """Probability that all sites are inside the box, dims (t)."""
        out = np.repeat(self.weights[None], len(self.t), axis=0)
        for site in range(self.n):
            out = out * self._pairs(site, np.einsum("tkabii->tkab", self._inside))
        return self._label(np.real(out.sum(axis=(1, 2))), (), "trace", "total probability inside the box")

    def moment(self, axes: str = "", operators: Mapping[int, Any] | None = None) -> xr.DataArray:
        r"""Moment :math:`\int z_a z_b \cdots \mathrm{Tr}[O_1 O_2 \cdots \rho]` of any coordinates and one operator per site.

        Parameters
        ----------
        axes : str
            ``"phi_1 pi_3"``; a name may be repeated.
        operators : dict
            Site (from 1) -> (d, d) matrix: ``{1: cq.sigmaz(), 3: cq.sigmax()}``.
        """
        powers: dict[int, list[str]] = {}
        for name in axes.split():
            axis, site = self._split(name)
            powers.setdefault(site, []).append(axis)
        acting = {self._sites((s,))[0]: self._operator(o) for s, o in (operators or {}).items()}
        out = self._rest(set(powers) | set(acting))
        for site in sorted(set(powers) | set(acting)):
            table = self._integral(tuple(powers.get(site, ()))) if site in powers else self._whole
            table = np.einsum("ji,tkabij->tkab", acting.get(site, np.eye(self.dim)), table)
            out = out * self._pairs(site, table)
        value = out.sum(axis=(1, 2))
        hermitian = all(np.allclose(o, o.conj().T) for o in acting.values())
        return self._label(value.real if hermitian else value, (), "moment", f"moment of {axes or 'nothing'}")

    def expect(self, operators: Mapping[int, Any]) -> xr.DataArray:
        """Expectation of a product of one-site operators, ``{site: operator}``, dims (t)."""
        return self.moment("", operators)

    def mean(self) -> xr.DataArray:
        """Means of all coordinates, dims (t, site, axis)."""
        columns = [self._one_and_two(self._function(name))[0] for name in self.grid.names]
        return self._label(np.stack(columns, axis=-1), ("site", "axis"), "mean", f"means of {', '.join(self.grid.names)}", site=self.dataset["site"])

    def correlation(self, what: Any) -> xr.DataArray:
        r"""Covariance between sites, :math:`\langle a_i a_j\rangle - \langle a_i\rangle\langle a_j\rangle`, dims (t, site, site_2).

        Parameters
        ----------
        what : str or (d, d) array
            An axis of one site (``"phi"``) or a Hermitian one-site operator. The diagonal holds the variances.
        """
        one, two = self._one_and_two(self._function(what), pairs=True)
        values = two - one[:, :, None] * one[:, None, :]
        return self._label(values, ("site", "site_2"), "correlation", "covariance between sites", site=self.dataset["site"], site_2=np.arange(1, self.n + 1))

    def _integral(self, axes: tuple[str, ...]) -> Array:
        """Integral of a product of one-site coordinates times the factors, (t, kind, a, b, row, col)."""
        mesh = self.grid.mesh()
        weight = np.ones((1,) * self.grid.ndim)
        for name in axes:
            weight = weight * mesh[name]
        return np.asarray((self._factor * weight).sum(axis=tuple(range(6, 6 + self.grid.ndim))) * self.grid.cell_volume)

    def _function(self, what: Any) -> tuple[Array, Array]:
        """One-site tables (t, kind, a, b) of a function and of its square."""
        if isinstance(what, str):
            if what not in self.grid.names:
                raise OptionError("what", "must be an axis of one site or an operator", repr(what), did_you_mean(what, self.grid.names))
            return tuple(np.einsum("tkabii->tkab", self._integral((what,) * p)) for p in (1, 2))
        o = self._operator(what)
        return tuple(np.einsum("ji,tkabij->tkab", m, self._whole) for m in (o, o @ o))

    def _one_and_two(self, tables: tuple[Array, Array], pairs: bool = False) -> tuple[Array, Array]:
        """Means (t, n), and second moments (t, n, n) if asked for, of a one-site function."""
        n, times = self.n, len(self.t)
        first, second = (np.stack([self._pairs(i, table) for i in range(n)]) for table in tables)
        trace = np.stack([self._trace_pairs(i) for i in range(n)])
        ones = np.ones((1, *trace.shape[1:]), dtype=complex)
        before = self.weights * np.cumprod(np.concatenate([ones, trace[:-1]]), axis=0)  # product over the sites to the left
        after = np.cumprod(np.concatenate([ones, trace[:0:-1]]), axis=0)[::-1]  # and to the right
        total = lambda x: np.real(x.sum(axis=(-2, -1)))
        mean = total(before * first * after).T
        two = np.zeros((times, n, n) if pairs else (0, 0, 0))
        if pairs:
            two[:, range(n), range(n)] = total(before * second * after).T
            for i in range(n - 1):
                between = np.cumprod(np.concatenate([ones, trace[i + 1 : -1]]), axis=0)
                row = total(before[i] * first[i] * between * first[i + 1 :] * after[i + 1 :]).T
                two[:, i, i + 1 :] = two[:, i + 1 :, i] = row
        return mean, two

    def purity(self) -> xr.DataArray:
        r"""Purity :math:`\mathrm{Tr}\,\varrho^2` of the unconditioned quantum state of all sites, for any n, dims (t)."""
        w = self.weights
        out = np.repeat(np.einsum("kl,mn->klmn", w, w)[None], len(self.t), axis=0)
        for site in range(self.n):
            f = self._pairs(site, self._whole)
            out = out * np.einsum("tklij,tmnji->tklmn", f, f)
        return self._label(np.real(out.sum(axis=(1, 2, 3, 4))), (), "purity", "purity of the unconditioned quantum state")

    def entropy(self, *sites: int) -> xr.DataArray:
        r"""Von Neumann entropy :math:`-\mathrm{Tr}\varrho\ln\varrho` (nats) of the unconditioned state of some sites, dims (t).

        Without names, of all: for any n where the dynamics multiplies each dyad of the terms by a number (a model that is diagonal in
        their basis), else up to 1024 levels.
        """
        spectrum = None if sites else self._dyadic_spectrum()
        if spectrum is None:
            spectrum = np.linalg.eigvalsh(self.quantum_state(*sites).values)
        p = np.clip(spectrum, 0.0, None)
        value = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)
        return self._label(value, (), "entropy", "von Neumann entropy of the unconditioned quantum state")

    def _dyadic_spectrum(self) -> Array | None:
        """Non-zero eigenvalues of the unconditioned state, if it stays a matrix between the initial product kets."""
        scale = np.repeat(self.weights[None], len(self.t), axis=0)
        for site in range(self.n):
            kets, f = self.kets[:, site], self._pairs(site, self._whole)
            norm = np.einsum("ka,ka->k", kets.conj(), kets).real
            s = np.einsum("ka,tklab,lb->tkl", kets.conj(), f, kets) / np.outer(norm, norm)
            if np.abs(f - s[..., None, None] * np.einsum("ka,lb->klab", kets, kets.conj())).max() > DYAD:
                return None
            scale = scale * s
        values, vectors = np.linalg.eigh(overlaps(self.kets))
        root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.conj().T
        return np.asarray(np.linalg.eigvalsh(np.conj(root) @ scale @ np.conj(root)))

    def sample(self, count: int, t: float | None = None, seed: int | None = None) -> xr.Dataset:
        """Draw classical points from the density of all sites; see :func:`cqpde.sites.sampling.sample`."""
        from .sampling import sample

        return sample(self, count, t, seed)


def _renamed(axes: dict[str, Any], chosen: list[int]) -> dict[str, Any]:
    """Axes with specular ends named by site."""
    out = {}
    for name, (lower, upper, cells, ends) in axes.items():
        site = name.rsplit("_", 1)[1]
        out[name] = (lower, upper, cells, tuple(re.sub(r"specular\((\w+)\)", rf"specular(\1_{site})", e) for e in ends))
    return out
