"""The host's end of the guest's serial line: standard input and output, and the terminal they may be.

A terminal is put in cbreak mode while the guest runs (no echo, bytes at once, Ctrl-C still a signal; `emu.cli.keys` has what sends
one to the guest) and restored whatever happens. Input from a file comes at the same virtual times in every run; from a terminal or a pipe it comes when it comes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from types import FrameType

from rich.console import Console as RichConsole
from rich.status import Status

from emu.cli.interrupts import handled
from emu.cli.keys import HELP, Keys
from emu.errors import OutputError

READ_BYTES = 4096
LONGEST_WAIT_S = 0.2  # so that a signal's request to stop is seen soon
QUIET_S = 2.0  # without output before progress is shown
REFRESH_S = 0.5
USUAL_WIDTH = 80
LONGEST_LINE = 4096  # of the guest's, that is known by heart


class Source(Enum):
    """What standard input is."""

    NONE = "none"
    FILE = "file"
    STREAM = "stream"
    TERMINAL = "terminal"


def source_of(descriptor: int) -> Source:
    """What stands behind a descriptor that is read."""
    try:
        mode = os.fstat(descriptor).st_mode
        if os.isatty(descriptor):
            # A job in the background that read the terminal would be stopped by it.
            return Source.TERMINAL if os.tcgetpgrp(descriptor) == os.getpgrp() else Source.NONE
    except OSError:
        return Source.NONE
    return Source.FILE if stat.S_ISREG(mode) or stat.S_ISCHR(mode) else Source.STREAM


class HostConsole:
    """Standard input and output as a `emu.vm.vm.Console`."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno() if sys.stdin is not None else -1
        self._source = source_of(self._input)
        self._line = b""  # what the guest printed since its last line feed, or since emu wrote
        self.is_mid_line = False  # standard output ends in the middle of a line
        self._keys: Keys | None = None  # at a terminal
        self._last_output = time.monotonic()
        self._last_refresh = 0.0
        self._status: Status | None = None
        self._saved: list[object] | None = None
        self._progress: Callable[[], str] | None = None
        self._errors = RichConsole(stderr=True, highlight=False)

    def show_progress(self, describe: Callable[[], str]) -> None:
        """Show `describe()` on standard error while the guest is quiet for long, if that is a terminal."""
        if self._errors.is_terminal:
            self._progress = describe

    # ---- output ----

    def write(self, data: bytes) -> None:
        """Bytes from COM1 to standard output; raises OutputError when nobody takes them any more."""
        self.hide_progress()
        self._last_output = time.monotonic()
        self._line = (self._line + data).rpartition(b"\n")[2][-LONGEST_LINE:]
        self.is_mid_line = bool(self._line)
        write_out(data)

    def write_trace(self, lines: Iterable[str]) -> None:
        """Lines to standard error, never in the middle of a line of the guest's on the same screen; that goes on below. Raises OSError."""
        text = "".join(lines)
        if not text or sys.stderr is None:
            return
        self.hide_progress()
        unfinished = self._step_aside()
        sys.stderr.write(text)
        sys.stderr.flush()
        if unfinished:
            self._line = unfinished
            write_out(unfinished)

    def _step_aside(self) -> bytes:
        """Make room for a line of emu's where the guest's unfinished line stands; what to print again behind it."""
        if not self._line or not _share_a_screen():
            return b""
        unfinished, self._line = self._line, b""
        text = unfinished.decode("utf-8", "replace")
        if not text.isprintable():  # it drives the terminal: what it looks like is not known
            write_out(b"\n")
            return b""
        write_out(b"\r\x1b[K" if len(text) < screen_width() else b"\n")
        return unfinished

    def end_line(self) -> None:
        """What comes next on the screen is emu's."""
        if self._line and _share_a_screen():
            with contextlib.suppress(OutputError):
                write_out(b"\n")
            self.is_mid_line = False
        self._line = b""

    def write_debug(self, data: bytes) -> None:
        """Bytes of the debug port to standard error; raises OutputError when nobody takes them any more."""
        self.hide_progress()
        if sys.stderr is None:
            return
        try:
            sys.stderr.buffer.write(data)
            sys.stderr.flush()
        except (OSError, ValueError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            raise OutputError(f"standard error: cannot write what the guest sends to its debug port ({reason})") from error

    def write_trouble(self, message: str) -> None:
        """A line for the user about something that went wrong while the guest goes on."""
        with contextlib.suppress(OSError, ValueError):
            self.write_trace([f"emu: {message}\n"])

    def hide_progress(self) -> None:
        """Take the progress line away before something else is written."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _refresh_progress(self) -> None:
        now = time.monotonic()
        if self._progress is None or now - self._last_output < QUIET_S or now - self._last_refresh < REFRESH_S:
            return
        self._last_refresh = now
        if self._line and sys.stdout.isatty():
            return  # the guest's prompt stands on this line
        if self._status is None:
            self._status = Status(self._progress(), console=self._errors)
            self._status.start()
        else:
            self._status.update(self._progress())

    # ---- input ----

    def poll(self) -> bytes:
        """What input there is now."""
        self._refresh_progress()
        if self._source is Source.NONE or (self._source is not Source.FILE and not self._is_ready(0)):
            return b""
        try:
            data = os.read(self._input, READ_BYTES)
        except OSError:  # the terminal went away
            data = b""
        if not data:
            self._source = Source.NONE
        return data if self._keys is None else self._keys.take(data)

    def idle(self, seconds: float | None) -> bool:
        """The guest sleeps: before a terminal so does emu; true if there is input now."""
        self._refresh_progress()
        if self._source is Source.TERMINAL or (self._source is Source.STREAM and seconds is None):
            return self._is_ready(LONGEST_WAIT_S if seconds is None else min(seconds, LONGEST_WAIT_S)) or seconds is None
        return False

    def _is_ready(self, timeout: float) -> bool:
        return bool(select.select([self._input], [], [], timeout)[0])

    # ---- the terminal ----

    @contextlib.contextmanager
    def session(self, stop: Callable[[], None]) -> Iterator[None]:
        """While the guest runs: terminal in cbreak mode; the first SIGINT, SIGTERM or SIGHUP calls `stop`, and so does a key."""
        seen: list[int] = []

        def on_signal(number: int, _frame: FrameType | None) -> None:
            seen.append(number)
            if len(seen) > 1:  # the guest does not stop, or a write does not end
                raise KeyboardInterrupt
            stop()

        def on_quit(number: int, _frame: FrameType | None) -> None:
            self.restore()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

        def on_suspend(_number: int, _frame: FrameType | None) -> None:
            self.restore()
            os.kill(os.getpid(), signal.SIGSTOP)
            self._set_cbreak()

        if self._source is Source.TERMINAL:
            self._keys = Keys(on_end=stop, on_help=lambda: self.write_trouble(HELP))
        with handled(on_signal), handled(on_suspend, (signal.SIGTSTP,)), handled(on_quit, (signal.SIGQUIT,)):
            self._set_cbreak()
            try:
                yield
            finally:
                self.restore()
                self.hide_progress()
                self.end_line()

    def _set_cbreak(self) -> None:
        if self._source is Source.TERMINAL:
            with contextlib.suppress(termios.error):
                self._saved = termios.tcgetattr(self._input)
                tty.setcbreak(self._input, termios.TCSADRAIN)

    def restore(self) -> None:
        """Give the terminal back as it was."""
        if self._saved is not None:
            with contextlib.suppress(termios.error):  # the terminal may be gone
                termios.tcsetattr(self._input, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            self._saved = None


def _share_a_screen() -> bool:
    """Whether standard output and standard error are one terminal."""
    try:
        return (
            sys.stdout.isatty()
            and sys.stderr.isatty()
            and os.fstat(sys.stdout.fileno()).st_rdev == os.fstat(sys.stderr.fileno()).st_rdev
        )
    except (AttributeError, OSError, ValueError):
        return False


def screen_width() -> int:
    """Columns of the terminal that standard error is, as it is now."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or USUAL_WIDTH
    except (AttributeError, OSError, ValueError):
        return USUAL_WIDTH


def write_out(data: bytes) -> None:
    """Write to standard output at once; raises OutputError when it is closed, full or gone."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except (OSError, ValueError) as error:
        discard_stdout()
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise OutputError(f"standard output: cannot write the guest's output ({reason})") from error


def discard_stdout() -> None:
    """Let what is still buffered go nowhere, so that the interpreter does not complain at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
