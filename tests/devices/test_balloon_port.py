# SPDX-License-Identifier: GPL-2.0-or-later
"""The balloon's port alone, over pages that are a set of numbers: what is answered, told and counted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from emu.devices import balloon as b
from emu.devices.balloon import Balloon, Command, Status

PAGES = 100
SECOND = 1000  # instructions


class Bench:
    """A port with its clock, registers and pages, each as simple as can be."""

    def __init__(self) -> None:
        self.time = 0
        self.values: dict[int, int] = {}
        self.locked: set[int] = set()
        self.batches: list[list[int]] = []  # PPNs of the next ones
        self.is_popped = False
        self.insns_taken = 0
        self.port = Balloon(self, SECOND, self, self, self.take)

    # clock and registers

    def take(self, insns: int) -> None:
        self.insns_taken += insns

    def now(self) -> int:
        return self.time

    def general(self, number: int) -> int:
        return self.values.get(number, 0)

    def set_general(self, number: int, value: int) -> None:
        self.values[number] = value

    # pages

    @property
    def total_pages(self) -> int:
        return PAGES

    @property
    def locked_pages(self) -> int:
        return len(self.locked)

    def lock(self, ppn: int, target: int) -> int:
        if ppn >= PAGES:
            return Status.INVALID_PAGE
        if ppn in self.locked:
            return Status.LOCKED_ALREADY
        if len(self.locked) >= target:
            return Status.NOT_NEEDED
        self.locked.add(ppn)
        return Status.SUCCESS

    def unlock(self, ppn: int) -> int:
        if ppn not in self.locked:
            return Status.NOT_LOCKED
        self.locked.remove(ppn)
        return Status.SUCCESS

    def batch(self, table_ppn: int, count: int, target: int, *, locking: bool) -> tuple[int, Sequence[int]]:
        if table_ppn >= PAGES:
            return Status.INVALID_PAGE, ()
        ppns = self.batches.pop()[:count]
        return Status.SUCCESS, [self.lock(ppn, target) if locking else self.unlock(ppn) for ppn in ppns]

    def take_pop(self) -> bool:
        return self.is_popped

    def forget(self) -> None:
        self.locked.clear()
        self.is_popped = False

    def call(self, command: int, first: int = 0, second: int = 0) -> int:
        """A call as a driver makes it."""
        self.values = {b.EAX: b.MAGIC, b.ECX: command, b.EBX: first, b.ESI: second}
        return self.port.read(b.PORT, 4)

    def start(self, capabilities: int = b.OFFERED) -> int:
        return self.call(Command.START, capabilities)


def test_without_the_magic_or_the_width_nobody_is_there() -> None:
    bench = Bench()
    bench.values = {b.EAX: b.MAGIC ^ 1}
    assert bench.port.read(b.PORT, 4) == 0xFFFF_FFFF
    bench.values = {b.EAX: b.MAGIC}
    assert (bench.port.read(b.PORT, 1), bench.port.read(b.PORT, 2)) == (0xFF, 0xFFFF)
    assert bench.port.counts.calls == 0


@pytest.mark.parametrize(
    ("asked", "answer", "granted"),
    [
        (0, Status.SUCCESS, None),
        (2, Status.SUCCESS, None),
        (4, b.START_WITH_CAPABILITIES, 4),
        (0x1E, b.START_WITH_CAPABILITIES, 6),
    ],
)
def test_capabilities(asked: int, answer: int, granted: int | None) -> None:
    bench = Bench()
    assert bench.start(asked) == answer
    assert bench.values[b.ECX] == (Command.START if granted is None else granted)


@pytest.mark.parametrize("command", [c for c in Command if c is not Command.START])
def test_nothing_goes_before_start(command: Command) -> None:
    bench = Bench()
    assert bench.call(command, 1, 1) == Status.RESET
    assert (bench.port.state(), bench.port.counts.refused) == ("absent", {"reset": 1})


def test_only_success_tells_the_target() -> None:
    bench = Bench()
    bench.start()
    bench.port.set_target(1)
    answers = [bench.call(*call) for call in ((Command.GET_TARGET,), (Command.LOCK, 7), (Command.LOCK, 8), (Command.UNLOCK, 7))]
    assert answers == [Status.SUCCESS, Status.SUCCESS, Status.NOT_NEEDED, Status.SUCCESS]
    assert bench.call(Command.LOCK, PAGES) == Status.INVALID_PAGE
    assert bench.values[b.EBX] == PAGES  # as the guest had it
    assert bench.port.counts.refused == {"not_needed": 1, "invalid_page": 1}


def test_refused_pages_of_a_batch_are_counted_by_status() -> None:
    bench = Bench()
    bench.start()
    bench.port.set_target(2)
    bench.batches = [[1, 50, 1], [1, 1, PAGES, 2, 3]]
    assert bench.call(Command.BATCHED_LOCK, 9, 5) == Status.SUCCESS
    assert bench.values[b.EBX] == 2
    assert bench.call(Command.BATCHED_UNLOCK, 9, 3) == Status.SUCCESS
    assert bench.port.counts.refused == {"locked_already": 1, "invalid_page": 1, "not_needed": 1, "not_locked": 2}
    assert (bench.port.counts.locks, bench.port.counts.unlocks) == (2, 1)


@pytest.mark.parametrize("count", [0, b.MAX_BATCH + 1, 0xFFFF_FFFF])
def test_batches_that_cannot_be(count: int) -> None:
    bench = Bench()
    bench.start()
    assert bench.call(Command.BATCHED_LOCK, 9, count) == Status.INVALID_COMMAND
    bench.start(b.CAN_BASIC)
    assert bench.call(Command.BATCHED_LOCK, 9, 1) == Status.INVALID_COMMAND


def test_a_pop_resets_until_the_next_start() -> None:
    bench = Bench()
    bench.start()
    bench.port.set_target(5)
    bench.call(Command.LOCK, 3)
    bench.is_popped = True
    assert [bench.call(Command.GET_TARGET) for _ in range(2)] == [Status.RESET] * 2
    assert (bench.port.state(), bench.port.counts.pops) == ("reset", 1)
    bench.start()
    assert (bench.port.size, bench.call(Command.GET_TARGET), bench.values[b.EBX]) == (0, Status.SUCCESS, 5)


def test_states_of_a_driver() -> None:
    bench = Bench()
    seen = [bench.port.state()]
    bench.start()
    bench.port.set_target(3)
    seen.append(bench.port.state())

    def later(seconds: int, *calls: tuple[int, ...]) -> None:
        bench.time += seconds * SECOND
        for call in calls:
            bench.call(*call)
        seen.append(bench.port.state())

    later(4, (Command.LOCK, 1))
    later(6, (Command.UNLOCK, 99))  # it calls, but did not ask for its target
    later(1, (Command.GET_TARGET,), (Command.LOCK, 2))
    later(11, (Command.GET_TARGET,))
    later(1, (Command.LOCK, 3))
    bench.port.set_target(1)
    later(1, (Command.GET_TARGET,))
    assert seen == ["absent", "inflating", "inflating", "silent", "slow", "stuck", "at target", "deflating"]


def test_no_target_is_more_than_the_guest_has() -> None:
    bench = Bench()
    bench.port.set_target(PAGES + 1)
    assert bench.port.target == PAGES


def test_a_batch_takes_time_by_its_size() -> None:
    """A refused one does not."""
    bench = Bench()
    bench.start()
    bench.port.set_target(8)
    bench.batches = [[1, 2, 3]]
    bench.call(Command.BATCHED_LOCK, 0, 3)
    bench.call(Command.BATCHED_LOCK, 0, b.MAX_BATCH + 1)
    assert bench.insns_taken == 3 * b.PAGE_INSNS
