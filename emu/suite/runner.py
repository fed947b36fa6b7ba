"""Suites as a whole: chosen jobs through a pool, golden files rewritten."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from pathlib import Path

from emu.errors import EmuError, OutputError
from emu.suite.cases import MMU_PLACE, Case
from emu.suite.execute import execute
from emu.suite.judge import golden_difference
from emu.suite.pool import Pool
from emu.suite.results import FAIL, Job, Result


def matches(case: Case, pattern: str | None) -> bool:
    """Whether -k PATTERN chooses the case: part of its name, or a shell pattern for all of it."""
    return pattern is None or pattern in case.name or fnmatch.fnmatchcase(case.name, pattern)


def run_jobs(pool: Pool, jobs: list[Job]) -> Iterator[Result]:
    """Results as jobs end; a worker that dies fails its own job."""
    for job, result in pool.map(execute, jobs):
        yield Result(job, FAIL, [str(result)]) if isinstance(result, EmuError) else result


def write_goldens(results: list[Result]) -> list[str]:
    """Rewrite what --update asks for, of runs that did not fail; a line a file. Raises OutputError if one cannot be written.

    One file for two MMUs that differ is refused: the second would undo the first.
    """
    texts: dict[Path, str] = {}
    for result in results:
        if result.status == FAIL:
            continue
        for path, text in result.goldens.items():
            if texts.setdefault(path, text) != text:
                result.status = FAIL
                result.reasons.append(f"{path}: the MMUs differ in it: put {MMU_PLACE} in its name, for a file each")
    return [f"updated {path}" for path, text in texts.items() if golden_difference(path, "", text) and _write(path, text)]


def _write(path: Path, text: str) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot write the golden file ({(error.strerror or str(error)).lower()})") from error
    return True
