"""`emu host`: many VMs on one machine."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.status import Status
from rich.text import Text

from emu.cli.console import write_out
from emu.cli.host_options import HostOptions
from emu.devices.clock import NEVER
from emu.errors import OutputError
from emu.events import Outcome
from emu.host import snapshot
from emu.host.host import Host
from emu.host.hosted import HostedVm, Phase
from emu.host.log import HostLog
from emu.host.progress import Progress
from emu.host.report import find_page, page_report, sharing_report, write_sharing_table
from emu.host.screen import WIDE, Top
from emu.host.statistics import machine_row, state_line, vm_rows
from emu.machine import crash, native

STATUS_INTERRUPTED = 130
STATUS_VM_FAILED = 1
LINE_SECONDS = 30  # of real time between two lines of progress, where guests print to the same screen


@dataclass
class _Watcher:
    """Shows what happens: consoles line by line, the table, the log, progress."""

    options: HostOptions
    progress: Progress
    log: HostLog | None
    live: Live | None
    status: Status | None  # where progress has a line of its own
    parts: dict[str, bytes] = field(default_factory=dict)  # of a line that a VM has not ended yet
    told: float = 0  # real seconds at the last line of progress
    top: Top = field(init=False)

    def __post_init__(self) -> None:
        """The table is as wide as the screen."""
        self.top = Top(self.live.console.width if self.live is not None else 0)

    def second(self, host: Host) -> None:
        """A virtual second has ended."""
        if self.log is not None:
            self.log.second(host)
        if self.live is not None:
            self.live.update(Group(self.top.table(host), Text(self.progress.line())), refresh=True)
        elif self.status is not None:
            self.status.update(Text(self.progress.line()))
        elif sys.stderr.isatty() and not self.options.quiet and self.progress.elapsed - self.told > LINE_SECONDS:
            self.told = self.progress.elapsed
            _say(self.progress.line())

    def said(self, vm: HostedVm, data: bytes) -> None:
        """A VM printed."""
        *lines, rest = (self.parts.get(vm.name, b"") + data).split(b"\n")
        self.parts[vm.name] = rest
        if self.live is None and not self.options.quiet:
            write_out(b"".join(b"%s: %s\n" % (vm.name.encode(), line.rstrip(b"\r")) for line in lines))


def run(options: HostOptions) -> int:
    """Run a scenario, or go on with one; the exit status: 1 if a guest failed or a VM could not go on."""
    crash.install()
    host = _host(options)
    for name, ppn in options.pages:
        find_page(host, name, ppn)
    interrupted: list[int] = []
    with _on_interrupt(host, interrupted, waits=options.save is not None), contextlib.ExitStack() as stack:
        stack.callback(host.close)
        if options.seconds_us is not None:
            host.ends_at = host.scenario.instructions(options.seconds_us)
        log = stack.enter_context(HostLog(options.log)) if options.log is not None else None
        if log is not None:
            crash.at_crash(log.close)
        live = stack.enter_context(Live(console=_screen(), auto_refresh=False)) if options.top else None
        status = stack.enter_context(Console(stderr=True).status("")) if live is None and _has_line_for_itself(options) else None
        failure = _go_safely(host, _Watcher(options, Progress(host), log, live, status), options, interrupted)
        if live is not None:
            live.stop()
        if status is not None:
            status.stop()
        native.mark_cache_complete()
        failure = failure or _save_last(host, options)
        try:
            _close(host, options)
        except Exception as error:  # noqa: BLE001  (the first error counts)
            failure = failure or error
        if failure is not None:
            raise failure
        failed = [vm for vm in host.vms if _has_failed(vm)]
    return STATUS_INTERRUPTED if interrupted else STATUS_VM_FAILED if failed else 0


def _host(options: HostOptions) -> Host:
    if options.scenario is not None:
        return Host(options.scenario, threads=options.threads, swap_folder=options.swap_folder, checks=options.checks)
    assert options.resume is not None
    return snapshot.load(options.resume, snapshot.Options(options.threads, options.swap_folder, options.checks))


def _has_line_for_itself(options: HostOptions) -> bool:
    return sys.stderr.isatty() and (options.quiet or not sys.stdout.isatty())


def _go_safely(host: Host, watcher: _Watcher, options: HostOptions, interrupted: list[int]) -> BaseException | None:
    """Run to the end, or to an error, which is raised when all that is known by then has been said."""
    try:
        _go(host, watcher, options, interrupted)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001
        return error
    return None


def _go(host: Host, watcher: _Watcher, options: HostOptions, interrupted: list[int]) -> None:
    """Run to the end, with a snapshot now and then."""
    every = host.scenario.instructions(options.save_every_us or 0)
    while not host.is_over and not interrupted:
        due = host.now + every if every else NEVER
        host.run(watcher, stop=lambda due=due: bool(interrupted) or host.now >= due)  # type: ignore[misc]
        if options.save is not None and host.now >= due and not host.is_over and not interrupted:
            try:
                snapshot.save(host, options.save)
            except OutputError as error:  # the run is worth more; the snapshot before is still there
                _say(str(error))


def _save_last(host: Host, options: HostOptions) -> OutputError | None:
    """The snapshot at the end; why it cannot be written, which is said when all else has been."""
    if options.save is None:
        return None
    try:
        snapshot.save(host, options.save)
    except OutputError as error:
        return error
    if not options.quiet:
        seconds = host.now / host.scenario.insns_per_second
        _say(f"saved at {seconds:.1f} virtual seconds; go on with: emu host --resume {options.save}")
    return None


def _say(line: str) -> None:
    """A line for the user, on standard error."""
    try:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"emu: {line}", markup=False)
        sys.stderr.flush()
    except OSError as error:
        raise OutputError("standard error cannot be written") from error


def _screen() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


@contextlib.contextmanager
def _on_interrupt(host: Host, seen: list[int], *, waits: bool) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the run: with `waits` behind the slice, unless it is the second time."""

    def handler(number: int, _frame: object) -> None:
        seen.append(number)
        if not waits or len(seen) > 1:
            host.interrupt()

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _has_failed(vm: HostedVm) -> bool:
    if vm.phase is not Phase.ENDED or vm.why == "stopped by the scenario":
        return False
    return vm.stop is None or vm.stop.outcome is not Outcome.EXITED or vm.stop.value != 0


def _close(host: Host, options: HostOptions) -> None:
    """What is left to say."""
    if options.sharing_report:
        write_out(sharing_report(host).encode())
    if options.pages:
        write_out("".join(page_report(host, name, ppn) for name, ppn in options.pages).encode())
    if options.sharing_pages is not None:
        write_sharing_table(host, options.sharing_pages)
    if options.as_json:
        record = {"machine": asdict(machine_row(host)), "vms": [asdict(row) for row in vm_rows(host)], "ended": _endings(host)}
        write_out((json.dumps(record) + "\n").encode())
    if not options.quiet:
        _say(state_line(machine_row(host)).strip())
        for name, why in _endings(host).items():
            _say(f"{name}: {why}")


def _endings(host: Host) -> dict[str, str]:
    return {vm.name: vm.why for vm in host.vms if vm.why}
