"""The disk's layout, as guests/os/kernel/format.h has it: a master boot record, a file system, a swap partition.

Sizes are in bytes where they say so, else in blocks of 4096 bytes; all numbers on the disk are little-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field

from emu.units import GIB

BLOCK = 4096
SECTOR = 512
BLOCK_SECTORS = BLOCK // SECTOR
MAGIC = 0x53464D45
VERSION = 1
LOG_MAGIC = 0x474F4C45
LOG_CAPACITY = 120
LOG_BLOCKS = 64
INODE_BYTES = 128
DIRECT = 20
POINTERS = 1024
ENTRY_BYTES = 64
NAME_BYTES = 60
ROOT = 1
NONE, FILE, DIRECTORY = 0, 1, 2
KIND_NAMES = {NONE: "free inode", FILE: "file", DIRECTORY: "directory"}
PARTITION_FILES, PARTITION_SWAP = 0x7F, 0x82
PARTITIONS_AT, PARTITION_BYTES, PARTITION_COUNT = 446, 16, 4
SIGNATURE = b"\x55\xaa"
FIRST_BLOCK = 16  # of the file system on the disk: what lies before is left to boot code
BITS = BLOCK * 8
INODES_IN_BLOCK = BLOCK // INODE_BYTES
MAX_PAGES = DIRECT + POINTERS + POINTERS * POINTERS
MIN_FILES_BLOCKS = 256  # of a file system
MAX_BLOCKS = 2 * GIB // BLOCK  # of an image

_SUPERBLOCK = struct.Struct("<11I")
_INODE = struct.Struct(f"<IIQI{DIRECT}III")
_PARTITION = struct.Struct("<B3sB3sII")
_ENTRY = struct.Struct(f"<I{NAME_BYTES}s")
_POINTERS = struct.Struct(f"<{POINTERS}I")


@dataclass(frozen=True)
class Partition:
    """A line of the master boot record, in blocks."""

    kind: int
    first: int
    blocks: int


@dataclass(frozen=True)
class Superblock:
    """Where everything is, in blocks of the partition."""

    magic: int
    version: int
    blocks: int
    inodes: int
    log_first: int
    log_blocks: int
    bitmap_first: int
    bitmap_blocks: int
    inode_first: int
    inode_blocks: int
    data_first: int

    def pack(self) -> bytes:
        """As on the disk."""
        return _SUPERBLOCK.pack(*astuple(self))

    @classmethod
    def unpack(cls, block: bytes) -> Superblock:
        """From a block."""
        return cls(*_SUPERBLOCK.unpack_from(block))

    def fault_of(self, page: int, block: int, *, is_table: bool) -> str:
        """Why a block cannot be a file's, empty if it can be."""
        if self.data_first <= block < self.blocks:
            return ""
        return f"{use_of(page, is_table=is_table)} is block {block}, outside of the data blocks"

    @classmethod
    def for_size(cls, blocks: int) -> Superblock:
        """The layout of a new file system: an inode for each four blocks."""
        inode_blocks = max(1, -(-blocks // 4 // INODES_IN_BLOCK))
        bitmap_blocks = -(-blocks // BITS)
        bitmap = 1 + LOG_BLOCKS
        inode = bitmap + bitmap_blocks
        inodes = inode_blocks * INODES_IN_BLOCK
        return cls(
            MAGIC, VERSION, blocks, inodes, 1, LOG_BLOCKS, bitmap, bitmap_blocks, inode, inode_blocks, inode + inode_blocks
        )


@dataclass
class Inode:
    """A file or directory."""

    kind: int = NONE
    links: int = 0
    size: int = 0  # bytes
    blocks: int = 0
    direct: list[int] = field(default_factory=lambda: [0] * DIRECT)
    indirect: int = 0
    twice_indirect: int = 0
    number: int = field(default=0, compare=False)  # not on the disk: where it was read from

    def fault_of_size(self) -> str:
        """Why a file cannot have this size, empty if it can."""
        if self.size > MAX_PAGES * BLOCK:
            return f"a {KIND_NAMES.get(self.kind, 'thing')} of {self.size} bytes, of which at most {MAX_PAGES * BLOCK} can be"
        return ""

    def pack(self) -> bytes:
        """As on the disk."""
        fields = (self.kind, self.links, self.size, self.blocks, *self.direct, self.indirect, self.twice_indirect)
        return _INODE.pack(*fields).ljust(INODE_BYTES, b"\0")

    @classmethod
    def unpack(cls, block: bytes, number: int) -> Inode:
        """By its number, from the block that has it."""
        kind, links, size, blocks, *rest = _INODE.unpack_from(block, number % INODES_IN_BLOCK * INODE_BYTES)
        return cls(kind, links, size, blocks, list(rest[:DIRECT]), rest[DIRECT], rest[DIRECT + 1], number)


def use_of(page: int, *, is_table: bool) -> str:
    """What a block is to a file, for messages."""
    return f"the block of pointers of page {page} and on" if is_table else f"page {page}"


def pointers_in(block: bytes) -> tuple[int, ...]:
    """The entries of a block of pointers."""
    return _POINTERS.unpack(block)


def is_name(name: str) -> bool:
    """Whether a file can have this name."""
    return 0 < len(os.fsencode(name)) < NAME_BYTES and "/" not in name


def pack_entry(inode: int, name: bytes) -> bytes:
    """A directory entry."""
    return _ENTRY.pack(inode, name)


def entries_in(block: bytes) -> list[tuple[int, bytes]]:
    """(inode, name) of the entries in use in a block of a directory; the name without its zeros."""
    found = (_ENTRY.unpack_from(block, at) for at in range(0, BLOCK, ENTRY_BYTES))
    return [(number, name.split(b"\0", 1)[0]) for number, name in found if number]


def pack_boot_record(partitions: Sequence[Partition]) -> bytes:
    """The disk's first sector."""
    lines = (
        _PARTITION.pack(0, b"\0\0\0", part.kind, b"\0\0\0", part.first * BLOCK_SECTORS, part.blocks * BLOCK_SECTORS)
        for part in partitions
    )
    return b"".join(lines).ljust(PARTITION_COUNT * PARTITION_BYTES, b"\0").rjust(SECTOR - 2, b"\0") + SIGNATURE


def partitions_in(sector: bytes) -> list[Partition]:
    """The partitions of a boot record; none if it is not one."""
    if sector[SECTOR - 2 : SECTOR] != SIGNATURE:
        return []
    lines = (_PARTITION.unpack_from(sector, PARTITIONS_AT + PARTITION_BYTES * number) for number in range(PARTITION_COUNT))
    return [
        Partition(kind, first // BLOCK_SECTORS, sectors // BLOCK_SECTORS) for _, _, kind, _, first, sectors in lines if sectors
    ]


def log_checksum(blocks: Sequence[int]) -> int:
    """Of the log's header: what says that its transaction was committed."""
    total = len(blocks)
    for block in blocks:
        total = (total << 5 & 0xFFFF_FFFF | total >> 27) ^ block
    return ~total & 0xFFFF_FFFF
