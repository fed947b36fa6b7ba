"""Shadow page tables: VA to MPN, in PAE form, walked by the engine's MMU (Waldspurger 2002, section 2).

A *row* describes one shadow page, a frame of 512 64-bit entries that stands for (part of) one guest table:

    level 3   4 directory pointers   the root for a guest page directory (what CR3 holds while it runs)
    level 2   512 x 2 MB             a quarter of a guest directory
    level 1   512 x 4 KB             half of a guest page table, or (DIRECT) 2 MB of a guest 4 MB page

Directory entries carry all rights; the leaf carries what the guest's two levels grant together, so the rights inherited
from above are part of a row's key (`ROLE`): the same guest table under two directory entries with other rights has two
rows. CR0.WP is in the key too, so a guest that toggles it finds both sets of rows again.

Each entry in use is on exactly one list, through its own link: a leaf on the list of its page (`RMAP`), a directory entry
on the list of its child row (`PARENTS`). Link number = row * 512 + index, so nothing is allocated and removal is O(1).

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
from emu.machine.native import compiled, load32, load64, store32, store64
from emu.vm import pmap, walk
from emu.vm.record import NOWHERE, emit

ENTRIES = 512
ROW_WORDS = 16
# Words of a row.
FRAME = 0  # MPN of the shadow page
PPN = 1  # the guest table's slot; for DIRECT the first PPN mapped
ROLE = 2
NEXT_IN_SLOT = 3  # next row + 1 of the same guest table
PARENTS = 4  # first link + 1 of the directory entries that point here
UNSYNC = 5  # 1 while the guest table may be written without an exit
FLOOD = 6  # traced stores to the guest table since an entry of the row was last filled
USED_AT = 7  # LRU_CLOCK at the last use
NEXT_FREE = 8
IN_USE = 9
CHAIN = 10  # the slot on whose list the row is (differs from PPN for DIRECT)

# Bits of ROLE.
LEVEL_MASK = 3
QUADRANT_SHIFT = 2
DIRECT = 1 << 4
ACCESS_SHIFT = 4  # WRITABLE and USER of paging moved here: bits 5 and 6
WRITE_PROTECT = 1 << 7  # CR0.WP

LINK_WORDS = 3  # next + 1, previous + 1, and what the entry points at: a slot or a row
FLOOD_LIMIT = 3  # stores to a table without a use between them, after which it is not worth an exit each

_HIDDEN, _SHADOW_PAGE, _ZAP, _UPDATE = int(Kind.HIDDEN_FAULT), int(Kind.SHADOW_PAGE), int(Kind.ZAP), int(Kind.SHADOW_UPDATE)
_CODE_FLUSH, _PTE_WRITE, _UNSYNC, _SYNC = int(Kind.CODE_FLUSH), int(Kind.PTE_WRITE), int(Kind.UNSYNC), int(Kind.SYNC)


# ---- rows, entries and links ------------------------------------------------------------------------------------


@compiled
def row_word(cb: object, row: int, word: int) -> int:
    """A word of a row, as unsigned 32 bits."""
    return load32(cb[cbw.SHADOW_ROWS] + (row * ROW_WORDS + word) * 4)


@compiled
def set_row_word(cb: object, row: int, word: int, value: int) -> None:
    """Write a word of a row."""
    store32(cb[cbw.SHADOW_ROWS] + (row * ROW_WORDS + word) * 4, value)


@compiled
def level_of(cb: object, row: int) -> int:
    """1, 2 or 3."""
    return row_word(cb, row, ROLE) & LEVEL_MASK


@compiled
def entry_address(cb: object, row: int, index: int) -> int:
    """Host address of an entry of a shadow page."""
    return pmap.frame_address(cb, row_word(cb, row, FRAME)) + 8 * index


@compiled
def link_address(cb: object, link: int) -> int:
    """Host address of a link."""
    return cb[cbw.LINKS] + link * LINK_WORDS * 4


@compiled
def list_head(cb: object, link: int, target: int) -> int:
    """Host address of the head of the list that an entry pointing at `target` belongs on."""
    if level_of(cb, link // ENTRIES) == 1:
        return cb[cbw.RMAP] + 4 * target
    return cb[cbw.SHADOW_ROWS] + (target * ROW_WORDS + PARENTS) * 4


@compiled
def push_link(cb: object, link: int, target: int) -> None:
    """Put an entry's link on the list of what it points at."""
    head = list_head(cb, link, target)
    first = load32(head)
    at = link_address(cb, link)
    store32(at, first)
    store32(at + 4, 0)
    store32(at + 8, target)
    if first:
        store32(link_address(cb, first - 1) + 4, link + 1)
    store32(head, link + 1)


@compiled
def remove_link(cb: object, link: int) -> None:
    """Take an entry's link off its list."""
    at = link_address(cb, link)
    following, previous = load32(at), load32(at + 4)
    if previous:
        store32(link_address(cb, previous - 1), following)
    else:
        store32(list_head(cb, link, load32(at + 8)), following)
    if following:
        store32(link_address(cb, following - 1) + 4, previous)


@compiled
def target_of(cb: object, row: int, index: int) -> int:
    """The slot (leaf) or row (directory entry) that a present entry points at."""
    return load32(link_address(cb, row * ENTRIES + index) + 8)


@compiled
def drop_entry(cb: object, row: int, index: int) -> None:
    """Make an entry not present; the engine's TLB is due for a flush."""
    at = entry_address(cb, row, index)
    old = load64(at)
    if old & pg.PRESENT:
        if not old & pg.NO_EXECUTE:
            cb[cbw.CODE_EPOCH] += 1  # code may have been reached through it
        remove_link(cb, row * ENTRIES + index)
        store64(at, 0)
        cb[cbw.NEEDS_TLB_FLUSH] = 1


@compiled
def put_entry(cb: object, row: int, index: int, value: int, target: int) -> None:
    """Set an entry that points at `target`, whatever was there."""
    at = entry_address(cb, row, index)
    old = load64(at)
    link = row * ENTRIES + index
    if old & pg.PRESENT:
        if (old ^ value) & pg.FRAME_MASK:
            drop_entry(cb, row, index)
            push_link(cb, link, target)
        elif is_stricter(old, value):
            cb[cbw.NEEDS_TLB_FLUSH] = 1
    else:
        push_link(cb, link, target)
    store64(at, value)


@compiled
def is_stricter(old: int, new: int) -> bool:
    """Whether `new` refuses an access that `old` allowed (both present, same frame)."""
    lost = old & ~new & (pg.WRITABLE | pg.USER)
    return lost != 0 or (new & pg.NO_EXECUTE & ~old) != 0


# ---- making and dropping shadow pages ---------------------------------------------------------------------------


@compiled
def role_of(cb: object, level: int, quadrant: int, direct: int, access: int) -> int:
    """The ROLE of a row under the guest's present control registers."""
    wp = WRITE_PROTECT if cb[cbw.GUEST_CR0] & pg.CR0_WP else 0
    rights = (access & (pg.WRITABLE | pg.USER)) << ACCESS_SHIFT
    return level | quadrant << QUADRANT_SHIFT | (DIRECT if direct else 0) | rights | wp


@compiled
def find_row(cb: object, chain: int, ppn: int, role: int) -> int:
    """The row of a guest table in a role, -1 if there is none."""
    row = load32(cb[cbw.TABLES] + 4 * chain) - 1
    while row >= 0:
        if row_word(cb, row, ROLE) == role and row_word(cb, row, PPN) == ppn:
            return row
        row = row_word(cb, row, NEXT_IN_SLOT) - 1
    return -1


@compiled
def free_row(cb: object) -> int:
    """A row off the free list, the least recently used one zapped if there is none; -1 without a frame for it."""
    if not cb[cbw.SHADOW_FREE]:
        zap_least_recently_used(cb)
    row = cb[cbw.SHADOW_FREE] - 1
    if row < 0:
        return -1
    if row_word(cb, row, FRAME) == NOWHERE:
        mpn = pmap.take_table_frame(cb)
        if mpn < 0:
            return -1
        set_row_word(cb, row, FRAME, mpn)
    cb[cbw.SHADOW_FREE] = row_word(cb, row, NEXT_FREE)
    cb[cbw.SHADOW_USED] += 1
    return row


@compiled
def make_row(cb: object, chain: int, ppn: int, role: int) -> int:
    """A new, empty shadow page for a guest table; -1 when neither row nor frame can be had."""
    row = free_row(cb)
    if row < 0:
        return -1
    if is_traced_role(role) and unsync_index(cb, chain) >= 0:
        sync_slot(cb, chain)
        end_unsync(cb, chain)
    for word, value in ((PPN, ppn), (ROLE, role), (PARENTS, 0), (UNSYNC, 0), (FLOOD, 0), (IN_USE, 1), (CHAIN, chain)):
        set_row_word(cb, row, word, value)
    set_row_word(cb, row, USED_AT, cb[cbw.LRU_CLOCK])
    set_row_word(cb, row, NEXT_IN_SLOT, load32(cb[cbw.TABLES] + 4 * chain))
    store32(cb[cbw.TABLES] + 4 * chain, row + 1)
    emit(cb, _SHADOW_PAGE, role & LEVEL_MASK, 0, ppn, row_word(cb, row, FRAME), 0, role)
    if is_traced_role(role):
        write_protect(cb, chain)
    return row


@compiled
def is_traced_role(role: int) -> bool:
    """Whether the guest page behind a row holds table entries that the row mirrors."""
    return not role & DIRECT and role & LEVEL_MASK != 3


@compiled
def row_for(cb: object, chain: int, ppn: int, role: int) -> int:
    """The row of a guest table in a role, found again or made; an out-of-sync one is re-read before it is used."""
    row = find_row(cb, chain, ppn, role)
    if row < 0:
        return make_row(cb, chain, ppn, role)
    if row_word(cb, row, UNSYNC):
        sync_slot(cb, chain)
    set_row_word(cb, row, USED_AT, cb[cbw.LRU_CLOCK])
    return row


@compiled
def zap_row(cb: object, row: int) -> None:
    """Drop a shadow page: its entries, every entry that points to it, its place in the lists."""
    forget_if_unsync(cb, row)
    role = row_word(cb, row, ROLE)
    emit(cb, _ZAP, role & LEVEL_MASK, 0, row_word(cb, row, PPN), row_word(cb, row, FRAME), role, 0)
    for index in range(ENTRIES):
        drop_entry(cb, row, index)
    parent = row_word(cb, row, PARENTS) - 1
    while parent >= 0:
        drop_entry(cb, parent // ENTRIES, parent % ENTRIES)
        parent = row_word(cb, row, PARENTS) - 1
    unchain_row(cb, row)
    if cb[cbw.ROOT] == row:
        cb[cbw.ROOT] = -1
    set_row_word(cb, row, IN_USE, 0)
    set_row_word(cb, row, NEXT_FREE, cb[cbw.SHADOW_FREE])
    cb[cbw.SHADOW_FREE] = row + 1
    cb[cbw.SHADOW_USED] -= 1
    cb[cbw.NEEDS_TLB_FLUSH] = 1


@compiled
def unchain_row(cb: object, row: int) -> None:
    """Take a row off the list of its guest table."""
    at = cb[cbw.TABLES] + 4 * row_word(cb, row, CHAIN)
    while load32(at) != row + 1:
        at = cb[cbw.SHADOW_ROWS] + ((load32(at) - 1) * ROW_WORDS + NEXT_IN_SLOT) * 4
    store32(at, row_word(cb, row, NEXT_IN_SLOT))


@compiled
def zap_least_recently_used(cb: object) -> None:
    """Make room: zap the row in use whose last use is longest ago, the walked root apart."""
    victim, oldest = -1, cb[cbw.LRU_CLOCK] + 1
    for row in range(cb[cbw.SHADOW_MAX]):
        if row_word(cb, row, IN_USE) and row != cb[cbw.ROOT] and row_word(cb, row, USED_AT) < oldest:
            victim, oldest = row, row_word(cb, row, USED_AT)
    if victim >= 0:
        zap_row(cb, victim)


@compiled
def forget_if_unsync(cb: object, row: int) -> None:
    """Re-read an out-of-sync table whose row is about to go, so that its kept copy goes too."""
    if row_word(cb, row, UNSYNC):
        chain = row_word(cb, row, CHAIN)
        sync_slot(cb, chain)
        end_unsync(cb, chain)


@compiled
def zap_all(cb: object) -> None:
    """Drop every shadow page: the guest's tables were out of sight (paging was off), or the host takes all back."""
    for row in range(cb[cbw.SHADOW_MAX]):
        if row_word(cb, row, IN_USE):
            zap_row(cb, row)


# ---- what a page allows ---------------------------------------------------------------------------------------------


@compiled
def is_traced(cb: object, slot: int) -> bool:
    """Whether a store to the page must be seen: it holds a guest table that is shadowed and in sync."""
    row = load32(cb[cbw.TABLES] + 4 * slot) - 1
    while row >= 0:
        if is_traced_role(row_word(cb, row, ROLE)) and not row_word(cb, row, UNSYNC):
            return True
        row = row_word(cb, row, NEXT_IN_SLOT) - 1
    return False


@compiled
def may_write(cb: object, slot: int) -> bool:
    """Whether the VMM has no reason of its own to see stores to the page."""
    word = pmap.entry(cb, slot)
    if not pmap.is_writable_state(word) or (word & pmap.EXECUTED and not word & pmap.MIXED):
        return False
    return not is_traced(cb, slot)


@compiled
def leaf_value(cb: object, slot: int, access: int) -> int:
    """The leaf for a page of which the guest's tables grant `access` (WRITABLE, USER, DIRTY), 0 if it has no frame yet."""
    word = pmap.entry(cb, slot)
    if pmap.state(word) == pmap.UNALLOCATED:
        return 0
    value = (word & pmap.MPN_MASK) << 12 | pg.PRESENT | (access & pg.USER)
    if access & pg.WRITABLE and access & pg.DIRTY and may_write(cb, slot):
        value |= pg.WRITABLE
    if not word & pmap.EXECUTED:
        value |= pg.NO_EXECUTE
    return value


@compiled
def write_protect(cb: object, slot: int) -> None:
    """Take the right to store from every entry that maps the page."""
    link = load32(cb[cbw.RMAP] + 4 * slot) - 1
    while link >= 0:
        at = entry_address(cb, link // ENTRIES, link % ENTRIES)
        old = load64(at)
        if old & pg.WRITABLE:
            store64(at, old & ~pg.WRITABLE)
            cb[cbw.NEEDS_TLB_FLUSH] = 1
        link = load32(link_address(cb, link)) - 1


@compiled
def forbid_execution(cb: object, slot: int) -> None:
    """Set NX in every entry that maps the page."""
    link = load32(cb[cbw.RMAP] + 4 * slot) - 1
    while link >= 0:
        at = entry_address(cb, link // ENTRIES, link % ENTRIES)
        store64(at, load64(at) | pg.NO_EXECUTE)
        link = load32(link_address(cb, link)) - 1
    cb[cbw.NEEDS_TLB_FLUSH] = 1


@compiled
def unmap_page(cb: object, slot: int) -> None:
    """Drop every shadow entry that maps the page: its frame is about to go."""
    link = load32(cb[cbw.RMAP] + 4 * slot) - 1
    while link >= 0:
        drop_entry(cb, link // ENTRIES, link % ENTRIES)
        link = load32(cb[cbw.RMAP] + 4 * slot) - 1


# ---- roots and the path to a leaf -----------------------------------------------------------------------------------


@compiled
def tick(cb: object) -> None:
    """Advance the clock of uses, so that the rows of the path under way are the youngest and are never evicted."""
    cb[cbw.LRU_CLOCK] += 1
    if cb[cbw.LRU_CLOCK] == NOWHERE:
        cb[cbw.LRU_CLOCK] = 1
        for row in range(cb[cbw.SHADOW_MAX]):
            set_row_word(cb, row, USED_AT, 0)
    if cb[cbw.ROOT] >= 0:
        set_row_word(cb, cb[cbw.ROOT], USED_AT, cb[cbw.LRU_CLOCK])


@compiled
def load_root(cb: object) -> int:
    """Make the row of the guest's CR3 the root; 1 if it was found again, 0 if made, -1 without a frame."""
    tick(cb)
    chain = pmap.slot_of(cb, cb[cbw.GUEST_CR3] >> 12)
    role = role_of(cb, 3, 0, 0, 0)
    row = find_row(cb, chain, chain, role)
    found = 1 if row >= 0 else 0
    if row < 0:
        row = make_row(cb, chain, chain, role)
        if row < 0:
            return -1
    set_row_word(cb, row, USED_AT, cb[cbw.LRU_CLOCK])
    cb[cbw.ROOT] = row
    return found


@compiled
def child(cb: object, row: int, index: int, chain: int, ppn: int, role: int) -> int:
    """The row below a directory entry, in the role asked for: kept, relinked or made; -1 without a frame."""
    at = entry_address(cb, row, index)
    if load64(at) & pg.PRESENT:
        below = target_of(cb, row, index)
        if row_word(cb, below, ROLE) == role and row_word(cb, below, PPN) == ppn:
            set_row_word(cb, below, USED_AT, cb[cbw.LRU_CLOCK])
            return below
        drop_entry(cb, row, index)
    below = row_for(cb, chain, ppn, role)
    if below < 0:
        return -1
    rights = pg.PRESENT if level_of(cb, row) == 3 else pg.PRESENT | pg.WRITABLE | pg.USER
    put_entry(cb, row, index, row_word(cb, below, FRAME) << 12 | rights, below)
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
    middle = child(cb, cb[cbw.ROOT], gigabyte, directory, directory, role_of(cb, 2, gigabyte, 0, 0))
    if middle < 0:
        return -1
    pde = walk.read_word(cb, walk.directory_entry_address(cb, va))
    half = va >> 21 & 1
    if large:
        first = walk.large_frame(pde) + half * ENTRIES
        rights = pde if pde & pg.DIRTY else pde & ~pg.WRITABLE
        role = role_of(cb, 1, 0, 1, rights)
        return child(cb, middle, va >> 21 & 0x1FF, pmap.slot_of(cb, first), first, role)
    table = pmap.slot_of(cb, pde >> 12)
    return child(cb, middle, va >> 21 & 0x1FF, table, table, role_of(cb, 1, half, 0, pde))


@compiled
def find_leaf(cb: object, va: int) -> int:
    """Host address of the leaf entry for `va` in the walked root, 0 if no page of tables reaches it."""
    row = cb[cbw.ROOT]
    if row < 0:
        return 0
    for shift in (30, 21):
        index = va >> shift & (3 if shift == 30 else 0x1FF)
        if not load64(entry_address(cb, row, index)) & pg.PRESENT:
            return 0
        row = target_of(cb, row, index)
    return entry_address(cb, row, va >> 12 & 0x1FF)


@compiled
def fill(cb: object, va: int, slot: int, large: int, access: int) -> int:
    """Make the shadow map `va` to a page with what the guest granted; returns the old entry, -1 when a frame is missing."""
    if pmap.frame_of(cb, slot) < 0:
        return -1
    row = leaf_row(cb, va, large)
    if row < 0:
        return -1
    index = va >> 12 & 0x1FF
    old = load64(entry_address(cb, row, index))
    put_entry(cb, row, index, leaf_value(cb, slot, access), slot)
    set_row_word(cb, row, FLOOD, 0)
    return old


# ---- guest tables that change ---------------------------------------------------------------------------------------


@compiled
def granted(cb: object, row: int, pte: int) -> int:
    """What a guest PTE grants under a row's inherited rights: WRITABLE, USER, DIRTY; or -1 if it must not be mapped yet."""
    if not pte & pg.PRESENT or not pte & pg.ACCESSED:
        return -1
    rights = row_word(cb, row, ROLE) >> ACCESS_SHIFT & (pg.WRITABLE | pg.USER)
    return (pte & rights & (pg.WRITABLE | pg.USER)) | (pte & pg.DIRTY)


@compiled
def update_leaf(cb: object, row: int, index: int, pte: int) -> None:
    """Bring one shadow leaf in line with the guest's new PTE: updated where it stays mapped, dropped else."""
    old = load64(entry_address(cb, row, index))
    if not old & pg.PRESENT:
        return
    access = granted(cb, row, pte)
    slot = pmap.slot_of(cb, pte >> 12)
    new = leaf_value(cb, slot, access) if access >= 0 else 0
    if new == 0:
        drop_entry(cb, row, index)
    else:
        put_entry(cb, row, index, new, slot)
    emit(cb, _UPDATE, index, 0, row_word(cb, row, PPN), (new if new else old) >> 12 & NOWHERE, old, new)


@compiled
def entry_changed(cb: object, slot: int, index: int, old: int, new: int, va: int) -> None:
    """A guest table entry (32-bit, number `index` of the page) was changed: say so and update every shadow of it."""
    emit(cb, _PTE_WRITE, index, va, slot, pmap.entry(cb, slot) & pmap.MPN_MASK, old, new)
    row = load32(cb[cbw.TABLES] + 4 * slot) - 1
    while row >= 0:
        following = row_word(cb, row, NEXT_IN_SLOT) - 1
        role = row_word(cb, row, ROLE)
        quadrant = role >> QUADRANT_SHIFT & 3
        if is_traced_role(role) and role & LEVEL_MASK == 1 and index >> 9 == quadrant:
            update_leaf(cb, row, index & 0x1FF, new)
        elif is_traced_role(role) and role & LEVEL_MASK == 2 and index >> 8 == quadrant:
            drop_directory_entry(cb, row, index, old, new)
        row = following


@compiled
def drop_directory_entry(cb: object, row: int, index: int, old: int, new: int) -> None:
    """A guest PDE changed: both shadow entries for its 4 MB go (a change of A or D alone takes nothing away)."""
    if not (old ^ new) & ~(pg.ACCESSED | pg.DIRTY) and not old & ~new & (pg.ACCESSED | pg.DIRTY):
        return
    for half in range(2):
        place = (index & 0xFF) * 2 + half
        before = load64(entry_address(cb, row, place))
        if before & pg.PRESENT:
            drop_entry(cb, row, place)
            emit(cb, _UPDATE, place, 0, row_word(cb, row, PPN), NOWHERE, before, 0)


@compiled
def page_changed(cb: object, slot: int, before: int, va: int) -> int:
    """Compare a guest table with its copy at `before`, follow every difference, refresh the copy; how many there were."""
    page = pmap.frame_address(cb, pmap.entry(cb, slot) & pmap.MPN_MASK)
    changes = 0
    for pair in range(ENTRIES):
        if load64(page + 8 * pair) == load64(before + 8 * pair):
            continue
        for half in range(2):
            offset = 8 * pair + 4 * half
            old, new = load32(before + offset), load32(page + offset)
            if old != new:
                changes += 1
                store32(before + offset, new)
                entry_changed(cb, slot, offset >> 2, old, new, (va & ~0xFFF) | offset)
    return changes


# ---- out-of-sync tables ---------------------------------------------------------------------------------------------


@compiled
def only_leaf_tables(cb: object, slot: int) -> bool:
    """Whether a guest table serves as a page table only; a directory is never let out of sync."""
    row = load32(cb[cbw.TABLES] + 4 * slot) - 1
    while row >= 0:
        role = row_word(cb, row, ROLE)
        if role & LEVEL_MASK != 1:
            return False
        row = row_word(cb, row, NEXT_IN_SLOT) - 1
    return True


@compiled
def add_flood(cb: object, slot: int) -> int:
    """Count a store to a traced table; returns the stores since any entry of it was last used."""
    least = FLOOD_LIMIT + 1
    row = load32(cb[cbw.TABLES] + 4 * slot) - 1
    while row >= 0:
        if is_traced_role(row_word(cb, row, ROLE)):
            flood = row_word(cb, row, FLOOD) + 1
            set_row_word(cb, row, FLOOD, flood)
            least = min(least, flood)
        row = row_word(cb, row, NEXT_IN_SLOT) - 1
    return least


@compiled
def set_unsync(cb: object, slot: int, value: int) -> None:
    """Mark every row of a guest table as in or out of sync."""
    row = load32(cb[cbw.TABLES] + 4 * slot) - 1
    while row >= 0:
        if is_traced_role(row_word(cb, row, ROLE)):
            set_row_word(cb, row, UNSYNC, value)
            set_row_word(cb, row, FLOOD, 0)
        row = row_word(cb, row, NEXT_IN_SLOT) - 1


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
            emit(cb, _UNSYNC, 0, 0, slot, pmap.entry(cb, slot) & pmap.MPN_MASK, 0, 0)
            return True
    return False


@compiled
def copy_page(source: int, target: int) -> None:
    """Copy 4096 bytes between host addresses."""
    for word in range(ENTRIES):
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
def end_unsync(cb: object, slot: int) -> None:
    """Trace a table's stores again; it must have just been read."""
    index = unsync_index(cb, slot)
    if index >= 0:
        store32(cb[cbw.UNSYNC_ROWS] + 4 * index, 0)
        cb[cbw.UNSYNC_COUNT] -= 1
        set_unsync(cb, slot, 0)
        write_protect(cb, slot)


@compiled
def sync_all(cb: object) -> None:
    """The guest flushed its TLB: read all out-of-sync tables; those that did not change are traced again."""
    if not cb[cbw.UNSYNC_COUNT]:
        return
    for index in range(cb[cbw.UNSYNC_MAX]):
        slot = load32(cb[cbw.UNSYNC_ROWS] + 4 * index) - 1
        if slot >= 0 and sync_slot(cb, slot) == 0:
            end_unsync(cb, slot)


@compiled
def sync_address(cb: object, va: int) -> None:
    """The guest invalidated one address: read the page table that maps it, if it is out of sync."""
    if not cb[cbw.UNSYNC_COUNT]:
        return
    pde = walk.read_word(cb, walk.directory_entry_address(cb, va))
    if pde & pg.PRESENT and not walk.is_large(cb, pde):
        sync_slot(cb, pmap.slot_of(cb, pde >> 12))


@compiled
def untrace(cb: object, slot: int) -> None:
    """Stop mirroring a page as a guest table: drop all its rows (found again, if it is one, at the next fault)."""
    row = load32(cb[cbw.TABLES] + 4 * slot) - 1
    while row >= 0:
        following = row_word(cb, row, NEXT_IN_SLOT) - 1
        if is_traced_role(row_word(cb, row, ROLE)):
            zap_row(cb, row)
            following = load32(cb[cbw.TABLES] + 4 * slot) - 1 if following >= 0 else -1
        row = following
