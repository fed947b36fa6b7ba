# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosted VMs whose pages a test shares, pages out and watches itself, between the slices in which they run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from emu.config import Mmu, VmConfig
from emu.host.hosted import HostedVm, Phase
from emu.machine import control as cbw
from emu.machine.memory import MachineMemory
from emu.resources.sharing import Sharing
from emu.resources.swap_area import SwapArea
from emu.units import MIB, MPN, PAGE_BYTES
from emu.vm import check, pmap, swapping, watching
from emu.vm.vm import VirtualMachine

MEMORY = 4 * MIB
SWAP_PAGES = 64
STEP_INSNS = 300  # of one slice
SLICES = 40  # after which a guest is thought to hang
SCANNED = 10_000  # pages: more than there are


class Rig:
    """A machine with its VMs."""

    def __init__(self, seed: int = 1) -> None:
        self.memory = MachineMemory(32 * MIB, debug=True)
        self.sharing = Sharing(self.memory, seed)
        self.vms: dict[int, HostedVm] = {}
        self.records: dict[int, list[np.ndarray]] = {}

    def start(self, number: int, rom: bytes, *, mmu: Mmu = Mmu.SHADOW, **settings: Any) -> HostedVm:
        """A VM with this ROM, which has not run yet."""
        vm = HostedVm(
            f"vm-{number}", number, self.memory, threading.Lock(), 0, 1, 0, 0, SwapArea(None, MEMORY // PAGE_BYTES, SWAP_PAGES)
        )  # fmt: skip
        chosen = {"shadow_pages": 32, "nested_tables": 64, "reserve_frames": 128} | settings
        config = VmConfig(memory_bytes=MEMORY, mmu=mmu, **chosen)
        seen = self.records[number] = []
        machine = VirtualMachine(
            self.memory,
            config,
            rom=rom,
            firmware_files={},
            console=vm.console,
            number=number,
            host=vm,
            on_events=lambda records: seen.append(records.copy()),
        )
        vm.begin(machine)
        machine.state.refill()
        machine.balloon.set_target(MEMORY // PAGE_BYTES)
        self.sharing.register(machine.state)
        self.vms[number] = vm
        return vm

    def settle(self) -> None:
        """What the host does after a slice."""
        for vm in self.vms.values():
            vm.settle()
            self.sharing.settle(vm.vm.state)
            vm.keep_swap_slots()
            vm.vm.state.refill()

    def run(self, vm: HostedVm, is_done: Callable[[], bool], insns: int = STEP_INSNS) -> None:
        """Let a guest run, slice by slice, until it has done something."""
        for _ in range(SLICES):
            vm.run_until(vm.vm.virtual_time + insns)
            assert vm.phase is Phase.RUNNING, vm.why
            self.settle()
            if not vm.vm.is_starved and is_done():
                return
        raise AssertionError("the guest does not answer")

    def page_out(self, vm: HostedVm, slot: int) -> bool:
        """To the swap area, if the page has a frame of its own and no instruction is under way."""
        state = vm.vm.state
        if state_of(vm, slot) != pmap.PRESENT_PAGE or state.control[cbw.STEPPING]:
            return False
        mpn = int(state.pmap[slot]) & pmap.MPN_MASK
        vm.swap.put(slot, memoryview(self.memory.frame(MPN(mpn))))  # type: ignore[arg-type]
        assert int(swapping.page_out(state.control, slot)) == mpn
        self.memory.release(np.array([mpn]))
        return True

    def watch(self, vm: HostedVm, slot: int) -> None:
        """Wait for the next access to a page, unless an instruction is under way."""
        if not vm.vm.control[cbw.STEPPING]:
            watching.watch(vm.vm.control, slot)

    def share_all(self) -> None:
        """Scan until every page that can share its frame does."""
        for _ in range(2):
            self.sharing.scan(SCANNED)
        self.settle()

    def stop(self, number: int) -> None:
        """A VM ends."""
        vm = self.vms.pop(number)
        self.sharing.forget(vm.vm.state)
        vm.release()

    def check(self) -> None:
        """All invariants of all VMs and of what they share."""
        for vm in self.vms.values():
            check.check(vm.vm.state)
            vm.swap.check()
        self.sharing.check()

    def close(self) -> None:
        """All VMs end; nothing may be left."""
        for number in list(self.vms):
            self.stop(number)
        assert self.memory.frames.free_count == len(self.memory.frames)


def state_of(vm: HostedVm, slot: int) -> int:
    """The state of a page in the pmap."""
    return int(vm.vm.state.pmap[slot]) >> pmap.STATE_SHIFT & pmap.STATE_MASK
