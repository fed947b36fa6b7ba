"""Where the engine keeps a guest's registers: byte offsets into CPUX86State as `uc_context_save` copies it.

The layout is the engine's own and no interface of it, so `emu.machine.calibration` proves every field used here against the
public register functions at start-up and refuses to run on a library where one differs.
"""

from __future__ import annotations

from emu.machine.native import compiled, load32, load64, store32, store64

REGS = 0  # u64[16]: RAX RCX RDX RBX RSP RBP RSI RDI R8..R15
RAX, RCX, RDX, RBX, RSP = 0, 8, 16, 24, 32
EIP = 128
EFLAGS = 136  # without the arithmetic flags and DF
CC_SRC = 152
CC_OP = 168  # u32
DF = 172  # i32: 1 up, -1 down
HFLAGS = 176  # u32: see the HF_ bits
HFLAGS2 = 180
SEGMENTS = 184  # six of {u32 selector, u64 base at 8, u32 limit at 16, u32 flags at 20}: ES CS SS DS FS GS
SEGMENT_BYTES = 24
ES, CS, SS, DS, FS, GS = (184 + 24 * n for n in range(6))
LDTR, TR, GDTR, IDTR = (184 + 24 * n for n in range(6, 10))
BASE, LIMIT, FLAGS = 8, 16, 20  # within a segment
CR = 424  # u64[9]
CR0, CR2, CR3, CR4 = (424 + 8 * n for n in (0, 2, 3, 4))
PROVED_BYTES = 464  # the fields above end here

# Relative to error_code, whose own place differs between builds and is found with known faults.
IS_INT_FROM_ERROR_CODE = 4  # u32: 1 after INT n; while it stays 1 each exit moves EIP to NEXT_EIP, even that of a fault
NEXT_EIP_FROM_ERROR_CODE = 8  # u64: of the instruction after the INT n
DR_FROM_ERROR_CODE = 16  # u64[8]
DR6_FROM_ERROR_CODE = DR_FROM_ERROR_CODE + 48
DR7_FROM_ERROR_CODE = DR_FROM_ERROR_CODE + 56

# Descriptor flags as the engine keeps them: the second word of the descriptor.
FLAG_ACCESSED = 1 << 8
FLAG_WRITABLE = 1 << 9  # readable, for code
FLAG_CONFORMING = 1 << 10  # expand-down, for data
FLAG_CODE = 1 << 11
FLAG_SYSTEM_NOT = 1 << 12  # S: code or data
FLAG_DPL_SHIFT = 13
FLAG_PRESENT = 1 << 15
FLAG_LONG = 1 << 21  # L: 64-bit code
FLAG_BIG = 1 << 22  # D/B
FLAG_GRANULAR = 1 << 23
FLAGS_KEPT = 0x00F0_FF00  # what a segment register keeps of the second word

# Bits of HFLAGS that event delivery recomputes; the others follow CR0, CR4 and EFER.
HF_CPL = 3
HF_INHIBIT_IRQ = 1 << 3  # STI or MOV SS shadow
HF_CS32 = 1 << 4
HF_SS32 = 1 << 5
HF_ADDSEG = 1 << 6
HF_PE = 1 << 7
HF_LMA = 1 << 14
HF_CS64 = 1 << 15
HF_GUEST = 1 << 21
HF2_NESTED = 1 << 6
HF2_NMI = 1 << 2  # of HFLAGS2: NMIs are blocked; the engine's IRET clears it


@compiled
def cpl(env: int) -> int:
    """Current privilege level."""
    return load32(env + HFLAGS) & HF_CPL


@compiled
def code_bits(env: int) -> int:
    """Default address size of the running code: 16, 32 or 64."""
    hidden = load32(env + HFLAGS)
    if hidden & HF_CS64:
        return 64
    return 32 if hidden & HF_CS32 else 16


@compiled
def is_64bit(env: int) -> bool:
    """Whether 64-bit code runs."""
    return load32(env + HFLAGS) & HF_CS64 != 0


@compiled
def instruction_mask(env: int) -> int:
    """What the instruction pointer wraps at."""
    hidden = load32(env + HFLAGS)
    if hidden & HF_CS64:
        return -1
    return 0xFFFFFFFF if hidden & HF_CS32 else 0xFFFF


@compiled
def linear_mask(env: int) -> int:
    """What linear addresses wrap at."""
    return -1 if load32(env + HFLAGS) & HF_CS64 else 0xFFFFFFFF


@compiled
def system_mask(env: int) -> int:
    """What the addresses of descriptor tables and of the stacks of handlers wrap at."""
    return -1 if load32(env + HFLAGS) & HF_LMA else 0xFFFFFFFF


@compiled
def linear_ip(env: int) -> int:
    """Linear address of the instruction at CS:RIP."""
    return load64(env + CS + BASE) + load64(env + EIP) & linear_mask(env)


@compiled
def segment_base(env: int, segment: int) -> int:
    """Base of segment register 0 to 5 (ES CS SS DS FS GS); in 64-bit code only FS and GS have one."""
    if segment < 4 and load32(env + HFLAGS) & HF_CS64:
        return 0
    return load64(env + SEGMENTS + SEGMENT_BYTES * segment + BASE)


@compiled
def set_segment(env: int, segment: int, selector: int, base: int, limit: int, flags: int) -> None:
    """Fill one segment cache."""
    at = env + segment
    store32(at, selector)
    store64(at + BASE, base)
    store32(at + LIMIT, limit)
    store32(at + FLAGS, flags)


@compiled
def refresh_hidden_flags(env: int, privilege: int) -> None:
    """Recompute the hidden flags that follow from CS, SS, CPL, EFLAGS.VM and EFER.LMA."""
    hidden = load32(env + HFLAGS) & ~(HF_CPL | HF_CS32 | HF_SS32 | HF_CS64 | HF_ADDSEG | HF_INHIBIT_IRQ)
    hidden |= privilege
    if hidden & HF_LMA and load32(env + CS + FLAGS) & FLAG_LONG:
        store32(env + HFLAGS, hidden | HF_CS32 | HF_SS32 | HF_CS64)
        return
    if load32(env + CS + FLAGS) & FLAG_BIG:
        hidden |= HF_CS32
    if load32(env + SS + FLAGS) & FLAG_BIG:
        hidden |= HF_SS32
    bases = load64(env + DS + BASE) | load64(env + ES + BASE) | load64(env + SS + BASE)
    flat = hidden & HF_PE and not load64(env + EFLAGS) >> 17 & 1 and hidden & HF_CS32
    if not flat or bases:
        hidden |= HF_ADDSEG
    store32(env + HFLAGS, hidden)
