# SPDX-License-Identifier: GPL-2.0-or-later
"""The swap area of one VM: what goes in comes out, and what the host does to its file is found."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.errors import UsageError
from emu.resources.swap_area import SwapArea, SwapError, SwapFullError
from emu.resources.swap_space import UNIT_BYTES
from emu.units import PAGE_BYTES


def page(number: int) -> memoryview:
    return memoryview(bytearray([number & 0xFF]) * PAGE_BYTES)


def read(area: SwapArea, number: int) -> bytes:
    into = bytearray(PAGE_BYTES)
    area.get(number, memoryview(into))
    return bytes(into)


NOISE = np.random.default_rng(1).integers(0, 256, PAGE_BYTES, np.uint8).tobytes()


def mixed(noise: int) -> memoryview:
    """A page of which so many bytes cannot be compressed."""
    return memoryview(bytearray(NOISE[:noise] + bytes(PAGE_BYTES - noise)))


@given(
    st.booleans(),
    st.lists(
        st.tuples(
            st.sampled_from(["put", "get", "free"]), st.integers(0, 7), st.sampled_from([0, 300, 700, 1200, 1900, 3000, 4096])
        ),
        max_size=80,
    ),
)
def test_contents_against_a_dictionary(compresses: bool, steps: list[tuple[str, int, int]]) -> None:
    """Five slots always take five pages, compressed to whatever sizes."""
    area, model = SwapArea(None, 8, 5, compresses=compresses), {}
    for what, number, value in steps:
        if what == "put" and (number in model or len(model) < 5):
            area.put(number, mixed(value))
            model[number] = bytes(mixed(value))
        elif what == "put" and not compresses:
            with pytest.raises(SwapFullError, match="are in use"):
                area.put(number, mixed(value))
        elif what == "get" and number in model:
            assert read(area, number) == model[number]
        elif what == "free":
            area.free(np.array([number]))
            model.pop(number, None)
        area.check()
        assert area.free_slots >= 5 - len(model) if compresses else area.free_slots == 5 - len(model)
    for number, contents in model.items():
        assert read(area, number) == contents
    area.close()


def test_compressed_pages_share_slots(tmp_path: Path) -> None:
    area = SwapArea(tmp_path / "x", 64, 64, compresses=True)
    for number in range(64):
        area.put(number, mixed(number * 4))
    assert area.free_slots == 64 - 8
    assert area.stored_bytes < 64 * UNIT_BYTES
    assert (tmp_path / "x").stat().st_size <= 8 * PAGE_BYTES
    area.close()


@pytest.mark.parametrize("at", [0, 40])
def test_a_compressed_page_that_was_changed_is_found(tmp_path: Path, at: int) -> None:
    area = SwapArea(tmp_path / "x", 4, 4, compresses=True)
    area.put(0, mixed(200))
    with (tmp_path / "x").open("r+b") as file:
        file.seek(at)
        file.write(b"\xff\xff")
    with pytest.raises(SwapError, match="somebody changed it"):
        read(area, 0)
    area.close()


def test_a_broken_disk(tmp_path: Path) -> None:
    area = SwapArea(tmp_path / "x", 4, 4)
    area.put(0, page(1))
    area.fails_to_write = area.fails_to_read = True
    with pytest.raises(SwapFullError, match=r"cannot write \(the scenario broke the disk\)"):
        area.put(1, page(2))
    with pytest.raises(SwapError, match=r"cannot read \(the scenario broke the disk\)"):
        read(area, 0)
    area.fails_to_read = False
    assert read(area, 0) == bytes(page(1))
    area.close()


def test_an_unmodified_page_is_not_written_twice() -> None:
    area = SwapArea(None, 2, 2)
    for _ in range(3):
        area.put(0, page(7))
    assert (area.written, area.reused) == (1, 2)
    area.put(0, page(8))
    assert (area.written, area.free_slots, read(area, 0)) == (2, 1, bytes(page(8)))


def test_the_file_is_made_anew_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "1-a.swap"
    area = SwapArea(path, 4, 4)
    area.put(3, page(1))
    assert path.stat().st_size == PAGE_BYTES
    with pytest.raises(UsageError, match="is there already, perhaps of a run that was killed: remove it"):
        SwapArea(path, 4, 4)
    area.close()
    assert not path.exists()
    with pytest.raises(UsageError, match=r"cannot make the swap area \(no such file"):
        SwapArea(tmp_path / "nowhere" / "x", 4, 4)


@pytest.mark.parametrize(("harm", "message"), [("cut", "somebody cut it short"), ("change", "somebody changed it")])
def test_a_file_that_was_tampered_with_is_found(tmp_path: Path, harm: str, message: str) -> None:
    path = tmp_path / "x"
    area = SwapArea(path, 4, 4)
    area.put(0, page(1))
    area.put(1, page(2))
    if harm == "cut":
        os.truncate(path, PAGE_BYTES + 100)
    else:
        with path.open("r+b") as file:
            file.seek(PAGE_BYTES + 5)
            file.write(b"?")
    assert read(area, 0) == bytes(page(1))
    with pytest.raises(SwapError, match=message):
        read(area, 1)
    area.close()


def test_short_writes_and_reads_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    area = SwapArea(None, 2, 2)
    real_write, real_read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real_write(fd, data[:1000], at))
    monkeypatch.setattr(os, "preadv", lambda fd, parts, at: real_read(fd, [parts[0][:700]], at))
    area.put(1, page(9))
    assert read(area, 1) == bytes(page(9))


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EIO, errno.EFBIG])
@pytest.mark.parametrize("after", [0, 1])
def test_a_refused_write_loses_nothing(monkeypatch: pytest.MonkeyPatch, reason: int, after: int) -> None:
    area = SwapArea(None, 3, 3)
    area.put(0, page(5))
    calls = []

    def refuse(_fd: int, data: memoryview, _at: int) -> int:
        calls.append(len(data))
        if len(calls) <= after:
            return 100
        raise OSError(reason, os.strerror(reason))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        with pytest.raises(SwapFullError, match=os.strerror(reason).lower()):
            area.put(1, page(6))
        area.check()
        assert area.free_slots == 2
        calls.clear()
        with pytest.raises(SwapFullError):
            area.put(0, page(6))
    assert area.place_of[0] == -1  # what the area had was not the page any more, and what was written half is not it yet
    area.put(1, page(6))
    assert read(area, 1) == bytes(page(6))
