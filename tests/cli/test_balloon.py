# SPDX-License-Identifier: GPL-2.0-or-later
"""`emu boot --balloon`: targets at virtual times, the guest OS's driver, and what the summary says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emu.config import parse_balloon
from emu.errors import UsageError
from tests.cli.test_boot import emu, one_complaint

OS = "os-i386"
IDLE = 'run="idle seconds=7"'


def boot(guest: str, *arguments: str) -> tuple[dict[str, Any], str]:
    """The summary's object, and what went to standard error."""
    done = emu("boot", guest, "--memory", "16M", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_the_driver_follows_its_target() -> None:
    summary, errors = boot(OS, "--append", IDLE, "--balloon", "2M@1s,512K@4s")
    balloon = summary["balloon"]
    assert (balloon["state"], balloon["target"], balloon["size"]) == ("at target", 128, 128)
    assert (balloon["locks"], balloon["unlocks"], balloon["pops"]) == (512, 384, 0)
    assert (summary["counters"]["balloon_locks"], summary["counters"]["balloon_unlocks"]) == (512, 384)
    assert "emu: balloon: at target, 128 of 128 pages" in errors


def test_two_runs_are_the_same() -> None:
    first, second = (boot(OS, "--append", IDLE, "--balloon", "3M@2s")[0] for _ in range(2))
    assert first == second


def test_more_than_the_guest_can_give_leaves_it_alive() -> None:
    summary, _ = boot(OS, "--append", 'run="idle seconds=20"', "--balloon", "1G@1s")
    balloon = summary["balloon"]
    assert balloon["target"] == 4096
    assert 2000 < balloon["size"] < 4096
    assert balloon["state"] in ("inflating", "stuck")


def test_a_guest_without_a_driver_is_visible() -> None:
    summary, errors = boot(OS, "--append", f"noballoon {IDLE}", "--balloon", "2M@1s")
    assert (summary["balloon"]["state"], summary["balloon"]["size"], summary["balloon"]["calls"]) == ("absent", 0, 0)
    assert "emu: balloon: absent, 0 of 512 pages" in errors


def test_without_target_and_driver_nothing_is_said() -> None:
    summary, errors = boot("hello")
    assert summary["balloon"] is None
    assert "balloon" not in errors


def test_targets_are_sorted_by_time() -> None:
    assert parse_balloon("0@20s, 8M@10s,1M@500ms", 10_000_000) == ((5_000_000, 1 << 20), (100_000_000, 8 << 20), (200_000_000, 0))
    assert parse_balloon("", 1) == ()


@pytest.mark.parametrize("wrong", ["8M", "8M@", "@10s", "much@10s", "8M@soon", "8M@10s@20s"])
def test_a_wrong_target_is_a_line(wrong: str) -> None:
    with pytest.raises(UsageError):
        parse_balloon(wrong, 10_000_000)
    done = emu("boot", "hello", "--balloon", wrong)
    assert done.returncode == 2
    assert "balloon target" in one_complaint(done.stderr)
