"""Taking memory back and giving it: free states, targets, balloons, paging (Waldspurger 2002, sections 3 and 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from emu.host.hosted import HostedVm, Phase
from emu.host.scenario import Scenario
from emu.machine import control as cbw
from emu.machine.memory import FrameUse, MachineMemory
from emu.resources.sharing import Sharing
from emu.resources.states import MARGIN, FreeState, Marks, next_state
from emu.resources.swap_area import SwapFullError
from emu.resources.swap_disk import SwapDisk
from emu.resources.targets import Policy, VmNumbers, divide
from emu.units import MPN
from emu.vm import pmap, swapping

BALLOON_MOST = 0.65  # of a VM's memory (ESX: Mem.CtlMaxPercent)


@dataclass
class MachineCounts:
    """What the services did."""

    WIRING: ClassVar[frozenset[str]] = frozenset()

    frames_shared: int = 0  # freed by sharing
    paged_out: int = 0
    changes: list[tuple[int, FreeState]] = field(default_factory=list)  # of the free state: virtual time, what it is since


class Reclamation:
    """The service of one machine. All of it between slices; VMs are those that live, in the order of their numbers."""

    WIRING: ClassVar = frozenset({"policy", "marks", "_memory", "_scenario", "_sharing"})

    def __init__(self, memory: MachineMemory, scenario: Scenario, policy: Policy, sharing: Sharing | None) -> None:
        self.policy = policy
        self.marks = Marks()
        self.state = FreeState.HIGH
        self.counts = MachineCounts()
        self.allocations: dict[int, int] = {}  # pages, by VM number
        self.disk = SwapDisk(scenario.insns_per_second)
        self._memory = memory
        self._scenario = scenario
        self._sharing = sharing
        self._random = np.random.Generator(np.random.PCG64([scenario.seed, 2]))

    def balloon_most(self, vm: HostedVm) -> int:
        """Pages that a VM's driver is asked for at the most: none if it has no driver that answers."""
        if not self._scenario.services.balloon or vm.vm.balloon.state() in ("absent", "silent"):
            return 0
        return int(BALLOON_MOST * vm.vm.state.ram_pages)

    def finish_writes(self, now: int, vms: Sequence[HostedVm]) -> None:
        """Frames of pages that are on the disk by now are free."""
        done = self.disk.finished(now)
        by_number = {vm.number: vm for vm in vms}
        for due, number, slot, _mpn in done:
            by_number[number].wrote(slot, due)
        if done:
            self._memory.release(np.array([mpn for *_, mpn in done], np.int64))

    def serve(self, now: int, vms: Sequence[HostedVm], *, is_due: bool) -> None:
        """Follow the free memory; `is_due`: targets are to be computed anyway."""
        free = self._memory.frames.free_count / len(self._memory.frames)
        before, self.state = self.state, next_state(self.state, free, self.marks)
        if self.state is not before:
            self.counts.changes.append((now, self.state))
        if self.state is not before or is_due or self.state >= FreeState.HARD:
            self._rebalance(now, vms)

    def _numbers(self, vm: HostedVm) -> VmNumbers:
        return VmNumbers(
            least=vm.least_pages,
            most=vm.vm.state.ram_pages,
            shares=vm.shares,
            used=vm.count(pmap.PRESENT_PAGE),
            ballooned=vm.vm.balloon.size,
            balloon_most=self.balloon_most(vm),
        )

    def _lacking(self, mark: float) -> int:
        """Frames that are missing until free memory is clearly above a mark; those that are on their way out count as free."""
        return int(mark * (1 + MARGIN) * len(self._memory.frames)) + 1 - self._memory.frames.free_count - len(self.disk)

    def _rebalance(self, now: int, vms: Sequence[HostedVm]) -> None:
        """Targets of all, and what follows from them in the machine's state."""
        numbers = [self._numbers(vm) for vm in vms]
        private = sum(vm.used for vm in numbers)
        free = self._memory.frames.free_count + len(self.disk)
        usable = private + free - int(self.marks.high * len(self._memory.frames))  # what is neither shared nor overhead
        given = self.policy.allocations(max(usable, 0), numbers)
        self.allocations = {vm.number: pages for vm, pages in zip(vms, given, strict=True)}
        excess = [max(0, vm.used - pages) for vm, pages in zip(numbers, given, strict=True)]
        wanted = self._lacking(self.marks.high)
        paged = [0] * len(vms)
        if self.state.balloons and wanted > 0:
            for at, pages in enumerate(divide(wanted, excess)):
                paged[at] = self._inflate(vms[at], numbers[at], pages)
        elif wanted < 0:
            self._deflate(vms, numbers, -wanted)
        if self.state.pages:
            paged = divide(max(0, self._lacking(self.marks.soft)), excess)
        for vm, pages in zip(vms, paged, strict=True):
            self._page_out(now, vm, pages)
        for vm, part in zip(vms, excess, strict=True):
            blocks = self.state.blocks and self._scenario.services.swap  # else nothing but the VM itself could make room
            reason = "above its target while the machine is low" if blocks and part > 0 else ""
            vm.why = vm.swap_problem or reason
            vm.phase = Phase.BLOCKED if vm.why else Phase.RUNNING

    def _inflate(self, vm: HostedVm, of: VmNumbers, pages: int) -> int:
        """Ask a VM's driver for more pages; how many of them it can never give."""
        target = min(of.ballooned + pages, of.balloon_most)
        if vm.balloon_is_set:
            return pages
        if target > vm.vm.balloon.target:
            vm.vm.set_balloon_target(target)
        return pages - max(0, target - of.ballooned)

    def _deflate(self, vms: Sequence[HostedVm], numbers: list[VmNumbers], pages: int) -> None:
        back = divide(pages, [vm.vm.balloon.target for vm in vms])
        for vm, of, part in zip(vms, numbers, back, strict=True):
            target = min(max(0, vm.vm.balloon.target - part), of.ballooned)
            if target < vm.vm.balloon.target and not vm.balloon_is_set:
                vm.vm.set_balloon_target(target)

    def _page_out(self, now: int, vm: HostedVm, pages: int) -> None:
        """Take pages of a VM at random; each is tried for sharing first. What the host refuses stays where it is."""
        vm.swap_problem = ""
        if not self._scenario.services.swap or pages <= 0:
            return
        state = vm.vm.state
        if state.control[cbw.STEPPING]:  # it is in the middle of a store
            return
        chosen = self._random.permutation(vm.pages_in(pmap.PRESENT_PAGE))[:pages]
        if self._sharing is not None:
            self.counts.frames_shared += self._sharing.try_page(state, chosen)
        freed = []
        for slot in map(int, chosen):
            word = int(state.pmap[slot])
            if word >> pmap.STATE_SHIFT & pmap.STATE_MASK != pmap.PRESENT_PAGE:
                continue
            try:
                is_written = vm.swap.put(slot, memoryview(self._memory.frame(MPN(word & pmap.MPN_MASK))))  # type: ignore[arg-type]
            except SwapFullError as error:
                vm.swap_problem = str(error)
                break
            mpn = int(swapping.page_out(state.control, slot))
            vm.swapped.written += 1
            self.counts.paged_out += 1
            if is_written:
                self._memory.frames.records["use"][mpn] = FrameUse.WRITING
                vm.writing[slot] = self.disk.write(now, vm.number, slot, mpn)
            else:
                freed.append(mpn)
        if freed:
            self._memory.release(np.array(freed, np.int64))
