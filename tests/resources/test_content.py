# SPDX-License-Identifier: GPL-2.0-or-later
"""The content table alone: hashes, hints that are right, stale or collide, and its auditor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xxhash

from emu.errors import BrokenInvariantError, EngineError
from emu.machine.memory import SHARED_OWNER, FrameUse, MachineMemory
from emu.resources import content, hashing
from emu.resources.content_table import BYTES_A_FRAME, ContentTable
from emu.units import MIB, MPN, PAGE_BYTES

FRAMES = 40


def new_table(contents: list[int]) -> ContentTable:
    """Frames 0, 1, ... of a VM hold a number each, over and over."""
    memory = MachineMemory(4 * MIB)
    memory.allocate(FRAMES, 1, FrameUse.GUEST)
    for mpn, value in enumerate(contents):
        memory.frame(MPN(mpn))[:] = value
    return ContentTable(memory)


def scanned(table: ContentTable, *mpns: int) -> list[int]:
    results = np.empty(len(mpns), np.int64)
    content.scan(table.control, np.array(mpns, np.int64), np.empty(len(mpns), np.int64), results)
    table.check()
    return results.tolist()


def test_codes_are_of_the_package_s_hash() -> None:
    """Of the whole page for those that are almost empty, else of two of its lines."""
    table, rng = new_table([]), np.random.default_rng(5)
    frame = table._memory.frame(MPN(3))  # noqa: SLF001
    for _ in range(20):
        frame[:] = rng.integers(0, 256, PAGE_BYTES, np.uint8)
        assert int(content.whole_code(table.control, 3)) & (1 << 64) - 1 == xxhash.xxh3_64_intdigest(frame) | content.WHOLE
        one, other = (xxhash.xxh3_64_intdigest(frame[at : at + content.LINE]) for at in (content.ONE, content.OTHER))
        due = (one ^ other * content.ODD) & (1 << 64) - 1 & ~content.WHOLE
        assert int(content.code_of(table.control, 3)) & (1 << 64) - 1 == due
        frame[:] = 7
        frame[5] = 9
        assert int(content.code_of(table.control, 3)) & (1 << 64) - 1 == xxhash.xxh3_64_intdigest(frame) | content.WHOLE


def test_pages_with_equal_samples() -> None:
    """Some are told apart by comparison; where there are many, by all that they hold. Every twin is found, in one pass."""
    table = new_table([0] * FRAMES)
    for mpn in range(FRAMES):
        frame = table._memory.frame(MPN(mpn))  # noqa: SLF001
        frame[:] = np.arange(PAGE_BYTES)  # the same samples, which are not uniform
        frame[0] = mpn % (FRAMES // 2)
    assert scanned(table, *range(FRAMES)) == [content.NONE] * (FRAMES // 2) + list(range(FRAMES // 2))
    codes = table._hashes[: FRAMES // 2]  # noqa: SLF001
    assert np.count_nonzero(codes & content.WHOLE == 0) == content.CROWD
    assert scanned(table, *range(FRAMES // 2)) == [content.NONE] * (FRAMES // 2)
    assert table.counts_of()["hints_made"] == FRAMES // 2
    assert table.counts_of()["false_matches"] <= 2 * FRAMES * content.CROWD


def test_a_library_without_the_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        EngineError, match="shows none of its C functions XXH3_64bits_dispatch, XXH3_64bits: install another build"
    ):
        hashing.hash_function(path=np.random.mtrand.__file__)
    (tmp_path / "x.so").write_bytes(b"no library")
    with pytest.raises(EngineError, match="cannot be loaded"):
        hashing.hash_function(path=str(tmp_path / "x.so"))


def test_metadata_is_within_the_paper_s_budget() -> None:
    table = ContentTable(MachineMemory(64 * MIB), vms=100)
    frames = 64 * MIB // PAGE_BYTES
    assert sum(array.nbytes for array in (table._heads, table._next, table._hashes)) == BYTES_A_FRAME * frames  # noqa: SLF001
    assert BYTES_A_FRAME <= 16


def test_a_hint_is_found_and_a_changed_one_is_stale() -> None:
    table = new_table([7, 8, 7, 7])
    assert scanned(table, 0, 1) == [content.NONE] * 2
    assert scanned(table, 2) == [0]
    table._memory.frame(MPN(0))[9] = 1  # noqa: SLF001
    assert scanned(table, 3) == [content.NONE]
    assert scanned(table, 2) == [3]
    counts = table.counts_of()
    assert (counts["hints_matched"], counts["stale_hints"], counts["hints_made"]) == (2, 1, 3)
    assert table.counts_of(1) == counts
    assert not any(table.counts_of(2).values())


def test_a_page_that_changed_is_listed_anew() -> None:
    table = new_table([7, 8])
    scanned(table, 0)
    table._memory.frame(MPN(0))[:] = 8  # noqa: SLF001
    assert scanned(table, 0) == [content.NONE]
    assert scanned(table, 1) == [0]


@pytest.mark.parametrize("use", [FrameUse.RESERVE, FrameUse.TABLE, FrameUse.FREE])
def test_a_frame_that_holds_no_page_any_more_is_no_hint(use: FrameUse) -> None:
    table = new_table([7, 7])
    scanned(table, 0)
    table._memory.frames.records["use"][0] = use  # noqa: SLF001
    assert scanned(table, 1) == [content.NONE]
    assert not table.listed[0]


@pytest.mark.parametrize("mask", [0, 1, 3])
def test_equal_hashes_are_not_trusted(mask: int) -> None:
    """With hashes of no bits every two pages collide: only equal contents match, the first listed last."""
    table = new_table([value // 2 for value in range(FRAMES)])
    table.weaken(mask)
    results = scanned(table, *range(FRAMES))
    assert results == [mpn - 1 if mpn % 2 else content.NONE for mpn in range(FRAMES)]
    assert table.counts_of()["false_matches"] > FRAMES // 2


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 40])
def test_batches_of_any_length(count: int) -> None:
    table = new_table(list(range(count)))
    assert scanned(table, *range(count)) == [content.NONE] * count
    assert scanned(table, *range(count)) == [content.NONE] * count
    assert table.counts_of()["hints_made"] == count


def _other_bucket(table: ContentTable) -> None:
    table._hashes[0] ^= 1 << 60  # noqa: SLF001


def _lost_link(table: ContentTable) -> None:
    table._next[5] = content.END  # noqa: SLF001


def _written(table: ContentTable) -> None:
    table._memory.frame(MPN(1))[3] += 1  # noqa: SLF001


def _not_listed(table: ContentTable) -> None:
    content.remove(table.control, 1)


def _no_reference(table: ContentTable) -> None:
    table._memory.frames.records["references"][1] = 0  # noqa: SLF001


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (_other_bucket, "invariant 1: frame 0 is in another hash's chain"),
        (_lost_link, "invariant 1: a frame is listed twice, or its link without it"),
        (_written, "invariant 2: shared frame 1 is not listed as what it holds"),
        (_not_listed, "invariant 2: shared frame 1"),
        (_no_reference, "invariant 2: shared frame 1"),
    ],
)
def test_the_auditor_finds(fault: Callable[[ContentTable], None], line: str) -> None:
    table = new_table([7, 8, 9])
    scanned(table, 0, 1, 2)
    records = table._memory.frames.records  # noqa: SLF001
    records["owner"][1], records["use"][1], records["references"][1] = SHARED_OWNER, FrameUse.SHARED, 2
    table.check()
    fault(table)
    with pytest.raises(BrokenInvariantError, match=line):
        table.check()
