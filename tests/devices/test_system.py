# SPDX-License-Identifier: GPL-2.0-or-later
"""Reset and A20 ports, POST codes, debug ports and the keyboard controller."""

from __future__ import annotations

import pytest

from tests.devices.helpers import Bench


def test_fast_a20_reads_back_and_bit_0_resets(bench: Bench) -> None:
    assert bench.read(0x92) == 0x02
    bench.write(0x92, 0x00)
    assert bench.read(0x92) == 0x00
    assert bench.signals.resets == 0
    bench.write(0x92, 0x03)
    assert bench.signals.resets == 1
    assert bench.read(0x92) == 0x02


@pytest.mark.parametrize("value", [0x06, 0x0E])
def test_reset_control(bench: Bench, value: int) -> None:
    bench.write(0xCF9, value & ~0x04)
    assert bench.signals.resets == 0
    bench.write(0xCF9, value)
    assert bench.signals.resets == 1


def test_looking_for_pci_functions_does_not_reset(bench: Bench) -> None:
    """Configuration addresses are written whole at CF8; function 4 and above have bit 2 set in the byte at CF9."""
    bench.write(0xCF8, 0x8000_0400, size=4)
    assert bench.signals.resets == 0
    assert bench.read(0xCF8, 4) == 0x8000_0400
    assert bench.read(0xCFC, 4) == 0xFFFF_FFFF


def test_post_code_reads_back(bench: Bench) -> None:
    assert bench.board.system.post_code is None
    bench.write(0x80, 0x5A)
    assert bench.read(0x80) == 0x5A
    bench.board.reset()
    assert bench.board.system.post_code == 0x5A


def test_debug_exit_takes_any_size_whole(bench: Bench) -> None:
    bench.write(0xF4, 0x12)
    bench.write(0xF4, 0x1234, size=2)
    bench.write(0xF4, 0x1234_5678, size=4)
    assert bench.signals.exits == [0x12, 0x1234, 0x1234_5678]


def test_debug_console(bench: Bench) -> None:
    assert bench.read(0xE9) == 0xE9
    bench.write(0xE9, *b"hi")
    assert bench.signals.debug == b"hi"


def answer(bench: Bench, command: int) -> int:
    bench.write(0x64, command)
    assert bench.read(0x64) & 0x01
    value = bench.read(0x60)
    assert not bench.read(0x64) & 0x01
    return value


def test_keyboard_controller_self_tests(bench: Bench) -> None:
    assert bench.read(0x64) & 0x03 == 0
    assert answer(bench, 0xAA) == 0x55
    assert answer(bench, 0xAB) == 0x00


def test_keyboard_command_byte_and_output_port(bench: Bench) -> None:
    bench.write(0x64, 0x60)
    bench.write(0x60, 0x47)
    assert answer(bench, 0x20) == 0x47
    bench.write(0x64, 0xD1)
    bench.write(0x60, 0xDD)
    assert answer(bench, 0xD0) == 0xDD
    assert bench.signals.resets == 0


def test_keyboard_controller_resets_by_pulse_and_by_output_port(bench: Bench) -> None:
    bench.write(0x64, 0xFF)
    assert bench.signals.resets == 0
    bench.write(0x64, 0xFE)
    assert bench.signals.resets == 1
    bench.write(0x64, 0xD1)
    bench.write(0x60, 0xFE)
    assert bench.signals.resets == 2


def test_bytes_for_the_absent_keyboard_are_not_answered(bench: Bench) -> None:
    bench.write(0x60, 0xED, 0x07)
    assert not bench.read(0x64) & 0x01


def test_unread_answers_are_bounded(bench: Bench) -> None:
    bench.write(0x64, *[0xAA] * 1000)
    unread = 0
    while bench.read(0x64) & 0x01:
        bench.read(0x60)
        unread += 1
    assert 1 <= unread <= 16
