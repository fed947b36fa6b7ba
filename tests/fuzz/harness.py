# SPDX-License-Identifier: GPL-2.0-or-later
"""Files made at random for every reader of files: `scripts/fuzz-files --reader suite --count 100000 --seed 1`.

A reader is a module `tests/fuzz/NAME_reader.py` with

    seeds() -> list[bytes]                        valid inputs, which are changed at random
    try_one(data: bytes, folder: Path) -> None    reads `data`, in files of `folder` if it must; raises EmuError for what is refused
    TOKENS: tuple[bytes, ...]                     optional: words of the format, put in at random
    make(rng: random.Random) -> bytes             optional: an input by a grammar of its own, or changed in a way of its own
    RESERVED: int                                 optional: bytes of addresses that what it uses reserves and never touches

Input number n of a seed is the same wherever it is made. Each is tried in a process that may use 1 GB and 10 s of the processor (and be away for
two minutes in all, whatever else the machine does); what raises anything but EmuError, or uses more, is a finding, and the input is kept. Exit status: 0 nothing found, 1 something found, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import importlib
import json
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from emu.errors import EmuError
from tests.fuzz.mutate import mutate

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIMIT_S = 10  # of the processor
AWAY_S = 120  # of the clock, for what waits
LIMIT_BYTES = 1 << 30
MADE = 3  # of four inputs, those by the reader's own `make`, if it has one
MOST_FINDINGS = 20  # of one run: one defect is found many times
SCRATCH_FILES = 64  # in a worker's folder, before it is emptied
PLACE = struct.Struct("<qdqd")  # what worker and trier share: input in hand, slowest seconds, its number, most kilobytes


@dataclass(frozen=True)
class Finding:
    """An input that is not read as it should be."""

    number: int
    what: str  # the exception's last line, or how the process ended
    trace: str = ""

    @property
    def kind(self) -> str:
        """What makes two findings the same: the exception and where it was raised."""
        places = [line.strip() for line in self.trace.splitlines() if line.strip().startswith('File "')]
        return f"{self.what.split(':')[0]} {places[-1] if places else ''}"


@dataclass
class Report:
    """What a run came to."""

    inputs: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    slowest: int = -1  # its number
    most_bytes: int = 0  # resident, of a whole process
    findings: list[Finding] = field(default_factory=list)


def names() -> list[str]:
    """All readers."""
    return sorted(path.name.removesuffix("_reader.py") for path in HERE.glob("*_reader.py"))


def reader(name: str) -> ModuleType:
    """A reader by its name."""
    return importlib.import_module(f"tests.fuzz.{name}_reader")


def input_of(module: ModuleType, seeds: list[bytes], seed: int, number: int) -> bytes:
    """Input `number` of a seed; the first ones are the valid ones, unchanged."""
    if number < len(seeds):
        return seeds[number]
    rng = random.Random(f"{seed} {number}")
    if hasattr(module, "make") and rng.randrange(4) < MADE:
        made: bytes = module.make(rng)
        return made
    return mutate(rng, seeds, getattr(module, "TOKENS", ()))


# ---- in a worker ----


def _say(**values: Any) -> None:
    """A line for the parent, whole."""
    os.write(1, (json.dumps(values) + "\n").encode())


def work(name: str, seed: int, numbers: range) -> None:
    """Try these inputs, in a process that is replaced when it dies."""
    warnings.filterwarnings("ignore", message=".*multi-threaded", category=DeprecationWarning)  # the trier uses no thread
    module = reader(name)
    seeds = module.seeds()
    place = mmap.mmap(-1, PLACE.size)
    PLACE.pack_into(place, 0, numbers.start - numbers.step, 0.0, -1, 0.0)
    while True:
        tried = PLACE.unpack_from(place)[0]
        rest = range(tried + numbers.step, numbers.stop, numbers.step)
        if not rest:
            break
        if pid := os.fork():
            _, status = os.waitpid(pid, 0)
            if status:
                _say(number=PLACE.unpack_from(place)[0], what=_ending(status))
        else:
            _try_all(module, seeds, seed, rest, place)
    _, slowest_s, slowest, kilobytes = PLACE.unpack_from(place)
    _say(slowest_s=slowest_s, slowest=slowest, most_bytes=int(kilobytes) << 10)


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGPROF:
        return f"not done after {LIMIT_S} s"
    if code == -signal.SIGALRM:
        return f"still waiting after {AWAY_S} s"
    return f"the process ended with signal {-code}" if code < 0 else f"the process ended with status {code}"


def _limit_memory(reserved: int) -> None:
    """A limit for what the process has of its own, and for what it maps beyond that which libraries map when they are loaded."""
    limit = LIMIT_BYTES + reserved
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_AS, (mapped + limit, mapped + limit))


def _try_all(module: ModuleType, seeds: list[bytes], seed: int, numbers: range, place: mmap.mmap) -> None:
    """In a child: never returns."""
    _limit_memory(getattr(module, "RESERVED", 0))
    warnings.simplefilter("error")
    folder = Path(tempfile.mkdtemp(prefix="emu-fuzz-"))
    refused, slowest_s, slowest = 0, *PLACE.unpack_from(place)[1:3]
    try:
        for number in numbers:
            PLACE.pack_into(place, 0, number, slowest_s, slowest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            data = input_of(module, seeds, seed, number)
            start = time.process_time()
            _set_timers(LIMIT_S, AWAY_S)
            refused += _try(module, data, folder, number)
            _set_timers(0, 0)
            if time.process_time() - start > slowest_s:
                slowest_s, slowest = time.process_time() - start, number
            if number // numbers.step % SCRATCH_FILES == 0:
                _empty(folder)
        PLACE.pack_into(place, 0, numbers[-1], slowest_s, slowest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        _say(refused=refused, tried=len(numbers))
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)
    except BaseException:  # noqa: BLE001  (the input could not be made: a fault of the reader's module)
        traceback.print_exc()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)


def _set_timers(busy_s: float, away_s: float) -> None:
    """Their default is to end the process: nothing can hold them up."""
    signal.setitimer(signal.ITIMER_PROF, busy_s)
    signal.setitimer(signal.ITIMER_REAL, away_s)


def _try(module: ModuleType, data: bytes, folder: Path, number: int) -> int:
    """1 if it was refused."""
    try:
        module.try_one(data, folder)
    except EmuError as error:
        _check_message(error, number)
        return 1
    except BaseException as error:  # noqa: BLE001  (whatever else it is, is a finding)
        _set_timers(0, 0)
        trace = "".join(traceback.format_exception(error))[-4000:]
        _say(number=number, what=f"{type(error).__name__}: {error}"[:300], trace=trace)
    return 0


def _check_message(error: EmuError, number: int) -> None:
    """A refusal is for a terminal: it has words, is not endless, and drives nothing."""
    text = str(error)
    controls = [letter for letter in text if not letter.isprintable() and letter != "\n"]
    if not text.strip() or len(text) > 100_000 or controls:
        _say(number=number, what=f"BadMessage: {text[:200]!a}", trace="".join(traceback.format_exception(error))[-4000:])


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


# ---- in the command, and in tests ----


def fuzz(name: str, count: int, seed: int = 1, jobs: int = 1, on_finding: Callable[[Finding], None] = lambda _: None) -> Report:
    """Try `count` inputs on a reader, in `jobs` processes at once."""
    report = Report(inputs=count)
    workers = [_start(name, seed, first, count, jobs) for first in range(min(jobs, count))]
    try:
        for worker in workers:
            for said in _lines(worker):
                if "number" in said:
                    report.findings.append(Finding(**said))
                    on_finding(report.findings[-1])
                report.refused += said.get("refused", 0)
                report.most_bytes = max(report.most_bytes, said.get("most_bytes", 0))
                if said.get("slowest_s", 0) > report.slowest_s:
                    report.slowest_s, report.slowest = said["slowest_s"], said["slowest"]
            if worker.wait():
                raise RuntimeError(f"the fuzzer itself failed: {name}, status {worker.returncode}")
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    return report


def _start(name: str, seed: int, first: int, count: int, step: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.fuzz.harness", "--work", name, str(seed), str(first), str(count), str(step)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})


def _lines(worker: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    assert worker.stdout is not None
    return (json.loads(line) for line in worker.stdout)


class _Keeper:
    """Prints findings of a new kind as they come, and keeps their inputs."""

    def __init__(self, name: str, seed: int, folder: Path) -> None:
        self._module, self._name, self._seed, self._folder = reader(name), name, seed, folder
        self._kinds: dict[str, int] = {}

    def __call__(self, finding: Finding) -> None:
        self._kinds[finding.kind] = self._kinds.get(finding.kind, 0) + 1
        if self._kinds[finding.kind] > 1 or len(self._kinds) > MOST_FINDINGS:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._name}-{self._seed}-{finding.number}"
        path.write_bytes(input_of(self._module, self._module.seeds(), self._seed, finding.number))
        print(f"{self._name} input {finding.number}: {finding.what}\n  {path}\n{finding.trace}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="fuzz-files", description=__doc__.splitlines()[0])
    parser.add_argument("--reader", action="append", choices=names(), help="of what; repeatable; all if not given")
    parser.add_argument("--count", type=int, default=10_000, help="inputs for each reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at once")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="folder for inputs that were found")
    parser.add_argument("--input", type=Path, help="try this file only, in this process, with a traceback")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.work:
        name, seed, first, count, step = chosen.work
        work(name, int(seed), range(int(first), int(count), int(step)))
        return 0
    if chosen.input:
        return _try_file((chosen.reader or names())[0], chosen.input)
    return int(any([_fuzz_and_tell(name, chosen) for name in chosen.reader or names()]))  # noqa: C419  (all of them)


def _fuzz_and_tell(name: str, chosen: argparse.Namespace) -> bool:
    start = time.monotonic()
    report = fuzz(name, chosen.count, chosen.seed, chosen.jobs, _Keeper(name, chosen.seed, chosen.keep))
    print(json.dumps({"reader": name, "seed": chosen.seed} | asdict(report) | {"findings": len(report.findings)}), flush=True)
    print(f"{name}: {report.inputs} inputs, {len(report.findings)} findings, {time.monotonic() - start:.0f} s", flush=True)
    return bool(report.findings)


def _try_file(name: str, path: Path) -> int:
    with tempfile.TemporaryDirectory(prefix="emu-fuzz-") as folder:
        try:
            reader(name).try_one(path.read_bytes(), Path(folder))
        except EmuError as error:
            print(f"refused: {error}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
