# SPDX-License-Identifier: GPL-2.0-or-later
"""Whoever can carry out the fuzz guest's script: emu's two MMUs, and QEMU.

An engine takes the bytes of a script and gives back what the guest wrote to port E9h, and what ended the run if it was not
the guest.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from emu.config import MIN_SHADOW_PAGES, SHADOW_SWITCHES
from tests.truth import guest, layout
from tests.truth.cases import Board

INSN_LIMIT = 2_000_000_000
QEMU_SECONDS = 30
QEMU = "qemu-system-x86_64"
VIRTUALIZATION = re.compile(r"^flags\s*:.*\b(vmx|svm)\b", re.MULTILINE)


@dataclass(frozen=True)
class Engine:
    """A processor with paging."""

    name: str
    run: Callable[[bytes], tuple[bytes, str]]
    board: Board = Board()


def run_emu(script: bytes, mmu: str, **settings: object) -> tuple[bytes, str]:
    """The guest under emu; the auditor looks at what is left."""
    from emu import images
    from emu.config import Mmu, VmConfig
    from emu.errors import EmuError
    from emu.events import Outcome
    from emu.machine.memory import MachineMemory
    from emu.units import MIB, PAGE_BYTES
    from emu.vm import check, launch, loader
    from emu.vm.state import frames_needed
    from emu.vm.vm import VirtualMachine

    with tempfile.TemporaryDirectory(prefix="emu-fuzz-") as name:
        kernel, module = _files(Path(name), script)
        memory_bytes = layout.MEMORY_MIB * MIB
        config = VmConfig(memory_bytes=memory_bytes, mmu=Mmu(mmu), **settings)
        files = loader.load(kernel, memory_bytes, modules=(module,))
    rom = images.firmware()
    memory = MachineMemory(frames_needed(config, len(rom)) * PAGE_BYTES)
    console = launch.RecordingConsole()
    vm = VirtualMachine(memory, config, rom=rom, firmware_files=files, console=console)
    vm.no_reboot = True
    try:
        stop = vm.run(limit=INSN_LIMIT)
        check.check(vm.state)
    except (AssertionError, EmuError) as error:
        return bytes(console.debug), f"{type(error).__name__}: {error}"
    return bytes(console.debug), "" if stop.outcome is Outcome.EXITED else f"the VM stopped: {stop.outcome} {stop.why}"


def run_qemu(script: bytes, accelerator: str) -> tuple[bytes, str]:
    """The guest in QEMU."""
    with tempfile.TemporaryDirectory(prefix="emu-fuzz-") as name:
        kernel, module = _files(Path(name), script)
        report = Path(name) / "report"
        command = [QEMU, "-accel", accelerator, "-cpu", "max", "-m", str(layout.MEMORY_MIB), "-nodefaults", "-no-reboot"]
        command += ["-display", "none", "-debugcon", f"file:{report}", "-device", f"isa-debug-exit,iobase={layout.EXIT_PORT:#x}"]
        command += ["-kernel", str(kernel), "-initrd", str(module)]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=QEMU_SECONDS, check=False)
        return (report.read_bytes() if report.exists() else b""), ""


def _run_plain(script: bytes) -> tuple[bytes, str]:
    from tests.truth import plain  # loads the engine

    return plain.run(script)


def _files(folder: Path, script: bytes) -> tuple[Path, Path]:
    kernel, module = folder / "fuzz.elf", folder / "script"
    kernel.write_bytes(guest.image())
    module.write_bytes(script)
    return kernel, module


# Shadow paging without its optimizations, and with room for so few shadow pages that they are recycled all the time.
BARE = {"shadow_switches": frozenset(SHADOW_SWITCHES), "shadow_pages": MIN_SHADOW_PAGES}
ENGINES = {
    "shadow": Engine("shadow", functools.partial(run_emu, mmu="shadow"), Board(refuses_pointers=True, reads_first=True)),
    "bare": Engine("bare", functools.partial(run_emu, mmu="shadow", **BARE), Board(refuses_pointers=True, reads_first=True)),
    "nested": Engine(
        "nested",
        functools.partial(run_emu, mmu="nested"),
        Board(checks_pointers=False, refuses_pointers=True, marks_huge=True, reads_first=True),
    ),
    "plain": Engine("plain", _run_plain, Board(absent_word=None, checks_pointers=False, marks_huge=True, reads_first=True)),
    "qemu": Engine(
        "qemu",
        functools.partial(run_qemu, accelerator="tcg"),
        board=Board(absent_word=0, marks_pointers=True, checks_pointers=False, marks_huge=True, reads_first=True),
    ),
    "kvm": Engine("kvm", functools.partial(run_qemu, accelerator="kvm")),
}


def missing(name: str) -> str | None:
    """Why an engine cannot be used here, None if it can."""
    if name in ("qemu", "kvm") and shutil.which(QEMU) is None:
        return f"{QEMU} is not installed"
    if name == "kvm":
        try:
            flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        except OSError:
            flags = ""
        if not VIRTUALIZATION.search(flags):
            return "the flags in /proc/cpuinfo show neither vmx nor svm: KVM would be software too, and prove nothing"
        if not Path("/dev/kvm").exists():
            return "there is no /dev/kvm"
    return None
