"""The state of objects as plain data, for snapshots: every attribute, unless its class says that it is wiring.

A class whose objects are part of a snapshot names in WIRING the attributes that connect it with others (clocks, callbacks, open files): they are
what the object was made with, and stay. All others are state, so that one that is added later is saved without anybody thinking of it; an attribute of a kind
that cannot be saved is refused the first time.

Values are told apart by tags, so that a snapshot is readable as JSON; arrays go beside it. Objects keep their identity: `give` fills the object that
is there. Before `take` and after `give` an object may want a word: `saved_extra` gives more data (JSON), `give_extra` gets them back, when all else is in place.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from emu.errors import SnapshotError

PLAIN = (bool, int, float, str, type(None))
SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
VALUES: dict[str, type] = {}  # enumerations and frozen records that are saved as values, by name


def as_value(kind: Any) -> Any:
    """Decorator: objects of this enumeration or frozen dataclass are values."""
    VALUES[kind.__name__] = kind
    return kind


class Taker:
    """Makes plain data of objects; `arrays` gets the arrays, and data refer to their places in it."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []

    def take(self, thing: Any) -> dict[str, Any]:
        """The state of an object; raises SnapshotError for an attribute that is neither state nor wiring."""
        wiring: frozenset[str] = getattr(thing, "WIRING", frozenset())
        state = {
            name: self._value(value, f"{type(thing).__name__}.{name}")
            for name, value in vars(thing).items()
            if name not in wiring
        }
        extra = getattr(thing, "saved_extra", None)
        return {"state": state} if extra is None else {"state": state, "extra": extra(self)}

    def array(self, array: np.ndarray) -> int:
        """Keep an array; its number."""
        self.arrays.append(array)
        return len(self.arrays) - 1

    def _value(self, value: Any, where: str) -> Any:
        if type(value) in PLAIN:
            return value
        kind = type(value).__name__
        if VALUES.get(kind) is type(value):
            if isinstance(value, Enum):
                return {"as": kind, "value": value.name}
            return {"as": kind, "fields": {item.name: self._value(getattr(value, item.name), where) for item in fields(value)}}  # type: ignore[arg-type]
        if isinstance(value, (bytes, bytearray)):
            return {"as": kind, "hex": value.hex()}
        if kind in SEQUENCES:
            items = sorted(value) if isinstance(value, (set, frozenset)) else value
            return {"as": kind, "items": [self._value(item, where) for item in items]}
        if isinstance(value, deque):
            return {"as": "deque", "items": [self._value(item, where) for item in value], "most": value.maxlen}
        if type(value) in (dict, Counter):
            return {"as": kind, "pairs": [[self._value(key, where), self._value(item, where)] for key, item in value.items()]}
        if isinstance(value, np.ndarray):
            return {"as": "array", "number": self.array(value)}
        if isinstance(value, np.random.Generator):
            return {"as": "random", "state": value.bit_generator.state}
        if isinstance(value, MethodType):
            return {"as": "method", "name": value.__name__}
        if hasattr(value, "WIRING"):
            return {"as": "object", **self.take(value)}
        raise SnapshotError(f"{where}: a {kind} cannot be saved")


class Giver:
    """Puts such data back; `arrays` as the Taker had them."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.arrays = arrays

    def give(self, thing: Any, data: dict[str, Any]) -> None:
        """Fill an object; raises SnapshotError if the data are another class's."""
        wiring: frozenset[str] = getattr(thing, "WIRING", frozenset())
        present = {name for name in vars(thing) if name not in wiring}
        if present != set(data["state"]):
            names = ", ".join(sorted(present ^ set(data["state"])))
            raise SnapshotError(f"the snapshot does not fit a {type(thing).__name__}: {names}")
        for name, value in data["state"].items():
            setattr(thing, name, self._value(value, getattr(thing, name), thing))
        if "extra" in data:
            thing.give_extra(data["extra"], self)

    def _value(self, data: Any, now: Any, owner: Any) -> Any:
        if not isinstance(data, dict):
            if not _may_replace(data, now):
                raise SnapshotError(
                    f"the snapshot does not fit a {type(owner).__name__}: a {type(data).__name__} for a {type(now).__name__}"
                )
            return data
        kind = data["as"]
        if not _may_stand_for(kind, now):
            raise SnapshotError(f"the snapshot does not fit a {type(owner).__name__}: a {str(kind)[:40]} where there is none")
        if kind in VALUES:
            return self._record(data, owner)
        if kind in ("bytes", "bytearray"):
            raw = bytes.fromhex(data["hex"])
            return raw if kind == "bytes" else bytearray(raw)
        if kind in SEQUENCES:
            olds = list(now) if isinstance(now, (list, tuple)) else []
            items = [self._value(item, olds[at] if at < len(olds) else None, owner) for at, item in enumerate(data["items"])]
            return SEQUENCES[kind](items)
        if kind == "deque":
            return deque((self._value(item, None, owner) for item in data["items"]), data["most"])
        if kind in ("dict", "Counter"):
            pairs = {}
            for raw_key, item in data["pairs"]:
                key = self._value(raw_key, None, owner)
                pairs[key] = self._value(item, now.get(key) if isinstance(now, dict) else None, owner)
            return pairs if kind == "dict" else Counter(pairs)
        if kind == "array":
            return self._array(self.arrays[data["number"]], now, owner)
        if kind == "random":
            now.bit_generator.state = data["state"]
            return now
        if kind == "method":
            return _method(owner, data["name"])
        self.give(now, data)
        return now

    def _record(self, data: dict[str, Any], owner: Any) -> Any:
        kind = VALUES[data["as"]]
        if "value" in data:
            return kind[data["value"]]  # type: ignore[index]
        assert is_dataclass(kind)
        return kind(**{name: self._value(value, None, owner) for name, value in data["fields"].items()})

    def _array(self, saved: np.ndarray, now: Any, owner: Any) -> np.ndarray:
        """In place, where native code has the address; arrays that a class names in RESIZED are replaced."""
        if not isinstance(now, np.ndarray):
            return saved
        is_resized = any(now is getattr(owner, name) for name in getattr(owner, "RESIZED", ()))
        if is_resized and now.ndim == saved.ndim and now.dtype == saved.dtype:
            return saved
        if now.shape != saved.shape or now.dtype != saved.dtype:
            raise SnapshotError(
                f"the snapshot does not fit a {type(owner).__name__}: {saved.shape} of {saved.dtype} for {now.shape} of {now.dtype}"
            )
        now[...] = saved
        return now


FAMILIES: tuple[
    tuple[type | tuple[type, ...], tuple[str, ...]], ...
] = (  # what may stand where something else of its kind stands
    (np.ndarray, ("array",)),
    (np.random.Generator, ("random",)),
    (MethodType, ("method",)),
    ((bytes, bytearray), ("bytes", "bytearray")),
    ((list, tuple, set, frozenset, deque), (*SEQUENCES, "deque")),
    (dict, ("dict", "Counter")),
)
EVERYTHING = frozenset(kind for _, kinds in FAMILIES for kind in kinds)


def _may_stand_for(kind: Any, now: Any) -> bool:
    """Whether a tagged value may stand where `now` stands; where nothing stands, anything that needs nothing there."""
    if hasattr(now, "WIRING") or kind == "object":
        return hasattr(now, "WIRING") and kind == "object"
    for types, kinds in FAMILIES:
        if isinstance(now, types):
            return kind in kinds
    if isinstance(now, PLAIN) and now is not None and not isinstance(now, Enum):
        return False
    return kind in VALUES or (kind in EVERYTHING and kind != "random")


def _may_replace(data: Any, now: Any) -> bool:
    """Whether a plain value may stand where `now` stands: a number for a number, a text for a text, nothing for what need not be there."""
    if hasattr(now, "WIRING") or isinstance(now, np.ndarray):
        return False
    if now is None or isinstance(now, (Enum, tuple)) or is_dataclass(now):
        return data is None or type(data) in PLAIN
    if isinstance(now, (bool, int, float)):
        return data is None or isinstance(data, (bool, int, float))
    if isinstance(now, str):
        return data is None or isinstance(data, str)
    return data is None


def _method(owner: Any, name: Any) -> Any:
    """A method of an object's own class."""
    found = getattr(owner, name) if isinstance(getattr(type(owner), name, None), FunctionType) else None
    if not isinstance(found, MethodType):
        raise SnapshotError(f"the snapshot does not fit a {type(owner).__name__}: no method where one is named")
    return found
