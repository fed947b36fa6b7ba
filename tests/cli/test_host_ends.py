# SPDX-License-Identifier: GPL-2.0-or-later
"""How a run of `emu host` ends: whatever the terminal, a signal or a disk does, the snapshot and the log are there."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import pyarrow.parquet as pq
import pytest

from emu.cli.host import Saver, run
from emu.cli.host_options import HostOptions
from emu.cli.interrupts import Ending, OutputInterruptedError, handled
from emu.host import scenario, snapshot
from emu.host.host import Host
from emu.host.hosted import HostedVm
from emu.machine import crash
from tests.cli.test_boot import EMU, ENDLESS, ROOT, emu

LIMIT_S = 120
ENDLESS_HOST = """
memory = "32M"
[[vm]]
name = "vm"
count = 2
memory = "8M"
append = 'quiet run="toucher schedule=1m@0 seconds=100000 seed=1"'
"""


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "endless.toml"
    path.write_text(ENDLESS_HOST)
    return str(path)


@contextlib.contextmanager
def running(*arguments: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A command under way, which does not outlive the block."""
    settings: dict[str, object] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT}
    with subprocess.Popen([*EMU, *arguments], **(settings | options)) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def read_to(stream: IO[bytes] | None, text: bytes) -> None:
    assert stream is not None
    assert any(text in line for line in stream), "it ended before"


def waits_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def assert_goes_on(snap: Path) -> float:
    """The snapshot is one; its virtual time."""
    seen = emu("host", "--resume", str(snap), "--seconds", "1s", "-q", "--json")
    assert seen.returncode == 0, seen.stderr
    return float(json.loads(seen.stdout)["machine"]["seconds"])


def assert_log(log: Path, until: float) -> None:
    """The log has every second up to a time, and what followed."""
    seconds = sorted(set(pq.read_table(log).column("seconds").to_pylist()))
    assert seconds == [*map(float, range(1, int(until) + 1)), *([until] if until % 1 else [])]


# ---- terminals ---------------------------------------------------------------------------------------------------------


def own_terminal() -> None:
    """In the child: standard input is its controlling terminal, so that closing the other end is a SIGHUP."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("has_signal", [True, False], ids=["hangup", "error"])
@pytest.mark.parametrize(
    "options", [["--top"], [], ["-q"], ["--top", "--save-every", "300ms"]], ids=["top", "lines", "quiet", "often"]
)
def test_a_closed_terminal_loses_nothing(tmp_path: Path, plan: str, options: list[str], has_signal: bool) -> None:
    """With the signal that a terminal sends when it goes, and with nothing but writes that fail."""
    if options == ["-q"] and not has_signal:
        options = ["--top", "-q"]  # who writes nothing does not learn of it
    snap, log = tmp_path / "a.snap", tmp_path / "a.parquet"
    master, slave = pty.openpty()
    start = own_terminal if has_signal else os.setsid
    command = ["host", plan, "--save", str(snap), "--log", str(log), *options]
    with running(
        *command, stdin=slave, stdout=slave, stderr=slave, preexec_fn=start, env=os.environ | {"TERM": "xterm"}
    ) as process:  # noqa: PLW1509
        os.close(slave)
        seen = b""
        while len(re.findall(b"second=|SZTGT|virtual seconds", seen)) < 3:
            assert select.select([master], [], [], LIMIT_S)[0]
            seen += os.read(master, 65536)
        os.close(master)
        status = process.wait(LIMIT_S)
    assert status == (130 if has_signal else 74)
    assert_log(log, assert_goes_on(snap))
    assert {path.name for path in tmp_path.iterdir()} == {"endless.toml", "a.snap", "a.parquet"}


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("state", ["full", "closed", "nobody"])
def test_a_stream_that_takes_nothing(tmp_path: Path, plan: str, stream: str, state: str) -> None:
    """A full disk, a closed descriptor, a pipe without a reader."""
    snap, log = tmp_path / "a.snap", tmp_path / "a.parquet"
    read, write = os.pipe()
    os.close(read)
    target = {"full": os.open("/dev/full", os.O_WRONLY), "closed": subprocess.DEVNULL, "nobody": write}[state]
    number = 1 if stream == "stdout" else 2
    before = (lambda: os.close(number)) if state == "closed" else None
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    command = ["host", plan, "--save", str(snap), "--log", str(log), "--seconds", "3s"]
    with running(*command, **{stream: target, other: subprocess.PIPE}, preexec_fn=before) as process:
        said = b"".join(part or b"" for part in process.communicate(timeout=LIMIT_S))
    assert b"Traceback" not in said
    assert process.returncode == (0 if state == "closed" else 74)
    until = assert_goes_on(snap)
    assert until == 3 or stream == "stdout"
    assert_log(log, until)


def test_closed_streams_are_not_taken_by_files(tmp_path: Path) -> None:
    """What C says last goes to descriptor 2, whatever that is."""
    program = (
        "import os, sys, pathlib; from emu.cli import hold_standard_descriptors; hold_standard_descriptors();"
        "out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT); os.write(2, b'last words'); os.write(out, b'%d' % out)"
    )
    path = tmp_path / "a"
    subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, check=True, preexec_fn=lambda: os.closerange(0, 3))  # noqa: PLW1509
    assert int(path.read_bytes()) > 2


def test_a_reader_that_does_not_read(tmp_path: Path, plan: str) -> None:
    """The pipe is full, and the run waits for its reader: a signal ends that, too; what was not told is told by the run that goes on."""
    snap = tmp_path / "a.snap"
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    with running("host", plan, "--save", str(snap), stdout=write) as process:
        os.close(write)

        def is_full() -> bool:
            waiting = array.array("i", [0])
            fcntl.ioctl(read, termios.FIONREAD, waiting)
            return waiting[0] > 4000

        waits_until(is_full)
        time.sleep(0.5)  # likely in the write by now; if not, the next write is not begun
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 130
    assert_goes_on(snap)
    os.close(read)


# ---- signals -----------------------------------------------------------------------------------------------------------


def ignoring(number: int) -> Callable[[], object]:
    return lambda: signal.signal(number, signal.SIG_IGN)


@pytest.mark.parametrize(("ignored", "heeded"), [(signal.SIGHUP, signal.SIGTERM), (signal.SIGINT, signal.SIGHUP)])
@pytest.mark.parametrize("command", ["host", "boot"])
def test_what_was_ignored_stays_ignored(plan: str, command: str, ignored: signal.Signals, heeded: signal.Signals) -> None:
    """As under nohup, and in the background of a script."""
    arguments = ["host", plan] if command == "host" else ENDLESS
    with running(*arguments, preexec_fn=ignoring(ignored)) as process:
        read_to(process.stdout, b"second=1" if command == "host" else b"page tables")
        process.send_signal(ignored)
        if command == "host":
            read_to(process.stdout, b"second=3")
        else:
            time.sleep(0.5)
            assert process.poll() is None
        process.send_signal(heeded)
        _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert b"Traceback" not in errors


def test_the_summary_has_the_state_at_the_interrupt(plan: str) -> None:
    with running("host", plan, "--json") as process:
        read_to(process.stdout, b"second=2")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=LIMIT_S)
    record = json.loads(output.splitlines()[-1])
    assert (process.returncode, record["machine"]["running"], record["ended"]) == (130, 2, {})
    assert [row["phase"] for row in record["vms"]] == ["running"] * 2
    assert b"VMs 2 running, 0 blocked, 0 waiting, 0 ended" in errors


def test_a_killed_run_leaves_a_log_that_can_be_read(tmp_path: Path, plan: str) -> None:
    log = tmp_path / "a.parquet"
    with running("host", plan, "--log", str(log)) as process:
        waits_until(lambda: log.exists() and pq.read_metadata(log).num_rows > 0)  # it is read while the run goes on
        process.kill()
        process.communicate()
    table = pq.read_table(log)
    assert table.column("name").to_pylist() == ["vm-1", "vm-2"] * (table.num_rows // 2)
    assert_log(log, table.column("seconds").to_pylist()[-1])


def signals_from(monkeypatch: pytest.MonkeyPatch, where: object, name: str, *numbers: int) -> None:
    """A function sends signals to this process whenever it is called."""
    real = getattr(where, name)

    def send(*arguments: object, **options: object) -> object:
        for number in numbers:
            os.kill(os.getpid(), number)
        return real(*arguments, **options)

    monkeypatch.setattr(where, name, send)


def new_host() -> Host:
    return Host(scenario.parse(ENDLESS_HOST, "test", "test"))


def test_signals_while_a_snapshot_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is brought to its end, and is of a machine that goes on."""
    host, path = new_host(), tmp_path / "a.snap"
    with Ending() as ending:
        ending.must_finish()
        ending.begin(host.interrupt)
        host.run(stop=lambda: host.seconds >= 1)
        signals_from(monkeypatch, snapshot, "_write", signal.SIGINT, signal.SIGTERM)
        Saver(host, path, ending).save()
        assert len(ending.seen) > 10
    assert not host.is_cut
    resumed = snapshot.load(path, snapshot.Options(checks=True))
    for each in (host, resumed):
        each.run(stop=lambda each=each: each.seconds >= 2)
    assert [vm.times for vm in host.vms] == [vm.times for vm in resumed.vms]
    host.close()
    resumed.close()


def is_cut_by_another(host: Host) -> bool:
    """Send one, as users do until something happens: one that comes just before the main thread waits is seen with the next only."""
    os.kill(os.getpid(), signal.SIGTERM)
    return host.is_cut


def test_a_second_signal_breaks_the_slice_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is in the middle of something then, and is not saved; the snapshot before stays."""
    host, path = new_host(), tmp_path / "a.snap"
    with Ending() as ending:
        ending.must_finish()
        ending.begin(host.interrupt)
        host.run(stop=lambda: host.seconds >= 1)
        saver = Saver(host, path, ending)
        saver.save()
        before, real = path.read_bytes(), HostedVm.run_until

        def run_until(vm: HostedVm, now: int) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            waits_until(lambda: is_cut_by_another(host))
            real(vm, now)

        monkeypatch.setattr(HostedVm, "run_until", run_until)
        host.run()
        assert host.is_cut
        assert host.seconds == 1
        saver.save_last()
    assert saver.messages == [f"not saved, as a slice was broken off: {path} is as it was"]
    assert path.read_bytes() == before
    host.close()


def test_an_interrupt_before_anything_ran_saves_nothing(tmp_path: Path) -> None:
    host, path = new_host(), tmp_path / "a.snap"
    path.write_bytes(b"of another run")
    with Ending() as ending:
        ending.must_finish()
        os.kill(os.getpid(), signal.SIGTERM)
        saver = Saver(host, path, ending)
        saver.save_last()
    assert path.read_bytes() == b"of another run"
    assert saver.messages == [f"not saved, as nothing had run yet: {path} is as it was"]
    host.close()


def test_a_signal_while_a_snapshot_is_read() -> None:
    with pytest.raises(KeyboardInterrupt), Ending():
        os.kill(os.getpid(), signal.SIGTERM)


def test_handlers_are_given_back_and_ignored_signals_left_alone() -> None:
    def handler(_number: int, _frame: object) -> None:
        """Nothing."""

    before = signal.getsignal(signal.SIGINT)
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled(handler):
            assert signal.getsignal(signal.SIGINT) is handler
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGHUP, ignored)


def test_a_write_that_waits_is_given_up() -> None:
    """At once when a signal comes, and before it is begun when one came."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(4096))
    os.set_blocking(write, True)
    with Ending() as ending:
        ending.must_finish()

        def write_on() -> None:
            with ending.writing(write):
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                os.write(write, b"x")

        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        try:
            with pytest.raises(OutputInterruptedError):
                write_on()
        finally:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        with pytest.raises(OutputInterruptedError), ending.writing(write):
            pytest.fail("it was begun")
    os.close(read)
    os.close(write)


# ---- two runs ----------------------------------------------------------------------------------------------------------


def test_two_runs_that_save_to_one_file(tmp_path: Path) -> None:
    """Neither replaces what the other wrote."""
    hosts, path = [new_host(), new_host()], tmp_path / "a.snap"
    first, second = (Saver(host, path, Ending()) for host in hosts)
    for host in hosts:
        host.step()
    first.save()
    kept = path.read_bytes()
    hosts[1].step()
    second.save()
    beside = tmp_path / f"a.snap.{os.getpid()}"
    assert second.messages == [f"{path}: another run wrote it meanwhile: this one's snapshot is {beside}"]
    assert path.read_bytes() == kept
    second.save()
    first.save()
    assert len(second.messages) == 1
    assert not first.messages
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.snap", beside.name]
    for host in hosts:
        host.close()


# ---- what is wrong before anything runs, and names ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--save", "a", "--log", "a"], "a: --save and --log are the same file"),
        (["--save", "endless.toml"], "endless.toml: --save and the scenario are the same file"),
        (["--log", "./endless.toml"], "endless.toml: --log and the scenario are the same file"),
        (["--log", "link"], "link: --log and the scenario are the same file"),
        (["--sharing-pages", "a", "--log", "a"], "a: --log and --sharing-pages are the same file"),
        (["--save", "kernel"], "kernel: --save and the guest of of-its-own are the same file"),
        (["--swap", "nowhere"], "nowhere: not a folder"),
    ],
)
def test_files_that_are_one(tmp_path: Path, plan: str, options: list[str], line: str) -> None:
    text = ENDLESS_HOST + '[[vm]]\nname = "of-its-own"\nguest = "kernel"\nmemory = "8M"\nappend = "x"\n'
    Path(plan).write_text(text)
    (tmp_path / "kernel").write_bytes(b"kernel")
    (tmp_path / "link").symlink_to("endless.toml")
    done = subprocess.run([*EMU, "host", "endless.toml", *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"emu: {line}\n")
    assert Path(plan).read_text() == text
    assert (tmp_path / "kernel").read_bytes() == b"kernel"


def test_swap_areas_that_cannot_be_made_leave_none(tmp_path: Path, plan: str) -> None:
    """The second VM's file is there already, of somebody else: it stays, and the first one's goes."""
    (tmp_path / "2-vm-2.swap").write_bytes(b"x")
    done = emu("host", plan, "--swap", str(tmp_path))
    assert (done.returncode, done.stderr) == (
        2,
        f"emu: {tmp_path}/2-vm-2.swap: is there already, perhaps of a run that was killed: remove it\n",
    )
    assert sorted(path.name for path in tmp_path.glob("*.swap")) == ["2-vm-2.swap"]


def test_names_drive_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever a scenario calls a VM: all that is printed shows it escaped, and its swap area is in the folder."""
    plan = scenario.parse('seconds = "1s"\n' + ENDLESS_HOST, "test", "test")
    names = ["\x1b[2J\n[red]../x", "[/no]\x07"]
    plan = replace(plan, vms=tuple(replace(vm, name=name) for vm, name in zip(plan.vms, names, strict=True)))
    monkeypatch.setattr(crash, "install", lambda: None)
    for top in (False, True):
        options = HostOptions(
            scenario=plan, top=top, swap_folder=tmp_path, sharing_report=True, pages=((names[0], 3),), as_json=True
        )
        assert run(options) == 0
        shown = "".join(capfd.readouterr())
        assert shown.count("\\x1b[2J\\n[red]../x") > 2
        assert all(part.isprintable() for part in shown.replace("\n", ""))
    assert not list(tmp_path.iterdir())
