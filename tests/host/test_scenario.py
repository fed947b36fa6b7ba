# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenario files: every key, every refusal, and those that come with emu."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.config import Mmu
from emu.diskimage import layout, make
from emu.errors import FileErrors, UsageError
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


MACHINE = 'memory = "8M"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memory = 5" + VM, 'f:1: memory: expected a size such as "32M", not 5'),
        ('memory = "5x"' + VM, "f:1: memory: size '5x': expected a whole number"),
        (MACHINE + f'seed = "a"{VM}', 'f:2: seed: expected a whole number, not "a"'),
        (f"{MACHINE}memroy = 1{VM}", 'f:2: unknown key "memroy"; did you mean "memory"?'),
        (f"{MACHINE}zzz = 1{VM}", 'f:2: unknown key "zzz"; known are name, description'),
        (VM, "f: memory is missing"),
        (MACHINE, "f: a scenario has at least one [[vm]]"),
        (f'{MACHINE}{VM}guset = "x"', 'f:5: [[vm]] 1: unknown key "guset"; did you mean "guest"?'),
        (f'{MACHINE}{VM}memory = "4M"\nmin = "5M"', "f:6: [[vm]] 1: min is more than memory, which is 4M"),
        (f'{MACHINE}{VM}min = "9M"', "f:1: the mins are 9M together, the machine has 8M"),
        (
            f'{MACHINE}{VM}mmu = "nestde"',
            'f:5: [[vm]] 1: mmu: expected one of shadow, nested, not "nestde"; did you mean "nested"?',
        ),
        (f"{MACHINE}{VM}count = 0", "f:5: [[vm]] 1: count: expected a number from 1 to 1000, not 0"),
        (f"{MACHINE}[[vm]]\nappend = 'x'\ncount = 1000\n[[vm]]\nappend = 'x'", "f:5: more than 1000 VMs"),
        (f'{MACHINE}{VM}start = "3s"\nstop = "3s"', "f:6: [[vm]] 1: it stops before it starts"),
        (f'{MACHINE}{VM}name = "a"{VM}name = "a"', 'f:8: [[vm]] "a": two VMs are called "a"'),
        (f'{MACHINE}{VM}name = "../a"', 'f:5: [[vm]] "../a": name: expected a name of 1 to 100 characters without /, not "../a"'),
        (
            f'{MACHINE}{VM}[[vm.event]]\nat = "1s"',
            "f:5: [[vm]] 1 [[vm.event]] 1: expected at, and one of shares, balloon, fault, stop",
        ),
        (
            f'{MACHINE}{VM}[[vm.event]]\nat = "1s"\nfault = "fire"',
            "f:7: [[vm]] 1 [[vm.event]] 1: fault: expected one of de, ud, gp, mc, reset, disk, swap-write, swap-read, none, not",
        ),
        (f'{MACHINE}{VM}[[vm.event]]\nat = "1s"\nstop = false', "f:7: [[vm]] 1 [[vm.event]] 1: stop: expected true, not false"),
        (
            f'{MACHINE}{VM}[[vm.event]]\nat = "1s"\nballoon = "33M"',
            "f:5: [[vm]] 1: event: a balloon of more than the VM's memory, which is 32M",
        ),
        (f'{MACHINE}{VM}swap = "1M"', "f:5: [[vm]] 1: swap is a part of the VM's disk: it needs disk too"),
        (f'{MACHINE}{VM}disk = "1G"\nswap = "1G"', "f:5: [[vm]] 1: disk and swap are more than 2G together"),
        (f'{MACHINE}[[vm]]\nname = "a"', "f: seconds is missing: a VM without arguments runs for ever"),
        (f"{MACHINE}[services]\nballon = true{VM}", 'f:3: [services]: unknown key "ballon"; did you mean "balloon"?'),
        (f"{MACHINE}vm = 3", "f:2: vm: expected [[vm]] tables"),
        (f"{MACHINE}services = 3{VM}", "f:2: services: expected a table"),
        ("= 3", "f:1:1: not a TOML file: Invalid statement"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text, "f", "file")
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_all_errors_of_a_file_come_at_once_in_the_order_of_lines() -> None:
    text = 'seed = "x"\n[services]\nbaloon = 1\n[[vm]]\nname = "web"\nmemroy = "5M"\nshares = inf\nappend = 3\n'
    with pytest.raises(FileErrors) as refused:
        parse(text, "my.toml", "file")
    assert refused.value.lines == (
        'my.toml: memory is missing: the machine\'s memory, such as "64M"',
        "my.toml: seconds is missing: a VM without arguments runs for ever",
        'my.toml:1: seed: expected a whole number, not "x"',
        'my.toml:3: [services]: unknown key "baloon"; did you mean "balloon"?',
        'my.toml:6: [[vm]] "web": unknown key "memroy"; did you mean "memory"?',
        'my.toml:7: [[vm]] "web": shares: expected a whole number, not inf',
        'my.toml:8: [[vm]] "web": append: expected a text of one line, not 3',
    )


SIZE_KEYS = [("", "memory"), ("vm", "memory"), ("vm", "min"), ("vm", "disk"), ("vm", "swap"), ("event", "balloon")]
TIME_KEYS = [
    ("", "seconds"),
    ("services", "rebalance"),
    ("services", "sample_period"),
    ("vm", "start"),
    ("vm", "stop"),
    ("event", "at"),
]
NUMBER_KEYS = [
    ("", "seed"),
    ("", "instructions_per_second"),
    ("services", "scan_rate"),
    ("vm", "shares"),
    ("vm", "count"),
    ("event", "shares"),
]
SWITCH_KEYS = [("services", "balloon"), ("services", "swap"), ("services", "compress")]
NO_NUMBERS = ["nan", "inf", "-inf", "-1", "1.5", "true", "1979-05-27", "[1]", "{ a = 1 }"]


def text_with(part: str, key: str, value: str) -> tuple[str, int]:
    """A scenario with one key set so, and its line."""
    parts: dict[str, dict[str, str]] = {
        "": {"memory": '"64M"', "seconds": '"9s"'},
        "services": {},
        "vm": {"memory": '"32M"', "disk": '"8M"'},
        "event": {"at": '"1s"'} | ({} if key in scenario.EVENT_KINDS else {"stop": "true"}),
    }
    parts[part][key] = value
    lines = []
    for name, header in (("", None), ("services", "[services]"), ("vm", "[[vm]]"), ("event", "[[vm.event]]")):
        lines += [header] if header else []
        lines += [f"{k} = {v}" for k, v in parts[name].items()]
        if name == part:
            line = len(lines) - len(parts[name]) + list(parts[name]).index(key) + 1
    return "\n".join(lines), line


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [(*key, value) for key in SIZE_KEYS for value in [*NO_NUMBERS, "5", '"-1M"', '"1000000000000000000"', '"999999999G"', '"1.5M"', '""']]
    + [(*key, value) for key in TIME_KEYS for value in [*NO_NUMBERS, "5", '"-1s"', '"1000000000000000000s"', '"1.5s"', '"5"', '""']]
    + [(*key, value) for key in NUMBER_KEYS for value in [*NO_NUMBERS, '"5"', "1000000000000000000", "1" + "0" * 99]]
    + [(*key, value) for key in SWITCH_KEYS for value in ["0", "1", '"true"', "nan", "[true]"]]
    + [("", "memory", '"0"'), ("vm", "memory", '"0"'), ("vm", "memory", '"33333333"'), ("vm", "shares", "0"), ("vm", "count", "0")]
    + [("", "instructions_per_second", "0"), ("", "seconds", '"0s"'), ("services", "rebalance", '"0s"'), ("services", "rebalance", '"1us"')]
    + [("services", "sample_period", '"1us"'), ("vm", "disk", '"4K"'), ("vm", "disk", '"33333333"'), ("vm", "name", '""'), ("vm", "name", '"a/b"')]
    + [("vm", "name", '"\\u001b[2J"'), ("vm", "append", '"a\\nb"'), ("", "description", '"\\u202e"'), ("vm", "guest", '["os-i386"]')],
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused_with_its_line(part: str, key: str, value: str) -> None:
    text, line = text_with(part, key, value)
    with pytest.raises(FileErrors) as refused:
        parse(text, "f", "file")
    (message,) = (said for said in refused.value.lines if f": {key}: " in said)
    assert message.startswith(f"f:{line}: ")
    assert message.isprintable()


def test_the_largest_and_smallest_values_are_taken() -> None:
    text = 'memory = "4M"\nseconds = "100ms"\ninstructions_per_second = 1000\n[services]\nrebalance = "100ms"\nsample_period = "0s"\nscan_rate = 0\n'
    plan = parse(text + '[[vm]]\nmemory = "4M"\nmin = "0"\nshares = 1\ndisk = "0"\nswap = "0"\nstart = "0"\n', "f", "n")
    assert (plan.instructions(plan.services.rebalance_us), plan.services.sample_us, plan.vms[0].all_shares) == (100, 0, 1)


def test_limits_are_those_of_what_they_limit() -> None:
    assert (scenario.MIN_DISK_BYTES, scenario.MAX_DISK_BYTES) == (
        make.MIN_FILES_BLOCKS * layout.BLOCK,
        make.MAX_BLOCKS * layout.BLOCK,
    )
    longest = scenario.YEAR_US * scenario.MAX_RATE // 1_000_000
    assert longest < 1 << 62  # virtual time is a signed word


@given(st.text(max_size=200) | st.lists(st.sampled_from(ALL_KEYS.splitlines()), max_size=30).map("\n".join))
def test_any_text_is_a_scenario_or_refused(text: str) -> None:
    try:
        assert isinstance(parse(text, "f", "file"), Scenario)
    except UsageError as error:
        assert all(line.startswith(("f: ", "f:")) and line.isprintable() for line in error.lines)


def test_those_that_come_with_emu(tmp_path: Path) -> None:
    for name, path in scenario.builtin().items():
        plan = scenario.read(path)
        assert plan.description
        assert scenario.find(name) == path
    with pytest.raises(
        UsageError, match='unknown scenario "nothing": there is no such file; known are hundred, identical, overcommit'
    ):
        scenario.find("nothing")
    with pytest.raises(UsageError, match="cannot read the scenario"):
        scenario.read(tmp_path)
