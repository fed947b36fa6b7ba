# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of bytes that readers of files are known to trip over: cut, repeated, moved, overwritten with edges of numbers, mixed with others."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

MOST_BYTES = 1 << 20  # of an input; a longer one is cut
EDGES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)
FORMATS = "<B >H <H >I <I >Q <Q".split()

Change = Callable[[random.Random, bytearray, Sequence[bytes], Sequence[bytes]], None]


def mutate(rng: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes] = ()) -> bytes:
    """One of `seeds`, changed once or several times. `tokens` are words of the format, which are put in now and then."""
    data = bytearray(rng.choice(seeds))
    for _ in range(1 << rng.randrange(5)):
        rng.choice(CHANGES)(rng, data, seeds, tokens)
        del data[MOST_BYTES:]
    return bytes(data)


def _span(rng: random.Random, data: Sequence[int] | bytes) -> tuple[int, int]:
    """A piece, short ones more often."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.randrange(1 << rng.randrange(1, 13)))


def _flip(rng: random.Random, data: bytearray, _seeds: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_byte(rng: random.Random, data: bytearray, _seeds: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)


def _set_number(rng: random.Random, data: bytearray, _seeds: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    """A number at the edge of a width, at an even place as fields are."""
    form = rng.choice(FORMATS)
    size = struct.calcsize(form)
    if len(data) >= size:
        at = rng.randrange(len(data) - size + 1) // min(size, 4) * min(size, 4)
        value = (rng.choice(EDGES) + rng.randint(-1, 1)) % (1 << 8 * size)
        data[at : at + size] = struct.pack(form, value)


def _add(rng: random.Random, data: bytearray, _seeds: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    """A number somewhat larger or smaller."""
    form = rng.choice(FORMATS)
    size = struct.calcsize(form)
    if len(data) >= size:
        at = rng.randrange(len(data) - size + 1)
        (value,) = struct.unpack_from(form, data, at)
        data[at : at + size] = struct.pack(form, (value + rng.randint(-40, 40)) % (1 << 8 * size))


def _cut(rng: random.Random, data: bytearray, _seeds: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    start, end = _span(rng, data)
    del data[start:end]


def _truncate(rng: random.Random, data: bytearray, _seeds: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    if not rng.randrange(4):
        del data[rng.randrange(len(data) + 1) :]


def _repeat(rng: random.Random, data: bytearray, _seeds: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    start, end = _span(rng, data)
    times = 1 << rng.randrange(9) if rng.randrange(8) == 0 else rng.randrange(1, 4)
    data[end:end] = (data[start:end] * times)[:MOST_BYTES]


def _move(rng: random.Random, data: bytearray, _seeds: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    start, end = _span(rng, data)
    piece = data[start:end]
    del data[start:end]
    at = rng.randrange(len(data) + 1)
    data[at:at] = piece


def _mix(rng: random.Random, data: bytearray, seeds: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    """A piece of another seed, put in or over."""
    other = rng.choice(seeds)
    start, end = _span(rng, other)
    at, _ = _span(rng, data)
    until = at if rng.randrange(2) else min(len(data), at + end - start)
    data[at:until] = other[start:end]


def _insert_token(rng: random.Random, data: bytearray, _seeds: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    at, end = _span(rng, data)
    piece = rng.choice(tokens) if tokens else rng.randbytes(rng.randrange(1, 9))
    data[at : end if rng.randrange(2) else at] = piece


CHANGES: tuple[Change, ...] = (
    _flip,
    _set_byte,
    _set_number,
    _set_number,
    _add,
    _cut,
    _truncate,
    _repeat,
    _move,
    _mix,
    _insert_token,
)
