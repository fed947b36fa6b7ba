"""VM exits that Python serves: one table, exit code to handler.

The native handler (`emu.vm.handler`) has filled CONTEXT and the instruction's bytes are in INSN_AT. A handler changes the
guest's state and returns None for it to go on, or the `Stop` that ends the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from emu.errors import BrokenInvariantError, EmuError
from emu.events import Kind, Outcome
from emu.machine import control as cbw
from emu.machine import decode, env, paging, vmcb
from emu.machine.regfile import RegisterFile
from emu.saving import as_value
from emu.units import PAGE_BYTES
from emu.vm import access, cpuid, deliver, handler, reasons, record, refusing, registers, walk
from emu.vm.msr import MsrFile, signed

EAX, ECX, EDX, EBX = range(4)
OPCODE_WRMSR, OPCODE_SMSW_LMSW = 0x30, 0x01
NO_PAGE = -1
ADDRESS_MASK = (1 << 64) - 1  # words of the control block are signed
USER_LEVEL = 3
HIGHEST_PRIORITY = 15


as_value(Outcome)


@as_value
@dataclass(frozen=True)
class Stop:
    """The end of a run: how, a value (of the exit port) and a line of explanation where there is one."""

    outcome: Outcome
    value: int = 0
    why: str = ""


class ProcessorApic(Protocol):
    """What instructions see of the local APIC."""

    task_priority: int  # CR8, 0 to 15: interrupts of this priority class and below wait

    @property
    def is_enabled(self) -> bool:
        """Whether it is switched on, which CPUID shows."""


@dataclass
class ExitContext:
    """What handlers work on."""

    control: np.ndarray
    registers: RegisterFile
    insn: np.ndarray  # 16 bytes: the guest's instruction; INSN_BYTES of them are valid
    msrs: MsrFile
    apic: ProcessorApic

    def opcode(self) -> int:
        """The second byte of the two-byte opcode at CS:EIP, behind its prefixes."""
        length = int(self.control[cbw.INSN_LENGTH])
        insn = bytes(self.insn[:length])
        at, _prefixes = decode.all_prefixes(int(self.control[cbw.INSN_AT]), length, self.registers.code_bits)
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
        return shutdown(self) if reason == reasons.SHUTDOWN else None  # with REFILL the event stays due

    def retire(self) -> None:
        """Step over the instruction that was carried out."""
        registers.retire(self.control, int(self.control[cbw.INSN_LENGTH]))


Handler = Callable[[ExitContext], Stop | None]


def shutdown(context: ExitContext) -> Stop:
    """A fault while a double fault was being delivered."""
    regs = context.registers
    why = (
        f"at {regs.selector(1):04x}:{regs.rip:08x}, CR2 {regs.cr2:08x}, CR3 {int(context.control[cbw.GUEST_CR3]):08x}, "
        f"ESP {regs.general(4):08x}"
    )
    return Stop(Outcome.TRIPLE_FAULT, why=why)


def device_fetch(context: ExitContext) -> Stop:
    """The guest jumped into the registers of a device, which hold no code."""
    return Stop(Outcome.UNSUPPORTED, why=f"instruction fetch from a device's registers at {context.registers.rip:08x}")


def no_progress(context: ExitContext) -> Stop:
    """The same fault was served again and again: a bug of emu, never the guest's doing."""
    address = int(context.control[cbw.EXIT_INFO]) & ADDRESS_MASK
    msg = f"no progress at {context.registers.rip:08x}: fault on {address:08x} served in vain"
    raise BrokenInvariantError(msg)


def on_cpuid(context: ExitContext) -> Stop | None:
    """CPUID."""
    regs = context.registers
    leaf, subleaf = regs.general(EAX), regs.general(ECX)
    context.emit(Kind.CPUID, info=subleaf, old=leaf)
    for number, value in zip((EAX, EBX, ECX, EDX), cpuid.cpuid(leaf, subleaf, apic=context.apic.is_enabled), strict=True):
        regs.set_general(number, value)
    context.retire()
    return None


def on_msr(context: ExitContext) -> Stop | None:
    """RDMSR or WRMSR."""
    regs = context.registers
    number = regs.general(ECX)
    if context.opcode() == OPCODE_WRMSR:
        value = regs.general(EAX) | regs.general(EDX) << 32
        if not context.msrs.write(number, value):
            return context.fault(deliver.GP)
        context.emit(Kind.MSR_WRITE, va=number, new=signed(value))
    else:
        read = context.msrs.read(number)
        if read is None:
            return context.fault(deliver.GP)
        context.emit(Kind.MSR_READ, va=number, new=signed(read))
        regs.set_general(EAX, read)
        regs.set_general(EDX, read >> 32)
    context.retire()
    return None


def on_task_priority(context: ExitContext) -> Stop | None:
    """MOV to and from CR8."""
    control, regs = context.control, context.registers
    _segment, register, _field, _length = registers.decode_operand(control)
    if int(control[cbw.EXIT_CODE]) == vmcb.EXIT_CR_READ + registers.TASK_PRIORITY:
        regs.set_general64(int(register), context.apic.task_priority)
    else:
        value = regs.general64(int(register))
        if value > HIGHEST_PRIORITY:
            return context.fault(deliver.GP)
        context.emit(Kind.CR_WRITE, info=registers.TASK_PRIORITY, old=context.apic.task_priority, new=value)
        context.apic.task_priority = value
    context.retire()
    return None


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
    regs = int(control[cbw.ENV])
    va = signed(int(env.segment_base(regs, segment)) + int(offset) & int(env.linear_mask(regs)))
    kind = paging.FAULT_USER if context.registers.cpl == USER_LEVEL else 0
    if field & 7 == 4:  # SMSW
        error = access.linear_store(control, va, 2, int(control[cbw.GUEST_CR0]) & 0xFFFF, kind)
        if error != access.OK:
            return _memory_fault(context, int(error), int(segment))
        context.retire()
        return None
    error, word = access.linear_load(control, va, 2, kind)
    if error != access.OK:
        return _memory_fault(context, int(error), int(segment))
    kept = int(control[cbw.GUEST_CR0]) & ~registers.LMSW_BITS
    new = kept | word & registers.LMSW_BITS | int(control[cbw.GUEST_CR0]) & paging.CR0_PE
    if registers.write_cr0(control, new) != registers.SERVED:
        return context.fault(deliver.GP)
    context.retire()
    return None


def _memory_fault(context: ExitContext, error: int, segment: int) -> Stop | None:
    """The exception for what a walk found at EXIT_INFO, for an operand in a segment."""
    if error == walk.NON_CANONICAL:
        return context.fault(deliver.SS if segment == decode.SS else deliver.GP)
    return context.fault(deliver.PF, error, int(context.control[cbw.EXIT_INFO]))


# ---- instructions that the engine may not carry out (`emu.vm.refusing`) ----


class CodeEnds(Protocol):
    """What the engine does at its exits."""

    def end_code_at(self, address: int) -> None:
        """Have code that is translated from now on end before an address."""

    def run_through(self, address: int) -> None:
        """Take that back."""


def refuse(context: ExitContext, engine: CodeEnds, *, always_here: bool) -> Stop | None:
    """The block at RIP has such an instruction at EXIT_INFO: #UD if it is the first, else the engine shall stop before it.

    One that the engine aborts at is worth an exit also where it is the first, but at a page's beginning (`refusing.is_end_of_code`).
    """
    control = context.control
    address = int(control[cbw.EXIT_INFO])
    if address == refusing.insn_address(control) and (always_here or not address % PAGE_BYTES):
        access.fetch_instruction(control)
        return context.fault(deliver.UD)
    engine.end_code_at(address & ADDRESS_MASK)
    refusing.drop_code(control, address)
    return None


def after_abort(context: ExitContext, engine: CodeEnds) -> Stop | None:
    """The engine gave up on the block at RIP; raises EmuError if that is none of its known ways."""
    if not refusing.find_in_block(context.control):
        raise EmuError(f"the engine gave up on an instruction of the guest at {context.registers.rip:08x} or behind it")
    return refuse(context, engine, always_here=False)


def is_halt(context: ExitContext) -> bool:
    """Whether an exit for HLT is about one."""
    return bool(refusing.kind_at_rip(context.control) == refusing.IS_HLT)


def end_of_code(context: ExitContext, engine: CodeEnds) -> Stop | None:
    """The guest got to where the engine was told to stop, and there may be another instruction by now."""
    if refusing.kind_at_rip(context.control) == refusing.IS_REFUSED:
        return context.fault(deliver.UD)
    address = int(refusing.insn_address(context.control))
    engine.run_through(address & ADDRESS_MASK)
    refusing.drop_code(context.control, address)
    return None


EXITS: dict[int, Handler] = {
    vmcb.EXIT_CPUID: on_cpuid,
    vmcb.EXIT_MSR: on_msr,
    vmcb.EXIT_RDPMC: on_denied_instruction,
    vmcb.EXIT_RSM: on_absent_instruction,
    vmcb.EXIT_INVLPGA: on_absent_instruction,
    vmcb.EXIT_MONITOR: on_absent_instruction,
    vmcb.EXIT_MWAIT: on_absent_instruction,
    vmcb.EXIT_SHUTDOWN: shutdown,
    **dict.fromkeys(range(vmcb.EXIT_VMRUN, vmcb.EXIT_SVM_LAST + 1), on_absent_instruction),
    **dict.fromkeys((vmcb.EXIT_CR_READ + n for n in (0, 3, 4)), on_machine_status),
    **dict.fromkeys((vmcb.EXIT_CR_WRITE + n for n in (0, 3, 4)), on_machine_status),
    vmcb.EXIT_CR_READ + registers.TASK_PRIORITY: on_task_priority,
    vmcb.EXIT_CR_WRITE + registers.TASK_PRIORITY: on_task_priority,
}

# Exits whose instruction may switch the local APIC or let its interrupts through.
APIC_EXITS = (vmcb.EXIT_MSR, vmcb.EXIT_CR_WRITE + registers.TASK_PRIORITY)


def serve(context: ExitContext, code: int) -> Stop | None:
    """The handler for an exit code; an unknown code is a fault of emu and raises BrokenInvariantError."""
    handler_of = EXITS.get(code)
    if handler_of is None:
        msg = f"VM exit {code:#x} has no handler"
        raise BrokenInvariantError(msg)
    stop = handler_of(context)
    return stop if stop is not None else context.deliver_due()
