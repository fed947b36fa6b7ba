"""Ports for test programs: QEMU's isa-debug-exit at F4 and the debug console of Bochs at E9."""

from __future__ import annotations

from collections.abc import Callable

EXIT_PORTS = range(0xF4, 0xF8)  # iosize 4, as people configure QEMU's
CONSOLE_PORTS = range(0xE9, 0xEA)
CONSOLE_PRESENT = 0xE9  # what a read gives, so that a guest can tell the port is there


class DebugExit:
    """A value written ends the run."""

    SIZES = (1, 2, 4)

    def __init__(self, stop: Callable[[int], None]) -> None:
        self._stop = stop

    def read(self, _port: int, _size: int) -> int:
        """IN: zero, as QEMU's device."""
        return 0

    def write(self, _port: int, _size: int, value: int) -> None:
        """OUT."""
        self._stop(value)


class DebugConsole:
    """Bytes written go to the host's debug console."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send

    def read(self, _port: int, _size: int) -> int:
        """IN."""
        return CONSOLE_PRESENT

    def write(self, _port: int, _size: int, value: int) -> None:
        """OUT."""
        self._send(bytes([value]))
