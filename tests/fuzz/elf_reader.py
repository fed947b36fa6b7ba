# SPDX-License-Identifier: GPL-2.0-or-later
"""Multiboot kernels, as ELF files and with load addresses (`emu.vm.loader`)."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from emu.units import MIB
from emu.vm import loader
from emu.vm.loader import ELF_HEADER, PROGRAM_HEADER

MEMORY = 8 * MIB
LOAD = MIB
CODE = b"\xfa\xf4\xeb\xfd" * 16
PROGRAM_HEADERS = 3
EDGES = (
    0,
    1,
    2,
    3,
    31,
    32,
    33,
    64,
    0x500,
    0x7FFF,
    0xFFFF,
    LOAD - 1,
    LOAD,
    LOAD + 8,
    MEMORY - 1,
    MEMORY,
    1 << 31,
    (1 << 32) - 1,
    (1 << 32) - LOAD,
)
TOKENS = (b"\x7fELF", struct.pack("<I", loader.HEADER_MAGIC), struct.pack("<I", loader.FLAG_ADDRESSES))


def header(flags: int = 3, *addresses: int) -> bytes:
    """A multiboot header with a right checksum."""
    words = (loader.HEADER_MAGIC, flags, -(loader.HEADER_MAGIC + flags) & 0xFFFF_FFFF, *addresses)
    return struct.pack(f"<{len(words)}I", *words)


def elf(fields: list[int], programs: list[list[int]]) -> bytes:
    """An ELF file of header fields behind the identity and the fields of its program headers; its data are a header and code."""
    identity = b"\x7fELF\1\1\1".ljust(16, b"\0")
    table = b"".join(PROGRAM_HEADER.pack(*program) for program in programs)
    return ELF_HEADER.pack(identity, *fields) + table + header() + CODE + bytes(64)


def plain() -> tuple[list[int], list[list[int]]]:
    """The fields of a valid file: code, zeros, a note."""
    at = ELF_HEADER.size + PROGRAM_HEADERS * PROGRAM_HEADER.size
    size = len(header() + CODE)
    programs = [[1, at, LOAD, LOAD, size, size, 5, 4], [1, 0, 2 * LOAD, 2 * LOAD, 0, 4096, 6, 4096], [4, at, 0, 0, 16, 16, 4, 4]]
    return [2, 3, 1, LOAD + 12, ELF_HEADER.size, 0, 0, ELF_HEADER.size, PROGRAM_HEADER.size, len(programs), 40, 0, 0], programs


def flat(*addresses: int) -> bytes:
    """An image that says in its header where it goes."""
    return header(loader.FLAG_ADDRESSES, *addresses) + CODE


def seeds() -> list[bytes]:
    """One of each form."""
    return [
        elf(*plain()),
        flat(LOAD, LOAD, 0, 0, LOAD + 32),
        bytes(64) + flat(LOAD + 64, LOAD, LOAD + 128, LOAD + 4096, LOAD + 96),
    ]


def make(rng: random.Random) -> bytes:
    """A valid file with a few fields at values of interest."""
    if rng.randrange(4) == 0:
        addresses = [rng.choice((LOAD, LOAD, value(rng))) for _ in range(5)]
        return bytes(4 * rng.randrange(3)) + flat(*addresses)
    fields, programs = plain()
    programs *= rng.choice((1, 1, 1, 2, 30))
    fields[9] = len(programs)
    for _ in range(rng.randrange(1, 5)):
        if rng.randrange(3):
            rng.choice(programs)[rng.randrange(8)] = value(rng)
        else:
            number = rng.randrange(len(fields))
            fields[number] = value(rng) & (0xFFFF_FFFF if 2 <= number <= 6 else 0xFFFF)
    image = elf(fields, programs)
    return image[: rng.randrange(len(image))] if rng.randrange(8) == 0 else image


def value(rng: random.Random) -> int:
    """A word: an edge, one beside it, or anything."""
    return (
        rng.choice(EDGES) + rng.choice((0, 0, 0, 1, -1, 4096, -4096)) if rng.randrange(4) else rng.getrandbits(32)
    ) & 0xFFFF_FFFF


def try_one(data: bytes, folder: Path) -> None:
    """Load it, with itself as a module, and see that what is loaded lies where it may, each piece by itself."""
    path = folder / "kernel"
    path.write_bytes(data)
    files = loader.load(path, MEMORY, "argument", (path,))
    spans = list(struct.iter_unpack("<II", files["opt/emu/segments"]))
    spans += [(address, size) for address, size, _ in struct.iter_unpack("<II56s", files["opt/emu/modules"])]
    spans.append((*struct.unpack("<I", files["opt/emu/tables"]), loader.TABLES_BYTES))
    in_order = sorted((address, address + size) for address, size in spans if size)
    assert all(end <= first for (_, end), (first, _) in zip(in_order, in_order[1:], strict=False))
    assert all(loader.LOW_START <= first and end <= loader.LOW_END or MIB <= first and end <= MEMORY for first, end in in_order)
    assert sum(size for _, size in spans[:-2]) == len(files["opt/emu/image"]) <= MEMORY
