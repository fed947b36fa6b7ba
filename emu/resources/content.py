"""The content table of page sharing: frames by the hash of what they hold (Waldspurger 2002, section 4.1).

A listed frame is *shared* (the frame table has it as SHARED, with the number of pages that refer to it) or a *hint*: a page of a VM that had
this hash when it was scanned, and may have been written since. Shared frames are read-only, so their hash is right for ever; a hint is hashed
again when it is found, and dropped if it is stale. Equal hashes are never trusted: contents are compared in full.

Since they are compared anyway, the hash need not see all of a page: most pages differ in almost any two of their 64 cache lines, and reading all of each
would be all that a scan does. A page's *code* is the hash (XXH3) of two lines; that of the whole page where those lines are uniform (pages that are almost
empty), or where CROWD others have the same ones.

Sixteen bytes a frame: head of a chain of frames (a bucket for each frame), next of the chain, code. A frame that was freed stays listed until
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
LINE_HASH_FN = 15  # the same as HASH_FN, for few bytes
COUNTS, COUNTED_VMS = 13, 14  # host address of int64[COUNTED_VMS][COUNT_WORDS], by VM number; row 0 for what is no VM's
WORDS = 16
SCANNED, HINTS_MADE, HINTS_MATCHED, SHARED_MATCHED, STALE_HINTS, FALSE_MATCHES = range(6)  # pages of a VM
COUNT_WORDS = 8
AHEAD = 32  # pages that are hashed before the first of them is looked up
NOT_LISTED, END = 0, -1
NONE, CROWDED = -1, -2

# What a code is made of: two cache lines of the page, or all of it (bit 0 set).
ONE, OTHER, LINE = 0x200, 0xA40, 64
ODD = 0x9E3779B97F4A7C15 - (1 << 64)  # 2**64 over the golden ratio: the lines are not exchangeable
WHOLE = 1
CROWD = 8  # frames with the same samples and other contents, after which samples are not looked at any more

_FRAME_BYTES = FRAME.itemsize
_USE, _OWNER = (FRAME.fields[name][1] if FRAME.fields else 0 for name in ("use", "owner"))
_GUEST, _SHARED = int(FrameUse.GUEST), int(FrameUse.SHARED)


@compiled
def are_samples_uniform(at: int) -> bool:
    """Whether the samples of the page at a host address are one word over and over: they tell nothing of a page that is almost empty."""
    first = load64(at + ONE)
    differs = 0
    for offset in range(0, LINE, 8):
        differs |= (load64(at + ONE + offset) ^ first) | (load64(at + OTHER + offset) ^ first)
    return differs == 0


@compiled
def whole_code(ct: object, mpn: int) -> int:
    """A frame's code by all that it holds."""
    return call2_wide(ct[HASH_FN], ct[MEMORY] + (mpn << 12), PAGE_BYTES) & ct[HASH_MASK] | WHOLE


@compiled
def code_of(ct: object, mpn: int) -> int:
    """A frame's code by its samples, if these tell something."""
    at = ct[MEMORY] + (mpn << 12)
    if are_samples_uniform(at):
        return whole_code(ct, mpn)
    return (
        (call2_wide(ct[LINE_HASH_FN], at + ONE, LINE) ^ call2_wide(ct[LINE_HASH_FN], at + OTHER, LINE) * ODD)
        & ct[HASH_MASK]
        & ~WHOLE
    )


@compiled
def has_code(ct: object, mpn: int, code: int) -> bool:
    """Whether a frame holds what has this code."""
    return (whole_code(ct, mpn) if code & WHOLE else code_of(ct, mpn)) == code


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
    """Host address of the first place of the chain of a code: its upper half, scaled to the number of buckets."""
    return ct[HEADS] + 4 * ((code >> 32 & 0xFFFF_FFFF) * ct[BUCKETS] >> 32)


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
    """A listed frame with the contents of `mpn`, whose code is `code`; NONE if there is none. Stale hints on the way are dropped.

    CROWDED: there are so many with the same samples and other contents that the rest is listed by all that it holds.
    """
    entry = signed32(load32(head_of(ct, code))) - 1
    others = 0
    while entry >= 0:
        following = signed32(load32(link(ct, entry))) - 1
        if entry != mpn and load64(ct[HASHES] + 8 * entry) == code:
            use = use_of(ct, entry)
            if use != _SHARED and (use != _GUEST or not has_code(ct, entry, code)):
                note(ct, entry, STALE_HINTS)
                remove(ct, entry)
            elif are_equal(ct, mpn, entry):
                note(ct, mpn, SHARED_MATCHED if use == _SHARED else HINTS_MATCHED)
                return entry
            else:
                note(ct, mpn, FALSE_MATCHES)
                others += 1
                if others == CROWD and not code & WHOLE:
                    return CROWDED
        entry = following
    return NONE


@compiled
def fetch_ahead(ct: object, mpn: int) -> None:
    """Have a frame's samples fetched."""
    at = ct[MEMORY] + (mpn << 12)
    prefetch(at + ONE)
    prefetch(at + OTHER)


@compiled
def hash_ahead(ct: object, mpn: int) -> int:
    """The code of a frame that will be looked up soon; its chain is fetched meanwhile."""
    code = code_of(ct, mpn)
    prefetch(head_of(ct, code))
    return code


@compiled
def look_up(ct: object, mpn: int, code: int) -> int:
    """One page of the scan, whose code is `code`: a frame with the same contents, else NONE, and the page is a hint from now on."""
    note(ct, mpn, SCANNED)
    match = find(ct, mpn, code)
    if match == CROWDED:
        code = whole_code(ct, mpn)
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
    """`look_up` of each of an array of MPNs, whose codes go to `codes`; all int64, of one length."""
    for first in range(0, len(candidates), AHEAD):
        last = min(first + AHEAD, len(candidates))
        for number in range(first, last):
            if number + AHEAD < len(candidates):
                fetch_ahead(ct, candidates[number + AHEAD])
            codes[number] = hash_ahead(ct, candidates[number])
        for number in range(first, last):
            results[number] = look_up(ct, candidates[number], codes[number])
