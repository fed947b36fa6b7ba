# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration mechanism 1, and the functions behind it."""

from __future__ import annotations

import pytest

from tests.devices.helpers import Bench

ADDRESS, DATA = 0xCF8, 0xCFC
COMMAND, BAR4, LINE = 0x04, 0x20, 0x3C
HOST, ISA, IDE = (0, 0), (1, 0), (1, 1)


def select(bench: Bench, function: tuple[int, int], offset: int, bus: int = 0, enable: int = 1) -> None:
    device, number = function
    bench.write(ADDRESS, enable << 31 | bus << 16 | device << 11 | number << 8 | offset & 0xFC, size=4)


def read(bench: Bench, function: tuple[int, int], offset: int, size: int = 4) -> int:
    select(bench, function, offset)
    return bench.read(DATA + offset % 4, size)


def write(bench: Bench, function: tuple[int, int], offset: int, value: int, size: int = 4) -> None:
    select(bench, function, offset)
    bench.write(DATA + offset % 4, value, size=size)


@pytest.mark.parametrize(
    ("function", "identity", "class_code"),
    [(HOST, 0x1237_8086, 0x060000), (ISA, 0x7000_8086, 0x060100), (IDE, 0x7010_8086, 0x010180)],
)
def test_functions_say_what_they_are(bench: Bench, function: tuple[int, int], identity: int, class_code: int) -> None:
    assert read(bench, function, 0x00) == identity
    assert read(bench, function, 0x08) >> 8 == class_code
    assert read(bench, function, 0x0E, 1) == (0x80 if function == ISA else 0)
    write(bench, function, 0x00, 0)
    assert read(bench, function, 0x00) == identity


def test_bytes_and_words_of_a_register(bench: Bench) -> None:
    assert [read(bench, IDE, offset, 1) for offset in range(4)] == [0x86, 0x80, 0x10, 0x70]
    assert read(bench, IDE, 2, 2) == 0x7010
    write(bench, IDE, LINE, 0x55, 1)
    assert read(bench, IDE, LINE) == 0x55
    write(bench, IDE, COMMAND, 0xFFFF, 2)
    assert read(bench, IDE, COMMAND, 2) == 0x0507


def test_what_is_not_there_reads_as_ones(bench: Bench) -> None:
    for function in ((1, 2), (2, 0), (31, 7)):
        assert read(bench, function, 0) == 0xFFFF_FFFF
        write(bench, function, COMMAND, 7)
    select(bench, IDE, 0, bus=1)
    assert bench.read(DATA, 4) == 0xFFFF_FFFF
    select(bench, IDE, 0, enable=0)
    assert bench.read(DATA, 2) == 0xFFFF


def test_the_address_register_takes_double_words_only(bench: Bench) -> None:
    select(bench, IDE, 8)
    bench.write(ADDRESS, 0x12)
    bench.write(ADDRESS, 0x1234, size=2)
    assert bench.read(ADDRESS, 4) == 0x8000_0908
    assert bench.signals.resets == 0


def test_the_bus_master_is_where_bar_4_says(bench: Bench) -> None:
    assert read(bench, IDE, BAR4) == 1
    write(bench, IDE, BAR4, 0xFFFF_FFFF)
    assert read(bench, IDE, BAR4) == 0xFFFF_FFF1
    write(bench, IDE, BAR4, 0xC00F)
    assert bench.read(0xC002) == 0xFF
    write(bench, IDE, COMMAND, 1, 2)
    assert [bench.read(0xC002), bench.read(0xC00A), bench.read(0xC010)] == [0, 0, 0xFF]
    write(bench, IDE, BAR4, 0xD000)
    assert [bench.read(0xC002), bench.read(0xD002)] == [0xFF, 0]
    write(bench, IDE, COMMAND, 0, 2)
    assert bench.read(0xD002) == 0xFF
    bench.board.check()


@pytest.mark.parametrize("base", [0, 0x10000, 0x7FFF_0000])
def test_a_base_outside_port_space_is_nowhere(bench: Bench, base: int) -> None:
    write(bench, IDE, COMMAND, 1, 2)
    write(bench, IDE, BAR4, base)
    assert [bench.read(0x0002), bench.read(base + 2 & 0xFFFF)] == [0xFF, 0xFF]


def test_ports_of_other_devices_stay_theirs(bench: Bench) -> None:
    write(bench, IDE, COMMAND, 1, 2)
    write(bench, IDE, BAR4, 0x80)
    bench.write(0x80, 0x42)
    assert bench.read(0x80) == 0x42
    assert bench.read(0x82) == 0


def test_reset_takes_the_configuration_back(bench: Bench) -> None:
    write(bench, IDE, COMMAND, 5, 2)
    write(bench, IDE, BAR4, 0xC000)
    bench.board.reset()
    assert [read(bench, IDE, COMMAND, 2), read(bench, IDE, BAR4), bench.read(0xC002)] == [0, 1, 0xFF]
