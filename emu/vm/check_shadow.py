"""The auditor's part for shadow tables (`emu.vm.check`), and what its other parts look at memory with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from emu.errors import BrokenInvariantError
from emu.machine import control as cbw
from emu.machine import paging as pg
from emu.units import PAGE_BYTES
from emu.vm import pmap, rows
from emu.vm import step_records as rec
from emu.vm.state import VmState

ENTRIES = rows.ENTRIES
POINTERS = 4  # directory pointers of a 32-bit or PAE guest's root
NX = 1 << 63
WORD32, WORD = (1 << 32) - 1, (1 << 64) - 1


def require(condition: object, message: str) -> None:
    """Raise BrokenInvariantError unless the condition holds."""
    if not condition:
        raise BrokenInvariantError(message)


def check_shadow(state: VmState) -> None:
    """Assert the invariants of `emu.vm.shadow`."""
    entries = list(_shadow_entries(state))
    opened = opened_entries(state)
    _check_rows(state)
    _check_unsync(state)
    _check_root(state)
    for row, index, value in entries:
        if address(state, row, index) not in opened:
            _check_shadow_entry(state, row, index, value)
    _check_lists(state, entries)


# ---- looking at memory ----------------------------------------------------------------------------------------------


def states(state: VmState) -> np.ndarray:
    """The state of each page in the pmap."""
    return state.pmap >> pmap.STATE_SHIFT & pmap.STATE_MASK


def table(state: VmState, mpn: int) -> np.ndarray:
    """The entries in a frame."""
    return state.memory.words[mpn * ENTRIES : (mpn + 1) * ENTRIES]


def address(state: VmState, row: int, index: int) -> int:
    """The host address of a shadow entry."""
    return state.memory.address + int(state.rows[row, rows.FRAME]) * PAGE_BYTES + 8 * index


def step_words(state: VmState) -> np.ndarray:
    """The records of pages that an instruction under way has open (`emu.vm.step`), a row of words each."""
    return state.step_rows.view(np.int64).reshape(-1, rec.BYTES // 8)[: int(state.control[cbw.STEPPING])]


def opened_entries(state: VmState) -> set[int]:
    """Host addresses of the entries that open them."""
    return set(step_words(state)[:, rec.ENTRY // 8].tolist())


def _shadow_entries(state: VmState) -> Iterator[tuple[int, int, int]]:
    """(row, index, entry) of every present entry of every row in use."""
    for row in np.flatnonzero(state.rows[:, rows.IN_USE]):
        words = table(state, int(state.rows[row, rows.FRAME]))
        for index in np.flatnonzero(words & pg.PRESENT):
            yield int(row), int(index), int(words[index]) & WORD


def _check_rows(state: VmState) -> None:
    """shadow 4: a row is in use, with a key of its own, or on the free list, with no entry and no parent."""
    in_use = state.rows[:, rows.IN_USE] != 0
    used = state.rows[in_use]
    keys = Counter(map(tuple, used[:, [rows.CHAIN, rows.PPN, rows.ROLE]].tolist()))
    require(len(keys) == len(used), "shadow 4: two rows stand for the same")
    free: list[int] = []
    row = int(state.control[cbw.SHADOW_FREE]) - 1
    while row >= 0:
        require(not in_use[row], f"shadow 4: row {row} is on the free list and in use")
        require(len(free) < len(in_use), "shadow 4: the free list has no end")
        free.append(row)
        row = int(state.rows[row, rows.NEXT_FREE]) - 1
    require(
        len(set(free)) == len(free) == len(in_use) - len(used),
        "shadow 4: a free row is missing from the free list, or on it twice",
    )
    require(not np.any(state.rows[free, rows.PARENTS]), "shadow 4: a free row has a parent")
    frames = state.rows[free, rows.FRAME]
    pages = state.memory.words.reshape(-1, ENTRIES)[frames[frames >= 0]]
    require(not np.any(pages & pg.PRESENT), "shadow 4: a free row has an entry")
    for number in np.flatnonzero(in_use):
        _check_key(state, int(number))


def _check_key(state: VmState, row: int) -> None:
    """A row is on the list of the guest page that it stands for; its level and kind are those of the guest's form of paging."""
    levels = int(state.control[cbw.GUEST_LEVELS])
    role, chain = int(state.rows[row, rows.ROLE]), int(state.rows[row, rows.CHAIN])
    ppn = int(state.rows[row, rows.PPN]) & WORD32
    require(chain == (slot_at(state, ppn) if role & rows.DIRECT else ppn), f"shadow 4: row {row} is listed under slot {chain:#x}")
    level = role & rows.LEVEL_MASK
    require(1 <= level <= max(levels, pg.PAE), f"shadow 4: row {row} has level {level}")
    is_root_of_pointers = level == pg.PAE and levels != pg.LONG
    require(
        bool(role & rows.UNTRACED) == is_root_of_pointers, f"shadow 4: row {row} is traced though it is a root, or the reverse"
    )


def _check_unsync(state: VmState) -> None:
    """Tables out of sync serve as page tables only, have memory, and all of their rows say so."""
    slots = state.unsync_rows[state.unsync_rows != 0] - 1
    require(len(set(slots.tolist())) == len(slots), "shadow 5: a table has two copies")
    require(len(slots) == int(state.control[cbw.UNSYNC_COUNT]), "shadow 5: tables out of sync miscounted")
    require(np.all(states(state)[slots] == pmap.PRESENT_PAGE), "shadow 5: a table out of sync has no memory of its own")
    roles = state.rows[:, rows.ROLE]
    traced = (state.rows[:, rows.IN_USE] != 0) & ((roles & (rows.DIRECT | rows.UNTRACED)) == 0)
    has_copy = np.isin(state.rows[:, rows.CHAIN], slots)
    require(
        np.all((state.rows[traced, rows.UNSYNC] != 0) == has_copy[traced]), "shadow 5: a row does not know whether it is in sync"
    )
    mirrors = traced & has_copy
    require(np.all(roles[mirrors] & rows.LEVEL_MASK == 1), "shadow 5: a directory is out of sync")
    require(set(state.rows[mirrors, rows.CHAIN].tolist()) == set(slots.tolist()), "shadow 5: a page out of sync is no table")


def _check_root(state: VmState) -> None:
    """The row that the engine walks stands for the guest's CR3, under the guest's CR0.WP."""
    control = state.control
    row = int(control[cbw.ROOT])
    if not control[cbw.SHADOWING] or row < 0:
        return
    levels, cr3 = int(control[cbw.GUEST_LEVELS]), int(control[cbw.GUEST_CR3])
    role = int(state.rows[row, rows.ROLE])
    require(state.rows[row, rows.IN_USE], "shadow 6: the root is a free row")
    require(role & rows.LEVEL_MASK == max(levels, pg.PAE), "shadow 6: the root has another level")
    require(
        int(state.rows[row, rows.CHAIN]) == slot_at(state, (cr3 & pg.FRAME_MASK) >> 12), "shadow 6: the root is not that of CR3"
    )
    require(
        bool(role & rows.WRITE_PROTECT) == bool(int(control[cbw.GUEST_CR0]) & pg.CR0_WP),
        "shadow 6: the root is of another CR0.WP",
    )
    place = cr3 >> 5 & 0x7F if levels == pg.PAE else 0
    require(role >> rows.POINTERS_SHIFT & 0x7F == place, "shadow 6: the root is that of other pointers")


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
    require(not (role ^ int(child[rows.ROLE])) & rows.WRITE_PROTECT, f"shadow 2: row {row} has a child of another CR0.WP")
    if role & rows.DIRECT:
        first = (int(state.rows[row, rows.PPN]) & WORD32) + index * ENTRIES
        require(int(child[rows.PPN]) & WORD32 == first, f"shadow 1: entry {index} of row {row} maps other pages")
        alike = rows.DIRECT | rows.ACCESS_MASK | rows.DIRTY
        require(
            not (role ^ int(child[rows.ROLE])) & alike,
            f"shadow 2: entry {index} of row {row} has other rights than its large page",
        )
    elif role & rows.UNTRACED:
        _check_pointer(state, row, index, child)
    elif int(state.control[cbw.GUEST_LEVELS]) == pg.LEGACY:
        _check_legacy_directory_entry(state, row, index, child)
    else:
        _check_directory_entry(state, row, index, child)


def _check_pointer(state: VmState, row: int, index: int, child: np.ndarray) -> None:
    """An entry of the root of a 32-bit or PAE guest, which grants all rights; a PAE guest's pointers may have changed since."""
    role = int(child[rows.ROLE])
    where = f"entry {index} of root {row}"
    require(index < POINTERS, f"shadow 1: {where} is none of the four")
    require(role & rows.ACCESS_MASK == rows.ACCESS_MASK and not role & rows.DIRECT, f"shadow 2: {where} leads to no directory")
    if int(state.control[cbw.GUEST_LEVELS]) == pg.LEGACY:
        require(int(child[rows.CHAIN]) == int(state.rows[row, rows.CHAIN]), f"shadow 1: {where} leads to another directory")
        require(role >> rows.QUADRANT_SHIFT & 3 == index, f"shadow 1: {where} leads to another quarter")


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
        _check_dirty(role, pde, where)
        first = (pde & pg.LARGE32_FRAME) >> 12 | (pde & pg.LARGE32_HIGH) >> 13 << 20
        require(int(child[rows.PPN]) & WORD32 == first + index % 2 * ENTRIES, f"shadow 1: {where} maps other pages")
    else:
        require(int(child[rows.CHAIN]) == slot_at(state, pde >> 12), f"shadow 1: {where} leads to another table")
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
        _check_dirty(role, entry, where)
        first = ppn & ~((1 << 9 * (level - 1)) - 1)
        require(int(child[rows.PPN]) & WORD32 == first, f"shadow 1: {where} maps other pages")
    else:
        require(int(child[rows.CHAIN]) == slot_at(state, ppn), f"shadow 1: {where} leads to another table")


def _check_dirty(role: int, entry: int, where: str) -> None:
    """Through the row of a large page stores may go only if each entry that leads to it has D set."""
    require(
        entry & pg.DIRTY or not role & rows.WRITTEN_THROUGH, f"shadow 2: {where} may be written through, its D bit is not set"
    )


def slot_at(state: VmState, ppn: int) -> int:
    """The slot of a page number."""
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
    if role & rows.DIRECT:
        return slot_at(state, (int(state.rows[row, rows.PPN]) & WORD32) + index), rights | pg.DIRTY, False
    pte = _guest_entry(state, chain, (role >> rows.QUADRANT_SHIFT & 3) * ENTRIES + index)
    require(pte & pg.PRESENT, f"shadow 2: a leaf of row {row} stands for guest PTE {pte:08x}, which is not present")
    own = pte & (pg.WRITABLE | pg.USER) | (0 if pte & NX else pg.EXECUTABLE)
    return slot_at(state, (pte & pg.FRAME_MASK) >> 12), own & rights | pte & pg.DIRTY, True


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
    role = int(state.rows[row, rows.ROLE])
    require(
        not role & rows.DIRECT or role & rows.WRITTEN_THROUGH, f"shadow 2: {where} is writable, another entry's D bit may be due"
    )
    if not access & pg.WRITABLE:
        _check_override(state, role, value, access, where)
    table_keeps_bits = int(state.pmap[int(state.rows[row, rows.CHAIN])]) >> pmap.STATE_SHIFT & pmap.STATE_MASK
    waits = has_dirty and table_keeps_bits == pmap.PRESENT_PAGE
    require(access & pg.DIRTY or not waits, f"shadow 2: {where} is writable, the guest's D bit is not set")
    _check_writable_page(state, slot, where)


def _check_override(state: VmState, role: int, value: int, access: int, where: str) -> None:
    """CR0.WP is off, and the supervisor stores to a read-only page: to one of the user's only if SMEP and SMAP mean the same for it."""
    require(not role & rows.WRITE_PROTECT and not value & pg.USER, f"shadow 2: {where} is writable, the guest's is not")
    cr4 = int(state.control[cbw.GUEST_CR4])
    if access & pg.USER:
        require(not cr4 & pg.CR4_SMAP, f"shadow 2: {where} is the user's, from whom SMAP keeps the supervisor")
        require(not cr4 & pg.CR4_SMEP or value & NX, f"shadow 2: {where} is the user's, which SMEP lets nobody run")


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
    return bool(np.any((roles & (rows.DIRECT | rows.UNTRACED)) == 0))


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
