"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def can_be_replaced(path: Path) -> bool:
    """Whether a new file may take the place of what is at `path`: nothing, or a regular file; never a device or a folder."""
    return path.is_file() or not path.exists()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside `path`, which takes its place, on disk, if the block ends well; else what is at `path` stays as it is.

    A symbolic link is followed. Raises OSError: what the host says, or that `path` is no regular file.
    """
    if not can_be_replaced(path):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    target = Path(os.path.realpath(path))  # unlike Path.resolve, no RuntimeError for links in a circle
    beside = target.with_name(f"{target.name}.{os.getpid()}.new")
    beside.unlink(missing_ok=True)  # of a killed process that had our number
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
