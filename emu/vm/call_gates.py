"""Far CALL and JMP through call gates outside long mode (Intel SDM vol. 3, section 5.8; vol. 2, CALL and JMP).

The engine cannot be let near them there, see `emu.vm.registers.set_engine_efer`. Nothing of the guest's registers changes before the
whole frame is on its stack. The answer is NONE or vector | error code << CODE_SHIFT, as for a task switch.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.machine.native import compiled, load32, load64, store64
from emu.vm import access, registers
from emu.vm.gates import (
    CODE_SHIFT,
    GP,
    NONE,
    NP,
    PF,
    SELECTOR,
    SS,
    descriptor_base,
    descriptor_limit,
    has_room,
    mark_accessed,
    push,
    read_code_segment,
    read_inner_stack,
    read_stack_segment,
)

PARAMETERS = 0x1F  # of the second word of a gate: how many items go from the caller's stack to the new one
WIDE_GATE = 8  # bit of its type


@compiled
def through_call_gate(cb: object, low: int, high: int, selector: int, is_call: bool, length: int) -> int:
    """The effect of a CALL or JMP of `length` bytes at RIP to the gate of a selector, whose privilege was checked."""
    regs = cb[cbw.ENV]
    if not high & env.FLAG_PRESENT:
        return NP | (selector & SELECTOR) << CODE_SHIFT
    target = low & 0xFFFF | (high & 0xFFFF_0000 if high >> 8 & WIDE_GATE else 0)
    code_selector, current = low >> 16 & 0xFFFF, env.cpl(regs)
    bad, code, code_low, code_high = read_code_segment(cb, code_selector, 0)
    level, conforming = code_high >> env.FLAG_DPL_SHIFT & 3, code_high & env.FLAG_CONFORMING != 0
    if (bad == NONE or bad == NP) and not is_call and not conforming and level != current:
        bad, code = GP, code_selector & SELECTOR
    if bad != NONE:
        return bad | code << CODE_SHIFT
    privilege = current if conforming else level
    if target > descriptor_limit(code_low, code_high):
        return GP
    fault = mark_accessed(cb, code_selector, code_high)
    if fault != access.OK:
        return PF | fault << CODE_SHIFT
    size = 4 if high >> 8 & WIDE_GATE else 2
    return_ip = load64(regs + env.EIP) + length & env.instruction_mask(regs)
    if is_call and privilege == current:
        bad, code = push_return(cb, size, return_ip)
    elif is_call:
        bad, code = change_stack(cb, privilege, size, high & PARAMETERS, return_ip)
    if bad != NONE:
        return bad | code << CODE_SHIFT
    registers.retire(cb, length)
    kept = code_high & env.FLAGS_KEPT | env.FLAG_ACCESSED
    base, limit = descriptor_base(code_low, code_high), descriptor_limit(code_low, code_high)
    env.set_segment(regs, env.CS, code_selector & SELECTOR | privilege, base, limit, kept)
    store64(regs + env.EIP, target)
    env.refresh_hidden_flags(regs, privilege)
    return NONE


@compiled
def push_return(cb: object, size: int, return_ip: int) -> tuple[int, int]:
    """(vector, error code) of the fault met, or (NONE, 0): CS and IP go on the stack in use."""
    regs = cb[cbw.ENV]
    stack = regs + env.SS
    base, flags, esp = load64(stack + env.BASE), load32(stack + env.FLAGS), load64(regs + env.RSP)
    mask = 0xFFFF_FFFF if flags & env.FLAG_BIG else 0xFFFF
    if not has_room(flags, load32(stack + env.LIMIT), esp & mask, 2 * size):
        return SS, 0
    user = env.cpl(regs) == 3
    fault = push(cb, base, esp - size, mask, size, load32(regs + env.CS) & 0xFFFF, user)
    if fault == access.OK:
        fault = push(cb, base, esp - 2 * size, mask, size, return_ip, user)
    if fault != access.OK:
        return PF, fault
    store64(regs + env.RSP, esp & ~mask | esp - 2 * size & mask)
    return NONE, 0


@compiled
def change_stack(cb: object, privilege: int, size: int, parameters: int, return_ip: int) -> tuple[int, int]:
    """The same on the stack of an inner level: SS, ESP, the caller's parameters, CS and IP; SS:ESP become that stack."""
    regs = cb[cbw.ENV]
    bad, code, selector, esp = read_inner_stack(cb, privilege, 0)
    if bad != NONE:
        return bad, code
    bad, code, low, high = read_stack_segment(cb, selector, privilege, 0)
    if bad != NONE:
        return bad, code
    base, limit = descriptor_base(low, high), descriptor_limit(low, high)
    mask = 0xFFFF_FFFF if high & env.FLAG_BIG else 0xFFFF
    items = 4 + parameters
    if not has_room(high, limit, esp & mask, size * items):
        return SS, selector & SELECTOR
    fault = mark_accessed(cb, selector, high)
    for number in range(items):
        if fault == access.OK:
            fault, value = item_of_frame(cb, number, size, parameters, return_ip)
        if fault == access.OK:
            fault = push(cb, base, esp - size * (number + 1), mask, size, value, False)
    if fault != access.OK:
        return PF, fault
    env.set_segment(regs, env.SS, selector & SELECTOR | privilege, base, limit, high & env.FLAGS_KEPT | env.FLAG_ACCESSED)
    store64(regs + env.RSP, esp & ~mask | esp - size * items & mask)
    return NONE, 0


@compiled
def item_of_frame(cb: object, number: int, size: int, parameters: int, return_ip: int) -> tuple[int, int]:
    """(fault, value) of an item, in the order in which they are pushed: the outer SS and ESP, parameters, CS and IP."""
    regs = cb[cbw.ENV]
    stack = regs + env.SS
    if number == 0:
        return access.OK, load32(stack) & 0xFFFF
    if number == 1:
        return access.OK, load64(regs + env.RSP)
    if number == 2 + parameters:
        return access.OK, load32(regs + env.CS) & 0xFFFF
    if number == 3 + parameters:
        return access.OK, return_ip
    mask = 0xFFFF_FFFF if load32(stack + env.FLAGS) & env.FLAG_BIG else 0xFFFF
    offset = load64(regs + env.RSP) + size * (parameters + 1 - number) & mask
    kind = pg.FAULT_USER if env.cpl(regs) == 3 else 0
    return access.linear_load(cb, load64(stack + env.BASE) + offset, size, kind)
