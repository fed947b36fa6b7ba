"""VMware's balloon port: a guest's driver gives pages of its memory back to the machine and takes them again (Waldspurger 2002, section 3.2).

A call is a 32-bit IN from port 5670 with EAX = MAGIC, ECX = a command, EBX and ESI its arguments; the status comes back in EAX, EBX has the
target after GET_TARGET and every successful LOCK and UNLOCK. Anything else reads as an absent port. The interface is the one that Linux's
vmw_balloon speaks; what happens to the pages is the VM's affair (`PageStore`).

    absent --START--> working --a locked page is touched--> popped: every call answers RESET --START--> working
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, Protocol

from emu.devices.clock import Clock

PORT = 0x5670
MAGIC = 0x456C_6D6F
ABSENT = 0xFFFF_FFFF  # what an absent port reads as; as a status: failure
MAX_BATCH = 512
CAN_BASIC, CAN_BATCHED = 1 << 1, 1 << 2
OFFERED = CAN_BASIC | CAN_BATCHED
START_WITH_CAPABILITIES = 0x0300_0000
EAX, ECX, EDX, EBX, ESI = 0, 1, 2, 3, 6  # numbers of registers in instructions
PAGE_INSNS = 8  # virtual time of a page in a batch: a call of one page costs the driver more
SILENT_SECONDS = 5  # of virtual time in which the driver did not learn its target: it polls each second
SLOW_SECONDS = 10  # the target not reached for so long: slow if pages still move, stuck if none does


class Command(IntEnum):
    """What a driver asks for."""

    START = 0
    GET_TARGET = 1
    LOCK = 2
    UNLOCK = 3
    GUEST_ID = 4
    BATCHED_LOCK = 6
    BATCHED_UNLOCK = 7


class Status(IntEnum):
    """What it is told, for a call or a page."""

    SUCCESS = 0
    INVALID_COMMAND = 1
    INVALID_PAGE = 2
    LOCKED_ALREADY = 3
    NOT_LOCKED = 4
    PINNED = 5
    NOT_NEEDED = 6
    RESET = 7
    BUSY = 8


class Registers(Protocol):
    """The guest's general registers, 32 bits of each."""

    def general(self, number: int) -> int:
        """Read one."""

    def set_general(self, number: int, value: int) -> None:
        """Write one."""


class PageStore(Protocol):
    """The VM's side: pages that leave its memory and come back."""

    @property
    def total_pages(self) -> int:
        """Of RAM."""

    @property
    def locked_pages(self) -> int:
        """Pages in the balloon now."""

    def lock(self, ppn: int, target: int) -> int:
        """Take a page away; a `Status`."""

    def unlock(self, ppn: int) -> int:
        """Let a page be memory again, zeros at its first touch; a `Status`."""

    def batch(self, table_ppn: int, count: int, target: int, *, locking: bool) -> tuple[int, Sequence[int]]:
        """The same for each entry of a page, with the entries' statuses put there; the `Status` of the call, and those of the pages."""

    def take_pop(self) -> bool:
        """Whether the guest touched a locked page since the last `forget`."""

    def forget(self) -> None:
        """All locked pages are memory again."""


@dataclass
class BalloonCounts:
    """What the balloon did, for the summary."""

    WIRING: ClassVar[frozenset[str]] = frozenset()

    calls: int = 0
    starts: int = 0
    locks: int = 0  # pages
    unlocks: int = 0  # pages
    pops: int = 0  # locked pages that the guest touched, as calls learned of it
    refused: Counter[str] = field(default_factory=Counter)  # calls, and pages of batches, by name of their status
    last_call: int = -1  # virtual time in instructions, -1 never
    last_told: int = -1  # of an answer with the target
    last_move: int = -1  # of a page


class Balloon:
    """The port."""

    WIRING: ClassVar = frozenset({"_clock", "_took", "_registers", "_pages"})

    def __init__(
        self, clock: Clock, insns_per_second: int, registers: Registers, pages: PageStore, took: Callable[[int], None]
    ) -> None:
        """`took` hears of virtual time for which the guest waits."""
        self._clock, self._rate, self._took = clock, insns_per_second, took
        self._registers, self._pages = registers, pages
        self.target = 0  # pages, what the driver is told
        self.target_since = 0  # virtual time
        self.counts = BalloonCounts()
        self._is_started = False
        self._started_at = 0  # virtual time
        self._granted = 0  # capabilities since START

    def reset(self) -> None:
        """Power on: no driver yet."""
        self._is_started = False
        self._pages.forget()

    def set_target(self, pages: int) -> None:
        """What the driver shall give from its next poll on; never more than there is."""
        self.target = min(pages, self._pages.total_pages)
        self.target_since = self._clock.now()

    @property
    def size(self) -> int:
        """Pages in the balloon."""
        return self._pages.locked_pages

    def state(self) -> str:
        """A word for what the driver is doing, as far as the port can tell."""
        now = self._clock.now()
        if not self._is_started:
            return "reset" if self.counts.starts else "absent"
        if now - max(self.counts.last_told, self._started_at) > SILENT_SECONDS * self._rate:
            return "silent"  # it may call, but does not ask what it shall do
        if self.size == self.target:
            return "at target"
        if now - max(self.counts.last_move, self.target_since) > SLOW_SECONDS * self._rate:
            return "stuck"
        if now - self.target_since > SLOW_SECONDS * self._rate:
            return "slow"
        return "inflating" if self.size < self.target else "deflating"

    def read(self, _port: int, size: int) -> int:
        """IN: a call, if EAX says so."""
        if size != 4 or self._registers.general(EAX) != MAGIC:
            return ABSENT >> 8 * (4 - size)
        self.counts.calls += 1
        self.counts.last_call = self._clock.now()
        status = self._call(self._registers.general(ECX), self._registers.general(EBX), self._registers.general(ESI))
        if status != START_WITH_CAPABILITIES:
            self._count_refused((status,))
        return status

    def _count_refused(self, statuses: Iterable[int]) -> None:
        self.counts.refused.update(Status(status).name.lower() for status in statuses if status != Status.SUCCESS)

    def write(self, _port: int, _size: int, _value: int) -> None:
        """OUT: nobody listens."""

    def _call(self, command: int, first: int, second: int) -> int:
        if command == Command.START:
            return self._start(first)
        if self._pages.take_pop() and self._is_started:
            self.counts.pops += 1
            self._is_started = False
        if not self._is_started:
            return Status.RESET
        if command == Command.GUEST_ID:
            return Status.SUCCESS
        if command == Command.GET_TARGET:
            self._tell_target()
            return Status.SUCCESS
        if command in (Command.LOCK, Command.UNLOCK):
            return self._one(first, locking=command == Command.LOCK)
        if command in (Command.BATCHED_LOCK, Command.BATCHED_UNLOCK):
            return self._batch(first, second, locking=command == Command.BATCHED_LOCK)
        return Status.INVALID_COMMAND

    def _start(self, capabilities: int) -> int:
        self._pages.forget()
        self.counts.starts += 1
        self._is_started = True
        self._started_at = self._clock.now()
        self._granted = capabilities & OFFERED
        if not self._granted & CAN_BATCHED:
            return Status.SUCCESS
        self._registers.set_general(ECX, self._granted)
        return START_WITH_CAPABILITIES

    def _tell_target(self) -> None:
        self.counts.last_told = self._clock.now()
        self._registers.set_general(EBX, self.target)

    def _moved(self, before: int) -> None:
        change = self.size - before
        self.counts.locks += max(change, 0)
        self.counts.unlocks += max(-change, 0)
        if change:
            self.counts.last_move = self._clock.now()

    def _one(self, ppn: int, *, locking: bool) -> int:
        before = self.size
        status = self._pages.lock(ppn, self.target) if locking else self._pages.unlock(ppn)
        self._moved(before)
        if status == Status.SUCCESS:
            self._tell_target()
        return status

    def _batch(self, table: int, count: int, *, locking: bool) -> int:
        if not self._granted & CAN_BATCHED or not 0 < count <= MAX_BATCH:
            return Status.INVALID_COMMAND
        before = self.size
        self._took(count * PAGE_INSNS)
        status, of_pages = self._pages.batch(table, count, self.target, locking=locking)
        self._moved(before)
        self._count_refused(of_pages)
        if status == Status.SUCCESS:
            self._tell_target()
        return status
