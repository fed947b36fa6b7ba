"""The first run of a version compiles for long, and says so."""

from __future__ import annotations

import sys

from emu.errors import MachineMemoryError
from emu.limits import COMPILING_ADDRESS_SPACE, is_address_space_short, limit_in_words
from emu.machine import native
from emu.resources.compiling import compile_for_python
from emu.units import MIB

COMPILING = "emu: compiling native code, once for this version: this takes about a minute"


def announce_compilation() -> None:
    """Say so if it is due; compile what Python calls too, so that no later run has to."""
    if not native.cache_is_warm():
        if is_address_space_short(COMPILING_ADDRESS_SPACE):
            raise MachineMemoryError(f"compiling native code takes {COMPILING_ADDRESS_SPACE // MIB} MiB, once{limit_in_words()}")
        print(COMPILING, file=sys.stderr, flush=True)
        compile_for_python()
