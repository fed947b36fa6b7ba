"""Reading an image as the guest would after a mount: with its log replayed, in memory only."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from emu.diskimage import layout
from emu.diskimage.layout import BLOCK, Inode, Superblock
from emu.errors import EmuError, UsageError


class Image:
    """The file system of an image. Closed with `close`, or by `with`."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError for a file that is no image, EmuError for one that cannot be read."""
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise UsageError(f"{path}: an empty file is no disk image") from error
        except OSError as error:
            raise EmuError(f"{path}: {error.strerror}") from error
        self._replayed: dict[int, bytes] = {}
        self.partition = self._find_partition()
        self.super = Superblock.unpack(self.block(0))
        self._check_superblock()
        self.replayed = self._replay()  # blocks that the log had

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()

    def _refuse(self, what: str) -> UsageError:
        self.close()
        return UsageError(f"{self.path}: {what}; `emu disk make` makes a disk image")

    def _find_partition(self) -> layout.Partition:
        for partition in layout.partitions_in(self._map[: layout.SECTOR]):
            if partition.kind == layout.PARTITION_FILES:
                if (partition.first + partition.blocks) * BLOCK > len(self._map):
                    raise self._refuse(f"ends before its file system does ({len(self._map)} bytes)")
                return partition
        raise self._refuse("no partition with a file system of emu's guest")

    def _check_superblock(self) -> None:
        at = self.super
        if at.magic != layout.MAGIC or at.version != layout.VERSION:
            raise self._refuse("no file system of emu's guest in its partition")
        expected = Superblock.for_size(at.blocks)
        if at.blocks > self.partition.blocks or at != expected:
            raise self._refuse("the superblock does not fit the partition")

    def block(self, number: int) -> bytes:
        """A block of the file system; raises IndexError beyond its end."""
        if number in self._replayed:
            return self._replayed[number]
        if not 0 <= number < self.partition.blocks:
            raise IndexError(number)
        at = (self.partition.first + number) * BLOCK
        return self._map[at : at + BLOCK]

    def _replay(self) -> int:
        header = self.block(self.super.log_first)
        magic, count, checksum = (int.from_bytes(header[at : at + 4], "little") for at in (0, 4, 8))
        if magic != layout.LOG_MAGIC or not 0 < count <= min(layout.LOG_CAPACITY, self.super.log_blocks - 1):
            return 0
        homes = [int.from_bytes(header[12 + 4 * n : 16 + 4 * n], "little") for n in range(count)]
        if checksum != layout.log_checksum(homes):
            return 0
        bodies = [self.block(self.super.log_first + 1 + number) for number in range(count)]
        self._replayed = dict(zip(homes, bodies, strict=True))
        return count

    def inode(self, number: int) -> Inode:
        """An inode by number."""
        block = self.block(self.super.inode_first + number // layout.INODES_IN_BLOCK)
        return Inode.unpack(block, number % layout.INODES_IN_BLOCK * layout.INODE_BYTES)

    def pointers(self, block: int) -> list[int]:
        """The entries of a block of pointers."""
        data = self.block(block)
        return [int.from_bytes(data[at : at + 4], "little") for at in range(0, BLOCK, 4)]

    def page_block(self, inode: Inode, index: int) -> int:
        """The block of a page of a file, 0 for a hole."""
        if index < layout.DIRECT:
            return inode.direct[index]
        index -= layout.DIRECT
        if index < layout.POINTERS:
            return self.pointers(inode.indirect)[index] if inode.indirect else 0
        index -= layout.POINTERS
        table = self.pointers(inode.twice_indirect)[index // layout.POINTERS] if inode.twice_indirect else 0
        return self.pointers(table)[index % layout.POINTERS] if table else 0

    def contents(self, inode: Inode) -> Iterator[bytes]:
        """A file's bytes, a page at a time."""
        for index in range(-(-inode.size // BLOCK)):
            block = self.page_block(inode, index)
            data = self.block(block) if block else bytes(BLOCK)
            yield data[: inode.size - index * BLOCK]

    def entries(self, inode: Inode) -> list[tuple[int, str]]:
        """(inode, name) of a directory."""
        blocks = (self.page_block(inode, index) for index in range(inode.size // BLOCK))
        found = (entry for block in blocks if block for entry in layout.entries_in(self.block(block)))
        return [(number, name.decode(errors="replace")) for number, name in found]

    def find(self, path: str) -> tuple[int, Inode]:
        """An inode by path; raises UsageError if there is none."""
        number = layout.ROOT
        for name in filter(None, path.split("/")):
            inode = self.inode(number)
            names = {entry: child for child, entry in self.entries(inode)} if inode.kind == layout.DIRECTORY else {}
            if name not in names:
                raise UsageError(f"{self.path}: no '{path}' in it")
            number = names[name]
        return number, self.inode(number)

    def walk(self, number: int = layout.ROOT, path: str = "") -> Iterator[tuple[str, int, Inode]]:
        """(path, number, inode) of everything below a directory, in the order of entries."""
        for child, name in self.entries(self.inode(number)):
            inode = self.inode(child)
            yield f"{path}/{name}", child, inode
            if inode.kind == layout.DIRECTORY:
                yield from self.walk(child, f"{path}/{name}")
