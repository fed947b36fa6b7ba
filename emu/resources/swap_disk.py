"""The disk that swap areas are on, in virtual time: pages go out one after the other at its speed, and a frame is free when its page is out.

What a VM wants back before that is still in memory, and costs nothing. A page that is out takes `read_insns` to come back: half a millisecond, as for the
guests' own disks (a disk that seldom seeks); such reads go before what is being written.
"""

from __future__ import annotations

from collections import deque
from typing import ClassVar

from emu.config import MICROSECONDS
from emu.units import MIB, PAGE_BYTES

READ_US = 500
BYTES_PER_SECOND = 50 * MIB  # a disk of 2002


class SwapDisk:
    """Times are instructions of the machine's virtual time."""

    WIRING: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, insns_per_second: int) -> None:
        self.read_insns = READ_US * insns_per_second // MICROSECONDS
        self._write_insns = PAGE_BYTES * insns_per_second // BYTES_PER_SECOND
        self._busy_until = 0
        self._queue: deque[tuple[int, int, int, int]] = deque()  # done when, VM number, slot, MPN

    def __len__(self) -> int:
        """Pages under way."""
        return len(self._queue)

    def write(self, now: int, vm: int, slot: int, mpn: int) -> int:
        """A page goes out behind all others; when it will have."""
        self._busy_until = max(self._busy_until, now) + self._write_insns
        self._queue.append((self._busy_until, vm, slot, mpn))
        return self._busy_until

    def finished(self, now: int) -> list[tuple[int, int, int, int]]:
        """(when, VM number, slot, MPN) of what is out by now, each once."""
        done = []
        while self._queue and self._queue[0][0] <= now:
            done.append(self._queue.popleft())
        return done

    def forget(self, vm: int) -> None:
        """A VM has ended: its pages are nobody's."""
        self._queue = deque(item for item in self._queue if item[1] != vm)
