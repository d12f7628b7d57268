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

#: The fraction that the limiter keeps is found by so many halvings.
HALVINGS = 16


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
def _limit(buf: Array, deviation: Array, j: int, d: int, slack: float, trial: Array, work: Array) -> float:
    """Largest fraction of the ``deviation`` of the quartic's control matrices from the mean of cell ``j`` that stays positive semi-definite."""
    n_comp = buf.shape[0]
    theta = 1.0
    for k in range(5):
        for c in range(n_comp):
            trial[0, c] = deviation[k, c, j]
            trial[1, c] = buf[c, j] + theta * trial[0, c]
        if _positive(trial[1], d, slack, work):
            continue
        low, high = 0.0, theta
        for _ in range(HALVINGS):
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


@kernel(nogil=True)
def _deviations(buf: Array, deviation: Array, first: int, last: int, along: int, position: int, weights: Array) -> None:
    """Control values less the means of the cells ``first <= j < last``, which are at ``position`` of their stencils, read in the direction ``along`` (1 or -1)."""
    size = last - first
    for c in range(buf.shape[0]):
        mean = buf[c, first:last]
        b0, b1, b2, b3, b4 = (
            buf[c, first - along * position : last - along * position],
            buf[c, first + along * (1 - position) : last + along * (1 - position)],
            buf[c, first + along * (2 - position) : last + along * (2 - position)],
            buf[c, first + along * (3 - position) : last + along * (3 - position)],
            buf[c, first + along * (4 - position) : last + along * (4 - position)],
        )
        for k in range(5):
            w0, w1, w2, w3, w4 = weights[k, 0], weights[k, 1], weights[k, 2], weights[k, 3], weights[k, 4]
            out = deviation[k, c, first:last]
            for i in range(size):
                out[i] = w0 * b0[i] + w1 * b1[i] + w2 * b2[i] + w3 * b3[i] + w4 * b4[i] - mean[i]


@kernel(nogil=True)
def _thetas(
    buf: Array, low_valid: int, high_valid: int, low_image: int, high_image: int, d: int, control: Array,
    deviation: Array, over: Array, slack: Array, trial: Array, work: Array, theta: Array,
) -> None:  # fmt: skip
    """What every cell keeps of its quartic.

    What enters at a specular end is what leaves the mirrored line, to round-off: images (below ``low_image``, from ``high_image`` on) are limited from
    that line's own side.
    """
    for position in range(5):
        first = low_valid + position if position < 3 else high_valid - 5 + position
        last = high_valid - 2 if position == 2 else first + 1
        for side in range(3):
            low = (low_valid, low_image, high_image)[side]
            high = (low_image, high_image, high_valid)[side]
            begin, end = max(first, low), min(last, high)
            if begin < end and side == 1:
                _deviations(buf, deviation, begin, end, 1, position, control[position])
            elif begin < end:
                _deviations(buf, deviation, begin, end, -1, 4 - position, control[4 - position])
    for j in range(low_valid, high_valid):
        trace = 0.0
        for c in range(d):
            trace += buf[c, j]
        slack[j], theta[j] = ROUND_OFF * abs(trace), 1.0
        if d != 2:
            theta[j] = _limit(buf, deviation, j, d, slack[j], trial, work)
    if d == 2:
        _two_levels(buf, deviation, low_valid, high_valid, slack[low_valid:high_valid], theta[low_valid:high_valid], over[low_valid:high_valid])


@kernel(nogil=True)
def _two_levels(buf: Array, deviation: Array, low: int, high: int, slack: Array, theta: Array, over: Array) -> None:
    """:func:`_limit` of two levels for the cells ``low <= j < high`` side by side.

    The fraction could be had in closed form, from where a determinant vanishes; that of a pure state does so everywhere, and only halving is safe from round-off.
    """
    m0, m1, m2, m3 = buf[0, low:high], buf[1, low:high], buf[2, low:high], buf[3, low:high]
    size = high - low
    most, fails = np.empty(size), np.empty(size, dtype=np.int64)
    for step in range(HALVINGS + 1):
        fails[:] = 0
        for k in range(5):
            d0, d1, d2, d3 = deviation[k, 0, low:high], deviation[k, 1, low:high], deviation[k, 2, low:high], deviation[k, 3, low:high]
            for i in range(size):
                f = theta[i]
                a, b, re, im = m0[i] + f * d0[i] + slack[i], m1[i] + f * d1[i] + slack[i], m2[i] + f * d2[i], m3[i] + f * d3[i]
                fails[i] += 0 if (a >= 0.0) & (b >= 0.0) & (a * b >= re * re + im * im) else 1
        if step == 0:
            if fails.sum() == 0:
                return
            over[:] = fails
            most[:] = 1.0
            least = np.zeros(size)
        else:
            for i in range(size):
                least[i] = least[i] if fails[i] else theta[i]
                most[i] = theta[i] if fails[i] else most[i]
        for i in range(size):
            theta[i] = 0.5 * (least[i] + most[i]) if over[i] else 1.0
    for i in range(size):
        theta[i] = least[i] if over[i] else 1.0


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
    theta, slack, over = np.zeros(n + 2 * ghosts), np.zeros(n + 2 * ghosts), np.zeros(n + 2 * ghosts, dtype=np.int64)
    deviation = np.zeros((5, n_comp, n + 2 * ghosts))
    part = np.zeros((n_comp, n + 1))
    cell = np.zeros(n + 1, dtype=np.int64)
    xi, w = np.zeros(n + 1), np.zeros((5, n + 1))
    trial = np.zeros((2, n_comp))
    work = np.zeros((d, d), dtype=np.complex128)
    low_valid = ghosts if lower == OPEN else 0
    high_valid = n + ghosts if upper == OPEN else n + 2 * ghosts
    low_image = ghosts if lower == SPECULAR else low_valid
    high_image = n + ghosts if upper == SPECULAR else high_valid
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
        _thetas(buf, low_valid, high_valid, low_image, high_image, d, control, deviation, over, slack, trial, work, theta)
        pattern = foot_of_line[line]
        for i in range(n + 1):
            position = feet[pattern, i] + ghosts
            if lower == OPEN:
                position = max(position, float(ghosts))
            if upper == OPEN:
                position = min(position, float(n + ghosts))
            cell[i] = min(int(np.floor(position)), high_valid - 1)
            xi[i] = position - cell[i]
        for m in range(5):  # in the middle of the stencil
            p1, p2, p3, p4, p5 = primitive[2, m, 1], primitive[2, m, 2], primitive[2, m, 3], primitive[2, m, 4], primitive[2, m, 5]
            for i in range(n + 1):
                w[m, i] = ((((p5 * xi[i] + p4) * xi[i] + p3) * xi[i] + p2) * xi[i] + p1) * xi[i]
        for i in range(n + 1):
            j = cell[i]
            start = min(max(j - 2, low_valid), high_valid - 5)
            if j - start != 2:
                for m in range(5):
                    value = 0.0
                    for power in range(5, 0, -1):
                        value = (value + primitive[j - start, m, power]) * xi[i]
                    w[m, i] = value
            th = theta[j]
            rest = (1.0 - th) * xi[i]
            for c in range(n_comp):
                value = w[0, i] * buf[c, start] + w[1, i] * buf[c, start + 1] + w[2, i] * buf[c, start + 2] + w[3, i] * buf[c, start + 3] + w[4, i] * buf[c, start + 4]
                part[c, i] = th * value + rest * buf[c, j]
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
