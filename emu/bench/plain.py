"""The bench guest in plain Unicorn, with no VMM around it: what the engine does by itself.

The kernel is loaded where its segments go and entered as a multiboot loader would, with paging off. Its two ports are
answered here.
"""

from __future__ import annotations

import struct
import time
from typing import Any

import unicorn
from unicorn import UC_ARCH_X86, UC_HOOK_INSN, UC_MODE_32, Uc, x86_const

from emu import images
from emu.units import MIB
from emu.vm import loader

MEMORY_BYTES = 32 * MIB
INFO_ADDRESS, LINE_ADDRESS = 0x9000, 0x9100
BOOT_MAGIC = 0x2BADB002
INFO_MEMORY, INFO_COMMAND_LINE = 1, 4
PORT_LINE_STATUS, PORT_EXIT = 0x3FD, 0xF4
TRANSMITTER_EMPTY = 0x60


def run_plain(append: str) -> float:
    """Seconds that a run takes; `append` as on the guest's command line, paging=off is added."""
    image = images.guest("bench")
    kernel = loader.parse(image.read_bytes(), str(image))
    uc = Uc(UC_ARCH_X86, UC_MODE_32)
    uc.mem_map(0, MEMORY_BYTES)
    for segment in kernel.segments:
        uc.mem_write(segment.address, segment.data)
    line = f"bench {append} paging=off".encode() + b"\0"
    uc.mem_write(LINE_ADDRESS, line)
    info = struct.pack("<5I", INFO_MEMORY | INFO_COMMAND_LINE, 639, MEMORY_BYTES // 1024 - 1024, 0, LINE_ADDRESS)
    uc.mem_write(INFO_ADDRESS, info.ljust(120, b"\0"))
    uc.reg_write(x86_const.UC_X86_REG_EAX, BOOT_MAGIC)
    uc.reg_write(x86_const.UC_X86_REG_EBX, INFO_ADDRESS)
    uc.hook_add(UC_HOOK_INSN, _on_in, None, 1, 0, x86_const.UC_X86_INS_IN)
    uc.hook_add(UC_HOOK_INSN, _on_out, None, 1, 0, x86_const.UC_X86_INS_OUT)
    start = time.perf_counter()
    uc.emu_start(kernel.entry, 0xFFFF_FFFF)
    return time.perf_counter() - start


def _on_in(_uc: Uc, port: int, size: int, _data: Any) -> int:
    return TRANSMITTER_EMPTY if port == PORT_LINE_STATUS else (1 << 8 * size) - 1


def _on_out(uc: Uc, port: int, _size: int, _value: int, _data: Any) -> None:
    if port == PORT_EXIT:
        uc.emu_stop()


PEER = f"unicorn {unicorn.__version__}"
