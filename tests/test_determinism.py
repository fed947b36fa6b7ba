# SPDX-License-Identifier: GPL-2.0-or-later
"""The same guest with the same input does the same, event for event, however its run is cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from emu import events, images
from emu.config import Mmu, VmConfig
from emu.trace import text
from tests.test_guests import INSN_LIMIT, SCRIPT, ScriptedConsole, make_vm

both = pytest.mark.parametrize("mmu", list(Mmu))


def traced(guest: str, mmu: Mmu, script: bytes = b"", pauses: Sequence[int] = ()) -> tuple[str, bytes]:
    """(trace, serial output) of a run that pauses at the given virtual times."""
    parts: list[np.ndarray] = []
    console = ScriptedConsole(script)
    config = VmConfig(mmu=mmu, events=frozenset(events.GROUPS))
    vm = make_vm(images.guest(guest), config, console, on_events=parts.append)
    for time in pauses:
        vm.run_until(time)
    vm.stop_event(vm.run(limit=INSN_LIMIT))
    return "\n".join(text.lines(np.concatenate(parts))), bytes(console.output)


def assert_same(one: tuple[str, bytes], other: tuple[str, bytes]) -> None:
    """Names the first event that differs, which a comparison of megabytes would not."""
    for number, (left, right) in enumerate(zip(one[0].split("\n"), other[0].split("\n"), strict=False)):
        assert left == right, f"event {number}"
    assert len(one[0]) == len(other[0])
    assert one[1] == other[1]


@both
def test_two_runs_give_the_same_trace(mmu: Mmu) -> None:
    first = traced("processes", mmu)
    assert first[0].count("\n") > 1000
    assert_same(first, traced("processes", mmu))


@both
def test_a_run_in_slices_gives_the_trace_of_one_go(mmu: Mmu) -> None:
    pauses = [1, 2, 1000, 1000, 7919, 100_003, 1_000_000, 1_000_001, 3_333_333, 9_999_999]
    assert_same(traced("processes", mmu), traced("processes", mmu, pauses=pauses))


@both
def test_many_slices_of_a_guest_that_pages(mmu: Mmu) -> None:
    assert_same(traced("paging", mmu), traced("paging", mmu, pauses=range(0, 900_000, 4999)))


@both
def test_input_that_is_there_from_the_beginning_comes_at_the_same_times(mmu: Mmu) -> None:
    first = traced("console", mmu, SCRIPT)
    assert b"bye" in first[1]
    assert_same(first, traced("console", mmu, SCRIPT))


@both
def test_input_does_not_move_when_the_run_is_sliced(mmu: Mmu) -> None:
    assert_same(traced("console", mmu, SCRIPT), traced("console", mmu, SCRIPT, pauses=range(0, 400_000, 9973)))
