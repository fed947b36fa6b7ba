# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's buffer of translated code: found, measured, bounded and given back."""

from __future__ import annotations

import struct

import pytest

from emu.machine import code_buffer
from emu.machine.code_buffer import CodeBuffer, executable_mappings
from emu.machine.engine import Engine
from emu.machine.memory import MachineMemory
from emu.units import MIB

BUFFER = 4 * MIB
ROUNDS = 200
CODE_AT, LOOP_BYTES = 0x1000, 400 * 6


def engine_with(code: bytes) -> Engine:
    """An engine over memory with a piece of code at CODE_AT."""
    memory = MachineMemory(4 * MIB)
    engine = Engine(memory, BUFFER)
    engine.memory = memory  # type: ignore[attr-defined]  (keeps it alive)
    memory.bytes[CODE_AT : CODE_AT + len(code)] = list(code)
    return engine


def translate(engine: Engine, count: int) -> None:
    """Have so many blocks translated: each is new, for its first constant."""
    for number in range(count):
        engine.memory.bytes[CODE_AT + 1 : CODE_AT + 5] = list(struct.pack("<I", number))  # type: ignore[attr-defined]
        engine.uc.ctl_remove_cache(CODE_AT, CODE_AT + 16)
        engine.uc.emu_start(CODE_AT, 0, count=0)


# mov eax, n; add and xor of memory, often; hlt
CODE = b"\xb8\0\0\0\0" + b"\x01\x04\x25\0\x80\0\0" * 400 + b"\xf4"


def test_it_is_found_and_grows_with_what_is_translated() -> None:
    engine = engine_with(CODE)
    assert engine.code_buffer.address
    before = engine.code_buffer.used_bytes()
    translate(engine, 120)
    assert before < engine.code_buffer.used_bytes() <= BUFFER


def test_it_never_grows_beyond_its_size_and_code_still_runs() -> None:
    """ROUNDS blocks are several times what it holds: it is emptied on the way, between two instructions of the guest."""
    engine = engine_with(CODE)
    translate(engine, ROUNDS)
    assert engine.code_buffer.used_bytes() <= BUFFER
    word = int.from_bytes(bytes(engine.memory.bytes[0x8000:0x8004]), "little")  # type: ignore[attr-defined]
    assert word == sum(400 * number for number in range(ROUNDS))


def test_its_memory_is_given_back_and_code_still_runs() -> None:
    engine = engine_with(CODE)
    translate(engine, ROUNDS)
    engine.drop_code()
    assert engine.code_buffer.used_bytes() <= code_buffer.KEPT_BYTES
    translate(engine, 1)
    assert engine.code_buffer.used_bytes() > 0


def test_where_it_is_not_found_it_counts_as_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_buffer, "executable_mappings", set)
    buffer = CodeBuffer(BUFFER, set())
    assert (buffer.address, buffer.used_bytes()) == (0, BUFFER)
    buffer.give_back()


def test_two_engines_have_one_each() -> None:
    first, second = engine_with(CODE), engine_with(CODE)
    assert first.code_buffer.address != second.code_buffer.address
    places = {address for address, _ in executable_mappings()}
    assert {first.code_buffer.address, second.code_buffer.address} <= places
