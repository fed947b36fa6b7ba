"""All native code, loaded or compiled ahead of the first run."""

from __future__ import annotations

import time
from collections.abc import Callable

from emu.machine.native import CACHE


def prepare(on_wait: Callable[[], None] = lambda: None) -> None:
    """Load native code; compile all of it where the cache lacks it, one process at a time: `on_wait` is called before another is waited for."""
    if CACHE.is_complete():
        CACHE.mark_used()
        _load()
        return
    with CACHE.exclusive(on_wait):
        start = time.perf_counter()
        _load()
        if not CACHE.is_complete():  # another process may have compiled while this one waited
            _compile_for_python()
            CACHE.mark_complete(time.perf_counter() - start)


def _load() -> None:
    """What the engine calls is compiled when its module is imported."""
    from emu.vm import vm  # noqa: F401


def _compile_for_python() -> None:
    """What only Python calls."""
    from emu.resources import remap
    from emu.vm import handler

    handler.compile_for_python()
    remap.compile_for_host()
