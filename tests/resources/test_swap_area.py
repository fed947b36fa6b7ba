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
from emu.units import PAGE_BYTES


def page(number: int) -> memoryview:
    return memoryview(bytearray([number & 0xFF]) * PAGE_BYTES)


def read(area: SwapArea, number: int) -> bytes:
    into = bytearray(PAGE_BYTES)
    area.get(number, memoryview(into))
    return bytes(into)


@given(st.lists(st.tuples(st.sampled_from(["put", "get", "free"]), st.integers(0, 7), st.integers(0, 3)), max_size=60))
def test_contents_against_a_dictionary(steps: list[tuple[str, int, int]]) -> None:
    area, model = SwapArea(None, 8, 5), {}
    for what, number, value in steps:
        if what == "put" and (number in model or len(model) < 5):
            area.put(number, page(value))
            model[number] = bytes(page(value))
        elif what == "put":
            with pytest.raises(SwapFullError, match="are in use"):
                area.put(number, page(value))
        elif what == "get" and number in model:
            assert read(area, number) == model[number]
        elif what == "free":
            area.free(np.array([number]))
            model.pop(number, None)
        area.check()
        assert area.free_slots == 5 - len(model)
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
    assert area.slot_of[0] == (-1 if after else 0)  # what was written half is no copy of the page any more
    area.put(1, page(6))
    assert read(area, 1) == bytes(page(6))
