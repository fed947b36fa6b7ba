# SPDX-License-Identifier: GPL-2.0-or-later
"""Shadow page tables under random guest behaviour, against a plain walk of the guest's own tables.

The guest is a model: its accesses go through the shadow tables as the engine's MMU would walk them, faults are served as
an exit would be, and its stores land in the frames that the shadow names. After every operation the auditor checks all
invariants; every access must end as the guest's tables say; and nothing that was permitted may be taken away without a
flush of the engine's TLB being due.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from emu.events import Kind
from emu.machine import control as cbw
from emu.units import MPN, PAGE_BYTES
from emu.vm import access, check, faults, handler, pmap, registers, rows, step, sync
from emu.vm.vm import VirtualMachine
from tests.vm import harness
from tests.vm import reference as ref

NX = 1 << 63
FRAME = 0x000F_FFFF_FFFF_F000
FETCH = 16
TABLES = (0x10, 0x11, 0x12, 0x13, 0x14)  # pages that serve as directory and as table alike
PAGES = (*TABLES, *range(0x100, 0x108), 0xF1, 0xB0, 0x500, 0xF_FFF1)  # data, ROM, absent, ROM's upper copy
DIRECTORY_INDEXES = (0, 1, 2, 0x3FF)
TABLE_INDEXES = (0, 1, 2, 3, 0x10, 0x11, 0x12, 0x1FF, 0x200, 0x201, 0x3FF)
TRIES = 8  # faults that one access may take: page, table and code each at the most twice
ENTRY_BITS = (ref.W, ref.U, ref.A, ref.D, 1 << 8)


def boot(**settings: int) -> VirtualMachine:
    """A VM whose guest has turned paging on and stopped."""
    vm, _ = harness.make(harness.assemble("test: PAGING\n EXIT 1").rom, **settings)
    vm.run(limit=harness.INSN_LIMIT)
    assert vm.control[cbw.SHADOWING]
    return vm


class Model:
    """The guest's side."""

    def __init__(self, vm: VirtualMachine, seed: int, *, large: bool = False) -> None:
        self.vm = vm
        self.state, self.control = vm.state, vm.control
        self.rng = random.Random(seed)
        self.recent: deque[dict[str, int]] = deque(maxlen=12)  # accesses that are tried again
        self.ended = {"served": 0, "fault": 0, "stepped": 0}
        self.large = large
        self.forgotten = -1  # the page of which the engine's TLB has forgotten the translation in this step, -1 none
        if large:
            assert registers.write_cr4(self.control, ref.PSE) == registers.SERVED
        for ppn in TABLES:
            self.device_store(ppn << 12, bytes(PAGE_BYTES))
        for ppn in TABLES:
            for index in {*DIRECTORY_INDEXES, *TABLE_INDEXES}:
                self.device_store(ppn << 12 | index * 4, self.entry().to_bytes(4, "little"))
        self.serve(lambda: registers.write_cr3(self.control, TABLES[0] << 12) == registers.SERVED)
        self.settle()

    # ---- guest memory ----

    def entry(self) -> int:
        rng = self.rng
        page = rng.choice(TABLES) if rng.random() < 0.5 else rng.choice(PAGES)
        value = page << 12 | (rng.random() < 0.85) | sum(bit for bit in ENTRY_BITS if rng.random() < 0.6)
        if self.large and rng.random() < 0.2:
            value = value & 0xFFF | ref.PS | rng.choice([0, 0, 0x40_0000, 0x20_0000])
        return value

    def read(self, pa: int) -> int:
        """A word of guest-physical memory as it is now."""
        return int.from_bytes(self.vm.read_physical(pa, 4), "little")

    def read_kept(self, pa: int) -> int:
        """The same, out-of-sync tables as they were when last read."""
        for index in np.flatnonzero(self.state.unsync_rows == (pa >> 12) + 1):
            at = int(index) * PAGE_BYTES + (pa & 0xFFF)
            return int(self.state.unsync_copies[at : at + 4].view("<u4")[0])
        return self.read(pa)

    def device_store(self, pa: int, data: bytes) -> None:
        self.vm.write_physical(pa, data)

    # ---- the engine's side ----

    def shadow_entry(self, va: int) -> int:
        """The leaf that the engine's MMU finds, its W and U bits those of the path; 0 if none."""
        if self.control[cbw.ROOT] < 0:
            return 0
        words = self.state.memory.words
        table = int(self.state.rows[int(self.control[cbw.ROOT]), rows.FRAME]) << 12
        rights = ref.W | ref.U
        value = 0
        for shift in (30, 21, 12):
            index = va >> shift & (3 if shift == 30 else 0x1FF)
            value = int(words[table // 8 + index]) & (1 << 64) - 1
            if not value & ref.P:
                return 0
            if shift != 30:
                rights &= value
            table = value & FRAME
        return value & ~(ref.W | ref.U) | rights

    def take_in(self, va: int) -> None:
        """Set the A bits of the path, as the engine does when its TLB takes an entry in."""
        words = self.state.memory.words
        table = int(self.state.rows[int(self.control[cbw.ROOT]), rows.FRAME]) << 12
        for shift in (30, 21, 12):
            at = table // 8 + (va >> shift & (3 if shift == 30 else 0x1FF))
            if shift != 30:
                words[at] |= ref.A
            table = int(words[at]) & FRAME

    def code_for(self, va: int, *, write: bool, user: bool, fetch: bool) -> int | None:
        """The error code of the engine's page fault, None where the shadow permits the access."""
        value = self.shadow_entry(va)
        code = (2 if write else 0) | (4 if user else 0) | (FETCH if fetch else 0)
        if not value:
            return code
        denied = (write and not value & ref.W) or (user and not value & ref.U) or (fetch and value & NX)
        return code | 1 if denied else None

    def serve(self, attempt: Callable[[], bool]) -> None:
        """Repeat what may lack a frame, refilling the reserve as the VM would."""
        for _ in range(3):
            if attempt():
                return
            self.state.refill()
        raise AssertionError("a full reserve is not enough")

    def settle(self) -> None:
        """What the way back into the guest does."""
        handler.finish(self.control)
        if self.control[cbw.RESERVE_COUNT] < 32:
            self.state.refill()

    # ---- operations ----

    def access(self, va: int, *, write: bool = False, user: bool = False, fetch: bool = False, value: int = 0) -> None:
        """One access, to its end: served, or a true fault."""
        before = self.walk(self.read, va, write=write, user=user)
        kept = self.walk(self.read_kept, va, write=write, user=user)
        what = f"{va:08x} write {write} user {user} fetch {fetch}: shadow {self.shadow_entry(va):#x}, {before}, kept {kept}"
        for _ in range(TRIES):
            code = self.code_for(va, write=write, user=user, fetch=fetch)
            if code is None:
                self.take_in(va)
                break
            answer = faults.on_shadow_fault(self.control, va, code)
            if answer == faults.NO_FRAME:
                self.state.refill()
            elif answer == faults.TRUE_FAULT:
                assert before.code is not None, what
                assert int(self.control[cbw.FAULT_CODE]) == before.code, what
                assert int(self.control[cbw.EXIT_INFO]) == va, what
                self.ended["fault"] += 1
                return
        else:
            raise AssertionError(f"no progress: {what}")
        self.ended["served"] += 1
        self._granted(va, (before, kept), what, write=write)
        if write:
            self._store(va, value)

    def walk(self, read: Callable[[int], int], va: int, *, write: bool, user: bool) -> ref.Walk:
        cr0, cr3, cr4 = (int(self.control[word]) for word in (cbw.GUEST_CR0, cbw.GUEST_CR3, cbw.GUEST_CR4))
        return ref.walk(read, cr0, cr3, cr4, va, write=write, user=user)

    def _granted(self, va: int, walks: tuple[ref.Walk, ref.Walk], what: str, *, write: bool) -> None:
        """The shadow permits the access: so do the guest's tables, now or when out-of-sync ones were last read."""
        mpn = (self.shadow_entry(va) & FRAME) >> 12
        frames = [self.mpn(walk.ppn, write=write) for walk in walks if walk.code is None]
        if self.control[cbw.STEPPING]:
            self.ended["stepped"] += 1
            frames += [int(sink) for sink in self.state.sinks] if write else []
        assert mpn in frames, what
        now = walks[0]
        if now.code is None and now == walks[1]:
            for at, bits in now.marks:
                if self.is_ram(at >> 12):
                    assert self.read(at) & bits == bits, f"A or D is missing at {at:#x}: {what}"

    def is_ram(self, ppn: int) -> bool:
        slot = pmap.slot_of(self.control, ppn)
        return bool(int(self.state.pmap[slot]) >> pmap.STATE_SHIFT & pmap.STATE_MASK in (0, 1))

    def mpn(self, ppn: int, *, write: bool) -> int:
        """The frame that an access to a page may reach; none for a store to ROM and absent memory."""
        slot = pmap.slot_of(self.control, ppn)
        if write and not self.is_ram(ppn):
            return -1
        return int(self.state.pmap[slot]) & pmap.MPN_MASK

    def _store(self, va: int, value: int) -> None:
        frame = (self.shadow_entry(va) & FRAME) >> 12
        at = frame * PAGE_BYTES + (va & 0xFFC)
        self.state.memory.bytes[at : at + 4].view("<u4")[0] = value
        if self.control[cbw.STEPPING]:
            step.finish(self.control)

    def views(self) -> dict[tuple[int, int], int]:
        """Every present shadow entry by row and index: what the engine's TLB may know."""
        used = np.flatnonzero(self.state.rows[:, rows.IN_USE])
        return {
            (int(row), int(index)): int(words[index])
            for row in used
            for words in [self.state.memory.frame(MPN(int(self.state.rows[row, rows.FRAME]))).view(np.int64)]
            for index in np.flatnonzero(words & ref.P)
        }

    def lost_rights(self, before: dict[tuple[int, int], int]) -> Iterator[str]:
        """Entries that permit less than they did, or lead elsewhere."""
        after = self.views()
        for place, old in before.items():
            new = after.get(place, 0)
            if not old & ref.A:  # the engine's TLB does not know it
                continue
            if self.forgotten >= 0 and self.reached_from(place) <= {self.forgotten}:
                continue
            if (old ^ new) & FRAME or old & ~new & (ref.P | ref.W | ref.U) or new & ~old & NX:
                yield f"entry {place}: {old:#x} became {new:#x}"

    def reached_from(self, place: tuple[int, int]) -> set[int]:
        """The pages whose translation the engine's root takes from a leaf; others that the guest uses here it does not reach."""
        words = self.state.memory.words
        frame = int(self.state.rows[place[0], rows.FRAME])
        found = set()
        for directory in range(1024):
            va = directory << 22 | (place[1] << 12)
            for page in (va, va | 1 << 21):
                table = int(self.state.rows[int(self.control[cbw.ROOT]), rows.FRAME])
                for shift in (30, 21):
                    entry = int(words[table * 512 + (page >> shift & (3 if shift == 30 else 0x1FF))])
                    table = (entry & FRAME) >> 12 if entry & ref.P else -1
                    if table < 0:
                        break
                if table == frame:
                    found.add(page)
        return found

    def flush(self) -> None:
        registers.guest_flushed(self.control)

    def random_va(self) -> int:
        rng = self.rng
        return rng.choice(DIRECTORY_INDEXES) << 22 | rng.choice(TABLE_INDEXES) << 12 | rng.choice([0, 4, 8, 0x40, 0xFFC])

    def random_table_address(self) -> int:
        return self.rng.choice(TABLES) << 12 | self.rng.choice([*DIRECTORY_INDEXES, *TABLE_INDEXES]) * 4

    def store_to_table(self, table: int, count: int) -> None:
        """Stores of the guest to one of its tables, wherever it can reach it."""
        rng = self.rng
        for va in (directory << 22 | index << 12 for directory in DIRECTORY_INDEXES for index in TABLE_INDEXES):
            for _ in range(count):
                walk = self.walk(self.read, va, write=True, user=False)
                if walk.code is not None or walk.ppn != table:
                    break
                self.access(va | rng.choice([*DIRECTORY_INDEXES, *TABLE_INDEXES]) * 4, write=True, value=self.entry())

    def flood(self) -> None:
        """So many stores to a page table that it goes out of sync."""
        self.store_to_table(self.rng.choice(TABLES[2:]), 6)

    def operate(self) -> None:
        """One random operation."""
        rng, control = self.rng, self.control
        self.forgotten = -1
        kind = rng.choices(("access", "store", "device", "cr3", "flush", "invlpg", "wp", "same"), (50, 14, 12, 5, 4, 6, 3, 6))[0]
        if kind == "access":
            if self.recent and rng.random() < 0.5:
                wanted = rng.choice(self.recent)
            else:
                fetch = rng.random() < 0.2
                wanted = {
                    "va": self.random_va(),
                    "write": not fetch and rng.random() < 0.4,
                    "user": rng.random() < 0.3,
                    "fetch": fetch,
                }
                self.recent.append(wanted)
            self.access(**wanted, value=self.entry())
        elif kind == "store":
            self.store_to_table(rng.choice(TABLES), 1)
        elif kind == "device":
            size = rng.choice([4, 4, 4, 2, 1])
            pa = self.random_table_address()
            self.serve(lambda: bool(access.store_bytes(control, pa, size, self.entry() & (1 << 8 * size) - 1)))
        elif kind == "cr3":
            cr3 = rng.choice([*TABLES[:2] * 3, TABLES[2], 0xF1, 0x500]) << 12
            self.serve(lambda: registers.write_cr3(control, cr3) == registers.SERVED)
        elif kind == "flush":
            self.flush()
        elif kind == "invlpg":
            va = self.random_va()
            registers.sync_address(control, va)
            self.forgotten = va & -PAGE_BYTES
        elif kind == "wp":
            value = int(control[cbw.GUEST_CR0]) ^ ref.WP
            self.serve(lambda: registers.write_cr0(control, value) == registers.SERVED)
        else:
            self.flood()


def play(model: Model, steps: int) -> None:
    for number in range(steps):
        before = model.views()
        flushes = int(model.state.counters[Kind.TLB_FLUSH])
        try:
            model.operate()
            check.check(model.state)
            lost = next(model.lost_rights(before), None)
            flushed = int(model.state.counters[Kind.TLB_FLUSH]) > flushes
            assert lost is None or flushed or model.control[cbw.NEEDS_TLB_FLUSH], f"no flush is due, but {lost}"
        except Exception as error:
            error.add_note(f"step {number}")
            raise
        model.settle()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("pages", [20, 64])
def test_random_guests(seed: int, pages: int, large: bool) -> None:
    vm = boot(shadow_pages=pages, reserve_frames=128, unsync_tables=2)
    model = Model(vm, seed, large=large)
    play(model, 250)
    assert min(model.ended.values()) > 0, model.ended


def test_a_page_is_forgotten_alone_only_where_its_entry_has_one_address() -> None:
    """A leaf that two addresses share must leave the engine's TLB at both, or a frame taken away later could still be reached."""
    for directories in ((1,), (1, 2)):
        vm = boot(unsync_tables=2)
        model = Model(vm, 0)
        table, va = 0x11, 1 << 22
        model.device_store(0x10 << 12, bytes(PAGE_BYTES))
        for directory in directories:
            model.device_store(0x10 << 12 | directory * 4, (table << 12 | 0x67).to_bytes(4, "little"))
        model.device_store(table << 12, (0x100 << 12 | 0x67).to_bytes(4, "little"))
        registers.write_cr3(vm.control, 0x10 << 12)
        for directory in directories:
            model.access(directory << 22)
        model.settle()
        assert sync.begin_unsync(vm.control, table)
        handler.finish(vm.control)
        vm.state.memory.bytes[model.mpn(table, write=False) * PAGE_BYTES :][:4] = 0
        registers.sync_address(vm.control, va)
        assert not model.shadow_entry(va)
        assert bool(vm.control[cbw.NEEDS_TLB_FLUSH]) is (len(directories) > 1)
