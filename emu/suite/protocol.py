"""What guests that check several things report, line by line (`cases_from_serial`).

In emu's form:

    PASS name
    FAIL name: expected ..., seen ...
    SKIP name: why
    N passed, N failed, N skipped

In that of kvm-unit-tests (its `lib/report.c`), where names need not differ, and an expected failure counts as a pass (only what is not zero is in its closing line):

    PASS: name
    FAIL: name
    XFAIL: name
    KFAIL: name
    SKIP: name
    SUMMARY: N tests, N unexpected failures, N known failures, N expected failures, N skipped

Other lines are the guest's own talk. The closing line comes last, and its numbers must be those of the lines before it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from emu.suite.cases import KVM_FORM
from emu.wording import cut

CHECK = re.compile(r"(PASS|FAIL|SKIP) ([^:]+?)(?:: ?(.*))?$")
CLOSING = re.compile(r"(\d{1,9}) passed, (\d{1,9}) failed, (\d{1,9}) skipped$", re.ASCII)
KVM_CHECK = re.compile(r"(PASS|FAIL|XPASS|XFAIL|KFAIL|SKIP): (.*)$")
KVM_CLOSING = re.compile(r"SUMMARY: (\d{1,9} tests(?:, \d{1,9} [a-z ]{1,40}){0,4})$", re.ASCII)
KVM_ABORT = "ABORT: "
# Their words: what each counts as, why, and its name in the closing line.
KVM_STATUS = {
    "PASS": ("PASS", "", ""),
    "FAIL": ("FAIL", "", "unexpected failures"),
    "XPASS": ("FAIL", "it was expected to fail, and passed", "unexpected failures"),
    "XFAIL": ("PASS", "failed, as the guest expects", "expected failures"),
    "KFAIL": ("PASS", "failed, as is known", "known failures"),
    "SKIP": ("SKIP", "", "skipped"),
}
MOST_CHECKS = 100_000
MOST_NAME = 500  # characters


@dataclass(frozen=True)
class Check:
    """A result that the guest reported."""

    status: str  # PASS, FAIL or SKIP
    name: str
    detail: str


class _Report:
    """Lines of a report as they come."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.problems: list[str] = []
        self.is_closed = False
        self._names: Counter[str] = Counter()

    def add(self, status: str, name: str, detail: str, *, numbered: bool) -> None:
        """A result; `numbered`: one of the same name as before gets a number."""
        if self.is_closed:
            self.problems.append(f"a result after the closing line: {cut(name)}")
        if len(self.checks) >= MOST_CHECKS:
            return
        name = cut(name, MOST_NAME)
        self._names[name] += 1
        if self._names[name] > 1 and numbered:
            name = f"{name} ({self._names[name]})"
        self.checks.append(Check(status, name, cut(detail)))

    def twice(self) -> list[str]:
        """Names that came more than once."""
        return [name for name, count in self._names.items() if count > 1]

    def count(self, status: str) -> int:
        """Results of a status."""
        return sum(check.status == status for check in self.checks)


def read_checks(serial: str, form: str) -> tuple[list[Check], list[str]]:
    """The results in a guest's serial text, and what is wrong with the report itself."""
    report = _Report()
    read: Callable[[_Report, list[str]], None] = _read_kvm if form == KVM_FORM else _read_own
    read(report, serial.splitlines())
    if len(report.checks) >= MOST_CHECKS:
        report.problems = [f"more than {MOST_CHECKS:,} results"]
    return report.checks, report.problems


def _read_own(report: _Report, lines: list[str]) -> None:
    said: tuple[int, ...] = ()
    for line in lines:
        if found := CHECK.match(line):
            report.add(found[1], found[2].strip(), found[3] or "", numbered=False)
        elif found := CLOSING.match(line):
            said, report.is_closed = tuple(int(number) for number in found.groups()), True
    report.problems += [f"two results are called '{name}'" for name in report.twice()]
    counted = tuple(report.count(status) for status in ("PASS", "FAIL", "SKIP"))
    if not report.is_closed:
        report.problems.append("no closing line 'N passed, N failed, N skipped': the guest did not come to its end")
    elif said != counted:
        report.problems.append(f"the closing line says {_counts(said)}, the lines before it are {_counts(counted)}")
    elif not report.checks:
        report.problems.append("no result: a guest that checks nothing proves nothing")


def _counts(numbers: tuple[int, ...]) -> str:
    return "{} passed, {} failed, {} skipped".format(*numbers)


def _read_kvm(report: _Report, lines: list[str]) -> None:
    seen, said = Counter({"tests": 0}), Counter[str]()
    for line in lines:
        if found := KVM_CHECK.match(line):
            status, detail, counted_as = KVM_STATUS[found[1]]
            seen.update(filter(None, ("tests", counted_as)))
            report.add(status, found[2].strip() or "(no name)", detail, numbered=True)
        elif found := KVM_CLOSING.match(line):
            parts = (part.split(" ", 1) for part in found[1].split(", "))
            said, report.is_closed = Counter({name: int(number) for number, name in parts}), True
        elif line.startswith(KVM_ABORT):
            report.problems.append(f"the guest gave up: {cut(line.removeprefix(KVM_ABORT))}")
    if not report.is_closed:
        report.problems.append("no closing line 'SUMMARY: N tests': the guest did not come to its end")
    elif said != seen | Counter(tests=max(said["tests"], seen["tests"])):  # a test may pass without a line
        report.problems.append(f"the closing line says {_kvm_counts(said)}, the lines before it are {_kvm_counts(seen)}")
    elif not said["tests"]:
        report.problems.append("no result: a guest that checks nothing proves nothing")


def _kvm_counts(numbers: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(numbers.items(), key=lambda item: item[0] != "tests"))
