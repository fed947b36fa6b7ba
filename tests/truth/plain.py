# SPDX-License-Identifier: GPL-2.0-or-later
"""The fuzz guest in Unicorn with no VMM.

Unicorn delivers nothing through the IDT. So the processor's state is kept where the guest's `access32` or `access64` begins,
and what the access raises is noted for the guest as its own handlers would, with that state put back and the function returned
from. The error code and the upper half of CR2 are in no public register of a 32-bit engine; they are read where emu's
calibration found them in a saved context.
"""

from __future__ import annotations

import ctypes
import functools
import io
import struct
from typing import Any

import numpy as np
from elftools.elf.elffile import ELFFile
from unicorn import UC_ARCH_X86, UC_HOOK_CODE, UC_HOOK_INSN, UC_HOOK_INTR, UC_MODE_32, Uc, UcError, x86_const

from emu.machine import calibration, env
from tests.truth import guest, layout

INFO, MODULES, SCRIPT = 0x9000, 0x9100, 0x20_0000
WITH_ERROR = (8, 10, 11, 12, 13, 14, 17)
PAGE_FAULT = 14
DEBUG_PORT = 0xE9
FOREVER = 0xFFFF_FFFF
RETURN = -1


@functools.cache
def _symbols() -> dict[str, int]:
    table = ELFFile(io.BytesIO(guest.image())).get_section_by_name(".symtab")
    return {symbol.name: symbol["st_value"] for symbol in table.iter_symbols()}


class PlainMachine:
    """An engine with RAM, the guest in it, and the debug port."""

    def __init__(self, script: bytes) -> None:
        self.uc = Uc(UC_ARCH_X86, UC_MODE_32)
        self.uc.ctl_set_cpu_model(x86_const.UC_CPU_X86_EPYC)
        self.uc.ctl_exits_enabled(True)  # else each stop translates the address to run until, and marks its entries
        self.uc.ctl_set_exits([])
        self.uc.mem_map(0, layout.MEMORY_MIB << 20)
        elf = ELFFile(io.BytesIO(guest.image()))
        for segment in elf.iter_segments():
            if segment["p_type"] == "PT_LOAD":
                self.uc.mem_write(segment["p_paddr"], segment.data())
        self.uc.mem_write(SCRIPT, script)
        self.uc.mem_write(MODULES, struct.pack("<2I", SCRIPT, SCRIPT + len(script)))
        self.uc.mem_write(INFO, struct.pack("<7I", 8, 0, 0, 0, 0, 1, MODULES))
        self.uc.reg_write(x86_const.UC_X86_REG_EBX, INFO)
        self.symbols = _symbols()
        self.entry = elf["e_entry"]
        self.before = self.uc.context_save()  # the state at the start of the access under way
        self.raised = self.uc.context_save()  # scratch: the state at an exception
        self.debug = bytearray()
        self.is_done = False
        self.goes_on_at: int | None = None
        for name in ("access32", "access64"):
            self.uc.hook_add(UC_HOOK_CODE, self._on_access, None, self.symbols[name], self.symbols[name])
        self.uc.hook_add(UC_HOOK_INTR, self._on_exception)
        self.uc.hook_add(UC_HOOK_INSN, self._on_out, None, 1, 0, x86_const.UC_X86_INS_OUT)

    def run(self) -> str:
        """Run to the end; what was wrong, "" if nothing."""
        at: int | None = self.entry
        while at is not None:
            self.goes_on_at = None
            try:
                self.uc.emu_start(at, FOREVER)
            except UcError as error:
                return f"Unicorn stopped: {error}"
            at = self._return_from_access() if self.goes_on_at == RETURN else self.goes_on_at
        return "" if self.is_done else "Unicorn stopped for no reason"

    def _return_from_access(self) -> int:
        """The state is again that at the start of the access; take the return address from the stack."""
        self.uc.context_restore(self.before)
        esp = self.uc.reg_read(x86_const.UC_X86_REG_ESP)
        self.uc.reg_write(x86_const.UC_X86_REG_ESP, esp + 4)
        return self._word(esp)

    def _on_access(self, uc: Uc, _address: int, _size: int, _data: Any) -> None:
        uc.context_update(self.before)

    def _on_exception(self, uc: Uc, vector: int, _data: Any) -> None:
        uc.context_update(self.raised)
        error = self._state_word(calibration.calibrate().error_code, np.uint32) if vector in WITH_ERROR else 0
        self._answer("vector", vector)
        self._answer("error", error)
        self._answer("value", uc.reg_read(x86_const.UC_X86_REG_EAX))
        uc.mem_write(self.symbols["answer_cr2"], struct.pack("<Q", self._state_word(env.CR2, np.uint64)))
        uc.emu_stop()
        if not self._word(self.symbols["in_access"]):
            self.goes_on_at = self.symbols["stray"]
            return
        self.goes_on_at = RETURN

    def _on_out(self, uc: Uc, port: int, _size: int, value: int, _data: Any) -> None:
        if port == DEBUG_PORT:
            self.debug.append(value & 0xFF)
        if port == layout.EXIT_PORT:
            self.is_done = True
            uc.emu_stop()

    def _answer(self, name: str, value: int) -> None:
        self.uc.mem_write(self.symbols[f"answer_{name}"], struct.pack("<I", value))

    def _word(self, physical: int) -> int:
        return int.from_bytes(self.uc.mem_read(physical, 4), "little")

    def _state_word(self, at: int, width: type[np.unsignedinteger[Any]]) -> int:
        """A number of CPUX86State in `raised`."""
        pointer = ctypes.cast(self.raised.context, ctypes.POINTER(ctypes.c_uint8))
        start = calibration.calibrate().env + at
        return int(np.ctypeslib.as_array(pointer, (start + 8,))[start:].view(width)[0])


def run(script: bytes) -> tuple[bytes, str]:
    """An engine for `engines.ENGINES`."""
    machine = PlainMachine(script)
    ending = machine.run()
    return bytes(machine.debug), ending
