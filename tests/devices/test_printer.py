# SPDX-License-Identifier: GPL-2.0-or-later
"""The parallel port."""

from __future__ import annotations

from emu.devices.printer import Printer


def test_data_and_control_read_back_and_status_stays_ready() -> None:
    printer = Printer()
    for port in (0x378, 0x379, 0x37A):
        printer.write(port, 1, 0x35)
    assert [printer.read(port, 1) for port in (0x378, 0x379, 0x37A)] == [0x35, 0xDF, 0xD5]
    printer.reset()
    assert [printer.read(port, 1) for port in (0x378, 0x37A)] == [0, 0xC0]
