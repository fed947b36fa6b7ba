"""Virtual time as devices see it, and exact conversions to the ticks of their own clocks."""

from __future__ import annotations

from typing import Protocol

NEVER = 1 << 62  # a virtual time that does not come


class Clock(Protocol):
    """Whoever keeps virtual time."""

    def now(self) -> int:
        """Virtual time in retired guest instructions."""


def ticks_at(now: int, hertz: int, insns_per_second: int) -> int:
    """Whole ticks of a clock of `hertz` since virtual time 0."""
    return now * hertz // insns_per_second


def time_of_tick(tick: int, hertz: int, insns_per_second: int) -> int:
    """The first virtual time at which `ticks_at` gives `tick`."""
    return -(-tick * insns_per_second // hertz)
