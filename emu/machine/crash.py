"""The last line when the engine takes the process down.

Of the aborts that are known it comes back (`emu.machine.aborts`). Nothing can go on after any other crash in native code, so a C signal
handler says what happened and ends the process with a status of its own.
"""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable

from emu.errors import EmuError

MESSAGE = b"emu: the engine gave up on an instruction of the guest (docs/engine.md, 'What the engine cannot do')\n"
STANDARD_ERROR = 2
SIGNALS = (signal.SIGABRT, signal.SIGSEGV)
HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)

_restorers: list[Callable[[], None]] = []
_handlers: list[object] = []  # kept alive: C has only their addresses


def at_crash(restore: Callable[[], None]) -> None:
    """Have `restore()` called before the end, for a terminal's settings."""
    _restorers.append(restore)


def install() -> None:
    """Catch the signals of `SIGNALS` for the rest of the process; it ends with the status of `EmuError`."""
    libc = ctypes.CDLL(None)
    end = libc["_exit"]

    def last_words(_number: int) -> None:
        libc.write(STANDARD_ERROR, MESSAGE, len(MESSAGE))
        for restore in _restorers:
            restore()
        end(EmuError.exit_status)

    handler = HANDLER(last_words)
    _handlers.append(handler)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal.restype = ctypes.c_void_p
    for number in SIGNALS:
        libc.signal(number, ctypes.cast(handler, ctypes.c_void_p))
