# SPDX-License-Identifier: GPL-2.0-or-later
"""An independent MMU in plain Python: what paging does with one access, as the manuals put it.

Nothing of emu is used here, and speed is no aim: this file is what the shadow tables, the nested tables and the
engine are compared with, and it is meant to be read beside the Intel SDM vol. 3 chapter 4 and the AMD APM vol. 2
chapter 5.

An access is translated in four steps:

1. `paging_format`: the control registers select one of four formats.
2. `translate` descends through the tables. An entry that is not present, or that has a reserved bit set, ends the walk.
3. `is_permitted` judges the leaf by the rights of all levels together.
4. If it is permitted, A is set in each entry that was used, and D in the leaf of a write. If it is not, A *may* be set in
   the entries above the one that ended the walk (processors differ, and may do so speculatively); never in that one.

        32-bit      PDE(10) -> PTE(10) -> 4 KB;    PDE with PS, if CR4.PSE: 4 MB, with address bits 39-32 in bits 20-13
        PAE         PDPTE(2) -> PDE(9) -> PTE(9) -> 4 KB;    PDE with PS: 2 MB
        4-level     PML4E(9) -> PDPTE(9) -> PDE(9) -> PTE(9) -> 4 KB;    PDE with PS: 2 MB;    PDPTE with PS: 1 GB
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

PHYSICAL_BITS = 40  # MAXPHYADDR of the processors compared

# Entries, all formats (SDM tables 4-4 to 4-20).
P, RW, US, PWT, PCD, A, D, PS, G = (1 << bit for bit in range(9))
XD = 1 << 63

# Error code of a page fault (SDM figure 4-12).
ERROR_P, ERROR_WR, ERROR_US, ERROR_RSVD, ERROR_ID = (1 << bit for bit in range(5))

CR0_PE, CR0_WP, CR0_PG = 1 << 0, 1 << 16, 1 << 31
CR4_PSE, CR4_PAE, CR4_PGE, CR4_SMEP, CR4_SMAP = 1 << 4, 1 << 5, 1 << 7, 1 << 20, 1 << 21
EFER_LME, EFER_LMA, EFER_NXE = 1 << 8, 1 << 10, 1 << 11


def bits(high: int, low: int) -> int:
    """The mask of bits high..low, as the manuals write ranges."""
    return (1 << high + 1) - (1 << low)


class Kind(Enum):
    """What an access does."""

    READ = "read"
    WRITE = "write"
    FETCH = "fetch"


class Format(Enum):
    """The paging modes of SDM section 4.1.1, named as the processor's tables are."""

    NONE = "none"
    BITS32 = "32-bit"
    PAE = "pae"
    LONG = "4-level"


@dataclass(frozen=True)
class Registers:
    """All that decides about an access beside the tables. Long mode is active where EFER.LMA says so."""

    cr0: int
    cr3: int
    cr4: int
    efer: int = 0
    cpl: int = 0
    ac: bool = False  # EFLAGS.AC: with SMAP, whether the supervisor may touch user pages
    checks_pointers: bool = True  # PAE: whether bits 8-5 and 2-1 of a PDPTE must be zero, as the manuals say


@dataclass(frozen=True)
class Access:
    """One access that stays within a page. `implicit`: the processor's own, to a descriptor table or TSS, whatever CPL is."""

    linear: int
    kind: Kind
    implicit: bool = False


@dataclass(frozen=True)
class PageFault:
    """#PF."""

    error_code: int
    cr2: int


@dataclass(frozen=True)
class GeneralProtection:
    """#GP with error code 0: a linear address that is not canonical."""


@dataclass(frozen=True)
class Translation:
    """A permitted access: where it goes, and what the tables grant there."""

    physical: int
    page_bytes: int
    writable: bool  # R/W in every entry
    user: bool  # U/S in every entry
    executable: bool  # XD in none
    is_global: bool  # G in the leaf, and CR4.PGE


@dataclass(frozen=True)
class Mark:
    """Bits (A, D) that hardware sets in an entry of `size` bytes at `physical`."""

    physical: int
    size: int
    bits: int


@dataclass(frozen=True)
class Level:
    """One level of tables."""

    name: str
    shift: int  # the lowest bit of the linear address that indexes it
    index_bits: int
    entry_bytes: int
    has_rights: bool = True  # false: no R/W, U/S, XD, A in this entry


@dataclass(frozen=True)
class Result:
    """What becomes of an access. `marks` are set for sure, and all before the access itself; `may_mark` may be set."""

    outcome: PageFault | GeneralProtection | Translation
    marks: tuple[Mark, ...] = ()
    may_mark: tuple[Mark, ...] = ()
    ended_at: tuple[Level, int] | None = None  # the entry that ended the walk: its level and physical address


LEVELS = {
    Format.BITS32: (Level("PDE", 22, 10, 4), Level("PTE", 12, 10, 4)),
    Format.PAE: (Level("PDPTE", 30, 2, 8, has_rights=False), Level("PDE", 21, 9, 8), Level("PTE", 12, 9, 8)),
    Format.LONG: (Level("PML4E", 39, 9, 8), Level("PDPTE", 30, 9, 8), Level("PDE", 21, 9, 8), Level("PTE", 12, 9, 8)),
}
ROOT_MASK = {Format.BITS32: bits(31, 12), Format.PAE: bits(31, 5), Format.LONG: bits(PHYSICAL_BITS - 1, 12)}

ReadEntry = Callable[[int, int], int]
"""(physical address, bytes) to the little-endian value of guest-physical memory there."""


def paging_format(registers: Registers) -> Format:
    """SDM section 4.1.1: PG turns paging on, then LMA goes before PAE."""
    if not registers.cr0 & CR0_PG:
        return Format.NONE
    if registers.efer & EFER_LMA:
        return Format.LONG
    return Format.PAE if registers.cr4 & CR4_PAE else Format.BITS32


def is_canonical(linear: int) -> bool:
    """Bits 63 to 47 are all the same (SDM vol. 1, section 3.3.7.1)."""
    return linear >> 47 in (0, 0x1_FFFF)


def maps_page(fmt: Format, level: Level, entry: int, registers: Registers) -> bool:
    """Whether a present entry is a leaf rather than the address of a table."""
    if level.name == "PTE":
        return True
    if level.name == "PDE":
        return bool(entry & PS) and (fmt is not Format.BITS32 or bool(registers.cr4 & CR4_PSE))
    return level.name == "PDPTE" and fmt is Format.LONG and bool(entry & PS)


def reserved_bits(fmt: Format, level: Level, entry: int, registers: Registers) -> int:
    """The bits that must be zero in a present entry (SDM tables 4-4 to 4-20, APM figures 5-4 to 5-25)."""
    leaf = maps_page(fmt, level, entry, registers)
    if fmt is Format.BITS32:
        return bits(21, 21) if leaf and level.name == "PDE" else 0
    if fmt is Format.PAE and level.name == "PDPTE":
        return (bits(2, 1) | bits(8, 5)) * registers.checks_pointers | bits(63, PHYSICAL_BITS)
    reserved = bits(62, PHYSICAL_BITS) if fmt is Format.PAE else bits(51, PHYSICAL_BITS)
    if not registers.efer & EFER_NXE:
        reserved |= XD
    if level.name == "PML4E":
        reserved |= PS
    if leaf and level.name == "PDPTE":
        reserved |= bits(29, 13)
    if leaf and level.name == "PDE":
        reserved |= bits(20, 13)
    return reserved


def page_address(fmt: Format, level: Level, entry: int) -> int:
    """The physical address of the page that a leaf maps."""
    if fmt is Format.BITS32:
        if level.name == "PDE":
            return entry & bits(31, 22) | (entry & bits(20, 13)) >> 13 << 32
        return entry & bits(31, 12)
    return entry & bits(PHYSICAL_BITS - 1, level.shift)


def table_address(fmt: Format, entry: int) -> int:
    """The physical address of the table that an entry points to."""
    return entry & (bits(31, 12) if fmt is Format.BITS32 else bits(PHYSICAL_BITS - 1, 12))


def is_user_access(access: Access, registers: Registers) -> bool:
    """A user-mode access is made at CPL 3, and not by the processor itself (SDM section 4.6)."""
    return registers.cpl == 3 and not access.implicit


def error_bits(access: Access, registers: Registers) -> int:
    """The bits of an error code that describe the access; I/D is only reported where fetches can be forbidden (section 4.7)."""
    code = ERROR_WR if access.kind is Kind.WRITE else 0
    if is_user_access(access, registers):
        code |= ERROR_US
    can_forbid = registers.cr4 & CR4_SMEP or (registers.cr4 & CR4_PAE and registers.efer & EFER_NXE)
    return code | ERROR_ID if access.kind is Kind.FETCH and can_forbid else code


def is_permitted(access: Access, registers: Registers, *, writable: bool, user: bool, executable: bool) -> bool:
    """SDM section 4.6.1, for an address whose paging structures together grant these rights."""
    if is_user_access(access, registers):
        return user and {Kind.READ: True, Kind.WRITE: writable, Kind.FETCH: executable}[access.kind]
    if access.kind is Kind.FETCH:
        return executable and not (user and registers.cr4 & CR4_SMEP)
    if user and registers.cr4 & CR4_SMAP and (access.implicit or not registers.ac):
        return False
    return access.kind is Kind.READ or writable or not registers.cr0 & CR0_WP


def translate(read: ReadEntry, registers: Registers, access: Access) -> Result:
    """What the processor makes of `access`, with nothing in its TLB. Changes nothing: `Result.marks` says what would be."""
    fmt = paging_format(registers)
    if fmt is Format.NONE:
        return Result(Translation(access.linear, 4096, writable=True, user=True, executable=True, is_global=False))
    if fmt is Format.LONG and not is_canonical(access.linear):
        return Result(GeneralProtection())
    code = error_bits(access, registers)
    table = registers.cr3 & ROOT_MASK[fmt]
    writable = user = executable = True
    used: list[Mark] = []
    for level in LEVELS[fmt]:
        at = table + (access.linear >> level.shift) % (1 << level.index_bits) * level.entry_bytes
        entry = read(at, level.entry_bytes)
        if not entry & P:
            return Result(PageFault(code, access.linear), may_mark=tuple(used), ended_at=(level, at))
        if entry & reserved_bits(fmt, level, entry, registers):
            return Result(PageFault(code | ERROR_P | ERROR_RSVD, access.linear), may_mark=tuple(used), ended_at=(level, at))
        if level.has_rights:
            writable &= bool(entry & RW)
            user &= bool(entry & US)
            executable &= not entry & XD
        if maps_page(fmt, level, entry, registers):
            break
        if level.has_rights:
            used.append(Mark(at, level.entry_bytes, A))
        table = table_address(fmt, entry)
    if not is_permitted(access, registers, writable=writable, user=user, executable=executable):
        return Result(PageFault(code | ERROR_P, access.linear), may_mark=tuple(used), ended_at=(level, at))
    page_bytes = 1 << level.shift
    used.append(Mark(at, level.entry_bytes, A | D if access.kind is Kind.WRITE else A))
    return Result(
        Translation(
            page_address(fmt, level, entry) | access.linear % page_bytes,
            page_bytes,
            writable=writable,
            user=user,
            executable=executable,
            is_global=bool(entry & G and registers.cr4 & CR4_PGE),
        ),
        marks=tuple(used),
        ended_at=(level, at),
    )
