# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/engine.md's table of known differences says what guests/suite/suite.toml insists on, check by check."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
ROW = re.compile(r"\| `([a-z0-9]+\.[a-z0-9*-]+)` \| [^|]+ \| ([^|]+) \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)
FOLLOWS, DOES_NOT = "yes", "**no**"


def cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "guests/suite/suite.toml").read_text(encoding="utf-8"))["case"]
    return found


def checks_of(key: str) -> set[str]:
    return {name for case in cases() for name in case.get(key, [])}


def answer(follows: bool) -> str:
    return FOLLOWS if follows else DOES_NOT


def test_the_table_is_what_the_suite_insists_on() -> None:
    """Of two that differ one follows the manual; where emu fails a check and QEMU does not differ, QEMU fails it too."""
    fails_here, differs = checks_of("known_failures"), checks_of("qemu_checks")
    wanted = {
        name: (answer(name not in fails_here), answer(name not in fails_here), answer((name in fails_here) == (name in differs)))
        for name in fails_here | differs
    }
    assert {name: tuple(cells) for name, *cells in ROW.findall(TEXT)} == wanted


def test_no_difference_is_known_as_a_whole_only() -> None:
    assert not [case["name"] for case in cases() if "qemu_differs" in case and "qemu_checks" not in case]


def test_cases_that_qemu_does_not_run_are_told() -> None:
    assert not [case["name"] for case in cases() if not case.get("qemu", True) and f"`{case['name']}`" not in TEXT]
