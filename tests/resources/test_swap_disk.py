# SPDX-License-Identifier: GPL-2.0-or-later
"""The disk under the swap areas, in virtual time."""

from __future__ import annotations

from emu.resources.swap_disk import BYTES_PER_SECOND, SwapDisk
from emu.units import PAGE_BYTES

RATE = 10_000_000
PAGE = PAGE_BYTES * RATE // BYTES_PER_SECOND


def test_pages_go_out_one_after_the_other_each_once() -> None:
    disk = SwapDisk(RATE)
    assert disk.read_insns == RATE // 2000
    dues = [disk.write(1000, 1, slot, 50 + slot) for slot in range(3)]
    assert dues == [1000 + PAGE * n for n in (1, 2, 3)]
    assert disk.finished(dues[1] - 1) == [(dues[0], 1, 0, 50)]
    assert len(disk) == 2
    assert disk.finished(dues[2]) == [(dues[1], 1, 1, 51), (dues[2], 1, 2, 52)]
    assert disk.finished(1 << 60) == []


def test_an_idle_disk_begins_when_it_is_asked() -> None:
    disk = SwapDisk(RATE)
    disk.write(0, 1, 1, 1)
    assert disk.write(10 * RATE, 1, 2, 2) == 10 * RATE + PAGE


def test_pages_of_a_vm_that_ended_are_nobody_s() -> None:
    disk = SwapDisk(RATE)
    for vm in (1, 2, 1, 2):
        disk.write(0, vm, vm, vm)
    disk.forget(1)
    assert [vm for _, vm, _, _ in disk.finished(1 << 60)] == [2, 2]
