"""The guest's page tables and what the processor walks for them, side by side and folded.

Pages that follow each other with the same flags and state, and with guest frames that follow each other, are one `Range`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from emu.config import Mmu
from emu.machine import control as cbw
from emu.machine import paging as pg
from emu.vm import nested, pmap, shadow, walk
from emu.vm.state import VmState

ENTRIES32 = 1024
FLAGS = 0x17F  # G D A C T U W P of a guest entry; PS is said apart
SHADOW_FLAGS = FLAGS | pg.NO_EXECUTE
NO_MPN = -1


@dataclass(frozen=True)
class Range:
    """`pages` pages from `vpn` on. `mpn` is NO_MPN where nothing is allocated; `mpns_follow` says if they are in a row."""

    vpn: int
    pages: int
    ppn: int
    guest_flags: int  # entry bits
    is_large: bool  # mapped by a 4 MB entry
    mpn: int
    mpns_follow: bool
    shadow_flags: int  # entry bits of the shadow or nested leaf, 0 if there is none
    state: str  # pmap state, with code, mixed, table or unsync


def ranges(state: VmState) -> list[Range]:
    """All that the guest maps now, or the nested table's pages while paging is off."""
    folded: list[Range] = []
    for page in _pages(state):
        if folded and _continues(folded[-1], page):
            last = folded[-1]
            follows = last.mpns_follow and page.mpn == (NO_MPN if last.mpn == NO_MPN else last.mpn + last.pages)
            folded[-1] = replace(last, pages=last.pages + 1, mpns_follow=follows)
        else:
            folded.append(page)
    return folded


def _continues(last: Range, page: Range) -> bool:
    same = (last.guest_flags, last.is_large, last.shadow_flags, last.state) == (
        page.guest_flags,
        page.is_large,
        page.shadow_flags,
        page.state,
    )
    return same and page.vpn == last.vpn + last.pages and page.ppn == last.ppn + last.pages


def _pages(state: VmState) -> Iterator[Range]:
    control = state.control
    if not int(control[cbw.GUEST_CR0]) & pg.CR0_PG:
        for ppn in range(state.ram_pages):
            if int(state.pmap[ppn]) >> pmap.STATE_SHIFT & pmap.STATE_MASK in (pmap.PRESENT_PAGE, pmap.ROM):
                yield _page(state, ppn, ppn, 0, is_large=False)
        return
    directory = int(control[cbw.GUEST_CR3]) & pg.FRAME32_MASK
    for index in range(ENTRIES32):
        pde = int(walk.read_word(control, directory + 4 * index))
        if not pde & pg.PRESENT:
            continue
        large = bool(walk.is_large(control, pde))
        for number in range(ENTRIES32):
            vpn = index << 10 | number
            if large:
                yield _page(state, vpn, int(walk.large_frame(pde)) + number, pde, is_large=True)
                continue
            pte = int(walk.read_word(control, (pde & pg.FRAME32_MASK) + 4 * number))
            if pte & pg.PRESENT:
                rights = pte & pde & (pg.WRITABLE | pg.USER)
                yield _page(state, vpn, pte >> 12, pte & ~(pg.WRITABLE | pg.USER) | rights, is_large=False)


def _page(state: VmState, vpn: int, ppn: int, entry: int, *, is_large: bool) -> Range:
    slot = int(pmap.slot_of(state.control, ppn))
    word = int(state.pmap[slot])
    kind = word >> pmap.STATE_SHIFT & pmap.STATE_MASK
    mpn = NO_MPN if kind == pmap.UNALLOCATED else word & pmap.MPN_MASK
    leaf = _leaf(state, vpn, ppn)
    flags = leaf & SHADOW_FLAGS if leaf & pg.PRESENT else 0
    return Range(vpn, 1, ppn, entry & FLAGS, is_large, mpn, True, flags, _state_name(state, slot, word, kind))


def _leaf(state: VmState, vpn: int, ppn: int) -> int:
    """The entry that the processor's walk ends at, 0 if it does not get there."""
    control = state.control
    use_shadow = state.config.mmu is Mmu.SHADOW and int(control[cbw.SHADOWING])
    address = shadow.find_leaf(control, vpn << 12) if use_shadow else nested.leaf_address(control, ppn, False)
    if not address:
        return 0
    return int(state.memory.words[(int(address) - state.memory.address) // 8])


def _state_name(state: VmState, slot: int, word: int, kind: int) -> str:
    marks = [pmap.STATE_NAMES[kind]]
    if word & pmap.MIXED:
        marks.append("mixed")
    elif word & pmap.EXECUTED:
        marks.append("code")
    if state.tables[slot]:
        marks.append("unsync" if slot + 1 in state.unsync_rows else "table")
    return " ".join(marks)
