"""Whether a machine that comes from a file can be run: every number that native code follows leads to somewhere inside of what it is a number of.

A snapshot may be made up on purpose, and native code believes its arrays: an index that is too large would be a store anywhere in the process. What is
looked at here is where numbers lead, all of it at once for each array; not whether the machine makes sense, which `Host.check` says.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emu.errors import SnapshotError
from emu.host.host import Host
from emu.host.hosted import HostedVm, Phase
from emu.machine import control as cbw
from emu.machine import paging as pg
from emu.machine.memory import FrameUse
from emu.resources import content
from emu.units import PAGE_BYTES
from emu.vm import pmap, rows
from emu.vm import step_records as rec
from emu.vm.state import VmState

LEVELS = (0, 2, 3, 4)  # of the guest's paging
VECTORS = 256
INSN_BYTES = 15
POINTERS = 128  # places of four directory pointers in a page


def check(host: Host) -> None:
    """Raises SnapshotError for the first number that leads nowhere."""
    _check_frames(host)
    _check_tables(host)
    for vm in host.vms:
        if vm.has_memory != (vm.phase in (Phase.RUNNING, Phase.BLOCKED)):
            raise SnapshotError(f"{vm.name} is {vm.phase}, and has {'a' if vm.has_memory else 'no'} machine")
        if vm.has_memory:
            _check_vm(vm)
    if host.sharing is not None:
        _check_sharing(host)


def _inside(what: str, values: Any, first: int, end: int) -> None:
    """All values are at least `first` and less than `end`."""
    found = np.asarray(values)
    if found.dtype.kind not in "iu" or (found.size and (int(found.min()) < first or int(found.max()) >= end)):
        raise SnapshotError(f"{what}: a number that is not from {first} to {end - 1}")


# ---- the machine -----------------------------------------------------------------------------------------------------


def _check_frames(host: Host) -> None:
    table, count = vars(host.memory.frames), len(host.memory.frames)
    _inside("the free list", table["_free"], 0, count)
    _inside("the number of free frames", table["_free_count"], 0, count + 1)
    records = host.memory.frames.records
    slots = {vm.number: vm.vm.state.slots for vm in host.vms if vm.has_memory}
    guest = records[records["use"] == FrameUse.GUEST]
    for number, most in slots.items():
        _inside("the frame table's pages", guest["ppn"][guest["owner"] == number], 0, most)
    for *_, mpn in vars(host.reclamation.disk)["_queue"]:
        _inside("a page on its way to a swap area", mpn, 0, count)


def _check_tables(host: Host) -> None:
    """The entries of all shadow and nested tables name frames of the machine."""
    tables = np.flatnonzero(host.memory.frames.records["use"] == FrameUse.TABLE)
    entries = host.memory.words.reshape(-1, rows.ENTRIES)[tables]
    _inside("a table's entries", _mpns(entries[entries & pg.PRESENT != 0]), 0, len(host.memory.frames))


def _mpns(entries: np.ndarray) -> np.ndarray:
    mpns: np.ndarray = (entries & pg.FRAME_MASK) // PAGE_BYTES
    return mpns


def _check_sharing(host: Host) -> None:
    assert host.sharing is not None
    count, table = len(host.memory.frames), host.sharing.table
    chains = vars(table)
    _inside("the content table's chains", chains["_heads"], content.END, count + 1)
    _inside("the content table's links", chains["_next"], content.END, count + 1)
    overflowed = int(table.control[content.OVERFLOWED])
    _inside("the rows of reference counts", overflowed, 0, len(table.overflow) + 1)
    _inside("the frames of reference counts", table.overflow[:overflowed, 0], 0, count)
    records = host.memory.frames.records
    saturated = np.flatnonzero(records["references"] >= table.control[content.SATURATION])
    if not np.isin(saturated, table.overflow[:overflowed, 0]).all():
        raise SnapshotError("a frame's reference count has no row")
    for vm in host.vms:
        if vm.has_memory and not np.all(records["use"][_shared(vm.vm.state)] == FrameUse.SHARED):
            raise SnapshotError(f"a shared page of {vm.name} has a frame that is not shared")
    numbers, pages = vars(host.sharing)["_order"]
    _inside("the scan's VMs", numbers, 0, len(host.vms) + 1)
    for vm in host.vms:
        _inside("the scan's pages", pages[numbers == vm.number], 0, len(vm.swap.place_of))


def _shared(state: VmState) -> np.ndarray:
    """Frames of pages that are shared, and those that a VM does not share any more."""
    words = state.pmap[state.pmap >> pmap.STATE_SHIFT & pmap.STATE_MASK == pmap.SHARED]
    return np.concatenate([words & pmap.MPN_MASK, state.dropped[: int(state.control[cbw.DROPPED_COUNT])]])


# ---- a VM ------------------------------------------------------------------------------------------------------------


def _check_vm(vm: HostedVm) -> None:
    state = vm.vm.state
    frames, slots = len(state.memory.frames), state.slots
    _inside("the pmap's frames", state.pmap & pmap.MPN_MASK, 0, frames)
    _inside("the pmap's states", state.pmap >> pmap.STATE_SHIFT & pmap.STATE_MASK, 0, len(pmap.STATE_NAMES))
    _inside("the reverse map", state.rmap, 0, len(state.links) + 1)
    _inside("the pages that are tables", state.tables, 0, len(state.rows) + 1)
    _inside("the tables out of sync", state.unsync_rows, -1, slots)
    for name, held in (
        ("fixed", state.fixed_frames),
        ("ROM's", state.rom_frames),
        ("sinks'", state.sinks),
        ("CPU's", vm.vm.cpu.frames),
    ):
        _inside(f"the {name} frames", held, 0, frames)
    _check_words(state)
    _inside("the reserve", state.reserve[: int(state.control[cbw.RESERVE_COUNT])], 0, frames)
    _inside("the dropped frames", state.dropped[: int(state.control[cbw.DROPPED_COUNT])], 0, frames)
    for returned in state.returned:
        _inside("the returned frames", returned, 0, frames)
    _check_rows(state)
    if vm.working_set is not None:
        _inside("the sampled pages", vars(vm.working_set)["_slots"], 0, state.ram_pages)


def _check_words(state: VmState) -> None:
    """Words of the control block that are a number or a count of something."""
    cb, limits = state.control, {
        cbw.RESERVE_COUNT: (0, len(state.reserve) + 1),
        cbw.DROPPED_COUNT: (0, len(state.dropped) + 1),
        cbw.FREED_COUNT: (0, 1),  # between two slices there are none
        cbw.SHADOW_FREE: (0, len(state.rows) + 1),
        cbw.SHADOW_USED: (0, len(state.rows) + 1),
        cbw.ROOT: (-1, len(state.rows)),
        cbw.UNSYNC_COUNT: (0, len(state.unsync_rows) + 1),
        cbw.STEPPING: (0, rec.LIMIT + 1),
        cbw.INSN_BYTES: (0, 1 << 8),  # with flags of `emu.vm.record`
        cbw.INSN_LENGTH: (0, INSN_BYTES + 1),
        cbw.DUE: (0, VECTORS + 1),
        cbw.PENDING_FAULT: (0, VECTORS + 1),
        cbw.GUEST_LEVELS: (0, LEVELS[-1] + 1),
    }  # fmt: skip
    for word, (first, end) in limits.items():
        _inside(f"word {word} of the control block", cb[word], first, end)
    if cb[cbw.GUEST_LEVELS] not in LEVELS:
        raise SnapshotError("a form of paging that there is not")
    empty, nested = state.fixed_frames[1:3] * PAGE_BYTES
    if cb[cbw.EMPTY_ROOT] != empty or cb[cbw.NESTED_ROOT] != nested:
        raise SnapshotError("the roots of the tables are elsewhere")
    if cb[cbw.POISONED_ENTRY] & pg.PRESENT:
        _inside("the entry that was taken away", _mpns(cb[cbw.POISONED_ENTRY]), 0, len(state.memory.frames))


def _check_rows(state: VmState) -> None:
    """Shadow pages, their lists, and what their entries point at."""
    count, links = len(state.rows), state.links
    _inside("the free shadow pages", state.rows[:, rows.NEXT_FREE], 0, count + 1)
    numbers = np.flatnonzero(state.rows[:, rows.IN_USE])
    used = state.rows[numbers]
    _inside("the shadow pages' frames", used[:, rows.FRAME], 0, len(state.memory.frames))
    _inside("the shadow pages' lists", used[:, rows.NEXT_IN_SLOT], 0, count + 1)
    _inside("the shadow pages' parents", used[:, rows.PARENTS], 0, len(links) + 1)
    _inside("the pages of shadow pages", used[:, rows.CHAIN], 0, state.slots)
    roles = used[:, rows.ROLE]
    _inside("the levels of shadow pages", roles & rows.LEVEL_MASK, 1, LEVELS[-1] + 1)
    _inside("the directory pointers", roles >> rows.POINTERS_SHIFT, 0, POINTERS)
    _inside("the tables of shadow pages", used[roles & rows.DIRECT == 0][:, rows.PPN], 0, state.slots)
    entries = state.memory.words.reshape(-1, rows.ENTRIES)[used[:, rows.FRAME]]
    of, index = np.nonzero(entries & pg.PRESENT)
    listed = links[numbers[of] * rows.ENTRIES + index]
    _inside("the shadow entries' frames", _mpns(entries[of, index]), 0, len(state.memory.frames))
    _inside("the shadow entries' lists", listed[:, :2], 0, len(links) + 1)
    is_leaf = (roles & rows.LEVEL_MASK == 1)[of]
    _inside("the pages of shadow entries", listed[is_leaf, 2], 0, state.slots)
    _inside("the tables of shadow entries", listed[~is_leaf, 2], 0, count)
