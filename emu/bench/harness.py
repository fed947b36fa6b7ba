"""How a benchmark is measured: repetitions, the median, start-up taken out by running two lengths.

Guests are the `bench` kernel that comes with emu; the same file runs here, in QEMU and in plain Unicorn.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from emu import images
from emu.config import VmConfig
from emu.devices.disk import Disk
from emu.errors import EmuError
from emu.events import Outcome
from emu.vm import launch
from emu.vm.vm import VirtualMachine

REPETITIONS = 5
QEMU = "qemu-system-i386"
QEMU_OPTIONS = (
    *("-accel", "tcg", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-m", "32"),
    *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
)
QEMU_SUCCESS = 1  # isa-debug-exit's status for the value 0


@dataclass(frozen=True)
class Row:
    """A line of the table: a value, and a peer's where there is one. `ratio` is value over peer's value."""

    name: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Value over peer's value."""
        return self.value / self.peer_value if self.peer_value else None


def new_vm(append: str, config: VmConfig | None = None, disks: Sequence[Disk] = ()) -> VirtualMachine:
    """A VM with the bench guest, ready to run."""
    config = config or VmConfig()
    files = launch.boot_files(launch.Boot(images.guest("bench"), append), config.memory_bytes)
    return launch.new_machine(config, files, launch.RecordingConsole(), attached=disks)


def run_here(append: str, config: VmConfig | None = None, disks: Sequence[Disk] = ()) -> float:
    """Seconds that a run of the bench guest takes in this process; raises EmuError if it fails."""
    vm = new_vm(append, config, disks)
    start = time.perf_counter()
    stop = vm.run()
    seconds = time.perf_counter() - start
    if stop.outcome is not Outcome.EXITED or stop.value:
        raise EmuError(f"bench guest with '{append}': {stop.outcome}, value {stop.value}")
    return seconds


def qemu_path() -> str | None:
    """QEMU, if it is installed."""
    return shutil.which(QEMU)


def run_qemu(append: str, *options: str) -> float:
    """The same in QEMU, with further options, start-up included."""
    command = [QEMU, *QEMU_OPTIONS, "-kernel", str(images.guest("bench")), "-append", append, *options]
    start = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode != QEMU_SUCCESS:
        raise EmuError(f"{QEMU} with '{append}' ended with status {done.returncode}: {done.stderr.decode().strip()}")
    return seconds


def median(measure: Callable[[], float], repetitions: int = REPETITIONS) -> float:
    """The median of several measurements."""
    return statistics.median(measure() for _ in range(repetitions))


def seconds_each(run: Callable[[str], float], mode: str, few: int, many: int) -> float:
    """Seconds that one repetition of a bench loop takes: the difference of two runs, divided."""

    def once() -> float:
        short = run(f"mode={mode} n={few}")
        return (run(f"mode={mode} n={many}") - short) / (many - few)

    return median(once)
