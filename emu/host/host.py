"""Many VMs on one machine: slices of virtual time on threads, the machine's services between them (Waldspurger 2002).

A slice is 1/10 of a virtual second. In it every VM runs for itself, with the frames that it was given; one whose frames run short stops early,
is given more when all have stopped, and goes on. So threads never contend for memory, and the run is the same on one thread or many: between
slices everything happens in the order of the VMs' numbers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np

from emu import images
from emu.config import VmConfig
from emu.devices.disk import Disk, copy_disk
from emu.diskimage.make import make as make_image
from emu.errors import BrokenInvariantError, MachineMemoryError
from emu.host.hosted import HostedVm, Phase
from emu.host.scenario import Event, Scenario, VmSpec
from emu.machine.memory import MachineMemory
from emu.resources.sharing import Sharing
from emu.resources.states import MARGIN, FreeState, Marks, next_state
from emu.resources.swap_area import SwapArea, SwapFullError
from emu.resources.targets import Policy, Proportional, VmNumbers, divide
from emu.units import MPN, PAGE_BYTES
from emu.vm import check, launch, pmap, reasons, swapping
from emu.vm.vm import VirtualMachine

SLICES_A_SECOND = 10
RESERVE_FRAMES = 256  # that a VM has in hand at a slice's start
SHADOW_PAGES, NESTED_PAGES = 1024, 2048  # caps of each VM
BALLOON_MOST = 0.65  # of a VM's memory (ESX: Mem.CtlMaxPercent)
STUCK_SECONDS = 60  # of virtual time in which no VM can run: then none ever will
PAGE_IO_SECONDS = 0.0005  # virtual time of a page from the swap area: that of the guests' own disks


class Observer(Protocol):
    """Whoever watches a run: a screen, a log."""

    def second(self, host: Host) -> None:
        """A virtual second has ended."""

    def said(self, vm: HostedVm, data: bytes) -> None:
        """A VM printed on its console."""


@dataclass
class MachineCounts:
    """What the services did."""

    frames_shared: int = 0  # freed by sharing
    paged_out: int = 0
    changes: list[tuple[int, FreeState]] = field(default_factory=list)  # of the free state: virtual time, what it is since


class Host:
    """A machine and its VMs, from a scenario. `close` ends all."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        threads: int = 2,
        swap_folder: Path | None = None,
        policy: Policy | None = None,
        checks: bool = False,
    ) -> None:
        self.scenario = scenario
        self.policy: Policy = policy or Proportional()
        self.memory = MachineMemory(scenario.memory, debug=checks)
        self.now = 0  # virtual time of the machine, in instructions
        self.state = FreeState.HIGH
        self.marks = Marks()
        self.counts = MachineCounts()
        self.allocations: dict[int, int] = {}  # pages, by VM number
        self.seconds_in_vms = 0.0  # of wall time, while VMs ran
        self._checks = checks
        self._slice = max(1, scenario.insns_per_second // SLICES_A_SECOND)
        self._pool = ThreadPoolExecutor(threads)
        self._lock = Lock()
        self._random = np.random.Generator(np.random.PCG64([scenario.seed, 2]))
        self.sharing = Sharing(self.memory, scenario.seed) if scenario.services.scan_rate else None
        self._scan_debt = 0.0  # pages
        self._stuck = 0  # slices in which no VM could run
        self._times = 0  # all VMs' virtual time after the last slice
        self._disks: dict[tuple[int, int], Path] = {}
        self.vms = [self._plan(number, spec, swap_folder) for number, spec in enumerate(scenario.vms, 1)]
        self._specs = {vm.number: spec for vm, spec in zip(self.vms, scenario.vms, strict=True)}
        self._events = {vm.number: list(spec.events) for vm, spec in zip(self.vms, scenario.vms, strict=True)}

    def _plan(self, number: int, spec: VmSpec, folder: Path | None) -> HostedVm:
        pages = spec.memory // PAGE_BYTES
        slots = pages - spec.min // PAGE_BYTES if self.scenario.services.swap else 0
        path = None if folder is None else folder / f"{number}-{spec.name}.swap"
        return HostedVm(
            name=spec.name,
            number=number,
            memory=self.memory,
            lock=self._lock,
            least_pages=spec.min // PAGE_BYTES,
            shares=spec.all_shares,
            started_at=self.scenario.instructions(spec.start_us),
            page_insns=int(PAGE_IO_SECONDS * self.scenario.insns_per_second),
            swap=SwapArea(path, pages, slots),
        )

    # ---- the run ----

    def run(self, observer: Observer | None = None, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Run to the scenario's end, or until `stop` says so between two slices."""
        last = None if self.scenario.seconds_us is None else self.scenario.instructions(self.scenario.seconds_us)
        while (last is None or self.now < last) and any(vm.phase is not Phase.ENDED for vm in self.vms) and not stop():
            self.step()
            if observer is not None:
                self._tell(observer)

    def _tell(self, observer: Observer) -> None:
        for vm in self.vms:
            if vm.console.output:
                data = bytes(vm.console.output)
                vm.console.output.clear()
                observer.said(vm, data)
        if self.now % self.scenario.insns_per_second < self._slice:
            observer.second(self)

    def step(self) -> None:
        """One slice, and the services behind it."""
        self._start_due()
        self._happen()
        self._run_slice(self.now + self._slice)
        self.now += self._slice
        for vm in self._living():
            vm.settle()
            if self.sharing is not None:
                self.sharing.settle(vm.vm.state)
            vm.keep_swap_slots()
        self._end_stopped()
        self._serve()
        self._give_up_if_stuck()
        if self._checks:
            self.check()

    def _give_up_if_stuck(self) -> None:
        """When no VM can go on, and nothing will change that: end them, each with its reason."""
        living = self._living()
        can_change = any(vm.phase is Phase.WAITING for vm in self.vms) or any(self._events[vm.number] for vm in living)
        times = sum(vm.vm.virtual_time for vm in living)
        is_stuck = living and not can_change and times == self._times
        self._stuck, self._times = self._stuck + 1 if is_stuck else 0, times
        if self._stuck > STUCK_SECONDS * SLICES_A_SECOND:
            for vm in living:
                vm.end(f"could not go on: {vm.why or 'the machine has no free memory'}")
            self._end_stopped()

    def _living(self) -> list[HostedVm]:
        return [vm for vm in self.vms if vm.phase in (Phase.RUNNING, Phase.BLOCKED)]

    def _start_due(self) -> None:
        for vm in self.vms:
            if vm.phase is Phase.WAITING and self.now >= vm.started_at:
                vm.started_at = self.now
                try:
                    vm.begin(self._new_vm(vm, self._specs[vm.number]))
                except MachineMemoryError as error:
                    vm.end(f"not started: {error}")
                    continue
                if self.sharing is not None:
                    self.sharing.register(vm.vm.state)
                vm.vm.is_alone = True  # firmware reads the kernel, all at once
                vm.run_until(self.now + self._slice // 10)
                vm.vm.is_alone = False

    def _new_vm(self, vm: HostedVm, spec: VmSpec) -> VirtualMachine:
        config = VmConfig.from_mapping(
            {
                "memory_bytes": spec.memory,
                "mmu": spec.mmu,
                "insns_per_second": self.scenario.insns_per_second,
                "shadow_pages": SHADOW_PAGES,
                "nested_tables": NESTED_PAGES,
                "reserve_frames": RESERVE_FRAMES,
            }
        )
        files = launch.boot_files(launch.Boot(launch.find_image(spec.guest), spec.append), spec.memory)
        return VirtualMachine(
            self.memory,
            config,
            rom=images.firmware(),
            firmware_files=files,
            console=vm.console,
            disk=self._new_disk(spec),
            number=vm.number,
            host=vm,
        )

    def _new_disk(self, spec: VmSpec) -> Disk | None:
        if not spec.disk:
            return None
        with tempfile.TemporaryDirectory(prefix="emu-host-") as folder:
            image = Path(folder) / "disk.img"
            make_image(image, spec.disk, spec.swap)
            return copy_disk(image)

    def _happen(self) -> None:
        """Events of the scenario that are due."""
        for vm in self.vms:
            spec = self._specs[vm.number]
            if vm.phase is not Phase.ENDED and spec.stop_us is not None and self.now >= self.scenario.instructions(spec.stop_us):
                vm.end("stopped by the scenario")
            events = self._events[vm.number]
            while events and self.now >= self.scenario.instructions(events[0].at_us):
                self._do(vm, events.pop(0))
        self._end_stopped()

    def _do(self, vm: HostedVm, event: Event) -> None:
        if event.kind == "shares":
            vm.shares = event.value
        elif event.kind == "stop":
            vm.end("stopped by the scenario")
        elif vm.phase in (Phase.RUNNING, Phase.BLOCKED):
            vm.vm.set_balloon_target(event.value // PAGE_BYTES)
            vm.balloon_is_set = True

    def _run_slice(self, until: int) -> None:
        pending = [vm for vm in self.vms if vm.phase is Phase.RUNNING]
        self._top_up(pending)
        start = time.perf_counter()  # for the benchmarks: nothing in a run depends on it
        while pending:
            list(self._pool.map(lambda vm: vm.run_until(until), pending))
            starved = [vm for vm in pending if vm.phase is Phase.RUNNING and vm.vm.is_starved]
            for vm in starved:
                vm.settle()
            self._top_up(starved)
            pending = [vm for vm in starved if vm.reserve_count >= reasons.HOSTED_LOW]
        self.seconds_in_vms += time.perf_counter() - start

    def _top_up(self, vms: list[HostedVm]) -> None:
        for vm in vms:
            vm.vm.state.refill()

    def _end_stopped(self) -> None:
        """Give back what VMs that have ended had."""
        for vm in self.vms:
            if vm.phase is Phase.ENDED and vm.has_memory:
                if self.sharing is not None:
                    self.sharing.forget(vm.vm.state)
                vm.release()

    # ---- the services ----

    @property
    def free_share(self) -> float:
        """Which part of the machine's memory is free."""
        return self.memory.frames.free_count / len(self.memory.frames)

    def _serve(self) -> None:
        services = self.scenario.services
        if self.sharing is not None:
            self._scan_debt += services.scan_rate * self._slice / self.scenario.insns_per_second
            self.counts.frames_shared += self.sharing.scan(int(self._scan_debt))
            self._scan_debt -= int(self._scan_debt)
        before, self.state = self.state, next_state(self.state, self.free_share, self.marks)
        if self.state is not before:
            self.counts.changes.append((self.now, self.state))
        period = self.scenario.instructions(services.rebalance_us)
        if self.state is not before or self.now % period < self._slice or self.state >= FreeState.HARD:
            self._rebalance()

    def _numbers(self, vm: HostedVm) -> VmNumbers:
        pages = vm.vm.state.ram_pages
        return VmNumbers(
            least=vm.least_pages,
            most=pages,
            shares=vm.shares,
            used=vm.count(pmap.PRESENT_PAGE),
            ballooned=vm.vm.balloon.size,
            balloon_most=self.balloon_most(vm),
        )

    def balloon_most(self, vm: HostedVm) -> int:
        """Pages that a VM's driver is asked for at the most: none if it has no driver that answers."""
        if not self.scenario.services.balloon or vm.vm.balloon.state() in ("absent", "silent"):
            return 0
        return int(BALLOON_MOST * vm.vm.state.ram_pages)

    def _rebalance(self) -> None:
        """Targets of all, and what follows from them in the machine's state."""
        vms = self._living()
        numbers = [self._numbers(vm) for vm in vms]
        total = len(self.memory.frames)
        private = sum(vm.used for vm in numbers)
        usable = private + self.memory.frames.free_count - int(self.marks.high * total)  # what is neither shared nor overhead
        given = self.policy.allocations(max(usable, 0), numbers)
        self.allocations = {vm.number: pages for vm, pages in zip(vms, given, strict=True)}
        excess = [max(0, vm.used - pages) for vm, pages in zip(numbers, given, strict=True)]
        wanted = int(self.marks.high * (1 + MARGIN) * total) + 1 - self.memory.frames.free_count
        if self.state.balloons and wanted > 0:
            for vm, of, pages in zip(vms, numbers, divide(wanted, excess), strict=True):
                self._inflate(vm, of, pages)
        elif wanted < 0:
            self._deflate(vms, numbers, -wanted)
        if not self.state.pages:
            for vm in vms:
                vm.swap_problem = ""
        else:
            urgent = int(self.marks.soft * (1 + MARGIN) * total) + 1 - self.memory.frames.free_count
            for vm, pages in zip(vms, divide(max(0, urgent), excess), strict=True):
                self._page_out(vm, pages)
        for vm, part in zip(vms, excess, strict=True):
            blocks = self.state.blocks and self.scenario.services.swap  # else nothing but the VM itself could make room
            reason = "above its target while the machine is low" if blocks and part > 0 else ""
            vm.why = vm.swap_problem or reason
            vm.phase = Phase.BLOCKED if vm.why else Phase.RUNNING

    def _inflate(self, vm: HostedVm, of: VmNumbers, pages: int) -> None:
        target = min(of.ballooned + pages, of.balloon_most)
        if target > vm.vm.balloon.target and not vm.balloon_is_set:
            vm.vm.set_balloon_target(target)

    def _deflate(self, vms: list[HostedVm], numbers: list[VmNumbers], pages: int) -> None:
        back = divide(pages, [vm.vm.balloon.target for vm in vms])
        for vm, of, part in zip(vms, numbers, back, strict=True):
            target = min(max(0, vm.vm.balloon.target - part), of.ballooned)
            if target < vm.vm.balloon.target and not vm.balloon_is_set:
                vm.vm.set_balloon_target(target)

    def _page_out(self, vm: HostedVm, pages: int) -> None:
        """Take pages of a VM at random; each is tried for sharing first. What the host refuses stays where it is."""
        vm.swap_problem = ""
        if not self.scenario.services.swap or pages <= 0:
            return
        state = vm.vm.state
        candidates = [slot for slot in vm.pages_in(pmap.PRESENT_PAGE) if swapping.can_be_paged_out(state.control, int(slot))]
        chosen = self._random.permutation(np.array(candidates, np.int64))[:pages]
        if self.sharing is not None:
            self.counts.frames_shared += self.sharing.try_page(state, chosen)
        freed = []
        for slot in map(int, chosen):
            word = int(state.pmap[slot])
            if word >> pmap.STATE_SHIFT & pmap.STATE_MASK != pmap.PRESENT_PAGE:
                continue
            try:
                vm.swap.put(slot, memoryview(self.memory.frame(MPN(word & pmap.MPN_MASK))))  # type: ignore[arg-type]
            except SwapFullError as error:
                vm.swap_problem = str(error)
                break
            freed.append(int(swapping.page_out(state.control, slot)))
            vm.swapped.written += 1
        if freed:
            self.counts.paged_out += len(freed)
            self.memory.release(np.array(freed, np.int64))

    # ---- the end ----

    def interrupt(self) -> None:
        """Stop all VMs soon; for a signal handler."""
        for vm in self._living():
            vm.vm.interrupt()

    def close(self) -> None:
        """End all VMs."""
        for vm in self.vms:
            if vm.phase is not Phase.ENDED:
                vm.end(vm.why or "the run is over")
        self._end_stopped()
        for vm in self.vms:
            if vm.phase is Phase.WAITING:
                vm.swap.close()
        self._pool.shutdown()

    def check(self) -> None:
        """Assert the invariants of every VM, of sharing, of the swap areas, and that the machine's frames add up; raises BrokenInvariantError."""
        for vm in self._living():
            check.check(vm.vm.state)
            vm.swap.check()
            swapped = vm.pages_in(pmap.SWAPPED)
            if np.any(vm.swap.slot_of[swapped] < 0):
                raise BrokenInvariantError(f"{vm.name}: a swapped page has no slot")
        if self.sharing is not None:
            self.sharing.check()
        used = sum(vm.count(pmap.PRESENT_PAGE) + vm.overhead_pages() for vm in self._living())
        shared = 0 if self.sharing is None else len(self.sharing.shared_frames())
        if used + shared + self.memory.frames.free_count != len(self.memory.frames):
            raise BrokenInvariantError("host: frames of VMs, shared and free ones do not add up to the machine")
