"""VM exits that Python serves: one table, exit code to handler.

The native handler (`emu.vm.handler`) has filled CONTEXT and the instruction's bytes are in INSN_AT. A handler changes the
guest's state and returns None for it to go on, or the `Stop` that ends the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from emu.errors import BrokenInvariantError
from emu.events import Kind, Outcome
from emu.machine import control as cbw
from emu.machine import decode, paging, vmcb
from emu.machine.regfile import RegisterFile
from emu.vm import access, cpuid, deliver, handler, reasons, record, registers

EAX, ECX, EDX, EBX = range(4)
OPCODE_WRMSR, OPCODE_SMSW_LMSW = 0x30, 0x01
ONES32 = 0xFFFF_FFFF
NO_PAGE = -1
USER_LEVEL = 3


@dataclass(frozen=True)
class Stop:
    """The end of a run: how, a value (of the exit port) and a line of explanation where there is one."""

    outcome: Outcome
    value: int = 0
    why: str = ""


@dataclass
class ExitContext:
    """What handlers work on."""

    control: np.ndarray
    registers: RegisterFile
    insn: np.ndarray  # 16 bytes: the guest's instruction; INSN_BYTES of them are valid

    def opcode(self) -> int:
        """The second byte of the two-byte opcode at CS:EIP, behind its prefixes."""
        length = int(self.control[cbw.INSN_LENGTH])
        insn = bytes(self.insn[:length])
        at, _prefixes = decode.skip_prefixes(int(self.control[cbw.INSN_AT]), length)
        return insn[at + 1] if at + 1 < length else 0

    def emit(self, kind: Kind, *, info: int = 0, va: int = 0, old: int = 0, new: int = 0) -> None:
        """Record an event about no page."""
        record.emit(self.control, int(kind), info, va, NO_PAGE, NO_PAGE, old, new)

    def fault(self, vector: int, error: int = 0, address: int = 0) -> Stop | None:
        """Deliver an exception for the instruction at CS:EIP."""
        return self.inject(vector, deliver.EXCEPTION, error, address)

    def inject(self, vector: int, source: int, error: int = 0, address: int = 0) -> Stop | None:
        """Deliver an event to the guest."""
        deliver.make_due(self.control, vector, source, error, address)
        return self.deliver_due()

    def deliver_due(self) -> Stop | None:
        """Deliver the event that native code or `inject` made due, if any."""
        reason = handler.inject(self.control)
        if reason == reasons.RUNNING:
            return None
        return shutdown(self) if reason == reasons.SHUTDOWN else unsupported(self)

    def retire(self) -> None:
        """Step over the instruction that was carried out."""
        registers.retire(self.control, int(self.control[cbw.INSN_LENGTH]))


Handler = Callable[[ExitContext], Stop | None]


def shutdown(context: ExitContext) -> Stop:
    """A fault while a double fault was being delivered."""
    regs = context.registers
    why = (
        f"at {regs.selector(1):04x}:{regs.eip:08x}, CR2 {regs.cr2:08x}, CR3 {int(context.control[cbw.GUEST_CR3]):08x}, "
        f"ESP {regs.general(4):08x}"
    )
    return Stop(Outcome.TRIPLE_FAULT, why=why)


def unsupported(context: ExitContext) -> Stop:
    """The guest asked for a hardware task switch, the one thing that the engine cannot carry."""
    return Stop(Outcome.UNSUPPORTED, why=f"hardware task switch at {context.registers.eip:08x}")


def no_progress(context: ExitContext) -> Stop:
    """The same fault was served again and again: a bug of emu, never the guest's doing."""
    msg = f"no progress at {context.registers.eip:08x}: fault on {int(context.control[cbw.EXIT_INFO]):08x} served in vain"
    raise BrokenInvariantError(msg)


def on_cpuid(context: ExitContext) -> Stop | None:
    """CPUID."""
    regs = context.registers
    leaf, subleaf = regs.general(EAX), regs.general(ECX)
    context.emit(Kind.CPUID, info=subleaf, old=leaf)
    for number, value in zip((EAX, EBX, ECX, EDX), cpuid.cpuid(leaf), strict=True):
        regs.set_general(number, value)
    context.retire()
    return None


def on_msr(context: ExitContext) -> Stop | None:
    """RDMSR or WRMSR: the time-stamp counter; every other number is #GP, as on a processor without it."""
    regs, control = context.registers, context.control
    number = regs.general(ECX)
    is_write = context.opcode() == OPCODE_WRMSR
    value = regs.general(EAX) | regs.general(EDX) << 32
    if number != cpuid.MSR_TSC:
        return context.fault(deliver.GP)
    if is_write:
        context.emit(Kind.MSR_WRITE, va=number, new=value)
        control[cbw.TSC_OFFSET] = _signed(value - int(control[cbw.INSNS]))
    else:
        value = int(control[cbw.INSNS]) + int(control[cbw.TSC_OFFSET]) & (1 << 64) - 1
        context.emit(Kind.MSR_READ, va=number, new=_signed(value))
        regs.set_general(EAX, value)
        regs.set_general(EDX, value >> 32)
    context.retire()
    return None


def _signed(value: int) -> int:
    """A 64-bit word as native code has it."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def on_absent_instruction(context: ExitContext) -> Stop | None:
    """An instruction that the guest's processor does not have."""
    return context.fault(deliver.UD)


def on_denied_instruction(context: ExitContext) -> Stop | None:
    """An instruction that exists but whose subject (performance counters) does not."""
    return context.fault(deliver.GP)


def on_machine_status(context: ExitContext) -> Stop | None:
    """SMSW and LMSW with a memory operand; any other access to a control register is native."""
    if context.opcode() != OPCODE_SMSW_LMSW:
        return context.fault(deliver.UD)
    control = context.control
    segment, offset, field, _length = registers.decode_operand(control)
    va = context.registers.segment_base(segment) + offset & ONES32
    user = context.registers.cpl == USER_LEVEL
    if field & 7 == 4:  # SMSW
        error = access.linear_store(control, va, 2, int(control[cbw.GUEST_CR0]) & 0xFFFF, user)
        if error != access.OK:
            return context.fault(deliver.PF, error, int(control[cbw.EXIT_INFO]))
        context.retire()
        return None
    error, word = access.linear_load(control, va, 2, user)
    if error != access.OK:
        return context.fault(deliver.PF, error, int(control[cbw.EXIT_INFO]))
    kept = int(control[cbw.GUEST_CR0]) & ~registers.LMSW_BITS
    new = kept | word & registers.LMSW_BITS | int(control[cbw.GUEST_CR0]) & paging.CR0_PE
    if registers.write_cr0(control, new) != registers.SERVED:
        return context.fault(deliver.GP)
    context.retire()
    return None


def on_task_switch(context: ExitContext) -> Stop:
    """A far jump, call or IRET that would switch tasks by hardware."""
    return unsupported(context)


EXITS: dict[int, Handler] = {
    vmcb.EXIT_CPUID: on_cpuid,
    vmcb.EXIT_MSR: on_msr,
    vmcb.EXIT_RDPMC: on_denied_instruction,
    vmcb.EXIT_RSM: on_absent_instruction,
    vmcb.EXIT_INVLPGA: on_absent_instruction,
    vmcb.EXIT_MONITOR: on_absent_instruction,
    vmcb.EXIT_MWAIT: on_absent_instruction,
    vmcb.EXIT_TASK_SWITCH: on_task_switch,
    vmcb.EXIT_SHUTDOWN: shutdown,
    **dict.fromkeys(range(vmcb.EXIT_VMRUN, vmcb.EXIT_SVM_LAST + 1), on_absent_instruction),
    **dict.fromkeys((vmcb.EXIT_CR_READ + n for n in (0, 3, 4)), on_machine_status),
    **dict.fromkeys((vmcb.EXIT_CR_WRITE + n for n in (0, 3, 4)), on_machine_status),
}


def serve(context: ExitContext, code: int) -> Stop | None:
    """The handler for an exit code; an unknown code is a fault of emu and raises BrokenInvariantError."""
    handler_of = EXITS.get(code)
    if handler_of is None:
        msg = f"VM exit {code:#x} has no handler"
        raise BrokenInvariantError(msg)
    stop = handler_of(context)
    return stop if stop is not None else context.deliver_due()
