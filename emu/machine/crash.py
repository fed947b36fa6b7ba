"""The last words when the engine takes the process down.

Of the aborts that are known it comes back (`emu.machine.aborts`). Nothing can go on after any other crash in native code, so a C signal
handler saves what can be saved, says what happened and ends the process with a status of its own. The engine runs without Python's lock,
so Python can run in the handler; if that goes wrong too, the last line is still written.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
from collections.abc import Callable

from emu.errors import EmuError

MESSAGE = b"emu: the engine gave up on an instruction of the guest (docs/engine.md, 'What the engine cannot do')\n"
STANDARD_ERROR = 2
SIGNALS = (signal.SIGABRT, signal.SIGSEGV)
HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)

SAVING_S = 10  # then the alarm ends the process: whoever saves may wait for what the engine holds

_deeds: list[Callable[[], object]] = []
_handlers: list[object] = []  # kept alive: C has only their addresses


def at_crash(deed: Callable[[], object]) -> None:
    """Have `deed()` called before the end, the last one first: for a terminal's settings, and for what is not written yet."""
    _deeds.append(deed)


def install() -> None:
    """Catch the signals of `SIGNALS` for the rest of the process; it ends with the status of `EmuError`."""
    libc = ctypes.CDLL(None)
    end = libc["_exit"]
    # Once only, and not blocked meanwhile: where even this handler cannot run, the signal must not come again and again.
    catch = libc.sysv_signal
    catch.argtypes = (ctypes.c_int, ctypes.c_void_p)
    catch.restype = ctypes.c_void_p

    def last_words(_number: int) -> None:
        arm()  # a deed may be the next to crash
        signal.alarm(SAVING_S)
        while _deeds:
            with contextlib.suppress(BaseException):
                _deeds.pop()()
        libc.write(STANDARD_ERROR, MESSAGE, len(MESSAGE))
        end(EmuError.exit_status)

    handler = HANDLER(last_words)
    _handlers.append(handler)

    def arm() -> None:
        for number in SIGNALS:
            catch(number, ctypes.cast(handler, ctypes.c_void_p))

    arm()
