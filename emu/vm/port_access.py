"""Port instructions and system calls, which reach the VMM through hooks of the engine in the middle of a block.

No hook can end the block that it is called from. Where the instruction must fault, or ends the run, the block is *poisoned*: nothing
translates any more, the next access or block comes back as an exit, and `after_poison` takes the guest to the instruction again.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.machine.decode import insn_length
from emu.machine.native import call2, call3, compiled, load32, load64, store64
from emu.vm import access, clock, code, context, deliver, gates, reasons, registers, syscall, walk
from emu.vm.record import emit

_PORT_READ, _PORT_WRITE = int(Kind.PORT_READ), int(Kind.PORT_WRITE)


@compiled
def port_is_denied(cb: object, port: int, size: int) -> int:
    """0 if the guest may use the port now; else 1 + the vector of the fault, with PENDING_ERROR set."""
    regs = cb[cbw.ENV]
    flags = load64(regs + env.EFLAGS)
    cb[cbw.PENDING_ERROR] = 0
    if not cb[cbw.GUEST_CR0] & pg.CR0_PE:
        return 0
    if not flags & pg.EFLAGS_VM and env.cpl(regs) <= (flags & pg.EFLAGS_IOPL) >> 12:
        return 0
    task = regs + env.TR
    limit = load32(task + env.LIMIT)
    if not load32(task + env.FLAGS) >> 8 & 8 or limit < 0x67:
        return 1 + deliver.GP
    base = load64(task + env.BASE)
    fault, bitmap = access.linear_load(cb, base + 0x66, 2, walk.IMPLICIT)
    if fault == access.OK:
        if bitmap + (port >> 3) + 1 > limit:
            return 1 + deliver.GP
        fault, bits = access.linear_load(cb, base + bitmap + (port >> 3), 2, walk.IMPLICIT)
        if fault == access.OK:
            return 1 + deliver.GP if bits >> (port & 7) & (1 << size) - 1 else 0
    vector, cb[cbw.PENDING_ERROR] = gates.met(fault, deliver.GP, 0)
    return 1 + vector


@compiled
def poison(cb: object, fault: int) -> None:
    """End the block under way at a port instruction, which no hook of the engine can do: nothing translates any more.

    The next access or block then comes to `after_poison`, with the fault (vector + 1) that the instruction gives, 0 for none.
    """
    cb[cbw.PENDING_FAULT] = fault
    cb[cbw.IO_POISONED] = 1
    cb[cbw.IO_TIME] = cb[cbw.IO_NOW]
    context.save_all(cb, cb[cbw.IO_CONTEXT])
    if cb[cbw.SHADOWING]:
        store64(cb[cbw.SCRATCH], cb[cbw.EMPTY_ROOT])
        call3(cb[cbw.FN_REG_WRITE], cb[cbw.ENGINE], registers.REG_CR3, cb[cbw.SCRATCH])
    else:
        at = cb[cbw.MEMORY] + cb[cbw.NESTED_ROOT]
        cb[cbw.POISONED_ENTRY] = load64(at)
        store64(at, 0)
        code.flush_engine_tlb(cb)
    cb[cbw.WAKE] = 0


@compiled
def begin_port(cb: object, port: int, size: int) -> bool:
    """Start of a port access: exact time, instruction, permission; false if it must have no effect."""
    if cb[cbw.IO_POISONED]:
        return False
    context.save(cb)
    cb[cbw.IO_NOW] = clock.now_in_block(cb)
    cb[cbw.EVENT_RIP] = load64(cb[cbw.ENV] + env.EIP)
    if cb[cbw.EVENT_INSNS]:
        access.fetch_instruction(cb)
    denied = port_is_denied(cb, port, size)
    if denied:
        poison(cb, denied)
        cb[cbw.IO_NOW] = -1
        return False
    return True


@compiled
def serve_port_read(cb: object, port: int, size: int) -> int:
    """IN: ask the board."""
    if not begin_port(cb, port, size):
        return -1
    value = call2(cb[cbw.PORT_READ_FN], port, size) & (1 << 8 * size) - 1
    if cb[cbw.MODIFIED]:  # the balloon answers in other registers too
        context.put_back(cb)
    emit(cb, _PORT_READ, size, port, -1, -1, 0, value)
    if cb[cbw.STOPPED]:
        poison(cb, 0)
    cb[cbw.IO_NOW] = -1
    return value


@compiled
def serve_port_write(cb: object, port: int, size: int, value: int) -> None:
    """OUT: tell the board."""
    if not begin_port(cb, port, size):
        return
    emit(cb, _PORT_WRITE, size, port, -1, -1, 0, value)
    call3(cb[cbw.PORT_WRITE_FN], port, size, value)
    if cb[cbw.STOPPED]:
        poison(cb, 0)
    cb[cbw.IO_NOW] = -1


@compiled
def serve_system_call(cb: object, is_sysenter: bool) -> None:
    """SYSCALL and SYSENTER, which the engine leaves to its hooks: the instruction's effect, or its fault."""
    if cb[cbw.IO_POISONED]:
        return
    context.save(cb)
    cb[cbw.IO_NOW] = clock.now_in_block(cb)
    cb[cbw.EVENT_RIP] = load64(cb[cbw.ENV] + env.EIP)
    if cb[cbw.EVENT_INSNS]:
        access.fetch_instruction(cb)
    fault = syscall.fault_of_sysenter(cb) if is_sysenter else syscall.fault_of_syscall(cb)
    if fault:
        cb[cbw.PENDING_ERROR] = 0
        poison(cb, fault)
    else:
        length = instruction_length(cb)
        if is_sysenter:
            syscall.enter_by_sysenter(cb, length)
        else:
            syscall.enter_by_syscall(cb, length)
        context.put_back(cb)
    cb[cbw.IO_NOW] = -1


@compiled
def instruction_length(cb: object) -> int:
    """The length of the instruction at RIP."""
    if not cb[cbw.EVENT_INSNS]:
        access.fetch_instruction(cb)
    return insn_length(cb[cbw.INSN_AT], cb[cbw.INSN_BYTES], env.code_bits(cb[cbw.ENV]))


@compiled
def return_to_port_instruction(cb: object) -> None:
    """Take the registers back to what they were at the last port instruction, and the poison away."""
    cb[cbw.IO_POISONED] = 0
    cb[cbw.BLOCK] = 0
    cb[cbw.INSNS] = cb[cbw.IO_TIME]
    context.restore_all(cb, cb[cbw.IO_CONTEXT])
    context.save(cb)
    if not cb[cbw.SHADOWING]:
        store64(cb[cbw.MEMORY] + cb[cbw.NESTED_ROOT], cb[cbw.POISONED_ENTRY])
    cb[cbw.NEEDS_TLB_FLUSH] = 1
    access.fetch_instruction(cb)


@compiled
def end_at_port_instruction(cb: object) -> None:
    """A port write ended the run (or reset the machine): nothing behind it has happened."""
    return_to_port_instruction(cb)
    registers.retire(cb, insn_length(cb[cbw.INSN_AT], cb[cbw.INSN_BYTES], env.code_bits(cb[cbw.ENV])))
    clock.stop(cb, reasons.TIME)


@compiled
def undo_port_instruction(cb: object) -> None:
    """A port instruction of the block under way must fault: its registers come back, and the fault is delivered."""
    vector, error = cb[cbw.PENDING_FAULT] - 1, cb[cbw.PENDING_ERROR]
    cb[cbw.PENDING_FAULT] = 0
    return_to_port_instruction(cb)
    deliver.make_due(cb, vector, deliver.EXCEPTION, error, cb[cbw.EXIT_INFO])


@compiled
def after_poison(cb: object) -> None:
    """The block of a poisoned port instruction has ended: fault, or end the run."""
    if cb[cbw.PENDING_FAULT]:
        undo_port_instruction(cb)
    else:
        end_at_port_instruction(cb)
