"""What a checkpoint keeps of a run on a moving window: the state at the end of a stretch, its window, and what was found so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import dataset
from .checkpoint import Keeper, Saved
from .recorder import packed, unpacked
from .stored_run import record_of
from .stretches import SUMS, Output, Run
from .windows import Window

Array = np.ndarray


def begin(run: Run, options: dict[str, Any]) -> None:
    """Start to keep a run."""
    if isinstance(run.keeper, Keeper):
        keeper, state = run.keeper, 2.0 * run.rho0.nbytes
        record = lambda: record_of(keeper, "follow", run.model, [run.rho0], run.times, True, options)
        keeper.begin(record, state * (len(run.kept) + 3) + 1e5)


def attach(run: Run) -> None:
    """Tell what records the outputs; a run that is resumed goes on from its last good state."""
    saved = run.keeper.resumed
    run.keeper.attach(_Outputs(run))
    if saved is not None:
        _go_on(run, saved)


def offer(run: Run) -> None:
    """Take notice of the end of a stretch."""
    run.keeper.offer(len(run.outputs), lambda: ({"rho": run.rho, "loss": run.loss, "escaped": run.escaped}, _record(run)))


def _record(run: Run) -> dict[str, Any]:
    return {
        "t": run.now, "window": [list(run.window.first), list(run.window.cells)], "error": run.error, "sums": run.sums, "grid_error": run.grid_error,
        "wider": run.wider, "repeated": run.repeated, "told": sorted(map(list, run.told)), "attrs": [{k: _plain(v) for k, v in a.items()} for a in run.attrs],
    }  # fmt: skip


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _go_on(run: Run, saved: Saved) -> None:
    d, ndim = run.model.dim, run.rho0.grid.ndim
    try:
        run.window = _window(saved.record, ndim)
    except (KeyError, TypeError, ValueError) as error:
        raise saved.refused("window", "the cells of a window", str(error)[:80]) from None
    run.rho = saved.array("rho", d, d, *run.window.cells, dtype=run.dtype)
    run.loss, run.escaped = saved.array("loss", d, d, dtype=complex), saved.array("escaped", 2 * ndim, d, d, dtype=complex)
    run.now, run.error, run.grid_error = saved.number("t"), saved.number("error"), saved.number("grid_error")
    run.wider, run.repeated = saved.count("wider", 0, 1 << 30), saved.count("repeated", 0, 1 << 30)
    try:
        run.sums = {name: float(saved.record["sums"][name]) for name in SUMS}
        run.told = {(str(kind), str(text)) for kind, text in saved.record["told"]}
        run.attrs = [dict(a) for a in saved.record["attrs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise saved.refused("attrs", "what a run on a moving window has found", str(error)[:80]) from None


def _window(record: dict[str, Any], ndim: int) -> Window:
    first, cells = (tuple(int(n) for n in part) for part in record["window"])
    if len(first) != ndim or len(cells) != ndim or min(cells) < 1:
        raise ValueError(f"window {record['window']}")
    return Window(first, cells)


@dataclass(frozen=True)
class _Outputs:
    """The outputs of a run as a checkpoint keeps them (:class:`~cqpde.checkpoint.Records`)."""

    run: Run

    @property
    def total(self) -> int:
        """Outputs of the whole run."""
        return len(self.run.times)

    @property
    def count(self) -> int:
        """Outputs so far."""
        return len(self.run.outputs)

    def part(self, start: int, stop: int) -> tuple[dict[str, Array], dict[str, Any]]:
        """Outputs ``start <= k < stop`` as arrays."""
        arrays: dict[str, Array] = {}
        entries = []
        for k, o in enumerate(self.run.outputs[start:stop], start=start):
            arrays |= {f"escaped {k}": o.escaped, f"loss {k}": o.window_loss} | ({} if o.rho is None else {f"rho {k}": o.rho})
            arrays |= {f"diagnostic {k} {name}": np.asarray(value) for name, value in o.diagnostics.items()}
            saved = {name: packed(value, f"saved {name} {k}", arrays) for name, value in o.saved.items()}
            entries.append({"t": o.t, "window": [list(o.window.first), list(o.window.cells)], "window_error": o.window_error, "saved": saved})
        return arrays, {"outputs": entries}

    def size(self, start: int, stop: int) -> int:
        """Bytes of the fields among them."""
        return sum(o.rho.nbytes for o in self.run.outputs[start:stop] if o.rho is not None)

    def put(self, start: int, stop: int, arrays: dict[str, Array], record: dict[str, Any]) -> None:
        """Put back what :meth:`part` gave."""
        run, d = self.run, self.run.model.dim
        if start != len(run.outputs) or len(record["outputs"]) != stop - start:
            raise ValueError(f"{len(record['outputs'])} outputs")
        for k, entry in enumerate(record["outputs"], start=start):
            window, t = _window(entry, run.rho0.grid.ndim), float(entry["t"])
            rho, wanted = arrays.get(f"rho {k}"), (d, d, *window.cells)
            if t != run.times[k] or (rho is not None) != (t in run.kept) or (rho is not None and (rho.shape != wanted or rho.dtype != run.dtype)):
                raise ValueError(f"output {k}")
            diagnostics = {name: arrays[f"diagnostic {k} {name}"] for name in dataset.DIAGNOSTICS}
            saved = {name: unpacked(entry["saved"][name], f"saved {name} {k}", arrays) for name in run.options["save"]}
            run.outputs.append(Output(t, window, arrays[f"escaped {k}"], diagnostics, saved, float(entry["window_error"]), arrays[f"loss {k}"], rho))

    def columns(self) -> list[str]:
        """Names of the diagnostics of a line."""
        return ["t", *dataset.DIAGNOSTICS]

    def row(self, k: int) -> list[float]:
        """Time and diagnostics of an output: the largest of its numbers."""
        o = self.run.outputs[k]
        return [o.t, *(float(np.max(o.diagnostics[name])) for name in dataset.DIAGNOSTICS)]
