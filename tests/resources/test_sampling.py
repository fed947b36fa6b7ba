# SPDX-License-Identifier: GPL-2.0-or-later
"""Working sets by sampling: what is touched is counted once, what is not touched is not, and the averages are the paper's."""

from __future__ import annotations

import numpy as np
import pytest

from emu.config import Mmu
from emu.host import scenario
from emu.host.host import Host
from emu.machine import control as cbw
from emu.resources.sampling import PAGES, WorkingSet
from emu.units import PAGE_BYTES
from emu.vm import pmap

TOUCHER = """
memory = "64M"
seconds = "26s"
[services]
scan_rate = 0
sample_period = "2s"
[[vm]]
name = "vm"
memory = "32M"
mmu = "{mmu}"
append = 'run="toucher schedule=4m@0,20m@6,1m@14 seconds=60 seed=1"'
"""


@pytest.mark.parametrize("mmu", list(Mmu))
def test_the_estimate_follows_a_guest(mmu: Mmu) -> None:
    """Up at once, down slowly; within three standard deviations of what the program touches, plus what the system does."""
    host = Host(scenario.parse(TOUCHER.replace("{mmu}", mmu), "test", "test"), checks=mmu is Mmu.NESTED)
    seen: dict[int, tuple[int, int, int]] = {}
    while host.now < host.scenario.instructions(26_000_000):
        host.step()
        sampler = host.vms[0].working_set
        assert sampler is not None
        if host.now % 10_000_000 == 0:
            seen[host.now // 10_000_000] = (sampler.estimate, sampler.slow, sampler.fast)
    assert sampler.periods == 12
    pages = {second: values[0] / 256 for second, values in seen.items()}
    slack = 3 * 32 * (0.25 / PAGES) ** 0.5
    assert 4 - slack < pages[5] < 4 + 2 + slack
    assert 20 - slack < pages[12] < 20 + 2 + slack
    assert pages[15] > 16  # the slow average keeps it up
    assert pages[25] < 12
    assert seen[25][2] < seen[25][1]  # the fast one is down already
    host.close()


@pytest.fixture
def idle() -> Host:
    text = 'memory = "32M"\nseconds = "9s"\n[services]\nscan_rate = 0\nsample_period = "0s"\nswap = false\n[[vm]]\nname = "a"\nmemory = "8M"\n'
    host = Host(scenario.parse(text, "test", "test"))
    host.step()
    return host


def test_what_counts(idle: Host) -> None:
    """Stores and loads of devices count, the VMM's own looks do not; a watched page is mapped by nothing until then."""
    vm = idle.vms[0].vm
    sampler = WorkingSet(vm.state, 1_000_000, 1)
    sampler.advance()
    watched = np.flatnonzero(vm.state.watched == pmap.WAITING)
    assert len(watched) == PAGES
    idle.check()
    for slot in watched.tolist():
        vm.read_physical(slot * PAGE_BYTES, 8)
    assert sampler.estimate == 0
    for slot in watched[:10].tolist():
        vm.write_physical(slot * PAGE_BYTES, b"x")
        vm.write_physical(slot * PAGE_BYTES + 9, b"x")
    assert sampler.current == round(0.10 * vm.state.ram_pages)
    vm.control[cbw.INSNS] += 1_000_000
    sampler.advance()
    assert (sampler.slow, sampler.fast) == (round(0.10 * vm.state.ram_pages),) * 2
    for slot in np.flatnonzero(vm.state.watched == pmap.WAITING)[:50].tolist():
        vm.write_physical(slot * PAGE_BYTES, b"x")
    assert sampler.current == round((0.75 * 0.5 + 0.25 * 0.1) * sampler.population)
    vm.control[cbw.INSNS] += 1_000_000
    sampler.advance()
    assert sampler.fast == round((0.75 * 0.5 + 0.25 * 0.1) * sampler.population)
    assert sampler.slow == round((0.25 * 0.5 + 0.75 * 0.1) * sampler.population)
    assert sampler.estimate == sampler.fast
    idle.close()


def test_pages_in_the_balloon_are_not_drawn(idle: Host) -> None:
    vm = idle.vms[0].vm
    state = vm.state
    free = np.flatnonzero(state.pmap[: state.ram_pages] >> pmap.STATE_SHIFT & pmap.STATE_MASK == pmap.UNALLOCATED)
    state.pmap[free] = pmap.BALLOONED << pmap.STATE_SHIFT
    vm.control[cbw.BALLOON_PAGES] = len(free)
    sampler = WorkingSet(state, 1, 1)
    sampler.advance()
    drawn = np.flatnonzero(state.watched)
    assert len(drawn) == PAGES
    assert not np.isin(drawn, free).any()
    assert sampler.population == state.ram_pages - len(free)
    idle.close()
