"""What a run was expected to be, and what it was: each difference in words. Pure but for reading golden files."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from emu.events import Outcome
from emu.suite.cases import MMU_PLACE, Bound, Expectation
from emu.suite.protocol import Check
from emu.suite.run import Finished

CONTEXT_LINES = 3  # before and after the first line that differs


def ending(outcome: Outcome, value: int, why: str = "") -> str:
    """How a run ended, in words."""
    text = f"{outcome} with value {value}" if outcome is Outcome.EXITED else str(outcome)
    return f"{text} ({why})" if why else text


def differences(expected: Expectation, run: Finished, checks: list[Check] | None) -> list[str]:
    """Everything but golden files that is not as expected; `checks` are None for a guest without any."""
    found = []
    wanted_value = expected.exit if expected.outcome is Outcome.EXITED else run.value
    if (run.outcome, run.value) != (expected.outcome, wanted_value):
        wanted = ending(expected.outcome, expected.exit)
        found.append(f"end: expected {wanted}, seen {ending(run.outcome, run.value, run.why)}")
    found += [f"serial: expected to contain {text!r}, not seen" for text in expected.serial if text not in run.serial]
    if expected.serial_regex is not None and not re.search(expected.serial_regex, run.serial, re.MULTILINE):
        found.append(f"serial: expected to match {expected.serial_regex!r}, no match")
    if expected.serial_exact is not None and expected.serial_exact != run.serial:
        found.append("serial: " + first_difference(expected.serial_exact, run.serial))
    for bound in expected.events:
        seen = run.counters[bound.counter]
        if not _is_within(bound, seen):
            found.append(f"events: expected {bound.name} {_range(bound)}, seen {seen}")
    return found + _check_differences(expected, checks or [])


def _is_within(bound: Bound, seen: int) -> bool:
    return (bound.least is None or seen >= bound.least) and (bound.most is None or seen <= bound.most)


def _range(bound: Bound) -> str:
    if bound.least == bound.most:
        return f"exactly {bound.least}"
    parts = [f"at least {bound.least}"] if bound.least is not None else []
    return " and ".join(parts + ([f"at most {bound.most}"] if bound.most is not None else []))


def _check_differences(expected: Expectation, checks: list[Check]) -> list[str]:
    """Failed checks that are not known, and known failures that did not fail."""
    failed = {check.name: check for check in checks if check.status == "FAIL"}
    found = [f"check {name}: {check.detail or 'failed'}" for name, check in failed.items() if name not in expected.known_failures]
    names = {check.name for check in checks}
    for name in expected.known_failures:
        if name not in failed:
            seen = "it passed" if name in names else "the guest has no such check"
            found.append(f"check {name}: expected to fail ({expected.reason}), {seen}")
    return found


def golden_path(path: Path, mmu: str) -> Path:
    """A golden file's name with the MMU's in its place."""
    return path.with_name(path.name.replace(MMU_PLACE, mmu))


def golden_difference(path: Path, what: str, seen: str) -> str:
    """How `seen` differs from a golden file; empty if it does not."""
    try:
        expected = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return f"{what}: no golden file {path}: --update makes it"
    except (OSError, UnicodeDecodeError) as error:
        return f"{what}: cannot read {path} ({error})"
    return "" if expected == seen else f"{what}: {path}: {first_difference(expected, seen)}"


def first_difference(expected: str, seen: str) -> str:
    """The first line that differs, with the lines around it."""
    theirs, ours = expected.splitlines(), seen.splitlines()
    pairs = itertools.zip_longest(theirs, ours)
    at = next((number for number, (a, b) in enumerate(pairs) if a != b), None)
    if at is None:
        return "the texts differ only in how lines end"
    lines = [f"first difference in line {at + 1}"]
    lines += [f"    {line}" for line in theirs[max(0, at - CONTEXT_LINES) : at]]
    lines += [f"  - {line}" for line in theirs[at : at + CONTEXT_LINES]] or ["  - (end)"]
    lines += [f"  + {line}" for line in ours[at : at + CONTEXT_LINES]] or ["  + (end)"]
    return "\n".join(lines)
