"""Free states: how short the machine is of memory, and what is done about it (Waldspurger 2002, section 6.3).

    high (6 %)  nothing        soft (4 %)  balloons        hard (2 %)  paging too        low (1 %)  VMs above their target wait too

Downwards the state changes when less is free than the lower state's mark; upwards only when free memory is clearly above the higher state's, so that it
does not go to and fro. (How clearly, the paper leaves open.)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from emu.saving import as_value

MARGIN = 0.1  # of a mark: so much more than it must be free before the state is left upwards


@as_value
class FreeState(IntEnum):
    """From plenty to none."""

    HIGH = 0
    SOFT = 1
    HARD = 2
    LOW = 3

    @property
    def balloons(self) -> bool:
        """Whether VMs above their target are made to give memory up."""
        return self >= FreeState.SOFT

    @property
    def pages(self) -> bool:
        """Whether pages are written to swap where that is not enough."""
        return self >= FreeState.HARD

    @property
    def blocks(self) -> bool:
        """Whether VMs above their target wait."""
        return self >= FreeState.LOW


@dataclass(frozen=True)
class Marks:
    """Shares of the machine's memory that are free at least, in each state but the last."""

    high: float = 0.06
    soft: float = 0.04
    hard: float = 0.02
    low: float = 0.01


def next_state(now: FreeState, free: float, marks: Marks) -> FreeState:
    """The state when a share `free` of the machine's memory is free."""
    reached = {FreeState.HIGH: marks.high, FreeState.SOFT: marks.soft, FreeState.HARD: marks.hard, FreeState.LOW: marks.low}
    for better in list(FreeState)[:now]:
        if free >= reached[better] * (1 + MARGIN):
            return better
    while now < FreeState.LOW and free < reached[FreeState(now + 1)]:
        now = FreeState(now + 1)
    return now
