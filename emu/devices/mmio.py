"""Memory-mapped registers: which device answers at which guest-physical address, and what happens where none does."""

from __future__ import annotations

from typing import Protocol

from emu.devices.ports import floating

WORD = 4  # bytes of a register access that reaches a device


class MmioDevice(Protocol):
    """A device with 32-bit registers at offsets that are multiples of 4. Neither method ever raises."""

    def read(self, offset: int) -> int:
        """The register's value."""

    def write(self, offset: int, value: int) -> None:
        """Set the register."""


class MmioBus:
    """All regions. Devices take aligned 32-bit accesses; any other reads as all ones and is ignored when written."""

    def __init__(self) -> None:
        self._regions: list[tuple[range, MmioDevice]] = []

    def register(self, addresses: range, device: MmioDevice) -> None:
        """Put a device at `addresses` (bytes). ValueError if they overlap a device's."""
        for taken, _ in self._regions:
            if addresses.start < taken.stop and taken.start < addresses.stop:
                raise ValueError(f"address {max(addresses.start, taken.start):#x} has a device already")
        self._regions.append((addresses, device))

    def read(self, pa: int, size: int) -> int:
        """A load of `size` bytes at guest-physical address `pa`."""
        for addresses, device in self._regions:
            if size == WORD and pa % WORD == 0 and pa in addresses:
                return device.read(pa - addresses.start) & floating(WORD)
        return floating(size)

    def write(self, pa: int, size: int, value: int) -> None:
        """A store of `size` bytes at guest-physical address `pa`."""
        for addresses, device in self._regions:
            if size == WORD and pa % WORD == 0 and pa in addresses:
                device.write(pa - addresses.start, value & floating(WORD))
