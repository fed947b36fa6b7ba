"""How many pages refer to each shared frame: 16 bits in the frame table, and for the few with more a row in an overflow table (Waldspurger 2002, section 4.3).

A count at SATURATION stands for what the frame's row says. Rows are few, one for 65535 pages at the least, and are searched one after the other.
"""

from __future__ import annotations

from emu.machine.memory import FRAME
from emu.machine.native import compiled, load16, load64, store16, store64
from emu.resources import content

_FRAME_BYTES = FRAME.itemsize
_REFERENCES = FRAME.fields["references"][1] if FRAME.fields else 0
ROW_BYTES = 16  # MPN, count


@compiled
def row_of(ct: object, mpn: int) -> int:
    """Host address of a frame's row in the overflow table, 0 if it has none."""
    for row in range(ct[content.OVERFLOWED]):
        at = ct[content.OVERFLOW] + ROW_BYTES * row
        if load64(at) == mpn:
            return at
    return 0


@compiled
def count(ct: object, mpn: int) -> int:
    """Pages that refer to a shared frame."""
    short = load16(ct[content.FRAMES] + _FRAME_BYTES * mpn + _REFERENCES)
    return short if short < ct[content.SATURATION] else load64(row_of(ct, mpn) + 8)


@compiled
def can_add(ct: object, mpn: int) -> bool:
    """Whether another page may refer to a frame: unless it would need a row, and there is none left."""
    if count(ct, mpn) + 1 < ct[content.SATURATION] or row_of(ct, mpn):
        return True
    return ct[content.OVERFLOWED] < ct[content.OVERFLOW_ROWS]


@compiled
def _leave(ct: object, at: int) -> None:
    """Free a row: the last one takes its place."""
    ct[content.OVERFLOWED] -= 1
    last = ct[content.OVERFLOW] + ROW_BYTES * ct[content.OVERFLOWED]
    store64(at, load64(last))
    store64(at + 8, load64(last + 8))


@compiled
def put(ct: object, mpn: int, references: int) -> None:
    """Set a frame's count, one more than it was only if `can_add`."""
    at = row_of(ct, mpn)
    if references >= ct[content.SATURATION]:
        if at == 0:
            at = ct[content.OVERFLOW] + ROW_BYTES * ct[content.OVERFLOWED]
            ct[content.OVERFLOWED] += 1
            store64(at, mpn)
        store64(at + 8, references)
    elif at:
        _leave(ct, at)
    store16(ct[content.FRAMES] + _FRAME_BYTES * mpn + _REFERENCES, min(references, ct[content.SATURATION]))


@compiled
def drop(ct: object, mpn: int) -> int:
    """One page less refers to a frame; how many still do."""
    left = count(ct, mpn) - 1
    put(ct, mpn, left)
    return left
