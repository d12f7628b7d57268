r"""How a line is split into residues and joined again: the order of the operations, and their formulas.

A line of n cells is a polynomial modulo :math:`z^n - 1`. The modulus is split in two again and again, :math:`z^{2m} - 1 = (z^m - 1)(z^m + 1)`, then over
the complex numbers (:math:`z^{2m} + 1 = (z^m - i)(z^m + i)`, where a real line needs one of the two factors only),
:math:`z^{2m} - w = (z^m - \sqrt w)(z^m + \sqrt w)`, until degrees are odd; these in the same way in three and in five, as long as they can be. There residues are
multiplied, for a power of two number by number, and the way back joins them: the work of a fast Fourier transform of real numbers, without sorting. One root of unity belongs to a whole block of rows, so many lines side by
side are plain vector arithmetic.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .rows import NUMBERS, fused, on_rows

Array = np.ndarray

#: Operations on residues: split a real or a complex one into two, or by two such steps at once into four (three, of a real one), into three, or five
#: (two or three, of a real one); join them again; split a complex one to the end, multiply, and join; multiply one of odd degree.
SPLIT_REAL, SPLIT_REAL_TWICE, SPLIT_REAL_3, SPLIT_REAL_5, SPLIT_COMPLEX, SPLIT_COMPLEX_TWICE, SPLIT_COMPLEX_3, SPLIT_COMPLEX_5 = range(8)
JOIN_REAL, JOIN_REAL_TWICE, JOIN_REAL_3, JOIN_REAL_5, JOIN_COMPLEX, JOIN_COMPLEX_TWICE, JOIN_COMPLEX_3, JOIN_COMPLEX_5 = range(8, 16)
ALL_COMPLEX, ALL_COMPLEX_TWICE, LEAF_REAL, LEAF_COMPLEX = range(16, 20)
JOIN = JOIN_REAL - SPLIT_REAL  # from a split to its join

#: Odd numbers of parts.
RADICES = (5, 3)

#: Odd degrees that have a formula of their own.
WRITTEN_OUT = (1, 3, 5)


def last_degree(n: int, collapsed: bool = True) -> int:
    """The degree of the first residue of ``n`` cells that is split no further: odd, and 3, 5, or a multiple of neither."""
    n //= n & -n
    for r in RADICES:
        while n % r == 0 and (n > r or not collapsed):
            n //= r
    return n


@cache
def plan(n: int, collapsed: bool = True) -> tuple[Array, Array, Array]:
    """How lines of ``n`` cells are split, multiplied and joined: every residue to the end before the next, so that it stays in cache.

    Parameters
    ----------
    n : int
    collapsed : bool
        Whether the last split, the multiplication and the first join are one operation, where degrees end at one, and residues of degree 3 and 5 are
        multiplied as they are.

    Returns
    -------
    program : int64 array (operations, 3)
        Operation, first row, and rows of each of the equal pieces (of a complex residue real parts first, then imaginary parts), or degree.
    roots : array (operations + 1, 8)
        Real and imaginary part of the root of w, and of its root, or of the powers of its third or fifth root; of a leaf, modulo ``z^m - w``, and of a real
        residue, of w. Behind the last, one.
    scale : array (n,)
        Per row, one over what splitting and joining multiply by.
    """
    program: list[tuple[int, int, int]] = []
    roots: list[tuple[float, ...]] = []
    scale = np.empty(n)

    def turn(*angles: float) -> tuple[float, ...]:
        """Of w = exp(i pi angle)."""
        return tuple(float(part(np.pi * angle)) for angle in angles for part in (np.cos, np.sin))

    def add(operation: int, at: int, rows: int, numbers: tuple[float, ...] = ()) -> None:
        program.append((operation, at, rows))
        roots.append((*numbers, *(0.0,) * (NUMBERS - len(numbers))))

    def radix(m: int) -> int:
        """Into how many parts an odd degree is split; none if it is not."""
        return next((r for r in RADICES if m % r == 0 and (m > r or not collapsed)), 0)

    def leaf(at: int, m: int, w: tuple[float, ...], factor: float, is_complex: int) -> None:
        scale[at : at + (1 + is_complex) * m] = factor
        add(LEAF_COMPLEX if is_complex else LEAF_REAL, at, m, w)

    def odd_real(at: int, m: int, sign: float, factor: float) -> None:
        """Modulo z^m - sign, of odd degree."""
        r = radix(m)
        if not r:
            return leaf(at, m, (sign, 0.0), factor, 0)
        q, operation = m // r, SPLIT_REAL_3 if r == 3 else SPLIT_REAL_5
        add(operation, at, q, (sign,))
        odd_real(at, q, sign, factor / r)
        for k in range(1, r // 2 + 1):
            whole(at + (2 * k - 1) * q, q, 2 * k / r + (sign < 0), 2.0 * factor / r)
        return add(operation + JOIN, at, q, (sign,))

    def real(at: int, m: int, factor: float) -> None:
        if m % 2:
            return odd_real(at, m, 1.0, factor)
        twice = m % 4 == 0
        q = m // 4 if twice else m // 2
        operation, part = (SPLIT_REAL_TWICE, 0.25 * factor) if twice else (SPLIT_REAL, 0.5 * factor)
        add(operation, at, q)
        real(at, q, part)
        skew(at + q, q, part)
        if twice:
            skew(at + 2 * q, 2 * q, 0.5 * factor)
        return add(operation + JOIN, at, q)

    def skew(at: int, m: int, factor: float) -> None:
        """Modulo z^m + 1."""
        if m % 2:
            odd_real(at, m, -1.0, factor)
        else:
            whole(at, m // 2, 0.5, factor)

    def whole(at: int, m: int, angle: float, factor: float) -> None:
        """Complex, modulo z^m - exp(i pi angle)."""
        r = (4 if m % 4 == 0 else 2) if m % 2 == 0 else radix(m)
        if not r:
            return leaf(at, m, turn(angle), factor, 1)
        q, operation = m // r, {2: SPLIT_COMPLEX, 3: SPLIT_COMPLEX_3, 4: SPLIT_COMPLEX_TWICE, 5: SPLIT_COMPLEX_5}[r]
        if r % 2:
            numbers, parts = turn(*(angle * j / r for j in range(1, r))), [(angle + 2.0 * k) / r for k in range(r)]
        else:
            numbers, parts = turn(angle / 2, angle / 4), [(angle + 2.0 * k) / r for k in ((0, 2, 1, 3) if r == 4 else (0, 1))]
        begun = len(program)
        add(operation, at, q, numbers)
        for k, part in enumerate(parts):
            whole(at + 2 * q * k, q, part, factor / r)
        if q > 1 or r % 2 or not collapsed:
            return add(operation + JOIN, at, q, numbers)
        del program[begun:], roots[begun:]
        return add(ALL_COMPLEX_TWICE if r == 4 else ALL_COMPLEX, at, 1, numbers)

    real(0, n, 1.0)
    roots.append((1.0, *(0.0,) * (NUMBERS - 1)))
    return np.array(program, dtype=np.int64), np.array(roots), scale


# -- formulas: of rows, of complex numbers (the roots), and of a table -----------------------------------------------------
def _times(wr: Any, wi: Any, re: Any, im: Any) -> tuple[Any, Any]:
    return fused(wr, re, -(wi * im)), fused(wr, im, wi * re)


def _times_conjugate(wr: Any, wi: Any, re: Any, im: Any) -> tuple[Any, Any]:
    return fused(wr, re, wi * im), fused(wr, im, -(wi * re))


def _split_real(x: Any, w: Any, t: Any) -> Any:
    a, b = x
    return a + b, a - b


def _split_real_twice(x: Any, w: Any, t: Any) -> Any:
    a, b, c, d = x
    e0, e1 = a + c, b + d
    return e0 + e1, e0 - e1, a - c, b - d


def _join_real_twice(x: Any, w: Any, t: Any) -> Any:
    a, b, c, d = x
    e0, e1 = a + b, a - b
    return e0 + c, e1 + d, e0 - c, e1 - d


def _split_complex(x: Any, w: Any, t: Any) -> Any:
    a, b, c, d = x
    re, im = _times(w[0], w[1], b, d)
    return a + re, c + im, a - re, c - im


def _join_complex(x: Any, w: Any, t: Any) -> Any:
    a, b, c, d = x
    re, im = _times_conjugate(w[0], w[1], a - c, b - d)
    return a + c, re, b + d, im


def _split_complex_twice(x: Any, w: Any, t: Any) -> Any:
    a, b, c, d, f, g, h, i = x
    re, im = _times(w[0], w[1], c, h)
    p0, q0, m0, n0 = a + re, f + im, a - re, f - im
    re, im = _times(w[0], w[1], d, i)
    re1, im1 = _times(w[2], w[3], b + re, g + im)
    re2, im2 = _times(w[2], w[3], b - re, g - im)  # and times i
    return p0 + re1, q0 + im1, p0 - re1, q0 - im1, m0 - im2, n0 + re2, m0 + im2, n0 - re2


def _join_complex_twice(x: Any, w: Any, t: Any) -> Any:
    a, b, c, d, f, g, h, i = x
    p0, q0, m0, n0 = a + c, b + d, f + h, g + i
    p1, q1 = _times_conjugate(w[2], w[3], a - c, b - d)
    n1, m1 = _times_conjugate(w[2], w[3], f - h, g - i)  # times -i: (m1, -n1)
    re0, im0 = _times_conjugate(w[0], w[1], p0 - m0, q0 - n0)
    re1, im1 = _times_conjugate(w[0], w[1], p1 - m1, q1 + n1)
    return p0 + m0, p1 + m1, re0, re1, q0 + n0, q1 - n1, im0, im1


def _combined(r: int, j: int, part: Any, rows: Any, start: Any = None) -> Any:
    """``start + sum_k part(2 pi j k / r) rows_k`` for k from one to half of r."""
    total = start
    for k, row in enumerate(rows, start=1):
        c = float(part(2.0 * np.pi * j * k / r))
        total = row * c if total is None else fused(row, c, total)
    return total


def _split_real_odd(r: int) -> Any:
    """Modulo ``z^(r q) - s`` with a sign s: a real residue modulo ``z^q - s`` and complex ones modulo ``z^q - s exp(2 pi i k / r)``."""

    def formula(x: Any, w: Any, t: Any) -> Any:
        y = [x[j] * w[0] if j % 2 else x[j] for j in range(r)]
        sums, differences = ([part(y[j], y[r - j]) for j in range(1, r // 2 + 1)] for part in (_sum, _difference))
        out = [sum(sums[1:], y[0] + sums[0])]
        for k in range(1, r // 2 + 1):
            out += [_combined(r, k, np.cos, sums, y[0]), _combined(r, k, np.sin, differences)]
        return out

    return formula


def _join_real_odd(r: int) -> Any:
    def formula(x: Any, w: Any, t: Any) -> Any:
        re, im = x[1::2], x[2::2]
        out = [sum(re[1:], x[0] + re[0])] * r
        for j in range(1, r // 2 + 1):
            even, odd = _combined(r, j, np.cos, re, x[0]), _combined(r, j, np.sin, im)
            out[j], out[r - j] = even + odd, even - odd
        return [out[j] * w[0] if j % 2 else out[j] for j in range(r)]

    return formula


def _turned(r: int, y: Any, sign: int) -> Any:
    """``sum_j y_j exp(2 pi i sign j k / r)`` for every k, of complex numbers y."""
    sums, differences = ([tuple(part(a, b) for a, b in zip(y[j], y[r - j], strict=True)) for j in range(1, r // 2 + 1)] for part in (_sum, _difference))
    out = [tuple(sum((s[i] for s in sums[1:]), y[0][i] + sums[0][i]) for i in (0, 1))] * r
    for k in range(1, r // 2 + 1):
        re, im = (_combined(r, k, np.cos, [s[i] for s in sums], y[0][i]) for i in (0, 1))
        a, b = (_combined(r, k, np.sin, [d[i] for d in differences]) for i in (0, 1))
        first, second = (re - b, im + a), (re + b, im - a)
        out[k], out[r - k] = (first, second) if sign > 0 else (second, first)
    return out


def _split_complex_odd(r: int) -> Any:
    def formula(x: Any, w: Any, t: Any) -> Any:
        y = [(x[0], x[r])] + [_times(w[2 * j - 2], w[2 * j - 1], x[j], x[r + j]) for j in range(1, r)]
        return sum(_turned(r, y, 1), ())

    return formula


def _join_complex_odd(r: int) -> Any:
    def formula(x: Any, w: Any, t: Any) -> Any:
        y = _turned(r, list(zip(x[::2], x[1::2], strict=True)), -1)
        y = [y[0]] + [_times_conjugate(w[2 * j - 2], w[2 * j - 1], *y[j]) for j in range(1, r)]
        return [re for re, _ in y] + [im for _, im in y]

    return formula


def _sum(a: Any, b: Any) -> Any:
    return a + b


def _difference(a: Any, b: Any) -> Any:
    return a - b


def _all_complex(x: Any, w: Any, t: Any) -> Any:
    a, b, c, d = _split_complex(x, w, t)
    return _join_complex((*_times(t[0], t[1], a, b), *_times(t[2], t[3], c, d)), w, t)


def _all_complex_twice(x: Any, w: Any, t: Any) -> Any:
    y = _split_complex_twice(x, w, t)
    return _join_complex_twice(sum((_times(t[k], t[k + 1], y[k], y[k + 1]) for k in range(0, 8, 2)), ()), w, t)


def _leaf_real(m: int) -> Any:
    """``y_i = sum_j t_j x_(i - j)``, times w (+1 or -1) where i < j."""

    def formula(x: Any, w: Any, t: Any) -> Any:
        out = []
        for i in range(m):
            total = t[0] * x[i]
            for j in range(1, m):
                total = fused(t[j], x[i - j] if j <= i else w[0] * x[i - j], total)
            out.append(total)
        return out

    return formula


def _leaf_complex(m: int) -> Any:
    """The same of complex numbers; real parts first, then imaginary parts."""

    def formula(x: Any, w: Any, t: Any) -> Any:
        turned = [_times(w[0], w[1], x[k], x[m + k]) for k in range(m)] if m > 1 else []
        out = []
        for i in range(m):
            re, im = _times(t[0], t[m], x[i], x[m + i])
            for j in range(1, m):
                a, b = (x[i - j], x[m + i - j]) if j <= i else turned[i - j]
                re, im = fused(t[j], a, fused(-t[m + j], b, re)), fused(t[j], b, fused(t[m + j], a, im))
            out.append((re, im))
        return [re for re, _ in out] + [im for _, im in out]

    return formula


def _term_real(x: Any, w: Any, t: Any) -> Any:
    """One term of a leaf, added to what is there."""
    return (fused(w[0] * t[0], x[0], x[1]),)


def _term_complex(x: Any, w: Any, t: Any) -> Any:
    u, v = _times(w[0], w[1], t[0], t[1])
    return fused(u, x[0], fused(-v, x[1], x[2])), fused(u, x[1], fused(v, x[0], x[3]))


def _pair_real(x: Any, w: Any, t: Any) -> Any:
    """Two residues of degree one that couple: a matrix of two rows."""
    return fused(t[1], x[1], t[0] * x[0]), fused(t[3], x[1], t[2] * x[0])


def _pair_complex(x: Any, w: Any, t: Any) -> Any:
    (a, b), (c, d) = _times(t[0], t[1], x[0], x[2]), _times(t[4], t[5], x[0], x[2])
    re = fused(t[2], x[1], fused(-t[3], x[3], a)), fused(t[6], x[1], fused(-t[7], x[3], c))
    im = fused(t[2], x[3], fused(t[3], x[1], b)), fused(t[6], x[3], fused(t[7], x[1], d))
    return (*re, *im)


split_real, join_real = on_rows(_split_real, 2), on_rows(_split_real, 2)
split_real_twice, join_real_twice = on_rows(_split_real_twice, 4), on_rows(_join_real_twice, 4)
split_real_3, join_real_3 = on_rows(_split_real_odd(3), 3), on_rows(_join_real_odd(3), 3)
split_real_5, join_real_5 = on_rows(_split_real_odd(5), 5), on_rows(_join_real_odd(5), 5)
split_complex_3, join_complex_3 = on_rows(_split_complex_odd(3), 6), on_rows(_join_complex_odd(3), 6)
split_complex_5, join_complex_5 = on_rows(_split_complex_odd(5), 10), on_rows(_join_complex_odd(5), 10)
split_complex, join_complex = on_rows(_split_complex, 4), on_rows(_join_complex, 4)
split_complex_twice, join_complex_twice = on_rows(_split_complex_twice, 8), on_rows(_join_complex_twice, 8)
all_complex, all_complex_twice = on_rows(_all_complex, 4, 1), on_rows(_all_complex_twice, 8, 1)
real_1, real_3, real_5 = (on_rows(_leaf_real(m), m, 1) for m in WRITTEN_OUT)
complex_1, complex_3, complex_5 = (on_rows(_leaf_complex(m), 2 * m, 1) for m in WRITTEN_OUT)
pair_real, pair_complex = on_rows(_pair_real, 2, 4), on_rows(_pair_complex, 4, 4)
term_real, term_complex = on_rows(_term_real, 1, 1, add=True), on_rows(_term_complex, 2, 1, add=True)
