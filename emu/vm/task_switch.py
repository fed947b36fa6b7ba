"""Hardware task switches: by a far JMP or CALL, by an event that meets a task gate, and by IRET from a nested task.

Intel SDM vol. 3, chapter 8 (tables 8-1 and 8-2); AMD64 APM vol. 2, chapter 12. A switch has two halves.

    old task --switch(): everything that the old task can fault on is looked up--> committed --enter(): segments--> new task

In the first half nothing changes, so an instruction that faults can run again. From `commit` on a fault is the new task's: it finds the
new registers, and segment registers as far as they were loaded. The order of the checks there is each processor's own (SDM vol. 3,
section 8.3); here it is LDTR, CS, SS, ES, DS, FS, GS.

A switch answers with one number: NONE, STARVED, or vector | error code << CODE_SHIFT, with IN_NEW_TASK if the fault is the new task's.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.machine.native import compiled, load32, load64, store64
from emu.vm import access, context, registers, task_segment, walk
from emu.vm.gates import (
    ACCESS_BYTE,
    CODE_SHIFT,
    DB,
    EXCEPTION,
    EXTERNAL,
    GP,
    HAS_ERROR_CODE,
    IN_NEW_TASK,
    NONE,
    NOWHERE,
    NP,
    PF,
    SELECTOR,
    SOFTWARE,
    SOURCE_SHIFT,
    SS,
    STARVED,
    TRAPS,
    TS,
    VECTOR_SHIFT,
    descriptor_address,
    descriptor_base,
    descriptor_limit,
    has_room,
    mark_accessed,
    read_flags,
    read_pair,
    set_flags,
)
from emu.vm.record import emit

JUMP, NEST, RETURN = 0, 1, 2  # how: JMP; CALL or an event, which the new task returns from; IRET
TRAPPED = DB | IN_NEW_TASK  # all went well, and the new task's T bit is set

AVAILABLE, BUSY, BUSY_BIT = 1, 3, 2  # types of a task state segment, without task_segment.WIDE
LDT_TYPE = 2
LOCAL = 4  # bit of a selector: in the LDT
DR6_TASK_SWITCH = 1 << 15  # BT
DR7_LOCAL = 0x155  # L0 to L3, and LE
FLAGS_LOADED = (
    pg.EFLAGS_ARITHMETIC
    | pg.EFLAGS_TF
    | pg.EFLAGS_IF
    | pg.EFLAGS_DF
    | pg.EFLAGS_IOPL
    | pg.EFLAGS_NT
    | pg.EFLAGS_RF
    | pg.EFLAGS_VM
    | pg.EFLAGS_AC
    | pg.EFLAGS_ID
)
VIRTUAL_SEGMENT = (
    env.FLAG_PRESENT | env.FLAG_SYSTEM_NOT | env.FLAG_WRITABLE | env.FLAG_ACCESSED | 3 << env.FLAG_DPL_SHIFT
)  # of virtual-8086 mode
VIRTUAL_LIMIT = 0xFFFF
_TASK_SWITCH = int(Kind.TASK_SWITCH)


# ---- what the old task can fault on ---------------------------------------------------------------------------------


@compiled
def find_task(cb: object, selector: int, how: int, external: int) -> tuple[int, int, int, int]:
    """(fault vector, error code, low, high) of a task's descriptor, which must be in the GDT, of the right type, present and large enough."""
    table = cb[cbw.ENV] + env.GDTR
    code = selector & SELECTOR | external
    refused, wanted = (TS, BUSY) if how == RETURN else (GP, AVAILABLE)
    if selector & LOCAL or selector | 7 > load32(table + env.LIMIT):
        return refused, code, 0, 0
    fault, low, high = read_pair(cb, load64(table + env.BASE) + (selector & ~7))
    if fault != access.OK:
        return PF, fault, 0, 0
    if high >> 8 & 0x1F & ~task_segment.WIDE != wanted:
        return refused, code, 0, 0
    if not high & env.FLAG_PRESENT:
        return NP, code, 0, 0
    least = task_segment.BYTES_32 if task_segment.is_wide(high) else task_segment.BYTES_16
    if descriptor_limit(low, high) < least - 1:
        return TS, code, 0, 0
    return NONE, 0, low, high


@compiled
def find_new_segment(cb: object, base: int, wide: bool, how: int) -> tuple[int, int, int]:
    """`task_segment.find` for the new task's segment, whose link is written if the tasks nest."""
    if how == NEST:
        fault, _first, _last = task_segment.find(cb, base + task_segment.LINK, 2, walk.IMPLICIT | pg.FAULT_WRITE)
        if fault != access.OK:
            return fault, 0, 0
    return task_segment.find(cb, base, task_segment.BYTES_32 if wide else task_segment.BYTES_16, walk.IMPLICIT)


@compiled
def find_busy_bit(cb: object, selector: int) -> tuple[int, int]:
    """(fault, PA) of the byte of a task's descriptor that says whether it is busy, to be written."""
    at = load64(cb[cbw.ENV] + env.GDTR + env.BASE) + (selector & ~7) + ACCESS_BYTE
    fault, page, _last = task_segment.find(cb, at, 1, walk.IMPLICIT | pg.FAULT_WRITE)
    return fault, page | at & 0xFFF


@compiled
def switch(cb: object, selector: int, how: int, ip: int, flags: int, external: int) -> int:
    """Switch to the task of a selector; `ip` and `flags` are what the old task goes on with."""
    bad, code, low, high = find_task(cb, selector, how, external)
    if bad != NONE:
        return bad | code << CODE_SHIFT
    task = cb[cbw.ENV] + env.TR
    previous, old_base, base = load32(task) & 0xFFFF, load64(task + env.BASE), descriptor_base(low, high)
    saved = task_segment.SAVED_32 if task_segment.is_wide(load32(task + env.FLAGS)) else task_segment.SAVED_16
    if load32(task + env.LIMIT) < saved - 1:
        return TS | (previous & SELECTOR | external) << CODE_SHIFT
    fault, first, last = find_new_segment(cb, base, task_segment.is_wide(high), how)
    if fault != access.OK:
        return PF | fault << CODE_SHIFT
    fault, old_first, old_last = task_segment.find(cb, old_base, saved, walk.IMPLICIT | pg.FAULT_WRITE)
    if fault != access.OK:
        return PF | fault << CODE_SHIFT
    fault, busy = find_busy_bit(cb, selector)
    if fault != access.OK:
        return PF | fault << CODE_SHIFT
    old_busy = 0
    if how != NEST:
        fault, old_busy = find_busy_bit(cb, previous)
        if fault != access.OK:
            return PF | fault << CODE_SHIFT
    new = (base, first, last)
    result = load_space(cb, new, high)
    if result == registers.NO_FRAME:
        return STARVED
    commit(cb, how, (old_base, old_first, old_last), new, (old_busy, busy), (ip, flags))
    load_task_register(cb, selector, how, low, high)
    bad, code = enter(cb, new, high, how, external)
    if result != registers.SERVED:  # page tables that the processor refuses
        bad, code = GP, external
    return NONE if bad == NONE else bad | code << CODE_SHIFT | IN_NEW_TASK


@compiled
def load_space(cb: object, segment: tuple[int, int, int], high: int) -> int:
    """Load CR3 for the new task, where the guest pages and the segment has one: SERVED, NO_FRAME or FAULT_GP."""
    if not cb[cbw.GUEST_CR0] & pg.CR0_PG or not task_segment.is_wide(high):
        return registers.SERVED
    return registers.write_cr3(cb, task_segment.get(cb, segment, task_segment.ROOT, 4))


# ---- from here on it is the new task's ------------------------------------------------------------------------------


@compiled
def commit(
    cb: object,
    how: int,
    old: tuple[int, int, int],
    new: tuple[int, int, int],
    busy: tuple[int, int],
    state: tuple[int, int],
) -> None:
    """Save the old task, link the two, and keep the busy bits: all that is written to memory."""
    ip, flags = state
    task = cb[cbw.ENV] + env.TR
    if how != NEST:
        access.store_bytes(cb, busy[0], 1, access.load_byte(cb, busy[0]) & ~BUSY_BIT)
    if how == RETURN:
        flags &= ~pg.EFLAGS_NT
    task_segment.save(cb, old, task_segment.is_wide(load32(task + env.FLAGS)), ip, flags)
    if how == NEST:
        task_segment.put(cb, new, task_segment.LINK, 2, load32(task))
    if how != RETURN:
        access.store_bytes(cb, busy[1], 1, access.load_byte(cb, busy[1]) | BUSY_BIT)


@compiled
def load_task_register(cb: object, selector: int, how: int, low: int, high: int) -> None:
    """TR, and what a switch changes in CR0 and DR7."""
    regs = cb[cbw.ENV]
    previous, base = load32(regs + env.TR) & 0xFFFF, descriptor_base(low, high)
    emit(cb, _TASK_SWITCH, how, base, -1, -1, previous, selector)
    kept = high & env.FLAGS_KEPT & ~(BUSY_BIT << 8)  # the engine does not keep it there
    env.set_segment(regs, env.TR, selector, base, descriptor_limit(low, high), kept)
    debug = cb[cbw.ERROR_CODE] + env.DR7_FROM_ERROR_CODE
    store64(debug, load64(debug) & ~DR7_LOCAL)
    cb[cbw.MODIFIED] = 1
    cb[cbw.GUEST_CR0] |= pg.CR0_TS
    registers.write_engine_register(cb, registers.REG_CR0, registers.engine_cr0(cb))


@compiled
def enter(cb: object, segment: tuple[int, int, int], high: int, how: int, external: int) -> tuple[int, int]:
    """(vector, error code) of the fault met, or (NONE, 0): load the registers of the new task."""
    regs = cb[cbw.ENV]
    wide = task_segment.is_wide(high)
    ip, flags, table = task_segment.load(cb, segment, wide)
    if how == NEST:
        flags |= pg.EFLAGS_NT
    set_flags(cb, flags & FLAGS_LOADED)
    store64(regs + env.EIP, ip)
    virtual = flags & pg.EFLAGS_VM != 0
    privilege = 3 if virtual else load32(regs + env.CS) & 3
    env.refresh_hidden_flags(regs, privilege)
    context.put_back(cb)  # the flags are read from the engine
    bad, code = load_local_table(cb, table, external)
    if bad == NONE:
        if virtual:
            load_virtual_segments(regs)
        else:
            bad, code = load_segments(cb, privilege, external)
    env.refresh_hidden_flags(regs, privilege)
    cb[cbw.MODIFIED] = 1
    if bad != NONE:
        return bad, code
    if ip > load32(regs + env.CS + env.LIMIT):
        return GP, external
    if wide and task_segment.get(cb, segment, task_segment.TRAP, 2) & 1:
        status = cb[cbw.ERROR_CODE] + env.DR6_FROM_ERROR_CODE
        store64(status, load64(status) | DR6_TASK_SWITCH)
        return DB, 0
    return NONE, 0


@compiled
def load_local_table(cb: object, selector: int, external: int) -> tuple[int, int]:
    """(vector, error code) of the fault met, or (NONE, 0): LDTR of the new task."""
    regs = cb[cbw.ENV]
    code = selector & SELECTOR | external
    env.set_segment(regs, env.LDTR, selector, 0, 0, 0)
    if selector & SELECTOR == 0:
        return NONE, 0
    if selector & LOCAL or selector | 7 > load32(regs + env.GDTR + env.LIMIT):
        return TS, code
    fault, low, high = read_pair(cb, load64(regs + env.GDTR + env.BASE) + (selector & ~7))
    if fault != access.OK:
        return PF, fault
    if high >> 8 & 0x1F != LDT_TYPE or not high & env.FLAG_PRESENT:
        return TS, code
    env.set_segment(regs, env.LDTR, selector, descriptor_base(low, high), descriptor_limit(low, high), high & env.FLAGS_KEPT)
    return NONE, 0


@compiled
def load_virtual_segments(regs: int) -> None:
    """The six segments of a task in virtual-8086 mode, by their selectors."""
    for number in range(task_segment.SEGMENTS_32):
        place = env.SEGMENTS + env.SEGMENT_BYTES * number
        selector = load32(regs + place)
        env.set_segment(regs, place, selector, selector << 4, VIRTUAL_LIMIT, VIRTUAL_SEGMENT)


@compiled
def load_segments(cb: object, privilege: int, external: int) -> tuple[int, int]:
    """(vector, error code) of the fault met, or (NONE, 0): the six segments of a task in protected mode, by their selectors."""
    for place in (env.CS, env.SS, env.ES, env.DS, env.FS, env.GS):
        bad, code = load_segment(cb, place, privilege, external)
        if bad != NONE:
            return bad, code
    return NONE, 0


@compiled
def load_segment(cb: object, place: int, privilege: int, external: int) -> tuple[int, int]:
    """The same for one; only data segments may be null."""
    regs = cb[cbw.ENV]
    selector = load32(regs + place)
    code = selector & SELECTOR | external
    if selector & SELECTOR == 0:
        return (TS, code) if place == env.CS or place == env.SS else (NONE, 0)
    at = descriptor_address(cb, selector)
    if at == NOWHERE:
        return TS, code
    fault, low, high = read_pair(cb, at)
    if fault != access.OK:
        return PF, fault
    if not may_load(place, selector, high, privilege):
        return TS, code
    if not high & env.FLAG_PRESENT:
        return (SS if place == env.SS else NP), code
    fault = mark_accessed(cb, selector, high)
    if fault != access.OK:
        return PF, fault
    kept = high & env.FLAGS_KEPT | env.FLAG_ACCESSED
    env.set_segment(regs, place, selector, descriptor_base(low, high), descriptor_limit(low, high), kept)
    return NONE, 0


@compiled
def may_load(place: int, selector: int, high: int, privilege: int) -> bool:
    """Whether type and privilege of a descriptor suit a segment register of the new task."""
    if not high & env.FLAG_SYSTEM_NOT:
        return False
    is_code, level, asked = high & env.FLAG_CODE != 0, high >> env.FLAG_DPL_SHIFT & 3, selector & 3
    conforming = is_code and high & env.FLAG_CONFORMING != 0
    if place == env.CS:
        return is_code and (level <= asked if conforming else level == asked)
    if place == env.SS:
        return not is_code and high & env.FLAG_WRITABLE != 0 and level == privilege and asked == privilege
    if is_code and not high & env.FLAG_WRITABLE:  # not readable
        return False
    return conforming or (level >= privilege and level >= asked)


# ---- events through task gates --------------------------------------------------------------------------------------


@compiled
def through_task_gate(cb: object, event: int, ip: int, error: int) -> int:
    """Have an event served by the task of its gate; `event` is selector | vector << VECTOR_SHIFT | source << SOURCE_SHIFT."""
    vector, source = event >> VECTOR_SHIFT & 0xFF, event >> SOURCE_SHIFT
    flags = read_flags(cb)
    if source == EXCEPTION and not TRAPS >> vector & 1:
        flags |= pg.EFLAGS_RF
    result = switch(cb, event & 0xFFFF, NEST, ip, flags, 0 if source == SOFTWARE else EXTERNAL)
    if (result == NONE or result == TRAPPED) and source == EXCEPTION and HAS_ERROR_CODE >> vector & 1:
        bad, code = push_error_code(cb, error)
        if bad != NONE:
            return bad | code << CODE_SHIFT | IN_NEW_TASK
    return result


@compiled
def push_error_code(cb: object, error: int) -> tuple[int, int]:
    """(vector, error code) of the fault met, or (NONE, 0): the error code goes on the new task's stack, as wide as its segment is."""
    regs = cb[cbw.ENV]
    stack = regs + env.SS
    size = 4 if task_segment.is_wide(load32(regs + env.TR + env.FLAGS)) else 2
    mask = 0xFFFF_FFFF if load32(stack + env.FLAGS) & env.FLAG_BIG else 0xFFFF
    esp = load64(regs + env.RSP)
    if not has_room(load32(stack + env.FLAGS), load32(stack + env.LIMIT), esp & mask, size):
        return SS, EXTERNAL
    kind = pg.FAULT_USER if env.cpl(regs) == 3 else 0
    fault = access.linear_store(cb, load64(stack + env.BASE) + (esp - size & mask), size, error, kind)
    if fault != access.OK:
        return PF, fault
    store64(regs + env.RSP, esp & ~mask | esp - size & mask)
    return NONE, 0
