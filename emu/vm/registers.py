"""Control-register, INVLPG and time-stamp exits, served natively, and what follows from CR0, CR4 and EFER together.

The guest's CR0, CR3, CR4 and EFER live in the control block; the engine's differ (a shadow root in CR3; PAE, NX and write
protection always on). Which tables the engine walks follows from the guest's CR0.PG and the VM's MMU.
"""

from __future__ import annotations

from emu.events import Kind
from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.machine.decode import ESCAPE_0F, OPERAND_SIZE, all_prefixes, insn_length, is_wide, operand_of
from emu.machine.native import call3, compiled, load8, load32, load64, store32, store64
from emu.vm import code, context, deliver, nested, rows, shadow, sync, walk
from emu.vm.record import emit

REG_CR0, REG_CR3, REG_CR4 = 50, 53, 54  # UC_X86_REG_CR*, as emu.machine.cpu checks
SERVED, FAULT_GP, FAULT_UD, NO_FRAME, TO_PYTHON, SHUTDOWN = 0, 1, 2, 3, 4, 5
CR0_KEPT = (
    pg.CR0_PE
    | pg.CR0_MP
    | pg.CR0_EM
    | pg.CR0_TS
    | pg.CR0_ET
    | pg.CR0_NE
    | pg.CR0_WP
    | pg.CR0_AM
    | pg.CR0_NW
    | pg.CR0_CD
    | pg.CR0_PG
)
CR4_ALLOWED = (
    pg.CR4_TSD
    | pg.CR4_DE
    | pg.CR4_PSE
    | pg.CR4_PAE
    | pg.CR4_MCE
    | pg.CR4_PGE
    | pg.CR4_OSFXSR
    | pg.CR4_OSXMMEXCPT
    | pg.CR4_FSGSBASE
    | pg.CR4_SMEP
    | pg.CR4_SMAP
)
CR4_FLUSHING = pg.CR4_PSE | pg.CR4_PGE | pg.CR4_PAE | pg.CR4_SMEP | pg.CR4_SMAP
CR4_MEANING = pg.CR4_PSE | pg.CR4_PAE | pg.CR4_SMEP | pg.CR4_SMAP  # bits with which shadow entries change their meaning
CR0_LOADING = pg.CR0_CD | pg.CR0_NW | pg.CR0_PG  # bits whose change loads the directory pointers of PAE (SDM vol. 3, 4.4.1)
CR4_LOADING = pg.CR4_PAE | pg.CR4_PGE | pg.CR4_PSE | pg.CR4_SMEP
EFER_ALLOWED = pg.EFER_SCE | pg.EFER_LME | pg.EFER_LMA | pg.EFER_NXE
CR3_RESERVED = ~((1 << pg.PHYSICAL_BITS) - 1)
TASK_AVAILABLE_16, TASK_BUSY_16 = 1, 3  # types of a task state segment that long mode does not know
DR6_SINGLE_STEP = 1 << 14  # BS
LMSW_BITS = pg.CR0_PE | pg.CR0_MP | pg.CR0_EM | pg.CR0_TS
_CR3_LOAD, _CR_WRITE, _INVLPG, _RDTSC = (
    int(Kind.CR3_LOAD),
    int(Kind.CR_WRITE),
    int(Kind.INVLPG),
    int(Kind.RDTSC),
)
TASK_PRIORITY = 8  # CR8
OPCODE_MOV_FROM_CR, OPCODE_MOV_TO_CR, OPCODE_CLTS, OPCODE_GROUP7 = 0x20, 0x22, 0x06, 0x01


@compiled
def retire(cb: object, length: int) -> None:
    """The VMM carried out the instruction at RIP: step over it and count it."""
    regs = cb[cbw.ENV]
    store64(regs + env.EIP, load64(regs + env.EIP) + length & env.instruction_mask(regs))
    store32(regs + env.HFLAGS, load32(regs + env.HFLAGS) & ~env.HF_INHIBIT_IRQ)
    flags = load64(regs + env.EFLAGS) & ~pg.EFLAGS_RF
    store64(regs + env.EFLAGS, flags)
    cb[cbw.INSNS] += 1
    cb[cbw.MODIFIED] = 1
    if flags & pg.EFLAGS_TF:  # the guest traces itself: the trap is due after this instruction as after any other
        status = cb[cbw.ERROR_CODE] + env.DR6_FROM_ERROR_CODE
        store64(status, load64(status) | DR6_SINGLE_STEP)
        deliver.make_due(cb, deliver.DB, deliver.EXCEPTION, 0, 0)


@compiled
def write_engine_register(cb: object, register: int, value: int) -> None:
    """Set a control register of the engine, with all that the engine derives from it; CONTEXT follows."""
    if cb[cbw.MODIFIED]:
        context.put_back(cb)
    store64(cb[cbw.SCRATCH], value)
    call3(cb[cbw.FN_REG_WRITE], cb[cbw.ENGINE], register, cb[cbw.SCRATCH])
    context.save(cb)
    if register == REG_CR3:
        cb[cbw.ENGINE_CR3] = value


@compiled
def levels_due(cb: object) -> int:
    """The form of paging that the guest's control registers ask for."""
    if not cb[cbw.GUEST_CR0] & pg.CR0_PG:
        return pg.UNPAGED
    if not cb[cbw.GUEST_CR4] & pg.CR4_PAE:
        return pg.LEGACY
    return pg.LONG if cb[cbw.GUEST_EFER] & pg.EFER_LMA else pg.PAE


@compiled
def derive_paging(cb: object) -> None:
    """Bring what the walker goes by in line with the guest's control registers."""
    levels, reserved = levels_due(cb), pg.ADDRESS_RESERVED
    if levels == pg.PAE:
        reserved |= pg.PAE_RESERVED
    if not cb[cbw.GUEST_EFER] & pg.EFER_NXE:
        reserved |= pg.NO_EXECUTE
    cb[cbw.GUEST_LEVELS] = levels
    cb[cbw.GUEST_RESERVED] = reserved


@compiled
def set_engine_efer(cb: object) -> None:
    """Give the engine the EFER that is due: the guest's, with SVME, with NXE while shadow tables are walked, and with LMA.

    LMA in EFER alone, without the hidden flag that makes long mode, has one effect: far CALL and JMP to a task, a task gate or a 16-bit
    call gate give #GP before anything has changed. That is how the VMM sees them (`emu.vm.far_transfer`).
    """
    value = cb[cbw.GUEST_EFER] | pg.EFER_SVME | pg.EFER_LMA
    if not cb[cbw.GUEST_CR0] & pg.CR0_PG or cb[cbw.USE_SHADOW]:
        value |= pg.EFER_NXE
    store64(cb[cbw.EFER_AT], value)
    at = cb[cbw.ENV] + env.HFLAGS
    hidden = load32(at) & ~env.HF_LMA
    if cb[cbw.GUEST_EFER] & pg.EFER_LMA:
        hidden |= env.HF_LMA
    else:
        hidden &= ~env.HF_CS64
    store32(at, hidden)
    cb[cbw.MODIFIED] = 1


@compiled
def use_nested(cb: object, value: int) -> None:
    """Turn the engine's nested paging on or off."""
    at = cb[cbw.ENV] + env.HFLAGS2
    flags = load32(at)
    store32(at, flags | env.HF2_NESTED if value else flags & ~env.HF2_NESTED)
    cb[cbw.MODIFIED] = 1
    cb[cbw.NEEDS_TLB_FLUSH] = 1


@compiled
def engine_cr0(cb: object) -> int:
    """What the engine's CR0 must be for the guest's."""
    value = cb[cbw.GUEST_CR0]
    if value & pg.CR0_PG and cb[cbw.USE_SHADOW]:
        value |= pg.CR0_WP
    return value


@compiled
def set_root(cb: object) -> int:
    """Point the engine at the tables for the guest's CR3; 1 if a cached root was found, 0 if not, -1 without a frame."""
    if not cb[cbw.SHADOWING]:
        write_engine_register(cb, REG_CR3, cb[cbw.GUEST_CR3])
        return 1
    found = shadow.load_root(cb)
    if found < 0:
        return -1
    root = rows.row_word(cb, cb[cbw.ROOT], rows.FRAME) << 12
    if load64(cb[cbw.ENV] + env.CR3) != root:
        write_engine_register(cb, REG_CR3, root)
        if load64(cb[cbw.ENV] + env.CR0) & pg.CR0_PG:  # the engine has flushed its TLB with that
            code.note_flushed_tlb(cb)
    return found


@compiled
def follow_root(cb: object) -> None:
    """Point the engine at the root once more: it may have been dropped with its guest table and made anew in another frame."""
    root = rows.row_word(cb, cb[cbw.ROOT], rows.FRAME) << 12
    if root != cb[cbw.ENGINE_CR3]:
        write_engine_register(cb, REG_CR3, root)
        cb[cbw.NEEDS_TLB_FLUSH] = 1


@compiled
def set_paging(cb: object) -> int:
    """CR0, CR4 or EFER changed: choose the tables the engine walks; -1 without a frame."""
    levels = levels_due(cb)
    if cb[cbw.SHADOWING] and levels != cb[cbw.GUEST_LEVELS]:
        shadow.zap_all(cb)
    derive_paging(cb)
    if levels and cb[cbw.USE_SHADOW]:
        if not cb[cbw.SHADOWING]:
            cb[cbw.SHADOWING] = 1
            use_nested(cb, 0)
        write_engine_register(cb, REG_CR4, cb[cbw.GUEST_CR4] | pg.CR4_PAE)
        if set_root(cb) < 0:
            return -1
    else:
        if cb[cbw.SHADOWING]:
            cb[cbw.SHADOWING] = 0
            use_nested(cb, 1)
        nested.set_plain(cb, 1 if levels else 0)
        write_engine_register(cb, REG_CR4, cb[cbw.GUEST_CR4])
        write_engine_register(cb, REG_CR3, cb[cbw.GUEST_CR3])
    write_engine_register(cb, REG_CR0, engine_cr0(cb))
    set_engine_efer(cb)
    cb[cbw.CODE_EPOCH] += 1
    cb[cbw.NEEDS_TLB_FLUSH] = 1
    return 0


@compiled
def guest_flushed(cb: object) -> None:
    """The guest asked for a flush of its TLB: out-of-sync tables are read again.

    The engine's TLB knows no more than the shadow tables do, and is flushed if one of their entries becomes stricter.
    """
    if cb[cbw.SHADOWING]:
        sync.sync_all(cb)
    else:
        cb[cbw.NEEDS_TLB_FLUSH] = 1


@compiled
def refuses_pointers(cb: object, cr0: int, cr3: int, cr4: int) -> bool:
    """Whether loading the directory pointers of PAE is #GP: one that is present has a reserved bit set (SDM vol. 3, 4.4.1).

    The same under nested paging, where an AMD processor would see it at the pointer's use only: the guest's processor is one without.
    """
    if not cr0 & pg.CR0_PG or not cr4 & pg.CR4_PAE or cb[cbw.GUEST_EFER] & pg.EFER_LME:
        return False
    table = cr3 & 0xFFFF_FFE0
    for number in range(4):
        pointer = walk.read_quad(cb, table + 8 * number)
        if pointer & pg.PRESENT and pointer & pg.POINTER_RESERVED:
            return True
    return False


@compiled
def may_set_paging(cb: object) -> bool:
    """Whether CR0.PG may be set: long mode needs PAE, code that is not 64-bit and a task state of 32 bits (APM vol. 2, 14.6.1)."""
    if not cb[cbw.GUEST_EFER] & pg.EFER_LME:
        return True
    regs = cb[cbw.ENV]
    task = load32(regs + env.TR + env.FLAGS) >> 8 & 0xF
    if task == TASK_AVAILABLE_16 or task == TASK_BUSY_16:
        return False
    return cb[cbw.GUEST_CR4] & pg.CR4_PAE != 0 and not load32(regs + env.CS + env.FLAGS) & env.FLAG_LONG


@compiled
def write_cr0(cb: object, value: int) -> int:
    """MOV to CR0, LMSW or CLTS with the resulting value."""
    if value >> 32 or (value & pg.CR0_PG and not value & pg.CR0_PE) or (value & pg.CR0_NW and not value & pg.CR0_CD):
        return FAULT_GP
    old = cb[cbw.GUEST_CR0]
    new = value & CR0_KEPT | pg.CR0_ET
    turned = (old ^ new) & pg.CR0_PG
    if turned and (env.is_64bit(cb[cbw.ENV]) if old & pg.CR0_PG else not may_set_paging(cb)):
        return FAULT_GP
    if (old ^ new) & CR0_LOADING and refuses_pointers(cb, new, cb[cbw.GUEST_CR3], cb[cbw.GUEST_CR4]):
        return FAULT_GP
    old_efer = cb[cbw.GUEST_EFER]
    if turned:
        active = new & pg.CR0_PG and old_efer & pg.EFER_LME
        cb[cbw.GUEST_EFER] = old_efer & ~pg.EFER_LMA | (pg.EFER_LMA if active else 0)
    cb[cbw.GUEST_CR0] = new
    emit(cb, _CR_WRITE, 0, 0, -1, -1, old, new)
    if (old ^ new) & (pg.CR0_PG | pg.CR0_WP | pg.CR0_PE) and cb[cbw.SHADOWING]:
        guest_flushed(cb)
    if (old ^ new) & (pg.CR0_PG | pg.CR0_PE):
        failed = set_paging(cb) < 0
    else:
        failed = (old ^ new) & pg.CR0_WP and cb[cbw.SHADOWING] and set_root(cb) < 0
        write_engine_register(cb, REG_CR0, engine_cr0(cb))
    if failed:
        cb[cbw.GUEST_CR0], cb[cbw.GUEST_EFER] = old, old_efer
        derive_paging(cb)
        return NO_FRAME
    return SERVED


@compiled
def write_cr3(cb: object, value: int) -> int:
    """MOV to CR3: another address space, or the same one flushed."""
    if value & CR3_RESERVED or refuses_pointers(cb, cb[cbw.GUEST_CR0], value, cb[cbw.GUEST_CR4]):
        return FAULT_GP
    old = cb[cbw.GUEST_CR3]
    if cb[cbw.GUEST_CR0] & pg.CR0_PG:
        guest_flushed(cb)
    cb[cbw.GUEST_CR3] = value
    found = set_root(cb)
    if found < 0:
        cb[cbw.GUEST_CR3] = old
        return NO_FRAME
    root = rows.row_word(cb, cb[cbw.ROOT], rows.FRAME) if cb[cbw.SHADOWING] else -1
    emit(cb, _CR3_LOAD, found, 0, value >> 12, root, old, value)
    return SERVED


@compiled
def write_cr4(cb: object, value: int) -> int:
    """MOV to CR4: bits that the CPU does not have are refused, and PAE cannot be taken from long mode."""
    if value & ~CR4_ALLOWED or (cb[cbw.GUEST_EFER] & pg.EFER_LMA and not value & pg.CR4_PAE):
        return FAULT_GP
    old = cb[cbw.GUEST_CR4]
    if (old ^ value) & CR4_LOADING and refuses_pointers(cb, cb[cbw.GUEST_CR0], cb[cbw.GUEST_CR3], value):
        return FAULT_GP
    if cb[cbw.GUEST_CR0] & pg.CR0_PG and (old ^ value) & CR4_FLUSHING:
        guest_flushed(cb)
        if cb[cbw.SHADOWING] and (old ^ value) & CR4_MEANING:
            shadow.zap_all(cb)
    cb[cbw.GUEST_CR4] = value
    emit(cb, _CR_WRITE, 4, 0, -1, -1, old, value)
    if set_paging(cb) < 0:
        cb[cbw.GUEST_CR4] = old
        derive_paging(cb)
        return NO_FRAME
    return SERVED


@compiled
def write_efer(cb: object, value: int) -> int:
    """WRMSR to EFER: LMA follows LME and CR0.PG, and LME stands still while the guest pages (APM vol. 2, section 3.1.7)."""
    if value & ~EFER_ALLOWED:
        return FAULT_GP
    old = cb[cbw.GUEST_EFER]
    if (old ^ value) & pg.EFER_LME and cb[cbw.GUEST_CR0] & pg.CR0_PG:
        return FAULT_GP
    new = value & ~pg.EFER_LMA | old & pg.EFER_LMA
    if cb[cbw.GUEST_CR0] & pg.CR0_PG and (old ^ new) & pg.EFER_NXE:
        guest_flushed(cb)
        if cb[cbw.SHADOWING]:
            shadow.zap_all(cb)
    cb[cbw.GUEST_EFER] = new
    if set_paging(cb) < 0:
        cb[cbw.GUEST_EFER] = old
        derive_paging(cb)
        return NO_FRAME
    return SERVED


@compiled
def prefix_bytes(cb: object) -> int:
    """How many prefix bytes stand before the two-byte opcode at INSN_AT; -1 if it is none."""
    at, _prefixes = all_prefixes(cb[cbw.INSN_AT], cb[cbw.INSN_BYTES], env.code_bits(cb[cbw.ENV]))
    return at if at + 1 < cb[cbw.INSN_BYTES] and load8(cb[cbw.INSN_AT] + at) == ESCAPE_0F else -1


@compiled
def decode_operand(cb: object) -> tuple[int, int, int, int]:
    """(segment, offset or register, reg field, length) of the two-byte-opcode instruction at RIP."""
    regs = cb[cbw.ENV]
    return operand_of(cb[cbw.INSN_AT], env.code_bits(regs), regs + env.REGS, load64(regs + env.EIP))


@compiled
def register_value(cb: object, number: int) -> int:
    """A general register: 32 bits, or 64 in 64-bit code."""
    return load64(cb[cbw.ENV] + env.REGS + 8 * (number & 15)) & env.linear_mask(cb[cbw.ENV])


@compiled
def read_control(cb: object, number: int) -> int:
    """The guest's value of CR0, CR3 or CR4."""
    if number == 0:
        return cb[cbw.GUEST_CR0]
    if number == 3:
        return cb[cbw.GUEST_CR3]
    return cb[cbw.GUEST_CR4]


@compiled
def on_control_exit(cb: object) -> int:
    """An intercepted access to CR0, CR3 or CR4: MOV, LMSW, SMSW or CLTS. The caller has the instruction in INSN_AT."""
    at = prefix_bytes(cb)
    if at < 0:
        return TO_PYTHON
    opcode = load8(cb[cbw.INSN_AT] + at + 1)
    if opcode == OPCODE_CLTS:
        retire(cb, at + 2)
        return write_cr0(cb, cb[cbw.GUEST_CR0] & ~pg.CR0_TS)
    segment, operand, field, length = decode_operand(cb)
    if opcode == OPCODE_GROUP7:
        if field & 7 == 6:
            return load_machine_status(cb, segment, operand, length)
        return store_machine_status(cb, segment, operand, length)
    number = cb[cbw.EXIT_CODE] & 0xF  # the engine knows that LOCK turns CR0 into CR8
    if number == TASK_PRIORITY or (opcode != OPCODE_MOV_FROM_CR and opcode != OPCODE_MOV_TO_CR):
        return TO_PYTHON
    if opcode == OPCODE_MOV_FROM_CR:
        store64(cb[cbw.ENV] + env.REGS + 8 * (operand & 15), read_control(cb, number))
        retire(cb, length)
        return SERVED
    return move_to_control(cb, number, register_value(cb, operand), length)


@compiled
def move_to_control(cb: object, number: int, value: int, length: int) -> int:
    """MOV to CR0, CR3 or CR4; nothing is changed unless it succeeds."""
    if number == 0:
        result = write_cr0(cb, value)
    elif number == 3:
        result = write_cr3(cb, value)
    else:
        result = write_cr4(cb, value)
    if result == SERVED:
        retire(cb, length)
    return result


@compiled
def load_machine_status(cb: object, segment: int, operand: int, length: int) -> int:
    """LMSW: the low four bits of CR0; PE can be set but not cleared."""
    if segment >= 0:
        return TO_PYTHON
    value = register_value(cb, operand) & LMSW_BITS | cb[cbw.GUEST_CR0] & pg.CR0_PE
    result = write_cr0(cb, cb[cbw.GUEST_CR0] & ~LMSW_BITS | value)
    if result == SERVED:
        retire(cb, length)
    return result


@compiled
def store_machine_status(cb: object, segment: int, operand: int, length: int) -> int:
    """SMSW to a register: all of CR0 but with 16-bit operands, as processors do; to memory Python serves it."""
    if segment >= 0:
        return TO_PYTHON
    at = cb[cbw.ENV] + env.REGS + 8 * (operand & 15)
    mode = env.code_bits(cb[cbw.ENV])
    _count, prefixes = all_prefixes(cb[cbw.INSN_AT], cb[cbw.INSN_BYTES], mode)
    if is_wide(mode, prefixes, OPERAND_SIZE):
        store64(at, cb[cbw.GUEST_CR0])
    else:
        store64(at, load64(at) & ~0xFFFF | cb[cbw.GUEST_CR0] & 0xFFFF)
    retire(cb, length)
    return SERVED


@compiled
def sync_address(cb: object, va: int) -> None:
    """The guest invalidated one address: read the entry that maps it, if its table is out of sync.

    Where the shadow's entry for it can be reached at this address alone, it is the only one that the engine's TLB may have to forget.
    """
    sync.sync_pointers(cb)
    if cb[cbw.NEEDS_TLB_FLUSH]:
        sync.sync_entry(cb, va)
        return
    sync.sync_entry(cb, va)
    if cb[cbw.NEEDS_TLB_FLUSH] and sync.is_mapped_once(cb, va):
        code.flush_engine_page(cb, va)


@compiled
def on_invlpg(cb: object) -> int:
    """INVLPG: one address is no longer what the guest's TLB may have."""
    segment, offset, _field, length = decode_operand(cb)
    if segment < 0:
        return FAULT_UD
    va = env.segment_base(cb[cbw.ENV], segment) + offset & env.linear_mask(cb[cbw.ENV])
    if not cb[cbw.SHADOWING]:
        cb[cbw.CODE_EPOCH] += 1
        cb[cbw.NEEDS_TLB_FLUSH] = 1
    elif cb[cbw.GUEST_LEVELS] != pg.LONG or walk.is_canonical(va):  # the engine's TLB knows no more than the shadow tables do
        sync_address(cb, va)
    emit(cb, _INVLPG, 0, va, -1, -1, 0, 0)
    retire(cb, length)
    return SERVED


@compiled
def on_rdtsc(cb: object) -> int:
    """RDTSC: virtual time; CR4.TSD keeps it from user code."""
    regs = cb[cbw.ENV]
    if cb[cbw.GUEST_CR4] & pg.CR4_TSD and env.cpl(regs) and cb[cbw.GUEST_CR0] & pg.CR0_PE:
        return FAULT_GP
    counter = cb[cbw.INSNS] + cb[cbw.TSC_OFFSET]
    emit(cb, _RDTSC, 0, 0, -1, -1, 0, counter)
    store64(regs + env.RAX, counter & 0xFFFF_FFFF)
    store64(regs + env.RDX, counter >> 32 & 0xFFFF_FFFF)
    retire(cb, insn_length(cb[cbw.INSN_AT], cb[cbw.INSN_BYTES], env.code_bits(regs)))
    return SERVED
