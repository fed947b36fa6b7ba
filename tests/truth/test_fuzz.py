# SPDX-License-Identifier: GPL-2.0-or-later
"""A bounded part of the fuzzer, with fixed seeds, and every case that was kept; and that the fuzzer would notice."""

from __future__ import annotations

import functools
import json

import pytest

from tests.truth import cases, compare, engines, fuzz, generate, imitation, layout, shrink
from tests.truth.engines import Engine
from tests.truth.mmu import Format

SEEDS = range(240)
KEPT = sorted(fuzz.CASES.glob("*.json"))
FORMATS = [Format.BITS32, Format.PAE, Format.LONG]


def engine(name: str) -> Engine:
    reason = engines.missing(name)
    if reason:
        pytest.skip(reason)
    return engines.ENGINES[name]


@pytest.mark.parametrize("name", engines.ENGINES)
@pytest.mark.parametrize("fmt", FORMATS)
def test_random_cases_agree_with_the_reference(name: str, fmt: Format) -> None:
    chosen = [generate.make(seed, (fmt,)) for seed in SEEDS]
    assert not fuzz.run_all(engine(name), chosen)


@pytest.mark.parametrize("name", engines.ENGINES)
def test_random_cases_that_switch_formats_agree(name: str) -> None:
    assert not fuzz.run_all(engine(name), [generate.make(seed) for seed in SEEDS])


@pytest.mark.parametrize("name", engines.ENGINES)
def test_kept_cases(name: str) -> None:
    assert not fuzz.run_all(engine(name), [json.loads(path.read_text())["operations"] for path in KEPT])


@pytest.mark.parametrize("name", imitation.DEFECTS)
def test_a_wrong_mmu_is_noticed_and_its_case_made_small(name: str) -> None:
    wrong = Engine(name, functools.partial(imitation.run, defect=imitation.DEFECTS[name]))
    chosen = [generate.make(seed) for seed in range(150)]
    differences = fuzz.run_all(wrong, chosen)
    assert differences
    first = chosen[differences[0].number]
    small = shrink.shrink(first, fuzz.fails_on(wrong))
    assert len(small) < len(first)
    assert fuzz.run_all(wrong, [small])


def test_the_reference_agrees_with_itself() -> None:
    """Without a defect the imitated engine shows that reports are made, parsed and compared."""
    right = Engine("right", functools.partial(imitation.run, defect=None))
    assert not fuzz.run_all(right, [generate.make(seed) for seed in range(150)])


def test_a_run_that_ends_early_is_a_failure_of_the_case_it_ended_in() -> None:
    chosen = [generate.make(seed) for seed in range(5)]
    whole, _ = imitation.run(compare.prepare(engines.ENGINES["shadow"], chosen)[1], defect=None)
    cut = Engine("cut", lambda _script: (whole[: len(whole) // 2], "the power failed"))
    (difference,) = [found for found in compare.run(cut, chosen) if found.ended_run]
    assert 0 < difference.number < 4
    assert difference.text == "the power failed"


def test_every_case_is_compared_or_said_to_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Also behind a case that a run ends in; and the command says why."""
    chosen = [generate.make(seed) for seed in range(60)]
    small_board = cases.Board(absent_word=None)  # as of plain Unicorn, which has none
    whole = Engine("whole", functools.partial(imitation.run, defect=None), small_board)
    tally = compare.Tally()
    assert not fuzz.run_all(whole, chosen, tally)
    assert tally.left_out.total() > 0
    assert tally.compared + tally.left_out.total() == len(chosen)

    def cut(script: bytes) -> tuple[bytes, str]:
        data, ending = imitation.run(script, defect=None)
        return (data[: len(data) // 2], "the power failed") if len(script) > 20_000 else (data, ending)

    cut_tally = compare.Tally()
    assert fuzz.run_all(Engine("cut", cut, small_board), chosen, cut_tally)
    assert cut_tally.compared + cut_tally.left_out.total() == len(chosen)
    session = fuzz.Session(fuzz.arguments(["--engines", "nested", "--cases", "40", "--seed", "5", "--no-keep"]))
    session.engines = [whole]
    session.failures, session.tallies = {"whole": 0}, {"whole": compare.Tally()}
    assert session.run() == 0
    output = capsys.readouterr().out
    left = session.tallies["whole"].left_out
    assert f"whole {40 - left.total()} compared, {left.total()} left out, 0 failed" in output
    assert all(f"whole left out {count}: {reason}" in output for reason, count in left.items())


def test_a_seed_gives_the_same_case_every_time() -> None:
    assert generate.make(7) == generate.make(7)
    assert generate.make(7) != generate.make(8)


def test_cases_reach_every_error_code_and_kind_of_page() -> None:
    """So that a change of the generator does not quietly lose what the comparison is for."""
    expected = [found for seed in range(600) for found in cases.expectations(generate.make(seed))[0]]
    codes = {found.error for found in expected if found.vector == 14}
    assert codes >= {0, 1, 2, 3, 4, 5, 6, 7, 9, 0xB, 0xD, 0xF, 0x10, 0x11, 0x14, 0x15, 0x19, 0x1D}
    sizes = {found.page_bytes for found in expected if found.vector == layout.DONE_VECTOR}
    assert sizes == {4 << 10, 2 << 20, 4 << 20, 1 << 30}
    assert any(found.vector == 13 for found in expected)


def test_an_engine_that_is_not_there_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.shutil, "which", lambda _name: None)
    assert engines.missing("qemu") == "qemu-system-x86_64 is not installed"
    assert engines.missing("plain") is None


@pytest.mark.parametrize("wrong", [["--engines", "bochs"], ["--minutes", "0"], ["--seed", "-1"], ["--formats", "5-level"]])
def test_wrong_arguments_end_with_a_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fuzz.arguments(wrong)
    assert ended.value.code == 2
    assert wrong[0].lstrip("-") in capsys.readouterr().err.splitlines()[-1]
