"""Every figure's script in quick mode, each with one physical number against an exact value or an independent route."""

from __future__ import annotations

import numpy as np
import pytest

import cqpde as cq


def test_linear_diosi(tmp_path):
    from examples import linear_diosi

    numbers = linear_diosi.main(quick=True, folder=tmp_path)
    assert numbers["error"] < 1e-6  # against the exact density matrix, integrated trace norm
    assert numbers["p_of_0"] == pytest.approx(-2.0, abs=1e-6)  # (C.8): |0> is pushed downwards
    assert numbers["mean_field_p"] == pytest.approx(10.0, abs=1e-5)  # no force on |+>; the start is 1e-6 wide
    assert numbers["final_z"] > 0.9
    for name in ("figure_2", "figure_5", "hybrid", "series"):
        assert (tmp_path / f"linear_diosi_{name}.png").stat().st_size > 5000


def test_qubit_lattice(tmp_path):
    from examples import qubit_lattice

    numbers = qubit_lattice.main(quick=True, folder=tmp_path)
    assert numbers["pi_correlation"] == pytest.approx(1.0, abs=1e-6)  # (lam t)^2
    assert numbers["phi_correlation"] == pytest.approx(0.25, abs=1e-6)  # (lam t^2 / 2m)^2
    assert numbers["pi_correlation_1000"] == pytest.approx(1.0, abs=1e-6)
    weight = np.exp(-(0.5 + 0.1) - 2 * (0.16 + 0.16 / 4))
    assert numbers["coherence_5"] == pytest.approx(0.5 * weight**5, rel=1e-5)
    assert (tmp_path / "qubit_lattice_figure_4.png").exists()


def test_well_and_barrier_against_trajectories(tmp_path):
    """Escaped populations and coherence at q_min, grid against trajectories that stop at the same q_min."""
    from examples import well_and_barrier

    numbers = well_and_barrier.main(quick=True, folder=tmp_path)
    assert numbers["specular_trace"] == pytest.approx(1.0, abs=1e-12)
    escaped, back = numbers["results"][0.1]
    grid = cq.models.well_and_barrier_grid(0.1, (48, 48))
    rho0 = cq.gaussian(grid, {"q": 1.0, "p": -1.0}, 0.12, cq.ket("+"))
    ens = cq.unravel(cq.models.well_and_barrier(), rho0, [0.0, 2.0], trajectories=8000, seed=2, dt=0.005)
    gone = ens.escaped.values[-1].reshape(-1, 2, 2).sum(axis=0)
    assert np.abs(gone - escaped).max() < 0.03  # 48^2 cells and 8000 trajectories
    assert back[1] > 20 * back[0]  # only the barrier sends it back
    assert abs(gone[0, 0] - escaped[1, 1]) > 0.1  # swapped levels, or the other sign of the force, would be seen


def test_mass_in_superposition(tmp_path):
    from examples import mass_in_superposition

    numbers = mass_in_superposition.main(quick=True, folder=tmp_path)
    rho0 = cq.gaussian(
        cq.Grid(x=(-1.8, 1.8, 24), px=(-0.1, 0.1, 24), y=(-2.3, 1.3, 24), py=(-0.095, 0.105, 24)), {"y": -0.5},
        {"x": 0.2, "y": 0.2, "px": 0.012, "py": 0.012}, cq.ket("+"),
    )  # fmt: skip
    ens = cq.unravel(cq.models.mass_in_superposition(), rho0, [0.0, 0.1], trajectories=20_000, seed=3, dt=0.005)
    names = ens.monomial.attrs["flag_meanings"].split()
    x, one = ens.moments.values[-1, names.index("x")], ens.moments.values[-1, names.index("1")]
    left = int(np.flatnonzero([np.allclose(o, np.diag([1, 0])) for o in ens.operators.values])[0])
    error = (ens.covariance.values[-1, names.index("x"), left, names.index("x"), left] / 20_000) ** 0.5 / one[left]
    assert numbers["mean_x_L"] == pytest.approx(x[left] / one[left], abs=4.5 * error + 1e-4)
    assert numbers["mean_x_L"] < -10 * error  # L is on the left
    assert numbers["mean_field_x"] == pytest.approx(0.0, abs=1e-4)  # down the middle
    assert numbers["z_phi_0"] > 0.9


def test_grid_against_trajectories_for_the_models_without_a_closed_form():
    """A definite verdict on few cells; the 10^6 trajectories of the gallery's table are `python -m validation.paper_models`."""
    from validation import paper_models

    for name, found in paper_models.main(["--quick"]).items():
        assert found["verdict"] == "agree", (name, found)
        assert found["errors_in_standard_errors"] < 0.2 and found["p_value"] > 0.01


def test_the_table_of_run_times_can_be_made(tmp_path):
    from examples import gallery

    row = gallery.measure("low noise", "80 x 80", ["-c", f"from examples import low_noise; low_noise.main(quick=True, folder={str(tmp_path)!r})"])
    assert row.seconds > 0.1 and row.processor > 0.1 and 0.05 < row.gigabytes < 4
    assert (tmp_path / "low_noise.png").exists()
    text = gallery.README.read_text()
    first = gallery.Row(gallery.RUNS[0][0], "1 x 1", 1.0, 2.0, 3.0)
    assert "| 1 x 1 | 1 | 2 | 3.0 GB |" in gallery.updated(text, [first]) and "1 x 1" not in text
    for name, _, arguments in gallery.RUNS:
        assert f"| {name} |" in text, "run python -m examples.gallery"
        assert arguments[0] == "-m"


def test_mixture_and_superposition(tmp_path):
    from examples import mixture_and_superposition

    numbers = mixture_and_superposition.main(quick=True, folder=tmp_path)
    assert (tmp_path / "mixture_and_superposition.png").stat().st_size > 5000
    assert numbers["master_equation"] < 1e-12
    # mean field from |0>, |1>: p normal about -+2; from |+>, |->: about 0; all 0.4 wide. Total variation by quadrature, noise of histograms aside
    p = np.linspace(-9, 9, 20_001)
    normal = lambda mean: np.exp(-0.5 * ((p - mean) / 0.4) ** 2) / (0.4 * (2 * np.pi) ** 0.5)
    exact = 0.5 * np.trapezoid(np.abs(0.5 * (normal(-2) + normal(2)) - normal(0)), p)
    assert numbers["mean_field"] == pytest.approx(exact, abs=0.02)


def test_low_noise(tmp_path):
    from examples import low_noise

    numbers = low_noise.main(quick=True, folder=tmp_path)
    assert np.all(np.diff(numbers["distances"]) < 0) and max(numbers["errors"]) < 1e-4
    assert numbers["slope"] == pytest.approx(2.0, abs=0.15)
    assert numbers["distances"][-1] < 0.01


