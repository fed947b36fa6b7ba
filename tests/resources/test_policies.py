# SPDX-License-Identifier: GPL-2.0-or-later
"""Free states and targets: pure functions against what the paper says of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.resources.states import FreeState, Marks, next_state
from emu.resources.targets import Proportional, VmNumbers, divide

HIGH, SOFT, HARD, LOW = FreeState


@pytest.mark.parametrize(
    ("now", "free", "then"),
    [
        (HIGH, 0.05, HIGH), (HIGH, 0.04, HIGH), (HIGH, 0.0399, SOFT), (HIGH, 0.0199, HARD), (HIGH, 0.0099, LOW),
        (SOFT, 0.0601, SOFT), (SOFT, 0.0661, HIGH), (SOFT, 0.02, SOFT), (SOFT, 0.0199, HARD),
        (HARD, 0.0401, HARD), (HARD, 0.0441, SOFT), (HARD, 0.07, HIGH), (HARD, 0.01, HARD), (HARD, 0.0, LOW),
        (LOW, 0.0201, LOW), (LOW, 0.0221, HARD), (LOW, 0.0441, SOFT), (LOW, 0.5, HIGH),
    ],
)  # fmt: skip
def test_free_states(now: FreeState, free: float, then: FreeState) -> None:
    assert next_state(now, free, Marks()) is then


def test_what_each_state_does() -> None:
    assert [(s.balloons, s.pages, s.blocks) for s in FreeState] == [
        (False, False, False), (True, False, False), (True, True, False), (True, True, True),
    ]  # fmt: skip


@given(st.sampled_from(list(FreeState)), st.floats(0, 1), st.floats(0, 1))
def test_a_state_settles_at_once_and_more_memory_is_never_worse(now: FreeState, free: float, more: float) -> None:
    marks = Marks()
    then = next_state(now, free, marks)
    assert next_state(then, free, marks) is then
    assert next_state(now, max(free, more), marks) <= then


numbers = st.builds(
    lambda least, extra, shares, used: VmNumbers(least, least + extra, shares, used, 0, 0),
    st.integers(0, 100), st.integers(0, 1000), st.integers(0, 50), st.integers(0, 1100),
)  # fmt: skip


@given(st.integers(0, 5000), st.lists(numbers, min_size=1, max_size=8))
def test_allocations(pages: int, vms: list[VmNumbers]) -> None:
    given_pages = Proportional().allocations(pages, vms)
    assert all(vm.least <= part <= vm.most for vm, part in zip(vms, given_pages, strict=True))
    room = sum(vm.most for vm in vms if vm.shares) + sum(vm.least for vm in vms if not vm.shares)
    assert sum(given_pages) == max(sum(vm.least for vm in vms), min(pages, room))


def test_shares_divide_what_min_leaves() -> None:
    vms = [VmNumbers(100, 1000, 10, 0, 0, 0), VmNumbers(0, 1000, 20, 0, 0, 0), VmNumbers(0, 50, 30, 0, 0, 0)]
    assert Proportional().allocations(700, vms) == [100 + 184, 366, 50]


@given(st.integers(0, 3000), st.lists(st.integers(0, 500), max_size=8))
def test_dividing_what_is_taken_back(pages: int, excess: list[int]) -> None:
    taken = divide(pages, excess)
    assert sum(taken) == min(pages, sum(excess))
    assert all(0 <= part <= most for part, most in zip(taken, excess, strict=True))
