"""What `emu boot` was asked for, checked as far as no file has to be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emu.config import VmConfig
from emu.trace.selection import Selection

STANDARD_ERROR = "-"
AT_END = "end"


@dataclass(frozen=True)
class BootOptions:
    """What the command line says."""

    guest: str | None
    boot_disk: Path | None  # either this or `guest`
    disks: tuple[str, ...]  # as `launch.open_disks` takes them
    config: VmConfig
    append: str
    modules: tuple[Path, ...]
    insn_limit: int | None
    time_limit: int | None  # of virtual time, in instructions
    trace: str | None  # a file, STANDARD_ERROR, or no trace
    selection: Selection
    tables: str | int | None  # AT_END or a virtual time
    as_json: bool
    raw_exit: bool
    no_reboot: bool
    shows_screen: bool
    quiet: bool
