"""The proof that the engine is the one the design rests on, and the places of what no interface of it names.

`calibrate` runs once in a process: it finds the registers in a saved context, the error code of a fault by causing known ones, the
model-specific registers by writing them, and refuses a library in which one of them is elsewhere. `find_live_state` is for each engine.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emu.machine import control as cbw
from emu.machine import env as env_at
from emu.machine import exit_checks, features, paging, vmcb
from emu.machine.engine import (
    ALL_INTERCEPTS,
    EXTRA_FRAMES,
    MSR_EFER,
    UC_HOOK_INTR,
    Engine,
    EntryState,
    Segment,
    fill_vmcb,
    flush_page_function,
    mismatch,
    vmrun,
)
from emu.machine.engine import x86_const as reg
from emu.machine.memory import FrameUse, MachineMemory
from emu.units import MIB, MPN, PAGE_BYTES

KEPT_MSRS = {  # model-specific registers that the engine keeps in its state: number, and the control block's word for the place
    MSR_EFER: cbw.EFER_AT,
    0xC000_0081: cbw.STAR_AT,
    0xC000_0102: cbw.KERNEL_GS_BASE_AT,
    0x174: cbw.SYSENTER_CS_AT,
    0x175: cbw.SYSENTER_ESP_AT,
    0x176: cbw.SYSENTER_EIP_AT,
}
LARGEST_CPU = 1 << 20  # bytes of the engine's object for one
KNOWN_CODES = [0, 2, 3]  # of the page faults that the calibrating guest causes


@dataclass(frozen=True)
class Calibration:
    """Places in a saved context that no interface names."""

    env: int  # CPUX86State
    error_code: int  # from CPUX86State
    intercepts: int  # from CPUX86State: the word of intercepts that VMRUN read from the VMCB
    cc_op_eflags: int
    msrs: dict[int, int]  # number to place, from CPUX86State
    exit_check_switch: int  # from the engine's handle, see `emu.machine.exit_checks`; 0: none
    features: int  # words of what the processor has, from CPUX86State, see `emu.machine.features`

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


def _readable_ranges() -> np.ndarray:
    """Address ranges of this process that can be read, ascending, each with its end; neighbours are one, as a heap block may lie across them."""
    ranges: list[tuple[int, int]] = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        span, rights = line.split()[:2]
        low, high = (int(end, 16) for end in span.split("-"))
        if rights[0] == "r":
            first = ranges.pop()[0] if ranges and ranges[-1][1] == low else low
            ranges.append((first, high))
    return np.array(ranges, np.uint64)


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
    base = int(engine.handle.value or 0)
    found = set()
    words = np.frombuffer(ctypes.string_at(base, _block_bytes(base) // 8 * 8), np.uint64)
    words = words[(words % 16 == 0) & (words > ranges[0, 0])]
    lows, highs = ranges[np.searchsorted(ranges[:, 0], words, "right") - 1].T
    for pointer, low, high in zip(words.tolist(), lows.tolist(), highs.tolist(), strict=True):
        if not low + 8 < pointer < high:
            continue
        size = _block_bytes(pointer)
        if len(state) <= size < LARGEST_CPU and pointer + size <= high:
            place = ctypes.string_at(pointer, size).find(state)
            if place >= 0:
                found.add(LiveState(pointer, pointer + place))
    live = [place for place in found if _follows(engine, place.env)]
    if len(live) != 1:
        raise mismatch(f"the place of its state: {len(found)} found, {len(live)} live")
    return live[0]


def _follows(engine: Engine, place: int) -> bool:
    """Whether a copy of the state is the engine's own: it changes when a register does."""
    rax = ctypes.c_uint64.from_address(place + env_at.RAX)
    before = engine.uc.reg_read(reg.UC_X86_REG_RAX)
    engine.uc.reg_write(reg.UC_X86_REG_RAX, before ^ 0x5A5A)
    follows = bool(rax.value == before ^ 0x5A5A)
    engine.uc.reg_write(reg.UC_X86_REG_RAX, before)
    return follows


def _block_bytes(pointer: int) -> int:
    """Usable bytes of the heap block at an address, by the size word that glibc keeps before it."""
    return (ctypes.c_uint64.from_address(pointer - 8).value & ~0x7) - 8


def _find(raw: np.ndarray, width: Any, value: int, what: str) -> int:
    hits = np.flatnonzero(raw[: len(raw) // 8 * 8].view(width) == value)
    if not len(hits):
        raise mismatch(what)
    return int(hits[0]) * int(np.dtype(width).itemsize)


def _prove_layout(engine: Engine) -> tuple[int, int]:
    """Write registers through the public interface and find each where `emu.machine.env` says; (env, cc_op)."""
    uc = engine.uc
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
            raise mismatch(f"register {register}")
        uc.reg_write(register, before)
    for name, register, offset in (
        ("GDTR", reg.UC_X86_REG_GDTR, env_at.GDTR),
        ("IDTR", reg.UC_X86_REG_IDTR, env_at.IDTR),
    ):
        before = uc.reg_read(register)
        uc.reg_write(register, (0, 0x12345000, 0x3FF, 0))
        raw = engine.save()[at + offset :]
        if int(raw[8:16].view(np.uint64)[0]) != 0x12345000 or int(raw[16:20].view(np.uint32)[0]) != 0x3FF:
            raise mismatch(name)
        uc.reg_write(register, before)
    uc.reg_write(reg.UC_X86_REG_EFLAGS, 0x0D7)
    cc_op = int(engine.save()[at + env_at.CC_OP :][:4].view(np.uint32)[0])
    raw = engine.save()[at:]
    if int(raw[env_at.CC_SRC :][:8].view(np.uint64)[0]) != 0x0D5:
        raise mismatch("EFLAGS")
    return at, cc_op


def flush_page(cpu: int, address: int) -> None:
    """Have the engine with CPUState `cpu` forget the translation of one address."""
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
            raise mismatch(f"MSR {number:#x}")
        places[number] = place
    return places


def _known_faults(engine: Engine, memory: MachineMemory, at: int) -> tuple[int, int]:
    """Run a guest whose page faults have known error codes; returns where error_code and the intercepts lie from CPUX86State."""
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

    def on_exit(uc: Any, number: int, _: object) -> None:
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
            flush_page(find_live_state(engine, at).cpu, 0x1000)

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
    vmrun(engine, memory, cpu_frames)
    engine.uc.hook_del(hook)
    if codes != KNOWN_CODES or len(contexts) != len(codes) + 1:
        raise mismatch("page faults under AMD-V")
    rows = np.array([raw[at:][: (len(raw) - at) // 4 * 4].view(np.uint32) for raw in contexts])
    hits = [column for column in range(rows.shape[1]) if list(rows[:-1, column]) == codes]
    if len(hits) != 1:
        raise mismatch("the error code of a fault")
    last = rows[-1][hits[0] :]
    is_int, next_eip = env_at.IS_INT_FROM_ERROR_CODE // 4, env_at.NEXT_EIP_FROM_ERROR_CODE // 4
    if int(last[is_int]) != 1 or int(last[next_eip]) != len(program):
        raise mismatch("INT n")
    if flush_page_function() and int(contexts[-1][at:][:8].view(np.uint64)[0]) & -PAGE_BYTES != table:
        raise mismatch("the flush of one page")
    words = contexts[0][at:][: (len(contexts[0]) - at) // 8 * 8].view(np.uint64)
    intercepts = np.flatnonzero(words == ALL_INTERCEPTS)
    if len(intercepts) != 1:
        raise mismatch("the intercepts")
    memory.release(cpu_frames)
    return int(hits[0]) * 4, int(intercepts[0]) * 8


@functools.cache
def calibrate() -> Calibration:
    """Prove this library once per process; raises EngineError when it differs from what the design rests on."""
    memory = MachineMemory(4 * MIB)
    engine = Engine(memory)
    at, cc_op = _prove_layout(engine)
    msrs = _find_msrs(engine, at)
    error_code, intercepts = _known_faults(engine, memory, at)
    engine.uc.reg_write(reg.UC_X86_REG_DR6, 0xFFFF_0FF1)
    dr6 = engine.save()[at + error_code + env_at.DR6_FROM_ERROR_CODE :][:8].view(np.uint64)[0]
    if int(dr6) != 0xFFFF_0FF1:
        raise mismatch("DR6")
    plain = Engine(memory)
    words = features.find(plain, memory, find_live_state(plain, at).env)
    return Calibration(at, error_code, intercepts, cc_op, msrs, exit_checks.find_switch(memory), words)
