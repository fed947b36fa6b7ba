# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs of faults: straight-line code that comes to the VMM at each instruction. The guest must not be able to tell."""

from __future__ import annotations

import pytest

from emu.config import Mmu
from emu.devices import apic
from emu.machine import control as cbw
from emu.units import MIB
from emu.vm import fault_runs
from tests.vm.harness import exits_with, run, run_both

TRAP_FLAG = 1 << 8
ABSENT = """
    test:
        PAGING
        movl $0xE8000003, TABLE + 4 * 0x300
        movl $0x300000, %ebx
"""
MANY = 2000  # instructions


@pytest.mark.parametrize("mmu", list(Mmu))
def test_straight_line_faults_are_not_translated_over_and_over(mmu: Mmu) -> None:
    """Each of MANY stores would have the rest of its block, up to 512 instructions, translated again: more than the engine's buffer holds."""
    done = run(ABSENT + f".rept {MANY}\n addb %al, (%ebx)\n .endr\n EXIT 1", mmu)
    assert done.stop == exits_with(1)
    assert done.vm.cpu.engine.code_buffer.used_bytes() <= 4 * MIB


def test_what_shows_the_flags_ends_a_run() -> None:
    """PUSHF, INT n, LAHF and a fault for the guest, each in the middle of a run: the trap flag is nowhere to be seen."""
    stores = ".rept 8\n movl %eax, (%ebx)\n .endr\n"
    done = run_both(
        ABSENT
        + stores
        + "pushfl\n popl 0x6000\n"
        + stores
        + "EXPECT 1f\n int $0x31\n 1:\n"
        + stores
        + "EXPECT 2f\n movl 0x40000000, %eax\n 2:\n"
        + stores
        + "EXPECT 3f\n ud2\n 3:\n"
        + stores
        + "pushl $0x102\n popfl\n movl %eax, (%ebx)\n EXIT 1"
    )
    assert not done.word(0x6000) & TRAP_FLAG
    assert [note.vector for note in done.notes[:3]] == [0x31, 14, 6]
    assert not any(note.eflags & TRAP_FLAG for note in done.notes[:3])
    assert done.notes[3].vector == 1  # the guest's own trap


@pytest.mark.parametrize("mmu", list(Mmu))
def test_virtual_time_is_that_of_other_code(mmu: Mmu) -> None:
    """The same instructions with a jump behind each, which keeps blocks short, and without: they differ by the jumps."""
    straight = run(ABSENT + ".rept 100\n xaddl %eax, (%ebx)\n nop\n .endr\n EXIT 1", mmu)
    jumping = run(ABSENT + ".rept 100\n xaddl %eax, (%ebx)\n jmp . + 2\n .endr\n EXIT 1", mmu)
    assert straight.vm.retired_insns == jumping.vm.retired_insns


def test_repeated_stores_in_a_row() -> None:
    """REP STOS and single string stores to absent memory, among others: EDI, ECX and virtual time are right under both MMUs."""
    done = run_both(
        ABSENT
        + ".rept 6\n movl $3, %ecx\n movl %ebx, %edi\n rep stosl\n stosl\n movl %edi, (%ebx)\n .endr\n movl %edi, 0x6000\n EXIT 1"
    )
    assert done.word(0x6000) == 0x300010


@pytest.mark.parametrize("mmu", list(Mmu))
def test_registers_of_a_device_in_a_row(mmu: Mmu) -> None:
    """The APIC's task priority is written by one instruction after another."""
    source = f"""
    test:
        PAGING
        movl ${apic.ADDRESSES.start + 3:#x}, TABLE + 4 * 0x300
        movl $0x300080, %ebx
        .set value, 0
        .rept 40
        movl $value, (%ebx)
        .set value, value + 1
        .endr
        movl (%ebx), %eax
        movl %eax, 0x6000
        EXIT 1
    """
    assert run(source, mmu).word(0x6000) == 39


def test_a_stop_in_a_run_leaves_the_flags_as_they_are() -> None:
    """A limit in the middle of a run: the guest's flags are its own, and it goes on as if nothing had been."""
    source = ABSENT + ".rept 200\n movl %eax, (%ebx)\n .endr\n EXIT 1"
    whole = run(source)
    for limit in range(whole.vm.retired_insns - 60, whole.vm.retired_insns - 50):
        stopped = run(source, limit=limit)
        assert stopped.vm.retired_insns == limit
        assert not stopped.vm.registers.flags & TRAP_FLAG
        assert not stopped.vm.control[cbw.IN_RUN]


def test_a_live_directory_swept_by_misaligned_stores() -> None:
    """REP STOS over a table that the page it lies in is reached by: it is mirrored again as soon as it is given up."""
    done = run_both("""
    test:
        PAE_PAGING
        cld
        movl $WIDE_DIRECTORY + 0x7FE, %edi
        movl $0x80, %ecx
        xorl %eax, %eax
        rep stosl
        movl %edi, 0x6000
        EXIT 1
    """)
    assert done.word(0x6000) == 0x229FE
    assert done.stop == exits_with(1)


def test_the_opcodes_of_a_run_are_those_that_cannot_tell() -> None:
    """Whatever reads or sets EFLAGS as a whole, ends the block for the engine, or calls a hook of it, is left out."""
    one_byte = {opcode for opcode in range(256) if fault_runs.PLAIN[opcode]}
    assert not one_byte & {0x0F, 0x9C, 0x9D, 0xCC, 0xCD, 0xCE, 0xCF, 0xF1, 0xF4, 0xFA, 0xFB, 0x8E, 0x17, 0x9A, 0xEA, 0xCA, 0xCB}
    assert not one_byte & {0x6C, 0x6D, 0x6E, 0x6F, 0xE4, 0xE5, 0xE6, 0xE7, 0xEC, 0xED, 0xEE, 0xEF, 0x62, 0xC4, 0xC5}
    two_byte = {opcode for opcode in range(256) if fault_runs.PLAIN[fault_runs.FIRST_0F + opcode]}
    assert not two_byte & {0x00, 0x01, 0x05, 0x06, 0x07, 0x20, 0x22, 0x30, 0x32, 0x34, 0x35, 0xA2, 0xB2, 0xAA}
