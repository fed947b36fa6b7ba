"""SYSCALL and SYSENTER, which the engine leaves to hooks (SYSRET and SYSEXIT it carries out itself).

AMD64 APM vol. 3, SYSCALL and SYSENTER; vol. 2, section 6.1. The engine adds the instruction's length to RIP when its hook returns, so RIP
is left that much short of the entry point.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.machine.native import compiled, load64, store64
from emu.vm.gates import GP, UD, read_flags, set_flags
from emu.vm.record import emit

FLAT_CODE = env.FLAG_PRESENT | env.FLAG_SYSTEM_NOT | env.FLAG_CODE | env.FLAG_WRITABLE | env.FLAG_ACCESSED | env.FLAG_GRANULAR
FLAT_STACK = env.FLAG_PRESENT | env.FLAG_SYSTEM_NOT | env.FLAG_WRITABLE | env.FLAG_ACCESSED | env.FLAG_GRANULAR | env.FLAG_BIG
STAR_SELECTORS_SHIFT = 32
SELECTOR = 0xFFFC  # without the requested privilege level
_SYSTEM_CALL = int(Kind.SYSTEM_CALL)


@compiled
def fault_of_syscall(cb: object) -> int:
    """Vector + 1 of SYSCALL's fault, 0 for none: #UD unless EFER.SCE is set, in protected mode."""
    if cb[cbw.GUEST_EFER] & pg.EFER_SCE and cb[cbw.GUEST_CR0] & pg.CR0_PE:
        return 0
    return UD + 1


@compiled
def fault_of_sysenter(cb: object) -> int:
    """The same for SYSENTER: AMD's processors do not have it in long mode; #GP in real mode and without a code segment."""
    if cb[cbw.GUEST_EFER] & pg.EFER_LMA:
        return UD + 1
    if not cb[cbw.GUEST_CR0] & pg.CR0_PE or not load64(cb[cbw.SYSENTER_CS_AT]) & SELECTOR:
        return GP + 1
    return 0


@compiled
def enter_flat(cb: object, selector: int, code: int, flags: int, target: int, length: int) -> None:
    """Load flat segments of ring 0, the flags and the entry point, less the instruction's length."""
    regs = cb[cbw.ENV]
    env.set_segment(regs, env.CS, selector, 0, 0xFFFF_FFFF, FLAT_CODE | code)
    env.set_segment(regs, env.SS, selector + 8, 0, 0xFFFF_FFFF, FLAT_STACK)
    set_flags(cb, flags)
    store64(regs + env.EIP, target - length)
    env.refresh_hidden_flags(regs, 0)
    emit(cb, _SYSTEM_CALL, 0, 0, -1, -1, 0, target)


@compiled
def enter_by_syscall(cb: object, length: int) -> None:
    """The effect of a SYSCALL of `length` bytes at RIP, in CONTEXT."""
    regs = cb[cbw.ENV]
    star = load64(cb[cbw.STAR_AT])
    following = load64(regs + env.EIP) + length & env.instruction_mask(regs)
    flags = read_flags(cb) & ~pg.EFLAGS_RF
    store64(regs + env.RCX, following)
    selector = star >> STAR_SELECTORS_SHIFT & SELECTOR
    if cb[cbw.GUEST_EFER] & pg.EFER_LMA:
        target = cb[cbw.GUEST_LSTAR] if env.is_64bit(regs) else cb[cbw.GUEST_CSTAR]
        store64(regs + env.REGS + 8 * 11, flags)
        enter_flat(cb, selector, env.FLAG_LONG, flags & ~(cb[cbw.GUEST_SFMASK] & 0xFFFF_FFFF), target, length)
    else:
        enter_flat(cb, selector, env.FLAG_BIG, flags & ~(pg.EFLAGS_IF | pg.EFLAGS_VM), star & 0xFFFF_FFFF, length)


@compiled
def enter_by_sysenter(cb: object, length: int) -> None:
    """The effect of a SYSENTER of `length` bytes at RIP, in CONTEXT."""
    flags = read_flags(cb) & ~(pg.EFLAGS_RF | pg.EFLAGS_IF | pg.EFLAGS_VM)
    store64(cb[cbw.ENV] + env.RSP, load64(cb[cbw.SYSENTER_ESP_AT]) & 0xFFFF_FFFF)
    target = load64(cb[cbw.SYSENTER_EIP_AT]) & 0xFFFF_FFFF
    enter_flat(cb, load64(cb[cbw.SYSENTER_CS_AT]) & SELECTOR, env.FLAG_BIG, flags, target, length)
