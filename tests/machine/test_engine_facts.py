# SPDX-License-Identifier: GPL-2.0-or-later
"""What the design takes for granted of the engine, a fact a test: if a new Unicorn changes one, this says which.

A probe is one engine over machine memory that enters a guest with VMRUN, as `emu.machine.cpu` does, with a hook in
Python that notes each exit and stops.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emu.errors import EngineError
from emu.machine import calibration, engine, env, exit_checks, features, paging, vmcb
from emu.machine import control as cbw
from emu.machine.cpu import Cpu
from emu.machine.memory import FrameUse, MachineMemory
from emu.units import MIB, MPN, PAGE_BYTES

unicorn = pytest.importorskip("unicorn")
x86 = pytest.importorskip("unicorn.x86_const")

ROOT = Path(__file__).resolve().parents[2]
CODE = 0x20_0000  # far above the frames that the probe allocates
PDPT, DIRECTORY, TABLE = 0x30_0000, 0x30_1000, 0x30_2000
NESTED = 0x31_0000  # PML4, PDPT, directory, table: four pages
GUEST_DIRECTORY, GUEST_TABLE = 0x32_0000, 0x32_1000
NX = -(1 << 63)
CR0 = paging.CR0_PE | paging.CR0_ET
PAGED = CR0 | paging.CR0_PG | paging.CR0_WP
HF2_NESTED = env.HF2_NESTED


class Probe:
    """A guest of a few bytes of 32-bit code at CODE, flat, with or without paging."""

    def __init__(self, code: str, *, cr0: int = CR0, cr3: int = 0, cr4: int = 0, nested: int | None = None) -> None:
        self.memory = MachineMemory(8 * MIB)
        self.words = self.memory.words
        self.engine = engine.Engine(self.memory)
        self.uc = self.engine.uc
        self.places = calibration.calibrate()
        self.frames = self.memory.allocate(engine.EXTRA_FRAMES, 0, FrameUse.VMM)
        self.exits: list[int] = []
        self.uc.hook_add(unicorn.UC_HOOK_INTR, self._on_exit)
        self.load(CODE, code)
        flat = engine.Segment(0x10, 0, 0xFFFF_FFFF, 0xC93)
        cs = engine.Segment(8, 0, 0xFFFF_FFFF, 0xC9B)
        state = engine.EntryState(rip=CODE, cs=cs, data=flat, cr0=cr0, cr3=cr3, cr4=cr4, rsp=0x7000)
        engine.fill_vmcb(self.memory, MPN(int(self.frames[0])), state, nested)

    def _on_exit(self, uc: Any, number: int, _: object) -> None:
        self.exits.append(number)
        uc.emu_stop()

    def load(self, at: int, code: str) -> None:
        data = bytes.fromhex(code)
        self.memory.bytes[at : at + len(data)] = np.frombuffer(data, np.uint8)

    def start(self) -> int:
        """Enter the guest; the exit's number."""
        engine.vmrun(self.engine, self.memory, self.frames)
        return self.exits[-1]

    def go_on(self, at: int) -> int:
        self.uc.emu_start(at, 0)
        return self.exits[-1]

    @property
    def rip(self) -> int:
        return int(self.uc.reg_read(x86.UC_X86_REG_RIP))

    def register(self, name: str) -> int:
        return int(self.uc.reg_read(getattr(x86, f"UC_X86_REG_{name}")))

    @property
    def exit_address(self) -> int:
        return int(self.words[(int(self.frames[0]) * PAGE_BYTES + vmcb.EXIT_INFO_2) // 8])

    def field(self, offset: int, kind: str) -> int:
        """A field of the saved context, from CPUX86State."""
        raw = self.engine.save()[self.places.env :]
        return int(raw[offset : offset + 8].view(kind)[0])

    @property
    def error_code(self) -> int:
        return self.field(self.places.error_code, "<u4")

    def map_identity(self) -> None:
        """Three-level shadow tables for the first 2 MB and for CODE."""
        self.words[PDPT // 8] = DIRECTORY | 1
        self.words[DIRECTORY // 8 : DIRECTORY // 8 + 2] = (TABLE | 7, TABLE + 0x1000 | 7)
        self.words[TABLE // 8 : TABLE // 8 + 1024] = (np.arange(1024, dtype=np.int64) << 12) | 7

    def map_nested(self, flags: int = 0) -> None:
        for level in range(3):
            self.words[(NESTED + level * PAGE_BYTES) // 8] = NESTED + (level + 1) * PAGE_BYTES | 7
        self.words[(NESTED + 2 * PAGE_BYTES) // 8 + 1] = NESTED + 4 * PAGE_BYTES | 7
        self.words[(NESTED + 3 * PAGE_BYTES) // 8 :][:1024] = (np.arange(1024, dtype=np.int64) << 12) | 7 | flags


def paged(code: str) -> Probe:
    probe = Probe(code, cr0=PAGED, cr3=PDPT, cr4=paging.CR4_PAE)
    probe.map_identity()
    return probe


@pytest.mark.parametrize(
    ("code", "number"),
    [
        ("0fa2", vmcb.EXIT_CPUID),
        ("f4", vmcb.EXIT_HLT),
        ("0f31", vmcb.EXIT_RDTSC),
        ("0f013d00000000", vmcb.EXIT_INVLPG),
        ("0f32", vmcb.EXIT_MSR),
        ("0f22d8", vmcb.EXIT_CR_WRITE + 3),
        ("0f20d8", vmcb.EXIT_CR_READ + 3),
        ("0f22c0", vmcb.EXIT_CR_WRITE),
        ("0f0b", vmcb.EXIT_EXCEPTION + 6),
        ("0f01d8", vmcb.EXIT_VMRUN),
    ],
)
def test_an_exit_is_0x100_plus_the_manual_s_code_and_precise(code: str, number: int) -> None:
    probe = Probe("b807000000 90" + code)
    assert probe.start() == number
    assert probe.rip == CODE + 6
    assert probe.register("RAX") == 7


def test_page_faults_give_address_and_error_code() -> None:
    probe = paged("a100104000 a300104000 a300104000")
    assert probe.start() == vmcb.EXIT_EXCEPTION + 14
    assert (probe.exit_address, probe.error_code, probe.rip) == (0x401000, 0, CODE)
    assert probe.register("CR2") == 0
    probe.words[DIRECTORY // 8 + 2] = TABLE + 0x2000 | 7
    probe.words[(TABLE + 0x2000) // 8 + 1] = 0x5000 | 5
    assert probe.go_on(CODE) == vmcb.EXIT_EXCEPTION + 14
    assert (probe.exit_address, probe.error_code, probe.rip) == (0x401000, 3, CODE + 5)


def test_a_fetch_from_an_nx_page_has_the_fetch_bit() -> None:
    probe = paged("b800604000 ffe0")
    probe.words[DIRECTORY // 8 + 2] = TABLE + 0x2000 | 7
    probe.words[(TABLE + 0x2000) // 8 + 6] = 0x6000 | 7 | NX
    assert probe.start() == vmcb.EXIT_EXCEPTION + 14
    assert (probe.exit_address, probe.error_code) == (0x406000, 0x11)


def test_int_n_arrives_as_its_vector_and_stays_marked() -> None:
    probe = paged("cd41 a100104000")
    assert probe.start() == 0x41
    mark = probe.places.error_code + env.IS_INT_FROM_ERROR_CODE
    assert probe.field(mark, "<u4") == 1
    assert probe.field(probe.places.error_code + env.NEXT_EIP_FROM_ERROR_CODE, "<u8") == CODE + 2


def test_nested_paging_can_be_turned_off_and_on_in_the_context() -> None:
    probe = Probe("a100100000 0fa2 a100100000 0fa2", nested=NESTED)
    probe.map_nested()
    probe.words[(NESTED + 3 * PAGE_BYTES) // 8 + 1] = 0x9000 | 7  # PA 1000 is at MA 9000
    probe.words[0x9000 // 8], probe.words[0x1000 // 8] = 0x99, 0x11
    assert probe.start() == vmcb.EXIT_CPUID
    assert probe.register("RAX") == 0x99
    for flag, expected in ((0, 0x11), (HF2_NESTED, 0x99)):
        raw = probe.engine.save()[probe.places.env :]
        flags = raw[env.HFLAGS2 : env.HFLAGS2 + 4].view("<u4")
        flags[0] = int(flags[0]) & ~HF2_NESTED | flag
        probe.uc.context_restore(probe.engine.context)
        flush_tlb(probe)
        assert probe.go_on(CODE + 7) == vmcb.EXIT_CPUID
        assert probe.register("RAX") == expected


def flush_tlb(probe: Probe) -> None:
    assert engine.uclib.uc_ctl(probe.uc._uch, ctypes.c_int(engine.FLUSH_TLB)) == 0


def test_a_nested_fault_gives_the_guest_physical_address() -> None:
    probe = Probe("a300600000", nested=NESTED)
    probe.map_nested()
    probe.words[(NESTED + 3 * PAGE_BYTES) // 8 + 6] = 0
    assert probe.start() == vmcb.EXIT_NESTED_FAULT
    assert (probe.exit_address, probe.rip) == (0x6000, CODE)


def test_the_trap_flag_gives_a_debug_exit_after_one_instruction() -> None:
    probe = Probe("0fa2 40 40 40")
    assert probe.start() == vmcb.EXIT_CPUID
    probe.uc.reg_write(x86.UC_X86_REG_EFLAGS, probe.register("EFLAGS") | paging.EFLAGS_TF)
    assert probe.go_on(CODE + 2) == vmcb.EXIT_EXCEPTION + 1
    assert probe.rip == CODE + 3
    assert probe.register("RAX") == 1


def test_host_stores_do_not_drop_translated_code_until_it_is_flushed() -> None:
    probe = Probe("b801000000 f4")
    probe.start()
    assert probe.register("RAX") == 1
    probe.memory.bytes[CODE + 1] = 2
    probe.go_on(CODE)
    assert probe.register("RAX") == 1  # stale
    probe.uc.ctl_flush_tb()
    probe.go_on(CODE)
    assert probe.register("RAX") == 2


def test_a_saved_context_brings_back_all_registers() -> None:
    probe = Probe("f4")
    probe.start()
    names = ("RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP")
    for number, name in enumerate(names):
        probe.uc.reg_write(getattr(x86, f"UC_X86_REG_{name}"), 0x1000 + number)
    probe.uc.reg_write(x86.UC_X86_REG_XMM3, (1 << 127) | 5)
    probe.uc.reg_write(x86.UC_X86_REG_EFLAGS, 0x8D7)
    saved = probe.uc.context_save()
    for name in names:
        probe.uc.reg_write(getattr(x86, f"UC_X86_REG_{name}"), 0)
    probe.uc.reg_write(x86.UC_X86_REG_XMM3, 0)
    probe.uc.reg_write(x86.UC_X86_REG_EFLAGS, 2)
    probe.uc.context_restore(saved)
    assert [probe.register(name) for name in names] == [0x1000 + number for number in range(len(names))]
    assert probe.register("XMM3") == (1 << 127) | 5
    assert probe.register("EFLAGS") & paging.EFLAGS_ARITHMETIC == 0x8D5


def test_one_page_can_leave_the_tlb_alone() -> None:
    """The engine's tlb_flush_page, which no interface offers; `registers.sync_address` does without where it is not shown."""
    # mov eax,[1000] ; mov ebx,[2000] ; cpuid ; mov eax,[1000] ; mov ebx,[2000] ; hlt
    probe = paged("a100100000 8b1d00200000 0fa2 a100100000 8b1d00200000 f4")
    for page, value in ((0x100, 1), (0x101, 2), (0x102, 3)):
        probe.words[page * PAGE_BYTES // 8] = value
    probe.words[TABLE // 8 + 1 : TABLE // 8 + 3] = (0x100 << 12 | 7, 0x101 << 12 | 7)
    assert probe.start() == vmcb.EXIT_CPUID
    assert (probe.register("RAX"), probe.register("RBX")) == (1, 2)
    probe.words[TABLE // 8 + 1 : TABLE // 8 + 3] = (0x102 << 12 | 7, 0x102 << 12 | 7)
    assert engine.flush_page_function()
    calibration.flush_page(calibration.find_live_state(probe.engine, probe.places.env).cpu, 0x1000)
    assert probe.go_on(probe.rip + 2) == vmcb.EXIT_HLT
    assert (probe.register("RAX"), probe.register("RBX")) == (3, 2)


def test_loads_and_stores_need_not_look_for_a_stop() -> None:
    """Found in this library, and on in the engine of a VM: its absence would cost a third of the speed and nothing else."""
    memory = MachineMemory(4 * MIB)
    switch = exit_checks.find_switch(memory)
    assert switch == calibration.calibrate().exit_check_switch != 0
    cpu = Cpu(memory, np.zeros(cbw.WORDS, np.int64), 1, engine.SMALLEST_CODE_BUFFER, shown=[0] * features.WORDS, gave_up=1)
    assert ctypes.c_uint8.from_address(int(cpu.engine.handle.value or 0) + switch).value == 1


def test_a_library_without_the_switch_is_used_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MachineMemory(4 * MIB)
    monkeypatch.setattr(exit_checks, "READER", "no_such_function")
    assert exit_checks.find_switch(memory) == 0
    monkeypatch.setattr(exit_checks, "READER", "uc_version")  # compares no byte, or another
    assert exit_checks.find_switch(memory) == 0
    plain = engine.Engine(memory)
    before = ctypes.string_at(int(plain.handle.value or 0), 0x1000)
    exit_checks.turn_off(plain, 0)
    assert ctypes.string_at(int(plain.handle.value or 0), 0x1000) == before


def nested_under_guest_paging(flags: int) -> Probe:
    """A guest that pages for itself, at identity, under nested tables with `flags` in every leaf."""
    probe = Probe("a100100000 f4", cr0=PAGED, cr3=GUEST_DIRECTORY, nested=NESTED)
    probe.map_nested(flags)
    probe.memory.bytes[GUEST_DIRECTORY : GUEST_DIRECTORY + 4] = np.frombuffer(struct.pack("<I", GUEST_TABLE | 7), "u1")
    entries = (np.arange(1024, dtype="<u4") << 12) | 7
    probe.memory.bytes[GUEST_TABLE : GUEST_TABLE + PAGE_BYTES] = entries.view("u1")
    return probe


def test_a_guest_s_own_paging_under_nested_tables() -> None:
    assert nested_under_guest_paging(0).start() == vmcb.EXIT_HLT


def test_nx_in_a_nested_leaf_under_guest_paging_crashes_the_process() -> None:
    """Why nested leaves carry no NX while the guest pages (`emu.vm.nested`). If this fails, they may again."""
    code = (
        "import importlib.util as u, sys; s = u.spec_from_file_location('facts', sys.argv[1]);"
        "m = u.module_from_spec(s); s.loader.exec_module(m); m.nested_under_guest_paging(m.NX).start(); print('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, __file__],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (-signal.SIGSEGV, -signal.SIGABRT), (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("name", ["RSP", "EIP", "CR2", "CR3", "GDTR", "IDTR", "IS_INT_FROM_ERROR_CODE", "DR6_FROM_ERROR_CODE"])
def test_a_library_that_keeps_its_state_elsewhere_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, name, getattr(env, name) + 8)
    with pytest.raises(EngineError) as raised:
        calibration.calibrate.__wrapped__()
    message = str(raised.value)
    assert message.startswith(f"unicorn {unicorn.__version__} keeps its state in another way")
    assert "install unicorn" in message
    assert "\n" not in message


def test_calibration_gives_its_frames_back_and_is_repeatable() -> None:
    assert calibration.calibrate.__wrapped__() == calibration.calibrate()


def test_far_transfers_to_tasks_fault_first_with_lma_in_efer_alone() -> None:
    """LMA in EFER without the hidden flag: #GP of the selector, and neither registers nor segments have changed."""
    for code in ("9a000000004800", "ea000000004800"):
        probe = Probe("0fa2" + code)
        task = 0x9048
        probe.words[task // 8] = 0x0000_8900_A000_0067  # available, at A000
        assert probe.start() == vmcb.EXIT_CPUID
        raw = probe.engine.save()[probe.places.env :]
        raw[env.GDTR + env.BASE :][:8].view("<u8")[0] = 0x9000
        raw[probe.places.msrs[engine.MSR_EFER] :][:8].view("<u8")[0] |= paging.EFER_LMA
        probe.uc.context_restore(probe.engine.context)
        assert probe.go_on(CODE + 2) == vmcb.EXIT_EXCEPTION + 13
        assert (probe.rip, probe.error_code) == (CODE + 2, 0x48)
        assert probe.words[task // 8] == 0x0000_8900_A000_0067
        assert not probe.words[0xA000 // 8 :][:13].any()


def test_iret_exits_while_its_bit_is_set_in_the_engine_s_own_word() -> None:
    probe = Probe("0fa2 6800400000 9d cf")  # push 4000h (NT); popf; iret
    assert probe.start() == vmcb.EXIT_CPUID
    live = calibration.find_live_state(probe.engine, probe.places.env).env + probe.places.intercepts
    word = ctypes.c_uint64.from_address(live)
    assert word.value == engine.ALL_INTERCEPTS
    word.value |= vmcb.INTERCEPT_IRET
    assert probe.go_on(CODE + 2) == vmcb.EXIT_IRET
    assert probe.rip == CODE + 8
    assert probe.field(env.EFLAGS, "<u8") & paging.EFLAGS_NT


def test_int_6_comes_by_the_hook_for_invalid_instructions() -> None:
    """With RIP on the INT, and where it goes on beside it; the engine goes on when the hook says so."""
    probe = Probe("90 cd06 f4")
    at = probe.places.error_code
    seen: list[tuple[int, int, int]] = []

    def on_invalid(uc: Any, _: object) -> bool:
        seen.append(
            (
                probe.rip,
                probe.field(at + env.IS_INT_FROM_ERROR_CODE, "<u4"),
                probe.field(at + env.NEXT_EIP_FROM_ERROR_CODE, "<u8"),
            )
        )
        uc.reg_write(x86.UC_X86_REG_RIP, CODE + 3)
        return True

    probe.uc.hook_add(unicorn.UC_HOOK_INSN_INVALID, on_invalid)
    assert probe.start() == vmcb.EXIT_HLT
    assert seen == [(CODE + 1, 1, CODE + 3)]
    assert probe.exits == [vmcb.EXIT_HLT]


@pytest.mark.parametrize("code", ["f30fb8c0", "660f3840c0", "c4e278f2c0"], ids=["popcnt", "pmulld", "andn"])
def test_the_engine_has_the_instructions_that_its_feature_words_show(code: str) -> None:
    probe = Probe(code + "f4")
    state = calibration.find_live_state(probe.engine, probe.places.env).env
    features.limit(state, probe.places.features, [0] * features.WORDS)
    assert probe.start() == vmcb.EXIT_EXCEPTION + 6
    assert probe.rip == CODE


def test_code_ends_where_the_engine_is_told_so() -> None:
    probe = Probe("90 40 43 40 f4")
    probe.engine.end_code_at(CODE + 2)
    assert probe.start() == vmcb.EXIT_HLT
    assert (probe.rip, probe.register("RAX"), probe.register("RBX")) == (CODE + 2, 1, 0)
    assert probe.go_on(CODE + 2) == vmcb.EXIT_HLT
    assert probe.rip == CODE + 2
    probe.engine.run_through(CODE + 2)
    probe.uc.ctl_remove_cache(CODE, CODE + PAGE_BYTES)
    probe.go_on(CODE + 2)
    assert (probe.rip, probe.register("RAX"), probe.register("RBX")) == (CODE + 4, 2, 1)


def test_an_abort_leaves_the_state_before_the_block() -> None:
    """LOCK BTS of a register behind two INCs: nothing of the block is carried out, and the engine runs on afterwards."""
    code = """
import threading
import numpy as np
from emu.machine import aborts, calibration
from emu.machine import control as cbw
from tests.machine.test_engine_facts import CODE, Probe
import ctypes
from emu.machine.engine import uclib
probe = Probe("40 40 f00fabc8 40 f4")
control = np.zeros(cbw.WORDS, np.int64)
control[cbw.ENGINE], control[cbw.IO_NOW] = probe.engine.handle.value, -1
control[cbw.ENGINE_CPU] = calibration.find_live_state(probe.engine, probe.places.env).cpu
guard = aborts.guard(7)
thread = guard.thread_word(probe, control)
thread.value = threading.get_ident()
try:
    probe.start()
except IndexError:
    pass  # no exit came
assert control[cbw.REASON] == 7
assert (probe.rip, probe.register("RAX"), probe.exits) == (CODE, 0, []), (probe.rip, probe.register("RAX"), probe.exits)
probe.engine.end_code_at(CODE + 2)
probe.go_on(CODE)
assert (probe.rip, probe.register("RAX")) == (CODE + 2, 2)
thread.value = 0
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_the_engine_tells_of_each_translation() -> None:
    """Also of one that a store of the guest's own made necessary."""
    probe = Probe("90 eb00 40 f4")
    told: list[int] = []
    probe.uc.hook_add(unicorn.UC_HOOK_EDGE_GENERATED, lambda _uc, block, _before, _data: told.append(int(block.pc)))
    probe.start()
    assert told == [CODE, CODE + 3]
    told.clear()
    probe.go_on(CODE)
    assert told == []
    probe.load(CODE + 0x40, "c605" + (CODE + 3).to_bytes(4, "little").hex() + "43 ebb7")  # MOV $43h, CODE + 3; JMP CODE
    probe.go_on(CODE + 0x40)
    assert told == [CODE + 0x40, CODE + 3]
    assert probe.register("RBX") == 1


def test_iret_lets_nmis_in_again() -> None:
    probe = Probe("f4 cf")
    probe.start()
    raw = probe.engine.save()[probe.places.env :]
    raw[env.HFLAGS2 : env.HFLAGS2 + 4].view("<u4")[0] |= env.HF2_NMI
    probe.uc.context_restore(probe.engine.context)
    assert probe.field(env.HFLAGS2, "<u4") & env.HF2_NMI
    for at, value in ((0x7000, CODE), (0x7004, 8), (0x7008, 2)):
        probe.load(at, value.to_bytes(4, "little").hex())
    probe.load(0x6000, "0000000000000000ffff0000009bcf00")
    probe.uc.reg_write(x86.UC_X86_REG_GDTR, (0, 0x6000, 0xF, 0))
    probe.go_on(CODE + 1)
    assert probe.rip == CODE
    assert not probe.field(env.HFLAGS2, "<u4") & env.HF2_NMI
