# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of `emu host --top` as text: it fits any screen, and no digit is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from emu.host.screen import COLUMNS, RUNNING, View, frame_of, lines_of, shortened
from emu.host.statistics import MachineRow, Measured, VmRates, VmRow

MACHINE = MachineRow(12.0, "soft", 262144, 13107, 90, 5, 3, 2, 4000, 700, 1, 2, 3, 4)
ROW = VmRow("vm", RUNNING, 4096, 2534, 2176, 2381, 2380, 256, 461, 2662, 128, 0, 70, 80, 77, 2, 76.5, 2201, 9, 8, 7, 6, 179)
RATES = VmRates(1.0, 9_876_543, 665.6, 640.0, 0.25, 0.5, 0.125, 25.0)


def measured(*names: str, **changes: object) -> Measured:
    rows = [(replace(ROW, name=name, grant=100 + at, **changes), RATES) for at, name in enumerate(names)]  # type: ignore[arg-type]
    return Measured(MACHINE, tuple(rows), {})


def cells_of(line: str) -> list[str]:
    return line.split()


@pytest.mark.parametrize("width", range(1, 210, 7))
@pytest.mark.parametrize("memory", [4096, 786_432])
def test_it_fits(width: int, memory: int) -> None:
    names = ["vm-1", "a rather long name of a machine", "x"]
    table = Measured(MACHINE, tuple((replace(ROW, name=name, memsz=memory), RATES) for name in names), {})
    lines = lines_of(table, View(), width, 24)
    assert all(cell_len(line) <= width for line in lines)
    assert len(lines) <= 24


def test_eighty_columns_have_what_matters() -> None:
    frame = frame_of(measured("toucher-1", "toucher-2", "no-balloon"), View(), 80, 24)
    assert cells_of(frame.names) == [
        "NAME",
        "MEMSZ",
        "GRANT",
        "SZTGT",
        "ACTV",
        "MCTLSZ",
        "SWCUR",
        "SWR/s",
        "SWW/s",
        "%SWPWT",
        "SHRD",
    ]
    assert cells_of(frame.rows[0]) == ["toucher-1", "16.0", "0.4", "8.5", "9.3", "1.0", "0.5", "2.6", "2.5", "25.0", "0.3"]
    assert all(cell_len(line) <= 80 for line in frame.lines)


def test_a_wide_screen_has_every_column() -> None:
    frame = frame_of(measured("vm"), View(), 200, 24)
    assert cells_of(frame.names) == ["NAME", *(column.name for column in COLUMNS)]
    values = dict(zip(cells_of(frame.names), cells_of(frame.rows[0]), strict=True))
    assert values["MINS/s"] == "9.9"
    assert (values["%SWPWT"], values["%BLKD"], values["%FRWT"]) == ("25.0", "50.0", "12.5")
    assert (values["SWR/s"], values["SWW/s"], values["OVHD"], values["SHRDSVD"]) == ("2.6", "2.5", "0.7", "0.3")


@given(
    st.integers(1, 250), st.lists(st.floats(0, 1e9), min_size=1, max_size=5), st.sets(st.sampled_from([c.name for c in COLUMNS]))
)
def test_no_digit_is_ever_lost(width: int, sizes: list[float], hidden: set[str]) -> None:
    """Each shown column has the whole of each of its values, whatever the width."""
    rows = tuple((replace(ROW, name=f"vm-{at}", memsz=int(size), grant=int(size) // 3), RATES) for at, size in enumerate(sizes))
    frame = frame_of(Measured(MACHINE, rows, {}), View(hidden=set(hidden)), width, None)
    names = cells_of(frame.names)[1:]
    assert not set(names) & hidden
    by_name = {column.name: column for column in COLUMNS}
    for line, vm in zip(frame.rows, rows, strict=True):
        expected = [f"{by_name[name].value(*vm):.1f}" for name in names]
        assert cells_of(line)[1:] == expected


def test_more_vms_than_lines() -> None:
    table, view = measured(*(f"vm-{n}" for n in range(1, 41))), View()
    frame = frame_of(table, view, 80, 20)
    room = 20 - len(frame.head) - 2
    assert len(frame.lines) == 20
    assert frame.rows[-1].strip() == f"and {40 - room} more"
    view.scroll(5)
    frame = frame_of(table, view, 80, 20)
    assert frame.rows[0].startswith("vm-6 ")
    assert frame.rows[-1].strip() == f"and 5 above, {35 - room} more"
    view.scroll(1000)
    frame = frame_of(table, view, 80, 20)
    assert frame.rows[-2].startswith("vm-40 ")
    assert frame.rows[-1].strip() == f"and {40 - room} above"
    view.scroll(-1)
    assert frame_of(table, view, 80, 20).rows[-2].startswith("vm-39 ")
    assert len(frame_of(table, view, 80, 60).rows) == 40


def test_sorting() -> None:
    table, view = measured("a", "b", "c"), View()
    first = [line[0] for line in frame_of(table, view, 80, None).rows]
    view.sort_by_neighbour(1)
    assert view.sort == "MEMSZ"
    view.sort_by_neighbour(1)
    assert view.sort == "GRANT"
    falling = [line[0] for line in frame_of(table, view, 80, None).rows]
    view.is_rising = True
    rising = [line[0] for line in frame_of(table, view, 80, None).rows]
    assert (first, falling, rising) == (["a", "b", "c"], ["c", "b", "a"], ["a", "b", "c"])
    view.toggle("MEMSZ")
    view.sort_by_neighbour(-1)
    assert view.sort is None
    view.sort_by_neighbour(-1)
    assert view.sort is None
    for _ in range(50):
        view.sort_by_neighbour(1)
    assert view.sort == COLUMNS[-1].name


def test_names_drive_no_terminal_and_are_no_markup() -> None:
    frame = frame_of(measured("\x1b[2Jx", "[red]y", "数数数数数数数数数数数数数"), View(), 80, None)
    assert frame.rows[0].startswith("\\x1b[2Jx")
    assert frame.rows[1].startswith("[red]y")
    assert all(line.isprintable() and cell_len(line) <= 80 for line in frame.lines)
    assert "…" in frame.rows[2]


def test_what_does_not_run_says_so() -> None:
    assert frame_of(measured("a", phase="blocked"), View(), 80, None).rows[0].startswith("a (blocked)  ")


@pytest.mark.parametrize(("width", "text"), [(0, ""), (1, "…"), (3, "ab…"), (4, "abcd"), (6, "abcd  ")])
def test_shortened(width: int, text: str) -> None:
    assert shortened("abcd", width) == text
