"""The guest's own page tables, walked as the processor would: 32-bit, PAE and 4-level paging.

A walk is for a KIND of access: FAULT_WRITE, FAULT_USER and FAULT_FETCH as in an error code, and the two bits below. It
answers (fault, ppn, access, size). `fault` is NO_FAULT where the guest's tables permit the access, NON_CANONICAL where the
address is none, else the error code of the page fault they ask for. `access` has the rights that the tables grant together,
and DIRTY if the leaf is dirty after the walk. `size` is 0 for a 4 KB page, 1 for 2 or 4 MB, 2 for 1 GB.

AMD64 APM vol. 2, sections 5.2 to 5.6; Intel SDM vol. 3, sections 4.3 to 4.8. The four PAE directory pointers are read at each
walk, as AMD's processors do under nested paging and as the engine does; Intel's keep them from the last load of CR3.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.machine.native import compiled, load32, load64, store32
from emu.vm import cow, pmap, step_records

NO_FAULT = -1
NON_CANONICAL = 0x100  # in place of an error code
PEEK = 1 << 8  # a kind: the VMM looks, and any present mapping will do
IMPLICIT = 1 << 9  # a kind: the processor's own access to a descriptor or a stack, to which EFLAGS.AC says nothing
ONES32, ONES64 = 0xFFFF_FFFF, -1
LARGE_DIRECTORY_SHIFT = 22
GRANTED = pg.ALL_RIGHTS | pg.DIRTY


# ---- entries ----------------------------------------------------------------------------------------------------------


@compiled
def read_word(cb: object, pa: int) -> int:
    """The 32-bit word of guest-physical memory at `pa` (aligned): absent memory reads as ones, untouched RAM as zero."""
    at = pmap.address_to_read(cb, pa & ~3)
    if at == pmap.READS_ZERO:
        return 0
    return ONES32 if at == pmap.READS_ONES else load32(at)


@compiled
def read_quad(cb: object, pa: int) -> int:
    """The same for the 64-bit word at `pa` (aligned)."""
    at = pmap.address_to_read(cb, pa & ~7)
    if at == pmap.READS_ZERO:
        return 0
    return ONES64 if at == pmap.READS_ONES else load64(at)


@compiled
def entry_bytes(cb: object) -> int:
    """Bytes of an entry of the guest's page tables."""
    return 4 if cb[cbw.GUEST_LEVELS] == pg.LEGACY else 8


@compiled
def read_entry(cb: object, pa: int) -> int:
    """An entry of the guest's page tables."""
    return read_word(cb, pa) if cb[cbw.GUEST_LEVELS] == pg.LEGACY else read_quad(cb, pa)


@compiled
def set_bits(cb: object, pa: int, bits: int) -> None:
    """OR `bits` into a guest table entry, as the walker of the processor does for A and D; ROM takes no stores."""
    slot = pmap.slot_of(cb, pa >> 12)
    if cow.make_writable(cb, slot, cow.BY_WALK) and pmap.is_writable_state(pmap.entry(cb, slot)):
        word = pmap.entry(cb, slot)
        at = pmap.frame_address(cb, word & pmap.MPN_MASK) + (pa & 0xFFC)
        store32(at, load32(at) | bits)
        if cb[cbw.UNSYNC_COUNT] or cb[cbw.STEPPING]:
            mirror_bits(cb, slot, pa & 0xFFC, bits)


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
def rights_of(entry: int) -> int:
    """What a 64-bit entry grants: WRITABLE, USER, EXECUTABLE."""
    return entry & (pg.WRITABLE | pg.USER) | (pg.EXECUTABLE if entry >= 0 else 0)


@compiled
def is_large(cb: object, entry: int, level: int) -> bool:
    """Whether an entry of level 2 or 3 maps a large page."""
    if not entry & pg.LARGE:
        return False
    return level < pg.LONG and (cb[cbw.GUEST_LEVELS] != pg.LEGACY or cb[cbw.GUEST_CR4] & pg.CR4_PSE != 0)


@compiled
def is_malformed(cb: object, entry: int, level: int) -> bool:
    """Whether a present 64-bit entry has a reserved bit set."""
    reserved = cb[cbw.GUEST_RESERVED]
    if level == pg.LONG:
        reserved |= pg.LARGE
    elif level > 1 and entry & pg.LARGE:
        reserved |= pg.FRAME_MASK & ~pg.LARGE_PAT & (1 << 3 + 9 * level) - 1
    return entry & reserved != 0


@compiled
def large_frame(entry: int) -> int:
    """PPN of the first page of a 4 MB mapping, PSE-36 bits included."""
    return (entry & pg.LARGE32_FRAME) >> 12 | (entry & pg.LARGE32_HIGH) >> 13 << 20


@compiled
def frame_at(entry: int, level: int) -> int:
    """PPN of the first page that a 64-bit leaf of a level maps."""
    return (entry & pg.FRAME_MASK) >> 12 & ~((1 << 9 * (level - 1)) - 1)


@compiled
def root_table(cb: object) -> int:
    """PA of the table that CR3 points to."""
    if cb[cbw.GUEST_LEVELS] == pg.LEGACY:
        return cb[cbw.GUEST_CR3] & pg.FRAME32_MASK
    if cb[cbw.GUEST_LEVELS] == pg.PAE:
        return cb[cbw.GUEST_CR3] & 0xFFFF_FFE0
    return cb[cbw.GUEST_CR3] & pg.FRAME_MASK


@compiled
def entry_address(cb: object, table: int, va: int, level: int) -> int:
    """PA of the entry for `va` in the table of a level at PA `table`."""
    if cb[cbw.GUEST_LEVELS] == pg.LEGACY:
        return table + (va >> 2 + 10 * level & 0x3FF) * 4
    if level == pg.PAE and cb[cbw.GUEST_LEVELS] == pg.PAE:
        return table + (va >> 30 & 3) * 8
    return table + (va >> 3 + 9 * level & 0x1FF) * 8


@compiled
def page_table(cb: object, va: int) -> int:
    """PPN of the last-level table that maps `va`, -1 if the guest's tables do not lead to one."""
    levels = cb[cbw.GUEST_LEVELS]
    table = root_table(cb)
    for level in range(levels, 1, -1):
        entry = read_entry(cb, entry_address(cb, table, va, level))
        if not entry & pg.PRESENT or is_large(cb, entry, level):
            return -1
        table = entry & (pg.FRAME32_MASK if levels == pg.LEGACY else pg.FRAME_MASK)
    return table >> 12


# ---- rights -----------------------------------------------------------------------------------------------------------


@compiled
def tells_fetches(cb: object) -> bool:
    """Whether error codes show instruction fetches: with NX or SMEP (SDM vol. 3, section 4.7)."""
    nx = cb[cbw.GUEST_EFER] & pg.EFER_NXE and cb[cbw.GUEST_CR4] & pg.CR4_PAE
    return nx != 0 or cb[cbw.GUEST_CR4] & pg.CR4_SMEP != 0


@compiled
def code_for(cb: object, kind: int) -> int:
    """The bits of an error code that say what was tried."""
    code = kind & (pg.FAULT_WRITE | pg.FAULT_USER)
    if kind & pg.FAULT_FETCH and tells_fetches(cb):
        code |= pg.FAULT_FETCH
    return code


@compiled
def smap_denies(cb: object, kind: int) -> bool:
    """Whether the supervisor must keep off user pages: CR4.SMAP, unless EFLAGS.AC lets an explicit access through."""
    if not cb[cbw.GUEST_CR4] & pg.CR4_SMAP:
        return False
    return kind & IMPLICIT != 0 or not load64(cb[cbw.ENV] + env.EFLAGS) & pg.EFLAGS_AC


@compiled
def permits(cb: object, access: int, kind: int) -> bool:
    """Whether the combined rights allow an access (SDM vol. 3, section 4.6.1)."""
    user = kind & pg.FAULT_USER
    if user and not access & pg.USER:
        return False
    if kind & pg.FAULT_FETCH:
        if not user and access & pg.USER and cb[cbw.GUEST_CR4] & pg.CR4_SMEP:
            return False
        return access & pg.EXECUTABLE != 0
    if not user and access & pg.USER and smap_denies(cb, kind):
        return False
    if kind & pg.FAULT_WRITE and not access & pg.WRITABLE:
        return not user and not cb[cbw.GUEST_CR0] & pg.CR0_WP
    return True


# ---- walks ------------------------------------------------------------------------------------------------------------


@compiled
def walk(cb: object, va: int, kind: int, mark: bool) -> tuple[int, int, int, int]:
    """Walk for `va`; with `mark`, set A and D where the access is permitted, and nowhere else."""
    if cb[cbw.GUEST_LEVELS] == pg.UNPAGED:
        return NO_FAULT, va >> 12, GRANTED, 0
    if cb[cbw.GUEST_LEVELS] == pg.LEGACY:
        return walk_legacy(cb, va, kind, mark)
    return walk_wide(cb, va, kind, mark)


@compiled
def walk_legacy(cb: object, va: int, kind: int, mark: bool) -> tuple[int, int, int, int]:
    """32-bit paging: two levels of 1024 entries."""
    code = code_for(cb, kind)
    write = kind & pg.FAULT_WRITE
    pde_at = entry_address(cb, root_table(cb), va, 2)
    pde = read_word(cb, pde_at)
    if not pde & pg.PRESENT:
        return code, 0, 0, 0
    if is_large(cb, pde, 2):
        if pde & pg.LARGE32_RESERVED:
            return code | pg.FAULT_PRESENT | pg.FAULT_RESERVED, 0, 0, 1
        size, leaf_at, leaf, access = 1, pde_at, pde, pde & pg.ALL_RIGHTS
        ppn = large_frame(pde) + (va >> 12 & 0x3FF)
    else:
        leaf_at = entry_address(cb, pde & pg.FRAME32_MASK, va, 1)
        leaf = read_word(cb, leaf_at)
        if not leaf & pg.PRESENT:
            return code, 0, 0, 0
        size, access, ppn = 0, pde & leaf, leaf >> 12
    access = access & (pg.WRITABLE | pg.USER) | pg.EXECUTABLE
    if not kind & PEEK and not permits(cb, access, kind):
        return code | pg.FAULT_PRESENT, 0, 0, size
    due = pg.ACCESSED | (pg.DIRTY if write else 0)
    if mark:
        if not pde & pg.ACCESSED:
            set_bits(cb, pde_at, pg.ACCESSED)
        if leaf & due != due:
            set_bits(cb, leaf_at, due)
    return NO_FAULT, ppn, access | (pg.DIRTY if write else leaf & pg.DIRTY), size


@compiled
def walk_wide(cb: object, va: int, kind: int, mark: bool) -> tuple[int, int, int, int]:
    """PAE and 4-level paging: levels of 512 entries, below four directory pointers in the former."""
    code = code_for(cb, kind)
    level = cb[cbw.GUEST_LEVELS]
    if level == pg.LONG and not is_canonical(va):
        return NON_CANONICAL, 0, 0, 0
    table = root_table(cb)
    if level == pg.PAE:
        pointer = read_quad(cb, entry_address(cb, table, va, level))
        if not pointer & pg.PRESENT:
            return code, 0, 0, 0
        if pointer & (
            pg.POINTER_RESERVED if cb[cbw.SHADOWING] else pg.POINTER_RESERVED_IN_ENGINE
        ):  # what the guest meets elsewhere
            return code | pg.FAULT_PRESENT | pg.FAULT_RESERVED, 0, 0, 0
        table = pointer & pg.FRAME_MASK
        level = 2
    access = pg.ALL_RIGHTS
    accessed = pg.ACCESSED
    while True:
        entry = read_quad(cb, entry_address(cb, table, va, level))
        if not entry & pg.PRESENT:
            return code, 0, 0, 0
        if is_malformed(cb, entry, level):
            return code | pg.FAULT_PRESENT | pg.FAULT_RESERVED, 0, 0, 0
        access &= rights_of(entry)
        if level == 1 or entry & pg.LARGE:
            break
        accessed &= entry
        table = entry & pg.FRAME_MASK
        level -= 1
    if not kind & PEEK and not permits(cb, access, kind):
        return code | pg.FAULT_PRESENT, 0, 0, level - 1
    write = kind & pg.FAULT_WRITE
    due = pg.ACCESSED | (pg.DIRTY if write else 0)
    if mark and (not accessed or entry & due != due):
        mark_path(cb, va, due)
    ppn = frame_at(entry, level) + (va >> 12 & (1 << 9 * (level - 1)) - 1)
    return NO_FAULT, ppn, access | (pg.DIRTY if write else entry & pg.DIRTY), level - 1


@compiled
def is_canonical(va: int) -> bool:
    """Whether bits 63 to 47 of a linear address are alike."""
    return va >> 47 == 0 or va >> 47 == -1


@compiled
def mark_path(cb: object, va: int, due: int) -> None:
    """Set A in every 64-bit entry on the way to `va`, and `due` in the last, writing only what is not set yet."""
    level = cb[cbw.GUEST_LEVELS]
    table = root_table(cb)
    while True:
        at = entry_address(cb, table, va, level)
        entry = read_quad(cb, at)
        if level != pg.PAE or cb[cbw.GUEST_LEVELS] != pg.PAE:
            last = level == 1 or entry & pg.LARGE
            bits = due if last else pg.ACCESSED
            if entry & bits != bits:
                set_bits(cb, at, bits)
            if last:
                return
        table = entry & pg.FRAME_MASK
        level -= 1


@compiled
def peek(cb: object, va: int) -> tuple[int, int]:
    """(fault, PPN) of a linear address by the guest's tables, for the VMM's own eyes: nothing is set, nothing is popped."""
    before = cb[cbw.IS_LOOKING]
    cb[cbw.IS_LOOKING] = 1
    fault, ppn, _access, _size = walk(cb, va, PEEK, False)
    cb[cbw.IS_LOOKING] = before
    return fault, ppn
