# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest OS's console: scripts give a clean transcript, lines are edited as on a terminal, and control C ends what runs."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EMU = [sys.executable, "-c", "from emu.cli import run; run()"]
LIMIT_S = 300
SYSTEMS = ("os-i386", "os-pae", "os-x86_64")
UP, DOWN, RIGHT, LEFT, HOME, END, DELETE = b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\x1b[H", b"\x1b[F", b"\x1b[3~"
BACKSPACE, KILL, KILL_REST, KILL_WORD = b"\x7f", b"\x15", b"\x0b", b"\x17"
LINE_BYTES = 254
WORDS = 24  # that the shell takes of a line


def session(keys: bytes, folder: Path, guest: str = "os-i386") -> list[str]:
    """What is on the terminal, from the first prompt on; `exit` is typed at the end."""
    (folder / "keys").write_bytes(keys + b"exit\n")
    with (folder / "keys").open("rb") as typed:
        run = subprocess.run(
            [*EMU, "boot", guest, "--quiet"], stdin=typed, capture_output=True, cwd=ROOT, timeout=LIMIT_S, check=False
        )
    assert (run.returncode, run.stderr) == (0, b"")
    return [shown(line) for line in run.stdout.decode("ascii").split("$ ", 1)[1].split("\n")]


def shown(line: str) -> str:
    """A line of a terminal."""
    cells: list[str] = []
    at = 0
    for part in line:
        if part == "\b":
            at -= 1
        elif part == "\r":
            at = 0
        else:
            cells[at : at + 1] = [part]
            at += 1
        assert at >= 0
    return "".join(cells).rstrip()


@pytest.mark.parametrize("guest", SYSTEMS)
def test_a_script_gives_the_transcript_of_one_who_waits_for_each_prompt(guest: str, tmp_path: Path) -> None:
    lines = session(b"echo one  two\nidle seconds=1\nnosuch; echo three\n", tmp_path, guest)
    assert lines == [
        *["echo one  two", "one two"],
        *["$ idle seconds=1", "idle second=1", "idle summary seconds=1"],
        *["$ nosuch; echo three", "nosuch: no such file", "nosuch: status 1", "three", "$ exit", ""],
    ]


@pytest.mark.parametrize("guest", SYSTEMS)
def test_control_c_ends_what_the_command_before_it_started(guest: str, tmp_path: Path) -> None:
    lines = session(b"idle seconds=100000\n\x03echo alive\n", tmp_path, guest)
    assert lines == ["idle seconds=100000", "", "idle: status 137", "$ echo alive", "alive", "$ exit", ""]


def test_control_c_ends_the_children_too(tmp_path: Path) -> None:
    """`compile` starts others; a fork bomb would not let the shell start anything."""
    lines = session(b"forkbomb rounds=1000000\n\x03mem\nidle seconds=1\n", tmp_path)
    assert lines[-4:] == ["idle second=1", "idle summary seconds=1", "$ exit", ""]


def test_control_c_gives_up_the_line(tmp_path: Path) -> None:
    assert session(b"echo no\x03echo yes\n", tmp_path) == ["echo no", "$ echo yes", "yes", "$ exit", ""]


def test_control_c_does_not_end_the_shell(tmp_path: Path) -> None:
    assert session(b"\x03\x03\x03echo yes\n", tmp_path)[-3:] == ["yes", "$ exit", ""]


def test_a_line_has_a_longest_length(tmp_path: Path) -> None:
    lines = session(b"echo " + b"x" * 300 + LEFT * 3 + b"y\n", tmp_path)
    assert [len(line) for line in lines[:2]] == [LINE_BYTES, LINE_BYTES - 5]
    assert lines[2:] == ["$ exit", ""]


def test_a_key_that_nobody_knows_is_no_text(tmp_path: Path) -> None:
    keys = b"\x1b[5~\x1b[24~\x1bOP\x1b[1;2P\x1b[?25h\x01\x1bx"
    assert session(b"echo " + keys.replace(b"\x01", b"") + b"\n", tmp_path)[0] in ("echo x", "echo hx", "echo 25hx", "echo ?25hx")


class Editor:
    """The model: what a line is after some keys, and the lines before it."""

    def __init__(self) -> None:
        self.history: list[str] = []
        self.begin()

    def begin(self) -> None:
        self.text, self.at, self.back, self.unfinished = "", 0, 0, ""

    def type(self, text: str) -> None:
        self.text = self.text[: self.at] + text + self.text[self.at :]
        self.at += len(text)

    def erase(self, first: int, last: int) -> None:
        if 0 <= first < last <= len(self.text):
            self.text, self.at = self.text[:first] + self.text[last:], first

    def word(self) -> int:
        before = self.text[: self.at].rstrip(" ")
        return len(before[: before.rfind(" ") + 1])

    def recall(self, back: int) -> None:
        if not 0 <= back <= min(16, len(self.history)) or back == self.back:
            return
        if not self.back:
            self.unfinished = self.text
        self.back = back
        self.text = self.history[-back] if back else self.unfinished
        self.at = len(self.text)

    def press(self, key: bytes) -> None:
        does = {
            **dict.fromkeys((LEFT, b"\x1bOD", b"\x02"), lambda: setattr(self, "at", max(0, self.at - 1))),
            **dict.fromkeys((RIGHT, b"\x1bOC", b"\x06"), lambda: setattr(self, "at", min(len(self.text), self.at + 1))),
            **dict.fromkeys((HOME, b"\x1b[1~", b"\x1bOH", b"\x01"), lambda: setattr(self, "at", 0)),
            **dict.fromkeys((END, b"\x1b[4~", b"\x1bOF", b"\x05"), lambda: setattr(self, "at", len(self.text))),
            **dict.fromkeys((BACKSPACE, b"\x08"), lambda: self.erase(self.at - 1, self.at)),
            DELETE: lambda: self.erase(self.at, self.at + 1),
            KILL: lambda: self.erase(0, self.at),
            KILL_REST: lambda: self.erase(self.at, len(self.text)),
            KILL_WORD: lambda: self.erase(self.word(), self.at),
            **dict.fromkeys((UP, b"\x10"), lambda: self.recall(self.back + 1)),
            **dict.fromkeys((DOWN, b"\x0e"), lambda: self.recall(self.back - 1)),
        }
        if key in does:
            does[key]()
        else:
            self.type(key.decode())

    def enter(self) -> str:
        text = self.text
        if text and self.history[-1:] != [text]:
            self.history.append(text)
        self.begin()
        return text


KEYS = (
    *(
        LEFT,
        b"\x1bOD",
        b"\x02",
        RIGHT,
        b"\x1bOC",
        b"\x06",
        HOME,
        b"\x1b[1~",
        b"\x1bOH",
        b"\x01",
        END,
        b"\x1b[4~",
        b"\x1bOF",
        b"\x05",
    ),
    *(BACKSPACE, b"\x08", DELETE, KILL, KILL_REST, KILL_WORD, UP, UP, b"\x10", DOWN, b"\x0e"),
)


@pytest.mark.parametrize("seed", range(3))
def test_random_keys_edit_as_the_model_says(seed: int, tmp_path: Path) -> None:
    """What the shell gets is seen by `echo`, which is put before each line; what the terminal shows by its letters."""
    rng = random.Random(seed)
    editor, keys, expected = Editor(), b"", []
    for _ in range(60):
        for _ in range(rng.randrange(25)):
            key = rng.choice(KEYS) if rng.randrange(3) == 0 else rng.choice("abcdefg  ").encode()
            keys += key
            if len(editor.text) < 60 or key in KEYS:
                editor.press(key)
            else:
                keys = keys[: -len(key)]
        for key in (HOME, b"e", b"c", b"h", b"o", b" "):
            keys += key
            editor.press(key)
        keys += b"\n"
        text = editor.enter()
        words = text.split()
        expected += [text.rstrip(), " ".join(words[1:WORDS])] if words[1:] else [text.rstrip()]
    lines = session(keys, tmp_path)
    assert [line.removeprefix("$ ") for line in lines[: len(expected)]] == expected
