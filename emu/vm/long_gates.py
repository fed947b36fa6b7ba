"""Entering a handler in long mode: 16-byte gates, interrupt stacks, and a frame that always has SS and RSP.

AMD64 APM vol. 2, section 8.9; Intel SDM vol. 3, section 6.14. The frame is aligned to 16 bytes and has items of eight; the
handler is 64-bit code, whatever was interrupted. SS becomes null where the privilege level changes, and stays where only
the stack does (an interrupt stack).
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.machine.native import compiled, load32, load64, store64
from emu.vm import access, walk
from emu.vm.gates import (
    EXCEPTION,
    EXTERNAL,
    GATE_INT32,
    GATE_TRAP32,
    GP,
    HAS_ERROR_CODE,
    IN_IDT,
    NONE,
    NP,
    SOFTWARE,
    SS,
    TRAPS,
    TS,
    descriptor_base,
    descriptor_limit,
    frame_item,
    met,
    read_code_segment,
    read_flags,
    read_pair,
    stack_kind,
)

GATE_BYTES = 16
ITEM_BYTES = 8
FIRST_STACK, FIRST_INTERRUPT_STACK = 4, 0x24  # offsets of RSP0 and IST1 in the task state segment
STACK_ALIGN = ~0xF


@compiled
def read_long_gate(cb: object, vector: int, source: int) -> tuple[int, int, int, int, int]:
    """(fault vector, error code, low, high, offset) of an IDT gate, its type, privilege and presence checked."""
    regs = cb[cbw.ENV]
    code = vector * 8 | IN_IDT | (0 if source == SOFTWARE else EXTERNAL)
    if vector * GATE_BYTES + GATE_BYTES - 1 > load32(regs + env.IDTR + env.LIMIT):
        return GP, code, 0, 0, 0
    at = load64(regs + env.IDTR + env.BASE) + vector * GATE_BYTES
    fault, low, high = read_pair(cb, at)
    upper = 0
    if fault == access.OK:
        fault, upper = access.linear_load(cb, at + 8, 4, walk.IMPLICIT)
    if fault != access.OK:
        bad, error = met(fault, GP, code & EXTERNAL)
        return bad, error, 0, 0, 0
    kind = high >> 8 & 0x1F
    if kind != GATE_INT32 and kind != GATE_TRAP32:
        return GP, code, 0, 0, 0
    if source == SOFTWARE and high >> env.FLAG_DPL_SHIFT & 3 < env.cpl(regs):
        return GP, code, 0, 0, 0
    if not high & env.FLAG_PRESENT:
        return NP, code, 0, 0, 0
    return NONE, 0, low, high, low & 0xFFFF | high & 0xFFFF_0000 | upper << 32


@compiled
def read_stack_pointer(cb: object, offset: int, external: int) -> tuple[int, int, int]:
    """(fault vector, error code, RSP) from an offset in the task state segment."""
    task = cb[cbw.ENV] + env.TR
    if offset + 7 > load32(task + env.LIMIT):
        return TS, load32(task) & 0xFFFC | external, 0
    fault, pointer = access.linear_load(cb, load64(task + env.BASE) + offset, 8, walk.IMPLICIT)
    if fault != access.OK:
        bad, error = met(fault, GP, external)
        return bad, error, 0
    return (NONE, 0, pointer) if walk.is_canonical(pointer) else (SS, external, 0)


@compiled
def through_long_gate(cb: object, vector: int, source: int, error: int, return_ip: int) -> tuple[int, int]:
    """(vector, error code) of the fault met, or (NONE, 0): delivery in long mode."""
    regs = cb[cbw.ENV]
    external = 0 if source == SOFTWARE else EXTERNAL
    bad, code, gate_low, gate_high, target = read_long_gate(cb, vector, source)
    if bad != NONE:
        return bad, code
    selector = gate_low >> 16 & 0xFFFF
    bad, code, low, high = read_code_segment(cb, selector, external)
    if bad != NONE:
        return bad, code
    if not high & env.FLAG_LONG or high & env.FLAG_BIG:
        return GP, selector & 0xFFFC | external
    if not walk.is_canonical(target):
        return GP, external
    current = env.cpl(regs)
    privilege = current if high & env.FLAG_CONFORMING else high >> env.FLAG_DPL_SHIFT & 3
    interrupt_stack = gate_high & 7
    rsp = load64(regs + env.RSP) & env.instruction_mask(regs)
    if interrupt_stack or privilege < current:
        offset = FIRST_INTERRUPT_STACK + 8 * (interrupt_stack - 1) if interrupt_stack else FIRST_STACK + 8 * privilege
        bad, code, rsp = read_stack_pointer(cb, offset, external)
        if bad != NONE:
            return bad, code
    flags = read_flags(cb)
    if source == EXCEPTION and not TRAPS >> vector & 1:
        flags |= pg.EFLAGS_RF
    first = 0 if source == EXCEPTION and HAS_ERROR_CODE >> vector & 1 else 1
    bad, code, rsp = push_long_frame(cb, rsp, first, (flags, return_ip, error), privilege == 3, external)
    if bad != NONE:
        return bad, code
    store64(regs + env.RSP, rsp)
    if privilege < current:
        env.set_segment(regs, env.SS, privilege, 0, 0, privilege << env.FLAG_DPL_SHIFT)
    kept = high & env.FLAGS_KEPT | env.FLAG_ACCESSED
    env.set_segment(regs, env.CS, selector & 0xFFFC | privilege, descriptor_base(low, high), descriptor_limit(low, high), kept)
    store64(regs + env.EIP, target)
    cleared = pg.EFLAGS_TF | pg.EFLAGS_VM | pg.EFLAGS_RF | pg.EFLAGS_NT
    if gate_high >> 8 & 0x1F == GATE_INT32:
        cleared |= pg.EFLAGS_IF
    store64(regs + env.EFLAGS, load64(regs + env.EFLAGS) & ~cleared)
    env.refresh_hidden_flags(regs, privilege)
    return NONE, 0


@compiled
def push_long_frame(
    cb: object, rsp: int, first: int, values: tuple[int, int, int], user: bool, external: int
) -> tuple[int, int, int]:
    """(fault vector, error code, new RSP): push SS, RSP, RFLAGS, CS, RIP and, if `first` is 0, the error code."""
    flags, return_ip, error = values
    rsp &= STACK_ALIGN
    kind = stack_kind(cb, user)
    for item in range(5, first - 1, -1):
        rsp -= ITEM_BYTES
        fault = access.linear_store(cb, rsp, ITEM_BYTES, frame_item(cb, item, return_ip, flags, error), kind)
        if fault != access.OK:
            bad, code = met(fault, SS, external)
            return bad, code, 0
    return NONE, 0, rsp
