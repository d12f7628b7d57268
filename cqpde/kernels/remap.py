"""Conservative semi-Lagrangian transport along one axis, positive for density matrices.

In every cell the field is a quartic whose averages over five neighbouring cells are the cell values; it is scaled towards the
cell's own value until its five Bernstein control matrices, and so the quartic everywhere in the cell, are positive
semi-definite. A cell's new content is the integral between the feet of the characteristics that arrive at its interfaces:
positive, conservative, and without a limit on the step.
"""

from __future__ import annotations

from functools import cache
from math import comb

import numpy as np
from numba import prange

from ..compiling import kernel

Array = np.ndarray

#: Kinds of axis ends in this kernel.
OPEN, PERIODIC, SPECULAR = 0, 1, 2

#: Eigenvalues may be this negative, relative to the trace of the cell, before the limiter acts.
ROUND_OFF = 1e-15


@cache
def tables() -> tuple[Array, Array]:
    """Weights of the reconstruction.

    Returns
    -------
    control : array (5, 5, 5)
        ``control[position, k, m]``: Bernstein control value k of the cell at ``position`` in the stencil from average m.
    primitive : array (5, 5, 6)
        ``primitive[position, m, power]``: coefficients in xi of the integral of the quartic over ``[0, xi]`` of that cell.
    """
    control = np.zeros((5, 5, 5))
    primitive = np.zeros((5, 5, 6))
    for position in range(5):
        # averages of xi^j over the cells of the stencil, the cell itself being [0, 1]
        left = np.arange(5) - position
        average = np.stack([((left + 1.0) ** (j + 1) - left ** (j + 1.0)) / (j + 1) for j in range(5)], axis=1)
        coefficients = np.linalg.inv(average)  # [power, m]
        for k in range(5):
            control[position, k] = sum(comb(k, j) / comb(4, j) * coefficients[j] for j in range(k + 1))
        for j in range(5):
            primitive[position, :, j + 1] = coefficients[j] / (j + 1)
    return control, primitive


@kernel(inline="always")
def _positive(m: Array, d: int, slack: float, work: Array) -> bool:
    """Whether components ``m`` plus ``slack`` times the identity are positive semi-definite (Cholesky)."""
    if d == 1:
        return m[0] + slack >= 0.0
    if d == 2:
        a, b = m[0] + slack, m[1] + slack
        return a >= 0.0 and b >= 0.0 and a * b >= m[2] * m[2] + m[3] * m[3]
    n_pairs = d * (d - 1) // 2
    k = d
    for i in range(d):
        work[i, i] = m[i] + slack
        for j in range(i + 1, d):
            work[j, i] = complex(m[k], -m[k + n_pairs])
            k += 1
    for j in range(d):
        pivot = work[j, j].real
        for i in range(j):
            pivot -= work[j, i].real ** 2 + work[j, i].imag ** 2
        if pivot < 0.0:
            return False
        root = np.sqrt(pivot)
        work[j, j] = root
        for i in range(j + 1, d):
            value = work[i, j]
            for k2 in range(j):
                value -= work[i, k2] * np.conj(work[j, k2])
            if root > 0.0:
                work[i, j] = value / root
            elif abs(value) > slack:
                return False
            else:
                work[i, j] = 0.0
    return True


@kernel()
def _limit(buf: Array, j: int, start: int, along: int, weights: Array, d: int, trial: Array, work: Array) -> float:
    """Largest fraction of the quartic's deviation from the mean of cell ``j`` that stays positive semi-definite.

    The stencil is read from ``start`` in the direction ``along`` (1 or -1).
    """
    n_comp = buf.shape[0]
    trace = 0.0
    for c in range(d):
        trace += buf[c, j]
    slack = ROUND_OFF * abs(trace)
    theta = 1.0
    for k in range(5):
        for c in range(n_comp):
            value = 0.0
            for m in range(5):
                value += weights[k, m] * buf[c, start + along * m]
            trial[0, c] = value - buf[c, j]
            trial[1, c] = buf[c, j] + theta * trial[0, c]
        if _positive(trial[1], d, slack, work):
            continue
        low, high = 0.0, theta
        for _ in range(14):
            middle = 0.5 * (low + high)
            for c in range(n_comp):
                trial[1, c] = buf[c, j] + middle * trial[0, c]
            if _positive(trial[1], d, slack, work):
                low = middle
            else:
                high = middle
        theta = low
        if theta == 0.0:
            break
    return theta


#: Blocks of lines that a parallel sweep hands out.
BLOCKS = 64

#: Below this many values a sweep is not worth a second thread.
PARALLEL_WORK = 4_000


@kernel(nogil=True)
def _remap_lines(
    line0: int, line1: int,
    x: Array, out: Array, n: int, after: int, feet: Array, foot_of_line: Array, lower: int, upper: int, mirror: Array,
    ghosts: int, d: int, control: Array, primitive: Array, leak: Array,
) -> None:  # fmt: skip
    """Do the lines ``line0 <= line < line1`` of :func:`remap`."""
    n_comp = x.shape[0]
    buf = np.zeros((n_comp, n + 2 * ghosts))
    theta = np.zeros(n + 2 * ghosts)
    start = np.zeros(n + 2 * ghosts, dtype=np.int64)
    part = np.zeros((n_comp, n + 1))
    cell = np.zeros(n + 1, dtype=np.int64)
    w = np.zeros(5)
    trial = np.zeros((2, n_comp))
    work = np.zeros((d, d), dtype=np.complex128)
    low_valid = ghosts if lower == OPEN else 0
    high_valid = n + ghosts if upper == OPEN else n + 2 * ghosts
    for line in range(line0, line1):
        origin = (line // after) * n * after + line % after
        other = (mirror[line] // after) * n * after + mirror[line] % after
        for c in range(n_comp):
            for k in range(n):
                buf[c, ghosts + k] = x[c, origin + k * after]
            for k in range(ghosts):
                if lower == PERIODIC:
                    buf[c, ghosts - 1 - k] = x[c, origin + ((-1 - k) % n) * after]
                elif lower == SPECULAR:
                    buf[c, ghosts - 1 - k] = x[c, other + min(k, n - 1) * after]
                if upper == PERIODIC:
                    buf[c, ghosts + n + k] = x[c, origin + (k % n) * after]
                elif upper == SPECULAR:
                    buf[c, ghosts + n + k] = x[c, other + max(n - 1 - k, 0) * after]
        for j in range(low_valid, high_valid):
            s = min(max(j - 2, low_valid), high_valid - 5)
            start[j] = s
            # what enters at a specular end is what leaves the mirrored line, to round-off: images are limited from that line's own side
            if (lower == SPECULAR and j < ghosts) or (upper == SPECULAR and j >= n + ghosts):
                theta[j] = _limit(buf, j, s + 4, -1, control[s + 4 - j], d, trial, work)
            else:
                theta[j] = _limit(buf, j, s, 1, control[j - s], d, trial, work)
        pattern = foot_of_line[line]
        for i in range(n + 1):
            position = feet[pattern, i] + ghosts
            if lower == OPEN:
                position = max(position, float(ghosts))
            if upper == OPEN:
                position = min(position, float(n + ghosts))
            j = min(int(np.floor(position)), high_valid - 1)
            xi = position - j
            cell[i] = j
            for m in range(5):
                value = 0.0
                for power in range(5, 0, -1):
                    value = (value + primitive[j - start[j], m, power]) * xi
                w[m] = value
            th = theta[j]
            for c in range(n_comp):
                value = 0.0
                for m in range(5):
                    value += w[m] * buf[c, start[j] + m]
                part[c, i] = th * value + (1.0 - th) * xi * buf[c, j]
        for i in range(n):
            j0, j1 = cell[i], cell[i + 1]
            for c in range(n_comp):
                value = part[c, i + 1] - part[c, i]
                for j in range(j0, j1):
                    value += buf[c, j]
                out[c, origin + i * after] = value
        for c in range(n_comp):
            value = 0.0
            if lower == OPEN:
                value = part[c, 0]
                for j in range(ghosts, cell[0]):
                    value += buf[c, j]
            leak[0, c, line] = value
            value = 0.0
            if upper == OPEN:
                for j in range(cell[n], n + ghosts):
                    value += buf[c, j]
                value -= part[c, n]
            leak[1, c, line] = value


@kernel(parallel=True, nogil=True)
def _remap_parallel(
    x: Array, out: Array, n: int, after: int, feet: Array, foot_of_line: Array, lower: int, upper: int, mirror: Array,
    ghosts: int, d: int, control: Array, primitive: Array, leak: Array,
) -> None:  # fmt: skip
    n_lines = x.shape[1] // n
    for index in prange(BLOCKS):
        b = np.int64(index)  # prange counts unsigned, and unsigned with signed makes float
        _remap_lines(
            b * n_lines // BLOCKS,
            (b + 1) * n_lines // BLOCKS,
            x,
            out,
            n,
            after,
            feet,
            foot_of_line,
            lower,
            upper,
            mirror,
            ghosts,
            d,
            control,
            primitive,
            leak,
        )


def remap(
    x: Array, out: Array, n: int, after: int, feet: Array, foot_of_line: Array, lower: int, upper: int, mirror: Array,
    ghosts: int, d: int, control: Array, primitive: Array, leak: Array,
) -> None:  # fmt: skip
    """Move ``x`` along the axis of ``n`` cells whose neighbours are ``after`` apart.

    Parameters
    ----------
    x, out : array (components, cells)
    feet : array (patterns, n + 1)
        Where the characteristics that arrive at the interfaces started, in cells from the lower end; ascending.
    foot_of_line : int64 array (lines,)
        Pattern of each line; lines are numbered before * after.
    lower, upper : int
        OPEN, PERIODIC or SPECULAR.
    mirror : int64 array (lines,)
        The line at the flipped conjugate coordinate (used for SPECULAR).
    ghosts : int
        Cells beyond each end that feet may reach, plus three.
    leak : array (2, components, lines)
        Content (in units of one cell) that left through each open end.
    """
    if x.size > PARALLEL_WORK:
        _remap_parallel(x, out, n, after, feet, foot_of_line, lower, upper, mirror, ghosts, d, control, primitive, leak)
    else:
        _remap_lines(
            0,
            x.shape[1] // n,
            x,
            out,
            n,
            after,
            feet,
            foot_of_line,
            lower,
            upper,
            mirror,
            ghosts,
            d,
            control,
            primitive,
            leak,
        )
