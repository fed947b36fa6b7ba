"""The VMM's own loads and stores in guest memory: event delivery, instruction fetches for decoding, devices.

They obey the guest's page tables (virtual addresses) or the pmap (physical ones), and tell whoever mirrors the memory:
a store to a guest page table updates its shadow, one to a page of code drops the translated code.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine.native import compiled, load8, load32, store8
from emu.vm import code, pmap, rows, sync, walk

OK = -1  # no fault
ONES8 = 0xFF
NOWHERE = 0  # no host address: the page takes no stores


@compiled
def load_byte(cb: object, pa: int) -> int:
    """A byte of guest-physical memory; absent memory reads as ones."""
    at = pmap.address_to_read(cb, pa)
    if at == pmap.READS_ZERO:
        return 0
    return ONES8 if at == pmap.READS_ONES else load8(at)


@compiled
def place_to_store(cb: object, pa: int) -> int:
    """Host address for a store of the VMM at `pa`, translated code dropped; NOWHERE if the page takes none, -1 without a frame."""
    slot = pmap.slot_of(cb, pa >> 12)
    mpn = pmap.frame_of(cb, slot)
    if mpn < 0:
        return -1
    if not pmap.is_writable_state(pmap.entry(cb, slot)):
        return NOWHERE
    code.before_host_store(cb, slot)
    return pmap.frame_address(cb, mpn) + (pa & 0xFFF)


@compiled
def must_follow(cb: object, slot: int) -> bool:
    """Whether a store to the page has to be followed in its shadow."""
    return cb[cbw.USE_SHADOW] != 0 and rows.is_traced(cb, slot)


@compiled
def store_bytes(cb: object, pa: int, size: int, value: int) -> bool:
    """Store the low `size` bytes of `value` (within one page); false when a frame is missing."""
    at = place_to_store(cb, pa)
    if at == NOWHERE or at == -1:
        return at == NOWHERE
    slot = pmap.slot_of(cb, pa >> 12)
    if must_follow(cb, slot):
        store_traced(cb, slot, at, pa, size, value)
        return True
    for byte in range(size):
        store8(at + byte, value >> 8 * byte & 0xFF)
    return True


@compiled
def store_traced(cb: object, slot: int, at: int, pa: int, size: int, value: int) -> None:
    """The same into a guest table: each entry that the bytes fall in is compared and followed."""
    first, last = (pa & 0xFFF) >> 2, ((pa & 0xFFF) + size - 1) >> 2
    page = at - (pa & 0xFFF)
    before_first, before_last = load32(page + 4 * first), load32(page + 4 * last)
    for byte in range(size):
        store8(at + byte, value >> 8 * byte & 0xFF)
    if load32(page + 4 * first) != before_first:
        sync.entry_changed(cb, slot, first, before_first, load32(page + 4 * first), pa & ~3)
    if last != first and load32(page + 4 * last) != before_last:
        sync.entry_changed(cb, slot, last, before_last, load32(page + 4 * last), (pa & ~3) + 4)


@compiled
def load_block(cb: object, pa: int, target: int, size: int) -> None:
    """Copy guest-physical memory to a host address, as a device reads it."""
    for number in range(size):
        store8(target + number, load_byte(cb, pa + number))


@compiled
def store_block(cb: object, pa: int, source: int, size: int) -> int:
    """Copy from a host address into guest-physical memory, as a device writes it; bytes done, fewer without a frame."""
    done = 0
    while done < size:
        part = min(size - done, 0x1000 - (pa + done & 0xFFF))
        if not store_in_page(cb, pa + done, source + done, part):
            return done
        done += part
    return size


@compiled
def store_in_page(cb: object, pa: int, source: int, size: int) -> bool:
    """The part of `store_block` that lies in one page; false when a frame is missing."""
    at = place_to_store(cb, pa)
    if at == NOWHERE or at == -1:
        return at == NOWHERE
    slot, page = pmap.slot_of(cb, pa >> 12), at - (pa & 0xFFF)
    follow = must_follow(cb, slot)
    if follow:
        sync.copy_page(page, cb[cbw.CODE_COPY])
    for number in range(size):
        store8(at + number, load8(source + number))
    if follow:
        sync.page_changed(cb, slot, cb[cbw.CODE_COPY], pa & ~0xFFF)
    return True


@compiled
def linear_load(cb: object, va: int, size: int, user: bool) -> tuple[int, int]:
    """(fault, value) of a load at a linear address; `fault` is OK or a page-fault error code."""
    value = 0
    ppn = -1
    for byte in range(size):
        at = va + byte & 0xFFFF_FFFF
        if ppn < 0 or not at & 0xFFF:
            fault, ppn, _access, _large = walk.walk(cb, at, False, user, True)
            if fault != walk.NO_FAULT:
                cb[cbw.EXIT_INFO] = at
                return fault, 0
        value |= load_byte(cb, ppn << 12 | at & 0xFFF) << 8 * byte
    return OK, value


@compiled
def linear_store(cb: object, va: int, size: int, value: int, user: bool) -> int:
    """Store at a linear address (checked whole before a byte is written); OK or a page-fault error code."""
    last = va + size - 1 & 0xFFFF_FFFF
    fault, ppn, _access, _large = walk.walk(cb, va & 0xFFFF_FFFF, True, user, True)
    if fault != walk.NO_FAULT:
        cb[cbw.EXIT_INFO] = va & 0xFFFF_FFFF
        return fault
    if (va ^ last) & ~0xFFF == 0:
        store_bytes(cb, ppn << 12 | va & 0xFFF, size, value)
        return OK
    fault, ppn_last, _access, _large = walk.walk(cb, last, True, user, True)
    if fault != walk.NO_FAULT:
        cb[cbw.EXIT_INFO] = last & ~0xFFF
        return fault
    for byte in range(size):
        at = va + byte & 0xFFFF_FFFF
        page = ppn if (at ^ va) & ~0xFFF == 0 else ppn_last
        store_bytes(cb, page << 12 | at & 0xFFF, 1, value >> 8 * byte & 0xFF)
    return OK


@compiled
def page_pointer(cb: object, va: int) -> int:
    """Host address of the byte at a linear address, by the guest's tables, for reading within its page; 0 if none."""
    fault, ppn, _access, _large = walk.walk(cb, va & 0xFFFF_FFFF, False, False, False)
    if fault != walk.NO_FAULT:
        return 0
    word = pmap.entry(cb, pmap.slot_of(cb, ppn))
    if pmap.state(word) == pmap.UNALLOCATED:
        return 0
    return pmap.frame_address(cb, word & pmap.MPN_MASK) + (va & 0xFFF)


@compiled
def fetch(cb: object, va: int, target: int, size: int) -> int:
    """Copy up to `size` bytes of code at a linear address to a host address; how many could be read."""
    done = 0
    while done < size:
        pointer = page_pointer(cb, va + done)
        if pointer == 0:
            return done
        part = min(size - done, 0x1000 - (va + done & 0xFFF))
        for byte in range(part):
            store8(target + done + byte, load8(pointer + byte))
        done += part
    return size
