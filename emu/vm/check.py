"""The auditor: walks everything that maps memory for a VM and asserts the invariants of pmap, shadow and nested tables.

Slow and plain on purpose. It looks at the tables from outside: what an entry may grant is worked out again from the
guest's own entries, not with the functions that made it. Tests call it after every run of a VM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from emu.errors import BrokenInvariantError
from emu.machine import control as cbw
from emu.machine import paging as pg
from emu.machine.memory import SHARED_OWNER, FrameUse
from emu.units import PAGE_BYTES
from emu.vm import pmap, reclaim, rows
from emu.vm import step_records as rec
from emu.vm.state import VmState

ENTRIES = rows.ENTRIES
NX = 1 << 63
WORD32, WORD = (1 << 32) - 1, (1 << 64) - 1


def require(condition: object, message: str) -> None:
    """Raise BrokenInvariantError unless the condition holds."""
    if not condition:
        raise BrokenInvariantError(message)


def check(state: VmState) -> None:
    """Assert every invariant of one VM and of the frame table; raises BrokenInvariantError naming what is broken."""
    state.memory.frames.check()
    _check_pmap(state)
    _check_frames(state)
    entries = list(_shadow_entries(state))
    opened = _opened_entries(state)
    for row, index, value in entries:
        if _address(state, row, index) not in opened:
            _check_shadow_entry(state, row, index, value)
    _check_lists(state, entries)
    _check_nested(state, opened)


# ---- pmap and frames ------------------------------------------------------------------------------------------------


def _states(state: VmState) -> np.ndarray:
    return state.pmap >> pmap.STATE_SHIFT & pmap.STATE_MASK


def _check_pmap(state: VmState) -> None:
    """pmap invariants 1, 3 and 4: PRESENT pages have frames of their own, recorded for them, SHARED ones the machine's; others have nothing."""
    present = np.flatnonzero(_states(state) == pmap.PRESENT_PAGE)
    frames = state.pmap[present] & pmap.MPN_MASK
    records = state.memory.frames.records[frames]
    require(len(np.unique(frames)) == len(frames), "pmap 1: two pages share a frame")
    require(np.all(records["owner"] == state.number), "pmap 1: a page's frame belongs to someone else")
    require(np.all(records["use"] == FrameUse.GUEST), "pmap 1: a page's frame is not marked as guest memory")
    require(np.all(records["ppn"] == present), "pmap 1: a frame is recorded for another page")
    require(np.all(records["references"] == 1), "pmap 1: a private frame has not exactly one reference")
    ballooned = np.flatnonzero(_states(state) == pmap.BALLOONED)
    require(
        not np.any(state.pmap[ballooned] & ~(pmap.STATE_MASK << pmap.STATE_SHIFT)),
        "pmap 3: a page in the balloon has a frame or a use",
    )
    require(not np.any(state.rmap[ballooned]), "pmap 3: a page in the balloon is mapped")
    swapped = np.flatnonzero(_states(state) == pmap.SWAPPED)
    require(not np.any(state.pmap[swapped] & pmap.MPN_MASK), "pmap 3: a swapped page has a frame")
    require(not np.any(state.rmap[swapped]), "pmap 3: a swapped page is mapped")
    shared = state.memory.frames.records[state.pmap[_states(state) == pmap.SHARED] & pmap.MPN_MASK]
    require(np.all(shared["use"] == FrameUse.SHARED), "pmap 4: a shared page's frame is not marked as shared")
    require(np.all(shared["owner"] == SHARED_OWNER), "pmap 4: a shared page's frame does not belong to the machine")
    require(len(ballooned) == int(state.control[cbw.BALLOON_PAGES]), "pmap 3: pages in the balloon miscounted")


def _check_frames(state: VmState) -> None:
    """The frames that the table gives to the VM are the ones it knows of, use by use."""
    records = state.memory.frames.records
    mine = records["owner"] == state.number
    guest = state.pmap[_states(state) == pmap.PRESENT_PAGE] & pmap.MPN_MASK
    shadow_pages = state.rows[:, rows.FRAME]
    tables = np.concatenate([shadow_pages[shadow_pages >= 0], reclaim.table_frames(state)])
    reserve = state.reserve[: int(state.control[cbw.RESERVE_COUNT])]
    for use, known in ((FrameUse.GUEST, guest), (FrameUse.TABLE, tables), (FrameUse.RESERVE, reserve)):
        recorded = np.flatnonzero(mine & (records["use"] == use))
        require(np.array_equal(recorded, np.sort(known)), f"frames: those in use as {use.name} are not the VM's own")
    require(len(tables) - np.sum(shadow_pages >= 0) == int(state.control[cbw.NESTED_PAGES]), "frames: nested tables miscounted")


# ---- shadow tables --------------------------------------------------------------------------------------------------


def _table(state: VmState, mpn: int) -> np.ndarray:
    return state.memory.words[mpn * ENTRIES : (mpn + 1) * ENTRIES]


def _address(state: VmState, row: int, index: int) -> int:
    return state.memory.address + int(state.rows[row, rows.FRAME]) * PAGE_BYTES + 8 * index


def _opened_entries(state: VmState) -> set[int]:
    """Entries that an instruction under way has open (`emu.vm.step`)."""
    words = state.step_rows.view(np.int64).reshape(-1, rec.BYTES // 8)
    return {int(words[number, rec.ENTRY // 8]) for number in range(int(state.control[cbw.STEPPING]))}


def _shadow_entries(state: VmState) -> Iterator[tuple[int, int, int]]:
    """(row, index, entry) of every present entry of every row in use."""
    for row in np.flatnonzero(state.rows[:, rows.IN_USE]):
        words = _table(state, int(state.rows[row, rows.FRAME]))
        for index in np.flatnonzero(words & pg.PRESENT):
            yield int(row), int(index), int(words[index]) & WORD


def _check_shadow_entry(state: VmState, row: int, index: int, value: int) -> None:
    role = int(state.rows[row, rows.ROLE])
    target = int(state.links[row * ENTRIES + index, 2])
    if role & rows.LEVEL_MASK == 1:
        _check_leaf(state, row, index, value, target)
        return
    child = state.rows[target]
    require(child[rows.IN_USE], f"shadow 4: row {row} points at row {target}, which is free")
    frame = (value & pg.FRAME_MASK) >> 12
    require(frame == int(child[rows.FRAME]), f"shadow 4: entry {index} of row {row} is not its child's frame")
    child_level = int(child[rows.ROLE]) & rows.LEVEL_MASK
    require(child_level == (role & rows.LEVEL_MASK) - 1, f"shadow 4: row {row} has a child of level {child_level}")
    if role & rows.DIRECT:
        first = int(state.rows[row, rows.PPN]) + index * ENTRIES
        require(int(child[rows.PPN]) == first, f"shadow 1: entry {index} of row {row} maps other pages")
        return
    if int(state.control[cbw.GUEST_LEVELS]) == pg.LEGACY:
        if child_level == 1:
            _check_legacy_directory_entry(state, row, index, child)
    elif not role & rows.UNTRACED:
        _check_directory_entry(state, row, index, child)


def _check_legacy_directory_entry(state: VmState, row: int, index: int, child: np.ndarray) -> None:
    """A shadow directory entry leads to what a 32-bit guest's PDE leads to, with its rights and no more."""
    quadrant = int(state.rows[row, rows.ROLE]) >> rows.QUADRANT_SHIFT & 3
    pde = _guest_entry(state, int(state.rows[row, rows.CHAIN]), quadrant * 256 + index // 2)
    role = int(child[rows.ROLE])
    rights = role >> rows.ACCESS_SHIFT & (pg.WRITABLE | pg.USER)
    where = f"row {row} entry {index} (guest PDE {pde:08x})"
    require(pde & pg.PRESENT, f"shadow 2: {where} is present")
    require(not rights & ~pde, f"shadow 2: {where} inherits more than the guest grants")
    if role & rows.DIRECT:
        first = (pde & pg.LARGE32_FRAME) >> 12 | (pde & pg.LARGE32_HIGH) >> 13 << 20
        require(int(child[rows.PPN]) == first + index % 2 * ENTRIES, f"shadow 1: {where} maps other pages")
    else:
        require(int(child[rows.CHAIN]) == _slot(state, pde >> 12), f"shadow 1: {where} leads to another table")
        require(role >> rows.QUADRANT_SHIFT & 3 == index % 2, f"shadow 1: {where} leads to the other half")


def _check_directory_entry(state: VmState, row: int, index: int, child: np.ndarray) -> None:
    """The same for an entry of a PAE or long mode guest's table."""
    entry = _guest_entry(state, int(state.rows[row, rows.CHAIN]), index)
    role = int(child[rows.ROLE])
    level = int(state.rows[row, rows.ROLE]) & rows.LEVEL_MASK
    where = f"row {row} entry {index} (guest entry {entry:016x})"
    require(entry & pg.PRESENT, f"shadow 2: {where} is present")
    above = int(state.rows[row, rows.ROLE]) >> rows.ACCESS_SHIFT & pg.ALL_RIGHTS
    granted = above & (entry & (pg.WRITABLE | pg.USER) | (0 if entry & NX else pg.EXECUTABLE))
    require(not role >> rows.ACCESS_SHIFT & pg.ALL_RIGHTS & ~granted, f"shadow 2: {where} inherits more than the guest grants")
    ppn = (entry & pg.FRAME_MASK) >> 12
    if role & rows.DIRECT:
        first = ppn & ~((1 << 9 * (level - 1)) - 1)
        require(int(child[rows.PPN]) & WORD32 == first, f"shadow 1: {where} maps other pages")
    else:
        require(int(child[rows.CHAIN]) == _slot(state, ppn), f"shadow 1: {where} leads to another table")


def _slot(state: VmState, ppn: int) -> int:
    return int(pmap.slot_of(state.control, ppn))


def _guest_entry(state: VmState, slot: int, index: int) -> int:
    """An entry of a guest table as the shadow knows it: an out-of-sync table counts as last read."""
    copies = np.flatnonzero(state.unsync_rows == slot + 1)
    if len(copies):
        page = state.unsync_copies[int(copies[0]) * PAGE_BYTES :][:PAGE_BYTES]
    else:
        word = int(state.pmap[slot])
        if word >> pmap.STATE_SHIFT & pmap.STATE_MASK in pmap.WITHOUT_FRAME:
            return 0
        mpn = word & pmap.MPN_MASK
        page = state.memory.bytes[mpn * PAGE_BYTES : (mpn + 1) * PAGE_BYTES]
    return int(page.view(np.uint32 if int(state.control[cbw.GUEST_LEVELS]) == pg.LEGACY else np.uint64)[index])


def _granted(state: VmState, row: int, index: int) -> tuple[int, int, bool]:
    """(slot, access, has a D bit to wait for): what guest tables grant where a leaf stands, worked out here."""
    chain, role = int(state.rows[row, rows.CHAIN]), int(state.rows[row, rows.ROLE])
    rights = role >> rows.ACCESS_SHIFT & pg.ALL_RIGHTS
    if role & rows.DIRECT:  # a row without WRITABLE may stand for a clean large page: then it is never written through
        return _slot(state, (int(state.rows[row, rows.PPN]) & WORD32) + index), rights | pg.DIRTY, False
    pte = _guest_entry(state, chain, (role >> rows.QUADRANT_SHIFT & 3) * ENTRIES + index)
    require(pte & pg.PRESENT, f"shadow 2: a leaf of row {row} stands for guest PTE {pte:08x}, which is not present")
    own = pte & (pg.WRITABLE | pg.USER) | (0 if pte & NX else pg.EXECUTABLE)
    return _slot(state, (pte & pg.FRAME_MASK) >> 12), own & rights | pte & pg.DIRTY, True


def _check_leaf(state: VmState, row: int, index: int, value: int, target: int) -> None:
    slot, access, has_dirty = _granted(state, row, index)
    word = int(state.pmap[slot])
    where = f"leaf {index} of row {row} (slot {slot:#x}, entry {value:#x})"
    require(slot == target, f"shadow 1: {where} is listed under slot {target:#x}")
    require((value & pg.FRAME_MASK) >> 12 == word & pmap.MPN_MASK, f"shadow 1: {where} maps another frame")
    require(value & NX or word & pmap.EXECUTED, f"shadow 3: {where} is executable, its page is data")
    require(value & NX or access & pg.EXECUTABLE, f"shadow 3: {where} is executable, the guest's is not")
    require(not value & pg.USER or access & pg.USER, f"shadow 2: {where} lets the user in")
    if not value & pg.WRITABLE:
        return
    write_protect = int(state.rows[row, rows.ROLE]) & rows.WRITE_PROTECT
    supervisor_only = not value & pg.USER and not write_protect
    require(access & pg.WRITABLE or supervisor_only, f"shadow 2: {where} is writable, the guest's is not")
    table_keeps_bits = int(state.pmap[int(state.rows[row, rows.CHAIN])]) >> pmap.STATE_SHIFT & pmap.STATE_MASK
    waits = has_dirty and table_keeps_bits == pmap.PRESENT_PAGE
    require(access & pg.DIRTY or not waits, f"shadow 2: {where} is writable, the guest's D bit is not set")
    _check_writable_page(state, slot, where)


def _check_writable_page(state: VmState, slot: int, where: str) -> None:
    word = int(state.pmap[slot])
    kind = word >> pmap.STATE_SHIFT & pmap.STATE_MASK
    require(kind == pmap.PRESENT_PAGE, f"shadow 2: {where} is writable, its page is {pmap.STATE_NAMES[kind]}")
    require(not word & pmap.EXECUTED or word & pmap.MIXED, f"shadow 2: {where} is writable, its page is code")
    require(not _is_synced_table(state, slot), f"shadow 2: {where} is writable, its page is a traced table")


def _is_synced_table(state: VmState, slot: int) -> bool:
    """Whether a row mirrors the page entry by entry and relies on seeing its stores."""
    if np.any(state.unsync_rows == slot + 1):
        return False
    chained = (state.rows[:, rows.IN_USE] != 0) & (state.rows[:, rows.CHAIN] == slot)
    roles = state.rows[chained, rows.ROLE]
    return bool(np.any(((roles & rows.DIRECT) == 0) & ((roles & rows.LEVEL_MASK) != 3)))


def _check_lists(state: VmState, entries: list[tuple[int, int, int]]) -> None:
    """shadow 4: each present entry is on the list of its target, once, and nothing else is."""
    levels = state.rows[:, rows.ROLE] & rows.LEVEL_MASK
    leaves: Counter[tuple[int, int]] = Counter()
    parents: Counter[tuple[int, int]] = Counter()
    for row, index, _value in entries:
        link = row * ENTRIES + index
        (leaves if levels[row] == 1 else parents)[int(state.links[link, 2]), link] += 1
    found_leaves = Counter((int(slot), link) for slot in np.flatnonzero(state.rmap) for link in _list(state, state.rmap[slot]))
    heads = state.rows[:, rows.PARENTS]
    in_use = np.flatnonzero(state.rows[:, rows.IN_USE])
    found_parents = Counter((int(row), link) for row in in_use for link in _list(state, heads[row]))
    require(leaves == found_leaves, "shadow 4: the lists of pages and the leaves disagree")
    require(parents == found_parents, "shadow 4: the lists of rows and the directory entries disagree")
    require(len(in_use) == int(state.control[cbw.SHADOW_USED]), "shadow 4: rows in use miscounted")
    chained = sum(1 for slot in np.flatnonzero(state.tables) for _ in _rows_of(state, int(slot)))
    require(chained == len(in_use), "shadow 4: a row in use is on no guest table's list")


def _list(state: VmState, head: int) -> Iterator[int]:
    link, before = int(head) - 1, 0
    while link >= 0:
        require(int(state.links[link, 1]) == before, f"shadow 4: link {link} does not point back")
        yield link
        before, link = link + 1, int(state.links[link, 0]) - 1


def _rows_of(state: VmState, slot: int) -> Iterator[int]:
    row = int(state.tables[slot]) - 1
    while row >= 0:
        require(state.rows[row, rows.IN_USE], f"shadow 4: free row {row} is on the list of slot {slot:#x}")
        require(int(state.rows[row, rows.CHAIN]) == slot, f"shadow 4: row {row} is on another slot's list")
        yield row
        row = int(state.rows[row, rows.NEXT_IN_SLOT]) - 1


# ---- nested tables --------------------------------------------------------------------------------------------------


def _nested_leaves(state: VmState) -> Iterator[tuple[int, int, int]]:
    """(PPN, entry, host address) of every present nested leaf."""
    level = [(int(state.control[cbw.NESTED_ROOT]) // PAGE_BYTES, 0)]
    for _ in range(3):
        level = [
            (int(words[index]) >> 12 & pg.FRAME_MASK >> 12, prefix << 9 | int(index))
            for mpn, prefix in level
            for words in [_table(state, mpn)]
            for index in np.flatnonzero(words & pg.PRESENT)
        ]
    for mpn, prefix in level:
        words = _table(state, mpn)
        for index in np.flatnonzero(words & pg.PRESENT):
            address = state.memory.address + mpn * PAGE_BYTES + 8 * int(index)
            yield prefix << 9 | int(index), int(words[index]) & WORD, address


def _check_nested(state: VmState, opened: set[int]) -> None:
    plain = bool(state.control[cbw.NESTED_PLAIN])
    for ppn, value, address in _nested_leaves(state):
        if address in opened:
            continue
        word = int(state.pmap[_slot(state, ppn)])
        where = f"nested leaf of PPN {ppn:#x} (entry {value:#x})"
        require((value & pg.FRAME_MASK) >> 12 == word & pmap.MPN_MASK, f"pmap 2: {where} maps another frame")
        require(plain or value & NX or word & pmap.EXECUTED, f"pmap 2: {where} is executable, its page is data")
        if value & pg.WRITABLE:
            kind = word >> pmap.STATE_SHIFT & pmap.STATE_MASK
            require(kind == pmap.PRESENT_PAGE, f"pmap 2: {where} is writable, its page is {pmap.STATE_NAMES[kind]}")
            guarded = word & pmap.EXECUTED and not word & pmap.MIXED
            require(plain or not guarded, f"pmap 2: {where} is writable, its page is code")
