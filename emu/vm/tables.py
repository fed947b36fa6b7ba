"""The guest's page tables and what the processor walks for them, side by side and folded.

Pages that follow each other with the same flags and state, and with guest frames that follow each other, are one `Range`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from emu.config import Mmu
from emu.machine import control as cbw
from emu.machine import paging as pg
from emu.units import PAGE_BYTES
from emu.vm import nested, pmap, rows, shadow, walk
from emu.vm.msr import signed
from emu.vm.state import VmState

LEGACY_ENTRIES, ENTRIES, POINTERS = 1024, 512, 4
FLAGS = 0x17F | 1 << 63  # X G D A C T U W P; PS is said apart
SHADOW_FLAGS = FLAGS
NO_MPN = -1
NX, WORD = 1 << 63, (1 << 64) - 1


@dataclass(frozen=True)
class Range:
    """`pages` pages from `vpn` on. `mpn` is NO_MPN where nothing is allocated; `mpns_follow` says if they are in a row."""

    vpn: int
    pages: int
    ppn: int
    guest_flags: int  # entry bits
    mapped_by: int  # bytes that the guest's entry maps: 4 KB, 2 MB, 4 MB or 1 GB
    mpn: int
    mpns_follow: bool
    shadow_flags: int  # entry bits of the shadow or nested leaf, 0 if there is none
    state: str  # pmap state, with code, mixed, table or unsync


def ranges(state: VmState) -> list[Range]:
    """All that the guest maps now, or the nested table's pages while paging is off."""
    state.control[cbw.IS_LOOKING] = 1
    try:
        folded: list[Range] = []
        for page in _pages(state):
            if folded and _continues(folded[-1], page):
                last = folded[-1]
                follows = last.mpns_follow and page.mpn == (NO_MPN if last.mpn == NO_MPN else last.mpn + last.pages)
                folded[-1] = replace(last, pages=last.pages + 1, mpns_follow=follows)
            else:
                folded.append(page)
        return folded
    finally:
        state.control[cbw.IS_LOOKING] = 0


def _continues(last: Range, page: Range) -> bool:
    same = (last.guest_flags, last.mapped_by, last.shadow_flags, last.state) == (
        page.guest_flags,
        page.mapped_by,
        page.shadow_flags,
        page.state,
    )
    return same and page.vpn == last.vpn + last.pages and page.ppn == last.ppn + last.pages


def _pages(state: VmState) -> Iterator[Range]:
    control = state.control
    if not int(control[cbw.GUEST_CR0]) & pg.CR0_PG:
        for ppn in range(state.ram_pages):
            if int(state.pmap[ppn]) >> pmap.STATE_SHIFT & pmap.STATE_MASK in (pmap.PRESENT_PAGE, pmap.SHARED, pmap.ROM):
                yield _page(state, ppn, ppn, 0, PAGE_BYTES)
        return
    levels = int(control[cbw.GUEST_LEVELS])
    yield from _guest_pages(state, int(walk.root_table(control)), levels, 0, pg.WRITABLE | pg.USER, executable=True)


def _guest_pages(state: VmState, table: int, level: int, prefix: int, rights: int, *, executable: bool) -> Iterator[Range]:
    """What the guest table of a level at a PA maps; `prefix` is the VPN of its first page, the rest what upper levels grant."""
    control = state.control
    legacy = int(control[cbw.GUEST_LEVELS]) == pg.LEGACY
    is_pointers = level == pg.PAE and int(control[cbw.GUEST_LEVELS]) == pg.PAE
    pages_each = 1 << (10 if legacy else 9) * (level - 1)
    width, count = (4, LEGACY_ENTRIES) if legacy else (8, POINTERS if is_pointers else ENTRIES)
    for index in range(count):
        entry = int(walk.read_entry(control, table + width * index)) & WORD
        if not entry & pg.PRESENT or (not legacy and walk.is_malformed(control, signed(entry), level) and not is_pointers):
            continue
        granted = rights if is_pointers else rights & entry
        runs = executable and not entry >> 63
        first = prefix + index * pages_each
        large = level > 1 and bool(walk.is_large(control, signed(entry), level)) and not is_pointers
        if level > 1 and not large:
            below = entry & (pg.FRAME32_MASK if legacy else pg.FRAME_MASK)
            yield from _guest_pages(state, below, level - 1, first, granted, executable=runs)
            continue
        ppn = int(walk.large_frame(entry)) if legacy and large else int(walk.frame_at(signed(entry), level))
        flags = entry & ~(pg.WRITABLE | pg.USER | NX) | granted | (0 if runs else NX)
        for number in range(pages_each):
            yield _page(state, canonical(first + number), ppn + number, flags, pages_each * PAGE_BYTES)


def canonical(vpn: int) -> int:
    """A VPN of 48-bit addresses with its upper bits as they are in a 64-bit address."""
    return vpn | ((1 << 52) - 1) & ~((1 << 36) - 1) if vpn >> 35 else vpn


def _page(state: VmState, vpn: int, ppn: int, entry: int, mapped_by: int) -> Range:
    slot = int(pmap.slot_of(state.control, ppn))
    word = int(state.pmap[slot])
    kind = word >> pmap.STATE_SHIFT & pmap.STATE_MASK
    mpn = NO_MPN if kind in pmap.WITHOUT_FRAME else word & pmap.MPN_MASK
    leaf = _leaf(state, vpn, ppn)
    flags = leaf & SHADOW_FLAGS if leaf & pg.PRESENT else 0
    return Range(vpn, 1, ppn, entry & FLAGS, mapped_by, mpn, True, flags, _state_name(state, slot, word, kind))


def _leaf(state: VmState, vpn: int, ppn: int) -> int:
    """The entry that the processor's walk ends at, 0 if it does not get there."""
    control = state.control
    use_shadow = state.config.mmu is Mmu.SHADOW and int(control[cbw.SHADOWING])
    address = shadow.find_leaf(control, signed(vpn << 12)) if use_shadow else nested.leaf_address(control, ppn, False)
    if not address:
        return 0
    return int(state.memory.words[(int(address) - state.memory.address) // 8]) & WORD


def _state_name(state: VmState, slot: int, word: int, kind: int) -> str:
    marks = [pmap.STATE_NAMES[kind]]
    if word & pmap.MIXED:
        marks.append("mixed")
    elif word & pmap.EXECUTED:
        marks.append("code")
    if rows.is_table(state.control, slot):
        marks.append("unsync" if slot + 1 in state.unsync_rows else "table")
    return " ".join(marks)
