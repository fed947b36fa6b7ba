"""Pages on the swap area: their frame goes to the machine, and comes back with their contents at the first touch.

    PRESENT --page_out()--> SWAPPED --touch--> PRESENT

What reads and writes the area is the host's; it is asked through SWAP_IN_FN in the middle of an exit. The time that the disk would take
is noted in STALL, and passes before the guest goes on.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine.native import compiled
from emu.vm import cow, nested, pmap, rows, shadow
from emu.vm.record import emit

_OUT = int(Kind.SWAP_OUT)


@compiled
def page_out(cb: object, slot: int) -> int:
    """Unmap a page that has a frame of its own and whose contents are safe; its MPN, which the caller gives back.

    Between two slices, and not while an instruction is stepped.
    """
    mpn = pmap.entry(cb, slot) & pmap.MPN_MASK
    if cb[cbw.USE_SHADOW] and rows.is_table(cb, slot):
        shadow.untrace(cb, slot)
    cow.forget_mappings(cb, slot)
    pmap.set_entry(cb, slot, pmap.SWAPPED << pmap.STATE_SHIFT)
    nested.refresh_slot(cb, slot)
    emit(cb, _OUT, 0, slot << 12, slot, mpn, 0, 0)
    return mpn
