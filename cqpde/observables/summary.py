"""What a run did, as text."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..dataset import grid_of


def summary(ds: xr.Dataset) -> str:
    """Method, steps, trace, smallest eigenvalue and escaped probability of a solution, as text."""
    last = ds.isel(t=-1)
    number = lambda name: float(np.asarray(last[name]).max())
    rows = [
        ("model", ds.attrs.get("model", "?")),
        ("grid", repr(grid_of(ds))),
        ("method", f"{ds.attrs.get('method')} ({ds.attrs.get('method_reason')})"),
        ("transport", f"{ds.attrs.get('transport')}; cells inside {ds.attrs.get('cells_inside', 'as given')}"),
        ("positivity", f"{ds.attrs.get('positivity', '?')}; {'' if ds.attrs.get('linear_in_state', 1) else 'not '}linear in the state"),
        ("time", f"{float(ds.t[0]):g} ... {float(ds.t[-1]):g}, {ds.attrs.get('time_integration')}"),
        (
            "steps",
            f"{int(number('steps'))} accepted, {int(number('steps_rejected'))} rejected, last dt {number('dt'):.3g}",
        ),
        ("time error", f"{number('time_error'):.2e} (estimated bound; tol {ds.attrs.get('tol')})"),
        ("grid error", f"{number('grid_error'):.2e} (estimate, integrated trace norm)"),
        ("trace", f"{number('trace'):.15f}"),
        ("escaped probability", f"{number('escaped_probability'):.3e}"),
        ("trace + escaped - 1", f"{float(np.asarray(last['trace'] + last['escaped_probability'] - 1).flat[0]):.1e}"),
        ("smallest eigenvalue", f"{float(np.asarray(ds['min_eigenvalue']).min()):.2e} of the largest trace"),
        ("ends", ds.attrs.get("ends", "?")),
        ("resolution", ds.attrs.get("resolution", "?")),
        ("edge probability", f"{number('edge_probability'):.2e}"),
        ("wall seconds", _phases(ds)),
    ]
    return "\n".join(f"{name:>20}  {value}" for name, value in rows)


def _phases(ds: xr.Dataset) -> str:
    """Wall-clock time of a run by phase; compiling is one of its own."""
    total = float(np.asarray(ds.isel(t=-1)["wall_seconds"]).max())
    phases = [(name, ds.attrs.get(f"seconds_{name}")) for name in ("compile", "setup", "steps", "diagnostics")]
    shown = ", ".join(f"{name} {float(value):.3g}" for name, value in phases if value is not None)
    return f"{total:.3g}" + (f" ({shown})" if shown else "")


