# SPDX-License-Identifier: GPL-2.0-or-later
"""The port space: splitting, empty ports, registration."""

from __future__ import annotations

import pytest

from emu.devices.ports import PortBus


class Notepad:
    """Remembers accesses; reads give the low byte of the port."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []

    def read(self, port: int, size: int) -> int:
        self.seen.append((port, size, -1))
        return port & 0xFF

    def write(self, port: int, size: int, value: int) -> None:
        self.seen.append((port, size, value))


@pytest.mark.parametrize(("size", "ones"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFF_FFFF)])
def test_empty_ports_read_ones(size: int, ones: int) -> None:
    bus = PortBus()
    bus.write(0x1234, size, 0)
    assert bus.read(0x1234, size) == ones


def test_wide_access_is_split_into_bytes() -> None:
    bus, device = PortBus(), Notepad()
    bus.register(range(0x10, 0x13), device)
    assert bus.read(0x10, 4) == 0xFF121110
    bus.write(0x10, 2, 0xABCD)
    assert device.seen == [(0x10, 1, -1), (0x11, 1, -1), (0x12, 1, -1), (0x10, 1, 0xCD), (0x11, 1, 0xAB)]


def test_declared_sizes_arrive_whole_and_masked() -> None:
    bus, device = PortBus(), Notepad()
    bus.register(range(0x10, 0x11), device, sizes=(1, 4))
    bus.write(0x10, 4, 0x1_2345_6789)
    bus.write(0x10, 2, 0xABCD)
    assert device.seen == [(0x10, 4, 0x2345_6789), (0x10, 1, 0xCD)]


def test_wide_access_wraps_at_the_last_port() -> None:
    bus, device = PortBus(), Notepad()
    bus.register(range(1), device)
    bus.write(0xFFFF, 2, 0xABCD)
    assert device.seen == [(0, 1, 0xAB)]


def test_overlap_is_refused() -> None:
    bus = PortBus()
    bus.register(range(0x10, 0x14), Notepad())
    with pytest.raises(ValueError, match="0x13"):
        bus.register(range(0x13, 0x15), Notepad())
