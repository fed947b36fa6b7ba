# SPDX-License-Identifier: GPL-2.0-or-later
"""Events into tiny guests: what a handler is given, and what the instruction that caused the event left undone.

Every program runs under shadow and under nested paging and must leave the same memory and the same count of retired
instructions (`run_both`). Expectations are those of the manuals: Intel SDM vol. 3, chapter 6; AMD64 APM vol. 2, chapter 8.
"""

from __future__ import annotations

import pytest

from emu.config import Mmu
from emu.events import Kind, Outcome
from tests.vm.harness import TABLE, Run, exits_with, run, run_apart, run_both

DE, DB, BP, UD, DF, TS, NP, SS, GP, PF = 0, 1, 3, 6, 8, 10, 11, 12, 13, 14
RF = 1 << 16
CODE0, CODE3, DATA3 = 0x08, 0x1B, 0x23
mmus = pytest.mark.parametrize("mmu", list(Mmu))


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
        ("movl $0xC0000080, %ecx; rdmsr", GP, 0),
        ("movl $0xC0000080, %ecx; wrmsr", GP, 0),
        ("movl $0x80000000, %eax; movl %eax, %cr0", GP, 0),
        ("movl $0x20, %eax; movl %eax, %cr4", GP, 0),
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


# ---- ports ----------------------------------------------------------------------------------------------------------


def test_denied_port_access_changes_nothing() -> None:
    """IN denied by the bitmap: #GP at the IN, AL unchanged, no instruction after it carried out."""
    run = run_both(
        """
    test:
        PAGING
        movw $0x68, TSS + 102
        movl $0x68, %edi
    1:  movb $0xFF, TSS(%edi)
        incl %edi
        cmpl $0x200, %edi
        jb 1b
        EXPECT 2f
        RING3 user
    user:
        movl $0x55, %eax
        movl $0x66, %ebx
    denied: inb $0x61, %al
        movl $0x77, %ebx
    2:  movl %eax, 0x6000
        movl %ebx, 0x6004
        EXPECT 3f
    denied_out: outb %al, $0xE9
        movl $0x88, %ebx
    3:  movl %ebx, 0x6008
    4:  jmp 4b
    """,
        limit=30_000,
    )
    assert [(note.vector, note.error, note.eip) for note in run.notes] == [
        (GP, 0, run.label("denied")),
        (GP, 0, run.label("denied_out")),
    ]
    assert [run.word(at) for at in (0x6000, 0x6004, 0x6008)] == [0x55, 0x66, 0x66]
    assert not len(run.of_kind(Kind.PORT_READ))
    assert not len(run.of_kind(Kind.PORT_WRITE))


def test_port_access_allowed_by_the_bitmap_and_by_iopl() -> None:
    run = run_both(
        """
    test:
        PAGING
        movw $0x68, TSS + 102
        movl $0x68, %edi
    1:  movb $0xFF, TSS(%edi)
        incl %edi
        cmpl $0x200, %edi
        jb 1b
        movb $0xFD, TSS + 0x68 + (0xE9 / 8)
        EXPECT 2f
        RING3 user
    user: movb $'A', %al
        outb %al, $0xE9
        outw %ax, $0xE9
    2:  movl $0x7000, TSS + 4
        EXPECT 3f
        movb $0xEE, IDT + 8 * 0x40 + 5
        int $0x40
    3:  jmp 3b
    """,
        limit=30_000,
    )
    writes = run.of_kind(Kind.PORT_WRITE)
    assert [(int(w["va"]), int(w["new"]), int(w["info"])) for w in writes] == [(0xE9, ord("A"), 1)]
    assert vectors(run) == [GP, 0x40]


def test_iopl_3_needs_no_bitmap() -> None:
    run = run_both("""
    test:
        PAGING
        RING3 user, 0x3002
    user: EXIT 6
    """)
    assert run.stop == exits_with(6)


def test_string_port_output() -> None:
    run = run_both("""
    test:
        PAGING
        movl $text, %esi
        movl $5, %ecx
        movw $0xE9, %dx
        rep outsb
        movl %ecx, 0x6000
        subl $text, %esi
        movl %esi, 0x6004
        EXIT 1
    text: .ascii "hello"
    """)
    assert bytes(run.vm.console.debug) == b"hello"  # type: ignore[attr-defined]
    assert (run.word(0x6000), run.word(0x6004)) == (0, 5)


# ---- instructions that the VMM carries out --------------------------------------------------------------------------


def test_cpuid_rdtsc_and_machine_status() -> None:
    run = run_both("""
    test:
        PAGING
        xorl %eax, %eax
        cpuid
        movl %ebx, 0x6000
        movl %edx, 0x6004
        movl %ecx, 0x6008
        rdtsc
        movl %eax, %esi
        rdtsc
        subl %esi, %eax
        movl %eax, 0x600C
        smsw 0x6010
        movw $0x9, 0x6020
        lmsw 0x6020
        smsw %eax
        movl %eax, 0x6014
        clts
        movl %cr0, %eax
        movl %eax, 0x6018
        movl $0x10, %ecx
        rdmsr
        movl %eax, %esi
        rdtsc
        subl %esi, %eax
        movl %eax, 0x601C
        EXIT 1
    """)
    assert run.stop == exits_with(1)
    name = b"".join(run.word(at).to_bytes(4, "little") for at in (0x6000, 0x6004, 0x6008))
    assert name == b"AuthenticAMD"
    assert run.word(0x600C) == 2  # RDTSC and MOV: virtual time counts instructions
    assert run.word(0x6010) == 0x0011
    assert run.word(0x6014) == 0x80010019
    assert run.word(0x6018) == 0x80010011
    assert run.word(0x601C) == 2


def test_smsw_to_a_page_that_is_not_there() -> None:
    run = run_both("""
    test:
        PAGING
        EXPECT 1f
    fault: smsw 0x500000
    1:  EXPECT 2f
        lmsw 0x500000
    2:  EXIT 1
    """)
    assert [(n.vector, n.error, n.cr2) for n in run.notes] == [(PF, 2, 0x500000), (PF, 0, 0x500000)]


def test_hlt_without_interrupts_is_the_end() -> None:
    run = run_both("test: hlt")
    assert run.stop.outcome is Outcome.HALTED


@pytest.mark.parametrize("insn", ["hlt", "movl %cr0, %eax", "movl %eax, %cr3", "clts", "invlpg 0", "invd", "rdmsr", "cli"])
def test_privileged_instructions_in_ring_3(insn: str) -> None:
    run = run_both(
        f"""
    test:
        PAGING
        EXPECT 1f
        RING3 user
    user: {insn}
    1:  jmp 1b
    """,
        limit=30_000,
    )
    assert [(n.vector, n.error, n.cs, n.eip) for n in run.notes] == [(GP, 0, CODE3, run.label("user"))]


def test_hlt_sleeps_until_the_timer_interrupts() -> None:
    run = run_both("""
    test:
        PAGING
        movb $0x30, %al
        outb %al, $0x43
        movb $0x11, %al
        outb %al, $0x20
        movb $0x20, %al
        outb %al, $0x21
        movb $4, %al
        outb %al, $0x21
        movb $1, %al
        outb %al, $0x21
        movb $0xFE, %al
        outb %al, $0x21
        movb $0x30, %al
        outb %al, $0x43
        movb $0, %al
        outb %al, $0x40
        movb $0x10, %al
        outb %al, $0x40
        EXPECT 1f
        sti
        hlt
    after: EXIT 2
    1:  EXIT 1
    """)
    assert run.stop == exits_with(1)
    assert [(n.vector, n.eip) for n in run.notes] == [(0x20, run.label("after"))]
    assert run.vm.virtual_time > run.vm.retired_insns


def test_programming_the_timer_is_no_tick() -> None:
    run = run_both("""
    test:
        movb $0x11, %al
        outb %al, $0x20
        movb $0x20, %al
        outb %al, $0x21
        movb $4, %al
        outb %al, $0x21
        movb $1, %al
        outb %al, $0x21
        movb $0xFE, %al
        outb %al, $0x21
        movb $0x30, %al
        outb %al, $0x43
        movb $0, %al
        outb %al, $0x40
        movb $0x10, %al
        outb %al, $0x40
        sti
        nop
        nop
        cli
        EXIT 1
    """)
    assert run.notes == []


def test_nothing_after_the_exit_port_has_effect() -> None:
    run = run_both("""
    test:
        movl $0, 0x6000
        movb $1, %al
        outb %al, $0xF4
        movl $0x1234, 0x6000
        jmp .
    """)
    assert run.stop == exits_with(1)
    assert run.word(0x6000) == 0


# ---- real mode ------------------------------------------------------------------------------------------------------


def test_real_mode_interrupt() -> None:
    run = run_both(
        """
    .code16
    test:
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %ss
        movw $0x7000, %sp
        movw $(handler - start), 0x40 * 4
        movw $0xF000, 0x40 * 4 + 2
        sti
        int $0x40
        movw %sp, 0x6002
        movb $3, %al
        outb %al, $0xF4
        jmp .
    handler:
        pushfw
        popw 0x6000
        movw %sp, %bp
        movw (%bp), %ax
        movw %ax, 0x6004
        movw 2(%bp), %ax
        movw %ax, 0x6006
        movw 4(%bp), %ax
        movw %ax, 0x6008
        iretw
    """,
        real_mode=True,
    )
    assert run.stop == exits_with(3)
    assert run.word(0x6000) & 0x200 == 0
    assert run.word(0x6000) >> 16 == 0x7000
    assert run.word(0x6004) >> 16 == 0xF000
    assert run.word(0x6008) & 0x200


def test_real_mode_divide_error_is_at_the_instruction() -> None:
    run = run_both(
        """
    .code16
    test:
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %ss
        movw $0x7000, %sp
        movw $(handler - start), 0
        movw $0xF000, 2
        xorw %cx, %cx
    fault: divw %cx
    handler:
        popw 0x6000
        movb $3, %al
        outb %al, $0xF4
    """,
        real_mode=True,
    )
    assert run.stop == exits_with(3)
    assert run.word(0x6000) & 0xFFFF == run.label("fault") & 0xFFFF


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
