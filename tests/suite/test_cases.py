# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a suite.toml: what is understood, and the line for everything that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from emu import images
from emu.config import Mmu
from emu.errors import UsageError
from emu.events import CATALOGUE, Outcome
from emu.suite.cases import counter_names, find_suites, own_suite, read_suite
from emu.trace import counters
from tests.suite.kernels import case, suite


def test_four_lines_are_a_case(tmp_path: Path) -> None:
    (only,) = read_suite(suite(tmp_path, '[[case]]\nname = "a"\nimage = "k.elf"\nexit = 3\n'))
    assert (only.name, only.image, only.mmus) == ("a", tmp_path / "k.elf", (Mmu.SHADOW, Mmu.NESTED))
    assert {expected.exit for expected in only.expect.values()} == {3}


def test_defaults_are_for_all_cases_and_a_case_wins(tmp_path: Path) -> None:
    text = '[defaults]\nexit = 7\nmemory = "8M"\n' + case("a") + case("b", "exit = 1")
    first, second = read_suite(suite(tmp_path, text))
    assert (first.expect[Mmu.SHADOW].exit, second.expect[Mmu.SHADOW].exit) == (7, 1)
    assert first.memory_bytes == second.memory_bytes == 8 << 20


def test_an_mmu_may_be_expected_to_differ(tmp_path: Path) -> None:
    text = case("a", 'exit = 1\n[case.expect.nested]\noutcome = "triple fault"\nreason = "why"')
    expect = read_suite(suite(tmp_path, text))[0].expect
    assert (expect[Mmu.SHADOW].outcome, expect[Mmu.SHADOW].exit) == (Outcome.EXITED, 1)
    assert expect[Mmu.NESTED].outcome is Outcome.TRIPLE_FAULT


def test_a_boot_disk_is_a_file_or_one_that_comes_with_emu(tmp_path: Path) -> None:
    path = suite(tmp_path, '[[case]]\nname = "a"\nboot_disk = "bootsector"\n[[case]]\nname = "b"\nboot_disk = "d.img"\n')
    own, theirs = read_suite(path)
    assert (own.image.name, own.image.is_file(), own.is_disk) == ("bootsector.img", True, True)
    assert (theirs.image, theirs.is_disk) == (tmp_path / "d.img", True)


def test_a_disk_is_a_size_or_a_file(tmp_path: Path) -> None:
    sized, filed, none = read_suite(suite(tmp_path, case("a", 'disk = "2M"') + case("b", 'disk = "d.img"') + case("c")))
    assert (sized.disks, filed.disks, none.disks) == ((2 << 20,), (tmp_path / "d.img",), ())


def test_disks_are_a_list(tmp_path: Path) -> None:
    (several,) = read_suite(suite(tmp_path, case("a", 'disk = ["2M", "d.img", "1M"]')))
    assert several.disks == (2 << 20, tmp_path / "d.img", 1 << 20)
    with pytest.raises(UsageError, match="case 'a': disk"):
        read_suite(suite(tmp_path, case("a", 'disk = ["2M", 3]')))
    with pytest.raises(UsageError, match="disk: 5 disks: at most 4"):
        read_suite(suite(tmp_path, case("a", 'disk = ["1M", "1M", "1M", "1M", "1M"]')))


def test_a_boot_disk_and_disks_beside_it(tmp_path: Path) -> None:
    (both,) = read_suite(suite(tmp_path, '[[case]]\nname = "a"\nboot_disk = "d.img"\ndisk = "1M"\n'))
    assert (both.image, both.is_disk, both.disks) == (tmp_path / "d.img", True, (1 << 20,))


def test_events_have_the_summarys_names_and_those_of_the_trace() -> None:
    names = counter_names()
    assert names["hidden_faults"] == names["hidden_fault"] == names["pf_fixed"] == "pf_fixed"
    assert names["cr3_loads"] == "cr3_load"
    assert {info.counter for info in CATALOGUE.values()} <= set(names)


def test_every_name_is_one_of_the_summarys() -> None:
    import numpy as np

    from emu import events
    from emu.machine import control

    known = counters.counters(np.zeros(control.WORDS, np.int64), np.zeros(events.NUMBER_OF_KINDS, np.int64))
    assert set(counter_names().values()) == set(known)


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("colour = 1", "unknown key 'colour'"),
        ("exit = true", "exit: expected a whole number"),
        ("exit = -1", "exit: expected a whole number"),
        ("exit = 4294967296", "exit: expected what fits in 32 bits"),
        ('outcome = "exploded"', "outcome: expected one of exited, limit reached"),
        ('exit = 1\noutcome = "reset"', "exit and outcome"),
        ('memory = "much"', "memory size 'much'"),
        ("memory = 32", "memory: expected a string"),
        ('mmu = ["both"]', "mmu: expected a list of shadow, nested"),
        ('mmu = ["shadow"]', "a case for one mmu only needs a reason"),
        ("limit = 0", "limit: expected at least 1"),
        ('serial_regex = "("', "not a regular expression"),
        ("serial = 5", "serial: expected a string or a list of strings"),
        ("qemu = false", "qemu = false needs a reason"),
        ('qemu = "no"', "qemu: expected true or false"),
        ('qemu_checks = ["x"]', "qemu_checks needs qemu_differs"),
        ('qemu_checks = ["x"]\nqemu_differs = "y"', "qemu_checks names checks of the guest's own"),
        ('boot_disk = "d.img"', "boot_disk and image exclude each other"),
        ("disk = 16", "disk: expected a string"),
        ('disk = "0"', "disk: disk of 0 bytes: whole sectors"),
        ('disk = "1"', "disk: disk of 1 bytes: whole sectors"),
        ('disk = ""', "disk: expected the name of a file"),
        ("events = { hidden_fault = 3 }", "events.hidden_fault: expected a table with min, max or equal"),
        ("events = { dreams = { max = 3 } }", "events.dreams: unknown event"),
        ("events = { exits = { most = 3 } }", "unknown key 'events.exits.most'"),
        ("events = { exits = { equal = 3, max = 3 } }", "equal stands alone"),
        ('trace_events = ["dreams"]', "unknown group 'dreams'"),
        ('known_failures = ["x"]\nreason = "y"', "needs cases_from_serial"),
        ("[case.expect.nested]\nexit = 1", "expect.nested: a reason is needed"),
        ('[case.expect.nested]\nreason = "x"\nimage = "y"', "unknown key 'expect.nested.image'"),
        ('[case.expect.both]\nreason = "x"', "expected tables [case.expect.MMU]"),
    ],
)
def test_a_wrong_key_is_refused_with_file_and_case(tmp_path: Path, rest: str, words: str) -> None:
    path = suite(tmp_path, case("first", rest))
    with pytest.raises(UsageError) as refused:
        read_suite(path)
    assert str(refused.value).startswith(f"{path}: case 'first': ")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected at least one [[case]]"),
        ("case = 3", "expected at least one [[case]]"),
        ("[[case]", "not a TOML file"),
        ("colour = 1", "unknown key 'colour'"),
        ('[[case]]\nimage = "x"', "a case without a name"),
        ('[[case]]\nname = "x"', "no image"),
        ('[[case]]\nname = "x"\nboot_disk = "d"\nappend = "y"', "boot_disk and append exclude each other"),
        ('[[case]]\nname = "x"\nboot_disk = "d"\nmodules = []', "boot_disk and modules exclude each other"),
        ('[[case]]\nname = "x"\nboot_disk = 5', "boot_disk: expected a string"),
        (case("a") + case("a"), "two cases are called 'a'"),
        ('[defaults]\nname = "a"\n' + case("a"), "[defaults]"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name(tmp_path: Path, text: str, words: str) -> None:
    path = suite(tmp_path, text)
    with pytest.raises(UsageError) as refused:
        read_suite(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert words in str(refused.value)


def test_folders_are_searched_and_must_have_a_suite(tmp_path: Path) -> None:
    inner = suite(tmp_path / "a" / "b", case("x"))
    assert find_suites([tmp_path, inner]) == [inner]
    (tmp_path / "empty").mkdir()
    for path, words in ((tmp_path / "empty", "no suite.toml"), (tmp_path / "none", "no such file")):
        with pytest.raises(UsageError, match=words):
            find_suites([path])


def test_emus_own_suite_lies_beside_its_guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "FOLDER", tmp_path)
    with pytest.raises(UsageError, match="name a folder with a suite.toml"):
        own_suite()
    made = suite(tmp_path / "suite", case("a"))
    assert own_suite() == made
