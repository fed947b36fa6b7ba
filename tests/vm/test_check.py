# SPDX-License-Identifier: GPL-2.0-or-later
"""The auditor's complaint about each invariant, broken on purpose in a VM that is otherwise in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from emu.errors import BrokenInvariantError
from emu.machine import control as cbw
from emu.machine import paging as pg
from emu.units import MPN
from emu.vm import check, pmap, rows, sync
from emu.vm.state import VmState
from tests.resources.rig import Rig
from tests.vm import harness

PAGE, OTHER, UNTOUCHED = 0x301, 0x302, 0x380  # pages that the guests map, and one that they do not
ROW_OF_LEVEL, ENTRY_BITS = 3, pg.PRESENT | pg.WRITABLE | pg.USER
NX = -(1 << 63)

_TOUCH = """
        movl $0x11111111, 0x301000
        movl $0x22222222, 0x302000
        movl $0x33333333, {large:#x}
        movl $1, 0x5000
    1:  jmp 1b
"""
_SEE_ALL = (
    "movl $0, PML4 + 0x800; movl $0, POINTERS + 0x800; movl $0, WIDE_DIRECTORY + 0x800\n"  # the tables, at their own addresses
)
PROGRAMS = {
    "32-bit": "test: PAGING\n movl $0x10, %eax; movl %eax, %cr4; movl $0x87, DIRECTORY + 4\n" + _TOUCH.format(large=0x703000),
    "pae": "test: PAE_PAGING nx=1\n movl $0x200087, WIDE_DIRECTORY + 16\n" + _SEE_ALL + _TOUCH.format(large=0x503000),
    "long": "test: LONG_MODE\n movl $0x87, POINTERS + 8\n" + _SEE_ALL + _TOUCH.format(large=0x40303000),
}


@pytest.fixture
def rig() -> Iterator[Rig]:
    yield (it := Rig())
    it.memory.frames.free_all()  # what a test broke is broken


def start(rig: Rig, program: str, **settings: int) -> VmState:
    """A VM that has touched its pages, found in order."""
    vm = rig.start(1, harness.assemble(PROGRAMS[program]).rom, **settings)
    rig.run(vm, lambda: vm.vm.read_physical(0x5000, 1) == b"\1", insns=20_000)
    check.check(vm.vm.state)
    return vm.vm.state


def complains(state: VmState, message: str) -> None:
    with pytest.raises(BrokenInvariantError, match=message):
        check.check(state)


# ---- finding something to break -------------------------------------------------------------------------------------


def rows_where(state: VmState, condition: Callable[[int], bool]) -> list[int]:
    """Rows in use with a role of some kind, that have an entry."""
    return [
        int(row)
        for row in np.flatnonzero(state.rows[:, rows.IN_USE])
        if condition(int(state.rows[row, rows.ROLE])) and (entries(state, int(row)) & pg.PRESENT).any()
    ]


def entries(state: VmState, row: int) -> np.ndarray:
    return state.memory.frame(MPN(int(state.rows[row, rows.FRAME]))).view(np.int64)


def first_entry(state: VmState, row: int) -> int:
    return int(np.flatnonzero(entries(state, row) & pg.PRESENT)[0])


def leaf_of(state: VmState, slot: int) -> tuple[int, int]:
    """(row, index) of a leaf that maps a page."""
    return divmod(int(state.rmap[slot]) - 1, rows.ENTRIES)


def level(number: int) -> Callable[[int], bool]:
    return lambda role: role & rows.LEVEL_MASK == number and not role & rows.DIRECT


def is_direct(role: int) -> bool:
    return bool(role & rows.DIRECT)


def change_leaf(state: VmState, slot: int, clear: int, set_: int) -> None:
    row, index = leaf_of(state, slot)
    entries(state, row)[index] = entries(state, row)[index] & ~clear | set_


# ---- levels of every form -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("program", "number"), [("32-bit", 2), ("pae", 2), ("long", 2), ("long", 3), ("long", 4)])
def test_a_directory_entry_that_the_guest_does_not_have(rig: Rig, program: str, number: int) -> None:
    state = start(rig, program)
    row = rows_where(state, level(number))[0]
    index = first_entry(state, row)
    wide = program != "32-bit"
    at = index * 8 if wide else index // 2 * 4 + (int(state.rows[row, rows.ROLE]) >> rows.QUADRANT_SHIFT & 3) * 1024
    page = state.memory.frame(MPN(int(state.pmap[state.rows[row, rows.CHAIN]]) & pmap.MPN_MASK))
    page[at] &= 0xFE
    complains(state, r"shadow 2: row \d+ entry \d+ .* is present")


@pytest.mark.parametrize(("program", "number"), [("32-bit", 2), ("pae", 2), ("long", 2), ("long", 3), ("long", 4)])
def test_a_row_that_inherits_too_much(rig: Rig, program: str, number: int) -> None:
    state = start(rig, program)
    row = rows_where(state, level(number))[0]
    index = first_entry(state, row)
    wide = program != "32-bit"
    at = index * 8 if wide else index // 2 * 4 + (int(state.rows[row, rows.ROLE]) >> rows.QUADRANT_SHIFT & 3) * 1024
    page = state.memory.frame(MPN(int(state.pmap[state.rows[row, rows.CHAIN]]) & pmap.MPN_MASK))
    page[at] &= 0xFD
    complains(state, "shadow 2: .* inherits more than the guest grants")


@pytest.mark.parametrize(("program", "number"), [("32-bit", 2), ("pae", 2), ("long", 2), ("long", 3), ("long", 4)])
def test_a_table_that_may_be_written_unseen(rig: Rig, program: str, number: int) -> None:
    """Each level's tables are mapped at their own addresses too, read-only."""
    state = start(rig, program)
    tables = {int(state.rows[row, rows.CHAIN]) for row in rows_where(state, level(number))}
    mapped = [slot for slot in tables if state.rmap[slot]]
    assert mapped
    change_leaf(state, mapped[0], 0, pg.WRITABLE)
    complains(state, "shadow 2: .* its page is a traced table")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_large_page_whose_d_bit_is_due(rig: Rig, program: str) -> None:
    state = start(rig, program)
    parent = rows_where(
        state, lambda role: role & rows.LEVEL_MASK == (3 if program == "long" else 2) and not role & rows.UNTRACED
    )[-1]
    index = {"32-bit": 3, "pae": 2, "long": 1}[program]
    quarter = (int(state.rows[parent, rows.ROLE]) >> rows.QUADRANT_SHIFT & 3) * 1024
    at = 4 + quarter if program == "32-bit" else 8 * index
    page = state.memory.frame(MPN(int(state.pmap[state.rows[parent, rows.CHAIN]]) & pmap.MPN_MASK))
    assert page[at] & 0x40
    page[at] &= 0xBF
    complains(state, "shadow 2: .* may be written through, its D bit is not set")


def test_parts_of_a_large_page_with_other_rights(rig: Rig) -> None:
    state = start(rig, "long")
    (middle,) = [row for row in rows_where(state, is_direct) if int(state.rows[row, rows.ROLE]) & rows.LEVEL_MASK == 2]
    state.rows[int(state.links[middle * rows.ENTRIES + first_entry(state, middle), 2]), rows.ROLE] ^= rows.DIRTY
    complains(state, "shadow 2: .* has other rights than its large page")


def test_parts_of_a_large_page_elsewhere(rig: Rig) -> None:
    state = start(rig, "long")
    (middle,) = [row for row in rows_where(state, is_direct) if int(state.rows[row, rows.ROLE]) & rows.LEVEL_MASK == 2]
    child = int(state.links[middle * rows.ENTRIES + first_entry(state, middle), 2])
    state.rows[child, rows.PPN] += rows.ENTRIES
    complains(state, "shadow [14]: ")


@pytest.mark.parametrize("program", ["32-bit", "pae"])
def test_a_pointer_beyond_the_four(rig: Rig, program: str) -> None:
    state = start(rig, program)
    (root,) = rows_where(state, lambda role: bool(role & rows.UNTRACED))
    index = first_entry(state, root)
    child = int(state.links[root * rows.ENTRIES + index, 2])
    entries(state, root)[4] = entries(state, root)[index]
    state.links[root * rows.ENTRIES + 4, 2] = child
    complains(state, "shadow 1: entry 4 of root .* is none of the four")


def test_a_quarter_of_a_directory_in_place_of_another(rig: Rig) -> None:
    state = start(rig, "32-bit")
    (root,) = rows_where(state, lambda role: bool(role & rows.UNTRACED))
    entries(state, root)[1] = entries(state, root)[0]
    state.links[root * rows.ENTRIES + 1, 2] = state.links[root * rows.ENTRIES, 2]
    complains(state, "shadow 1: .* leads to another quarter")


def test_a_child_of_another_write_protection(rig: Rig) -> None:
    state = start(rig, "pae")
    (row,) = rows_where(state, level(2))
    state.rows[row, rows.ROLE] ^= rows.WRITE_PROTECT
    complains(state, "shadow 2: row .* has a child of another CR0.WP")


# ---- leaves and their lists -----------------------------------------------------------------------------------------


def test_a_leaf_on_the_list_of_another_page(rig: Rig) -> None:
    """Both pages have the same frame, as shared ones do: only the list tells them apart."""
    state = start(rig, "pae")
    row, index = leaf_of(state, PAGE)
    rows.remove_link(state.control, row * rows.ENTRIES + index)
    rows.push_link(state.control, row * rows.ENTRIES + index, OTHER)
    complains(state, f"shadow 1: leaf .* is listed under slot {OTHER:#x}")


def test_a_leaf_of_another_frame(rig: Rig) -> None:
    state = start(rig, "pae")
    change_leaf(state, PAGE, pg.FRAME_MASK, (int(state.pmap[OTHER]) & pmap.MPN_MASK) << 12)
    complains(state, "shadow 1: leaf .* maps another frame")


def test_a_leaf_on_no_list(rig: Rig) -> None:
    state = start(rig, "pae")
    row, index = leaf_of(state, PAGE)
    rows.remove_link(state.control, row * rows.ENTRIES + index)
    complains(state, "shadow 4: the lists of pages and the leaves disagree")


def test_a_list_that_does_not_point_back(rig: Rig) -> None:
    state = start(rig, "pae")
    row, index = leaf_of(state, PAGE)
    state.links[row * rows.ENTRIES + index, 1] = 77
    complains(state, "shadow 4: link .* does not point back")


def test_a_leaf_that_runs_data(rig: Rig) -> None:
    state = start(rig, "pae")
    change_leaf(state, PAGE, NX, 0)
    complains(state, "shadow 3: .* is executable, its page is data")


def test_a_leaf_that_lets_the_user_in(rig: Rig) -> None:
    state = start(rig, "pae")
    at = state.memory.frame(MPN(int(state.pmap[0x24]) & pmap.MPN_MASK))[8 * (PAGE - 512) :]
    at[0] &= 0xFB
    complains(state, "shadow 2: .* lets the user in")


@pytest.mark.parametrize(("cr4", "message"), [(pg.CR4_SMAP, "SMAP"), (pg.CR4_SMEP, "SMEP"), (0, "")])
def test_a_user_s_page_that_the_supervisor_stores_to(rig: Rig, cr4: int, message: str) -> None:
    """The row is one of CR0.WP off, the guest's entry read-only, the leaf the supervisor's."""
    state = start(rig, "pae")
    row, _index = leaf_of(state, PAGE)
    state.control[cbw.GUEST_CR0] &= ~pg.CR0_WP
    state.rows[state.rows[:, rows.IN_USE] != 0, rows.ROLE] &= ~rows.WRITE_PROTECT
    at = state.memory.frame(MPN(int(state.pmap[0x24]) & pmap.MPN_MASK))[8 * (PAGE - 512) :]
    at[0] &= 0xFD
    state.pmap[PAGE] |= pmap.EXECUTED | pmap.MIXED
    change_leaf(state, PAGE, pg.USER | NX, pg.WRITABLE)
    state.control[cbw.GUEST_CR4] |= cr4
    if message:
        complains(state, message)
    else:
        check.check(state)
        change_leaf(state, PAGE, 0, pg.USER)
        complains(state, "shadow 2: .* is writable, the guest's is not")
    del row


# ---- rows -----------------------------------------------------------------------------------------------------------


def test_a_free_row_with_an_entry(rig: Rig) -> None:
    state = start(rig, "pae")
    free = int(state.control[cbw.SHADOW_FREE]) - 1
    state.rows[free, rows.FRAME] = state.rows[rows_where(state, level(2))[0], rows.FRAME]
    complains(state, "shadow 4: a free row has an entry|frames: ")


def test_a_free_row_with_a_parent(rig: Rig) -> None:
    state = start(rig, "pae")
    state.rows[int(state.control[cbw.SHADOW_FREE]) - 1, rows.PARENTS] = 5
    complains(state, "shadow 4: a free row has a parent")


def test_a_free_row_that_is_in_use(rig: Rig) -> None:
    state = start(rig, "pae")
    row = rows_where(state, level(2))[0]
    state.rows[row, rows.NEXT_FREE] = state.control[cbw.SHADOW_FREE]
    state.control[cbw.SHADOW_FREE] = row + 1
    complains(state, "shadow 4: row .* is on the free list and in use")


def test_a_free_row_that_is_lost(rig: Rig) -> None:
    state = start(rig, "pae")
    state.control[cbw.SHADOW_FREE] = state.rows[int(state.control[cbw.SHADOW_FREE]) - 1, rows.NEXT_FREE]
    complains(state, "shadow 4: a free row is missing from the free list")


def test_a_free_list_that_bites_its_tail(rig: Rig) -> None:
    state = start(rig, "pae")
    first = int(state.control[cbw.SHADOW_FREE]) - 1
    state.rows[first, rows.NEXT_FREE] = first + 1
    complains(state, "shadow 4: the free list has no end")


def test_two_rows_for_the_same(rig: Rig) -> None:
    state = start(rig, "pae")
    first, second = rows_where(state, level(1))[:2]
    state.rows[second, [rows.CHAIN, rows.PPN, rows.ROLE]] = state.rows[first, [rows.CHAIN, rows.PPN, rows.ROLE]]
    complains(state, "shadow 4: two rows stand for the same")


def test_a_row_listed_under_another_page(rig: Rig) -> None:
    state = start(rig, "pae")
    state.rows[rows_where(state, level(1))[0], rows.PPN] = PAGE
    complains(state, "shadow 4: row .* is listed under slot")


def test_a_row_of_a_level_that_there_is_not(rig: Rig) -> None:
    state = start(rig, "pae")
    row = rows_where(state, level(2))[0]
    state.rows[row, rows.ROLE] += 2
    complains(state, "shadow 4: row .* has level 4")


def test_a_root_that_passes_for_a_table(rig: Rig) -> None:
    state = start(rig, "pae")
    (root,) = rows_where(state, lambda role: bool(role & rows.UNTRACED))
    state.rows[root, rows.ROLE] &= ~rows.UNTRACED
    complains(state, "shadow 4: row .* is traced though it is a root")


# ---- out of sync ----------------------------------------------------------------------------------------------------


def go_out_of_sync(state: VmState) -> int:
    """A page table that is out of sync, in order."""
    slot = 0x24
    assert sync.begin_unsync(state.control, slot)
    check.check(state)
    return slot


def test_a_row_that_thinks_it_is_in_sync(rig: Rig) -> None:
    state = start(rig, "pae")
    slot = go_out_of_sync(state)
    state.rows[state.rows[:, rows.CHAIN] == slot, rows.UNSYNC] = 0
    complains(state, "shadow 5: a row does not know whether it is in sync")


def test_tables_out_of_sync_miscounted(rig: Rig) -> None:
    state = start(rig, "pae")
    go_out_of_sync(state)
    state.control[cbw.UNSYNC_COUNT] += 1
    complains(state, "shadow 5: tables out of sync miscounted")


def test_a_directory_out_of_sync(rig: Rig) -> None:
    state = start(rig, "pae")
    assert sync.begin_unsync(state.control, 0x22)
    complains(state, "shadow 5: a directory is out of sync")


def test_a_page_out_of_sync_that_is_no_table(rig: Rig) -> None:
    state = start(rig, "pae")
    assert sync.begin_unsync(state.control, PAGE)
    complains(state, "shadow 5: a page out of sync is no table")


def test_a_table_with_two_copies(rig: Rig) -> None:
    state = start(rig, "pae")
    state.unsync_rows[:2] = go_out_of_sync(state) + 1
    complains(state, "shadow 5: a table has two copies")


def test_a_table_out_of_sync_without_memory(rig: Rig) -> None:
    state = start(rig, "pae")
    state.unsync_rows[0] = UNTOUCHED + 1
    state.control[cbw.UNSYNC_COUNT] = 1
    complains(state, "shadow 5: a table out of sync has no memory of its own")


# ---- the root -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_root_of_another_cr3(rig: Rig, program: str) -> None:
    state = start(rig, program)
    state.control[cbw.GUEST_CR3] = PAGE << 12
    complains(state, "shadow 6: the root is not that of CR3")


def test_a_root_of_other_pointers(rig: Rig) -> None:
    state = start(rig, "pae")
    state.control[cbw.GUEST_CR3] += 32
    complains(state, "shadow 6: the root is that of other pointers")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_root_of_another_write_protection(rig: Rig, program: str) -> None:
    state = start(rig, program)
    state.control[cbw.GUEST_CR0] ^= pg.CR0_WP
    complains(state, "shadow 6: the root is of another CR0.WP")


def test_a_root_of_another_level(rig: Rig) -> None:
    state = start(rig, "pae")
    state.control[cbw.ROOT] = rows_where(state, level(2))[0]
    complains(state, "shadow 6: the root has another level")


def test_a_root_that_is_free(rig: Rig) -> None:
    state = start(rig, "pae")
    state.control[cbw.ROOT] = int(state.control[cbw.SHADOW_FREE]) - 1
    complains(state, "shadow 6: the root is a free row")


# ---- the pmap and nested tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", pmap.WITHOUT_FRAME)
def test_a_page_without_a_frame_that_has_a_use(rig: Rig, kind: int) -> None:
    state = start(rig, "pae")
    state.pmap[UNTOUCHED] = kind << pmap.STATE_SHIFT | pmap.EXECUTED
    complains(state, f"pmap 3: a page that is {pmap.STATE_NAMES[kind]} has a frame or a use")


@pytest.mark.parametrize("kind", pmap.WITHOUT_FRAME)
def test_a_page_without_a_frame_that_is_mapped(rig: Rig, kind: int) -> None:
    state = start(rig, "pae")
    state.pmap[UNTOUCHED] = kind << pmap.STATE_SHIFT
    state.rmap[UNTOUCHED] = state.rmap[PAGE]
    complains(state, f"pmap 3: a page that is {pmap.STATE_NAMES[kind]} is mapped")


def test_a_page_that_is_awaited_and_mapped(rig: Rig) -> None:
    state = start(rig, "pae")
    state.watched[PAGE] = pmap.WAITING
    complains(state, "pmap 5: a page whose next access is waited for is mapped")


def share(rig: Rig, state: VmState) -> int:
    """Two pages that share a frame, in order; the frame."""
    rig.vms[1].vm.write_physical(PAGE << 12, b"\7" * 4096)
    rig.vms[1].vm.write_physical(OTHER << 12, b"\7" * 4096)
    rig.share_all()
    check.check(state)
    assert state.pmap[PAGE] & pmap.MPN_MASK == state.pmap[OTHER] & pmap.MPN_MASK
    return int(state.pmap[PAGE]) & pmap.MPN_MASK


def test_a_shared_frame_without_references(rig: Rig) -> None:
    state = start(rig, "pae")
    state.memory.frames.records["references"][share(rig, state)] = 0
    complains(state, "pmap 4: nobody refers to a shared page's frame")


def test_a_shared_page_that_is_code_and_data(rig: Rig) -> None:
    state = start(rig, "pae")
    share(rig, state)
    state.pmap[PAGE] |= pmap.MIXED
    complains(state, "pmap 4: a shared page is code and data at once")


def test_a_dropped_reference_to_a_frame_that_is_not_shared(rig: Rig) -> None:
    state = start(rig, "pae")
    state.dropped[0] = int(state.pmap[PAGE]) & pmap.MPN_MASK
    state.control[cbw.DROPPED_COUNT] = 1
    complains(state, "pmap 4: a shared page's frame is not marked as shared")


def nested(rig: Rig) -> tuple[VmState, int]:
    """A VM that has not turned paging on, and a page that its nested table maps."""
    vm = rig.start(1, harness.assemble("test: movl $1, 0x301000\n movl $1, 0x5000\n 1: jmp 1b").rom)
    rig.run(vm, lambda: vm.vm.read_physical(0x5000, 1) == b"\1", insns=20_000)
    check.check(vm.vm.state)
    return vm.vm.state, PAGE


def test_a_nested_leaf_of_a_page_that_is_awaited(rig: Rig) -> None:
    state, page = nested(rig)
    state.watched[page] = pmap.WAITING
    complains(state, "pmap 5: nested leaf .* maps a page whose next access is waited for")


def test_a_nested_leaf_of_a_page_without_a_frame(rig: Rig) -> None:
    state, page = nested(rig)
    frames = state.memory.frames
    frames.give(np.array([int(state.pmap[page]) & pmap.MPN_MASK]))
    state.pmap[page] = 0
    complains(state, "pmap 3: nested leaf .* maps a page that is unallocated")
