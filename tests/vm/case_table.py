# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that runs a table of cases: a few bytes of code each, and what they did.

Each case is copied to CODE with INT3 behind it, so it ends in one event: INT3 where the code was carried out to its end. The event's vector,
error code and EIP, the registers and the memory that the case may have changed go into a record. The programs are cases_*.S.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emu.config import Mmu
from emu.events import RECORD
from emu.units import MIB
from emu.vm import check
from emu.vm.exits import Stop
from tests.vm.harness import HERE, INSN_LIMIT, assemble, exits_with, make

CODE, CASES, RECORDS = 0x8000, 0x14_0000, 0x20_0000
REAL_RECORDS, REAL_CASES = 0x2_0000, 0xA000
CASE_BYTES, RECORD_BYTES = 16, 128
RUN_UNTIL = 50  # virtual time: before the table of cases is looked at
GATE_OF_RING_0, GATE_OF_RING_3 = 0x8E00, 0xEE00
# Registers before each case; EBX + 8, and BP + DI + 8 with 16-bit addresses, are where memory operands are.
EAX, ECX, EDX, EBX, EBP, ESI, EDI = 0, 0x277, 0x0007_0406, 0x5400, 0x2100, 0x0010, 0x3200
R11, R14 = 0x5C00, 0x0300
WIDE_AT, NARROW_AT = EBX + 8, EBP + EDI + 8
ES_BASE, FS_BASE, GS_BASE = 0x800, 0x600, 0x700
WATCHED = [base + at for at in (WIDE_AT, NARROW_AT, R11 + 8) for base in (0, FS_BASE, GS_BASE, ES_BASE)]
BEFORE = 0x5A5A
COUNT = 0x7E08  # of cases


@dataclass
class Seen:
    """A record of the guest."""

    vector: int
    error: int
    eip: int
    eax: int
    ecx: int
    edx: int
    ebx: int
    ebp: int
    cr0: int
    memory: dict[int, int]
    rbx: int = 0
    r11: int = 0
    rcx: int = 0


ENTER_RING3 = """
    movl $STACK, TSS + 4
    pushl $0x43
    pushl $USER_STACK
    pushl $2
    pushl $0x3B
    pushl $CODE
    iretl
"""
ENTER_VM86 = """
    movl $STACK, TSS + 4
    pushl $0
    pushl $0
    pushl $0
    pushl $0
    pushl $0
    pushl $0x6000
    pushl $FLAGS
    pushl $0x800
    pushl $0
    iretl
"""
WAYS = {  # in: name to mode, and how CODE is entered
    "real": (0, ""),
    "16": (16, "ljmpl $0x18, $CODE"),
    "32": (32, "ljmpl $CODE0, $CODE"),
    "64": (64, "jmp *%r8"),
    "32, ring 3": (32, ENTER_RING3),
    "64, ring 3": (64, "RING3_64 CODE"),
    "virtual-8086": (32, ENTER_VM86.replace("$FLAGS", "$0x23002")),
    "virtual-8086, IOPL 0": (32, ENTER_VM86.replace("$FLAGS", "$0x20002")),
}


PROGRAMS = {0: "real", 16: "protected", 32: "protected", 64: "long"}


def source_of(way: str, gate: int) -> str:
    """The program that enters each case in one of WAYS, through gates of this kind."""
    mode, enter = WAYS[way]
    text = (HERE / f"cases_{PROGRAMS[mode]}.S").read_text(encoding="utf-8")
    es = "%es:" if mode == 0 else ""
    watches = "\n".join(f"movw ${BEFORE:#x}, {at:#x}" for at in WATCHED)
    index = "%di" if mode == 0 else "%edi"
    saves = "\n".join(f"movw {at:#x}, %cx\nmovw %cx, {es}{2 * number}({index})" for number, at in enumerate(WATCHED))
    for name, value in (("SAVE_WATCHES", saves), ("WATCHES", watches)):
        text = text.replace(name, value)
    for name in ("EAX", "ECX", "EDX", "EBX", "EBP", "ESI", "EDI", "R11", "R14"):
        text = text.replace(f"${name},", f"${globals()[name]:#x},")
    return text.replace("ENTER", enter).replace("$GATE", f"${gate:#x}")


def run_table(
    way: str, mmu: Mmu, codes: Sequence[bytes], gate: int = GATE_OF_RING_0, limit: int = 20 * INSN_LIMIT
) -> tuple[Stop, bytes, np.ndarray]:
    """(how it ended, the records, the events) of a run of these codes; the auditor looks at what is left."""
    mode, _enter = WAYS[way]
    vm, events = make(assemble(source_of(way, gate), real_mode=mode == 0).rom, mmu)
    vm.run_until(RUN_UNTIL)
    vm.write_physical(REAL_CASES if mode == 0 else CASES, b"".join(code.ljust(CASE_BYTES, b"\xcc") for code in codes))
    vm.write_physical(COUNT, len(codes).to_bytes(4, "little"))
    assert RECORD_BYTES * len(codes) <= 2 * MIB
    stop = vm.run(limit=limit)
    check.check(vm.state)
    records = vm.read_physical(REAL_RECORDS if mode == 0 else RECORDS, RECORD_BYTES * len(codes))
    vm.close()
    return stop, records, np.concatenate(events) if events else np.zeros(0, RECORD)


def run_cases(way: str, mmu: Mmu, codes: Sequence[bytes], gate: int = GATE_OF_RING_0) -> tuple[list[Seen], np.ndarray]:
    """What each of these codes did, and the events of them all."""
    stop, records, events = run_table(way, mmu, codes, gate)
    assert stop == exits_with(1)
    return [seen_of(records[at : at + RECORD_BYTES]) for at in range(0, len(records), RECORD_BYTES)], events


def seen_of(raw: bytes) -> Seen:
    words = np.frombuffer(raw[:40], "<u4").tolist()
    memory = dict(zip(WATCHED, np.frombuffer(raw[40 : 40 + 2 * len(WATCHED)], "<u2").tolist(), strict=True))
    wide = np.frombuffer(raw[96:120], "<u8").tolist()
    return Seen(words[0], words[1], words[2], *words[4:10], memory, *wide)
