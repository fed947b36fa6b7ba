# SPDX-License-Identifier: GPL-2.0-or-later
"""Stores to guest page tables, whatever instruction makes them: at once, in bulk, and out of sync."""

from __future__ import annotations

import pytest

from tests.vm.harness import TABLE, Run, exits_with, run_both

PF = 14


def vectors(run: Run) -> list[int]:
    return [note.vector for note in run.notes]


# ---- stores to page tables ------------------------------------------------------------------------------------------


def test_locked_exchange_on_a_page_table() -> None:
    run = run_both("""
    test:
        PAGING
        movl 0x300000, %eax
        movl $0x300027, %eax
        movl $0x305007, %ebx
        lock cmpxchgl %ebx, TABLE + 4 * 0x300
        setzb 0x6000
        movl $0xABCD, 0x305000
        invlpg 0x300000
        movl 0x300000, %eax
        movl %eax, 0x6004
        lock xaddl %ebx, TABLE + 4 * 0x3F0
        lock incl TABLE + 4 * 0x3F1
        EXIT 1
    """)
    assert run.word(0x6000) & 0xFF == 1
    assert run.word(0x6004) == 0xABCD
    assert run.word(TABLE + 4 * 0x3F0) == (0x3F0007 + 0x305007) & 0xFFFFFFFF
    assert run.word(TABLE + 4 * 0x3F1) == 0x3F1008


def test_string_copy_into_a_page_table() -> None:
    """REP MOVS of 64 entries: pages 300..33F become 340..37F."""
    run = run_both("""
    test:
        PAGING
        movl $0x340000, %edi
        movl $64, %ecx
    1:  movl %edi, (%edi)
        movl -0x40000(%edi), %eax
        addl $0x1000, %edi
        loop 1b
        movl $TABLE + 4 * 0x340, %esi
        movl $TABLE + 4 * 0x300, %edi
        movl $64, %ecx
        rep movsl
        movl %cr3, %eax
        movl %eax, %cr3
        xorl %edx, %edx
        movl $0x300000, %edi
        movl $64, %ecx
    2:  movl (%edi), %eax
        subl %edi, %eax
        cmpl $0x40000, %eax
        jne 3f
        incl %edx
    3:  addl $0x1000, %edi
        loop 2b
        movl %edx, 0x6000
        EXIT 1
    """)
    assert run.word(0x6000) == 64


@pytest.mark.parametrize(("first", "second"), [("TABLE - 2", "before"), ("TABLE + 0xFFE", "after")])
def test_a_store_across_two_pages_of_which_one_is_a_table(first: str, second: str) -> None:
    del second
    run = run_both(f"""
    test:
        PAGING
        movl 0x3FF000, %eax
        movl $0x00070003, {first}
        movl %cr3, %eax
        movl %eax, %cr3
        movl 0x5000, %eax
        movl {first}, %eax
        movl %eax, 0x6000
        EXIT 1
    """)
    assert run.stop == exits_with(1) or run.notes
    if run.stop == exits_with(1):
        assert run.word(0x6000) & 0xFFFF0000 == 0x00070000


def test_a_store_across_two_tables() -> None:
    run = run_both("""
    test:
        PAGING
        movl $0x12007, DIRECTORY + 4
        movl $0x300007, 0x12000
        movl 0x400000, %eax
        movl 0x3FE000, %eax
        movl $0x55000039, TABLE + 0xFFE
        movl TABLE + 0xFFC, %eax
        movl %eax, 0x6000
        movl 0x12000, %eax
        movl %eax, 0x6004
        EXIT 1
    """)
    assert run.word(0x6000) == 0x0039F007
    assert run.word(0x6004) & 0xFFFF == 0x5500


def test_a_push_onto_a_page_table() -> None:
    run = run_both("""
    test:
        PAGING
        movl 0x300000, %eax
        movl $0x77, 0x305000
        movl %esp, %ebp
        movl $TABLE + 4 * 0x301, %esp
        pushl $0x305007
        movl %esp, %ebx
        movl %ebp, %esp
        invlpg 0x300000
        movl 0x300000, %eax
        movl %eax, 0x6000
        movl %ebx, 0x6004
        EXIT 1
    """)
    assert run.word(0x6000) == 0x77
    assert run.word(0x6004) == TABLE + 4 * 0x300


def test_an_exception_frame_onto_a_page_table() -> None:
    run = run_both("""
    test:
        PAGING
        movl 0x380000, %eax
        movl $TABLE + 4 * 0x3A0, %esp
        EXPECT 1f
        int $0x40
    after: nop
    1:  movl $STACK, %esp
        EXIT 1
    """)
    assert run.stop == exits_with(1)
    assert [(n.vector, n.eip) for n in run.notes] == [(0x40, run.label("after"))]


def test_many_stores_to_a_table_and_a_flush() -> None:
    """The table goes out of sync; the flush brings it back: every page is where its entry says."""
    run = run_both("""
    test:
        PAGING
        movl $0x300000, %edi
        movl $16, %ecx
    1:  movl %edi, (%edi)
        addl $0x1000, %edi
        loop 1b
        movl $3, %ebp
    2:  movl $TABLE + 4 * 0x300, %edi
        movl $16, %ecx
        movl (%edi), %ebx
    3:  movl 4(%edi), %eax
        movl %eax, (%edi)
        addl $4, %edi
        loop 3b
        movl %ebx, -4(%edi)
        movl %cr3, %eax
        movl %eax, %cr3
        movl 0x300000, %eax
        movl %eax, 0x6000(, %ebp, 4)
        decl %ebp
        jnz 2b
        EXIT 1
    """)
    assert [run.word(0x6000 + 4 * n) for n in (3, 2, 1)] == [0x301000, 0x302000, 0x303000]


def test_a_present_entry_needs_no_flush() -> None:
    """A processor caches no entry that is not present: from absent to present the guest may use the page at once."""
    run = run_both("""
    test:
        PAGING
        movl $0, TABLE + 4 * 0x300
        movl $0, TABLE + 4 * 0x301
        movl %cr3, %eax
        movl %eax, %cr3
        EXPECT 1f
        movl 0x300000, %eax
    1:  movl $0x5A5A, 0x305000
        movl $0x305007, TABLE + 4 * 0x300
        movl 0x300000, %eax
        movl %eax, 0x6000
        movl $6, %ecx
    2:  movl $0x301006, TABLE + 4 * 0x301
        loop 2b
        movl $0x305007, TABLE + 4 * 0x301
        movl 0x301000, %eax
        movl %eax, 0x6004
        EXIT 1
    """)
    assert vectors(run) == [PF]
    assert (run.word(0x6000), run.word(0x6004)) == (0x5A5A, 0x5A5A)


def test_a_table_linked_while_out_of_sync() -> None:
    """Another directory entry is pointed at a table whose stores are not traced at the moment."""
    run = run_both("""
    test:
        PAGING
        movl $0x12007, DIRECTORY + 4
        movl $0x300007, 0x12000
        movl $0x301007, 0x12004
        movl $0xAAAA, 0x300000
        movl $0xBBBB, 0x301000
        movl 0x400000, %eax
        movl $6, %ecx
    1:  movl $0x300007, 0x12000
        movl $0x300006, 0x12000
        loop 1b
        movl $0x301007, 0x12000
        movl $0x12007, DIRECTORY + 8
        movl 0x800000, %eax
        movl %eax, 0x6000
        movl $0x300007, 0x12000
        movl %cr3, %eax
        movl %eax, %cr3
        movl 0x800000, %eax
        movl %eax, 0x6004
        movl 0x400000, %eax
        movl %eax, 0x6008
        EXIT 1
    """)
    assert [run.word(at) for at in (0x6000, 0x6004, 0x6008)] == [0xBBBB, 0xAAAA, 0xAAAA]


@pytest.mark.parametrize("old", ["0", "0x300067"], ids=["absent", "elsewhere"])
@pytest.mark.parametrize("flush", ["invlpg 0x400000", "movl %cr3, %eax; movl %eax, %cr3"], ids=["invlpg", "cr3"])
def test_an_entry_that_changes_and_changes_back_while_out_of_sync(old: str, flush: str) -> None:
    """The table is out of sync; a page is mapped, used, and the entry is put back as it was, with a flush."""
    run = run_both(f"""
    test:
        PAGING
        movl $0x12027, DIRECTORY + 4
        movl ${old}, 0x12000
        movl $0x302067, 0x12008
        movl $0xAAAA, 0x300000
        movl $0xBBBB, 0x301000
        movl 0x402000, %eax
        movl $8, %ecx
    1:  movl $0x302067, 0x12010
        movl $0x302065, 0x12010
        loop 1b
        movl $0x301067, 0x12000
        movl 0x400000, %edx
        movl %edx, 0x6000
        movl ${old}, 0x12000
        {flush}
        movl $0xCCCC, %edx
        EXPECT 2f
        movl 0x400000, %edx
    2:  movl %edx, 0x6004
        EXIT 1
    """)
    assert run.word(0x6000) == 0xBBBB
    assert run.word(0x6004) == (0xAAAA if old != "0" else 0xCCCC)


def test_a_recursive_directory() -> None:
    """The directory's last entry is the directory: tables appear at FFC00000, the directory at FFFFF000."""
    run = run_both("""
    test:
        PAGING
        movl $DIRECTORY | 7, DIRECTORY + 0xFFC
        movl 0xFFFFF000, %eax
        movl %eax, 0x6000
        movl 0xFFC00000 + 4 * 0x300, %eax
        movl %eax, 0x6004
        movl $0xBEEF, 0x305000
        movl 0x300000, %eax
        movl $0x305007, 0xFFC00000 + 4 * 0x300
        invlpg 0x300000
        movl 0x300000, %eax
        movl %eax, 0x6008
        movl $0x12007, 0xFFFFF004
        movl $0x305007, 0xFFC01000
        movl 0x400000, %eax
        movl %eax, 0x600C
        EXIT 1
    """)
    assert run.stop == exits_with(1)
    assert run.word(0x6000) & ~0x60 == TABLE | 7
    assert run.word(0x6004) & ~0x60 == 0x300007
    assert (run.word(0x6008), run.word(0x600C)) == (0xBEEF, 0xBEEF)


def test_two_directory_entries_with_other_rights_to_one_table() -> None:
    run = run_both(
        """
    test:
        PAGING
        movl $TABLE | 5, DIRECTORY + 4
        movl $TABLE | 3, DIRECTORY + 8
        movl $1, 0x300000
        movl 0x700000, %eax
        EXPECT 1f
    fault1: movl $2, 0x700000
    1:  movl $3, 0xB00000
        EXPECT 2f
        RING3 user
    user: movl 0x700000, %eax
        movl $4, 0x300000
    fault2: movl 0xB00000, %eax
    2:  jmp 2b
    """,
        limit=30_000,
    )
    assert [(n.vector, n.error, n.cr2) for n in run.notes] == [(PF, 3, 0x700000), (PF, 5, 0xB00000)]
    assert run.word(0x300000) == 4


def test_write_protect_toggles() -> None:
    run = run_both(
        """
    test:
        PAGING
        movl $0x300005, TABLE + 4 * 0x300
        EXPECT 1f
    fault1: movl $1, 0x300000
    1:  movl $0x80000011, %eax
        movl %eax, %cr0
        movl $2, 0x300000
        movl $0x80010011, %eax
        movl %eax, %cr0
        EXPECT 2f
    fault2: movl $3, 0x300000
    2:  movl $0x80000011, %eax
        movl %eax, %cr0
        movl $5, 0x300000
        EXPECT 3f
        RING3 user
    user: movl 0x300000, %eax
    fault3: movl $4, 0x300000
    3:  jmp 3b
    """,
        limit=30_000,
    )
    assert [(n.error, n.eip) for n in run.notes] == [
        (3, run.label("fault1")),
        (3, run.label("fault2")),
        (7, run.label("fault3")),
    ]
    assert run.word(0x300000) == 5


def test_large_pages() -> None:
    run = run_both("""
    test:
        PAGING
        movl $0x10, %eax
        movl %eax, %cr4
        movl $0x87, DIRECTORY + 4
        movl $0xC0DE, 0x305000
        movl 0x705000, %eax
        movl %eax, 0x6000
        movl DIRECTORY + 4, %eax
        movl %eax, 0x6004
        movl $0xC0DF, 0x705004
        movl DIRECTORY + 4, %eax
        movl %eax, 0x6008
        movl $0x200087, DIRECTORY + 8
        EXPECT 1f
        movl 0x805000, %eax
    1:  xorl %eax, %eax
        movl %eax, %cr4
        EXPECT 2f
        movl $0xA7, DIRECTORY + 12
        movl 0xC05000, %eax
    2:  EXIT 1
    """)
    assert run.word(0x6000) == 0xC0DE
    assert run.word(0x6004) == 0xA7
    assert run.word(0x6008) == 0xE7
    assert run.word(0x305004) == 0xC0DF
    assert (run.notes[0].vector, run.notes[0].error, run.notes[0].cr2) == (PF, 9, 0x805000)


# ---- directories that are written while they are in use ---------------------------------------------------------------

FORMS = {
    "32-bit": ("PAGING", "DIRECTORY + 0x100"),
    "pae": ("PAE_PAGING", "WIDE_DIRECTORY + 0x400"),
    "long, level 2": ("LONG_MODE", "WIDE_DIRECTORY + 0x400"),
    "long, level 3": ("LONG_MODE", "POINTERS + 0x400"),
    "long, level 4": ("LONG_MODE", "PML4 + 0x400"),
}


@pytest.mark.parametrize("misaligned", [0, 2])
@pytest.mark.parametrize("form", FORMS)
def test_a_string_stored_to_the_directory_that_leads_to_it(form: str, misaligned: int) -> None:
    """It cannot be forgotten: it is needed again for the very store."""
    enter, place = FORMS[form]
    run = run_both(f"""
    test:
        {enter}
        movl ${place} + {misaligned}, %edi
        movl $0x07060504, %eax
        movl $20, %ecx
        rep stosl
        movl {place} + 8, %eax
        movl %eax, 0x6000
        EXIT 1
    """)
    assert run.stop == exits_with(1)
    assert run.word(0x6000) == (0x05040706 if misaligned else 0x07060504)


@pytest.mark.parametrize("form", ["pae", "long, level 2"])
@pytest.mark.parametrize("code", [False, True], ids=["source", "code"])
def test_a_string_stored_to_the_directory_that_its_source_or_its_code_needs(form: str, code: bool) -> None:
    """The directory of the second gigabyte, which is not on the way to where it is stored itself."""
    enter, _ = FORMS[form]
    pointer = 1 if form == "pae" else 7
    run = run_both(f"""
    test:
        movl $0x25000 | {pointer}, POINTERS + 8
        movl $WIDE_TABLE | 7, 0x25000
        movl $0x{"23000" if form == "pae" else "24000"} | 7, 0x25008
        {enter}
        movl $0x07060500, 0x300000
        movl $0x07060500, 0x300004
        movl $0x07060500, 0x300008
        {"movl $(copy + 0x40000000), %eax" if code else "movl $copy, %eax"}
        movl ${"0x300000" if code else "0x40100000"}, %esi
        movl $0x25100, %edi
        movl $3, %ecx
        call *%{"r" if "long" in form else "e"}ax
        movl 0x25104, %eax
        movl %eax, 0x6000
        EXIT 1
    copy:
        rep movsl
        ret
    """)
    assert run.stop == exits_with(1)
    assert run.word(0x6000) == (0x07060500 if code else 0)


def test_a_device_s_register_where_the_shadow_still_has_a_page() -> None:
    """The table is out of sync, so the entry changes unseen; the store faults because the old page is clean."""
    run = run_both("""
    test:
        PAGING
        movl $0x12027, DIRECTORY + 4
        movl $0x300027, 0x12000
        movl $0x302067, 0x12008
        movl 0x400000, %eax
        movl 0x402000, %eax
        movl $8, %ecx
    1:  movl $0x302067, 0x12010
        movl $0x302065, 0x12010
        loop 1b
        movl $0xFEE0007B, 0x12000
        movl $0x50, 0x400080
        movl 0x400080, %eax
        movl %eax, 0x6000
        movl $0x300027, 0x12000
        invlpg 0x400000
        movl $0x77, 0x400000
        movl 0x300000, %eax
        movl %eax, 0x6004
        EXIT 1
    """)
    assert run.stop == exits_with(1)
    assert (run.word(0x6000), run.word(0x6004)) == (0x50, 0x77)


def test_two_pae_address_spaces_whose_pointers_share_a_page() -> None:
    """Each has other code at one address, as long and with as many bytes an instruction; its stores go to a page table, which the VMM decodes."""
    run = run_both("""
    test:
        movl $0x25001, POINTERS + 8
        movl $WIDE_DIRECTORY | 1, POINTERS + 0x20
        movl $0x26001, POINTERS + 0x28
        movl $0x27007, 0x25000
        movl $0x28007, 0x26000
        movl $0x301007, 0x27000
        movl $0x302007, 0x28000
        PAE_PAGING
        movl $0x305000, 0x305000
        movl $0x306000, 0x306000
        movl $1, %eax
        movl $store_one, %esi
        movl $0x301000, %edi
        movl $(store_two - store_one), %ecx
        rep movsb
        movl $store_two, %esi
        movl $0x302000, %edi
        movl $(stores_end - store_two), %ecx
        rep movsb
        movl $0x40000000, %ebx
        movl 0x300000, %eax
        movl $3, %ebp
    1:  call *%ebx
        movl 0x300000, %eax
        movl %eax, 0x6000
        movl $POINTERS + 0x20, %eax
        movl %eax, %cr3
        call *%ebx
        movl 0x300000, %eax
        movl %eax, 0x6004
        movl $POINTERS, %eax
        movl %eax, %cr3
        decl %ebp
        jnz 1b
        EXIT 1
    store_one:
        movl $0x305007, WIDE_TABLE + 0x1000 + 8 * 0x100
        invlpg 0x300000
        nop
        nop
        nop
        ret
    store_two:
        movl $0x306007, WIDE_TABLE + 0x1000 + 8 * 0x100
        invlpg 0x300000
        leal (%eax), %eax
        nop
        ret
    stores_end:
    """)
    assert run.stop == exits_with(1)
    assert (run.word(0x6000), run.word(0x6004)) == (0x305000, 0x306000)
