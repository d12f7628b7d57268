"""Memory: what is available, what a run takes, and the refusal of what does not fit."""

from __future__ import annotations

import json

import numpy as np
import pytest

import cqpde as cq
from cqpde import memory
from cqpde.cli import main
from validation.memory import QUICK, compare


def _group(folder, limit, used, cached, version):
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{'inactive_file' if version == 2 else 'total_inactive_file'} {cached}\n")


@pytest.mark.parametrize("version", [1, 2])
def test_the_limits_of_control_groups_count(tmp_path, version):
    """The least of the group and of those above it; pages of files that are not in use can be given back."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job/step\n" if version == 2 else "5:cpu:/\n4:memory:/job/step\n")
    top = tmp_path / "sys/fs/cgroup" / ("" if version == 2 else "memory")
    _group(top / "job/step", "max" if version == 2 else 2**63 - 4096, 0, 0, version)
    _group(top / "job", 1_000_000, 700_000, 200_000, version)
    assert memory.available(str(tmp_path)) == 500_000
    assert memory.available(str(tmp_path / "nowhere")) > 1e6


def test_what_does_not_fit_is_refused_before_it_is_made(monkeypatch, capsys, tmp_path):
    grid, rho0 = cq.Grid(q=(-6, 6, 48), p=(-9, 9, 72)), lambda g: cq.gaussian(g, 0, 0.5, cq.ket("+"))
    with pytest.raises(cq.CqpdeError, match=r"Grid: an initial state must fit.*available"):
        rho0(cq.Grid(q=(-6, 6, 4_000_000), p=(-9, 9, 4_000_000)))
    state = rho0(grid)
    monkeypatch.setattr(memory, "available", lambda root="/": 32.0 * 48 * 72 * 5)  # five states
    with pytest.raises(cq.CqpdeError, match=r"must fit into 80 % of the available memory; found .* needed"):
        cq.solve(cq.models.linear_diosi(), state, [0, 0.1])
    assert float(cq.solve(cq.models.linear_diosi(), state, [0, 0.1], force=True).trace[-1]) == pytest.approx(1.0, abs=1e-12)
    assert float(cq.solve(cq.models.linear_diosi(), state, [0, 0.1], save=["purity"], frames=[0.1], force=True).purity[0]) == pytest.approx(1.0, abs=1e-9)
    monkeypatch.setattr(memory, "available", lambda root="/": 12e6)  # the frames alone take 23 MB
    monkeypatch.chdir(tmp_path)
    assert main(["estimate", "linear_diosi"]) == 2
    assert "must fit into 80 %" in capsys.readouterr().err
    assert main(["run", "linear_diosi"]) == 2
    assert not list(tmp_path.iterdir())
    assert main(["estimate", "linear_diosi", "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes_frames"] == 11 * 64 * 128 * 256


def test_estimate_counts_frames_states_and_steps():
    model, grid = cq.models.linear_diosi(), cq.Grid(q=(-5, 5, 64), p=(-7, 7, 96))
    a, b = (cq.gaussian(grid, 0, 0.5, cq.ket(word)) for word in ("+", "0"))
    found = cq.estimate(model, [a, b], [0, 0.1, 0.2, 0.3], frames=[0.3], dt=0.05)
    assert (found.cells, found.states, found.frames, found.steps) == (64 * 96, 2, 1, 9)
    assert found.bytes_state == 8 * 4 * 64 * 96 * 2 and found.bytes_frames == 2 * found.bytes_state
    large = cq.estimate(model, a, [0, 0.3], grid=grid.with_cells(q=20_000, p=30_000), dt=0.05)
    assert large.cells == 600_000_000 and large.bytes_work > 3 * large.bytes_state
    with pytest.raises(cq.CqpdeError, match="must fit"):
        large.require_room()
    array = cq.from_array(grid, a.rho)
    assert cq.estimate(model, array, [0, 0.3], grid=grid.with_cells(q=128), dt=0.05).cells == 128 * 96
    for bad, options in (("rho0", {"rho0": 3}), ("dt", {"dt": "x"}), ("dt", {"dt": -1}), ("grid", {"grid": cq.Grid(x=(0, 1, 9))}), ("tool", {"tool": 1}), ("frames", {"frames": [0.2]})):
        with pytest.raises(cq.CqpdeError, match=f"^{bad}: "):
            cq.estimate(model, **{"rho0": a, "t": [0, 1], **options})


@pytest.mark.parametrize("name", QUICK)
def test_estimate_is_near_the_resident_size(name, tmp_path):
    """Largest resident size of a process of ``cqpde run``: within 20 %."""
    row = compare(name, tmp_path)
    assert abs(row["ratio"] - 1) < 0.2, row
    assert row["seconds_estimate"] < 10 * row["seconds"] or (np.isnan(row["seconds_estimate"]) and name != "the same by equal steps"), row
