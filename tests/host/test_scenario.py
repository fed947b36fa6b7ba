# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenario files: every key, every refusal, and those that come with emu."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.config import Mmu
from emu.errors import UsageError
from emu.host import scenario
from emu.host.scenario import Event, Scenario, Services, VmSpec, parse
from emu.units import MIB

ROOT = Path(__file__).resolve().parents[2]
ALL_KEYS = """
name = "n"
description = "d"
memory = "64M"
seed = 5
seconds = "90s"
instructions_per_second = 1000000
[services]
scan_rate = 7
balloon = false
swap = false
rebalance = "2s"
compress = true
sample_period = "3s"
[[vm]]
name = "a"
guest = "os-pae"
append = "x"
memory = "8M"
min = "1M"
shares = 3
mmu = "nested"
disk = "16M"
swap = "4M"
start = "1s"
stop = "20s"
[[vm.event]]
at = "9s"
stop = true
[[vm.event]]
at = "3s"
shares = 6
[[vm.event]]
at = "4s"
balloon = "2M"
[[vm.event]]
at = "5s"
fault = "gp"
[[vm]]
name = "b"
count = 2
append = "seed={number}"
"""


def test_every_key() -> None:
    events = (
        Event(3_000_000, "shares", 6),
        Event(4_000_000, "balloon", 2 * MIB),
        Event(5_000_000, "fault", fault="gp"),
        Event(9_000_000, "stop"),
    )
    first = VmSpec(
        "a", "os-pae", "x", 8 * MIB, MIB, 3, Mmu.NESTED, 16 * MIB, 4 * MIB, 1_000_000, 20_000_000, events
    )  # fmt: skip
    others = (VmSpec("b-1", append="seed=1"), VmSpec("b-2", append="seed=2"))
    services = Services(7, balloon=False, swap=False, compress=True, sample_us=3_000_000, rebalance_us=2_000_000)
    expected = Scenario("n", 64 * MIB, (first, *others), "d", 5, 90_000_000, 1_000_000, services, ALL_KEYS)
    assert parse(ALL_KEYS, "f", "file") == expected
    assert expected.instructions(1_500_000) == 1_500_000
    assert (first.all_shares, others[0].all_shares) == (3, 320)


def test_the_page_has_every_key() -> None:
    page = (ROOT / "docs" / "host.md").read_text()
    keys = {*scenario.SCENARIO_KEYS, *scenario.SERVICE_KEYS, *scenario.VM_KEYS, *scenario.EVENT_KINDS, "count", "at"}
    assert not [key for key in keys if f"| `{key}` |" not in page]


VM = '\n[[vm]]\nappend = "x"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memory = 5", 'f: memory: expected a size such as "32M"'),
        ('memory = "5x"', "f: memory: size '5x': expected a whole number"),
        (f'seed = "a"{VM}', "f: seed: expected a number"),
        (f'memory = "8M"\nmemroy = 1{VM}', "f: memroy: unknown key: did you mean 'memory'?"),
        (f'memory = "8M"\nzzz = 1{VM}', "f: zzz: unknown key: known are name, description"),
        (VM, "f: memory: is missing"),
        ('memory = "8M"', "f: vm: a scenario has at least one [[vm]]"),
        (f'memory = "8M"{VM}guset = "x"', "f: vm 1.guset: unknown key: did you mean 'guest'?"),
        (f'memory = "8M"{VM}memory = "1M"\nmin = "2M"', "f: vm 'vm-1': min is more than memory"),
        (f'memory = "8M"{VM}min = "9M"', "f: vm: the mins are 9M together, the machine has 8M"),
        (f'memory = "8M"{VM}mmu = "x"', "f: vm 1.mmu: expected shadow or nested"),
        (f'memory = "8M"{VM}count = 0', "f: vm 1.count: expected a number from 1 to 1000"),
        (f'memory = "8M"{VM}start = "3s"\nstop = "3s"', "f: vm 'vm-1': it stops before it starts"),
        (f'memory = "8M"{VM}name = "a"{VM}name = "a"', "f: vm: two are called 'a'"),
        (f'memory = "8M"{VM}[[vm.event]]\nat = "1s"', "f: vm 1.event: expected at, and one of shares, balloon, fault, stop"),
        (
            f'memory = "8M"{VM}[[vm.event]]\nat = "1s"\nfault = "fire"',
            "f: vm 1.event.fault: expected one of de, ud, gp, mc, reset, disk, swap-write, swap-read, none",
        ),
        (f'memory = "8M"{VM}[[vm.event]]\nat = "1s"\nstop = false', "f: vm 1.event.stop: expected true"),
        ('memory = "8M"\n[[vm]]\nname = "a"', "f: seconds: is missing: a VM without arguments runs for ever"),
        ('memory = "8M"\n[services]\nballon = true' + VM, "f: services.ballon: unknown key: did you mean 'balloon'?"),
        ("vm = 3", "f: vm: expected [[vm]] tables, and one [services]"),
        ("= 3", "f: Invalid statement"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text, "f", "file")
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@given(st.text(max_size=200) | st.lists(st.sampled_from(ALL_KEYS.splitlines()), max_size=30).map("\n".join))
def test_any_text_is_a_scenario_or_refused(text: str) -> None:
    try:
        assert isinstance(parse(text, "f", "file"), Scenario)
    except UsageError as error:
        assert str(error).startswith("f: ")


def test_those_that_come_with_emu(tmp_path: Path) -> None:
    for name, path in scenario.builtin().items():
        plan = scenario.read(path)
        assert plan.description
        assert scenario.find(name) == path
    with pytest.raises(UsageError, match="unknown scenario 'nothing': neither a file nor one of hundred, identical, overcommit"):
        scenario.find("nothing")
    with pytest.raises(UsageError, match="cannot read the scenario"):
        scenario.read(tmp_path)
