"""Files of the host that the guest boots from: looked at before they are read, and read as somebody asks.

A user may name anything: a device that never ends, a pipe that nobody writes to, a file of terabytes. Nothing of a file is in memory but what was
asked for, so whoever knows how much may be wanted looks at `len` first.
"""

from __future__ import annotations

import io
import os
import select
import stat
import weakref
from pathlib import Path
from typing import Protocol, Self, overload

from emu.errors import BadImageError
from emu.units import MIB

MAX_PIPE_BYTES = 256 * MIB  # of what comes from a pipe, which has to be held


class Bytes(Protocol):
    """What a reader of a file needs of `bytes`."""

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> bytes: ...


class HostFile:
    """A part of a regular file, all of it at first. A file that shrinks meanwhile reads as zeros beyond its end.

    Raises BadImageError for what is no regular file, and for one that cannot be read.
    """

    def __init__(self, path: Path, what: str) -> None:
        """`what` the file is to the user, for messages."""
        self._path, self._what = path, what
        self._descriptor = _open(path, what)
        weakref.finalize(self, os.close, self._descriptor)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unreadable(path, what, "is a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file")
        self._first, self._bytes = 0, status.st_size
        self._whole: HostFile | None = None  # of a part: keeps the file open

    def part(self, first: int, size: int) -> Self:
        """A part of this part, not read yet."""
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__)
        part._first, part._bytes, part._whole = self._first + first, size, self
        return part

    def __len__(self) -> int:
        """Size in bytes."""
        return self._bytes

    def __bytes__(self) -> bytes:
        """All of it."""
        return self[:]

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> bytes: ...
    def __getitem__(self, at: int | slice) -> int | bytes:
        """A byte, or the bytes of a slice without steps."""
        if not isinstance(at, slice):
            return self[at : at + 1][0]
        start, stop, _ = at.indices(self._bytes)
        size = max(0, stop - start)
        try:
            data = _read(self._descriptor, size, self._first + start)
        except OSError as error:
            raise _unreadable(self._path, self._what, error) from error
        return data.ljust(size, b"\0")


def _read(descriptor: int, size: int, at: int) -> bytes:
    """As much as there is: the host reads 2 GiB at once at the most."""
    data = os.pread(descriptor, size, at)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), at + len(data))):
        data += more
    return data


def open_bytes(path: Path, what: str) -> HostFile | bytes:
    """A regular file, to be read as asked, or all that comes from a pipe; raises BadImageError for anything else."""
    try:
        is_pipe = stat.S_ISFIFO(path.stat().st_mode)
    except (OSError, ValueError) as error:
        raise _unreadable(path, what, error) from error
    return _read_pipe(path, what) if is_pipe else HostFile(path, what)


def _read_pipe(path: Path, what: str) -> bytes:
    """What its writers send until the last of them closes it. `emu boot <(zcat kernel.gz)` comes here."""
    data = bytearray()
    with io.FileIO(_open(path, what)) as pipe:
        try:
            while (part := pipe.read(MIB)) != b"":
                if part is None:  # not yet
                    select.select([pipe], [], [])
                    continue
                data += part
                if len(data) > MAX_PIPE_BYTES:
                    raise BadImageError(
                        f"{path}: the {what} does not fit: more than {MAX_PIPE_BYTES // MIB} MiB came from a pipe"
                    )
        except OSError as error:
            raise _unreadable(path, what, error) from error
    if not data:
        raise _unreadable(path, what, "a pipe that nobody writes to")
    return bytes(data)


def _open(path: Path, what: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # not to wait for a pipe's writer
    except (OSError, ValueError) as error:
        raise _unreadable(path, what, error) from error


def _unreadable(path: Path, what: str, why: OSError | ValueError | str) -> BadImageError:
    reason = (why.strerror or str(why)).lower() if isinstance(why, OSError) else str(why)
    return BadImageError(f"{path}: cannot read the {what}: {reason}")
