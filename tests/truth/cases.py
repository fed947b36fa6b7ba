# SPDX-License-Identifier: GPL-2.0-or-later
"""Cases of the fuzzer: operations, what the reference MMU expects of them, and the guest's script for them.

A case is a list of operations, each a list of a name and numbers, as JSON keeps it:

    ["poke", address, bytes, value, how]   a store to a table by the guest's own mapping; `how` is a layout.POKE* number
    ["mode", is_long, cr0, cr3, cr4, efer] by way of no paging
    ["cr0", value] ["cr3", value] ["cr4", value] ["efer", value] ["invlpg", address]
    ["access", kind | USER | AC, address, value]

`Model` carries them out on a memory of its own. It refuses (`RefusedError`) what would leave the part of memory that a case
owns or break the guest that carries it out, and what the manuals leave open: an access by a translation that was made
stricter and not invalidated since. So every case that the model accepts has one right answer, but for the A bits that a
faulting access may set above the entry that stopped it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import Any

from tests.truth import layout, mmu
from tests.truth.layout import AC, ARENA, ARENA_END, COMPARE, EXCHANGE, FETCH, OR, PAGE, READ, USER, VERIFY, WRITE

Operation = list[Any]
ONES32 = 0xFFFF_FFFF
INT_80 = 0x80CD  # what a word must begin with to be fetched from
KERNEL_ENTRY = 0x67  # P R/W U/S A D
SOFTWARE_BITS = mmu.bits(11, 9)
KINDS = {READ: mmu.Kind.READ, WRITE: mmu.Kind.WRITE, FETCH: mmu.Kind.FETCH, VERIFY: mmu.Kind.READ}
MODIFYING_KINDS = (EXCHANGE, COMPARE, OR)
VALUE_KINDS = (READ, EXCHANGE)  # those that bring a value back


class RefusedError(Exception):
    """The operation has no single right answer, or the guest would not survive it."""


@dataclass
class Expectation:
    """What an access must do."""

    vector: int
    error: int = 0
    cr2: int = 0
    value: int | None = None
    unknown: int = 0  # bits of value that may be either
    memory: dict[int, int] = field(default_factory=dict)  # watched 32-bit words afterwards
    memory_unknown: dict[int, int] = field(default_factory=dict)
    page_bytes: int = 0  # of the page that the access went to
    description: str = ""


def is_absent(physical: int) -> bool:
    """Where neither RAM nor a device of a PC is."""
    return 0x2000_0000 <= physical < 0xC000_0000 or physical >= 1 << 32


@dataclass(frozen=True)
class Board:
    """What differs between machines that follow the manuals, or nearly (see known.py)."""

    absent_word: int | None = ONES32  # what reads of absent memory give; None if there must be none
    marks_pointers: bool = False  # A is set in the PDPTEs of PAE too
    checks_pointers: bool = True  # the low reserved bits of a PDPTE of PAE are looked at
    refuses_pointers: bool = False  # PAE: a reserved bit of a PDPTE is #GP at the load of CR3, which no case expects
    marks_huge: bool = False  # A is set in the leaf of a 1 GB page before anything is checked
    reads_first: bool = False  # a read-modify-write instruction reads before it finds that it may not write


class Model:
    """Memory, registers and what may be stale, moved on by `apply`."""

    def __init__(self, board: Board = Board()) -> None:
        self.board = board
        self.words: dict[int, int] = {}  # the arena, where it differs from layout.pattern
        self.unknown: dict[int, int] = {}  # address of a word to the bits that may have been set
        self.touched: set[int] = set()  # addresses of 64-bit words that changed or may have
        self.registers = mmu.Registers(cr0=mmu.CR0_PE, cr3=0, cr4=0)
        self.table_pages: set[int] = {ARENA + PAGE * page for page in range(layout.TABLE_PAGES)}
        self.is_stale = False  # an entry became stricter, and not all was flushed since
        self.fresh: set[int] = set()  # pages invalidated since then
        self.has_old_pointers = False  # a PDPTE of PAE changed, which takes effect at a load of CR3
        self.had_global = False  # a translation may be global: a CR3 load is not enough

    # ---- memory ----

    def word(self, physical: int) -> int:
        """The 32-bit word at an aligned address; RefusedError outside the arena and absent memory."""
        if ARENA <= physical < ARENA_END:
            return self.words.get(physical, layout.pattern(physical))
        if is_absent(physical) and self.board.absent_word is not None:
            return self.board.absent_word
        if layout.DIRECTORY + 6 * 8 <= physical < layout.TABLES64 or layout.POINTERS + 8 <= physical < layout.POINTERS + PAGE:
            return 0  # the guest's own tables, beyond what maps the guest
        raise RefusedError("a table in memory that is the guest's own, or absent")

    def read(self, physical: int, size: int) -> int:
        """An entry, for the reference MMU."""
        if ARENA <= physical < ARENA_END:
            self.table_pages.add(physical & ~(PAGE - 1))
        value = self.word(physical)
        return value | self.word(physical + 4) << 32 if size == 8 else value

    def store(self, physical: int, value: int) -> None:
        """A 32-bit store by the guest."""
        if is_absent(physical):
            return
        if not ARENA <= physical < ARENA_END:
            raise RefusedError("a store to memory that is the guest's own")
        self.words[physical] = value
        if self.unknown.pop(physical, 0) & ~value:  # a bit that a processor may have set, and may have cached the entry with
            self._has_become_stale()
        self.touched.add(physical & ~7)

    def entry(self, physical: int, size: int) -> int:
        """An entry of the arena, for comparison before and after a store."""
        return self.word(physical) | (self.word(physical + 4) << 32 if size == 8 else 0)

    def translate(self, registers: mmu.Registers, access: mmu.Access) -> mmu.Result:
        """What the reference makes of an access to this memory."""
        return mmu.translate(self.read, registers, access)

    # ---- operations ----

    def apply(self, operation: Operation) -> Expectation | None:
        """Carry out an operation; an access says what it expects. Raises RefusedError, with the model then unusable."""
        name, *numbers = operation
        expectation = getattr(self, f"_{name}")(*numbers)
        self._check_guest_mapping()
        return expectation if name == "access" else None

    def _poke(self, address: int, size: int, value: int, how: int) -> None:
        del how
        with_paging = self.format is not mmu.Format.NONE
        before = self._entries_around(address, size) if with_paging else {}
        for part in range(0, size, 4):
            self.store(address + part, value >> 8 * part & ONES32)
        self._note_stricter(before)

    def _mode(self, is_long: int, cr0: int, cr3: int, cr4: int, efer: int) -> None:
        if not cr0 & mmu.CR0_PE or not cr0 & mmu.CR0_PG:
            raise RefusedError("every mode is one with paging")
        if bool(is_long) != bool(efer & mmu.EFER_LME) or (is_long and not cr4 & mmu.CR4_PAE):
            raise RefusedError("long mode needs LME and PAE")
        active = mmu.EFER_LMA if is_long else 0
        self.registers = mmu.Registers(cr0=cr0, cr3=cr3, cr4=cr4, efer=efer | active)
        self._load_pointers()
        self._all_flushed()

    def _cr0(self, value: int) -> None:
        self.registers = replace(self.registers, cr0=value)

    def _cr3(self, value: int) -> None:
        self.registers = replace(self.registers, cr3=value)
        self._load_pointers()
        self.has_old_pointers = False
        if not self.had_global:
            self._all_flushed()

    def _cr4(self, value: int) -> None:
        changed = self.registers.cr4 ^ value
        self.registers = replace(self.registers, cr4=value)
        if changed & (mmu.CR4_PGE | mmu.CR4_PSE | mmu.CR4_SMEP):
            self._load_pointers()
        if changed & mmu.CR4_PGE:
            self._all_flushed()
        elif changed & mmu.CR4_PSE:
            self._has_become_stale()

    def _efer(self, value: int) -> None:
        if (self.registers.efer ^ value) & mmu.EFER_NXE:
            self._has_become_stale()
        self.registers = replace(self.registers, efer=value)

    def _invlpg(self, address: int) -> None:
        self.fresh.add(address >> 12)

    def _access(self, what: int, linear: int, value: int) -> Expectation:
        kind = what & 0xFF
        if self.format is mmu.Format.NONE or self.has_old_pointers or (self.is_stale and linear >> 12 not in self.fresh):
            raise RefusedError("a translation that may be stale")
        if linear % PAGE > PAGE - (8 if kind == VERIFY else 4) or linear % 4:
            raise RefusedError("an access that is not aligned")
        if linear >> 32 and self.format is not mmu.Format.LONG:
            raise RefusedError("an address that 32-bit code does not have")
        if kind == VERIFY and not (what & USER and mmu.is_canonical(linear)):
            raise RefusedError("LLDT would fault first")
        registers = replace(self.registers, cpl=3 if what & USER else 0, ac=bool(what & AC))
        registers = replace(registers, checks_pointers=self.board.checks_pointers)
        access = mmu.Access(linear, KINDS.get(kind, mmu.Kind.WRITE), implicit=kind == VERIFY)
        result = self.translate(registers, access)
        if kind in MODIFYING_KINDS and self.board.reads_first:
            result = self._read_first(result, self.translate(registers, replace(access, kind=mmu.Kind.READ)))
        for mark in result.may_mark:
            self._may_mark(mark)
        if self.board.marks_huge and self.format is mmu.Format.LONG and result.ended_at and result.ended_at[0].name == "PDPTE":
            self._may_mark(mmu.Mark(result.ended_at[1], 8, mmu.A & -(self.word(result.ended_at[1]) & mmu.P)))
        if self.board.marks_pointers and self.format is mmu.Format.PAE:
            self._may_mark_pointer(linear >> 30)
        if isinstance(result.outcome, mmu.Translation):
            if kind in MODIFYING_KINDS and any(mark.physical & ~7 == result.outcome.physical & ~7 for mark in result.marks):
                raise RefusedError("a read-modify-write of an entry that it is translated by: engines read before they mark")
            for mark in result.marks:
                self._mark(mark)
            expectation = self._carry_out(kind, result.outcome.physical, linear, value)
        elif isinstance(result.outcome, mmu.PageFault):
            expectation = Expectation(14, result.outcome.error_code, result.outcome.cr2)
        else:
            expectation = Expectation(13)
        expectation.page_bytes = getattr(result.outcome, "page_bytes", 0)
        expectation.description = f"{result.outcome}"
        expectation.memory = {at: self.word(at) for quad in self.touched for at in (quad, quad + 4)}
        expectation.memory_unknown = dict(self.unknown)
        return expectation

    def _read_first(self, write: mmu.Result, read: mmu.Result) -> mmu.Result:
        """The fault of the read if there is one; a fault of the write after a read that marked."""
        if not isinstance(read.outcome, mmu.Translation):
            return read
        self.word(read.outcome.physical)  # must be there, though the write may fault
        return write if isinstance(write.outcome, mmu.Translation) else replace(write, may_mark=write.may_mark + read.marks)

    def _carry_out(self, kind: int, physical: int, linear: int, value: int) -> Expectation:
        before = self._entries_around(physical, 4) if not is_absent(physical) else {}
        old, unknown = self.word(physical), self.unknown.get(physical, 0)
        if kind == FETCH and (unknown or old & 0xFFFF != INT_80 or is_absent(physical)):
            raise RefusedError("a fetch of something else than INT 80h")
        if kind in (WRITE, EXCHANGE):
            self.store(physical, value)
        if kind == COMPARE:
            if unknown:
                raise RefusedError("a comparison with an unknown value")
            if old == value:
                self.store(physical, linear & ONES32)
        if kind == OR and not unknown and not is_absent(physical):
            self.store(physical, old)
        self._note_stricter(before)
        return Expectation(layout.DONE_VECTOR, value=old if kind in VALUE_KINDS else None, unknown=unknown)

    # ---- the processor's own stores ----

    def _mark(self, mark: mmu.Mark) -> None:
        if is_absent(mark.physical):
            return
        if not ARENA <= mark.physical < ARENA_END:
            raise RefusedError("A or D in the guest's own tables")
        self.words[mark.physical] = self.word(mark.physical) | mark.bits
        self.unknown[mark.physical] = self.unknown.get(mark.physical, 0) & ~mark.bits
        self.touched.add(mark.physical & ~7)
        self._protect_pointers(mark)

    def _may_mark(self, mark: mmu.Mark) -> None:
        if not ARENA <= mark.physical < ARENA_END:
            return
        missing = mark.bits & ~self.word(mark.physical)
        if missing:
            self.unknown[mark.physical] = self.unknown.get(mark.physical, 0) | missing
            self.touched.add(mark.physical & ~7)
            self._protect_pointers(mark)

    def _may_mark_pointer(self, index: int) -> None:
        at = (self.registers.cr3 & mmu.ROOT_MASK[mmu.Format.PAE]) + index * 8
        self.unknown[at] = self.unknown.get(at, 0) | mmu.A & ~self.word(at)
        self.touched.add(at)

    def _protect_pointers(self, mark: mmu.Mark) -> None:
        """A is a reserved bit where a word is a PDPTE of PAE too, and processors with PDPTE registers would not see it yet."""
        root = self.registers.cr3 & mmu.ROOT_MASK[mmu.Format.PAE]
        if self.format is mmu.Format.PAE and root <= mark.physical < root + 32:
            raise RefusedError("an A bit in a PDPTE")

    # ---- what may be stale ----

    @property
    def format(self) -> mmu.Format:
        """The format in use."""
        return mmu.paging_format(self.registers)

    def _load_pointers(self) -> None:
        """A load of CR3 under PAE: with a reserved bit in a pointer it is #GP where the board looks, and the guest expects none."""
        if self.format is not mmu.Format.PAE or not self.board.refuses_pointers:
            return
        root = self.registers.cr3 & mmu.ROOT_MASK[mmu.Format.PAE]
        for at in range(root, root + 32, 8):
            pointer = self.word(at) | self.word(at + 4) << 32
            if pointer & mmu.P and pointer & (mmu.bits(63, mmu.PHYSICAL_BITS) | mmu.bits(8, 5) | mmu.bits(2, 1)):
                raise RefusedError("a reserved bit in a PDPTE at the load of CR3")

    def _all_flushed(self) -> None:
        self.is_stale = self.has_old_pointers = False
        self.fresh.clear()
        self.had_global = bool(self.registers.cr4 & mmu.CR4_PGE)

    def _has_become_stale(self) -> None:
        self.is_stale = True
        self.fresh.clear()

    def _entries_around(self, address: int, size: int) -> dict[int, int]:
        """The entries that a store changes, if it goes to a page of tables."""
        if address & ~(PAGE - 1) not in self.table_pages:
            return {}
        width = 4 if self.format is mmu.Format.BITS32 else 8
        return {at: self.entry(at, width) for at in range(address & ~(width - 1), address + size, width)}

    def _note_stricter(self, before: dict[int, int]) -> None:
        width = 4 if self.format is mmu.Format.BITS32 else 8
        if not all(self._is_looser(old, self.entry(at, width)) for at, old in before.items()):
            self._has_become_stale()
        root = self.registers.cr3 & mmu.ROOT_MASK[mmu.Format.PAE]
        if self.format is mmu.Format.PAE and any(root <= at < root + 32 for at in before):
            self._has_become_stale()
            self.has_old_pointers = True

    def _is_looser(self, old: int, new: int) -> bool:
        """SDM section 4.10.4.3: changes that need no invalidation."""
        if not old & mmu.P or old == new:
            return True
        gained = mmu.RW | mmu.A | mmu.D
        if not self.registers.cr4 & (mmu.CR4_SMEP | mmu.CR4_SMAP):
            gained |= mmu.US
        changed = (old ^ new) & ~SOFTWARE_BITS
        return not changed & ~(gained | mmu.XD) and not changed & gained & old and not changed & mmu.XD & new

    def _check_guest_mapping(self) -> None:
        """The first entries of the root in use lead to the guest's own tables."""
        if self.format is mmu.Format.NONE:
            return
        for address, value, size in kernel_entries(self.format, self.registers.cr3 & mmu.ROOT_MASK[self.format]):
            if self.entry(address, size) != value:
                raise RefusedError("the guest would lose its own mapping")
        if self.board.marks_pointers and self.format is mmu.Format.PAE:
            self._may_mark_pointer(0)  # the guest's own accesses do


def kernel_entries(fmt: mmu.Format, root: int) -> list[tuple[int, int, int]]:
    """(address, value, bytes) of what a root must begin with."""
    if fmt is mmu.Format.BITS32:
        return [(root + 4 * index, layout.TABLES32 + PAGE * index | KERNEL_ENTRY, 4) for index in range(3)]
    if fmt is mmu.Format.PAE:
        return [(root, layout.DIRECTORY | mmu.P, 8)]
    return [(root, layout.POINTERS | KERNEL_ENTRY, 8)]


def expectations(operations: list[Operation], board: Board = Board()) -> tuple[list[Expectation], list[int]]:
    """What each access must do, and the addresses to watch; raises RefusedError."""
    model = Model(board)
    results = [model.apply(operation) for operation in operations]
    if len(model.touched) > 120:
        raise RefusedError("more changes than the guest watches")
    return [result for result in results if result], sorted(model.touched)


def encode(number: int, operations: list[Operation], watched: list[int]) -> list[int]:
    """A case as words of the guest's script."""
    words = [layout.CASE, number, len(watched), *watched]
    for name, *numbers in operations:
        words += _ENCODERS[name](*numbers)
    return [*words, layout.END]


def script(parts: list[list[int]]) -> bytes:
    """A whole script of encoded cases."""
    words = [word for part in parts for word in part] + [layout.STOP]
    return struct.pack(f"<{len(words)}I", *words)


def _two(value: int) -> list[int]:
    return [value & ONES32, value >> 32]


_ENCODERS = {
    "poke": lambda at, size, value, how: [layout.POKE32, at, value] if size == 4 else [how, at, *_two(value)],
    "mode": lambda *numbers: [layout.MODE, *numbers],
    "cr0": lambda value: [layout.CR0, value],
    "cr3": lambda value: [layout.CR3, value],
    "cr4": lambda value: [layout.CR4, value],
    "efer": lambda value: [layout.EFER, value],
    "invlpg": lambda address: [layout.INVLPG, *_two(address)],
    "access": lambda what, address, value: [layout.ACCESS, what, *_two(address), value],
}
