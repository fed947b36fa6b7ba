# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line itself: help, version, completion, what is meant by what was mistyped, files that are not written over."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import emu
from emu.bench.names import NAMES
from emu.cli import main
from emu.cli.boot_options import BootOptions
from emu.cli.parse import normalize, parse
from emu.cli.request import Request
from emu.errors import EmuError, OutputError, UsageError
from emu.outputs import JUNIT, PARQUET, SNAPSHOT, TRACE, Form, check_output
from emu.wording import unknown

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ["disk"]  # commands that have commands
COMMANDS = ["boot", "disk make", "disk check", "disk list", "disk copy", "host", "guests", "test", "bench", "help"]


def refusal(*arguments: str) -> str:
    """Why arguments are refused, which is one line."""
    with pytest.raises(EmuError) as caught:
        parse(arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def boot_options(*arguments: str) -> BootOptions:
    request = parse(["boot", *arguments])
    assert isinstance(request, Request)
    assert isinstance(request.options, BootOptions)
    return request.options


# ---- help and version ----


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"emu {emu.__version__}\n"


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_a_group_alone_prints_its_help(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(group.split()) == 0
    alone = capsys.readouterr()
    assert main([*group.split(), "--help"]) == 0
    assert (alone.out, alone.err) == (capsys.readouterr().out, "")
    assert "Commands:" in alone.out


@pytest.mark.parametrize("command", ["", *GROUPS, *COMMANDS])
def test_help_is_a_command_and_an_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    by_option = capsys.readouterr().out
    assert f"Usage: {f'emu {command}'.strip()} " in by_option
    if command != "help":
        assert main(["help", *command.split()]) == 0
        assert capsys.readouterr().out == by_option


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    listed = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert {line.split()[0] for line in listed} == {command.split()[0] for command in COMMANDS}


# ---- mistakes ----

MEANT = {
    "option": (["boot", "hello", "--memroy", "3M"], ["--memory", "(try 'emu boot --help')"]),
    "option of a group's command": (["disk", "make", "x", "--sise", "3M"], ["--size", "(try 'emu disk make --help')"]),
    "command": (["gests"], ["'guests'", "(try 'emu --help')"]),
    "command of a group": (["disk", "lst"], ["'list'", "(try 'emu disk --help')"]),
    "guest": (["boot", "paginng"], ['unknown guest "paginng"', 'did you mean "paging"?']),
    "boot disk": (["boot", "bootsectr"], ['did you mean "bootsector"?']),
    "case": (["boot", "Hello"], ['did you mean "hello"?']),
    "event group": (["boot", "hello", "--trace", "--events", "falt"], ['"falt"; did you mean "fault"?']),
    "MMU": (["boot", "hello", "--mmu", "nestd"], ['"nestd"; did you mean "nested"?']),
    "MMU of tests": (["test", "--mmu", "shadow,nestd"], ['"nestd"; did you mean "nested"?']),
    "switch": (["boot", "hello", "--shadow", "no-unsink"], ['did you mean "no-unsync"?']),
    "benchmark": (["bench", "exit-natve"], ['did you mean "exit-native"?']),
    "scenario": (["host", "overcomit"], ['did you mean "overcommit"?']),
    "trace and a name": (["boot", "hello", "--trace", "out.txt"], ["--trace=out.txt"]),
    "trace, a name and a guest": (["boot", "--trace", "out.txt", "hello"], ["--trace=out.txt"]),
    "trace and a name alone": (
        ["boot", "--trace", "out.txt"],
        ['unknown guest "out.txt": there is no such file', "--trace=out.txt"],
    ),
    "tables and a time": (["boot", "hello", "--tables", "5M"], ["--tables=5M"]),
    "nothing like it": (["boot", "xyz"], ["there is no such file; known are hello, paging"]),
    "escape sequences": (["boot", "\x1b[2Jevil\x07"], [r"\x1b[2Jevil\x07"]),
    "escape sequences in an option": (["boot", "hello", "--\x1b[2J"], [r"--\x1b[2J"]),
    "NUL": (["boot", "a\0b"], ["NUL"]),
    "no value": (["boot", "hello", "--memory"], ["--memory", "(try 'emu boot --help')"]),
    "a disk with arguments": (["boot", "bootsector", "--append", "x"], ["is a boot disk"]),
    "times without a trace": (["boot", "hello", "--trace-from", "5"], ["give --trace too"]),
}


@pytest.mark.parametrize("case", MEANT)
def test_what_was_meant_is_said(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    arguments, words = MEANT[case]
    assert main(arguments) == 2
    said = capfd.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.isprintable()
    assert [word for word in words if word not in line] == []


FORMS = {
    "size": (["boot", "hello", "--memory", "lots"], "expected a whole number with K, M or G, such as 32M"),
    "bandwidth": (["boot", "hello", "--disk-bandwidth", "fast"], "such as 32M"),
    "latency": (["boot", "hello", "--disk-latency", "5"], "with us, ms or s, such as 500us"),
    "shadow memory": (["boot", "hello", "--shadow-memory", "x"], "such as 32M"),
    "balloon": (["boot", "hello", "--balloon", "8M"], "expected SIZE@TIME, such as 8M@10s"),
    "count": (["boot", "hello", "--cpu-limit", "soon"], "with K, M or G for thousands, such as 5M"),
    "time limit": (["boot", "hello", "--time-limit", "soon"], "with us, ms or s"),
    "tables": (["boot", "hello", "--tables=soon"], "instructions such as 5M (million), or whole us, ms or s such as 2s"),
    "from": (["boot", "hello", "--trace", "--trace-from", "-1"], "expected a virtual time"),
    "until": (["boot", "hello", "--trace", "--trace-until", "1.5s"], "expected a virtual time"),
    "threads": (["host", "overcommit", "--threads", "0"], "expected a whole number from 1 on"),
    "processes": (["test", "-j", "many"], "expected a whole number from 1 on"),
    "seconds": (["host", "overcommit", "--seconds", "ten"], "with us, ms or s"),
    "image size": (["disk", "make", "x", "--size", "big"], "such as 32M"),
    "swap size": (["disk", "make", "x", "--swap", "big"], "such as 32M"),
}


@pytest.mark.parametrize("case", FORMS)
def test_a_wrong_value_is_answered_with_the_accepted_forms(case: str) -> None:
    arguments, form = FORMS[case]
    assert form in refusal(*arguments)


def test_an_unknown_word_is_shown_short() -> None:
    assert str(unknown("guest", "q" * 500, ["hello"])) == f'unknown guest "{"q" * 57}..."; known are hello'


# ---- what is understood ----


def test_options_with_an_optional_value() -> None:
    assert normalize(["boot", "--trace", "--tables=5", "--trace=x"]) == ["boot", "--trace=-", "--tables=5", "--trace=x"]
    assert (boot_options("hello", "--trace").trace, boot_options("--trace", "hello").trace) == ("-", "-")
    assert [boot_options("hello", *tables).tables for tables in ([], ["--tables"], ["--tables=5M"], ["--tables=2s"])] == [
        None, "end", 5_000_000, 20_000_000,
    ]  # fmt: skip


def test_the_name_of_a_boot_disk_will_do_as_guest() -> None:
    assert boot_options("bootsector") == boot_options("--boot-disk", "bootsector")


def test_times_of_a_trace() -> None:
    selection = boot_options("hello", "--trace", "--events=cr3", "--trace-from=1k", "--trace-until=3ms").selection
    assert (selection.since, selection.until, selection.with_firmware, selection.groups) == (1000, 30_000, False, {"cr3"})


def test_the_benchmarks_are_those_that_are_named() -> None:
    from emu.bench.rows import BENCHMARKS

    assert tuple(BENCHMARKS) == NAMES


# ---- completion ----

COMPLETED = {
    "commands": ("emu ", {"boot", "disk", "host", "guests", "test", "bench", "help"}),
    "options": ("emu boot --mem", {"--memory"}),
    "guests": ("emu boot ", {"hello", "paging", "bootsector", "os-i386"}),
    "boot disks": ("emu boot --boot-disk ", {"bootsector"}),
    "groups after a comma": ("emu boot --events fault,c", {"fault,cr3", "fault,cr", "fault,cpuid"}),
    "switches": ("emu boot --shadow no-u", {"no-unsync", "no-update"}),
    "MMUs": ("emu boot --mmu ", {"shadow", "nested"}),
    "scenarios": ("emu host over", {"overcommit"}),
    "benchmarks": ("emu bench exit-n", {"exit-native"}),
}


@pytest.mark.parametrize("case", COMPLETED)
def test_a_shell_gets_completions(case: str) -> None:
    line, wanted = COMPLETED[case]
    words = line.split(" ")
    environment = {"_EMU_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", "from emu.cli import run; run()"],
        env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert wanted <= set(done.stdout.split())


def test_the_script_for_a_shell() -> None:
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-c", "from emu.cli import run; run()", "--show-completion", "bash"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_EMU_COMPLETE=complete_bash" in done.stdout


# ---- files that are there ----

OURS = {
    TRACE: b"           0 00000000 reset \n",
    PARQUET: b"PAR1...",
    SNAPSHOT: b"PK\x03\x04" + bytes(26) + b"snapshot.json",
    JUNIT: b"<?xml version='1.0' encoding='utf-8'?>\n<testsuites/>",
}


@pytest.mark.parametrize("form", OURS, ids=lambda form: form.name)
def test_a_file_is_written_over_only_by_its_like(form: Form, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for fine in (None, b"", OURS[form]):
        if fine is not None:
            path.write_bytes(fine)
        assert check_output(path, form, "--x") == path
    for other in (b"\x7fELF", b"text\n", b"0", bytes(5000), *(data for name, data in OURS.items() if name is not form)):
        path.write_bytes(other)
        with pytest.raises(OutputError, match="is there already and is not"):
            check_output(path, form, "--x")
        assert path.read_bytes() == other


@pytest.mark.parametrize("path", ["/dev/null", "/dev/full", "{folder}", "{folder}/no/such"])
def test_devices_and_what_is_not_there_are_not_looked_into(path: str, tmp_path: Path) -> None:
    check_output(Path(path.replace("{folder}", str(tmp_path))), TRACE, "--trace")


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "kernel.c"
    path.write_text("int main;\n")
    yield path
    assert path.read_text() == "int main;\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["boot", "hello", "--trace={}"],
        ["host", "overcommit", "--log", "{}"],
        ["host", "overcommit", "--save", "{}"],
        ["host", "overcommit", "--sharing-pages", "{}"],
        ["test", "--junit", "{}"],
    ],
)
def test_a_source_is_never_written_over(arguments: list[str], kernel: Path) -> None:
    assert f"{kernel}: is there already and is not" in refusal(*(argument.format(kernel) for argument in arguments))


def test_images_are_replaced_only_by_force(kernel: Path, tmp_path: Path) -> None:
    image = tmp_path / "work.img"
    assert main(["disk", "make", str(image), "--size=1M"]) == 0
    assert main(["disk", "make", str(kernel), "--size=1M"]) == 2
    assert main(["disk", "copy", str(image), "/x", str(kernel)]) == 2


def test_a_trace_replaces_the_trace_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What emu writes is what it knows again."""
    monkeypatch.setattr("sys.stdin", None)
    path = tmp_path / "trace"
    for _ in range(2):
        assert main(["boot", "hello", "-q", f"--trace={path}"]) == 0
        assert TRACE.begins.match(path.read_bytes())


def test_usage_errors_are_emu_s_own() -> None:
    with pytest.raises(UsageError):
        parse(["boot"])
