# SPDX-License-Identifier: GPL-2.0-or-later
"""Golden files: where they may be, how they are compared and rewritten.

A suite may come from anyone, so `--update` writes only below the suite's folder, and nothing there that another program would run, or read
as settings, nor what the suite itself is made of.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from emu.config import Mmu
from emu.errors import FileErrors, OutputError
from emu.regular import read_regular, reason_of
from emu.replacing import replacing
from emu.suite.cases import MMU_PLACE, Case
from emu.suite.results import FAIL, Result
from emu.units import MIB
from emu.wording import one_line

MOST_BYTES = 256 * MIB
LIVE_SUFFIXES = (".py", ".pth", ".toml", ".ini", ".cfg", ".sh", ".mk", ".bat")
LIVE_NAMES = ("makefile",)


def golden_path(path: Path, mmu: str) -> Path:
    """A golden file's name with the MMU's in its place."""
    return path.with_name(path.name.replace(MMU_PLACE, mmu))


def read_golden(path: Path) -> str:
    """The text of a golden file; raises FileNotFoundError, OSError or UnicodeDecodeError."""
    return read_regular(path, MOST_BYTES).decode("utf-8")


def check_can_update(cases: Iterable[Case]) -> None:
    """Refuse golden files that must not be written, before anything is run; raises FileErrors."""
    problems: dict[str, None] = {}
    for case in cases:
        for expected in case.expect.values():
            for path in filter(None, (expected.golden, expected.trace)):
                for mmu in Mmu:
                    if problem := problem_with(golden_path(path, mmu), case):
                        problems[
                            f"{one_line(str(case.suite))}: case '{case.name}': {one_line(str(path))}: --update {problem}"
                        ] = None
    if problems:
        raise FileErrors(list(problems))


def problem_with(path: Path, case: Case) -> str:
    """Why `--update` does not write a golden file; empty if it may."""
    folder = os.path.realpath(case.suite.parent)
    target = os.path.realpath(path)
    below = os.path.relpath(target, folder)
    if below.split("/")[0] in ("..", "."):
        return "writes only in the suite's folder"
    parts = below.split("/")
    if any(part.startswith(".") for part in parts):
        return "writes no hidden files"
    if Path(target).suffix.lower() in LIVE_SUFFIXES or parts[-1].lower() in LIVE_NAMES or os.access(target, os.X_OK):
        return "writes nothing that is run or read as settings"
    disks = [disk for disk in case.disks if isinstance(disk, Path)]
    if target in {os.path.realpath(file) for file in (case.suite, case.image, *case.modules, *disks)}:
        return "does not write over a file that the case is made of"
    return ""


def write_goldens(results: list[Result]) -> list[str]:
    """Rewrite what --update asks for, of runs that did not fail; a line a file. Raises OutputError if one cannot be written.

    One file for two MMUs that differ is refused: the second would undo the first.
    """
    texts: dict[Path, str] = {}
    refused: set[Path] = set()
    for result in results:
        for path, text in result.goldens.items() if result.status != FAIL else ():
            problem = problem_with(path, result.job.case) and f"--update {problem_with(path, result.job.case)}"
            if texts.setdefault(path, text) != text:
                problem = f"the MMUs differ in it: put {MMU_PLACE} in its name, for a file each"
            if problem:
                result.status = FAIL
                result.reasons.append(f"{path}: {problem}")
                refused.add(path)
    return [f"updated {path}" for path, text in texts.items() if path not in refused and _write(path, text)]


def _write(path: Path, text: str) -> bool:
    """Whether it was written: a file that is as it should be is left alone."""
    try:
        if read_golden(path) == text:
            return False
    except (OSError, UnicodeDecodeError):
        pass  # it is made anew, or cannot be
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(text.encode("utf-8"))
    except OSError as error:
        raise OutputError(f"{path}: cannot write the golden file ({reason_of(error)})") from error
    return True
