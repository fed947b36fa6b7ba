"""The two IDE channels of a PC, with no drive on either.

Such a channel reads as zeros, whatever was written, as QEMU's does: a driver that looks for a drive sees a status with neither
BSY nor DRDY and its own writes gone, and gives up at once. With all ones it would see BSY, and wait.
"""

from __future__ import annotations

COMMAND_PORTS = (range(0x1F0, 0x1F8), range(0x170, 0x178))
CONTROL_PORTS = (range(0x3F6, 0x3F7), range(0x376, 0x377))


class EmptyIde:
    """Both channels."""

    PORTS = COMMAND_PORTS + CONTROL_PORTS
    SIZES = (1, 2, 4)

    def read(self, _port: int, _size: int) -> int:
        """IN: zeros."""
        return 0

    def write(self, _port: int, _size: int, _value: int) -> None:
        """OUT: nobody listens."""
