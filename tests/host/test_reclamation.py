# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done in which free state, and when frames of pages on their way to the disk are free."""

from __future__ import annotations

import pytest

from emu.host import scenario
from emu.host.host import Host
from emu.host.hosted import HostedVm
from emu.host.reclamation import Reclamation
from emu.machine.memory import FrameUse
from emu.resources.states import FreeState
from emu.vm import pmap


@pytest.fixture
def host() -> Host:
    return Host(scenario.read(scenario.find("overcommit")))


def test_soft_pages_only_where_ballooning_is_impossible(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A VM without a driver that answers, or whose balloon is as large as it may be; hard pages any VM above its target."""
    real, seen = Reclamation._page_out, set()  # noqa: SLF001

    def page_out(self: Reclamation, now: int, vm: HostedVm, pages: int) -> None:
        if pages > 0:
            can_give = self.balloon_most(vm) > vm.vm.balloon.size
            seen.add((self.state, vm.name, can_give))
        real(self, now, vm, pages)

    monkeypatch.setattr(Reclamation, "_page_out", page_out)
    host.run(stop=lambda: host.now > 20 * host.scenario.insns_per_second)
    assert (FreeState.SOFT, "no-balloon", False) in seen
    assert not [name for state, name, can_give in seen if state is FreeState.SOFT and can_give]
    assert any(name.startswith("toucher") for state, name, _ in seen if state is FreeState.HARD)
    assert not [state for state, _, _ in seen if state is FreeState.HIGH]
    host.close()


def test_frames_are_free_when_their_pages_are_on_the_disk(host: Host) -> None:
    """Until then they are nobody's pages, count as such, and what the VM touches comes back at once."""
    most = 0
    while host.now < 20 * host.scenario.insns_per_second:
        host.step()
        writing = sum(len(vm.writing) for vm in host.vms)
        records = host.memory.frames.records
        assert int((records["use"] == FrameUse.WRITING).sum()) == len(host.reclamation.disk) >= writing
        most = max(most, writing)
    assert most > 50
    vm = next(vm for vm in host.vms if vm.writing)
    slot = next(slot for slot in vm.writing if int(vm.vm.state.pmap[slot]) >> pmap.STATE_SHIFT & pmap.STATE_MASK == pmap.SWAPPED)
    mpn = int(host.memory.allocate(1, vm.number, FrameUse.VMM)[0])
    assert vm.swap_in(slot, mpn) == 0
    vm.writing.clear()
    assert vm.swap_in(slot, mpn) == host.reclamation.disk.read_insns
    host.close()
