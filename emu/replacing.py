"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PRIVATE = 0o600
PERMISSIONS = 0o777


def can_be_replaced(path: Path) -> bool:
    """Whether a new file may take the place of what is at `path`: nothing, or a regular file; never a device or a folder."""
    return path.is_file() or not path.exists()


@contextlib.contextmanager
def replacing(path: Path, *, is_private: bool = False) -> Iterator[BinaryIO]:
    """A new file beside `path`, which takes its place, on disk, if the block ends well; else what is at `path` stays as it is.

    A symbolic link is followed. The file has the permissions of the one that it replaces, or else those that the umask leaves; a private one is
    its owner's alone, whatever the one before was. Raises OSError: what the host says, or that `path` is no regular file.
    """
    if not can_be_replaced(path):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    target = Path(os.path.realpath(path))  # unlike Path.resolve, no RuntimeError for links in a circle
    beside = target.with_name(f"{target.name}.{os.getpid()}.new")
    beside.unlink(missing_ok=True)  # of a killed process that had our number
    try:
        with _new_file(beside, target, is_private=is_private) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _new_file(path: Path, before: Path, *, is_private: bool) -> BinaryIO:
    """A new file, open; who may not read it in the end cannot at any time."""
    kept = None
    with contextlib.suppress(OSError):  # there is none
        kept = PRIVATE if is_private else before.stat().st_mode & PERMISSIONS
    new = PRIVATE if is_private else 0o666
    file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, new if kept is None else kept), "wb")  # noqa: SIM115, PTH123
    if kept is not None:
        with contextlib.suppress(OSError):  # a file system without permissions
            os.fchmod(file.fileno(), kept)  # those that the umask takes away, too
    return file
