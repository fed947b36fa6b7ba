# SPDX-License-Identifier: GPL-2.0-or-later
"""Events into tiny guests: what a handler is given, and what the instruction that caused the event left undone.

Every program runs under shadow and under nested paging and must leave the same memory and the same count of retired
instructions (`run_both`). Expectations are those of the manuals: Intel SDM vol. 3, chapter 6; AMD64 APM vol. 2, chapter 8.
"""

from __future__ import annotations

import pytest

from emu.events import Outcome
from tests.vm.harness import Run, exits_with, run_both

DE, DB, BP, UD, DF, NP, SS, GP, PF = 0, 1, 3, 6, 8, 11, 12, 13, 14
RF = 1 << 16
CODE0, CODE3, DATA3 = 0x08, 0x1B, 0x23


def vectors(run: Run) -> list[int]:
    return [note.vector for note in run.notes]


def test_a_program_without_events_leaves_no_note() -> None:
    run = run_both("test: EXIT 5")
    assert run.stop == exits_with(5)
    assert run.notes == []


def test_an_unexpected_event_ends_the_run() -> None:
    run = run_both("test: ud2")
    assert run.stop == exits_with(0x7F)
    assert vectors(run) == [UD]


# ---- faults and their error codes -----------------------------------------------------------------------------------


def test_page_fault_error_code_and_address() -> None:
    run = run_both("""
    test:
        PAGING
        EXPECT 1f
    fault1: movl 0x500000, %eax
    1:  EXPECT 2f
    fault2: movl %eax, 0x500004
    2:  movl $0x5005, TABLE + 4 * 5
        movl %cr3, %eax
        movl %eax, %cr3
        EXPECT 3f
    fault3: movl %eax, 0x5008
    3:  EXIT 1
    """)
    assert run.stop == exits_with(1)
    first, second, third = run.notes
    assert (first.vector, first.error, first.cr2, first.eip) == (PF, 0, 0x500000, run.label("fault1"))
    assert (second.vector, second.error, second.cr2, second.eip) == (PF, 2, 0x500004, run.label("fault2"))
    assert (third.vector, third.error, third.cr2, third.eip) == (PF, 3, 0x5008, run.label("fault3"))
    assert first.eflags & RF


def test_page_faults_of_ring_3() -> None:
    run = run_both("""
    test:
        PAGING
        movl $0x30003, TABLE + 4 * 0x30
        movl $0x31005, TABLE + 4 * 0x31
        EXPECT 1f
        RING3 user, 0x3002
    user:
    fault1: movl 0x30000, %eax
    1:  EXPECT 2f
        movl 0x31000, %eax
    fault2: movl %eax, 0x31004
    2:  EXPECT 3f
    fault3: movl 0x500000, %eax
    3:  EXPECT 4f
        movl $0x30000, %eax
    fault4: jmp *%eax
    4:  EXIT 1
    """)
    assert run.stop == exits_with(1)
    assert [(note.error, note.cr2) for note in run.notes] == [
        (5, 0x30000),
        (7, 0x31004),
        (4, 0x500000),
        (5, 0x30000),
    ]
    assert [note.eip for note in run.notes] == [*(run.label(f"fault{n}") for n in (1, 2, 3)), 0x30000]


def test_page_fault_in_ring_3_switches_the_stack() -> None:
    run = run_both(
        """
    test:
        PAGING
        EXPECT 1f
        RING3 user
    user:
        movl $0x1234, %ebx
    fault: movl %ebx, 0x500000
    1:  EXPECT 2f
    denied: EXIT 9
    2:  jmp 2b
    """,
        limit=30_000,
    )
    first = run.notes[0]
    assert (first.vector, first.error, first.cr2) == (PF, 6, 0x500000)
    assert (first.cs, first.esp, first.ss) == (CODE3, 0x9000, DATA3)
    assert run.notes[1].vector == GP  # OUT is denied to ring 3 by IOPL 0 and an empty bitmap
    assert run.notes[1].eip == run.label("denied") + 2
    assert run.stop.outcome is Outcome.LIMIT


@pytest.mark.parametrize(
    ("insn", "vector", "error"),
    [
        ("divl zero", DE, 0),
        ("ud2", UD, 0),
        ("movw %ax, %cs", UD, 0),
        ("movw $0x1000, %ax; movw %ax, %ds", GP, 0x1000),
        ("xorl %eax, %eax; movw %ax, %ss", GP, 0),
        ("movw $0x38, %ax; ltrw %ax", GP, 0x38),
        ("ljmp $0x30, $0", GP, 0x30),
        ("movw $0x30, %ax; movw %ax, %ds", NP, 0x30),
        ("movl $0x20, %ecx; rdmsr", GP, 0),
        ("movl $0xC0000090, %ecx; rdmsr", GP, 0),
        ("movl $0xC0000090, %ecx; wrmsr", GP, 0),
        ("movl $0x80000000, %eax; movl %eax, %cr0", GP, 0),
        ("movl $0x2000, %eax; movl %eax, %cr4", GP, 0),
        ("vmrun", UD, 0),
        ("vmmcall", UD, 0),
        ("vmload", UD, 0),
        ("stgi", UD, 0),
        ("rsm", UD, 0),
        ("monitor", UD, 0),
        ("mwait", UD, 0),
        ("movl %cr1, %eax", UD, 0),
        ("rdpmc", GP, 0),
        (".byte 0x0F, 0x01, 0xF8", UD, 0),  # SWAPGS
        (".byte 0xF0, 0x90", UD, 0),  # LOCK NOP
        ("lcall $0x1000, $0", GP, 0x1000),
        ("movw $0x30, %ax; movw %ax, %ss", NP, 0x30),
    ],
)
def test_faults_of_instructions(insn: str, vector: int, error: int) -> None:
    """With paging on. Descriptor 30 is not present here, 38 is data."""
    run = run_both(f"""
    test:
        PAGING
        movb $0x13, GDT + 0x35
        movl $0x77, %ebx
        EXPECT 1f
        jmp 2f
    zero: .long 0
    2:  {insn}
        EXIT 2
    1:  EXIT 1
    """)
    expected = SS if "ss" in insn and vector == NP else vector
    assert [(note.vector, note.error, note.cs) for note in run.notes] == [(expected, error, CODE0)]
    assert run.stop == exits_with(1)


def test_traps_come_after_their_instruction() -> None:
    run = run_both("""
    test:
        PAGING
        EXPECT 1f
        int3
    after1: nop
    1:  EXPECT 2f
        pushl $0x102
        popfl
        nop
    after2: nop
    2:  EXPECT 3f
        movb $0x7F, %al
        addb %al, %al
        into
    after3: nop
    3:  EXIT 1
    """)
    assert [(note.vector, note.eip) for note in run.notes] == [
        (BP, run.label("after1")),
        (DB, run.label("after2")),
        (4, run.label("after3")),
    ]
    assert not any(note.eflags & RF for note in run.notes)
    assert run.notes[1].eflags & 0x100  # TF as pushed; the handler ran with it clear


@pytest.mark.parametrize(
    "insn",
    [
        "nop",
        "movl %eax, 0x6000",
        "movl $0x380007, TABLE + 4 * 0x380",
        "cpuid",
        "movl %cr3, %eax",
        "rdtsc",
    ],
)
def test_single_step(insn: str) -> None:
    """The guest traces itself over one instruction: the trap comes right after it, whoever carries it out."""
    run = run_both(f"""
    test:
        PAGING
        movl 0x380000, %eax
        EXPECT 1f
        pushl $0x102
        popfl
        {insn}
    after: nop
    1:  EXIT 1
    """)
    assert [(note.vector, note.eip) for note in run.notes] == [(DB, run.label("after"))]


# ---- INT n, gates and privilege -------------------------------------------------------------------------------------


def test_int_n_obeys_the_gate_s_privilege() -> None:
    run = run_both(
        """
    test:
        PAGING
        movb $0xEE, IDT + 8 * 0x41 + 5
        EXPECT 1f
        int $0x40
    after: nop
    1:  EXPECT 2f
        RING3 user
    user: int $0x41
    after_user: nop
    2:  jmp 2b
    """,
        limit=30_000,
    )
    assert [(note.vector, note.error, note.eip) for note in run.notes] == [
        (0x40, 0, run.label("after")),
        (0x41, 0, run.label("after_user")),
    ]
    assert [note.cs for note in run.notes] == [CODE0, CODE3]


def test_int_n_denied_by_the_gate_s_privilege() -> None:
    run = run_both(
        """
    test:
        PAGING
        EXPECT 1f
        RING3 user
    user: nop
    denied: int $0x40
    1:  jmp 1b
    """,
        limit=30_000,
    )
    (note,) = run.notes
    assert (note.vector, note.error, note.cs) == (GP, 0x40 * 8 + 2, CODE3)
    assert note.eip == run.label("denied")


def test_a_fault_after_int_n_is_at_its_own_address() -> None:
    run = run_both("""
    test:
        PAGING
        EXPECT 1f
        int $0x40
    1:  EXPECT 2f
    fault: movl 0x500000, %eax
    2:  EXIT 1
    """)
    assert [note.vector for note in run.notes] == [0x40, PF]
    assert run.notes[1].eip == run.label("fault")


def test_idt_limit() -> None:
    run = run_both("""
    test:
        EXPECT 1f
        lidtl short_idt
    fault: int $0x40
        EXIT 2
    1:  EXIT 1
    short_idt: .word 0x40 * 8 - 1
        .long IDT
    """)
    assert [(note.vector, note.error, note.eip) for note in run.notes] == [(GP, 0x40 * 8 + 2, run.label("fault"))]


def test_gate_not_present() -> None:
    run = run_both("""
    test:
        movb $0x0E, IDT + 8 * 0x40 + 5
        EXPECT 1f
    fault: int $0x40
    1:  EXIT 1
    """)
    (note,) = run.notes
    assert (note.vector, note.error) == (NP, 0x40 * 8 + 2)
    assert note.eip == run.label("fault")


def test_interrupt_gate_clears_if_and_trap_gate_keeps_it() -> None:
    run = run_both("""
    test:
        movl $(seen - 0xF0000 + CODE0 * 0x10000), IDT + 8 * 0x40
        movb $0x8F, IDT + 8 * 0x40 + 5
        movl $(seen - 0xF0000 + CODE0 * 0x10000), IDT + 8 * 0x41
        movb $0xFF, %al
        outb %al, $0x21
        outb %al, $0xA1
        sti
        movl $0x6000, %edi
        int $0x40
        int $0x41
        EXIT 1
    seen: pushfl
        popl (%edi)
        addl $4, %edi
        iretl
    """)
    assert run.stop == exits_with(1)
    assert [run.word(0x6000) >> 9 & 1, run.word(0x6004) >> 9 & 1] == [1, 0]


def test_a_16_bit_gate_pushes_words() -> None:
    """Its handler has a 16-bit offset: one in low memory."""
    run = run_both("""
    test:
        movl $0x01B0F490, 0x20000 - 0x1A000
        movl $0xFEEBF4E6, 0x20004 - 0x1A000
        movl $0x01B09090, 0x6000
        movl $0xFEEBF4E6, 0x6004
        movl $(CODE0 * 0x10000 + 0x6000), IDT + 8 * 0x40
        movb $0x86, IDT + 8 * 0x40 + 5
        pushl $0x0F0F0F0F
        int $0x40
    after: nop
    """)
    assert run.stop == exits_with(1)
    words = [run.word(0x7000 - 4 - 6 + 2 * n) & 0xFFFF for n in range(4)]
    assert words[0] == run.label("after") & 0xFFFF
    assert (words[1], words[3]) == (CODE0, 0x0F0F)


def test_iret_to_ring_3_and_back_keeps_registers() -> None:
    run = run_both(
        """
    test:
        PAGING
        movb $0xEE, IDT + 8 * 0x40 + 5
        movl $0x11111111, %ecx
        movl $0x22222222, %esi
        EXPECT 1f
        RING3 user
    user: incl %ecx
        int $0x40
        EXIT 9
    1:  decl %esi
        movl %ecx, 0x6000
        movl %esi, 0x6004
        movl $2f, RESUME
        int $0x42
        nop
    2:  jmp 2b
    """,
        limit=30_000,
    )
    assert (run.word(0x6000), run.word(0x6004)) == (0x11111112, 0x22222221)
    assert vectors(run) == [0x40, GP]


# ---- double and triple faults ---------------------------------------------------------------------------------------


def test_double_fault() -> None:
    """#GP whose handler's segment is not there: #NP while #GP is delivered."""
    run = run_both("""
    test:
        PAGING
        movw $0x30, IDT + 8 * 13 + 2
        movb $0x13, GDT + 0x35
        EXPECT 1f
        movl $0x20, %ecx
    fault: rdmsr
    1:  EXIT 1
    """)
    assert [(note.vector, note.error, note.eip) for note in run.notes] == [(DF, 0, run.label("fault"))]


def test_page_fault_whose_gate_is_not_mapped_is_a_double_fault() -> None:
    run = run_both("""
    test:
        PAGING
        movb $0, IDT + 8 * 14 + 5
        EXPECT 1f
        movl 0x500000, %eax
    1:  EXIT 1
    """)
    assert vectors(run) == [DF]


def test_page_fault_while_a_general_protection_fault_is_delivered() -> None:
    """#GP then #PF: no double fault, the page fault is delivered (SDM table 6-5). Only the gate of #GP is out of reach."""
    run = run_both("""
    .set SECOND, 0x21000 - 8 * 14
    test:
        PAGING
        movl $IDT, %esi
        movl $SECOND, %edi
        movl $512, %ecx
        rep movsl
        movl $0, TABLE + 4 * 0x20
        movl %cr3, %eax
        movl %eax, %cr3
        lidtl second
        EXPECT 1f
        movl $0x20, %ecx
    fault: rdmsr
    1:  EXIT 1
    second: .word 0x7FF
        .long SECOND
    """)
    (note,) = run.notes
    assert (note.vector, note.error, note.eip, note.cr2) == (PF, 0, run.label("fault"), 0x20FF8)


@pytest.mark.parametrize("paging", ["", "PAGING"])
def test_triple_fault(paging: str) -> None:
    run = run_both(f"""
    test:
        {paging}
        lidtl no_idt
        ud2
        EXIT 1
    no_idt: .word 0
        .long 0
    """)
    assert run.stop.outcome is Outcome.TRIPLE_FAULT


def test_a_stack_that_is_not_there_is_a_triple_fault() -> None:
    run = run_both("""
    test:
        PAGING
        movl $0x600000, %esp
        ud2
    """)
    assert run.stop.outcome is Outcome.TRIPLE_FAULT


@pytest.mark.parametrize("esp", [0x7001, 0x7002, 0x7003, 0x7006, 0x700B])
def test_a_frame_on_a_misaligned_stack_may_cross_pages_within_an_item(esp: int) -> None:
    """No byte of it goes to the frame of the machine that happens to lie behind: here a page table was hit, elsewhere it may be another VM's."""
    run = run_both(f"""
    test:
        PAGING
        movl $0xFFFFFFFF, 0x6FF0
        movl $0xFFFFFFFF, 0x7000
        movl ${esp:#x}, %esp
        EXPECT 1f
    fault: ud2
    1:  movl $0x7000, %esp
        EXIT 1
    """)
    cs, flags = (int.from_bytes(run.vm.read_physical(esp - at, 4), "little") for at in (8, 4))
    assert (cs, flags) == (8, 0x10002)
    assert [run.word(0x1_1000 + 4 * page) & ~0x60 for page in range(1024)] == [page << 12 | 7 for page in range(1024)]
