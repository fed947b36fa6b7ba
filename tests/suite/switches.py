# SPDX-License-Identifier: GPL-2.0-or-later
"""Every combination of the shadow MMU's switches over the whole suite: `scripts/switches [-k PATTERN] [-j N]`.

What a guest prints, how it ends and how many instructions it takes must be the same with each of them as with none. Golden traces and
limits on events may differ, and are not looked at. Exit status: 0 nothing differs, 1 something does.
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import combinations

from emu.config import SHADOW_SWITCHES, Mmu
from emu.suite.cases import own_suite
from emu.suite.pool import Pool
from emu.suite.reading import read_suite
from emu.suite.results import Result, jobs_of
from emu.suite.runner import matches, run_jobs


def all_combinations() -> list[frozenset[str]]:
    """None switched off first, all last."""
    return [frozenset(names) for size in range(len(SHADOW_SWITCHES) + 1) for names in combinations(SHADOW_SWITCHES, size)]


def seen(result: Result) -> tuple[str, int, tuple[tuple[str, str], ...]]:
    """What the guest could tell."""
    return result.serial, result.instructions, tuple((check.name, check.status) for check in result.checks)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="switches", description=__doc__.splitlines()[0])
    parser.add_argument("-k", dest="pattern", help="only cases with this in their name")
    parser.add_argument("-j", dest="workers", type=int, default=os.cpu_count(), help="processes at once")
    chosen = parser.parse_args()
    cases = [case for case in read_suite(own_suite()) if matches(case, chosen.pattern)]
    usual: dict[str, tuple[str, int, tuple[tuple[str, str], ...]]] = {}
    differing = 0
    start = time.monotonic()
    with Pool(chosen.workers) as pool:
        for number, switches in enumerate(all_combinations()):
            results = list(run_jobs(pool, jobs_of(cases, (Mmu.SHADOW,), switches=switches)))
            for result in results:
                name = result.job.case.name
                if usual.setdefault(name, seen(result)) != seen(result):
                    differing += 1
                    print(f"{name} differs with {','.join(sorted(switches))}", flush=True)
            checks = sum(len(result.checks) for result in results)
            print(f"{number + 1}: {','.join(sorted(switches)) or 'none off'}: {len(results)} runs, {checks} checks", flush=True)
    print(f"{len(all_combinations())} combinations, {differing} differences, {time.monotonic() - start:.0f} s")
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
