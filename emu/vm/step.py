"""One guest instruction carried out under the trap flag, with a page opened that it may not freely store to.

This is how a store to a traced guest table, to ROM or to absent memory is done: the processor itself executes the
instruction, whatever it is (MOV, LOCK CMPXCHG, a string store, a push), and the VMM compares the page before and after.
So no instruction needs an emulator of its own.

A device's registers are reached the same way: the one that the instruction addresses is staged in the frame of the device's slot,
and after a store what lies there goes to the device. Both APICs know 32-bit accesses to aligned registers only (SDM vol. 3,
section 10.4.1); others get the bytes of the aligned word, and zeroes beyond it.

    idle --open_page(), open_device()--> stepping --the #DB exit: finish()--> idle
                              |------another fault of the instruction that the guest must see: finish()--> idle

While stepping no interrupt is injected. At most `LIMIT` pages are open; what a store meets beyond that is untraced.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.machine.decode import MAX_LENGTH, REP, REPNE, all_prefixes
from emu.machine.native import call2, call3, compiled, load8, load32, load64, store32, store64
from emu.vm import access, code, emulate, nested, pmap, rows, shadow, sync, walk
from emu.vm import step_records as rec
from emu.vm.record import emit

_DISCARDED, _DEVICE_READ, _DEVICE_WRITE = int(Kind.DISCARDED_WRITE), int(Kind.DEVICE_READ), int(Kind.DEVICE_WRITE)
DR6_SINGLE_STEP = 1 << 14
KEPT_AT = 32  # behind INSN_AT
MOVS, STOS, INS = 0xA4, 0xAA, 0x6C  # opcodes of the byte forms


@compiled
def begin(cb: object) -> None:
    """Arm the trap flag for the instruction at RIP."""
    at = cb[cbw.ENV] + env.EFLAGS
    cb[cbw.STEP_TRAP] = load64(at) & pg.EFLAGS_TF
    cb[cbw.STEP_TIME] = cb[cbw.INSNS]
    cb[cbw.STEP_START] = load64(cb[cbw.ENV] + env.EIP)
    cb[cbw.STEP_REPEATS] = 1 if is_repeated_store(cb) else 0
    for word in range(2):
        store64(kept_instruction(cb) + 8 * word, load64(cb[cbw.INSN_AT] + 8 * word))
    store64(at, load64(at) | pg.EFLAGS_TF)
    cb[cbw.MODIFIED] = 1


@compiled
def is_repeated_store(cb: object) -> bool:
    """Whether the instruction at RIP is MOVS, STOS or INS with a REP prefix."""
    size = access.fetch(cb, env.linear_ip(cb[cbw.ENV]), cb[cbw.INSN_AT], MAX_LENGTH)
    count, prefixes = all_prefixes(cb[cbw.INSN_AT], size, env.code_bits(cb[cbw.ENV]))
    if count >= size or not prefixes & (REP | REPNE):
        return False
    opcode = load8(cb[cbw.INSN_AT] + count) & ~1  # byte or word
    return opcode == MOVS or opcode == STOS or opcode == INS


@compiled
def kept_instruction(cb: object) -> int:
    """Host address of the bytes of the instruction that is stepped."""
    return cb[cbw.INSN_AT] + KEPT_AT


@compiled
def blame(cb: object) -> None:
    """Events are about the instruction that was stepped, not about the one behind it."""
    cb[cbw.EVENT_RIP] = cb[cbw.STEP_START]
    cb[cbw.INSNS] = cb[cbw.STEP_TIME]
    for word in range(2):
        store64(cb[cbw.INSN_AT] + 8 * word, load64(kept_instruction(cb) + 8 * word))
    cb[cbw.INSN_BYTES] = MAX_LENGTH


@compiled
def retired(cb: object) -> None:
    """Count the instruction that was stepped.

    A repeated store counts once an iteration and, when it leaves, once more: untraced, the engine enters it again for that.
    """
    cb[cbw.INSNS] = cb[cbw.STEP_TIME] + 1
    if cb[cbw.STEP_REPEATS] and load64(cb[cbw.ENV] + env.EIP) != cb[cbw.STEP_START]:
        cb[cbw.INSNS] += 1


@compiled
def entry_for(cb: object, va: int) -> int:
    """Host address of the entry that the engine's MMU uses for an address; in nested mode `va` is a PA."""
    if cb[cbw.SHADOWING]:
        return shadow.find_leaf(cb, va)
    return nested.leaf_address(cb, va >> 12, False)


@compiled
def open_page(cb: object, va: int, slot: int, purpose: int, user: int) -> bool:
    """Open the (already mapped, read-only) page at `va` for the instruction at RIP; false when too many are open."""
    index = cb[cbw.STEPPING]
    if index >= rec.LIMIT:
        return False
    at = entry_for(cb, va)
    record = cb[cbw.STEP_ROWS] + rec.BYTES * index
    page = pmap.frame_address(cb, pmap.entry(cb, slot) & pmap.MPN_MASK)
    mpn = load64(at) >> 12 & (pg.FRAME_MASK >> 12)
    if purpose == rec.DISCARD:
        mpn = load64(cb[cbw.SINKS] + 8 * index)
        sync.copy_page(page, pmap.frame_address(cb, mpn))
    elif purpose == rec.TABLE_STORE:
        sync.copy_page(page, cb[cbw.STEP_COPIES] + (index << 12))
    # Executable as before: the instruction may lie in this very page. (And NX in a plain nested table is deadly.)
    opened = mpn << 12 | pg.PRESENT | pg.WRITABLE | user | (load64(at) & pg.NO_EXECUTE)
    note_opened(cb, record, (slot, at, load64(at), purpose, va, page), opened)
    return True


@compiled
def note_opened(cb: object, record: int, words: tuple[int, int, int, int, int, int], opened: int) -> None:
    """Fill the record of a page and put the entry that opens it."""
    for number in range(len(words)):
        store64(record + 8 * number, words[number])
    store64(words[1], opened)
    if cb[cbw.STEPPING] == 0:
        begin(cb)
    cb[cbw.STEPPING] += 1
    if words[2] & pg.PRESENT and (words[2] ^ opened) & pg.FRAME_MASK:
        cb[cbw.NEEDS_TLB_FLUSH] = 1


@compiled
def open_device(cb: object, address: int, ppn: int, slot: int, write: bool, user: int) -> bool:
    """Stage a device's register for the instruction at RIP; false when no frame can be had or too many pages are open."""
    at = device_entry(cb, address, ppn)
    if at == 0:
        return False
    index = number_of_open(cb, at)
    if index >= 0:  # a load came first, and the same instruction now stores
        store64(cb[cbw.STEP_ROWS] + rec.BYTES * index + rec.PURPOSE, rec.DEVICE_STORE)
        store64(at, load64(at) | pg.WRITABLE)
        return True
    if cb[cbw.STEPPING] >= rec.LIMIT:
        return False
    mpn = pmap.entry(cb, slot) & pmap.MPN_MASK
    page, offset = pmap.frame_address(cb, mpn), address & 0xFFC
    store64(page + (offset & ~7), 0)
    if offset < 0xFF8:
        store64(page + (offset & ~7) + 8, 0)
    value = call2(cb[cbw.DEVICE_READ_FN], slot - cb[cbw.ABSENT] - 1, offset) & walk.ONES32
    store32(page + offset, value)
    emit(cb, _DEVICE_READ, 0, ppn << 12 | offset, -1, -1, 0, value)
    opened = mpn << 12 | pg.PRESENT | user | (pg.WRITABLE if write else 0)
    if not cb[cbw.NESTED_PLAIN]:
        opened |= pg.NO_EXECUTE
    record = cb[cbw.STEP_ROWS] + rec.BYTES * cb[cbw.STEPPING]
    purpose = rec.DEVICE_STORE if write else rec.DEVICE_LOAD
    note_opened(cb, record, (slot, at, 0, purpose, address, page), opened)
    return True


@compiled
def number_of_open(cb: object, at: int) -> int:
    """The number of the open page whose entry is at a host address, -1 if there is none."""
    for index in range(cb[cbw.STEPPING]):
        if load64(cb[cbw.STEP_ROWS] + rec.BYTES * index + rec.ENTRY) == at:
            return index
    return -1


@compiled
def device_entry(cb: object, address: int, ppn: int) -> int:
    """Host address of the entry that maps a device's page at an address; 0 when a frame is missing."""
    if not cb[cbw.SHADOWING]:
        return nested.leaf_address(cb, ppn, True)
    row = shadow.leaf_row(cb, address)
    return rows.entry_address(cb, row, address >> 12 & 0x1FF) if row >= 0 else 0


@compiled
def finish(cb: object) -> None:
    """Close the open pages, follow what the instruction changed, disarm the trap flag."""
    opened = cb[cbw.STEPPING]
    cb[cbw.STEPPING] = 0
    flags = cb[cbw.ENV] + env.EFLAGS
    store64(flags, (load64(flags) & ~pg.EFLAGS_TF) | cb[cbw.STEP_TRAP])
    cb[cbw.MODIFIED] = 1
    cb[cbw.NEEDS_TLB_FLUSH] = 1
    for index in range(opened):
        record = cb[cbw.STEP_ROWS] + rec.BYTES * index
        store64(load64(record + rec.ENTRY), load64(record + rec.SAVED))
    for index in range(opened):
        close_page(cb, index)


@compiled
def close_page(cb: object, index: int) -> None:
    """Act on what was stored to one opened page."""
    record = cb[cbw.STEP_ROWS] + rec.BYTES * index
    slot, va = load64(record + rec.SLOT), load64(record + rec.ADDRESS)
    purpose = load64(record + rec.PURPOSE)
    if purpose == rec.DEVICE_STORE:
        offset = va & 0xFFC
        value = load32(load64(record + rec.COPY_OF) + offset)
        number = slot - cb[cbw.ABSENT] - 1
        emit(cb, _DEVICE_WRITE, 0, pmap.DEVICE_PPNS[number] << 12 | offset, -1, -1, 0, value)
        call3(cb[cbw.DEVICE_WRITE_FN], number, offset, value)
    elif purpose == rec.DISCARD:
        if not load64(record + rec.SAVED) & pg.NO_EXECUTE:  # it may have run from the sink
            code.flush_frame(cb, load64(cb[cbw.SINKS] + 8 * index))
        emit(cb, _DISCARDED, 0, va, slot, pmap.entry(cb, slot) & pmap.MPN_MASK, 0, 0)
    elif purpose == rec.TABLE_STORE:
        sync.page_changed(cb, slot, cb[cbw.STEP_COPIES] + (index << 12), va)


@compiled
def clear_single_step_status(cb: object) -> None:
    """Take back what the trap left in DR6, unless the guest traces itself."""
    at = cb[cbw.ERROR_CODE] + env.DR6_FROM_ERROR_CODE
    store64(at, load64(at) & ~DR6_SINGLE_STEP)


@compiled
def store_to_table(cb: object, va: int, slot: int, access: int) -> bool:
    """A store to a traced guest table: trace it, or let the table go out of sync; true if it needs no writable entry any more."""
    options = cb[cbw.SHADOW_OPTIONS]
    if sync.add_flood(cb, slot) > sync.FLOOD_LIMIT or is_repeated_store(cb):
        leaf_only = rows.only_leaf_tables(cb, slot)
        if options & sync.UNSYNC and leaf_only and sync.begin_unsync(cb, slot):
            return False
        is_root = slot == pmap.slot_of(cb, walk.root_table(cb) >> 12)
        if options & sync.FLOOD and cb[cbw.STEPPING] == 0 and not is_root and not (leaf_only and not options & sync.UNSYNC):
            cb[cbw.FLOODED] += 1
            shadow.untrace(cb, slot)
            return False
    if options & sync.EMULATE and cb[cbw.STEPPING] == 0 and emulate.store(cb, va, slot):
        return True
    if open_page(cb, va, slot, rec.TABLE_STORE, access & pg.USER):
        return True
    shadow.untrace(cb, slot)
    return False
