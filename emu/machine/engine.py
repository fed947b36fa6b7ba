"""Unicorn as emu uses it: the engine over machine memory, entered with VMRUN. The only module that imports `unicorn`.

What is here uses the engine's public functions and tables that the manuals define (AMD64 APM vol. 2, chapter 15 and appendix B); what no
interface tells is found in `emu.machine.calibration`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import unicorn
from unicorn import (
    UC_ARCH_X86,
    UC_HOOK_BLOCK,
    UC_HOOK_EDGE_GENERATED,
    UC_HOOK_INSN,
    UC_HOOK_INSN_INVALID,
    UC_HOOK_INTR,
    UC_HOOK_MEM_READ,
    UC_MODE_64,
    UC_PROT_ALL,
    Uc,
    UcError,
    x86_const,
)
from unicorn import unicorn_const as uc_const
from unicorn.unicorn_py3.unicorn import uclib

from emu.errors import BrokenInvariantError, EngineError
from emu.machine import paging, vmcb
from emu.machine.code_buffer import CodeBuffer, executable_mappings
from emu.machine.memory import MachineMemory, ensure_address_space
from emu.units import MIB, MPN, PAGE_BYTES

__all__ = [
    "UC_HOOK_BLOCK",
    "UC_HOOK_EDGE_GENERATED",
    "UC_HOOK_INSN",
    "UC_HOOK_INSN_INVALID",
    "UC_HOOK_INTR",
    "UC_HOOK_MEM_READ",
    "Engine",
    "EntryState",
    "Segment",
    "UcError",
    "fill_vmcb",
    "flush_page_function",
    "mismatch",
    "uclib",
    "vmrun",
    "x86_const",
]

EXTRA_FRAMES = 3  # VMCB, host save area, the VMRUN instruction
MSR_EFER = 0xC000_0080
MSR_VM_HSAVE_PA = 0xC001_0117
VMRUN = b"\x0f\x01\xd8"
SMALLEST_CODE_BUFFER = 2 * MIB  # of translated code: enough for a few instructions
ENGINE_BYTES = 16 * MIB  # of address space beside that buffer: what an engine allocates while it is set up, and more
FLUSH_TLB = (1 << 30) | uc_const.UC_CTL_TLB_FLUSH  # a uc_ctl write without arguments
ALL_INTERCEPTS = (
    vmcb.INTERCEPT_IDTR_WRITE
    | vmcb.INTERCEPT_GDTR_WRITE
    | vmcb.INTERCEPT_LDTR_WRITE
    | vmcb.INTERCEPT_TR_WRITE
    | vmcb.INTERCEPT_RDPMC
    | vmcb.INTERCEPT_RDTSC
    | vmcb.INTERCEPT_CPUID
    | vmcb.INTERCEPT_RSM
    | vmcb.INTERCEPT_HLT
    | vmcb.INTERCEPT_INVLPG
    | vmcb.INTERCEPT_INVLPGA
    | vmcb.INTERCEPT_MSR
    | vmcb.INTERCEPT_SHUTDOWN
    | vmcb.INTERCEPT_VMRUN
    | vmcb.INTERCEPT_VMMCALL
    | vmcb.INTERCEPT_VMLOAD
    | vmcb.INTERCEPT_VMSAVE
    | vmcb.INTERCEPT_STGI
    | vmcb.INTERCEPT_CLGI
    | vmcb.INTERCEPT_SKINIT
    | vmcb.INTERCEPT_RDTSCP
    | vmcb.INTERCEPT_MONITOR
    | vmcb.INTERCEPT_MWAIT
)
INTERCEPTED_REGISTERS = 1 << 0 | 1 << 3 | 1 << 4 | 1 << 8  # CR0, CR3, CR4, CR8


@dataclass(frozen=True)
class Segment:
    """A segment register with its hidden part; `attributes` as in the VMCB (access byte, AVL L D/B G in bits 8-11)."""

    selector: int
    base: int
    limit: int
    attributes: int


@dataclass(frozen=True)
class EntryState:
    """What `Cpu.enter` starts a guest with."""

    rip: int
    cs: Segment
    data: Segment  # DS, ES, SS, FS, GS
    cr0: int = paging.CR0_ET
    cr3: int = 0
    cr4: int = 0
    rsp: int = 0
    rdx: int = 0


MAX_EXITS = 256  # more than a guest that is not hostile has
RESET_STATE = EntryState(
    rip=0xFFF0,
    cs=Segment(0xF000, 0xFFFF_0000, 0xFFFF, 0x9B),
    data=Segment(0, 0, 0xFFFF, 0x93),
    cr0=paging.CR0_CD | paging.CR0_NW | paging.CR0_ET,
)


VERSION: str = unicorn.__version__


class Engine:
    """Unicorn with the CPU model, the mapping and the few raw calls that emu needs."""

    def __init__(self, memory: MachineMemory, code_bytes: int = SMALLEST_CODE_BUFFER) -> None:
        """`code_bytes` is the size of the buffer of translated code: when it is full all of it goes, and translation begins anew."""
        ensure_address_space(code_bytes + ENGINE_BYTES, "the engine")
        before = executable_mappings()
        try:
            self.uc = Uc(UC_ARCH_X86, UC_MODE_64)
            self.handle: ctypes.c_void_p = self.uc._uch
            self.uc.ctl_set_tcg_buffer_size(code_bytes)  # before anything that sets the engine up, the CPU model included
            self.uc.ctl_set_cpu_model(x86_const.UC_CPU_X86_EPYC)  # the default model has no SVM
            self.uc.mem_map_ptr(0, len(memory.bytes), UC_PROT_ALL, memory.address)
            self.uc.ctl_exits_enabled(True)  # else each stop walks `until` and overwrites exit_info_2
            self.uc.ctl_set_exits([])
            self.uc.msr_write(MSR_EFER, self.uc.msr_read(MSR_EFER) | paging.EFER_SVME | paging.EFER_NXE)
            # Host PAE: without it VMRUN ignores the guest's CR0.PG; it also makes nested tables 4-level.
            cr4 = self.uc.reg_read(x86_const.UC_X86_REG_CR4)
            self.uc.reg_write(x86_const.UC_X86_REG_CR4, cr4 | paging.CR4_PAE)
        except UcError as error:
            msg = f"unicorn {unicorn.__version__}: cannot set up the AMD-V processor ({error})"
            raise EngineError(msg) from error
        self.code_buffer = CodeBuffer(code_bytes, before)
        self._exits: dict[int, None] = {}  # linear addresses, the oldest first
        self.context = self.uc.context_save()
        self.context_bytes = int(uclib.uc_context_size(self.handle))

    def raw(self, context: Any = None) -> np.ndarray:
        """The bytes of a saved context, to read and write."""
        pointer = ctypes.cast((context or self.context).context, ctypes.POINTER(ctypes.c_uint8))
        return np.ctypeslib.as_array(pointer, (self.context_bytes,))

    def save(self) -> np.ndarray:
        """Copy the registers into `context`; returns its bytes."""
        self.uc.context_update(self.context)
        return self.raw()

    def start(self, rip: int) -> None:
        """Run from `rip` until a hook stops the engine; raises BrokenInvariantError for an error that no guest can cause."""
        status = uclib.uc_emu_start(self.handle, rip, 0, 0, 0)
        if status:
            raise BrokenInvariantError(f"the engine stopped with error {status} at {rip:#x}")

    def drop_code(self) -> None:
        """Drop everything that was translated, and give its memory back. Not while the engine runs."""
        self.uc.ctl_flush_tb()
        self.code_buffer.give_back()

    def end_code_at(self, address: int) -> None:
        """Have code that is translated from now on end before a linear address, as at a HLT; the oldest such addresses are forgotten."""
        if len(self._exits) >= MAX_EXITS:
            self._exits.pop(next(iter(self._exits)))
        self._exits[address] = None
        self.uc.ctl_set_exits(list(self._exits))

    def run_through(self, address: int) -> None:
        """Take `end_code_at` back."""
        self._exits.pop(address, None)
        self.uc.ctl_set_exits(list(self._exits))

    def add_native_hook(self, kind: int, address: int, data: int, *instruction: int) -> None:
        """Install the C function at `address`; the engine hands it the pointer `data`."""
        handle = ctypes.c_size_t()
        extra = [ctypes.c_int(number) for number in instruction]
        status = uclib.uc_hook_add(
            self.handle,
            ctypes.byref(handle),
            kind,
            ctypes.c_void_p(address),
            ctypes.c_void_p(data),
            ctypes.c_uint64(1),
            ctypes.c_uint64(0),
            *extra,
        )
        if status:
            msg = f"unicorn {unicorn.__version__}: hook kind {kind:#x} refused (error {status})"
            raise EngineError(msg)


def mismatch(what: str) -> EngineError:
    """The error for a library that is not the one the design rests on."""
    return EngineError(
        f"unicorn {unicorn.__version__} keeps its state in another way than emu knows ({what}); install unicorn>=2.1.4,<2.2"
    )


def flush_page_function() -> int:
    """Address of the engine's tlb_flush_page, which it shows on Linux though it is no interface; 0 if it does not."""
    function = getattr(uclib, "tlb_flush_page_x86_64", None)
    return ctypes.cast(function, ctypes.c_void_p).value or 0 if function else 0


def fill_vmcb(memory: MachineMemory, mpn: MPN, state: EntryState, nested_root: int = 0) -> None:
    """Write intercepts and entry state into the VMCB in frame `mpn`."""
    frame = memory.frame(mpn)
    frame[:] = 0

    def put(offset: int, width: Any, *values: int) -> None:
        at = offset
        for value in values:
            size = np.dtype(width).itemsize
            frame[at : at + size].view(width)[0] = value
            at += size

    put(vmcb.CR_READ_INTERCEPTS, np.uint16, INTERCEPTED_REGISTERS, INTERCEPTED_REGISTERS)
    put(vmcb.EXCEPTION_INTERCEPTS, np.uint32, 0xFFFF_FFFF)
    put(vmcb.INTERCEPTS, np.uint64, ALL_INTERCEPTS)
    put(vmcb.GUEST_ASID, np.uint32, 1)
    put(vmcb.NESTED_CONTROL, np.uint64, 1 if nested_root else 0)
    put(vmcb.NESTED_CR3, np.uint64, nested_root)
    for at in (vmcb.ES, vmcb.SS, vmcb.DS, vmcb.CS):
        segment = state.cs if at == vmcb.CS else state.data
        put(at, np.uint16, segment.selector, segment.attributes)
        put(at + 4, np.uint32, segment.limit)
        put(at + 8, np.uint64, segment.base)
    put(vmcb.GDTR + 4, np.uint32, 0xFFFF)
    put(vmcb.IDTR + 4, np.uint32, 0xFFFF)
    for at, value in (
        (vmcb.EFER, paging.EFER_SVME | paging.EFER_NXE),
        (vmcb.CR0, state.cr0),
        (vmcb.CR3, state.cr3),
        (vmcb.CR4, state.cr4),
        (vmcb.RFLAGS, paging.EFLAGS_FIXED),
        (vmcb.RIP, state.rip),
        (vmcb.RSP, state.rsp),
        (vmcb.DR6, 0xFFFF_0FF0),
        (vmcb.DR7, 0x400),
    ):
        put(at, np.uint64, value)


def vmrun(engine: Engine, memory: MachineMemory, frames: np.ndarray) -> None:
    """Execute VMRUN on the VMCB in frames[0]; returns when an exit (or the block hook) stops the engine."""
    vmcb_at, save_at, stub_at = (int(mpn) * PAGE_BYTES for mpn in frames[:3])
    memory.bytes[stub_at : stub_at + 3] = np.frombuffer(VMRUN, np.uint8)
    engine.uc.msr_write(MSR_VM_HSAVE_PA, save_at)
    engine.uc.reg_write(x86_const.UC_X86_REG_RAX, vmcb_at)
    engine.start(stub_at)
