"""The live table of `emu host --top`, with esxtop's columns in MB."""

from __future__ import annotations

from rich.table import Table

from emu.host.host import Host
from emu.host.statistics import VmRow, machine_row, megabytes, state_line, vm_rows

COLUMNS = (
    "MEMSZ",
    "GRANT",
    "SZTGT",
    "MCTLSZ",
    "MCTLTGT",
    "MCTLMAX",
    "SWCUR",
    "SWTGT",
    "SWR/s",
    "SWW/s",
    "SHRD",
    "ZERO",
    "SHRDSVD",
    "COWH",
    "OVHD",
)


class Top:
    """Builds the table each second; rates are the differences to the second before."""

    def __init__(self) -> None:
        self._before: dict[str, VmRow] = {}

    def table(self, host: Host) -> Table:
        """The machine's line and a row for each VM."""
        table = Table(title=state_line(machine_row(host)), title_justify="left", box=None, pad_edge=False)
        table.add_column("NAME")
        for name in COLUMNS:
            table.add_column(name, justify="right")
        for row in vm_rows(host):
            table.add_row(row.name if row.phase == "running" else f"{row.name} ({row.phase})", *self._cells(row))
        return table

    def _cells(self, row: VmRow) -> list[str]:
        before = self._before.get(row.name, row)
        self._before[row.name] = row
        pages = (
            *(row.memsz, row.grant, row.sztgt, row.mctlsz, row.mctltgt, row.mctlmax, row.swcur, row.swtgt),
            *(row.swr - before.swr, row.sww - before.sww, row.shrd, row.zero, row.shrdsvd, row.cowh, row.ovhd),
        )
        return [f"{megabytes(count):.2f}" for count in pages]
