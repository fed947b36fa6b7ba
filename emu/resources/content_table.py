"""The arrays of the content table (`emu.resources.content`): sixteen bytes for each frame of the machine.

Invariants (asserted by `check`):

1. A listed frame is in the chain of its hash, once; no other frame is in any.
2. Every shared frame is listed, under the hash of its contents, and has at least one reference.
"""

from __future__ import annotations

import numpy as np

from emu.errors import BrokenInvariantError
from emu.machine.memory import FrameUse, MachineMemory
from emu.resources import content
from emu.resources.hashing import compare_function, hash_function

BYTES_A_FRAME = 16


class ContentTable:
    """The table for one machine. `control` is what native code takes."""

    def __init__(self, memory: MachineMemory) -> None:
        self._memory = memory
        count = len(memory.frames)
        self._heads, self._next = np.zeros(count, np.int32), np.zeros(count, np.int32)
        self._hashes = np.zeros(count, np.int64)
        assert self._heads.nbytes + self._next.nbytes + self._hashes.nbytes == BYTES_A_FRAME * count
        self.control = np.zeros(content.WORDS, np.int64)
        for word, value in (
            (content.MEMORY, memory.address),
            (content.FRAMES, memory.frames.records.ctypes.data),
            (content.HEADS, self._heads.ctypes.data),
            (content.NEXT, self._next.ctypes.data),
            (content.HASHES, self._hashes.ctypes.data),
            (content.BUCKETS, count),
            (content.HASH_FN, hash_function()),
            (content.COMPARE_FN, compare_function()),
            (content.HASH_MASK, -1),
        ):
            self.control[word] = value

    def weaken(self, mask: int) -> None:
        """Use only some bits of the hash, so that different contents collide: for tests. The table must be empty."""
        self.control[content.HASH_MASK] = mask

    @property
    def listed(self) -> np.ndarray:
        """Of each frame, whether it is in the table."""
        listed: np.ndarray = self._next != content.NOT_LISTED
        return listed

    def find_hash(self, code: int) -> list[int]:
        """MPNs that are listed under a hash."""
        entry = int(self._heads[(code >> 1 & (1 << 62) - 1) % len(self._heads)]) - 1
        found = []
        while entry >= 0:
            if int(self._hashes[entry]) == code:
                found.append(entry)
            entry = int(self._next[entry]) - 1
        return found

    def counts(self) -> dict[str, int]:
        """What the table did since it was made."""
        names = ("scanned", "hints_made", "hints_matched", "shared_matched", "stale_hints", "false_matches")
        return {name: int(self.control[content.SCANNED + number]) for number, name in enumerate(names)}

    def check(self) -> None:
        """Assert the module's invariants; raises BrokenInvariantError naming the first that fails."""
        found: list[int] = []
        for bucket in np.flatnonzero(self._heads):
            entry = int(self._heads[bucket]) - 1
            while entry >= 0:
                place = (int(self._hashes[entry]) >> 1 & (1 << 62) - 1) % len(self._heads)
                if place != bucket or len(found) > len(self._heads):
                    raise BrokenInvariantError(f"content table invariant 1: frame {entry} is in another hash's chain")
                found.append(entry)
                entry = int(self._next[entry]) - 1
        if len(set(found)) != len(found) or sorted(found) != np.flatnonzero(self._next).tolist():
            raise BrokenInvariantError("content table invariant 1: a frame is listed twice, or its link without it")
        records = self._memory.frames.records
        for mpn in map(int, np.flatnonzero(records["use"] == FrameUse.SHARED)):
            is_right = self._next[mpn] != content.NOT_LISTED and int(self._hashes[mpn]) == int(content.hash_of(self.control, mpn))
            if not is_right or not records["references"][mpn]:
                raise BrokenInvariantError(f"content table invariant 2: shared frame {mpn} is not listed as what it holds")
