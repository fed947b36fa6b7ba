"""Stores to guest page tables that the VMM carries out itself: the few forms in which kernels change an entry.

MOV, AND and OR with a register or an immediate, to a whole entry or a part of one. Everything else is stepped (`emu.vm.step`),
which costs a second exit and a flush of the engine's TLB; the guest cannot tell the difference.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine import decode, env
from emu.machine import paging as pg
from emu.machine.native import compiled, load8, load32, load64, store8, store32, store64
from emu.vm import access, pmap, registers, sync, walk
from emu.vm.gates import read_flags, set_flags

MOV, OR, AND = 0, 1, 4  # operations, by the reg field of opcodes 80, 81 and 83
NOT_HANDLED = -1
MOV_BYTE, MOV_FULL, MOV_BYTE_IMMEDIATE, MOV_FULL_IMMEDIATE = 0x88, 0x89, 0xC6, 0xC7
OR_BYTE, OR_FULL, AND_BYTE, AND_FULL = 0x08, 0x09, 0x20, 0x21
GROUP_BYTE, GROUP_FULL, GROUP_SIGNED = 0x80, 0x81, 0x83
ZF, SF, PF = 1 << 6, 1 << 7, 1 << 2
FIRST_HIGH_BYTE, LAST_HIGH_BYTE = 4, 7  # AH CH DH BH, without REX


@compiled
def operation_of(opcode: int, field: int) -> int:
    """MOV, OR or AND, NOT_HANDLED for any other instruction."""
    if opcode == MOV_BYTE or opcode == MOV_FULL:
        return MOV
    if opcode == MOV_BYTE_IMMEDIATE or opcode == MOV_FULL_IMMEDIATE:
        return MOV if field == 0 else NOT_HANDLED
    if opcode == OR_BYTE or opcode == OR_FULL:
        return OR
    if opcode == AND_BYTE or opcode == AND_FULL:
        return AND
    if (opcode == GROUP_BYTE or opcode == GROUP_FULL or opcode == GROUP_SIGNED) and (field == OR or field == AND):
        return field
    return NOT_HANDLED


@compiled
def has_register(opcode: int) -> bool:
    """Whether the second operand is a register, and not an immediate."""
    return opcode < GROUP_BYTE or opcode == MOV_BYTE or opcode == MOV_FULL


@compiled
def is_byte(opcode: int) -> bool:
    """Whether the operands are bytes."""
    return opcode & 1 == 0


@compiled
def operand_bytes(opcode: int, mode: int, prefixes: int) -> int:
    """Size of the operands."""
    if is_byte(opcode):
        return 1
    if prefixes & decode.REX_W:
        return 8
    return 4 if decode.is_wide(mode, prefixes, decode.OPERAND_SIZE) else 2


@compiled
def register_operand(cb: object, field: int, size: int, prefixes: int) -> int:
    """The value of the register that a reg field names."""
    number = field | (8 if prefixes & decode.REX_R else 0)
    shift = 0
    if size == 1 and not prefixes & decode.REX and FIRST_HIGH_BYTE <= number <= LAST_HIGH_BYTE:
        number, shift = number - FIRST_HIGH_BYTE, 8
    return load64(cb[cbw.ENV] + env.REGS + 8 * number) >> shift


@compiled
def immediate_operand(opcode: int, end: int, size: int) -> int:
    """The immediate that an instruction ends with, sign-extended."""
    width = 1 if opcode == GROUP_SIGNED or is_byte(opcode) else 4 if size == 8 else size
    return decode.displacement(end - width, width)


@compiled
def result_flags(flags: int, value: int, size: int) -> int:
    """The flags after AND or OR: CF, OF and AF clear, the others by the result (SDM vol. 2)."""
    kept = flags & ~pg.EFLAGS_ARITHMETIC
    parity = value & 0xFF
    parity ^= parity >> 4
    parity ^= parity >> 2
    parity ^= parity >> 1
    if value & operand_mask(size) == 0:
        kept |= ZF
    if value >> 8 * size - 1 & 1:
        kept |= SF
    return kept if parity & 1 else kept | PF


@compiled
def operand_mask(size: int) -> int:
    """The bits of an operand."""
    return -1 if size == 8 else (1 << 8 * size) - 1


@compiled
def store(cb: object, va: int, slot: int) -> bool:
    """Carry out the instruction at RIP, which stores to `va` in a traced guest table; false if it is not one of those known here."""
    regs = cb[cbw.ENV]
    at = cb[cbw.INSN_AT]
    available = access.fetch(cb, env.linear_ip(regs), at, decode.MAX_LENGTH)
    mode = env.code_bits(regs)
    length = decode.insn_length(at, available, mode)
    if length <= 0:
        return False
    skipped, prefixes = decode.all_prefixes(at, length, mode)
    opcode, modrm = load8(at + skipped), load8(at + skipped + 1)
    field = modrm >> 3 & 7
    operation = operation_of(opcode, field)
    if operation == NOT_HANDLED or skipped + 2 > length or modrm >> 6 == 3 or prefixes & decode.LOCK:
        return False
    size = operand_bytes(opcode, mode, prefixes)
    segment, offset = decode.memory_operand(at + skipped + 1, mode, regs + env.REGS, prefixes, load64(regs + env.EIP) + length)
    width = walk.entry_bytes(cb)
    starts_there = env.segment_base(regs, segment) + offset & env.linear_mask(regs) == va
    if not starts_there or va % width + size > width:
        return False
    value = register_operand(cb, field, size, prefixes) if has_register(opcode) else immediate_operand(opcode, at + length, size)
    change(cb, va, slot, size, operation, value)
    registers.retire(cb, length)
    return True


@compiled
def change(cb: object, va: int, slot: int, size: int, operation: int, value: int) -> None:
    """Store to the table and follow the change of its entry."""
    width = walk.entry_bytes(cb)
    page = pmap.frame_address(cb, pmap.entry(cb, slot) & pmap.MPN_MASK)
    place = va & 0xFFF
    entry_at = page + (place & -width)
    old = load32(entry_at) if width == 4 else load64(entry_at)
    if operation != MOV:
        before = old >> 8 * (place % width)
        value = before & value if operation == AND else before | value
        set_flags(cb, result_flags(read_flags(cb), value, size))
    if size == 8:
        store64(page + place, value)
    elif size == 4:
        store32(page + place, value)
    else:
        for byte in range(size):
            store8(page + place + byte, value >> 8 * byte & 0xFF)
    new = load32(entry_at) if width == 4 else load64(entry_at)
    if new != old:
        sync.entry_changed(cb, slot, place // width, old, new, va & -width)
