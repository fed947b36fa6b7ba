# SPDX-License-Identifier: GPL-2.0-or-later
"""Hardware task switches at their worst: segments and tables anywhere and full of anything, and a VM that is short of frames.

What a switch does where all is well, and what each fault is, the guests `task`, `taskfaults` and `taskfuzz` of the suite check.
"""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from emu import events
from emu.config import Mmu
from emu.events import Kind, Outcome
from emu.vm import check, reasons
from emu.vm.vm import VirtualMachine
from tests.vm.harness import DIRECTORY, ROM_AT, TABLE, Program, assemble, exits_with, make, run_both

SEEDS = 150
LIMIT = 20_000  # a switch takes 60 instructions; what it leads to may go round for ever
NEW_TASK, OLD_TASK, TSS = 0x58, 0x28, 0x3000
PLACES = [0x5000, 0x5FF0, 0x1000, 0x1058, 0x2000, TSS, DIRECTORY, TABLE, TABLE + 0xFC0, 0x6FE0, 0xB8000]
FAR_PLACES = [
    0xF_0000,
    0xC000_0000,
    0xFFFF_FFC0,
    0xFEE0_0000,
    0xFEC0_0000,
    0x3F_FFF0,
]  # ROM, nothing, the end, devices, the end of RAM
SELECTORS = [0, 3, 0x08, 0x10, 0x1B, 0x23, 0x28, 0x58, 0x30, 0x38, 0x0C, 0x68, 0xFFFF]
ENDS = {Outcome.EXITED, Outcome.TRIPLE_FAULT, Outcome.LIMIT, Outcome.HALTED, Outcome.UNSUPPORTED}

# Puts a descriptor, a task gate and a segment where `places` says, and switches to it as `how` says.
SWITCH = f"""
    test:
        testb $1, paged
        jz 1f
        PAGING
    1:  movl $0x00580000, IDT + 8 * 0x90
        movl $0x00008500, IDT + 8 * 0x90 + 4
        movl $0x00580000, IDT + 8 * 6
        movl $0x00008500, IDT + 8 * 6 + 4
        movl base, %edi
        movl $segment, %esi
        movl $26, %ecx
        rep movsl
        movl low, %eax
        movl %eax, GDT + {NEW_TASK:#x}
        movl high, %eax
        movl %eax, GDT + {NEW_TASK:#x} + 4
        movw link, %ax
        movw %ax, TSS
        jmpl *how
    by_call: lcall ${NEW_TASK:#x}, $0
        EXIT 1
    by_jump: ljmp ${NEW_TASK:#x}, $0
    by_int: int $0x90
        EXIT 1
    by_exception: ud2
    by_iret: pushfl
        orl $0x4000, (%esp)
        popfl
        iretl
    body: EXIT 2
    returning: iretl
        jmp returning
        .balign 16
    paged: .long 0
    base: .long 0
    low: .long 0
    high: .long 0
    link: .long 0
    how: .long 0
    segment: .fill 104
"""
WAYS = ("by_call", "by_jump", "by_int", "by_exception", "by_iret")


def rom_of(program: Program, **fields: bytes) -> bytes:
    """The program's ROM with other contents at some labels."""
    rom = bytearray(program.rom)
    for name, data in fields.items():
        at = program.labels[name] - ROM_AT
        rom[at : at + len(data)] = data
    return bytes(rom)


def word(value: int) -> bytes:
    return struct.pack("<I", value)


def random_segment(chance: random.Random, labels: dict[str, int]) -> bytes:
    """A task state segment that often gets far, and may be anything."""
    words = [chance.getrandbits(32) for _ in range(26)]
    words[7] = chance.choice([DIRECTORY, DIRECTORY, DIRECTORY, 0, TABLE, chance.getrandbits(32)])
    words[8] = chance.choice([labels["body"], labels["returning"], chance.getrandbits(32)])
    words[9] = chance.choice([2, 0x202, 0x20002, 0x102, chance.getrandbits(22)])
    words[14] = chance.choice([0x6800, 0x10800, 4, chance.getrandbits(32)])
    words[18:24] = [chance.choice([0x10, 0x10, *SELECTORS]) for _ in range(6)]
    words[19] = chance.choice([0x08, 0x08, 0x08, *SELECTORS])
    words[24] = chance.choice([0, 0, *SELECTORS])
    words[25] = chance.choice([0, 1])
    return struct.pack("<26I", *words)


def random_fields(seed: int, labels: dict[str, int]) -> dict[str, bytes]:
    chance = random.Random(seed)
    base = chance.choice([*PLACES, *FAR_PLACES, chance.randrange(1 << 22), chance.getrandbits(32)])
    limit = chance.choice([0x67, 0x67, 0x67, 0x2B, 0xFFFF, chance.randrange(0x80)])
    access = chance.choice([0x89, 0x89, 0x8B, 0x81, 0x83, chance.getrandbits(8)])
    way = chance.choice(WAYS)
    if way == "by_iret" and chance.random() < 0.7:
        access |= 2
    return {
        "paged": word(chance.getrandbits(1)),
        "base": word(base),
        "low": word(limit & 0xFFFF | (base & 0xFFFF) << 16),
        "high": word(base >> 16 & 0xFF | access << 8 | base & 0xFF00_0000),
        "link": word(chance.choice([NEW_TASK, NEW_TASK, NEW_TASK, OLD_TASK, *SELECTORS])),
        "how": word(labels[way]),
        "segment": random_segment(chance, labels),
    }


@pytest.mark.parametrize("mmu", [Mmu.SHADOW, Mmu.NESTED])
def test_random_tasks_anywhere_end_as_guests_do(mmu: Mmu) -> None:
    """Nothing is asserted of where they get, but that it is the same each time and that the VM is whole."""
    program = assemble(SWITCH)
    switches, ends = 0, set()
    for seed in range(SEEDS):
        fields = random_fields(seed, program.labels)
        vm, seen = make(rom_of(program, **fields), mmu)
        stop = vm.run(limit=LIMIT)
        check.check(vm.state)
        records = np.concatenate(seen) if seen else np.zeros(0, events.RECORD)
        switches += int((records["kind"] == int(Kind.TASK_SWITCH)).any())
        ends.add(stop.outcome)
        vm.close()
    assert ends <= ENDS
    assert {Outcome.EXITED, Outcome.TRIPLE_FAULT} <= ends
    assert switches > SEEDS // 4


# A task that is called, interrupted into and jumped to, ten times over.
SWITCHES = """
    test:
        movl $(0x67 | (other & 0xFFFF) << 16), GDT + 0x58
        movl $0x00008900, GDT + 0x5C
        movl $handler, other + 0x20
        movl $2, other + 0x24
        movl $0xB000, other + 0x38
        movl $other + 0x48, %edi
        movl $0x10, %eax
        movl $6, %ecx
        rep stosl
        movl $0x08, other + 0x4C
        PAGING
        movl %cr3, %eax
        movl %eax, other + 28
        movl %eax, TSS + 28
        movl $0x00580000, IDT + 8 * 3
        movl $0x00008500, IDT + 8 * 3 + 4
        movl $10, %ecx
    1:  lcall $0x58, $0
        int3
        ljmp $0x58, $0
        loop 1b
        movl turns, %eax
        outb %al, $0xF4
        jmp .
    handler: incl turns
        pushfl
        testl $0x4000, (%esp)
        popl %edx
        jz 2f
        iretl
        jmp handler
    2:  ljmp $0x28, $0
        jmp handler
    .set other, 0xA000
    .set turns, 0x9000
"""


def test_a_switch_without_frames_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a reserve that is a little too small at every switch each waits for more, and the guest cannot tell."""
    visits = []
    refill = VirtualMachine._refill

    def counted(vm: VirtualMachine) -> None:
        visits.append(vm.virtual_time)
        refill(vm)

    monkeypatch.setattr(VirtualMachine, "_refill", counted)
    plain = run_both(SWITCHES)
    seldom = len(visits)
    scarce = run_both(SWITCHES, reserve_frames=reasons.TASK_LOW)
    assert plain.stop == scarce.stop == exits_with(30)
    assert len(plain.of_kind(Kind.TASK_SWITCH)) == len(scarce.of_kind(Kind.TASK_SWITCH)) == 60
    assert (scarce.ram() == plain.ram()).all()
    assert len(visits) > 2 * seldom


def test_an_event_that_waits_is_told_once() -> None:
    """The reserve is short of frames whenever INT3 meets its gate; the trace is the same as with plenty."""
    plain = run_both(SWITCHES)
    scarce = run_both(SWITCHES, reserve_frames=reasons.TASK_LOW)
    kinds = [int(kind) for kind in (Kind.SOFTWARE_INT, Kind.TASK_SWITCH, Kind.CR3_LOAD, Kind.EXCEPTION)]
    told = [run.records[np.isin(run.records["kind"], kinds)][["time", "kind", "info", "old", "new"]] for run in (plain, scarce)]
    assert (told[0] == told[1]).all()
