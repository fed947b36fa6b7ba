"""The folded page tables (`emu.vm.tables`) as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from emu.machine.paging import PRESENT
from emu.trace.text import entry_flags
from emu.units import GIB, MIB
from emu.vm.tables import NO_MPN, Range

LARGE_PAGES = {2 * MIB: " 2M", 4 * MIB: " 4M", GIB: " 1G"}
HEADINGS = ("VPN", "pages", "guest", "PPN", "shadow", "MPN", "state")


def _span(first: int, pages: int) -> str:
    return f"{first:05x}" if pages == 1 else f"{first:05x}-{first + pages - 1:05x}"


def _row(part: Range) -> tuple[str, ...]:
    if part.mpn == NO_MPN:
        mpn = "-"
    elif part.mpns_follow:
        mpn = _span(part.mpn, part.pages)
    else:
        mpn = f"{part.mpn:05x} ..."
    guest = entry_flags(part.guest_flags) if part.guest_flags & PRESENT else "unpaged"
    return (
        _span(part.vpn, part.pages),
        str(part.pages),
        guest + LARGE_PAGES.get(part.mapped_by, ""),
        _span(part.ppn, part.pages),
        entry_flags(part.shadow_flags) if part.shadow_flags else "-",
        mpn,
        part.state,
    )


def table_lines(parts: Sequence[Range], *, title: str) -> Iterator[str]:
    """A title, column headings and one line a range."""
    rows = [HEADINGS, *(_row(part) for part in parts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    yield title
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
