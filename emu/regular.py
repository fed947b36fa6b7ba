# SPDX-License-Identifier: GPL-2.0-or-later
"""Regular files of the user's, read whole and with a bound: a pipe is not waited for, a device not read."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from emu.units import KIB, MIB


def read_regular(path: Path, most_bytes: int) -> bytes:
    """All of a regular file; raises OSError if it is none, is larger than `most_bytes`, or cannot be read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if problem := not_regular(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, problem)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(most_bytes + 1)
    finally:
        os.close(descriptor)
    if len(data) > most_bytes:
        most = f"{most_bytes // MIB} MiB" if most_bytes >= MIB else f"{most_bytes // KIB} KiB"
        raise OSError(errno.EFBIG, f"larger than {most}")
    return data


def not_regular(mode: int) -> str:
    """What a file of this mode is, in words, if it is no regular one."""
    if stat.S_ISREG(mode):
        return ""
    return "it is a folder" if stat.S_ISDIR(mode) else "not a regular file"


def reason_of(error: OSError | ValueError) -> str:
    """Why a file cannot be read or written, as the end of a message; ValueError is what names with a NUL raise."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return reason[:1].lower() + reason[1:]
