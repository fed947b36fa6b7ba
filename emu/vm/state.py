"""What one VM consists of in memory: its control block, the arrays that the block points to, its frames.

Native code reaches all of it through the control block (`emu.machine.control`); Python through the attributes here.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from emu import events
from emu.config import Mmu, VmConfig
from emu.devices import vga
from emu.errors import SnapshotError
from emu.machine import control as cbw
from emu.machine.memory import FrameUse, MachineMemory
from emu.saving import Giver, Taker
from emu.units import KIB, MPN, PAGE_BYTES, pages_of
from emu.vm import access, clock, cow, pmap, shadow, step_records
from emu.vm.rows import ENTRIES, LINK_WORDS, NEXT_FREE, ROW_WORDS
from emu.vm.rows import FRAME as ROW_FRAME

VIDEO_FIRST_PPN = 640 * KIB // PAGE_BYTES  # from here to the ROM: only text memory, which is plain RAM
TEXT_PPNS = slice(vga.TEXT_ADDRESSES.start // PAGE_BYTES, vga.TEXT_ADDRESSES.stop // PAGE_BYTES)
ROM_END_PPN = 1024 * KIB // PAGE_BYTES
ONE_MIB_PAGES = 1024 * KIB // PAGE_BYTES
NO_ROW = -1
NO_BLOCK = -1  # in snapshots
NO_PAGE = -1
NO_ADDRESS = -1
# What a VM is made with: a snapshot's words do not count.
MADE_WITH = (
    cbw.SLOTS, cbw.ABSENT, cbw.RAM_PAGES, cbw.VM_ID, cbw.ROM_FIRST, cbw.ROM_PAGES, cbw.USE_SHADOW, cbw.SHADOW_MAX, cbw.UNSYNC_MAX,
    cbw.SHADOW_OPTIONS, cbw.EVENTS_MASK, cbw.EVENT_SELECTION, cbw.EVENT_INSNS, cbw.CC_OP_EFLAGS, cbw.LOW_BYTES, cbw.HIGH_AT, cbw.HIGH_BYTES,
)  # fmt: skip
STEP_ADDRESSES = [step_records.ENTRY // 8, step_records.COPY_OF // 8]
NEVER_FULL = 1 << 62
FIXED_FRAMES = 3 + step_records.LIMIT + len(pmap.DEVICE_PPNS)  # absent page, empty table, nested root, sinks, devices
CPU_FRAMES = 3
SPARE_FRAMES = 64


def frames_needed(config: VmConfig, rom_bytes: int) -> int:
    """Frames of machine memory that a VM may use at the most, with its reserve."""
    tables = config.shadow_pages + config.nested_tables
    pages = config.memory_bytes // PAGE_BYTES + pages_of(rom_bytes)
    return pages + tables + config.reserve_frames + FIXED_FRAMES + CPU_FRAMES + SPARE_FRAMES


def _lies_in(values: np.ndarray, first: int, last: int) -> bool:
    return not values.size or (int(values.min()) >= first and int(values.max()) <= last)


class VmState:
    """The arrays of one VM. `number` is its number in the frame table and in events; a hosted one gets and gives frames between slices only."""

    WIRING: ClassVar = frozenset({"memory", "config", "control", "ring", "code_pages", "step_rows"})

    def __init__(self, memory: MachineMemory, config: VmConfig, rom: bytes, number: int, *, is_hosted: bool = False) -> None:
        self.memory = memory
        self._is_hosted = is_hosted
        self.returned: list[np.ndarray] = []  # of a hosted VM: frames for the machine, which others use meanwhile
        self.config = config
        self.number = number
        self.control = np.zeros(cbw.WORDS, np.int64)
        self.ram_pages = config.memory_bytes // PAGE_BYTES
        self.slots = self.ram_pages + 1 + len(pmap.DEVICE_PPNS)
        self.pmap = np.zeros(self.slots, np.int64)
        self.rmap = np.zeros(self.slots, np.int32)
        self.tables = np.zeros(self.slots, np.int32)
        self.reserve = np.zeros(config.reserve_frames, np.int64)
        self.rows = np.zeros((config.shadow_pages, ROW_WORDS), np.int32)
        self.links = np.zeros((config.shadow_pages * ENTRIES, LINK_WORDS), np.int32)
        self.unsync_rows = np.zeros(config.unsync_tables, np.int32)
        self.unsync_copies = np.zeros(config.unsync_tables * PAGE_BYTES, np.uint8)
        self.step_rows = np.zeros(step_records.LIMIT * step_records.BYTES, np.uint8)
        self.step_copies = np.zeros(step_records.LIMIT * PAGE_BYTES, np.uint8)
        self.blocks = np.zeros((clock.TABLE_ENTRIES + 1) * clock.ENTRY_BYTES, np.uint8)
        self.code_pages = np.full(access.CODE_PAGES * access.CODE_PAGE_BYTES, 0xFF, np.uint8)  # of no page
        self.code_copy = np.zeros(2 * PAGE_BYTES, np.uint8)
        self.dropped = np.zeros(self.slots, np.int64)
        self.watched = np.zeros(self.slots, np.uint8)
        self.history = np.full((self.slots if is_hosted else 0, cow.HISTORY_WORDS), cow.NEVER, np.int64)
        self.insn = np.zeros(64, np.uint8)  # 15, and what decoding may look at beyond
        self.counters = np.zeros(events.NUMBER_OF_KINDS, np.int64)
        self.ring = np.zeros(config.event_rows if config.events else 1, events.RECORD)
        self._drained = 0
        self.fixed_frames = memory.allocate(FIXED_FRAMES, number, FrameUse.VMM)
        self.rom_frames = memory.allocate(pages_of(len(rom)), number, FrameUse.VMM)
        self._lay_out_pmap(rom)
        self._fill_control()

    def _lay_out_pmap(self, rom: bytes) -> None:
        absent = int(self.fixed_frames[0])
        self.memory.frame(MPN(absent))[:] = 0xFF
        self.pmap[VIDEO_FIRST_PPN:ROM_END_PPN] = pmap.ABSENT << pmap.STATE_SHIFT
        self.pmap[TEXT_PPNS] = pmap.UNALLOCATED << pmap.STATE_SHIFT
        self.pmap[self.ram_pages] = absent | pmap.ABSENT << pmap.STATE_SHIFT
        for number in range(len(pmap.DEVICE_PPNS)):
            frame = int(self.fixed_frames[3 + step_records.LIMIT + number])
            self.pmap[self.ram_pages + 1 + number] = frame | pmap.DEVICE << pmap.STATE_SHIFT
        first = ROM_END_PPN - len(self.rom_frames)
        for number, mpn in enumerate(self.rom_frames):
            part = np.frombuffer(rom, np.uint8)[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
            self.memory.frame(MPN(int(mpn)))[: len(part)] = part
            self.pmap[first + number] = int(mpn) | pmap.ROM << pmap.STATE_SHIFT
        self.control[cbw.ROM_FIRST] = first
        self.control[cbw.ROM_PAGES] = len(self.rom_frames)

    def _fill_control(self) -> None:
        self.rows[:, ROW_FRAME] = -1
        self.rows[:, NEXT_FREE] = np.arange(2, len(self.rows) + 2)
        self.rows[-1, NEXT_FREE] = 0
        empty, nested = (int(mpn) for mpn in self.fixed_frames[1:3])
        self.sinks = self.fixed_frames[3 : 3 + step_records.LIMIT].astype(np.int64)
        arrays: dict[int, np.ndarray] = {
            cbw.SELF: self.control,
            cbw.PMAP: self.pmap,
            cbw.RMAP: self.rmap,
            cbw.TABLES: self.tables,
            cbw.RESERVE: self.reserve,
            cbw.FRAMES: self.memory.frames.records,
            cbw.SHADOW_ROWS: self.rows,
            cbw.LINKS: self.links,
            cbw.UNSYNC_ROWS: self.unsync_rows,
            cbw.UNSYNC_COPIES: self.unsync_copies,
            cbw.STEP_ROWS: self.step_rows,
            cbw.STEP_COPIES: self.step_copies,
            cbw.SINKS: self.sinks,
            cbw.BLOCKS: self.blocks,
            cbw.CODE_COPY: self.code_copy,
            cbw.CODE_PAGES: self.code_pages,
            cbw.INSN_AT: self.insn,
            cbw.EVENTS: self.ring,
            cbw.COUNTERS: self.counters,
            cbw.DROPPED: self.dropped,
            cbw.WATCHED: self.watched,
            **({cbw.HISTORY: self.history} if self._is_hosted else {}),
        }
        words = {
            cbw.SLOTS: self.slots,
            cbw.ABSENT: self.ram_pages,
            cbw.RAM_PAGES: self.ram_pages,
            cbw.NESTED_ROOT: nested * PAGE_BYTES,
            cbw.EMPTY_ROOT: empty * PAGE_BYTES,
            cbw.VM_ID: self.number,
            cbw.USE_SHADOW: int(self.config.mmu is Mmu.SHADOW),
            cbw.SHADOW_MAX: len(self.rows),
            cbw.SHADOW_FREE: 1,
            cbw.ROOT: NO_ROW,
            cbw.UNSYNC_MAX: len(self.unsync_rows),
            cbw.SHADOW_OPTIONS: sum(
                bit for name, bit in shadow.OPTIONS.items() if f"no-{name}" not in self.config.shadow_switches
            ),
            cbw.IO_NOW: -1,
            cbw.EVENTS_MASK: len(self.ring) - 1,
            cbw.EVENT_LIMIT: len(self.ring) if self.config.events else NEVER_FULL,
            cbw.EVENT_SELECTION: events.selection_mask(tuple(sorted(self.config.events))) if self.config.events else 0,
            cbw.EVENT_INSNS: int(bool(self.config.events) and self.config.record_insns),
        }
        for word, array in arrays.items():
            self.control[word] = array.ctypes.data
        for word, value in words.items():
            self.control[word] = value

    def give_back(self, frames: np.ndarray) -> None:
        """Frames that nothing maps any more go to the machine, those of a hosted VM between two slices."""
        if self._is_hosted:
            self.returned.append(frames)
        else:
            self.memory.release(frames)

    def refill(self) -> None:
        """Fill the frame reserve; raises MachineMemoryError when the machine has no frame left for it."""
        have = int(self.control[cbw.RESERVE_COUNT])
        wanted = min(len(self.reserve) - have, self.memory.frames.free_count)
        taken = self.memory.allocate(wanted, self.number, FrameUse.RESERVE) if wanted else self.reserve[:0]
        # Native code takes from the end: what was already there goes first, so frames are used in order of MPN.
        self.reserve[wanted : wanted + have] = self.reserve[:have].copy()
        self.reserve[:wanted] = taken[::-1]
        self.control[cbw.RESERVE_COUNT] = have + wanted

    def drain_events(self) -> np.ndarray:
        """The records written since the last call, oldest first, as a `RECORD` array of their own."""
        written = int(self.control[cbw.EVENT_COUNT])
        if written == self._drained:
            return self.ring[:0]
        numbers = np.arange(self._drained, written) & (len(self.ring) - 1)
        self._drained = written
        if self.config.events:
            self.control[cbw.EVENT_LIMIT] = written + len(self.ring)
        records: np.ndarray = self.ring[numbers]
        return records

    def saved_extra(self, taker: Taker) -> dict[str, int]:
        """For a snapshot: what native code keeps, with addresses as offsets."""
        words = self.control.copy()
        block = int(words[cbw.BLOCK] - words[cbw.BLOCKS]) if words[cbw.BLOCK] else NO_BLOCK
        words[list(cbw.HOST_ADDRESSES)] = 0
        words[cbw.BLOCK] = block
        code_pages, step_rows = self._address_tables()
        code_pages[:, 2] -= self.memory.address
        code_pages[code_pages[:, 0] == NO_PAGE] = NO_PAGE
        addresses = step_rows[:, STEP_ADDRESSES]
        step_rows[:, STEP_ADDRESSES] = np.where(addresses == 0, NO_ADDRESS, addresses - self.memory.address)
        step_rows[self.control[cbw.STEPPING] :] = 0
        return {"words": taker.array(words), "code_pages": taker.array(code_pages), "step_rows": taker.array(step_rows)}

    def give_extra(self, data: dict[str, int], giver: Giver) -> None:
        """From a snapshot, before which all events had been handed on."""
        words, code_pages, step_rows = (giver.arrays[data[name]] for name in ("words", "code_pages", "step_rows"))
        here = self._address_tables()
        if [a.shape for a in (words, code_pages, step_rows)] != [a.shape for a in (self.control, *here)]:
            raise SnapshotError("the snapshot is of another version of emu")
        self._check_offsets(words, code_pages, step_rows)
        words = words.copy()
        words[cbw.BLOCK] = 0 if words[cbw.BLOCK] == NO_BLOCK else words[cbw.BLOCK] + self.control[cbw.BLOCKS]
        kept = [word for word in (*cbw.HOST_ADDRESSES, *MADE_WITH) if word != cbw.BLOCK]
        words[kept] = self.control[kept]
        self.control[:] = words
        code_pages, step_rows = code_pages.copy(), step_rows.copy()
        code_pages[:, 2] += self.memory.address
        offsets = step_rows[:, STEP_ADDRESSES]
        step_rows[:, STEP_ADDRESSES] = np.where(offsets == NO_ADDRESS, 0, offsets + self.memory.address)
        self.code_pages[:] = code_pages.view(np.uint8).ravel()
        self.step_rows[:] = step_rows.view(np.uint8).ravel()

    def _check_offsets(self, words: np.ndarray, code_pages: np.ndarray, step_rows: np.ndarray) -> None:
        """What will be addresses is inside of what it is an offset in; raises SnapshotError."""
        block, stepping = int(words[cbw.BLOCK]), int(words[cbw.STEPPING])
        known = code_pages[code_pages[:, 0] != NO_PAGE]
        opened = step_rows[: max(stepping, 0)]
        purposes = opened[:, step_records.PURPOSE // 8]
        devices = opened[(purposes == step_records.DEVICE_LOAD) | (purposes == step_records.DEVICE_STORE)]
        last = self.memory.bytes.size - 8
        is_right = (
            block == NO_BLOCK or (0 <= block < self.blocks.size and block % clock.ENTRY_BYTES == 0),
            0 <= stepping <= step_records.LIMIT,
            _lies_in(known[:, 2], 0, last),
            _lies_in(opened[:, step_records.ENTRY // 8], 0, last),
            _lies_in(opened[:, step_records.SLOT // 8], 0, self.slots - 1),
            _lies_in(devices[:, step_records.SLOT // 8], self.ram_pages + 1, self.slots - 1),
            _lies_in(devices[:, step_records.COPY_OF // 8], 0, last),
        )
        if not all(is_right):
            raise SnapshotError("an address outside of the machine")

    def _address_tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Copies of the tables that hold addresses: code pages (page, tag, address), and records of pages that are open for an instruction."""
        pages = self.code_pages.view(np.int64).reshape(access.CODE_PAGES, -1)
        steps = self.step_rows.view(np.int64).reshape(step_records.LIMIT, -1)
        return pages.copy(), steps.copy()

    def release(self) -> None:
        """Give every frame of the VM back."""
        owned = np.flatnonzero(self.memory.frames.records["owner"] == self.number)
        self.memory.release(owned)
