"""Who shares what: the frames that VMs have in common, by pair of VMs and by kind of page."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from emu.host.host import Host
from emu.host.hosted import HostedVm
from emu.host.statistics import megabytes
from emu.vm import pmap


def _shared_frames(vm: HostedVm) -> np.ndarray:
    state = vm.vm.state
    ram = state.pmap[: state.ram_pages]
    shared: np.ndarray = ram[ram >> pmap.STATE_SHIFT & pmap.STATE_MASK == pmap.SHARED]
    return shared


def sharing_report(host: Host) -> str:
    """The report as text: per VM and kind of page, then per pair of VMs."""
    vms = [vm for vm in host.vms if vm.has_memory]
    words = {vm.name: _shared_frames(vm) for vm in vms}
    zero = -1 if host.sharing is None else host.sharing.zero_frame
    lines = ["shared pages, MB: by VM and kind of page"]
    for name, of in words.items():
        mpns = of & pmap.MPN_MASK
        code = int(np.count_nonzero(of & pmap.EXECUTED))
        zeros = int(np.count_nonzero(mpns == zero))
        alone = len(mpns) - len(np.unique(mpns))
        lines.append(
            f"  {name}: {megabytes(len(of)):.2f}, of zeros {megabytes(zeros):.2f}, code {megabytes(code):.2f}, "
            f"with itself {megabytes(alone):.2f}"
        )
    lines.append("frames in common, MB: by pair of VMs")
    for (one, first), (other, second) in combinations(words.items(), 2):
        common = np.intersect1d(first & pmap.MPN_MASK, second & pmap.MPN_MASK)
        lines.append(f"  {one} and {other}: {megabytes(len(common)):.2f}")
    return "\n".join(lines) + "\n"
