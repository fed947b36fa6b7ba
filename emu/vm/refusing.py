"""Instructions that the engine carries out and the guest's processor refuses (`emu.machine.refused`): #UD, exactly where they stand.

The block hook decodes each block that it does not know. Where it finds such an instruction nothing of the block runs: the VM stops, the
instruction's address becomes an *exit* of the engine, at which translated code ends as at a HLT, and what was translated is dropped. The
block is then translated anew, up to that address, and whoever gets there comes back as an exit for HLT.

    block that begins with a refused instruction --REFUSED--> #UD
    block with a refused instruction --REFUSED--> engine stops before it --exit of HLT--> #UD
                                                       |--another instruction there by now--> engine does not stop before it

Some of these the engine cannot even translate: it aborts, before any hook. `emu.machine.aborts` brings it back, and the block is looked
through here (GAVE_UP).
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine import env, refused
from emu.machine import paging as pg
from emu.machine.decode import all_prefixes
from emu.machine.native import compiled, load8, load64, types
from emu.vm import access, code, context, pmap, walk

HLT, ICEBP = 0xF4, 0xF1
OTHER, IS_HLT, IS_REFUSED = 0, 1, 2  # what stands at RIP
LONGEST_BLOCK = 0x1000  # bytes: the engine ends a block before that


@compiled
def insn_address(cb: object) -> int:
    """The address of the instruction at RIP as the engine counts it: not cut to 32 bits."""
    regs = cb[cbw.ENV]
    return load64(regs + env.CS + env.BASE) + load64(regs + env.EIP)


@compiled
def kind_at_rip(cb: object) -> int:
    """What an exit for HLT is about. The caller has the instruction in INSN_AT."""
    if is_refused_at_rip(cb):
        return IS_REFUSED
    return IS_HLT if opcode_of(cb) == HLT and env.cpl(cb[cbw.ENV]) == 0 else OTHER


@compiled
def opcode_of(cb: object) -> int:
    """The first byte of the opcode in INSN_AT, -1 if there is none."""
    at, size = cb[cbw.INSN_AT], cb[cbw.INSN_BYTES]
    skipped, _prefixes = all_prefixes(at, size, env.code_bits(cb[cbw.ENV]))
    return load8(at + skipped) if skipped < size else -1


@compiled
def is_icebp_at_rip(cb: object) -> bool:
    """Whether the invalid opcode that the engine found is ICEBP (F1), which it does not know: a #DB behind it, of which DR6 shows nothing."""
    access.fetch_instruction(cb)
    return opcode_of(cb) == ICEBP


@compiled
def is_refused_at_rip(cb: object) -> bool:
    """Whether the instruction in INSN_AT is refused."""
    return refused.is_refused(cb[cbw.INSN_AT], cb[cbw.INSN_BYTES], env.code_bits(cb[cbw.ENV]))


@compiled
def is_end_of_code(cb: object, va: int, seen: int) -> bool:
    """Whether a page fault is the engine's doing, which has an exit at a page's beginning, and is as good as that exit's.

    It makes a block of no bytes there, and looks for the page of the last, which is the one before. The guest fetches nothing from in front
    of RIP; where fetches are not told from loads, only an instruction that is refused is known not to load anything.
    """
    start = env.linear_ip(cb[cbw.ENV])
    if start & 0xFFF or va >> 12 != (start >> 12) - 1:
        return False
    if seen & pg.FAULT_FETCH:
        return True
    access.fetch_instruction(cb)
    return is_refused_at_rip(cb)


@compiled
def drop_code(cb: object, address: int) -> None:
    """Drop the engine's translated code of the page at a linear address."""
    _fault, ppn = walk.peek(cb, address & env.linear_mask(cb[cbw.ENV]))
    code.flush_frame(cb, pmap.entry(cb, pmap.slot_of(cb, ppn)) & pmap.MPN_MASK)


@compiled
def find_in_block(cb: object) -> bool:
    """Look for a refused instruction in the block that begins at RIP; its address goes to EXIT_INFO."""
    context.save(cb)
    cb[cbw.BLOCK] = 0
    start = insn_address(cb)
    size = access.fetch(cb, env.linear_ip(cb[cbw.ENV]), cb[cbw.CODE_COPY], LONGEST_BLOCK)
    _insns, at = refused.scan(cb[cbw.CODE_COPY], size, env.code_bits(cb[cbw.ENV]))
    cb[cbw.EXIT_INFO] = start + at
    return at != refused.NONE


def compile_for_python() -> None:
    """Compile what only Python calls."""
    words = types.Array(types.int64, 1, "C")
    for function in (insn_address, kind_at_rip, find_in_block):
        function.compile((words,))
    drop_code.compile((words, types.int64))
