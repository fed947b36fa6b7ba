# SPDX-License-Identifier: GPL-2.0-or-later
"""Reference counts of shared frames: small ones in the frame table, large ones in the overflow table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.machine.memory import SHARED_OWNER, FrameUse, MachineMemory
from emu.resources import content, references
from emu.resources.content_table import SATURATION, ContentTable
from emu.units import MIB

FRAMES = 6


def new_table(saturation: int, rows: int = 256) -> ContentTable:
    memory = MachineMemory(4 * MIB)
    memory.allocate(FRAMES, SHARED_OWNER, FrameUse.SHARED)
    for mpn in range(FRAMES):
        memory.words[mpn * 512] = mpn
    table = ContentTable(memory)
    table.saturate(saturation, rows)
    for mpn in range(FRAMES):
        content.insert(table.control, mpn, int(content.code_of(table.control, mpn)))
        references.put(table.control, mpn, 1)
    return table


@given(st.lists(st.tuples(st.integers(0, FRAMES - 1), st.booleans()), max_size=200), st.integers(2, 5), st.integers(1, 4))
def test_counts_against_a_list(steps: list[tuple[int, bool]], saturation: int, rows: int) -> None:
    """With few rows: a frame that would need one and gets none takes no more references."""
    table, model = new_table(saturation, rows), [1] * FRAMES
    for mpn, adds in steps:
        if adds:
            in_overflow = sum(count >= saturation for count in model)
            can = model[mpn] + 1 < saturation or model[mpn] >= saturation or in_overflow < rows
            assert bool(references.can_add(table.control, mpn)) == can
            if can:
                model[mpn] += 1
                references.put(table.control, mpn, model[mpn])
        elif model[mpn] > 1:
            model[mpn] -= 1
            assert references.drop(table.control, mpn) == model[mpn]
        assert [references.count(table.control, n) for n in range(FRAMES)] == model
        assert table.references(np.arange(FRAMES)).tolist() == model
        table.check()


def test_the_real_limit() -> None:
    table = new_table(SATURATION)
    for count in (SATURATION - 1, SATURATION, SATURATION + 1, 1 << 40):
        references.put(table.control, 2, count)
        assert references.count(table.control, 2) == count
        assert table.references(np.array([1, 2])).tolist() == [1, count]
        table.check()
    assert references.drop(table.control, 2) == (1 << 40) - 1
    references.put(table.control, 2, SATURATION)
    assert references.drop(table.control, 2) == SATURATION - 1
    assert int(table.control[content.OVERFLOWED]) == 0


@pytest.mark.parametrize("harm", ["no row", "small row"])
def test_the_check_finds_a_wrong_row(harm: str) -> None:
    table = new_table(3)
    references.put(table.control, 1, 7)
    if harm == "no row":
        table.control[content.OVERFLOWED] = 0
    else:
        table.overflow[0, 1] = 2
    with pytest.raises(Exception, match="invariant 3: overflow table and saturated counts differ"):
        table.check()
