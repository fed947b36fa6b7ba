# SPDX-License-Identifier: GPL-2.0-or-later
"""`emu boot` at a terminal: keys of emu's own, a trace and the guest's lines on one screen, the terminal as it was whatever ends the run."""

from __future__ import annotations

import fcntl
import re
import signal
import struct
import termios
from pathlib import Path

import numpy as np
import pytest

from emu import events
from emu.cli import console as console_module
from emu.cli.console import HostConsole
from emu.cli.keys import HELP, Keys
from emu.cli.trace_output import COLOURS, coloured, fitted
from emu.events import CATALOGUE, Kind
from emu.trace import text
from tests.cli.test_boot import emu, flat_kernel, terminal

SGR = re.compile(r"\x1b\[[0-9;]*m")


# ---- keys ----


def test_keys_after_the_prefix() -> None:
    asked: list[str] = []
    keys = Keys(on_end=lambda: asked.append("end"), on_help=lambda: asked.append("help"))
    assert keys.take(b"a\x01cb\x01z\x01\\\x01a\x01\x01") == b"a\x03b\x1a\x1c\x01\x01"
    assert (keys.take(b"\x01"), keys.take(b"c")) == (b"", b"\x03")  # in two pieces
    assert (keys.take(b"\x01h\x01?"), asked) == (b"", ["help", "help"])
    assert (keys.take(b"\x01x"), asked) == (b"", ["help", "help", "end"])


READS_ONE = (  # wait for a byte on COM1, exit with its value
    b"\x66\xba\xfd\x03\xec\xa8\x01\x74\xf7\x66\xba\xf8\x03\xec\xe6\xf4\xeb\xfe"
)


@pytest.mark.parametrize(("typed", "value"), [(b"\x01c", 3), (b"\x01z", 26), (b"\x01\\", 28), (b"\x01a", 1), (b"x", 120)])
def test_control_keys_reach_the_guest(typed: bytes, value: int, tmp_path: Path) -> None:
    with terminal("boot", str(flat_kernel(tmp_path, READS_ONE)), "--tables=1000") as tty:
        tty.read_until(b"page tables at")
        tty.type(typed)
        assert tty.wait() == (2 * value + 1) & 0xFF
        assert tty.is_restored()
    assert f"emu: exited with value {value} after".encode() in tty.seen


def test_a_key_ends_the_run_and_another_tells_of_keys() -> None:
    with terminal("boot", "console") as tty:
        tty.read_until(b"> ")
        tty.type(b"\x01h")
        tty.read_until(HELP.encode())
        tty.read_until(b"> ")  # the prompt is there again
        tty.type(b"\x01x")
        assert tty.wait() == 130
        assert tty.is_restored()
    assert b"\nemu: interrupted" in tty.seen


def test_the_prefix_is_a_byte_like_any_other_in_a_pipe(tmp_path: Path) -> None:
    assert emu("boot", flat_kernel(tmp_path, READS_ONE), "-q", stdin=None, input="\x01").returncode == 3


# ---- whatever ends a run ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT, signal.SIGSEGV])
def test_a_signal_leaves_the_terminal_as_it_was(number: signal.Signals) -> None:
    with terminal("boot", "console") as tty:
        tty.read_until(b"> ")
        assert tty.is_cbreak()
        tty.process.send_signal(number)
        status = tty.wait()
        assert tty.is_restored()
    ends = {signal.SIGQUIT: -signal.SIGQUIT, signal.SIGABRT: 70, signal.SIGSEGV: 70}
    assert status == ends.get(number, 130)


# ---- the trace on the screen ----


def test_lines_are_fitted_to_a_width() -> None:
    assert (fitted("abcdef", 6), fitted("abcdefg", 6), fitted("abc", 1)) == ("abcdef", "abcde…", "…")


@pytest.mark.parametrize("kind", list(Kind))
def test_colours_change_no_letter(kind: Kind) -> None:
    record = np.zeros(1, events.RECORD)
    record["kind"], record["insn_bytes"] = kind, 0x81
    line = text.line(record[0])
    painted = coloured(line, kind)
    assert SGR.sub("", painted) == line
    assert (painted != line) == (" ; " in line or CATALOGUE[kind].group in COLOURS)


def set_width(descriptor: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("4H", 25, columns, 0, 0))


SAYS = b"".join(b"\xb0" + bytes([letter]) + b"\x66\xba\xf8\x03\xee" for letter in b"one\ntwo")  # a byte a time to COM1
CPUID_AND_EXIT = b"\x31\xc0\x0f\xa2\x31\xc0\xe6\xf4\xeb\xfe"


def screen_of(seen: bytes) -> list[str]:
    """The lines that a terminal shows: carriage returns, erased lines, colours."""
    shown = [""]
    for part in re.findall(r"\r\n|\r|\x1b\[K|\x1b\[[0-9;?]*[a-zA-Z]|.", seen.decode(), re.DOTALL):
        if part in ("\r\n", "\n"):
            shown.append("")
        elif part == "\r":
            shown[-1] = "\r" + shown[-1].lstrip("\r")
        elif part == "\x1b[K":
            assert shown[-1].startswith("\r")
            shown[-1] = ""
        elif not part.startswith("\x1b"):
            shown[-1] = shown[-1].lstrip("\r") + part
    return shown


@pytest.mark.parametrize("columns", [80, 200])
def test_a_trace_does_not_tear_the_guest_s_lines(columns: int, tmp_path: Path) -> None:
    kernel = flat_kernel(tmp_path, SAYS + CPUID_AND_EXIT)
    traced = emu("boot", kernel, "-q", "--trace").stderr.splitlines()
    with terminal("boot", str(kernel), "-q", "--trace") as tty:
        set_width(tty.slave, columns)
        assert tty.wait() == 0
    lines = screen_of(tty.seen)
    said = [line for line in lines if line in ("one", "two")]
    assert said == ["one", "two"]
    shown = [line for line in lines if line and line not in said]
    assert len(shown) == len(traced)
    assert max(map(len, shown)) <= columns
    assert [line.rstrip("…") == full[: len(line.rstrip("…"))] for line, full in zip(shown, traced, strict=True)] == [True] * len(
        traced
    )
    assert shown[-1] == fitted(traced[-1], columns)


@pytest.mark.parametrize(("variables", "has_colours"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_only_where_they_are_wanted(
    variables: dict[str, str], has_colours: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"TERM": "xterm"} | variables).items():
        monkeypatch.setenv(name, value)
    with terminal("boot", str(flat_kernel(tmp_path, CPUID_AND_EXIT)), "-q", "--trace", "--events=fault") as tty:
        assert tty.wait() == 0
    assert bool(SGR.search(tty.seen.decode())) == has_colours


def test_a_trace_that_is_not_for_a_terminal_has_no_colours(tmp_path: Path) -> None:
    """In a file, and on standard error when only standard output is a terminal."""
    file = tmp_path / "trace"
    with terminal("boot", "hello", "-q", f"--trace={file}") as tty:
        assert tty.wait() == 0
    assert "\x1b" not in file.read_text()
    assert file.read_text() == emu("boot", "hello", "-q", "--trace").stderr


def test_a_line_that_drives_the_terminal_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it looks like is not known: the trace begins below it, and it is not printed again."""
    written: list[bytes] = []
    monkeypatch.setattr(console_module, "_share_a_screen", lambda: True)
    monkeypatch.setattr(console_module, "write_out", written.append)
    monkeypatch.setattr("sys.stdin", None)
    console = HostConsole()
    console.write(b"\x1b[5Ahere")
    console.write_trace(["trace\n"])
    assert written == [b"\x1b[5Ahere", b"\n"]
    console.write(b"there")
    console.write_trace(["trace\n"])
    assert written[2:] == [b"there", b"\r\x1b[K", b"there"]
