# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests with page tables, whose pages are shared, paged out, given to the balloon, watched and written by devices meanwhile, against a plain model.

The model of a guest is the bytes of its pages; `tests.truth.mmu` says where an address leads, and which A and D bits are set. The guest itself
(`tests.resources.mailbox`) runs in the engine. Tables are pages like the others: entries lead to them, devices write them, they are paged out.
After a change the guest flushes its TLB, as a guest must that wants to be sure of what it finds.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from emu.config import SHADOW_SWITCHES, Mmu
from emu.devices.guest_memory import Extent
from emu.host.hosted import HostedVm
from emu.units import PAGE_BYTES
from emu.vm import balloon, pmap
from tests.resources import mailbox
from tests.resources.mailbox import KERNEL_TABLES, MAILBOX, Do
from tests.resources.rig import MEMORY, Rig, state_of
from tests.truth import mmu
from tests.truth.mmu import Access, Format, Kind, PageFault, Registers, Translation
from tests.vm import harness

FIRST = 0x300  # PPN of the first page of a model: in the second large page of 2 MB, and in the first of 4 MB and 1 GB
ROOT, DIRECTORY, POINTERS, TABLE, OTHER_TABLE, *DATA = range(10)  # what the pages serve as at first
TABLES = (TABLE, OTHER_TABLE)
USED = (*TABLES, *DATA)  # pages that entries lead to and that leave and come back; the others keep the guest itself going
KEPT = mmu.P | mmu.RW | mmu.US | mmu.A | mmu.D  # of the guest's own mapping: no bit of it ever changes
PRESENT_BITS = (mmu.RW, mmu.US, mmu.A, mmu.D, mmu.XD)
RETURN = 0xC3  # an instruction of one byte
CONTENTS = (bytes(PAGE_BYTES), b"\1" * PAGE_BYTES, bytes([RETURN]) * PAGE_BYTES)
CODE_AT = 0x10
NX_ON = mmu.EFER_NXE | mmu.EFER_LMA | mmu.EFER_LME

vms = st.integers(1, 2)
used = st.sampled_from(USED)
tables = st.sampled_from(TABLES)
offsets = st.sampled_from((0, 8, CODE_AT, 0x7FC, 0xFFC))
values = st.sampled_from((0, 0x01010101, 0xC3C3C3C3, 0x12345678))
flags = st.lists(st.sampled_from(PRESENT_BITS), unique=True).map(sum).map(lambda bits: bits ^ (mmu.RW | mmu.US | mmu.A | mmu.D))
ways = st.sampled_from(("store", "exchange", "repeat", "flood", "device"))


def page_of(number: int) -> int:
    """Guest-physical address of a page of the model."""
    return FIRST + number << 12


class Guest:
    """The model of one guest, and the guest."""

    def __init__(self, rig: Rig, number: int, fmt: Format, kind: Mmu, switches: frozenset[str]) -> None:
        self.rig, self.fmt = rig, fmt
        self.wide = fmt is not Format.BITS32
        self.ignored = mmu.A if kind is Mmu.NESTED else 0  # the engine sets it on its way to a fault
        self.pages = {page: bytearray(PAGE_BYTES) for page in range(len((ROOT, DIRECTORY, POINTERS, *USED)))}
        self.write_protect = True
        self.vm: HostedVm = rig.start(number, mailbox.rom(fmt), mmu=kind, shadow_switches=switches, unsync_tables=2)
        rig.run(self.vm, lambda: self.vm.vm.guest_cr3 != 0, insns=20_000)
        self._lay_out()

    def _lay_out(self) -> None:
        """The guest's own mapping, and CR3."""
        if self.fmt is Format.LONG:
            self._build(ROOT, 0, page_of(POINTERS) | KEPT)
            self._build(POINTERS, 0, page_of(DIRECTORY) | KEPT)
        elif self.fmt is Format.PAE:
            self._build(ROOT, 0, page_of(DIRECTORY) | mmu.P)
        for index, table in enumerate(KERNEL_TABLES[self.fmt]):
            self._build(self.directory, index, table | KEPT)
        for place, table in enumerate(TABLES):
            self._build(self.directory, self.directory_index(place), page_of(table) | KEPT)
        for page in DATA:  # all alike, so that they are shared at once
            self._build(TABLE, self.table_index(page), page_of(page) | KEPT)
            self.device_stores(page, 0, CONTENTS[1])
        self.tell(Do.CR3, page_of(ROOT))

    def _build(self, page: int, index: int, entry: int) -> None:
        self.device_stores(page, index * self.entry_bytes, entry.to_bytes(self.entry_bytes, "little"))

    # ---- where things are ----

    @property
    def entry_bytes(self) -> int:
        return 8 if self.wide else 4

    @property
    def directory(self) -> int:
        """The page of the table whose entries map 2 or 4 MB."""
        return DIRECTORY if self.wide else ROOT

    def registers(self) -> Registers:
        cr0 = mmu.CR0_PE | mmu.CR0_PG | (mmu.CR0_WP if self.write_protect else 0)
        cr4 = mmu.CR4_PAE if self.wide else mmu.CR4_PSE
        efer = {Format.BITS32: 0, Format.PAE: mmu.EFER_NXE, Format.LONG: NX_ON}[self.fmt]
        return Registers(cr0, page_of(ROOT), cr4, efer)

    def directory_index(self, place: int) -> int:
        """The directory entry of one of the two places where a test maps something."""
        return (128 if self.wide else 64) + place

    def table_index(self, page: int) -> int:
        """The entry of a page table that stands where a large page shows the page."""
        return (FIRST + page) % (512 if self.wide else 1024)

    def address(self, place: int, page: int) -> int:
        """The linear address of a page at one of three places; the third is in a page of 1 GB, if there is one."""
        if place == 2:
            return 1 << 30 | page_of(page)
        return self.directory_index(place) << (21 if self.wide else 22) | self.table_index(page) << 12

    # ---- the guest's memory, as the model has it ----

    def read(self, physical: int, size: int) -> int:
        """Absent memory reads as ones."""
        if physical >= MEMORY:
            return (1 << 8 * size) - 1
        page, at = divmod(physical - page_of(0), PAGE_BYTES)
        return int.from_bytes(self.pages[page][at : at + size], "little")

    def write(self, physical: int, data: bytes) -> None:
        """Absent memory takes nothing."""
        if physical < MEMORY:
            page, at = divmod(physical - page_of(0), PAGE_BYTES)
            self.pages[page][at : at + len(data)] = data

    def translate(self, linear: int, kind: Kind) -> Translation | PageFault:
        """Where an access goes; the bits that it sets are set."""
        result = mmu.translate(self.read, self.registers(), Access(linear, kind))
        for mark in result.marks:
            self.write(mark.physical, (self.read(mark.physical, mark.size) | mark.bits).to_bytes(mark.size, "little"))
        assert isinstance(result.outcome, Translation | PageFault)
        return result.outcome

    def is_table(self, physical: int) -> bool:
        return (physical >> 12) - FIRST in (ROOT, DIRECTORY, POINTERS, *TABLES)

    # ---- the guest ----

    def tell(self, what: Do, address: int = 0, value: int = 0, expected: int = 0) -> int:
        """Have the guest do something; the value in the mailbox after it."""
        machine = self.vm.vm
        machine.write_physical(MAILBOX, mailbox.letter(what, address, value, expected))
        self.rig.settle()
        self.rig.run(self.vm, lambda: machine.read_physical(MAILBOX, 1) == b"\0")
        return int.from_bytes(machine.read_physical(MAILBOX + 8, 4), "little")

    def faults(self) -> list[tuple[int, int, int]]:
        """(vector, error code, CR2) of what the last command met."""
        memory = self.vm.vm.read_physical(mailbox.NOTES_USED, 0x400)
        used = int.from_bytes(memory[:4], "little") - mailbox.NOTES_USED
        words = [int.from_bytes(memory[at : at + 4], "little") for at in range(0x20, used, 4)]
        return [(words[at], words[at + 1], words[at + 7]) for at in range(0, len(words), harness.NOTE_WORDS)]

    def met(self, outcome: Translation | PageFault) -> bool:
        """Whether an access was permitted; what the guest was given must say the same."""
        due = [(14, outcome.error_code, outcome.cr2)] if isinstance(outcome, PageFault) else []
        assert self.faults() == due, outcome
        return not due

    def flush(self) -> None:
        self.tell(Do.CR3, page_of(ROOT))

    def device_stores(self, page: int, at: int, data: bytes) -> None:
        self.vm.vm.write_physical(page_of(page) + at, data)
        self.write(page_of(page) + at, data)
        self.rig.settle()

    def change_word(self, way: str, page: int, at: int, value: int) -> None:
        """Store a word by the guest's own mapping, or as a device."""
        physical = page_of(page) + at
        old = self.read(physical, 4)
        if way == "device":
            self.device_stores(page, at, value.to_bytes(4, "little"))
            return
        if self.ignored and way == "exchange":  # the model does not know all of the old value
            way = "store"
        self.tell(Do[way.upper()], physical, value, old)
        self.write(physical, value.to_bytes(4, "little"))

    def change_entry(self, way: str, page: int, index: int, entry: int) -> None:
        """Store an entry, in an order that never shows half of one, and flush the TLB."""
        at = index * self.entry_bytes
        if self.wide and (self.read(page_of(page) + at, 8) ^ entry) >> 32:
            self.change_word("store", page, at, 0)
            self.change_word("store", page, at + 4, entry >> 32)
        self.change_word(way, page, at, entry & 0xFFFF_FFFF)
        self.flush()

    def leaf(self, page: int, bits: int) -> int:
        """A page-table entry for a page of the model."""
        return page_of(page) | mmu.P | (bits if self.wide else bits & 0xFFF)


class Machine(RuleBasedStateMachine):
    """Two VMs at the most."""

    @initialize(
        seed=st.integers(0, 100),
        mask=st.sampled_from([0, 7, -1]),
        formats=st.lists(st.sampled_from([Format.BITS32, Format.PAE, Format.LONG]), min_size=2, max_size=2),
        kind=st.sampled_from([Mmu.SHADOW, Mmu.SHADOW, Mmu.SHADOW, Mmu.NESTED]),
        switches=st.frozensets(st.sampled_from(SHADOW_SWITCHES), max_size=2),
    )
    def begin(self, seed: int, mask: int, formats: list[Format], kind: Mmu, switches: frozenset[str]) -> None:
        self.rig = Rig(seed)
        self.rig.sharing.table.weaken(mask)
        self.rig.sharing.table.saturate(3, 2)
        self.settings_of: Any = (formats, kind, switches)
        self.guests: dict[int, Guest] = {}
        self.guest(1)

    def guest(self, number: int) -> Guest:
        if number not in self.guests:
            formats, kind, switches = self.settings_of
            self.guests[number] = Guest(self.rig, number, formats[number - 1], kind, switches)
        return self.guests[number]

    # ---- page tables ----

    @rule(number=vms, table=tables, place=st.sampled_from(USED), page=used, bits=flags, way=ways)
    def map_page(self, number: int, table: int, place: int, page: int, bits: int, way: str) -> None:
        """An entry of a page table leads to another page, or to the same with other rights; it is in use before and after."""
        guest = self.guest(number)
        self.load(number, TABLES.index(table), place, 0)
        guest.change_entry(way, table, guest.table_index(place), guest.leaf(page, bits))
        self.load(number, TABLES.index(table), place, 0)

    @rule(number=vms, table=tables, place=st.sampled_from(USED), way=ways)
    def unmap_page(self, number: int, table: int, place: int, way: str) -> None:
        guest = self.guest(number)
        guest.change_entry(way, table, guest.table_index(place), 0)

    @rule(number=vms, place=st.integers(0, 1), table=tables, bits=flags, way=ways)
    def link_table(self, number: int, place: int, table: int, bits: int, way: str) -> None:
        """A directory entry leads to a page table."""
        guest = self.guest(number)
        guest.change_entry(way, guest.directory, guest.directory_index(place), guest.leaf(table, bits))

    @rule(number=vms, place=st.integers(0, 2), bits=flags, way=ways)
    def map_large_page(self, number: int, place: int, bits: int, way: str) -> None:
        """A directory entry maps 2 or 4 MB, or an entry above it 1 GB; all pages of the model are in it, the tables too."""
        guest = self.guest(number)
        bits |= mmu.PS | mmu.P
        if place == 2:
            if guest.fmt is Format.LONG:
                guest.change_entry(way, POINTERS, 1, bits)
            return
        frame = (FIRST << 12 & ~0x1F_FFFF) if guest.wide else 0
        guest.change_entry(way, guest.directory, guest.directory_index(place), frame | (bits if guest.wide else bits & 0xFFF))

    @rule(number=vms, table=tables, place=st.sampled_from(USED))
    def invalidate(self, number: int, table: int, place: int) -> None:
        """INVLPG flushes enough where one address is concerned."""
        guest = self.guest(number)
        for where in range(2):
            guest.tell(Do.INVLPG, guest.address(where, place))
        del table

    @rule(number=vms)
    def toggle_write_protect(self, number: int) -> None:
        guest = self.guest(number)
        guest.tell(Do.WRITE_PROTECT)
        guest.write_protect = not guest.write_protect

    # ---- accesses of the guest ----

    @rule(number=vms, where=st.integers(0, 2), page=used, at=offsets)
    def load(self, number: int, where: int, page: int, at: int) -> None:
        """By the address of a page at one of three places; where that leads is the tables' affair."""
        guest = self.guest(number)
        linear = guest.address(where, page) | at
        outcome = guest.translate(linear, Kind.READ)
        value = guest.tell(Do.LOAD, linear)
        if guest.met(outcome):
            assert isinstance(outcome, Translation)
            ignored = guest.ignored if guest.is_table(outcome.physical) else 0
            assert value & ~ignored == guest.read(outcome.physical, 4) & ~ignored, hex(linear)

    @rule(number=vms, where=st.integers(0, 2), page=used, at=offsets, value=values)
    def store(self, number: int, where: int, page: int, at: int, value: int) -> None:
        guest = self.guest(number)
        linear = guest.address(where, page) | at
        outcome = guest.translate(linear, Kind.WRITE)
        guest.tell(Do.STORE, linear, value)
        if guest.met(outcome):
            assert isinstance(outcome, Translation)
            guest.write(outcome.physical, value.to_bytes(4, "little"))
            if guest.is_table(outcome.physical):
                guest.flush()

    @rule(number=vms, where=st.integers(0, 2), page=used)
    def call(self, number: int, where: int, page: int) -> None:
        """Run the one instruction there, if it is a return."""
        guest = self.guest(number)
        linear = guest.address(where, page) | CODE_AT
        found = mmu.translate(guest.read, guest.registers(), Access(linear, Kind.FETCH)).outcome
        if isinstance(found, Translation) and guest.read(found.physical, 1) != RETURN:
            return
        outcome = guest.translate(linear, Kind.FETCH)
        guest.tell(Do.CALL, linear)
        guest.met(outcome)

    # ---- devices ----

    @rule(number=vms, page=st.sampled_from(DATA), what=st.sampled_from(CONTENTS))
    def device_stores_page(self, number: int, page: int, what: bytes) -> None:
        """By the views that a disk gets."""
        guest = self.guest(number)
        landing = guest.vm.vm.views_to_store([Extent(page_of(page), PAGE_BYTES)])
        done = 0
        for view in landing.views:
            view[:] = what[done : done + len(view)]
            done += len(view)
        landing.settle()
        guest.write(page_of(page), what)
        self.rig.settle()

    @rule(number=vms, page=st.sampled_from(DATA), at=offsets, value=values)
    def device_stores_word(self, number: int, page: int, at: int, value: int) -> None:
        self.guest(number).device_stores(page, at, value.to_bytes(4, "little"))

    @rule(number=vms, first=st.sampled_from(DATA), count=st.integers(1, 3))
    def device_loads(self, number: int, first: int, count: int) -> None:
        guest = self.guest(number)
        extents = [Extent(page_of(page), PAGE_BYTES) for page in DATA[DATA.index(first) :][:count]]
        seen = b"".join(bytes(view) for view in guest.vm.vm.views_to_load(extents))
        assert seen == b"".join(bytes(guest.pages[(extent.pa >> 12) - FIRST]) for extent in extents)
        self.rig.settle()

    # ---- the host ----

    @rule(count=st.integers(1, 300))
    def scan(self, count: int) -> None:
        self.rig.sharing.scan(count)

    @rule()
    def share_all(self) -> None:
        self.rig.share_all()

    @rule(number=vms, page=st.sampled_from((ROOT, DIRECTORY, POINTERS, *USED)))
    def page_out(self, number: int, page: int) -> None:
        self.rig.page_out(self.guest(number).vm, FIRST + page)

    @rule(number=vms, page=st.sampled_from((ROOT, DIRECTORY, POINTERS, *USED)))
    def watch(self, number: int, page: int) -> None:
        self.rig.watch(self.guest(number).vm, FIRST + page)

    @rule(number=vms, page=used)
    def lock(self, number: int, page: int) -> None:
        """A page goes into the balloon; its driver keeps off it until its TLB has forgotten it."""
        guest = self.guest(number)
        guest.vm.vm.balloon._pages.lock(FIRST + page, MEMORY // PAGE_BYTES)  # noqa: SLF001
        if state_of(guest.vm, FIRST + page) == pmap.BALLOONED:
            guest.pages[page][:] = bytes(PAGE_BYTES)
        self.rig.settle()

    @rule(number=vms, page=used)
    def unlock(self, number: int, page: int) -> None:
        self.guest(number).vm.vm.balloon._pages.unlock(FIRST + page)  # noqa: SLF001

    @rule(number=vms)
    def restart_driver(self, number: int) -> None:
        balloon.forget(self.guest(number).vm.vm.control)

    @rule(number=vms)
    def stop(self, number: int) -> None:
        if self.guests.pop(number, None) is not None:
            self.rig.stop(number)

    @invariant()
    def all_adds_up(self) -> None:
        if hasattr(self, "rig"):
            self.rig.check()

    def teardown(self) -> None:
        for guest in getattr(self, "guests", {}).values():
            for page, contents in guest.pages.items():
                seen = guest.vm.vm.read_physical(page_of(page), PAGE_BYTES)
                if not (guest.ignored and guest.is_table(page_of(page))):
                    assert seen == bytes(contents), f"page {page}"
        if hasattr(self, "rig"):
            self.rig.close()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None, derandomize=True)
