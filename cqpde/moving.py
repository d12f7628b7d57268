"""The result of :func:`cqpde.follow`: fields on a window that moves, each with its own coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import dataset
from .errors import OptionError
from .grid import Grid
from .observables import Accessor, read_observable
from .observables.access import time_name

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

KIND = "moving window"


class MovingSolution:
    """A solution on a moving window; made by :func:`cqpde.follow`, kept by :func:`cqpde.save` and :func:`cqpde.load`.

    ``at(t)`` is an ordinary solution on the coordinates of its own window, for all observables, pictures and files; ``for sol in moving`` goes through
    them.

    Attributes
    ----------
    attrs : dict
        Attributes of the run.
    dataset : xarray.Dataset
        All windows in one array that is as large as the largest of them, zero beyond each: an axis that follows is measured from the lower end of the
        window, its coordinate is ``q + window_lower``. ``window_lower``, ``window_upper`` (t, axis); ``window_error`` (t), the integrated trace norm of
        all that was left outside so far; ``window_loss`` (t, row, col), the density matrix of what moves left behind; ``mean`` and ``covariance`` at all
        times; ``escaped`` and the diagnostics of :func:`cqpde.solve`.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self.dataset = ds
        self.attrs: dict[str, Any] = ds.attrs

    @property
    def t(self) -> xr.DataArray:
        """All output times."""
        return self.dataset["t"]

    @property
    def frames(self) -> Array:
        """Times at which there are full fields."""
        return np.asarray(self.dataset[self._time].values)

    @property
    def _time(self) -> str:
        return time_name(self.dataset["rho"]) or "t"

    def __repr__(self) -> str:
        return f"MovingSolution({len(self.t)} times, {self.attrs.get('stretches', '?')} stretches, at the end {self.window(float(self.t[-1]))!r})"

    def __iter__(self) -> Iterator[xr.Dataset]:
        return (self._field(k) for k in range(len(self.frames)))

    def window(self, t: float) -> Grid:
        """The grid of the output next to a time."""
        return self._grid(int(np.argmin(np.abs(self.t.values - float(t)))))

    def at(self, t: float | None = None) -> xr.Dataset:
        """The solution of one time, on its own coordinates.

        Parameters
        ----------
        t : float, optional
            Time; the nearest full field is taken. Default: the last one.

        Raises
        ------
        OptionError
            If ``t`` lies outside the times of the fields.
        """
        times = self.frames
        if t is None:
            return self._field(len(times) - 1)
        slack = 1e-9 * (times[-1] - times[0] + abs(times[0]))
        if not times[0] - slack <= float(t) <= times[-1] + slack:
            raise OptionError("t", f"must lie in [{times[0]:g}, {times[-1]:g}], the times of the full fields", t, "Choose one of them")
        return self._field(int(np.argmin(np.abs(times - float(t)))))

    def series(self, observable: str) -> xr.DataArray:
        """An observable over the times of the full fields.

        Parameters
        ----------
        observable : str
            As for ``save=`` of :func:`cqpde.solve`: ``"purity"``, ``"expect q*sigmaz"``, ``"covariance q operator"``, ...

        Raises
        ------
        OptionError
            If it is unknown, or depends on the coordinates, which are others at every time.
        """
        import xarray as xr

        read = read_observable(observable, dataset.grid_of(self.dataset).names)
        values = [without_axes(observable, read(sol), sol) for sol in self]
        joined = xr.concat(values, dim="t")
        return joined.assign_coords(t=self.dataset[self._time].values)

    def mean(self) -> xr.DataArray:
        """Means of the classical coordinates at all times, (t, axis)."""
        return self.dataset["mean"]

    def covariance(self) -> xr.DataArray:
        """Their covariances at all times, (t, axis, axis_2)."""
        return self.dataset["covariance"]

    def summary(self) -> str:
        """Method, stretches, windows, errors of the run, as text."""
        ds, attrs = self.dataset, self.attrs
        last = ds.isel(t=-1)
        rows = [
            ("model", attrs["model"]),
            ("method", f"{attrs['method']} ({attrs['method_reason']})"),
            ("time", f"{float(ds.t[0]):g} ... {float(ds.t[-1]):g}, {attrs['stretches']} stretches, {attrs['repeated']} repeated"),
            ("first window", repr(self._grid(0))),
            ("last window", repr(self._grid(len(self.t) - 1))),
            ("most cells", attrs["most_cells"]),
            ("time error", f"{float(last.time_error):.2e} (estimated bound; tol {attrs['tol']})"),
            ("grid error", f"{float(last.grid_error):.2e} (estimate, integrated trace norm)"),
            ("window error", f"{float(last.window_error):.2e} (bound, integrated trace norm; tol {attrs['tol']})"),
            ("trace", f"{float(last.trace):.15f}"),
            ("all probability - 1", f"{float(self.probability()[-1]) - 1:.1e}"),
            ("smallest eigenvalue", f"{float(ds.min_eigenvalue.min()):.2e} of the largest trace"),
            ("resolution", attrs["resolution"]),
            ("wall seconds", f"{float(last.wall_seconds):.3g}"),
        ]
        return "\n".join(f"{name:>20}  {value}" for name, value in rows)

    def probability(self) -> xr.DataArray:
        """Probability inside, escaped through the ends and left behind by moves, together: 1 to round-off at all times."""
        ds = self.dataset
        left = ds["window_loss"].values
        return ds["trace"] + ds["escaped_probability"] + np.einsum("taa->t", left).real

    def _grid(self, k: int) -> Grid:
        """The window of output ``k``."""
        moving = dataset.grid_of(self.dataset)
        rows = zip(moving.axes, self.dataset["window_lower"].values[k], self.dataset["window_upper"].values[k], strict=True)
        return Grid(**{a.name: (lower, upper, round((upper - lower) / a.spacing), tuple(map(str, a.ends))) for a, lower, upper in rows})

    def _field(self, k: int) -> xr.Dataset:
        """The solution of frame ``k``."""
        ds = self.dataset
        now = self.frames[k]
        index = int(np.flatnonzero(ds["t"].values == now)[0])
        grid, one = self._grid(index), ds.isel(t=[index])
        rho = ds["rho"].isel({self._time: [k], **{a.name: slice(0, a.n) for a in grid.axes}})
        others = {str(name): v.variable for name, v in one.data_vars.items() if name not in ("rho", "escaped", *dataset.DIAGNOSTICS)}
        attrs = {key: value for key, value in ds.attrs.items() if key not in ("kind", "cqpde_schema")}
        # the frame of `build` is complete but for what only a moving window has
        found = dataset.build(
            grid, ds.sizes["row"], np.array([now]), np.array([now]), rho.values, one["escaped"].values,
            {name: one[name].values for name in dataset.DIAGNOSTICS}, {}, attrs,
        )  # fmt: skip
        return found.assign({name: v for name, v in others.items() if not set(v.dims) & set(grid.names)})


def without_axes(what: str, value: xr.DataArray, sol: xr.Dataset) -> xr.DataArray:
    """Refuse an observable over the coordinates; returns it without its time dimension."""
    over = [a for a in Accessor(sol).grid.names if a in value.dims]
    if over:
        raise OptionError("observable", "must not depend on coordinates, which a moving window changes", f"{what!r} over {', '.join(over)}", "Take it from at(t)")
    return value.isel(t=0, drop=True) if "t" in value.dims else value.drop_vars("t", errors="ignore")
