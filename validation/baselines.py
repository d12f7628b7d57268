"""Other ways to solve two problems of the speed comparison; no code is shared with the package.

Each solver takes a `Problem` and returns ``(rho, seconds)``: the density matrix, complex (2, 2, nq, np), at the cell centres
``lo + (k + 1/2) h``, and the wall time. The initial field is made before the clock starts and the four fields are packed into ``rho``
after it stops; tables and work arrays are inside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray
Shape = tuple[int, int]


@dataclass(frozen=True)
class Problem:
    """A qubit on the (q, p) plane, from ``|+>`` times a Gaussian.

    ``H = (force q + phi) sigma_z + drive sigma_x``, ``A_p = -(force/2) sigma_z``, ``v = (p, -trap q)``, noise s in p, saturated
    decoherence ``force^2/(4 s)`` on sigma_z and decay on ``|1><0|``.
    """

    name: str
    box: tuple[tuple[float, float], tuple[float, float]]
    mean: tuple[float, float]
    std: float
    force: float
    phi: float = 0.0
    drive: float = 0.0
    decay: float = 0.0
    trap: float = 0.0
    s: float = 1.0
    end: float = 1.0

    @property
    def dephasing(self) -> float:
        """Rate at which the coherence is damped by the saturated decoherence."""
        return 0.5 * self.force**2 / self.s

    def lengths(self) -> tuple[float, float]:
        """Lengths of the box."""
        (a, b), (c, d) = self.box
        return b - a, d - c

    def centres(self, shape: Shape) -> tuple[Array, Array]:
        """Cell centres of both axes."""
        q, p = (lo + (np.arange(n) + 0.5) * (hi - lo) / n for (lo, hi), n in zip(self.box, shape, strict=True))
        return q, p

    def density(self, shape: Shape) -> Array:
        """Initial Gaussian at the cell centres."""
        q, p = self.centres(shape)
        r2 = (q[:, None] - self.mean[0]) ** 2 + (p - self.mean[1]) ** 2
        return np.exp(-0.5 * r2 / self.std**2) / (2 * np.pi * self.std**2)


LINEAR_DIOSI = Problem("linear Diosi", ((-5, 5), (-7, 7)), (0.0, 0.0), 0.4, force=2.0, phi=2.0)
DRIVEN_QUBIT = Problem(
    "driven qubit", ((-6, 6), (-7, 7)), (0.5, 0.0), 0.5, force=1.0, drive=0.5, decay=0.2, trap=1.0
)  # fmt: skip


# ---- split-step FFT -------------------------------------------------------------------------------------------------


def split_step_fft(
    problem: Problem, shape: Shape, steps: int | Sequence[int], order: int = 2, inside: Shape | None = None
) -> tuple[Array, float]:
    """Strang splitting with np.fft: streaming in (k_q, p), kick in (q, k_p), consecutive half steps of streaming merged.

    Parameters
    ----------
    problem : Problem
    shape : pair of int
        Cells in q and p.
    steps : int or sequence of int
        Strang steps; with order 4 the result is ``(4 S(dt/2)^2 - S(dt))/3`` of runs with ``steps`` and ``2 steps``. A sequence gives
        the steps of each run by itself (its length is half the order).
    order : int
        2, 4, 6, ...: Richardson extrapolation of runs with steps, 2 steps, 3 steps, ...
    inside : pair of int, optional
        Step on these fewer cells, and bring only the result to ``shape`` by trigonometric interpolation.

    Returns
    -------
    rho : array, shape (2, 2, nq, np)
    seconds : float
    """
    runs = tuple(steps * (k + 1) for k in range(order // 2)) if isinstance(steps, int) else tuple(steps)
    cells = shape if inside is None else inside
    density = problem.density(cells)
    start = time.perf_counter()
    weights = [float(np.prod([n * n / (n * n - m * m) for m in runs if m != n])) for n in runs]
    commuting = problem.drive == problem.decay == problem.trap == 0
    run = _commuting(problem, cells) if commuting else _general(problem, cells)
    total = run(density, runs[0])
    if len(runs) > 1:
        for field in total:
            field *= weights[0]
        for n, weight in zip(runs[1:], weights[1:], strict=True):
            for field, other in zip(total, run(density, n), strict=True):
                other *= weight
                field += other
    if inside is not None:
        to_q, to_p = _interpolation(inside[0], shape[0]), _interpolation(inside[1], shape[1]).T
        parts = [part for f in total for part in ((f.real, f.imag) if np.iscomplexobj(f) else (f,))]
        total = [to_q @ (part @ to_p) for part in parts]
    seconds = time.perf_counter() - start
    up, down, coherence = total if len(total) == 3 else (total[0], total[1], total[2] + 1j * total[3])
    return np.array([[up + 0j, coherence], [coherence.conj(), down + 0j]]), seconds


def _commuting(problem: Problem, shape: Shape) -> Callable[[Array, int], list[Array]]:
    """All elements apart: populations by rfft, the coherence by one complex FFT; kick and phase are one multiplication."""
    (nq, n), (q, p), (length_q, length_p) = shape, problem.centres(shape), problem.lengths()
    k_half = 2 * np.pi / length_p * np.arange(n // 2 + 1)
    k_full = 2 * np.pi / length_p * np.fft.fftfreq(n, 1 / n)
    work = np.empty(2 * max((nq // 2 + 1) * n, nq * (n // 2 + 1)), dtype=complex)
    in_kq = work[: 2 * (nq // 2 + 1) * n].reshape(2, nq // 2 + 1, n)
    in_kp = work[: 2 * nq * (n // 2 + 1)].reshape(2, nq, n // 2 + 1)

    @cache
    def stream_tables(dt: float) -> tuple[Array, Array]:
        full = np.empty((nq, n), dtype=complex)
        half = _shift_table(p * dt, length_q, nq, out=full[: nq // 2 + 1])
        np.conjugate(half[1 : (nq + 1) // 2][::-1], out=full[nq // 2 + 1 :])
        return half, full

    def kick_tables(dt: float) -> tuple[Array, Array]:
        up = np.exp((1j * problem.force * k_half - 0.5 * problem.s * k_half**2) * dt) / n
        phase = np.exp((-2j * (problem.force * q + problem.phi) - problem.dephasing) * dt)
        return np.stack([up, up.conj()])[:, None], phase[:, None] * (np.exp(-0.5 * problem.s * k_full**2 * dt) / n)

    def stream(pop: Array, coh: Array, half: Array, full: Array) -> None:
        np.fft.rfft(pop, axis=1, out=in_kq)
        np.multiply(in_kq, half, out=in_kq)
        np.fft.irfft(in_kq, n=nq, axis=1, norm="forward", out=pop)
        np.fft.fft(coh, axis=0, out=coh)
        np.multiply(coh, full, out=coh)
        np.fft.ifft(coh, axis=0, norm="forward", out=coh)

    def kick(pop: Array, coh: Array, half: Array, full: Array) -> None:
        np.fft.rfft(pop, axis=2, out=in_kp)
        np.multiply(in_kp, half, out=in_kp)
        np.fft.irfft(in_kp, n=n, axis=2, norm="forward", out=pop)
        np.fft.fft(coh, axis=1, out=coh)
        np.multiply(coh, full, out=coh)
        np.fft.ifft(coh, axis=1, norm="forward", out=coh)

    def run(density: Array, steps: int) -> list[Array]:
        dt = problem.end / steps
        pop, coh = np.empty((2, nq, n)), np.empty((nq, n), dtype=complex)
        pop[:] = 0.5 * density
        coh[:] = pop[0]
        halves, wholes, kicks = stream_tables(dt / 2), stream_tables(dt), kick_tables(dt)
        stream(pop, coh, *halves)
        for _ in range(steps - 1):
            kick(pop, coh, *kicks)
            stream(pop, coh, *wholes)
        kick(pop, coh, *kicks)
        stream(pop, coh, *halves)
        return [pop[0], pop[1], coh]

    return run


def _general(problem: Problem, shape: Shape) -> Callable[[Array, int], list[Array]]:
    """Four real fields, all by rfft; in (q, k_p): half a kick, the exact 4 x 4 map of H and decay at each q, half a kick."""
    (nq, n), (q, p), (length_q, length_p) = shape, problem.centres(shape), problem.lengths()
    k = 2 * np.pi / length_p * np.arange(n // 2 + 1)
    work = np.empty(4 * max((nq // 2 + 1) * n, nq * len(k)), dtype=complex)
    in_kq = work[: 4 * (nq // 2 + 1) * n].reshape(nq // 2 + 1, 4, n)
    in_kp = work[: 4 * nq * len(k)].reshape(nq, 4, len(k))
    mixed = np.empty_like(in_kp)

    @cache
    def stream_table(dt: float) -> Array:
        return _shift_table(p * dt, length_q, nq)[:, None]

    def kick_table(dt: float) -> Array:
        trap = _shift_table(-problem.trap * q * dt, length_p, n).T
        spread = (
            np.exp(-0.5 * problem.s * k**2 * dt) * n**0.5
        )  # with the 1/n of the shifts: 1/n over the two half kicks
        up = np.exp(1j * problem.force * k * dt) * spread
        table = np.empty((nq, 4, len(k)), dtype=complex)
        for i, factor in enumerate((up, up.conj(), spread, spread)):
            np.multiply(trap, factor, out=table[:, i])
        return table

    def stream(x: Array, table: Array) -> None:
        np.fft.rfft(x, axis=0, out=in_kq)
        np.multiply(in_kq, table, out=in_kq)
        np.fft.irfft(in_kq, n=nq, axis=0, norm="forward", out=x)

    def kick(x: Array, half_kick: Array, local: Array) -> None:
        np.fft.rfft(x, axis=2, out=in_kp)
        np.multiply(in_kp, half_kick, out=in_kp)
        np.matmul(local, in_kp.view(float), out=mixed.view(float))
        np.multiply(mixed, half_kick, out=mixed)
        np.fft.irfft(mixed, n=n, axis=2, norm="forward", out=x)

    def run(density: Array, steps: int) -> list[Array]:
        dt = problem.end / steps
        x = np.empty((nq, 4, n))
        x[:, :3], x[:, 3] = 0.5 * density[:, None], 0.0
        half, whole = stream_table(dt / 2), stream_table(dt)
        kicks = kick_table(dt / 2), _bloch_maps(problem, q, dt)
        stream(x, half)
        for _ in range(steps - 1):
            kick(x, *kicks)
            stream(x, whole)
        kick(x, *kicks)
        stream(x, half)
        return list(x.swapaxes(0, 1))

    return run


def _shift_table(shift: Array, length: float, n: int, out: Array | None = None) -> Array:
    """Rows ``exp(-i k_j shift)/n`` for the half spectrum j = 0 ... n/2, by doubling; real at the Nyquist mode."""
    rows = n // 2 + 1
    out = np.empty((rows, len(shift)), dtype=complex) if out is None else out
    theta = -2j * np.pi / length * shift
    out[0], done = 1 / n, 1
    while done < rows:
        more = min(done, rows - done)
        np.multiply(out[:more], np.exp(done * theta), out=out[done : done + more])
        done += more
    if n % 2 == 0:
        out[-1].imag = 0
    return out


def _interpolation(n: int, target: int) -> Array:
    """Matrix (target, n) of trigonometric interpolation between cell centres of a period, n even."""
    theta = np.pi * ((np.arange(target) + 0.5)[:, None] / target - (np.arange(n) + 0.5) / n)
    same = theta == 0
    return np.where(same, 1.0, np.sin(n * theta) / (n * np.tan(np.where(same, 1.0, theta))))


def _bloch_maps(problem: Problem, q: Array, dt: float) -> Array:
    """Exact real 4 x 4 maps of (rho00, rho11, Re rho01, Im rho01) under H, decoherence and decay for a time dt, at each q."""
    generator = np.zeros((len(q), 4, 4))
    rotation = 2 * (problem.force * q + problem.phi)
    drive, decay = problem.drive, problem.decay
    generator[:, 0, 0], generator[:, 1, 0] = -decay, decay
    generator[:, 0, 3], generator[:, 1, 3] = -2 * drive, 2 * drive
    generator[:, 3, 0], generator[:, 3, 1] = drive, -drive
    generator[:, 2, 3], generator[:, 3, 2] = rotation, -rotation
    generator[:, 2, 2] = generator[:, 3, 3] = -problem.dephasing - decay / 2
    squarings = max(0, int(np.ceil(np.log2(np.abs(generator).sum(axis=2).max() * dt / 0.5))))
    generator *= dt / 2**squarings
    out = np.eye(4) + generator / 12  # Taylor to order 12: round-off for a norm below 1/2
    for k in range(11, 0, -1):
        out = np.eye(4) + (generator / k) @ out
    for _ in range(squarings):
        out = out @ out
    return out


# ---- method of lines ------------------------------------------------------------------------------------------------


def method_of_lines(problem: Problem, shape: Shape, rtol: float) -> tuple[Array, float]:
    """SciPy's DOP853 on central differences of order 6 in q and p, zero outside the box.

    Parameters
    ----------
    problem : Problem
    shape : pair of int
        Cells in q and p.
    rtol : float
        Relative tolerance; the absolute one is a hundredth of it times the largest density.

    Returns
    -------
    rho : array, shape (2, 2, nq, np)
    seconds : float
    """
    from scipy.integrate import solve_ivp

    density = problem.density(shape)
    start = time.perf_counter()
    (nq, n), (q, p) = shape, problem.centres(shape)
    hq, hp = (length / m for length, m in zip(problem.lengths(), shape, strict=True))
    padded = np.zeros((4, nq + 6, n + 6))
    along_q, along_p = padded[:, :, 3:-3], padded[:, 3:-3]
    q = q[:, None]
    speed = -p / hq
    drift = -(np.array([-problem.force, problem.force, 0, 0])[:, None, None] - problem.trap * q) / hp
    diffusion = 0.5 * problem.s / hp**2
    rotation, damping = 2 * (problem.force * q + problem.phi), problem.dephasing + problem.decay / 2
    gradient, side = np.empty((4, nq, n)), np.empty((4, nq, n))

    def derivative(_: float, y: Array) -> Array:
        f = y.reshape(4, nq, n)
        padded[:, 3:-3, 3:-3] = f
        out = -490 / 180 * diffusion * f
        gradient[:] = 0
        for k, first in ((1, 45 / 60), (2, -9 / 60), (3, 1 / 60)):
            np.subtract(along_q[:, 3 + k : nq + 3 + k], along_q[:, 3 - k : nq + 3 - k], out=side)
            np.multiply(side, first, out=side)
            np.add(gradient, side, out=gradient)
        np.multiply(gradient, speed, out=gradient)
        np.add(out, gradient, out=out)
        gradient[:] = 0
        for k, first, second in ((1, 45 / 60, 270 / 180), (2, -9 / 60, -27 / 180), (3, 1 / 60, 2 / 180)):
            after, before = along_p[:, :, 3 + k : n + 3 + k], along_p[:, :, 3 - k : n + 3 - k]
            np.subtract(after, before, out=side)
            np.multiply(side, first, out=side)
            np.add(gradient, side, out=gradient)
            np.add(after, before, out=side)
            np.multiply(side, second * diffusion, out=side)
            np.add(out, side, out=out)
        np.multiply(gradient, drift, out=gradient)
        np.add(out, gradient, out=out)
        _add_local(problem, rotation, damping, f, out)
        return out.ravel()

    f = np.zeros((4, nq, n))
    f[:3] = 0.5 * density
    atol = 0.01 * rtol * density.max()
    result = solve_ivp(
        derivative, (0, problem.end), f.ravel(), method="DOP853", rtol=rtol, atol=atol, t_eval=[problem.end]
    )
    seconds = time.perf_counter() - start
    return _packed(result.y[:, -1].reshape(4, nq, n)), seconds


def _add_local(problem: Problem, rotation: Array, damping: float, f: Array, out: Array) -> None:
    """Add the terms without derivatives of the four real fields; those that vanish are left out."""
    up, down, re, im = f
    out[2] += rotation * im - damping * re
    out[3] -= rotation * re + damping * im
    if problem.drive:
        flow = 2 * problem.drive * im
        out[0] -= flow
        out[1] += flow
        out[3] += problem.drive * (up - down)
    if problem.decay:
        flow = problem.decay * up
        out[0] -= flow
        out[1] += flow


# ---- py-pde ---------------------------------------------------------------------------------------------------------


def py_pde(problem: Problem, shape: Shape, dt: float, tolerance: float = 1e-4) -> tuple[Array, float, float]:
    """py-pde (optional, ``pip install py-pde``): a ``PDEBase`` with its compiled operators and adaptive Runge-Kutta 5(4).

    Its central differences are of order 2. Every call compiles anew.

    Parameters
    ----------
    problem : Problem
    shape : pair of int
        Cells in q and p.
    dt : float
        First time step.
    tolerance : float
        Of the adaptive step.

    Returns
    -------
    rho : array, shape (2, 2, nq, np)
    seconds : float
        Without compilation.
    compilation : float
        Seconds of it.

    Raises
    ------
    ImportError
        If py-pde is not installed.
    """
    try:
        import pde
    except ImportError as error:
        raise ImportError("py-pde is not installed: pip install py-pde") from error

    q, p = (np.ascontiguousarray(x) for x in np.meshgrid(*problem.centres(shape), indexing="ij"))
    drift = np.array([-problem.force, problem.force, 0, 0])[:, None, None] - problem.trap * q
    rotation, damping = 2 * (problem.force * q + problem.phi), problem.dephasing + problem.decay / 2
    drive, decay, diffusion = problem.drive, problem.decay, 0.5 * problem.s

    class Equation(pde.PDEBase):
        explicit_time_dependence = False

        def evolution_rate(self, state: Any, t: float = 0) -> Any:
            raise NotImplementedError  # py-pde asks for it; only the compiled rate below is used

        def make_evolution_rate(self, state: Any, backend: Any) -> Callable[..., Array]:
            along_q, along_p, twice_p = (
                state.grid.make_operator(name, bc={"value": 0}, backend=backend, dtype=float)
                for name in ("d_dx", "d_dy", "d2_dy2")
            )

            def rate(f: Array, t: float = 0) -> Array:
                out = np.empty_like(f)
                for i in range(4):
                    out[i] = -p * along_q(f[i], args={"t": t}) - drift[i] * along_p(f[i], args={"t": t})
                    out[i] += diffusion * twice_p(f[i], args={"t": t})
                out[0] -= 2 * drive * f[3] + decay * f[0]
                out[1] += 2 * drive * f[3] + decay * f[0]
                out[2] += rotation * f[3] - damping * f[2]
                out[3] += drive * (f[0] - f[1]) - rotation * f[2] - damping * f[3]
                return out

            return rate

    grid = pde.CartesianGrid(problem.box, shape)
    start = 0.5 * problem.density(shape)
    fields = pde.FieldCollection([pde.ScalarField(grid, start * k) for k in (1, 1, 1, 0)])
    solver = pde.RungeKuttaSolver(Equation(), adaptive=True, tolerance=tolerance, backend="numba")
    controller = pde.Controller(solver, t_range=problem.end, tracker=None)
    result: Any = controller.run(fields, dt=dt)
    spent = controller.diagnostics["controller"]["profiler"]
    return _packed(result.data), float(spent["solver"]), float(spent["compilation"])


def _packed(fields: Any) -> Array:
    up, down, re, im = fields
    return np.array([[up + 0j, re + 1j * im], [re - 1j * im, down + 0j]])
