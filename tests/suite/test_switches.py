# SPDX-License-Identifier: GPL-2.0-or-later
"""The optimizations of the shadow MMU: whatever is switched off, a guest does the same."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import pytest

from emu import images
from emu.config import SHADOW_SWITCHES, Mmu
from emu.suite.run import Finished, Limits, run_guest
from emu.vm import launch

SUITE = images.FOLDER / "suite"
THEMES = ("tlb", "shapes", "regressions", "code")
FORMATS = ("32", "pae", "64")
MEMORY_BYTES = 32 << 20
LIMIT = 1_000_000_000
COUNTERS = {  # what each switch leaves at zero, where the guests here make it count
    "no-unsync": "mmu_unsync",
    "no-prefetch": "mmu_prefetch",
    "no-flood": "mmu_flooded",
}


def run(image: Path, switches: frozenset[str]) -> Finished:
    return run_guest(launch.Boot(image), memory_bytes=MEMORY_BYTES, mmu=Mmu.SHADOW, limits=Limits(LIMIT), switches=switches)


def chosen_combinations(seed: int) -> list[frozenset[str]]:
    """Each switch alone, all of them, and a few of the other combinations."""
    rng = random.Random(seed)
    several = [frozenset(names) for size in range(2, len(SHADOW_SWITCHES)) for names in combinations(SHADOW_SWITCHES, size)]
    return [*(frozenset([name]) for name in SHADOW_SWITCHES), frozenset(SHADOW_SWITCHES), *rng.sample(several, 3)]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("theme", THEMES)
def test_every_combination_gives_the_same_guest(theme: str, form: str) -> None:
    image = SUITE / f"{theme}-{form}.bin"
    usual = run(image, frozenset())
    assert " 0 failed" in usual.serial
    for switches in chosen_combinations(THEMES.index(theme) * len(FORMATS) + FORMATS.index(form)):
        other = run(image, switches)
        assert other.serial == usual.serial, sorted(switches)
        assert (other.outcome, other.value) == (usual.outcome, usual.value), sorted(switches)
        assert other.instructions == usual.instructions, sorted(switches)
        for name in switches & COUNTERS.keys():
            assert other.counters[COUNTERS[name]] == 0, name


def test_each_optimization_does_something() -> None:
    """Or the tests above would compare nothing."""
    storms, shapes = SUITE / "storms-64.bin", SUITE / "shapes-64.bin"
    usual = run(storms, frozenset()).counters
    assert all(usual[name] for name in (*COUNTERS.values(), "mmu_cache_hit"))
    assert run(storms, frozenset(["no-cache"])).counters["mmu_cache_miss"] > usual["mmu_cache_miss"]
    assert run(storms, frozenset(["no-emulate"])).counters["exits"] > usual["exits"]
    usual = run(shapes, frozenset()).counters
    assert run(shapes, frozenset(["no-update"])).counters["pf_fixed"] > usual["pf_fixed"]
