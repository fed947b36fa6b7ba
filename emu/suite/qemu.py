"""The same case in QEMU's TCG: its serial text and how it ended."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from emu.errors import EmuError
from emu.events import Outcome
from emu.suite.cases import Case
from emu.suite.run import Finished, serial_text
from emu.wording import exit_value

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
MOST_ERROR_BYTES = 1 << 16
STATUS_OF_SHUTDOWN = 0  # triple fault or reset under -no-reboot


@dataclass(frozen=True)
class QemuRun:
    """How QEMU ended."""

    status: int | None  # None: it was ended
    serial: str
    why: str = ""  # it was ended


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
    options = ["-kernel", str(case.image.absolute()), "-append", case.append]
    if case.modules:
        options += ["-initrd", ",".join(_escaped(path) for path in case.modules)]
    return options


def _escaped(path: Path) -> str:
    """A file's name in a list; absolute, since QEMU takes `fat:rw:x` for more than a name."""
    return str(path.absolute()).replace(",", ",,")


def run(case: Case, outcome: Outcome, output_bytes: int, seconds: float | None = None) -> QemuRun:
    """Run a case that ended here with `outcome`, within limits; raises EmuError when QEMU itself fails."""
    limit_s = min(ENDLESS_LIMIT_S if outcome is Outcome.HALTED else LIMIT_S, seconds or LIMIT_S)
    with _attached(case) as disks, tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(command(case, disks), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        except OSError as error:
            raise EmuError(f"{PROGRAM}: cannot be run ({error.strerror})") from error
        with process:
            try:
                printed, why = _output(process, time.monotonic() + limit_s, output_bytes)
            finally:
                if process.poll() is None:
                    process.kill()
        errors.seek(0)
        said = errors.read(MOST_ERROR_BYTES)
    serial = serial_text(printed)
    if why:
        return QemuRun(None, serial, why.format(seconds=f"{limit_s:g} s"))
    if process.returncode == 1 and said.startswith(b"qemu-system"):
        raise EmuError(serial_text(said).strip().splitlines()[0])
    return QemuRun(process.returncode, serial)


def _output(process: subprocess.Popen[bytes], until: float, most_bytes: int) -> tuple[bytes, str]:
    """What QEMU printed, and why it must be ended, if it must."""
    assert process.stdout is not None
    printed = bytearray()
    while select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
        data = os.read(process.stdout.fileno(), 1 << 16)
        if not data:  # it closed its output: it is about to end
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                break
            return bytes(printed), ""
        printed += data
        if len(printed) > most_bytes:
            return bytes(printed[:most_bytes]), "printed more than the output limit"
    return bytes(printed), "still running after {seconds}"


def expected_status(ours: Finished) -> int | None:
    """QEMU's exit status for the way our run ended; None where it goes on for ever."""
    if ours.outcome is Outcome.EXITED:
        return (ours.value << 1 | 1) & 0xFF
    return STATUS_OF_SHUTDOWN if ours.outcome in (Outcome.TRIPLE_FAULT, Outcome.RESET) else None


def describe(run: QemuRun) -> str:
    """How it ended, in words."""
    if run.status is None:
        return run.why
    if run.status < 0:
        return f"ended by signal {-run.status}"
    return f"debug exit with value {exit_value(run.status >> 1)}" if run.status & 1 else f"status {run.status}"
