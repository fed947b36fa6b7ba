"""The little that the VMM must know of x86 encodings: lengths of instructions and their memory operands.

16- and 32-bit code. Opcode maps: Intel SDM vol. 2, appendix A. An encoding that does not exist gets some length: the engine
faults before it matters. VEX is not known (the engine has no AVX), so C4 and C5 are LES and LDS.
"""

from __future__ import annotations

import numpy as np

from emu.machine.native import compiled, load8, load32, load64

MODRM, IMM8, IMM16, IMMZ, MOFFS, PREFIX = 1, 2, 4, 8, 16, 32
MAX_LENGTH = 15
WIDE = 32  # the mode of 32-bit code
OPERAND_SIZE, ADDRESS_SIZE = 0x66, 0x67
ESCAPE, ESCAPE_38, ESCAPE_3A = 0x0F, 0x38, 0x3A
MOV_CONTROL_FIRST, MOV_CONTROL_LAST = 0x20, 0x27  # MOV to and from control, debug and test registers: no memory form
GROUP3_BYTE, GROUP3 = 0xF6, 0xF7
REGISTER_OPERAND = -1  # in place of a segment
DS, SS = 3, 2
ESP, EBP = 4, 5
SEGMENT_PREFIXES = (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65)  # ES CS SS DS FS GS, in the order of segment numbers


def _fill(table: np.ndarray, flags: int, *opcodes: int | range) -> None:
    for opcode in opcodes:
        table[list(opcode) if isinstance(opcode, range) else opcode] = flags


def _one_byte_map() -> np.ndarray:
    table = np.zeros(256, np.int64)
    for first in range(0, 0x40, 8):  # ADD OR ADC SBB AND SUB XOR CMP
        _fill(table, MODRM, range(first, first + 4))
        table[first + 4], table[first + 5] = IMM8, IMMZ
    _fill(table, PREFIX, 0x26, 0x2E, 0x36, 0x3E, range(0x64, 0x68), 0xF0, 0xF2, 0xF3)
    _fill(table, MODRM, 0x62, 0x63, range(0x84, 0x90), 0xC4, 0xC5, range(0xD0, 0xD4), range(0xD8, 0xE0))
    _fill(table, MODRM, GROUP3_BYTE, GROUP3, 0xFE, 0xFF)
    _fill(table, MODRM | IMM8, 0x6B, 0x80, 0x82, 0x83, 0xC0, 0xC1, 0xC6)
    _fill(table, MODRM | IMMZ, 0x69, 0x81, 0xC7)
    _fill(table, IMM8, 0x6A, range(0x70, 0x80), 0xA8, range(0xB0, 0xB8), 0xCD, 0xD4, 0xD5, range(0xE0, 0xE8), 0xEB)
    _fill(table, IMMZ, 0x68, 0xA9, range(0xB8, 0xC0), 0xE8, 0xE9)
    _fill(table, IMMZ | IMM16, 0x9A, 0xEA)  # far pointers
    _fill(table, IMM16, 0xC2, 0xCA)
    _fill(table, IMM16 | IMM8, 0xC8)
    _fill(table, MOFFS, range(0xA0, 0xA4))
    return table


def _two_byte_map() -> np.ndarray:
    table = np.full(256, MODRM, np.int64)
    _fill(table, 0, range(0x05, 0x0C), 0x0E, range(0x30, 0x38), 0x77, range(0xA0, 0xA3), range(0xA8, 0xAB))
    _fill(table, 0, range(0xC8, 0xD0))
    _fill(table, IMMZ, range(0x80, 0x90))
    _fill(table, MODRM | IMM8, 0x0F, range(0x70, 0x74), 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6)
    return table


ONE_BYTE, TWO_BYTE = _one_byte_map(), _two_byte_map()


@compiled
def modrm_length(at: int, wide: bool) -> int:
    """Bytes of ModRM, SIB and displacement at a host address, with 32-bit addressing if `wide`."""
    modrm = load8(at)
    mod, rm = modrm >> 6, modrm & 7
    if mod == 3:
        return 1
    if not wide:
        if mod == 0:
            return 3 if rm == 6 else 1
        return 1 + mod
    length = 1
    base = rm
    if rm == ESP:
        base = load8(at + 1) & 7
        length = 2
    if mod == 1:
        return length + 1
    if mod == 2 or base == EBP:
        return length + 4
    return length


@compiled
def skip_prefixes(at: int, mode: int) -> tuple[int, int, int, int]:
    """(address of the opcode, operand size 16 or 32, address size, segment or -1) of an instruction at a host address."""
    operand, address, segment = mode, mode, -1
    for count in range(MAX_LENGTH):
        byte = load8(at + count)
        if ONE_BYTE[byte] != PREFIX:
            return at + count, operand, address, segment
        if byte == OPERAND_SIZE:
            operand = 48 - mode
        elif byte == ADDRESS_SIZE:
            address = 48 - mode
        else:
            for number in range(6):
                if byte == SEGMENT_PREFIXES[number]:
                    segment = number
    return at + MAX_LENGTH - 1, operand, address, segment


@compiled
def insn_length(at: int, mode: int) -> int:
    """Length in bytes, 1 to 15, of the instruction at a host address; `mode` is 16 or 32.

    15 bytes must be readable there, the instruction's own or not.
    """
    opcode_at, operand, address, _segment = skip_prefixes(at, mode)
    opcode = load8(opcode_at)
    flags = ONE_BYTE[opcode]
    after = opcode_at + 1
    if opcode == ESCAPE:
        opcode = load8(after)
        flags = TWO_BYTE[opcode]
        after += 1
        if opcode == ESCAPE_38 or opcode == ESCAPE_3A:
            flags = MODRM | (IMM8 if opcode == ESCAPE_3A else 0)
            after += 1
        elif MOV_CONTROL_FIRST <= opcode <= MOV_CONTROL_LAST:
            flags = 0
            after += 1
    elif (opcode == GROUP3_BYTE or opcode == GROUP3) and load8(after) >> 3 & 7 < 2:
        flags |= IMM8 if opcode == GROUP3_BYTE else IMMZ
    if flags & MODRM:
        after += modrm_length(after, address == WIDE)
    if flags & IMM8:
        after += 1
    if flags & IMM16:
        after += 2
    if flags & IMMZ:
        after += operand >> 3
    if flags & MOFFS:
        after += address >> 3
    return min(after - at, MAX_LENGTH)


@compiled
def count_insns(at: int, size: int, mode: int) -> int:
    """The number of instructions in `size` bytes of straight-line code at a host address (15 more must be readable)."""
    done = 0
    count = 0
    while done < size:
        done += insn_length(at + done, mode)
        count += 1
    return count


@compiled
def load_signed(at: int, size: int) -> int:
    """A displacement of 1, 2 or 4 bytes, sign-extended."""
    if size == 1:
        return (load8(at) ^ 0x80) - 0x80
    if size == 2:
        return ((load8(at) | load8(at + 1) << 8) ^ 0x8000) - 0x8000
    return (load32(at) ^ 0x8000_0000) - 0x8000_0000


@compiled
def register(regs: int, number: int) -> int:
    """A general register of 32 bits from 64-bit words at host address `regs`."""
    return load64(regs + 8 * number) & 0xFFFF_FFFF


@compiled
def offset16(at: int, regs: int) -> tuple[int, int]:
    """(default segment, offset) of a 16-bit memory operand whose ModRM is at a host address."""
    modrm = load8(at)
    mod, rm = modrm >> 6, modrm & 7
    offset, segment = 0, DS
    if mod == 0 and rm == 6:
        return DS, load_signed(at + 1, 2) & 0xFFFF
    if rm == 0 or rm == 1 or rm == 7:
        offset = register(regs, 3)  # BX
    elif rm == 2 or rm == 3 or rm == 6:
        offset, segment = register(regs, EBP), SS
    if rm == 0 or rm == 2 or rm == 4:
        offset += register(regs, 6)  # SI
    elif rm == 1 or rm == 3 or rm == 5:
        offset += register(regs, 7)  # DI
    if mod:
        offset += load_signed(at + 1, mod)
    return segment, offset & 0xFFFF


@compiled
def offset32(at: int, regs: int) -> tuple[int, int]:
    """(default segment, offset) of a 32-bit memory operand whose ModRM is at a host address."""
    modrm = load8(at)
    mod, base = modrm >> 6, modrm & 7
    offset = 0
    after = at + 1
    if base == ESP:
        sib = load8(after)
        after += 1
        base = sib & 7
        if sib >> 3 & 7 != ESP:
            offset = register(regs, sib >> 3 & 7) << (sib >> 6)
    if mod == 0 and base == EBP:
        return DS, offset + load_signed(after, 4) & 0xFFFF_FFFF
    offset += register(regs, base)
    if mod:
        offset += load_signed(after, 1 if mod == 1 else 4)
    return SS if base == ESP or base == EBP else DS, offset & 0xFFFF_FFFF


@compiled
def operand_of(at: int, mode: int, regs: int) -> tuple[int, int, int, int]:
    """(segment, offset, reg field, length) of a two-byte-opcode instruction with ModRM at a host address.

    `regs` is the host address of the general registers, as 64-bit words. With a register operand the segment is -1 and the
    register's number stands in place of the offset.
    """
    opcode_at, _operand, address, prefix = skip_prefixes(at, mode)
    modrm_at = opcode_at + 2
    modrm = load8(modrm_at)
    field, length = modrm >> 3 & 7, insn_length(at, mode)
    opcode = load8(opcode_at + 1)
    if modrm >> 6 == 3 or MOV_CONTROL_FIRST <= opcode <= MOV_CONTROL_LAST:
        return REGISTER_OPERAND, modrm & 7, field, length
    segment, offset = offset32(modrm_at, regs) if address == WIDE else offset16(modrm_at, regs)
    return segment if prefix < 0 else prefix, offset, field, length
