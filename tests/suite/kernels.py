# SPDX-License-Identifier: GPL-2.0-or-later
"""Multiboot kernels of a few bytes, and suites around them."""

from __future__ import annotations

import struct
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ABORTING = f"{Path(__file__).resolve().parent / 'aborting'}:{ROOT}"  # PYTHONPATH
LOAD_ADDRESS = 0x10_0000
HEADER_BYTES = 32
BOOT_ADDRESS = 0x7C00  # of a boot sector
FLAG_ADDRESSES = 1 << 16
MAGIC = 0x1BADB002
START = LOAD_ADDRESS + HEADER_BYTES

ABORTS = bytes.fromhex("b0ee e680 ebfe")  # EEh to port 80h: the process aborts, with ABORTING on its path
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


def says(text: str, then: bytes, at: int = START) -> bytes:
    """Code for address `at` that sends `text` over COM1 and goes on with `then`."""
    loop = bytes.fromhex("66baf803 ac 84c0 7403 ee ebf8")
    return bytes([0xBE]) + struct.pack("<I", at + 5 + len(loop) + len(then)) + loop + then + text.encode() + b"\0"


def report(text: str, value: int = 0) -> bytes:
    """A kernel that reports and ends."""
    return kernel(says(text, exits(value)))


def reports_by_host(in_emu: str, in_qemu: str, qemu_exit: int = 1) -> bytes:
    """A kernel that reports one text in emu and another in QEMU, which it knows by leaf 4000_0000h of CPUID."""
    asks = bytes.fromhex("b800000040 0fa2 81fb54434754 0f85")
    there = says(in_qemu, exits(qemu_exit), START + len(asks) + 4)
    here = says(in_emu, exits(0), START + len(asks) + 4 + len(there))
    return kernel(asks + struct.pack("<i", len(there)) + there + here)


def boot_sector(text: str, value: int = 0) -> bytes:
    """A disk of one sector whose code sends `text` over COM1 and ends through port F4."""
    then = exits(value)
    loop = bytes.fromhex("31c0 8ed8 ba f803 ac 84c0 7403 ee ebf8")  # DS = 0; at 16 bits the same loop as in `says`
    code = bytes([0xBE]) + struct.pack("<H", BOOT_ADDRESS + 3 + len(loop) + len(then)) + loop + then + text.encode()
    return code.ljust(510, b"\0") + b"\x55\xaa"


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
