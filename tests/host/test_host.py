# SPDX-License-Identifier: GPL-2.0-or-later
"""Many VMs on one machine: the same on any number of threads, sharing as the paper has it, reclamation that no guest notices."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from emu.host import scenario
from emu.host.host import Host
from emu.host.hosted import HostedVm, Phase
from emu.host.statistics import VmRow, machine_row, vm_rows
from emu.resources.states import FreeState
from emu.vm import pmap

PRESSURE = """
memory = "34M"
seconds = "9s"
[services]
scan_rate = 10000
[[vm]]
name = "toucher"
count = 2
memory = "16M"
append = 'run="toucher schedule=2m@0,10m@2,4m@6 seconds=7 seed={number}"'
[[vm]]
name = "check"
memory = "8M"
disk = "8M"
swap = "4M"
append = 'quiet run="check"'
[[vm]]
name = "no-balloon"
memory = "16M"
mmu = "nested"
append = 'noballoon run="toucher schedule=2m@0,9m@3 seconds=7 seed=9"'
"""


class Watcher:
    """Keeps what was printed, and every second's rows."""

    def __init__(self) -> None:
        self.printed: dict[str, bytes] = {}
        self.rows: list[list[VmRow]] = []
        self.states: list[FreeState] = []

    def second(self, host: Host) -> None:
        self.rows.append(vm_rows(host))
        self.states.append(host.reclamation.state)

    def said(self, vm: HostedVm, data: bytes) -> int:
        self.printed[vm.name] = self.printed.get(vm.name, b"") + data
        return len(data)


def run(text: str, *, threads: int = 2, checks: bool = True, swap_folder: Path | None = None) -> tuple[Host, Watcher]:
    """A run to its end, the host closed."""
    watcher = Watcher()
    host = Host(scenario.parse(text, "test", "test"), threads=threads, checks=checks, swap_folder=swap_folder)
    host.run(watcher)
    host.close()
    assert host.memory.frames.free_count == len(host.memory.frames)
    host.memory.frames.check()
    return host, watcher


def test_guests_under_pressure_notice_nothing(tmp_path: Path) -> None:
    """Every byte is checked by the guests; every invariant after each slice; all means of reclamation are used."""
    host, watcher = run(PRESSURE, swap_folder=tmp_path)
    assert [vm.why for vm in host.vms] == ["exited with value 0"] * 4
    assert b"14 passed, 0 failed" in watcher.printed["check"]
    assert not any(b"FAIL" in text for text in watcher.printed.values())
    assert FreeState.HARD in {state for _, state in host.reclamation.counts.changes}
    assert host.reclamation.counts.paged_out > 1000
    assert sum(vm.swapped.read for vm in host.vms) > 1000
    assert host.reclamation.counts.frames_shared > 100
    assert max(row.mctlsz for rows in watcher.rows for row in rows) > 100
    assert all(row.mctlsz == 0 for rows in watcher.rows for row in rows if row.name == "no-balloon")
    assert not any(vm.unplanned for vm in host.vms)
    last = {row.name: row.cow_breaks for rows in watcher.rows for row in rows}
    assert machine_row(host).cow_breaks >= sum(last.values()) > 0
    assert not list(tmp_path.iterdir())


def test_the_number_of_threads_changes_nothing() -> None:
    seen = []
    for threads in (1, 2, 5):
        host, watcher = run(PRESSURE.replace('"9s"', '"5s"'), threads=threads, checks=False)
        seen.append((watcher.printed, [[asdict(row) for row in rows] for rows in watcher.rows], host.reclamation.counts))
    assert seen[0] == seen[1] == seen[2]


def identical(count: int) -> str:
    work = 'run="filebench files=30 size=64k seconds=60 seed=1 reads=100 writes=0 creates=0"'
    vm = f'[[vm]]\nname = "vm"\ncount = {count}\nmemory = "16M"\ndisk = "8M"\nappend = \'{work}\'\n'
    return f'memory = "192M"\nseconds = "6s"\n[services]\nscan_rate = 40000\n{vm}'


def theoretical_saving(host: Host) -> tuple[int, int]:
    """(pages that have a twin, frames that could be saved) of all the VMs' contents as they are."""
    contents: list[bytes] = []
    for vm in host.vms:
        for state in (pmap.PRESENT_PAGE, pmap.SHARED):
            contents.extend(vm.vm.read_physical(int(slot) << 12, 4096) for slot in vm.pages_in(state))
    _, counts = np.unique(np.array(contents, dtype="S4096"), return_counts=True)
    return int(np.sum(counts[counts > 1])), int(np.sum(counts - 1))


def test_identical_vms_follow_the_paper_s_figure_4() -> None:
    """A jump at two VMs, then linear; at ten most is shared; single copies nearly constant; and all that the contents allow is found."""
    shared, saved, single = {}, {}, {}
    for count in (1, 2, 4, 6, 8, 10):
        host = Host(scenario.parse(identical(count), "test", "test"))
        host.run()
        rows = vm_rows(host)
        granted = sum(row.grant for row in rows)
        shared[count] = sum(row.shrd for row in rows) / granted
        saved[count] = sum(row.shrdsvd for row in rows) / granted
        single[count] = (shared[count] - saved[count]) * granted
        twins, possible = theoretical_saving(host)
        assert sum(row.shrd for row in rows) > 0.9 * twins
        assert sum(row.shrdsvd for row in rows) > 0.9 * possible
        host.close()
    assert shared[2] > 3 * shared[1]
    assert shared[10] > 0.66
    assert saved[10] > 0.59
    assert [saved[n] for n in (2, 4, 6, 8, 10)] == sorted(saved[n] for n in (2, 4, 6, 8, 10))
    assert single[10] < 1.25 * single[2]


@pytest.mark.parametrize("switch", ["scan_rate = 0", "balloon = false", "swap = false"])
def test_without_a_service_the_others_do(switch: str) -> None:
    host, watcher = run(PRESSURE.replace("scan_rate = 10000", switch).replace('"9s"', '"5s"'), checks=False)
    assert not any(b"FAIL" in text for text in watcher.printed.values())
    rows = [row for rows in watcher.rows for row in rows]
    assert (max(row.shrd for row in rows) == 0) == (switch == "scan_rate = 0")
    assert (max(row.mctlsz for row in rows) == 0) == (switch == "balloon = false")
    assert (max(row.swcur for row in rows) == 0) == (switch == "swap = false")
    assert all(vm.phase is Phase.ENDED for vm in host.vms)


def test_events_and_times() -> None:
    text = """
    memory = "64M"
    seconds = "6s"
    [[vm]]
    name = "early"
    memory = "16M"
    stop = "3s"
    [[vm]]
    name = "late"
    memory = "16M"
    start = "2s"
    append = 'run="idle seconds=9"'
    [[vm.event]]
    at = "4s"
    shares = 7
    [[vm.event]]
    at = "3s"
    balloon = "1M"
    """
    host, watcher = run(text)
    assert [[row.name for row in rows] for rows in watcher.rows] == [
        ["early"],
        ["early"],
        ["early", "late"],
        ["late"],
        ["late"],
        ["late"],
    ]
    assert [rows[-1].mctltgt for rows in watcher.rows[2:]] == [0, 256, 256, 256]
    assert (host.vms[0].why, host.vms[1].why, host.vms[1].shares) == ("stopped by the scenario", "the run is over", 7)


def test_a_full_disk_pauses_vms_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host takes no page for a while: whose pages should go waits, with the reason; later all goes on, and every byte is right."""
    real, refused, seen = os.pwrite, [], set()

    def pwrite(descriptor: int, data: memoryview, at: int) -> int:
        if len(refused) < 60:
            refused.append(at)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    host = Host(scenario.parse(PRESSURE.replace('seconds = "9s"', ""), "test", "test"), checks=True)
    watcher = Watcher()
    host.run(watcher, stop=lambda: bool(seen.update(vm.why for vm in host.vms)))
    assert "the swap area: cannot write (no space left on device)" in seen
    assert [vm.why for vm in host.vms] == ["exited with value 0"] * 4
    assert not any(b"FAIL" in text for text in watcher.printed.values())
    host.close()


def test_a_machine_that_stays_full_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def pwrite(_descriptor: int, _data: memoryview, _at: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", pwrite)
    guest = 'noballoon run="toucher schedule=12m@0 seconds=9 seed=1"'
    host, _ = run(f'memory = "12M"\n[[vm]]\nname = "big"\nmemory = "16M"\nappend = \'{guest}\'\n', checks=False)
    ended = {vm.name: vm.why for vm in host.vms}
    assert "could not go on: the swap area: cannot write (no space left on device)" in ended.values()


def test_a_swap_file_that_was_cut_short_ends_the_vm_that_needs_it(tmp_path: Path) -> None:
    host = Host(scenario.parse(PRESSURE, "test", "test"), swap_folder=tmp_path)
    while not any(vm.swapped.written > 200 for vm in host.vms):
        host.step()
    for path in tmp_path.glob("*.swap"):
        os.truncate(path, 0)
    host.run()
    # What was cut off reads as nothing, or as zeros where pages were written behind it since.
    broken = [
        vm for vm in host.vms if re.search(r"ends before slot \d+: somebody cut it short|does not hold what was written", vm.why)
    ]
    assert broken
    assert all(vm.phase is Phase.ENDED for vm in broken)
    assert any(vm.why == "exited with value 0" for vm in host.vms)
    host.close()
    assert host.memory.frames.free_count == len(host.memory.frames)
