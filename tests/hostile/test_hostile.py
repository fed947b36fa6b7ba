# SPDX-License-Identifier: GPL-2.0-or-later
"""A few hostile guests of each mode; `scripts/hostile` runs thousands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emu.config import Mmu
from emu.suite.pool import Pool
from tests.hostile import images
from tests.hostile.run import Guest, run
from tests.hostile.session import ENGINE_ABORTS, outcome

SEEDS = range(1, 6)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(1) as workers:
        yield workers


@pytest.mark.parametrize("mode", images.MODES)
def test_emu_stays_whole(mode: str, pool: Pool) -> None:
    guests = [Guest(mode, seed, mmu) for seed in SEEDS for mmu in Mmu]
    ran = [outcome(guest, result) for guest, result in pool.map(run, guests)]
    assert [(one.guest.name, one.failure) for one in ran if one.failure and one.kind != ENGINE_ABORTS] == []
    assert any(one.time > 10_000 for one in ran), "no guest came far"


@pytest.mark.parametrize("mode", images.MODES)
def test_a_seed_is_one_guest(mode: str) -> None:
    """The same in every run, and another than the next one."""
    assert images.make(mode, 1) == images.make(mode, 1) != images.make(mode, 2)


def test_the_same_guest_ends_the_same_way(pool: Pool) -> None:
    guest = Guest("protected32", 3, Mmu.SHADOW)
    first, second = (outcome(guest, pool.call(run, guest)) for _ in range(2))
    assert (first.kind, first.time) == (second.kind, second.time)
