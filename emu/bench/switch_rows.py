"""What each optimization of the shadow MMU is worth: a loop of the bench guest without it, beside the same loop with it.

The loop is the one that the optimization is for; elsewhere it may be worth nothing. Where another optimization keeps it from having
anything to do, that one is off on both sides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from emu.bench.harness import Row, run_here, seconds_each
from emu.config import VmConfig

MICRO = 1e6
PEER = "with it"


@dataclass(frozen=True)
class Loop:
    """A mode of the bench guest, the two lengths whose difference is measured, and what is off on both sides."""

    mode: str
    few: int
    many: int
    off: tuple[str, ...] = ()


LOOPS = {
    "no-cache": Loop("cr3", 200, 2_200),
    "no-unsync": Loop("ptebulk", 2, 22),
    "no-prefetch": Loop("cr3", 200, 2_200, ("no-cache",)),
    "no-update": Loop("ptestore", 1_000, 21_000, ("no-unsync", "no-flood", "no-prefetch")),
    "no-flood": Loop("fork", 20, 220),
    "no-emulate": Loop("ptestore", 1_000, 21_000, ("no-unsync", "no-flood")),
}


def without(switch: str) -> Row:
    """A row for one switch, in us a round of its loop."""
    loop = LOOPS[switch]

    def measure(switches: frozenset[str]) -> float:
        config = VmConfig(shadow_switches=switches)
        return seconds_each(lambda append: run_here(append, config), loop.mode, loop.few, loop.many) * MICRO

    off = frozenset(loop.off)
    note = f"mode={loop.mode}" + (f", {','.join(loop.off)}" if loop.off else "")
    return Row(switch, measure(off | {switch}), "us", PEER, measure(off), note)


SWITCH_BENCHMARKS: dict[str, Callable[[], Row]] = {switch: functools.partial(without, switch) for switch in LOOPS}
