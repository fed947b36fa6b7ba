# SPDX-License-Identifier: GPL-2.0-or-later
"""Instructions that leave the processor: ports and who may use them, what the VMM carries out, real mode.

Every program runs under both MMUs, which must agree (`run_both`).
"""

from __future__ import annotations

import pytest

from emu.events import Kind, Outcome
from tests.vm.harness import Run, exits_with, run_both

GP, PF = 13, 14
CODE3 = 0x1B


def vectors(run: Run) -> list[int]:
    return [note.vector for note in run.notes]


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


def test_a_traced_hlt_ends_with_its_trap() -> None:
    """No interrupt can come, but the guest traces itself: #DB comes right behind the HLT."""
    run = run_both("""
    test:
        EXPECT 1f
        pushl $0x302
        popfl
        hlt
    after: nop
    1:  EXIT 1
    """)
    assert run.stop == exits_with(1)
    assert [(note.vector, note.eip) for note in run.notes] == [(1, run.label("after"))]
