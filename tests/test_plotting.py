"""Pictures: what is drawn against the numbers, colours, labels, formats, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

import cqpde as cq
from cqpde.errors import FileError, OptionError

from .hybrid_states import branches, dataset, normal, random_state, times_state

GRID = cq.Grid(q=(-6, 6, 60), p=(-9, 9, 80))
TIMES = [0.0, 0.3, 0.6]


@pytest.fixture(scope="module")
def solution():
    return cq.solve(cq.models.linear_diosi(), cq.gaussian(GRID, 0, 0.4, cq.ket("+")), TIMES, tol=1e-3, grid_error=False)


@pytest.fixture(scope="module")
def ensemble():
    start = cq.gaussian(cq.Grid(q=(-6, 6, 48), p=(-9, 9, 48)), 0, 0.4, cq.ket("+"))
    return cq.unravel(cq.models.linear_diosi(), start, TIMES, trajectories=4000, seed=3, dt=0.05, store=1, stored=4)


def test_hybrid_panels_draw_the_fields(solution):
    figure = cq.plot.hybrid(solution, t=0.3)
    images = [a.images[0] for a in figure.axes if a.images]
    at = solution.cq.frame(0.3)
    assert np.allclose(images[0].get_array(), at.cq.density().values.T)
    populations = at.cq.populations("q", "p").values
    drawn = [i.get_array() for i in images if i.get_array().shape == (80, 60)]
    assert len(drawn) == 3
    assert np.allclose(drawn[1], populations[0].T) and np.allclose(drawn[2], populations[1].T)
    shown = next(i.get_array() for i in images if i.get_array().shape == (80, 60, 3))
    assert np.allclose(shown, np.moveaxis(cq.plot.phase_colors(at.cq.coherence("q", "p").values), 0, 1))
    assert figure.axes[0].get_xlabel() == "$q$" and figure.axes[0].get_ylabel() == "$p$"
    assert "0.3" in figure.get_suptitle()
    # the box is cropped to where the state is
    low, high = figure.axes[0].get_ylim()
    assert -6 < low < -2 and 2 < high < 6
    # arrows: (x, z) of the conditional states
    quiver = next(c for c in figure.axes[0].collections if hasattr(c, "U"))
    x, y = quiver.XY[len(quiver.U) // 3]
    vector = at.cq.bloch("q", "p").sel(q=x, p=y, method="nearest").values
    assert (quiver.U[len(quiver.U) // 3], quiver.V[len(quiver.U) // 3]) == pytest.approx((vector[0], vector[2]), abs=1e-12)


def test_units_and_other_models_are_labelled(tmp_path):
    grid = cq.Grid(phi_1=(-4, 4, 24), x=(-4, 4, 20), y=(-4, 4, 22))
    f = normal(grid, dict.fromkeys(grid.names, 0.0), dict.fromkeys(grid.names, 0.8))
    ds = dataset(grid, [times_state(f, random_state(6, 2))])
    ds["x"].attrs["units"] = "um"
    figure = cq.plot.hybrid(ds, axes=("phi_1", "x"), levels=(2, 4))
    assert figure.axes[0].get_xlabel() == r"$\phi_{1}$" and figure.axes[0].get_ylabel() == "$x$ [um]"
    assert sum("population" in a.get_title() for a in figure.axes) == 4  # the most populated levels
    assert any("rho_{24}" in a.get_title() for a in figure.axes)
    for picture in (cq.plot.hybrid(ds, axes="x"), cq.plot.marginals(ds), cq.plot.series(ds.assign(trace=("t", [1.0]), **{n: ("t", [0.0]) for n in _DIAGNOSTICS}))):
        cq.plot.save_figure(picture, tmp_path / "a.pdf")
    with pytest.raises(OptionError, match="one or two coordinates"):
        cq.plot.hybrid(ds, axes="x y phi_1")
    with pytest.raises(OptionError, match="different levels"):
        cq.plot.hybrid(ds, levels=(1, 1))
    with pytest.raises(FileError, match="picture format"):
        cq.plot.save_figure(figure, tmp_path / "a.docx")
    classical = dataset(cq.Grid(x=(-4, 4, 20)), [np.ones((1, 1, 20), dtype=complex) / 8])
    cq.plot.save_figure(cq.plot.hybrid(classical), tmp_path / "c.png")


_DIAGNOSTICS = ("time_error", "grid_error", "escaped_probability", "edge_probability", "min_eigenvalue")


def test_phase_colours_are_even_in_lightness_and_turn_with_the_phase():
    phases = np.linspace(-np.pi, np.pi, 24, endpoint=False)
    colours = cq.plot.phase_colors(np.exp(1j * phases), 1.0)
    luminance = colours ** 2.2 @ [0.2126, 0.7152, 0.0722]
    assert luminance.std() / luminance.mean() < 0.16
    steps = np.linalg.norm(np.diff(np.concatenate([colours, colours[:1]]), axis=0), axis=1)
    assert steps.min() > 0.02
    assert cq.plot.phase_colors(np.zeros(3)) == pytest.approx(np.ones((3, 3)), abs=1e-6)
    light = cq.plot.phase_colors(np.linspace(0, 1, 9) * 1j, 1.0) ** 2.2 @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(light) < 0)  # the larger, the darker
    density = colormaps["viridis"](np.linspace(0, 1, 32))[:, :3] ** 2.2 @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(density) > 0)  # readable in grey as well


def test_levels_stay_apart_for_colour_blind_eyes():
    """Machado's matrices (2009) for full protanopia and deuteranopia; the first six colours keep their distance."""
    rgb = np.array([[int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)] for c in cq.plot.LEVELS[:6]]) ** 2.2
    for matrix in (
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ):
        seen = np.clip(rgb @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 9 * np.eye(6)
        assert apart.min() > 0.1


def test_marginals_carry_the_histograms_of_trajectories(solution, ensemble):
    figure = cq.plot.marginals(solution, ensemble, t=0.6)
    for k, name in enumerate("qp"):
        points = figure.axes[k].lines[-1]
        x, y = points.get_xdata(), points.get_ydata()
        exact = np.interp(x, solution[name].values, solution.cq.marginal(name).values[-1])
        inside = exact > 0.05
        assert np.abs(y[inside] / exact[inside] - 1).max() < 0.25
        assert abs(y.sum() * ensemble.cq.grid.axis(name).spacing - 1) < 0.02
    with pytest.raises(OptionError, match=r"must have the time 0\.3"):
        cq.plot.marginals(solution, ensemble.isel(t=[0, 2]), t=0.3)
    with pytest.raises(OptionError, match="histograms over q"):
        cq.plot.marginals(solution, solution)


def test_bloch_paths_stay_on_the_sphere(solution, ensemble):
    figure = cq.plot.bloch(ensemble, count=3)
    paths = [np.array(line.get_data_3d()) for line in figure.axes[0].lines if len(line.get_data_3d()[0]) == ensemble.sizes["t_path"]]
    assert len(paths) == 3
    for path, rho in zip(paths, ensemble.path_rho.values, strict=False):
        assert np.linalg.norm(path, axis=0) == pytest.approx(1, abs=1e-9)  # pure all along
        assert path[2] == pytest.approx((rho[:, 0, 0] - rho[:, 1, 1]).real)
        assert path[:, 0] == pytest.approx([1, 0, 0], abs=1e-9)
    assert cq.plot.bloch(solution)
    with pytest.raises(OptionError, match="store"):
        cq.plot.bloch(ensemble.drop_vars("path_rho"))


def test_series_draw_saved_observables_at_their_times(solution):
    figure = cq.plot.series(solution)
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx([0.5] * 3, abs=1e-9)
    part = cq.solve(
        cq.models.linear_diosi(), cq.gaussian(GRID, 0, 0.4, cq.ket("+")), TIMES, tol=1e-3, grid_error=False,
        save=["mean", "covariance", "purity", "mutual_information"], frames=[0.6],
    )  # fmt: skip
    lines = {line.get_label(): line for a in cq.plot.series(part).axes for line in a.lines}
    assert lines["purity, conditional"].get_ydata() == pytest.approx(solution.cq.purity().values, abs=1e-9)
    assert len(lines["$q$"].get_xdata()) == 3


def test_convergence_shows_the_slope():
    h = np.array([0.4, 0.2, 0.1])
    figure = cq.plot.convergence(h, {"a": 3 * h**2, "b": h**4}, order=2)
    assert [line.get_label() for line in figure.axes[0].lines] == ["a (slope 2.00)", "b (slope 4.00)", "order 2"]
    with pytest.raises(OptionError, match="positive finite"):
        cq.plot.convergence(h, [1, np.nan, 1])
    solutions = [dataset(g, [branches(g, 0.3)]) for g in (cq.Grid(q=(-6, 6, n), p=(-9, 9, 2 * n)) for n in (24, 32, 96))]
    assert cq.plot.grid_convergence(solutions).axes[0].lines[0].get_ydata().max() < 0.1


@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_movies_have_a_picture_per_frame(solution, ending, tmp_path):
    path = tmp_path / f"a{ending}"
    cq.plot.movie(solution, path, dpi=50)
    if ending == ".gif":
        with Image.open(path) as picture:
            assert picture.n_frames == 3
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50
    else:
        import imageio_ffmpeg

        assert imageio_ffmpeg.count_frames_and_secs(str(path))[0] == 3
    with pytest.raises(FileError, match="must end in"):
        cq.plot.movie(solution, tmp_path / "a.avi")
