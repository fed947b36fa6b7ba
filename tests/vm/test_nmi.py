# SPDX-License-Identifier: GPL-2.0-or-later
"""NMIs: when they come, what keeps them off, and what they end. Sent by the local APIC to its own processor, by number."""

from __future__ import annotations

import pytest

from emu.config import Mmu
from emu.events import Kind, Outcome
from emu.vm import clock
from tests.vm.harness import Run, assemble, exits_with, make, run_both

NMI, NMI_MODE = 2, 4
APIC = """
    .set ICR, 0xFEE00300
    .macro SEND_NMI
        movl $0x400, ICR
    .endm
"""


def seen(run: Run) -> list[tuple[int, int]]:
    return [(note.vector, note.eip) for note in run.notes]


def test_an_nmi_comes_with_interrupts_off_behind_the_store() -> None:
    run = run_both(f"""{APIC}
    test:
        EXPECT 1f
        SEND_NMI
    behind: nop
        nop
        EXIT 2
    1:  EXIT 1
    """)
    assert run.stop == exits_with(1)
    assert seen(run) == [(NMI, run.label("behind"))]
    assert [int(record["info"]) for record in run.of_kind(Kind.INTERRUPT)] == [NMI]


def test_one_nmi_waits_for_iret() -> None:
    """Two more are sent while the first is served: one comes, right behind the IRET that ends the service."""
    run = run_both(f"""{APIC}
    test:
        movl $handler, %eax
        movw %ax, IDT + 16
        shrl $16, %eax
        movw %ax, IDT + 22
        xorl %ebx, %ebx
        SEND_NMI
    behind: nop
        nop
        movl %ebx, 0x6000
        EXIT 1
    handler:
        incl %ebx
        cmpl $1, %ebx
        jne 2f
        SEND_NMI
        SEND_NMI
        nop
        movl %ebx, 0x6004
        movl (%esp), %eax
        movl %eax, 0x6008
        iretl
    2:  movl (%esp), %eax
        movl %eax, 0x600C
        iretl
    """)
    assert run.stop == exits_with(1)
    assert [run.word(at) for at in (0x6000, 0x6004)] == [2, 1]
    assert [run.word(at) for at in (0x6008, 0x600C)] == [run.label("behind")] * 2


def test_without_iret_no_second_nmi_comes_and_hlt_is_for_ever() -> None:
    run = run_both(f"""{APIC}
    test:
        movl $1f, %eax
        movw %ax, IDT + 16
        shrl $16, %eax
        movw %ax, IDT + 22
        SEND_NMI
        jmp .
    1:  SEND_NMI
        nop
        nop
        hlt
    """)
    assert run.stop.outcome is Outcome.HALTED


def test_an_nmi_ends_hlt_with_interrupts_off() -> None:
    """By the I/O APIC from the timer; the clock runs on over the HLT."""
    run = run_both("""
    test:
        movl $0x14, 0xFEC00000
        movl $0x400, 0xFEC00010
        movb $0x30, %al
        outb %al, $0x43
        movb $0, %al
        outb %al, $0x40
        movb $0x10, %al
        outb %al, $0x40
        EXPECT 1f
        hlt
    behind: EXIT 2
    1:  EXIT 1
    """)
    assert run.stop == exits_with(1)
    assert seen(run) == [(NMI, run.label("behind"))]
    assert run.vm.virtual_time > run.vm.retired_insns


def test_an_nmi_in_64_bit_code_goes_through_its_gate() -> None:
    run = run_both(f"""{APIC}
    test:
        LONG_MODE
        movl $0xFEE0009B, WIDE_TABLE + 0x1000 + 8 * 0x1FF
        invlpg 0x3FF000
        EXPECT 1f
        movl $0x400, 0x3FF300
    behind: nop
        nop
        EXIT 2
    1:  EXIT 1
    """)
    assert run.stop == exits_with(1)
    assert seen(run) == [(NMI, run.label("behind"))]


@pytest.mark.parametrize("mmu", list(Mmu))
def test_real_mode(mmu: Mmu) -> None:
    """By a device's hand: real-mode code does not reach the APIC."""
    program = assemble(
        """
    .code16
    test:
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %ss
        movw $0x7000, %sp
        movw $(handler - start), 8
        movw $0xF000, 10
    1:  incw %cx
        jmp 1b
    handler:
        popw 0x6000
        movw %ss, %ax
        movw %ax, %ss
        movb $3, %al
        outb %al, $0xF4
        jmp .
    """,
        real_mode=True,
    )
    vm, _ = make(program.rom, mmu)
    vm.run_until(1000)
    vm.board.apic.accept(0, NMI_MODE, 0, logical=False)
    assert vm.run(limit=10_000) == exits_with(3)
    assert int.from_bytes(vm.read_physical(0x6000, 2), "little") in range(
        program.labels["test"] & 0xFFFF, program.labels["handler"] & 0xFFFF
    )
    assert not clock.takes_interrupt(vm.control)
