"""Runs of faults: straight-line code in which one instruction after another comes to the VMM.

The engine translates code in blocks of up to some hundred instructions. An exit in the middle of a block has a new one translated from
there, so code that faults at each instruction would be translated over again, to the block's end, for each. In a run every instruction
is executed under the trap flag instead, with which a block is one instruction: two exits, and a translation that is short.

    no run --the faults of LONG instructions in a row: begin()--> in a run --the next exit or stop: end()--> no run

An instruction that would show the flag to the guest, or take it away, ends a run. The guest cannot tell: virtual time counts the same.

Here also is the count that tells when faults are served in vain.
"""

from __future__ import annotations

import numpy as np

from emu.machine import control as cbw
from emu.machine import decode, env
from emu.machine import paging as pg
from emu.machine.native import compiled, load8, load64, store64
from emu.vm import access

STUCK = 1000  # faults of an instruction that did not retire, and that the guest learned nothing of
LONG = 4  # faults in a row that make a run
ENABLED_BREAKPOINTS = 0xFF  # of DR7
FIRST_0F = 0x100  # in PLAIN
FPU = 0xD8  # its first opcode
GROUP_5, FAR_CALL, FAR_JUMP = 0xFF, 3, 5


def _plain_opcodes() -> np.ndarray:
    """By opcode, and from FIRST_0F on by the second one behind 0F: whether it neither sees nor sets EFLAGS as a whole, and stays in its code segment."""
    plain = np.zeros(0x200, np.uint8)
    plain[: FPU + 8] = 1
    # PUSH, POP and MOV of segment registers, the escape; BOUND, LES and LDS, or VEX and EVEX.
    plain[[0x06, 0x07, 0x0E, 0x0F, 0x16, 0x17, 0x1E, 0x1F, 0x8E, 0x62, 0xC4, 0xC5]] = 0
    # Far CALL, PUSHF, POPF, INS and OUTS, far RET, INT and IRET.
    plain[[0x9A, 0x9C, 0x9D, *range(0x6C, 0x70), *range(0xCA, 0xD0)]] = 0
    # Loops, near branches, single flags but for IF, groups.
    plain[[*range(0xE0, 0xE4), 0xE8, 0xE9, 0xEB, *range(0xF5, 0xFA), 0xFC, 0xFD, 0xFE, 0xFF]] = 1
    # Moves and arithmetic of vectors, CMOV, SETcc, bits, shifts, XADD, CMPXCHG.
    for part in (
        range(0x10, 0x18),
        range(0x28, 0x30),
        range(0x40, 0x80),
        range(0x90, 0xA0),
        range(0xBA, 0xC8),
        range(0xD0, 0x100),
    ):
        plain[[FIRST_0F + opcode for opcode in part]] = 1
    plain[[FIRST_0F + opcode for opcode in (0xA3, 0xA4, 0xA5, 0xAB, 0xAC, 0xAD, 0xAF, 0xB0, 0xB1, 0xB3, 0xB6, 0xB7)]] = 1
    return plain


PLAIN = _plain_opcodes()


@compiled
def note_fault(cb: object) -> bool:
    """Count a fault; true when faults are served in vain: so many, and no instruction retired, nor was an event delivered."""
    gap = cb[cbw.INSNS] - cb[cbw.FAULT_TIME]
    cb[cbw.FAULT_TIME] = cb[cbw.INSNS]
    if gap == 0:
        cb[cbw.SAME_FAULT] += 1
        return cb[cbw.SAME_FAULT] > STUCK
    cb[cbw.SAME_FAULT] = 0
    cb[cbw.FAULT_RUN] = cb[cbw.FAULT_RUN] + 1 if gap == 1 else 0
    return False


@compiled
def is_plain(cb: object) -> bool:
    """Whether the instruction at RIP may run under a trap flag that the guest did not set."""
    at = cb[cbw.CODE_COPY]
    size = access.fetch(cb, env.linear_ip(cb[cbw.ENV]), at, decode.MAX_LENGTH)
    done, prefixes = decode.skip_prefixes(at, size)
    if prefixes & (decode.REP | decode.REPNE):
        return False  # repeated: an iteration is a step of its own
    if env.is_64bit(cb[cbw.ENV]) and done < size and load8(at + done) >> 4 == decode.REX_PREFIX:
        done += 1
    if done + 1 >= size:
        return False
    opcode, second = load8(at + done), load8(at + done + 1)
    if opcode == decode.ESCAPE_0F:
        return PLAIN[FIRST_0F + second] != 0
    if opcode == GROUP_5 and (second >> 3 & 7 == FAR_CALL or second >> 3 & 7 == FAR_JUMP):
        return False
    return PLAIN[opcode] != 0


@compiled
def begin(cb: object) -> None:
    """After a fault or a step, if there is a run: execute the instruction at RIP alone."""
    flags = cb[cbw.ENV] + env.EFLAGS
    if cb[cbw.FAULT_RUN] < LONG or cb[cbw.STEPPING] or load64(flags) & pg.EFLAGS_TF:
        return
    if load64(cb[cbw.ERROR_CODE] + env.DR_FROM_ERROR_CODE + 8 * 7) & ENABLED_BREAKPOINTS or not is_plain(cb):
        return
    store64(flags, load64(flags) | pg.EFLAGS_TF)
    cb[cbw.IN_RUN] = 1
    cb[cbw.MODIFIED] = 1


@compiled
def end(cb: object) -> bool:
    """At every exit and stop: CONTEXT has the guest's own trap flag again; true if it did not."""
    if not cb[cbw.IN_RUN]:
        return False
    flags = cb[cbw.ENV] + env.EFLAGS
    store64(flags, load64(flags) & ~pg.EFLAGS_TF)
    cb[cbw.IN_RUN] = 0
    cb[cbw.MODIFIED] = 1
    return True
