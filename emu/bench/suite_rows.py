"""Benchmarks that run guests of the suite: all of it, and its matrix of accesses in full."""

from __future__ import annotations

import re
import time

from emu.bench.harness import Row
from emu.config import Mmu, VmConfig
from emu.errors import EmuError
from emu.events import Outcome
from emu.suite import cases
from emu.suite.pool import Pool
from emu.suite.reading import read_suite
from emu.suite.results import FAIL, jobs_of
from emu.suite.run import Limits, run_guest
from emu.suite.runner import run_jobs
from emu.vm import launch

MATRIX = "matrix-64.bin"
MATRIX_LIMIT = 1_000_000_000  # of virtual time; it takes a third
ACCESSES = re.compile(r"^(\d+) accesses$", re.MULTILINE)  # a line for each setting of the control registers
SUITE_WORKERS = 2


def matrix() -> Row:
    """Every combination of bits of a PTE, a PDE and the control registers with every kind of access, checked one by one."""
    image = cases.own_suite().with_name(MATRIX)
    start = time.perf_counter()
    run = run_guest(launch.Boot(image), memory_bytes=VmConfig().memory_bytes, mmu=Mmu.SHADOW, limits=Limits(MATRIX_LIMIT))
    seconds = time.perf_counter() - start
    if run.outcome is not Outcome.EXITED or run.value:
        raise EmuError(f"{MATRIX}: {run.outcome}, value {run.value}: run `emu test -k matrix`")
    made = sum(int(count) for count in ACCESSES.findall(run.serial))
    return Row("matrix", seconds, "s", note=f"{made:,} accesses")


def suite() -> Row:
    """The whole suite that comes with emu under both MMUs, start of the worker processes included."""
    jobs = jobs_of(read_suite(cases.own_suite()), tuple(Mmu))
    start = time.perf_counter()
    with Pool(SUITE_WORKERS) as pool:
        results = list(run_jobs(pool, jobs))
    seconds = time.perf_counter() - start
    failed = [result.job.title for result in results if result.status == FAIL]
    if failed:
        raise EmuError(f"suite: failed: {', '.join(failed)}: run `emu test`")
    return Row("suite", seconds, "s", note=f"{len(jobs)} runs, {SUITE_WORKERS} processes")
