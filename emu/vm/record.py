"""Native code that writes event records (`emu.events`) and counts them."""

from __future__ import annotations

from emu.events import RECORD_WORDS
from emu.machine import control as cbw
from emu.machine import env
from emu.machine.native import compiled, load8, load64, store8, store64

ROW_BYTES = RECORD_WORDS * 8
MAX_INSN = 15
WIDE_CODE, LONG_CODE = 0x80, 0x40  # with the number of bytes: they are 32-bit, 64-bit code
NOWHERE = 0xFFFF_FFFF  # in place of a PPN or MPN
# Records that one exit may write at the most: a full re-read of every out-of-sync table.
HEADROOM = 1 << 15


@compiled
def count(cb: object, kind: int) -> None:
    """Count an event without recording it."""
    at = cb[cbw.COUNTERS] + 8 * kind
    store64(at, load64(at) + 1)


@compiled
def now(cb: object) -> int:
    """Virtual time: inside a port access that of the instruction, else of the last exit."""
    if cb[cbw.IO_NOW] >= 0:
        return cb[cbw.IO_NOW]
    return cb[cbw.INSNS]


@compiled
def is_recorded(cb: object, kind: int) -> bool:
    """Whether events of a kind are recorded, or only counted."""
    return cb[cbw.EVENT_SELECTION] >> kind & 1 != 0


@compiled
def emit(cb: object, kind: int, info: int, va: int, ppn: int, mpn: int, old: int, new: int) -> None:
    """Count an event and, if its kind is selected, record it with the guest instruction that caused it."""
    count(cb, kind)
    if not is_recorded(cb, kind):
        return
    number = cb[cbw.EVENT_COUNT]
    cb[cbw.EVENT_COUNT] = number + 1
    at = cb[cbw.EVENTS] + (number & cb[cbw.EVENTS_MASK]) * ROW_BYTES
    store64(at, now(cb))
    store64(at + 8, kind | cb[cbw.VM_ID] << 16 | (info & 0xFFFF_FFFF) << 32)
    store64(at + 16, va)
    store64(at + 24, (ppn & NOWHERE) | (mpn & NOWHERE) << 32)
    store64(at + 32, old)
    store64(at + 40, new)
    store64(at + 48, cb[cbw.EVENT_RIP])
    store64(at + 56, 0)
    store64(at + 64, 0)
    if cb[cbw.EVENT_INSNS]:
        copy_instruction(cb, at + 56)


@compiled
def copy_instruction(cb: object, at: int) -> None:
    """The bytes of that instruction, as fetched at the exit, into a record."""
    length = cb[cbw.INSN_BYTES]
    for byte in range(length):
        store8(at + byte, load8(cb[cbw.INSN_AT] + byte))
    bits = env.code_bits(cb[cbw.ENV])
    store8(at + MAX_INSN, length | (LONG_CODE if bits == 64 else WIDE_CODE if bits == 32 else 0))


@compiled
def ring_is_nearly_full(cb: object) -> bool:
    """Whether the next exit might overwrite records that Python has not read."""
    return cb[cbw.EVENT_COUNT] + HEADROOM > cb[cbw.EVENT_LIMIT]
