"""Checking a file system: every block and inode has exactly one use, and the bitmap and the counts say so.

fault   something that a mount does not mend, and that no stop of the guest at whatever moment may leave
note    what the next mount mends: a file that was open and had no name any more
"""

from __future__ import annotations

from dataclasses import dataclass, field

from emu.diskimage import layout
from emu.diskimage.image import Image
from emu.diskimage.layout import BLOCK, Inode


@dataclass
class Report:
    """What a check found."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0
    directories: int = 0
    used_blocks: int = 0  # by files and directories


class _Checker:
    def __init__(self, image: Image) -> None:
        self.image = image
        self.super = image.super
        self.report = Report()
        self.owner: dict[int, int] = {}  # block to inode
        self.names: dict[int, int] = {}  # inode to the number of entries that name it

    def fault(self, text: str) -> None:
        self.report.faults.append(text)

    def check(self) -> Report:
        inodes = {
            number: inode for number in range(1, self.super.inodes) if (inode := self.image.inode(number)).kind != layout.NONE
        }
        for number, inode in inodes.items():
            self.check_inode(number, inode)
        root = inodes.get(layout.ROOT)
        if root is None or root.kind != layout.DIRECTORY:
            self.fault("inode 1: not a directory, but the root must be one")
        elif not self.report.faults:  # else names would lead astray
            self.check_names(inodes)
        self.check_bitmap()
        self.report.used_blocks = len(self.owner)
        return self.report

    # ---- inodes and their blocks ----

    def check_inode(self, number: int, inode: Inode) -> None:
        if inode.kind not in (layout.FILE, layout.DIRECTORY):
            self.fault(f"inode {number}: unknown kind {inode.kind}")
            return
        if inode.kind == layout.DIRECTORY:
            self.report.directories += 1
            if inode.size % BLOCK:
                self.fault(f"inode {number}: a directory of {inode.size} bytes, not whole blocks")
        else:
            self.report.files += 1
        if not inode.links:
            self.report.notes.append(f"inode {number}: no name any more, freed at the next mount")
        before = len(self.owner)
        pages = -(-inode.size // BLOCK)
        for at, block in enumerate(inode.direct):
            self.take_page(number, at, block, pages if inode.links else layout.MAX_PAGES)
        self.take_table(number, inode.indirect, layout.DIRECT, 1, inode)
        self.take_table(number, inode.twice_indirect, layout.DIRECT + layout.POINTERS, 2, inode)
        if len(self.owner) - before != inode.blocks:
            self.fault(f"inode {number}: counts {inode.blocks} blocks, has {len(self.owner) - before}")

    def take(self, number: int, block: int, what: str) -> bool:
        if not self.super.data_first <= block < self.super.blocks:
            self.fault(f"inode {number}: {what} is block {block}, outside of the data blocks")
            return False
        if block in self.owner:
            self.fault(f"inode {number}: {what} is block {block}, which inode {self.owner[block]} has too")
            return False
        self.owner[block] = number
        return True

    def take_page(self, number: int, index: int, block: int, pages: int) -> None:
        if block and self.take(number, block, f"page {index}") and index >= pages:
            self.fault(f"inode {number}: page {index} has block {block}, but the file ends before it")

    def take_table(self, number: int, block: int, first: int, levels: int, inode: Inode) -> None:
        if not block or not self.take(number, block, f"pointers of page {first} and on"):
            return
        span = layout.POINTERS ** (levels - 1)
        pages = -(-inode.size // BLOCK) if inode.links else layout.MAX_PAGES
        for place, pointer in enumerate(self.image.pointers(block)):
            if levels == 1:
                self.take_page(number, first + place, pointer, pages)
            else:
                self.take_table(number, pointer, first + place * span, levels - 1, inode)

    # ---- names ----

    def check_names(self, inodes: dict[int, Inode]) -> None:
        reached = {layout.ROOT}
        waiting = [layout.ROOT]
        while waiting:
            number = waiting.pop()
            seen: set[str] = set()
            for child, name in self.image.entries(inodes[number]):
                where = f"directory {number}, entry '{name}'"
                if name in seen or not name or "/" in name:
                    self.fault(f"{where}: twice, empty, or with a slash")
                seen.add(name)
                if child not in inodes:
                    self.fault(f"{where}: names inode {child}, which is free")
                    continue
                self.names[child] = self.names.get(child, 0) + 1
                if inodes[child].kind == layout.DIRECTORY:
                    if child in reached:
                        self.fault(f"{where}: directory {child} has another name")
                    else:
                        waiting.append(child)
                reached.add(child)
        for number, inode in inodes.items():
            named = self.names.get(number, 0) + (number == layout.ROOT)
            if named != inode.links:
                self.fault(f"inode {number}: {inode.links} links, {named} names")

    # ---- the bitmap ----

    def check_bitmap(self) -> None:
        blocks = (self.image.block(self.super.bitmap_first + at) for at in range(self.super.bitmap_blocks))
        bitmap = int.from_bytes(b"".join(blocks), "little")
        owned = (1 << self.super.data_first) - 1
        for block in self.owner:
            owned |= 1 << block
        valid = (1 << self.super.blocks) - 1
        leaked, lost = bitmap & ~owned & valid, owned & ~bitmap
        for difference, text in ((leaked, "in use by nobody, but not free"), (lost, "in use, but free in the bitmap")):
            numbers = [at for at in range(self.super.blocks) if difference >> at & 1] if difference else []
            if numbers:
                self.fault(f"blocks {', '.join(map(str, numbers[:8]))}{' ...' if len(numbers) > 8 else ''}: {text}")


def check(image: Image) -> Report:
    """Check a file system as its log leaves it; raises nothing for whatever is on the disk."""
    return _Checker(image).check()
