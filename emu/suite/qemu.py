"""The same case in QEMU's TCG: its serial text and how it ended."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from emu.errors import EmuError
from emu.events import Outcome
from emu.suite.cases import Case
from emu.suite.run import Finished, serial_text

PROGRAM = "qemu-system-x86_64"
# The processor that `emu.vm.cpuid` describes, so that guests skip the same checks.
PROCESSOR = (
    "qemu64,family=15,model=6,stepping=1,-svm,-hypervisor,-mce,-mca,-vme,"
    "+pat,+pge,+apic,+mtrr,+pse36,+pdpe1gb,+smep,+smap,+fsgsbase"
)
OPTIONS = (
    *("-accel", "tcg", "-cpu", PROCESSOR, "-nodefaults", "-vga", "std", "-display", "none", "-serial", "stdio", "-no-reboot"),
    *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
)
LIMIT_S = 120.0  # of the host's clock: QEMU has no other
ENDLESS_LIMIT_S = 5.0  # for a guest that is expected to halt for ever
STATUS_OF_SHUTDOWN = 0  # triple fault or reset under -no-reboot


@dataclass(frozen=True)
class QemuRun:
    """How QEMU ended."""

    status: int | None  # None: it was still running at the limit
    serial: str
    limit_s: float


def is_installed() -> bool:
    """Whether there is a QEMU to compare with."""
    return shutil.which(PROGRAM) is not None


def command(case: Case, disks: Sequence[Path] = ()) -> list[str]:
    """The command line that boots a case, with `disks` attached."""
    line = [PROGRAM, *OPTIONS, "-m", f"{case.memory_bytes >> 10}k", *_boot_options(case)]
    return [*line, *(option for disk in disks for option in _drive(disk)), *case.qemu_options]


@contextlib.contextmanager
def _attached(case: Case) -> Iterator[list[Path]]:
    """The files of a case's disks; for one that has only a size, an empty file while QEMU runs."""
    with contextlib.ExitStack() as stack:
        yield [disk if isinstance(disk, Path) else stack.enter_context(_empty_file(disk)) for disk in case.disks]


@contextlib.contextmanager
def _empty_file(size: int) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(prefix="emu-disk-") as file:
        file.truncate(size)
        yield Path(file.name)


def _drive(image: Path) -> list[str]:
    """An IDE drive. A snapshot: what the guest writes is not kept."""
    return ["-drive", f"file={_escaped(image)},format=raw,if=ide,snapshot=on"]


def _boot_options(case: Case) -> list[str]:
    """What it boots. QEMU's lists are separated by commas, and a comma in a name is doubled."""
    if case.is_disk:
        return _drive(case.image)
    options = ["-kernel", str(case.image), "-append", case.append]
    if case.modules:
        options += ["-initrd", ",".join(_escaped(path) for path in case.modules)]
    return options


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")


def run(case: Case, outcome: Outcome) -> QemuRun:
    """Run a case that ended here with `outcome`; raises EmuError when QEMU itself fails."""
    limit_s = ENDLESS_LIMIT_S if outcome is Outcome.HALTED else LIMIT_S
    try:
        with _attached(case) as disks:
            line = command(case, disks)
            done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired as late:
        return QemuRun(None, serial_text(late.stdout or b""), limit_s)
    except OSError as error:
        raise EmuError(f"{PROGRAM}: cannot be run ({error.strerror})") from error
    if done.returncode == 1 and done.stderr.startswith(b"qemu-system"):
        raise EmuError(serial_text(done.stderr).strip().splitlines()[0])
    return QemuRun(done.returncode, serial_text(done.stdout), limit_s)


def expected_status(ours: Finished) -> int | None:
    """QEMU's exit status for the way our run ended; None where it goes on for ever."""
    if ours.outcome is Outcome.EXITED:
        return (ours.value << 1 | 1) & 0xFF
    return STATUS_OF_SHUTDOWN if ours.outcome in (Outcome.TRIPLE_FAULT, Outcome.RESET) else None


def describe(status: int | None, limit_s: float) -> str:
    """An exit status in words."""
    if status is None:
        return f"still running after {limit_s:g} s"
    if status < 0:
        return f"ended by signal {-status}"
    return f"debug exit with value {status >> 1}" if status & 1 else f"status {status}"
