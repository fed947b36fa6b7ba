"""The live table of `emu host --top`, with esxtop's columns in MB."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from emu.host.host import Host
from emu.host.statistics import VmRow, machine_row, megabytes, state_line, vm_rows

COLUMNS = {  # and whether a narrow screen has it
    "MEMSZ": True, "GRANT": True, "SZTGT": True, "TCHD": False, "ACTV": True, "MCTLSZ": True, "MCTLTGT": True, "MCTLMAX": False, "SWCUR": True, "SWTGT": False,
    "SWR/s": True, "SWW/s": True, "SHRD": True, "ZERO": False, "SHRDSVD": True, "COWH": False, "OVHD": False,
}  # fmt: skip
WIDE = 145  # characters that all of them take


class Top:
    """Builds the table each second; rates are the differences to the second before. `width` is the screen's."""

    def __init__(self, width: int) -> None:
        self._before: dict[str, VmRow] = {}
        self._shown = [name for name, is_narrow in COLUMNS.items() if is_narrow or width >= WIDE]

    def table(self, host: Host) -> Group:
        """The machine's line and a row for each VM."""
        table = Table(box=None, pad_edge=False)
        table.add_column("NAME", no_wrap=True)
        for name in self._shown:
            table.add_column(name, justify="right", no_wrap=True)
        code = {vm.name: vm.code_pages() for vm in host.vms if vm.has_memory}
        for row in vm_rows(host):
            cells = dict(zip(COLUMNS, self._cells(row, code[row.name]), strict=True))
            label = row.name if row.phase == "running" else f"{row.name} ({row.phase})"
            table.add_row(label, *(cells[name] for name in self._shown))
        return Group(Text(state_line(machine_row(host)), no_wrap=True, overflow="ignore"), table)

    def _cells(self, row: VmRow, code_pages: int) -> list[str]:
        before = self._before.get(row.name, row)
        self._before[row.name] = row
        pages = (
            *(row.memsz, row.grant, row.sztgt, row.tchd, row.actv, row.mctlsz, row.mctltgt, row.mctlmax, row.swcur, row.swtgt),
            *(row.swr - before.swr, row.sww - before.sww, row.shrd, row.zero, row.shrdsvd, row.cowh, row.ovhd + code_pages),
        )
        return [f"{megabytes(count):.1f}" for count in pages]
