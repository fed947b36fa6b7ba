# SPDX-License-Identifier: GPL-2.0-or-later
"""Multiboot kernels of a few bytes, and suites around them."""

from __future__ import annotations

import struct
from pathlib import Path

LOAD_ADDRESS = 0x10_0000
HEADER_BYTES = 32
FLAG_ADDRESSES = 1 << 16
MAGIC = 0x1BADB002
START = LOAD_ADDRESS + HEADER_BYTES

LOCK_BTS = bytes.fromhex("f00fabc8")  # LOCK before a bit test of a register: the engine aborts
TRIPLE_FAULT = bytes.fromhex("0f011d00000000 cc")  # LIDT of what is zero at address 0, INT3
HALT = bytes.fromhex("fa f4")  # CLI, HLT
LOOP = bytes.fromhex("ebfe")
RESET = bytes.fromhex("b0fe e664 ebfe")  # the keyboard controller pulls the reset line


def kernel(code: bytes) -> bytes:
    """A multiboot image with address fields that starts at `code`."""
    addresses = (LOAD_ADDRESS, LOAD_ADDRESS, 0, 0, START)
    return struct.pack("<8I", MAGIC, FLAG_ADDRESSES, -(MAGIC + FLAG_ADDRESSES) % 2**32, *addresses) + code


def exits(value: int) -> bytes:
    """MOV AL, value; OUT 0F4h, AL; HLT."""
    return bytes([0xB0, value, 0xE6, 0xF4, 0xF4])


def says(text: str, then: bytes) -> bytes:
    """Code that sends `text` over COM1 and goes on with `then`."""
    loop = bytes.fromhex("66baf803 ac 84c0 7403 ee ebf8")
    return bytes([0xBE]) + struct.pack("<I", START + 5 + len(loop) + len(then)) + loop + then + text.encode() + b"\0"


def report(text: str, value: int = 0) -> bytes:
    """A kernel that reports and ends."""
    return kernel(says(text, exits(value)))


def suite(folder: Path, text: str, **kernels: bytes) -> Path:
    """A suite in `folder`: kernels NAME.bin and this suite.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in kernels.items():
        (folder / f"{name}.bin").write_bytes(image)
    path = folder / "suite.toml"
    path.write_text(text)
    return path


def case(name: str, rest: str = "", image: str = "k.bin") -> str:
    """The text of one case."""
    return f'[[case]]\nname = "{name}"\nimage = "{image}"\n{rest}\n'
