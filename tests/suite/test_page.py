# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/suites.md: its kernel is built and run, its tables name what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from emu.config import Mmu
from emu.suite.cases import counter_names
from emu.suite.pool import Pool
from emu.suite.reading import CASE_KEYS, EXPECTATION_KEYS, read_suite
from emu.suite.report import closing_line, result_line
from emu.suite.results import jobs_of
from emu.suite.runner import run_jobs

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "suites.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the page describes, built with the flags it gives, by the tools that the guests are built with."""
    folder = tmp_path_factory.mktemp("example")
    (folder / "tiny.c").write_text(block("c"))
    (folder / "suite.toml").write_text(block("toml"))
    for tool, flags in (
        ("gcc -m32", ["cc", "-target", "x86-freestanding-none", "-mcpu=i686"]),
        ("ld", ["ld.lld", "--image-base=0x100000"]),
    ):
        line = re.search(rf"^    {tool} (.*)$", PAGE, re.MULTILINE)
        assert line is not None
        command = [sys.executable, "-m", "ziglang", *flags, *line[1].split()]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder


def test_the_example_prints_what_the_page_says(example: Path) -> None:
    assert len(block("toml").splitlines()) == 4
    with Pool(1) as pool:
        results = list(run_jobs(pool, jobs_of(read_suite(example / "suite.toml"), tuple(Mmu))))
    shown = [re.sub(r"[\d,]+ instructions", "N instructions", result_line(result)) for result in results]
    shown.append(closing_line(results))
    lines = [re.sub(r"[\d,]+ instructions", "N instructions", line.strip()) for line in PAGE.splitlines()]
    at = lines.index(shown[0])
    assert lines[at : at + 3] == shown


def test_the_tables_name_every_key() -> None:
    named = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(named) == set(CASE_KEYS) | set(EXPECTATION_KEYS)
    assert len(named) == len(set(named))


def test_events_of_the_page_exist() -> None:
    for name in ("pf_fixed", "hidden_faults", "true_fault", "pte_writes", "page_allocated", "cr3_loads", "exits"):
        assert name in PAGE
        assert name in counter_names()
