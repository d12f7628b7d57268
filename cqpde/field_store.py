"""Fields that go to a Zarr store while a run goes on (``output=``): none is kept in memory, and many processes write their own cells of each.

The store is made beside its final place (``.NAME.part``) in the layout of :func:`cqpde.save`, with chunks that no two processes share. Frames are
written into it as they come; at the end the rest of the result is added, and the store takes its name.
"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import dataset, io
from .errors import FileError, OptionError
from .grid import Grid

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray

#: Bytes of a chunk at most, where the processes allow it.
CHUNK_BYTES = 1 << 26

FIELDS = ("rho_re", "rho_im", "density")


def require_output(output: Any) -> Path:
    """The path of a store that can be written.

    Raises
    ------
    OptionError, FileError
    """
    if not isinstance(output, str | os.PathLike) or Path(output).suffix != ".zarr":
        raise OptionError("output", "must be the name of a Zarr store, NAME.zarr", repr(output), "Write e.g. output='run.zarr'")
    path = Path(output)
    io.check_writable(path)
    io.need_zarr(path)
    return path


class FieldStore:
    """The store of a run.

    Parameters
    ----------
    path : Path
        Where the store will be.
    times, frames : array
        Outputs, and those of them with full fields.
    batch : int
        States of a batch; 0: a single state.
    dtype : dtype
        Of the real numbers in it.
    boundaries : list of int
        Cells along ``axis`` at which the parts of the processes begin.
    """

    def __init__(
        self, path: Path, grid: Grid, dim: int, times: Array, frames: Array, batch: int, dtype: Any = np.float64, axis: int = 0, boundaries: tuple[int, ...] = (0,)
    ) -> None:  # fmt: skip
        self.path, self.grid, self.dim, self.times, self.frames, self.batch, self.axis = path, grid, dim, times, frames, batch, axis
        self.dtype = np.result_type(dtype, np.complex64)
        self.beside = path.with_name(f".{path.name}.part")
        self.chunks = self._chunks(boundaries)
        self._group: Any = None

    def _chunks(self, boundaries: tuple[int, ...]) -> tuple[int, ...]:
        chunks = list(self.grid.shape)
        chunks[self.axis] = math.gcd(*boundaries, chunks[self.axis])
        while 8 * math.prod(chunks) > CHUNK_BYTES:
            k = max((i for i in range(len(chunks)) if i != self.axis or len(boundaries) == 1), key=lambda i: chunks[i], default=self.axis)
            if chunks[k] == 1:
                break
            chunks[k] = -(-chunks[k] // 2)
        return tuple(chunks)

    def _dataset(self, escaped: Array, diagnostics: dict[str, Array], saved: dict[str, Any], attrs: dict[str, Any]) -> xr.Dataset:
        """The result with fields that take no memory."""
        import dask.array

        states = (self.batch,) if self.batch else ()
        shape = (len(self.frames), *states, self.dim, self.dim, *self.grid.shape)
        nothing = dask.array.zeros(shape, dtype=self.dtype, chunks=(1,) * (3 + len(states)) + self.chunks)
        return dataset.build(self.grid, self.dim, self.times, self.frames, nothing, escaped, diagnostics, saved, attrs)

    def begin(self) -> None:
        """Make the store, without values."""
        escaped = np.zeros((len(self.times), *((self.batch,) if self.batch else ()), 2 * self.grid.ndim, self.dim, self.dim), dtype=complex)
        encoded = io.encode(self._dataset(escaped, {}, {}, {}))
        try:
            shutil.rmtree(self.beside, ignore_errors=True)
            encoded[list(FIELDS)].to_zarr(self.beside, compute=False, consolidated=False)
        except OSError as error:
            raise self._failed(error) from error

    def open(self) -> None:
        """Open the store for writing; what was written before an interruption is in it."""
        import zarr

        try:
            self._group = zarr.open_group(str(self.beside), mode="r+")
            shapes = {tuple(self._group[name].shape[-self.grid.ndim :]) for name in FIELDS}
        except (OSError, ValueError, KeyError) as error:
            raise FileError(str(self.beside), "must hold the fields that were written before", str(error)[:100] or "nothing", "Start the run again") from None
        if shapes != {self.grid.shape}:
            raise FileError(str(self.beside), f"must hold fields of {self.grid.shape} cells", shapes, "Start the run again")

    def write(self, frame: int, rho: Array, low: int = 0) -> None:
        """Write cells of a frame.

        Parameters
        ----------
        rho : array (batch, d, d, \\*cells)
            From cell ``low`` of the axis that is cut on; the other axes are whole.
        """
        n = self.grid.ndim
        where = [slice(None)] * n
        where[self.axis] = slice(low, low + rho.shape[3 + self.axis])
        if not self.batch:
            rho = rho[0]
        try:
            for name, part in (("rho_re", rho.real), ("rho_im", rho.imag)):
                self._group[name][(frame, Ellipsis, *where)] = np.ascontiguousarray(part)
            self._group["density"][(frame, Ellipsis, *where)] = np.einsum("...aa->...", np.moveaxis(rho.real, (-n - 2, -n - 1), (-2, -1)))
        except OSError as error:
            raise self._failed(error) from error

    def drop(self) -> None:
        """Delete what was written, of a run that has no result."""
        shutil.rmtree(self.beside, ignore_errors=True)

    def read(self, frame: int) -> Array:
        """A frame, (batch, d, d, \\*cells)."""
        rho = self._group["rho_re"][frame] + 1j * self._group["rho_im"][frame]
        return rho if self.batch else rho[None]

    def finish(self, escaped: Array, diagnostics: dict[str, Array], saved: dict[str, Any], attrs: dict[str, Any]) -> xr.Dataset:
        """Add the rest of the result, give the store its name, and read it lazily."""
        encoded = io.encode(self._dataset(escaped, diagnostics, saved, attrs))
        try:
            encoded.drop_vars(FIELDS).to_zarr(self.beside, mode="a", consolidated=False)
            if self.path.is_dir():
                shutil.rmtree(self.path)
            os.replace(self.beside, self.path)
        except OSError as error:
            raise self._failed(error) from error
        return io.load(self.path, lazy=True)

    def _failed(self, error: OSError) -> FileError:
        return FileError(str(self.path), "could not be written", error.strerror or str(error), "Free some space, or choose another place")
