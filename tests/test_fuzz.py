"""Thousands of random cases: each runs to a physical result or is refused by a CqpdeError that names its argument (long run: validation/fuzz.py)."""

from __future__ import annotations

import faulthandler

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from cqpde.integrate import evolve

from . import fuzz_arguments, fuzz_cases, fuzz_text
from .fuzzing import judge

#: Cases of each kind in CI.
COUNTS = {"solve": 500, "unravel": 250, "arguments": 1000, "config": 600, "observable": 1000, "command": 250}
KINDS = fuzz_cases.KINDS | fuzz_text.KINDS | fuzz_arguments.KINDS


@pytest.mark.parametrize("kind", COUNTS)
def test_random_cases_run_or_are_refused(kind, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # some words are names of files
    # a run whose cells are crossed a hundred million times may be sound and takes an hour: here such runs are refused earlier
    monkeypatch.setattr(evolve, "MOST_SPAN", 1e5)
    counts = {"run": 0, "refused": 0}
    faulthandler.dump_traceback_later(600, exit=True)  # a kernel that never ends cannot be interrupted otherwise

    @settings(
        max_examples=COUNTS[kind], deadline=None, database=None, derandomize=True, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(KINDS[kind])
    def run(case):
        counts["run" if judge(case, 120.0) == "run" else "refused"] += 1

    try:
        run()
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert counts["run"] > COUNTS[kind] // 100 and (counts["refused"] > COUNTS[kind] // 10 or kind == "command"), counts
