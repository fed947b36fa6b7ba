# SPDX-License-Identifier: GPL-2.0-or-later
"""Suite files (`emu.suite.cases`)."""

from __future__ import annotations

from pathlib import Path

from emu.suite.cases import read_suite

ROOT = Path(__file__).resolve().parents[2]


def seeds() -> list[bytes]:
    """The suites that come with emu."""
    return [path.read_bytes() for path in sorted((ROOT / "guests").rglob("suite.toml"))]


def try_one(data: bytes, folder: Path) -> None:
    """Read it as a user's file is read."""
    path = folder / "suite.toml"
    path.write_bytes(data)
    read_suite(path)
