# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots: a run that goes on from one is the run that never stopped, to the last byte; and what is no snapshot is refused with a line."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from emu.errors import OutputError, SnapshotError
from emu.host import scenario, snapshot
from emu.host.host import Host
from emu.host.snapshot import Options
from emu.machine import control as cbw
from emu.vm import step_records
from emu.vm.state import MADE_WITH
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


def test_what_would_never_end(tmp_path: Path) -> None:
    """A pipe that nobody writes to, a device without an end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/full")):
        assert refused(path) == "no snapshot, but a pipe or a device"


def packed(array: np.ndarray | bytes) -> bytes:
    """A member as snapshots have them."""
    out = io.BytesIO()
    if isinstance(array, np.ndarray):
        np.lib.format.write_array(out, array, allow_pickle=True)
    contents: bytes = pa.compress(out.getvalue() if isinstance(array, np.ndarray) else array, codec="zstd", asbytes=True)
    return contents


def with_member(source: Path, target: Path, name: str, data: bytes) -> Path:
    """A copy in which one member is another, with the right checksum."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for each in old.namelist():
            new.writestr(each, data if each == name else old.read(each))
    return target


class Explosive:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


HUGE = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999,), }".ljust(117) + b"\n"


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("arrays/3.npy.zst", packed(np.array([Explosive()], object)), "is no array of a machine"),
        ("arrays/3.npy.zst", packed(HUGE), "is no array of a machine"),
        ("arrays/3.npy.zst", packed(np.zeros(1 << 24, np.int64)), "is no array of a machine"),  # 128 MB in 4 KB
        ("arrays/3.npy.zst", packed(np.zeros(3)), "is no array of a machine"),
        ("arrays/3.npy.zst", packed(np.zeros(3, np.uint8)) + packed(bytes(1 << 20)), "has more than an array"),
        ("arrays/3.npy.zst", packed(b"nothing"), "is no array"),
        ("arrays/3.npy.zst", b"nothing", "cannot read the snapshot"),
        ("snapshot.json", b"[" * 100_000, "no snapshot, or a damaged one"),
        ("snapshot.json", b"{}", "written by something else"),
        ("snapshot.json", b'{"form": "\\u001b[2J"}', "written by \\x1b[2J; this is emu"),
    ],
)
def test_members_that_are_made_up(tmp_path: Path, saved: Path, name: str, data: bytes, line: str) -> None:
    """Each in bounded memory, and nothing runs what is in it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert line in refused(with_member(saved, tmp_path / "made", name, data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert not Path("exploded").exists()


def test_a_deflated_bomb(tmp_path: Path, saved: Path) -> None:
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("snapshot.json", old.read("snapshot.json") + b" " * (1 << 28))
    assert "its members are compressed in another way" in refused(tmp_path / "bomb")


def changed_array(source: Path, target: Path, place: tuple[object, ...], change: Callable[[np.ndarray], None]) -> Path:
    """A copy in which an array is changed; `place` leads to its number in the index."""
    with zipfile.ZipFile(source) as archive:
        at = json.loads(archive.read(snapshot.INDEX))
        for key in place:
            at = at[key]  # type: ignore[index]
        name = f"arrays/{at if isinstance(at, int) else at['number']}.npy.zst"
        with archive.open(name) as member, pa.CompressedInputStream(member, "zstd") as stream:
            array = np.lib.format.read_array(stream).copy()
    change(array)
    return with_member(source, target, name, packed(array))


STATE = ("machines", "1", "vm", "state", "state")
FRAMES = ("host", "state", "memory", "state", "frames", "state")


def put(at: object, value: int) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[at] = value  # type: ignore[index]

    return change


@pytest.mark.parametrize(
    ("place", "change", "line"),
    [
        ((*STATE, "state", "pmap"), put(100, 1 << 32 | 0x7FFF_FFFF), "the pmap's frames"),
        ((*STATE, "state", "rmap"), put(3, 1 << 30), "the reverse map"),
        ((*STATE, "state", "tables"), put(3, -5), "the pages that are tables"),
        ((*STATE, "state", "reserve"), put(0, -1), "the reserve"),
        ((*STATE, "state", "rows"), put((slice(None), 9), 1), "the shadow pages' frames"),
        ((*STATE, "state", "links"), put(slice(None), 1 << 30), "the shadow entries' lists"),
        ((*STATE, "state", "sinks"), put(0, 1 << 40), "the sinks' frames"),
        ((*STATE, "extra", "words"), put(cbw.RESERVE_COUNT, 1 << 40), f"word {cbw.RESERVE_COUNT} of the control block"),
        ((*STATE, "extra", "words"), put(cbw.ROOT, -7), f"word {cbw.ROOT} of the control block"),
        ((*STATE, "extra", "words"), put(cbw.BLOCK, 1 << 40), "an address outside of the machine"),
        ((*STATE, "extra", "words"), put(cbw.STEPPING, step_records.LIMIT + 1), "an address outside of the machine"),
        ((*STATE, "extra", "words"), put(cbw.NESTED_ROOT, 0), "the roots of the tables are elsewhere"),
        ((*STATE, "extra", "code_pages"), put((0, slice(None)), 1 << 40), "an address outside of the machine"),
        ((*FRAMES, "_free"), put(0, -1), "the free list"),
        ((*FRAMES, "records"), lambda a: a["ppn"].fill(1 << 31), "the frame table's pages"),
        (("host", "state", "sharing", "state", "table", "state", "_next"), put(5, 1 << 30), "the content table's links"),
    ],
)
def test_numbers_that_lead_nowhere(
    tmp_path: Path, saved: Path, place: tuple[object, ...], change: Callable[[np.ndarray], None], line: str
) -> None:
    assert line in refused(changed_array(saved, tmp_path / "made", place, change))


def test_what_a_vm_is_made_with_is_not_the_file_s(tmp_path: Path, saved: Path) -> None:
    """Sizes of copies, numbers of slots and rows: whatever the file says, the run goes on as if it said nothing."""

    def spoil(words: np.ndarray) -> None:
        words[list(MADE_WITH)] = 1 << 40
        words[list(cbw.HOST_ADDRESSES)] = 0x1234

    def spoil_all(words: np.ndarray) -> None:
        block = words[cbw.BLOCK]
        spoil(words)
        words[cbw.BLOCK] = block

    made = changed_array(saved, tmp_path / "made", (*STATE, "extra", "words"), spoil_all)
    hosts = [snapshot.load(path, Options(checks=True)) for path in (saved, made)]
    for host in hosts:
        run_to(host, Watcher(), 8)
        snapshot.save(host, tmp_path / "after")
        host.close()
    first, second = (host.vms[0].times for host in hosts)
    assert first == second


def test_others_cannot_read_a_snapshot(tmp_path: Path, saved: Path) -> None:
    """Guests' memory is nobody else's business, whoever could read what was there before."""
    assert saved.stat().st_mode & 0o777 == 0o600
    host = snapshot.load(saved, Options())
    (tmp_path / "open").touch(0o666)
    snapshot.save(host, tmp_path / "open")
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o600
    host.close()


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
