"""The live table of `emu host --top` on a terminal, and its keys.

The thread that runs the host hands over the numbers of each second, and waits while the user holds the machine. A thread of its own reads keys and draws, so
that neither a long slice nor a terminal that takes nothing keeps the other waiting. Nothing that is done here changes the run.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator

from emu.cli.console import Source, source_of
from emu.cli.interrupts import Ending, handled
from emu.host.screen import COLUMNS, Frame, View, frame_of, lines_of, shortened
from emu.host.statistics import Measured
from emu.machine import crash

ENTER, LEAVE = b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l"  # the alternate screen, without a cursor
HOME, END_OF_LINE, END_OF_SCREEN, REVERSE, PLAIN = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[7m", "\x1b[0m"
JOIN_SECONDS = 1.0  # after that the terminal takes nothing, and is left alone
HOLD_SECONDS = 0.1  # between two looks at signals while the machine is held
KEY_BYTES = 64
WAKE, STOP = b"w", b"s"
ARROWS = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[5~": "page up", b"\x1b[6~": "page down", b"\x1bOA": "up", b"\x1bOB": "down"}
TABLE, HELP, CHOICE = "table", "help", "choice"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
assert len(COLUMNS) <= len(LETTERS)
HELP_LINES = [
    "emu host --top",
    "",
    "  q            end the run, as Ctrl-C does",
    "  space        hold the machine; again: go on",
    "  < >          sort by the column to the left, to the right",
    "  r            sort the other way round",
    "  n            the scenario's order",
    "  f            choose columns",
    "  up down      scroll; also k j, page up, page down",
    "  h ?          this page",
    "",
    "Sizes are in MB; docs/host.md says what the columns mean, and so does f.",
    "Any key goes back.",
]


def can_show(stream: object) -> bool:
    """Whether a stream is a terminal that knows an alternate screen."""
    return stream is not None and bool(stream.isatty()) and os.environ.get("TERM", "dumb") not in ("dumb", "")  # type: ignore[attr-defined]


def keys_in(data: bytes) -> list[str]:
    """The keys that a terminal's bytes stand for: characters, names of arrows, and `escape`; other sequences are dropped."""
    keys = []
    while data:
        arrow = next((arrow for arrow in ARROWS if data.startswith(arrow)), None)
        if arrow is not None:
            keys.append(ARROWS[arrow])
            data = data[len(arrow) :]
        elif data[:2] in (b"\x1b[", b"\x1bO"):
            rest = data[2:].lstrip(b"0123456789;?")
            data = rest[1:]
        else:
            keys.append("escape" if data[:1] == b"\x1b" else chr(data[0]))
            data = data[1:]
    return keys


class LiveTop:
    """A `emu.cli.host_watcher.Display`."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._output = sys.stdout.fileno()
        self._input = sys.stdin.fileno() if sys.stdin is not None and source_of(sys.stdin.fileno()) is Source.TERMINAL else -1
        self._view, self._mode = View(), TABLE
        self._latest: tuple[Measured, str] | None = None
        self._held = threading.Event()
        self._problem: OSError | None = None
        self._saved: list[object] | None = None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._signals = contextlib.ExitStack()
        crash.at_crash(self._leave)
        self._thread = threading.Thread(target=self._serve, name="top", daemon=True)  # it may wait for a terminal for ever
        self._signals.enter_context(handled(lambda *_: self._wake(WAKE), (signal.SIGWINCH,)))
        self._signals.enter_context(handled(lambda *_: self._suspend(), (signal.SIGTSTP,)))
        self._enter()
        self._thread.start()

    # ---- what the run calls ----

    def said(self, _name: str, _lines: list[bytes]) -> None:
        """Not shown."""

    def second(self, measured: Measured, progress: str) -> None:
        """Show the numbers of this second."""
        self._latest = measured, progress
        self._wake(WAKE)
        self.hold()

    def hold(self) -> None:
        """Return when the machine is not held by the user; raises OSError if the terminal is gone."""
        while self._held.is_set() and not self._ending.seen and self._problem is None:
            time.sleep(HOLD_SECONDS)
        if self._problem is not None:
            raise self._problem

    def close(self) -> None:
        """Leave the terminal as it was, with the last table on it."""
        self._wake(STOP)
        self._thread.join(JOIN_SECONDS)
        is_stuck = self._thread.is_alive()
        self._signals.close()
        if is_stuck:
            self._restore_settings()
            return
        self._leave()
        for descriptor in (self._wake_read, self._wake_write):
            os.close(descriptor)
        if self._latest is not None and self._problem is None:
            width, height = self._size()
            lines = lines_of(self._latest[0], self._view, width, height - 1)
            with self._ending.writing(self._output):
                self._write("".join(f"{line.rstrip()}\n" for line in lines).encode())

    # ---- the terminal ----

    def _enter(self) -> None:
        if self._input >= 0:
            with contextlib.suppress(termios.error):
                self._saved = termios.tcgetattr(self._input)
                tty.setcbreak(self._input, termios.TCSANOW)
        with contextlib.suppress(OSError):  # drawing will tell
            self._write(ENTER)

    def _leave(self) -> None:
        """At whatever end, also in a signal handler."""
        self._restore_settings()
        with contextlib.suppress(OSError):
            self._write(LEAVE)

    def _restore_settings(self) -> None:
        if self._saved is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._input, termios.TCSANOW, self._saved)  # type: ignore[arg-type]

    def _suspend(self) -> None:
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._enter()
        self._wake(WAKE)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._output, data) :]

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self._output)
        except OSError:
            size = os.terminal_size((0, 0))
        fallback = shutil.get_terminal_size()  # of the environment, or 80 by 24
        return size.columns or fallback.columns, size.lines or fallback.lines

    def _wake(self, why: bytes) -> None:
        with contextlib.suppress(OSError):  # full: the thread will wake anyway
            os.write(self._wake_write, why)

    # ---- the thread ----

    def _serve(self) -> None:
        inputs = [self._wake_read] + ([self._input] if self._input >= 0 else [])
        try:
            self._draw()
            while True:
                ready = select.select(inputs, [], [])[0]
                if self._wake_read in ready and STOP in os.read(self._wake_read, KEY_BYTES):
                    return
                if self._input in ready:
                    data = self._read_keys()
                    if not data:
                        inputs.remove(self._input)
                    for key in keys_in(data):
                        self._press(key)
                self._draw()
        except OSError as error:
            self._problem = error

    def _read_keys(self) -> bytes:
        try:
            return os.read(self._input, KEY_BYTES)
        except OSError:  # the terminal went away: writing to it will tell
            return b""

    def _press(self, key: str) -> None:
        if self._mode == CHOICE and key in LETTERS[: len(COLUMNS)]:
            self._view.toggle(COLUMNS[LETTERS.index(key)].name)
        elif self._mode != TABLE:
            self._mode = TABLE
        elif key == "q":
            self._ending.end()
        elif key == " ":
            (self._held.clear if self._held.is_set() else self._held.set)()
        elif key in "<>":
            self._view.sort_by_neighbour(-1 if key == "<" else 1)
        elif key == "r":
            self._view.is_rising = not self._view.is_rising
        elif key == "n":
            self._view.sort = None
        elif key in ("h", "?"):
            self._mode = HELP
        elif key == "f":
            self._mode = CHOICE
        else:
            self._view.scroll(self._lines_of_key(key))

    def _lines_of_key(self, key: str) -> int:
        page = max(1, self._size()[1] // 2)
        return {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -page, "page down": page}.get(key, 0)

    def _draw(self) -> None:
        width, height = self._size()
        lines = list(self._screen(width, height))[:height]
        self._write((HOME + f"{END_OF_LINE}\r\n".join(lines) + END_OF_LINE + END_OF_SCREEN).encode("utf-8", "backslashreplace"))

    def _screen(self, width: int, height: int) -> Iterator[str]:
        if self._mode == HELP:
            yield from (shortened(line, width).rstrip() for line in HELP_LINES)
        elif self._mode == CHOICE:
            for letter, column in zip(LETTERS, COLUMNS, strict=False):
                mark = " " if column.name in self._view.hidden else "*"
                yield shortened(f"{mark} {letter}  {column.name:8} {column.meaning}", width).rstrip()
            yield shortened("A letter shows or hides a column (as many as fit); any other key goes back.", width).rstrip()
        elif self._latest is None:
            yield shortened("The first virtual second is under way.", width).rstrip()
        else:
            measured, progress = self._latest
            yield from self._table(frame_of(measured, self._view, width, height - 1), width)
            yield shortened(self._foot(progress), width).rstrip()

    def _table(self, frame: Frame, width: int) -> Iterator[str]:
        yield from frame.head
        yield f"{REVERSE}{shortened(frame.names, width)}{PLAIN}"
        yield from frame.rows

    def _foot(self, progress: str) -> str:
        held = "held (space: go on); " if self._held.is_set() else ""
        by = self._view.sort
        order = "" if by is None else f"by {by}{', smallest first' if self._view.is_rising else ''}; "
        return f"{held}{order}{progress}; h: help"
