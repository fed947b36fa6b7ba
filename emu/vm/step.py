"""One guest instruction carried out under the trap flag, with a page opened that it may not freely store to.

This is how a store to a traced guest table, to ROM or to absent memory is done: the processor itself executes the
instruction, whatever it is (MOV, LOCK CMPXCHG, a string store, a push), and the VMM compares the page before and after.
So no instruction needs an emulator of its own.

    idle --open_page()--> stepping --the #DB exit: finish()--> idle
                              |------another fault of the instruction that the guest must see: finish()--> idle

While stepping no interrupt is injected. At most `LIMIT` pages are open; what a store meets beyond that is untraced.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.machine.decode import MAX_LENGTH, REP, REPNE, skip_prefixes
from emu.machine.native import compiled, load8, load64, store64
from emu.vm import access, code, nested, pmap, rows, shadow, sync
from emu.vm import step_records as rec
from emu.vm.record import emit

_DISCARDED = int(Kind.DISCARDED_WRITE)
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
    regs = cb[cbw.ENV]
    pc = load64(regs + env.CS + env.BASE) + load64(regs + env.EIP) & 0xFFFF_FFFF
    size = access.fetch(cb, pc, cb[cbw.INSN_AT], MAX_LENGTH)
    count, prefixes = skip_prefixes(cb[cbw.INSN_AT], size)
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
    else:
        sync.copy_page(page, cb[cbw.STEP_COPIES] + (index << 12))
    for word, value in (
        (rec.SLOT, slot),
        (rec.ENTRY, at),
        (rec.SAVED, load64(at)),
        (rec.PURPOSE, purpose),
        (rec.ADDRESS, va),
        (rec.COPY_OF, page),
    ):
        store64(record + word, value)
    # Executable as before: the instruction may lie in this very page. (And NX in a plain nested table is deadly.)
    store64(at, mpn << 12 | pg.PRESENT | pg.WRITABLE | user | (load64(at) & pg.NO_EXECUTE))
    if index == 0:
        begin(cb)
    cb[cbw.STEPPING] = index + 1
    cb[cbw.NEEDS_TLB_FLUSH] = 1
    return True


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
    if load64(record + rec.PURPOSE) == rec.DISCARD:
        if not load64(record + rec.SAVED) & pg.NO_EXECUTE:  # it may have run from the sink
            code.flush_frame(cb, load64(cb[cbw.SINKS] + 8 * index))
        emit(cb, _DISCARDED, 0, va, slot, pmap.entry(cb, slot) & pmap.MPN_MASK, 0, 0)
    else:
        sync.page_changed(cb, slot, cb[cbw.STEP_COPIES] + (index << 12), va)


@compiled
def clear_single_step_status(cb: object) -> None:
    """Take back what the trap left in DR6, unless the guest traces itself."""
    at = cb[cbw.ERROR_CODE] + env.DR6_FROM_ERROR_CODE
    store64(at, load64(at) & ~DR6_SINGLE_STEP)


@compiled
def store_to_table(cb: object, va: int, slot: int, access: int) -> bool:
    """A store to a traced guest table: trace it, or let the table go out of sync; true if the instruction now steps."""
    if sync.add_flood(cb, slot) > sync.FLOOD_LIMIT:
        if rows.only_leaf_tables(cb, slot) and sync.begin_unsync(cb, slot):
            return False
        if cb[cbw.STEPPING] == 0 and slot != pmap.slot_of(cb, cb[cbw.GUEST_CR3] >> 12):
            shadow.untrace(cb, slot)
            return False
    if open_page(cb, va, slot, rec.TABLE_STORE, access & pg.USER):
        return True
    shadow.untrace(cb, slot)
    return False
