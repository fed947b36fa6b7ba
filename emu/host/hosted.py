"""A VM on a machine that it shares: what stands between it and the host's services.

waiting --start time--> running --guest ends, stop time, failure--> ended
running --no memory for it--> blocked --memory--> running
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from threading import Lock
from typing import ClassVar

import numpy as np

from emu.errors import explain
from emu.events import Kind, Outcome
from emu.host.scenario import EXCEPTIONS
from emu.machine import control as cbw
from emu.machine.memory import MachineMemory
from emu.resources.sampling import WorkingSet
from emu.resources.swap_area import SwapArea
from emu.saving import as_value
from emu.units import MPN, PAGE_BYTES, pages_of
from emu.vm import pmap
from emu.vm.exits import Stop
from emu.vm.launch import RecordingConsole
from emu.vm.vm import VirtualMachine


@as_value
class Phase(StrEnum):
    """Where a VM is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    BLOCKED = "blocked"
    ENDED = "ended"


@dataclass
class SwapCounts:
    """Pages that came and went since the start."""

    WIRING: ClassVar[frozenset[str]] = frozenset()

    read: int = 0
    written: int = 0


@dataclass
class Times:
    """Where a VM's time went since its start: instructions of virtual time. They stay when it has ended."""

    WIRING: ClassVar[frozenset[str]] = frozenset()

    ran: int = 0  # it retired so many instructions
    stalled: int = 0  # it waited for pages of its swap area
    blocked: int = 0  # the machine did not let it run
    starved: int = 0  # it had no frames to go on with before a slice ended


@dataclass
class HostedVm:
    """One VM; implements `emu.vm.outside.HostSide`. Times are instructions of the machine's virtual time."""

    WIRING: ClassVar = frozenset({"name", "number", "memory", "lock", "least_pages", "page_insns", "_vm"})

    name: str
    number: int
    memory: MachineMemory
    lock: Lock  # of the machine's free list, for what cannot wait until the slice ends
    least_pages: int
    shares: int
    started_at: int
    page_insns: int  # virtual time that a page takes to come from the swap area's disk
    swap: SwapArea
    console: RecordingConsole = field(default_factory=RecordingConsole)
    phase: Phase = Phase.WAITING
    why: str = ""  # it is blocked or has ended
    stop: Stop | None = None
    swapped: SwapCounts = field(default_factory=SwapCounts)
    times: Times = field(default_factory=Times)
    cow_breaks_before: int = 0  # shared pages that it had broken off when it gave its memory back
    swap_problem: str = ""  # why its area took no more pages at the last attempt
    balloon_is_set: bool = False  # by the scenario: the policy leaves the target alone from then on
    working_set: WorkingSet | None = None  # once it runs, if working sets are sampled
    writing: dict[int, int] = field(default_factory=dict)  # pages that go to the area: when they will be there
    unplanned: int = 0  # times that it took frames in the middle of a slice
    _vm: VirtualMachine | None = None

    @property
    def vm(self) -> VirtualMachine:
        """The VM itself, once it has started."""
        assert self._vm is not None, f"{self.name} has not started"
        return self._vm

    def begin(self, vm: VirtualMachine, working_set: WorkingSet | None = None) -> None:
        """It runs from now on."""
        self._vm, self.phase, self.working_set = vm, Phase.RUNNING, working_set

    # ---- what the VM asks ----

    def swap_in(self, slot: int, mpn: int) -> int:
        """Put a page of the swap area into a frame."""
        self.swap.get(slot, memoryview(self.memory.frame(MPN(mpn))))  # type: ignore[arg-type]
        self.swapped.read += 1
        stall = 0 if slot in self.writing else self.page_insns
        self.times.stalled += stall
        return stall

    def allocate(self) -> None:
        """Frames at once."""
        with self.lock:
            self.unplanned += not self.vm.is_alone
            self.vm.state.refill()

    def wrote(self, slot: int, due: int) -> None:
        """A page is on the disk, unless it went out again since."""
        if self.writing.get(slot) == due:
            del self.writing[slot]

    def break_something(self, fault: str) -> None:
        """A fault of the scenario: an exception, a reset, or a disk that is broken from now on (until `none`)."""
        if fault in EXCEPTIONS:
            self.vm.inject_fault(EXCEPTIONS[fault])
        elif fault == "reset":
            self.vm.reset()
        elif fault == "swap-write":
            self.swap.fails_to_write = True
        elif fault == "swap-read":
            self.swap.fails_to_read = True
        elif fault in ("disk", "none"):
            for drive in self.vm.board.ide.drives:
                drive.is_broken = fault == "disk"
        if fault == "none":
            self.swap.fails_to_read = self.swap.fails_to_write = False

    # ---- slices ----

    def run_until(self, now: int) -> None:
        """Run on to a time of the machine; what goes wrong is kept in `why`."""
        vm = self.vm
        try:
            vm.run_until(now - self.started_at)
        except Exception as error:  # noqa: BLE001  (the other VMs go on)
            self.end(str(explain(error)))
            return
        finally:
            self.times.ran = vm.retired_insns
        stop = vm.last_stop
        if stop is not None and stop.outcome not in (Outcome.PAUSED, Outcome.INTERRUPTED):
            self.stop = stop
            self.end(
                f"{stop.outcome}"
                + (f" with value {stop.value}" if stop.outcome is Outcome.EXITED else f" {stop.why}" * bool(stop.why))
            )

    def behind(self, now: int) -> int:
        """How far its own time is behind the machine's."""
        return max(0, now - self.started_at - self.vm.virtual_time)

    def count_lost(self, time: int) -> None:
        """It fell so much behind in a slice; what it makes up for later is not taken off again."""
        if self.phase is Phase.BLOCKED:
            self.times.blocked += max(0, time)
        elif self.vm.is_starved:
            self.times.starved += max(0, time)

    def end(self, why: str) -> None:
        """It does not run any more."""
        self.phase, self.why = Phase.ENDED, why

    @property
    def has_memory(self) -> bool:
        """Whether it has started, and `release` has not been called."""
        return self._vm is not None

    def release(self) -> None:
        """Give everything back to the machine; what it shared must be counted off before."""
        self.settle()
        self.cow_breaks_before = self.cow_breaks
        self.vm.close()
        self.swap.close()
        self._vm = self.working_set = None

    # ---- pages ----

    def pages_in(self, state: int) -> np.ndarray:
        """Slots of RAM whose pmap words have a state."""
        ram = self.vm.state.pmap[: self.vm.state.ram_pages]
        return np.flatnonzero(ram >> pmap.STATE_SHIFT & pmap.STATE_MASK == state)

    def count(self, state: int) -> int:
        """How many."""
        return len(self.pages_in(state))

    @property
    def cow_breaks(self) -> int:
        """Shared pages that it broke off since it started."""
        return int(self.vm.state.counters[Kind.COW_BREAK]) if self.has_memory else self.cow_breaks_before

    def overhead_pages(self) -> int:
        """Frames for tables, the reserve and the VMM's own, which are no memory of the guest."""
        own = int(np.sum(self.memory.frames.records["owner"] == self.number))
        return own - self.count(pmap.PRESENT_PAGE)

    def code_pages(self) -> int:
        """Memory of the host, not of the machine, that the engine has for the VM's translated code."""
        return pages_of(self.vm.cpu.engine.code_buffer.used_bytes())

    def keep_swap_slots(self) -> None:
        """Free the slots of pages that are neither on the area nor came from it unchanged: those in the balloon, or never touched since a reset."""
        if self.swap.free_slots == self.swap.slots:
            return
        ram = self.vm.state.pmap[: self.vm.state.ram_pages] >> pmap.STATE_SHIFT & pmap.STATE_MASK
        gone = (ram == pmap.UNALLOCATED) | (ram == pmap.BALLOONED) | (ram == pmap.SHARED)
        pages = np.flatnonzero(gone & (self.swap.place_of >= 0))
        if len(pages):
            self.swap.free(pages)

    def settle(self) -> None:
        """After a slice: frames that it gave up are the machine's now."""
        state = self.vm.state
        for frames in state.returned:
            self.memory.release(frames)
        state.returned.clear()

    @property
    def reserve_count(self) -> int:
        """Frames that it has in hand."""
        return int(self.vm.control[cbw.RESERVE_COUNT])

    @property
    def bytes_of_memory(self) -> int:
        """Its max."""
        return self.vm.state.ram_pages * PAGE_BYTES
