"""The AMD-V CPU: Unicorn's processor, entered with VMRUN, and the proof that it is the one the design rests on.

The only module that imports `unicorn`. A `Cpu` owns one engine over machine memory. `enter` runs VMRUN once; from then
on the engine is in guest mode, every intercept arrives in the exit hook as 0x100 + exit code with the guest's registers
in place, and the hook lets the guest go on by returning. The guest's registers are read and written in CONTEXT, a copy of
the engine's state made at each exit (`emu.machine.env` has its layout).

    created --enter()--> stopped --run()--> running --exit not served natively, or time--> stopped
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import unicorn
from unicorn import UC_ARCH_X86, UC_HOOK_BLOCK, UC_HOOK_INSN, UC_HOOK_INTR, UC_MODE_64, UC_PROT_ALL, Uc, UcError, x86_const
from unicorn import unicorn_const as uc_const
from unicorn.unicorn_py3.unicorn import uclib

from emu.errors import BrokenInvariantError, EngineError
from emu.machine import control as cbw
from emu.machine import env as env_at
from emu.machine import paging, vmcb
from emu.machine.memory import FrameUse, MachineMemory
from emu.units import MIB, MPN, PAGE_BYTES

EXTRA_FRAMES = 3  # VMCB, host save area, the VMRUN instruction
MSR_EFER = 0xC000_0080
KEPT_MSRS = {  # model-specific registers that the engine keeps in its state: number, and the control block's word for the place
    MSR_EFER: cbw.EFER_AT,
    0xC000_0081: cbw.STAR_AT,
    0xC000_0102: cbw.KERNEL_GS_BASE_AT,
    0x174: cbw.SYSENTER_CS_AT,
    0x175: cbw.SYSENTER_ESP_AT,
    0x176: cbw.SYSENTER_EIP_AT,
}
MSR_VM_HSAVE_PA = 0xC001_0117
VMRUN = b"\x0f\x01\xd8"
LARGEST_CPU = 1 << 20  # bytes of the engine's object for one
FLUSH_TLB = (1 << 30) | uc_const.UC_CTL_TLB_FLUSH  # a uc_ctl write without arguments
KNOWN_CODES = [0, 2, 3]  # of the page faults that the calibrating guest causes
ALL_INTERCEPTS = (
    vmcb.INTERCEPT_RDPMC
    | vmcb.INTERCEPT_RDTSC
    | vmcb.INTERCEPT_CPUID
    | vmcb.INTERCEPT_RSM
    | vmcb.INTERCEPT_HLT
    | vmcb.INTERCEPT_INVLPG
    | vmcb.INTERCEPT_INVLPGA
    | vmcb.INTERCEPT_MSR
    | vmcb.INTERCEPT_TASK_SWITCH
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


RESET_STATE = EntryState(
    rip=0xFFF0,
    cs=Segment(0xF000, 0xFFFF_0000, 0xFFFF, 0x9B),
    data=Segment(0, 0, 0xFFFF, 0x93),
    cr0=paging.CR0_CD | paging.CR0_NW | paging.CR0_ET,
)


@dataclass(frozen=True)
class Calibration:
    """Places in a saved context that no interface names."""

    env: int  # CPUX86State
    error_code: int  # from CPUX86State
    cc_op_eflags: int
    msrs: dict[int, int]  # number to place, from CPUX86State

    @property
    def low_bytes(self) -> int:
        """Of CPUX86State up to the FPU's registers: the fields of `emu.machine.env`, and EFER."""
        return max(env_at.PROVED_BYTES, self.msrs[MSR_EFER] + 8)

    @property
    def high_at(self) -> int:
        """Where the fields behind the vector registers begin."""
        return min(place for number, place in self.msrs.items() if number != MSR_EFER)

    @property
    def high_bytes(self) -> int:
        """The fields from there to DR7."""
        return self.error_code + env_at.DR_FROM_ERROR_CODE + 64 - self.high_at


class Engine:
    """Unicorn with the CPU model, the mapping and the few raw calls that emu needs."""

    def __init__(self, memory: MachineMemory) -> None:
        try:
            self.uc = Uc(UC_ARCH_X86, UC_MODE_64)
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
        self.context = self.uc.context_save()
        self.context_bytes = int(uclib.uc_context_size(self.uc._uch))

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
        status = uclib.uc_emu_start(self.uc._uch, rip, 0, 0, 0)
        if status:
            raise BrokenInvariantError(f"the engine stopped with error {status} at {rip:#x}")

    def add_native_hook(self, kind: int, address: int, data: int, *instruction: int) -> None:
        """Install the C function at `address`; the engine hands it the pointer `data`."""
        handle = ctypes.c_size_t()
        extra = [ctypes.c_int(number) for number in instruction]
        status = uclib.uc_hook_add(
            self.uc._uch,
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


def _readable_ranges() -> list[tuple[int, int]]:
    """Address ranges of this process that can be read; neighbours are one range, as a heap block may lie across them."""
    ranges: list[tuple[int, int]] = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        span, rights = line.split()[:2]
        low, high = (int(end, 16) for end in span.split("-"))
        if rights[0] == "r":
            first = ranges.pop()[0] if ranges and ranges[-1][1] == low else low
            ranges.append((first, high))
    return ranges


@dataclass(frozen=True)
class LiveState:
    """Where the engine keeps its own state: host addresses."""

    cpu: int  # CPUState
    env: int  # CPUX86State, within it


def find_live_state(engine: Engine, at: int) -> LiveState:
    """The place of the engine's own CPUX86State, of which `at` bytes into a context there is a copy.

    No interface gives it. It lies in the CPU's object, one heap block, to which a word of the engine's structure points; the one
    block that holds all of the state that a context does is taken, so nothing depends on where things lie in either.
    """
    ranges = _readable_ranges()
    state = engine.save()[at : at + env_at.PROVED_BYTES].tobytes()
    base = int(engine.uc._uch.value)
    found = set()
    words = np.frombuffer(ctypes.string_at(base, _block_bytes(base) // 8 * 8), np.uint64)
    for pointer in map(int, words):
        if pointer % 16 or not any(low + 8 < pointer < high for low, high in ranges):
            continue
        size = _block_bytes(pointer)
        if len(state) <= size < LARGEST_CPU and any(low < pointer and pointer + size <= high for low, high in ranges):
            place = ctypes.string_at(pointer, size).find(state)
            if place >= 0:
                found.add(LiveState(pointer, pointer + place))
    live = [place for place in found if _follows(engine, place.env)]
    if len(live) != 1:
        raise _mismatch(f"the place of its state: {len(found)} found, {len(live)} live")
    return live[0]


def _follows(engine: Engine, place: int) -> bool:
    """Whether a copy of the state is the engine's own: it changes when a register does."""
    rax = ctypes.c_uint64.from_address(place + env_at.RAX)
    before = engine.uc.reg_read(x86_const.UC_X86_REG_RAX)
    engine.uc.reg_write(x86_const.UC_X86_REG_RAX, before ^ 0x5A5A)
    follows = bool(rax.value == before ^ 0x5A5A)
    engine.uc.reg_write(x86_const.UC_X86_REG_RAX, before)
    return follows


def _block_bytes(pointer: int) -> int:
    """Usable bytes of the heap block at an address, by the size word that glibc keeps before it."""
    return (ctypes.c_uint64.from_address(pointer - 8).value & ~0x7) - 8


def _mismatch(what: str) -> EngineError:
    return EngineError(
        f"unicorn {unicorn.__version__} keeps its state in another way than emu knows ({what}); install unicorn>=2.1.4,<2.2"
    )


def _find(raw: np.ndarray, width: Any, value: int, what: str) -> int:
    hits = np.flatnonzero(raw[: len(raw) // 8 * 8].view(width) == value)
    if not len(hits):
        raise _mismatch(what)
    return int(hits[0]) * int(np.dtype(width).itemsize)


def _prove_layout(engine: Engine) -> tuple[int, int]:
    """Write registers through the public interface and find each where `emu.machine.env` says; (env, cc_op)."""
    uc, reg = engine.uc, x86_const
    uc.reg_write(reg.UC_X86_REG_RAX, 0x1122_3344_5566_7788)
    at = _find(engine.save(), np.uint64, 0x1122_3344_5566_7788, "RAX")
    probes = [
        (reg.UC_X86_REG_RSP, env_at.RSP),
        (reg.UC_X86_REG_R15, env_at.REGS + 15 * 8),
        (reg.UC_X86_REG_RIP, env_at.EIP),
        (reg.UC_X86_REG_CR2, env_at.CR2),
        (reg.UC_X86_REG_CR3, env_at.CR3),
        (reg.UC_X86_REG_FS_BASE, env_at.FS + env_at.BASE),
        (reg.UC_X86_REG_GS_BASE, env_at.GS + env_at.BASE),
    ]
    for number, (register, offset) in enumerate(probes):
        value = 0x5A5A_0000 + number * 0x1000
        before = uc.reg_read(register)
        uc.reg_write(register, value)
        if int(engine.save()[at + offset :][:8].view(np.uint64)[0]) != value:
            raise _mismatch(f"register {register}")
        uc.reg_write(register, before)
    for name, register, offset in (
        ("GDTR", reg.UC_X86_REG_GDTR, env_at.GDTR),
        ("IDTR", reg.UC_X86_REG_IDTR, env_at.IDTR),
    ):
        before = uc.reg_read(register)
        uc.reg_write(register, (0, 0x12345000, 0x3FF, 0))
        raw = engine.save()[at + offset :]
        if int(raw[8:16].view(np.uint64)[0]) != 0x12345000 or int(raw[16:20].view(np.uint32)[0]) != 0x3FF:
            raise _mismatch(name)
        uc.reg_write(register, before)
    uc.reg_write(reg.UC_X86_REG_EFLAGS, 0x0D7)
    cc_op = int(engine.save()[at + env_at.CC_OP :][:4].view(np.uint32)[0])
    raw = engine.save()[at:]
    if int(raw[env_at.CC_SRC :][:8].view(np.uint64)[0]) != 0x0D5:
        raise _mismatch("EFLAGS")
    return at, cc_op


def flush_page_function() -> int:
    """Address of the engine's tlb_flush_page, which it shows on Linux though it is no interface; 0 if it does not."""
    function = getattr(uclib, "tlb_flush_page_x86_64", None)
    return ctypes.cast(function, ctypes.c_void_p).value or 0 if function else 0


def _flush_page(cpu: int, address: int) -> None:
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64)(flush_page_function())(cpu, address)


def _find_msrs(engine: Engine, at: int) -> dict[int, int]:
    """Where the engine keeps each of KEPT_MSRS: the bytes that change when it is written."""
    places = {}
    for number in KEPT_MSRS:
        before = engine.uc.msr_read(number)
        was = engine.save()[at:].copy()
        value = before ^ paging.EFER_SCE if number == MSR_EFER else 0x5A21  # SYSENTER_CS has 16 bits
        engine.uc.msr_write(number, value)
        now = engine.save()[at:].copy()
        engine.uc.msr_write(number, before)
        changed = np.flatnonzero(was != now)
        place = int(changed[0]) if len(changed) else 0
        if not len(changed) or changed[-1] - place >= 8 or place % 8 or int(now[place : place + 4].view(np.uint32)[0]) != value:
            raise _mismatch(f"MSR {number:#x}")
        places[number] = place
    return places


def _known_faults(engine: Engine, memory: MachineMemory, at: int) -> int:
    """Run a guest whose page faults have known error codes; returns where error_code lies from CPUX86State."""
    cpu_frames = memory.allocate(EXTRA_FRAMES + 4, 0, FrameUse.VMM)
    code, pdpt, directory, table = (int(mpn) * PAGE_BYTES for mpn in cpu_frames[EXTRA_FRAMES:])
    # mov eax,[1000] ; mov dword [2004],5 ; mov dword [2004],6 ; mov eax,[1000] ; int 41h
    program = bytes.fromhex("a100100000 c7050420000005000000 c7050420000006000000 a100100000 cd41")
    memory.bytes[code : code + len(program)] = np.frombuffer(program, np.uint8)
    words = memory.words
    words[pdpt // 8], words[directory // 8] = directory | 1, table | 7
    words[table // 8 : table // 8 + 3] = (code | 5, 0, 0)
    contexts: list[np.ndarray] = []
    codes: list[int] = []

    def on_exit(uc: Uc, number: int, _: object) -> None:
        address = int(words[(int(cpu_frames[0]) * PAGE_BYTES + vmcb.EXIT_INFO_2) // 8])
        contexts.append(engine.raw(uc.context_save()).copy())
        if number != vmcb.EXIT_EXCEPTION + 14 or len(codes) >= len(KNOWN_CODES):
            uc.emu_stop()
            return
        slot = table // 8 + (address >> 12)
        present = bool(words[slot] & 1)
        codes.append(int(present) | (2 if address >> 12 == 2 else 0))
        words[slot] = (code | 7) if present else (code | 5)
        if len(codes) == len(KNOWN_CODES) and flush_page_function():
            words[table // 8 + 1] = directory | 5  # in place of `code`, which the TLB knows
            _flush_page(find_live_state(engine, at).cpu, 0x1000)

    hook = engine.uc.hook_add(UC_HOOK_INTR, on_exit)
    flat = Segment(0x10, 0, 0xFFFF_FFFF, 0xC93)
    state = EntryState(
        rip=0,
        cs=Segment(8, 0, 0xFFFF_FFFF, 0xC9B),
        data=flat,
        cr0=paging.CR0_PE | paging.CR0_PG | paging.CR0_WP | paging.CR0_ET,
        cr3=pdpt,
        cr4=paging.CR4_PAE,
    )
    fill_vmcb(memory, MPN(int(cpu_frames[0])), state)
    _vmrun(engine, memory, cpu_frames)
    engine.uc.hook_del(hook)
    if codes != KNOWN_CODES or len(contexts) != len(codes) + 1:
        raise _mismatch("page faults under AMD-V")
    rows = np.array([raw[at:][: (len(raw) - at) // 4 * 4].view(np.uint32) for raw in contexts])
    hits = [column for column in range(rows.shape[1]) if list(rows[:-1, column]) == codes]
    if len(hits) != 1:
        raise _mismatch("the error code of a fault")
    last = rows[-1][hits[0] :]
    is_int, next_eip = env_at.IS_INT_FROM_ERROR_CODE // 4, env_at.NEXT_EIP_FROM_ERROR_CODE // 4
    if int(last[is_int]) != 1 or int(last[next_eip]) != len(program):
        raise _mismatch("INT n")
    if flush_page_function() and int(contexts[-1][at:][:8].view(np.uint64)[0]) & -PAGE_BYTES != table:
        raise _mismatch("the flush of one page")
    memory.release(cpu_frames)
    return int(hits[0]) * 4


@functools.cache
def calibrate() -> Calibration:
    """Prove this library once per process; raises EngineError when it differs from what the design rests on."""
    memory = MachineMemory(4 * MIB)
    engine = Engine(memory)
    at, cc_op = _prove_layout(engine)
    msrs = _find_msrs(engine, at)
    error_code = _known_faults(engine, memory, at)
    engine.uc.reg_write(x86_const.UC_X86_REG_DR6, 0xFFFF_0FF1)
    dr6 = engine.save()[at + error_code + env_at.DR6_FROM_ERROR_CODE :][:8].view(np.uint64)[0]
    if int(dr6) != 0xFFFF_0FF1:
        raise _mismatch("DR6")
    return Calibration(at, error_code, cc_op, msrs)


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


def _vmrun(engine: Engine, memory: MachineMemory, frames: np.ndarray) -> None:
    """Execute VMRUN on the VMCB in frames[0]; returns when an exit (or the block hook) stops the engine."""
    vmcb_at, save_at, stub_at = (int(mpn) * PAGE_BYTES for mpn in frames[:3])
    memory.bytes[stub_at : stub_at + 3] = np.frombuffer(VMRUN, np.uint8)
    engine.uc.msr_write(MSR_VM_HSAVE_PA, save_at)
    engine.uc.reg_write(x86_const.UC_X86_REG_RAX, vmcb_at)
    engine.start(stub_at)


class Cpu:
    """One virtual CPU. `control` is the VM's control block, whose engine words this class fills."""

    def __init__(self, memory: MachineMemory, control: np.ndarray, owner: int) -> None:
        places = calibrate()
        self.memory = memory
        self.control = control
        self.engine = Engine(memory)
        self.frames = memory.allocate(EXTRA_FRAMES, owner, FrameUse.VMM)
        self._host = self.engine.uc.context_save()
        self._io = self.engine.uc.context_save()
        self._aside = self.engine.uc.context_save()
        self._scratch = np.zeros(8, np.int64)
        self._places = places
        self._eip = self.registers[env_at.EIP : env_at.EIP + 8].data.cast("B").cast("Q")
        self._fill_control(places)

    def _fill_control(self, places: Calibration) -> None:
        def address(name: str) -> int:
            return ctypes.cast(getattr(uclib, name), ctypes.c_void_p).value or 0

        context = int(self.engine.raw().ctypes.data) + places.env
        live = find_live_state(self.engine, places.env)
        words = {
            cbw.ENGINE: self.engine.uc._uch.value,
            cbw.HOST_CONTEXT: int(self.engine.raw(self._host).ctypes.data),
            cbw.IO_CONTEXT: int(self.engine.raw(self._io).ctypes.data),
            cbw.ASIDE_CONTEXT: int(self.engine.raw(self._aside).ctypes.data),
            cbw.ENV: context,
            cbw.ERROR_CODE: context + places.error_code,
            cbw.LIVE: live.env,
            cbw.LOW_BYTES: places.low_bytes,
            cbw.HIGH_AT: places.high_at,
            cbw.HIGH_BYTES: places.high_bytes,
            cbw.ENGINE_CPU: live.cpu,
            cbw.FN_COPY: ctypes.cast(ctypes.CDLL(None).memmove, ctypes.c_void_p).value or 0,
            cbw.FN_FLUSH_PAGE: flush_page_function(),
            cbw.FN_SAVE: address("uc_context_save"),
            cbw.FN_RESTORE: address("uc_context_restore"),
            cbw.FN_STOP: address("uc_emu_stop"),
            cbw.FN_REG_READ: address("uc_reg_read"),
            cbw.FN_REG_WRITE: address("uc_reg_write"),
            cbw.FN_CTL: address("uc_ctl"),
            cbw.SCRATCH: int(self._scratch.ctypes.data),
            cbw.VMCB: self.memory.address + int(self.frames[0]) * PAGE_BYTES,
            cbw.CC_OP_EFLAGS: places.cc_op_eflags,
            cbw.MEMORY: self.memory.address,
            cbw.LIVE_CR3: live.env + env_at.CR3,
        } | {KEPT_MSRS[number]: context + place for number, place in places.msrs.items()}
        for word, value in words.items():
            self.control[word] = value

    def add_hooks(
        self, *, on_exit: int, on_block: int, on_port_read: int, on_port_write: int, on_syscall: int, on_sysenter: int
    ) -> None:
        """Install the native handlers (addresses of C functions); each is handed the control block."""
        data = int(self.control.ctypes.data)
        self.engine.add_native_hook(UC_HOOK_INTR, on_exit, data)
        self.engine.add_native_hook(UC_HOOK_BLOCK, on_block, data)
        self.engine.add_native_hook(UC_HOOK_INSN, on_port_read, data, x86_const.UC_X86_INS_IN)
        self.engine.add_native_hook(UC_HOOK_INSN, on_port_write, data, x86_const.UC_X86_INS_OUT)
        self.engine.add_native_hook(UC_HOOK_INSN, on_syscall, data, x86_const.UC_X86_INS_SYSCALL)
        self.engine.add_native_hook(UC_HOOK_INSN, on_sysenter, data, x86_const.UC_X86_INS_SYSENTER)

    @property
    def registers(self) -> np.ndarray:
        """CPUX86State of CONTEXT as bytes: the guest's registers at the last exit (see `emu.machine.env`)."""
        return self.engine.raw()[self._places.env :]

    def word_at(self, address: int) -> np.ndarray:
        """The 64-bit word of CONTEXT at a host address, to read and write."""
        at = address - int(self.engine.raw().ctypes.data)
        return self.engine.raw()[at : at + 8].view(np.uint64)

    def enter(self, state: EntryState, nested_root: int = 0) -> None:
        """Start the guest in `state` under nested tables at MA `nested_root` (0: none) and run until the first stop."""
        host = self.engine.raw(self._host)
        self.engine.raw()[:] = host
        registers = self.registers
        for number in range(16):
            registers[8 * number : 8 * number + 8].view(np.uint64)[0] = 0
        registers[env_at.RDX : env_at.RDX + 8].view(np.uint64)[0] = state.rdx
        for at, selector, attributes in (
            (env_at.FS, state.data.selector, state.data.attributes),
            (env_at.GS, state.data.selector, state.data.attributes),
            (env_at.LDTR, 0, 0x82),
            (env_at.TR, 0, 0x8B),
        ):
            registers[at : at + 4].view(np.uint32)[0] = selector
            registers[at + 8 : at + 16].view(np.uint64)[0] = 0
            registers[at + 16 : at + 20].view(np.uint32)[0] = 0xFFFF
            registers[at + 20 : at + 24].view(np.uint32)[0] = (attributes & 0xFF) << 8 | (attributes & 0xF00) << 12
        self.engine.uc.context_restore(self.engine.context)
        self.flush_tlb()
        fill_vmcb(self.memory, MPN(int(self.frames[0])), state, nested_root)
        _vmrun(self.engine, self.memory, self.frames)

    def run(self) -> None:
        """Let the guest go on from CONTEXT's EIP until the next stop; CONTEXT and the engine agree."""
        self.engine.start(self._eip[0])

    def flush_tlb(self) -> None:
        """Drop all of the engine's cached translations of addresses."""
        if uclib.uc_ctl(self.engine.uc._uch, ctypes.c_int(FLUSH_TLB)):
            raise EngineError("unicorn refuses to flush its TLB")

    def close(self) -> None:
        """Give the frames back; the engine must not run any more."""
        self.memory.release(self.frames)
