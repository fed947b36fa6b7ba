"""Pages in the balloon: they leave the pmap, their frames go back to the machine at once.

    PRESENT, SHARED, SWAPPED, UNALLOCATED --lock--> BALLOONED --unlock, forget, touch (a pop)--> UNALLOCATED

What maps a page is dropped before its frame goes: shadow and nested entries, the shadow of the page as a guest table, translated code. The
engine's TLB is flushed once a call, at the end of the IN (`emu.vm.port_access`). Native code puts the frames in FREED; Python gives them to
the machine before that.

A driver's lies are answered with the statuses of `emu.devices.balloon`.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine.native import compiled, load64, store64
from emu.vm import cow, nested, pmap, shadow
from emu.vm.record import emit

ENTRY_STATUS = 0x1F  # bits of a batch's entry that the host writes
ENTRY_RESERVED = 0xFE0
PPN_SHIFT = 12
NO_PPN = -1
_LOCK, _UNLOCK = int(Kind.BALLOON_LOCK), int(Kind.BALLOON_UNLOCK)
# Statuses of `emu.devices.balloon`, which native code does not import.
_SUCCESS, _INVALID, _LOCKED, _NOT_LOCKED, _PINNED, _NOT_NEEDED, _BUSY = STATUSES = (0, 2, 3, 4, 5, 6, 8)


@compiled
def is_ram(cb: object, ppn: int) -> bool:
    """Whether a page number is one of those that the guest was promised as memory."""
    if ppn < 0 or ppn >= cb[cbw.RAM_PAGES] or pmap.FIRST_TEXT_PPN <= ppn < pmap.END_TEXT_PPN:
        return False
    state = pmap.state(pmap.entry(cb, ppn))
    return state != pmap.ROM and state != pmap.ABSENT and state != pmap.DEVICE


@compiled
def take_away(cb: object, slot: int) -> None:
    """Unmap a page that has a frame, and put the frame in FREED, or in DROPPED if it is shared."""
    word = pmap.entry(cb, slot)
    if cb[cbw.USE_SHADOW]:
        shadow.untrace(cb, slot)
    cow.forget_mappings(cb, slot)
    pmap.set_entry(cb, slot, pmap.BALLOONED << pmap.STATE_SHIFT)
    nested.refresh_slot(cb, slot)
    if pmap.state(word) == pmap.SHARED:
        cow.drop_reference(cb, word & pmap.MPN_MASK)
        cow.note_end(cb, slot, cow.BY_BALLOON)
    else:
        store64(cb[cbw.FREED] + 8 * cb[cbw.FREED_COUNT], word & pmap.MPN_MASK)
        cb[cbw.FREED_COUNT] += 1


@compiled
def lock(cb: object, ppn: int, target: int) -> int:
    """LOCK of one page."""
    if not is_ram(cb, ppn):
        return _INVALID
    state = pmap.state(pmap.entry(cb, ppn))
    if state == pmap.BALLOONED:
        return _LOCKED
    if cb[cbw.BALLOON_PAGES] >= target:
        return _NOT_NEEDED
    if cb[cbw.STEPPING]:
        return _BUSY
    word = pmap.entry(cb, ppn)
    mpn = word & pmap.MPN_MASK if pmap.has_frame(word) else -1
    if mpn >= 0:
        take_away(cb, ppn)
    else:
        pmap.set_entry(cb, ppn, pmap.BALLOONED << pmap.STATE_SHIFT)
    cb[cbw.BALLOON_PAGES] += 1
    emit(cb, _LOCK, 0, ppn << 12, ppn, mpn, 0, 0)
    return _SUCCESS


@compiled
def unlock(cb: object, ppn: int) -> int:
    """UNLOCK of one page."""
    if not is_ram(cb, ppn):
        return _INVALID
    if pmap.state(pmap.entry(cb, ppn)) != pmap.BALLOONED:
        return _NOT_LOCKED
    pmap.set_entry(cb, ppn, pmap.UNALLOCATED << pmap.STATE_SHIFT)
    cb[cbw.BALLOON_PAGES] -= 1
    emit(cb, _UNLOCK, 0, ppn << 12, ppn, -1, 0, 0)
    return _SUCCESS


@compiled
def answer_entry(cb: object, entry: int, target: int, pinned: int, locking: bool) -> int:
    """An entry of a batch, carried out: the entry with its status. `pinned` is the PPN that answers are written to."""
    ppn = entry >> PPN_SHIFT & (1 << 64 - PPN_SHIFT) - 1
    if entry & ENTRY_RESERVED:
        status = _INVALID
    elif ppn == pinned:
        status = _PINNED
    elif locking:
        status = lock(cb, ppn, target)
    else:
        status = unlock(cb, ppn)
    return entry & ~ENTRY_STATUS | status


@compiled
def batch(cb: object, entries: int, count: int, target: int, pinned: int, locking: bool) -> None:
    """A batch in a copy of the guest's page at a host address."""
    for number in range(count):
        at = entries + 8 * number
        store64(at, answer_entry(cb, load64(at), target, pinned, locking))


@compiled
def forget(cb: object) -> None:
    """All pages in the balloon are memory again."""
    for slot in range(cb[cbw.RAM_PAGES]):
        if pmap.state(pmap.entry(cb, slot)) == pmap.BALLOONED:
            pmap.set_entry(cb, slot, pmap.UNALLOCATED << pmap.STATE_SHIFT)
    cb[cbw.BALLOON_PAGES] = 0
    cb[cbw.BALLOON_POPPED] = 0
