# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that makes the engine abort ends emu with a line and a status."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

LOAD_ADDRESS = 0x10_0000
HEADER_BYTES = 32
FLAG_ADDRESSES = 1 << 16
MAGIC = 0x1BADB002
LOCK_BTS_EAX_ECX = bytes.fromhex("f00fabc8")  # LOCK before a bit test of a register: #UD on a processor


def kernel(code: bytes) -> bytes:
    """A multiboot image with address fields that starts at `code`."""
    addresses = (LOAD_ADDRESS, LOAD_ADDRESS, 0, 0, LOAD_ADDRESS + HEADER_BYTES)
    return struct.pack("<8I", MAGIC, FLAG_ADDRESSES, -(MAGIC + FLAG_ADDRESSES) % 2**32, *addresses) + code


def test_an_abort_of_the_engine_is_one_line(tmp_path: Path) -> None:
    image = tmp_path / "lock.bin"
    image.write_bytes(kernel(LOCK_BTS_EAX_ECX))
    command = [sys.executable, "-m", "emu", "boot", str(image)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (70, "")
    assert [line for line in done.stderr.splitlines() if line.startswith("emu: the engine gave up")]
    assert "Traceback" not in done.stderr
