# SPDX-License-Identifier: GPL-2.0-or-later
"""fw_cfg as QEMU's docs/specs/fw_cfg.rst describes it, and what a hostile DMA request may not do."""

from __future__ import annotations

import struct

import pytest

from tests.devices.helpers import FILES, RAM_BYTES, Bench

SELECTOR, DATA, DMA_HIGH, DMA_LOW = 0x510, 0x511, 0x514, 0x518
ERROR, READ, SKIP, SELECT, WRITE = 0x01, 0x02, 0x04, 0x08, 0x10
REQUEST_AT, TARGET = 0x100, 0x200
FILE_B = 0x22  # etc/c, opt/a, opt/b: keys from 20 in the order of the names


def item(bench: Bench, key: int, size: int) -> bytes:
    bench.write(SELECTOR, key, size=2)
    return bytes(bench.read(DATA) for _ in range(size))


def start_dma(bench: Bench, address: int) -> None:
    for port, word in ((DMA_HIGH, address >> 32), (DMA_LOW, address & 0xFFFF_FFFF)):
        bench.write(port, int.from_bytes(word.to_bytes(4, "big"), "little"), size=4)


def dma(bench: Bench, control: int, length: int, target: int = TARGET) -> int:
    """A transfer; returns what the device left in the request's control word."""
    bench.memory.data[REQUEST_AT : REQUEST_AT + 16] = struct.pack(">IIQ", control, length, target)
    start_dma(bench, REQUEST_AT)
    return int.from_bytes(bench.memory.data[REQUEST_AT : REQUEST_AT + 4], "big")


def test_numbered_items(bench: Bench) -> None:
    assert item(bench, 0x00, 4) == b"QEMU"
    assert item(bench, 0x01, 4) == struct.pack("<I", 3)
    assert item(bench, 0x03, 8) == struct.pack("<Q", RAM_BYTES)
    assert item(bench, 0x05, 2) == struct.pack("<H", 1)
    assert item(bench, 0x0F, 2) == struct.pack("<H", 1)


def test_command_line_has_keys_as_in_qemu() -> None:
    with_kernel = Bench(files=FILES | {"opt/emu/cmdline": b"kernel one\0"})
    assert item(with_kernel, 0x14, 4) == struct.pack("<I", 11)
    assert item(with_kernel, 0x15, 12) == b"kernel one\0\0"
    without = Bench()
    assert item(without, 0x14, 4) + item(without, 0x15, 4) == bytes(8)


def test_directory_lists_files_by_name(bench: Bench) -> None:
    count = int.from_bytes(item(bench, 0x19, 4), "big")
    entries = [struct.unpack(">IHH56s", bytes(bench.read(DATA) for _ in range(64))) for _ in range(count)]
    found = {name.rstrip(b"\0").decode(): (size, key) for size, key, _reserved, name in entries}
    assert list(found) == sorted(FILES)
    assert found == {name: (len(FILES[name]), 0x20 + number) for number, name in enumerate(sorted(FILES))}


def test_past_the_end_and_unknown_items_read_zero(bench: Bench) -> None:
    assert item(bench, 0x00, 6) == b"QEMU\0\0"
    assert item(bench, 0x3FFF, 2) == b"\0\0"


def test_dma_signature(bench: Bench) -> None:
    words = bench.read(DMA_HIGH, 4), bench.read(DMA_LOW, 4)
    assert b"".join(word.to_bytes(4, "little") for word in words) == b"QEMU CFG"


def test_dma_reads_select_skip_and_go_on(bench: Bench) -> None:
    assert dma(bench, FILE_B << 16 | SELECT | SKIP, 10) == 0
    assert dma(bench, READ, 5) == 0
    assert bench.memory.data[TARGET : TARGET + 6] == FILES["opt/b"][10:15] + b"\0"
    assert bench.read(DATA) == FILES["opt/b"][15]


def test_dma_pads_with_zeros(bench: Bench) -> None:
    bench.memory.data[TARGET : TARGET + 200] = b"\xaa" * 200
    assert dma(bench, FILE_B << 16 | SELECT | READ, 150) == 0
    assert bench.memory.data[TARGET : TARGET + 200] == FILES["opt/b"].ljust(150, b"\0") + b"\xaa" * 50


def test_dma_write_is_refused_and_changes_nothing(bench: Bench) -> None:
    assert dma(bench, FILE_B << 16 | SELECT | WRITE, 4) == ERROR
    assert item(bench, FILE_B, 4) == FILES["opt/b"][:4]


def test_huge_dma_stays_in_ram_and_moves_bounded_chunks(bench: Bench) -> None:
    dma(bench, FILE_B << 16 | SELECT | READ, 0xFFFF_FFFF, RAM_BYTES // 2)
    assert bench.memory.stored_bytes == RAM_BYTES // 2 + 4  # and the control word
    assert bench.memory.largest_store <= 1 << 20


@pytest.mark.parametrize("address", [RAM_BYTES - 15, RAM_BYTES, 1 << 32, 1 << 63, (1 << 64) - 1, (1 << 64) - 16])
def test_dma_outside_ram_has_no_effect(bench: Bench, address: int) -> None:
    start_dma(bench, address)
    assert dma(bench, FILE_B << 16 | SELECT | READ, 32, address | 15) == 0
    assert bench.memory.stored_bytes <= 4 + 15
    assert bench.read(DATA) == FILES["opt/b"][32]


def test_request_may_be_overwritten_by_its_own_data(bench: Bench) -> None:
    assert dma(bench, FILE_B << 16 | SELECT | READ, 32, REQUEST_AT) == 0
    assert bench.memory.data[REQUEST_AT + 4 : REQUEST_AT + 32] == FILES["opt/b"][4:32]


def test_reset_selects_the_signature_again(bench: Bench) -> None:
    bench.write(SELECTOR, 0x05, size=2)
    bench.board.reset()
    assert bench.read(DATA) == ord("Q")


def test_what_dma_stores_takes_time(bench: Bench) -> None:
    """Bytes that reach RAM are told of; skipped ones, and those that would lie outside, are not."""
    dma(bench, SELECT | READ | FILE_B << 16, 100)
    dma(bench, SKIP, 5000)
    dma(bench, READ, 0xFFFF_FFFF, RAM_BYTES - 16)
    dma(bench, READ, 0xFFFF_FFFF, RAM_BYTES + 16)
    assert bench.signals.moved_bytes == 116
