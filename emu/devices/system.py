"""Small system ports: fast A20 and reset at 92, the chipset's reset at CF9, POST codes at 80.

The A20 line of this board is always open; its bit reads back as written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

PORT_FAST_A20, PORT_RESET, PORT_POST = 0x92, 0xCF9, 0x80
FAST_RESET, FAST_A20 = 0x01, 0x02
RESET_NOW, RESET_KIND = 0x04, 0x0A  # a rising edge of bit 2 resets; the rest says how much of the machine


class SystemPorts:
    """The three; `reset_machine` is called for a reset."""

    WIRING: ClassVar = frozenset({"_reset_machine"})

    PORTS = tuple(range(port, port + 1) for port in (PORT_FAST_A20, PORT_RESET, PORT_POST))

    def __init__(self, reset_machine: Callable[[], None]) -> None:
        self._reset_machine = reset_machine
        self.post_code: int | None = None  # the last one, which a display would go on showing over a reset
        self.reset()

    def reset(self) -> None:
        """Power-on state."""
        self._values = {PORT_FAST_A20: FAST_A20, PORT_RESET: 0, PORT_POST: 0}

    def read(self, port: int, _size: int) -> int:
        """IN: what was written last."""
        return self._values[port]

    def write(self, port: int, _size: int, value: int) -> None:
        """OUT."""
        before = self._values[port]
        self._values[port] = value & {PORT_FAST_A20: FAST_A20, PORT_RESET: RESET_KIND | RESET_NOW}.get(port, 0xFF)
        if port == PORT_POST:
            self.post_code = value
        fast = port == PORT_FAST_A20 and value & FAST_RESET
        if fast or (port == PORT_RESET and value & ~before & RESET_NOW):
            self._reset_machine()
