# SPDX-License-Identifier: GPL-2.0-or-later
"""Four drives on two channels: each has its own disk, registers, interrupt and bus master, and none sees a command for another."""

from __future__ import annotations

import json
import random
import struct

import pytest

from emu.devices.ide import MAX_DRIVES
from emu.errors import UsageError
from emu.saving import Giver, Taker
from tests.devices.helpers import Bench, BenchDisk
from tests.devices.ide_driver import (
    ABRT,
    ACTIVE,
    BSY,
    BUFFER,
    COUNT,
    DATA,
    DEVICE,
    DRQ,
    ERR,
    ERROR,
    INTERRUPT,
    LONG,
    LOW,
    MID,
    READY,
    STATUS,
    TABLE,
)

SECOND_CHANNEL = 0x80  # ports below those of the first
BLOCKS, CONTROLS, IRQS = (0x1F0, 0x170), (0x3F6, 0x376), (14, 15)
MASTERS = (0xC000, 0xC008)
IDENTIFY, READ, WRITE, READ_DMA, DIAGNOSE, SET_MULTIPLE = 0xEC, 0x20, 0x30, 0xC8, 0x90, 0xC6


class FourDrives(Bench):
    """Drives 0 to 3: the channel is the number's half, the place on it the rest. A drive's sector n is filled with 16 * drive + n."""

    def __init__(self, count: int = 4) -> None:
        disks = []
        for drive in range(count):
            disk = BenchDisk()
            disk.write(0, [memoryview(b"".join(bytes([16 * drive + n]) * 512 for n in range(8)))])
            disks.append(disk)
        super().__init__(disks=disks)
        for register, value in ((0x20, MASTERS[0]), (0x04, 5)):
            self.write(0xCF8, 0x8000_0900 | register, size=4)
            self.write(0xCFC, value, size=4)
        self.start_pics()

    def port(self, drive: int, port: int) -> int:
        return port - SECOND_CHANNEL * (drive // 2)

    def select(self, drive: int, lba_high: int = 0) -> None:
        self.write(self.port(drive, DEVICE), 0xE0 | drive % 2 << 4 | lba_high)

    def command(self, drive: int, code: int, lba: int = 0, count: int = 1) -> None:
        self.select(drive)
        self.write(self.port(drive, COUNT), count)
        for n in range(3):
            self.write(self.port(drive, LOW + n), lba >> 8 * n & 0xFF)
        self.write(self.port(drive, STATUS), code)

    def take(self, drive: int) -> bytes:
        return b"".join(self.read(self.port(drive, DATA), 2).to_bytes(2, "little") for _ in range(256))

    def alternate(self, drive: int) -> int:
        return self.read(CONTROLS[drive // 2])


@pytest.fixture
def bench() -> FourDrives:
    return FourDrives()


@pytest.mark.parametrize("drive", range(4))
def test_each_drive_reads_its_own_disk_and_raises_its_channel_s_interrupt(bench: FourDrives, drive: int) -> None:
    bench.command(drive, READ, lba=3)
    assert bench.alternate(drive) & BSY
    bench.run_for(LONG)
    assert bench.serve() == IRQS[drive // 2]
    assert bench.read(bench.port(drive, STATUS)) == READY | DRQ
    assert bench.take(drive) == bytes([16 * drive + 3]) * 512
    assert not bench.board.has_interrupt()
    bench.board.check()


@pytest.mark.parametrize("drive", range(4))
def test_each_drive_writes_its_own_disk(bench: FourDrives, drive: int) -> None:
    bench.command(drive, WRITE, lba=5)
    for _ in range(256):
        bench.write(bench.port(drive, DATA), 0xA55A, size=2)
    bench.run_for(LONG)
    for other, disk in enumerate(bench.disks):
        sector = bytearray(512)
        disk.read(5, [memoryview(sector)])
        assert sector == (b"\x5a\xa5" * 256 if other == drive else bytes([16 * other + 5]) * 512)


@pytest.mark.parametrize("drive", range(4))
def test_each_drive_names_itself(bench: FourDrives, drive: int) -> None:
    bench.command(drive, IDENTIFY)
    words = struct.unpack("<256H", bench.take(drive))
    serial = b"".join(word.to_bytes(2, "big") for word in words[10:20])
    assert serial.strip() == f"EM{drive + 1:05}".encode()
    assert words[93] == (0x6100 if drive % 2 else 0x6001)


@pytest.mark.parametrize("drive", range(4))
def test_dma_of_each_drive(bench: FourDrives, drive: int) -> None:
    master = MASTERS[drive // 2]
    bench.memory.write_physical(TABLE, struct.pack("<II", BUFFER, 512 | 1 << 31))
    bench.write(master + 4, TABLE, size=4)
    bench.command(drive, READ_DMA, lba=2)
    bench.write(master, 0x09)
    assert bench.read(master + 2) == ACTIVE
    assert bench.read(MASTERS[1 - drive // 2] + 2) == 0
    bench.run_for(LONG)
    assert bench.read(master + 2) == INTERRUPT
    assert bench.serve() == IRQS[drive // 2]
    assert bench.memory.read_physical(BUFFER, 512) == bytes([16 * drive + 2]) * 512


def test_both_channels_work_at_once(bench: FourDrives) -> None:
    bench.command(0, READ, lba=1)
    bench.command(3, READ, lba=2)
    assert bench.alternate(0) & bench.alternate(3) & BSY
    bench.run_for(LONG)
    assert {bench.serve(), bench.serve()} == {14, 15}
    assert (bench.take(0), bench.take(3)) == (b"\x01" * 512, b"\x32" * 512)


def test_a_busy_drive_keeps_its_channel(bench: FourDrives) -> None:
    """Neither the selection nor a command gets through, as in QEMU."""
    bench.command(0, READ, lba=1)
    bench.command(1, READ, lba=2)
    bench.run_for(LONG)
    assert bench.take(0) == b"\x01" * 512
    assert bench.read(DEVICE) == 0xE0
    bench.board.check()


def test_what_is_set_in_one_drive_is_not_set_in_the_other(bench: FourDrives) -> None:
    bench.command(1, SET_MULTIPLE, count=2)
    for drive, expected in ((0, 0x110), (1, 0x102)):
        bench.command(drive, IDENTIFY)
        assert struct.unpack("<256H", bench.take(drive))[59] == expected


def test_only_the_selected_drive_interrupts(bench: FourDrives) -> None:
    bench.command(1, IDENTIFY)
    assert bench.serve() == 14
    bench.take(1)
    bench.command(1, SET_MULTIPLE, count=3)  # refused
    bench.select(0)
    assert bench.alternate(0) == READY
    bench.select(1)
    assert bench.read(STATUS) == READY | ERR
    assert bench.read(ERROR) == ABRT
    bench.board.check()


def test_diagnostic_is_for_both_and_drive_0_tells(bench: FourDrives) -> None:
    bench.command(1, DIAGNOSE)
    assert bench.serve() == 14
    assert (bench.read(STATUS), bench.read(ERROR), bench.read(DEVICE)) == (READY, 1, 0)
    bench.select(1)
    assert bench.read(ERROR) == 1
    assert not bench.board.has_interrupt()
    bench.board.check()


def test_a_software_reset_is_for_both_drives_of_its_channel(bench: FourDrives) -> None:
    bench.command(3, READ)
    bench.command(1, READ)
    bench.write(CONTROLS[0], 0x04)
    assert bench.alternate(0) == BSY
    bench.write(CONTROLS[0], 0)
    for drive in (0, 1):
        bench.select(drive)
        assert bench.alternate(drive) == READY
    bench.run_for(LONG)
    assert bench.take(3) == b"\x30" * 512


def test_an_absent_second_drive_reads_as_nothing() -> None:
    bench = FourDrives(3)
    for drive, present in enumerate((True, True, True, False)):
        bench.select(drive)
        assert bench.alternate(drive) == (READY if present else 0)
        bench.command(drive, IDENTIFY)
        assert any(bench.take(drive)) == present
    bench.write(bench.port(3, MID), 0x5A)
    assert bench.read(bench.port(3, MID)) == 0x5A  # drive 2 took it, as in QEMU
    assert bench.read(bench.port(3, ERROR)) == 0
    bench.board.check()


def test_a_snapshot_has_all_drives_in_the_middle_of_what_they_do(bench: FourDrives) -> None:
    bench.command(1, SET_MULTIPLE, count=4)
    bench.command(0, READ, lba=1)
    bench.command(3, READ, lba=2)
    bench.run_for(LONG)
    half = bench.take(3)[:100]
    bench.command(2, IDENTIFY)
    taker = Taker()
    saved = json.loads(json.dumps(taker.take(bench.board.ide)))
    other = FourDrives()
    other.clock.time = bench.clock.time
    Giver(taker.arrays).give(other.board.ide, saved)
    other.board.check()
    assert half == b"\x32" * 100
    assert other.take(0) == bench.take(0) == b"\x01" * 512
    assert other.take(2) == bench.take(2)
    for one in (bench, other):
        one.command(1, IDENTIFY)
        assert struct.unpack("<256H", one.take(1))[59] == 0x104


def test_five_disks_are_too_many() -> None:
    with pytest.raises(UsageError, match="5 disks: at most 4"):
        Bench(disks=[BenchDisk() for _ in range(MAX_DRIVES + 1)])


@pytest.mark.parametrize("seed", range(8))
def test_random_accesses_keep_the_invariants_and_the_disks_apart(seed: int) -> None:
    """Everything that a hostile guest may do to the ports, at every moment; drive n is only ever read from."""
    rng = random.Random(seed)
    bench = FourDrives()
    before = [_contents(disk) for disk in bench.disks]
    ports = [*range(0x1F0, 0x1F8), 0x3F6, *range(0x170, 0x178), 0x376, *range(0xC000, 0xC010)]
    reads = (
        READ,
        READ_DMA,
        IDENTIFY,
        DIAGNOSE,
        SET_MULTIPLE,
        0x24,
        0x25,
        0x29,
        0x40,
        0xC4,
        0xE7,
        0xEF,
        0x91,
        0x10,
        0x70,
        0xF8,
        0x27,
    )
    for _ in range(3000):
        port = rng.choice(ports)
        if rng.random() < 0.3:
            bench.read(port, rng.choice((1, 2)))
        elif port in (0x1F7, 0x177):
            bench.write(port, rng.choice(reads))
        else:
            bench.write(port, rng.getrandbits(8))
        if rng.random() < 0.2:
            bench.run_for(rng.randrange(20_000))
        bench.board.check()
    assert [_contents(disk) for disk in bench.disks] == before


def _contents(disk: BenchDisk) -> bytes:
    data = bytearray(disk.sectors * 512)
    disk.read(0, [memoryview(data)])
    return bytes(data)
