# SPDX-License-Identifier: GPL-2.0-or-later
"""Every instruction that leaves the processor, behind every prefix and pair of prefixes, in every mode, against the manual.

The length is that of the event's EIP (`tests.vm.case_table`). What the registers and the memory should be is worked out here, from the
rules for prefixes (AMD64 APM vol. 3, 1.2; Intel SDM vol. 2, 2.1 and 2.2).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest

from emu.config import Mmu
from emu.events import Kind
from tests.vm.case_table import (
    BEFORE,
    CODE,
    EAX,
    EBX,
    EDX,
    ES_BASE,
    FS_BASE,
    GS_BASE,
    NARROW_AT,
    R11,
    WATCHED,
    WIDE_AT,
    Seen,
    run_cases,
)

UD, GP, BP = 6, 13, 3
PAT_AT_RESET = 0x0007_0406
SEGMENTS = {0x26: ES_BASE, 0x2E: 0, 0x36: 0, 0x3E: 0, 0x64: FS_BASE, 0x65: GS_BASE}
LEGACY = [0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF2, 0xF3, 0xF0]
REXES = [0x40, 0x41, 0x42, 0x44, 0x47, 0x48, 0x4F]


@dataclass(frozen=True)
class Insn:
    """An instruction without prefixes and what it does."""

    name: str
    code: bytes
    check: str = ""  # name of a rule below
    modes: tuple[int, ...] = (0, 16, 32, 64)  # 0: real mode
    fault: int = 0


def _insn(name: str, code: str, check: str = "", *, fault: int = 0, modes: tuple[int, ...] = (0, 16, 32, 64)) -> Insn:
    return Insn(name, bytes.fromhex(code), check, modes, fault)


INSNS = [
    _insn("cpuid", "0fa2", "cpuid"),
    _insn("rdmsr", "0f32", "rdmsr"),
    _insn("wrmsr", "0f30"),
    _insn("rdtsc", "0f31", "rdtsc"),
    _insn("clts", "0f06", "clts"),
    _insn("invlpg", "0f017b08", "invlpg"),
    _insn("smsw memory", "0f016308", "store"),
    _insn("smsw register", "0f01e3", "smsw"),
    _insn("lmsw memory", "0f017308", "lmsw"),
    _insn("lmsw register", "0f01f3", "lmsw"),
    _insn("mov from cr0", "0f20c3", "read"),
    _insn("mov from cr3", "0f20db"),
    _insn("mov from cr4", "0f20e3"),
    _insn("mov to cr4, reserved bits", "0f22e3", fault=GP),
    _insn("in", "ec"),
    _insn("in immediate", "e4e9"),
    _insn("out immediate", "e6e9"),
    _insn("int 40h", "cd40", "int"),
    _insn("int 6", "cd06", "int"),
    _insn("int3", "cc", "int3"),
    _insn("icebp", "f1", "icebp"),
    _insn("ud2", "0f0b", fault=UD),
    _insn("rdpmc", "0f33", fault=GP),
    _insn("rsm", "0faa", fault=UD),
    _insn("invlpga", "0f01df", fault=UD),
    _insn("vmrun", "0f01d8", fault=UD),
    _insn("vmmcall", "0f01d9", fault=UD),
    _insn("vmload", "0f01da", fault=UD),
    _insn("vmsave", "0f01db", fault=UD),
    _insn("stgi", "0f01dc", fault=UD),
    _insn("clgi", "0f01dd", fault=UD),
    _insn("skinit", "0f01de", fault=UD),
    _insn("monitor", "0f01c8", fault=UD),
    _insn("mwait", "0f01c9", fault=UD),
    _insn("rdtscp", "0f01f9", fault=UD),
    _insn("sysenter", "0f34", fault=GP, modes=(0, 16, 32)),
    _insn("sysenter", "0f34", fault=UD, modes=(64,)),
    _insn("mov to memory", "894308", "engine's store"),
    _insn("vex", "c5f1fec2", fault=UD, modes=(16, 32, 64)),
    _insn("vex of three bytes", "c4e171fec2", fault=UD, modes=(16, 32, 64)),
    _insn("xop", "8fe97810c1", fault=UD),
    _insn("evex", "62f17d48fec2", fault=UD, modes=(0, 32, 64)),
]


@dataclass
class Case:
    insn: Insn
    prefixes: bytes
    mode: int
    rex: int = field(init=False)

    def __post_init__(self) -> None:
        last = self.prefixes[-1] if self.prefixes else 0
        self.rex = last if self.mode == 64 and last >> 4 == 4 else 0

    @property
    def code(self) -> bytes:
        return self.prefixes + self.insn.code

    @property
    def is_locked(self) -> bool:
        return 0xF0 in self.prefixes

    @property
    def operand_bits(self) -> int:
        narrow = 0x66 in self.prefixes
        if self.mode == 64:
            return 64 if self.rex & 8 else 16 if narrow else 32
        return 16 if (self.mode in (0, 16)) != narrow else 32

    @property
    def address_bits(self) -> int:
        other = 0x67 in self.prefixes
        if self.mode == 64:
            return 32 if other else 64
        return 16 if (self.mode in (0, 16)) != other else 32

    @property
    def memory_at(self) -> int:
        """The linear address of the operand [EBX + 8], or [BP + DI + 8] with 16-bit addresses."""
        base = NARROW_AT if self.address_bits == 16 else R11 + 8 if self.rex & 1 else WIDE_AT
        segments = [byte for byte in self.prefixes if byte in SEGMENTS]
        if self.mode == 64:
            segments = [byte for byte in segments if byte in (0x64, 0x65)]
        return base + (SEGMENTS[segments[-1]] if segments else 0)

    @property
    def hides_segment(self) -> bool:
        """Whether FS or GS has another segment's prefix behind it, which takes their base away in the engine (docs/engine.md)."""
        segments = [byte for byte in self.prefixes if byte in SEGMENTS]
        return self.mode == 64 and bool(segments) and segments[-1] < 0x64 <= max(segments)

    @property
    def fault(self) -> int:
        absent_register = self.rex & 4 and self.insn.code[1:2] in (b"\x20", b"\x22") and self.insn.code[-1] & 0x38  # CR11, CR12
        return UD if self.is_locked or absent_register else self.insn.fault


def prefix_sets(mode: int) -> list[bytes]:
    """None, one, each pair; in 64-bit code with REX behind them, and REX where another prefix follows and it is void."""
    singles = [bytes([byte]) for byte in LEGACY]
    sets = [b"", *singles, *(a + b for a, b in itertools.product(singles, repeat=2))]
    if mode == 64:
        rexes = [bytes([byte]) for byte in REXES]
        sets += [a + b for a in [b"", *singles] for b in rexes] + [b + a for a in singles for b in rexes]
        sets += [b"\x64\x67\x41", b"\x67\x65\x66\x4f", b"\x41\x48", b"\x48\x41"]
    if mode == 0:  # less room for records
        sets = [b"", *singles, b"\x66\x67", b"\x64\x67", b"\x67\x65", b"\x26\x64", b"\x66\x66", b"\xf3\x66"]
    return sets


def cases_of(mode: int) -> list[Case]:
    return [Case(insn, prefixes, mode) for insn in INSNS if mode in insn.modes for prefixes in prefix_sets(mode)]


def expected_end(case: Case) -> tuple[int, int]:
    """(vector, offset of the event's EIP)."""
    length = len(case.code)
    if case.fault:
        return case.fault, 0
    if case.insn.check == "int":
        return case.insn.code[1], length
    if case.insn.check == "icebp":
        return 1, length
    return BP, length + (case.insn.check != "int3")


def check_effect(case: Case, seen: Seen, invalidated: list[int]) -> None:
    """What an instruction that was carried out has done."""
    rule = case.insn.check
    cr0 = {0: 0x18, 16: 0x8001_0019, 32: 0x8001_0019, 64: 0x8001_0019}[case.mode]
    stored = {case.memory_at: cr0 & 0xFFFF} if rule == "store" else {}
    if rule == "engine's store":
        stored = {case.memory_at: (CODE if case.rex & 4 else EAX) & 0xFFFF}  # R8
    if rule != "engine's store" or not case.hides_segment:
        assert seen.memory == dict.fromkeys(WATCHED, BEFORE) | stored
    register = seen.r11 if case.rex & 1 else seen.rbx if case.mode == 64 else seen.ebx
    before = R11 if case.rex & 1 else EBX
    if rule == "cpuid":
        assert (seen.ebx, seen.edx, seen.ecx) == tuple(int.from_bytes(part, "little") for part in (b"Auth", b"enti", b"cAMD"))
    elif rule == "rdmsr":
        assert (seen.eax, seen.edx) in ((PAT_AT_RESET, PAT_AT_RESET), (EAX, EDX))
    elif rule == "rdtsc":
        assert seen.eax > 0 and seen.edx == 0  # noqa: PT018
    elif rule == "clts":
        assert seen.cr0 == cr0 & ~8
    elif rule == "invlpg":
        assert invalidated.pop(0) == case.memory_at
    elif rule == "smsw":
        assert register == (before & ~0xFFFF | cr0 & 0xFFFF if case.operand_bits == 16 else cr0)
    elif rule == "read":
        assert register == (0 if case.rex & 4 else cr0)  # CR8
    elif rule == "lmsw":
        source = BEFORE if case.insn.code[2] == 0x73 else before
        assert seen.cr0 == cr0 & ~0xE | source & 0xE | (source & 1)


@pytest.mark.parametrize("mmu", list(Mmu))
@pytest.mark.parametrize("mode", [0, 16, 32, 64])
def test_prefixes(mode: int, mmu: Mmu) -> None:
    cases = cases_of(mode)
    seen, events = run_cases(str(mode) if mode else "real", mmu, [case.code for case in cases])
    code = [record for record in events if record["kind"] == int(Kind.INVLPG)]
    invalidated = [int(record["va"]) for record in code if min(WATCHED) <= int(record["va"]) <= max(WATCHED)]
    wrong = []
    for case, one in zip(cases, seen, strict=True):
        vector, offset = expected_end(case)
        try:
            assert (one.vector, one.eip - CODE) == (vector, offset)
            if not case.fault:
                check_effect(case, one, invalidated)
        except AssertionError as error:
            wrong.append(f"{case.insn.name} {case.code.hex()}: {error}")
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(line.replace("\n", " ") for line in wrong[:40])
    assert not invalidated
