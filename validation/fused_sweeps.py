"""Two neighbouring sweeps fused, block by block while the block is in cache, against one after the other: time on one thread, in pairs, and bits.

    python -m validation.fused_sweeps            # the last two axes of 64^4 cells, d = 2, both precisions: half a minute, 2 GB
    python -m validation.fused_sweeps --quick    # 32^4 cells

Mass in superposition: the stream along the third axis and the kick along the last one, which follow each other in a step, touch the same planes of these two
axes: the best case for fusing. Each component's planes are taken some at a time, swept along one axis and then along the other, by the kernels that cqpde uses
(which get their work memory anew for every block: what a block of one plane takes longer is mostly that); all planes at once is one sweep after the other.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numba
import numpy as np
from numba import njit

from cqpde.channels.compose import Composition
from cqpde.channels.convolution import Convolution
from cqpde.channels.structure import analyse
from cqpde.components import copy_state, norms
from cqpde.kernels.circulant import _units
from cqpde.kernels.residues import plan
from cqpde.models.mass_in_superposition import mass_in_superposition, mass_in_superposition_grid

#: Planes of a block; 0: all.
PLANES = (0, 1, 2, 4, 8, 16)


@njit(nogil=True)
def _fused(first: Any, second: Any, planes: int, blocks: int, rest: Any) -> None:
    """One component's sweeps over every block in turn; a plane is a unit of both."""
    for k in range(blocks):
        _units(k * planes, (k + 1) * planes, *first, *rest)
        _units(k * planes, (k + 1) * planes, *second, *rest)


def arguments(convolution: Convolution, flat: Any, component: int) -> tuple[Any, ...]:
    """Arguments of a sweep of one component, as far as those of :func:`_units` differ from sweep to sweep."""
    _, row, col, which, tables = next(s for s in convolution._sets if component in s[0])
    n = convolution.shape[convolution.axis]
    program, roots, _ = plan(n)
    return (flat, n, convolution.apart[convolution.axis], *convolution._places, np.array([component]), row, col, which, tables, program, roots.astype(flat.dtype))


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Print the table; returns its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(argv)
    n, repeats, out = (32, 3, []) if given.quick else (64, 12, [])
    model, grid = mass_in_superposition(), mass_in_superposition_grid(n)
    most = numba.config.NUMBA_NUM_THREADS
    numba.set_num_threads(1)
    try:
        for precision in (np.float64, np.float32):
            x = copy_state(np.random.default_rng(0).random((4, 1, *grid.shape)).astype(precision))
            y, composition = copy_state(x), Composition(model, grid, analyse(model, grid, (0.0,)), dtype=precision)
            flows = {f.axes[0]: f for f in (composition.flow(p, 0.0, 1e-6) for p in composition.structure.parts) if f.multiplier is not None}
            pair = [Convolution.of(flows[axis].multiplier, x, axis + 1) for axis in (2, 3)]
            for c in pair:
                outer, _, lanes, _, width = c._places
                assert len(outer) * -(-len(lanes) // width) == n * n, "a unit of a sweep must be a plane"
            both = [[arguments(c, y.reshape(4, -1), k) for c in pair] for k in range(4)]
            rest = (precision(0), norms(4), np.zeros(n * n), np.zeros(n * n))

            times: dict[int, list[float]] = {}
            same, expected = True, y
            for k in range(repeats * len(PLANES)):
                planes = PLANES[k % len(PLANES)] or n * n
                if k < len(PLANES):  # the first time: from the same state, and compared
                    y[...] = x
                began = time.perf_counter()
                for first, second in both:
                    _fused(first, second, planes, n * n // planes, rest)
                if k < len(PLANES):
                    expected = y.copy() if k == 0 else expected
                    same = same and np.array_equal(y, expected)
                else:
                    times.setdefault(planes, []).append((time.perf_counter() - began) / x.size * 1e9)
            row = {"precision": np.dtype(precision).name, "same_bits": same, **{"apart" if k == n * n else f"{k} planes": float(np.median(t)) for k, t in times.items()}}
            out.append(row)
            print(*(f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()), "(ns per value and pair)", flush=True)
    finally:
        numba.set_num_threads(most)
    return out


if __name__ == "__main__":
    main()
