"""Events into the guest: exceptions, INT n and hardware interrupts, by the rules of the manual.

How a handler is entered is in `emu.vm.gates` and `emu.vm.long_gates`. A fault met on the way becomes the next event, a double fault
or a triple fault (SDM vol. 3, table 6-5). What a task gate leads to is above this module (`emu.vm.task_switch`) and called by its address.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.machine.native import call4, compiled, load32, load64, store64
from emu.vm import access, reasons
from emu.vm.gates import (
    CODE_SHIFT,
    CONTRIBUTORY,
    DB,
    DF,
    EXCEPTION,
    GATE_TASK,
    GP,
    HARDWARE,
    HAS_ERROR_CODE,
    IN_NEW_TASK,
    NMI,
    NONE,
    PF,
    SOFTWARE,
    SOURCE_SHIFT,
    SS,
    STARVED,
    TASK_SWITCH,
    UD,
    VECTOR_SHIFT,
    read_pair,
    through_gate,
    through_vector_table,
)
from emu.vm.long_gates import through_long_gate
from emu.vm.record import emit, ring_is_nearly_full

__all__ = ["DB", "EXCEPTION", "GP", "HARDWARE", "HAS_ERROR_CODE", "NMI", "PF", "SOFTWARE", "SS", "UD", "deliver", "make_due"]

DELIVERED, SHUTDOWN, DEFERRED = 0, 1, 2  # what became of an event; DEFERRED: nothing yet, it is due again once there are frames
_EXCEPTION, _INTERRUPT, _SOFTWARE = int(Kind.EXCEPTION), int(Kind.INTERRUPT), int(Kind.SOFTWARE_INT)
_TRUE_FAULT = int(Kind.TRUE_FAULT)


@compiled
def next_event(first: int, source: int, second: int, error: int) -> tuple[int, int]:
    """(vector, error code) of what follows when delivering `first` meets `second`; vector -1: triple fault."""
    if source == EXCEPTION:
        bad_second = second == PF or CONTRIBUTORY >> second & 1
        if first == DF and bad_second:
            return -1, 0
        if first == PF and bad_second:
            return DF, 0
        if CONTRIBUTORY >> first & 1 and CONTRIBUTORY >> second & 1:
            return DF, 0
    return second, error


@compiled
def record_event(cb: object, vector: int, source: int, error: int) -> None:
    """One record for the event as delivered."""
    if source == HARDWARE:
        emit(cb, _INTERRUPT, vector, 0, -1, -1, 0, 0)
    elif source == SOFTWARE:
        emit(cb, _SOFTWARE, vector, 0, -1, -1, 0, 0)
    elif HAS_ERROR_CODE >> vector & 1:
        emit(cb, _EXCEPTION, vector | (error & 0xFFFF) << 8 | 1 << 31, 0, -1, -1, 0, error)
    else:
        emit(cb, _EXCEPTION, vector, 0, -1, -1, 0, 0)


@compiled
def make_due(cb: object, vector: int, source: int, error: int, address: int) -> None:
    """Have an event delivered once the exit under way is dealt with."""
    cb[cbw.DUE] = vector + 1
    cb[cbw.DUE_SOURCE] = source
    cb[cbw.DUE_ERROR] = error
    cb[cbw.DUE_ADDRESS] = address


@compiled
def is_short_of_room(cb: object) -> bool:
    """Whether a task switch might not find the frames that it needs, or room for its events."""
    return cb[cbw.RESERVE_COUNT] < reasons.TASK_LOW or ring_is_nearly_full(cb)


@compiled
def meets_task_gate(cb: object, vector: int) -> bool:
    """Whether an event leads to a task switch, as far as its gate can be read."""
    if not cb[cbw.GUEST_CR0] & pg.CR0_PE or cb[cbw.GUEST_EFER] & pg.EFER_LMA:
        return False
    table = cb[cbw.ENV] + env.IDTR
    if vector * 8 + 7 > load32(table + env.LIMIT):
        return False
    fault, _low, high = read_pair(cb, load64(table + env.BASE) + vector * 8)
    return fault == access.OK and high >> 8 & 0x1F == GATE_TASK


@compiled
def pass_gate(cb: object, vector: int, source: int, error: int, return_ip: int) -> tuple[int, int, bool]:
    """(vector, error code, whether it is another task's) of the fault met, or (NONE, 0, _): one attempt to deliver an event."""
    if cb[cbw.GUEST_EFER] & pg.EFER_LMA:
        bad, code = through_long_gate(cb, vector, source, error, return_ip)
        return bad, code, False
    if not cb[cbw.GUEST_CR0] & pg.CR0_PE:
        bad, code = through_vector_table(cb, vector, return_ip)
        return bad, code, False
    bad, code = through_gate(cb, vector, source, error, return_ip)
    if bad != TASK_SWITCH:
        return bad, code, False
    answer = call4(cb[cbw.TASK_GATE_FN], cb[cbw.SELF], code | vector << VECTOR_SHIFT | source << SOURCE_SHIFT, return_ip, error)
    if answer < 0:
        return answer, 0, False
    return answer & 0xFF, answer >> CODE_SHIFT & 0xFFFF, answer & IN_NEW_TASK != 0


@compiled
def deliver(cb: object, vector: int, source: int, error: int, address: int) -> int:
    """Deliver an event for the instruction at the guest's RIP; DELIVERED, SHUTDOWN, DEFERRED.

    `address` is what CR2 gets for a page fault. For INT n the handler returns behind it, INSN_LENGTH bytes on; if its delivery
    faults, that handler returns to the INT n itself, which has not retired (SDM vol. 3, section 6.5). Where the fault is that of the
    task that the gate leads to, the handler returns into that task.
    """
    regs = cb[cbw.ENV]
    cb[cbw.MODIFIED] = 1
    return_ip = load64(regs + env.EIP)
    if source == SOFTWARE:
        return_ip = return_ip + cb[cbw.INSN_LENGTH] & env.instruction_mask(regs)
    while True:
        if is_short_of_room(cb) and meets_task_gate(cb, vector):
            make_due(cb, vector, source, error, address)
            return DEFERRED
        if vector == PF and source == EXCEPTION:
            store64(regs + env.CR2, address)
            emit(cb, _TRUE_FAULT, error, address, -1, -1, 0, 0)
        record_event(cb, vector, source, error)
        bad, code, in_new_task = pass_gate(cb, vector, source, error, return_ip)
        if bad == NONE:
            return DELIVERED
        if bad == STARVED:
            make_due(cb, vector, source, error, address)
            return DEFERRED
        address = cb[cbw.EXIT_INFO]
        if bad == PF:  # also where it becomes a double fault: the processor notes the address first
            store64(regs + env.CR2, address)
        if in_new_task:
            return_ip = load64(regs + env.EIP)
        elif source == SOFTWARE:
            return_ip = load64(regs + env.EIP)
            cb[cbw.INSNS] -= 1
        vector, error = next_event(vector, source, bad, code)
        if vector < 0:
            return SHUTDOWN
        source = EXCEPTION
