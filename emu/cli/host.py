"""`emu host`: many VMs on one machine.

Whatever ends a run (its time, a signal, a terminal that is gone, a full disk): first the snapshot is written, then the log, then comes what is for the user's eyes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from emu.cli.console import write_out
from emu.cli.host_options import HostOptions
from emu.cli.host_watcher import Display, Lines, Tables, Watcher, say
from emu.cli.interrupts import Ending
from emu.cli.top import LiveTop, can_show
from emu.devices.clock import NEVER
from emu.errors import EmuError
from emu.events import Outcome
from emu.host import log, snapshot
from emu.host.host import Host
from emu.host.hosted import HostedVm, Phase
from emu.host.report import find_page, page_report, sharing_report, write_sharing_table
from emu.host.statistics import machine_row, state_line, vm_rows
from emu.machine import crash
from emu.wording import one_line

STATUS_INTERRUPTED = 130
STATUS_VM_FAILED = 1


class Saver:
    """Writes the run's snapshots to a file, or beside it when another run writes the same."""

    def __init__(self, host: Host, path: Path, ending: Ending) -> None:
        self._host, self._path, self._ending = host, path, ending
        self._seen = _identity(path)
        self._began = host.now
        self.messages: list[str] = []  # for the user, when there is time

    def save(self) -> None:
        """Write one; raises OutputError, and then the one before is still there."""
        now = _identity(self._path)
        if now is not None and now != self._seen:
            beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            self.messages.append(f"{self._path}: another run wrote it meanwhile: this one's snapshot is {beside}")
            self._path = beside
        snapshot.save(self._host, self._path)
        self._seen = _identity(self._path)

    def save_last(self) -> None:
        """The one at the end of the run, if there is something to save; raises OutputError."""
        if self._host.is_cut:
            self.messages.append(f"not saved, as a slice was broken off: {self._path} is as it was")
        elif self._ending.seen and self._host.now == self._began:
            self.messages.append(f"not saved, as nothing had run yet: {self._path} is as it was")
        else:
            self.save()
            at = f"{self._host.seconds:.1f} virtual seconds"
            self.messages.append(f"saved at {at}; go on with: emu host --resume {self._path}")


def _identity(path: Path) -> tuple[int, ...] | None:
    """What tells a file from one that took its place; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@dataclass
class _Problems:
    """What failed, in the order of what it costs the user."""

    run: BaseException | None = None  # the run itself: it is raised when all that is known by then has been said
    save: EmuError | None = None
    report: EmuError | None = None
    log: EmuError | None = None
    display: EmuError | None = None


def run(options: HostOptions) -> int:
    """Run a scenario, or go on with one; the exit status: 1 if a guest failed or a VM could not go on."""
    crash.install()
    problems = _Problems()
    ending = Ending()
    with ending, contextlib.ExitStack() as stack:
        host = _host(options, ending)
        stack.callback(host.close)
        for name, ppn in options.pages:
            find_page(host, name, ppn)
        if options.seconds_us is not None:
            host.ends_at = host.scenario.instructions(options.seconds_us)
        saver = None if options.save is None else Saver(host, options.save, ending)
        record = None if options.log is None else log.HostLog(options.log, log.metadata(host))
        watcher = Watcher(host, _display(options, ending), record)
        crash.at_crash(watcher.finish_log)
        try:
            problems.run = _failure_of(lambda: _go(host, watcher, saver, options, ending))
            if problems.run is None:  # else the machine is in the middle of something
                if saver is not None:
                    problems.save = _attempt(saver.save_last)
                watcher.measure_rest()
        finally:
            watcher.finish_log()
            watcher.close()
        problems.log, problems.display = watcher.log_problem, watcher.display_problem
        texts = _texts(host, options)
        failed = any(map(_has_failed, host.vms))
        if options.sharing_pages is not None:
            table = options.sharing_pages
            problems.report = _attempt(lambda: write_sharing_table(host, table))
    # From here signals act as usual, and nothing is left to be lost.
    said = _attempt(lambda: _tell(options, texts, [] if saver is None else saver.messages))
    problems.display = problems.display or said
    return _status(problems, is_interrupted=bool(ending.seen), has_failed=failed)


def _failure_of(action: Callable[[], object]) -> BaseException | None:
    """Do something that may fail in any way; how it failed."""
    try:
        action()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (raised in the end, by `_status`)
        return error
    return None


def _attempt(action: Callable[[], object]) -> EmuError | None:
    """Do something that other things must not wait for; the error if it fails."""
    try:
        action()
    except EmuError as error:
        return error
    return None


def _status(problems: _Problems, *, is_interrupted: bool, has_failed: bool) -> int:
    """The exit status; raises the worst of the problems. That a terminal is gone is no news to who ended the run."""
    worst = problems.run or problems.save or problems.report or problems.log
    if worst is None and not is_interrupted:
        worst = problems.display
    if worst is not None:
        raise worst
    return STATUS_INTERRUPTED if is_interrupted else STATUS_VM_FAILED if has_failed else 0


def _host(options: HostOptions, ending: Ending) -> Host:
    if options.scenario is not None:
        ending.must_finish()
        return Host(options.scenario, threads=options.threads, swap_folder=options.swap_folder, checks=options.checks)
    assert options.resume is not None
    read = snapshot.read(options.resume)
    ending.must_finish()
    return snapshot.resume(read, snapshot.Options(options.threads, options.swap_folder, options.checks))


def _display(options: HostOptions, ending: Ending) -> Display:
    if not options.top:
        return Lines(ending, is_quiet=options.quiet)
    return LiveTop(ending) if can_show(sys.stdout) else Tables(ending)


def _go(host: Host, watcher: Watcher, saver: Saver | None, options: HostOptions, ending: Ending) -> None:
    """Run to the end, with a snapshot now and then."""
    every = host.scenario.instructions(options.save_every_us or 0)

    def must_end() -> bool:
        watcher.hold()
        return bool(ending.seen) or watcher.has_problem

    ending.begin(host.interrupt)
    while not (host.is_over or host.is_cut or must_end()):
        due = host.now + every if every else NEVER
        host.run(watcher, stop=lambda due=due: must_end() or host.now >= due)  # type: ignore[misc]
        if saver is not None and host.now >= due and not (host.is_over or host.is_cut or must_end()):
            problem = _attempt(saver.save)
            if problem is not None:  # the run is worth more; the snapshot before is still there
                _attempt(lambda: say(str(problem)))  # noqa: B023  (called at once)
    ending.finish()
    if saver is None:
        watcher.last_words()


def _has_failed(vm: HostedVm) -> bool:
    if vm.phase is not Phase.ENDED or vm.why == "stopped by the scenario":
        return False
    return vm.stop is None or vm.stop.outcome is not Outcome.EXITED or vm.stop.value != 0


@dataclass(frozen=True)
class _Texts:
    """What is left to say, as of the run's end."""

    output: str
    errors: list[str]


def _texts(host: Host, options: HostOptions) -> _Texts:
    parts = []
    if options.sharing_report:
        parts.append(sharing_report(host))
    parts += [page_report(host, name, ppn) for name, ppn in options.pages]
    endings = {vm.name: vm.why for vm in host.vms if vm.why}
    if options.as_json:
        record = {"machine": asdict(machine_row(host)), "vms": [asdict(row) for row in vm_rows(host)], "ended": endings}
        parts.append(json.dumps(record) + "\n")
    summary = [] if options.quiet else [state_line(machine_row(host)).strip()] + [f"{n}: {why}" for n, why in endings.items()]
    return _Texts("".join(parts), summary)


def _tell(options: HostOptions, texts: _Texts, messages: list[str]) -> None:
    if texts.output:
        write_out(texts.output.encode("utf-8", "backslashreplace"))
    for line in ([] if options.quiet else messages) + texts.errors:
        say(one_line(line))
