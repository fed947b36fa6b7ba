"""Reading an image as the guest would after a mount: with its log replayed, in memory only.

What is on the disk may be anything. Each block of a file is taken once (`Image.blocks`), so a reader's time is bounded by the blocks that the
image has, whatever sizes, pointers and directories say; what cannot be is a BadImageError that says what is damaged, and where.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import BinaryIO, Self

from emu.diskimage import layout
from emu.diskimage.layout import BLOCK, Inode, Superblock
from emu.errors import BadImageError, UsageError

MAX_PATH_BYTES = 4096  # of a path that is shown: nobody could name a longer one
ZEROS = bytes(BLOCK)

Take = Callable[[int, int, bool], bool]  # page, block, whether it holds pointers from this page on: whether the block may be used


def escaped(name: str) -> str:
    """A name that drives no terminal: what is not printable, or no UTF-8, as escapes."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(part if part.isprintable() else part.encode("unicode_escape").decode("ascii") for part in text)


class Image:
    """The file system of an image. Closed with `close`, or by `with`."""

    def __init__(self, path: Path) -> None:
        """Raises BadImageError for a file that is no image, or cannot be read."""
        self.path = path
        self._descriptor = self._open()
        self._replayed: dict[int, bytes] = {}
        try:
            self.partition = self._find_partition()
            self.super = Superblock.unpack(self.block(0))
            self._check_superblock()
            self.replayed = self._replay()  # blocks that the log had
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def damaged(self, what: str) -> BadImageError:
        """The error for contents that cannot be."""
        return BadImageError(f"{self.path}: damaged: {what}")

    # ---- the file ----

    def _open(self) -> int:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait for a writer
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_size:
            return descriptor
        os.close(descriptor)
        if stat.S_ISREG(status.st_mode):
            raise BadImageError(f"{self.path}: an empty file is no disk image")
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise BadImageError(f"{self.path}: {kind}, but a disk image is needed")

    def _unreadable(self, error: OSError | ValueError) -> BadImageError:
        reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
        return BadImageError(f"{self.path}: cannot read the disk image: {reason}")

    def _read(self, at: int, size: int) -> bytes:
        """Bytes of the file, fewer at its end."""
        try:
            return os.pread(self._descriptor, size, at)
        except OSError as error:
            raise self._unreadable(error) from error

    def _refuse(self, what: str) -> BadImageError:
        return BadImageError(f"{self.path}: {what}; `emu disk make` makes a disk image")

    def _find_partition(self) -> layout.Partition:
        size = os.fstat(self._descriptor).st_size
        for partition in layout.partitions_in(self._read(0, layout.SECTOR)):
            if partition.kind == layout.PARTITION_FILES:
                if (partition.first + partition.blocks) * BLOCK > size:
                    raise self._refuse(f"ends before its file system does ({size} bytes)")
                if partition.blocks < layout.MIN_FILES_BLOCKS:
                    raise self.damaged(f"a partition of {partition.blocks} blocks, fewer than any file system has")
                return partition
        raise self._refuse("no partition with a file system of emu's guest")

    def _check_superblock(self) -> None:
        at = self.super
        if at.magic != layout.MAGIC or at.version != layout.VERSION:
            raise self._refuse("no file system of emu's guest in its partition")
        if not layout.MIN_FILES_BLOCKS <= at.blocks <= min(self.partition.blocks, layout.MAX_BLOCKS):
            raise self.damaged(f"the superblock tells of {at.blocks} blocks in a partition of {self.partition.blocks}")
        if at != Superblock.for_size(at.blocks):
            raise self.damaged(f"the superblock does not describe a file system of {at.blocks} blocks")

    # ---- blocks ----

    def block(self, number: int) -> bytes:
        """A block of the file system; raises BadImageError beyond its end."""
        if number in self._replayed:
            return self._replayed[number]
        if not 0 <= number < self.partition.blocks:
            raise self.damaged(f"block {number} is wanted of {self.partition.blocks}")
        data = self._read((self.partition.first + number) * BLOCK, BLOCK)
        if len(data) < BLOCK:
            raise self.damaged(f"the file ends before block {number} of its file system")
        return data

    def _replay(self) -> int:
        header = self.block(self.super.log_first)
        magic, count, checksum = (int.from_bytes(header[at : at + 4], "little") for at in (0, 4, 8))
        if magic != layout.LOG_MAGIC or not 0 < count <= min(layout.LOG_CAPACITY, self.super.log_blocks - 1):
            return 0
        homes = [int.from_bytes(header[12 + 4 * n : 16 + 4 * n], "little") for n in range(count)]
        if checksum != layout.log_checksum(homes):
            return 0
        for home in homes:
            if not self.super.bitmap_first <= home < self.super.blocks:
                raise self.damaged(f"the log changes block {home}, outside of what it may change")
        bodies = [self.block(self.super.log_first + 1 + number) for number in range(count)]
        self._replayed = dict(zip(homes, bodies, strict=True))
        return count

    def inode(self, number: int) -> Inode:
        """An inode by number; raises BadImageError if there is none."""
        if not 0 < number < self.super.inodes:
            raise self.damaged(f"inode {number} is named, of {self.super.inodes}")
        block = self.block(self.super.inode_first + number // layout.INODES_IN_BLOCK)
        return Inode.unpack(block, number)

    def inodes(self) -> Iterator[Inode]:
        """All that are in use."""
        for at in range(self.super.inode_blocks):
            block = self.block(self.super.inode_first + at)
            if block == ZEROS:
                continue
            for number in range(max(1, at * layout.INODES_IN_BLOCK), (at + 1) * layout.INODES_IN_BLOCK):
                inode = Inode.unpack(block, number)
                if inode.kind != layout.NONE:
                    yield inode

    # ---- files ----

    def blocks(self, inode: Inode, take: Take) -> Iterator[tuple[int, int]]:
        """(page, block) of a file, in order, holes left out. `take` is asked for each block, those of pointers included; refused ones are skipped."""
        for page, block in enumerate(inode.direct):
            if block and take(page, block, False):
                yield page, block
        yield from self._pointed(inode.indirect, layout.DIRECT, 1, take)
        yield from self._pointed(inode.twice_indirect, layout.DIRECT + layout.POINTERS, 2, take)

    def _pointed(self, block: int, first: int, levels: int, take: Take) -> Iterator[tuple[int, int]]:
        """The same of a block of pointers, which are those of page `first` and on."""
        if not block or not take(first, block, True):
            return
        for place, pointer in enumerate(layout.pointers_in(self.block(block))):
            if levels > 1:
                yield from self._pointed(pointer, first + place * layout.POINTERS, levels - 1, take)
            elif pointer and take(first + place, pointer, False):
                yield first + place, pointer

    def _taker(self, inode: Inode, taken: set[int]) -> Take:
        """Takes blocks that can be, each once; raises BadImageError for others."""

        def take(page: int, block: int, is_table: bool) -> bool:
            if fault := self.super.fault_of(page, block, is_table=is_table):
                raise self.damaged(f"inode {inode.number}: {fault}")
            if block in taken:
                raise self.damaged(
                    f"inode {inode.number}: {layout.use_of(page, is_table=is_table)} is block {block}, which is in use twice"
                )
            taken.add(block)
            return True

        return take

    def pages(self, inode: Inode, taken: set[int] | None = None) -> Iterator[tuple[int, bytes]]:
        """(page, its bytes) of what a file has, holes left out; blocks in `taken` are another's, and become this one's. Raises BadImageError."""
        if fault := inode.fault_of_size():
            raise self.damaged(f"inode {inode.number}: {fault}")
        for page, block in self.blocks(inode, self._taker(inode, set() if taken is None else taken)):
            left = inode.size - page * BLOCK
            if left > 0:
                yield page, self.block(block)[:left]

    def contents(self, inode: Inode) -> Iterator[bytes]:
        """A file's bytes, a page at a time or less."""
        at = 0  # page
        for page, data in self.pages(inode):
            yield from repeat(ZEROS, page - at)
            yield data
            at = page + 1
        left = inode.size - at * BLOCK
        if left > 0:
            yield from repeat(ZEROS, left // BLOCK)
            yield bytes(left % BLOCK)

    def save(self, inode: Inode, file: BinaryIO) -> None:
        """Write a file's bytes into a new file of the host, with its holes."""
        for page, data in self.pages(inode):
            file.seek(page * BLOCK)
            file.write(data)
        file.truncate(inode.size)

    # ---- names ----

    def entries(self, directory: Inode, taken: set[int] | None = None) -> Iterator[tuple[int, str]]:
        """(inode, name) of a directory; bytes of a name that are no UTF-8 are surrogates. `taken`: as `pages` has it."""
        for _, block in self.pages(directory, taken):
            if len(block) == BLOCK:
                for number, name in layout.entries_in(block):
                    yield number, os.fsdecode(name)

    def find(self, path: str) -> tuple[int, Inode]:
        """An inode by path; raises UsageError if there is none."""
        inode = self.inode(layout.ROOT)
        for wanted in filter(None, path.split("/")):
            entries = self.entries(inode) if inode.kind == layout.DIRECTORY else iter(())
            number = next((number for number, name in entries if name == wanted), 0)
            if not number:
                raise UsageError(f"{self.path}: no '{path}' in it")
            inode = self.inode(number)
        return inode.number, inode

    def walk(self) -> Iterator[tuple[str, int, Inode]]:
        """(path, number, inode) of everything below the root, in the order of entries; raises BadImageError at damage."""
        taken: set[int] = set()
        above: dict[int, tuple[int, str]] = {layout.ROOT: (0, "")}  # directory to the one that names it, and the name
        waiting = [(layout.ROOT, "", self.entries(self.inode(layout.ROOT), taken))]  # those between the root and here
        while waiting:
            parent, path, entries = waiting[-1]
            number, name = next(entries, (0, ""))
            if not number:
                waiting.pop()
                continue
            inode, full = self.inode(number), f"{path}/{name}"
            if inode.kind == layout.DIRECTORY:
                self._refuse_twice(full, number, above, {at for at, _, _ in waiting})
                above[number] = (parent, name)
                waiting.append((number, full, self.entries(inode, taken)))
            yield full, number, inode

    def _refuse_twice(self, path: str, number: int, above: dict[int, tuple[int, str]], ancestors: set[int]) -> None:
        if len(path) > MAX_PATH_BYTES:
            raise self.damaged(f"directories lie in one another, deeper than a path of {MAX_PATH_BYTES} characters tells")
        if number not in above:
            return
        names, at = [], number
        while at != layout.ROOT:
            at, name = above[at]
            names.append(name)
        first = "/" + "/".join(reversed(names))
        how = "a cycle" if number in ancestors else "a directory with two names"
        raise self.damaged(f"{how}: '{escaped(path)}' is '{escaped(first)}' again (inode {number})")
