# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine memory and the frame table: who has which frame, against a model of plain sets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from emu.errors import BrokenInvariantError, MachineMemoryError, UsageError
from emu.machine.memory import NO_OWNER, POISON, FrameTable, FrameUse, MachineMemory
from emu.units import MIB, MPN, PAGE_BYTES

FRAMES = 4 * MIB // PAGE_BYTES
SMALL_TABLE = 12  # so small that the model runs out of frames often


@pytest.mark.parametrize("size", [0, 4 * MIB - PAGE_BYTES, 4 * MIB + 1, -4 * MIB])
def test_odd_sizes_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"machine memory of {size} bytes"):
        MachineMemory(size)


def test_a_machine_larger_than_the_host_is_refused() -> None:
    with pytest.raises(MachineMemoryError, match="machine memory of 4398046511104 MiB: the host"):
        MachineMemory(1 << 62)


def test_frames_are_consecutive_and_their_bytes_are_the_machine_s() -> None:
    memory = MachineMemory(4 * MIB)
    memory.frame(MPN(3))[:] = 7
    assert memory.bytes[3 * PAGE_BYTES - 1 : 3 * PAGE_BYTES + 1].tolist() == [0, 7]
    assert int(memory.words[3 * PAGE_BYTES // 8]) == 0x0707070707070707
    assert memory.address % PAGE_BYTES == 0


def test_all_frames_can_be_had_and_not_one_more() -> None:
    memory = MachineMemory(4 * MIB)
    frames = memory.allocate(FRAMES, 1, FrameUse.GUEST)
    assert sorted(frames) == list(range(FRAMES))
    with pytest.raises(MachineMemoryError, match=f"1 frames asked for, 0 of {FRAMES} are free"):
        memory.allocate(1, 1, FrameUse.GUEST)
    memory.frames.check()


def test_a_request_that_fails_takes_nothing() -> None:
    memory = MachineMemory(4 * MIB)
    with pytest.raises(MachineMemoryError):
        memory.allocate(FRAMES + 1, 1, FrameUse.GUEST)
    assert memory.frames.free_count == FRAMES
    memory.frames.check()


def test_low_frames_go_first() -> None:
    memory = MachineMemory(4 * MIB)
    assert memory.allocate(3, 1, FrameUse.VMM).tolist() == [0, 1, 2]
    assert memory.allocate(2, 2, FrameUse.GUEST).tolist() == [3, 4]


@pytest.mark.parametrize("debug", [False, True])
def test_a_frame_that_comes_back_is_zero(debug: bool) -> None:
    memory = MachineMemory(4 * MIB, debug=debug)
    frames = memory.allocate(4, 1, FrameUse.GUEST)
    memory.bytes[: 4 * PAGE_BYTES] = 0xAA
    memory.release(frames)
    again = memory.allocate(4, 2, FrameUse.GUEST)
    assert set(again) == set(frames)
    assert not memory.bytes[: 4 * PAGE_BYTES].any()


def test_freed_frames_are_poisoned_in_debug_runs_only() -> None:
    for debug, expected in ((True, POISON), (False, 0xAA)):
        memory = MachineMemory(4 * MIB, debug=debug)
        frames = memory.allocate(2, 1, FrameUse.GUEST)
        memory.bytes[: 2 * PAGE_BYTES] = 0xAA
        memory.release(frames[1:])
        assert set(memory.frame(MPN(0))) == {0xAA}
        assert set(memory.frame(MPN(1))) == {expected}


def test_releasing_twice_is_noticed() -> None:
    memory = MachineMemory(4 * MIB)
    frames = memory.allocate(2, 1, FrameUse.GUEST)
    memory.release(frames[:1])
    with pytest.raises(BrokenInvariantError, match="released twice"):
        memory.release(frames)
    assert memory.frames.free_count == FRAMES - 1
    memory.frames.check()


def test_releasing_a_frame_twice_at_once_is_noticed() -> None:
    memory = MachineMemory(4 * MIB)
    frames = memory.allocate(1, 1, FrameUse.GUEST)
    with pytest.raises(BrokenInvariantError, match="released twice"):
        memory.release(np.repeat(frames, 2))


def test_a_released_frame_keeps_nothing_of_its_record() -> None:
    table = FrameTable(4)
    frames = table.take(1, 7, FrameUse.GUEST)
    for field in ("ppn", "references", "row", "next", "previous", "flags"):
        table.records[field][frames] = 5
    table.give(frames)
    (record,) = table.records[frames]
    assert (record["owner"], record["use"]) == (NO_OWNER, FrameUse.FREE)
    assert [record[field] for field in ("ppn", "references", "row", "next", "previous", "flags")] == [0] * 6


def _owned_and_free(table: FrameTable) -> None:
    table.records["use"][0] = FrameUse.FREE


def _neither(table: FrameTable) -> None:
    table.records["owner"][0] = NO_OWNER


def _listed_twice(table: FrameTable) -> None:
    table._free[0] = table._free[1]


def _listed_in_use(table: FrameTable) -> None:
    table._free[0] = 0


def _missing(table: FrameTable) -> None:
    table._free_count -= 1


@pytest.mark.parametrize(
    ("damage", "invariant_number"),
    [(_owned_and_free, 1), (_neither, 1), (_listed_twice, 2), (_listed_in_use, 2), (_missing, 3)],
)
def test_the_checker_finds(damage: Callable[[FrameTable], None], invariant_number: int) -> None:
    table = FrameTable(8)
    table.take(2, 1, FrameUse.GUEST)
    table.check()
    damage(table)
    with pytest.raises(BrokenInvariantError, match=f"invariant {invariant_number}"):
        table.check()


class FramesAgainstSets(RuleBasedStateMachine):
    """Any order of taking and giving, against one set of frames per owner."""

    def __init__(self) -> None:
        super().__init__()
        self.table = FrameTable(SMALL_TABLE)
        self.owned: dict[int, set[int]] = {1: set(), 2: set()}

    @property
    def free(self) -> set[int]:
        return set(range(SMALL_TABLE)) - self.owned[1] - self.owned[2]

    @rule(count=st.integers(0, SMALL_TABLE + 1), owner=st.sampled_from([1, 2]))
    def take(self, count: int, owner: int) -> None:
        if count > len(self.free):
            with pytest.raises(MachineMemoryError):
                self.table.take(count, owner, FrameUse.GUEST)
            return
        taken = self.table.take(count, owner, FrameUse.GUEST).tolist()
        assert len(taken) == count
        assert set(taken) <= self.free
        self.owned[owner] |= set(taken)

    @precondition(lambda self: self.owned[1] or self.owned[2])
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sets(st.sampled_from(sorted(self.owned[1] | self.owned[2])), min_size=1))
        self.table.give(np.array(sorted(chosen)))
        self.owned[1] -= chosen
        self.owned[2] -= chosen

    @precondition(lambda self: self.free)
    @rule(data=st.data())
    def give_what_is_free(self, data: st.DataObject) -> None:
        frame = data.draw(st.sampled_from(sorted(self.free)))
        with pytest.raises(BrokenInvariantError):
            self.table.give(np.array([frame]))

    @invariant()
    def agree(self) -> None:
        self.table.check()
        assert self.table.free_count == len(self.free)
        for owner, frames in self.owned.items():
            assert set(np.flatnonzero(self.table.records["owner"] == owner)) == frames


FramesAgainstSets.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestFramesAgainstSets = FramesAgainstSets.TestCase
