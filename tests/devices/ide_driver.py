# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver of the first drive, on a bench."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tests.devices.helpers import Bench, BenchDisk

DATA, ERROR, COUNT, LOW, MID, HIGH, DEVICE, STATUS, CONTROL = *range(0x1F0, 0x1F8), 0x3F6
BSY, DRQ, ERR, READY = 0x80, 0x08, 0x01, 0x50
UNC, IDNF, ABRT = 0x40, 0x10, 0x04
MASTER, MASTER_STATUS, MASTER_TABLE = 0xC000, 0xC002, 0xC004
ACTIVE, INTERRUPT = 0x01, 0x04
TABLE, BUFFER = 0x100, 0x200  # in the bench's one page
LONG = 10_000_000  # longer than any command takes


class DriveBench(Bench):
    """A bench with a disk, and the bus master at MASTER."""

    def __init__(self, disk: BenchDisk | None = None) -> None:
        self.store = disk or BenchDisk()
        super().__init__(disks=[self.store])
        self.configure(0x20, MASTER)
        self.configure(0x04, 5)
        self.start_pics()

    def configure(self, register: int, value: int) -> None:
        self.write(0xCF8, 0x8000_0900 | register, size=4)
        self.write(0xCFC, value, size=4)

    def command(self, code: int, lba: int = 0, count: int = 1) -> None:
        """28-bit addresses, or 48-bit ones for an EXT command; no time passes."""
        is_extended = code in (0x24, 0x25, 0x29, 0x34, 0x35, 0x39, 0x42)
        self.write(DEVICE, 0xE0 if is_extended else 0xE0 | lba >> 24 & 0xF)
        if is_extended:
            self.write(COUNT, count >> 8)
            for port, shift in ((LOW, 24), (MID, 32), (HIGH, 40)):
                self.write(port, lba >> shift & 0xFF)
        self.write(COUNT, count & 0xFF)
        for port, shift in ((LOW, 0), (MID, 8), (HIGH, 16)):
            self.write(port, lba >> shift & 0xFF)
        self.write(STATUS, code)

    def run(self, code: int, lba: int = 0, count: int = 1) -> int:
        """A command and the time it takes; the alternate status then."""
        self.command(code, lba, count)
        self.run_for(LONG)
        return self.read(CONTROL)

    def lba(self) -> int:
        """The 28-bit address in the registers."""
        return self.read(LOW) | self.read(MID) << 8 | self.read(HIGH) << 16 | (self.read(DEVICE) & 0xF) << 24

    def take(self, size: int = 512, width: int = 2) -> bytes:
        return b"".join(self.read(DATA, width).to_bytes(width, "little") for _ in range(size // width))

    def give(self, data: bytes, width: int = 2) -> None:
        for at in range(0, len(data), width):
            self.write(DATA, int.from_bytes(data[at : at + width], "little"), size=width)

    def describe(self, extents: Sequence[tuple[int, int]], at: int = TABLE) -> None:
        """A table of (address, bytes)."""
        words = [struct.pack("<II", pa, size & 0xFFFF) for pa, size in extents]
        table = b"".join(words[:-1]) + struct.pack("<II", extents[-1][0], extents[-1][1] & 0xFFFF | 1 << 31)
        self.memory.data[at : at + len(table)] = table
        self.write(MASTER_TABLE, at, size=4)

    def start(self, *, to_memory: bool) -> None:
        self.write(MASTER, 8 * to_memory)
        self.write(MASTER, 8 * to_memory | 1)

    def dma(self, code: int, lba: int, count: int, extents: Sequence[tuple[int, int]]) -> int:
        """A transfer; the bus master's status after it."""
        self.describe(extents)
        self.write(MASTER_STATUS, 0x06)
        self.command(code, lba, count)
        self.start(to_memory=code in (0xC8, 0x25))
        self.run_for(LONG)
        status = self.read(MASTER_STATUS)
        self.write(MASTER, 0)
        return status


def pattern(size: int, seed: int = 1) -> bytes:
    """Bytes that repeat nowhere near."""
    return b"".join((n * 2654435761 + seed & 0xFFFF_FFFF).to_bytes(4, "little") for n in range(size // 4))
