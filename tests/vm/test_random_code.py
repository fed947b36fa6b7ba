# SPDX-License-Identifier: GPL-2.0-or-later
"""Random code in every mode: whatever it is, the run ends as a guest's does, and emu's own books are in order.

The bytes lean towards what the VMM decodes itself and what the engine may not carry out (`emu.machine.refused`). After each event the
guest goes on with the next few of them, as far as it has not destroyed itself. EMU_RANDOM_CODE multiplies the number of streams.
"""

from __future__ import annotations

import os
import random

import pytest

from emu.config import Mmu
from emu.events import Outcome
from tests.vm.case_table import CASE_BYTES, GATE_OF_RING_3, WAYS, run_table

STREAMS = 3 * int(os.environ.get("EMU_RANDOM_CODE", "1"))
CASES, STREAM_BYTES, INSNS = 400, 0x1000, 100_000
PREFIXES = [0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF2, 0xF3, 0xF0, 0xF0, 0xF0, 0x41, 0x44, 0x48, 0x4F]
TELLING = [
    bytes.fromhex(code)
    for code in (
        "0fab 0fa3 0fb3 0fbb 0fba c5f1 c4e171 c4e2 c4e3 8fe978 62f17d 0fb8 0fc7 0f38 0f3a f1 0fa2 0f32 0f30 0f31 0f06 0f01 0f20 0f22 "
        "cd06 cc ce f4 0faa 0f33 0f34 0f05 a4 aa 89 8b 21 09 87 fe ff f6 f7 0fae cf 9c 9d fa fb 6c 6e e6 ec"
    ).split()
]


def stream(rng: random.Random) -> bytes:
    """Bytes of code."""
    code = b""
    while len(code) < STREAM_BYTES:
        kind = rng.random()
        if kind < 0.25:
            code += bytes(rng.choices(PREFIXES, k=rng.randrange(1, 4)))
        elif kind < 0.7:
            code += rng.choice(TELLING) + rng.randbytes(rng.randrange(3))
        else:
            code += rng.randbytes(rng.randrange(1, 6))
    return code


def run_random(seed: int, way: str, mmu: Mmu) -> Outcome:
    """One stream, cut into cases."""
    rng = random.Random(f"{seed} {way}")
    code = stream(rng)
    starts = [rng.randrange(len(code) - CASE_BYTES) for _ in range(CASES)]
    stop, _records, _events = run_table(way, mmu, [code[at : at + CASE_BYTES] for at in starts], GATE_OF_RING_3, INSNS)
    return stop.outcome


@pytest.mark.parametrize("mmu", list(Mmu))
@pytest.mark.parametrize("way", list(WAYS))
def test_random_code(way: str, mmu: Mmu) -> None:
    for seed in range(STREAMS):
        assert run_random(seed, way, mmu) in Outcome
