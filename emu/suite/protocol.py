"""The line protocol of guests that check several things (`cases_from_serial = true`).

    PASS name
    FAIL name: expected ..., seen ...
    SKIP name: why
    N passed, N failed, N skipped

Other lines are the guest's own talk. The closing line comes last, and its numbers must be those of the lines before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CHECK = re.compile(r"(PASS|FAIL|SKIP) ([^:]+?)(?:: ?(.*))?$")
CLOSING = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped$")


@dataclass(frozen=True)
class Check:
    """A result that the guest reported."""

    status: str  # PASS, FAIL or SKIP
    name: str
    detail: str


def read_checks(serial: str) -> tuple[list[Check], list[str]]:
    """The results in a guest's serial text, and what is wrong with the report itself."""
    checks: list[Check] = []
    closing: tuple[int, ...] | None = None
    problems: list[str] = []
    for line in serial.splitlines():
        if found := CHECK.match(line):
            if closing is not None:
                problems.append(f"a result after the closing line: {line}")
            checks.append(Check(found[1], found[2].strip(), found[3] or ""))
        elif found := CLOSING.match(line):
            closing = tuple(int(number) for number in found.groups())
    names = [check.name for check in checks]
    problems += [f"two results are called '{name}'" for name in dict.fromkeys(names) if names.count(name) > 1]
    counted = tuple(sum(check.status == status for check in checks) for status in ("PASS", "FAIL", "SKIP"))
    if closing is None:
        problems.append("no closing line 'N passed, N failed, N skipped': the guest did not come to its end")
    elif closing != counted:
        problems.append(f"the closing line says {_counts(closing)}, the lines before it are {_counts(counted)}")
    elif not checks:
        problems.append("no result: a guest that checks nothing proves nothing")
    return checks, problems


def _counts(numbers: tuple[int, ...]) -> str:
    return "{} passed, {} failed, {} skipped".format(*numbers)
