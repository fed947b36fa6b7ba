"""The I/O port space: which device answers at which port, and what happens where none does."""

from __future__ import annotations

from typing import Protocol

PORTS = 1 << 16
BYTE = (1,)


class PortDevice(Protocol):
    """A device at one or more ports. Sizes are in bytes; ports are absolute. Neither method ever raises."""

    def read(self, port: int, size: int) -> int:
        """The value that IN gets."""

    def write(self, port: int, size: int, value: int) -> None:
        """What OUT sends."""


def floating(size: int) -> int:
    """What a read gets where no device drives the bus: all ones."""
    return (1 << 8 * size) - 1


class PortBus:
    """All ports. An access wider than a device takes is split into bytes at consecutive ports, as on an ISA bus."""

    def __init__(self) -> None:
        self._devices: dict[int, tuple[PortDevice, tuple[int, ...]]] = {}
        self._movable: dict[int, PortDevice] = {}  # by port, taken byte by byte: where software put it; the others go first

    def register(self, ports: range, device: PortDevice, *, sizes: tuple[int, ...] = BYTE) -> None:
        """Put a device at `ports`; `sizes` are the access sizes that it takes whole. ValueError if a port is taken."""
        for port in ports:
            if port in self._devices:
                raise ValueError(f"port {port:#x} has a device already")
            self._devices[port] = (device, sizes)

    def move(self, device: PortDevice, ports: range | None) -> None:
        """Put a device where software wants it, or nowhere; it answers at those of the ports that no other device has."""
        self._movable = {port: other for port, other in self._movable.items() if other is not device}
        self._movable |= dict.fromkeys(ports or (), device)

    def _at(self, port: int) -> tuple[PortDevice | None, tuple[int, ...]]:
        return self._devices.get(port) or (self._movable.get(port), BYTE)

    def read(self, port: int, size: int) -> int:
        """IN of 1, 2 or 4 bytes."""
        device, sizes = self._at(port)
        if device is not None and size in sizes:
            return device.read(port, size) & floating(size)
        if size == 1:
            return floating(size)
        return sum(self.read((port + n) % PORTS, 1) << 8 * n for n in range(size))

    def write(self, port: int, size: int, value: int) -> None:
        """OUT of 1, 2 or 4 bytes."""
        device, sizes = self._at(port)
        if device is not None and size in sizes:
            device.write(port, size, value & floating(size))
        elif size > 1:
            for n in range(size):
                self.write((port + n) % PORTS, 1, value >> 8 * n & 0xFF)
