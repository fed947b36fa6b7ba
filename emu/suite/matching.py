# SPDX-License-Identifier: GPL-2.0-or-later
"""Regular expressions of a suite, searched for in a process of its own: some would take for ever, or all memory."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import warnings
from pathlib import Path

from emu.errors import EmuError
from emu.units import GIB

LIMIT_S = 10  # of the host's clock
LIMIT_BYTES = GIB  # beyond what the process has anyway
FOUND, NOT_FOUND, NO_MEMORY = 0, 1, 2  # statuses of the process


def search(pattern: str, text: str) -> bool:
    """Whether the expression is found, `^` and `$` at lines; raises EmuError if that took too long or too much memory."""
    with warnings.catch_warnings(action="ignore"):  # about threads: the child starts none and ends at once
        child = os.fork()
    if not child:
        _search_and_end(pattern, text)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGALRM:
        raise EmuError(f"looking for {pattern!r} took more than {LIMIT_S} s: the expression can match in too many ways")
    if code not in (FOUND, NOT_FOUND):
        raise EmuError(f"looking for {pattern!r} took more than {LIMIT_BYTES // GIB} GiB of memory")
    return code == FOUND


def _search_and_end(pattern: str, text: str) -> None:
    """In the child: never returns."""
    status = NO_MEMORY
    with contextlib.suppress(MemoryError):
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LIMIT_S)  # ends the process: an expression may not come back to Python for long
            _limit_memory()
            status = FOUND if re.search(pattern, text, re.MULTILINE) else NOT_FOUND
        finally:
            os._exit(status)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[5])  # data and stack
    most = pages * os.sysconf("SC_PAGE_SIZE") + LIMIT_BYTES
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
