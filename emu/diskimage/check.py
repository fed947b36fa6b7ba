"""Checking a file system: every block and inode has exactly one use, and the bitmap and the counts say so.

fault   something that a mount does not mend, and that no stop of the guest at whatever moment may leave
note    what the next mount mends: a file that was open and had no name any more
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from emu.diskimage import layout
from emu.diskimage.image import Image, escaped
from emu.diskimage.layout import BLOCK, Inode

MAX_TOLD = 1000  # faults, and notes, in words: a disk full of noise has millions
SHOWN_NUMBERS = 8  # of the blocks that a fault is about


@dataclass
class Report:
    """What a check found."""

    faults: list[str] = field(default_factory=list)  # at most MAX_TOLD
    notes: list[str] = field(default_factory=list)  # likewise
    fault_count: int = 0
    note_count: int = 0
    files: int = 0
    directories: int = 0
    used_blocks: int = 0  # by files and directories

    def fault(self, text: str) -> None:
        """Add one."""
        self.fault_count += 1
        if len(self.faults) < MAX_TOLD:
            self.faults.append(text)

    def note(self, text: str) -> None:
        """Add one."""
        self.note_count += 1
        if len(self.notes) < MAX_TOLD:
            self.notes.append(text)


class _Checker:
    def __init__(self, image: Image) -> None:
        self.image = image
        self.super = image.super
        self.report = Report()
        self.fault = self.report.fault
        self.owner: dict[int, int] = {}  # block to inode

    def check(self) -> Report:
        inodes = {inode.number: inode for inode in self.image.inodes()}
        for inode in inodes.values():
            self.check_inode(inode)
        root = inodes.get(layout.ROOT)
        if root is None or root.kind != layout.DIRECTORY:
            self.fault("inode 1: not a directory, but the root must be one")
        elif not self.report.fault_count:  # else names would lead astray
            self.check_names(inodes)
        self.check_bitmap()
        self.report.used_blocks = len(self.owner)
        return self.report

    # ---- inodes and their blocks ----

    def check_inode(self, inode: Inode) -> None:
        where = f"inode {inode.number}"
        if inode.kind not in (layout.FILE, layout.DIRECTORY):
            self.fault(f"{where}: unknown kind {inode.kind}")
            return
        self.report.files += inode.kind == layout.FILE
        self.report.directories += inode.kind == layout.DIRECTORY
        if inode.kind == layout.DIRECTORY and inode.size % BLOCK:
            self.fault(f"{where}: a directory of {inode.size} bytes, not whole blocks")
        if fault := inode.fault_of_size():
            self.fault(f"{where}: {fault}")
        if not inode.links:
            self.report.note(f"{where}: no name any more, freed at the next mount")
        before = len(self.owner)
        self.check_blocks(inode)
        if len(self.owner) - before != inode.blocks:
            self.fault(f"{where}: counts {inode.blocks} blocks, has {len(self.owner) - before}")

    def check_blocks(self, inode: Inode) -> None:
        pages = -(-inode.size // BLOCK) if inode.links else layout.MAX_PAGES

        def take(page: int, block: int, is_table: bool) -> bool:
            fault = self.super.fault_of(page, block, is_table=is_table)
            if not fault and block in self.owner:
                fault = f"{layout.use_of(page, is_table=is_table)} is block {block}, which inode {self.owner[block]} has too"
            if fault:
                self.fault(f"inode {inode.number}: {fault}")
                return False
            self.owner[block] = inode.number
            return True

        for page, block in self.image.blocks(inode, take):
            if page >= pages:
                self.fault(f"inode {inode.number}: page {page} has block {block}, but the file ends before it")

    # ---- names ----

    def check_names(self, inodes: dict[int, Inode]) -> None:
        reached = {layout.ROOT}
        waiting = [layout.ROOT]
        while waiting:
            number = waiting.pop()
            seen: set[str] = set()
            for child, name in self.image.entries(inodes[number]):
                where = f"directory {number}, entry '{escaped(name)}'"
                if child not in inodes:
                    self.fault(f"{where}: names inode {child}, which is free")
                elif child in reached:
                    self.fault(f"{where}: {layout.KIND_NAMES[inodes[child].kind]} {child} has another name")
                else:
                    if not layout.is_name(name) or name in seen:
                        self.fault(f"{where}: twice, empty, too long, or with a slash")
                    reached.add(child)
                    seen.add(name)
                    if inodes[child].kind == layout.DIRECTORY:
                        waiting.append(child)
        for number, inode in inodes.items():
            if (number in reached) != inode.links:
                self.fault(f"inode {number}: {inode.links} links, {int(number in reached)} names")

    # ---- the bitmap ----

    def check_bitmap(self) -> None:
        blocks = (self.image.block(self.super.bitmap_first + at) for at in range(self.super.bitmap_blocks))
        bitmap = b"".join(blocks)[: -(-self.super.blocks // 8)]
        owned = bytearray(len(bitmap))
        for block in (*range(self.super.data_first), *self.owner):
            owned[block // 8] |= 1 << block % 8
        for surplus, text in (
            (_bits_without(bitmap, owned), "in use by nobody, but not free"),
            (_bits_without(owned, bitmap), "in use, but free in the bitmap"),
        ):
            numbers = list(islice((at for at in surplus if at < self.super.blocks), SHOWN_NUMBERS + 1))
            if numbers:
                shown = ", ".join(map(str, numbers[:SHOWN_NUMBERS]))
                self.fault(f"blocks {shown}{' ...' if len(numbers) > SHOWN_NUMBERS else ''}: {text}")


def _bits_without(some: Sequence[int], others: Sequence[int]) -> Iterator[int]:
    """The numbers of the bits that are set in `some` only."""
    for at, (one, other) in enumerate(zip(some, others, strict=True)):
        if one & ~other:
            yield from (8 * at + bit for bit in range(8) if (one & ~other) >> bit & 1)


def check(image: Image) -> Report:
    """Check a file system as its log leaves it; raises nothing for whatever is on the disk."""
    return _Checker(image).check()
