# SPDX-License-Identifier: GPL-2.0-or-later
"""The log of a run: what each column counts, exactly; a file that is whole at every time."""

from __future__ import annotations

import math
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from emu import __version__
from emu.errors import OutputError
from emu.host import log, scenario
from emu.host.guest_lines import Number, complete_lines, numbers_in
from emu.host.host import Host
from emu.host.hosted import HostedVm, Phase
from emu.host.log import SCHEMA, HostLog, metadata
from emu.host.statistics import Meter, vm_rows
from emu.resources.swap_area import SwapArea
from tests.host.test_host import PRESSURE

SMALL = """
memory = "24M"
seconds = "5s"
seed = 7
[[vm]]
name = "a"
memory = "8M"
append = 'quiet run="toucher schedule=1m@0 seconds=30 seed=1"'
[[vm]]
name = "b"
memory = "8M"
start = "1s"
stop = "2500ms"
append = 'quiet run="idle seconds=30"'
"""


class Logger:
    """An observer that logs, as the command's does."""

    def __init__(self, host: Host, path: Path) -> None:
        self.log, self.meter = HostLog(path, metadata(host)), Meter(host)
        self.numbers: dict[str, list[Number]] = defaultdict(list)

    def said(self, vm: HostedVm, data: bytes) -> int:
        lines, size = complete_lines(data, is_end=vm.phase is Phase.ENDED)
        self.numbers[vm.name] += [number for line in lines for number in numbers_in(line)]
        return size

    def second(self, _host: Host) -> None:
        self.log.add(self.meter.measure(), self.numbers)
        self.numbers.clear()


def logged(host: Host, path: Path) -> list[dict[str, Any]]:
    logger = Logger(host, path)
    host.run(logger)
    if logger.meter.is_due:  # the part of a second after the last one
        logger.second(host)
    logger.log.finish()
    return pq.read_table(path).to_pylist()


@pytest.fixture
def small() -> Iterator[Host]:
    host = Host(scenario.parse(SMALL, "small", "small"))
    yield host
    host.close()


def test_pages_that_come_and_go_are_counted_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SWR and SWW are what the swap areas did in the second; the stall is half a millisecond for each page that was out; all add up to the totals."""
    host = Host(scenario.parse(PRESSURE, "test", "test"))
    reads: dict[tuple[int, int], int] = defaultdict(int)
    stalls: dict[tuple[int, int], int] = defaultdict(int)
    writes: dict[tuple[int, int], int] = defaultdict(int)
    vm_of = {id(vm.swap): vm for vm in host.vms}
    real_get, real_page_out = SwapArea.get, host.reclamation._page_out
    second = host.scenario.insns_per_second

    def get(area: SwapArea, page: int, into: memoryview) -> None:
        vm = vm_of[id(area)]
        at = vm.number, host.now // second  # a slice's reads come while the machine's time is at its beginning
        reads[at] += 1
        stalls[at] += page not in vm.writing
        real_get(area, page, into)

    def page_out(now: int, vm: HostedVm, pages: int) -> None:
        before = vm.count(7)  # swapped
        real_page_out(now, vm, pages)
        writes[vm.number, (host.now - 1) // second] += vm.count(7) - before

    monkeypatch.setattr(SwapArea, "get", get)
    monkeypatch.setattr(host.reclamation, "_page_out", page_out)
    rows = logged(host, tmp_path / "log")
    numbers = {vm.name: vm.number for vm in host.vms}
    assert sum(reads.values()) > 1000
    for row in rows:
        at = numbers[row["name"]], math.ceil(row["seconds"]) - 1
        assert row["interval"] == pytest.approx(row["seconds"] % 1 or 1)
        assert row["swr"] == pytest.approx(reads[at] / row["interval"])
        assert row["sww"] == pytest.approx(writes[at] / row["interval"])
        assert row["swap_stall"] == pytest.approx(stalls[at] * 0.0005)
        assert row["swpwt"] == pytest.approx(stalls[at] * 0.05 / row["interval"])
    for vm in host.vms:
        of = [row for row in rows if row["name"] == vm.name]
        assert (
            sum(row["swr"] * row["interval"] for row in of)
            == pytest.approx(vm.swapped.read)
            == pytest.approx(of[-1]["swapped_in"])
        )
        assert sum(row["sww"] * row["interval"] for row in of) == pytest.approx(vm.swapped.written)
        assert sum(row["instructions"] for row in of) == vm.times.ran > second
        assert of[-1]["phase"] == "ended"
    host.close()


def test_instructions_and_what_guests_say(small: Host, tmp_path: Path) -> None:
    """A VM that computes runs at the machine's rate; one that sleeps does not; each number of a guest's line is there once."""
    rows = logged(small, tmp_path / "log")
    rate = small.scenario.insns_per_second
    busy = [row for row in rows if row["name"] == "a"]
    assert [row["seconds"] for row in busy] == [1, 2, 3, 4, 5]
    assert all(0.9 * rate < row["instructions"] <= 1.01 * rate for row in busy[1:])
    said = [number for row in busy for number in row["said"]]
    assert [number["second"] for number in said if number["name"] == "touched"] == [1, 2, 3, 4]
    assert {number["program"] for number in said} == {"toucher"}
    assert all(number["value"] == 256 for number in said if number["name"] == "pages")
    idle = [row for row in rows if row["name"] == "b"]
    assert [(row["seconds"], row["phase"]) for row in idle] == [(2, "running"), (3, "ended")]
    assert 0 < idle[1]["instructions"] < 0.1 * rate
    assert idle[1]["grant"] == idle[1]["ovhd"] == 0
    assert all(row["said"] == [] for row in idle)


def test_time_that_is_lost(small: Host, tmp_path: Path) -> None:
    """A VM that the machine does not let run for three slices, and one that has no frames for two."""
    logger = Logger(small, tmp_path / "log")
    small.run(logger, stop=lambda: small.seconds >= 1)
    vm = small.vms[0]
    for _ in range(3):
        vm.phase = Phase.BLOCKED
        small.step()
    vm.phase = Phase.RUNNING
    small.step()
    small._top_up = lambda _vms: None  # type: ignore[method-assign]
    kept, vm.vm.state.control[24] = int(vm.vm.state.control[24]), 0  # its reserve
    small.step()
    small.step()
    del small._top_up
    vm.vm.state.control[24] = kept
    small.run(logger, stop=lambda: small.seconds >= 2)
    logger.log.finish()
    row = next(row for row in pq.read_table(tmp_path / "log").to_pylist() if (row["name"], row["seconds"]) == ("a", 2))
    few = 10 / small.scenario.insns_per_second  # a slice ends behind an instruction that is under way
    assert row["blocked"] == pytest.approx(0.3, abs=few)
    assert row["frame_wait"] == pytest.approx(0.2, abs=few)
    assert row["instructions"] == pytest.approx(small.scenario.insns_per_second, rel=0.01)  # it made up for all of it


def test_the_file_says_what_was_run(small: Host, tmp_path: Path) -> None:
    logged(small, tmp_path / "log")
    about = pq.read_schema(tmp_path / "log").metadata
    assert about[b"emu.version"].decode() == __version__
    assert about[b"emu.scenario"] == b"small"
    assert about[b"emu.seed"] == b"7"
    assert about[b"emu.machine_bytes"] == str(24 << 20).encode()
    assert about[b"emu.instructions_per_second"] == b"10000000"
    assert scenario.parse(about[b"emu.scenario_text"].decode(), "x", "small") == small.scenario
    assert pq.read_schema(tmp_path / "log").names == SCHEMA.names


def test_it_is_whole_at_every_time(small: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With groups of three rows and a file after each second: what is there at any time is what came so far, and the last file is as if written at once."""
    path = tmp_path / "log"
    monkeypatch.setattr(log, "GROUP_ROWS", 3)
    monkeypatch.setattr(log, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(log, "FLUSH_PART", 0)
    logger, sizes = Logger(small, path), []
    assert pq.read_table(path).num_rows == 0
    while not small.is_over:
        small.run(logger, stop=lambda until=small.now + 1: small.now >= until)  # type: ignore[misc]
        sizes.append(pq.read_table(path).num_rows)
    logger.log.finish()
    assert sizes == sorted(sizes)
    assert set(sizes) == {0, 1, 3, 5, 6, 7}
    assert [pq.read_metadata(path).row_group(n).num_rows for n in range(3)] == [3, 3, 1]
    monkeypatch.setattr(log, "FLUSH_SECONDS", 1e9)
    again = Host(small.scenario)
    assert pq.read_table(path).to_pylist() == logged(again, tmp_path / "once")
    assert path.read_bytes() == (tmp_path / "once").read_bytes()
    again.close()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["log", "once"]


def test_it_is_no_larger_than_a_text(small: Host, tmp_path: Path) -> None:
    """Nor are its permissions other than a file's."""
    rows = logged(small, tmp_path / "log")
    text = "\n".join(",".join(map(str, row.values())) for row in rows * 1000)
    logger = HostLog(tmp_path / "long", {})
    logger._new = rows * 1000
    logger.finish()
    assert (tmp_path / "long").stat().st_size < len(text) / 10
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o666 & ~mask


def test_a_disk_that_is_full_later(small: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    logger = Logger(small, path)
    small.run(logger, stop=lambda: small.seconds >= 2)
    logger.log._flush()
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match=r"cannot write the log \(no space left on device\)"):
        logger.log.finish()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        (b"database second=3 operations=12", [Number("database", 3, "operations", 12)]),
        (b"x second=1 a=-1 b=2", [Number("x", 1, "a", -1), Number("x", 1, "b", 2)]),
        (b"idle second=4", []),
        (b"x second=1 a=99999999999999999999999", []),
        (b"x seconds=1 a=1", []),
        (b"\x1b[2J second=1 a=1", []),
        (b"x second=1 a=1 and more", []),
        (b"x second=1" + b" a=1" * 1000, []),
        (b"", []),
    ],
)
def test_lines_of_throughput(line: bytes, numbers: list[Number]) -> None:
    assert numbers_in(line) == numbers


@pytest.mark.parametrize(
    ("data", "is_end", "lines", "size"),
    [
        (b"a\r\nb\nc", False, [b"a", b"b"], 5),
        (b"a\nc", True, [b"a", b"c"], 3),
        (b"abc", False, [], 0),
        (b"abc", True, [b"abc"], 3),
        (b"", True, [], 0),
        (b"\n", False, [b""], 1),
        (b"x" * 5000, False, [b"x" * 5000], 5000),  # a guest that never ends its line
    ],
)
def test_complete_lines(data: bytes, is_end: bool, lines: list[bytes], size: int) -> None:
    assert complete_lines(data, is_end=is_end) == (lines, size)


def test_rows_have_totals(small: Host) -> None:
    """Without a log, too: those are what `--json` prints."""
    small.run()
    row = vm_rows(small)[0]
    assert (row.name, row.swapped_in, row.swapped_out) == ("a", 0, 0)
