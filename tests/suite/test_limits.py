# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs that would take for ever, print for ever, or be judged for ever: each ends, is a failure, and says why."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emu import events
from emu.config import Mmu
from emu.devices.board import COM1_BASE
from emu.errors import EmuError
from emu.events import Kind
from emu.suite import matching, report, results, runner
from emu.suite.pool import Lost, Pool
from emu.suite.reading import read_suite
from emu.suite.results import FAIL, PASS, SKIP, Job, Result, jobs_of
from emu.suite.run import LastEvents
from emu.suite.runner import run_jobs
from tests.suite import kernels
from tests.suite.kernels import case, exits, kernel, suite

PRINTS_FOR_EVER = kernel(bytes.fromhex("66baf803 b041 ee ebfd"))
HELLO = kernel(kernels.says("hello\n", exits(0)))


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(1) as started:
        yield started


def run_one(pool: Pool, tmp_path: Path, image: bytes, rest: str, **settings: Any) -> Result:
    path = suite(tmp_path, case("a", rest), k=image)
    (result,) = run_jobs(pool, jobs_of(read_suite(path), (Mmu.SHADOW,), **settings))
    return result


# ---- time and output ----


def test_a_guest_that_prints_for_ever_is_ended_and_its_output_kept_short(pool: Pool, tmp_path: Path) -> None:
    result = run_one(pool, tmp_path, PRINTS_FOR_EVER, 'output_limit = "100K"')
    assert (result.status, result.reasons) == (FAIL, ["end: the guest printed more than 100K (output limit)"])
    assert len(result.serial) < 70_000
    assert result.left_out >= 100 * 1024 - 65_536
    text = report.explanation(result)
    assert f"\n    [{result.left_out:,} characters left out]\n" in text
    assert len(text) < 10_000
    assert " stop " in result.trace_tail[-1]


def test_the_narrower_of_two_output_limits_holds(pool: Pool, tmp_path: Path) -> None:
    assert "more than 2K" in run_one(pool, tmp_path, PRINTS_FOR_EVER, 'output_limit = "3K"', output_limit=2048).reasons[0]
    assert "more than 1K" in run_one(pool, tmp_path, PRINTS_FOR_EVER, 'output_limit = "1K"', output_limit=2048).reasons[0]


def test_an_exact_amount_of_output_is_within_the_limit(pool: Pool, tmp_path: Path) -> None:
    image = kernel(kernels.says("x" * 1024, exits(0)))
    assert run_one(pool, tmp_path, image, 'output_limit = "1K"').status == PASS
    assert run_one(pool, tmp_path, kernel(kernels.says("x" * 1025, exits(0))), 'output_limit = "1K"').status == FAIL


def test_the_clock_ends_a_run_that_would_go_on(pool: Pool, tmp_path: Path) -> None:
    endless = 'limit = "1000000G"\noutcome = "limit reached"'
    result = run_one(pool, tmp_path, kernel(kernels.LOOP), f'{endless}\ntimeout = "200ms"')
    assert (result.status, result.reasons) == (FAIL, ["end: not done after 0.2 s of the host's clock (timeout)"])
    assert " stop " in result.trace_tail[-1]
    assert run_one(pool, tmp_path, HELLO, 'timeout = "3600s"').status == PASS


def test_a_golden_file_is_not_made_from_a_run_that_was_cut_off(pool: Pool, tmp_path: Path) -> None:
    result = run_one(pool, tmp_path, PRINTS_FOR_EVER, 'output_limit = "1K"\ngolden = "g"', update=True)
    assert (result.status, result.goldens) == (FAIL, {})


def test_a_call_that_does_not_come_back_is_given_up_and_the_others_go_on() -> None:
    with Pool(1) as pool:
        answers = list(pool.map(os.path.getsize, ["/", "/dev"], lambda _: 600.0))
        assert [item for item, _ in answers] == ["/", "/dev"]
        ((_, lost),) = pool.map(signal.sigwait, [[signal.SIGUSR1]], lambda _: 0.1)
        assert isinstance(lost, Lost)
        assert "not done in time by the host's clock" in str(lost)
        assert len(list(pool.map(os.path.getsize, ["/"]))) == 1


def test_patience_is_only_for_cases_with_a_timeout(tmp_path: Path) -> None:
    plain, timed = read_suite(suite(tmp_path, case("a") + case("b", 'timeout = "3s"')))
    assert runner._patience(Job(plain, Mmu.SHADOW)) is None
    assert runner._patience(Job(timed, Mmu.SHADOW)) == 3 + runner.GRACE_S
    assert runner._patience(Job(timed, Mmu.SHADOW, timeout_us=1_000_000)) == 1 + runner.GRACE_S
    assert runner._patience(Job(plain, Mmu.SHADOW, timeout_us=2_000_000, beside_qemu=True)) == 4 + runner.GRACE_S


def test_instructions_are_limited_without_sleep(pool: Pool, tmp_path: Path) -> None:
    expected = 'outcome = "limit reached"'
    result = run_one(pool, tmp_path, kernel(kernels.LOOP), f'cpu_limit = "20K"\n{expected}')
    assert (result.status, result.instructions // 1000) == (PASS, 19)  # the limit counts the time of the firmware's DMA, too


# ---- the last events ----


def records(ports: list[int]) -> np.ndarray:
    made = np.zeros(len(ports), events.RECORD)
    made["kind"], made["va"], made["time"] = int(Kind.PORT_WRITE), ports, np.arange(len(ports))
    return made


@pytest.mark.parametrize("step", [1, 7, 5000, 20_000])
def test_the_last_events_are_the_last_whatever_the_pieces(step: int) -> None:
    ports = [COM1_BASE if number % 97 else 0x80 for number in range(20_000)]
    everything = records(ports)
    last = LastEvents(20)
    for start in range(0, len(everything), step):
        last.add(everything[start : start + step])
    expected = everything[everything["va"] == 0x80][-20:]
    assert np.array_equal(last.records(), expected)
    assert len(expected) == 20


def test_what_is_selected_is_asked_once_and_in_order() -> None:
    asked: list[np.ndarray] = []

    def select(batch: np.ndarray) -> np.ndarray:
        asked.append(batch.copy())
        return batch[batch["time"] % 2 == 1]

    last = LastEvents(3, select)
    everything = records([0x80] * 10_000)
    for start in range(0, 10_000, 33):
        last.add(everything[start : start + 33])
    assert last.records()["time"].tolist() == last.records()["time"].tolist() == [9995, 9997, 9999]
    assert np.array_equal(np.concatenate(asked), everything)


def test_no_events_are_kept_where_none_are_wanted() -> None:
    last = LastEvents(0)
    last.add(records([0x80] * 5))
    assert len(last.records()) == 0
    assert len(LastEvents(5).records()) == 0


# ---- regular expressions ----


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("^wor.d$", True), ("^orld", False), (r"(?s)hello.*ld\Z", True), (r"(l)\1", True), (r"h(?!ello)", False)],
)
def test_expressions_are_pythons(pattern: str, found: bool) -> None:  # noqa: FBT001
    assert matching.search(pattern, "hello\nworld") is found


@pytest.mark.parametrize("pattern", ["(a+)+$", "(?:a|b)*c", "(a*)*c"])
def test_an_expression_that_explodes_is_given_up(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "LIMIT_S", 1)
    with pytest.raises(EmuError, match="took more than 1 s: the expression can match in too many ways"):
        matching.search(pattern, "a" * 1_000_000 + "!")


def test_an_expression_that_takes_all_memory_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "LIMIT_BYTES", 50 << 20)
    with pytest.raises(EmuError, match="of memory"):
        matching.search("((a)|b)*c", "a" * 10_000_000)


def test_an_expression_that_explodes_fails_its_case(pool: Pool, tmp_path: Path) -> None:
    image = kernel(kernels.says("a" * 3000 + "!\n", exits(0)))
    result = run_one(pool, tmp_path, image, 'serial_regex = "(a+)+$"')
    assert result.status == FAIL
    assert "serial: looking for '(a+)+$' took more than 10 s" in result.reasons[0]


# ---- reports without end ----


def test_a_report_of_any_size_is_read_in_one_go() -> None:
    from emu.suite.protocol import MOST_CHECKS, read_checks

    lines = "".join(f"FAIL check-{number}: {'x' * 1000}\n" for number in range(MOST_CHECKS + 5))
    checks, problems = read_checks(lines, "emu")
    assert (len(checks), problems) == (MOST_CHECKS, [f"more than {MOST_CHECKS:,} results"])
    assert len(checks[0].detail) < 500
    assert read_checks("9" * 5000 + " passed, 0 failed, 0 skipped", "emu")[1] == [
        "no closing line 'N passed, N failed, N skipped': the guest did not come to its end"
    ]


def test_long_lines_and_many_reasons_are_cut(pool: Pool, tmp_path: Path) -> None:
    failing = "".join(f"FAIL c{number}\n" for number in range(70))
    image = kernel(kernels.says(failing + "y" * 2000 + "\n0 passed, 70 failed, 0 skipped\n", exits(0)))
    result = run_one(pool, tmp_path, image, "cases_from_serial = true")
    assert len(result.reasons) == 51
    assert result.reasons[-1] == "20 more reasons"
    assert max(map(len, report.explanation(result).splitlines())) < 500


# ---- what is no regular file ----


@pytest.mark.parametrize("key", ["image", "boot_disk", "modules", "disk", "golden"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_pipes_devices_and_folders_fail_their_case(pool: Pool, tmp_path: Path, key: str, kind: str) -> None:
    suite(tmp_path, "", k=HELLO)
    made = {"fifo": tmp_path / "fifo", "device": Path("/dev/zero"), "folder": tmp_path / "folder"}[kind]
    if kind == "fifo":
        os.mkfifo(made)
    elif kind == "folder":
        made.mkdir()
    image = "" if key in ("image", "boot_disk") else 'image = "k.bin"\n'
    path = suite(tmp_path, f'[[case]]\nname = "a"\n{image}{key} = "{made}"\n')
    (result,) = run_jobs(pool, jobs_of(read_suite(path), (Mmu.SHADOW,)))
    assert result.status == FAIL
    words = "folder" if kind == "folder" else "not a regular file"
    assert words in result.reasons[0]
    assert str(made) in result.reasons[0]


def test_a_guest_that_does_not_exist_is_told_with_the_one_that_was_meant(pool: Pool, tmp_path: Path) -> None:
    path = suite(tmp_path, case("a", image="pagign"))
    (result,) = run_jobs(pool, jobs_of(read_suite(path), (Mmu.SHADOW,)))
    assert result.reasons == [
        f'{tmp_path / "pagign"}: no such file, and no guest of that name comes with emu; did you mean "paging"?'
    ]


# ---- skipping ----


def test_an_exit_value_may_mean_that_everything_was_skipped(pool: Pool, tmp_path: Path) -> None:
    result = run_one(pool, tmp_path, kernel(exits(38)), "skip_exit = 38")
    assert (result.status, result.reasons) == (SKIP, ["the guest ended with value 38 (0x26), which says so"])
    other = run_one(pool, tmp_path, kernel(exits(37)), "skip_exit = 38")
    assert other.reasons == ["end: expected exited with value 0, seen exited with value 37 (0x25)"]


KVM_REPORT = "enabling apic\nPASS: apic: version\nFAIL: apic: timer\nPASS: apic: version\nXFAIL: nmi\nKFAIL: old\nSKIP: x2apic\n"
KVM_END = (
    "SUMMARY: 7 tests, 1 unexpected failures, 1 known failures, 1 expected failures, 1 skipped\n"  # one passed without a line
)


def test_the_form_of_kvm_unit_tests(pool: Pool, tmp_path: Path) -> None:
    rest = 'cases_from_serial = "kvm-unit-tests"\nskip_exit = 38\n'
    result = run_one(pool, tmp_path, kernels.report(KVM_REPORT + KVM_END, 1), rest + "exit = 1")
    assert [(check.status, check.name) for check in result.checks] == [
        (PASS, "apic: version"),
        (FAIL, "apic: timer"),
        (PASS, "apic: version (2)"),
        (PASS, "nmi"),
        (PASS, "old"),
        (SKIP, "x2apic"),
    ]
    assert (result.status, result.reasons) == (FAIL, ["check apic: timer: failed"])
    skipped = run_one(pool, tmp_path, kernels.report("SKIP: svm not available\nSUMMARY: 1 tests, 1 skipped\n", 38), rest)
    assert (skipped.status, skipped.counted) == (SKIP, [SKIP])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (KVM_REPORT, "no closing line 'SUMMARY: N tests'"),
        (
            "PASS: a\nSUMMARY: 1 tests, 1 unexpected failures\n",
            "the closing line says 1 tests, 1 unexpected failures, the lines before it are 1 tests",
        ),
        ("XPASS: a\nSUMMARY: 1 tests\n", "the closing line says 1 tests, the lines before it are 1 tests, 1 unexpected failures"),
        ("PASS: a\nPASS: b\nSUMMARY: 1 tests\n", "the closing line says 1 tests, the lines before it are 2 tests"),
        ("SUMMARY: 0 tests\n", "no result"),
        ("SUMMARY: 1 tests\nPASS: a\n", "a result after the closing line: a"),
        ("ABORT: vmx: no\x1b\nSUMMARY: 1 tests\n", "the guest gave up: vmx: no"),
    ],
)
def test_a_report_of_kvm_unit_tests_that_cannot_be_believed(text: str, problem: str) -> None:
    from emu.suite.protocol import read_checks

    assert any(said.startswith(problem) for said in read_checks(text, "kvm-unit-tests")[1])


# ---- the screen ----


def test_the_text_on_the_screen_can_be_expected(pool: Pool, tmp_path: Path) -> None:
    letters = b"".join(
        b"\xc6\x05" + (0xB8000 + 2 * at).to_bytes(4, "little") + bytes([ord(letter)]) for at, letter in enumerate("Hi there")
    )
    image = kernel(letters + exits(0))
    assert run_one(pool, tmp_path, image, 'screen = ["Hi", "there"]\nscreen_regex = "^Hi +there$"').status == PASS
    bad = run_one(pool, tmp_path, image, 'screen = "bye"\nscreen_regex = "^there"')
    assert bad.reasons == ["screen: expected to contain 'bye', not seen", "screen: expected to match '^there', no match"]
    assert run_one(pool, tmp_path, HELLO, 'screen = "hello"').status == FAIL


def test_a_short_text_is_not_shortened() -> None:
    text = "x" * (results.HEAD + results.TAIL)
    assert results._shortened(text) == (text, 0)
    assert results._shortened(text + "y")[1] == 1
