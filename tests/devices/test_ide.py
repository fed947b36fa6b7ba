# SPDX-License-Identifier: GPL-2.0-or-later
"""IDE channels without drives, which read as zeros: emu's beside QEMU's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.devices.helpers import Bench

QEMU = shutil.which("qemu-system-i386")
PORTS = (*range(0x1F0, 0x1F8), 0x3F6, *range(0x170, 0x178), 0x376)
QEMU_LIMIT_S = 60


def probe() -> bytes:
    """A boot sector that writes to each port, as a driver that looks for a drive, and shows on port E9 what it reads there."""
    code = b"".join(
        b"\xba" + port.to_bytes(2, "little")  # mov $port, %dx
        + b"\xb0\xa0\xee\xec\xe6\xe9"  # mov $0xa0, %al; out; in; out to E9
        for port in PORTS
    )  # fmt: skip
    data = b"\xba\xf0\x01\xed\xe6\xe9\x88\xe0\xe6\xe9"  # inw 1F0, both bytes to E9
    return (code + data + b"\xb0\x00\xe6\xf4\xf4").ljust(510, b"\0") + b"\x55\xaa"


@pytest.mark.parametrize("size", [1, 2, 4])
def test_channels_without_drives_read_as_zeros(bench: Bench, size: int) -> None:
    for port in PORTS:
        bench.write(port, 0xA0)
    assert {port: bench.read(port, size) for port in PORTS[:5]} == dict.fromkeys(PORTS[:5], 0)
    assert {port: bench.read(port) for port in PORTS} == dict.fromkeys(PORTS, 0)


@pytest.mark.skipif(QEMU is None, reason="needs QEMU")
def test_channels_without_drives_in_qemu(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(probe().ljust(1 << 16, b"\0"))
    subprocess.run(
        [QEMU or "", "-machine", "pc", "-nodefaults", "-display", "none", "-accel", "tcg"]
        + ["-drive", f"if=floppy,format=raw,file={tmp_path / 'disk'}"]
        + ["-debugcon", f"file:{tmp_path / 'told'}", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
        timeout=QEMU_LIMIT_S, check=False,
    )  # fmt: skip
    assert (tmp_path / "told").read_bytes() == bytes(len(PORTS) + 2)
