"""Shadow page tables: VA to MPN, in PAE form, walked by the engine's MMU (Waldspurger 2002, section 2).

Shadow pages (`emu.vm.rows`) are made when a fault needs them, found again by the guest table they stand for, and dropped when
their guest table is written as data, when room is needed, or when the guest's tables were out of sight.

Invariants (asserted by `emu.vm.check`):

1. A present leaf maps the frame that the pmap gives for the page on whose list it is.
2. A leaf is writable only if the guest's tables grant the store and the guest's D bit is set, and never where the page is
   ROM, absent, a synced guest table, or EXECUTED but not MIXED.
3. A leaf is executable only if its page is EXECUTED.
4. Every list holds the links of its entries and no others; a row on the free list has no entry and no parent.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine import paging as pg
from emu.machine.native import compiled, load32, load64, store32
from emu.vm import pmap, rows, sync, walk
from emu.vm.record import NOWHERE, emit

_SHADOW_PAGE, _ZAP = int(Kind.SHADOW_PAGE), int(Kind.ZAP)


# ---- making and dropping shadow pages ---------------------------------------------------------------------------------


@compiled
def free_row(cb: object) -> int:
    """A row off the free list, the least recently used one zapped if there is none; -1 without a frame for it."""
    if not cb[cbw.SHADOW_FREE]:
        zap_least_recently_used(cb)
    row = cb[cbw.SHADOW_FREE] - 1
    if row < 0:
        return -1
    if rows.row_word(cb, row, rows.FRAME) == NOWHERE:
        mpn = pmap.take_table_frame(cb)
        if mpn < 0:
            return -1
        rows.set_row_word(cb, row, rows.FRAME, mpn)
    cb[cbw.SHADOW_FREE] = rows.row_word(cb, row, rows.NEXT_FREE)
    cb[cbw.SHADOW_USED] += 1
    return row


@compiled
def make_row(cb: object, chain: int, ppn: int, role: int) -> int:
    """A new, empty shadow page for a guest table; -1 when neither row nor frame can be had."""
    row = free_row(cb)
    if row < 0:
        return -1
    if rows.is_traced_role(role) and sync.unsync_index(cb, chain) >= 0:
        sync.sync_slot(cb, chain)
        sync.end_unsync(cb, chain)
    for word, value in (
        (rows.PPN, ppn),
        (rows.ROLE, role),
        (rows.PARENTS, 0),
        (rows.UNSYNC, 0),
        (rows.FLOOD, 0),
        (rows.IN_USE, 1),
        (rows.CHAIN, chain),
    ):
        rows.set_row_word(cb, row, word, value)
    rows.set_row_word(cb, row, rows.USED_AT, cb[cbw.LRU_CLOCK])
    rows.set_row_word(cb, row, rows.NEXT_IN_SLOT, load32(cb[cbw.TABLES] + 4 * chain))
    store32(cb[cbw.TABLES] + 4 * chain, row + 1)
    emit(cb, _SHADOW_PAGE, role & rows.LEVEL_MASK, 0, ppn, rows.row_word(cb, row, rows.FRAME), 0, role)
    if rows.is_traced_role(role):
        rows.write_protect(cb, chain)
    return row


@compiled
def row_for(cb: object, chain: int, ppn: int, role: int) -> int:
    """The row of a guest table in a role, found again or made; an out-of-sync one is re-read before it is used."""
    row = rows.find_row(cb, chain, ppn, role)
    if row < 0:
        return make_row(cb, chain, ppn, role)
    if rows.row_word(cb, row, rows.UNSYNC):
        sync.sync_slot(cb, chain)
    rows.set_row_word(cb, row, rows.USED_AT, cb[cbw.LRU_CLOCK])
    return row


@compiled
def zap_row(cb: object, row: int) -> None:
    """Drop a shadow page: its entries, every entry that points to it, its place in the lists."""
    forget_if_unsync(cb, row)
    role = rows.row_word(cb, row, rows.ROLE)
    emit(cb, _ZAP, role & rows.LEVEL_MASK, 0, rows.row_word(cb, row, rows.PPN), rows.row_word(cb, row, rows.FRAME), role, 0)
    for index in range(rows.ENTRIES):
        rows.drop_entry(cb, row, index)
    parent = rows.row_word(cb, row, rows.PARENTS) - 1
    while parent >= 0:
        rows.drop_entry(cb, parent // rows.ENTRIES, parent % rows.ENTRIES)
        parent = rows.row_word(cb, row, rows.PARENTS) - 1
    rows.unchain_row(cb, row)
    if cb[cbw.ROOT] == row:
        cb[cbw.ROOT] = -1
    rows.set_row_word(cb, row, rows.IN_USE, 0)
    rows.set_row_word(cb, row, rows.NEXT_FREE, cb[cbw.SHADOW_FREE])
    cb[cbw.SHADOW_FREE] = row + 1
    cb[cbw.SHADOW_USED] -= 1
    cb[cbw.NEEDS_TLB_FLUSH] = 1


@compiled
def zap_least_recently_used(cb: object) -> None:
    """Make room: zap the row in use whose last use is longest ago, the walked root apart."""
    victim, oldest = -1, cb[cbw.LRU_CLOCK] + 1
    for row in range(cb[cbw.SHADOW_MAX]):
        if rows.row_word(cb, row, rows.IN_USE) and row != cb[cbw.ROOT] and rows.row_word(cb, row, rows.USED_AT) < oldest:
            victim, oldest = row, rows.row_word(cb, row, rows.USED_AT)
    if victim >= 0:
        zap_row(cb, victim)


@compiled
def forget_if_unsync(cb: object, row: int) -> None:
    """Re-read an out-of-sync table whose row is about to go, so that its kept copy goes too."""
    if rows.row_word(cb, row, rows.UNSYNC):
        chain = rows.row_word(cb, row, rows.CHAIN)
        sync.sync_slot(cb, chain)
        sync.end_unsync(cb, chain)


@compiled
def zap_all(cb: object) -> None:
    """Drop every shadow page: the guest's tables were out of sight (paging was off), or the host takes all back."""
    for row in range(cb[cbw.SHADOW_MAX]):
        if rows.row_word(cb, row, rows.IN_USE):
            zap_row(cb, row)


@compiled
def untrace(cb: object, slot: int) -> None:
    """Stop mirroring a page as a guest table: drop all its rows (found again, if it is one, at the next fault)."""
    row = load32(cb[cbw.TABLES] + 4 * slot) - 1
    while row >= 0:
        following = rows.row_word(cb, row, rows.NEXT_IN_SLOT) - 1
        if rows.is_traced_role(rows.row_word(cb, row, rows.ROLE)):
            zap_row(cb, row)
            following = load32(cb[cbw.TABLES] + 4 * slot) - 1 if following >= 0 else -1
        row = following


# ---- roots and the path to a leaf -------------------------------------------------------------------------------------


@compiled
def tick(cb: object) -> None:
    """Advance the clock of uses, so that the rows of the path under way are the youngest and are never evicted."""
    cb[cbw.LRU_CLOCK] += 1
    if cb[cbw.LRU_CLOCK] == NOWHERE:
        cb[cbw.LRU_CLOCK] = 1
        for row in range(cb[cbw.SHADOW_MAX]):
            rows.set_row_word(cb, row, rows.USED_AT, 0)
    if cb[cbw.ROOT] >= 0:
        rows.set_row_word(cb, cb[cbw.ROOT], rows.USED_AT, cb[cbw.LRU_CLOCK])


@compiled
def load_root(cb: object) -> int:
    """Make the row of the guest's CR3 the root; 1 if it was found again, 0 if made, -1 without a frame."""
    tick(cb)
    chain = pmap.slot_of(cb, cb[cbw.GUEST_CR3] >> 12)
    role = rows.role_of(cb, 3, 0, 0, 0)
    row = rows.find_row(cb, chain, chain, role)
    found = 1 if row >= 0 else 0
    if row < 0:
        row = make_row(cb, chain, chain, role)
        if row < 0:
            return -1
    rows.set_row_word(cb, row, rows.USED_AT, cb[cbw.LRU_CLOCK])
    cb[cbw.ROOT] = row
    return found


@compiled
def child(cb: object, row: int, index: int, chain: int, ppn: int, role: int) -> int:
    """The row below a directory entry, in the role asked for: kept, relinked or made; -1 without a frame."""
    at = rows.entry_address(cb, row, index)
    if load64(at) & pg.PRESENT:
        below = rows.target_of(cb, row, index)
        if rows.row_word(cb, below, rows.ROLE) == role and rows.row_word(cb, below, rows.PPN) == ppn:
            rows.set_row_word(cb, below, rows.USED_AT, cb[cbw.LRU_CLOCK])
            return below
        rows.drop_entry(cb, row, index)
    below = row_for(cb, chain, ppn, role)
    if below < 0:
        return -1
    rights = pg.PRESENT if rows.level_of(cb, row) == 3 else pg.PRESENT | pg.WRITABLE | pg.USER
    rows.put_entry(cb, row, index, rows.row_word(cb, below, rows.FRAME) << 12 | rights, below)
    return below


@compiled
def leaf_row(cb: object, va: int, large: int) -> int:
    """The level 1 row that maps `va`, with the rows above it; -1 when a frame is missing.

    `large` says that a 4 MB page maps `va`: it is written through a row of its own once the guest's D bit is set.
    """
    tick(cb)
    if cb[cbw.ROOT] < 0 and load_root(cb) < 0:
        return -1
    directory = pmap.slot_of(cb, cb[cbw.GUEST_CR3] >> 12)
    gigabyte = va >> 30 & 3
    middle = child(cb, cb[cbw.ROOT], gigabyte, directory, directory, rows.role_of(cb, 2, gigabyte, 0, 0))
    if middle < 0:
        return -1
    pde = walk.read_word(cb, walk.directory_entry_address(cb, va))
    half = va >> 21 & 1
    if large:
        first = walk.large_frame(pde) + half * rows.ENTRIES
        rights = pde if pde & pg.DIRTY else pde & ~pg.WRITABLE
        role = rows.role_of(cb, 1, 0, 1, rights)
        return child(cb, middle, va >> 21 & 0x1FF, pmap.slot_of(cb, first), first, role)
    table = pmap.slot_of(cb, pde >> 12)
    return child(cb, middle, va >> 21 & 0x1FF, table, table, rows.role_of(cb, 1, half, 0, pde))


@compiled
def find_leaf(cb: object, va: int) -> int:
    """Host address of the leaf entry for `va` in the walked root, 0 if no page of tables reaches it."""
    row = cb[cbw.ROOT]
    if row < 0:
        return 0
    for shift in (30, 21):
        index = va >> shift & (3 if shift == 30 else 0x1FF)
        if not load64(rows.entry_address(cb, row, index)) & pg.PRESENT:
            return 0
        row = rows.target_of(cb, row, index)
    return rows.entry_address(cb, row, va >> 12 & 0x1FF)


@compiled
def fill(cb: object, va: int, slot: int, large: int, access: int) -> int:
    """Make the shadow map `va` to a page with what the guest sync.granted; returns the old entry, -1 when a frame is missing."""
    if pmap.frame_of(cb, slot) < 0:
        return -1
    sync.sync_entry(cb, va)
    row = leaf_row(cb, va, large)
    if row < 0:
        return -1
    index = va >> 12 & 0x1FF
    old = load64(rows.entry_address(cb, row, index))
    rows.put_entry(cb, row, index, rows.leaf_value(cb, slot, access), slot)
    rows.set_row_word(cb, row, rows.FLOOD, 0)
    return old
