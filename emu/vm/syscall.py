"""SYSCALL, which the engine leaves to a hook (SYSRET, SYSENTER and SYSEXIT it carries out itself).

AMD64 APM vol. 3, SYSCALL; vol. 2, section 6.1.1. The engine adds the instruction's length to RIP when its hook returns, so RIP
is left that much short of the entry point.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.machine.native import compiled, load64, store64
from emu.vm.gates import read_flags, set_flags
from emu.vm.record import emit

FLAT_CODE = env.FLAG_PRESENT | env.FLAG_SYSTEM_NOT | env.FLAG_CODE | env.FLAG_WRITABLE | env.FLAG_ACCESSED | env.FLAG_GRANULAR
FLAT_STACK = env.FLAG_PRESENT | env.FLAG_SYSTEM_NOT | env.FLAG_WRITABLE | env.FLAG_ACCESSED | env.FLAG_GRANULAR | env.FLAG_BIG
STAR_SELECTORS_SHIFT = 32
_SYSTEM_CALL = int(Kind.SYSTEM_CALL)


@compiled
def is_enabled(cb: object) -> bool:
    """Whether the guest has SYSCALL: EFER.SCE, in protected mode."""
    return cb[cbw.GUEST_EFER] & pg.EFER_SCE != 0 and cb[cbw.GUEST_CR0] & pg.CR0_PE != 0


@compiled
def enter(cb: object, length: int) -> None:
    """The effect of a SYSCALL of `length` bytes at RIP, in CONTEXT."""
    regs = cb[cbw.ENV]
    star = load64(cb[cbw.STAR_AT])
    following = load64(regs + env.EIP) + length & env.instruction_mask(regs)
    flags = read_flags(cb) & ~pg.EFLAGS_RF
    store64(regs + env.RCX, following)
    code = FLAT_CODE
    if cb[cbw.GUEST_EFER] & pg.EFER_LMA:
        target = cb[cbw.GUEST_LSTAR] if env.is_64bit(regs) else cb[cbw.GUEST_CSTAR]
        store64(regs + env.REGS + 8 * 11, flags)
        flags &= ~(cb[cbw.GUEST_SFMASK] & 0xFFFF_FFFF)
        code |= env.FLAG_LONG
    else:
        target = star & 0xFFFF_FFFF
        flags &= ~(pg.EFLAGS_IF | pg.EFLAGS_VM)
        code |= env.FLAG_BIG
    selector = star >> STAR_SELECTORS_SHIFT & 0xFFFC
    env.set_segment(regs, env.CS, selector, 0, 0xFFFF_FFFF, code)
    env.set_segment(regs, env.SS, selector + 8, 0, 0xFFFF_FFFF, FLAT_STACK)
    set_flags(cb, flags)
    store64(regs + env.EIP, target - length)
    env.refresh_hidden_flags(regs, 0)
    emit(cb, _SYSTEM_CALL, 0, 0, -1, -1, 0, target)
