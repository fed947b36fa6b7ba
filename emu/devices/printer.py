"""The parallel port at 378 with a printer that is always ready and prints nothing."""

from __future__ import annotations

from typing import ClassVar

DATA, STATUS, CONTROL = 0x378, 0x379, 0x37A
READY = 0xDF  # not busy, no acknowledge pulse, selected, paper, no error (the last is low when there is one)
CONTROL_BITS, CONTROL_ONES = 0x1F, 0xC0


class Printer:
    """Data and control read back as written; the bytes go nowhere."""

    WIRING: ClassVar[frozenset[str]] = frozenset()

    PORTS = (range(DATA, CONTROL + 1),)

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Power-on state."""
        self._data = self._control = 0

    def read(self, port: int, _size: int) -> int:
        """IN."""
        return {DATA: self._data, STATUS: READY, CONTROL: CONTROL_ONES | self._control}[port]

    def write(self, port: int, _size: int, value: int) -> None:
        """OUT; the status is read-only."""
        if port == DATA:
            self._data = value
        elif port == CONTROL:
            self._control = value & CONTROL_BITS
