"""Shadow pages as an array of rows, the lists that tie their entries together, and what a page may be mapped as.

A *row* describes one shadow page, a frame of 512 64-bit entries that stands for (part of) one guest table:

    level   entries         32-bit guest                     PAE guest                  long mode guest
    4       512 x 512 GB                                                                the PML4 table
    3       4 or 512 x 1 GB root: a page directory           root: directory pointers   a directory-pointer table
    2       512 x 2 MB      a quarter of a directory         a directory                a directory
    1       512 x 4 KB      half of a page table             a page table               a page table

A DIRECT row stands for (part of) a large page instead: level 1 for 2 MB of one, level 2 for a whole 1 GB page. It may serve several
directory entries, so that all of them must have D set before its leaves may be writable: that, too, is in the key. A clean entry goes
without WRITABLE; a dirty one that is read-only, which matters with CR0.WP off only, has DIRTY there.

Directory entries carry all rights; the leaf carries what all of the guest's levels grant together, so the rights inherited
from above are part of a row's key (`ROLE`): the same guest table under two directory entries with other rights has two
rows. CR0.WP is in the key too, so a guest that toggles it finds both sets of rows again. The form of paging is not: rows are
dropped when it changes.

The roots of 32-bit and PAE guests are UNTRACED: stores to the four PAE directory pointers are not seen, they are compared
with what the root leads to whenever the guest flushes its TLB (`emu.vm.sync`). They may share a page with anything.

Each entry in use is on exactly one list, through its own link: a leaf on the list of its page (`RMAP`), a directory entry
on the list of its child row (`PARENTS`). Link number = row * 512 + index, so nothing is allocated and removal is O(1). What an
entry points at is told by its link and never by its frame: pages may share one.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine import paging as pg
from emu.machine.native import compiled, load32, load64, store32, store64
from emu.vm import pmap

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
LEVEL_MASK = 7
QUADRANT_SHIFT = 3  # which part of a 32-bit table: bits 3 and 4
DIRECT = 1 << 5
ACCESS_SHIFT = 5  # WRITABLE, USER and EXECUTABLE of paging moved here: bits 6 to 8
ACCESS_MASK = pg.ALL_RIGHTS << ACCESS_SHIFT
WRITE_PROTECT = 1 << 9  # CR0.WP
UNTRACED = 1 << 10  # a root whose guest page is not watched
POINTERS_SHIFT = 11  # where in their page PAE directory pointers lie, in 32 bytes: bits 11 to 17
DIRTY = 1 << 18  # of a DIRECT row: the guest's entry is read-only, but D is set, so with CR0.WP off the supervisor may store
WRITTEN_THROUGH = pg.WRITABLE << ACCESS_SHIFT | DIRTY  # of a DIRECT row: leaves may be writable

LINK_WORDS = 3  # next + 1, previous + 1, and what the entry points at: a slot or a row


# ---- rows, entries and links ------------------------------------------------------------------------------------------


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
    """1 to 4."""
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
    """Make an entry not present; the engine's TLB is due for a flush if it may know it.

    It does not know an entry whose A bit is clear: it sets the bit when it takes an entry in. Directory pointers have none.
    """
    at = entry_address(cb, row, index)
    old = load64(at)
    if old & pg.PRESENT:
        if not old & pg.NO_EXECUTE:
            cb[cbw.CODE_EPOCH] += 1  # code may have been reached through it
        remove_link(cb, row * ENTRIES + index)
        store64(at, 0)
        if old & pg.ACCESSED or row_word(cb, row, ROLE) & UNTRACED:
            cb[cbw.NEEDS_TLB_FLUSH] = 1


@compiled
def drop_entries(cb: object, row: int, kept: int) -> None:
    """Make every entry of a row not present but those with one of the bits `kept`."""
    page = entry_address(cb, row, 0)
    for index in range(ENTRIES):
        entry = load64(page + 8 * index)
        if entry & pg.PRESENT and not entry & kept:
            drop_entry(cb, row, index)


@compiled
def put_entry(cb: object, row: int, index: int, value: int, target: int) -> None:
    """Set an entry that points at `target`, whatever was there."""
    at = entry_address(cb, row, index)
    old = load64(at)
    link = row * ENTRIES + index
    if not old & pg.PRESENT:
        push_link(cb, link, target)
    elif (old ^ value) & pg.FRAME_MASK or target_of(cb, row, index) != target:
        drop_entry(cb, row, index)
        push_link(cb, link, target)
    else:
        if is_stricter(cb, old, value) and old & pg.ACCESSED:
            cb[cbw.NEEDS_TLB_FLUSH] = 1
        value |= old & pg.ACCESSED
    store64(at, value)


@compiled
def is_stricter(cb: object, old: int, new: int) -> bool:
    """Whether `new` refuses an access that `old` allowed (both present, same frame).

    A page that becomes the user's is closed to the supervisor by SMEP and SMAP.
    """
    lost = old & ~new & (pg.WRITABLE | pg.USER)
    if cb[cbw.GUEST_CR4] & (pg.CR4_SMEP | pg.CR4_SMAP):
        lost |= new & ~old & pg.USER
    return lost != 0 or (new & pg.NO_EXECUTE & ~old) != 0


@compiled
def role_of(cb: object, level: int, quadrant: int, kind: int, access: int) -> int:
    """The ROLE of a row under the guest's present control registers; `kind` is DIRECT (and DIRTY), UNTRACED or 0."""
    wp = WRITE_PROTECT if cb[cbw.GUEST_CR0] & pg.CR0_WP else 0
    return level | quadrant << QUADRANT_SHIFT | kind | (access & pg.ALL_RIGHTS) << ACCESS_SHIFT | wp


@compiled
def inherited(role: int) -> int:
    """The rights that the guest's upper levels grant a row."""
    return role >> ACCESS_SHIFT & pg.ALL_RIGHTS


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
def is_traced_role(role: int) -> bool:
    """Whether the guest page behind a row holds table entries that the row mirrors."""
    return not role & (DIRECT | UNTRACED)


@compiled
def unchain_row(cb: object, row: int) -> None:
    """Take a row off the list of its guest table."""
    at = cb[cbw.TABLES] + 4 * row_word(cb, row, CHAIN)
    while load32(at) != row + 1:
        at = cb[cbw.SHADOW_ROWS] + ((load32(at) - 1) * ROW_WORDS + NEXT_IN_SLOT) * 4
    store32(at, row_word(cb, row, NEXT_IN_SLOT))


@compiled
def only_leaf_tables(cb: object, slot: int) -> bool:
    """Whether a guest table serves as a page table only; a directory is never let out of sync."""
    row = load32(cb[cbw.TABLES] + 4 * slot) - 1
    while row >= 0:
        role = row_word(cb, row, ROLE)
        if is_traced_role(role) and role & LEVEL_MASK != 1:
            return False
        row = row_word(cb, row, NEXT_IN_SLOT) - 1
    return True


# ---- what a page allows -----------------------------------------------------------------------------------------------


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
def is_table(cb: object, slot: int) -> bool:
    """Whether the page holds a guest table that is shadowed entry by entry, in sync or not."""
    row = load32(cb[cbw.TABLES] + 4 * slot) - 1
    while row >= 0:
        if is_traced_role(row_word(cb, row, ROLE)):
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
    """The leaf for a page of which the guest's tables grant `access` (rights and DIRTY), 0 if no frame can be mapped for it."""
    word = pmap.entry(cb, slot)
    if not pmap.has_frame(word) or pmap.state(word) == pmap.DEVICE or pmap.is_awaited(cb, slot):
        return 0
    value = (word & pmap.MPN_MASK) << 12 | pg.PRESENT | (access & pg.USER)
    if access & pg.WRITABLE and access & pg.DIRTY and may_write(cb, slot):
        value |= pg.WRITABLE
    if not word & pmap.EXECUTED or not access & pg.EXECUTABLE:
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
