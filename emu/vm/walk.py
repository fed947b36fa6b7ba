"""The guest's own page tables, walked as the processor would: 32-bit paging (AMD64 APM vol. 2, section 5.2).

A walk answers (fault, ppn, access, large): `fault` is -1 where the guest's tables permit the access, else the error code
of the page fault they ask for; `access` has the WRITABLE and USER bits that the tables grant together, and DIRTY if the
leaf is dirty after the walk. PAE and long mode add a walker each, chosen by the same control-register bits.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine import paging as pg
from emu.machine.native import compiled, load32, load64, store32
from emu.vm import pmap, step_records

NO_FAULT = -1
ONES32 = 0xFFFF_FFFF
LARGE_DIRECTORY_SHIFT = 22


@compiled
def read_word(cb: object, pa: int) -> int:
    """The 32-bit word of guest-physical memory at `pa` (aligned): absent memory reads as ones, untouched RAM as zero."""
    at = pmap.address_to_read(cb, pa & ~3)
    if at == pmap.READS_ZERO:
        return 0
    return ONES32 if at == pmap.READS_ONES else load32(at)


@compiled
def set_bits(cb: object, pa: int, bits: int) -> None:
    """OR `bits` into a guest table entry, as the walker of the processor does for A and D; ROM takes no stores."""
    word = pmap.entry(cb, pmap.slot_of(cb, pa >> 12))
    if pmap.is_writable_state(word):
        at = pmap.frame_address(cb, word & pmap.MPN_MASK) + (pa & 0xFFC)
        store32(at, load32(at) | bits)
        if cb[cbw.UNSYNC_COUNT] or cb[cbw.STEPPING]:
            mirror_bits(cb, pmap.slot_of(cb, pa >> 12), pa & 0xFFC, bits)


@compiled
def mirror_bits(cb: object, slot: int, offset: int, bits: int) -> None:
    """Put the walker's own bits into the kept copies of a table too, so that they do not pass for stores of the guest."""
    if cb[cbw.UNSYNC_COUNT]:
        for index in range(cb[cbw.UNSYNC_MAX]):
            if load32(cb[cbw.UNSYNC_ROWS] + 4 * index) == slot + 1:
                at = cb[cbw.UNSYNC_COPIES] + (index << 12) + offset
                store32(at, load32(at) | bits)
    for index in range(cb[cbw.STEPPING]):
        if load64(cb[cbw.STEP_ROWS] + step_records.BYTES * index) == slot:
            at = cb[cbw.STEP_COPIES] + (index << 12) + offset
            store32(at, load32(at) | bits)


@compiled
def directory_entry_address(cb: object, va: int) -> int:
    """PA of the directory entry for `va`."""
    return (cb[cbw.GUEST_CR3] & pg.FRAME32_MASK) + (va >> 22 & 0x3FF) * 4


@compiled
def large_frame(pde: int) -> int:
    """PPN of the first page of a 4 MB mapping, PSE-36 bits included."""
    return (pde & pg.LARGE32_FRAME) >> 12 | (pde & pg.LARGE32_HIGH) >> 13 << 20


@compiled
def is_large(cb: object, pde: int) -> bool:
    """Whether a directory entry maps 4 MB."""
    return (pde & pg.LARGE) != 0 and (cb[cbw.GUEST_CR4] & pg.CR4_PSE) != 0


@compiled
def permits(cb: object, access: int, write: bool, user: bool) -> bool:
    """Whether the combined access bits allow it; CR0.WP decides for the supervisor's stores."""
    if user and not access & pg.USER:
        return False
    if write and not access & pg.WRITABLE:
        return not user and not cb[cbw.GUEST_CR0] & pg.CR0_WP
    return True


@compiled
def walk(cb: object, va: int, write: bool, user: bool, mark: bool) -> tuple[int, int, int, int]:
    """Walk for `va`; with `mark`, set A and D where the access is permitted."""
    if not cb[cbw.GUEST_CR0] & pg.CR0_PG:
        return NO_FAULT, va >> 12, pg.WRITABLE | pg.USER | pg.DIRTY, 0
    code = (pg.FAULT_WRITE if write else 0) | (pg.FAULT_USER if user else 0)
    pde_at = directory_entry_address(cb, va)
    pde = read_word(cb, pde_at)
    if not pde & pg.PRESENT:
        return code, 0, 0, 0
    code |= pg.FAULT_PRESENT
    if is_large(cb, pde):
        if pde & pg.LARGE32_RESERVED:
            return code | pg.FAULT_RESERVED, 0, 0, 1
        if not permits(cb, pde, write, user):
            return code, 0, 0, 1
        due = pg.ACCESSED | (pg.DIRTY if write else 0)
        if mark and pde & due != due:
            set_bits(cb, pde_at, due)
        granted = (pde | (pg.DIRTY if write else 0)) & (pg.WRITABLE | pg.USER | pg.DIRTY)
        return NO_FAULT, large_frame(pde) + (va >> 12 & 0x3FF), granted, 1
    pte_at = (pde & pg.FRAME32_MASK) + (va >> 12 & 0x3FF) * 4
    pte = read_word(cb, pte_at)
    if not pte & pg.PRESENT:
        return code & ~pg.FAULT_PRESENT, 0, 0, 0
    access = pde & pte & (pg.WRITABLE | pg.USER)
    if not permits(cb, access, write, user):
        return code, 0, 0, 0
    if mark:
        mark_leaf(cb, pde_at, pde, pte_at, pte, write)
    dirty = pg.DIRTY if write else pte & pg.DIRTY
    return NO_FAULT, pte >> 12, access | dirty, 0


@compiled
def mark_leaf(cb: object, pde_at: int, pde: int, pte_at: int, pte: int, write: bool) -> None:
    """Set A in both entries and D in the leaf for a store, writing only what is not set yet."""
    if not pde & pg.ACCESSED:
        set_bits(cb, pde_at, pg.ACCESSED)
    due = pg.ACCESSED | (pg.DIRTY if write else 0)
    if pte & due != due:
        set_bits(cb, pte_at, due)
