"""What may be a task switch, carried out instead of the engine: far CALL and JMP to tasks and gates, and IRET from a nested task.

The engine would switch tasks without an exit and with faults half-way. It is kept from it by two things: a bit of EFER makes it give #GP
for a far CALL or JMP to such a descriptor (`emu.vm.registers.set_engine_efer`), and IRET is intercepted while EFLAGS.NT is set
(`emu.vm.clock`). In long mode there are no task switches, and the engine's #GP is the guest's.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine import decode, env
from emu.machine import paging as pg
from emu.machine.native import compiled, load8, load64
from emu.vm import access, call_gates, clock, deliver, reasons, step, task_segment, task_switch, walk
from emu.vm.gates import (
    CODE_SHIFT,
    GATE_TASK,
    GP,
    IN_NEW_TASK,
    NONE,
    NOWHERE,
    NP,
    PF,
    SELECTOR,
    STARVED,
    descriptor_address,
    read_flags,
    read_pair,
)

ENGINES_FAULT = -3  # in place of an answer: none of these, the engine's own fault holds
CALL_DIRECT, JUMP_DIRECT, GROUP = 0x9A, 0xEA, 0xFF  # opcodes
CALL_FAR, JUMP_FAR = 3, 5  # reg fields of GROUP
CALL_GATE_16, CALL_GATE_32 = 4, 12  # types of system descriptors


@compiled
def has_tasks(cb: object) -> bool:
    """Whether the guest is in protected mode without long mode, and not in virtual-8086 mode."""
    if cb[cbw.GUEST_EFER] & pg.EFER_LMA or not cb[cbw.GUEST_CR0] & pg.CR0_PE:
        return False
    return not load64(cb[cbw.ENV] + env.EFLAGS) & pg.EFLAGS_VM


@compiled
def instruction_length(cb: object) -> int:
    """The length of the instruction at RIP, whose bytes go to INSN_AT; 0 or less if there is none."""
    access.fetch_instruction(cb)
    return decode.insn_length(cb[cbw.INSN_AT], cb[cbw.INSN_BYTES], env.code_bits(cb[cbw.ENV]))


@compiled
def far_target(cb: object, length: int) -> tuple[int, bool]:
    """(selector, whether it is a CALL) of the far CALL or JMP of `length` bytes in INSN_AT; selector -1 for any other instruction."""
    code, regs = cb[cbw.INSN_AT], cb[cbw.ENV]
    mode = env.code_bits(regs)
    at, prefixes = decode.skip_prefixes(code, length)
    if at + 1 >= length:
        return -1, False
    opcode, modrm = load8(code + at), load8(code + at + 1)
    size = 4 if decode.is_wide(mode, prefixes, decode.OPERAND_SIZE) else 2
    if opcode == CALL_DIRECT or opcode == JUMP_DIRECT:
        return decode.displacement(code + at + 1 + size, 2) & 0xFFFF, opcode == CALL_DIRECT
    field = modrm >> 3 & 7
    if opcode != GROUP or (field != CALL_FAR and field != JUMP_FAR) or modrm >> 6 == 3:
        return -1, False
    segment, offset = decode.memory_operand(code + at + 1, mode, regs + env.REGS, prefixes, 0)
    kind = pg.FAULT_USER if env.cpl(regs) == 3 else 0
    fault, selector = access.linear_load(cb, env.segment_base(regs, segment) + offset + size, 2, kind)
    return (selector if fault == access.OK else -1), field == CALL_FAR


@compiled
def to_descriptor(cb: object, selector: int, is_call: bool, length: int) -> int:
    """A far CALL or JMP to a system descriptor; an answer as of a task switch, or ENGINES_FAULT."""
    regs = cb[cbw.ENV]
    at = descriptor_address(cb, selector)
    if selector & SELECTOR == 0 or at == NOWHERE:
        return ENGINES_FAULT
    fault, low, high = read_pair(cb, at)
    if fault != access.OK:
        return PF | fault << CODE_SHIFT
    kind = high >> 8 & 0x1F
    is_gate = kind == CALL_GATE_16 or kind == CALL_GATE_32
    if not is_gate and kind != GATE_TASK and kind & ~task_segment.WIDE != task_switch.AVAILABLE:
        return ENGINES_FAULT
    level = high >> env.FLAG_DPL_SHIFT & 3
    if level < env.cpl(regs) or level < selector & 3:
        return GP | (selector & SELECTOR) << CODE_SHIFT
    if is_gate:
        return call_gates.through_call_gate(cb, low, high, selector, is_call, length)
    if kind == GATE_TASK:
        if not high & env.FLAG_PRESENT:
            return NP | (selector & SELECTOR) << CODE_SHIFT
        selector = low >> 16 & 0xFFFF
    return leave_task(cb, selector, task_switch.NEST if is_call else task_switch.JUMP, length)


@compiled
def leave_task(cb: object, selector: int, how: int, length: int) -> int:
    """Switch tasks by an instruction of `length` bytes at RIP, which retires if it comes to that."""
    if deliver.is_short_of_room(cb):
        return STARVED
    regs = cb[cbw.ENV]
    ip = load64(regs + env.EIP) + length & env.instruction_mask(regs)
    answer = task_switch.switch(cb, selector, how, ip, read_flags(cb) & ~pg.EFLAGS_RF, 0)
    if answer == NONE or (answer > 0 and answer & IN_NEW_TASK):
        cb[cbw.INSNS] += 1
    return answer


@compiled
def return_from_task(cb: object) -> int:
    """IRET from a nested task, to the one that its segment is linked to."""
    regs = cb[cbw.ENV]
    length = instruction_length(cb)
    fault, selector = access.linear_load(cb, load64(regs + env.TR + env.BASE), 2, walk.IMPLICIT)
    if fault != access.OK:
        return PF | fault << CODE_SHIFT
    return leave_task(cb, selector, task_switch.RETURN, length)


@compiled
def conclude(cb: object, answer: int) -> None:
    """Have the fault of an answer delivered, or the VM stopped for frames."""
    if answer == STARVED:
        clock.stop(cb, reasons.REFILL)
    elif answer >= 0:
        deliver.make_due(cb, answer & 0xFF, deliver.EXCEPTION, answer >> CODE_SHIFT & 0xFFFF, cb[cbw.EXIT_INFO])


@compiled
def on_return(cb: object) -> None:
    """An intercepted IRET."""
    if not clock.is_nested_task(cb[cbw.ENV]):
        clock.intercept_return(cb, False)
        return
    if cb[cbw.STEPPING]:
        step.finish(cb)
    conclude(cb, return_from_task(cb))


@compiled
def on_protection_fault(cb: object) -> bool:
    """The engine's #GP; true if it stands for a far CALL or JMP that has been served."""
    if not has_tasks(cb):
        return False
    length = instruction_length(cb)
    if length <= 0:
        return False
    selector, is_call = far_target(cb, length)
    if selector < 0:
        return False
    if cb[cbw.STEPPING]:
        step.finish(cb)
    answer = to_descriptor(cb, selector, is_call, length)
    if answer == ENGINES_FAULT:
        return False
    conclude(cb, answer)
    return True
