"""The arrays of the content table (`emu.resources.content`): sixteen bytes for each frame of the machine.

Invariants (asserted by `check`):

1. A listed frame is in the chain of its code, once; no other frame is in any.
2. Every shared frame is listed, under a code of its contents, and has at least one reference.
3. A count at SATURATION has one row in the overflow table, with a number not below; there are no other rows.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from emu.errors import BrokenInvariantError
from emu.machine.memory import FrameUse, MachineMemory
from emu.resources import content
from emu.resources.hashing import FOR_LINES, compare_function, hash_function
from emu.saving import Giver, Taker

BYTES_A_FRAME = 16
SATURATION = 0xFFFF  # references that the frame table cannot count any more
OVERFLOW_ROWS = 256  # for 64 GB of pages in saturated counts
MOST_VMS = 8  # that have counts of their own, unless there are more
COUNTS = ("scanned", "hints_made", "hints_matched", "shared_matched", "stale_hints", "false_matches")


class ContentTable:
    """The table for one machine. `control` is what native code takes."""

    WIRING: ClassVar = frozenset({"_memory", "control"})

    def __init__(self, memory: MachineMemory, vms: int = MOST_VMS) -> None:
        self._memory = memory
        count = len(memory.frames)
        self._heads, self._next = np.zeros(count, np.int32), np.zeros(count, np.int32)
        self._hashes = np.zeros(count, np.int64)
        for array in (self._heads, self._next, self._hashes):
            array.fill(0)  # the host's kernel gives the memory now, not while pages are looked up
        assert self._heads.nbytes + self._next.nbytes + self._hashes.nbytes == BYTES_A_FRAME * count
        self.overflow = np.zeros((OVERFLOW_ROWS, 2), np.int64)
        self.counts = np.zeros((vms + 1, content.COUNT_WORDS), np.int64)
        self.control = np.zeros(content.WORDS, np.int64)
        for word, value in (
            (content.MEMORY, memory.address),
            (content.FRAMES, memory.frames.records.ctypes.data),
            (content.HEADS, self._heads.ctypes.data),
            (content.NEXT, self._next.ctypes.data),
            (content.HASHES, self._hashes.ctypes.data),
            (content.BUCKETS, count),
            (content.HASH_FN, hash_function()),
            (content.LINE_HASH_FN, hash_function(FOR_LINES)),
            (content.COMPARE_FN, compare_function()),
            (content.HASH_MASK, -1),
            (content.OVERFLOW, self.overflow.ctypes.data),
            (content.OVERFLOW_ROWS, OVERFLOW_ROWS),
            (content.SATURATION, SATURATION),
            (content.COUNTS, self.counts.ctypes.data),
            (content.COUNTED_VMS, len(self.counts)),
        ):
            self.control[word] = value

    def weaken(self, mask: int) -> None:
        """Use only some bits of the hash, so that different contents collide: for tests. The table must be empty."""
        self.control[content.HASH_MASK] = mask

    def saturate(self, count: int, rows: int = OVERFLOW_ROWS) -> None:
        """Reference counts go to the overflow table from `count` on, which has so many rows: for tests. The table must be empty."""
        self.control[content.SATURATION], self.control[content.OVERFLOW_ROWS] = count, rows

    def references(self, mpns: np.ndarray) -> np.ndarray:
        """Pages that refer to each of these shared frames."""
        counts: np.ndarray = self._memory.frames.records["references"][mpns].astype(np.int64)
        for row in self.overflow[: int(self.control[content.OVERFLOWED])]:
            counts[mpns == row[0]] = row[1]
        return counts

    @property
    def listed(self) -> np.ndarray:
        """Of each frame, whether it is in the table."""
        listed: np.ndarray = self._next != content.NOT_LISTED
        return listed

    def _bucket(self, code: int) -> int:
        return (int(content.head_of(self.control, code)) - int(self.control[content.HEADS])) // self._heads.itemsize

    def find_hash(self, code: int) -> list[int]:
        """MPNs that are listed under a hash."""
        entry = int(self._heads[self._bucket(code)]) - 1
        found = []
        while entry >= 0:
            if int(self._hashes[entry]) == code:
                found.append(entry)
            entry = int(self._next[entry]) - 1
        return found

    def counts_of(self, vm: int | None = None) -> dict[str, int]:
        """What was found of a VM's pages since the table was made; of all together by default."""
        row = self.counts.sum(axis=0) if vm is None else self.counts[vm if vm < len(self.counts) else 0]
        return {name: int(row[number]) for number, name in enumerate(COUNTS)}

    def saved_extra(self, _taker: Taker) -> int:
        """For a snapshot: rows of the overflow table that are in use."""
        return int(self.control[content.OVERFLOWED])

    def give_extra(self, rows: int, _giver: Giver) -> None:
        """From a snapshot."""
        self.control[content.OVERFLOWED] = rows

    def check(self) -> None:
        """Assert the module's invariants; raises BrokenInvariantError naming the first that fails."""
        found: list[int] = []
        for bucket in np.flatnonzero(self._heads):
            entry = int(self._heads[bucket]) - 1
            while entry >= 0:
                if self._bucket(int(self._hashes[entry])) != bucket or len(found) > len(self._heads):
                    raise BrokenInvariantError(f"content table invariant 1: frame {entry} is in another hash's chain")
                found.append(entry)
                entry = int(self._next[entry]) - 1
        if len(set(found)) != len(found) or sorted(found) != np.flatnonzero(self._next).tolist():
            raise BrokenInvariantError("content table invariant 1: a frame is listed twice, or its link without it")
        records = self._memory.frames.records
        for mpn in map(int, np.flatnonzero(records["use"] == FrameUse.SHARED)):
            is_right = self._next[mpn] != content.NOT_LISTED and content.has_code(self.control, mpn, int(self._hashes[mpn]))
            if not is_right or not records["references"][mpn]:
                raise BrokenInvariantError(f"content table invariant 2: shared frame {mpn} is not listed as what it holds")
        rows, limit = self.overflow[: int(self.control[content.OVERFLOWED])], self.control[content.SATURATION]
        saturated = np.flatnonzero((records["use"] == FrameUse.SHARED) & (records["references"] >= limit))
        if not np.array_equal(np.sort(rows[:, 0]), saturated) or np.any(rows[:, 1] < limit):
            raise BrokenInvariantError("content table invariant 3: overflow table and saturated counts differ")
