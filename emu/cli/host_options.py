"""What `emu host` was asked for, checked before anything is compiled or run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from emu.cli.console import write_out
from emu.errors import UsageError
from emu.host import scenario as scenarios
from emu.host.scenario import Scenario
from emu.replacing import can_be_replaced


@dataclass(frozen=True)
class HostOptions:
    """What the command line says; a scenario or a snapshot to go on from."""

    scenario: Scenario | None = None
    scenario_file: Path | None = None
    resume: Path | None = None
    save: Path | None = None
    save_every_us: int | None = None
    seconds_us: int | None = None
    threads: int = 2
    top: bool = False
    log: Path | None = None
    swap_folder: Path | None = None
    checks: bool = False
    sharing_report: bool = False
    sharing_pages: Path | None = None
    pages: tuple[tuple[str, int], ...] = ()
    as_json: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        """Look at folders now: nobody likes to learn of them after an hour. Raises UsageError."""
        if self.swap_folder is not None and not self.swap_folder.is_dir():
            raise UsageError(f"{self.swap_folder}: not a folder")
        for path in filter(None, (self.save, self.sharing_pages)):
            if path.is_dir() or not path.parent.is_dir():
                raise UsageError(f"{path}: not a file that can be written")
        if self.save is not None and not can_be_replaced(self.save):
            raise UsageError(f"{self.save}: not a file that can be written")
        self._check_files_differ()

    def _check_files_differ(self) -> None:
        """No result takes the place of another, or of what the run is made from; a run may save over the snapshot that it goes on from."""
        results = {"--save": self.save, "--log": self.log, "--sharing-pages": self.sharing_pages}
        sources = {"the scenario": self.scenario_file, "--resume": self.resume}
        if self.scenario is not None:
            sources |= {f"the guest of {vm.name}": Path(vm.guest) for vm in self.scenario.vms}
        for (name, path), (other, taken) in combinations([*results.items(), *sources.items()], 2):
            is_one = name in results and path is not None and taken is not None and _are_one(path, taken)
            if is_one and (name, other) != ("--save", "--resume"):
                raise UsageError(f"{path}: {name} and {other} are the same file")


def _are_one(path: Path, other: Path) -> bool:
    """Whether two names are of one file, which need not be there yet; devices may be named twice."""
    if not (can_be_replaced(path) and can_be_replaced(other)):
        return False
    return os.path.realpath(path) == os.path.realpath(other) or (path.exists() and other.exists() and path.samefile(other))


def scenario_file(name: str) -> Path:
    """The file of a scenario that comes with emu, or of another; raises UsageError."""
    return scenarios.find(name)


def find_scenario(name: str) -> Scenario:
    """A scenario that comes with emu, or one in a file; raises UsageError."""
    return scenarios.read(scenario_file(name))


def list_scenarios() -> int:
    """A line for each scenario that comes with emu."""
    known = scenarios.builtin()
    width = max(map(len, known))
    write_out("".join(f"{name:<{width}}  {scenarios.read(path).description}\n" for name, path in known.items()).encode())
    return 0
