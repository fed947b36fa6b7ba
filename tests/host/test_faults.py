# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scenario can break: the guest, its disk, its swap area; and guests that write while the scanner shares."""

from __future__ import annotations

import pytest

from emu.events import Kind
from emu.host import scenario
from emu.host.host import Host
from tests.host.test_host import PRESSURE, Watcher, run

ONE = """
memory = "48M"
seconds = "8s"
[[vm]]
name = "a"
memory = "16M"
disk = "8M"
mmu = "{mmu}"
append = '{append}'
[[vm.event]]
at = "2s"
fault = "{fault}"
"""


def broken(fault: str, append: str, mmu: str = "shadow") -> tuple[Host, str]:
    host, watcher = run(ONE.replace("{fault}", fault).replace("{append}", append).replace("{mmu}", mmu))
    return host, watcher.printed["a"].decode()


@pytest.mark.parametrize("mmu", ["shadow", "nested"])
@pytest.mark.parametrize(("fault", "vector"), [("de", 0), ("ud", 6), ("gp", 13)])
def test_an_exception_kills_the_program(fault: str, vector: int, mmu: str) -> None:
    host, printed = broken(fault, 'run="toucher schedule=1m@0 seconds=6 seed=1"', mmu)
    assert f"toucher killed: exception at {vector:08x}" in printed
    assert host.vms[0].why == "exited with value 139"


def test_an_exception_wakes_a_guest_that_sleeps() -> None:
    _, printed = broken("mc", 'run="idle seconds=6"')
    assert "panic" in printed.lower() or "killed" in printed


def test_a_reset_boots_it_again() -> None:
    _, printed = broken("reset", 'run="toucher schedule=1m@0 seconds=6 seed=1"')
    assert printed.count("toucher second=1 ") == 2


def test_a_broken_disk_is_an_error_in_the_guest() -> None:
    _, printed = broken("disk", 'run="filebench files=10 size=64k seconds=6 seed=1"')
    assert "disk: write of" in printed
    assert "failed" in printed


def pressure(events: str) -> str:
    vm = "append = 'run=\"toucher schedule=2m@0,10m@2,4m@6 seconds=7 seed={number}\"'\n"
    return PRESSURE.replace('seconds = "9s"', 'seconds = "30s"').replace(vm, vm + events)


def test_a_swap_area_that_takes_nothing_for_a_while() -> None:
    events = '[[vm.event]]\nat = "1s"\nfault = "swap-write"\n[[vm.event]]\nat = "6s"\nfault = "none"\n'
    host = Host(scenario.parse(pressure(events), "test", "test"), checks=True)
    watcher, seen = Watcher(), set()
    host.run(watcher, stop=lambda: bool(seen.update(vm.why for vm in host.vms)))
    assert "the swap area: cannot write (the scenario broke the disk)" in seen
    assert [vm.why for vm in host.vms] == ["exited with value 0"] * 4
    assert not any(b"FAIL" in text for text in watcher.printed.values())
    host.close()


def test_a_swap_area_that_gives_nothing_back_ends_the_vm() -> None:
    host, _ = run(pressure('[[vm.event]]\nat = "4s"\nfault = "swap-read"\n'))
    ended = {vm.name: vm.why for vm in host.vms}
    assert "the swap area: cannot read (the scenario broke the disk)" in ended.values()
    assert ended["no-balloon"] == "exited with value 0"


@pytest.mark.parametrize("mask", [-1, 7])
def test_guests_that_write_to_pages_as_they_are_being_shared(mask: int) -> None:
    """Every page is scanned several times a second while two guests write theirs, and check each word: hints go stale, hashes collide, copies are made."""
    text = """
    memory = "64M"
    seconds = "5s"
    [services]
    scan_rate = 60000
    [[vm]]
    name = "vm"
    count = 2
    memory = "8M"
    disk = "8M"
    append = 'run="compile seed=1 units=20"'
    [[vm]]
    name = "toucher"
    memory = "8M"
    mmu = "nested"
    append = 'run="toucher schedule=3m@0 seconds=4 seed=1"'
    """
    host = Host(scenario.parse(text, "test", "test"), checks=True)
    assert host.sharing is not None
    host.sharing.table.weaken(mask)
    watcher = Watcher()
    while host.now < host.scenario.instructions(3_500_000):
        host.run(watcher, stop=lambda now=host.now: host.now > now)  # type: ignore[misc]
    breaks = [int(vm.vm.state.counters[Kind.COW_BREAK]) for vm in host.vms]
    counts = host.sharing.table.counts_of()
    host.run(watcher)
    host.close()
    assert min(breaks) > 20
    is_weak = mask == 7  # stale hints are met by pages with the hash that they had: seldom, if hashes are strong
    assert (counts["stale_hints"] > 20) == (counts["false_matches"] > 1000) == is_weak
    assert not any(b"FAIL" in text or b"killed" in text for text in watcher.printed.values())
