# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots: a run that goes on from one is the run that never stopped, to the last byte; and what is no snapshot is refused with a line."""

from __future__ import annotations

import errno
import json
import os
import resource
import zipfile
from pathlib import Path

import pytest

from emu.errors import OutputError, SnapshotError
from emu.host import scenario, snapshot
from emu.host.host import Host
from emu.host.snapshot import Options
from tests.host.test_host import PRESSURE, Watcher

MIXED = """
memory = "48M"
seconds = "6s"
[services]
scan_rate = 20000
sample_period = "1s"
compress = true
[[vm]]
name = "i386"
memory = "8M"
disk = "8M"
swap = "4M"
append = 'quiet run="check"'
[[vm]]
name = "pae"
guest = "os-pae"
memory = "16M"
mmu = "nested"
append = 'run="toucher schedule=1m@0,10m@2 seconds=5 seed=1"'
[[vm.event]]
at = "2s"
balloon = "2M"
[[vm]]
name = "long"
guest = "os-x86_64"
memory = "16M"
disk = "8M"
append = 'quiet run="compile seed=1 units=20"'
[[vm]]
name = "late"
memory = "16M"
start = "3s"
disk = "8M"
append = 'run="toucher schedule=1m@0,9m@1 seconds=3 seed=1"'
"""

KERNELS = [(guest, "") for guest in ("hello", "paging", "processes")]
KERNELS += [(guest, 'disk = "8M"\nappend = \'quiet run="check"\'\n') for guest in ("os-i386", "os-pae", "os-x86_64")]
GUESTS = """
memory = "160M"
seconds = "3s"
instructions_per_second = 20000000
[services]
scan_rate = 30000
sample_period = "700ms"
""" + "".join(
    f'[[vm]]\nname = "{guest}-{mmu}"\nguest = "{guest}"\nmmu = "{mmu}"\nmemory = "16M"\n{more}'
    for guest, more in KERNELS
    for mmu in ("shadow", "nested")
)
SLICES = {PRESSURE: [1, 3, 17, 18, 30, 41, 55], MIXED: [1, 3, 17, 18, 30, 41, 55], GUESTS: [1, 2, 3, 5, 8, 11, 17]}


def new_host(text: str, *, threads: int = 2) -> Host:
    return Host(scenario.parse(text, "test", "test"), threads=threads)


def run_to(host: Host, watcher: Watcher, slices: int) -> None:
    host.run(watcher, stop=lambda: host.now >= slices * host.scenario.insns_per_second // 10)


@pytest.mark.parametrize("text", SLICES, ids=["pressure", "mixed", "guests"])
def test_a_run_that_goes_on_is_the_run_uninterrupted(text: str, tmp_path: Path) -> None:
    """Saved at several times, loaded each time, on another number of threads: what is printed, every number, and the last snapshot are the same."""
    whole, watcher = new_host(text), Watcher()
    whole.run(watcher)
    snapshot.save(whole, tmp_path / "whole")
    parts = Watcher()
    host = new_host(text, threads=1)
    for number, slices in enumerate(SLICES[text]):
        run_to(host, parts, slices)
        snapshot.save(host, tmp_path / "part")
        host.close()
        host = snapshot.load(tmp_path / "part", Options(threads=1 + number % 3, checks=number == 4))
        snapshot.save(host, tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == (tmp_path / "part").read_bytes()
    host.run(parts)
    snapshot.save(host, tmp_path / "parts")
    assert parts.printed == watcher.printed
    assert parts.rows == watcher.rows
    assert [vm.why for vm in host.vms] == [vm.why for vm in whole.vms]
    whole.close()
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    host.close()
    assert host.memory.frames.free_count == len(host.memory.frames)
    assert sum(vm.swapped.read for vm in host.vms) > 100 or text is not PRESSURE


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    host = new_host('memory = "16M"\nseconds = "9s"\n[[vm]]\nname = "a"\nmemory = "8M"\ndisk = "8M"\n')
    run_to(host, Watcher(), 3)
    snapshot.save(host, tmp_path / "a.snap")
    host.close()
    return tmp_path / "a.snap"


def refused(path: Path) -> str:
    with pytest.raises(SnapshotError) as found:
        snapshot.load(path, Options()).close()
    line = str(found.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


def test_what_is_no_snapshot(tmp_path: Path, saved: Path) -> None:
    assert refused(tmp_path / "nowhere") == "cannot read the snapshot (no such file or directory)"
    assert refused(tmp_path) == "cannot read the snapshot (is a directory)"
    (tmp_path / "text").write_text("memory = 3")
    assert refused(tmp_path / "text") == "no snapshot, or a damaged one (File is not a zip file)"
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("x", "y")
    assert "no snapshot, or a damaged one" in refused(tmp_path / "zip")
    for size in (0, 100, saved.stat().st_size // 2, saved.stat().st_size - 1):
        (tmp_path / "cut").write_bytes(saved.read_bytes()[:size])
        assert "no snapshot, or a damaged one" in refused(tmp_path / "cut")


def test_every_changed_byte_is_found(tmp_path: Path, saved: Path) -> None:
    whole = saved.read_bytes()
    for at in range(50, len(whole) - 3000, len(whole) // 23):
        (tmp_path / "changed").write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        refused(tmp_path / "changed")


def rewrite(source: Path, target: Path, change: object) -> None:
    """A copy whose index went through a function."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == snapshot.INDEX:
                document = json.loads(data)
                change(document)  # type: ignore[operator]
                data = json.dumps(document).encode()
            new.writestr(name, data)


def test_an_index_that_does_not_fit(tmp_path: Path, saved: Path) -> None:
    def other_form(document: dict) -> None:
        document["form"] = "emu 0.0.1"

    def no_machine(document: dict) -> None:
        document["machines"] = {}

    def other_attribute(document: dict) -> None:
        del document["host"]["state"]["now"]

    def wrong_array(document: dict) -> None:
        document["used"] = 10**6

    for change, line in (
        (other_form, "written by emu 0.0.1; this is emu"),
        (no_machine, "a damaged snapshot"),
        (other_attribute, "a damaged snapshot (the snapshot does not fit a Host: now)"),
        (wrong_array, "a damaged snapshot"),
    ):
        rewrite(saved, tmp_path / "changed", change)
        assert line in refused(tmp_path / "changed")


def test_a_full_disk_leaves_the_snapshot_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = new_host('memory = "16M"\nseconds = "9s"\n[[vm]]\nname = "a"\nmemory = "8M"\n')
    run_to(host, Watcher(), 2)
    path = tmp_path / "a.snap"
    snapshot.save(host, path)
    before = path.read_bytes()
    run_to(host, Watcher(), 4)

    def fsync(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OutputError, match=r"cannot write the snapshot \(no space left on device\)"):
            snapshot.save(host, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write the snapshot \(file too large\)"):
            snapshot.save(host, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["a.snap"]
    host.close()
