"""Pages that code runs from: the engine keeps translated code per frame and does not see the VMM's doings.

A page is data (mapped NX, stores run fast) or code (mapped executable, read-only). It changes at the fault that asks for
it. A page that changes too often is MIXED: executable and writable at once, where the engine itself sees each store, ten
times slower than elsewhere. That is so for a while: a frame that held one program after another is not code that changes itself.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine import env
from emu.machine.native import call2, call4, compiled, load64
from emu.vm import context, nested, pmap, rows
from emu.vm.record import emit, ring_is_nearly_full

TLB_FLUSH_CONTROL = (1 << 30) | 11  # uc_ctl commands, as emu.machine.cpu checks: write, UC_CTL_TLB_FLUSH
REMOVE_CODE_CONTROL = (1 << 30) | (2 << 26) | 9  # write with two arguments, UC_CTL_TB_REMOVE_CACHE
EPOCH_SHIFT = 16  # of a tag: below is room for a count of instructions
EPOCH_MASK = 0xFFF_FFFF
SPACE_SHIFT = 44
_CODE_FLUSH, _TLB = int(Kind.CODE_FLUSH), int(Kind.TLB_FLUSH)


@compiled
def tag(cb: object) -> int:
    """What holds for the code at a linear address as long as it is the same: address space, and an epoch of what is mapped and stored."""
    return (cb[cbw.CODE_EPOCH] & EPOCH_MASK) << EPOCH_SHIFT | (cb[cbw.GUEST_CR3] >> 12) << SPACE_SHIFT


@compiled
def flush_engine_tlb(cb: object) -> None:
    """Drop the engine's cached address translations."""
    call2(cb[cbw.FN_CTL], cb[cbw.ENGINE], TLB_FLUSH_CONTROL)


@compiled
def flush_engine_page(cb: object, va: int) -> bool:
    """Drop the engine's cached translation of one address, if its library can."""
    if not cb[cbw.FN_FLUSH_PAGE]:
        return False
    call2(cb[cbw.FN_FLUSH_PAGE], cb[cbw.ENGINE_CPU], va)
    cb[cbw.NEEDS_TLB_FLUSH] = 0
    return True


@compiled
def note_flushed_tlb(cb: object) -> None:
    """The engine's TLB was flushed: nothing is due any more."""
    cb[cbw.NEEDS_TLB_FLUSH] = 0
    emit(cb, _TLB, 0, 0, -1, -1, 0, 0)


@compiled
def flush_code(cb: object, slot: int) -> None:
    """Drop the engine's translated code of a page's frame."""
    mpn, ppn = pmap.entry(cb, slot) & pmap.MPN_MASK, pmap.ppn_of(cb, slot)
    flush_frame(cb, mpn)
    emit(cb, _CODE_FLUSH, 0, max(ppn, 0) << 12, ppn, mpn, 0, 0)


@compiled
def flush_frame(cb: object, mpn: int) -> None:
    """Drop the engine's translated code of a frame.

    The engine wants addresses as the CPU sees them, so it is put in its state before VMRUN for the call: there, paging is
    off and addresses are machine addresses.
    """
    context.save_all(cb, cb[cbw.ASIDE_CONTEXT])
    context.restore_all(cb, cb[cbw.HOST_CONTEXT])
    flush_engine_tlb(cb)
    call4(cb[cbw.FN_CTL], cb[cbw.ENGINE], REMOVE_CODE_CONTROL, mpn << 12, (mpn + 1) << 12)
    flush_engine_tlb(cb)
    context.restore_all(cb, cb[cbw.ASIDE_CONTEXT])
    cb[cbw.CODE_EPOCH] += 1


@compiled
def become_code(cb: object, slot: int) -> None:
    """The page is fetched from: executable from now on, and no longer writable unless MIXED."""
    word = pmap.counted_flip(pmap.entry(cb, slot)) | pmap.EXECUTED
    pmap.set_entry(cb, slot, word)
    if not word & pmap.MIXED:
        rows.write_protect(cb, slot)
    cb[cbw.NEEDS_TLB_FLUSH] = 1  # a writable translation may be cached that skips the engine's own check
    nested.refresh_slot(cb, slot)


@compiled
def become_data(cb: object, slot: int) -> None:
    """A page of code is stored to: NX again, its translated code dropped; a MIXED page stays as it is."""
    word = pmap.entry(cb, slot)
    if word & pmap.MIXED:
        return
    word = pmap.counted_flip(word)
    if word & pmap.MIXED:
        pmap.set_entry(cb, slot, word)
        return
    pmap.set_entry(cb, slot, word & ~pmap.EXECUTED)
    rows.forbid_execution(cb, slot)
    nested.refresh_slot(cb, slot)
    flush_code(cb, slot)


@compiled
def mix(cb: object, slot: int) -> None:
    """Code that stores to its own page: let the page be both at once."""
    pmap.set_entry(cb, slot, pmap.entry(cb, slot) | pmap.MIXED)
    nested.refresh_slot(cb, slot)


@compiled
def settle(cb: object, first: int) -> int:
    """Begin to count changes anew: MIXED pages from slot `first` on are data until they are fetched from; the slot to go on from.

    It stops where the next record might have no room. To be called between two runs of the engine, until it returns SLOTS.
    """
    cb[cbw.EVENT_RIP], cb[cbw.INSN_BYTES] = load64(cb[cbw.ENV] + env.EIP), 0  # where the guest is; no deed of an instruction
    for slot in range(first, cb[cbw.SLOTS]):
        word = pmap.entry(cb, slot)
        if word & pmap.MIXED:
            if ring_is_nearly_full(cb):
                return slot
            pmap.set_entry(cb, slot, word & ~(pmap.EXECUTED | pmap.MIXED | pmap.FLIPS_MASK << pmap.FLIPS_SHIFT))
            rows.forbid_execution(cb, slot)
            nested.refresh_slot(cb, slot)
            flush_code(cb, slot)
        elif word >> pmap.FLIPS_SHIFT & pmap.FLIPS_MASK:
            pmap.set_entry(cb, slot, word & ~(pmap.FLIPS_MASK << pmap.FLIPS_SHIFT))
    return cb[cbw.SLOTS]


@compiled
def before_host_store(cb: object, slot: int) -> None:
    """The VMM itself is about to change a page: code translated from it must go."""
    word = pmap.entry(cb, slot)
    if word & pmap.EXECUTED:
        if cb[cbw.NESTED_PLAIN]:
            pmap.set_entry(cb, slot, word & ~pmap.EXECUTED)
            flush_code(cb, slot)
        elif word & pmap.MIXED:
            flush_code(cb, slot)
        else:
            become_data(cb, slot)
