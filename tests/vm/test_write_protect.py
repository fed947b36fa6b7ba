# SPDX-License-Identifier: GPL-2.0-or-later
"""Stores of the supervisor to read-only pages with CR0.WP off: in all forms of paging, with pages of all sizes, in a few exits in all.

The user is kept out as before, D is set in each entry that a store goes through, and SMEP and SMAP mean what they did.
"""

from __future__ import annotations

import pytest

from emu.config import Mmu
from emu.machine import control as cbw
from tests.vm.harness import DIRECTORY, TABLE, exits_with, run, run_both

PF = 14
P, W, U, A, D, PS = (1 << bit for bit in (0, 1, 2, 5, 6, 7))
SMEP, SMAP = 1 << 20, 1 << 21
COUNTS = (10, 2000)  # pushes that take as many exits
WIDE_DIRECTORY, WIDE_TABLE, POINTERS = 0x2_2000, 0x2_3000, 0x2_1000
PAGE = 0x208000  # PA of the page that is pushed to

# (how paging begins, the entry that maps the page, its address bits, the page's linear address, whether code is 64-bit)
FORMS = {
    "32-bit 4K": ("PAGING", TABLE + 4 * 0x208, PAGE, PAGE, False),
    "32-bit 4M": ("PAGING", DIRECTORY + 4, PS, 0x40_0000 + PAGE, False),
    "pae 4K": ("PAE_PAGING nx=1", WIDE_TABLE + 8 * 0x208, PAGE, PAGE, False),
    "pae 2M": ("PAE_PAGING nx=1", WIDE_DIRECTORY + 8 * 2, 0x20_0000 | PS, 0x40_8000, False),
    "long 4K": ("LONG_MODE", WIDE_TABLE + 8 * 0x208, PAGE, PAGE, True),
    "long 2M": ("LONG_MODE", WIDE_DIRECTORY + 8 * 2, 0x20_0000 | PS, 0x40_8000, True),
    "long 1G": ("LONG_MODE", POINTERS + 8, PS, 0x4000_0000 + PAGE, True),
}
forms = pytest.mark.parametrize("form", FORMS)


def set_up(form: str, flags: int, cr4: int = 0) -> str:
    """Paging is on with the page mapped by an entry with these flags, and CR0.WP is off; nothing else is the user's, with SMEP or SMAP."""
    enter, entry, frame, _, is_long = FORMS[form]
    table, entries, size = (WIDE_TABLE, 1024, 8) if "32-bit" not in form else (TABLE, 1024, 4)
    a = "r" if is_long else "e"
    private = f"movl ${table}, %edi; movl ${entries}, %ecx; 1: andl $~4, (%{a}di); addl ${size}, %edi; loop 1b" if cr4 else ""
    return f"""
    test:
        {enter}
        {private}
        movl ${frame | flags}, {entry:#x}
        mov %cr4, %{a}ax
        orl ${0x10 | cr4}, %eax
        mov %{a}ax, %cr4
        mov %cr3, %{a}ax
        mov %{a}ax, %cr3
        mov %cr0, %{a}ax
        andl $~0x10000, %eax
        mov %{a}ax, %cr0
    """


def pushes(form: str, count: int) -> str:
    """Push and pop, so many times."""
    linear, is_long = FORMS[form][3:]
    a = "r" if is_long else "e"
    return f"""
        movl %esp, %ebp
        movl ${linear + 0xF00}, %esp
        movl ${count}, %ecx
    2:  push %{a}cx
        pop %{a}dx
        decl %ecx
        jnz 2b
        movl %ebp, %esp
    """


@forms
@pytest.mark.parametrize("flags", [P, P | U, P | W, P | W | U], ids=["supervisor", "user", "supervisor-w", "user-w"])
@pytest.mark.parametrize("cr4", [0, SMEP], ids=["", "smep"])
def test_pushes_take_a_few_exits_in_all(form: str, flags: int, cr4: int) -> None:
    few, many = (run(set_up(form, flags, cr4) + pushes(form, count) + "EXIT 1") for count in COUNTS)
    for ended in few, many:
        assert ended.stop == exits_with(1)
        assert ended.notes == []
        assert ended.word(FORMS[form][1]) & 0x7F == flags | A | D
        assert ended.word(PAGE + 0xF00 - (8 if FORMS[form][4] else 4)) == 1
    assert few.vm.control[cbw.EXITS] == many.vm.control[cbw.EXITS]


@forms
def test_supervisor_pages_take_no_more_exits_with_smap(form: str) -> None:
    few, many = (run(set_up(form, P, SMAP) + pushes(form, count) + "EXIT 1") for count in COUNTS)
    assert few.stop == many.stop == exits_with(1)
    assert few.vm.control[cbw.EXITS] == many.vm.control[cbw.EXITS]


@forms
def test_smap_keeps_the_supervisor_off_a_page_that_it_stored_to(form: str) -> None:
    """With EFLAGS.AC set it may store to the user's page, and must not read it once AC is clear."""
    _, _, _, linear, is_long = FORMS[form]
    a = "r" if is_long else "e"
    ended = run_both(
        set_up(form, P | U, SMAP)
        + f"""
        stac
        movl $0x1234, {linear:#x}
        movl {linear:#x}, %ebx
        movl %ebx, 0x6000
        clac
        EXPECT 3f
    fault: movl {linear:#x}, %ebx
    3:  xor %{a}ax, %{a}ax
        EXIT 1
    """
    )
    assert ended.word(0x6000) == 0x1234
    assert [(note.vector, note.error, note.cr2) for note in ended.notes] == [(PF, 1, linear)]


@forms
def test_smep_keeps_the_supervisor_from_running_a_page_that_it_stored_to(form: str) -> None:
    _, _, _, linear, is_long = FORMS[form]
    a = "r" if is_long else "e"
    ended = run_both(
        set_up(form, P | U, SMEP)
        + f"""
        movl $0xC3C3C3C3, {linear:#x}
        EXPECT 3f
        movl ${linear}, %eax
        call *%{a}ax
    3:  EXIT 1
    """
    )
    assert [(note.vector, note.error, note.cr2) for note in ended.notes] == [(PF, 0x11, linear)]


@forms
def test_the_user_is_kept_out_and_let_in_as_before(form: str) -> None:
    """The supervisor stores, the user reads and must not store, and the supervisor stores again."""
    _, _, _, linear, is_long = FORMS[form]
    ring3 = "RING3_64 user" if is_long else "RING3 user"
    ended = run_both(
        set_up(form, P | U)
        + f"""
        movl $0x1234, {linear:#x}
        EXPECT 3f
        {ring3}
    user:
        movl {linear:#x}, %ebx
        movl %ebx, 0x6000
    fault: movl $0x5678, {linear:#x}
    3:  movl {linear:#x}, %ebx
        movl %ebx, 0x6004
    4:  jmp 4b
    """,
        limit=60_000,
    )
    assert (ended.word(0x6000), ended.word(0x6004)) == (0x1234, 0x1234)
    assert [(note.vector, note.error, note.eip) for note in ended.notes] == [(PF, 7, ended.label("fault"))]


SECOND = {  # another entry for the same large page: where, and its distance in linear addresses
    "32-bit 4M": (DIRECTORY + 8, 0x40_0000),
    "pae 2M": (WIDE_DIRECTORY + 8 * 3, 0x20_0000),
    "long 2M": (WIDE_DIRECTORY + 8 * 3, 0x20_0000),
    "long 1G": (POINTERS + 16, 0x4000_0000),
}


@pytest.mark.parametrize("mmu", list(Mmu))
@pytest.mark.parametrize("flags", [P, P | U], ids=["supervisor", "user"])
@pytest.mark.parametrize("form", SECOND)
def test_each_entry_of_a_large_page_gets_its_own_d(form: str, flags: int, mmu: Mmu) -> None:
    """A store through one entry says nothing of another one, and one whose D bit was cleared is set again."""
    _, entry, frame, linear, is_long = FORMS[form]
    other, distance = SECOND[form]
    a = "r" if is_long else "e"

    def at(address: int, insn: str) -> str:
        return f"movl ${address:#x}, %edx; {insn.replace('@', f'(%{a}dx)')}\n"

    flush = f"mov %cr3, %{a}ax; mov %{a}ax, %cr3\n"
    seen = iter(range(0x6000, 0x6014, 4))

    def note(address: int) -> str:
        return at(address, f"movl @, %ebx; movl %ebx, {next(seen):#x}")

    ended = run(
        set_up(form, flags)
        + at(other, f"movl ${frame | flags}, @")
        + at(linear + distance, "movl @, %ebx")
        + at(linear, "movl $1, @")
        + note(entry)
        + note(other)
        + at(linear + distance, "movl $2, @")
        + note(other)
        + at(entry, "andl $~0x40, @")
        + flush
        + at(linear + distance, "movl $3, @")
        + note(entry)
        + at(linear, "movl $4, @")
        + note(entry)
        + "EXIT 1",
        mmu,
    )
    assert ended.stop == exits_with(1)
    assert [ended.word(place) & (A | D) for place in range(0x6000, 0x6014, 4)] == [A | D, A, A | D, A, A | D]
    assert ended.word(PAGE) == 4
