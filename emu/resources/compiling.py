"""What native code is compiled ahead, so that it is in the cache with what the engine calls."""

from __future__ import annotations


def compile_for_python() -> None:
    """Compile what only Python calls; what the engine calls is compiled when its module is imported, as this does."""
    from emu.resources import remap
    from emu.vm import handler

    handler.compile_for_python()
    remap.compile_for_host()
