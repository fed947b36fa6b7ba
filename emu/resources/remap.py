"""Giving pages a shared frame, natively: look up, make the first one shared, remap (`emu.resources.sharing` has the service)."""

from __future__ import annotations

from typing import Any

from emu.machine import control as cbw
from emu.machine.memory import FRAME, SHARED_OWNER, FrameUse
from emu.machine.native import as_words, compiled, load16, load32, store8, store16, store32, types
from emu.resources import content, references
from emu.vm import cow, pmap

_FRAME_BYTES = FRAME.itemsize
_OWNER, _USE, _PPN = (FRAME.fields[name][1] if FRAME.fields else 0 for name in ("owner", "use", "ppn"))
_SHARED = int(FrameUse.SHARED)


@compiled
def make_shared(ct: object, vms: Any, mpn: int) -> bool:
    """Let the page of a hint be the first that refers to its frame, which is the machine's from now on; false if it cannot be."""
    record = ct[content.FRAMES] + _FRAME_BYTES * mpn
    owner = load16(record + _OWNER)
    if owner >= len(vms) or vms[owner] == 0:
        return False
    cb = as_words(vms[owner], cbw.WORDS)
    slot = load32(record + _PPN)
    if not cow.can_be_shared(cb, slot) or pmap.entry(cb, slot) & pmap.MPN_MASK != mpn:
        return False
    cow.share(cb, slot, mpn)
    store16(record + _OWNER, SHARED_OWNER)
    store8(record + _USE, _SHARED)
    store32(record + _PPN, 0)
    references.put(ct, mpn, 1)
    return True


@compiled
def share_page(ct: object, vms: Any, vm: int, slot: int, code: int) -> int:
    """Scan one page of a VM, whose hash is `code`, and share it if another holds the same: the frame that it does not need any more, else -1."""
    cb = as_words(vms[vm], cbw.WORDS)
    if not cow.can_be_shared(cb, slot):
        return -1
    own = pmap.entry(cb, slot) & pmap.MPN_MASK
    match = content.look_up(ct, own, code)
    if match == content.NONE:
        return -1
    if content.use_of(ct, match) != _SHARED:
        if not make_shared(ct, vms, match):
            return -1
    elif not references.can_add(ct, match):
        return -1
    content.remove(ct, own)
    cow.share(cb, slot, match)
    references.put(ct, match, references.count(ct, match) + 1)
    return own


def compile_for_host() -> None:
    """Compile what only the host's services call, so that it is in the cache with the rest."""
    words = types.Array(types.int64, 1, "C")
    share_pages.compile((words,) * 5)
    frames_of.compile((words,) * 4)
    for function in (content.whole_code, content.remove, references.drop):
        function.compile((words, types.int64))


@compiled
def hash_page(ct: object, vms: Any, vm: int, slot: int) -> int:
    """The hash of a page, if it can be shared."""
    cb = as_words(vms[vm], cbw.WORDS)
    return content.hash_ahead(ct, pmap.entry(cb, slot) & pmap.MPN_MASK) if cow.can_be_shared(cb, slot) else 0


@compiled
def fetch_page(ct: object, vms: Any, vm: int, slot: int) -> None:
    """Have what the hash of a page will read fetched."""
    content.fetch_ahead(ct, pmap.entry(as_words(vms[vm], cbw.WORDS), slot) & pmap.MPN_MASK)


@compiled
def frames_of(vms: Any, numbers: Any, slots: Any, frames: Any) -> None:
    """The pmap's MPN for each page (VM number, slot), 0 for those of VMs that are not there. All int64, of one length."""
    for at in range(len(numbers)):
        block = vms[numbers[at]] if numbers[at] < len(vms) else 0
        frames[at] = pmap.entry(as_words(block, cbw.WORDS), slots[at]) & pmap.MPN_MASK if block else 0


@compiled
def share_pages(ct: object, vms: Any, numbers: Any, slots: Any, freed: Any) -> int:
    """`share_page` of each of the pages (VM number, slot); the frames that are free now, and how many. All int64, of one length.

    Pages are hashed some at a time, whose contents nobody changes meanwhile; `freed` keeps the hashes until there are frames to put there.
    """
    count = 0
    for first in range(0, len(numbers), content.AHEAD):
        last = min(first + content.AHEAD, len(numbers))
        for at in range(first, last):
            if at + content.AHEAD < len(numbers):
                fetch_page(ct, vms, numbers[at + content.AHEAD], slots[at + content.AHEAD])
            freed[at] = hash_page(ct, vms, numbers[at], slots[at])
        for at in range(first, last):
            mpn = share_page(ct, vms, numbers[at], slots[at], freed[at])
            if mpn >= 0:
                freed[count] = mpn
                count += 1
    return count
