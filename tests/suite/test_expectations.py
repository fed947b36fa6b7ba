# SPDX-License-Identifier: GPL-2.0-or-later
"""Each expectation holds for a guest that keeps it and fails for one that does not: real guests, in worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from emu.config import Mmu
from emu.suite.pool import Pool
from emu.suite.reading import read_suite
from emu.suite.results import FAIL, PASS, SKIP, Result, jobs_of
from emu.suite.runner import run_jobs
from tests.suite import kernels
from tests.suite.kernels import case, exits, kernel, report, suite

HELLO = kernel(kernels.says("hello\r\nworld\n", exits(0)))


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", kernels.ABORTING)
        with Pool(1) as started:
            yield started


def run_one(pool: Pool, tmp_path: Path, image: bytes, rest: str, mmu: Mmu = Mmu.SHADOW) -> Result:
    path = suite(tmp_path, case("a", rest), k=image)
    (result,) = run_jobs(pool, jobs_of(read_suite(path), (mmu,)))
    return result


@pytest.mark.parametrize("mmu", list(Mmu))
@pytest.mark.parametrize(
    ("image", "holds", "fails", "words"),
    [
        (kernel(exits(3)), "exit = 3", "exit = 2", "end: expected exited with value 2, seen exited with value 3"),
        (kernel(exits(0)), "", 'outcome = "reset"', "end: expected reset, seen exited with value 0"),
        (kernel(kernels.HALT), 'outcome = "halted for ever"', "", "seen halted for ever"),
        (kernel(kernels.RESET), 'outcome = "reset"', "", "seen reset"),
        (kernel(kernels.TRIPLE_FAULT), 'outcome = "triple fault"', "", "seen triple fault"),
        (kernel(kernels.LOOP), 'limit = 9000\noutcome = "limit reached"', "limit = 9000", "seen limit reached"),
        (HELLO, 'serial = "lo\\nwor"', 'serial = "word"', "serial: expected to contain 'word', not seen"),
        (HELLO, 'serial_regex = "^wor.d$"', 'serial_regex = "^ello"', "serial: expected to match '^ello', no match"),
        (HELLO, 'serial_exact = "hello\\nworld\\n"', 'serial_exact = "hello\\n"', "serial: first difference in line 2"),
        (HELLO, "events = { exits = { min = 1 } }", "events = { exits = { max = 0 } }", "events: expected exits at most 0, seen"),
        (
            HELLO,
            "events = { true_faults = { equal = 0 } }",
            "events = { true_faults = { equal = 2 } }",
            "events: expected true_faults exactly 2, seen 0",
        ),
    ],
)
def test_an_expectation(pool: Pool, tmp_path: Path, mmu: Mmu, image: bytes, holds: str, fails: str, words: str) -> None:
    good = run_one(pool, tmp_path, image, holds, mmu)
    assert (good.status, good.reasons) == (PASS, [])
    bad = run_one(pool, tmp_path, image, fails, mmu)
    assert bad.status == FAIL
    assert words in "\n".join(bad.reasons)
    assert " stop " in bad.trace_tail[-1]


REPORT = "talk\nPASS one\nFAIL two: expected 1, seen 2\nSKIP three: no APIC\n1 passed, 1 failed, 1 skipped\n"
GOOD_REPORT = "PASS one\nSKIP three: no APIC\n1 passed, 0 failed, 1 skipped\n"


def test_the_guests_own_results_are_counted(pool: Pool, tmp_path: Path) -> None:
    good = run_one(pool, tmp_path, report(GOOD_REPORT), "cases_from_serial = true")
    assert (good.status, good.counted) == (PASS, [PASS, SKIP])
    bad = run_one(pool, tmp_path, report(REPORT, 1), "cases_from_serial = true")
    assert (bad.status, bad.counted) == (FAIL, [PASS, FAIL, SKIP])
    assert "check two: expected 1, seen 2" in bad.reasons


def test_a_known_failure_must_fail(pool: Pool, tmp_path: Path) -> None:
    known = 'cases_from_serial = true\nknown_failures = ["two"]\nreason = "the engine"\nexit = 1'
    result = run_one(pool, tmp_path, report(REPORT, 1), known)
    assert (result.status, result.counted) == (PASS, [PASS, PASS, SKIP])
    passing = REPORT.replace("FAIL two: expected 1, seen 2", "PASS two").replace("1 passed, 1 failed", "2 passed, 0 failed")
    result = run_one(pool, tmp_path, report(passing, 1), known)
    assert result.reasons == ["check two: expected to fail (the engine), it passed"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("PASS one\n", "no closing line"),
        ("PASS one\n2 passed, 0 failed, 0 skipped\n", "the closing line says 2 passed, 0 failed, 0 skipped, the lines"),
        ("0 passed, 0 failed, 0 skipped\nPASS one\n", "a result after the closing line"),
        ("PASS one\nPASS one\n2 passed, 0 failed, 0 skipped\n", "two results are called 'one'"),
        ("0 passed, 0 failed, 0 skipped\n", "no result"),
    ],
)
def test_a_report_that_cannot_be_believed_fails(pool: Pool, tmp_path: Path, text: str, words: str) -> None:
    result = run_one(pool, tmp_path, report(text), "cases_from_serial = true")
    assert result.status == FAIL
    assert words in "\n".join(result.reasons)
    assert FAIL in result.counted


def test_an_mmus_known_result(pool: Pool, tmp_path: Path) -> None:
    rest = 'exit = 3\n[case.expect.nested]\nexit = 4\nreason = "x"'
    assert run_one(pool, tmp_path, kernel(exits(3)), rest).status == PASS
    assert run_one(pool, tmp_path, kernel(exits(3)), rest, Mmu.NESTED).status == FAIL


def test_a_case_may_be_skipped(pool: Pool, tmp_path: Path) -> None:
    assert run_one(pool, tmp_path, b"", 'skip = "why"').status == SKIP


def test_an_image_that_cannot_be_booted_fails_its_case(pool: Pool, tmp_path: Path) -> None:
    result = run_one(pool, tmp_path, b"no kernel", "")
    assert result.status == FAIL
    assert "k.bin: no multiboot header" in result.reasons[0]


@pytest.mark.parametrize("name", ["hello", "paging", "processes"])
def test_guests_that_come_with_emu_go_by_name(pool: Pool, tmp_path: Path, name: str) -> None:
    path = suite(tmp_path, case("a", image=name))
    results = list(run_jobs(pool, jobs_of(read_suite(path), tuple(Mmu))))
    assert [result.status for result in results] == [PASS, PASS]


def test_a_worker_that_dies_fails_its_case_alone(pool: Pool, tmp_path: Path) -> None:
    text = case("dies", image="bad.bin") + case("lives", "exit = 5")
    path = suite(tmp_path, text, bad=kernel(kernels.ABORTS), k=kernel(exits(5)))
    results = {result.job.case.name: result for result in run_jobs(pool, jobs_of(read_suite(path), (Mmu.SHADOW,)))}
    assert results["lives"].status == PASS
    assert results["dies"].status == FAIL
    assert "the engine gave up on an instruction" in results["dies"].reasons[0]


def test_memory_is_given_back_between_cases(pool: Pool, tmp_path: Path) -> None:
    """A worker that kept the memory of 24 machines of 128 MiB, all of it touched, would be seen."""
    touch = bytes.fromhex("bf00002000 b900001c00 31c0 fc f3ab")  # 28 MiB from 2 MiB on
    path = suite(tmp_path, "".join(case(f"n{n}", 'memory = "128M"') for n in range(24)), k=kernel(touch + exits(0)))
    results = list(run_jobs(pool, jobs_of(read_suite(path), (Mmu.NESTED,))))
    assert [result.status for result in results] == [PASS] * 24
    assert max(pool.resident_bytes()) < 24 * 28 << 20
