"""Reference for the driven qubit: an unsplit Fourier pseudo-spectral solve with classical Runge-Kutta steps.

    python -m validation.reference      # prints its convergence in steps and cells (about a minute)

It shares no code with the package. The real fields rho00, rho11, Re rho01, Im rho01 obey

    d_t f = - v_q d_q f - (-q + a_f) d_p f + (s/2) d_pp f + (G(q) f),      a = (-g, g, 0, 0),

on a periodic box wider than the one of the problem (what wraps around is below 1e-11), all derivatives by FFT, every term in one
right-hand side: no splitting error, and an error in space that falls faster than any power. The final field is a trigonometric
polynomial, so it is evaluated at any points without loss.
"""

from __future__ import annotations

import time

import numpy as np
from scipy import fft

Array = np.ndarray

#: The problem: the same numbers as ``examples/driven_qubit.toml``.
DRIVE, COUPLING, NOISE, DECAY = 0.5, 1.0, 1.0, 0.2
MEAN, STD, TIME = (0.5, 0.0), 0.5, 1.0

#: Periodic box of the reference, in q and p.
BOX = ((-7.5, 7.5), (-9.0, 9.0))


def driven_qubit_field(cells: tuple[int, int] = (96, 108), steps: int = 1600) -> Array:
    """Solve on the wide box.

    Parameters
    ----------
    cells : pair of int
        Cells in q and p.
    steps : int
        Runge-Kutta steps of order 4; at least about 110 at the default cells for stability.

    Returns
    -------
    array, shape (4, nq, np)
        rho00, rho11, Re rho01, Im rho01 at the cell centres of `BOX` at the end.
    """
    (q, p), lengths = _centres(cells), [hi - lo for lo, hi in BOX]
    kq = 2 * np.pi / lengths[0] * np.arange(cells[0] // 2 + 1)
    kp = 2 * np.pi / lengths[1] * np.arange(cells[1] // 2 + 1)
    stream = -1j * kq[:, None] * np.ones(len(p))
    force = np.array([-COUPLING, COUPLING, 0.0, 0.0])
    kick = -1j * kp * (force[:, None, None] - q[:, None]) - 0.5 * NOISE * kp**2
    for table, k, n in ((stream.T, kq, cells[0]), (kick, kp, cells[1])):
        if n % 2 == 0:  # an odd derivative has no Nyquist mode
            table[..., k == k[-1]] = table[..., k == k[-1]].real
    stream, velocity = stream[None], p
    rotation, damping = 2 * COUPLING * q[:, None], 0.5 * COUPLING**2 / NOISE + 0.5 * DECAY

    def derivative(f: Array) -> Array:
        moved = fft.irfft(stream * fft.rfft(f, axis=1), n=cells[0], axis=1)
        moved *= velocity
        moved += fft.irfft(kick * fft.rfft(f, axis=2), n=cells[1], axis=2)
        up, down, re, im = f
        moved[0] -= 2 * DRIVE * im + DECAY * up
        moved[1] += 2 * DRIVE * im + DECAY * up
        moved[2] += rotation * im - damping * re
        moved[3] += DRIVE * (up - down) - rotation * re - damping * im
        return moved

    f = np.zeros((4, *cells))
    density = np.exp(-0.5 * ((q[:, None] - MEAN[0]) ** 2 + (p - MEAN[1]) ** 2) / STD**2) / (2 * np.pi * STD**2)
    f[:3] = 0.5 * density  # the state |+>
    dt = TIME / steps
    for _ in range(steps):
        k1 = derivative(f)
        k2 = derivative(f + 0.5 * dt * k1)
        k3 = derivative(f + 0.5 * dt * k2)
        k4 = derivative(f + dt * k3)
        f += dt / 6 * (k1 + 2 * (k2 + k3) + k4)
    return f


def resample(field: Array, q: Array, p: Array) -> Array:
    """Density matrix at the points q x p from a field of `driven_qubit_field`, by trigonometric interpolation.

    Returns
    -------
    array, shape (2, 2, len(q), len(p))
        Complex.
    """
    to_q, to_p = (_interpolation(x, *end, n) for x, end, n in zip((q, p), BOX, field.shape[1:], strict=True))
    up, down, re, im = to_q @ field @ to_p.T
    return np.array([[up + 0j, re + 1j * im], [re - 1j * im, down + 0j]])


def distance(a: Array, b: Array, cell: float) -> float:
    """Integrated trace norm of a - b: sum over cells of the trace norm of 2 x 2 Hermitian matrices, times the cell volume."""
    d = a - b
    half, z = 0.5 * (d[0, 0] + d[1, 1]).real, 0.5 * (d[0, 0] - d[1, 1]).real
    radius = np.sqrt(z**2 + np.abs(d[0, 1]) ** 2)
    return float(np.sum(np.abs(half + radius) + np.abs(half - radius)) * cell)


def _centres(cells: tuple[int, int]) -> list[Array]:
    return [lo + (np.arange(n) + 0.5) * (hi - lo) / n for (lo, hi), n in zip(BOX, cells, strict=True)]


def _interpolation(x: Array, lo: float, hi: float, n: int) -> Array:
    """Matrix (len(x), n) from values at the n cell centres of a period to values at x."""
    k = np.arange(1, (n + 1) // 2)
    theta = 2 * np.pi / (hi - lo) * (x[:, None] - (lo + (np.arange(n) + 0.5) * (hi - lo) / n))
    out = 1.0 + 2.0 * np.sum(np.cos(k * theta[..., None]), axis=-1)
    return (out + np.cos(n // 2 * theta) if n % 2 == 0 else out) / n


def main() -> None:
    """Print differences to the default solve when steps or cells change."""
    q, p = (np.linspace(lo, hi, 121)[:-1] + (hi - lo) / 240 for lo, hi in ((-6.0, 6.0), (-7.0, 7.0)))
    cell = 12 * 14 / 120**2
    start = time.perf_counter()
    best = resample(driven_qubit_field(), q, p)
    print(f"reference: 96 x 108 cells, 1600 steps, {time.perf_counter() - start:.1f} s")
    for cells, steps in (((96, 108), 200), ((96, 108), 400), ((96, 108), 800), ((64, 72), 800), ((80, 90), 800)):
        start = time.perf_counter()
        other = resample(driven_qubit_field(cells, steps), q, p)
        seconds = time.perf_counter() - start
        print(
            f"{cells[0]:>4} x {cells[1]:<4} {steps:>5} steps: differs by {distance(other, best, cell):.1e}, {seconds:.1f} s"
        )


if __name__ == "__main__":
    main()
