# SPDX-License-Identifier: GPL-2.0-or-later
"""Random cases: tables biased to what page walkers get wrong, and accesses among changes of tables and registers."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.truth import layout, mmu
from tests.truth.cases import Model, Operation, RefusedError, kernel_entries
from tests.truth.layout import AC, ARENA, ARENA_END, DATA, PAGE, USER, VERIFY
from tests.truth.mmu import Format

OPERATIONS = (6, 14)  # after the tables are built
ADDRESSES = (3, 7)  # linear addresses of one address space
MAX_ATTEMPTS = 8  # at an operation that the model refuses
PAGE_OFFSETS = (0, 4, 8, 0x10, 0x7F8, 0xFF8)
INDEXES = {  # few, so that paths meet; never those of the guest's own mapping
    ("32-bit", "PDE"): (3, 4, 5, 0x200, 0x3FF),
    ("pae", "PDPTE"): (1, 2, 3),
    ("4-level", "PML4E"): (1, 2, 0xFF, 0x100, 0x1FF),
}
LOWER_INDEXES = (0, 1, 2, 0x1FF)
BASE_CR0 = mmu.CR0_PE | mmu.CR0_PG | 1 << 4


@dataclass
class Space:
    """One address space: a format, a root and what is tried in it."""

    fmt: Format
    root: int
    addresses: list[int]
    cr4: int


class Generator:
    """One case, made by trying operations on a model and keeping those it accepts."""

    def __init__(self, seed: int, formats: tuple[Format, ...]) -> None:
        self.random = random.Random(seed)
        self.formats = formats
        self.model = Model()
        self.operations: list[Operation] = []
        self.entries: list[tuple[int, int]] = []  # (address, bytes) of the entries made
        self.free = [ARENA + PAGE * page for page in range(layout.TABLE_PAGES)]
        self.random.shuffle(self.free)
        self.tables: list[int] = []
        self.spaces: list[Space] = []

    def chance(self, percent: float) -> bool:
        """True that often."""
        return self.random.random() * 100 < percent

    def make(self) -> list[Operation]:
        """The operations of a case."""
        count = 1 if self.chance(75) else 2
        for fmt in self.random.sample(self.formats, min(count, len(self.formats))):
            self.add_space(fmt)
        if self.chance(15):
            self.add_space(self.spaces[0].fmt)
        self.add(self.mode(self.spaces[0]))
        for _ in range(self.random.randint(*OPERATIONS)):
            for _attempt in range(MAX_ATTEMPTS):
                if self.try_step():
                    break
        return self.operations

    def add(self, *operations: Operation) -> None:
        """Apply operations to the model and keep them; RefusedError passes."""
        for operation in operations:
            self.model.apply(operation)
            self.operations.append(operation)

    # ---- tables ----

    def new_table(self) -> int:
        """A page for a table: usually a new one, sometimes one that is in use already, at whatever level."""
        if self.tables and (not self.free or self.chance(18)):
            return self.random.choice(self.tables)
        if not self.free:
            return ARENA
        page = self.free.pop()
        self.tables.append(page)
        return page

    def add_space(self, fmt: Format) -> None:
        """A root with its entries for the guest, and paths for a few addresses."""
        if not self.free:
            return
        root = self.free.pop()
        self.tables.append(root)
        if fmt is Format.PAE:
            root += self.random.choice((0, 0, 0x20, 0xFE0))
        for address, value, size in kernel_entries(fmt, root):
            self.add(self.poke(address, size, value))
        if fmt is Format.PAE:  # all four are looked at when CR3 is loaded, where memory never written has anything
            for number in (1, 2, 3):
                self.add(self.poke(root + 8 * number, 8, 0))
        cr4 = {Format.BITS32: mmu.CR4_PSE * self.chance(80), Format.PAE: mmu.CR4_PAE, Format.LONG: mmu.CR4_PAE}[fmt]
        space = Space(fmt, root, [], cr4)
        self.spaces.append(space)
        for _ in range(self.random.randint(*ADDRESSES)):
            self.add_path(space)

    def add_path(self, space: Space) -> None:
        """An address, and entries for it where the tables have none yet."""
        linear, table = 0, space.root
        for level in mmu.LEVELS[space.fmt]:
            index = self.random.choice(INDEXES.get((space.fmt.value, level.name), LOWER_INDEXES))
            linear |= index << level.shift
            at = table + index * level.entry_bytes
            if ARENA <= at < ARENA_END and not self.model.entry(at, level.entry_bytes) & mmu.P:
                self.add(self.poke(at, level.entry_bytes, self.entry(space, level)))
                self.entries.append((at, level.entry_bytes))
            if not ARENA <= at < ARENA_END:
                break
            value = self.model.entry(at, level.entry_bytes)
            registers = mmu.Registers(BASE_CR0, space.root, space.cr4 | mmu.CR4_PSE)
            if mmu.maps_page(space.fmt, level, value, registers):
                linear |= self.offset(mmu.page_address(space.fmt, level, value), 1 << level.shift)
                break
            table = mmu.table_address(space.fmt, value)
        if space.fmt is Format.LONG and linear >> 47:
            linear |= 0xFFFF << 48
        space.addresses.append(linear & ~(PAGE - 1))

    def offset(self, page: int, size: int) -> int:
        """An offset into a page that leads to the arena, if there is one."""
        if size == PAGE or self.chance(5):
            return 0
        return (self.random.randrange(DATA if self.chance(70) else ARENA, ARENA_END, PAGE) - page) % size

    def entry(self, space: Space, level: mmu.Level) -> int:
        """A random entry."""
        if not self.chance(94):
            return self.random.choice((0, self.random.getrandbits(32) & ~mmu.P))
        value = mmu.P
        if level.has_rights:
            for percent, bit in ((75, mmu.RW), (70, mmu.US), (10, mmu.PWT), (10, mmu.PCD), (30, mmu.A), (25, mmu.D)):
                value |= bit * self.chance(percent)
            value |= mmu.G * self.chance(25) | (self.random.getrandbits(3) << 9) * self.chance(15)
        if level.entry_bytes == 8 and level.has_rights:
            value |= mmu.XD * self.chance(15) | (1 << self.random.randint(52, 62)) * self.chance(6)
        leaf = level.name == "PTE"
        if (level.name == "PDE" and self.chance(20)) or (level.name == "PDPTE" and level.has_rights and self.chance(12)):
            value |= mmu.PS
            leaf = True
        elif self.chance(4) and (level.has_rights or self.chance(30)):
            value |= mmu.PS
        value |= self.frame(space, level, leaf=leaf)
        if self.chance(4):
            value |= 1 << self.random.randrange(level.entry_bytes * 8)
        return value

    def frame(self, space: Space, level: mmu.Level, *, leaf: bool) -> int:
        """The address bits of an entry."""
        if self.chance(3):
            pages = layout.ABSENT_PAGES + (layout.ABSENT_HIGH_PAGES if level.entry_bytes == 8 else ())
            return self.random.choice(pages) * PAGE >> level.shift * leaf << level.shift * leaf
        if leaf and level.name != "PTE":
            high = 1 << self.random.randint(13, 20) if space.fmt is Format.BITS32 and self.chance(10) else 0
            return ARENA >> level.shift << level.shift | high
        if leaf:
            return self.random.randrange(DATA, ARENA_END, PAGE) if self.chance(70) else self.random.choice(self.tables or [ARENA])
        return self.random.randrange(DATA, ARENA_END, PAGE) if self.chance(2) else self.new_table()

    def poke(self, at: int, size: int, value: int) -> Operation:
        """A store to an entry, by one of the guest's ways."""
        how = layout.POKE32 if size == 4 else self.random.choice((layout.POKE64, layout.POKE64_LOCKED, layout.POKE64_STRING))
        return ["poke", at, size, value & (1 << 8 * size) - 1, how]

    # ---- what happens ----

    def mode(self, space: Space) -> Operation:
        """Into an address space by way of no paging, with random protection bits."""
        cr0 = BASE_CR0 | mmu.CR0_WP * self.chance(70)
        cr4 = space.cr4
        for percent, bit in ((35, mmu.CR4_PGE), (30, mmu.CR4_SMEP), (30, mmu.CR4_SMAP)):
            cr4 |= bit * self.chance(percent)
        is_long = space.fmt is Format.LONG
        efer = mmu.EFER_LME * is_long | mmu.EFER_NXE * self.chance(75)
        low = self.random.choice((0, 0, mmu.PWT | mmu.PCD))
        self.here = space
        return ["mode", int(is_long), cr0, space.root | low, cr4, efer]

    def try_step(self) -> bool:
        """One random step, if the model accepts it; what it made stale is mostly flushed."""
        step = self.random.choices(
            (self.access, self.change, self.registers, self.flush, self.switch), weights=(66, 16, 9, 5, 4)
        )[0]
        kept, here = len(self.operations), self.here
        try:
            self.add(*step())
            if self.model.is_stale and self.chance(90):
                self.add(*self.flush())
        except RefusedError:
            del self.operations[kept:]
            self.here = here
            self.model = Model()
            for operation in self.operations:
                self.model.apply(operation)
            return False
        return True

    def address(self) -> int:
        """A linear address, mostly one with a path."""
        linear = self.random.choice(self.here.addresses) | self.random.choice(PAGE_OFFSETS)
        if self.chance(4):
            linear ^= 1 << self.random.randint(12, 62)
        return linear & (1 << (64 if self.here.fmt is Format.LONG else 32)) - 1

    def access(self) -> list[Operation]:
        """One access."""
        kind = self.random.choices(range(7), weights=(34, 28, 20, 5, 3, 3, 7))[0]
        what = kind | USER * self.chance(50) | AC * self.chance(30)
        if kind == VERIFY:
            what |= USER
        value = self.random.getrandbits(16) << 16 | 0x80CD
        if self.chance(25):
            value = self.random.choice((DATA, ARENA)) | self.random.getrandbits(9)
        return [["access", what, self.address(), value]]

    def is_pointer(self, at: int) -> bool:
        """Whether an entry is a PDPTE of PAE."""
        return any(space.fmt is Format.PAE and at & ~31 == space.root for space in self.spaces)

    def change(self) -> list[Operation]:
        """A change of an entry."""
        if not self.entries:
            return self.access()
        at, size = self.random.choice(self.entries)
        value = self.model.entry(at, size)
        if self.is_pointer(at) and self.chance(
            95
        ):  # else most have reserved bits in the end, which engines that look do not load
            value = self.entry(self.here, mmu.LEVELS[Format.PAE][0])
        elif self.chance(70):
            value ^= self.random.choice((mmu.P, mmu.RW, mmu.RW, mmu.US, mmu.US, mmu.A, mmu.D, mmu.A | mmu.D, mmu.PS, mmu.G))
            value ^= mmu.XD * (size == 8 and self.chance(20))
        else:
            level = self.random.choice(mmu.LEVELS[self.here.fmt][1:])
            value = self.entry(self.here, level)
        return [self.poke(at, size, value)]

    def registers(self) -> list[Operation]:
        """A change of a control register."""
        registers = self.model.registers
        choices: list[Operation] = [
            ["cr0", registers.cr0 ^ mmu.CR0_WP],
            ["cr0", registers.cr0 ^ mmu.CR0_WP],
            ["cr4", registers.cr4 ^ mmu.CR4_SMEP],
            ["cr4", registers.cr4 ^ mmu.CR4_SMAP],
            ["cr4", registers.cr4 ^ mmu.CR4_PGE],
            ["cr4", registers.cr4 ^ mmu.CR4_PSE],
            ["efer", registers.efer ^ mmu.EFER_NXE],
        ]
        return [self.random.choice(choices)]

    def flush(self) -> list[Operation]:
        """A flush of everything, or of the addresses in use."""
        registers = self.model.registers
        if self.chance(40) and not self.model.has_old_pointers:
            return [["invlpg", address] for address in self.here.addresses]
        if registers.cr4 & mmu.CR4_PGE or self.model.had_global:
            return [["cr4", registers.cr4 ^ mmu.CR4_PGE], ["cr4", registers.cr4]]
        return [["cr3", registers.cr3]]

    def switch(self) -> list[Operation]:
        """To another address space: by CR3 where the format is the same, else through no paging."""
        space = self.random.choice(self.spaces)
        if space.fmt is self.here.fmt and not self.model.had_global and self.chance(60):
            self.here = space
            return [["cr3", space.root]]
        return [self.mode(space)]


def make(seed: int, formats: tuple[Format, ...] = (Format.BITS32, Format.PAE, Format.LONG)) -> list[Operation]:
    """The case of a seed: the same in every run. A table that the model refuses is tried with another random choice."""
    for attempt in range(100):
        try:
            return Generator(seed * 128 + attempt, formats).make()
        except RefusedError:
            continue
    raise RuntimeError(f"seed {seed}: no acceptable case in 100 attempts")
