"""Shadow page tables: VA to MPN, walked by the engine's MMU (Waldspurger 2002, section 2).

In PAE form for 32-bit and PAE guests, with four levels for long mode guests. Shadow pages (`emu.vm.rows`) are made when a fault
needs them, found again by the guest table they stand for, and dropped when their guest table is written as data, when room is
needed, or when the guest's tables were out of sight.

Invariants (asserted by `emu.vm.check`):

1. A present leaf maps the frame that the pmap gives for the page on whose list it is.
2. A leaf is writable only if the guest's tables grant the store (with CR0.WP off: to the supervisor, and then it is the
   supervisor's alone) and the D bit is set in every guest entry that it stands for, and never where the page is ROM, absent, a
   synced guest table, or EXECUTED but not MIXED.
3. A leaf is executable only if its page is EXECUTED and the guest's tables grant it.
4. Every list holds the links of its entries and no others; a row on the free list has no entry and no parent, and no two rows
   in use stand for the same.
5. A table out of sync has memory, serves as a page table only, and all of its rows know of it.
6. The root that the engine walks stands for the guest's CR3 and CR0.WP.

Optimizations, each of which can be switched off without a guest noticing (`emu.config.SHADOW_SWITCHES`):

    CACHE     shadow pages outlive a load of CR3 and a change of CR0.WP, and are found again
    UNSYNC    a page table written in bulk goes out of sync (`emu.vm.sync`)
    PREFETCH  a fault also fills the neighbours that the guest has used already
    UPDATE    a changed PTE changes its shadow, instead of dropping it until the next fault
    FLOOD     a directory written as data is no longer followed
    EMULATE   plain stores to a traced table are carried out by the VMM (`emu.vm.emulate`), not stepped
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine import paging as pg
from emu.machine.native import compiled, load32, load64, store32
from emu.vm import pmap, rows, sync, walk
from emu.vm import step_records as rec
from emu.vm.record import NOWHERE, emit
from emu.vm.sync import CACHE, EMULATE, FLOOD, PREFETCH, UNSYNC, UPDATE

# Bits of SHADOW_OPTIONS by name.
OPTIONS = {"cache": CACHE, "unsync": UNSYNC, "prefetch": PREFETCH, "update": UPDATE, "flood": FLOOD, "emulate": EMULATE}
NEIGHBOURS = 8  # entries that one fault may fill: those of a cache line of the guest's table
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
    emit(cb, _SHADOW_PAGE, role & rows.LEVEL_MASK, 0, ppn_of_row(cb, row), rows.row_word(cb, row, rows.FRAME), 0, role)
    if rows.is_traced_role(role):
        rows.write_protect(cb, chain)
    return row


@compiled
def ppn_of_row(cb: object, row: int) -> int:
    """The guest page that a row stands for, for events: its table, or the first page of a large one."""
    if rows.row_word(cb, row, rows.ROLE) & rows.DIRECT:
        return rows.row_word(cb, row, rows.PPN)
    return pmap.ppn_of(cb, rows.row_word(cb, row, rows.CHAIN))


@compiled
def row_for(cb: object, chain: int, ppn: int, role: int) -> int:
    """The row of a guest table in a role, found again or made; an out-of-sync one is re-read before it is used."""
    row = rows.find_row(cb, chain, ppn, role)
    if row < 0:
        return make_row(cb, chain, ppn, role)
    cb[cbw.CACHE_HITS] += 1
    if rows.row_word(cb, row, rows.UNSYNC):
        sync.sync_slot(cb, chain)
    rows.set_row_word(cb, row, rows.USED_AT, cb[cbw.LRU_CLOCK])
    return row


@compiled
def zap_row(cb: object, row: int) -> None:
    """Drop a shadow page: its entries, every entry that points to it, its place in the lists."""
    forget_if_unsync(cb, row)
    role = rows.row_word(cb, row, rows.ROLE)
    emit(cb, _ZAP, role & rows.LEVEL_MASK, 0, ppn_of_row(cb, row), rows.row_word(cb, row, rows.FRAME), role, 0)
    rows.drop_entries(cb, row, 0)
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


@compiled
def zap_least_recently_used(cb: object) -> None:
    """Make room: zap the row in use whose last use is longest ago, the walked root apart."""
    victim, oldest = -1, cb[cbw.LRU_CLOCK] + 1
    for row in range(cb[cbw.SHADOW_MAX]):
        used = rows.row_word(cb, row, rows.IN_USE) and row != cb[cbw.ROOT]
        if used and rows.row_word(cb, row, rows.USED_AT) < oldest and not is_open(cb, row):
            victim, oldest = row, rows.row_word(cb, row, rows.USED_AT)
    if victim >= 0:
        cb[cbw.RECYCLED] += 1
        zap_row(cb, victim)


@compiled
def is_open(cb: object, row: int) -> bool:
    """Whether the instruction under way has an entry of the row opened (`emu.vm.step`)."""
    page = rows.entry_address(cb, row, 0)
    for index in range(cb[cbw.STEPPING]):
        if load64(cb[cbw.STEP_ROWS] + rec.BYTES * index + rec.ENTRY) & ~0xFFF == page:
            return True
    return False


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
def root_role(cb: object) -> int:
    """The ROLE of the row for the guest's CR3."""
    levels = cb[cbw.GUEST_LEVELS]
    if levels == pg.LONG:
        return rows.role_of(cb, levels, 0, 0, pg.ALL_RIGHTS)
    role = rows.role_of(cb, pg.PAE, 0, rows.UNTRACED, pg.ALL_RIGHTS)
    if levels == pg.PAE:
        role |= (walk.root_table(cb) >> 5 & 0x7F) << rows.POINTERS_SHIFT
    return role


@compiled
def load_root(cb: object) -> int:
    """Make the row of the guest's CR3 the root; 1 if it was found again, 0 if made, -1 without a frame."""
    if not cb[cbw.SHADOW_OPTIONS] & CACHE:
        zap_all(cb)
    tick(cb)
    chain = pmap.slot_of(cb, walk.root_table(cb) >> 12)
    role = root_role(cb)
    row = rows.find_row(cb, chain, chain, role)
    found = 1 if row >= 0 else 0
    cb[cbw.CACHE_HITS] += found
    if row < 0:
        row = make_row(cb, chain, chain, role)
        if row < 0:
            return -1
    rows.set_row_word(cb, row, rows.USED_AT, cb[cbw.LRU_CLOCK])
    cb[cbw.ROOT] = row
    sync.sync_pointers(cb)
    return found


@compiled
def child(cb: object, row: int, index: int, chain: int, ppn: int, role: int) -> int:
    """The row below a directory entry, in the role asked for: kept, relinked or made; -1 without a frame."""
    at = rows.entry_address(cb, row, index)
    if load64(at) & pg.PRESENT:
        below = rows.target_of(cb, row, index)
        if rows.row_word(cb, below, rows.ROLE) == role and rows.row_word(cb, below, rows.PPN) == ppn:
            rows.set_row_word(cb, below, rows.USED_AT, cb[cbw.LRU_CLOCK])
            rows.set_row_word(cb, below, rows.FLOOD, 0)
            return below
        rows.drop_entry(cb, row, index)
    below = row_for(cb, chain, ppn, role)
    if below < 0:
        return -1
    is_pointer = rows.level_of(cb, row) == pg.PAE and cb[cbw.GUEST_LEVELS] != pg.LONG
    rights = pg.PRESENT if is_pointer else pg.PRESENT | pg.WRITABLE | pg.USER
    rows.put_entry(cb, row, index, rows.row_word(cb, below, rows.FRAME) << 12 | rights, below)
    return below


@compiled
def leaf_row(cb: object, va: int) -> int:
    """The level 1 row that maps `va`, with the rows above it; -1 when a frame is missing."""
    tick(cb)
    if cb[cbw.ROOT] < 0 and load_root(cb) < 0:
        return -1
    return leaf_row_legacy(cb, va) if cb[cbw.GUEST_LEVELS] == pg.LEGACY else leaf_row_wide(cb, va)


@compiled
def leaf_row_legacy(cb: object, va: int) -> int:
    """`leaf_row` for a 32-bit guest: two shadow levels stand for its directory, two rows for each of its page tables."""
    directory = pmap.slot_of(cb, walk.root_table(cb) >> 12)
    quadrant = va >> 30 & 3
    role = rows.role_of(cb, 2, quadrant, 0, pg.ALL_RIGHTS)
    middle = child(cb, cb[cbw.ROOT], quadrant, directory, directory, role)
    if middle < 0:
        return -1
    pde = walk.read_word(cb, walk.entry_address(cb, walk.root_table(cb), va, 2))
    half = va >> 21 & 1
    rights = pde & (pg.WRITABLE | pg.USER) | pg.EXECUTABLE
    index = va >> 21 & 0x1FF
    if walk.is_large(cb, pde, 2):
        return direct_row(cb, middle, index, walk.large_frame(pde) + half * rows.ENTRIES, 1, pde, rights)
    table = pmap.slot_of(cb, pde >> 12)
    return child(cb, middle, index, table, table, rows.role_of(cb, 1, half, 0, rights))


@compiled
def leaf_row_wide(cb: object, va: int) -> int:
    """`leaf_row` for a PAE or long mode guest: a row for each of its tables."""
    row = cb[cbw.ROOT]
    level = cb[cbw.GUEST_LEVELS]
    table = walk.root_table(cb)
    rights = pg.ALL_RIGHTS
    while level > 1 and row >= 0:
        entry = walk.read_quad(cb, walk.entry_address(cb, table, va, level))
        index = va >> 3 + 9 * level & (3 if cb[cbw.GUEST_LEVELS] == pg.PAE and level == pg.PAE else 0x1FF)
        if cb[cbw.GUEST_LEVELS] == pg.LONG or level < pg.PAE:
            rights &= walk.rights_of(entry)
            if entry & pg.LARGE:
                return large_row(cb, row, index, va, level, entry, rights)
        table = entry & pg.FRAME_MASK
        level -= 1
        slot = pmap.slot_of(cb, table >> 12)
        row = child(cb, row, index, slot, slot, rows.role_of(cb, level, 0, 0, rights))
    return row


@compiled
def large_row(cb: object, row: int, index: int, va: int, level: int, entry: int, rights: int) -> int:
    """The row for 2 MB of a large page of a PAE or long mode guest; a 1 GB page has a row of level 2 above those."""
    first = walk.frame_at(entry, level)
    if level == 2:
        return direct_row(cb, row, index, first, 1, entry, rights)
    middle = direct_row(cb, row, index, first, 2, entry, rights)
    if middle < 0:
        return -1
    place = va >> 21 & 0x1FF
    return direct_row(cb, middle, place, first + place * rows.ENTRIES, 1, entry, rights)


@compiled
def direct_row(cb: object, row: int, index: int, first: int, level: int, entry: int, rights: int) -> int:
    """The DIRECT row of a level for pages from PPN `first` on: written through only once the guest's D bit is set."""
    kind = rows.DIRECT
    if not entry & pg.DIRTY:
        rights &= ~pg.WRITABLE
    elif not rights & pg.WRITABLE and not cb[cbw.GUEST_CR0] & pg.CR0_WP:
        kind |= rows.DIRTY
    return child(cb, row, index, pmap.slot_of(cb, first), first, rows.role_of(cb, level, 0, kind, rights))


@compiled
def find_leaf(cb: object, va: int) -> int:
    """Host address of the leaf entry for `va` in the walked root, 0 if no page of tables reaches it."""
    row = cb[cbw.ROOT]
    if row < 0:
        return 0
    level = rows.level_of(cb, row)
    while level > 1:
        index = va >> 3 + 9 * level & (3 if level == pg.PAE and cb[cbw.GUEST_LEVELS] != pg.LONG else 0x1FF)
        if not load64(rows.entry_address(cb, row, index)) & pg.PRESENT:
            return 0
        row = rows.target_of(cb, row, index)
        level -= 1
    return rows.entry_address(cb, row, va >> 12 & 0x1FF)


@compiled
def fill(cb: object, va: int, slot: int, access: int) -> int:
    """Make the shadow map `va` to a page with what the guest granted; returns the old entry, -1 when a frame is missing."""
    if pmap.frame_of(cb, slot) < 0:
        return -1
    sync.sync_entry(cb, va)
    row = leaf_row(cb, va)
    if row < 0:
        return -1
    index = va >> 12 & 0x1FF
    old = load64(rows.entry_address(cb, row, index))
    role = rows.row_word(cb, row, rows.ROLE)
    if role & rows.DIRECT and not role & rows.WRITTEN_THROUGH:  # the D bit could not be set, or another entry's is due
        access &= ~pg.WRITABLE
    rows.put_entry(cb, row, index, rows.leaf_value(cb, slot, access), slot)
    rows.set_row_word(cb, row, rows.FLOOD, 0)
    if not old & pg.PRESENT and cb[cbw.SHADOW_OPTIONS] & PREFETCH:
        prefetch(cb, row, index)
    return old


@compiled
def prefetch(cb: object, row: int, index: int) -> None:
    """Fill the empty entries around one from guest PTEs that are accessed already and lead to pages that have a frame."""
    role = rows.row_word(cb, row, rows.ROLE)
    if not rows.is_traced_role(role):
        return
    width = walk.entry_bytes(cb)
    first = index & ~(NEIGHBOURS - 1)
    half = role >> rows.QUADRANT_SHIFT & 3
    table = rows.row_word(cb, row, rows.CHAIN) << 12 | (half * rows.ENTRIES + first) * width & 0xFFF
    for number in range(NEIGHBOURS):
        if load64(rows.entry_address(cb, row, first + number)) & pg.PRESENT:
            continue
        pte = walk.read_entry(cb, table + number * width)
        access = sync.granted(cb, row, pte)
        if access >= 0 and sync.is_as_read(cb, row, table + number * width):
            slot = sync.slot_in(cb, pte)
            value = rows.leaf_value(cb, slot, access)
            if value & pg.PRESENT:
                rows.put_entry(cb, row, first + number, value, slot)
                cb[cbw.PREFETCHED] += 1
