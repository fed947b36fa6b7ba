# SPDX-License-Identifier: GPL-2.0-or-later
"""The IDE controller: channels without drives, which read as zeros as QEMU's do, and the drive of the first one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.devices.helpers import DISK_SECTORS, LATENCY_INSNS, MEMORY_BYTES, SECTOR_INSNS, Bench, BenchDisk
from tests.devices.ide_driver import (
    ABRT,
    ACTIVE,
    BSY,
    BUFFER,
    CONTROL,
    COUNT,
    DATA,
    DEVICE,
    DRQ,
    ERR,
    ERROR,
    HIGH,
    IDNF,
    INTERRUPT,
    LONG,
    LOW,
    MASTER,
    MASTER_STATUS,
    MASTER_TABLE,
    MID,
    READY,
    STATUS,
    UNC,
    DriveBench,
    pattern,
)

QEMU = shutil.which("qemu-system-i386")
PORTS = (*range(0x1F0, 0x1F8), 0x3F6, *range(0x170, 0x178), 0x376)
QEMU_LIMIT_S = 60


def probe() -> bytes:
    """A boot sector that writes to each port, as a driver that looks for a drive, and shows on port E9 what it reads there."""
    code = b"".join(
        b"\xba" + port.to_bytes(2, "little")  # mov $port, %dx
        + b"\xb0\xa0\xee\xec\xe6\xe9"  # mov $0xa0, %al; out; in; out to E9
        for port in PORTS
    )  # fmt: skip
    data = b"\xba\xf0\x01\xed\xe6\xe9\x88\xe0\xe6\xe9"  # inw 1F0, both bytes to E9
    return (code + data + b"\xb0\x00\xe6\xf4\xf4").ljust(510, b"\0") + b"\x55\xaa"


@pytest.mark.parametrize("size", [1, 2, 4])
def test_channels_without_drives_read_as_zeros(bench: Bench, size: int) -> None:
    for port in PORTS:
        bench.write(port, 0xA0)
    assert {port: bench.read(port, size) for port in PORTS[:5]} == dict.fromkeys(PORTS[:5], 0)
    assert {port: bench.read(port) for port in PORTS} == dict.fromkeys(PORTS, 0)


@pytest.mark.skipif(QEMU is None, reason="needs QEMU")
def test_channels_without_drives_in_qemu(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(probe().ljust(1 << 16, b"\0"))
    subprocess.run(
        [QEMU or "", "-machine", "pc", "-nodefaults", "-display", "none", "-accel", "tcg"]
        + ["-drive", f"if=floppy,format=raw,file={tmp_path / 'disk'}"]
        + ["-debugcon", f"file:{tmp_path / 'told'}", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
        timeout=QEMU_LIMIT_S, check=False,
    )  # fmt: skip
    assert (tmp_path / "told").read_bytes() == bytes(len(PORTS) + 2)


# ---- registers, identity ----


@pytest.fixture
def drive() -> DriveBench:
    return DriveBench()


def words_of(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 2], "little") for at in range(0, 512, 2)]


def test_identify(drive: DriveBench) -> None:
    assert drive.run(0xEC) == READY | DRQ
    words = words_of(drive.take())
    assert drive.read(CONTROL) == READY
    assert words[0] & 0x8000 == 0
    assert (words[1], words[3], words[6]) == (DISK_SECTORS // 1008, 16, 63)
    assert words[47] & 0xFF == 16
    assert words[49] & 0x300 == 0x300
    assert words[60] | words[61] << 16 == DISK_SECTORS
    assert words[100:104] == [DISK_SECTORS, 0, 0, 0]
    assert words[83] & 0x2400 == 0x2400
    assert words[88] >> 8 == 1 << 5
    assert b"".join(word.to_bytes(2, "big") for word in words[27:47]).strip() == b"EMU HARDDISK"


def test_a_large_disk_shows_no_more_than_28_bits_reach() -> None:
    drive = DriveBench(BenchDisk(sectors=1 << 32))
    drive.run(0xEC)
    words = words_of(drive.take())
    assert words[60] | words[61] << 16 == (1 << 28) - 1
    assert words[100:104] == [0, 0, 1, 0]
    assert words[1] == 16383


def test_transfer_mode_shows_in_identify(drive: DriveBench) -> None:
    drive.write(ERROR, 0x03)
    assert drive.run(0xEF, count=0x22) == READY
    drive.run(0xEC)
    words = words_of(drive.take())
    assert (words[63] >> 8, words[88] >> 8) == (1 << 2, 0)
    drive.write(ERROR, 0x03)
    assert drive.run(0xEF, count=0x47) == READY | ERR


@pytest.mark.parametrize("code", [0x00, 0x08, 0x22, 0x50, 0x80, 0xA0, 0xA1, 0xB0, 0xC0, 0xF5, 0xFF])
def test_unknown_commands_abort(drive: DriveBench, code: int) -> None:
    assert drive.run(code) == READY | ERR
    assert drive.read(ERROR) == ABRT
    assert drive.board.has_interrupt()


def test_software_reset_drops_what_is_under_way(drive: DriveBench) -> None:
    drive.command(0x20, 7)
    drive.write(CONTROL, 0x04)
    assert drive.read(CONTROL) == BSY
    drive.write(CONTROL, 0x00)
    assert [drive.read(port) for port in (ERROR, COUNT, LOW, MID, HIGH, DEVICE, CONTROL)] == [1, 1, 1, 0, 0, 0, READY]
    drive.run_for(LONG)
    assert drive.read(CONTROL) == READY
    assert not drive.board.has_interrupt()


def test_high_order_bytes(drive: DriveBench) -> None:
    drive.write(LOW, 0x12, 0x34)
    assert drive.read(LOW) == 0x34
    drive.write(CONTROL, 0x80)
    assert drive.read(LOW) == 0x12
    drive.write(LOW, 0x56)
    assert drive.read(LOW) == 0x56


def test_the_absent_second_drive(drive: DriveBench) -> None:
    drive.write(DEVICE, 0xF0)
    assert [drive.read(STATUS), drive.read(CONTROL), drive.read(ERROR)] == [0, 0, 0]
    drive.write(STATUS, 0xEC)
    drive.run_for(LONG)
    assert drive.read(STATUS) == 0
    assert not drive.board.has_interrupt()


def test_registers_and_commands_are_ignored_while_busy(drive: DriveBench) -> None:
    drive.command(0x20, 7, 1)
    drive.write(LOW, 99)
    drive.write(STATUS, 0xFF)
    drive.run_for(LONG)
    assert drive.read(CONTROL) == READY | DRQ


# ---- programmed transfers and time ----


def test_a_read_takes_latency_and_bandwidth(drive: DriveBench) -> None:
    drive.store.data[512 * 5 : 512 * 7] = pattern(1024)
    start = drive.clock.time
    drive.command(0x20, 5, 2)
    assert drive.read(CONTROL) & BSY
    assert drive.board.next_event() == start + LATENCY_INSNS + SECTOR_INSNS
    drive.run_for(LATENCY_INSNS + SECTOR_INSNS - 1)
    assert drive.read(CONTROL) & BSY
    assert not drive.board.has_interrupt()
    drive.run_for(1)
    assert drive.serve() == 14
    assert drive.read(STATUS) == READY | DRQ
    assert drive.take() == pattern(1024)[:512]
    drive.run_for(SECTOR_INSNS)
    assert drive.take(width=4) == pattern(1024)[512:]
    assert drive.read(STATUS) == READY
    assert (drive.lba(), drive.read(COUNT)) == (7, 0)


def test_a_poll_sees_the_end_at_its_exact_time(drive: DriveBench) -> None:
    """A driver may poll within one run of the processor, which the board does not interrupt."""
    drive.command(0x20)
    drive.clock.time += LATENCY_INSNS + SECTOR_INSNS - 1
    assert drive.read(CONTROL) & BSY
    drive.clock.time += 1
    assert drive.read(CONTROL) == READY | DRQ


@pytest.mark.parametrize("width", [1, 2, 4])
def test_writes(drive: DriveBench, width: int) -> None:
    drive.command(0x30, 9, 2)
    assert drive.read(CONTROL) == READY | DRQ
    assert not drive.board.has_interrupt()
    drive.give(pattern(512), width)
    assert drive.read(CONTROL) & BSY
    drive.run_for(LONG)
    assert drive.serve() == 14
    assert drive.read(STATUS) == READY | DRQ
    drive.give(pattern(512, 2), width)
    drive.run_for(LONG)
    assert drive.read(STATUS) == READY
    assert drive.store.data[512 * 9 : 512 * 11] == pattern(512) + pattern(512, 2)
    assert drive.board.ide.drives[0].counts.written_bytes == 1024


def test_reset_in_a_write_stores_nothing(drive: DriveBench) -> None:
    drive.command(0x30, 9)
    drive.give(pattern(512))
    drive.write(CONTROL, 0x04, 0x00)
    drive.run_for(LONG)
    assert not any(drive.store.data)


def test_multiple(drive: DriveBench) -> None:
    drive.store.data[: 512 * 7] = pattern(512 * 7)
    assert drive.run(0xC6, count=4) == READY
    assert drive.run(0xC4, 0, 7) == READY | DRQ
    assert drive.take(2048) == pattern(3584)[:2048]
    drive.run_for(LONG)
    assert drive.take(1536) == pattern(3584)[2048:]
    assert drive.read(CONTROL) == READY
    for refused in (3, 32):
        assert drive.run(0xC6, count=refused) == READY | ERR
    assert drive.run(0xC6, count=0) == READY
    assert drive.run(0xC5, 0, 7) == READY | ERR


def test_addresses_by_cylinder_head_and_sector(drive: DriveBench) -> None:
    drive.write(COUNT, 8)
    drive.write(DEVICE, 0xA3)
    drive.write(STATUS, 0x91)
    drive.store.data[512 * 116 : 512 * 117] = pattern(512)  # (3 * 4 + 2) * 8 + 5 - 1

    def read(sector: int, head: int = 2) -> int:
        for port, value in ((COUNT, 1), (LOW, sector), (MID, 3), (HIGH, 0), (DEVICE, 0xA0 | head)):
            drive.write(port, value)
        drive.write(STATUS, 0x20)
        drive.run_for(LONG)
        return drive.read(CONTROL)

    assert read(5) == READY | DRQ
    assert drive.take() == pattern(512)
    assert [drive.read(port) for port in (LOW, MID, DEVICE)] == [6, 3, 0xA2]
    for sector, head in ((0, 2), (9, 2), (1, 4)):
        assert read(sector, head) == READY | ERR
        assert drive.read(ERROR) == IDNF


def test_nien_masks_and_a_status_read_takes_the_interrupt_back(drive: DriveBench) -> None:
    drive.write(CONTROL, 0x02)
    drive.run(0xE7)
    assert not drive.board.has_interrupt()
    assert drive.read(MASTER_STATUS) == 0
    drive.write(CONTROL, 0x00)
    assert drive.board.has_interrupt()
    drive.serve()
    drive.write(CONTROL, 0x02)
    drive.run(0xE7)
    drive.read(STATUS)
    drive.write(CONTROL, 0x00)
    assert not drive.board.has_interrupt()
    assert drive.store.flushes == 2


# ---- errors ----


@pytest.mark.parametrize("code", [0x20, 0x24, 0x40, 0x42, 0xC4, 0x29])
@pytest.mark.parametrize("lba", [DISK_SECTORS, (1 << 28) - 1])
def test_beyond_the_end(drive: DriveBench, code: int, lba: int) -> None:
    assert drive.run(code, lba) == READY | ERR
    assert drive.read(ERROR) == IDNF


def test_the_part_before_the_end_is_read(drive: DriveBench) -> None:
    assert drive.run(0x20, DISK_SECTORS - 1, 2) == READY | DRQ
    drive.take()
    drive.run_for(LONG)
    assert drive.read(CONTROL) == READY | ERR
    assert drive.lba() == DISK_SECTORS


@pytest.mark.parametrize("code", [0x25, 0x35])
def test_48_bit_addresses_do_not_wrap(drive: DriveBench, code: int) -> None:
    for lba in ((1 << 48) - 1, 1 << 40, 1 << 24):
        assert drive.dma(code, lba, 1, [(BUFFER, 512)]) & (ACTIVE | INTERRUPT) == INTERRUPT
        assert drive.read(CONTROL) == READY | ERR
    assert not any(drive.store.data)


def test_bad_sectors() -> None:
    drive = DriveBench(BenchDisk(bad_from=10))
    assert drive.dma(0xC8, 8, 4, [(BUFFER, 2048)]) & (ACTIVE | INTERRUPT) == INTERRUPT
    assert (drive.read(STATUS), drive.read(ERROR), drive.lba()) == (READY | ERR, UNC, 10)
    drive.dma(0xCA, 8, 4, [(BUFFER, 2048)])
    assert (drive.read(STATUS), drive.read(ERROR), drive.lba()) == (READY | ERR, ABRT, 10)
    drive.command(0x30, 10)
    drive.give(pattern(512))
    drive.run_for(LONG)
    assert (drive.read(STATUS), drive.read(ERROR)) == (READY | ERR, ABRT)
    assert drive.board.ide.drives[0].counts.errors == 3


def test_a_flush_may_fail() -> None:
    drive = DriveBench(BenchDisk(fails_to_flush=True))
    assert drive.run(0xEA) == READY | ERR
    assert drive.read(ERROR) == ABRT


@pytest.mark.parametrize("code", [0x30, 0x34, 0x39, 0xC5, 0xCA, 0x35])
def test_a_readonly_disk_aborts_writes(code: int) -> None:
    drive = DriveBench(BenchDisk(is_readonly=True))
    assert drive.run(code) == READY | ERR
    assert drive.read(ERROR) == ABRT
    assert drive.run(0xE7) == READY
    assert drive.store.flushes == 0


# ---- bus master ----


def test_dma_scatters_and_gathers(drive: DriveBench) -> None:
    data = pattern(1024)
    drive.memory.data[BUFFER : BUFFER + 1024] = data
    assert drive.dma(0xCA, 3, 2, [(BUFFER, 2), (BUFFER + 2, 700), (BUFFER + 702, 322)]) & (ACTIVE | INTERRUPT) == INTERRUPT
    assert drive.store.data[3 * 512 : 5 * 512] == data
    drive.memory.data[BUFFER:] = bytes(MEMORY_BYTES - BUFFER)
    assert drive.dma(0xC8, 3, 2, [(BUFFER + 600, 424), (BUFFER, 600)]) & (ACTIVE | INTERRUPT) == INTERRUPT
    assert drive.memory.data[BUFFER + 600 : BUFFER + 1024] == data[:424]
    assert drive.memory.data[BUFFER : BUFFER + 600] == data[424:]
    assert drive.read(STATUS) == READY


def test_dma_takes_its_time_and_raises_irq_14(drive: DriveBench) -> None:
    drive.store.data[:512] = pattern(512)
    drive.describe([(BUFFER, 512)])
    drive.command(0xC8)
    drive.run_for(LONG)
    assert drive.read(CONTROL) == READY | DRQ  # nobody has started the bus master
    drive.start(to_memory=True)
    assert drive.read(MASTER_STATUS) == ACTIVE
    drive.run_for(LATENCY_INSNS + SECTOR_INSNS - 1)
    assert not any(drive.memory.data[BUFFER:])
    drive.run_for(1)
    assert drive.memory.data[BUFFER : BUFFER + 512] == pattern(512)
    assert drive.read(MASTER_STATUS) == INTERRUPT
    assert drive.serve() == 14
    drive.write(MASTER_STATUS, INTERRUPT)
    assert drive.read(MASTER_STATUS) == 0


def test_a_stop_takes_a_transfer_back_and_a_start_begins_it_again(drive: DriveBench) -> None:
    drive.store.data[:512] = pattern(512)
    drive.describe([(BUFFER, 512)])
    drive.command(0xC8)
    drive.start(to_memory=True)
    drive.write(MASTER, 0x08)
    drive.run_for(LONG)
    assert not any(drive.memory.data[BUFFER:])
    assert (drive.read(MASTER_STATUS), drive.read(CONTROL)) == (0, READY | DRQ)
    drive.start(to_memory=True)
    drive.run_for(LONG)
    assert drive.memory.data[BUFFER : BUFFER + 512] == pattern(512)


def test_dma_waits_for_leave_to_master_the_bus(drive: DriveBench) -> None:
    drive.store.data[:512] = pattern(512)
    drive.configure(0x04, 1)
    drive.dma(0xC8, 0, 1, [(BUFFER, 512)])
    assert not any(drive.memory.data[BUFFER:])
    drive.start(to_memory=True)
    drive.configure(0x04, 5)
    drive.run_for(LONG)
    assert drive.memory.data[BUFFER : BUFFER + 512] == pattern(512)


def test_too_few_descriptors_move_nothing_and_do_not_interrupt(drive: DriveBench) -> None:
    drive.store.data[:1024] = pattern(1024)
    assert drive.dma(0xC8, 0, 2, [(BUFFER, 512), (BUFFER + 512, 510)]) & (ACTIVE | INTERRUPT) == 0
    assert drive.read(CONTROL) == READY
    assert not any(drive.memory.data[BUFFER:])
    assert not drive.board.has_interrupt()


def test_too_many_descriptors_leave_the_master_active(drive: DriveBench) -> None:
    drive.store.data[:1024] = pattern(1024)
    assert drive.dma(0xC8, 0, 1, [(BUFFER, 512), (BUFFER + 512, 512)]) & (ACTIVE | INTERRUPT) == ACTIVE | INTERRUPT
    assert drive.memory.data[BUFFER : BUFFER + 1024] == pattern(1024)[:512] + bytes(512)
    assert drive.read(MASTER_STATUS) & ACTIVE == 0  # stopped


def test_low_bits_of_descriptors_are_no_part_of_them(drive: DriveBench) -> None:
    drive.store.data[:512] = pattern(512)
    assert drive.dma(0xC8, 0, 1, [(BUFFER + 1, 513)]) & INTERRUPT
    assert drive.memory.data[BUFFER : BUFFER + 512] == pattern(512)
    drive.write(MASTER_TABLE, 0xFFFF_FFFF, size=4)
    assert drive.read(MASTER_TABLE, 4) == 0xFFFF_FFFC


@pytest.mark.parametrize("place", [MEMORY_BYTES, 0x8000_0000, 0xFFFF_FFFE])
def test_dma_outside_memory(drive: DriveBench, place: int) -> None:
    drive.store.data[:] = pattern(len(drive.store.data))
    before = bytes(drive.memory.data)
    assert drive.dma(0xC8, 0, 1, [(place, 512)]) & (ACTIVE | INTERRUPT) == INTERRUPT
    assert drive.memory.data[BUFFER:] == before[BUFFER:]
    assert drive.dma(0xCA, 0, 1, [(place, 512)]) & (ACTIVE | INTERRUPT) == INTERRUPT
    assert drive.store.data[:512] == b"\xff" * 512


@pytest.mark.parametrize("place", [0x8000_0000, 0xFFFF_FFFC])
def test_a_table_outside_memory_reads_as_ones(drive: DriveBench, place: int) -> None:
    """One descriptor of 65,534 bytes: enough for one sector."""
    drive.describe([(BUFFER, 512)])
    drive.write(MASTER_TABLE, place, size=4)
    drive.command(0xC8)
    drive.start(to_memory=True)
    drive.run_for(LONG)
    assert drive.read(MASTER_STATUS) == ACTIVE | INTERRUPT


def test_an_endless_table_is_512_descriptors(drive: DriveBench) -> None:
    drive.memory.data[:] = b"\x00\x0e\x00\x00\x02\x00\x00\x00" * (MEMORY_BYTES // 8)  # two bytes at 0E00, and not the last
    drive.write(MASTER_TABLE, 0, size=4)
    for count, status in ((2, INTERRUPT), (3, 0)):
        drive.write(MASTER_STATUS, 0x06)
        drive.command(0xC8, 0, count)
        drive.start(to_memory=True)
        drive.run_for(LONG)
        assert drive.read(MASTER_STATUS) == status
        drive.write(MASTER, 0)


def test_the_second_channel_has_registers_and_no_drive(drive: DriveBench) -> None:
    drive.write(MASTER + 8, 0x09)
    assert drive.read(MASTER + 10) == ACTIVE
    drive.run_for(LONG)
    assert drive.read(MASTER + 10) == ACTIVE
    assert drive.read(MASTER_STATUS) == 0
    drive.write(MASTER + 8, 0)
    assert drive.read(MASTER + 10) == 0


def test_software_bits_of_the_master_status(drive: DriveBench) -> None:
    drive.write(MASTER_STATUS, 0xFF)
    assert drive.read(MASTER_STATUS) == 0x60


def test_reset_of_the_board_ends_a_transfer(drive: DriveBench) -> None:
    drive.describe([(BUFFER, 512)])
    drive.command(0xC8)
    drive.start(to_memory=True)
    drive.board.reset()
    drive.run_for(LONG)
    assert (drive.read(CONTROL), drive.read(DATA, 2), drive.read(MASTER_STATUS)) == (READY, 0, 0xFF)
    assert not drive.board.has_interrupt()
