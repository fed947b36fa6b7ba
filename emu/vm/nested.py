"""Nested page tables: PA to MPN, four levels of 64-bit entries in machine memory, walked by the engine's MMU.

They serve unpaged code, and everything under `--mmu nested`. One table per VM; entries are NX until their page is fetched
from, and read-only where the page is ROM, absent, or EXECUTED but not MIXED (`emu.vm.pmap`).

While a guest pages under `--mmu nested` the table is PLAIN: nothing is NX, because the engine's nested walk of a guest's
own page tables takes the whole process down at an entry that is. Then every store is slow, and the engine itself sees
stores to code; EXECUTED is set by the block hook.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine import paging as pg
from emu.machine.native import compiled, load64, store64
from emu.vm import pmap

ABOVE = pg.PRESENT | pg.WRITABLE | pg.USER
LEVEL_SHIFTS = (39, 30, 21)


@compiled
def leaf_address(cb: object, ppn: int, make: bool) -> int:
    """Host address of the nested leaf entry of a page; 0 if it has no table (or, with `make`, when a frame is missing)."""
    table = cb[cbw.MEMORY] + cb[cbw.NESTED_ROOT]
    pa = ppn << 12
    for shift in LEVEL_SHIFTS:
        at = table + (pa >> shift & 0x1FF) * 8
        entry = load64(at)
        if not entry & pg.PRESENT:
            if not make:
                return 0
            mpn = pmap.take_table_frame(cb)
            if mpn < 0:
                return 0
            cb[cbw.NESTED_PAGES] += 1
            entry = mpn << 12 | ABOVE
            store64(at, entry)
        table = cb[cbw.MEMORY] + (entry & pg.FRAME_MASK)
    return table + (pa >> 12 & 0x1FF) * 8


@compiled
def leaf_value(cb: object, slot: int) -> int:
    """The nested leaf that a page is due, 0 while it has no frame."""
    word = pmap.entry(cb, slot)
    if not pmap.has_frame(word) or pmap.is_awaited(cb, slot):
        return 0
    value = (word & pmap.MPN_MASK) << 12 | pg.PRESENT | pg.USER
    plain = cb[cbw.NESTED_PLAIN] != 0
    if pmap.is_writable_state(word) and (plain or not word & pmap.EXECUTED or word & pmap.MIXED):
        value |= pg.WRITABLE
    if not plain and not word & pmap.EXECUTED:
        value |= pg.NO_EXECUTE
    return value


@compiled
def fill(cb: object, ppn: int, slot: int) -> int:
    """Map a page as it is due; returns the old entry, -1 when a frame is missing."""
    if pmap.frame_of(cb, slot) < 0:
        return -1
    at = leaf_address(cb, ppn, True)
    if at == 0:
        return -1
    old = load64(at)
    store64(at, leaf_value(cb, slot))
    return old


@compiled
def set_plain(cb: object, plain: int) -> None:
    """Say whether entries carry NX, and forget all leaves so that they are made anew."""
    if cb[cbw.NESTED_PLAIN] != plain:
        cb[cbw.NESTED_PLAIN] = plain
        cb[cbw.CODE_EPOCH] += 1
        forget_leaves(cb, cb[cbw.NESTED_ROOT], len(LEVEL_SHIFTS))
        cb[cbw.NEEDS_TLB_FLUSH] = 1


@compiled
def forget_leaves(cb: object, table: int, levels_below: int) -> None:
    """Empty every last-level table reached from the table at MA `table`; no frame is given back."""
    for index in range(0x200):
        at = cb[cbw.MEMORY] + table + 8 * index
        entry = load64(at)
        if levels_below == 0:
            store64(at, 0)
        elif entry & pg.PRESENT:
            forget_leaves(cb, entry & pg.FRAME_MASK, levels_below - 1)


@compiled
def refresh(cb: object, ppn: int) -> None:
    """The page's due changed: bring its entry in line, if it has one that is present."""
    at = leaf_address(cb, ppn, False)
    if at and load64(at) & pg.PRESENT:
        store64(at, leaf_value(cb, pmap.slot_of(cb, ppn)))
        cb[cbw.NEEDS_TLB_FLUSH] = 1


@compiled
def refresh_slot(cb: object, slot: int) -> None:
    """The same for every page number that shows the slot (the ROM shows at two)."""
    if slot != cb[cbw.ABSENT]:
        refresh(cb, slot)
    rom = slot - cb[cbw.ROM_FIRST]
    if 0 <= rom < cb[cbw.ROM_PAGES]:
        refresh(cb, pmap.HIGH_ROM_END - cb[cbw.ROM_PAGES] + rom)
