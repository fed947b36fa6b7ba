"""Content-based page sharing between the VMs of a machine (Waldspurger 2002, section 4).

A page that is scanned is looked up in the content table. If a shared frame holds the same, the page refers to it from now on and gives its own
frame back; if a hint does, the hint's frame becomes a shared one first. A store to a shared page breaks it off (`emu.vm.cow`), and the VM
notes the reference that it does not have any more: `settle` counts those between slices, and frees frames that nobody refers to.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from emu.errors import BrokenInvariantError
from emu.machine import control as cbw
from emu.machine.memory import FrameUse, MachineMemory
from emu.resources import content, references, remap
from emu.resources.content_table import MOST_VMS, ContentTable
from emu.units import MPN
from emu.vm import pmap
from emu.vm.state import VmState


class Sharing:
    """The service for one machine; `register` each VM. All of it between slices."""

    WIRING: ClassVar = frozenset({"_memory", "_states", "_blocks"})
    RESIZED: ClassVar = ("_order",)

    def __init__(self, memory: MachineMemory, seed: int, vms: int = MOST_VMS) -> None:
        """`vms` of them have counts of their own."""
        self._memory = memory
        self.table = ContentTable(memory, vms)
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._states: dict[int, VmState] = {}
        self._blocks = np.zeros(1, np.int64)  # host addresses of control blocks by VM number, 0 none
        self._order = np.zeros((2, 0), np.int64)  # VM numbers and slots that this round of the scan has before it
        self.rounds = 0
        self._zero_hash = self._hash_of_zeros()

    def _hash_of_zeros(self) -> int:
        frames = self._memory.allocate(1, 0, FrameUse.VMM)
        code = int(content.whole_code(self.table.control, int(frames[0])))
        self._memory.release(frames)
        return code

    def register(self, state: VmState) -> None:
        """Scan this VM's pages too."""
        self._states[state.number] = state
        self._index()

    def forget(self, state: VmState) -> None:
        """A VM is about to end: its references go."""
        self.settle(state)
        shared = state.pmap[state.pmap >> pmap.STATE_SHIFT & pmap.STATE_MASK == pmap.SHARED] & pmap.MPN_MASK
        self._drop(shared)
        del self._states[state.number]
        self._index()

    def _index(self) -> None:
        self._blocks = np.zeros(max(self._states, default=0) + 1, np.int64)
        for number, state in self._states.items():
            self._blocks[number] = state.control.ctypes.data

    def settle(self, state: VmState) -> None:
        """Count the references that a VM dropped since the last call."""
        count = int(state.control[cbw.DROPPED_COUNT])
        if count:
            state.control[cbw.DROPPED_COUNT] = 0
            self._drop(state.dropped[:count].copy())

    def _drop(self, frames: np.ndarray) -> None:
        gone = [mpn for mpn in map(int, frames) if references.drop(self.table.control, mpn) == 0]
        for mpn in gone:
            content.remove(self.table.control, mpn)
        if gone:
            self._memory.release(np.array(gone, np.int64))

    def scan(self, pages: int) -> int:
        """Scan so many pages, in random order over all VMs; how many frames that freed."""
        freed = 0
        while pages > 0:
            if not self._order.shape[1]:
                self._begin_round()
                if not self._order.shape[1]:
                    break
            part, self._order = self._order[:, :pages], self._order[:, pages:]
            pages -= part.shape[1]
            freed += self._share(*self._by_frame(part))
        return freed

    def _by_frame(self, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pages that were drawn at random, in the order of their frames: memory is read several times as fast that way."""
        frames = np.empty(part.shape[1], np.int64)
        remap.frames_of(self._blocks, np.ascontiguousarray(part[0]), np.ascontiguousarray(part[1]), frames)
        part = part[:, np.argsort(frames, kind="stable")]
        return part[0], part[1]

    def try_page(self, state: VmState, slots: np.ndarray) -> int:
        """Scan these pages now, as before they are paged out; how many frames that freed."""
        return self._share(np.full(len(slots), state.number, np.int64), slots.astype(np.int64))

    def _share(self, numbers: np.ndarray, slots: np.ndarray) -> int:
        known = np.isin(numbers, list(self._states))
        numbers, slots = np.ascontiguousarray(numbers[known]), np.ascontiguousarray(slots[known])
        freed = np.empty(len(numbers), np.int64)
        count = int(remap.share_pages(self.table.control, self._blocks, numbers, slots, freed))
        if count:
            self._memory.release(freed[:count])
        return count

    def _begin_round(self) -> None:
        self.rounds += 1
        parts = []
        for number in sorted(self._states):
            state = self._states[number]
            slots = np.flatnonzero(state.pmap[: state.ram_pages] >> pmap.STATE_SHIFT & pmap.STATE_MASK == pmap.PRESENT_PAGE)
            parts.append(np.stack([np.full(len(slots), number, np.int64), slots.astype(np.int64)]))
        order = np.concatenate(parts, axis=1) if parts else np.zeros((2, 0), np.int64)
        self._order = order[:, self._random.permutation(order.shape[1])]

    def shared_frames(self) -> np.ndarray:
        """MPNs of the machine's shared frames."""
        return np.flatnonzero(self._memory.frames.records["use"] == FrameUse.SHARED)

    @property
    def zero_frame(self) -> int:
        """The MPN of the shared frame of zeros, -1 if there is none."""
        uses = self._memory.frames.records["use"]
        for mpn in self.table.find_hash(self._zero_hash):
            if uses[mpn] == FrameUse.SHARED and not self._memory.frame(MPN(mpn)).any():
                return mpn
        return -1

    def check(self) -> None:
        """Assert that references add up, and the table's own invariants; raises BrokenInvariantError."""
        self.table.check()
        counted = np.zeros(len(self._memory.frames), np.int64)
        for state in self._states.values():
            words = state.pmap[state.pmap >> pmap.STATE_SHIFT & pmap.STATE_MASK == pmap.SHARED]
            np.add.at(counted, words & pmap.MPN_MASK, 1)
            np.add.at(counted, state.dropped[: int(state.control[cbw.DROPPED_COUNT])], 1)
        records = self._memory.frames.records
        is_shared = records["use"] == FrameUse.SHARED
        shared = np.flatnonzero(is_shared)
        if not np.array_equal(counted[shared], self.table.references(shared)) or counted[~is_shared].any():
            raise BrokenInvariantError("sharing: the references to shared frames do not add up")
