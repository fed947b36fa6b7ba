"""A worker process: takes calls from its pool, one after another, until the pool hangs up.

A process of its own because the engine may abort it (`emu.machine.crash`): then only the call in hand is lost.
"""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from emu.errors import EmuError
from emu.machine import crash
from emu.machine.native import CACHE
from emu.resources.compiling import prepare
from emu.suite.pool import COMPILING, DONE, FAILED, READY

PR_SET_PDEATHSIG = 1


def main(descriptor: int) -> None:
    """Serve calls over the socket `descriptor`."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a pool that is killed takes its workers along
    crash.install()
    with Connection(descriptor) as pool:
        try:
            _get_ready(pool)
            while True:
                function, arguments = pool.recv()
                pool.send(_call(function, arguments))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def _get_ready(pool: Connection) -> None:
    if not CACHE.is_complete():
        pool.send((COMPILING, None))
    prepare()  # workers start together: one compiles, the others load
    from emu.suite import execute, run  # noqa: F401  (what jobs will need is loaded before collections leave it out)
    from emu.trace import text  # noqa: F401

    run.freeze_imports()
    pool.send((READY, None))


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return DONE, function(*arguments)
    except EmuError as error:
        return FAILED, f"{error}"
    except Exception as error:  # noqa: BLE001  (a bug of emu's must not end the other cases)
        return FAILED, f"{type(error).__name__}: {error}"
