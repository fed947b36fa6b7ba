# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest OS is stopped at hundreds of points in the middle of writing: its file system is sound at each, with everything that was synced."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from emu import images
from emu.config import VmConfig
from emu.devices import disk
from emu.diskimage import layout
from emu.diskimage.check import check
from emu.diskimage.image import Image
from emu.diskimage.make import make
from emu.events import Outcome
from emu.units import MIB
from emu.vm import launch

ROOT = Path(__file__).resolve().parents[2]
EMU = [sys.executable, "-c", "from emu.cli import run; run()"]
POINTS = 200
SEED, SIZE = 1, 40_000
MASK = 0xFFFF_FFFF
LIMIT = 20_000_000_000


def mix(a: int, b: int, c: int) -> int:
    """As the guest's library has it."""
    value = a * 0x9E3779B1 & MASK ^ b
    value = ((value << 13 | value >> 19) & MASK) * 0x85EBCA77 & MASK ^ c
    value = ((value << 17 | value >> 15) & MASK) * 0xC2B2AE3D & MASK
    return value ^ value >> 15


def contents_of(number: int) -> bytes:
    """What keeper writes to a file."""
    count = 1 + mix(SEED, number, 0) % (SIZE // 4)
    return b"".join(mix(SEED, number, 1 + at).to_bytes(4, "little") for at in range(count))


def expected_files(serial: str) -> list[int]:
    """The files that must be there."""
    synced = {int(number) for number in re.findall(r"^synced (\d+)\r$", serial, re.MULTILINE)}
    return sorted(synced - {int(number) for number in re.findall(r"^deleting (\d+)", serial, re.MULTILINE)})


def check_stop(path: Path, serial: str, where: str) -> int:
    """Check an image as a stop left it; how many files it must have."""
    with Image(path) as image:
        report = check(image)
        assert not report.faults, f"{where}: {report.faults}"
        found = {name: inode for name, _, inode in image.walk()}
        for number in expected_files(serial):
            name = f"/keep/{number:05}"
            assert name in found, f"{where}: {name} was synced and is gone"
            assert b"".join(image.contents(found[name])) == contents_of(number), f"{where}: {name} is not what was synced"
    return len(expected_files(serial))


@pytest.mark.parametrize("guest", ["os-i386", "os-x86_64"])
def test_a_stop_at_any_point_leaves_a_sound_file_system(guest: str, tmp_path: Path) -> None:
    made, stopped = tmp_path / "made.img", tmp_path / "stopped.img"
    make(made, 4 * MIB, MIB)
    config = VmConfig(memory_bytes=16 * MIB)
    console = launch.RecordingConsole()
    files = launch.boot_files(
        launch.Boot(images.guest(guest), f'run="keeper files=60 window=12 size={SIZE} seed={SEED}"'), 16 * MIB
    )
    attached = disk.copy_disk(made)
    vm = launch.new_machine(config, files, console, None, [attached])
    assert vm.run(limit=LIMIT).outcome is Outcome.EXITED
    end = vm.virtual_time
    vm.close()
    rng = random.Random(guest)
    points = sorted(rng.randrange(end // 50, end) for _ in range(POINTS))
    console = launch.RecordingConsole()
    attached = disk.copy_disk(made)
    vm = launch.new_machine(config, files, console, None, [attached])
    replayed, most = 0, 0
    for point in points:
        vm.run_until(point)
        contents = bytearray(attached.sectors * disk.SECTOR_BYTES)
        attached.read(0, [memoryview(contents)])
        stopped.write_bytes(contents)
        most = max(most, check_stop(stopped, console.output.decode(), f"{guest} at {point}"))
        with Image(stopped) as image:
            replayed += image.replayed > 0
            assert image.partition.kind == layout.PARTITION_FILES
    vm.close()
    assert most >= 12
    assert replayed > 0, "no stop fell between a commit and the writes that it promises"


def test_a_killed_emu_leaves_an_image_to_go_on_with(tmp_path: Path) -> None:
    image = tmp_path / "os.img"
    make(image, 4 * MIB, MIB)
    boot = [*EMU, "boot", "os-pae", "--memory", "16M", "--disk", str(image), "--quiet", "--append"]
    endless = f'run="keeper files=90000 window=12 size={SIZE} seed={SEED}"'
    with subprocess.Popen([*boot, endless], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        serial = b""
        while b"synced 40" not in serial:
            serial += process.stdout.readline()
        process.kill()
        serial += process.stdout.read()
    whole = serial.decode()[: serial.decode().rfind("\n") + 1]  # the last line may be cut
    with Image(image) as opened:
        assert not check(opened).faults
        names = {name for name, _, _ in opened.walk()}
    assert all(f"/keep/{number:05}" in names for number in expected_files(whole)[2:])  # the oldest may be going
    done = subprocess.run([*boot, 'run="check"'], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout
    with Image(image) as opened:
        assert not check(opened).faults
