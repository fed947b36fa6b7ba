# SPDX-License-Identifier: GPL-2.0-or-later
"""Bus masters in guest memory: views of machine frames, and pages that are none of their business.

That page tables and code which a drive writes are followed is in the suite (`guests/suite/disk.c`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from emu import images
from emu.config import Mmu, VmConfig
from emu.devices.guest_memory import Extent
from emu.units import MIB, PAGE_BYTES
from emu.vm import check, launch, pieces, pmap
from emu.vm.vm import VirtualMachine

MEMORY_BYTES = 8 * MIB
SCRATCH = 4 * MIB  # what no guest here touches
ROM, VIDEO, ABSENT = 0xF_0000, 0xA_0000, 0x8000_0000


def machine(mmu: Mmu = Mmu.SHADOW, guest: str = "paging", reserve_frames: int = 512) -> VirtualMachine:
    config = VmConfig(memory_bytes=MEMORY_BYTES, mmu=mmu, reserve_frames=reserve_frames)
    files = launch.boot_files(launch.Boot(images.guest(guest)), MEMORY_BYTES)
    return launch.new_machine(config, files, launch.RecordingConsole())


@pytest.fixture(params=list(Mmu))
def vm(request: pytest.FixtureRequest) -> Iterator[VirtualMachine]:
    it = machine(request.param)
    it.run_until(300_000)
    yield it
    check.check(it.state)
    it.close()


def store(vm: VirtualMachine, data: bytes, *extents: Extent) -> int:
    """Store by views; returns how many there were."""
    landing = vm.views_to_store(extents)
    left = data
    for view in landing.views:
        view[:] = left[: len(view)]
        left = left[len(view) :]
    assert not left
    landing.settle()
    return len(landing.views)


def load(vm: VirtualMachine, *extents: Extent) -> bytes:
    return b"".join(vm.views_to_load(extents))


def test_pages_that_got_their_frames_in_order_are_one_view(vm: VirtualMachine) -> None:
    data = random.Random(1).randbytes(MIB)
    assert store(vm, data, Extent(SCRATCH + 100, MIB)) <= 2
    assert load(vm, Extent(SCRATCH + 100, MIB)) == data == vm.read_physical(SCRATCH + 100, MIB)
    assert len(vm.views_to_load([Extent(SCRATCH + 100, MIB)])) <= 2


def test_views_are_the_machine_s_frames(vm: VirtualMachine) -> None:
    """No copy lies between: a change of the guest's shows in a view."""
    store(vm, bytes(64), Extent(SCRATCH, 64))
    (view,) = vm.views_to_load([Extent(SCRATCH, 64)])
    vm.write_physical(SCRATCH + 8, b"later")
    assert view[8:13] == b"later"


def test_untouched_memory_reads_as_zeros_and_stays_untouched(vm: VirtualMachine) -> None:
    before = vm.state.memory.frames.free_count
    assert load(vm, Extent(SCRATCH + 1, 3 * PAGE_BYTES)) == bytes(3 * PAGE_BYTES)
    assert vm.state.memory.frames.free_count == before
    assert vm.state.pmap[SCRATCH // PAGE_BYTES] >> pmap.STATE_SHIFT & pmap.STATE_MASK == pmap.UNALLOCATED


@pytest.mark.parametrize("pa", [VIDEO, ABSENT, (1 << 32) - 1, MEMORY_BYTES, 1 << 32, 0xFEE0_0000])
def test_where_there_is_no_memory(vm: VirtualMachine, pa: int) -> None:
    store(vm, b"\x55" * 5000, Extent(pa, 5000))
    tail = load(vm, Extent(pa, 5000))[1 if pa == (1 << 32) - 1 else 0 :]
    assert tail == b"\xff" * len(tail)


def test_rom_takes_nothing(vm: VirtualMachine) -> None:
    before = vm.read_physical(ROM, 0x1_0000)
    store(vm, bytes(0x1_0000), Extent(ROM, 0x1_0000))
    assert load(vm, Extent(ROM, 0x1_0000)) == vm.read_physical(ROM, 0x1_0000) == before


def test_what_crosses_the_end_of_memory(vm: VirtualMachine) -> None:
    store(vm, b"\x11" * 8192, Extent(MEMORY_BYTES - PAGE_BYTES, 8192))
    assert load(vm, Extent(MEMORY_BYTES - PAGE_BYTES, 8192)) == b"\x11" * PAGE_BYTES + b"\xff" * PAGE_BYTES


def test_more_pieces_than_fit_at_once(vm: VirtualMachine) -> None:
    """Every second page has a frame, so that no two pieces merge."""
    for page in range(0, 512, 2):
        vm.write_physical(SCRATCH + page * PAGE_BYTES, bytes([page & 0xFF or 1]))
    extents = [Extent(SCRATCH, 2 * MIB)] * (2 * pieces.PIECES // 512 + 1)
    data = load(vm, *extents)
    assert data == vm.read_physical(SCRATCH, 2 * MIB) * len(extents)


def test_a_reserve_that_runs_out_is_filled_again() -> None:
    vm = machine(reserve_frames=128)
    vm.run_until(300_000)
    data = random.Random(2).randbytes(3 * MIB)
    store(vm, data, Extent(SCRATCH, 3 * MIB))
    assert vm.read_physical(SCRATCH, 3 * MIB) == data
    check.check(vm.state)
    vm.close()


def test_random_extents_against_byte_by_byte_access(vm: VirtualMachine) -> None:
    """Anywhere outside what the guest itself uses, and in its tables and code for reads."""
    dice = random.Random(3)
    for _ in range(200):
        extents = [Extent(dice.randrange(0, MEMORY_BYTES + 2 * PAGE_BYTES), dice.randrange(1, 20_000)) for _ in range(3)]
        assert load(vm, *extents) == b"".join(vm.read_physical(extent.pa, extent.size) for extent in extents)
        at = Extent(dice.randrange(SCRATCH, MEMORY_BYTES - 20_000), dice.randrange(1, 20_000))
        data = dice.randbytes(at.size)
        store(vm, data, at)
        assert vm.read_physical(at.pa, at.size) == data


def test_a_guest_goes_on_when_its_tables_and_code_are_rewritten_as_they_are() -> None:
    """Every page, tables and code in use included, is written with what it holds: the guest must not notice."""
    ends = []
    for touches in (False, True):
        vm = machine(guest="processes")
        for time in range(200_000, 2_000_000, 100_000):
            vm.run_until(time)
            if touches and vm.virtual_time >= time:
                image = vm.read_physical(0x1000, MEMORY_BYTES - 0x1000)
                used = [
                    n for n in range(1, MEMORY_BYTES // PAGE_BYTES) if image[(n - 1) * PAGE_BYTES : n * PAGE_BYTES].strip(b"\0")
                ]
                for page in used:
                    if vm.state.pmap[page] >> pmap.STATE_SHIFT & pmap.STATE_MASK == pmap.PRESENT_PAGE:
                        store(vm, image[(page - 1) * PAGE_BYTES : page * PAGE_BYTES], Extent(page * PAGE_BYTES, PAGE_BYTES))
                check.check(vm.state)
        stop = vm.run(limit=100_000_000)
        assert isinstance(vm.console, launch.RecordingConsole)
        ends.append((stop.outcome, stop.value, bytes(vm.console.output), vm.retired_insns))
        vm.close()
    assert ends[0] == ends[1]
