# SPDX-License-Identifier: GPL-2.0-or-later
"""`emu test` as a command: lines, statuses, files, QEMU, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from emu.suite import qemu
from tests.suite import kernels
from tests.suite.kernels import case, exits, kernel, report, suite

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "emu", "test"]
MIXED = (
    case("good", "exit = 3")
    + case("bad", "exit = 2")
    + case("left out", 'skip = "later"')
    + case("checks", "cases_from_serial = true\nexit = 1", image="r.bin")
)
HELLO = kernel(kernels.says("hello\n", exits(0)))
# For each leaf of features of CPUID, all but EAX and what leaf 1 has of caches and the APIC in EBX, as raw bytes on COM1.
LEAVES = {1: "cd", 7: "bcd", 0x8000_0001: "cd", 0x8000_0008: "a"}
COPY_TO_EAX = {"a": "89f8", "b": "89d8", "c": "89c8", "d": "89f0"}  # CPUID's results are kept in EDI, EBX, ECX and ESI
TELLS_FEATURES = b"".join(
    b"\xb8"
    + leaf.to_bytes(4, "little")
    + bytes.fromhex("31c9 0fa2 89c7 89d6 66baf803")
    + b"".join(bytes.fromhex(COPY_TO_EAX[name] + "eec1e808" * 4) for name in names)
    for leaf, names in LEAVES.items()
)
needs_qemu = pytest.mark.skipif(not qemu.is_installed(), reason="QEMU is not installed")


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": kernels.ABORTING}


def emu_test(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment(), cwd=ROOT
    )


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    text = "PASS one\nFAIL two: expected 1, seen 2\n1 passed, 1 failed, 0 skipped\n"
    return suite(tmp_path / "mixed", MIXED, k=kernel(exits(3)), r=report(text, 1)).parent


def test_lines_explanations_and_the_closing_count(mixed: Path) -> None:
    done = emu_test(mixed, "--mmu", "shadow", "-j", 1)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert re.fullmatch(r"PASS good \[shadow\]: [\d,]+ instructions", lines[0])
    assert lines[2] == "SKIP left out [shadow]: later"
    assert lines[-1] == "2 passed, 2 failed, 1 skipped"
    explained = done.stdout[done.stdout.index("\nFAIL bad [shadow]\n") :]
    assert "  end: expected exited with value 2, seen exited with value 3" in explained
    assert "  check two: expected 1, seen 2" in explained
    assert re.search(r"last \d+ events before the end:\n.* stop +exited with value 3", explained, re.DOTALL)
    assert done.stderr == ""


def test_the_number_of_workers_changes_only_the_order(mixed: Path) -> None:
    one, two = (emu_test(mixed, "-j", number) for number in (1, 2))
    assert sorted(one.stdout.splitlines()) == sorted(two.stdout.splitlines())
    reports = [emu_test(mixed, "-j", number, "--json").stdout for number in (1, 2)]
    assert reports[0] == reports[1]
    assert len([json.loads(line) for line in reports[0].splitlines()]) == 8


def test_statuses(mixed: Path, tmp_path: Path) -> None:
    assert emu_test(mixed, "-k", "good").returncode == 0
    assert emu_test(mixed, "-k", "left").returncode == 1  # nothing ran
    for arguments, words in (
        ((mixed, "-k", "nothing"), "no case matches 'nothing'"),
        ((mixed, "--mmu", "both"), 'unknown MMU "both"'),
        ((tmp_path / "none",), "no such file"),
        ((mixed, "--tap", "--json"), "exclude each other"),
        ((mixed, "-j", 0), "-j '0': expected a whole number from 1 on"),
    ):
        done = emu_test(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_list_runs_nothing(mixed: Path) -> None:
    done = emu_test(mixed, "--list", "-k", "*d")
    assert done.stdout.splitlines() == ["good [shadow]", "good [nested]", "bad [shadow]", "bad [nested]"]


def test_tap(mixed: Path) -> None:
    lines = emu_test(mixed, "--tap", "--mmu", "nested").stdout.splitlines()
    assert lines[:2] == ["TAP version 13", "1..5"]
    points = [line for line in lines[2:] if not line.startswith("#")]
    assert points == [
        "ok 1 - good [nested]",
        "not ok 2 - bad [nested]",
        "ok 3 - left out [nested] # SKIP later",
        "ok 4 - checks [nested] one",
        "not ok 5 - checks [nested] two",
    ]


def test_junit(mixed: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.xml"
    emu_test(mixed, "--junit", path)
    (group,) = ET.parse(path).getroot()  # noqa: S314  (our own)
    assert (group.get("tests"), group.get("failures"), group.get("skipped")) == ("10", "4", "2")
    assert len(group.findall("testcase")) == 10
    assert len(group.findall("testcase/failure")) == 4
    assert "seen exited with value 3" in (group.findall("testcase/failure")[0].text or "")


def test_junit_survives_what_a_guest_prints(tmp_path: Path) -> None:
    image = kernel(kernels.says("\x1b[2J\x01 <&>\n", exits(1)))
    suite(tmp_path, case("a"), k=image)
    done = emu_test(tmp_path, "--junit", tmp_path / "out.xml", "--mmu", "shadow")
    assert "\x1b" not in done.stdout
    assert "\\x1b[2J\\x01 <&>" in (ET.parse(tmp_path / "out.xml").getroot().findall(".//failure")[0].text or "")  # noqa: S314


@pytest.mark.parametrize("option", ["--junit", "--update"])
def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, option: str) -> None:
    suite(tmp_path, case("a", 'golden = "k.bin/x"'), k=HELLO)
    arguments = [option, tmp_path / "none" / "x.xml"] if option == "--junit" else [option]
    done = emu_test(tmp_path, *arguments)
    assert done.returncode == 74
    assert len(done.stderr.splitlines()) == 1
    assert "cannot write" in done.stderr


def test_a_dying_worker_is_a_line(tmp_path: Path) -> None:
    suite(tmp_path, case("dies") + case("lives", image="l.bin"), k=kernel(kernels.ABORTS), l=HELLO)
    done = emu_test(tmp_path, "--mmu", "nested", "-j", 2)
    assert done.returncode == 1
    assert "the process of this case ended with status 70; the engine gave up on an instruction" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"
    assert done.stderr == ""


# ---- golden files ----


def test_golden_files_are_made_compared_and_rewritten(tmp_path: Path) -> None:
    text = case("a", 'golden = "a.serial"\ntrace = "a.{mmu}.trace"\ntrace_events = ["port", "stop"]')
    suite(tmp_path, text, k=HELLO)
    assert "--update makes it" in emu_test(tmp_path).stdout
    made = emu_test(tmp_path, "--update")
    assert made.returncode == 0
    assert made.stdout.count("updated ") == 3
    assert (tmp_path / "a.serial").read_text() == "hello\n"
    assert emu_test(tmp_path).returncode == 0
    trace = tmp_path / "a.nested.trace"
    before = trace.read_text()
    lines = before.splitlines(keepends=True)
    trace.write_text("".join([*lines[:4], "another line\n", *lines[5:]]))
    broken = emu_test(tmp_path)
    assert broken.returncode == 1
    assert f"trace: {trace}: first difference in line 5" in broken.stdout
    assert "  - another line\n" in broken.stdout
    assert emu_test(tmp_path, "--update").stdout.count("updated ") == 1
    assert trace.read_text() == before


def test_one_golden_file_for_mmus_that_differ_is_refused(tmp_path: Path) -> None:
    suite(tmp_path, case("a", 'trace = "a.trace"\ntrace_events = ["fault"]', image="paging"))
    done = emu_test(tmp_path, "--update")
    assert done.returncode == 1
    assert "put {mmu} in its name" in done.stdout


# ---- QEMU ----


@needs_qemu
def test_qemu_agrees_differs_and_is_known_to_differ(tmp_path: Path) -> None:
    tells = bytes.fromhex("b800000040 0fa2 81fb54434754 7505") + exits(1) + exits(2)  # leaf 4000_0000h: "TCGT"?
    text = (
        case("same")
        + case("other", "exit = 2", image="t.bin")
        + case("known", 'exit = 2\nqemu_differs = "it says who it is"', image="t.bin")
        + case("no more", 'qemu_differs = "it did once"')
        + case("apart", 'qemu = false\nreason = "slow there"')
        + case("triple", 'outcome = "triple fault"', image="f.bin")
    )
    suite(tmp_path, text, k=HELLO, t=kernel(tells), f=kernel(kernels.TRIPLE_FAULT))
    done = emu_test(tmp_path, "--qemu", "--mmu", "shadow")
    lines = {line.split(" [qemu]")[0]: line for line in done.stdout.splitlines() if "[qemu]:" in line}
    assert done.returncode == 1
    assert {"PASS same", "FAIL other", "PASS known", "FAIL no more", "SKIP apart", "PASS triple"} == set(lines)
    assert "differs from QEMU as known: it says who it is" in lines["PASS known"]
    assert "QEMU: emu exited with value 2, QEMU debug exit with value 1" in done.stdout
    assert "expected to differ (it did once), it does not" in done.stdout
    assert done.stdout.splitlines()[-1] == "9 passed, 2 failed, 1 skipped"


@needs_qemu
def test_qemu_differs_in_exactly_the_checks_that_are_named(tmp_path: Path) -> None:
    here, there = "PASS one\nPASS two\n2 passed, 0 failed, 0 skipped\n", "PASS one\nFAIL two: no\n1 passed, 1 failed, 0 skipped\n"
    keys = 'cases_from_serial = true\nqemu_differs = "why"\nqemu_checks = '
    text = case("right", f'{keys}["two"]') + case("too few", f'{keys}["none"]') + case("too many", f'{keys}["one", "t*"]')
    suite(tmp_path, text, k=kernels.reports_by_host(here, there))
    done = emu_test(tmp_path, "--qemu", "--mmu", "shadow")
    lines = {line.split(" [qemu]")[0] for line in done.stdout.splitlines() if "[qemu]:" in line}
    assert lines == {"PASS right", "FAIL too few", "FAIL too many"}
    assert "QEMU: check two: emu PASS, QEMU FAIL: no\n" in done.stdout
    assert "QEMU: check none: expected to differ, the guest has none\n" in done.stdout
    assert "QEMU: check one: expected to differ, it does not\n" in done.stdout


@needs_qemu
def test_lines_that_depend_on_time_are_not_compared_with_qemu(tmp_path: Path) -> None:
    here, there = "start\ntook 5 s\nend\n", "start\ntook 7 s\ntook 8 s\nend\n"
    text = case("ignored", 'qemu_ignores = ["took * s"]') + case("compared") + case("another", 'qemu_ignores = ["5"]')
    suite(tmp_path, text, k=kernels.reports_by_host(here, there, qemu_exit=0))
    done = emu_test(tmp_path, "--qemu", "--mmu", "shadow")
    lines = {line.split(" [qemu]")[0] for line in done.stdout.splitlines() if "[qemu]:" in line}
    assert lines == {"PASS ignored", "FAIL compared", "FAIL another"}


@needs_qemu
def test_qemu_has_the_processor_that_emu_shows(tmp_path: Path) -> None:
    suite(tmp_path, case("features", 'serial_regex = "."'), k=kernel(TELLS_FEATURES + exits(0)))
    done = emu_test(tmp_path, "--qemu", "--mmu", "shadow")
    assert done.stdout.splitlines()[-1] == "2 passed, 0 failed, 0 skipped", done.stdout


# ---- boot disks ----


def test_a_boot_disk_runs_beside_kernels(tmp_path: Path) -> None:
    (tmp_path / "a,b.img").write_bytes(kernels.boot_sector("from disk\n", 3))
    suite(tmp_path, '[[case]]\nname = "d"\nboot_disk = "a,b.img"\nexit = 3\nserial_exact = "from disk\\n"\n')
    options = ["--qemu"] if qemu.is_installed() else []
    done = emu_test(tmp_path, *options)
    assert done.stdout.splitlines()[-1] == f"{2 + len(options)} passed, 0 failed, 0 skipped", done.stdout


def test_a_boot_disk_that_is_none_fails_its_case(tmp_path: Path) -> None:
    suite(tmp_path, '[[case]]\nname = "d"\nboot_disk = "none.img"\n')
    done = emu_test(tmp_path, "--mmu", "shadow")
    assert (done.returncode, done.stderr) == (1, "")
    assert "none.img: cannot read the boot disk" in done.stdout


@needs_qemu
def test_qemu_gets_arguments_memory_and_modules(tmp_path: Path) -> None:
    (tmp_path / "a,b").write_text("module")
    suite(tmp_path, case("a", 'append = "x=1 y"\nmodules = ["a,b"]\nmemory = "12M"', image="hello"))
    done = emu_test(tmp_path, "--qemu", "--mmu", "shadow")
    assert done.stdout.splitlines()[-1] == "2 passed, 0 failed, 0 skipped"


def test_qemu_that_is_not_there_is_said(tmp_path: Path) -> None:
    suite(tmp_path, case("a"), k=HELLO)
    done = subprocess.run(
        [*COMMAND, str(tmp_path), "--qemu"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment() | {"PATH": ""},
    )
    assert (done.returncode, done.stderr) == (2, f"emu: --qemu: {qemu.PROGRAM} is not installed\n")


# ---- Ctrl-C ----


def test_ctrl_c_sums_up_and_leaves_no_process(tmp_path: Path) -> None:
    suite(tmp_path, case("first") + case("endless", "limit = 1000000000000", image="l.bin"), k=HELLO, l=kernel(kernels.LOOP))
    command = [*COMMAND, str(tmp_path), "-j", "1", "--mmu", "shadow"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
    ) as running:
        assert running.stdout is not None
        first = running.stdout.readline()  # then the endless one is under way
        workers = children(running.pid)
        assert len(workers) == 1
        running.send_signal(signal.SIGINT)
        rest, errors = running.communicate()
    assert first.startswith("PASS first")
    assert running.returncode == 130
    assert rest.splitlines()[-1] == "1 passed, 0 failed, 0 skipped"
    assert errors == "emu: interrupted: 1 of 2 runs were not done\n"
    assert not [pid for pid in workers if is_running(pid)]


def test_a_killed_command_takes_its_workers_along(tmp_path: Path) -> None:
    suite(tmp_path, case("first") + case("endless", "limit = 1000000000000", image="l.bin"), k=HELLO, l=kernel(kernels.LOOP))
    command = [*COMMAND, str(tmp_path), "-j", "1", "--mmu", "shadow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment()) as running:
        assert running.stdout is not None
        running.stdout.readline()
        workers = children(running.pid)
        running.kill()
    while any(is_running(pid) for pid in workers):  # the kernel needs a moment
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ---- pytest ----


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Pytest as a user has it who installed emu: with the plugin, without this project's settings."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "emu.suite.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
    ]
    return subprocess.run(
        [*command, *arguments, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment() | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )


def test_pytest_collects_and_explains(mixed: Path) -> None:
    done = run_pytest(mixed, "-v", "-rs")
    assert done.returncode == 1
    assert "4 failed, 2 passed, 2 skipped" in done.stdout
    assert "end: expected exited with value 2, seen exited with value 3" in done.stdout
    assert "events before the end" in done.stdout
    assert re.search(r"good\[shadow\] PASSED", done.stdout)
    assert "Traceback" not in done.stdout


def test_pytest_says_what_is_wrong_with_a_suite(tmp_path: Path) -> None:
    suite(tmp_path, case("a", "colour = 1"))
    done = run_pytest(tmp_path)
    assert done.returncode == 2
    assert 'suite.toml:4: [[case]] "a": unknown key "colour"' in done.stdout.replace("\n", "")


def test_the_fixture_gives_a_finished_run(tmp_path: Path) -> None:
    shutil.copy(suite(tmp_path / "images", case("a"), k=HELLO, bad=kernel(kernels.ABORTS)).parent / "k.bin", tmp_path)
    shutil.copy(tmp_path / "images" / "bad.bin", tmp_path)
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_run(emu_vm):\n"
        "    run = emu_vm('./k.bin', mmu='nested', events=('port',))\n"
        "    assert (str(run.outcome), run.value, run.serial) == ('exited', 0, 'hello\\n')\n"
        "    assert run.counters['io_writes'] >= 7 and set(run.events['va']) >= {0x3F8, 0xF4}\n"
        "def test_abort(emu_vm):\n"
        "    with pytest.raises(Exception, match='engine gave up'):\n"
        "        emu_vm('./bad.bin')\n"
    )
    done = run_pytest(tmp_path)
    assert "2 passed" in done.stdout, done.stdout


def test_the_plugin_is_cheap_for_those_without_a_suite() -> None:
    code = "import sys, emu.suite.pytest_plugin; print([name for name in ('numpy', 'numba', 'unicorn') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment(), cwd=ROOT)
    assert done.stdout == "[]\n"
