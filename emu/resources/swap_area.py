"""The swap area of one VM: a file on the host with a slot for each page that may have to leave (Waldspurger 2002, section 2.1: max less min).

A page keeps its place when it comes back, until it leaves again with other contents or is gone: a page that was only read is not written twice.
What a place holds is known by its checksum, so that a file that somebody cut short or changed is found when it is read. With compression (LZ4) a page
takes as much of a slot as it needs.

A write that the host refuses leaves the page in memory: nothing is lost, and `SwapFullError` says why.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import xxhash

from emu.errors import BrokenInvariantError, EmuError, UsageError
from emu.resources.swap_space import FULL, UNIT_BYTES, UNITS, SwapSpace
from emu.saving import Giver, Taker
from emu.units import MIB, PAGE_BYTES

NO_PLACE = -1
WORTH_BYTES = PAGE_BYTES // 2  # more than that takes a slot anyway


class SwapError(EmuError):
    """The swap area cannot give a page back: the VM cannot go on."""

    exit_status = 74


class SwapFullError(EmuError):
    """The host takes no more pages: the VM has to wait until it does."""

    exit_status = 74


class SwapArea:
    """Slots in a file, or in the host's memory where `path` is None. `ram_pages` are those of the VM, `slots` of the area.

    `fails_to_read`, `fails_to_write`: the host's disk is broken, for experiments.
    """

    WIRING: ClassVar = frozenset({"name", "_path", "_file", "_codec"})

    def __init__(self, path: Path | None, ram_pages: int, slots: int, *, compresses: bool = False) -> None:
        self.name = "the swap area" if path is None else str(path)
        self._path = path
        self._codec = pa.Codec("lz4_raw") if compresses else None
        self.place_of = np.full(ram_pages, NO_PLACE, np.int32)  # of each page, its own until `free`; in units of the file
        self._bytes = np.zeros(ram_pages, np.uint16)  # that it takes there
        self._sums = np.zeros(ram_pages, np.uint64)  # of what it holds
        self._space = SwapSpace(slots)
        self.written = self.read = self.reused = 0  # pages
        self.fails_to_read = self.fails_to_write = False
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
        return self._space.slots

    @property
    def free_slots(self) -> int:
        """Slots that no page has anything of."""
        return self._space.free_slots

    @property
    def stored_bytes(self) -> int:
        """What the pages take, compressed or not."""
        return int(self._bytes[self.place_of != NO_PLACE].sum())

    def put(self, page: int, contents: memoryview) -> bool:
        """Store a page, and say whether that took a write; raises SwapFullError, and then the area has no copy of it."""
        total = xxhash.xxh3_64_intdigest(contents)
        if self.place_of[page] != NO_PLACE:
            if self._sums[page] == total:
                self.reused += 1
                return False
            self.free(np.array([page]))
        packed = contents if self._codec is None else self._packed(contents)
        place = self._space.take(len(packed))
        if place == FULL:
            raise SwapFullError(f"{self.name}: all of its {self.slots * PAGE_BYTES // MIB} MiB are in use")
        try:
            self._write(place * UNIT_BYTES, packed)
        except SwapFullError:
            self._space.give(place)
            raise
        self.place_of[page], self._bytes[page], self._sums[page] = place, len(packed), total
        self.written += 1
        return True

    def _packed(self, contents: memoryview) -> memoryview:
        assert self._codec is not None
        packed = memoryview(self._codec.compress(contents, asbytes=True))
        return packed if len(packed) <= WORTH_BYTES else contents

    def _write(self, at: int, packed: memoryview) -> None:
        done = 0
        while done < len(packed):
            try:
                _refuse_if(self.fails_to_write)
                count = os.pwrite(self._file, packed[done:], at + done)
            except OSError as error:
                raise SwapFullError(f"{self.name}: cannot write ({_reason(error)})") from error
            if not count:
                raise SwapFullError(f"{self.name}: the host writes nothing")
            done += count

    def get(self, page: int, into: memoryview) -> None:
        """Read a page back; raises SwapError if it is not what was put there."""
        place, size = int(self.place_of[page]), int(self._bytes[page])
        if place == NO_PLACE:
            raise BrokenInvariantError(f"{self.name}: page {page:#x} has no place")
        if size == PAGE_BYTES:
            self._read(place, into)
        else:
            packed = bytearray(size)
            self._read(place, memoryview(packed))
            self._unpack(page, packed, into)
        if xxhash.xxh3_64_intdigest(into) != int(self._sums[page]):
            raise self._changed(place)
        self.read += 1

    def _unpack(self, page: int, packed: bytearray, into: memoryview) -> None:
        assert self._codec is not None
        try:
            into[:] = self._codec.decompress(packed, PAGE_BYTES, asbytes=True)
        except (OSError, ValueError) as error:
            raise self._changed(int(self.place_of[page])) from error

    def _changed(self, place: int) -> SwapError:
        return SwapError(f"{self.name}: slot {place // UNITS} does not hold what was written: somebody changed it")

    def _read(self, place: int, into: memoryview) -> None:
        done = 0
        while done < len(into):
            try:
                _refuse_if(self.fails_to_read)
                count = os.preadv(self._file, [into[done:]], place * UNIT_BYTES + done)
            except OSError as error:
                raise SwapError(f"{self.name}: cannot read ({_reason(error)})") from error
            if not count:
                raise SwapError(f"{self.name}: ends before slot {place // UNITS}: somebody cut it short")
            done += count

    def free(self, pages: np.ndarray) -> None:
        """These pages do not need their places any more."""
        for place in self.place_of[pages].tolist():
            if place != NO_PLACE:
                self._space.give(place)
        self.place_of[pages] = NO_PLACE

    def close(self) -> None:
        """Remove the area, if it is there."""
        if self._file >= 0:
            self.free(np.flatnonzero(self.place_of != NO_PLACE))
            os.close(self._file)
            self._file = -1
            if self._path is not None:
                self._path.unlink(missing_ok=True)

    def saved_extra(self, taker: Taker) -> int:
        """For a snapshot: what is on the area, page after page; raises SwapError."""
        pages = np.flatnonzero(self.place_of != NO_PLACE)
        contents = np.empty(int(self._bytes[pages].sum()), np.uint8)
        at = 0
        for page in pages.tolist():
            size = int(self._bytes[page])
            self._read(int(self.place_of[page]), memoryview(contents)[at : at + size])  # type: ignore[arg-type]
            at += size
        return taker.array(contents)

    def give_extra(self, number: int, giver: Giver) -> None:
        """From a snapshot: put it there again; raises SwapFullError."""
        contents, at = memoryview(giver.arrays[number]), 0  # type: ignore[arg-type]
        for page in np.flatnonzero(self.place_of != NO_PLACE).tolist():
            size = int(self._bytes[page])
            self._write(int(self.place_of[page]) * UNIT_BYTES, contents[at : at + size])
            at += size

    def check(self) -> None:
        """Assert that each place is one page's or free; raises BrokenInvariantError."""
        self._space.check(self.place_of[self.place_of != NO_PLACE].tolist())


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _refuse_if(is_broken: bool) -> None:
    if is_broken:
        raise OSError(errno.EIO, "the scenario broke the disk")
