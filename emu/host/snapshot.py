"""Snapshots: a whole machine in a file, from which a run goes on as if it had never stopped.

A snapshot is taken between two slices. It has all state and no cache: translated code and the engine's TLB are made again by whoever goes on.

The file is a ZIP archive: `snapshot.json` with the scenario and all that is not an array, `arrays/N.npy.zst` (Zstandard) with the rest: the frame table, the
frames in use, each VM's tables, its disk, what is on its swap area. Native code works on these arrays as they are, so only the emu that wrote them can go on.
A file is replaced as a whole or not at all.
"""

from __future__ import annotations

import json
import math
import struct
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from emu import __version__
from emu.devices.disk import SECTOR_BYTES, Disk, DiskError, memory_disk
from emu.errors import EngineError, MachineMemoryError, OutputError, SnapshotError, UsageError
from emu.host import bounds, build, scenario
from emu.host.host import Host
from emu.host.hosted import HostedVm, Phase
from emu.host.scenario import Scenario
from emu.machine.engine import VERSION as UNICORN
from emu.machine.memory import FRAME, FrameUse
from emu.machine.native import sources_digest
from emu.replacing import replacing
from emu.resources.swap_area import SwapFullError
from emu.saving import Giver, Taker
from emu.units import MIB, PAGE_BYTES
from emu.vm.rows import ENTRIES, LINK_WORDS
from emu.wording import one_line

FORMAT = 2
INDEX = "snapshot.json"
MOST_INDEX_BYTES = 256 * MIB  # a thousand VMs take 75
LONGEST_REASON = 200  # characters of what is wrong with a file
NPY_VERSION = (1, 0)
KINDS = tuple(map(np.dtype, ("i8", "i4", "u8", "u2", "u1"))) + (FRAME,)  # of arrays in snapshots
DISK_OVERHEAD = MIB  # an image is larger than its file system and its swap partition
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
    return {"files": named, "disks": [taker.array(_contents(disk)) for disk in vm.vm.disks], "vm": taker.take(vm.vm)}


def _contents(disk: Disk) -> np.ndarray:
    contents = np.empty(disk.sectors * SECTOR_BYTES, np.uint8)
    disk.read(0, [memoryview(contents)])  # type: ignore[arg-type]
    return contents


@dataclass(frozen=True)
class Contents:
    """What a snapshot's file has."""

    path: Path
    document: dict[str, Any]
    plan: Scenario
    arrays: list[np.ndarray]


def load(path: Path, options: Options) -> Host:
    """The machine of a snapshot; raises SnapshotError if it is none that this emu can go on from, or damaged."""
    return resume(read(path), options)


def read(path: Path) -> Contents:
    """A snapshot's file. Takes no more memory than the machine that its scenario describes; raises SnapshotError, or MachineMemoryError."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # which would be waited for, or never end
            raise SnapshotError(f"{path}: no snapshot, but a pipe or a device")
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise SnapshotError(f"{path}: no snapshot, or a damaged one (its members are compressed in another way)")
            document = _index(path, archive)
            plan = _scenario(path, document["scenario"])
            room = _most_bytes(plan)
            arrays = []
            for number in range(len(archive.namelist()) - 1):
                arrays.append(_read(archive, f"arrays/{number}.npy.zst", room))
                room -= arrays[-1].nbytes
    except OSError as error:
        raise SnapshotError(f"{path}: cannot read the snapshot ({(error.strerror or _short(error)).lower()})") from error
    except MemoryError as error:
        raise MachineMemoryError(f"{path}: this host has too little memory for the snapshot") from error
    except (
        zipfile.BadZipFile,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        EOFError,
        RuntimeError,
        struct.error,
    ) as error:
        raise SnapshotError(f"{path}: no snapshot, or a damaged one ({_short(error)})") from error
    return Contents(path, document, plan, arrays)


def _index(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    if archive.getinfo(INDEX).file_size > MOST_INDEX_BYTES:
        raise ValueError("its index is too large")
    document = json.loads(archive.read(INDEX))
    form = document.get("form") if isinstance(document, dict) else None
    if form != FORM or document.get("format") != FORMAT:
        by = one_line(form)[:LONGEST_REASON] if isinstance(form, str) else "something else"
        raise SnapshotError(f"{path}: written by {by}; this is {FORM}, and only the same can go on from it")
    assert isinstance(document, dict)
    return document


def _scenario(path: Path, said: dict[str, str]) -> Scenario:
    text, name = said["text"], said["name"]
    if not isinstance(text, str) or not isinstance(name, str):
        raise TypeError("its scenario is no text")
    try:
        return scenario.parse(text, str(path), name)
    except UsageError as error:
        raise SnapshotError(f"{path}: a damaged snapshot: its scenario ({_short(error)})") from error


def _most_bytes(plan: Scenario) -> int:
    """What the arrays of a machine can take at the most, all together."""
    tables = (build.SHADOW_PAGES * ENTRIES * LINK_WORDS + MIB) * 4  # bytes of a VM whatever its size
    vms = sum(2 * vm.memory + vm.disk + vm.swap + DISK_OVERHEAD + tables for vm in plan.vms)
    return 2 * plan.memory + vms + MIB


def _short(error: Exception) -> str:
    """What an error says, on a line that is not too long."""
    return one_line(str(error) or type(error).__name__)[:LONGEST_REASON]


def _read(archive: zipfile.ZipFile, name: str, room: int) -> np.ndarray:
    """An array, which may have so many bytes; raises ValueError and what the formats raise."""
    with archive.open(name) as member, pa.CompressedInputStream(member, "zstd") as stream:
        shape, is_fortran, kind = _header(name, stream)
        size = math.prod(shape) * kind.itemsize
        if kind not in KINDS or is_fortran or not 0 <= size <= room:
            raise ValueError(f"{name} is no array of a machine")
        array = np.empty(shape, kind)
        _fill(array.reshape(-1).view(np.uint8), stream)
        if stream.read(1) or member.read(1):
            raise ValueError(f"{name} has more than an array")
    return array


def _header(name: str, stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of an array."""
    try:
        version = np.lib.format.read_magic(stream)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of types under names that NumPy would not use today
            found: tuple[tuple[int, ...], bool, np.dtype[Any]] = np.lib.format.read_array_header_1_0(stream)
    except OSError:
        raise
    except Exception as error:  # NumPy takes it for Python and lets a tokenizer loose on it, with errors of its own
        raise ValueError(f"{name} is no array ({_short(error)})") from error
    if version != NPY_VERSION:
        raise ValueError(f"{name} is an array of another version")
    return found


def _fill(buffer: np.ndarray, stream: Any) -> None:
    at = 0
    while at < len(buffer):
        part = stream.read(min(len(buffer) - at, MIB))
        if not part:
            raise EOFError("an array that ends too early")
        buffer[at : at + len(part)] = np.frombuffer(part, np.uint8)
        at += len(part)


def resume(contents: Contents, options: Options) -> Host:
    """The machine of it; raises SnapshotError, or why this host cannot take it."""
    try:
        host = Host(contents.plan, threads=options.threads, swap_folder=options.swap_folder, checks=options.checks)
    except MemoryError as error:
        raise MachineMemoryError(f"{contents.path}: this host has too little memory for the snapshot") from error
    try:
        _give(host, contents)
        bounds.check(host)
        host.check_accounts()
        if options.checks:
            host.check()
    except (EngineError, MachineMemoryError, OutputError, SwapFullError):  # of the host that should go on, not of the snapshot
        host.close_hard()
        raise
    except MemoryError as error:
        host.close_hard()
        raise MachineMemoryError(f"{contents.path}: this host has too little memory for the snapshot") from error
    except Exception as error:  # whatever a made-up file makes of our objects: it does not fit them
        host.close_hard()
        raise SnapshotError(f"{contents.path}: a damaged snapshot ({_short(error)})") from error
    except BaseException:
        host.close_hard()
        raise
    return host


def _give(host: Host, contents: Contents) -> None:
    """Put everything where it was."""
    document, arrays, giver = contents.document, contents.arrays, Giver(contents.arrays)
    specs = dict(zip((vm.number for vm in host.vms), contents.plan.vms, strict=True))
    for vm in host.vms:
        machine = document["machines"].get(str(vm.number))
        if machine is not None:
            host.memory.frames.free_all()  # each VM is made in an empty machine, and then put where it was
            files = {name: arrays[number].tobytes() for name, number in machine["files"].items()}
            disks = [_disk(arrays[number]) for number in machine["disks"]]
            host.adopt(vm, build.new_vm(vm, specs[vm.number], contents.plan.insns_per_second, files, disks))
    giver.give(host, document["host"])
    host.memory.bytes.reshape(-1, PAGE_BYTES)[arrays[document["used"]]] = arrays[document["frames"]]
    for vm in host.vms:
        if vm.phase is Phase.ENDED:
            vm.swap.close()
        if vm.has_memory:
            giver.give(vm.vm, document["machines"][str(vm.number)]["vm"])


def _disk(contents: np.ndarray) -> Disk:
    disk = memory_disk(len(contents))
    try:
        disk.write(0, [memoryview(contents)])  # type: ignore[arg-type]
    except DiskError as error:
        raise OutputError("the host's memory cannot take the snapshot's disks") from error
    return disk
