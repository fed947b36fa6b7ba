"""Guest tables that change: each difference is followed in every shadow of the table, at once or in a batch.

A traced table is write-protected, and a store to it is followed as it happens (`emu.vm.step`). A page table written in bulk
goes *out of sync* instead: writable, with a copy of it as last read, compared at the next CR3 load or INVLPG.

    in sync --begin_unsync()--> out of sync --sync_slot()--> out of sync, read again --end_unsync()--> in sync

The four directory pointers of a PAE guest are out of sync always: `sync_pointers` holds them against the root.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine import paging as pg
from emu.machine.native import compiled, load32, load64, store32, store64
from emu.vm import pmap, rows, walk
from emu.vm.record import NOWHERE, emit

CACHE, UNSYNC, PREFETCH, UPDATE, FLOOD, EMULATE = 1, 2, 4, 8, 16, 32  # bits of SHADOW_OPTIONS (see `emu.vm.shadow`)
PAGE, LINE = 4096, 64  # bytes
FLOOD_LIMIT = 3  # stores to a table without a use between them, after which it is not worth an exit each
CLEAN_SYNCS = 4  # reads without a change after which a table is traced again: a fork loads CR3 three times
_UPDATE, _PTE_WRITE, _UNSYNC, _SYNC = int(Kind.SHADOW_UPDATE), int(Kind.PTE_WRITE), int(Kind.UNSYNC), int(Kind.SYNC)


# ---- following a change -----------------------------------------------------------------------------------------------


@compiled
def granted(cb: object, row: int, pte: int) -> int:
    """What a guest PTE grants under a row's inherited rights, with DIRTY; or -1 if it must not be mapped yet."""
    if not pte & pg.PRESENT or not pte & pg.ACCESSED:
        return -1
    own = (pte & (pg.WRITABLE | pg.USER)) | pg.EXECUTABLE
    if cb[cbw.GUEST_LEVELS] != pg.LEGACY:
        if walk.is_malformed(cb, pte, 1):
            return -1
        own = walk.rights_of(pte)
    return (own & rows.inherited(rows.row_word(cb, row, rows.ROLE))) | (pte & pg.DIRTY)


@compiled
def slot_in(cb: object, pte: int) -> int:
    """The slot of the page that a guest PTE (of 4 KB) leads to."""
    return pmap.slot_of(cb, (pte & pg.FRAME_MASK) >> 12)


@compiled
def update_leaf(cb: object, row: int, index: int, pte: int) -> None:
    """Bring one shadow leaf in line with the guest's new PTE: updated where it stays mapped, dropped else."""
    old = load64(rows.entry_address(cb, row, index))
    if not old & pg.PRESENT:
        return
    access = granted(cb, row, pte) if cb[cbw.SHADOW_OPTIONS] & UPDATE else -1
    slot = slot_in(cb, pte)
    new = rows.leaf_value(cb, slot, access) if access >= 0 else 0
    if new == 0:
        rows.drop_entry(cb, row, index)
    else:
        rows.put_entry(cb, row, index, new, slot)
    emit(cb, _UPDATE, index, 0, rows.row_word(cb, row, rows.PPN), (new if new else old) >> 12 & NOWHERE, old, new)


@compiled
def entry_changed(cb: object, slot: int, index: int, old: int, new: int, va: int) -> None:
    """Entry number `index` of a guest table was changed: say so and update every shadow of it."""
    emit(cb, _PTE_WRITE, index, va, slot, pmap.entry(cb, slot) & pmap.MPN_MASK, old, new)
    legacy = cb[cbw.GUEST_LEVELS] == pg.LEGACY
    row = load32(cb[cbw.TABLES] + 4 * slot) - 1
    while row >= 0:
        following = rows.row_word(cb, row, rows.NEXT_IN_SLOT) - 1
        role = rows.row_word(cb, row, rows.ROLE)
        if rows.is_traced_role(role):
            quadrant = role >> rows.QUADRANT_SHIFT & 3
            if role & rows.LEVEL_MASK == 1:
                if not legacy or index >> 9 == quadrant:
                    update_leaf(cb, row, index & 0x1FF, new)
            elif not legacy:
                drop_directory_entry(cb, row, index, 1, old, new)
            elif index >> 8 == quadrant:
                drop_directory_entry(cb, row, (index & 0xFF) * 2, 2, old, new)
        row = following


@compiled
def drop_directory_entry(cb: object, row: int, first: int, count: int, old: int, new: int) -> None:
    """A guest directory entry changed: the shadow entries for it go (a change of A or D alone takes nothing away)."""
    if not (old ^ new) & ~(pg.ACCESSED | pg.DIRTY) and not old & ~new & (pg.ACCESSED | pg.DIRTY):
        return
    for place in range(first, first + count):
        before = load64(rows.entry_address(cb, row, place))
        if before & pg.PRESENT:
            rows.drop_entry(cb, row, place)
            emit(cb, _UPDATE, place, 0, rows.row_word(cb, row, rows.PPN), NOWHERE, before, 0)


@compiled
def page_changed(cb: object, slot: int, before: int, va: int) -> int:
    """Compare a guest table with its copy at `before`, follow every difference, refresh the copy; how many there were."""
    page = pmap.frame_address(cb, pmap.entry(cb, slot) & pmap.MPN_MASK)
    legacy = cb[cbw.GUEST_LEVELS] == pg.LEGACY
    changes = 0
    for line in range(0, PAGE, LINE):
        if is_line_alike(page + line, before + line):
            continue
        for offset in range(line, line + LINE, 8):
            old, new = load64(before + offset), load64(page + offset)
            if old == new:
                continue
            store64(before + offset, new)
            if not legacy:
                changes += 1
                entry_changed(cb, slot, offset >> 3, old, new, (va & ~0xFFF) | offset)
                continue
            for half in range(2):
                old_half, new_half = old >> 32 * half & walk.ONES32, new >> 32 * half & walk.ONES32
                if old_half != new_half:
                    changes += 1
                    entry_changed(cb, slot, (offset >> 2) + half, old_half, new_half, (va & ~0xFFF) | offset | 4 * half)
    return changes


@compiled
def is_line_alike(a: int, b: int) -> bool:
    """Whether 64 bytes at two host addresses are the same."""
    difference = load64(a) ^ load64(b)
    for offset in range(8, LINE, 8):
        difference |= load64(a + offset) ^ load64(b + offset)
    return difference == 0


# ---- out-of-sync tables -----------------------------------------------------------------------------------------------


@compiled
def add_flood(cb: object, slot: int) -> int:
    """Count a store to a traced table; returns the stores since any entry of it was last used.

    For a table that is out of sync it counts the times that it was read again and had not changed.
    """
    least = FLOOD_LIMIT + 1
    row = load32(cb[cbw.TABLES] + 4 * slot) - 1
    while row >= 0:
        if rows.is_traced_role(rows.row_word(cb, row, rows.ROLE)):
            flood = rows.row_word(cb, row, rows.FLOOD) + 1
            rows.set_row_word(cb, row, rows.FLOOD, flood)
            least = min(least, flood)
        row = rows.row_word(cb, row, rows.NEXT_IN_SLOT) - 1
    return least


@compiled
def clear_flood(cb: object, slot: int) -> None:
    """Begin a count of `add_flood` anew."""
    row = load32(cb[cbw.TABLES] + 4 * slot) - 1
    while row >= 0:
        if rows.is_traced_role(rows.row_word(cb, row, rows.ROLE)):
            rows.set_row_word(cb, row, rows.FLOOD, 0)
        row = rows.row_word(cb, row, rows.NEXT_IN_SLOT) - 1


@compiled
def set_unsync(cb: object, slot: int, value: int) -> None:
    """Mark every row of a guest table as in or out of sync."""
    row = load32(cb[cbw.TABLES] + 4 * slot) - 1
    while row >= 0:
        if rows.is_traced_role(rows.row_word(cb, row, rows.ROLE)):
            rows.set_row_word(cb, row, rows.UNSYNC, value)
            rows.set_row_word(cb, row, rows.FLOOD, 0)
        row = rows.row_word(cb, row, rows.NEXT_IN_SLOT) - 1


@compiled
def begin_unsync(cb: object, slot: int) -> bool:
    """Let a page table go out of sync: keep a copy and allow stores; false when no place for a copy is free."""
    for index in range(cb[cbw.UNSYNC_MAX]):
        at = cb[cbw.UNSYNC_ROWS] + 4 * index
        if load32(at) == 0:
            store32(at, slot + 1)
            cb[cbw.UNSYNC_COUNT] += 1
            copy_page(pmap.frame_address(cb, pmap.entry(cb, slot) & pmap.MPN_MASK), cb[cbw.UNSYNC_COPIES] + (index << 12))
            set_unsync(cb, slot, 1)
            drop_unused(cb, slot)
            emit(cb, _UNSYNC, 0, 0, slot, pmap.entry(cb, slot) & pmap.MPN_MASK, 0, 0)
            return True
    return False


@compiled
def drop_unused(cb: object, slot: int) -> None:
    """Drop the entries for a guest table that the engine never used: no processor's TLB would have them.

    They were prefetched, and would show the guest an old translation of its table while that is out of sync.
    """
    row = load32(cb[cbw.TABLES] + 4 * slot) - 1
    while row >= 0:
        if rows.is_traced_role(rows.row_word(cb, row, rows.ROLE)):
            rows.drop_entries(cb, row, pg.ACCESSED)
        row = rows.row_word(cb, row, rows.NEXT_IN_SLOT) - 1


@compiled
def copy_page(source: int, target: int) -> None:
    """Copy 4096 bytes between host addresses."""
    for word in range(rows.ENTRIES):
        store64(target + 8 * word, load64(source + 8 * word))


@compiled
def unsync_index(cb: object, slot: int) -> int:
    """The place of an out-of-sync table's copy, -1 if the table is in sync."""
    for index in range(cb[cbw.UNSYNC_MAX]):
        if load32(cb[cbw.UNSYNC_ROWS] + 4 * index) == slot + 1:
            return index
    return -1


@compiled
def sync_slot(cb: object, slot: int) -> int:
    """Read an out-of-sync table again; returns how many entries differed."""
    index = unsync_index(cb, slot)
    if index < 0:
        return 0
    changes = page_changed(cb, slot, cb[cbw.UNSYNC_COPIES] + (index << 12), 0)
    emit(cb, _SYNC, changes, 0, slot, pmap.entry(cb, slot) & pmap.MPN_MASK, 0, 0)
    return changes


@compiled
def sync_entry(cb: object, va: int) -> None:
    """Read the one entry of an out-of-sync table that maps an address: the shadow is about to be filled from it."""
    if not cb[cbw.UNSYNC_COUNT]:
        return
    ppn = walk.page_table(cb, va)
    slot = pmap.slot_of(cb, ppn)
    place = unsync_index(cb, slot) if ppn >= 0 else -1
    if place < 0:
        return
    pa = walk.entry_address(cb, slot << 12, va, 1)
    at = cb[cbw.UNSYNC_COPIES] + (place << 12) + (pa & 0xFFF)
    new = walk.read_entry(cb, pa)
    legacy = cb[cbw.GUEST_LEVELS] == pg.LEGACY
    old = load32(at) if legacy else load64(at)
    if old != new:
        if legacy:
            store32(at, new)
        else:
            store64(at, new)
        entry_changed(cb, slot, (pa & 0xFFF) // walk.entry_bytes(cb), old, new, 0)


@compiled
def end_unsync(cb: object, slot: int) -> None:
    """Trace a table's stores again; it must have just been read."""
    index = unsync_index(cb, slot)
    if index >= 0:
        store32(cb[cbw.UNSYNC_ROWS] + 4 * index, 0)
        cb[cbw.UNSYNC_COUNT] -= 1
        set_unsync(cb, slot, 0)
        rows.write_protect(cb, slot)


@compiled
def sync_pointers(cb: object) -> None:
    """Drop the entries of a PAE guest's root whose directory pointers no longer lead where they do."""
    row = cb[cbw.ROOT]
    if row < 0 or cb[cbw.GUEST_LEVELS] != pg.PAE:
        return
    for index in range(4):
        if load64(rows.entry_address(cb, row, index)) & pg.PRESENT:
            pointer = walk.read_quad(cb, walk.root_table(cb) + 8 * index)
            leads_there = pmap.slot_of(cb, (pointer & pg.FRAME_MASK) >> 12) == rows.row_word(
                cb, rows.target_of(cb, row, index), rows.CHAIN
            )
            if not pointer & pg.PRESENT or pointer & pg.POINTER_RESERVED or not leads_there:
                rows.drop_entry(cb, row, index)


@compiled
def sync_all(cb: object) -> None:
    """The guest flushed its TLB: read all out-of-sync tables; those that stayed as they were for a while are traced again."""
    sync_pointers(cb)
    if not cb[cbw.UNSYNC_COUNT]:
        return
    for index in range(cb[cbw.UNSYNC_MAX]):
        slot = load32(cb[cbw.UNSYNC_ROWS] + 4 * index) - 1
        if slot < 0:
            continue
        if sync_slot(cb, slot):
            clear_flood(cb, slot)
        elif add_flood(cb, slot) >= CLEAN_SYNCS:
            end_unsync(cb, slot)


@compiled
def is_mapped_once(cb: object, va: int) -> bool:
    """Whether the shadow of the page table for `va` is reached from the engine's root by one path, so by no other address."""
    slot = pmap.slot_of(cb, walk.page_table(cb, va))
    half = va >> 21 & 1 if cb[cbw.GUEST_LEVELS] == pg.LEGACY else 0
    found = -1
    row = load32(cb[cbw.TABLES] + 4 * slot) - 1
    while row >= 0:
        role = rows.row_word(cb, row, rows.ROLE)
        if not rows.is_traced_role(role) or role & rows.LEVEL_MASK != 1:
            return False
        if role >> rows.QUADRANT_SHIFT & 3 == half:
            if found >= 0:
                return False
            found = row
        row = rows.row_word(cb, row, rows.NEXT_IN_SLOT) - 1
    while found >= 0 and found != cb[cbw.ROOT]:
        link = rows.row_word(cb, found, rows.PARENTS) - 1
        if link < 0 or load32(rows.link_address(cb, link)):
            return False
        found = link // rows.ENTRIES
    return found >= 0


@compiled
def is_as_read(cb: object, row: int, pa: int) -> bool:
    """Whether an entry of a row's guest table, at `pa`, is still what the shadow knows."""
    if not rows.row_word(cb, row, rows.UNSYNC):
        return True
    place = unsync_index(cb, rows.row_word(cb, row, rows.CHAIN))
    kept = cb[cbw.UNSYNC_COPIES] + (place << 12) + (pa & 0xFFF)
    return place >= 0 and (load32(kept) if cb[cbw.GUEST_LEVELS] == pg.LEGACY else load64(kept)) == walk.read_entry(cb, pa)
