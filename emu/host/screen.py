"""The table of `emu host --top`, with esxtop's columns: as text, for a screen of any size.

A column is left out before a digit is: the least important goes first. VMs that find no line are counted on the last one.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rich.cells import cell_len, set_cell_size

from emu.host.statistics import Measured, VmRates, VmRow, megabytes, state_line
from emu.units import MIB, PAGE_BYTES
from emu.wording import one_line

WIDE = 200  # characters: more than all columns take
GAP = 2  # between columns
LEAST_NAME = 12  # characters of a VM's name that are shown on any screen
RUNNING = "running"


@dataclass(frozen=True)
class Column:
    """One column; `rank` says which go first on a narrow screen: the largest."""

    name: str
    rank: int
    meaning: str
    value: Callable[[VmRow, VmRates], float]


def _size(name: str, rank: int, meaning: str, attribute: str) -> Column:
    return Column(name, rank, f"{meaning}, MB", lambda row, _: megabytes(getattr(row, attribute)))


COLUMNS = (
    _size("MEMSZ", 3, "the guest's memory", "memsz"),
    _size("GRANT", 1, "pages of it that have a frame", "grant"),
    _size("SZTGT", 4, "its allocation", "sztgt"),
    _size("TCHD", 11, "its working set: the largest average", "tchd"),
    _size("ACTV", 8, "its working set: the current average", "actv"),
    _size("MCTLSZ", 2, "in its balloon", "mctlsz"),
    _size("MCTLTGT", 9, "its balloon's target", "mctltgt"),
    _size("MCTLMAX", 17, "the most that its balloon may take", "mctlmax"),
    _size("SWCUR", 2, "on its swap area", "swcur"),
    _size("SWTGT", 14, "that should be there", "swtgt"),
    Column("SWR/s", 5, "read from its swap area, MB a second", lambda _, rates: rates.swr * PAGE_BYTES / MIB),
    Column("SWW/s", 6, "written to it, MB a second", lambda _, rates: rates.sww * PAGE_BYTES / MIB),
    Column("%SWPWT", 7, "time that it waited for its swap area, %", lambda _, rates: rates.swpwt),
    Column("%BLKD", 13, "time in which the machine did not let it run, %", lambda _, r: 100 * r.blocked / r.interval),
    Column("%FRWT", 16, "time in which it had no frames to go on, %", lambda _, r: 100 * r.frame_wait / r.interval),
    Column("MINS/s", 12, "millions of instructions a second", lambda _, r: r.instructions / r.interval / 1e6),
    _size("SHRD", 6, "shared pages", "shrd"),
    _size("ZERO", 18, "of them, pages of zeros", "zero"),
    _size("SHRDSVD", 10, "what sharing saves", "shrdsvd"),
    _size("COWH", 19, "hints of the scan", "cowh"),
    _size("OVHD", 15, "tables, translated code, the VMM's own", "ovhd"),
)
BY_NAME = {column.name: column for column in COLUMNS}


@dataclass
class View:
    """What of it somebody wants to see."""

    hidden: set[str] = field(default_factory=set)  # columns that are not wanted
    sort: str | None = None  # a column; None: the scenario's order
    is_rising: bool = False  # smallest first
    first: int = 0  # VMs that are scrolled over

    def sort_by_neighbour(self, step: int) -> None:
        """Sort by the column to the left or right; beyond the first is the scenario's order."""
        names = [None, *(column.name for column in COLUMNS if column.name not in self.hidden)]
        at = names.index(self.sort) if self.sort in names else 0
        self.sort = names[max(0, min(len(names) - 1, at + step))]

    def toggle(self, name: str) -> None:
        """Hide a column, or show it again."""
        self.hidden ^= {name}

    def scroll(self, vms: int) -> None:
        """Move down, or up; `frame_of` finds the end."""
        self.first = max(0, self.first + vms)


@dataclass(frozen=True)
class Frame:
    """The lines of a screen."""

    head: list[str]  # of the machine
    names: str  # of the columns
    rows: list[str]

    @property
    def lines(self) -> list[str]:
        """All of them."""
        return [*self.head, self.names, *self.rows]


def lines_of(measured: Measured, view: View, width: int, height: int | None) -> list[str]:
    """The table as lines of `width` characters at the most."""
    return frame_of(measured, view, width, height).lines


def frame_of(measured: Measured, view: View, width: int, height: int | None) -> Frame:
    """The machine, the columns that fit, a line for each VM; on `height` lines, if that is not None."""
    head = wrapped(state_line(measured.machine), width)[: None if height is None else max(1, height // 2)]
    vms = _sorted(measured, view)
    room = len(vms) if height is None else max(1, height - len(head) - 1)
    if len(vms) > room:
        room = max(1, room - 1)  # the last line counts the others
    view.first = min(view.first, len(vms) - min(room, len(vms)))
    labels = [_label(row) for row, _ in vms]
    name_width = max(map(cell_len, ["NAME", *labels]))
    name_width = min(name_width, max(LEAST_NAME, width // 4), width)
    columns = _fitting(vms, view, width - name_width)
    names = set_cell_size("NAME", name_width) + "".join(column.name.rjust(size) for column, _, size in columns)
    rows = [
        shortened(label, name_width) + "".join(cells[at].rjust(size) for _, cells, size in columns)
        for at, label in enumerate(labels)
    ]
    shown = rows[view.first : view.first + room]
    if len(shown) < len(rows):
        shown.append(shortened(_others(view.first, len(rows) - view.first - len(shown)), width))
    return Frame(head, shortened(names, width).rstrip(), shown)


def _sorted(measured: Measured, view: View) -> list[tuple[VmRow, VmRates]]:
    vms = [(replace(row, ovhd=row.ovhd + measured.code_pages.get(row.name, 0)), rates) for row, rates in measured.vms]
    if view.sort is not None:
        vms.sort(key=lambda vm: BY_NAME[view.sort].value(*vm), reverse=not view.is_rising)  # type: ignore[index]
    return vms


def _label(row: VmRow) -> str:
    return one_line(row.name if row.phase == RUNNING else f"{row.name} ({row.phase})")


def _others(above: int, below: int) -> str:
    counts = ([f"{above} above"] if above else []) + ([f"{below} more"] if below else [])
    return f"and {', '.join(counts)}"


def _fitting(vms: list[tuple[VmRow, VmRates]], view: View, width: int) -> list[tuple[Column, list[str], int]]:
    """Columns with their cells and their widths, the most important ones that fit, in their order."""
    chosen: dict[str, tuple[Column, list[str], int]] = {}
    for column in sorted(COLUMNS, key=lambda column: column.rank):
        cells = [f"{column.value(*vm):.1f}" for vm in vms]
        size = GAP + max(map(len, [column.name, *cells]))
        if column.name not in view.hidden and size <= width:
            chosen[column.name] = column, cells, size
            width -= size
    return [chosen[column.name] for column in COLUMNS if column.name in chosen]


def shortened(text: str, width: int) -> str:
    """A text in so many characters, filled up, or with an ellipsis."""
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"[:width]


def wrapped(line: str, width: int) -> list[str]:
    """The machine's line in as many as it takes, broken where something new begins, or anywhere on a very narrow screen."""
    lines: list[str] = []
    for part in line.strip().split("; "):
        if lines and cell_len(lines[-1]) + 2 + cell_len(part) <= width:
            lines[-1] += f"; {part}"
        else:
            lines += textwrap.wrap(part, width)
    return lines
