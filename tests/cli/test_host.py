# SPDX-License-Identifier: GPL-2.0-or-later
"""`emu host`: what it prints, writes, and how it ends."""

from __future__ import annotations

import json
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
    assert done.stderr.splitlines()[1:] == ["emu: vm-1: exited with value 0", "emu: vm-2: exited with value 0"]
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
        (["nowhere.toml"], 2, "emu: unknown scenario 'nowhere.toml': neither a file nor one of hundred, identical, overcommit"),
        ([], 2, "emu: nothing to run: give a scenario, or --list"),
        (["overcommit", "--swap", "/nowhere"], 2, "emu: /nowhere: not a folder"),
        (["overcommit", "--log", "/nowhere/x", "-q"], 74, "emu: /nowhere/x: cannot write the log (no such file or directory)"),
    ],
)
def test_complaints(arguments: list[str], status: int, message: str) -> None:
    done = emu("host", *arguments)
    assert (done.returncode, one_complaint(done.stderr)) == (status, message)


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
