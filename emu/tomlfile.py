# SPDX-License-Identifier: GPL-2.0-or-later
"""TOML files that users write: read with limits, each value with its place, all errors of a file at once.

`tomllib` reads the values; tree-sitter, which knows where each piece of a text stands, gives the places and says beforehand
how deep a text is nested, since that is what `tomllib` cannot bear. `emu.tomlvalues` has the kinds of values.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from emu.errors import FileErrors, UsageError
from emu.regular import read_regular, reason_of
from emu.units import KIB
from emu.wording import one_line, quoted, suggestion

if TYPE_CHECKING:
    from tree_sitter import Node, Tree

MOST_BYTES = 256 * KIB  # some thousand tables
MOST_NESTED = 32  # arrays and tables in each other, or parts of a dotted key
MOST_DIGITS = 100  # of a number, far beyond what any key takes
MOST_ERRORS = 20  # that are shown of a file
MOST_LOOKED_FOR = 200  # then reading ends
NESTING = ("array", "inline_table", "dotted_key")
SYNTAX = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)

T = TypeVar("T")
Keys = tuple[str | int, ...]  # a value's place in the file: keys of tables, numbers in arrays
Reader = Callable[[Any], Any]


class WrongValueError(Exception):
    """A value is not what its key takes. The message says what was expected; `keys` lead to what is wrong within the value."""

    def __init__(self, message: str, *keys: str | int) -> None:
        super().__init__(message)
        self.keys = keys


@dataclass(frozen=True, order=True)
class Place:
    """Where a value's key stands."""

    line: int
    column: int = 0  # in characters, from 1; 0: it is the first in its line


@dataclass
class Problems:
    """What is wrong with one file, in the order of its lines."""

    name: str  # of the file, as messages begin
    _found: dict[tuple[Place, str], None] = field(default_factory=dict)

    def note(self, place: Place | None, message: str) -> None:
        """One more; without a place it is about the whole file. Raises FileErrors when they are too many to go on."""
        self._found[place or Place(0), message] = None
        if len(self._found) >= MOST_LOOKED_FOR:
            self.raise_if_any()

    def raise_if_any(self) -> None:
        """Raise FileErrors if there were problems."""
        if not self._found:
            return
        lines = [self._line(*found) for found in sorted(self._found, key=lambda found: found[0])]
        if len(lines) > MOST_ERRORS:
            at_least = "at least " if len(lines) >= MOST_LOOKED_FOR else ""
            lines[MOST_ERRORS:] = [f"{self.name}: {at_least}{len(lines) - MOST_ERRORS} more errors"]
        raise FileErrors(lines)

    def _line(self, place: Place, message: str) -> str:
        where = f":{place.line}" if place.line else ""
        where += f":{place.column}" if place.column else ""
        return f"{self.name}{where}: {message}"


class Table:
    """A table of a file. What is wrong with its values is noted, and reading goes on."""

    def __init__(self, document: Document, keys: Keys, values: Mapping[str, Any], title: str) -> None:
        self._document = document
        self.keys = keys  # where it stands
        self.values = values
        self.title = title  # as in `[[vm]] "web"`; empty for the file's own

    @property
    def number(self) -> int:
        """The number of a table in its array of tables."""
        last = self.keys[-1]
        assert isinstance(last, int)
        return last

    def note(self, message: str, *keys: str | int) -> None:
        """A problem with the value at `keys` below the table, or with the table itself."""
        begin = f"{self.title}: " if self.title else ""
        self._document.problems.note(self._document.place(self.keys + keys), begin + message)

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Note each key that is not known."""
        for key in self.values:
            if key not in known:
                self.note(f"unknown key {quoted(key)}{suggestion(key, known)}", key)

    def read(self, key: str, reader: Callable[[Any], T], default: T | None = None) -> T | None:
        """The value of a key, or `default` if there is none or it is wrong, which is noted."""
        if key not in self.values:
            return default
        try:
            return reader(self.values[key])
        except (WrongValueError, UsageError) as error:
            below = error.keys if isinstance(error, WrongValueError) else ()
            self.note(f"{one_line(key)}: {one_line(str(error))}", key, *below)
            return default

    def fields(self, known: Mapping[str, tuple[str, Reader]], others: Collection[str] = ()) -> dict[str, Any]:
        """Fields by name, of the keys that are there and right; notes the wrong ones and those that are not known."""
        self.refuse_unknown((*known, *others))
        read = {name: self.read(key, reader) for key, (name, reader) in known.items() if key in self.values}
        return {name: value for name, value in read.items() if value is not None}

    def table(self, key: str, title: str) -> Table:
        """A table below this one, empty if it is not there."""
        values = self.values.get(key, {})
        if not isinstance(values, dict):
            self.note(f"{one_line(key)}: expected a table", key)
            values = {}
        return Table(self._document, (*self.keys, key), values, title)

    def tables(self, key: str, title: str) -> list[Table]:
        """An array of tables, each titled with its name or its number."""
        values = self.values.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            self.note(f"{one_line(key)}: expected [[{key}]] tables", key)
            return []
        return [
            Table(self._document, (*self.keys, key, number), value, f"{title} {_name(value, number)}")
            for number, value in enumerate(values)
        ]


def _name(value: Mapping[str, Any], number: int) -> str:
    name = value.get("name")
    return quoted(name) if isinstance(name, str) and name.strip() else str(number + 1)


class Document(Table):
    """A file: its own table, and what is wrong with any."""

    def __init__(self, text: str, name: str) -> None:
        """Parse; raises FileErrors with the first error of the syntax."""
        self.text = text
        self.problems = Problems(name)
        self._places: dict[Keys, Place] | None = None
        _refuse_monsters(text, self.problems)
        super().__init__(self, (), _values(text, self.problems), "")

    def place(self, keys: Keys) -> Place | None:
        """Where the value at `keys`, or the nearest table around it, stands."""
        if self._places is None:
            self._places = _Finder(self.text).places
        while keys and keys not in self._places:
            keys = keys[:-1]
        return self._places.get(keys)


# ---- reading ----


def read(path: Path, what: str) -> Document:
    """The document in a user's file; raises UsageError where it cannot be read, FileErrors where it is no TOML."""
    name = one_line(str(path))
    try:
        data = read_regular(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: cannot read the {what}: {reason_of(error)}") from error
    try:
        text = data.decode("utf-8-sig")  # editors of some systems put a mark at the beginning
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileErrors([f"{name}:{line}: not a text in UTF-8: byte {data[error.start]:#04x}"]) from error
    return Document(text, name)


def _values(text: str, problems: Problems) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = SYNTAX.fullmatch(str(error))
        last = text.count("\n") + (not text.endswith("\n"))
        place = Place(int(found[2]), int(found[3])) if found and found[2] else Place(max(1, last))
        problems.note(place, f"not a TOML file: {one_line(found[1] if found else str(error))}")
    except RecursionError:  # in a text that is not TOML anyway: the depth of one that is was looked at before
        problems.note(None, "not a TOML file: nested too deep")
    except ValueError as error:
        problems.note(None, f"not a TOML file: {one_line(str(error))}")
    problems.raise_if_any()
    raise AssertionError


# ---- places ----


def _parse(text: str) -> Tree:
    from tree_sitter import Language, Parser
    from tree_sitter_toml import language

    return Parser(Language(language())).parse(text.encode("utf-8", "surrogatepass"))


def _refuse_monsters(text: str, problems: Problems) -> None:
    """What would take `tomllib` very long, or to the end of its stack, is refused before it sees it; raises FileErrors."""
    for node, nested in _nodes(_parse(text)):
        if nested > MOST_NESTED:
            problems.note(Place(node.start_point.row + 1), f"more than {MOST_NESTED} tables, arrays or keys in each other")
            break
        if node.type in ("integer", "float") and node.end_byte - node.start_byte > MOST_DIGITS:
            problems.note(Place(node.start_point.row + 1), f"a number of {node.end_byte - node.start_byte} digits")
    problems.raise_if_any()


def _nodes(tree: Tree) -> Iterator[tuple[Node, int]]:
    """All nodes of a tree, each with the number of nesting ones around it and itself; no recursion."""
    cursor = tree.walk()
    nested = [0]
    while True:
        node = cursor.node
        assert node is not None
        depth = nested[-1] + (node.type in NESTING)
        yield node, depth
        if cursor.goto_first_child():
            nested.append(depth)
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return
            nested.pop()


class _Finder:
    """The places of all keys of a text that `tomllib` can read."""

    def __init__(self, text: str) -> None:
        self.places: dict[Keys, Place] = {}
        self._lengths: dict[Keys, int] = {}  # of the arrays of [[tables]]
        self._lines = text.encode("utf-8", "surrogatepass").split(b"\n")
        for node in _parse(text).root_node.named_children:
            if node.type == "pair":
                self._pair(node, ())
            elif node.type in ("table", "table_array_element"):
                self._table(node)

    def _table(self, node: Node) -> None:
        header, *rest = node.named_children
        parts = _parts(header)
        above: Keys = ()
        for part in parts[:-1]:
            above += (part,)
            if above in self._lengths:
                above += (self._lengths[above] - 1,)
            self.places.setdefault(above, self._place(node))
        keys: Keys = (*above, parts[-1])
        self.places.setdefault(keys, self._place(node))
        if node.type == "table_array_element":
            number = self._lengths[keys] = self._lengths.get(keys, 0) + 1
            keys = (*keys, number - 1)
        self.places[keys] = self._place(node)
        for pair in rest:
            if pair.type == "pair":
                self._pair(pair, keys)

    def _pair(self, node: Node, above: Keys) -> None:
        key, value = node.named_children[0], node.named_children[-1]
        for part in _parts(key):
            above += (part,)
            self.places.setdefault(above, self._place(node))
        self._value(value, above)

    def _value(self, node: Node, keys: Keys) -> None:
        if node.type == "inline_table":
            for pair in node.named_children:
                if pair.type == "pair":
                    self._pair(pair, keys)
        elif node.type == "array":
            for number, item in enumerate(item for item in node.named_children if item.type != "comment"):
                self.places[*keys, number] = self._place(item)
                self._value(item, (*keys, number))

    def _place(self, node: Node) -> Place:
        row, column = node.start_point
        before = self._lines[row][:column].decode("utf-8", "replace")
        return Place(row + 1, len(before) + 1 if before.strip() else 0)


def _parts(key: Node) -> list[str]:
    """The parts of a key, as `tomllib` reads them."""
    if key.type == "dotted_key":
        return [part for child in key.named_children for part in _parts(child)]
    text = (key.text or b"").decode("utf-8", "surrogatepass")
    return [text] if key.type == "bare_key" else list(tomllib.loads(f"{text} = 0"))
