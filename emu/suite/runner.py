"""Suites as a whole: chosen jobs through a pool."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator

from emu.errors import EmuError
from emu.suite.cases import Case
from emu.suite.execute import execute, limits_of
from emu.suite.pool import Pool
from emu.suite.results import FAIL, Job, Result

GRACE_S = 20.0  # to load a guest, to judge it, to match an expression


def matches(case: Case, pattern: str | None) -> bool:
    """Whether -k PATTERN chooses the case: part of its name, or a shell pattern for all of it."""
    return pattern is None or pattern in case.name or fnmatch.fnmatchcase(case.name, pattern)


def run_jobs(pool: Pool, jobs: list[Job]) -> Iterator[Result]:
    """Results as jobs end; a worker that dies fails its own job, and so does one that does not end in time."""
    for job, result in pool.map(execute, jobs, _patience):
        yield Result(job, FAIL, [str(result)]) if isinstance(result, EmuError) else result


def _patience(job: Job) -> float | None:
    """Seconds after which a worker is given up: its run should have ended itself by then."""
    seconds = limits_of(job).seconds
    return None if seconds is None else (1 + job.beside_qemu) * seconds + GRACE_S
