# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a suite.toml: what is understood, and the line for everything that is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emu import images
from emu.config import Mmu, VmConfig
from emu.errors import FileErrors, UsageError
from emu.events import CATALOGUE, Outcome
from emu.suite.cases import counter_names, find_suites, own_suite
from emu.suite.reading import read_suite
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
    with pytest.raises(UsageError, match=r'\[\[case\]\] "a": disk'):
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
    ("line", "rest", "words"),
    [
        (4, "colour = 1", 'unknown key "colour"'),
        (4, "cases_form_serial = true", 'unknown key "cases_form_serial"; did you mean "cases_from_serial"?'),
        (4, "exit = true", "exit: expected a whole number, not true"),
        (4, "exit = -1", "exit: expected a number from 0 to 4294967295, not -1"),
        (4, "exit = 4294967296", "exit: expected a number from 0 to 4294967295"),
        (4, 'outcome = "exploded"', "outcome: expected one of exited, limit reached"),
        (4, 'outcome = "tripel fault"', 'not "tripel fault"; did you mean "triple fault"?'),
        (5, 'exit = 1\noutcome = "reset"', 'exit and outcome = "reset" exclude each other'),
        (4, 'memory = "much"', "memory: memory size 'much'"),
        (4, 'memory = "1M"', 'memory: expected from 4M to 3G, not "1M"'),
        (4, "memory = 32", 'memory: expected a size such as "32M", not 32'),
        (4, 'mmu = ["both"]', "mmu: expected a list of shadow, nested"),
        (4, 'mmu = ["shadow"]', "a case for one mmu only needs a reason"),
        (4, "limit = 0", "limit: expected a number from 1 to 1000000000000000, not 0"),
        (4, 'limit = "0s"', "limit: expected from 1 to 1000000000000000 instructions"),
        (4, 'limit = "5MB"', "limit: limit '5MB': expected a whole number above 0, with K, M or G"),
        (4, 'limit = "999999999G"', "limit: expected from 1 to 1000000000000000 instructions"),
        (4, 'cpu_limit = "30s"', "cpu_limit: limit '30s': expected a whole number above 0"),
        (4, "timeout = 5", 'timeout: expected a time such as "20s"'),
        (4, 'timeout = "0s"', "timeout: expected from 100ms to 604800s"),
        (4, 'output_limit = "0"', "output_limit: expected from 1K to 1G"),
        (4, "skip_exit = -1", "skip_exit: expected a number from 0"),
        (4, 'cases_from_serial = "tap"', 'cases_from_serial: expected true, false or "kvm-unit-tests", not "tap"'),
        (4, 'serial_regex = "("', "not a regular expression (missing )"),
        (4, f'serial_regex = "{"(" * 3000}"', "serial_regex: not a regular expression (maximum recursion"),
        (4, 'screen_regex = "a{99999999999}"', "screen_regex: not a regular expression (the repetition number is too large"),
        (4, f'serial_regex = "{"a" * 20_000}"', "serial_regex: not a regular expression of at most 10000 characters"),
        (4, "serial = 5", "serial: expected a string or a list of strings, not 5"),
        (4, 'append = "a\\u0000b"', "append: expected no NUL in"),
        (4, "qemu = false", "qemu = false needs a reason"),
        (4, 'qemu = "no"', "qemu: expected true or false"),
        (4, 'qemu_checks = ["x"]\ncases_from_serial = true', "qemu_checks needs qemu_differs"),
        (4, 'qemu_checks = ["x"]\nqemu_differs = "y"', "qemu_checks names checks of the guest's own"),
        (3, 'boot_disk = "d.img"', "boot_disk and image exclude each other"),
        (4, "disk = 16", "disk: expected a string, not 16"),
        (4, 'disk = "0"', "disk: disk of 0 bytes: whole sectors"),
        (4, 'disk = "1"', "disk: disk of 1 bytes: whole sectors"),
        (4, 'disk = ""', "disk: expected the name of a file"),
        (4, 'disk = ["1M", "1M", "1M", "1M", "1M"]', "disk: 5 disks: at most 4 can be attached"),
        (4, 'disk = ["1M", 5]', "disk: expected a string, not 5"),
        (4, 'modules = ["a", "b\\u0000"]', "modules: expected the name of a file"),
        (4, "events = { hidden_fault = 3 }", "events: hidden_fault: expected a table with min, max or equal, not 3"),
        (5, "[case.events]\ndreams = { max = 3 }", 'events: unknown event "dreams"'),
        (5, "[case.events]\nhiden_faults = { max = 3 }", 'events: unknown event "hiden_faults"; did you mean "hidden_faults"?'),
        (4, "events = { exits = { most = 3 } }", 'events: exits: unknown key "most"; known are min, max, equal'),
        (4, "events = { exits = { max = -1 } }", "events: exits.max: expected a number from 0"),
        (4, "events = { exits = { equal = 3, max = 3 } }", "equal stands alone"),
        (4, 'trace_events = ["dreams"]', 'unknown group "dreams"'),
        (
            4,
            'known_failures = ["x"]\nreason = "y"',
            "known_failures names checks of the guest's own: it needs cases_from_serial = true",
        ),
        (4, "[case.expect.nested]\nexit = 1", "expect.nested: a reason is needed"),
        (6, '[case.expect.nested]\nreason = "x"\nimage = "y"', 'expect.nested: unknown key "image"'),
        (4, '[case.expect.both]\nreason = "x"', 'expect: unknown key "both"; known are shadow, nested'),
        (4, "expect = 1", "expect: expected a table"),
    ],
)
def test_a_wrong_key_is_refused_with_file_line_and_case(tmp_path: Path, line: int, rest: str, words: str) -> None:
    path = suite(tmp_path, case("first", rest))
    with pytest.raises(FileErrors) as refused:
        read_suite(path)
    (message,) = refused.value.lines
    assert re.match(rf'{re.escape(str(path))}:{line}(:\d+)?: \[\[case\]\] "first"', message)
    assert words in message
    assert message.isprintable()


def test_all_errors_come_at_once_and_those_of_defaults_once(tmp_path: Path) -> None:
    text = "[defaults]\nexit = -1\nlimit = 5\ncolour = 2\n" + case("a", 'exit = "x"') + case("b") + case("c", "limit = 0")
    path = suite(tmp_path, text)
    with pytest.raises(FileErrors) as refused:
        read_suite(path)
    assert [line.removeprefix(f"{path}:") for line in refused.value.lines] == [
        "2: [defaults]: exit: expected a number from 0 to 4294967295, not -1",
        '4: [defaults]: unknown key "colour"',
        '8: [[case]] "a": exit: expected a whole number, not "x"',
        '16: [[case]] "c": limit: expected a number from 1 to 1000000000000000, not 0',
    ]


@pytest.mark.parametrize(
    ("where", "text", "words"),
    [
        ("", "", "expected at least one [[case]]"),
        (":1", "case = 3", "case: expected [[case]] tables"),
        (":1:7", "[[case]", "not a TOML file"),
        (":1", "colour = 1\n" + case("a"), 'unknown key "colour"; known are case, defaults'),
        (":1", '[[case]]\nimage = "x"', "[[case]] 1: a case without a name"),
        (":2", '[[case]]\nname = "a\\nb"\nimage = "x"', "name: expected a name, printable and on one line"),
        (":1", '[[case]]\nname = "x"', "no image"),
        (":4", '[[case]]\nname = "x"\nboot_disk = "d"\nappend = "y"', "boot_disk and append exclude each other"),
        (":4", '[[case]]\nname = "x"\nboot_disk = "d"\nmodules = []', "boot_disk and modules exclude each other"),
        (":3", '[[case]]\nname = "x"\nboot_disk = 5', "boot_disk: expected a string, not 5"),
        (
            ":4",
            '[[case]]\nname = "x"\nboot_disk = "d"\ndisk = ["1M", "1M", "1M", "1M"]',
            "4 disks beside the boot disk: at most 4 can be attached in all",
        ),
        (":6", case("a") + case("a"), 'two cases are called "a"'),
        (":2", '[defaults]\nname = "a"\n' + case("a"), "[defaults]: the name of a case has no default"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name(tmp_path: Path, where: str, text: str, words: str) -> None:
    path = suite(tmp_path, text)
    with pytest.raises(UsageError) as refused:
        read_suite(path)
    assert str(refused.value).startswith(f"{path}{where}: ")
    assert words in str(refused.value)
    assert len(refused.value.lines) == 1


def test_limits_may_have_suffixes(tmp_path: Path) -> None:
    keys = 'limit = "{}"\ncpu_limit = "2K"\ntimeout = "1s"\noutput_limit = "3K"'
    counted, timed = read_suite(suite(tmp_path, case("a", keys.format("5M")) + case("b", keys.format("30s"))))
    assert (counted.limit, timed.limit) == (5_000_000, 30 * VmConfig.insns_per_second)
    assert (counted.cpu_limit, counted.timeout_us, counted.output_limit) == (2000, 1_000_000, 3072)


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
