"""`emu host`: many VMs on one machine."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live

from emu.cli.console import write_out
from emu.errors import OutputError, UsageError
from emu.events import Outcome
from emu.host import scenario as scenarios
from emu.host.host import Host
from emu.host.hosted import HostedVm, Phase
from emu.host.log import HostLog
from emu.host.report import sharing_report
from emu.host.screen import WIDE, Top
from emu.host.statistics import machine_row, state_line, vm_rows

STATUS_INTERRUPTED = 130
STATUS_VM_FAILED = 1


@dataclass(frozen=True)
class HostOptions:
    """What the command line says."""

    scenario: str
    threads: int = 2
    top: bool = False
    log: Path | None = None
    swap_folder: Path | None = None
    checks: bool = False
    sharing_report: bool = False
    as_json: bool = False
    quiet: bool = False


@dataclass
class _Watcher:
    """Shows what happens: consoles line by line, the table, the log."""

    options: HostOptions
    log: HostLog | None
    live: Live | None
    parts: dict[str, bytes] = field(default_factory=dict)  # of a line that a VM has not ended yet
    top: Top = field(init=False)

    def __post_init__(self) -> None:
        """The table is as wide as the screen."""
        self.top = Top(self.live.console.width if self.live is not None else 0)

    def second(self, host: Host) -> None:
        """A virtual second has ended."""
        if self.log is not None:
            self.log.second(host)
        if self.live is not None:
            self.live.update(self.top.table(host), refresh=True)

    def said(self, vm: HostedVm, data: bytes) -> None:
        """A VM printed."""
        *lines, rest = (self.parts.get(vm.name, b"") + data).split(b"\n")
        self.parts[vm.name] = rest
        if self.live is None and not self.options.quiet:
            write_out(b"".join(b"%s: %s\n" % (vm.name.encode(), line.rstrip(b"\r")) for line in lines))


def run(options: HostOptions) -> int:
    """Run a scenario; the exit status: 1 if a guest failed or a VM could not go on."""
    plan = scenarios.read(scenarios.find(options.scenario))
    if options.swap_folder is not None and not options.swap_folder.is_dir():
        raise UsageError(f"{options.swap_folder}: not a folder")
    host = Host(plan, threads=options.threads, swap_folder=options.swap_folder, checks=options.checks)
    interrupted: list[int] = []
    with _on_interrupt(host, interrupted), contextlib.ExitStack() as stack:
        stack.callback(host.close)
        log = stack.enter_context(HostLog(options.log)) if options.log is not None else None
        live = stack.enter_context(Live(console=_screen(), auto_refresh=False)) if options.top else None
        host.run(_Watcher(options, log, live), stop=lambda: bool(interrupted))
        if live is not None:
            live.stop()
        _close(host, options)
        failed = [vm for vm in host.vms if _has_failed(vm)]
    return STATUS_INTERRUPTED if interrupted else STATUS_VM_FAILED if failed else 0


def _screen() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


@contextlib.contextmanager
def _on_interrupt(host: Host, seen: list[int]) -> Iterator[None]:
    def handler(number: int, _frame: object) -> None:
        seen.append(number)
        host.interrupt()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _has_failed(vm: HostedVm) -> bool:
    if vm.phase is not Phase.ENDED or vm.why == "stopped by the scenario":
        return False
    return vm.stop is None or vm.stop.outcome is not Outcome.EXITED or vm.stop.value != 0


def _close(host: Host, options: HostOptions) -> None:
    """What is left to say."""
    if options.sharing_report:
        write_out(sharing_report(host).encode())
    if options.as_json:
        record = {"machine": asdict(machine_row(host)), "vms": [asdict(row) for row in vm_rows(host)], "ended": _endings(host)}
        write_out((json.dumps(record) + "\n").encode())
    if options.quiet:
        return
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        errors.print(f"emu: {state_line(machine_row(host)).strip()}", markup=False)
        for name, why in _endings(host).items():
            errors.print(f"emu: {name}: {why}", markup=False)
        sys.stderr.flush()
    except OSError as error:
        raise OutputError("standard error cannot be written") from error


def _endings(host: Host) -> dict[str, str]:
    return {vm.name: vm.why for vm in host.vms if vm.why}


def list_scenarios() -> int:
    """A line for each scenario that comes with emu."""
    known = scenarios.builtin()
    width = max(map(len, known))
    write_out("".join(f"{name:<{width}}  {scenarios.read(path).description}\n" for name, path in known.items()).encode())
    return 0
