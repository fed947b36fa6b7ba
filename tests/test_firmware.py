# SPDX-License-Identifier: GPL-2.0-or-later
"""The boot ROM on QEMU's PC: what it hands to a kernel, and how it refuses what it cannot load."""

from __future__ import annotations

import importlib.util
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
QEMU = shutil.which("qemu-system-i386")
PROBE_ADDRESS = 0x11_0000
PROBE_EXIT = 0x10 << 1 | 1  # what isa-debug-exit makes of the 0x10 that the probe writes
RUN_LIMIT_S = 30  # a run takes a fraction of a second; this only ends a hung one
HALT_WAIT_S = 1  # a kernel that ran after the message would have ended QEMU by then

pytestmark = pytest.mark.skipif(QEMU is None, reason="qemu-system-i386 is not installed")


def firmware_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("firmware_build", ROOT / "firmware" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built: Path = firmware_builder().build(tmp_path_factory.mktemp("rom"))
    return built


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The flat kernel that prints what it is given; to be loaded and entered at PROBE_ADDRESS."""
    folder = tmp_path_factory.mktemp("probe")
    zig = [sys.executable, "-m", "ziglang"]
    flags = firmware_builder().COMPILE_FLAGS
    script = folder / "probe.ld"
    script.write_text(
        f"SECTIONS {{ . = {PROBE_ADDRESS}; .all : {{ *(.text.start) *(.text*) *(.rodata*) }} /DISCARD/ : {{ *(.eh_frame) }} }}"
    )
    image = folder / "probe.bin"
    subprocess.run([*zig, "cc", *flags, "-c", ROOT / "tests/firmware_probe.c", "-o", folder / "probe.o"], check=True)
    subprocess.run(
        [*zig, "ld.lld", "-T", script, "--oformat", "binary", folder / "probe.o", "-o", image],
        check=True,
    )
    return image.read_bytes()


def kernel_files(probe: bytes) -> dict[str, bytes]:
    return {
        "entry": struct.pack("<I", PROBE_ADDRESS),
        "segments": struct.pack("<II", PROBE_ADDRESS, len(probe)),
        "image": probe,
    }


def module_files(modules: Mapping[str, tuple[int, bytes]]) -> dict[str, bytes]:
    records = (struct.pack("<II56s", at, len(data), name.encode()) for name, (at, data) in modules.items())
    return {"modules": b"".join(records), "module-data": b"".join(data for _, data in modules.values())}


def qemu_command(rom: Path, files: Mapping[str, bytes], folder: Path, memory_mib: int) -> list[str]:
    options = []
    for name, data in files.items():
        (folder / name).write_bytes(data)
        options += ["-fw_cfg", f"name=opt/emu/{name},file={folder / name}"]
    assert QEMU is not None
    return [
        *[QEMU, "-nodefaults", "-accel", "tcg", "-display", "none", "-serial", "stdio", "-no-reboot"],
        *["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-m", str(memory_mib), "-bios", str(rom)],
        *options,
    ]


def run(rom: Path, files: Mapping[str, bytes], folder: Path, memory_mib: int = 32) -> list[str]:
    """The lines that the probe prints."""
    command = qemu_command(rom, files, folder, memory_mib)
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False)
    assert (done.returncode, done.stderr) == (PROBE_EXIT, ""), done.stdout
    return done.stdout.splitlines()


def refusal(rom: Path, files: Mapping[str, bytes], folder: Path) -> str:
    """The first line of a run that ends in the firmware, which halts for ever."""
    command = qemu_command(rom, files, folder, memory_mib=32)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as qemu:
        assert qemu.stdout is not None
        late = threading.Timer(RUN_LIMIT_S, qemu.kill)  # a firmware that says nothing
        late.start()
        line = qemu.stdout.readline()
        late.cancel()
        with pytest.raises(subprocess.TimeoutExpired):
            qemu.wait(HALT_WAIT_S)
        qemu.kill()
    return line.rstrip("\n")


def polynomial(data: bytes) -> str:
    """The probe's checksum."""
    value = 0
    for byte in data:
        value = (value * 31 + byte) & 0xFFFF_FFFF
    return f"{value:08x}"


def test_kernel_gets_what_multiboot_promises(rom: Path, probe: bytes, tmp_path: Path) -> None:
    modules = {"first": (0x20_0000, bytes(range(256)) * 40), "second one": (0x30_1000, b"x"), "empty": (0x40_0000, b"")}
    files = kernel_files(probe) | module_files(modules) | {"cmdline": b"kernel a=1 b\0"}
    assert run(rom, files, tmp_path) == [
        "magic 2badb002",
        "interrupts 00000000",
        "mode 00000001",
        "flags 0000024d",
        "lower 0000027f",
        "upper 00007c00",
        "cmdline [kernel a=1 b]",
        "loader [emu]",
        "region 00000000 0009fbff available 00000014",
        "region 0009fc00 0009ffff reserved 00000014",
        "region 000f0000 000fffff reserved 00000014",
        "region 00100000 01ffffff available 00000014",
        "region ffff0000 ffffffff reserved 00000014",
        *["module [first]", "start 00200000", "end 00202800", f"sum {polynomial(modules['first'][1])}"],
        *["module [second one]", "start 00301000", "end 00301001", "sum 00000078"],
        *["module [empty]", "start 00400000", "end 00400000", "sum 00000000"],
    ]


def test_command_line_and_modules_may_be_absent(rom: Path, probe: bytes, tmp_path: Path) -> None:
    lines = run(rom, kernel_files(probe), tmp_path)
    assert "cmdline []" in lines
    assert not [line for line in lines if line.startswith("module")]


@pytest.mark.parametrize("memory_mib", [2, 3, 512])
def test_memory_map_ends_where_memory_does(rom: Path, probe: bytes, tmp_path: Path, memory_mib: int) -> None:
    lines = run(rom, kernel_files(probe), tmp_path, memory_mib)
    assert f"upper {(memory_mib - 1) * 1024:08x}" in lines
    assert f"region 00100000 {(memory_mib << 20) - 1:08x} available 00000014" in lines


def test_segments_are_scattered_from_one_image(rom: Path, probe: bytes, tmp_path: Path) -> None:
    half = len(probe) // 2
    segments = ((0x500, 8), (PROBE_ADDRESS + half, len(probe) - half), (PROBE_ADDRESS, half))
    files = kernel_files(probe) | {
        "segments": b"".join(struct.pack("<II", *segment) for segment in segments),
        "image": b"unneeded" + probe[half:] + probe[:half],
    }
    assert run(rom, files, tmp_path)[0] == "magic 2badb002"


def segment(address: int, length: int) -> bytes:
    return struct.pack("<II", address, length)


OUTSIDE = "emu firmware: the kernel or a module lies outside usable memory"
OVER_TABLES = "emu firmware: the kernel or a module lies where the multiboot information is to be"
NO_TABLES = "emu firmware: the multiboot information would lie outside usable memory"
WRONG_TABLE = "emu firmware: a table of segments or modules has the wrong size"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"entry": None}, "emu firmware: no kernel given", id="no entry"),
        pytest.param({"segments": None}, "emu firmware: no kernel given", id="no segments"),
        pytest.param({"image": None}, "emu firmware: the kernel or a module is shorter than announced", id="no image"),
        pytest.param({"segments": segment(0x4FF, 16)}, OUTSIDE, id="over the BIOS data"),
        pytest.param({"segments": segment(0x8FFF, 2)}, OVER_TABLES, id="into the boot tables"),
        pytest.param({"segments": segment(0x9000 + 0x27FF, 2)}, OVER_TABLES, id="from the boot tables on"),
        pytest.param({"segments": segment(0x8000, 0x8000)}, OVER_TABLES, id="around the boot tables"),
        pytest.param({"tables": struct.pack("<I", 0x9_E000)}, NO_TABLES, id="tables into the extended BIOS data"),
        pytest.param({"tables": struct.pack("<I", 0x1FF_E000)}, NO_TABLES, id="tables beyond memory"),
        pytest.param({"tables": struct.pack("<I", PROBE_ADDRESS)}, OVER_TABLES, id="tables over the kernel"),
        pytest.param({"segments": segment(0x9_FBFF, 2)}, OUTSIDE, id="over the BIOS data area"),
        pytest.param({"segments": segment(0xF_0000, 16)}, OUTSIDE, id="over the ROM"),
        pytest.param({"segments": segment(0x200_0000 - 8, 16)}, OUTSIDE, id="beyond memory"),
        pytest.param({"segments": segment(0x20_0000, 0xFFFF_FFFF)}, OUTSIDE, id="wraps around"),
        pytest.param({"segments": b"1234567"}, WRONG_TABLE, id="part of a record"),
        pytest.param({"modules": bytes(64 * 65)}, "emu firmware: more than 64 modules", id="too many modules"),
        pytest.param({"cmdline": b"a" * 4097}, "emu firmware: the command line is longer than 4095 characters", id="long line"),
    ],
)
def test_firmware_says_why_and_halts(
    rom: Path, probe: bytes, tmp_path: Path, change: dict[str, bytes | None], message: str
) -> None:
    files = kernel_files(probe) | change
    assert refusal(rom, {name: data for name, data in files.items() if data is not None}, tmp_path) == message
