# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory-mapped regions: offsets, sizes, empty addresses, registration."""

from __future__ import annotations

import pytest

from emu.devices.mmio import MmioBus

BASE = 0xFEC0_0000


class Registers:
    """Keeps what is written by offset."""

    def __init__(self) -> None:
        self.values: dict[int, int] = {}

    def read(self, offset: int) -> int:
        return self.values.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        self.values[offset] = value


@pytest.fixture
def device() -> Registers:
    return Registers()


@pytest.fixture
def bus(device: Registers) -> MmioBus:
    bus = MmioBus()
    bus.register(range(BASE, BASE + 0x1000), device)
    return bus


def test_devices_see_offsets_and_32_bits(bus: MmioBus, device: Registers) -> None:
    bus.write(BASE + 0x10, 4, 0x1_2345_6789)
    assert device.values == {0x10: 0x2345_6789}
    assert bus.read(BASE + 0x10, 4) == 0x2345_6789


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 2), (0, 8), (2, 4), (0x1000, 4), (-4, 4)])
def test_other_accesses_reach_no_device(bus: MmioBus, device: Registers, offset: int, size: int) -> None:
    bus.write(BASE + offset, size, 0)
    assert device.values == {}
    assert bus.read(BASE + offset, size) == (1 << 8 * size) - 1


def test_overlap_is_refused(bus: MmioBus) -> None:
    with pytest.raises(ValueError, match="0xfec00ffc has a device"):
        bus.register(range(BASE + 0xFFC, BASE + 0x2000), Registers())
