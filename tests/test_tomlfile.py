# SPDX-License-Identifier: GPL-2.0-or-later
"""TOML files: where each key stands, all that is wrong at once, and files that are none or too much."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu import tomlfile, wording
from emu.errors import FileErrors, UsageError
from emu.tomlfile import Document, Place, WrongValueError, read

# ---- places ----


class _Writer:
    """Writes tables as TOML in ways that are drawn, and notes where each key stands."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.lines: list[str] = []
        self.places: dict[tuple[str | int, ...], Place] = {}

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def key(self, name: str) -> str:
        if name and all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in name):
            return str(self.pick(name, json.dumps(name), f"'{name}'"))
        return json.dumps(name)

    def line(self, text: str) -> int:
        for _ in range(self.draw(st.integers(0, 2))):
            self.lines.append(self.pick("", "# a = 1", "\t# [x]", "  "))
        self.lines += text.split("\n")
        return len(self.lines) - text.count("\n")

    def pairs(self, values: dict[str, Any], keys: tuple[str | int, ...]) -> None:
        for name, value in values.items():
            inside: dict[tuple[str | int, ...], int] = {}
            begin = self.pick("", " ", "\t") + self.key(name) + self.pick("=", " = ")
            number = self.line(begin + self.value(value, (*keys, name), len(begin), inside))
            self.places[*keys, name] = Place(number)
            self.places |= {place: Place(number, column + 1) for place, column in inside.items()}

    def value(self, value: Any, keys: tuple[str | int, ...], at: int, inside: dict[tuple[str | int, ...], int]) -> str:
        """A value on one line, from column `at` on; what is in it goes to `inside`."""
        if isinstance(value, dict):
            text = "{"
            for number, (name, item) in enumerate(value.items()):
                text += ", " if number else " "
                inside[*keys, name] = at + len(text)
                text += self.key(name) + " = "
                text += self.value(item, (*keys, name), at + len(text), inside)
            return text + " }"
        if isinstance(value, list):
            text = "["
            for number, item in enumerate(value):
                text += ", " if number else ""
                inside[*keys, number] = at + len(text)
                text += self.value(item, (*keys, number), at + len(text), inside)
            return text + "]"
        if isinstance(value, str):
            literal = f"'{value}'" if value.isprintable() and "'" not in value else json.dumps(value)
            return str(self.pick(json.dumps(value), literal))
        return json.dumps(value)


NAMES = st.sampled_from(["a", "b", "memory", "x-1", "1979", "é ü", 'q"', "a.b", "", "#", "[c]", "true"])
PLAIN = st.integers(-5, 5) | st.booleans() | st.sampled_from(["", "x", '"', "= [a]", "# no", "ü\t{", "\\", "'''"])
INLINE = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6)
VALUES = st.dictionaries(NAMES, INLINE, max_size=4)


@st.composite
def texts(draw: Any) -> tuple[str, dict[str, Any], dict[tuple[str | int, ...], Place]]:
    """A text, what is in it, and where."""
    writer = _Writer(draw)
    document = draw(VALUES)
    writer.pairs(document, ())
    for name in draw(st.lists(st.sampled_from(["t", "u", "v w"]), unique=True, max_size=3)):
        if draw(st.booleans()):
            table = draw(VALUES)
            number = writer.line(f"{writer.pick('', ' ')}[{writer.key(name)}]")
            writer.pairs(table, (name,))
            document[name] = table
        else:
            document[name] = []
            for index in range(draw(st.integers(1, 3))):
                line = writer.line(f"[[{writer.key(name)}]]")
                number = line if not index else number
                entry = draw(VALUES)
                writer.places[name, index] = Place(line)
                writer.pairs(entry, (name, index))
                document[name].append(entry)
                if draw(st.booleans()):
                    below = draw(VALUES)
                    writer.places[name, index, "below"] = Place(writer.line(f"[{writer.key(name)} . below] # x"))
                    writer.pairs(below, (name, index, "below"))
                    entry["below"] = below
        writer.places[name,] = Place(number)
    ending = draw(st.sampled_from(["\n", "\r\n"]))
    return ending.join(writer.lines), document, writer.places


@given(texts())
def test_every_key_is_found_where_it_was_written(made: tuple[str, dict[str, Any], dict[tuple[str | int, ...], Place]]) -> None:
    text, values, places = made
    document = Document(text, "f")
    assert document.values == values == tomllib.loads(text)
    assert {keys: document.place(keys) for keys in places} == places


def test_dotted_keys_and_texts_of_several_lines() -> None:
    text = (
        'a.b.c = 1\ns = """\nx = 1\n[t]\n"""\n[d.e]\nf = [\n  1, # x\n  { g = 2 },\n]\n[[d.h]]\n[[d.h]]\nz.y = 0\n[d.h.i]\nj = 1'
    )
    document = Document(text, "f")
    expected = {
        ("a",): Place(1), ("a", "b", "c"): Place(1), ("s",): Place(2), ("d",): Place(6), ("d", "e", "f"): Place(7),
        ("d", "e", "f", 0): Place(8), ("d", "e", "f", 1): Place(9), ("d", "e", "f", 1, "g"): Place(9, 5), ("d", "h"): Place(11),
        ("d", "h", 1): Place(12), ("d", "h", 1, "z", "y"): Place(13), ("d", "h", 1, "i"): Place(14), ("d", "h", 1, "i", "j"): Place(15),
    }  # fmt: skip
    assert {keys: document.place(keys) for keys in expected} == expected
    assert document.place(("d", "e", "nothing", 3)) == Place(6)
    assert document.place(("nothing",)) is None


# ---- problems ----


def fails(_value: object) -> int:
    raise WrongValueError("no\x1b")


def test_problems_are_gathered_in_the_order_of_the_file() -> None:
    document = Document("b = 1\na = 2\n[t]\nc = { x = 1 }\n", "f")
    document.table("t", "[t]").note("second", "c", "x")
    assert document.read("b", fails, 7) == 7
    document.note("whole")
    document.refuse_unknown(["b", "t", "aa"])
    with pytest.raises(FileErrors) as refused:
        document.problems.raise_if_any()
    assert refused.value.lines == (
        "f: whole",
        "f:1: b: no\\x1b",
        'f:2: unknown key "a"; did you mean "aa"?',
        "f:4:7: [t]: second",
    )
    assert str(refused.value) == "\n".join(refused.value.lines)


def test_thousands_of_errors_are_not_looked_for() -> None:
    document = Document("".join(f"key{n} = 1\n" for n in range(30_000)), "f")
    with pytest.raises(FileErrors) as refused:
        document.refuse_unknown(["x"])
    assert len(refused.value.lines) == tomlfile.MOST_ERRORS + 1
    assert refused.value.lines[-1] == "f: at least 180 more errors"


def test_words_of_messages() -> None:
    assert wording.quoted("a\x1b[2J\n\u202e" + "b" * 100) == '"a\\x1b[2J\\n\\u202e' + "b" * 50 + '..."'
    assert wording.printable("a\x1b\n\tb\r") == "a\x1b\n\tb\r".replace("\x1b", "\\x1b").replace("\r", "\\r")
    assert wording.suggestion("memroy", ["memory", "min"]) == '; did you mean "memory"?'
    assert wording.suggestion("zzz", ["memory", "min"]) == "; known are memory, min"
    assert wording.suggestion("zzz", map(str, range(100))) == ""


# ---- files that are none, or too much ----

MONSTERS = {
    "arrays": ("a=" + "[" * 100_000 + "]" * 100_000, "f:1: more than 32 tables, arrays or keys in each other"),
    "arrays without end": ("x = 1\na=" + "[" * 100_000, "f: not a TOML file: nested too deep"),
    "tables": ("a=" + "{a=" * 50_000 + "1" + "}" * 50_000, "f:1: more than 32"),
    "a dotted key": ("\n" + ".".join(["a"] * 200_000) + "=1", "f:2: more than 32"),
    "a dotted header": ("[" + ".".join(["a"] * 200_000) + "]", "f:1: more than 32"),
    "a dotted key without end": (".".join(["a"] * 200_000), "f:1: more than 32"),
    "a number": ("x = 1\na = 1" + "0" * 400, "f:2: a number of 401 digits"),
    "a number too long for Python": ("a = " + "7" * 500_000, "f:1: a number of 500000 digits"),
    "a hexadecimal number": ("a = 0x" + "f" * 500_000, "f:1: a number of 500002 digits"),
    "a long key": ("k" * 500_000 + " = 1 1", "f:1:500006: not a TOML file: Expected newline"),
    "a control character": ("a = '\x1b'", "f:1:6: not a TOML file: Found invalid character '\\x1b'"),
    "a missing end": ("\n\na = '''", "f:3: not a TOML file: Expected"),
    "a date": ("a = 2026-02-30", "f:1:5: not a TOML file: Invalid date or datetime"),
    "a key twice": ("a = 1\na = 2", "f:2: not a TOML file: Cannot overwrite a value"),
}


@pytest.mark.parametrize("name", MONSTERS)
def test_monsters_are_refused_with_their_line(name: str) -> None:
    text, message = MONSTERS[name]
    with pytest.raises(FileErrors) as refused:
        Document(text, "f")
    (line,) = refused.value.lines
    assert line.startswith(message)
    assert line.isprintable()
    assert len(line) < 200


def test_infinity_is_a_value_like_others() -> None:
    assert Document("a = 1e999", "f").values == {"a": float("inf")}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a = 1\n\xff", "f.toml:2: not a text in UTF-8: byte 0xff"),
        ("\ufeffa = 1".encode("utf-16"), "f.toml:1: not a text in UTF-8: byte 0xff"),
        (b"#" * ((1 << 18) + 1), "f.toml: cannot read the thing: larger than 256 KiB"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "f.toml").write_bytes(data)
    with pytest.raises(UsageError) as refused:
        read(tmp_path / "f.toml", "thing")
    assert str(refused.value) == f"{tmp_path}/{message}"


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\n", b"# nothing"])
def test_a_file_without_anything_is_an_empty_table(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "f.toml").write_bytes(data)
    assert read(tmp_path / "f.toml", "thing").values == {}


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    reasons = {
        tmp_path / "fifo": "not a regular file",
        tmp_path: "it is a folder",
        Path("/dev/zero"): "not a regular file",
        tmp_path / "none": "no such file or directory",
        tmp_path / "loop": "too many levels of symbolic links",
        tmp_path / "no\0name": "embedded null byte",
        tmp_path / ("n" * 300): "file name too long",
    }
    for path, reason in reasons.items():
        with pytest.raises(UsageError) as refused:
            read(path, "thing")
        assert str(refused.value) == f"{wording.one_line(str(path))}: cannot read the thing: {reason}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "f.toml").touch(mode=0)
    with pytest.raises(UsageError, match="cannot read the thing: permission denied"):
        read(tmp_path / "f.toml", "thing")
