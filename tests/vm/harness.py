# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtual machines whose whole ROM is a test's few instructions; see harness.S for what stands around them.

`run` assembles a program, runs it to its end and has the auditor look at what is left; `run_both` does so under shadow
and under nested paging and demands that no trace of the difference is visible to the guest.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emu import events
from emu.config import Mmu, VmConfig
from emu.events import Kind, Outcome
from emu.machine.memory import MachineMemory
from emu.units import MIB, MPN, PAGE_BYTES
from emu.vm import check, launch, pmap
from emu.vm.exits import Stop
from emu.vm.state import frames_needed
from emu.vm.vm import VirtualMachine

HERE = Path(__file__).resolve().parent
ROM_AT = 0xF_0000
ROM_BYTES = 0x1_0000
NOTES_USED, NOTES, NOTE_WORDS = 0x4000, 0x4020, 8  # as in harness.S
DIRECTORY, TABLE = 0x1_0000, 0x1_1000
UNEXPECTED = 0x7F  # what the handlers end the run with
INSN_LIMIT = 1_000_000  # the longest program here takes a tenth
ZIG = [sys.executable, "-m", "ziglang"]


class Note(NamedTuple):
    """What a handler of the harness was given."""

    vector: int
    error: int
    eip: int
    cs: int
    eflags: int
    esp: int
    ss: int
    cr2: int


@dataclass
class Program:
    """A ROM and the addresses of its labels."""

    rom: bytes
    labels: dict[str, int]


@functools.cache
def assemble(source: str, *, real_mode: bool = False) -> Program:
    """The ROM for a program that begins at its label `test`."""
    with tempfile.TemporaryDirectory(prefix="emu-test-") as name:
        folder = Path(name)
        (folder / "test.S").write_text(source + "\n")
        linked, rom = folder / "rom.elf", folder / "rom.bin"
        flags = ["-target", "x86-freestanding-none", f"-I{folder}", *(["-DREAL_MODE"] if real_mode else [])]
        _zig("cc", *flags, "-c", HERE / "harness.S", "-o", folder / "rom.o")
        _zig("ld.lld", f"-Ttext={ROM_AT:#x}", "--image-base=0", "-e", "start", folder / "rom.o", "-o", linked)
        _zig("objcopy", "-O", "binary", linked, rom)
        return Program(rom.read_bytes(), _labels(linked.read_bytes()))


def _zig(*arguments: object) -> None:
    done = subprocess.run([*ZIG, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _labels(elf: bytes) -> dict[str, int]:
    """The symbols of a 32-bit ELF file."""

    def word(at: int, size: int = 4) -> int:
        return int.from_bytes(elf[at : at + size], "little")

    table, size, count = word(0x20), word(0x2E, 2), word(0x30, 2)
    headers = [table + size * number for number in range(count)]
    symbols = next(at for at in headers if word(at + 4) == 2)
    names = word(headers[word(symbols + 24)] + 16)
    labels = {}
    for at in range(word(symbols + 16), word(symbols + 16) + word(symbols + 20), 16):
        name = elf[names + word(at) :].split(b"\0", 1)[0].decode()
        labels[name] = word(at + 4)
    return labels


@dataclass
class Run:
    """A run that has ended."""

    vm: VirtualMachine
    program: Program
    stop: Stop
    records: np.ndarray

    @property
    def notes(self) -> list[Note]:
        """What the handlers were given, in order."""
        used = self.word(NOTES_USED)
        return [Note(*(self.word(at + 4 * number) for number in range(NOTE_WORDS))) for at in range(NOTES, used, 4 * NOTE_WORDS)]

    def word(self, pa: int) -> int:
        """A 32-bit word of guest-physical memory."""
        return int.from_bytes(self.vm.read_physical(pa, 4), "little")

    def label(self, name: str) -> int:
        """The address of a label of the program."""
        return self.program.labels[name]

    def of_kind(self, kind: Kind) -> np.ndarray:
        """The records of one kind."""
        chosen: np.ndarray = self.records[self.records["kind"] == int(kind)]
        return chosen

    def ram(self) -> np.ndarray:
        """All of the guest's RAM."""
        state = self.vm.state
        kinds = state.pmap[: state.ram_pages] >> pmap.STATE_SHIFT & pmap.STATE_MASK
        ram = np.zeros((len(kinds), PAGE_BYTES), np.uint8)
        for ppn in np.flatnonzero(kinds == pmap.PRESENT_PAGE):
            ram[ppn] = state.memory.frame(MPN(int(state.pmap[ppn]) & pmap.MPN_MASK))
        return ram


def make(rom: bytes, mmu: Mmu = Mmu.SHADOW, **settings: Any) -> tuple[VirtualMachine, list[np.ndarray]]:
    """A machine of 4 MB with this ROM, and the list that its event records go to."""
    chosen = {"memory_bytes": 4 * MIB, "shadow_pages": 64, "nested_tables": 256, "reserve_frames": 128} | settings
    config = VmConfig(mmu=Mmu(mmu), events=frozenset(events.GROUPS), **chosen)
    memory = MachineMemory(frames_needed(config, len(rom)) * PAGE_BYTES, debug=True)
    seen: list[np.ndarray] = []
    vm = VirtualMachine(
        memory, config, rom=rom, firmware_files={}, console=launch.RecordingConsole(), on_events=lambda r: seen.append(r.copy())
    )
    return vm, seen


def run(source: str, mmu: Mmu = Mmu.SHADOW, *, real_mode: bool = False, limit: int = INSN_LIMIT, **settings: Any) -> Run:
    """Run a program to its end and check what is left."""
    program = assemble(source, real_mode=real_mode)
    vm, seen = make(program.rom, mmu, **settings)
    stop = vm.run(limit=limit)
    check.check(vm.state)
    vm.board.check()
    records = np.concatenate(seen) if seen else np.zeros(0, events.RECORD)
    return Run(vm, program, stop, records)


def run_both(source: str, *, real_mode: bool = False, **settings: Any) -> Run:
    """Run under both MMUs; the guest must not be able to tell which. Returns the run under shadow paging."""
    shadow = run(source, Mmu.SHADOW, real_mode=real_mode, **settings)
    nested = run(source, Mmu.NESTED, real_mode=real_mode, **settings)
    assert shadow.stop == nested.stop
    assert shadow.notes == nested.notes
    differing = np.argwhere(shadow.ram() != nested.ram())
    assert not len(differing), [f"{ppn * PAGE_BYTES + offset:#x}" for ppn, offset in differing[:8]]
    assert shadow.vm.retired_insns == nested.vm.retired_insns
    return shadow


def exits_with(value: int) -> Stop:
    """The end of a run by the exit port."""
    return Stop(Outcome.EXITED, value)


def run_apart(source: str, mmu: Mmu) -> tuple[int, str]:
    """(exit status, name of the outcome) of a run in a process of its own, which a signal may end (status < 0)."""
    code = "from tests.vm.harness import run; import sys; print(run(sys.argv[1], sys.argv[2], limit=30_000).stop.outcome)"
    done = subprocess.run(
        [sys.executable, "-c", code, source, mmu], capture_output=True, text=True, check=False, cwd=HERE.parents[1]
    )
    return done.returncode, done.stdout.strip()
