"""Who shares what: frames in common by pair of VMs and by kind of page, what the scan found, and the history of single pages."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from emu.errors import OutputError, UsageError
from emu.host.host import Host
from emu.host.hosted import HostedVm
from emu.host.statistics import machine_row, megabytes
from emu.replacing import can_be_replaced, replacing
from emu.units import MPN
from emu.vm import cow, pmap
from emu.wording import one_line

CAUSES = {
    cow.BY_STORE: "a store",
    cow.BY_DEVICE: "a device, or the VMM for the guest",
    cow.BY_WALK: "an accessed or dirty bit",
    cow.BY_BALLOON: "the balloon",
    cow.BY_RESET: "a reset",
}


def _shared_words(vm: HostedVm) -> np.ndarray:
    """The pmap words of a VM's shared pages."""
    state = vm.vm.state
    ram = state.pmap[: state.ram_pages]
    shared: np.ndarray = ram[ram >> pmap.STATE_SHIFT & pmap.STATE_MASK == pmap.SHARED]
    return shared


def possible_saving(host: Host) -> tuple[int, int]:
    """What sharing saves now, and what it would if every page had found its twins: frames. Looks at all pages that have a frame."""
    pages, frames = 0, np.zeros(0, np.int64)
    for vm in host.vms:
        if vm.has_memory:
            ram = vm.vm.state.pmap[: vm.vm.state.ram_pages]
            kinds = ram >> pmap.STATE_SHIFT & pmap.STATE_MASK
            own = ram[(kinds == pmap.PRESENT_PAGE) | (kinds == pmap.SHARED)] & pmap.MPN_MASK
            pages += len(own)
            frames = np.union1d(frames, own)
    contents = {xxhash.xxh3_64_intdigest(host.memory.frame(MPN(mpn)).tobytes()) for mpn in frames.tolist()}
    return pages - len(frames), pages - len(contents)


def sharing_report(host: Host) -> str:
    """The report as text: per VM and kind of page, what the scan found, per pair of VMs."""
    vms = [vm for vm in host.vms if vm.has_memory]
    words = {one_line(vm.name): _shared_words(vm) for vm in vms}
    zero = -1 if host.sharing is None else host.sharing.zero_frame
    lines = ["shared pages, MB: by VM and kind of page"]
    for name, of in words.items():
        mpns = of & pmap.MPN_MASK
        code = int(np.count_nonzero(of & pmap.EXECUTED))
        zeros = int(np.count_nonzero(mpns == zero))
        alone = len(mpns) - len(np.unique(mpns))
        lines.append(
            f"  {name}: {megabytes(len(of)):.2f}, of zeros {megabytes(zeros):.2f}, code {megabytes(code):.2f}, "
            f"with itself {megabytes(alone):.2f}"
        )
    if host.sharing is not None:
        lines.append("pages that the scan looked at, and what became of them: by VM")
        lines += [f"  {one_line(vm.name)}: {_found(host, vm.number)}, {vm.cow_breaks} COW breaks" for vm in vms]
        breaks = machine_row(host).cow_breaks
        lines.append(f"  all, with VMs that have ended: {_found(host, None)}, {breaks} COW breaks")
    saved, possible = possible_saving(host)
    lines.append(f"saved: {megabytes(saved):.2f} MB of {megabytes(possible):.2f} that the contents allow")
    lines.append("frames in common, MB: by pair of VMs")
    for (one, first), (other, second) in combinations(words.items(), 2):
        common = np.intersect1d(first & pmap.MPN_MASK, second & pmap.MPN_MASK)
        lines.append(f"  {one} and {other}: {megabytes(len(common)):.2f}")
    return "\n".join(lines) + "\n"


def _found(host: Host, vm: int | None) -> str:
    assert host.sharing is not None
    counts = host.sharing.table.counts_of(vm)
    return (
        f"{counts['scanned']} scanned, {counts['shared_matched']} equal to a shared frame, {counts['hints_matched']} to a hint, "
        f"{counts['false_matches']} to a hash only, {counts['stale_hints']} stale hints"
    )


def find_page(host: Host, name: str, ppn: int) -> HostedVm:
    """The VM with a page; raises UsageError if there is none."""
    vm = next((vm for vm in host.vms if vm.name == name), None)
    if vm is None:
        raise UsageError(f"page of '{name}': the VMs are {', '.join(vm.name for vm in host.vms[:10])}")
    pages = len(vm.swap.place_of)
    if not 0 <= ppn < pages:
        raise UsageError(f"page {ppn:#x} of {name}: it has {pages:#x}")
    return vm


def page_report(host: Host, name: str, ppn: int) -> str:
    """One page's line: with whom it is shared and since when, or what ended that; raises UsageError if there is no such page."""
    vm = find_page(host, name, ppn)
    if not vm.has_memory:
        return f"{one_line(name)} page {ppn:#x}: the VM is not running\n"
    state = vm.vm.state
    word = int(state.pmap[ppn])
    kind = word >> pmap.STATE_SHIFT & pmap.STATE_MASK
    since, until, cause, rip = state.history[ppn].tolist()
    line = f"{one_line(name)} page {ppn:#x}: {pmap.STATE_NAMES[kind]}"
    if kind == pmap.SHARED:
        mpn = word & pmap.MPN_MASK
        line += f" since {_seconds(host, vm, since):.1f} s, frame {mpn:#x} with {_sharers(host, mpn, vm, ppn)}"
    if until != cow.NEVER:
        where = f" at {rip & (1 << 64) - 1:#x}" if cause == cow.BY_STORE else ""
        line += f"; last broken at {_seconds(host, vm, until):.1f} s by {CAUSES[cause]}{where}"
    return line + "\n"


def _seconds(host: Host, vm: HostedVm, time: int) -> float:
    return (vm.started_at + time) / host.scenario.insns_per_second


def _sharers(host: Host, mpn: int, vm: HostedVm, ppn: int) -> str:
    found = []
    for other in host.vms:
        if other.has_memory:
            ram = other.vm.state.pmap[: other.vm.state.ram_pages]
            pages = np.flatnonzero((ram >> pmap.STATE_SHIFT & pmap.STATE_MASK == pmap.SHARED) & (ram & pmap.MPN_MASK == mpn))
            found += [f"{one_line(other.name)} {page:#x}" for page in pages.tolist() if other is not vm or page != ppn]
    shown = ", ".join(found[:8]) or "nobody now"
    return shown + (f" and {len(found) - 8} more" if len(found) > 8 else "")


def sharing_table(host: Host) -> pa.Table:
    """A row for each page of a running VM that was ever shared. Times are machine seconds; `until` and what follows tell of the last break."""
    columns: dict[str, list[object]] = {
        name: []
        for name in ("vm", "ppn", "state", "mpn", "references", "is_zero", "is_code", "since", "until", "broken_by", "rip")
    }
    zero = -1 if host.sharing is None else host.sharing.zero_frame
    for vm in host.vms:
        if host.sharing is None or not vm.has_memory:
            continue
        state = vm.vm.state
        for ppn in np.flatnonzero(state.history[: state.ram_pages, cow.SINCE] != cow.NEVER).tolist():
            word = int(state.pmap[ppn])
            kind, mpn = word >> pmap.STATE_SHIFT & pmap.STATE_MASK, word & pmap.MPN_MASK
            since, until, cause, rip = state.history[ppn].tolist()
            is_shared, is_broken = kind == pmap.SHARED, until != cow.NEVER
            row = (
                *(vm.name, ppn, pmap.STATE_NAMES[kind], mpn if kind in (pmap.SHARED, pmap.PRESENT_PAGE) else None),
                *(int(host.sharing.table.references(np.array([mpn]))[0]) if is_shared else None, is_shared and mpn == zero),
                *(bool(word & pmap.EXECUTED), _seconds(host, vm, since), _seconds(host, vm, until) if is_broken else None),
                *(CAUSES[cause] if is_broken else None, rip if is_broken and cause == cow.BY_STORE else None),
            )
            for values, value in zip(columns.values(), row, strict=True):
                values.append(value)
    kinds = [
        pa.string(),
        pa.int64(),
        pa.string(),
        pa.int64(),
        pa.int64(),
        pa.bool_(),
        pa.bool_(),
        pa.float64(),
        pa.float64(),
        pa.string(),
        pa.int64(),
    ]
    return pa.table(columns, pa.schema(list(zip(columns, kinds, strict=True))))


def write_sharing_table(host: Host, path: Path) -> None:
    """Write it as Parquet; raises OutputError."""
    try:  # by name, pyarrow would remove what it cannot write to: a device, as root
        with replacing(path) if can_be_replaced(path) else path.open("wb") as file:
            pq.write_table(sharing_table(host), file)
    except OSError as error:
        raise OutputError(f"{path}: cannot write the pages ({(error.strerror or str(error)).lower()})") from error
