"""What a host knows of its VMs at a time, under the names that esxtop gives it; sizes are in pages."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from emu.host.host import Host
from emu.host.hosted import HostedVm, Phase
from emu.machine.memory import FrameUse
from emu.resources.content_table import COUNTS
from emu.units import MIB, PAGE_BYTES
from emu.vm import pmap


@dataclass(frozen=True)
class VmRow:
    """One VM."""

    name: str
    phase: str
    memsz: int  # its memory: max
    grant: int  # guest pages that have a frame, shared ones included
    sztgt: int  # allocation that the policy gives it
    tchd: int  # its working set, as sampled: the largest of the sampler's averages
    actv: int  # the newest of them alone
    mctlsz: int  # in its balloon
    mctltgt: int
    mctlmax: int
    swcur: int  # on its swap area
    swtgt: int  # that it should have there: what its target leaves after the balloon's most
    swapped_in: int  # pages read from it since the VM's start, and written
    swapped_out: int
    shrd: int  # shared pages
    zero: int  # of them, pages of zeros
    shrdsvd: float  # frames that sharing saves it: a shared frame counts for each VM in part
    cowh: int  # its pages that are hints of the content table
    scanned: int  # its pages that the scan looked at since the start; hints that it found right; hints of its own that were stale; shared pages that it broke
    hints_matched: int
    stale_hints: int
    cow_breaks: int
    ovhd: int  # frames for its tables and the VMM


def vm_row(host: Host, vm: HostedVm) -> VmRow:
    """The numbers of a VM: what it did if it has ended, else with what it has."""
    if not vm.has_memory:
        return _ended_row(host, vm)
    state = vm.vm.state
    ram = state.pmap[: state.ram_pages]
    kinds = ram >> pmap.STATE_SHIFT & pmap.STATE_MASK
    shared = ram[kinds == pmap.SHARED] & pmap.MPN_MASK
    present = ram[kinds == pmap.PRESENT_PAGE] & pmap.MPN_MASK
    references = np.ones(0) if host.sharing is None else host.sharing.table.references(shared)
    zero_frame = -1 if host.sharing is None else host.sharing.zero_frame
    hints = 0 if host.sharing is None else int(np.count_nonzero(host.sharing.table.listed[present]))
    target = host.reclamation.allocations.get(vm.number, 0)
    most = host.reclamation.balloon_most(vm)
    return VmRow(
        name=vm.name,
        phase=str(vm.phase),
        memsz=state.ram_pages,
        grant=len(shared) + len(present),
        sztgt=target,
        tchd=0 if vm.working_set is None else vm.working_set.estimate,
        actv=0 if vm.working_set is None else vm.working_set.current,
        mctlsz=vm.vm.balloon.size,
        mctltgt=vm.vm.balloon.target,
        mctlmax=most,
        swcur=int(np.count_nonzero(kinds == pmap.SWAPPED)),
        swtgt=max(0, state.ram_pages - target - most),
        swapped_in=vm.swapped.read,
        swapped_out=vm.swapped.written,
        shrd=len(shared),
        zero=int(np.count_nonzero(shared == zero_frame)),
        shrdsvd=float(len(shared) - np.sum(1.0 / references)),
        cowh=hints,
        **_found(host, vm),
        cow_breaks=vm.cow_breaks,
        ovhd=vm.overhead_pages(),
    )


def _found(host: Host, vm: HostedVm) -> dict[str, int]:
    """What the scan found of a VM's pages, as far as rows have it."""
    found = dict.fromkeys(COUNTS, 0) if host.sharing is None else host.sharing.table.counts_of(vm.number)
    return {name: found[name] for name in ("scanned", "hints_matched", "stale_hints")}


def _ended_row(host: Host, vm: HostedVm) -> VmRow:
    sizes: dict[str, Any] = dict.fromkeys((field.name for field in fields(VmRow)), 0)
    kept: dict[str, Any] = {"name": vm.name, "phase": str(vm.phase), "memsz": len(vm.swap.place_of), "cow_breaks": vm.cow_breaks}
    kept |= {"swapped_in": vm.swapped.read, "swapped_out": vm.swapped.written}
    return VmRow(**{**sizes, **kept, **_found(host, vm)})


def vm_rows(host: Host) -> list[VmRow]:
    """Every VM that has memory, in the order of their numbers."""
    return [vm_row(host, vm) for vm in host.vms if vm.has_memory]


@dataclass(frozen=True)
class VmRates:
    """What one VM did in an interval, and what it could not do because the machine has too little memory for all."""

    interval: float  # virtual seconds
    instructions: int  # that it retired
    swr: float  # pages a second that came from its swap area, and that went there
    sww: float
    swap_stall: float  # virtual seconds in which it waited for pages of its swap area
    blocked: float  # in which the machine did not let it run
    frame_wait: float  # in which it had no frames to go on with
    swpwt: float  # swap_stall as a part of the interval, in per cent


@dataclass(frozen=True)
class Measured:
    """The machine at a time, and its VMs with what they did since the time before: those that have memory, or had then."""

    machine: MachineRow
    vms: tuple[tuple[VmRow, VmRates], ...]
    code_pages: dict[str, int]  # of translated code, by VM; no log has them: when code is dropped depends on the host


class Meter:
    """Measures a host now and then; each interval begins where the one before ended, the first one when the meter is made."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._then = host.now
        self._totals = {vm.number: _totals(vm) for vm in host.vms}
        self._lived = {vm.number for vm in host.vms if vm.has_memory}

    @property
    def is_due(self) -> bool:
        """Whether virtual time has passed since the last measurement."""
        return self._host.now > self._then

    def measure(self) -> Measured:
        """Everything now, and since the last time."""
        host = self._host
        seen = [vm for vm in host.vms if vm.has_memory or vm.number in self._lived or _totals(vm) != self._totals[vm.number]]
        rows = tuple((vm_row(host, vm), self._rates(vm)) for vm in seen)
        self._then = host.now
        self._totals = {vm.number: _totals(vm) for vm in host.vms}
        self._lived = {vm.number for vm in host.vms if vm.has_memory}
        return Measured(machine_row(host), rows, {vm.name: vm.code_pages() for vm in host.vms if vm.has_memory})

    def _rates(self, vm: HostedVm) -> VmRates:
        rate = self._host.scenario.insns_per_second
        seconds = max(self._host.now - self._then, 1) / rate
        done = [now - then for now, then in zip(_totals(vm), self._totals[vm.number], strict=True)]
        ran, read, written, *waits = done
        stalled, blocked, starved = (time / rate for time in waits)
        return VmRates(seconds, ran, read / seconds, written / seconds, stalled, blocked, starved, 100 * stalled / seconds)


def _totals(vm: HostedVm) -> tuple[int, ...]:
    times = vm.times
    return times.ran, vm.swapped.read, vm.swapped.written, times.stalled, times.blocked, times.starved


@dataclass(frozen=True)
class MachineRow:
    """The machine."""

    seconds: float
    state: str
    frames: int
    free: int
    running: int
    blocked: int
    waiting: int
    ended: int
    shared: int  # pages of VMs that are shared
    common: int  # frames that they share
    scanned: int  # of all VMs since the beginning, those that have ended too: as in `VmRow`
    hints_matched: int
    stale_hints: int
    cow_breaks: int


def machine_row(host: Host) -> MachineRow:
    """The numbers of the machine."""
    phases = [vm.phase for vm in host.vms]
    records = host.memory.frames.records
    is_shared = records["use"] == FrameUse.SHARED
    found = dict.fromkeys(COUNTS, 0) if host.sharing is None else host.sharing.table.counts_of()
    return MachineRow(
        seconds=host.now / host.scenario.insns_per_second,
        state=host.reclamation.state.name.lower(),
        frames=len(host.memory.frames),
        free=host.memory.frames.free_count,
        running=phases.count(Phase.RUNNING),
        blocked=phases.count(Phase.BLOCKED),
        waiting=phases.count(Phase.WAITING),
        ended=phases.count(Phase.ENDED),
        shared=0 if host.sharing is None else int(np.sum(host.sharing.table.references(np.flatnonzero(is_shared)))),
        common=int(np.count_nonzero(is_shared)),
        scanned=found["scanned"],
        hints_matched=found["hints_matched"],
        stale_hints=found["stale_hints"],
        cow_breaks=sum(vm.cow_breaks for vm in host.vms),
    )


def megabytes(pages: float) -> float:
    """Pages in MB."""
    return pages * PAGE_BYTES / MIB


def state_line(row: MachineRow) -> str:
    """The machine on a line, as above esxtop's table."""
    return (
        f"{row.seconds:8.1f} s  {row.state:4}  {megabytes(row.frames):.0f} MB, {megabytes(row.free):.1f} free ({row.free / row.frames:.1%}); "
        f"PSHARE {megabytes(row.shared):.1f} shared, {megabytes(row.common):.1f} common, {megabytes(row.shared - row.common):.1f} saving; "
        f"VMs {row.running} running, {row.blocked} blocked, {row.waiting} waiting, {row.ended} ended"
    )
