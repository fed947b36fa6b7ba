"""The AMD-V CPU: Unicorn's processor, entered with VMRUN.

A `Cpu` owns one engine over machine memory (`emu.machine.engine`). `enter` runs VMRUN once; from then
on the engine is in guest mode, every intercept arrives in the exit hook as 0x100 + exit code with the guest's registers
in place, and the hook lets the guest go on by returning. The guest's registers are read and written in CONTEXT, a copy of
the engine's state made at each exit (`emu.machine.env` has its layout, `emu.machine.calibration` proves it).

    created --enter()--> stopped --run()--> running --exit not served natively, or time--> stopped
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from emu.errors import EngineError, SnapshotError
from emu.machine import aborts, exit_checks, features
from emu.machine import control as cbw
from emu.machine import env as env_at
from emu.machine.calibration import KEPT_MSRS, Calibration, LiveState, calibrate, find_live_state
from emu.machine.engine import (
    EXTRA_FRAMES,
    FLUSH_TLB,
    RESET_STATE,
    UC_HOOK_BLOCK,
    UC_HOOK_EDGE_GENERATED,
    UC_HOOK_INSN,
    UC_HOOK_INSN_INVALID,
    UC_HOOK_INTR,
    Engine,
    EntryState,
    fill_vmcb,
    flush_page_function,
    uclib,
    vmrun,
    x86_const,
)
from emu.machine.memory import FrameUse, MachineMemory
from emu.saving import Giver, Taker
from emu.units import MPN, PAGE_BYTES

__all__ = ["RESET_STATE", "Cpu"]


class Cpu:
    """One virtual CPU. `control` is the VM's control block, whose engine words this class fills.

    `shown` are the words of CPUID that say what instructions there are, as `emu.machine.features` orders them; REASON gets
    `gave_up` when the engine aborts.
    """

    WIRING: ClassVar = frozenset(
        {"memory", "control", "engine", "_host", "_io", "_aside", "_scratch", "_places", "_eip", "_thread"}
    )
    RESIZED: ClassVar = ("frames",)

    def __init__(
        self, memory: MachineMemory, control: np.ndarray, owner: int, code_bytes: int, *, shown: Sequence[int], gave_up: int
    ) -> None:
        places = calibrate()
        self.memory = memory
        self.control = control
        self.engine = Engine(memory, code_bytes)
        exit_checks.turn_off(self.engine, places.exit_check_switch)
        self.frames = memory.allocate(EXTRA_FRAMES, owner, FrameUse.VMM)
        self._host = self.engine.uc.context_save()
        self._io = self.engine.uc.context_save()
        self._aside = self.engine.uc.context_save()
        self._scratch = np.zeros(8, np.int64)
        self._places = places
        self._eip = self.registers[env_at.EIP : env_at.EIP + 8].data.cast("B").cast("Q")
        guard = aborts.guard(gave_up)
        self._thread = guard.thread_word(self, control) if guard else ctypes.c_int64()
        live = self._fill_control(places)
        features.limit(live.env, places.features, shown)

    def _fill_control(self, places: Calibration) -> LiveState:
        def address(name: str) -> int:
            return ctypes.cast(getattr(uclib, name), ctypes.c_void_p).value or 0

        context = int(self.engine.raw().ctypes.data) + places.env
        live = find_live_state(self.engine, places.env)
        words = {
            cbw.ENGINE: self.engine.handle.value,
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
            cbw.CC_OP_EFLAGS: places.cc_op_eflags,
            cbw.MEMORY: self.memory.address,
            cbw.INTERCEPTS_AT: live.env + places.intercepts,
        } | {KEPT_MSRS[number]: context + place for number, place in places.msrs.items()}
        for word, value in words.items():
            self.control[word] = value
        self._show_vmcb()
        return live

    def _show_vmcb(self) -> None:
        self.control[cbw.VMCB] = self.memory.address + int(self.frames[0]) * PAGE_BYTES

    def add_hooks(
        self,
        *,
        on_exit: int,
        on_invalid: int,
        on_block: int,
        on_translated: int,
        on_port_read: int,
        on_port_write: int,
        on_syscall: int,
        on_sysenter: int,
    ) -> None:
        """Install the native handlers (addresses of C functions); each is handed the control block."""
        data = int(self.control.ctypes.data)
        self.engine.add_native_hook(UC_HOOK_INTR, on_exit, data)
        self.engine.add_native_hook(UC_HOOK_INSN_INVALID, on_invalid, data)
        self.engine.add_native_hook(UC_HOOK_BLOCK, on_block, data)
        self.engine.add_native_hook(UC_HOOK_EDGE_GENERATED, on_translated, data)
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
        self._thread.value = threading.get_ident()
        try:
            vmrun(self.engine, self.memory, self.frames)
        finally:
            self._thread.value = 0

    def run(self) -> None:
        """Let the guest go on from CONTEXT's EIP until the next stop; CONTEXT and the engine agree."""
        self._thread.value = threading.get_ident()
        try:
            self.engine.start(self._eip[0])
        finally:
            self._thread.value = 0

    def flush_tlb(self) -> None:
        """Drop all of the engine's cached translations of addresses."""
        if uclib.uc_ctl(self.engine.handle, ctypes.c_int(FLUSH_TLB)):
            raise EngineError("unicorn refuses to flush its TLB")

    def saved_extra(self, taker: Taker) -> dict[str, int]:
        """For a snapshot: all registers, of which CONTEXT has the part that the VMM works on, and the engine the others."""
        whole = self.engine.uc.context_save()
        live = self.engine.raw(whole)[self._places.env :].copy()
        high = self._places.high_at
        for part in (slice(0, self._places.low_bytes), slice(high, high + self._places.high_bytes)):
            live[part] = self.registers[part]
        live[-8:] = 0  # where in translated code the last helper was called from
        return {"registers": taker.array(live)}

    def give_extra(self, data: dict[str, int], giver: Giver) -> None:
        """From a snapshot: the engine is where that one's was, its caches empty."""
        saved = giver.arrays[data["registers"]]
        if saved.shape != self.registers.shape:
            raise SnapshotError("the snapshot is of another build of Unicorn")
        self.registers[:] = saved
        self.engine.uc.context_restore(self.engine.context)
        self.flush_tlb()
        self._show_vmcb()

    def close(self) -> None:
        """Give the frames back; the engine must not run any more."""
        self.memory.release(self.frames)
