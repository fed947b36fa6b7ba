"""x86 paging formats: one mask a line, for 32-bit entries and for the 64-bit ones of PAE, long mode, shadow and nested tables.

    31            12 11  9  8  7  6  5   4   3   2   1   0
    [ page frame   ][soft ][G][PS][D][A][PCD][PWT][U/S][R/W][P]        (64-bit entries: frame up to bit 51, NX in bit 63)

AMD64 Architecture Programmer's Manual vol. 2, chapter 5; Intel SDM vol. 3, chapter 4.
"""

from __future__ import annotations

PRESENT = 1 << 0
WRITABLE = 1 << 1
USER = 1 << 2
WRITE_THROUGH = 1 << 3
CACHE_DISABLE = 1 << 4
ACCESSED = 1 << 5
DIRTY = 1 << 6
LARGE = 1 << 7  # PS, in a directory entry
GLOBAL = 1 << 8
NO_EXECUTE = -(1 << 63)  # bit 63, as a signed word: native code has no unsigned ones
FRAME_MASK = 0x000F_FFFF_FFFF_F000  # frame of a 64-bit entry
FRAME32_MASK = 0xFFFF_F000  # frame of a 32-bit entry
LARGE32_FRAME = 0xFFC0_0000  # bits 31-22 of a 4 MB page's address
LARGE32_HIGH = 0x001F_E000  # PSE-36: bits 20-13 hold address bits 39-32
LARGE32_RESERVED = 0x0020_0000  # bit 21 must be zero
LARGE_PAT = 1 << 12  # of a 64-bit large page: not part of its address
PHYSICAL_BITS = 40  # of guest-physical addresses, as CPUID leaf 8000_0008 tells and the engine checks
ADDRESS_RESERVED = 0x000F_FFFF_FFFF_FFFF & ~((1 << PHYSICAL_BITS) - 1)  # bits 51-40 of a 64-bit entry
PAE_RESERVED = 0x7FF0_0000_0000_0000  # bits 62-52, which are software's in long mode only
POINTER_RESERVED_IN_ENGINE = (
    NO_EXECUTE | PAE_RESERVED | ADDRESS_RESERVED
)  # of a PAE directory pointer, as the engine walks under nested paging
POINTER_RESERVED = POINTER_RESERVED_IN_ENGINE | 0x1E6  # as the manuals say: it grants all rights

# Forms of guest paging, by their number of levels.
UNPAGED, LEGACY, PAE, LONG = 0, 2, 3, 4

# Rights that a walk collects: WRITABLE and USER as in an entry, and one that entries show by the absence of NX.
EXECUTABLE = 1 << 3
ALL_RIGHTS = WRITABLE | USER | EXECUTABLE

# Error code of a page fault.
FAULT_PRESENT = 1 << 0
FAULT_WRITE = 1 << 1
FAULT_USER = 1 << 2
FAULT_RESERVED = 1 << 3
FAULT_FETCH = 1 << 4

CR0_PE = 1 << 0
CR0_MP = 1 << 1
CR0_EM = 1 << 2
CR0_TS = 1 << 3
CR0_ET = 1 << 4
CR0_NE = 1 << 5
CR0_WP = 1 << 16
CR0_AM = 1 << 18
CR0_NW = 1 << 29
CR0_CD = 1 << 30
CR0_PG = 1 << 31

CR4_VME = 1 << 0
CR4_PVI = 1 << 1
CR4_TSD = 1 << 2
CR4_DE = 1 << 3
CR4_PSE = 1 << 4
CR4_PAE = 1 << 5
CR4_MCE = 1 << 6
CR4_PGE = 1 << 7
CR4_PCE = 1 << 8
CR4_OSFXSR = 1 << 9
CR4_OSXMMEXCPT = 1 << 10
CR4_FSGSBASE = 1 << 16
CR4_SMEP = 1 << 20
CR4_SMAP = 1 << 21

EFER_SCE = 1 << 0
EFER_LME = 1 << 8
EFER_LMA = 1 << 10
EFER_NXE = 1 << 11
EFER_SVME = 1 << 12

EFLAGS_CF = 1 << 0
EFLAGS_FIXED = 1 << 1
EFLAGS_TF = 1 << 8
EFLAGS_IF = 1 << 9
EFLAGS_DF = 1 << 10
EFLAGS_IOPL = 3 << 12
EFLAGS_NT = 1 << 14
EFLAGS_RF = 1 << 16
EFLAGS_VM = 1 << 17
EFLAGS_AC = 1 << 18
EFLAGS_ID = 1 << 21
EFLAGS_ARITHMETIC = 0x8D5  # OF SF ZF AF PF CF: kept apart by the engine


def fault_name(error_code: int) -> str:
    """The bits of a page-fault error code, as `P|W|U|RSVD|F` (`-` when none is set)."""
    names = ("P", "W", "U", "RSVD", "F")
    return "|".join(name for bit, name in enumerate(names) if error_code >> bit & 1) or "-"


def _assert_disjoint(*masks: int) -> None:
    total = 0
    for mask in masks:
        assert not total & mask, hex(mask)
        total |= mask


_assert_disjoint(PRESENT, WRITABLE, USER, WRITE_THROUGH, CACHE_DISABLE, ACCESSED, DIRTY, LARGE, GLOBAL, FRAME_MASK)
_assert_disjoint(ALL_RIGHTS, PRESENT, DIRTY)
_assert_disjoint(FAULT_PRESENT, FAULT_WRITE, FAULT_USER, FAULT_RESERVED, FAULT_FETCH)
_assert_disjoint(CR0_PE, CR0_MP, CR0_EM, CR0_TS, CR0_ET, CR0_NE, CR0_WP, CR0_AM, CR0_NW, CR0_CD, CR0_PG)
