r"""The checks of a model on a grid: finite, Hermitian, and completely positive by eq. (6).

The Lindblad operators are expanded in an orthonormal basis of traceless operators first (a test on the printed :math:`L_\alpha` alone
would refuse the paper's own C.4, where one of them vanishes). Only the span of the traceless parts matters: with
:math:`M_\alpha = \sum_b C_{\alpha b} F_b` and the thin factorisation :math:`C^T = Q R`,

.. math::
    D_0' = R D_0 R^\dagger, \quad D_1' = D_1 R^\dagger, \qquad
    \text{physical} \iff D_2 \ge 0,\ (1 - s s^+) D_1' = 0,\ D_0' - D_1'^\dagger s^+ D_1' \ge 0 .
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .coefficients import stack
from .errors import CqpdeWarning, ModelError
from .grid import Grid

if TYPE_CHECKING:
    from .model import Model

Array = np.ndarray

#: Relative slack for round-off in coefficients that the user computed.
SLACK = 1e-10


def check_model(model: Model, grid: Grid, t: float, mode: str) -> float:
    """Implement :meth:`cqpde.Model.check`."""
    model.require_coordinates(grid)
    z = grid.mesh()
    n = grid.ndim
    fields: dict[str, Array] = {}
    for name, coefficient in model.coefficients.items():
        entries = coefficient.entries(z, t)
        for index in np.ndindex(*entries.shape):
            bad = ~np.isfinite(entries[index])
            if bad.any():
                cell = tuple(np.argwhere(bad)[0])
                label = name + "".join(f"[{i}]" for i in index)
                raise ModelError(
                    label,
                    "must be finite on every cell",
                    f"{entries[index][cell]} at {_place(grid, cell, bad.shape)}",
                    "Move the box or regularise",
                )
        fields[name] = stack(entries, n)
    _require_small(grid, "H", "must be Hermitian", fields["H"] - _adjoint(fields["H"]), fields["H"], n)
    _require_small(grid, "D0", "must be Hermitian", fields["D0"] - _adjoint(fields["D0"]), fields["D0"], n)
    _require_small(
        grid, "excess", "must be Hermitian", fields["excess"] - _adjoint(fields["excess"]), fields["excess"], n
    )
    _require_small(grid, "D2", "must be real", fields["D2"].imag, fields["D2"], n)
    _require_small(grid, "D2", "must be symmetric", fields["D2"] - np.swapaxes(fields["D2"], -1, -2), fields["D2"], n)
    _require_small(grid, "D1C", "must be real", fields["D1C"].imag[..., None], fields["D1C"][..., None], n)
    if mode == "off":
        return float("nan")
    return _check_trade_off(model, grid, fields, mode, t)


def _check_trade_off(model: Model, grid: Grid, fields: dict[str, Array], mode: str, t: float) -> float:
    from .model import pseudo_inverse

    n, d = grid.ndim, model.dim

    def complain(argument: str, rule: str, found: str, remedy: str) -> None:
        if mode == "error":
            raise ModelError(argument, rule, found, remedy + ", or pass check='warn' or 'off' if this is intended")
        warnings.warn(f"{argument}: {rule}; found {found} at t = {t:g}", CqpdeWarning, stacklevel=5)

    s = 2.0 * fields["D2"].real
    values = np.linalg.eigvalsh(s)[..., 0]
    scale = float(np.max(np.abs(s))) or 1.0
    worst = _worst(grid, values)
    if worst[0] < -SLACK * scale:
        complain(
            "D2",
            "must be positive semi-definite on every cell",
            f"eigenvalue {worst[0] / 2:.4g} at {worst[1]}",
            "Diffusion cannot be negative",
        )
    lindblad = fields["L"]
    if lindblad.shape[-3] == 0 or d == 1:
        return 0.0
    r = traceless_factor(lindblad, d)
    d1 = fields["D1"] @ _adjoint(r)
    inverse = pseudo_inverse(s)
    outside = d1 - s @ inverse @ d1
    defect = np.abs(outside).max(axis=-1)  # (*cells, n)
    coordinate = int(np.argmax(defect.max(axis=tuple(range(n)))))
    worst = _worst(grid, -defect[..., coordinate])
    if -worst[0] > 1e-8 * (float(np.max(np.abs(d1))) or 1.0):
        complain(
            f"D1 (row {model.coordinates[coordinate]})",
            "back-reaction needs noise: (1 - D2 D2^+) D1 = 0, eq. (6)",
            f"{-worst[0]:.4g} outside the range of D2 at {worst[1]}",
            f"Give {model.coordinates[coordinate]} some noise there",
        )
    least = _adjoint(d1) @ inverse @ d1
    if model.saturated:
        excess = r @ fields["excess"] @ _adjoint(r)
    else:
        excess = r @ fields["D0"] @ _adjoint(r) - least
    margins = np.linalg.eigvalsh(0.5 * (excess + _adjoint(excess)))[..., 0]
    worst = _worst(grid, margins)
    scale = max(float(np.max(np.abs(least), initial=0.0)), float(np.max(np.abs(fields["D0"]), initial=0.0)), 1e-300)
    if worst[0] < -SLACK * scale:
        name = "excess" if model.saturated else "D0"
        rule = (
            "must be positive semi-definite"
            if model.saturated
            else "decoherence-diffusion trade-off D0 >= D1^+ (2 D2)^+ D1, eq. (6)"
        )
        complain(name, rule, f"margin {worst[0]:.4g} at {worst[1]}", "Increase D0 or D2, or reduce D1")
    return float(worst[0])


def traceless_factor(lindblad: Array, d: int) -> Array:
    """The factor R that expresses D0 and D1 in an orthonormal basis of the traceless parts of the Lindblad operators (*cells, p, d, d)."""
    traces = np.trace(lindblad, axis1=-2, axis2=-1) / d
    m = lindblad - traces[..., None, None] * np.eye(d)
    return np.asarray(np.linalg.qr(np.swapaxes(m.reshape(*m.shape[:-2], d * d), -1, -2), mode="r"))


def _adjoint(m: Array) -> Array:
    return np.conj(np.swapaxes(m, -1, -2))


def _require_small(grid: Grid, name: str, rule: str, defect: Array, field: Array, n: int) -> None:
    if defect.size == 0:
        return
    size = np.abs(defect).max(axis=tuple(range(n, defect.ndim)))
    worst = _worst(grid, -size)
    if -worst[0] > SLACK * (float(np.max(np.abs(field))) or 1.0):
        raise ModelError(
            name, f"{rule} on every cell", f"a defect of {-worst[0]:.4g} at {worst[1]}", "Correct the coefficient"
        )


def _worst(grid: Grid, values: Array) -> tuple[float, str]:
    cell = np.unravel_index(int(np.argmin(values)), values.shape)
    return float(values[cell]), _place(grid, cell, values.shape)


def _place(grid: Grid, cell: Any, shape: tuple[int, ...]) -> str:
    parts = [f"{a.name} = {a.centers[i]:.6g}" for a, i, m in zip(grid.axes, cell, shape, strict=False) if m > 1]
    return "cell " + ", ".join(parts) if parts else "every cell"
