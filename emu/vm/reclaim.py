"""Taking frames of a VM back in bulk: its nested tables, which a guest that roams through absent memory fills, and its RAM."""

from __future__ import annotations

import numpy as np

from emu.machine import control as cbw
from emu.machine.memory import FrameUse
from emu.units import PAGE_BYTES
from emu.vm import code, cow, pmap, shadow
from emu.vm.state import VmState

ENTRIES = 512


def table_frames(state: VmState) -> np.ndarray:
    """MPNs of the nested tables below the root, found by walking them."""
    found: list[np.ndarray] = []
    words = state.memory.words.reshape(-1, ENTRIES)
    level = np.array([int(state.control[cbw.NESTED_ROOT]) // PAGE_BYTES])
    for _ in range(3):
        entries = words[level].ravel()
        level = (entries[entries & 1 == 1] & 0x000F_FFFF_FFFF_F000) >> 12
        found.append(level)
    return np.concatenate(found)


def drop_all(state: VmState) -> None:
    """Empty the nested root and release the tables; the engine's TLB is flushed before the guest goes on."""
    frames = table_frames(state)
    root = int(state.control[cbw.NESTED_ROOT]) // PAGE_BYTES
    state.memory.words.reshape(-1, ENTRIES)[root] = 0
    assert np.all(state.memory.frames.records["use"][frames] == FrameUse.TABLE)
    state.give_back(frames)
    state.control[cbw.NESTED_PAGES] = 0
    state.control[cbw.NEEDS_TLB_FLUSH] = 1


def drop_ram(state: VmState) -> None:
    """Forget all RAM, as when power goes off: every page is unallocated again, and nothing maps one."""
    shadow.zap_all(state.control)
    drop_all(state)
    for slot in np.flatnonzero(state.pmap & pmap.EXECUTED):
        code.flush_code(state.control, int(slot))
    present = state.pmap >> pmap.STATE_SHIFT & pmap.STATE_MASK == pmap.PRESENT_PAGE
    shared = state.pmap >> pmap.STATE_SHIFT & pmap.STATE_MASK == pmap.SHARED
    swapped = state.pmap >> pmap.STATE_SHIFT & pmap.STATE_MASK == pmap.SWAPPED
    for page in np.flatnonzero(shared).tolist():
        cow.drop_reference(state.control, int(state.pmap[page]) & pmap.MPN_MASK)
        cow.note_end(state.control, page, cow.BY_RESET)
    frames = state.pmap[present] & pmap.MPN_MASK
    state.pmap[present | shared | swapped] = 0
    state.give_back(frames)
