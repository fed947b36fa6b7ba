"""Watching single pages for a touch: nothing maps them, so that the guest's next access is a hidden fault (Waldspurger 2002, section 5.3).

    (not watched) --watch()--> WAITING --access of the guest or a device--> TOUCHED        either --forget()--> (not watched)

What the VMM itself reads (the guest's page tables, code to be decoded) is no touch.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine.native import compiled, store8
from emu.vm import nested, pmap, rows


@compiled
def watch(cb: object, slot: int) -> None:
    """Unmap a page, and wait for an access. Between two slices, and not while an instruction is stepped."""
    store8(cb[cbw.WATCHED] + slot, pmap.WAITING)
    if cb[cbw.USE_SHADOW]:
        rows.unmap_page(cb, slot)
    nested.refresh_slot(cb, slot)
    cb[cbw.NEEDS_TLB_FLUSH] = 1
