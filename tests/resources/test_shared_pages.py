# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests with pages that share frames, and page-table entries that lead from one of them to another."""

from __future__ import annotations

import pytest

from emu.events import Outcome
from emu.vm import pmap
from tests.resources.rig import Rig, state_of
from tests.vm import harness

FIRST, SECOND = 0x301, 0x302  # two pages with the same contents
MOVED = 0x303  # an address that leads to the first, then to the second
STEP = 0x5000
ENTRY = f"TABLE + 4 * {MOVED:#x}"
MOVES = {
    "plain": f"movl $0x302067, {ENTRY}",
    "stepped": f"movl {ENTRY}, %eax; movl $0x302067, %ecx; lock cmpxchgl %ecx, {ENTRY}",
    "out of sync": f"movl $8, %ecx; 2: movl $0x302067, {ENTRY} + 4; movl $0x302065, {ENTRY} + 4; loop 2b; movl $0x302067, {ENTRY}",
    "string": f"movl $0x302067, %eax; movl ${ENTRY}, %edi; movl $1, %ecx; rep stosl",
}
FLUSHES = {"invlpg": f"invlpg {MOVED:#x}000", "cr3": "movl %cr3, %eax; movl %eax, %cr3"}


def program(move: str, flush: str) -> str:
    return f"""
    test:
        PAGING
        movl $0x11111111, 0x301000
        movl $0x11111111, 0x302000
        movl $0x301067, {ENTRY}
        movl %cr3, %eax
        movl %eax, %cr3
        movl $1, {STEP:#x}
    1:  cmpl $2, {STEP:#x}
        jne 1b
        movl {MOVED:#x}000, %ebx
        {move}
        {flush}
        movl {MOVED:#x}000, %ebx
        movl $0x22222222, 0x302000
        movl {MOVED:#x}000, %ebx
        movl %ebx, 0x6000
        movl 0x301000, %ebx
        movl %ebx, 0x6004
        EXIT 1
    """


@pytest.mark.parametrize("flush", FLUSHES)
@pytest.mark.parametrize("move", MOVES)
def test_an_entry_that_moves_between_pages_of_one_frame(move: str, flush: str) -> None:
    """Both pages have one frame when the entry moves. The second then gets a frame of its own, and the entry must lead there."""
    rig = Rig()
    vm = rig.start(1, harness.assemble(program(MOVES[move], FLUSHES[flush])).rom)
    rig.run(vm, lambda: vm.vm.read_physical(STEP, 1) == b"\1", insns=5000)
    rig.share_all()
    words = vm.vm.state.pmap
    assert state_of(vm, FIRST) == state_of(vm, SECOND) == pmap.SHARED
    assert words[FIRST] & pmap.MPN_MASK == words[SECOND] & pmap.MPN_MASK
    vm.vm.write_physical(STEP, b"\2")
    vm.vm.run_until(vm.vm.virtual_time + 10_000)
    assert vm.vm.last_stop is not None
    assert vm.vm.last_stop.outcome is Outcome.EXITED
    assert vm.vm.read_physical(0x6000, 4) == b"\x22" * 4
    assert vm.vm.read_physical(0x6004, 4) == b"\x11" * 4
    rig.check()
    rig.close()
