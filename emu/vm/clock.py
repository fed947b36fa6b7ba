"""Virtual time: the count of retired guest instructions, kept by the block hook.

The engine announces each block of instructions it enters, with address and size in bytes. How many instructions that is
comes from a direct-mapped table of blocks met before, else from decoding. A block that an exit leaves in the middle is
corrected by the instructions that did not retire. A repeated string instruction counts once for each iteration and once
for leaving, as the engine executes it.

An entry of the table is two words: address and size; count, and the tag of the code that was decoded (an epoch that
changes when addresses may have got other code, and the address space). Code on MIXED pages is decoded at every entry.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine import env, refused, vmcb
from emu.machine import paging as pg
from emu.machine.decode import count_insns, insn_length
from emu.machine.native import call2, compiled, load32, load64, store64
from emu.vm import access, code, context, fault_runs, pmap, reasons, walk
from emu.vm.record import ring_is_nearly_full

TABLE_ENTRIES = 1 << 13  # 128 KiB: the hot code of the guests here; a miss costs one decoding
ENTRY_BYTES = 16
SIZE_SHIFT = 48
COUNT_MASK = 0xFFFF
NO_ENTRY = 0
PC_BITS = SIZE_SHIFT  # of a canonical address, which its bit 47 completes
PC_MASK = (1 << PC_BITS) - 1
SALT_SHIFT = (
    code.SPACE_SHIFT - 5
)  # what the tag adds to a block's place: address spaces with other code at the same addresses go apart


@compiled
def refresh_tag(cb: object) -> None:
    """Bring CODE_TAG in line with the epoch and the guest's address space."""
    cb[cbw.CODE_TAG] = code.tag(cb)


@compiled
def stop(cb: object, reason: int) -> None:
    """Hand the exit to Python."""
    cb[cbw.REASON] = reason
    call2(cb[cbw.FN_STOP], cb[cbw.ENGINE], 0)


@compiled
def code_at(cb: object, pc: int, size: int) -> int:
    """Host address of `size` bytes of code at a linear address, for reading; 0 if they are not all there."""
    if pc & 0xFFF <= 0x1000 - size:
        return access.page_pointer(cb, pc)
    return cb[cbw.CODE_COPY] if access.fetch(cb, pc, cb[cbw.CODE_COPY], size) == size else 0


@compiled
def guess_count(size: int) -> int:
    """Instructions in code that the guest took from under its own feet: the engine still runs the block that it has cached."""
    return (size + 3) >> 2


@compiled
def count_code(cb: object, pc: int, size: int) -> int:
    """The number of instructions in `size` bytes at a linear address."""
    if size <= 0:
        return 0
    pointer = code_at(cb, pc, size)
    return count_insns(pointer, size, env.code_bits(cb[cbw.ENV])) if pointer else guess_count(size)


@compiled
def may_change_unseen(cb: object, pc: int) -> bool:
    """Whether code at a linear address lies on a MIXED page."""
    if access.is_known_code(cb, pc):
        return False
    _fault, ppn = walk.peek(cb, pc)
    return pmap.entry(cb, pmap.slot_of(cb, ppn)) & pmap.MIXED != 0


@compiled
def mark_code(cb: object, pc: int) -> None:
    """Note that the page at a linear address is run from, where no fault tells."""
    fault, ppn = walk.peek(cb, pc)
    slot = pmap.slot_of(cb, ppn)
    word = pmap.entry(cb, slot)
    if fault == walk.NO_FAULT and (pmap.state(word) == pmap.PRESENT_PAGE or pmap.state(word) == pmap.SHARED):
        pmap.set_entry(cb, slot, pmap.entry(cb, slot) | pmap.EXECUTED)


@compiled
def decode_block(cb: object, pc: int, size: int) -> int:
    """Count a block's instructions and remember them; returns the entry's host address, NO_ENTRY for a block that may not be run."""
    context.save(cb)
    pointer = code_at(cb, pc, size)
    insns, at_refused = guess_count(size), refused.NONE
    if pointer:
        insns, at_refused = refused.scan(pointer, size, env.code_bits(cb[cbw.ENV]))
    if at_refused != refused.NONE:
        cb[cbw.EXIT_INFO] = pc + at_refused
        return NO_ENTRY
    if cb[cbw.NESTED_PLAIN]:
        mark_code(cb, pc)
        mark_code(cb, pc + size - 1)
    at = entry_of(cb, pc)
    if may_change_unseen(cb, pc) or may_change_unseen(cb, pc + size - 1):
        at = cb[cbw.BLOCKS] + TABLE_ENTRIES * ENTRY_BYTES  # the one entry that is never looked up
    store64(at, pc & PC_MASK | size << SIZE_SHIFT)
    store64(at + 8, cb[cbw.CODE_TAG] | insns)
    return at


@compiled
def block_start(entry: int) -> int:
    """The linear address in the first word of an entry of the block table."""
    return (entry & PC_MASK ^ 1 << PC_BITS - 1) - (1 << PC_BITS - 1)


@compiled
def insns_retired(cb: object) -> int:
    """Instructions of the block under way that are done, by CONTEXT's EIP; all of them once it has left the block."""
    at = cb[cbw.BLOCK]
    pc, size = block_start(load64(at)), load64(at) >> SIZE_SHIFT & COUNT_MASK
    done = env.linear_ip(cb[cbw.ENV]) - pc & 0xFFFF_FFFF
    if done >= size:
        return load64(at + 8) & COUNT_MASK
    return count_code(cb, pc, done)


@compiled
def length_before(cb: object) -> int:
    """The length of the instruction that ends at CONTEXT's EIP, within the block under way; 0 if that is not known."""
    at = cb[cbw.BLOCK]
    if not at:
        return 0
    pc = block_start(load64(at))
    size = env.linear_ip(cb[cbw.ENV]) - pc & 0xFFFF_FFFF
    if size > 0x1000 or access.fetch(cb, pc, cb[cbw.CODE_COPY], size) != size:
        return 0
    done = 0
    length = 0
    while done < size:
        length = insn_length(cb[cbw.CODE_COPY] + done, size - done, env.code_bits(cb[cbw.ENV]))
        if length <= 0:
            return 0
        done += length
    return length


@compiled
def leave_block(cb: object) -> None:
    """At an exit: take back the instructions of the block under way that did not retire, RIP's own included."""
    at = cb[cbw.BLOCK]
    if at:
        cb[cbw.INSNS] -= (load64(at + 8) & COUNT_MASK) - insns_retired(cb)
        cb[cbw.BLOCK] = 0


@compiled
def now_in_block(cb: object) -> int:
    """Virtual time of the instruction at CONTEXT's EIP, within the block under way."""
    at = cb[cbw.BLOCK]
    if not at:
        return cb[cbw.INSNS]
    return cb[cbw.INSNS] - (load64(at + 8) & COUNT_MASK) + insns_retired(cb)


@compiled
def may_interrupt(cb: object) -> bool:
    """Whether the guest, as CONTEXT has it, takes a hardware interrupt now: IF set, no shadow of STI or MOV SS."""
    regs = cb[cbw.ENV]
    if cb[cbw.STEPPING] or not load64(regs + env.EFLAGS) & pg.EFLAGS_IF:
        return False
    return not load32(regs + env.HFLAGS) & env.HF_INHIBIT_IRQ


@compiled
def may_take_nmi(cb: object) -> bool:
    """Whether the guest, as CONTEXT has it, takes an NMI now: not between one and its IRET, nor in the shadow of STI or MOV SS."""
    regs = cb[cbw.ENV]
    if cb[cbw.STEPPING] or load32(regs + env.HFLAGS2) & env.HF2_NMI:
        return False
    return not load32(regs + env.HFLAGS) & env.HF_INHIBIT_IRQ


@compiled
def may_take_waiting(cb: object) -> bool:
    """Whether the guest takes an interrupt or NMI that waits."""
    if cb[cbw.NMI_WAITING] and may_take_nmi(cb):
        return True
    return cb[cbw.IRQ_WAITING] != 0 and may_interrupt(cb)


@compiled
def takes_interrupt(cb: object) -> bool:
    """Whether the guest, at rest between two blocks, would stop for what waits before the next: what `reason_to_stop` says then."""
    if cb[cbw.PENDING_FAULT] or cb[cbw.IO_POISONED] or cb[cbw.STOPPED] or cb[cbw.STALL] or cb[cbw.INSNS] >= cb[cbw.DEADLINE]:
        return False
    return cb[cbw.RESERVE_COUNT] >= reasons.RESERVE_LOW and not ring_is_nearly_full(cb) and may_take_waiting(cb)


@compiled
def reason_to_stop(cb: object) -> int:
    """At a block's entry with WAKE reached: why to stop here, RUNNING to go on."""
    if cb[cbw.PENDING_FAULT]:
        return reasons.PORT_FAULT
    if cb[cbw.RESERVE_COUNT] < reasons.RESERVE_LOW or ring_is_nearly_full(cb):
        return reasons.REFILL
    if cb[cbw.STOPPED] or cb[cbw.STALL] or cb[cbw.INSNS] >= cb[cbw.DEADLINE]:
        return reasons.TIME
    if cb[cbw.IRQ_WAITING] or cb[cbw.NMI_WAITING]:
        context.save(cb)
        if may_take_waiting(cb):
            return reasons.WINDOW
    else:
        cb[cbw.WAKE] = cb[cbw.DEADLINE]
    return reasons.RUNNING


@compiled
def entry_of(cb: object, pc: int) -> int:
    """Host address of the table entry for a block at a linear address."""
    return cb[cbw.BLOCKS] + ((pc ^ pc >> 12 ^ cb[cbw.CODE_TAG] >> SALT_SHIFT) & TABLE_ENTRIES - 1) * ENTRY_BYTES


@compiled
def is_nested_task(regs: int) -> bool:
    """Whether IRET returns to another task, by the registers at a host address: EFLAGS.NT, in protected mode of 32 or 16 bits."""
    flags, hidden = load64(regs + env.EFLAGS), load32(regs + env.HFLAGS)
    if not flags & pg.EFLAGS_NT or flags & pg.EFLAGS_VM:
        return False
    return hidden & (env.HF_PE | env.HF_LMA) == env.HF_PE


@compiled
def intercept_return(cb: object, wanted: bool) -> None:
    """Have the engine exit at each IRET, or not.

    IRET to another task must not be the engine's; any other is none of the VMM's business. NT changes at the end of a block only, so the
    hook sees it set before an IRET can run with it.
    """
    at = cb[cbw.INTERCEPTS_AT]
    word = load64(at)
    store64(at, word | vmcb.INTERCEPT_IRET if wanted else word & ~vmcb.INTERCEPT_IRET)


@compiled
def note_translated(cb: object) -> None:
    """The engine has translated a block: where no fault tells of changed code, what is known of blocks may be wrong."""
    if cb[cbw.NESTED_PLAIN]:
        cb[cbw.CODE_EPOCH] += 1
        refresh_tag(cb)


@compiled
def enter_block(cb: object, pc: int, size: int) -> None:
    """At a block's entry, what the hook leaves to do: stop before the block if there is reason to, else decode it."""
    if is_nested_task(cb[cbw.LIVE]):
        intercept_return(cb, True)
    if cb[cbw.INSNS] >= cb[cbw.WAKE]:
        reason = reason_to_stop(cb)
        if reason != reasons.RUNNING:
            cb[cbw.BLOCK] = 0
            context.save(cb)
            fault_runs.end(cb)
            stop(cb, reason)
            return
    at = entry_of(cb, pc)
    if load64(at) != pc & PC_MASK | size << SIZE_SHIFT or load64(at + 8) & ~COUNT_MASK != cb[cbw.CODE_TAG]:
        at = decode_block(cb, pc, size)
        if at == NO_ENTRY:
            cb[cbw.BLOCK] = 0
            stop(cb, reasons.REFUSED)
            return
    cb[cbw.INSNS] += load64(at + 8) & COUNT_MASK
    cb[cbw.BLOCK] = at
