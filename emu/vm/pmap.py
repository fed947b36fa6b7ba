"""The pmap: which machine frame holds each page of guest-"physical" memory, and in what state it is.

One 64-bit word a page: MPN in bits 0-31, state in 32-35, then what the VMM knows of the page's use. Pages outside RAM
and ROM all share one *slot* behind those of RAM, the absent page: it reads as ones, and stores to it have no effect, as on a
PC. The registers of the APICs have a slot each behind it, and a frame to stage their values in (`emu.vm.step`).

    UNALLOCATED --first touch--> PRESENT --given to the balloon--> BALLOONED --taken back, or touched--> UNALLOCATED
    PRESENT --same contents elsewhere--> SHARED --store--> PRESENT (`emu.vm.cow`)
    PRESENT --paged out--> SWAPPED --touch--> PRESENT (`emu.vm.swapping`)

Invariants (asserted by `emu.vm.check`):

1. A PRESENT page names a frame that the frame table gives to this VM, for this page, and no two pages name the same.
2. EXECUTED pages that are not MIXED are mapped writable nowhere; pages that are not EXECUTED are mapped NX everywhere.
3. A BALLOONED page has no frame, is mapped nowhere, and BALLOON_PAGES counts it; a SWAPPED one has no frame and is mapped nowhere.
4. A SHARED page names a frame that the frame table gives to the machine, and is mapped writable nowhere.
5. A page whose next access is waited for (`emu.vm.watching`) is mapped nowhere.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine.memory import FRAME, FrameUse
from emu.machine.native import call2, compiled, load8, load64, store8, store16, store32, store64
from emu.vm.record import emit

UNALLOCATED, PRESENT_PAGE, ROM, ABSENT, DEVICE, BALLOONED, SHARED, SWAPPED = 0, 1, 2, 3, 4, 5, 6, 7
STATE_NAMES = ("unallocated", "present", "rom", "absent", "device", "ballooned", "shared", "swapped")
WITHOUT_FRAME = (UNALLOCATED, BALLOONED, SWAPPED)
STATE_SHIFT = 32
STATE_MASK = 0xF
MPN_MASK = 0xFFFF_FFFF
NOT_WATCHED, WAITING, TOUCHED = 0, 1, 2  # of a page whose next access is waited for (`emu.vm.watching`)
READS_ONES, READS_ZERO = 0, -1  # in place of a host address
EXECUTED = 1 << 36  # the engine may hold code translated from the frame
MIXED = 1 << 37  # code and data take turns too often: mapped writable and executable at once
FLIPS_SHIFT = 40  # how often the page changed between code and data since the last `code.settle`
FLIPS_MASK = 0xFF
FLIPS_LIMIT = 16  # a page that flipped so often is MIXED: slow stores beat a flush of translated code at each turn
HIGH_ROM_END = 1 << 20  # the PPN after the ROM's upper copy, which ends at 4 GiB
FIRST_TEXT_PPN, END_TEXT_PPN = 0xB8, 0xC0  # the VGA's text memory, which has frames as RAM has
DEVICE_PPNS = (0xFEE00, 0xFEC00)  # local APIC and I/O APIC; their slots follow the absent page's

_FRAME_BYTES = FRAME.itemsize
_USE = FRAME.fields["use"][1] if FRAME.fields else 0
_PPN = FRAME.fields["ppn"][1] if FRAME.fields else 0
_REFERENCES = FRAME.fields["references"][1] if FRAME.fields else 0
_GUEST = int(FrameUse.GUEST)
_TABLE = int(FrameUse.TABLE)
_RESERVE = int(FrameUse.RESERVE)
_ALLOCATED, _POP, _SWAP_IN = int(Kind.PAGE_ALLOCATED), int(Kind.BALLOON_POP), int(Kind.SWAP_IN)


@compiled
def entry(cb: object, slot: int) -> int:
    """The pmap word of a slot."""
    return load64(cb[cbw.PMAP] + 8 * slot)


@compiled
def set_entry(cb: object, slot: int, word: int) -> None:
    """Replace the pmap word of a slot."""
    store64(cb[cbw.PMAP] + 8 * slot, word)


@compiled
def state(word: int) -> int:
    """The state in a pmap word."""
    return word >> STATE_SHIFT & STATE_MASK


@compiled
def slot_of(cb: object, ppn: int) -> int:
    """The slot of a page number: its own, the ROM's low copy for the upper one, or the absent page."""
    if ppn < 0:
        return cb[cbw.ABSENT]
    if ppn < cb[cbw.ABSENT]:
        if state(entry(cb, ppn)) == ABSENT:
            return cb[cbw.ABSENT]
        return ppn
    rom_pages = cb[cbw.ROM_PAGES]
    if HIGH_ROM_END - rom_pages <= ppn < HIGH_ROM_END:
        return cb[cbw.ROM_FIRST] + ppn - (HIGH_ROM_END - rom_pages)
    for number in range(len(DEVICE_PPNS)):
        slot = cb[cbw.ABSENT] + 1 + number
        if ppn == DEVICE_PPNS[number] and state(entry(cb, slot)) == DEVICE:
            return slot
    return cb[cbw.ABSENT]


@compiled
def ppn_of(cb: object, slot: int) -> int:
    """The page number of a slot, for events; -1 for the absent page, which has any number that no other page has."""
    if slot < cb[cbw.ABSENT]:
        return slot
    return -1 if slot == cb[cbw.ABSENT] else DEVICE_PPNS[slot - cb[cbw.ABSENT] - 1]


@compiled
def take_frame(cb: object, use: int, ppn: int) -> int:
    """A zeroed frame from the VM's reserve, marked in the frame table; -1 when the reserve is empty."""
    left = cb[cbw.RESERVE_COUNT] - 1
    if left < 0:
        return -1
    cb[cbw.RESERVE_COUNT] = left
    mpn = load64(cb[cbw.RESERVE] + 8 * left)
    record = cb[cbw.FRAMES] + _FRAME_BYTES * mpn
    store8(record + _USE, use)
    store32(record + _PPN, ppn)
    store16(record + _REFERENCES, 1)
    return mpn


@compiled
def pop(cb: object, slot: int) -> None:
    """The guest touches a page that it gave away: memory again, and its driver will be told to begin anew."""
    set_entry(cb, slot, UNALLOCATED << STATE_SHIFT)
    cb[cbw.BALLOON_PAGES] -= 1
    cb[cbw.BALLOON_POPPED] = 1
    emit(cb, _POP, 0, slot << 12, slot, -1, 0, 0)


@compiled
def has_frame(word: int) -> bool:
    """Whether the page of a pmap word has a frame now."""
    return state(word) != UNALLOCATED and state(word) != BALLOONED and state(word) != SWAPPED


@compiled
def swap_in(cb: object, slot: int) -> int:
    """Fetch a SWAPPED page; its MPN, -1 when the reserve is empty or the swap area failed (SWAP_FAILED)."""
    mpn = take_frame(cb, _GUEST, slot)
    if mpn < 0:
        return -1
    if call2(cb[cbw.SWAP_IN_FN], slot, mpn) != 0:
        cb[cbw.SWAP_FAILED] = 1
        store8(cb[cbw.FRAMES] + _FRAME_BYTES * mpn + _USE, _RESERVE)
        cb[cbw.RESERVE_COUNT] += 1  # it still lies at the end
        return -1
    set_entry(cb, slot, mpn | PRESENT_PAGE << STATE_SHIFT)
    emit(cb, _SWAP_IN, 0, slot << 12, slot, mpn, 0, 0)
    return mpn


@compiled
def is_awaited(cb: object, slot: int) -> bool:
    """Whether nothing may map the page, because its next access is waited for."""
    return load8(cb[cbw.WATCHED] + slot) == WAITING


@compiled
def touch(cb: object, slot: int) -> None:
    """The guest or a device accesses the page."""
    if is_awaited(cb, slot):
        store8(cb[cbw.WATCHED] + slot, TOUCHED)


@compiled
def frame_of(cb: object, slot: int) -> int:
    """The MPN behind a slot, allocated now if nothing ever touched the page, read in if it is swapped; -1 without a frame for it."""
    touch(cb, slot)
    word = entry(cb, slot)
    if state(word) == SWAPPED:
        return swap_in(cb, slot)
    if state(word) == BALLOONED:
        pop(cb, slot)
    elif state(word) != UNALLOCATED:
        return word & MPN_MASK
    mpn = take_frame(cb, _GUEST, slot)
    if mpn >= 0:
        set_entry(cb, slot, mpn | PRESENT_PAGE << STATE_SHIFT)
        emit(cb, _ALLOCATED, 0, slot << 12, slot, mpn, 0, 0)
    return mpn


@compiled
def take_table_frame(cb: object) -> int:
    """A zeroed frame for a shadow or nested table; -1 when the reserve is empty."""
    return take_frame(cb, _TABLE, 0)


@compiled
def frame_address(cb: object, mpn: int) -> int:
    """Host address of a frame."""
    return cb[cbw.MEMORY] + (mpn << 12)


@compiled
def is_at_hand(cb: object, slot: int) -> bool:
    """Whether a page can be read now: a SWAPPED one is fetched, for which there must be a frame (a swap area that failed has ended the VM)."""
    if state(entry(cb, slot)) != SWAPPED or cb[cbw.IS_LOOKING]:
        return True
    return swap_in(cb, slot) >= 0 or cb[cbw.SWAP_FAILED] != 0


@compiled
def address_to_read(cb: object, pa: int) -> int:
    """Host address of a byte of guest-physical memory; READS_ONES where there is no memory, READS_ZERO for untouched RAM."""
    slot = slot_of(cb, pa >> 12)
    word = entry(cb, slot)
    if state(word) == ABSENT or state(word) == DEVICE:
        return READS_ONES
    if state(word) == BALLOONED and not cb[cbw.IS_LOOKING]:
        pop(cb, slot)
    if state(word) == SWAPPED and not cb[cbw.IS_LOOKING]:
        mpn = swap_in(cb, slot)
        return READS_ZERO if mpn < 0 else frame_address(cb, mpn) + (pa & 0xFFF)
    if not has_frame(word):
        return READS_ZERO
    return frame_address(cb, word & MPN_MASK) + (pa & 0xFFF)


@compiled
def is_writable_state(word: int) -> bool:
    """Whether stores to the page have effect."""
    return state(word) == PRESENT_PAGE


@compiled
def counted_flip(word: int) -> int:
    """The pmap word after one more change between code and data; MIXED from the limit on."""
    flips = word >> FLIPS_SHIFT & FLIPS_MASK
    if flips >= FLIPS_LIMIT:
        return word | MIXED
    return word + (1 << FLIPS_SHIFT)
