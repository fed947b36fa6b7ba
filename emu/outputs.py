"""Files that a user has emu write: a file that is there is written over only if it looks like what emu wrote there before.

A name typed wrong, or completed wrong by the shell, must not cost a kernel or a text: what is no trace is never replaced by one.
Devices, pipes and empty files take anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from emu.errors import OutputError

HEAD_BYTES = 4096


@dataclass(frozen=True)
class Form:
    """A kind of file, known by how it begins."""

    name: str  # with its article
    begins: re.Pattern[bytes]


TRACE = Form("a trace", re.compile(rb" *\d+ [0-9a-f]{8,16} [a-z][a-z0-9-]* "))
PARQUET = Form("a Parquet file", re.compile(rb"PAR1"))
SNAPSHOT = Form(
    "a snapshot", re.compile(rb"PK\x03\x04.{26}snapshot\.json", re.DOTALL)
)  # a ZIP archive whose first member is the index
JUNIT = Form("a JUnit report", re.compile(rb"\s*<\?xml[^>]*\?>\s*<testsuites?\b"))


def check_output(path: Path, form: Form, option: str) -> Path:
    """The path, if a file of a form may be written there; raises OutputError if another file would be lost."""
    try:
        if not path.is_file():
            return path
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except (OSError, ValueError):
        return path  # what is wrong is said when it is written
    if head and not form.begins.match(head):
        raise OutputError(f"{path}: is there already and is not {form.name}; remove it first, or give {option} another name")
    return path
