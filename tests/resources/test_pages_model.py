# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of several VMs in random interleavings of everything that moves them, against a plain model that holds each page's true contents.

No guest ever reads a byte that it did not write, nor another VM's. The hash is weak, so that collisions are the rule; reference counts overflow at three. Bytes are stored and
loaded by devices, and by a program that the engine runs.
"""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from emu.config import MIN_SHADOW_PAGES, Mmu
from emu.host.hosted import HostedVm
from emu.machine.memory import FrameUse
from emu.units import PAGE_BYTES
from emu.vm import balloon, pmap
from tests.resources.rig import MEMORY, Rig

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
        self.rig = Rig(seed)
        self.rig.sharing.table.weaken(mask)
        self.rig.sharing.table.saturate(3, 2)
        self.mmu = mmu
        self.model: dict[int, dict[int, bytes]] = {}

    def _start(self, number: int) -> HostedVm:
        if number not in self.rig.vms:
            self.model[number] = {}
            self._run(self.rig.start(number, ROM, mmu=self.mmu, shadow_pages=MIN_SHADOW_PAGES))
        return self.rig.vms[number]

    def _run(self, vm: HostedVm) -> None:
        """Let the guest run until it waits."""
        self.rig.run(vm, lambda: not vm.vm.read_physical(MAILBOX, 1)[0])

    def _tell(self, vm: HostedVm, what: int, page: int, at: int, value: int) -> int:
        vm.vm.write_physical(MAILBOX, struct.pack("<HHHBB", what, (FIRST + page) << 8, at, value, 0))
        self.rig.settle()
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
        self.rig.watch(self._start(number), FIRST + page)

    @rule(number=vms, page=pages, what=st.sampled_from(CONTENTS))
    def write_page(self, number: int, page: int, what: bytes) -> None:
        self._start(number).vm.write_physical((FIRST + page) * PAGE_BYTES, what)
        self.model[number][page] = what
        self.rig.settle()

    @rule(number=vms, page=pages, at=st.integers(0, PAGE_BYTES - 1), value=st.integers(0, 255))
    def write_byte(self, number: int, page: int, at: int, value: int) -> None:
        self._start(number).vm.write_physical((FIRST + page) * PAGE_BYTES + at, bytes([value]))
        old = self.model[number].get(page, bytes(PAGE_BYTES))
        self.model[number][page] = old[:at] + bytes([value]) + old[at + 1 :]
        self.rig.settle()

    @rule(number=vms, page=pages)
    def read(self, number: int, page: int) -> None:
        seen = self._start(number).vm.read_physical((FIRST + page) * PAGE_BYTES, PAGE_BYTES)
        assert seen == self.model[number].get(page, bytes(PAGE_BYTES))
        self.rig.settle()

    @rule(count=st.integers(1, 60))
    def scan(self, count: int) -> None:
        self.rig.sharing.scan(count)

    @rule(number=vms, page=pages)
    def page_out(self, number: int, page: int) -> None:
        self.rig.page_out(self._start(number), FIRST + page)

    @rule(number=vms, page=pages)
    def lock(self, number: int, page: int) -> None:
        vm = self._start(number)
        vm.vm.balloon._pages.lock(FIRST + page, MEMORY // PAGE_BYTES)  # noqa: SLF001
        self.model[number].pop(page, None)
        self.rig.settle()

    @rule(number=vms, page=pages)
    def unlock(self, number: int, page: int) -> None:
        vm = self._start(number)
        vm.vm.balloon._pages.unlock(FIRST + page)  # noqa: SLF001
        self.rig.settle()

    @rule(number=vms)
    def restart(self, number: int) -> None:
        """The driver begins anew: nothing is in the balloon any more."""
        balloon.forget(self._start(number).vm.control)

    @rule(number=vms)
    def stop(self, number: int) -> None:
        if self.model.pop(number, None) is not None:
            self.rig.stop(number)

    @invariant()
    def all_adds_up(self) -> None:
        if not hasattr(self, "rig"):
            return
        self.rig.check()
        memory = self.rig.memory
        private = sum(vm.count(pmap.PRESENT_PAGE) + vm.overhead_pages() for vm in self.rig.vms.values())
        shared = int(np.sum(memory.frames.records["use"] == FrameUse.SHARED))
        assert private + shared + memory.frames.free_count == len(memory.frames)

    def teardown(self) -> None:
        for number, model in getattr(self, "model", {}).items():
            for page, contents in model.items():
                assert self.rig.vms[number].vm.read_physical((FIRST + page) * PAGE_BYTES, PAGE_BYTES) == contents
        if hasattr(self, "rig"):
            self.rig.close()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
