# SPDX-License-Identifier: GPL-2.0-or-later
"""The walker of guest page tables against the manual's rules, on random tables."""

from __future__ import annotations

import random

import numpy as np
import pytest

from emu.config import MIN_SHADOW_PAGES, VmConfig
from emu.machine import control as cbw
from emu.machine import paging as pg
from emu.machine.memory import MachineMemory
from emu.units import MIB, MPN, PAGE_BYTES
from emu.vm import pmap, registers, walk
from emu.vm.state import VmState, frames_needed
from tests.vm import reference as ref

PE, PG = 1 << 0, 1 << 31
DIRECTORY, TABLES = 0x10, (0x11, 0x12, 0x13)
ROM, ABSENT, BEYOND, UNTOUCHED = 0xF0, 0xB0, 0x5_0000, 0x200
ACCESSES = [(write, user) for write in (False, True) for user in (False, True)]


class Guest:
    """A VM's memory without a processor: the directory, three tables, and a table in ROM."""

    def __init__(self, rng: random.Random) -> None:
        rom = np.array([self.entry(rng) for _ in range(16 * 1024)], "<u4").tobytes()
        config = VmConfig(memory_bytes=4 * MIB, shadow_pages=MIN_SHADOW_PAGES, nested_tables=4, reserve_frames=64)
        self.memory = MachineMemory(frames_needed(config, len(rom)) * PAGE_BYTES)
        self.state = VmState(self.memory, config, rom, 1)
        self.state.refill()
        self.control = self.state.control
        self.control[cbw.MEMORY] = self.memory.address  # which a Cpu would do
        for ppn in (DIRECTORY, *TABLES):
            assert pmap.frame_of(self.control, ppn) >= 0
            self.page(ppn)[:] = [self.entry(rng) for _ in range(1024)]
        choices = [*TABLES, ROM, ABSENT, BEYOND, UNTOUCHED, DIRECTORY]
        for index in range(1024):
            if rng.random() < 0.8:
                self.page(DIRECTORY)[index] = rng.choice(choices) << 12 | rng.getrandbits(12) | (rng.random() < 0.9)

    @staticmethod
    def entry(rng: random.Random) -> int:
        return rng.getrandbits(32) & ~1 | (rng.random() < 0.85)

    def page(self, ppn: int) -> np.ndarray:
        return self.memory.frame(MPN(int(self.state.pmap[ppn]) & pmap.MPN_MASK)).view("<u4")

    def read(self, pa: int) -> int:
        ppn = pa >> 12
        if ppn == UNTOUCHED:
            return 0
        if ppn in (DIRECTORY, *TABLES) or ROM <= ppn < 0x100:
            return int(self.page(ppn)[(pa & 0xFFF) // 4])
        if 0x10_0000 - 16 <= ppn:  # the ROM's upper copy
            return int(self.page(ppn - 0x10_0000 + 0x100)[(pa & 0xFFF) // 4])
        return 0 if ppn < 0xA0 or 0x100 <= ppn < 0x400 else 0xFFFF_FFFF

    def ram(self) -> np.ndarray:
        return np.concatenate([self.page(ppn) for ppn in (DIRECTORY, *TABLES)])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mark", [False, True])
def test_the_walker_agrees_with_the_manual(seed: int, mark: bool) -> None:
    rng = random.Random(seed)
    guest = Guest(rng)
    outcomes = set()
    for _ in range(1500):
        cr0 = PE | PG | (ref.WP if rng.random() < 0.5 else 0)
        cr4 = ref.PSE if rng.random() < 0.5 else 0
        cr3 = rng.choice([DIRECTORY, DIRECTORY, DIRECTORY, ROM, UNTOUCHED, BEYOND]) << 12 | rng.choice([0, 0x18])
        write, user = rng.choice(ACCESSES)
        va = rng.getrandbits(32)
        guest.control[[cbw.GUEST_CR0, cbw.GUEST_CR3, cbw.GUEST_CR4]] = cr0, cr3, cr4
        registers.derive_paging(guest.control)
        expected = ref.walk(guest.read, cr0, cr3, cr4, va, write=write, user=user)
        memory = {ppn: guest.page(ppn).copy() for ppn in (DIRECTORY, *TABLES)}
        for at, bits in expected.marks if mark else ():
            if at >> 12 in memory:
                memory[at >> 12][(at & 0xFFF) // 4] |= bits
        kind = (pg.FAULT_WRITE if write else 0) | (pg.FAULT_USER if user else 0)
        fault, ppn, access, _size = walk.walk(guest.control, va, kind, mark)
        what = f"va {va:08x} write {write} user {user} cr0 {cr0:08x} cr3 {cr3:08x} cr4 {cr4:x}"
        if expected.code is None:
            assert (fault, ppn, access) == (walk.NO_FAULT, expected.ppn, expected.rights | pg.EXECUTABLE), what
        else:
            assert fault == expected.code, what
        assert np.array_equal(guest.ram(), np.concatenate(list(memory.values()))), what
        outcomes.add(expected.code)
    assert {None, 0, 2, 3, 4, 5, 6, 7, 9} <= outcomes  # the tables are random enough to meet every kind


def test_without_paging_every_access_is_permitted() -> None:
    guest = Guest(random.Random(0))
    guest.control[cbw.GUEST_CR0] = PE
    registers.derive_paging(guest.control)
    for write, user in ACCESSES:
        kind = (pg.FAULT_WRITE if write else 0) | (pg.FAULT_USER if user else 0)
        fault, ppn, access, size = walk.walk(guest.control, 0x1234_5678, kind, True)
        assert (fault, ppn, size) == (walk.NO_FAULT, 0x12345, 0)
        assert access == ref.W | ref.U | ref.D | pg.EXECUTABLE
