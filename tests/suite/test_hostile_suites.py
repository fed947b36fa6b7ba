# SPDX-License-Identifier: GPL-2.0-or-later
"""Suites of someone who means harm: nothing is written elsewhere, nothing is run without the user's word, no name drives a terminal."""

from __future__ import annotations

import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from emu.config import Mmu
from emu.errors import FileErrors
from emu.suite import goldens, qemu, report
from emu.suite.protocol import Check
from emu.suite.reading import read_suite
from emu.suite.results import FAIL, PASS, SKIP, Job, Result, jobs_of
from tests.suite import kernels
from tests.suite.kernels import case, exits, kernel, suite
from tests.suite.test_command import COMMAND, emu_test, environment, needs_qemu

HELLO = kernel(kernels.says("hello\n", exits(0)))
NAME = "n\u00e9\u202e\x1b[2J\x00\ufffe\"<&>'"  # as a guest may print it


# ---- golden files ----

ELSEWHERE = "--update writes only in the suite's folder"
SETTINGS = "--update writes nothing that is run or read as settings"


@pytest.mark.parametrize(
    ("golden", "why"),
    [
        ("../out", ELSEWHERE),
        ("sub/../../out", ELSEWHERE),
        ("{outside}/out", ELSEWHERE),
        ("link/out", ELSEWHERE),
        ("link-to-file", ELSEWHERE),
        ("dangling", ELSEWHERE),
        ("below/{mmu}.out", ELSEWHERE),
        (".", ELSEWHERE),
        (".git/config", "--update writes no hidden files"),
        ("sub/.bashrc", "--update writes no hidden files"),
        ("conftest.py", SETTINGS),
        ("sub/pyproject.TOML", SETTINGS),
        ("Makefile", SETTINGS),
        ("program", SETTINGS),
        ("suite.toml", SETTINGS),
        ("k.bin", "--update does not write over a file that the case is made of"),
        ("same", "--update does not write over a file that the case is made of"),
        ("module", "--update does not write over a file that the case is made of"),
        ("disk", "--update does not write over a file that the case is made of"),
    ],
)
@pytest.mark.parametrize("key", ["golden", "trace"])
def test_update_writes_in_the_suites_folder_only(tmp_path: Path, golden: str, why: str, key: str) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "in"
    outside.mkdir()
    (outside / "there").write_text("mine")
    name = golden.replace("{outside}", str(outside))
    rest = f'{key} = "{name}"\nmodules = ["module"]\ndisk = "disk"'
    path = suite(folder, case("good", 'golden = "fine.serial"') + case("bad", rest), k=HELLO)
    (folder / "sub").mkdir()
    (folder / "below").mkdir()
    (folder / "below" / "nested.out").symlink_to(outside / "there")
    for link, target in (
        ("link", outside),
        ("link-to-file", outside / "there"),
        ("dangling", outside / "new"),
        ("same", folder / "k.bin"),
    ):
        (folder / link).symlink_to(target)
    for file in ("module", "disk", "program"):
        (folder / file).touch()
    (folder / "program").chmod(0o755)
    with pytest.raises(FileErrors) as refused:
        goldens.check_can_update(read_suite(path))
    assert [line.removeprefix(f"{path}: ") for line in refused.value.lines] == [f"case 'bad': {folder / name}: {why}"]


def test_a_suite_that_would_write_elsewhere_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    suite(tmp_path / "in", case("good", 'golden = "fine"') + case("bad", 'golden = "../out"'), k=HELLO)
    done = emu_test(tmp_path / "in", "--update")
    assert (done.returncode, done.stdout) == (2, "")
    assert ELSEWHERE in done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", "k.bin", "suite.toml"]


def test_golden_files_may_be_below_and_behind_links_that_stay(tmp_path: Path) -> None:
    suite(tmp_path / "in", case("a", 'golden = "sub/deep/a.{mmu}"') + case("b", 'golden = "link/b"'), k=HELLO)
    (tmp_path / "in" / "real").mkdir()
    (tmp_path / "in" / "link").symlink_to("real")
    assert emu_test(tmp_path / "in", "--update").returncode == 0
    assert (
        (tmp_path / "in" / "sub" / "deep" / "a.nested").read_text() == (tmp_path / "in" / "real" / "b").read_text() == "hello\n"
    )


def test_a_link_that_was_made_meanwhile_is_not_followed(tmp_path: Path) -> None:
    path = suite(tmp_path / "in", case("a", 'golden = "g"'), k=HELLO)
    (job,) = jobs_of(read_suite(path), (Mmu.SHADOW,), update=True)
    (tmp_path / "in" / "g").symlink_to(tmp_path / "out")
    result = Result(job, goldens={tmp_path / "in" / "g": "text"})
    assert goldens.write_goldens([result]) == []
    assert (result.status, result.reasons) == (FAIL, [f"{tmp_path / 'in' / 'g'}: {ELSEWHERE}"])
    assert not (tmp_path / "out").exists()


# ---- QEMU ----


@needs_qemu
def test_options_for_qemu_need_the_users_word(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    suite(tmp_path, case("a", f'qemu_options = ["-D", "{touched}", "-d", "in_asm"]'), k=HELLO)
    done = emu_test(tmp_path, "--qemu", "--mmu", "shadow")
    assert (
        "SKIP a [qemu]: it has options for QEMU, which can read and write any file: --allow-qemu-options lets it\n" in done.stdout
    )
    assert not touched.exists()
    assert "PASS a [qemu]" in emu_test(tmp_path, "--qemu", "--mmu", "shadow", "--allow-qemu-options").stdout
    assert touched.exists()


def test_qemu_gets_names_as_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fat:rw:x` would be a folder that the guest may write to, `-x` an option."""
    monkeypatch.chdir(tmp_path)
    suite(tmp_path, "", k=HELLO)
    text = '[[case]]\nname = "a"\nimage = "-x"\nmodules = ["json:{}", "a,b"]\ndisk = "fat:rw:x"\nappend = "-S"\n'
    suite(tmp_path, text + '[[case]]\nname = "b"\nboot_disk = "nbd:evil"\n')
    kernel_case, disk_case = read_suite(Path("suite.toml"))
    line = qemu.command(kernel_case, kernel_case.disks)
    after = {option: line[line.index(option) + 1] for option in ("-kernel", "-initrd", "-drive", "-append")}
    assert after == {
        "-kernel": f"{tmp_path}/-x",
        "-initrd": f"{tmp_path}/json:{{}},{tmp_path}/a,,b",
        "-drive": f"file={tmp_path}/fat:rw:x,format=raw,if=ide,snapshot=on",
        "-append": "-S",
    }
    assert f"file={tmp_path}/nbd:evil,format=raw,if=ide,snapshot=on" in qemu.command(disk_case)


@needs_qemu
def test_what_qemu_prints_is_bounded_too(tmp_path: Path) -> None:
    (read,) = read_suite(suite(tmp_path, case("a"), k=kernel(bytes.fromhex("66baf803 b041 ee ebfd"))))
    from emu.events import Outcome

    run = qemu.run(read, Outcome.LIMIT, 5000)
    assert (run.status, qemu.describe(run)) == (None, "printed more than the output limit")
    assert len(run.serial) == 5000
    late = qemu.run(read, Outcome.LIMIT, 1 << 40, 0.5)
    assert qemu.describe(late) == "still running after 0.5 s"


# ---- names ----


def results_of(tmp_path: Path) -> list[Result]:
    """Of a suite in a folder with a strange name, whose guest says strange things."""
    folder = tmp_path / "f\x1b[2J\n\u202eolder"
    (read,) = read_suite(suite(folder, case("a <&> #1"), k=HELLO))
    checks = [Check(PASS, NAME, ""), Check(FAIL, "b", NAME), Check(SKIP, "c", NAME)]
    reasons = [f"check b: {NAME}", f"golden: {folder}/g"]
    return [Result(Job(read, Mmu.SHADOW), FAIL, reasons, checks, serial=f"{NAME}\r\n\x9b\n", trace_tail=["x\x07"])]


def test_no_text_drives_the_terminal(tmp_path: Path) -> None:
    results = results_of(tmp_path)
    for text in (report.result_line(results[0]), report.explanation(results[0]), report.tap(results)):
        assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "n\u00e9\\u202e\\x1b[2J\\x00\\ufffe" in report.explanation(results[0])


def test_junit_is_xml_whatever_a_guest_prints(tmp_path: Path) -> None:
    data = report.junit(results_of(tmp_path))
    root = ET.fromstring(data)  # noqa: S314  (our own)
    assert root[0].get("name") == "f\\x1b[2J\\n\\u202eolder"
    text = data.decode()
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert root.findall(".//failure")[0].get("message") == "n\u00e9\\u202e\\x1b[2J\\x00\\ufffe\"<&>'"


def test_lines_of_tap_are_lines(tmp_path: Path) -> None:
    lines = report.tap(results_of(tmp_path)).splitlines()
    assert lines[1] == "1..3"
    assert [line.split(" - ")[0] for line in lines[2:] if not line.startswith("#")] == ["ok 1", "not ok 2", "ok 3"]
    assert " # SKIP " in lines[-1]


# ---- names of suites, times ----


@pytest.mark.parametrize(("start", "named"), [("mine", "."), ("mine/sub", ".."), (".", "mine"), ("mine", "suite.toml")])
def test_junit_has_times_and_the_folders_name_however_it_is_called(tmp_path: Path, start: str, named: str) -> None:
    suite(tmp_path / "mine", case("a"), k=HELLO)
    (tmp_path / "mine" / "sub").mkdir()
    xml = tmp_path / "out.xml"
    command = [*COMMAND, named, "--junit", str(xml), "--mmu", "shadow"]
    done = subprocess.run(command, cwd=tmp_path / start, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    (group,) = ET.parse(xml).getroot()  # noqa: S314
    (testcase,) = group
    assert (group.get("name"), testcase.get("classname"), testcase.get("name")) == ("mine", "mine.shadow", "a [shadow]")
    assert float(group.get("time") or 0) == float(testcase.get("time") or 0) > 0


def test_two_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    cases = [read_suite(suite(tmp_path / part / "x", case("a"), k=HELLO))[0] for part in "ab"]
    root = ET.fromstring(report.junit([Result(Job(read, Mmu.SHADOW)) for read in cases]))  # noqa: S314
    assert [group.get("name") for group in root] == [str(tmp_path / part / "x") for part in "ab"]


def test_the_checks_of_a_run_share_its_time(tmp_path: Path) -> None:
    (result,) = results_of(tmp_path)
    result.seconds = 1.5
    (group,) = ET.fromstring(report.junit([result]))  # noqa: S314
    assert [point.get("time") for point in group] == ["1.500", "0.000", "0.000"]
    assert group.get("time") == "1.500"


# ---- the command ----


def test_near_misses_of_patterns_and_errors_of_several_files(tmp_path: Path) -> None:
    suite(tmp_path / "good", case("paging-32"), k=HELLO)
    done = emu_test(tmp_path, "-k", "pagign-32")
    assert (done.returncode, done.stderr) == (2, "emu: no case matches 'pagign-32'; did you mean \"paging-32\"?\n")
    for name in ("one", "two"):
        suite(tmp_path / name, case("x", "colour = 1"))
    done = emu_test(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f'emu: {tmp_path / name / "suite.toml"}:4: [[case]] "x": unknown key "colour"' for name in ("one", "two")
    ]


@pytest.mark.parametrize(("option", "value"), [("--timeout", "0s"), ("--timeout", "5"), ("--output-limit", "much")])
def test_a_wrong_limit_is_wrong_usage(tmp_path: Path, option: str, value: str) -> None:
    suite(tmp_path, case("a"), k=HELLO)
    done = emu_test(tmp_path, option, value)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert option in done.stderr


def test_limits_of_the_command(tmp_path: Path) -> None:
    suite(tmp_path, case("a", 'limit = "1000000G"', image="l.bin"), l=kernel(kernels.LOOP))
    done = emu_test(tmp_path, "--mmu", "shadow", "--timeout", "300ms", "--output-limit", "1K")
    assert done.returncode == 1
    assert "end: not done after 0.3 s of the host's clock (timeout)" in done.stdout
