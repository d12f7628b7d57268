r"""A completely positive composition of order 4: forward steps only, with a corrected kick in the middle.

For the drift :math:`T = -v_q(p)\,\partial_q` along noise-free axes and the kick with local terms V at fixed q,

.. math:: S(h) = e^{hV/6}\,e^{hT/2}\,e^{(2h/3)\tilde V}\,e^{hT/2}\,e^{hV/6}, \qquad \tilde V = V + \tfrac{h^2}{48}[V, [T, V]]

is of order 4 with all steps forward in time (M. Suzuki 1996; S. Chin, Phys. Lett. A 226, 344 (1997), for Hamiltonians). When v is linear,
:math:`v_q = M_{qj} p_j + c_q`, s and A are constant, the force v_j depends on q only, and A, H(q) and the excess are diagonal in one basis, the
double commutator is

.. math:: [V, [T, V]] = -2 (s_j\partial_j - v_j - A_j\cdot - \cdot A_j^\dagger)\left(-\partial_j F_j - i[G_j, \cdot]\right), \qquad
    F_j = M_{qj}\,\partial_q v_j, \quad G_j = M_{qj}\,\partial_q H,

and :math:`\tilde V`, up to terms of order :math:`h^4` that are themselves decoherence, is again a kick with its forced decoherence,

.. math:: \tilde s_j = s_j (1 + 4\epsilon F_j), \quad \tilde v_j = v_j (1 + 2\epsilon F_j), \quad
    \tilde A_j = A_j (1 + 2\epsilon F_j) - 2 i\epsilon\, s_j G_j, \quad \tilde H = H + 2\epsilon (A_j + v_j) G_j, \qquad \epsilon = h^2/48,

which has Kraus operators: every factor of S is completely positive.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..grid import Grid
from ..model import Canonical, Model
from ..superoperators import excess, hamiltonian
from .commuting import rotations, superoperators
from .parts import Kick, Structure, depends, fields_at, tidy

Array = np.ndarray

#: Step of the differences in q, in cells: their error is far below what it is multiplied by.
DIFFERENCE = 1e-3


def order_four(model: Model, grid: Grid, structure: Structure, streams: list[int], t: float) -> bool:
    """Whether the corrected kick exists for a model whose drift along ``streams`` moves by whole cells."""
    kicks = [i for p in structure.parts if isinstance(p, Kick) for i in p.axes]
    if model.time_dependent or not streams or any(depends(model.drift(grid.mesh(), t)[i], tuple(kicks)) for i in kicks):
        return False
    f = fields_at(model, grid.mesh(), t, structure.basis)
    everywhere = tuple(range(grid.ndim))
    if any(depends(f.A[i], everywhere) for i in kicks) or depends(f.s, everywhere) or depends(f.H, tuple(kicks)):
        return False
    if any(np.max(np.abs(f.A[i] - np.conj(np.swapaxes(f.A[i], -1, -2)))) > 1e-13 for i in kicks):
        return False
    beyond = tidy(excess(f), grid.ndim)
    if depends(beyond, everywhere) or not rotations([beyond, hamiltonian(f), *superoperators(f, tuple(kicks))]):
        return False
    slopes = _slopes(model, grid, streams, kicks, t)
    if slopes is None:
        return False
    # a force on one noisy axis that varies along what another one drives would correlate their noise
    return all(
        not np.any(slopes[q, j] * _derivative(model, grid, t, structure, q)[1][i]) for q in streams for j in kicks for i in kicks if i != j
    )


def _slopes(model: Model, grid: Grid, streams: list[int], kicks: list[int], t: float) -> dict[tuple[int, int], float] | None:
    """``M_qj`` of drifts that are linear in the coordinates of the noisy axes; None if one is not."""
    out: dict[tuple[int, int], float] = {}
    for q in streams:
        v = tidy(model.drift(grid.mesh(), t)[q], grid.ndim)
        rest = v
        for j in kicks:
            z = grid.mesh()[grid.names[j]]
            slope = 0.0
            if v.shape[j] > 1:
                ends = v.take([0, -1], axis=j)
                slope = float(np.diff(ends, axis=j).reshape(-1)[0] / (z.reshape(-1)[-1] - z.reshape(-1)[0]))
            rest = rest - slope * z
            out[q, j] = slope
        if np.max(rest) - np.min(rest) > 1e-10 * max(1.0, float(np.max(np.abs(v)))):
            return None
    return out


def _derivative(model: Model, grid: Grid, t: float, structure: Structure, q: int) -> tuple[Array, list[Array]]:
    """``dH/dq`` and the ``dv_i/dq``."""
    step = DIFFERENCE * grid.axes[q].spacing
    ends = []
    for sign in (1.0, -1.0):
        mesh = grid.mesh()
        mesh[grid.names[q]] = mesh[grid.names[q]] + sign * step
        f = fields_at(model, mesh, t, structure.basis)
        ends.append((f.H, f.v))
    (h_up, v_up), (h_down, v_down) = ends
    clean = lambda a, size: np.where(np.abs(a) > 1e-9 * size, a, 0.0)
    slope = lambda up, down: clean((up - down) / (2.0 * step), max(1.0, float(np.max(np.abs(up)))))
    return slope(h_up, h_down), [slope(a, b) for a, b in zip(v_up, v_down, strict=True)]


def longest_step(model: Model, grid: Grid, structure: Structure, streams: list[int], t: float) -> float:
    """The step at which the correction takes three quarters of the noise of the middle kick somewhere."""
    kicks = [i for p in structure.parts if isinstance(p, Kick) for i in p.axes]
    slopes = _slopes(model, grid, streams, kicks, t)
    assert slopes is not None
    derivatives = {q: _derivative(model, grid, t, structure, q)[1] for q in streams}
    weakest = min((float(np.min(sum(slopes[q, j] * derivatives[q][j] for q in streams))) for j in kicks), default=0.0)
    return (9.0 / -weakest) ** 0.5 if weakest < 0.0 else float("inf")


def corrected(model: Model, grid: Grid, structure: Structure, streams: list[int], t: float, h: float) -> Canonical:
    """The canonical fields of the corrected kick of a step ``h``."""
    f = fields_at(model, grid.mesh(), t, structure.basis)
    kicks = [i for p in structure.parts if isinstance(p, Kick) for i in p.axes]
    slopes = _slopes(model, grid, streams, kicks, t)
    assert slopes is not None
    epsilon = h * h / 48.0
    derivatives = {q: _derivative(model, grid, t, structure, q) for q in streams}
    noise, force_on, drift, energy = f.s.astype(float), list(f.v), list(f.A), f.H
    for j in kicks:
        force = sum(slopes[q, j] * derivatives[q][1][j] for q in streams)
        turning = sum(slopes[q, j] * derivatives[q][0] for q in streams)
        change = np.zeros(np.broadcast_shapes(noise.shape, (*np.shape(force), 1, 1)))
        change[..., j, j] = 4.0 * epsilon * force * f.s[..., j, j]
        noise = noise + change
        strength = f.s[..., j, j][..., None, None]
        drift[j] = f.A[j] * (1.0 + 2.0 * epsilon * np.asarray(force)[..., None, None]) - 2j * epsilon * strength * turning
        force_on[j] = f.v[j] * (1.0 + 2.0 * epsilon * np.asarray(force))
        energy = energy + 2.0 * epsilon * (f.A[j] @ turning + f.v[j][..., None, None] * turning)
    return replace(f, s=noise, v=force_on, A=drift, H=energy)
