r"""Where the noise points: grid directions of the Kraus scheme and their interface operators.

Along an integer offset :math:`e` the noise covariance in cell units is :math:`s' = \sum_e 2 r_e\, e e^T`. With the scalar drift in
divergence form :math:`b_i = v_i - \tfrac12\partial_j s_{ij}` and :math:`B = A + b/2`, the interface between a cell and its
neighbour at :math:`\pm e` carries

.. math:: K_\pm = \sqrt{r_e}\,(1 \pm X_e), \qquad X_e = x_e + y_e/2, \quad x_e = e^T s'^+ A', \quad y_e = e^T s'^+ b',

so that gain :math:`K\rho K^\dagger` and loss :math:`-\{K^\dagger K, \rho\}/2` are a Lindblad generator on grid and Hilbert space for every
spacing, and its decoherence is exactly the saturated :math:`s^+_{ij} A_i\rho A_j^\dagger`. An axis whose noise is not correlated
with others is its own direction, :math:`r = s/2h^2`, :math:`x = hA/s`; there, where :math:`h|B| > s`, the scheme uses
:math:`s_h = h|B|` (upwind as s -> 0) and adds the missing decoherence :math:`(1/s - 1/s_h) D[A]` locally. Correlated axes use
Selling's decomposition (kernels/selling.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..coefficients import collapse
from ..errors import GridError
from ..grid import Grid
from ..kernels.selling import selling_2d, selling_3d
from ..model import Model, pseudo_inverse

Array = np.ndarray

#: Longest offset, in cells, that correlated noise may need.
MAX_OFFSET = 4


@dataclass(frozen=True)
class Interface:
    """Operators at the interfaces on one side (+e/2 or -e/2) of every cell; arrays broadcast over the cells.

    Attributes
    ----------
    offset : tuple of int
        Where a jump through this side goes, ``sign * e``.
    sign : int
        +1 for the side at +e/2, -1 for -e/2.
    r : array (*cells)
    x : array (*cells, d, d)
    y : array (*cells)
    missing : array (*cells)
        ``1/s - 1/s_h`` where the cell-Peclet number exceeds one.
    A : array (*cells, d, d)
        Operator drift along the axis (single-axis directions only; correlated ones have ``missing = 0``).
    inverse : array (*cells)
        ``1/s`` along the axis at the interface (0 where s = 0); zero for correlated directions.
    peclet : float
        Largest ``h|B|/s`` with s the true noise.
    """

    offset: tuple[int, ...]
    sign: int
    r: Array
    x: Array
    y: Array
    missing: Array
    A: Array
    inverse: Array
    peclet: float


def noisy_axes(model: Model, grid: Grid, times: tuple[float, ...]) -> list[bool]:
    """Which axes carry noise on some cell at one of the ``times``."""
    covariances = [model.canonical(grid.mesh(), t).s for t in times]
    return [any(bool(np.any(s[..., i, i])) for s in covariances) for i in range(grid.ndim)]


def correlated_blocks(model: Model, grid: Grid, times: tuple[float, ...]) -> list[tuple[int, ...]]:
    """Group the noisy axes into blocks that are correlated with each other; raises if a block has more than 3 axes."""
    noisy = noisy_axes(model, grid, times)
    linked = np.zeros((grid.ndim, grid.ndim), dtype=bool)
    for t in times:
        s = model.canonical(grid.mesh(), t).s
        linked |= np.any(s != 0, axis=tuple(range(grid.ndim)))
    blocks: list[tuple[int, ...]] = []
    left = [i for i in range(grid.ndim) if noisy[i]]
    while left:
        members, todo = set(), [left[0]]
        while todo:
            i = todo.pop()
            members.add(i)
            todo += [j for j in left if linked[i, j] and j not in members]
        blocks.append(tuple(sorted(members)))
        left = [i for i in left if i not in members]
    for block in blocks:
        if len(block) > 3:
            names = ", ".join(grid.names[i] for i in block)
            raise GridError(
                "D2",
                "at most 3 axes may be correlated with each other on a grid",
                f"{len(block)}: {names}",
                "Rotate the coordinates so that D2 has smaller blocks",
            )
    return blocks


def shifted_mesh(grid: Grid, shift: Array) -> dict[str, Array]:
    """Open mesh displaced by ``shift`` cells, kept inside the box: periodic axes wrap, others stop at their ends."""
    mesh = grid.mesh(shift)
    for axis in grid.axes:
        mesh[axis.name] = axis.inside(mesh[axis.name])
    return mesh


def _divergence(
    model: Model, grid: Grid, mesh: dict[str, Array], t: float, s: Array, i: int, block: tuple[int, ...]
) -> Array:
    """``sum_j d s_ij / d z_j`` on the mesh, by differences over 2e-4 cells that stay inside the box."""
    total = np.zeros((1,) * grid.ndim)
    for j in block:
        if s.shape[j] == 1:
            continue
        axis = grid.axes[j]
        z = mesh[axis.name]
        delta = 1e-4 * axis.spacing
        up, down = axis.inside(z + delta), axis.inside(z - delta)
        across = np.where(up < down, 2.0 * delta, up - down)  # over the seam of a periodic axis
        s_up = model.canonical({**mesh, axis.name: up}, t).s[..., i, j]
        s_down = model.canonical({**mesh, axis.name: down}, t).s[..., i, j]
        total = total + (s_up - s_down) / across
    return total


def interfaces(model: Model, grid: Grid, t: float, blocks: list[tuple[int, ...]]) -> Iterator[Interface]:
    """Yield both sides of every direction of every block."""
    for block in blocks:
        if len(block) == 1:
            for sign in (1, -1):
                yield _axis_interface(model, grid, t, block[0], sign)
        else:
            yield from _correlated_interfaces(model, grid, t, block)


def _axis_interface(model: Model, grid: Grid, t: float, i: int, sign: int) -> Interface:
    n, h = grid.ndim, grid.spacings[i]
    shift = np.zeros(n)
    shift[i] = 0.5 * sign
    mesh = shifted_mesh(grid, shift)
    fields = model.canonical(mesh, t)
    s, a = fields.s[..., i, i], fields.A[i]
    b = fields.v[i] - 0.5 * _divergence(model, grid, mesh, t, fields.s, i, (i,))
    size = np.linalg.norm(a + 0.5 * b[..., None, None] * np.eye(model.dim), ord=2, axis=(-2, -1))
    s_h = np.maximum(s, h * size)
    safe, safe_s = np.where(s_h > 0, s_h, 1.0), np.where(s > 0, s, 1.0)
    inverse = np.where(s > 0, 1.0 / safe_s, 0.0)
    missing = np.where(s_h > s, inverse - np.where(s > 0, 1.0 / safe, 0.0), 0.0)
    peclet = float(np.max(np.where(s > 0, h * size / safe_s, np.where(size > 0, np.inf, 0.0))))
    offset = tuple(sign if k == i else 0 for k in range(n))
    return Interface(
        offset,
        sign,
        collapse(s_h / (2 * h * h), n),
        h * a / safe[..., None, None],
        collapse(h * b / safe, n),
        missing,
        a,
        inverse,
        peclet,
    )


def _scaled(model: Model, grid: Grid, t: float, block: tuple[int, ...], shift: Array) -> tuple[Array, Array, Array]:
    """Noise, operator drift and divergence-form drift of a block in cell units: (..., m, m), (..., m, d, d), (..., m)."""
    n, h = grid.ndim, grid.spacings[list(block)]
    mesh = shifted_mesh(grid, shift)
    fields = model.canonical(mesh, t)
    s = collapse(fields.s[..., block, :][..., :, block] / (h[:, None] * h[None, :]), n)
    b = [(fields.v[i] - 0.5 * _divergence(model, grid, mesh, t, fields.s, i, block)) / grid.spacings[i] for i in block]
    a = [fields.A[i] / grid.spacings[i] for i in block]
    b_all = np.stack(np.broadcast_arrays(*b), axis=-1)
    a_all = np.stack(np.broadcast_arrays(*a), axis=n)
    return s, a_all, b_all


def _decompose(s: Array, grid: Grid, block: tuple[int, ...]) -> tuple[Array, Array]:
    """Selling offsets (..., k, m) and weights (..., k) of a stack of matrices; refuses singular or too anisotropic noise."""
    m = len(block)
    flat = np.ascontiguousarray(s.reshape(-1, m, m))
    count = 3 if m == 2 else 6
    offsets = np.zeros((flat.shape[0], count, m), dtype=np.int64)
    weights = np.zeros((flat.shape[0], count))
    names = ", ".join(grid.names[i] for i in block)
    values = np.linalg.eigvalsh(flat)
    condition = float(np.max(values[:, -1] / np.maximum(values[:, 0], 1e-300)))
    remedy = "Change cell numbers or rotate the coordinates so that the noise is less anisotropic in cells"
    if values[:, 0].min() <= 1e-12 * values[:, -1].max():
        raise GridError(
            "D2",
            f"correlated noise of ({names}) must be positive definite on every cell",
            f"smallest eigenvalue {values[:, 0].min():.3g} (in cells^2)",
            remedy,
        )
    if (selling_2d if m == 2 else selling_3d)(flat, offsets, weights) >= 0:
        raise GridError(
            "D2", f"correlated noise of ({names}) could not be decomposed", f"condition number {condition:.3g}", remedy
        )
    weights = np.where(weights < 1e-13 * weights.max(axis=1, keepdims=True), 0.0, weights)
    longest = int(np.max(np.abs(offsets[weights > 0])))
    if longest > MAX_OFFSET:
        raise GridError(
            "D2",
            f"correlated noise of ({names}) may need offsets of at most {MAX_OFFSET} cells",
            f"{longest} (condition number {condition:.3g} in cells)",
            remedy,
        )
    # one sign per direction
    lead = np.take_along_axis(offsets, np.argmax(offsets != 0, axis=-1)[..., None], axis=-1)
    offsets = offsets * np.where(lead < 0, -1, 1)
    return offsets.reshape(*s.shape[:-2], count, m), weights.reshape(*s.shape[:-2], count)


def _correlated_interfaces(model: Model, grid: Grid, t: float, block: tuple[int, ...]) -> Iterator[Interface]:
    n = grid.ndim
    found: dict[tuple[int, ...], dict[int, Interface]] = {}
    s, _, _ = _scaled(model, grid, t, block, np.zeros(n))
    offsets, weights = _decompose(s, grid, block)
    todo = {tuple(int(k) for k in e) for e in offsets[weights > 0]}
    while todo:
        e = todo.pop()
        full = np.zeros(n)
        full[list(block)] = e
        found[e] = {}
        for sign in (1, -1):
            s, a, b = _scaled(model, grid, t, block, 0.5 * sign * full)
            offsets, weights = _decompose(s, grid, block)
            # offsets that appear only between cells must be carried as well, or noise would be lost there
            todo |= {tuple(int(k) for k in o) for o in offsets[weights > 0]} - set(found)
            r = 0.5 * np.sum(np.where(np.all(offsets == np.array(e), axis=-1), weights, 0.0), axis=-1)
            lever = np.einsum("i,...ij->...j", np.array(e, dtype=float), pseudo_inverse(s))
            x = np.einsum("...j,...jkl->...kl", lever, a)
            y = np.einsum("...j,...j->...", lever, b)
            size = np.linalg.norm(x + 0.5 * y[..., None, None] * np.eye(model.dim), ord=2, axis=(-2, -1))
            offset = tuple(int(sign * k) for k in full)
            zero = np.zeros((1,) * n)
            peclet = float(np.max(np.where(r > 0, size, 0.0)))
            found[e][sign] = Interface(
                offset,
                sign,
                collapse(r, n),
                x,
                collapse(y, n),
                zero,
                np.zeros((1,) * n + (model.dim,) * 2),
                zero,
                peclet,
            )
    for e in sorted(found):
        yield found[e][1]
        yield found[e][-1]
