# SPDX-License-Identifier: GPL-2.0-or-later
"""INT with every vector, and the instructions that trap, in every mode and ring."""

from __future__ import annotations

import pytest

from emu.config import Mmu
from tests.vm.case_table import CODE, GATE_OF_RING_0, GATE_OF_RING_3, WAYS, Seen, run_cases

UD, GP = 6, 13
HAVE_ERROR_CODE = (8, 10, 11, 12, 13, 14, 17)
INTERRUPTS = [bytes([0xCD, vector]) for vector in range(256)]


def event_of(seen: Seen, way: str) -> tuple[int, int, int]:
    """(vector, error code, EIP); INT n has no error code, so where the handler takes one the frame is read by one off."""
    return seen.vector, seen.error, seen.eip - (0 if way.startswith("virtual") else CODE)


@pytest.mark.parametrize("mmu", list(Mmu))
@pytest.mark.parametrize("way", ["real", "16", "32", "64", "32, ring 3", "64, ring 3", "virtual-8086"])
def test_every_vector_by_int(way: str, mmu: Mmu) -> None:
    mode = WAYS[way][0]
    seen, _records = run_cases(way, mmu, INTERRUPTS, GATE_OF_RING_3)
    for vector, one in enumerate(seen):
        start = 0 if way.startswith("virtual") else CODE
        at = one.error if vector in HAVE_ERROR_CODE and mode else one.eip
        assert (one.vector, at) == (vector, start + 2), vector


@pytest.mark.parametrize("mmu", list(Mmu))
@pytest.mark.parametrize("way", ["32, ring 3", "64, ring 3", "virtual-8086", "virtual-8086, IOPL 0"])
def test_int_without_the_right_is_refused(way: str, mmu: Mmu) -> None:
    """By the gate's DPL, and in virtual-8086 mode by IOPL before that."""
    seen, _records = run_cases(way, mmu, INTERRUPTS)
    for vector, one in enumerate(seen):
        assert event_of(one, way) == (GP, 0 if way.endswith("IOPL 0") else vector * 8 + 2, 0), vector


TRAPS = {"int3": (b"\xcc", 3), "icebp": (b"\xf1", 1), "into": (b"\xb0\x7f\x04\x01\xce", 4), "ud2": (b"\x0f\x0b", UD)}


@pytest.mark.parametrize("mmu", list(Mmu))
@pytest.mark.parametrize("way", list(WAYS))
def test_traps_and_ud2(way: str, mmu: Mmu) -> None:
    """INT3 and INTO ask for the gate's privilege (and not for IOPL), ICEBP and invalid opcodes do not; INTO is none in 64-bit code."""
    mode = WAYS[way][0]
    for gate in (GATE_OF_RING_0, GATE_OF_RING_3):
        seen, _records = run_cases(way, mmu, [code for code, _vector in TRAPS.values()], gate)
        is_outer = "ring 3" in way or "virtual" in way
        for name, one in zip(TRAPS, seen, strict=True):
            code, vector = TRAPS[name]
            expected = (vector, 0, len(code))
            if name == "into" and mode == 64:
                expected = (UD, 0, len(code) - 1)
            elif vector in (3, 4) and gate == GATE_OF_RING_0 and is_outer:
                expected = (GP, vector * 8 + 2, len(code) - 1)
            elif name == "ud2":
                expected = (UD, 0, 0)
            assert (event_of(one, way) if mode else (one.vector, 0, one.eip - CODE)) == expected, name
