# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that are code and data in turns, and tables, code and stacks in places where there is no RAM."""

from __future__ import annotations

import numpy as np
import pytest

from emu.config import Mmu
from emu.events import Outcome
from emu.units import MIB
from emu.vm import pmap
from emu.vm.vm import SETTLE_INSNS
from tests.vm.harness import Run, exits_with, run, run_apart, run_both

UD, PF = 6, 14

mmus = pytest.mark.parametrize("mmu", list(Mmu))


def vectors(run: Run) -> list[int]:
    return [note.vector for note in run.notes]


# ---- code and data --------------------------------------------------------------------------------------------------

RETURNS = "0xB8, 0x01, 0, 0, 0, 0xC3"  # mov $1, %eax; ret


@pytest.mark.parametrize("paging", ["", "PAGING"])
@pytest.mark.parametrize("rounds", [3, 60])
def test_code_that_the_guest_rewrites(paging: str, rounds: int) -> None:
    """More rounds than a page may change between code and data before it is left as both."""
    run = run_both(
        f"""
    test:
        {paging}
        movl $code, %esi
        movl $0x20000, %edi
        movl $6, %ecx
        rep movsb
        movl ${rounds}, %ecx
        xorl %ebx, %ebx
    1:  movl %ecx, 0x20001
        call 0x20000 - call_base
        addl %eax, %ebx
        loop 1b
        movl %ebx, 0x6000
        EXIT 1
    code: .byte {RETURNS}
    """.replace("call 0x20000 - call_base", "movl $0x20000, %eax; call *%eax")
    )
    assert run.word(0x6000) == rounds * (rounds + 1) // 2


CALLS_REWRITTEN = """
        movl $code, %esi
        movl $0x20000, %edi
        movl $6, %ecx
        rep movsb
        movl $60, %ecx
        xorl %ebx, %ebx
    1:  movl %ecx, 0x20001
        movl $0x20000, %eax
        call *%eax
        addl %eax, %ebx
        loop 1b
        addl %ebx, 0x6000
"""
LATER = f"""
        movl ${SETTLE_INSNS // 2}, %ecx
    2:  decl %ecx
        jnz 2b
"""


@mmus
@pytest.mark.parametrize("paging", ["", "PAGING"])
@pytest.mark.parametrize(
    "then", ["", LATER, LATER + CALLS_REWRITTEN, LATER + "movl $7, 0x20001\n movl $0x20000, %eax\n call *%eax"]
)
def test_a_page_is_code_and_data_at_once_only_for_a_while(mmu: Mmu, paging: str, then: str) -> None:
    """A frame that held one program after another must not be slow for ever."""
    source = f"test:\n{paging}\n{CALLS_REWRITTEN}\n{then}\nmovl %eax, 0x6004\nEXIT 1\ncode: .byte {RETURNS}"
    seen = run(source, mmu, limit=2 * SETTLE_INSNS)
    assert seen.stop == exits_with(1)
    rounds = then.count(CALLS_REWRITTEN) + 1
    assert seen.word(0x6000) == rounds * 60 * 61 // 2
    is_mixed = bool(int(seen.vm.state.pmap[0x20]) & pmap.MIXED)
    has_settled = then in (LATER, LATER + "movl $7, 0x20001\n movl $0x20000, %eax\n call *%eax")
    is_plain = mmu is Mmu.NESTED and bool(paging)  # code is found by the block hook there, and no page is guarded
    assert is_mixed != (has_settled or is_plain)
    if "$7" in then:
        assert seen.word(0x6004) == 7


@pytest.mark.parametrize("paging", ["", "PAGING"])
def test_code_that_rewrites_its_own_next_instruction(paging: str) -> None:
    """The store and the instruction it changes are in one page and one block; a jump lies between, as the manual asks."""
    run = run_both(f"""
    test:
        {paging}
        movl $code, %esi
        movl $0x20000, %edi
        movl $(code_end - code), %ecx
        rep movsb
        movl $0x20000, %eax
        call *%eax
        movl %eax, 0x6000
        EXIT 1
    code:
        movb $0x42, 0x20000 + (change - code) + 1
        jmp change
    change: movl $0x10, %eax
        ret
    code_end:
    """)
    assert run.word(0x6000) == 0x42


@pytest.mark.parametrize("paging", ["", "PAGING"])
def test_a_page_of_code_that_is_the_stack_too(paging: str) -> None:
    run = run_both(f"""
    test:
        {paging}
        movl $code, %esi
        movl $0x20000, %edi
        movl $(code_end - code), %ecx
        rep movsb
        movl $0x20800, %esp
        movl $50, %ecx
        movl $0x20000, %eax
        call *%eax
        movl %ebx, 0x6000
        movl $STACK, %esp
        EXIT 1
    code:
    1:  pushl %ecx
        popl %edx
        addl %edx, %ebx
        decl %ecx
        jnz 1b
        ret
    code_end:
    """)
    assert run.word(0x6000) == 50 * 51 // 2


def test_an_instruction_that_crosses_into_a_page_that_is_not_there() -> None:
    run = run_both("""
    test:
        PAGING
        movl $0, TABLE + 4 * 0x21
        movl %cr3, %eax
        movl %eax, %cr3
        movb $0xB8, 0x20FFE
        EXPECT 1f
        movl $0x20FFE, %eax
        jmp *%eax
    1:  movl $0x22007, TABLE + 4 * 0x21
        movl $0xC30000, 0x22001
        movb $0x33, 0x20FFF
        movb $0x00, 0x22000
        movl $0x20FFE, %eax
        call *%eax
        movl %eax, 0x6000
        EXIT 1
    """)
    assert [(n.vector, n.error, n.eip, n.cr2) for n in run.notes] == [(PF, 0, 0x20FFE, 0x21000)]
    assert run.word(0x6000) == 0x33


# ---- odd places -----------------------------------------------------------------------------------------------------

TABLES_IN_ROM = """
test:
    movl $rom_directory, %eax
    movl %eax, %cr3
    movl $0x80010011, %eax
    movl %eax, %cr0
    movl $0x12, 0x6000
    EXPECT 1f
    movl 0x400000, %eax
1:  movl rom_table + 4 * 6, %eax
    movl %eax, 0x6004
    EXIT 1
.balign 4096
rom_directory: .long rom_table + 7
    .fill 1023, 4, 0
rom_table:
.set n, 0
.rept 1024
    .long n * 4096 + 7
    .set n, n + 1
.endr
"""
TABLE_IN_ABSENT_MEMORY = """
test:
    PAGING
    movl $0x10000007, DIRECTORY + 4
    movl 0x400FF0, %eax
    movl %eax, 0x6000
    movl 0xFFFFFFF0 - 0xFFF00000, %ebx
    movl %ebx, 0x6004
    EXIT 1
"""
DIRECTORY_IN_ABSENT_MEMORY = """
test:
    PAGING
    movl $0x20000000, %eax
    movl %eax, %cr3
    EXIT 1
"""


def test_page_tables_in_rom() -> None:
    """The ROM maps the first megabyte; the processor's A and D bits are lost."""
    ended = run(TABLES_IN_ROM)
    assert ended.stop == exits_with(1)
    assert (ended.word(0x6000), ended.word(0x6004)) == (0x12, 0x6007)
    assert vectors(ended) == [PF]


def test_a_page_table_in_absent_memory() -> None:
    """It reads as ones: present, user, writable, frame FFFFF, the ROM's last page."""
    ended = run(TABLE_IN_ABSENT_MEMORY)
    assert ended.stop == exits_with(1)
    assert ended.word(0x6000) == ended.word(0x6004) != 0


def test_a_directory_in_absent_memory() -> None:
    """Every page is the ROM's last then, where no code is that could go on."""
    assert run(DIRECTORY_IN_ABSENT_MEMORY, limit=30_000).stop.outcome is Outcome.TRIPLE_FAULT


@pytest.mark.parametrize(
    "source",
    [TABLES_IN_ROM, TABLE_IN_ABSENT_MEMORY],
    ids=["rom", "absent"],
)
def test_odd_page_tables_under_nested_paging(source: str) -> None:
    assert run_apart(source, Mmu.NESTED) == (0, "exited")


def test_an_odd_directory_under_nested_paging() -> None:
    assert run_apart(DIRECTORY_IN_ABSENT_MEMORY, Mmu.NESTED) == (0, "triple fault")


@pytest.mark.parametrize("paging", ["", "PAGING"])
def test_execution_from_absent_memory(paging: str) -> None:
    """It reads as ones; FF FF is no instruction."""
    run = run_both(f"""
    test:
        {paging}
        EXPECT 1f
        movl $0xB0000, %eax
        jmp *%eax
    1:  EXIT 1
    """)
    assert [(n.vector, n.eip) for n in run.notes] == [(UD, 0xB0000)]


@pytest.mark.parametrize("paging", ["", "PAGING"])
def test_stores_to_rom_and_absent_memory_have_no_effect(paging: str) -> None:
    run = run_both(f"""
    test:
        {paging}
        movl $0x1234, victim
        movl victim, %eax
        movl %eax, 0x6000
        movl $0x1234, 0xB0000
        movl 0xB0000, %eax
        movl %eax, 0x6004
        movl $0x9FFFE, %edi
        movl $0x55555555, (%edi)
        movl $3, %ecx
        movl $0xB0000, %edi
        rep stosl
        movl 0x9FFFC, %eax
        movl %eax, 0x6008
        EXIT 1
    .balign 4096
    victim: .long 0xFEDCBA98
    """)
    assert (run.word(0x6000), run.word(0x6004), run.word(0x6008)) == (0xFEDCBA98, 0xFFFFFFFF, 0x55550000)
    assert run.stop == exits_with(1)


@mmus
@pytest.mark.parametrize("paging", ["", "PAGING"])
def test_a_store_to_the_rom_page_that_it_is_in(mmu: Mmu, paging: str) -> None:
    ended = run(
        f"""
    test:
        {paging}
        movl $0x1234, victim
        EXIT 1
    victim: .long 0xFEDCBA98
    """,
        mmu,
    )
    assert ended.stop == exits_with(1)
    assert ended.word(ended.label("victim")) == 0xFEDCBA98


def test_code_in_a_page_table_that_stores_to_its_own_page() -> None:
    """The page's first half is entries, at 800 is code."""
    run = run_both("""
    test:
        PAGING
        movl $0x12007, DIRECTORY + 4
        movl $0x300007, 0x12000
        movl 0x400000, %eax
        movl $code, %esi
        movl $0x12800, %edi
        movl $(code_end - code), %ecx
        rep movsb
        movl $0x77, 0x301000
        movl $0x12800, %eax
        call *%eax
        movl 0x400000, %eax
        movl %eax, 0x6000
        EXIT 1
    code:
        movl $0x301007, 0x12000
        invlpg 0x400000
        ret
    code_end:
    """)
    assert run.stop == exits_with(1)
    assert run.word(0x6000) == 0x77


REWRITTEN = """
        movl $code, %esi
        movl $0x20000, %edi
        movl $(code_end - code), %ecx
        rep movsb
        movl $300, %ecx
    1:  movl %ecx, 0x20001
        movl $0x20000, %edx
        call *%edx
        loop 1b
"""
REWRITTEN_CODE = """
    code:
        movl $0, %eax
        .rept 400
        addl %eax, 0x6000
        .endr
        ret
    code_end:
"""


@mmus
def test_a_small_buffer_of_translated_code_changes_nothing(mmu: Mmu) -> None:
    """Code that is changed and run again, until the engine has emptied its buffer several times."""
    source = f"test:\n PAGING\n {REWRITTEN} EXIT 1\n {REWRITTEN_CODE}"
    small, large = (run(source, mmu, code_buffer_bytes=size) for size in (2 * MIB, 64 * MIB))
    assert small.word(0x6000) == 400 * 300 * 301 // 2
    assert small.vm.cpu.engine.code_buffer.used_bytes() <= 2 * MIB < large.vm.cpu.engine.code_buffer.used_bytes()
    assert small.stop == large.stop == exits_with(1)
    assert small.vm.retired_insns == large.vm.retired_insns
    assert np.array_equal(small.records, large.records)


def test_a_reset_gives_the_memory_of_translated_code_back() -> None:
    """The guest resets itself when it has had some megabytes translated; the second time it exits."""
    ended = run(f"""
    test:
        movb $0x40, %al
        outb %al, $0x70
        inb $0x71, %al
        cmpb $7, %al
        je 2f
        movb $7, %al
        outb %al, $0x71
        {REWRITTEN}
        movl $0xCF9, %edx
        movb $6, %al
        outb %al, %dx
        jmp .
    2:  EXIT 1
        {REWRITTEN_CODE}
    """)
    assert ended.stop == exits_with(1)
    assert ended.vm.cpu.engine.code_buffer.used_bytes() <= 3 * MIB  # of some seven
