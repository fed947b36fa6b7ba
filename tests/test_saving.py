# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of objects as data: all attributes but the wiring, in place, and nothing that is not understood."""

from __future__ import annotations

import json
from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import numpy as np
import pytest

from emu.errors import SnapshotError
from emu.saving import Giver, Taker, as_value


@as_value
class Colour(Enum):
    RED = 1
    BLUE = 2


@as_value
@dataclass(frozen=True)
class Point:
    x: int
    y: tuple[int, ...]


class Part:
    WIRING: ClassVar = frozenset({"whole"})

    def __init__(self, whole: object, number: int) -> None:
        self.whole, self.number = whole, number


class Whole:
    WIRING: ClassVar = frozenset({"callback"})
    RESIZED: ClassVar = ("list_of",)

    def __init__(self) -> None:
        self.callback = lambda: None
        self.parts = [Part(self, 1), Part(self, 2)]
        self.named = {(1, "a"): Part(self, 3)}
        self.number, self.real, self.text, self.nothing, self.big = 1, 0.5, "x", None, 1 << 200
        self.bytes, self.buffer = b"ab", bytearray(b"cd")
        self.queue: deque[int] = deque([1, 2], maxlen=3)
        self.counts = Counter(a=2)
        self.colours = [Colour.RED]
        self.point = Point(1, (2, 3))
        self.array = np.arange(4)
        self.list_of = np.arange(2)
        self.random = np.random.default_rng(1)
        self.then = self.first

    def first(self) -> str:
        return "first"

    def second(self) -> str:
        return "second"


def through_json(taker: Taker, data: dict[str, Any]) -> tuple[dict[str, Any], Giver]:
    return json.loads(json.dumps(data)), Giver([array.copy() for array in taker.arrays])


def test_there_and_back() -> None:
    one, other, taker = Whole(), Whole(), Taker()
    one.parts[1].number, one.named[1, "a"].number = 22, 33
    one.number, one.text, one.big, one.nothing = 7, "y", 1 << 100, 5  # type: ignore[assignment]
    one.buffer += b"e"
    one.queue.append(9)
    one.counts["b"] += 1
    one.colours, one.point = [Colour.BLUE, Colour.RED], Point(4, ())
    one.array[:], one.list_of = 7, np.arange(9)
    one.random.integers(10)
    one.then = one.second
    kept, part = other.array, other.parts[1]
    data, giver = through_json(taker, taker.take(one))
    giver.give(other, data)
    assert (other.parts[1] is part, part.number, part.whole is other) == (True, 22, True)
    assert other.named[1, "a"].number == 33
    assert (other.number, other.text, other.big, other.nothing) == (7, "y", 1 << 100, 5)
    assert (other.buffer, other.queue, other.queue.maxlen) == (bytearray(b"cde"), deque([1, 2, 9]), 3)
    assert (other.counts, other.colours, other.point) == (Counter(a=2, b=1), [Colour.BLUE, Colour.RED], Point(4, ()))
    assert other.array is kept
    assert kept.tolist() == [7] * 4
    assert other.list_of.tolist() == list(range(9))
    assert other.random.integers(1000) == one.random.integers(1000)
    assert (other.then(), other.then.__self__ is other) == ("second", True)


@pytest.mark.parametrize("strange", [lambda: None, range(3), np.int64(3), object()])
def test_what_is_neither_state_nor_wiring_is_refused(strange: object) -> None:
    one = Whole()
    one.number = strange  # type: ignore[assignment]
    with pytest.raises(SnapshotError, match=r"Whole\.number: a \w+ cannot be saved"):
        Taker().take(one)


def test_what_does_not_fit() -> None:
    one, other, taker = Whole(), Whole(), Taker()
    data, giver = through_json(taker, taker.take(one))
    other.more = 1  # type: ignore[attr-defined]
    with pytest.raises(SnapshotError, match="the snapshot does not fit a Whole: more"):
        giver.give(other, data)
    other = Whole()
    other.array = np.arange(5)
    with pytest.raises(SnapshotError, match="does not fit a Whole"):
        giver.give(other, data)
    other = Whole()
    other.parts.pop()
    with pytest.raises(SnapshotError, match="a object where there is none"):
        giver.give(other, data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("number", "text"),
        ("number", {"as": "list", "items": []}),
        ("number", {"as": "array", "number": 0}),
        ("text", 3),
        ("bytes", {"as": "list", "items": []}),
        ("parts", {"as": "method", "name": "first"}),
        ("parts", {"as": "dict", "pairs": []}),
        ("named", {"as": "list", "items": []}),
        ("array", None),
        ("array", {"as": "bytes", "hex": ""}),
        ("list_of", {"as": "array", "number": 2}),  # of another type
        ("random", 3),
        ("random", {"as": "method", "name": "first"}),
        ("then", {"as": "method", "name": "__class__"}),
        ("then", {"as": "method", "name": "callback"}),
        ("then", {"as": "object", "state": {}}),
        ("nothing", {"as": "random", "state": {}}),
        ("nothing", {"as": "object", "state": {}}),
        ("nothing", {"as": "Exception", "fields": {}}),
        ("queue", 3),
    ],
)
def test_what_is_of_another_kind_is_refused(name: str, data: object) -> None:
    """Each thing in its place: nothing of a made-up file is called, or taken for a number that it is not."""
    one, other, taker = Whole(), Whole(), Taker()
    whole = taker.take(one)
    taker.arrays.append(np.arange(4.0))
    whole["state"][name] = data
    with pytest.raises(SnapshotError, match="the snapshot does not fit a Whole"):
        Giver(taker.arrays).give(other, whole)


def test_a_part_is_no_part_of_another_kind() -> None:
    one, other, taker = Whole(), Whole(), Taker()
    data = taker.take(one)
    data["state"]["parts"]["items"][0] = {"as": "list", "items": []}
    with pytest.raises(SnapshotError, match="the snapshot does not fit a Whole: a list where there is none"):
        Giver(taker.arrays).give(other, data)
