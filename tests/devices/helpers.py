# SPDX-License-Identifier: GPL-2.0-or-later
"""A board on a bench: a clock that is set by hand, a few pages of RAM, and a record of what the devices signalled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from emu.devices.board import Board, BoardSettings

INSNS_PER_SECOND = 10_000_000
RAM_BYTES = 32 << 20  # what the board says; the bench has only the first page of it
MEMORY_BYTES = 0x1000
START_TIME = 1_012_435_195  # Wednesday 30 January 2002, 23:59:55 UTC
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
        assert 0 <= pa <= pa + size <= RAM_BYTES
        return bytes(self.data[pa : pa + size]).ljust(size, b"\xff")

    def write_physical(self, pa: int, data: bytes) -> None:
        assert 0 <= pa <= pa + len(data) <= RAM_BYTES
        self.stored_bytes += len(data)
        self.largest_store = max(self.largest_store, len(data))
        if pa < MEMORY_BYTES:
            part = data[: MEMORY_BYTES - pa]
            self.data[pa : pa + len(part)] = part


@dataclass
class BenchSignals:
    serial: bytearray = field(default_factory=bytearray)
    debug: bytearray = field(default_factory=bytearray)
    exits: list[int] = field(default_factory=list)
    resets: int = 0

    def serial_output(self, data: bytes) -> None:
        self.serial += data

    def debug_output(self, data: bytes) -> None:
        self.debug += data

    def exit(self, value: int) -> None:
        self.exits.append(value)

    def reset(self) -> None:
        self.resets += 1


class Bench:
    """The board and its surroundings."""

    def __init__(self, insns_per_second: int = INSNS_PER_SECOND, files: Mapping[str, bytes] = FILES) -> None:
        self.clock, self.memory, self.signals = BenchClock(), BenchMemory(), BenchSignals()
        settings = BoardSettings(insns_per_second, RAM_BYTES, START_TIME, files)
        self.board = Board(settings, self.clock, self.memory, self.signals)

    def read(self, port: int, size: int = 1) -> int:
        return self.board.ports.read(port, size)

    def write(self, port: int, *values: int, size: int = 1) -> None:
        for value in values:
            self.board.ports.write(port, size, value)

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
