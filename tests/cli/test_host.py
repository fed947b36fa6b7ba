# SPDX-License-Identifier: GPL-2.0-or-later
"""`emu host`: what it prints, writes, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.test_boot import emu, one_complaint

ROOT = Path(__file__).resolve().parents[2]
TWO = """
memory = "64M"
[services]
scan_rate = 40000
[[vm]]
name = "vm"
count = 2
memory = "16M"
append = 'quiet run="{program}"'
"""


def write(folder: Path, program: str = "idle seconds=2", more: str = "") -> Path:
    path = folder / "two.toml"
    path.write_text(more + TWO.replace("{program}", program))
    return path


def test_a_run_with_everything(tmp_path: Path) -> None:
    log = tmp_path / "log.parquet"
    done = emu("host", str(write(tmp_path)), "--log", str(log), "--sharing-report", "--json", "--check", "--swap", str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "vm-1: idle summary seconds=2" in lines
    assert "frames in common, MB: by pair of VMs" in lines
    record = json.loads(lines[-1])
    assert record["ended"] == {"vm-1": "exited with value 0", "vm-2": "exited with value 0"}
    assert done.stderr.splitlines()[-2:] == ["emu: vm-1: exited with value 0", "emu: vm-2: exited with value 0"]
    table = pq.read_table(log).to_pydict()
    assert set(table["name"]) == {"vm-1", "vm-2"}
    assert table["seconds"][:4] == [1.0, 1.0, 2.0, 2.0]
    assert table["shrd"][0] > 50
    assert set(table["state"]) == {"high"}


def test_two_runs_are_the_same(tmp_path: Path) -> None:
    logs = []
    for number in range(2):
        log = tmp_path / f"{number}.parquet"
        emu("host", str(write(tmp_path)), "--log", str(log), "--threads", str(number + 1), "-q")
        logs.append(pq.read_table(log).to_pylist())
    assert logs[0] == logs[1]


def test_the_table(tmp_path: Path) -> None:
    done = emu("host", str(write(tmp_path)), "--top")
    assert done.returncode == 0
    assert "MCTLSZ" in done.stdout
    assert "PSHARE" in done.stdout


def test_a_guest_that_fails_is_status_1(tmp_path: Path) -> None:
    done = emu("host", str(write(tmp_path, "nothing")))
    assert done.returncode == 1
    assert "emu: vm-2: exited with value" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ["nowhere.toml"],
            2,
            'emu: unknown scenario "nowhere.toml": there is no such file; known are hundred, identical, overcommit',
        ),
        ([], 2, "emu: nothing to run: give a scenario, --resume or --list"),
        (["overcommit", "--swap", "/nowhere"], 2, "emu: /nowhere: not a folder"),
        (["overcommit", "--save", "/nowhere/x"], 2, "emu: /nowhere/x: not a file that can be written"),
        (["overcommit", "--save", "/dev/full"], 2, "emu: /dev/full: not a file that can be written"),
        (["overcommit", "--save-every", "1s"], 2, "emu: --save-every: there is no --save FILE"),
        (["overcommit", "--save", "x.snap", "--save-every", "1ms"], 2, "emu: --save-every 1ms: a tenth of a second at least"),
        (["overcommit", "--seconds", "3"], 2, "emu: --seconds '3': expected a whole number with us, ms or s, such as 500us"),
        (["overcommit", "--resume", "x"], 2, "emu: a scenario and --resume exclude each other: the snapshot has its scenario"),
        (["--resume", "/nowhere"], 66, "emu: /nowhere: cannot read the snapshot (no such file or directory)"),
        (["--resume", "README.md"], 66, "emu: README.md: no snapshot, or a damaged one (File is not a zip file)"),
        (["overcommit", "--page", "3"], 2, "emu: --page 3: expected VM:PPN, such as vm-1:0x3f2"),
        (["overcommit", "--page", "x:0"], 2, "emu: page of 'x': the VMs are toucher-1, toucher-2, files, no-balloon"),
        (["overcommit", "--log", "/nowhere/x", "-q"], 74, "emu: /nowhere/x: cannot write the log (no such file or directory)"),
    ],
)
def test_complaints(arguments: list[str], status: int, message: str) -> None:
    done = emu("host", *arguments)
    assert (done.returncode, one_complaint(done.stderr)) == (status, message)


def test_what_cannot_take_a_result_is_left_as_it_is(tmp_path: Path) -> None:
    scenario = str(write(tmp_path, "idle seconds=1"))
    for option, says in (("--log", "cannot write the log"), ("--sharing-pages", "cannot write the pages")):
        done = emu("host", scenario, "-q", option, "/dev/full")
        assert (done.returncode, one_complaint(done.stderr)) == (74, f"emu: /dev/full: {says} (no space left on device)")
        assert Path("/dev/full").is_char_device()


def test_list() -> None:
    lines = emu("host", "--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["hundred", "identical", "overcommit"]


def test_ctrl_c_ends_all_vms_and_removes_their_areas(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emu", "host", str(write(tmp_path, "idle seconds=100000")), "--swap", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as running:
        assert running.stdout is not None
        running.stdout.readline()
        assert len(list(tmp_path.glob("*.swap"))) == 2
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate()
    assert running.returncode == 130
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("*.swap"))


WORK = "toucher schedule=1m@0,6m@3 seconds=8 seed=1"


def lines_of(text: str) -> dict[str, list[str]]:
    """What each VM printed."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, said = line.partition(": ")
        found.setdefault(name, []).append(said)
    return found


def test_a_run_goes_on_in_another_process(tmp_path: Path) -> None:
    scenario, snap = str(write(tmp_path, WORK)), str(tmp_path / "a.snap")
    whole = emu("host", scenario, "--log", str(tmp_path / "whole"))
    first = emu("host", scenario, "--log", str(tmp_path / "first"), "--seconds", "4s", "--save", snap)
    assert f"emu: saved at 4.0 virtual seconds; go on with: emu host --resume {snap}" in first.stderr
    second = emu("host", "--resume", snap, "--log", str(tmp_path / "second"), "--threads", "1", "--swap", str(tmp_path))
    assert (whole.returncode, first.returncode, second.returncode) == (0, 0, 0)
    parts = lines_of(first.stdout)
    for name, said in lines_of(second.stdout).items():
        parts[name] += said
    assert parts == lines_of(whole.stdout)
    rows = [pq.read_table(tmp_path / name).to_pylist() for name in ("whole", "first", "second")]
    assert rows[0] == rows[1] + rows[2]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "emu", "host", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def wait_for(running: subprocess.Popen[str], text: str) -> None:
    """Read what a run prints up to a line with this; what goes on behind it is not known."""
    assert running.stdout is not None
    assert any(text in line for line in running.stdout)


def test_a_run_that_is_killed_goes_on_from_its_last_snapshot(tmp_path: Path) -> None:
    """Kill -9 in the middle: whatever the file is then, it is a whole snapshot, and the rest of the run is that of the run uninterrupted."""
    scenario, snap = str(write(tmp_path, WORK.replace("seconds=8", "seconds=60"))), tmp_path / "a.snap"
    whole = lines_of(emu("host", scenario).stdout)
    with start(scenario, "--save", str(snap), "--save-every", "300ms") as running:
        wait_for(running, "second=5")
        running.kill()
        running.communicate()
    assert running.returncode == -signal.SIGKILL
    rest = emu("host", "--resume", str(snap))
    assert rest.returncode == 0, rest.stderr
    for name, said in lines_of(rest.stdout).items():
        assert 0 < len(said) < len(whole[name])
        assert said == whole[name][-len(said) :]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_is_saved(tmp_path: Path, number: signal.Signals) -> None:
    scenario, snap = str(write(tmp_path, WORK.replace("seconds=8", "seconds=100000"))), tmp_path / "a.snap"
    with start(scenario, "--save", str(snap)) as running:
        wait_for(running, "second=2")
        running.send_signal(number)
        _, errors = running.communicate()
    assert running.returncode == 130
    saved = re.search(r"saved at (\d+)\.\d virtual seconds; go on with: emu host --resume", errors)
    assert saved is not None, errors
    end = int(saved[1]) + 5
    seen = emu("host", "--resume", str(snap), "--seconds", f"{end}s", "-q", "--json")
    assert seen.returncode == 0, seen.stderr
    assert json.loads(seen.stdout)["machine"]["seconds"] == pytest.approx(end, abs=0.11)


def test_a_snapshot_that_cannot_be_written_now_and_then_does_not_end_the_run(tmp_path: Path) -> None:
    scenario = str(write(tmp_path, "idle seconds=3"))
    name = "a" * 250  # as long as a name may be, but for the process number that the new file has in its
    done = emu("host", scenario, "--save", str(tmp_path / name), "--save-every", "1s")
    assert done.returncode == 74
    assert done.stderr.count("cannot write the snapshot (file name too long)") >= 3
    assert "emu: vm-1: exited with value 0" in done.stderr
    assert "vm-2: idle summary seconds=3" in done.stdout
    assert "Traceback" not in done.stderr


def test_single_pages(tmp_path: Path) -> None:
    """Who has a page too, since when, and what ended that; the same of all pages as Parquet."""
    path = tmp_path / "pages.parquet"
    arguments = (
        "--seconds",
        "5s",
        "--page",
        "vm-1:0x101",
        "--page",
        "vm-2:0x7000",
        "--sharing-pages",
        str(path),
        "--sharing-report",
    )
    done = emu("host", str(write(tmp_path, WORK)), *arguments[:4], *arguments[6:])
    assert done.returncode == 0, done.stderr
    assert re.search(r"^vm-1 page 0x101: shared since \d\.\d s, frame 0x[0-9a-f]+ with vm-2 0x101$", done.stdout, re.MULTILINE)
    assert re.search(
        r"vm-1: \d+ scanned, \d+ equal to a shared frame, \d+ to a hint, 0 to a hash only, \d+ stale hints, \d+ COW breaks",
        done.stdout,
    )
    total, *parts = [int(number) for number in reversed(re.findall(r", (\d+) COW breaks", done.stdout))]
    assert total == sum(parts) > 0
    rows = pq.read_table(path).to_pylist()
    broken = [row for row in rows if row["broken_by"] == "a store"]
    assert {row["vm"] for row in rows} == {"vm-1", "vm-2"}
    assert broken
    assert all(0 < row["until"] < 5.01 and row["rip"] for row in broken)
    assert all(row["references"] > 0 and row["since"] < 5.01 for row in rows if row["state"] == "shared")
    assert all(row["until"] > row["since"] for row in broken if row["state"] == "present")
    wrong = emu("host", str(write(tmp_path, "idle seconds=100000")), *arguments[4:6])
    assert (wrong.returncode, wrong.stderr.splitlines()[-1]) == (2, "emu: page 0x7000 of vm-2: it has 0x1000")
