# SPDX-License-Identifier: GPL-2.0-or-later
"""`emu bench`: a row is there as soon as it is measured."""

from __future__ import annotations

import json

import pytest

from emu.bench.harness import Row
from emu.cli import bench

ROWS = [
    Row("boot", 0.25, "s", "qemu tcg", 0.5, "quick"),
    Row("exit-native", 0.123456, "us"),
    Row("scan-ksm", 1.5, "GB/s", "reading", None, "there is no KSM here"),
]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> tuple[list[bytes], list[int]]:
    """What is printed, and how many lines there were before each row was measured."""
    printed: list[bytes] = []
    before: list[int] = []

    def measured(row: Row) -> Row:
        before.append(b"".join(printed).count(b"\n"))
        return row

    monkeypatch.setattr(bench, "write_out", printed.append)
    monkeypatch.setattr(bench, "BENCHMARKS", {row.name: lambda row=row: measured(row) for row in ROWS})
    return printed, before


def test_a_row_is_printed_before_the_next_is_measured(run: tuple[list[bytes], list[int]]) -> None:
    bench.bench([row.name for row in ROWS], as_json=False)
    printed, before = run
    assert before == [1, 2, 3]  # with the headings
    lines = b"".join(printed).decode().splitlines()
    assert [line.split() for line in lines] == [
        ["name", "value", "unit", "peer", "peer's", "value", "ratio"],
        ["boot", "0.25", "s", "qemu", "tcg", "0.5", "0.5", "quick"],
        ["exit-native", "0.123", "us"],
        ["scan-ksm", "1.5", "GB/s", "reading", "there", "is", "no", "KSM", "here"],
    ]
    assert lines[1].index("quick") == lines[3].index("there")  # columns stand below each other


def test_objects_come_one_by_one_too(run: tuple[list[bytes], list[int]]) -> None:
    bench.bench([row.name for row in ROWS], as_json=True)
    printed, before = run
    assert before == [0, 1, 2]
    told = [json.loads(line) for line in b"".join(printed).splitlines()]
    assert [(row["name"], row["value"], row["ratio"]) for row in told] == [
        ("boot", 0.25, 0.5),
        ("exit-native", 0.123456, None),
        ("scan-ksm", 1.5, None),
    ]
