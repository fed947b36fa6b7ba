"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def can_be_replaced(path: Path) -> bool:
    """Whether a new file may take the place of what is at `path`: nothing, or a regular file; never a device or a folder."""
    return path.is_file() or not path.exists()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside `path` (`.new`), which takes its place, on disk, if the block ends well; else what is at `path` stays as it is.

    A symbolic link is followed. Raises OSError: what the host says, or that `path` is no regular file, or that somebody else is writing it.
    """
    if not can_be_replaced(path):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    target = path.resolve()
    beside = target.with_name(target.name + ".new")
    beside.touch()  # not emptied before it is ours
    with beside.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(file.fileno()), beside.stat())
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:  # it was in somebody's hands, or has become the file itself
            raise OSError(errno.EBUSY, "somebody else is writing it", str(path))
        try:
            file.truncate(0)
            yield file
            file.flush()
            os.fsync(file.fileno())
            beside.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
