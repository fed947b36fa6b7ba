"""Pages whose frame other pages have too: mapped read-only, and copied at the first store (copy-on-write; Waldspurger 2002, section 4.1).

    PRESENT --share()--> SHARED --store--> PRESENT, in a frame of its own

A shared frame belongs to the machine (`FrameUse.SHARED`), which counts who refers to it; a VM that lets one go notes it in DROPPED, for VMs
run side by side and the counts are the machine's. Page tables of the guest that are traced are not shared.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine import env
from emu.machine.memory import FrameUse
from emu.machine.native import call3, compiled, store64
from emu.vm import code, nested, pmap, rows
from emu.vm.record import emit

_GUEST = int(FrameUse.GUEST)
_BREAK, _SHARE = int(Kind.COW_BREAK), int(Kind.PAGE_SHARED)

# What sharing did to a page, four words: virtual time at which it was shared last, and at which it last ceased to be (NEVER: not yet), why, and RIP then.
SINCE, UNTIL, BROKEN_BY, BROKEN_RIP = range(4)
HISTORY_WORDS = 4
NEVER = -1
BY_STORE, BY_DEVICE, BY_WALK, BY_BALLOON, BY_RESET = range(
    1, 6
)  # the guest's, a device's, an A or D bit that was set, what took the page away


@compiled
def forget_mappings(cb: object, slot: int) -> None:
    """Before a page's frame is replaced: translated code and all entries that map it go, and the engine's TLB before the guest goes on."""
    if pmap.entry(cb, slot) & pmap.EXECUTED:
        code.flush_code(cb, slot)
    if cb[cbw.USE_SHADOW]:
        rows.unmap_page(cb, slot)
    cb[cbw.NEEDS_TLB_FLUSH] = 1


@compiled
def drop_reference(cb: object, mpn: int) -> None:
    """Note that a page does not use a shared frame any more."""
    store64(cb[cbw.DROPPED] + 8 * cb[cbw.DROPPED_COUNT], mpn)
    cb[cbw.DROPPED_COUNT] += 1


@compiled
def note_share(cb: object, slot: int) -> None:
    """For the page's history: it is shared now."""
    if cb[cbw.HISTORY]:
        store64(cb[cbw.HISTORY] + 8 * (HISTORY_WORDS * slot + SINCE), cb[cbw.INSNS])


@compiled
def note_end(cb: object, slot: int, cause: int) -> None:
    """For the page's history: it is not shared any more."""
    if cb[cbw.HISTORY]:
        at = cb[cbw.HISTORY] + 8 * HISTORY_WORDS * slot
        store64(at + 8 * UNTIL, cb[cbw.INSNS])
        store64(at + 8 * BROKEN_BY, cause)
        store64(at + 8 * BROKEN_RIP, env.linear_ip(cb[cbw.ENV]) if cause == BY_STORE else 0)


@compiled
def break_sharing(cb: object, slot: int, cause: int) -> bool:
    """Give a SHARED page a frame of its own, with the same contents; false when the reserve is empty."""
    shared = pmap.entry(cb, slot) & pmap.MPN_MASK
    mpn = pmap.take_frame(cb, _GUEST, slot)
    if mpn < 0:
        return False
    call3(cb[cbw.FN_COPY], pmap.frame_address(cb, mpn), pmap.frame_address(cb, shared), 0x1000)
    forget_mappings(cb, slot)
    pmap.set_entry(cb, slot, mpn | pmap.PRESENT_PAGE << pmap.STATE_SHIFT)
    nested.refresh_slot(cb, slot)
    drop_reference(cb, shared)
    note_end(cb, slot, cause)
    emit(cb, _BREAK, 0, slot << 12, slot, mpn, shared, mpn)
    return True


@compiled
def make_writable(cb: object, slot: int, cause: int) -> bool:
    """Before a store to a page: break its sharing if it is shared; false when the reserve is empty."""
    return pmap.state(pmap.entry(cb, slot)) != pmap.SHARED or break_sharing(cb, slot, cause)


@compiled
def can_be_shared(cb: object, slot: int) -> bool:
    """Whether a page may be given a shared frame now: it has a frame of its own, and no store to it is followed or under way."""
    word = pmap.entry(cb, slot)
    return (
        pmap.state(word) == pmap.PRESENT_PAGE and not word & pmap.MIXED and not rows.is_table(cb, slot) and not cb[cbw.STEPPING]
    )


@compiled
def share(cb: object, slot: int, mpn: int) -> None:
    """Let a page that `can_be_shared` refer to a shared frame of the same contents, which may be its own frame until now.

    Between two slices. The caller gives the page's own frame back, if it is another.
    """
    word = pmap.entry(cb, slot)
    own = word & pmap.MPN_MASK
    if own == mpn:
        kept = word & pmap.EXECUTED
        if cb[cbw.USE_SHADOW]:
            rows.write_protect(cb, slot)
        cb[cbw.NEEDS_TLB_FLUSH] = 1
    else:
        kept = 0
        forget_mappings(cb, slot)
    pmap.set_entry(cb, slot, mpn | pmap.SHARED << pmap.STATE_SHIFT | kept)
    nested.refresh_slot(cb, slot)
    note_share(cb, slot)
    emit(cb, _SHARE, 0, slot << 12, slot, mpn, own, mpn)
