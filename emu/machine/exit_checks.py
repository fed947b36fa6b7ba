"""Loads and stores without the engine's look at its request to stop.

Unicorn compiles into every load and store of the guest a call that looks whether `uc_emu_stop` was called, for the sake of hooks of
memory accesses. emu has none: it stops the engine from the block hook, whose own look stays, and from the interrupt hook, outside
of all blocks. A byte of the engine's structure turns the look off while code is translated (Unicorn does so for ARM's IT blocks).
No interface names the byte; the function that reads it does, and `find_switch` proves by experiment what it does.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any

from emu.machine.engine import UC_HOOK_BLOCK, UC_HOOK_MEM_READ, Engine, uclib, x86_const
from emu.machine.memory import MachineMemory

READER = "check_exit_request_x86_64"
READER_BYTES = 32
COMPARISON = re.compile(rb"\x80[\xb8-\xbf](.{4})\x00", re.DOTALL)  # cmp byte [register + disp32], 0
CODE = 0x1000
# mov rbx,[2000] ; mov ecx,1 ; hlt
PROGRAM = bytes.fromhex("488b1c2500200000 b901000000 f4")


def find_switch(memory: MachineMemory) -> int:
    """Where the byte lies, from the engine's handle; 0 if this library has none, or it does something else than is known."""
    at = _place_read_by(READER)
    if not at:
        return 0
    is_known = [
        _runs_on_after_stop(memory, at, is_off, hook) for is_off in (False, True) for hook in (UC_HOOK_MEM_READ, UC_HOOK_BLOCK)
    ]
    return at if is_known == [False, False, True, False] else 0


def turn_off(engine: Engine, switch: int) -> None:
    """Have this engine translate without the look; `switch` is from `find_switch`, and 0 changes nothing."""
    if switch:
        ctypes.c_uint8.from_address(int(engine.handle.value or 0) + switch).value = 1


def _place_read_by(name: str) -> int:
    """The displacement in the function's first comparison of a byte in memory with 0; 0 if there is none."""
    function = getattr(uclib, name, None)
    address = ctypes.cast(function, ctypes.c_void_p).value if function else None
    found = COMPARISON.search(ctypes.string_at(address, READER_BYTES)) if address else None
    return int.from_bytes(found[1], "little") if found else 0


def _runs_on_after_stop(memory: MachineMemory, at: int, is_off: bool, hook: int) -> bool:
    """Whether a block goes on when a hook of its load, or of its start, stops the engine."""
    engine = Engine(memory)
    if is_off:
        turn_off(engine, at)

    def stop(uc: Any, *_: object) -> None:
        uc.emu_stop()

    memory.bytes[CODE : CODE + len(PROGRAM)] = list(PROGRAM)
    engine.uc.hook_add(hook, stop)
    engine.uc.emu_start(CODE, 0)
    return bool(engine.uc.reg_read(x86_const.UC_X86_REG_RCX))
