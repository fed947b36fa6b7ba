# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that leave a VM's memory and come back, under random operations.

Twice: beside the model of `test_shadow_model`, whose guest goes on using its tables while they are given away; and against a plain
dictionary of what each page holds.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from emu.config import Mmu
from emu.devices.balloon import CAN_BASIC, CAN_BATCHED, MAGIC, MAX_BATCH, START_WITH_CAPABILITIES, Command, Status
from emu.events import Kind
from emu.machine import control as cbw
from emu.units import PAGE_BYTES
from emu.vm import check, pmap
from emu.vm.balloon_store import BalloonPages
from emu.vm.vm import VirtualMachine
from tests.vm import harness
from tests.vm.test_shadow_model import DIRECTORY_INDEXES, PAGES, TABLE_INDEXES, TABLES, Model, boot, play

EAX, ECX, EBX, ESI = 0, 1, 3, 6
PAGES_HERE = range(0x200, 0x210)  # of RAM that the harness does not use
TABLE = 0x240  # holds the entries of batches
ALL = 1 << 20  # a target that nothing reaches
RAM_STATES = (pmap.UNALLOCATED, pmap.PRESENT_PAGE, pmap.BALLOONED)


class BalloonModel(Model):
    """A guest that gives pages away, its tables among them, and goes on using them."""

    def __init__(self, vm: VirtualMachine, seed: int, *, large: bool = False) -> None:
        self.locks = self.pops = 0
        self.pages = BalloonPages(vm.state.give_back, vm.control, vm.read_physical, vm.write_physical)
        super().__init__(vm, seed, large=large)

    def read(self, pa: int) -> int:
        self.control[cbw.IS_LOOKING] = 1
        word = super().read(pa)
        self.control[cbw.IS_LOOKING] = 0
        return word

    def is_ram(self, ppn: int) -> bool:
        return self.state_of(ppn) in RAM_STATES

    def state_of(self, ppn: int) -> int:
        return int(self.state.pmap[pmap.slot_of(self.control, ppn)]) >> pmap.STATE_SHIFT & pmap.STATE_MASK

    def operate(self) -> None:
        kind = self.rng.choices(("other", "lock", "unlock", "forget", "rebuild"), (75, 10, 5, 2, 8))[0]
        if kind == "other":
            super().operate()
            self.pops += int(self.control[cbw.BALLOON_POPPED])
            return
        if kind == "rebuild":  # a table that was given away is empty: no guest would leave it so
            ppn = self.rng.choice(TABLES)
            for index in {*DIRECTORY_INDEXES, *TABLE_INDEXES}:
                self.device_store(ppn << 12 | index * 4, self.entry().to_bytes(4, "little"))
            return
        ppn = self.rng.choice(PAGES)
        before = self.state_of(ppn)
        free = self.state.memory.frames.free_count
        if kind == "lock":
            status = self.pages.lock(ppn, ALL)
            due = {pmap.BALLOONED: Status.LOCKED_ALREADY}.get(before, Status.SUCCESS if self.is_ram(ppn) else Status.INVALID_PAGE)
            assert status == due
            assert self.state.memory.frames.free_count == free + (status == Status.SUCCESS and before == pmap.PRESENT_PAGE)
            self.locks += status == Status.SUCCESS
        elif kind == "unlock":
            status = self.pages.unlock(ppn)
            assert (status == Status.SUCCESS) == (before == pmap.BALLOONED)
        else:
            self.pages.forget()
            assert not (self.state.pmap >> pmap.STATE_SHIFT & pmap.STATE_MASK == pmap.BALLOONED).any()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("switches", [(), ("no-unsync",), ("no-cache",), ("no-emulate", "no-prefetch")], ids=",".join)
def test_tables_in_the_balloon(seed: int, large: bool, switches: tuple[str, ...]) -> None:
    vm = boot(shadow_switches=frozenset(switches))
    try:
        model = BalloonModel(vm, seed, large=large)
        play(model, 150)
        assert model.locks > 5
        assert model.pops > 0
        assert model.ended["served"] > 10
    finally:
        vm.close()


def call(vm: VirtualMachine, command: int, first: int = 0, second: int = 0) -> int:
    """One call at the port, as the guest's IN makes it."""
    for number, value in ((EAX, MAGIC), (ECX, command), (EBX, first), (ESI, second)):
        vm.registers.set_general(number, value)
    return vm.balloon.read(0x5670, 4)


def batch(vm: VirtualMachine, command: int, pages: list[int]) -> list[int]:
    """A call with a batch; the pages' statuses."""
    vm.write_physical(TABLE * PAGE_BYTES, np.array([page << 12 for page in pages], np.uint64).tobytes())
    assert call(vm, command, TABLE, len(pages)) == Status.SUCCESS
    answered = np.frombuffer(vm.read_physical(TABLE * PAGE_BYTES, 8 * len(pages)), np.uint64)
    assert [int(entry) >> 12 for entry in answered] == pages
    return [int(entry) & 0xFFF for entry in answered]


class Contents:
    """What the guest finds in its pages, and what its driver is told."""

    def __init__(self, vm: VirtualMachine, seed: int) -> None:
        self.vm, self.rng = vm, random.Random(seed)
        self.byte = dict.fromkeys(PAGES_HERE, 0)  # what the page is full of
        self.locked: set[int] = set()
        self.popped = False
        self.seen: set[str] = set()
        self.begin()

    def begin(self) -> None:
        assert call(self.vm, Command.START, CAN_BASIC | CAN_BATCHED) == START_WITH_CAPABILITIES
        self.locked.clear()
        self.popped = False

    def touch(self, page: int) -> None:
        if page in self.locked:
            self.locked.discard(page)
            self.popped = True
            self.seen.add("pop")

    def due(self, page: int, *, locking: bool) -> Status:
        """What a LOCK or UNLOCK of one page is answered, carried out here."""
        if page not in self.byte:
            return Status.INVALID_PAGE
        if locking == (page in self.locked):
            return Status.LOCKED_ALREADY if locking else Status.NOT_LOCKED
        self.locked ^= {page}
        self.byte[page] = 0
        return Status.SUCCESS

    def operate(self) -> None:
        kind = self.rng.choice(("write", "read", "one", "one", "batch", "poll", "start"))
        page = self.rng.choice(PAGES_HERE)
        if kind == "write":
            self.touch(page)
            self.byte[page] = self.rng.randrange(256)
            self.vm.write_physical(page * PAGE_BYTES, bytes([self.byte[page]]) * PAGE_BYTES)
        elif kind == "read":
            self.touch(page)
            assert self.vm.read_physical(page * PAGE_BYTES, PAGE_BYTES) == bytes([self.byte[page]]) * PAGE_BYTES
        elif kind == "start":
            self.begin()
        elif self.popped:
            assert call(self.vm, self.rng.choice(list(Command)[1:]), page, 1) == Status.RESET
            self.seen.add("reset")
        elif kind == "poll":
            assert call(self.vm, Command.GET_TARGET) == Status.SUCCESS
            assert self.vm.registers.general(EBX) == self.vm.balloon.target
        else:
            self.move(kind)

    def move(self, kind: str) -> None:
        locking = self.rng.random() < 0.6
        choice = [*PAGES_HERE, 0xB8, 0xF0, 0xF_FFF0]
        if kind == "one":
            page = self.rng.choice(choice)
            assert call(self.vm, Command.LOCK if locking else Command.UNLOCK, page) == self.due(page, locking=locking)
            return
        pages = [self.rng.choice(choice) for _ in range(self.rng.randrange(1, 20))]
        wanted = [self.due(page, locking=locking) for page in pages]
        assert batch(self.vm, Command.BATCHED_LOCK if locking else Command.BATCHED_UNLOCK, pages) == wanted
        self.seen.add("batch")


@pytest.mark.parametrize("mmu", list(Mmu))
@pytest.mark.parametrize("seed", range(3))
def test_contents(seed: int, mmu: Mmu) -> None:
    vm, _ = harness.make(harness.assemble("test: PAGING\n EXIT 1").rom, mmu=mmu)
    vm.run(limit=harness.INSN_LIMIT)
    try:
        vm.balloon.set_target(ALL)
        model = Contents(vm, seed)
        for _ in range(250):
            model.operate()
            assert vm.balloon.size == len(model.locked)
            check.check(vm.state)
        assert model.seen == {"pop", "reset", "batch"}
    finally:
        vm.close()


def test_frames_go_back_at_once() -> None:
    vm, _ = harness.make(harness.assemble("test: PAGING\n EXIT 1").rom)
    vm.run(limit=harness.INSN_LIMIT)
    try:
        pages = list(range(0x200, 0x200 + MAX_BATCH))
        for page in pages:
            vm.write_physical(page * PAGE_BYTES, b"secret")
        vm.balloon.set_target(ALL)
        assert call(vm, Command.START, CAN_BASIC | CAN_BATCHED) == START_WITH_CAPABILITIES
        vm.write_physical(0x100 * PAGE_BYTES, np.array([page << 12 for page in pages], np.uint64).tobytes())
        free = vm.state.memory.frames.free_count
        assert call(vm, Command.BATCHED_LOCK, 0x100, MAX_BATCH) == Status.SUCCESS
        assert vm.state.memory.frames.free_count == free + MAX_BATCH
        check.check(vm.state)
        for page in pages:  # fresh zeros, the frames of which were somebody's
            assert vm.read_physical(page * PAGE_BYTES, 6) == bytes(6)
    finally:
        vm.close()


@pytest.mark.parametrize("batched", [0, 1])
def test_a_batch_is_answered_only_when_granted(batched: int) -> None:
    vm, _ = harness.make(harness.assemble("test: PAGING\n EXIT 1").rom)
    vm.run(limit=harness.INSN_LIMIT)
    try:
        vm.balloon.set_target(ALL)
        call(vm, Command.START, CAN_BASIC | CAN_BATCHED * batched)
        vm.write_physical(TABLE * PAGE_BYTES, (0x200 << 12).to_bytes(8, "little"))
        due = Status.SUCCESS if batched else Status.INVALID_COMMAND
        assert call(vm, Command.BATCHED_LOCK, TABLE, 1) == due
        assert vm.balloon.size == batched
    finally:
        vm.close()


NEVER_FAULTS = """
test:
    PAGING
    mov $0x240000, %edi
    mov $0x300000, %eax
    xor %ecx, %ecx
1:  mov %eax, (%edi,%ecx,8)
    movl $0, 4(%edi,%ecx,8)
    add $0x1000, %eax
    inc %ecx
    cmp $128, %ecx
    jb 1b
    mov $0x5670, %edx
    mov $0x456C6D6F, %eax
    xor %ecx, %ecx
    mov $6, %ebx
    in %dx, %eax
    mov $1000, %ebp
2:  mov $6, %ecx
    call 3f
    mov $7, %ecx
    call 3f
    dec %ebp
    jnz 2b
    EXIT 1
3:  mov $0x456C6D6F, %eax
    mov $0x240, %ebx
    mov $128, %esi
    in %dx, %eax
    ret
"""


def test_every_page_has_its_record_though_nothing_exits() -> None:
    """256 records for 20 instructions: more than the ring holds before virtual time next asks for a look at it."""
    vm, seen = harness.make(harness.assemble(NEVER_FAULTS).rom)
    try:
        vm.balloon.set_target(ALL)
        vm.run(limit=5 * harness.INSN_LIMIT)  # a batch takes as long as eight instructions a page
        records = np.concatenate(seen)
        for kind in (Kind.BALLOON_LOCK, Kind.BALLOON_UNLOCK):
            assert np.sum(records["kind"] == kind) == 128_000
        assert np.all(np.diff(records["time"].astype(np.int64)) >= 0)
    finally:
        vm.close()
