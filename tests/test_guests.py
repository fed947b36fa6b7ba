# SPDX-License-Identifier: GPL-2.0-or-later
"""Every guest that ends by itself does the same under shadow paging, under nested paging and in QEMU."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from emu import images
from emu.config import Mmu, VmConfig
from emu.devices.disk import memory_disk
from emu.machine.memory import MachineMemory
from emu.units import MIB, PAGE_BYTES
from emu.vm import check, loader
from emu.vm.exits import Outcome, Stop
from emu.vm.state import frames_needed
from emu.vm.vm import VirtualMachine

QEMU = shutil.which("qemu-system-i386")
QEMU_LIMIT_S = 60  # a run takes a second; this only ends a hung one
INSN_LIMIT = 200_000_000  # twenty times what the longest run here takes
EMU = [sys.executable, "-c", "from emu.cli import run; run()"]
NEEDS_DISK, DISK_BYTES = "mode=disk", 2 * MIB
ROOT = Path(__file__).resolve().parent.parent

SCRIPT = b"help\necho one  two\nfault\nnonsense\n\nechx\x7fo again\nquit\n"  # what differs between machines is left out


@dataclass
class ScriptedConsole:
    """Serial input that is there from the beginning, as from a file; output is kept."""

    script: bytes = b""
    output: bytearray = field(default_factory=bytearray)
    debug: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes) -> None:
        self.output += data

    def write_debug(self, data: bytes) -> None:
        self.debug += data

    def poll(self) -> bytes:
        data, self.script = self.script, b""
        return data

    def idle(self, seconds: float | None) -> bool:
        del seconds
        return bool(self.script)


def make_vm(
    image: Path,
    config: VmConfig,
    console: ScriptedConsole,
    append: str = "",
    on_events: Callable[[np.ndarray], None] | None = None,
) -> VirtualMachine:
    """A machine just large enough with one VM that will boot `image`, and an empty disk if it is to measure one."""
    rom = images.firmware()
    memory = MachineMemory(frames_needed(config, len(rom)) * PAGE_BYTES, debug=True)
    files = loader.load(image, config.memory_bytes, append)
    disks = [memory_disk(DISK_BYTES)] if NEEDS_DISK in append else []
    return VirtualMachine(memory, config, rom=rom, firmware_files=files, console=console, on_events=on_events, disks=disks)


def run_here(guest: str, mmu: Mmu, append: str = "", script: bytes = b"", memory_mib: int = 32) -> tuple[bytes, Stop]:
    """(serial output, end) of a guest; the auditor has looked at what is left."""
    console = ScriptedConsole(script)
    vm = make_vm(images.guest(guest), VmConfig(memory_bytes=memory_mib * MIB, mmu=mmu), console, append)
    stop = vm.run(limit=INSN_LIMIT)
    check.check(vm.state)
    vm.close()
    return bytes(console.output), stop


def run_in_qemu(guest: str, append: str = "", script: bytes = b"", memory_mib: int = 32) -> tuple[bytes, int]:
    """(serial output, exit status) of a guest on QEMU's PC."""
    assert QEMU is not None
    command = [QEMU, "-accel", "tcg", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
    command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-m", str(memory_mib)]
    command += ["-kernel", str(images.guest(guest)), "-append", append]
    with tempfile.NamedTemporaryFile(prefix="emu-disk-") as disk:
        disk.truncate(DISK_BYTES)
        if NEEDS_DISK in append:
            command += ["-drive", f"file={disk.name},format=raw,if=ide"]
        run = subprocess.run(command, input=script, capture_output=True, timeout=QEMU_LIMIT_S, check=False)
    return run.stdout, run.returncode


CASES = {
    "hello": ("hello", "", b""),
    "hello-arguments": ("hello", "one two=3 'four five'", b""),
    "paging": ("paging", "", b""),
    "processes": ("processes", "", b""),
    "console": ("console", "", SCRIPT),
    "console-crlf": ("console", "", b"echo a\r\necho b\r\nquit\r"),
    "bench-integer": ("bench", "mode=integer n=20000", b""),
    "bench-memory": ("bench", "mode=memory n=20", b""),
    "bench-branch": ("bench", "mode=branch n=20000", b""),
    "bench-store": ("bench", "mode=store n=20000", b""),
    "bench-cpuid": ("bench", "mode=cpuid n=100", b""),
    "bench-cr3": ("bench", "mode=cr3 n=200", b""),
    "bench-fault": ("bench", "mode=fault n=200", b""),
    "bench-ptewrite": ("bench", "mode=ptewrite n=300", b""),
    "bench-ptestore": ("bench", "mode=ptestore n=300", b""),
    "bench-ptebulk": ("bench", "mode=ptebulk n=3", b""),
    "bench-fork": ("bench", "mode=fork n=5", b""),
    "bench-fork-clean": ("bench", "mode=fork-clean n=5", b""),
    "bench-wp": ("bench", "mode=wp n=300", b""),
    "bench-syscall": ("bench", "mode=syscall n=500", b""),
    "bench-touch": ("bench", "mode=touch n=2 pages=512", b""),
    "bench-unpaged": ("bench", "mode=store n=2000 paging=off", b""),
    "bench-disk-read": ("bench", "mode=disk-read n=3 request=1048576", b""),
    "bench-disk-write": ("bench", "mode=disk-write n=9 request=65536", b""),
    "bench-no-mode": ("bench", "mode=nonsense", b""),
}
cases = pytest.mark.parametrize("case", CASES)


@cases
def test_shadow_and_nested_agree(case: str) -> None:
    guest, append, script = CASES[case]
    shadow = run_here(guest, Mmu.SHADOW, append, script)
    nested = run_here(guest, Mmu.NESTED, append, script)
    assert shadow == nested
    assert shadow[1].outcome is Outcome.EXITED
    assert shadow[0]


@pytest.mark.skipif(QEMU is None, reason="qemu-system-i386 is not installed")
@cases
def test_qemu_agrees(case: str) -> None:
    guest, append, script = CASES[case]
    output, stop = run_here(guest, Mmu.SHADOW, append, script)
    qemu_output, qemu_status = run_in_qemu(guest, append, script)
    assert output.decode() == qemu_output.decode()
    assert 2 * stop.value + 1 == qemu_status


@pytest.mark.parametrize("guest", ["hello", "paging", "processes"])
def test_guests_end_well(guest: str) -> None:
    output, stop = run_here(guest, Mmu.SHADOW)
    assert stop == Stop(Outcome.EXITED, 0)
    assert b"FAILED" not in output


def test_a_guest_that_fails_says_so() -> None:
    _output, stop = run_here("bench", Mmu.SHADOW, "mode=nonsense")
    assert stop.outcome is Outcome.EXITED
    assert stop.value != 0


@pytest.mark.parametrize("mmu", list(Mmu))
@pytest.mark.parametrize("memory_mib", [4, 33, 1024])
def test_hello_sees_the_memory_it_was_given(mmu: Mmu, memory_mib: int) -> None:
    output, stop = run_here("hello", mmu, memory_mib=memory_mib)
    assert f"memory: {memory_mib} MiB\n".encode() in output
    assert stop == Stop(Outcome.EXITED, 0)


def test_console_answers_its_script() -> None:
    output, _stop = run_here("console", Mmu.SHADOW, script=SCRIPT)
    lines = output.decode().split("\n")
    assert "one  two" in lines  # the blanks inside the arguments are the user's
    assert "again" in lines
    assert any(line.startswith("survived a page fault at ") and line.endswith("50000000, error W") for line in lines)
    assert "nonsense: no such command; try help" in lines
    assert lines[-2:] == ["bye", ""]


def test_every_bench_mode_is_a_case() -> None:
    """A mode that bench gains has to be compared too; its complaint about an unknown one names them all."""
    complaint = run_here("bench", Mmu.SHADOW, "mode=nonsense")[0].decode()
    modes = complaint.split("expected one of", 1)[1].split()
    compared = {append.split()[0] for guest, append, _ in CASES.values() if guest == "bench"}
    assert {f"mode={mode}" for mode in modes if mode != "balloon"} <= compared  # QEMU has none


def test_the_command_runs_a_guest() -> None:
    run = subprocess.run(
        [*EMU, "boot", "processes", "--quiet"], capture_output=True, stdin=subprocess.DEVNULL, cwd=ROOT, check=False
    )
    assert (run.returncode, run.stdout) == (0, run_here("processes", Mmu.SHADOW)[0])


@pytest.mark.parametrize("mmu", Mmu)
def test_the_balloon_s_mode_gives_pages_away_and_takes_them_back(mmu: Mmu) -> None:
    console = ScriptedConsole()
    config = VmConfig(memory_bytes=32 * MIB, mmu=mmu, balloon_plan=((0, 2 * MIB),))
    vm = make_vm(images.guest("bench"), config, console, "mode=balloon n=3")
    assert vm.run(limit=INSN_LIMIT).value == 0
    check.check(vm.state)
    assert (vm.balloon.counts.locks, vm.balloon.counts.unlocks, vm.balloon.size) == (3 * 512, 3 * 512, 0)
    vm.close()
