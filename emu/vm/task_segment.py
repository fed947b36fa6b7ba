"""The task state segment as a hardware task switch reads and writes it, in its 16-bit and its 32-bit layout.

Intel SDM vol. 3, sections 8.2.1 and 8.6; AMD64 APM vol. 2, section 12.2. A switch looks up where a segment lies before it changes
anything. From then on it works with physical addresses, so no access can fault half-way.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine import env
from emu.machine.native import compiled, load32, load64, store64
from emu.units import PAGE_BYTES
from emu.vm import access, walk

WIDE = 8  # bit of a system descriptor's type: a 32-bit segment or gate
LINK = 0  # selector of the task to return to, in both layouts
ROOT, TRAP = 0x1C, 0x64  # CR3, and the word with the T bit: in 32-bit segments only
IP_32, FLAGS_32, GENERAL_32, SELECTORS_32, LDT_32 = 0x20, 0x24, 0x28, 0x48, 0x60
IP_16, FLAGS_16, GENERAL_16, SELECTORS_16, LDT_16 = 0x0E, 0x10, 0x12, 0x22, 0x2A
BYTES_32, BYTES_16 = 0x68, 0x2C  # what a new task's segment must have at the least
SAVED_32, SAVED_16 = 0x5E, 0x2A  # up to here a switch saves the old task's state
GENERAL_REGISTERS = 8
SEGMENTS_32, SEGMENTS_16 = 6, 4  # ES CS SS DS, and FS GS
UPPER_HALF = 0xFFFF_0000  # what registers of 32 bits get above the 16 of a 16-bit segment


@compiled
def is_wide(flags: int) -> bool:
    """Whether the second word of a descriptor is that of a 32-bit task state segment."""
    return flags >> 8 & WIDE != 0


@compiled
def find(cb: object, va: int, size: int, kind: int) -> tuple[int, int, int]:
    """(fault, PA of the page of the first byte, of the last) of up to a page of memory at a linear address; EXIT_INFO as for a load."""
    first, last = va & 0xFFFF_FFFF, va + size - 1 & 0xFFFF_FFFF
    fault, ppn, _access, _size = walk.walk(cb, first, kind, True)
    if fault != walk.NO_FAULT:
        cb[cbw.EXIT_INFO] = first
        return fault, 0, 0
    if (first ^ last) & ~0xFFF == 0:
        return access.OK, ppn << 12, ppn << 12
    fault, ppn_last, _access, _size = walk.walk(cb, last, kind, True)
    if fault != walk.NO_FAULT:
        cb[cbw.EXIT_INFO] = last & ~0xFFF
        return fault, 0, 0
    return access.OK, ppn << 12, ppn_last << 12


@compiled
def place_of(segment: tuple[int, int, int], offset: int) -> int:
    """PA of a byte of a segment that was looked up: (linear address, PA of its first page, of its last)."""
    at = (segment[0] & 0xFFF) + offset
    return segment[1] + at if at < PAGE_BYTES else segment[2] + at - PAGE_BYTES


@compiled
def get(cb: object, segment: tuple[int, int, int], offset: int, size: int) -> int:
    """A field of 2 or 4 bytes."""
    value = 0
    for byte in range(size):
        value |= access.load_byte(cb, place_of(segment, offset + byte)) << 8 * byte
    return value


@compiled
def put(cb: object, segment: tuple[int, int, int], offset: int, size: int, value: int) -> None:
    """Store to a field of 2 or 4 bytes."""
    at, last = place_of(segment, offset), place_of(segment, offset + size - 1)
    if last - at == size - 1 and at & ~0xFFF == last & ~0xFFF:
        access.store_bytes(cb, at, size, value)
        return
    for byte in range(size):
        access.store_bytes(cb, place_of(segment, offset + byte), 1, value >> 8 * byte & 0xFF)


@compiled
def save(cb: object, segment: tuple[int, int, int], wide: bool, ip: int, flags: int) -> None:
    """Save the running task: registers, selectors, flags and where it goes on."""
    regs = cb[cbw.ENV]
    size = 4 if wide else 2
    put(cb, segment, IP_32 if wide else IP_16, size, ip)
    put(cb, segment, FLAGS_32 if wide else FLAGS_16, size, flags)
    for number in range(GENERAL_REGISTERS):
        put(cb, segment, (GENERAL_32 if wide else GENERAL_16) + size * number, size, load64(regs + env.REGS + 8 * number))
    for number in range(SEGMENTS_32 if wide else SEGMENTS_16):
        selector = load32(regs + env.SEGMENTS + env.SEGMENT_BYTES * number)
        put(cb, segment, (SELECTORS_32 if wide else SELECTORS_16) + size * number, 2, selector)


@compiled
def load(cb: object, segment: tuple[int, int, int], wide: bool) -> tuple[int, int, int]:
    """(IP, flags, LDT selector) of a task, whose registers and selectors go to CONTEXT; segment registers have no contents yet."""
    regs = cb[cbw.ENV]
    size = 4 if wide else 2
    above = 0 if wide else UPPER_HALF
    for number in range(GENERAL_REGISTERS):
        value = get(cb, segment, (GENERAL_32 if wide else GENERAL_16) + size * number, size)
        store64(regs + env.REGS + 8 * number, value | above)
    for number in range(SEGMENTS_32):
        selector = 0
        if wide or number < SEGMENTS_16:
            selector = get(cb, segment, (SELECTORS_32 if wide else SELECTORS_16) + size * number, 2)
        env.set_segment(regs, env.SEGMENTS + env.SEGMENT_BYTES * number, selector, 0, 0, 0)
    ip = get(cb, segment, IP_32 if wide else IP_16, size)
    flags = get(cb, segment, FLAGS_32 if wide else FLAGS_16, size)
    return ip, flags, get(cb, segment, LDT_32 if wide else LDT_16, 2)
