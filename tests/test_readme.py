# SPDX-License-Identifier: GPL-2.0-or-later
"""The README is true: its commands are run, what it shows is compared with what comes, what it names exists. The commands of other pages are parsed.

A command of the README that is in neither table below fails a test, and so does an entry of a table that the README has no more.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from emu import images
from emu.cli import boot
from emu.cli.app import app
from emu.cli.parse import parse
from emu.errors import EmuError, EngineError, MachineMemoryError, OutputError, SnapshotError, UsageError
from emu.events import CATALOGUE
from emu.suite import qemu

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "guests").glob("*/README.md"))]
PROGRAMS = ("emu", "pytest", "scripts/emu", "scripts/test", "scripts/fuzz")
LIMIT_S = 900  # of a command here, on a machine that has other things to do


@dataclass(frozen=True)
class Run:
    """How a command is run: with more arguments, so that it ends soon, and the status that it then has."""

    more: str = ""
    status: int = 0
    instead: tuple[str, str] = ("", "")  # a part of it, and what stands there in a test


# In the order of the README: some need what others made. Standard input is empty.
RUN = {
    "scripts/emu boot paging --trace": Run(),
    "scripts/emu boot processes --trace": Run(),
    "emu guests": Run(),
    'emu boot hello --append "one two"': Run(),
    "emu boot my-kernel.elf --memory 64M --module initrd.img": Run(),
    "emu boot console": Run("--cpu-limit 300k", 124),
    "emu boot os-i386": Run("--time-limit 300ms", 124),
    "emu boot bootsector": Run(),
    "emu disk make work.img --size 64M --swap 32M": Run(),
    "emu boot os-i386 --disk work.img --append 'run=\"filebench files=400 size=64k seconds=30\"'": Run("--time-limit 2s", 124),
    "emu boot os-i386 --disk work.img --balloon 16M@5s,0@15s --append 'run=\"filebench files=300 seconds=20\"'": Run(
        "--time-limit 2s", 124
    ),
    "emu disk check work.img": Run(),
    "emu host --list": Run(),
    "emu host overcommit --top": Run("--seconds 12s"),
    "emu host my.toml --log run.parquet --sharing-report": Run("--seconds 2s"),
    "emu host my.toml --seconds 10s --save at10.snap": Run(instead=("10s", "1s")),
    "emu host --resume at10.snap --page vm-1:0x3f2": Run("--seconds 2s"),
    "emu test": Run(),
    "emu test my-suite --qemu": Run(),
    "pytest my-suite": Run("-q -p no:cacheprovider"),
    "scripts/fuzz --minutes 5 --seed 1": Run("--no-keep", instead=("5", "0.02")),
}
NOT_RUN = {
    "scripts/test": "it is what runs this test",
    "emu bench": "it takes minutes, and measures a machine that does nothing else; tests of its rows are elsewhere",
    "emu bench guest-memory boot --json": "likewise",
}
SCENARIO = 'memory = "40M"\n[[vm]]\nname = "vm"\ncount = 2\nmemory = "16M"\nappend = \'run="idle"\'\n'


def code_lines(page: str) -> Iterator[str]:
    """Lines of code blocks: fenced, or indented."""
    is_fenced = False
    for line in page.splitlines():
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced or line.startswith("    "):
            yield line.strip().removeprefix("$ ")


def commands(page: str) -> list[str]:
    """Commands of code blocks, without what a comment says."""
    found = [re.sub(r"\s+# .*", "", line) for line in code_lines(page)]
    return [line for line in found if line.split(" ")[0] in PROGRAMS]


def block_after(words: str) -> list[str]:
    """The lines of the fenced block in which a line begins with these words, from that line on."""
    blocks = re.findall(r"^```\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    (block,) = [block for block in blocks if words in block]
    lines = [line.rstrip() for line in block.splitlines()]
    return lines[next(number for number, line in enumerate(lines) if words in line) :]


# ---- the commands ----


def test_every_command_is_run_or_there_is_a_reason() -> None:
    assert sorted(commands(README)) == sorted([*RUN, *NOT_RUN])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has who follows the README: a kernel, a module, a scenario, a suite."""
    made = tmp_path_factory.mktemp("readme")
    (made / "my-kernel.elf").write_bytes(images.guest("hello").read_bytes())
    (made / "initrd.img").write_text("a module")
    (made / "my.toml").write_text(SCENARIO)
    (made / "my-suite").mkdir()
    (made / "my-suite" / "kernel.elf").write_bytes(images.guest("hello").read_bytes())
    (suite,) = re.findall(r"^    \[\[case\]\]\n(?:    .+\n)+", README, re.MULTILINE)
    (made / "my-suite" / "suite.toml").write_text(re.sub(r"^    ", "", suite, flags=re.MULTILINE))
    return made


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    """What has been run so far."""
    del folder
    return {}


def words_of(command: str, how: Run) -> list[str]:
    """A command as it is run here: `emu` of this Python, and the scripts without their set-up."""
    program, *rest = [*shlex.split(command), *how.more.split()]
    programs = {"emu": "emu", "scripts/emu": "emu", "pytest": "pytest", "scripts/fuzz": "tests.truth.fuzz"}
    old, new = how.instead
    return [sys.executable, "-m", programs[program], *(new if word == old else word for word in rest)]


def result_of(
    command: str, folder: Path, results: dict[str, subprocess.CompletedProcess[str]]
) -> subprocess.CompletedProcess[str]:
    """What a command prints, which is run once, after those before it."""
    if command not in results:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        results[command] = subprocess.run(
            words_of(command, RUN[command]), cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    return results[command]


@pytest.mark.parametrize("command", RUN)
def test_a_command_does_what_it_is_there_for(
    command: str, folder: Path, results: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    if "--qemu" in command and not qemu.is_installed():
        pytest.skip("QEMU is not installed")
    done = result_of(command, folder, results)
    assert done.returncode == RUN[command].status, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Traceback" not in done.stderr


# ---- what is shown ----


def test_the_trace_that_is_shown_is_the_trace(folder: Path, results: dict[str, subprocess.CompletedProcess[str]]) -> None:
    """All lines shown come, in this order; others come between them."""
    command, *shown = block_after("boot paging --trace")
    came = iter(result_of(command.removeprefix("$ "), folder, results).stderr.splitlines())
    assert len(shown) > 3
    assert [line for line in shown if line not in came] == []


def test_the_table_that_is_shown_is_the_table(folder: Path, results: dict[str, subprocess.CompletedProcess[str]]) -> None:
    shown = block_after("12.0 s")
    came = [line.rstrip() for line in result_of("emu host overcommit --top", folder, results).stdout.splitlines()]
    at = max(number for number, line in enumerate(came) if line == shown[0])
    assert came[at : at + len(shown)] == shown


def test_the_suite_has_as_many_checks_as_is_said(folder: Path, results: dict[str, subprocess.CompletedProcess[str]]) -> None:
    (said,) = re.findall(r"over (\d+) checks", README)
    closing = result_of("emu test", folder, results).stdout.splitlines()[-1]
    (passed,) = re.findall(r"(\d+) passed", closing)
    assert int(said) < int(passed) < 3 * int(said)


def test_the_statuses_are_those_of_the_code() -> None:
    table = README.partition("### Exit status")[2].partition("##")[0]
    told = {int(status) for status in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    ends = {
        boot.STATUS_LIMIT,
        boot.STATUS_TRIPLE_FAULT,
        boot.STATUS_HALTED,
        boot.STATUS_RESET,
        boot.STATUS_UNSUPPORTED,
        boot.STATUS_INTERRUPTED,
    }
    errors = {error.exit_status for error in (EmuError, UsageError, SnapshotError, MachineMemoryError, EngineError, OutputError)}
    assert told == {0} | ends | errors


def test_the_events_are_those_of_the_catalogue() -> None:
    table = README.partition("## Read a trace")[2].partition("The summary")[0]
    told = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`([a-z0-9-]+)`", row)}
    assert told | {"stop", "reset"} == {info.label for info in CATALOGUE.values()}


def options_of(command: str) -> set[str]:
    """The options that `emu COMMAND --help` lists."""
    import typer.main

    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    return {name for parameter in found.params for name in parameter.opts if name.startswith("-")}


def test_the_options_of_boot_are_those_that_there_are() -> None:
    rows = re.findall(r"^\| (`--.*?) \|", README.partition("## Boot a guest")[2].partition("###")[0], re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(--[a-z-]+)", row)}
    assert told == options_of("boot") - {"-q", "--boot-disk", "--help"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_all_pages_are_understood(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In code blocks and in the text; a placeholder in capitals stands for a value."""
    text = page.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path("my.toml").write_text(SCENARIO)
    inline = [line for line in re.findall(r"`(emu [a-z][^`]*)`", text) if "..." not in line and "[" not in line]
    for line in [*(command for command in commands(text) if command.startswith("emu ")), *inline]:
        words = shlex.split(line)[1:]
        if "SCENARIO.toml" in words:
            words[words.index("SCENARIO.toml")] = "my.toml"
        try:
            parse(words)
        except UsageError as error:  # one in the text may lack what it is about
            assert line in inline, f"{line}: {error}"
            assert re.search("nothing to|requires an argument|missing argument", str(error)), f"{line}: {error}"
