# SPDX-License-Identifier: GPL-2.0-or-later
"""Events name pages by the numbers that the guest knows, and an exit that is begun again tells of its deed once."""

from __future__ import annotations

import pytest

from emu.config import Mmu
from emu.events import NO_PAGE, Kind
from emu.machine import control as cbw
from emu.vm import registers, rows
from emu.vm.record import HEADROOM
from tests.vm import harness
from tests.vm.harness import Run, exits_with, run

mmus = pytest.mark.parametrize("mmu", list(Mmu))


# ---- numbers of pages -----------------------------------------------------------------------------------------------


@mmus
@pytest.mark.parametrize("paging", ["", "PAGING"])
@pytest.mark.parametrize(
    ("pa", "linear"), [(0xB_0000, 0xB_0000), (0x2000_0000, 0x30_0000), (0xF_F000, 0xF_F000), (0xFFFF_F000, 0x30_0000)]
)
def test_a_discarded_write_names_the_page_that_the_guest_stored_to(mmu: Mmu, paging: str, pa: int, linear: int) -> None:
    """Absent memory below 1 MB and far above, the ROM and its upper copy."""
    if not paging:
        linear = pa
    ended = run(
        f"""
    test:
        {paging}
        {f"movl ${pa | 0x67:#x}, TABLE + 4 * {linear >> 12:#x}; movl %cr3, %eax; movl %eax, %cr3" if paging else ""}
        movl $0x1234, {linear:#x}
        EXIT 1
    """,
        mmu,
    )
    (record,) = ended.of_kind(Kind.DISCARDED_WRITE)
    assert (record["ppn"], record["va"]) == (pa >> 12, pa if mmu is Mmu.NESTED else linear)
    assert record["mpn"] != NO_PAGE


def test_a_table_in_absent_memory_has_no_number() -> None:
    """One shadow page stands for it wherever it is met, so that none of its numbers would be right."""
    ended = run("test: PAGING\n movl $0x10000007, DIRECTORY + 4\n movl 0x400FF0, %eax\n EXIT 1")
    assert ended.stop == exits_with(1)
    pages = ended.vm.state.ram_pages
    made = ended.of_kind(Kind.SHADOW_PAGE)
    assert NO_PAGE in made["ppn"]
    for kind in Kind.SHADOW_PAGE, Kind.ZAP, Kind.CODE_FLUSH, Kind.SHADOW_UPDATE:
        numbers = ended.of_kind(kind)["ppn"]
        assert not [ppn for ppn in numbers if pages <= ppn < pages + 3]


def test_code_in_absent_memory_has_no_number_when_it_is_dropped() -> None:
    """A reset drops all translated code, also of what ran where no memory is."""
    ended = run(
        """
    test:
        EXPECT 1f
        movl $0xB0000, %eax
        jmp *%eax
    1:  movb $0xFE, %al
        outb %al, $0x64
        jmp .
    """,
        limit=20_000,
    )
    flushes = ended.of_kind(Kind.CODE_FLUSH)["ppn"]
    assert NO_PAGE in flushes
    pages = ended.vm.state.ram_pages
    assert not [ppn for ppn in flushes if pages <= ppn < pages + 3]


# ---- exits that are begun again -------------------------------------------------------------------------------------

LOOP = """
test:
    PAGING
    movl $0x13000, %edi
    movl $TABLE | 7, (%edi)
    movl $DIRECTORY, %esi
    movl $2500, %ecx
1:  movl %cr0, %eax
    xorl $0x10000, %eax
    movl %eax, %cr0
    movl %cr4, %eax
    xorl $0x10, %eax
    movl %eax, %cr4
    xchgl %esi, %edi
    movl %edi, %cr3
    invlpg 0x300000
    movl 0x300000, %ebx
    smsw %ax
    orl $8, %eax
    lmsw %ax
    clts
    decl %ecx
    jnz 1b
    EXIT 1
"""
TOLD = (Kind.CR_WRITE, Kind.CR3_LOAD, Kind.INVLPG)


def told(ended: Run) -> list[tuple[int, ...]]:
    return [
        tuple(int(record[name]) for name in ("time", "kind", "info", "va", "old", "new", "rip"))
        for record in ended.records
        if record["kind"] in TOLD
    ]


def test_nothing_is_told_twice_for_want_of_room() -> None:
    """The same guest with room for all of its events and frames, and with so little that exits are begun again and again."""
    without = frozenset({"no-cache"})  # so that each CR3 load takes frames
    roomy = run(LOOP, shadow_switches=without)
    scarce = run(LOOP, event_rows=2 * HEADROOM, reserve_frames=20, shadow_switches=without)
    assert roomy.stop == scarce.stop == exits_with(1)
    assert roomy.vm.retired_insns == scarce.vm.retired_insns
    assert len(roomy.of_kind(Kind.CR_WRITE)) > 4 * 2500
    assert told(scarce) == told(roomy)
    assert int(scarce.vm.control[cbw.EXITS]) > int(roomy.vm.control[cbw.EXITS])


@pytest.mark.parametrize("what", ["cr0.wp", "cr0.pg", "cr3", "cr4", "efer"])
def test_a_register_is_not_half_written_without_a_frame(what: str) -> None:
    """The VMM's own way to write it says so before it has changed or told anything, and does all of it when there is a frame."""
    vm, _ = harness.make(harness.assemble("test: PAGING\n 1: jmp 1b").rom)
    vm.run(limit=20_000)
    state, control = vm.state, vm.control
    writes = {
        "cr0.wp": lambda: registers.write_cr0(control, int(control[cbw.GUEST_CR0]) ^ 1 << 16),
        "cr0.pg": lambda: registers.write_cr0(control, int(control[cbw.GUEST_CR0]) ^ 1 << 31),
        "cr3": lambda: registers.write_cr3(control, 0x30_0000),
        "cr4": lambda: registers.write_cr4(control, int(control[cbw.GUEST_CR4]) ^ 0x10),
        "efer": lambda: registers.write_efer(control, int(control[cbw.GUEST_EFER]) ^ 1 << 11),
    }
    words = [cbw.GUEST_CR0, cbw.GUEST_CR3, cbw.GUEST_CR4, cbw.GUEST_EFER, cbw.GUEST_LEVELS, cbw.ROOT]
    taken, control[cbw.RESERVE_COUNT] = int(control[cbw.RESERVE_COUNT]), 0
    before = (state.counters.copy(), control[words].copy(), state.rows[:, rows.IN_USE].copy())
    assert writes[what]() == registers.NO_FRAME
    for old, new in zip(before, (state.counters, control[words], state.rows[:, rows.IN_USE]), strict=True):
        assert (old == new).all()
    control[cbw.RESERVE_COUNT] = taken
    assert writes[what]() == registers.SERVED
    assert int(state.counters[Kind.CR_WRITE] - before[0][Kind.CR_WRITE]) == what.startswith(("cr0", "cr4"))
    assert int(state.counters[Kind.CR3_LOAD] - before[0][Kind.CR3_LOAD]) == (what == "cr3")
    vm.close()
