# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenario files of `emu host` (`emu.host.scenario`), and what the host works out of them first."""

from __future__ import annotations

import random
from pathlib import Path

from emu.host import scenario
from tests.fuzz import toml_words
from tests.host.test_scenario import ALL_KEYS

HEADERS = ("[[vm]]", "[[vm]]\nappend = 'x'", "[services]", "[[vm.event]]", "[[vm.event]]\nat = '1s'", "[vm]")
KEYS = (*scenario.SCENARIO_KEYS, *scenario.SERVICE_KEYS, *scenario.VM_KEYS, *scenario.EVENT_KINDS, "count", "at", "event")
TOKENS = tuple(word.encode() for word in (*HEADERS, *KEYS, "=", '"', "'''", '"""', "[", "{", "#", "\n"))


def seeds() -> list[bytes]:
    """Those that come with emu, and one with every key."""
    return [*(path.read_bytes() for path in scenario.builtin().values()), ALL_KEYS.encode()]


SEEDS = seeds()


def make(rng: random.Random) -> bytes:
    """A scenario by the grammar of TOML."""
    return toml_words.make(rng, SEEDS, HEADERS, KEYS)


def try_one(data: bytes, folder: Path) -> None:
    """Read it as a user's file is read; what was read can be reckoned with."""
    path = folder / "scenario.toml"
    path.write_bytes(data)
    plan = scenario.read(path)
    assert plan.instructions(plan.services.rebalance_us) > 0
    assert 0 < len(plan.vms) <= scenario.MAX_VMS
    assert all(0 < plan.instructions(event.at_us) + 1 < 1 << 62 for vm in plan.vms for event in vm.events)
    assert sum(vm.min for vm in plan.vms) <= plan.memory
    assert all(vm.all_shares > 0 for vm in plan.vms)
