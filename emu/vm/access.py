"""The VMM's own loads and stores in guest memory: event delivery, instruction fetches for decoding, devices.

They obey the guest's page tables (virtual addresses) or the pmap (physical ones), and tell whoever mirrors the memory:
a store to a guest page table updates its shadow, one to a page of code drops the translated code.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.machine.native import call3, compiled, load8, load16, load32, load64, store8, store32, store64
from emu.vm import code, cow, pmap, rows, sync, walk

OK = -1  # no fault
ONES8 = 0xFF
MAX_INSN = 15  # bytes
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
    if pmap.frame_of(cb, slot) < 0 or not cow.make_writable(cb, slot, cow.BY_DEVICE):
        return -1
    if not pmap.is_writable_state(pmap.entry(cb, slot)):
        return NOWHERE
    code.before_host_store(cb, slot)
    return pmap.frame_address(cb, pmap.entry(cb, slot) & pmap.MPN_MASK) + (pa & 0xFFF)


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
    slot, page = pmap.slot_of(cb, pa >> 12), at - (pa & 0xFFF)
    follow = must_follow(cb, slot)
    if follow:
        sync.copy_page(page, cb[cbw.CODE_COPY])
    if size == 8:
        store64(at, value)
    elif size == 4:
        store32(at, value)
    else:
        for byte in range(size):
            store8(at + byte, value >> 8 * byte & 0xFF)
    if follow:
        sync.page_changed(cb, slot, cb[cbw.CODE_COPY], pa & ~0xFFF)
    return True


@compiled
def load_block(cb: object, pa: int, target: int, size: int) -> int:
    """Copy guest-physical memory to a host address, as a device reads it; bytes done, fewer without a frame for a SWAPPED page."""
    for number in range(size):
        if (number == 0 or pa + number & 0xFFF == 0) and not pmap.is_at_hand(cb, pmap.slot_of(cb, pa + number >> 12)):
            return number
        store8(target + number, load_byte(cb, pa + number))
    return size


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
def load_within_page(cb: object, pa: int, size: int) -> int:
    """1, 2, 4 or 8 bytes of guest-physical memory that lie in one page."""
    at = pmap.address_to_read(cb, pa)
    if at == pmap.READS_ZERO:
        return 0
    if at == pmap.READS_ONES:
        return -1 if size == 8 else (1 << 8 * size) - 1
    return load64(at) if size == 8 else load32(at) if size == 4 else load16(at) if size == 2 else load8(at)


@compiled
def linear_load(cb: object, va: int, size: int, kind: int) -> tuple[int, int]:
    """(fault, value) of a load of 1, 2, 4 or 8 bytes at a linear address; `kind` as for a walk, `fault` OK or what the walk found."""
    mask = env.system_mask(cb[cbw.ENV])
    value = 0
    done = 0
    while done < size:
        at = va + done & mask
        fault, ppn, _access, _size = walk.walk(cb, at, kind, True)
        if fault != walk.NO_FAULT:
            cb[cbw.EXIT_INFO] = at
            return fault, 0
        pa = ppn << 12 | at & 0xFFF
        if size <= 0x1000 - (at & 0xFFF) and done == 0:
            return OK, load_within_page(cb, pa, size)
        part = min(size - done, 0x1000 - (at & 0xFFF))
        for byte in range(part):
            value |= load_byte(cb, pa + byte) << 8 * (done + byte)
        done += part
    return OK, value


@compiled
def plain_place(cb: object, va: int, kind: int) -> tuple[int, int]:
    """(fault, host address) for stores at a linear address and behind it in its page; NOWHERE where each has to be seen to."""
    at = va & env.system_mask(cb[cbw.ENV])
    fault, ppn, _access, _size = walk.walk(cb, at, kind | pg.FAULT_WRITE, True)
    if fault != walk.NO_FAULT:
        cb[cbw.EXIT_INFO] = at
        return fault, NOWHERE
    slot = pmap.slot_of(cb, ppn)
    word = pmap.entry(cb, slot)
    if pmap.state(word) != pmap.PRESENT_PAGE or word & pmap.EXECUTED or pmap.is_awaited(cb, slot) or must_follow(cb, slot):
        return OK, NOWHERE
    return OK, pmap.frame_address(cb, word & pmap.MPN_MASK) + (at & 0xFFF)


@compiled
def linear_store(cb: object, va: int, size: int, value: int, kind: int) -> int:
    """Store at a linear address (checked whole before a byte is written); OK or what the walk found."""
    mask = env.system_mask(cb[cbw.ENV])
    first, last = va & mask, va + size - 1 & mask
    fault, ppn, _access, _size = walk.walk(cb, first, kind | pg.FAULT_WRITE, True)
    if fault != walk.NO_FAULT:
        cb[cbw.EXIT_INFO] = first
        return fault
    if (first ^ last) & ~0xFFF == 0:
        store_bytes(cb, ppn << 12 | first & 0xFFF, size, value)
        return OK
    fault, ppn_last, _access, _size = walk.walk(cb, last, kind | pg.FAULT_WRITE, True)
    if fault != walk.NO_FAULT:
        cb[cbw.EXIT_INFO] = last & ~0xFFF
        return fault
    for byte in range(size):
        at = first + byte & mask
        page = ppn if (at ^ first) & ~0xFFF == 0 else ppn_last
        store_bytes(cb, page << 12 | at & 0xFFF, 1, value >> 8 * byte & 0xFF)
    return OK


# Where code was fetched from lately: as good as the block table's entries are (`emu.vm.clock`), and under the same tag. An entry is
# three words: page of the linear address, tag, host address of the page.
CODE_PAGES = 64
CODE_PAGE_BYTES = 24


@compiled
def code_page_entry(cb: object, page: int) -> int:
    """Host address of the entry for the code page of a linear address."""
    return cb[cbw.CODE_PAGES] + (page >> 12 & CODE_PAGES - 1) * CODE_PAGE_BYTES


@compiled
def is_known_code(cb: object, va: int) -> bool:
    """Whether the page at a linear address is among those that code was fetched from lately: EXECUTED then, and not MIXED."""
    page = va & env.linear_mask(cb[cbw.ENV]) & ~0xFFF
    at = code_page_entry(cb, page)
    return load64(at) == page and load64(at + 8) == code.tag(cb)


@compiled
def page_pointer(cb: object, va: int) -> int:
    """Host address of the byte of code at a linear address, by the guest's tables, for reading within its page; 0 if none."""
    page = va & env.linear_mask(cb[cbw.ENV]) & ~0xFFF
    at = code_page_entry(cb, page)
    if load64(at) == page and load64(at + 8) == code.tag(cb):
        return load64(at + 16) + (va & 0xFFF)
    fault, ppn = walk.peek(cb, page)
    if fault != walk.NO_FAULT:
        return 0
    word = pmap.entry(cb, pmap.slot_of(cb, ppn))
    if not pmap.has_frame(word) or pmap.state(word) == pmap.DEVICE:
        return 0
    pointer = pmap.frame_address(cb, word & pmap.MPN_MASK)
    if word & pmap.EXECUTED and not word & pmap.MIXED and not cb[cbw.NESTED_PLAIN]:  # there a CR3 may come back with other tables
        store64(at, page)
        store64(at + 8, code.tag(cb))
        store64(at + 16, pointer)
    return pointer + (va & 0xFFF)


@compiled
def fetch(cb: object, va: int, target: int, size: int) -> int:
    """Copy up to `size` bytes of code at a linear address to a host address; how many could be read."""
    done = 0
    while done < size:
        pointer = page_pointer(cb, va + done)
        if pointer == 0:
            return done
        part = min(size - done, 0x1000 - (va + done & 0xFFF))
        call3(cb[cbw.FN_COPY], target + done, pointer, part)
        done += part
    return size


@compiled
def fetch_instruction(cb: object) -> None:
    """Copy the instruction bytes at RIP to INSN_AT."""
    regs = cb[cbw.ENV]
    cb[cbw.EVENT_RIP] = load64(regs + env.EIP)
    cb[cbw.INSN_BYTES] = fetch(cb, env.linear_ip(regs), cb[cbw.INSN_AT], MAX_INSN)
