"""The auditor: walks everything that maps memory for a VM and asserts the invariants of pmap, shadow and nested tables.

Slow and plain on purpose. It looks at the tables from outside: what an entry may grant is worked out again from the
guest's own entries, not with the functions that made it. Tests call it after every run of a VM.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from emu.machine import control as cbw
from emu.machine import paging as pg
from emu.machine.memory import SHARED_OWNER, FrameUse
from emu.units import PAGE_BYTES
from emu.vm import pmap, reclaim, rows
from emu.vm.check_shadow import NX, WORD, check_shadow, opened_entries, require, slot_at, states, table
from emu.vm.state import VmState


def check(state: VmState) -> None:
    """Assert every invariant of one VM and of the frame table; raises BrokenInvariantError naming what is broken."""
    state.memory.frames.check()
    _check_pmap(state)
    _check_frames(state)
    check_shadow(state)
    _check_nested(state, opened_entries(state))


# ---- pmap and frames ------------------------------------------------------------------------------------------------


def _check_pmap(state: VmState) -> None:
    """pmap invariants 1, 3 and 4: PRESENT pages have frames of their own, recorded for them, SHARED ones the machine's; others have nothing."""
    present = np.flatnonzero(states(state) == pmap.PRESENT_PAGE)
    frames = state.pmap[present] & pmap.MPN_MASK
    records = state.memory.frames.records[frames]
    require(len(np.unique(frames)) == len(frames), "pmap 1: two pages share a frame")
    require(np.all(records["owner"] == state.number), "pmap 1: a page's frame belongs to someone else")
    require(np.all(records["use"] == FrameUse.GUEST), "pmap 1: a page's frame is not marked as guest memory")
    require(np.all(records["ppn"] == present), "pmap 1: a frame is recorded for another page")
    require(np.all(records["references"] == 1), "pmap 1: a private frame has not exactly one reference")
    for kind in pmap.WITHOUT_FRAME:
        name = pmap.STATE_NAMES[kind]
        pages = np.flatnonzero(states(state) == kind)
        require(
            not np.any(state.pmap[pages] & ~(pmap.STATE_MASK << pmap.STATE_SHIFT)),
            f"pmap 3: a page that is {name} has a frame or a use",
        )
        require(not np.any(state.rmap[pages]), f"pmap 3: a page that is {name} is mapped")
    ballooned = int(np.sum(states(state) == pmap.BALLOONED))
    require(ballooned == int(state.control[cbw.BALLOON_PAGES]), "pmap 3: pages in the balloon miscounted")
    _check_shared_pages(state)
    require(
        not np.any((state.watched == pmap.WAITING) & (state.rmap != 0)),
        "pmap 5: a page whose next access is waited for is mapped",
    )


def _check_shared_pages(state: VmState) -> None:
    """pmap 4: shared frames are the machine's, and count the pages that refer to them and those that did until the last slice."""
    pages = state.pmap[states(state) == pmap.SHARED]
    require(not np.any(pages & pmap.MIXED), "pmap 4: a shared page is code and data at once")
    dropped = state.dropped[: int(state.control[cbw.DROPPED_COUNT])]
    shared = state.memory.frames.records[np.concatenate([pages & pmap.MPN_MASK, dropped])]
    require(np.all(shared["use"] == FrameUse.SHARED), "pmap 4: a shared page's frame is not marked as shared")
    require(np.all(shared["owner"] == SHARED_OWNER), "pmap 4: a shared page's frame does not belong to the machine")
    require(np.all(shared["references"] >= 1), "pmap 4: nobody refers to a shared page's frame")


def _check_frames(state: VmState) -> None:
    """The frames that the table gives to the VM are the ones it knows of, use by use."""
    records = state.memory.frames.records
    mine = records["owner"] == state.number
    guest = state.pmap[states(state) == pmap.PRESENT_PAGE] & pmap.MPN_MASK
    shadow_pages = state.rows[:, rows.FRAME]
    tables = np.concatenate([shadow_pages[shadow_pages >= 0], reclaim.table_frames(state)])
    reserve = state.reserve[: int(state.control[cbw.RESERVE_COUNT])]
    for use, known in ((FrameUse.GUEST, guest), (FrameUse.TABLE, tables), (FrameUse.RESERVE, reserve)):
        recorded = np.flatnonzero(mine & (records["use"] == use))
        require(np.array_equal(recorded, np.sort(known)), f"frames: those in use as {use.name} are not the VM's own")
    require(len(tables) - np.sum(shadow_pages >= 0) == int(state.control[cbw.NESTED_PAGES]), "frames: nested tables miscounted")


# ---- nested tables --------------------------------------------------------------------------------------------------


def _nested_leaves(state: VmState) -> Iterator[tuple[int, int, int]]:
    """(PPN, entry, host address) of every present nested leaf."""
    level = [(int(state.control[cbw.NESTED_ROOT]) // PAGE_BYTES, 0)]
    for _ in range(3):
        level = [
            (int(words[index]) >> 12 & pg.FRAME_MASK >> 12, prefix << 9 | int(index))
            for mpn, prefix in level
            for words in [table(state, mpn)]
            for index in np.flatnonzero(words & pg.PRESENT)
        ]
    for mpn, prefix in level:
        words = table(state, mpn)
        for index in np.flatnonzero(words & pg.PRESENT):
            address = state.memory.address + mpn * PAGE_BYTES + 8 * int(index)
            yield prefix << 9 | int(index), int(words[index]) & WORD, address


def _check_nested(state: VmState, opened: set[int]) -> None:
    plain = bool(state.control[cbw.NESTED_PLAIN])
    for ppn, value, address in _nested_leaves(state):
        if address in opened:
            continue
        word = int(state.pmap[slot_at(state, ppn)])
        where = f"nested leaf of PPN {ppn:#x} (entry {value:#x})"
        kind = word >> pmap.STATE_SHIFT & pmap.STATE_MASK
        require(kind not in pmap.WITHOUT_FRAME, f"pmap 3: {where} maps a page that is {pmap.STATE_NAMES[kind]}")
        require(
            state.watched[slot_at(state, ppn)] != pmap.WAITING, f"pmap 5: {where} maps a page whose next access is waited for"
        )
        require((value & pg.FRAME_MASK) >> 12 == word & pmap.MPN_MASK, f"pmap 2: {where} maps another frame")
        require(plain or value & NX or word & pmap.EXECUTED, f"pmap 2: {where} is executable, its page is data")
        if value & pg.WRITABLE:
            require(kind == pmap.PRESENT_PAGE, f"pmap 2: {where} is writable, its page is {pmap.STATE_NAMES[kind]}")
            guarded = word & pmap.EXECUTED and not word & pmap.MIXED
            require(plain or not guarded, f"pmap 2: {where} is writable, its page is code")
