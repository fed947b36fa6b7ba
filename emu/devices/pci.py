"""PCI configuration space by mechanism 1 (PCI Local Bus 2.1, 3.2.2.3.2): the functions of QEMU's `pc` that matter to a guest here.

    CF8   31 enable | 23-16 bus | 15-11 device | 10-8 function | 7-2 register       (a double word; bytes do not reach it)
    CFC   the register's bytes, at CFC plus the low bits of their number

Bus 0 has the host bridge (Intel 82441FX), and a PIIX3 with the ISA bridge and the IDE controller. Where no function is, a read
gives ones. A register keeps what is written to those of its bits that exist (`writable`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from emu.devices.ports import floating

PORT_ADDRESS = 0xCF8
ADDRESS_PORTS, DATA_PORTS = range(PORT_ADDRESS, PORT_ADDRESS + 1), range(0xCFC, 0xD00)
ENABLE = 1 << 31
CONFIG_BYTES = 256
ID, COMMAND, STATUS, CLASS, HEADER_TYPE, BAR4, SUBSYSTEM = 0x00, 0x04, 0x06, 0x08, 0x0E, 0x20, 0x2C
COMMAND_IO, COMMAND_MEMORY, COMMAND_MASTER = 1 << 0, 1 << 1, 1 << 2
COMMAND_SERR, COMMAND_NO_INTX = 1 << 8, 1 << 10
COMMAND_WRITABLE = COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_SERR | COMMAND_NO_INTX
STATUS_MEDIUM = 0x0200  # DEVSEL timing
STATUS_FAST_BACK_TO_BACK = 0x0080
BAR_IS_IO = 1
MULTIFUNCTION = 0x80
HOST_BRIDGE, ISA_BRIDGE, IDE_CONTROLLER = (0, 0), (1, 0), (1, 1)  # device and function numbers on bus 0
INTEL = 0x8086


@dataclass(frozen=True)
class Identity:
    """What a function says it is."""

    device: int
    class_code: int  # base class, subclass, programming interface
    revision: int = 0
    header_type: int = 0


class Function:
    """One function's 256 bytes; `on_change` is called after each write to them."""

    WIRING: ClassVar = frozenset({"on_change"})

    def __init__(self, identity: Identity, fixed: Mapping[int, int], writable: Mapping[int, int]) -> None:
        """`fixed` are 16-bit registers at power-on, `writable` masks of 32-bit ones, by offset."""
        start = bytearray(CONFIG_BYTES)
        start[ID : ID + 4] = (INTEL | identity.device << 16).to_bytes(4, "little")
        start[CLASS : CLASS + 4] = (identity.class_code << 8 | identity.revision).to_bytes(4, "little")
        start[HEADER_TYPE] = identity.header_type
        for offset, word in fixed.items():
            start[offset : offset + 2] = word.to_bytes(2, "little")
        mask = bytearray(CONFIG_BYTES)
        for offset, bits in writable.items():
            mask[offset : offset + 4] = bits.to_bytes(4, "little")
        self._start, self._mask = bytes(start), bytes(mask)
        self._registers = start
        self.on_change: Callable[[], None] = lambda: None

    def reset(self) -> None:
        """Power-on state."""
        self._registers[:] = self._start
        self.on_change()

    def register(self, offset: int, size: int) -> int:
        """A register's value."""
        return int.from_bytes(self._registers[offset : offset + size], "little")

    def set_register(self, offset: int, size: int, value: int) -> None:
        """Store to the bits that exist."""
        for at, byte in enumerate(value.to_bytes(size, "little"), offset):
            if at < CONFIG_BYTES:
                kept = self._registers[at] & ~self._mask[at]
                self._registers[at] = kept | byte & self._mask[at]
        self.on_change()


def ide_function() -> Function:
    """PIIX3's IDE controller: legacy ports, a bus master at BAR4; its timing registers are kept and have no effect."""
    timing = {0x40: 0xFFFF_FFFF, 0x44: 0x0000_00FF}
    return Function(
        Identity(device=0x7010, class_code=0x010180),
        {STATUS: STATUS_MEDIUM | STATUS_FAST_BACK_TO_BACK, BAR4: BAR_IS_IO},
        {COMMAND: COMMAND_WRITABLE, 0x0C: 0xFF00, BAR4: 0xFFFF_FFF0, 0x3C: 0xFF} | timing,
    )


def isa_bridge() -> Function:
    """PIIX3's ISA bridge: its interrupt routing is kept and has no effect, as no function here has an INTx line."""
    return Function(
        Identity(device=0x7000, class_code=0x060100, header_type=MULTIFUNCTION),
        {COMMAND: COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER, STATUS: STATUS_MEDIUM, 0x60: 0x8080, 0x62: 0x8080},
        {COMMAND: COMMAND_WRITABLE, 0x60: 0x8F8F_8F8F},
    )


def host_bridge() -> Function:
    """82441FX: its memory and cache control is not modelled."""
    return Function(
        Identity(device=0x1237, class_code=0x060000, revision=2),
        {COMMAND: COMMAND_MEMORY | COMMAND_MASTER},
        {COMMAND: COMMAND_SERR},
    )


class PciBus:
    """Mechanism 1 and the functions behind it, by (device, function) on bus 0."""

    WIRING: ClassVar = frozenset({"ide"})

    ADDRESS_SIZES = (1, 4)  # bytes are taken, and ignored: split, a double word would reach CF9, the chipset's reset
    DATA_SIZES = (1, 2, 4)

    def __init__(self) -> None:
        self.ide = ide_function()
        self._functions = {HOST_BRIDGE: host_bridge(), ISA_BRIDGE: isa_bridge(), IDE_CONTROLLER: self.ide}
        self._address = 0

    def reset(self) -> None:
        """Power-on state."""
        self._address = 0
        for function in self._functions.values():
            function.reset()

    def _selected(self) -> Function | None:
        bus, device, number = self._address >> 16 & 0xFF, self._address >> 11 & 0x1F, self._address >> 8 & 7
        return self._functions.get((device, number)) if self._address & ENABLE and bus == 0 else None

    def _offset(self, port: int) -> int:
        return self._address & 0xFC | port - DATA_PORTS.start

    def read(self, port: int, size: int) -> int:
        """IN."""
        if port == PORT_ADDRESS:
            return self._address
        function = self._selected()
        return floating(size) if function is None else function.register(self._offset(port), size)

    def write(self, port: int, size: int, value: int) -> None:
        """OUT."""
        if port == PORT_ADDRESS:
            self._address = value if size == 4 else self._address
        elif (function := self._selected()) is not None:
            function.set_register(self._offset(port), size, value)
