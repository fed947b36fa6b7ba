"""The store behind a drive: a file of the host, or memory.

Transfers go between the file and whatever views they are handed, which are machine frames, without a copy between. What the host
refuses becomes a `DiskError`: the drive tells the guest, whoever holds `on_trouble` tells the user, once for each kind of trouble.

    os.open, flock --open_disk()--> open --close()--> closed (and unlocked)
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

from emu.errors import BadImageError

SECTOR_BYTES = 512
MEMORY_PREFIX = "memory:"  # of the name of a disk without a file
VIEWS_AT_ONCE = 1024  # IOV_MAX of Linux
COPY_SECTORS = 2048  # at a time
MAX_DISK_BYTES = 1 << 41  # 2 TiB, what partition tables with 32-bit sector numbers describe


class DiskError(Exception):
    """The host did not carry out a transfer; `sector` is the first that failed."""

    def __init__(self, sector: int) -> None:
        super().__init__(sector)
        self.sector = sector


def ignore_trouble(_message: str) -> None:
    """Nobody listens."""


class Disk:
    """An open file of whole sectors; a memory disk is a file without a name. `sectors` is fixed when it is opened."""

    def __init__(self, descriptor: int, name: str, size_bytes: int, *, readonly: bool = False) -> None:
        self.name = name  # as the user knows it, for messages
        self.sectors = size_bytes // SECTOR_BYTES
        self.is_readonly = readonly
        self.on_trouble: Callable[[str], None] = ignore_trouble  # gets a line for the user
        self._descriptor = descriptor  # -1: closed
        self._told: set[str] = set()

    def read(self, sector: int, views: list[memoryview]) -> None:
        """Fill the views, in order, from `sector` on; raises DiskError."""
        self._transfer(os.preadv, "read", sector, views)

    def write(self, sector: int, views: list[memoryview]) -> None:
        """Store the views, in order, from `sector` on; raises DiskError."""
        self._transfer(os.pwritev, "write", sector, views)

    def flush(self) -> None:
        """Have the host bring what was written to stable storage; raises DiskError."""
        try:
            os.fdatasync(self._descriptor)
            is_deleted = os.fstat(self._descriptor).st_nlink == 0 and not self.name.startswith(MEMORY_PREFIX)
        except OSError as error:
            raise self._failed("flush", 0, _reason(error)) from error
        if is_deleted:
            self._tell("deleted", "was deleted while in use: what the guest writes is lost at the end")
            raise DiskError(0)

    def close(self) -> None:
        """Unlock the file; the disk must not be used any more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _transfer(
        self, move: Callable[[int, list[memoryview], int], int], verb: str, sector: int, views: list[memoryview]
    ) -> None:
        at = sector * SECTOR_BYTES
        left = views
        try:
            self._refuse_truncated(at + sum(map(len, views)))
            while left:
                done = move(self._descriptor, left[:VIEWS_AT_ONCE], at)
                at += done
                left = _rest(left, done)
        except OSError as error:
            raise self._failed(verb, at // SECTOR_BYTES, _reason(error)) from error

    def _refuse_truncated(self, end: int) -> None:
        """A file that became shorter reads as nothing, and would grow again with zeros if it were written."""
        if os.fstat(self._descriptor).st_size < end:
            raise OSError(errno.ENODATA, "the file was truncated while in use")

    def _failed(self, verb: str, sector: int, reason: str) -> DiskError:
        self._tell(f"{verb} {reason}", f"cannot {verb} at sector {sector} ({reason}): the guest gets a disk error")
        return DiskError(sector)

    def _tell(self, kind: str, message: str) -> None:
        """One line for each kind of trouble: a guest tries again and again."""
        if kind not in self._told:
            self._told.add(kind)
            self.on_trouble(f"{self.name}: {message}")


def _rest(views: list[memoryview], done: int) -> list[memoryview]:
    """What is left of the views after `done` bytes; raises OSError if there was no progress."""
    if done <= 0:
        raise OSError(errno.EIO, "nothing was transferred")
    for number, view in enumerate(views):
        if done < len(view):
            return [view[done:], *views[number + 1 :]]
        done -= len(view)
    return []


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def memory_disk(size_bytes: int) -> Disk:
    """A disk of zeros in the host's memory, which is gone at the end; raises BadImageError."""
    name = f"{MEMORY_PREFIX}{size_bytes}"
    _check_size(name, size_bytes)
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size_bytes > have:
        raise BadImageError(f"{name}: the host has {have >> 20} MiB of memory: use a file")
    try:
        descriptor = os.memfd_create("emu-disk", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, size_bytes)
    except OSError as error:
        raise BadImageError(f"{name}: cannot make the disk ({_reason(error)})") from error
    return Disk(descriptor, name, size_bytes)


def copy_disk(path: Path) -> Disk:
    """A disk in memory with what is in a file; raises BadImageError."""
    original = open_disk(path, readonly=True)
    try:
        copy = memory_disk(original.sectors * SECTOR_BYTES)
        for sector in range(0, original.sectors, COPY_SECTORS):
            part = memoryview(bytearray(min(COPY_SECTORS, original.sectors - sector) * SECTOR_BYTES))
            original.read(sector, [part])
            copy.write(sector, [part])
    except DiskError as error:
        copy.close()
        raise BadImageError(f"{path}: cannot read the disk image at sector {error.sector}") from error
    finally:
        original.close()
    return copy


def open_disk(path: Path, *, readonly: bool = False) -> Disk:
    """The disk in a file, locked against other users of emu; raises BadImageError with a line for the user."""
    if path.is_dir():
        raise BadImageError(f"{path}: a folder, not a disk image")
    try:
        descriptor = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = _reason(error) if isinstance(error, OSError) else str(error)
        hint = "; open it with ,readonly" if isinstance(error, PermissionError) and not readonly else ""
        raise BadImageError(f"{path}: cannot open the disk image ({reason}){hint}") from error
    try:
        return Disk(descriptor, str(path), _checked_size(path, descriptor, readonly=readonly), readonly=readonly)
    except BadImageError:
        os.close(descriptor)
        raise


def _checked_size(path: Path, descriptor: int, *, readonly: bool) -> int:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise BadImageError(f"{path}: not a regular file, which a disk image has to be")
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if readonly else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        raise BadImageError(f"{path}: in use by another emu: a disk image has one writer, or readers only") from error
    _check_size(str(path), status.st_size)
    return status.st_size


def _check_size(name: str, size_bytes: int) -> None:
    if not size_bytes or size_bytes % SECTOR_BYTES:
        raise BadImageError(f"{name}: a disk of {size_bytes} bytes: whole sectors of {SECTOR_BYTES} bytes are needed")
    if size_bytes > MAX_DISK_BYTES:
        raise BadImageError(f"{name}: a disk of {size_bytes} bytes: at most {MAX_DISK_BYTES >> 40} TiB are possible")
