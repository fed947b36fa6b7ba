"""The C functions that the engine calls while a guest runs: exits, port reads and writes, system calls.

This is the top of the native code. An exit comes in, CONTEXT is filled from the engine, the exit is served here or the
engine is stopped for Python with a REASON; on the way out CONTEXT goes back if it was changed, and the TLB is flushed if
an entry became stricter.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine import env, vmcb
from emu.machine import paging as pg
from emu.machine.decode import insn_length
from emu.machine.native import (
    address_of,
    as_words,
    call2,
    cfunc,
    compiled,
    load32,
    load64,
    store32,
    store64,
    types,
)
from emu.vm import (
    access,
    clock,
    code,
    context,
    cow,
    deliver,
    far_transfer,
    fault_runs,
    faults,
    pieces,
    port_access,
    reasons,
    refusing,
    registers,
    step,
    swapping,
    table_registers,
    task_switch,
    watching,
)
from emu.vm.record import ring_is_nearly_full


@compiled
def raise_fault(cb: object, vector: int) -> None:
    """Have an exception delivered that has no error code, or the code 0."""
    deliver.make_due(cb, vector, deliver.EXCEPTION, 0, 0)


@compiled
def deliver_due(cb: object) -> None:
    """Deliver the event that is due; a triple fault stops the VM, and so does a task switch without frames, after which it is due again."""
    if not cb[cbw.DUE]:
        return
    vector = cb[cbw.DUE] - 1
    cb[cbw.DUE] = 0
    if cb[cbw.STEPPING]:
        step.finish(cb)
    result = deliver.deliver(cb, vector, cb[cbw.DUE_SOURCE], cb[cbw.DUE_ERROR], cb[cbw.DUE_ADDRESS])
    if result == deliver.SHUTDOWN:
        clock.stop(cb, reasons.SHUTDOWN)
    if result == deliver.DEFERRED:
        clock.stop(cb, reasons.REFILL)
    else:
        charge_delivery(cb)


@compiled
def charge_delivery(cb: object) -> None:
    """An event that is delivered before an instruction retired since the last one costs as much virtual time as an instruction.

    A guest whose handler faults at once would else fault for ever at one time.
    """
    in_vain = cb[cbw.INSNS] == cb[cbw.DELIVERED_AT]
    cb[cbw.IN_VAIN] = cb[cbw.IN_VAIN] + 1 if in_vain else 0
    cb[cbw.INSNS] += in_vain
    cb[cbw.DELIVERED_AT] = cb[cbw.INSNS]
    cb[cbw.SAME_FAULT] = 0


@compiled
def on_memory_exit(cb: object, number: int) -> None:
    """#PF and nested faults."""
    va = load64(cb[cbw.VMCB] + vmcb.EXIT_INFO_2)
    seen = load32(cb[cbw.ERROR_CODE]) & 0x1F
    if ring_is_nearly_full(cb) or cb[cbw.RESERVE_COUNT] < reasons.RESERVE_LOW:
        clock.stop(cb, reasons.REFILL)
        return
    if number != vmcb.EXIT_NESTED_FAULT and refusing.is_end_of_code(cb, va, seen):
        cb[cbw.EXIT_CODE] = vmcb.EXIT_HLT
        stop_for_python(cb)
        return
    if fault_runs.note_fault(cb):
        cb[cbw.EXIT_INFO] = va
        clock.stop(cb, reasons.NO_PROGRESS)
        return
    if number == vmcb.EXIT_NESTED_FAULT:
        result = faults.on_nested_fault(cb, va, seen)
    else:
        cb[cbw.PF_TAKEN] += 1
        if cb[cbw.SHADOWING]:
            result = faults.on_shadow_fault(cb, va, seen)
        else:
            cb[cbw.EXIT_INFO] = va
            cb[cbw.FAULT_CODE] = seen
            result = faults.TRUE_FAULT
    if result == faults.NO_FRAME:
        clock.stop(cb, reasons.REFILL)
    elif result == faults.DEVICE_FETCH:
        clock.stop(cb, reasons.DEVICE_FETCH)
    elif result == faults.TRUE_FAULT:
        deliver.make_due(cb, deliver.PF, deliver.EXCEPTION, cb[cbw.FAULT_CODE], cb[cbw.EXIT_INFO])
    else:
        fault_runs.begin(cb)


@compiled
def is_stale_breakpoint(cb: object) -> bool:
    """Whether a #DB is for a breakpoint on RIP that is disabled: a task switch changes DR7, and the engine keeps the breakpoint."""
    regs, debug = cb[cbw.ENV], cb[cbw.ERROR_CODE] + env.DR_FROM_ERROR_CODE
    if load64(regs + env.EFLAGS) & pg.EFLAGS_TF or load64(debug + 8 * 6) & step.DR6_SINGLE_STEP:
        return False
    control, found = load64(debug + 8 * 7), False
    for number in range(4):
        if load64(debug + 8 * number) == env.linear_ip(regs) and control >> 16 + 4 * number & 3 == 0:
            if control >> 2 * number & 3:
                return False
            found = True
    return found


@compiled
def on_exception_exit(cb: object, vector: int) -> None:
    """An intercepted exception other than #PF."""
    if vector == deliver.DB and cb[cbw.STEPPING]:
        step.clear_single_step_status(cb)
        traced = cb[cbw.STEP_TRAP]
        step.blame(cb)
        step.finish(cb)
        step.retired(cb)
        if not traced:
            fault_runs.begin(cb)
            return
    elif vector == deliver.DB and is_stale_breakpoint(cb):
        at = cb[cbw.ENV] + env.EFLAGS
        store64(at, load64(at) | pg.EFLAGS_RF)
        cb[cbw.MODIFIED] = 1
        return
    if vector == deliver.UD and refusing.is_icebp_at_rip(cb):
        registers.retire(cb, insn_length(cb[cbw.INSN_AT], cb[cbw.INSN_BYTES], env.code_bits(cb[cbw.ENV])))
        deliver.make_due(cb, deliver.DB, deliver.EXCEPTION, 0, 0)
        return
    if vector == deliver.GP and call2(cb[cbw.TASK_EXIT_FN], cb[cbw.SELF], vmcb.EXIT_EXCEPTION + vector):
        return
    error = load32(cb[cbw.ERROR_CODE]) & 0xFFFF if deliver.HAS_ERROR_CODE >> vector & 1 else 0
    deliver.make_due(cb, vector, deliver.EXCEPTION, error, 0)


@compiled
def on_register_exit(cb: object, number: int) -> None:
    """Control registers, those of descriptor tables, INVLPG, RDTSC."""
    if ring_is_nearly_full(cb) or cb[cbw.RESERVE_COUNT] < reasons.RESERVE_LOW:
        clock.stop(cb, reasons.REFILL)
        return
    if number == vmcb.EXIT_INVLPG:
        result = registers.on_invlpg(cb)
    elif vmcb.EXIT_IDTR_WRITE <= number <= vmcb.EXIT_TR_WRITE:
        result = table_registers.on_table_exit(cb, number)
    elif number == vmcb.EXIT_RDTSC:
        result = registers.on_rdtsc(cb)
    else:
        result = registers.on_control_exit(cb)
    clock.refresh_tag(cb)
    if result == registers.FAULT_GP:
        raise_fault(cb, deliver.GP)
    elif result == registers.FAULT_UD:
        raise_fault(cb, deliver.UD)
    elif result == registers.NO_FRAME:
        clock.stop(cb, reasons.REFILL)
    elif result == registers.TO_PYTHON:
        stop_for_python(cb)


@compiled
def dispatch(cb: object, number: int) -> None:
    """One exit to its handler.

    The larger ones are called through pointers: merged into this one they would be compiled over again at each level.
    """
    if cb[cbw.IO_POISONED]:
        port_access.after_poison(cb)
    elif number == vmcb.EXIT_EXCEPTION + deliver.PF or number == vmcb.EXIT_NESTED_FAULT:
        call2(cb[cbw.MEMORY_EXIT_FN], cb[cbw.SELF], number)
    elif number < vmcb.EXIT_BASE:
        store32(cb[cbw.ERROR_CODE] + env.IS_INT_FROM_ERROR_CODE, 0)
        deliver.make_due(cb, number, deliver.SOFTWARE, 0, 0)
    elif vmcb.EXIT_EXCEPTION <= number < vmcb.EXIT_EXCEPTION + 32:
        on_exception_exit(cb, number - vmcb.EXIT_EXCEPTION)
    elif number < vmcb.EXIT_DR_READ or number == vmcb.EXIT_INVLPG or vmcb.EXIT_IDTR_WRITE <= number <= vmcb.EXIT_RDTSC:
        call2(cb[cbw.REGISTER_EXIT_FN], cb[cbw.SELF], number)
    elif number == vmcb.EXIT_IRET:
        call2(cb[cbw.TASK_EXIT_FN], cb[cbw.SELF], number)
    else:
        stop_for_python(cb)


@compiled
def stop_for_python(cb: object) -> None:
    """Hand an exit to Python, with the guest's instruction and its length."""
    access.fetch_instruction(cb)
    cb[cbw.INSN_LENGTH] = insn_length(cb[cbw.INSN_AT], cb[cbw.INSN_BYTES], env.code_bits(cb[cbw.ENV]))
    clock.stop(cb, reasons.EXIT)


@compiled
def step_back_over_int(cb: object) -> None:
    """INT n: the engine is behind the instruction; put EIP on it, with its length kept, and count it as retired."""
    length = clock.length_before(cb)
    cb[cbw.INSN_LENGTH] = length
    at = cb[cbw.ENV] + env.EIP
    store64(at, load64(at) - length & env.instruction_mask(cb[cbw.ENV]))
    cb[cbw.INSNS] += 1 if length else 0
    cb[cbw.MODIFIED] = 1


@compiled
def serve_exit(cb: object, number: int) -> None:
    """One exit, from the engine and back to it."""
    cb[cbw.EXITS] += 1
    cb[cbw.EXIT_CODE] = number
    context.save(cb)
    if not cb[cbw.IO_POISONED]:
        if number < vmcb.EXIT_BASE:
            step_back_over_int(cb)
        clock.leave_block(cb)
        if fault_runs.end(cb) and number == vmcb.EXIT_EXCEPTION + deliver.DB:
            step.clear_single_step_status(cb)
            finish(cb)
            return
    cb[cbw.EVENT_RIP] = load64(cb[cbw.ENV] + env.EIP)
    needs_bytes = cb[cbw.EVENT_INSNS] or (number >= vmcb.EXIT_BASE and number < vmcb.EXIT_EXCEPTION)
    if needs_bytes or number == vmcb.EXIT_INVLPG or vmcb.EXIT_IDTR_WRITE <= number <= vmcb.EXIT_RDTSC:
        access.fetch_instruction(cb)
    dispatch(cb, number)
    if cb[cbw.DUE]:
        call2(cb[cbw.DELIVER_FN], cb[cbw.SELF], 0)
        if cb[cbw.IN_VAIN] and cb[cbw.INSNS] >= cb[cbw.WAKE] and cb[cbw.REASON] == reasons.RUNNING:
            clock.stop(cb, reasons.TIME)  # no block of the guest may come, at whose beginning it would stop
    finish(cb)


@compiled
def finish(cb: object) -> None:
    """Give the engine what the exit's handler changed."""
    if cb[cbw.SHADOWING] and cb[cbw.ROOT] >= 0 and cb[cbw.REASON] == reasons.RUNNING and not cb[cbw.IO_POISONED]:
        registers.follow_root(cb)
    if cb[cbw.MODIFIED] and cb[cbw.REASON] == reasons.RUNNING:
        context.put_back(cb)
    if cb[cbw.NEEDS_TLB_FLUSH]:
        code.flush_engine_tlb(cb)
        code.note_flushed_tlb(cb)
    clock.refresh_tag(cb)


@compiled
def inject(cb: object) -> int:
    """Deliver what Python made due while the engine is stopped; the reason why the guest cannot go on, RUNNING if it can."""
    call2(cb[cbw.DELIVER_FN], cb[cbw.SELF], 0)
    reason = cb[cbw.REASON]
    cb[cbw.REASON] = reasons.RUNNING
    return reason


def compile_for_python() -> None:
    """Compile what only Python calls, so that it is in the cache with the rest."""
    words = types.Array(types.int64, 1, "C")
    inject.compile((words,))
    refusing.compile_for_python()
    clock.takes_interrupt.compile((words,))
    code.settle.compile((words, types.int64))
    for checked in (cow.can_be_shared, swapping.page_out, watching.watch):
        checked.compile((words, types.int64))
    cow.share.compile((words, types.int64, types.int64))
    for function in (access.load_block, access.store_block):
        function.compile((words, types.int64, types.int64, types.int64))
    pieces.find_pieces.compile((words, types.int64, types.int64, types.int64, types.int64))


# ---- called through pointers in the control block ----------------------------------------------------------------


@cfunc(types.int32(types.int64, types.int64), cache=True)
def memory_exit(control: int, number: int) -> int:
    """#PF and nested faults."""
    on_memory_exit(as_words(control, cbw.WORDS), number)
    return types.int32(0)


@cfunc(types.int32(types.int64, types.int64), cache=True)
def register_exit(control: int, number: int) -> int:
    """Control registers, INVLPG, RDTSC."""
    on_register_exit(as_words(control, cbw.WORDS), number)
    return types.int32(0)


@cfunc(types.int32(types.int64, types.int64), cache=True)
def task_exit(control: int, number: int) -> int:
    """IRET while EFLAGS.NT is set, and #GP: whether it was a far transfer that has been served."""
    cb = as_words(control, cbw.WORDS)
    if number == vmcb.EXIT_IRET:
        far_transfer.on_return(cb)
        return types.int32(1)
    return types.int32(1) if far_transfer.on_protection_fault(cb) else types.int32(0)


@cfunc(types.int32(types.int64, types.int64, types.int64, types.int64), cache=True)
def task_gate(control: int, event: int, ip: int, error: int) -> int:
    """An event that meets a task gate."""
    return types.int32(task_switch.through_task_gate(as_words(control, cbw.WORDS), event, ip, error))


@cfunc(types.int32(types.int64, types.int64), cache=True)
def deliver_event(control: int, _unused: int) -> int:
    """The event that is due."""
    deliver_due(as_words(control, cbw.WORDS))
    return types.int32(0)


# ---- what the engine calls ------------------------------------------------------------------------------------------


@cfunc(types.void(types.voidptr, types.uint32, types.voidptr), cache=True)
def on_exit(_engine: object, number: int, data: object) -> None:
    """UC_HOOK_INTR."""
    serve_exit(as_words(address_of(data), cbw.WORDS), types.int64(number))


@cfunc(types.boolean(types.voidptr, types.voidptr), cache=True)
def on_invalid(_engine: object, data: object) -> bool:
    """UC_HOOK_INSN_INVALID: the engine takes INT 6 for an instruction that it does not know (which are exits: exceptions are intercepted)."""
    cb = as_words(address_of(data), cbw.WORDS)
    next_eip = cb[cbw.LIVE] + cb[cbw.ERROR_CODE] - cb[cbw.ENV] + env.NEXT_EIP_FROM_ERROR_CODE
    store64(cb[cbw.LIVE] + env.EIP, load64(next_eip))
    serve_exit(cb, deliver.UD)
    return True


@cfunc(types.int32(types.int64, types.int64, types.int64, types.int64), cache=True)
def on_other_block(control: int, pc: int, size: int, _unused: int) -> int:
    """What the block hook (`emu.vm.block_hook`) calls for a block that it does not know, or when there is something else to do."""
    clock.enter_block(as_words(control, cbw.WORDS), pc, size)
    return types.int32(0)


@cfunc(types.void(types.voidptr, types.voidptr, types.voidptr, types.voidptr), cache=True)
def on_translated(_engine: object, _block: object, _before: object, data: object) -> None:
    """UC_HOOK_EDGE_GENERATED: the engine has translated a block, which may be other code than it knew at that address."""
    clock.note_translated(as_words(address_of(data), cbw.WORDS))


@cfunc(types.uint32(types.voidptr, types.uint32, types.int32, types.voidptr), cache=True)
def on_port_read(_engine: object, port: int, size: int, data: object) -> int:
    """UC_HOOK_INSN for IN."""
    return port_access.serve_port_read(as_words(address_of(data), cbw.WORDS), types.int64(port), types.int64(size))


@cfunc(types.void(types.voidptr, types.uint32, types.int32, types.uint32, types.voidptr), cache=True)
def on_port_write(_engine: object, port: int, size: int, value: int, data: object) -> None:
    """UC_HOOK_INSN for OUT."""
    port_access.serve_port_write(as_words(address_of(data), cbw.WORDS), types.int64(port), types.int64(size), types.int64(value))


@cfunc(types.void(types.voidptr, types.voidptr), cache=True)
def on_syscall(_engine: object, data: object) -> None:
    """UC_HOOK_INSN for SYSCALL."""
    port_access.serve_system_call(as_words(address_of(data), cbw.WORDS), False)


@cfunc(types.void(types.voidptr, types.voidptr), cache=True)
def on_sysenter(_engine: object, data: object) -> None:
    """UC_HOOK_INSN for SYSENTER."""
    port_access.serve_system_call(as_words(address_of(data), cbw.WORDS), True)
