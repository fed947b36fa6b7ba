# SPDX-License-Identifier: GPL-2.0-or-later
"""A board on a bench: a clock that is set by hand, a few pages of RAM, and a record of what the devices signalled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from emu.devices.ata import DriveSettings
from emu.devices.board import Board, BoardSettings
from emu.devices.disk import SECTOR_BYTES, DiskError
from emu.devices.guest_memory import Extent, Landing

INSNS_PER_SECOND = 10_000_000
RAM_BYTES = 32 << 20  # what the board says; the bench has only the first page of it
MEMORY_BYTES = 0x1000
START_TIME = 1_012_435_195  # Wednesday 30 January 2002, 23:59:55 UTC
DISK_SECTORS = 4096
LATENCY_INSNS = 1000
BYTES_PER_SECOND = 10_240_000  # a sector in 500 instructions
SECTOR_INSNS = SECTOR_BYTES * INSNS_PER_SECOND // BYTES_PER_SECOND
FILES = {"opt/b": bytes(range(1, 101)), "opt/a": b"", "etc/c": b"first"}


@dataclass
class BenchClock:
    time: int = 0

    def now(self) -> int:
        return self.time


@dataclass
class BenchMemory:
    """RAM in which only the first page takes stores. An access that could not be an address of the VM fails the test."""

    data: bytearray = field(default_factory=lambda: bytearray(MEMORY_BYTES))
    stored_bytes: int = 0
    largest_store: int = 0

    def read_physical(self, pa: int, size: int) -> bytes:
        assert 0 <= pa <= pa + size <= 1 << 33
        return bytes(self.data[pa : pa + size]).ljust(size, b"\xff")

    def write_physical(self, pa: int, data: bytes) -> None:
        assert 0 <= pa <= pa + len(data) <= RAM_BYTES
        self.stored_bytes += len(data)
        self.largest_store = max(self.largest_store, len(data))
        if pa < MEMORY_BYTES:
            part = data[: MEMORY_BYTES - pa]
            self.data[pa : pa + len(part)] = part

    def views_to_load(self, extents: Sequence[Extent]) -> list[memoryview]:
        return [memoryview(self.read_physical(extent.pa, extent.size)) for extent in extents]

    def views_to_store(self, extents: Sequence[Extent]) -> Landing:
        buffers = [bytearray(extent.size) for extent in extents]

        def settle() -> None:
            for extent, buffer in zip(extents, buffers, strict=True):
                fits = buffer[: max(0, MEMORY_BYTES - extent.pa)]
                self.data[extent.pa : extent.pa + len(fits)] = fits

        return Landing([memoryview(buffer) for buffer in buffers], settle)


@dataclass
class BenchDisk:
    """A disk of zeros whose sectors from `bad_from` on fail."""

    sectors: int = DISK_SECTORS
    is_readonly: bool = False
    bad_from: int = DISK_SECTORS
    fails_to_flush: bool = False
    flushes: int = 0
    data: bytearray = field(default_factory=lambda: bytearray(DISK_SECTORS * SECTOR_BYTES))

    def _check(self, sector: int, views: list[memoryview]) -> None:
        size = sum(map(len, views))
        assert 0 <= sector
        assert size % SECTOR_BYTES == 0
        assert sector + size // SECTOR_BYTES <= self.sectors
        if sector + size // SECTOR_BYTES > self.bad_from:
            raise DiskError(max(sector, self.bad_from))

    def read(self, sector: int, views: list[memoryview]) -> None:
        self._check(sector, views)
        at = sector * SECTOR_BYTES
        for view in views:
            view[:] = self.data[at : at + len(view)]
            at += len(view)

    def write(self, sector: int, views: list[memoryview]) -> None:
        self._check(sector, views)
        assert not self.is_readonly
        data = b"".join(views)
        self.data[sector * SECTOR_BYTES : sector * SECTOR_BYTES + len(data)] = data

    def flush(self) -> None:
        self.flushes += 1
        if self.fails_to_flush:
            raise DiskError(0)


@dataclass
class BenchSignals:
    serial: bytearray = field(default_factory=bytearray)
    debug: bytearray = field(default_factory=bytearray)
    exits: list[int] = field(default_factory=list)
    resets: int = 0
    moved_bytes: int = 0

    def serial_output(self, data: bytes) -> None:
        self.serial += data

    def debug_output(self, data: bytes) -> None:
        self.debug += data

    def exit(self, value: int) -> None:
        self.exits.append(value)

    def reset(self) -> None:
        self.resets += 1

    def moved(self, size: int) -> None:
        self.moved_bytes += size


class Bench:
    """The board and its surroundings."""

    def __init__(
        self, insns_per_second: int = INSNS_PER_SECOND, files: Mapping[str, bytes] = FILES, disks: Sequence[BenchDisk] = ()
    ) -> None:
        self.clock, self.memory, self.signals, self.disks = BenchClock(), BenchMemory(), BenchSignals(), disks
        drives = tuple(DriveSettings(disk, LATENCY_INSNS, BYTES_PER_SECOND, f"EM{n:05}") for n, disk in enumerate(disks, 1))  # type: ignore[arg-type]
        settings = BoardSettings(insns_per_second, RAM_BYTES, START_TIME, files, drives)
        self.board = Board(settings, self.clock, self.memory, self.signals)

    def read(self, port: int, size: int = 1) -> int:
        return self.board.ports.read(port, size)

    def write(self, port: int, *values: int, size: int = 1) -> None:
        for value in values:
            self.board.ports.write(port, size, value)

    def run_for(self, insns: int) -> None:
        """Let virtual time pass in one step."""
        self.run_to(self.clock.time + insns)

    def run_to(self, time: int) -> None:
        """Let virtual time pass in one step."""
        self.clock.time = time
        self.board.advance()

    def start_pics(self, mask: int = 0, icw4: int = 0x01) -> None:
        """Initialize both controllers as PC kernels do: vectors 20 and 28."""
        self.write(0x20, 0x11)
        self.write(0x21, 0x20, 0x04, icw4)
        self.write(0xA0, 0x11)
        self.write(0xA1, 0x28, 0x02, icw4)
        self.write(0x21, mask & 0xFF)
        self.write(0xA1, mask >> 8)

    def serve(self) -> int:
        """Take the pending interrupt as a processor does, with ends of interrupt; returns the IRQ."""
        irq = self.board.acknowledge() - 0x20
        if irq >= 8:
            self.write(0xA0, 0x20)
        self.write(0x20, 0x20)
        return irq
