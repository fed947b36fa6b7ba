# SPDX-License-Identifier: GPL-2.0-or-later
"""`emu boot --balloon`: targets at virtual times, the guest OS's driver, and what the summary says of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
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


@pytest.mark.parametrize("guest", ["os-pae", "os-x86_64"])
def test_targets_reach_the_other_builds(guest: str) -> None:
    """Set while the kernel waits, which in long mode is in the upper half of addresses."""
    summary, _ = boot(guest, "--append", IDLE, "--balloon", "2M@1s")
    assert (summary["balloon"]["state"], summary["balloon"]["size"]) == ("at target", 512)


def test_two_runs_are_the_same() -> None:
    first, second = (boot(OS, "--append", IDLE, "--balloon", "3M@2s")[0] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("mmu", ["shadow", "nested"])
def test_two_traces_are_the_same(tmp_path: Path, mmu: str) -> None:
    """Every line of a run whose balloon goes up and down, and what the lines must have."""
    traces = []
    for number in range(2):
        path = tmp_path / f"{number}.txt"
        boot(
            OS,
            "--append",
            IDLE,
            "--mmu",
            mmu,
            "--balloon",
            "256K@1s,64K@3s",
            f"--trace={path}",
            "--events",
            "balloon,stop,memory",
        )
        traces.append(path.read_text())
    assert traces[0] == traces[1]
    labels = Counter(line.split()[2] for line in traces[0].splitlines() if "balloon-" in line)
    assert labels == {"balloon-target": 2, "balloon-lock": 64, "balloon-unlock": 48}


def test_more_than_the_guest_can_give_leaves_it_alive() -> None:
    summary, _ = boot(OS, "--append", 'run="idle seconds=20"', "--balloon", "16M@1s")
    balloon = summary["balloon"]
    assert balloon["target"] == 4096
    assert 2000 < balloon["size"] < 4096
    assert balloon["state"] in ("slow", "stuck")


def test_a_guest_without_a_driver_is_visible() -> None:
    summary, errors = boot(OS, "--append", f"noballoon {IDLE}", "--balloon", "2M@1s")
    assert (summary["balloon"]["state"], summary["balloon"]["size"], summary["balloon"]["calls"]) == ("absent", 0, 0)
    assert "emu: balloon: absent, 0 of 512 pages" in errors


@pytest.mark.parametrize(
    ("misbehaviour", "state", "size"),
    [("silent", "silent", 0), ("stop", "silent", 2048), ("slow", "slow", 16 * 8 - 1), ("none", "at target", 2048)],
)
def test_a_guest_that_does_not_play_along_is_visible(misbehaviour: str, state: str, size: int) -> None:
    """The minimal guest with the same driver; slow takes eight pages a second, one of them for its book and one for the batch."""
    summary, _ = boot("balloon", "--append", f"misbehave={misbehaviour} seconds=17", "--balloon", "8M@1500ms")
    assert summary["balloon"]["state"] == state
    assert abs(summary["balloon"]["size"] - size) <= 2


def test_a_guest_that_touches_what_it_gave_is_reset_and_goes_on() -> None:
    done = emu("boot", "balloon", "--append", "misbehave=touch seconds=6", "--balloon", "8M@1s", "--json")
    assert done.returncode == 0
    balloon = json.loads(done.stdout.splitlines()[-1])["balloon"]
    assert balloon["pops"] >= 2
    assert balloon["refused"] == {"reset": balloon["pops"]}
    assert "balloon: reset with pages" in done.stdout


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


def test_a_target_beyond_memory_is_refused() -> None:
    done = emu("boot", OS, "--memory", "16M", "--balloon", "8M@1s,17M@2s")
    assert (done.returncode, one_complaint(done.stderr)) == (2, "emu: balloon target of 17408K: the guest has 16384K of memory")
