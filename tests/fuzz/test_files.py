# SPDX-License-Identifier: GPL-2.0-or-later
"""Every reader of files takes or refuses what it gets; a small part of what `scripts/fuzz-files` tries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import harness

COUNT = 1500


@pytest.mark.parametrize("name", harness.names())
def test_a_reader_takes_or_refuses_every_input(name: str) -> None:
    report = harness.fuzz(name, COUNT)
    assert [finding.what for finding in report.findings] == []
    assert report.refused > COUNT // 10  # else what is changed is not what is read


# ---- the instrument ----


def test_the_same_input_from_the_same_number() -> None:
    module = harness.reader("scenario")
    seeds = module.seeds()
    inputs = [harness.input_of(module, seeds, 7, number) for number in range(200)]
    assert inputs == [harness.input_of(module, seeds, 7, number) for number in range(200)]
    assert len(set(inputs)) > 150


def test_what_is_wrong_is_found_with_its_input(tmp_path: Path) -> None:
    """A reader that raises, allocates, runs for ever or dies; the others go on."""
    (tmp_path / "tests" / "fuzz").mkdir(parents=True)
    (tmp_path / "tests" / "fuzz" / "broken_reader.py").write_text(
        "import os, signal\n"
        "from emu.errors import UsageError\n"
        "def seeds():\n"
        "    return [b'raises', b'exits', b'says nothing', b'drives', b'allocates', b'dies', b'works', b'waits', b'fine', b'refused']\n"
        "def try_one(data, folder):\n"
        "    if data == b'raises': [].pop()\n"
        "    if data == b'exits': raise SystemExit\n"
        "    if data == b'says nothing': raise UsageError('')\n"
        "    if data == b'drives': raise UsageError('\\x1b[2J')\n"
        "    if data == b'allocates': bytearray(1 << 31)\n"
        "    if data == b'dies': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    if data == b'works': signal.setitimer(signal.ITIMER_PROF, 0.01)\n"
        "    while data == b'works': pass\n"
        "    if data == b'waits': signal.setitimer(signal.ITIMER_REAL, 0.01); signal.pause()\n"
        "    if data == b'refused': raise UsageError('why')\n"
    )
    for name in ("harness.py", "mutate.py"):
        (tmp_path / "tests" / "fuzz" / name).write_bytes((harness.HERE / name).read_bytes())
    program = "from tests.fuzz import harness; r = harness.fuzz('broken', 10); print([(f.number, f.what) for f in r.findings], r.refused)"
    path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(harness.ROOT)!r}]; "
    environment = {"PYTHONPATH": f"{tmp_path}:{harness.ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", path + program], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert done.stdout == (
        "[(0, 'IndexError: pop from empty list'), (1, 'SystemExit: '), (2, \"BadMessage: ''\"), (3, \"BadMessage: '\\\\x1b[2J'\"), "
        "(4, 'MemoryError: '), (5, 'the process ended with signal 9'), (6, 'not done after 10 s'), (7, 'still waiting after 120 s')] 1\n"
    )
