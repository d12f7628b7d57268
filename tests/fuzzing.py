"""What a fuzzed case is and how it is judged: it runs to a physical result, or is refused by a CqpdeError that names its argument."""

from __future__ import annotations

import contextlib
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cqpde.errors import CqpdeError

#: What a run may take; the cases are small.
SECONDS = 20.0


class Hang(BaseException):
    """A case took longer than it may (no Exception, so that nothing on the way takes it for one of its own)."""


@dataclass(frozen=True)
class Case:
    """Something to do, what must hold of its result, and what it was made of, for the report."""

    kind: str
    words: dict[str, Any]
    action: Callable[[], Any]
    physical: Callable[[Any], None]

    def __repr__(self) -> str:
        return f"{self.kind}: " + ", ".join(f"{k}={v}" for k, v in self.words.items())


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise :class:`Hang` in the main thread after so many seconds of processor time."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: Any) -> None:
        raise Hang(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def judge(case: Case, seconds: float = SECONDS) -> str:
    """Do a case; ``"run"``, or what it was refused for. Everything else (another exception, a hang, an unphysical result) is raised: a defect."""
    with limit(seconds), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = case.action()
        except CqpdeError as error:
            assert isinstance(error.argument, str) and error.argument and error.rule, repr(error)
            assert len(str(error)) < 2000, f"a message of {len(str(error))} characters"
            return f"{type(error).__name__} {error.argument.split('[')[0][:30]}: {error.rule[:70]}"
        case.physical(result)
    return "run"


def physical_solution(ds: Any, declared: bool = True) -> None:
    """Finite, Hermitian, trace and escaped probability one to 1e-12, eigenvalues as the run declares (of a model that is itself physical)."""
    for name, array in ds.data_vars.items():
        if name != "grid_error":
            assert np.all(np.isfinite(array.values)), f"{name} is not finite"
    rho = ds["rho"].values
    rho = rho if "batch" in ds["rho"].dims else rho[:, None]
    scale = np.abs(rho).max()
    assert np.abs(rho - np.conj(np.swapaxes(rho, 2, 3))).max() <= 1e-12 * scale, "not Hermitian"
    total = ds["trace"] + ds["escaped_probability"]
    assert float(abs(total - 1).max()) < 1e-12, f"trace and escaped are off by {float(abs(total - 1).max()):.3g}"
    if not declared:
        return
    least = -1e-9 if str(ds.attrs["positivity"]).startswith("exact") else -0.0101
    if "linear" in str(ds.attrs["positivity"]):
        least = -np.inf  # what limited steps would cost is left to the user, and warned about
    cells = np.moveaxis(rho, (2, 3), (-2, -1)).reshape(rho.shape[0], rho.shape[1], -1, rho.shape[2], rho.shape[2])
    lowest = np.linalg.eigvalsh(cells)[..., 0].min(axis=-1)
    largest = np.real(np.trace(cells, axis1=-2, axis2=-1)).max(axis=-1)
    largest = np.maximum(largest, 1.0 / (float(ds["cell_volume"].values.flat[0]) * cells.shape[2]))  # an even spread, where nearly all has left
    assert np.all(lowest >= least * largest), f"eigenvalue {(lowest / largest).min():.3g} of the largest trace"


def physical_ensemble(ens: Any, declared: bool = True) -> None:
    """Finite statistics; trace of what is inside and what escaped one to round-off, except where Tr rho is a weight; purities in their range."""
    for name, array in ens.data_vars.items():
        if not str(name).startswith(("path_", "arrival_", "skewness")):  # NaN after absorption; NaN where there are too few
            values = array.values
            if str(name).startswith("purity"):
                values = values[ens["moments"].values[:, 0, : ens.sizes["row"]].sum(axis=1) > 0]  # none without trajectories
            assert np.all(np.isfinite(values)), f"{name} is not finite"
    if ens.attrs["method"] == "linear":
        return
    d = ens.sizes["row"]
    weight = ens["moments"].values[:, 0, :d].sum(axis=1) + np.real(np.einsum("tfaa->t", ens["escaped"].values))
    slack = 1e-10 if ens.attrs["method"] != "euler-maruyama" else 1e-6
    assert np.abs(weight - 1).max() < slack, f"weight is off by {np.abs(weight - 1).max():.3g}"
    if declared and ens.attrs["method"] == "instrument":
        assert float(ens["purity_max"].max()) < 1 + 1e-9 and float(ens["purity_min"].min()) > -1e-9, "purity out of range"
