"""What happens in a run of `emu host`, told: to the log, to the screen. Neither may keep the other, or a snapshot, from being written."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol

from rich.console import Console
from rich.status import Status
from rich.text import Text

from emu.cli.console import write_out
from emu.cli.interrupts import Ending, OutputInterruptedError
from emu.errors import OutputError
from emu.host.guest_lines import Number, complete_lines, numbers_in
from emu.host.host import Host
from emu.host.hosted import HostedVm, Phase
from emu.host.log import HostLog
from emu.host.progress import Progress
from emu.host.screen import WIDE, View, lines_of
from emu.host.statistics import Measured, Meter
from emu.wording import one_line

LINE_SECONDS = 30  # of real time between two lines of progress, where guests print to the same screen


class Display(Protocol):
    """Whoever shows a run. Each call may raise OutputError or OSError, and is the last one then."""

    def said(self, name: str, lines: list[bytes]) -> None:
        """A VM printed these lines."""

    def second(self, measured: Measured, progress: str) -> None:
        """A virtual second has ended."""

    def hold(self) -> None:
        """Return when the machine may go on."""

    def close(self) -> None:
        """The run has ended: the screen is as it was."""


class Lines:
    """What the VMs print, line by line, and progress."""

    def __init__(self, ending: Ending, *, is_quiet: bool) -> None:
        self._ending, self._is_quiet = ending, is_quiet
        self._told = time.monotonic()
        self._status: Status | None = None
        self._has_errors = is_terminal(sys.stderr)
        if self._has_errors and (is_quiet or not is_terminal(sys.stdout)):
            self._status = Console(stderr=True).status("")
            self._status.start()

    def said(self, name: str, lines: list[bytes]) -> None:
        """Each line with the VM's name."""
        if self._is_quiet or sys.stdout is None:
            return
        with self._ending.writing(sys.stdout.fileno()):
            write_out(b"".join(b"%s: %s\n" % (one_line(name).encode(), line) for line in lines))

    def second(self, _measured: Measured, progress: str) -> None:
        """Progress, on a line of its own if there is one for it."""
        if self._status is not None:
            with self._ending.writing(sys.stderr.fileno()):
                self._status.update(Text(progress))
        elif self._has_errors and not self._is_quiet and time.monotonic() - self._told > LINE_SECONDS:
            self._told = time.monotonic()
            with self._ending.writing(sys.stderr.fileno()):
                say(progress)

    def hold(self) -> None:
        """It may."""

    def close(self) -> None:
        """No progress any more."""
        if self._status is not None:
            with self._ending.writing(sys.stderr.fileno()):
                self._status.stop()


class Tables:
    """The table of each second, one below the other, for a file or a pipe."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._view = View()

    def said(self, _name: str, _lines: list[bytes]) -> None:
        """Not shown."""

    def second(self, measured: Measured, _progress: str) -> None:
        """A table."""
        if sys.stdout is not None:
            with self._ending.writing(sys.stdout.fileno()):
                write_out("".join(f"{line.rstrip()}\n" for line in lines_of(measured, self._view, WIDE, None)).encode())

    def hold(self) -> None:
        """It may."""

    def close(self) -> None:
        """There is nothing to do."""


class Watcher:
    """Observes the run for log and display; what goes wrong with one is kept in `problems`, and is a reason to end the run."""

    def __init__(self, host: Host, display: Display, log: HostLog | None) -> None:
        self._host, self._display, self._log = host, display, log
        self._meter = Meter(host)
        self._progress = Progress(host)
        self._numbers: dict[str, list[Number]] = {}
        self._is_shown = True
        self.log_problem: OutputError | None = None
        self.display_problem: OutputError | None = None

    @property
    def has_problem(self) -> bool:
        """Whether somebody does not learn any more what happens."""
        return not self._is_shown or self.log_problem is not None

    def said(self, vm: HostedVm, data: bytes) -> int:
        """A VM printed: whole lines of it are told."""
        lines, size = complete_lines(data, is_end=vm.phase is Phase.ENDED)
        if lines and not self._show(lambda: self._display.said(vm.name, lines)):
            return 0
        self._numbers.setdefault(vm.name, []).extend(number for line in lines for number in numbers_in(line))
        return size

    def second(self, _host: Host) -> None:
        """A virtual second has ended."""
        measured = self._measure()
        self._show(lambda: self._display.second(measured, self._progress.line()))

    def _measure(self) -> Measured:
        """The numbers since the last time, which go to the log."""
        measured = self._meter.measure()
        numbers, self._numbers = self._numbers, {}
        if self._log is not None and self.log_problem is None:
            try:
                self._log.add(measured, numbers)
            except OutputError as error:
                self.log_problem = error
        return measured

    def measure_rest(self) -> None:
        """The log gets what has happened since the last second; a slice that was broken off has not."""
        if self._meter.is_due and not self._host.is_cut:
            self._measure()

    def finish_log(self) -> None:
        """The log is whole, and nothing follows."""
        if self._log is None or self.log_problem is not None:
            return
        try:
            self._log.finish()
        except OutputError as error:
            self.log_problem = self.log_problem or error

    def hold(self) -> None:
        """Between two slices: whoever looks may hold the machine."""
        self._show(self._display.hold)

    def last_words(self) -> None:
        """Show what VMs have printed of a line that they did not end: nobody goes on with it."""
        for vm in self._host.vms:
            if vm.console.output:
                lines, size = complete_lines(bytes(vm.console.output), is_end=True)
                self._show(lambda name=vm.name, lines=lines: self._display.said(name, lines))  # type: ignore[misc]
                del vm.console.output[:size]

    def close(self) -> None:
        """The display leaves the screen as it was."""
        self._show(self._display.close)

    def _show(self, show: Callable[[], None]) -> bool:
        """Do it, if the display works; whether it did."""
        if not self._is_shown:
            return False
        try:
            show()
        except OutputInterruptedError:
            self._is_shown = False
        except OutputError as error:
            self._is_shown, self.display_problem = False, error
        except OSError as error:
            self._is_shown = False
            self.display_problem = OutputError(f"the screen: cannot be written ({(error.strerror or str(error)).lower()})")
        return self._is_shown


def is_terminal(stream: object) -> bool:
    """Whether it is one: a standard stream may be closed, and None."""
    try:
        return stream is not None and bool(stream.isatty())  # type: ignore[attr-defined]
    except (OSError, ValueError):
        return False


def say(line: str) -> None:
    """A line for the user, on standard error; raises OutputError."""
    if sys.stderr is None:
        return
    try:
        print(f"emu: {line}", file=sys.stderr, flush=True)
    except OSError as error:
        raise OutputError("standard error cannot be written") from error
