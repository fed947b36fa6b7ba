"""Which bytes of machine memory an extent of guest-physical memory lies in, for devices that transfer much.

A *piece* is two words: where it is in machine memory (or why it is not), and its bytes. Neighbours are merged, so that memory which a
guest touched in order, and got frames for in order, is one piece.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine.native import compiled, load64, store64
from emu.vm import access, pmap

PIECES = 1024  # in the array between native code and Python: as many as the host takes in one call
ZEROS, ONES, ASIDE, NO_FRAME = -1, -2, -3, -4  # in place of a piece's address
# ZEROS, ONES: untouched and absent memory, to be read. ASIDE: a page whose stores somebody must follow, or nobody takes.


@compiled
def place_to_load(cb: object, pa: int) -> int:
    """Where in machine memory a byte is to be read."""
    slot = pmap.slot_of(cb, pa >> 12)
    pmap.touch(cb, slot)
    if not pmap.is_at_hand(cb, slot):
        return NO_FRAME
    at = pmap.address_to_read(cb, pa)
    if at == pmap.READS_ZERO:
        return ZEROS
    return ONES if at == pmap.READS_ONES else at - cb[cbw.MEMORY]


@compiled
def place_to_store(cb: object, pa: int) -> int:
    """Where in machine memory a byte is to be stored: its page has a frame now, and no translated code."""
    slot = pmap.slot_of(cb, pa >> 12)
    if access.must_follow(cb, slot):
        return ASIDE
    at = access.place_to_store(cb, pa)
    if at == -1:
        return NO_FRAME
    return ASIDE if at == access.NOWHERE else at - cb[cbw.MEMORY]


@compiled
def add_piece(pieces: int, count: int, place: int, size: int) -> int:
    """Append a piece, or lengthen the last one; how many there are."""
    last = pieces + 16 * (count - 1)
    if place >= 0 and count and load64(last) >= 0 and load64(last) + load64(last + 8) == place:
        store64(last + 8, load64(last + 8) + size)
        return count
    store64(pieces + 16 * count, place)
    store64(pieces + 16 * count + 8, size)
    return count + 1


@compiled
def find_pieces(cb: object, pa: int, size: int, pieces: int, stores: int) -> int:
    """Fill the array at `pieces` from the start of an extent on, as far as it has room and there are frames; how many it holds."""
    count = 0
    done = 0
    while done < size and count < PIECES:
        at = pa + done
        place = place_to_store(cb, at) if stores else place_to_load(cb, at)
        if place == NO_FRAME:
            break
        part = min(size - done, 0x1000 - (at & 0xFFF))
        count = add_piece(pieces, count, place, part)
        done += part
    return count
