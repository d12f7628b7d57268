"""A long run of the fuzzer: how many cases, how many ran, were refused, and every kind of defect once, with the case that showed it.

    python -m validation.fuzz --cases 2000 --seed 1 [--kinds solve unravel ...]

Cases come out of tests/fuzz_cases.py and tests/fuzz_text.py; tests/test_fuzz.py runs a fixed sample of them in CI.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from tests import fuzz_arguments, fuzz_cases, fuzz_text
from tests.fuzzing import Hang, judge

KINDS = fuzz_cases.KINDS | fuzz_text.KINDS | fuzz_arguments.KINDS


def main(argv: list[str] | None = None) -> dict[str, Counter[str]]:
    """Run and print; returns the counts per kind of case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000, help="cases of each kind (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seconds", type=float, default=20.0, help="time limit of a case (default %(default)s)")
    parser.add_argument("--reasons", action="store_true", help="also print what was refused, and how often")
    arguments = parser.parse_args(argv)
    counts = {}
    for kind in arguments.kinds:
        counts[kind], defects, seconds = explore(kind, arguments.cases, arguments.seed, arguments.seconds, arguments.reasons)
        c = counts[kind]
        print(f"{kind:>12}: {c['cases']} cases, {c['run']} run, {c['refused']} refused, {c['defects']} defects of {len(defects)} kinds, {seconds:.0f} s (seed {arguments.seed})", flush=True)
        for place, (case, text) in defects.items():
            print(f"\n--- {place}\n{case}\n{text}", flush=True)
    return counts


def explore(kind: str, cases: int, seed: int, limit: float, show: bool = False) -> tuple[Counter[str], dict[str, tuple[str, str]], float]:
    """Judge so many cases of a kind; counts, defects by the place where they show, seconds."""
    counts: Counter[str] = Counter()
    defects: dict[str, tuple[str, str]] = {}
    reasons: Counter[str] = Counter()
    began = time.perf_counter()

    @seeded(seed)
    @settings(max_examples=cases, deadline=None, database=None, derandomize=False, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(KINDS[kind])
    def run(case):
        counts["cases"] += 1
        start = time.perf_counter()
        try:
            outcome = judge(case, limit if counts["cases"] > 40 else 120.0)  # kernels may have to be compiled first
            counts["run" if outcome == "run" else "refused"] += 1
            if outcome != "run":
                reasons[outcome] += 1
        except (Exception, Hang) as error:
            counts["defects"] += 1
            frames = traceback.extract_tb(error.__traceback__)
            mine = [f for f in frames if "/cqpde/" in f.filename] or frames
            place = f"{type(error).__name__} at {mine[-1].filename.rsplit('/cqpde/', 1)[-1]}:{mine[-1].name}"
            if isinstance(error, AssertionError):
                place += " " + str(error).split(" ")[0]
            if place not in defects:
                defects[place] = (repr(case), "".join(traceback.format_exception_only(error))[:600] + " <- " + " <- ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in frames[::-1][:9]))
        if counts["cases"] > 40 and time.perf_counter() - start > 5.0:
            counts["slow"] += 1
            defects.setdefault(f"slow ({time.perf_counter() - start:.0f} s) {counts['slow']}", (repr(case), ""))

    run()
    if show:
        for reason, times in reasons.most_common(40):
            print(f"{times:8d}  {reason}")
    return counts, defects, time.perf_counter() - began


if __name__ == "__main__":
    main()
    sys.exit(0)
