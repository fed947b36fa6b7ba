"""Making an image: an empty file system, or one with the files of a folder. The same arguments give the same bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from emu.diskimage import layout
from emu.diskimage.layout import BLOCK, MAX_BLOCKS, MIN_FILES_BLOCKS, Inode, Partition, Superblock
from emu.errors import BadImageError, OutputError, UsageError
from emu.replacing import replacing

MAX_PATH_BYTES = 255  # of a path in the guest: PATH_BYTES of guests/os/include/syscall.h, without the NUL


def _names_in(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir(), key=lambda item: os.fsencode(item.name))
    except OSError as error:
        raise BadImageError(f"{folder}: cannot read the folder: {(error.strerror or str(error)).lower()}") from error


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise BadImageError(f"{path}: cannot read the file: {(error.strerror or str(error)).lower()}") from error


class _Writer:
    """A file system being filled, from its first free block on."""

    def __init__(self, file: BinaryIO, first: int, blocks: int) -> None:
        self.file, self.first = file, first
        self.super = Superblock.for_size(blocks)
        self.next_block = self.super.data_first
        self.inodes = [Inode(), Inode(layout.DIRECTORY, links=1)]

    def put(self, block: int, data: bytes) -> None:
        self.file.seek((self.first + block) * BLOCK)
        self.file.write(data)

    def allocate(self) -> int:
        if self.next_block >= self.super.blocks:
            raise UsageError("the disk image is too small for the files: give it a larger --size")
        self.next_block += 1
        return self.next_block - 1

    def new_inode(self, kind: int) -> int:
        if len(self.inodes) >= self.super.inodes:
            raise UsageError(f"more than {self.super.inodes - 2} files and folders: give the disk image a larger --size")
        self.inodes.append(Inode(kind, links=1))
        return len(self.inodes) - 1

    def write_contents(self, inode: Inode, source: BinaryIO) -> None:
        """All of a file, a block at a time; raises UsageError where it does not fit."""
        blocks: list[int] = []
        while data := source.read(BLOCK):
            if len(blocks) == layout.MAX_PAGES:
                raise UsageError(f"a file of more than {layout.MAX_PAGES * BLOCK} bytes")
            blocks.append(self.allocate())
            self.put(blocks[-1], data.ljust(BLOCK, b"\0"))
            inode.size += len(data)
        self.name_blocks(inode, blocks)

    def name_blocks(self, inode: Inode, blocks: list[int]) -> None:
        """Direct, indirect and twice indirect pointers to a file's blocks."""
        before = self.next_block
        direct, rest = blocks[: layout.DIRECT], blocks[layout.DIRECT :]
        inode.direct[: len(direct)] = direct
        if rest:
            inode.indirect = self.put_pointers(rest[: layout.POINTERS])
            rest = rest[layout.POINTERS :]
        if rest:
            tables = [self.put_pointers(rest[at : at + layout.POINTERS]) for at in range(0, len(rest), layout.POINTERS)]
            inode.twice_indirect = self.put_pointers(tables)
        inode.blocks = len(blocks) + self.next_block - before

    def put_pointers(self, blocks: list[int]) -> int:
        block = self.allocate()
        self.put(block, b"".join(number.to_bytes(4, "little") for number in blocks).ljust(BLOCK, b"\0"))
        return block

    def add_folder(self, number: int, folder: Path, path_bytes: int = 0) -> None:
        """The contents of a folder, in the order of names; raises UsageError for what the file system cannot hold.

        `path_bytes` has the folder's own path in the guest: with a limit on it, folders in folders have an end.
        """
        entries = []
        for path in _names_in(folder):
            name = os.fsencode(path.name)
            child_bytes = path_bytes + 1 + len(name)
            if len(name) >= layout.NAME_BYTES:
                raise UsageError(f"{path}: a name of more than {layout.NAME_BYTES - 1} bytes")
            if child_bytes > MAX_PATH_BYTES:
                raise UsageError(f"{path}: a path of more than {MAX_PATH_BYTES} bytes in the guest, which could not name it")
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise UsageError(f"{path}: neither a file nor a folder")
            child = self.new_inode(layout.DIRECTORY if path.is_dir() else layout.FILE)
            entries.append(layout.pack_entry(child, name))
            if path.is_dir():
                self.add_folder(child, path, child_bytes)
            else:
                with _opened(path) as source:
                    self.write_contents(self.inodes[child], source)
        self.write_entries(self.inodes[number], b"".join(entries))

    def write_entries(self, inode: Inode, entries: bytes) -> None:
        """A directory's contents."""
        blocks = []
        for at in range(0, len(entries), BLOCK):
            blocks.append(self.allocate())
            self.put(blocks[-1], entries[at : at + BLOCK].ljust(BLOCK, b"\0"))
        inode.size = len(blocks) * BLOCK
        self.name_blocks(inode, blocks)

    def finish(self) -> None:
        """Inodes, bitmap and superblock."""
        table = b"".join(inode.pack() for inode in self.inodes)
        self.put(self.super.inode_first, table)
        bitmap = bytearray(self.super.bitmap_blocks * BLOCK)
        bitmap[: self.next_block // 8] = b"\xff" * (self.next_block // 8)
        if self.next_block % 8:
            bitmap[self.next_block // 8] = (1 << self.next_block % 8) - 1
        self.put(self.super.bitmap_first, bytes(bitmap))
        self.put(0, self.super.pack())


def make(path: Path, files_bytes: int, swap_bytes: int, folder: Path | None = None, *, replace: bool = False) -> None:
    """Make an image with a file system and, if `swap_bytes` is not 0, a swap partition.

    Raises UsageError for sizes or files that cannot be, BadImageError for a file that cannot be read, and OutputError when the host cannot
    write the image. What was at `path` is left alone until the new image is complete.
    """
    files, swap = -(-files_bytes // BLOCK), -(-swap_bytes // BLOCK)
    if files < MIN_FILES_BLOCKS:
        raise UsageError(f"a file system of {files_bytes} bytes: at least {MIN_FILES_BLOCKS * BLOCK >> 20}M are needed")
    if layout.FIRST_BLOCK + files + swap > MAX_BLOCKS:
        raise UsageError(f"a disk image of more than {MAX_BLOCKS * BLOCK >> 30}G")
    if path.exists() and not replace:
        raise UsageError(f"{path}: is there already; --force replaces it")
    partitions = [Partition(layout.PARTITION_FILES, layout.FIRST_BLOCK, files)]
    if swap:
        partitions.append(Partition(layout.PARTITION_SWAP, layout.FIRST_BLOCK + files, swap))
    try:
        with replacing(path) as file:
            file.truncate((layout.FIRST_BLOCK + files + swap) * BLOCK)
            writer = _Writer(file, layout.FIRST_BLOCK, files)
            if folder is not None:
                writer.add_folder(layout.ROOT, folder)
            writer.finish()
            file.seek(0)
            file.write(layout.pack_boot_record(partitions))
    except OSError as error:
        raise OutputError(f"{error.filename or path}: {(error.strerror or str(error)).lower()}") from error
