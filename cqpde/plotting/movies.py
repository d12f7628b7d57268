"""Movies of the hybrid state: mp4 through imageio-ffmpeg, else GIF."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import observables as of
from ..errors import FileError
from ..io import check_writable
from ..observables.access import field, time_name
from .panels import figure, limits, new_axes, one_state, plane_of, title_of
from .phase_space import draw_arrows, draw_coherence, draw_map

if TYPE_CHECKING:
    import xarray as xr


def default_format() -> str:
    """``.mp4`` where imageio-ffmpeg is installed, else ``.gif``."""
    return ".mp4" if importlib.util.find_spec("imageio_ffmpeg") else ".gif"


def movie(
    sol: xr.Dataset, path: str | Path, axes: Any = None, *, fps: int = 10, levels: tuple[int, int] = (0, 1), batch: int = 0, dpi: int = 110
) -> None:
    """Write a movie of density and coherence, one picture per full field.

    Parameters
    ----------
    sol : Dataset
        A solution with several full fields.
    path : path
        File ending in ``.mp4`` (needs imageio-ffmpeg, part of ``cqpde[plot]``) or ``.gif``.
    axes : str or pair of str, optional
        Two coordinates; default the first two.
    fps : int
        Pictures per second.

    Raises
    ------
    FileError
        For another ending, a folder that cannot be written, or an mp4 without imageio-ffmpeg.
    """
    from matplotlib import animation, rc_context

    suffix = Path(path).suffix.lower()
    if suffix not in (".mp4", ".gif"):
        raise FileError(str(path), "must end in .mp4 or .gif", suffix or "nothing", "Rename it")
    check_writable(path)
    settings: Any = {}
    if suffix == ".mp4":
        if not importlib.util.find_spec("imageio_ffmpeg"):
            raise FileError(str(path), "an mp4 needs imageio-ffmpeg", "it is not installed", "pip install imageio-ffmpeg, or write a .gif")
        import imageio_ffmpeg

        settings["animation.ffmpeg_path"] = imageio_ffmpeg.get_ffmpeg_exe()
    first, _ = one_state(sol, None, batch)
    plane = plane_of(first, axes)
    if len(plane) != 2:
        raise FileError(str(path), "a movie needs two coordinates", ", ".join(plane), "Use the kind marginals for one axis")
    name = time_name(field(sol))
    times = [None] if name is None else [float(x) for x in sol[name].values]
    ranges = _ranges(sol, plane, times, batch)
    d = first.sizes["row"]
    picture = figure(8.2 if d > 1 else 4.4, 3.6)
    with rc_context(settings):
        writer: Any = animation.FFMpegWriter(fps=fps, extra_args=["-pix_fmt", "yuv420p", "-vf", "crop=trunc(iw/2)*2:trunc(ih/2)*2"]) if suffix == ".mp4" else animation.PillowWriter(fps=fps)
        with writer.saving(picture, str(path), dpi):
            for t in times:
                picture.clear()
                at, now = one_state(sol, t, batch)
                f = np.asarray(of.marginal(at, *plane))
                density = new_axes(picture, (1, 2 if d > 1 else 1, 1))
                draw_map(density, at, plane, f, ranges, r"density $\mathrm{Tr}\,\rho$")
                if d > 1:
                    draw_arrows(density, at, plane, f, ranges, levels)
                    draw_coherence(new_axes(picture, (1, 2, 2)), at, plane, ranges, levels)
                picture.suptitle(title_of(sol, now), fontsize=10)
                writer.grab_frame()


def _ranges(sol: xr.Dataset, plane: tuple[str, ...], times: list[Any], batch: int) -> list[tuple[float, float]]:
    """What the state reaches at any time."""
    out = []
    for name in plane:
        ends = [limits(np.asarray(of.marginal(one_state(sol, t, batch)[0], name)), sol[name].values) for t in times]
        out.append((min(e[0] for e in ends), max(e[1] for e in ends)))
    return out
