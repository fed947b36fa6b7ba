# SPDX-License-Identifier: GPL-2.0-or-later
"""The live table of `emu host --top` on a terminal: keys, sizes, and a terminal that is as it was, however the run ends."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emu.cli.top import ENTER, LEAVE, keys_in
from emu.host.screen import COLUMNS
from tests.cli.test_boot import EMU, ROOT, emu, flat_kernel
from tests.cli.test_host_ends import ENDLESS_HOST, own_terminal
from tests.suite import kernels

LIMIT_S = 120
SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A terminal with `emu host --top` on it; what it shows, and keys for it."""

    def __init__(self, *arguments: str, columns: int = 80, lines: int = 24) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(columns, lines)
        self.settings = termios.tcgetattr(self.slave)
        self.bytes = b""
        streams = {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave}
        environment = os.environ | {"TERM": "xterm", "PYTHONPATH": kernels.ABORTING}
        environment.pop("COLUMNS", None)
        environment.pop("LINES", None)
        options = {**streams, "env": environment, "cwd": ROOT, "preexec_fn": own_terminal}
        self.run = subprocess.Popen([*EMU, "host", *arguments, "--top"], **options)  # type: ignore[call-overload]

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def read(self, timeout: float = 0.05, most: float = 0.2) -> None:
        """What comes until nothing does for `timeout`, or for `most` seconds: a machine that is fast never pauses."""
        end = time.monotonic() + most
        while time.monotonic() < end and select.select([self.master], [], [], timeout)[0]:
            self.bytes += os.read(self.master, 65536)

    def wait_for(self, condition: Callable[[list[str]], bool]) -> list[str]:
        """The lines of the first screen that is as it should be."""
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            self.read()
            lines = self.lines()
            if condition(lines):
                return lines
        raise AssertionError("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """The last screen that was drawn."""
        drawn = self.bytes.decode().split("\x1b[H")[-1]
        if not drawn.endswith("\x1b[J"):
            return []
        return [SEQUENCE.sub("", line).rstrip() for line in drawn.split("\r\n")]

    def end(self) -> int:
        """The status, when the run has ended by itself; the terminal must be as it was."""
        end = time.monotonic() + LIMIT_S
        while self.run.poll() is None and time.monotonic() < end:
            self.read()
        self.read(most=LIMIT_S)
        assert termios.tcgetattr(self.slave) == self.settings
        assert self.bytes.count(ENTER) == self.bytes.count(LEAVE)
        return self.run.wait(1)

    def close(self) -> None:
        self.run.kill()
        self.run.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "endless.toml"
    path.write_text(ENDLESS_HOST)
    return str(path)


@pytest.fixture
def screen(plan: str) -> Iterator[Terminal]:
    terminal = Terminal(plan)
    yield terminal
    terminal.close()


def has(text: str) -> Callable[[list[str]], bool]:
    return lambda lines: any(text in line for line in lines)


def header(lines: list[str]) -> list[str]:
    return next((line.split() for line in lines if line.startswith("NAME")), [])


def test_a_session(screen: Terminal) -> None:
    """Every key, and a screen that becomes larger and smaller."""
    lines = screen.wait_for(has("vm-2"))
    assert screen.bytes.startswith(ENTER)
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    assert "COWH" not in header(lines)
    screen.press(b"?")
    screen.wait_for(has("end the run, as Ctrl-C does"))
    screen.press(b"x")
    screen.wait_for(has("vm-2"))
    screen.press(b"f")
    lines = screen.wait_for(has("in its balloon"))
    assert [line.split()[2] for line in lines[: len(COLUMNS)]] == [column.name for column in COLUMNS]
    screen.press(b"b\r")  # GRANT goes
    screen.wait_for(lambda lines: bool(header(lines)) and "GRANT" not in header(lines))
    screen.press(b"f")
    screen.wait_for(has("  b  GRANT"))
    screen.press(b"b\x1b")
    screen.wait_for(lambda lines: "GRANT" in header(lines))
    screen.press(b">")
    screen.wait_for(has("by MEMSZ; "))
    screen.press(b"r")
    screen.wait_for(has("by MEMSZ, smallest first; "))
    screen.press(b"n")
    screen.wait_for(lambda lines: has("h: help")(lines) and not has("by MEMSZ")(lines))
    screen.resize(210, 10)
    lines = screen.wait_for(lambda lines: "ZERO" in header(lines))
    assert header(lines) == ["NAME", *(column.name for column in COLUMNS)]
    screen.resize(30, 8)
    lines = screen.wait_for(lambda lines: bool(header(lines)) and max(map(len, lines)) <= 30)
    assert len(lines) <= 8
    screen.press(b"q")
    assert screen.end() == 130
    assert re.search(r"emu: \d+\.\d s .*VMs 2 running, 0 blocked, 0 waiting, 0 ended", screen.bytes.split(LEAVE)[-1].decode())


def test_a_held_machine_stands_still(screen: Terminal) -> None:
    screen.wait_for(has("vm-2"))
    screen.press(b" ")
    held = screen.wait_for(has("held (space: go on)"))
    screen.read(1.5)
    assert screen.lines()[0] == held[0]
    screen.press(b" ")
    screen.wait_for(lambda lines: bool(lines) and not has("held")(lines) and lines[0] != held[0])
    screen.press(b" ")
    screen.wait_for(has("held (space: go on)"))
    screen.run.send_signal(signal.SIGINT)  # ends it nevertheless
    assert screen.end() == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(screen: Terminal, number: signal.Signals) -> None:
    screen.wait_for(has("vm-2"))
    screen.run.send_signal(number)
    assert screen.end() == 130


def test_a_stopped_run_gives_the_terminal_back(screen: Terminal) -> None:
    screen.wait_for(has("vm-2"))
    screen.run.send_signal(signal.SIGTSTP)
    _, status = os.waitpid(screen.run.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    screen.read()
    assert screen.bytes.rindex(LEAVE) > screen.bytes.rindex(ENTER)
    assert termios.tcgetattr(screen.slave) == screen.settings
    drawn = len(screen.bytes)
    screen.run.send_signal(signal.SIGCONT)
    screen.wait_for(lambda lines: ENTER in screen.bytes[drawn:] and has("vm-2")(lines))
    screen.press(b"q")
    assert screen.end() == 130


def test_an_engine_that_gives_up_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    kernel = flat_kernel(tmp_path, bytes([0xB9, 0, 0, 0, 1, 0xE2, 0xFE]) + kernels.ABORTS)  # after a loop
    path = tmp_path / "crash.toml"
    path.write_text(f'memory = "16M"\n[[vm]]\nguest = "{kernel}"\nmemory = "8M"\nappend = "x"\n')
    screen = Terminal(str(path))
    assert screen.end() == 70
    assert b"the engine gave up" in screen.bytes
    screen.close()


def test_looking_changes_nothing(tmp_path: Path) -> None:
    """The log is the same, byte for byte, with the table on a terminal, in a pipe, and without."""
    plan, logs = tmp_path / "a.toml", [tmp_path / name for name in ("table", "pipe", "without")]
    plan.write_text('seconds = "20s"\n' + ENDLESS_HOST)  # long enough that the keys come while it runs
    screen = Terminal(str(plan), "--log", str(logs[0]))
    end = time.monotonic() + LIMIT_S
    while b"vm-2" not in screen.bytes and time.monotonic() < end:  # drawn once is enough: the run may be over by now
        screen.read()
    screen.press(b">")
    assert screen.end() == 0
    screen.close()
    assert emu("host", str(plan), "--log", str(logs[1]), "--top").returncode == 0
    assert emu("host", str(plan), "--log", str(logs[2]), "--threads", "1").returncode == 0
    assert logs[0].read_bytes() == logs[1].read_bytes() == logs[2].read_bytes()


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[B", ["up", "down"]),
        (b"\x1bOA", ["up"]),
        (b"\x1b[5~x", ["page up", "x"]),
        (b"\x1b", ["escape"]),
        (b"\x1b[1;5Cz", ["z"]),  # a sequence that means nothing here
        (b"\x1b[", []),
        ("ä".encode(), ["Ã", "¤"]),
    ],
)
def test_keys(data: bytes, keys: list[str]) -> None:
    assert keys_in(data) == keys
