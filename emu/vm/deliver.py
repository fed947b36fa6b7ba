"""Events into the guest: exceptions, INT n and hardware interrupts, by the rules of the manual.

How a handler is entered is in `emu.vm.gates` and `emu.vm.long_gates`. A fault met on the way becomes the next event, a double fault
or a triple fault (SDM vol. 3, table 6-5).

Task gates (a hardware task switch) are answered with UNSUPPORTED: the VM stops and says so.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.machine.native import compiled, load64, store64
from emu.vm.gates import (
    CONTRIBUTORY,
    DB,
    DF,
    EXCEPTION,
    GP,
    HARDWARE,
    HAS_ERROR_CODE,
    NMI,
    NONE,
    PF,
    SOFTWARE,
    TASK_SWITCH,
    UD,
    through_gate,
    through_vector_table,
)
from emu.vm.long_gates import through_long_gate
from emu.vm.record import emit

__all__ = ["DB", "EXCEPTION", "GP", "HARDWARE", "HAS_ERROR_CODE", "NMI", "PF", "SOFTWARE", "UD", "deliver", "make_due"]

DELIVERED, SHUTDOWN, UNSUPPORTED = 0, 1, 2  # what became of an event
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
def deliver(cb: object, vector: int, source: int, error: int, address: int) -> int:
    """Deliver an event for the instruction at the guest's RIP; DELIVERED, SHUTDOWN, UNSUPPORTED.

    `address` is what CR2 gets for a page fault. For INT n the handler returns behind it, INSN_LENGTH bytes on; if its delivery
    faults, that handler returns to the INT n itself, which has not retired (SDM vol. 3, section 6.5).
    """
    regs = cb[cbw.ENV]
    cb[cbw.MODIFIED] = 1
    return_ip = load64(regs + env.EIP)
    if source == SOFTWARE:
        return_ip = return_ip + cb[cbw.INSN_LENGTH] & env.instruction_mask(regs)
    while True:
        if vector == PF and source == EXCEPTION:
            store64(regs + env.CR2, address)
            emit(cb, _TRUE_FAULT, error, address, -1, -1, 0, 0)
        record_event(cb, vector, source, error)
        if cb[cbw.GUEST_EFER] & pg.EFER_LMA:
            bad, code = through_long_gate(cb, vector, source, error, return_ip)
        elif cb[cbw.GUEST_CR0] & pg.CR0_PE:
            bad, code = through_gate(cb, vector, source, error, return_ip)
        else:
            bad, code = through_vector_table(cb, vector, return_ip)
        if bad == NONE:
            return DELIVERED
        if bad == TASK_SWITCH:
            return UNSUPPORTED
        address = cb[cbw.EXIT_INFO]
        if bad == PF:  # also where it becomes a double fault: the processor notes the address first
            store64(regs + env.CR2, address)
        if source == SOFTWARE:
            return_ip = load64(regs + env.EIP)
            cb[cbw.INSNS] -= 1
        vector, error = next_event(vector, source, bad, code)
        if vector < 0:
            return SHUTDOWN
        source = EXCEPTION
