# SPDX-License-Identifier: GPL-2.0-or-later
"""Kinds of values in TOML files: each is a function from what stands there to what it means, or it raises WrongValueError."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from emu.config import DURATIONS, parse_duration, parse_size
from emu.errors import UsageError
from emu.tomlfile import WrongValueError
from emu.units import GIB, KIB, MIB
from emu.wording import quoted, suggestion

MOST_TEXT = 64 * KIB  # characters


def shown(value: Any) -> str:
    """A value in a message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list) else "a time"


def text(value: Any) -> str:
    """Any string."""
    if not isinstance(value, str):
        raise WrongValueError(f"expected a string, not {shown(value)}")
    return value


def line(value: Any) -> str:
    """A string of one line that can be shown."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > MOST_TEXT:
        raise WrongValueError(f"expected a text of one line, not {shown(value)}")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """A string, or a list of them."""
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not isinstance(item, str):
            raise WrongValueError(f"expected a string or a list of strings, not {shown(item)}")
    return tuple(values)


def switch(value: Any) -> bool:
    """`true` or `false`."""
    if not isinstance(value, bool):
        raise WrongValueError(f"expected true or false, not {shown(value)}")
    return value


def number(least: int, most: int) -> Callable[[Any], int]:
    """A whole number within bounds."""

    def read(value: Any) -> int:
        if type(value) is not int:
            raise WrongValueError(f"expected a whole number, not {shown(value)}")
        if not least <= value <= most:
            raise WrongValueError(f"expected a number from {least} to {most}, not {shown(value)}")
        return value

    return read


def one_of(words: Collection[str]) -> Callable[[Any], str]:
    """One of some words."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            near = suggestion(value, words) if isinstance(value, str) else ""
            hint = near if "did you mean" in near else ""
            raise WrongValueError(f"expected one of {', '.join(words)}, not {shown(value)}{hint}")
        return value

    return read


def size(least: int, most: int, *, unit: int = 1, what: str = "size") -> Callable[[Any], int]:
    """Bytes of a text such as `32M`, in whole units, within bounds."""

    def read(value: Any) -> int:
        if not isinstance(value, str):
            raise WrongValueError(f'expected a size such as "32M", not {shown(value)}')
        found = _parsed(parse_size, value, what)
        if not least <= found <= most:
            raise WrongValueError(f"expected from {size_text(least)} to {size_text(most)}, not {shown(value)}")
        if found % unit:
            raise WrongValueError(f"expected a multiple of {size_text(unit)}, not {shown(value)}")
        return found

    return read


def duration(least_us: int, most_us: int, *, or_zero: bool = False) -> Callable[[Any], int]:
    """Microseconds of a text such as `500ms`, within bounds; with `or_zero` nothing at all may stand for never."""

    def read(value: Any) -> int:
        if not isinstance(value, str):
            raise WrongValueError(f'expected a time such as "20s" or "500ms", not {shown(value)}')
        found = _parsed(parse_duration, value, "time")
        if not least_us <= found <= most_us and not (or_zero and not found):
            bounds = f"from {duration_text(least_us)} to {duration_text(most_us)}" + (" or 0s" if or_zero else "")
            raise WrongValueError(f"expected {bounds}, not {shown(value)}")
        return found

    return read


def _parsed(parse: Callable[..., int], value: str, what: str) -> int:
    try:
        return parse(value, what=what)
    except UsageError as error:
        raise WrongValueError(str(error)) from error


def size_text(size_bytes: int) -> str:
    """Bytes with the largest suffix that fits."""
    units = ((GIB, "G"), (MIB, "M"), (KIB, "K"))
    unit, suffix = next(((unit, suffix) for unit, suffix in units if size_bytes and not size_bytes % unit), (1, ""))
    return f"{size_bytes // unit}{suffix}"


def duration_text(microseconds: int) -> str:
    """A time with the largest suffix that fits."""
    units = ((unit, suffix) for suffix, unit in reversed(DURATIONS.items()))
    unit, suffix = next((unit, suffix) for unit, suffix in units if not microseconds % unit)
    return f"{microseconds // unit}{suffix}"
