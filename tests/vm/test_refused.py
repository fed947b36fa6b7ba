# SPDX-License-Identifier: GPL-2.0-or-later
"""Instructions that the engine would carry out and the guest's processor has not: #UD, where they stand and nowhere else."""

from __future__ import annotations

import pytest

from emu.config import Mmu
from emu.machine import decode, refused
from emu.machine.decode import LONG, NARROW, WIDE
from emu.vm import clock
from tests.vm.harness import Run, exits_with, run, run_both

UD, DB = 6, 1
VEX = ".byte 0xC5, 0xF1, 0xFE, 0xC2"  # VPADDD XMM0, XMM1, XMM2
LOCK_MOV = ".byte 0xF0, 0x89, 0x07"
LOCK_BTS = ".byte 0xF0, 0x0F, 0xAB, 0xC8"  # the engine aborts while it translates it


def seen(done: Run) -> list[tuple[int, int]]:
    return [(note.vector, note.eip) for note in done.notes]


@pytest.mark.parametrize(
    ("code", "mode", "expected"),
    [
        ("c5f1fec2", LONG, True),
        ("c4e171fec2", LONG, True),
        ("c507", WIDE, False),  # LDS
        ("c5f1fec2", WIDE, True),
        ("c4c0", NARROW, True),  # LES of a register: none either
        ("26c507", WIDE, False),
        ("2641c5f1fec2", LONG, True),
        ("8fe97810c1", LONG, True),
        ("8f07", LONG, False),
        ("8fc0", WIDE, False),
        ("8fc8", WIDE, True),
        ("f00107", WIDE, False),  # LOCK ADD to memory
        ("f001c0", WIDE, True),
        ("f03907", WIDE, True),  # CMP
        ("f00307", WIDE, True),  # ADD from memory
        ("f0ff07", WIDE, False),
        ("f0ff17", WIDE, True),  # CALL
        ("f0f717", WIDE, False),  # NOT
        ("f0f727", WIDE, True),  # MUL
        ("f08707", WIDE, False),
        ("f087c0", WIDE, True),
        ("f00fab0f", WIDE, False),
        ("f00fabc8", WIDE, True),
        ("f00fba2f01", WIDE, False),
        ("f00fba2701", WIDE, True),  # BT
        ("f00fb107", WIDE, False),
        ("f00fc10f", WIDE, False),
        ("f00fc70f", WIDE, False),  # CMPXCHG8B
        ("f0480fc70f", LONG, False),
        ("48f00fc70f", LONG, False),
        ("f00fc7f0", WIDE, True),
        ("f00f3840c0", WIDE, True),
        ("66f0f30107", WIDE, False),
        ("f090", WIDE, True),
        ("90", WIDE, False),
        ("f0", WIDE, False),  # not all there
        ("f0" * 15 + "90", WIDE, False),  # too long: #GP by the engine
    ],
)
def test_what_is_refused(code: str, mode: int, expected: bool) -> None:
    data = bytearray.fromhex(code) + bytes(16)
    at = (refused.np.frombuffer(data, refused.np.uint8)).ctypes.data
    assert refused.is_refused(at, len(code) // 2, mode) == expected
    first = refused.scan(at, len(code) // 2, mode)[1]
    assert (first == 0) == expected


def test_the_scan_of_a_block_counts_as_decoding_does() -> None:
    code = bytes.fromhex("40 48 6690 f00107 0f31 c507 8f07 cd06".replace(" ", ""))
    at = refused.np.frombuffer(code, refused.np.uint8).ctypes.data
    assert refused.scan(at, len(code), WIDE) == (decode.count_insns(at, len(code), WIDE), refused.NONE)


@pytest.mark.parametrize("insn", [VEX, LOCK_MOV, LOCK_BTS])
@pytest.mark.parametrize("paging", ["", "PAGING", "PAE_PAGING 1"])
def test_what_stands_before_it_is_carried_out(insn: str, paging: str) -> None:
    """Once a turn, and virtual time counts it; nothing behind is."""
    done = run_both(f"""
    test:
        {paging}
        movl $0x6100, %edi
        movl $5, %ecx
    again:
        EXPECT 1f
        incl %ebx
        incl %ebx
    fault: {insn}
        movl $1, %edx
    1:  decl %ecx
        jnz again
        movl %ebx, 0x6000
        movl %edx, 0x6004
        EXIT 1
    """)
    assert done.stop == exits_with(1)
    assert seen(done) == [(UD, done.label("fault"))] * 5
    assert (done.word(0x6000), done.word(0x6004)) == (10, 0)


def test_virtual_time_is_that_of_an_instruction_that_the_engine_refuses_itself() -> None:
    source = "test: EXPECT 1f\n nop\n nop\n {}\n1: EXPECT 2f\n nop\n {}\n2: EXIT 1"
    times = {
        run_both(source.format(insn, insn)).vm.retired_insns
        for insn in ("ud2", VEX, LOCK_MOV, LOCK_BTS, ".byte 0xF3,0x0F,0xB8,0xC0")
    }
    assert len(times) == 1


@pytest.mark.parametrize("insn", [VEX, LOCK_MOV, LOCK_BTS])
def test_code_that_comes_and_goes(insn: str) -> None:
    """Where such an instruction stood another one runs, and the other way round."""
    done = run_both(f"""
    .set CODE, 0x8000
    test:
        PAGING
        movl $0x6100, %edi
        movl $4, %ebp
    again:
        movl good, %eax
        movl %eax, CODE + 2
        movw $0x9090, CODE
        movb $0xC3, CODE + 6
        movl $CODE, %eax
        call *%eax
        movl bad, %eax
        movl %eax, CODE + 2
        movl $CODE, %eax
        movl %esp, %esi
        EXPECT 1f
        call *%eax
    1:  movl %esi, %esp
        decl %ebp
        jnz again
        movl %ebx, 0x6000
        EXIT 1
    good: incl %ebx
        incl %ebx
        incl %ebx
        incl %ebx
    bad: {insn}
        nop
    """)
    assert done.stop == exits_with(1)
    assert seen(done) == [(UD, 0x8002)] * 4
    assert done.word(0x6000) == 16


@pytest.mark.parametrize("insn", [VEX, LOCK_MOV, LOCK_BTS])
def test_at_a_page_s_beginning_with_nothing_before(insn: str) -> None:
    """The engine would look at the page before it; A of that one stays clear too."""
    done = run_both(f"""
    test:
        PAGING
        movl $0x6100, %edi
        movl insn, %eax
        movl %eax, 0x200000
        movl $0, TABLE + 4 * 0x1FF
        invlpg 0x1FF000
        EXPECT 1f
        movl $0x200000, %eax
        jmp *%eax
    1:  EXPECT 2f
        jmp *%eax
    2:  EXIT 1
    insn: {insn}
        nop
    """)
    assert done.stop == exits_with(1)
    assert seen(done) == [(UD, 0x20_0000)] * 2


@pytest.mark.parametrize("mmu", list(Mmu))
@pytest.mark.parametrize("insn", [VEX, LOCK_MOV, LOCK_BTS])
def test_a_block_that_reaches_it_across_pages(insn: str, mmu: Mmu) -> None:
    """And afterwards the page before is gone, and at last the instruction too (told from a load where fetches are: under shadow paging)."""
    done = run(
        f"""
    test:
        PAGING
        movl $0x6100, %edi
        movl insn, %eax
        movl %eax, 0x200000
        movw $0x4343, 0x1FFFFE  /* INC EBX, twice */
        movl $2, %ebp
    again:
        EXPECT 1f
        movl $0x1FFFFE, %eax
        jmp *%eax
    1:  decl %ebp
        jnz again
        movl $0, TABLE + 4 * 0x1FF
        invlpg 0x1FF000
        EXPECT 2f
        movl $0x200000, %eax
        jmp *%eax
    2:  movl %ebx, 0x6000
        {"jmp 3f" if mmu is Mmu.NESTED else ""}
        movl $0xC3C3C343, 0x200000
        movl $0x200000, %eax
        call *%eax
    3:  movl %ebx, 0x6004
        EXIT 1
    insn: {insn}
        nop
    """,
        mmu,
    )
    assert done.stop == exits_with(1)
    assert seen(done) == [(UD, 0x20_0000)] * 3
    assert (done.word(0x6000), done.word(0x6004)) == (4, 4 if mmu is Mmu.NESTED else 5)


def test_the_same_bytes_in_another_mode() -> None:
    """C5 07 is LDS in 32-bit code; C5 F8 58 C1 is VADDPS in 64-bit code, and both may lie at one address."""
    done = run_both("""
    test:
        movl $0x10, %ecx
        movl $0x9000, %edi
        movl $0x1234, (%edi)
        movw $0x10, 4(%edi)
        movl $0xC307C5, 0x8000
        movl $0x8000, %edx
        call *%edx
        movl %eax, 0x6000
        LONG_MODE
        EXPECT 1f
        movl $0x8000, %edx
        jmp *%rdx
    1:  EXIT 1
    """)
    assert done.stop == exits_with(1)
    assert seen(done) == [(UD, 0x8000)]
    assert done.word(0x6000) == 0x1234


def test_a_single_step_over_and_onto_it() -> None:
    """The trap of the instruction before comes first; #UD then has TF in its frame."""
    done = run_both(f"""
    test:
        EXPECT 1f
        pushl $0x102
        popfl
        nop
    fault: {VEX}
    1:  EXPECT 2f
        pushl $0x102
        popfl
        {LOCK_MOV}
    2:  EXIT 1
    """)
    assert done.stop == exits_with(1)
    assert [note.vector for note in done.notes] == [DB, UD]
    assert done.notes[1].eflags & 0x100


def test_more_places_than_the_engine_is_told_of() -> None:
    """The oldest are forgotten, and found again."""
    done = run_both(
        f"""
    test:
        movl $0x6100, %edi
        movl $2, %ebp
    again:
        movl $0x10000, %esi
    1:  movw $0x9043, (%esi)      /* INC EBX; NOP */
        movl insn, %eax
        movl %eax, 2(%esi)
        EXPECT 2f
        jmp *%esi
    2:  addl $8, %esi
        cmpl $0x10000 + 8 * 300, %esi
        jb 1b
        movl $NOTES, NOTES_USED
        decl %ebp
        jnz again
        movl %ebx, 0x6000
        EXIT 1
    insn: {LOCK_MOV}
        nop
    """.replace("EXPECT 2f", "EXPECT 2f\n movl $NOTES, NOTES_USED")
    )
    assert done.stop == exits_with(1)
    assert done.word(0x6000) == 600


def test_the_block_table_never_keeps_one() -> None:
    assert clock.NO_ENTRY == 0
