"""QEMU's firmware configuration device: numbered items, read byte by byte or by DMA (QEMU, docs/specs/fw_cfg.rst).

A guest chooses where a transfer goes and how long it is. DMA reaches RAM and nothing else: a request that lies outside is
not carried out, and what a transfer would store outside is dropped. No more than CHUNK_BYTES are allocated at a time. The processor
waits for the end: what is moved takes virtual time (`moved`), else a guest could have the host copy for ever at one time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import ClassVar

from emu.devices.guest_memory import GuestMemory

PORT_SELECTOR, PORT_DATA, PORT_DMA_HIGH, PORT_DMA_LOW = 0x510, 0x511, 0x514, 0x518
KEY_SIGNATURE, KEY_ID, KEY_RAM_BYTES, KEY_CPUS, KEY_MAX_CPUS = 0x00, 0x01, 0x03, 0x05, 0x0F
KEY_CMDLINE_BYTES, KEY_CMDLINE, KEY_DIRECTORY, KEY_FIRST_FILE = 0x14, 0x15, 0x19, 0x20
CMDLINE_FILE = "opt/emu/cmdline"  # the kernel's command line with its NUL, which has keys of its own in QEMU
ID_TRADITIONAL_AND_DMA = 3
DMA_SIGNATURE = 0x51454D5520434647  # "QEMU CFG"
DMA_ERROR, DMA_READ, DMA_SKIP, DMA_SELECT, DMA_WRITE = 0x01, 0x02, 0x04, 0x08, 0x10
RECORD_BYTES = 16  # of a DMA request: u32 control, u32 length, u64 address, big-endian
NAME_BYTES = 56
CHUNK_BYTES = 1 << 20


class FwCfg:
    """The device. `files` are found by name in its directory; `memory_bytes` is what it says of RAM; `moved` hears of bytes that DMA stored."""

    WIRING: ClassVar = frozenset({"_items", "_memory", "_moved"})

    PORTS = (range(PORT_SELECTOR, PORT_DATA + 1), range(PORT_DMA_HIGH, PORT_DMA_LOW + 4))
    SIZES = (1, 2, 4)

    def __init__(self, files: Mapping[str, bytes], memory_bytes: int, memory: GuestMemory, moved: Callable[[int], None]) -> None:
        self._memory = memory
        self._moved = moved
        self._memory_bytes = memory_bytes
        names = sorted(files)
        directory = struct.pack(">I", len(names))
        self._items: dict[int, bytes] = {
            KEY_SIGNATURE: b"QEMU",
            KEY_ID: struct.pack("<I", ID_TRADITIONAL_AND_DMA),
            KEY_RAM_BYTES: struct.pack("<Q", memory_bytes),
            KEY_CPUS: struct.pack("<H", 1),
            KEY_MAX_CPUS: struct.pack("<H", 1),
        }
        if CMDLINE_FILE in files:
            self._items[KEY_CMDLINE_BYTES] = struct.pack("<I", len(files[CMDLINE_FILE]))
            self._items[KEY_CMDLINE] = files[CMDLINE_FILE]
        for key, name in enumerate(names, KEY_FIRST_FILE):
            self._items[key] = files[name]
            directory += struct.pack(f">IHH{NAME_BYTES}s", len(files[name]), key, 0, name.encode())
        self._items[KEY_DIRECTORY] = directory
        self.reset()

    def reset(self) -> None:
        """Power-on state."""
        self._select(KEY_SIGNATURE)
        self._dma_high = 0

    def _select(self, key: int) -> None:
        self._selected = key
        self._offset = 0

    @property
    def _item(self) -> bytes:
        return self._items.get(self._selected, b"")

    def read(self, port: int, size: int) -> int:
        """IN: the next byte of the item, or the DMA signature."""
        if port == PORT_DATA and size == 1:
            item = self._item
            byte = item[self._offset] if self._offset < len(item) else 0
            self._offset += 1
            return byte
        if port >= PORT_DMA_HIGH:
            signature = DMA_SIGNATURE.to_bytes(8, "big")[port - PORT_DMA_HIGH :][:size]
            return int.from_bytes(signature, "little")
        return 0

    def write(self, port: int, size: int, value: int) -> None:
        """OUT: select an item, or start a transfer."""
        if port == PORT_SELECTOR and size == 2:
            self._select(value)
        elif port == PORT_DMA_HIGH and size == 4:
            self._dma_high = _swap(value)
        elif port == PORT_DMA_LOW and size == 4:
            address, self._dma_high = self._dma_high << 32 | _swap(value), 0
            self._transfer(address)

    def _transfer(self, address: int) -> None:
        if address + RECORD_BYTES > self._memory_bytes:
            return
        control, length, target = struct.unpack(">IIQ", self._memory.read_physical(address, RECORD_BYTES))
        if control & DMA_SELECT:
            self._select(control >> 16)
        result = 0
        if control & DMA_READ:
            self._copy(target, length)
        elif control & DMA_WRITE:  # all items are read-only
            result = DMA_ERROR
        elif control & DMA_SKIP:
            self._offset += length
        self._memory.write_physical(address, struct.pack(">I", result))

    def _copy(self, target: int, length: int) -> None:
        """Copy from the item; what lies beyond its end reads as zero."""
        end = self._offset + length
        left = min(length, max(0, self._memory_bytes - target))
        self._moved(left)
        while left:
            size = min(left, CHUNK_BYTES)
            part = self._item[self._offset : self._offset + size]
            self._memory.write_physical(target, part.ljust(size, b"\0"))
            self._offset += size
            target += size
            left -= size
        self._offset = end


def _swap(value: int) -> int:
    """The other byte order of 32 bits."""
    return int.from_bytes(value.to_bytes(4, "little"), "big")
