# SPDX-License-Identifier: GPL-2.0-or-later
"""In a process that finds this folder by PYTHONPATH, a guest that writes EEh to port 80h makes emu abort, as a fault of its engine would."""

import os

from emu.devices.system import SystemPorts

usual = SystemPorts.write


def write(self: SystemPorts, port: int, size: int, value: int) -> None:
    """OUT, or the end of the process."""
    if value == 0xEE:
        os.abort()
    usual(self, port, size, value)


SystemPorts.write = write
