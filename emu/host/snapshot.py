"""Snapshots: a whole machine in a file, from which a run goes on as if it had never stopped.

A snapshot is taken between two slices. It has all state and no cache: translated code and the engine's TLB are made again by whoever goes on.

The file is a ZIP archive: `snapshot.json` with the scenario and all that is not an array, `arrays/N.npy.zst` (Zstandard) with the rest: the frame table, the
frames in use, each VM's tables, its disk, what is on its swap area. Native code works on these arrays as they are, so only the emu that wrote them can go on.
A file is replaced as a whole or not at all.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from emu import __version__
from emu.devices.disk import SECTOR_BYTES, Disk, DiskError, memory_disk
from emu.errors import EmuError, MachineMemoryError, OutputError, SnapshotError
from emu.host import build, scenario
from emu.host.host import Host
from emu.host.hosted import HostedVm, Phase
from emu.machine.engine import VERSION as UNICORN
from emu.machine.memory import FrameUse
from emu.machine.native import sources_digest
from emu.replacing import replacing
from emu.resources.swap_area import SwapFullError
from emu.saving import Giver, Taker
from emu.units import PAGE_BYTES

FORMAT = 1
INDEX = "snapshot.json"
FORM = f"emu {__version__}, unicorn {UNICORN}, build {sources_digest()}"


@dataclass(frozen=True)
class Options:
    """What a run has that is no part of its state."""

    threads: int = 2
    swap_folder: Path | None = None
    checks: bool = False


def save(host: Host, path: Path) -> None:
    """Write a snapshot; raises OutputError, and then the file is as it was."""
    taker = Taker()
    files: dict[bytes, int] = {}  # contents of firmware files, which many VMs have in common
    machines = {vm.number: _take_machine(vm, taker, files) for vm in host.vms if vm.has_memory}
    records = host.memory.frames.records
    used = np.flatnonzero(records["use"] != FrameUse.FREE)
    document = {
        "format": FORMAT,
        "form": FORM,
        "scenario": {"text": host.scenario.text, "name": host.scenario.name},
        "host": taker.take(host),
        "machines": machines,
        "used": taker.array(used),
        "frames": taker.array(host.memory.bytes.reshape(-1, PAGE_BYTES)[used]),
    }
    try:
        with replacing(path, is_private=True) as file, zipfile.ZipFile(file, "w") as archive:
            archive.writestr(zipfile.ZipInfo(INDEX), json.dumps(document))
            for number, array in enumerate(taker.arrays):
                _write(archive, f"arrays/{number}.npy.zst", array)
    except OSError as error:
        raise OutputError(f"{path}: cannot write the snapshot ({(error.strerror or str(error)).lower()})") from error


def _write(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with (
        archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member,
        pa.CompressedOutputStream(member, "zstd") as stream,
    ):
        np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)


def _take_machine(vm: HostedVm, taker: Taker, files: dict[bytes, int]) -> dict[str, Any]:
    vm.vm.flush_events()
    named = {}
    for name, contents in vm.vm.firmware_files.items():
        if contents not in files:
            files[contents] = taker.array(np.frombuffer(contents, np.uint8))
        named[name] = files[contents]
    return {"files": named, "disk": None if vm.vm.disk is None else taker.array(_contents(vm.vm.disk)), "vm": taker.take(vm.vm)}


def _contents(disk: Disk) -> np.ndarray:
    contents = np.empty(disk.sectors * SECTOR_BYTES, np.uint8)
    disk.read(0, [memoryview(contents)])  # type: ignore[arg-type]
    return contents


@dataclass(frozen=True)
class Contents:
    """What a snapshot's file has."""

    path: Path
    document: dict[str, Any]
    arrays: list[np.ndarray]


def load(path: Path, options: Options) -> Host:
    """The machine of a snapshot; raises SnapshotError if it is none that this emu can go on from, or damaged."""
    return resume(read(path), options)


def read(path: Path) -> Contents:
    """A snapshot's file; raises SnapshotError."""
    try:
        with zipfile.ZipFile(path) as archive:
            document = json.loads(archive.read(INDEX))
            if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("form") != FORM:
                form = document.get("form", "something else") if isinstance(document, dict) else "something else"
                raise SnapshotError(f"{path}: written by {form}; this is {FORM}, and only the same can go on from it")
            arrays = [_read(archive, f"arrays/{number}.npy.zst") for number in range(len(archive.namelist()) - 1)]
    except OSError as error:
        raise SnapshotError(f"{path}: cannot read the snapshot ({(error.strerror or str(error)).lower()})") from error
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        raise SnapshotError(f"{path}: no snapshot, or a damaged one ({error})") from error
    return Contents(path, document, arrays)


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as member, pa.CompressedInputStream(member, "zstd") as stream:
        array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
        if member.read(1):
            raise SnapshotError(f"{name}: more than an array")
    return array


def resume(contents: Contents, options: Options) -> Host:
    """The machine of it; raises SnapshotError, or why this host cannot take it."""
    path, document, arrays = contents.path, contents.document, contents.arrays
    said = document["scenario"]
    plan = scenario.parse(said["text"], str(path), said["name"])
    host = Host(plan, threads=options.threads, swap_folder=options.swap_folder, checks=options.checks)
    giver = Giver(arrays)
    try:
        specs = dict(zip((vm.number for vm in host.vms), plan.vms, strict=True))
        for vm in host.vms:
            machine = document["machines"].get(str(vm.number))
            if machine is not None:
                host.memory.frames.free_all()  # each VM is made in an empty machine, and then put where it was
                files = {name: arrays[number].tobytes() for name, number in machine["files"].items()}
                disk = None if machine["disk"] is None else _disk(arrays[machine["disk"]])
                host.adopt(vm, build.new_vm(vm, specs[vm.number], plan.insns_per_second, files, disk))
        giver.give(host, document["host"])
        host.memory.bytes.reshape(-1, PAGE_BYTES)[arrays[document["used"]]] = arrays[document["frames"]]
        for vm in host.vms:
            if vm.phase is Phase.ENDED:
                vm.swap.close()
            if vm.has_memory:
                giver.give(vm.vm, document["machines"][str(vm.number)]["vm"])
        host.check_accounts()
        if options.checks:
            host.check()
    except (MachineMemoryError, OutputError, SwapFullError):  # of the host that should go on, not of the snapshot
        host.close_hard()
        raise
    except (KeyError, IndexError, TypeError, ValueError, EmuError) as error:
        host.close_hard()
        raise SnapshotError(f"{path}: a damaged snapshot ({error})") from error
    return host


def _disk(contents: np.ndarray) -> Disk:
    disk = memory_disk(len(contents))
    try:
        disk.write(0, [memoryview(contents)])  # type: ignore[arg-type]
    except DiskError as error:
        raise OutputError("the host's memory cannot take the snapshot's disks") from error
    return disk
