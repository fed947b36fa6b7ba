# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of several VMs in random interleavings of everything that moves them, against a plain model that holds each page's true contents.

No guest ever reads a byte that it did not write, nor another VM's. The hash is weak, so that collisions are the rule; reference counts overflow at three. Bytes are stored and
loaded by devices, and by a program that the engine runs.
"""

from __future__ import annotations

import struct
import threading

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from emu.config import MIN_SHADOW_PAGES, Mmu, VmConfig
from emu.host.hosted import HostedVm, Phase
from emu.machine import control as cbw
from emu.machine.memory import FrameUse, MachineMemory
from emu.resources.sharing import Sharing
from emu.resources.swap_area import SwapArea
from emu.units import MIB, MPN, PAGE_BYTES
from emu.vm import balloon, check, pmap, swapping, watching
from emu.vm.vm import VirtualMachine

PAGES = 12  # that a VM uses, from FIRST on
FIRST = 0x20  # below 1 MB: the guest is in real mode
MAILBOX = 0x500
# A guest that does what the mailbox says: at +0 what (1 store, 2 load, 0 done), +2 segment, +4 offset, +6 value to be stored, +7 value that was loaded.
PROGRAM = bytes.fromhex(
    "31c0 8ed8 803e000500 74f9 8e060205 8b3e0405 803e000501 7508 a00605 268805 eb06 268a05 a20705 c606000500 ebd5".replace(
        " ", ""
    )
)
ROM = PROGRAM.ljust(0xFF0, b"\xf4") + b"\xe9\x0d\xf0".ljust(16, b"\xf4")
STEP_INSNS = 300
MEMORY = 4 * MIB
CONTENTS = [
    bytes(PAGE_BYTES),
    b"\1" * PAGE_BYTES,
    b"\2" * PAGE_BYTES,
    bytes(range(256)) * 16,
    bytes(range(255)) + b"?" + bytes(range(256)) * 15,
    b"\1" * (PAGE_BYTES - 1) + b"\3",
]

vms = st.integers(1, 3)
pages = st.integers(0, PAGES - 1)


class Machine(RuleBasedStateMachine):
    """Three VMs at the most."""

    @initialize(seed=st.integers(0, 1000), mask=st.sampled_from([0, 1, 7, -1]), mmu=st.sampled_from(list(Mmu)))
    def begin(self, seed: int, mask: int, mmu: Mmu) -> None:
        self.memory = MachineMemory(32 * MIB, debug=True)
        self.sharing = Sharing(self.memory, seed)
        self.sharing.table.weaken(mask)
        self.sharing.table.saturate(3, 2)
        self.mmu = mmu
        self.vms: dict[int, HostedVm] = {}
        self.model: dict[int, dict[int, bytes]] = {}

    def _start(self, number: int) -> HostedVm:
        if number not in self.vms:
            vm = HostedVm(
                f"vm-{number}", number, self.memory, threading.Lock(), 0, 1, 0, 0, SwapArea(None, MEMORY // PAGE_BYTES, 4 * PAGES)
            )  # fmt: skip
            config = VmConfig(
                memory_bytes=MEMORY, mmu=self.mmu, shadow_pages=MIN_SHADOW_PAGES, nested_tables=64, reserve_frames=128
            )
            vm.begin(VirtualMachine(self.memory, config, rom=ROM, firmware_files={}, console=vm.console, number=number, host=vm))
            vm.vm.state.refill()
            vm.vm.balloon.set_target(MEMORY // PAGE_BYTES)
            self.sharing.register(vm.vm.state)
            self.vms[number], self.model[number] = vm, {}
            self._run(vm)
        return self.vms[number]

    def _settle(self) -> None:
        for vm in self.vms.values():
            vm.settle()
            self.sharing.settle(vm.vm.state)
            vm.keep_swap_slots()
            vm.vm.state.refill()

    def _run(self, vm: HostedVm) -> None:
        """Let the guest run until it waits."""
        for _ in range(20):
            vm.run_until(vm.vm.virtual_time + STEP_INSNS)
            assert vm.phase is Phase.RUNNING, vm.why
            self._settle()
            if not vm.vm.is_starved and not vm.vm.read_physical(MAILBOX, 1)[0]:
                return
        raise AssertionError("the guest does not answer")

    def _tell(self, vm: HostedVm, what: int, page: int, at: int, value: int) -> int:
        vm.vm.write_physical(MAILBOX, struct.pack("<HHHBB", what, (FIRST + page) << 8, at, value, 0))
        self._settle()
        self._run(vm)
        return vm.vm.read_physical(MAILBOX + 7, 1)[0]

    @rule(number=vms, page=pages, at=st.integers(0, PAGE_BYTES - 1), value=st.integers(0, 255))
    def guest_stores(self, number: int, page: int, at: int, value: int) -> None:
        self._tell(self._start(number), 1, page, at, value)
        old = self.model[number].get(page, bytes(PAGE_BYTES))
        self.model[number][page] = old[:at] + bytes([value]) + old[at + 1 :]

    @rule(number=vms, page=pages, at=st.integers(0, PAGE_BYTES - 1))
    def guest_loads(self, number: int, page: int, at: int) -> None:
        assert self._tell(self._start(number), 2, page, at, 0) == self.model[number].get(page, bytes(PAGE_BYTES))[at]

    @rule(number=vms, page=pages)
    def watch(self, number: int, page: int) -> None:
        """The sampler waits for an access to the page."""
        watching.watch(self._start(number).vm.control, FIRST + page)

    @rule(number=vms, page=pages, what=st.sampled_from(CONTENTS))
    def write_page(self, number: int, page: int, what: bytes) -> None:
        self._start(number).vm.write_physical((FIRST + page) * PAGE_BYTES, what)
        self.model[number][page] = what
        self._settle()

    @rule(number=vms, page=pages, at=st.integers(0, PAGE_BYTES - 1), value=st.integers(0, 255))
    def write_byte(self, number: int, page: int, at: int, value: int) -> None:
        self._start(number).vm.write_physical((FIRST + page) * PAGE_BYTES + at, bytes([value]))
        old = self.model[number].get(page, bytes(PAGE_BYTES))
        self.model[number][page] = old[:at] + bytes([value]) + old[at + 1 :]
        self._settle()

    @rule(number=vms, page=pages)
    def read(self, number: int, page: int) -> None:
        seen = self._start(number).vm.read_physical((FIRST + page) * PAGE_BYTES, PAGE_BYTES)
        assert seen == self.model[number].get(page, bytes(PAGE_BYTES))
        self._settle()

    @rule(count=st.integers(1, 60))
    def scan(self, count: int) -> None:
        self.sharing.scan(count)

    @rule(number=vms, page=pages)
    def page_out(self, number: int, page: int) -> None:
        vm = self._start(number)
        state = vm.vm.state
        word = int(state.pmap[FIRST + page])
        if word >> pmap.STATE_SHIFT & pmap.STATE_MASK != pmap.PRESENT_PAGE or state.control[cbw.STEPPING]:
            return
        mpn = int(state.pmap[FIRST + page]) & pmap.MPN_MASK
        vm.swap.put(FIRST + page, memoryview(self.memory.frame(MPN(mpn))))  # type: ignore[arg-type]
        assert int(swapping.page_out(state.control, FIRST + page)) == mpn
        self.memory.release(np.array([mpn]))

    @rule(number=vms, page=pages)
    def lock(self, number: int, page: int) -> None:
        vm = self._start(number)
        vm.vm.balloon._pages.lock(FIRST + page, MEMORY // PAGE_BYTES)  # noqa: SLF001
        self.model[number].pop(page, None)
        self._settle()

    @rule(number=vms, page=pages)
    def unlock(self, number: int, page: int) -> None:
        vm = self._start(number)
        vm.vm.balloon._pages.unlock(FIRST + page)  # noqa: SLF001
        self._settle()

    @rule(number=vms)
    def restart(self, number: int) -> None:
        """The driver begins anew: nothing is in the balloon any more."""
        balloon.forget(self._start(number).vm.control)

    @rule(number=vms)
    def stop(self, number: int) -> None:
        vm = self.vms.pop(number, None)
        if vm is not None:
            del self.model[number]
            self.sharing.forget(vm.vm.state)
            vm.release()

    @invariant()
    def all_adds_up(self) -> None:
        if not hasattr(self, "memory"):
            return
        for vm in self.vms.values():
            check.check(vm.vm.state)
            vm.swap.check()
        self.sharing.check()
        uses = self.memory.frames.records["use"]
        private = sum(vm.count(pmap.PRESENT_PAGE) + vm.overhead_pages() for vm in self.vms.values())
        assert private + int(np.sum(uses == FrameUse.SHARED)) + self.memory.frames.free_count == len(self.memory.frames)

    def teardown(self) -> None:
        for number, model in getattr(self, "model", {}).items():
            for page, contents in model.items():
                assert self.vms[number].vm.read_physical((FIRST + page) * PAGE_BYTES, PAGE_BYTES) == contents
        for number in list(getattr(self, "vms", {})):
            self.stop(number)
        if hasattr(self, "memory"):
            assert self.memory.frames.free_count == len(self.memory.frames)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
