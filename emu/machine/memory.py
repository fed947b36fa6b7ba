"""Machine memory: one array of frames, and the frame table that says who has each.

Invariants (asserted by `FrameTable.check`):

1. A frame is free, the VMM's own, or owned by exactly one VM.
2. The free list holds each free frame once and no other.
3. The number of free, own and owned frames adds up to the size of the machine.

    FREE --allocate()--> OWNED (by a VM) or VMM      OWNED, VMM --release()--> FREE

A frame is zeroed when it is allocated, so nothing of a former owner is ever seen (Waldspurger 2002, section 3.2).
"""

from __future__ import annotations

import mmap
import os
from enum import IntEnum
from typing import ClassVar

import numpy as np

from emu.errors import BrokenInvariantError, MachineMemoryError, UsageError
from emu.units import MIB, MPN, PAGE_BYTES

FRAME = np.dtype(
    [
        ("owner", "<u2"),  # VM number, or NO_OWNER
        ("use", "u1"),  # a FrameUse
        ("flags", "u1"),
        ("ppn", "<u4"),  # guest page that the frame holds, where `use` is GUEST
        ("references", "<u2"),  # mappings by pmaps (of a shared frame: `emu.resources.references`)
        ("spare", "<u2"),
        ("row", "<i4"),  # shadow page, where `use` is SHADOW
        ("next", "<u4"),  # link of a list that the frame is on
        ("previous", "<u4"),
    ]
)
assert FRAME.itemsize <= 24
NO_OWNER = 0xFFFF
SHARED_OWNER = 0xFFFE  # the machine itself: no VM has this number
POISON = 0x5A  # what a freed frame is filled with in debug runs
SMALLEST_MACHINE = 4 * MIB


def ensure_address_space(size_bytes: int, what: str) -> None:
    """Raise MachineMemoryError if the host would not map so much more: for libraries that end the process when they cannot."""
    try:
        mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, MemoryError) as error:
        msg = f"{what} needs {size_bytes // MIB} MiB of address space: the host refuses it ({error})"
        raise MachineMemoryError(msg) from error


class FrameUse(IntEnum):
    """What a frame serves for."""

    FREE = 0
    VMM = 1  # VMCB, ROM, the page absent memory reads as
    RESERVE = 2  # handed to a VM, not yet used
    GUEST = 3  # in a pmap
    TABLE = 4  # shadow or nested table
    WRITING = 6  # its page goes to a swap area; free when that is done
    SHARED = 5  # in any number of pmaps, read-only; SHARED_OWNER has it


class MachineMemory:
    """`frames` frames of 4 KiB, page-aligned, committed by the host only when touched; and their table."""

    WIRING: ClassVar = frozenset({"bytes", "words", "_mapping", "_debug"})

    def __init__(self, size_bytes: int, *, debug: bool = False) -> None:
        if size_bytes < SMALLEST_MACHINE or size_bytes % PAGE_BYTES:
            msg = f"machine memory of {size_bytes} bytes: at least {SMALLEST_MACHINE} and whole pages are needed"
            raise UsageError(msg)
        have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if size_bytes > have:
            msg = f"machine memory of {size_bytes // MIB} MiB: the host has {have // MIB} MiB"
            raise MachineMemoryError(msg)
        try:
            # One page more than there are frames: decoding may look a few bytes beyond the last one.
            self._mapping = mmap.mmap(-1, size_bytes + PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError, ValueError) as error:
            msg = f"machine memory of {size_bytes >> 20} MiB: the host refuses it ({error})"
            raise MachineMemoryError(msg) from error
        self.bytes = np.frombuffer(self._mapping, np.uint8)[:size_bytes]
        self.words = self.bytes.view(np.int64)
        self.frames = FrameTable(size_bytes // PAGE_BYTES)
        self._debug = debug

    @property
    def address(self) -> int:
        """Host address of frame 0."""
        return int(self.bytes.ctypes.data)

    def frame(self, mpn: MPN) -> np.ndarray:
        """The 4096 bytes of frame `mpn`, to read and write."""
        return self.bytes[mpn * PAGE_BYTES : (mpn + 1) * PAGE_BYTES]

    def allocate(self, count: int, owner: int, use: FrameUse) -> np.ndarray:
        """`count` zeroed frames as an int64 array of MPNs; raises MachineMemoryError when fewer are free."""
        frames = self.frames.take(count, owner, use)
        for mpn in frames:
            self.frame(MPN(int(mpn)))[:] = 0
        return frames

    def release(self, frames: np.ndarray) -> None:
        """Give frames back; nothing may map them any more."""
        if self._debug:
            for mpn in frames:
                self.frame(MPN(int(mpn)))[:] = POISON
        self.frames.give(frames)


class FrameTable:
    """One `FRAME` record per MPN and the free list."""

    WIRING: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, count: int) -> None:
        self.records = np.zeros(count, FRAME)
        self._free = np.empty(count, np.int64)  # a stack: low MPNs go first
        self.free_all()

    def free_all(self) -> None:
        """All frames are free, whoever had them."""
        self.records[:] = np.zeros((), FRAME)
        self.records["owner"] = NO_OWNER
        self._free[:] = np.arange(len(self.records) - 1, -1, -1)
        self._free_count = len(self.records)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def free_count(self) -> int:
        """Free frames."""
        return self._free_count

    def take(self, count: int, owner: int, use: FrameUse) -> np.ndarray:
        """Take `count` frames off the free list for `owner`."""
        if count > self._free_count:
            msg = f"{count} frames asked for, {self._free_count} of {len(self)} are free: give the machine more memory"
            raise MachineMemoryError(msg)
        self._free_count -= count
        frames = self._free[self._free_count : self._free_count + count][::-1].copy()
        self.records["owner"][frames] = owner
        self.records["use"][frames] = use
        return frames

    def give(self, frames: np.ndarray) -> None:
        """Put frames back on the free list."""
        if len(np.unique(frames)) != len(frames) or np.any(self.records["use"][frames] == FrameUse.FREE):
            msg = "a frame was released twice"
            raise BrokenInvariantError(msg)
        self.records[frames] = np.zeros((), FRAME)
        self.records["owner"][frames] = NO_OWNER
        self._free[self._free_count : self._free_count + len(frames)] = frames
        self._free_count += len(frames)

    def check(self) -> None:
        """Assert the module's invariants; raises BrokenInvariantError naming the first that fails."""
        free = self._free[: self._free_count]
        is_free = self.records["use"] == FrameUse.FREE
        if np.any((self.records["owner"] == NO_OWNER) != is_free):
            raise BrokenInvariantError("invariant 1: a frame is free and owned at once, or neither")
        if len(np.unique(free)) != len(free) or not np.all(is_free[free]):
            raise BrokenInvariantError("invariant 2: the free list repeats a frame or holds one in use")
        if int(is_free.sum()) != self._free_count:
            raise BrokenInvariantError("invariant 3: a free frame is missing from the free list")
