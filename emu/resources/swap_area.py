"""The swap area of one VM: a file on the host with a slot for each page that may have to leave (Waldspurger 2002, section 2.1: max less min).

A page keeps its slot when it comes back, until it leaves again with other contents or is gone: a page that was only read is not written twice.
What a slot holds is known by its checksum, so that a file that somebody cut short or changed is found when it is read.

A write that the host refuses leaves the page where it was: nothing is lost, and `SwapFullError` says why.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import xxhash

from emu.errors import BrokenInvariantError, EmuError, UsageError
from emu.units import MIB, PAGE_BYTES

NO_SLOT = -1


class SwapError(EmuError):
    """The swap area cannot give a page back: the VM cannot go on."""

    exit_status = 74


class SwapFullError(EmuError):
    """The host takes no more pages: the VM has to wait until it does."""

    exit_status = 74


class SwapArea:
    """Slots in a file, or in the host's memory where `path` is None. `ram_pages` are those of the VM, `slots` of the area."""

    def __init__(self, path: Path | None, ram_pages: int, slots: int) -> None:
        self.name = "the swap area" if path is None else str(path)
        self._path = path
        self.slot_of = np.full(ram_pages, NO_SLOT, np.int32)  # of each page, its own until `free`
        self._sums = np.zeros(slots, np.uint64)
        self._free = np.arange(slots - 1, -1, -1, dtype=np.int32)
        self._free_count = slots
        self.written = self.read = self.reused = 0  # pages
        try:
            if path is None:
                self._file = os.memfd_create("emu-swap", os.MFD_CLOEXEC)
            else:
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError as error:
            raise UsageError(f"{path}: is there already, perhaps of a run that was killed: remove it") from error
        except OSError as error:
            raise UsageError(f"{path}: cannot make the swap area ({_reason(error)})") from error

    @property
    def slots(self) -> int:
        """All slots."""
        return len(self._sums)

    @property
    def free_slots(self) -> int:
        """Slots that no page has."""
        return self._free_count

    def put(self, page: int, contents: memoryview) -> None:
        """Store a page; raises SwapFullError, and then it is as before."""
        total = xxhash.xxh3_64_intdigest(contents)
        slot = int(self.slot_of[page])
        if slot != NO_SLOT and self._sums[slot] == total:
            self.reused += 1
            return
        if slot == NO_SLOT:
            if not self._free_count:
                raise SwapFullError(f"{self.name}: all of its {len(self._sums) * PAGE_BYTES // MIB} MiB are in use")
            slot = int(self._free[self._free_count - 1])
        self._write(slot, contents)
        if self.slot_of[page] == NO_SLOT:
            self._free_count -= 1
            self.slot_of[page] = slot
        self._sums[slot] = total
        self.written += 1

    def _write(self, slot: int, contents: memoryview) -> None:
        done = 0
        while done < PAGE_BYTES:
            try:
                count = os.pwrite(self._file, contents[done:], slot * PAGE_BYTES + done)
            except OSError as error:
                if done:
                    self._forget_contents(slot)
                raise SwapFullError(f"{self.name}: cannot write ({_reason(error)})") from error
            if not count:
                self._forget_contents(slot)
                raise SwapFullError(f"{self.name}: the host writes nothing")
            done += count

    def _forget_contents(self, slot: int) -> None:
        """Half of a page was written over what the slot had: that is no copy of its page any more."""
        owners = np.flatnonzero(self.slot_of == slot)
        if len(owners):
            self.free(owners)

    def get(self, page: int, into: memoryview) -> None:
        """Read a page back; raises SwapError if it is not what was put there."""
        slot = int(self.slot_of[page])
        if slot == NO_SLOT:
            raise BrokenInvariantError(f"{self.name}: page {page:#x} has no slot")
        done = 0
        while done < PAGE_BYTES:
            try:
                count = os.preadv(self._file, [into[done:]], slot * PAGE_BYTES + done)
            except OSError as error:
                raise SwapError(f"{self.name}: cannot read ({_reason(error)})") from error
            if not count:
                raise SwapError(f"{self.name}: ends before slot {slot}: somebody cut it short")
            done += count
        if xxhash.xxh3_64_intdigest(into) != int(self._sums[slot]):
            raise SwapError(f"{self.name}: slot {slot} does not hold what was written: somebody changed it")
        self.read += 1

    def free(self, pages: np.ndarray) -> None:
        """These pages do not need their slots any more."""
        slots = self.slot_of[pages]
        slots = slots[slots != NO_SLOT]
        self.slot_of[pages] = NO_SLOT
        self._free[self._free_count : self._free_count + len(slots)] = slots[::-1]
        self._free_count += len(slots)

    def close(self) -> None:
        """Remove the area."""
        os.close(self._file)
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def check(self) -> None:
        """Assert that each slot is one page's or free; raises BrokenInvariantError."""
        used = self.slot_of[self.slot_of != NO_SLOT]
        free = self._free[: self._free_count]
        if not np.array_equal(np.sort(np.concatenate([used, free])), np.arange(len(self._sums))):
            raise BrokenInvariantError(f"{self.name}: a slot is two pages', or nobody's")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
