# SPDX-License-Identifier: GPL-2.0-or-later
"""Hostile guests by the thousand: `scripts/hostile --count 2000 --seed 1`.

Each mode and MMU gets the guests of `count` seeds. All are run, in worker processes; what failed is told by kind, with a guest to see it
by, which `--keep FOLDER` writes as an image for `emu boot`. Exit status: 0 all ended as guests end, 1 not, 2 wrong arguments.
Guests that the engine aborts on are counted, and are no failure: `docs/engine.md` tells of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

from emu.config import Mmu
from emu.suite.pool import Lost, Pool
from tests.hostile import images
from tests.hostile.run import MEMORY_BYTES, Guest, Ran, run

ENGINE_ABORTS = "the engine aborts"
ABORT_STATUS = "status 70"  # of a worker, by `emu.machine.crash`
SHOWN = 3  # guests of a kind
SLOWEST = 5
PROGRESS = 500  # guests


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="hostile", description="Run made-up hostile guests and look whether emu stays whole.")
    parser.add_argument("--count", type=int, default=100, help="guests of each mode and MMU (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the first one's number (default %(default)s)")
    parser.add_argument("--modes", default=",".join(images.MODES), help="some of: %(default)s")
    parser.add_argument("--mmus", default=",".join(Mmu), help="some of: %(default)s")
    parser.add_argument("-j", type=int, default=os.cpu_count() or 1, dest="workers", help="processes at once")
    parser.add_argument("--keep", type=Path, default=None, metavar="FOLDER", help="write the images of failures there")
    chosen = parser.parse_args(argv)
    for option, known in (("modes", images.MODES), ("mmus", tuple(Mmu))):
        unknown = [name for name in getattr(chosen, option).split(",") if name not in known]
        if unknown:
            parser.error(f"--{option}: unknown '{unknown[0]}': known are {', '.join(known)}")
    if chosen.count < 1 or chosen.seed < 0 or chosen.workers < 1:
        parser.error("--count and -j must be positive, --seed not negative")
    return chosen


def all_guests(chosen: argparse.Namespace) -> list[Guest]:
    """Seed by seed, so that a run that is cut short has seen every mode."""
    return [
        Guest(mode, seed, mmu)
        for seed in range(chosen.seed, chosen.seed + chosen.count)
        for mode in chosen.modes.split(",")
        for mmu in chosen.mmus.split(",")
    ]


def outcome(guest: Guest, result: object) -> Ran:
    """What became of a guest, also where its process ended."""
    if isinstance(result, Ran):
        return result
    words = str(result)
    if isinstance(result, Lost) and ABORT_STATUS in words:
        return Ran(guest, ENGINE_ABORTS, words)
    return Ran(guest, f"lost: {words[:80]}", words)


class Report:
    """What became of all of them."""

    def __init__(self, keep: Path | None) -> None:
        self.keep = keep
        self.kinds: Counter[tuple[str, str]] = Counter()  # (mode, how it ended)
        self.failures: dict[str, list[Ran]] = {}
        self.aborts: list[Ran] = []
        self.ran: list[Ran] = []

    def note(self, ran: Ran) -> None:
        """One more."""
        self.kinds[ran.guest.mode, ran.kind] += 1
        self.ran.append(ran)
        if ran.kind == ENGINE_ABORTS:
            self.aborts.append(ran)
        elif ran.failure:
            known = self.failures.setdefault(ran.kind, [])
            known.append(ran)
            if len(known) <= SHOWN:
                self.write(ran)
                print(f"hostile: {ran.guest.name}: {ran.failure}", flush=True)

    def write(self, ran: Ran) -> None:
        """Its image, if images are kept."""
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
            (self.keep / f"{ran.guest.mode}-{ran.guest.mmu}-{ran.guest.seed}.bin").write_bytes(
                images.make(ran.guest.mode, ran.guest.seed)
            )

    def show(self) -> None:
        """The sums."""
        for (mode, kind), count in sorted(self.kinds.items()):
            print(f"hostile: {mode}: {count} {kind}")
        for ran in self.aborts:
            print(f"hostile: the engine aborts: {ran.guest.name}: {ran.failure}")
        for ran in sorted(self.ran, key=lambda ran: -ran.seconds)[:SLOWEST]:
            print(f"hostile: slow: {ran.guest.name}: {ran.seconds:.2f} s for {ran.time:,} of virtual time")
        for kind, found in self.failures.items():
            guests = ", ".join(ran.guest.name for ran in found[:SHOWN])
            print(f"hostile: failed: {len(found)} {kind}: {guests}")


def main() -> int:
    """The command."""
    chosen = arguments(sys.argv[1:])
    report, guests = Report(chosen.keep), all_guests(chosen)
    try:
        with Pool(chosen.workers) as pool:
            for number, (guest, result) in enumerate(pool.map(run, guests), 1):
                report.note(outcome(guest, result))
                if number % PROGRESS == 0:
                    print(f"hostile: {number} of {len(guests)}, {sum(map(len, report.failures.values()))} failed", flush=True)
    except KeyboardInterrupt:
        report.show()
        return 130
    report.show()
    print(f"hostile: see one with: emu boot IMAGE --memory {MEMORY_BYTES >> 20}M --disk memory:1M --mmu MMU")
    return 1 if report.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
