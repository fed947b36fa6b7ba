# SPDX-License-Identifier: GPL-2.0-or-later
"""PAE and long mode: what guests of a few instructions can tell of paging, events and system calls there."""

from __future__ import annotations

import pytest

from emu.events import Outcome
from tests.vm.harness import exits_with, run, run_both

DE, UD, DF, GP, PF = 0, 6, 8, 13, 14
P, W, U, RSVD, F = 1, 2, 4, 8, 16


def test_pae_paging_maps_and_faults() -> None:
    done = run_both("""
    test:
        PAE_PAGING
        movl $0x1234, 0x300000
        movl $0x300067, WIDE_TABLE + 0x1000 + 8 * 0x40
        invlpg 0x240000
        movl 0x240000, %eax
        movl %eax, 0x6000
        movl $0, WIDE_TABLE + 0x1000 + 8 * 0x40
        invlpg 0x240000
        EXPECT 1f
        movl 0x240000, %eax
    1:  EXPECT 2f
        movl $1, 0x40000000
    2:  EXIT 1
    """)
    assert done.stop == exits_with(1)
    assert done.word(0x6000) == 0x1234
    assert [(note.vector, note.error, note.cr2) for note in done.notes] == [(PF, 0, 0x24_0000), (PF, W, 0x4000_0000)]


@pytest.mark.parametrize("nx", [0, 1])
def test_nx_denies_fetches_where_it_is_on_and_is_reserved_where_not(nx: int) -> None:
    done = run_both(f"""
    test:
        PAE_PAGING {nx}
        movb $0xC3, 0x300000
        movl $0x80000000, WIDE_TABLE + 0x1000 + 8 * 0x100 + 4
        invlpg 0x300000
        EXPECT 1f
        call 0x300000
    1:  EXPECT 2f
        movb 0x300000, %al
    2:  EXIT 1
    """)
    fetch = [(PF, P | F)] if nx else [(PF, P | RSVD)]
    load = [] if nx else [(PF, P | RSVD)]
    assert [(note.vector, note.error) for note in done.notes] == fetch + load


def test_64_bit_code_runs_and_its_faults_are_delivered() -> None:
    done = run_both("""
    test:
        LONG_MODE
        movabsq $0x123456789ABCDEF0, %rax
        movq %rax, 0x6000
        EXPECT 1f
        movabsq $0xFFFF800000000000, %rbx
        movq (%rbx), %rax
    1:  EXPECT 2f
        movabsq $0x0000800000000000, %rbx
        movq (%rbx), %rax
    2:  EXPECT 3f
        ud2
    3:  EXIT 1
    """)
    assert done.stop == exits_with(1)
    assert (done.word(0x6000), done.word(0x6004)) == (0x9ABC_DEF0, 0x1234_5678)
    assert [(note.vector, note.error) for note in done.notes] == [(PF, 0), (GP, 0), (UD, 0)]
    assert (done.notes[0].esp, done.notes[0].ss) == (0x7000, 0x10)  # SS and RSP are there without a change of privilege


def test_system_calls_go_in_and_out() -> None:
    done = run_both("""
    test:
        LONG_MODE
        movl $0xC0000081, %ecx
        xorl %eax, %eax
        movl $(0x43 << 16) | CODE64, %edx
        wrmsr
        movl $0xC0000082, %ecx
        movl $entry, %eax
        xorl %edx, %edx
        wrmsr
        movl $0xC0000084, %ecx
        movl $0x200, %eax
        wrmsr
        RING3_64 user, 0x202
    user:
        movl $7, %edi
        syscall
        movq %rax, 0x6000
        syscall
        hlt
    entry:
        cmpl $7, %edi
        jne 1f
        movw %cs, 0x6010
        movw %ss, 0x6012
        movq %r11, 0x6018
        pushfq
        popq %rax
        movq %rax, 0x6020
        movl $0x77, %eax
        incl %edi
        sysretq
    1:  EXIT 1
    """)
    assert done.stop == exits_with(1)
    assert done.word(0x6000) == 0x77
    assert done.word(0x6010) == 0x48_0040
    assert done.word(0x6018) & 0x200
    assert not done.word(0x6020) & 0x200


def test_syscall_without_sce_is_undefined() -> None:
    done = run_both("""
    test:
        LONG_MODE
        movl $0xC0000080, %ecx
        rdmsr
        andl $~1, %eax
        wrmsr
        movl $0x31, %esi
        EXPECT 1f
    here:
        syscall
        movl $0x32, %esi
    1:  movl %esi, 0x6000
        EXIT 1
    """)
    assert [(note.vector, note.eip) for note in done.notes] == [(UD, done.label("here"))]
    assert done.word(0x6000) == 0x31


def test_an_interrupt_stack_takes_a_double_fault() -> None:
    done = run_both("""
    test:
        LONG_MODE
        movl $0x9000, TSS + 0x24
        movb $1, IDT + 16 * 8 + 4
        movabsq $0x4000000000, %rsp
        EXPECT 1f
        movl 0x40000000, %eax
    1:  movl $STACK, %esp
        EXIT 1
    """)
    (note,) = done.notes
    assert (note.vector, note.error) == (DF, 0)
    assert note.cr2 == (0x40_0000_0000 - 8) & 0xFFFF_FFFF  # of the page fault on the push, which came last


def test_control_registers_are_64_bits_wide_and_guarded() -> None:
    done = run_both("""
    test:
        LONG_MODE
        EXPECT 1f
        movq %cr4, %rax
        andl $~0x20, %eax
        movq %rax, %cr4
    1:  EXPECT 2f
        movq %cr0, %rax
        andl $0x7FFFFFFF, %eax
        movq %rax, %cr0
    2:  EXPECT 3f
        movabsq $0x8000000000020000, %rax
        movq %rax, %cr3
    3:  movq $5, %rax
        movq %rax, %cr8
        movq %cr8, %rbx
        movq %rbx, 0x6000
        EXIT 1
    """)
    assert [note.vector for note in done.notes] == [GP, GP, GP]


def test_large_pages_of_long_mode() -> None:
    done = run_both("""
    test:
        LONG_MODE
        movl $0xABCD, 0x300000
        movl $0x83, POINTERS + 8
        movabsq $0x40300000, %rbx
        movl (%rbx), %eax
        movl %eax, 0x6000
        movl $0x200083, WIDE_DIRECTORY + 16
        movl 0x500000, %eax
        movl %eax, 0x6004
        movl $1, 0x500000
        movl WIDE_DIRECTORY + 16, %eax
        movl %eax, 0x6008
        movl POINTERS + 8, %eax
        movl %eax, 0x600C
        EXIT 1
    """)
    assert done.stop == exits_with(1)
    assert (done.word(0x6000), done.word(0x6004)) == (0xABCD, 0xABCD)
    assert (done.word(0x6008), done.word(0x600C)) == (0x20_00E3, 0xA3)


def test_supervisor_mode_prevention() -> None:
    done = run_both("""
    test:
        LONG_MODE
        movb $0xC3, 0x300000
        movl $WIDE_TABLE, %edi
        movl $0x200, %ecx
    1:  andl $~4, (%rdi)
        addl $8, %edi
        loop 1b
        movq %cr3, %rax
        movq %rax, %cr3
        movq %cr4, %rax
        orl $0x300000, %eax
        movq %rax, %cr4
        EXPECT 2f
        call 0x300000
    2:  EXPECT 3f
        movl 0x300000, %eax
    3:  stac
        movl 0x300000, %eax
        movl $9, 0x300004
        clac
        EXPECT 4f
        movl $8, 0x300004
    4:  EXIT 1
    """)
    assert [(note.vector, note.error) for note in done.notes] == [(PF, P | F), (PF, P), (PF, P | W)]


def test_long_mode_is_left_and_entered_again() -> None:
    done = run("""
    test:
        LONG_MODE
        pushq $CODE0
        pushq $compatible
        lretq
    .code32
    compatible:
        movl $DATA0, %eax
        movw %ax, %ds
        movw %ax, %ss
        movl %cr0, %eax
        andl $0x7FFFFFFF, %eax
        movl %eax, %cr0
        movl $0xC0000080, %ecx
        rdmsr
        movl %eax, 0x6000
        andl $~0x100, %eax
        wrmsr
        movl %cr4, %eax
        andl $~0x20, %eax
        movl %eax, %cr4
        PAGING
        movl $0x55AA, 0x300000
        movl %cr0, %eax
        andl $0x7FFFFFFF, %eax
        movl %eax, %cr0
        call long_mode_on
        ljmpl $CODE64, $again
    .code64
    again:
        movq 0x300000, %rax
        movl %eax, 0x6004
        EXIT 1
    """)
    assert done.stop == exits_with(1)
    assert done.word(0x6000) & 0x500 == 0x100
    assert done.word(0x6004) == 0x55AA


def test_hostile_roots_end_cleanly() -> None:
    for source in ("movabsq $0x7FFFFFF000, %rax; movq %rax, %cr3", "movq $0xF0000, %rax; movq %rax, %cr3"):
        assert run(f"test: LONG_MODE; {source}").stop.outcome is Outcome.TRIPLE_FAULT


@pytest.mark.parametrize("mode", ["", "PAGES", "LONG_MODE"])
def test_the_local_apic_can_be_switched_off_and_on(mode: str) -> None:
    """Its page is absent memory while it is off."""
    pages = """
        PAGING
        movl $0x14003, DIRECTORY + 4 * 0x3FB
        movl $0xFEE00003, 0x14000 + 4 * 0x200
    """
    enter = {"": "", "PAGES": pages, "LONG_MODE": "LONG_MODE\n movl $0xC0000083, POINTERS + 8 * 3"}[mode]
    load = "movl $0xFEE00030, %ebx\n movl (%rbx), %eax" if mode == "LONG_MODE" else "movl 0xFEE00030, %eax"
    done = run_both(f"""
    test:
        {enter}
        {load}
        movl %eax, 0x6000
        movl $0x1B, %ecx
        rdmsr
        andl $~0x800, %eax
        wrmsr
        {load}
        movl %eax, 0x6004
        movl $1, %eax
        cpuid
        movl %edx, 0x6008
        movl $0x1B, %ecx
        rdmsr
        orl $0x800, %eax
        wrmsr
        {load}
        movl %eax, 0x600C
        EXIT 1
    """)
    assert done.stop == exits_with(1)
    assert done.word(0x6000) == done.word(0x600C)
    assert done.word(0x6000) & 0xFF == 0x14
    assert done.word(0x6004) == 0xFFFF_FFFF
    assert not done.word(0x6008) & 1 << 9


def test_a_jump_into_the_apics_registers_stops_the_vm() -> None:
    done = run("test: movl $0xFEE00000, %eax; jmp *%eax")
    assert done.stop.outcome is Outcome.UNSUPPORTED
    assert "device" in done.stop.why
