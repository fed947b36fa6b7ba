"""The guest operating system: its start, its workloads beside QEMU, and its balloon.

Times of workloads are the difference of a long and a short run, so start-up and the making of files cancel out; both machines do the same
operations on an image made anew for each run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from emu import images
from emu.bench.harness import QEMU, QEMU_OPTIONS, Row, median, qemu_path, run_here, seconds_each
from emu.config import VmConfig
from emu.devices import disk
from emu.diskimage.make import make
from emu.errors import EmuError
from emu.events import Outcome
from emu.units import MIB, PAGE_BYTES
from emu.vm import launch

GUEST = "os-i386"
PROMPT = b"$ "
FILES_BYTES, SWAP_BYTES = 64 * MIB, 32 * MIB
QEMU_DONE = 1  # isa-debug-exit's status for the value 0
NO_QEMU = "qemu-system-i386 is not installed"
REPETITIONS = 3  # of runs of seconds each
REAL_SECOND_INSNS = 400_000_000  # about what this machine executes in one
FILEBENCH = "filebench files=100 size=64k seed=1 operations={}"
COMPILE = "compile seed=1 units={}"
BATCH_PAGES = 512
BALLOON_SIZES = (128, 144, 160, 192, 224)  # MB, of 256: those of the paper's figure 2
BALLOON_FILL = "filebench files=320 size=1024k seconds=20 reads=97 writes=2 creates=1 seed=1"
INFLATED_AT = "1s"  # while the files are made


def _run_here(append: str, image: Path, config: VmConfig) -> float:
    """Seconds of a run on a copy of the image in memory."""
    files = launch.boot_files(launch.Boot(images.guest(GUEST), append), config.memory_bytes)
    console = launch.RecordingConsole()
    vm = launch.new_machine(config, files, console, None, [disk.copy_disk(image)])
    start = time.perf_counter()
    stop = vm.run()
    seconds = time.perf_counter() - start
    if stop.outcome is not Outcome.EXITED or stop.value:
        raise EmuError(
            f"{GUEST} with '{append}': {stop.outcome}, value {stop.value}: {console.output[-200:].decode(errors='replace')}"
        )
    vm.close()
    return seconds


def _run_qemu(append: str, image: Path) -> float:
    drive = f"file={image},format=raw,if=ide,cache=unsafe,snapshot=on"
    command = [QEMU, *QEMU_OPTIONS, "-kernel", str(images.guest(GUEST)), "-append", append, "-drive", drive]
    start = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode != QEMU_DONE:
        raise EmuError(
            f"{QEMU} with '{append}' ended with status {done.returncode}: {done.stdout[-200:].decode(errors='replace')}"
        )
    return seconds


def _workload(name: str, program: str, few: int, many: int, *, as_real: bool = True) -> Row:
    """A workload here and in QEMU; `as_real`: with virtual seconds about as long as real ones, as QEMU's are.

    A timer interrupt comes 100 times in a virtual second, a flush of dirty pages and a line of output once. At the default of 10
    million instructions a second the guest does more of these than in QEMU, 45 times as many for the same workload.
    """
    config = VmConfig(insns_per_second=REAL_SECOND_INSNS) if as_real else VmConfig()
    with tempfile.TemporaryDirectory(prefix="emu-bench-") as folder:
        image = Path(folder) / "os.img"
        make(image, FILES_BYTES, SWAP_BYTES)

        def seconds(run: Callable[[str, Path], float]) -> float:
            short, long = (run(f'run="{program.format(count)}"', image) for count in (few, many))
            return (long - short) / (many - few)

        value = median(lambda: seconds(lambda append, image: _run_here(append, image, config)), REPETITIONS) * 1e3
        if qemu_path() is None:
            return Row(name, value, "ms", "qemu", note=NO_QEMU)
        return Row(name, value, "ms", "qemu tcg", median(lambda: seconds(_run_qemu), REPETITIONS) * 1e3)


def os_filebench() -> Row:
    """A file read, written, made or deleted."""
    return _workload("os-filebench", FILEBENCH, 200, 12200)


def os_compile() -> Row:
    """A process of cc: fork, exec, 16 KB read, words counted, an object written."""
    return _workload("os-compile", COMPILE, 20, 220)


def os_filebench_short_seconds() -> Row:
    """The same with the default virtual second, 10 million instructions."""
    return _workload("os-filebench-10m", FILEBENCH, 200, 12200, as_real=False)


def os_compile_short_seconds() -> Row:
    """The same with the default virtual second."""
    return _workload("os-compile-10m", COMPILE, 20, 220, as_real=False)


def os_boot() -> Row:
    """From the start of the process to the shell's prompt, compiled code being on disk."""
    command = [sys.executable, "-m", "emu", "boot", GUEST, "--disk", f"memory:{MIB}", "--quiet"]
    _until_prompt(command)
    value = median(lambda: _until_prompt(command))
    if qemu_path() is None:
        return Row("os-boot", value, "s", "qemu", note=NO_QEMU)
    qemu = [QEMU, *QEMU_OPTIONS, "-kernel", str(images.guest(GUEST))]
    return Row("os-boot", value, "s", "qemu tcg", median(lambda: _until_prompt(qemu)))


def _until_prompt(command: list[str]) -> float:
    start = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        seen = b""
        while not seen.endswith(PROMPT):
            byte = process.stdout.read(1)
            if not byte:
                raise EmuError(f"{' '.join(command)} ended before its prompt: {seen.decode(errors='replace')}")
            seen += byte
        seconds = time.perf_counter() - start
        process.kill()
    return seconds


def balloon() -> Row:
    """Pages a second that are stored to, given away with their frames in batches of 512, and taken back."""
    config = VmConfig(balloon_plan=((0, BATCH_PAGES * PAGE_BYTES),))
    each = seconds_each(lambda append: run_here(append, config), "balloon", 20, 1020) / BATCH_PAGES
    return Row("balloon", 1 / each, "pages/s")


def _throughput(memory_mib: int, balloon_to_mib: int) -> int:
    """Bytes of filebench in a given virtual time, in a VM of so much memory, or of that less a balloon."""
    target = (memory_mib - balloon_to_mib) * MIB
    plan = ((VmConfig.insns_per_second, target),) if target else ()
    config = VmConfig(memory_bytes=memory_mib * MIB, balloon_plan=plan)
    with tempfile.TemporaryDirectory(prefix="emu-bench-") as folder:
        image = Path(folder) / "os.img"
        make(image, 2 * memory_mib * MIB, 0)
        files = launch.boot_files(launch.Boot(images.guest(GUEST), f'run="{BALLOON_FILL}"'), config.memory_bytes)
        console = launch.RecordingConsole()
        vm = launch.new_machine(config, files, console, None, [disk.open_disk(image, readonly=False)])
        stop = vm.run()
        size = vm.balloon.size
        vm.close()
    if stop.outcome is not Outcome.EXITED or stop.value or size != target // PAGE_BYTES:
        raise EmuError(f"balloon-overhead, {memory_mib} MB to {balloon_to_mib} MB: {stop.outcome}, {size} pages in the balloon")
    summary = console.output.rsplit(b"filebench summary", 1)[1].split()
    return next(int(word[6:]) for word in summary if word.startswith(b"bytes="))


def balloon_overhead(size_mib: int) -> Row:
    """filebench in a VM of 256 MB ballooned down, beside a VM of that size: bytes in 20 virtual seconds."""
    value, given = (_throughput(memory, size_mib) / MIB for memory in (2 * BALLOON_SIZES[0], size_mib))
    return Row(f"balloon-{size_mib}", value, "MB", f"given {size_mib} MB", given)


OS_BENCHMARKS: dict[str, Callable[[], Row]] = {
    "os-boot": os_boot,
    "os-filebench": os_filebench,
    "os-filebench-10m": os_filebench_short_seconds,
    "os-compile": os_compile,
    "os-compile-10m": os_compile_short_seconds,
    "balloon": balloon,
    **{f"balloon-{size}": (lambda size=size: balloon_overhead(size)) for size in BALLOON_SIZES},  # type: ignore[misc]
}
