"""The content table of page sharing: frames by the hash of what they hold (Waldspurger 2002, section 4.1).

A listed frame is *shared* (the frame table has it as SHARED, with the number of pages that refer to it) or a *hint*: a page of a VM that had
this hash when it was scanned, and may have been written since. Shared frames are read-only, so their hash is right for ever; a hint is hashed
again when it is found, and dropped if it is stale. Equal hashes are never trusted: contents are compared in full.

Sixteen bytes a frame: head of a chain of frames (a bucket for each frame), next of the chain, hash. A frame that was freed stays listed until
somebody meets it; what the frame table says of it then tells that it is no hint any more.

Here is what runs natively; `emu.resources.content_table` has the arrays.
"""

from __future__ import annotations

from typing import Any

from emu.machine.memory import FRAME, FrameUse
from emu.machine.native import call2_wide, call3, compiled, load8, load16, load32, load64, prefetch, store32, store64
from emu.units import PAGE_BYTES

# Words of the table's control array.
MEMORY, FRAMES, HEADS, NEXT, HASHES, BUCKETS, HASH_FN, COMPARE_FN, HASH_MASK = range(9)
OVERFLOW, OVERFLOWED, OVERFLOW_ROWS, SATURATION = range(9, 13)  # of reference counts (`emu.resources.references`)
COUNTS, COUNTED_VMS = 13, 14  # host address of int64[COUNTED_VMS][COUNT_WORDS], by VM number; row 0 for what is no VM's
WORDS = 16
SCANNED, HINTS_MADE, HINTS_MATCHED, SHARED_MATCHED, STALE_HINTS, FALSE_MATCHES = range(6)  # pages of a VM
COUNT_WORDS = 8
AHEAD = 32  # pages that are hashed before the first of them is looked up
NOT_LISTED, END = 0, -1
NONE = -1

_FRAME_BYTES = FRAME.itemsize
_USE, _OWNER = (FRAME.fields[name][1] if FRAME.fields else 0 for name in ("use", "owner"))
_GUEST, _SHARED = int(FrameUse.GUEST), int(FrameUse.SHARED)


@compiled
def hash_of(ct: object, mpn: int) -> int:
    """The hash of a frame's contents."""
    return call2_wide(ct[HASH_FN], ct[MEMORY] + (mpn << 12), PAGE_BYTES) & ct[HASH_MASK]


@compiled
def are_equal(ct: object, one: int, other: int) -> bool:
    """Whether two frames hold the same bytes."""
    return call3(ct[COMPARE_FN], ct[MEMORY] + (one << 12), ct[MEMORY] + (other << 12), PAGE_BYTES) == 0


@compiled
def use_of(ct: object, mpn: int) -> int:
    """What the frame table says that a frame serves for."""
    return load8(ct[FRAMES] + _FRAME_BYTES * mpn + _USE)


@compiled
def note(ct: object, mpn: int, what: int) -> None:
    """Count something for the VM that has a frame."""
    owner = load16(ct[FRAMES] + _FRAME_BYTES * mpn + _OWNER)
    at = ct[COUNTS] + 8 * (COUNT_WORDS * (owner if owner < ct[COUNTED_VMS] else 0) + what)
    store64(at, load64(at) + 1)


@compiled
def link(ct: object, mpn: int) -> int:
    """Host address of a frame's place in its chain."""
    return ct[NEXT] + 4 * mpn


@compiled
def signed32(value: int) -> int:
    """A 32-bit word with its sign."""
    return (value ^ 1 << 31) - (1 << 31)


@compiled
def head_of(ct: object, code: int) -> int:
    """Host address of the first place of the chain of a hash."""
    return ct[HEADS] + 4 * ((code >> 1 & (1 << 62) - 1) % ct[BUCKETS])


@compiled
def insert(ct: object, mpn: int, code: int) -> None:
    """List a frame that is not listed."""
    head = head_of(ct, code)
    first = load32(head)
    store64(ct[HASHES] + 8 * mpn, code)
    store32(link(ct, mpn), first if first else END)
    store32(head, mpn + 1)


@compiled
def remove(ct: object, mpn: int) -> None:
    """Take a frame out of its chain, if it is in one."""
    after = signed32(load32(link(ct, mpn)))
    if after == NOT_LISTED:
        return
    at = head_of(ct, load64(ct[HASHES] + 8 * mpn))
    while signed32(load32(at)) != mpn + 1:
        at = link(ct, signed32(load32(at)) - 1)
    is_last = after == END
    if at >= ct[HEADS] and at < ct[HEADS] + 4 * ct[BUCKETS]:
        store32(at, 0 if is_last else after)
    else:
        store32(at, END if is_last else after)
    store32(link(ct, mpn), NOT_LISTED)


@compiled
def find(ct: object, mpn: int, code: int) -> int:
    """A listed frame with the contents of `mpn`, whose hash is `code`; NONE if there is none. Stale hints on the way are dropped."""
    entry = signed32(load32(head_of(ct, code))) - 1
    while entry >= 0:
        following = signed32(load32(link(ct, entry))) - 1
        if entry != mpn and load64(ct[HASHES] + 8 * entry) == code:
            use = use_of(ct, entry)
            if use != _SHARED and (use != _GUEST or hash_of(ct, entry) != code):
                remove(ct, entry)
                note(ct, entry, STALE_HINTS)
            elif are_equal(ct, mpn, entry):
                note(ct, mpn, SHARED_MATCHED if use == _SHARED else HINTS_MATCHED)
                return entry
            else:
                note(ct, mpn, FALSE_MATCHES)
        entry = following
    return NONE


@compiled
def hash_ahead(ct: object, mpn: int) -> int:
    """The hash of a frame that will be looked up soon; its chain is fetched meanwhile."""
    code = hash_of(ct, mpn)
    prefetch(head_of(ct, code))
    return code


@compiled
def look_up(ct: object, mpn: int, code: int) -> int:
    """One page of the scan, whose hash is `code`: a frame with the same contents, else NONE, and the page is a hint from now on."""
    note(ct, mpn, SCANNED)
    match = find(ct, mpn, code)
    if match != NONE:
        return match
    if load32(link(ct, mpn)) != NOT_LISTED:
        if load64(ct[HASHES] + 8 * mpn) == code:
            return NONE
        remove(ct, mpn)
    insert(ct, mpn, code)
    note(ct, mpn, HINTS_MADE)
    return NONE


@compiled
def scan(ct: object, candidates: Any, codes: Any, results: Any) -> None:
    """`look_up` of each of an array of MPNs, whose hashes go to `codes`; all int64, of one length."""
    for first in range(0, len(candidates), AHEAD):
        last = min(first + AHEAD, len(candidates))
        for number in range(first, last):
            codes[number] = hash_ahead(ct, candidates[number])
        for number in range(first, last):
            results[number] = look_up(ct, candidates[number], codes[number])
