"""LGDT, LIDT, LLDT and LTR, which the VMM carries out because the engine takes any base for a good one.

Intel SDM vol. 2, LGDT, LLDT and LTR; AMD64 APM vol. 3, the same. In long mode the descriptors of tasks and local tables have 16 bytes.
Privilege was checked by the engine before the exit. The answers are those of `emu.vm.registers`, or FAULT with the event made due.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine import decode, env, vmcb
from emu.machine import paging as pg
from emu.machine.native import compiled, load32, load64, store32, store64
from emu.vm import access, deliver, registers, walk
from emu.vm.gates import ACCESS_BYTE, GP, NONE, NP, SELECTOR, SS, descriptor_base, descriptor_limit, met, read_pair

BASE_24 = 0xFF_FFFF  # what LGDT and LIDT with 16-bit operands load
LDT_TYPE, TASK_16, TASK_32, BUSY_BIT = 2, 1, 9, 2
UPPER_TYPE = 0x1F00  # of the fourth word of a 16-byte descriptor: must be zero
LOCAL = 4  # bit of a selector: in the LDT


@compiled
def on_table_exit(cb: object, number: int) -> int:
    """One of the four instructions; its bytes are in INSN_AT."""
    if number == vmcb.EXIT_GDTR_WRITE:
        bad, code, length = load_table(cb, env.GDTR)
    elif number == vmcb.EXIT_IDTR_WRITE:
        bad, code, length = load_table(cb, env.IDTR)
    else:
        bad, code, length = load_selected(cb, number == vmcb.EXIT_TR_WRITE)
    if bad == NONE:
        registers.retire(cb, length)
    else:
        deliver.make_due(cb, bad, deliver.EXCEPTION, code, cb[cbw.EXIT_INFO])
    return registers.SERVED


@compiled
def operand_fault(fault: int, segment: int) -> tuple[int, int]:
    """(vector, error code) of what the walk for an operand in a segment found."""
    return met(fault, SS if segment == decode.SS else GP, 0)


@compiled
def load_table(cb: object, place: int) -> tuple[int, int, int]:
    """(fault vector, error code, length of the instruction) of LGDT or LIDT."""
    regs = cb[cbw.ENV]
    segment, offset, _field, length = registers.decode_operand(cb)
    va = env.segment_base(regs, segment) + offset & env.linear_mask(regs)
    fault, limit = access.linear_load(cb, va, 2, 0)
    base = 0
    if fault == access.OK:
        fault, base = access.linear_load(cb, va + 2, 8 if env.is_64bit(regs) else 4, 0)
    if fault != access.OK:
        bad, code = operand_fault(fault, segment)
        return bad, code, length
    mode = env.code_bits(regs)
    _at, prefixes = decode.all_prefixes(cb[cbw.INSN_AT], length, mode)
    if mode == decode.LONG:
        if not walk.is_canonical(base):
            return GP, 0, length
    elif not decode.is_wide(mode, prefixes, decode.OPERAND_SIZE):
        base &= BASE_24
    store64(regs + place + env.BASE, base)
    store32(regs + place + env.LIMIT, limit)
    return NONE, 0, length


@compiled
def load_selected(cb: object, is_task: bool) -> tuple[int, int, int]:
    """(fault vector, error code, length of the instruction) of LTR or LLDT."""
    regs = cb[cbw.ENV]
    segment, operand, _field, length = registers.decode_operand(cb)
    selector = load64(regs + env.REGS + 8 * (operand & 15)) & 0xFFFF
    if segment >= 0:
        va = env.segment_base(regs, segment) + operand & env.linear_mask(regs)
        fault, selector = access.linear_load(cb, va, 2, 0)
        if fault != access.OK:
            bad, code = operand_fault(fault, segment)
            return bad, code, length
    if selector & SELECTOR == 0:
        if is_task:
            return GP, 0, length
        env.set_segment(regs, env.LDTR, selector, 0, 0, 0)
        return NONE, 0, length
    bad, code = load_register(cb, selector, is_task)
    return bad, code, length


@compiled
def load_register(cb: object, selector: int, is_task: bool) -> tuple[int, int]:
    """(vector, error code) of the fault met, or (NONE, 0): TR or LDTR for a selector that is not null."""
    regs = cb[cbw.ENV]
    code = selector & SELECTOR
    long_mode = cb[cbw.GUEST_EFER] & pg.EFER_LMA != 0
    last = (selector | 7) + (8 if long_mode else 0)
    if selector & LOCAL or last > load32(regs + env.GDTR + env.LIMIT):
        return GP, code
    at = load64(regs + env.GDTR + env.BASE) + (selector & ~7)
    fault, low, high = read_pair(cb, at)
    upper = 0
    if fault == access.OK and long_mode:
        fault, upper = access.linear_load(cb, at + 8, 8, walk.IMPLICIT)
    if fault != access.OK:
        return met(fault, GP, 0)
    kind = high >> 8 & 0x1F
    suits = (kind == TASK_32 or (kind == TASK_16 and not long_mode)) if is_task else kind == LDT_TYPE
    base = descriptor_base(low, high) | upper << 32
    if not suits or upper >> 32 & UPPER_TYPE:
        return GP, code
    if not high & env.FLAG_PRESENT:
        return NP, code
    if long_mode and not walk.is_canonical(base):
        return GP, code
    if is_task:
        fault = access.linear_store(cb, at + ACCESS_BYTE, 1, high >> 8 & 0xFF | BUSY_BIT, walk.IMPLICIT)
        if fault != access.OK:
            return met(fault, GP, 0)
    place = env.TR if is_task else env.LDTR
    env.set_segment(regs, place, selector, base, descriptor_limit(low, high), high & env.FLAGS_KEPT)
    return NONE, 0
