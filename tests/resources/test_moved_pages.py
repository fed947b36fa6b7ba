# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that get another frame, or lose theirs, where somebody is about to look at them: devices in the middle of a block, transfers without a frame to spare."""

from __future__ import annotations

import numpy as np
import pytest

from emu.config import Mmu
from emu.devices.guest_memory import Extent
from emu.events import Outcome
from emu.host.hosted import HostedVm
from emu.machine import control as cbw
from emu.machine.memory import FrameUse
from emu.units import PAGE_BYTES
from emu.vm import pmap, tables
from tests.resources.rig import Rig, state_of
from tests.vm import harness

FIRST, SECOND = 0x301, 0x302
STEP = 0x5000
WAIT = f"movl $1, {STEP:#x}\n 1: cmpl $2, {STEP:#x}\n jne 1b\n"
mmus = pytest.mark.parametrize("mmu", list(Mmu))


def begin(rig: Rig, source: str, mmu: Mmu = Mmu.SHADOW) -> HostedVm:
    """A VM that waits at WAIT."""
    vm = rig.start(1, harness.assemble(source).rom, mmu=mmu)
    rig.run(vm, lambda: vm.vm.read_physical(STEP, 1) == b"\1", insns=20_000)
    return vm


def finish(vm: HostedVm, insns: int = 20_000) -> None:
    vm.vm.write_physical(STEP, b"\2")
    vm.vm.run_until(vm.vm.virtual_time + insns)
    assert vm.vm.last_stop is not None
    assert (vm.vm.last_stop.outcome, vm.vm.last_stop.value) == (Outcome.EXITED, 1)


def word(vm: HostedVm, pa: int) -> int:
    return int.from_bytes(vm.vm.read_physical(pa, 4), "little")


@mmus
@pytest.mark.parametrize("paging", ["", "PAGING"])
def test_a_device_stores_to_a_shared_page_within_a_block(mmu: Mmu, paging: str) -> None:
    """The transfer's status goes into the record's own page, which gets a frame of its own with it; the guest looks at once."""
    record = "movl $0x04000000, {0:#x}; movl $0, {0:#x} + 4; movl $0, {0:#x} + 8; movl $0, {0:#x} + 12\n"
    rig = Rig()
    vm = begin(
        rig,
        f"""
    test:
        {paging}
        {record.format(FIRST << 12)}
        {record.format(SECOND << 12)}
        {WAIT}
        movl {FIRST << 12:#x}, %ebx
        movl $0x00103000, %eax  /* its address, with the bytes in the other order */
        movw $0x518, %dx
        outl %eax, %dx
        movl {FIRST << 12:#x}, %ecx
        movl %ebx, 0x6000
        movl %ecx, 0x6004
        EXIT 1
    """,
        mmu,
    )
    rig.share_all()
    assert state_of(vm, FIRST) == state_of(vm, SECOND) == pmap.SHARED
    finish(vm)
    assert (word(vm, 0x6000), word(vm, 0x6004)) == (0x04000000, 0)
    rig.check()
    rig.close()


@pytest.mark.parametrize("how", ["views", "bytes"])
def test_a_device_loads_swapped_pages_when_no_frame_is_left(how: str) -> None:
    """It gets their contents, for which frames are fetched, and not zeros."""
    rig = Rig()
    vm = begin(rig, f"test: {WAIT} EXIT 1")
    pages = range(0x300, 0x308)
    for page in pages:
        vm.vm.write_physical(page << 12, bytes([page & 0xFF]) * PAGE_BYTES)
        assert rig.page_out(vm, page)
    state = vm.vm.state
    spare = state.reserve[: int(state.control[cbw.RESERVE_COUNT])].copy()
    rig.memory.release(spare)
    state.control[cbw.RESERVE_COUNT] = 0
    if how == "views":
        seen = b"".join(bytes(view) for view in vm.vm.views_to_load([Extent(0x300 << 12, 8 * PAGE_BYTES)]))
    else:
        seen = vm.vm.read_physical(0x300 << 12, 8 * PAGE_BYTES)
    assert seen == b"".join(bytes([page & 0xFF]) * PAGE_BYTES for page in pages)
    rig.check()
    finish(vm)
    rig.close()


@pytest.mark.parametrize(
    ("enter", "linear"),
    [
        ("PAGING\n movl $0x10, %eax; movl %eax, %cr4; movl $0x87, DIRECTORY + 4", 0x50_1000),
        ("PAE_PAGING\n movl $0x200087, WIDE_DIRECTORY + 16", 0x50_1000),
        ("LONG_MODE\n movl $0x87, POINTERS + 8", 0x4030_1000),
    ],
    ids=["32-bit", "pae", "long"],
)
def test_the_first_page_of_a_large_page_is_shared(enter: str, linear: int) -> None:
    """Shadow pages of a large page are listed under its first page, which is no table for that."""
    first = 0x200 if enter.startswith("PAE") else 0
    rig = Rig()
    vm = begin(
        rig,
        f"""
    test:
        {enter}
        movl $0x11111111, {linear:#x}
        {WAIT}
        movl {linear:#x}, %eax
        movl %eax, 0x6000
        EXIT 1
    """,
    )
    state = vm.vm.state
    assert state.tables[first]
    assert not [part for part in tables.ranges(state) if part.ppn <= first < part.ppn + part.pages and "table" in part.state]
    for page in (first, SECOND):
        vm.vm.write_physical(page << 12, b"\5" * PAGE_BYTES)
    rig.share_all()
    assert state_of(vm, first) == state_of(vm, SECOND) == pmap.SHARED
    rig.check()
    finish(vm)
    assert word(vm, 0x6000) == 0x11111111
    rig.close()


def test_msr_exits_do_not_depend_on_machine_memory() -> None:
    """A VM that starts where others ended finds no trace of them: not even its MSR exits depend on what machine memory holds."""
    source = """
    test:
        movl $0xC0000080, %ecx
        rdmsr
        movl %eax, 0x6000
        EXPECT 1f
        movl $0xC0010117, %ecx
        rdmsr
    1:  EXPECT 2f
        movl $0xC0010117, %ecx
        wrmsr
    2:  movl NOTES_USED, %eax
        movl %eax, 0x6004
        EXIT 1
    """
    rig = Rig()
    filler = rig.memory.allocate(64, 7, FrameUse.VMM)  # the machine's first frames, zeroed
    vm = rig.start(1, harness.assemble(source).rom)
    vm.vm.run_until(20_000)
    assert vm.vm.last_stop is not None
    assert vm.vm.last_stop.outcome is Outcome.EXITED
    assert word(vm, 0x6000) == 0
    assert word(vm, 0x6004) - harness.NOTES == 2 * 4 * harness.NOTE_WORDS
    rig.check()
    rig.memory.release(np.asarray(filler))
    rig.close()


def test_an_event_s_frame_is_a_touch() -> None:
    """The stack of an interrupt handler is used when its frame is pushed."""
    rig = Rig()
    vm = begin(
        rig,
        f"""
    test:
        PAGING
        movl $0x301800, %esp
        movl $7, -4(%esp)
        movl $TABLE, %ebx
        {WAIT}
        EXPECT 2f
        int $0x40
    2:  movl %esp, 0x6000
        EXIT 1
    """,
    )
    rig.watch(vm, FIRST)
    assert vm.vm.state.watched[FIRST] == pmap.WAITING
    finish(vm)
    assert vm.vm.state.watched[FIRST] == pmap.TOUCHED
    rig.check()
    rig.close()
