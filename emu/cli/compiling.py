"""The first run of a version compiles for long, and says so."""

from __future__ import annotations

import sys

from emu.machine import native
from emu.resources.compiling import compile_for_python

COMPILING = "emu: compiling native code, once for this version: this takes about a minute"


def announce_compilation() -> None:
    """Say so if it is due; compile what Python calls too, so that no later run has to."""
    if not native.cache_is_warm():
        print(COMPILING, file=sys.stderr, flush=True)
        compile_for_python()
