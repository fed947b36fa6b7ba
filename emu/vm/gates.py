"""Entering a handler in real, protected and virtual-8086 mode: vector table, gates, stack switch and frame.

Real mode goes through the interrupt vector table, protected mode through IDT gates with privilege and stack switch, virtual-8086
mode included (Intel SDM vol. 3, chapters 6 and 20; AMD64 APM vol. 2, chapter 8). Everything is read and written with the guest's
own tables, and nothing of the guest's registers changes before the whole frame is on its stack. Each way of entering answers
(vector, error code) of the fault that it met, or (NONE, 0).
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.machine.native import call3, compiled, load32, load64, store32, store64
from emu.vm import access, walk

EXCEPTION, SOFTWARE, HARDWARE = 0, 1, 2  # sources of an event
NONE = -1  # no fault met
NOWHERE = -1  # in place of an address: no canonical one is odd and negative as a descriptor's

DE, DB, NMI, BP, OF, UD, NM, DF, TS, NP, SS, GP, PF, AC = 0, 1, 2, 3, 4, 6, 7, 8, 10, 11, 12, 13, 14, 17
HAS_ERROR_CODE = 1 << DF | 1 << TS | 1 << NP | 1 << SS | 1 << GP | 1 << PF | 1 << AC
CONTRIBUTORY = 1 << DE | 1 << TS | 1 << NP | 1 << SS | 1 << GP
TRAPS = 1 << DB | 1 << BP | 1 << OF  # exceptions whose frame does not get RF

EXTERNAL = 1  # EXT bit of an error code: not caused by INT n
IN_IDT = 2  # IDT bit: the index is a gate's
GATE_TASK, GATE_INT16, GATE_TRAP16, GATE_INT32, GATE_TRAP32 = 5, 6, 7, 14, 15
FLAGS_REGISTER = 25  # UC_X86_REG_EFLAGS
TASK_SWITCH = 0x100  # in place of a vector: a task gate was met; the selector stands in place of the error code
ACCESS_BYTE = 5  # of a descriptor: type, DPL, P
SELECTOR = 0xFFFC  # without the requested privilege level

# How a task switch is asked for and answers, as one number (`emu.vm.task_switch`).
VECTOR_SHIFT, SOURCE_SHIFT = 16, 24  # of an event that meets a task gate, above the gate's selector
CODE_SHIFT = 8  # of an error code, above the vector
IN_NEW_TASK = 1 << 24  # the fault is the new task's
STARVED = -2  # in place of an answer: frames are missing, and nothing has changed


@compiled
def read_flags(cb: object) -> int:
    """The guest's EFLAGS: from CONTEXT, but for the arithmetic flags, which only the live engine can work out."""
    store64(cb[cbw.SCRATCH], 0)
    call3(cb[cbw.FN_REG_READ], cb[cbw.ENGINE], FLAGS_REGISTER, cb[cbw.SCRATCH])
    kept_apart = pg.EFLAGS_ARITHMETIC | pg.EFLAGS_DF
    return load32(cb[cbw.SCRATCH]) & kept_apart | load64(cb[cbw.ENV] + env.EFLAGS) & ~kept_apart & 0xFFFF_FFFF


@compiled
def set_flags(cb: object, flags: int) -> None:
    """Put all of the guest's EFLAGS into CONTEXT."""
    regs = cb[cbw.ENV]
    kept_apart = pg.EFLAGS_ARITHMETIC | pg.EFLAGS_DF
    store64(regs + env.EFLAGS, flags & ~kept_apart | pg.EFLAGS_FIXED)
    store64(regs + env.CC_SRC, flags & pg.EFLAGS_ARITHMETIC)
    store32(regs + env.CC_OP, cb[cbw.CC_OP_EFLAGS])
    store32(regs + env.DF, -1 if flags & pg.EFLAGS_DF else 1)


@compiled
def descriptor_address(cb: object, selector: int) -> int:
    """Linear address of a selector's descriptor, NOWHERE if it is beyond its table."""
    table = cb[cbw.ENV] + (env.LDTR if selector & 4 else env.GDTR)
    if (selector | 7) > load32(table + env.LIMIT):
        return NOWHERE
    return load64(table + env.BASE) + (selector & ~7)


@compiled
def descriptor_base(low: int, high: int) -> int:
    """Base of a segment descriptor."""
    return low >> 16 & 0xFFFF | (high & 0xFF) << 16 | high & 0xFF00_0000


@compiled
def descriptor_limit(low: int, high: int) -> int:
    """Limit of a segment descriptor, in bytes."""
    limit = low & 0xFFFF | high & 0xF_0000
    return limit << 12 | 0xFFF if high & env.FLAG_GRANULAR else limit


@compiled
def read_pair(cb: object, address: int) -> tuple[int, int, int]:
    """(fault, low, high): the two words of a descriptor or gate, read as the supervisor."""
    fault, both = access.linear_load(cb, address, 8, walk.IMPLICIT)
    return fault, both & 0xFFFF_FFFF, both >> 32 & 0xFFFF_FFFF


@compiled
def mark_accessed(cb: object, selector: int, high: int) -> int:
    """Set the accessed bit in a descriptor that a segment register gets loaded from; OK or what the walk found."""
    if high & env.FLAG_ACCESSED:
        return access.OK
    at = descriptor_address(cb, selector) + ACCESS_BYTE
    return access.linear_store(cb, at, 1, (high | env.FLAG_ACCESSED) >> 8 & 0xFF, walk.IMPLICIT)


@compiled
def has_room(flags: int, limit: int, top: int, size: int) -> bool:
    """Whether `size` bytes below offset `top` lie inside a stack segment."""
    lowest = top - size
    if flags & env.FLAG_CONFORMING:  # expand-down: valid offsets are above the limit
        return lowest > limit
    return (lowest >= 0 and top - 1 <= limit) or (top == 0 and limit == 0xFFFF_FFFF)


@compiled
def push(cb: object, base: int, offset: int, mask: int, size: int, value: int, user: bool) -> int:
    """Store one item at stack offset `offset` (already lowered); OK or what the walk found."""
    return access.linear_store(cb, base + (offset & mask), size, value, stack_kind(cb, user))


@compiled
def stack_kind(cb: object, user: bool) -> int:
    """The kind of the pushes of a frame; EFLAGS.AC of interrupted user code does not count for the supervisor's."""
    if user:
        return pg.FAULT_USER
    return walk.IMPLICIT if env.cpl(cb[cbw.ENV]) == 3 else 0


@compiled
def met(fault: int, otherwise: int, external: int) -> tuple[int, int]:
    """(vector, error code) of what a walk found: a page fault, or `otherwise` with the EXT bit alone for an address that is none."""
    if fault == walk.NON_CANONICAL:
        return otherwise, external
    return PF, fault


# ---- real mode ------------------------------------------------------------------------------------------------------


@compiled
def through_vector_table(cb: object, vector: int, return_ip: int) -> tuple[int, int]:
    """(vector, error code) of the fault met, or (NONE, 0): delivery in real mode."""
    regs = cb[cbw.ENV]
    if vector * 4 + 3 > load32(regs + env.IDTR + env.LIMIT):
        return GP, 0
    _fault, pointer = access.linear_load(cb, load64(regs + env.IDTR + env.BASE) + vector * 4, 4, walk.IMPLICIT)
    sp = load64(regs + env.RSP)
    base = load64(regs + env.SS + env.BASE)
    flags = read_flags(cb)
    for number, value in ((1, flags), (2, load32(regs + env.CS)), (3, return_ip)):
        push(cb, base, sp - 2 * number, 0xFFFF, 2, value & 0xFFFF, False)
    store64(regs + env.RSP, (sp & ~0xFFFF) | (sp - 6 & 0xFFFF))
    store64(regs + env.EIP, pointer & 0xFFFF)
    store32(regs + env.CS, pointer >> 16 & 0xFFFF)
    store64(regs + env.CS + env.BASE, (pointer >> 16 & 0xFFFF) << 4)
    kept = load64(regs + env.EFLAGS) & ~(pg.EFLAGS_IF | pg.EFLAGS_TF | pg.EFLAGS_AC | pg.EFLAGS_RF)
    store64(regs + env.EFLAGS, kept)
    env.refresh_hidden_flags(regs, 0)
    return NONE, 0


# ---- protected mode -------------------------------------------------------------------------------------------------


@compiled
def read_gate(cb: object, vector: int, source: int) -> tuple[int, int, int, int]:
    """(fault vector, error code, low, high) of an IDT gate, its type, privilege and presence checked."""
    regs = cb[cbw.ENV]
    code = vector * 8 | IN_IDT | (0 if source == SOFTWARE else EXTERNAL)
    if vector * 8 + 7 > load32(regs + env.IDTR + env.LIMIT):
        return GP, code, 0, 0
    fault, low, high = read_pair(cb, load64(regs + env.IDTR + env.BASE) + vector * 8)
    if fault != access.OK:
        return PF, fault, 0, 0
    kind = high >> 8 & 0x1F
    if kind not in (GATE_TASK, GATE_INT16, GATE_TRAP16, GATE_INT32, GATE_TRAP32):
        return GP, code, 0, 0
    if source == SOFTWARE and high >> env.FLAG_DPL_SHIFT & 3 < env.cpl(regs):
        return GP, code, 0, 0
    if not high & env.FLAG_PRESENT:
        return NP, code, 0, 0
    if kind == GATE_TASK:
        return TASK_SWITCH, low >> 16 & 0xFFFF, 0, 0
    return NONE, 0, low, high


@compiled
def read_code_segment(cb: object, selector: int, external: int) -> tuple[int, int, int, int]:
    """(fault vector, error code, low, high) of a gate's code segment."""
    code = selector & 0xFFFC | external
    at = descriptor_address(cb, selector)
    if selector & 0xFFFC == 0 or at == NOWHERE:
        return GP, code, 0, 0
    fault, low, high = read_pair(cb, at)
    if fault != access.OK:
        vector, error = met(fault, GP, external)
        return vector, error, 0, 0
    is_code = high & env.FLAG_SYSTEM_NOT and high & env.FLAG_CODE
    if not is_code or high >> env.FLAG_DPL_SHIFT & 3 > env.cpl(cb[cbw.ENV]):
        return GP, code, 0, 0
    if not high & env.FLAG_PRESENT:
        return NP, code, low, high
    return NONE, 0, low, high


@compiled
def read_inner_stack(cb: object, privilege: int, external: int) -> tuple[int, int, int, int]:
    """(fault vector, error code, SS selector, ESP) for a privilege level, from the task state segment."""
    task = cb[cbw.ENV] + env.TR
    wide = load32(task + env.FLAGS) >> 8 & 8
    offset = 4 + privilege * 8 if wide else 2 + privilege * 4
    size = 4 if wide else 2
    if offset + size + 1 > load32(task + env.LIMIT):
        return TS, load32(task) & 0xFFFC | external, 0, 0
    at = load64(task + env.BASE) + offset
    fault, esp = access.linear_load(cb, at, size, walk.IMPLICIT)
    if fault != access.OK:
        return PF, fault, 0, 0
    fault, selector = access.linear_load(cb, at + size, 2, walk.IMPLICIT)
    if fault != access.OK:
        return PF, fault, 0, 0
    return NONE, 0, selector, esp


@compiled
def read_stack_segment(cb: object, selector: int, privilege: int, external: int) -> tuple[int, int, int, int]:
    """(fault vector, error code, low, high) of the stack segment that a switch to `privilege` loads."""
    code = selector & 0xFFFC | external
    at = descriptor_address(cb, selector)
    if selector & 0xFFFC == 0 or at == NOWHERE or selector & 3 != privilege:
        return TS, code, 0, 0
    fault, low, high = read_pair(cb, at)
    if fault != access.OK:
        return PF, fault, 0, 0
    writable = high & env.FLAG_SYSTEM_NOT and not high & env.FLAG_CODE and high & env.FLAG_WRITABLE
    if not writable or high >> env.FLAG_DPL_SHIFT & 3 != privilege:
        return TS, code, 0, 0
    if not high & env.FLAG_PRESENT:
        return SS, code, 0, 0
    return NONE, 0, low, high


@compiled
def frame_item(cb: object, item: int, return_ip: int, flags: int, error: int) -> int:
    """An item of the frame: 0 the error code, 1 IP, 2 CS, 3 FLAGS, 4 SP, 5 SS, 6..9 ES DS FS GS."""
    regs = cb[cbw.ENV]
    if item == 0:
        return error
    if item == 1:
        return return_ip
    if item == 3:
        return flags
    if item == 4:
        return load64(regs + env.RSP)
    if item == 2:
        return load32(regs + env.CS) & 0xFFFF
    if item == 5:
        return load32(regs + env.SS) & 0xFFFF
    return load32(regs + (env.ES, env.DS, env.FS, env.GS)[item - 6]) & 0xFFFF


@compiled
def push_frame(
    cb: object, base: int, esp: int, mask: int, size: int, items: int, first: int, flags: int, ip: int, error: int, user: bool
) -> tuple[int, int]:
    """(fault, new ESP): push items `items`-1 down to `first` of `frame_item`."""
    bottom, top = base + (esp - size * (items - first) & mask), base + (esp - size & mask)
    if size == 4 and bottom & ~0xFFF == top + size - 1 & ~0xFFF:  # a misaligned stack may cross pages within an item too
        fault, at = access.plain_place(cb, top, stack_kind(cb, user))
        if fault != access.OK:
            return fault, 0
        if at != access.NOWHERE:
            for item in range(items - 1, first - 1, -1):
                store32(at - size * (items - 1 - item), frame_item(cb, item, ip, flags, error))
            return access.OK, esp - size * (items - first)
    for item in range(items - 1, first - 1, -1):
        esp -= size
        fault = push(cb, base, esp, mask, size, frame_item(cb, item, ip, flags, error), user)
        if fault != access.OK:
            return fault, 0
    return access.OK, esp


@compiled
def enter_handler(cb: object, low: int, high: int, gate_low: int, gate_high: int, privilege: int) -> None:
    """Load CS:EIP and the flags of the handler."""
    regs = cb[cbw.ENV]
    kind = gate_high >> 8 & 0x1F
    offset = gate_low & 0xFFFF
    if kind & 8:
        offset |= gate_high & 0xFFFF_0000
    selector = gate_low >> 16 & 0xFFFC | privilege
    flags = high & env.FLAGS_KEPT | env.FLAG_ACCESSED
    env.set_segment(regs, env.CS, selector, descriptor_base(low, high), descriptor_limit(low, high), flags)
    store64(regs + env.EIP, offset)
    cleared = pg.EFLAGS_TF | pg.EFLAGS_VM | pg.EFLAGS_RF | pg.EFLAGS_NT
    if not kind & 1:
        cleared |= pg.EFLAGS_IF
    store64(regs + env.EFLAGS, load64(regs + env.EFLAGS) & ~cleared)
    env.refresh_hidden_flags(regs, privilege)


@compiled
def clear_data_segments(regs: int) -> None:
    """Leaving virtual-8086 mode: ES, DS, FS and GS become null."""
    for segment in (env.ES, env.DS, env.FS, env.GS):
        env.set_segment(regs, segment, 0, 0, 0, 0)


@compiled
def through_gate(cb: object, vector: int, source: int, error: int, return_ip: int) -> tuple[int, int]:
    """(vector, error code) of the fault met, or (NONE, 0): delivery in protected mode."""
    regs = cb[cbw.ENV]
    external = 0 if source == SOFTWARE else EXTERNAL
    bad, code, gate_low, gate_high = read_gate(cb, vector, source)
    if bad != NONE:
        return bad, code
    selector = gate_low >> 16 & 0xFFFF
    bad, code, low, high = read_code_segment(cb, selector, external)
    if bad != NONE:
        return bad, code
    current = env.cpl(regs)
    privilege = current if high & env.FLAG_CONFORMING else high >> env.FLAG_DPL_SHIFT & 3
    virtual_8086 = load64(regs + env.EFLAGS) & pg.EFLAGS_VM != 0
    if virtual_8086 and privilege != 0:
        return GP, selector & 0xFFFC | external
    size = 4 if gate_high >> 8 & 8 else 2
    first = 0 if source == EXCEPTION and HAS_ERROR_CODE >> vector & 1 else 1
    flags = read_flags(cb)
    if source == EXCEPTION and not TRAPS >> vector & 1:
        flags |= pg.EFLAGS_RF
    if privilege < current:
        items = 10 if virtual_8086 else 6
        return to_inner(
            cb, (gate_low, gate_high), (low, high), privilege, external, (size, items, first), (flags, return_ip, error)
        )
    stack = regs + env.SS
    mask = 0xFFFF_FFFF if load32(stack + env.FLAGS) & env.FLAG_BIG else 0xFFFF
    esp = load64(regs + env.RSP)
    if not has_room(load32(stack + env.FLAGS), load32(stack + env.LIMIT), esp & mask, size * (4 - first)):
        return SS, external
    user = privilege == 3
    fault, top = push_frame(cb, load64(stack + env.BASE), esp, mask, size, 4, first, flags, return_ip, error, user)
    if fault != access.OK:
        return PF, fault
    store64(regs + env.RSP, (esp & ~mask) | (top & mask))
    enter_handler(cb, low, high, gate_low, gate_high, privilege)
    return NONE, 0


@compiled
def to_inner(
    cb: object,
    gate: tuple[int, int],
    code_segment: tuple[int, int],
    privilege: int,
    external: int,
    shape: tuple[int, int, int],
    values: tuple[int, int, int],
) -> tuple[int, int]:
    """The part of `through_gate` that switches to the stack of an inner privilege level."""
    regs = cb[cbw.ENV]
    size, items, first = shape
    flags, return_ip, error = values
    bad, code, selector, esp = read_inner_stack(cb, privilege, external)
    if bad != NONE:
        return bad, code
    bad, code, low, high = read_stack_segment(cb, selector, privilege, external)
    if bad != NONE:
        return bad, code
    base, limit = descriptor_base(low, high), descriptor_limit(low, high)
    mask = 0xFFFF_FFFF if high & env.FLAG_BIG else 0xFFFF
    if not has_room(high, limit, esp & mask, size * (items - first)):
        return SS, selector & 0xFFFC | external
    fault, top = push_frame(cb, base, esp, mask, size, items, first, flags, return_ip, error, False)
    if fault != access.OK:
        return PF, fault
    if items > 6:
        clear_data_segments(regs)
    env.set_segment(regs, env.SS, selector & 0xFFFC | privilege, base, limit, high & env.FLAGS_KEPT | env.FLAG_ACCESSED)
    store64(regs + env.RSP, top & mask if mask == 0xFFFF_FFFF else (esp & ~mask) | (top & mask))
    enter_handler(cb, code_segment[0], code_segment[1], gate[0], gate[1], privilege)
    return NONE, 0
