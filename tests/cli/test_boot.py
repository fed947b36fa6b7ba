# SPDX-License-Identifier: GPL-2.0-or-later
"""`emu boot` as its user meets it: statuses, one line for each mistake, signals, terminals."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EMU = [sys.executable, "-c", "from emu.cli import run; run()"]
LIMIT_S = 120  # of a run that takes a second: the first one ever compiles
# Computes for an hour; the tables on standard output say that it is at it.
ENDLESS = ["boot", "bench", "--append", "mode=integer n=4000000000", "--tables=1000000"]
LOAD = 0x10_0000


def emu(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command with nothing on standard input."""
    settings: dict[str, object] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(
        [*EMU, *map(str, arguments)],
        **(settings | options),  # type: ignore[call-overload]
        text=True, cwd=ROOT, timeout=LIMIT_S, check=False,
    )  # fmt: skip


def one_complaint(errors: str) -> str:
    """The one line that standard error consists of."""
    assert "Traceback" not in errors
    lines = errors.splitlines()
    assert len(lines) == 1, errors
    assert lines[0].startswith("emu: ")
    return lines[0]


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    """The first run says that it compiles; none after it does."""
    run = emu("boot", "processes", "--quiet")
    assert run.returncode == 0


def flat_kernel(folder: Path, code: bytes, name: str = "k") -> Path:
    """A multiboot kernel of `code` alone, entered at its start."""
    fields = (0x1BADB002, 1 << 16, -(0x1BADB002 + (1 << 16)) & 0xFFFF_FFFF, LOAD, LOAD, 0, 0, LOAD + 32)
    path = folder / name
    path.write_bytes(struct.pack("<8I", *fields) + code)
    return path


# ---- mistakes ----

USAGE = {
    "guest": (["boot", "nosuch"], '"nosuch"'),
    "no guest": (["boot"], "nothing to boot: give a guest, or --boot-disk FILE"),
    "guest and disk": (["boot", "hello", "--boot-disk", "x"], "--boot-disk boots without a kernel"),
    "two guests": (["boot", "hello", "again"], "again"),
    "command": (["nosuch"], "'nosuch'"),
    "option": (["boot", "hello", "--nosuch"], "--nosuch"),
    "memory 0": (["boot", "hello", "--memory", "0"], "memory size of 0"),
    "memory 1K": (["boot", "hello", "--memory", "1K"], "memory size of 1024"),
    "memory 5000G": (["boot", "hello", "--memory=5000G"], "memory size of 5368709120000"),
    "memory abc": (["boot", "hello", "--memory", "abc"], "'abc'"),
    "memory empty": (["boot", "hello", "--memory="], "memory size ''"),
    "memory negative": (["boot", "hello", "--memory", "-5M"], "'-5M'"),
    "memory fraction": (["boot", "hello", "--memory", "32.5M"], "'32.5M'"),
    "memory page fraction": (["boot", "hello", "--memory", "8193K"], "whole pages of 4096"),
    "memory digits": (["boot", "hello", "--memory", "٣٢M"], "memory size '"),
    "memory huge number": (["boot", "hello", "--memory", "9" * 4000], "memory size"),
    "memory number beyond Python": (["boot", "hello", "--memory", "9" * 5000], "memory size"),
    "mmu": (["boot", "hello", "--mmu", "both"], '"both"'),
    "limit 0": (["boot", "hello", "--cpu-limit", "0"], "--cpu-limit"),
    "limit word": (["boot", "hello", "--cpu-limit", "soon"], "--cpu-limit"),
    "limit in bytes": (["boot", "hello", "--cpu-limit", "5MB"], "--cpu-limit '5MB'"),
    "time limit 0": (["boot", "hello", "--time-limit", "0s"], "--time-limit 0"),
    "time limit without unit": (["boot", "hello", "--time-limit", "30"], "--time-limit '30'"),
    "group": (["boot", "hello", "--trace", "--events", "fault,nosuch"], '"nosuch"'),
    "group empty": (["boot", "hello", "--trace", "--events", ""], '""'),
    "events alone": (["boot", "hello", "--events", "fault"], "--trace"),
    "tables word": (["boot", "hello", "--tables=soon"], "--tables 'soon': expected a virtual time"),
    "tables negative": (["boot", "hello", "--tables=-1"], "--tables '-1'"),
    "command line too long": (["boot", "hello", "--append", "x" * 5000], "5010 bytes"),
    "module name too long": (["boot", "hello", "--module", "{folder}/" + "m" * 60], "m" * 60),
}


@pytest.mark.parametrize("case", USAGE)
def test_a_usage_mistake_is_one_line_and_status_2(case: str, tmp_path: Path) -> None:
    arguments, words = USAGE[case]
    (tmp_path / ("m" * 60)).touch()
    run = emu(*(argument.replace("{folder}", str(tmp_path)) for argument in arguments))
    assert words in one_complaint(run.stderr)
    assert (run.returncode, run.stdout) == (2, "")


BAD_FILES = {
    "missing kernel": (["boot", "{folder}/absent"], "absent"),
    "folder as kernel": (["boot", "{folder}"], "{folder}"),
    "empty kernel": (["boot", "{folder}/empty"], "empty"),
    "text as kernel": (["boot", "{folder}/text"], "text: no multiboot header"),
    "missing module": (["boot", "hello", "--module", "{folder}/absent"], "absent"),
    "folder as module": (["boot", "hello", "--module", "{folder}"], "{folder}"),
    "module too large": (["boot", "hello", "--memory=4M", "--module", "{folder}/large"], "large"),
    "newline in the name": (["boot", "{folder}/two\nlines"], "two"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_line_and_status_66(case: str, tmp_path: Path) -> None:
    arguments, words = BAD_FILES[case]
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "large").write_bytes(bytes(4 << 20))
    run = emu(*(argument.replace("{folder}", str(tmp_path)) for argument in arguments))
    assert words.replace("{folder}", str(tmp_path)) in one_complaint(run.stderr)
    assert (run.returncode, run.stdout) == (66, "")


def test_a_module_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/m\xff"
    Path(os.fsdecode(path)).touch()
    run = emu("boot", "hello", "--quiet", "--module", os.fsdecode(path))
    assert (run.returncode, run.stderr) == (0, "")
    assert "modules: 1\n" in run.stdout


def test_a_name_that_is_not_utf_8_can_be_complained_of(tmp_path: Path) -> None:
    run = emu("boot", tmp_path / os.fsdecode(b"absent\xff"))
    assert "absent" in one_complaint(run.stderr)
    assert run.returncode == 66


@pytest.mark.parametrize("target", ["{folder}/no/such/folder", "/dev/full", "{folder}", ""])
def test_a_trace_that_cannot_be_written(target: str, tmp_path: Path) -> None:
    target = target.replace("{folder}", str(tmp_path))
    run = emu("boot", "hello", "-q", f"--trace={target}")
    complaint = one_complaint(run.stderr)
    assert f"emu: {target}: " in complaint if target else "--trace" in complaint
    assert run.returncode == (74 if target else 2)


@pytest.mark.parametrize("arguments", [["boot", "processes", "-q"], ["guests"], ["boot", "hello", "-q", "--json"], ["--help"]])
def test_a_full_disk_at_standard_output(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        run = emu(*arguments, stdout=full)
    one_complaint(run.stderr)
    assert run.returncode == 74


@pytest.mark.parametrize("arguments", [["boot", "processes", "-q"], ["guests"], ["boot", "hello", "-q", "--json"]])
def test_a_pipe_that_nobody_reads(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = emu(*arguments, stdout=writer)
    finally:
        os.close(writer)
    assert "standard output" in one_complaint(run.stderr)
    assert run.returncode == 74


def shell(redirections: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with descriptors closed, as only a shell can."""
    script = f'exec "$@" {redirections}'
    return subprocess.run(
        ["sh", "-c", script, "sh", *EMU, *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT, timeout=LIMIT_S, check=False,
    )  # fmt: skip


def test_a_closed_standard_output_harms_nothing() -> None:
    run = shell(">&-", "boot", "hello", "-q")
    assert (run.returncode, run.stderr) == (0, "")


def test_a_closed_standard_input_is_an_empty_one() -> None:
    run = shell("<&-", "boot", "console", "-q", "--cpu-limit", "300000")
    assert (run.returncode, run.stdout, run.stderr) == (124, "> ", "")


def test_a_closed_standard_error_does_not_change_the_status() -> None:
    run = shell("2>&-", "boot", "hello")
    assert run.returncode == 0
    assert "Hello" in run.stdout


def test_a_trace_to_a_closed_standard_error_is_an_output_error() -> None:
    assert shell("2>&-", "boot", "hello", "--trace").returncode == 74


def test_everything_closed() -> None:
    assert shell("<&- >&- 2>&-", "boot", "hello").returncode == 0
    assert shell("<&- >&- 2>&-", "boot", "nosuch").returncode == 2


# ---- how a run ends ----

OUT_DX_AL = b"\xee"
HALT = b"\xfa\xf4"
UNDEFINED = b"\x0f\x0b"
EMPTY_IDT = b"\x6a\x00\x6a\x00\x0f\x01\x1c\x24"  # push 0; push 0; lidt [esp]
RESET = b"\xb0\x06\x66\xba\xf9\x0c\xee\xeb\xfe"  # 6 to port 0xCF9; then wait


def exit_code(value: int) -> bytes:
    """mov al, value; out 0xF4, al; wait."""
    return bytes([0xB0, value, 0xE6, 0xF4, 0xEB, 0xFE])


@pytest.mark.parametrize(
    ("value", "raw", "status"),
    [(0, False, 0), (0, True, 1), (1, False, 3), (1, True, 3), (5, False, 11), (0x7F, False, 0xFF)],
)
def test_the_guest_s_exit_value_is_the_status(value: int, raw: bool, status: int, tmp_path: Path) -> None:
    run = emu("boot", flat_kernel(tmp_path, exit_code(value)), *(["--raw-exit"] if raw else []))
    assert run.returncode == status
    assert run.stderr.startswith(f"emu: exited with value {value} after ")


ENDS = {
    "limit": ("limit reached", 124, b"\xeb\xfe", ["--cpu-limit", "100K"]),
    "time limit": ("limit reached", 124, b"\xeb\xfe", ["--time-limit", "20ms"]),
    "triple fault": ("triple fault", 80, EMPTY_IDT + UNDEFINED, []),
    "halted for ever": ("halted for ever", 82, HALT, []),
    "reset": ("reset", 84, RESET, ["--no-reboot"]),
}


@pytest.mark.parametrize("mmu", ["shadow", "nested"])
@pytest.mark.parametrize("case", ENDS)
def test_each_end_has_its_status(case: str, mmu: str, tmp_path: Path) -> None:
    outcome, status, code, options = ENDS[case]
    run = emu("boot", flat_kernel(tmp_path, code), "--json", "--mmu", mmu, *options)
    assert run.returncode == status
    assert run.stderr.startswith(f"emu: {outcome}")
    told = json.loads(run.stdout.splitlines()[-1])
    assert (told["outcome"], told["status"], told["mmu"]) == (outcome, status, mmu)


def test_the_time_limit_counts_sleep() -> None:
    """The guest sleeps, and its timer wakes it: a limit of instructions would hardly ever be reached."""
    run = emu("boot", "os-i386", "--json", "--append", 'run="idle seconds=1000"', "--time-limit", "3s")
    told = json.loads(run.stdout.splitlines()[-1])
    assert (told["outcome"], told["why"], run.returncode) == ("limit reached", "of virtual time", 124)
    assert told["instructions"] < told["virtual_time"] < 30_010_000


def test_a_reset_without_the_option_boots_again(tmp_path: Path) -> None:
    run = emu("boot", flat_kernel(tmp_path, RESET), "--json", "--cpu-limit", "1000000")
    assert run.returncode == 124
    assert json.loads(run.stdout)["counters"]["resets"] > 2


def test_memory_is_zero_beyond_the_data_after_a_reset_too(tmp_path: Path) -> None:
    """The kernel leaves a byte beyond its data and resets; the second boot exits with what is there: QEMU clears it."""
    # cmp byte [LOAD+0x1000], 0; jne found; CMOS 0x40 counts the boots: cmp al, 7; je second; ...
    select_cmos = b"\xb0\x40\xe6\x70\xe4\x71"  # al = CMOS byte 0x40
    exit_with_byte = b"\xa0" + struct.pack("<I", LOAD + 0x1000) + b"\xe6\xf4\xeb\xfe"
    mark = b"\xb0\x40\xe6\x70\xb0\x07\xe6\x71" + b"\xc6\x05" + struct.pack("<I", LOAD + 0x1000) + b"\x2a" + RESET
    code = select_cmos + b"\x3c\x07\x75" + bytes([len(exit_with_byte)]) + exit_with_byte + mark
    run = emu("boot", flat_kernel(tmp_path, code), "--cpu-limit", "10000000")
    assert run.returncode == 0, run.stderr


# ---- options ----


def test_append_and_modules_reach_the_guest(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    run = emu("boot", "hello", "-q", "--append", "one two", "--module", tmp_path / "a", "--module", tmp_path / "b")
    assert "arguments: one two\n" in run.stdout
    assert "modules: 2\n" in run.stdout


def test_memory_reaches_the_guest() -> None:
    assert "memory: 48 MiB\n" in emu("boot", "hello", "-q", "--memory", "48M").stdout


def test_quiet_leaves_standard_error_empty() -> None:
    run = emu("boot", "hello", "--quiet")
    assert (run.returncode, run.stderr) == (0, "")


def test_json_agrees_with_the_summary() -> None:
    run = emu("boot", "processes", "--json")
    told = json.loads(run.stdout.splitlines()[-1])
    words = run.stderr.split()
    assert f"after {told['instructions']:,} instructions" in run.stderr
    assert (told["guest"], told["outcome"], told["exit_value"], told["status"]) == (
        "processes",
        "exited",
        0,
        run.returncode,
    )
    for name, count in told["counters"].items():
        assert (name in words) == bool(count)
        if count:
            assert words[words.index(name) + 1] == f"{count:,}"


def test_the_screen_of_a_boot_sector() -> None:
    run = emu("boot", "--boot-disk", "bootsector", "--vga", "--json", "--quiet")
    *_, told = run.stdout.splitlines()
    frame = run.stdout.splitlines()[-28:-1]
    assert frame[0] == f"┌{'─' * 80}┐"
    assert frame[1] == f"│{'base     length   type':80}│"
    assert [line[1:-1].rstrip() for line in frame[1:-1]] == json.loads(told)["screen"]


def test_a_guest_without_a_screen(tmp_path: Path) -> None:
    run = emu("boot", flat_kernel(tmp_path, exit_code(0)), "--vga", "--json", "-q")
    assert run.stdout.splitlines()[1:-2] == [f"│{' ' * 80}│"] * 25
    told = json.loads(run.stdout.splitlines()[-1])
    assert (told["screen"], told["post_code"]) == (None, None)


@pytest.mark.parametrize("mmu", ["shadow", "nested"])
def test_text_memory_is_memory(mmu: str, tmp_path: Path) -> None:
    """A kernel writes "A" to the second row, scrolls by one row, reads its letter back and shows it as POST code."""
    store = b"\x66\xc7\x05\xa0\x80\x0b\x00\x41\x07"  # movw $0x741, 0xb80a0
    scroll = b"\x66\xba\xd4\x03\x66\xb8\x0d\x50\x66\xef"  # outw $0x500d to 3D4
    show = b"\xa0\xa0\x80\x0b\x00\xe6\x80"  # mov 0xb80a0, %al; outb to 80
    run = emu("boot", flat_kernel(tmp_path, store + scroll + show + exit_code(0)), "--json", "-q", "--mmu", mmu)
    told = json.loads(run.stdout)
    assert (told["post_code"], told["screen"]) == (0x41, ["A"] + [""] * 24)


def test_json_is_the_same_in_two_runs() -> None:
    assert emu("boot", "paging", "--json").stdout == emu("boot", "paging", "--json").stdout


@pytest.mark.parametrize("mmu", ["shadow", "nested"])
def test_tables_at_the_end_and_on_the_way(mmu: str) -> None:
    end = emu("boot", "paging", "-q", "--mmu", mmu, "--tables").stdout.splitlines()
    title = next(i for i, line in enumerate(end) if line.startswith("page tables at virtual time"))
    assert end[title].endswith(f"{mmu} paging")
    assert end[title + 1].split() == ["VPN", "pages", "guest", "PPN", "shadow", "MPN", "state"]
    assert len(end) > title + 10
    early = emu("boot", "paging", "-q", "--mmu", mmu, "--tables=1000").stdout.splitlines()
    assert early[0].startswith("page tables at virtual time 1")
    assert early[-1] == end[title - 1]  # the run went on to its end


def test_tables_beyond_the_end_are_those_of_the_end() -> None:
    late = emu("boot", "hello", "-q", "--tables=99999999")
    assert late.returncode == 0
    assert "page tables at virtual time" in late.stdout


def test_a_trace_in_a_file_is_the_trace_on_standard_error(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    to_file = emu("boot", "paging", "-q", f"--trace={file}")
    to_stderr = emu("boot", "paging", "-q", "--trace")
    assert to_file.stderr == ""
    assert file.read_text() == to_stderr.stderr
    assert to_stderr.stdout == to_file.stdout


def test_events_select() -> None:
    kinds = {line.split()[2] for line in emu("boot", "paging", "-q", "--trace", "--events", "cr3, invlpg").stderr.splitlines()}
    assert kinds == {"cr3-load", "invlpg"}


def test_guests_are_listed() -> None:
    run = emu("guests")
    assert run.returncode == 0
    lines = run.stdout.splitlines()
    assert [line.split()[0] for line in lines][:3] == ["hello", "paging", "processes"]
    assert [line.split()[0] for line in lines if line.endswith("(--boot-disk)")] == ["bootsector"]


@pytest.mark.parametrize("arguments", [["--help"], ["boot", "--help"], ["guests", "--help"]])
def test_help(arguments: list[str]) -> None:
    run = emu(*arguments)
    assert (run.returncode, run.stderr) == (0, "")
    assert "Usage:" in run.stdout


# ---- input ----


def test_input_from_a_pipe_and_its_end() -> None:
    run = emu("boot", "console", "-q", stdin=None, input="echo from a pipe\nquit\n")
    assert run.returncode == 0
    assert "from a pipe\n" in run.stdout


# ---- signals ----


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_with_its_summary(number: signal.Signals) -> None:
    with subprocess.Popen(
        [*EMU, *ENDLESS], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()  # the guest runs
        process.send_signal(number)
        _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert "emu: interrupted after " in errors
    assert "Traceback" not in errors


# ---- terminals ----


class Terminal:
    """A pseudo-terminal with a process as its session's leader."""

    def __init__(self, *arguments: str) -> None:
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        # A child of the one started here, for a session's leader must not be the leader of a group.
        starter = "import os, sys, fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", starter, *EMU, *arguments],
            stdin=self.slave, stdout=self.slave, stderr=self.slave, cwd=ROOT, start_new_session=True,
        )  # fmt: skip
        self.seen = b""

    def read_until(self, words: bytes) -> None:
        """Wait until the terminal shows `words`."""
        while words not in self.seen:
            assert select.select([self.master], [], [], LIMIT_S)[0], self.seen
            self.seen += os.read(self.master, 4096)

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def wait(self) -> int:
        """Read what comes until the process has ended; its status."""
        until = time.monotonic() + LIMIT_S
        while self.process.poll() is None:
            assert time.monotonic() < until, self.seen
            if select.select([self.master], [], [], 0.05)[0]:
                self.seen += os.read(self.master, 4096)
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 4096)
        return self.process.returncode

    def is_restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    def is_cbreak(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    opened = Terminal(*arguments)
    try:
        yield opened
    finally:
        if opened.process.poll() is None:
            opened.process.kill()
        opened.process.wait()
        for descriptor in (opened.master, opened.slave):
            if descriptor >= 0:
                os.close(descriptor)


def test_typed_text_reaches_the_guest_and_is_shown_once() -> None:
    with terminal("boot", "console") as tty:
        tty.read_until(b"> ")
        assert tty.is_cbreak()
        tty.type(b"echo typed\r")
        tty.read_until(b"\ntyped")
        tty.type(b"quit\r")
        assert tty.wait() == 0
        assert tty.is_restored()
    assert tty.seen.count(b"echo typed") == 1
    assert b"bye" in tty.seen
    assert b"emu: exited with value 0" in tty.seen


def test_ctrl_c_restores_the_terminal() -> None:
    with terminal("boot", "console") as tty:
        tty.read_until(b"> ")
        tty.type(b"\x03")
        assert tty.wait() == 130
        assert tty.is_restored()
    assert b"emu: interrupted" in tty.seen


def test_ctrl_c_while_the_guest_computes() -> None:
    with terminal(*ENDLESS) as tty:
        tty.read_until(b"page tables at")
        tty.type(b"\x03")
        assert tty.wait() == 130
        assert tty.is_restored()
    assert b"emu: interrupted" in tty.seen


def test_an_error_restores_the_terminal() -> None:
    with terminal("boot", "console", "--trace=/dev/full") as tty:
        assert tty.wait() == 74
        assert tty.is_restored()
    assert b"emu: /dev/full: cannot write the trace" in tty.seen


def test_a_run_that_ends_otherwise_restores_the_terminal() -> None:
    with terminal("boot", "console", "--cpu-limit", "200000") as tty:
        assert tty.wait() == 124
        assert tty.is_restored()


def test_a_terminal_that_goes_away_ends_the_run() -> None:
    with terminal("boot", "console") as tty:
        tty.read_until(b"> ")
        os.close(tty.slave)
        os.close(tty.master)
        tty.slave = tty.master = -1
        assert tty.process.wait(timeout=LIMIT_S) in (74, 130)


def test_a_job_in_the_background_does_not_touch_the_terminal() -> None:
    """Standard input is a terminal, but not this process's own."""
    master, slave = pty.openpty()
    try:
        before = termios.tcgetattr(slave)
        run = emu("boot", "console", "-q", "--cpu-limit", "200000", stdin=slave)
        assert (run.returncode, run.stderr) == (124, "")
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)
