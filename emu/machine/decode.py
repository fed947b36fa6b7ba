"""The little that the VMM must know of x86 encodings: lengths of instructions and their memory operands.

`mode` is the default size of addresses, in bits: 16, 32 or 64. Every length follows from one word of MAPS and the bytes that
ModRM asks for:

    prefixes, REX | opcode, or an escape and an opcode | ModRM, SIB, displacement | immediate

A REX counts only if no other prefix follows it.

An opcode that no processor has (or only one with AVX-512, which the engine lacks) has no length. One that only its
ModRM, LOCK or a missing prefix makes invalid has. 8F is POP whatever its ModRM, as the engine knows no XOP. Sources:
AMD64 APM vol. 3, chapter 1 and appendix A; Intel SDM vol. 2, chapter 2 and appendix A.
"""

from __future__ import annotations

import numpy as np

from emu.machine.native import compiled, load8, load16, load32, load64

MAX_LENGTH = 15
NARROW, WIDE, LONG = 16, 32, 64  # modes
INCOMPLETE = -1  # in place of a length: the bytes at hand are too few to tell

# A word of MAPS; 0 where there is no such opcode.
IMMEDIATE = 3  # bytes of immediate, whatever the prefixes
MODRM = 1 << 2
OPERAND = 1 << 3  # an immediate of the operand's size (after IMMEDIATE), 2 or 4 bytes
MOFFS = 1 << 4  # an address as immediate, 2 or 4 bytes
EXISTS = 1 << 5
ESCAPE = 1 << 6  # to another map, or C4 C5 62: to one if their ModRM would name a register
TEST_ONLY = 1 << 7  # the immediate is there for reg fields 0 and 1 (TEST) only
REGISTERS = 1 << 8  # ModRM names registers whatever its mod field says
SSE4A = 1 << 9  # the immediate is there with prefix 66 or F2 only
NOT_LONG = 1 << 10  # given up in 64-bit mode
QUAD = 1 << 11  # the immediate has 8 bytes with REX.W
_ALL = (IMMEDIATE, MODRM, OPERAND, MOFFS, EXISTS, ESCAPE, TEST_ONLY, REGISTERS, SSE4A, NOT_LONG, QUAD)
assert sum(_ALL) == (1 << 12) - 1

# Prefixes as bits; a segment's number plus one stands above them.
OPERAND_SIZE, ADDRESS_SIZE, REPNE, REP, LOCK = 1, 2, 4, 8, 16
SEGMENT_SHIFT, SEGMENT_MASK = 8, 7
FLAG_PREFIXES = (1 << SEGMENT_SHIFT) - 1
REX_SHIFT = 16  # REX itself, and its B X R W below
REX_B, REX_X, REX_R, REX_W, REX = (1 << REX_SHIFT + n for n in range(5))
REX_BITS = REX_B | REX_X | REX_R | REX_W | REX
REX_PREFIX = 4  # upper half of the byte
NOT_BEFORE_VEX = OPERAND_SIZE | REPNE | REP | LOCK | REX

MAP_0F, MAP_0F38, MAP_0F3A = 0x100, 0x200, 0x300  # first words in MAPS, by VEX.mmmmm too: lengths are alike in VEX
LAST_VEX_MAP = 3
ESCAPE_0F, ESCAPE_38, ESCAPE_3A, EVEX, VEX3, VEX2 = 0x0F, 0x38, 0x3A, 0x62, 0xC4, 0xC5

REGISTER_OPERAND = -1  # in place of a segment
SS, DS, FS = 2, 3, 4
EBX, ESP, EBP, ESI, EDI = 3, 4, 5, 6, 7


def _fill(table: np.ndarray, first: int, word: int, *opcodes: int | range) -> None:
    for opcode in opcodes:
        for number in opcode if isinstance(opcode, range) else (opcode,):
            table[first + number] = EXISTS | word


def _fill_1byte(table: np.ndarray) -> None:
    _fill(table, 0, 0, range(0x100))
    for group in range(0, 0x40, 8):  # ADD OR ADC SBB AND SUB XOR CMP
        _fill(table, group, MODRM, range(4))
        _fill(table, group, 1, 4)
        _fill(table, group, OPERAND, 5)
    _fill(table, 0, MODRM, 0x63, range(0x84, 0x90), range(0xD0, 0xD4), range(0xD8, 0xE0), 0xFE, 0xFF)
    _fill(table, 0, MODRM | 1, 0x6B, 0x80, 0x82, 0x83, 0xC0, 0xC1, 0xC6)
    _fill(table, 0, MODRM | OPERAND, 0x69, 0x81, 0xC7)
    _fill(table, 0, 1, 0x6A, range(0x70, 0x80), 0xA8, range(0xB0, 0xB8), 0xCD, 0xD4, 0xD5, range(0xE0, 0xE8), 0xEB)
    _fill(table, 0, OPERAND, 0x68, 0xA9, 0xE8, 0xE9)
    _fill(table, 0, OPERAND | QUAD, range(0xB8, 0xC0))
    _fill(table, 0, OPERAND | 2, 0x9A, 0xEA)  # far pointers
    _fill(table, 0, 2, 0xC2, 0xCA)
    _fill(table, 0, 3, 0xC8)  # ENTER
    _fill(table, 0, MOFFS, range(0xA0, 0xA4))
    _fill(table, 0, MODRM | TEST_ONLY | 1, 0xF6)
    _fill(table, 0, MODRM | TEST_ONLY | OPERAND, 0xF7)
    _fill(table, 0, ESCAPE, ESCAPE_0F)
    _fill(table, 0, MODRM | ESCAPE, EVEX, VEX3, VEX2)  # BOUND LES LDS
    table[[0x06, 0x07, 0x0E, 0x16, 0x17, 0x1E, 0x1F, 0x27, 0x2F, 0x37, 0x3F, 0x60, 0x61]] |= NOT_LONG
    table[[0x82, 0x9A, 0xCE, 0xD4, 0xD5, 0xD6, 0xEA]] |= NOT_LONG


def _fill_0f(table: np.ndarray) -> None:
    _fill(table, MAP_0F, MODRM, range(0x100))
    table[[MAP_0F + opcode for opcode in (0x04, 0x0A, 0x0C, *range(0x24, 0x28), 0x36, 0x39, *range(0x3B, 0x40))]] = 0
    table[[MAP_0F + opcode for opcode in (0x7A, 0x7B, 0xA6, 0xA7)]] = 0
    _fill(table, MAP_0F, 0, range(0x05, 0x0A), 0x0B, 0x0E, range(0x30, 0x36), 0x37, 0x77, range(0xA0, 0xA3))
    _fill(table, MAP_0F, 0, range(0xA8, 0xAB), range(0xC8, 0xD0))
    _fill(table, MAP_0F, MODRM | 1, 0x0F, range(0x70, 0x74), 0xA4, 0xAC, 0xBA, 0xC2, range(0xC4, 0xC7))  # 0F0F: 3DNow!
    _fill(table, MAP_0F, MODRM | REGISTERS, range(0x20, 0x24))  # MOV to and from control and debug registers
    _fill(table, MAP_0F, MODRM | SSE4A | 2, 0x78)
    _fill(table, MAP_0F, OPERAND, range(0x80, 0x90))
    _fill(table, MAP_0F, ESCAPE, ESCAPE_38, ESCAPE_3A)


def _maps() -> np.ndarray:
    table = np.zeros(0x400, np.int64)
    _fill_1byte(table)
    _fill_0f(table)
    _fill(table, MAP_0F38, MODRM, range(0x100))  # these two have one form each, for opcodes to come as well
    _fill(table, MAP_0F3A, MODRM | 1, range(0x100))
    return table


def _prefixes() -> np.ndarray:
    table = np.zeros(0x100, np.int64)
    for segment, byte in enumerate((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65)):  # ES CS SS DS FS GS
        table[byte] = segment + 1 << SEGMENT_SHIFT
    table[[0x66, 0x67, 0xF2, 0xF3, 0xF0]] = OPERAND_SIZE, ADDRESS_SIZE, REPNE, REP, LOCK
    return table


def _modrm_bytes() -> np.ndarray:
    """Bytes of ModRM, SIB and displacement by ModRM, first with 16-bit addresses, then 32; a SIB may ask for 4 more."""
    table = np.ones(0x200, np.int64)
    for modrm in range(0xC0):
        mod, rm = modrm >> 6, modrm & 7
        table[modrm] += 2 if mod == 0 and rm == ESI else mod
        table[0x100 + modrm] += (4 if rm == EBP else 0, 1, 4)[mod] + (rm == ESP)
    return table


MAPS, PREFIXES, MODRM_BYTES = _maps(), _prefixes(), _modrm_bytes()


@compiled
def byte_at(code: int, at: int, limit: int) -> int:
    """The byte at an offset from `code`; 0 at `limit` and beyond, where nothing may be read."""
    byte: int = load8(code + at) if at < limit else 0
    return byte


@compiled
def skip_prefixes(code: int, limit: int) -> tuple[int, int]:
    """(number of prefix bytes, the prefixes as bits); the last of several segment prefixes counts."""
    prefixes = 0
    for at in range(limit):
        bits = PREFIXES[load8(code + at)]
        if bits == 0:
            return at, prefixes
        if bits > FLAG_PREFIXES:
            prefixes &= FLAG_PREFIXES
        prefixes |= bits
    return limit, prefixes


@compiled
def skip_long_prefixes(code: int, limit: int) -> tuple[int, int]:
    """`skip_prefixes` for 64-bit code: REX bytes are among them, and only FS and GS change a segment."""
    prefixes = 0
    for at in range(limit):
        byte = load8(code + at)
        bits = PREFIXES[byte]
        if byte >> 4 == REX_PREFIX:
            prefixes = prefixes & ~REX_BITS | REX | (byte & 0xF) << REX_SHIFT
        elif bits == 0:
            return at, prefixes
        elif bits <= FLAG_PREFIXES:
            prefixes = prefixes & ~REX_BITS | bits
        elif bits > FS << SEGMENT_SHIFT:
            prefixes = prefixes & FLAG_PREFIXES | bits
        else:
            prefixes &= ~REX_BITS
    return limit, prefixes


@compiled
def all_prefixes(code: int, limit: int, mode: int) -> tuple[int, int]:
    """(number of prefix bytes, the prefixes as bits) in any mode."""
    return skip_long_prefixes(code, limit) if mode == LONG else skip_prefixes(code, limit)


@compiled
def is_wide(mode: int, prefixes: int, override: int) -> bool:
    """Whether operands (or addresses) have more than 16 bits, by the mode and OPERAND_SIZE (or ADDRESS_SIZE) in `prefixes`."""
    if mode == LONG:
        return override == ADDRESS_SIZE or prefixes & REX_W != 0 or prefixes & OPERAND_SIZE == 0
    return (mode == WIDE) != (prefixes & override != 0)


@compiled
def escape(code: int, at: int, limit: int, mode: int, prefixes: int) -> tuple[int, int]:
    """(offset behind the opcode, its word of MAPS) for the escape at offset `at`."""
    lead, second = load8(code + at), byte_at(code, at + 1, limit)
    if lead == ESCAPE_0F:
        if second == ESCAPE_38 or second == ESCAPE_3A:
            first = MAP_0F38 if second == ESCAPE_38 else MAP_0F3A
            return at + 3, MAPS[first + byte_at(code, at + 2, limit)]
        return at + 2, MAPS[MAP_0F + second]
    if mode == LONG:
        if lead == EVEX:
            return at + 1, 0
    elif second >> 6 != 3:
        return at + 1, MAPS[lead]
    if mode == NARROW or prefixes & NOT_BEFORE_VEX:
        return at + 2, 0
    if lead == VEX2:
        return at + 3, MAPS[MAP_0F + byte_at(code, at + 2, limit)]
    number = second & 0x1F
    if lead == VEX3 and 1 <= number <= LAST_VEX_MAP:
        return at + 4, MAPS[(number << 8) + byte_at(code, at + 3, limit)]
    return at + 2, 0


@compiled
def modrm_length(code: int, at: int, limit: int, wide: bool) -> int:
    """Bytes of ModRM, SIB and displacement from an offset on, with 32-bit addresses if `wide`."""
    modrm = byte_at(code, at, limit)
    if wide and modrm & 0xC7 == ESP and byte_at(code, at + 1, limit) & 7 == EBP:  # a SIB without base register
        return 6
    length: int = MODRM_BYTES[(0x100 if wide else 0) + modrm]
    return length


@compiled
def immediate_length(word: int, reg_field: int, mode: int, prefixes: int) -> int:
    """Bytes of immediate of an opcode with a word of MAPS."""
    if word & TEST_ONLY and reg_field > 1:
        return 0
    if word & SSE4A and not prefixes & (OPERAND_SIZE | REPNE):
        return 0
    length = word & IMMEDIATE
    if word & OPERAND:
        if word & QUAD and prefixes & REX_W:
            length += 8
        else:
            length += 4 if is_wide(mode, prefixes, OPERAND_SIZE) else 2
    if word & MOFFS:
        if mode == LONG:
            length += 4 if prefixes & ADDRESS_SIZE else 8
        else:
            length += 4 if is_wide(mode, prefixes, ADDRESS_SIZE) else 2
    return length


@compiled
def insn_length(code: int, available: int, mode: int) -> int:
    """Length in bytes, 1 to 15, of the instruction at host address `code`, of which `available` bytes may be read.

    0 if no processor has its opcode in this mode, or if it is longer than 15 bytes. INCOMPLETE (negative) if the available
    bytes, fewer than 15, do not suffice.
    """
    limit = min(available, MAX_LENGTH)
    too_long = INCOMPLETE if available < MAX_LENGTH else 0
    at, prefixes = all_prefixes(code, limit, mode)
    if at >= limit:
        return too_long
    word = MAPS[load8(code + at)]
    if word & ESCAPE:
        at, word = escape(code, at, limit, mode, prefixes)
    else:
        at += 1
    if at > limit:
        return too_long
    if word == 0 or (word & NOT_LONG and mode == LONG):
        return 0
    reg_field = 0
    if word & MODRM:
        reg_field = byte_at(code, at, limit) >> 3 & 7
        at += 1 if word & REGISTERS else modrm_length(code, at, limit, is_wide(mode, prefixes, ADDRESS_SIZE))
    at += immediate_length(word, reg_field, mode, prefixes)
    return at if at <= limit else too_long


@compiled
def count_insns(code: int, size: int, mode: int) -> int:
    """The number of instructions in the `size` bytes of a block of the engine at host address `code`.

    Nothing beyond them is read. What cannot be decoded counts as one instruction, the last: the engine ends a block
    with an instruction that it does not know, and the block's size includes only those of its bytes that it looked at.
    """
    done = 0
    count = 0
    while done < size:
        count += 1
        length = insn_length(code + done, size - done, mode)
        if length <= 0:
            return count
        done += length
    return count


@compiled
def displacement(at: int, size: int) -> int:
    """The displacement of 1, 2 or 4 bytes at a host address, sign-extended."""
    value: int = load8(at) if size == 1 else load16(at) if size == 2 else load32(at)
    sign = 1 << 8 * size - 1
    return (value ^ sign) - sign


@compiled
def register(regs: int, number: int) -> int:
    """A general register of 32 bits from 64-bit words at host address `regs`."""
    word: int = load64(regs + 8 * number)
    return word & 0xFFFF_FFFF


@compiled
def offset16(at: int, regs: int) -> tuple[int, int]:
    """(default segment, offset) of a 16-bit memory operand whose ModRM is at a host address."""
    modrm = load8(at)
    mod, rm = modrm >> 6, modrm & 7
    offset, segment = 0, DS
    if mod == 0 and rm == 6:
        return DS, displacement(at + 1, 2) & 0xFFFF
    if rm == 0 or rm == 1 or rm == 7:
        offset = register(regs, EBX)
    elif rm == 2 or rm == 3 or rm == 6:
        offset, segment = register(regs, EBP), SS
    if rm == 0 or rm == 2 or rm == 4:
        offset += register(regs, ESI)
    elif rm == 1 or rm == 3 or rm == 5:
        offset += register(regs, EDI)
    if mod:
        offset += displacement(at + 1, mod)
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
        return DS, offset + displacement(after, 4) & 0xFFFF_FFFF
    offset += register(regs, base)
    if mod:
        offset += displacement(after, 1 if mod == 1 else 4)
    return SS if base == ESP or base == EBP else DS, offset & 0xFFFF_FFFF


@compiled
def offset64(at: int, regs: int, prefixes: int, following: int) -> tuple[int, int]:
    """(default segment, offset) of a 64-bit memory operand; `following` is the offset of the next instruction."""
    modrm = load8(at)
    mod, base = modrm >> 6, modrm & 7
    offset = 0
    after = at + 1
    if mod == 0 and base == EBP:
        return DS, following + displacement(after, 4)
    if base == ESP:
        sib = load8(after)
        after += 1
        base = sib & 7
        index = sib >> 3 & 7 | (8 if prefixes & REX_X else 0)
        if index != ESP:
            offset = load64(regs + 8 * index) << (sib >> 6)
    if mod == 0 and base == EBP:
        return DS, offset + displacement(after, 4)
    offset += load64(regs + 8 * (base | (8 if prefixes & REX_B else 0)))
    if mod:
        offset += displacement(after, 1 if mod == 1 else 4)
    return SS if (base == ESP or base == EBP) and not prefixes & REX_B else DS, offset


@compiled
def memory_operand(modrm_at: int, mode: int, regs: int, prefixes: int, following: int) -> tuple[int, int]:
    """(segment, offset) of the memory operand whose ModRM is at a host address; `following` is the next instruction's offset."""
    if mode == LONG:
        segment, offset = offset64(modrm_at, regs, prefixes, following)
        if prefixes & ADDRESS_SIZE:
            offset &= 0xFFFF_FFFF
    elif is_wide(mode, prefixes, ADDRESS_SIZE):
        segment, offset = offset32(modrm_at, regs)
    else:
        segment, offset = offset16(modrm_at, regs)
    override = prefixes >> SEGMENT_SHIFT & SEGMENT_MASK
    return override - 1 if override else segment, offset


@compiled
def operand_of(code: int, mode: int, regs: int, ip: int) -> tuple[int, int, int, int]:
    """(segment, offset, reg field, length) of an instruction with a two-byte opcode and ModRM at host address `code`.

    15 bytes must be readable there; `regs` is the host address of the general registers as 64-bit words, `ip` the offset of the
    instruction in its segment. The segment is a number, 0 to 5 for ES CS SS DS FS GS, the offset one in it. For a register
    operand the segment is REGISTER_OPERAND and the register's number stands in place of the offset.
    """
    at, prefixes = all_prefixes(code, MAX_LENGTH, mode)
    modrm_at = code + at + 2
    modrm = load8(modrm_at)
    field, length = modrm >> 3 & 7, insn_length(code, MAX_LENGTH, mode)
    if prefixes & REX_R:
        field |= 8
    if modrm >> 6 == 3 or MAPS[MAP_0F + load8(modrm_at - 1)] & REGISTERS:
        return REGISTER_OPERAND, modrm & 7 | (8 if prefixes & REX_B else 0), field, length
    segment, offset = memory_operand(modrm_at, mode, regs, prefixes, ip + length)
    return segment, offset, field, length
