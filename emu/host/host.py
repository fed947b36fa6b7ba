"""Many VMs on one machine: slices of virtual time on threads, the machine's services between them (Waldspurger 2002).

A slice is 1/10 of a virtual second. In it every VM runs for itself, with the frames that it was given; one whose frames run short stops early,
is given more when all have stopped, and goes on. So threads never contend for memory, and the run is the same on one thread or many: between
slices everything happens in the order of the VMs' numbers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import ClassVar, Protocol

import numpy as np

from emu.errors import BrokenInvariantError, MachineMemoryError
from emu.host import build
from emu.host.hosted import HostedVm, Phase
from emu.host.reclamation import Reclamation
from emu.host.scenario import Event, Scenario, VmSpec
from emu.machine.memory import MachineMemory
from emu.resources.sampling import WorkingSet
from emu.resources.sharing import Sharing
from emu.resources.swap_area import SwapArea
from emu.resources.targets import Policy, Proportional
from emu.units import PAGE_BYTES
from emu.vm import check, pmap, reasons
from emu.vm.vm import VirtualMachine

SLICES_A_SECOND = 10
LONGEST_NAME = 100  # of a VM, in the name of its swap area: file systems take 255 bytes
STUCK_SECONDS = 60  # of virtual time in which no VM can run: then none ever will


def _file_name(name: str) -> str:
    """What of a VM's name can be part of a file's."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:LONGEST_NAME]


class Observer(Protocol):
    """Whoever watches a run: a screen, a log."""

    def second(self, host: Host) -> None:
        """A virtual second has ended."""

    def said(self, vm: HostedVm, data: bytes) -> int:
        """A VM printed on its console, and this is not told yet; how many bytes of it are told now. The others are kept, in snapshots too."""


class Host:
    """A machine and its VMs, from a scenario. `close` ends all."""

    WIRING: ClassVar = frozenset(
        {"scenario", "ends_at", "seconds_in_vms", "is_cut", "_is_in_slice", "_checks", "_slice", "_pool", "_lock", "_specs"}
    )

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
        self.memory = MachineMemory(scenario.memory, debug=checks)
        self.now = 0  # virtual time of the machine, in instructions
        self.ends_at = None if scenario.seconds_us is None else scenario.instructions(scenario.seconds_us)
        self.seconds_in_vms = 0.0  # of wall time, while VMs ran
        self.is_cut = False  # a slice was broken off: there is nothing to go on from
        self._is_in_slice = False
        self._checks = checks
        self._slice = max(1, scenario.insns_per_second // SLICES_A_SECOND)
        self._pool = ThreadPoolExecutor(threads)
        self._lock = Lock()
        self.sharing = Sharing(self.memory, scenario.seed, len(scenario.vms)) if scenario.services.scan_rate else None
        self.reclamation = Reclamation(self.memory, scenario, policy or Proportional(), self.sharing)
        self._scan_debt = 0.0  # pages
        self._stuck = 0  # slices in which no VM could run
        self._times = 0  # all VMs' virtual time after the last slice
        self.vms: list[HostedVm] = []
        try:
            for number, spec in enumerate(scenario.vms, 1):
                self.vms.append(self._plan(number, spec, swap_folder))
        except BaseException:
            self.close_hard()  # swap areas are files that would stay
            raise
        self._specs = {vm.number: spec for vm, spec in zip(self.vms, scenario.vms, strict=True)}
        self._happened = {vm.number: 0 for vm in self.vms}  # events of each

    def _plan(self, number: int, spec: VmSpec, folder: Path | None) -> HostedVm:
        pages = spec.memory // PAGE_BYTES
        slots = pages - spec.min // PAGE_BYTES if self.scenario.services.swap else 0
        path = None if folder is None else folder / f"{number}-{_file_name(spec.name)}.swap"
        return HostedVm(
            name=spec.name,
            number=number,
            memory=self.memory,
            lock=self._lock,
            least_pages=spec.min // PAGE_BYTES,
            shares=spec.all_shares,
            started_at=self.scenario.instructions(spec.start_us),
            page_insns=self.reclamation.disk.read_insns,
            swap=SwapArea(path, pages, slots, compresses=self.scenario.services.compress),
        )

    # ---- the run ----

    def run(self, observer: Observer | None = None, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Run to the scenario's end, or until `stop` says so between two slices."""
        while not (self.is_over or self.is_cut or stop()):
            self.step()
            if observer is not None and not self.is_cut:
                self._tell(observer)

    @property
    def is_over(self) -> bool:
        """Whether the time is up, or every VM has ended."""
        is_up = self.ends_at is not None and self.now >= self.ends_at
        return is_up or all(vm.phase is Phase.ENDED for vm in self.vms)

    def _tell(self, observer: Observer) -> None:
        for vm in self.vms:
            if vm.console.output:
                del vm.console.output[: observer.said(vm, bytes(vm.console.output))]
            vm.console.debug.clear()  # nobody looks at it
        if self.now % self.scenario.insns_per_second < self._slice:
            observer.second(self)

    def step(self) -> None:
        """One slice, and the services behind it."""
        self._start_due()
        self._happen()
        self._run_slice(self.now + self._slice)
        if self.is_cut:
            return
        self.now += self._slice
        for vm in self._living():
            vm.settle()
            if self.sharing is not None:
                self.sharing.settle(vm.vm.state)
            vm.keep_swap_slots()
            if vm.working_set is not None:
                vm.working_set.advance()
        self._end_stopped()
        self._serve()
        self._give_up_if_stuck()
        if self._checks:
            self.check()

    def _give_up_if_stuck(self) -> None:
        """When no VM can go on, and nothing will change that: end them, each with its reason."""
        living = self._living()
        can_change = any(vm.phase is Phase.WAITING for vm in self.vms) or any(map(self._to_come, living))
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
                    self._begin(vm)
                except MachineMemoryError as error:
                    vm.end(f"not started: {error}")
                    continue
                vm.vm.is_alone = True  # firmware reads the kernel, all at once
                vm.run_until(self.now + self._slice // 10)
                vm.vm.is_alone = False

    def _begin(self, vm: HostedVm) -> None:
        spec = self._specs[vm.number]
        self.adopt(vm, build.new_vm(vm, spec, self.scenario.insns_per_second, build.boot_files(spec), build.new_disks(spec)))

    def adopt(self, vm: HostedVm, machine: VirtualMachine) -> None:
        """A VM has its machine."""
        period = self.scenario.instructions(self.scenario.services.sample_us)
        vm.begin(machine, WorkingSet(machine.state, period, self.scenario.seed) if period else None)
        if self.sharing is not None:
            self.sharing.register(machine.state)

    def _happen(self) -> None:
        """Events of the scenario that are due."""
        for vm in self.vms:
            spec = self._specs[vm.number]
            if vm.phase is not Phase.ENDED and spec.stop_us is not None and self.now >= self.scenario.instructions(spec.stop_us):
                vm.end("stopped by the scenario")
            for event in self._to_come(vm):
                if self.now >= self.scenario.instructions(event.at_us):
                    self._happened[vm.number] += 1
                    self._do(vm, event)
        self._end_stopped()

    def _to_come(self, vm: HostedVm) -> tuple[Event, ...]:
        return self._specs[vm.number].events[self._happened[vm.number] :]

    def _do(self, vm: HostedVm, event: Event) -> None:
        if event.kind == "shares":
            vm.shares = event.value
        elif event.kind == "stop":
            vm.end("stopped by the scenario")
        elif vm.phase not in (Phase.RUNNING, Phase.BLOCKED):
            return
        elif event.kind == "fault":
            vm.break_something(event.fault)
        else:
            vm.vm.set_balloon_target(event.value // PAGE_BYTES)
            vm.balloon_is_set = True

    def _run_slice(self, until: int) -> None:
        pending = [vm for vm in self.vms if vm.phase is Phase.RUNNING]
        behind = {vm.number: vm.behind(self.now) for vm in self._living()}
        self._top_up(pending)
        start = time.perf_counter()  # for the benchmarks: nothing in a run depends on it
        self._is_in_slice = True
        while pending and not self.is_cut:
            list(self._pool.map(lambda vm: vm.run_until(until), pending))
            starved = [vm for vm in pending if vm.phase is Phase.RUNNING and vm.vm.is_starved]
            for vm in starved:
                vm.settle()
            self._top_up(starved)
            pending = [vm for vm in starved if vm.reserve_count >= reasons.HOSTED_LOW]
        self._is_in_slice = False
        self.seconds_in_vms += time.perf_counter() - start
        for vm in self._living():
            vm.count_lost(vm.behind(until) - behind[vm.number])

    def _top_up(self, vms: list[HostedVm]) -> None:
        for vm in vms:
            vm.vm.state.refill()

    def _end_stopped(self) -> None:
        """Give back what VMs that have ended had."""
        for vm in self.vms:
            if vm.phase is Phase.ENDED and vm.has_memory:
                if self.sharing is not None:
                    self.sharing.forget(vm.vm.state)
                self.reclamation.disk.forget(vm.number)
                vm.release()

    def _serve(self) -> None:
        services = self.scenario.services
        self.reclamation.finish_writes(self.now, self._living())
        if self.sharing is not None:
            self._scan_debt += services.scan_rate * self._slice / self.scenario.insns_per_second
            self.reclamation.counts.frames_shared += self.sharing.scan(int(self._scan_debt))
            self._scan_debt -= int(self._scan_debt)
        period = self.scenario.instructions(services.rebalance_us)
        self.reclamation.serve(self.now, self._living(), is_due=self.now % period < self._slice)

    # ---- the end ----

    def interrupt(self) -> None:
        """Break the slice off that is under way, if one is: the run ends, and cannot go on. For a signal handler of the thread that runs it."""
        if self._is_in_slice:
            self.is_cut = True
            for vm in self._living():
                vm.vm.interrupt()

    def close(self) -> None:
        """End all VMs."""
        for vm in self.vms:
            if vm.phase is not Phase.ENDED:
                vm.end(vm.why or "the run is over")
        self._end_stopped()
        self.close_hard()

    def close_hard(self) -> None:
        """Let go of what the host gave, whatever state the machine is in."""
        for vm in self.vms:
            vm.swap.close()
        self._pool.shutdown()

    @property
    def seconds(self) -> float:
        """Virtual time in seconds."""
        return self.now / self.scenario.insns_per_second

    def check(self) -> None:
        """Assert the invariants of every VM, of sharing, of the swap areas, and that the machine's frames add up; raises BrokenInvariantError."""
        for vm in self._living():
            check.check(vm.vm.state)
        if self.sharing is not None:
            self.sharing.check()
        self.check_accounts()

    def check_accounts(self) -> None:
        """The part of `check` that does not walk tables or read pages: who has which frame and which slot."""
        self.memory.frames.check()
        for vm in self._living():
            vm.swap.check()
            swapped = vm.pages_in(pmap.SWAPPED)
            if np.any(vm.swap.place_of[swapped] < 0):
                raise BrokenInvariantError(f"{vm.name}: a swapped page has no slot")
        used = sum(vm.count(pmap.PRESENT_PAGE) + vm.overhead_pages() for vm in self._living())
        shared = 0 if self.sharing is None else len(self.sharing.shared_frames())
        if used + shared + self.memory.frames.free_count != len(self.memory.frames):
            raise BrokenInvariantError("host: frames of VMs, shared and free ones do not add up to the machine")
