"""Page-fault exits: told apart into hidden faults, which the guest never learns of, and true ones.

A hidden fault is served here, natively: walk the guest's tables, allocate, fill the shadow or nested entry. The answer of
each function is one of the words below.
"""

from __future__ import annotations

from emu.events import NESTED_FAULT, Kind
from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.machine.native import compiled, load64
from emu.vm import code, cow, nested, pmap, rows, shadow, step, walk
from emu.vm import step_records as rec
from emu.vm.record import count, emit, is_recorded

SERVED = 0  # go on at the same instruction
TRUE_FAULT = 1  # the guest's tables ask for a fault; EXIT_INFO has the address, FAULT_CODE the code
NO_FRAME = 2  # the reserve ran out before anything was changed
DEVICE_FETCH = 3  # an instruction fetch from a device's registers

_HIDDEN = int(Kind.HIDDEN_FAULT)


@compiled
def runs_from(cb: object, slot: int) -> bool:
    """Whether the instruction at RIP lies in the page, by its first byte."""
    fault, ppn = walk.peek(cb, env.linear_ip(cb[cbw.ENV]))
    return fault == walk.NO_FAULT and pmap.slot_of(cb, ppn) == slot


@compiled
def make_room_to_store(cb: object, va: int, slot: int, access: int) -> bool:
    """A store to a page that the VMM guards: end the guard, or see to the instruction; true if it needs no writable entry any more."""
    word = pmap.entry(cb, slot)
    if not pmap.is_writable_state(word):
        return step.open_page(cb, va, slot, rec.DISCARD, access & pg.USER)
    if word & pmap.EXECUTED and not cb[cbw.NESTED_PLAIN]:
        if runs_from(cb, slot):
            code.mix(cb, slot)
        else:
            code.become_data(cb, slot)
    if cb[cbw.SHADOWING] and rows.is_traced(cb, slot):
        return step.store_to_table(cb, va, slot, access)
    return False


@compiled
def on_shadow_fault(cb: object, va: int, seen: int) -> int:
    """A #PF exit while shadow tables are walked; `seen` is the error code against the shadow."""
    kind = seen & (pg.FAULT_WRITE | pg.FAULT_USER | pg.FAULT_FETCH)
    if not kind & pg.FAULT_USER and env.cpl(cb[cbw.ENV]) == 3:
        kind |= walk.IMPLICIT  # such as a descriptor's read
    write = kind & pg.FAULT_WRITE != 0
    fault, ppn, access, size = walk.walk(cb, va, kind, True)
    if fault != walk.NO_FAULT:
        cb[cbw.EXIT_INFO] = va
        cb[cbw.FAULT_CODE] = fault
        return TRUE_FAULT
    slot = pmap.slot_of(cb, ppn)
    if pmap.state(pmap.entry(cb, slot)) == pmap.DEVICE:
        return on_device_access(cb, va, ppn, slot, seen, access)
    if pmap.frame_of(cb, slot) < 0 or (write and not cow.make_writable(cb, slot, cow.BY_STORE)):
        return NO_FRAME
    if kind & pg.FAULT_FETCH and not pmap.entry(cb, slot) & pmap.EXECUTED:
        code.become_code(cb, slot)
    overrides = write and not access & pg.WRITABLE  # CR0.WP is off: the supervisor may store, the user must still not
    # Entries of a large page are those of every directory entry with its rights: a writable one would hide that another's D bit is due.
    steps = overrides and (cb[cbw.GUEST_CR4] & pg.CR4_SMAP or size)
    if overrides and not steps:
        access = supervisor_only(cb, access)
    old = shadow.fill(cb, va, slot, access)
    if old == -1:
        return NO_FRAME
    done = False
    is_table_store = write and rows.is_traced(cb, slot)
    if is_table_store:  # what the store does to the tables is recorded behind it
        record_fill(cb, va, ppn, slot, seen, old)
    if write and not rows.may_write(cb, slot):
        done = make_room_to_store(cb, va, slot, access)
        if not done:
            shadow.fill(cb, va, slot, access)
        if not done and rows.is_traced(cb, slot):  # the path to the page leads through it, so it is a table again already
            done = step.open_page(cb, va, slot, rec.TABLE_STORE, access & pg.USER)
    if steps and not done:
        step.open_page(cb, va, slot, rec.OVERRIDE, access & pg.USER)
    if not is_table_store:
        record_fill(cb, va, ppn, slot, seen, old)
    return SERVED


@compiled
def supervisor_only(cb: object, access: int) -> int:
    """What a leaf grants that the supervisor stores through with CR0.WP off: it is the user's again at the user's next access.

    Without USER the engine would let the supervisor execute the page in spite of SMEP. (SMAP cannot be kept this way at all.)
    """
    access = (access | pg.WRITABLE | pg.DIRTY) & ~pg.USER
    return access & ~pg.EXECUTABLE if cb[cbw.GUEST_CR4] & pg.CR4_SMEP else access


@compiled
def on_device_access(cb: object, address: int, ppn: int, slot: int, seen: int, access: int) -> int:
    """An access to a device's registers, which are staged in a page for the one instruction."""
    if seen & pg.FAULT_FETCH:
        cb[cbw.EXIT_INFO] = address
        return DEVICE_FETCH
    if pmap.frame_of(cb, slot) < 0 or not step.open_device(cb, address, ppn, slot, seen & pg.FAULT_WRITE != 0, access & pg.USER):
        return NO_FRAME
    return SERVED


@compiled
def record_fill(cb: object, va: int, ppn: int, slot: int, seen: int, old: int) -> None:
    """One record for a hidden fault; `seen` has NESTED_FAULT if `va` is a guest-physical address."""
    if not is_recorded(cb, _HIDDEN):
        count(cb, _HIDDEN)
        return
    at = nested.leaf_address(cb, ppn, False) if seen & NESTED_FAULT else shadow.find_leaf(cb, va)
    emit(cb, _HIDDEN, seen, va, ppn, pmap.entry(cb, slot) & pmap.MPN_MASK, old, load64(at))


@compiled
def on_nested_fault(cb: object, pa: int, seen: int) -> int:
    """A nested fault exit: always hidden."""
    write, fetch = seen & pg.FAULT_WRITE != 0, seen & pg.FAULT_FETCH != 0
    ppn = pa >> 12
    slot = pmap.slot_of(cb, ppn)
    if pmap.state(pmap.entry(cb, slot)) == pmap.DEVICE:
        return on_device_access(cb, pa, ppn, slot, seen, pg.USER)
    if pmap.frame_of(cb, slot) < 0 or (write and not cow.make_writable(cb, slot, cow.BY_STORE)):
        return NO_FRAME
    if fetch and not cb[cbw.NESTED_PLAIN] and not pmap.entry(cb, slot) & pmap.EXECUTED:
        code.become_code(cb, slot)
    old = nested.fill(cb, ppn, slot)
    if old == -1:
        return NO_FRAME
    new = nested.leaf_value(cb, slot)
    if write and not new & pg.WRITABLE and not make_room_to_store(cb, pa, slot, pg.USER | pg.WRITABLE):
        nested.fill(cb, ppn, slot)
    cb[cbw.HIDDEN_NESTED] += 1
    record_fill(cb, pa, ppn, slot, seen | NESTED_FAULT, old)
    return SERVED
