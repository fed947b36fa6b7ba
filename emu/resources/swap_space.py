"""Room in a swap area: slots of a page, and pieces of slots for pages that were compressed.

A slot is whole, or cut into pieces of one size (a number of units of 512 bytes, as many as fit); it is cut when a piece of that size is wanted and none is
free, and whole again when its last piece is given back. So N slots always take N pages, whatever their sizes.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from emu.errors import BrokenInvariantError
from emu.units import PAGE_BYTES

UNIT_BYTES = 512
UNITS = PAGE_BYTES // UNIT_BYTES  # of a slot
FULL = -1


class SwapSpace:
    """`slots` of them; places are numbers of units from the area's beginning."""

    WIRING: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._free = list(range(slots - 1, -1, -1))  # a stack: low ones go first
        self._pieces: dict[int, dict[int, None]] = {units: {} for units in range(1, UNITS)}  # free places by size, oldest first
        self._used: dict[int, int] = {}  # pieces in use of each slot that is cut
        self._size: dict[int, int] = {}  # of the pieces of each

    @property
    def free_slots(self) -> int:
        """Slots that are whole and free."""
        return len(self._free)

    def take(self, size_bytes: int) -> int:
        """A place for so many bytes, a page at the most; FULL if there is none."""
        units = -(-size_bytes // UNIT_BYTES)
        pieces = self._pieces.get(UNITS // (UNITS // units)) if units <= UNITS // 2 else None
        if pieces is None:
            return self._free.pop() * UNITS if self._free else FULL
        units = UNITS // (UNITS // units)
        if not pieces:
            if not self._free:
                return FULL
            slot = self._free.pop()
            pieces.update(dict.fromkeys(slot * UNITS + units * number for number in range(UNITS // units)))
            self._used[slot], self._size[slot] = 0, units
        place = next(iter(pieces))
        del pieces[place]
        self._used[place // UNITS] += 1
        return place

    def give(self, place: int) -> None:
        """A place is free again."""
        slot = place // UNITS
        if slot not in self._used:
            self._free.append(slot)
            return
        units = self._size[slot]
        self._pieces[units][place] = None
        self._used[slot] -= 1
        if not self._used[slot]:
            for number in range(UNITS // units):
                del self._pieces[units][slot * UNITS + units * number]
            del self._used[slot], self._size[slot]
            self._free.append(slot)

    def check(self, places: list[int]) -> None:
        """Assert that these are all that were taken; raises BrokenInvariantError."""
        slots = Counter(place // UNITS for place in places)
        free = set(self._free)
        whole = [slot for slot in slots if slot not in self._used]
        is_right = (
            len(set(places)) == len(places)
            and len(free) == len(self._free)
            and all(slots[slot] == 1 for slot in whole)
            and all(slots[slot] == used > 0 for slot, used in self._used.items())
            and sorted([*free, *whole, *self._used]) == list(range(self.slots))
            and not {place for pieces in self._pieces.values() for place in pieces} & set(places)
        )
        if not is_right:
            raise BrokenInvariantError("swap space: a slot is in use twice, or nobody's")
