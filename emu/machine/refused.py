"""Instructions that the engine carries out though the guest's processor has none such: each must be an invalid opcode.

    LOCK before what cannot be locked: only ADD OR ADC SBB AND SUB XOR INC DEC NOT NEG, BTS BTR BTC, XCHG, CMPXCHG,
    XADD, CMPXCHG8B and CMPXCHG16B with a destination in memory can (Intel SDM vol. 2, LOCK; AMD64 APM vol. 3, 1.2.5)
    VEX (C4 and C5, in 64-bit code or with a register where LES and LDS have memory): CR4.OSXSAVE cannot be set
    XOP (8F with a reg field other than 0, where POP has none)

The engine refuses what CPUID hides by itself (`emu.machine.features`), and EVEX.
"""

from __future__ import annotations

import numpy as np

from emu.machine import decode
from emu.machine.native import compiled, load8

NONE = -1  # in place of an offset
POP = 0x8F
REG_FIELD = 0x38  # of ModRM
_ANY = 0xFF  # reg fields
_ARITHMETIC = [8 * operation + form for operation in range(7) for form in (0, 1)]  # ADD OR ADC SBB AND SUB XOR: all but CMP


def _lockable() -> np.ndarray:
    """By opcode, from 100h on those behind 0F: a bit for each reg field with which it can be locked."""
    table = np.zeros(0x200, np.int64)
    table[_ARITHMETIC] = _ANY
    table[[0x80, 0x81, 0x82, 0x83]] = 0x7F  # the same with an immediate
    table[[0x86, 0x87]] = _ANY  # XCHG
    table[[0xFE, 0xFF]] = 0x03  # INC DEC
    table[[0xF6, 0xF7]] = 0x0C  # NOT NEG
    table[[0x1AB, 0x1B3, 0x1BB, 0x1B0, 0x1B1, 0x1C0, 0x1C1]] = _ANY  # BTS BTR BTC CMPXCHG XADD
    table[0x1BA] = 0xE0  # BTS BTR BTC with an immediate
    table[0x1C7] = 0x02  # CMPXCHG8B
    return table


def _suspects() -> np.ndarray:
    """1 for each byte that an instruction which is refused can begin with."""
    table = (decode.PREFIXES != 0).astype(np.int64)
    table[[*range(0x40, 0x50), decode.VEX2, decode.VEX3, POP]] = 1
    return table


LOCKABLE, SUSPECTS = _lockable(), _suspects()


@compiled
def can_be_locked(code: int, at: int, limit: int) -> bool:
    """Whether LOCK may stand before the instruction whose opcode is at an offset."""
    opcode = load8(code + at)
    if opcode == decode.ESCAPE_0F:
        at += 1
        opcode = 0x100 | decode.byte_at(code, at, limit)
    modrm = decode.byte_at(code, at + 1, limit)
    return modrm >> 6 != 3 and LOCKABLE[opcode] >> (modrm >> 3 & 7) & 1 != 0


@compiled
def is_refused(code: int, available: int, mode: int) -> bool:
    """Whether the instruction at host address `code` is one of those above; `available` bytes may be read."""
    limit = min(available, decode.MAX_LENGTH)
    at, prefixes = decode.all_prefixes(code, limit, mode)
    if at >= limit:
        return False
    if prefixes & decode.LOCK:
        return not can_be_locked(code, at, limit)
    opcode, second = load8(code + at), decode.byte_at(code, at + 1, limit)
    if opcode == decode.VEX2 or opcode == decode.VEX3:
        return mode == decode.LONG or second >> 6 == 3
    return opcode == POP and second & REG_FIELD != 0


@compiled
def scan(code: int, size: int, mode: int) -> tuple[int, int]:
    """(number of instructions, NONE) of a block as `decode.count_insns` has it, or (number, offset of the first that is refused)."""
    done = 0
    count = 0
    while done < size:
        if SUSPECTS[load8(code + done)] and is_refused(code + done, size - done, mode):
            return count, done
        count += 1
        length = decode.insn_length(code + done, size - done, mode)
        if length <= 0:
            return count, NONE
        done += length
    return count, NONE
