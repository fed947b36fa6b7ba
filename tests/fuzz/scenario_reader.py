# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenario files of `emu host` (`emu.host.scenario`)."""

from __future__ import annotations

from pathlib import Path

from emu.host import scenario
from tests.host.test_scenario import ALL_KEYS


def seeds() -> list[bytes]:
    """Those that come with emu, and one with every key."""
    return [*(path.read_bytes() for path in scenario.builtin().values()), ALL_KEYS.encode()]


def try_one(data: bytes, folder: Path) -> None:
    """Read it as a user's file is read."""
    path = folder / "scenario.toml"
    path.write_bytes(data)
    scenario.read(path)
