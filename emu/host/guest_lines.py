"""What guests say of their own throughput: lines such as `filebench second=3 bytes=65536 reads=4`, one a second of the guest's time.

Any guest may print such lines; each is a program's name, its second, and numbers with names. What does not look like that is no such line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LINE = re.compile(rb"(\w{1,32}) second=(\d{1,9})((?: \w{1,32}=-?\d{1,18}){1,32})\s*", re.ASCII)  # the numbers fit 64 bits
LONGEST = 4096  # bytes: what has no line's end by then is taken as a line


@dataclass(frozen=True)
class Number:
    """One number of such a line."""

    program: str
    second: int
    name: str
    value: int


def numbers_in(line: bytes) -> list[Number]:
    """The numbers of a line; none if it is of another form."""
    found = LINE.fullmatch(line)
    if found is None:
        return []
    program, second = found[1].decode(), int(found[2])
    pairs = (item.split("=") for item in found[3].decode().split())
    return [Number(program, second, name, int(value)) for name, value in pairs]


def complete_lines(data: bytes, *, is_end: bool) -> tuple[list[bytes], int]:
    """Lines without their ends, and how many bytes they took; what is no whole line yet stays, unless it is too long, or nothing will follow."""
    size = data.rfind(b"\n") + 1
    if is_end or len(data) - size > LONGEST:
        size = len(data)
    lines = data[:size].split(b"\n")
    return [line.rstrip(b"\r") for line in (lines if lines[-1] else lines[:-1])], size
