# SPDX-License-Identifier: GPL-2.0-or-later
"""The fuzzer: `scripts/fuzz --minutes 5 --seed 1 --engines shadow,nested,plain,qemu`.

Random cases go to each engine in batches. A case on which an engine and the reference part is made small and kept in
`cases/`, where the tests find it. Exit status: 0 nothing found, 1 something found, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.truth import cases, compare, engines, generate, shrink
from tests.truth.cases import Operation
from tests.truth.compare import Difference
from tests.truth.engines import Engine
from tests.truth.mmu import Format

CASES = Path(__file__).resolve().parent / "cases"
BATCH = 400
MAX_KEPT = 5  # of one run and engine: one defect fails many cases
FORMATS = {"32-bit": Format.BITS32, "pae": Format.PAE, "4-level": Format.LONG}


def run_all(engine: Engine, chosen: list[list[Operation]], tally: compare.Tally | None = None) -> list[Difference]:
    """All differences of a batch: a run that ended early goes on behind the case it ended in; what was left out is in `tally`."""
    found: list[Difference] = []
    start = 0
    while start < len(chosen):
        differences = compare.run(engine, chosen[start:], tally)
        found += [Difference(d.engine, d.number + start if d.number >= 0 else -1, d.access, d.text) for d in differences]
        ended = [d.number for d in differences if d.access < 0 and d.ended_run]
        if not ended or ended[-1] < 0:
            break
        start += ended[-1] + 1
    return found


def fails_on(engine: Engine) -> shrink.Fails:
    """Whether candidates fail on an engine."""

    def fails(candidates: list[list[Operation]]) -> list[bool]:
        failed = {difference.number for difference in run_all(engine, candidates)}
        return [number in failed for number in range(len(candidates))]

    return fails


def describe(operations: list[Operation]) -> str:
    """A case to read, with what the reference expects."""
    expected = iter(cases.expectations(operations)[0])
    lines = []
    for operation in operations:
        name, *numbers = operation
        line = f"    {name:7} {' '.join(f'{number:#x}' for number in numbers)}"
        lines.append(f"{line}    -> {next(expected).description}" if name == "access" else line)
    return "\n".join(lines)


def keep(operations: list[Operation], difference: Difference, seed: int) -> Path:
    """Write a case to the folder of kept cases."""
    CASES.mkdir(exist_ok=True)
    path = CASES / f"{difference.engine}-{seed}.json"
    content = {"found": f"{difference.engine}, seed {seed}: {difference.text}", "operations": operations}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="fuzz", description="Compare emu's MMUs, Unicorn and QEMU with a reference MMU.")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to go on (default 1)")
    parser.add_argument("--cases", type=int, default=0, help="how many cases instead of a time")
    parser.add_argument("--seed", type=int, default=None, help="the first case's number (default: from the clock)")
    parser.add_argument("--engines", default=",".join(engines.ENGINES), help="some of: %(default)s")
    parser.add_argument("--formats", default=",".join(FORMATS), help="some of: %(default)s")
    parser.add_argument("--no-keep", action="store_true", help="do not write failing cases to tests/truth/cases")
    chosen = parser.parse_args(argv)
    for option, known in (("engines", engines.ENGINES), ("formats", FORMATS)):
        unknown = [name for name in getattr(chosen, option).split(",") if name not in known]
        if unknown:
            parser.error(f"--{option}: unknown '{unknown[0]}': known are {', '.join(known)}")
    if chosen.minutes <= 0 or chosen.cases < 0 or (chosen.seed is not None and chosen.seed < 0):
        parser.error("--minutes must be positive, --cases and --seed not negative")
    return chosen


def usable(names: list[str]) -> list[Engine]:
    """The engines that are here; says which are not, and why."""
    chosen = []
    for name in names:
        reason = engines.missing(name)
        if reason:
            print(f"fuzz: {name} is skipped: {reason}")
        else:
            chosen.append(engines.ENGINES[name])
    return chosen


class Session:
    """One run of the fuzzer."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.engines = usable(chosen.engines.split(","))
        self.formats = tuple(FORMATS[name] for name in chosen.formats.split(","))
        self.seed = int(time.time()) if chosen.seed is None else chosen.seed
        self.keeps = not chosen.no_keep
        self.cases = chosen.cases
        self.end = time.monotonic() + 60 * chosen.minutes
        self.failures = dict.fromkeys((engine.name for engine in self.engines), 0)
        self.tallies = {engine.name: compare.Tally() for engine in self.engines}
        self.kept: dict[str, int] = {}

    def is_over(self, done: int) -> bool:
        """Whether cases or time are used up."""
        return done >= self.cases if self.cases else time.monotonic() >= self.end

    def run(self) -> int:
        """Go on until the end; the exit status."""
        print(f"fuzz: seed {self.seed}, formats {', '.join(fmt.value for fmt in self.formats)}", flush=True)
        start, done = time.monotonic(), 0
        while self.engines and not self.is_over(done):
            count = min(BATCH, self.cases - done) if self.cases else BATCH
            seeds = range(self.seed + done, self.seed + done + count)
            batch = [generate.make(seed, self.formats) for seed in seeds]
            for engine in self.engines:
                for difference in run_all(engine, batch, self.tallies[engine.name]):
                    self.note(engine, difference, batch, seeds)
            done += count
            rate = 60 * done / (time.monotonic() - start)
            print(f"fuzz: {done} cases, {rate:.0f} a minute: {self.standing()}", flush=True)
        for name, tally in self.tallies.items():
            for reason, count in tally.left_out.most_common():
                print(f"fuzz: {name} left out {count}: {reason}")
        return 1 if any(self.failures.values()) else 0

    def standing(self) -> str:
        """What each engine did so far."""
        return "; ".join(
            f"{name} {tally.compared} compared, {tally.left_out.total()} left out, {self.failures[name]} failed"
            for name, tally in self.tallies.items()
        )

    def note(self, engine: Engine, difference: Difference, batch: list[list[Operation]], seeds: range) -> None:
        """Tell of a difference; make the first few of an engine small and keep them."""
        self.failures[engine.name] += 1
        if difference.number < 0:
            print(f"fuzz: {engine.name}: {difference.text}", flush=True)
            return
        seed = seeds[difference.number]
        if self.kept.get(engine.name, 0) >= MAX_KEPT:
            return
        self.kept[engine.name] = self.kept.get(engine.name, 0) + 1
        small = shrink.shrink(batch[difference.number], fails_on(engine))
        again = run_all(engine, [small])
        print(f"fuzz: {engine.name}, seed {seed}: {(again or [difference])[0].text}\n{describe(small)}", flush=True)
        if self.keeps:
            print(f"fuzz: kept as {keep(small, (again or [difference])[0], seed).name}", flush=True)


def main() -> int:
    """The command."""
    try:
        return Session(arguments(sys.argv[1:])).run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
