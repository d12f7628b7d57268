"""The stretches of a run on a moving window: how :func:`cqpde.follow` goes on, what it has found, and the Dataset of it."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import map_coordinates

from . import dataset
from .checkpoint import NoKeeper
from .components import to_components, to_matrix
from .errors import CqpdeError, CqpdeWarning, RouteError, SolverError
from .grid import Grid
from .initial import State
from .memory import require_room
from .model import Model
from .moving import KIND
from .runs import PRECISIONS
from .solver import solve
from .windows import Lattice, Window, moved, occupied, predict

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

#: Part of ``tol`` that may come to the ends of a window in one stretch.
AT_ENDS = 1e-2

#: A stretch is tried so often, each time half as long and on a window wider by this part of the occupied extent; the next one begins
#: as wide, and where hardly anything came to the ends one part less.
ATTEMPTS, WIDER = 6, 0.25

#: Stretches of a run at most.
MOST_STRETCHES = 1e5

#: A stretch ends at an output rather than up to this part before its predicted end.
SNAP = 0.5

#: Diagnostics that add up over the stretches.
SUMS = ("time_error", "steps", "steps_rejected", "escaped_probability")


def moments_of(frame: xr.Dataset) -> Array:
    """Mean and covariance (n, n + 1) of the coordinates of a snapshot."""
    mean, covariance = State(dataset.grid_of(frame), frame["rho"].values[0]).moments()
    return np.column_stack([mean, covariance])


@dataclass
class Output:
    """One output time: its window, diagnostics, saved observables, and the field if it is kept."""

    t: float
    window: Window
    escaped: Array
    diagnostics: dict[str, Array]
    saved: dict[str, xr.DataArray]
    window_error: float
    window_loss: Array
    rho: Array | None


@dataclass
class Run:
    """A run as it goes: the state now, on its window, and what was found so far."""

    model: Model
    rho0: State
    lattice: Lattice
    times: Array
    kept: Array
    tol: float
    margin: float
    options: dict[str, Any]
    outputs: list[Output] = field(default_factory=list)
    attrs: list[dict[str, Any]] = field(default_factory=list)
    repeated: int = 0
    told: set[tuple[str, str]] = field(default_factory=set)
    keeper: NoKeeper = field(default_factory=NoKeeper)

    def __post_init__(self) -> None:
        d, grid = self.model.dim, self.rho0.grid
        self.now = float(self.times[0])
        self.rho: Array = self.rho0.rho
        self.window = Window((0,) * grid.ndim, grid.shape)
        self.loss, self.error = np.zeros((d, d), dtype=complex), 0.0
        self.escaped = np.zeros((2 * grid.ndim, d, d), dtype=complex)
        self.sums = dict.fromkeys(SUMS, 0.0)
        self.grid_error, self.wider = 0.0, 0
        self.began = time.perf_counter() - self.keeper.before

    @property
    def dtype(self) -> np.dtype[Any]:
        """Precision of the fields."""
        return np.result_type(PRECISIONS[self.options.get("precision", "double")], np.complex64)

    def stretch(self) -> None:
        """Go on by one stretch, on a window of its own."""
        here = occupied(self.lattice.grid(self.window), self.rho, self.margin)
        reach, left, why = float(self.times[-1]), np.inf, ""
        for attempt in range(self.wider, self.wider + ATTEMPTS):
            end, lower, upper = predict(self.model, self.lattice, here, self.now, reach, self.margin)
            if end < self.times[-1] and not MOST_STRETCHES * (end - self.now) > self.times[-1] - self.times[0]:
                step = f"a stretch of {end - self.now:.3g} at t = {self.now:.6g}, of a run of {self.times[-1] - self.times[0]:.3g}"
                raise SolverError("follow", f"a run must do with {MOST_STRETCHES:g} stretches", step, "Raise margin or tol, choose earlier times, or use solve on a fixed box")
            reach = self.now + 0.5 * (end - self.now)
            wider = attempt * WIDER * (here.upper - here.lower)
            window = self.lattice.window(lower - wider, upper + wider)
            rho, outside = moved(self.rho, self.window, window)
            volume = self.lattice.base.cell_volume
            lost = float(np.abs(np.linalg.eigvalsh(np.moveaxis(outside, -1, 0))).sum()) * volume
            if not self.error + lost <= self.tol:
                raise self._refusal(self.error + lost, window)
            try:
                sol, found = self._solve(window, rho, self._stops(end))
            except RouteError as error:
                if not _of_ends(error):
                    raise
                self.repeated, why = self.repeated + 1, f" ({error})"
                continue
            left = self._left(sol)
            if left <= AT_ENDS * self.tol:
                break
            self.repeated += 1
        else:
            what = f"{left:.2g} of it" if np.isfinite(left) else "more"
            raise SolverError(
                "follow", f"at most {AT_ENDS * self.tol:.2g} of the state may come to the ends of a window", f"{what} from t = {self.now:.6g} on, in {ATTEMPTS} tries{why}",
                "Raise tol or margin, use finer cells, or solve on a fixed box",
            )  # fmt: skip
        self.wider = max(0, attempt - (left < 1e-3 * AT_ENDS * self.tol))
        self.window, self.error = window, self.error + lost
        self.loss = self.loss + outside.sum(axis=-1) * volume
        if not self.error + left <= self.tol:
            raise self._refusal(self.error + left, window)
        self._tell(found)
        self._take(sol)

    def _refusal(self, error: float, window: Window) -> SolverError:
        found = f"{error:.2g} at t = {self.now:.6g}, window {self.lattice.grid(window)!r}"
        return SolverError("follow", f"window_error must stay within tol = {self.tol:g}", found, "Raise tol, or margin where it was given")

    def _stops(self, end: float) -> Array:
        """Times of a stretch: outputs inside, and its end, for which an output not far before is taken."""
        inside = self.times[(self.times > self.now) & (self.times <= end)]
        if len(inside) and inside[-1] >= self.now + SNAP * (end - self.now):
            end = float(inside[-1])
        return np.unique([self.now, *inside, end])

    def _solve(self, window: Window, rho: Array, stops: Array) -> tuple[xr.Dataset, list[Any]]:
        """Solve one stretch; what it warned of is kept until the stretch counts."""
        d, n = self.model.dim, float(np.prod(window.cells))
        if not self.options["force"]:
            require_room("t", "the fields to keep", 16.0 * d * d * n * len(self.kept), "Keep fewer (frames=), use wider cells, or go on with force")
        grid = self.lattice.grid(window)
        state = State(grid, rho, self._recipe(grid, rho), note="continued")
        state.checked.add(d)  # it is the result of a run, whose monitors have seen it, or the cut of a checked state
        share = (stops[-1] - stops[0]) / (self.times[-1] - self.times[0])
        frames = np.unique([*self.kept[(self.kept >= stops[0]) & (self.kept <= stops[-1])], stops[-1]])
        options = {**self.options, "frames": frames, "tol": max(share * self.tol, 1e-13)}
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            return self._by_route(state, stops, options), found

    def _by_route(self, state: State, stops: Array, options: dict[str, Any]) -> xr.Dataset:
        """One run; ``auto`` leaves the split route for what the window is not to blame for, and then for good."""
        if options.get("method", "auto") != "auto" or (self.attrs and self.attrs[-1]["method"] == "fv"):
            return solve(self.model, state, stops, **options)
        try:
            return solve(self.model, state, stops, **options | {"method": "split"})
        except RouteError as reason:
            if _of_ends(reason):
                raise
            sol = solve(self.model, state, stops, **options | {"method": "fv"})
            sol.attrs["method_reason"] = f"the split route was tried and left: {reason}"
            return sol
        except CqpdeError:  # refused before any work: the other route, or the same refusal
            return solve(self.model, state, stops, **options)

    def _recipe(self, grid: Grid, rho: Array) -> Any:
        """How finite volumes get the state on half the cells, for the estimate of the grid error."""
        if not self.options["grid_error"] or (self.attrs and self.attrs[-1]["method"] == "split"):
            return None
        if not self.attrs and self.rho0.recipe is not None:
            return self.rho0.recipe
        return lambda other: _interpolated(grid, rho, other)

    def _left(self, sol: xr.Dataset) -> float:
        """What escaped through the moving ends in a stretch, or came to the ends where the route goes round."""
        return float(self._lefts(sol)[-1])

    def _lefts(self, sol: xr.Dataset) -> Array:
        """The same up to each time of the stretch."""
        through = np.einsum("tfaa->tf", sol["escaped"].values).real.reshape(sol.sizes["t"], -1, 2)[:, list(self.lattice.follows)].sum(axis=(1, 2))
        return np.maximum.accumulate(np.maximum(through, 0.0) + sol["edge_probability"].values)

    def _tell(self, found: list[Any]) -> None:
        """Pass on what the stretch warned of, each kind once; what came to the ends of the window is in its error."""
        fixed = any(end.kind == "open" for a, moves in zip(self.lattice.base.axes, self.lattice.follows, strict=True) if not moves for end in a.ends)
        for one in found:
            text = str(one.message)
            if "open ends" in text and not fixed:
                continue
            key = one.category.__name__, "".join(c for c in text.partition(":")[0] if c.isalpha())
            if not issubclass(one.category, CqpdeWarning) or key not in self.told:
                self.told.add(key)
                warnings.warn(text, one.category, stacklevel=5)

    def _take(self, sol: xr.Dataset) -> None:
        """Keep the outputs of a stretch, and go on from its end."""
        stops, fields, lefts = sol["t"].values, sol["rho"], self._lefts(sol)
        framed = list(sol[str(fields.dims[0])].values)
        # estimates of runs on half the cells add up; the content of the highest modes is that of the state
        combine = np.maximum if sol.attrs["method"] == "split" else np.add
        cells = combine(sol["grid_error"].values, self.grid_error)
        for k, now in enumerate(stops):
            if now not in self.times or (k == 0 and self.outputs):
                continue
            diagnostics = {name: np.asarray(sol[name].values[k]) for name in dataset.DIAGNOSTICS}
            diagnostics |= {name: diagnostics[name] + self.sums[name] for name in SUMS}
            diagnostics |= {"grid_error": cells[k], "wall_seconds": np.asarray(time.perf_counter() - self.began)}
            saved = {name: sol[name].isel(t=k, drop=True) for name in self.options["save"]}
            rho = fields.values[framed.index(now)] if now in self.kept else None
            escaped = self.escaped + sol["escaped"].values[k]
            self.outputs.append(Output(float(now), self.window, escaped, diagnostics, saved, self.error + float(lefts[k]), self.loss, rho))
            self.keeper.recorded()
        self.error += float(lefts[-1])
        self.grid_error = float(cells[-1])
        self.escaped = self.escaped + sol["escaped"].values[-1]
        self.sums = {name: value + float(sol[name].values[-1]) for name, value in self.sums.items()}
        self.rho, self.now = fields.values[-1], float(stops[-1])
        self.attrs.append(dict(sol.attrs, cells=int(np.prod(self.window.cells))))

    def dataset(self) -> xr.Dataset:
        """All outputs so far, of which one has a field; the fields on axes that start at the lower end of each window."""
        import xarray as xr

        base, d, times = self.lattice.base, self.model.dim, self.times[: len(self.outputs)]
        grids = [self.lattice.grid(o.window) for o in self.outputs]
        framed = [o for o in self.outputs if o.rho is not None]
        most = tuple(int(n) for n in np.max([o.window.cells for o in framed], axis=0))
        rows = zip(base.axes, self.lattice.follows, most, strict=True)
        whole = Grid(**{
            a.name: (0.0, n * a.spacing, n, "open") if moves else (a.lower, a.upper, a.n, tuple(map(str, a.ends))) for a, moves, n in rows
        })  # fmt: skip
        corner = (0,) * base.ndim
        rho = np.empty((len(framed), d, d, *most), dtype=self.dtype)
        for k, o in enumerate(framed):
            rho[k], _ = moved(np.asarray(o.rho), Window(corner, o.window.cells), Window(corner, most))
            o.rho = None
        saved = {name: xr.concat([o.saved[name] for o in self.outputs], dim="t") for name in self.options["save"]}
        moments = saved.pop("moments").values
        stack = lambda values: np.stack(list(values))
        ds = dataset.build(
            whole, d, times, self.kept[: len(framed)], rho, stack(o.escaped for o in self.outputs),
            {name: stack(o.diagnostics[name] for o in self.outputs) for name in dataset.DIAGNOSTICS}, saved, self._attrs(),
        )  # fmt: skip
        names = ", ".join(base.names)
        ds["mean"] = (("t", "axis"), moments[:, :, 0], {"long_name": f"means of {names}", "units": "1"})
        ds["covariance"] = (("t", "axis", "axis_2"), moments[:, :, 1:], {"long_name": f"covariances of {names}", "units": "1"})
        for name, bound in (("window_lower", "lower"), ("window_upper", "upper")):
            values = [[getattr(a, bound) for a in g.axes] for g in grids]
            ds[name] = (("t", "axis"), np.array(values), {"long_name": f"{bound} ends of the window along {names}", "units": "1"})
        ds["window_error"] = ("t", stack(o.window_error for o in self.outputs), {"long_name": "bound of what the windows leave out, integrated trace norm", "units": "1"})
        ds["window_loss"] = (("t", "row", "col"), stack(o.window_loss for o in self.outputs), {"long_name": "density matrix left outside by moves of the window so far", "units": "1"})
        for a, moves in zip(base.axes, self.lattice.follows, strict=True):
            if moves:
                ds[a.name].attrs["long_name"] = f"classical coordinate {a.name} from the lower end of the window: {a.name} is this plus window_lower"
        return ds

    def _attrs(self) -> dict[str, Any]:
        """Attributes of the run: of its last stretch, but for what is worst or adds up over all of them."""
        last, every = self.attrs[-1], self.attrs
        worst = max(every, key=lambda a: a["resolution_error"] if np.isfinite(a["resolution_error"]) else -1.0)
        attrs = {key: value for key, value in last.items() if key not in ("cqpde_schema", "cells")}
        return attrs | {
            "kind": KIND,
            "title": f"Hybrid distribution of the model {self.model.name} on a moving window",
            "method": " and ".join(dict.fromkeys(a["method"] for a in every)),
            "linear_in_state": min(a["linear_in_state"] for a in every),
            "tol": float(self.tol),
            "margin": self.margin,
            "positivity_margin": min(a["positivity_margin"] for a in every),
            "largest_peclet": max(a["largest_peclet"] for a in every),
            "ends": "; ".join(dict.fromkeys(a["ends"] for a in every)),
            "resolution": worst["resolution"],
            "resolution_error": worst["resolution_error"],
            "initial_state": self.rho0.note or "given",
            "initial_normalisation": float(self.rho0.normalisation),
            "applications": sum(a["applications"] for a in every),
            **{key: sum(a.get(key, 0.0) for a in every) for key in last if key.startswith("seconds_") or key == "skipped_error"},
            "stretches": len(every),
            "repeated": self.repeated,
            "most_cells": max(a["cells"] for a in every),
            "follows": " ".join(a.name for a, moves in zip(self.lattice.base.axes, self.lattice.follows, strict=True) if moves),
        }


def _of_ends(error: RouteError) -> bool:
    """Whether a run was ended by what came to its open ends."""
    return "open ends" in error.rule


def _interpolated(grid: Grid, rho: Array, other: Grid) -> State:
    """A state at the centres of other cells of the same box, by cubic splines."""
    mesh = np.stack(np.meshgrid(*[(c.centers - f.centers[0]) / f.spacing for c, f in zip(other.axes, grid.axes, strict=True)], indexing="ij"))
    mode = "grid-wrap" if all(a.periodic for a in grid.axes) else "nearest"
    x = np.stack([map_coordinates(c, mesh, order=3, mode=mode) for c in to_components(rho)])
    state = State(other, to_matrix(x), note="continued")
    state.checked.add(state.dim)
    return state
