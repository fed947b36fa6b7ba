# SPDX-License-Identifier: GPL-2.0-or-later
"""The I/O APIC by its data sheet: registers, masks, edges, levels with their end of interrupt, and the board's wiring."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emu.devices import apic, ioapic
from emu.vm import cpuid
from tests.devices.helpers import Bench

PLATFORM = Path(__file__).resolve().parents[2] / "firmware" / "platform.h"


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.board.apic.write(apic.SVR, apic.SVR_ENABLE | 0xFF)
    return made


def read(bench: Bench, index: int) -> int:
    bench.board.mmio.write(ioapic.ADDRESS, 4, index)
    return bench.board.mmio.read(ioapic.ADDRESS + ioapic.WINDOW, 4)


def write(bench: Bench, index: int, value: int) -> None:
    bench.board.mmio.write(ioapic.ADDRESS, 4, index)
    bench.board.mmio.write(ioapic.ADDRESS + ioapic.WINDOW, 4, value)


def set_entry(bench: Bench, pin: int, low: int) -> None:
    write(bench, ioapic.TABLE + 2 * pin, low)


def end(bench: Bench) -> None:
    bench.board.apic.write(apic.EOI, 0)


def test_registers(bench: Bench) -> None:
    assert read(bench, ioapic.VERSION_REGISTER) == 0x0017_0011
    assert read(bench, ioapic.TABLE) == ioapic.MASKED
    set_entry(bench, 5, 0xFFFF_FFFF)
    assert read(bench, ioapic.TABLE + 10) == ioapic.LOW_BITS
    assert read(bench, ioapic.TABLE + 2 * ioapic.PINS) == 0


def test_edges(bench: Bench) -> None:
    set_entry(bench, 4, ioapic.MASKED | 0x44)
    bench.board.set_line(4, True)
    set_entry(bench, 4, 0x44)
    assert not bench.board.has_interrupt()
    bench.board.set_line(4, False)
    bench.board.set_line(4, True)
    assert bench.board.acknowledge() == 0x44
    end(bench)
    assert not bench.board.has_interrupt()


def test_levels_ask_again_after_the_end(bench: Bench) -> None:
    set_entry(bench, 4, ioapic.LEVEL | 0x44)
    bench.board.set_line(4, True)
    assert bench.board.acknowledge() == 0x44
    assert read(bench, ioapic.TABLE + 8) & ioapic.REMOTE_IRR
    end(bench)
    assert bench.board.acknowledge() == 0x44
    bench.board.set_line(4, False)
    end(bench)
    assert not bench.board.has_interrupt()
    assert not read(bench, ioapic.TABLE + 8) & ioapic.REMOTE_IRR


def test_active_low(bench: Bench) -> None:
    bench.board.set_line(4, True)
    set_entry(bench, 4, ioapic.ACTIVE_LOW | 0x44)
    assert not bench.board.has_interrupt()
    bench.board.set_line(4, False)
    assert bench.board.acknowledge() == 0x44


def test_other_destinations_get_nothing(bench: Bench) -> None:
    write(bench, ioapic.TABLE + 9, 5 << 24)
    set_entry(bench, 4, 0x44)
    bench.board.set_line(4, True)
    assert not bench.board.has_interrupt()


def test_the_8254_is_on_pin_2(bench: Bench) -> None:
    set_entry(bench, 0, 0x40)
    set_entry(bench, ioapic.TIMER_PIN, 0x42)
    bench.write(0x43, 0x34)
    bench.write(0x40, 100, 0)
    bench.run_to(bench.board.next_event())
    assert bench.board.acknowledge() == 0x42


def test_the_firmware_describes_these_devices_and_this_processor() -> None:
    found = dict(re.findall(r"#define (\w+) (0x[0-9a-f]+|\d+)", PLATFORM.read_text()))
    values = {name: int(text, 0) for name, text in found.items()}
    assert values["LOCAL_APIC_VERSION"] == apic.VERSION
    assert values["LOCAL_APIC_ADDRESS"] == apic.ADDRESS
    assert values["IO_APIC_VERSION"] == ioapic.VERSION
    assert values["IO_APIC_ADDRESS"] == ioapic.ADDRESS
    assert values["IO_APIC_INPUTS"] == ioapic.PINS
    assert values["TIMER_GSI"] == ioapic.TIMER_PIN
    assert values["CPU_SIGNATURE"] == cpuid.SIGNATURE
    assert values["CPU_FEATURES"] == cpuid.FEATURE_BITS
